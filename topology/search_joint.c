/* A sharper bound from prices, where memory or a cap is scarce: all devices of a set take ranges that have the model's number of layers
 * together, one of them begins with the first layer and one ends with the last. Without that each takes the range that suits it best
 * (search_prices.c), which may be of the same length everywhere, and nobody makes room for the embedding and the head. Still no range
 * need begin where another one ends; that is left to the search. */
#include "topology/search.h"

#include <math.h>
#include <string.h>

enum { HAS_FIRST = 1, HAS_LAST = 2, ENDS = 4 };
enum { DEVICES_MAX = 4, RESTS_MAX = 1 << 24 };

/* Losses by number of layers, 0 … n; INFINITY: impossible. Floats: there are many. */
struct search_joint {
    float *device;   /* [device][ends][layers]: the least of a range of so many layers that has these ends of the model */
    uint16_t *begin; /* where that range begins */
    float *node;     /* [node_at[kind] + devices that may be used][ends][layers]: of a node's devices together */
    uint16_t *most;  /* [the same][ends]: the most layers that are possible */
    size_t *node_at;
    float *sums;     /* [members][ends][layers]: of the first members of a set together */
    float *rests;    /* [set][has the last layer][layers]: of all nodes of the set, each of which takes some; NULL: too many */
    double *before, scale; /* as in prices when these tables were made: those may change */
};

static size_t width(const struct search *x)
{
    return x->n + 1;
}

static float *of_device(const struct search *x, uint32_t d, uint32_t ends)
{
    return x->joint->device + (d * ENDS + ends) * width(x);
}

static size_t node_index(const struct search *x, uint32_t kind, uint32_t devices, uint32_t ends)
{
    return (x->joint->node_at[kind] + devices) * ENDS + ends;
}

static float *of_node(const struct search *x, uint32_t kind, uint32_t devices, uint32_t ends)
{
    return x->joint->node + node_index(x, kind, devices, ends) * width(x);
}

static float *sums_of(const struct search *x, uint32_t members, uint32_t ends)
{
    return x->joint->sums + ((size_t)members * ENDS + ends) * width(x);
}

static uint32_t all_devices(const struct search *x, uint32_t kind)
{
    return (1u << x->s->kinds[kind].n_devices) - 1;
}

void search_make_joint(struct search *x)
{
    size_t nodes = 0, members = 0, sets = x->full + 1;
    struct search_joint *j = search_take(x, 1, sizeof *j);
    if (x->failed || !x->prices)
        return;
    j->node_at = search_take(x, x->s->n_kinds, sizeof *j->node_at);
    for (uint32_t k = 0; k < x->s->n_kinds && !x->failed; k++) {
        if (x->s->kinds[k].n_devices > DEVICES_MAX)
            return;
        j->node_at[k] = nodes;
        nodes += (size_t)1 << x->s->kinds[k].n_devices;
        members += x->s->kinds[k].n_members;
    }
    j->device = search_take(x, x->s->n_devices * ENDS * width(x), sizeof *j->device);
    j->begin = search_take(x, x->s->n_devices * ENDS * width(x), sizeof *j->begin);
    j->node = search_take(x, nodes * ENDS * width(x), sizeof *j->node);
    j->most = search_take(x, nodes * ENDS, sizeof *j->most);
    j->sums = search_take(x, (members + 1) * ENDS * width(x), sizeof *j->sums);
    j->before = search_take(x, width(x), sizeof *j->before);
    if (!x->failed && sets * 2 * width(x) <= RESTS_MAX)
        j->rests = arena_alloc(&x->arena, sets * 2 * width(x) * sizeof *j->rests, x->err);
    if (!x->failed)
        x->joint = j;
}

/* --- by number of layers --------------------------------------------------------------------------------------------------- */

/* to[l + i] = min(to[l + i], from[l] + loss[i]) for 1 <= i <= most, l <= upto */
static void add(float *to, const float *from, uint32_t upto, const float *loss, uint32_t most, uint32_t n)
{
    for (uint32_t i = 1; i <= most; i++)
        search_lower(to + i, from, loss[i], (i + upto < n ? upto : n - i) + 1);
}

static void clear(float *to, size_t n, float first)
{
    for (size_t i = 0; i < n; i++)
        to[i] = INFINITY;
    to[0] = first;
}

static uint32_t most_layers(const float *loss, uint32_t n)
{
    while (n > 0 && loss[n] == INFINITY)
        n--;
    return n;
}

