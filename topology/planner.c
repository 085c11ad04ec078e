/* The objectives as questions to search.c, and what is said about the plan that was found. See planner.h; docs/planning.md
 * has the formulas. */
#include "topology/planner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "topology/space.h"

enum { TTFT_TOKENS = 512, PROBES_MAX = 200, STRIPS_MAX = 400 };
static const double CLOSE = 1e-8, BISECT_UNTIL = 5e-3, COARSELY = 0.04, CAP_STEP = 1.02, RESIDENT_TOLERANCE = 0.05, SECOND_US = 1e6;

const char *plan_objective_name(enum plan_objective objective)
{
    static const char *const names[PLAN_OBJECTIVES] = {"latency", "throughput", "balanced"};
    return names[objective];
}

const char *plan_failover_name(enum plan_failover failover)
{
    static const char *const names[] = {"none", "continuing", "identical"};
    return names[failover];
}

/* --- a chain's value ------------------------------------------------------------------------------------------------------ */

/* Objectives have one of two forms of a chain's sum S and its slowest part M: max(m M, S) or S + (k - 1) M. */
struct form {
    bool added;
    double weight; /* m, or k - 1 */
    struct cost_batch batch;
};

static struct cost_batch decode_batch(const struct plan_input *in, double rows)
{
    return (struct cost_batch){.rows = rows, .wanted = rows, .seqs = rows, .context = in->context};
}

/* The same with the prompt rows that go with them: what a pipeline is occupied with, over time. */
static struct cost_batch mixed_batch(const struct plan_input *in, double rows)
{
    struct cost_batch b = decode_batch(in, rows);
    b.rows += rows * in->prompt_share;
    return b;
}

