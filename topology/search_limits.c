/* What is known without looking: the costs of ranges of layers for this batch, a bound for the layers still to come, and the table
 * of what can be completed at all. See search.c. */
#include "topology/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_DEVICES_MAX = 4 }; /* of a node */
/* The table is worth its time only where memory or the cap is scarce. */
static const double TABLE_WHEN_CAPACITY_BELOW = 4;

/* --- costs for this batch ------------------------------------------------------------------------------------------------ */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

double search_read_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    const struct search_device *c = &x->costs[d];
    return c->read[q] - c->read[p] + (q == x->n ? c->head_read : 0);
}

static double stage_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    const struct search_device *c = &x->costs[d];
    double compute = c->compute[q] - c->compute[p] + (q == x->n ? c->head_compute : 0);
    return larger(search_read_us(x, d, p, q), compute) + x->s->devices[d].fixed_us;
}

bool search_place(const struct search *x, uint32_t d, uint32_t p, uint32_t q, double copy_us, double *ret_us)
{
    uint64_t disk = space_disk_bytes(x->s, &x->s->devices[d], p, q);
    if (disk == UINT64_MAX)
        return false;
    *ret_us = stage_us(x, d, p, q) + copy_us;
    return *ret_us + (double)disk * x->s->devices[d].disk_us_byte <= x->ask->cap_us * (1 + SEARCH_SLACK);
}

/* The same with the least that copies can be. */
static bool may_place(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    const struct space_device *s = &x->s->devices[d];
    double us, row_us = (p > 0 ? s->least_in_us : 0) + (q < x->n ? s->least_out_us : 0);
    return search_place(x, d, p, q, row_us * x->ask->batch.rows, &us);
}

double search_least_stage_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    return may_place(x, d, p, q) ? stage_us(x, d, p, q) : INFINITY;
}

void *search_take(struct search *x, size_t count, size_t size)
{
    void *p = arena_alloc(&x->arena, count * size + 1, x->err);
    if (p)
        memset(p, 0, count * size);
    x->failed |= !p;
    return p;
}

void search_costs(struct search *x)
{
    const struct cost_batch *b = &x->ask->batch;
    const struct plan_model *m = x->s->in->model;
    double touched = cost_experts_touched(m->experts, m->experts_used, b->rows);
    double sliding = m->window && b->context > m->window ? m->window : b->context;
    for (uint32_t i = 0; i < x->s->n_devices; i++) {
        const struct space_device *d = &x->s->devices[i];
        struct search_device *c = &x->costs[i];
        c->read = search_take(x, x->n + 1, sizeof *c->read);
        c->compute = search_take(x, x->n + 1, sizeof *c->compute);
        if (x->failed)
            return;
        for (uint32_t l = 0; l <= x->n; l++) {
            c->read[l] = d->weights_us[l] + d->experts_us[l] * touched + b->seqs * (d->kv_us[l] * b->context + d->kv_sliding_us[l] * sliding);
            struct cost_work work, experts, attn;
            for (int k = 0; k < COST_ROWS; k++) {
                work.row_us[k] = d->row_us[k][l];
                experts.row_us[k] = d->experts_row_us[k][l];
                attn.row_us[k] = d->attn_us[k][l] * b->context + d->attn_sliding_us[k][l] * sliding;
            }
            c->compute[l] = cost_work_us(&work, b->rows) + cost_experts_work_us(&experts, m->experts, m->experts_used, b->rows) +
                            cost_work_us(&attn, b->rows);
        }
        c->head_read = b->wanted > 0 ? d->head_us : 0;
        c->head_compute = cost_work_us(&d->head_work, b->wanted);
    }
}

/* --- the bound ----------------------------------------------------------------------------------------------------------- */

/* What a layer's share of all bytes costs at least on the device, and the largest share that one range of whole layers can be
 * there: within memory and cap. Whole layers make the bound tight: half a layer lost on each of ten nodes is five layers. */
