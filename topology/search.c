/* The least Σ stage + Σ hop of all chains whose every stage, link and shared resource stays within a cap (space.h). Every
 * objective is answered by a few such questions (planner.c).
 *
 * A partial chain is a label: which nodes are used (a count of each kind, in one number), the node it ends in and which of
 * that node's devices are used, how many layers are placed, and the sum so far. Of two labels that differ in the sum alone
 * only the smaller can lead to the best chain. Labels are looked at in ascending order of sum + bound (A*), where the bound
 * for the layers still to come gives them, as if they could be split at will, to the fastest devices left, and spreads a
 * node's hop over as much as it can hold. So the first complete chain is the best one, and wherever the search stops early,
 * the least label still open bounds what was missed.
 *
 * Under a cap a second table cuts off what cannot be completed at all: how many of the last layers any set of nodes can cover.
 * It ignores sums and shared resources, and is exact otherwise, whatever the layers' sizes.
 *
 * Where nodes are few enough that all sets of them can be listed, the search goes set by set, in ascending order of what a set's
 * chains cost at least: its layers split at will over its devices, plus the shortest way through all its nodes and home, which
 * is exact (Held and Karp). A set whose bound is above the best chain so far is not looked at, nor any after it; within a set the
 * same two parts bound what is still to come.
 *
 * A narrow beam runs first and gives a good chain, against which all else is cut. Where that does not settle it, one node after another
 * is taken to be the last, who has the head, and bounds are for him and for whole numbers of layers (search_joint.c). */
#include "topology/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BEAM_WIDTH = 16,
    QUICK_LABELS = 500, /* of a set */
    SET_PRICE_STEPS = 60,
    EFFORT_LABELS = 600000,
    FIRST_LABELS = 6000, FIRST_CAPPED_LABELS = 24000, /* before ends are looked at one by one */
    SETS_PER_LABEL = 64, TABLE_SETS_PER_LABEL = 8, JOINT_LABELS = 500, /* what else takes as long as a label */
    WORK_MAX_BYTES = 1 << 28,
};

/* --- going on from a label ------------------------------------------------------------------------------------------------ */

struct step {
    uint32_t parent, device;
    uint64_t used;
    uint32_t mask, begin;
    double sum;   /* with the hop to the device */
    double in_us; /* what copying the rows there takes of its time */
    double busy[COST_MAX_GROUPS];
};

static bool add_busy(const struct search *x, double *busy, int32_t group, double us)
{
    if (group < 0)
        return true;
    busy[group] += us;
    return busy[group] <= x->ask->cap_us * (1 + SEARCH_SLACK);
}

static void finish(struct search *x, const struct step *st, double sum)
{
    uint32_t kind = x->s->devices[st->device].kind;
    const struct cost_hop *home = &x->hops[kind * (x->s->n_kinds + 1) + x->s->n_kinds];
    double busy[COST_MAX_GROUPS], wire = home->row_us * x->ask->batch.rows;
    memcpy(busy, st->busy, sizeof busy);
    sum += x->home_us[kind];
    if ((x->ends_in != SEARCH_NONE && kind != x->ends_in) || (x->whole && st->used != x->full) || sum >= x->best || wire > x->ask->cap_us * (1 + SEARCH_SLACK) || !add_busy(x, busy, home->group[0], wire * home->group_factor[0]))
        return;
    x->best = sum;
    x->best_parent = st->parent;
    x->best_used = st->used;
    x->best_last = (struct search_stage){.kind = kind, .device = st->device, .first = st->begin, .last = x->n};
}

/* Hops to come, and the head. */
static double after_us(const struct search *x, uint64_t used, uint32_t kind)
{
    if (!x->whole)
        return x->least_end_us;
    if (used == x->full)
        return x->end_us[kind];
    return x->paths[(x->full - used) * x->ways + x->s->kinds[kind].way] * (1 - SEARCH_FLOAT_SLACK);
}

