#ifndef KERNELS_SCALAR_SCALAR_H
#define KERNELS_SCALAR_SCALAR_H

/* Between the scalar kernels' files. */

#include "kernels/kernels.h"

void scalar_init_mat(struct kernels *k);
void scalar_init_vector(struct kernels *k);
void scalar_init_attention(struct kernels *k);
/* Sum of 16 lanes by the fixed tree. */
float scalar_join_lanes(const float lanes[LANES]);

#endif
