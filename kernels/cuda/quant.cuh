#ifndef KERNELS_CUDA_QUANT_CUH
#define KERNELS_CUDA_QUANT_CUH

/* The quantized types on the device: from a file's blocks to panels (layout.h), and from a lane's part of a panel to an operand
 * and its scales. */

#include "kernels/cuda/args.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/math.cuh"

/* enum quant_type, whose header C++ does not read. */
enum { T_F32 = 0, T_F16 = 1, T_Q4_0 = 2, T_Q4_1 = 3, T_Q5_0 = 6, T_Q5_1 = 7, T_Q8_0 = 8, T_Q2_K = 10, T_Q3_K = 11, T_Q4_K = 12,
       T_Q5_K = 13, T_Q6_K = 14, T_IQ4_NL = 20, T_IQ4_XS = 23, T_BF16 = 30, T_MXFP4 = 39 };

/* The values of IQ4 and of MXFP4 as four words each: what __byte_perm looks up in. */
DEVICE uint32_t table_word(int type, int i)
{
    if (type == T_MXFP4)
        return i == 0 ? 0x03020100u : i == 1 ? 0x0c080604u : i == 2 ? 0xfdfeff00u : 0xf4f8fafcu;
    return i == 0 ? 0xbfad9881u : i == 1 ? 0xf6eaddcfu : i == 2 ? 0x26190d01u : 0x71594535u;
}

/* Four nibbles (the low 16 bits of s) to four bytes of the table. */
DEVICE uint32_t look_up(int type, uint32_t s)
{
    uint32_t low = __byte_perm(table_word(type, 0), table_word(type, 1), s & 0x7777u);
    uint32_t high = __byte_perm(table_word(type, 2), table_word(type, 3), s & 0x7777u);
    return __byte_perm(low, high, 0x3210u | (s & 0x8888u) >> 1);
}

/* --- a lane's part of a pair of units --------------------------------------------------------------------------------------- */

struct pair_line {
    uint4 nibbles, bytes[2];
    uint2 two;
    uint32_t one;
};

template <int TYPE> DEVICE void load_pair(const uint8_t *pair, uint32_t lane, pair_line *l)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    if (f.nibbles)
        l->nibbles = __ldg((const uint4 *)pair + lane);
    pair += f.nibbles * 512;
    if (f.two_bits)
        l->two = __ldg((const uint2 *)pair + lane);
    pair += f.two_bits * 256;
    if (f.one_bit)
        l->one = __ldg((const uint32_t *)pair + lane);
    pair += f.one_bit * 128;
    if (f.bytes) {
        l->bytes[0] = __ldg((const uint4 *)pair + lane);
        l->bytes[1] = __ldg((const uint4 *)pair + WARP + lane);
    }
}

template <int TYPE> DEVICE void unfold_nibbles(uint32_t w0, uint32_t w1, uint32_t a[4])
{
    if (TYPE == T_IQ4_NL || TYPE == T_IQ4_XS || TYPE == T_MXFP4) {
        uint32_t w[2] = {w0, w1};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t first = look_up(TYPE, w[i]), second = look_up(TYPE, w[i] >> 16); /* rows g and g + 8 in turns */
            a[2 * i] = __byte_perm(first, second, 0x6420);
            a[2 * i + 1] = __byte_perm(first, second, 0x7531);
        }
        return;
    }
    a[0] = w0 & 0x0f0f0f0fu;
    a[1] = w0 >> 4 & 0x0f0f0f0fu;
    a[2] = w1 & 0x0f0f0f0fu;
    a[3] = w1 >> 4 & 0x0f0f0f0fu;
}

/* Signed bytes of unit u (0, 1) of the pair. */
template <int TYPE> DEVICE void unfold(const pair_line &l, int u, uint32_t a[4])
{
    constexpr cuda_form f = cuda_forms[TYPE];
    if (f.bytes) {
        a[0] = l.bytes[u].x;
        a[1] = l.bytes[u].y;
        a[2] = l.bytes[u].z;
        a[3] = l.bytes[u].w;
        return;
    }
    if (f.nibbles)
        unfold_nibbles<TYPE>(u ? l.nibbles.z : l.nibbles.x, u ? l.nibbles.w : l.nibbles.y, a);
    uint32_t two = u ? l.two.y : l.two.x;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (TYPE == T_Q4_0)
            a[r] += (a[r] & 0x08080808u) * 0x1e; /* the sign goes up */
        if (TYPE == T_Q2_K || TYPE == T_Q3_K)
            a[r] = two >> 2 * r & 0x03030303u;
        if (TYPE == T_Q6_K) {
            a[r] |= (two >> 2 * r & 0x03030303u) << 4;
            a[r] += (a[r] & 0x20202020u) * 6;
        }
        if (f.one_bit) {
            uint32_t bit = l.one >> (4 * u + r) & 0x01010101u;
            a[r] += bit * (TYPE == T_Q5_0 ? 0xf0 : TYPE == T_Q3_K ? 0xfc : 0x10);
        }
    }
}

