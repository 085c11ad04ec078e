/* The host's memory and its disk. See profile.h. Figures are means, not the best: that is what a plan promises, and on machines that
 * are held back from time to time (a control group's quota, a throttled processor) the two differ. */
#include "worker/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sysinfo.h"

enum {
    FILL = 0x11, /* pages of zeros would be one page */
    READ_TASK_BYTES = 1 << 20, READ_AHEAD_BYTES = 2048,
    DISK_BLOCK = 1 << 20, DISK_THREADS = 4, DISK_ALIGN = 4096,
    WINDOWS_MOST = 8,
};
static const double ALIKE = 0.05;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- time --------------------------------------------------------------------------------------------------------------- */

void profile_watch_start(struct profile_watch *w, unsigned ms)
{
    double now = seconds();
    *w = (struct profile_watch){.began = now, .now = now, .window_s = ms * 1e-3 / 2, .window_began = now};
}

bool profile_watch_done(struct profile_watch *w)
{
    double before = w->per_s;
    w->now = seconds();
    w->n++;
    w->n_window++;
    if (w->now < w->window_began + w->window_s)
        return false;
    w->per_s = w->n_window / (w->now - w->window_began);
    w->window_began = w->now;
    w->n_window = 0;
    return w->now >= w->began + WINDOWS_MOST * w->window_s || (before > w->per_s * (1 - ALIKE) && before < w->per_s * (1 + ALIKE));
}

/* --- memory ------------------------------------------------------------------------------------------------------------- */

struct reading {
    const char *from;
    _Atomic uint64_t sum; /* so that nothing is left out */
};

static void read_task(void *arg, uint32_t task, uint32_t thread)
{
    struct reading *r = arg;
    const uint64_t *at = (const uint64_t *)(const void *)(r->from + (size_t)task * READ_TASK_BYTES);
    uint64_t sum[8] = {0};
    (void)thread;
    for (size_t i = 0; i < READ_TASK_BYTES / sizeof *at; i += 8) {
        __builtin_prefetch(&at[i] + READ_AHEAD_BYTES / sizeof *at, 0, 3); /* as kernels do: alone the processor looks less far ahead */
        for (size_t k = 0; k < 8; k++)
            sum[k] ^= at[i + k];
    }
    atomic_fetch_add_explicit(&r->sum, sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7], memory_order_relaxed);
}

int profile_read(struct threadpool *team, uint64_t bytes, unsigned ms, double *ret_per_s, struct err *err)
{
    uint32_t tasks = (uint32_t)(sysinfo_beyond_caches(bytes) / READ_TASK_BYTES);
    char *pages = mem_pages_alloc((size_t)tasks * READ_TASK_BYTES, err);
    struct reading r = {.from = pages};
    struct profile_watch w;

    if (!pages)
        return -1;
    memset(pages, FILL, (size_t)tasks * READ_TASK_BYTES);
    threadpool_run(team, read_task, &r, tasks);
    profile_watch_start(&w, ms);
    do
        threadpool_run(team, read_task, &r, tasks);
    while (!profile_watch_done(&w));
    *ret_per_s = (double)w.n * tasks * READ_TASK_BYTES / (w.now - w.began);
    mem_pages_free(pages, (size_t)tasks * READ_TASK_BYTES);
    return 0;
}

/* --- disk --------------------------------------------------------------------------------------------------------------- */

struct disk {
    int fd;
    uint64_t blocks;
    double until;
    _Atomic uint64_t next, done;
    _Atomic int failed;
};

static void *read_disk(void *arg)
{
    struct disk *d = arg;
    void *buf = NULL;
    if (posix_memalign(&buf, DISK_ALIGN, DISK_BLOCK) != 0)
        return NULL;
    while (seconds() < d->until && !atomic_load(&d->failed)) {
        uint64_t block = atomic_fetch_add(&d->next, 1) % d->blocks;
        ssize_t n = pread(d->fd, buf, DISK_BLOCK, (off_t)(block * DISK_BLOCK));
        if (n != DISK_BLOCK) {
            atomic_store(&d->failed, n < 0 ? errno : EIO);
            break;
        }
        atomic_fetch_add(&d->done, DISK_BLOCK);
    }
    free(buf);
    return NULL;
}

int profile_disk(const char *path, unsigned ms, double *ret_per_s, struct err *err)
{
    struct disk d = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT)};
    pthread_t threads[DISK_THREADS];
    int n = 0, failed = d.fd < 0 ? errno : 0;
    struct stat st;
    double began = seconds();

    if (failed == EINVAL)
        return err_set(err, ERR_UNSUPPORTED, "%s: its file system has no reads past the page cache (O_DIRECT): the disk cannot be measured there", path);
    if (failed)
        return err_errno(err, failed, "%s", path);
    if (fstat(d.fd, &st) != 0 || (d.blocks = (uint64_t)st.st_size / DISK_BLOCK) == 0) {
        close(d.fd);
        return err_set(err, ERR_INPUT, "%s: %lld bytes are too few to measure a disk with; give a file of some megabytes", path, (long long)st.st_size);
    }
    d.until = began + ms * 1e-3;
    for (; n < DISK_THREADS; n++)
        if (pthread_create(&threads[n], NULL, read_disk, &d) != 0)
            break;
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    close(d.fd);
    if ((failed = atomic_load(&d.failed)) != 0)
        return err_errno(err, failed, "%s", path);
    *ret_per_s = (double)atomic_load(&d.done) / (seconds() - began);
    return 0;
}
