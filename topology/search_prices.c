/* A bound from what every layer is worth (Lagrange's; see docs/planning.md). Let each layer have a price, and let every device take the
 * one range of layers on which it loses least, or gains most: its time for the range less what the range is worth. The prices of all
 * layers, and all devices' losses, are together no more than what any chain takes that uses these devices, whatever the prices are.
 * Prices at which devices want each layer about once make the bound sharp: unlike shares that are split at will, ranges are whole,
 * each has the time that it takes, and not everybody can have the layers that suit him. Hops are counted beside it. */
#include "topology/search.h"

#include <math.h>
#include <string.h>

enum { PATIENCE = 6, RANGES_MAX = 1 << 22 }; /* patience: steps without a better bound before they are halved */
enum { HALF = 8, HALF_MASK = (1 << HALF) - 1 };
static const double SUMS_SLACK = 1e-10;

/* False: no memory, or too many ranges for it to be worth it. */
static bool allocate(struct search *x, struct search_prices *p)
{
    size_t n = x->n, devices = x->s->n_devices, ranges = 0;
    p->at = search_take(x, devices * n, sizeof *p->at);
    p->upto = search_take(x, devices * n, sizeof *p->upto);
    for (size_t i = 0; i < devices * n && !x->failed; i++) {
        p->at[i] = ranges;
        p->upto[i] = (uint16_t)(x->covers ? x->forward[i / n][i % n] : search_furthest(x, (uint32_t)(i / n), (uint32_t)(i % n)));
        ranges += p->upto[i] - i % n;
    }
    if (ranges > RANGES_MAX)
        return false;
    p->us = search_take(x, ranges, sizeof *p->us);
    p->price = search_take(x, n, sizeof *p->price);
    p->kept = search_take(x, n, sizeof *p->kept);
    p->before = search_take(x, n + 1, sizeof *p->before);
    p->surplus = search_take(x, n, sizeof *p->surplus);
    p->loss = search_take(x, (n + 1) * x->s->n_kinds, sizeof *p->loss);
    p->device_loss = search_take(x, (n + 1) * devices, sizeof *p->device_loss);
    if (x->singles && x->s->n_kinds <= 2 * HALF)
        p->losses = search_take(x, (n + 1) << (HALF + 1), sizeof *p->losses);
    return !x->failed;
}

/* What the fastest devices that hold all layers would pay for the last of them. */
static void first_prices(struct search *x)
{
    double left = 1, price = 0;
    for (uint32_t i = 0; i < x->n_own_items && left > 0; i++) {
        left -= x->own_items[i].capacity;
        price = x->own_items[i].price;
    }
    for (uint32_t l = 0; l < x->n; l++)
        x->prices->price[l] = price * (x->share[l + 1] - x->share[l]);
}

/* With the head, without the least that it takes where the stage is: that is counted by itself. */
static double last_us(const struct search *x, uint32_t d, uint32_t first)
{
    uint32_t k = x->s->devices[d].kind;
    return x->end_us[k] < INFINITY ? search_least_stage_us(x, d, first, x->n) - (x->end_us[k] - x->home_us[k]) : INFINITY;
}

void search_price_ends(struct search *x)
{
    struct search_prices *p = x->prices;
    for (uint32_t d = 0; d < x->s->n_devices; d++)
        for (uint32_t first = 0; first < x->n; first++)
            if (p->upto[d * x->n + first] == x->n)
                p->us[p->at[d * x->n + first] + x->n - first - 1] = last_us(x, d, first);
}

void search_make_prices(struct search *x)
{
    struct search_prices *p = search_take(x, 1, sizeof *p);
    if (x->failed || !allocate(x, p))
        return;
    for (uint32_t d = 0; d < x->s->n_devices; d++)
        for (uint32_t first = 0; first < x->n; first++) {
            double *us = p->us + p->at[d * x->n + first];
            for (uint32_t last = first + 1; last <= p->upto[d * x->n + first] && last < x->n; last++)
                us[last - first - 1] = search_least_stage_us(x, d, first, last);
        }
    x->prices = p;
    search_price_ends(x);
    first_prices(x);
}

struct range {
    uint32_t first, last;
    double loss;
};

static double least_loss(const double *us, const double *before, uint32_t n)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        double loss = us[i] - before[i];
        least = loss < least ? loss : least;
    }
    return least;
}

static void find_range(const struct search *x, uint32_t d, struct range *ret)
{
    const struct search_prices *p = x->prices;
    *ret = (struct range){.loss = INFINITY};
    for (uint32_t first = 0; first < x->n; first++) {
        const double *us = p->us + p->at[d * x->n + first], *before = p->before + first + 1;
        uint32_t n = p->upto[d * x->n + first] - first, i = 0;
        double least = least_loss(us, before, n);
        if (least + p->before[first] >= ret->loss)
            continue;
        while (us[i] - before[i] > least)
            i++;
        *ret = (struct range){first, first + 1 + i, least + p->before[first]};
    }
}

static void want(struct search_prices *p, const struct range *r, uint32_t times)
{
    for (uint32_t l = r->first; l < r->last; l++)
        p->surplus[l] -= times;
}

/* A node has at least one stage; more where that gains. Several members of a kind want the same. */
static double kind_loss(struct search *x, uint32_t k, uint32_t times)
{
    const struct space_kind *kind = &x->s->kinds[k];
    struct range least = {.loss = INFINITY}, r;
    double sum = 0;
    for (uint32_t i = 0; i < kind->n_devices; i++) {
        find_range(x, kind->first_device + i, &r);
        if (r.loss < 0) {
            sum += r.loss;
            want(x->prices, &r, times);
        }
        if (r.loss < least.loss)
            least = r;
    }
    if (least.loss < 0)
        return times * sum;
    if (least.loss < INFINITY)
        want(x->prices, &least, times);
    return times * least.loss;
}

