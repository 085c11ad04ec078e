/* See threadpool.h.
 *
 * `round` counts operations. A helper waits until it changes, takes tasks until there are none, then counts itself out in
 * `busy`; the caller does the same and waits for busy = 0. As the caller never starts a round before every helper has left the
 * last one, the job's fields need no lock. Both waits spin first, then sleep on a futex.
 *
 * Tasks are dealt out in equal runs, one a thread, which takes its own from the front: neighbouring tasks read neighbouring
 * memory, and a core that reads on finds what it had asked for ahead (two cores that took 64 KiB in turn reached three quarters of
 * the memory's bandwidth). Who has none left takes the later half of the longest run there is.
 *
 * How long to spin: waking a sleeper costs up to 50 µs on a virtual machine, so a team that never spun made half the tokens of a
 * small model (124 against 250 a second). The gaps between operations are a few µs; those between tokens are longer than anyone
 * should spin. So SPIN_NS is about a wake-up's cost, which bounds what is lost either way. A spinner soon offers its processor to
 * whoever waits for it (an I/O thread, another team's), and one whose spins keep failing spins less. */
#include "base/threadpool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cpus.h"
#include "base/mem.h"

enum {
    SPIN_NS = 50000,
    SPIN_NS_MIN = 3000,   /* what is left to one whose spins fail: enough to see that they no longer do */
    SPIN_NS_ALONE = 8000, /* before it offers its processor to others */
    SPINS_A_LOOK = 24,    /* between looks at the clock: half a µs to 2 µs, as processors pause */
};

struct helper {
    struct threadpool *pool;
    pthread_t thread;
    uint32_t index;
    uint32_t spin_ns; /* what it would spin next */
    /* Tasks of its own that nobody has taken: the first in the low half, the end in the high one. A task is in one run at a time, so
     * that none comes to have the same two ends twice in a round. */
    _Atomic uint64_t run;
    char apart[64]; /* no two of these on one line of a cache */
};

