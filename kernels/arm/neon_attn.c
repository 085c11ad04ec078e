/* Attention for NEON. A block's 32 positions are eight registers of scores; a dimension of K is loaded once for up to HEADS queries.
 * Values: DIMS dimensions of as many sums stay in registers over a block. */
#include "kernels/arm/neon_vec.h"

#include "kernels/arm/arm.h"
#include "kernels/attend_blocks.h"
#include "kernels/fmath.h"

enum { HEADS = 2, DIMS = 32, VECS = DIMS / 4, SCORES = KV_BLOCK / 4 };

#define INLINE static inline __attribute__((always_inline))

/* Four stored numbers as floats. */
INLINE float32x4_t load4(enum kv_type type, const uint8_t *p, size_t at)
{
    if (type == KV_F32)
        return vld1q_f32((const float *)(const void *)(p + 4 * at));
    if (type == KV_F16)
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 2 * at)));
    uint32_t four;
    memcpy(&four, p + at, sizeof four);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}

/* n numbers, a multiple of 32, to floats; the scales of q8_0 stay to be met. */
INLINE void unfold(enum kv_type type, const uint8_t *from, size_t n, float *to, const uint8_t *ahead)
{
    for (size_t i = 0; i < n; i += 32) {
        ask_ahead(ahead ? ahead + kv_bytes(type, i) : NULL, kv_bytes(type, 32));
#pragma GCC unroll 8
        for (size_t k = 0; k < 32; k += 4)
            vst1q_f32(to + i + k, load4(type, from, i + k));
    }
}

/* q . K of `heads` queries for the 32 positions of one block; scaled: q8_0's scales, 32 dimensions to each. */
INLINE void scores_of_block(enum kv_type elem, bool scaled, const int heads, uint32_t dk, const uint8_t *keys, const uint8_t *scales,
                            const uint8_t *ahead, const float *const *q, float *const *s)
{
    float32x4_t acc[HEADS][SCORES], part[HEADS][SCORES];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < SCORES; i++)
            acc[h][i] = vdupq_n_f32(0);
    for (uint32_t d0 = 0; d0 < dk; d0 += 32) {
        uint32_t d1 = d0 + 32 < dk ? d0 + 32 : dk;
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < SCORES; i++)
                part[h][i] = scaled ? vdupq_n_f32(0) : acc[h][i];
        for (uint32_t d = d0; d < d1; d++) {
            ask_ahead(ahead ? ahead + kv_bytes(elem, (size_t)d * KV_BLOCK) : NULL, kv_bytes(elem, KV_BLOCK));
#pragma GCC unroll 8
            for (int i = 0; i < SCORES; i++) {
                float32x4_t k = load4(elem, keys, d * KV_BLOCK + 4 * (size_t)i);
#pragma GCC unroll 2
                for (int h = 0; h < heads; h++)
                    part[h][i] = vfmaq_f32(part[h][i], vdupq_n_f32(q[h][d]), k);
            }
        }
        for (int i = 0; i < SCORES; i++) {
            float32x4_t scale = scaled ? load4(KV_F16, scales, d0 + 4 * (size_t)i) : vdupq_n_f32(0);
            for (int h = 0; h < heads; h++)
                acc[h][i] = scaled ? vfmaq_f32(acc[h][i], part[h][i], scale) : part[h][i];
        }
    }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < SCORES; i++)
            vst1q_f32(s[h] + 4 * i, acc[h][i]);
}

/* The lanes of positions [p, p + 4) that lie in [from, to]. */
static inline uint32x4_t lanes_between(uint32_t p, uint32_t from, uint32_t to)
{
    static const uint32_t lane[4] = {0, 1, 2, 3};
    uint32x4_t at = vaddq_u32(vdupq_n_u32(p), vld1q_u32(lane));
    return vandq_u32(vcgeq_u32(at, vdupq_n_u32(from)), vcleq_u32(at, vdupq_n_u32(to)));
}

