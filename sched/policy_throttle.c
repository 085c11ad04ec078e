/* For comparison: gLLM's token throttling. Decode rows are split evenly over the depth; prompt rows of a step are what waits,
 * spread over THROTTLE_STEPS steps, scaled down as free KV blocks become scarce, between a floor and the fixed number. */
#include "sched/policy.h"

enum { THROTTLE_STEPS = 8, THROTTLE_FLOOR = 32, KV_KEEP_PERCENT = 5 };

static void plan_throttle(const struct policy_view *v, struct policy_plan *ret)
{
    uint64_t rows = (v->prompt_rows + THROTTLE_STEPS - 1) / THROTTLE_STEPS;
    uint32_t most = v->fixed_rows < v->max_rows ? v->fixed_rows : v->max_rows, by_kv;
    struct load load;
    ret->in_flight = v->costs->n_stages < v->max_in_flight ? v->costs->n_stages : v->max_in_flight;
    ret->decode_rows = policy_share(v, ret->in_flight);
    by_kv = v->kv_free_percent > KV_KEEP_PERCENT ? most * (v->kv_free_percent - KV_KEEP_PERCENT) / (100 - KV_KEEP_PERCENT) : 0;
    rows = rows < by_kv ? rows : by_kv;
    rows = rows > THROTTLE_FLOOR ? rows : THROTTLE_FLOOR;
    ret->prompt_rows = rows < most ? (uint32_t)rows : most;
    load = policy_load(v, ret->decode_rows, 0);
    ret->mixed_rows = 0;
    ret->limit_ns = 0;
    ret->cycle_ns = cost_cycle_ns(v->costs, &load, ret->in_flight);
}

const struct policy policy_throttle = {
    .name = "throttle",
    .help = "even decode rows over the depth, prompt rows by waiting work and free KV (gLLM)",
    .plan = plan_throttle,
};
