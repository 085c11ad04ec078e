/* See objective.h; docs/planning.md has the formulas. */
#include "topology/objective.h"

#include <math.h>
#include <string.h>

enum { PROBES_MAX = 200, STRIPS_MAX = 400, LITTLE_MAX = 4 };
static const double CLOSE = 1e-8, BISECT_UNTIL = 5e-3, COARSELY = 0.04, COARSEST = 0.3, CAP_STEP = 1.02, RESIDENT_TOLERANCE = 0.05;

/* --- a chain's value ------------------------------------------------------------------------------------------------------ */

struct cost_batch objective_decode_batch(const struct plan_input *in, double rows)
{
    return (struct cost_batch){.rows = rows, .wanted = rows, .seqs = rows, .context = in->context};
}

/* The same with the prompt rows that go with them: what a pipeline is occupied with, over time. */
struct cost_batch objective_mixed_batch(const struct plan_input *in, double rows)
{
    struct cost_batch b = objective_decode_batch(in, rows);
    b.rows += rows * in->prompt_share;
    return b;
}

void objective_pipeline(const struct space *s, const struct plan_stage *stages, uint32_t n, const struct space_device *const *devices,
                        struct cost_pipeline *ret)
{
    uint32_t from = s->in->n_nodes;
    ret->n_stages = n;
    for (uint32_t i = 0; i < n; i++) {
        space_stage(s, devices[i], stages[i].layers.first, stages[i].layers.last, &ret->stages[i]);
        if (i > 0)
            ret->stages[i].copy_row_us += space_in_us(devices[i], from == stages[i].node ? devices[i - 1] : NULL);
        if (i + 1 < n)
            ret->stages[i].copy_row_us += space_out_us(devices[i], stages[i + 1].node == stages[i].node ? devices[i + 1] : NULL);
        space_hop(s->in, from, stages[i].node, &ret->hops[i]);
        from = stages[i].node;
    }
    space_hop(s->in, from, s->in->n_nodes, &ret->hops[n]);
}

static double sum_us(const struct cost_pipeline *p, const struct cost_batch *b)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n_stages; i++)
        sum += cost_stage_us(&p->stages[i], b);
    for (uint32_t i = 0; i <= p->n_stages; i++)
        sum += cost_hop_us(&p->hops[i], b->rows);
    return sum;
}

double objective_value(const struct form *f, const struct cost_pipeline *p)
{
    double sum = sum_us(p, &f->batch), slowest = f->weight > 0 ? cost_interval_us(p, &f->batch, NULL) : 0;
    return f->added ? sum + f->weight * slowest : fmax(sum, f->weight * slowest);
}

/* --- candidates ----------------------------------------------------------------------------------------------------------- */

static const struct space_device *device_of(const struct space *s, const struct search_stage *st)
{
    return &s->devices[st->device];
}

/* Names the nodes: the members of a kind in order. */
void objective_name_stages(const struct space *s, const struct search_stage *from, uint32_t n, struct plan_stage *ret,
                             const struct space_device **ret_devices)
{
    uint32_t taken[PLAN_MAX_NODES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        const struct space_kind *k = &s->kinds[from[i].kind];
        ret[i] = (struct plan_stage){.device = device_of(s, &from[i])->index, .layers = {from[i].first, from[i].last}};
        ret[i].node = from[i].enters ? k->members[taken[from[i].kind]++] : ret[i - 1].node;
        ret_devices[i] = device_of(s, &from[i]);
    }
}

static double candidate_value(const struct space *s, const struct form *f, const struct search_stage *stages, uint32_t n)
{
    struct plan_stage named[COST_MAX_STAGES];
    const struct space_device *devices[COST_MAX_STAGES];
    struct cost_pipeline p;
    objective_name_stages(s, stages, n, named, devices);
    objective_pipeline(s, named, n, devices, &p);
    return objective_value(f, &p);
}

