#ifndef KERNELS_BLAS_H
#define KERNELS_BLAS_H

/* Products of many rows of activations through OpenBLAS, for --prompt-gemm blas: 32-bit floats throughout, in whatever order
 * its kernels sum, so that a row's bits depend on its companions and on the processor. The library is opened when it is asked
 * for, not linked: it starts threads and takes memory as soon as it is there. The CPU backend calls; any thread. */

#include "base/err.h"
#include "kernels/kernels.h"

enum {
    BLAS_MIN_ROWS = 64, /* of activations; at 32 the AVX2 kernels of F16 make 134 rows a second, OpenBLAS 95 */
    BLAS_PANEL_ROWS = 128, /* of weights, unfolded and multiplied at once */
};

/* Opens the library, once for the process, with one thread: the team's threads call it. -1 where it was not built in or is not
 * installed, with what to install. */
int blas_open(struct err *err);

/* mat_fn for weights of any type and layout that k has rows of, for row0 and row1 at most BLAS_PANEL_ROWS apart; panel:
 * BLAS_PANEL_ROWS * w->cols floats of this thread. Only after blas_open. */
void blas_mat(const struct kernels *k, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
              size_t out_stride, float *panel);

#endif
