/* Weights on their way to the device: disk → pinned pages → device → their place. The loader's buffers are pinned (host_pin), so that
 * the device copies rows from where the disk's controller put them; rows that lie elsewhere go through a pinned buffer of ours.
 * On the device they come to a staging buffer, from which a kernel packs them into their matrix (layout.h). A few slots, each with a
 * stream of its own, taken in turn, so that reading, copying and packing overlap; a stage's weights are never whole on the host. */
#include <string.h>

#include "kernels/cuda/device.h"

static void give_up_slot(struct cuda *c, struct load_slot *s)
{
    if (s->stream) {
        c->d->stream_wait(s->stream);
        c->d->stream_destroy(s->stream);
    }
    if (s->copied)
        c->d->event_destroy(s->copied);
    if (s->pinned)
        c->d->host_free(s->pinned);
    if (s->staging)
        c->d->mem_free(s->staging);
    *s = (struct load_slot){.taken = s->taken};
}

static int start_slot(struct cuda *c, struct load_slot *s, struct err *err)
{
    if (!s->stream && cuda_check(c->d, c->d->stream_create(&s->stream, CUDA_STREAM_NON_BLOCKING), err, "a stream on cuda:%u", c->device.index) != 0)
        return -1;
    return s->copied ? 0 : cuda_check(c->d, c->d->event_create(&s->copied, CUDA_EVENT_NO_TIMING), err, "an event on cuda:%u", c->device.index);
}

/* All copies so far have read what they were to: their source is free. */
static int await_copies(struct cuda *c, struct load_slot *s, struct err *err)
{
    return cuda_check(c->d, c->d->event_wait(s->copied), err, "copying weights to cuda:%u", c->device.index);
}

static size_t at_least(size_t bytes)
{
    return bytes > LOAD_SLOT_BYTES ? bytes : LOAD_SLOT_BYTES;
}

/* The slot's own pinned buffer with these rows. */
static int fill_pinned(struct cuda *c, struct load_slot *s, const char *src, size_t bytes, struct err *err)
{
    if (await_copies(c, s, err) != 0)
        return -1;
    if (s->pinned_bytes < bytes) {
        if (s->pinned)
            c->d->host_free(s->pinned);
        s->pinned = NULL;
        s->pinned_bytes = 0;
        if (cuda_check(c->d, c->d->host_alloc((void **)&s->pinned, at_least(bytes), 0), err, "%zu bytes of pinned memory for loading", at_least(bytes)) != 0)
            return -1;
        s->pinned_bytes = at_least(bytes);
    }
    memcpy(s->pinned, src, bytes);
    return 0;
}

static int make_staging(struct cuda *c, struct load_slot *s, size_t bytes, struct err *err)
{
    if (s->staging_bytes >= bytes)
        return 0; /* the stream's order keeps what follows from overwriting what is being packed */
    if (s->staging) {
        c->d->stream_wait(s->stream);
        c->d->mem_free(s->staging);
    }
    s->staging_bytes = 0;
    if (!(s->staging = cuda_take(c, at_least(bytes), "staging for loading", err)))
        return -1;
    s->staging_bytes = at_least(bytes);
    return 0;
}

static bool is_pinned(const struct cuda *c, const char *src, size_t bytes)
{
    return c->pages && src >= c->pages && src + bytes <= c->pages + c->pages_bytes;
}

