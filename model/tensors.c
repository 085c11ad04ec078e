/* The tensors of a range of layers: rules that families share, and the one walk over them that validates. */
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "model/arch.h"

#define WEIGHT(member, share) {PART_WEIGHT, offsetof(struct layer, member), share}
#define VEC(member, share) {PART_VEC, offsetof(struct layer, member), share}

const struct tensor_rule rules_attention[] = {
    {"attn_norm.weight", DIM_NONE, {VEC(attn_norm.weight, DIM_EMBD)}, 0, NULL},
    {"attn_qkv.weight", DIM_EMBD, {WEIGHT(q, DIM_Q), WEIGHT(k, DIM_K), WEIGHT(v, DIM_V)}, TENSOR_FUSED, NULL},
    {"attn_qkv.bias", DIM_NONE, {VEC(q_bias, DIM_Q), VEC(k_bias, DIM_K), VEC(v_bias, DIM_V)}, TENSOR_OPTIONAL, NULL},
    {"attn_q.weight", DIM_EMBD, {WEIGHT(q, DIM_Q)}, TENSOR_UNFUSED, NULL},
    {"attn_k.weight", DIM_EMBD, {WEIGHT(k, DIM_K)}, TENSOR_UNFUSED, NULL},
    {"attn_v.weight", DIM_EMBD, {WEIGHT(v, DIM_V)}, TENSOR_UNFUSED, NULL},
    {"attn_q.bias", DIM_NONE, {VEC(q_bias, DIM_Q)}, TENSOR_OPTIONAL, NULL},
    {"attn_k.bias", DIM_NONE, {VEC(k_bias, DIM_K)}, TENSOR_OPTIONAL, NULL},
    {"attn_v.bias", DIM_NONE, {VEC(v_bias, DIM_V)}, TENSOR_OPTIONAL, NULL},
    {"attn_output.weight", DIM_ATT, {WEIGHT(out, DIM_EMBD)}, 0, NULL},
    {"attn_output.bias", DIM_NONE, {VEC(out_bias, DIM_EMBD)}, TENSOR_OPTIONAL, NULL},
    {NULL, DIM_NONE, {{PART_NONE, 0, DIM_NONE}}, 0, NULL},
};

const struct tensor_rule rules_head_norms[] = {
    {"attn_q_norm.weight", DIM_NONE, {VEC(q_norm.weight, DIM_HEAD_K)}, 0, NULL},
    {"attn_k_norm.weight", DIM_NONE, {VEC(k_norm.weight, DIM_HEAD_K)}, 0, NULL},
    {NULL, DIM_NONE, {{PART_NONE, 0, DIM_NONE}}, 0, NULL},
};

const struct tensor_rule rules_post_norms[] = {
    {"post_attention_norm.weight", DIM_NONE, {VEC(attn_post_norm.weight, DIM_EMBD)}, 0, NULL},
    {"post_ffw_norm.weight", DIM_NONE, {VEC(ffn_post_norm.weight, DIM_EMBD)}, 0, NULL},
    {NULL, DIM_NONE, {{PART_NONE, 0, DIM_NONE}}, 0, NULL},
};

const struct tensor_rule rules_gated[] = {
    {"ffn_norm.weight", DIM_NONE, {VEC(ffn_norm.weight, DIM_EMBD)}, 0, NULL},
    {"ffn_gate.weight", DIM_EMBD, {WEIGHT(gate, DIM_FF)}, TENSOR_DENSE, NULL},
    {"ffn_up.weight", DIM_EMBD, {WEIGHT(up, DIM_FF)}, TENSOR_DENSE, NULL},
    {"ffn_down.weight", DIM_FF, {WEIGHT(down, DIM_EMBD)}, TENSOR_DENSE, NULL},
    {"ffn_gate_inp.weight", DIM_EMBD, {WEIGHT(experts.router, DIM_EXPERTS)}, TENSOR_EXPERTS, NULL},
    {"ffn_gate_exps.weight", DIM_EMBD, {WEIGHT(gate, DIM_EXPERT_FF)}, TENSOR_EXPERTS, "ffn_gate.%u.weight"},
    {"ffn_up_exps.weight", DIM_EMBD, {WEIGHT(up, DIM_EXPERT_FF)}, TENSOR_EXPERTS, "ffn_up.%u.weight"},
    {"ffn_down_exps.weight", DIM_EXPERT_FF, {WEIGHT(down, DIM_EMBD)}, TENSOR_EXPERTS, "ffn_down.%u.weight"},
    {NULL, DIM_NONE, {{PART_NONE, 0, DIM_NONE}}, 0, NULL},
};

