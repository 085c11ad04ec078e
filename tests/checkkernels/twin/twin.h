#ifndef TESTS_CHECKKERNELS_TWIN_TWIN_H
#define TESTS_CHECKKERNELS_TWIN_TWIN_H

/* AVX-512 and AMX instructions in software, so that the kernels written for them are checked on processors that lack them.
 * Forced (-include) in front of the AVX-512 files and amx_mat.c of kernels/x86, unchanged: it lets immintrin.h declare its types
 * and then puts functions of its own, plain loops over lanes after Intel's manual, in the place of every intrinsic beyond SSE2
 * that these files use; what they export gets the prefix twin_.
 *
 * What the manual makes an invalid-opcode fault (a tile without a configuration, shapes that do not fit, a tile named twice)
 * ends the program with a sentence. A tile's bytes beyond its configured shape are zeros. */

#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fmath.h"
#include "tests/checkkernels/twin/checktwins.h"

#define avx512_mat twin_avx512_mat
#define avx512_init_mat twin_avx512_init_mat
#define avx512_init_attention twin_avx512_init_attention
#define x86_init_avx512vnni twin_x86_init_avx512vnni
#define amx_init_mat twin_amx_init_mat
#define x86_init_amx twin_x86_init_amx
#ifndef __AVX512F__
#define __AVX512F__ 1 /* the headers of that level show what they have */
#endif
#define FEW_ROWS(x) twin_few_rows(x)
#define BY_INTRINSICS 1 /* not instructions written out */
#define always_inline /* one copy of each function: software lanes unrolled for every type would keep a compiler busy for half an hour */

#define TWIN __attribute__((unused)) static inline

/* --- 512 bits ------------------------------------------------------------------------------------------------------------- */

union twin512 {
    __m512i i;
    __m512 f;
    int8_t s8[64];
    uint8_t u8[64];
    uint16_t u16[32];
    int32_t s32[16];
    uint32_t u32[16];
    float f32[16];
    __m128i quarter[4];
    __m256 half[2];
};

union twin256 {
    __m256i i;
    __m256 f;
    uint16_t u16[16];
    float f32[8];
    __m128 half[2];
};

union twin128 {
    __m128i i;
    int8_t s8[16];
    uint8_t u8[16];
};

#define LANEWISE(name, args, lane, n)   \
    TWIN union twin512 name args        \
    {                                   \
        union twin512 ret;              \
        for (int i = 0; i < (n); i++)   \
            lane;                       \
        return ret;                     \
    }
/* 0xF8 of ternarylogic: a | (b & c); any other table a bit at a time. */
LANEWISE(twin_ternary, (union twin512 a, union twin512 b, union twin512 c, int table),
         {
             uint32_t v = 0;
             for (int bit = 0; bit < 32; bit++)
                 v |= (uint32_t)(table >> ((a.u32[i] >> bit & 1) << 2 | (b.u32[i] >> bit & 1) << 1 | (c.u32[i] >> bit & 1)) & 1) << bit;
             ret.u32[i] = v;
         },
         16)
LANEWISE(twin_and, (union twin512 a, union twin512 b), ret.u32[i] = a.u32[i] & b.u32[i], 16)
LANEWISE(twin_xor, (union twin512 a, union twin512 b), ret.u32[i] = a.u32[i] ^ b.u32[i], 16)
LANEWISE(twin_add32, (union twin512 a, union twin512 b), ret.u32[i] = a.u32[i] + b.u32[i], 16)
LANEWISE(twin_sub32, (union twin512 a, union twin512 b), ret.u32[i] = a.u32[i] - b.u32[i], 16)
LANEWISE(twin_sub8, (union twin512 a, union twin512 b), ret.u8[i] = (uint8_t)(a.u8[i] - b.u8[i]), 64)
LANEWISE(twin_max_u32, (union twin512 a, union twin512 b), ret.u32[i] = a.u32[i] > b.u32[i] ? a.u32[i] : b.u32[i], 16)
LANEWISE(twin_sll16, (union twin512 a, unsigned n), ret.u16[i] = (uint16_t)(n > 15 ? 0 : a.u16[i] << n), 32)
LANEWISE(twin_srl16, (union twin512 a, unsigned n), ret.u16[i] = (uint16_t)(n > 15 ? 0 : a.u16[i] >> n), 32)
LANEWISE(twin_sll32, (union twin512 a, unsigned n), ret.u32[i] = n > 31 ? 0 : a.u32[i] << n, 16)
LANEWISE(twin_mask_sllv32, (union twin512 src, __mmask16 m, union twin512 a, union twin512 n),
         ret.u32[i] = !(m >> i & 1) ? src.u32[i] : n.u32[i] > 31 ? 0 : a.u32[i] << n.u32[i], 16)
