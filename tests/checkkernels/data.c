/* See data.h. */
#include "tests/checkkernels/data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/fmath.h"

uint64_t rng_u64(struct rng *r)
{
    uint64_t z = (r->state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint32_t rng_below(struct rng *r, uint32_t n)
{
    return (uint32_t)(rng_u64(r) % n);
}

uint32_t rng_between(struct rng *r, uint32_t low, uint32_t high)
{
    return low + rng_below(r, high - low + 1);
}

float rng_unit(struct rng *r)
{
    return (float)(rng_u64(r) >> 40) * 0x1p-23f - 1;
}

float rng_normal(struct rng *r)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) /* each has variance 1/3 */
        sum += rng_unit(r);
    return sum * 0.8660254f;
}

/* --- guarded memory ----------------------------------------------------------------------------------------------------- */

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t inner_bytes(size_t bytes)
{
    return (bytes + page() - 1) / page() * page();
}

void *guarded_alloc(size_t bytes)
{
    size_t inner = inner_bytes(bytes);
    char *p = mmap(NULL, inner + 2 * page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page(), PROT_NONE) != 0 || mprotect(p + page() + inner, page(), PROT_NONE) != 0) {
        perror("guarded memory");
        exit(99);
    }
    memset(p + page(), 0xA5, inner);
    return p + page() + inner - bytes;
}

void guarded_free(void *p, size_t bytes)
{
    if (p)
        munmap((char *)p + bytes - inner_bytes(bytes) - page(), inner_bytes(bytes) + 2 * page());
}

/* --- weights ------------------------------------------------------------------------------------------------------------ */

/* Where a type's half-precision scales lie in its block; what value deviation 1 needs; for types with minimums how large
 * they must be beside the scale so that the mean is 0. */
static const struct {
    int d, second;
    float per_sd, second_per_d;
} scales[QUANT_TYPES] = {
    [QUANT_Q4_0] = {0, -1, 1 / 4.6f, 0},
    [QUANT_Q4_1] = {0, 2, 1 / 4.6f, -7.5f},
    [QUANT_Q5_0] = {0, -1, 1 / 9.2f, 0},
    [QUANT_Q5_1] = {0, 2, 1 / 9.2f, -15.5f},
    [QUANT_Q8_0] = {0, -1, 1 / 74.0f, 0},
    [QUANT_Q2_K] = {80, 82, 1 / 14.0f, 1.5f},
    [QUANT_Q3_K] = {108, -1, 1 / 43.0f, 0},
    [QUANT_Q4_K] = {0, 2, 1 / 220.0f, 7.5f},
    [QUANT_Q5_K] = {0, 2, 1 / 450.0f, 15.5f},
    [QUANT_Q6_K] = {208, -1, 1 / 1370.0f, 0},
    [QUANT_IQ4_NL] = {0, -1, 1 / 70.0f, 0},
    [QUANT_IQ4_XS] = {0, -1, 1 / 1300.0f, 0},
};