const struct tensor_rule rules_fused_gated[] = {
    {"ffn_norm.weight", DIM_NONE, {VEC(ffn_norm.weight, DIM_EMBD)}, 0, NULL},
    {"ffn_up.weight", DIM_EMBD, {WEIGHT(gate, DIM_FF), WEIGHT(up, DIM_FF)}, 0, NULL},
    {"ffn_down.weight", DIM_FF, {WEIGHT(down, DIM_EMBD)}, 0, NULL},
    {NULL, DIM_NONE, {{PART_NONE, 0, DIM_NONE}}, 0, NULL},
};

enum { NAME_MAX_BYTES = 128 };

struct shape {
    uint32_t n;
    uint64_t dims[3];
};

static struct shape shape_of(const struct model_params *p, const struct tensor_rule *rule, bool one_expert)
{
    struct shape s = {0};
    uint64_t sum = 0;
    if (rule->cols != DIM_NONE)
        s.dims[s.n++] = model_dim(p, rule->cols);
    for (int i = 0; i < 3 && rule->parts[i].kind != PART_NONE; i++)
        sum += model_dim(p, rule->parts[i].dim);
    s.dims[s.n++] = sum;
    if (rule->each && !one_expert)
        s.dims[s.n++] = p->n_experts;
    return s;
}

/* "512 x 1024" */
static const char *shape_text(const uint64_t *dims, uint32_t n, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = '\0';
    for (uint32_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(buf + at, size - at, "%s%llu", i ? " x " : "", (unsigned long long)dims[i]);
    return buf;
}

static int check_tensor(const struct gguf_tensor *t, const struct shape *want, bool vec, struct err *err)
{
    const struct quant_traits *traits = quant_traits(t->type);
    char got[96], expected[96];
    bool same = true;
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++)
        same &= t->dims[i] == (i < want->n ? want->dims[i] : 1);
    if (!same)
        return err_set(err, ERR_INPUT, "tensor %s is %s, expected %s", t->name, shape_text(t->dims, t->n_dims, got, sizeof got),
                       shape_text(want->dims, want->n, expected, sizeof expected));
    if (!traits->computed)
        return err_set(err, ERR_UNSUPPORTED, "tensor %s has type %s, which is not supported; supported are %s", t->name, traits->name,
                       quant_computed_names());
    if (vec && traits->block != 1)
        return err_set(err, ERR_UNSUPPORTED, "tensor %s has type %s, expected F32, F16 or BF16", t->name, traits->name);
    return 0;
}

static int missing_tensor(const char *name, const struct shape *want, struct err *err)
{
    char expected[96];
    return err_set(err, ERR_INPUT, "tensor %s is missing, expected with shape %s", name,
                   shape_text(want->dims, want->n, expected, sizeof expected));
}

struct walk {
    const struct gguf *g;
    const struct model_params *p;
    model_tensor_fn fn;
    void *arg;
};

/* Experts in tensors of their own. */
static int walk_each_expert(const struct walk *w, const struct tensor_rule *rule, uint32_t layer, struct err *err)
{
    struct shape want = shape_of(w->p, rule, true);
    char name[NAME_MAX_BYTES];
    enum quant_type type = QUANT_F32;
    for (uint32_t e = 0; e < w->p->n_experts; e++) {
        int n = snprintf(name, sizeof name, "blk.%u.", layer);
        /* the names are ours, written out in the rules */
        const char *hole = strstr(rule->each, "%u");
        snprintf(name + n, sizeof name - (size_t)n, "%.*s%u%s", (int)(hole - rule->each), rule->each, e, hole + 2);
        const struct gguf_tensor *t = gguf_find_tensor(w->g, name);
        if (!t)
            return missing_tensor(name, &want, err);
        if (check_tensor(t, &want, false, err) != 0)
            return -1;
        if (e > 0 && t->type != type)
            return err_set(err, ERR_UNSUPPORTED, "tensor %s has type %s, expert 0 has %s; one layer's experts must have one type", name,
                           quant_traits(t->type)->name, quant_traits(type)->name);
        type = t->type;
        struct model_tensor mt = {.tensor = t, .rule = rule, .layer = layer, .expert = e, .place = PLACE_LAYER};
        if (w->fn(w->arg, &mt, err) != 0)
            return -1;
    }
    return 0;
}

