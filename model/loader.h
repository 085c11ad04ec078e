#ifndef MODEL_LOADER_H
#define MODEL_LOADER_H

/* From a source's bytes to a backend's weights, inside model/ only: weights.c says which pieces of which tensors go where,
 * this brings them there. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/threadpool.h"
#include "gguf/gguf.h"
#include "kernels/backend.h"
#include "model/source.h"

/* Whole rows of a matrix for the backend to put in their places, or (rows 0) a vector that becomes floats. */
struct load_piece {
    const struct gguf_tensor *tensor;
    uint64_t offset; /* in the tensor's file */
    uint32_t bytes;
    uint32_t row0, rows, cols; /* row0: in the matrix at `to` */
    void *to;
};

struct load_job {
    struct backend *backend;
    struct weight_source *source;
    struct threadpool *pool;
    struct load_piece *pieces; /* will be sorted */
    size_t n_pieces;
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* NULL: none; from the calling thread */
    void *progress_arg;
    struct source_report *report; /* where the bytes came from, and what was not at its best; NULL: nobody asks */
};

/* Blocks until every piece is in its place. -1 and err with tensor, file and offset. */
int loader_run(const struct load_job *job, struct err *err);

#endif
