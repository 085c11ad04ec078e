#ifndef GGUF_QUANT_H
#define GGUF_QUANT_H

/* The quantizations that a GGUF file may hold: block sizes and names, no arithmetic (that is kernels/'s). One row a type
 * in quant.c; the numbers are ggml's. Every type ggml ever defined is recognised, so that a file's layout can be checked;
 * `computed` tells those that Stagecoach can run. */

#include <stdbool.h>
#include <stdint.h>

enum quant_type {
    QUANT_F32 = 0, QUANT_F16 = 1, QUANT_Q4_0 = 2, QUANT_Q4_1 = 3, QUANT_Q5_0 = 6, QUANT_Q5_1 = 7, QUANT_Q8_0 = 8,
    QUANT_Q8_1 = 9, QUANT_Q2_K = 10, QUANT_Q3_K = 11, QUANT_Q4_K = 12, QUANT_Q5_K = 13, QUANT_Q6_K = 14, QUANT_Q8_K = 15,
    QUANT_IQ2_XXS = 16, QUANT_IQ2_XS = 17, QUANT_IQ3_XXS = 18, QUANT_IQ1_S = 19, QUANT_IQ4_NL = 20, QUANT_IQ3_S = 21,
    QUANT_IQ2_S = 22, QUANT_IQ4_XS = 23, QUANT_I8 = 24, QUANT_I16 = 25, QUANT_I32 = 26, QUANT_I64 = 27, QUANT_F64 = 28,
    QUANT_IQ1_M = 29, QUANT_BF16 = 30, QUANT_TQ1_0 = 34, QUANT_TQ2_0 = 35, QUANT_MXFP4 = 39, QUANT_NVFP4 = 40, QUANT_Q1_0 = 41,
    QUANT_Q2_0 = 42,
    QUANT_TYPES = 64,
};

struct quant_traits {
    const char *name; /* NULL: ggml has no such type */
    uint32_t block;   /* elements in a block */
    uint32_t bytes;   /* bytes of a block */
    bool computed;    /* Stagecoach can compute with it */
};

/* NULL for a number that names no type. */
const struct quant_traits *quant_traits(uint32_t type);
/* Bytes of n elements, n a multiple of the block; 0 if it is not, or the type is unknown, or it overflows. */
uint64_t quant_bytes(uint32_t type, uint64_t n);
/* "F32, F16, …": the computed ones, for messages. */
const char *quant_computed_names(void);

#endif
