#ifndef TESTS_PIPELINE_DEVICES_H
#define TESTS_PIPELINE_DEVICES_H

/* What tests of nodes with several devices share, over rig.h: the chain of stages, and many answers at once with something that happens in
 * their middle. */

#include "tests/pipeline/rig.h"

enum { DEVICES_ANSWERS_MAX = 8, DEVICES_SLACK_BYTES = 64 << 10 }; /* more than rig_memory_for says, for what plans round up */

struct chain {
    size_t n;
    char text[256]; /* "n0/cuda:0 n0/cpu n1/cpu" */
    bool adjacent;  /* stages of one node stand side by side */
};
struct chain chain_of(struct engine *e);

/* The engine's status has this node in this state; waits at most so long. */
bool await_state(struct engine *e, const char *node, const char *state, int64_t wait_ms);

/* All answers at once are one session's, to the last token (with_top: to the last digit of the likeliest tokens' log-probabilities), within
 * so long. at: called once, in the middle of one; NULL: nothing happens. */
bool all_the_same(struct engine *e, const struct answer *answers, unsigned n, bool with_top, void (*at)(void *), void *arg, int64_t within_ms);

#endif
