/* Rows of a GGUF into LAYOUT_R16 (r16.h), and single ones back. A row is taken 32 weights at a time as eight words of four bytes, in plain integer
 * arithmetic on words; word i of a unit then goes to its row's place in line i. Done once, while a model loads, on rows that
 * were just read: it has to keep up with reading, no more. Little-endian, as GGUF and every machine we run on. */
#include "kernels/r16.h"

#include <string.h>

#include "kernels/fmath.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of packed integers are little-endian");

/* Every function here is taken into pack_panel once for each type, so that the type is a constant in its loops. */
#define INLINE static inline __attribute__((always_inline))
#define BYTES(x) ((uint32_t)(x) * 0x01010101u)

static inline uint32_t word(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Row `lane`'s word of a line. */
INLINE void put(uint8_t *line, uint32_t lane, uint32_t v)
{
    memcpy(line + 4 * lane, &v, sizeof v);
}

/* Eight words of 4-bit numbers. */
INLINE void put_nibbles(const uint32_t v[8], uint8_t *ints, uint32_t lane)
{
    for (int i = 0; i < 4; i++)
        put(ints + 64 * i, lane, v[i] | v[i + 4] << 4);
}

INLINE void put_two_bits(const uint32_t v[8], uint8_t *ints, uint32_t lane)
{
    for (int i = 0; i < 2; i++)
        put(ints + 64 * i, lane, v[4 * i] | v[4 * i + 1] << 2 | v[4 * i + 2] << 4 | v[4 * i + 3] << 6);
}

INLINE void put_one_bits(const uint32_t v[8], uint8_t *line, uint32_t lane)
{
    uint32_t all = 0;
    for (int g = 0; g < 8; g++)
        all |= v[g] << g;
    put(line, lane, all);
}

/* 32 bytes at p, each shifted and masked. */
INLINE void take_bits(const uint8_t *p, unsigned shift, unsigned mask, uint32_t v[8])
{
    for (int i = 0; i < 8; i++)
        v[i] = word(p + 4 * i) >> shift & BYTES(mask);
}

/* 16 bytes of nibbles whose low ones are the first 16 weights: our order already. */
INLINE void copy_nibbles(const uint8_t *qs, uint8_t *ints, uint32_t lane)
{
    for (int i = 0; i < 4; i++)
        put(ints + 64 * i, lane, word(qs + 4 * i));
}

/* The fifth bits of Q5_0 and Q5_1: bit j of a word for weight j. */
INLINE void put_word_bits(const uint8_t *qh, uint8_t *line, uint32_t lane)
{
    uint32_t bits = word(qh), v[8];
    for (int g = 0; g < 8; g++)
        v[g] = (bits >> (4 * g) & 15) * 0x00204081u & BYTES(1);
    put_one_bits(v, line, lane);
}

/* --- blocks of 32 --------------------------------------------------------------------------------------------------------- */

INLINE void pack_block32(enum quant_type type, const uint8_t *b, uint32_t lane, uint8_t *scales, uint8_t *ints)
{
    switch (type) {
    case QUANT_Q4_1:
        memcpy(scales + 32 + 2 * lane, b + 2, 2);
        copy_nibbles(b + 4, ints, lane);
        break;
    case QUANT_Q5_0:
        copy_nibbles(b + 6, ints, lane);
        put_word_bits(b + 2, ints + 256, lane);
        break;
    case QUANT_Q5_1:
        memcpy(scales + 32 + 2 * lane, b + 2, 2);
        copy_nibbles(b + 8, ints, lane);
        put_word_bits(b + 4, ints + 256, lane);
        break;
    case QUANT_Q8_0:
        for (int i = 0; i < 8; i++)
            put(ints + 64 * i, lane, word(b + 2 + 4 * i) ^ BYTES(0x80));
        break;
    case QUANT_MXFP4:
        scales[lane] = b[0];
        copy_nibbles(b + 1, ints, lane);
        return;
    default: copy_nibbles(b + 2, ints, lane); break; /* Q4_0, IQ4_NL */
    }
    memcpy(scales + 2 * lane, b, 2);
}

/* --- blocks of 256: their eight units at once ------------------------------------------------------------------------------ */

/* Eight units' places for one row. */
struct units {
    uint8_t *scales, *ints; /* of the first */
    size_t scales_step, ints_step;
    uint32_t lane;
};

INLINE uint8_t *scale_of(const struct units *to, unsigned u, unsigned which)
{
    return to->scales + u * to->scales_step + 16 * which + to->lane;
}

INLINE void put_k4_scales(const uint8_t *s, const struct units *to)
{
    uint32_t a = word(s), b = word(s + 4), c = word(s + 8);
    uint32_t v[4] = {a & BYTES(63), (c & BYTES(15)) | (a >> 6 & BYTES(3)) << 4, b & BYTES(63), (c >> 4 & BYTES(15)) | (b >> 6 & BYTES(3)) << 4};
    for (unsigned u = 0; u < 8; u++) {
        *scale_of(to, u, 0) = (uint8_t)(v[u / 4] >> (u % 4 * 8));
        *scale_of(to, u, 1) = (uint8_t)(v[2 + u / 4] >> (u % 4 * 8));
    }
}

INLINE void pack_q4_q5_k(bool five, const uint8_t *b, const struct units *to)
{
    uint32_t v[8];
    put_k4_scales(b + 4, to);
    for (unsigned u = 0; u < 8; u++) {
        uint8_t *ints = to->ints + u * to->ints_step;
        take_bits(b + (five ? 48 : 16) + u / 2 * 32, u % 2 * 4, 15, v);
        put_nibbles(v, ints, to->lane);
        if (five) {
            take_bits(b + 16, u, 1, v);
            put_one_bits(v, ints + 256, to->lane);
        }
    }
}

INLINE void pack_q6_k(const uint8_t *b, const struct units *to)
{
    uint32_t v[8];
    for (unsigned u = 0; u < 8; u++) {
        uint8_t *ints = to->ints + u * to->ints_step;
        *scale_of(to, u, 0) = b[192 + 2 * u];
        *scale_of(to, u, 1) = b[193 + 2 * u];
        take_bits(b + u / 4 * 64 + u % 2 * 32, u % 4 / 2 * 4, 15, v);
        put_nibbles(v, ints, to->lane);
        take_bits(b + 128 + u / 4 * 32, u % 4 * 2, 3, v);
        put_two_bits(v, ints + 256, to->lane);
    }
}

INLINE void pack_q2_k(const uint8_t *b, const struct units *to)
{
    uint32_t v[8];
    for (unsigned u = 0; u < 8; u++) {
        *scale_of(to, u, 0) = b[2 * u];
        *scale_of(to, u, 1) = b[2 * u + 1];
        take_bits(b + 16 + u / 4 * 32, u % 4 * 2, 3, v);
        put_two_bits(v, to->ints + u * to->ints_step, to->lane);
    }
}

INLINE void pack_q3_k(const uint8_t *b, const struct units *to)
{
    const uint8_t *s = b + 96;
    uint32_t v[8];
    for (unsigned g = 0; g < 16; g++) {
        int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> (g / 4 * 2) & 3;
        *scale_of(to, g / 2, g % 2) = (uint8_t)((low | high << 4) - 32);
    }
    for (unsigned u = 0; u < 8; u++) {
        uint8_t *ints = to->ints + u * to->ints_step;
        take_bits(b + 32 + u / 4 * 32, u % 4 * 2, 3, v);
        put_two_bits(v, ints, to->lane);
        take_bits(b, u, 1, v);
        put_one_bits(v, ints + 128, to->lane);
    }
}

INLINE void pack_iq4_xs(const uint8_t *b, const struct units *to)
{
    unsigned high = b[2] | (unsigned)b[3] << 8;
    for (unsigned u = 0; u < 8; u++) {
        int s = (b[4 + u / 2] >> (u % 2 * 4) & 15) | (int)(high >> (2 * u) & 3) << 4;
        *scale_of(to, u, 0) = (uint8_t)(s - 32);
        copy_nibbles(b + 8 + 16 * u, to->ints + u * to->ints_step, to->lane);
    }
}

INLINE void pack_block256(enum quant_type type, const uint8_t *b, uint8_t *head, const struct units *to)
{
    size_t d = type == QUANT_Q2_K ? 80 : type == QUANT_Q3_K ? 108 : type == QUANT_Q6_K ? 208 : 0;
    memcpy(head + 2 * to->lane, b + d, 2);
    if (r16_forms[type].has_min)
        memcpy(head + 32 + 2 * to->lane, b + d + 2, 2);
    switch (type) {
    case QUANT_Q2_K: pack_q2_k(b, to); break;
    case QUANT_Q3_K: pack_q3_k(b, to); break;
    case QUANT_Q4_K: pack_q4_q5_k(false, b, to); break;
    case QUANT_Q5_K: pack_q4_q5_k(true, b, to); break;
    case QUANT_Q6_K: pack_q6_k(b, to); break;
    default: pack_iq4_xs(b, to); break;
    }
}

/* --- panels --------------------------------------------------------------------------------------------------------------- */

INLINE void pack_panel(enum quant_type type, const uint8_t *src, uint32_t rows, uint32_t cols, uint8_t *panel)
{
    const struct r16_form *f = &r16_forms[type];
    const struct quant_traits *traits = quant_traits(type);
    size_t row_bytes = (size_t)quant_bytes(type, cols);

    if (rows < 16)
        memset(panel, 0, r16_panel_bytes(type, cols));
    for (size_t block = 0; block < cols / traits->block; block++) {
        size_t u = block * traits->block / 32;
        struct units to = {panel + r16_scales_at(f, u), panel + r16_ints_at(f, u), f->scales, f->ints, 0};
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *b = src + r * row_bytes + block * traits->bytes;
            to.lane = r;
            if (f->head)
                pack_block256(type, b, panel + r16_head_at(f, u), &to);
            else
                pack_block32(type, b, r, to.scales, to.ints);
        }
    }
}