LANEWISE(twin_shuffle8, (union twin512 a, union twin512 at), ret.u8[i] = at.u8[i] & 0x80 ? 0 : a.u8[(i & ~15) | (at.u8[i] & 15)], 64)
LANEWISE(twin_set8, (char v), ret.s8[i] = (int8_t)v, 64)
LANEWISE(twin_set32, (int v), ret.s32[i] = v, 16)
LANEWISE(twin_setf, (float v), ret.f32[i] = v, 16)
LANEWISE(twin_quarters, (__m128i v), ret.quarter[i] = v, 4)
LANEWISE(twin_widen_s8, (union twin128 v), ret.s32[i] = v.s8[i], 16)
LANEWISE(twin_widen_u8, (union twin128 v), ret.s32[i] = v.u8[i], 16)
LANEWISE(twin_widen_u16, (union twin256 v), ret.s32[i] = v.u16[i], 16)
LANEWISE(twin_halves, (union twin256 v), ret.f32[i] = sc_f16_to_f32(v.u16[i]), 16)
LANEWISE(twin_floats, (union twin512 v), ret.f32[i] = (float)v.s32[i], 16)
LANEWISE(twin_abs, (union twin512 v), ret.u32[i] = v.u32[i] & 0x7FFFFFFF, 16)
LANEWISE(twin_add, (union twin512 a, union twin512 b), ret.f32[i] = a.f32[i] + b.f32[i], 16)
LANEWISE(twin_sub, (union twin512 a, union twin512 b), ret.f32[i] = a.f32[i] - b.f32[i], 16)
LANEWISE(twin_mul, (union twin512 a, union twin512 b), ret.f32[i] = a.f32[i] * b.f32[i], 16)
LANEWISE(twin_div, (union twin512 a, union twin512 b), ret.f32[i] = a.f32[i] / b.f32[i], 16)
/* The second one where either is NaN or both are zeros. */
LANEWISE(twin_max, (union twin512 a, union twin512 b), ret.f32[i] = a.f32[i] > b.f32[i] ? a.f32[i] : b.f32[i], 16)
LANEWISE(twin_min, (union twin512 a, union twin512 b), ret.f32[i] = a.f32[i] < b.f32[i] ? a.f32[i] : b.f32[i], 16)
LANEWISE(twin_blend, (__mmask16 m, union twin512 without, union twin512 with), ret.u32[i] = m >> i & 1 ? with.u32[i] : without.u32[i], 16)
LANEWISE(twin_fma, (union twin512 a, union twin512 b, union twin512 c), ret.f32[i] = fmaf(a.f32[i], b.f32[i], c.f32[i]), 16)
LANEWISE(twin_mask3_fma, (union twin512 a, union twin512 b, union twin512 c, __mmask16 m),
         ret.f32[i] = m >> i & 1 ? fmaf(a.f32[i], b.f32[i], c.f32[i]) : c.f32[i], 16)
