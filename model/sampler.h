#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H

/* From logits to a token. Pure: the same logits, parameters, history, choice and position give the same token on any
 * machine (own exp and log; a counter-based generator keyed by seed, choice and position; ties by id). Order, as users of
 * other servers know it: bias, penalties, mask, top-k, typical, top-p, min-p, temperature, draw. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/sample.h"

struct sampler; /* scratch for one vocabulary; one thread at a time */

/* isa: cap of the kernels ("scalar", …), NULL: the best there is. The bits are the same. */
struct sampler *sampler_create(uint32_t n_vocab, const char *isa, struct err *err);
void sampler_destroy(struct sampler *s); /* takes NULL */

/* Whether the numbers are usable: -1 and a message naming the field, the value and the range. */
int sample_params_check(const struct sample_params *p, uint32_t n_vocab, struct err *err);

/* history: all tokens of the sequence so far, prompt included. position: that of the token to be chosen. choice: which of
 * several answers to one prompt. The logits are not changed. *ret_logprob (NULL allowed) is the token's natural
 * log-probability under the unmodified logits. Logits that are not numbers: -1 and ERR_INPUT ("the model is broken"). */
int sampler_sample(struct sampler *s, const struct sample_params *p, const float *logits, const int32_t *history, size_t n_history,
                   uint32_t choice, uint32_t position, int32_t *ret_token, float *ret_logprob, struct err *err);

/* Natural log-probabilities of given tokens, each within the vocabulary. */
int sampler_given(struct sampler *s, const float *logits, const int32_t *ids, size_t n, float *ret_logprobs, struct err *err);

/* The k most likely tokens with natural log-probabilities, best first, ties by id; k is cut to the vocabulary. Returns how
 * many, or -1. */
int sampler_top(struct sampler *s, const float *logits, uint32_t k, int32_t *ret_ids, float *ret_logprobs, struct err *err);

/* Pieces of these, for model/answer.c, where a device does the rest (kernels/sample.h). ERR_INPUT where there is no token to
 * choose: of the model's own logits, of those that bias, penalties and mask leave. */
int sampler_judge(const struct sample_scan *s, uint32_t n_vocab, struct err *err);
int sampler_judge_left(const struct sample_scan *s, const struct sample_params *p, struct err *err);
double sampler_log_total(const struct sample_scan *s);
float sampler_logprob(float logit, const struct sample_scan *s, double log_total);
/* What bias and penalties do to the logits: *ret_biases biases, then penalties, each token once. Returns how many, up to
 * sample_max_edits. */
size_t sampler_edits(struct sampler *s, const struct sample_params *p, const int32_t *history, size_t n_history, struct sample_edit *ret,
                     size_t *ret_biases);

/* 64 random bits of this counter: Philox-4x32-10 of (seed; choice, position, draw). */
uint64_t sampler_random(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw);

#endif