static void find_device(const struct search *x, uint32_t d)
{
    const struct search_prices *p = x->prices;
    clear(of_device(x, d, 0), ENDS * width(x), INFINITY);
    for (uint32_t first = 0; first < x->n; first++) {
        const double *us = p->us + p->at[d * x->n + first];
        uint32_t upto = p->upto[d * x->n + first], ends = first == 0 ? HAS_FIRST : 0;
        float *least = of_device(x, d, ends);
        for (uint32_t last = first + 1; last <= upto; last++) {
            if (last == x->n)
                least = of_device(x, d, ends | HAS_LAST);
            float loss = (float)(us[last - first - 1] - p->before[last] + p->before[first]);
            if (loss < least[last - first]) {
                least[last - first] = loss;
                x->joint->begin[least + last - first - x->joint->device] = (uint16_t)first;
            }
        }
    }
}

static void find_node(const struct search *x, uint32_t kind)
{
    clear(of_node(x, kind, 0, 0), ENDS * width(x), 0);
    for (uint32_t devices = 1; devices <= all_devices(x, kind); devices++) {
        uint32_t d = x->s->kinds[kind].first_device + (uint32_t)__builtin_ctz(devices), others = devices & (devices - 1);
        memcpy(of_node(x, kind, devices, 0), of_node(x, kind, others, 0), ENDS * width(x) * sizeof(float));
        for (uint32_t own = 0; own < ENDS; own++) {
            const float *loss = of_device(x, d, own);
            uint32_t most = most_layers(loss, x->n);
            for (uint32_t ends = 0; ends < ENDS; ends++)
                if ((own & ends) == own)
                    add(of_node(x, kind, devices, ends), of_node(x, kind, others, ends & ~own), x->joint->most[node_index(x, kind, others, ends & ~own)], loss,
                        most, x->n);
        }
        for (uint32_t ends = 0; ends < ENDS; ends++)
            x->joint->most[node_index(x, kind, devices, ends)] = (uint16_t)most_layers(of_node(x, kind, devices, ends), x->n);
    }
}

void search_use_joint(struct search *x)
{
    memcpy(x->joint->before, x->prices->before, width(x) * sizeof *x->joint->before);
    x->joint->scale = x->prices->scale;
    for (uint32_t d = 0; d < x->s->n_devices; d++)
        find_device(x, d);
    for (uint32_t k = 0; k < x->s->n_kinds; k++)
        find_node(x, k);
}

/* --- one set --------------------------------------------------------------------------------------------------------------- */

static uint32_t find_members(const struct search *x, uint64_t set, uint32_t kinds[PLAN_MAX_NODES])
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < x->s->n_kinds; k++)
        for (uint32_t i = search_count(x, set, k); i > 0; i--)
            kinds[n++] = k;
    return n;
}

static float least_loss(const struct search *x, const uint32_t *kinds, uint32_t n)
{
    uint32_t upto = 0;
    clear(sums_of(x, 0, 0), ENDS * width(x), 0);
    for (uint32_t m = 0; m < n; m++) {
        uint32_t all = all_devices(x, kinds[m]), most = 0;
        clear(sums_of(x, m + 1, 0), ENDS * width(x), INFINITY);
        for (uint32_t own = 0; own < ENDS; own++) {
            uint32_t of_own = x->joint->most[node_index(x, kinds[m], all, own)];
            most = of_own > most ? of_own : most;
            for (uint32_t ends = 0; ends < ENDS; ends++)
                if ((own & ends) == own)
                    add(sums_of(x, m + 1, ends), sums_of(x, m, ends & ~own), upto, of_node(x, kinds[m], all, own), of_own, x->n);
        }
        upto = upto + most < x->n ? upto + most : x->n;
    }
    return sums_of(x, n, HAS_FIRST | HAS_LAST)[x->n];
}

double search_joint_us(struct search *x, uint64_t set)
{
    uint32_t kinds[PLAN_MAX_NODES] = {0}, n = find_members(x, set, kinds);
    return x->joint->before[x->n] + least_loss(x, kinds, n) - x->joint->scale * SEARCH_FLOAT_SLACK;
}

/* What made a sum: so many layers of `losses` with such ends, the rest of `others`. Both are [ends][layers]. */
struct share {
    uint32_t layers, ends;
};

