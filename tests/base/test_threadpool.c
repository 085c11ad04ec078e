#include "base/threadpool.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cpus.h"
#include "tests/tap.h"

enum { TASKS = 257, CROWD = 4 };

static _Atomic int done[TASKS];
static unsigned n_threads;
static _Atomic int bad_thread;

static void mark(void *arg, uint32_t task, uint32_t thread)
{
    (void)arg;
    if (thread >= n_threads)
        bad_thread = 1;
    done[task]++;
}

/* The first task of the first thread ends when all others have: those that were dealt out to it, too. */
static void wait_for_others(void *arg, uint32_t task, uint32_t thread)
{
    _Atomic uint32_t *others = arg;
    (void)thread;
    if (task != 0) {
        atomic_fetch_add(others, 1);
        return;
    }
    for (int i = 0; i < 10000 && atomic_load(others) < TASKS - 1; i++)
        usleep(1000);
    done[0] = atomic_load(others) == TASKS - 1;
}

static void test_held_up(void)
{
    struct err err;
    struct threadpool *pool = threadpool_create(2, &err);
    _Atomic uint32_t others = 0;
    done[0] = 0;
    threadpool_run(pool, wait_for_others, &others, TASKS);
    ok(done[0], "a thread is held up: the other one takes what was dealt out to it (%u of %d)", atomic_load(&others), TASKS - 1);
    threadpool_destroy(pool);
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* In a process of its own, which sees one processor from its first look on; its exit status. */
static int crowd_on_one_processor(void)
{
    struct err err;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        return 2;
    if (threadpool_cpus() != 1 || threadpool_create_pinned(CROWD, THREADPOOL_PIN_YES, &err) || err.kind != ERR_USAGE)
        return 3;
    struct threadpool *pool = threadpool_create_pinned(CROWD, THREADPOOL_PIN_AUTO, &err);
    if (!pool || threadpool_pinned(pool) || strcmp(threadpool_placement(pool), "not pinned: 4 threads, 1 processors") != 0)
        return 4;
    n_threads = CROWD;
    for (int round = 0; round < 2000; round++)
        threadpool_run(pool, mark, NULL, 8);
    threadpool_destroy(pool);
    return done[7] == 2000 && !bad_thread ? 0 : 5;
}

static void test_crowd(void)
{
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(crowd_on_one_processor());
    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "four threads on one processor: 2000 rounds end (%d)", status);
}

static void test_rounds(void)
{
    struct err err;
    for (n_threads = 1; n_threads <= 5; n_threads++) {
        struct threadpool *pool = threadpool_create(n_threads, &err);
        bool once = true;
        for (int i = 0; i < TASKS; i++)
            done[i] = 0;
        for (int round = 0; round < 500; round++) {
            threadpool_run(pool, mark, NULL, (uint32_t)round % TASKS);
            if (round % 100 == 50)
                usleep(2000); /* long enough for the helpers to fall asleep */
        }
        for (int i = 0; i < TASKS; i++) {
            int want = 0;
            for (int round = 0; round < 500; round++)
                want += round % TASKS > i;
            once &= done[i] == want;
        }
        ok(once && !bad_thread, "%u threads: every task of 500 rounds once", n_threads);
        threadpool_destroy(pool);
    }
}

static void test_idle(void)
{
    struct err err;
    struct threadpool *pool = threadpool_create(n_threads = 4, &err);
    for (int round = 0; round < 100; round++)
        threadpool_run(pool, mark, NULL, 16);
    usleep(50000);
    double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
    usleep(500000);
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
    ok(used < 0.010, "an idle team: %.1f ms of processor time in half a second", used * 1e3);
    threadpool_destroy(pool);
}

/* Where each thread of a team may run: its only processor, or -1. */
static _Atomic int seat[THREADPOOL_MAX_THREADS];

static int only_processor(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) != 1)
        return -1;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            return i;
    return -1;
}

static void sit(void *arg, uint32_t task, uint32_t thread)
{
    (void)arg;
    (void)task;
    seat[thread] = only_processor();
    usleep(1000); /* so that everybody gets a task */
}

