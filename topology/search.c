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
 * A narrow beam runs first and gives a good chain, against which all else is cut. */
#include "topology/space.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BEAM_WIDTH = 16,
    TABLE_MAX = 1 << 17,   /* sets of nodes */
    PATHS_MAX = 1 << 22,
    TABLE_DEVICES_MAX = 4, /* of a node */
    LABELS_MAX = 1 << 22,
    EFFORT_LABELS = 600000,
    WORK_MAX_BYTES = 1 << 28,
};
#define NONE UINT32_MAX
static const double FLOAT_SLACK = 1e-6; /* what sums of some dozen floats may be off */
static const double SLACK = 1e-9; /* relative; sums of the same numbers in another order differ by less */
/* The table is worth its time only where memory or the cap is scarce. */
static const double TABLE_WHEN_CAPACITY_BELOW = 4;

struct label {
    double sum, f;
    uint64_t used;
    uint32_t parent, next; /* next: in the hash bucket */
    uint32_t device;       /* in space.devices */
    uint16_t mask;         /* devices of its node that are used */
    uint16_t first, last;
    bool dead;
};

/* A device as the bound sees it, at its own price or with its node's hop spread over it. */
struct item {
    double price, capacity; /* us for all layers' worth; share of all layers */
    uint32_t kind, index;
    bool open; /* for the node that the chain is in: no hop to pay */
};

struct device_costs {
    double *read, *compute; /* sums over layers, for this batch */
    double head_read, head_compute;
    double price, capacity;
};

struct set {
    float bound;
    uint32_t nodes; /* as a number, like label.used */
};

struct search {
    const struct space *s;
    const struct search_ask *ask;
    struct arena arena;
    uint32_t n, n_groups;
    uint64_t strides[PLAN_MAX_NODES], full;
    double *share; /* of all layers, in the first l: by bytes */
    struct device_costs *costs;
    struct item *items;
    uint32_t n_items;
    struct cost_hop *hops; /* (kinds + 1)², the last is the coordinator; [k][k]: between two members */
    double *home_us;       /* from a kind to the coordinator */
    double least_home_us;
    /* the table: layers [covers[set], n) can be covered by the set; NULL: there is none */
    uint16_t *covers;
    uint16_t *forward[SPACE_MAX_DEVICES]; /* device → furthest end from a beginning */
    uint16_t *ahead[PLAN_MAX_NODES];      /* kind → [mask of devices left][beginning] → furthest end */

    /* set by set: NULL where there are too many sets */
    const float *paths;
    struct set *sets;
    uint64_t outside;  /* nodes that are not in the present set count as used */
    bool whole;        /* a chain must use all of the present set */
    double *fixed_us;  /* of a kind: the least that a batch costs on one of its devices */

    struct label *labels;
    double *busy; /* n_groups a label */
    size_t n_labels, cap_labels;
    uint32_t *buckets, bucket_mask;
    uint32_t *heap;
    size_t n_heap, cap_heap;
    double best; /* sum of the best complete chain */
    uint32_t best_parent;
    struct search_stage best_last;
    bool full_up; /* LABELS_MAX or memory */
    struct err *err;
    bool failed;
};

/* --- costs for this batch ------------------------------------------------------------------------------------------------ */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double read_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    const struct device_costs *c = &x->costs[d];
    return c->read[q] - c->read[p] + (q == x->n ? c->head_read : 0);
}

static double stage_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    const struct device_costs *c = &x->costs[d];
    double compute = c->compute[q] - c->compute[p] + (q == x->n ? c->head_compute : 0);
    return larger(read_us(x, d, p, q), compute) + x->s->devices[d].fixed_us;
}

/* The stage's time without and with what it waits for its disk; false where the range cannot be there. */
static bool place(const struct search *x, uint32_t d, uint32_t p, uint32_t q, double *ret_us)
{
    uint64_t disk = space_disk_bytes(x->s, &x->s->devices[d], p, q);
    if (disk == UINT64_MAX)
        return false;
    *ret_us = stage_us(x, d, p, q);
    return *ret_us + (double)disk * x->s->devices[d].disk_us_byte <= x->ask->cap_us * (1 + SLACK);
}

static void *take(struct search *x, size_t count, size_t size)
{
    void *p = arena_alloc(&x->arena, count * size + 1, x->err);
    if (p)
        memset(p, 0, count * size);
    x->failed |= !p;
    return p;
}

