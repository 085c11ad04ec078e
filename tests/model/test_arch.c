/* What families make of their metadata, and what they say when it is wrong; rotary frequencies against formulas written anew
 * from the papers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "model/arch.h"
#include "model/session.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

static struct err err;

/* Reads the parameters of what stands in b, and checks the tensors of all layers; -1 and err. Ends b. */
static int none(void *arg, const struct model_tensor *t, struct err *e)
{
    (void)t;
    (void)e;
    ++*(int *)arg;
    return 0;
}

static int read_build(struct gguf_build *b, struct model_params *ret, int *ret_tensors)
{
    size_t len;
    unsigned char *bytes = gguf_build_finish(b, true, &len);
    struct gguf *g = gguf_open_memory(bytes, len, false, &err);
    int rc = -1, tensors = 0;
    if (g && model_params_read(g, ret, &err) == 0)
        rc = model_tensors(g, ret, 0, ret->n_layers, true, true, none, &tensors, &err);
    if (ret_tensors)
        *ret_tensors = tensors;
    gguf_close(g);
    free(bytes);
    gguf_build_fini(b);
    return rc;
}

static int read_spec(const char *name, const char *except, struct model_params *ret)
{
    struct gguf_build b;
    model_build(&b, model_spec_of(name), QUANT_Q8_0, except);
    return read_build(&b, ret, NULL);
}

/* --- values --------------------------------------------------------------------------------------------------------------- */

static void test_values(void)
{
    struct model_params p;
    for (int i = 0; i < MODEL_SPECS; i++) {
        struct gguf_build b;
        int tensors;
        model_build(&b, &model_specs[i], QUANT_Q8_0, NULL);
        uint64_t all = b.n_tensors;
        if (!ok(read_build(&b, &p, &tensors) == 0, "%s is read", model_specs[i].name)) {
            tap_note("%s", err.text);
            continue;
        }
        ok(strcmp(p.arch->name, model_specs[i].arch) == 0 && p.n_layers == model_specs[i].layers && p.embd == 64 && p.n_heads == 4 && p.n_kv_heads == 2 &&
               p.head_dim_k == 16 && p.n_vocab == MODEL_VOCAB && p.ctx_train == 4096 && p.tied == model_specs[i].tied,
           "%s: its sizes", model_specs[i].name);
        is_int(tensors, all, "%s: every tensor is used", model_specs[i].name);
    }
    read_spec("llama", NULL, &p);
    ok(p.attn_scale == 0.25f && p.embed_scale == 1 && p.attn_softcap == 0 && p.final_softcap == 0 && p.window == 0 && p.n_experts == 0, "llama: plain");
    ok(p.rope.n_dims == 16 && p.rope.base == 10000 && p.rope.factor == 1 && p.arch->rope == ROPE_PAIRS, "llama: rotary positions in pairs");
    read_spec("llama-experts", NULL, &p);
    ok(p.n_experts == 4 && p.n_experts_used == 2 && p.expert_ff == 96 && p.experts_normalize && !p.experts_sigmoid, "llama with experts");
    read_spec("qwen3moe", NULL, &p);
    ok(p.n_experts == 5 && p.n_experts_used == 2 && p.expert_ff == 96 && p.arch->rope == ROPE_HALVES, "qwen3moe");
    read_spec("gemma2", NULL, &p);
    ok(p.attn_softcap == 50 && p.final_softcap == 30 && p.embed_scale == 8 && p.window == MODEL_WINDOW && p.arch->act == ACT_GELU, "gemma2: caps, scale, window");
    ok(p.sliding[0] && !p.sliding[1] && p.sliding[2], "gemma2: every second layer is full");
    ok(p.rope.base_sliding == p.rope.base, "gemma2: one rotary base");
    read_spec("gemma2", "attention.sliding_window", &p);
    is_int(p.window, 4096, "gemma2: the window that files leave out");
    read_spec("gemma3", NULL, &p);
    ok(p.attn_softcap == 0 && p.final_softcap == 0 && p.embed_scale == 8, "gemma3: no caps");
    ok(p.sliding[0] && p.sliding[1] && !p.sliding[2] && p.rope.base_sliding == 10000, "gemma3: the pattern, a base of its own for sliding layers");
    read_spec("gemma3-full", NULL, &p);
    is_int(p.window, 0, "gemma3 without a window");
    read_spec("phi3-window", NULL, &p);
    ok(p.window == MODEL_WINDOW && p.sliding[0] && p.sliding[1], "phi3: all layers slide");
    read_spec("phi3-long", NULL, &p);
    ok(p.rope.scaling == ROPE_SCALE_LONG && p.rope.original_ctx == 256 && p.rope.attn_factor == 1.19f, "phi3: long factors");
    read_spec("llama-yarn", NULL, &p);
    ok(p.rope.scaling == ROPE_SCALE_YARN && p.rope.factor == 4 && p.rope.original_ctx == 256 && p.rope.beta_fast == 32 && p.rope.beta_slow == 1, "yarn");
}

