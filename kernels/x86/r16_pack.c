/* Rows of a GGUF into LAYOUT_R16 (r16.h), 16 rows at a time: a gather of 4 bytes at one offset of 16 rows is a k-group of raw
 * bits, so that packing is gathers, shifts and masks. Reads each byte of the file's rows about once. */
#include <immintrin.h>
#include <string.h>

#include "kernels/x86/x86.h"
#include "kernels/x86/r16.h"

struct rows {
    const uint8_t *base;
    size_t stride;
    uint32_t n; /* 1 to 16; the others are zeros */
    __m512i index;
    __mmask16 mask;
};

static __m512i bytes_at(const struct rows *s, size_t offset)
{
    return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), s->mask, s->index, s->base + offset, 1);
}

/* (v >> shift) & mask in every byte; shift is below 8. */
static __m512i bits_of(__m512i v, unsigned shift, unsigned mask)
{
    return _mm512_and_si512(_mm512_srl_epi32(v, _mm_cvtsi32_si128((int)shift)), _mm512_set1_epi8((char)mask));
}

static __m512i shifted_left(__m512i v, unsigned shift)
{
    return _mm512_sll_epi32(v, _mm_cvtsi32_si128((int)shift));
}

static void store(uint8_t *to, __m512i v)
{
    _mm512_storeu_si512(to, v);
}

/* The 16 rows' two bytes at offset. */
static void put_halves(const struct rows *s, size_t offset, uint8_t *to)
{
    memset(to, 0, 32);
    for (uint32_t r = 0; r < s->n; r++)
        memcpy(to + 2 * r, s->base + r * s->stride + offset, 2);
}

static void put_bytes(const struct rows *s, size_t offset, uint8_t *to)
{
    memset(to, 0, 16);
    for (uint32_t r = 0; r < s->n; r++)
        to[r] = s->base[r * s->stride + offset];
}

static void put_nibbles(const __m512i kg[8], uint8_t *to)
{
    for (int i = 0; i < 4; i++)
        store(to + 64 * i, _mm512_or_si512(kg[i], shifted_left(kg[i + 4], 4)));
}

static void put_two_bits(const __m512i kg[8], uint8_t *to)
{
    for (int i = 0; i < 2; i++) {
        __m512i v = kg[4 * i];
        for (unsigned f = 1; f < 4; f++)
            v = _mm512_or_si512(v, shifted_left(kg[4 * i + (int)f], 2 * f));
        store(to + 64 * i, v);
    }
}

static void put_one_bits(const __m512i kg[8], uint8_t *to)
{
    __m512i v = kg[0];
    for (unsigned g = 1; g < 8; g++)
        v = _mm512_or_si512(v, shifted_left(kg[g], g));
    store(to, v);
}

/* Fifth bits of Q5_0 and Q5_1: bit 4g + t of a row's word is byte t of k-group g. */
static void put_word_bits(__m512i words, uint8_t *to)
{
    __m512i kg[8];
    for (unsigned g = 0; g < 8; g++) {
        __m512i four = _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128((int)(4 * g))), _mm512_set1_epi32(15));
        kg[g] = _mm512_and_si512(_mm512_mullo_epi32(four, _mm512_set1_epi32(0x00204081)), _mm512_set1_epi32(0x01010101));
    }
    put_one_bits(kg, to);
}

/* A block of 32 whose 16 bytes of nibbles at qs already have our order. */
static void put_plain_nibbles(const struct rows *s, size_t qs, uint8_t *to)
{
    for (size_t i = 0; i < 4; i++)
        store(to + 64 * i, bytes_at(s, qs + 4 * i));
}

/* --- types of 32 --------------------------------------------------------------------------------------------------------- */

