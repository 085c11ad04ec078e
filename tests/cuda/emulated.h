#ifndef TESTS_CUDA_EMULATED_H
#define TESTS_CUDA_EMULATED_H

/* The emulated device for test programs; or, with SC_CUDA_DEVICE=1 in the environment, that of the libcuda.so.1 which is found:
 * the machine's own. */

#include <stdbool.h>
#include <stdint.h>

struct backend;

/* Before any other use of CUDA: opens the emulated driver with these settings (driver.cc; NULL: none). Ends the program with a skip
 * where it was not built. */
void emulated_open(const char *settings);
/* A device is there in truth, not emulated. */
bool emulated_is_real(void);
/* A backend on device 0; ends the program where that fails. */
struct backend *emulated_backend(bool no_graphs);
/* Things of the driver that were made and not yet destroyed; always 0 on a real device. */
unsigned emulated_live(void);
/* The most bytes of the host's memory that were pinned at once, and copies from one device to another; 0 on a real one. */
uint64_t emulated_pinned(void);
uint64_t emulated_peer_copies(void);
/* Products by the emulated cuBLAS. */
uint64_t emulated_blas_products(void);
/* The so manieth call from now on that enqueues something or makes a graph fails, once; 0: none does. Returns what was still to come of the
 * one before; -1: a real device, on which nothing fails. */
int emulated_fail_in(int calls);
/* How often the i-th kernel ran; *name NULL past the last, and on a real device. */
uint64_t emulated_kernel(unsigned i, const char **name);

#endif
