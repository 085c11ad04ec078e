/* How fast two worker processes load half a model each from the disk: bench_cold MODEL [WORKERS [ROUNDS]]. Before each round the
 * file's pages are dropped from the page cache; beside it, in the same round, the same file read past the page cache in pieces of
 * 1 MiB, one after another, as dd with O_DIRECT does. Packing for the kernels is part of loading. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/pipeline/rig.h"

enum { WORKERS = 2, ROUNDS = 3, PIECE = 1 << 20, ALIGN = 4096 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void drop_pages(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        rig_bail(path, NULL);
    close(fd);
}

static double disk_rate(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    void *buffer = NULL;
    double bytes = 0, start = seconds();
    ssize_t n;
    if (fd < 0 || posix_memalign(&buffer, ALIGN, PIECE) != 0)
        rig_bail("reading past the page cache", NULL);
    while ((n = read(fd, buffer, PIECE)) > 0)
        bytes += (double)n;
    close(fd);
    free(buffer);
    return bytes / (seconds() - start);
}

/* The bytes of all stages by the time of the slowest, as they report it. */
static double load_rate(const char *model, unsigned workers)
{
    struct engine_options o = rig_options(NULL, model, workers);
    struct engine *e = rig_engine(&o);
    json_t *status = engine_status(e), *stages = json_object_get(status, "stages");
    double bytes = 0, slowest = 0;
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const json_t *s = json_array_get(stages, i);
        double ms = json_number_value(json_object_get(s, "load_ms"));
        bytes += json_number_value(json_object_get(json_object_get(s, "bytes"), "weights"));
        slowest = ms > slowest ? ms : slowest;
    }
    json_decref(status);
    engine_destroy(e);
    return slowest > 0 ? bytes / slowest * 1e3 : 0;
}

int main(int argc, char **argv)
{
    unsigned workers = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : WORKERS, rounds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : ROUNDS;
    if (argc < 2 || workers < 1 || rounds < 1) {
        fprintf(stderr, "usage: bench_cold MODEL [WORKERS [ROUNDS]]\n");
        return 2;
    }
    for (unsigned i = 0; i < rounds; i++) {
        drop_pages(argv[1]);
        double disk = disk_rate(argv[1]);
        drop_pages(argv[1]);
        double load = load_rate(argv[1], workers);
        printf("%u workers load %.2f GB/s, the disk alone gives %.2f: %.2f of it\n", workers, load / 1e9, disk / 1e9, load / disk);
        fflush(stdout);
    }
    return 0;
}
