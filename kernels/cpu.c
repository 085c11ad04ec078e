/* The CPU as a backend: buffers, and the cutting of each operation into tasks for the team. "Enqueue" is "do it now" here;
 * finish has nothing to wait for.
 *
 * Memory: one block of pages for a run, laid out in run_create from the stage's largest dimensions. Activations of up to
 * max_rows rows; the 8-bit copies are packed for exactly the rows of the operation at hand, so that rows that meet lie side
 * by side. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/threadpool.h"
#include "kernels/blas.h"
#include "kernels/fmath.h"
#include "kernels/kernels.h"

enum { LINE = 64, MAT_TASK_BYTES = 64 << 10, MAT_TASK_ROWS = 16, MAT_THREAD_TASKS = 4, SPLIT_ROWS = 16 };

struct cpu {
    struct backend backend;
    struct kernels kernels;
    struct threadpool *pool;
    enum prompt_gemm prompt_gemm;
    bool keep_file_layout, is_part;
};

/* Which experts a row goes to, in rank order. */
struct choice {
    uint32_t expert;
    float weight;
    uint32_t at; /* its row in the grouped activations */
};

/* One matrix against one operand. */
struct mat_part {
    const struct acts *x;
    const struct weight *w;
    uint32_t mat;
    float *out;
    size_t stride;
    uint32_t task_rows, first_task;
};

struct cpu_run {
    struct run run;
    struct cpu *cpu;
    const struct kernels *k;
    struct run_shape shape;
    struct batch batch;
    void *pages;
    size_t pages_bytes;

    uint32_t *seq, *pos, *wanted; /* copies of the step's lists */
    int32_t *token;
    float *x, *n;         /* rows × embd: the residual stream; its norm */
    float *q, *kk, *v;    /* rows × q_dim, k_dim, v_dim */
    float *att;           /* rows × widest attention output */
    float *gate, *up;     /* rows (× experts used) × ff_dim */
    float *t;             /* rows (× experts used) × embd: a product before it joins x */
    float *logits;        /* wanted × vocab */
    float *router;        /* rows × experts */
    struct choice *choices; /* rows × experts used */
    uint32_t *expert_first; /* experts + 1: where each one's rows begin in the grouped order */
    uint32_t *grouped;    /* grouped order → row */
    struct acts *expert_acts;      /* each one's rows as operands: windows of acts */
    struct mat_part *expert_parts; /* two for each expert */
    float *cos[MAX_ROPES], *sin[MAX_ROPES]; /* rows × n_dims / 2 */
    struct acts acts;     /* 8-bit copies */
    struct acts acts16;   /* 16-bit ones, of x's norm, for keys and values */
    uint32_t *spans;      /* rows that attention takes together: where each such span begins, and the last one ends */
    uint32_t n_spans;
    float *parts, *joined; /* of rows whose attention is taken apart: tiles each by itself; maxima and sums so far */
    size_t parts_floats;
    float *scratch;       /* a part for each thread */
    size_t scratch_floats;
    char *panel;          /* a part for each thread: some rows of weights in another form; none where that is never needed */
    size_t panel_bytes;
};

/* --- buffers ------------------------------------------------------------------------------------------------------------ */

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Hands out pieces of the run's pages; with base NULL only counts. */
struct carver {
    char *base;
    size_t used;
};

static void *carve(struct carver *c, size_t count, size_t size)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (count * size + LINE - 1) / LINE * LINE;
    return p;
}

/* Room for weights of up to `cols` columns: floats for OpenBLAS, or PACK_ROWS rows packed. */
static size_t panel_bytes(const struct cpu *cpu, uint32_t cols)
{
    size_t most = cpu->prompt_gemm == GEMM_INT8 ? 0 : (size_t)BLAS_PANEL_ROWS * cols * sizeof(float);
    cols = (cols + 255) / 256 * 256; /* some types' blocks */
    for (int t = 0; cpu->keep_file_layout && t < QUANT_TYPES; t++) {
        size_t bytes = cpu->kernels.layout[t] == LAYOUT_FILE ? 0 : cpu->kernels.packed_bytes((enum quant_type)t, PACK_ROWS, cols);
        most = bytes > most ? bytes : most;
    }
    return (most + LINE - 1) / LINE * LINE;
}

