/* The kernels in shapes of real use: matrices of a small model's layer, more of them than the caches hold; heads of 64 and 128
 * dimensions, four of them to a pair of keys and values, over contexts of 1024 and 8192 positions; vectors of a layer's widths. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sysinfo.h"
#include "tests/checkkernels/bench.h"
#include "tests/checkkernels/data.h"

enum {
    MAT_ROWS = 2048,
    MAT_COLS = 2048,
    TASK_BYTES = 64 << 10, /* as kernels/cpu_mat.c cuts */
    MAX_ACT_ROWS = 512,
    SAMPLE_ROWS = 64, /* of random numbers; the rest repeats them */
    WORKING_SET = 96 << 20, /* of weights, of keys and values, at least */
};

static void *pages(size_t bytes)
{
    struct err err;
    void *p = mem_pages_alloc(bytes, &err);
    if (!p) {
        printf("Bail out! %s\n", err.text);
        exit(99);
    }
    return p;
}

/* --- matrices ----------------------------------------------------------------------------------------------------------- */

struct mat_bench {
    const struct kernels *k;
    struct weight w;
    size_t data_bytes;
    struct acts x;
    float *out; /* a part for each thread */
    size_t out_floats;
    uint32_t task_rows, tasks; /* of one matrix */
    uint8_t *file, *packed;    /* one matrix as in a file; where pack brings it */
};

static void mat_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct mat_bench *m = arg;
    uint32_t row0 = unit % m->tasks * m->task_rows, row1 = row0 + m->task_rows;
    m->k->mat[m->w.layout][m->w.type](&m->w, unit / m->tasks, row0, row1 < MAT_ROWS ? row1 : MAT_ROWS, &m->x, m->out + thread * m->out_floats, MAT_ROWS);
}

static void pack_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct mat_bench *m = arg;
    uint8_t *to = (uint8_t *)(uintptr_t)m->w.data;
    uint32_t row0 = unit % m->tasks * m->task_rows, n = MAT_ROWS - row0 < m->task_rows ? MAT_ROWS - row0 : m->task_rows;
    (void)thread;
    m->k->pack(m->w.type, m->file + row0 * m->w.row_bytes, row0, n, MAT_COLS, to + unit / m->tasks * m->w.mat_bytes);
}

static void row_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct mat_bench *m = arg;
    uint32_t row = unit * 2654435761u % MAT_ROWS; /* tokens come in no order */
    m->k->row[m->w.layout][m->w.type](&m->w, row, m->out + thread * m->out_floats);
}

/* Weights of a type for a table, as many matrices as the working set takes. */
static void make_weights(struct mat_bench *m, const struct kernels *k, enum quant_type type, enum weight_layout layout)
{
    struct rng r = {1};
    size_t row_bytes = (size_t)quant_bytes(type, MAT_COLS), file_bytes = row_bytes * MAT_ROWS;
    uint32_t per_task = (uint32_t)(TASK_BYTES / row_bytes) / PACK_ROWS * PACK_ROWS;
    m->k = k;
    m->w = (struct weight){.type = type, .layout = layout, .rows = MAT_ROWS, .cols = MAT_COLS, .row_bytes = row_bytes};
    m->w.mat_bytes = layout == LAYOUT_FILE ? file_bytes : (k->packed_bytes(type, MAT_ROWS, MAT_COLS) + 63) / 64 * 64;
    m->w.mats = (uint32_t)(sysinfo_beyond_caches(WORKING_SET) / m->w.mat_bytes) + 1;
    m->data_bytes = m->w.mat_bytes * m->w.mats;
    m->task_rows = per_task ? per_task : PACK_ROWS;
    m->tasks = (MAT_ROWS + m->task_rows - 1) / m->task_rows;
    m->file = pages(file_bytes);
    data_blocks(&r, type, row_bytes * SAMPLE_ROWS / quant_traits(type)->bytes, 0.05f, m->file);
    for (uint32_t j = SAMPLE_ROWS; j < MAT_ROWS; j += SAMPLE_ROWS)
        memcpy(m->file + j * row_bytes, m->file, SAMPLE_ROWS * row_bytes);
    uint8_t *data = pages(m->data_bytes);
    m->w.data = data;
    for (uint32_t i = 0; i < m->w.mats; i++) {
        if (layout == LAYOUT_FILE)
            memcpy(data + i * m->w.mat_bytes, m->file, file_bytes);
        else
            k->pack(type, m->file, 0, MAT_ROWS, MAT_COLS, data + i * m->w.mat_bytes);
    }
}

