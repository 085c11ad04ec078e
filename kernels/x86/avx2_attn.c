/* Attention for AVX2. A block's 32 positions are four registers of scores; a dimension of K is loaded once for up to HEADS queries.
 * Values: DIMS dimensions of as many sums stay in registers over a block. */
#include "kernels/x86/avx2_vec.h"

#include <string.h>

#include "kernels/attend_blocks.h"
#include "kernels/fmath.h"
#include "kernels/x86/x86.h"

enum { HEADS = 3, DIMS = 32, VECS = DIMS / 8 };

#define INLINE static inline __attribute__((always_inline))

/* Eight stored numbers as floats. */
INLINE __m256 load8(enum kv_type type, const uint8_t *p, size_t at)
{
    if (type == KV_F32)
        return _mm256_loadu_ps((const float *)(const void *)(p + 4 * at));
    if (type == KV_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 2 * at)));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + at))));
}

/* n numbers, a multiple of 32, to floats; the scales of q8_0 stay to be met. */
INLINE void unfold(enum kv_type type, const uint8_t *from, size_t n, float *to, const uint8_t *ahead)
{
    for (size_t i = 0; i < n; i += 32) {
        ask_ahead(ahead ? ahead + kv_bytes(type, i) : NULL, kv_bytes(type, 32));
#pragma GCC unroll 4
        for (size_t k = 0; k < 32; k += 8)
            _mm256_storeu_ps(to + i + k, load8(type, from, i + k));
    }
}

/* q . K of `heads` queries for the 32 positions of one block; scaled: q8_0's scales, 32 dimensions to each. */
INLINE void scores_of_block(enum kv_type elem, bool scaled, const int heads, uint32_t dk, const uint8_t *keys, const uint8_t *scales,
                            const uint8_t *ahead, const float *const *q, float *const *s)
{
    __m256 acc[HEADS][4], part[HEADS][4];
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            acc[h][i] = _mm256_setzero_ps();
    for (uint32_t d0 = 0; d0 < dk; d0 += 32) {
        uint32_t d1 = d0 + 32 < dk ? d0 + 32 : dk;
#pragma GCC unroll 3
        for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                part[h][i] = scaled ? _mm256_setzero_ps() : acc[h][i];
        for (uint32_t d = d0; d < d1; d++) {
            ask_ahead(ahead ? ahead + kv_bytes(elem, (size_t)d * KV_BLOCK) : NULL, kv_bytes(elem, KV_BLOCK));
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m256 k = load8(elem, keys, d * KV_BLOCK + 8 * (size_t)i);
#pragma GCC unroll 3
                for (int h = 0; h < heads; h++)
                    part[h][i] = _mm256_fmadd_ps(_mm256_set1_ps(q[h][d]), k, part[h][i]);
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m256 scale = scaled ? load8(KV_F16, scales, d0 + 8 * (size_t)i) : _mm256_setzero_ps();
#pragma GCC unroll 3
            for (int h = 0; h < heads; h++)
                acc[h][i] = scaled ? _mm256_fmadd_ps(part[h][i], scale, acc[h][i]) : part[h][i];
        }
    }
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(s[h] + 8 * i, acc[h][i]);
}

/* The lanes of positions [p, p + 8) that lie in [from, to]. */
static inline __m256 lanes_between(uint32_t p, uint32_t from, uint32_t to)
{
    __m256i at = _mm256_add_epi32(_mm256_set1_epi32((int)p), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)from), at), _mm256_cmpgt_epi32(at, _mm256_set1_epi32((int)to)));
    return _mm256_castsi256_ps(_mm256_xor_si256(outside, _mm256_set1_epi32(-1)));
}

/* whole: [from, to] is made of whole sixteens, and nothing need be left out. */
INLINE void weights_of_span(const bool whole, const struct attention *a, float *s, uint32_t from, uint32_t to, float *ret_m, float *ret_l)
{
    uint32_t tile = from / ATTENTION_TILE * ATTENTION_TILE, first = from / 16 * 16;
    const __m256 scale = _mm256_set1_ps(a->scale), cap = _mm256_set1_ps(a->softcap), lowest = _mm256_set1_ps(-INFINITY);
    __m256 max[2] = {lowest, lowest}, sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t p = first; p <= to; p += 16)
