/* Products of matrices of every type with 1 to 130 rows of activations, in any split of the matrix' rows. */
#include <stdlib.h>
#include <string.h>

#include "tests/checkkernels/check.h"
#include "tests/tap.h"

enum { SHAPES = 14, MAX_ACT_ROWS = 130 };

int same_floats(const float *got, const float *want, size_t n, size_t *ret_first)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0) {
            *ret_first = i;
            return 0;
        }
    return 1;
}

/* Widths that vector code stumbles over come first. */
static uint32_t random_cols(struct rng *r, enum quant_type type, int shape)
{
    static const uint32_t odd[] = {1, 15, 16, 17, 31, 33, 255, 256, 257, 513};
    uint32_t block = quant_traits(type)->block;
    if (block == 1)
        return shape < 10 ? odd[shape] : rng_between(r, 1, 1100);
    return block * (shape == 0 ? 1 : rng_between(r, 1, block == 32 ? 34 : 5));
}

/* One group of one row in both. */
static bool same_group(const struct acts *x, size_t i, const struct acts *y, size_t j)
{
    return memcmp(x->q + ACT_GROUP * i, y->q + ACT_GROUP * j, ACT_GROUP) == 0 &&
           (!x->low || memcmp(x->low + ACT_GROUP * i, y->low + ACT_GROUP * j, ACT_GROUP) == 0) &&
           memcmp(&x->isum[2 * i], &y->isum[2 * j], 2 * sizeof *x->isum) == 0 && x->isum32[i] == y->isum32[j] &&
           memcmp(&x->scale[i], &y->scale[j], sizeof *x->scale) == 0 &&
           memcmp(&x->sum[i], &y->sum[j], sizeof *x->sum) == 0 && memcmp(&x->sum16[2 * i], &y->sum16[2 * j], 2 * sizeof *x->sum16) == 0;
}

/* Quantizes x by the kernels under test, y by the others; how many groups differ. */
static int quantize_both(struct check *c, struct acts *x, struct acts *y)
{
    int wrong = 0;
    if (!x->q)
        return 0;
    for (uint32_t r = 0; r < x->rows; r++) {
        c->k->quantize(x, r);
        c->want->quantize(y, r);
        for (uint32_t g = 0; g < x->k / ACT_GROUP; g++)
            wrong += !same_group(x, act_at(x, r, g), y, act_at(y, r, g));
    }
    return wrong;
}

/* The matrix in pieces of random height, at most so many packs of rows; out is rows × stride, its gaps must stay as they were. */
static bool same_product(struct check *c, const struct weight *w, const struct weight *packed, const struct acts *x, const struct acts *y,
                         uint32_t most_packs)
{
    size_t stride = w->rows + rng_below(&c->rng, 3), n = (x->rows - 1) * stride + w->rows, first = 0;
    float *got = guarded_alloc(n * sizeof *got), *want = guarded_alloc(n * sizeof *want);
    uint32_t mat = rng_below(&c->rng, w->mats);
    for (uint32_t row = 0, next; row < w->rows; row = next) {
        next = row + rng_between(&c->rng, 1, most_packs) * PACK_ROWS;
        next = next < w->rows ? next : w->rows;
        c->k->mat[packed->layout][w->type](packed, mat, row, next, x, got, stride);
    }
    c->want->mat[LAYOUT_FILE][w->type](w, mat, 0, w->rows, y, want, stride);
    bool same = same_floats(got, want, n, &first);
    if (!same)
        tap_note("row %zu, element %zu: got %a, expected %a", first / stride, first % stride, (double)got[first], (double)want[first]);
    guarded_free(got, n * sizeof *got);
    guarded_free(want, n * sizeof *want);
    return same;
}

static bool same_rows(struct check *c, const struct weight *w, const struct weight *packed)
{
    float *got = guarded_alloc(w->cols * sizeof *got), *want = guarded_alloc(w->cols * sizeof *want);
    bool same = true;
    for (uint32_t j = 0; j < w->rows && same; j++) {
        c->k->row[packed->layout][w->type](packed, j, got);
        c->want->row[LAYOUT_FILE][w->type](w, j, want);
        same = memcmp(got, want, w->cols * sizeof *got) == 0;
    }
    guarded_free(got, w->cols * sizeof *got);
    guarded_free(want, w->cols * sizeof *want);
    return same;
}