static void batch_costs(struct search *x)
{
    const struct cost_batch *b = &x->ask->batch;
    const struct plan_model *m = x->s->in->model;
    double touched = cost_experts_touched(m->experts, m->experts_used, b->rows);
    double sliding = m->window && b->context > m->window ? m->window : b->context;
    for (uint32_t i = 0; i < x->s->n_devices; i++) {
        const struct space_device *d = &x->s->devices[i];
        struct device_costs *c = &x->costs[i];
        c->read = take(x, x->n + 1, sizeof *c->read);
        c->compute = take(x, x->n + 1, sizeof *c->compute);
        if (x->failed)
            return;
        for (uint32_t l = 0; l <= x->n; l++) {
            c->read[l] = d->weights_us[l] + d->experts_us[l] * touched + b->seqs * (d->kv_us[l] * b->context + d->kv_sliding_us[l] * sliding);
            struct cost_work work, experts;
            for (int k = 0; k < COST_ROWS; k++)
                work.row_us[k] = d->row_us[k][l], experts.row_us[k] = d->experts_row_us[k][l];
            c->compute[l] = cost_work_us(&work, b->rows) + cost_experts_work_us(&experts, m->experts, m->experts_used, b->rows) +
                            b->rows * (d->attn_us[l] * b->context + d->attn_sliding_us[l] * sliding);
        }
        c->head_read = b->wanted > 0 ? d->head_us : 0;
        c->head_compute = cost_work_us(&d->head_work, b->wanted);
    }
}

/* --- the bound ----------------------------------------------------------------------------------------------------------- */

static uint32_t furthest_end(const struct search *x, uint32_t d, uint32_t p);

/* What a layer's share of all bytes costs at least on the device, and the largest share that one range of whole layers can be
 * there: within memory and cap. Whole layers make the bound tight: half a layer lost on each of ten nodes is five layers. */
static void price_device(struct search *x, uint32_t i)
{
    struct device_costs *c = &x->costs[i];
    double read = INFINITY, compute = INFINITY;
    for (uint32_t l = 0; l < x->n; l++) {
        double share = x->share[l + 1] - x->share[l];
        read = fmin(read, (c->read[l + 1] - c->read[l]) / share);
        compute = fmin(compute, (c->compute[l + 1] - c->compute[l]) / share);
        c->capacity = larger(c->capacity, x->share[furthest_end(x, i, l)] - x->share[l]);
    }
    c->price = larger(read, compute);
    c->capacity = fmin(c->capacity * (1 + SLACK), 1);
}

static int by_price(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->price < y->price ? -1 : x->price > y->price;
}

static void find_hops(struct search *x)
{
    const struct space *s = x->s;
    uint32_t k = s->n_kinds, here = s->in->n_nodes;
    x->least_home_us = INFINITY;
    for (uint32_t a = 0; a <= k; a++)
        for (uint32_t b = 0; b <= k; b++) {
            uint32_t from = a == k ? here : s->kinds[a].members[0], to = b == k ? here : s->kinds[b].members[0];
            if (a == b && a < k && s->kinds[a].n_members > 1)
                to = s->kinds[a].members[1];
            space_hop(s->in, from, to, &x->hops[a * (k + 1) + b]);
        }
    for (uint32_t a = 0; a < k; a++) {
        x->home_us[a] = cost_hop_us(&x->hops[a * (k + 1) + k], x->ask->batch.rows);
        x->least_home_us = fmin(x->least_home_us, x->home_us[a]);
    }
}

static void make_items(struct search *x)
{
    const struct space *s = x->s;
    uint32_t n = s->n_kinds;
    for (uint32_t i = 0; i < s->n_devices; i++)
        price_device(x, i);
    for (uint32_t k = 0; k < n; k++) {
        const struct space_kind *kind = &s->kinds[k];
        double enter = INFINITY, capacity = 0, fixed = INFINITY;
        for (uint32_t a = 0; a <= n; a++)
            if (a != k || kind->n_members > 1)
                enter = fmin(enter, cost_hop_us(&x->hops[a * (n + 1) + k], x->ask->batch.rows));
        for (uint32_t i = 0; i < kind->n_devices; i++) {
            capacity += x->costs[kind->first_device + i].capacity;
            fixed = fmin(fixed, s->devices[kind->first_device + i].fixed_us);
        }
        x->fixed_us[k] = fixed;
        for (uint32_t i = 0; i < kind->n_devices && capacity > 0; i++) {
            const struct device_costs *c = &x->costs[kind->first_device + i];
            double toll = (enter + fixed) / fmin(capacity, 1);
            if (c->capacity <= 0)
                continue;
            x->items[x->n_items++] = (struct item){c->price, c->capacity, k, i, true};
            x->items[x->n_items++] = (struct item){c->price + toll, c->capacity, k, i, false};
        }
    }
    qsort(x->items, x->n_items, sizeof *x->items, by_price);
}

