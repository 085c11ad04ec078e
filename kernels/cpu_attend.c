/* Keys and values into the cache, and attention over it, cut into tasks. See cpu.h. */
#include "kernels/cpu.h"

static uint32_t block_of(const struct cpu_run *r, const struct attention *a, uint32_t row)
{
    return r->batch.table[a->group][(size_t)r->seq[row] * r->batch.table_stride + r->pos[row] / KV_BLOCK];
}

static void heads_in_place(struct cpu_run *r, float *x, uint32_t n_heads, uint32_t dim, const struct norm *norm, uint32_t rope, uint32_t row)
{
    const struct rope *ro = &r->shape.ropes[rope];
    uint32_t half = ro->n_dims / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += dim) {
        if (norm->weight.data)
            r->k->rms_norm(x, norm->weight.data, dim, norm->eps, x);
        if (ro->kind != ROPE_NONE)
            r->k->rope(x, ro, r->cos[rope] + (size_t)row * half, r->sin[rope] + (size_t)row * half);
    }
}

static void rope_store_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    const struct layer *l = job->layer;
    const struct attention *a = &l->attn;
    float *q = r->q + (size_t)task * l->q.rows, *k = r->kk + (size_t)task * l->k.rows, *v = r->v + (size_t)task * l->v.rows;
    (void)thread;
    heads_in_place(r, q, a->n_heads, a->head_dim_k, &l->q_norm, a->rope, task);
    heads_in_place(r, k, a->n_kv_heads, a->head_dim_k, &l->k_norm, a->rope, task);
    r->k->kv_store(a, job->kv, block_of(r, a, task), r->pos[task] % KV_BLOCK, k, v);
}

void cpu_rope_store(struct run *run, const struct layer *l, const struct kv_view *kv)
{
    struct row_job job = {.r = self(run), .layer = l, .kv = kv};
    team(job.r, rope_store_task, &job, job.r->batch.n_rows);
}

/* A sequence's rows that follow one another: a prompt's read the same keys and values, and do so together. */
static void find_spans(struct cpu_run *r, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t row = 0; row < r->batch.n_rows; row++)
        if (row == 0 || r->seq[row] != r->seq[row - 1] || r->pos[row] != r->pos[row - 1] + 1 || row - r->spans[n - 1] == most)
            r->spans[n++] = row;
    r->spans[n] = r->batch.n_rows;
    r->n_spans = n;
}

static struct attend_job attend_job(const struct row_job *job, uint32_t row, uint32_t n_rows, uint32_t kv_head, uint32_t thread)
{
    struct cpu_run *r = job->r;
    const struct attention *a = &job->layer->attn;
    uint32_t group = a->n_heads / a->n_kv_heads;
    return (struct attend_job){
        .attn = a,
        .kv = job->kv,
        .table = r->batch.table[a->group] + (size_t)r->seq[row] * r->batch.table_stride,
        .kv_head = kv_head,
        .n_rows = n_rows,
        .pos = r->pos[row],
        .q = r->q + ((size_t)row * a->n_heads + (size_t)kv_head * group) * a->head_dim_k,
        .out = r->att + ((size_t)row * a->n_heads + (size_t)kv_head * group) * a->head_dim_v,
        .q_stride = (size_t)a->n_heads * a->head_dim_k,
        .out_stride = (size_t)a->n_heads * a->head_dim_v,
        .scratch = r->scratch + thread * r->scratch_floats,
    };
}

static void attend_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    /* A head's spans one after another: its keys and values stay in the cache. */
    uint32_t span = task % r->n_spans, row = r->spans[span];
    struct attend_job one = attend_job(job, row, r->spans[span + 1] - row, task / r->n_spans, thread);
    r->k->attend(&one);
}

/* A few rows' tiles are computed by whoever is free, and joined in their order afterwards: the same bits. `round` of each row's tiles
 * at a time, counted from the first one that it sees. */
struct split_job {
    struct row_job job;
    uint32_t begin, round;
};