void r16_pack(enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst)
{
    size_t row_bytes = (size_t)quant_bytes(type, cols), panel_bytes = r16_panel_bytes(type, cols);
    for (uint32_t r = 0; r < n; r += 16) {
        const uint8_t *from = (const uint8_t *)src + r * row_bytes;
        uint8_t *panel = (uint8_t *)dst + (row0 + r) / 16 * panel_bytes;
        uint32_t rows = n - r < 16 ? n - r : 16;
        switch (type) {
#define CASE(t) \
    case t: rows == 16 ? pack_panel(t, from, 16, cols, panel) : pack_panel(t, from, rows, cols, panel); break;
            CASE(QUANT_Q4_0) CASE(QUANT_Q4_1) CASE(QUANT_Q5_0) CASE(QUANT_Q5_1) CASE(QUANT_Q8_0) CASE(QUANT_Q2_K) CASE(QUANT_Q3_K)
            CASE(QUANT_Q4_K) CASE(QUANT_Q5_K) CASE(QUANT_Q6_K) CASE(QUANT_IQ4_NL) CASE(QUANT_IQ4_XS) CASE(QUANT_MXFP4)
#undef CASE
        default: break; /* r16_forms has no other */
        }
    }
}

size_t r16_packed_bytes(enum quant_type type, uint32_t rows, uint32_t cols)
{
    return (size_t)((rows + 15) / 16) * r16_panel_bytes(type, cols);
}

