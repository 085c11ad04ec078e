#ifndef SCHED_FORECAST_H
#define SCHED_FORECAST_H

/* When stages will have done what is under way: C[s][i] = max(C[s-1][i] + h, C[s][i-1]) + t_s(i) over the steps that were sent,
 * from where they are known to be. Made anew for each decision, so that errors do not add up. */

#include "sched/state.h"

struct forecast {
    uint64_t free_ns[SCHED_MAX_STAGES]; /* when each stage has nothing more to do */
    uint64_t return_ns;                 /* when the next sampled rows come back; UINT64_MAX: none are under way */
};

void forecast_make(const struct sched *s, uint64_t now_ns, struct forecast *ret);
/* A step sent at at_ns: when it comes back. The forecast then includes it. */
uint64_t forecast_send(const struct sched *s, struct forecast *f, uint64_t at_ns, const struct load *load);

#endif