static void lay_out(struct cpu_run *r, struct carver *c)
{
    const struct run_shape *s = &r->shape;
    size_t rows = s->max_rows, used = max_u32(s->n_experts_used, 1), spread = rows * used;
    size_t widest = max_u32(max_u32(s->embd, s->q_dim), max_u32(s->ff_dim, s->v_dim));
    /* Each tile is whole: one place too many for each tile but one of an operand, and there are as many operands as experts. */
    size_t places = spread + spread / r->k->act_tile + r->k->act_tile + s->n_experts;
    size_t groups = (widest + ACT_GROUP - 1) / ACT_GROUP * places;

    r->seq = carve(c, rows, sizeof *r->seq);
    r->pos = carve(c, rows, sizeof *r->pos);
    r->wanted = carve(c, rows, sizeof *r->wanted);
    r->token = carve(c, rows, sizeof *r->token);
    r->x = carve(c, rows * s->embd, sizeof *r->x);
    r->n = carve(c, spread * s->embd, sizeof *r->n);
    r->q = carve(c, rows * s->q_dim, sizeof *r->q);
    r->kk = carve(c, rows * s->k_dim, sizeof *r->kk);
    r->v = carve(c, rows * s->v_dim, sizeof *r->v);
    r->att = carve(c, rows * s->q_dim, sizeof *r->att);
    r->gate = carve(c, spread * s->ff_dim, sizeof *r->gate);
    r->up = carve(c, spread * s->ff_dim, sizeof *r->up);
    r->t = carve(c, spread * s->embd, sizeof *r->t);
    r->logits = carve(c, (size_t)s->max_wanted * s->n_vocab, sizeof *r->logits);
    if (s->n_experts) {
        r->router = carve(c, rows * s->n_experts, sizeof *r->router);
        r->choices = carve(c, spread, sizeof *r->choices);
        r->expert_first = carve(c, s->n_experts + 1, sizeof *r->expert_first);
        r->grouped = carve(c, spread, sizeof *r->grouped);
        r->expert_acts = carve(c, s->n_experts, sizeof *r->expert_acts);
        r->expert_parts = carve(c, (size_t)s->n_experts * 2, sizeof *r->expert_parts);
    }
    for (uint32_t i = 0; i < s->n_ropes; i++) {
        r->cos[i] = carve(c, rows * (s->ropes[i].n_dims / 2), sizeof(float));
        r->sin[i] = carve(c, rows * (s->ropes[i].n_dims / 2), sizeof(float));
    }
    r->acts.q = carve(c, groups * ACT_GROUP, 1);
    r->acts.scale = carve(c, groups, sizeof(float));
    r->acts.sum = carve(c, groups, sizeof(float));
    r->acts.sum16 = carve(c, groups * 2, sizeof(float));
    r->acts.isum = carve(c, groups * 2, sizeof(int32_t));
    r->acts.isum32 = carve(c, groups, sizeof(int32_t));
    groups = (size_t)(s->embd / ACT_GROUP) * (rows + r->k->act_tile16);
    r->acts16.q = carve(c, groups * ACT_GROUP, 1);
    r->acts16.low = carve(c, groups * ACT_GROUP, 1);
    r->acts16.scale = carve(c, groups, sizeof(float));
    r->acts16.sum = carve(c, groups, sizeof(float));
    r->acts16.sum16 = carve(c, groups * 2, sizeof(float));
    r->acts16.isum = carve(c, groups * 2, sizeof(int32_t));
    r->acts16.isum32 = carve(c, groups, sizeof(int32_t));
    r->spans = carve(c, rows + 1, sizeof *r->spans);
    unsigned threads = threadpool_size(r->cpu->pool);
    r->parts_floats = threads == 1 ? 0 : (size_t)max_u32(16, 4 * threads) * (s->q_dim + s->q_dim / 8);
    r->parts = carve(c, r->parts_floats, sizeof *r->parts);
    r->joined = carve(c, threads == 1 ? 0 : (size_t)SPLIT_ROWS * 2 * s->q_dim, sizeof *r->joined);
    r->scratch_floats = (attend_scratch_floats(s->head_dim_k, s->head_dim_v) + LINE) / 16 * 16;
    r->scratch = carve(c, r->scratch_floats * threads, sizeof(float));
    r->panel_bytes = panel_bytes(r->cpu, (uint32_t)widest);
    r->panel = carve(c, r->panel_bytes * threads, 1);
}

static size_t cpu_run_bytes(struct backend *b, const struct run_shape *shape)
{
    struct cpu_run r = {.cpu = (struct cpu *)b, .k = &((struct cpu *)b)->kernels, .shape = *shape};
    struct carver counter = {0};
    lay_out(&r, &counter);
    return counter.used;
}

static void cpu_run_destroy(struct run *run)
{
    struct cpu_run *r = (struct cpu_run *)run;
    if (!r)
        return;
    mem_pages_free(r->pages, r->pages_bytes);
    free(r);
}

