#ifndef SCHED_SCHED_H
#define SCHED_SCHED_H

/* The scheduler: which rows of which sequences the pipeline computes next, and in which blocks of the paged KV cache they lie.
 * Pure: events go in by the functions below, with the time they happened at; decisions come out of sched_poll. It reads no
 * clock, does no I/O, starts no threads, and the same events at the same times give the same decisions, bit for bit
 * (sched/trace.h records and replays them). One thread at a time: the coordinator's I/O thread owns it. docs/scheduling.md
 * tells how it decides.
 *
 * What it assumes of the pipeline, and nothing else:
 *  - every stage takes the steps of an epoch in the order of their numbers, and does one wholly before the next;
 *  - within a step a stage does all ops, then takes all table deltas, then, layer by layer, stores the keys and values of all
 *    rows before any row attends. (A prompt's rows need that of each other anyway.)
 *  - a new epoch (sched_reset) starts with no slot open on any stage; contents of blocks stay where the stage lives on.
 *
 * Memory: everything is allocated by sched_create, but for a sequence's own tokens and tables (sched_add). sched_poll,
 * sched_token and sched_step_done allocate nothing; a trace, when asked for, has its own buffer.
 *
 * Times are microseconds of any clock that does not run backwards; costs are nano- and picoseconds, so that all arithmetic
 * stays in integers. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    SCHED_MAX_STAGES = 64,
    SCHED_MAX_IN_FLIGHT = 2 * SCHED_MAX_STAGES,
    SCHED_MAX_SEQS = 4096,     /* slots */
    SCHED_MAX_WAITING = 65536, /* requests that wait for a slot */
    SCHED_MAX_ROWS = 8192,     /* of a step */
    SCHED_MAX_CTX = 1 << 22,
    SCHED_MAX_BLOCKS = 1 << 24, /* of a group */
    SCHED_MAX_BLOCK = 1024,     /* positions of a block */
    SCHED_GROUPS = 2,           /* 0: full attention, 1: sliding window; the numbers of kernels/backend.h's kv_group */
    SCHED_FULL = 0,
    SCHED_SLIDING = 1,
};

struct sched;

/* --- what things cost ---------------------------------------------------------------------------------------------------- */

/* One stage's time for a step: fixed + max(weight, start + row · rows) + max(kv · C, seq · C + attn · A) + [max(head_weight, head_start +
 * head_row · wanted rows)], where C is the sum of its sequences' contexts, A that of its rows' positions, and what is in brackets
 * counts only when rows are wanted. The first of each is bound by memory, the second by arithmetic: rows of one sequence share the
 * reading and widening of its keys and values. */
struct sched_stage_cost {
    uint64_t fixed_ns, weight_ns;
    uint64_t row_ns;
    uint64_t kv_ps;    /* a position of a sequence's context, once a step */
    uint64_t attn_ps;  /* a row times a position it looks at; 0: left out */
    uint64_t seq_ps;   /* a position of a sequence's context beyond that, for arithmetic */
    uint64_t start_ns; /* unfolding weights for the step's rows, however many */
    uint64_t head_weight_ns, head_start_ns, head_row_ns; /* of the output head; 0 where the stage has none */
};

/* From the coordinator to stage 0 (hop 0), from stage s - 1 to s (hop s), from the last stage back (hop n_stages). */
struct sched_hop_cost {
    uint64_t latency_ns, row_ns;
};

struct sched_costs {
    struct sched_stage_cost stage[SCHED_MAX_STAGES];
    struct sched_hop_cost hop[SCHED_MAX_STAGES + 1];
};

struct sched_config {
    const char *policy; /* NULL: "balanced"; sched_policies lists them. Copied. */
    uint32_t n_stages;
    uint32_t max_seqs;    /* slots: sequences with KV at once */
    uint32_t max_waiting; /* requests that wait beside them; 0: 1024 */
    uint32_t max_rows;    /* of a step; at least max_seqs is wise, not needed */
    uint32_t max_wanted;  /* rows of a step that want something; 0: max_rows */
    uint32_t ctx;         /* positions of a sequence */
    uint32_t block;       /* positions of a block: KV_BLOCK */
    uint32_t n_blocks[SCHED_GROUPS]; /* logical blocks; 0: no layer is in this group. The smallest count of all stages. */
    uint32_t window;                 /* positions that sliding layers see, the own one included; 0 without a sliding group */
    uint32_t max_in_flight;          /* steps; 0: n_stages + 2 */
    uint32_t stretch_percent;        /* how long a running answer's step may become because of prompts, of its usual; 0: 200 */
    uint32_t prompt_rows;            /* policies with a fixed budget: rows of a step; 0: 512 */
    uint32_t gather_ms;              /* how long requests that came together may be held for one another's prompts; 0: never */
    uint32_t growth;                 /* positions a sequence must be able to grow when it is admitted; 0: 256 */
    uint64_t seed;                   /* keys the hash of blocks: take it from a random source, the trace records it */
    struct sched_costs costs;
};

