/* Quantized products for AVX-512 with VNNI, on LAYOUT_R16.
 *
 * One family for 1 to N rows: a panel of 16 weight rows meets a tile of up to TILE rows of activations; lane = weight row.
 * Per unit of 32 along K the weights are unfolded once into 8 registers, then each activation row takes 8 vpdpbusd (its
 * bytes broadcast from memory), a conversion, a product of scales and an fma; minimums one fma more. The accumulators of a
 * tile stay in registers over all of K, or in the first cache where up to 26 rows are all there are. With one row this is the mat-vec:
 * it reads memory linearly. Two to ten rows meet two panels at a time.
 *
 * More rows: some units of a panel are unfolded into the first cache, all tiles of a block of rows meet them, and the
 * accumulators wait in memory between units, which changes no bit.
 *
 * Unsigned integers are q + offset: the sum starts at -offset * (sum of the activations), so that it ends exact. */
#include <immintrin.h>
#include <string.h>

#include "kernels/r16.h"
#include "kernels/x86/avx512_unfold.h"
#include "kernels/x86/x86.h"

enum { TILE = 16, ALONE = 26, TILE16 = 4, ABREAST_MAX = 6, PAIR_PART = 10 };
/* Weights are asked for so many bytes before they are read, by rows that meet them. More than one: a processor that meets requests one after
 * another goes on by itself, up to the end of a page; so each line is asked for once, and the first ones of a page earlier, too. One, whose
 * products are soon done: each line twice, from memory to the second cache and from there to the first. */
enum { AHEAD = 2048, PAGE_AHEAD = 4096, PAGE = 4096, PAGE_LINES = 6, ONE_AHEAD = 1024, ONE_FAR_AHEAD = 3584 };

/* What the instructions below read, at any address. */
struct four_bytes {
    int8_t byte[4];
};

/* Has a local array wait in memory where it stands, once for each unit: where a tile needs more registers than there are, GCC, left to itself,
 * has sums of products wait in the middle of their chains (8 rows of Q4_0 by two panels: 1.35 times as long; 26 by one: 1.9). Where there are
 * minimums it does better by itself. */
#define KEEP_IN_MEMORY(array) __asm volatile("" : "+m"(array))

#define INLINE static inline __attribute__((always_inline))

/* sum + the products of a weight's four bytes and the four of activations at a, in every lane. The instruction takes the four bytes from
 * memory itself; GCC's intrinsics make a load of its own of it, a third more instructions for a processor's queues to hold. */
INLINE __m512i add_four(__m512i sum, __m512i w, const int8_t *a)
{
#if defined BY_INTRINSICS || defined __clang__
    int32_t v;
    memcpy(&v, a, sizeof v);
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(v));
#else
    __asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const struct four_bytes *)a));
    return sum;
#endif
}

/* The first four of a sum. Zeros are made where they are needed, which costs no execution; GCC would copy them from a register. */
INLINE __m512i first_four(__m512i w, const int8_t *a)
{
#if defined BY_INTRINSICS || defined __clang__
    return add_four(_mm512_setzero_si512(), w, a);
#else
    __m512i sum;
    __asm("vpxord %0, %0, %0\n\tvpdpbusd %2%{1to16%}, %1, %0" : "=&v"(sum) : "v"(w), "m"(*(const struct four_bytes *)a));
    return sum;
#endif
}

/* A sum begins with what the stored numbers' sum would have too much, taken off: for `rows` rows of some units, at most UNFOLD_UNITS, at
 * once, since a number that comes from memory takes no vector unit's time and one that is reckoned beside them does. */
