#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

/* NVIDIA's devices as backends (kernels/backend.h; docs/cuda.md). The driver's library, libcuda.so.1, is opened while running
 * and nothing else of NVIDIA's is needed, so that one program runs on machines with and without a device. All functions may be
 * called from any thread; a backend and its runs belong to one thread at a time, but for weight_put. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/quant.h"

struct backend;

/* What a device computes is meant to be the CPU's own bits (docs/cuda.md): but as long as no device has shown it, the class
 * is another. */
#define NUMERICS_CUDA "cuda"
#define NUMERICS_CUDA_BLAS "cuda-blas" /* prompts by cuBLAS: bits depend on companions, too */
enum { NUMERICS_CUDA_REVISION = 3 };

enum { CUDA_MAX_DEVICES = 16 };

struct cuda_device {
    unsigned index;     /* the driver's, as in "cuda:0" */
    char name[128];     /* "NVIDIA GeForce RTX 4090" */
    unsigned major, minor; /* compute capability */
    unsigned processors; /* multiprocessors */
    unsigned clock_mhz;
    uint64_t memory;    /* bytes in all */
    uint64_t memory_free; /* just now; 0: the driver did not tell */
    bool usable;        /* this program has kernels for it */
    char why[160];      /* not usable: why */
};

/* Devices there are: their number, up to max of them at ret. 0 also where there is no driver: then *ret_why (NULL allowed), of
 * why_size bytes, says so in a sentence. -1 and err: there is a driver, and it fails. */
int cuda_devices(struct cuda_device *ret, unsigned max, char *ret_why, size_t why_size, struct err *err);

struct backend_cuda_options {
    unsigned device; /* index */
    bool untested;   /* use kernels that have never run on a device of this kind; without it backend_cuda_create says no */
    bool no_graphs;  /* launch every kernel by itself */
    bool blas;      /* prompts by cuBLAS where matrices are of floats: bits depend on companions, too */
};

/* Errors say what is missing: the driver, the device, kernels for it, memory. */
struct backend *backend_cuda_create(const struct backend_cuda_options *options, struct err *err);
bool backend_is_cuda(const struct backend *b);
/* Of the device, now: free bytes are what all its users leave. */
int backend_cuda_memory(struct backend *b, uint64_t *ret_free, uint64_t *ret_total, struct err *err);
const struct cuda_device *backend_cuda_device(const struct backend *b);

/* What a probe measures of the device's memory, bytes a second. read: by a kernel, over a buffer of `bytes`; to_device, from_device:
 * copies between pinned memory and the device. */
struct cuda_rates {
    double read, to_device, from_device;
};
int backend_cuda_measure(struct backend *b, size_t bytes, struct cuda_rates *ret, struct err *err);
/* From one device's memory to another's, which it reaches (reaches has been asked). */
int backend_cuda_measure_peer(struct backend *from, struct backend *to, size_t bytes, double *ret, struct err *err);

#endif