static bool check_shape(struct check *c, enum quant_type type, int shape)
{
    struct rng *r = &c->rng;
    uint32_t cols = random_cols(r, type, shape), rows = rng_between(r, 1, 70), mats = rng_between(r, 1, 3);
    uint32_t act_rows = shape == 0 ? 1 : shape == 1 ? MAX_ACT_ROWS : shape < 9 ? (uint32_t)shape : rng_between(r, 1, MAX_ACT_ROWS);
    struct weight w = data_weight(r, type, rows, cols, mats, 0.1f), packed = data_weight_packed(r, c->k, &w);
    bool wide = shape % 2 == 1;
    struct acts x = wide ? data_acts16(r, act_rows, cols, 1, c->k->act_tile16) : data_acts(r, act_rows, cols, 1, c->k->act_tile);
    struct acts y = wide ? data_acts16(r, act_rows, cols, 1, c->want->act_tile16) : data_acts(r, act_rows, cols, 1, c->want->act_tile);
    float *f = (float *)(uintptr_t)x.f;
    if (rng_below(r, 3) == 0)
        memset(f + rng_below(r, act_rows) * (size_t)cols, 0, cols * sizeof *f);
    if (rng_below(r, 3) == 0)
        f[rng_below(r, act_rows * cols)] *= 1000;
    memcpy((float *)(uintptr_t)y.f, f, (size_t)act_rows * cols * sizeof *f);
    bool quantized = quantize_both(c, &x, &y) == 0, product = same_product(c, &w, &packed, &x, &y, 3), row = same_rows(c, &w, &packed);
    if (!quantized || !product || !row)
        tap_note("%s%s%s differ: %u matrices of %u x %u, %u rows%s", quantized ? "" : "activations ", product ? "" : "products ", row ? "" : "rows ",
                 mats, rows, cols, act_rows, wide ? " of 16 bits" : "");
    data_acts_free(&x);
    data_acts_free(&y);
    data_weight_free(&packed);
    data_weight_free(&w);
    return quantized && product && row;
}

/* Every number of rows up to more than two of the tallest tiles, and one that no block takes whole, in large pieces of a matrix:
 * a kernel that treats heights, or several packs at once, each in its own way has all its ways taken. */
static void check_heights(struct check *c, enum quant_type type, bool wide)
{
    enum { HEIGHTS = 36, MANY = 277, ROWS = 139 };
    uint32_t cols = quant_traits(type)->block == 32 ? 544 : 512, wrong = 0;
    struct weight w = data_weight(&c->rng, type, ROWS, cols, 1, 0.1f), packed = data_weight_packed(&c->rng, c->k, &w);
    for (uint32_t rows = 1; rows <= HEIGHTS + 1 + c->k->act_alone; rows++) {
        uint32_t n = rows <= HEIGHTS ? rows : rows == HEIGHTS + 1 ? MANY : rows - HEIGHTS - 1;
        uint32_t tile = rows > HEIGHTS + 1 ? act_tile_of(c->k, wide, n) : wide ? c->k->act_tile16 : c->k->act_tile; /* not shared: the last is low */
        struct acts x = wide ? data_acts16(&c->rng, n, cols, 1, tile) : data_acts(&c->rng, n, cols, 1, tile);
        struct acts y = wide ? data_acts16(&c->rng, n, cols, 1, c->want->act_tile16) : data_acts(&c->rng, n, cols, 1, c->want->act_tile);
        memcpy((float *)(uintptr_t)y.f, x.f, (size_t)n * cols * sizeof *x.f);
        if (quantize_both(c, &x, &y) != 0 || !same_product(c, &w, &packed, &x, &y, ROWS / PACK_ROWS + 1)) {
            tap_note("%u rows", n);
            wrong++;
        }
        data_acts_free(&x);
        data_acts_free(&y);
    }
    is_int(wrong, 0, "%s: %s with 1 to %d and %d rows of %d bits", c->name, quant_traits(type)->name, HEIGHTS, MANY, wide ? 16 : 8);
    data_weight_free(&packed);
    data_weight_free(&w);
}

