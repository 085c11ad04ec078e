/* How fast a model's weights are loaded, packed for the kernels: bench_load MODEL.gguf [--threads N] [--reps N] [--range KIB]
 * [--in-flight N] [--only NUMBER]. Each way of reading in turn, best of the repetitions, beside what the same disk gives when nothing is
 * packed: reads of 1 MiB past the page cache, eight at a time, by as many threads. Cold: the file's pages are dropped from the
 * page cache before each load. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "model/weights.h"

enum { RAW_THREADS = 8, RAW_BYTES = 1 << 20 };

static struct err err;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of all threads, in the kernel, too. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_load: %s\n", what);
    exit(1);
}

static void drop(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        die(path);
    close(fd);
}

static void warm(const char *path)
{
    static char buf[RAW_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && read(fd, buf, sizeof buf) > 0)
        continue;
    close(fd);
}

struct raw {
    int fd;
    char *buffers;
};

static void read_raw(void *arg, uint32_t task, uint32_t thread)
{
    const struct raw *r = arg;
    if (pread(r->fd, r->buffers + (size_t)thread * RAW_BYTES, RAW_BYTES, (off_t)task * RAW_BYTES) < 0)
        die("reading past the page cache");
}

/* Bytes a second of the disk alone; 0 where it cannot be read past the page cache. */
static double raw_rate(const char *path, uint64_t bytes, uint32_t reps)
{
    struct raw r = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT)};
    struct threadpool *pool = threadpool_create(RAW_THREADS, &err);
    double best = 0;
    if (r.fd < 0 || !pool || posix_memalign((void **)&r.buffers, 4096, (size_t)RAW_THREADS * RAW_BYTES) != 0)
        return 0;
    memset(r.buffers, 1, (size_t)RAW_THREADS * RAW_BYTES);
    for (uint32_t i = 0; i < reps; i++) {
        drop(path);
        double start = seconds();
        threadpool_run(pool, read_raw, &r, (uint32_t)((bytes + RAW_BYTES - 1) / RAW_BYTES));
        double rate = (double)bytes / (seconds() - start);
        best = rate > best ? rate : best;
    }
    threadpool_destroy(pool);
    free(r.buffers);
    close(r.fd);
    return best;
}

struct way {
    const char *name;
    bool cold;
    struct source_file_options options;
};

int main(int argc, char **argv)
{
    unsigned threads = 0;
    uint32_t reps = 5, range = 0, in_flight = 0, only = 0;
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more && strcmp(argv[i], "--threads") == 0)
            threads = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--reps") == 0)
            reps = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--range") == 0)
            range = (uint32_t)strtoul(argv[++i], NULL, 10) << 10;
        else if (more && strcmp(argv[i], "--in-flight") == 0)
            in_flight = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--only") == 0)
            only = (uint32_t)strtoul(argv[++i], NULL, 10);
        else
            path = argv[i];
    }
    struct model_params p;
    struct gguf *g = path ? gguf_open(path, false, &err) : NULL;
    if (!path || !g || model_params_read(g, &p, &err) != 0 || gguf_n_splits(g) != 1)
        die(g || !path ? "usage: bench_load MODEL.gguf [--threads N] [--reps N] [--range KIB] [--in-flight N] [--only NUMBER]; one file, no splits" : err.text);
    struct backend *be = backend_cpu_create(threads, NULL, &err);
    struct threadpool *pool = be ? threadpool_create(backend_cpu_threads(be), &err) : NULL;
    if (!pool)
        die(err.text);
    double raw = only ? 0 : raw_rate(path, gguf_split_bytes(g, 0), reps);
    printf("%-28s %6.2f GB/s\n", "disk alone, O_DIRECT", raw / 1e9);
    static const struct way ways[] = {
        {"cold, io_uring", true, {0}},
        {"cold, not registered", true, {.no_registered = true}},
        {"cold, through page cache", true, {.no_direct = true}},
        {"cold, pread", true, {.no_uring = true}},
        {"warm", false, {0}},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (only && only != i + 1)
            continue;
        struct source_file_options options = ways[i].options;
        struct source_report report = {0};
        double best = 0, busy = 0;
        uint64_t bytes = 0;
        options.range_bytes = range;
        options.in_flight = in_flight;
        struct weights_options o = {.file = &options, .report = &report};
        if (!ways[i].cold)
            warm(path);
        for (uint32_t k = 0; k < reps; k++) {
            if (ways[i].cold)
                drop(path);
            double start = seconds(), cpu = cpu_seconds();
            struct weights *w = weights_load(g, &p, 0, p.n_layers, true, true, be, pool, &o, &err);
            double took = seconds() - start;
            if (!w)
                die(err.text);
            bytes = 0;
            for (uint32_t n = 0; n < report.n_parts; n++)
                bytes += report.part[n].bytes;
            double rate = (double)bytes / took;
            if (rate > best) {
                best = rate;
                busy = (cpu_seconds() - cpu) / took;
            }
            weights_destroy(w);
        }
        printf("%-28s %6.2f GB/s", ways[i].name, best / 1e9);
        if (raw > 0 && ways[i].cold)
            printf("  %3.0f%%", 100 * best / raw);
        printf("  %.2f cores busy", busy);
        for (uint32_t n = 0; n < report.n_parts; n++)
            printf("  %s %.0f MB", report.part[n].name, (double)report.part[n].bytes / 1e6);
        for (uint32_t n = 0; n < report.n_notes; n++)
            printf("  [%s]", report.note[n]);
        printf("\n");
    }
    threadpool_destroy(pool);
    backend_destroy(be);
    gguf_close(g);
    return 0;
}
