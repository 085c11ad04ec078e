#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

/* The weights of a stage: what a range of layers needs, read from a GGUF's files into memory of their own (never mapped: a
 * file that shrinks under us must not kill us), and nothing else of the file. Matrices lie as the backend wants them. Const once
 * loaded. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/threadpool.h"
#include "gguf/gguf.h"
#include "model/arch.h"

struct weights {
    uint32_t first, last; /* layers [first, last) */
    bool has_embed, has_head;
    struct layer *layers; /* last - first */
    struct weight embed;
    struct head head;
    const float *rope_freqs, *rope_long, *rope_short; /* NULL: the file has none */
    uint64_t bytes; /* of all this */
    struct weights_memory *memory;
};

typedef void (*weights_progress_fn)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* Bytes of memory the range will take. -1 and err when a tensor is wrong. */
int weights_bytes(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head, struct backend *be,
                  uint64_t *ret, struct err *err);

/* Reads with all the pool's threads; blocks until done. progress (NULL: none) is called from the calling thread. */
struct weights *weights_load(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head,
                             struct backend *be, struct threadpool *pool, weights_progress_fn progress, void *progress_arg, struct err *err);
void weights_destroy(struct weights *w); /* takes NULL */

#endif