/* What nodes to come cost whatever they hold. */
static double fixed_us(const struct search *x, uint64_t used)
{
    double us = 0;
    for (uint32_t k = 0; k < x->s->n_kinds && x->whole; k++)
        us += (x->s->kinds[k].n_members - search_count(x, used, k)) * x->fixed_us[k];
    return us;
}

/* How rows leave a device: straight to another one of its node, which is the next stage then; or by the host, to whom it does not
 * reach. */
struct way_out {
    double us;
    uint32_t onward; /* devices of the node that may be next */
    bool stays;
};

static uint32_t unused_devices(const struct space_kind *kind, uint32_t mask)
{
    return ((1u << kind->n_devices) - 1) & ~mask;
}

/* That a device looks the same as an earlier one of these. */
static bool is_twin(const struct space *s, const struct space_kind *kind, uint32_t devices, uint32_t i)
{
    for (uint32_t j = 0; j < i; j++)
        if (devices >> j & 1 && s->devices[kind->first_device + j].same_as == s->devices[kind->first_device + i].same_as)
            return true;
    return false;
}

static uint32_t find_ways_out(const struct search *x, const struct step *st, struct way_out ret[PLAN_MAX_DEVICES + 1])
{
    const struct space_device *d = &x->s->devices[st->device];
    const struct space_kind *kind = &x->s->kinds[d->kind];
    double rows = x->ask->batch.rows;
    uint32_t unused = unused_devices(kind, st->mask), reached = unused & d->reaches, n = 1;
    ret[0] = (struct way_out){d->out_us * rows, unused & ~reached, false};
    for (uint32_t i = 0; reached && i < kind->n_devices; i++)
        if (reached >> i & 1 && !is_twin(x->s, kind, reached, i))
            ret[n++] = (struct way_out){d->peer_us[i] * rows, 1u << i, true};
    return n;
}

/* One end of a stage. after: what the rest of the chain costs at least. */
static void end_stage(struct search *x, const struct step *st, uint32_t q, const struct way_out *way, double after)
{
    const struct space_device *d = &x->s->devices[st->device];
    struct step next = *st;
    uint32_t p = st->begin;
    double us;
    if (!search_place(x, st->device, p, q, st->in_us + way->us, &us) ||
        !add_busy(x, next.busy, d->group, (d->group_whole ? us : search_read_us(x, st->device, p, q)) * d->group_factor))
        return;
    double sum = st->sum + us;
    if (x->ask->byte_us > 0)
        sum += x->ask->byte_us * space_load_cost(x->s, d, p, q);
    if (q == x->n) {
        finish(x, &next, sum);
        return;
    }
    double f = sum + after;
    if (f >= x->best * (1 - SEARCH_SLACK))
        return;
    struct search_label l = {.sum = sum, .f = f, .used = st->used, .parent = st->parent, .device = st->device, .mask = (uint16_t)st->mask,
                             .onward = (uint16_t)way->onward, .stays = way->stays, .first = (uint16_t)p, .last = (uint16_t)q};
    search_add_label(x, l, next.busy);
}

/* What comes behind a stage costs at least; the parts that are not needed are not computed. */
struct outlook {
    double after, fixed;       /* hops and the head; what nodes cost whatever they hold */
    bool priced, has_bound;
    struct search_bound *bound; /* the layers split at will */
    uint32_t at;
};

/* INFINITY: it cannot be, or not in time. */
static double rest_us(const struct search *x, const struct step *st, uint32_t q, struct outlook *o)
{
    const struct space_device *d = &x->s->devices[st->device];
    double priced = 0;
    if (o->priced && q < x->n) {
        priced = search_priced_us(x, st->used, q) + search_priced_own_us(x, d->kind, st->mask, q);
        if (x->joint_rests)
            priced = fmax(priced, search_joint_rest_us(x, st->used, d->kind, st->mask, q));
        if (st->sum + search_priced_stage_us(x, st->device, st->begin, q) + priced + o->after >= x->best)
            return INFINITY;
    }
    if (!o->has_bound)
        search_make_bound(x, st->used, d->kind, st->mask, o->bound);
    o->has_bound = true;
    return fmax(priced, search_bound_at(o->bound, 1 - x->share[q], &o->at) + o->fixed) + o->after;
}

