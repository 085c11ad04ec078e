/* Quantized products for AVX-VNNI (256-bit dot products on processors without AVX-512): see avx2_mat.inc. */
#define INIT_MAT avxvnni_init_mat
#include "kernels/x86/avx2_mat.inc"

void x86_init_avxvnni(struct kernels *k)
{
    avxvnni_init_mat(k);
}