INLINE void begin_sums(const struct r16_form f, const struct acts *x, size_t at, uint32_t units, int rows, int32_t *begin)
{
    const int32_t *isum = f.group == 16 ? x->isum + 2 * at : x->isum32 + at;
    uint32_t n = 32 / f.group * ((units - 1) * x->tile + (uint32_t)rows), i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512i v = _mm512_loadu_si512(isum + i), sum = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (unsigned bit = 0; bit < 8; bit++)
            if (f.offset >> bit & 1)
                sum = _mm512_sub_epi32(sum, _mm512_slli_epi32(v, bit));
        _mm512_store_si512(begin + i, sum);
    }
    for (; i < n; i++)
        begin[i] = -f.offset * isum[i];
}

/* acc + min * sum; K-quants subtract theirs. */
INLINE __m512 add_min(bool subtracts, __m512 min, float sum, __m512 acc)
{
    return subtracts ? _mm512_fnmadd_ps(min, _mm512_set1_ps(sum), acc) : _mm512_fmadd_ps(min, _mm512_set1_ps(sum), acc);
}

INLINE __m512 add_group(__m512i isum, __m512 scale, float a_scale, __m512 acc)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum), _mm512_mul_ps(scale, _mm512_set1_ps(a_scale)), acc);
}

/* Rows whose sums are made side by side, at most `most`, so that the last ones have company, too. */
INLINE int shared(int rows, int most)
{
    const int parts = (rows + most - 1) / most;
    return (rows + parts - 1) / parts;
}

/* Lines of weights that are asked for while others are multiplied: [from, to) as of two places. Requests that come all at once fill the places
 * for what a core waits for, of which the first cache has but sixteen, and then it waits itself; so they go out one by one, between products. */
struct ask {
    const uint8_t *near, *far; /* to the first cache, or NULL; to the second one */
    bool pages;                /* of far's only those where a page begins */
    int from, to;
};

/* Those whose turn is at a step of so many. */
INLINE void ask_some(const struct ask a, int step, int steps)
{
#pragma GCC unroll 16
    for (int line = a.from; line < a.to; line++)
        if ((line - a.from) * steps / (a.to - a.from) == step) {
            const uint8_t *far = a.far + 64 * line;
            if (a.near)
                _mm_prefetch((const char *)a.near + 64 * line, _MM_HINT_T0);
            if (!a.pages || (uintptr_t)far % PAGE < 64 * PAGE_LINES)
                _mm_prefetch((const char *)far, _MM_HINT_T1);
        }
}

/* The share that falls to `n` rows of `rows`, as of row r, of what is asked for while the unit at p is met: `lines` of each place. */
INLINE struct ask share_of(const uint8_t *p, int lines, int r, int n, int rows)
{
    const int from = lines * r / rows, to = lines * (rows - r < n ? rows : r + n) / rows;
    return rows == 1 ? (struct ask){p + ONE_AHEAD, p + ONE_FAR_AHEAD, false, from, to} : (struct ask){p + AHEAD, p + PAGE_AHEAD, true, from, to};
}

/* One unit of weights against one group each of n rows' activations, whose sums are made side by side: a sum is a chain of
 * products, and one row's after another's would fill a processor's queues with what waits. Of 16-bit activations the high parts'
 * products times 255, and the low ones'. */
