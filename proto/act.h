#ifndef PROTO_ACT_H
#define PROTO_ACT_H

/* Rows of activations in their forms on the wire. f32 is the rows themselves. f16 rounds to nearest even, and what is too
 * big becomes infinity. q8_0: blocks of 32, each a half-precision scale and 32 bytes: scale = amax / 127 rounded to half,
 * q = x / scale rounded to nearest even; a row that is no multiple of 32 ends in a shorter block. The same on every machine:
 * only exactly rounded operations. Little-endian. Any thread. */

#include <stddef.h>
#include <stdint.h>

#include "proto/msg.h"

enum { ACT_BLOCK = 32 };

/* "f32", "f16", "q8_0"; NULL for no type. */
const char *act_name(enum act_type type);
/* Bytes of one row. */
size_t act_row_bytes(enum act_type type, uint32_t embd);

/* dst has n_rows × act_row_bytes. May not overlap src. */
void act_pack(enum act_type type, uint32_t embd, size_t n_rows, const float *src, void *dst);
/* The rows as floats: f32 rows that are aligned for floats are returned as they stand, without a copy; all else goes to dst
 * (n_rows × embd floats), which is then returned. */
const float *act_unpack(enum act_type type, uint32_t embd, size_t n_rows, const void *src, float *dst);

#endif
