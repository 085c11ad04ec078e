#ifndef MODEL_STAGE_H
#define MODEL_STAGE_H

/* A stage: a contiguous range of layers on one device, with their weights and their part of the KV cache. Rows come in as
 * tokens (the first stage) or hidden states, and go out as hidden states or logits (the last). A stage knows nothing of
 * texts, schedules or sockets; whoever drives it hands out block ids and keeps the tables. One thread at a time.
 *
 * A row's result depends on its sequence alone: not on its companions, nor on how the sequence was cut into steps, nor on
 * where the layers are cut. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/backend.h"
#include "model/arch.h"
#include "model/weights.h"

struct stage;

struct stage_config {
    uint32_t first, last; /* layers [first, last) */
    bool embed, head;     /* takes tokens; gives logits */
    enum kv_type kv;
    uint32_t ctx;                 /* positions a sequence may reach: chooses between a model's rotary factors */
    uint32_t n_blocks[KV_GROUPS]; /* of KV_BLOCK positions */
    uint32_t max_rows, max_wanted, max_seqs, table_stride;
};

struct stage_bytes {
    uint64_t weights, kv, scratch;
};

/* What the stage will take. -1 and err when the model is wrong. */
int stage_bytes(const struct gguf *g, const struct model_params *p, const struct stage_config *c, struct backend *be, struct stage_bytes *ret,
                struct err *err);

/* Loads (blocking). The backend must outlive the stage; p is copied. */
struct stage *stage_create(const struct gguf *g, const struct model_params *p, const struct stage_config *c, struct backend *be,
                           struct threadpool *readers, weights_progress_fn progress, void *progress_arg, struct err *err);
/* The same with a source, earlier weights and the like; options NULL: defaults. */
struct stage *stage_create_from(const struct gguf *g, const struct model_params *p, const struct stage_config *c, struct backend *be,
                                struct threadpool *readers, const struct weights_options *options, struct err *err);
void stage_destroy(struct stage *s); /* takes NULL */
/* Destroys all but the weights, which the caller owns then: the `previous` of the next stage. */
struct weights *stage_destroy_but_weights(struct stage *s);

/* One step. hidden: n_rows × embd floats for a stage without embedding, else NULL. The batch must be right: positions below
 * ctx, blocks below n_blocks, tokens in the vocabulary; it is the driver's to check. Blocks until done. */
int stage_run(struct stage *s, const struct batch *batch, const float *hidden, struct err *err);
/* The same, with rows that come from the stage before, or go to the one behind, without the host: where stage_reaches says so. */
struct stage_path {
    const float *hidden; /* rows in, on the host … */
    const void *here;    /* … or, if not NULL, in a room of this stage's */
    struct stage *to;    /* rows out go to a room of that stage's; NULL: to the host, for stage_hidden */
    void *there;
};
int stage_run_path(struct stage *s, const struct batch *batch, const struct stage_path *path, struct err *err);
bool stage_reaches(struct stage *from, struct stage *to); /* may take some milliseconds */
/* Memory of a stage's device for rows. Any thread. */
void *stage_room_alloc(struct stage *s, size_t bytes, struct err *err);
void stage_room_free(struct stage *s, void *room, size_t bytes);

/* Of the last step, until the next. */
const float *stage_hidden(struct stage *s);
const float *stage_logits(struct stage *s, uint32_t wanted_index);
const float *stage_normed(struct stage *s, uint32_t wanted_index); /* embd floats: the last layer's output, normed; with a head */

/* Whom model/answer.h asks, of steps whose batch was `sampled`. */
struct run *stage_answering(struct stage *s);

/* Between steps: in all layers of a group, block `to` becomes what block `from` is. Both below n_blocks. */
void stage_copy_block(struct stage *s, enum kv_group group, uint32_t from, uint32_t to);

#endif