INLINE void meet(const struct r16_form f, bool subtracts, bool wide, const int n, const struct unfolded *u, const struct acts *x, size_t at,
                 const int32_t *begin, const struct ask ask, __m512 *acc)
{
    const int halves = 32 / f.group, kgs = 8 / halves;
    __m512i sum[ABREAST_MAX];
#pragma GCC unroll 2
    for (int h = 0; h < halves; h++) {
        const size_t byte = 32 * at + 16 * (size_t)h;
        const __m512i *kg = u->kg + (h > 0 ? 4 : 0); /* GCC sees bounds passed in kgs * h, where there is no second half */
#pragma GCC unroll 6
        for (int r = 0; r < n; r++) {
            const int8_t *a = x->q + byte + 32 * (size_t)r;
            sum[r] = f.offset && !wide ? add_four(_mm512_set1_epi32(begin[halves * r + h]), kg[0], a) : first_four(kg[0], a);
        }
#pragma GCC unroll 8
        for (int g = 1; g < kgs; g++) {
            ask_some(ask, (kgs - 1) * h + g - 1, 8 - halves);
#pragma GCC unroll 6
            for (int r = 0; r < n; r++)
                sum[r] = add_four(sum[r], kg[g], x->q + byte + 32 * (size_t)r + 4 * (size_t)g);
        }
        if (wide) {
#pragma GCC unroll 6
            for (int r = 0; r < n; r++) {
                sum[r] = _mm512_sub_epi32(_mm512_slli_epi32(sum[r], 8), sum[r]);
                if (f.offset)
                    sum[r] = _mm512_add_epi32(sum[r], _mm512_set1_epi32(begin[halves * r + h]));
            }
#pragma GCC unroll 8
            for (int g = 0; g < kgs; g++)
#pragma GCC unroll 4
                for (int r = 0; r < n; r++)
                    sum[r] = add_four(sum[r], kg[g], x->low + byte + 32 * (size_t)r + 4 * (size_t)g);
        }
#pragma GCC unroll 6
        for (int r = 0; r < n; r++) {
            const size_t row = at + (size_t)r;
            acc[r] = add_group(sum[r], u->scale[h], x->scale[row], acc[r]);
            if (f.has_min)
                acc[r] = add_min(subtracts, u->min[h], f.group == 16 ? x->sum16[2 * row + (size_t)h] : x->sum[row], acc[r]);
        }
    }
}

/* Where the parts of a panel's unit k are. */
struct unit_parts {
    const uint8_t *head, *scales, *ints;
};

INLINE struct unit_parts parts_of(const struct r16_form f, const uint8_t *panel, uint32_t k)
{
    return (struct unit_parts){panel + (f.head ? r16_head_at(&f, k) : 0), panel + r16_scales_at(&f, k), panel + r16_ints_at(&f, k)};
}

/* One panel against `rows` rows of activations that begin at group index `at0` and lie side by side. */
INLINE void panel_tile(enum quant_type type, bool wide, const int rows, const uint8_t *panel, const struct acts *x, size_t at0, uint32_t units,
                       float *out, size_t out_stride, __mmask16 mask)
{
    const struct r16_form f = r16_forms[type];
    const int abreast = shared(rows, rows >= TILE && f.group == 32 ? 6 : 4);
    int32_t begin[2 * UNFOLD_UNITS * ALONE] __attribute__((aligned(64)));
    const bool waits = f.offset && rows > (f.group == 16 ? 20 : 21);
    const int in_registers = !waits ? rows : f.group == 16 ? 12 : 16;
    __m512 acc[ALONE], waiting[ALONE];
    struct unfolded u;
    const size_t bytes = r16_unit_bytes(&f);
    const int lines = (int)((bytes + 63) / 64);

#pragma GCC unroll 26
    for (int r = 0; r < rows; r++)
        acc[r] = waiting[r] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < units; k++) {
        const struct unit_parts part = parts_of(f, panel, k);
        if (waits)
            KEEP_IN_MEMORY(waiting);
        if (f.offset && k % UNFOLD_UNITS == 0)
            begin_sums(f, x, at0 + (size_t)k * x->tile, units - k < UNFOLD_UNITS ? units - k : UNFOLD_UNITS, rows, begin);
        unfold_scales(type, part.head, part.scales, &u);
        unfold_ints(type, part.ints, u.kg);
#pragma GCC unroll 26
        for (int r = 0; r < rows; r += abreast) {
            const int n = rows - r < abreast ? rows - r : abreast;
            meet(f, type != QUANT_Q4_1 && type != QUANT_Q5_1, wide, n, &u, x, at0 + (size_t)k * x->tile + (size_t)r,
                 begin + 32 / f.group * (int)(k % UNFOLD_UNITS * x->tile + (uint32_t)r), share_of(panel + k * bytes, lines, r, abreast, rows),
                 (r + n <= in_registers ? acc : waiting) + r);
        }
    }
