/* Quantized products for AMX-int8, on LAYOUT_R16: prompts and taller batches. Below AMX_ROWS_MIN rows, and where
 * tiles would be low, the AVX-512 kernels, which wait for memory there anyway.
 *
 * One tile product: up to 16 rows of activations × 16 rows of weights × one scale group of K (32 or 16), which fills an int32
 * tile with the exact sums that the contract scales: TDPBSSD, with activations as they are packed (a tile of them is 16 rows
 * side by side, a stride of 32 bytes) and weights as signed bytes, a line of 64 bytes holding one k-group of 16 rows, which is
 * the very order that the second operand wants. No sum reaches over a scale group, so half of the array (three quarters for
 * groups of 16) is idle; it does not matter, as the array is not what holds this:
 *
 *   cycles for 16 × 16 × 32; docs/performance.md has how they were measured
 *     tile array                        16
 *     tile store                        16 lines, one a cycle; both, and loads of tiles, overlap: 25 to 31 for all
 *     vector units                      while tiles are in use, and for 2,600 cycles after, the second unit does not multiply, fma or
 *                                       convert, but it does add: 32 for a product of scales and an fma of 16 rows, 48 with a minimum
 *     together, in the first cache      45, 60
 *
 * So conversions are left out (sums_begin), weights are signed, so that no sum needs correcting, minimums carry their sign, scales are
 * unfolded once for all rows, and accumulators stay in registers over a K panel.
 *
 * Order: a block of activation rows (so that it stays in L2) meets up to PANELS × 16 rows of weights; of these a K panel of
 * eight units is unfolded into L1 once, then every tile of rows meets every panel. Between K panels the accumulators wait in memory as
 * floats, which changes no bit. While the products of one meeting are made, the sums of the one before are scaled.
 *
 * Tile state: configured at the start of each call, released at its end; a thread that waits carries none. */
#include <immintrin.h>
#include <string.h>

#include "kernels/r16.h"
#include "kernels/x86/avx512_unfold.h"
#include "kernels/x86/x86.h"

#ifndef FEW_ROWS /* a test has every height computed here */
#define FEW_ROWS(x) ((x)->rows < ((x)->low ? AMX_ROWS_MIN16 : AMX_ROWS_MIN))
#endif
/* A minimum for each 16 weights is two fmas more for each half of the array's work: AVX-512 is as fast there. */
#define BY_VECTORS(type, x) (FEW_ROWS(x) || (!(x)->low && (x)->tile != TILE) || (r16_forms[type].group == 16 && r16_forms[type].has_min))

enum {
    TILE = 16,  /* rows of activations in a tile */
    WHOLE = 13, /* tiles that would share fewer rows each take longer than AVX-512 does; whole ones are met faster than shared ones */
    PANELS = 4, /* of 16 weight rows, unfolded together */
    UNITS = UNFOLD_UNITS,
    BLOCK_TILES = 16,    /* of activation rows that meet them */
    CACHED = 1536 << 10, /* bytes of these: a core with tiles has 2 MiB of second cache */
    SLOTS = 8,           /* tile products of a meeting */
    SUMS = TILE * 16 /* of one tile product */
};

#define INLINE static inline __attribute__((always_inline))

struct work {
    struct unfolded_units w[PANELS]; /* signed bytes */
    int32_t sums[2][SLOTS][SUMS];
    float acc[PANELS][BLOCK_TILES * TILE][16];
};

/* One unfolded panel and one tile of activation rows, over so many groups as have their sums in memory at a time. */
struct meeting {
    const struct unfolded_units *w;
    uint32_t group0, groups; /* of the K panel */
    uint32_t tile;           /* rows that the activations' tiles have */
    const int8_t *q, *low;   /* of the first row, as of the K panel */
    const float *a_scale, *a_sum;
    int32_t (*sums)[SUMS];
    float (*acc)[16];
    bool first, last; /* along K */
    float *out;
    size_t out_stride;
    __mmask16 mask;
};

typedef void (*unfold_fn)(const uint8_t *panel, size_t unit, uint32_t units, struct unfolded_units *ret);
/* Adds up what `scaled` has, and makes what `made` will; either may be NULL. late: tiles are stored two products later. */
typedef void (*meet_fn)(const struct meeting *scaled, const struct meeting *made, bool late, uint32_t rows);

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

