#ifndef KERNELS_ARM_ARM_H
#define KERNELS_ARM_ARM_H

/* Between the Arm kernels' files. Every 64-bit Arm has NEON with fma and half-precision conversion; dot products (dotprod) and
 * mixed-sign ones (i8mm) came later. */

#include <stdbool.h>

#include "kernels/kernels.h"

/* What the system says of the processor. */
bool arm_has_neon(void);
bool arm_has_dotprod(void);
bool arm_has_i8mm(void);

/* Each level overwrites what it does better. */
void arm_init_neon(struct kernels *k);
void arm_init_dotprod(struct kernels *k);
void arm_init_i8mm(struct kernels *k);

/* Parts of a level. */
void neon_init_mat(struct kernels *k);
void neon_init_attention(struct kernels *k);

#endif
