#ifndef KERNELS_CUDA_DRIVER_H
#define KERNELS_CUDA_DRIVER_H

/* The part of NVIDIA's driver API that we use, opened by name while running. No header of theirs is needed: the calls below are
 * part of the driver's binary interface, which has kept them since CUDA 11.4. All handles are pointers; addresses of device
 * memory are numbers of 64 bits. A call returns 0 or an error's number. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cuda_driver {
    int (*init)(unsigned flags);
    int (*driver_version)(int *ret);
    int (*error_string)(int error, const char **ret);
    int (*device_count)(int *ret);
    int (*device_get)(int *ret, int ordinal);
    int (*device_name)(char *ret, int len, int device);
    int (*device_memory)(size_t *ret, int device);
    int (*device_attribute)(int *ret, int attribute, int device);
    int (*context_retain)(void **ret, int device);
    int (*context_release)(int device);
    int (*context_set)(void *context);
    int (*mem_info)(size_t *ret_free, size_t *ret_total);
    int (*mem_alloc)(uint64_t *ret, size_t bytes);
    int (*mem_free)(uint64_t at);
    int (*host_alloc)(void **ret, size_t bytes, unsigned flags);
    int (*host_free)(void *at);
    int (*host_register)(void *at, size_t bytes, unsigned flags);
    int (*host_unregister)(void *at);
    int (*copy_to_device)(uint64_t to, const void *from, size_t bytes, void *stream);
    int (*copy_from_device)(void *to, uint64_t from, size_t bytes, void *stream);
    int (*copy_within)(uint64_t to, uint64_t from, size_t bytes, void *stream);
    int (*set_bytes)(uint64_t to, unsigned char value, size_t bytes, void *stream);
    int (*can_peer)(int *ret, int device, int peer);
    int (*peer_enable)(void *context, unsigned flags);
    int (*copy_between)(uint64_t to, void *to_context, uint64_t from, void *from_context, size_t bytes, void *stream);
    int (*stream_create)(void **ret, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
    int (*stream_begin_capture)(void *stream, int mode);
    int (*stream_end_capture)(void *stream, void **ret_graph);
    int (*graph_instantiate)(void **ret, void *graph, unsigned long long flags);
    int (*graph_launch)(void *exec, void *stream);
    int (*graph_exec_destroy)(void *exec);
    int (*graph_destroy)(void *graph);
    int (*module_load)(void **ret, const void *image);
    int (*module_unload)(void *module);
    int (*module_function)(void **ret, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                  unsigned shared_bytes, void *stream, void **params, void **extra);
    int (*event_create)(void **ret, unsigned flags);
    int (*event_destroy)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_wait)(void *event);
    int (*event_ms)(float *ret, void *from, void *to);
    int emulated; /* it is the tests' */
};

enum { CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NO_DEVICE = 100, CUDA_ERROR_NO_BINARY = 209, CUDA_ERROR_PEER_ENABLED = 704 };
enum { CUDA_ATTRIBUTE_CLOCK_KHZ = 13, CUDA_ATTRIBUTE_PROCESSORS = 16, CUDA_ATTRIBUTE_MAJOR = 75, CUDA_ATTRIBUTE_MINOR = 76 };
enum { CUDA_STREAM_NON_BLOCKING = 1, CUDA_EVENT_NO_TIMING = 2, CUDA_CAPTURE_THREAD_LOCAL = 1 };

/* The driver, initialized; the same object each time, for the life of the process. NULL with err (ERR_NOT_FOUND: there is none
 * on this machine). Any thread. */
const struct cuda_driver *cuda_driver_open(struct err *err);
/* -1 and "WHAT: the driver's words (error N)". rc 0 gives 0. */
int cuda_check(const struct cuda_driver *d, int rc, struct err *err, const char *what, ...) __attribute__((format(printf, 4, 5)));

#endif
