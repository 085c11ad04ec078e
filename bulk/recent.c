/* See recent.h. */
#include "bulk/recent.h"

#include <stdlib.h>
#include <string.h>

struct recent_chunk *recent_claim(struct recent *r)
{
    struct recent_chunk *oldest = NULL;
    for (int i = 0; i < RECENT_CHUNKS; i++) {
        struct recent_chunk *c = &r->chunks[i];
        if (c->holders == 0 && (!oldest || c->age < oldest->age))
            oldest = c;
    }
    if (!oldest || (!oldest->data && !(oldest->data = malloc(MANIFEST_CHUNK_BYTES))))
        return NULL;
    oldest->len = 0;
    oldest->holders = 1;
    return oldest;
}

void recent_filled(struct recent *r, struct recent_chunk *c, const uint8_t *model, uint32_t split, uint32_t chunk, uint32_t len)
{
    memcpy(c->model, model, sizeof c->model);
    c->split = split;
    c->chunk = chunk;
    c->len = len;
    c->age = ++r->clock;
    c->holders--;
}

const uint8_t *recent_hold(struct recent *r, const uint8_t *model, uint32_t split, uint64_t offset, uint32_t bytes, struct recent_chunk **ret)
{
    uint64_t chunk = offset / MANIFEST_CHUNK_BYTES, skip = offset % MANIFEST_CHUNK_BYTES;
    for (int i = 0; i < RECENT_CHUNKS; i++) {
        struct recent_chunk *c = &r->chunks[i];
        if (c->len >= skip + bytes && c->chunk == chunk && c->split == split && memcmp(c->model, model, sizeof c->model) == 0) {
            c->holders++;
            if (skip + bytes == c->len)
                c->age = 0; /* its end: it has served its time, and its place is still in the processor's caches */
            *ret = c;
            return c->data + skip;
        }
    }
    return NULL;
}

void recent_release(struct recent_chunk *c)
{
    c->holders--;
}

void recent_free(struct recent *r)
{
    for (int i = 0; i < RECENT_CHUNKS; i++)
        free(r->chunks[i].data);
    *r = (struct recent){0};
}
