#ifndef KERNELS_X86_X86_H
#define KERNELS_X86_X86_H

/* Between the x86 kernels' files. */

#include <stdbool.h>

#include "kernels/kernels.h"

/* What the processor and the system offer (cpuid.c, compiled without any of it). */
bool x86_has_avx2(void); /* with FMA and F16C */
bool x86_has_avxvnni(void);
bool x86_has_avx512vnni(void);

/* Each level overwrites what it does better. */
void x86_init_avx2(struct kernels *k);
void x86_init_avxvnni(struct kernels *k);
void x86_init_avx512vnni(struct kernels *k);

/* Parts of a level. */
void avx2_init_mat(struct kernels *k);
void avx2_init_attention(struct kernels *k);
void avxvnni_init_mat(struct kernels *k);
void avx512_init_mat(struct kernels *k);
void avx512_init_attention(struct kernels *k);

#endif