static void price_device(struct search *x, uint32_t i)
{
    struct search_device *c = &x->costs[i];
    double read = INFINITY, compute = INFINITY;
    c->capacity = 0;
    for (uint32_t l = 0; l < x->n; l++) {
        double share = x->share[l + 1] - x->share[l];
        read = fmin(read, (c->read[l + 1] - c->read[l]) / share);
        compute = fmin(compute, (c->compute[l + 1] - c->compute[l]) / share);
        c->capacity = larger(c->capacity, x->share[search_furthest(x, i, l)] - x->share[l]);
    }
    c->price = larger(read, compute);
    c->end_us = read >= compute ? c->head_read : c->head_compute;
    if (space_disk_bytes(x->s, &x->s->devices[i], x->n - 1, x->n) == UINT64_MAX)
        c->end_us = INFINITY;
    c->capacity = fmin(c->capacity * (1 + SEARCH_SLACK), 1);
}

static int by_price(const void *a, const void *b)
{
    const struct search_item *x = a, *y = b;
    return x->price < y->price ? -1 : x->price > y->price;
}

void search_find_hops(struct search *x)
{
    const struct space *s = x->s;
    uint32_t k = s->n_kinds, here = s->in->n_nodes;
    for (uint32_t a = 0; a <= k; a++)
        for (uint32_t b = 0; b <= k; b++) {
            uint32_t from = a == k ? here : s->kinds[a].members[0], to = b == k ? here : s->kinds[b].members[0];
            if (a == b && a < k && s->kinds[a].n_members > 1)
                to = s->kinds[a].members[1];
            space_hop(s->in, from, to, &x->hops[a * (k + 1) + b]);
        }
    for (uint32_t a = 0; a < k; a++) {
        x->in_us[a] = x->out_us[a] = INFINITY;
        for (uint32_t i = 0; i < s->kinds[a].n_devices; i++) {
            const struct space_device *d = &s->devices[s->kinds[a].first_device + i];
            x->in_us[a] = fmin(x->in_us[a], d->in_us * x->ask->batch.rows);
            x->out_us[a] = fmin(x->out_us[a], d->out_us * x->ask->batch.rows);
        }
        x->home_us[a] = cost_hop_us(&x->hops[a * (k + 1) + k], x->ask->batch.rows);
    }
}

double search_hop_us(const struct search *x, uint32_t a, uint32_t b)
{
    uint32_t home = x->s->n_kinds;
    return cost_hop_us(&x->hops[a * (home + 1) + b], x->ask->batch.rows) + (a == home || b == home ? 0 : x->in_us[b]);
}

void search_make_items(struct search *x)
{
    const struct space *s = x->s;
    uint32_t n = s->n_kinds;
    for (uint32_t i = 0; i < s->n_devices; i++)
        price_device(x, i);
    x->n_items = 0;
    x->least_end_us = INFINITY;
    for (uint32_t k = 0; k < n; k++) {
        const struct space_kind *kind = &s->kinds[k];
        double enter = INFINITY, capacity = 0, fixed = INFINITY, end = INFINITY;
        for (uint32_t a = 0; a <= n; a++)
            if (a != k || kind->n_members > 1)
                enter = fmin(enter, search_hop_us(x, a, k));
        for (uint32_t i = 0; i < kind->n_devices; i++) {
            capacity += x->costs[kind->first_device + i].capacity;
            fixed = fmin(fixed, s->devices[kind->first_device + i].fixed_us);
            end = fmin(end, x->costs[kind->first_device + i].end_us);
        }
        x->fixed_us[k] = fixed;
        x->end_us[k] = x->ends_in == SEARCH_NONE || x->ends_in == k ? x->home_us[k] + end : INFINITY;
        x->least_end_us = fmin(x->least_end_us, x->end_us[k]);
        for (uint32_t i = 0; i < kind->n_devices && capacity > 0; i++) {
            const struct search_device *c = &x->costs[kind->first_device + i];
            double toll = (enter + fixed) / fmin(capacity, 1);
            if (c->capacity <= 0)
                continue;
            x->items[x->n_items++] = (struct search_item){c->price, c->capacity, k, i, true};
            x->items[x->n_items++] = (struct search_item){c->price + toll, c->capacity, k, i, false};
        }
    }
    qsort(x->items, x->n_items, sizeof *x->items, by_price);
    x->n_own_items = 0;
    for (uint32_t i = 0; i < x->n_items; i++)
        if (x->items[i].open)
            x->own_items[x->n_own_items++] = x->items[i];
}

