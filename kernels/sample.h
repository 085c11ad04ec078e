#ifndef KERNELS_SAMPLE_H
#define KERNELS_SAMPLE_H

/* What decides the next token, besides the logits and the sequence's own tokens: plain numbers that travel to the last
 * stage. There is no other state, so that a sequence taken up by another worker goes on with the same tokens. */

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef SC_MATH /* kernels/cuda compiles what stands below for devices as well */
#define SC_MATH static inline
#endif

enum { SAMPLE_MAX_BIAS = 1024, SAMPLE_MAX_TOP = 1024 };

struct sample_bias {
    int32_t token;
    float bias;
};

struct sample_params {
    float temperature; /* 0: greedy, ties to the lowest id */
    uint32_t top_k;    /* 0: off */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    float typical_p;   /* 1: off */
    float repetition_penalty; /* 1: off; divides positive logits and multiplies negative ones */
    float presence_penalty;   /* 0: off */
    float frequency_penalty;  /* 0: off */
    int32_t penalty_last;     /* tokens of history the penalties look at; -1: all, 0: none */
    uint64_t seed;
    uint32_t n_bias;
    const struct sample_bias *bias;
    const uint8_t *mask; /* NULL: every token may come; else those whose bit (i % 8 of byte i / 8) is set */
};

#define SAMPLE_PARAMS_DEFAULT \
    ((struct sample_params){.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .typical_p = 1, .repetition_penalty = 1, \
                            .penalty_last = 64})

/* Draws go through tokens best first, but by id where no filter orders them. */
SC_MATH bool sample_by_id(const struct sample_params *p, uint32_t n_vocab)
{
    return (p->top_k == 0 || p->top_k >= n_vocab) && p->typical_p >= 1 && p->top_p >= 1;
}

/* --- the arithmetic, for the sampler and for devices: likelihoods are integers, so that sums are exact in any order -------- */

#define SAMPLE_MASS_ONE 0x1p39 /* of 2^24 tokens the sum stays below 2^64 */

/* Of a likelihood e = exp(logit - max), at most 1. */
SC_MATH uint64_t sample_mass(float e)
{
    return (uint64_t)(int64_t)(e * 0x1p39f);
}

/* The same times the distance from the likeliest, d = logit - max: never negative. */
SC_MATH uint64_t sample_surprise(float e, float d)
{
    return e > 0 ? (uint64_t)(int64_t)(e * -d * 0x1p39f) : 0;
}

/* A mass of at least this much is `part` of the sum. */
SC_MATH uint64_t sample_part(uint64_t sum, float part)
{
    uint64_t ret = (uint64_t)((double)part * (double)sum);
    return ret > 0 ? ret : 1;
}

/* The mean of logit - max over the masses, and how far a logit is from it. */
SC_MATH float sample_mean(uint64_t weighted, uint64_t sum)
{
    return (float)(-(double)weighted / (double)sum);
}

SC_MATH float sample_distance(float logit, float max, float mean)
{
    return fabsf(logit - max - mean);
}

/* random / 2^64 of the sum. */
SC_MATH uint64_t sample_aim(uint64_t random, uint64_t sum)
{
    uint64_t a = random >> 32, b = random & 0xffffffffu, c = sum >> 32, d = sum & 0xffffffffu;
    uint64_t low = b * d, mid = a * d + (low >> 32), mid2 = b * c + (mid & 0xffffffffu);
    return a * c + (mid >> 32) + (mid2 >> 32);
}

/* What adding and multiplying may leave: never +inf. */
SC_MATH float sample_finite(float x)
{
    return x > 3.402823466e38f ? 3.402823466e38f : x;
}

/* Repetition once a token however often it was seen: as llama.cpp, whose users' settings shall mean the same here. */
SC_MATH float sample_penalized(float logit, float repetition, float frequency, float presence, uint32_t count)
{
    logit = logit > 0 ? logit / repetition : logit * repetition;
    return sample_finite(logit - ((float)count * frequency + presence));
}

/* --- what a device that samples is asked (backend_ops.sample), and what it finds; model/answer.h makes tokens of it ---------- */

struct sample_scan {
    float max;        /* the largest logit … */
    uint32_t id, bad; /* … its lowest token; the lowest whose logit is no number, UINT32_MAX: none */
    uint64_t sum;     /* of the masses of all */
};

/* Bias, or with a count the penalties of a token that was seen so often. */
struct sample_edit {
    int32_t token;
    uint32_t count;
    float bias;
};

enum { SAMPLE_AT_ONCE = 64, SAMPLE_MAX_GIVEN = 1024 }; /* at once; of one row */

/* Of all rows at once: what one row may have. */
static inline size_t sample_max_edits(uint32_t n_vocab)
{
    return (size_t)SAMPLE_MAX_BIAS + n_vocab;
}

struct sample_row {
    uint32_t wanted; /* index among the step's wanted rows */
    bool choose;     /* a token; by: */
    const struct sample_params *params; /* all but bias and seed */
    uint64_t random;
    const struct sample_edit *edits; /* biases in order of tokens, then penalties, each token once */
    uint32_t n_biases, n_edits;
    uint32_t top;    /* the likeliest tokens, up to SAMPLE_MAX_TOP … */
    uint32_t n_given; /* … and those given, up to SAMPLE_MAX_GIVEN */
    const int32_t *given;

    struct sample_scan raw, left; /* the model's own logits; those that edits and mask leave (without a sum), with choose */
    int32_t token;                /* the rest only where both have something to choose from */
    float logit;                  /* raw */
    uint32_t n_top;
    const int32_t *top_tokens; /* best first; until the next call */
    const float *top_logits, *given_logits;
};

#endif
