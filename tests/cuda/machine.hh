#ifndef TESTS_CUDA_MACHINE_H
#define TESTS_CUDA_MACHINE_H

/* emulator.cc for driver.cc: running kernels. One thread at a time. */

#include "tests/cuda/emulator.hh"

namespace emu {

void set_seed(uint64_t seed);
/* Runs a whole grid; args as the kernel's struct. */
void launch(kernel *k, const uint32_t grid[3], const uint32_t dim[3], const void *args);

} /* namespace emu */

#endif
