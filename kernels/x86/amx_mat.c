/* Quantized products for AMX-int8, on LAYOUT_R16: prompts and taller batches. Below AMX_ROWS_MIN rows the AVX-512 kernels, which
 * wait for memory there anyway.
 *
 * One tile product: up to 16 rows of activations × 16 rows of weights × one scale group of K (32 or 16), which fills an int32
 * tile with the exact sums that the contract scales: TDPBSSD, with activations as they are packed (a tile of them is 16 rows
 * side by side, a stride of 32 bytes) and weights as signed bytes, a line of 64 bytes holding one k-group of 16 rows, which is
 * the very order that the second operand wants. No sum reaches over a scale group, so half of the array (three quarters for
 * groups of 16) is idle; it does not matter, as the array is not what holds this:
 *
 *   cycles for 16 × 16 × 32, counted from the instructions' published rates, not measured
 *     tile array                        16
 *     tile store                        16 lines, one a cycle
 *     vector units, two a cycle         24: conversion, product of scales, fma for each of 16 rows; 32 with a minimum
 *     loads, two to three a cycle       about 24 to 30: both tiles, sums, broadcast scales
 *     the same in AVX-512-VNNI          88 to 96: 8 dot products and the same three or four for each row
 *
 * What can be taken off the vector units is: weights are signed, so that no sum needs correcting; minimums carry their sign;
 * scales are unfolded once for all rows; accumulators stay in registers over a K panel.
 *
 * Order: a block of activation rows (so that it stays in L2) meets up to PANELS × 16 rows of weights; of these a K panel of
 * UNITS units (the eight of a K-quant's head) is decoded into L1 once, then every tile of rows meets every panel. Between K
 * panels the accumulators wait in memory as floats, which changes no bit. Products run one batch of tiles ahead of the scaling
 * of their sums, through two buffers, so that the array's latency is hidden.
 *
 * Tile state: configured at the start of each call, released at its end; a thread that waits carries none.
 *
 * Never run on a processor that has it: tests/checkkernels/twin/twin.h; on an emulated one, tests/checkkernels/emulated.sh. */
#include <immintrin.h>
#include <string.h>

#include "kernels/r16.h"
#include "kernels/x86/avx512_unfold.h"
#include "kernels/x86/x86.h"

#ifndef FEW_ROWS /* a test has every height computed here */
#define FEW_ROWS(x) ((x)->rows < ((x)->low ? AMX_ROWS_MIN16 : AMX_ROWS_MIN))
#endif

enum {
    TILE = 16,       /* rows of activations in a tile */
    PANELS = 4,      /* of 16 weight rows, decoded together */
    UNITS = 8,       /* of 32 along K, decoded together */
    BLOCK_TILES = 16, /* of activation rows that meet them */
    GROUPS_MAX = 2 * UNITS,
    BATCH = 4,       /* tile products of one buffer */
    SUMS = TILE * 16 /* of one tile product */
};

#define INLINE static inline __attribute__((always_inline))

/* A panel's part of a K panel. */
struct decoded {
    int8_t q[UNITS][8][64]; /* unit, k-group, 4 bytes of each weight row */
    float scale[GROUPS_MAX][16], min[GROUPS_MAX][16];
};

struct work {
    struct decoded w[PANELS];
    int32_t sums[2][BATCH][SUMS];
    float acc[PANELS][BLOCK_TILES * TILE][16];
};

/* One decoded panel and one tile of activation rows. */
struct meeting {
    const struct decoded *w;
    uint32_t units;
    const struct acts *x;
    size_t at; /* of the first row's first group */
    int32_t (*sums)[BATCH][SUMS];
    float (*acc)[16];
    bool first, last; /* K panel */
    float *out;
    size_t out_stride;
    __mmask16 mask;
};

typedef void (*decode_fn)(const uint8_t *panel, size_t unit, uint32_t units, struct decoded *ret);
typedef void (*meet_fn)(const struct meeting *m, uint32_t rows);

/* --- tiles -------------------------------------------------------------------------------------------------------------- */

/* What the compiler thinks is in memory must be there, and be read anew: gcc's tile instructions do not say what they read. */
INLINE void settle(void)
{
    __asm__ volatile("" ::: "memory");
}

/* tmm0-3 sums, tmm4-5 activations, tmm6-7 weights. */
static void shape_tiles(uint32_t rows, uint32_t group)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) config = {.palette = 1};
    _Static_assert(sizeof config == 64, "what ldtilecfg reads");
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = (uint16_t)(t == 4 || t == 5 ? group : 64);
        config.rows[t] = (uint8_t)(t < 6 ? rows : group / 4);
    }
    __asm__ volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* sums = a . b, by one of four tiles, so that products overlap. */
