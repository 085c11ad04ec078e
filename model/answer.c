/* See answer.h. Histories become edits, seeds random numbers; the device searches; log-probabilities are made here, of the few
 * logits that come back. */
#include "model/answer.h"

#include <stdlib.h>

#include "base/mem.h"

struct answerer {
    uint32_t n_vocab;
    struct sampler *sampler; /* for its counts */
    struct sample_edit *edits;
    size_t edits_bytes;
    struct sample_row rows[SAMPLE_AT_ONCE];
};

struct answerer *answerer_create(uint32_t n_vocab, struct err *err)
{
    struct answerer *a = mem_new(1, sizeof *a, err);
    if (!a)
        return NULL;
    a->n_vocab = n_vocab;
    a->edits_bytes = 2 * sample_max_edits(n_vocab) * sizeof *a->edits; /* of a group, and of the row that did not fit in */
    if (!(a->sampler = sampler_create(n_vocab, NULL, err)) || !(a->edits = mem_pages_alloc(a->edits_bytes, err))) {
        answerer_destroy(a);
        return NULL;
    }
    return a;
}

void answerer_destroy(struct answerer *a)
{
    if (!a)
        return;
    sampler_destroy(a->sampler);
    mem_pages_free(a->edits, a->edits_bytes);
    free(a);
}

/* Edits of the row go to a->edits + at. */
static void ask(struct answerer *a, const struct answer *from, size_t at, struct sample_row *row)
{
    size_t n_biases = 0;
    *row = (struct sample_row){.wanted = from->wanted, .choose = from->params != NULL, .params = from->params, .top = from->top, .given = from->given,
                               .n_given = from->n_given};
    if (!from->params)
        return;
    row->edits = a->edits + at;
    row->n_edits = (uint32_t)sampler_edits(a->sampler, from->params, from->history, from->n_history, a->edits + at, &n_biases);
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

int answerer_answer(struct answerer *a, struct run *run, struct answer *answers, uint32_t n, uint32_t *ret_failed, struct err *err)
{
    *ret_failed = n;
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
        if (run->ops->sample(run, a->rows, group, err) != 0)
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