/* One question; a better chain replaces *best. ret->found: there was one below below_us. */
static int ask_so(struct planning *pl, bool quick, const struct form *f, double cap, double below, double enough, struct candidate *best,
                      struct search_answer *ret)
{
    struct search_ask q = {.batch = f->batch, .cap_us = cap, .below_us = below, .enough_us = enough, .byte_us = pl->byte_us,
                           .effort = pl->effort_left, .by_end = pl->s->in->by_end, .quick = quick};
    if (search_chain(pl->s, &q, ret, pl->err) != 0)
        return -1;
    pl->states += ret->states;
    pl->effort_left = pl->effort_left > ret->states + 1 ? pl->effort_left - ret->states : 1;
    if (ret->found) {
        double value = candidate_value(pl->s, f, ret->stages, ret->n_stages);
        if (!best->found || value < best->value) {
            best->found = true;
            best->value = value;
            best->n_stages = ret->n_stages;
            memcpy(best->stages, ret->stages, sizeof best->stages);
        }
    }
    return 0;
}

static int ask(struct planning *pl, const struct form *f, double cap, double below, double enough, struct candidate *best, struct search_answer *ret)
{
    return ask_so(pl, false, f, cap, below, enough, best, ret);
}

/* Least max(weight M, S) from low to high, which are known to be too little and not the best: whether some value is possible is one
 * question with a cap. What is found is proved to be the best by asking for anything better; where that finds much better ones, the
 * range is halved first. */
static int least_max(struct planning *pl, const struct form *f, double low, double high, struct candidate *best)
{
    struct search_answer a;
    double unsettled = INFINITY; /* what may be, as far as the effort went */
    uint32_t little = 0;         /* so many finds in a row were hardly better, and by their sums, which are the least */
    best->proved = true;
    for (int i = 0; i < PROBES_MAX; i++) {
        bool last = !best->found || high - low <= BISECT_UNTIL * high || (little > 0 && little <= LITTLE_MAX);
        double value = last ? high * (1 - CLOSE) : (low + high) / 2;
        if (high == INFINITY) {
            if (ask(pl, f, INFINITY, INFINITY, INFINITY, best, &a) != 0) /* any chain at all */
                return -1;
        } else if (ask(pl, f, value / f->weight, value, value, best, &a) != 0) {
            return -1;
        }
        if (a.found && best->value < high) {
            little = high - best->value <= BISECT_UNTIL * high && a.sum_us > best->value * (1 - BISECT_UNTIL) ? little + 1 : 0;
            high = best->value;
            continue;
        }
        little = 0;
        best->proved &= a.proved;
        if (!a.proved)
            unsettled = fmin(unsettled, fmax(low, a.bound_us));
        if (!a.proved && !best->found)
            break;
        if (a.proved)
            low = fmax(low, value);
        if (last)
            break;
        if (!a.proved)
            high = fmin(high, best->value), low = fmax(low, value); /* not known to be impossible: bound stays behind */
    }
    best->bound = best->proved ? best->value : best->found ? fmin(unsettled, best->value) : unsettled;
    return 0;
}

static double slowest_of(const struct planning *pl, const struct form *f, const struct search_answer *a)
{
    struct form alone = {.weight = 1e30, .batch = f->batch};
    return candidate_value(pl->s, &alone, a->stages, a->n_stages) / alone.weight;
}

/* A cap below which there is no chain, to within a part in BISECT_UNTIL; the chains met on the way become candidates. */
static int least_cap(struct planning *pl, const struct form *f, double high, struct candidate *best, double *ret)
{
    double low = 0;
    while (high - low > BISECT_UNTIL * high) {
        struct search_answer a;
        double cap = (low + high) / 2;
        if (ask(pl, f, cap, INFINITY, INFINITY, best, &a) != 0)
            return -1;
        if (a.found)
            high = fmin(cap, slowest_of(pl, f, &a));
        else if (a.proved)
            low = cap;
        else
            break;
    }
    *ret = low;
    return 0;
}

/* Chains whose slowest part is in (low, high] and whose sum is at least least_sum: is one of them better than the best? The
 * least sum under the cap tells: whatever is slower than that chain's slowest part is no better, and what is faster has no
 * lesser sum. *bound falls to what was not settled. */
