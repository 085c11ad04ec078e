/* See model_build.h. */
#include "tests/model/model_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/checkkernels/data.h"

const struct model_spec model_specs[MODEL_SPECS] = {
    {.name = "llama", .arch = "llama", .layers = 3},
    {.name = "llama-tied", .arch = "llama", .layers = 2, .tied = true},
    {.name = "llama-fused", .arch = "llama", .layers = 2, .fused_qkv = true},
    {.name = "llama-freqs", .arch = "llama", .layers = 2, .freqs = true},
    {.name = "llama-linear", .arch = "llama", .layers = 2, .scaling = "linear"},
    {.name = "llama-yarn", .arch = "llama", .layers = 2, .scaling = "yarn"},
    {.name = "llama-experts", .arch = "llama", .layers = 3, .experts = 4},
    {.name = "llama-experts-apart", .arch = "llama", .layers = 2, .experts = 4, .apart = true},
    {.name = "llama-wide", .arch = "llama", .layers = 2, .wide_values = true},
    {.name = "qwen2", .arch = "qwen2", .layers = 3},
    {.name = "qwen2-tied", .arch = "qwen2", .layers = 2, .tied = true},
    {.name = "qwen3", .arch = "qwen3", .layers = 3},
    {.name = "qwen3moe", .arch = "qwen3moe", .layers = 3, .experts = 5},
    {.name = "gemma2", .arch = "gemma2", .layers = 3, .tied = true, .window = true},
    {.name = "gemma3", .arch = "gemma3", .layers = 3, .tied = true, .window = true},
    {.name = "gemma3-full", .arch = "gemma3", .layers = 2, .tied = true},
    {.name = "phi3", .arch = "phi3", .layers = 3},
    {.name = "phi3-window", .arch = "phi3", .layers = 2, .window = true},
    {.name = "phi3-long", .arch = "phi3", .layers = 2, .long_short = true, .scaling = "longrope"},
};

const struct model_spec *model_spec_of(const char *name)
{
    for (int i = 0; i < MODEL_SPECS; i++)
        if (strcmp(model_specs[i].name, name) == 0)
            return &model_specs[i];
    fprintf(stderr, "no model %s\n", name);
    exit(99);
}

struct build {
    struct gguf_build *g;
    const struct model_spec *spec;
    const char *except;
    enum quant_type quant;
    struct rng rng;
    uint32_t embd, ff, heads, kv_heads, dim_k, dim_v;
};

/* --- metadata ----------------------------------------------------------------------------------------------------------- */

static bool left_out(const struct build *b, const char *name)
{
    return b->except && strcmp(b->except, name) == 0;
}

static void put_int(struct build *b, const char *name, uint32_t value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", b->spec->arch, name);
    if (!left_out(b, name))
        gguf_build_int(b->g, key, GGUF_U32, value);
}

static void put_float(struct build *b, const char *name, double value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", b->spec->arch, name);
    if (!left_out(b, name))
        gguf_build_float(b->g, key, GGUF_F32, value);
}

static void put_metadata(struct build *b)
{
    const struct model_spec *s = b->spec;
    char key[128];
    if (!left_out(b, "general.architecture"))
        gguf_build_str(b->g, "general.architecture", s->arch);
    put_int(b, "block_count", s->layers);
    put_int(b, "context_length", 4096);
    put_int(b, "embedding_length", b->embd);
    put_int(b, "feed_forward_length", b->ff);
    put_int(b, "attention.head_count", b->heads);
    put_int(b, "attention.head_count_kv", b->kv_heads);
    put_int(b, "attention.key_length", b->dim_k);
    put_int(b, "attention.value_length", b->dim_v);
    put_float(b, "attention.layer_norm_rms_epsilon", 1e-5);
    put_float(b, "rope.freq_base", 10000);
    if (s->experts) {
        put_int(b, "expert_count", s->experts);
        put_int(b, "expert_used_count", 2);
        if (strcmp(s->arch, "qwen3moe") == 0)
            put_int(b, "expert_feed_forward_length", b->ff);
    }
    if (s->window) {
        put_int(b, "attention.sliding_window", MODEL_WINDOW);
        if (strcmp(s->arch, "gemma3") == 0)
            put_int(b, "attention.sliding_window_pattern", 3);
    }
    if (s->scaling) {
        snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
        gguf_build_str(b->g, key, s->scaling);
        put_int(b, "rope.scaling.original_context_length", 256);
        if (strcmp(s->scaling, "longrope") != 0)
            put_float(b, "rope.scaling.factor", 4);
        else
            put_float(b, "rope.scaling.attn_factor", 1.19);
    }
}

