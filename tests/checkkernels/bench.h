#ifndef TESTS_CHECKKERNELS_BENCH_H
#define TESTS_CHECKKERNELS_BENCH_H

/* checkkernels --bench: what each kernel of a table makes, on one core and on all that this process may use, as shares of what
 * was measured on the machine just before: reading memory, and multiplying bytes in registers. Figures are TAP comments. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/threadpool.h"
#include "kernels/kernels.h"

/* Work that can be repeated for ever: unit u is done by fn(arg, u, thread), units count from 0 to n - 1 and begin anew. A
 * working set larger than the caches makes every unit come from memory. */
struct bench_work {
    void (*fn)(void *arg, uint32_t unit, uint32_t thread);
    void *arg;
    uint32_t n;
    double bytes, macs; /* of one unit; 0: not counted */
    bool from_memory;   /* else what it reads stays in the caches, and a share of the memory's bandwidth says nothing */
};

/* Multiply-adds of bytes per second with operands in registers, by the level's own instruction, on every thread of the pool together.
 * 0: not known for this level. */
double bench_dot_peak(const char *level, struct threadpool *pool);
/* Bytes per second read from memory by the pool's threads together. 0: no memory for it. */
double bench_read_peak(struct threadpool *pool);
/* Seconds of one unit, the pool's threads together; the best of several runs. */
double bench_seconds(const struct bench_work *work, struct threadpool *pool);

struct bench {
    const struct kernels *k;
    const char *filter; /* NULL: everything; else names that contain it */
    struct threadpool *one, *all; /* the same where there is one core */
    double read_one, read_all, dot_one, dot_all;
    int measured;
};

/* Whether a name is asked for. */
bool bench_wants(const struct bench *b, const char *name);
/* Measures and prints a line. */
void bench_report(struct bench *b, const char *name, const struct bench_work *work);

/* The kernels by kind. */
void bench_mat(struct bench *b);
void bench_vector(struct bench *b);
void bench_attention(struct bench *b);

/* All of it, for one level (NULL: each that the processor has). TAP lines. */
void bench_run(const char *isa, const char *filter);

#endif
