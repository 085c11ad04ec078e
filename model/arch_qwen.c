/* Qwen 2 and 2.5 (biases on q, k, v), Qwen 3 (norms on the heads instead), Qwen 3 with experts. */
#include "model/arch.h"

const struct arch arch_qwen2 = {
    .name = "qwen2",
    .rope = ROPE_HALVES,
    .act = ACT_SILU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_gated, NULL},
};

const struct arch arch_qwen3 = {
    .name = "qwen3",
    .rope = ROPE_HALVES,
    .act = ACT_SILU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_head_norms, rules_gated, NULL},
};

static int read_qwen3moe(const struct gguf *g, struct model_params *p, struct err *err)
{
    if (p->n_experts == 0)
        return err_set(err, ERR_INPUT, "qwen3moe.expert_count is 0 or missing: this family has experts");
    p->expert_ff = p->ff / p->n_experts_used;
    if (arch_u32(g, p->arch, "expert_feed_forward_length", false, &p->expert_ff, err) < 0)
        return -1;
    if (p->expert_ff > MODEL_MAX_DIM)
        return err_set(err, ERR_INPUT, "qwen3moe.expert_feed_forward_length is %u, at most %d allowed", p->expert_ff, MODEL_MAX_DIM);
    return 0;
}

const struct arch arch_qwen3moe = {
    .name = "qwen3moe",
    .rope = ROPE_HALVES,
    .act = ACT_SILU,
    .rules = (const struct tensor_rule *const[]){rules_attention, rules_head_norms, rules_gated, NULL},
    .read = read_qwen3moe,
};