static int added_between(struct planning *pl, const struct form *f, double low, double high, double least_sum, struct candidate *best,
                         double *bound)
{
    while (least_sum + f->weight * low < best->value * (1 - CLOSE)) {
        struct search_answer a;
        if (ask(pl, f, high, best->value - f->weight * low, 0, best, &a) != 0)
            return -1;
        if (!a.proved) {
            *bound = fmin(*bound, fmax(least_sum, a.bound_us) + f->weight * low);
            return 0;
        }
        if (!a.found)
            return 0;
        least_sum = a.sum_us;
        high = slowest_of(pl, f, &a) * (1 - 2 * CLOSE);
        if (high <= low)
            return 0;
        double middle = (low + high) / 2;
        if (high - low > CLOSE * high && added_between(pl, f, middle, high, least_sum, best, bound) != 0)
            return -1;
        high = high - low > CLOSE * high ? middle : high;
    }
    return 0;
}

/* Least S + weight M. */
static int least_added(struct planning *pl, const struct form *f, struct candidate *best)
{
    struct search_answer a;
    double low = 0, bound = INFINITY;
    if (ask(pl, f, INFINITY, INFINITY, 0, best, &a) != 0)
        return -1;
    best->proved = a.proved;
    best->bound = a.bound_us;
    if (!best->found)
        return 0;
    if (f->weight > 0) {
        double high = slowest_of(pl, f, &a) * (a.proved ? 1 - 2 * CLOSE : 100), sum = a.proved ? a.sum_us : a.bound_us;
        if (least_cap(pl, f, high, best, &low) != 0)
            return -1;
        /* In strips of caps: the narrower, the sharper the limit on the sum that goes with it. */
        uint32_t strips = 0;
        for (double from; high > low; high = from) {
            from = ++strips < STRIPS_MAX ? fmax(low, high / CAP_STEP) : low;
            if (added_between(pl, f, from, high, sum, best, &bound) != 0)
                return -1;
        }
        best->proved = bound >= best->value * (1 - CLOSE);
        best->bound = fmin(bound, best->value);
    }
    if (best->proved)
        best->bound = best->value;
    return 0;
}

bool objective_any_disk(const struct space *s)
{
    for (uint32_t i = 0; i < s->n_devices; i++)
        if (s->devices[i].disk)
            return true;
    return false;
}

/* So many batches under way at a time: values below low are known to be impossible. */
struct round {
    struct form form;
    double low;
};

/* A chain that was found for one number of batches may be better still with another. */
static void rate(const struct space *s, const struct round *rounds, uint32_t n, struct candidate *c, struct form *ret_form)
{
    for (uint32_t i = 0; i < n; i++) {
        double value = candidate_value(s, &rounds[i].form, c->stages, c->n_stages);
        if (value <= c->value) {
            c->value = value;
            *ret_form = rounds[i].form;
        }
    }
}

/* Asks for chains that are better by a good part, until there is none, or none that a first look finds. */
static int improve(struct planning *pl, struct round *rounds, uint32_t n, struct round *r, struct candidate *best, struct form *ret_form)
{
    double part = COARSELY;
    for (int i = 0; i < PROBES_MAX; i++) {
        struct candidate c = {.found = false};
        struct search_answer a;
        double value = best->value * (1 - part);
        if (value <= r->low)
            return 0;
        if (ask_so(pl, true, &r->form, value / r->form.weight, value, value, &c, &a) != 0)
            return -1;
        if (a.proved && !a.found)
            r->low = value;
        if (c.found) {
            rate(pl->s, rounds, n, &c, ret_form);
            *best = c;
            part = fmin(2 * part, COARSEST);
        } else if (part > COARSELY) {
            part = COARSELY;
        } else {
            return 0;
        }
    }
    return 0;
}

