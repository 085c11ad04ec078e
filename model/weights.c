/* See weights.h.
 *
 * Two walks over the range's tensors: the first counts, the second gives every matrix and vector its place in one block of
 * pages and lists the chunks to read. Then the team reads the chunks: straight to their places where the backend keeps the
 * file's layout, else some rows at a time into a thread's own buffer, from where they are repacked while they are warm. So no
 * tensor is ever held twice. Vectors of half floats are read into the upper half of their place and widened downwards. */
#include "model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/fmath.h"

enum { ALIGN = 64, CHUNK_BYTES = 1 << 20, CHUNK_ROWS = 16 };

/* A run of bytes of a file that goes to one place. */
struct chunk {
    uint32_t split;
    uint64_t offset;
    size_t bytes;
    char *to; /* packed: the matrix, else the bytes' own place */
    bool packed;
    enum quant_type type;
    uint32_t row0, rows, cols;
};

struct widening {
    float *to;
    const struct gguf_tensor *tensor;
};

struct weights_memory {
    char *pages;
    size_t bytes;
};

struct layout {
    const struct model_params *p;
    struct backend *be;
    struct weights *w; /* NULL: only count */
    char *base;
    uint64_t used, each; /* each: where experts in tensors of their own began */
    struct chunk *chunks;
    size_t n_chunks, cap_chunks;
    struct widening *widenings;
    size_t n_widenings, cap_widenings;
};

static uint64_t take(struct layout *l, uint64_t bytes)
{
    uint64_t at = (l->used + ALIGN - 1) / ALIGN * ALIGN;
    l->used = at + bytes;
    return at;
}

static int add_chunk(struct layout *l, struct chunk c, struct err *err)
{
    if (mem_grow(&l->chunks, &l->cap_chunks, l->n_chunks + 1, sizeof *l->chunks, SIZE_MAX, "chunks to read", err) != 0)
        return -1;
    l->chunks[l->n_chunks++] = c;
    return 0;
}

/* --- places ------------------------------------------------------------------------------------------------------------- */

/* One matrix of w->rows rows whose first is row `file_row` of the tensor: chunks of whole rows. */
static int lay_matrix(struct layout *l, const struct gguf_tensor *t, uint64_t file_row, const struct weight *w, char *to, struct err *err)
{
    uint32_t step = (uint32_t)(CHUNK_BYTES / w->row_bytes) / CHUNK_ROWS * CHUNK_ROWS;
    step = step ? step : CHUNK_ROWS;
    for (uint32_t r = 0; r < w->rows; r += step) {
        uint32_t n = w->rows - r < step ? w->rows - r : step;
        bool packed = w->layout != LAYOUT_FILE;
        struct chunk c = {t->split, t->offset + (file_row + r) * w->row_bytes, n * w->row_bytes, packed ? to : to + r * w->row_bytes,
                          packed,   w->type, r, n, w->cols};
        if (add_chunk(l, c, err) != 0)
            return -1;
    }
    return 0;
}

static struct weight describe(const struct layout *l, const struct gguf_tensor *t, uint32_t rows, uint32_t mats)
{
    uint32_t cols = (uint32_t)t->dims[0];
    size_t mat_bytes = l->be->ops->weight_bytes(l->be, t->type, rows, cols);
    return (struct weight){.type = t->type, .layout = l->be->ops->weight_layout(l->be, t->type), .rows = rows, .cols = cols, .mats = mats,
                           .row_bytes = (size_t)quant_bytes(t->type, cols), .mat_bytes = (mat_bytes + ALIGN - 1) / ALIGN * ALIGN};
}

/* Rows [first, first + w->rows) of each of a tensor's matrices, or the one matrix of expert `expert`, to *member. */
static int lay_weight(struct layout *l, const struct model_tensor *t, uint32_t first, struct weight w, struct weight *member, struct err *err)
{
    uint64_t at = t->whole || t->expert == 0 ? take(l, w.mats * w.mat_bytes) : l->each;
    l->each = at;
    if (!l->w)
        return 0;
    w.data = l->base + at;
    *member = w;
    for (uint32_t m = t->whole ? 0 : t->expert; m < (t->whole ? w.mats : t->expert + 1); m++) {
        uint64_t file_row = first + (t->whole ? (uint64_t)m * t->tensor->dims[1] : 0);
        if (lay_matrix(l, t->tensor, file_row, &w, l->base + at + m * w.mat_bytes, err) != 0)
            return -1;
    }
    return 0;
}

