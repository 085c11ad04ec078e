#ifndef TESTS_CHECKKERNELS_CHECK_H
#define TESTS_CHECKKERNELS_CHECK_H

/* One table of kernels against another, bit for bit, over random shapes, with memory that ends where the data ends. Each
 * prints TAP lines. The scalar table is held against `reference`, a second, plain writing of docs/numerics.md. */

#include "tests/checkkernels/data.h"

struct check {
    const char *name; /* of the table under test */
    const struct kernels *k, *want;
    struct rng rng;
};

void check_mat(struct check *c);       /* quantize, mat, row, dot */
void check_vector(struct check *c);    /* rms_norm, act_mul, rope, softmax */
void check_attention(struct check *c); /* kv_store, attend */

void reference_init(struct kernels *k);

/* memcmp, but says where floats first differ. */
int same_floats(const float *got, const float *want, size_t n, size_t *ret_first);

#endif