INLINE void tile_product(int tile, const int8_t *a, const int8_t *b, int32_t *sums)
{
    switch (tile) {
#define CASE(c, ta, tb)            \
    case c:                        \
        _tile_zero(c);             \
        _tile_loadd(ta, a, 32);    \
        _tile_loadd(tb, b, 64);    \
        _tile_dpbssd(c, ta, tb);   \
        _tile_stored(c, sums, 64); \
        break;
        CASE(0, 4, 6) CASE(1, 5, 7) CASE(2, 4, 6) CASE(3, 5, 7)
#undef CASE
    }
}

/* --- weights ------------------------------------------------------------------------------------------------------------ */

INLINE void decode(enum quant_type type, const uint8_t *panel, size_t unit, uint32_t units, struct decoded *ret)
{
    const struct r16_form f = r16_forms[type];
    const bool subtracts = f.has_min && type != QUANT_Q4_1 && type != QUANT_Q5_1;
    const int per_unit = 32 / f.group;
    struct unfolded u;
    for (uint32_t i = 0; i < units; i++) {
        unfold_scales(type, panel + (f.head ? r16_head_at(&f, unit + i) : 0), panel + r16_scales_at(&f, unit + i), &u);
        unfold_ints(type, panel + r16_ints_at(&f, unit + i), u.kg);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++)
            _mm512_store_si512(ret->q[i][g], f.offset ? _mm512_sub_epi8(u.kg[g], _mm512_set1_epi8((char)f.offset)) : u.kg[g]);
#pragma GCC unroll 2
        for (int h = 0; h < per_unit; h++) {
            _mm512_store_ps(ret->scale[per_unit * (int)i + h], u.scale[h]);
            if (f.has_min) /* fma(-min, sum, acc) is what fnmadd rounds; the product by -1 keeps a zero's sign right, too */
                _mm512_store_ps(ret->min[per_unit * (int)i + h], subtracts ? _mm512_mul_ps(u.min[h], _mm512_set1_ps(-1.0f)) : u.min[h]);
        }
    }
}

/* --- one panel, one tile of rows ---------------------------------------------------------------------------------------- */

/* The sums of up to a batch of groups from g on; of 16-bit activations a group takes two, the high parts' first. */
INLINE void make_sums(uint32_t group, bool wide, const struct meeting *m, uint32_t g, uint32_t groups, int32_t (*sums)[SUMS])
{
#pragma GCC unroll 4
    for (uint32_t s = 0; s < BATCH; s++) {
        uint32_t mine = g + (wide ? s / 2 : s);
        if (mine >= groups)
            return;
        const int8_t *q = wide && s % 2 ? m->x->low : m->x->q;
        size_t unit = mine * group / 32, byte = mine * group % 32;
        tile_product((int)s, q + 32 * (m->at + unit * m->x->tile) + byte, &m->w->q[0][0][0] + 16 * group * (size_t)mine, sums[s]);
    }
}

/* acc += what one group's sums are worth, by the contract's formula. */
INLINE void add_sums(uint32_t group, bool has_min, bool wide, const uint32_t rows, const struct meeting *m, uint32_t g, int32_t (*sums)[SUMS],
                     __m512 *acc)
{
    const __m512 scale = _mm512_load_ps(m->w->scale[g]), min = has_min ? _mm512_load_ps(m->w->min[g]) : _mm512_setzero_ps();
    size_t at = m->at + g * group / 32 * (size_t)m->x->tile;
    const float *a_scale = m->x->scale + at;
    const float *a_sum = group == 32 ? m->x->sum + at : m->x->sum16 + 2 * at + g % 2;
#pragma GCC unroll 16
    for (uint32_t r = 0; r < rows; r++) {
        __m512i sum = _mm512_load_si512(sums[0] + 16 * r);
        if (wide)
            sum = _mm512_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32(sum, 8), sum), _mm512_load_si512(sums[1] + 16 * r));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(a_scale[r])), acc[r]);
        if (has_min)
            acc[r] = _mm512_fmadd_ps(min, _mm512_set1_ps(a_sum[(32 / group) * r]), acc[r]);
    }
}

INLINE void meet(uint32_t group, bool has_min, bool wide, const uint32_t rows, const struct meeting *m)
{
    const uint32_t groups = m->units * (32 / group), step = wide ? BATCH / 2 : BATCH;
    __m512 acc[TILE];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < TILE; r++)
        acc[r] = _mm512_setzero_ps();
    if (!m->first)
