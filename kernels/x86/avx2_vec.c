/* Quantizing, norms, activations, softmax, rotary positions and float matrices for AVX2: the scalar versions' arithmetic, the
 * contract's sixteen lanes in two registers. */
#include "kernels/x86/avx2_vec.h"

#include <string.h>

#include "kernels/fmath.h"
#include "kernels/x86/x86.h"

/* Sixteen floats, or the first n of them with zeros behind. */
struct two {
    __m256 a, b;
};

static inline struct two load16(const float *p, uint32_t n)
{
    if (n >= 16)
        return (struct two){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
    return (struct two){_mm256_maskload_ps(p, first8(n)), _mm256_maskload_ps(n > 8 ? p + 8 : p, first8(n > 8 ? n - 8 : 0))};
}

static inline void store16(float *p, uint32_t n, struct two v)
{
    if (n >= 16) {
        _mm256_storeu_ps(p, v.a);
        _mm256_storeu_ps(p + 8, v.b);
        return;
    }
    _mm256_maskstore_ps(p, first8(n), v.a);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, first8(n - 8), v.b);
}

/* Lanes below n of v, the others of old. */
static inline struct two keep(uint32_t n, struct two v, struct two old)
{
    if (n >= 16)
        return v;
    return (struct two){_mm256_blendv_ps(old.a, v.a, _mm256_castsi256_ps(first8(n))),
                        _mm256_blendv_ps(old.b, v.b, _mm256_castsi256_ps(first8(n > 8 ? n - 8 : 0)))};
}

static inline struct two fmadd(struct two x, struct two y, struct two z)
{
    return (struct two){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

enum { TOGETHER = 8 }; /* groups whose scales are computed side by side */

/* Of TOGETHER groups, by lane. */
struct groups {
    float scale[TOGETHER], inverse[TOGETHER];
};

static float largest_of_group(const float *f)
{
    /* as integers magnitudes order like floats, with inf and NaN on top */
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < ACT_GROUP; i += 8)
        m = _mm256_max_epu32(m, _mm256_and_si256(magnitude, _mm256_loadu_si256((const __m256i *)(f + i))));
    __m128i t = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4E));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(t));
}

static void scales_of_groups(const float *f, uint32_t n, float most, struct groups *g)
{
    float amax[TOGETHER] = {0};
    for (uint32_t i = 0; i < n; i++)
        amax[i] = largest_of_group(f + i * ACT_GROUP);
    __m256 a = _mm256_loadu_ps(amax), all = _mm256_set1_ps(most);
    __m256 counts = _mm256_cmp_ps(a, _mm256_set1_ps(0x1p-100f), _CMP_NLT_UQ); /* NaN counts */
    _mm256_storeu_ps(g->scale, _mm256_and_ps(counts, _mm256_div_ps(a, all)));
    _mm256_storeu_ps(g->inverse, _mm256_and_ps(counts, _mm256_div_ps(all, a)));
}

static inline __m256i nearest8(__m256 x)
{
    __m256 t = _mm256_add_ps(x, _mm256_set1_ps(12582912.0f));
    return _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4B400000));
}

/* The low byte of each lane, with its sign. */
static inline __m256i low_bytes(__m256i v)
{
    return _mm256_srai_epi32(_mm256_slli_epi32(v, 24), 24);
}