static struct run *cpu_run_create(struct backend *b, const struct run_shape *shape, struct err *err)
{
    struct cpu_run *r = mem_new(1, sizeof *r, err);
    if (!r)
        return NULL;
    r->run = (struct run){.ops = b->ops, .backend = b};
    r->cpu = (struct cpu *)b;
    r->k = &r->cpu->kernels;
    r->shape = *shape;
    r->pages_bytes = cpu_run_bytes(b, shape);
    if (!(r->pages = mem_pages_alloc(r->pages_bytes, err))) {
        err_wrap(err, "scratch for %u rows", shape->max_rows);
        free(r);
        return NULL;
    }
    struct carver c = {.base = r->pages};
    lay_out(r, &c);
    return &r->run;
}

/* --- tasks -------------------------------------------------------------------------------------------------------------- */

static struct cpu_run *self(struct run *run)
{
    return (struct cpu_run *)run;
}

static void team(struct cpu_run *r, threadpool_fn fn, void *arg, uint32_t n_tasks)
{
    threadpool_run(r->cpu->pool, fn, arg, n_tasks);
}

struct quantize_job {
    const struct kernels *k;
    struct acts *x;
};

static void quantize_task(void *arg, uint32_t task, uint32_t thread)
{
    struct quantize_job *job = arg;
    (void)thread;
    job->k->quantize(job->x, task);
}

/* Whether OpenBLAS computes a product with so many rows of activations. */
static bool by_blas(const struct cpu_run *r, const struct weight *w, uint32_t rows)
{
    bool slow = quant_decoders[w->type].group == 0 || r->k->layout[w->type] == LAYOUT_FILE; /* else vectors of bytes are faster */
    return r->cpu->prompt_gemm != GEMM_INT8 && rows >= BLAS_MIN_ROWS && (slow || r->cpu->prompt_gemm == GEMM_BLAS_ALL);
}

/* Also where OpenBLAS will take the floats: what it costs is little beside the product. */
static bool wants_quantized(const struct weight *w)
{
    return quant_decoders[w->type].group != 0;
}

/* Makes `rows` rows of `k` floats the operand of the products that follow, once each has been quantized (where that is wanted). */
static void shape_acts(struct cpu_run *r, struct acts *x, const float *f, uint32_t rows, uint32_t k)
{
    uint32_t tile = x->low ? r->k->act_tile16 : r->k->act_tile;
    x->f = f;
    x->f_stride = k;
    x->rows = rows;
    uint32_t tiles = (rows + tile - 1) / tile;
    x->tile = tiles ? (rows + tiles - 1) / tiles : 1; /* equal shares: a last tile of few rows would unfold the weights for little */
    x->k = k;
}

/* The same, quantized. */
static void set_acts(struct cpu_run *r, const float *f, uint32_t rows, uint32_t k, bool quantized)
{
    shape_acts(r, &r->acts, f, rows, k);
    if (quantized) {
        struct quantize_job job = {r->k, &r->acts};
        team(r, quantize_task, &job, rows);
    }
}

/* Several products that need nothing of each other: one barrier for all. */
struct mat_job {
    struct cpu_run *r;
    const struct kernels *k;
    const struct acts *x; /* of the parts that are added next */
    uint32_t n, n_tasks, threads;
    struct mat_part *part;
};

enum { DENSE_PARTS = 3 };

/* The last part that begins at or before the task. */
static const struct mat_part *part_of(const struct mat_job *job, uint32_t task)
{
    uint32_t low = 0, high = job->n;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (task >= job->part[middle].first_task)
            low = middle;
        else
            high = middle;
    }
    return &job->part[low];
}

/* Weights that were left in the file's layout: PACK_ROWS rows at a time are packed while they are in the cache, and used once.
 * The scalar kernels that read them as they are take 10 to 40 times as long. */
static void mat_unpacked(const struct kernels *k, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                         size_t out_stride, char *panel)
{
    struct weight packed = {.type = w->type, .layout = k->layout[w->type], .cols = w->cols, .mats = 1, .row_bytes = w->row_bytes, .data = panel};
    packed.mat_bytes = k->packed_bytes(w->type, PACK_ROWS, w->cols);
    for (uint32_t row = row0; row < row1; row += PACK_ROWS) {
        packed.rows = row1 - row < PACK_ROWS ? row1 - row : PACK_ROWS;
        k->pack(w->type, (const char *)w->data + mat * w->mat_bytes + row * w->row_bytes, 0, packed.rows, w->cols, panel);
        k->mat[packed.layout][w->type](&packed, 0, 0, packed.rows, x, out + row, out_stride);
    }
}