/* Sums of 8-bit activations begin at 1.5 * 2^23 as a float has it: below 2^22 in magnitude, they end as the bits of that float plus
 * the sum, which a subtraction makes of it. */
static const int32_t sums_begin[16] __attribute__((aligned(64))) = {
    0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000,
    0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000,
};
#define SUMS_BEGIN 12582912.0f

/* The steps of a product, a tile of sums = a . b, of which four take turns. */
INLINE void tile_begin(int tile, bool wide)
{
    switch (tile) {
#define CASE(c)                            \
    case c:                                \
        if (wide)                          \
            _tile_zero(c);                 \
        else                               \
            _tile_loadd(c, sums_begin, 0); \
        break;
        CASE(0) CASE(1) CASE(2) CASE(3)
#undef CASE
    }
}

INLINE void tile_acts(int tile, const int8_t *a)
{
    if (tile % 2 == 0)
        _tile_loadd(4, a, 32);
    else
        _tile_loadd(5, a, 32);
}

INLINE void tile_weights(int tile, const int8_t *b)
{
    if (tile % 2 == 0)
        _tile_loadd(6, b, 64);
    else
        _tile_loadd(7, b, 64);
}

INLINE void tile_multiply(int tile)
{
    switch (tile) {
    case 0: _tile_dpbssd(0, 4, 6); break;
    case 1: _tile_dpbssd(1, 5, 7); break;
    case 2: _tile_dpbssd(2, 4, 6); break;
    case 3: _tile_dpbssd(3, 5, 7); break;
    }
}

INLINE void tile_store(int tile, int32_t *sums)
{
    switch (tile) {
    case 0: _tile_stored(0, sums, 64); break;
    case 1: _tile_stored(1, sums, 64); break;
    case 2: _tile_stored(2, sums, 64); break;
    case 3: _tile_stored(3, sums, 64); break;
    }
}

/* --- one panel, one tile of rows ---------------------------------------------------------------------------------------- */

/* The sums of one group of a meeting, into tile(s) s on; of 16-bit activations a group takes two, the high parts' first. */
INLINE void make_sums(uint32_t group, bool wide, int s, const struct meeting *m, uint32_t g)
{
    const uint32_t of_panel = m->group0 + g;
    const size_t a = 32 * (size_t)m->tile * (of_panel * group / 32) + of_panel * group % 32;
    const int8_t *b = (const int8_t *)m->w->kg + 16 * group * (size_t)of_panel;
#pragma GCC unroll 2
    for (int t = s; t <= s + wide; t++) {
        tile_begin(t, wide);
        tile_acts(t, (t == s ? m->q : m->low) + a);
        tile_weights(t, b);
        tile_multiply(t);
    }
}

INLINE void store_sums(bool wide, int s, const struct meeting *m, uint32_t g)
{
    tile_store(s, m->sums[wide ? 2 * g : g]);
    if (wide)
        tile_store(s + 1, m->sums[2 * g + 1]);
}

/* acc += what one group's sums are worth, by the contract's formula. */
INLINE void add_sums(uint32_t group, bool has_min, bool wide, const uint32_t rows, const struct meeting *m, uint32_t g, __m512 *acc)
{
    const uint32_t of_panel = m->group0 + g;
    const __m512 scale = m->w->scale[of_panel], min = has_min ? m->w->min[of_panel] : _mm512_setzero_ps();
    int32_t(*sums)[SUMS] = m->sums + (wide ? 2 * g : g);
    const size_t at = of_panel * group / 32 * (size_t)m->tile;
    const float *a_scale = m->a_scale + at, *a_sum = m->a_sum + (group == 32 ? at : 2 * at + of_panel % 2);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < rows; r++) {
        __m512 sum;
        if (wide) {
            __m512i high = _mm512_load_si512(sums[0] + 16 * r);
            sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32(high, 8), high), _mm512_load_si512(sums[1] + 16 * r)));
        } else
            sum = _mm512_sub_ps(_mm512_load_ps(sums[0] + 16 * r), _mm512_set1_ps(SUMS_BEGIN));
        acc[r] = _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, _mm512_set1_ps(a_scale[r])), acc[r]);
        if (has_min)
            acc[r] = _mm512_fmadd_ps(min, _mm512_set1_ps(a_sum[(32 / group) * r]), acc[r]);
    }
}

