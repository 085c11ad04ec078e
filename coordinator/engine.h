#ifndef COORDINATOR_ENGINE_H
#define COORDINATOR_ENGINE_H

/* The pipeline as its users see it: requests go in as tokens, tokens come out, and nothing of stages, sockets or faults is
 * seen but a pause. The HTTP front and the commands call this, from any thread; behind it one thread (coordinator.c) owns
 * the links, the schedule and the plan. Texts, templates and stop strings are the caller's business: to stop, cancel. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "gguf/gguf.h"
#include "kernels/backend.h"
#include "kernels/sample.h"
#include "proto/msg.h"
#include "text/grammar.h"
#include "topology/planner.h"
#include "topology/topology.h"

struct engine;
struct engine_request;

enum { ENGINE_MAX_REQUESTS = 4096, ENGINE_MAX_TOP = 128, ENGINE_MAX_STOP_TOKENS = 64, ENGINE_MAX_WORKERS = 64 };

enum engine_note_kind {
    ENGINE_NOTE_INFO,     /* a sentence: a node joined, a plan was chosen */
    ENGINE_NOTE_TROUBLE,  /* a sentence: a node was lost, a load was retried */
    ENGINE_NOTE_PROGRESS, /* loading: node, done, total */
};

struct engine_note {
    enum engine_note_kind kind;
    const char *node, *text;
    uint64_t done_bytes, total_bytes;
};

struct engine_options {
    const char *model;
    struct topology *topology;             /* NULL: workers of our own, over ipc. Nodes that join are added */
    const char *topology_path;             /* where nodes that join are written down; NULL: nowhere */
    const char *keys_dir, *join_listen;    /* NULL: the usual folder; only what the topology says */
    const char *runtime_dir;               /* for sockets of own workers; NULL: /tmp */
    const char *program;                   /* what to start own workers with (argv[0] as found) */
    const char *isa, *trace_path, *policy; /* NULL: the best; none; the usual */
    const char *const *worker_args;        /* of own workers, further arguments up to a NULL; NULL: none */
    unsigned workers, threads;             /* own workers: 0: one; threads of each, 0: the processors divided evenly */
    uint32_t ctx, parallel;                /* a sequence's positions, sequences at once; 0: chosen */
    uint32_t kv_total;                     /* positions of all sequences together; 0: ctx for each */
    uint32_t batch_rows;                   /* most rows of a step; 0: chosen */
    enum kv_type kv;
    enum act_type wire;
    bool wire_auto;
    enum plan_objective objective;
    double prompt_share; /* as in plan_settings */
    uint32_t gather_ms; /* as in sched_config */
    unsigned recover_timeout_ms; /* 0: 120 s */
    /* Called from the engine's thread; must not block and must not call the engine. NULL: nobody listens. */
    void (*note)(void *arg, const struct engine_note *note);
    void *note_arg;
};

/* Starts the thread and returns at once; the cluster comes up behind it. What can be checked beforehand (the header, options,
 * the plan where all nodes' sizes are declared) is checked here. */
struct engine *engine_create(const struct engine_options *options, struct err *err);
void engine_destroy(struct engine *e); /* takes NULL; ends all requests, stops own workers, joins */

/* Waits until the whole chain has answered a test batch. 0; 1 on time-out (< 0: for ever); -1 and why it will not come up. */
int engine_wait_ready(struct engine *e, int timeout_ms, struct err *err);

const struct gguf *engine_gguf(const struct engine *e); /* the header: tokenizer, template, metadata */
uint32_t engine_ctx(const struct engine *e);            /* once ready */
uint32_t engine_parallel(const struct engine *e);
uint32_t engine_n_vocab(const struct engine *e);
/* State, plan, predicted beside measured, nodes, events, counters: a new object for `status --json` and /v1/cluster. */
json_t *engine_status(struct engine *e);
/* Appends what the pipeline did since the cursor of the last call (UINT64_MAX: the first), step by step, as JSON: see docs/api.md.
 * It is recorded only while somebody asks now and then. */
int engine_activity(struct engine *e, uint64_t since, struct strbuf *out, struct err *err);

/* What the plan promises, tokens a second, of n sequences that each hold `context` tokens; with m (NULL allowed) batches under
 * way. 0 while there is no plan. */
double engine_predict(struct engine *e, uint32_t n, uint32_t context, uint32_t *ret_m);

enum engine_command { ENGINE_REPLAN, ENGINE_DRAIN };
/* node: whom to drain, for how long (0: until it is taken back). Blocks until it is under way, not until it is done. */
int engine_command(struct engine *e, enum engine_command command, const char *node, unsigned seconds, struct err *err);

struct engine_params {
    const int32_t *tokens; /* the prompt; copied */
    uint32_t n_tokens;
    uint32_t n_new;                       /* most tokens to choose; 0: only the prompt is read */
    struct sample_params sample;          /* bias is copied */
    uint32_t choice;                      /* which of several answers to one prompt: draws differ */
    uint32_t top;                         /* likeliest tokens wanted with every chosen one; 0: none */
    bool prompt_top;                      /* and for every position of the prompt (its cached prefix is computed again) */
    bool prompt_given;                    /* the log-probability of every prompt token but the first; the cache as above */
    bool hidden;                          /* the last hidden state of every prompt position */
    struct grammar_masks *grammar;        /* what the answer may be (held); NULL: anything. End tokens are to be among `stop` */
    int32_t stop[ENGINE_MAX_STOP_TOKENS]; /* tokens that end the answer (they are given, too) */
    uint32_t n_stop;
    /* Called by the engine's thread whenever an event waits, with the request locked: it may wake somebody, no more. NULL: none. */
    void (*ready)(void *arg);
    void *ready_arg;
};

enum engine_event_kind {
    ENGINE_TOKEN,  /* token, logprob, top */
    ENGINE_PROMPT, /* position, top, logprob (of the token behind it): one position of the prompt; or n_done of n_tokens where
                      nothing of the prompt is wanted */
    ENGINE_HIDDEN, /* position, hidden */
    ENGINE_PAUSE,  /* the pipeline is being repaired: text says what and how long; keep the client waiting */
    ENGINE_DONE,   /* reason */
    ENGINE_FAILED, /* err */
};

enum engine_reason { ENGINE_STOP, ENGINE_LENGTH, ENGINE_CONTEXT, ENGINE_CANCELLED };

struct engine_event {
    enum engine_event_kind kind;
    uint32_t position;
    int32_t token;
    float logprob;
    uint32_t n_top;
    const int32_t *top_ids; /* until the next engine_next of this request */
    const float *top_logprobs;
    const float *hidden;
    uint32_t n_hidden;
    uint32_t n_done, n_cached; /* of the prompt */
    enum engine_reason reason;
    struct err err;
};

/* ERR_BUSY when ENGINE_MAX_REQUESTS wait; ERR_INPUT when the prompt cannot fit the context, with numbers. */
struct engine_request *engine_submit(struct engine *e, const struct engine_params *params, struct err *err);
/* The next event, in order. 0; 1 on time-out. After ENGINE_DONE or ENGINE_FAILED no more come. One thread at a time. */
int engine_next(struct engine_request *r, int timeout_ms, struct engine_event *ret);
void engine_cancel(struct engine_request *r);  /* an ENGINE_DONE follows within a step; any thread */
void engine_release(struct engine_request *r); /* cancels what still runs; r is gone */

#endif