#pragma GCC unroll 26
    for (int r = 0; r < rows; r += abreast) {
        const int n = rows - r < abreast ? rows - r : abreast;
#pragma GCC unroll 6
        for (int i = r; i < r + n; i++)
            _mm512_mask_storeu_ps(out + (size_t)i * out_stride, mask, (r + n <= in_registers ? acc : waiting)[i]);
    }
}

/* --- two panels ---------------------------------------------------------------------------------------------------------- */

/* Four bytes of activations in every lane, by a load alone, for more than one product. */
INLINE __m512i four_of(const int8_t *a)
{
#if defined BY_INTRINSICS || defined __clang__
    int32_t v;
    memcpy(&v, a, sizeof v);
    return _mm512_set1_epi32(v);
#else
    __m512i v;
    __asm("vpbroadcastd %1, %0" : "=v"(v) : "m"(*(const struct four_bytes *)a));
    return v;
#endif
}

INLINE __m512i first_product(__m512i w, __m512i a)
{
#if defined BY_INTRINSICS || defined __clang__
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a);
#else
    __m512i sum;
    __asm("vpxord %0, %0, %0\n\tvpdpbusd %2, %1, %0" : "=&v"(sum) : "v"(w), "v"(a));
    return sum;
#endif
}

INLINE __m512i add_product(__m512i sum, __m512i w, __m512i a)
{
#if defined BY_INTRINSICS || defined __clang__
    return _mm512_dpbusd_epi32(sum, w, a);
#else
    __asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
    return sum;
#endif
}

/* Two panels' unit against one group each of n rows' activations: a row's bytes are broadcast once for both, and loads hold products up less.
 * `step` of `steps` parts that a unit's rows are in. */
INLINE void meet_two(enum quant_type type, const int n, const uint8_t *const ints[2], const struct unfolded u[2], const struct acts *x, size_t at,
                     const int32_t *begin, const struct ask ask[2], int step, int steps, __m512 *acc0, __m512 *acc1)
{
    const struct r16_form f = r16_forms[type];
    const bool subtracts = type != QUANT_Q4_1 && type != QUANT_Q5_1;
    const int halves = 32 / f.group, kgs = 8 / halves;
    const int8_t *a = x->q + 32 * at;
#pragma GCC unroll 2
    for (int h = 0; h < halves; h++) {
        __m512i sum[2][PAIR_PART];
#pragma GCC unroll 8
        for (int i = 0; i < kgs; i++) {
            const int g = halves == 2 ? 4 * h + i : i / 2 + i % 2 * 4; /* two of a line of nibbles one after the other */
            const __m512i w0 = unfold_group(type, ints[0], g), w1 = unfold_group(type, ints[1], g);
            ask_some(ask[0], 8 * step + kgs * h + i, 8 * steps);
#pragma GCC unroll 10
            for (int r = 0; r < n; r++) {
                const __m512i v = four_of(a + 32 * r + 4 * g);
                if (i > 0) {
                    sum[0][r] = add_product(sum[0][r], w0, v);
                    sum[1][r] = add_product(sum[1][r], w1, v);
                } else if (f.offset) {
                    const __m512i begins = _mm512_set1_epi32(begin[halves * r + h]);
                    sum[0][r] = add_product(begins, w0, v);
                    sum[1][r] = add_product(begins, w1, v);
                } else {
                    sum[0][r] = first_product(w0, v);
                    sum[1][r] = first_product(w1, v);
                }
            }
            ask_some(ask[1], 8 * step + kgs * h + i, 8 * steps);
        }
#pragma GCC unroll 10
        for (int r = 0; r < n; r++) {
            const float a_scale = x->scale[at + (size_t)r];
            const float a_sum = f.has_min ? f.group == 16 ? x->sum16[2 * (at + (size_t)r) + (size_t)h] : x->sum[at + (size_t)r] : 0;
            acc0[r] = add_group(sum[0][r], u[0].scale[h], a_scale, acc0[r]);
            if (f.has_min)
                acc0[r] = add_min(subtracts, u[0].min[h], a_sum, acc0[r]);
            acc1[r] = add_group(sum[1][r], u[1].scale[h], a_scale, acc1[r]);
            if (f.has_min)
                acc1[r] = add_min(subtracts, u[1].min[h], a_sum, acc1[r]);
        }
    }
}

