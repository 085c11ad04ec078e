#ifndef FRONT_METRICS_H
#define FRONT_METRICS_H

/* Counters and histograms of the front, any thread, in Prometheus' text form. */

#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/strbuf.h"

enum { METRICS_BUCKETS = 20, METRICS_STATUSES = 600 };

struct histogram {
    _Atomic uint64_t buckets[METRICS_BUCKETS + 1]; /* the last one: more than the largest bound */
    _Atomic uint64_t sum_us;
};

struct metrics {
    struct histogram first_token, between_tokens, whole_request;
    _Atomic uint64_t prompt_tokens, answer_tokens, clients_gone;
    _Atomic uint64_t answers_open; /* that wait or run, as the front counts them */
    _Atomic uint64_t replies[METRICS_STATUSES]; /* by HTTP status */
};

void metrics_observe(struct histogram *h, int64_t us);
void metrics_add(_Atomic uint64_t *counter, uint64_t n);
/* status: the engine's (engine_status), borrowed; NULL: left out. */
void metrics_write(const struct metrics *m, const json_t *status, struct strbuf *out);

#endif
