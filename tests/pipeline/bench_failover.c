/* How long streams stand still when a worker is killed and another stands by: bench_failover MODEL. Four nodes on this
 * machine, three needed, one standing by; the stage in the middle is killed while four answers flow. The file's pages are
 * dropped first, so that the lost layers come from the disk. Prints what the gap consists of; docs/performance.md has figures. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static void fail_over(const char *model)
{
    struct rig *rig = rig_create(model, NEEDED + 1, 1, rig_memory_for(model, NEEDED) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    struct stream s[STREAMS];
    char runs[256] = "", ready[256] = "";
    json_int_t bytes;
    unsigned node = middle(e, &bytes), open = STREAMS;
    bool killed = false;
    int64_t gap = 0;

    for (int i = 0; i < STREAMS; i++)
        stream_begin(&s[i], e, &question[i], false, UINT32_MAX);
    for (int64_t until = rig_now_ms() + STREAM_MS; open > 0 && rig_now_ms() < until;) {
        open = 0;
        for (int i = 0; i < STREAMS; i++)
            open += !stream_read(&s[i], 1);
        if (!killed && s[STREAMS - 1].n >= AFTER) {
            killed = true;
            drop_pages(model);
            rig_forget_notes();
            kill(rig->nodes[node].pid, SIGKILL);
        }
    }
    for (int i = 0; i < STREAMS; i++) {
        gap = s[i].gap_ms > gap ? s[i].gap_ms : gap;
        engine_release(s[i].r);
    }
    if (!rig_note("runs again", runs, sizeof runs) || !rig_note("node n3 is ready", ready, sizeof ready))
        rig_bail("the node that stands by was not taken", NULL);
    printf("gap %" PRId64 " ms; lost %.0f MB; %s; %s\n", gap, (double)bytes / 1e6, ready, runs);
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
        fail_over(argv[1]);
    return 0;
}
