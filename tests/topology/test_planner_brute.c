/* The planner against brute force on random small inputs: every order of every choice of devices, every cut, with costs
 * computed here from the formulas of docs/planning.md and none of the planner's code. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "tests/topology/random_input.h"

enum { SHORT_RUN = 3000, LONG_RUN = 12000, MAX_CHAIN = 16 };

struct stage {
    uint32_t node, device, first, last;
};

struct chain {
    const struct plan_input *in;
    struct stage stages[MAX_CHAIN];
    uint32_t n;
    bool used[PLAN_MAX_NODES][PLAN_MAX_DEVICES], left[PLAN_MAX_NODES]; /* left: the chain was there and has gone on */
    double best;
};

static double bytes_of(const struct plan_model *m, const struct plan_device *d, const double *weights)
{
    double bytes = 0;
    for (uint32_t t = 0; t < m->n_types; t++)
        bytes += weights[t] * (d->bits[t] > 0 ? d->bits[t] : m->type_bits[t]) / 8;
    return bytes;
}

static double part_memory(const struct plan_model *m, const struct plan_device *d, const struct plan_part *p)
{
    return ceil(bytes_of(m, d, p->weights) + bytes_of(m, d, p->expert_weights)) + (double)p->other_bytes;
}

/* Bytes that memory lacks; 0: it fits. */
static double lacking(const struct plan_input *in, const struct stage *st)
{
    const struct plan_model *m = in->model;
    const struct plan_device *d = &in->nodes[st->node].devices[st->device];
    double weights = 0, rest = (double)(m->scratch_bytes + m->wire_bytes + d->reserve_bytes);
    for (uint32_t l = st->first; l < st->last; l++) {
        weights += part_memory(m, d, &m->layers[l]);
        rest += (double)m->layers[l].kv_bytes;
    }
    double embed = part_memory(m, d, &m->embed), head = part_memory(m, d, &m->head);
    if (st->first == 0)
        weights += embed;
    if (st->last == m->n_layers) {
        weights += head - (st->first == 0 && m->tied ? fmin(embed, head) : 0);
        rest += (double)m->scratch_head_bytes;
    }
    if (rest > (double)d->memory_bytes)
        return INFINITY;
    return fmax(weights + rest - (double)d->memory_bytes, 0);
}

static bool allowed(const struct plan_input *in, enum plan_pin_what what, uint32_t layer, uint32_t node)
{
    bool must = false, here = false;
    for (uint32_t i = 0; i < in->n_pins; i++) {
        const struct plan_pin *p = &in->pins[i];
        if (p->what != what || (what == PIN_LAYERS && (layer < p->layers.first || layer >= p->layers.last)))
            continue;
        if (p->never) {
            if (p->node == node)
                return false;
        } else {
            must = true;
            here |= p->node == node;
        }
    }
    return !must || here;
}

static bool possible(const struct plan_input *in, const struct stage *st)
{
    double lacks = lacking(in, st);
    for (uint32_t l = st->first; l < st->last; l++)
        if (!allowed(in, PIN_LAYERS, l, st->node))
            return false;
    if ((st->first == 0 && !allowed(in, PIN_EMBED, 0, st->node)) || (st->last == in->model->n_layers && !allowed(in, PIN_HEAD, 0, st->node)))
        return false;
    return lacks == 0 || (lacks < INFINITY && in->nodes[st->node].devices[st->device].disk_bps > 0);
}

/* Seconds for b rows of so many operations: measured with 1, 8 and 512, in between on the straight line. */
static double row_time(const double rates[3], double ops, double b)
{
    static const double rows[] = {0, 1, 8, 512};
    double took[4] = {0};
    for (int k = 0; k < 3; k++)
        took[k + 1] = ops * rows[k + 1] / rates[k];
    for (int k = 0; k < 3; k++)
        if (b <= rows[k + 1])
            return took[k] + (took[k + 1] - took[k]) * (b - rows[k]) / (rows[k + 1] - rows[k]);
    return took[3] * b / 512;
}

static double product_time(const struct plan_device *d, uint32_t type, double weights, double b)
{
    return row_time((double[]){d->ops[0][type], d->ops[1][type], d->ops[2][type]}, 2 * weights, b);
}

