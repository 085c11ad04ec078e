#ifndef MODEL_CACHE_H
#define MODEL_CACHE_H

/* Chunks of models (gguf/manifest.h) that came over the network, kept in a folder (--cache DIR), so that the next start reads
 * them from the own disk. A folder for each model, by its id; in it a sparse file for each split and a journal of the chunks
 * that are there. A chunk is never believed: whoever gets it back checks it against the manifest, so that neither a crash nor
 * a bad disk nor a stranger's hand makes wrong weights. The folder's size is bounded: the models that were not used for longest
 * go first, whole; the one in use never does. A second process cannot open the folder.
 *
 * Any thread; get and put block on the disk. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/manifest.h"

struct chunk_cache;

/* Makes the folder if there is none. bytes_max counts what the files take on the disk. ERR_BUSY: another process has it open. */
struct chunk_cache *cache_open(const char *dir, uint64_t bytes_max, struct err *err);
void cache_close(struct chunk_cache *c); /* takes NULL */

/* The model that get and put are about, until as many cache_leave; reads its journal. ERR_BUSY: another one is in use. */
int cache_use(struct chunk_cache *c, const struct manifest *m, struct err *err);
void cache_leave(struct chunk_cache *c);
/* The journal says that the chunk is there. */
bool cache_has(struct chunk_cache *c, uint32_t split, uint32_t chunk);
/* true: the chunk's bytes are at `to`, and are those that m wants. false: it is not there, or was not right and is dropped. */
bool cache_get(struct chunk_cache *c, const struct manifest *m, uint32_t split, uint32_t chunk, void *to);
/* Keeps a chunk that was checked. 1: kept; 0: there is no room even without the other models; -1 and err: the disk failed. */
int cache_put(struct chunk_cache *c, const struct manifest *m, uint32_t split, uint32_t chunk, const void *data, struct err *err);

uint64_t cache_bytes(struct chunk_cache *c); /* on the disk, of all models */

#endif