/* --- tensors ------------------------------------------------------------------------------------------------------------ */

static void put_tensor(struct build *b, const char *name, enum quant_type type, uint32_t n_dims, const uint64_t *dims, float sd)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < n_dims; i++)
        n *= dims[i];
    char *data = malloc(quant_bytes(type, n));
    if (!data)
        exit(99);
    data_blocks(&b->rng, type, n / quant_traits(type)->block, sd, data);
    if (!left_out(b, name))
        gguf_build_tensor(b->g, name, type, n_dims, dims, data);
    free(data);
}

/* A matrix of the layer, its deviation so that what comes out is as large as what goes in. */
static void put_matrix(struct build *b, uint32_t layer, const char *name, uint32_t cols, uint32_t rows, uint32_t mats)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%u.%s.weight", layer, name);
    put_tensor(b, full, b->quant, mats ? 3 : 2, (uint64_t[]){cols, rows, mats}, 1.5f / sqrtf((float)cols));
}

static void put_vector(struct build *b, const char *name, uint32_t n, float mean, float sd)
{
    float *v = malloc(n * sizeof *v);
    if (!v)
        exit(99);
    for (uint32_t i = 0; i < n; i++)
        v[i] = mean + sd * rng_normal(&b->rng);
    if (!left_out(b, name))
        gguf_build_tensor(b->g, name, QUANT_F32, 1, (uint64_t[]){n}, v);
    free(v);
}

static void put_norm(struct build *b, uint32_t layer, const char *name, uint32_t n)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%u.%s.weight", layer, name);
    put_vector(b, full, n, 1, 0.1f);
}

static void put_bias(struct build *b, uint32_t layer, const char *name, uint32_t n)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%u.%s.bias", layer, name);
    put_vector(b, full, n, 0, 0.2f);
}

static void put_attention(struct build *b, uint32_t i)
{
    const char *arch = b->spec->arch;
    uint32_t q = b->heads * b->dim_k, k = b->kv_heads * b->dim_k, v = b->kv_heads * b->dim_v;
    put_norm(b, i, "attn_norm", b->embd);
    if (b->spec->fused_qkv || strcmp(arch, "phi3") == 0) {
        put_matrix(b, i, "attn_qkv", b->embd, q + k + v, 0);
    } else {
        put_matrix(b, i, "attn_q", b->embd, q, 0);
        put_matrix(b, i, "attn_k", b->embd, k, 0);
        put_matrix(b, i, "attn_v", b->embd, v, 0);
    }
    if (strcmp(arch, "qwen2") == 0) {
        put_bias(b, i, "attn_q", q);
        put_bias(b, i, "attn_k", k);
        put_bias(b, i, "attn_v", v);
    }
    if (strncmp(arch, "qwen3", 5) == 0 || strcmp(arch, "gemma3") == 0) {
        put_norm(b, i, "attn_q_norm", b->dim_k);
        put_norm(b, i, "attn_k_norm", b->dim_k);
    }
    put_matrix(b, i, "attn_output", b->heads * b->dim_v, b->embd, 0);
}

static void put_experts(struct build *b, uint32_t i)
{
    char name[64], full[96];
    snprintf(full, sizeof full, "blk.%u.ffn_gate_inp.weight", i);
    put_tensor(b, full, QUANT_F32, 2, (uint64_t[]){b->embd, b->spec->experts}, 1.5f / sqrtf((float)b->embd));
    if (!b->spec->apart) {
        put_matrix(b, i, "ffn_gate_exps", b->embd, b->ff, b->spec->experts);
        put_matrix(b, i, "ffn_up_exps", b->embd, b->ff, b->spec->experts);
        put_matrix(b, i, "ffn_down_exps", b->ff, b->embd, b->spec->experts);
        return;
    }
    for (uint32_t e = 0; e < b->spec->experts; e++) {
        snprintf(name, sizeof name, "ffn_gate.%u", e);
        put_matrix(b, i, name, b->embd, b->ff, 0);
        snprintf(name, sizeof name, "ffn_up.%u", e);
        put_matrix(b, i, name, b->embd, b->ff, 0);
        snprintf(name, sizeof name, "ffn_down.%u", e);
        put_matrix(b, i, name, b->ff, b->embd, 0);
    }
}

