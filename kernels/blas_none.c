/* See blas.h: where OpenBLAS's headers were not there when this was built. */
#include "kernels/blas.h"

int blas_open(struct err *err)
{
    return err_set(err, ERR_USAGE, "--prompt-gemm blas: this program was built without OpenBLAS; install Debian's libopenblas-dev and build again "
                                   "(./dev setup, ./dev build), or use int8");
}

void blas_mat(const struct kernels *k, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
              size_t out_stride, float *panel)
{
    (void)panel;
    k->mat[w->layout][w->type](w, mat, row0, row1, x, out, out_stride); /* nobody gets here */
}