static void mat_task(void *arg, uint32_t task, uint32_t thread)
{
    struct mat_job *job = arg;
    const struct mat_part *p = part_of(job, task);
    const struct weight *w = p->w;
    uint32_t row0 = (task - p->first_task) * p->task_rows, row1 = row0 + p->task_rows;
    char *panel = job->r->panel + thread * job->r->panel_bytes;
    row1 = row1 < w->rows ? row1 : w->rows;
    if (by_blas(job->r, w, p->x->rows))
        blas_mat(job->k, w, p->mat, row0, row1, p->x, p->out, p->stride, (float *)panel);
    else if (w->layout != job->k->layout[w->type])
        mat_unpacked(job->k, w, p->mat, row0, row1, p->x, p->out, p->stride, panel);
    else
        job->k->mat[w->layout][w->type](w, p->mat, row0, row1, p->x, p->out, p->stride);
}

static void mat_add(struct mat_job *job, const struct weight *w, uint32_t mat, float *out, size_t stride)
{
    struct mat_part *p = &job->part[job->n++];
    uint32_t rows = (uint32_t)(MAT_TASK_BYTES / (w->row_bytes ? w->row_bytes : 1)) / MAT_TASK_ROWS * MAT_TASK_ROWS;
    uint32_t share = w->rows / (job->threads * MAT_THREAD_TASKS) / MAT_TASK_ROWS * MAT_TASK_ROWS; /* small ones: so that all finish together */
    rows = rows < share ? rows : share;
    *p = (struct mat_part){.x = job->x, .w = w, .mat = mat, .out = out, .stride = stride, .first_task = job->n_tasks};
    p->task_rows = by_blas(job->r, w, job->x->rows) ? BLAS_PANEL_ROWS : max_u32(rows, MAT_TASK_ROWS);
    job->n_tasks += (w->rows + p->task_rows - 1) / p->task_rows;
}

static void mat_run(struct cpu_run *r, struct mat_job *job)
{
    team(r, mat_task, job, job->n_tasks);
}

/* One product alone. */
static void mat_one(struct cpu_run *r, const struct weight *w, float *out, size_t stride)
{
    struct mat_part part[1];
    struct mat_job job = {.r = r, .k = r->k, .x = &r->acts, .threads = threadpool_size(r->cpu->pool), .part = part};
    mat_add(&job, w, 0, out, stride);
    mat_run(r, &job);
}

/* Work on one row a task. */
struct row_job {
    struct cpu_run *r;
    const struct layer *layer;
    const struct kv_view *kv;
    const struct weight *weight;
    const struct norm *norm;
    const struct head *head;
    const struct vec *bias;
    const float *in;
    float scale;
    struct acts *acts, *acts16; /* quantized at once, while the row is at hand; NULL: not */
};

static void quantize_row(struct row_job *job, uint32_t row)
{
    if (job->acts)
        job->r->k->quantize(job->acts, row);
    if (job->acts16)
        job->r->k->quantize(job->acts16, row);
}

/* --- operations --------------------------------------------------------------------------------------------------------- */

static void angles_task(void *arg, uint32_t row, uint32_t thread)
{
    struct cpu_run *r = ((struct row_job *)arg)->r;
    (void)thread;
    for (uint32_t i = 0; i < r->shape.n_ropes; i++) {
        const struct rope *rope = &r->shape.ropes[i];
        uint32_t half = rope->n_dims / 2;
        for (uint32_t d = 0; d < half; d++) {
            double s, c;
            sc_sincos((double)r->pos[row] * rope->freq[d], &s, &c);
            r->cos[i][row * half + d] = (float)c * rope->scale;
            r->sin[i][row * half + d] = (float)s * rope->scale;
        }
    }
}

static void cpu_begin(struct run *run, const struct batch *batch)
{
    struct cpu_run *r = self(run);
    r->batch = *batch;
    memcpy(r->seq, batch->seq, batch->n_rows * sizeof *r->seq);
    memcpy(r->pos, batch->pos, batch->n_rows * sizeof *r->pos);
    memcpy(r->token, batch->token, batch->n_rows * sizeof *r->token);
    if (batch->n_wanted)
        memcpy(r->wanted, batch->wanted, batch->n_wanted * sizeof *r->wanted);
    struct row_job job = {.r = r};
    team(r, angles_task, &job, batch->n_rows);
}

static void embed_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    float *x = r->x + (size_t)task * r->shape.embd;
    (void)thread;
    r->k->row[job->weight->layout][job->weight->type](job->weight, (uint32_t)r->token[task], x);
    if (job->scale != 1.0f)
        for (uint32_t i = 0; i < r->shape.embd; i++)
            x[i] *= job->scale;
}

static void cpu_embed(struct run *run, const struct weight *w, float scale)
{
    struct row_job job = {.r = self(run), .weight = w, .scale = scale};
    team(job.r, embed_task, &job, job.r->batch.n_rows);
}

