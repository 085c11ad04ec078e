/* Activations on the wire: every half there is, rounding, ragged rows, and the bound of q8_0. */
#include "proto/act.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

static float as_float(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint16_t half_bits(float f)
{
    uint16_t h;

    act_pack(ACT_F16, 1, 1, &f, &h);
    return h;
}

static float half_value(uint16_t h)
{
    float f;

    act_unpack(ACT_F16, 1, 1, &h, &f);
    return f;
}

static void test_halves(void)
{
    unsigned wrong = 0, ties = 0;

    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = half_value((uint16_t)h);
        if ((h & 0x7C00) == 0x7C00 && (h & 0x3FF))
            wrong += !isnan(f) || (half_bits(f) & 0x7FFF) <= 0x7C00;
        else
            wrong += half_bits(f) != h;
    }
    is_int(wrong, 0, "every half is itself again");
    for (uint32_t h = 0; h < 0x7BFF; h++) { /* between two neighbours: the middle goes to the even one, all else to the nearer */
        double low = half_value((uint16_t)h), high = half_value((uint16_t)(h + 1)), middle = (low + high) / 2;
        float m = (float)middle;
        ties += half_bits(m) != (h & 1 ? h + 1 : h) || half_bits(nextafterf(m, 0)) != h || half_bits(nextafterf(m, INFINITY)) != h + 1;
        ties += half_bits(-m) != (0x8000 | (h & 1 ? h + 1 : h));
    }
    is_int(ties, 0, "to nearest, ties to even, either sign");
    is_int(half_bits(65504.0f), 0x7BFF, "the largest");
    is_int(half_bits(65519.99f), 0x7BFF, "just below the middle to the next");
    is_int(half_bits(65520.0f), 0x7C00, "the middle is infinity");
    is_int(half_bits(INFINITY), 0x7C00, "infinity");
    is_int(half_bits(-1e30f), 0xFC00, "too big, negative");
    is_int(half_bits(as_float(1)), 0, "the smallest float is 0");
    is_int(half_bits(0x1p-25f), 0, "half of the smallest half is 0");
    is_int(half_bits(nextafterf(0x1p-25f, 1)), 1, "a little more is not");
    is_int(half_bits(-0.0f), 0x8000, "minus zero");
}

static void test_f32(void)
{
    float rows[6] = {1, -2, 3.5f, NAN, INFINITY, -0.0f}, out[6];
    uint8_t packed[1 + sizeof rows];

    act_pack(ACT_F32, 3, 2, rows, packed + 1);
    is_mem(packed + 1, rows, sizeof rows, "f32 is the rows themselves");
    ok(act_unpack(ACT_F32, 3, 2, rows, out) == rows, "aligned rows are not copied");
    ok(act_unpack(ACT_F32, 3, 2, packed + 1, out) == out && memcmp(out, rows, sizeof rows) == 0, "others are");
}

static void test_q8_0(void)
{
    static const uint32_t widths[] = {1, 31, 32, 33, 64, 100, 4096};

    srand(3);
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        uint32_t n = widths[w];
        size_t bytes = act_row_bytes(ACT_Q8_0, n);
        float *x = malloc(3 * n * sizeof *x), *y = malloc(3 * n * sizeof *y);
        uint8_t *packed = malloc(3 * bytes + 1);
        bool good = true;
        packed[3 * bytes] = 0xA5;
        for (uint32_t i = 0; i < 3 * n; i++)
            x[i] = (float)(rand() % 20001 - 10000) * (i % 7 ? 0.001f : 1e-7f);
        act_pack(ACT_Q8_0, n, 3, x, packed);
        act_unpack(ACT_Q8_0, n, 3, packed, y);
        for (size_t row = 0; row < 3; row++)
            for (uint32_t b = 0; b < n; b += ACT_BLOCK) {
                uint32_t end = b + ACT_BLOCK < n ? b + ACT_BLOCK : n;
                float amax = 0;
                for (uint32_t i = b; i < end; i++)
                    amax = fmaxf(amax, fabsf(x[row * n + i]));
                for (uint32_t i = b; i < end; i++) /* half a step, and what the scale lost by becoming a half */
                    good &= fabsf(x[row * n + i] - y[row * n + i]) <= amax / 127 * 0.5f + amax * 0x1p-11f + 1e-7f;
            }
        ok(good && packed[3 * bytes] == 0xA5, "rows of %u: within half a step, and not a byte more", n);
        free(x);
        free(y);
        free(packed);
    }
    float special[64] = {[3] = NAN, [40] = 1}, back[64];
    uint8_t packed[2 * 34];
    act_pack(ACT_Q8_0, 64, 1, special, packed);
    act_unpack(ACT_Q8_0, 64, 1, packed, back);
    ok(isnan(back[3]) && back[40] > 0.99f && back[40] < 1.01f, "what is no number spoils its block, and that can be seen");
    memset(special, 0, sizeof special);
    act_pack(ACT_Q8_0, 64, 1, special, packed);
    act_unpack(ACT_Q8_0, 64, 1, packed, back);
    ok(back[0] == 0 && back[63] == 0, "zeros are zeros");
}

int main(void)
{
    test_halves();
    test_f32();
    test_q8_0();
    is_int(act_row_bytes(ACT_Q8_0, 4096), 4096 / 32 * 34, "bytes of a row");
    is_str(act_name(ACT_Q8_0), "q8_0", "a name");
    ok(!act_name(ACT_TYPES), "no name");
    return tap_done();
}
