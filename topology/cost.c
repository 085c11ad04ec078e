/* See cost.h. */
#include "topology/cost.h"

#include <math.h>
#include <stddef.h>

enum { CHUNK_STEP = 32 };
static const double M_TOLERANCE = 1.02;
const double cost_rows[COST_ROWS] = {1, 8, 512};

static double max_of(double a, double b)
{
    return a > b ? a : b;
}

static double min_of(double a, double b)
{
    return a < b ? a : b;
}

static double factor(const struct cost_stage *s)
{
    return s->measured > 0 ? s->measured : 1;
}

double cost_experts_touched(uint32_t n, uint32_t used, double rows)
{
    if (n == 0 || rows <= 0)
        return 0;
    return used >= n ? 1 : 1 - pow(1 - (double)used / n, rows);
}

double cost_work_us(const struct cost_work *w, double rows)
{
    double from = 0, us = 0; /* at the number of rows before */
    for (int k = 0; k < COST_ROWS; k++) {
        double at = cost_rows[k] * w->row_us[k];
        if (rows <= cost_rows[k])
            return us + (at - us) * (rows - from) / (cost_rows[k] - from);
        from = cost_rows[k];
        us = at;
    }
    return rows * w->row_us[COST_ROWS - 1];
}

double cost_experts_work_us(const struct cost_work *w, uint32_t n, uint32_t used, double rows)
{
    double touched = cost_experts_touched(n, used, rows);
    return touched > 0 ? touched * cost_work_us(w, rows * used / n / touched) : 0;
}

void cost_work_line(const struct cost_work *w, double *ret_start_us, double *ret_row_us)
{
    double few = cost_rows[1] * w->row_us[1], many = cost_rows[2] * w->row_us[2];
    *ret_row_us = (many - few) / (cost_rows[2] - cost_rows[1]);
    *ret_start_us = few - *ret_row_us * cost_rows[1];
}

static double sliding_context(const struct cost_stage *s, const struct cost_batch *b)
{
    return s->window ? min_of(b->context, s->window) : b->context;
}

double cost_read_us(const struct cost_stage *s, const struct cost_batch *b)
{
    double us = s->weights_us + s->kv_us * b->seqs * b->context + s->kv_sliding_us * b->seqs * sliding_context(s, b);
    if (s->experts)
        us += s->experts_us * cost_experts_touched(s->experts, s->experts_used, b->rows);
    if (b->wanted > 0)
        us += s->head_us;
    return us * factor(s);
}

double cost_stage_us(const struct cost_stage *s, const struct cost_batch *b)
{
    double read = cost_read_us(s, b);
    double compute = cost_work_us(&s->work, b->rows) + cost_experts_work_us(&s->experts_work, s->experts, s->experts_used, b->rows) +
                     cost_work_us(&s->head_work, b->wanted) + cost_work_us(&s->attn, b->rows) * b->context +
                     cost_work_us(&s->attn_sliding, b->rows) * sliding_context(s, b);
    return max_of(read, compute * factor(s)) + (s->fixed_us + s->copy_row_us * b->rows) * factor(s);
}

/* What a batch adds to the times that shared things are busy for. */
static void add_busy(const struct cost_pipeline *p, const struct cost_batch *b, double busy[COST_MAX_GROUPS])
{
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const struct cost_stage *s = &p->stages[i];
        if (s->group >= 0)
            busy[s->group] += (s->group_whole ? cost_stage_us(s, b) : cost_read_us(s, b)) * s->group_factor;
    }
    for (uint32_t i = 0; i <= p->n_stages; i++)
        for (int k = 0; k < 2; k++)
            if (p->hops[i].group[k] >= 0)
                busy[p->hops[i].group[k]] += p->hops[i].row_us * b->rows * p->hops[i].group_factor[k];
}

double cost_hop_us(const struct cost_hop *h, double rows)
{
    return h->latency_us + h->row_us * rows;
}

double cost_latency_us(const struct cost_pipeline *p, const struct cost_batch *b)
{
    double sum = 0, slowest = 0;
    for (uint32_t i = 0; i < p->n_stages; i++) {
        double us = cost_stage_us(&p->stages[i], b);
        sum += us;
        if (p->stages[i].disk_us > 0)
            slowest = max_of(slowest, us + p->stages[i].disk_us);
    }
    for (uint32_t i = 0; i <= p->n_stages; i++)
        sum += cost_hop_us(&p->hops[i], b->rows);
    return max_of(sum, slowest);
}

