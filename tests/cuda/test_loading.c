/* Weights on their way to a device: straight from where they were read to, and never more of them on the host than the ranges in
 * hand, however large the model is; where pages cannot be pinned, by one more copy, with the same result, and it is said. Where the
 * device's memory does not suffice, the rest of the file is not read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "base/threadpool.h"
#include "kernels/cuda/cuda.h"
#include "model/stage.h"
#include "tests/cuda/emulated.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { LAYERS = 4, BIG = 24, THREADS = 2, RANGE = 128 << 10, IN_FLIGHT = 2 };
/* Ranges in the threads' hands and in flight, each widened to whole blocks of the disk. */
enum { BUFFERS_BYTES = (2 * THREADS + IN_FLIGHT) * (RANGE + (64 << 10)), SLACK_BYTES = 2 << 20 };

static char path[512];

/* What one load came to. */
struct outcome {
    uint64_t hash, bytes, read, pinned, most_anon;
    unsigned left;
    char note[SOURCE_NOTE_BYTES], error[256];
};

/* Of this process: memory that is neither a file's nor, as the emulated device's is, shared. */
static uint64_t anonymous_bytes(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %lu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return (uint64_t)kib << 10;
}

static void watch(void *arg, uint64_t done, uint64_t total)
{
    uint64_t *most = arg, now = anonymous_bytes();
    (void)done;
    (void)total;
    *most = now > *most ? now : *most;
}

static uint64_t hash_of(struct backend *be, const struct weights *w)
{
    uint64_t hash = 14695981039346656037u;
    for (uint32_t i = 0; i < w->last - w->first; i++) {
        const struct weight *mats[] = {&w->layers[i].q, &w->layers[i].k, &w->layers[i].out, &w->layers[i].gate, &w->layers[i].up, &w->layers[i].down};
        for (size_t k = 0; k < sizeof mats / sizeof *mats; k++) {
            size_t bytes = be->ops->weight_bytes(be, mats[k]->type, mats[k]->rows, mats[k]->cols);
            unsigned char *copy = malloc(bytes);
            be->ops->read(be, copy, mats[k]->data, bytes, NULL);
            for (size_t b = 0; b < bytes; b++)
                hash = (hash ^ copy[b]) * 1099511628211u;
            free(copy);
        }
    }
    return hash;
}

/* What a load finds of the device's memory. */
enum room {
    ROOM,
    NO_STAGING, /* enough for the weights, but not for what they go through */
    NO_KV,      /* not enough for the KV cache that is to come with them */
};

static void *take_all_but(struct backend *be, uint64_t leave, size_t *ret_bytes, struct err *err)
{
    uint64_t free_now = 0, total = 0;
    if (backend_cuda_memory(be, &free_now, &total, err) != 0 || free_now < leave)
        return NULL;
    *ret_bytes = (size_t)(free_now - leave);
    return be->ops->alloc(be, *ret_bytes, err);
}

static void load_short(const struct gguf *g, const struct model_params *p, struct backend *be, struct threadpool *readers, enum room room,
                       struct weights_options *o, struct err *err)
{
    struct stage_config c = {.last = p->n_layers, .embed = true, .head = true, .kv = KV_F16, .ctx = 64, .n_blocks = {room == NO_KV ? 4096 : 2, 2},
                             .max_rows = 8, .max_wanted = 8, .max_seqs = 1, .table_stride = 2};
    struct stage_bytes need;
    size_t taken = 0;
    if (stage_bytes(g, p, &c, be, &need, err) != 0)
        return;
    void *other = take_all_but(be, need.weights + (1 << 20) + (room == NO_KV ? 0 : need.kv), &taken, err);
    if (other)
        stage_destroy(stage_create_from(g, p, &c, be, readers, o, err));
    be->ops->free(be, other, taken);
}

static uint64_t bytes_read(const struct source_report *r)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->n_parts; i++)
        sum += r->part[i].bytes;
    return sum;
}

/* Loads once, so that all is warm, and again; where it fails, once. */
static void load(const char *settings, bool cold, enum room room, struct outcome *ret)
{
    struct err err = {0};
    struct model_params p;
    struct source_report report = {0};
    emulated_open(settings);
    struct gguf *g = gguf_open(path, false, &err);
    struct backend *be = g && model_params_read(g, &p, &err) == 0 ? backend_cuda_create(&(struct backend_cuda_options){.untested = true}, &err) : NULL;
    struct threadpool *readers = be ? threadpool_create(THREADS, &err) : NULL;
    struct source_file_options file = {.range_bytes = RANGE, .in_flight = IN_FLIGHT, .all_cold = cold};
    struct weights_options in_vain = {.file = &file, .report = &report};
    if (readers && room != ROOM)
        load_short(g, &p, be, readers, room, &in_vain, &err);
    for (int i = 0; i < 2 && room == ROOM && readers && err.kind == ERR_NONE; i++) {
        uint64_t before = anonymous_bytes(), most = before;
        struct weights_options o = {.file = &file, .progress = watch, .progress_arg = &most, .report = &report};
        struct weights *w = weights_load(g, &p, 0, p.n_layers, true, true, be, readers, &o, &err);
        if (w) {
            ret->most_anon = most - before;
            ret->bytes = w->bytes;
            ret->hash = hash_of(be, w);
        }
        weights_destroy(w);
    }
    ret->pinned = emulated_pinned();
    ret->read = bytes_read(&report);
    if (report.n_notes)
        snprintf(ret->note, sizeof ret->note, "%s", report.note[report.n_notes - 1]);
    snprintf(ret->error, sizeof ret->error, "%.200s", err.text);
    threadpool_destroy(readers);
    backend_destroy(be);
    gguf_close(g);
    ret->left = emulated_live();
}

