#include "tests/cuda/emulated.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda.h"
#include "tests/tap.h"

static unsigned (*live)(void);
static uint64_t (*kernel)(unsigned, const char **), (*pinned)(void), (*peer_copies)(void);
static unsigned long long (*blas_products)(void);
static int (*fail_in)(int);

static void find(void *lib, const char *name, void *ret)
{
    void *symbol = dlsym(lib, name);
    memcpy(ret, &symbol, sizeof symbol);
}

void emulated_open(const char *settings)
{
    char path[1024];
    const char *build = getenv("SC_BUILD");
    bool here = getenv("SC_CUDA_DEVICE") != NULL; /* whichever driver there is: the emulated one, where steps are rehearsed */
    if (settings)
        setenv("SC_EMULATED_CUDA", settings, 1);
    snprintf(path, sizeof path, "%s/tests/cuda/emulated/libcuda.so.1", build ? build : ".");
    void *lib = dlopen(here ? "libcuda.so.1" : path, RTLD_NOW | RTLD_GLOBAL);
    if (!lib && !here)
        tap_skip_all("no emulated CUDA device was built: a C++ compiler was not found, or the processor's fibers are unknown");
    if (!lib)
        return; /* opening a device says it better */
    find(lib, "emulated_cuda_live", &live);
    find(lib, "emulated_cuda_kernel", &kernel);
    find(lib, "emulated_cuda_pinned", &pinned);
    find(lib, "emulated_cuda_peer_copies", &peer_copies);
    find(lib, "emulated_cuda_fail_in", &fail_in);
    snprintf(path, sizeof path, "%s/tests/cuda/emulated/libcublas.so.13", build ? build : ".");
    void *blas = live && !(settings && strstr(settings, "blas=0")) ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL; /* found by its name from now on */
    if (blas)
        find(blas, "emulated_cublas_products", &blas_products);
}

bool emulated_is_real(void)
{
    return !live;
}

struct backend *emulated_backend(bool no_graphs)
{
    struct backend_cuda_options o = {.untested = true, .no_graphs = no_graphs};
    struct err err;
    struct backend *b = backend_cuda_create(&o, &err);
    if (!b) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    return b;
}

unsigned emulated_live(void)
{
    return live ? live() : 0;
}

uint64_t emulated_pinned(void)
{
    return pinned ? pinned() : 0;
}

uint64_t emulated_peer_copies(void)
{
    return peer_copies ? peer_copies() : 0;
}

uint64_t emulated_blas_products(void)
{
    return blas_products ? blas_products() : 0;
}

int emulated_fail_in(int calls)
{
    return fail_in ? fail_in(calls) : -1;
}

uint64_t emulated_kernel(unsigned i, const char **name)
{
    *name = NULL;
    return kernel ? kernel(i, name) : 0;
}
