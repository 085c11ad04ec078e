/* Attention for AVX-512. A block's 32 positions are two registers of scores; a dimension of K is loaded (and widened) once for
 * up to HEADS heads of the group. Values: a run of DIMS dimensions of the heads' sums stays in registers over a whole tile. */
#include "kernels/x86/avx512_vec.h"

#include <string.h>

#include "kernels/attend_blocks.h"
#include "kernels/fmath.h"
#include "kernels/x86/x86.h"

enum { HEADS = ATTEND_HEADS, DIMS = 64 };

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

/* q . K of `heads` heads for the 32 positions of one block. */
INLINE void scores_of_block(enum kv_type type, const int heads, const struct attend_job *job, const struct kv_layout *l, const uint8_t *head,
                            const uint8_t *next, const float *q, float *s)
{
    uint32_t dk = job->attn->head_dim_k;
    __m512 acc[HEADS][2], part[HEADS][2];
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
        acc[h][0] = acc[h][1] = _mm512_setzero_ps();
    for (uint32_t d0 = 0; d0 < dk; d0 += 32) {
        uint32_t d1 = d0 + 32 < dk ? d0 + 32 : dk;
        if (type == KV_Q8_0) {
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++)
                part[h][0] = part[h][1] = _mm512_setzero_ps();
        }
        for (uint32_t d = d0; d < d1; d++) {
            ask_ahead(type, l, head, next, d);
            __m512 k0 = load16(type, head + l->k, d * KV_BLOCK), k1 = load16(type, head + l->k, d * KV_BLOCK + 16);
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++) {
                __m512 v = _mm512_set1_ps(q[(uint32_t)h * dk + d]);
                __m512 *to = type == KV_Q8_0 ? part[h] : acc[h];
                to[0] = _mm512_fmadd_ps(v, k0, to[0]);
                to[1] = _mm512_fmadd_ps(v, k1, to[1]);
            }
        }
        if (type == KV_Q8_0) {
            __m512 s0 = load16(KV_F16, head + l->k_scale, d0), s1 = load16(KV_F16, head + l->k_scale, d0 + 16); /* 32 to a group */
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++) {
                acc[h][0] = _mm512_fmadd_ps(part[h][0], s0, acc[h][0]);
                acc[h][1] = _mm512_fmadd_ps(part[h][1], s1, acc[h][1]);
            }
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++) {
        _mm512_storeu_ps(s + h * ATTENTION_TILE, acc[h][0]);
        _mm512_storeu_ps(s + h * ATTENTION_TILE + 16, acc[h][1]);
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

/* o = sum of weight * V over [from, to], for `heads` heads and up to `vecs` times 16 dimensions from d0 on. */
INLINE void values_of_tile(enum kv_type type, const int heads, const int vecs, const struct attend_job *job, const struct kv_layout *l, uint32_t d0,
                           uint32_t from, uint32_t to, const float *s, float *o, __mmask16 last)
{
    uint32_t dv = job->attn->head_dim_v, tile = from / ATTENTION_TILE * ATTENTION_TILE;
    __m512 acc[HEADS][DIMS / 16];
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            acc[h][i] = _mm512_setzero_ps();
    for (uint32_t p = from; p <= to;) {
        const uint8_t *head = block_head(job, l, p), *values = head + l->v;
        uint32_t end = p / KV_BLOCK * KV_BLOCK + KV_BLOCK - 1;
        end = end < to ? end : to;
        for (; p <= end; p++) {
            size_t at = (size_t)(p % KV_BLOCK) * dv + d0;
            const uint8_t *scales = head + l->v_scale + 2 * ((p % KV_BLOCK) * l->v_groups + d0 / 32);
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) {
                __m512 v = load16(type, values, at + 16 * (size_t)i); /* past the head's end: within the block's bytes, masked below */
                float scale = 1;
                if (type == KV_Q8_0) {
                    uint16_t half;
                    memcpy(&half, scales + i / 2 * 2, sizeof half);
                    scale = _cvtsh_ss(half);
                }
#pragma GCC unroll 4
                for (int h = 0; h < heads; h++) {
                    float w = s[h * ATTENTION_TILE + (int)(p - tile)];
                    acc[h][i] = _mm512_fmadd_ps(_mm512_set1_ps(type == KV_Q8_0 ? w * scale : w), v, acc[h][i]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            _mm512_mask_storeu_ps(o + (size_t)h * dv + d0 + 16 * (size_t)i, i == vecs - 1 ? last : (__mmask16)0xFFFF, acc[h][i]);
}

INLINE void values_of_heads(enum kv_type type, const int heads, const struct attend_job *job, const struct kv_layout *l, uint32_t from, uint32_t to,
                            const float *s, float *o)
{
    uint32_t dv = job->attn->head_dim_v;
    for (uint32_t d = 0; d < dv; d += DIMS) {
        uint32_t n = dv - d < DIMS ? dv - d : DIMS;
        __mmask16 last = first_lanes(n % 16 ? n % 16 : 16);
        switch ((n + 15) / 16) {
        case 1: values_of_tile(type, heads, 1, job, l, d, from, to, s, o, last); break;
        case 2: values_of_tile(type, heads, 2, job, l, d, from, to, s, o, last); break;
        case 3: values_of_tile(type, heads, 3, job, l, d, from, to, s, o, last); break;
        default: values_of_tile(type, heads, 4, job, l, d, from, to, s, o, last); break;
        }
    }
}

#include "kernels/attend.inc"

void avx512_init_attention(struct kernels *k)
{
    k->attend = attend;
}
