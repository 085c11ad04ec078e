/* Attention for AVX2. A block's 32 positions are four registers of scores; a dimension of K is loaded (and widened) once for up
 * to HEADS heads of the group. Values: DIMS dimensions of the heads' sums stay in registers over a whole tile. */
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

/* q . K of `heads` heads for the 32 positions of one block. */
INLINE void scores_of_block(enum kv_type type, const int heads, const struct attend_job *job, const struct kv_layout *l, const uint8_t *head,
                            const uint8_t *next, const float *q, float *s)
{
    uint32_t dk = job->attn->head_dim_k;
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
                part[h][i] = type == KV_Q8_0 ? _mm256_setzero_ps() : acc[h][i];
        for (uint32_t d = d0; d < d1; d++) {
            ask_ahead(type, l, head, next, d);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m256 k = load8(type, head + l->k, d * KV_BLOCK + 8 * (size_t)i);
#pragma GCC unroll 3
                for (int h = 0; h < heads; h++)
                    part[h][i] = _mm256_fmadd_ps(_mm256_set1_ps(q[(uint32_t)h * dk + d]), k, part[h][i]);
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m256 scale = type == KV_Q8_0 ? load8(KV_F16, head + l->k_scale, d0 + 8 * (size_t)i) : _mm256_setzero_ps(); /* 32 to a group */
#pragma GCC unroll 3
            for (int h = 0; h < heads; h++)
                acc[h][i] = type == KV_Q8_0 ? _mm256_fmadd_ps(part[h][i], scale, acc[h][i]) : part[h][i];
        }
    }
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(s + h * ATTENTION_TILE + 8 * i, acc[h][i]);
}

/* The lanes of positions [p, p + 8) that lie in [from, to]. */
static inline __m256 lanes_between(uint32_t p, uint32_t from, uint32_t to)
{
    __m256i at = _mm256_add_epi32(_mm256_set1_epi32((int)p), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)from), at), _mm256_cmpgt_epi32(at, _mm256_set1_epi32((int)to)));
    return _mm256_castsi256_ps(_mm256_xor_si256(outside, _mm256_set1_epi32(-1)));
}

/* Scores of one head in s (by position within the tile) become weights; outside [from, to] zeros. */
static void weights_of_tile(const struct attention *a, float *s, uint32_t from, uint32_t to, float *ret_m, float *ret_l)
{
    uint32_t tile = from / ATTENTION_TILE * ATTENTION_TILE, first = from / 16 * 16;
    const __m256 scale = _mm256_set1_ps(a->scale), cap = _mm256_set1_ps(a->softcap), lowest = _mm256_set1_ps(-INFINITY);
    __m256 max = lowest, sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t p = first; p <= to; p += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(s + p - tile), scale);
        if (a->softcap != 0)
            v = _mm256_mul_ps(cap, tanh8(_mm256_div_ps(v, cap)));
        _mm256_storeu_ps(s + p - tile, v);
        max = _mm256_max_ps(_mm256_blendv_ps(lowest, v, lanes_between(p, from, to)), max); /* what is no number is passed over */
    }
    float m = max8(max);
    for (uint32_t p = first; p <= to; p += 16)
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t at = p + 8 * i;
            __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + at - tile), _mm256_set1_ps(m)));
            e = _mm256_and_ps(lanes_between(at, from, to), e);
            sum[i] = _mm256_add_ps(sum[i], e);
            _mm256_storeu_ps(s + at - tile, e);
        }
    *ret_m = m;
    *ret_l = join8x2(sum[0], sum[1]);
}

/* o = sum of weight * V over [from, to], for `heads` heads and up to `vecs` times 8 dimensions from d0 on. */
INLINE void values_of_tile(enum kv_type type, const int heads, const int vecs, const struct attend_job *job, const struct kv_layout *l, uint32_t d0,
                           uint32_t from, uint32_t to, const float *s, float *o, __m256i last)
{
    uint32_t dv = job->attn->head_dim_v, tile = from / ATTENTION_TILE * ATTENTION_TILE;
    __m256 acc[HEADS][VECS];
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            acc[h][i] = _mm256_setzero_ps();
    for (uint32_t p = from; p <= to;) {
        const uint8_t *head = block_head(job, l, p), *values = head + l->v;
        uint32_t end = p / KV_BLOCK * KV_BLOCK + KV_BLOCK - 1;
        end = end < to ? end : to;
        for (; p <= end; p++) {
            size_t at = (size_t)(p % KV_BLOCK) * dv + d0;
            __m256 w[HEADS];
            float scale = 1;
            if (type == KV_Q8_0) { /* DIMS is one scale group */
                uint16_t half;
                memcpy(&half, head + l->v_scale + 2 * ((p % KV_BLOCK) * l->v_groups + d0 / 32), sizeof half);
                scale = _cvtsh_ss(half);
            }
#pragma GCC unroll 3
            for (int h = 0; h < heads; h++) {
                float weight = s[h * ATTENTION_TILE + (int)(p - tile)];
                w[h] = _mm256_set1_ps(type == KV_Q8_0 ? weight * scale : weight);
            }
#pragma GCC unroll 4
            for (int i = 0; i < vecs; i++) {
                __m256 v = load8(type, values, at + 8 * (size_t)i); /* past the head's end: within the block's bytes, masked below */
#pragma GCC unroll 3
                for (int h = 0; h < heads; h++)
                    acc[h][i] = _mm256_fmadd_ps(w[h], v, acc[h][i]);
            }
        }
    }
#pragma GCC unroll 3
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int i = 0; i < vecs; i++)
            _mm256_maskstore_ps(o + (size_t)h * dv + d0 + 8 * (size_t)i, i == vecs - 1 ? last : _mm256_set1_epi32(-1), acc[h][i]);
}

INLINE void values_of_heads(enum kv_type type, const int heads, const struct attend_job *job, const struct kv_layout *l, uint32_t from, uint32_t to,
                            const float *s, float *o)
{
    uint32_t dv = job->attn->head_dim_v;
    for (uint32_t d = 0; d < dv; d += DIMS) {
        uint32_t n = dv - d < DIMS ? dv - d : DIMS;
        __m256i last = first8(n % 8 ? n % 8 : 8);
        switch ((n + 7) / 8) {
        case 1: values_of_tile(type, heads, 1, job, l, d, from, to, s, o, last); break;
        case 2: values_of_tile(type, heads, 2, job, l, d, from, to, s, o, last); break;
        case 3: values_of_tile(type, heads, 3, job, l, d, from, to, s, o, last); break;
        default: values_of_tile(type, heads, 4, job, l, d, from, to, s, o, last); break;
        }
    }
}

#include "kernels/attend.inc"

void avx2_init_attention(struct kernels *k)
{
    k->attend = attend;
}
