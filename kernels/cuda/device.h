#ifndef KERNELS_CUDA_DEVICE_H
#define KERNELS_CUDA_DEVICE_H

/* What backend.c, weights.c and run.c share: the open device, its kernels, and launching them. */

#include <pthread.h>
#include <stdbool.h>

#include "base/err.h"
#include "kernels/backend.h"
#include "kernels/cuda/args.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/driver.h"
#include "kernels/cuda/layout.h"

/* Kernels that are there once; their names are "sc_" and these. */
#define CUDA_KERNELS(X) \
    X(attend_join) X(pack) X(embed) X(tables) X(angles) X(norm) X(quantize) X(heads) X(join) X(choose) X(group) X(narrow) X(bias) X(softcap) X(sample) \
    X(read_all)

struct cuda_kernels {
#define CUDA_KERNEL(name) void *name;
    CUDA_KERNELS(CUDA_KERNEL)
#undef CUDA_KERNEL
    void *mat1[CUDA_FORMS], *mat2[CUDA_FORMS], *prompt[CUDA_FORMS], *mat_floats[CUDA_FORMS]; /* by type */
    void *attend[KV_TYPES][3]; /* for 1, 4, 8 heads */
};

enum { LOAD_SLOTS = 8, LOAD_SLOT_BYTES = 2 << 20 };

/* A place for rows on their way from the host to their matrix. */
struct load_slot {
    void *stream, *copied; /* copied: the event behind the last copy to the device */
    char *pinned;          /* for rows that do not lie in pinned pages of the loader's */
    uint64_t staging;      /* on the device, before they are packed */
    size_t pinned_bytes, staging_bytes;
    uint64_t used; /* when last */
    bool taken;
};

struct cuda {
    struct backend backend;
    const struct cuda_driver *d;
    struct cuda_device device;
    void *context, *module, *stream; /* the stream of steps */
    int copies_failed; /* of blocks, between steps: the driver's word, told by the next step */
    struct cuda_kernels kernels;
    bool no_graphs;
    struct cublas *blas; /* for prompts, by name; NULL: our own kernels */
    pthread_mutex_t lock; /* of what follows */
    void *copies; /* the stream of write and read */
    pthread_cond_t slot_free;
    struct load_slot slots[LOAD_SLOTS];
    uint64_t puts;
    const char *pages; /* of the loader's that are pinned; NULL: none */
    size_t pages_bytes;
    struct err load_err;
};

/* Makes the device current in the calling thread. */
int cuda_enter(struct cuda *c, struct err *err);
/* Device memory, not cleared. The sentence has what there is and what was asked for. */
uint64_t cuda_take(struct cuda *c, size_t bytes, const char *what, struct err *err);
int cuda_launch(struct cuda *c, void *kernel, const uint32_t grid[3], uint32_t threads, const void *args, void *stream, struct err *err);
/* The type is kept in panels (layout.h). */
bool cuda_is_packed(enum quant_type type);

/* weights.c */
int cuda_weight_put(struct backend *b, enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst, struct err *err);
int cuda_weights_done(struct backend *b, struct err *err);
int cuda_host_pin(struct backend *b, void *pages, size_t bytes, struct err *err);
void cuda_host_unpin(struct backend *b);

/* run.c */
size_t cuda_run_bytes(struct backend *b, const struct run_shape *shape);
struct run *cuda_run_create(struct backend *b, const struct run_shape *shape, struct err *err);
void cuda_run_destroy(struct run *run);
/* Fills in the operations from begin to normed. */
void cuda_run_ops(struct backend_ops *ops);

/* ops.c: the operations on layers. */
void cuda_layer_ops(struct backend_ops *ops);

/* image.c: the kernels as nvcc made them; NULL: this program was built without. */
const void *cuda_image(void);
/* "7.5, 8.0, …": what they were made for; "" without. */
const char *cuda_image_targets(void);

#endif