/* Checks everything and names what is wrong, with the known policies if it is the policy. NULL and err on error. */
struct sched *sched_create(const struct sched_config *config, struct err *err);
void sched_destroy(struct sched *s); /* takes NULL */

/* Names of the policies, in order; NULL past the last. *ret_help, if not NULL, is a sentence about it. */
const char *sched_policies(size_t i, const char **ret_help);

/* --- events -------------------------------------------------------------------------------------------------------------- */

enum {
    SCHED_NO_PREFIX = 1,   /* every prompt row is computed, whatever the cache holds (hidden states, log-probabilities) */
    SCHED_WANT_PROMPT = 2, /* every prompt row is wanted (SCHED_WANT_PROMPT_ROW); implies SCHED_NO_PREFIX */
};

struct sched_seq {
    uint64_t id; /* not in use by a sequence that lives */
    const int32_t *tokens; /* the prompt; copied */
    uint32_t n_prompt;     /* at least 1 */
    uint32_t max_new;      /* tokens sched_token may add at most; 0 only with SCHED_WANT_PROMPT: nothing is sampled */
    uint32_t flags;
    uint32_t choice; /* of a request with several; for the trace only: choices share their prompt like anybody else */
    int32_t priority; /* -100…100, higher goes earlier: one step is worth five seconds of waiting */
    uint64_t salt;    /* sequences of different salt share no blocks */
};

/* A request arrives. 0, or -1 and why not, with numbers: too long for the context or for all blocks together (ERR_LIMIT), too
 * many wait (ERR_BUSY), the id lives, an empty prompt. It waits until sched_poll admits it. */
int sched_add(struct sched *s, uint64_t now_us, const struct sched_seq *spec, struct err *err);

/* The sequence's sampled row came back. Call it for every SCHED_WANT_SAMPLE row of a batch before sched_step_done of it. Accepted
 * too when the sequence has been preempted meanwhile. -1: no such sequence, none was asked for, or max_new is reached. */
int sched_token(struct sched *s, uint64_t now_us, uint64_t seq, int32_t token, struct err *err);
/* The sequence is complete (the stop rules are the caller's), or nobody wants it any more. Its blocks stay in the prefix cache.
 * No further row of it is dispatched; what is in flight comes back and may be dropped. -1: no such sequence (it may have been
 * finished before: not a fault). */
int sched_finish(struct sched *s, uint64_t now_us, uint64_t seq, struct err *err);
int sched_cancel(struct sched *s, uint64_t now_us, uint64_t seq, struct err *err);

/* The last stage that takes part in a batch (stop_stage) is done with it. Batches may come back out of order, each once. -1: it
 * is not in flight, or a row that was to be sampled got neither a token nor a finish or cancel. */
int sched_step_done(struct sched *s, uint64_t now_us, uint64_t batch, struct err *err);

/* How long a stage computed on a batch (not waited). May come late; batches long gone are ignored. */
void sched_measured(struct sched *s, uint64_t now_us, uint64_t batch, uint32_t stage, uint64_t compute_us);
/* New costs (a new plan, links measured anew); what was measured of stages before is forgotten. -1: a figure out of range. */
int sched_set_costs(struct sched *s, uint64_t now_us, const struct sched_costs *costs, struct err *err);

struct sched_reset {
    uint32_t n_stages;    /* from now on */
    int32_t lost_through; /* the last stage whose KV is not what it was; -1: all stages kept theirs */
    uint32_t n_blocks[SCHED_GROUPS]; /* 0, 0: as before. Else the new counts: then all KV is taken for lost */
    const struct sched_costs *costs; /* NULL: as before; needed when n_stages changes */
};