static int put_rows(struct cuda *c, struct load_slot *s, enum quant_type type, const char *src, uint32_t row0, uint32_t n, uint32_t cols, char *dst,
                    struct err *err)
{
    size_t row_bytes = (size_t)quant_bytes(type, cols), bytes = n * row_bytes;
    bool packed = cuda_is_packed(type);
    const char *from = src;
    if (!is_pinned(c, src, bytes)) {
        if (fill_pinned(c, s, src, bytes, err) != 0)
            return -1;
        from = s->pinned;
    }
    if (packed && make_staging(c, s, bytes, err) != 0)
        return -1;
    uint64_t to = packed ? s->staging : (uint64_t)(uintptr_t)dst + row0 * row_bytes;
    if (cuda_check(c->d, c->d->copy_to_device(to, from, bytes, s->stream), err, "copying weights to cuda:%u", c->device.index) != 0 ||
        cuda_check(c->d, c->d->event_record(s->copied, s->stream), err, "copying weights to cuda:%u", c->device.index) != 0)
        return -1;
    if (!packed)
        return 0;
    struct cuda_pack args = {.src = (const uint8_t *)(uintptr_t)s->staging, .dst = (uint8_t *)dst, .type = type, .row0 = row0, .n = n, .cols = cols,
                             .row_bytes = row_bytes};
    uint32_t grid[3] = {(n + CUDA_PANEL - 1) / CUDA_PANEL, CUDA_SUPERS(cols), 1};
    return cuda_launch(c, c->kernels.pack, grid, 32, &args, s->stream, err);
}

/* The one that was not used for longest: its copies have most likely ended. NULL and err: something went wrong already. */
static struct load_slot *take_slot(struct cuda *c, struct err *err)
{
    struct load_slot *s = NULL;
    pthread_mutex_lock(&c->lock);
    while (!s && c->load_err.kind == ERR_NONE) {
        for (int i = 0; i < LOAD_SLOTS; i++)
            if (!c->slots[i].taken && (!s || c->slots[i].used < s->used))
                s = &c->slots[i];
        if (!s)
            pthread_cond_wait(&c->slot_free, &c->lock);
    }
    if (s) {
        s->taken = true;
        s->used = ++c->puts;
    } else if (err) {
        *err = c->load_err;
    }
    pthread_mutex_unlock(&c->lock);
    return s;
}

int cuda_weight_put(struct backend *b, enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    struct err own = {0};
    size_t row_bytes = (size_t)quant_bytes(type, cols);
    uint32_t step = (uint32_t)(LOAD_SLOT_BYTES / (row_bytes ? row_bytes : 1)) / CUDA_PANEL * CUDA_PANEL;
    struct load_slot *s = take_slot(c, err);
    if (!s)
        return -1;
    step = step ? step : CUDA_PANEL;
    int rc = cuda_enter(c, &own);
    rc = rc ? rc : start_slot(c, s, &own);
    for (uint32_t r = 0; r < n && rc == 0; r += step)
        rc = put_rows(c, s, type, (const char *)src + r * row_bytes, row0 + r, n - r < step ? n - r : step, cols, dst, &own);
    /* What it read from is the caller's again, but for rows that were copied first; packing goes on. */
    if (rc != 0 && s->stream)
        c->d->stream_wait(s->stream);
    else if (rc == 0 && is_pinned(c, src, n * row_bytes))
        rc = await_copies(c, s, &own);
    pthread_mutex_lock(&c->lock);
    if (rc != 0 && c->load_err.kind == ERR_NONE)
        c->load_err = own;
    s->taken = false;
    pthread_cond_broadcast(&c->slot_free);
    pthread_mutex_unlock(&c->lock);
    if (rc != 0 && err)
        *err = own;
    return rc;
}

int cuda_host_pin(struct backend *b, void *pages, size_t bytes, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    if (cuda_enter(c, err) != 0 || cuda_check(c->d, c->d->host_register(pages, bytes, 0), err, "pinning %zu MiB for cuda:%u", bytes >> 20, c->device.index) != 0)
        return -1;
    c->pages = pages;
    c->pages_bytes = bytes;
    return 0;
}

void cuda_host_unpin(struct backend *b)
{
    struct cuda *c = (struct cuda *)b;
    if (c->pages && cuda_enter(c, NULL) == 0)
        c->d->host_unregister((void *)(uintptr_t)c->pages);
    c->pages = NULL;
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