/* Of what the meeting will write, if it is a panel's last, the lines whose turn it is while the products of one of so many groups are made. */
INLINE void own_lines(const struct meeting *m, uint32_t rows, uint32_t g, uint32_t groups)
{
    if (m->last)
        for (uint32_t r = rows * g / groups; r < rows * (g + 1) / groups; r++)
            x86_own_line(m->out + r * m->out_stride);
}

/* While the next meeting's products are made, the sums of the one before are scaled. A product takes the array some 50 cycles, so that
 * its tile is stored two products later. */
INLINE void meet(uint32_t group, bool has_min, bool wide, const uint32_t rows, const struct meeting *scaled, const struct meeting *made, bool late)
{
    enum { IN_TILES = 4 };
    const uint32_t tiles = wide ? 2 : 1, turn = IN_TILES / tiles, lag = late ? turn / 2 : 0;
    const uint32_t to_make = made ? made->groups : 0, to_scale = scaled ? scaled->groups : 0, steps = to_make > to_scale ? to_make : to_scale;
    __m512 acc[TILE];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < TILE; r++)
        acc[r] = _mm512_setzero_ps();
    if (scaled && !scaled->first)
#pragma GCC unroll 16
        for (uint32_t r = 0; r < rows; r++)
            acc[r] = _mm512_load_ps(scaled->acc[r]);
    for (uint32_t g0 = 0; g0 < steps; g0 += turn)
#pragma GCC unroll 4
        for (uint32_t s = 0; s < turn; s++) {
            uint32_t g = g0 + s;
            if (g >= steps)
                break;
            if (g < to_make)
                make_sums(group, wide, (int)(tiles * s), made, g);
            if (!late) {
                if (g < to_make)
                    store_sums(wide, (int)(tiles * s), made, g);
            } else if (g >= lag) {
                if (made)
                    store_sums(wide, (int)(tiles * ((s + turn - lag) % turn)), made, g - lag);
            } else if (scaled)
                store_sums(wide, (int)(tiles * ((s + turn - lag) % turn)), scaled, to_scale + g - lag);
            settle();
            if (g < to_scale)
                add_sums(group, has_min, wide, rows, scaled, g, acc);
            if (g < to_make)
                own_lines(made, rows, g, wide ? SLOTS / 2 : SLOTS);
            settle();
        }
    if (!scaled)
        return;
    if (scaled->last) {
#pragma GCC unroll 16
        for (uint32_t r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(scaled->out + r * scaled->out_stride, scaled->mask, acc[r]);
        return;
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < rows; r++)
        _mm512_store_ps(scaled->acc[r], acc[r]);
}

/* The same where nothing is missing: both meetings, all groups, a whole tile. Every address is a constant apart, and a product's steps stand
 * between the scalings of rows: one after another they would fill a core's queues, and neither would go on beside the other. */
INLINE void meet_whole(uint32_t group, bool has_min, const struct meeting *scaled, const struct meeting *made)
{
    const int8_t *const b = (const int8_t *)made->w->kg + 16 * group * (size_t)made->group0;
    const int8_t *const a = made->q + 32 * TILE * (size_t)(made->group0 * group / 32);
    int32_t(*const now)[SUMS] = made->sums;
    int32_t(*const sums)[SUMS] = scaled->sums;
    const __m512 *const scale = scaled->w->scale + scaled->group0, *const min = scaled->w->min + scaled->group0;
    const float *const a_scale = scaled->a_scale + TILE * (size_t)(scaled->group0 * group / 32);
    const float *const a_sum = scaled->a_sum + TILE * (size_t)scaled->group0;
    float(*const kept)[16] = scaled->acc;
    const float *const own = made->last ? made->out : kept[0]; /* without a branch below: it would cost more than it spares */
    const size_t own_stride = made->last ? made->out_stride : 0;
    __m512 acc[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++)
        acc[r] = scaled->first ? _mm512_setzero_ps() : _mm512_load_ps(kept[r]);
#pragma GCC unroll 8
    for (int g = 0; g < SLOTS; g++) {
        const int tile = g % 4, before = (g + 2) % 4;
        const __m512 w_scale = scale[g], w_min = has_min ? min[g] : _mm512_setzero_ps();
        x86_own_line(own + (size_t)(2 * g) * own_stride);
        x86_own_line(own + (size_t)(2 * g + 1) * own_stride);
#pragma GCC unroll 16
        for (int r = 0; r < TILE; r++) {
            switch (r) {
            case 0: tile_begin(tile, false); break;
            case 4: tile_acts(tile, a + 32 * TILE * (g * (int)group / 32) + g * (int)group % 32); break;
            case 7: tile_weights(tile, b + 16 * (int)group * g); break;
            case 10: tile_multiply(tile); break;
            case 12: tile_store(before, g < 2 ? sums[SLOTS + g - 2] : now[g - 2]); break;
            }
            settle();
            __m512 sum = _mm512_sub_ps(_mm512_load_ps(sums[g] + 16 * r), _mm512_set1_ps(SUMS_BEGIN));
            acc[r] = _mm512_fmadd_ps(sum, _mm512_mul_ps(w_scale, _mm512_set1_ps(a_scale[TILE * (g * (int)group / 32) + r])), acc[r]);
            if (has_min)
                acc[r] = _mm512_fmadd_ps(w_min, _mm512_set1_ps(group == 32 ? a_sum[TILE * g + r] : a_sum[2 * TILE * (g / 2) + 2 * r + g % 2]), acc[r]);
        }
        settle();
    }
    if (scaled->last)
#pragma GCC unroll 16
        for (int r = 0; r < TILE; r++)
            _mm512_mask_storeu_ps(scaled->out + (size_t)r * scaled->out_stride, scaled->mask, acc[r]);
    else
#pragma GCC unroll 16
        for (int r = 0; r < TILE; r++)
            _mm512_store_ps(kept[r], acc[r]);
}

