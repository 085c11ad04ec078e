#ifndef KERNELS_LAYOUT_H
#define KERNELS_LAYOUT_H

/* Where a matrix's bytes lie. A `weight` is a const view; the loader owns the bytes. */

#include <stddef.h>
#include <stdint.h>

#include "gguf/quant.h"

enum weight_layout {
    LAYOUT_FILE, /* row after row, as in the GGUF */
    LAYOUT_COUNT,
};

/* `mats` matrices (experts; 1 otherwise) of rows × cols. out = W x has `rows` elements. data NULL: there is none. */
struct weight {
    enum quant_type type;
    enum weight_layout layout;
    uint32_t rows, cols, mats;
    size_t row_bytes, mat_bytes;
    const void *data;
};

/* Rows [first, first + n) of a one-matrix weight in LAYOUT_FILE, as a weight of its own: parts of a fused tensor. */
static inline struct weight weight_rows(const struct weight *w, uint32_t first, uint32_t n)
{
    struct weight part = *w;
    part.rows = n;
    part.mat_bytes = n * w->row_bytes;
    part.data = (const char *)w->data + first * w->row_bytes;
    return part;
}

#endif
