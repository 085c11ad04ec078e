/* See threadpool.h.
 *
 * `round` counts operations. A helper waits until it changes, takes tasks from `next` until there are none, then counts
 * itself out in `busy`; the caller does the same and waits for busy = 0. As the caller never starts a round before every
 * helper has left the last one, the job's fields need no lock. Both waits spin first, then sleep on a futex. */
#include "base/threadpool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

enum { SPINS = 4000 }; /* some 10 µs: longer than the serial gaps between operations, shorter than a wake-up costs */

struct helper {
    struct threadpool *pool;
    pthread_t thread;
    uint32_t index;
};

struct threadpool {
    unsigned n_threads, n_started;
    struct helper *helpers;
    threadpool_fn fn;
    void *arg;
    uint32_t n_tasks;
    bool stop;
    _Atomic uint32_t round;
    _Atomic uint32_t sleepers; /* helpers asleep on round */
    _Atomic uint32_t next;
    _Atomic uint32_t busy;
    _Atomic uint32_t caller_sleeps;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(struct threadpool *pool, uint32_t thread)
{
    uint32_t task;
    while ((task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) < pool->n_tasks)
        pool->fn(pool->arg, task, thread);
}

static uint32_t wait_for_round(struct threadpool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        uint32_t now = atomic_load_explicit(&pool->round, memory_order_acquire);
        if (now != seen)
            return now;
        relax();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    uint32_t now;
    while ((now = atomic_load(&pool->round)) == seen)
        futex_wait(&pool->round, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
    return now;
}

static void *help(void *arg)
{
    struct helper *me = arg;
    struct threadpool *pool = me->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_round(pool, seen);
        if (pool->stop)
            return NULL;
        take_tasks(pool, me->index);
        if (atomic_fetch_sub(&pool->busy, 1) == 1 && atomic_load(&pool->caller_sleeps))
            futex_wake(&pool->busy, 1);
    }
}

static void start_round(struct threadpool *pool)
{
    atomic_fetch_add(&pool->round, 1);
    if (atomic_load(&pool->sleepers))
        futex_wake(&pool->round, INT_MAX);
}

static void wait_for_helpers(struct threadpool *pool)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->busy, memory_order_acquire) == 0)
            return;
        relax();
    }
    atomic_store(&pool->caller_sleeps, 1);
    uint32_t busy;
    while ((busy = atomic_load(&pool->busy)) != 0)
        futex_wait(&pool->busy, busy);
    atomic_store(&pool->caller_sleeps, 0);
}

void threadpool_run(struct threadpool *pool, threadpool_fn fn, void *arg, uint32_t n_tasks)
{
    if (n_tasks <= 1 || pool->n_threads == 1) {
        for (uint32_t i = 0; i < n_tasks; i++)
            fn(arg, i, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->n_tasks = n_tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->n_threads - 1, memory_order_relaxed);
    start_round(pool);
    take_tasks(pool, 0);
    wait_for_helpers(pool);
}

struct threadpool *threadpool_create(unsigned n_threads, struct err *err)
{
    if (n_threads == 0)
        n_threads = threadpool_cpus();
    if (n_threads > THREADPOOL_MAX_THREADS) {
        err_set(err, ERR_USAGE, "%u threads asked for, at most %d allowed", n_threads, THREADPOOL_MAX_THREADS);
        return NULL;
    }
    struct threadpool *pool = mem_new(1, sizeof *pool, err);
    if (!pool)
        return NULL;
    pool->n_threads = n_threads;
    if (!(pool->helpers = mem_new(n_threads, sizeof *pool->helpers, err)))
        goto error;
    for (unsigned i = 1; i < n_threads; i++) {
        pool->helpers[i] = (struct helper){.pool = pool, .index = i};
        int rc = pthread_create(&pool->helpers[i].thread, NULL, help, &pool->helpers[i]);
        if (rc != 0) {
            err_set(err, ERR_MEMORY, "thread %u of %u could not be started: %s; try --threads %u", i + 1, n_threads, strerror(rc), i);
            goto error;
        }
        pool->n_started++;
    }
    return pool;
error:
    threadpool_destroy(pool);
    return NULL;
}

void threadpool_destroy(struct threadpool *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    start_round(pool);
    for (unsigned i = 1; i <= pool->n_started; i++)
        pthread_join(pool->helpers[i].thread, NULL);
    free(pool->helpers);
    free(pool);
}

unsigned threadpool_size(const struct threadpool *pool)
{
    return pool->n_threads;
}

unsigned threadpool_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    return 1;
}