#pragma GCC unroll 2
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t at = p + 8 * i;
            __m256 v = _mm256_mul_ps(_mm256_loadu_ps(s + at - tile), scale);
            if (a->softcap != 0)
                v = _mm256_mul_ps(cap, tanh8(_mm256_div_ps(v, cap)));
            _mm256_storeu_ps(s + at - tile, v);
            if (!whole)
                v = _mm256_blendv_ps(lowest, v, lanes_between(at, from, to));
            max[i] = _mm256_max_ps(v, max[i]); /* what is no number is passed over */
        }
    float m = max8(_mm256_max_ps(max[0], max[1]));
    for (uint32_t p = first; p <= to; p += 16)
#pragma GCC unroll 2
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t at = p + 8 * i;
            __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + at - tile), _mm256_set1_ps(m)));
            if (!whole)
                e = _mm256_and_ps(lanes_between(at, from, to), e);
            sum[i] = _mm256_add_ps(sum[i], e);
            _mm256_storeu_ps(s + at - tile, e);
        }
    *ret_m = m;
    *ret_l = join8x2(sum[0], sum[1]);
}

/* Scores of one query in s (by position within the tile) become weights; outside [from, to] zeros. */
static void weights_of_tile(const struct attention *a, float *s, uint32_t from, uint32_t to, float *ret_m, float *ret_l)
{
    if (from % 16 == 0 && to % 16 == 15)
        weights_of_span(true, a, s, from, to, ret_m, ret_l);
    else
        weights_of_span(false, a, s, from, to, ret_m, ret_l);
}

/* o += weight * V for n positions from `slot` on, `heads` queries, and `vecs` times 8 dimensions from d0 on; o has room for all 8. */
INLINE void values_of_dims(enum kv_type elem, bool scaled, const int heads, const int vecs, uint32_t dv, uint32_t d0, const uint8_t *values,
                           const uint8_t *scales, uint32_t groups, const uint8_t *ahead, uint32_t slot, uint32_t n, const float *const *weight,
                           float *const *o)
{
    __m256 acc[HEADS][VECS];
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            acc[h][i] = _mm256_loadu_ps(o[h] + d0 + 8 * i);
    for (uint32_t p = 0; p < n; p++) {
        size_t at = (size_t)(slot + p) * dv + d0;
        __m256 w[HEADS];
        float scale = 1;
        ask_ahead(ahead ? ahead + kv_bytes(elem, at) : NULL, kv_bytes(elem, DIMS));
        if (scaled) { /* DIMS is one scale group */
            uint16_t half;
            memcpy(&half, scales + 2 * ((slot + p) * groups + d0 / 32), sizeof half);
            scale = _cvtsh_ss(half);
        }
#pragma GCC unroll 3
        for (int h = 0; h < heads; h++)
            w[h] = _mm256_set1_ps(scaled ? weight[h][p] * scale : weight[h][p]);
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) {
            __m256 v = load8(elem, values, at + 8 * (size_t)i); /* past the head's end: within the block's bytes, and not used */
#pragma GCC unroll 3
            for (int h = 0; h < heads; h++)
                acc[h][i] = _mm256_fmadd_ps(w[h], v, acc[h][i]);
        }
    }
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            _mm256_storeu_ps(o[h] + d0 + 8 * i, acc[h][i]);
}

INLINE void values_of_block(enum kv_type elem, bool scaled, const int heads, uint32_t dv, const uint8_t *values, const uint8_t *scales,
                            uint32_t groups, const uint8_t *ahead, uint32_t slot, uint32_t n, const float *const *weight, float *const *o)
{
    for (uint32_t d = 0; d < dv; d += DIMS)
        switch (((dv - d < DIMS ? dv - d : DIMS) + 7) / 8) {
        case 1: values_of_dims(elem, scaled, heads, 1, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        case 2: values_of_dims(elem, scaled, heads, 2, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        case 3: values_of_dims(elem, scaled, heads, 3, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        default: values_of_dims(elem, scaled, heads, 4, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        }
}

#include "kernels/attend.inc"

void avx2_init_attention(struct kernels *k)
{
    k->attend = attend;
    k->attend_join = attend_join;
}
