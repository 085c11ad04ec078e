#ifndef SCHED_STATE_H
#define SCHED_STATE_H

/* The inside of struct sched, for sched.c (events), step.c (decisions) and trace.c. */

#include "base/strbuf.h"
#include "sched/blocks.h"
#include "sched/cost.h"
#include "sched/policy.h"
#include "sched/sched.h"

enum { NONE = UINT32_MAX, LOADS_KEPT = 256, MAX_DELTAS = 16384, TRACE_LINE_MAX = 64 << 20 };

enum seq_state { SEQ_FREE, SEQ_WAITING, SEQ_RUNNING };

/* Positions [0, n_done) are computed on all stages, [n_done, n_sent) are under way, tokens [n_sent, n_tokens) are to be sent. A
 * running sequence decodes when at most its last token is to be sent, else it is a prompt. After a stage was lost, positions
 * [rebuild_sent, rebuild_to) are first computed again on stages 0 … stop_stage. */
struct seq {
    uint64_t id, age, arrival_us, salt; /* age: a number, smaller is older; never used again */
    int64_t key;                        /* order among prompts; see prompt_key */
    enum seq_state state;
    uint32_t flags, choice;
    int32_t priority;
    uint32_t slot, place; /* place: in running[] or in the heap of the waiting */
    uint32_t incarnation; /* counts losses of its blocks: what was under way before says nothing about those after */
    void *memory;         /* tokens, hashes and table */
    int32_t *tokens;
    struct hash128 root, *hashes;
    struct table table;
    uint32_t n_tokens, n_prompt, n_max, n_hashed;
    uint32_t n_sent, n_done, wanted_done;
    uint32_t rebuild_to, rebuild_sent;
    int32_t stop_stage;      /* of a rebuild that is not known to be complete; -1: none */
    uint64_t sampling;       /* the batch that samples its next token; 0: none */
    uint64_t in_step;        /* the last batch with rows of it */
    uint32_t growth;         /* positions it must be able to grow to be admitted */
    bool opened, ready;      /* the slot is known to the stages; it is in the list of those that can decode now */
    uint32_t next, prev;     /* in that list; next also links free ones */
};

struct member {
    uint64_t age;
    uint32_t seq, incarnation, end;
};

struct flight {
    uint64_t batch; /* 0: free */
    uint32_t n_members;
    bool rebuild, samples, answers; /* has rows whose tokens are chosen; of answers that run, not only prompts' last ones */
    struct member *members;
    struct load load;
    uint32_t stop_stage;
    uint32_t n_passed; /* stages known to be done with it, the last of them (or the sending) at passed_ns */
    uint64_t passed_ns;
    uint64_t sent_ns, stretch_ns; /* running answers' rows that may take so long, because prompts are read; 0: no such rows */
};

struct kept_load {
    uint64_t batch;
    uint32_t stop_stage;
    struct load load;
};

struct heap {
    uint32_t *seqs, n;
};

struct plan_key {
    uint64_t version;
    uint32_t n_decoding, n_prompting, kv, hand;
    uint64_t ctx, prompts, pos;
};

struct sched {
    struct sched_config config;
    const struct policy *policy;
    struct costs costs;
    struct blocks blocks;
    uint32_t max_in_flight; /* as configured, or n_stages + 2 */

    struct seq *seqs;
    uint32_t n_seqs, free_seq;
    uint32_t *map, map_mask; /* id -> seq, open addressing */
    uint64_t next_age;
    uint32_t *running, n_running;
    uint32_t *free_slots, n_free_slots;
    struct heap waiting, prompts; /* prompts: of the step that is made */
    uint64_t waiting_rows;
    uint32_t ready_head, ready_tail, n_ready;

    struct flight *flights;
    uint32_t n_flights; /* entries of flights */
    uint32_t in_flight;
    struct kept_load loads[LOADS_KEPT];

    /* The step that is made, or waits to be polled. ops and deltas gather between steps. */
    uint64_t next_batch;
    bool step_made;
    struct sched_step step;
    struct flight *step_flight;
    struct load step_load;
    bool last_was_rebuild;
    uint64_t now_ns;
    bool gathering;            /* see gather.h; those of gather_age and above are not waited for (0: nobody is held yet) */
    uint64_t gather_age, gather_since_ns;
    bool tells;                 /* the first stage has said when it was done with a step */
    uint32_t n_without_prompts; /* steps since one had prompt rows, while prompts waited */
    uint32_t hand; /* in 1 / COST_ONE: what the stretch limit is divided by, so that few steps in a hundred pass it */
    struct sched_op *ops;
    struct sched_delta *deltas;
    uint32_t *delta_blocks, n_delta_blocks, cap_delta_blocks;
    struct sched_row *rows;
    uint32_t n_ops, n_deltas, n_rows, n_wanted;
    struct sched_action *notices; /* a ring */
    uint32_t notice_first, n_notices, cap_notices;
    struct err dropped; /* why, for the action */

    struct plan_key plan_key;
    struct policy_plan plan;
    struct sched_stats stats;

    sched_trace_fn trace;
    void *trace_arg;
    struct strbuf line;
};

/* Of sched.c. */
int sched_fits(const struct sched *s, uint32_t n_max, struct err *err);
struct seq *sched_seq_find(const struct sched *s, uint64_t id);
const struct hash128 *seq_hash(struct sched *s, struct seq *q, uint32_t i); /* of block i, whose tokens are all known */
struct hash128 seq_parent(struct sched *s, struct seq *q, uint32_t i);
bool seq_rebuilding(const struct seq *q);
uint32_t seq_positions(const struct seq *q); /* that it can come to need: its last token is chosen, but not computed */
bool seq_wants_row(const struct seq *q); /* its last known token is all there is to send */
/* Takes a running sequence's slot and blocks. */
void seq_release(struct sched *s, struct seq *q);
/* A running sequence goes back among the waiting; says so by an action. */
void seq_preempt(struct sched *s, struct seq *q);
void seq_run(struct sched *s, struct seq *q); /* the other way: gives it a slot */
void seq_ready(struct sched *s, struct seq *q, bool ready); /* into the list of those that can decode, or out of it */
int64_t prompt_key(const struct sched *s, const struct seq *q, uint32_t rows_left);
void heap_push(struct sched *s, struct heap *h, struct seq *q);
struct seq *heap_pop(struct sched *s, struct heap *h);
struct sched_action *notice(struct sched *s, enum sched_action_kind kind, uint64_t seq, uint32_t n);

/* Of trace.c; called only when s->trace is set. */
void trace_config(struct sched *s);
void trace_add(struct sched *s, uint64_t now, const struct sched_seq *spec, int rc);
void trace_seq(struct sched *s, uint64_t now, const char *event, uint64_t seq, int32_t token, int rc);
void trace_done(struct sched *s, uint64_t now, uint64_t batch, int rc);
void trace_measured(struct sched *s, uint64_t now, uint64_t batch, uint32_t stage, uint64_t us);
void trace_costs(struct sched *s, uint64_t now, uint32_t n_stages, const struct sched_costs *costs, int rc);
void trace_reset(struct sched *s, uint64_t now, const struct sched_reset *r, int rc);
void trace_action(struct sched *s, uint64_t now, const struct sched_action *a); /* NULL: nothing to do */

#endif
