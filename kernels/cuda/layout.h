#ifndef KERNELS_CUDA_LAYOUT_H
#define KERNELS_CUDA_LAYOUT_H

/* LAYOUT_CUDA: a quantized matrix in panels of 16 rows, so that a warp's loads are whole lines and what a lane loads is its own
 * part of a tensor core's operand (mma m16n8k32: lane 4g + t holds rows g and g + 8, k = 4t … 4t + 3 and 16 + 4t …). Read by
 * host C and by device code.
 *
 * A panel is first its integers, then its scales. Integers come in pairs of units (a unit: 32 weights of 16 rows), of a pair
 * first the nibbles, then two-bit, one-bit and byte parts, whichever the type has; each a line of 32 lanes:
 *   nibbles  16 bytes a lane: per unit two words, byte i: k = 4t + i (first word) or 16 + 4t + i, row g low, row g + 8 high
 *   two bits  8 bytes a lane: per unit a word, byte i: bits 2r for register r of the operand
 *   one bit   4 bytes a lane: byte i, bit 4u + r for unit u of the pair and register r
 *   bytes    32 bytes a lane in two lines of 16, a unit each: the operand itself
 * (registers: 0: row g, low k; 1: row g + 8, low k; 2: row g, high k; 3: row g + 8, high k). Integers are stored so that few
 * instructions make signed bytes of them: Q4_0 as n ^ 8, Q5_0 and Q3_K with the top bit inverted, Q6_K as u ^ 32.
 *
 * Scales come in supers of eight units: for each of 16 rows `scales` bytes, then for each `head` bytes.
 *
 *             scales (a row)             head     bits a weight (file's)
 *   Q4_0      8 d f16                             4.5   (4.5)
 *   Q4_1      8 (d, m) f16                        5.0   (5.0)
 *   Q5_0      8 d f16                             5.5   (5.5)
 *   Q5_1      8 (d, m) f16                        6.0   (6.0)
 *   Q8_0      8 d f16                             8.5   (8.5)
 *   Q2_K      16 scale | min << 4        d, dmin  2.625 (2.625)
 *   Q3_K      16 scale i8                d        3.563 (3.438)
 *   Q4_K      8 scale, 8 min u8          d, dmin  4.625 (4.5)
 *   Q5_K      8 scale, 8 min u8          d, dmin  5.625 (5.5)
 *   Q6_K      16 scale i8                d        6.563 (6.563)
 *   IQ4_NL    8 d f16                             4.5   (4.5)
 *   IQ4_XS    8 scale i8                 d        4.313 (4.25)
 *   MXFP4     8 e u8                              4.25  (4.25)
 *
 * Rows and units beyond the matrix are zeros. Matrices of floats lie as in the file. */

#include <stdint.h>

enum { CUDA_PANEL = 16, CUDA_SUPER = 8 };

struct cuda_form {
    uint8_t nibbles, two_bits, one_bit, bytes; /* which lines there are */
    uint8_t scales, head;                      /* bytes of a row in a super */
    uint8_t group;                             /* 16 or 32: weights under one scale; 0: the type has no such layout */
    uint8_t has_min;
};

/* nvcc has it twice, for what is known while compiling and for what a device looks up. */
#ifdef __cplusplus
#define CUDA_FORM_CONST constexpr
#else
#define CUDA_FORM_CONST static const
#endif

/* By enum quant_type, up to MXFP4 (39). */
enum { CUDA_FORMS = 40 };
#define CUDA_FORM_ROWS { \
    {0}, {0}, {1, 0, 0, 0, 16, 0, 32, 0}, {1, 0, 0, 0, 32, 0, 32, 1}, {0}, {0},                          /* 0: Q4_0 2, Q4_1 3 */ \
    {1, 0, 1, 0, 16, 0, 32, 0}, {1, 0, 1, 0, 32, 0, 32, 1}, {0, 0, 0, 1, 16, 0, 32, 0}, {0},             /* 6: Q5_0, Q5_1, Q8_0 */ \
    {0, 1, 0, 0, 16, 4, 16, 1}, {0, 1, 1, 0, 16, 2, 16, 0}, {1, 0, 0, 0, 16, 4, 32, 1},                  /* 10: Q2_K, Q3_K, Q4_K */ \
    {1, 0, 1, 0, 16, 4, 32, 1}, {1, 1, 0, 0, 16, 2, 16, 0}, {0}, {0}, {0}, {0}, {0},                     /* 13: Q5_K, Q6_K */ \
    {1, 0, 0, 0, 16, 0, 32, 0}, {0}, {0}, {1, 0, 0, 0, 8, 2, 32, 0}, {0}, {0}, {0}, {0}, {0}, {0},       /* 20: IQ4_NL, 23: IQ4_XS */ \
    {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {1, 0, 0, 0, 8, 0, 32, 0},                              /* 39: MXFP4 */ \
}
CUDA_FORM_CONST struct cuda_form cuda_forms[CUDA_FORMS] = CUDA_FORM_ROWS;
#ifdef __CUDACC__
static __constant__ const cuda_form cuda_device_forms[CUDA_FORMS] = CUDA_FORM_ROWS;
#else
#define cuda_device_forms cuda_forms
#endif

/* Bytes of a pair of units. */
#define CUDA_PAIR_BYTES(f) ((f).nibbles * 512u + (f).two_bits * 256u + (f).one_bit * 128u + (f).bytes * 1024u)
#define CUDA_PAIRS(cols) (((cols) / 32u + 1u) / 2u)
#define CUDA_SUPERS(cols) (((cols) / 32u + 7u) / 8u)
#define CUDA_SUPER_BYTES(f) (16u * ((f).scales + (f).head))
#define CUDA_PANEL_BYTES(f, cols) ((uint64_t)CUDA_PAIRS(cols) * CUDA_PAIR_BYTES(f) + (uint64_t)CUDA_SUPERS(cols) * CUDA_SUPER_BYTES(f))

#endif
