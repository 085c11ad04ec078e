#ifndef KERNELS_ARM_NEON_VEC_H
#define KERNELS_ARM_NEON_VEC_H

/* Four floats at once: the functions of fmath.h and the contract's lane sums (four registers for its 16 lanes). */

#include "kernels/kernels.h"

#ifdef __aarch64__
#include <arm_neon.h>
#include <string.h>

/* sc_expf in every lane, operation by operation. */
static inline float32x4_t exp4(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(12582912.0f), top = vdupq_n_f32(89.0f);
    uint32x4_t dead = vcltq_f32(x, vdupq_n_f32(-86.0f));
    x = vbslq_f32(vcltq_f32(x, top), x, top); /* NaN becomes 89, as in the scalar version */
    float32x4_t t = vfmaq_f32(magic, x, vdupq_n_f32(1.44269504f));
    float32x4_t n = vsubq_f32(t, magic);
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-0.693145752f));
    r = vfmaq_f32(r, n, vdupq_n_f32(-1.42860677e-6f));
    float32x4_t p = vdupq_n_f32(1.3888889e-3f);
    p = vfmaq_f32(vdupq_n_f32(8.3333333e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1666667e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666667e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    uint32x4_t bits = vshlq_n_u32(vaddq_u32(vreinterpretq_u32_f32(t), vdupq_n_u32(126)), 23);
    float32x4_t y = vmulq_f32(vmulq_f32(p, vreinterpretq_f32_u32(bits)), vdupq_n_f32(2.0f));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), dead));
}

static inline float32x4_t tanh4(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t e = exp4(vmulq_f32(vdupq_n_f32(-2.0f), vabsq_f32(x)));
    float32x4_t y = vdivq_f32(vsubq_f32(one, e), vaddq_f32(one, e));
    return vbslq_f32(vdupq_n_u32(0x80000000u), x, y);
}

/* Sum of 16 lanes by the contract's tree. */
static inline float join4x4(const float32x4_t s[4])
{
    float32x4_t t = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3])); /* (i, i+8), then (i, i+4) */
    float32x2_t two = vadd_f32(vget_low_f32(t), vget_high_f32(t));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* Sixteen floats, or the first n of them with zeros behind. */
static inline float32x4x4_t load16(const float *p, uint32_t n)
{
    float tail[16] = {0};
    if (n < 16) {
        memcpy(tail, p, n * sizeof *p);
        p = tail;
    }
    return (float32x4x4_t){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}

static inline void store16(float *p, uint32_t n, float32x4x4_t v)
{
    float tail[16], *to = n < 16 ? tail : p;
    for (int i = 0; i < 4; i++)
        vst1q_f32(to + 4 * i, v.val[i]);
    if (n < 16)
        memcpy(p, tail, n * sizeof *p);
}

#endif /* __aarch64__ */

#endif
