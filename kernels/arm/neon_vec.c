/* Quantizing, norms, activations, softmax, rotary positions and float matrices for NEON: the scalar versions' arithmetic, the
 * contract's sixteen lanes in four registers. Lanes behind the end of a row hold zeros: they add +0 to sums that are never -0
 * there, which changes nothing. */
#include "kernels/arm/neon_vec.h"

#include "kernels/arm/arm.h"
#include "kernels/fmath.h"

static inline int32x4_t nearest4(float32x4_t x)
{
    return vsubq_s32(vreinterpretq_s32_f32(vaddq_f32(x, vdupq_n_f32(12582912.0f))), vdupq_n_s32(0x4B400000));
}

/* The low byte of each lane, with its sign. */
static inline int32x4_t low_bytes(int32x4_t v)
{
    return vshrq_n_s32(vshlq_n_s32(v, 24), 24);
}

static inline void store_bytes(int8_t *to, int32x4_t v)
{
    int16x4_t narrow = vmovn_s32(v);
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(narrow, narrow))), 0);
    memcpy(to, &four, sizeof four);
}

static void quantize(struct acts *x, uint32_t r)
{
    const float *f = x->f + r * x->f_stride;
    for (uint32_t g = 0; g < x->k / ACT_GROUP; g++, f += ACT_GROUP) {
        size_t at = act_at(x, r, g);
        /* as integers magnitudes order like floats, with inf and NaN on top */
        uint32x4_t m = vdupq_n_u32(0);
        for (int i = 0; i < ACT_GROUP; i += 4)
            m = vmaxq_u32(m, vandq_u32(vdupq_n_u32(0x7FFFFFFF), vreinterpretq_u32_f32(vld1q_f32(f + i))));
        uint32_t bits = vmaxvq_u32(m);
        float amax;
        memcpy(&amax, &bits, sizeof amax);
        float most = x->low ? 32512.0f : 127.0f;
        float scale = amax < 0x1p-100f ? 0.0f : amax / most, inverse = amax < 0x1p-100f ? 0.0f : most / amax;
        int32_t sum[2];
        for (int h = 0; h < 2; h++) {
            size_t first = ACT_GROUP * at + 16 * (size_t)h;
            int32x4_t total = vdupq_n_s32(0);
            for (int i = 0; i < 16; i += 4) {
                int32x4_t n = nearest4(vmulq_f32(vld1q_f32(f + 16 * h + i), vdupq_n_f32(inverse))), q = low_bytes(n);
                if (x->low) {
                    q = low_bytes(nearest4(vmulq_f32(vcvtq_f32_s32(n), vdupq_n_f32(1.0f / 255.0f))));
                    int32x4_t most_of = vsubq_s32(vshlq_n_s32(q, 8), q), low = low_bytes(vsubq_s32(n, most_of));
                    store_bytes(x->low + first + i, low);
                    n = vaddq_s32(most_of, low); /* n itself, if it was a number */
                } else {
                    n = q;
                }
                store_bytes(x->q + first + i, q);
                total = vaddq_s32(total, n);
            }
            sum[h] = vaddvq_s32(total);
        }
        x->scale[at] = scale;
        x->sum[at] = scale * (float)(sum[0] + sum[1]);
        x->sum16[2 * at] = scale * (float)sum[0];
        x->sum16[2 * at + 1] = scale * (float)sum[1];
        x->isum[2 * at] = sum[0];
        x->isum[2 * at + 1] = sum[1];
        x->isum32[at] = sum[0] + sum[1];
    }
}

static void rms_norm(const float *x, const float *w, uint32_t n, float eps, float *out)
{
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t v = load16(x + i, n - i);
        for (int j = 0; j < 4; j++)
            sum[j] = vfmaq_f32(sum[j], v.val[j], v.val[j]);
    }
    float32x4_t scale = vdupq_n_f32(1.0f / sqrtf(join4x4(sum) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t v = load16(x + i, n - i), g = load16(w + i, n - i);
        for (int j = 0; j < 4; j++)
            v.val[j] = vmulq_f32(vmulq_f32(v.val[j], scale), g.val[j]);
        store16(out + i, n - i, v);
    }
}

/* x / (1 + e^-y) */
static inline float32x4_t gated(float32x4_t x, float32x4_t minus_y)
{
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), exp4(minus_y)));
}

static inline float32x4_t activated(enum activation act, float32x4_t x)
{
    if (act == ACT_SILU)
        return gated(x, vnegq_f32(x));
    float32x4_t u = vfmaq_f32(vdupq_n_f32(1.0f), vmulq_f32(vdupq_n_f32(0.044715f), x), x);
    u = vmulq_f32(vmulq_f32(vdupq_n_f32(0.797884561f), x), u);
    return gated(x, vmulq_f32(vdupq_n_f32(-2.0f), u));
}

static void act_mul(enum activation act, float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t g = load16(gate + i, n - i), u = load16(up + i, n - i);
        for (int j = 0; j < 4; j++)
            g.val[j] = vmulq_f32(activated(act, g.val[j]), u.val[j]);
        store16(gate + i, n - i, g);
    }
}

