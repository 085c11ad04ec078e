/* Attention for AVX-512. A block's 32 positions are two registers of scores; a dimension of K is loaded once for up to HEADS queries.
 * Values: DIMS dimensions of as many sums stay in registers over a block. */
#include "kernels/x86/avx512_vec.h"

#include <string.h>

#include "kernels/attend_blocks.h"
#include "kernels/fmath.h"
#include "kernels/x86/x86.h"

enum { HEADS = 4, DIMS = 64 };

#define INLINE static inline __attribute__((always_inline))

/* Sixteen stored numbers as floats. */
INLINE __m512 load16(enum kv_type type, const uint8_t *p, size_t at)
{
    if (type == KV_F32)
        return _mm512_loadu_ps(p + 4 * at);
    if (type == KV_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + 2 * at)));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + at))));
}

/* n numbers, a multiple of 32, to floats; the scales of q8_0 stay to be met. */
INLINE void unfold(enum kv_type type, const uint8_t *from, size_t n, float *to, const uint8_t *ahead)
{
    for (size_t i = 0; i < n; i += 32) {
        ask_ahead(ahead ? ahead + kv_bytes(type, i) : NULL, kv_bytes(type, 32));
        _mm512_storeu_ps(to + i, load16(type, from, i));
        _mm512_storeu_ps(to + i + 16, load16(type, from, i + 16));
    }
}

/* q . K of `heads` queries for the 32 positions of one block; scaled: q8_0's scales, 32 dimensions to each. */
INLINE void scores_of_block(enum kv_type elem, bool scaled, const int heads, uint32_t dk, const uint8_t *keys, const uint8_t *scales,
                            const uint8_t *ahead, const float *const *q, float *const *s)
{
    __m512 acc[HEADS][2], part[HEADS][2];
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
        acc[h][0] = acc[h][1] = _mm512_setzero_ps();
    for (uint32_t d0 = 0; d0 < dk; d0 += 32) {
        uint32_t d1 = d0 + 32 < dk ? d0 + 32 : dk;
        if (scaled) {
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++)
                part[h][0] = part[h][1] = _mm512_setzero_ps();
        }
        for (uint32_t d = d0; d < d1; d++) {
            ask_ahead(ahead ? ahead + kv_bytes(elem, (size_t)d * KV_BLOCK) : NULL, kv_bytes(elem, KV_BLOCK));
            __m512 k0 = load16(elem, keys, d * KV_BLOCK), k1 = load16(elem, keys, d * KV_BLOCK + 16);
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++) {
                __m512 v = _mm512_set1_ps(q[h][d]);
                __m512 *to = scaled ? part[h] : acc[h];
                to[0] = _mm512_fmadd_ps(v, k0, to[0]);
                to[1] = _mm512_fmadd_ps(v, k1, to[1]);
            }
        }
        if (scaled) {
            __m512 s0 = load16(KV_F16, scales, d0), s1 = load16(KV_F16, scales, d0 + 16);
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++) {
                acc[h][0] = _mm512_fmadd_ps(part[h][0], s0, acc[h][0]);
                acc[h][1] = _mm512_fmadd_ps(part[h][1], s1, acc[h][1]);
            }
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++) {
        _mm512_storeu_ps(s[h], acc[h][0]);
        _mm512_storeu_ps(s[h] + 16, acc[h][1]);
    }
}

/* The lanes of positions [p, p + 16) that lie in [from, to]. */
static inline __mmask16 lanes_between(uint32_t p, uint32_t from, uint32_t to)
{
    uint32_t low = from > p ? from - p : 0, high = to - p < 15 ? to - p : 15;
    return (__mmask16)(low > high ? 0 : (0xFFFFu << low) & (0xFFFFu >> (15 - high)));
}

/* Scores of one head in s (by position within the tile) become weights; outside [from, to] zeros. */
static void weights_of_tile(const struct attention *a, float *s, uint32_t from, uint32_t to, float *ret_m, float *ret_l)
{
    uint32_t tile = from / ATTENTION_TILE * ATTENTION_TILE;
    const __m512 scale = _mm512_set1_ps(a->scale), cap = _mm512_set1_ps(a->softcap);
    __m512 max = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (uint32_t p = from / 16 * 16; p <= to; p += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(s + p - tile), scale);
        if (a->softcap != 0)
            v = _mm512_mul_ps(cap, tanh16(_mm512_div_ps(v, cap)));
        _mm512_storeu_ps(s + p - tile, v);
        max = _mm512_mask_max_ps(max, lanes_between(p, from, to), v, max);
    }
    float m = _mm512_reduce_max_ps(max);
    for (uint32_t p = from / 16 * 16; p <= to; p += 16) {
        __m512 e = _mm512_maskz_mov_ps(lanes_between(p, from, to), exp16(_mm512_sub_ps(_mm512_loadu_ps(s + p - tile), _mm512_set1_ps(m))));
        sum = _mm512_add_ps(sum, e);
        _mm512_storeu_ps(s + p - tile, e);
    }
    *ret_m = m;
    *ret_l = join16(sum);
}

/* o += weight * V for n positions from `slot` on, `heads` queries, and `vecs` times 16 dimensions from d0 on; o has room for all 16. */
INLINE void values_of_dims(enum kv_type elem, bool scaled, const int heads, const int vecs, uint32_t dv, uint32_t d0, const uint8_t *values,
                           const uint8_t *scales, uint32_t groups, const uint8_t *ahead, uint32_t slot, uint32_t n, const float *const *weight,
                           float *const *o)
{
    __m512 acc[HEADS][DIMS / 16];
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            acc[h][i] = _mm512_loadu_ps(o[h] + d0 + 16 * i);
    for (uint32_t p = 0; p < n; p++) {
        size_t at = (size_t)(slot + p) * dv + d0;
        const uint8_t *scale_at = scales + 2 * ((slot + p) * groups + d0 / 32);
        ask_ahead(ahead ? ahead + kv_bytes(elem, at) : NULL, kv_bytes(elem, DIMS));
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++) {
            __m512 v = load16(elem, values, at + 16 * (size_t)i); /* past the head's end: within the block's bytes, and not used */
            float scale = 1;
            if (scaled) {
                uint16_t half;
                memcpy(&half, scale_at + i / 2 * 2, sizeof half);
                scale = _cvtsh_ss(half);
            }
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++)
                acc[h][i] = _mm512_fmadd_ps(_mm512_set1_ps(scaled ? weight[h][p] * scale : weight[h][p]), v, acc[h][i]);
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            _mm512_storeu_ps(o[h] + d0 + 16 * i, acc[h][i]);
}

INLINE void values_of_block(enum kv_type elem, bool scaled, const int heads, uint32_t dv, const uint8_t *values, const uint8_t *scales,
                            uint32_t groups, const uint8_t *ahead, uint32_t slot, uint32_t n, const float *const *weight, float *const *o)
{
    for (uint32_t d = 0; d < dv; d += DIMS)
        switch (((dv - d < DIMS ? dv - d : DIMS) + 15) / 16) {
        case 1: values_of_dims(elem, scaled, heads, 1, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        case 2: values_of_dims(elem, scaled, heads, 2, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        case 3: values_of_dims(elem, scaled, heads, 3, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        default: values_of_dims(elem, scaled, heads, 4, dv, d, values, scales, groups, ahead, slot, n, weight, o); break;
        }
}

#include "kernels/attend.inc"

void avx512_init_attention(struct kernels *k)
{
    k->attend = attend;
    k->attend_join = attend_join;
}
