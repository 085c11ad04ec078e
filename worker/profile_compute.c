/* What a backend multiplies and how it attends, through its own operations, whatever device is behind them. See profile.h.
 *
 * A step is timed as a stage takes one, with its rows brought and fetched, and the time of one that does nothing else is taken off.
 * Where a layer is little beside that, as on a GPU, a step has many layers; where it is much, a step has one, each time the next, so
 * that none is found in a cache. Sizes are large where a device is fast and small where it is slow: nothing takes long.
 *
 * Matrices are filled with a byte that makes ordinary numbers in every quantization, and layers have norms, without which numbers
 * would grow from one to the next: denormal and infinite ones are slow on some processors. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sysinfo.h"
#include "kernels/cuda/cuda.h"
#include "worker/profile.h"

enum {
    LAYERS_MAX = 160, CACHES_MAX = 512, /* layers' weights, keys and values */
    FILL = 0x11, FILL_BYTES = 1 << 20,
    HOST_CACHES = 64 << 20, DEVICE_CACHES = 256 << 20, /* layers together are larger; the host's may be larger still */
    ROOM_SHARE = 4,    /* of a device's free memory as much as this part at most */
    LITTLE = 10,       /* so many times a step that does nothing a layer must take to be timed alone */
    SLOW_ROWS = 32,    /* of a prompt, where more would take too long */
};
static const double LAYER_MAX_S = 0.25; /* about: of one layer with a prompt's rows */

const uint32_t profile_rows[PROFILE_ROWS] = {1, 8, 512};

/* --- memory of the backend ------------------------------------------------------------------------------------------------ */

static int fill(struct backend *be, void *to, size_t bytes, struct err *err)
{
    char *from = mem_new(FILL_BYTES, 1, err);
    int rc = from ? 0 : -1;
    if (from)
        memset(from, FILL, FILL_BYTES);
    for (size_t at = 0; at < bytes && rc == 0; at += FILL_BYTES)
        rc = be->ops->write(be, (char *)to + at, from, bytes - at < FILL_BYTES ? bytes - at : FILL_BYTES, err);
    free(from);
    return rc;
}

/* Bytes that a measurement may take there; more than one needs on the host. */
static uint64_t room_of(struct backend *be)
{
    uint64_t free_now = 0, total;
    if (be->ops->host_memory || !backend_is_cuda(be) || backend_cuda_memory(be, &free_now, &total, NULL) != 0)
        return UINT64_MAX;
    return free_now / ROOM_SHARE;
}

static uint64_t beyond_caches(const struct backend *be)
{
    return be->ops->host_memory ? sysinfo_beyond_caches(HOST_CACHES) : DEVICE_CACHES;
}

/* --- steps ---------------------------------------------------------------------------------------------------------------- */

/* Layers to be gone through in turn. */
struct course {
    struct backend *be;
    struct run_shape shape;
    struct batch batch;
    const float *hidden;
    uint32_t n_layers, next;
    void (*layer)(struct run *run, void *arg, uint32_t i); /* enqueues the i-th */
    void *arg;
};

static int step(struct course *c, struct run *run, uint32_t layers, struct err *err)
{
    run->ops->begin(run, &c->batch);
    run->ops->set_hidden(run, c->hidden);
    for (uint32_t i = 0; i < layers; i++)
        c->layer(run, c->arg, c->next++ % c->n_layers);
    return run->ops->finish(run, err);
}

/* Steps of so many layers for about ms, at least one, after one that is not counted: seconds each, on average. A run of their own, since
 * a device may keep what its first step was made of. */
static int time_steps(struct course *c, uint32_t layers, unsigned ms, double *ret_s, struct err *err)
{
    struct run *run = c->be->ops->run_create(c->be, &c->shape, err);
    int rc = run ? step(c, run, layers, err) : -1;
    struct profile_watch w;
    profile_watch_start(&w, ms);
    while (rc == 0 && (rc = step(c, run, layers, err)) == 0 && !profile_watch_done(&w))
        ;
    if (run)
        c->be->ops->run_destroy(run);
    *ret_s = w.n ? (w.now - w.began) / w.n : 0;
    return rc;
}

/* Seconds for one layer. */
static int time_layer(struct course *c, unsigned ms, double *ret_s, struct err *err)
{
    double nothing, took, least;
    uint32_t layers = 1;
    if (time_steps(c, 0, ms / 8, &nothing, err) != 0 || time_steps(c, 1, ms / 8, &took, err) != 0)
        return -1;
    if (took < nothing * (1 + LITTLE)) {
        double most = LAYER_MAX_S / took + 1;
        layers = most < c->n_layers ? (uint32_t)most : c->n_layers;
    }
    if ((layers > 1 || took < ms * 1e-3) && time_steps(c, layers, ms, &took, err) != 0)
        return -1;
    least = took / 20; /* so little that the two cannot be told apart: not less than nothing */
    *ret_s = (took - nothing > least ? took - nothing : least) / layers;
    return 0;
}