static void drop_weights(struct mat_bench *m)
{
    mem_pages_free(m->file, m->w.row_bytes * MAT_ROWS);
    mem_pages_free((void *)(uintptr_t)m->w.data, m->data_bytes);
}

static struct acts make_acts(const struct kernels *k, uint32_t rows, bool wide)
{
    struct rng r = {rows};
    uint32_t tile = act_tile_of(k, wide, rows);
    struct acts x = wide ? data_acts16(&r, rows, MAT_COLS, 1, tile) : data_acts(&r, rows, MAT_COLS, 1, tile);
    for (uint32_t i = 0; i < rows; i++)
        k->quantize(&x, i);
    return x;
}

static const uint32_t act_rows[] = {1, 2, 4, 8, 12, 32, 512};
enum { ACT_ROWS = sizeof act_rows / sizeof *act_rows };

static bool wants_products(const struct bench *b, const char *kind)
{
    char name[80];
    bool wants = false;
    for (int i = 0; i < ACT_ROWS; i++) {
        snprintf(name, sizeof name, "%s/%u", kind, act_rows[i]);
        wants |= bench_wants(b, name);
    }
    return wants;
}

static void bench_products(struct bench *b, struct mat_bench *m, const char *kind, bool wide)
{
    struct bench_work work = {.fn = mat_unit, .arg = m, .n = m->w.mats * m->tasks, .from_memory = true};
    work.bytes = (double)m->w.mat_bytes / m->tasks;
    for (int i = 0; i < ACT_ROWS; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s/%u", kind, act_rows[i]);
        if (!bench_wants(b, name))
            continue;
        m->x = make_acts(b->k, act_rows[i], wide);
        work.macs = (double)act_rows[i] * MAT_ROWS * MAT_COLS / m->tasks;
        bench_report(b, name, &work);
        data_acts_free(&m->x);
    }
}

/* A layout's names: products of 8-bit activations, of 16-bit ones (keys and values), a row as floats, packing. */
static void bench_layout(struct bench *b, enum quant_type type, enum weight_layout layout)
{
    struct mat_bench m = {0};
    const char *name = quant_traits(type)->name, *mark = layout == b->k->layout[type] ? "" : "-file";
    char mat[64], mat16[64], row[64], pack[64];
    snprintf(mat, sizeof mat, "mat%s/%s", mark, name);
    snprintf(mat16, sizeof mat16, "mat16%s/%s", mark, name);
    snprintf(row, sizeof row, "row%s/%s", mark, name);
    snprintf(pack, sizeof pack, "pack/%s", name);
    if (!wants_products(b, mat) && !wants_products(b, mat16) && !bench_wants(b, row) && !bench_wants(b, pack))
        return;
    make_weights(&m, b->k, type, layout);
    m.out_floats = (size_t)MAX_ACT_ROWS * MAT_ROWS;
    size_t out_bytes = m.out_floats * sizeof(float) * threadpool_size(b->all);
    m.out = pages(out_bytes);
    bench_products(b, &m, mat, false);
    if (quant_decoders[type].group)
        bench_products(b, &m, mat16, true);
    struct bench_work work = {.fn = row_unit, .arg = &m, .n = MAT_ROWS, .bytes = (double)m.w.row_bytes};
    bench_report(b, row, &work);
    if (layout != LAYOUT_FILE) {
        work = (struct bench_work){.fn = pack_unit, .arg = &m, .n = m.w.mats * m.tasks, .bytes = (double)m.w.mat_bytes / m.tasks, .from_memory = true};
        bench_report(b, pack, &work);
    }
    mem_pages_free(m.out, out_bytes);
    drop_weights(&m);
}

