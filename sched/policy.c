/* The table of policies, and what they share. */
#include "sched/policy.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "sched/sched.h"

static const struct policy *const policies[] = {&policy_balanced, &policy_depth, &policy_sarathi, &policy_throttle};
enum { N_POLICIES = sizeof policies / sizeof *policies };

const char *sched_policies(size_t i, const char **ret_help)
{
    if (i >= N_POLICIES)
        return NULL;
    if (ret_help)
        *ret_help = policies[i]->help;
    return policies[i]->name;
}

const struct policy *policy_find(const char *name, struct err *err)
{
    char known[128] = "";
    if (!name)
        return policies[0];
    for (size_t i = 0; i < N_POLICIES; i++) {
        size_t len = strlen(known);
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
        snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", policies[i]->name);
    }
    err_set(err, ERR_USAGE, "scheduling policy \"%.40s\" is not known; known are %s", name, known);
    return NULL;
}

uint32_t policy_share(const struct policy_view *v, uint32_t m)
{
    return v->n_decoding == 0 ? 1 : (v->n_decoding + m - 1) / m;
}

struct load policy_load(const struct policy_view *v, uint32_t decode_rows, uint32_t prompt_rows)
{
    uint64_t each = v->n_decoding ? v->decode_ctx / v->n_decoding : 0;
    uint64_t pos = v->prompt_pos + (uint64_t)prompt_rows;
    return (struct load){
        .rows = decode_rows + prompt_rows,
        .wanted = decode_rows,
        .ctx = decode_rows * each + (prompt_rows ? pos : 0),
        .attn = decode_rows * each + prompt_rows * pos,
    };
}

/* X(m) = N / cycle(m): the least cycle wins. Of those within 2% of it the smallest that keeps the slowest stage computing: where
 * reading the weights is all that a step costs, one step of all rows gives as many tokens a second as p steps of a p-th each,
 * but leaves every stage idle for the others' time, with nothing in hand when a hop is slow for once. If none does, simply the
 * smallest. */
uint32_t policy_best_in_flight(const struct policy_view *v)
{
    uint64_t cycle[SCHED_MAX_IN_FLIGHT + 1], busy[SCHED_MAX_IN_FLIGHT + 1], best = UINT64_MAX;
    uint32_t max = v->max_in_flight < v->n_decoding ? v->max_in_flight : v->n_decoding, smallest = 0;
    if (max <= 1)
        return 1;
    for (uint32_t m = 1; m <= max; m++) {
        struct load load = policy_load(v, policy_share(v, m), 0);
        cycle[m] = load.rows > v->max_rows ? UINT64_MAX : cost_cycle_ns(v->costs, &load, m);
        busy[m] = m * cost_max_ns(v->costs, &load);
        best = cycle[m] < best ? cycle[m] : best;
    }
    for (uint32_t m = 1; m <= max; m++) {
        if (cycle[m] == UINT64_MAX || cycle[m] - best > best / 50)
            continue;
        if (busy[m] >= cycle[m] - cycle[m] / 20)
            return m;
        smallest = smallest ? smallest : m;
    }
    return smallest ? smallest : max;
}