/* --- scales ---------------------------------------------------------------------------------------------------------------- */

/* One row's of a super. */
struct row_scales {
    uint4 a, b;
    uint32_t head;
};

template <int TYPE> DEVICE void load_scales(const uint8_t *super, uint32_t row, row_scales *s)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    const uint8_t *at = super + row * f.scales;
    if (f.scales == 8) {
        uint2 v = __ldg((const uint2 *)at);
        s->a.x = v.x;
        s->a.y = v.y;
    } else {
        s->a = __ldg((const uint4 *)at);
    }
    if (f.scales == 32)
        s->b = __ldg((const uint4 *)at + 1);
    at = super + 16 * f.scales + row * f.head;
    if (f.head == 4)
        s->head = __ldg((const uint32_t *)at);
    if (f.head == 2)
        s->head = __ldg((const uint16_t *)at);
}

DEVICE uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

DEVICE uint32_t byte_of(const uint4 &v, int i)
{
    return word_of(v, i / 4) >> i % 4 * 8 & 0xff;
}

/* Scale of unit u (of the super's eight), half h where groups are 16. */
template <int TYPE> DEVICE float scale_of(const row_scales &s, int u, int h)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    float d = half_to_float((uint16_t)s.head);
    if (TYPE == T_Q4_K || TYPE == T_Q5_K)
        return d * (float)byte_of(s.a, u);
    if (TYPE == T_Q2_K)
        return d * (float)(byte_of(s.a, 2 * u + h) & 15);
    if (TYPE == T_Q3_K || TYPE == T_Q6_K)
        return d * (float)(int8_t)byte_of(s.a, 2 * u + h);
    if (TYPE == T_IQ4_XS)
        return d * (float)(int8_t)byte_of(s.a, u);
    if (TYPE == T_MXFP4) {
        uint32_t e = byte_of(s.a, u);
        return __int_as_float((int32_t)(e < 2 ? 0x200000u << e : (e - 1) << 23));
    }
    if (f.scales == 32)
        return half_to_float((uint16_t)word_of(u < 4 ? s.a : s.b, u % 4));
    return half_to_float((uint16_t)(word_of(s.a, u / 2) >> u % 2 * 16));
}

template <int TYPE> DEVICE float min_of(const row_scales &s, int u, int h)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    float dmin = half_to_float((uint16_t)(s.head >> 16));
    if (TYPE == T_Q4_K || TYPE == T_Q5_K)
        return -(dmin * (float)byte_of(s.a, 8 + u));
    if (TYPE == T_Q2_K)
        return -(dmin * (float)(byte_of(s.a, 2 * u + h) >> 4));
    if (f.scales == 32)
        return half_to_float((uint16_t)(word_of(u < 4 ? s.a : s.b, u % 4) >> 16));
    return 0;
}

/* --- packing --------------------------------------------------------------------------------------------------------------- */

