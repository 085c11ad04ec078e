#ifndef WORKER_FETCH_H
#define WORKER_FETCH_H

/* A model from other nodes, for one load: its header, then the chunks that the loader asks for (model/source_remote.h). A thread
 * and a wire of its own, so that neither heartbeats nor steps wait for it. A link that breaks is dialed again for a while, and
 * what was under way goes on at the byte where it stopped; a node that refuses, or stays away, is not asked any more. Hashes come
 * from the first node of the list that gives them: the coordinator, where it has the file. */

#include "base/err.h"
#include "gguf/gguf.h"
#include "model/cache.h"
#include "model/source.h"
#include "proto/wire.h"

enum { FETCH_PATIENCE_MS = 8000, FETCH_BEGIN_MS = 3000, FETCH_HEADER_MS = 30000, FETCH_MAX_HEADER = 256 << 20 };

struct fetch_node {
    char name[MSG_MAX_NAME + 1], address[MSG_MAX_ADDRESS + 1];
    uint8_t key[MSG_ID_BYTES];
    bool has_key;
};

struct fetch;

/* nodes: copied. */
struct fetch *fetch_create(struct wire_net *net, const uint8_t *model, const struct fetch_node *nodes, size_t n, struct err *err);
/* Blocks. The fetch owns it. */
struct gguf *fetch_header(struct fetch *f, struct err *err);
/* After the header; for the loader, once; it is destroyed with the fetch, when the loader is done with it. cache: NULL for none; one that
 * cannot be used is noted, and done without. */
struct weight_source *fetch_source(struct fetch *f, struct chunk_cache *cache, struct source_report *report, struct err *err);
void fetch_cancel(struct fetch *f); /* any thread */
void fetch_destroy(struct fetch *f); /* takes NULL; joins */

#endif
