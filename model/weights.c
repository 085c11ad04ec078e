/* See weights.h.
 *
 * Two walks over the range's tensors: the first counts, the second lays them out in one block of pages (matrices as they
 * stand in the file, each on a cache line; vectors as floats) and lists pieces to read. Then the team reads the pieces, each
 * a few MiB, straight to their places. Vectors of half floats are read aside and widened. */
#include "model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/fmath.h"

enum { ALIGN = 64, PIECE_BYTES = 4 << 20 };

struct piece {
    char *to;
    uint32_t split;
    uint64_t offset;
    size_t bytes;
};

struct weights_memory {
    char *pages;
    size_t bytes;
};

struct layout {
    const struct model_params *p;
    struct weights *w; /* NULL: only count */
    char *base;
    uint64_t used;
    struct piece *pieces;
    size_t n_pieces, cap_pieces;
    struct widening {
        float *to;
        const struct gguf_tensor *tensor;
    } *widenings; /* half-float vectors: raw halves lie in the upper half of their place */
    size_t n_widenings, cap_widenings;
};

static uint64_t place_bytes(const struct model_tensor *t)
{
    bool vec = t->rule ? t->rule->parts[0].kind == PART_VEC : t->place != PLACE_EMBED && t->place != PLACE_HEAD;
    return vec ? 4 * t->tensor->dims[0] : t->tensor->bytes;
}

static int add_pieces(struct layout *l, char *to, const struct gguf_tensor *t, struct err *err)
{
    for (uint64_t at = 0; at < t->bytes; at += PIECE_BYTES) {
        if (mem_grow(&l->pieces, &l->cap_pieces, l->n_pieces + 1, sizeof *l->pieces, SIZE_MAX, "pieces to read", err) != 0)
            return -1;
        uint64_t rest = t->bytes - at;
        l->pieces[l->n_pieces++] = (struct piece){to + at, t->split, t->offset + at, rest < PIECE_BYTES ? (size_t)rest : PIECE_BYTES};
    }
    return 0;
}

/* A vector's place; half floats are read to its second half and widened upwards afterwards. */
static int lay_vec(struct layout *l, char *to, const struct gguf_tensor *t, struct err *err)
{
    if (t->type == QUANT_F32)
        return add_pieces(l, to, t, err);
    if (mem_grow(&l->widenings, &l->cap_widenings, l->n_widenings + 1, sizeof *l->widenings, SIZE_MAX, "vectors", err) != 0)
        return -1;
    l->widenings[l->n_widenings++] = (struct widening){(float *)to, t};
    return add_pieces(l, to + 2 * t->dims[0], t, err);
}

static struct weight weight_of(const struct gguf_tensor *t, const char *data, uint32_t cols, uint32_t rows, uint32_t mats)
{
    size_t row_bytes = (size_t)quant_bytes(t->type, cols);
    return (struct weight){.type = t->type, .layout = LAYOUT_FILE, .rows = rows, .cols = cols, .mats = mats, .row_bytes = row_bytes,
                           .mat_bytes = row_bytes * rows, .data = data};
}

/* Hands a layer's tensor out to the members of struct layer that its rule names. */
static void bind(struct layout *l, const struct model_tensor *t, const char *data)
{
    struct layer *layer = &l->w->layers[t->layer - l->w->first];
    const struct tensor_rule *rule = t->rule;
    uint64_t row = 0;
    for (int i = 0; i < 3 && rule->parts[i].kind != PART_NONE; i++) {
        uint32_t share = (uint32_t)model_dim(l->p, rule->parts[i].dim);
        char *member = (char *)layer + rule->parts[i].offset;
        if (rule->parts[i].kind == PART_VEC) {
            *(struct vec *)member = (struct vec){(const float *)data + row, share};
        } else {
            struct weight all = weight_of(t->tensor, data, (uint32_t)t->tensor->dims[0], (uint32_t)t->tensor->dims[1],
                                          rule->each ? l->p->n_experts : 1);
            *(struct weight *)member = rule->each ? all : weight_rows(&all, (uint32_t)row, share);
        }
        row += share;
    }
}

