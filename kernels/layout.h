#ifndef KERNELS_LAYOUT_H
#define KERNELS_LAYOUT_H

/* Where a matrix's bytes lie. A `weight` is a const view; the loader owns the bytes. */

#include <stddef.h>
#include <stdint.h>

#include "gguf/quant.h"

enum weight_layout {
    LAYOUT_FILE, /* row after row, as in the GGUF */
    LAYOUT_R16,  /* panels of 16 rows interleaved for 512-bit vectors: kernels/x86/r16.h */
    LAYOUT_CUDA, /* panels of 16 rows in the order of tensor cores' operands: kernels/cuda/layout.h */
    LAYOUT_COUNT,
};

/* `mats` matrices (experts; 1 otherwise) of rows × cols. out = W x has `rows` elements. data NULL: there is none. */
struct weight {
    enum quant_type type;
    enum weight_layout layout;
    uint32_t rows, cols, mats;
    size_t row_bytes, mat_bytes; /* row_bytes: in the file, whatever the layout */
    const void *data;
};

#endif
