#ifndef SCHED_POLICY_H
#define SCHED_POLICY_H

/* A scheduling policy: how many steps to have under way, and how many rows of which kind the next one takes. Everything else
 * (blocks, tables, fences, preemption, order of prompts) is the same for all. A new policy is a file policy_x.c and a row in
 * policy.c. A policy is a pure function of the view: it keeps nothing, reads no clock. */

#include <stdbool.h>
#include <stdint.h>

#include "sched/cost.h"

/* Kernels take rows by tiles of so many, or up to POLICY_ALONE as one: a row beyond costs as much as some (docs/performance.md). The cost
 * model, which knows powers of two, does not see that. */
enum { POLICY_TILE = 16, POLICY_ALONE = 26 };

/* What the stretch limit is divided by, so that few steps in a hundred pass it, in 1 / COST_ONE. Steps take a tenth more now and then
 * on any machine that has something else to do. */
enum { HAND_LEAST = COST_ONE + COST_ONE / 10, HAND_MOST = COST_ONE * 4 / 3 };

struct policy_view {
    const struct costs *costs;
    uint32_t max_in_flight, max_rows;
    uint32_t stretch_percent, fixed_rows; /* the configuration's knobs */
    uint32_t hand;        /* HAND_LEAST … HAND_MOST */
    uint32_t n_decoding;  /* sequences that have one token a step to compute, under way or not */
    uint32_t n_prompting; /* whose prompts are being read, or that could begin to be */
    uint64_t decode_ctx;  /* sum of their positions */
    uint64_t prompt_rows; /* that wait to be dispatched, of admitted and waiting requests */
    uint32_t prompt_pos;  /* about where in their texts those rows lie */
    uint32_t kv_free_percent;
};

struct policy_plan {
    uint32_t in_flight;   /* steps under way, at least 1 */
    uint32_t decode_rows; /* of a step, at least 1 */
    uint32_t prompt_rows; /* of a step beside its decode rows; at least 1 if prompts wait */
    uint32_t mixed_rows;  /* 0, or of both together: prompts fill a step up to this; a usual one has prompt_rows of them */
    uint64_t cycle_ns;    /* predicted time between two tokens of a running answer */
    uint64_t limit_ns;    /* no prompt rows that would make it longer than this, as far as can be foreseen; 0: no limit */
};

struct policy {
    const char *name, *help;
    void (*plan)(const struct policy_view *v, struct policy_plan *ret);
    /* Whether prompts of such a length, of which none is read, are to be read before the first of them is answered, if that takes about
     * limit_ns at most. NULL: never. */
    bool (*gathers)(const struct policy_view *v, uint32_t length, uint64_t limit_ns);
};

extern const struct policy policy_balanced, policy_depth, policy_sarathi, policy_throttle;

/* NULL and err, which lists the known ones. name NULL: the first. */
const struct policy *policy_find(const char *name, struct err *err);

/* For policies. The m of 1 … max_in_flight that maximises N / max(m·t_max(N/m), Σt(N/m) + Σh), the smaller within 2%. */
uint32_t policy_best_in_flight(const struct policy_view *v);
/* An even share of the decoding sequences and the load of a step with so many of them and n prompt rows. */
uint32_t policy_share(const struct policy_view *v, uint32_t m);
struct load policy_load(const struct policy_view *v, uint32_t decode_rows, uint32_t prompt_rows);

#endif