static void bind_single(struct layout *l, const struct model_tensor *t, const char *data)
{
    struct weights *w = l->w;
    struct weight table = weight_of(t->tensor, data, (uint32_t)t->tensor->dims[0], (uint32_t)t->tensor->dims[1], 1);
    switch (t->place) {
    case PLACE_EMBED:
        w->embed = table;
        if (l->p->tied)
            w->head.out = table;
        break;
    case PLACE_HEAD: w->head.out = table; break;
    case PLACE_HEAD_NORM: w->head.norm.weight = (struct vec){(const float *)data, l->p->embd}; break;
    case PLACE_ROPE_FREQS: w->rope_freqs = (const float *)data; break;
    case PLACE_ROPE_LONG: w->rope_long = (const float *)data; break;
    case PLACE_ROPE_SHORT: w->rope_short = (const float *)data; break;
    case PLACE_LAYER: break;
    }
}

static int lay_tensor(void *arg, const struct model_tensor *t, struct err *err)
{
    struct layout *l = arg;
    uint64_t bytes = place_bytes(t), at = l->used;
    /* Experts in tensors of their own lie as closely as those in one. */
    bool follows = t->rule && !t->whole && t->expert > 0;
    if (!follows)
        at = (at + ALIGN - 1) / ALIGN * ALIGN;
    l->used = at + bytes;
    if (!l->w)
        return 0;
    char *to = l->base + at;
    if (t->place != PLACE_LAYER)
        bind_single(l, t, to);
    else if (!follows)
        bind(l, t, to);
    bool vec = t->rule ? t->rule->parts[0].kind == PART_VEC : t->place != PLACE_EMBED && t->place != PLACE_HEAD;
    return vec ? lay_vec(l, to, t->tensor, err) : add_pieces(l, to, t->tensor, err);
}

int weights_bytes(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head, uint64_t *ret,
                  struct err *err)
{
    struct layout l = {.p = p};
    if (model_tensors(g, p, first, last, embed, head, lay_tensor, &l, err) != 0)
        return -1;
    *ret = l.used;
    return 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

struct reading {
    const struct piece *pieces;
    const int *fds;
    _Atomic int failed; /* errno, or -1 at an early end */
    _Atomic uint32_t failed_piece;
};

static void read_piece(void *arg, uint32_t task, uint32_t thread)
{
    struct reading *r = arg;
    const struct piece *piece = &r->pieces[task];
    size_t done = 0;
    (void)thread;
    while (done < piece->bytes && !atomic_load_explicit(&r->failed, memory_order_relaxed)) {
        ssize_t n = pread(r->fds[piece->split], piece->to + done, piece->bytes - done, (off_t)(piece->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            atomic_store(&r->failed_piece, task);
            atomic_store(&r->failed, n < 0 ? errno : -1);
            return;
        }
        done += (size_t)n;
    }
}

static int reading_error(const struct gguf *g, struct reading *r, struct err *err)
{
    const struct piece *piece = &r->pieces[atomic_load(&r->failed_piece)];
    const char *path = gguf_split_path(g, piece->split);
    int failed = atomic_load(&r->failed);
    if (failed == -1)
        return err_set(err, ERR_INPUT, "%s: the file ended while tensors were read at byte %llu; it was changed or cut meanwhile", path,
                       (unsigned long long)piece->offset);
    return err_errno(err, failed, "%s: reading %zu bytes at %llu", path, piece->bytes, (unsigned long long)piece->offset);
}

/* Reads everything, in rounds small enough for the progress to move. */
static int read_all(const struct gguf *g, struct layout *l, struct threadpool *pool, weights_progress_fn progress, void *progress_arg,
                    const int *fds, struct err *err)
{
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < l->n_pieces; i++)
        total += l->pieces[i].bytes;
    size_t round = progress ? 8 * (size_t)threadpool_size(pool) : l->n_pieces;
    for (size_t at = 0; at < l->n_pieces; at += round) {
        size_t n = l->n_pieces - at < round ? l->n_pieces - at : round;
        struct reading r = {.pieces = l->pieces + at, .fds = fds};
        threadpool_run(pool, read_piece, &r, (uint32_t)n);
        if (atomic_load(&r.failed))
            return reading_error(g, &r, err);
        for (size_t i = at; i < at + n; i++)
            done += l->pieces[i].bytes;
        if (progress)
            progress(progress_arg, done, total);
    }
    return 0;
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
                             struct threadpool *pool, weights_progress_fn progress, void *progress_arg, struct err *err)
{
    struct layout l = {.p = p};
    struct weights *w = NULL;
    uint32_t n_fds = gguf_n_splits(g);
    int *fds = NULL;
    uint64_t bytes;

    if (weights_bytes(g, p, first, last, embed, head, &bytes, err) != 0)
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
    free(l.pieces);
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
