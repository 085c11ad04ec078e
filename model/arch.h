#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

/* Model families as descriptions. A family is one file (arch_NAME.c) with one `struct arch`: its GGUF name, the tensors of a
 * layer, and a function for what its metadata means. Everything else derives from that: validation, loading, planning and
 * the walk over the layers. The coordinator uses this header, too: it never needs more than a GGUF's header.
 *
 * A tensor rule says: tensor "blk.N.<name>" has the shape dims (fastest first) and fills the members of struct layer named
 * in `parts`, one after another along its last dimension (a fused qkv fills three). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"
#include "kernels/backend.h"

enum {
    MODEL_MAX_LAYERS = 1024,
    MODEL_MAX_DIM = 1 << 20, /* of anything: embedding, feed-forward, heads times their width */
    MODEL_MAX_VOCAB = 1 << 24,
    MODEL_MAX_CTX = 1 << 24,
    MODEL_MAX_HEAD_DIM = 1024,
    MODEL_MAX_EXPERTS = 1024,
    MODEL_DEFAULT_CTX = 8192,
    MODEL_MAX_ROPE_FREQ = 16, /* radians a position: times MODEL_MAX_CTX what sc_sincos is good for; models have 1 */
};

/* What a dimension of a tensor is called; model_dim gives its size. */
enum dim { DIM_NONE, DIM_EMBD, DIM_VOCAB, DIM_Q, DIM_K, DIM_V, DIM_ATT, DIM_FF, DIM_EXPERTS, DIM_EXPERT_FF, DIM_HEAD_K, DIM_ROPE_HALF };

enum part_kind { PART_NONE, PART_WEIGHT, PART_VEC };

struct tensor_part {
    enum part_kind kind;
    size_t offset; /* in struct layer */
    enum dim dim;  /* its share of the last dimension */
};

enum tensor_flags {
    TENSOR_OPTIONAL = 1,
    TENSOR_DENSE = 2,    /* only where the model has no experts */
    TENSOR_EXPERTS = 4,  /* only where it has; the last dimension is theirs, before it the parts' */
    TENSOR_FUSED = 8,    /* stands for the rules that follow it with TENSOR_UNFUSED, if the file has it */
    TENSOR_UNFUSED = 16,
};

struct tensor_rule {
    const char *name;
    enum dim cols; /* the fastest dimension; DIM_NONE for vectors */
    struct tensor_part parts[3];
    unsigned flags;
    const char *each; /* experts in tensors of their own, as old files have them: name with one %u; NULL: never */
};

struct model_params;

struct arch {
    const char *name; /* general.architecture */
    enum rope_kind rope;
    enum activation act;
    const struct tensor_rule *const *rules; /* lists of rules, NULL at the end; a list ends with a NULL name */
    /* Reads what is special to the family; the common keys are already in *p. */
    int (*read)(const struct gguf *g, struct model_params *p, struct err *err);
};

enum rope_scaling { ROPE_SCALE_NONE, ROPE_SCALE_LINEAR, ROPE_SCALE_YARN, ROPE_SCALE_LONG };

struct rope_params {
    uint32_t n_dims;
    float base, base_sliding; /* of sliding layers */
    enum rope_scaling scaling;
    float factor; /* 1: none */
    float factor_sliding;
    uint32_t original_ctx;
    float attn_factor, beta_fast, beta_slow, log_multiplier;
};

/* What a model is, checked: every number is within its limit above and fits the others. */
struct model_params {
    const struct arch *arch;
    uint32_t n_layers, n_vocab, ctx_train;
    uint32_t embd, ff, n_heads, n_kv_heads, head_dim_k, head_dim_v;
    float norm_eps;
    float embed_scale;  /* 1: none */
    float attn_scale;
    float attn_softcap, final_softcap; /* 0: none */
    uint32_t window;    /* of sliding layers; 0: there are none */
    uint8_t sliding[MODEL_MAX_LAYERS]; /* which layers slide */
    struct rope_params rope;
    uint32_t n_experts, n_experts_used, expert_ff; /* 0: dense */
    bool experts_sigmoid, experts_normalize;
    float experts_scale;
    bool tied; /* the embedding serves as output head */
};

/* Reads and checks the metadata. -1 and err name the key, its value and what is allowed; an unknown architecture names the
 * known ones. */
int model_params_read(const struct gguf *g, struct model_params *ret, struct err *err);

uint64_t model_dim(const struct model_params *p, enum dim dim);
const struct arch *arch_find(const char *name, size_t len);

/* One tensor that a range of layers needs, as validated. */
struct model_tensor {
    const struct gguf_tensor *tensor;
    const struct tensor_rule *rule; /* NULL: `place` says what it is */
    uint32_t layer;
    uint32_t expert; /* rule->each: which one; else 0 */
    bool whole;      /* false: one expert of many */
    enum tensor_place { PLACE_LAYER, PLACE_EMBED, PLACE_HEAD_NORM, PLACE_HEAD, PLACE_ROPE_FREQS, PLACE_ROPE_LONG, PLACE_ROPE_SHORT } place;
};

typedef int (*model_tensor_fn)(void *arg, const struct model_tensor *t, struct err *err);

/* Calls fn for every tensor that layers [first, last) need, with embed also the embedding, with head also the output norm and
 * head (the embedding where they are tied; then once). A missing, misshapen or uncomputable tensor is an error that names it
 * with what was expected. fn may stop with -1. */
int model_tensors(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head,
                  model_tensor_fn fn, void *arg, struct err *err);

/* Fills the parts of a layer that are no tensors: attention, norms' eps, experts' numbers. */
void model_layer_init(const struct model_params *p, uint32_t layer, struct layer *ret);

/* Frequencies of the rotary positions: n_dims / 2 each. factors (NULL: none) divide them (rope_freqs and the like). */
void model_rope(const struct model_params *p, bool sliding, const float *factors, double *ret_freq, struct rope *ret);

/* Rule lists that several families share. */
extern const struct tensor_rule rules_attention[];   /* norm, q, k, v (fused or not, biases optional), output */
extern const struct tensor_rule rules_head_norms[];  /* q and k norms */
extern const struct tensor_rule rules_post_norms[];  /* after attention and after the feed-forward part */
extern const struct tensor_rule rules_gated[];       /* norm, gate, up, down, experts where there are */
extern const struct tensor_rule rules_fused_gated[]; /* norm, gate and up in one, down */

/* Helpers for arch files: required or optional keys "<architecture>.<name>". Return as gguf_get_* do; a required key that is
 * missing is an error. */
int arch_u32(const struct gguf *g, const struct arch *a, const char *name, bool required, uint32_t *ret, struct err *err);
int arch_f32(const struct gguf *g, const struct arch *a, const char *name, bool required, float *ret, struct err *err);
/* attention.sliding_window_pattern (a number or a list), or every n-th layer full. */
int arch_window_pattern(const struct gguf *g, struct model_params *p, uint32_t every, struct err *err);

extern const struct arch arch_llama, arch_qwen2, arch_qwen3, arch_qwen3moe, arch_gemma2, arch_gemma3, arch_phi3;

#endif