/* --- products ------------------------------------------------------------------------------------------------------------- */

struct size {
    uint32_t embd, ff;
};
static const struct size sizes[] = {{256, 256}, {256, 1024}, {1024, 4096}, {4096, 8192}};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Layers that are nothing but their feed-forward parts. */
struct products {
    struct course course;
    enum quant_type type;
    struct size size;
    struct layer layers[LAYERS_MAX];
    void *weights[3], *norm;
    size_t weight_bytes[3]; /* of all layers */
    float *hidden;
    uint32_t *zeros;
};

static double weights_of(struct size s)
{
    return 3.0 * s.embd * s.ff;
}

static void ffn(struct run *run, void *arg, uint32_t i)
{
    const struct layer *l = &((struct products *)arg)->layers[i];
    run->ops->ffn_in(run, l);
    run->ops->ffn_out(run, l);
}

static size_t layer_bytes(struct backend *be, enum quant_type type, struct size s)
{
    return 2 * be->ops->weight_bytes(be, type, s.ff, s.embd) + be->ops->weight_bytes(be, type, s.embd, s.ff);
}

static int make_weights(struct products *p, int i, uint32_t rows, uint32_t cols, struct err *err)
{
    struct backend *be = p->course.be;
    size_t bytes = be->ops->weight_bytes(be, p->type, rows, cols);
    p->weight_bytes[i] = bytes * p->course.n_layers;
    if (!(p->weights[i] = be->ops->alloc(be, p->weight_bytes[i], err)) || fill(be, p->weights[i], p->weight_bytes[i], err) != 0)
        return -1;
    for (uint32_t l = 0; l < p->course.n_layers; l++) {
        struct weight *w = i == 0 ? &p->layers[l].gate : i == 1 ? &p->layers[l].up : &p->layers[l].down;
        *w = (struct weight){.type = p->type, .layout = be->ops->weight_layout(be, p->type), .rows = rows, .cols = cols, .mats = 1,
                             .row_bytes = (size_t)quant_bytes(p->type, cols), .mat_bytes = bytes, .data = (char *)p->weights[i] + l * bytes};
    }
    return 0;
}

static void end_products(struct products *p)
{
    struct backend *be = p->course.be;
    for (int i = 0; i < 3; i++)
        if (p->weights[i])
            be->ops->free(be, p->weights[i], p->weight_bytes[i]);
    if (p->norm)
        be->ops->free(be, p->norm, p->size.embd * sizeof(float));
    free(p->hidden);
    free(p->zeros);
    *p = (struct products){.course = {.be = be}, .type = p->type};
}

static int make_norms(struct products *p, struct err *err)
{
    struct backend *be = p->course.be;
    size_t bytes = p->size.embd * sizeof(float);
    if (!(p->norm = be->ops->alloc(be, bytes, err)) || be->ops->write(be, p->norm, p->hidden, bytes, err) != 0)
        return -1;
    for (uint32_t l = 0; l < p->course.n_layers; l++)
        p->layers[l].ffn_norm = (struct norm){.weight = {.data = p->norm, .n = p->size.embd}, .eps = 1e-5f};
    return 0;
}

static int begin_products(struct products *p, struct size s, struct err *err)
{
    struct course *c = &p->course;
    size_t bytes = layer_bytes(c->be, p->type, s);
    uint64_t beyond = beyond_caches(c->be), room = room_of(c->be);
    uint32_t rows = profile_rows[PROFILE_PROMPT];
    p->size = s;
    beyond = beyond < room ? beyond : room;
    c->n_layers = beyond / bytes + 1 < LAYERS_MAX ? (uint32_t)(beyond / bytes + 1) : LAYERS_MAX;
    if (!(p->hidden = mem_new((size_t)rows * s.embd, sizeof *p->hidden, err)) || !(p->zeros = mem_new(rows, sizeof *p->zeros, err)))
        return -1;
    for (size_t i = 0; i < (size_t)rows * s.embd; i++)
        p->hidden[i] = (float)(i % 17) - 8;
    if (make_weights(p, 0, s.ff, s.embd, err) != 0 || make_weights(p, 1, s.ff, s.embd, err) != 0 || make_weights(p, 2, s.embd, s.ff, err) != 0)
        return -1;
    c->hidden = p->hidden;
    c->layer = ffn;
    c->arg = p;
    c->batch = (struct batch){.seq = p->zeros, .pos = p->zeros, .token = (const int32_t *)p->zeros, .table = {p->zeros, p->zeros}, .table_stride = 1};
    c->shape = (struct run_shape){.max_seqs = 1, .max_blocks = 1, .embd = s.embd, .q_dim = s.embd, .k_dim = s.embd, .v_dim = s.embd, .head_dim_k = 64, .head_dim_v = 64,
                                  .ff_dim = s.ff, .n_ropes = 1};
    return make_norms(p, err);
}