LANEWISE(twin_fms, (union twin512 a, union twin512 b, union twin512 c), ret.f32[i] = fmaf(a.f32[i], b.f32[i], -c.f32[i]), 16)
LANEWISE(twin_fnma, (union twin512 a, union twin512 b, union twin512 c), ret.f32[i] = fmaf(-a.f32[i], b.f32[i], c.f32[i]), 16)
LANEWISE(twin_dpbusd, (union twin512 c, union twin512 a, union twin512 b),
         {
             int32_t sum = 0;
             for (int j = 4 * i; j < 4 * i + 4; j++)
                 sum += a.u8[j] * b.s8[j];
             ret.u32[i] = c.u32[i] + (uint32_t)sum;
         },
         16)
#undef LANEWISE

TWIN union twin512 twin_load(const void *p)
{
    union twin512 ret;
    memcpy(&ret, p, sizeof ret);
    return ret;
}

/* The aligned ones fault where an address is not. */
TWIN void *twin_aligned(const void *p)
{
    if ((uintptr_t)p % 64 != 0) {
        printf("Bail out! an aligned load or store of 64 bytes at %p\n", p);
        abort();
    }
    return (void *)(uintptr_t)p;
}

TWIN union twin256 twin_load256(const void *p)
{
    union twin256 ret;
    memcpy(&ret, p, sizeof ret);
    return ret;
}

TWIN __mmask16 twin_less32(union twin512 a, union twin512 b)
{
    unsigned ret = 0;
    for (int i = 0; i < 16; i++)
        ret |= (unsigned)(a.s32[i] < b.s32[i]) << i;
    return (__mmask16)ret;
}

TWIN void twin_mask_store(float *p, __mmask16 m, union twin512 v)
{
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            p[i] = v.f32[i];
}

/* Lanes that the mask leaves out are not touched: memory may end before them. */
TWIN union twin512 twin_maskz_load(__mmask16 m, const void *p)
{
    union twin512 ret = {.u32 = {0}};
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            memcpy(&ret.f32[i], (const char *)p + 4 * i, 4);
    return ret;
}

TWIN union twin256 twin_maskz_load16(__mmask16 m, const void *p)
{
    union twin256 ret = {.u16 = {0}};
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            memcpy(&ret.u16[i], (const char *)p + 2 * i, 2);
    return ret;
}

TWIN __m128i twin_narrow8(union twin512 v)
{
    union twin128 ret;
    for (int i = 0; i < 16; i++)
        ret.u8[i] = (uint8_t)v.u32[i];
    return ret.i;
}

TWIN union twin256 twin_add256(union twin256 a, union twin256 b)
{
    union twin256 ret;
    for (int i = 0; i < 8; i++)
        ret.f32[i] = a.f32[i] + b.f32[i];
    return ret;
}

TWIN __mmask16 twin_compare(union twin512 a, union twin512 b, int predicate)
{
    unsigned ret = 0;
    if (predicate != _CMP_NLT_UQ) {
        printf("Bail out! a comparison by predicate %d, which is not written here\n", predicate);
        abort();
    }
    for (int i = 0; i < 16; i++)
        ret |= (unsigned)!(a.f32[i] < b.f32[i]) << i;
    return (__mmask16)ret;
}

/* No instruction: a compiler joins the lanes in an order of its own, and a NaN among numbers would be the result of one but not of
 * another. */
TWIN float twin_reduce_max(union twin512 v)
{
    float max = v.f32[0];
    for (int i = 1; i < 16; i++) {
        if (isnan(v.f32[i]) != isnan(max)) {
            printf("Bail out! the maximum of lanes of which some are NaN\n");
            abort();
        }
        max = v.f32[i] > max ? v.f32[i] : max;
    }
    return max;
}

TWIN uint32_t twin_reduce_max_u32(union twin512 v)
{
    uint32_t max = 0;
    for (int i = 0; i < 16; i++)
        max = v.u32[i] > max ? v.u32[i] : max;
    return max;
}

TWIN int twin_reduce_add32(union twin512 v)
{
    uint32_t sum = 0;
    for (int i = 0; i < 16; i++)
        sum += v.u32[i];
    return (int)sum;
}

