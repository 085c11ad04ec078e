/* Quantized products for AVX2: see avx2_mat.inc. */
#define INIT_MAT avx2_init_mat
#include "kernels/x86/avx2_mat.inc"
