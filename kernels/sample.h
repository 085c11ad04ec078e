#ifndef KERNELS_SAMPLE_H
#define KERNELS_SAMPLE_H

/* What decides the next token, besides the logits and the sequence's own tokens: plain numbers that travel to the last
 * stage. There is no other state, so that a sequence taken up by another worker goes on with the same tokens. */

#include <stdint.h>

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

#endif