static int least_round(struct planning *pl, struct candidate *best, struct form *ret_form)
{
    const struct plan_input *in = pl->s->in;
    struct round rounds[COST_MAX_STAGES + 2];
    struct search_answer a;
    uint32_t n, members = 0;
    double bound = INFINITY;
    bool proved = true;
    for (uint32_t k = 0; k < pl->s->n_kinds; k++)
        members += pl->s->kinds[k].n_members * pl->s->kinds[k].n_devices;
    n = in->parallel < members + 2 ? in->parallel : members + 2;
    n = n < COST_MAX_STAGES + 2 ? n : COST_MAX_STAGES + 2;
    for (uint32_t i = 0; i < n; i++) /* from many batches to few */
        rounds[i] = (struct round){.form = {.weight = n - i, .batch = objective_mixed_batch(in, (double)in->parallel / (n - i))}};
    if (ask(pl, &rounds[0].form, INFINITY, INFINITY, INFINITY, best, &a) != 0)
        return -1;
    if (!best->found) {
        best->proved = a.proved;
        best->bound = a.bound_us;
        return 0;
    }
    *ret_form = rounds[0].form;
    rate(pl->s, rounds, n, best, ret_form);
    /* Proofs are cheap only against the best: so first those that are much better. */
    for (uint32_t i = 0; i < n; i++)
        if (improve(pl, rounds, n, &rounds[i], best, ret_form) != 0)
            return -1;
    uint32_t begin = n - (uint32_t)ret_form->weight;
    for (uint32_t k = 0; k < 2 * n; k++) { /* from there on both sides */
        uint32_t i = k % 2 ? begin - (k + 1) / 2 : begin + k / 2;
        struct candidate c = {.found = false};
        if (i >= n || rounds[i].low >= best->value * (1 - 2 * CLOSE))
            continue;
        if (least_max(pl, &rounds[i].form, rounds[i].low, best->value, &c) != 0)
            return -1;
        proved &= c.proved;
        if (!c.proved)
            bound = fmin(bound, c.bound);
        if (c.found) {
            rate(pl->s, rounds, n, &c, ret_form);
            *best = c;
        }
    }
    best->proved = proved;
    best->bound = proved ? best->value : fmin(bound, best->value);
    return 0;
}

/* The best chain for the objective and the form its value has. */
int objective_best_chain(struct planning *pl, struct candidate *best, struct form *ret_form)
{
    const struct plan_input *in = pl->s->in;
    *best = (struct candidate){.found = false};
    *ret_form = (struct form){.batch = objective_decode_batch(in, 1)};
    switch (in->objective) {
    case PLAN_THROUGHPUT: return least_round(pl, best, ret_form);
    case PLAN_BALANCED:
        ret_form->added = true;
        ret_form->weight = in->parallel - 1;
        ret_form->batch = objective_mixed_batch(in, 1);
        return least_added(pl, ret_form, best);
    default:
        if (objective_any_disk(pl->s)) {
            ret_form->weight = 1;
            return least_max(pl, ret_form, 0, INFINITY, best);
        }
        ret_form->added = true;
        return least_added(pl, ret_form, best);
    }
}

/* --- what is resident ------------------------------------------------------------------------------------------------------ */

static double loads(const struct space *s, const struct candidate *c)
{
    double bytes = 0;
    for (uint32_t i = 0; i < c->n_stages; i++)
        bytes += space_load_cost(s, device_of(s, &c->stages[i]), c->stages[i].first, c->stages[i].last);
    return bytes;
}

/* Among plans within the tolerance the one that loads least: bytes get a price, from what settles ties to what settles all. */
int objective_keep_resident(struct planning *pl, struct candidate *best, const struct form *form)
{
    const struct plan_input *in = pl->s->in;
    double tolerance = in->resident_tolerance > 0 ? in->resident_tolerance : RESIDENT_TOLERANCE;
    double limit = best->value * (1 + tolerance) * (1 + CLOSE), all = (double)pl->s->file_bytes[pl->s->n_layers] + 1;
    double least = loads(pl->s, best);
    static const double prices[] = {1e-4, 1e-2, 0.05, 0.2, 1, 10, 1000};
    for (size_t i = 0; i < sizeof prices / sizeof *prices && least > 0; i++) {
        struct candidate c = {.found = false};
        struct search_answer a;
        double cap = form->weight <= 0 ? INFINITY : limit / form->weight;
        pl->byte_us = prices[i] * best->value / all;
        if (ask(pl, form, cap, INFINITY, 0, &c, &a) != 0)
            return -1;
        pl->byte_us = 0;
        if (c.found && c.value <= limit && loads(pl->s, &c) < least) {
            least = loads(pl->s, &c);
            c.bound = best->bound;
            c.proved = best->proved;
            *best = c;
        }
    }
    return 0;
}
