#ifndef KERNELS_FMATH_H
#define KERNELS_FMATH_H

/* exp, log, sin, cos by our own hand. The C library's differ in their last bits between versions and processors, and an
 * answer must not: these use only operations that IEEE 754 rounds exactly (+, -, *, /, sqrt, fma), in a fixed order. Vector
 * versions repeat the float ones lane by lane and give the same bits. The double ones serve tables and the sampler. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* kernels/cuda compiles these for devices as well. */
#ifndef SC_MATH
#define SC_MATH static inline
#endif

/* e^x, within 3 ulp. Below -86: exactly 0 (what a softmax drops; keeps denormals out). Above 88.7: inf. */
SC_MATH float sc_expf(float x)
{
    if (x < -86.0f)
        return 0.0f;
    x = x < 89.0f ? x : 89.0f;
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, to nearest even */
    float t = fmaf(x, 1.44269504f, magic);
    float n = t - magic;
    float r = fmaf(n, -0.693145752f, x); /* ln 2 in two parts, the first with few bits */
    r = fmaf(n, -1.42860677e-6f, r);
    float p = 1.3888889e-3f;
    p = fmaf(p, r, 8.3333333e-3f);
    p = fmaf(p, r, 4.1666667e-2f);
    p = fmaf(p, r, 1.6666667e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 126u) << 23; /* 2^(n-1): n = 128 would not fit; t's low bits hold n */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale * 2.0f;
}

SC_MATH float sc_siluf(float x)
{
    return x / (1.0f + sc_expf(-x));
}

/* x * Phi(x) by the usual tanh approximation, written with one exp: 0.5 * (1 + tanh u) = 1 / (1 + e^-2u). */
SC_MATH float sc_geluf(float x)
{
    float u = 0.797884561f * x * fmaf(0.044715f * x, x, 1.0f);
    return x / (1.0f + sc_expf(-2.0f * u));
}

SC_MATH float sc_tanhf(float x)
{
    float e = sc_expf(-2.0f * fabsf(x));
    return copysignf((1.0f - e) / (1.0f + e), x);
}

/* e^x for |x| < 700, relative error below 1e-15; beyond: 0 or inf. */
SC_MATH double sc_exp(double x)
{
    if (x < -700.0)
        return 0.0;
    if (x > 700.0)
        return HUGE_VAL;
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    double n = (x * 1.4426950408889634074 + magic) - magic;
    double r = x - n * 6.93147180369123816490e-01;
    r -= n * 1.90821492927058770002e-10;
    double p = 1.0;
    for (int k = 14; k >= 1; k--)
        p = p * r / k + 1.0;
    return ldexp(p, (int)n); /* exact */
}

/* Natural logarithm of a finite x > 0, absolute error below 1e-15 * max(1, |ln x|). */
SC_MATH double sc_log(double x)
{
    int e;
    double m = frexp(x, &e); /* exact */
    if (m < 0.70710678118654752440) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), q = s * s, sum = 0;
    for (int k = 25; k >= 3; k -= 2)
        sum = (sum + 1.0 / k) * q;
    return e * 6.93147180369123816490e-01 + (e * 1.90821492927058770002e-10 + 2 * (s + s * sum));
}

/* sin and cos for |x| < 2^20 or so, absolute error below 1e-15. */
SC_MATH void sc_sincos(double x, double *ret_sin, double *ret_cos)
{
    const double magic = 6755399441055744.0;
    double n = (x * 0.63661977236758134308 + magic) - magic;
    double r = x - n * 1.57079632673412561417e+00; /* 33 bits of pi/2: n times it is exact */
    r -= n * 6.07710050650619224932e-11;
    double q = r * r, s = 1, c = 1;
    for (int k = 10; k >= 1; k--) {
        s = 1 - s * q / ((2 * k) * (2 * k + 1));
        c = 1 - c * q / ((2 * k - 1) * (2 * k));
    }
    s *= r;
    switch ((int64_t)n & 3) {
    case 0: *ret_sin = s; *ret_cos = c; break;
    case 1: *ret_sin = c; *ret_cos = -s; break;
    case 2: *ret_sin = -s; *ret_cos = -c; break;
    default: *ret_sin = -c; *ret_cos = s; break;
    }
}

/* Half and bfloat16, to float exactly and from float to nearest even. */
SC_MATH float sc_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, em = h & 0x7FFF, bits;
    float f;
    if (em >= 0x7C00) {
        bits = 0x7F800000 | (em & 0x3FF) << 13; /* inf, NaN */
    } else {
        bits = em << 13; /* as a float 2^-112 times too small, denormals included */
        memcpy(&f, &bits, sizeof f);
        f *= 0x1p112f;
        memcpy(&bits, &f, sizeof f);
    }
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
}

SC_MATH uint16_t sc_f32_to_f16(float f)
{
    uint32_t bits, sign, rest;
    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000)
        return (uint16_t)(sign | 0x7E00); /* NaN */
    if (bits >= 0x477FF000)
        return (uint16_t)(sign | 0x7C00); /* 65520 and more round to inf */
    if (bits < 0x38800000) {              /* below 2^-14: a denormal half; adding 0.5 lets the FPU round at its last bit */
        memcpy(&f, &bits, sizeof f);
        f += 0.5f;
        memcpy(&bits, &f, sizeof f);
        return (uint16_t)(sign | (bits - 0x3F000000));
    }
    rest = bits & 0x1FFF;
    bits = (bits - 0x38000000) >> 13;
    bits += rest > 0x1000 || (rest == 0x1000 && (bits & 1));
    return (uint16_t)(sign | bits);
}

SC_MATH float sc_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