static void pack_unit32(enum quant_type type, const struct rows *s, size_t at, uint8_t *scales, uint8_t *ints)
{
    switch (type) {
    case QUANT_Q4_0:
    case QUANT_IQ4_NL:
        put_halves(s, at, scales);
        put_plain_nibbles(s, at + 2, ints);
        break;
    case QUANT_Q4_1:
        put_halves(s, at, scales);
        put_halves(s, at + 2, scales + 32);
        put_plain_nibbles(s, at + 4, ints);
        break;
    case QUANT_Q5_0:
        put_halves(s, at, scales);
        put_plain_nibbles(s, at + 6, ints);
        put_word_bits(bytes_at(s, at + 2), ints + 256);
        break;
    case QUANT_Q5_1:
        put_halves(s, at, scales);
        put_halves(s, at + 2, scales + 32);
        put_plain_nibbles(s, at + 8, ints);
        put_word_bits(bytes_at(s, at + 4), ints + 256);
        break;
    case QUANT_MXFP4:
        put_bytes(s, at, scales);
        put_plain_nibbles(s, at + 1, ints);
        break;
    default: /* QUANT_Q8_0 */
        put_halves(s, at, scales);
        for (size_t i = 0; i < 8; i++)
            store(ints + 64 * i, _mm512_xor_si512(bytes_at(s, at + 2 + 4 * i), _mm512_set1_epi8((char)0x80)));
        break;
    }
}

/* --- types of 256: one unit u of 0 to 7 ---------------------------------------------------------------------------------- */

static void k4_scales(const struct rows *s, size_t at, unsigned u, uint8_t *scales)
{
    memset(scales, 0, 32);
    for (uint32_t r = 0; r < s->n; r++) {
        const uint8_t *p = s->base + r * s->stride + at;
        scales[r] = u < 4 ? p[u] & 63 : (uint8_t)((p[u + 4] & 15) | p[u - 4] >> 6 << 4);
        scales[16 + r] = u < 4 ? p[u + 4] & 63 : (uint8_t)(p[u + 4] >> 4 | p[u] >> 6 << 4);
    }
}

static void q3_scales(const struct rows *s, size_t at, unsigned u, uint8_t *scales)
{
    memset(scales, 0, 32);
    for (uint32_t r = 0; r < s->n; r++)
        for (unsigned h = 0; h < 2; h++) {
            const uint8_t *p = s->base + r * s->stride + at;
            unsigned g = 2 * u + h;
            int low = g < 8 ? p[g] & 15 : p[g - 8] >> 4, high = p[8 + g % 4] >> (g / 4 * 2) & 3;
            scales[16 * h + r] = (uint8_t)((low | high << 4) - 32);
        }
}

static void iq4_xs_scales(const struct rows *s, size_t at, unsigned u, uint8_t *scales)
{
    memset(scales, 0, 16);
    for (uint32_t r = 0; r < s->n; r++) {
        const uint8_t *p = s->base + r * s->stride + at;
        int v = (p[4 + u / 2] >> (u % 2 * 4) & 15) | ((p[2] | p[3] << 8) >> (2 * u) & 3) << 4;
        scales[r] = (uint8_t)(v - 32);
    }
}

static void pack_q4_or_q5_k(bool five, const struct rows *s, size_t at, unsigned u, uint8_t *scales, uint8_t *ints)
{
    __m512i kg[8];
    size_t qs = at + (five ? 48 : 16) + u / 2 * 32;
    k4_scales(s, at + 4, u, scales);
    for (size_t i = 0; i < 8; i++)
        kg[i] = bits_of(bytes_at(s, qs + 4 * i), u % 2 * 4, 15);
    put_nibbles(kg, ints);
    if (!five)
        return;
    for (size_t i = 0; i < 8; i++)
        kg[i] = bits_of(bytes_at(s, at + 16 + 4 * i), u, 1);
    put_one_bits(kg, ints + 256);
}

static void pack_q6_k(const struct rows *s, size_t at, unsigned u, uint8_t *scales, uint8_t *ints)
{
    __m512i kg[8];
    unsigned half = u / 4, run = u % 4;
    put_bytes(s, at + 192 + 2 * u, scales);
    put_bytes(s, at + 193 + 2 * u, scales + 16);
    for (size_t i = 0; i < 8; i++)
        kg[i] = bits_of(bytes_at(s, at + half * 64 + run % 2 * 32 + 4 * i), run / 2 * 4, 15);
    put_nibbles(kg, ints);
    for (size_t i = 0; i < 8; i++)
        kg[i] = bits_of(bytes_at(s, at + 128 + half * 32 + 4 * i), 2 * run, 3);
    put_two_bits(kg, ints + 256);
}