/* All ends of a stage that begins where the step does. */
static void extend(struct search *x, const struct step *st)
{
    static const struct way_out home = {0, 0, false}; /* tokens go there */
    const struct space_device *d = &x->s->devices[st->device];
    struct search_bound bound; /* large */
    struct outlook outlook = {.priced = x->prices && x->whole, .bound = &bound};
    struct way_out ways[PLAN_MAX_DEVICES + 1];
    uint32_t p = st->begin, furthest = x->covers ? x->forward[st->device][p] : search_furthest(x, st->device, p), n_ways;
    if (furthest == p || !search_can_finish(x, st->used, d->kind, st->mask, furthest))
        return;
    outlook.after = after_us(x, st->used, d->kind);
    outlook.fixed = fixed_us(x, st->used);
    if (st->sum + outlook.after + outlook.fixed >= x->best * (1 + SEARCH_FLOAT_SLACK))
        return;
    n_ways = find_ways_out(x, st, ways);
    for (uint32_t q = furthest; q > p && search_can_finish(x, st->used, d->kind, st->mask, q); q--) { /* what is left only grows */
        double rest = rest_us(x, st, q, &outlook);
        for (uint32_t i = 0; rest < INFINITY && i < (q == x->n ? 1 : n_ways); i++)
            end_stage(x, st, q, q == x->n ? &home : &ways[i], rest);
    }
}

/* The devices of a kind that a chain may go to next: one of those that look the same. copied: rows come by the host. */
static void enter(struct search *x, const struct step *from, uint32_t kind, uint32_t mask, uint32_t devices, bool copied)
{
    const struct space_kind *k = &x->s->kinds[kind];
    for (uint32_t i = 0; i < k->n_devices; i++) {
        if (!(devices >> i & 1) || is_twin(x->s, k, devices, i))
            continue;
        struct step st = *from;
        st.device = k->first_device + i;
        st.mask = mask | 1u << i;
        st.in_us = copied ? x->s->devices[st.device].in_us * x->ask->batch.rows : 0;
        extend(x, &st);
    }
}

/* What after_us will read of a large table, one place for each node that may be next. */
static void fetch_paths(const struct search *x, uint64_t used)
{
    for (uint32_t k = 0; k < x->s->n_kinds && x->whole; k++)
        if (search_count(x, used, k) < x->s->kinds[k].n_members)
            __builtin_prefetch(&x->paths[(x->full - used - x->strides[k]) * x->ways + x->s->kinds[k].way]);
}

static void go_on(struct search *x, uint32_t parent)
{
    const struct space *s = x->s;
    struct step st = {.parent = parent};
    uint32_t at = s->n_kinds;
    double sum = 0;
    struct search_label l = {.used = x->outside};
    if (parent != SEARCH_NONE) {
        l = x->labels[parent];
        at = s->devices[l.device].kind;
        sum = l.sum;
        st.begin = l.last;
        if (x->n_groups)
            memcpy(st.busy, x->busy + (size_t)parent * x->n_groups, x->n_groups * sizeof *st.busy);
        st.used = l.used;
        struct cost_hop inside;
        space_hop(s->in, 0, 0, &inside);
        st.sum = sum + inside.latency_us;
        enter(x, &st, at, l.mask, l.onward, !l.stays);
    }
    fetch_paths(x, l.used);
    for (uint32_t k = 0; k < s->n_kinds && !l.stays; k++) {
        const struct cost_hop *hop = &x->hops[at * (s->n_kinds + 1) + k];
        double wire = hop->row_us * x->ask->batch.rows;
        struct step to = st;
        bool fits = wire <= x->ask->cap_us * (1 + SEARCH_SLACK);
        if (search_count(x, l.used, k) == s->kinds[k].n_members)
            continue;
        for (int i = 0; i < 2; i++)
            fits &= add_busy(x, to.busy, hop->group[i], wire * hop->group_factor[i]);
        to.used = l.used + x->strides[k];
        to.sum = sum + cost_hop_us(hop, x->ask->batch.rows);
        if (fits)
            enter(x, &to, k, 0, unused_devices(&s->kinds[k], 0), parent != SEARCH_NONE);
    }
}

