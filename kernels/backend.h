#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

/* What a device can do for a stage: some fifteen coarse operations, enough for every architecture we know, few enough that a
 * device captures them as one graph. model/forward.c walks a stage's layers and calls them in order; they only enqueue, and
 * `finish` waits. All buffers belong to a `run` made once for a stage; positions, block tables and row lists are copied to
 * fixed places by `begin`. Descriptions (struct layer and what hangs on it) are made once, when a stage is built, and stay
 * where they are.
 *
 * Numerics: on CPUs every operation gives the same bits for a row whatever other rows it travels with, however many threads
 * compute, on any instruction set (docs/numerics.md). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/threadpool.h"
#include "gguf/quant.h"
#include "kernels/layout.h"
#include "kernels/sample.h"

/* Devices of one class and revision give the same bits for the same model and tokens. The revision goes up with every change
 * of arithmetic (docs/numerics.md), so that nodes of different versions are not taken for equal. */
#define NUMERICS_CPU "cpu"
#define NUMERICS_CPU_BLAS "cpu-blas" /* prompts by OpenBLAS: bits depend on companions, too */
enum { NUMERICS_CPU_REVISION = 3 };

enum {
    KV_BLOCK = 32,       /* positions in a block */
    ATTENTION_TILE = 256, /* positions whose softmax is taken together, by absolute position */
    MAX_EXPERTS_USED = 64,
    MAX_ROPES = 2,
};

enum kv_type { KV_F16, KV_F32, KV_Q8_0, KV_TYPES };
enum kv_group { KV_FULL, KV_SLIDING, KV_GROUPS };

/* A vector of floats that the loader owns (norms, biases); NULL data: there is none. */
struct vec {
    const float *data;
    uint32_t n;
};

struct norm {
    struct vec weight; /* NULL data: no norm at this place */
    float eps;
};

enum rope_kind {
    ROPE_NONE,
    ROPE_PAIRS,  /* dimensions 2i and 2i + 1 turn together */
    ROPE_HALVES, /* i and i + n/2 */
};

/* Angle of pair i at position p: p * freq[i]; cos and sin are multiplied by scale. */
struct rope {
    enum rope_kind kind;
    uint32_t n_dims; /* turned dimensions of a head, the first ones */
    const double *freq; /* n_dims / 2 */
    float scale;
};

enum activation { ACT_SILU, ACT_GELU };

struct attention {
    uint32_t n_heads, n_kv_heads, head_dim_k, head_dim_v;
    float scale;    /* of q.k */
    float softcap;  /* 0: none */
    uint32_t window; /* positions seen, the own one included; 0: all */
    enum kv_group group;
    uint32_t rope; /* index into run_shape.ropes */
};

struct experts {
    uint32_t n, n_used;
    struct weight router; /* n rows */
    bool sigmoid;         /* else softmax over all */
    bool normalize;       /* the chosen ones' weights to sum 1 */
    float scale;          /* 0: none */
};

/* One layer: what each operation below needs of it. gate, up, down hold experts.n matrices where experts.n > 0. */
struct layer {
    struct norm attn_norm, q_norm, k_norm, attn_post_norm, ffn_norm, ffn_post_norm;
    struct weight q, k, v, out, gate, up, down;
    struct vec q_bias, k_bias, v_bias, out_bias;
    struct attention attn;
    enum activation act;
    struct experts experts;
};

struct head {
    struct norm norm;
    struct weight out;
    float softcap;
};

/* The KV cache of one layer: block b is at base + b * block_bytes; its inside is the backend's business. */
struct kv_view {
    enum kv_type type;
    void *base;
    size_t block_bytes;
    uint32_t n_blocks;
};

/* One step's rows. table[g] + seq * table_stride: block of position p is entry p / KV_BLOCK. */
struct batch {
    uint32_t n_rows;
    const uint32_t *seq, *pos;
    const int32_t *token;
    uint32_t n_wanted;
    const uint32_t *wanted; /* row indices, ascending */
    const uint32_t *table[KV_GROUPS];
    uint32_t table_stride;
    bool sampled; /* the logits are for `sample` alone: where there is one, they need not come to the host */
    bool normed;  /* rows of `normed` are asked for */
};

/* The largest of everything that a stage's layers need: what a run allocates for. */
struct run_shape {
    uint32_t max_rows, max_wanted, max_seqs, max_blocks; /* a sequence's table entries */
    uint32_t embd, q_dim, k_dim, v_dim, head_dim_k, head_dim_v, ff_dim, n_experts, n_experts_used, n_vocab; /* n_vocab 0: no head here */
    struct rope ropes[MAX_ROPES];
    uint32_t n_ropes;
};

struct backend;
struct run;

struct backend_ops {
    const char *name;
    bool host_memory; /* alloc's is the host's own: whoever fills it may write there, and say where its pages lie */
    void (*destroy)(struct backend *);

    /* Zeroed device memory. */
    void *(*alloc)(struct backend *, size_t bytes, struct err *);
    void (*free)(struct backend *, void *, size_t bytes);