uint32_t search_count(const struct search *x, uint64_t used, uint32_t kind)
{
    if (x->singles)
        return used >> kind & 1;
    return (uint32_t)(used / x->strides[kind] % (x->s->kinds[kind].n_members + 1));
}

void search_next_set(const struct search *x, uint64_t set, struct search_members *m)
{
    uint32_t k = 0;
    m->n = 0;
    if (x->singles) {
        for (; set; set &= set - 1)
            m->kinds[m->n++] = (uint32_t)__builtin_ctzll(set);
        return;
    }
    while (m->digits[k] == x->s->kinds[k].n_members)
        m->digits[k++] = 0;
    m->digits[k]++;
    for (k = 0; k < x->s->n_kinds; k++)
        if (m->digits[k])
            m->kinds[m->n++] = k;
}

void search_make_bound(const struct search *x, uint64_t used, uint32_t open, uint32_t mask, struct search_bound *ret)
{
    const struct search_item *items = x->whole ? x->own_items : x->items;
    double upto = 0, cost = 0;
    uint32_t n = 0, n_items = x->whole ? x->n_own_items : x->n_items;
    for (uint32_t i = 0; i < n_items && upto < 1; i++) {
        const struct search_item *it = &items[i];
        double times = 0;
        if (it->open)
            times = it->kind == open && !(mask >> it->index & 1);
        if (it->open == x->whole) /* in a set hops are counted by themselves: everything has its own price */
            times += x->s->kinds[it->kind].n_members - search_count(x, used, it->kind);
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
double search_bound_at(const struct search_bound *b, double rest, uint32_t *at)
{
    rest -= rest * SEARCH_SLACK;
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

/* The last layer's end and the first one's beginning are asked for by themselves: nothing is copied there. */
uint32_t search_furthest(const struct search *x, uint32_t d, uint32_t p)
{
    uint32_t low = p, high = x->n; /* low is possible */
    if (p < x->n && may_place(x, d, p, x->n))
        return x->n;
    while (low < high) {
        uint32_t q = (low + high + 1) / 2;
        if (may_place(x, d, p, q))
            low = q;
        else
            high = q - 1;
    }
    return low;
}

static uint32_t earliest_begin(const struct search *x, uint32_t d, uint32_t q)
{
    uint32_t low = 0, high = q;
    if (q > 0 && may_place(x, d, 0, q))
        return 0;
    while (low < high) {
        uint32_t p = (low + high) / 2;
        if (may_place(x, d, p, q))
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
    x->ahead[k] = search_take(x, (size_t)masks * (x->n + 1), sizeof *x->ahead[k]);
    for (uint32_t i = 0; i < kind->n_devices; i++) {
        uint32_t d = kind->first_device + i;
        x->forward[d] = search_take(x, x->n + 1, sizeof *x->forward[d]);
        for (uint32_t p = 0; p <= x->n && !x->failed; p++)
            x->forward[d][p] = (uint16_t)search_furthest(x, d, p);
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

void search_make_table(struct search *x)
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
    if (x->full + 1 > SEARCH_SETS_MAX || capacity > TABLE_WHEN_CAPACITY_BELOW)
        return;
    back = search_take(x, (size_t)s->n_kinds * (x->n + 1), sizeof *back);
    x->covers = search_take(x, x->full + 1, sizeof *x->covers);
    for (uint32_t k = 0; k < s->n_kinds && !x->failed; k++)
        node_reach(x, k, back + k * (x->n + 1));
    if (x->failed)
        return;
    x->covers[0] = (uint16_t)x->n;
    struct search_members m = {.n = 0};
    for (uint64_t set = 1; set <= x->full; set++) {
        uint32_t least = x->n;
        search_next_set(x, set, &m);
        for (uint32_t i = 0; i < m.n; i++) {
            uint32_t k = m.kinds[i], begin = back[k * (x->n + 1) + x->covers[set - x->strides[k]]];
            least = begin < least ? begin : least;
        }
        x->covers[set] = (uint16_t)least;
    }
}

bool search_can_finish(const struct search *x, uint64_t used, uint32_t kind, uint32_t mask, uint32_t last)
{
    if (!x->covers)
        return true;
    uint32_t left = ((1u << x->s->kinds[kind].n_devices) - 1) & ~mask;
    return x->covers[x->full - used] <= x->ahead[kind][left * (x->n + 1) + last];
}
