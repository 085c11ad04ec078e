/* See blas.h. */
#include "kernels/blas.h"

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#define LIBRARY "libopenblas.so.0"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static __typeof__(&cblas_sgemm) sgemm;
static char why[256];

static void open_library(void)
{
    void (*set_threads)(int);
    setenv("OPENBLAS_NUM_THREADS", "1", 1); /* else it starts as many as there are processors, when it is opened */
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library)
        *(void **)&sgemm = dlsym(library, "cblas_sgemm"); /* never closed: it cannot be */
    if (!sgemm) {
        const char *said = dlerror();
        snprintf(why, sizeof why, "%s", said ? said : LIBRARY);
        return;
    }
    *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
    if (set_threads)
        set_threads(1);
}

int blas_open(struct err *err)
{
    pthread_once(&once, open_library);
    if (!sgemm)
        return err_set(err, ERR_USAGE, "--prompt-gemm blas: OpenBLAS cannot be opened (%s); install Debian's libopenblas0, or use int8", why);
    return 0;
}

void blas_mat(const struct kernels *k, const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
              size_t out_stride, float *panel)
{
    struct weight one = *w;
    const float *rows = panel;
    one.data = (const char *)w->data + mat * w->mat_bytes;
    if (w->type == QUANT_F32 && w->layout == LAYOUT_FILE)
        rows = (const float *)one.data + (size_t)row0 * w->cols;
    else
        for (uint32_t j = row0; j < row1; j++)
            k->row[w->layout][w->type](&one, j, panel + (size_t)(j - row0) * w->cols);
    sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)x->rows, (int)(row1 - row0), (int)w->cols, 1.0f, x->f, (int)x->f_stride, rows, (int)w->cols,
          0.0f, out + row0, (int)out_stride);
}