void bench_mat(struct bench *b)
{
    struct kernels scalar = {0};
    kernels_init_scalar(&scalar);
    for (uint32_t t = 0; data_next_type(&t); t++) {
        bench_layout(b, (enum quant_type)t, b->k->layout[t]);
        if (b->k->layout[t] != LAYOUT_FILE && b->k->mat[LAYOUT_FILE][t] != scalar.mat[LAYOUT_FILE][t]) /* else it is the scalar level's figure */
            bench_layout(b, (enum quant_type)t, LAYOUT_FILE);
    }
}

/* --- attention ---------------------------------------------------------------------------------------------------------- */

struct attention_bench {
    const struct kernels *k;
    struct attention attn;
    struct kv_view kv;
    uint32_t context, rows, *table; /* sequence s has the blocks from s * context / KV_BLOCK on; rows: its last ones */
    float *q, *out, *scratch;       /* out and scratch: a part for each thread */
    size_t out_floats, scratch_floats;
};

static void attend_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct attention_bench *a = arg;
    struct attend_job job = {.attn = &a->attn,
                             .kv = &a->kv,
                             .table = a->table + (size_t)(unit / a->attn.n_kv_heads) * (a->context / KV_BLOCK),
                             .kv_head = unit % a->attn.n_kv_heads,
                             .n_rows = a->rows,
                             .pos = a->context - a->rows,
                             .q = a->q,
                             .q_stride = a->attn.head_dim_k,
                             .out_stride = (size_t)(a->attn.n_heads / a->attn.n_kv_heads) * a->attn.head_dim_v,
                             .out = a->out + thread * a->out_floats,
                             .scratch = a->scratch + thread * a->scratch_floats};
    a->k->attend(&job);
}

static void store_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct attention_bench *a = arg;
    (void)thread;
    a->k->kv_store(&a->attn, &a->kv, a->table[unit / KV_BLOCK], unit % KV_BLOCK, a->q, a->q);
}

static void make_cache(struct attention_bench *a, enum kv_type type, uint32_t dim)
{
    struct rng r = {dim};
    a->attn = (struct attention){.n_heads = 32, .n_kv_heads = 8, .head_dim_k = dim, .head_dim_v = dim, .scale = 0.1f};
    a->kv = (struct kv_view){.type = type, .block_bytes = kv_layout_of(&a->attn, type).head_bytes * a->attn.n_kv_heads};
    uint32_t blocks = (uint32_t)(sysinfo_beyond_caches(WORKING_SET) / a->kv.block_bytes) + 1, most = 8192 / KV_BLOCK;
    blocks = (blocks + most - 1) / most * most;
    a->kv.n_blocks = blocks;
    a->kv.base = pages(blocks * a->kv.block_bytes);
    a->table = pages(blocks * sizeof *a->table);
    a->q = pages((size_t)a->attn.n_heads * dim * sizeof *a->q);
    for (uint32_t i = 0; i < a->attn.n_heads * dim; i++)
        a->q[i] = rng_normal(&r);
    for (uint32_t i = 0; i < blocks; i++)
        a->table[i] = i;
    for (uint32_t p = 0; p < blocks * KV_BLOCK; p++)
        store_unit(a, p, 0);
}

static void drop_cache(struct attention_bench *a)
{
    mem_pages_free(a->kv.base, a->kv.n_blocks * a->kv.block_bytes);
    mem_pages_free(a->table, a->kv.n_blocks * sizeof *a->table);
    mem_pages_free(a->q, (size_t)a->attn.n_heads * a->attn.head_dim_k * sizeof *a->q);
}