/* One rule of one layer. *fused is set when a fused tensor was found. */
static int walk_rule(const struct walk *w, const struct tensor_rule *rule, uint32_t layer, bool *fused, struct err *err)
{
    bool experts = w->p->n_experts > 0;
    char name[NAME_MAX_BYTES];
    if (((rule->flags & TENSOR_DENSE) && experts) || ((rule->flags & TENSOR_EXPERTS) && !experts))
        return 0;
    if ((rule->flags & TENSOR_UNFUSED) && *fused)
        return 0;
    snprintf(name, sizeof name, "blk.%u.%s", layer, rule->name);
    const struct gguf_tensor *t = gguf_find_tensor(w->g, name);
    struct shape want = shape_of(w->p, rule, false);
    if (!t && rule->each)
        return walk_each_expert(w, rule, layer, err);
    if (!t && (rule->flags & (TENSOR_OPTIONAL | TENSOR_FUSED)))
        return 0;
    if (!t)
        return missing_tensor(name, &want, err);
    if (check_tensor(t, &want, rule->parts[0].kind == PART_VEC, err) != 0)
        return -1;
    if (rule->flags & TENSOR_FUSED)
        *fused = true;
    struct model_tensor mt = {.tensor = t, .rule = rule, .layer = layer, .whole = true, .place = PLACE_LAYER};
    return w->fn(w->arg, &mt, err);
}

static int walk_layer(const struct walk *w, uint32_t layer, struct err *err)
{
    for (const struct tensor_rule *const *list = w->p->arch->rules; *list; list++) {
        bool fused = false;
        for (const struct tensor_rule *rule = *list; rule->name; rule++)
            if (walk_rule(w, rule, layer, &fused, err) != 0)
                return -1;
    }
    return 0;
}

/* A tensor outside the layers; *ret_found says whether there was one. */
static int walk_single(const struct walk *w, const char *name, enum tensor_place place, struct shape want, bool required, struct err *err)
{
    const struct gguf_tensor *t = gguf_find_tensor(w->g, name);
    if (!t)
        return required ? missing_tensor(name, &want, err) : 0;
    if (check_tensor(t, &want, want.n == 1, err) != 0)
        return -1;
    struct model_tensor mt = {.tensor = t, .whole = true, .place = place};
    return w->fn(w->arg, &mt, err);
}

int model_tensors(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head,
                  model_tensor_fn fn, void *arg, struct err *err)
{
    struct walk w = {g, p, fn, arg};
    struct shape table = {2, {p->embd, p->n_vocab, 0}}, vector = {1, {p->embd, 0, 0}}, half = {1, {p->rope.n_dims / 2, 0, 0}};
    if (first > last || last > p->n_layers)
        return err_set(err, ERR_USAGE, "layers %u to %u asked for, the model has %u", first, last, p->n_layers);
    if ((embed || (head && p->tied)) && walk_single(&w, "token_embd.weight", PLACE_EMBED, table, true, err) != 0)
        return -1;
    /* Factors of length 0 would be those of a model without rotary positions. */
    if (p->rope.n_dims && first < last &&
        (walk_single(&w, "rope_freqs.weight", PLACE_ROPE_FREQS, half, false, err) != 0 ||
         walk_single(&w, "rope_factors_long.weight", PLACE_ROPE_LONG, half, false, err) != 0 ||
         walk_single(&w, "rope_factors_short.weight", PLACE_ROPE_SHORT, half, false, err) != 0))
        return -1;
    for (uint32_t layer = first; layer < last; layer++)
        if (walk_layer(&w, layer, err) != 0)
            return -1;
    if (head && (walk_single(&w, "output_norm.weight", PLACE_HEAD_NORM, vector, true, err) != 0 ||
                 (!p->tied && walk_single(&w, "output.weight", PLACE_HEAD, table, true, err) != 0)))
        return -1;
    return 0;
}
