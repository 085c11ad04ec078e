#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H

/* What this machine can compute with, by name: "cpu" is all processors; "cpu:0", "cpu:1", … are parts of them, the memory nodes
 * (sockets) of a machine that has as many; "cuda:0", … are NVIDIA's. For whoever opens a backend that a person has named: workers,
 * probes, sessions. Any thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "base/threadpool.h"
#include "kernels/backend.h"

enum { DEVICE_MAX = 16, DEVICE_NAME_BYTES = 16, DEVICE_PARTS_MAX = 8 };

/* Of a GPU's free memory this much is not counted on: what the driver takes for itself while kernels run. */
#define DEVICE_GPU_MARGIN ((uint64_t)128 << 20)

enum device_kind { DEVICE_CPU, DEVICE_CUDA };

struct device {
    char name[DEVICE_NAME_BYTES];
    enum device_kind kind;
    unsigned index;      /* of a part, or the driver's */
    unsigned parts;      /* that the processors are divided into; 0: they are not */
    uint64_t memory_max; /* what may be used; 0: what is free */
};

struct device_list {
    struct device item[DEVICE_MAX];
    unsigned n;
};

/* How they are opened. Threads are all devices': parts of the processors have equal shares, at least one each. */
struct device_options {
    unsigned threads; /* 0: one for each processor */
    const char *isa;  /* cap; NULL: none */
    enum threadpool_pin pin;
    enum prompt_gemm prompt_gemm;
    bool keep_file_layout;
    bool untested; /* use kernels for a GPU that have never run on one of its kind */
};

/* "cpu,cuda:0": the devices named, each once; ERR_USAGE. Whether a GPU is there is not asked. */
int device_list_parse(const char *text, struct device_list *ret, struct err *err);
/* The processors, and every GPU that can be used. *notes (as text, a line each) get what is there and cannot be, and why. */
int device_list_auto(const struct device_options *how, struct device_list *ret, struct strbuf *notes, struct err *err);
/* "cuda:0=20GiB"; ERR_USAGE for a device that is not in the list. */
int device_list_limit(struct device_list *list, const char *text, struct err *err);
/* What the CPU's devices may take together: equal shares. */
void device_list_limit_ram(struct device_list *list, uint64_t bytes);
/* NULL: there is none of that name. */
const struct device *device_find(const struct device_list *list, const char *name);
/* "cpu, cuda:0" */
const char *device_list_names(const struct device_list *list, char *ret, size_t size);

/* ERR_NOT_FOUND, ERR_UNSUPPORTED with what is missing. */
struct backend *device_open(const struct device *d, const struct device_options *how, struct err *err);
/* Its team, for other work between steps; NULL: it has none on this side. */
struct threadpool *device_team(struct backend *be);
/* Threads for reading and packing beside the device: of the CPU, on those processors that compute there. */
struct threadpool *device_helpers(const struct device *d, const struct device_options *how, struct err *err);
unsigned device_threads(const struct device *d, const struct device_options *how);
/* What is free on it now, by the system or the driver; the margin is taken off. The second asks without opening it, and counts only
 * a part's share of the machine's memory. */
uint64_t device_memory_free(struct backend *be);
uint64_t device_memory_now(const struct device *d);
/* The class of bits that it computes; docs/numerics.md. */
const char *device_numerics(const struct backend *be, const struct device_options *how, uint32_t *ret_revision);
/* "avx2, 8 threads", "NVIDIA GeForce RTX 4090 (8.9)". Returns ret. */
const char *device_text(const struct backend *be, char *ret, size_t size);

#endif