static void cpu_set_hidden(struct run *run, const float *rows)
{
    struct cpu_run *r = self(run);
    memcpy(r->x, rows, (size_t)r->batch.n_rows * r->shape.embd * sizeof *rows);
}

static void norm_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    uint32_t embd = r->shape.embd;
    uint32_t row = job->head ? r->wanted[task] : task;
    const float *x = r->x + (size_t)row * embd;
    float *n = r->n + (size_t)task * embd;
    (void)thread;
    if (job->norm->weight.data)
        r->k->rms_norm(x, job->norm->weight.data, embd, job->norm->eps, n);
    else
        memcpy(n, x, embd * sizeof *n);
    quantize_row(job, task);
}

/* n = norm(x) for all rows, or for the wanted ones, and the operand of what follows; in 8 bits, in 16 or as it is. */
static void norm_rows(struct cpu_run *r, const struct norm *norm, const struct head *head, uint32_t rows, bool bits8, bool bits16)
{
    struct row_job job = {.r = r, .norm = norm, .head = head, .acts = bits8 ? &r->acts : NULL, .acts16 = bits16 ? &r->acts16 : NULL};
    shape_acts(r, &r->acts, r->n, rows, r->shape.embd);
    shape_acts(r, &r->acts16, r->n, rows, r->shape.embd);
    team(r, norm_task, &job, rows);
}

static void add_bias(float *out, uint32_t rows, const struct vec *bias)
{
    if (bias->data)
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t i = 0; i < bias->n; i++)
                out[(size_t)r * bias->n + i] += bias->data[i];
}

static void cpu_qkv(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    uint32_t rows = r->batch.n_rows;
    /* Keys and values get 16-bit activations: every later position looks at them, their matrices are small where
     * heads share them, and it takes a fifth off the whole model's distance from the truth (docs/numerics.md). */
    norm_rows(r, &l->attn_norm, NULL, rows, wants_quantized(&l->q), wants_quantized(&l->k) || wants_quantized(&l->v));
    struct mat_part part[DENSE_PARTS];
    struct mat_job job = {.r = r, .k = r->k, .x = &r->acts, .threads = threadpool_size(r->cpu->pool), .part = part};
    mat_add(&job, &l->q, 0, r->q, l->q.rows);
    job.x = &r->acts16;
    mat_add(&job, &l->k, 0, r->kk, l->k.rows);
    mat_add(&job, &l->v, 0, r->v, l->v.rows);
    mat_run(r, &job);
    add_bias(r->q, rows, &l->q_bias);
    add_bias(r->kk, rows, &l->k_bias);
    add_bias(r->v, rows, &l->v_bias);
}

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

static void cpu_rope_store(struct run *run, const struct layer *l, const struct kv_view *kv)
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

static void cpu_attend(struct run *run, const struct layer *l, const struct kv_view *kv)
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

static void join_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    uint32_t embd = r->shape.embd;
    float *x = r->x + (size_t)task * embd, *t = r->t + (size_t)task * embd;
    (void)thread;
    if (job->bias && job->bias->data)
        for (uint32_t i = 0; i < embd; i++)
            t[i] += job->bias->data[i];
    if (job->norm->weight.data)
        r->k->rms_norm(t, job->norm->weight.data, embd, job->norm->eps, t);
    for (uint32_t i = 0; i < embd; i++)
        x[i] += t[i];
}

/* x += norm(t + bias) */
static void join(struct cpu_run *r, const struct vec *bias, const struct norm *norm)
{
    struct row_job job = {.r = r, .bias = bias, .norm = norm};
    team(r, join_task, &job, r->batch.n_rows);
}

static void cpu_attn_out(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    set_acts(r, r->att, r->batch.n_rows, l->out.cols, wants_quantized(&l->out));
    mat_one(r, &l->out, r->t, r->shape.embd);
    join(r, &l->out_bias, &l->attn_post_norm);
}

static void act_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    size_t n = job->layer->gate.rows;
    (void)thread;
    r->k->act_mul(job->layer->act, r->gate + task * n, r->up + task * n, (uint32_t)n);
    quantize_row(job, task);
}

static void cpu_ffn_in(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    uint32_t rows = r->batch.n_rows;
    norm_rows(r, &l->ffn_norm, NULL, rows, wants_quantized(&l->gate) || wants_quantized(&l->up), false);
    struct mat_part part[DENSE_PARTS];
    struct mat_job job = {.r = r, .k = r->k, .x = &r->acts, .threads = threadpool_size(r->cpu->pool), .part = part};
    mat_add(&job, &l->gate, 0, r->gate, l->gate.rows);
    mat_add(&job, &l->up, 0, r->up, l->up.rows);
    mat_run(r, &job);
    struct row_job act = {.r = r, .layer = l, .acts = wants_quantized(&l->down) ? &r->acts : NULL};
    shape_acts(r, &r->acts, r->gate, rows, l->down.cols);
    team(r, act_task, &act, rows);
}

