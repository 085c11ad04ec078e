/* See cache.h.
 *
 * DIR/lock                     flock'ed while open
 * DIR/<model id, hex>/00000.data   one sparse file a split: chunk n at n * 4 MiB
 * DIR/<model id, hex>/journal      records of fixed size, appended once a chunk's bytes are written; its time of modification
 *                                  is when the model was last used
 *
 * Nothing is synced: after a power cut the journal may know chunks that the data files lack. That costs a look, not
 * correctness, as every chunk is hashed when it is read back. A record that was cut short ends the journal. */
#include "model/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { ID_HEX = 2 * GGUF_ID_BYTES, CHECK_BYTES = 8, MAX_MODELS = 4096, MAX_RECORDS = 4 * MANIFEST_MAX_CHUNKS, DISK_BLOCK = 512 };

struct record {
    uint32_t split, chunk, there, reserved; /* there 0: it was dropped */
    unsigned char check[CHECK_BYTES];       /* over what stands before */
};

struct split_state {
    int fd; /* -1: not opened yet */
    uint32_t n_chunks;
    bool *there;
};

struct chunk_cache {
    pthread_mutex_t lock;
    int dir_fd, lock_fd;
    char *dir;
    uint64_t bytes_max, bytes;
    bool in_use;    /* it is open, and never removed */
    unsigned users; /* loads under way that it is open for */
    char name[ID_HEX + 1]; /* of the model in use */
    int model_fd, journal_fd;
    struct split_state *splits;
    uint32_t n_splits;
};

/* --- models on the disk ------------------------------------------------------------------------------------------------- */

static bool is_model_name(const char *name)
{
    return strlen(name) == ID_HEX && strspn(name, "0123456789abcdef") == ID_HEX;
}

struct model_seen {
    char name[ID_HEX + 1];
    uint64_t bytes;
    struct timespec used;
};

