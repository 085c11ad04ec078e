/* Unfolding of the quantized types, one function and one row a type. The block formats are ggml's; each is drawn in its
 * function's comment. Scales that are products of a half and a small integer are exact in a float. */
#include "kernels/fmath.h"
#include "kernels/kernels.h"

static float half_at(const uint8_t *p)
{
    return sc_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* 32 elements from 16 bytes of nibbles: the low ones first. */
static void nibbles(const uint8_t *qs, int8_t *q)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + 16] = (int8_t)(qs[i] >> 4);
    }
}

/* d, 16 bytes */
static void decode_q4_0(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 18, q += 32) {
        scale[i] = half_at(b);
        nibbles(b + 2, q);
        for (int j = 0; j < 32; j++)
            q[j] = (int8_t)(q[j] - 8);
    }
}

/* d, m, 16 bytes */
static void decode_q4_1(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    for (uint32_t i = 0; i < n; i++, b += 20, q += 32) {
        scale[i] = half_at(b);
        min[i] = half_at(b + 2);
        nibbles(b + 4, q);
    }
}

/* The fifth bits of 32 elements, bit j for element j. */
static void add_fifth_bits(const uint8_t *qh, int8_t *q)
{
    uint32_t bits = qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
    for (int j = 0; j < 32; j++)
        q[j] = (int8_t)(q[j] | (bits >> j & 1) << 4);
}

/* d, 4 bytes of fifth bits, 16 bytes */
static void decode_q5_0(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 22, q += 32) {
        scale[i] = half_at(b);
        nibbles(b + 6, q);
        add_fifth_bits(b + 2, q);
        for (int j = 0; j < 32; j++)
            q[j] = (int8_t)(q[j] - 16);
    }
}

/* d, m, 4 bytes of fifth bits, 16 bytes */
static void decode_q5_1(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    for (uint32_t i = 0; i < n; i++, b += 24, q += 32) {
        scale[i] = half_at(b);
        min[i] = half_at(b + 2);
        nibbles(b + 8, q);
        add_fifth_bits(b + 4, q);
    }
}

/* d, 32 bytes */
static void decode_q8_0(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 34, q += 32) {
        scale[i] = half_at(b);
        memcpy(q, b + 2, 32);
    }
}

/* 16 bytes of scale | min << 4, 64 bytes of two bits, d, dmin. The 64 bytes are two halves of 32; each holds four runs of 32
 * elements, run r in bits 2r. */