INLINE void pair_tile(enum quant_type type, const int rows, const uint8_t *panel, size_t panel_bytes, const struct acts *x, size_t at0,
                      uint32_t units, float *out, size_t out_stride, __mmask16 mask)
{
    const struct r16_form f = r16_forms[type];
    const int abreast = shared(rows, rows > PAIR_PART ? 6 : PAIR_PART), steps = (rows + abreast - 1) / abreast;
    const bool waits = rows > 8 || ((f.offset || f.group == 16) && rows > 6);
    int32_t begin[2 * UNFOLD_UNITS * TILE] __attribute__((aligned(64)));
    __m512 acc[2][TILE];
    const size_t bytes = r16_unit_bytes(&f);
    const int lines = (int)((bytes + 63) / 64);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        acc[0][r] = acc[1][r] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < units; k++) {
        if (waits)
            KEEP_IN_MEMORY(acc);
        struct unfolded u[2];
        const uint8_t *ints[2];
        struct ask ask[2];
        if (f.offset && k % UNFOLD_UNITS == 0)
            begin_sums(f, x, at0 + (size_t)k * x->tile, units - k < UNFOLD_UNITS ? units - k : UNFOLD_UNITS, rows, begin);
#pragma GCC unroll 2
        for (int p = 0; p < 2; p++) {
            const uint8_t *at = panel + (size_t)p * panel_bytes;
            const struct unit_parts part = parts_of(f, at, k);
            unfold_scales(type, part.head, part.scales, &u[p]);
            ints[p] = part.ints;
            ask[p] = share_of(at + k * bytes, lines, 0, rows, rows);
            if (p == 0) { /* what follows the first panel is the second one; next to be read are the two behind it */
                ask[p].near += k * bytes + AHEAD < panel_bytes ? 0 : 2 * panel_bytes;
                ask[p].far += k * bytes + PAGE_AHEAD < panel_bytes ? 0 : 2 * panel_bytes;
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r += abreast)
            meet_two(type, rows - r < abreast ? rows - r : abreast, ints, u, x, at0 + (size_t)k * x->tile + (size_t)r,
                     begin + 32 / f.group * (int)(k % UNFOLD_UNITS * x->tile + (uint32_t)r), ask, r / abreast, steps, acc[0] + r, acc[1] + r);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(out + (size_t)r * out_stride, acc[0][r]);
        _mm512_mask_storeu_ps(out + (size_t)r * out_stride + 16, mask, acc[1][r]);
    }
}

/* Rows that meet two panels at a time. More gain nothing by it where weights must be unfolded for each part of them. */
INLINE uint32_t pair_most(enum quant_type type)
{
    return type == QUANT_Q8_0 ? TILE : PAIR_PART;
}

INLINE void pair_rows(enum quant_type type, uint32_t rows, const uint8_t *panel, size_t panel_bytes, const struct acts *x, size_t at0, uint32_t units,
                      float *out, size_t out_stride, __mmask16 mask)
{
    switch (rows) {
#define HEIGHT(n)                                                                           \
    case n:                                                                                 \
        if (n <= pair_most(type))                                                           \
            pair_tile(type, n, panel, panel_bytes, x, at0, units, out, out_stride, mask);   \
        break;
        HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12)
        HEIGHT(13) HEIGHT(14) HEIGHT(15) HEIGHT(16)
#undef HEIGHT
    }
}

