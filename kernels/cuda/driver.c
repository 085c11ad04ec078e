/* See driver.h. */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libcuda.so.1"

static struct cuda_driver driver;
static struct err open_err;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct {
    const char *symbol;
    size_t offset;
} calls[] = {
#define CALL(member, symbol) {symbol, offsetof(struct cuda_driver, member)}
    CALL(init, "cuInit"),
    CALL(driver_version, "cuDriverGetVersion"),
    CALL(error_string, "cuGetErrorString"),
    CALL(device_count, "cuDeviceGetCount"),
    CALL(device_get, "cuDeviceGet"),
    CALL(device_name, "cuDeviceGetName"),
    CALL(device_memory, "cuDeviceTotalMem_v2"),
    CALL(device_attribute, "cuDeviceGetAttribute"),
    CALL(context_retain, "cuDevicePrimaryCtxRetain"),
    CALL(context_release, "cuDevicePrimaryCtxRelease_v2"),
    CALL(context_set, "cuCtxSetCurrent"),
    CALL(mem_info, "cuMemGetInfo_v2"),
    CALL(mem_alloc, "cuMemAlloc_v2"),
    CALL(mem_free, "cuMemFree_v2"),
    CALL(host_alloc, "cuMemHostAlloc"),
    CALL(host_free, "cuMemFreeHost"),
    CALL(host_register, "cuMemHostRegister_v2"),
    CALL(host_unregister, "cuMemHostUnregister"),
    CALL(copy_to_device, "cuMemcpyHtoDAsync_v2"),
    CALL(copy_from_device, "cuMemcpyDtoHAsync_v2"),
    CALL(copy_within, "cuMemcpyDtoDAsync_v2"),
    CALL(set_bytes, "cuMemsetD8Async"),
    CALL(can_peer, "cuDeviceCanAccessPeer"),
    CALL(peer_enable, "cuCtxEnablePeerAccess"),
    CALL(copy_between, "cuMemcpyPeerAsync"),
    CALL(stream_create, "cuStreamCreate"),
    CALL(stream_destroy, "cuStreamDestroy_v2"),
    CALL(stream_wait, "cuStreamSynchronize"),
    CALL(stream_begin_capture, "cuStreamBeginCapture_v2"),
    CALL(stream_end_capture, "cuStreamEndCapture"),
    CALL(graph_instantiate, "cuGraphInstantiateWithFlags"),
    CALL(graph_launch, "cuGraphLaunch"),
    CALL(graph_exec_destroy, "cuGraphExecDestroy"),
    CALL(graph_destroy, "cuGraphDestroy"),
    CALL(module_load, "cuModuleLoadData"),
    CALL(module_unload, "cuModuleUnload"),
    CALL(module_function, "cuModuleGetFunction"),
    CALL(launch, "cuLaunchKernel"),
    CALL(event_create, "cuEventCreate"),
    CALL(event_destroy, "cuEventDestroy_v2"),
    CALL(event_record, "cuEventRecord"),
    CALL(event_wait, "cuEventSynchronize"),
    CALL(event_ms, "cuEventElapsedTime"),
#undef CALL
};

static int open_library(struct err *err)
{
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL); /* stays open: drivers do not like to be closed */
    if (!lib)
        return err_set(err, ERR_NOT_FOUND, "there is no NVIDIA driver on this machine (%s)", dlerror());
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *fn = dlsym(lib, calls[i].symbol);
        if (!fn)
            return err_set(err, ERR_UNSUPPORTED, "the NVIDIA driver is too old: it has no %s; drivers from 470 on have it", calls[i].symbol);
        memcpy((char *)&driver + calls[i].offset, &fn, sizeof fn);
    }
    driver.emulated = dlsym(lib, "emulated_cuda_live") != NULL;
    int rc = driver.init(0);
    if (rc == CUDA_ERROR_NO_DEVICE)
        return err_set(err, ERR_NOT_FOUND, "there is an NVIDIA driver on this machine, but no device that it can use");
    return cuda_check(&driver, rc, err, "the NVIDIA driver does not start");
}

static void open_once(void)
{
    open_library(&open_err);
}

const struct cuda_driver *cuda_driver_open(struct err *err)
{
    pthread_once(&once, open_once);
    if (open_err.kind == ERR_NONE)
        return &driver;
    if (err)
        *err = open_err;
    return NULL;
}

int cuda_check(const struct cuda_driver *d, int rc, struct err *err, const char *what, ...)
{
    const char *said = NULL;
    char text[256];
    va_list args;
    if (rc == 0)
        return 0;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    if (d->error_string(rc, &said) != 0 || !said)
        said = "an error that it has no words for";
    return err_set(err, rc == CUDA_ERROR_OUT_OF_MEMORY ? ERR_MEMORY : ERR_IO, "%s: %s (CUDA error %d)", text, said, rc);
}