/* One row of each sequence, as answers have them, and as many of a prompt as are met together. */
static void bench_attend(struct bench *b, struct attention_bench *a, const char *name, uint32_t context, uint32_t rows)
{
    uint32_t group = a->attn.n_heads / a->attn.n_kv_heads;
    struct bench_work work = {.fn = attend_unit, .arg = a, .n = a->kv.n_blocks * KV_BLOCK / context * a->attn.n_kv_heads, .from_memory = true};
    a->context = context;
    a->rows = rows;
    work.bytes = (double)a->kv.block_bytes / KV_BLOCK / a->attn.n_kv_heads * context;
    work.macs = 2.0 * a->attn.head_dim_k * (context - (rows - 1) / 2.0) * rows * group;
    bench_report(b, name, &work);
}

static void bench_cache(struct bench *b, enum kv_type type, const char *type_name, uint32_t dim)
{
    static const struct {
        uint32_t context, rows;
    } cases[] = {{1024, 1}, {8192, 1}, {1024, 6}, {8192, 6}};
    enum { CASES = sizeof cases / sizeof *cases };
    struct attention_bench a = {.k = b->k};
    char store[64], attend[CASES][64];
    bool any;
    snprintf(store, sizeof store, "kv_store/%s/d%u", type_name, dim);
    any = bench_wants(b, store);
    for (int i = 0; i < CASES; i++) {
        snprintf(attend[i], sizeof attend[i], "attend/%s/d%u/%u%s", type_name, dim, cases[i].context, cases[i].rows > 1 ? "/6rows" : "");
        any = any || bench_wants(b, attend[i]);
    }
    if (!any)
        return;
    make_cache(&a, type, dim);
    a.out_floats = (size_t)a.attn.n_heads / a.attn.n_kv_heads * ATTEND_ROWS * dim;
    a.scratch_floats = (attend_scratch_floats(dim, dim) + 64) / 16 * 16;
    size_t out_bytes = a.out_floats * sizeof(float) * threadpool_size(b->all), scratch_bytes = a.scratch_floats * sizeof(float) * threadpool_size(b->all);
    a.out = pages(out_bytes);
    a.scratch = pages(scratch_bytes);
    double position_bytes = (double)a.kv.block_bytes / KV_BLOCK;
    for (int i = 0; i < CASES; i++)
        bench_attend(b, &a, attend[i], cases[i].context, cases[i].rows);
    struct bench_work work = {.fn = store_unit, .arg = &a, .n = a.kv.n_blocks * KV_BLOCK, .bytes = position_bytes, .from_memory = true};
    bench_report(b, store, &work);
    mem_pages_free(a.out, out_bytes);
    mem_pages_free(a.scratch, scratch_bytes);
    drop_cache(&a);
}

void bench_attention(struct bench *b)
{
    static const char *const names[KV_TYPES] = {[KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"};
    for (int type = 0; type < KV_TYPES; type++) {
        bench_cache(b, (enum kv_type)type, names[type], 64);
        bench_cache(b, (enum kv_type)type, names[type], 128);
    }
}

/* --- vectors ------------------------------------------------------------------------------------------------------------ */

enum { WIDTH = 8192, HEAD_DIM = 128 };

struct vector_bench {
    const struct kernels *k;
    struct acts *x; /* one a thread */
    float *f;       /* a part for each thread: four vectors */
    uint32_t n;
    enum activation act;
    struct rope rope;
};

static float *part(const struct vector_bench *v, uint32_t thread, int which)
{
    return v->f + ((size_t)thread * 4 + (size_t)which) * WIDTH;
}

static void quantize_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    v->k->quantize(&v->x[thread], unit);
}

static void norm_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    (void)unit;
    v->k->rms_norm(part(v, thread, 0), part(v, thread, 1), v->n, 1e-5f, part(v, thread, 2));
}

static void act_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    (void)unit;
    memcpy(part(v, thread, 2), part(v, thread, 0), v->n * sizeof(float)); /* it works in place, and what it read would run away */
    v->k->act_mul(v->act, part(v, thread, 2), part(v, thread, 1), v->n);
}

static void rope_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    (void)unit;
    v->k->rope(part(v, thread, 0), &v->rope, part(v, thread, 2), part(v, thread, 3));
}

static void softmax_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    (void)unit;
    v->k->softmax(part(v, thread, 2), v->n);
}

