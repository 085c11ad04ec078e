/* Ways to keep and to multiply weights that a user may choose: the file's layout gives the same bits as the packed one;
 * OpenBLAS gives other bits, near those of the kernels, and is taken where it should be and nowhere else. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/blas.h"
#include "model/session.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { ROWS = 66, CTX = 128 };

static struct err err;
static char path[512];
static float *logits[2]; /* ROWS × MODEL_VOCAB: expected, found */

/* All rows' logits, in steps of `chunk` rows. */
static void compute(const struct session_options *o, uint32_t chunk, float *ret)
{
    struct session_row rows[ROWS];
    struct session *s = session_open(path, o, &err);
    for (uint32_t at = 0; s && at < ROWS; at += chunk) {
        uint32_t n = ROWS - at < chunk ? ROWS - at : chunk;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = (struct session_row){.pos = at + i, .token = (int32_t)((at + i) * 13 % MODEL_VOCAB), .want = true};
        if (session_step(s, rows, n, &err) != 0) {
            session_close(s);
            s = NULL;
            break;
        }
        for (uint32_t i = 0; i < n; i++)
            memcpy(ret + (size_t)(at + i) * MODEL_VOCAB, session_logits(s, i), MODEL_VOCAB * sizeof *ret);
    }
    if (!s) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    session_close(s);
}

/* Root of the mean square of the difference, as a part of the expected logits'. */
static double distance(void)
{
    double diff = 0, all = 0;
    for (size_t i = 0; i < (size_t)ROWS * MODEL_VOCAB; i++) {
        diff += pow((double)logits[0][i] - logits[1][i], 2);
        all += pow(logits[0][i], 2);
    }
    return sqrt(diff / all);
}

static bool same(void)
{
    return memcmp(logits[0], logits[1], (size_t)ROWS * MODEL_VOCAB * sizeof(float)) == 0;
}

static void test_model(const struct model_spec *spec, enum quant_type type, bool blas)
{
    const char *name = quant_traits(type)->name;
    bool floats = quant_traits(type)->block == 1;
    struct session_options o = {.threads = 2, .ctx = CTX, .batch_rows = ROWS};
    model_write(spec, type, path);
    compute(&o, ROWS, logits[0]);

    o.keep_file_layout = true;
    compute(&o, ROWS, logits[1]);
    bool prompt = same();
    compute(&o, 1, logits[1]);
    ok(prompt && same(), "%s %s: the file's layout gives the same bits, in one step and row by row", spec->name, name);
    o.keep_file_layout = false;
    if (!blas)
        return;

    o.prompt_gemm = GEMM_BLAS_ALL;
    compute(&o, ROWS, logits[1]);
    double far = distance();
    ok(!same() && far < (floats ? 2e-3 : 0.1), "%s %s: OpenBLAS is used, and near: %.2g", spec->name, name, far);
    compute(&o, BLAS_MIN_ROWS - 1, logits[1]);
    ok(same(), "%s %s: not for fewer rows than %d", spec->name, name, BLAS_MIN_ROWS);
    o.keep_file_layout = true;
    compute(&o, ROWS, logits[1]);
    ok(!same() && distance() < (floats ? 2e-3 : 0.1), "%s %s: from the file's layout, too: %.2g", spec->name, name, distance());
    o.keep_file_layout = false;
    o.prompt_gemm = GEMM_BLAS;
    o.isa = "scalar";
    compute(&o, ROWS, logits[1]);
    ok(!same() && distance() < (floats ? 2e-3 : 0.1), "%s %s: blas with scalar kernels: %.2g", spec->name, name, distance());
    o.isa = NULL;
    compute(&o, ROWS, logits[1]);
    if (floats)
        ok(!same(), "%s %s: blas with vector kernels computes floats", spec->name, name);
}

int main(void)
{
    static const enum quant_type types[] = {QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_Q4_K, QUANT_Q6_K, QUANT_Q8_0, QUANT_IQ4_XS, QUANT_Q3_K};
    bool blas = blas_open(&err) == 0;
    snprintf(path, sizeof path, "%s/layouts.gguf", model_folder());
    for (int i = 0; i < 2; i++)
        if (!(logits[i] = malloc((size_t)ROWS * MODEL_VOCAB * sizeof(float))))
            return 99;
    if (!blas) {
        has_str(err.text, "OpenBLAS", "without OpenBLAS it says so: %s", err.text);
        has_str(err.text, "install", "and what to install");
        tap_skip("OpenBLAS is not here");
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        test_model(&model_specs[0], types[i], blas);
    for (size_t i = 1; i < MODEL_SPECS; i++)
        test_model(&model_specs[i], i % 2 ? QUANT_Q4_0 : QUANT_F16, blas && i < 3);
    for (int i = 0; i < 2; i++)
        free(logits[i]);
    return tap_done();
}
