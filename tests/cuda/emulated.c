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
static uint64_t (*kernel)(unsigned, const char **);

void emulated_open(const char *settings)
{
    char path[1024];
    const char *build = getenv("SC_BUILD");
    if (getenv("SC_CUDA_DEVICE"))
        return;
    if (settings)
        setenv("SC_EMULATED_CUDA", settings, 1);
    snprintf(path, sizeof path, "%s/tests/cuda/emulated/libcuda.so.1", build ? build : ".");
    void *lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!lib)
        tap_skip_all("no emulated CUDA device was built: a C++ compiler was not found, or the processor's fibers are unknown");
    void *a = dlsym(lib, "emulated_cuda_live"), *b = dlsym(lib, "emulated_cuda_kernel");
    memcpy(&live, &a, sizeof a);
    memcpy(&kernel, &b, sizeof b);
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

uint64_t emulated_kernel(unsigned i, const char **name)
{
    *name = NULL;
    return kernel ? kernel(i, name) : 0;
}
