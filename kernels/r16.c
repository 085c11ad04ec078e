/* Rows of a GGUF into LAYOUT_R16 (r16.h), and single ones back. Four rows at a time: 16 bytes of each are turned into four vectors, of
 * which vector i holds word i (four bytes) of every row; what follows is plain arithmetic on words, and word i of a unit then goes to
 * its rows' places in line i. Done once, while a model loads, on rows that were just read. Little-endian, as GGUF and every machine
 * we run on; in the compiler's own vectors, which every processor has. */
#include "kernels/r16.h"

#include <string.h>

#include "kernels/fmath.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of packed integers are little-endian");

enum { ROWS = 4 };
typedef uint32_t quad __attribute__((vector_size(4 * ROWS)));

/* Every function here is taken into pack_panel once for each type, so that the type is a constant in its loops. */
#define INLINE static inline __attribute__((always_inline))
#define BYTES(x) ((uint32_t)(x) * 0x01010101u)

#if defined __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (quad){__VA_ARGS__})
#endif

static inline uint32_t word(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Rows lane … lane + n - 1 of a panel: their blocks. Where there are fewer than ROWS, the others point at some block, too. */
struct rows {
    const uint8_t *b[ROWS];
    uint32_t lane, n;
};

/* Those rows' words of a line. */
INLINE void put(const struct rows *r, uint8_t *line, quad v)
{
    if (r->n == ROWS)
        memcpy(line + 4 * r->lane, &v, sizeof v);
    else
        memcpy(line + 4 * r->lane, &v, 4 * r->n);
}

/* The four words at byte `at` of each row's block. */
INLINE void take(const struct rows *r, size_t at, quad v[4])
{
    quad a, b, c, d;
    memcpy(&a, r->b[0] + at, sizeof a);
    memcpy(&b, r->b[1] + at, sizeof b);
    memcpy(&c, r->b[2] + at, sizeof c);
    memcpy(&d, r->b[3] + at, sizeof d);
    quad ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5), AB = SHUFFLE(a, b, 2, 6, 3, 7), CD = SHUFFLE(c, d, 2, 6, 3, 7);
    v[0] = SHUFFLE(ab, cd, 0, 1, 4, 5);
    v[1] = SHUFFLE(ab, cd, 2, 3, 6, 7);
    v[2] = SHUFFLE(AB, CD, 0, 1, 4, 5);
    v[3] = SHUFFLE(AB, CD, 2, 3, 6, 7);
}

/* 32 bytes at `at`. */
INLINE void take_8(const struct rows *r, size_t at, quad v[8])
{
    take(r, at, v);
    take(r, at + 16, v + 4);
}

/* Of all of them the same bits. */
INLINE void bits_of(const quad from[8], unsigned shift, unsigned mask, quad v[8])
{
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        v[i] = from[i] >> shift & BYTES(mask);
}

/* Eight words of 4-bit numbers. */
INLINE void put_nibbles(const struct rows *r, const quad v[8], uint8_t *ints)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        put(r, ints + 64 * i, v[i] | v[i + 4] << 4);
}

INLINE void put_two_bits(const struct rows *r, const quad v[8], uint8_t *ints)
{
    put(r, ints, v[0] | v[1] << 2 | v[2] << 4 | v[3] << 6);
    put(r, ints + 64, v[4] | v[5] << 2 | v[6] << 4 | v[7] << 6);
}

INLINE void put_one_bits(const struct rows *r, const quad v[8], uint8_t *line)
{
    put(r, line, v[0] | v[1] << 1 | v[2] << 2 | v[3] << 3 | v[4] << 4 | v[5] << 5 | v[6] << 6 | v[7] << 7);
}

/* 16 bytes of nibbles whose low ones are the first 16 weights: our order already. */
INLINE void copy_nibbles(const struct rows *r, size_t at, uint8_t *ints)
{
    quad v[4];
    take(r, at, v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        put(r, ints + 64 * i, v[i]);
}

/* The fifth bits of Q5_0 and Q5_1: bit j of a word for weight j. */
INLINE void put_word_bits(const struct rows *r, size_t at, uint8_t *line)
{
    quad bits = {word(r->b[0] + at), word(r->b[1] + at), word(r->b[2] + at), word(r->b[3] + at)}, v[8];
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        quad four = bits >> (4 * g) & 15;
        v[g] = (four | four << 7 | four << 14 | four << 21) & BYTES(1);
    }
    put_one_bits(r, v, line);
}

/* Each row's half float. */
INLINE void copy_halves(const struct rows *r, size_t at, uint8_t *halves)
{
    for (uint32_t i = 0; i < r->n; i++)
        memcpy(halves + 2 * (r->lane + i), r->b[i] + at, 2);
}

