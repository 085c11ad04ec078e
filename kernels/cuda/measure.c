/* What a device does a second, measured with the kernels that will be used: for probe. */
#include <string.h>

#include "kernels/cuda/device.h"

enum { SIDE = 4096, ROWS = 512, REPEATS = 5, COPY_BYTES = 64 << 20, READ_BLOCKS = 32 }; /* blocks: for each multiprocessor */

/* What is measured: enqueues it once. */
struct measured {
    int (*enqueue)(struct cuda *c, const struct measured *m, struct err *err);
    uint64_t device;
    void *host;
    size_t bytes;
    const struct cuda_mat *mat;
    const struct cuda_float_mat *floats;
};

/* The best of some times, in seconds. */
static int best_time(struct cuda *c, const struct measured *m, double *ret, struct err *err)
{
    const struct cuda_driver *d = c->d;
    void *from = NULL, *to = NULL;
    int rc = cuda_check(d, d->event_create(&from, 0), err, "a clock on cuda:%u", c->device.index);
    rc = rc ? rc : cuda_check(d, d->event_create(&to, 0), err, "a clock on cuda:%u", c->device.index);
    *ret = 0;
    for (int i = 0; i < REPEATS && rc == 0; i++) {
        float ms = 0;
        rc = cuda_check(d, d->event_record(from, c->stream), err, "a clock on cuda:%u", c->device.index);
        rc = rc ? rc : m->enqueue(c, m, err);
        rc = rc ? rc : cuda_check(d, d->event_record(to, c->stream), err, "a clock on cuda:%u", c->device.index);
        rc = rc ? rc : cuda_check(d, d->event_wait(to), err, "measuring cuda:%u", c->device.index);
        rc = rc ? rc : cuda_check(d, d->event_ms(&ms, from, to), err, "a clock on cuda:%u", c->device.index);
        if (ms > 0 && (*ret == 0 || ms / 1e3 < *ret))
            *ret = (double)ms / 1e3;
    }
    if (from)
        d->event_destroy(from);
    if (to)
        d->event_destroy(to);
    if (rc == 0 && *ret == 0)
        return err_set(err, ERR_IO, "measuring cuda:%u: nothing took any time", c->device.index);
    return rc;
}

static int enqueue_read(struct cuda *c, const struct measured *m, struct err *err)
{
    struct cuda_read args = {.from = (const uint8_t *)(uintptr_t)m->device, .bytes = m->bytes, .to = (uint32_t *)(uintptr_t)m->device};
    return cuda_launch(c, c->kernels.read_all, (uint32_t[]){c->device.processors * READ_BLOCKS, 1, 1}, CUDA_ROW_THREADS, &args, c->stream, err);
}

static int enqueue_products(struct cuda *c, const struct measured *m, struct err *err)
{
    return cuda_launch(c, c->kernels.prompt[QUANT_Q4_K], (uint32_t[]){m->mat->panels / 4, ROWS / (CUDA_TILE * CUDA_PROMPT_TILES), 1}, CUDA_THREADS, m->mat,
                       c->stream, err);
}

static int enqueue_floats(struct cuda *c, const struct measured *m, struct err *err)
{
    uint32_t block_rows = CUDA_THREADS / 16 * CUDA_WIDE_ROWS;
    return cuda_launch(c, c->kernels.mat_floats[QUANT_F16], (uint32_t[]){(m->floats->rows_w + block_rows - 1) / block_rows, ROWS / CUDA_TILE, 1}, CUDA_THREADS,
                       m->floats, c->stream, err);
}

static int enqueue_there(struct cuda *c, const struct measured *m, struct err *err)
{
    return cuda_check(c->d, c->d->copy_to_device(m->device, m->host, m->bytes, c->stream), err, "copying to cuda:%u", c->device.index);
}

static int enqueue_back(struct cuda *c, const struct measured *m, struct err *err)
{
    return cuda_check(c->d, c->d->copy_from_device(m->host, m->device, m->bytes, c->stream), err, "copying from cuda:%u", c->device.index);
}