/* In a process of its own: the driver reads its settings once. */
static struct outcome run(const char *settings, bool cold, enum room room)
{
    struct outcome ret = {0};
    int fds[2], status = -1;
    if (pipe(fds) != 0)
        return ret;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        load(settings, cold, room, &ret);
        _exit(write(fds[1], &ret, sizeof ret) == (ssize_t)sizeof ret ? 0 : 1);
    }
    close(fds[1]);
    if (read(fds[0], &ret, sizeof ret) != (ssize_t)sizeof ret)
        ret = (struct outcome){.error = "the process ended"};
    close(fds[0]);
    waitpid(pid, &status, 0);
    return ret;
}

static void check(const struct outcome *o, const char *what)
{
#ifdef SC_SANITIZED
    bool bounded = true; /* what is freed is kept for a while */
#else
    bool bounded = o->most_anon < BUFFERS_BYTES + SLACK_BYTES;
#endif
    is_str(o->error, "", "%s: loaded", what);
    is_int(o->left, 0, "nothing is left");
    ok(o->bytes > 5 * (uint64_t)BUFFERS_BYTES && bounded, "%s: %llu KiB of weights, at most %llu KiB of them on the host", what,
       (unsigned long long)o->bytes >> 10, (unsigned long long)o->most_anon >> 10);
}

int main(void)
{
    struct model_spec spec = *model_spec_of("llama");
    const char *build = getenv("SC_BUILD");
    char library[512];
    if (getenv("SC_CUDA_DEVICE"))
        tap_skip_all("memory is counted on an emulated device only");
    snprintf(library, sizeof library, "%s/tests/cuda/emulated/libcuda.so.1", build ? build : ".");
    if (access(library, R_OK) != 0)
        tap_skip_all("no emulated CUDA device was built");
    spec.layers = LAYERS;
    spec.big = BIG;
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    model_write(&spec, QUANT_Q4_K, path);

    struct outcome cold = run("memory=64", true, ROOM), resident = run("memory=64", false, ROOM), copied = run("memory=64,pin=0", true, ROOM);
    check(&cold, "read from the disk");
    ok(cold.pinned > 0 && cold.pinned <= BUFFERS_BYTES, "%llu KiB were pinned: the loader's buffers and no other", (unsigned long long)cold.pinned >> 10);
    ok(!strstr(cold.note, "once more"), "and nothing is copied again: \"%s\"", cold.note);
    check(&resident, "from the page cache");
    ok(resident.pinned <= BUFFERS_BYTES, "%llu KiB were pinned", (unsigned long long)resident.pinned >> 10);
    is_str(copied.error, "", "where pages cannot be pinned: loaded");
    is_int(copied.left, 0, "nothing is left");
    has_str(copied.note, "once more", "it is said");
    ok(resident.hash == cold.hash && copied.hash == cold.hash && cold.hash != 0, "the same weights each time");

    const char *ways[] = {"memory=64", "memory=64,pin=0"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (int warm = 0; warm < 2; warm++) {
            struct outcome none = run(ways[i], !warm, NO_STAGING);
            has_str(none.error, "staging for loading asked for 2.0 MiB, cuda:0 (emulated) has 1", "%s, %s: too little memory while loading", ways[i], warm ? "resident" : "cold");
            has_str(none.error, "tensor ", "says where");
            ok(none.read <= BUFFERS_BYTES && cold.bytes > 5 * (uint64_t)BUFFERS_BYTES, "%llu KiB were read, of %llu: what was in hand", (unsigned long long)none.read >> 10,
               (unsigned long long)cold.bytes >> 10);
            is_int(none.left, 0, "nothing is left");
        }
    struct outcome none = run("memory=64", true, NO_KV);
    has_str(none.error, "KV cache of layer ", "no room for the KV cache: %s", none.error);
    is_int((long long)none.read, 0, "nothing was read in vain");
    is_int(none.left, 0, "nothing is left");
    return tap_done();
}
