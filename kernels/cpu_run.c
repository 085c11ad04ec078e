/* A run of the CPU backend: its memory. See cpu.h. */
#include "kernels/cpu.h"

#include <stdlib.h>

#include "base/mem.h"

enum { LINE = 64 };

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

static void lay_out_acts(struct carver *c, struct acts *x, size_t groups)
{
    x->q = carve(c, groups * ACT_GROUP, 1);
    x->scale = carve(c, groups, sizeof(float));
    x->sum = carve(c, groups, sizeof(float));
    x->sum16 = carve(c, groups * 2, sizeof(float));
    x->isum = carve(c, groups * 2, sizeof(int32_t));
    x->isum32 = carve(c, groups, sizeof(int32_t));
    x->less32 = carve(c, groups * 4, sizeof(int16_t));
}

static void lay_out(struct cpu_run *r, struct carver *c)
{
    const struct run_shape *s = &r->shape;
    size_t rows = s->max_rows, used = max_u32(s->n_experts_used, 1), spread = rows * used;
    size_t widest = max_u32(max_u32(s->embd, s->q_dim), max_u32(s->ff_dim, s->v_dim));
    size_t places = act_places(r->k, spread, max_u32(s->n_experts, 1));
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
    lay_out_acts(c, &r->acts, groups);
    groups = (size_t)(s->embd / ACT_GROUP) * (rows + r->k->act_tile16);
    lay_out_acts(c, &r->acts16, groups);
    r->acts16.low = carve(c, groups * ACT_GROUP, 1);
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

size_t cpu_run_bytes(struct backend *b, const struct run_shape *shape)
{
    struct cpu_run r = {.cpu = (struct cpu *)b, .k = &((struct cpu *)b)->kernels, .shape = *shape};
    struct carver counter = {0};
    lay_out(&r, &counter);
    return counter.used;
}

void cpu_run_destroy(struct run *run)
{
    struct cpu_run *r = (struct cpu_run *)run;
    if (!r)
        return;
    mem_pages_free(r->pages, r->pages_bytes);
    free(r);
}

struct run *cpu_run_create(struct backend *b, const struct run_shape *shape, struct err *err)
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