/* However rows are spread over operands, none of none included, their tiles have the places that are counted on. */
static void check_places(struct check *c)
{
    uint32_t wrong = 0;
    for (int i = 0; i < 20000; i++) {
        uint32_t operands = rng_between(&c->rng, 1, 64), most = i % 2 ? 30 : 150, step = i % 3 ? 1 : 13;
        size_t rows = 0, places = 0;
        for (uint32_t o = 0; o < operands; o++) {
            uint32_t n = rng_below(&c->rng, most / step) * step, tile = act_tile_of(c->k, false, n);
            wrong += tile == 0;
            rows += n;
            places += tile ? (n + tile - 1) / tile * tile : 0;
        }
        wrong += places > act_places(c->k, rows, operands);
    }
    is_int(wrong, 0, "%s: tiles of rows in any number of operands have places", c->name);
}

/* What a vector version may round or compare otherwise: halves of integers, tiny, huge and equal values. */
static void check_quantize_edges(struct check *c, bool wide)
{
    static const float edges[] = {0, -0.0f, 1e-38f, -1e-38f, 1e-45f, 0x1p-100f, 0x1.fffffep-101f, 1e-30f, 1, -1, 0.5f, 63.5f, 127, -127, 126.5f, -0.5f, 1e30f,
                                  -3e38f, 3.4028234e38f};
    enum { EDGES = sizeof edges / sizeof *edges, ROWS = 400 };
    struct acts x = wide ? data_acts16(&c->rng, ROWS, 64, 1, c->k->act_tile16) : data_acts(&c->rng, ROWS, 64, 1, c->k->act_tile);
    struct acts y = wide ? data_acts16(&c->rng, ROWS, 64, 1, c->want->act_tile16) : data_acts(&c->rng, ROWS, 64, 1, c->want->act_tile);
    float *f = (float *)(uintptr_t)x.f;
    for (uint32_t i = 0; i < ROWS * 64; i++) {
        uint32_t kind = i / 32 % 5; /* groups of few values, of all, of halves up to 127 */
        f[i] = kind == 4 ? (float)rng_below(&c->rng, 509) * 0.5f - 127 : edges[rng_below(&c->rng, kind == 0 ? 2 : kind == 1 ? 7 : EDGES)];
    }
    memcpy((float *)(uintptr_t)y.f, f, ROWS * 64 * sizeof *f);
    is_int(quantize_both(c, &x, &y), 0, "%s: quantize to %d bits: zeros, denormals, halves, the largest", c->name, wide ? 16 : 8);
    data_acts_free(&x);
    data_acts_free(&y);
}

void check_mat(struct check *c)
{
    for (uint32_t t = 0; data_next_type(&t); t++) {
        int good = 0;
        if (!ok(c->k->mat[c->k->layout[t]][t] != NULL && c->k->row[c->k->layout[t]][t] != NULL, "%s: there is a product for %s", c->name, quant_traits(t)->name))
            continue;
        for (int shape = 0; shape < SHAPES; shape++)
            good += check_shape(c, (enum quant_type)t, shape);
        is_int(good, SHAPES, "%s: quantize, mat, row of %s: shapes that agree bit for bit", c->name, quant_traits(t)->name);
    }
    static const enum quant_type forms[] = {QUANT_Q8_0, QUANT_Q4_K, QUANT_Q6_K, QUANT_Q2_K}; /* groups of 32 and 16, with and without a minimum */
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        check_heights(c, forms[i], false);
        check_heights(c, forms[i], true);
    }
    check_places(c);
    check_quantize_edges(c, false);
    check_quantize_edges(c, true);

    int good = 0;
    for (uint32_t n = 0; n < 600; n = n < 40 ? n + 1 : n + 37) {
        struct acts x = data_acts(&c->rng, 2, n, 1, 1);
        float got = c->k->dot(x.f, x.f + n, n), want = c->want->dot(x.f, x.f + n, n);
        good += memcmp(&got, &want, sizeof got) != 0;
        data_acts_free(&x);
    }
    is_int(good, 0, "%s: dot of any length", c->name);
}
