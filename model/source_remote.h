#ifndef MODEL_SOURCE_REMOTE_H
#define MODEL_SOURCE_REMOTE_H

/* A model's bytes from others who have them: peers, or the coordinator. This folder knows no network: whoever has the links
 * gives two functions that ask, and hands in what comes. Chunks (gguf/manifest.h) are asked for in the order in which the
 * loader needs them, several at once over all peers, and may come in any order; each is checked by its hash before a byte of
 * it is used. A chunk that is wrong, refused or late is asked for again elsewhere; a peer that sends WRONG_MAX wrong ones is
 * not asked any more. With a cache (model/cache.h) what is there is taken from there, and what comes is kept: so a load that was
 * cut goes on where it stopped. Memory: at most `in_flight` chunks and what a single range spans.
 *
 * Handing in costs a copy and hashing what came; the loader's threads compare hashes and write the cache. */

#include <stdint.h>

#include "base/err.h"
#include "gguf/manifest.h"
#include "model/cache.h"
#include "model/source.h"

enum { REMOTE_MAX_PEERS = 64, REMOTE_WRONG_MAX = 3, REMOTE_MAX_IN_FLIGHT = 256, REMOTE_TRIES = 5, REMOTE_TIMEOUT_MS = 10000 };

/* A wish for `bytes` bytes of a split from `offset` on: chunk `chunk`. */
struct remote_request {
    uint64_t id; /* to hand in with */
    uint32_t peer, split, chunk, bytes;
    uint64_t offset;
};

struct source_remote_config {
    struct manifest *manifest; /* borrowed. Has the hash of every chunk that is needed, or `need` is given: */
    /* That chunk's hash is not known: source_remote_hash is to bring it; until then its bytes are not used. Called by the loader's
     * threads, once for each, after its bytes were asked for, or before where the cache may have them. NULL: a hash that is missing is
     * an error. */
    void (*need)(void *arg, uint32_t split, uint32_t chunk);
    const char *const *peers;        /* names, for reports and messages; copied */
    uint32_t n_peers;
    /* Asks a peer; must not wait for the answer. Called by the loader's threads, by none twice at once for one id; the answer
     * may come before it returns. -1: this peer cannot be asked now. */
    int (*ask)(void *arg, const struct remote_request *request);
    /* Nobody waits for that answer any more; NULL: never mind. Must not call the source: its lock is held. */
    void (*forget)(void *arg, uint64_t id);
    void *arg;
    struct chunk_cache *cache; /* NULL: none; its cache_use(manifest) was called */
    uint32_t in_flight;        /* chunks asked for at once; 0: 4 for each peer */
    uint32_t tries;            /* for one chunk, over all peers; 0: REMOTE_TRIES */
    uint32_t timeout_ms;       /* without a byte of it; 0: REMOTE_TIMEOUT_MS */
};

struct weight_source *source_remote_create(const struct source_remote_config *config, struct err *err);

/* From any thread, until the source is destroyed; what nobody waits for (any more) is dropped. A chunk may come in parts, in
 * order: `at` counts from its beginning. One thread at a time for one id. */
void source_remote_deliver(struct weight_source *s, uint64_t id, uint32_t at, const void *data, uint32_t len);
/* A hash that was missing. -1: there is no such chunk, or it has another hash. */
int source_remote_hash(struct weight_source *s, uint32_t split, uint32_t chunk, const unsigned char hash[MANIFEST_HASH_BYTES], struct err *err);
/* The peer cannot or will not; why: for messages. */
void source_remote_refuse(struct weight_source *s, uint64_t id, const char *why);
/* The link is gone: what was asked of the peer goes elsewhere, and nothing more goes there. */
void source_remote_lost(struct weight_source *s, uint32_t peer, const char *why);

#endif