/* Names of 27B models: their own attention scale; pattern as a list. */
static void test_oddities(void)
{
    struct model_params p;
    struct gguf_build b;
    model_build(&b, model_spec_of("gemma3"), QUANT_Q8_0, "attention.sliding_window_pattern");
    gguf_build_ints(&b, "gemma3.attention.sliding_window_pattern", GGUF_BOOL, (int64_t[]){0, 1, 0}, 3);
    is_int(read_build(&b, &p, NULL), 0, "a pattern that is a list");
    ok(!p.sliding[0] && p.sliding[1] && !p.sliding[2], "is taken as it stands");
    model_build(&b, model_spec_of("gemma3"), QUANT_Q8_0, "attention.sliding_window_pattern");
    gguf_build_ints(&b, "gemma3.attention.sliding_window_pattern", GGUF_BOOL, (int64_t[]){0, 1}, 2);
    is_int(read_build(&b, &p, NULL), -1, "a list too short");
    has_str(err.text, "gemma3.attention.sliding_window_pattern has 2 entries for 3 layers", "is named");
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "attention.head_count_kv");
    gguf_build_ints(&b, "llama.attention.head_count_kv", GGUF_I32, (int64_t[]){2, 2, 2}, 3);
    is_int(read_build(&b, &p, NULL), 0, "a number once for each layer");
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "attention.head_count_kv");
    gguf_build_ints(&b, "llama.attention.head_count_kv", GGUF_I32, (int64_t[]){2, 1, 2}, 3);
    is_int(read_build(&b, &p, NULL), -1, "layers that differ");
    has_str(err.text, "llama.attention.head_count_kv: layers differ (2 and 1)", "are named");
}

/* --- errors --------------------------------------------------------------------------------------------------------------- */

static void refused(struct gguf_build *b, enum err_kind kind, const char *text, const char *more)
{
    struct model_params p;
    err_clear(&err);
    is_int(read_build(b, &p, NULL), -1, "refused: %s", text);
    has_str(err.text, text, "it says so");
    if (more)
        has_str(err.text, more, "and %s", more);
    is_int(err.kind, kind, "of this kind");
}

/* A key of llama's replaced by another value. */
static void with_int(const char *key, int64_t value, const char *text)
{
    struct gguf_build b;
    char full[128];
    model_build(&b, model_spec_of("llama-experts"), QUANT_Q8_0, key);
    snprintf(full, sizeof full, "llama.%s", key);
    gguf_build_int(&b, full, GGUF_U32, value);
    refused(&b, ERR_INPUT, text, NULL);
}

static void with_float(const char *key, double value, const char *text)
{
    struct gguf_build b;
    char full[128];
    model_build(&b, model_spec_of("llama-yarn"), QUANT_Q8_0, key);
    snprintf(full, sizeof full, "llama.%s", key);
    gguf_build_float(&b, full, GGUF_F32, value);
    refused(&b, ERR_INPUT, text, NULL);
}