/* A new epoch: what was in flight is gone and is computed again; no slot is open. Sequences are recomputed on stages 0 …
 * lost_through by rows without wants (stop_stage), then go on where they were. A sequence that can never fit any more is
 * dropped, by an action. -1, with nothing changed: bad numbers. Block counts may not exceed those of sched_create, nor
 * n_stages SCHED_MAX_STAGES. */
int sched_reset(struct sched *s, uint64_t now_us, const struct sched_reset *reset, struct err *err);

/* --- decisions ----------------------------------------------------------------------------------------------------------- */

enum sched_want {
    SCHED_WANT_NONE,
    SCHED_WANT_SAMPLE,     /* the next token */
    SCHED_WANT_PROMPT_ROW, /* what SCHED_WANT_PROMPT asked for: log-probability of the next prompt token, hidden state */
};

struct sched_row {
    uint64_t seq;
    uint32_t slot, pos;
    int32_t token;
    uint8_t want; /* enum sched_want */
};

enum sched_op_kind {
    SCHED_OPEN,  /* slot now belongs to seq; its history is the first n tokens of it; its tables are empty */
    SCHED_CLOSE, /* slot is free */
    SCHED_COPY,  /* block dst of a group becomes a copy of block src */
};

struct sched_op {
    enum sched_op_kind kind;
    uint32_t slot;
    uint64_t seq;
    uint32_t n;
    uint32_t group, src, dst;
};

/* Entries [index, index + n_blocks) of a slot's table become these blocks; position p lies in entry p / block. */
struct sched_delta {
    uint32_t slot, group, index, n_blocks;
    const uint32_t *blocks;
};

struct sched_step {
    uint64_t batch;      /* 1, 2, 3, … over all epochs */
    uint32_t stop_stage; /* the last stage that computes it: n_stages - 1, or less when KV is rebuilt (then nothing is wanted) */
    const struct sched_op *ops; /* first, in this order */
    uint32_t n_ops;
    const struct sched_delta *deltas; /* then these */
    uint32_t n_deltas;
    const struct sched_row *rows; /* rows of one sequence stand together, positions ascend */
    uint32_t n_rows, n_wanted;
    uint64_t predicted_us; /* of the slowest stage */
};

enum sched_action_kind {
    SCHED_STEP,      /* send it to stage 0 */
    SCHED_ADMITTED,  /* seq has a slot; n: prompt positions found in the cache */
    SCHED_PREEMPTED, /* seq lost its blocks to an older one and waits again; n: positions to compute again */
    SCHED_DROPPED,   /* seq is gone: after a reset it fits no more; text says why */
};

struct sched_action {
    enum sched_action_kind kind;
    struct sched_step step;
    uint64_t seq;
    uint32_t n;
    const char *text;
};

/* The next decision at `now_us`; false: nothing to do until another event. Call it after every event (or bundle of events)
 * until it says false. Pointers in *ret live until the next call of any function here. */
bool sched_poll(struct sched *s, uint64_t now_us, struct sched_action *ret);

/* --- looking in ---------------------------------------------------------------------------------------------------------- */

struct sched_stats {
    uint32_t n_waiting, n_running, n_decoding; /* decoding: running, prompt done */
    uint32_t in_flight, in_flight_wanted;      /* batches now; the number the policy aims at */
    uint32_t blocks_used[SCHED_GROUPS], blocks_cached[SCHED_GROUPS], blocks_free[SCHED_GROUPS];
    uint64_t n_steps, n_rows, n_prompt_rows, n_rebuilt_rows;
    uint64_t n_prefix_hit; /* prompt positions that need not be computed */
    uint64_t n_preempted;
    uint64_t cycle_us; /* predicted time between two tokens of a running answer */
};

void sched_stats(const struct sched *s, struct sched_stats *ret);
/* Predicted time of a stage for a step of n_rows rows, of which contexts (one a sequence) add up to n_ctx positions. */
uint64_t sched_predict_us(const struct sched *s, uint32_t stage, uint32_t n_rows, uint64_t n_ctx);

/* Called with one line (no newline) of the trace for every event and every decision, from within the call; NULL: no more.
 * Set it before the first event: the first line is the configuration. */
typedef void (*sched_trace_fn)(void *arg, const char *line, size_t len);
void sched_set_trace(struct sched *s, sched_trace_fn fn, void *arg);

#endif