static void test_pinning(void)
{
    struct err err;
    unsigned n = threadpool_cpus(), distinct = 0;
    int order[CPUS_MAX];
    if (n < 2 || cpus_in_order(order, CPUS_MAX) != n) {
        tap_skip("pinning: %u processors, or a share of more", n);
        return;
    }
    struct threadpool *pool = threadpool_create_pinned(0, THREADPOOL_PIN_AUTO, &err);
    ok(pool && threadpool_size(pool) == n && threadpool_pinned(pool), "a team as large as the machine: %s",
       pool ? threadpool_placement(pool) : err.text);
    has_str(threadpool_placement(pool), "pinned to processors ", "it says where");
    for (unsigned i = 0; i < n; i++)
        seat[i] = -1;
    for (int round = 0; round < 20; round++)
        threadpool_run(pool, sit, NULL, 2 * n);
    for (unsigned i = 0; i < n; i++) {
        bool first = seat[i] >= 0;
        for (unsigned j = 0; j < i; j++)
            first &= seat[j] != seat[i];
        distinct += first;
    }
    is_int(distinct, n, "each thread has a processor of its own");
    is_int(only_processor(), order[0], "the caller the first");
    threadpool_destroy(pool);
    is_int(only_processor(), -1, "and is free again after the team");
    pool = threadpool_create_pinned(n, THREADPOOL_PIN_NO, &err);
    threadpool_run(pool, sit, NULL, 2 * n);
    ok(!threadpool_pinned(pool) && only_processor() == -1, "not where it should not: %s", threadpool_placement(pool));
    threadpool_destroy(pool);
    pool = threadpool_create_pinned(1, THREADPOOL_PIN_YES, &err);
    ok(pool && !threadpool_pinned(pool), "one thread: %s", pool ? threadpool_placement(pool) : err.text);
    threadpool_destroy(pool);
}

/* Teams that do not need all processors keep out of each other's way; on small machines only the claims show it. */
static void test_sharing(void)
{
    struct err err;
    int mine = 1000000 + (int)getpid(), first = cpus_claim(mine);
    ok(first >= 0, "a processor is taken");
    is_int(cpus_claim(mine), -1, "and is not there for a second");
    close(first);
    first = cpus_claim(mine);
    ok(first >= 0, "but is again when it was given back");
    close(first);
    unsigned n = threadpool_cpus();
    if (n < 4) {
        tap_skip("two teams side by side: %u processors", n);
        return;
    }
    struct threadpool *a = threadpool_create_pinned(n / 2, THREADPOOL_PIN_AUTO, &err),
                      *b = threadpool_create_pinned(n / 2, THREADPOOL_PIN_AUTO, &err);
    bool apart = !threadpool_pinned(a) || !threadpool_pinned(b) || strcmp(threadpool_placement(a), threadpool_placement(b)) != 0;
    ok(apart, "two teams of half the processors: %s; %s", threadpool_placement(a), threadpool_placement(b));
    struct threadpool *c = threadpool_create_pinned(n - 1, THREADPOOL_PIN_AUTO, &err);
    ok(!threadpool_pinned(c) || !threadpool_pinned(a), "no room for a third: %s", threadpool_placement(c));
    threadpool_destroy(a);
    threadpool_destroy(b);
    threadpool_destroy(c);
}

static void put_file(const char *folder, int cpu, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "mkdir -p %s/cpu%d/topology && echo '%s' > %s/cpu%d/topology/%s", folder, cpu, text, folder, cpu, name);
    if (system(path) != 0)
        ok(false, "%s", path);
}

