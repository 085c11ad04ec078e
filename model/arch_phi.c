/* Phi-3 and 3.5: q, k, v in one tensor, gate and up in one, rotary factors for short and long contexts. */
#include "model/arch.h"

static int read_phi3(const struct gguf *g, struct model_params *p, struct err *err)
{
    if (arch_u32(g, p->arch, "attention.sliding_window", false, &p->window, err) < 0)
        return -1;
    p->rope.base_sliding = p->rope.base;
    p->rope.factor_sliding = p->rope.factor;
    if (p->window >= p->ctx_train)
        p->window = 0;
    return p->window ? arch_window_pattern(g, p, 0, err) : 0; /* all layers slide */
}

const struct arch arch_phi3 = {
    .name = "phi3",
    .rope = ROPE_HALVES,
    .act = ACT_SILU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_fused_gated, NULL},
    .read = read_phi3,
};