static void test_keys(void)
{
    struct gguf_build b;
    static const char *const required[] = {"block_count", "embedding_length", "attention.head_count", "attention.layer_norm_rms_epsilon",
                                           "feed_forward_length"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        char text[128];
        model_build(&b, model_spec_of("llama"), QUANT_Q8_0, required[i]);
        snprintf(text, sizeof text, "metadata key llama.%s is missing", required[i]);
        refused(&b, ERR_INPUT, text, NULL);
    }
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "general.architecture");
    refused(&b, ERR_INPUT, "general.architecture is missing", NULL);
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "general.architecture");
    gguf_build_str(&b, "general.architecture", "mamba");
    refused(&b, ERR_UNSUPPORTED, "architecture 'mamba' is not supported", "llama, qwen2, qwen3, qwen3moe, gemma2, gemma3, phi3");
    with_int("block_count", 0, "llama.block_count is 0, allowed are 1 to 1024");
    with_int("block_count", 1025, "llama.block_count is 1025");
    with_int("embedding_length", 0, "llama.embedding_length is 0");
    with_int("embedding_length", UINT32_MAX, "llama.embedding_length is 4294967295");
    with_int("context_length", 0, "llama.context_length is 0");
    with_int("attention.head_count", 0, "attention.head_count");
    with_int("attention.head_count", 5, "llama.attention.head_count is 5, not a multiple of head_count_kv 2");
    with_int("attention.head_count_kv", 0, "llama.attention.head_count_kv is 0");
    with_int("attention.head_count_kv", 8, "llama.attention.head_count_kv is 8, allowed are 1 to 4");
    with_int("attention.key_length", 0, "llama.attention.key_length is 0");
    with_int("attention.key_length", 2000, "llama.attention.key_length is 2000");
    with_int("rope.dimension_count", 18, "llama.rope.dimension_count is 18, allowed are 0 to 16");
    with_int("rope.dimension_count", 7, "llama.rope.dimension_count is 7, must be even");
    with_int("expert_count", 5000, "llama.expert_count is 5000");
    with_int("expert_used_count", 0, "llama.expert_used_count is 0");
    with_int("expert_used_count", 5, "llama.expert_used_count is 5, allowed are 1 to 4");
    with_float("rope.freq_base", 0, "freq_base 0");
    with_float("rope.freq_base", -5, "freq_base -5");
    with_float("rope.scaling.factor", -1, "scaling factor -1");
    with_float("rope.freq_base", INFINITY, "llama.rope.freq_base");
    with_float("attention.layer_norm_rms_epsilon", NAN, "layer_norm_rms_epsilon");
    with_float("attention.layer_norm_rms_epsilon", -1, "layer_norm_rms_epsilon is -1");
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, NULL);
    gguf_build_str(&b, "llama.rope.scaling.type", "spiral");
    refused(&b, ERR_UNSUPPORTED, "llama.rope.scaling.type is 'spiral'", "none, linear, yarn, longrope");
}

static void test_tensors(void)
{
    struct gguf_build b;
    static const char *const needed[] = {"token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.1.attn_q.weight", "blk.2.attn_v.weight",
                                         "blk.1.attn_output.weight", "blk.0.ffn_gate.weight", "blk.2.ffn_down.weight"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        char text[128];
        model_build(&b, model_spec_of("llama"), QUANT_Q8_0, needed[i]);
        snprintf(text, sizeof text, "tensor %s is missing", needed[i]);
        refused(&b, ERR_INPUT, text, NULL);
    }
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "blk.2.ffn_down.weight");
    refused(&b, ERR_INPUT, "tensor blk.2.ffn_down.weight is missing, expected with shape 96 x 64", NULL);
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "blk.1.attn_k.weight");
    gguf_build_tensor(&b, "blk.1.attn_k.weight", QUANT_Q8_0, 2, (uint64_t[]){64, 64}, NULL);
    refused(&b, ERR_INPUT, "tensor blk.1.attn_k.weight is 64 x 64, expected 64 x 32", NULL);
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "blk.0.attn_norm.weight");
    gguf_build_tensor(&b, "blk.0.attn_norm.weight", QUANT_F32, 2, (uint64_t[]){64, 2}, NULL);
    refused(&b, ERR_INPUT, "tensor blk.0.attn_norm.weight is 64 x 2, expected 64", NULL);
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "blk.0.attn_norm.weight");
    gguf_build_tensor(&b, "blk.0.attn_norm.weight", QUANT_Q8_0, 1, (uint64_t[]){64}, NULL);
    refused(&b, ERR_UNSUPPORTED, "tensor blk.0.attn_norm.weight has type Q8_0, expected F32, F16 or BF16", NULL);
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, "blk.1.attn_k.weight");
    gguf_build_tensor(&b, "blk.1.attn_k.weight", QUANT_I32, 2, (uint64_t[]){64, 32}, NULL);
    refused(&b, ERR_UNSUPPORTED, "tensor blk.1.attn_k.weight has type I32, which is not supported", "Q4_K");
    model_build(&b, model_spec_of("llama-freqs"), QUANT_Q8_0, "rope_freqs.weight");
    gguf_build_tensor(&b, "rope_freqs.weight", QUANT_F32, 1, (uint64_t[]){9}, NULL);
    refused(&b, ERR_INPUT, "tensor rope_freqs.weight is 9, expected 8", NULL);
    model_build(&b, model_spec_of("llama-experts-apart"), QUANT_Q8_0, "blk.1.ffn_up.3.weight");
    refused(&b, ERR_INPUT, "tensor blk.1.ffn_up.3.weight is missing", NULL);
    model_build(&b, model_spec_of("llama-experts-apart"), QUANT_Q8_0, "blk.1.ffn_up.3.weight");
    gguf_build_tensor(&b, "blk.1.ffn_up.3.weight", QUANT_F16, 2, (uint64_t[]){64, 96}, NULL);
    refused(&b, ERR_UNSUPPORTED, "tensor blk.1.ffn_up.3.weight has type F16, expert 0 has Q8_0", NULL);
}

