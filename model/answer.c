/* See answer.h. For a device histories become edits, seeds random numbers; it searches; log-probabilities are made here, of the few
 * logits that come back. */
#include "model/answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct answerer {
    struct run *run;
    uint32_t n_vocab;
    struct sampler **samplers; /* one a thread of the team; for a device one, for its counts */
    unsigned n_samplers;

    /* The device answers: */
    struct sample_edit *edits;
    size_t edits_bytes;
    struct sample_row rows[SAMPLE_AT_ONCE];

    /* The host answers: */
    struct threadpool *team;
    struct fault *faults; /* each thread's first */
};

struct fault {
    uint32_t answer;
    struct err err; /* kind ERR_NONE: there is none */
};

static bool on_device(const struct answerer *a)
{
    return a->run->ops->sample != NULL;
}

struct answerer *answerer_create(struct run *run, uint32_t n_vocab, const char *isa, struct threadpool *team, struct err *err)
{
    struct answerer *a = mem_new(1, sizeof *a, err);
    if (!a)
        return NULL;
    a->run = run;
    a->n_vocab = n_vocab;
    a->team = on_device(a) ? NULL : team;
    unsigned n = a->team ? threadpool_size(a->team) : 1;
    if (!(a->samplers = mem_new(n, sizeof *a->samplers, err)) || !(a->faults = mem_new(n, sizeof *a->faults, err)))
        goto error;
    for (; a->n_samplers < n; a->n_samplers++)
        if (!(a->samplers[a->n_samplers] = sampler_create(n_vocab, isa, err)))
            goto error;
    if (on_device(a)) {
        a->edits_bytes = 2 * sample_max_edits(n_vocab) * sizeof *a->edits; /* of a group, and of the row that did not fit in */
        if (!(a->edits = mem_pages_alloc(a->edits_bytes, err)))
            goto error;
    }
    return a;
error:
    answerer_destroy(a);
    return NULL;
}

void answerer_destroy(struct answerer *a)
{
    if (!a)
        return;
    for (unsigned i = 0; i < a->n_samplers; i++)
        sampler_destroy(a->samplers[i]);
    free(a->samplers);
    free(a->faults);
    mem_pages_free(a->edits, a->edits_bytes);
    free(a);
}

/* --- by the host -------------------------------------------------------------------------------------------------------- */

static int answer_here(struct answerer *a, struct sampler *s, struct answer *to, struct err *err)
{
    const float *logits = a->run->ops->logits(a->run, to->wanted);
    if (to->params && sampler_sample(s, to->params, logits, to->history, to->n_history, to->choice, to->position, &to->token,
                                     to->token_alone ? NULL : &to->logprob, err) != 0)
        return -1;
    to->n_top = 0;
    if (to->top) {
        int n = sampler_top(s, logits, to->top, to->top_tokens, to->top_logprobs, err);
        if (n < 0)
            return -1;
        to->n_top = (uint32_t)n;
    }
    return to->n_given ? sampler_given(s, logits, to->given, to->n_given, to->given_logprobs, err) : 0;
}

struct host_job {
    struct answerer *a;
    struct answer *answers;
};

static void host_task(void *arg, uint32_t task, uint32_t thread)
{
    struct host_job *job = arg;
    struct fault *f = &job->a->faults[thread], own = {.answer = task};
    if (answer_here(job->a, job->a->samplers[thread], &job->answers[task], &own.err) != 0 && (f->err.kind == ERR_NONE || task < f->answer))
        *f = own;
}

static int answer_on_host(struct answerer *a, struct answer *answers, uint32_t n, uint32_t *ret_failed, struct err *err)
{
    struct host_job job = {a, answers};
    const struct fault *first = NULL;
    memset(a->faults, 0, a->n_samplers * sizeof *a->faults);
    if (a->team && n > 1) {
        threadpool_run(a->team, host_task, &job, n);
    } else {
        for (uint32_t i = 0; i < n; i++)
            host_task(&job, i, 0);
    }
    for (unsigned i = 0; i < a->n_samplers; i++)
        if (a->faults[i].err.kind != ERR_NONE && (!first || a->faults[i].answer < first->answer))
            first = &a->faults[i];
    if (!first)
        return 0;
    *ret_failed = first->answer;
    if (err)
        *err = first->err;
    return -1;
}

