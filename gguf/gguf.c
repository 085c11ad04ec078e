/* A model: one file or a set of splits, and one table of all their tensors. The metadata is that of the first split; the
 * others carry little but their number. Every file is read once, by header.c, and closed before the next one is opened. */
#include "gguf/gguf.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "gguf/header.h"
#include "gguf/split.h"

_Static_assert(GGUF_ID_BYTES == crypto_generichash_BYTES, "the model id is BLAKE2b-256");

struct gguf {
    struct gguf_file *files; /* n_files opened ones of count */
    uint32_t n_files, count;
    struct gguf_tensor *tensors; /* of all files, in order; the names are the files' */
    size_t n_tensors;
    struct gguf_index tensor_index;
};

/* Number and count of splits as the metadata has them; 0 and 1 where it has none. */
static int split_numbers(const struct gguf_file *f, uint32_t *ret_split, uint32_t *ret_count, struct err *err)
{
    const struct gguf_kv *no = gguf_file_find(f, "split.no"), *count = gguf_file_find(f, "split.count");
    *ret_split = 0;
    *ret_count = 1;
    if (count && gguf_kv_u32(count, ret_count, err) != 0)
        return -1;
    if (*ret_count <= 1) { /* 0: written by tools that merged the splits */
        *ret_count = 1;
        return 0;
    }
    if (*ret_count > GGUF_MAX_SPLITS)
        return err_set(err, ERR_LIMIT, "key 'split.count': %" PRIu32 " splits, at most %d allowed", *ret_count, GGUF_MAX_SPLITS);
    if (!no)
        return err_set(err, ERR_INPUT, "key 'split.no' is missing in a file of %" PRIu32 " splits", *ret_count);
    if (gguf_kv_u32(no, ret_split, err) != 0)
        return -1;
    if (*ret_split >= *ret_count)
        return err_set(err, ERR_INPUT, "key 'split.no': %" PRIu32 ", must be below split.count, %" PRIu32, *ret_split, *ret_count);
    return 0;
}

/* That the file is split `split` of `count`, as its name says. */
static int check_split(const struct gguf_file *f, uint32_t split, uint32_t count, struct err *err)
{
    uint32_t file_split, file_count;
    if (split_numbers(f, &file_split, &file_count, err) != 0)
        return -1;
    if (file_split != split || file_count != count)
        return err_set(err, ERR_INPUT,
                       "its metadata says split %" PRIu32 " of %" PRIu32 ", its name %" PRIu32 " of %" PRIu32
                       ": rename it, or get the right file",
                       file_split + 1, file_count, split + 1, count);
    return 0;
}

/* What the set as a whole must hold: split.tensors.count where a file gives it. */
static int check_tensor_counts(const struct gguf *g, struct err *err)
{
    for (uint32_t i = 0; i < g->n_files; i++) {
        const struct gguf_kv *kv = gguf_file_find(&g->files[i], "split.tensors.count");
        uint32_t n;
        if (!kv || g->count == 1)
            continue;
        int rc = gguf_kv_u32(kv, &n, err);
        if (rc == 0 && n != g->n_tensors)
            rc = err_set(err, ERR_INPUT, "key 'split.tensors.count': %" PRIu32 " tensors, but the %" PRIu32 " splits hold %zu", n, g->count,
                         g->n_tensors);
        if (rc != 0)
            return err_wrap(err, "%s", g->files[i].shown);
    }
    return 0;
}

static struct gguf_str tensor_name(const void *items, size_t i)
{
    const char *name = ((const struct gguf_tensor *)items)[i].name;
    return (struct gguf_str){name, strlen(name)};
}