/* Time of a stage for b sequences that decode and the prompt rows that go with them, and how long it reads. */
static double stage_time(const struct plan_input *in, const struct stage *st, double seqs, double b, double *ret_read)
{
    const struct plan_model *m = in->model;
    const struct plan_device *d = &in->nodes[st->node].devices[st->device];
    double touched = m->experts ? 1 - pow(1 - (double)m->experts_used / m->experts, b) : 0;
    double used = m->experts ? (double)m->experts_used / m->experts : 0, read = 0, compute = 0;
    for (uint32_t l = st->first; l < st->last; l++) {
        const struct plan_part *p = &m->layers[l];
        double context = p->sliding ? fmin(in->context, m->window) : in->context;
        read += bytes_of(m, d, p->weights) + (double)p->other_bytes + touched * bytes_of(m, d, p->expert_weights) + seqs * context * p->kv_position_bytes;
        for (uint32_t t = 0; t < m->n_types; t++) {
            compute += product_time(d, t, p->weights[t], b);
            if (m->experts)
                compute += touched * product_time(d, t, p->expert_weights[t], b * used / touched);
        }
        compute += row_time(d->attn_ops, context * p->attn_ops, b);
    }
    if (st->last == m->n_layers) {
        read += part_memory(m, d, &m->head);
        for (uint32_t t = 0; t < m->n_types; t++)
            compute += product_time(d, t, m->head.weights[t], seqs);
    }
    *ret_read = read / d->read_bps * 1e6;
    return fmax(*ret_read, compute * 1e6) + d->fixed_us;
}

struct totals {
    double sum, slowest;
};

/* What a stage copies of a row to have it and to hand it on: microseconds. */
static double copying(const struct chain *c, uint32_t i)
{
    const struct plan_input *in = c->in;
    const struct stage *st = &c->stages[i], *before = i > 0 ? st - 1 : NULL, *after = i + 1 < c->n ? st + 1 : NULL;
    const struct plan_device *devices = in->nodes[st->node].devices, *d = &devices[st->device];
    double us = 0, row = in->model->copy_bytes * 1e6;
    if (before && !(before->node == st->node && devices[before->device].peer_bps[st->device] > 0) && d->copy_bps > 0)
        us += row / d->copy_bps;
    if (after && after->node == st->node && d->peer_bps[after->device] > 0)
        us += row / d->peer_bps[after->device];
    else if (after && d->back_bps > 0)
        us += row / d->back_bps;
    return us;
}

static struct totals walk(const struct chain *c, double seqs, double prompts)
{
    const struct plan_input *in = c->in;
    double b = seqs * (1 + prompts);
    struct totals t = {0, 0};
    double groups[COST_MAX_GROUPS] = {0};
    uint32_t from = in->n_nodes;
    for (uint32_t i = 0; i <= c->n; i++) {
        uint32_t to = i < c->n ? c->stages[i].node : in->n_nodes;
        const struct plan_link *l = &in->links[from * (in->n_nodes + 1) + to];
        double wire = b * (from == in->n_nodes || to == in->n_nodes ? in->model->token_bytes : in->model->row_bytes) / l->bps * 1e6;
        int32_t g = from == in->n_nodes ? -1 : in->nodes[from].group, h = to == in->n_nodes ? -1 : in->nodes[to].group;
        if (from != to) { /* within a node it costs nothing */
            t.sum += l->latency_us + wire;
            t.slowest = fmax(t.slowest, wire);
            if (g != h && g >= 0)
                groups[g] += wire * l->bps / in->groups[g].bps;
            if (g != h && h >= 0)
                groups[h] += wire * l->bps / in->groups[h].bps;
        }
        from = to;
        if (i == c->n)
            break;
        const struct plan_device *d = &in->nodes[to].devices[c->stages[i].device];
        double read, us = stage_time(in, &c->stages[i], seqs, b, &read) + b * copying(c, i), lacks = lacking(in, &c->stages[i]);
        t.sum += us;
        t.slowest = fmax(t.slowest, us + (lacks > 0 ? lacks / d->disk_bps * 1e6 : 0));
        if (d->group >= 0)
            groups[d->group] += in->groups[d->group].processors ? us * d->processors / in->groups[d->group].bps
                                                                : read * d->read_bps / in->groups[d->group].bps;
    }
    for (int i = 0; i < COST_MAX_GROUPS; i++)
        t.slowest = fmax(t.slowest, groups[i]);
    return t;
}

static double value_of(const struct chain *c, bool disk, uint32_t devices)
{
    const struct plan_input *in = c->in;
    struct totals t = walk(c, 1, in->objective == PLAN_BALANCED ? in->prompt_share : 0);
    double best = INFINITY;
    if (in->objective == PLAN_LATENCY)
        return disk ? fmax(t.sum, t.slowest) : t.sum;
    if (in->objective == PLAN_BALANCED)
        return t.sum + (in->parallel - 1) * t.slowest;
    for (uint32_t m = 1; m <= in->parallel && m <= devices + 2; m++) {
        t = walk(c, (double)in->parallel / m, in->prompt_share);
        best = fmin(best, fmax(t.sum, m * t.slowest));
    }
    return best;
}

