/* See request.h. */
#include "coordinator/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

static int check(const struct engine_params *p, uint32_t n_vocab, struct err *err)
{
    if (p->n_tokens == 0)
        return err_set(err, ERR_INPUT, "the prompt is empty; there must be at least one token (most models begin with one of their own)");
    for (uint32_t i = 0; i < p->n_tokens; i++)
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= n_vocab)
            return err_set(err, ERR_INPUT, "token %u of the prompt is %d, allowed are 0 to %u", i, p->tokens[i], n_vocab - 1);
    if (p->top > ENGINE_MAX_TOP)
        return err_set(err, ERR_INPUT, "%u log-probabilities asked for with every token, at most %d allowed", p->top, ENGINE_MAX_TOP);
    if (p->n_stop > ENGINE_MAX_STOP_TOKENS)
        return err_set(err, ERR_INPUT, "%u stop tokens, at most %d allowed", p->n_stop, ENGINE_MAX_STOP_TOKENS);
    if (p->sample.n_bias > SAMPLE_MAX_BIAS)
        return err_set(err, ERR_INPUT, "%u biased tokens, at most %d allowed", p->sample.n_bias, SAMPLE_MAX_BIAS);
    for (uint32_t i = 0; i < p->sample.n_bias; i++)
        if (p->sample.bias[i].token < 0 || (uint32_t)p->sample.bias[i].token >= n_vocab)
            return err_set(err, ERR_INPUT, "a bias for token %d, allowed are 0 to %u", p->sample.bias[i].token, n_vocab - 1);
    return 0;
}

/* How many rows of likeliest tokens the prompt has. */
static size_t prompt_tops(const struct engine_params *p)
{
    return p->prompt_top ? p->n_tokens : 0;
}

static int allocate(struct engine_request *r, struct err *err)
{
    struct engine_params *p = &r->params;
    size_t tops = (size_t)p->top * (prompt_tops(p) + (size_t)p->n_new);
    struct sample_bias *bias;

    if (!(r->tokens = mem_new((size_t)p->n_tokens + p->n_new, sizeof *r->tokens, err)) ||
        !(bias = mem_new(p->sample.n_bias, sizeof *bias, err)))
        return -1;
    if (p->sample.n_bias)
        memcpy(bias, p->sample.bias, p->sample.n_bias * sizeof *bias);
    p->sample.bias = bias;
    memcpy(r->tokens, p->tokens, p->n_tokens * sizeof *r->tokens);
    p->tokens = r->tokens;
    r->n_tokens = p->n_tokens;
    if (!(r->logprobs = mem_new(p->n_new, sizeof *r->logprobs, err)) || !(r->top_ids = mem_new(tops, sizeof *r->top_ids, err)) ||
        !(r->top_logprobs = mem_new(tops, sizeof *r->top_logprobs, err)) ||
        (p->prompt_given && !(r->prompt_logprobs = mem_new(p->n_tokens, sizeof *r->prompt_logprobs, err))))
        return -1;
    return !p->hidden || (r->hidden = mem_new((size_t)p->n_tokens * r->n_embd, sizeof *r->hidden, err)) ? 0 : -1;
}

static int begin_grammar(struct engine_request *r, uint32_t n_vocab, struct err *err)
{
    if (!r->params.grammar || r->params.n_new == 0)
        return 0;
    return (r->walk = grammar_walk_create(r->params.grammar, err)) && (r->mask_bits = mem_new(((size_t)n_vocab + 7) / 8, 1, err)) ? 0 : -1;
}

static void destroy(struct engine_request *r)
{
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free((void *)(uintptr_t)r->params.sample.bias);
    grammar_walk_destroy(r->walk);
    free(r->mask_bits);
    free(r->tokens);
    free(r->logprobs);
    free(r->top_ids);
    free(r->top_logprobs);
    free(r->prompt_logprobs);
    free(r->hidden);
    free(r);
}

struct engine_request *request_create(struct engine *e, const struct engine_params *params, uint32_t n_vocab, uint32_t n_embd,
                                      struct err *err)
{
    struct engine_request *r;
    pthread_condattr_t attr;

    if (check(params, n_vocab, err) != 0 || !(r = mem_new(1, sizeof *r, err)))
        return NULL;
    r->engine = e;
    r->params = *params;
    r->n_embd = n_embd;
    r->holders = 1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (allocate(r, err) == 0 && begin_grammar(r, n_vocab, err) == 0)
        return r;
    if (r->params.sample.bias == params->sample.bias)
        r->params.sample.bias = NULL; /* still the caller's */
    destroy(r);
    return NULL;
}

void request_hold(struct engine_request *r)
{
    pthread_mutex_lock(&r->lock);
    r->holders++;
    pthread_mutex_unlock(&r->lock);
}

void request_drop(struct engine_request *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    int left = --r->holders;
    pthread_mutex_unlock(&r->lock);
    if (left == 0)
        destroy(r);
}

bool request_is_stop(const struct engine_request *r, int32_t token)
{
    for (uint32_t i = 0; i < r->params.n_stop; i++)
        if (r->params.stop[i] == token)
            return true;
    return false;
}

/* --- the engine's side ------------------------------------------------------------------------------------------------------ */

/* Row `row` of the likeliest tokens; fewer than asked for (a small vocabulary) leave id -1 at the end. */
static void put_top(struct engine_request *r, size_t row, const int32_t *ids, const float *logprobs, uint32_t n)
{
    size_t at = row * r->params.top;
    for (uint32_t i = 0; i < r->params.top; i++) {
        r->top_ids[at + i] = i < n ? ids[i] : -1;
        r->top_logprobs[at + i] = i < n ? logprobs[i] : 0;
    }
}

