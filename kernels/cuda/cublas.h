#ifndef KERNELS_CUDA_CUBLAS_H
#define KERNELS_CUDA_CUBLAS_H

/* cuBLAS for --prompt-gemm blas: products of many rows with matrices of floats. Its kernels sum in an order of their own, which
 * changes with the number of rows and the device. The library belongs to CUDA's toolkit and is opened when it is asked for; the
 * calls below are part of its binary interface, the same in 11, 12 and 13. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/quant.h"

struct cublas;

/* For the context that is current in the calling thread, whose stream it works in. NULL: it is not installed (with what to install),
 * or does not start. */
struct cublas *cublas_open(void *stream, const char *device, struct err *err);
void cublas_close(struct cublas *b); /* takes NULL */

/* out[r][j] = (add ? out[r][j] : 0) + sum over k of w[j][k] x[r][k]: w of `type` (F32, F16, BF16), rows_w × cols; x of the same type, rows ×
 * cols; out of floats. Addresses on the device; enqueued. */
int cublas_product(struct cublas *b, enum quant_type type, const void *w, uint32_t rows_w, uint32_t cols, const void *x, uint32_t rows, float *out,
                   bool add, struct err *err);

#endif
