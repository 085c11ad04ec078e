#ifndef COORDINATOR_REQUEST_H
#define COORDINATOR_REQUEST_H

/* One request, between the thread that asked and the engine's. The engine's thread adds, the asker reads; everything that an
 * answer can need is allocated when it is submitted, so that nothing is on the token path. What is not read yet stays:
 * a slow reader holds up nobody, and memory is bounded by the answer's length. */

#include <pthread.h>
#include <stdatomic.h>

#include "coordinator/engine.h"

enum mask_state { MASK_NONE, MASK_ASKED, MASK_READY, MASK_FAILED };

struct engine_request {
    struct engine *engine;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int holders;                 /* the asker, the engine's thread */
    struct engine_params params; /* tokens and bias point into memory of the request */
    uint64_t id;                 /* set by the engine's thread */

    /* The engine's thread alone: */
    int32_t *tokens; /* prompt and answer so far; params.n_tokens + params.n_new */
    uint32_t n_tokens, n_answer;
    bool finished;              /* nothing more will be added */
    int64_t added_us, first_us; /* when it came, when its first token did */

    /* A constrained answer: masks.c. While a mask is asked for all but its state is the finder's. */
    struct grammar_walk *walk; /* NULL: it is not */
    uint8_t *mask_bits;
    int32_t mask_token; /* to move on by first; -1: none yet */
    struct err mask_err;
    _Atomic int mask_state;

    /* Under the lock: */
    float *logprobs;  /* of answer tokens */
    int32_t *top_ids; /* of prompt positions (prompt_top), then of answer tokens: params.top each */
    float *top_logprobs;
    float *prompt_logprobs; /* prompt_given: of the token behind each position */
    float *hidden;
    uint32_t n_embd;
    uint32_t prompt_ready, hidden_ready, answer_ready; /* added */
    uint32_t prompt_read, hidden_read, answer_read;    /* handed out */
    uint32_t n_done, n_cached, done_told;
    bool pause_new;
    struct err pause;
    bool ended, end_read, failed, cancel_wanted;
    enum engine_reason reason;
    struct err err;
};

/* Checks the parameters (numbers, not lengths) and copies them. n_embd: of a hidden state, where they are asked for. */
struct engine_request *request_create(struct engine *e, const struct engine_params *params, uint32_t n_vocab, uint32_t n_embd,
                                      struct err *err);
void request_hold(struct engine_request *r); /* one holder more */
void request_drop(struct engine_request *r); /* one holder less; the last one frees. Takes NULL */

/* The engine's thread: */
/* given: the log-probability of the prompt's next token, where that is wanted and there is one. */
void request_add_prompt(struct engine_request *r, uint32_t position, const int32_t *ids, const float *logprobs, uint32_t n, float given);
/* Whether anything is wanted of every prompt position. */
bool request_wants_prompt(const struct engine_request *r);
void request_add_hidden(struct engine_request *r, uint32_t position, const float *hidden);
void request_add_progress(struct engine_request *r, uint32_t n_done, uint32_t n_cached);
void request_add_token(struct engine_request *r, int32_t token, float logprob, const int32_t *ids, const float *logprobs, uint32_t n);
void request_add_pause(struct engine_request *r, const char *text);
void request_end(struct engine_request *r, enum engine_reason reason);
void request_fail(struct engine_request *r, const struct err *err);
bool request_is_stop(const struct engine_request *r, int32_t token);

#endif