static void cpu_ffn_out(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    mat_one(r, &l->down, r->t, r->shape.embd); /* ffn_in left the operand */
    join(r, NULL, &l->ffn_post_norm);
}

/* The n_used best of the router's scores, best first, ties by index. */
static void choose(const struct experts *e, float *score, struct choice *ret)
{
    float sum = 0;
    for (uint32_t rank = 0; rank < e->n_used; rank++) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < e->n; i++)
            if (score[i] > score[best])
                best = i;
        ret[rank] = (struct choice){.expert = best, .weight = score[best]};
        sum += score[best];
        score[best] = -INFINITY; /* scores are 0 or more */
    }
    for (uint32_t rank = 0; rank < e->n_used; rank++) {
        if (e->normalize)
            ret[rank].weight /= sum;
        if (e->scale != 0)
            ret[rank].weight *= e->scale;
    }
}

static void route_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    const struct experts *e = &job->layer->experts;
    float *score = r->router + (size_t)task * e->n;
    (void)thread;
    if (e->sigmoid)
        for (uint32_t i = 0; i < e->n; i++)
            score[i] = 1.0f / (1.0f + sc_expf(-score[i]));
    else
        r->k->softmax(score, e->n);
    choose(e, score, r->choices + (size_t)task * e->n_used);
}

static void cpu_route(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    uint32_t rows = r->batch.n_rows;
    norm_rows(r, &l->ffn_norm, NULL, rows, wants_quantized(&l->experts.router), false);
    mat_one(r, &l->experts.router, r->router, l->experts.n);
    struct row_job job = {.r = r, .layer = l};
    team(r, route_task, &job, rows);
}

/* Brings the rows of each expert together: expert e's are [expert_first[e], expert_first[e + 1]) of the grouped order. */
static void group_rows(struct cpu_run *r, const struct experts *e, uint32_t rows)
{
    uint32_t *first = r->expert_first, total = rows * e->n_used;
    memset(first, 0, (e->n + 1) * sizeof *first);
    for (uint32_t i = 0; i < total; i++)
        first[r->choices[i].expert + 1]++;
    for (uint32_t i = 0; i < e->n; i++)
        first[i + 1] += first[i];
    for (uint32_t i = 0; i < total; i++) {
        uint32_t at = first[r->choices[i].expert]++;
        r->choices[i].at = at;
        r->grouped[at] = i / e->n_used;
    }
    memmove(first + 1, first, e->n * sizeof *first); /* each start had moved to its end */
    first[0] = 0;
}

/* One expert's rows as operands: a window of acts that begins at `place`; returns the place behind it. */
static size_t expert_acts(struct cpu_run *r, struct acts *x, const float *f, uint32_t rows, uint32_t k, size_t place)
{
    size_t group = place * (k / ACT_GROUP);
    *x = r->acts;
    x->q += group * ACT_GROUP;
    x->scale += group;
    x->sum += group;
    x->sum16 += group * 2;
    x->isum += group * 2;
    x->isum32 += group;
    shape_acts(r, x, f, rows, k);
    return place + (rows + x->tile - 1) / x->tile * x->tile;
}

/* Operands of all experts, `f` and k floats a row in grouped order. */
static void shape_experts(struct cpu_run *r, const struct experts *e, const float *f, uint32_t k)
{
    size_t place = 0;
    for (uint32_t x = 0; x < e->n; x++) {
        uint32_t first = r->expert_first[x];
        place = expert_acts(r, &r->expert_acts[x], f + (size_t)first * k, r->expert_first[x + 1] - first, k, place);
    }
}

/* The products of all experts that have rows, w's own and (if there is one) more's; out is in grouped order. */
static void expert_products(struct cpu_run *r, const struct experts *e, const struct weight *w, float *out, const struct weight *more, float *more_out)
{
    struct mat_job job = {.r = r, .k = r->k, .threads = threadpool_size(r->cpu->pool), .part = r->expert_parts};
    for (uint32_t x = 0; x < e->n; x++) {
        uint32_t first = r->expert_first[x];
        if (r->expert_first[x + 1] == first)
            continue;
        job.x = &r->expert_acts[x];
        mat_add(&job, w, x, out + (size_t)first * w->rows, w->rows);
        if (more)
            mat_add(&job, more, x, more_out + (size_t)first * more->rows, more->rows);
    }
    mat_run(r, &job);
}