/* The bound as a function of the share that is left: pieces of rising price. */
struct bound {
    uint32_t n;
    double upto[2 * SPACE_MAX_DEVICES + 1], cost[2 * SPACE_MAX_DEVICES + 1]; /* at the end of a piece */
};

static uint32_t count_of(const struct search *x, uint64_t used, uint32_t kind)
{
    return (uint32_t)(used / x->strides[kind] % (x->s->kinds[kind].n_members + 1));
}

static void make_bound(const struct search *x, uint64_t used, uint32_t open, uint32_t mask, struct bound *ret)
{
    double upto = 0, cost = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->n_items && upto < 1; i++) {
        const struct item *it = &x->items[i];
        double times = 0;
        if (it->open)
            times = it->kind == open && !(mask >> it->index & 1);
        if (it->open == x->whole) /* in a set hops are counted by themselves: everything has its own price */
            times += x->s->kinds[it->kind].n_members - count_of(x, used, it->kind);
        if (times <= 0)
            continue;
        upto += times * it->capacity;
        cost += times * it->capacity * it->price;
        ret->upto[n] = upto;
        ret->cost[n++] = cost;
    }
    ret->n = n;
}

/* INFINITY: more is left than all that is unused can take. *at is where the last question, of a smaller rest, was answered. */
static double bound_at(const struct bound *b, double rest, uint32_t *at)
{
    rest -= rest * SLACK;
    if (rest <= 0)
        return 0;
    while (*at < b->n && b->upto[*at] < rest)
        ++*at;
    if (*at == b->n)
        return INFINITY;
    double upto = *at ? b->upto[*at - 1] : 0, cost = *at ? b->cost[*at - 1] : 0;
    double piece = b->upto[*at] - upto;
    return cost + (piece > 0 ? (b->cost[*at] - cost) * ((rest - upto) / piece) : 0);
}

/* --- the table ----------------------------------------------------------------------------------------------------------- */

static uint32_t furthest_end(const struct search *x, uint32_t d, uint32_t p)
{
    uint32_t low = p, high = x->n; /* low is possible */
    double us;
    while (low < high) {
        uint32_t q = (low + high + 1) / 2;
        if (place(x, d, p, q, &us))
            low = q;
        else
            high = q - 1;
    }
    return low;
}

static uint32_t earliest_begin(const struct search *x, uint32_t d, uint32_t q)
{
    uint32_t low = 0, high = q;
    double us;
    while (low < high) {
        uint32_t p = (low + high) / 2;
        if (place(x, d, p, q, &us))
            high = p;
        else
            low = p + 1;
    }
    return high;
}

/* back[q]: where a whole node that must end at q can begin; the best order of its devices. ahead: the other way, for each set. */
static void node_reach(struct search *x, uint32_t k, uint16_t *back)
{
    const struct space_kind *kind = &x->s->kinds[k];
    uint32_t masks = 1u << kind->n_devices;
    uint16_t from[1 << TABLE_DEVICES_MAX];
    x->ahead[k] = take(x, (size_t)masks * (x->n + 1), sizeof *x->ahead[k]);
    for (uint32_t i = 0; i < kind->n_devices; i++) {
        uint32_t d = kind->first_device + i;
        x->forward[d] = take(x, x->n + 1, sizeof *x->forward[d]);
        for (uint32_t p = 0; p <= x->n && !x->failed; p++)
            x->forward[d][p] = (uint16_t)furthest_end(x, d, p);
    }
    for (uint32_t q = 0; q <= x->n && !x->failed; q++) {
        from[0] = (uint16_t)q;
        x->ahead[k][q] = (uint16_t)q;
        for (uint32_t mask = 1; mask < masks; mask++) {
            uint32_t least = q, most = q;
            for (uint32_t i = 0; i < kind->n_devices; i++) {
                if (!(mask >> i & 1))
                    continue;
                uint32_t without = mask & ~(1u << i);
                uint32_t begin = earliest_begin(x, kind->first_device + i, from[without]);
                uint32_t end = x->forward[kind->first_device + i][x->ahead[k][without * (x->n + 1) + q]];
                least = begin < least ? begin : least;
                most = end > most ? end : most;
            }
            from[mask] = (uint16_t)least;
            x->ahead[k][mask * (x->n + 1) + q] = (uint16_t)most;
        }
        back[q] = from[masks - 1];
    }
}