static int lay_vec(struct layout *l, const struct gguf_tensor *t, const float **ret, struct err *err)
{
    uint64_t n = t->dims[0], at = take(l, 4 * n);
    if (!l->w)
        return 0;
    char *to = l->base + at;
    *ret = (const float *)to;
    if (t->type != QUANT_F32) {
        if (mem_grow(&l->widenings, &l->cap_widenings, l->n_widenings + 1, sizeof *l->widenings, SIZE_MAX, "vectors", err) != 0)
            return -1;
        l->widenings[l->n_widenings++] = (struct widening){(float *)to, t};
        to += 2 * n;
    }
    return add_chunk(l, (struct chunk){.split = t->split, .offset = t->offset, .bytes = t->bytes, .to = to}, err);
}

/* A layer's tensor goes to the members of struct layer that its rule names. */
static int lay_layer_tensor(struct layout *l, const struct model_tensor *t, struct err *err)
{
    const struct tensor_rule *rule = t->rule;
    struct layer unused = {0}, *layer = l->w ? &l->w->layers[t->layer - l->w->first] : &unused;
    uint32_t row = 0;
    const float *floats = NULL;
    if (rule->parts[0].kind == PART_VEC && lay_vec(l, t->tensor, &floats, err) != 0)
        return -1;
    for (int i = 0; i < 3 && rule->parts[i].kind != PART_NONE; i++) {
        uint32_t share = (uint32_t)model_dim(l->p, rule->parts[i].dim);
        void *member = (char *)layer + rule->parts[i].offset;
        if (rule->parts[i].kind == PART_VEC) {
            if (l->w)
                *(struct vec *)member = (struct vec){floats + row, share};
        } else if (lay_weight(l, t, row, describe(l, t->tensor, share, rule->each ? l->p->n_experts : 1), member, err) != 0) {
            return -1;
        }
        row += share;
    }
    return 0;
}

static int lay_tensor(void *arg, const struct model_tensor *t, struct err *err)
{
    struct layout *l = arg;
    struct weights unused = {0}, *w = l->w ? l->w : &unused;
    uint32_t rows = (uint32_t)t->tensor->dims[1];
    switch (t->place) {
    case PLACE_LAYER: return lay_layer_tensor(l, t, err);
    case PLACE_HEAD: return lay_weight(l, t, 0, describe(l, t->tensor, rows, 1), &w->head.out, err);
    case PLACE_EMBED:
        if (lay_weight(l, t, 0, describe(l, t->tensor, rows, 1), &w->embed, err) != 0)
            return -1;
        if (l->p->tied && l->w)
            w->head.out = w->embed;
        return 0;
    case PLACE_HEAD_NORM: w->head.norm.weight.n = l->p->embd; return lay_vec(l, t->tensor, &w->head.norm.weight.data, err);
    case PLACE_ROPE_FREQS: return lay_vec(l, t->tensor, &w->rope_freqs, err);
    case PLACE_ROPE_LONG: return lay_vec(l, t->tensor, &w->rope_long, err);
    case PLACE_ROPE_SHORT: return lay_vec(l, t->tensor, &w->rope_short, err);
    }
    return 0;
}

