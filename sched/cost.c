/* See cost.h. Saturating nowhere: with rows ≤ 2^13, positions ≤ 2^22 a row and costs checked below COST_MAX, sums stay far
 * below 2^63. */
#include "sched/cost.h"

#include <string.h>

enum { MIN_RATIO = COST_ONE / 256, MAX_RATIO = COST_ONE * 256, FORGET = 64 };

void costs_set(struct costs *c, uint32_t n_stages, const struct sched_costs *base)
{
    uint64_t version = c->version + 1;
    memset(c->ratio, 0, sizeof c->ratio);
    memset(c->own, 0, sizeof c->own);
    memset(c->planned, 0, sizeof c->planned);
    c->n_stages = n_stages;
    if (base)
        c->base = *base;
    c->version = version;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Products, attention and the head come one after another, each bound by memory or by arithmetic. */
static uint64_t model_ns(const struct sched_stage_cost *k, const struct load *l)
{
    uint64_t products = larger(k->weight_ns, k->start_ns + k->row_ns * l->rows);
    uint64_t attention = larger(k->kv_ps * l->ctx, k->seq_ps * l->ctx + k->attn_ps * l->attn) / 1000;
    uint64_t head = l->wanted > 0 ? larger(k->head_weight_ns, k->head_start_ns + k->head_row_ns * l->wanted) : 0;
    return k->fixed_ns + products + attention + head;
}

static uint32_t bucket_of(uint32_t rows)
{
    uint32_t k = 0;
    while (k + 1 < COST_BUCKETS && rows >> (k + 1))
        k++;
    return k;
}

/* The measured bucket nearest to k in direction `step`; COST_BUCKETS: none. */
static uint32_t measured_from(const uint32_t *ratio, uint32_t k, int step)
{
    for (; k < COST_BUCKETS; k += (uint32_t)step)
        if (ratio[k])
            return k;
    return COST_BUCKETS;
}

static uint32_t ratio_at(const uint32_t *ratio, uint32_t rows)
{
    uint32_t k = bucket_of(rows), lo = measured_from(ratio, k, -1), hi = measured_from(ratio, k + 1, 1);
    uint64_t a, b, r;
    if (lo == COST_BUCKETS && hi == COST_BUCKETS)
        return COST_ONE;
    if (lo == COST_BUCKETS)
        return ratio[hi];
    if (hi == COST_BUCKETS || rows == 0)
        return ratio[lo];
    a = (uint64_t)1 << lo;
    b = (uint64_t)1 << hi;
    r = rows < a ? a : rows > b ? b : rows;
    return (uint32_t)((ratio[lo] * (b - r) + ratio[hi] * (r - a)) / (b - a));
}

static uint32_t limited(uint64_t ratio)
{
    return (uint32_t)(ratio < MIN_RATIO ? MIN_RATIO : ratio > MAX_RATIO ? MAX_RATIO : ratio);
}

/* Plans are made anew only when it matters: a change by more than a 64th. */
static bool is_news(uint32_t ratio, uint32_t planned)
{
    return ratio > planned + planned / 64 || ratio + planned / 64 < planned;
}

/* A moving mean; what is far from it comes closer sooner. */
static uint32_t moved(uint32_t was, uint64_t r)
{
    uint64_t weight = r > was + was / 4 || r < was - was / 4 ? 4 : 8;
    return was ? (uint32_t)((was * (weight - 1) + r + weight / 2) / weight) : (uint32_t)r;
}

void costs_measured(struct costs *c, uint32_t stage, const struct load *load, uint64_t us)
{
    uint64_t model, r;
    uint32_t *ratio, k, was;
    bool news = false;
    if (stage >= c->n_stages || load->rows == 0)
        return;
    model = model_ns(&c->base.stage[stage], load);
    r = limited(us * 1000 * COST_ONE / (model ? model : 1));
    k = bucket_of(load->rows + load->rows / 2); /* the nearest power */
    ratio = c->ratio[stage];
    was = ratio[k];
    ratio[k] = moved(was, r);
    c->own[stage][k] = moved(c->own[stage][k], r);
    for (uint32_t i = 0; i < COST_BUCKETS && was; i++)
        if (i != k && ratio[i]) {
            uint64_t with = ((uint64_t)ratio[i] * ratio[k] + was / 2) / was;
            ratio[i] = limited((with * (FORGET - 1) + ratio[k] + FORGET / 2) / FORGET);
        }
    for (uint32_t i = 0; i < COST_BUCKETS; i++)
        news = news || is_news(ratio[i], c->planned[stage][i]);
    if (news) {
        c->version++;
        memcpy(c->planned[stage], ratio, sizeof c->planned[stage]);
    }
}

uint64_t cost_stage_ns(const struct costs *c, uint32_t stage, const struct load *load)
{
    return model_ns(&c->base.stage[stage], load) * ratio_at(c->ratio[stage], load->rows) / COST_ONE;
}

uint64_t cost_max_ns(const struct costs *c, const struct load *load)
{
    uint64_t max = 0;
    for (uint32_t s = 0; s < c->n_stages; s++) {
        uint64_t t = cost_stage_ns(c, s, load);
        max = t > max ? t : max;
    }
    return max;
}

static uint64_t hops_ns(const struct costs *c, uint32_t rows)
{
    uint64_t sum = 0;
    for (uint32_t s = 0; s <= c->n_stages; s++)
        sum += c->base.hop[s].latency_ns + c->base.hop[s].row_ns * rows;
    return sum;
}

uint64_t cost_through_ns(const struct costs *c, const struct load *load)
{
    uint64_t sum = hops_ns(c, load->rows);
    for (uint32_t s = 0; s < c->n_stages; s++)
        sum += cost_stage_ns(c, s, load);
    return sum;
}

static uint64_t settled_ns(const struct costs *c, uint32_t stage, const struct load *load)
{
    uint64_t now = ratio_at(c->ratio[stage], load->rows), own = ratio_at(c->own[stage], load->rows);
    own += own * COST_DRIFT / COST_ONE;
    return model_ns(&c->base.stage[stage], load) * (now < own ? now : own) / COST_ONE;
}

static uint64_t cycle_ns(const struct costs *c, const struct load *load, uint32_t m, bool settled)
{
    uint64_t sum = hops_ns(c, load->rows), max = 0;
    for (uint32_t s = 0; s < c->n_stages; s++) {
        uint64_t t = (settled ? settled_ns : cost_stage_ns)(c, s, load);
        sum += t;
        max = t > max ? t : max;
    }
    return sum > m * max ? sum : m * max;
}

uint64_t cost_cycle_ns(const struct costs *c, const struct load *load, uint32_t m)
{
    return cycle_ns(c, load, m, false);
}

uint64_t cost_settled_cycle_ns(const struct costs *c, const struct load *load, uint32_t m)
{
    return cycle_ns(c, load, m, true);
}