struct threadpool {
    unsigned n_threads, n_started;
    struct helper *helpers; /* [0]: the caller */
    threadpool_fn fn;
    void *arg;
    bool stop;
    bool may_spin; /* there is a processor for every thread */
    uint32_t caller_spin_ns;
    int *cpu, *claim; /* of each thread, where it is pinned; else NULL */
    int *stay;        /* on these; NULL: anywhere */
    unsigned n_stay;
    uint64_t id; /* of all pools ever: what a caller remembers */
    char placement[160];
    _Atomic uint32_t round;
    _Atomic uint32_t sleepers; /* helpers asleep on round */
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

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Spins until *word is (or, with is = false, is no longer) `value`; false when it took too long. */
static bool spin(_Atomic uint32_t *word, uint32_t value, bool is, uint32_t *budget_ns)
{
    uint64_t start = 0;
    for (uint32_t i = 1;; i++) {
        if ((atomic_load_explicit(word, memory_order_acquire) == value) == is) {
            *budget_ns = *budget_ns * 2 < SPIN_NS ? *budget_ns * 2 : SPIN_NS;
            return true;
        }
        relax();
        if (i % SPINS_A_LOOK != 0)
            continue;
        uint64_t now = now_ns();
        start = start ? start : now;
        if (now - start > *budget_ns)
            break;
        if (now - start > SPIN_NS_ALONE)
            sched_yield();
    }
    *budget_ns = *budget_ns / 2 > SPIN_NS_MIN ? *budget_ns / 2 : SPIN_NS_MIN;
    return false;
}

static uint64_t run_of(uint32_t first, uint32_t end)
{
    return (uint64_t)end << 32 | first;
}

static uint32_t run_length(uint64_t run)
{
    return (uint32_t)(run >> 32) - (uint32_t)run;
}

/* The first task of one's own. */
static bool take_own(_Atomic uint64_t *mine, uint32_t *task)
{
    uint64_t run = atomic_load_explicit(mine, memory_order_relaxed);
    while (run_length(run) > 0)
        if (atomic_compare_exchange_weak_explicit(mine, &run, run + 1, memory_order_relaxed, memory_order_relaxed)) {
            *task = (uint32_t)run;
            return true;
        }
    return false;
}

/* The later half of the longest run becomes one's own; false: there is none left. */
static bool take_half(struct threadpool *pool, _Atomic uint64_t *mine)
{
    for (;;) {
        _Atomic uint64_t *longest = NULL;
        uint64_t run = 0;
        for (unsigned i = 0; i < pool->n_threads; i++) {
            uint64_t other = atomic_load_explicit(&pool->helpers[i].run, memory_order_relaxed);
            if (run_length(other) > run_length(run)) {
                longest = &pool->helpers[i].run;
                run = other;
            }
        }
        if (!longest)
            return false;
        uint32_t first = (uint32_t)run, end = (uint32_t)(run >> 32), middle = end - (run_length(run) + 1) / 2;
        if (atomic_compare_exchange_weak_explicit(longest, &run, run_of(first, middle), memory_order_relaxed, memory_order_relaxed)) {
            atomic_store_explicit(mine, run_of(middle, end), memory_order_relaxed);
            return true;
        }
    }
}

static void take_tasks(struct threadpool *pool, uint32_t thread)
{
    _Atomic uint64_t *mine = &pool->helpers[thread].run;
    uint32_t task;
    do
        while (take_own(mine, &task))
            pool->fn(pool->arg, task, thread);
    while (take_half(pool, mine));
}

static void deal(struct threadpool *pool, uint32_t n_tasks)
{
    uint64_t n = pool->n_threads;
    for (uint64_t i = 0; i < n; i++)
        atomic_store_explicit(&pool->helpers[i].run, run_of((uint32_t)(n_tasks * i / n), (uint32_t)(n_tasks * (i + 1) / n)),
                              memory_order_relaxed);
}

static uint32_t wait_for_round(struct threadpool *pool, uint32_t seen, uint32_t *spin_ns)
{
    if (pool->may_spin && spin(&pool->round, seen, false, spin_ns))
        return atomic_load_explicit(&pool->round, memory_order_acquire);
    atomic_fetch_add(&pool->sleepers, 1);
    uint32_t now;
    while ((now = atomic_load(&pool->round)) == seen)
        futex_wait(&pool->round, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
    return now;
}

/* Where it fails, the system places the thread. */
static void pin_thread(const struct threadpool *pool, unsigned index)
{
    if (pool->cpu)
        cpus_pin_self(pool->cpu[index]);
    else if (pool->stay)
        cpus_stay_on(pool->stay, pool->n_stay);
}

static void *help(void *arg)
{
    struct helper *me = arg;
    struct threadpool *pool = me->pool;
    uint32_t seen = 0;
    pin_thread(pool, me->index);
    for (;;) {
        seen = wait_for_round(pool, seen, &me->spin_ns);
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
    if (pool->may_spin && spin(&pool->busy, 0, true, &pool->caller_spin_ns))
        return;
    atomic_store(&pool->caller_sleeps, 1);
    uint32_t busy;
    while ((busy = atomic_load(&pool->busy)) != 0)
        futex_wait(&pool->busy, busy);
    atomic_store(&pool->caller_sleeps, 0);
}

/* The pool that pinned this thread; 0: none. */
static _Thread_local uint64_t pinned_by;

static void pin_caller(const struct threadpool *pool)
{
    if (pinned_by == pool->id || (!pool->cpu && !pool->stay))
        return;
    pinned_by = pool->id;
    pin_thread(pool, 0);
}

void threadpool_run(struct threadpool *pool, threadpool_fn fn, void *arg, uint32_t n_tasks)
{
    if (n_tasks > 1 || pool->stay)
        pin_caller(pool);
    if (n_tasks <= 1 || pool->n_threads == 1) {
        for (uint32_t i = 0; i < n_tasks; i++)
            fn(arg, i, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    deal(pool, n_tasks);
    atomic_store_explicit(&pool->busy, pool->n_threads - 1, memory_order_relaxed);
    start_round(pool);
    take_tasks(pool, 0);
    wait_for_helpers(pool);
}

/* --- making ------------------------------------------------------------------------------------------------------------- */

static void give_back_claims(struct threadpool *pool)
{
    for (unsigned i = 0; pool->claim && i < pool->n_threads; i++)
        if (pool->claim[i] >= 0)
            close(pool->claim[i]);
    free(pool->claim);
    free(pool->cpu);
    pool->claim = pool->cpu = NULL;
}

/* "0-3,8" */
static void list_cpus(const struct threadpool *pool, char *ret, size_t n)
{
    size_t at = 0;
    ret[0] = '\0';
    for (unsigned i = 0, run; i < pool->n_threads && at < n; i += run) {
        for (run = 1; i + run < pool->n_threads && pool->cpu[i + run] == pool->cpu[i] + (int)run; run++)
            ;
        int len = run > 1 ? snprintf(ret + at, n - at, "%s%d-%d", i ? "," : "", pool->cpu[i], pool->cpu[i] + (int)run - 1)
                          : snprintf(ret + at, n - at, "%s%d", i ? "," : "", pool->cpu[i]);
        at += (size_t)len;
    }
}

/* A processor for each thread, or -1 and why not in placement. */
static int claim_cpus(struct threadpool *pool, struct err *err)
{
    int cpus[CPUS_MAX];
    unsigned n = pool->stay ? pool->n_stay : cpus_in_order(cpus, CPUS_MAX), got = 0;
    char list[100];
    if (pool->stay)
        memcpy(cpus, pool->stay, n * sizeof *cpus);
    if (n < pool->n_threads) {
        snprintf(pool->placement, sizeof pool->placement, "not pinned: %u threads, %u processors", pool->n_threads, n);
        return -1;
    }
    if (!(pool->cpu = mem_new(pool->n_threads, sizeof *pool->cpu, err)) ||
        !(pool->claim = mem_new(pool->n_threads, sizeof *pool->claim, err))) {
        snprintf(pool->placement, sizeof pool->placement, "not pinned: out of memory");
        pool->claim = NULL;
        give_back_claims(pool);
        return -1;
    }
    for (unsigned i = 0; i < pool->n_threads; i++)
        pool->claim[i] = -1;
    for (unsigned i = 0; i < n && got < pool->n_threads; i++) {
        int claim = cpus_claim(cpus[i]);
        if (claim < 0 && n > pool->n_threads)
            continue; /* who wants all has no choice */
        pool->claim[got] = claim;
        pool->cpu[got++] = cpus[i];
    }
    if (got < pool->n_threads) {
        snprintf(pool->placement, sizeof pool->placement, "not pinned: %u threads, but others have taken all but %u of %u processors",
                 pool->n_threads, got, n);
        give_back_claims(pool);
        return -1;
    }
    list_cpus(pool, list, sizeof list);
    snprintf(pool->placement, sizeof pool->placement, "pinned to processor%s %s", pool->n_threads == 1 ? "" : "s", list);
    return 0;
}

static int place(struct threadpool *pool, enum threadpool_pin pin, struct err *err)
{
    struct err why;
    unsigned usable = cpus_usable();
    usable = pool->stay && pool->n_stay < usable ? pool->n_stay : usable;
    pool->may_spin = pool->n_threads <= usable;
    snprintf(pool->placement, sizeof pool->placement, "not pinned");
    if (pin == THREADPOOL_PIN_NO)
        return 0;
    if (pool->n_threads == 1) {
        snprintf(pool->placement, sizeof pool->placement, "not pinned: a thread alone goes where there is room");
        return 0;
    }
    if (claim_cpus(pool, &why) == 0 || pin == THREADPOOL_PIN_AUTO)
        return 0;
    return err_set(err, ERR_USAGE, "%s; use fewer threads, or let the system place them (--pin auto)", pool->placement);
}

static int start_helpers(struct threadpool *pool, struct err *err)
{
    for (unsigned i = 1; i < pool->n_threads; i++) {
        pool->helpers[i] = (struct helper){.pool = pool, .index = i, .spin_ns = SPIN_NS};
        int rc = pthread_create(&pool->helpers[i].thread, NULL, help, &pool->helpers[i]);
        if (rc != 0)
            return err_set(err, ERR_MEMORY, "thread %u of %u could not be started: %s; try --threads %u", i + 1, pool->n_threads,
                           strerror(rc), i);
        pool->n_started++;
    }
    return 0;
}

static int copy_cpus(struct threadpool *pool, const struct threadpool_options *o, struct err *err)
{
    if (o->n_cpus == 0)
        return 0;
    pool->n_stay = o->n_cpus < CPUS_MAX ? o->n_cpus : CPUS_MAX;
    if (!(pool->stay = mem_new(pool->n_stay, sizeof *pool->stay, err)))
        return -1;
    memcpy(pool->stay, o->cpus, pool->n_stay * sizeof *pool->stay);
    return 0;
}

struct threadpool *threadpool_create_with(const struct threadpool_options *o, struct err *err)
{
    static _Atomic uint64_t pools;
    unsigned n_threads = o->n_threads, usable = threadpool_cpus();
    if (n_threads == 0)
        n_threads = o->n_cpus && o->n_cpus < usable ? o->n_cpus : usable;
    if (n_threads > THREADPOOL_MAX_THREADS) {
        err_set(err, ERR_USAGE, "%u threads asked for, at most %d allowed", n_threads, THREADPOOL_MAX_THREADS);
        return NULL;
    }
    struct threadpool *pool = mem_new(1, sizeof *pool, err);
    if (!pool)
        return NULL;
    pool->n_threads = n_threads;
    pool->id = atomic_fetch_add(&pools, 1) + 1;
    pool->caller_spin_ns = SPIN_NS;
    if (!(pool->helpers = mem_new(n_threads, sizeof *pool->helpers, err)) || copy_cpus(pool, o, err) != 0 ||
        place(pool, o->pin, err) != 0 || start_helpers(pool, err) != 0) {
        threadpool_destroy(pool);
        return NULL;
    }
    return pool;
}

struct threadpool *threadpool_create_pinned(unsigned n_threads, enum threadpool_pin pin, struct err *err)
{
    return threadpool_create_with(&(struct threadpool_options){.n_threads = n_threads, .pin = pin}, err);
}

struct threadpool *threadpool_create(unsigned n_threads, struct err *err)
{
    return threadpool_create_pinned(n_threads, THREADPOOL_PIN_NO, err);
}

void threadpool_destroy(struct threadpool *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    start_round(pool);
    for (unsigned i = 1; i <= pool->n_started; i++)
        pthread_join(pool->helpers[i].thread, NULL);
    if (pinned_by == pool->id) {
        cpus_pin_self(-1);
        pinned_by = 0;
    }
    give_back_claims(pool);
    free(pool->stay);
    free(pool->helpers);
    free(pool);
}

unsigned threadpool_size(const struct threadpool *pool)
{
    return pool->n_threads;
}

bool threadpool_pinned(const struct threadpool *pool)
{
    return pool->cpu != NULL;
}

const char *threadpool_placement(const struct threadpool *pool)
{
    return pool->placement;
}

unsigned threadpool_cpus(void)
{
    unsigned n = cpus_usable();
    return n < THREADPOOL_MAX_THREADS ? n : THREADPOOL_MAX_THREADS;
}