int weights_bytes(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head, struct backend *be,
                  uint64_t *ret, struct err *err)
{
    struct layout l = {.p = p, .be = be};
    if (model_tensors(g, p, first, last, embed, head, lay_tensor, &l, err) != 0)
        return -1;
    *ret = l.used;
    return 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

struct reading {
    struct backend *be;
    const struct chunk *chunks;
    const int *fds;
    char *buffers; /* a part for each thread */
    size_t buffer_bytes;
    _Atomic int failed; /* errno, or -1 at an early end */
    _Atomic uint32_t failed_chunk;
};

static int read_bytes(int fd, char *to, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t n = pread(fd, to, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : -1;
        to += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static void read_chunk(void *arg, uint32_t task, uint32_t thread)
{
    struct reading *r = arg;
    const struct chunk *c = &r->chunks[task];
    char *to = c->packed ? r->buffers + thread * r->buffer_bytes : c->to;
    if (atomic_load_explicit(&r->failed, memory_order_relaxed))
        return;
    int rc = read_bytes(r->fds[c->split], to, c->bytes, c->offset);
    if (rc != 0) {
        atomic_store(&r->failed_chunk, task);
        atomic_store(&r->failed, rc);
        return;
    }
    if (c->packed)
        r->be->ops->weight_put(r->be, c->type, to, c->row0, c->rows, c->cols, c->to);
}

static int reading_error(const struct gguf *g, struct reading *r, struct err *err)
{
    const struct chunk *c = &r->chunks[atomic_load(&r->failed_chunk)];
    const char *path = gguf_split_path(g, c->split);
    int failed = atomic_load(&r->failed);
    if (failed == -1)
        return err_set(err, ERR_INPUT, "%s: the file ended while tensors were read at byte %llu; it was changed or cut meanwhile", path,
                       (unsigned long long)c->offset);
    return err_errno(err, failed, "%s: reading %zu bytes at %llu", path, c->bytes, (unsigned long long)c->offset);
}

/* Reads everything, in rounds small enough for the progress to move. */
static int read_all(const struct gguf *g, const struct layout *l, struct threadpool *pool, weights_progress_fn progress, void *progress_arg,
                    const int *fds, struct err *err)
{
    struct reading r = {.be = l->be, .fds = fds};
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < l->n_chunks; i++) {
        total += l->chunks[i].bytes;
        if (l->chunks[i].packed && l->chunks[i].bytes > r.buffer_bytes)
            r.buffer_bytes = l->chunks[i].bytes;
    }
    r.buffer_bytes = (r.buffer_bytes + ALIGN - 1) / ALIGN * ALIGN;
    size_t buffers_bytes = r.buffer_bytes * threadpool_size(pool);
    if (!(r.buffers = mem_pages_alloc(buffers_bytes, err)))
        return err_wrap(err, "buffers for loading");
    size_t round = progress ? 32 * (size_t)threadpool_size(pool) : l->n_chunks;
    int rc = 0;
    for (size_t at = 0; at < l->n_chunks && rc == 0; at += round) {
        size_t n = l->n_chunks - at < round ? l->n_chunks - at : round;
        r.chunks = l->chunks + at;
        threadpool_run(pool, read_chunk, &r, (uint32_t)n);
        if (atomic_load(&r.failed))
            rc = reading_error(g, &r, err);
        for (size_t i = at; i < at + n; i++)
            done += l->chunks[i].bytes;
        if (progress && rc == 0)
            progress(progress_arg, done, total);
    }
    mem_pages_free(r.buffers, buffers_bytes);
    return rc;
}

static void widen(const struct layout *l)
{
    for (size_t i = 0; i < l->n_widenings; i++) {
        const struct gguf_tensor *t = l->widenings[i].tensor;
        const char *raw = (const char *)l->widenings[i].to + 2 * t->dims[0];
        for (uint64_t k = 0; k < t->dims[0]; k++) {
            uint16_t h;
            memcpy(&h, raw + 2 * k, sizeof h); /* floats 0 to k - 1 end at 4k <= 2n + 2k: they have not reached it */
            l->widenings[i].to[k] = t->type == QUANT_F16 ? sc_f16_to_f32(h) : sc_bf16_to_f32(h);
        }
    }
}

static int open_all(const struct gguf *g, int *fds, struct err *err)
{
    for (uint32_t i = 0; i < gguf_n_splits(g); i++) {
        const char *path = gguf_split_path(g, i);
        if (!path)
            return err_set(err, ERR_USAGE, "the model's header came from memory: there is no file to load tensors from");
        if ((fds[i] = open(path, O_RDONLY | O_CLOEXEC)) < 0)
            return err_errno(err, errno, "%s", path);
    }
    return 0;
}

struct weights *weights_load(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head,
                             struct backend *be, struct threadpool *pool, weights_progress_fn progress, void *progress_arg, struct err *err)
{
    struct layout l = {.p = p, .be = be};
    struct weights *w = NULL;
    uint32_t n_fds = gguf_n_splits(g);
    int *fds = NULL;
    uint64_t bytes;

    if (weights_bytes(g, p, first, last, embed, head, be, &bytes, err) != 0)
        return NULL;
    if (!(w = mem_new(1, sizeof *w, err)) || !(w->memory = mem_new(1, sizeof *w->memory, err)) ||
        !(w->layers = mem_new(last - first, sizeof *w->layers, err)) || !(fds = mem_new(n_fds, sizeof *fds, err)))
        goto error;
    for (uint32_t i = 0; i < n_fds; i++)
        fds[i] = -1;
    w->first = first;
    w->last = last;
    w->has_embed = embed;
    w->has_head = head;
    w->bytes = bytes;
    w->head.norm.eps = p->norm_eps;
    w->head.softcap = p->final_softcap;
    for (uint32_t i = first; i < last; i++)
        model_layer_init(p, i, &w->layers[i - first]);
    if (!(w->memory->pages = mem_pages_alloc(bytes, err)))
        goto error;
    w->memory->bytes = bytes;
    l.w = w;
    l.base = w->memory->pages;
    if (model_tensors(g, p, first, last, embed, head, lay_tensor, &l, err) != 0 || open_all(g, fds, err) != 0 ||
        read_all(g, &l, pool, progress, progress_arg, fds, err) != 0)
        goto error;
    widen(&l);
    goto done;
error:
    weights_destroy(w);
    w = NULL;
done:
    for (uint32_t i = 0; fds && i < n_fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(fds);
    free(l.chunks);
    free(l.widenings);
    return w;
}

void weights_destroy(struct weights *w)
{
    if (!w)
        return;
    if (w->memory)
        mem_pages_free(w->memory->pages, w->memory->bytes);
    free(w->memory);
    free(w->layers);
    free(w);
}
