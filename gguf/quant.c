/* See quant.h. The sizes are those of ggml's block structs: a block's scales and minima, and its quants. */
#include "gguf/quant.h"

#include <stddef.h>

static const struct quant_traits table[QUANT_TYPES] = {
    [QUANT_F32] = {"F32", 1, 4, true},
    [QUANT_F16] = {"F16", 1, 2, true},
    [QUANT_BF16] = {"BF16", 1, 2, true},
    [QUANT_F64] = {"F64", 1, 8, false},
    [QUANT_I8] = {"I8", 1, 1, false},
    [QUANT_I16] = {"I16", 1, 2, false},
    [QUANT_I32] = {"I32", 1, 4, false},
    [QUANT_I64] = {"I64", 1, 8, false},

    [QUANT_Q4_0] = {"Q4_0", 32, 2 + 16, true},
    [QUANT_Q4_1] = {"Q4_1", 32, 2 * 2 + 16, true},
    [QUANT_Q5_0] = {"Q5_0", 32, 2 + 4 + 16, true},
    [QUANT_Q5_1] = {"Q5_1", 32, 2 * 2 + 4 + 16, true},
    [QUANT_Q8_0] = {"Q8_0", 32, 2 + 32, true},
    [QUANT_Q8_1] = {"Q8_1", 32, 2 * 2 + 32, false},
    [QUANT_MXFP4] = {"MXFP4", 32, 1 + 16, true},
    [QUANT_NVFP4] = {"NVFP4", 64, 4 + 32, false},
    [QUANT_Q1_0] = {"Q1_0", 128, 2 + 16, false},
    [QUANT_Q2_0] = {"Q2_0", 64, 2 + 16, false},

    [QUANT_Q2_K] = {"Q2_K", 256, 2 * 2 + 16 + 64, true},
    [QUANT_Q3_K] = {"Q3_K", 256, 2 + 12 + 64 + 32, true},
    [QUANT_Q4_K] = {"Q4_K", 256, 2 * 2 + 12 + 128, true},
    [QUANT_Q5_K] = {"Q5_K", 256, 2 * 2 + 12 + 128 + 32, true},
    [QUANT_Q6_K] = {"Q6_K", 256, 2 + 16 + 192, true},
    [QUANT_Q8_K] = {"Q8_K", 256, 4 + 256 + 32, false},

    [QUANT_IQ1_S] = {"IQ1_S", 256, 2 + 32 + 16, false},
    [QUANT_IQ1_M] = {"IQ1_M", 256, 32 + 16 + 8, false},
    [QUANT_IQ2_XXS] = {"IQ2_XXS", 256, 2 + 64, false},
    [QUANT_IQ2_XS] = {"IQ2_XS", 256, 2 + 64 + 8, false},
    [QUANT_IQ2_S] = {"IQ2_S", 256, 2 + 64 + 16, false},
    [QUANT_IQ3_XXS] = {"IQ3_XXS", 256, 2 + 96, false},
    [QUANT_IQ3_S] = {"IQ3_S", 256, 2 + 104 + 4, false},
    [QUANT_IQ4_NL] = {"IQ4_NL", 32, 2 + 16, true},
    [QUANT_IQ4_XS] = {"IQ4_XS", 256, 2 + 2 + 4 + 128, true},
    [QUANT_TQ1_0] = {"TQ1_0", 256, 2 + 4 + 48, false},
    [QUANT_TQ2_0] = {"TQ2_0", 256, 2 + 64, false},
};

const struct quant_traits *quant_traits(uint32_t type)
{
    return type < QUANT_TYPES && table[type].name ? &table[type] : NULL;
}

uint64_t quant_bytes(uint32_t type, uint64_t n)
{
    const struct quant_traits *t = quant_traits(type);
    uint64_t bytes;
    if (!t || n % t->block || __builtin_mul_overflow(n / t->block, (uint64_t)t->bytes, &bytes))
        return 0;
    return bytes;
}

const char *quant_computed_names(void)
{
    /* Written out, so that no thread has to build it first; test_quant compares it with the table. */
    return "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, MXFP4, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS";
}
