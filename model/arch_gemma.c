/* Gemma 2 and 3: scaled embeddings, norms before and after each part, GELU, sliding windows in most layers; 2 caps its
 * scores and logits, 3 norms its heads and gives the sliding layers a rotary base of their own. The files' norm weights
 * already hold the family's "1 +". */
#include <math.h>

#include "model/arch.h"

/* The 27B ones divide by the width that the embedding would give a head, not by the head's own. */
static float attention_scale(const struct model_params *p, uint32_t layers_of_27b)
{
    return 1.0f / sqrtf((float)(p->n_layers == layers_of_27b ? p->embd / p->n_heads : p->head_dim_k));
}

static int read_gemma2(const struct gguf *g, struct model_params *p, struct err *err)
{
    p->embed_scale = sqrtf((float)p->embd);
    p->attn_scale = attention_scale(p, 46);
    p->window = 4096;
    p->attn_softcap = 50;
    p->final_softcap = 30;
    p->rope.base_sliding = p->rope.base;
    p->rope.factor_sliding = p->rope.factor;
    if (arch_u32(g, p->arch, "attention.sliding_window", false, &p->window, err) < 0 ||
        arch_f32(g, p->arch, "attn_logit_softcapping", false, &p->attn_softcap, err) < 0 ||
        arch_f32(g, p->arch, "final_logit_softcapping", false, &p->final_softcap, err) < 0 ||
        arch_f32(g, p->arch, "rope.freq_base_swa", false, &p->rope.base_sliding, err) < 0)
        return -1;
    return arch_window_pattern(g, p, 2, err);
}

static int read_gemma3(const struct gguf *g, struct model_params *p, struct err *err)
{
    p->embed_scale = sqrtf((float)p->embd);
    p->attn_scale = attention_scale(p, 62);
    if (arch_u32(g, p->arch, "attention.sliding_window", false, &p->window, err) < 0 ||
        arch_f32(g, p->arch, "final_logit_softcapping", false, &p->final_softcap, err) < 0 ||
        arch_f32(g, p->arch, "rope.freq_base_swa", false, &p->rope.base_sliding, err) < 0)
        return -1;
    return arch_window_pattern(g, p, 6, err);
}

const struct arch arch_gemma2 = {
    .name = "gemma2",
    .rope = ROPE_HALVES,
    .act = ACT_GELU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_post_norms, rules_gated, NULL},
    .read = read_gemma2,
};

const struct arch arch_gemma3 = {
    .name = "gemma3",
    .rope = ROPE_HALVES,
    .act = ACT_GELU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_head_norms, rules_post_norms, rules_gated, NULL},
    .read = read_gemma3,
};