/* Scores of one head in s (by position within the tile) become weights; outside [from, to] zeros. */
static void weights_of_tile(const struct attention *a, float *s, uint32_t from, uint32_t to, float *ret_m, float *ret_l)
{
    uint32_t tile = from / ATTENTION_TILE * ATTENTION_TILE, first = from / 16 * 16;
    const float32x4_t scale = vdupq_n_f32(a->scale), cap = vdupq_n_f32(a->softcap), lowest = vdupq_n_f32(-INFINITY);
    float32x4_t max = lowest, sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (uint32_t p = first; p <= to; p += 4) {
        float32x4_t v = vmulq_f32(vld1q_f32(s + p - tile), scale);
        if (a->softcap != 0)
            v = vmulq_f32(cap, tanh4(vdivq_f32(v, cap)));
        vst1q_f32(s + p - tile, v);
        v = vbslq_f32(lanes_between(p, from, to), v, lowest);
        max = vbslq_f32(vcgtq_f32(v, max), v, max); /* what is no number is passed over */
    }
    float m = vmaxvq_f32(max);
    for (uint32_t p = first; p <= to; p += 16)
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t at = p + 4 * i;
            float32x4_t e = exp4(vsubq_f32(vld1q_f32(s + at - tile), vdupq_n_f32(m)));
            e = vreinterpretq_f32_u32(vandq_u32(lanes_between(at, from, to), vreinterpretq_u32_f32(e)));
            sum[i] = vaddq_f32(sum[i], e);
            vst1q_f32(s + at - tile, e);
        }
    *ret_m = m;
    *ret_l = join4x4(sum);
}

/* o += weight * V for count positions from `slot` on, `heads` queries, and `vecs` times 4 dimensions from d0 on; o has room for all. */
INLINE void values_of_dims(enum kv_type elem, bool scaled, const int heads, const int vecs, uint32_t dv, uint32_t d0, const uint8_t *values,
                           const uint8_t *scales, uint32_t groups, const uint8_t *ahead, uint32_t slot, uint32_t count, const float *const *weight,
                           float *const *o)
{
    float32x4_t acc[HEADS][VECS];
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < vecs; i++)
            acc[h][i] = vld1q_f32(o[h] + d0 + 4 * i);
    for (uint32_t p = 0; p < count; p++) {
        size_t at = (size_t)(slot + p) * dv + d0;
        float32x4_t w[HEADS];
        float scale = 1;
        ask_ahead(ahead ? ahead + kv_bytes(elem, at) : NULL, kv_bytes(elem, DIMS));
        if (scaled) { /* DIMS is one scale group */
            uint16_t half;
            memcpy(&half, scales + 2 * ((slot + p) * groups + d0 / 32), sizeof half);
            scale = sc_f16_to_f32(half);
        }
        for (int h = 0; h < heads; h++)
            w[h] = vdupq_n_f32(scaled ? weight[h][p] * scale : weight[h][p]);
#pragma GCC unroll 8
        for (int i = 0; i < vecs; i++) {
            float32x4_t v = load4(elem, values, at + 4 * (size_t)i); /* past the head's end: within the block's bytes, and not used */
#pragma GCC unroll 2
            for (int h = 0; h < heads; h++)
                acc[h][i] = vfmaq_f32(acc[h][i], w[h], v);
        }
    }
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < vecs; i++)
            vst1q_f32(o[h] + d0 + 4 * i, acc[h][i]);
}

INLINE void values_of_block(enum kv_type elem, bool scaled, const int heads, uint32_t dv, const uint8_t *values, const uint8_t *scales,
                            uint32_t groups, const uint8_t *ahead, uint32_t slot, uint32_t n, const float *const *weight, float *const *o)
{
    for (uint32_t d = 0; d < dv; d += DIMS)
        if (dv - d > DIMS / 2)
            values_of_dims(elem, scaled, heads, VECS, dv, d, values, scales, groups, ahead, slot, n, weight, o);
        else
            values_of_dims(elem, scaled, heads, VECS / 2, dv, d, values, scales, groups, ahead, slot, n, weight, o);
}

#include "kernels/attend.inc"

void neon_init_attention(struct kernels *k)
{
    k->attend = attend;
    k->attend_join = attend_join;
}
