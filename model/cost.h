#ifndef MODEL_COST_H
#define MODEL_COST_H

/* What a model's parts cost, from a GGUF's own tensors, a header being enough: weights by quantization, bytes in file and
 * memory, KV cache and attention by layer, a stage's buffers. For plans; the coordinator uses it, too. Nothing is loaded. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"
#include "model/arch.h"

/* A layer, the embedding or the head. Weights are elements, rows filled up to whole panels as layouts in memory do. */
struct model_part {
    double weights[QUANT_TYPES];        /* of matrices that every row goes through */
    double expert_weights[QUANT_TYPES]; /* of all experts together */
    uint64_t other_bytes;               /* vectors as floats, and what aligning matrices takes */
    uint64_t file_bytes;
    uint64_t kv_block_bytes; /* KV_BLOCK positions */
    enum kv_group group;
    double attn_ops; /* operations for a row and a position that it looks at */
};

struct model_costs {
    uint32_t n_layers;
    struct model_part *layers;
    struct model_part embed, head; /* tied: head's matrix is embed's */
    bool tied;
    double type_bits[QUANT_TYPES];  /* of a weight in memory: the most of the file's and all our layouts */
    uint32_t n_blocks[KV_GROUPS];   /* for all sequences */
    uint64_t scratch_bytes, scratch_head_bytes; /* of a stage; of the last one besides */
    uint32_t experts, experts_used, window, embd;
};

struct model_cost_options {
    enum kv_type kv;
    uint32_t ctx, parallel; /* positions of a sequence; sequences */
    uint32_t max_rows;      /* of a batch */
    uint32_t max_wanted;    /* rows with logits in a batch */
    uint32_t kv_total;      /* positions of all sequences together; 0: each may have ctx */
};

/* -1 and err when a tensor is missing or wrong. model_costs_fini in either case. */
int model_costs_init(struct model_costs *c, const struct gguf *g, const struct model_params *p, const struct model_cost_options *o,
                     struct err *err);
void model_costs_fini(struct model_costs *c);

/* Blocks that one sequence needs in a group at most. Sliding: what its window sees, a batch, and what answers may be cut back. */
uint32_t model_sequence_blocks(const struct model_params *p, enum kv_group group, uint32_t ctx, uint32_t max_rows);
/* Of all sequences, of which each needs `each` at most: so many for all, or what kv_total positions (0: no limit) take, but always
 * enough for one. */
uint32_t model_shared_blocks(uint32_t each, uint32_t parallel, uint32_t kv_total);

#endif