/* One table of all tensors, and its index. */
static int join_tensors(struct gguf *g, struct err *err)
{
    char shown[80];
    size_t second, n = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < g->n_files; i++)
        n += g->files[i].n_tensors;
    if (n > GGUF_MAX_TENSORS)
        return err_set(err, ERR_LIMIT, "%s: %zu tensors in all splits, at most %d allowed", gguf_shown(g), n, GGUF_MAX_TENSORS);
    g->tensors = mem_new(n, sizeof *g->tensors, err);
    if (!g->tensors)
        return -1;
    for (uint32_t i = 0; i < g->n_files; i++) {
        struct gguf_file *f = &g->files[i];
        for (size_t k = 0; k < f->n_tensors; k++) {
            f->tensors[k].split = i;
            if (__builtin_add_overflow(bytes, f->tensors[k].bytes, &bytes) || bytes > INT64_MAX)
                return err_set(err, ERR_INPUT, "%s: its tensors make more than 2^63 bytes", f->shown);
            g->tensors[g->n_tensors++] = f->tensors[k];
        }
        free(f->tensors);
        f->tensors = NULL;
    }
    int rc = gguf_index_build(&g->tensor_index, g->tensors, g->n_tensors, tensor_name, &second, err);
    if (rc == 1) {
        const struct gguf_tensor *t = &g->tensors[second];
        return err_set(err, ERR_INPUT, "%s: tensor '%s' is there twice%s", g->files[t->split].shown,
                       err_printable(shown, sizeof shown, t->name, strlen(t->name)),
                       g->n_files > 1 ? ": a part of another model lies among these; get all parts from one place" : "");
    }
    return rc;
}

/* Opens the file's companions; the given one is files[0] so far, and moves to its place. */
static int open_splits(struct gguf *g, const char *path, bool allow_header_only, struct err *err)
{
    uint32_t split, count, name_split = 0, name_count = 1;
    size_t prefix_len = 0;
    bool named = gguf_split_parse(path, &name_split, &name_count, &prefix_len);

    if (split_numbers(&g->files[0], &split, &count, err) != 0)
        return err_wrap(err, "%s", g->files[0].shown);
    if (count > 1 && !named)
        return err_set(err, ERR_INPUT,
                       "%s: it is split %" PRIu32 " of %" PRIu32 ", so its name must end in -%05" PRIu32 "-of-%05" PRIu32
                       ".gguf for the others to be found",
                       g->files[0].shown, split + 1, count, split + 1, count);
    if (named && check_split(&g->files[0], name_split, name_count, err) != 0)
        return err_wrap(err, "%s", g->files[0].shown);
    if (count == 1)
        return 0;

    struct gguf_file *files = mem_new(count, sizeof *files, err);
    if (!files)
        return -1;
    files[split] = g->files[0];
    free(g->files);
    g->files = files;
    g->n_files = g->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct gguf_file *f = &files[i];
        if (i == split)
            continue;
        char *other = gguf_split_format(path, prefix_len, i, count, err);
        if (!other)
            return -1;
        int rc = gguf_file_open(f, other, allow_header_only, err);
        free(other);
        if (rc != 0)
            return err_wrap(err, "split %" PRIu32 " of %" PRIu32 " (all must lie in one folder)", i + 1, count);
        if (check_split(f, i, count, err) != 0)
            return err_wrap(err, "%s", f->shown);
    }
    return 0;
}

static struct gguf *create(struct err *err)
{
    struct gguf *g = mem_new(1, sizeof *g, err);
    if (!g)
        return NULL;
    g->files = mem_new(1, sizeof *g->files, err);
    if (!g->files) {
        free(g);
        return NULL;
    }
    g->n_files = g->count = 1;
    return g;
}

struct gguf *gguf_open(const char *path, bool allow_header_only, struct err *err)
{
    struct gguf *g = create(err);
    if (!g)
        return NULL;
    if (gguf_file_open(&g->files[0], path, allow_header_only, err) != 0 || open_splits(g, path, allow_header_only, err) != 0 ||
        join_tensors(g, err) != 0 || check_tensor_counts(g, err) != 0) {
        gguf_close(g);
        return NULL;
    }
    return g;
}

struct gguf *gguf_open_memory(const void *data, size_t len, bool allow_header_only, struct err *err)
{
    struct gguf *g = create(err);
    if (!g)
        return NULL;
    if (gguf_file_open_memory(&g->files[0], data, len, allow_header_only, err) != 0)
        goto error;
    if (check_split(&g->files[0], 0, 1, NULL) != 0) {
        err_set(err, ERR_UNSUPPORTED, "%s: a file of a set of splits cannot be opened alone", g->files[0].shown);
        goto error;
    }
    if (join_tensors(g, err) != 0)
        goto error;
    return g;
error:
    gguf_close(g);
    return NULL;
}