/* --- the search ---------------------------------------------------------------------------------------------------------- */

/* Shares of layers are what bounds reckon in: a device is taken to be as fast with all as with those that suit it best, and to hold
 * as large a share as any range that fits. So they should be as near as can be to what every device spends, or holds. */
static void share_by_bytes(struct search *x)
{
    const uint64_t *bytes = x->s->devices[0].weights_bytes;
    for (uint32_t l = 1; l <= x->n; l++) /* and one byte each, so that no layer is nothing */
        x->share[l] = (double)(bytes[l] + l) / (double)(bytes[x->n] + x->n);
}

static void share_by_time(struct search *x)
{
    for (uint32_t l = 1; l <= x->n; l++) {
        double share = 0;
        for (uint32_t i = 0; i < x->s->n_devices; i++) {
            const struct search_device *c = &x->costs[i];
            double all = fmax(c->read[x->n], c->compute[x->n]);
            if (all > 0 && all < INFINITY)
                share += fmax(c->read[l] - c->read[l - 1], c->compute[l] - c->compute[l - 1]) / all;
        }
        x->share[l] = x->share[l - 1] + share + 1e-9; /* no layer is nothing */
    }
    double whole = x->share[x->n];
    for (uint32_t l = 1; l <= x->n; l++)
        x->share[l] /= whole;
}

/* What any chain costs at least, and with it the prices that such bounds are made of. */
static double least_us(struct search *x)
{
    struct search_bound bound;
    uint32_t at = 0;
    search_make_items(x);
    search_make_bound(x, 0, x->s->n_kinds, 0, &bound);
    return search_bound_at(&bound, 1, &at) + x->least_end_us;
}

static int prepare(struct search *x)
{
    const struct space *s = x->s;
    uint64_t stride = 1;
    x->singles = true;
    for (uint32_t k = 0; k < s->n_kinds; k++) {
        x->strides[k] = stride;
        x->full += stride * s->kinds[k].n_members;
        x->singles &= s->kinds[k].n_members == 1;
        stride *= s->kinds[k].n_members + 1;
    }
    x->share = search_take(x, x->n + 1, sizeof *x->share);
    x->costs = search_take(x, s->n_devices, sizeof *x->costs);
    x->items = search_take(x, 2 * (size_t)s->n_devices, sizeof *x->items);
    x->own_items = search_take(x, s->n_devices, sizeof *x->own_items);
    x->hops = search_take(x, (size_t)(s->n_kinds + 1) * (s->n_kinds + 1), sizeof *x->hops);
    x->home_us = search_take(x, s->n_kinds, sizeof *x->home_us);
    x->end_us = search_take(x, s->n_kinds, sizeof *x->end_us);
    x->in_us = search_take(x, s->n_kinds, sizeof *x->in_us);
    x->out_us = search_take(x, s->n_kinds, sizeof *x->out_us);
    x->fixed_us = search_take(x, s->n_kinds, sizeof *x->fixed_us);
    if (x->failed)
        return -1;
    search_costs(x);
    if (x->failed)
        return -1;
    search_find_hops(x);
    share_by_time(x);
    x->least_us = least_us(x);
    share_by_bytes(x);
    double by_bytes = least_us(x);
    x->by_time = x->least_us > by_bytes;
    if (x->by_time) {
        share_by_time(x);
        search_make_items(x);
    } else {
        x->least_us = by_bytes;
    }
    return 0;
}

/* All that there is can hold the layers, as far as shares tell. */
static bool enough_room(const struct search *x)
{
    double capacity = 0;
    for (uint32_t i = 0; i < x->s->n_devices; i++)
        capacity += x->s->kinds[x->s->devices[i].kind].n_members * x->costs[i].capacity;
    return capacity >= 1 - SEARCH_SLACK;
}

