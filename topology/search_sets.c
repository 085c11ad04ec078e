/* What sets of nodes cost at least. See search.c. */
#include "topology/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PATHS_MAX = 1 << 22, LANES = 4 };
/* PRICE_STEPS: a round, for the set that costs least so far. */
enum { PRICE_ROUNDS = 12, JOINT_ROUNDS = 3, PRICE_STEPS = 12 };
static const double PRICE_WORTH = 1e-4; /* what a round must raise the least bound by for another one */

/* From any node of a way to a node of a kind; way n_ways is the coordinator. */
static double least_hop(const struct search *x, uint32_t way, uint32_t to)
{
    const struct space *s = x->s;
    double least = INFINITY;
    for (uint32_t k = 0; k <= s->n_kinds; k++) {
        bool of_way = k == s->n_kinds ? way == s->n_ways : s->kinds[k].way == way;
        if (of_way && (k != to || s->kinds[k].n_members > 1))
            least = fmin(least, search_hop_us(x, k, to));
    }
    return least;
}

bool search_find_paths(struct search *x)
{
    const struct space *s = x->s;
    struct space_paths *p = s->paths;
    struct search_members m = {.n = 0};
    uint32_t ways = (s->n_ways + LANES) / LANES * LANES;
    float *hops = search_take(x, (size_t)s->n_kinds * ways, sizeof *hops);
    if (x->failed || x->full + 1 > SEARCH_SETS_MAX || (x->full + 1) * ways > PATHS_MAX)
        return false;
    if (!p->us && !(p->us = malloc((x->full + 1) * ways * sizeof *p->us)))
        return false;
    x->paths = p->us;
    x->ways = ways;
    if (p->rows == x->ask->batch.rows && p->wanted == x->ask->batch.wanted && p->by_time == x->by_time && p->ends_in == x->ends_in)
        return true;
    p->rows = x->ask->batch.rows;
    p->wanted = x->ask->batch.wanted;
    p->by_time = x->by_time;
    p->ends_in = x->ends_in;
    for (uint32_t w = 0; w < ways; w++) {
        p->us[w] = INFINITY; /* nothing is left: after_us knows which kind that is */
        for (uint32_t k = 0; k < s->n_kinds; k++)
            hops[k * ways + w] = (float)least_hop(x, w, k);
    }
    for (uint64_t set = 1; set <= x->full; set++) {
        float *to = p->us + set * ways;
        for (uint32_t w = 0; w < ways; w++)
            to[w] = INFINITY;
        search_next_set(x, set, &m);
        for (uint32_t i = 0; i < m.n; i++) {
            uint32_t k = m.kinds[i];
            uint64_t left = set - x->strides[k];
            float rest = left ? p->us[left * ways + s->kinds[k].way] + (float)x->out_us[k] : (float)x->end_us[k];
            const float *hop = hops + k * ways;
            search_lower(to, hop, rest, ways);
        }
    }
    return true;
}

/* The least of two rows' sums. */
static float least_sum(const float *a, const float *b, uint32_t n)
{
    float least = INFINITY;
    for (uint32_t i = 0; i < n; i++)
        least = a[i] + b[i] < least ? a[i] + b[i] : least;
    return least;
}

bool search_find_arrivals(struct search *x)
{
    const struct space *s = x->s;
    struct search_members m = {.n = 0};
    uint32_t kinds = s->n_kinds;
    if (x->full + 1 > SEARCH_SETS_MAX || (x->full + 1) * kinds > PATHS_MAX)
        return false;
    float *hops = search_take(x, (size_t)kinds * kinds, sizeof *hops), *us = search_take(x, (x->full + 1) * kinds, sizeof *us);
    if (x->failed)
        return false;
    for (uint32_t k = 0; k < kinds; k++)
        for (uint32_t from = 0; from < kinds; from++)
            hops[k * kinds + from] = from == k && s->kinds[k].n_members == 1 ? INFINITY : (float)(search_hop_us(x, from, k) + x->out_us[from]);
    for (uint64_t set = 1; set <= x->full; set++) {
        float *to = us + set * kinds;
        search_next_set(x, set, &m);
        for (uint32_t k = 0; k < kinds; k++)
            to[k] = INFINITY;
        for (uint32_t i = 0; i < m.n; i++) {
            uint32_t k = m.kinds[i];
            uint64_t others = set - x->strides[k];
            to[k] = others ? least_sum(us + others * kinds, hops + k * kinds, kinds) : (float)search_hop_us(x, kinds, k);
        }
    }
    x->arrivals = us;
    return true;
}

double search_path_us(const struct search *x, uint64_t set)
{
    if (x->ends_in == SEARCH_NONE)
        return x->paths[set * x->ways + x->s->n_ways];
    return x->arrivals[set * x->s->n_kinds + x->ends_in] + x->end_us[x->ends_in];
}

/* What is known of a set: sums over its nodes. */
struct sums {
    float room, fixed_us;
};

