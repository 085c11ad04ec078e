#ifndef CLI_BENCH_ENGINE_H
#define CLI_BENCH_ENGINE_H

/* The measurements of `bench` over a pipeline: requests through the real scheduler. Tokens are random ids, others in every
 * request, so that nothing is found in a cache; answers are greedy and do not end early. */

#include <stdint.h>

#include "base/err.h"
#include "cli/bench_usage.h"
#include "coordinator/engine.h"

struct bench_engine {
    struct engine *engine;
    uint32_t n_ids;
    int32_t (*random_token)(void *arg);
    void *arg;
    struct bench_usage usage; /* what the stages did during what was timed last */
};

/* A prompt of n tokens, until its last row's token is known. */
int bench_engine_prompt(struct bench_engine *b, uint32_t n, double *ret_seconds, struct err *err);
/* n_seq sequences that hold depth tokens each generate n more, until all are known. */
int bench_engine_generate(struct bench_engine *b, uint32_t n_seq, uint32_t n, uint32_t depth, double *ret_seconds, struct err *err);
/* n_seq requests of `prompt` tokens that arrive at once and want n more each, until the last is complete. */
int bench_engine_concurrent(struct bench_engine *b, uint32_t n_seq, uint32_t prompt, uint32_t n, double *ret_seconds, struct err *err);
/* Until the first token of a prompt of `prefix` tokens and `rest` more, and of one with the same prefix and another rest. */
int bench_engine_prefix(struct bench_engine *b, uint32_t prefix, uint32_t rest, double *ret_first, double *ret_again, struct err *err);

/* Seconds between two tokens of answers that run: while they are alone, and from when a prompt comes until it is read, which takes
 * prompt_seconds. */
struct gaps {
    double median, p99, longest;
};
struct bench_gaps {
    struct gaps before, beside, after; /* the prompt; answers have grown meanwhile, and with them what a token takes */
    struct gaps stretch;               /* beside it, as multiples of what is usual by then: on the line from before to after */
    double prompt_seconds;
};
/* n_seq answers that are running when a prompt of n tokens comes. */
int bench_engine_beside(struct bench_engine *b, uint32_t n_seq, uint32_t n, struct bench_gaps *ret, struct err *err);

#endif