DEVICE uint32_t half_bytes(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

/* Elements and bytes of a file's block. */
DEVICE uint32_t block_of_type(int type)
{
    return type == T_Q2_K || type == T_Q3_K || type == T_Q4_K || type == T_Q5_K || type == T_Q6_K || type == T_IQ4_XS ? 256 : 32;
}

DEVICE uint32_t block_bytes_of(int type)
{
    switch (type) {
    case T_Q4_0: case T_IQ4_NL: return 18;
    case T_Q4_1: return 20;
    case T_Q5_0: return 22;
    case T_Q5_1: return 24;
    case T_Q8_0: return 34;
    case T_Q2_K: return 84;
    case T_Q3_K: return 110;
    case T_Q4_K: return 144;
    case T_Q5_K: return 176;
    case T_Q6_K: return 210;
    case T_IQ4_XS: return 136;
    default: return 17;
    }
}

/* A nibble of 16 bytes whose low ones come first. */
DEVICE uint32_t nibble(const uint8_t *qs, uint32_t e)
{
    return qs[e % 16] >> e / 16 * 4 & 15;
}

/* Element e of a block as it is stored in a panel: low bits (nibble, two bits or byte) | high bits << 8. */
DEVICE uint32_t stored(int type, const uint8_t *b, uint32_t e)
{
    uint32_t run = e / 32 % 4, l = e % 32, half = e / 128;
    switch (type) {
    case T_Q4_0: return nibble(b + 2, e) ^ 8;
    case T_Q4_1: return nibble(b + 4, e);
    case T_Q5_0: return nibble(b + 6, e) | (~(uint32_t)b[2 + e / 8] >> e % 8 & 1) << 8;
    case T_Q5_1: return nibble(b + 8, e) | ((uint32_t)b[4 + e / 8] >> e % 8 & 1) << 8;
    case T_Q8_0: return b[2 + e];
    case T_Q2_K: return b[16 + half * 32 + l] >> run * 2 & 3;
    case T_Q3_K: return (b[32 + half * 32 + l] >> run * 2 & 3) | (~(uint32_t)b[l] >> e / 32 & 1) << 8;
    case T_Q4_K: return b[16 + e / 64 * 32 + l] >> e / 32 % 2 * 4 & 15;
    case T_Q5_K: return (b[48 + e / 64 * 32 + l] >> e / 32 % 2 * 4 & 15) | ((uint32_t)b[16 + l] >> e / 32 & 1) << 8;
    case T_Q6_K: return (b[half * 64 + run % 2 * 32 + l] >> run / 2 * 4 & 15) | ((b[128 + half * 32 + l] >> run * 2 & 3) ^ 2) << 8;
    case T_IQ4_NL: return nibble(b + 2, e);
    case T_IQ4_XS: return nibble(b + 8 + e / 32 * 16, l);
    default: return nibble(b + 1, e); /* MXFP4 */
    }
}

/* The bytes of scales of unit u of a block (eight in 256, one in 32), in the row's place `to` for unit `at` of its super. */
DEVICE void pack_scales(int type, const uint8_t *b, uint32_t u, uint8_t *to, uint32_t at)
{
    const uint8_t *s = b + 4;
    switch (type) {
    case T_Q4_1: case T_Q5_1:
        for (int i = 0; i < 4; i++)
            to[4 * at + i] = b[i];
        break;
    case T_Q2_K:
        to[2 * at] = b[2 * u];
        to[2 * at + 1] = b[2 * u + 1];
        break;
    case T_Q3_K:
        for (uint32_t g = 2 * u; g < 2 * u + 2; g++) {
            uint32_t low = g < 8 ? b[96 + g] & 15u : b[96 + g - 8] >> 4, high = b[96 + 8 + g % 4] >> g / 4 * 2 & 3;
            to[2 * at + g % 2] = (uint8_t)((low | high << 4) - 32);
        }
        break;
    case T_Q4_K: case T_Q5_K:
        to[at] = (uint8_t)(u < 4 ? s[u] & 63 : (s[u + 4] & 15) | s[u - 4] >> 6 << 4);
        to[8 + at] = (uint8_t)(u < 4 ? s[u + 4] & 63 : s[u + 4] >> 4 | s[u] >> 6 << 4);
        break;
    case T_Q6_K:
        to[2 * at] = b[192 + 2 * u];
        to[2 * at + 1] = b[193 + 2 * u];
        break;
    case T_IQ4_XS:
        to[at] = (uint8_t)(((b[4 + u / 2] >> u % 2 * 4 & 15) | (half_bytes(b + 2) >> 2 * u & 3) << 4) - 32);
        break;
    case T_MXFP4:
        to[at] = b[0];
        break;
    default: /* Q4_0, Q5_0, Q8_0, IQ4_NL */
        to[2 * at] = b[0];
        to[2 * at + 1] = b[1];
        break;
    }
}

/* Where d (and dmin behind it) stands in a block of 256. */
DEVICE uint32_t head_at(int type)
{
    return type == T_Q2_K ? 80 : type == T_Q3_K ? 108 : type == T_Q6_K ? 208 : 0;
}

#endif