static void make_table(struct search *x)
{
    const struct space *s = x->s;
    double capacity = 0;
    uint16_t *back = NULL;
    for (uint32_t k = 0; k < s->n_kinds; k++) {
        if (s->kinds[k].n_devices > TABLE_DEVICES_MAX)
            return;
        for (uint32_t i = 0; i < s->kinds[k].n_devices; i++)
            capacity += s->kinds[k].n_members * x->costs[s->kinds[k].first_device + i].capacity;
    }
    if (x->full + 1 > TABLE_MAX || capacity > TABLE_WHEN_CAPACITY_BELOW)
        return;
    back = take(x, (size_t)s->n_kinds * (x->n + 1), sizeof *back);
    x->covers = take(x, x->full + 1, sizeof *x->covers);
    for (uint32_t k = 0; k < s->n_kinds && !x->failed; k++)
        node_reach(x, k, back + k * (x->n + 1));
    if (x->failed)
        return;
    x->covers[0] = (uint16_t)x->n;
    uint32_t digits[PLAN_MAX_NODES] = {0};
    for (uint64_t set = 1; set <= x->full; set++) {
        uint32_t k = 0, least = x->n;
        while (digits[k] == s->kinds[k].n_members)
            digits[k++] = 0;
        digits[k]++;
        for (k = 0; k < s->n_kinds; k++)
            if (digits[k]) {
                uint32_t begin = back[k * (x->n + 1) + x->covers[set - x->strides[k]]];
                least = begin < least ? begin : least;
            }
        x->covers[set] = (uint16_t)least;
    }
}

static bool can_finish(const struct search *x, uint64_t used, uint32_t kind, uint32_t mask, uint32_t last)
{
    if (!x->covers)
        return true;
    uint32_t left = ((1u << x->s->kinds[kind].n_devices) - 1) & ~mask;
    return x->covers[x->full - used] <= x->ahead[kind][left * (x->n + 1) + last];
}

/* --- labels -------------------------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(const struct search *x, uint64_t used, uint32_t device, uint32_t mask, uint32_t last)
{
    uint64_t h = used * 0x9e3779b97f4a7c15u ^ ((uint64_t)x->s->kinds[x->s->devices[device].kind].way << 48 | (uint64_t)mask << 16 | last);
    h *= 0xd6e8feb86659fd93u;
    return (uint32_t)(h >> 32) & x->bucket_mask;
}

/* Single-device nodes with the same links to all others are one place to be. */
static bool same_place(const struct search *x, const struct label *a, uint64_t used, uint32_t device, uint32_t mask, uint32_t last)
{
    const struct space_kind *k = x->s->kinds;
    return a->used == used && a->last == last && k[x->s->devices[a->device].kind].way == k[x->s->devices[device].kind].way &&
           (a->mask == mask || k[x->s->devices[device].kind].n_devices == 1);
}

static bool busy_within(const struct search *x, const double *a, const double *b)
{
    for (uint32_t g = 0; g < x->n_groups; g++)
        if (a[g] > b[g])
            return false;
    return true;
}

/* A label's groups; NULL where there are none. */
static double *busy_of(const struct search *x, uint32_t label)
{
    return x->n_groups ? x->busy + (size_t)label * x->n_groups : NULL;
}

/* False where an equal or better label stands there. Worse ones die. */
static bool dominates_all(struct search *x, uint32_t bucket, uint64_t used, uint32_t device, uint32_t mask, uint32_t last, double sum,
                          const double *busy)
{
    for (uint32_t i = x->buckets[bucket]; i != NONE; i = x->labels[i].next) {
        struct label *l = &x->labels[i];
        if (l->dead || !same_place(x, l, used, device, mask, last))
            continue;
        if (l->sum <= sum && busy_within(x, busy_of(x, i), busy))
            return false;
        if (sum <= l->sum && busy_within(x, busy, busy_of(x, i)))
            l->dead = true;
    }
    return true;
}

static bool before(const struct search *x, uint32_t a, uint32_t b)
{
    const struct label *p = &x->labels[a], *q = &x->labels[b];
    return p->f < q->f || (p->f == q->f && p->last > q->last);
}

