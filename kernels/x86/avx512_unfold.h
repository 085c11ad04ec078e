#ifndef KERNELS_X86_AVX512_UNFOLD_H
#define KERNELS_X86_AVX512_UNFOLD_H

/* A unit of LAYOUT_R16 (r16.h) unfolded into registers of 16 dword lanes, lane = weight row: eight k-groups of unsigned bytes,
 * q + offset, and the scales and minimums of the 16 rows. For the AVX-512 and AMX files only. `type` is a constant wherever
 * these are called, so that nothing of a switch is left. */

#include <immintrin.h>

#include "kernels/r16.h"

#ifdef __AVX512F__ /* only files of that level see it */

#define UNFOLD static inline __attribute__((always_inline))

struct unfolded {
    __m512i kg[8];
    __m512 scale[2], min[2]; /* [1]: of the second 16 where the group is 16; min of K-quants is what they subtract */
};

UNFOLD __m512 halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

UNFOLD __m512 signed_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

UNFOLD __m512 floats_of(__m128i bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

UNFOLD __m512i nibbles(const uint8_t *p, int g)
{
    __m512i v = _mm512_loadu_si512(p + 64 * (g % 4));
    return _mm512_and_si512(g < 4 ? v : _mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

/* Bits at `from` of each byte, brought to `to`; what comes with them from other bytes is for the caller to mask. */
UNFOLD __m512i shifted(__m512i v, int from, int to)
{
    return from <= to ? _mm512_slli_epi16(v, (unsigned)(to - from)) : _mm512_srli_epi16(v, (unsigned)(from - to));
}

/* kg with the one-bit line's bits of k-group g at `to`. */
UNFOLD __m512i with_one_bit(__m512i kg, const uint8_t *p, int g, int to)
{
    return _mm512_ternarylogic_epi32(kg, shifted(_mm512_loadu_si512(p), g, to), _mm512_set1_epi8((char)(1 << to)), 0xF8); /* a | (b & c) */
}

/* kg with the two-bit lines' bits of k-group g at `to`. */
UNFOLD __m512i with_two_bits(__m512i kg, const uint8_t *p, int g, int to)
{
    return _mm512_ternarylogic_epi32(kg, shifted(_mm512_loadu_si512(p + 64 * (g / 4)), 2 * (g % 4), to), _mm512_set1_epi8((char)(3 << to)), 0xF8);
}

UNFOLD __m128i iq4_table(void) /* values + 128 */
{
    return _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166, (char)181, (char)197, (char)217, (char)241);
}

UNFOLD __m128i mxfp4_table(void) /* values + 12 */
{
    return _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
}

/* 2^(e - 128), as the scalar version builds it. */
UNFOLD __m512 mxfp4_scale(const uint8_t *p)
{
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    __m512i bits = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(bits, small, _mm512_set1_epi32(0x200000), e));
}

UNFOLD void unfold_scales(enum quant_type type, const uint8_t *head, const uint8_t *s, struct unfolded *u)
{
    switch (type) {
    case QUANT_Q4_1:
    case QUANT_Q5_1:
        u->scale[0] = halves(s);
        u->min[0] = halves(s + 32);
        break;
    case QUANT_Q4_K:
    case QUANT_Q5_K:
        u->scale[0] = _mm512_mul_ps(halves(head), floats_of(_mm_loadu_si128((const __m128i *)s)));
        u->min[0] = _mm512_mul_ps(halves(head + 32), floats_of(_mm_loadu_si128((const __m128i *)(s + 16))));
        break;
    case QUANT_Q2_K:
        for (int h = 0; h < 2; h++) {
            __m128i both = _mm_loadu_si128((const __m128i *)(s + 16 * h)), low = _mm_set1_epi8(15);
            u->scale[h] = _mm512_mul_ps(halves(head), floats_of(_mm_and_si128(both, low)));
            u->min[h] = _mm512_mul_ps(halves(head + 32), floats_of(_mm_and_si128(_mm_srli_epi16(both, 4), low)));
        }
        break;
    case QUANT_Q3_K:
    case QUANT_Q6_K:
        for (int h = 0; h < 2; h++)
            u->scale[h] = _mm512_mul_ps(halves(head), signed_bytes(s + 16 * h));
        break;
    case QUANT_IQ4_XS: u->scale[0] = _mm512_mul_ps(halves(head), signed_bytes(s)); break;
    case QUANT_MXFP4: u->scale[0] = mxfp4_scale(s); break;
    default: u->scale[0] = halves(s); break;
    }
}

/* K-group g of a unit's integers. */
UNFOLD __m512i unfold_group(enum quant_type type, const uint8_t *p, int g)
{
    __m512i kg;
    if (type == QUANT_Q8_0)
        return _mm512_loadu_si512(p + 64 * g);
    if (type == QUANT_Q2_K)
        return with_two_bits(_mm512_setzero_si512(), p, g, 0);
    if (type == QUANT_Q3_K)
        return with_one_bit(with_two_bits(_mm512_setzero_si512(), p, g, 0), p + 128, g, 2);
    kg = nibbles(p, g);
    if (type == QUANT_Q5_0 || type == QUANT_Q5_1 || type == QUANT_Q5_K)
        return with_one_bit(kg, p + 256, g, 4);
    if (type == QUANT_Q6_K)
        return with_two_bits(kg, p + 256, g, 4);
    if (type == QUANT_IQ4_NL || type == QUANT_IQ4_XS)
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(iq4_table()), kg);
    if (type == QUANT_MXFP4)
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(mxfp4_table()), kg);
    return kg;
}

UNFOLD void unfold_ints(enum quant_type type, const uint8_t *p, __m512i kg[8])
{
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++)
        kg[g] = unfold_group(type, p, g);
}

/* Some units of a panel, unfolded once for all tiles of rows that meet them. */
enum { UNFOLD_UNITS = 8 }; /* those of a K-quant's head */
struct unfolded_units {
    __m512i kg[UNFOLD_UNITS][8];                        /* bytes q + offset - less */
    __m512 scale[2 * UNFOLD_UNITS], min[2 * UNFOLD_UNITS]; /* of groups; minimums have the sign that they are added with */
};

UNFOLD void unfold_units(enum quant_type type, int less, const uint8_t *panel, size_t unit, uint32_t units, struct unfolded_units *ret)
{
    const struct r16_form f = r16_forms[type];
    const bool subtracts = f.has_min && type != QUANT_Q4_1 && type != QUANT_Q5_1;
    const int per_unit = 32 / f.group;
    struct unfolded u;
    for (uint32_t i = 0; i < units; i++) {
        const uint8_t *ints = panel + r16_ints_at(&f, unit + i);
        unfold_scales(type, panel + (f.head ? r16_head_at(&f, unit + i) : 0), panel + r16_scales_at(&f, unit + i), &u);
        unfold_ints(type, ints, u.kg);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++)
            ret->kg[i][g] = less ? _mm512_sub_epi8(u.kg[g], _mm512_set1_epi8((char)less)) : u.kg[g];
#pragma GCC unroll 2
        for (int h = 0; h < per_unit; h++) {
            ret->scale[per_unit * (int)i + h] = u.scale[h];
            if (f.has_min) /* fma(-min, sum, acc) is what fnmadd rounds; the product by -1 keeps a zero's sign right, too */
                ret->min[per_unit * (int)i + h] = subtracts ? _mm512_mul_ps(u.min[h], _mm512_set1_ps(-1.0f)) : u.min[h];
        }
    }
}

#undef UNFOLD

#endif /* __AVX512F__ */

#endif
