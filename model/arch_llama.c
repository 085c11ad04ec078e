/* Llama 1 to 3.3, Mistral, SmolLM2, Mixtral, and what calls itself "llama". */
#include "model/arch.h"

const struct arch arch_llama = {
    .name = "llama",
    .rope = ROPE_PAIRS,
    .act = ACT_SILU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_gated, NULL},
};