static void heap_push(struct search *x, uint32_t label)
{
    size_t i = x->n_heap;
    if (mem_grow(&x->heap, &x->cap_heap, x->n_heap + 1, sizeof *x->heap, LABELS_MAX, "open plans", NULL) != 0) {
        x->full_up = true;
        return;
    }
    for (x->n_heap++; i > 0 && before(x, label, x->heap[(i - 1) / 2]); i = (i - 1) / 2)
        x->heap[i] = x->heap[(i - 1) / 2];
    x->heap[i] = label;
}

static uint32_t heap_pop(struct search *x)
{
    uint32_t top = x->heap[0], last = x->heap[--x->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < x->n_heap) {
        child += child + 1 < x->n_heap && before(x, x->heap[child + 1], x->heap[child]);
        if (!before(x, x->heap[child], last))
            break;
        x->heap[i] = x->heap[child];
        i = child;
    }
    x->heap[i] = last;
    return top;
}

static void grow_buckets(struct search *x)
{
    uint32_t n = x->buckets ? 2 * (x->bucket_mask + 1) : 1 << 12;
    uint32_t *buckets = malloc(n * sizeof *buckets);
    if (!buckets) {
        x->full_up = x->full_up || !x->buckets;
        return;
    }
    free(x->buckets);
    x->buckets = buckets;
    x->bucket_mask = n - 1;
    memset(buckets, 0xff, n * sizeof *buckets);
    for (size_t i = 0; i < x->n_labels; i++) {
        struct label *l = &x->labels[i];
        uint32_t mask = x->s->kinds[x->s->devices[l->device].kind].n_devices == 1 ? 0 : l->mask;
        uint32_t b = bucket_of(x, l->used, l->device, mask, l->last);
        if (l->dead)
            continue;
        l->next = buckets[b];
        buckets[b] = (uint32_t)i;
    }
}

static void add_label(struct search *x, struct label l, const double *busy)
{
    uint32_t mask = x->s->kinds[x->s->devices[l.device].kind].n_devices == 1 ? 0 : l.mask;
    size_t cap = x->cap_labels;
    if (x->n_labels > x->bucket_mask || !x->buckets)
        grow_buckets(x);
    if (x->full_up)
        return;
    uint32_t b = bucket_of(x, l.used, l.device, mask, l.last);
    if (!dominates_all(x, b, l.used, l.device, l.mask, l.last, l.sum, busy))
        return;
    if (mem_grow(&x->labels, &x->cap_labels, x->n_labels + 1, sizeof *x->labels, LABELS_MAX, "plans", NULL) != 0) {
        x->full_up = true;
        return;
    }
    if (x->n_groups && cap != x->cap_labels) {
        double *more = realloc(x->busy, x->cap_labels * x->n_groups * sizeof *more);
        if (!more) {
            x->cap_labels = cap;
            x->full_up = true;
            return;
        }
        x->busy = more;
    }
    if (x->n_groups)
        memcpy(x->busy + x->n_labels * x->n_groups, busy, x->n_groups * sizeof *busy);
    l.next = x->buckets[b];
    x->labels[x->n_labels] = l;
    x->buckets[b] = (uint32_t)x->n_labels;
    heap_push(x, (uint32_t)x->n_labels++);
}

/* --- going on from a label ------------------------------------------------------------------------------------------------ */

struct step {
    uint32_t parent, device;
    uint64_t used;
    uint32_t mask, begin;
    double sum; /* with the hop to the device */
    double busy[COST_MAX_GROUPS];
};

static bool add_busy(const struct search *x, double *busy, int32_t group, double us)
{
    if (group < 0)
        return true;
    busy[group] += us;
    return busy[group] <= x->ask->cap_us * (1 + SLACK);
}

static void finish(struct search *x, const struct step *st, double sum)
{
    uint32_t kind = x->s->devices[st->device].kind;
    const struct cost_hop *home = &x->hops[kind * (x->s->n_kinds + 1) + x->s->n_kinds];
    double busy[COST_MAX_GROUPS], wire = home->row_us * x->ask->batch.rows;
    memcpy(busy, st->busy, sizeof busy);
    sum += x->home_us[kind];
    if ((x->whole && st->used != x->full) || sum >= x->best || wire > x->ask->cap_us * (1 + SLACK) || !add_busy(x, busy, home->group[0], wire * home->group_factor[0]))
        return;
    x->best = sum;
    x->best_parent = st->parent;
    x->best_last = (struct search_stage){kind, st->device, st->begin, x->n};
}

