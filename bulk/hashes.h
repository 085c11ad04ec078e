#ifndef BULK_HASHES_H
#define BULK_HASHES_H

/* Inside bulk/ only. The hashes of models' chunks, as they become known. With a folder they are kept there, a file for each model, so
 * that the next start need not read a whole model for those who have it in their caches. They count for the files that were
 * read: where these have changed since, they are forgotten. The server's lock is held around every call but those that
 * touch the disk. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/manifest.h"

enum { HASHES_MODELS = 4 }; /* the oldest goes first */

struct hashes_model {
    struct manifest *manifest;
    struct gguf_stamp *stamps; /* of the splits */
    bool changed;              /* since it was read or written */
};

struct hashes {
    char *dir; /* NULL: they are not kept */
    struct hashes_model models[HASHES_MODELS];
    unsigned next;
};

int hashes_init(struct hashes *h, const char *dir, struct err *err);
void hashes_fini(struct hashes *h);

/* Into ret (NULL: none wanted); false: it is not known. */
bool hashes_get(const struct hashes *h, const uint8_t *model, enum manifest_kind kind, uint32_t split, uint32_t chunk, uint8_t *ret);
/* model: g's id, which takes its whole header to make. From the folder, without the lock; NULL: nothing of g's files as they are. Then, with it, into memory, unless they are there. */
struct manifest *hashes_read(const struct hashes *h, const uint8_t *model, const struct gguf *g);
void hashes_put(struct hashes *h, const uint8_t *model, const struct gguf *g, struct manifest *read);
/* What is in memory of g's files, or an empty one. */
const struct manifest *hashes_of(struct hashes *h, const uint8_t *model, const struct gguf *g, enum manifest_kind kind, struct err *err);
int hashes_set(struct hashes *h, const uint8_t *model, const struct gguf *g, enum manifest_kind kind, uint32_t split, uint32_t chunk,
               const uint8_t *hash, struct err *err);

/* A copy of one that is to be written, for hashes_write; false: there is none. */
bool hashes_unwritten(struct hashes *h, struct hashes_model *ret);
void hashes_drop(struct hashes_model *copy);
/* g: that model as it is now. Drops the copy. Without the lock. */
int hashes_write(const struct hashes *h, struct hashes_model *copy, const struct gguf *g, struct err *err);

#endif
