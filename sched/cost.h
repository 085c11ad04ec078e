#ifndef SCHED_COST_H
#define SCHED_COST_H

/* What steps cost: the model of sched.h, corrected by what was measured. For every stage and power of two of rows the ratio of
 * measured to modelled time is kept (a moving mean); between two powers it is interpolated, beyond the measured ones the
 * nearest holds. So the model gives the shape where nothing was measured, and the stage's own clock the truth where it was.
 * When a ratio moves, a stage's others move with it: what makes one kind of step slower (a busy machine, a lower clock) does so
 * with all, and a kind that has not been tried for a while would otherwise be judged by times long past. With each measurement of
 * another kind it also comes a 64th closer to that one, so that a size of steps that once did badly, for whatever reason, is tried
 * again. */

#include <stdbool.h>
#include <stdint.h>

#include "sched/sched.h"

enum { COST_BUCKETS = 14, COST_ONE = 1 << 12, COST_DRIFT = COST_ONE / 32 };

/* What the costs of a step depend on. */
struct load {
    uint32_t rows;
    uint32_t wanted; /* of those, whose logits are asked for: what the output head computes */
    uint64_t ctx;  /* sum over its sequences of the positions they look at */
    uint64_t attn; /* sum over its rows of the same */
};

struct costs {
    uint32_t n_stages;
    struct sched_costs base;
    uint32_t ratio[SCHED_MAX_STAGES][COST_BUCKETS]; /* in 1 / COST_ONE; 0: not measured */
    uint32_t own[SCHED_MAX_STAGES][COST_BUCKETS];     /* the same, but moved by measurements of its own kind alone */
    uint32_t planned[SCHED_MAX_STAGES][COST_BUCKETS]; /* what ratio was when the version last grew */
    uint64_t version; /* grows when a prediction may have changed */
};

void costs_set(struct costs *c, uint32_t n_stages, const struct sched_costs *base);
void costs_measured(struct costs *c, uint32_t stage, const struct load *load, uint64_t us);

uint64_t cost_stage_ns(const struct costs *c, uint32_t stage, const struct load *load);
/* The slowest stage's time. */
uint64_t cost_max_ns(const struct costs *c, const struct load *load);
/* Once through all stages [0, stop] and back, hops included. */
uint64_t cost_through_ns(const struct costs *c, const struct load *load);
/* Time between two visits of a step to the same stage with m such steps under way: max(m · t_max, Σt + Σh). */
uint64_t cost_cycle_ns(const struct costs *c, const struct load *load, uint32_t m);
/* The same of steps as they were when they were last measured, or at most COST_DRIFT more. What other kinds of steps have said since
 * then is not believed beyond that: else prompts that take longer than foreseen would stretch the measure that they are held to. */
uint64_t cost_settled_cycle_ns(const struct costs *c, const struct load *load, uint32_t m);

#endif
