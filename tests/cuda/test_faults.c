/* A device that has too little memory, none of the driver's newer functions, or old cores: sentences, other ways, nothing left. */
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

enum { TEXT = 12 };

static char path[512];

/* Loads a model and computes a text, in a process of its own: the driver reads its settings once. Prints the error, or the first
 * logits' bits. Exit status 0: all went well; 1: an error, with nothing left behind; 2: something was left. */
static int child(const char *settings)
{
    struct err err = {0};
    struct gguf *g = NULL;
    struct model_params p;
    uint32_t table[2] = {1, 0}, seq[TEXT] = {0}, pos[TEXT], wanted[1] = {TEXT - 1};
    int32_t token[TEXT];
    emulated_open(settings);
    struct backend *be = backend_cuda_create(&(struct backend_cuda_options){.untested = true}, &err);
    struct threadpool *readers = threadpool_create(3, NULL);
    struct stage *s = NULL;
    int rc = 1;
    if (be && (g = gguf_open(path, false, &err)) && model_params_read(g, &p, &err) == 0) {
        struct stage_config c = {.last = p.n_layers, .embed = true, .head = true, .kv = KV_F16, .ctx = 64, .n_blocks = {2, 2}, .max_rows = TEXT, .max_wanted = TEXT,
                                 .max_seqs = 1, .table_stride = 2};
        struct batch b = {.n_rows = TEXT, .seq = seq, .pos = pos, .token = token, .n_wanted = 1, .wanted = wanted, .table = {table, table}, .table_stride = 2};
        for (uint32_t i = 0; i < TEXT; i++) {
            pos[i] = i;
            token[i] = (int32_t)(i * 7 % MODEL_VOCAB);
        }
        if ((s = stage_create(g, &p, &c, be, readers, NULL, NULL, &err)) && stage_run(s, &b, NULL, &err) == 0) {
            const float *l = stage_logits(s, 0);
            printf("%a %a %a", (double)l[0], (double)l[1], (double)l[MODEL_VOCAB - 1]);
            rc = 0;
        }
    }
    if (rc != 0)
        printf("%s", err.text);
    stage_destroy(s);
    threadpool_destroy(readers);
    backend_destroy(be);
    gguf_close(g);
    return emulated_live() ? 2 : rc;
}

/* --- calls that fail in the middle ------------------------------------------------------------------------------------------ */

enum { HALF = TEXT / 2, BLOCKS = 4, SEQS = 2, CALLS_MAX = 1000 };

/* HALF rows of a sequence, whose one block is `block`, from `from` on; the last one's logits to ret, NULL: none are wanted, which is
 * another graph. */
static int half(struct stage *s, uint32_t which, uint32_t block, uint32_t from, float *ret, struct err *err)
{
    uint32_t table[SEQS] = {block, block}, seq[HALF], pos[HALF], wanted = HALF - 1;
    int32_t token[HALF];
    for (uint32_t i = 0; i < HALF; i++) {
        seq[i] = which;
        pos[i] = from + i;
        token[i] = (int32_t)((pos[i] * 7 + which * 31) % MODEL_VOCAB);
    }
    struct batch b = {.n_rows = HALF, .seq = seq, .pos = pos, .token = token, .n_wanted = ret != NULL, .wanted = &wanted, .table = {table, table}, .table_stride = 1};
    if (stage_run(s, &b, NULL, err) != 0)
        return -1;
    if (ret)
        memcpy(ret, stage_logits(s, 0), MODEL_VOCAB * sizeof *ret);
    return 0;
}

/* A step, or the copy of a block before it, fails at each of its calls in turn. It says so, and everything after it is as if it had not
 * been: in particular the device knows where a sequence's block is by then. */