struct gguf *gguf_open_headers(const struct gguf_bytes *headers, uint32_t n, struct err *err)
{
    struct gguf *g;
    if (n == 0 || n > GGUF_MAX_SPLITS) {
        err_set(err, ERR_LIMIT, "a model of %" PRIu32 " splits, allowed are 1 to %d", n, GGUF_MAX_SPLITS);
        return NULL;
    }
    if (!(g = create(err)))
        return NULL;
    free(g->files);
    g->n_files = 0;
    g->count = n;
    if (!(g->files = mem_new(n, sizeof *g->files, err)))
        goto error;
    g->n_files = n;
    for (uint32_t i = 0; i < n; i++)
        if (gguf_file_open_memory(&g->files[i], headers[i].data, headers[i].len, true, err) != 0 ||
            check_split(&g->files[i], i, n, err) != 0) {
            err_wrap(err, "header %" PRIu32 " of %" PRIu32, i + 1, n);
            goto error;
        }
    if (join_tensors(g, err) != 0 || check_tensor_counts(g, err) != 0)
        goto error;
    return g;
error:
    gguf_close(g);
    return NULL;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->n_files; i++)
        gguf_file_fini(&g->files[i]);
    free(g->files);
    free(g->tensors);
    gguf_index_fini(&g->tensor_index);
    free(g);
}

const char *gguf_shown(const struct gguf *g)
{
    return g->files[0].shown;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->files[0].version;
}

uint32_t gguf_alignment(const struct gguf *g)
{
    return g->files[0].alignment;
}

uint32_t gguf_n_splits(const struct gguf *g)
{
    return g->n_files;
}

const char *gguf_split_path(const struct gguf *g, uint32_t split)
{
    return split < g->n_files ? g->files[split].path : NULL;
}

uint64_t gguf_split_bytes(const struct gguf *g, uint32_t split)
{
    return split < g->n_files ? g->files[split].bytes : 0;
}

uint64_t gguf_split_implied_bytes(const struct gguf *g, uint32_t split)
{
    return split < g->n_files ? g->files[split].implied_bytes : 0;
}

struct gguf_stamp gguf_split_stamp(const struct gguf *g, uint32_t split)
{
    return split < g->n_files ? g->files[split].stamp : (struct gguf_stamp){0};
}

uint64_t gguf_split_data_offset(const struct gguf *g, uint32_t split)
{
    return split < g->n_files ? g->files[split].data_offset : 0;
}

const void *gguf_split_header(const struct gguf *g, uint32_t split, size_t *ret_bytes)
{
    if (split >= g->n_files)
        return NULL;
    *ret_bytes = g->files[split].header_bytes;
    return g->files[split].data;
}

bool gguf_from_memory(const struct gguf *g)
{
    return !g->files[0].owned;
}

bool gguf_header_only(const struct gguf *g)
{
    for (uint32_t i = 0; i < g->n_files; i++)
        if (g->files[i].header_only)
            return true;
    return false;
}

/* Lengths go in before what they measure, so that no two different sets give the same stream of bytes. */
void gguf_model_id(const struct gguf *g, unsigned char ret_id[GGUF_ID_BYTES])
{
    static const char domain[] = "stagecoach model 1";
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, GGUF_ID_BYTES);
    crypto_generichash_update(&state, (const unsigned char *)domain, sizeof domain);
    for (uint32_t i = 0; i < g->n_files; i++) {
        const struct gguf_file *f = &g->files[i];
        uint64_t sizes[2] = {f->header_bytes, f->implied_bytes};
        crypto_generichash_update(&state, (const unsigned char *)sizes, sizeof sizes);
        crypto_generichash_update(&state, f->data, f->header_bytes);
    }
    crypto_generichash_final(&state, ret_id, GGUF_ID_BYTES);
}

size_t gguf_n_kv(const struct gguf *g)
{
    return g->files[0].n_kv;
}

const struct gguf_kv *gguf_kv(const struct gguf *g, size_t i)
{
    return i < g->files[0].n_kv ? &g->files[0].kv[i] : NULL;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    return gguf_file_find(&g->files[0], key);
}

size_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    size_t i = gguf_index_find(&g->tensor_index, g->tensors, tensor_name, name, strlen(name));
    return i == SIZE_MAX ? NULL : &g->tensors[i];
}