/* What a model's folder takes, and when it was used last. -1: it is no folder of ours. */
static int look_at_model(struct chunk_cache *c, const char *name, struct model_seen *ret)
{
    int fd = openat(c->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *ret = (struct model_seen){0};
    memcpy(ret->name, name, ID_HEX + 1);
    while ((e = readdir(d))) {
        struct stat st;
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        ret->bytes += (uint64_t)st.st_blocks * DISK_BLOCK;
        if (strcmp(e->d_name, "journal") == 0)
            ret->used = st.st_mtim;
    }
    closedir(d);
    return 0;
}

/* Calls for every model; the sum of their bytes. *ret_oldest: the one that was not used for longest, the one in use aside. */
static uint64_t look_around(struct chunk_cache *c, struct model_seen *ret_oldest)
{
    int fd = openat(c->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;
    struct model_seen seen;
    uint64_t sum = 0;
    ret_oldest->name[0] = '\0';
    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    for (uint32_t n = 0; n < MAX_MODELS && (e = readdir(d));) {
        if (!is_model_name(e->d_name) || look_at_model(c, e->d_name, &seen) != 0)
            continue;
        n++;
        sum += seen.bytes;
        bool older = !ret_oldest->name[0] || seen.used.tv_sec < ret_oldest->used.tv_sec ||
                     (seen.used.tv_sec == ret_oldest->used.tv_sec && seen.used.tv_nsec < ret_oldest->used.tv_nsec);
        if (older && !(c->in_use && strcmp(seen.name, c->name) == 0))
            *ret_oldest = seen;
    }
    closedir(d);
    return sum;
}

/* The journal goes first: what is left of a removal that was cut short is then an empty model. */
static void remove_model(struct chunk_cache *c, const char *name)
{
    int fd = openat(c->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    unlinkat(fd, "journal", 0);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            unlinkat(fd, e->d_name, 0);
    closedir(d);
    unlinkat(c->dir_fd, name, AT_REMOVEDIR);
}

/* Under the lock. Removes models until `more` bytes have room. */
static bool make_room(struct chunk_cache *c, uint64_t more)
{
    struct model_seen oldest;
    if (more > c->bytes_max)
        return false;
    while (c->bytes > c->bytes_max - more) {
        uint64_t before = look_around(c, &oldest);
        c->bytes = before;
        if (c->bytes <= c->bytes_max - more)
            return true;
        if (!oldest.name[0])
            return false;
        remove_model(c, oldest.name);
        c->bytes = look_around(c, &oldest);
        if (c->bytes >= before) /* it cannot be removed: no use in trying for ever */
            return false;
    }
    return true;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static void forget_model(struct chunk_cache *c)
{
    for (uint32_t i = 0; i < c->n_splits; i++) {
        if (c->splits[i].fd >= 0)
            close(c->splits[i].fd);
        free(c->splits[i].there);
    }
    free(c->splits);
    c->splits = NULL;
    c->n_splits = 0;
    if (c->model_fd >= 0)
        close(c->model_fd);
    if (c->journal_fd >= 0)
        close(c->journal_fd);
    c->model_fd = c->journal_fd = -1;
    c->in_use = false;
    c->users = 0;
}

static void close_folder(struct chunk_cache *c)
{
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    if (c->dir_fd >= 0)
        close(c->dir_fd);
    c->lock_fd = c->dir_fd = -1;
}

static int open_folder(struct chunk_cache *c, struct err *err)
{
    if ((mkdir(c->dir, 0700) != 0 && errno != EEXIST) || (c->dir_fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        (c->lock_fd = openat(c->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        return err_errno(err, errno, "cache %s", c->dir);
    if (flock(c->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(err, ERR_BUSY, "cache %s is in use by another process; give this one a folder of its own", c->dir);
    return err_errno(err, errno, "cache %s: locking it", c->dir);
}

/* Somebody made room on the disk by removing it. */
static bool folder_is_gone(const struct chunk_cache *c)
{
    struct stat st;
    return c->dir_fd < 0 || (fstat(c->dir_fd, &st) == 0 && st.st_nlink == 0);
}

struct chunk_cache *cache_open(const char *dir, uint64_t bytes_max, struct err *err)
{
    struct model_seen oldest;
    struct chunk_cache *c = mem_new(1, sizeof *c, err);
    if (!c)
        return NULL;
    c->dir_fd = c->lock_fd = c->model_fd = c->journal_fd = -1;
    c->bytes_max = bytes_max;
    pthread_mutex_init(&c->lock, NULL);
    if (!(c->dir = strdup(dir))) {
        err_set(err, ERR_MEMORY, "out of memory");
        goto error;
    }
    if (open_folder(c, err) != 0)
        goto error;
    c->bytes = look_around(c, &oldest);
    make_room(c, 0);
    return c;
error:
    cache_close(c);
    return NULL;
}

void cache_close(struct chunk_cache *c)
{
    if (!c)
        return;
    forget_model(c);
    close_folder(c);
    free(c->dir);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* --- the journal -------------------------------------------------------------------------------------------------------- */

static struct record make_record(const struct chunk_cache *c, uint32_t split, uint32_t chunk, bool there)
{
    struct record r = {.split = split, .chunk = chunk, .there = there};
    unsigned char hash[MANIFEST_HASH_BYTES];
    (void)c;
    manifest_hash_bytes(MANIFEST_BLAKE2B, &r, offsetof(struct record, check), hash);
    memcpy(r.check, hash, CHECK_BYTES);
    return r;
}

/* -1: errno. What a full disk left of a record is taken away: it would hide those that come after it. */
static int append(struct chunk_cache *c, uint32_t split, uint32_t chunk, bool there)
{
    struct record r = make_record(c, split, chunk, there);
    off_t end = lseek(c->journal_fd, 0, SEEK_END);
    ssize_t n = write(c->journal_fd, &r, sizeof r);
    if (n == (ssize_t)sizeof r)
        return 0;
    int why = n < 0 ? errno : ENOSPC;
    if (n > 0 && ftruncate(c->journal_fd, end) != 0)
        why = errno;
    errno = why;
    return -1;
}

/* Takes in what stands there, up to the first record that is not whole; from there on it is cut off. */
static int read_journal(struct chunk_cache *c, struct err *err)
{
    struct record r;
    uint64_t n = 0;
    while (n < MAX_RECORDS && pread(c->journal_fd, &r, sizeof r, (off_t)(n * sizeof r)) == (ssize_t)sizeof r) {
        struct record right = make_record(c, r.split, r.chunk, r.there == 1);
        if (memcmp(&r, &right, sizeof r) != 0)
            break;
        if (r.split < c->n_splits && r.chunk < c->splits[r.split].n_chunks)
            c->splits[r.split].there[r.chunk] = r.there == 1;
        n++;
    }
    if (ftruncate(c->journal_fd, (off_t)(n * sizeof r)) != 0 || futimens(c->journal_fd, NULL) != 0)
        return err_errno(err, errno, "cache %s: journal of model %s", c->dir, c->name);
    return 0;
}

static int open_model(struct chunk_cache *c, const struct manifest *m, struct err *err)
{
    if ((mkdirat(c->dir_fd, c->name, 0700) != 0 && errno != EEXIST) ||
        (c->model_fd = openat(c->dir_fd, c->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0 ||
        (c->journal_fd = openat(c->model_fd, "journal", O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600)) < 0)
        return err_errno(err, errno, "cache %s: model %s", c->dir, c->name);
    if (!(c->splits = mem_new(manifest_n_splits(m), sizeof *c->splits, err)))
        return -1;
    for (; c->n_splits < manifest_n_splits(m); c->n_splits++) {
        struct split_state *s = &c->splits[c->n_splits];
        s->fd = -1;
        s->n_chunks = manifest_n_chunks(m, c->n_splits);
        if (!(s->there = mem_new(s->n_chunks, sizeof *s->there, err)))
            return -1;
    }
    c->in_use = true;
    return read_journal(c, err);
}

/* Under the lock, with nobody's model in use. */
static int use_anew(struct chunk_cache *c, const struct manifest *m, const char *name, struct err *err)
{
    forget_model(c);
    if (folder_is_gone(c)) {
        close_folder(c);
        c->bytes = 0;
        if (open_folder(c, err) != 0) {
            close_folder(c);
            return -1;
        }
    }
    memcpy(c->name, name, sizeof c->name);
    if (open_model(c, m, err) != 0) {
        forget_model(c);
        return -1;
    }
    c->users = 1;
    return 0;
}

int cache_use(struct chunk_cache *c, const struct manifest *m, struct err *err)
{
    char name[ID_HEX + 1];
    int rc = 0;

    for (int i = 0; i < GGUF_ID_BYTES; i++)
        snprintf(name + 2 * i, 3, "%02x", manifest_model_id(m)[i]);
    pthread_mutex_lock(&c->lock);
    if (c->users == 0)
        rc = use_anew(c, m, name, err);
    else if (strcmp(name, c->name) == 0)
        c->users++;
    else
        rc = err_set(err, ERR_BUSY, "cache %s: another model is being loaded", c->dir);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void cache_leave(struct chunk_cache *c)
{
    pthread_mutex_lock(&c->lock);
    c->users--;
    pthread_mutex_unlock(&c->lock);
}

/* --- chunks ------------------------------------------------------------------------------------------------------------- */

static bool is_there(const struct chunk_cache *c, uint32_t split, uint32_t chunk)
{
    return split < c->n_splits && chunk < c->splits[split].n_chunks && c->splits[split].there[chunk];
}

bool cache_has(struct chunk_cache *c, uint32_t split, uint32_t chunk)
{
    pthread_mutex_lock(&c->lock);
    bool there = is_there(c, split, chunk);
    pthread_mutex_unlock(&c->lock);
    return there;
}

/* Under the lock; -1: errno. */
static int data_fd(struct chunk_cache *c, uint32_t split)
{
    struct split_state *s = &c->splits[split];
    char name[32];
    snprintf(name, sizeof name, "%05" PRIu32 ".data", split);
    if (s->fd < 0)
        s->fd = openat(c->model_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return s->fd;
}

static bool read_all(int fd, char *to, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t n = pread(fd, to, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        to += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static int write_all(int fd, const char *from, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, from, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        from += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static void drop(struct chunk_cache *c, uint32_t split, uint32_t chunk, int fd, uint32_t bytes)
{
    pthread_mutex_lock(&c->lock);
    if (is_there(c, split, chunk)) {
        c->splits[split].there[chunk] = false;
        append(c, split, chunk, false);
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)chunk * MANIFEST_CHUNK_BYTES, bytes) == 0)
            c->bytes -= bytes < c->bytes ? bytes : c->bytes;
    }
    pthread_mutex_unlock(&c->lock);
}

bool cache_get(struct chunk_cache *c, const struct manifest *m, uint32_t split, uint32_t chunk, void *to)
{
    uint32_t bytes = manifest_chunk_bytes(m, split, chunk);
    pthread_mutex_lock(&c->lock);
    int fd = is_there(c, split, chunk) ? data_fd(c, split) : -1;
    pthread_mutex_unlock(&c->lock);
    if (fd < 0)
        return false;
    if (read_all(fd, to, bytes, (uint64_t)chunk * MANIFEST_CHUNK_BYTES) && manifest_matches(m, split, chunk, to, bytes))
        return true;
    drop(c, split, chunk, fd, bytes);
    return false;
}

int cache_put(struct chunk_cache *c, const struct manifest *m, uint32_t split, uint32_t chunk, const void *data, struct err *err)
{
    uint32_t bytes = manifest_chunk_bytes(m, split, chunk);
    int fd = -1;
    pthread_mutex_lock(&c->lock);
    bool room = split < c->n_splits && bytes > 0 && !is_there(c, split, chunk) && make_room(c, bytes);
    if (room && (fd = data_fd(c, split)) >= 0)
        c->bytes += bytes;
    pthread_mutex_unlock(&c->lock);
    if (!room)
        return cache_has(c, split, chunk);
    int rc = fd < 0 ? -1 : write_all(fd, data, bytes, (uint64_t)chunk * MANIFEST_CHUNK_BYTES);
    int why = errno;
    pthread_mutex_lock(&c->lock);
    if (rc == 0 && append(c, split, chunk, true) == 0)
        c->splits[split].there[chunk] = true;
    else {
        why = rc == 0 ? errno : why;
        rc = -1;
        if (fd >= 0)
            c->bytes -= bytes;
    }
    pthread_mutex_unlock(&c->lock);
    return rc == 0 ? 1 : err_errno(err, why, "cache %s: keeping chunk %" PRIu32 " of split %" PRIu32, c->dir, chunk, split);
}

uint64_t cache_bytes(struct chunk_cache *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t bytes = c->bytes;
    pthread_mutex_unlock(&c->lock);
    return bytes;
}
