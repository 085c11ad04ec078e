/* What sets of nodes cost at least. See search.c. */
#include "topology/search.h"

#include <math.h>
#include <stdlib.h>

enum { PATHS_MAX = 1 << 22 };

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
    uint32_t ways = s->n_ways + 1, digits[PLAN_MAX_NODES] = {0};
    float *hops = search_take(x, (size_t)s->n_kinds * ways, sizeof *hops);
    if (x->failed || x->full + 1 > SEARCH_SETS_MAX || (x->full + 1) * ways > PATHS_MAX)
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
            uint64_t left = set - x->strides[k];
            float rest = p->us[left * ways + s->kinds[k].way] + (left ? (float)x->out_us[k] : 0);
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
    double left = 1 - SEARCH_SLACK, us = 0;
    for (uint32_t k = 0; k < x->s->n_kinds; k++)
        us += digits[k] * x->fixed_us[k];
    for (uint32_t i = 0; i < x->n_items && left > 0; i++) {
        const struct search_item *it = &x->items[i];
        double room = it->open ? digits[it->kind] * it->capacity : 0;
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
    uint32_t digits[PLAN_MAX_NODES] = {0}, n = 0;
    for (uint64_t set = 1; set <= x->full; set++) {
        uint32_t k = 0;
        while (digits[k] == s->kinds[k].n_members)
            digits[k++] = 0;
        digits[k]++;
        double bound = x->paths[set * (s->n_ways + 1) + s->n_ways] * (1 - SEARCH_FLOAT_SLACK);
        if (bound >= x->best)
            continue;
        bound = (bound + set_share_us(x, digits)) * (1 - SEARCH_FLOAT_SLACK);
        if (bound < x->best)
            x->sets[n++] = (struct search_set){(float)bound, (uint32_t)set};
    }
    qsort(x->sets, n, sizeof *x->sets, by_bound);
    return n;
}