static int by_f(const void *a, const void *b, void *arg)
{
    uint32_t p = *(const uint32_t *)a, q = *(const uint32_t *)b;
    return search_before(arg, p, q) ? -1 : search_before(arg, q, p);
}

static void forget(struct search *x)
{
    x->n_labels = x->n_heap = 0;
    if (x->buckets)
        memset(x->buckets, 0xff, ((size_t)x->bucket_mask + 1) * sizeof *x->buckets);
}

static void keep_best(const struct search *x, struct search_answer *ret)
{
    struct search_stage stages[COST_MAX_STAGES];
    uint32_t n = 0;
    if (x->best >= x->ask->below_us || (ret->found && x->best >= ret->sum_us))
        return;
    uint64_t used = x->best_used; /* of the stage behind */
    stages[n++] = x->best_last;
    for (uint32_t i = x->best_parent; i != SEARCH_NONE; i = x->labels[i].parent) {
        const struct search_label *l = &x->labels[i];
        if (n == COST_MAX_STAGES)
            return; /* more stages than any pipeline may have */
        stages[n - 1].enters = l->used != used;
        used = l->used;
        stages[n++] = (struct search_stage){.kind = x->s->devices[l->device].kind, .device = l->device, .first = l->first, .last = l->last};
    }
    stages[n - 1].enters = true;
    for (uint32_t i = 0; i < n; i++)
        ret->stages[i] = stages[n - 1 - i];
    ret->n_stages = n;
    ret->found = true;
    ret->sum_us = x->best;
}

/* Level by level, a level being one more stage; of each the most promising labels only. */
static void beam(struct search *x, struct search_answer *ret)
{
    uint32_t level[BEAM_WIDTH], n = 1;
    level[0] = SEARCH_NONE;
    while (n > 0 && !x->full_up) {
        x->n_heap = 0;
        for (uint32_t i = 0; i < n; i++)
            if (level[i] == SEARCH_NONE || !x->labels[level[i]].dead)
                go_on(x, level[i]);
        if (x->n_heap)
            qsort_r(x->heap, x->n_heap, sizeof *x->heap, by_f, x);
        n = 0;
        for (size_t i = 0; i < x->n_heap && n < BEAM_WIDTH; i++)
            if (x->labels[x->heap[i]].f < x->best)
                level[n++] = x->heap[i];
    }
    ret->states += x->n_labels;
    keep_best(x, ret);
    forget(x);
}

/* False when the effort is spent. *ret_open: the least bound of what was not looked at then. */
static bool best_first(struct search *x, uint64_t effort, double *ret_open)
{
    go_on(x, SEARCH_NONE);
    while (x->n_heap > 0) {
        uint32_t top = search_pop(x);
        const struct search_label *l = &x->labels[top];
        if (x->best < x->ask->below_us && x->best <= x->ask->enough_us)
            break;
        if (l->dead)
            continue;
        if (l->f >= x->best * (1 - SEARCH_SLACK))
            break;
        if (x->n_labels > effort || x->full_up) {
            *ret_open = l->f;
            return false;
        }
        go_on(x, top);
    }
    return true;
}

/* --- set by set ---------------------------------------------------------------------------------------------------------- */

/* Best first in the present set, and what came of it kept. */
static bool look_at_set(struct search *x, uint64_t effort, uint64_t *left, struct search_answer *ret)
{
    double open = INFINITY;
    bool done = best_first(x, effort < *left ? effort : *left, &open);
    ret->states += x->n_labels;
    *left -= *left < x->n_labels ? *left : x->n_labels;
    keep_best(x, ret);
    forget(x);
    return done;
}

/* A set that is not done with quickly gets prices of its own, and a beam. False when the effort is spent. */
static bool look_closely(struct search *x, struct search_set *set, uint64_t *left, struct search_answer *ret)
{
    if (x->prices) {
        double path = search_path_us(x, set->nodes) * (1 - SEARCH_FLOAT_SLACK);
        double bound = (path + search_better_prices(x, set->nodes, x->best - path, SET_PRICE_STEPS, false)) * (1 - SEARCH_FLOAT_SLACK);
        if (bound > set->bound)
            set->bound = (float)bound;
        if (bound >= x->best)
            return true;
        search_use_prices(x);
    }
    beam(x, ret);
    return look_at_set(x, UINT64_MAX, left, ret);
}