static void kind_sums(const struct search *x, struct sums *ret)
{
    for (uint32_t i = 0; i < x->n_own_items; i++)
        ret[x->own_items[i].kind].room += (float)x->own_items[i].capacity;
    for (uint32_t k = 0; k < x->s->n_kinds; k++)
        ret[k].fixed_us = (float)x->fixed_us[k];
}

/* A set's layers split at will over its devices; INFINITY: that is limit_us or more. */
static double set_share_us(const struct search *x, const uint32_t *digits, double limit_us)
{
    double left = 1 - SEARCH_SLACK, us = 0;
    for (uint32_t i = 0; i < x->n_own_items && left > 0; i++) {
        const struct search_item *it = &x->own_items[i];
        if (!digits[it->kind])
            continue;
        if (us + left * it->price >= limit_us)
            return INFINITY;
        double room = digits[it->kind] * it->capacity;
        room = room < left ? room : left;
        us += room * it->price;
        left -= room;
    }
    return left > 0 ? INFINITY : us;
}

static int by_bound(const void *a, const void *b)
{
    const struct search_set *x = a, *y = b;
    return x->bound < y->bound ? -1 : x->bound > y->bound;
}

uint32_t search_list_sets(struct search *x)
{
    const struct space *s = x->s;
    struct sums of_kind[PLAN_MAX_NODES] = {{0}}, *sums = search_take(x, x->full + 1, sizeof *sums);
    uint32_t digits[PLAN_MAX_NODES] = {0}, n = 0;
    if (x->failed)
        return 0;
    kind_sums(x, of_kind);
    for (uint64_t set = 1; set <= x->full; set++) {
        uint32_t k = 0;
        while (digits[k] == s->kinds[k].n_members)
            digits[k++] = 0;
        digits[k]++;
        const struct sums *less = &sums[set - x->strides[k]];
        sums[set] = (struct sums){less->room + of_kind[k].room, less->fixed_us + of_kind[k].fixed_us};
        if (sums[set].room < 1 - SEARCH_FLOAT_SLACK)
            continue;
        double bound = (search_path_us(x, set) + sums[set].fixed_us) * (1 - SEARCH_FLOAT_SLACK);
        if (bound < x->best)
            bound = (bound + set_share_us(x, digits, x->best - bound)) * (1 - SEARCH_FLOAT_SLACK);
        if (bound < x->best)
            x->sets[n++] = (struct search_set){(float)bound, (uint32_t)set};
    }
    qsort(x->sets, n, sizeof *x->sets, by_bound);
    return n;
}

/* Prices suit one set best, and bound all others as well. */
static uint32_t raise_bounds(struct search *x, uint32_t n)
{
    uint32_t kept = 0, least = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct search_set set = x->sets[i];
        double bound = search_path_us(x, set.nodes) * (1 - SEARCH_FLOAT_SLACK) + search_priced_us(x, x->full - set.nodes, 0);
        bound *= 1 - SEARCH_FLOAT_SLACK;
        set.bound = bound > set.bound ? (float)bound : set.bound;
        if (set.bound >= x->best)
            continue;
        least = set.bound < x->sets[least].bound || kept == 0 ? kept : least;
        x->sets[kept++] = set;
    }
    if (kept) {
        struct search_set first = x->sets[least]; /* the next prices are for it */
        x->sets[least] = x->sets[0];
        x->sets[0] = first;
    }
    return kept;
}

uint32_t search_price_sets(struct search *x, uint32_t n)
{
    float before = 0;
    for (int i = 0; i < PRICE_ROUNDS && n > 0 && x->sets[0].bound >= before * (1 + PRICE_WORTH); i++) {
        uint64_t set = x->sets[0].nodes;
        before = x->sets[0].bound;
        search_better_prices(x, set, x->best - search_path_us(x, set), PRICE_STEPS, false);
        search_use_prices(x);
        n = raise_bounds(x, n);
    }
    qsort(x->sets, n, sizeof *x->sets, by_bound);
    return n;
}

double search_joint_bound(struct search *x, uint64_t set)
{
    return (search_path_us(x, set) * (1 - SEARCH_FLOAT_SLACK) + search_joint_us(x, set)) * (1 - SEARCH_FLOAT_SLACK);
}

/* The same with joint bounds. */
static uint32_t join_bounds(struct search *x, uint32_t n)
{
    uint32_t kept = 0;
    search_use_joint(x);
    for (uint32_t i = 0; i < n; i++) {
        struct search_set set = x->sets[i];
        double bound = i < SEARCH_JOINT_SETS ? search_joint_bound(x, set.nodes) : 0;
        set.bound = bound > set.bound ? (float)bound : set.bound;
        if (set.bound < x->best)
            x->sets[kept++] = set;
    }
    qsort(x->sets, kept, sizeof *x->sets, by_bound);
    return kept;
}

uint32_t search_join_sets(struct search *x, uint32_t n)
{
    n = join_bounds(x, n);
    for (int i = 0; i < JOINT_ROUNDS && n > 0; i++) {
        uint64_t set = x->sets[0].nodes;
        search_better_prices(x, set, x->best - search_path_us(x, set), PRICE_STEPS, true);
        search_use_prices(x);
        n = join_bounds(x, n);
    }
    return n;
}