/* A product of zeros with zeros takes as long as any other. */
static int measure_products(struct cuda *c, double *ret, struct err *err)
{
    uint32_t rows = ROWS, side = c->d->emulated ? 256 : SIDE;
    size_t groups = (size_t)ROWS * (side / 32), weight = side / CUDA_PANEL * CUDA_PANEL_BYTES(cuda_forms[QUANT_Q4_K], side);
    size_t bytes = weight + groups * (32 + 8 + 8) + (size_t)ROWS * side * sizeof(float) + 256;
    struct backend *b = &c->backend;
    char *at = b->ops->alloc(b, bytes, err), *acts;
    if (!at)
        return -1;
    acts = at + weight;
    struct cuda_mat mat = {.n_parts = 1, .panels = side / CUDA_PANEL, .cols = side,
                           .acts = {.q = (int8_t *)acts, .scales = (float *)(acts + groups * 32), .sums16 = (float *)(acts + groups * 40)},
                           .rows = (uint32_t *)(at + bytes - 256)};
    mat.part[0] = (struct cuda_mat_part){.w = (uint8_t *)at, .out = (float *)(acts + groups * 48), .rows = side, .out_stride = side};
    int rc = b->ops->write(b, at + bytes - 256, &rows, sizeof rows, err);
    rc = rc ? rc : best_time(c, &(struct measured){.enqueue = enqueue_products, .mat = &mat}, ret, err);
    b->ops->free(b, at, bytes);
    if (rc == 0)
        *ret = (double)side * side * ROWS / *ret;
    return rc;
}

static int measure_floats(struct cuda *c, double *ret, struct err *err)
{
    uint32_t rows = ROWS, side = c->d->emulated ? 64 : SIDE;
    size_t weight = (size_t)side * side * sizeof(uint16_t), act = (size_t)ROWS * side * sizeof(float), bytes = weight + 2 * act + 256;
    struct backend *b = &c->backend;
    char *at = b->ops->alloc(b, bytes, err);
    if (!at)
        return -1;
    struct cuda_float_mat mat = {.w = (uint8_t *)at, .x = (float *)(at + weight), .out = (float *)(at + weight + act), .rows_w = side, .cols = side,
                                 .x_stride = side, .out_stride = side, .rows = (uint32_t *)(at + bytes - 256)};
    int rc = b->ops->write(b, at + bytes - 256, &rows, sizeof rows, err);
    rc = rc ? rc : best_time(c, &(struct measured){.enqueue = enqueue_floats, .floats = &mat}, ret, err);
    b->ops->free(b, at, bytes);
    if (rc == 0)
        *ret = (double)side * side * ROWS / *ret;
    return rc;
}

double cuda_rate_of(const struct cuda_rates *r, enum quant_type type)
{
    return 2 * (cuda_is_packed(type) ? r->products : r->floats);
}

int backend_cuda_measure(struct backend *b, size_t bytes, struct cuda_rates *ret, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    size_t copied = bytes < COPY_BYTES ? bytes : COPY_BYTES;
    struct measured m = {.bytes = bytes};
    double read = 0, there = 0, back = 0;
    if (bytes < 16)
        return err_set(err, ERR_USAGE, "a measurement over %zu bytes, at least 16 are needed", bytes);
    if (!(m.device = (uint64_t)(uintptr_t)b->ops->alloc(b, bytes, err)))
        return -1;
    int rc = cuda_check(c->d, c->d->host_alloc(&m.host, copied, 0), err, "%zu bytes of pinned memory", copied);
    m.enqueue = enqueue_read;
    rc = rc ? rc : best_time(c, &m, &read, err);
    m.bytes = copied;
    m.enqueue = enqueue_there;
    if (rc == 0)
        memset(m.host, 0, copied);
    rc = rc ? rc : best_time(c, &m, &there, err);
    m.enqueue = enqueue_back;
    rc = rc ? rc : best_time(c, &m, &back, err);
    if (m.host)
        c->d->host_free(m.host);
    b->ops->free(b, (void *)(uintptr_t)m.device, bytes);
    *ret = (struct cuda_rates){0};
    if (rc != 0 || measure_products(c, &ret->products, err) != 0 || measure_floats(c, &ret->floats, err) != 0)
        return -1;
    ret->read = (double)bytes / read;
    ret->to_device = (double)copied / there;
    ret->from_device = (double)copied / back;
    return 0;
}
