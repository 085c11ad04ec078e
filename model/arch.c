/* The table of families and the metadata that all of them share. Keys are "<architecture>.<name>". */
#include "model/arch.h"

#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "kernels/fmath.h"

static const struct arch *const archs[] = {
    &arch_llama, &arch_qwen2, &arch_qwen3, &arch_qwen3moe, &arch_gemma2, &arch_gemma3, &arch_phi3,
};

enum { N_ARCHS = sizeof archs / sizeof *archs, KEY_MAX_BYTES = 128 };

const struct arch *arch_find(const char *name, size_t len)
{
    for (int i = 0; i < N_ARCHS; i++)
        if (strlen(archs[i]->name) == len && memcmp(archs[i]->name, name, len) == 0)
            return archs[i];
    return NULL;
}

static const char *key_of(const struct arch *a, const char *name, char buf[KEY_MAX_BYTES])
{
    snprintf(buf, KEY_MAX_BYTES, "%s.%s", a->name, name);
    return buf;
}

static int missing(const struct arch *a, const char *name, struct err *err)
{
    return err_set(err, ERR_INPUT, "metadata key %s.%s is missing: the file is no complete model", a->name, name);
}

int arch_u32(const struct gguf *g, const struct arch *a, const char *name, bool required, uint32_t *ret, struct err *err)
{
    char key[KEY_MAX_BYTES];
    int rc = gguf_get_u32(g, key_of(a, name, key), ret, err);
    return rc == 0 && required ? missing(a, name, err) : rc;
}

int arch_f32(const struct gguf *g, const struct arch *a, const char *name, bool required, float *ret, struct err *err)
{
    char key[KEY_MAX_BYTES];
    int rc = gguf_get_f32(g, key_of(a, name, key), ret, err);
    if (rc == 1 && !isfinite(*ret))
        return err_set(err, ERR_INPUT, "metadata key %s is not a finite number", key);
    return rc == 0 && required ? missing(a, name, err) : rc;
}

/* A number that some files give once for each layer: taken where all are the same. */
static int uniform_u32(const struct gguf *g, const struct arch *a, const char *name, uint32_t *ret, struct err *err)
{
    char key[KEY_MAX_BYTES];
    const struct gguf_kv *kv = gguf_find(g, key_of(a, name, key));
    if (!kv || kv->type != GGUF_ARRAY)
        return arch_u32(g, a, name, false, ret, err);
    struct gguf_array list;
    if (gguf_get_array(g, key, GGUF_I32, &list, err) < 0)
        return -1;
    for (uint64_t i = 1; i < list.count; i++)
        if (gguf_array_int(&list, i) != gguf_array_int(&list, 0))
            return err_set(err, ERR_UNSUPPORTED, "metadata key %s: layers differ (%lld and %lld); only equal layers are supported", key,
                           (long long)gguf_array_int(&list, 0), (long long)gguf_array_int(&list, i));
    if (list.count == 0 || gguf_array_int(&list, 0) < 0 || gguf_array_int(&list, 0) > UINT32_MAX)
        return err_set(err, ERR_INPUT, "metadata key %s: an empty list or a number out of range", key);
    *ret = (uint32_t)gguf_array_int(&list, 0);
    return 1;
}

static int in_range(const struct arch *a, const char *name, uint64_t value, uint64_t low, uint64_t high, struct err *err)
{
    if (value >= low && value <= high)
        return 0;
    return err_set(err, ERR_INPUT, "%s.%s is %llu, allowed are %llu to %llu", a->name, name, (unsigned long long)value,
                   (unsigned long long)low, (unsigned long long)high);
}

