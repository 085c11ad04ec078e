/* Quantized products for AVX-512 with VNNI, on LAYOUT_R16.
 *
 * One family for 1 to N rows: a panel of 16 weight rows meets a tile of up to TILE rows of activations; lane = weight row.
 * Per unit of 32 along K the weights are unfolded once into 8 registers, then each activation row takes 8 vpdpbusd (its
 * bytes broadcast from memory), a conversion, a product of scales and an fma; minimums one fma more. The accumulators of a
 * tile stay in registers over all of K. With one row this is the mat-vec: it reads memory linearly.
 *
 * Unsigned integers are q + offset: the sum starts at -offset * (sum of the activations), so that it ends exact. */
#include <immintrin.h>
#include <string.h>

#include "kernels/r16.h"
#include "kernels/x86/avx512_unfold.h"
#include "kernels/x86/x86.h"

enum { TILE = 12, TILE16 = 4, AHEAD = 4096 };

/* What the instructions below read, at any address. */
struct four_bytes {
    int8_t byte[4];
};

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

/* A sum begins with what the stored numbers' sum would have too much, taken off. */
INLINE __m512i start_sum(int offset, int32_t isum)
{
    return _mm512_set1_epi32(-offset * isum);
}

/* acc + min * sum; K-quants subtract theirs. */
INLINE __m512 add_min(enum quant_type type, __m512 min, float sum, __m512 acc)
{
    return type == QUANT_Q4_1 || type == QUANT_Q5_1 ? _mm512_fmadd_ps(min, _mm512_set1_ps(sum), acc) : _mm512_fnmadd_ps(min, _mm512_set1_ps(sum), acc);
}

INLINE __m512 add_group(__m512i isum, __m512 scale, float a_scale, __m512 acc)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum), _mm512_mul_ps(scale, _mm512_set1_ps(a_scale)), acc);
}

/* The products of n k-groups from g0 on and, with an offset, its share of them; of 16-bit activations both parts, the high ones times
 * 255. */
INLINE __m512i dot(bool wide, const struct unfolded *u, int g0, const int n, const struct acts *x, size_t i, int offset, int32_t isum)
{
    __m512i sum = offset && !wide ? add_four(start_sum(offset, isum), u->kg[g0], x->q + i) : first_four(u->kg[g0], x->q + i);
#pragma GCC unroll 8
    for (int g = 1; g < n; g++)
        sum = add_four(sum, u->kg[g0 + g], x->q + i + 4 * g);
    if (!wide)
        return sum;
    sum = _mm512_sub_epi32(_mm512_slli_epi32(sum, 8), sum);
    if (offset)
        sum = _mm512_add_epi32(sum, start_sum(offset, isum));
#pragma GCC unroll 8
    for (int g = 0; g < n; g++)
        sum = add_four(sum, u->kg[g0 + g], x->low + i + 4 * g);
    return sum;
}

/* One unit of weights against one group of one row's activations. */
INLINE __m512 meet(enum quant_type type, bool wide, const struct unfolded *u, const struct acts *x, size_t at, __m512 acc)
{
    const struct r16_form f = r16_forms[type];
    if (f.group == 16) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512i sum = dot(wide, u, 4 * h, 4, x, 32 * at + 16 * (size_t)h, f.offset, x->isum[2 * at + (size_t)h]);
            acc = add_group(sum, u->scale[h], x->scale[at], acc);
            if (f.has_min)
                acc = add_min(type, u->min[h], x->sum16[2 * at + (size_t)h], acc);
        }
        return acc;
    }
    __m512i sum = dot(wide, u, 0, 8, x, 32 * at, f.offset, f.offset ? x->isum32[at] : 0);
    acc = add_group(sum, u->scale[0], x->scale[at], acc);
    return f.has_min ? add_min(type, u->min[0], x->sum[at], acc) : acc;
}

/* One panel against `rows` rows of activations that begin at group index `at0` and lie side by side. */
INLINE void panel_tile(enum quant_type type, bool wide, const int rows, const uint8_t *panel, const struct acts *x, size_t at0, uint32_t units,
                       float *out, size_t out_stride, __mmask16 mask)
{
    const struct r16_form f = r16_forms[type];
    __m512 acc[TILE];
    struct unfolded u;
    const uint8_t *head = panel;
    const size_t super = f.head + 8 * (size_t)(f.scales + f.ints);

#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        acc[r] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < units; k++) {
        const uint8_t *scales, *ints;
        if (f.head) {
            head = panel + k / 8 * super;
            scales = head + f.head + k % 8 * f.scales;
            ints = head + f.head + 8 * f.scales + k % 8 * f.ints;
        } else {
            scales = panel + (size_t)k * (f.scales + f.ints);
            ints = scales + f.scales;
        }
        for (int line = 0; line < f.ints; line += 64)
            _mm_prefetch((const char *)ints + AHEAD + line, _MM_HINT_T0);
        unfold_scales(type, head, scales, &u);
        unfold_ints(type, ints, u.kg);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
            acc[r] = meet(type, wide, &u, x, at0 + (size_t)k * x->tile + (size_t)r, acc[r]);
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        _mm512_mask_storeu_ps(out + (size_t)r * out_stride, mask, acc[r]);
}

/* Rows of one tile: all heights have code of their own, so that no height is slower than the one below it. */
INLINE void panel_rows(enum quant_type type, uint32_t rows, const uint8_t *panel, const struct acts *x, size_t at0, uint32_t units, float *out,
                       size_t out_stride, __mmask16 mask)
{
    switch (rows) {
#define HEIGHT(n) \
    case n: panel_tile(type, false, n, panel, x, at0, units, out, out_stride, mask); break;
        HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12)
#undef HEIGHT
    }
}

/* The same for 16-bit activations. */
INLINE void panel_rows16(enum quant_type type, uint32_t rows, const uint8_t *panel, const struct acts *x, size_t at0, uint32_t units, float *out,
                         size_t out_stride, __mmask16 mask)
{
    switch (rows) {
    case 1: panel_tile(type, true, 1, panel, x, at0, units, out, out_stride, mask); break;
    case 2: panel_tile(type, true, 2, panel, x, at0, units, out, out_stride, mask); break;
    case 3: panel_tile(type, true, 3, panel, x, at0, units, out, out_stride, mask); break;
    default: panel_tile(type, true, TILE16, panel, x, at0, units, out, out_stride, mask); break;
    }
}

/* A tile of activations stays in the second cache while the task's panels pass. */
INLINE void mat_type(enum quant_type type, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                     size_t out_stride)
{
    size_t panel_bytes = r16_panel_bytes(type, w->cols);
    uint32_t units = w->cols / 32;
    const uint8_t *base = (const uint8_t *)w->data + mat * w->mat_bytes;
    for (uint32_t r = 0; r < x->rows; r += x->tile) {
        uint32_t rows = x->rows - r < x->tile ? x->rows - r : x->tile;
        size_t at = act_at(x, r, 0);
        for (uint32_t j = row0; j < row1; j += 16) {
            const uint8_t *panel = base + j / 16 * panel_bytes;
            __mmask16 mask = (__mmask16)(row1 - j < 16 ? (1u << (row1 - j)) - 1 : 0xFFFF);
            float *o = out + r * out_stride + j;
            if (x->low)
                panel_rows16(type, rows, panel, x, at, units, o, out_stride, mask);
            else
                panel_rows(type, rows, panel, x, at, units, o, out_stride, mask);
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
    k->act_tile = TILE;
    k->act_tile16 = TILE16;
}