static void search(struct chain *c, bool disk, uint32_t devices)
{
    const struct plan_input *in = c->in;
    uint32_t at = c->n ? c->stages[c->n - 1].last : 0, here = c->n ? c->stages[c->n - 1].node : PLAN_MAX_NODES;
    if (at == in->model->n_layers) {
        c->best = fmin(c->best, value_of(c, disk, devices));
        return;
    }
    for (uint32_t i = 0; i < in->n_nodes; i++) {
        if (c->left[i])
            continue;
        bool leaves = c->n && here != i;
        if (leaves)
            c->left[here] = true;
        for (uint32_t d = 0; d < in->nodes[i].n_devices; d++) {
            if (c->used[i][d])
                continue;
            c->used[i][d] = true;
            for (uint32_t q = at + 1; q <= in->model->n_layers; q++) {
                struct stage st = {i, d, at, q};
                if (!possible(in, &st))
                    continue;
                c->stages[c->n++] = st;
                search(c, disk, devices);
                c->n--;
            }
            c->used[i][d] = false;
        }
        if (leaves)
            c->left[here] = false;
    }
}

static const char *compare(uint64_t seed, const struct random_shape *shape, enum plan_objective objective, uint32_t *fits)
{
    static struct random_input r;
    static struct plan plan, again;
    static char said[800];
    struct chain c = {.in = &r.in, .best = INFINITY};
    struct err err;
    bool disk = false;
    uint32_t devices = 0;
    random_input(&r, seed, shape, objective);
    for (uint32_t i = 0; i < shape->nodes; i++) {
        devices += r.nodes[i].n_devices;
        for (uint32_t d = 0; d < r.nodes[i].n_devices; d++)
            disk |= r.nodes[i].devices[d].disk_bps > 0;
    }
    search(&c, disk, devices);
    bool found = plan_make(&r.in, &plan, &err) == 0;
    if (!found && c.best == INFINITY)
        return NULL;
    *fits += found;
    snprintf(said, sizeof said, "seed %llu, %u nodes, %u layers, %s: brute force %.6f us, planner %.6f us (bound %.6f, gap %g) %s",
             (unsigned long long)seed, shape->nodes, shape->layers, plan_objective_name(objective), c.best, found ? plan.value_us : INFINITY,
             found ? plan.bound_us : 0, found ? plan.gap : 0, found ? "" : err.text);
    if (!found || fabs(plan.value_us - c.best) > 1e-6 * c.best || plan.gap != 0 || plan.bound_us > c.best * (1 + 1e-6))
        return said;
    if (plan_evaluate(&r.in, plan.stages, plan.n_stages, &again, &err) != 0 || again.value_us > plan.value_us * (1 + 1e-9))
        return said;
    r.in.by_end = true;
    if (plan_make(&r.in, &again, &err) != 0 || fabs(again.value_us - c.best) > 1e-6 * c.best || again.gap != 0) {
        snprintf(said + strlen(said), sizeof said - strlen(said), "; by ends %.6f us", again.value_us);
        return said;
    }
    return NULL;
}

static void test_objective(enum plan_objective objective, uint32_t runs)
{
    uint32_t wrong = 0, fits = 0;
    for (uint32_t i = 0; i < runs; i++) {
        uint64_t seed = (uint64_t)objective * 1000003 + i, s = seed;
        struct random_shape shape = {.nodes = 1 + (uint32_t)(random_next(&s) % 4), .uneven = random_next(&s) % 4 != 0,
                                     .room = random_between(&s, 0.9, 3)};
        shape.devices = shape.nodes < 4 ? 1 + (uint32_t)(random_next(&s) % (shape.nodes < 3 ? 4 : 2)) : 1;
        shape.layers = 2 + (uint32_t)(random_next(&s) % (shape.nodes * shape.devices > 4 ? 4 : 6));
        const char *said = compare(seed, &shape, objective, &fits);
        if (said && wrong++ < 5)
            tap_note("%s", said);
    }
    ok(wrong == 0, "%s: %u of %u random inputs as brute force says (%u of them fit)", plan_objective_name(objective), runs - wrong, runs, fits);
    ok(fits > runs / 3 && fits < runs, "%s: some fit, some do not", plan_objective_name(objective));
}

int main(void)
{
    uint32_t runs = getenv("SC_LONG") ? LONG_RUN : SHORT_RUN;
    for (int o = 0; o < PLAN_OBJECTIVES; o++)
        test_objective((enum plan_objective)o, runs / PLAN_OBJECTIVES);
    return tap_done();
}