/* What a tile of 8-bit activations and one of 16-bit ones may have: each height has code of its own, so that none is slower than the
 * one below it. */
#define HEIGHTS                                                                                                             \
    HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12) \
    HEIGHT(13) HEIGHT(14) HEIGHT(15) HEIGHT(16)

/* Rows that are one tile: up to ALONE if there are no more. Not all accumulators have registers then, which costs less than a second
 * tile's looking at every weight. */
INLINE void panel_rows(enum quant_type type, bool wide, uint32_t rows, const uint8_t *panel, const struct acts *x, size_t at0, uint32_t units,
                       float *out, size_t out_stride, __mmask16 mask)
{
    switch (rows) {
#define HEIGHT(n)                                                                         \
    case n:                                                                               \
        if (!wide || n <= TILE16)                                                         \
            panel_tile(type, wide, n, panel, x, at0, units, out, out_stride, mask);       \
        break;
        HEIGHTS
        HEIGHT(17) HEIGHT(18) HEIGHT(19) HEIGHT(20) HEIGHT(21) HEIGHT(22) HEIGHT(23) HEIGHT(24) HEIGHT(25) HEIGHT(26)
#undef HEIGHT
    }
}

/* --- more rows than a tile has --- */

/* Bytes of activations that stay in the second cache, at most so many tiles; lines of weights that are asked for while a tile meets a unit: two
 * tiles ask for all. */
enum { BLOCK_TILES = 16, CACHED = 768 << 10, ASKED_LINES = 5 };

/* Unfolded units, and rows of activations that meet them: what they are at, and where they wait between units. */
struct block_job {
    const struct unfolded_units *w; /* with an offset: q + 128 */
    const uint8_t *ask, *asked;     /* the first line that is asked for meanwhile; where all have been */
    uint32_t units;
    const struct acts *x;
    size_t at;
    float (*sums)[16];
    bool first;
    float *out; /* NULL: more units follow */
    float *own; /* where the tile that comes next will write, or NULL */
    size_t out_stride;
    __mmask16 mask;
};

/* As share_of, of the units that come next: they wait in the second cache. */
INLINE struct ask next_share(const uint8_t *p, int r, int n, int rows)
{
    const struct ask all = share_of(p, ASKED_LINES, r, n, rows);
    return (struct ask){NULL, p, false, all.from, all.to};
}