/* --- blocks of 32 --------------------------------------------------------------------------------------------------------- */

INLINE void pack_q8_0(const struct rows *r, uint8_t *ints)
{
    quad v[8];
    take_8(r, 2, v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        put(r, ints + 64 * i, v[i] ^ BYTES(0x80));
}

INLINE void pack_block32(enum quant_type type, const struct rows *r, uint8_t *scales, uint8_t *ints)
{
    switch (type) {
    case QUANT_Q4_1:
        copy_halves(r, 2, scales + 32);
        copy_nibbles(r, 4, ints);
        break;
    case QUANT_Q5_0:
        put_word_bits(r, 2, ints + 256);
        copy_nibbles(r, 6, ints);
        break;
    case QUANT_Q5_1:
        copy_halves(r, 2, scales + 32);
        put_word_bits(r, 4, ints + 256);
        copy_nibbles(r, 8, ints);
        break;
    case QUANT_Q8_0: pack_q8_0(r, ints); break;
    case QUANT_MXFP4:
        for (uint32_t i = 0; i < r->n; i++)
            scales[r->lane + i] = r->b[i][0];
        copy_nibbles(r, 1, ints);
        return;
    default: copy_nibbles(r, 2, ints); break; /* Q4_0, IQ4_NL */
    }
    copy_halves(r, 0, scales);
}

/* --- blocks of 256: their eight units at once ------------------------------------------------------------------------------ */

/* Eight units' places. */
struct units {
    uint8_t *scales, *ints; /* of the first */
    size_t scales_step, ints_step;
};

INLINE uint8_t *scale_of(const struct units *to, unsigned u, unsigned which, uint32_t lane)
{
    return to->scales + u * to->scales_step + 16 * which + lane;
}

INLINE uint8_t *ints_of(const struct units *to, unsigned u)
{
    return to->ints + u * to->ints_step;
}

INLINE void put_k4_scales(const uint8_t *s, const struct units *to, uint32_t lane)
{
    uint32_t a = word(s), b = word(s + 4), c = word(s + 8);
    uint32_t v[4] = {a & BYTES(63), (c & BYTES(15)) | (a >> 6 & BYTES(3)) << 4, b & BYTES(63), (c >> 4 & BYTES(15)) | (b >> 6 & BYTES(3)) << 4};
    for (unsigned u = 0; u < 8; u++) {
        *scale_of(to, u, 0, lane) = (uint8_t)(v[u / 4] >> (u % 4 * 8));
        *scale_of(to, u, 1, lane) = (uint8_t)(v[2 + u / 4] >> (u % 4 * 8));
    }
}

INLINE void pack_q4_k(const struct rows *r, const struct units *to)
{
    quad all[8], v[8];
    for (uint32_t i = 0; i < r->n; i++)
        put_k4_scales(r->b[i] + 4, to, r->lane + i);
    for (unsigned u = 0; u < 8; u += 2) {
        take_8(r, 16 + 16 * u, all);
        for (unsigned k = 0; k < 2; k++) {
            bits_of(all, 4 * k, 15, v);
            put_nibbles(r, v, ints_of(to, u + k));
        }
    }
}

INLINE void pack_q5_k(const struct rows *r, const struct units *to)
{
    quad low[8], high[8], v[8];
    for (uint32_t i = 0; i < r->n; i++)
        put_k4_scales(r->b[i] + 4, to, r->lane + i);
    take_8(r, 16, high);
    for (unsigned u = 0; u < 8; u += 2) {
        take_8(r, 48 + 16 * u, low);
        for (unsigned k = 0; k < 2; k++) {
            uint8_t *ints = ints_of(to, u + k);
            bits_of(low, 4 * k, 15, v);
            put_nibbles(r, v, ints);
            bits_of(high, u + k, 1, v);
            put_one_bits(r, v, ints + 256);
        }
    }
}

INLINE void put_bytes(const struct rows *r, size_t at, const struct units *to)
{
    for (uint32_t i = 0; i < r->n; i++)
        for (unsigned g = 0; g < 16; g++)
            *scale_of(to, g / 2, g % 2, r->lane + i) = r->b[i][at + g];
}

/* Four units at a time: where their bits lie together. */
INLINE void pack_q6_k(const struct rows *r, const struct units *to)
{
    quad low[2][8], high[8], v[8];
    put_bytes(r, 192, to);
    for (unsigned half = 0; half < 2; half++) {
        take_8(r, 64 * half, low[0]);
        take_8(r, 64 * half + 32, low[1]);
        take_8(r, 128 + 32 * half, high);
        for (unsigned k = 0; k < 4; k++) {
            uint8_t *ints = ints_of(to, 4 * half + k);
            bits_of(low[k % 2], k / 2 * 4, 15, v);
            put_nibbles(r, v, ints);
            bits_of(high, 2 * k, 3, v);
            put_two_bits(r, v, ints + 256);
        }
    }
}

INLINE void pack_q2_k(const struct rows *r, const struct units *to)
{
    quad all[8], v[8];
    put_bytes(r, 0, to);
    for (unsigned half = 0; half < 2; half++) {
        take_8(r, 16 + 32 * half, all);
        for (unsigned k = 0; k < 4; k++) {
            bits_of(all, 2 * k, 3, v);
            put_two_bits(r, v, ints_of(to, 4 * half + k));
        }
    }
}

INLINE void put_k3_scales(const uint8_t *s, const struct units *to, uint32_t lane)
{
    uint32_t a = word(s), b = word(s + 4), c = word(s + 8);
    uint32_t v[4] = {(a & BYTES(15)) | (c & BYTES(3)) << 4, (b & BYTES(15)) | (c >> 2 & BYTES(3)) << 4, (a >> 4 & BYTES(15)) | (c >> 4 & BYTES(3)) << 4,
                     (b >> 4 & BYTES(15)) | (c >> 6 & BYTES(3)) << 4};
    for (unsigned g = 0; g < 16; g++)
        *scale_of(to, g / 2, g % 2, lane) = (uint8_t)((v[g / 4] >> (g % 4 * 8)) - 32);
}

INLINE void pack_q3_k(const struct rows *r, const struct units *to)
{
    quad low[8], high[8], v[8];
    for (uint32_t i = 0; i < r->n; i++)
        put_k3_scales(r->b[i] + 96, to, r->lane + i);
    take_8(r, 0, high);
    for (unsigned half = 0; half < 2; half++) {
        take_8(r, 32 + 32 * half, low);
        for (unsigned k = 0; k < 4; k++) {
            uint8_t *ints = ints_of(to, 4 * half + k);
            bits_of(low, 2 * k, 3, v);
            put_two_bits(r, v, ints);
            bits_of(high, 4 * half + k, 1, v);
            put_one_bits(r, v, ints + 128);
        }
    }
}

INLINE void put_iq4_scales(const uint8_t *b, const struct units *to, uint32_t lane)
{
    unsigned high = b[2] | (unsigned)b[3] << 8;
    for (unsigned u = 0; u < 8; u++) {
        int s = (b[4 + u / 2] >> (u % 2 * 4) & 15) | (int)(high >> (2 * u) & 3) << 4;
        *scale_of(to, u, 0, lane) = (uint8_t)(s - 32);
    }
}

INLINE void pack_iq4_xs(const struct rows *r, const struct units *to)
{
    for (uint32_t i = 0; i < r->n; i++)
        put_iq4_scales(r->b[i], to, r->lane + i);
    for (unsigned u = 0; u < 8; u++)
        copy_nibbles(r, 8 + 16 * u, ints_of(to, u));
}

INLINE void pack_block256(enum quant_type type, const struct rows *r, uint8_t *head, const struct units *to)
{
    size_t d = type == QUANT_Q2_K ? 80 : type == QUANT_Q3_K ? 108 : type == QUANT_Q6_K ? 208 : 0;
    copy_halves(r, d, head);
    if (r16_forms[type].has_min)
        copy_halves(r, d + 2, head + 32);
    switch (type) {
    case QUANT_Q2_K: pack_q2_k(r, to); break;
    case QUANT_Q3_K: pack_q3_k(r, to); break;
    case QUANT_Q4_K: pack_q4_k(r, to); break;
    case QUANT_Q5_K: pack_q5_k(r, to); break;
    case QUANT_Q6_K: pack_q6_k(r, to); break;
    default: pack_iq4_xs(r, to); break;
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
        struct units to = {panel + r16_scales_at(f, u), panel + r16_ints_at(f, u), f->scales, f->ints};
        for (uint32_t lane = 0; lane < rows; lane += ROWS) {
            struct rows r = {.lane = lane, .n = rows - lane < ROWS ? rows - lane : ROWS};
            for (uint32_t i = 0; i < ROWS; i++)
                r.b[i] = src + (lane + (i < r.n ? i : 0)) * row_bytes + block * traits->bytes;
            if (f->head)
                pack_block256(type, &r, panel + r16_head_at(f, u), &to);
            else
                pack_block32(type, &r, to.scales, to.ints);
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
