/* Quantizing, norms, activations, softmax, rotary positions and float matrices for AVX-512: the scalar versions' arithmetic,
 * sixteen lanes at a time. */
#include "kernels/x86/avx512_vec.h"

#include <string.h>

#include "kernels/fmath.h"
#include "kernels/x86/x86.h"

static inline __m512i nearest16(__m512 x)
{
    __m512 t = _mm512_add_ps(x, _mm512_set1_ps(12582912.0f));
    return _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4B400000));
}

static void quantize(struct acts *x, uint32_t r)
{
    const float *f = x->f + r * x->f_stride;
    for (uint32_t g = 0; g < x->k / ACT_GROUP; g++, f += ACT_GROUP) {
        size_t at = act_at(x, r, g);
        __m512 v[2] = {_mm512_loadu_ps(f), _mm512_loadu_ps(f + 16)};
        /* as integers magnitudes order like floats, with inf and NaN on top */
        __m512i m = _mm512_max_epu32(_mm512_castps_si512(_mm512_abs_ps(v[0])), _mm512_castps_si512(_mm512_abs_ps(v[1])));
        uint32_t bits = _mm512_reduce_max_epu32(m);
        float amax;
        memcpy(&amax, &bits, sizeof amax);
        float most = x->low ? 32512.0f : 127.0f;
        float scale = amax < 0x1p-100f ? 0.0f : amax / most, inverse = amax < 0x1p-100f ? 0.0f : most / amax;
        int32_t sum[2];
        for (int h = 0; h < 2; h++) {
            size_t i = ACT_GROUP * at + 16 * (size_t)h;
            __m512i n = nearest16(_mm512_mul_ps(v[h], _mm512_set1_ps(inverse)));
            __m128i q = _mm512_cvtepi32_epi8(n);
            if (x->low) {
                q = _mm512_cvtepi32_epi8(nearest16(_mm512_mul_ps(_mm512_cvtepi32_ps(n), _mm512_set1_ps(1.0f / 255.0f))));
                __m512i high = _mm512_cvtepi8_epi32(q), most_of = _mm512_sub_epi32(_mm512_slli_epi32(high, 8), high);
                __m128i low = _mm512_cvtepi32_epi8(_mm512_sub_epi32(n, most_of));
                _mm_storeu_si128((__m128i *)(x->low + i), low);
                n = _mm512_add_epi32(most_of, _mm512_cvtepi8_epi32(low)); /* n itself, if it was a number */
            } else {
                n = _mm512_cvtepi8_epi32(q);
            }
            _mm_storeu_si128((__m128i *)(x->q + i), q);
            sum[h] = _mm512_reduce_add_epi32(n);
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
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        sum = _mm512_mask3_fmadd_ps(v, v, sum, m);
    }
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(join16(sum) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), scale);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, w + i)));
    }
}

/* x / (1 + e^-y) */
static inline __m512 gated(__m512 x, __m512 minus_y)
{
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(minus_y)));
}

static inline __m512 negated(__m512 x)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0x80000000)));
}

static void act_mul(enum activation act, float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m512 x = _mm512_maskz_loadu_ps(m, gate + i), y;
        if (act == ACT_SILU) {
            y = gated(x, negated(x));
        } else {
            __m512 u = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(0.044715f), x), x, _mm512_set1_ps(1.0f));
            u = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.797884561f), x), u);
            y = gated(x, _mm512_mul_ps(_mm512_set1_ps(-2.0f), u));
        }
        _mm512_mask_storeu_ps(gate + i, m, _mm512_mul_ps(y, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static void softmax(float *x, uint32_t n)
{
    __m512 max = _mm512_set1_ps(x[0]), sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        max = _mm512_mask_max_ps(max, m, _mm512_maskz_loadu_ps(m, x + i), max);
    }
    __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(max));
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m512 e = exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), top));
        sum = _mm512_mask_add_ps(sum, m, sum, e);
        _mm512_mask_storeu_ps(x + i, m, e);
    }
    __m512 total = _mm512_set1_ps(join16(sum));
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_div_ps(_mm512_maskz_loadu_ps(m, x + i), total));
    }
}

static float exps(const float *x, uint32_t n, float top, float temperature, float *out)
{
    const __m512 most = _mm512_set1_ps(top), by = _mm512_set1_ps(temperature);
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m512 e = exp16(_mm512_div_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), most), by));
        sum = _mm512_mask_add_ps(sum, m, sum, e);
        _mm512_mask_storeu_ps(out + i, m, e);
    }
    return join16(sum);
}

/* The compiler makes vectors of this: the fma's are in the instruction set here. */
static void rope(float *x, const struct rope *rope_, const float *cos_, const float *sin_)
{
    uint32_t half = rope_->n_dims / 2;
    if (rope_->kind == ROPE_PAIRS) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = fmaf(a, cos_[i], -(b * sin_[i]));
            x[2 * i + 1] = fmaf(a, sin_[i], b * cos_[i]);
        }
        return;
    }
    for (uint32_t i = 0; i < half; i += 16) {
        __mmask16 m = first_lanes(half - i);
        __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + half + i);
        __m512 c = _mm512_maskz_loadu_ps(m, cos_ + i), s = _mm512_maskz_loadu_ps(m, sin_ + i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + half + i, m, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
    }
}

static float dot_floats(const float *a, const float *b, uint32_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        sum = _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(m, a + i), _mm512_maskz_loadu_ps(m, b + i), sum, m);
    }
    return join16(sum);
}

/* --- F32, F16, BF16 matrices ----------------------------------------------------------------------------------------------- */

enum { FLOAT_SUMS = 16 };

#define INLINE static inline __attribute__((always_inline))

struct lanes {
    __m512 v;
};

INLINE struct lanes lanes_zero(void)
{
    return (struct lanes){_mm512_setzero_ps()};
}

INLINE struct lanes lanes_of_weights(enum quant_type type, const uint8_t *p, uint32_t n)
{
    __mmask16 m = first_lanes(n);
    if (type == QUANT_F32)
        return (struct lanes){_mm512_maskz_loadu_ps(m, p)};
    __m256i h = _mm256_maskz_loadu_epi16(m, p);
    return (struct lanes){type == QUANT_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}

INLINE struct lanes lanes_of_floats(const float *p, uint32_t n)
{
    return (struct lanes){_mm512_maskz_loadu_ps(first_lanes(n), p)};
}

INLINE void lanes_store(float *p, struct lanes v)
{
    _mm512_storeu_ps(p, v.v);
}

INLINE struct lanes lanes_add(struct lanes w, struct lanes x, struct lanes sum, uint32_t n)
{
    return (struct lanes){_mm512_mask3_fmadd_ps(w.v, x.v, sum.v, first_lanes(n))};
}

INLINE float lanes_join(struct lanes v)
{
    return join16(v.v);
}

#include "kernels/float_mat.inc"

void x86_init_avx512vnni(struct kernels *k)
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
    avx512_init_mat(k);
    avx512_init_attention(k);
}
