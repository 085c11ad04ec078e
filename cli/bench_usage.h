#ifndef CLI_BENCH_USAGE_H
#define CLI_BENCH_USAGE_H

/* What the stages of a pipeline did while something was measured: how long each computed, in how many steps, of how many rows.
 * The busiest one's share of the time is how near the pipeline was to saturation: with steps of b rows that take it t, it
 * cannot give more than b / t rows a second. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/engine.h"

enum { BENCH_STAGES = 64, BENCH_NAME = 64 };

struct bench_usage {
    uint32_t n;
    struct bench_stage {
        char node[BENCH_NAME];
        int first, last; /* layers, both included */
        double busy_us, steps, rows;
    } stages[BENCH_STAGES];
};

/* What they have done so far. Without an engine: no stages. */
void bench_usage_read(struct engine *e, struct bench_usage *ret);
/* *ret becomes what was done since `before`; nothing when the pipeline is another one by now. */
void bench_usage_since(struct engine *e, const struct bench_usage *before, struct bench_usage *ret);
/* The busiest stage's share of so many seconds. */
double bench_usage_saturation(const struct bench_usage *u, double seconds);
/* As members of a JSON object, with a comma before the first: "saturation", "stages"; or as sentences on stderr. */
void bench_usage_json(const struct bench_usage *u, double seconds);
void bench_usage_say(const struct bench_usage *u, double seconds);

#endif