/* Which expert a place of the grouped order belongs to. */
static uint32_t expert_at(const struct cpu_run *r, const struct experts *e, uint32_t at)
{
    uint32_t low = 0, high = e->n;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (at >= r->expert_first[middle])
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Brings one row to its place in grouped order, quantized where its expert's matrices want that. */
static void gather_task(void *arg, uint32_t at, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    uint32_t embd = r->shape.embd, expert = expert_at(r, &job->layer->experts, at);
    float *to = r->t + (size_t)at * embd;
    (void)thread;
    memcpy(to, r->n + (size_t)r->grouped[at] * embd, embd * sizeof *to);
    if (wants_quantized(&job->layer->gate) || wants_quantized(&job->layer->up))
        r->k->quantize(&r->expert_acts[expert], at - r->expert_first[expert]);
}

static void expert_act_task(void *arg, uint32_t at, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    uint32_t expert = expert_at(r, &job->layer->experts, at);
    act_task(arg, at, thread);
    if (wants_quantized(&job->layer->down))
        r->k->quantize(&r->expert_acts[expert], at - r->expert_first[expert]);
}

/* t of a row = sum of weight * its experts' outputs, in rank order. Reads up (grouped), as t itself is the target. */
static void sum_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    struct cpu_run *r = job->r;
    uint32_t embd = r->shape.embd, used = job->layer->experts.n_used;
    float *t = r->t + (size_t)task * embd;
    (void)thread;
    memset(t, 0, embd * sizeof *t);
    for (uint32_t rank = 0; rank < used; rank++) {
        const struct choice *c = &r->choices[(size_t)task * used + rank];
        const float *y = job->in + (size_t)c->at * embd;
        for (uint32_t i = 0; i < embd; i++)
            t[i] = fmaf(c->weight, y[i], t[i]);
    }
}

static void cpu_experts(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    uint32_t rows = r->batch.n_rows, spread = rows * l->experts.n_used;
    struct row_job job = {.r = r, .layer = l};
    group_rows(r, &l->experts, rows);
    shape_experts(r, &l->experts, r->t, r->shape.embd); /* t is free until the sum, n once the rows are grouped */
    team(r, gather_task, &job, spread);
    expert_products(r, &l->experts, &l->gate, r->gate, &l->up, r->up);
    shape_experts(r, &l->experts, r->gate, l->down.cols);
    team(r, expert_act_task, &job, spread);
    expert_products(r, &l->experts, &l->down, r->n, NULL, NULL);
    job.in = r->n;
    team(r, sum_task, &job, rows);
    join(r, NULL, &l->ffn_post_norm);
}

static void softcap_task(void *arg, uint32_t task, uint32_t thread)
{
    struct row_job *job = arg;
    float *logits = job->r->logits + (size_t)task * job->r->shape.n_vocab, cap = job->head->softcap;
    (void)thread;
    for (uint32_t i = 0; i < job->r->shape.n_vocab; i++)
        logits[i] = cap * sc_tanhf(logits[i] / cap);
}

static void cpu_head(struct run *run, const struct head *head)
{
    struct cpu_run *r = self(run);
    uint32_t rows = r->batch.n_wanted;
    if (rows == 0)
        return;
    norm_rows(r, &head->norm, head, rows, wants_quantized(&head->out), false);
    mat_one(r, &head->out, r->logits, r->shape.n_vocab);
    struct row_job cap = {.r = r, .head = head};
    if (head->softcap != 0)
        team(r, softcap_task, &cap, rows);
}

static int cpu_finish(struct run *run, struct err *err)
{
    (void)run;
    (void)err;
    return 0;
}

static const float *cpu_hidden(struct run *run)
{
    return self(run)->x;
}

/* cpu_head left the wanted rows' norms in n. */
static const float *cpu_normed(struct run *run, uint32_t wanted_index)
{
    return self(run)->n + (size_t)wanted_index * self(run)->shape.embd;
}

static const float *cpu_logits(struct run *run, uint32_t wanted_index)
{
    return self(run)->logits + (size_t)wanted_index * self(run)->shape.n_vocab;
}

/* --- the backend -------------------------------------------------------------------------------------------------------- */

static void *cpu_alloc(struct backend *b, size_t bytes, struct err *err)
{
    (void)b;
    return mem_pages_alloc(bytes, err);
}

static void cpu_free(struct backend *b, void *p, size_t bytes)
{
    (void)b;
    mem_pages_free(p, bytes);
}

static enum weight_layout cpu_weight_layout(struct backend *b, enum quant_type type)
{
    const struct cpu *cpu = (const struct cpu *)b;
    return cpu->keep_file_layout ? LAYOUT_FILE : cpu->kernels.layout[type];
}

static size_t cpu_weight_bytes(struct backend *b, enum quant_type type, uint32_t rows, uint32_t cols)
{
    const struct kernels *k = &((struct cpu *)b)->kernels;
    return cpu_weight_layout(b, type) == LAYOUT_FILE ? (size_t)quant_bytes(type, cols) * rows : k->packed_bytes(type, rows, cols);
}

