/* Every quantized type unfolds to the very floats that PyPI's gguf computes from the same bytes: blocks from a seeded
 * generator, the first ones with the edges of the half-precision scales. Scales that are no numbers harm nobody. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fmath.h"
#include "tests/checkkernels/data.h"
#include "tests/kernels/quant_expected.h"
#include "tests/tap.h"

enum { BLOCKS = sizeof expected->block / sizeof *expected->block, WIDEST = 256 };

static const struct {
    enum quant_type type;
    int halves[2]; /* -1: none */
} places[] = {
    {QUANT_Q4_0, {0, -1}},    {QUANT_Q4_1, {0, 2}},  {QUANT_Q5_0, {0, -1}},   {QUANT_Q5_1, {0, 2}},   {QUANT_Q8_0, {0, -1}},
    {QUANT_MXFP4, {-1, -1}},  {QUANT_Q2_K, {80, 82}}, {QUANT_Q3_K, {108, -1}}, {QUANT_Q4_K, {0, 2}},   {QUANT_Q5_K, {0, 2}},
    {QUANT_Q6_K, {208, -1}},  {QUANT_IQ4_NL, {0, -1}}, {QUANT_IQ4_XS, {0, -1}},
};

enum { TYPES = sizeof places / sizeof *places };

static uint64_t hash_of(const float *v, size_t n)
{
    uint64_t h = 0xCBF29CE484222325;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        for (int k = 0; k < 4; k++)
            h = (h ^ (bits >> 8 * k & 255)) * 0x100000001B3;
    }
    return h;
}

/* The bytes that make_quant_expected.py makes. */
static void fill(int t, uint8_t *b)
{
    static const uint16_t edges[] = {0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF};
    static const uint8_t exponents[] = {0, 1, 2, 3, 253, 254};
    enum { EDGES = sizeof edges / sizeof *edges };
    const struct quant_traits *traits = quant_traits(places[t].type);
    struct rng r = {places[t].type};
    for (int i = 0; i < BLOCKS; i++, b += traits->bytes) {
        for (uint32_t k = 0; k < traits->bytes; k++)
            b[k] = (uint8_t)rng_u64(&r);
        for (int k = 0; k < 2 && places[t].halves[k] >= 0; k++) {
            uint8_t *at = b + places[t].halves[k];
            at[1] = (uint8_t)((at[1] & 0x97) | 0x20);
            if (i < EDGES) {
                at[0] = (uint8_t)edges[(i + k) % EDGES];
                at[1] = (uint8_t)(edges[(i + k) % EDGES] >> 8);
            }
        }
        if (places[t].type == QUANT_MXFP4)
            b[0] = i < EDGES ? exponents[i] : (uint8_t)((b[0] & 63) | 96);
    }
}

static void test_type(const struct kernels *kernels, int t)
{
    const struct quant_traits *traits = quant_traits(places[t].type);
    size_t bytes = (size_t)BLOCKS * traits->bytes, n = (size_t)BLOCKS * traits->block;
    uint8_t *b = guarded_alloc(bytes);
    float *v = guarded_alloc(n * sizeof *v);
    struct weight w = {.type = places[t].type, .rows = 1, .cols = (uint32_t)n, .mats = 1, .row_bytes = bytes, .mat_bytes = bytes, .data = b};
    int wrong = 0;
    fill(t, b);
    kernels->row[LAYOUT_FILE][w.type](&w, 0, v);
    for (int i = 0; i < BLOCKS; i++) {
        const float *f = v + (size_t)i * traits->block;
        if (hash_of(f, traits->block) == expected[t].block[i].hash)
            continue;
        float first, twelfth, last;
        memcpy(&first, &expected[t].block[i].first, sizeof first);
        memcpy(&twelfth, &expected[t].block[i].twelfth, sizeof twelfth);
        memcpy(&last, &expected[t].block[i].last, sizeof last);
        if (wrong++ == 0)
            tap_note("block %d: got %a … %a … %a, expected %a … %a … %a", i, (double)f[0], (double)f[11], (double)f[traits->block - 1],
                     (double)first, (double)twelfth, (double)last);
    }
    is_int(wrong, 0, "%s: %d blocks bit for bit", traits->name, BLOCKS);

    /* the same, a row at a time */
    struct weight rows = w;
    rows.rows = BLOCKS;
    rows.cols = traits->block;
    rows.row_bytes = traits->bytes;
    float one[WIDEST];
    wrong = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        kernels->row[LAYOUT_FILE][w.type](&rows, i, one);
        wrong += memcmp(one, v + (size_t)i * traits->block, traits->block * sizeof *one) != 0;
    }
    is_int(wrong, 0, "%s: row by row", traits->name);
    guarded_free(b, bytes);
    guarded_free(v, n * sizeof *v);
}

/* Any bytes at all: inf, NaN, everything. No test of values but that the kernels come back; sanitizers see the rest. */
static void test_any_bytes(const struct kernels *kernels, int t)
{
    const struct quant_traits *traits = quant_traits(places[t].type);
    struct rng r = {77};
    uint32_t cols = 2 * WIDEST, rows = 8;
    struct weight w = data_weight(&r, places[t].type, rows, cols, 1, 1);
    struct acts x = data_acts(&r, 2, cols, 1, kernels->act_tile);
    uint8_t *b = (uint8_t *)(uintptr_t)w.data;
    float *v = guarded_alloc(cols * sizeof *v), out[2 * 8];
    int numbers = 0;
    for (uint32_t i = 0; i < x.rows; i++)
        kernels->quantize(&x, i);
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < w.mat_bytes; i++)
            b[i] = (uint8_t)rng_u64(&r);
        for (size_t i = 0; i < w.mat_bytes; i += traits->bytes)
            for (int k = 0; k < 2 && places[t].halves[k] >= 0; k++) /* inf or NaN in every other */
                b[i + (size_t)places[t].halves[k] + 1] |= rng_below(&r, 2) ? 0x7C : 0;
        for (uint32_t j = 0; j < rows; j++) {
            kernels->row[LAYOUT_FILE][w.type](&w, j, v);
            for (uint32_t i = 0; i < cols; i++)
                numbers += isfinite(v[i]) != 0;
        }
        struct weight packed = data_weight_packed(&r, kernels, &w);
        kernels->mat[packed.layout][w.type](&packed, 0, 0, rows, &x, out, rows);
        data_weight_free(&packed);
    }
    ok(numbers > 0, "%s: any bytes unfold, scales that are inf or NaN among them", traits->name);
    guarded_free(v, cols * sizeof *v);
    data_acts_free(&x);
    data_weight_free(&w);
}

int main(void)
{
    struct kernels kernels;
    struct err err;
    if (!ok(kernels_select(NULL, &kernels, &err) == 0, "kernels"))
        return tap_done();
    tap_note("isa %s", kernels.isa);
    int quantized = 0;
    for (uint32_t t = 0; data_next_type(&t); t++)
        quantized += quant_traits(t)->block > 1;
    is_int(quantized, TYPES, "every quantized type that is computed has expectations here");
    is_int(sizeof expected / sizeof *expected, TYPES, "and they are there");
    for (int t = 0; t < TYPES; t++) {
        if (!ok(expected[t].type == places[t].type, "the tables' rows agree"))
            continue;
        test_type(&kernels, t);
        test_any_bytes(&kernels, t);
    }
    return tap_done();
}