/* --- by the device ------------------------------------------------------------------------------------------------------ */

/* Edits of the row go to a->edits + at. */
static void ask(struct answerer *a, const struct answer *from, size_t at, struct sample_row *row)
{
    size_t n_biases = 0;
    *row = (struct sample_row){.wanted = from->wanted, .choose = from->params != NULL, .params = from->params, .top = from->top, .given = from->given,
                               .n_given = from->n_given};
    if (!from->params)
        return;
    row->edits = a->edits + at;
    row->n_edits = (uint32_t)sampler_edits(a->samplers[0], from->params, from->history, from->n_history, a->edits + at, &n_biases);
    row->n_biases = (uint32_t)n_biases;
    row->random = sampler_random(from->params->seed, from->choice, from->position, 0);
}

static int tell(const struct answerer *a, const struct sample_row *row, struct answer *to, struct err *err)
{
    if (sampler_judge(&row->raw, a->n_vocab, err) != 0 || (row->choose && sampler_judge_left(&row->left, to->params, err) != 0))
        return -1;
    double log_total = sampler_log_total(&row->raw);
    if (row->choose) {
        to->token = row->token;
        to->logprob = sampler_logprob(row->logit, &row->raw, log_total);
    }
    to->n_top = row->n_top;
    for (uint32_t i = 0; i < row->n_top; i++) {
        to->top_tokens[i] = row->top_tokens[i];
        to->top_logprobs[i] = sampler_logprob(row->top_logits[i], &row->raw, log_total);
    }
    for (uint32_t i = 0; i < row->n_given; i++)
        to->given_logprobs[i] = sampler_logprob(row->given_logits[i], &row->raw, log_total);
    return 0;
}

static int answer_on_device(struct answerer *a, struct answer *answers, uint32_t n, uint32_t *ret_failed, struct err *err)
{
    for (uint32_t first = 0; first < n;) {
        uint32_t group = 0;
        size_t edits = 0;
        /* As many as a call may: a row whose edits are too many begins the next. */
        while (first + group < n && group < SAMPLE_AT_ONCE && answers[first + group].wanted / SAMPLE_AT_ONCE == answers[first].wanted / SAMPLE_AT_ONCE) {
            ask(a, &answers[first + group], edits, &a->rows[group]);
            if (edits + a->rows[group].n_edits > sample_max_edits(a->n_vocab))
                break;
            edits += a->rows[group++].n_edits;
        }
        if (a->run->ops->sample(a->run, a->rows, group, err) != 0)
            return -1;
        for (uint32_t i = 0; i < group; i++)
            if (tell(a, &a->rows[i], &answers[first + i], err) != 0) {
                *ret_failed = first + i;
                return -1;
            }
        first += group;
    }
    return 0;
}

/* --- either ------------------------------------------------------------------------------------------------------------- */

static int check(const struct answer *a, struct err *err)
{
    if (a->top > SAMPLE_MAX_TOP)
        return err_set(err, ERR_USAGE, "the %u likeliest tokens asked for; at most %d are given", a->top, SAMPLE_MAX_TOP);
    if (a->n_given > SAMPLE_MAX_GIVEN)
        return err_set(err, ERR_USAGE, "log-probabilities of %u tokens asked for; at most %d are given", a->n_given, SAMPLE_MAX_GIVEN);
    return 0;
}

int answerer_answer(struct answerer *a, struct answer *answers, uint32_t n, uint32_t *ret_failed, struct err *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (check(&answers[i], err) != 0) {
            *ret_failed = i;
            return -1;
        }
    *ret_failed = n;
    return (on_device(a) ? answer_on_device : answer_on_host)(a, answers, n, ret_failed, err);
}
