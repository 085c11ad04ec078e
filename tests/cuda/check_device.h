#ifndef TESTS_CUDA_CHECK_DEVICE_H
#define TESTS_CUDA_CHECK_DEVICE_H

/* Shared by the files of test_kernels: memory on the device and single launches. What fails ends the program. */

#include <stdbool.h>

#include "kernels/cuda/run.h"
#include "kernels/kernels.h"
#include "tests/checkkernels/data.h"

extern struct rng rng;
extern struct cuda *device;
extern struct kernels scalar;

void *take(size_t bytes);
void *take_copy(const void *from, size_t bytes);
void drop(void *p); /* takes NULL */
void fetch(void *to, const void *from, size_t bytes);
void launch(void *kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, const void *args);
/* A matrix on the device, by the way that loading takes. */
uint8_t *take_weight(const struct weight *w);
/* Floats that differ only in how they are no number are the same. */
bool same_floats(const float *got, const float *want, size_t n, size_t *ret_first);

void check_rows(void);
void check_sample(void);

#endif
