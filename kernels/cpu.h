#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H

/* The inside of the CPU backend, for kernels/cpu*.c: cpu_run.c (a run's memory), cpu_mat.c (matrix products), cpu_attend.c,
 * cpu_experts.c, cpu.c (the other operations, the backend).
 *
 * Memory: one block of pages for a run, laid out in run_create from the stage's largest dimensions. Activations of up to
 * max_rows rows; the 8-bit copies are packed for exactly the rows of the operation at hand, so that rows that meet lie side
 * by side. */

#include "base/threadpool.h"
#include "kernels/blas.h"
#include "kernels/kernels.h"

/* SPLIT_ROWS: rows whose attention is taken apart, at most. */
enum { SPLIT_ROWS = 16 };

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

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline struct cpu_run *self(struct run *run)
{
    return (struct cpu_run *)run;
}

static inline void team(struct cpu_run *r, threadpool_fn fn, void *arg, uint32_t n_tasks)
{
    threadpool_run(r->cpu->pool, fn, arg, n_tasks);
}

/* --- memory: cpu_run.c ----------------------------------------------------------------------------------------------------- */

size_t cpu_run_bytes(struct backend *b, const struct run_shape *shape);
struct run *cpu_run_create(struct backend *b, const struct run_shape *shape, struct err *err);
void cpu_run_destroy(struct run *run);

/* --- products: cpu_mat.c --------------------------------------------------------------------------------------------------- */

/* Whether a product meets bytes; they are made also where OpenBLAS will take the floats: what it costs is little beside the product. */
static inline bool wants_quantized(const struct weight *w)
{
    return quant_decoders[w->type].group != 0;
}

/* Several products that need nothing of each other: one barrier for all. */
struct mat_job {
    struct cpu_run *r;
    const struct kernels *k;
    const struct acts *x; /* of the parts that are added next */
    uint32_t n, n_tasks, threads;
    struct mat_part *part;
};

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

static inline void quantize_row(struct row_job *job, uint32_t row)
{
    if (job->acts)
        job->r->k->quantize(job->acts, row);
    if (job->acts16)
        job->r->k->quantize(job->acts16, row);
}

/* Makes `rows` rows of `k` floats the operand of the products that follow, once each has been quantized (where that is wanted). */
void cpu_shape_acts(struct cpu_run *r, struct acts *x, const float *f, uint32_t rows, uint32_t k);
/* The same of r->acts, quantized. */
void cpu_set_acts(struct cpu_run *r, const float *f, uint32_t rows, uint32_t k, bool quantized);
void cpu_mat_add(struct mat_job *job, const struct weight *w, uint32_t mat, float *out, size_t stride);
void cpu_mat_run(struct cpu_run *r, struct mat_job *job);
/* One product alone. */
void cpu_mat_one(struct cpu_run *r, const struct weight *w, float *out, size_t stride);

/* --- operations ------------------------------------------------------------------------------------------------------------ */

void cpu_rope_store(struct run *run, const struct layer *l, const struct kv_view *kv);
void cpu_attend(struct run *run, const struct layer *l, const struct kv_view *kv);

void cpu_route(struct run *run, const struct layer *l);
void cpu_experts(struct run *run, const struct layer *l);

/* Of cpu.c: n = norm(x) of the rows, or of those that a head is asked for, quantized as said. */
void cpu_norm_rows(struct cpu_run *r, const struct norm *norm, const struct head *head, uint32_t rows, bool bits8, bool bits16);
/* x += norm(t + bias) */
void cpu_join(struct cpu_run *r, const struct vec *bias, const struct norm *norm);
void cpu_act_task(void *arg, uint32_t task, uint32_t thread); /* gate = act(gate) * up, one row */

#endif