/* --- rotary frequencies --------------------------------------------------------------------------------------------------- */

/* YaRN as Hugging Face's transformers computes it (modeling_rope_utils: _compute_yarn_parameters), in their words. */
static double yarn_inv_freq(double base, int dim, double factor, double original, double beta_fast, double beta_slow, int i)
{
    double low = floor(dim * log(original / (beta_fast * 2 * M_PI)) / (2 * log(base)));
    double high = ceil(dim * log(original / (beta_slow * 2 * M_PI)) / (2 * log(base)));
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    if (low == high)
        high += 0.001;
    double ramp = fmin(fmax((i - low) / (high - low), 0), 1), extrapolation = 1 / pow(base, 2.0 * i / dim);
    return extrapolation / factor * ramp + extrapolation * (1 - ramp);
}

static void test_rope(void)
{
    struct model_params p;
    struct rope rope;
    double freq[512], worst = 0;
    read_spec("llama", NULL, &p);
    model_rope(&p, false, NULL, freq, &rope);
    for (uint32_t i = 0; i < 8; i++)
        worst = fmax(worst, fabs(freq[i] / pow(10000, -2.0 * i / 16) - 1));
    ok(worst < 1e-14 && rope.scale == 1 && rope.kind == ROPE_PAIRS && rope.n_dims == 16, "plain frequencies (off by %.2g)", worst);

    float factors[8];
    for (int i = 0; i < 8; i++)
        factors[i] = (float)(i + 1);
    model_rope(&p, false, factors, freq, &rope);
    worst = 0;
    for (uint32_t i = 0; i < 8; i++)
        worst = fmax(worst, fabs(freq[i] * (i + 1) / pow(10000, -2.0 * i / 16) - 1));
    ok(worst < 1e-14, "factors divide them");

    read_spec("llama-linear", NULL, &p);
    model_rope(&p, false, NULL, freq, &rope);
    worst = 0;
    for (uint32_t i = 0; i < 8; i++)
        worst = fmax(worst, fabs(freq[i] * 4 / pow(10000, -2.0 * i / 16) - 1));
    ok(worst < 1e-14, "linear scaling divides them by its factor");

    static const struct {
        double base, factor, original;
        uint32_t dim;
    } yarns[] = {{10000, 4, 256, 16}, {10000, 16, 4096, 128}, {1e6, 4, 32768, 128}, {150000, 32, 4096, 64}, {500000, 8, 8192, 128}};
    read_spec("llama-yarn", NULL, &p);
    for (size_t y = 0; y < sizeof yarns / sizeof *yarns; y++) {
        p.rope.base = (float)yarns[y].base;
        p.rope.factor = (float)yarns[y].factor;
        p.rope.original_ctx = (uint32_t)yarns[y].original;
        p.rope.n_dims = yarns[y].dim;
        model_rope(&p, false, NULL, freq, &rope);
        worst = 0;
        for (uint32_t i = 0; i < yarns[y].dim / 2; i++)
            worst = fmax(worst, fabs(freq[i] / yarn_inv_freq(yarns[y].base, (int)yarns[y].dim, yarns[y].factor, yarns[y].original, 32, 1, (int)i) - 1));
        ok(worst < 1e-12, "YaRN times %g from %g: as the paper's authors and users compute it (off by %.2g)", yarns[y].factor, yarns[y].original, worst);
        ok(fabs((double)rope.scale - (0.1 * log(yarns[y].factor) + 1)) < 1e-6, "its magnitude %.6f", (double)rope.scale);
    }

    read_spec("gemma3", NULL, &p);
    p.rope.base = 1e6f;
    p.rope.scaling = ROPE_SCALE_LINEAR;
    p.rope.factor = 8;
    model_rope(&p, true, NULL, freq, &rope);
    ok(fabs(freq[3] / pow(10000, -6.0 / 16) - 1) < 1e-14, "gemma3: sliding layers have their own base and no scaling");
    model_rope(&p, false, NULL, freq, &rope);
    ok(fabs(freq[3] * 8 / pow(1e6, -6.0 / 16) - 1) < 1e-14, "full ones the model's");
}

