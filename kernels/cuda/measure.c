/* What a device's memory does a second: for probes. What it computes, they measure by its operations (worker/profile.h). */
#include <string.h>

#include "kernels/cuda/device.h"

enum { REPEATS = 5, COPY_BYTES = 64 << 20, READ_BLOCKS = 32 }; /* blocks: for each multiprocessor */

/* What is measured: enqueues it once. */
struct measured {
    int (*enqueue)(struct cuda *c, const struct measured *m, struct err *err);
    uint64_t device;
    void *host;
    size_t bytes;
    struct cuda *to; /* and its memory */
    uint64_t there;
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

static int enqueue_there(struct cuda *c, const struct measured *m, struct err *err)
{
    return cuda_check(c->d, c->d->copy_to_device(m->device, m->host, m->bytes, c->stream), err, "copying to cuda:%u", c->device.index);
}

static int enqueue_back(struct cuda *c, const struct measured *m, struct err *err)
{
    return cuda_check(c->d, c->d->copy_from_device(m->host, m->device, m->bytes, c->stream), err, "copying from cuda:%u", c->device.index);
}

static int enqueue_peer(struct cuda *c, const struct measured *m, struct err *err)
{
    return cuda_check(c->d, c->d->copy_between(m->there, m->to->context, m->device, c->context, m->bytes, c->stream), err, "copying from cuda:%u to cuda:%u",
                      c->device.index, m->to->device.index);
}

int backend_cuda_measure_peer(struct backend *from, struct backend *to, size_t bytes, double *ret, struct err *err)
{
    struct cuda *c = (struct cuda *)from;
    size_t copied = bytes < COPY_BYTES ? bytes : COPY_BYTES;
    struct measured m = {.enqueue = enqueue_peer, .bytes = copied, .to = (struct cuda *)to};
    double took = 0;
    int rc = -1;
    if (copied == 0)
        return err_set(err, ERR_USAGE, "a measurement over 0 bytes");
    if ((m.device = (uint64_t)(uintptr_t)from->ops->alloc(from, copied, err)) && (m.there = (uint64_t)(uintptr_t)to->ops->alloc(to, copied, err)) &&
        cuda_enter(c, err) == 0)
        rc = best_time(c, &m, &took, err);
    if (m.there)
        to->ops->free(to, (void *)(uintptr_t)m.there, copied);
    if (m.device)
        from->ops->free(from, (void *)(uintptr_t)m.device, copied);
    *ret = rc == 0 ? (double)copied / took : 0;
    return rc;
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
    if (rc == 0)
        *ret = (struct cuda_rates){(double)bytes / read, (double)copied / there, (double)copied / back};
    return rc;
}
