/* cuda.h for a program that was built without: nothing is there, and that is said. */
#include "kernels/cuda/cuda.h"

#include <stdio.h>

#include "kernels/backend.h"

static const char why[] = "this program was built without CUDA";

int cuda_devices(struct cuda_device *ret, unsigned max, char *ret_why, size_t why_size, struct err *err)
{
    (void)ret, (void)max, (void)err;
    if (ret_why)
        snprintf(ret_why, why_size, "%s", why);
    return 0;
}

struct backend *backend_cuda_create(const struct backend_cuda_options *options, struct err *err)
{
    err_set(err, ERR_UNSUPPORTED, "cuda:%u: %s", options->device, why);
    return NULL;
}

bool backend_is_cuda(const struct backend *b)
{
    (void)b;
    return false;
}

int backend_cuda_memory(struct backend *b, uint64_t *ret_free, uint64_t *ret_total, struct err *err)
{
    (void)b, (void)ret_free, (void)ret_total;
    return err_set(err, ERR_UNSUPPORTED, "%s", why);
}

const struct cuda_device *backend_cuda_device(const struct backend *b)
{
    (void)b;
    return NULL;
}

int backend_cuda_measure(struct backend *b, size_t bytes, struct cuda_rates *ret, struct err *err)
{
    (void)b, (void)bytes, (void)ret;
    return err_set(err, ERR_UNSUPPORTED, "%s", why);
}