static int read_sizes(const struct gguf *g, struct model_params *p, struct err *err)
{
    const struct arch *a = p->arch;
    p->ctx_train = MODEL_DEFAULT_CTX;
    if (arch_u32(g, a, "block_count", true, &p->n_layers, err) < 0 || arch_u32(g, a, "embedding_length", true, &p->embd, err) < 0 ||
        arch_u32(g, a, "context_length", false, &p->ctx_train, err) < 0 || uniform_u32(g, a, "feed_forward_length", &p->ff, err) < 0 ||
        uniform_u32(g, a, "attention.head_count", &p->n_heads, err) < 0)
        return -1;
    if (p->n_heads == 0)
        return missing(a, "attention.head_count", err);
    if (in_range(a, "block_count", p->n_layers, 1, MODEL_MAX_LAYERS, err) || in_range(a, "embedding_length", p->embd, 1, MODEL_MAX_DIM, err) ||
        in_range(a, "context_length", p->ctx_train, 1, UINT32_MAX, err) || in_range(a, "attention.head_count", p->n_heads, 1, 65536, err) ||
        in_range(a, "feed_forward_length", p->ff, 0, MODEL_MAX_DIM, err))
        return -1;
    if (p->ctx_train > MODEL_MAX_CTX)
        p->ctx_train = MODEL_MAX_CTX;

    p->n_kv_heads = p->n_heads;
    p->head_dim_k = p->head_dim_v = p->embd / p->n_heads;
    if (uniform_u32(g, a, "attention.head_count_kv", &p->n_kv_heads, err) < 0 ||
        arch_u32(g, a, "attention.key_length", false, &p->head_dim_k, err) < 0 ||
        arch_u32(g, a, "attention.value_length", false, &p->head_dim_v, err) < 0 ||
        arch_f32(g, a, "attention.layer_norm_rms_epsilon", true, &p->norm_eps, err) < 0)
        return -1;
    if (in_range(a, "attention.head_count_kv", p->n_kv_heads, 1, p->n_heads, err) ||
        in_range(a, "attention.key_length", p->head_dim_k, 1, MODEL_MAX_HEAD_DIM, err) ||
        in_range(a, "attention.value_length", p->head_dim_v, 1, MODEL_MAX_HEAD_DIM, err) ||
        in_range(a, "attention.head_count times key_length", (uint64_t)p->n_heads * p->head_dim_k, 1, MODEL_MAX_DIM, err) ||
        in_range(a, "attention.head_count times value_length", (uint64_t)p->n_heads * p->head_dim_v, 1, MODEL_MAX_DIM, err))
        return -1;
    if (p->n_heads % p->n_kv_heads != 0)
        return err_set(err, ERR_INPUT, "%s.attention.head_count is %u, not a multiple of head_count_kv %u", a->name, p->n_heads, p->n_kv_heads);
    if (p->norm_eps < 0)
        return err_set(err, ERR_INPUT, "%s.attention.layer_norm_rms_epsilon is %g, must not be negative", a->name, (double)p->norm_eps);
    return 0;
}

