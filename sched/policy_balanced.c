/* The default. Decoding: the number of steps under way that gives most tokens a second (SCHEDULING.md's formula 3), decode rows
 * split evenly among them. Prompts alone: uniform chunks of the size that finishes what waits soonest (formula 5, with the
 * measured times of uneven stages in place of the closed form). Both: as many prompt rows beside the decode rows as keep the
 * predicted cycle within the stretch limit, with the number of steps that then computes most rows a second; the core lowers that
 * where it foresees that a single step would become too long (forecast.h). */
#include "sched/policy.h"

/* Kernels unpack weights once a step and for all of its rows, so that a step's first rows cost more than the linear model says:
 * as much as some rows more, whatever the instruction set (docs/performance.md: 35 GMAC/s at 1 row, 75 at 8, 88 at 512). Without
 * that the model would see no harm in chunks of a few rows, and would never measure others. */
enum { CHUNK_OVERHEAD_ROWS = 8 };

/* Time until n prompt rows in chunks of c are through: Σt + Σh for the first, t_max for each of the others. */
static uint64_t prompt_time(const struct policy_view *v, uint64_t n, uint32_t c)
{
    struct load load = policy_load(v, 0, c + CHUNK_OVERHEAD_ROWS);
    return cost_through_ns(v->costs, &load) + ((n + c - 1) / c - 1) * cost_max_ns(v->costs, &load);
}

static uint32_t best_chunk(const struct policy_view *v)
{
    uint64_t n = v->prompt_rows, best_time = UINT64_MAX;
    uint32_t best = 1, most = n < v->max_rows ? (uint32_t)n : v->max_rows;
    /* Whole chunks only, of whole tiles unless all goes at once, from the largest down in steps of about an eighth: among equals the
     * fewest steps. */
    for (uint32_t c = most; c > 0; c -= (c + 7) / 8) {
        uint64_t time;
        c = c > POLICY_TILE && c < n ? c / POLICY_TILE * POLICY_TILE : c;
        time = prompt_time(v, n, c);
        if (time < best_time) {
            best_time = time;
            best = c;
        }
        if (c == 1)
            break;
    }
    return best;
}

/* The most prompt rows that m steps can each have within the limit. */
static uint32_t rows_within(const struct policy_view *v, uint32_t m, uint64_t limit_ns)
{
    uint32_t share = policy_share(v, m), lo = 0, hi = share < v->max_rows ? v->max_rows - share : 0;
    if (hi > v->prompt_rows)
        hi = (uint32_t)v->prompt_rows;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        struct load load = policy_load(v, share, mid);
        if (cost_cycle_ns(v->costs, &load, m) <= limit_ns)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* The usual cycle, which prompts may stretch: that of the answers that run or, beside several prompts (requests that came together), of
 * as many answers as there will be when they are read. Otherwise the first ones that are read would hold up all others to steps of a few
 * rows. */
static uint64_t usual_cycle_ns(const struct policy_view *v, const struct policy_plan *plan)
{
    struct policy_view later = *v;
    struct load load;
    if (v->n_prompting <= 1) {
        load = policy_load(v, plan->decode_rows, 0);
        return cost_settled_cycle_ns(v->costs, &load, plan->in_flight);
    }
    later.n_decoding += v->n_prompting;
    later.decode_ctx = v->decode_ctx / v->n_decoding * later.n_decoding;
    load = policy_load(&later, policy_share(&later, plan->in_flight), 0);
    return cost_settled_cycle_ns(v->costs, &load, plan->in_flight);
}

static void mix(const struct policy_view *v, struct policy_plan *plan)
{
    uint64_t limit = usual_cycle_ns(v, plan) * v->stretch_percent / 100, best_rate = 0;
    bool in_hand = false; /* a step always waits where the slowest stage is */
    limit = limit * COST_ONE / v->hand;
    plan->limit_ns = limit;
    for (uint32_t m = 1; m <= v->max_in_flight; m++) {
        uint32_t c = rows_within(v, m, limit);
        struct load load = policy_load(v, policy_share(v, m), c);
        uint64_t cycle = cost_cycle_ns(v->costs, &load, m), work = v->n_decoding + (uint64_t)m * c;
        uint64_t rate = work * 1000000000 / (cycle ? cycle : 1); /* rows a thousand seconds would be too coarse for */
        bool saturated = m * cost_max_ns(v->costs, &load) >= cycle;
        if (c > 0 && (rate > best_rate + best_rate / 50 || (saturated && !in_hand && rate + rate / 50 > best_rate))) {
            best_rate = rate;
            in_hand = saturated;
            plan->in_flight = m;
            plan->prompt_rows = c;
        }
    }
    if (best_rate == 0)
        plan->prompt_rows = 1; /* a limit that allows nothing would starve them */
    /* Steps are even by their sum: so decode rows need not be, and none waits for the next step. */
    plan->decode_rows = plan->mixed_rows = policy_share(v, plan->in_flight) + plan->prompt_rows;
}

static void plan_balanced(const struct policy_view *v, struct policy_plan *ret)
{
    struct load load;
    ret->in_flight = policy_best_in_flight(v);
    ret->decode_rows = policy_share(v, ret->in_flight);
    ret->prompt_rows = ret->mixed_rows = 0;
    ret->limit_ns = 0;
    load = policy_load(v, ret->decode_rows, 0);
    ret->cycle_ns = cost_cycle_ns(v->costs, &load, ret->in_flight);
    if (v->prompt_rows == 0)
        return;
    if (v->n_decoding == 0) {
        ret->in_flight = v->max_in_flight;
        ret->prompt_rows = best_chunk(v);
        return;
    }
    mix(v, ret);
}

/* Reading n prompts one after another without answers beside them gives all of them their first token when the last one is read; beside
 * the answers of those that are read, the average one comes when half of the rest is. The share of that time which makes the first
 * way the better one is less than one: first tokens come later on average then, but the last ones, and all that follows, sooner. */
enum { GATHER_PERCENT = 75, GATHER_FEW = 4 };

static bool gathers(const struct policy_view *v, uint32_t length, uint64_t limit_ns)
{
    uint32_t n = v->n_prompting, enough = n < GATHER_FEW ? n : GATHER_FEW;
    uint64_t alone_ns = prompt_time(v, v->prompt_rows, best_chunk(v)), beside_ns;
    struct policy_view half = *v;
    struct policy_plan plan = {0};
    struct load load;
    if (alone_ns > limit_ns && n * limit_ns / alone_ns < enough)
        return false;
    half.n_decoding = n / 2;
    half.decode_ctx = (uint64_t)half.n_decoding * length;
    half.n_prompting = n - half.n_decoding;
    half.hand = HAND_MOST;
    plan.in_flight = policy_best_in_flight(&half);
    plan.decode_rows = policy_share(&half, plan.in_flight);
    mix(&half, &plan);
    load = policy_load(&half, policy_share(&half, plan.in_flight), plan.prompt_rows);
    beside_ns = cost_cycle_ns(v->costs, &load, plan.in_flight) / (plan.in_flight * plan.prompt_rows) * v->prompt_rows;
    return alone_ns <= beside_ns / 100 * GATHER_PERCENT;
}

const struct policy policy_balanced = {
    .name = "balanced",
    .help = "steps under way and prompt rows by measured times, within the stretch limit of running answers",
    .plan = plan_balanced,
    .gathers = gathers,
};