/* --- back ----------------------------------------------------------------------------------------------------------------- */

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static uint32_t word_of(const uint8_t *line, uint32_t lane)
{
    return word(line + 4 * lane);
}

/* One row's 32 numbers of a unit as they are stored, in eight words. */
static void stored_words(enum quant_type type, const uint8_t *ints, uint32_t lane, uint32_t v[8])
{
    bool two_bits = type == QUANT_Q2_K || type == QUANT_Q3_K, fifth = type == QUANT_Q5_0 || type == QUANT_Q5_1 || type == QUANT_Q5_K;
    for (int g = 0; g < 8; g++) {
        if (type == QUANT_Q8_0)
            v[g] = word_of(ints + 64 * g, lane);
        else if (two_bits)
            v[g] = word_of(ints + 64 * (g / 4), lane) >> (2 * (g % 4)) & BYTES(3);
        else
            v[g] = word_of(ints + 64 * (g % 4), lane) >> (4 * (g / 4)) & BYTES(15);
        if (type == QUANT_Q6_K)
            v[g] |= (word_of(ints + 256 + 64 * (g / 4), lane) >> (2 * (g % 4)) & BYTES(3)) << 4;
        if (fifth)
            v[g] |= (word_of(ints + 256, lane) >> g & BYTES(1)) << 4;
        if (type == QUANT_Q3_K)
            v[g] |= (word_of(ints + 128, lane) >> g & BYTES(1)) << 2;
    }
}

