/* cuBLAS as the tests have it, over the emulated device: a library named libcublas.so.13 with the functions that kernels/cuda/cublas.c
 * calls. What is asked for runs in the stream's turn, as all else there. Sums are taken from the last product to the first, so that
 * their bits are not those of our kernels. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fmath.h"

#define API extern "C" __attribute__((visibility("default")))

/* Of the emulated driver. */
extern "C" int emulated_cuda_call(void *stream, void (*fn)(const void *), const void *args, size_t bytes);
extern "C" void emulated_cuda_count(int more);

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, OP_T = 1, OP_N = 0, TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14, COMPUTE_F32 = 68 };

struct handle {
    void *stream;
};

struct job {
    int m, n, k, type, lda, ldb, ldc;
    float alpha, beta;
    const void *a, *b;
    float *c;
};

static unsigned long long products;

API unsigned long long emulated_cublas_products(void)
{
    return products;
}

static float element(const void *from, int type, size_t i)
{
    uint16_t h;
    if (type == TYPE_F32)
        return ((const float *)from)[i];
    memcpy(&h, (const uint16_t *)from + i, sizeof h);
    return type == TYPE_F16 ? sc_f16_to_f32(h) : sc_bf16_to_f32(h);
}

static void run(const void *args)
{
    job j;
    memcpy(&j, args, sizeof j);
    for (int col = 0; col < j.n; col++)
        for (int row = 0; row < j.m; row++) {
            float sum = 0, *c = j.c + (size_t)col * (size_t)j.ldc + row;
            for (int k = j.k; k-- > 0;)
                sum += element(j.a, j.type, (size_t)row * (size_t)j.lda + (size_t)k) * element(j.b, j.type, (size_t)col * (size_t)j.ldb + (size_t)k);
            *c = j.alpha * sum + (j.beta != 0 ? j.beta * *c : 0);
        }
}

API int cublasCreate_v2(void **ret)
{
    *ret = new handle();
    emulated_cuda_count(1);
    return SUCCESS;
}

API int cublasDestroy_v2(void *h)
{
    delete (handle *)h;
    emulated_cuda_count(-1);
    return SUCCESS;
}

API int cublasSetStream_v2(void *h, void *stream)
{
    ((handle *)h)->stream = stream;
    return SUCCESS;
}

API const char *cublasGetStatusString(int status)
{
    return status == INVALID_VALUE ? "an unsupported value or parameter" : "an error of the emulated cuBLAS";
}

API int cublasGemmEx(void *h, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type_a, int lda, const void *b, int type_b,
                     int ldb, const void *beta, void *c, int type_c, int ldc, int compute, int)
{
    job j = {m, n, k, type_a, lda, ldb, ldc, *(const float *)alpha, *(const float *)beta, a, b, (float *)c};
    if (op_a != OP_T || op_b != OP_N || type_a != type_b || type_c != TYPE_F32 || compute != COMPUTE_F32 || lda < k || ldb < k || ldc < m || m <= 0 || n <= 0 ||
        (type_a != TYPE_F32 && type_a != TYPE_F16 && type_a != TYPE_BF16))
        return INVALID_VALUE;
    products++;
    return emulated_cuda_call(((handle *)h)->stream, run, &j, sizeof j);
}
