/* One file: its bytes are read by pread into one buffer that grows with the parser's demand, never mapped: a file that is
 * cut short under us gives an error, not a signal. What is read past the header is at most one step of reading ahead. */
#include "gguf/header.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { READ_STEP_MIN = 64 << 10, READ_STEP_MAX = 1 << 20, DEFAULT_ALIGNMENT = 32 };

int gguf_file_fill(struct gguf_file *f, size_t upto, struct err *err)
{
    size_t step = f->have < READ_STEP_MIN ? READ_STEP_MIN : f->have < READ_STEP_MAX ? f->have : READ_STEP_MAX;
    size_t want = f->have + step;
    if (upto <= f->have)
        return 0;
    if (want < upto)
        want = upto;
    if (want > f->bytes)
        want = (size_t)f->bytes;
    if (mem_grow(&f->owned, &f->cap, want, 1, GGUF_MAX_HEADER_BYTES + READ_STEP_MAX, "bytes of header", err) != 0)
        return -1;
    f->data = f->owned;
    while (f->have < want) {
        ssize_t n = pread(f->fd, f->owned + f->have, want - f->have, (off_t)f->have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "reading at byte %zu", f->have);
        if (n == 0)
            return err_set(err, ERR_IO, "the file shrank from %" PRIu64 " to %zu bytes while its header was read", f->bytes, f->have);
        f->have += (size_t)n;
    }
    return 0;
}

void gguf_file_trim(struct gguf_file *f)
{
    unsigned char *less = f->owned ? realloc(f->owned, f->header_bytes) : NULL;
    if (!less)
        return;
    f->data = f->owned = less;
    f->have = f->cap = f->header_bytes;
}

static struct gguf_str kv_name(const void *items, size_t i)
{
    return ((const struct gguf_kv *)items)[i].key;
}

const struct gguf_kv *gguf_file_find(const struct gguf_file *f, const char *key)
{
    size_t i = gguf_index_find(&f->kv_index, f->kv, kv_name, key, strlen(key));
    return i == SIZE_MAX ? NULL : &f->kv[i];
}

static int index_kv(struct gguf_file *f, struct err *err)
{
    char shown[80];
    size_t second;
    int rc = gguf_index_build(&f->kv_index, f->kv, f->n_kv, kv_name, &second, err);
    if (rc == 1)
        return err_set(err, ERR_INPUT, "key '%s' is there twice",
                       err_printable(shown, sizeof shown, f->kv[second].key.s, f->kv[second].key.len));
    return rc;
}

static int set_alignment(struct gguf_file *f, struct err *err)
{
    const struct gguf_kv *kv = gguf_file_find(f, "general.alignment");
    f->alignment = DEFAULT_ALIGNMENT;
    if (kv && gguf_kv_u32(kv, &f->alignment, err) != 0)
        return -1;
    if (f->alignment == 0 || (f->alignment & (f->alignment - 1)) || f->alignment > GGUF_MAX_ALIGNMENT)
        return err_set(err, ERR_INPUT, "key 'general.alignment': %" PRIu32 ", must be a power of two up to %d", f->alignment,
                       GGUF_MAX_ALIGNMENT);
    f->data_offset = ((uint64_t)f->header_bytes + f->alignment - 1) & ~(uint64_t)(f->alignment - 1);
    f->implied_bytes = f->n_tensors ? f->data_offset : f->header_bytes;
    return 0;
}

/* From here on offsets count from the file's start. */
static int place_tensor(struct gguf_file *f, struct gguf_tensor *t, bool allow_header_only, struct err *err)
{
    char shown[80];
    uint64_t end;
    err_printable(shown, sizeof shown, t->name, strlen(t->name));
    if (t->offset % f->alignment)
        return err_set(err, ERR_INPUT, "tensor '%s': its offset %" PRIu64 " is no multiple of the alignment %" PRIu32, shown, t->offset,
                       f->alignment);
    if (__builtin_add_overflow(f->data_offset, t->offset, &t->offset) || __builtin_add_overflow(t->offset, t->bytes, &end) ||
        end > INT64_MAX)
        return err_set(err, ERR_INPUT, "tensor '%s': its end lies beyond 2^63 bytes", shown);
    if (end > f->bytes) {
        if (!allow_header_only)
            return err_set(err, ERR_INPUT,
                           "tensor '%s' ends at byte %" PRIu64 ", the file at %" PRIu64
                           ": it is truncated (download it again) or a header only",
                           shown, end, f->bytes);
        f->header_only = true;
    }
    if (end > f->implied_bytes)
        f->implied_bytes = end;
    return 0;
}

