/* Our exp, log, sin, cos and friends against the C library in double, over every so manieth float of a range; halves both
 * ways, all of them. Bounds are what was measured, rounded up a little: a change that makes them worse is noticed. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fmath.h"
#include "tests/tap.h"

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Distance between two floats around v. */
static double ulp_at(double v)
{
    int e;
    frexp(v, &e);
    return ldexp(1, e - 24 < -149 ? -149 : e - 24);
}

struct worst {
    double error, at;
    uint64_t n;
};

static void note_worst(struct worst *w, double error, double x)
{
    w->n++;
    if (!(error <= w->error)) {
        w->error = error;
        w->at = x;
    }
}

/* fn against truth for every step-th float with |x| in [low, high], both signs; the error in ulp of the truth, or, below
 * floor, relative to that. */
static struct worst sweep(float (*fn)(float), double (*truth)(double), float low, float high, uint32_t step, double floor_)
{
    struct worst w = {0};
    for (uint32_t b = bits_of(low); b <= bits_of(high); b += step)
        for (int sign = 0; sign < 2; sign++) {
            float x = sign ? -float_of(b) : float_of(b);
            double t = truth(x), unit = ulp_at(fabs(t) > floor_ ? t : floor_);
            note_worst(&w, fabs(fn(x) - t) / unit, x);
        }
    return w;
}

static float exp_f(float x)
{
    return sc_expf(x);
}

static float tanh_f(float x)
{
    return sc_tanhf(x);
}

static float silu_f(float x)
{
    return sc_siluf(x);
}

static float gelu_f(float x)
{
    return sc_geluf(x);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void bounded(struct worst w, double bound, const char *what)
{
    ok(w.error <= bound, "%s: within %g (largest %.4g at %.9g, %llu values)", what, bound, w.error, w.at, (unsigned long long)w.n);
}

static void test_floats(void)
{
    bounded(sweep(exp_f, exp, 1e-9f, 85.99f, 211, 0), 3, "sc_expf in ulp");
    bounded(sweep(tanh_f, tanh, 1e-7f, 40, 211, 1), 3, "sc_tanhf in ulp of 1");
    bounded(sweep(silu_f, silu, 1e-9f, 80, 211, 0x1p-100), 4, "sc_siluf in ulp");
    /* e^-2u: the rounding of u counts u times */
    bounded(sweep(gelu_f, gelu, 1e-9f, 3, 211, 0), 24, "sc_geluf up to 3 in ulp");
    bounded(sweep(gelu_f, gelu, 3, 40, 211, 1), 2, "sc_geluf beyond 3 in ulp of at least 1");
}

static void test_special_floats(void)
{
    ok(sc_expf(0) == 1 && sc_expf(-0.0f) == 1, "e^0 is 1");
    ok(sc_expf(-86.01f) == 0 && sc_expf(-1e30f) == 0 && sc_expf(-INFINITY) == 0, "e^x below -86 is 0");
    ok(sc_expf(-86.0f) >= 0x1p-126f, "e^-86 is a normal number");
    ok(sc_expf(INFINITY) == INFINITY && sc_expf(1e30f) == INFINITY && sc_expf(88.8f) == INFINITY, "e^x over 88.8 is inf");
    ok(isfinite(sc_expf(88.7f)), "e^88.7 is finite");
    ok(sc_tanhf(0) == 0 && !signbit(sc_tanhf(0)) && signbit(sc_tanhf(-0.0f)), "tanh 0 keeps its sign");
    ok(sc_tanhf(50) == 1 && sc_tanhf(-INFINITY) == -1, "tanh of much is 1");
    ok(sc_siluf(0) == 0 && sc_siluf(100) == 100 && sc_siluf(-1000) == 0, "silu at 0 and far out");
    ok(sc_geluf(0) == 0 && sc_geluf(100) == 100 && sc_geluf(-100) == 0, "gelu at 0 and far out");
    ok(isnan(sc_siluf(NAN)) && isnan(sc_geluf(NAN)) && isnan(sc_tanhf(NAN)), "what is no number stays none");
    ok(!(sc_expf(NAN) <= 0x1.fffffep127f), "e^NaN is no finite number");
}

static void test_doubles(void)
{
    struct worst e = {0}, l = {0}, s = {0};
    for (double x = -699; x < 699; x += 0.00390137)
        note_worst(&e, fabs(sc_exp(x) / exp(x) - 1), x);
    bounded(e, 1e-15, "sc_exp, relative");
    for (double x = 1e-300; x < 1e300; x *= 1.00371)
        note_worst(&l, fabs(sc_log(x) - log(x)) / fmax(1, fabs(log(x))), x);
    for (double x = 0.5; x < 2; x += 1.3e-6)
        note_worst(&l, fabs(sc_log(x) - log(x)), x);
    bounded(l, 1e-15, "sc_log, absolute up to 1, relative beyond");
    for (double x = -0x1p20; x < 0x1p20; x += 0.737) {
        double sine, cosine;
        sc_sincos(x, &sine, &cosine);
        note_worst(&s, fmax(fabs(sine - sin(x)), fabs(cosine - cos(x))), x);
    }
    for (double x = -10; x < 10; x += 1.7e-5) {
        double sine, cosine;
        sc_sincos(x, &sine, &cosine);
        note_worst(&s, fmax(fabs(sine - sin(x)), fabs(cosine - cos(x))), x);
    }
    bounded(s, 1e-15, "sc_sincos up to 2^20, absolute");
    /* the longest context times the highest frequency that a model may have */
    s = (struct worst){0};
    for (double x = 0x1p20; x < 0x1p28; x *= 1.000037) {
        double sine, cosine;
        sc_sincos(x, &sine, &cosine);
        note_worst(&s, fmax(fabs(sine - sin(x)), fabs(cosine - cos(x))), x);
    }
    bounded(s, 1e-7, "sc_sincos up to 2^28, absolute");
    ok(sc_exp(0) == 1 && sc_exp(-701) == 0 && sc_exp(701) == HUGE_VAL && sc_log(1) == 0, "exp and log at their borders");
}

/* --- halves ------------------------------------------------------------------------------------------------------------- */

static double half_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
    return h & 0x8000 ? -v : v;
}

