/* Activations' forms on the wire: see act.h. Plain C that compilers vectorise; what counts is that every step is exactly
 * rounded, so that any compiler and machine makes the same bytes. */
#include "proto/act.h"

#include <math.h>
#include <string.h>

/* From float to half, to nearest even, by integers: no machine's conversion instruction or rounding mode is asked. */
static uint16_t half_of(float f)
{
    uint32_t x, sign, mantissa;
    int exponent;

    memcpy(&x, &f, sizeof x);
    sign = x >> 16 & 0x8000;
    x &= 0x7FFFFFFF;
    if (x >= 0x7F800000) /* infinity, or NaN kept one */
        return (uint16_t)(sign | 0x7C00 | (x > 0x7F800000 ? 0x200 | (x >> 13 & 0x3FF) : 0));
    exponent = (int)(x >> 23) - 112; /* biased as halves are */
    if (exponent >= 31)
        return (uint16_t)(sign | 0x7C00);
    mantissa = x & 0x7FFFFF;
    if (exponent > 0) {
        uint32_t h = (uint32_t)exponent << 10 | mantissa >> 13, rest = mantissa & 0x1FFF;
        h += rest > 0x1000 || (rest == 0x1000 && (h & 1)); /* may carry into the exponent, up to infinity: as it should */
        return (uint16_t)(sign | h);
    }
    if (exponent < -10)
        return (uint16_t)sign;
    mantissa |= 0x800000;
    int shift = 14 - exponent;
    uint32_t h = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    h += rest > middle || (rest == middle && (h & 1));
    return (uint16_t)(sign | h);
}

static float float_of(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF, x;
    float f;

    if (exponent == 0) { /* zero or subnormal: exact */
        f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    x = sign | (exponent == 31 ? 0x7F800000 : (exponent + 112) << 23) | mantissa << 13;
    memcpy(&f, &x, sizeof f);
    return f;
}

const char *act_name(enum act_type type)
{
    static const char *const names[ACT_TYPES] = {"f32", "f16", "q8_0"};

    return (unsigned)type < ACT_TYPES ? names[type] : NULL;
}

size_t act_row_bytes(enum act_type type, uint32_t embd)
{
    switch (type) {
    case ACT_F32:
        return (size_t)embd * 4;
    case ACT_F16:
        return (size_t)embd * 2;
    case ACT_Q8_0:
        return ((size_t)embd + ACT_BLOCK - 1) / ACT_BLOCK * 2 + embd;
    default:
        return 0;
    }
}

/* n ≤ ACT_BLOCK values. A block that holds something that is not finite has the scale NaN: what comes out is not taken for
 * a number either. */
static void pack_block(const float *x, size_t n, uint8_t *out)
{
    float amax = 0, scale, inverse;
    bool finite = true;
    uint16_t half;

    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        finite &= a <= 3.402823466e38f;
        amax = a > amax ? a : amax;
    }
    half = finite ? half_of(amax / 127) : 0x7E00;
    scale = float_of(half);
    inverse = finite && scale > 0 && scale <= 65504 ? 1 : 0;
    memcpy(out, &half, 2);
    for (size_t i = 0; i < n; i++) {
        float q = inverse != 0 ? nearbyintf(x[i] / scale) : 0;
        out[2 + i] = (uint8_t)(int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
}

void act_pack(enum act_type type, uint32_t embd, size_t n_rows, const float *src, void *dst)
{
    uint8_t *out = dst;

    if (type == ACT_F32) {
        memcpy(dst, src, n_rows * embd * sizeof *src);
        return;
    }
    if (type == ACT_F16) {
        for (size_t i = 0; i < n_rows * embd; i++) {
            uint16_t h = half_of(src[i]);
            memcpy(out + 2 * i, &h, 2);
        }
        return;
    }
    for (size_t row = 0; row < n_rows; row++)
        for (uint32_t i = 0; i < embd; i += ACT_BLOCK) {
            size_t n = embd - i < ACT_BLOCK ? embd - i : ACT_BLOCK;
            pack_block(src + row * embd + i, n, out);
            out += 2 + n;
        }
}

static void unpack_rows(uint32_t embd, size_t n_rows, const uint8_t *in, float *dst)
{
    for (size_t row = 0; row < n_rows; row++)
        for (uint32_t i = 0; i < embd; i += ACT_BLOCK) {
            size_t n = embd - i < ACT_BLOCK ? embd - i : ACT_BLOCK;
            uint16_t half;
            memcpy(&half, in, 2);
            float scale = float_of(half);
            for (size_t j = 0; j < n; j++)
                dst[row * embd + i + j] = (float)(int8_t)in[2 + j] * scale;
            in += 2 + n;
        }
}

const float *act_unpack(enum act_type type, uint32_t embd, size_t n_rows, const void *src, float *dst)
{
    const uint8_t *in = src;

    if (type == ACT_F32) {
        if ((uintptr_t)src % sizeof(float) == 0)
            return (const float *)src;
        memcpy(dst, src, n_rows * embd * sizeof *dst);
        return dst;
    }
    if (type == ACT_F16) {
        for (size_t i = 0; i < n_rows * embd; i++) {
            uint16_t h;
            memcpy(&h, in + 2 * i, 2);
            dst[i] = float_of(h);
        }
        return dst;
    }
    unpack_rows(embd, n_rows, in, dst);
    return dst;
}