/* False when the effort is spent. */
static bool set_by_set(struct search *x, uint32_t n, uint64_t effort, struct search_answer *ret)
{
    bool done = true;
    x->whole = true;
    for (uint32_t i = 0; i < n && done && x->sets[i].bound < x->best * (1 - SEARCH_SLACK); i++) {
        if (x->best < x->ask->below_us && x->best <= x->ask->enough_us)
            break;
        if (x->covers && x->covers[x->sets[i].nodes] > 0)
            continue;
        if (i >= SEARCH_JOINT_SETS && x->joint_rests && search_joint_bound(x, x->sets[i].nodes) >= x->best)
            continue;
        x->outside = x->full - x->sets[i].nodes;
        done = look_at_set(x, QUICK_LABELS, &effort, ret) || look_closely(x, &x->sets[i], &effort, ret);
        ret->bound_us = i + 1 < n ? fminf(x->sets[i].bound, x->sets[i + 1].bound) : x->sets[i].bound; /* its own may have risen above the next's */
    }
    return done;
}

static bool answered(const struct search_answer *ret, const struct search_ask *ask)
{
    return ret->found && ret->sum_us <= ask->enough_us;
}

/* Where sets can be listed: those that may hold something better. */
static bool list_sets(struct search *x, uint32_t *ret_n)
{
    if (!search_find_paths(x) || !(x->sets = search_take(x, x->full + 1, sizeof *x->sets)))
        return false;
    *ret_n = search_list_sets(x);
    return !x->failed;
}

static uint32_t price_sets(struct search *x, uint32_t n)
{
    search_make_prices(x);
    return x->failed ? 0 : x->prices ? search_price_sets(x, n) : n;
}

static void spend(uint64_t *effort, uint64_t labels, struct search_answer *ret)
{
    *effort -= labels < *effort ? labels : *effort;
    ret->states += labels;
}

/* Sets whose chains may end in this kind and be better than the best. */
static uint32_t sets_by_end(struct search *x, uint32_t kind, uint64_t *effort, struct search_answer *ret)
{
    uint32_t n;
    x->ends_in = kind;
    x->whole = x->joint_rests = false;
    x->outside = 0;
    search_make_items(x);
    spend(effort, x->full / SETS_PER_LABEL, ret);
    if (x->end_us[kind] == INFINITY || (n = search_list_sets(x)) == 0)
        return 0;
    if (!x->prices)
        return n;
    search_price_ends(x);
    n = search_price_sets(x, n);
    if (x->joint && n > 0) {
        spend(effort, JOINT_LABELS, ret);
        n = search_join_sets(x, n);
    }
    return n;
}

/* False when the effort is spent. */
static bool look_at_end(struct search *x, uint32_t kind, uint64_t *effort, struct search_answer *ret)
{
    uint64_t within = 0;
    uint32_t n = sets_by_end(x, kind, effort, ret);
    for (uint32_t i = 0; i < n; i++)
        within |= x->sets[i].nodes;
    if (n == 0)
        return true;
    search_find_joint_rests(x, within);
    spend(effort, (x->singles ? (uint64_t)1 << __builtin_popcountll(within) : x->full) / TABLE_SETS_PER_LABEL, ret);
    uint64_t before = ret->states;
    bool done = !x->failed && search_find_paths(x) && *effort > 0 && set_by_set(x, n, *effort, ret);
    uint64_t looked = ret->states - before;
    *effort -= looked < *effort ? looked : *effort;
    return done;
}

struct end {
    uint32_t kind;
    double bound;
};

static int by_end_bound(const void *a, const void *b)
{
    const struct end *x = a, *y = b;
    return x->bound < y->bound ? -1 : x->bound > y->bound;
}

/* Where memory is scarce it matters who is the last, as he holds the head as well and adds its time: what costs least at the end may be
 * what has no room for it. So one after another is the last one, and bounds are for him. */
