#ifndef KERNELS_R16_H
#define KERNELS_R16_H

/* LAYOUT_R16: a quantized matrix in panels of 16 rows, each panel a stream along K that one core reads linearly. One layout
 * for all instruction sets: a line is one 512-bit register, two of 256, four of 128. A unit of the stream is 32 weights of
 * 16 rows; for K-quants eight units share a head (the 16 rows' d, dmin), and all their scales
 * come before all their integers.
 *
 * Integers of a unit, as unsigned numbers q + offset: k-group i is k = 4i … 4i + 3 of the 16 rows, 64 bytes, the operand of
 * one vpdpbusd: dword lane = row. Nibble line i (0 to 3) holds k-group i low and k-group i + 4 high. Two-bit line i (0, 1)
 * holds k-group 4i + f in bits 2f. The one-bit line holds k-group g in bit g. Byte types hold the 8 k-groups.
 *
 *             head (per 8 units)   scales (per unit)            integers (per unit)       bits a weight (file's)
 *   Q4_0                           d f16                        4 nibble                   4.5   (4.5)
 *   Q4_1                           d, m f16                     4 nibble                   5.0   (5.0)
 *   Q5_0                           d f16                        4 nibble, 1 one-bit        5.5   (5.5)
 *   Q5_1                           d, m f16                     4 nibble, 1 one-bit        6.0   (6.0)
 *   Q8_0                           d f16                        8 byte                     8.5   (8.5)
 *   Q2_K      d, dmin f16          2 × (scale | min << 4)       2 two-bit                  2.625 (2.625)
 *   Q3_K      d f16                2 × scale i8                 2 two-bit, 1 one-bit       3.563 (3.438)
 *   Q4_K      d, dmin f16          scale, min u8                4 nibble                   4.625 (4.5)
 *   Q5_K      d, dmin f16          scale, min u8                4 nibble, 1 one-bit        5.625 (5.5)
 *   Q6_K      d f16                2 × scale i8                 4 nibble, 2 two-bit        6.563 (6.563)
 *   IQ4_NL                         d f16                        4 nibble                   4.5   (4.5)
 *   IQ4_XS    d f16                scale i8                     4 nibble                   4.313 (4.25)
 *   MXFP4                          e u8                         4 nibble                   4.25  (4.25)
 *
 * Rows beyond the matrix's last are zeros. */

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

struct r16_form {
    uint16_t head, scales, ints; /* bytes; head 0: units stand alone */
    uint8_t group;               /* 16 or 32: weights under one scale; 0: the type has no such layout */
    uint8_t has_min;
    uint8_t offset; /* of the unsigned integers */
};

static const struct r16_form r16_forms[QUANT_TYPES] = {
    [QUANT_Q4_0] = {0, 32, 256, 32, 0, 8},    [QUANT_Q4_1] = {0, 64, 256, 32, 1, 0},    [QUANT_Q5_0] = {0, 32, 320, 32, 0, 16},
    [QUANT_Q5_1] = {0, 64, 320, 32, 1, 0},    [QUANT_Q8_0] = {0, 32, 512, 32, 0, 128},  [QUANT_Q2_K] = {64, 32, 128, 16, 1, 0},
    [QUANT_Q3_K] = {32, 32, 192, 16, 0, 4},   [QUANT_Q4_K] = {64, 32, 256, 32, 1, 0},   [QUANT_Q5_K] = {64, 32, 320, 32, 1, 0},
    [QUANT_Q6_K] = {32, 32, 384, 16, 0, 32},  [QUANT_IQ4_NL] = {0, 32, 256, 32, 0, 128}, [QUANT_IQ4_XS] = {32, 16, 256, 32, 0, 128},
    [QUANT_MXFP4] = {0, 16, 256, 32, 0, 12},
};

/* Bytes of a panel of `cols` columns. */
static inline size_t r16_panel_bytes(enum quant_type type, uint32_t cols)
{
    const struct r16_form *f = &r16_forms[type];
    size_t units = cols / 32;
    return units * (f->scales + f->ints) + (f->head ? units / 8 * f->head : 0);
}

/* Where unit u's scales and integers begin. */
static inline size_t r16_scales_at(const struct r16_form *f, size_t u)
{
    if (!f->head)
        return u * (f->scales + f->ints);
    return u / 8 * (f->head + 8 * (f->scales + f->ints)) + f->head + u % 8 * f->scales;
}

static inline size_t r16_ints_at(const struct r16_form *f, size_t u)
{
    if (!f->head)
        return u * (f->scales + f->ints) + f->scales;
    return u / 8 * (f->head + 8 * (f->scales + f->ints)) + f->head + 8 * f->scales + u % 8 * f->ints;
}

static inline size_t r16_head_at(const struct r16_form *f, size_t u)
{
    return u / 8 * (f->head + 8 * (f->scales + f->ints));
}

/* Bytes of the stream that one unit takes, with its share of the head. */
static inline size_t r16_unit_bytes(const struct r16_form *f)
{
    return f->head / 8 + f->scales + f->ints;
}

/* Rows [row0, row0 + n) of a matrix at dst, from as many rows of a GGUF at src; row0 is a multiple of 16, n too but for the
 * matrix's last rows. */
void r16_pack(enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst);
size_t r16_packed_bytes(enum quant_type type, uint32_t rows, uint32_t cols);
/* Row j of a packed matrix as floats: the embedding of a token, where it shares its matrix with the head. */
void r16_row(const struct weight *w, uint32_t j, float *out);
/* Rows of activations that a panel of weights, unfolded once, meets: so many tiles as are cache_bytes of a core's own cache, where they stay
 * while one panel after another passes, at most `most`. */
static inline uint32_t r16_block_rows(const struct acts *x, uint32_t cache_bytes, uint32_t most)
{
    uint32_t tiles = cache_bytes / (x->k * (x->low ? 2 : 1) * x->tile + 1);
    tiles = tiles < most ? tiles : most;
    return (tiles ? tiles : 1) * x->tile;
}

/* Lets a table keep a type in this layout, computed by fn. */
void r16_use(struct kernels *k, enum quant_type type, mat_fn fn);

#endif
