/* Experts: each one's rows are brought together, so that its weights are read once a step. See cpu.h. */
#include "kernels/cpu.h"

#include <math.h>
#include <string.h>

#include "kernels/fmath.h"

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

void cpu_route(struct run *run, const struct layer *l)
{
    struct cpu_run *r = self(run);
    uint32_t rows = r->batch.n_rows;
    cpu_norm_rows(r, &l->ffn_norm, NULL, rows, wants_quantized(&l->experts.router), false);
    cpu_mat_one(r, &l->experts.router, r->router, l->experts.n);
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
    x->less32 += group * 4;
    cpu_shape_acts(r, x, f, rows, k);
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
        cpu_mat_add(&job, w, x, out + (size_t)first * w->rows, w->rows);
        if (more)
            cpu_mat_add(&job, more, x, more_out + (size_t)first * more->rows, more->rows);
    }
    cpu_mat_run(r, &job);
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
    cpu_act_task(arg, at, thread);
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

void cpu_experts(struct run *run, const struct layer *l)
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
    cpu_join(r, NULL, &l->ffn_post_norm);
}