/* Hops to come, and what nodes to come cost whatever they hold. */
static double after_us(const struct search *x, uint64_t used, uint32_t kind)
{
    double us;
    if (!x->whole)
        return x->least_home_us;
    us = x->paths[(x->full - used) * (x->s->n_ways + 1) + x->s->kinds[kind].way] * (1 - FLOAT_SLACK);
    for (uint32_t k = 0; k < x->s->n_kinds; k++)
        us += (x->s->kinds[k].n_members - count_of(x, used, k)) * x->fixed_us[k];
    return us;
}

/* All ends of a stage that begins where the step does. */
static void extend(struct search *x, const struct step *st)
{
    const struct space *s = x->s;
    const struct space_device *d = &s->devices[st->device];
    struct bound bound;
    double after = after_us(x, st->used, d->kind);
    uint32_t at = 0, p = st->begin, furthest;
    furthest = x->covers ? x->forward[st->device][p] : furthest_end(x, st->device, p);
    make_bound(x, st->used, d->kind, st->mask, &bound);
    for (uint32_t q = furthest; q > p; q--) {
        struct step next = *st;
        double us, rest = bound_at(&bound, 1 - x->share[q], &at);
        if (rest == INFINITY || !can_finish(x, st->used, d->kind, st->mask, q))
            break; /* what is left only grows */
        if (!place(x, st->device, p, q, &us) || !add_busy(x, next.busy, d->group, read_us(x, st->device, p, q) * d->group_factor))
            continue;
        double sum = st->sum + us;
        if (x->ask->byte_us > 0)
            sum += x->ask->byte_us * space_load_cost(s, d, p, q);
        if (q == x->n) {
            finish(x, &next, sum);
            continue;
        }
        double f = sum + rest + after;
        if (f >= x->best * (1 - SLACK))
            continue;
        struct label l = {.sum = sum, .f = f, .used = st->used, .parent = st->parent, .device = st->device, .mask = (uint16_t)st->mask,
                          .first = (uint16_t)p, .last = (uint16_t)q};
        add_label(x, l, next.busy);
    }
}

/* The devices of a kind that a chain may go to next: one of those that look the same. */
static void enter(struct search *x, const struct step *from, uint32_t kind, uint32_t mask)
{
    const struct space_kind *k = &x->s->kinds[kind];
    for (uint32_t i = 0; i < k->n_devices; i++) {
        const struct space_device *d = &x->s->devices[k->first_device + i];
        bool earlier = false;
        if (mask >> i & 1)
            continue;
        for (uint32_t j = 0; j < i; j++)
            earlier |= !(mask >> j & 1) && x->s->devices[k->first_device + j].same_as == d->same_as;
        if (earlier)
            continue;
        struct step st = *from;
        st.device = k->first_device + i;
        st.mask = mask | 1u << i;
        extend(x, &st);
    }
}

static void go_on(struct search *x, uint32_t parent)
{
    const struct space *s = x->s;
    struct step st = {.parent = parent};
    uint32_t at = s->n_kinds;
    double sum = 0;
    struct label l = {.used = x->outside};
    if (parent != NONE) {
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
        enter(x, &st, at, l.mask);
    }
    for (uint32_t k = 0; k < s->n_kinds; k++) {
        const struct cost_hop *hop = &x->hops[at * (s->n_kinds + 1) + k];
        double wire = hop->row_us * x->ask->batch.rows;
        struct step to = st;
        bool fits = wire <= x->ask->cap_us * (1 + SLACK);
        if (count_of(x, l.used, k) == s->kinds[k].n_members)
            continue;
        for (int i = 0; i < 2; i++)
            fits &= add_busy(x, to.busy, hop->group[i], wire * hop->group_factor[i]);
        to.used = l.used + x->strides[k];
        to.sum = sum + cost_hop_us(hop, x->ask->batch.rows);
        if (fits)
            enter(x, &to, k, 0);
    }
}

/* --- the search ---------------------------------------------------------------------------------------------------------- */

static int prepare(struct search *x)
{
    const struct space *s = x->s;
    uint64_t stride = 1;
    for (uint32_t k = 0; k < s->n_kinds; k++) {
        x->strides[k] = stride;
        x->full += stride * s->kinds[k].n_members;
        stride *= s->kinds[k].n_members + 1;
    }
    x->share = take(x, x->n + 1, sizeof *x->share);
    x->costs = take(x, s->n_devices, sizeof *x->costs);
    x->items = take(x, 2 * (size_t)s->n_devices, sizeof *x->items);
    x->hops = take(x, (size_t)(s->n_kinds + 1) * (s->n_kinds + 1), sizeof *x->hops);
    x->home_us = take(x, s->n_kinds, sizeof *x->home_us);
    x->fixed_us = take(x, s->n_kinds, sizeof *x->fixed_us);
    if (x->failed)
        return -1;
    const uint64_t *bytes = s->devices[0].weights_bytes;
    for (uint32_t l = 1; l <= x->n; l++) /* and one byte each, so that no layer is nothing */
        x->share[l] = (double)(bytes[l] + l) / (double)(bytes[x->n] + x->n);
    batch_costs(x);
    if (x->failed)
        return -1;
    find_hops(x);
    make_items(x);
    return x->failed ? -1 : 0;
}