/* The low bytes of 32 lanes, in order. */
static inline __m256i bytes_of(const __m256i v[4])
{
    const __m256i byte = _mm256_set1_epi32(255);
    __m256i a = _mm256_packus_epi32(_mm256_and_si256(v[0], byte), _mm256_and_si256(v[1], byte));
    __m256i b = _mm256_packus_epi32(_mm256_and_si256(v[2], byte), _mm256_and_si256(v[3], byte));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Of each half's signed bytes two sums, of numbers 0 and 1 of each four and of 2 and 3, in 16 bits: in each lane of the half. */
static inline __m256i sums_of_pairs(__m256i bytes)
{
    __m256i t = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    t = _mm256_add_epi16(t, _mm256_shuffle_epi32(t, 0x4E));
    return _mm256_add_epi16(t, _mm256_shuffle_epi32(t, 0xB1));
}

/* The sums of each half's, in each lane of the half. */
static inline __m256i sums_of_halves(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* 32 floats to bytes at q, and at low what 255 * q leaves; the sums of the two halves; what less32 is to be, but for 16-bit ones. */
static inline void quantize_group(const float *f, float inverse, int8_t *q, int8_t *low, int32_t *sum0, int32_t *sum1, int16_t *less32)
{
    __m256i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = nearest8(_mm256_mul_ps(_mm256_loadu_ps(f + 8 * i), _mm256_set1_ps(inverse)));
    if (low) {
        __m256i high[4];
        for (int i = 0; i < 4; i++) {
            high[i] = low_bytes(nearest8(_mm256_mul_ps(_mm256_cvtepi32_ps(v[i]), _mm256_set1_ps(1.0f / 255.0f))));
            v[i] = _mm256_sub_epi32(v[i], _mm256_sub_epi32(_mm256_slli_epi32(high[i], 8), high[i]));
        }
        __m256i highs = bytes_of(high), lows = bytes_of(v), sum = sums_of_halves(sums_of_pairs(highs));
        sum = _mm256_add_epi32(_mm256_sub_epi32(_mm256_slli_epi32(sum, 8), sum), sums_of_halves(sums_of_pairs(lows)));
        _mm256_storeu_si256((__m256i *)q, highs);
        _mm256_storeu_si256((__m256i *)low, lows);
        *sum0 = _mm256_cvtsi256_si32(sum);
        *sum1 = _mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1));
    } else {
        __m256i bytes = bytes_of(v), pairs = sums_of_pairs(bytes), sum = sums_of_halves(pairs);
        pairs = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(pairs, 5));
        _mm_storeu_si64(less32, _mm_unpacklo_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
        _mm256_storeu_si256((__m256i *)q, bytes);
        *sum0 = _mm256_cvtsi256_si32(sum);
        *sum1 = _mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1));
    }
}

static void quantize(struct acts *x, uint32_t r)
{
    const float *f = x->f + r * x->f_stride;
    uint32_t groups = x->k / ACT_GROUP;
    struct groups g;
    for (uint32_t g0 = 0; g0 < groups; g0 += TOGETHER) {
        uint32_t n = groups - g0 < TOGETHER ? groups - g0 : TOGETHER;
        size_t first = act_at(x, r, g0);
        scales_of_groups(f + g0 * ACT_GROUP, n, x->low ? 32512.0f : 127.0f, &g);
        for (uint32_t i = 0; i < n; i++) {
            size_t at = first + i * x->tile;
            float scale = g.scale[i];
            int32_t sum0, sum1;
            quantize_group(f + (g0 + i) * ACT_GROUP, g.inverse[i], x->q + ACT_GROUP * at, x->low ? x->low + ACT_GROUP * at : NULL, &sum0, &sum1,
                           x->less32 + 4 * at);
            x->scale[at] = scale;
            x->sum[at] = scale * (float)(sum0 + sum1);
            x->sum16[2 * at] = scale * (float)sum0;
            x->sum16[2 * at + 1] = scale * (float)sum1;
            x->isum[2 * at] = sum0;
            x->isum[2 * at + 1] = sum1;
            x->isum32[at] = sum0 + sum1;
        }
    }
}

static void rms_norm(const float *x, const float *w, uint32_t n, float eps, float *out)
{
    struct two sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = 0; i < n; i += 16) {
        struct two v = load16(x + i, n - i);
        sum = keep(n - i, fmadd(v, v, sum), sum);
    }
    __m256 scale = _mm256_set1_ps(1.0f / sqrtf(join8x2(sum.a, sum.b) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + i, m), scale);
        _mm256_maskstore_ps(out + i, m, _mm256_mul_ps(v, _mm256_maskload_ps(w + i, m)));
    }
}

/* x / (1 + e^-y) */
static inline __m256 gated(__m256 x, __m256 minus_y)
{
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(minus_y)));
}

