/* --prompt-gemm blas on a device: prompts go by cuBLAS where matrices are of floats, near the logits of our own kernels but not the
 * same; few rows, and quantized matrices, do not; and the class of numbers is another. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "kernels/device.h"
#include "model/session.h"
#include "tests/cuda/emulated.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { ROWS = 70, FEW = 64, CTX = 96 }; /* FEW: steps of so many are graphs (kernels/cuda/run.h) */

static struct err err;
static char path[512];
static float want[ROWS * MODEL_VOCAB], got[ROWS * MODEL_VOCAB];
static struct device_list list;

/* All rows' logits, in steps of `chunk` rows. */
static void compute(enum prompt_gemm gemm, uint32_t chunk, float *ret)
{
    struct session_row rows[ROWS];
    struct session_options o = {.device = &list.item[0], .untested = true, .threads = 1, .ctx = CTX, .prompt_gemm = gemm};
    struct session *s = session_open(path, &o, &err);
    for (uint32_t at = 0; s && at < ROWS; at += chunk) {
        uint32_t n = ROWS - at < chunk ? ROWS - at : chunk;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = (struct session_row){.pos = at + i, .token = (int32_t)((at + i) * 13 % MODEL_VOCAB), .want = true};
        if (session_step(s, rows, n, &err) != 0)
            break;
        for (uint32_t i = 0; i < n; i++)
            memcpy(ret + (size_t)(at + i) * MODEL_VOCAB, session_logits(s, i), MODEL_VOCAB * sizeof *ret);
    }
    if (!s || err.kind != ERR_NONE) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    session_close(s);
}

static double distance(void)
{
    double diff = 0, all = 0;
    for (size_t i = 0; i < ROWS * MODEL_VOCAB; i++) {
        diff += pow((double)want[i] - got[i], 2);
        all += pow(want[i], 2);
    }
    return sqrt(diff / all);
}

static void test_model(const char *spec, enum quant_type type, double bound)
{
    const char *name = quant_traits(type)->name;
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    model_write(model_spec_of(spec), type, path);
    compute(GEMM_INT8, ROWS, want);
    uint64_t before = emulated_blas_products();
    compute(GEMM_BLAS, ROWS, got);
    uint64_t products = emulated_blas_products() - before;
    bool same = memcmp(want, got, sizeof want) == 0;
    if (bound == 0) {
        ok(same && products == 0, "%s %s: cuBLAS is not for quantized matrices", spec, name);
        return;
    }
    ok(!same && products > 0 && distance() < bound, "%s %s: cuBLAS makes %llu products, and near: %.2g", spec, name, (unsigned long long)products, distance());
    before = emulated_blas_products();
    compute(GEMM_BLAS, FEW - 1, got);
    ok(emulated_blas_products() == before && memcmp(want, got, sizeof want) == 0, "%s %s: none for few rows", spec, name);
}

static void test_classes(void)
{
    struct device_options how = {.untested = true, .threads = 1, .prompt_gemm = GEMM_BLAS_ALL};
    uint32_t revision = 0;
    ok(!device_open(&list.item[0], &how, &err) && err.kind == ERR_USAGE, "blas-all: %s", err.text);
    for (int blas = 0; blas < 2; blas++) {
        how.prompt_gemm = blas ? GEMM_BLAS : GEMM_INT8;
        struct backend *be = device_open(&list.item[0], &how, &err);
        is_str(be ? device_numerics(be, &how, &revision) : err.text, blas ? NUMERICS_CUDA_BLAS : NUMERICS_CUDA, "a class of numbers of its own");
        backend_destroy(be);
    }
}

/* In a process where the library is not known by name. */
static void test_missing(void)
{
    char said[512] = "";
    int fds[2], status;
    if (pipe(fds) != 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 1);
        emulated_open("blas=0");
        struct backend *be = backend_cuda_create(&(struct backend_cuda_options){.untested = true, .blas = true}, &err);
        printf("%s", be ? "opened" : err.text);
        backend_destroy(be);
        printf(", %u left", emulated_live());
        fflush(stdout);
        _exit(0);
    }
    close(fds[1]);
    ssize_t n = read(fds[0], said, sizeof said - 1);
    said[n > 0 ? n : 0] = 0;
    close(fds[0]);
    waitpid(pid, &status, 0);
    if (!strstr(said, "cannot be opened"))
        tap_note("this machine has a cuBLAS, which does not know the emulated device");
    ok(strstr(said, "cuBLAS") && (strstr(said, "install") || strstr(said, "status")), "without the library: %s", said);
    has_str(said, ", 0 left", "nothing is left on the device");
}

int main(void)
{
    char library[512];
    const char *build = getenv("SC_BUILD");
    if (getenv("SC_CUDA_DEVICE"))
        tap_skip_all("products are counted on an emulated device only");
    build = build ? build : ".";
    snprintf(library, sizeof library, "%s/tests/cuda/emulated/libcublas.so.13", build);
    if (access(library, R_OK) != 0)
        tap_skip_all("no emulated CUDA device was built");
    if (device_list_parse("cuda:0", &list, &err) != 0)
        tap_skip_all("%s", err.text);
    test_missing();
    emulated_open(NULL);
    test_model("llama", QUANT_F32, 1e-3);
    test_model("qwen2", QUANT_F16, 5e-3); /* with biases */
    test_model("gemma2", QUANT_BF16, 5e-2);
    test_model("llama", QUANT_Q8_0, 0);
    test_classes();
    is_int(emulated_live(), 0, "nothing is left on the device");
    return tap_done();
}