/* All that there is can hold the layers, as far as shares tell. */
static bool enough_room(const struct search *x)
{
    double capacity = 0;
    for (uint32_t i = 0; i < x->s->n_devices; i++)
        capacity += x->s->kinds[x->s->devices[i].kind].n_members * x->costs[i].capacity;
    return capacity >= 1 - SLACK;
}

static int by_f(const void *a, const void *b, void *arg)
{
    uint32_t p = *(const uint32_t *)a, q = *(const uint32_t *)b;
    return before(arg, p, q) ? -1 : before(arg, q, p);
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
    stages[n++] = x->best_last;
    for (uint32_t i = x->best_parent; i != NONE; i = x->labels[i].parent) {
        const struct label *l = &x->labels[i];
        if (n == COST_MAX_STAGES)
            return; /* more stages than any pipeline may have */
        stages[n++] = (struct search_stage){x->s->devices[l->device].kind, l->device, l->first, l->last};
    }
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
    level[0] = NONE;
    while (n > 0 && !x->full_up) {
        x->n_heap = 0;
        for (uint32_t i = 0; i < n; i++)
            if (level[i] == NONE || !x->labels[level[i]].dead)
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
    go_on(x, NONE);
    while (x->n_heap > 0) {
        uint32_t top = heap_pop(x);
        const struct label *l = &x->labels[top];
        if (x->best < x->ask->below_us && x->best <= x->ask->enough_us)
            break;
        if (l->dead)
            continue;
        if (l->f >= x->best * (1 - SLACK))
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

/* From any node of a way to a node of a kind; way n_ways is the coordinator. */
static double least_hop(const struct search *x, uint32_t way, uint32_t to)
{
    const struct space *s = x->s;
    double least = INFINITY;
    for (uint32_t k = 0; k <= s->n_kinds; k++) {
        bool of_way = k == s->n_kinds ? way == s->n_ways : s->kinds[k].way == way;
        if (of_way && (k != to || s->kinds[k].n_members > 1))
            least = fmin(least, cost_hop_us(&x->hops[k * (s->n_kinds + 1) + to], x->ask->batch.rows));
    }
    return least;
}

static bool find_paths(struct search *x)
{
    const struct space *s = x->s;
    struct space_paths *p = s->paths;
    uint32_t ways = s->n_ways + 1, digits[PLAN_MAX_NODES] = {0};
    float *hops = take(x, (size_t)s->n_kinds * ways, sizeof *hops);
    if (x->failed || x->full + 1 > TABLE_MAX || (x->full + 1) * ways > PATHS_MAX)
        return false;
    if (!p->us && !(p->us = malloc((x->full + 1) * ways * sizeof *p->us)))
        return false;
    x->paths = p->us;
    if (p->rows == x->ask->batch.rows)
        return true;
    p->rows = x->ask->batch.rows;
    for (uint32_t w = 0; w < ways; w++) {
        p->us[w] = w == s->n_ways ? INFINITY : 0;
        for (uint32_t k = 0; k < s->n_kinds; k++) {
            hops[k * ways + w] = (float)least_hop(x, w, k);
            if (s->kinds[k].way == w)
                p->us[w] = (float)x->home_us[k];
        }
    }
    for (uint64_t set = 1; set <= x->full; set++) {
        float *to = p->us + set * ways;
        uint32_t k = 0;
        while (digits[k] == s->kinds[k].n_members)
            digits[k++] = 0;
        digits[k]++;
        for (uint32_t w = 0; w < ways; w++)
            to[w] = INFINITY;
        for (k = 0; k < s->n_kinds; k++) {
            if (!digits[k])
                continue;
            float rest = p->us[(set - x->strides[k]) * ways + s->kinds[k].way];
            const float *hop = hops + k * ways;
            for (uint32_t w = 0; w < ways; w++)
                to[w] = hop[w] + rest < to[w] ? hop[w] + rest : to[w];
        }
    }
    return true;
}

/* A set's layers split at will over its devices. */
static double set_share_us(const struct search *x, const uint32_t *digits)
{
    double left = 1 - SLACK, us = 0;
    for (uint32_t k = 0; k < x->s->n_kinds; k++)
        us += digits[k] * x->fixed_us[k];
    for (uint32_t i = 0; i < x->n_items && left > 0; i++) {
        const struct item *it = &x->items[i];
        double room = it->open ? digits[it->kind] * it->capacity : 0;
        room = room < left ? room : left;
        us += room * it->price;
        left -= room;
    }
    return left > 0 ? INFINITY : us;
}

static int by_bound(const void *a, const void *b)
{
    const struct set *x = a, *y = b;
    return x->bound < y->bound ? -1 : x->bound > y->bound;
}

static uint32_t list_sets(struct search *x)
{
    const struct space *s = x->s;
    uint32_t digits[PLAN_MAX_NODES] = {0}, n = 0;
    for (uint64_t set = 1; set <= x->full; set++) {
        uint32_t k = 0;
        while (digits[k] == s->kinds[k].n_members)
            digits[k++] = 0;
        digits[k]++;
        double bound = x->paths[set * (s->n_ways + 1) + s->n_ways] * (1 - FLOAT_SLACK);
        if (bound >= x->best)
            continue;
        bound = (bound + set_share_us(x, digits)) * (1 - FLOAT_SLACK);
        if (bound < x->best)
            x->sets[n++] = (struct set){(float)bound, (uint32_t)set};
    }
    qsort(x->sets, n, sizeof *x->sets, by_bound);
    return n;
}

/* False when the effort is spent. */
static bool set_by_set(struct search *x, uint32_t n, uint64_t effort, struct search_answer *ret)
{
    bool done = true;
    double open = INFINITY;
    x->whole = true;
    for (uint32_t i = 0; i < n && done && x->sets[i].bound < x->best * (1 - SLACK); i++) {
        if (x->best < x->ask->below_us && x->best <= x->ask->enough_us)
            break;
        if (x->covers && x->covers[x->sets[i].nodes] > 0)
            continue;
        x->outside = x->full - x->sets[i].nodes;
        done = best_first(x, effort, &open);
        ret->bound_us = x->sets[i].bound;
        ret->states += x->n_labels;
        effort -= effort < x->n_labels ? effort : x->n_labels;
        keep_best(x, ret);
        forget(x);
    }
    return done;
}

static bool answered(const struct search_answer *ret, const struct search_ask *ask)
{
    return ret->found && ret->sum_us <= ask->enough_us;
}

/* From what costs least to what costs most: most questions are answered early. */
static int look(struct search *x, uint64_t effort, struct search_answer *ret)
{
    const struct search_ask *ask = x->ask;
    bool sets = false;
    uint32_t n = 0;
    if (!enough_room(x))
        return 0;
    if (ask->enough_us == INFINITY)
        beam(x, ret);
    if (answered(ret, ask))
        return 0;
    if (ask->below_us < INFINITY && (sets = find_paths(x))) {
        if (!(x->sets = take(x, x->full + 1, sizeof *x->sets)))
            return -1;
        if ((n = list_sets(x)) == 0)
            return 0;
    }
    make_table(x);
    if (x->failed)
        return -1;
    if (x->covers && x->covers[x->full] > 0)
        return 0;
    beam(x, ret);
    if (answered(ret, ask))
        return 0;
    if (!sets && (sets = find_paths(x))) {
        if (!(x->sets = take(x, x->full + 1, sizeof *x->sets)))
            return -1;
        n = list_sets(x);
    }
    if (x->failed)
        return -1;
    if (sets) {
        ret->proved = set_by_set(x, n, effort, ret);
        return 0;
    }
    ret->proved = best_first(x, effort, &ret->bound_us);
    ret->states += x->n_labels;
    keep_best(x, ret);
    return 0;
}

int search_chain(const struct space *s, const struct search_ask *ask, struct search_answer *ret, struct err *err)
{
    struct search x = {.s = s, .ask = ask, .n = s->n_layers, .n_groups = s->in->n_groups, .best = ask->below_us, .err = err};
    uint64_t effort = ask->effort ? ask->effort : EFFORT_LABELS;
    int rc = -1;
    *ret = (struct search_answer){.proved = true, .bound_us = ask->below_us};
    if (s->n_devices == 0)
        return 0;
    arena_init(&x.arena, WORK_MAX_BYTES);
    if (prepare(&x) != 0 || look(&x, effort < LABELS_MAX ? effort : LABELS_MAX - 1, ret) != 0)
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