static void act_mul(enum activation act, float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        __m256 x = _mm256_maskload_ps(gate + i, m), y;
        if (act == ACT_SILU) {
            y = gated(x, negated8(x));
        } else {
            __m256 u = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_set1_ps(0.044715f), x), x, _mm256_set1_ps(1.0f));
            u = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.797884561f), x), u);
            y = gated(x, _mm256_mul_ps(_mm256_set1_ps(-2.0f), u));
        }
        _mm256_maskstore_ps(gate + i, m, _mm256_mul_ps(y, _mm256_maskload_ps(up + i, m)));
    }
}

static void softmax(float *x, uint32_t n)
{
    float max = x[0];
    for (uint32_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    struct two sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = 0; i < n; i += 16) {
        struct two v = load16(x + i, n - i);
        v.a = exp8(_mm256_sub_ps(v.a, _mm256_set1_ps(max)));
        v.b = exp8(_mm256_sub_ps(v.b, _mm256_set1_ps(max)));
        struct two more = {_mm256_add_ps(sum.a, v.a), _mm256_add_ps(sum.b, v.b)};
        sum = keep(n - i, more, sum);
        store16(x + i, n - i, v);
    }
    __m256 total = _mm256_set1_ps(join8x2(sum.a, sum.b));
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i m = first8(n - i);
        _mm256_maskstore_ps(x + i, m, _mm256_div_ps(_mm256_maskload_ps(x + i, m), total));
    }
}

static float exps(const float *x, uint32_t n, float top, float temperature, float *out)
{
    const __m256 most = _mm256_set1_ps(top), by = _mm256_set1_ps(temperature);
    struct two sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = 0; i < n; i += 16) {
        struct two v = load16(x + i, n - i);
        v.a = exp8(_mm256_div_ps(_mm256_sub_ps(v.a, most), by));
        v.b = exp8(_mm256_div_ps(_mm256_sub_ps(v.b, most), by));
        struct two more = {_mm256_add_ps(sum.a, v.a), _mm256_add_ps(sum.b, v.b)};
        sum = keep(n - i, more, sum);
        store16(out + i, n - i, v);
    }
    return join8x2(sum.a, sum.b);
}

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
    for (uint32_t i = 0; i < half; i += 8) {
        __m256i m = first8(half - i);
        __m256 a = _mm256_maskload_ps(x + i, m), b = _mm256_maskload_ps(x + half + i, m);
        __m256 c = _mm256_maskload_ps(cos_ + i, m), s = _mm256_maskload_ps(sin_ + i, m);
        _mm256_maskstore_ps(x + i, m, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_maskstore_ps(x + half + i, m, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
    }
}

static float dot_floats(const float *a, const float *b, uint32_t n)
{
    struct two sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t i = 0; i < n; i += 16)
        sum = keep(n - i, fmadd(load16(a + i, n - i), load16(b + i, n - i), sum), sum);
    return join8x2(sum.a, sum.b);
}

/* --- F32, F16, BF16 matrices ----------------------------------------------------------------------------------------------- */

enum { FLOAT_SUMS = 4 };

#define INLINE static inline __attribute__((always_inline))
#define lanes two

INLINE struct two lanes_zero(void)
{
    return (struct two){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

/* The last ones of a row by way of a copy. */
INLINE struct two lanes_of_weights(enum quant_type type, const uint8_t *p, uint32_t n)
{
    uint16_t tail[16] = {0};
    if (type == QUANT_F32)
        return load16((const float *)(const void *)p, n);
    if (n < 16) {
        memcpy(tail, p, 2 * n);
        p = (const uint8_t *)tail;
    }
    __m128i a = _mm_loadu_si128((const __m128i *)p), b = _mm_loadu_si128((const __m128i *)(p + 16));
    if (type == QUANT_F16)
        return (struct two){_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)};
    return (struct two){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16)),
                        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(b), 16))};
}

INLINE struct two lanes_of_floats(const float *p, uint32_t n)
{
    return load16(p, n);
}

INLINE void lanes_store(float *p, struct two v)
{
    store16(p, 16, v);
}

INLINE struct two lanes_add(struct two w, struct two x, struct two sum, uint32_t n)
{
    return keep(n, fmadd(w, x, sum), sum);
}

INLINE float lanes_join(struct two v)
{
    return join8x2(v.a, v.b);
}

#include "kernels/float_mat.inc"

void x86_init_avx2(struct kernels *k)
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
    avx2_init_mat(k);
    avx2_init_attention(k);
}
