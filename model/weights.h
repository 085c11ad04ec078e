#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

/* The weights of a stage: what a range of layers needs, read from a source (model/source.h; by default the GGUF's own files)
 * into memory of their own (never mapped: a file that shrinks under us must not kill us), and nothing else of the model.
 * All lies in the backend's memory, matrices as it wants them. Const once loaded. Every layer has its own memory, so that a stage whose range
 * changes keeps what it has and really gives back what it drops. docs/loading.md says how it works. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/threadpool.h"
#include "gguf/gguf.h"
#include "model/arch.h"
#include "model/source.h"

struct weights {
    uint32_t first, last; /* layers [first, last) */
    bool has_embed, has_head;
    struct layer *layers; /* last - first */
    struct weight embed;
    struct head head;
    const float *rope_freqs, *rope_long, *rope_short; /* in the backend's memory, too; NULL: the file has none */
    uint64_t bytes;      /* of all this */
    uint64_t kept_bytes; /* of it, what came from the previous weights */
    struct weights_memory *memory;
};

typedef void (*weights_progress_fn)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* All 0: from the GGUF's files, everything anew. */
struct weights_options {
    struct weight_source *source;                    /* borrowed, good for one load; NULL: the files of g */
    const struct source_file_options *file;          /* for source NULL; NULL: defaults */
    const unsigned char *model_id;                   /* gguf_model_id; NULL: these weights will not be kept for others */
    struct weights *previous;                        /* what fits is moved out of it, once all is loaded; needs model_id */
    weights_progress_fn progress;                    /* called from the calling thread; counts bytes of the file to be read */
    void *progress_arg;
    struct source_report *report;                    /* where the bytes came from, and what was not at its best; also on failure */
};

/* Bytes of memory the range will take. -1 and err when a tensor is wrong. */
int weights_bytes(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head, struct backend *be,
                  uint64_t *ret, struct err *err);

/* Reads with all the pool's threads; blocks until done. options NULL: defaults. On failure `previous` is as it was; else it
 * has lost what the new weights took, and is good for nothing but weights_destroy. The backend must outlive the weights. */
struct weights *weights_load(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head,
                             struct backend *be, struct threadpool *pool, const struct weights_options *options, struct err *err);
/* Frees all that a load of this range would not take, before it: so that old and new need not fit at once. The rest is only
 * good as `previous`. */
void weights_shrink(struct weights *w, uint32_t first, uint32_t last, bool embed, bool head);
void weights_destroy(struct weights *w); /* takes NULL */

#endif