static int time_rows(struct products *p, uint32_t rows, unsigned ms, double *ret_s, struct err *err)
{
    p->course.batch.n_rows = p->course.shape.max_rows = rows;
    return time_layer(&p->course, ms, ret_s, err);
}

/* The largest matrices of which a layer does not take too long; that they fit is asked before. *ret_row_s: a row of a few, in them. */
static int choose_size(struct products *p, double *ret_row_s, struct err *err)
{
    struct backend *be = p->course.be;
    int most = be->ops->host_memory ? SIZES - 2 : SIZES - 1; /* what has memory of its own is wide */
    for (int i = 0;; i++) {
        double took, larger = i < most ? weights_of(sizes[i + 1]) / weights_of(sizes[i]) : 0;
        if (begin_products(p, sizes[i], err) != 0 || time_rows(p, profile_rows[PROFILE_FEW], 0, &took, err) != 0)
            return -1;
        *ret_row_s = took / profile_rows[PROFILE_FEW];
        if (i == most || *ret_row_s * larger * profile_rows[PROFILE_PROMPT] > LAYER_MAX_S ||
            layer_bytes(be, p->type, sizes[i + 1]) > room_of(be))
            return 0;
        end_products(p);
    }
}

int profile_rate(struct backend *be, unsigned ms, struct profile_rate *ret, struct err *err)
{
    struct products *p = mem_new(1, sizeof *p, err);
    double row_s = 0, took;
    int rc;
    if (!p)
        return -1;
    p->course.be = be;
    p->type = ret->type;
    rc = choose_size(p, &row_s, err);
    for (int k = 0; k < PROFILE_ROWS && rc == 0; k++) {
        uint32_t rows = k == PROFILE_PROMPT && row_s * profile_rows[k] > 2 * LAYER_MAX_S ? SLOW_ROWS : profile_rows[k];
        if ((rc = time_rows(p, rows, ms, &took, err)) == 0)
            ret->per_s[k] = 2 * weights_of(p->size) * rows / took;
    }
    end_products(p);
    free(p);
    return rc;
}

/* --- attention ------------------------------------------------------------------------------------------------------------- */

/* So many sequences of so many positions; a prompt's last rows. */
struct scene {
    uint32_t heads, kv_heads, positions, rows;
};
static const struct scene scenes[] = {{8, 2, 64, 16}, {32, 8, 1024, 128}};
enum { HEAD_DIM = 64, SEQS = 8, SCENE_BLOCKS = 1024 / KV_BLOCK };

struct attending {
    struct course course;
    struct scene scene;
    struct layer layer;
    struct kv_view kv;
    void *base;
    size_t bytes, seq_bytes, layer_bytes; /* of all; of a sequence; of those that a layer looks at: then the next layer begins */
    uint32_t table[SEQS * SCENE_BLOCKS], seq[128], pos[128];
    int32_t token[128];
    float *hidden;
};

static void attend(struct run *run, void *arg, uint32_t i)
{
    struct attending *a = arg;
    struct kv_view kv = a->kv;
    kv.base = (char *)a->base + i * a->layer_bytes;
    run->ops->attend(run, &a->layer, &kv);
}

static void end_attending(struct attending *a)
{
    struct backend *be = a->course.be;
    if (a->base)
        be->ops->free(be, a->base, a->bytes);
    free(a->hidden);
    *a = (struct attending){.course = {.be = be}};
}

static int begin_attending(struct attending *a, struct scene s, struct err *err)
{
    struct course *c = &a->course;
    uint32_t blocks = s.positions / KV_BLOCK, wide = s.heads * HEAD_DIM, narrow = s.kv_heads * HEAD_DIM;
    uint64_t beyond = beyond_caches(c->be), room = room_of(c->be);
    a->scene = s;
    a->layer.attn = (struct attention){.n_heads = s.heads, .n_kv_heads = s.kv_heads, .head_dim_k = HEAD_DIM, .head_dim_v = HEAD_DIM, .scale = 0.125f,
                                       .group = KV_FULL};
    a->kv = (struct kv_view){.type = KV_F16, .block_bytes = c->be->ops->kv_block_bytes(&a->layer.attn, KV_F16), .n_blocks = SEQS * blocks};
    a->seq_bytes = blocks * a->kv.block_bytes;
    beyond = beyond < room ? beyond : room;
    a->bytes = (beyond / (SEQS * a->seq_bytes) + 1 < CACHES_MAX ? (size_t)(beyond / (SEQS * a->seq_bytes) + 1) : CACHES_MAX) * SEQS * a->seq_bytes;
    for (uint32_t i = 0; i < a->kv.n_blocks; i++)
        a->table[i] = i;
    if (!(a->hidden = mem_new((size_t)s.rows * wide, sizeof *a->hidden, err)) || !(a->base = c->be->ops->alloc(c->be, a->bytes, err)) ||
        fill(c->be, a->base, a->bytes, err) != 0)
        return -1;
    c->hidden = a->hidden;
    c->layer = attend;
    c->arg = a;
    c->batch = (struct batch){.seq = a->seq, .pos = a->pos, .token = a->token, .table = {a->table, a->table}, .table_stride = blocks};
    c->shape = (struct run_shape){.max_seqs = SEQS, .max_blocks = blocks, .embd = wide, .q_dim = wide, .k_dim = narrow, .v_dim = narrow,
                                  .head_dim_k = HEAD_DIM, .head_dim_v = HEAD_DIM, .ff_dim = wide, .n_ropes = 1};
    return 0;
}