/* Nearest half, ties to even: scaled so that the half's last bit is 1, and rounded there by hand. */
static uint16_t half_of(float f)
{
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    double v = fabs((double)f), scaled, whole;
    int e;
    if (isnan(f))
        return sign | 0x7E00;
    if (v == 0)
        return sign;
    frexp(v, &e); /* v = 0.5…1 * 2^e */
    e = e < -13 ? -13 : e;
    if (e > 16)
        return sign | 0x7C00;
    scaled = ldexp(v, 11 - e); /* below 2048 */
    whole = floor(scaled);
    if (scaled - whole > 0.5 || (scaled - whole == 0.5 && fmod(whole, 2) == 1))
        whole += 1;
    uint32_t h = (uint32_t)whole + (uint32_t)((e + 13) << 10); /* the leading bit, where there is one, raises the exponent */
    return (uint16_t)(sign | (h > 0x7C00 ? 0x7C00 : h));
}

static void test_halves(void)
{
    int wrong = 0, back = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sc_f16_to_f32((uint16_t)h);
        double v = half_value((uint16_t)h);
        bool nan = isnan(v);
        wrong += nan ? !isnan(f) : f != v || !signbit(f) != !signbit(v);
        back += nan ? !isnan(half_value(sc_f32_to_f16(f))) : sc_f32_to_f16(f) != h;
    }
    is_int(wrong, 0, "65536 halves to float");
    is_int(back, 0, "and back");

    uint64_t n = 0, differ = 0;
    uint32_t first = 0;
    for (uint64_t b = 0; b <= UINT32_MAX; b += 997, n++)
        if (sc_f32_to_f16(float_of((uint32_t)b)) != half_of(float_of((uint32_t)b)) && differ++ == 0)
            first = (uint32_t)b;
    is_int(differ, 0, "%llu floats to half, nearest even (first wrong: 0x%08x)", (unsigned long long)n, first);

    /* every border between two halves, and its neighbours */
    differ = 0;
    for (uint32_t h = 0; h < 0x7C00; h++) {
        float middle = (float)((half_value((uint16_t)h) + (h == 0x7BFF ? 65536 : half_value((uint16_t)(h + 1)))) / 2);
        for (int d = -1; d <= 1; d++) {
            float f = float_of(bits_of(middle) + (uint32_t)d);
            differ += sc_f32_to_f16(f) != half_of(f) || sc_f32_to_f16(-f) != half_of(-f);
        }
    }
    is_int(differ, 0, "middles of all neighbouring halves, and the floats beside them");
    is_int(sc_f32_to_f16(65519.996f), 0x7BFF, "the last float below 65520 is the largest half");
    is_int(sc_f32_to_f16(65520), 0x7C00, "65520 is inf");
    is_int(sc_f32_to_f16(-INFINITY), 0xFC00, "-inf");
    is_int(sc_f32_to_f16(0x1p-25f), 0, "half of the smallest half rounds to even, 0");
    is_int(sc_f32_to_f16(nextafterf(0x1p-25f, 1)), 1, "a little more rounds up");
}

static void test_bfloat(void)
{
    int wrong = 0;
    for (uint32_t h = 0; h < 65536; h++)
        wrong += bits_of(sc_bf16_to_f32((uint16_t)h)) != h << 16;
    is_int(wrong, 0, "65536 bfloat16");
}

int main(void)
{
    test_floats();
    test_special_floats();
    test_doubles();
    test_halves();
    test_bfloat();
    return tap_done();
}
