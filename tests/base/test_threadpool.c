#include "base/threadpool.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

enum { TASKS = 257 };

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

int main(void)
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
    ok(!threadpool_create(100000, &err) && err.kind == ERR_USAGE, "an absurd count is refused");
    threadpool_destroy(NULL);
    ok(threadpool_cpus() >= 1, "%u processors", threadpool_cpus());
    return tap_done();
}
