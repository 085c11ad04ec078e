/* The kernels for AVX-512-VNNI and the matrix kernels for AMX, whose instructions are done in software (twin.h), against the scalar
 * ones, bit for bit, on any x86-64 processor. Where the processor has the instructions, checkkernels runs the real ones.
 *
 *     checktwins [--seed N] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/x86/x86.h"
#include "tests/checkkernels/check.h"
#include "tests/checkkernels/twin/checktwins.h"
#include "tests/tap.h"

void twin_x86_init_avx512vnni(struct kernels *k);
void twin_amx_init_mat(struct kernels *k);

static mat_fn amx_mat[QUANT_TYPES];
static int left_in_use;
static bool leaves_few; /* rows to AVX-512 */

bool twin_few_rows(const struct acts *x)
{
    return leaves_few && x->rows < (uint32_t)(x->low ? AMX_ROWS_MIN16 : AMX_ROWS_MIN);
}

/* The product under test, and a look at what it leaves behind. */
static void watched(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out, size_t out_stride)
{
    amx_mat[w->type](w, mat, row0, row1, x, out, out_stride);
    left_in_use += twin_tiles_in_use();
}

static void check_avx512(uint64_t seed)
{
    struct kernels k = {0}, want = {0};
    struct check c = {.name = "avx512vnni in software", .k = &k, .want = &want};
    kernels_init_scalar(&k);
    kernels_init_scalar(&want);
    twin_x86_init_avx512vnni(&k);
    void (*const checks[])(struct check *) = {check_mat, check_vector, check_attention};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        c.rng.state = seed; /* each check alone repeats */
        checks[i](&c);
    }
}

static void check_amx(const char *name, uint64_t seed)
{
    struct kernels k = {0}, want = {0};
    struct check c = {.name = name, .k = &k, .want = &want, .rng = {seed}};
    kernels_init_scalar(&k);
    kernels_init_scalar(&want);
    twin_amx_init_mat(&k);
    for (int t = 0; t < QUANT_TYPES; t++)
        if ((amx_mat[t] = k.mat[LAYOUT_R16][t]) != NULL)
            k.mat[LAYOUT_R16][t] = watched;
    check_mat(&c);
}

int main(int argc, char **argv)
{
    const char *env = getenv("SC_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 0) : 1;
    if (argc == 3 && strcmp(argv[1], "--seed") == 0)
        seed = strtoull(argv[2], NULL, 0);
    else if (argc != 1) {
        fprintf(stderr, "usage: checktwins [--seed N]\n");
        return 2;
    }
    tap_note("seed %llu", (unsigned long long)seed);
    check_avx512(seed);
    check_amx("amx in software, however few rows", seed);
    leaves_few = true;
    check_amx("amx in software", seed);
    ok(twin_count.products > 0 && twin_count.configs > 0, "tiles were used: %llu products", (unsigned long long)twin_count.products);
    is_int(left_in_use, 0, "and released by every product");
    return tap_done();
}