static void unlock_and_tell(struct engine_request *r)
{
    pthread_cond_signal(&r->changed);
    if (r->params.ready)
        r->params.ready(r->params.ready_arg);
    pthread_mutex_unlock(&r->lock);
}

bool request_wants_prompt(const struct engine_request *r)
{
    return r->params.prompt_top || r->params.prompt_given;
}

void request_add_prompt(struct engine_request *r, uint32_t position, const int32_t *ids, const float *logprobs, uint32_t n, float given)
{
    pthread_mutex_lock(&r->lock);
    if (position == r->prompt_ready && position < r->params.n_tokens) { /* a position that was computed anew is not told twice */
        if (r->params.prompt_top)
            put_top(r, position, ids, logprobs, n);
        if (r->params.prompt_given)
            r->prompt_logprobs[position] = given;
        r->prompt_ready++;
    }
    unlock_and_tell(r);
}

void request_add_hidden(struct engine_request *r, uint32_t position, const float *hidden)
{
    pthread_mutex_lock(&r->lock);
    if (position == r->hidden_ready && position < r->params.n_tokens) {
        memcpy(r->hidden + (size_t)position * r->n_embd, hidden, r->n_embd * sizeof *hidden);
        r->hidden_ready++;
    }
    unlock_and_tell(r);
}

void request_add_progress(struct engine_request *r, uint32_t n_done, uint32_t n_cached)
{
    pthread_mutex_lock(&r->lock);
    if (n_done > r->n_done) {
        r->n_done = n_done;
        r->n_cached = n_cached;
    }
    unlock_and_tell(r);
}

void request_add_token(struct engine_request *r, int32_t token, float logprob, const int32_t *ids, const float *logprobs, uint32_t n)
{
    r->tokens[r->n_tokens++] = token;
    pthread_mutex_lock(&r->lock);
    r->logprobs[r->n_answer] = logprob;
    if (r->params.top)
        put_top(r, prompt_tops(&r->params) + r->n_answer, ids, logprobs, n);
    r->answer_ready = ++r->n_answer;
    unlock_and_tell(r);
}

void request_add_pause(struct engine_request *r, const char *text)
{
    pthread_mutex_lock(&r->lock);
    err_set(&r->pause, ERR_BUSY, "%s", text);
    r->pause_new = true;
    unlock_and_tell(r);
}

static void end(struct engine_request *r)
{
    r->ended = true;
    unlock_and_tell(r);
}

void request_end(struct engine_request *r, enum engine_reason reason)
{
    r->finished = true;
    pthread_mutex_lock(&r->lock);
    r->reason = reason;
    end(r);
}

void request_fail(struct engine_request *r, const struct err *err)
{
    r->finished = true;
    pthread_mutex_lock(&r->lock);
    r->failed = true;
    r->err = *err;
    end(r);
}

/* --- the asker's side ------------------------------------------------------------------------------------------------------- */

static void give_top(const struct engine_request *r, size_t row, struct engine_event *ret)
{
    ret->top_ids = r->top_ids + row * r->params.top;
    ret->top_logprobs = r->top_logprobs + row * r->params.top;
    while (ret->n_top < r->params.top && ret->top_ids[ret->n_top] >= 0)
        ret->n_top++;
}

/* What is next, under the lock. Prompt, then answer, then the end; a pause at once. */
static bool take(struct engine_request *r, struct engine_event *ret)
{
    *ret = (struct engine_event){0};
    if (r->pause_new) {
        ret->kind = ENGINE_PAUSE;
        ret->err = r->pause;
        r->pause_new = false;
    } else if (r->prompt_read < r->prompt_ready) {
        ret->kind = ENGINE_PROMPT;
        ret->position = r->prompt_read;
        if (r->params.prompt_given)
            ret->logprob = r->prompt_logprobs[r->prompt_read];
        if (r->params.prompt_top)
            give_top(r, r->prompt_read, ret);
        r->prompt_read++;
        ret->n_done = r->prompt_read;
    } else if (r->hidden_read < r->hidden_ready) {
        ret->kind = ENGINE_HIDDEN;
        ret->position = r->hidden_read;
        ret->hidden = r->hidden + (size_t)r->hidden_read++ * r->n_embd;
        ret->n_hidden = r->n_embd;
    } else if (r->done_told < r->n_done && !request_wants_prompt(r) && !r->params.hidden) {
        ret->kind = ENGINE_PROMPT;
        ret->n_done = r->done_told = r->n_done;
        ret->n_cached = r->n_cached;
    } else if (r->answer_read < r->answer_ready) {
        uint32_t i = r->answer_read++;
        ret->kind = ENGINE_TOKEN;
        ret->position = r->params.n_tokens + i;
        ret->token = r->tokens[ret->position];
        ret->logprob = r->logprobs[i];
        if (r->params.top)
            give_top(r, prompt_tops(&r->params) + i, ret);
    } else if (r->ended && !r->end_read) {
        ret->kind = r->failed ? ENGINE_FAILED : ENGINE_DONE;
        ret->reason = r->reason;
        ret->err = r->err;
        ret->n_cached = r->n_cached;
        r->end_read = true;
    } else {
        return false;
    }
    return true;
}

int engine_next(struct engine_request *r, int timeout_ms, struct engine_event *ret)
{
    struct timespec until;
    bool got;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms > 0 ? timeout_ms / 1000 : 0;
    until.tv_nsec += timeout_ms > 0 ? timeout_ms % 1000 * 1000000L : 0;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&r->lock);
    while (!(got = take(r, ret)) && !r->end_read && rc != ETIMEDOUT)
        rc = timeout_ms < 0 ? pthread_cond_wait(&r->changed, &r->lock) : pthread_cond_timedwait(&r->changed, &r->lock, &until);
    pthread_mutex_unlock(&r->lock);
    return got ? 0 : 1;
}
