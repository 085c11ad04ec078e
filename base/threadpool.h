#ifndef BASE_THREADPOOL_H
#define BASE_THREADPOOL_H

/* The team of threads that computes one operation together: the caller and n - 1 helpers. Work is cut into tasks; each thread has
 * a run of neighbouring ones, and takes of others' when it is through, so that uneven cores even out. The call returns when all
 * are done (one barrier an operation). Helpers spin some microseconds for the next operation, then sleep: an idle team uses no CPU.
 * One caller at a time.
 *
 * A team may be pinned, each thread to a processor of its own; one of each core first. Teams of all processes on the machine
 * ask each other first (base/cpus.h), so that two never sit on the same processors while others are idle. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct threadpool;

/* task counts from 0; thread is below threadpool_size, and one thread runs one task at a time. */
typedef void (*threadpool_fn)(void *arg, uint32_t task, uint32_t thread);

enum { THREADPOOL_MAX_THREADS = 1024 };

enum threadpool_pin {
    /* Where every thread gets a processor that no other team has, and where the team is as large as the process's processors are
     * many: two such teams at once then share each of them evenly. Else the system chooses, as with NO. */
    THREADPOOL_PIN_AUTO,
    THREADPOOL_PIN_NO,
    THREADPOOL_PIN_YES, /* an error where AUTO would leave it to the system */
};

/* n_threads 0: as many as this process may run on. Not pinned. */
struct threadpool *threadpool_create(unsigned n_threads, struct err *err);
/* The same, pinned. The calling thread of threadpool_run is one of the team: it is pinned by its first run, threads that it
 * starts from then on inherit its one processor, and it stays there until it destroys the pool. A team of one is not pinned:
 * alone it is placed well. */
struct threadpool *threadpool_create_pinned(unsigned n_threads, enum threadpool_pin pin, struct err *err);
/* All that can be said of one. cpus: its threads stay on these processors; NULL: on any of the process's. Where they stand one
 * each (pin), it is on these. Copied. */
struct threadpool_options {
    unsigned n_threads; /* 0: one for each processor that it may use */
    enum threadpool_pin pin;
    const int *cpus;
    unsigned n_cpus;
};
struct threadpool *threadpool_create_with(const struct threadpool_options *options, struct err *err);
/* Whether it is; what it says for a person: "pinned to processors 0-3", "not pinned: 3 threads, 2 processors". */
bool threadpool_pinned(const struct threadpool *pool);
const char *threadpool_placement(const struct threadpool *pool);
void threadpool_destroy(struct threadpool *pool); /* takes NULL; joins */
unsigned threadpool_size(const struct threadpool *pool);
void threadpool_run(struct threadpool *pool, threadpool_fn fn, void *arg, uint32_t n_tasks);
/* How many processors this process may run on (its affinity mask and its control group's share, not the machine's). */
unsigned threadpool_cpus(void);

#endif