static void pack_q2_or_q3_k(bool three, const struct rows *s, size_t at, unsigned u, uint8_t *scales, uint8_t *ints)
{
    __m512i kg[8];
    for (size_t i = 0; i < 8; i++)
        kg[i] = bits_of(bytes_at(s, at + (three ? 32 : 16) + u / 4 * 32 + 4 * i), u % 4 * 2, 3);
    put_two_bits(kg, ints);
    if (!three) {
        put_bytes(s, at + 2 * u, scales);
        put_bytes(s, at + 2 * u + 1, scales + 16);
        return;
    }
    q3_scales(s, at + 96, u, scales);
    for (size_t i = 0; i < 8; i++)
        kg[i] = bits_of(bytes_at(s, at + 4 * i), u, 1);
    put_one_bits(kg, ints + 128);
}

static void pack_iq4_xs(const struct rows *s, size_t at, unsigned u, uint8_t *scales, uint8_t *ints)
{
    iq4_xs_scales(s, at, u, scales);
    put_plain_nibbles(s, at + 8 + 16 * u, ints);
}

static void pack_head(enum quant_type type, const struct rows *s, size_t at, uint8_t *head)
{
    size_t d = type == QUANT_Q2_K ? 80 : type == QUANT_Q3_K ? 108 : type == QUANT_Q6_K ? 208 : 0;
    put_halves(s, at + d, head);
    if (r16_forms[type].has_min)
        put_halves(s, at + d + 2, head + 32);
}

static void pack_unit256(enum quant_type type, const struct rows *s, size_t at, unsigned u, uint8_t *scales, uint8_t *ints)
{
    switch (type) {
    case QUANT_Q2_K: pack_q2_or_q3_k(false, s, at, u, scales, ints); break;
    case QUANT_Q3_K: pack_q2_or_q3_k(true, s, at, u, scales, ints); break;
    case QUANT_Q4_K: pack_q4_or_q5_k(false, s, at, u, scales, ints); break;
    case QUANT_Q5_K: pack_q4_or_q5_k(true, s, at, u, scales, ints); break;
    case QUANT_Q6_K: pack_q6_k(s, at, u, scales, ints); break;
    default: pack_iq4_xs(s, at, u, scales, ints); break;
    }
}

void r16_pack(enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst)
{
    const struct quant_traits *traits = quant_traits(type);
    const struct r16_form *f = &r16_forms[type];
    size_t row_bytes = (size_t)quant_bytes(type, cols), panel_bytes = r16_panel_bytes(type, cols);

    for (uint32_t r = 0; r < n; r += 16) {
        struct rows s = {.base = (const uint8_t *)src + r * row_bytes, .stride = row_bytes, .n = n - r < 16 ? n - r : 16};
        uint8_t *panel = (uint8_t *)dst + (row0 + r) / 16 * panel_bytes;
        s.index = _mm512_mullo_epi32(_mm512_set1_epi32((int)row_bytes),
                                     _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        s.mask = (__mmask16)((1u << s.n) - 1);
        for (size_t u = 0; u < cols / 32; u++) {
            uint8_t *scales = panel + r16_scales_at(f, u), *ints = panel + r16_ints_at(f, u);
            if (!f->head) {
                pack_unit32(type, &s, u * traits->bytes, scales, ints);
                continue;
            }
            if (u % 8 == 0)
                pack_head(type, &s, u / 8 * traits->bytes, panel + r16_head_at(f, u));
            pack_unit256(type, &s, u / 8 * traits->bytes, (unsigned)(u % 8), scales, ints);
        }
    }
}

size_t r16_packed_bytes(enum quant_type type, uint32_t rows, uint32_t cols)
{
    return (size_t)((rows + 15) / 16) * r16_panel_bytes(type, cols);
}
