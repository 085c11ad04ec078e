/* Weights on their way to the device: rows as they were read go through a pinned buffer to a staging one there, and a kernel
 * packs them into their matrix (layout.h). A few slots, each with a stream of its own, so that the threads that read, the copies
 * and the packing overlap; a stage's weights are never whole on the host. */
#include <string.h>

#include "kernels/cuda/device.h"

static void give_up_slot(struct cuda *c, struct load_slot *s)
{
    if (s->stream) {
        c->d->stream_wait(s->stream);
        c->d->stream_destroy(s->stream);
    }
    if (s->pinned)
        c->d->host_free(s->pinned);
    if (s->staging)
        c->d->mem_free(s->staging);
    s->stream = NULL;
    s->pinned = NULL;
    s->staging = 0;
    s->bytes = 0;
}

/* The slot has room for `bytes`, and nothing of it is on its way. */
static int make_room(struct cuda *c, struct load_slot *s, size_t bytes, struct err *err)
{
    if (s->bytes >= bytes)
        return cuda_check(c->d, c->d->stream_wait(s->stream), err, "packing weights on cuda:%u", c->device.index);
    give_up_slot(c, s);
    if (cuda_check(c->d, c->d->stream_create(&s->stream, CUDA_STREAM_NON_BLOCKING), err, "a stream on cuda:%u", c->device.index) != 0 ||
        cuda_check(c->d, c->d->host_alloc((void **)&s->pinned, bytes, 0), err, "%zu bytes of pinned memory for loading", bytes) != 0 ||
        !(s->staging = cuda_take(c, bytes, "staging for loading", err)))
        return -1;
    s->bytes = bytes;
    return 0;
}

static int put_rows(struct cuda *c, struct load_slot *s, enum quant_type type, const char *src, uint32_t row0, uint32_t n, uint32_t cols, char *dst,
                    struct err *err)
{
    size_t row_bytes = (size_t)quant_bytes(type, cols), bytes = n * row_bytes;
    if (make_room(c, s, bytes > LOAD_SLOT_BYTES ? bytes : LOAD_SLOT_BYTES, err) != 0)
        return -1;
    memcpy(s->pinned, src, bytes);
    uint64_t to = cuda_is_packed(type) ? s->staging : (uint64_t)(uintptr_t)dst + row0 * row_bytes;
    if (cuda_check(c->d, c->d->copy_to_device(to, s->pinned, bytes, s->stream), err, "copying weights to cuda:%u", c->device.index) != 0)
        return -1;
    if (!cuda_is_packed(type))
        return 0;
    struct cuda_pack args = {.src = (const uint8_t *)(uintptr_t)s->staging, .dst = (uint8_t *)dst, .type = type, .row0 = row0, .n = n, .cols = cols,
                             .row_bytes = row_bytes};
    uint32_t grid[3] = {(n + CUDA_PANEL - 1) / CUDA_PANEL, CUDA_SUPERS(cols), 1};
    return cuda_launch(c, c->kernels.pack, grid, 32, &args, s->stream, err);
}

static struct load_slot *take_slot(struct cuda *c)
{
    struct load_slot *s = NULL;
    pthread_mutex_lock(&c->lock);
    while (!s && c->load_err.kind == ERR_NONE) {
        for (int i = 0; i < LOAD_SLOTS && !s; i++)
            if (!c->slots[i].taken)
                s = &c->slots[i];
        if (!s)
            pthread_cond_wait(&c->slot_free, &c->lock);
    }
    if (s)
        s->taken = true;
    pthread_mutex_unlock(&c->lock);
    return s;
}

void cuda_weight_put(struct backend *b, enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst)
{
    struct cuda *c = (struct cuda *)b;
    struct err err = {0};
    size_t row_bytes = (size_t)quant_bytes(type, cols);
    uint32_t step = (uint32_t)(LOAD_SLOT_BYTES / (row_bytes ? row_bytes : 1)) / CUDA_PANEL * CUDA_PANEL;
    struct load_slot *s = take_slot(c);
    if (!s)
        return; /* something went wrong already: weights_done says what */
    step = step ? step : CUDA_PANEL;
    int rc = cuda_enter(c, &err);
    for (uint32_t r = 0; r < n && rc == 0; r += step)
        rc = put_rows(c, s, type, (const char *)src + r * row_bytes, row0 + r, n - r < step ? n - r : step, cols, dst, &err);
    pthread_mutex_lock(&c->lock);
    if (rc != 0 && c->load_err.kind == ERR_NONE)
        c->load_err = err;
    s->taken = false;
    pthread_cond_broadcast(&c->slot_free);
    pthread_mutex_unlock(&c->lock);
}

int cuda_weights_done(struct backend *b, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    struct err own = {0};
    if (cuda_enter(c, err) != 0)
        return -1;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < LOAD_SLOTS; i++) {
        struct load_slot *s = &c->slots[i];
        if (s->stream && cuda_check(c->d, c->d->stream_wait(s->stream), &own, "packing weights on cuda:%u", c->device.index) != 0 && c->load_err.kind == ERR_NONE)
            c->load_err = own;
        give_up_slot(c, s);
    }
    own = c->load_err;
    c->load_err = (struct err){0};
    pthread_mutex_unlock(&c->lock);
    if (own.kind == ERR_NONE)
        return 0;
    if (err)
        *err = own;
    return -1;
}