static bool by_end(struct search *x, uint64_t effort, struct search_answer *ret)
{
    struct end ends[PLAN_MAX_NODES];
    uint32_t n = 0;
    double open = INFINITY, at_least = ret->bound_us;
    if (x->prices)
        search_make_joint(x);
    for (uint32_t k = 0; k < x->s->n_kinds && !x->failed; k++)
        if (effort == 0 || sets_by_end(x, k, &effort, ret) > 0)
            ends[n++] = (struct end){k, effort == 0 ? at_least : x->sets[0].bound};
    qsort(ends, n, sizeof *ends, by_end_bound);
    for (uint32_t i = 0; i < n && ends[i].bound < x->best * (1 - SEARCH_SLACK) && !x->failed && !answered(ret, x->ask); i++) {
        ret->bound_us = ends[i].bound;
        if (effort == 0 || !look_at_end(x, ends[i].kind, &effort, ret))
            open = fmin(open, ret->bound_us);
    }
    ret->bound_us = fmax(open, at_least);
    return open == INFINITY;
}

/* From what costs least to what costs most: most questions are answered early. */
static int look(struct search *x, uint64_t effort, struct search_answer *ret)
{
    const struct search_ask *ask = x->ask;
    bool sets = false;
    uint32_t n = 0;
    if (!enough_room(x) || x->least_us >= x->best * (1 + SEARCH_FLOAT_SLACK))
        return 0;
    if (ask->enough_us == INFINITY || ask->quick)
        beam(x, ret);
    if (answered(ret, ask) || ask->quick) {
        ret->proved = ret->found;
        ret->bound_us = x->least_us;
        return 0;
    }
    if (ask->below_us < INFINITY && (sets = list_sets(x, &n)) && n == 0)
        return 0;
    search_make_table(x);
    if (x->failed)
        return -1;
    if (x->covers && x->covers[x->full] > 0)
        return 0;
    if (sets && (n = price_sets(x, n)) == 0)
        return x->failed ? -1 : 0;
    if (!ask->by_end)
        beam(x, ret);
    if (answered(ret, ask))
        return 0;
    if (!sets && (sets = list_sets(x, &n)))
        n = price_sets(x, n);
    if (x->failed)
        return -1;
    if (sets) {
        uint64_t first = ask->by_end ? 1 : ask->cap_us < INFINITY ? FIRST_CAPPED_LABELS : FIRST_LABELS;
        bool ends = effort > first && x->s->n_kinds > 1 && (x->n_groups == 0 || ask->cap_us == INFINITY); /* no bound knows of groups */
        ret->proved = set_by_set(x, n, ends ? first : effort, ret);
        if (ends && !ret->proved && !answered(ret, ask) && search_find_arrivals(x))
            ret->proved = by_end(x, effort - first, ret);
        return x->failed ? -1 : 0;
    }
    ret->proved = best_first(x, effort, &ret->bound_us);
    ret->states += x->n_labels;
    keep_best(x, ret);
    return 0;
}

int search_chain(const struct space *s, const struct search_ask *ask, struct search_answer *ret, struct err *err)
{
    struct search x = {.s = s, .ask = ask, .n = s->n_layers, .n_groups = s->in->n_groups, .best = ask->below_us, .ends_in = SEARCH_NONE, .err = err};
    uint64_t effort = ask->effort ? ask->effort : EFFORT_LABELS;
    int rc = -1;
    *ret = (struct search_answer){.proved = true, .bound_us = ask->below_us};
    if (s->n_devices == 0)
        return 0;
    arena_init(&x.arena, WORK_MAX_BYTES);
    if (prepare(&x) != 0 || look(&x, effort < SEARCH_LABELS_MAX ? effort : SEARCH_LABELS_MAX - 1, ret) != 0)
        goto done;
    if (ret->proved)
        ret->bound_us = ret->found ? ret->sum_us : ask->below_us;
    rc = 0;
done:
    arena_fini(&x.arena);
    free(x.labels);
    free(x.busy);
    free(x.buckets);
    free(x.heap);
    return rc;
}
