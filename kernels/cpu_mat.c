/* Matrix products of the CPU backend, cut into tasks. See cpu.h. */
#include "kernels/cpu.h"

enum { MAT_TASK_BYTES = 64 << 10, MAT_TASK_ROWS = 16, MAT_EVEN_ROWS = 32, MAT_THREAD_TASKS = 4 };
/* A task goes over all activations, which of a prompt no cache near a core holds: it is to meet more weights with them. */
enum { MAT_MANY_ACTS = 32, MAT_MANY_ROWS = 64 };

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

void cpu_shape_acts(struct cpu_run *r, struct acts *x, const float *f, uint32_t rows, uint32_t k)
{
    x->f = f;
    x->f_stride = k;
    x->rows = rows;
    x->tile = act_tile_of(r->k, x->low != NULL, rows);
    x->k = k;
}

void cpu_set_acts(struct cpu_run *r, const float *f, uint32_t rows, uint32_t k, bool quantized)
{
    cpu_shape_acts(r, &r->acts, f, rows, k);
    if (quantized) {
        struct quantize_job job = {r->k, &r->acts};
        team(r, quantize_task, &job, rows);
    }
}

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

void cpu_mat_add(struct mat_job *job, const struct weight *w, uint32_t mat, float *out, size_t stride)
{
    struct mat_part *p = &job->part[job->n++];
    uint32_t share = w->rows / (job->threads * MAT_THREAD_TASKS); /* of small ones: so that all finish together */
    uint32_t step = share < MAT_EVEN_ROWS ? MAT_TASK_ROWS : MAT_EVEN_ROWS; /* two panels at a time are faster, where there is a choice */
    uint32_t rows = max_u32((uint32_t)(MAT_TASK_BYTES / (w->row_bytes ? w->row_bytes : 1)), step);
    if (job->x->rows >= MAT_MANY_ACTS)
        rows = max_u32(rows, MAT_MANY_ROWS);
    rows = (rows < share ? rows : share) / step * step;
    *p = (struct mat_part){.x = job->x, .w = w, .mat = mat, .out = out, .stride = stride, .first_task = job->n_tasks};
    p->task_rows = by_blas(job->r, w, job->x->rows) ? BLAS_PANEL_ROWS : max_u32(rows, MAT_TASK_ROWS);
    job->n_tasks += (w->rows + p->task_rows - 1) / p->task_rows;
}

void cpu_mat_run(struct cpu_run *r, struct mat_job *job)
{
    team(r, mat_task, job, job->n_tasks);
}

void cpu_mat_one(struct cpu_run *r, const struct weight *w, float *out, size_t stride)
{
    struct mat_part part[1];
    struct mat_job job = {.r = r, .k = r->k, .x = &r->acts, .threads = threadpool_size(r->cpu->pool), .part = part};
    cpu_mat_add(&job, w, 0, out, stride);
    cpu_mat_run(r, &job);
}