/* 8-bit activations: all heights have code of their own, their accumulators in registers. 16-bit ones, a small part of the work: only
 * whole tiles have. */
INLINE void meet_rows(uint32_t group, bool has_min, bool wide, uint32_t rows, const struct meeting *scaled, const struct meeting *made, bool late)
{
    if (!wide && rows == TILE && scaled && made && scaled->groups == SLOTS && made->groups == SLOTS) {
        meet_whole(group, has_min, scaled, made);
        return;
    }
    switch (wide && rows < TILE ? 0 : rows) {
#define HEIGHT(n)                                                              \
    case n:                                                                    \
        if (!wide || n == TILE)                                                \
            meet(group, has_min, wide, n, scaled, made, late);                 \
        break;
        HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12)
        HEIGHT(13) HEIGHT(14) HEIGHT(15) HEIGHT(16)
#undef HEIGHT
    default:
        if (wide)
            meet(group, has_min, wide, rows, scaled, made, late);
        break;
    }
}

#define MEET(name, group, has_min, wide)                                                                 \
    static void name(const struct meeting *scaled, const struct meeting *made, bool late, uint32_t rows) \
    {                                                                                                    \
        meet_rows(group, has_min, wide, rows, scaled, made, late);                                       \
    }
MEET(meet32, 32, false, false)
MEET(meet32_min, 32, true, false)
MEET(meet16, 16, false, false)
MEET(wide32, 32, false, true)
MEET(wide32_min, 32, true, true)
MEET(wide16, 16, false, true)
#undef MEET

static meet_fn meet_of(const struct r16_form *f, bool wide)
{
    static const meet_fn fns[2][2][2] = {{{meet32, meet32_min}, {meet16}}, {{wide32, wide32_min}, {wide16}}};
    return fns[wide][f->group == 16][f->has_min];
}

/* --- a matrix ----------------------------------------------------------------------------------------------------------- */

/* A share of the bytes that the next K panel will be unfolded from. */
INLINE void prefetch_share(const uint8_t *p, size_t bytes, uint32_t share, uint32_t shares)
{
    for (size_t at = bytes * share / shares; at < bytes * (share + 1) / shares; at += 64)
        _mm_prefetch((const char *)p + at, _MM_HINT_T1);
}

