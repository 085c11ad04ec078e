/* For comparison: Sarathi-Serve. A step holds a fixed number of tokens: the even share of decode rows first, the rest is for
 * prompts; as many steps under way as stages. */
#include "sched/policy.h"

static void plan_sarathi(const struct policy_view *v, struct policy_plan *ret)
{
    uint32_t budget = v->fixed_rows < v->max_rows ? v->fixed_rows : v->max_rows;
    struct load load;
    ret->in_flight = v->costs->n_stages < v->max_in_flight ? v->costs->n_stages : v->max_in_flight;
    ret->decode_rows = policy_share(v, ret->in_flight);
    ret->prompt_rows = budget > ret->decode_rows ? budget - ret->decode_rows : 1;
    load = policy_load(v, ret->decode_rows, 0);
    ret->mixed_rows = 0;
    ret->limit_ns = 0;
    ret->cycle_ns = cost_cycle_ns(v->costs, &load, ret->in_flight);
}

const struct policy policy_sarathi = {
    .name = "sarathi",
    .help = "a fixed number of rows in every step, decode rows first (Sarathi-Serve)",
    .plan = plan_sarathi,
};
