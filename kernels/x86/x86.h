#ifndef KERNELS_X86_X86_H
#define KERNELS_X86_X86_H

/* Between the x86 kernels' files. */

#include <stdbool.h>

#include "kernels/kernels.h"

/* What the processor and the system offer (cpuid.c, compiled without any of it). */
bool x86_has_avx2(void); /* with FMA and F16C */
bool x86_has_avxvnni(void);
bool x86_has_avx512vnni(void);
bool x86_has_amx(void); /* with AVX-512-VNNI; asks the kernel for this process's leave to use tiles, which enlarges signal frames */

/* Each level overwrites what it does better. */
void x86_init_avx2(struct kernels *k);
void x86_init_avxvnni(struct kernels *k);
void x86_init_avx512vnni(struct kernels *k);
void x86_init_amx(struct kernels *k);

/* Parts of a level. */
void avx2_init_mat(struct kernels *k);
void avx2_init_attention(struct kernels *k);
void avxvnni_init_mat(struct kernels *k);
void avx512_init_mat(struct kernels *k);
void avx512_init_attention(struct kernels *k);
void amx_init_mat(struct kernels *k);
/* Rows from which on tiles pay, of 8-bit and of 16-bit activations; fewer are AVX-512's. */
enum { AMX_ROWS_MIN = 44, AMX_ROWS_MIN16 = 12 };
/* AVX-512's product for a type, for the few rows where tiles do not pay; NULL: it has none. */
mat_fn avx512_mat(enum quant_type type);

/* The line at p is brought to this core, for it alone, to be written soon. A product's outputs lie a page or more apart, and the stores of a
 * tile, all at once, would take every place for what a core waits for, so that whatever else it reads waits behind them. */
static inline void x86_own_line(const void *p)
{
    __asm volatile("prefetchw %0" : : "m"(*(const char *)p));
}

#endif
