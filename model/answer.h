#ifndef MODEL_ANSWER_H
#define MODEL_ANSWER_H

/* What is asked of wanted rows, answered by a device that samples (stage_sampling): the same answers as model/sampler.h's from logits
 * that come to the host. */

#include "kernels/backend.h"
#include "model/sampler.h"

struct answer {
    uint32_t wanted;                    /* index among the step's wanted rows; they ascend */
    const struct sample_params *params; /* NULL: no token is to be chosen. These as sampler_sample takes them: */
    const int32_t *history;
    size_t n_history;
    uint32_t choice, position;
    uint32_t top;         /* the likeliest tokens, and … */
    const int32_t *given; /* … these tokens' log-probabilities */
    uint32_t n_given;

    int32_t token; /* the answer; lists as long as was asked, the caller's */
    float logprob;
    uint32_t n_top;
    int32_t *top_tokens;
    float *top_logprobs, *given_logprobs;
};

struct answerer; /* scratch for one vocabulary; one thread at a time */

struct answerer *answerer_create(uint32_t n_vocab, struct err *err);
void answerer_destroy(struct answerer *a); /* takes NULL */

/* Of the run's last step, whose batch was `sampled`; each wanted row once. -1: *ret_failed is the answer that err tells of, n: of
 * none. */
int answerer_answer(struct answerer *a, struct run *run, struct answer *answers, uint32_t n, uint32_t *ret_failed, struct err *err);

#endif