static void exps_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    (void)unit;
    part(v, thread, 3)[0] = v->k->exps(part(v, thread, 0), v->n, 4, 1, part(v, thread, 2));
}

static void dot_unit(void *arg, uint32_t unit, uint32_t thread)
{
    const struct vector_bench *v = arg;
    (void)unit;
    part(v, thread, 2)[0] = v->k->dot(part(v, thread, 0), part(v, thread, 1), v->n);
}

static void bench_quantize(struct bench *b, struct vector_bench *v, bool wide)
{
    struct rng r = {5};
    enum { ROWS = 8, COLS = 2048 };
    uint32_t threads = threadpool_size(b->all);
    struct acts x[THREADPOOL_MAX_THREADS];
    for (uint32_t i = 0; i < threads; i++)
        x[i] = wide ? data_acts16(&r, ROWS, COLS, 1, b->k->act_tile16) : data_acts(&r, ROWS, COLS, 1, b->k->act_tile);
    v->x = x;
    struct bench_work work = {.fn = quantize_unit, .arg = v, .n = ROWS, .bytes = COLS * sizeof(float)};
    bench_report(b, wide ? "quantize16/2048" : "quantize/2048", &work);
    for (uint32_t i = 0; i < threads; i++)
        data_acts_free(&x[i]);
}

void bench_vector(struct bench *b)
{
    struct vector_bench v = {.k = b->k};
    struct rng r = {3};
    size_t bytes = (size_t)threadpool_size(b->all) * 4 * WIDTH * sizeof(float);
    v.f = pages(bytes);
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        v.f[i] = rng_normal(&r);
    bench_quantize(b, &v, false);
    bench_quantize(b, &v, true);
    v.n = 2048;
    bench_report(b, "rms_norm/2048", &(struct bench_work){.fn = norm_unit, .arg = &v, .n = 1, .bytes = 2048 * sizeof(float)});
    bench_report(b, "dot/2048", &(struct bench_work){.fn = dot_unit, .arg = &v, .n = 1, .bytes = 2048 * sizeof(float), .macs = 2048});
    v.n = WIDTH;
    v.act = ACT_SILU;
    bench_report(b, "silu_mul/8192", &(struct bench_work){.fn = act_unit, .arg = &v, .n = 1, .bytes = WIDTH * sizeof(float)});
    v.act = ACT_GELU;
    bench_report(b, "gelu_mul/8192", &(struct bench_work){.fn = act_unit, .arg = &v, .n = 1, .bytes = WIDTH * sizeof(float)});
    for (uint32_t i = 0; i < threadpool_size(b->all); i++)
        for (int d = 0; d < HEAD_DIM / 2; d++) { /* a turn by 1: the head stays as large as it is */
            part(&v, i, 2)[d] = 0.54030231f;
            part(&v, i, 3)[d] = 0.84147098f;
        }
    v.rope = (struct rope){.kind = ROPE_PAIRS, .n_dims = HEAD_DIM, .scale = 1};
    bench_report(b, "rope_pairs/128", &(struct bench_work){.fn = rope_unit, .arg = &v, .n = 1, .bytes = HEAD_DIM * sizeof(float)});
    v.rope.kind = ROPE_HALVES;
    bench_report(b, "rope_halves/128", &(struct bench_work){.fn = rope_unit, .arg = &v, .n = 1, .bytes = HEAD_DIM * sizeof(float)});
    v.n = 64;
    bench_report(b, "softmax/64", &(struct bench_work){.fn = softmax_unit, .arg = &v, .n = 1, .bytes = 64 * sizeof(float)});
    v.n = WIDTH;
    bench_report(b, "softmax/8192", &(struct bench_work){.fn = softmax_unit, .arg = &v, .n = 1, .bytes = WIDTH * sizeof(float)});
    v.n = 1024;
    bench_report(b, "exps/1024", &(struct bench_work){.fn = exps_unit, .arg = &v, .n = 1, .bytes = 1024 * sizeof(float)});
    mem_pages_free(v.f, bytes);
}