static int read_rope(const struct gguf *g, struct model_params *p, struct err *err)
{
    const struct arch *a = p->arch;
    struct rope_params *r = &p->rope;
    char key[KEY_MAX_BYTES];
    struct gguf_str type = {"linear", 6};
    float factor = 0;
    int rc;

    *r = (struct rope_params){.n_dims = p->head_dim_k, .base = 10000, .base_sliding = 10000, .factor_sliding = 1, .original_ctx = p->ctx_train,
                              .attn_factor = 1, .beta_fast = 32, .beta_slow = 1};
    if (arch_u32(g, a, "rope.dimension_count", false, &r->n_dims, err) < 0 || arch_f32(g, a, "rope.freq_base", false, &r->base, err) < 0 ||
        arch_u32(g, a, "rope.scaling.original_context_length", false, &r->original_ctx, err) < 0 ||
        arch_f32(g, a, "rope.scaling.attn_factor", false, &r->attn_factor, err) < 0 ||
        arch_f32(g, a, "rope.scaling.yarn_beta_fast", false, &r->beta_fast, err) < 0 ||
        arch_f32(g, a, "rope.scaling.yarn_beta_slow", false, &r->beta_slow, err) < 0 ||
        arch_f32(g, a, "rope.scaling.yarn_log_multiplier", false, &r->log_multiplier, err) < 0 ||
        gguf_get_str(g, key_of(a, "rope.scaling.type", key), &type, err) < 0)
        return -1;
    rc = arch_f32(g, a, "rope.scaling.factor", false, &factor, err);
    if (rc == 0)
        rc = arch_f32(g, a, "rope.scale_linear", false, &factor, err);
    if (rc < 0)
        return -1;
    if (in_range(a, "rope.dimension_count", r->n_dims, 0, p->head_dim_k, err))
        return -1;
    if (r->n_dims % 2 != 0)
        return err_set(err, ERR_INPUT, "%s.rope.dimension_count is %u, must be even", a->name, r->n_dims);
    if (!(r->base > 0) || factor < 0 || !(r->beta_fast > 0) || !(r->beta_slow > 0))
        return err_set(err, ERR_INPUT, "%s.rope: freq_base %g, scaling factor %g, beta %g to %g: must be positive", a->name, (double)r->base,
                       (double)factor, (double)r->beta_fast, (double)r->beta_slow);
    static const struct {
        const char *name;
        enum rope_scaling scaling;
    } types[] = {{"none", ROPE_SCALE_NONE}, {"linear", ROPE_SCALE_LINEAR}, {"yarn", ROPE_SCALE_YARN}, {"longrope", ROPE_SCALE_LONG}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (type.len == strlen(types[i].name) && memcmp(type.s, types[i].name, type.len) == 0) {
            r->scaling = types[i].scaling;
            r->factor = factor == 0 || r->scaling == ROPE_SCALE_NONE ? 1 : factor;
            return 0;
        }
    char shown[64];
    return err_set(err, ERR_UNSUPPORTED, "metadata key %s is '%s'; known are none, linear, yarn, longrope", key,
                   err_printable(shown, sizeof shown, type.s, type.len));
}

static int read_experts(const struct gguf *g, struct model_params *p, struct err *err)
{
    const struct arch *a = p->arch;
    p->experts_normalize = true;
    p->expert_ff = p->ff;
    if (arch_u32(g, a, "expert_count", false, &p->n_experts, err) < 0 || arch_u32(g, a, "expert_used_count", false, &p->n_experts_used, err) < 0 ||
        arch_f32(g, a, "expert_weights_scale", false, &p->experts_scale, err) < 0)
        return -1;
    if (p->n_experts == 0) {
        p->n_experts_used = 0;
        return 0;
    }
    if (in_range(a, "expert_count", p->n_experts, 1, MODEL_MAX_EXPERTS, err) ||
        in_range(a, "expert_used_count", p->n_experts_used, 1, p->n_experts < MAX_EXPERTS_USED ? p->n_experts : MAX_EXPERTS_USED, err))
        return -1;
    return 0;
}

static int read_vocab(const struct gguf *g, struct model_params *p, struct err *err)
{
    const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    if (!t)
        return err_set(err, ERR_INPUT, "tensor token_embd.weight is missing: the file is no complete model");
    if (t->dims[1] < 1 || t->dims[1] > MODEL_MAX_VOCAB)
        return err_set(err, ERR_INPUT, "tensor token_embd.weight has %llu rows, allowed are 1 to %d", (unsigned long long)t->dims[1], MODEL_MAX_VOCAB);
    p->n_vocab = (uint32_t)t->dims[1];
    p->tied = !gguf_find_tensor(g, "output.weight");
    return 0;
}

static int unknown_arch(const struct gguf_str *name, struct err *err)
{
    struct strbuf known;
    char shown[64];
    strbuf_init(&known, 512);
    for (int i = 0; i < N_ARCHS; i++)
        strbuf_printf(&known, "%s%s", i ? ", " : "", archs[i]->name);
    err_set(err, ERR_UNSUPPORTED, "architecture '%s' is not supported; supported are %s", err_printable(shown, sizeof shown, name->s, name->len),
            strbuf_str(&known));
    strbuf_fini(&known);
    return -1;
}

int model_params_read(const struct gguf *g, struct model_params *ret, struct err *err)
{
    struct gguf_str name;
    struct model_params p = {.embed_scale = 1};
    int rc = gguf_get_str(g, "general.architecture", &name, err);
    if (rc == 0)
        return err_set(err, ERR_INPUT, "metadata key general.architecture is missing: the file is no model");
    if (rc < 0)
        return -1;
    if (!(p.arch = arch_find(name.s, name.len)))
        return unknown_arch(&name, err);
    if (read_sizes(g, &p, err) != 0 || read_rope(g, &p, err) != 0 || read_experts(g, &p, err) != 0 || read_vocab(g, &p, err) != 0)
        return -1;
    p.attn_scale = 1.0f / sqrtf((float)p.head_dim_k);
    if (p.arch->read && p.arch->read(g, &p, err) != 0)
        return -1;
    if (!(p.rope.base_sliding > 0))
        return err_set(err, ERR_INPUT, "%s.rope.freq_base_swa is %g, must be positive", p.arch->name, (double)p.rope.base_sliding);
    if (p.n_experts ? p.expert_ff == 0 : p.ff == 0)
        return missing(p.arch, p.n_experts ? "expert_feed_forward_length" : "feed_forward_length", err);
    *ret = p;
    return 0;
}

uint64_t model_dim(const struct model_params *p, enum dim dim)
{
    switch (dim) {
    case DIM_NONE: return 0;
    case DIM_EMBD: return p->embd;
    case DIM_VOCAB: return p->n_vocab;
    case DIM_Q: return (uint64_t)p->n_heads * p->head_dim_k;
    case DIM_K: return (uint64_t)p->n_kv_heads * p->head_dim_k;
    case DIM_V: return (uint64_t)p->n_kv_heads * p->head_dim_v;
    case DIM_ATT: return (uint64_t)p->n_heads * p->head_dim_v;
    case DIM_FF: return p->ff;
    case DIM_EXPERTS: return p->n_experts;
    case DIM_EXPERT_FF: return p->expert_ff;
    case DIM_HEAD_K: return p->head_dim_k;
    case DIM_ROPE_HALF: return p->rope.n_dims / 2;
    }
    return 0;
}

int arch_window_pattern(const struct gguf *g, struct model_params *p, uint32_t every, struct err *err)
{
    char key[KEY_MAX_BYTES];
    const struct gguf_kv *kv = gguf_find(g, key_of(p->arch, "attention.sliding_window_pattern", key));
    if (kv && kv->type == GGUF_ARRAY) {
        struct gguf_array list;
        enum gguf_value_type item = kv->v.array.type == GGUF_BOOL ? GGUF_BOOL : GGUF_I32; /* files have either */
        if (gguf_get_array(g, key, item, &list, err) < 0)
            return -1;
        if (list.count < p->n_layers)
            return err_set(err, ERR_INPUT, "metadata key %s has %llu entries for %u layers", key, (unsigned long long)list.count, p->n_layers);
        for (uint32_t i = 0; i < p->n_layers; i++)
            p->sliding[i] = gguf_array_int(&list, i) != 0;
        return 0;
    }
    if (arch_u32(g, p->arch, "attention.sliding_window_pattern", false, &every, err) < 0)
        return -1;
    for (uint32_t i = 0; i < p->n_layers; i++)
        p->sliding[i] = every == 0 || i % every + 1 < every;
    return 0;
}

void model_layer_init(const struct model_params *p, uint32_t layer, struct layer *ret)
{
    bool sliding = p->window && p->sliding[layer];
    memset(ret, 0, sizeof *ret);
    struct norm *norms[] = {&ret->attn_norm, &ret->q_norm, &ret->k_norm, &ret->attn_post_norm, &ret->ffn_norm, &ret->ffn_post_norm};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        norms[i]->eps = p->norm_eps;
    ret->attn = (struct attention){
        .n_heads = p->n_heads,
        .n_kv_heads = p->n_kv_heads,
        .head_dim_k = p->head_dim_k,
        .head_dim_v = p->head_dim_v,
        .scale = p->attn_scale,
        .softcap = p->attn_softcap,
        .window = sliding ? p->window : 0,
        .group = sliding ? KV_SLIDING : KV_FULL,
        .rope = sliding ? 1 : 0,
    };
    ret->act = p->arch->act;
    ret->experts.n = p->n_experts;
    ret->experts.n_used = p->n_experts_used;
    ret->experts.sigmoid = p->experts_sigmoid;
    ret->experts.normalize = p->experts_normalize;
    ret->experts.scale = p->experts_scale;
}
