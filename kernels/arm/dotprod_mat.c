/* Quantized products with sdot: see neon_mat.inc. */
#define INIT_MAT arm_init_dotprod
#include "kernels/arm/neon_mat.inc"
