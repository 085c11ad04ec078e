#ifndef MODEL_ANSWER_H
#define MODEL_ANSWER_H

/* What is asked of a step's wanted rows, answered where their logits lie: by the device where it samples (backend_ops.sample), else by
 * model/sampler.h here. The answers are the same. Sessions and a pipeline's last stage ask so. */

#include "base/threadpool.h"
#include "kernels/backend.h"
#include "model/sampler.h"

struct answer {
    uint32_t wanted;                    /* index among the step's wanted rows; they ascend */
    const struct sample_params *params; /* NULL: no token is to be chosen. These as sampler_sample takes them: */
    const int32_t *history;
    size_t n_history;
    uint32_t choice, position;
    bool token_alone;     /* its log-probability is not asked for, and may be left out */
    uint32_t top;         /* the likeliest tokens, up to SAMPLE_MAX_TOP, and … */
    const int32_t *given; /* … these tokens' log-probabilities, up to SAMPLE_MAX_GIVEN of them */
    uint32_t n_given;

    int32_t token; /* the answer; lists as long as was asked, the caller's */
    float logprob;
    uint32_t n_top;
    int32_t *top_tokens;
    float *top_logprobs, *given_logprobs;
};

struct answerer; /* scratch for the steps of one run; one thread at a time */

/* The run must outlive it. isa: cap of the sampler's kernels; NULL: none. team: answers several rows at once where the host does; NULL: one
 * after another. */
struct answerer *answerer_create(struct run *run, uint32_t n_vocab, const char *isa, struct threadpool *team, struct err *err);
void answerer_destroy(struct answerer *a); /* takes NULL */

/* Of the run's last step, whose batch was `sampled`; each wanted row once. -1: *ret_failed is the answer that err tells of, n: of
 * none. */
int answerer_answer(struct answerer *a, struct answer *answers, uint32_t n, uint32_t *ret_failed, struct err *err);

#endif