/* Operations a second with one row, with few of as many sequences, or with a prompt's last. */
static int attend_rows(struct attending *a, int which, unsigned ms, double *ret_per_s, struct err *err)
{
    struct course *c = &a->course;
    uint32_t rows = which == PROFILE_PROMPT ? a->scene.rows : profile_rows[which], layers;
    double seen = 0, took;
    for (uint32_t i = 0; i < rows; i++) {
        a->seq[i] = which == PROFILE_PROMPT ? 0 : i;
        a->pos[i] = which == PROFILE_PROMPT ? a->scene.positions - rows + i : a->scene.positions - 1;
        seen += a->pos[i] + 1;
    }
    a->layer_bytes = (which == PROFILE_FEW ? SEQS : 1) * a->seq_bytes;
    layers = (uint32_t)(a->bytes / a->layer_bytes);
    c->n_layers = layers < CACHES_MAX ? layers : CACHES_MAX;
    c->batch.n_rows = c->shape.max_rows = rows;
    if (time_layer(c, ms, &took, err) != 0)
        return -1;
    *ret_per_s = 2.0 * a->scene.heads * (HEAD_DIM + HEAD_DIM) * seen / took;
    return 0;
}

static double scene_ops(const struct scene *s)
{
    return 2.0 * s->heads * (HEAD_DIM + HEAD_DIM) * s->rows * s->positions;
}

int profile_attention(struct backend *be, unsigned ms, double ret_per_s[PROFILE_ROWS], struct err *err)
{
    struct attending *a = mem_new(1, sizeof *a, err);
    double per_s = 0;
    int rc;
    if (!a)
        return -1;
    a->course.be = be;
    rc = begin_attending(a, scenes[0], err);
    if (rc == 0 && (rc = attend_rows(a, PROFILE_FEW, 0, &per_s, err)) == 0 && scene_ops(&scenes[1]) / per_s < LAYER_MAX_S) {
        end_attending(a);
        rc = begin_attending(a, scenes[1], err);
    }
    for (int k = 0; k < PROFILE_ROWS && rc == 0; k++)
        rc = attend_rows(a, k, ms, &ret_per_s[k], err);
    end_attending(a);
    free(a);
    return rc;
}

/* --- memory and copies ----------------------------------------------------------------------------------------------------- */

int profile_memory(struct backend *be, uint64_t bytes, unsigned ms, struct profile_memory *ret, struct err *err)
{
    enum { FIRST_BYTES = 1 << 16, STEP = 16 };
    static const double quick_s = 2e-3;
    *ret = (struct profile_memory){0};
    if (!backend_is_cuda(be))
        return profile_read(backend_cpu_team(be), bytes, ms, &ret->read_per_s, err);
    uint64_t room = room_of(be);
    bytes = bytes < room ? bytes : room;
    for (uint64_t some = bytes < FIRST_BYTES ? bytes : FIRST_BYTES;; some = some < bytes / STEP ? some * STEP : bytes) {
        struct cuda_rates r;
        if (backend_cuda_measure(be, (size_t)some, &r, err) != 0)
            return -1;
        *ret = (struct profile_memory){r.read, r.to_device, r.from_device};
        if (some >= bytes || (double)some / r.read > quick_s)
            return 0;
    }
}

int profile_peer(struct backend *from, struct backend *to, uint64_t bytes, double *ret_per_s, struct err *err)
{
    uint64_t here = room_of(from), there = room_of(to);
    *ret_per_s = 0;
    if (!from->ops->reaches || !from->ops->reaches(from, to))
        return 0;
    bytes = bytes < here ? bytes : here;
    return backend_cuda_measure_peer(from, to, (size_t)(bytes < there ? bytes : there), ret_per_s, err);
}