static int cpu_weight_put(struct backend *b, enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst, struct err *err)
{
    const struct kernels *k = &((struct cpu *)b)->kernels;
    size_t row_bytes = (size_t)quant_bytes(type, cols);
    (void)err;
    if (cpu_weight_layout(b, type) == LAYOUT_FILE)
        memcpy((char *)dst + row0 * row_bytes, src, n * row_bytes);
    else
        k->pack(type, src, row0, n, cols, dst);
    return 0;
}

static int cpu_weights_done(struct backend *b, struct err *err)
{
    (void)b;
    (void)err;
    return 0;
}

/* write and read: all memory is alike. */
static int cpu_copy(struct backend *b, void *to, const void *from, size_t bytes, struct err *err)
{
    (void)b;
    (void)err;
    memcpy(to, from, bytes);
    return 0;
}

static size_t cpu_kv_block_bytes(const struct attention *attn, enum kv_type type)
{
    return kv_layout_of(attn, type).head_bytes * attn->n_kv_heads;
}

static void cpu_kv_copy(struct backend *b, const struct kv_view *kv, uint32_t from, uint32_t to)
{
    (void)b;
    if (from != to)
        memcpy((char *)kv->base + to * kv->block_bytes, (const char *)kv->base + from * kv->block_bytes, kv->block_bytes);
}

static void cpu_destroy(struct backend *b)
{
    struct cpu *cpu = (struct cpu *)b;
    threadpool_destroy(cpu->pool);
    free(cpu);
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .host_memory = true,
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .weight_layout = cpu_weight_layout,
    .weight_bytes = cpu_weight_bytes,
    .weight_put = cpu_weight_put,
    .weights_done = cpu_weights_done,
    .write = cpu_copy,
    .read = cpu_copy,
    .kv_block_bytes = cpu_kv_block_bytes,
    .kv_copy = cpu_kv_copy,
    .run_create = cpu_run_create,
    .run_destroy = cpu_run_destroy,
    .run_bytes = cpu_run_bytes,
    .begin = cpu_begin,
    .embed = cpu_embed,
    .set_hidden = cpu_set_hidden,
    .qkv = cpu_qkv,
    .rope_store = cpu_rope_store,
    .attend = cpu_attend,
    .attn_out = cpu_attn_out,
    .ffn_in = cpu_ffn_in,
    .ffn_out = cpu_ffn_out,
    .route = cpu_route,
    .experts = cpu_experts,
    .head = cpu_head,
    .finish = cpu_finish,
    .hidden = cpu_hidden,
    .logits = cpu_logits,
    .normed = cpu_normed,
};

struct backend *backend_cpu_create_with(const struct backend_cpu_options *o, struct err *err)
{
    struct threadpool_options team = {.n_threads = o->n_threads, .pin = o->pin, .cpus = o->cpus, .n_cpus = o->n_cpus};
    struct cpu *cpu = mem_new(1, sizeof *cpu, err);
    if (!cpu)
        return NULL;
    cpu->backend.ops = &cpu_ops;
    cpu->prompt_gemm = o->prompt_gemm;
    cpu->keep_file_layout = o->keep_file_layout;
    cpu->is_part = o->n_cpus > 0;
    if ((o->prompt_gemm != GEMM_INT8 && blas_open(err) != 0) || kernels_select(o->isa, &cpu->kernels, err) != 0 ||
        !(cpu->pool = threadpool_create_with(&team, err))) {
        free(cpu);
        return NULL;
    }
    return &cpu->backend;
}

struct backend *backend_cpu_create(unsigned n_threads, const char *isa, struct err *err)
{
    return backend_cpu_create_with(&(struct backend_cpu_options){.n_threads = n_threads, .isa = isa}, err);
}

const char *backend_cpu_placement(const struct backend *b)
{
    return threadpool_placement(((const struct cpu *)b)->pool);
}

bool backend_cpu_is_part(const struct backend *b)
{
    return ((const struct cpu *)b)->is_part;
}

unsigned backend_cpu_threads(const struct backend *b)
{
    return threadpool_size(((const struct cpu *)b)->pool);
}

const char *backend_cpu_isa(const struct backend *b)
{
    return ((const struct cpu *)b)->kernels.isa;
}

void backend_cpu_levels(struct strbuf *ret)
{
    kernels_present(ret);
}

struct threadpool *backend_cpu_team(struct backend *b)
{
    return ((struct cpu *)b)->pool;
}

void backend_destroy(struct backend *b)
{
    if (b)
        b->ops->destroy(b);
}