double cost_interval_us(const struct cost_pipeline *p, const struct cost_batch *b, uint32_t *ret_which)
{
    double slowest = 0, busy[COST_MAX_GROUPS] = {0};
    uint32_t which = 0, n = p->n_stages;
    for (uint32_t i = 0; i < n; i++) {
        const struct cost_stage *s = &p->stages[i];
        double us = cost_stage_us(s, b) + s->disk_us;
        if (us > slowest)
            slowest = us, which = i;
    }
    for (uint32_t i = 0; i <= n; i++) {
        double us = p->hops[i].row_us * b->rows;
        if (us > slowest)
            slowest = us, which = n + i;
    }
    add_busy(p, b, busy);
    for (uint32_t g = 0; g < COST_MAX_GROUPS; g++)
        if (busy[g] > slowest)
            slowest = busy[g], which = 2 * n + 1 + g;
    if (ret_which)
        *ret_which = which;
    return slowest;
}

double cost_round_us(const struct cost_pipeline *p, double n, uint32_t m, double context)
{
    double rows = n / m;
    struct cost_batch b = {.rows = rows, .wanted = rows, .seqs = rows, .context = context};
    return max_of(m * cost_interval_us(p, &b, NULL), cost_latency_us(p, &b));
}

uint32_t cost_best_m(const struct cost_pipeline *p, double n, double context, double *ret_round_us)
{
    uint32_t most = p->n_stages + 2, best = 1;
    double round[COST_MAX_STAGES + 3], least = INFINITY;
    if (most > n)
        most = n >= 1 ? (uint32_t)n : 1;
    for (uint32_t m = 1; m <= most; m++) {
        round[m] = cost_round_us(p, n, m, context);
        least = min_of(least, round[m]);
    }
    while (best < most && round[best] > least * M_TOLERANCE)
        best++;
    if (ret_round_us)
        *ret_round_us = round[best];
    return best;
}

double cost_prompt_us(const struct cost_pipeline *p, uint32_t tokens, uint32_t chunk, uint32_t context)
{
    double done[COST_MAX_STAGES] = {0}; /* when stage s is through with the last chunk so far */
    double left = 0, busy[COST_MAX_GROUPS] = {0};
    for (uint32_t at = 0; at < tokens; at += chunk) {
        uint32_t rows = tokens - at < chunk ? tokens - at : chunk;
        struct cost_batch b = {.rows = rows, .wanted = at + rows == tokens, .seqs = 1, .context = context + at + rows / 2.0};
        left = 0;
        for (uint32_t s = 0; s < p->n_stages; s++) {
            double came = left + cost_hop_us(&p->hops[s], rows);
            left = done[s] = max_of(came, done[s]) + cost_stage_us(&p->stages[s], &b) + p->stages[s].disk_us;
        }
        add_busy(p, &b, busy);
    }
    for (uint32_t g = 0; g < COST_MAX_GROUPS; g++) /* stages that share something cannot all do as if they had it alone */
        left = max_of(left, busy[g]);
    return left + cost_hop_us(&p->hops[p->n_stages], 1);
}

uint32_t cost_best_chunk(const struct cost_pipeline *p, uint32_t tokens, uint32_t max_rows, double *ret_us)
{
    uint32_t best = 0;
    double least = INFINITY;
    max_rows = max_rows < tokens ? max_rows : tokens;
    max_rows = max_rows ? max_rows : 1;
    /* Times are nearly convex in the chunk: steps of a quarter find the valley, and no formula's assumption (equal stages) is
     * needed. */
    for (uint32_t c = max_rows < CHUNK_STEP ? max_rows : CHUNK_STEP;; c = c + c / 4 < max_rows ? c + c / 4 : max_rows) {
        if (tokens / c < COST_MAX_CHUNKS) {
            double us = cost_prompt_us(p, tokens, c, 0);
            if (us < least)
                least = us, best = c;
        }
        if (c >= max_rows)
            break;
    }
    if (ret_us)
        *ret_us = least;
    return best ? best : max_rows;
}