    /* How the device keeps matrices of a type: the layout, the bytes of one matrix, and the way into it: rows [row0, row0 + n)
     * of it from as many rows of the file at src, which is free again when it returns; row0 is a multiple of 16, n too but for the
     * last rows. -1: it could not begin, or something begun earlier went wrong: nothing more need be read. Any thread. */
    enum weight_layout (*weight_layout)(struct backend *, enum quant_type);
    size_t (*weight_bytes)(struct backend *, enum quant_type, uint32_t rows, uint32_t cols);
    int (*weight_put)(struct backend *, enum quant_type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst, struct err *err);
    /* The device reads these pages of the host by itself from now on: weight_put of what lies in them copies nothing. -1: it cannot be
     * had, and all goes by a copy of the backend's. NULL: there is nothing to gain. One place at a time. */
    int (*host_pin)(struct backend *, void *pages, size_t bytes, struct err *);
    void (*host_unpin)(struct backend *);
    /* Waits until all that weight_put began is done; -1: the first thing that went wrong with it. */
    int (*weights_done)(struct backend *, struct err *);
    /* To and from memory of the backend's own, where floats of `struct vec` lie as well. Blocks. Any thread. */
    int (*write)(struct backend *, void *to, const void *from, size_t bytes, struct err *);
    int (*read)(struct backend *, void *to, const void *from, size_t bytes, struct err *);

    size_t (*kv_block_bytes)(const struct attention *, enum kv_type);
    /* Block `to` becomes what block `from` is. Not while a step runs. */
    void (*kv_copy)(struct backend *, const struct kv_view *, uint32_t from, uint32_t to);

    struct run *(*run_create)(struct backend *, const struct run_shape *, struct err *);
    void (*run_destroy)(struct run *);
    /* Bytes a run takes, for plans. */
    size_t (*run_bytes)(struct backend *, const struct run_shape *);

    void (*begin)(struct run *, const struct batch *);
    void (*embed)(struct run *, const struct weight *, float scale);          /* x = row of the token, times scale */
    void (*set_hidden)(struct run *, const float *rows);                      /* x = what came over the wire */
    /* The same without the host, between two devices; NULL: there is no such way. reaches: whether `from` can copy into memory of `to`;
     * asked before the first time. set_hidden_here: x = rows that lie in this backend's memory. send_hidden: at the end of this step
     * x goes to `rows` in the memory of `to`, instead of to the host. */
    bool (*reaches)(struct backend *from, struct backend *to);
    void (*set_hidden_here)(struct run *, const void *rows);
    void (*send_hidden)(struct run *, struct backend *to, void *rows);
    void (*qkv)(struct run *, const struct layer *);                          /* n = norm(x); q, k, v = W n + b */
    void (*rope_store)(struct run *, const struct layer *, const struct kv_view *); /* head norms, rope, k and v into the cache */
    void (*attend)(struct run *, const struct layer *, const struct kv_view *);
    void (*attn_out)(struct run *, const struct layer *);                     /* x += postnorm(W a + b) */
    void (*ffn_in)(struct run *, const struct layer *);                       /* h = act(gate n) * up n, n = norm(x) */
    void (*ffn_out)(struct run *, const struct layer *);                      /* x += postnorm(down h) */
    void (*route)(struct run *, const struct layer *);                        /* n = norm(x); which experts, with what weight */
    void (*experts)(struct run *, const struct layer *);                      /* x += postnorm(sum of the chosen ones) */
    void (*head)(struct run *, const struct head *);                          /* logits of the wanted rows */
    int (*finish)(struct run *, struct err *);
    /* Valid after finish, until the next begin. */
    const float *(*hidden)(struct run *);                 /* n_rows × embd */
    const float *(*logits)(struct run *, uint32_t wanted_index); /* n_vocab */
    const float *(*normed)(struct run *, uint32_t wanted_index); /* embd: what the head's matrix was multiplied with */
    /* Chooses tokens where the logits lie, of a batch that was `sampled`, each row once. Up to SAMPLE_AT_ONCE rows, all within the same
     * SAMPLE_AT_ONCE of the wanted ones, with sample_max_edits among them. NULL: the host samples. */
    int (*sample)(struct run *, struct sample_row *, uint32_t n, struct err *);
};

/* First member of every backend and every run. */
struct backend {
    const struct backend_ops *ops;
};
struct run {
    const struct backend_ops *ops;
    struct backend *backend;
};

/* The CPU. n_threads 0: all this process may use; isa: cap ("scalar", …), NULL: the best there is. An unknown isa is named
 * with the known ones. */
/* Which arithmetic computes prompts (BLAS_MIN_ROWS rows of activations and more). */
enum prompt_gemm {
    GEMM_INT8,     /* the kernels' own: what all other promises stand on */
    GEMM_BLAS,     /* OpenBLAS for matrices of floats, and for quantized ones where only scalar kernels would compute them */
    GEMM_BLAS_ALL, /* OpenBLAS for all */
};
struct backend_cpu_options {
    unsigned n_threads;
    const char *isa;
    enum threadpool_pin pin;
    enum prompt_gemm prompt_gemm; /* not GEMM_INT8: a row's bits depend on its companions */
    bool keep_file_layout;        /* weights as in the file, repacked for each use: the same bits, less memory by up to 4% */
    const int *cpus;              /* it stays on these processors, and its weights in memory near them; NULL: all */
    unsigned n_cpus;
};
struct backend *backend_cpu_create_with(const struct backend_cpu_options *options, struct err *err);
/* The same with nothing else to say. */
struct backend *backend_cpu_create(unsigned n_threads, const char *isa, struct err *err);
unsigned backend_cpu_threads(const struct backend *);
bool backend_cpu_is_part(const struct backend *); /* it was given processors */
const char *backend_cpu_placement(const struct backend *); /* threadpool_placement */
const char *backend_cpu_isa(const struct backend *);
/* Appends the names of the levels that this processor has: "scalar, avx2". */
struct strbuf;
void backend_cpu_levels(struct strbuf *ret);
/* Its team, for other work of the caller's between steps. */
struct threadpool *backend_cpu_team(struct backend *);
void backend_destroy(struct backend *); /* takes NULL */

#endif