static int child_calls(const char *settings)
{
    struct err err = {0};
    struct model_params p;
    float right[MODEL_VOCAB], got[MODEL_VOCAB];
    unsigned failed = 0, wrong = 0, rounds = 0;
    emulated_open(settings);
    struct gguf *g = gguf_open(path, false, &err);
    struct backend *be = g && model_params_read(g, &p, &err) == 0 ? backend_cuda_create(&(struct backend_cuda_options){.untested = true}, &err) : NULL;
    struct threadpool *readers = threadpool_create(1, NULL);
    struct stage_config c = {.last = p.n_layers, .embed = true, .head = true, .kv = KV_F16, .ctx = 32, .n_blocks = {BLOCKS, BLOCKS}, .max_rows = HALF,
                             .max_wanted = 1, .max_seqs = SEQS, .table_stride = 1};
    struct stage *s = be ? stage_create(g, &p, &c, be, readers, NULL, NULL, &err) : NULL;
    bool done = !s || half(s, 0, 0, 0, right, &err) != 0 || half(s, 0, 0, HALF, right, &err) != 0;
    for (int n = 1; !done && n < CALLS_MAX; n += n < 12 ? 1 : 7, rounds++) {
        uint32_t block = 1 + rounds % 2;
        emulated_fail_in(n);
        stage_copy_block(s, KV_FULL, 0, 3);
        done = half(s, 0, block, 0, NULL, &err) == 0;
        done = emulated_fail_in(0) > 0 && done; /* it has got as far as here without */
        failed += !done && err.kind != ERR_NONE;
        err_clear(&err);
        /* Its block is another from now on; the old one becomes another sequence's. */
        if (half(s, 0, block, 0, got, &err) != 0 || half(s, 1, 3 - block, 0, got, &err) != 0 || half(s, 0, block, HALF, got, &err) != 0)
            break;
        wrong += memcmp(got, right, sizeof got) != 0;
    }
    printf("%u of %u failed, %u wrong%s%s", failed, rounds, wrong, done ? "" : ": ", done ? "" : err.text);
    stage_destroy(s);
    threadpool_destroy(readers);
    backend_destroy(be);
    gguf_close(g);
    /* The last round met no call that fails; of a graph that the device has no memory for another try is made. */
    return emulated_live() ? 2 : !done || failed + 2 < rounds || rounds < 6 || wrong;
}

static int run_child(int (*child_fn)(const char *), const char *settings, char *said, size_t size)
{
    int fds[2], status = -1;
    size_t n = 0;
    ssize_t got;
    if (pipe(fds) != 0)
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        int rc = child_fn(settings);
        fflush(stdout);
        _exit(rc);
    }
    close(fds[1]);
    while (n + 1 < size && (got = read(fds[0], said + n, size - 1 - n)) > 0)
        n += (size_t)got;
    said[n] = 0;
    close(fds[0]);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(const char *settings, char *said, size_t size)
{
    return run_child(child, settings, said, size);
}

int main(void)
{
    char right[1024], said[1024], settings[64];
    if (getenv("SC_CUDA_DEVICE"))
        tap_skip_all("faults are made on an emulated device only");
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    model_write(model_spec_of("llama"), QUANT_Q4_K, path);
    const char *build = getenv("SC_BUILD");
    snprintf(said, sizeof said, "%s/tests/cuda/emulated/libcuda.so.1", build ? build : ".");
    if (access(said, R_OK) != 0)
        tap_skip_all("no emulated CUDA device was built");
    is_int(run("memory=1024", right, sizeof right), 0, "a model on a device: %s", right);
    const char *others[] = {"graphs=0", "capability=75", "capability=61", "seed=2", "seed=3"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        is_int(run(others[i], said, sizeof said), 0, "with %s", others[i]);
        is_str(said, right, "the same bits");
    }
    is_int(run("capability=60", said, sizeof said), 1, "a device that is too old: %s", said);
    has_str(said, "6.1", "says what is needed");
    is_int(run("devices=0", said, sizeof said), 1, "no device: %s", said);
    int failures = 0, clean = 0;
    for (int n = 1; n < 60; n++) { /* each allocation in turn */
        snprintf(settings, sizeof settings, "fail_alloc=%d", n);
        int rc = run(settings, said, sizeof said);
        if (rc == 0)
            break;
        failures++;
        clean += rc == 1 && strstr(said, "free of") != NULL;
        if (rc != 1)
            tap_note("%s: status %d: %s", settings, rc, said);
    }
    ok(failures > 5 && clean == failures, "%d allocations that fail: a sentence with numbers each, nothing is left (%d)", failures, clean);
    is_int(run_child(child_calls, "graphs=1", said, sizeof said), 0, "each call of a step fails in turn, graphs: %s", said);
    is_int(run_child(child_calls, "graphs=0", said, sizeof said), 0, "without graphs: %s", said);
    is_int(run("memory=1", said, sizeof said), 1, "1 MiB of memory: %s", said);
    return tap_done();
}
