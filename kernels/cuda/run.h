#ifndef KERNELS_CUDA_RUN_H
#define KERNELS_CUDA_RUN_H

/* A run's buffers, and how its steps come to be launches: shared by run.c (buffers, steps, graphs) and ops.c (the operations). */

#include "kernels/cuda/device.h"

enum {
    SPLIT_ROWS = 64,             /* rows up to which tiles of attention are blocks of their own */
    SPLIT_BYTES = 64 << 20,      /* of their results, at most */
    GRAPH_ROWS = 64,             /* rows up to which a step is a graph */
    GRAPHS = 64,                 /* kept at once */
    TABLE_ENTRIES = 2048,        /* new table entries that a step brings with it; more go as whole tables */
    LOGIT_ROWS = SAMPLE_AT_ONCE, /* rows of logits on the device at once: no less than GRAPH_ROWS */
    PINNED_LOGITS = 8,           /* rows of logits that come back through pinned memory */
};

/* What distinguishes one graph from another. */
struct graph_key {
    uint32_t rows, wanted, tiles; /* buckets: powers of two */
};

struct graph {
    struct graph_key key;
    void *exec;
    uint64_t used; /* when last */
};

/* Experts' lists on the device. */
struct expert_lists {
    uint32_t *expert, *active, *first_tile, *count, *at;
    float *weight, *router;
};

struct cuda_run {
    struct run run;
    struct cuda *c;
    struct run_shape shape;
    struct batch batch;
    struct graph_key key;
    struct err err; /* the step's first */

    /* On the device, in one piece. */
    uint64_t memory;
    size_t memory_bytes;
    struct cuda_step *step; /* then, as they come from the host: */
    uint32_t *seq, *pos, *wanted, *entries;
    uint32_t *slabs; /* rows of each LOGIT_ROWS of the wanted ones */
    int32_t *token;
    size_t step_bytes;
    uint32_t *table[KV_GROUPS];
    double *freq[MAX_ROPES];
    float *cos[MAX_ROPES], *sin[MAX_ROPES];
    float *x, *n, *q, *k, *v, *att, *gate, *up, *t, *y, *logits, *partial;
    struct expert_lists experts;
    struct cuda_acts acts, acts16;
    size_t partial_bytes;
    uint16_t *narrow; /* with cuBLAS: activations as F16 or BF16, of … */
    const float *narrowed;
    enum quant_type narrowed_type;
    void *ask, *told; /* sample.c's */
    float *list_logit;
    uint32_t *list_id;
    const struct head *head; /* of the step */

    /* On the host, pinned. */
    char *host_step;      /* mirrors step … token */
    uint32_t *host_table; /* what the tables on the device hold: KV_GROUPS × max_seqs × max_blocks */
    float *host_x;        /* rows in, or out */
    float *host_logits, *host_normed;
    char *host_ask, *host_told;
    float *pages; /* many rows of logits: pageable */
    size_t pages_bytes;

    struct graph graphs[GRAPHS];
    uint64_t steps;
    struct cuda *send_to; /* where rows go instead of to the host: send_rows there; NULL: they do not */
    void *send_rows;
    enum { STEP_DIRECT, STEP_CAPTURED, STEP_REPLAYED } mode;
    struct graph *graph; /* replayed */
};

/* A step's rows are there, or the next thing enqueued brings them: from here on it is a graph, if it is to be one. */
void run_start(struct cuda_run *r);
/* Nothing is to be enqueued: it is in the graph, or something went wrong. */
bool run_skips(const struct cuda_run *r);
/* Notes what went wrong first. */
void run_check(struct cuda_run *r, int rc, const char *what);
/* Enqueues a kernel of the step. */
void run_launch(struct cuda_run *r, void *kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, const void *args);
/* ops.c: logits of up to LOGIT_ROWS wanted rows from `first` on, a multiple of it, to the device's buffer; not for graphs. */
void cuda_logits_of(struct cuda_run *r, uint32_t first);

/* sample.c */
void cuda_sample_bytes(const struct run_shape *shape, size_t *ret_up, size_t *ret_back);
int cuda_sample(struct run *run, struct sample_row *rows, uint32_t n, struct err *err);

#endif