static void pipeline_of(const struct space *s, const struct plan_stage *stages, uint32_t n, const struct space_device *const *devices,
                        struct cost_pipeline *ret)
{
    uint32_t from = s->in->n_nodes;
    ret->n_stages = n;
    for (uint32_t i = 0; i < n; i++) {
        space_stage(s, devices[i], stages[i].layers.first, stages[i].layers.last, &ret->stages[i]);
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

static double form_value(const struct form *f, const struct cost_pipeline *p)
{
    double sum = sum_us(p, &f->batch), slowest = f->weight > 0 ? cost_interval_us(p, &f->batch, NULL) : 0;
    return f->added ? sum + f->weight * slowest : fmax(sum, f->weight * slowest);
}

/* --- candidates ----------------------------------------------------------------------------------------------------------- */

struct candidate {
    bool found, proved;
    double value, bound;
    uint32_t n_stages;
    struct search_stage stages[COST_MAX_STAGES];
};

struct planning {
    const struct space *s;
    double byte_us;
    uint64_t effort_left, states;
    struct err *err;
};

static const struct space_device *device_of(const struct space *s, const struct search_stage *st)
{
    return &s->devices[st->device];
}

/* Names the nodes: the members of a kind in order. */
static void name_stages(const struct space *s, const struct search_stage *from, uint32_t n, struct plan_stage *ret,
                        const struct space_device **ret_devices)
{
    uint32_t taken[PLAN_MAX_NODES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        const struct space_kind *k = &s->kinds[from[i].kind];
        uint32_t index = device_of(s, &from[i])->index;
        bool same_node = i > 0 && from[i - 1].kind == from[i].kind; /* then it may be the same, or the next of its kind */
        for (uint32_t j = i; same_node && j-- > 0 && from[j].kind == from[i].kind && ret[j].node == ret[i - 1].node;)
            same_node = ret[j].device != index;
        ret[i] = (struct plan_stage){.device = index, .layers = {from[i].first, from[i].last}};
        ret[i].node = same_node && k->n_devices > 1 ? ret[i - 1].node : k->members[taken[from[i].kind]++];
        ret_devices[i] = device_of(s, &from[i]);
    }
}

static double candidate_value(const struct space *s, const struct form *f, const struct search_stage *stages, uint32_t n)
{
    struct plan_stage named[COST_MAX_STAGES];
    const struct space_device *devices[COST_MAX_STAGES];
    struct cost_pipeline p;
    name_stages(s, stages, n, named, devices);
    pipeline_of(s, named, n, devices, &p);
    return form_value(f, &p);
}

/* One question; a better chain replaces *best. *ret_found: there was one below below_us. */
static int ask(struct planning *pl, const struct form *f, double cap, double below, double enough, struct candidate *best,
               struct search_answer *ret)
{
    struct search_ask q = {.batch = f->batch, .cap_us = cap, .below_us = below, .enough_us = enough, .byte_us = pl->byte_us,
                           .effort = pl->effort_left};
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

/* Least max(weight M, S) below `below`: whether some value is possible is one question with a cap, so the range is halved, and
 * at the end the best found is proved by asking for anything better; coarsely: neither to the end nor proved. */
static int least_max(struct planning *pl, const struct form *f, double below, bool coarsely, struct candidate *best)
{
    struct search_answer a;
    double low = 0, high = below, unsettled = INFINITY; /* unsettled: what may be, as far as the effort went */
    best->proved = true;
    for (int i = 0; i < PROBES_MAX; i++) {
        bool last = !best->found || high - low <= (coarsely ? COARSELY : BISECT_UNTIL) * high;
        if (coarsely && last && best->found)
            break;
        double value = last ? high * (1 - CLOSE) : (low + high) / 2;
        if (high == INFINITY) {
            if (ask(pl, f, INFINITY, INFINITY, INFINITY, best, &a) != 0) /* any chain at all */
                return -1;
        } else if (ask(pl, f, value / f->weight, value, value, best, &a) != 0) {
            return -1;
        }
        if (a.found && best->value < high) {
            high = best->value;
            continue;
        }
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

static bool any_disk(const struct space *s)
{
    for (uint32_t i = 0; i < s->n_devices; i++)
        if (s->devices[i].disk)
            return true;
    return false;
}

static int least_round(struct planning *pl, struct candidate *best, struct form *ret_form)
{
    const struct plan_input *in = pl->s->in;
    uint32_t most = in->parallel < pl->s->n_devices + 2 ? in->parallel : pl->s->n_devices + 2, members = 0;
    double bound = INFINITY;
    bool proved = true;
    for (uint32_t k = 0; k < pl->s->n_kinds; k++)
        members += pl->s->kinds[k].n_members * pl->s->kinds[k].n_devices;
    most = in->parallel < members + 2 ? in->parallel : members + 2;
    most = most < COST_MAX_STAGES + 2 ? most : COST_MAX_STAGES + 2;
    /* From many batches to few: with many there is likely a good plan, against which the others fall quickly. First coarsely, since
     * proofs are cheap only against the best. */
    for (uint32_t i = 0; i < 2 * most; i++) {
        uint32_t m = most - i % most;
        struct form f = {.weight = m, .batch = mixed_batch(in, (double)in->parallel / m)};
        struct candidate c = {.found = false};
        if (least_max(pl, &f, best->found ? best->value : INFINITY, i < most, &c) != 0)
            return -1;
        if (i >= most) {
            proved &= c.proved;
            bound = fmin(bound, c.proved && c.found ? c.value : c.proved ? INFINITY : c.bound);
        }
        if (c.found && (!best->found || c.value < best->value)) {
            *best = c;
            *ret_form = f;
        }
    }
    best->proved = proved;
    best->bound = proved ? best->value : fmin(bound, best->value);
    return 0;
}

/* The best chain for the objective and the form its value has. */
static int best_chain(struct planning *pl, struct candidate *best, struct form *ret_form)
{
    const struct plan_input *in = pl->s->in;
    *best = (struct candidate){.found = false};
    *ret_form = (struct form){.batch = decode_batch(in, 1)};
    switch (in->objective) {
    case PLAN_THROUGHPUT: return least_round(pl, best, ret_form);
    case PLAN_BALANCED:
        ret_form->added = true;
        ret_form->weight = in->parallel - 1;
        ret_form->batch = mixed_batch(in, 1);
        return least_added(pl, ret_form, best);
    default:
        if (any_disk(pl->s)) {
            ret_form->weight = 1;
            return least_max(pl, ret_form, INFINITY, false, best);
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
static int keep_resident(struct planning *pl, struct candidate *best, const struct form *form)
{
    const struct plan_input *in = pl->s->in;
    double tolerance = in->resident_tolerance > 0 ? in->resident_tolerance : RESIDENT_TOLERANCE;
    double limit = best->value * (1 + tolerance) * (1 + CLOSE), all = (double)pl->s->file_bytes[pl->s->n_layers] + 1;
    double least = loads(pl->s, best);
    static const double prices[] = {1e-4, 1e-2, 0.05, 0.2, 1, 10, 1000};
    for (size_t i = 0; i < sizeof prices / sizeof *prices && least > 0; i++) {
        struct candidate c = {.found = false};
        struct search_answer a;
        double cap = form->weight <= 0 ? INFINITY : form->added ? limit / form->weight : limit / form->weight;
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

/* --- predictions ----------------------------------------------------------------------------------------------------------- */

static void describe_stage(const struct space *s, const struct space_device *d, struct plan_stage *st)
{
    const struct plan_model *m = s->in->model;
    uint32_t first = st->layers.first, last = st->layers.last;
    uint64_t disk = space_disk_bytes(s, d, first, last);
    st->disk_bytes = disk == UINT64_MAX ? 0 : disk;
    st->weights_bytes = space_weights(s, d, first, last) - st->disk_bytes;
    st->kv_bytes = d->kv_bytes[last] - d->kv_bytes[first];
    st->scratch_bytes = m->scratch_bytes + (last == s->n_layers ? m->scratch_head_bytes : 0);
    st->wire_bytes = m->wire_bytes;
    st->reserve_bytes = d->device->reserve_bytes;
    st->memory_bytes = d->device->memory_bytes;
    st->load_bytes = space_load_bytes(s, d->device, first, last);
}

static void predict_stages(const struct plan_input *in, struct plan *plan)
{
    struct cost_batch one = decode_batch(in, 1), chunk = {.rows = plan->chunk, .seqs = 1, .context = TTFT_TOKENS / 2.0};
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        struct plan_stage *st = &plan->stages[i];
        st->decode_us = cost_stage_us(&plan->costs.stages[i], &one) + plan->costs.stages[i].disk_us;
        st->chunk_us = cost_stage_us(&plan->costs.stages[i], &chunk) + plan->costs.stages[i].disk_us;
        st->hop_us = cost_hop_us(&plan->costs.hops[i], 1);
        plan->load_bytes += st->load_bytes;
    }
}

/* Bound 7: X · L ≤ Σ over devices of the most (layers × rate) that the device could ever give. */
static double placement_bound(const struct space *s, const struct cost_batch *b)
{
    double total = 0;
    for (uint32_t k = 0; k < s->n_kinds; k++)
        for (uint32_t i = 0; i < s->kinds[k].n_devices; i++) {
            const struct space_device *d = &s->devices[s->kinds[k].first_device + i];
            double best = 0;
            for (uint32_t l = 1; l <= s->n_layers; l++) {
                double us = INFINITY;
                for (uint32_t first = 0; first + l <= s->n_layers; first += l) { /* the cheapest l layers are no dearer than these */
                    struct cost_stage st;
                    space_stage(s, d, first, first + l, &st);
                    st.head_us = 0;
                    st.head_work = (struct cost_work){{0}};
                    us = fmin(us, cost_stage_us(&st, b));
                }
                if (d->weights_bytes[l] + d->kv_bytes[l] <= d->memory_bytes || d->disk)
                    best = fmax(best, l * b->rows / us);
            }
            total += s->kinds[k].n_members * best;
        }
    return total * SECOND_US / s->n_layers;
}

static void find_bottleneck(const struct plan_input *in, struct plan *plan)
{
    struct cost_batch b = decode_batch(in, (double)plan->n / plan->m);
    uint32_t which, n = plan->n_stages;
    cost_interval_us(&plan->costs, &b, &which);
    plan->bottleneck = which < n ? BOTTLENECK_STAGE : which <= 2 * n ? BOTTLENECK_LINK : BOTTLENECK_GROUP;
    plan->bottleneck_index = which < n ? which : which <= 2 * n ? which - n : which - 2 * n - 1;
}

static void find_power(const struct plan_input *in, struct plan *plan)
{
    double watts = 0;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const struct plan_node *node = &in->nodes[plan->stages[i].node];
        if (i > 0 && plan->stages[i - 1].node == plan->stages[i].node)
            continue;
        if (node->watts <= 0)
            return; /* one that is not known makes the sum unknown */
        watts += node->watts;
    }
    plan->watts = watts;
    if (in->price_per_kwh > 0 && plan->tokens_per_s_n > 0)
        plan->cost_per_mtok = watts / 1000 * in->price_per_kwh * (1e6 / plan->tokens_per_s_n / 3600);
}

static void predict(const struct space *s, struct plan *plan)
{
    const struct plan_input *in = s->in;
    struct cost_batch one = decode_batch(in, 1);
    double round;
    plan->n = in->parallel;
    plan->m = cost_best_m(&plan->costs, plan->n, in->context, &round);
    plan->tokens_per_s_1 = SECOND_US / cost_latency_us(&plan->costs, &one);
    plan->tokens_per_s_n = plan->n / round * SECOND_US;
    plan->chunk = cost_best_chunk(&plan->costs, TTFT_TOKENS, in->max_rows, &plan->ttft_us);
    struct cost_batch full = decode_batch(in, plan->n);
    plan->placement_bound = placement_bound(s, &full);
    predict_stages(in, plan);
    find_bottleneck(in, plan);
    find_power(in, plan);
}

/* --- the plan -------------------------------------------------------------------------------------------------------------- */

static void find_failover(const struct plan_input *in, struct plan *plan);

static void fill(const struct space *s, const struct candidate *c, struct plan *ret)
{
    const struct space_device *devices[COST_MAX_STAGES];
    *ret = (struct plan){.n_stages = c->n_stages, .objective = s->in->objective, .value_us = c->value, .bound_us = c->bound};
    ret->gap = c->bound > 0 ? fmax(c->value / c->bound - 1, 0) : 1;
    name_stages(s, c->stages, c->n_stages, ret->stages, devices);
    for (uint32_t i = 0; i < c->n_stages; i++) {
        describe_stage(s, devices[i], &ret->stages[i]);
        ret->used_standby |= s->in->nodes[ret->stages[i].node].standby;
    }
    pipeline_of(s, ret->stages, ret->n_stages, devices, &ret->costs);
    predict(s, ret);
}

/* Layers that were somewhere, and are nowhere now: a node was lost. */
static bool lost_layers(const struct plan_input *in)
{
    uint32_t held = 0;
    for (uint32_t l = 0; l < in->model->n_layers; l++) {
        bool here = false;
        for (uint32_t i = 0; i < in->n_nodes && !here; i++)
            for (uint32_t d = 0; d < in->nodes[i].n_devices && !here && !in->nodes[i].away; d++)
                here = l >= in->nodes[i].devices[d].resident.first && l < in->nodes[i].devices[d].resident.last;
        held += here;
    }
    return held > 0 && held < in->model->n_layers;
}

static bool any_standby(const struct plan_input *in)
{
    for (uint32_t i = 0; i < in->n_nodes; i++)
        if (in->nodes[i].standby && !in->nodes[i].away)
            return true;
    return false;
}

enum { EFFORT_DEFAULT = 1500000 };

static int try_plan(const struct plan_input *in, bool standby, struct plan *ret, bool *ret_found, struct err *err)
{
    struct space s;
    struct candidate best;
    struct form form;
    int rc = space_init(&s, in, standby, err);
    struct planning pl = {.s = &s, .effort_left = in->effort ? in->effort : EFFORT_DEFAULT, .err = err};
    *ret_found = false;
    if (rc == 0 && s.n_kinds > 0)
        rc = best_chain(&pl, &best, &form);
    if (rc == 0 && s.n_kinds > 0 && best.found) {
        if (in->use_resident)
            rc = keep_resident(&pl, &best, &form);
        if (rc == 0)
            fill(&s, &best, ret);
        ret->states = pl.states;
        *ret_found = rc == 0;
    }
    space_fini(&s);
    return rc;
}

static int does_not_fit(const struct plan_input *in, struct err *err);

static int make(const struct plan_input *in, struct plan *ret, struct err *err)
{
    bool found, standby = any_standby(in);
    if (try_plan(in, standby && in->use_resident && lost_layers(in), ret, &found, err) != 0)
        return -1;
    if (!found && standby && try_plan(in, true, ret, &found, err) != 0)
        return -1;
    return found ? 0 : does_not_fit(in, err);
}

int plan_make(const struct plan_input *in, struct plan *ret, struct err *err)
{
    if (in->parallel == 0)
        return err_set(err, ERR_USAGE, "a plan for 0 sequences; at least 1 is needed");
    if (make(in, ret, err) != 0)
        return -1;
    find_failover(in, ret);
    return 0;
}

bool plan_fits(const struct plan_input *in)
{
    struct space s;
    struct search_ask q = {.batch = decode_batch(in, 1), .cap_us = INFINITY, .below_us = INFINITY, .enough_us = INFINITY};
    struct search_answer a = {.found = false};
    bool found = space_init(&s, in, true, NULL) == 0 && s.n_kinds > 0 && search_chain(&s, &q, &a, NULL) == 0 && a.found;
    space_fini(&s);
    return found;
}

/* All devices that plans may use give the same bits. */
static bool all_alike(const struct plan_input *in)
{
    const char *numerics = NULL;
    for (uint32_t i = 0; i < in->n_nodes; i++)
        for (uint32_t d = 0; d < in->nodes[i].n_devices && !in->nodes[i].away; d++) {
            const char *own = in->nodes[i].devices[d].numerics ? in->nodes[i].devices[d].numerics : in->nodes[i].numerics;
            if (!own || (numerics && strcmp(numerics, own) != 0))
                return false;
            numerics = own;
        }
    return true;
}

/* What happens when the worst-placed node dies: can the others take over, and in the same bits? */
static void find_failover(const struct plan_input *in, struct plan *plan)
{
    struct plan_node nodes[PLAN_MAX_NODES];
    struct plan_input without = *in;
    without.nodes = nodes;
    plan->failover = FAILOVER_IDENTICAL;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        memcpy(nodes, in->nodes, in->n_nodes * sizeof *nodes);
        nodes[plan->stages[i].node].away = true;
        if (!plan_fits(&without)) {
            plan->failover = FAILOVER_NONE;
            return;
        }
    }
    if (!all_alike(in))
        plan->failover = FAILOVER_CONTINUING;
}

int plan_evaluate(const struct plan_input *in, const struct plan_stage *stages, uint32_t n_stages, struct plan *ret, struct err *err)
{
    struct space s;
    struct candidate c = {.found = true, .n_stages = n_stages};
    struct form f = {.batch = decode_batch(in, 1)};
    int rc = -1;
    if (n_stages == 0 || n_stages > COST_MAX_STAGES || in->parallel == 0)
        return err_set(err, ERR_USAGE, "%u stages for %u sequences; 1 to %d stages and at least one sequence are needed", n_stages,
                       in->parallel, COST_MAX_STAGES);
    if (space_init(&s, in, true, err) != 0)
        goto done;
    struct plan_stage named[COST_MAX_STAGES];
    const struct space_device *devices[COST_MAX_STAGES];
    uint32_t at = 0;
    for (uint32_t i = 0; i < n_stages; i++) {
        const struct plan_stage *st = &stages[i];
        devices[i] = NULL;
        for (uint32_t k = 0; k < s.n_kinds && st->node < in->n_nodes; k++)
            for (uint32_t j = 0; j < s.kinds[k].n_members; j++)
                if (s.kinds[k].members[j] == st->node && st->device < s.kinds[k].n_devices)
                    devices[i] = &s.devices[s.kinds[k].first_device + st->device];
        if (!devices[i] || st->layers.first != at || st->layers.last <= at || st->layers.last > s.n_layers) {
            err_set(err, ERR_USAGE, "stage %u: node %u device %u with layers %u to %u does not go on from layer %u of %u", i, st->node,
                    st->device, st->layers.first, st->layers.last, at, s.n_layers);
            goto done;
        }
        if (space_disk_bytes(&s, devices[i], st->layers.first, st->layers.last) == UINT64_MAX) {
            err_set(err, ERR_MEMORY, "stage %u: layers %u to %u do not fit on %s (%s), or must not be there", i, st->layers.first,
                    st->layers.last - 1, in->nodes[st->node].name, devices[i]->device->name);
            goto done;
        }
        at = st->layers.last;
        named[i] = (struct plan_stage){.node = st->node, .device = st->device, .layers = st->layers};
    }
    if (at != s.n_layers) {
        err_set(err, ERR_USAGE, "the stages end at layer %u of %u", at, s.n_layers);
        goto done;
    }
    *ret = (struct plan){.n_stages = n_stages, .objective = in->objective};
    memcpy(ret->stages, named, n_stages * sizeof *named);
    for (uint32_t i = 0; i < n_stages; i++) {
        describe_stage(&s, devices[i], &ret->stages[i]);
        ret->used_standby |= in->nodes[named[i].node].standby;
    }
    pipeline_of(&s, ret->stages, n_stages, devices, &ret->costs);
    f.added = in->objective == PLAN_BALANCED;
    f.weight = in->objective == PLAN_BALANCED ? in->parallel - 1 : any_disk(&s);
    f.batch = in->objective == PLAN_BALANCED ? mixed_batch(in, 1) : f.batch;
    ret->value_us = form_value(&f, &ret->costs);
    for (uint32_t m = 1; in->objective == PLAN_THROUGHPUT && m <= in->parallel && m <= COST_MAX_STAGES + 2; m++) {
        f = (struct form){.weight = m, .batch = mixed_batch(in, (double)in->parallel / m)};
        ret->value_us = m == 1 ? form_value(&f, &ret->costs) : fmin(ret->value_us, form_value(&f, &ret->costs));
    }
    ret->bound_us = ret->value_us;
    predict(&s, ret);
    rc = 0;
done:
    (void)c;
    space_fini(&s);
    return rc;
}

/* --- what is missing -------------------------------------------------------------------------------------------------------- */

static const char *gib(char *buf, size_t size, uint64_t bytes)
{
    snprintf(buf, size, bytes >= (uint64_t)1 << 30 ? "%.1f GiB" : "%.1f MiB", (double)bytes / (bytes >= (uint64_t)1 << 30 ? 0x1p30 : 0x1p20));
    return buf;
}

static uint64_t room_of(const struct space_device *d)
{
    return d->memory_bytes > d->base_bytes ? d->memory_bytes - d->base_bytes : 0;
}

static void count_room(const struct space *s, uint64_t *ret_need, uint64_t *ret_room)
{
    const struct plan_model *m = s->in->model;
    *ret_need = *ret_room = 0;
    if (s->n_devices == 0)
        return;
    const struct space_device *d = &s->devices[0];
    *ret_need = space_weights(s, d, 0, s->n_layers) + d->kv_bytes[s->n_layers] + m->scratch_head_bytes;
    for (uint32_t k = 0; k < s->n_kinds; k++)
        for (uint32_t i = 0; i < s->kinds[k].n_devices; i++)
            *ret_room += s->kinds[k].n_members * room_of(&s->devices[s->kinds[k].first_device + i]);
}

uint64_t plan_missing_bytes(const struct plan_input *in)
{
    struct space s;
    uint64_t need = 0, room = 0;
    struct err err;
    if (space_init(&s, in, true, &err) == 0)
        count_room(&s, &need, &room);
    space_fini(&s);
    return need > room ? need - room : 0;
}

static int does_not_fit(const struct plan_input *in, struct err *err)
{
    struct space s;
    char list[320] = "", a[32], b[32], c[32];
    uint64_t need = 0, room = 0;
    size_t at = 0;
    if (space_init(&s, in, true, err) != 0) {
        space_fini(&s);
        return -1;
    }
    count_room(&s, &need, &room);
    for (uint32_t k = 0; k < s.n_kinds; k++)
        for (uint32_t j = 0; j < s.kinds[k].n_members; j++) {
            uint64_t node = 0;
            for (uint32_t i = 0; i < s.kinds[k].n_devices; i++)
                node += room_of(&s.devices[s.kinds[k].first_device + i]);
            if (at < sizeof list - 60)
                at += (size_t)snprintf(list + at, sizeof list - at, "%s%.24s %s", at ? ", " : "", in->nodes[s.kinds[k].members[j]].name,
                                       gib(a, sizeof a, node));
            else if (at < sizeof list - 4)
                at += (size_t)snprintf(list + at, sizeof list - at, ", …");
        }
    space_fini(&s);
    if (need > room)
        err_set(err, ERR_MEMORY, "the model does not fit: %s are missing (%llu bytes; it needs %s, there are %s: %s); lower --ctx or --parallel, "
                "or add memory", gib(a, sizeof a, need - room), (unsigned long long)(need - room), gib(b, sizeof b, need),
                gib(c, sizeof c, room), list[0] ? list : "no node");
    else
        err_set(err, ERR_MEMORY, "the model does not fit: in total %s are needed and there are %s, but no chain of whole layers fits into them "
                "(%s)%s; lower --ctx or --parallel, or add memory", gib(b, sizeof b, need), gib(c, sizeof c, room), list,
                in->n_pins ? " with these pins" : "");
    return -1;
}