/* Tensors that lie over each other would let a small file ask for any amount of memory. */
static int check_sum(const struct gguf_file *f, struct err *err)
{
    uint64_t sum = 0, room = f->implied_bytes - (f->n_tensors ? f->data_offset : f->header_bytes);
    for (size_t i = 0; i < f->n_tensors; i++)
        if (__builtin_add_overflow(sum, f->tensors[i].bytes, &sum) || sum > room)
            return err_set(err, ERR_INPUT, "tensors overlap: the first %zu of %zu make %" PRIu64 " bytes, all end within %" PRIu64, i + 1, f->n_tensors,
                           sum, room);
    return 0;
}

static int read_header(struct gguf_file *f, bool allow_header_only, struct err *err)
{
    if (gguf_parse(f, err) != 0 || index_kv(f, err) != 0 || set_alignment(f, err) != 0)
        return -1;
    for (size_t i = 0; i < f->n_tensors; i++)
        if (place_tensor(f, &f->tensors[i], allow_header_only, err) != 0)
            return -1;
    return check_sum(f, err);
}

/* The path for messages: its end if it is long, so that there is room for what went wrong. */
static void set_shown(struct gguf_file *f, const char *path)
{
    size_t len = strlen(path), keep = sizeof f->shown - 8;
    const char *mark = "";
    if (len > keep) {
        path += len - keep;
        len = keep;
        mark = "\xE2\x80\xA6";
    }
    memcpy(f->shown, mark, strlen(mark));
    err_printable(f->shown + strlen(mark), sizeof f->shown - strlen(mark), path, len);
}

int gguf_stamp_of(int fd, struct gguf_stamp *ret, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_errno(err, errno, "cannot look at the model file");
    *ret = (struct gguf_stamp){(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                               (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
    return 0;
}

bool gguf_stamp_same(const struct gguf_stamp *a, const struct gguf_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes && a->modified_ns == b->modified_ns;
}

static int open_regular(struct gguf_file *f, const char *path, struct err *err)
{
    struct stat st;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not hold us up */
    if (f->fd < 0)
        return err_errno(err, errno, "cannot open the model file");
    if (fstat(f->fd, &st) != 0)
        return err_errno(err, errno, "cannot look at the model file");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INPUT, "a model must be a regular file, this is %s", S_ISDIR(st.st_mode) ? "a folder" : "none");
    f->bytes = (uint64_t)st.st_size;
    return gguf_stamp_of(f->fd, &f->stamp, err);
}

int gguf_file_open(struct gguf_file *f, const char *path, bool allow_header_only, struct err *err)
{
    *f = (struct gguf_file){.fd = -1};
    set_shown(f, path);
    f->path = strdup(path);
    if (!f->path)
        return err_set(err, ERR_MEMORY, "out of memory");
    int rc = open_regular(f, path, err);
    if (rc == 0)
        rc = read_header(f, allow_header_only, err);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    return rc == 0 ? 0 : err_wrap(err, "%s", f->shown);
}

int gguf_file_open_memory(struct gguf_file *f, const void *data, size_t len, bool allow_header_only, struct err *err)
{
    *f = (struct gguf_file){.fd = -1, .data = data, .have = len, .bytes = len};
    set_shown(f, "(memory)");
    f->path = strdup("(memory)");
    if (!f->path)
        return err_set(err, ERR_MEMORY, "out of memory");
    return read_header(f, allow_header_only, err) == 0 ? 0 : err_wrap(err, "%s", f->shown);
}

void gguf_file_fini(struct gguf_file *f)
{
    free(f->path);
    free(f->owned);
    free(f->kv);
    gguf_index_fini(&f->kv_index);
    free(f->tensors);
    free(f->names);
    free(f->strings);
    free(f->arrays);
    *f = (struct gguf_file){.fd = -1};
}
