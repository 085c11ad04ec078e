#ifndef COORDINATOR_ACTIVITY_H
#define COORDINATOR_ACTIVITY_H

/* What the pipeline did: sums for /v1/cluster and /metrics, and while somebody looks (the page) a ring of the last steps, each
 * with its times at every stage. The engine's thread tells; activity_write may be called from any thread and takes nothing
 * from the engine's but a lock around a copy. When nobody has looked for ACTIVITY_LOOK_MS, nothing is recorded.
 *
 * All times are of the coordinator's clock: whoever tells has taken a node's offset off. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "sched/sched.h"

enum {
    ACTIVITY_STAGES = SCHED_MAX_STAGES,
    ACTIVITY_RECORDS = 8192,                 /* remembered; half a second of the busiest pipeline, many seconds of a usual one */
    ACTIVITY_FLIGHTS = SCHED_MAX_IN_FLIGHT * 2, /* whose times are kept until all stages have told theirs */
    ACTIVITY_LOOK_MS = 5000,
};

enum activity_kind {
    ACTIVITY_SENT,   /* a step went out */
    ACTIVITY_STAGE,  /* a stage computed it */
    ACTIVITY_LANDED, /* its result is there */
    ACTIVITY_BEGUN,  /* an epoch: batch is its number, rows its stages */
    ACTIVITY_BROKEN, /* it is over; what was under way is lost */
};

struct activity_record {
    uint64_t batch;
    int64_t at_us;                 /* of a stage: when the step had come whole */
    int64_t started_us, ended_us;  /* of a stage */
    uint64_t bytes;                /* that a stage sent on */
    uint32_t rows, wanted;         /* wanted: rows whose logits are asked for */
    uint32_t stage;
    enum activity_kind kind;
};

/* Of one epoch. What a stage does not compute while batches are under way is the pipeline's bubble. */
struct activity_stage {
    uint64_t batches, rows, bytes;
    int64_t compute_us; /* computing */
    int64_t queued_us;  /* steps had come, and waited */
    int64_t wire_us;    /* steps on their way here; of the last one also on their way back, in the place behind it */
    double hop_us;      /* moving average of such a way */
};

/* How things stand, for whoever looks. */
struct activity_now {
    int64_t now_us;
    const char *state;
    uint64_t epoch, events, tokens;
    uint32_t open, running, waiting, in_flight, in_flight_wanted;
    uint32_t blocks_used, blocks_cached, blocks_free;
};

struct activity_flight {
    uint64_t batch; /* 0: free */
    int64_t came_us[ACTIVITY_STAGES + 1], went_us[ACTIVITY_STAGES + 1]; /* went[0]: from us; came[n]: back here. 0: not told yet */
};

struct activity {
    uint32_t n_stages;
    struct activity_stage stages[ACTIVITY_STAGES + 1]; /* [n_stages]: only the way back */
    struct activity_flight *flights;                   /* by batch % ACTIVITY_FLIGHTS */
    uint32_t in_flight;
    int64_t busy_since_us, busy_us; /* something is, was under way */

    _Atomic int64_t looked_us; /* 0: nobody ever has */
    pthread_mutex_t lock;
    struct activity_record *ring; /* NULL until somebody looks */
    uint64_t n_records;
    struct activity_now now;
};

int activity_init(struct activity *a, struct err *err);
void activity_fini(struct activity *a);

/* --- told by the engine's thread; now_us is its clock --- */
void activity_begun(struct activity *a, uint64_t epoch, uint32_t n_stages, int64_t now_us);
void activity_broken(struct activity *a, int64_t now_us);
void activity_sent(struct activity *a, uint64_t batch, uint32_t rows, uint32_t wanted, int64_t now_us);
void activity_stage_done(struct activity *a, const struct activity_record *r, int64_t now_us);
void activity_landed(struct activity *a, uint64_t batch, int64_t now_us);
bool activity_is_watched(const struct activity *a, int64_t now_us);
void activity_set_now(struct activity *a, const struct activity_now *now);
/* So long something has been under way in this epoch. */
int64_t activity_busy_us(const struct activity *a, int64_t now_us);

/* --- any thread --- */
/* Notes that somebody looks, and appends the records behind number `since` as JSON, with "cursor" to ask with next time;
 * UINT64_MAX: none, only the cursor. Times are told in µs since base_us. docs/api.md has the form. */
int activity_write(struct activity *a, uint64_t since, int64_t now_us, int64_t base_us, struct strbuf *out, struct err *err);

#endif