static void decode_q2_k(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    for (uint32_t i = 0; i < n; i++, b += 84, q += 256, scale += 16, min += 16) {
        float d = half_at(b + 80), dmin = half_at(b + 82);
        for (int g = 0; g < 16; g++) {
            scale[g] = d * (float)(b[g] & 15);
            min[g] = -(dmin * (float)(b[g] >> 4));
        }
        for (int e = 0; e < 256; e++)
            q[e] = b[16 + e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3;
    }
}

/* 32 bytes of third bits, 64 bytes of two bits as in Q2_K, 12 bytes of 6-bit scales, d. A third bit unset means minus 4. */
static void decode_q3_k(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 110, q += 256, scale += 16) {
        const uint8_t *s = b + 96;
        float d = half_at(b + 108);
        for (int g = 0; g < 16; g++) {
            int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> (g / 4 * 2) & 3;
            scale[g] = d * (float)((low | high << 4) - 32);
        }
        for (int e = 0; e < 256; e++) {
            int two = b[32 + e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3, third = b[e % 32] >> (e / 32) & 1;
            q[e] = (int8_t)(two - (third ? 0 : 4));
        }
    }
}

/* The 6-bit scales and minimums of Q4_K and Q5_K: eight of each in 12 bytes. */
static void scales_k4(const uint8_t *b, float *scale, float *min)
{
    float d = half_at(b), dmin = half_at(b + 2);
    const uint8_t *s = b + 4;
    for (int g = 0; g < 8; g++) {
        int sc = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        int m = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        scale[g] = d * (float)sc;
        min[g] = -(dmin * (float)m);
    }
}

/* d, dmin, 12 bytes of scales, 128 bytes: each 32 hold 64 elements, the low nibbles first */
static void decode_q4_k(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    for (uint32_t i = 0; i < n; i++, b += 144, q += 256, scale += 8, min += 8) {
        scales_k4(b, scale, min);
        for (int e = 0; e < 256; e++)
            q[e] = b[16 + e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15;
    }
}

/* as Q4_K, with 32 bytes of fifth bits before the nibbles: bit r of byte l for element l of run r of 32 */
static void decode_q5_k(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    for (uint32_t i = 0; i < n; i++, b += 176, q += 256, scale += 8, min += 8) {
        scales_k4(b, scale, min);
        for (int e = 0; e < 256; e++)
            q[e] = (int8_t)((b[48 + e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15) | (b[16 + e % 32] >> (e / 32) & 1) << 4);
    }
}

/* 128 bytes of low nibbles, 64 bytes of two high bits, 16 signed scales, d. Each half of 128 elements has four runs of 32:
 * nibbles of bytes 0-31 low, 32-63 low, 0-31 high, 32-63 high; the high bits of run r in bits 2r. */
static void decode_q6_k(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 210, q += 256, scale += 16) {
        float d = half_at(b + 208);
        for (int g = 0; g < 16; g++)
            scale[g] = d * (float)(int8_t)b[192 + g];
        for (int e = 0; e < 256; e++) {
            int half = e / 128, run = e / 32 % 4, l = e % 32;
            int low = b[half * 64 + run % 2 * 32 + l] >> (run / 2 * 4) & 15, high = b[128 + half * 32 + l] >> (run * 2) & 3;
            q[e] = (int8_t)((low | high << 4) - 32);
        }
    }
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 32 elements by a table from 16 bytes of nibbles. */
static void look_up(const int8_t *values, const uint8_t *qs, int8_t *q)
{
    for (int i = 0; i < 16; i++) {
        q[i] = values[qs[i] & 15];
        q[i + 16] = values[qs[i] >> 4];
    }
}

/* d, 16 bytes */
static void decode_iq4_nl(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 18, q += 32) {
        scale[i] = half_at(b);
        look_up(iq4_values, b + 2, q);
    }
}

/* d, 2 bytes of high scale bits, 4 bytes of low ones, 128 bytes */
static void decode_iq4_xs(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 136, q += 256, scale += 8) {
        float d = half_at(b);
        unsigned high = b[2] | (unsigned)b[3] << 8;
        for (int g = 0; g < 8; g++) {
            int s = (b[4 + g / 2] >> (g % 2 * 4) & 15) | (int)(high >> (2 * g) & 3) << 4;
            scale[g] = d * (float)(s - 32);
            look_up(iq4_values, b + 8 + 16 * g, q + 32 * g);
        }
    }
}

/* an exponent e, 16 bytes; the table holds twice the values, the scale 2^(e-128) half of what e says */
static void decode_mxfp4(const uint8_t *b, uint32_t n, int8_t *q, float *scale, float *min)
{
    (void)min;
    for (uint32_t i = 0; i < n; i++, b += 17, q += 32) {
        uint32_t bits = b[0] < 2 ? 0x200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
        memcpy(&scale[i], &bits, sizeof bits);
        look_up(mxfp4_values, b + 1, q);
    }
}

const struct quant_decoder quant_decoders[QUANT_TYPES] = {
    [QUANT_Q4_0] = {32, false, decode_q4_0},
    [QUANT_Q4_1] = {32, true, decode_q4_1},
    [QUANT_Q5_0] = {32, false, decode_q5_0},
    [QUANT_Q5_1] = {32, true, decode_q5_1},
    [QUANT_Q8_0] = {32, false, decode_q8_0},
    [QUANT_Q2_K] = {16, true, decode_q2_k},
    [QUANT_Q3_K] = {16, false, decode_q3_k},
    [QUANT_Q4_K] = {32, true, decode_q4_k},
    [QUANT_Q5_K] = {32, true, decode_q5_k},
    [QUANT_Q6_K] = {16, false, decode_q6_k},
    [QUANT_IQ4_NL] = {32, false, decode_iq4_nl},
    [QUANT_IQ4_XS] = {32, false, decode_iq4_xs},
    [QUANT_MXFP4] = {32, false, decode_mxfp4},
};
