/* How long streams stand still when a worker is killed and another stands by: bench_failover MODEL. Four nodes on this
 * machine, three needed, one standing by; the stage in the middle is killed while four answers flow. The file's pages are
 * dropped first, so that the lost layers come from the disk. Prints what the gap consists of, beside what is allowed: a second to
 * notice, the lost bytes at 0.85 of the rate at which the disk is read past the page cache (as dd with O_DIRECT), and computing again
 * what was lost, which is what passes between the pipeline's running again and the last stream's next token. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/pipeline/rig.h"

enum { STREAMS = 4, PROMPT = 128, AFTER = 12, SLACK_BYTES = 1 << 20, STREAM_MS = 120000, NEEDED = 3, ROUNDS = 3 };

static struct answer question[STREAMS];

static void drop_pages(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        rig_bail(path, NULL);
    close(fd);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Bytes a second, one read of 1 MiB after another; 0: its file system has no such reads. */
static double disk_rate(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    void *buffer = NULL;
    double bytes = 0;
    int64_t start = now_us();
    ssize_t n;
    if (fd < 0 || posix_memalign(&buffer, 4096, 1 << 20) != 0)
        return 0;
    drop_pages(path);
    while ((n = read(fd, buffer, 1 << 20)) > 0)
        bytes += (double)n;
    close(fd);
    free(buffer);
    return bytes / (double)(now_us() - start) * 1e6;
}

/* The node of the stage in the middle, and the bytes of its weights. */
static unsigned middle(struct engine *e, json_int_t *ret_bytes)
{
    json_t *status = engine_status(e), *stage = json_array_get(json_object_get(status, "stages"), NEEDED / 2);
    const char *name = json_string_value(json_object_get(stage, "node"));
    *ret_bytes = json_integer_value(json_object_get(json_object_get(stage, "bytes"), "weights"));
    unsigned node = name ? (unsigned)(name[1] - '0') : 0;
    json_decref(status);
    return node;
}

static void fail_over(const char *model, double disk)
{
    struct rig *rig = rig_create(model, NEEDED + 1, 1, rig_memory_for(model, NEEDED) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    struct stream s[STREAMS];
    char runs[256] = "", ready[256] = "";
    json_int_t bytes;
    unsigned node = middle(e, &bytes), open = STREAMS;
    bool killed = false;
    int64_t gap = 0, killed_ms = 0, again_ms = -1, resumed_ms = 0;
    uint32_t before[STREAMS] = {0}, missing = STREAMS;

    for (int i = 0; i < STREAMS; i++)
        stream_begin(&s[i], e, &question[i], false, UINT32_MAX);
    for (int64_t until = rig_now_ms() + STREAM_MS; open > 0 && rig_now_ms() < until;) {
        open = 0;
        for (int i = 0; i < STREAMS; i++)
            open += !stream_read(&s[i], 1);
        again_ms = killed && again_ms < 0 ? rig_note_ms("runs again") : again_ms;
        if (again_ms < 0)
            for (int i = 0; i < STREAMS; i++)
                before[i] = s[i].n;
        for (missing = 0; again_ms >= 0 && resumed_ms == 0 && missing < STREAMS && s[missing].n > before[missing];)
            if (++missing == STREAMS)
                resumed_ms = rig_now_ms();
        if (!killed && s[STREAMS - 1].n >= AFTER) {
            killed = true;
            drop_pages(model);
            rig_forget_notes();
            killed_ms = rig_now_ms();
            kill(rig->nodes[node].pid, SIGKILL);
        }
    }
    for (int i = 0; i < STREAMS; i++) {
        gap = s[i].gap_ms > gap ? s[i].gap_ms : gap;
        engine_release(s[i].r);
    }
    if (!rig_note("runs again", runs, sizeof runs) || !rig_note("node n3 is ready", ready, sizeof ready))
        rig_bail("the node that stands by was not taken", NULL);
    int64_t noticed = rig_note_ms("is interrupted"), loaded = rig_note_ms("node n3 is ready"), recomputed = resumed_ms - again_ms;
    printf("gap %" PRId64 " ms: noticed after %" PRId64 " ms, loaded after %" PRId64 " more, running after %" PRId64 " more, all streams go on after %" PRId64
           " more; lost %.0f MB; %s",
           gap, noticed - killed_ms, loaded - noticed, again_ms - loaded, recomputed, (double)bytes / 1e6, ready);
    if (disk > 0)
        printf("; the disk gives %.2f GB/s: allowed are %.0f ms", disk / 1e9, 1000 + (double)bytes / (0.85 * disk) * 1e3 + (double)recomputed);
    printf("\n");
    fflush(stdout);
    engine_destroy(e);
    rig_destroy(rig);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_failover MODEL\n");
        return 2;
    }
    rig_seed();
    for (int i = 0; i < STREAMS; i++) {
        question[i] = (struct answer){.n_prompt = PROMPT, .n_new = RIG_NEW_MAX, .sample = SAMPLE_PARAMS_DEFAULT};
        for (int k = 0; k < PROMPT; k++)
            question[i].prompt[k] = (int32_t)rig_draw(250);
    }
    for (int i = 0; i < ROUNDS; i++)
        fail_over(argv[1], disk_rate(argv[1]));
    return 0;
}
