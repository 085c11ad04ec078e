#ifndef TESTS_CHECKKERNELS_DATA_H
#define TESTS_CHECKKERNELS_DATA_H

/* Random data for kernels and models: a seeded generator, memory whose end is the end of the world, and quantized weights
 * whose values are of a wanted size. */

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* splitmix64: any seed will do, and the same seed gives the same numbers everywhere. */
struct rng {
    uint64_t state;
};

uint64_t rng_u64(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n);
uint32_t rng_between(struct rng *r, uint32_t low, uint32_t high); /* both included */
/* In [-1, 1), and about normal with deviation 1. */
float rng_unit(struct rng *r);
float rng_normal(struct rng *r);

/* Memory between two pages that may not be touched; the last byte is the last before the second. Filled with 0xA5. A test
 * that finds no memory ends. */
void *guarded_alloc(size_t bytes);
void guarded_free(void *p, size_t bytes);

/* n blocks (elements for float types) of random weights, mean about 0, deviation about sd. */
void data_blocks(struct rng *r, enum quant_type type, size_t n, float sd, void *ret);

/* A matrix of its own in guarded memory. */
struct weight data_weight(struct rng *r, enum quant_type type, uint32_t rows, uint32_t cols, uint32_t mats, float sd);
void data_weight_free(struct weight *w);

/* w as the kernels want it, in guarded memory; a copy where that is the file's layout. Packed in several pieces. */
struct weight data_weight_packed(struct rng *r, const struct kernels *k, const struct weight *w);

/* rows × k activations in guarded memory, with places for their 8-bit copies in tiles of `tile` rows at most (k a multiple of
 * 32: else none). */
struct acts data_acts(struct rng *r, uint32_t rows, uint32_t k, float sd, uint32_t tile);
/* The same with room for 16-bit activations. */
struct acts data_acts16(struct rng *r, uint32_t rows, uint32_t k, float sd, uint32_t tile);
void data_acts_free(struct acts *x);

/* The next type that is computed, from *type on; false when there is none. for (t = 0; data_next_type(&t); t++) */
int data_next_type(uint32_t *type);

#endif
