/* Quantized products for any 64-bit Arm: see neon_mat.inc. */
#define INIT_MAT neon_init_mat
#include "kernels/arm/neon_mat.inc"
