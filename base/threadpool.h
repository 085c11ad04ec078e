#ifndef BASE_THREADPOOL_H
#define BASE_THREADPOOL_H

/* The team of threads that computes one operation together: the caller and n - 1 helpers. Work is cut into tasks, taken
 * one after another, so uneven cores even out; the call returns when all are done (one barrier an operation). Helpers
 * spin some microseconds for the next operation, then sleep: an idle team uses no CPU. One caller at a time. */

#include <stdint.h>

#include "base/err.h"

struct threadpool;

/* task counts from 0; thread is below threadpool_size, and one thread runs one task at a time. */
typedef void (*threadpool_fn)(void *arg, uint32_t task, uint32_t thread);

enum { THREADPOOL_MAX_THREADS = 1024 };

/* n_threads 0: as many as this process may run on. */
struct threadpool *threadpool_create(unsigned n_threads, struct err *err);
void threadpool_destroy(struct threadpool *pool); /* takes NULL; joins */
unsigned threadpool_size(const struct threadpool *pool);
void threadpool_run(struct threadpool *pool, threadpool_fn fn, void *arg, uint32_t n_tasks);
/* How many processors this process may run on (its affinity mask, not the machine's). */
unsigned threadpool_cpus(void);

#endif
