/* The CPU as a backend: its operations, each cut into tasks for the team. "Enqueue" is "do it now" here; finish has nothing to
 * wait for. See cpu.h. */
#include "kernels/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/fmath.h"

enum { DENSE_PARTS = 3 };

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
void cpu_norm_rows(struct cpu_run *r, const struct norm *norm, const struct head *head, uint32_t rows, bool bits8, bool bits16)
{
    struct row_job job = {.r = r, .norm = norm, .head = head, .acts = bits8 ? &r->acts : NULL, .acts16 = bits16 ? &r->acts16 : NULL};
    cpu_shape_acts(r, &r->acts, r->n, rows, r->shape.embd);
    cpu_shape_acts(r, &r->acts16, r->n, rows, r->shape.embd);
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
    cpu_norm_rows(r, &l->attn_norm, NULL, rows, wants_quantized(&l->q), wants_quantized(&l->k) || wants_quantized(&l->v));
    struct mat_part part[DENSE_PARTS];
    struct mat_job job = {.r = r, .k = r->k, .x = &r->acts, .threads = threadpool_size(r->cpu->pool), .part = part};
    cpu_mat_add(&job, &l->q, 0, r->q, l->q.rows);
    job.x = &r->acts16;
    cpu_mat_add(&job, &l->k, 0, r->kk, l->k.rows);
    cpu_mat_add(&job, &l->v, 0, r->v, l->v.rows);
    cpu_mat_run(r, &job);
    add_bias(r->q, rows, &l->q_bias);
    add_bias(r->kk, rows, &l->k_bias);
    add_bias(r->v, rows, &l->v_bias);
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

void cpu_join(struct cpu_run *r, const struct vec *bias, const struct norm *norm)
{
    struct row_job job = {.r = r, .bias = bias, .norm = norm};
    team(r, join_task, &job, r->batch.n_rows);
}

static void cpu_attn_out(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    cpu_set_acts(r, r->att, r->batch.n_rows, l->out.cols, wants_quantized(&l->out));
    cpu_mat_one(r, &l->out, r->t, r->shape.embd);
    cpu_join(r, &l->out_bias, &l->attn_post_norm);
}

void cpu_act_task(void *arg, uint32_t task, uint32_t thread)
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
    cpu_norm_rows(r, &l->ffn_norm, NULL, rows, wants_quantized(&l->gate) || wants_quantized(&l->up), false);
    struct mat_part part[DENSE_PARTS];
    struct mat_job job = {.r = r, .k = r->k, .x = &r->acts, .threads = threadpool_size(r->cpu->pool), .part = part};
    cpu_mat_add(&job, &l->gate, 0, r->gate, l->gate.rows);
    cpu_mat_add(&job, &l->up, 0, r->up, l->up.rows);
    cpu_mat_run(r, &job);
    struct row_job act = {.r = r, .layer = l, .acts = wants_quantized(&l->down) ? &r->acts : NULL};
    cpu_shape_acts(r, &r->acts, r->gate, rows, l->down.cols);
    team(r, cpu_act_task, &act, rows);
}

static void cpu_ffn_out(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    cpu_mat_one(r, &l->down, r->t, r->shape.embd); /* ffn_in left the operand */
    cpu_join(r, NULL, &l->ffn_post_norm);
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
    cpu_norm_rows(r, &head->norm, head, rows, wants_quantized(&head->out), false);
    cpu_mat_one(r, &head->out, r->logits, r->shape.n_vocab);
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