/* `panels` panels at w, of panel_bytes each, with the rows [r0, r1) of the activations: out as of row 0 and the first panel. */
static void mat_block(enum quant_type type, unfold_fn unfold_panel, meet_fn meet_tile, struct work *work, const uint8_t *w, uint32_t panels,
                      size_t panel_bytes, uint32_t weight_rows, const struct acts *x, uint32_t r0, uint32_t r1, float *out, size_t out_stride)
{
    const struct r16_form *f = &r16_forms[type];
    const uint32_t units = x->k / 32, tiles = (r1 - r0 + x->tile - 1) / x->tile, per_unit = 32 / f->group;
    const uint32_t most = x->low ? SLOTS / 2 : SLOTS; /* groups of a meeting */
    uint32_t shaped = 0, turn = 0;
    for (uint32_t unit = 0; unit < units; unit += UNITS) {
        uint32_t n = units - unit < UNITS ? units - unit : UNITS, groups = n * per_unit;
        size_t next = unit + UNITS < units ? (size_t)UNITS * (f->scales + f->ints) + f->head : 0;
        const uint8_t *begin = w + unit / UNITS * ((size_t)UNITS * (f->scales + f->ints) + f->head);
        struct meeting meeting[2], *before = NULL;
        for (uint32_t p = 0; p < panels; p++)
            unfold_panel(w + p * panel_bytes, unit, n, &work->w[p]);
        settle();
        for (uint32_t t = 0; t < tiles; t++) {
            uint32_t r = r0 + t * x->tile, rows = r1 - r < x->tile ? r1 - r : x->tile;
            size_t at = act_at(x, r, unit);
            if (rows != shaped) {
                if (before)
                    meet_tile(before, NULL, n == UNITS, shaped);
                before = NULL;
                shape_tiles(shaped = rows, f->group);
            }
            for (uint32_t p = 0; p < panels; p++) {
                uint32_t left = weight_rows - 16 * p;
                for (uint32_t g = 0; g < groups; g += most) {
                    struct meeting *m = &meeting[turn];
                    *m = (struct meeting){
                        .w = &work->w[p],
                        .group0 = g,
                        .groups = groups - g < most ? groups - g : most,
                        .tile = x->tile,
                        .q = x->q + 32 * at,
                        .low = x->low ? x->low + 32 * at : NULL,
                        .a_scale = x->scale + at,
                        .a_sum = f->group == 32 ? x->sum + at : x->sum16 + 2 * at,
                        .sums = work->sums[turn],
                        .acc = work->acc[p] + (r - r0),
                        .first = unit == 0 && g == 0,
                        .last = unit + n == units && g + most >= groups,
                        .out = out + r * out_stride + 16 * p,
                        .out_stride = out_stride,
                        .mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xFFFF),
                    };
                    meet_tile(before, m, n == UNITS, rows);
                    before = m;
                    turn ^= 1;
                }
                if (next && n == UNITS)
                    prefetch_share(begin + p * panel_bytes + next, next, t, tiles);
            }
        }
        meet_tile(before, NULL, n == UNITS, shaped);
    }
}

static void mat_tiles(unfold_fn unfold_panel, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                      size_t out_stride)
{
    const size_t panel_bytes = r16_panel_bytes(w->type, w->cols);
    const uint8_t *base = (const uint8_t *)w->data + mat * w->mat_bytes;
    const uint32_t block = r16_block_rows(x, CACHED, BLOCK_TILES);
    struct work work __attribute__((aligned(64)));
    for (uint32_t r = 0; r < x->rows; r += block)
        for (uint32_t j = row0; j < row1; j += 16 * PANELS) {
            uint32_t weight_rows = row1 - j < 16 * PANELS ? row1 - j : 16 * PANELS;
            mat_block(w->type, unfold_panel, meet_of(&r16_forms[w->type], x->low != NULL), &work, base + j / 16 * panel_bytes, (weight_rows + 15) / 16,
                      panel_bytes, weight_rows, x, r, x->rows - r < block ? x->rows : r + block, out + j, out_stride);
        }
    _tile_release();
}

#define MAT(name, type)                                                                                                                         \
    static void unfold_##name(const uint8_t *panel, size_t unit, uint32_t units, struct unfolded_units *ret)                                    \
    {                                                                                                                                           \
        unfold_units(type, r16_forms[type].offset, panel, unit, units, ret);                                                                    \
    }                                                                                                                                           \
    static void mat_##name(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out, size_t stride) \
    {                                                                                                                                           \
        if (BY_VECTORS(type, x))                                                                                                                \
            avx512_mat(type)(w, mat, row0, row1, x, out, stride);                                                                               \
        else                                                                                                                                    \
            mat_tiles(unfold_##name, w, mat, row0, row1, x, out, stride);                                                                       \
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
    k->act_tile = k->act_tile16 = TILE; /* act_alone is AVX-512's */
    k->act_whole = WHOLE;
}

void x86_init_amx(struct kernels *k)
{
    amx_init_mat(k);
}