static void put_half(uint8_t *p, float v)
{
    uint16_t h = sc_f32_to_f16(v);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static void float_elements(struct rng *r, enum quant_type type, size_t n, float sd, uint8_t *ret)
{
    for (size_t i = 0; i < n; i++) {
        float v = rng_normal(r) * sd;
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        if (type == QUANT_F32)
            memcpy(ret + 4 * i, &bits, 4);
        else if (type == QUANT_F16)
            put_half(ret + 2 * i, v);
        else
            memcpy(ret + 2 * i, &(uint16_t){(uint16_t)(bits >> 16)}, 2);
    }
}

void data_blocks(struct rng *r, enum quant_type type, size_t n, float sd, void *ret)
{
    const struct quant_traits *t = quant_traits(type);
    uint8_t *b = ret;
    if (t->block == 1) {
        float_elements(r, type, n, sd, b);
        return;
    }
    for (size_t i = 0; i < n; i++, b += t->bytes) {
        float d = sd * scales[type].per_sd * (1 + 0.5f * rng_unit(r));
        for (uint32_t k = 0; k < t->bytes; k++)
            b[k] = (uint8_t)rng_u64(r);
        if (type == QUANT_MXFP4) {
            b[0] = (uint8_t)(128 + (int)floorf(log2f(sd / 5.5f)) + (int)rng_below(r, 2));
            continue;
        }
        if (scales[type].second < 0 && rng_below(r, 2))
            d = -d; /* some types' integers are not centred; their signs' mean is */
        put_half(b + scales[type].d, d);
        if (scales[type].second >= 0)
            put_half(b + scales[type].second, d * scales[type].second_per_d);
    }
}

struct weight data_weight(struct rng *r, enum quant_type type, uint32_t rows, uint32_t cols, uint32_t mats, float sd)
{
    struct weight w = {.type = type, .layout = LAYOUT_FILE, .rows = rows, .cols = cols, .mats = mats};
    w.row_bytes = (size_t)quant_bytes(type, cols);
    w.mat_bytes = w.row_bytes * rows;
    void *data = guarded_alloc(w.mat_bytes * mats);
    data_blocks(r, type, w.mat_bytes * mats / quant_traits(type)->bytes, sd, data);
    w.data = data;
    return w;
}

void data_weight_free(struct weight *w)
{
    guarded_free((void *)(uintptr_t)w->data, w->mat_bytes * w->mats);
}

struct weight data_weight_packed(struct rng *r, const struct kernels *k, const struct weight *w)
{
    struct weight packed = *w;
    packed.layout = k->layout[w->type];
    if (packed.layout != LAYOUT_FILE)
        packed.mat_bytes = k->packed_bytes(w->type, w->rows, w->cols);
    uint8_t *data = guarded_alloc(packed.mat_bytes * w->mats);
    packed.data = data;
    if (packed.layout == LAYOUT_FILE)
        memcpy(data, w->data, w->mat_bytes * w->mats);
    for (uint32_t m = 0; m < w->mats && packed.layout != LAYOUT_FILE; m++)
        for (uint32_t row = 0, n; row < w->rows; row += n) {
            n = rng_between(r, 1, 3) * PACK_ROWS;
            n = n < w->rows - row ? n : w->rows - row;
            const uint8_t *src = (const uint8_t *)w->data + m * w->mat_bytes + row * w->row_bytes;
            k->pack(w->type, src, row, n, w->cols, data + m * packed.mat_bytes);
        }
    return packed;
}

/* Places for 8-bit groups: the last tile is whole. */
static size_t places_of(const struct acts *x)
{
    return (size_t)(x->rows + x->tile - 1) / x->tile * x->tile * (x->k / ACT_GROUP);
}

struct acts data_acts(struct rng *r, uint32_t rows, uint32_t k, float sd, uint32_t tile)
{
    float *f = guarded_alloc((size_t)rows * k * sizeof *f);
    struct acts x = {.rows = rows, .k = k, .f = f, .f_stride = k, .tile = rows < tile ? rows : tile};
    for (size_t i = 0; i < (size_t)rows * k; i++)
        f[i] = rng_normal(r) * sd;
    if (k % ACT_GROUP == 0) {
        size_t n = places_of(&x);
        x.q = guarded_alloc(n * ACT_GROUP);
        x.scale = guarded_alloc(n * sizeof *x.scale);
        x.sum = guarded_alloc(n * sizeof *x.sum);
        x.sum16 = guarded_alloc(n * 2 * sizeof *x.sum16);
        x.isum = guarded_alloc(n * 2 * sizeof *x.isum);
        x.isum32 = guarded_alloc(n * sizeof *x.isum32);
        x.less32 = guarded_alloc(n * 4 * sizeof *x.less32);
    }
    return x;
}

struct acts data_acts16(struct rng *r, uint32_t rows, uint32_t k, float sd, uint32_t tile)
{
    struct acts x = data_acts(r, rows, k, sd, tile);
    if (x.q)
        x.low = guarded_alloc(places_of(&x) * ACT_GROUP);
    return x;
}

void data_acts_free(struct acts *x)
{
    size_t n = places_of(x);
    guarded_free((void *)(uintptr_t)x->f, (size_t)x->rows * x->k * sizeof *x->f);
    guarded_free(x->q, n * ACT_GROUP);
    guarded_free(x->low, n * ACT_GROUP);
    guarded_free(x->scale, n * sizeof *x->scale);
    guarded_free(x->sum, n * sizeof *x->sum);
    guarded_free(x->sum16, n * 2 * sizeof *x->sum16);
    guarded_free(x->isum, n * 2 * sizeof *x->isum);
    guarded_free(x->isum32, n * sizeof *x->isum32);
    guarded_free(x->less32, n * 4 * sizeof *x->less32);
}

int data_next_type(uint32_t *type)
{
    while (*type < QUANT_TYPES && !(quant_traits(*type) && quant_traits(*type)->computed))
        ++*type;
    return *type < QUANT_TYPES;
}
