/* For comparison: as many steps under way as there are stages, all ready rows in the next one, prompts up to a fixed number of
 * rows. So does vLLM with pipeline parallelism. */
#include "sched/policy.h"

static void plan_depth(const struct policy_view *v, struct policy_plan *ret)
{
    uint32_t budget = v->fixed_rows < v->max_rows ? v->fixed_rows : v->max_rows;
    uint32_t rows = v->n_decoding < v->max_rows ? v->n_decoding : v->max_rows;
    struct load load;
    ret->in_flight = v->costs->n_stages < v->max_in_flight ? v->costs->n_stages : v->max_in_flight;
    ret->decode_rows = rows ? rows : 1;
    ret->prompt_rows = budget;
    load = policy_load(v, policy_share(v, ret->in_flight), 0);
    ret->mixed_rows = 0;
    ret->limit_ns = 0;
    ret->cycle_ns = cost_cycle_ns(v->costs, &load, ret->in_flight);
}

const struct policy policy_depth = {
    .name = "depth",
    .help = "as many steps under way as stages, every ready row in the next, prompts by a fixed number of rows (vLLM's rule)",
    .plan = plan_depth,
};