/* --- a model that opens, or does not -------------------------------------------------------------------------------------- */

static char path[512];

/* A few rows through what is in b; 0, or -1 and err. Ends b. */
static int run_build(struct gguf_build *b, uint32_t ctx, float *ret_logits)
{
    struct session_options o = {.threads = 1, .ctx = ctx, .batch_rows = 8};
    gguf_build_write(b, path, true);
    gguf_build_fini(b);
    err_clear(&err);
    struct session *s = session_open(path, &o, &err);
    struct session_row rows[6];
    for (uint32_t i = 0; i < 6; i++)
        rows[i] = (struct session_row){.pos = i, .token = (int32_t)(i * 7 + 1), .want = i == 5};
    int rc = s ? session_step(s, rows, 6, &err) : -1;
    if (rc == 0 && ret_logits)
        memcpy(ret_logits, session_logits(s, 0), MODEL_VOCAB * sizeof *ret_logits);
    session_close(s);
    return rc;
}

/* Short factors where the context is within the original one, long ones beyond. */
static void test_long_and_short(void)
{
    struct gguf_build b;
    float within[MODEL_VOCAB], beyond[MODEL_VOCAB], no_long[MODEL_VOCAB], no_short[MODEL_VOCAB];
    const struct model_spec *spec = model_spec_of("phi3-long");
    model_build(&b, spec, QUANT_Q8_0, NULL);
    is_int(run_build(&b, 256, within), 0, "a context of 256");
    model_build(&b, spec, QUANT_Q8_0, NULL);
    is_int(run_build(&b, 257, beyond), 0, "a context of 257");
    model_build(&b, spec, QUANT_Q8_0, "rope_factors_long.weight");
    is_int(run_build(&b, 256, no_long), 0, "without the long factors");
    model_build(&b, spec, QUANT_Q8_0, "rope_factors_short.weight");
    is_int(run_build(&b, 257, no_short), 0, "without the short factors");
    ok(memcmp(within, no_long, sizeof within) == 0, "256 uses the short ones");
    ok(memcmp(beyond, no_short, sizeof beyond) == 0, "257 uses the long ones");
    ok(memcmp(within, beyond, sizeof within) != 0, "which differ");
}

/* Factors, bases and scalings that make no angles. */
static void test_bad_rope(void)
{
    struct gguf_build b;
    static const float factors[] = {0, -1, NAN, 1e-30f};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        float f[8] = {1, 1, 1, factors[i], 1, 1, 1, 1};
        model_build(&b, model_spec_of("llama-freqs"), QUANT_Q8_0, "rope_freqs.weight");
        gguf_build_tensor(&b, "rope_freqs.weight", QUANT_F32, 1, (uint64_t[]){8}, f);
        is_int(run_build(&b, 64, NULL), -1, "a factor of %g", (double)factors[i]);
        has_str(err.text, "rotary frequency", "is refused");
    }
    float inf[8] = {1, 1, 1, INFINITY, 1, 1, 1, 1};
    model_build(&b, model_spec_of("llama-freqs"), QUANT_Q8_0, "rope_freqs.weight");
    gguf_build_tensor(&b, "rope_freqs.weight", QUANT_F32, 1, (uint64_t[]){8}, inf);
    is_int(run_build(&b, 64, NULL), 0, "a factor of inf turns nothing");
    model_build(&b, model_spec_of("llama-yarn"), QUANT_Q8_0, "rope.freq_base");
    gguf_build_float(&b, "llama.rope.freq_base", GGUF_F32, 1e-38);
    is_int(run_build(&b, 64, NULL), -1, "a base of 1e-38");
    model_build(&b, model_spec_of("llama-linear"), QUANT_Q8_0, "rope.scaling.factor");
    gguf_build_float(&b, "llama.rope.scaling.factor", GGUF_F32, 1e-30);
    is_int(run_build(&b, 64, NULL), -1, "a scaling factor of 1e-30");
}