static struct attend_job split_part(const struct split_job *s, uint32_t row, uint32_t kv_head, uint32_t thread)
{
    const struct attention *a = &s->job.layer->attn;
    struct attend_job one = attend_job(&s->job, row, 1, kv_head, thread);
    uint32_t group = a->n_heads / a->n_kv_heads, tiles = one.pos / ATTENTION_TILE - attend_first(a, one.pos) / ATTENTION_TILE + 1;
    one.parts = s->job.r->parts + ((size_t)row * a->n_kv_heads + kv_head) * s->round * group * (a->head_dim_v + 2);
    one.tile = attend_first(a, one.pos) / ATTENTION_TILE + s->begin;
    one.n_tiles = tiles <= s->begin ? 0 : tiles - s->begin < s->round ? tiles - s->begin : s->round;
    return one;
}

static void split_task(void *arg, uint32_t task, uint32_t thread)
{
    struct split_job *s = arg;
    const struct attention *a = &s->job.layer->attn;
    uint32_t part = task / s->round, at = task % s->round;
    struct attend_job one = split_part(s, part / a->n_kv_heads, part % a->n_kv_heads, thread);
    if (at >= one.n_tiles)
        return;
    one.parts += (size_t)at * (a->n_heads / a->n_kv_heads) * (a->head_dim_v + 2);
    one.tile += at;
    one.n_tiles = 1;
    s->job.r->k->attend(&one);
}

static void split_join_task(void *arg, uint32_t task, uint32_t thread)
{
    struct split_job *s = arg;
    const struct attention *a = &s->job.layer->attn;
    struct cpu_run *r = s->job.r;
    struct attend_job one = split_part(s, task / a->n_kv_heads, task % a->n_kv_heads, thread);
    float *m = r->joined + (size_t)task * 2 * (a->n_heads / a->n_kv_heads);
    uint32_t last = one.pos / ATTENTION_TILE;
    if (one.n_tiles)
        r->k->attend_join(&one, m, m + a->n_heads / a->n_kv_heads, s->begin == 0, one.tile + one.n_tiles > last);
}

/* Tiles of each row at a time that there is room for; 0: nothing is gained by taking them apart. */
static uint32_t split_round(const struct cpu_run *r, const struct attention *a)
{
    uint32_t threads = threadpool_size(r->cpu->pool), tasks = r->n_spans * a->n_kv_heads, seen = 0;
    size_t unit = (size_t)r->n_spans * a->n_heads * (a->head_dim_v + 2);
    if (threads == 1 || r->n_spans != r->batch.n_rows || r->n_spans > SPLIT_ROWS || tasks >= 4 * threads || tasks % threads == 0)
        return 0;
    for (uint32_t row = 0; row < r->batch.n_rows; row++)
        seen = max_u32(seen, r->pos[row] - attend_first(a, r->pos[row]) + 1);
    return seen < 4 * ATTENTION_TILE ? 0 : (uint32_t)(r->parts_floats / unit);
}

void cpu_attend(struct run *run, const struct layer *l, const struct kv_view *kv)
{
    struct split_job s = {.job = {.r = self(run), .layer = l, .kv = kv}};
    struct cpu_run *r = s.job.r;
    const struct attention *a = &l->attn;
    uint32_t group = a->n_heads / a->n_kv_heads, tiles = 0;
    find_spans(r, group < ATTEND_ROWS ? ATTEND_ROWS / group : 1);
    s.round = split_round(r, a);
    if (s.round == 0) {
        team(r, attend_task, &s.job, r->n_spans * a->n_kv_heads);
        return;
    }
    for (uint32_t row = 0; row < r->batch.n_rows; row++)
        tiles = max_u32(tiles, r->pos[row] / ATTENTION_TILE - attend_first(a, r->pos[row]) / ATTENTION_TILE + 1);
    for (; s.begin < tiles; s.begin += s.round) {
        team(r, split_task, &s, r->n_spans * a->n_kv_heads * s.round);
        team(r, split_join_task, &s, r->n_spans * a->n_kv_heads);
    }
}