static void softmax(float *x, uint32_t n)
{
    float max = x[0];
    for (uint32_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t v = load16(x + i, n - i);
        for (int j = 0; j < 4; j++)
            v.val[j] = exp4(vsubq_f32(v.val[j], vdupq_n_f32(max)));
        store16(x + i, n - i, v);
        v = load16(x + i, n - i); /* again: zeros behind the end */
        for (int j = 0; j < 4; j++)
            sum[j] = vaddq_f32(sum[j], v.val[j]);
    }
    float32x4_t total = vdupq_n_f32(join4x4(sum));
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t v = load16(x + i, n - i);
        for (int j = 0; j < 4; j++)
            v.val[j] = vdivq_f32(v.val[j], total);
        store16(x + i, n - i, v);
    }
}

/* fma is in the base instruction set here: the compiler makes vectors of this. */
static void rope(float *x, const struct rope *rope_, const float *cos_, const float *sin_)
{
    uint32_t half = rope_->n_dims / 2;
    uint32_t step = rope_->kind == ROPE_PAIRS ? 2 : 1, apart = rope_->kind == ROPE_PAIRS ? 1 : half;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i * step], b = x[i * step + apart];
        x[i * step] = fmaf(a, cos_[i], -(b * sin_[i]));
        x[i * step + apart] = fmaf(a, sin_[i], b * cos_[i]);
    }
}

static float exps(const float *x, uint32_t n, float top, float temperature, float *out)
{
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t v = load16(x + i, n - i);
        for (int j = 0; j < 4; j++)
            v.val[j] = exp4(vdivq_f32(vsubq_f32(v.val[j], vdupq_n_f32(top)), vdupq_n_f32(temperature)));
        store16(out + i, n - i, v);
        v = load16(out + i, n - i); /* again: zeros behind the end */
        for (int j = 0; j < 4; j++)
            sum[j] = vaddq_f32(sum[j], v.val[j]);
    }
    return join4x4(sum);
}

static float dot_floats(const float *a, const float *b, uint32_t n)
{
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (uint32_t i = 0; i < n; i += 16) {
        float32x4x4_t v = load16(a + i, n - i), w = load16(b + i, n - i);
        for (int j = 0; j < 4; j++)
            sum[j] = vfmaq_f32(sum[j], v.val[j], w.val[j]);
    }
    return join4x4(sum);
}

/* --- F32, F16, BF16 matrices ----------------------------------------------------------------------------------------------- */

enum { FLOAT_SUMS = 4 };

#define INLINE static inline __attribute__((always_inline))

struct lanes {
    float32x4x4_t v;
};

INLINE struct lanes lanes_zero(void)
{
    return (struct lanes){{{vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)}}};
}

/* The last ones of a row by way of a copy. */
INLINE struct lanes lanes_of_weights(enum quant_type type, const uint8_t *p, uint32_t n)
{
    uint16_t h[16] = {0};
    struct lanes w;
    if (type == QUANT_F32) {
        float f[16] = {0};
        memcpy(f, p, 4 * (size_t)n);
        return (struct lanes){load16(f, 16)};
    }
    memcpy(h, p, 2 * (size_t)n);
    for (int j = 0; j < 4; j++) {
        uint16x4_t four = vld1_u16(h + 4 * j);
        w.v.val[j] = type == QUANT_F16 ? vcvt_f32_f16(vreinterpret_f16_u16(four)) : vreinterpretq_f32_u32(vshll_n_u16(four, 16));
    }
    return w;
}

INLINE struct lanes lanes_of_floats(const float *p, uint32_t n)
{
    return (struct lanes){load16(p, n)};
}

INLINE void lanes_store(float *p, struct lanes v)
{
    for (int j = 0; j < 4; j++)
        vst1q_f32(p + 4 * j, v.v.val[j]);
}

/* Lanes from n on are zeros times zeros. */
INLINE struct lanes lanes_add(struct lanes w, struct lanes x, struct lanes sum, uint32_t n)
{
    (void)n;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        sum.v.val[j] = vfmaq_f32(sum.v.val[j], w.v.val[j], x.v.val[j]);
    return sum;
}

INLINE float lanes_join(struct lanes v)
{
    return join4x4(v.v.val);
}

#include "kernels/float_mat.inc"

void arm_init_neon(struct kernels *k)
{
    k->quantize = quantize;
    k->rms_norm = rms_norm;
    k->act_mul = act_mul;
    k->softmax = softmax;
    k->exps = exps;
    k->rope = rope;
    k->dot = dot_floats;
    k->mat[LAYOUT_FILE][QUANT_F32] = mat_f32;
    k->mat[LAYOUT_FILE][QUANT_F16] = mat_f16;
    k->mat[LAYOUT_FILE][QUANT_BF16] = mat_bf16;
    neon_init_mat(k);
    neon_init_attention(k);
}