/* Any number in any key: an error or a model that runs, never more. */
static void test_odd_numbers(void)
{
    static const double odd[] = {0, 1, 2, 3, 7, 16, 17, 63, 64, 65, 1024, 65536, 1 << 20, 1 << 24, 2147483647.0, 4294967295.0, -1, 0.5, 1e-30, 1e30, 1e-45, 3e38};
    static const char *const keys[] = {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
                                       "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
                                       "rope.freq_base", "rope.dimension_count", "rope.scaling.factor", "rope.scaling.original_context_length",
                                       "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
                                       "rope.scaling.yarn_log_multiplier", "expert_count", "expert_used_count", "expert_feed_forward_length",
                                       "expert_weights_scale", "attention.sliding_window", "attention.sliding_window_pattern", "attn_logit_softcapping",
                                       "final_logit_softcapping", "rope.freq_base_swa"};
    int ran = 0, refusals = 0, silent = 0;
    for (int i = 0; i < MODEL_SPECS; i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            for (size_t v = i % 2; v < sizeof odd / sizeof *odd; v += 2) {
                struct gguf_build b;
                char key[128];
                snprintf(key, sizeof key, "%s.%s", model_specs[i].arch, keys[k]);
                model_build(&b, &model_specs[i], QUANT_Q8_0, keys[k]);
                bool whole = odd[v] == floor(odd[v]) && fabs(odd[v]) < 5e9;
                if (whole)
                    gguf_build_int(&b, key, GGUF_I64, (int64_t)odd[v]);
                else
                    gguf_build_float(&b, key, GGUF_F32, odd[v]);
                int rc = run_build(&b, 64, NULL);
                ran += rc == 0;
                refusals += rc != 0;
                silent += rc != 0 && err.text[0] == '\0';
            }
    is_int(silent, 0, "%d odd numbers in keys: %d models run, %d are refused with a text", ran + refusals, ran, refusals);
}

static void test_memory(void)
{
    struct gguf_build b;
    struct session_options o = {.threads = 1, .ctx = 1 << 24, .parallel = 4096};
    model_build(&b, model_spec_of("llama"), QUANT_Q8_0, NULL);
    gguf_build_write(&b, path, true);
    gguf_build_fini(&b);
    struct session *s = session_open(path, &o, &err);
    ok(s == NULL && err.kind == ERR_MEMORY, "2^24 positions for 4096 sequences: more memory than there is");
    has_str(err.text, path, "the message names the model");
    has_str(err.text, "KV cache", "what takes it");
    has_str(err.text, "lower --ctx or --parallel", "and what to do");
    session_close(s);
    o = (struct session_options){.threads = 1, .ctx = (1 << 24) + 1};
    ok(session_open(path, &o, &err) == NULL && err.kind == ERR_USAGE, "a context over the limit");
    has_str(err.text, "16777217 positions asked for, at most 16777216", "is named with the limit");
    o = (struct session_options){.threads = 1, .isa = "z80"};
    ok(session_open(path, &o, &err) == NULL && err.kind == ERR_USAGE, "unknown kernels");
    o = (struct session_options){.threads = 1};
    s = session_open(path, &o, &err);
    if (ok(s != NULL, "no options but the threads")) {
        is_int(session_ctx(s), 4096, "the model's context");
        is_int(session_parallel(s), 1, "one sequence");
    }
    session_close(s);
}

int main(void)
{
    snprintf(path, sizeof path, "%s/arch.gguf", model_folder());
    test_values();
    test_oddities();
    test_keys();
    test_tensors();
    test_rope();
    test_long_and_short();
    test_bad_rope();
    test_memory();
    test_odd_numbers();
    return tap_done();
}