#pragma GCC unroll 16
        for (uint32_t r = 0; r < rows; r++)
            acc[r] = _mm512_load_ps(m->acc[r]);
    for (uint32_t g = 0; g < groups + step; g += step) {
        if (g < groups)
            make_sums(group, wide, m, g, groups, m->sums[g / step % 2]);
        if (g >= step)
            for (uint32_t s = 0; s < step && g - step + s < groups; s++)
                add_sums(group, has_min, wide, rows, m, g - step + s, m->sums[(g / step + 1) % 2] + (wide ? 2 * s : s), acc);
    }
    if (m->last) {
#pragma GCC unroll 16
        for (uint32_t r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(m->out + r * m->out_stride, m->mask, acc[r]);
        return;
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < rows; r++)
        _mm512_store_ps(m->acc[r], acc[r]);
}

/* 8-bit activations: all heights have code of their own, their accumulators in registers. */
#define MEET(name, group, has_min)                                                                    \
    static void name(const struct meeting *m, uint32_t rows)                                          \
    {                                                                                                 \
        switch (rows) {                                                                               \
            HEIGHT(group, has_min, 1) HEIGHT(group, has_min, 2) HEIGHT(group, has_min, 3)             \
            HEIGHT(group, has_min, 4) HEIGHT(group, has_min, 5) HEIGHT(group, has_min, 6)             \
            HEIGHT(group, has_min, 7) HEIGHT(group, has_min, 8) HEIGHT(group, has_min, 9)             \
            HEIGHT(group, has_min, 10) HEIGHT(group, has_min, 11) HEIGHT(group, has_min, 12)          \
            HEIGHT(group, has_min, 13) HEIGHT(group, has_min, 14) HEIGHT(group, has_min, 15)          \
            HEIGHT(group, has_min, 16)                                                                \
        }                                                                                             \
    }
#define HEIGHT(group, has_min, n) \
    case n: meet(group, has_min, false, n, m); break;
MEET(meet32, 32, false)
MEET(meet32_min, 32, true)
MEET(meet16, 16, false)
MEET(meet16_min, 16, true)
#undef HEIGHT
#undef MEET

/* 16-bit ones, a small part of the work: only whole tiles have. */
#define MEET(name, group, has_min)                                                            \
    static void name(const struct meeting *m, uint32_t rows)                                  \
    {                                                                                         \
        if (rows == TILE)                                                                     \
            meet(group, has_min, true, TILE, m);                                              \
        else                                                                                  \
            meet(group, has_min, true, rows, m);                                              \
    }
MEET(wide32, 32, false)
MEET(wide32_min, 32, true)
MEET(wide16, 16, false)
MEET(wide16_min, 16, true)
#undef MEET

static meet_fn meet_of(const struct r16_form *f, bool wide)
{
    static const meet_fn fns[2][2][2] = {{{meet32, meet32_min}, {meet16, meet16_min}}, {{wide32, wide32_min}, {wide16, wide16_min}}};
    return fns[wide][f->group == 16][f->has_min];
}

/* --- a matrix ----------------------------------------------------------------------------------------------------------- */

/* A share of the bytes that the next K panel will be decoded from. */
INLINE void prefetch_share(const uint8_t *p, size_t bytes, uint32_t share, uint32_t shares)
{
    for (size_t at = bytes * share / shares; at < bytes * (share + 1) / shares; at += 64)
        _mm_prefetch((const char *)p + at, _MM_HINT_T1);
}

/* `panels` panels at w, of panel_bytes each, with the rows [r0, r1) of the activations: out as of row 0 and the first panel. */
static void mat_block(enum quant_type type, decode_fn decode_panel, meet_fn meet_tile, struct work *work, const uint8_t *w, uint32_t panels,
                      size_t panel_bytes, uint32_t weight_rows, const struct acts *x, uint32_t r0, uint32_t r1, float *out, size_t out_stride)
{
    const struct r16_form *f = &r16_forms[type];
    const uint32_t units = x->k / 32, tiles = (r1 - r0 + x->tile - 1) / x->tile;
    uint32_t shaped = 0;
    for (uint32_t unit = 0; unit < units; unit += UNITS) {
        uint32_t n = units - unit < UNITS ? units - unit : UNITS;
        size_t next = unit + UNITS < units ? (size_t)UNITS * (f->scales + f->ints) + f->head : 0;
        const uint8_t *begin = w + unit / UNITS * ((size_t)UNITS * (f->scales + f->ints) + f->head);
        for (uint32_t p = 0; p < panels; p++)
            decode_panel(w + p * panel_bytes, unit, n, &work->w[p]);
        settle();
        for (uint32_t t = 0; t < tiles; t++) {
            uint32_t r = r0 + t * x->tile, rows = r1 - r < x->tile ? r1 - r : x->tile;
            if (rows != shaped)
                shape_tiles(shaped = rows, f->group);
            for (uint32_t p = 0; p < panels; p++) {
                uint32_t left = weight_rows - 16 * p;
                struct meeting m = {
                    .w = &work->w[p],
                    .units = n,
                    .x = x,
                    .at = act_at(x, r, unit),
                    .sums = work->sums,
                    .acc = work->acc[p] + (r - r0),
                    .first = unit == 0,
                    .last = unit + n == units,
                    .out = out + r * out_stride + 16 * p,
                    .out_stride = out_stride,
                    .mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xFFFF),
                };
                meet_tile(&m, rows);
                if (next && n == UNITS)
                    prefetch_share(begin + p * panel_bytes + next, next, t, tiles);
            }
        }
    }
}