static float half_of(const uint8_t *halves, uint32_t lane)
{
    return sc_f16_to_f32((uint16_t)(halves[2 * lane] | halves[2 * lane + 1] << 8));
}

/* Scale and minimum of one row in a unit's half h. */
static void scale_and_min(enum quant_type type, const uint8_t *head, const uint8_t *s, uint32_t lane, uint32_t h, float *scale, float *min)
{
    uint32_t bits;
    switch (type) {
    case QUANT_Q4_1:
    case QUANT_Q5_1: *min = half_of(s + 32, lane); *scale = half_of(s, lane); break;
    case QUANT_Q4_K:
    case QUANT_Q5_K: *min = -(half_of(head + 32, lane) * (float)s[16 + lane]); *scale = half_of(head, lane) * (float)s[lane]; break;
    case QUANT_Q2_K:
        *min = -(half_of(head + 32, lane) * (float)(s[16 * h + lane] >> 4));
        *scale = half_of(head, lane) * (float)(s[16 * h + lane] & 15);
        break;
    case QUANT_Q3_K:
    case QUANT_Q6_K: *scale = half_of(head, lane) * (float)(int8_t)s[16 * h + lane]; break;
    case QUANT_IQ4_XS: *scale = half_of(head, lane) * (float)(int8_t)s[lane]; break;
    case QUANT_MXFP4:
        bits = s[lane] < 2 ? 0x200000u << s[lane] : (uint32_t)(s[lane] - 1) << 23;
        memcpy(scale, &bits, sizeof *scale);
        break;
    default: *scale = half_of(s, lane); break;
    }
}

void r16_row(const struct weight *w, uint32_t j, float *out)
{
    const struct r16_form *f = &r16_forms[w->type];
    const uint8_t *panel = (const uint8_t *)w->data + j / 16 * r16_panel_bytes(w->type, w->cols);
    const int8_t *table = w->type == QUANT_MXFP4 ? mxfp4_values : w->type == QUANT_IQ4_NL || w->type == QUANT_IQ4_XS ? iq4_values : NULL;
    uint32_t v[8];
    for (size_t u = 0; u < w->cols / 32; u++, out += 32) {
        const uint8_t *head = panel + (f->head ? r16_head_at(f, u) : 0);
        stored_words(w->type, panel + r16_ints_at(f, u), j % 16, v);
        float scale = 0, min = 0;
        for (uint32_t i = 0; i < 32; i++) {
            if (i % f->group == 0)
                scale_and_min(w->type, head, panel + r16_scales_at(f, u), j % 16, i / 16, &scale, &min);
            uint32_t stored = v[i / 4] >> (i % 4 * 8) & 0xFF;
            int q = table ? table[stored] : (int)stored - f->offset;
            float x = scale * (float)q;
            out[i] = f->has_min ? x + min : x;
        }
    }
}

void r16_use(struct kernels *k, enum quant_type type, mat_fn fn)
{
    k->mat[LAYOUT_R16][type] = fn;
    k->row[LAYOUT_R16][type] = r16_row;
    k->layout[type] = LAYOUT_R16;
    k->packed_bytes = r16_packed_bytes;
    k->pack = r16_pack;
}
