/* Two stages of one process on two devices: rows go from one's memory to the other's where the devices reach each other, by the
 * host where they do not, and the logits are the CPU's either way. The rooms that they go through. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/threadpool.h"
#include "kernels/cuda/cuda.h"
#include "model/stage.h"
#include "tests/cuda/emulated.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"
#include "worker/inlet.h"

enum { TEXT = 90, FIRST = 70, BLOCKS = 3, CUT = 1 };

static struct err err;
static struct gguf *g;
static struct model_params p;
static struct threadpool *readers;
static int32_t text[TEXT];

static void die(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

static struct stage *make_stage(struct backend *be, uint32_t first, uint32_t last)
{
    struct stage_config c = {.first = first, .last = last, .embed = first == 0, .head = last == p.n_layers, .kv = KV_F16, .ctx = TEXT, .n_blocks = {BLOCKS, BLOCKS},
                             .max_rows = TEXT, .max_wanted = TEXT, .max_seqs = 1, .table_stride = BLOCKS};
    struct stage *s = stage_create(g, &p, &c, be, readers, NULL, NULL, &err);
    if (!s)
        die("a stage");
    return s;
}

/* The text's rows [from, to), the last one's logits wanted. */
static struct batch rows_of(uint32_t from, uint32_t to)
{
    static uint32_t seq[TEXT], pos[TEXT], wanted, table[BLOCKS] = {2, 0, 1};
    for (uint32_t i = from; i < to; i++)
        pos[i - from] = i;
    wanted = to - from - 1;
    return (struct batch){.n_rows = to - from, .seq = seq, .pos = pos, .token = text + from, .n_wanted = 1, .wanted = &wanted, .table = {table, table},
                          .table_stride = BLOCKS};
}

/* One step through both stages, by a room of the second one's or by the host. */
static const float *step(struct stage *a, struct stage *b, const struct batch *batch, void *room)
{
    struct stage_path out = {.to = room ? b : NULL, .there = room}, in = {.here = room};
    if (stage_run_path(a, batch, &out, &err) != 0)
        die("the first stage");
    if (!room)
        in.hidden = stage_hidden(a);
    if (stage_run_path(b, batch, &in, &err) != 0)
        die("the second stage");
    return stage_logits(b, 0);
}

/* Many rows, few, one at a time; some steps by the host where both ways are there. */
static bool same_text(struct stage *whole, struct stage *a, struct stage *b, void *room)
{
    bool same = true;
    for (uint32_t from = 0; from < TEXT;) {
        uint32_t to = from == 0 ? FIRST : from == FIRST ? FIRST + 5 : from + 1;
        struct batch batch = rows_of(from, to);
        if (stage_run(whole, &batch, NULL, &err) != 0)
            die("the whole model");
        const float *got = step(a, b, &batch, from % 4 == 3 ? NULL : room);
        same = same && memcmp(got, stage_logits(whole, 0), MODEL_VOCAB * sizeof *got) == 0;
        from = to;
    }
    return same;
}

static void test_inlet(struct stage *a, struct stage *b)
{
    struct stage *whose = NULL;
    struct inlet *in = inlet_create(b, 4, &err), *other = inlet_create(a, 4, &err);
    size_t bytes = (size_t)TEXT * p.embd * sizeof(float);
    if (!in || !other)
        die("an inlet");
    ok(!inlet_room(in, 16, &whose), "no room before they met");
    ok(inlet_meet(in, a, bytes), "there are rooms on the second device");
    ok(!inlet_meet(in, a, bytes), "made once");
    void *one = inlet_room(in, bytes, &whose), *two = NULL;
    ok(one && whose == b, "a room for a whole step");
    inlet_filled(in);
    ok(!inlet_room(in, bytes + 1, &whose), "none for more than it holds");
    ok((two = inlet_room(in, 16, &whose)) && two != one, "another");
    inlet_filled(in);
    ok(!inlet_room(in, 16, &whose), "there are two");
    inlet_room_free(in, one);
    ok(inlet_room(in, 16, &whose) == one, "the first again");
    inlet_filled(in);
    inlet_share(in);
    inlet_drop(in); /* the stage before it has gone */
    inlet_close(in);
    inlet_room_free(in, two); /* late, and nothing to do */
    ok(!inlet_room(in, 16, &whose), "closed: no rooms");
    ok(!inlet_meet(in, a, bytes), "nor new ones");
    inlet_drop(in);
    inlet_close(other);
    inlet_drop(other);
}

static void test_two_devices(bool reach)
{
    struct backend *cpu = backend_cpu_create(1, "scalar", &err), *be[2];
    for (unsigned i = 0; i < 2; i++)
        if (!cpu || !(be[i] = backend_cuda_create(&(struct backend_cuda_options){.device = i, .untested = true}, &err)))
            die("a device");
    struct stage *whole = make_stage(cpu, 0, p.n_layers), *a = make_stage(be[0], 0, CUT), *b = make_stage(be[1], CUT, p.n_layers);
    size_t bytes = (size_t)TEXT * p.embd * sizeof(float);
    ok(!stage_reaches(whole, b) && !stage_reaches(a, whole) && !stage_reaches(a, a), "the processor reaches no device, nor a device it, nor itself");
    ok(stage_reaches(a, b) == reach, "%s", reach ? "the devices reach each other" : "the devices do not reach each other");
    void *room = reach ? stage_room_alloc(b, bytes, &err) : NULL;
    uint64_t before = emulated_peer_copies();
    ok(same_text(whole, a, b, room), "the CPU's logits");
    ok((emulated_peer_copies() > before) == reach, "%llu copies between devices", (unsigned long long)(emulated_peer_copies() - before));
    if (reach) {
        stage_room_free(b, room, bytes);
        test_inlet(a, b);
    }
    stage_destroy(whole);
    stage_destroy(a);
    stage_destroy(b);
    backend_destroy(cpu);
    backend_destroy(be[0]);
    backend_destroy(be[1]);
    is_int(emulated_live(), 0, "nothing is left on the devices");
}

/* In a process of its own, whose tests are lines of ours: the driver reads its settings once. */
static bool run(const char *settings, bool reach)
{
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(2, 1);
        emulated_open(settings);
        if (!(readers = threadpool_create(2, &err)))
            die("threads");
        test_two_devices(reach);
        threadpool_destroy(readers);
        gguf_close(g);
        int rc = tap_done();
        fflush(stdout);
        _exit(rc); /* the folder is the parent's to remove */
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(void)
{
    char path[512], library[512];
    const char *build = getenv("SC_BUILD");
    if (getenv("SC_CUDA_DEVICE"))
        tap_skip_all("these need two devices: the emulated driver's");
    snprintf(library, sizeof library, "%s/tests/cuda/emulated/libcuda.so.1", build ? build : ".");
    if (access(library, R_OK) != 0)
        tap_skip_all("no emulated CUDA device was built");
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    if (!(g = gguf_open(path, false, &err)) || model_params_read(g, &p, &err) != 0)
        die(path);
    for (int i = 0; i < TEXT; i++)
        text[i] = i * 37 % MODEL_VOCAB;
    ok(run("devices=2", true), "two devices that reach each other");
    ok(run("devices=2,peers=0", false), "two that do not");
    gguf_close(g);
    return tap_done();
}