static void mat_tiles(decode_fn decode_panel, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                      size_t out_stride)
{
    const size_t panel_bytes = r16_panel_bytes(w->type, w->cols);
    const uint8_t *base = (const uint8_t *)w->data + mat * w->mat_bytes;
    const uint32_t block = BLOCK_TILES * x->tile;
    struct work work __attribute__((aligned(64)));
    for (uint32_t r = 0; r < x->rows; r += block)
        for (uint32_t j = row0; j < row1; j += 16 * PANELS) {
            uint32_t weight_rows = row1 - j < 16 * PANELS ? row1 - j : 16 * PANELS;
            mat_block(w->type, decode_panel, meet_of(&r16_forms[w->type], x->low != NULL), &work, base + j / 16 * panel_bytes, (weight_rows + 15) / 16,
                      panel_bytes, weight_rows, x, r, x->rows - r < block ? x->rows : r + block, out + j, out_stride);
        }
    _tile_release();
}

#define MAT(name, type)                                                                                                                   \
    static void decode_##name(const uint8_t *panel, size_t unit, uint32_t units, struct decoded *ret)                                     \
    {                                                                                                                                     \
        decode(type, panel, unit, units, ret);                                                                                            \
    }                                                                                                                                     \
    static void mat_##name(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out, size_t stride) \
    {                                                                                                                                     \
        if (FEW_ROWS(x))                                                                                                                  \
            avx512_mat(type)(w, mat, row0, row1, x, out, stride);                                                                         \
        else                                                                                                                              \
            mat_tiles(decode_##name, w, mat, row0, row1, x, out, stride);                                                                 \
    }
MAT(q4_0, QUANT_Q4_0)
MAT(q4_1, QUANT_Q4_1)
MAT(q5_0, QUANT_Q5_0)
MAT(q5_1, QUANT_Q5_1)
MAT(q8_0, QUANT_Q8_0)
MAT(q2_k, QUANT_Q2_K)
MAT(q3_k, QUANT_Q3_K)
MAT(q4_k, QUANT_Q4_K)
MAT(q5_k, QUANT_Q5_K)
MAT(q6_k, QUANT_Q6_K)
MAT(iq4_nl, QUANT_IQ4_NL)
MAT(iq4_xs, QUANT_IQ4_XS)
MAT(mxfp4, QUANT_MXFP4)
#undef MAT

void amx_init_mat(struct kernels *k)
{
    static const mat_fn fns[QUANT_TYPES] = {
        [QUANT_Q4_0] = mat_q4_0,   [QUANT_Q4_1] = mat_q4_1,     [QUANT_Q5_0] = mat_q5_0,     [QUANT_Q5_1] = mat_q5_1, [QUANT_Q8_0] = mat_q8_0,
        [QUANT_Q2_K] = mat_q2_k,   [QUANT_Q3_K] = mat_q3_k,     [QUANT_Q4_K] = mat_q4_k,     [QUANT_Q5_K] = mat_q5_k, [QUANT_Q6_K] = mat_q6_k,
        [QUANT_MXFP4] = mat_mxfp4, [QUANT_IQ4_NL] = mat_iq4_nl, [QUANT_IQ4_XS] = mat_iq4_xs,
    };
    for (int t = 0; t < QUANT_TYPES; t++)
        if (fns[t])
            r16_use(k, (enum quant_type)t, fns[t]);
    k->act_tile = k->act_tile16 = TILE;
}

void x86_init_amx(struct kernels *k)
{
    amx_init_mat(k);
}