static void put_layer(struct build *b, uint32_t i)
{
    put_attention(b, i);
    put_norm(b, i, "ffn_norm", b->embd);
    if (strncmp(b->spec->arch, "gemma", 5) == 0) {
        put_norm(b, i, "post_attention_norm", b->embd);
        put_norm(b, i, "post_ffw_norm", b->embd);
    }
    if (b->spec->experts) {
        put_experts(b, i);
        return;
    }
    if (strcmp(b->spec->arch, "phi3") == 0) {
        put_matrix(b, i, "ffn_up", b->embd, 2 * b->ff, 0);
    } else {
        put_matrix(b, i, "ffn_gate", b->embd, b->ff, 0);
        put_matrix(b, i, "ffn_up", b->embd, b->ff, 0);
    }
    put_matrix(b, i, "ffn_down", b->ff, b->embd, 0);
}

/* Factors that grow from 1 to `most`. */
static void put_factors(struct build *b, const char *name, float most)
{
    uint32_t n = b->dim_k / 2;
    float f[256];
    for (uint32_t i = 0; i < n; i++)
        f[i] = 1 + (most - 1) * (float)i / (float)n;
    if (!left_out(b, name))
        gguf_build_tensor(b->g, name, QUANT_F32, 1, (uint64_t[]){n}, f);
}

void model_build(struct gguf_build *ret, const struct model_spec *spec, enum quant_type quant, const char *except)
{
    uint32_t block = quant_traits(quant)->block;
    bool gemma = strncmp(spec->arch, "gemma", 5) == 0;
    struct build b = {.g = ret, .spec = spec, .except = except, .quant = quant, .heads = 4, .kv_heads = 2, .rng = {quant + 1000}};
    b.embd = block == 256 ? 256 : block == 32 ? 64 : 60;
    b.ff = block == 256 ? 256 : block == 32 ? 96 : 100;
    b.ff *= spec->big ? spec->big : 1;
    b.dim_k = b.dim_v = block == 256 ? 64 : 16;
    if (spec->wide_values)
        b.dim_v *= 2;
    gguf_build_init(ret, 3, 0);
    put_metadata(&b);
    put_tensor(&b, "token_embd.weight", quant, 2, (uint64_t[]){b.embd, MODEL_VOCAB}, gemma ? 1 / sqrtf((float)b.embd) : 0.5f);
    if (spec->freqs)
        put_factors(&b, "rope_freqs.weight", 8);
    if (spec->long_short) {
        put_factors(&b, "rope_factors_long.weight", 20);
        put_factors(&b, "rope_factors_short.weight", 2);
    }
    for (uint32_t i = 0; i < spec->layers; i++)
        put_layer(&b, i);
    put_vector(&b, "output_norm.weight", b.embd, 1, 0.1f);
    if (!spec->tied)
        put_tensor(&b, "output.weight", quant, 2, (uint64_t[]){b.embd, MODEL_VOCAB}, 3 / sqrtf((float)b.embd));
}

void model_write(const struct model_spec *spec, enum quant_type quant, const char *path)
{
    struct gguf_build b;
    model_build(&b, spec, quant, NULL);
    gguf_build_write(&b, path, true);
    gguf_build_fini(&b);
}

/* --- files -------------------------------------------------------------------------------------------------------------- */

static char folder[256];

static void remove_folder(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        fprintf(stderr, "%s is left\n", folder);
}

const char *model_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    if (folder[0])
        return folder;
    snprintf(folder, sizeof folder, "%s/sc-models-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        exit(99);
    }
    atexit(remove_folder);
    return folder;
}