#define I(v) ((union twin512){.i = (v)})
#define F(v) ((union twin512){.f = (v)})
#undef _cvtsh_ss
#define _cvtsh_ss(h) sc_f16_to_f32(h)
#undef _mm256_add_ps
#define _mm256_add_ps(a, b) twin_add256((union twin256){.f = (a)}, (union twin256){.f = (b)}).f
#undef _mm256_castps256_ps128
#define _mm256_castps256_ps128(v) ((union twin256){.f = (v)}).half[0]
#undef _mm256_extractf128_ps
#define _mm256_extractf128_ps(v, n) ((union twin256){.f = (v)}).half[n]
#undef _mm256_loadu_si256
#define _mm256_loadu_si256(p) twin_load256(p).i
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16(m, p) twin_maskz_load16(m, p).i
#undef _mm512_abs_ps
#define _mm512_abs_ps(v) twin_abs(F(v)).f
#undef _mm512_add_epi32
#define _mm512_add_epi32(a, b) twin_add32(I(a), I(b)).i
#undef _mm512_add_ps
#define _mm512_add_ps(a, b) twin_add(F(a), F(b)).f
#undef _mm512_and_si512
#define _mm512_and_si512(a, b) twin_and(I(a), I(b)).i
#undef _mm512_broadcast_i32x4
#define _mm512_broadcast_i32x4(v) twin_quarters(v).i
#undef _mm512_castps512_ps256
#define _mm512_castps512_ps256(v) F(v).half[0]
#undef _mm512_castps_si512
#define _mm512_castps_si512(v) F(v).i
#undef _mm512_castsi512_ps
#define _mm512_castsi512_ps(v) I(v).f
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, predicate) twin_compare(F(a), F(b), predicate)
#undef _mm512_cmplt_epi32_mask
#define _mm512_cmplt_epi32_mask(a, b) twin_less32(I(a), I(b))
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8(v) twin_narrow8(I(v))
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(v) twin_floats(I(v)).f
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32(v) twin_widen_s8((union twin128){.i = (v)}).i
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32(v) twin_widen_u16((union twin256){.i = (v)}).i
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32(v) twin_widen_u8((union twin128){.i = (v)}).i
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(v) twin_halves((union twin256){.i = (v)}).f
#undef _mm512_div_ps
#define _mm512_div_ps(a, b) twin_div(F(a), F(b)).f
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32(c, a, b) twin_dpbusd(I(c), I(a), I(b)).i
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(v, n) F(v).half[n]
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps(a, b, c) twin_fma(F(a), F(b), F(c)).f
#undef _mm512_fmsub_ps
#define _mm512_fmsub_ps(a, b, c) twin_fms(F(a), F(b), F(c)).f
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps(a, b, c) twin_fnma(F(a), F(b), F(c)).f
#undef _mm512_load_ps
#define _mm512_load_ps(p) twin_load(twin_aligned(p)).f
#undef _mm512_load_si512
#define _mm512_load_si512(p) twin_load(twin_aligned(p)).i
#undef _mm512_loadu_ps
#define _mm512_loadu_ps(p) twin_load(p).f
#undef _mm512_loadu_si512
#define _mm512_loadu_si512(p) twin_load(p).i
#undef _mm512_mask3_fmadd_ps
#define _mm512_mask3_fmadd_ps(a, b, c, m) twin_mask3_fma(F(a), F(b), F(c), m).f
#undef _mm512_mask_add_ps
#define _mm512_mask_add_ps(s, m, a, b) twin_blend(m, F(s), twin_add(F(a), F(b))).f
#undef _mm512_mask_max_ps
#define _mm512_mask_max_ps(s, m, a, b) twin_blend(m, F(s), twin_max(F(a), F(b))).f
#undef _mm512_mask_sllv_epi32
#define _mm512_mask_sllv_epi32(s, m, a, n) twin_mask_sllv32(I(s), m, I(a), I(n)).i
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps(p, m, v) twin_mask_store(p, m, F(v))
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps(m, p) twin_maskz_load(m, p).f
#undef _mm512_maskz_mov_ps
#define _mm512_maskz_mov_ps(m, v) twin_blend(m, twin_setf(0), F(v)).f
#undef _mm512_maskz_mul_ps
#define _mm512_maskz_mul_ps(m, a, b) twin_blend(m, twin_setf(0), twin_mul(F(a), F(b))).f
#undef _mm512_max_epu32
#define _mm512_max_epu32(a, b) twin_max_u32(I(a), I(b)).i
#undef _mm512_min_ps
#define _mm512_min_ps(a, b) twin_min(F(a), F(b)).f
#undef _mm512_mul_ps
#define _mm512_mul_ps(a, b) twin_mul(F(a), F(b)).f
#undef _mm512_reduce_add_epi32
#define _mm512_reduce_add_epi32(v) twin_reduce_add32(I(v))
#undef _mm512_reduce_max_epu32
#define _mm512_reduce_max_epu32(v) twin_reduce_max_u32(I(v))
#undef _mm512_reduce_max_ps
#define _mm512_reduce_max_ps(v) twin_reduce_max(F(v))
#undef _mm512_set1_epi32
#define _mm512_set1_epi32(v) twin_set32(v).i
#undef _mm512_set1_epi8
#define _mm512_set1_epi8(v) twin_set8(v).i
#undef _mm512_set1_ps
#define _mm512_set1_ps(v) twin_setf(v).f
#undef _mm512_setzero_ps
#define _mm512_setzero_ps() twin_setf(0).f
#undef _mm512_setzero_si512
#define _mm512_setzero_si512() twin_set32(0).i
#undef _mm512_shuffle_epi8
#define _mm512_shuffle_epi8(a, at) twin_shuffle8(I(a), I(at)).i
#undef _mm512_slli_epi16
#define _mm512_slli_epi16(v, n) twin_sll16(I(v), n).i
#undef _mm512_slli_epi32
#define _mm512_slli_epi32(v, n) twin_sll32(I(v), n).i
#undef _mm512_srli_epi16
#define _mm512_srli_epi16(v, n) twin_srl16(I(v), n).i
#undef _mm512_store_ps
#define _mm512_store_ps(p, v) memcpy(twin_aligned(p), &F(v), 64)
#undef _mm512_store_si512
#define _mm512_store_si512(p, v) memcpy(twin_aligned(p), &I(v), 64)
#undef _mm512_storeu_ps
#define _mm512_storeu_ps(p, v) memcpy(p, &F(v), 64)
#undef _mm512_sub_epi32
#define _mm512_sub_epi32(a, b) twin_sub32(I(a), I(b)).i
#undef _mm512_sub_epi8
#define _mm512_sub_epi8(a, b) twin_sub8(I(a), I(b)).i
#undef _mm512_sub_ps
#define _mm512_sub_ps(a, b) twin_sub(F(a), F(b)).f
#undef _mm512_ternarylogic_epi32
#define _mm512_ternarylogic_epi32(a, b, c, table) twin_ternary(I(a), I(b), I(c), table).i
#undef _mm512_xor_si512
#define _mm512_xor_si512(a, b) twin_xor(I(a), I(b)).i

/* --- tiles (tiles.c) ------------------------------------------------------------------------------------------------- */

#undef _tile_loadconfig
#define _tile_loadconfig twin_tile_loadconfig
#undef _tile_release
#define _tile_release twin_tile_release
#undef _tile_zero
#define _tile_zero twin_tile_zero
#undef _tile_loadd
#define _tile_loadd twin_tile_loadd
#undef _tile_stored
#define _tile_stored twin_tile_stored
#undef _tile_dpbssd
#define _tile_dpbssd twin_tile_dpbssd

#endif