static struct share find_share(const struct search *x, float sum, const float *others, const float *losses, uint32_t layers, uint32_t ends)
{
    for (uint32_t own = 0; own < ENDS; own++)
        for (uint32_t i = 1; i <= layers && (own & ends) == own; i++)
            if (others[(ends & ~own) * width(x) + layers - i] + losses[own * width(x) + i] == sum)
                return (struct share){i, own};
    return (struct share){0, 0};
}

static void want_node(struct search *x, uint32_t kind, uint32_t layers, uint32_t ends)
{
    for (uint32_t devices = all_devices(x, kind); devices && layers > 0; devices &= devices - 1) {
        uint32_t d = x->s->kinds[kind].first_device + (uint32_t)__builtin_ctz(devices), others = devices & (devices - 1);
        float loss = of_node(x, kind, devices, ends)[layers];
        if (of_node(x, kind, others, ends)[layers] == loss)
            continue;
        struct share own = find_share(x, loss, of_node(x, kind, others, 0), of_device(x, d, 0), layers, ends);
        uint32_t first = x->joint->begin[of_device(x, d, own.ends) + own.layers - x->joint->device];
        for (uint32_t l = first; l < first + own.layers; l++)
            x->prices->surplus[l]--;
        layers -= own.layers;
        ends &= ~own.ends;
    }
}

double search_want_joint(struct search *x, uint64_t set)
{
    uint32_t kinds[PLAN_MAX_NODES] = {0}, n = find_members(x, set, kinds), layers = x->n, ends = HAS_FIRST | HAS_LAST;
    search_use_joint(x);
    float loss = least_loss(x, kinds, n);
    for (uint32_t m = n; m > 0 && loss < INFINITY; m--) {
        uint32_t all = all_devices(x, kinds[m - 1]);
        struct share own = find_share(x, sums_of(x, m, ends)[layers], sums_of(x, m - 1, 0), of_node(x, kinds[m - 1], all, 0), layers, ends);
        want_node(x, kinds[m - 1], own.layers, own.ends);
        layers -= own.layers;
        ends &= ~own.ends;
    }
    return x->prices->before[x->n] + loss;
}

/* --- what is left ---------------------------------------------------------------------------------------------------------- */

void search_find_joint_rests(struct search *x, uint64_t within)
{
    struct search_members m = {.n = 0};
    float *rests = x->joint ? x->joint->rests : NULL;
    uint16_t *upto = rests ? search_take(x, x->full + 1, sizeof *upto) : NULL; /* layers that a set can take */
    x->joint_rests = upto != NULL;
    if (upto)
        clear(rests, 2 * width(x), 0);
    for (uint64_t set = 1; upto && set <= x->full; set++) {
        if (x->singles && set & ~within)
            continue;
        search_next_set(x, set, &m);
        uint32_t k = m.kinds[0], all = all_devices(x, k), most = x->joint->most[node_index(x, k, all, 0)], most_last = x->joint->most[node_index(x, k, all, HAS_LAST)];
        uint64_t others = set - x->strides[k];
        const float *from = rests + others * 2 * width(x);
        float *to = rests + set * 2 * width(x);
        clear(to, 2 * width(x), INFINITY);
        add(to, from, upto[others], of_node(x, k, all, 0), most, x->n);
        add(to + width(x), from + width(x), upto[others], of_node(x, k, all, 0), most, x->n);
        add(to + width(x), from, upto[others], of_node(x, k, all, HAS_LAST), most_last, x->n);
        most = upto[others] + (most > most_last ? most : most_last);
        upto[set] = (uint16_t)(most < x->n ? most : x->n);
    }
}

double search_joint_rest_us(const struct search *x, uint64_t used, uint32_t kind, uint32_t mask, uint32_t from)
{
    const struct search_joint *j = x->joint;
    uint32_t left = x->n - from, unused = all_devices(x, kind) & ~mask;
    const float *rests = j->rests + ((x->full - used) * 2 + 1) * width(x);
    float least = rests[left];
    if (unused && used == x->full) {
        least = of_node(x, kind, unused, HAS_LAST)[left];
    } else if (unused) {
        const float *own = of_node(x, kind, unused, 0);
        uint32_t most = j->most[node_index(x, kind, unused, 0)];
        for (uint32_t i = 1; i <= most && i <= left; i++)
            least = own[i] + rests[left - i] < least ? own[i] + rests[left - i] : least;
    }
    return j->before[x->n] - j->before[from] + least - j->scale * SEARCH_FLOAT_SLACK;
}