INLINE void block_tile(const int group, const bool has_min, const bool wide, const int rows, const struct block_job *j)
{
    const struct r16_form form = {.group = (uint8_t)group, .has_min = has_min, .offset = has_min ? 0 : 128};
    const int abreast = shared(rows, group == 32 ? has_min ? 4 : 6 : has_min ? 3 : 4), per_unit = 32 / group;
    const struct acts *x = j->x;
    int32_t begin[2 * UNFOLD_UNITS * TILE] __attribute__((aligned(64)));
    if (!has_min)
        begin_sums(form, x, j->at, j->units, rows, begin);
    __m512 acc[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        acc[r] = _mm512_setzero_ps();
    if (!j->first)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            acc[r] = _mm512_load_ps(j->sums[r]);
    const uint8_t *ask = j->ask;
    float *own = j->own;
    for (uint32_t k = 0; k < j->units; k++) {
        struct unfolded u;
        if (own) {
#pragma GCC unroll 2
            for (int i = 0; i < (rows + UNFOLD_UNITS - 1) / UNFOLD_UNITS; i++, own += j->out_stride)
                x86_own_line(own);
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++)
            u.kg[g] = j->w->kg[k][g];
#pragma GCC unroll 2
        for (int h = 0; h < per_unit; h++) {
            u.scale[h] = j->w->scale[per_unit * (int)k + h];
            u.min[h] = j->w->min[per_unit * (int)k + h];
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; r += abreast)
            meet(form, false, wide, rows - r < abreast ? rows - r : abreast, &u, x, j->at + (size_t)k * x->tile + (size_t)r,
                 begin + per_unit * (int)(k * x->tile + (uint32_t)r), next_share(ask, r, abreast, rows), acc + r);
        ask = ask < j->asked ? ask + 64 * ASKED_LINES : ask; /* the last ones again: they are there */
    }
    if (j->out)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(j->out + (size_t)r * j->out_stride, j->mask, acc[r]);
    else
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
            _mm512_store_ps(j->sums[r], acc[r]);
}

INLINE void block_rows(const int group, const bool has_min, const bool wide, uint32_t rows, const struct block_job *j)
{
    switch (rows) {
#define HEIGHT(n)                                     \
    case n:                                           \
        if (!wide || n <= TILE16)                     \
            block_tile(group, has_min, wide, n, j);   \
        break;
        HEIGHTS
#undef HEIGHT
    }
}

typedef void (*block_fn)(uint32_t rows, const struct block_job *j);
#define BLOCK(name, group, has_min, wide)                           \
    static void name(uint32_t rows, const struct block_job *j)      \
    {                                                               \
        block_rows(group, has_min, wide, rows, j);                  \
    }
BLOCK(block32, 32, false, false)
BLOCK(block32_min, 32, true, false)
BLOCK(block16, 16, false, false)
BLOCK(block16_min, 16, true, false)
BLOCK(wide32, 32, false, true)
BLOCK(wide32_min, 32, true, true)
BLOCK(wide16, 16, false, true)
BLOCK(wide16_min, 16, true, true)
#undef BLOCK

/* Rows [r0, r1), whole tiles but for the last, with one panel. */
INLINE void panel_block(enum quant_type type, const uint8_t *panel, const struct acts *x, uint32_t r0, uint32_t r1, float *out, size_t out_stride,
                        __mmask16 mask)
{
    static const block_fn fns[2][2][2] = {{{block32, block32_min}, {block16, block16_min}}, {{wide32, wide32_min}, {wide16, wide16_min}}};
    const struct r16_form f = r16_forms[type];
    const block_fn fn = fns[x->low != NULL][f.group == 16][f.has_min];
    const uint32_t units = x->k / 32, most = x->low ? TILE16 : TILE;
    const size_t bytes = r16_unit_bytes(&f);
    struct unfolded_units w;
    float sums[BLOCK_TILES * TILE][16] __attribute__((aligned(64)));
    for (uint32_t unit = 0; unit < units; unit += UNFOLD_UNITS) {
        uint32_t n = units - unit < UNFOLD_UNITS ? units - unit : UNFOLD_UNITS;
        unfold_units(type, f.offset ? f.offset - 128 : 0, panel, unit, n, &w);
        const uint8_t *next = panel + (unit + n) * bytes, *ask = next, *asked = next + UNFOLD_UNITS * bytes;
        for (uint32_t r = r0, rows; r < r1; r += rows) {
            uint32_t of_tile = x->tile - r % x->tile;
            rows = r1 - r < of_tile ? r1 - r : of_tile;
            rows = rows < most ? rows : most;
            const bool last = unit + n == units;
            float *o = out + r * out_stride;
            struct block_job job = {
                .w = &w,
                .ask = ask,
                .asked = asked,
                .units = n,
                .x = x,
                .at = act_at(x, r, unit),
                .sums = &sums[r - r0],
                .first = unit == 0,
                .out = last ? o : NULL,
                .own = last ? o + (r + 2 * rows <= r1 ? rows * out_stride : 0) : NULL,
                .out_stride = out_stride,
                .mask = mask,
            };
            fn(rows, &job);
            ask = ask < asked ? ask + 64 * ASKED_LINES * n : ask;
        }
    }
}

/* A block of activations stays in the second cache while the task's panels pass. */
INLINE void mat_type(enum quant_type type, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                     size_t out_stride)
{
    size_t panel_bytes = r16_panel_bytes(type, w->cols);
    uint32_t units = w->cols / 32;
    const uint8_t *base = (const uint8_t *)w->data + mat * w->mat_bytes;
    bool many = x->rows > (x->low ? TILE16 : x->tile);
    uint32_t block = many ? r16_block_rows(x, CACHED, BLOCK_TILES) : x->tile;
    for (uint32_t r = 0; r < x->rows; r += block) {
        uint32_t rows = x->rows - r < block ? x->rows - r : block;
        size_t at = act_at(x, r, 0);
        for (uint32_t j = row0, step; j < row1; j += step) {
            const uint8_t *panel = base + j / 16 * panel_bytes;
            float *o = out + r * out_stride + j;
            step = 16;
            if (!many && !x->low && rows > 1 && rows <= pair_most(type) && row1 - j > 16) {
                __mmask16 second = (__mmask16)(row1 - j < 32 ? (1u << (row1 - j - 16)) - 1 : 0xFFFF);
                pair_rows(type, rows, panel, panel_bytes, x, at, units, o, out_stride, second);
                step = 32;
                continue;
            }
            __mmask16 mask = (__mmask16)(row1 - j < 16 ? (1u << (row1 - j)) - 1 : 0xFFFF);
            if (many)
                panel_block(type, panel, x, r, r + rows, out + j, out_stride, mask);
            else if (x->low)
                panel_rows(type, true, rows, panel, x, at, units, o, out_stride, mask);
            else
                panel_rows(type, false, rows, panel, x, at, units, o, out_stride, mask);
        }
    }
}

#define MAT(name, type)                                                                                                             \
    static void name(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out, size_t stride) \
    {                                                                                                                               \
        mat_type(type, w, mat, row0, row1, x, out, stride);                                                                         \
    }
MAT(mat_q4_0, QUANT_Q4_0)
MAT(mat_q4_1, QUANT_Q4_1)
MAT(mat_q5_0, QUANT_Q5_0)
MAT(mat_q5_1, QUANT_Q5_1)
MAT(mat_q8_0, QUANT_Q8_0)
MAT(mat_q2_k, QUANT_Q2_K)
MAT(mat_q3_k, QUANT_Q3_K)
MAT(mat_q4_k, QUANT_Q4_K)
MAT(mat_q5_k, QUANT_Q5_K)
MAT(mat_q6_k, QUANT_Q6_K)
MAT(mat_iq4_nl, QUANT_IQ4_NL)
MAT(mat_iq4_xs, QUANT_IQ4_XS)
MAT(mat_mxfp4, QUANT_MXFP4)
#undef MAT

mat_fn avx512_mat(enum quant_type type)
{
    static const mat_fn fns[QUANT_TYPES] = {
        [QUANT_Q4_0] = mat_q4_0, [QUANT_Q4_1] = mat_q4_1, [QUANT_Q5_0] = mat_q5_0,   [QUANT_Q5_1] = mat_q5_1,   [QUANT_Q8_0] = mat_q8_0,
        [QUANT_Q2_K] = mat_q2_k, [QUANT_Q3_K] = mat_q3_k, [QUANT_Q4_K] = mat_q4_k,   [QUANT_Q5_K] = mat_q5_k,   [QUANT_Q6_K] = mat_q6_k,
        [QUANT_MXFP4] = mat_mxfp4, [QUANT_IQ4_NL] = mat_iq4_nl, [QUANT_IQ4_XS] = mat_iq4_xs,
    };
    return fns[type];
}

void avx512_init_mat(struct kernels *k)
{
    for (int t = 0; t < QUANT_TYPES; t++)
        if (avx512_mat((enum quant_type)t))
            r16_use(k, (enum quant_type)t, avx512_mat((enum quant_type)t));
    k->act_tile = k->act_tile16 = TILE;
    k->act_alone = ALONE;
}