static double want_all(struct search *x, uint64_t set)
{
    double bound = x->prices->before[x->n];
    for (uint32_t k = 0; k < x->s->n_kinds; k++) {
        uint32_t times = search_count(x, set, k);
        bound += times ? kind_loss(x, k, times) : 0;
    }
    return bound;
}

static void sum_prices(const struct search *x)
{
    struct search_prices *p = x->prices;
    for (uint32_t l = 0; l < x->n; l++)
        p->before[l + 1] = p->before[l] + p->price[l];
}

/* Steps along the surplus, as far as a bound of target_us would be if it were a straight way there. */
double search_better_prices(struct search *x, uint64_t set, double target_us, int steps, bool joint)
{
    struct search_prices *p = x->prices;
    double best = -INFINITY, stride = 1;
    for (int i = 0, idle = 0; i < steps && best < target_us; i++) {
        double bound, square = 0;
        sum_prices(x);
        for (uint32_t l = 0; l < x->n; l++)
            p->surplus[l] = 1;
        bound = joint ? search_want_joint(x, set) : want_all(x, set);
        if (bound == INFINITY)
            return bound;
        if (bound > best) {
            best = bound;
            idle = 0;
            memcpy(p->kept, p->price, x->n * sizeof *p->price);
        } else if (++idle > PATIENCE) {
            stride /= 2;
            idle = 0;
            memcpy(p->price, p->kept, x->n * sizeof *p->price);
            continue;
        }
        for (uint32_t l = 0; l < x->n; l++)
            square += p->surplus[l] * p->surplus[l];
        if (square == 0)
            break;
        for (uint32_t l = 0; l < x->n; l++)
            p->price[l] += stride * ((target_us < INFINITY ? target_us : 2 * fabs(bound)) - bound) / square * p->surplus[l];
    }
    memcpy(p->price, p->kept, x->n * sizeof *p->price);
    return best;
}

static void sum_losses(const struct search *x)
{
    uint32_t n_kinds = x->s->n_kinds;
    for (uint32_t l = 0; l <= x->n; l++)
        for (uint32_t half = 0; half < 2; half++) {
            double *sums = x->prices->losses + (((size_t)l << 1 | half) << HALF);
            const double *loss = x->prices->loss + (size_t)l * n_kinds + half * HALF;
            uint32_t n = n_kinds <= half * HALF ? 0 : n_kinds - half * HALF < HALF ? n_kinds - half * HALF : HALF;
            for (uint32_t set = 1; set < 1u << n; set++)
                sums[set] = sums[set & (set - 1)] + loss[__builtin_ctz(set)];
        }
}

void search_use_prices(struct search *x)
{
    struct search_prices *p = x->prices;
    uint32_t devices = x->s->n_devices, n_kinds = x->s->n_kinds;
    double all = 0;
    sum_prices(x);
    for (uint32_t d = 0; d < devices; d++) {
        p->device_loss[x->n * devices + d] = INFINITY;
        for (uint32_t l = x->n; l-- > 0;) {
            uint32_t n = p->upto[d * x->n + l] - l;
            double loss = least_loss(p->us + p->at[d * x->n + l], p->before + l + 1, n) + p->before[l];
            p->device_loss[l * devices + d] = fmin(loss, p->device_loss[(l + 1) * devices + d]);
        }
    }
    for (uint32_t l = 0; l <= x->n; l++)
        for (uint32_t k = 0; k < n_kinds; k++) {
            double sum = 0, least = INFINITY;
            for (uint32_t i = 0; i < x->s->kinds[k].n_devices; i++) {
                double loss = p->device_loss[l * devices + x->s->kinds[k].first_device + i];
                sum += fmin(loss, 0);
                least = fmin(least, loss);
            }
            p->loss[l * n_kinds + k] = least < 0 ? sum : least;
            if (l == 0 && least < INFINITY)
                all += x->s->kinds[k].n_members * fabs(p->loss[k]);
        }
    for (uint32_t l = 0; l < x->n; l++)
        all += fabs(p->price[l]);
    p->scale = all;
    if (p->losses)
        sum_losses(x);
}

double search_priced_stage_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q)
{
    const struct search_prices *prices = x->prices;
    return prices->us[prices->at[d * x->n + p] + q - p - 1];
}

double search_priced_us(const struct search *x, uint64_t used, uint32_t from)
{
    const struct search_prices *p = x->prices;
    const double *loss = p->loss + (size_t)from * x->s->n_kinds;
    double us = p->before[x->n] - p->before[from] - p->scale * SUMS_SLACK;
    if (p->losses) {
        const double *sums = p->losses + ((size_t)from << (HALF + 1));
        uint64_t left = x->full - used;
        return us + sums[left & HALF_MASK] + sums[(1 << HALF) + (left >> HALF)];
    }
    for (uint32_t k = 0; k < x->s->n_kinds; k++) {
        uint32_t times = x->s->kinds[k].n_members - search_count(x, used, k);
        us += times ? times * loss[k] : 0;
    }
    return us;
}

double search_priced_own_us(const struct search *x, uint32_t kind, uint32_t mask, uint32_t from)
{
    const struct space_kind *k = &x->s->kinds[kind];
    double us = 0;
    for (uint32_t i = 0; i < k->n_devices; i++)
        if (!(mask >> i & 1))
            us += fmin(x->prices->device_loss[(size_t)from * x->s->n_devices + k->first_device + i], 0);
    return us;
}