static void test_order(void)
{
    static const struct {
        const char *siblings[4], *package[4], *want;
    } cases[] = {
        {{"0,2", "1,3", "0,2", "1,3"}, {"0", "0", "0", "0"}, "0 1 2 3"},
        {{"0-1", "0-1", "2-3", "2-3"}, {"0", "0", "0", "0"}, "0 2 1 3"},
        {{"0", "1", "2", "3"}, {"0", "1", "0", "1"}, "0 2 1 3"},
        {{"nonsense", "", "2", "3"}, {"0", "0", "0", "0"}, "0 1 2 3"},
    };
    char folder[] = "/tmp/sc-cpus-XXXXXX", command[64], got[64];
    if (!ok(mkdtemp(folder) != NULL, "a folder for made-up machines"))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int cpu[4] = {0, 1, 2, 3};
        for (int c = 0; c < 4; c++) {
            put_file(folder, c, "thread_siblings_list", cases[i].siblings[c]);
            put_file(folder, c, "physical_package_id", cases[i].package[c]);
        }
        cpus_sort(folder, cpu, 4);
        snprintf(got, sizeof got, "%d %d %d %d", cpu[0], cpu[1], cpu[2], cpu[3]);
        is_str(got, cases[i].want, "cores first, then their other halves, package by package: %zu", i);
    }
    int cpu[2] = {7, 5};
    cpus_sort(folder, cpu, 2);
    ok(cpu[0] == 5 && cpu[1] == 7, "processors of which nothing is known: by number");
    snprintf(command, sizeof command, "rm -r %s", folder);
    ok(system(command) == 0, "folder removed");
}

/* Parts of a machine: by memory nodes where there are as many, else by cores. */
static void test_parts(void)
{
    char folder[] = "/tmp/sc-cpus-XXXXXX", command[128], got[64];
    static const char *const siblings[] = {"0,2", "1,3", "0,2", "1,3"};
    static const struct {
        unsigned index, parts;
        bool nodes;
        const char *want;
    } cases[] = {{0, 1, false, "0 2 1 3"}, {0, 2, false, "0 2"}, {1, 2, false, "1 3"}, {2, 3, false, "1 3"}, {5, 8, false, "1"},
                 {0, 8, false, "0"},       {0, 2, true, "1 2"},  {1, 2, true, "0 3"},  {0, 3, true, "0"}};
    if (!ok(mkdtemp(folder) != NULL, "a folder for made-up machines"))
        return;
    for (int c = 0; c < 4; c++) {
        put_file(folder, c, "thread_siblings_list", siblings[c]);
        put_file(folder, c, "physical_package_id", "0");
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int cpu[4] = {0, 1, 2, 3};
        size_t len = 0;
        for (int c = 0; cases[i].nodes && c < 4; c++) {
            snprintf(command, sizeof command, "mkdir -p %s/cpu%d/node%d", folder, c, c == 1 || c == 2 ? 0 : 1);
            ok(system(command) == 0, "a memory node");
        }
        unsigned n = cpus_part_of(folder, cpu, 4, cases[i].index, cases[i].parts);
        got[0] = 0;
        for (unsigned k = 0; k < n; k++)
            len += (size_t)snprintf(got + len, sizeof got - len, "%s%d", k ? " " : "", cpu[k]);
        is_str(got, cases[i].want, "part %u of %u%s", cases[i].index, cases[i].parts, cases[i].nodes ? ", two memory nodes" : "");
    }
    is_int(cpus_part_of(folder, NULL, 0, 0, 2), 0, "of nothing");
    snprintf(command, sizeof command, "rm -r %s", folder);
    ok(system(command) == 0, "folder removed");
    int one[1];
    is_int(cpus_part(0, 1000, one, 1), 1, "a part is never empty");
    ok(cpus_nodes() >= 1, "a machine has a memory node");
}

int main(void)
{
    struct err err;
    test_crowd(); /* first: the process must not have looked at its processors yet */
    test_rounds();
    test_held_up();
    test_idle();
    test_pinning();
    test_parts();
    test_sharing();
    test_order();
    ok(!threadpool_create(100000, &err) && err.kind == ERR_USAGE, "an absurd count is refused");
    threadpool_destroy(NULL);
    ok(threadpool_cpus() >= 1, "%u processors", threadpool_cpus());
    return tap_done();
}
