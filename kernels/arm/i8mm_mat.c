/* Quantized products with usdot: see neon_mat.inc. */
#define INIT_MAT arm_init_i8mm
#include "kernels/arm/neon_mat.inc"
