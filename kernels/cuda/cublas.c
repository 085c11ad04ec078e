/* See cublas.h. No header of NVIDIA's: numbers of types and modes are the interface's own. */
#include "kernels/cuda/cublas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { OP_AS_IT_IS = 0, OP_TRANSPOSED = 1, TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14, COMPUTE_F32 = 68, ALGORITHM_DEFAULT = -1, ERROR_MEMORY = 3 };

static const char *const libraries[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"};

/* What we call of it. */
static struct {
    int (*create)(void **ret);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*gemm)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type_a, int lda, const void *b, int type_b,
                int ldb, const void *beta, void *c, int type_c, int ldc, int compute, int algorithm);
    const char *(*words)(int status); /* NULL: it has none */
} calls;
static char why[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_library(void)
{
    void *library = NULL;
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries && !library; i++) {
        library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL); /* never closed */
        const char *said = library ? NULL : dlerror();
        if (i == 0 || !strstr(said ? said : "", "No such file")) /* the newest one's words, or those of one that is there and does not open */
            snprintf(why, sizeof why, "%s", said ? said : "");
    }
    if (!library)
        return;
    *(void **)&calls.create = dlsym(library, "cublasCreate_v2");
    *(void **)&calls.destroy = dlsym(library, "cublasDestroy_v2");
    *(void **)&calls.set_stream = dlsym(library, "cublasSetStream_v2");
    *(void **)&calls.words = dlsym(library, "cublasGetStatusString");
    if (calls.create && calls.destroy && calls.set_stream)
        *(void **)&calls.gemm = dlsym(library, "cublasGemmEx");
    if (!calls.gemm)
        snprintf(why, sizeof why, "it lacks a function");
}

static int check(int status, struct err *err, const char *what)
{
    const char *said = status && calls.words ? calls.words(status) : NULL;
    return status ? err_set(err, status == ERROR_MEMORY ? ERR_MEMORY : ERR_IO, "%s by cuBLAS: %s (status %d)", what, said ? said : "it failed", status) : 0;
}

struct cublas {
    void *handle;
};

struct cublas *cublas_open(void *stream, const char *device, struct err *err)
{
    pthread_once(&once, open_library);
    if (!calls.gemm) {
        err_set(err, ERR_NOT_FOUND, "--prompt-gemm blas on %s: cuBLAS cannot be opened (%s); install libcublas of CUDA 11, 12 or 13, or use int8", device, why);
        return NULL;
    }
    struct cublas *b = mem_new(1, sizeof *b, err);
    if (!b)
        return NULL;
    if (check(calls.create(&b->handle), err, "starting") == 0 && check(calls.set_stream(b->handle, stream), err, "starting") == 0)
        return b;
    cublas_close(b);
    return NULL;
}

void cublas_close(struct cublas *b)
{
    if (b && b->handle)
        calls.destroy(b->handle);
    free(b);
}

int cublas_product(struct cublas *b, enum quant_type type, const void *w, uint32_t rows_w, uint32_t cols, const void *x, uint32_t rows, float *out,
                   bool add, struct err *err)
{
    int t = type == QUANT_F32 ? TYPE_F32 : type == QUANT_F16 ? TYPE_F16 : TYPE_BF16;
    float one = 1, old = add;
    /* It counts matrices by columns: rows of ours are columns of its. */
    return check(calls.gemm(b->handle, OP_TRANSPOSED, OP_AS_IT_IS, (int)rows_w, (int)rows, (int)cols, &one, w, t, (int)cols, x, t, (int)cols, &old, out, TYPE_F32,
                            (int)rows_w, COMPUTE_F32, ALGORITHM_DEFAULT),
                 err, "a product");
}
