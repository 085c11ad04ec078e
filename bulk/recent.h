#ifndef BULK_RECENT_H
#define BULK_RECENT_H

/* Inside bulk/ only. Chunks that were read for their hashes, kept for a moment: their bytes are asked for next, and go to the wire from
 * where they lie, without being read or copied again. The server's lock is held around every call. */

#include <stdbool.h>
#include <stdint.h>

#include "gguf/manifest.h"

/* As many as lie between a chunk's hash and its last byte where one node fetches: its window, and what it asks hashes for ahead. */
enum { RECENT_CHUNKS = 8 };

struct recent_chunk {
    uint8_t model[GGUF_ID_BYTES];
    uint32_t split, chunk, len; /* len 0: holds nothing */
    unsigned holders;           /* whoever fills it, and pieces of it that are under way */
    uint64_t age;
    uint8_t *data; /* MANIFEST_CHUNK_BYTES, or NULL */
};

struct recent {
    struct recent_chunk chunks[RECENT_CHUNKS];
    uint64_t clock;
};

/* The place of a chunk that went out to its end, or else of the oldest, that nobody holds; empty and held. NULL: there is none, or no
 * memory. */
struct recent_chunk *recent_claim(struct recent *r);
/* It is filled; len 0: it is not. Lets go of it. */
void recent_filled(struct recent *r, struct recent_chunk *c, const uint8_t *model, uint32_t split, uint32_t chunk, uint32_t len);
/* Those bytes, held; NULL: they are not here. */
const uint8_t *recent_hold(struct recent *r, const uint8_t *model, uint32_t split, uint64_t offset, uint32_t bytes, struct recent_chunk **ret);
void recent_release(struct recent_chunk *c);
void recent_free(struct recent *r); /* nobody holds any */

#endif
