#ifndef GGUF_MANIFEST_H
#define GGUF_MANIFEST_H

/* What a model's bytes must be: every split is cut, by file offset, into chunks of 4 MiB (the last one shorter), and a manifest
 * holds a hash of each: BLAKE3, or BLAKE2b-256 where somebody speaks a protocol that knows no other. Whoever serves a model makes it; whoever is served checks every chunk by it before use, no
 * matter who sent it. A hash may be unknown still: a server hashes what it is asked for. One thread at a time writes. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"

enum { MANIFEST_CHUNK_BYTES = 4 << 20, MANIFEST_HASH_BYTES = 32 };
enum manifest_kind { MANIFEST_BLAKE2B, MANIFEST_BLAKE3, MANIFEST_KINDS };
enum { MANIFEST_MAX_CHUNKS = 1 << 20 }; /* of all splits, 4 TiB: bounds what a foreign manifest may ask for */

struct manifest;

/* For the splits of g, at the sizes their headers imply, without any hash. */
struct manifest *manifest_create(const struct gguf *g, enum manifest_kind kind, struct err *err);
void manifest_destroy(struct manifest *m); /* takes NULL */

enum manifest_kind manifest_kind(const struct manifest *m);
const unsigned char *manifest_model_id(const struct manifest *m); /* GGUF_ID_BYTES */
uint32_t manifest_n_splits(const struct manifest *m);
uint32_t manifest_n_chunks(const struct manifest *m, uint32_t split);
uint32_t manifest_chunk_bytes(const struct manifest *m, uint32_t split, uint32_t chunk); /* 0: there is no such chunk */
/* NULL: not known, or no such chunk. */
const unsigned char *manifest_hash(const struct manifest *m, uint32_t split, uint32_t chunk);
/* -1 where there is no such chunk, or another hash stands there already (two servers disagree). */
int manifest_set(struct manifest *m, uint32_t split, uint32_t chunk, const unsigned char hash[MANIFEST_HASH_BYTES], struct err *err);

void manifest_hash_bytes(enum manifest_kind kind, const void *data, size_t len, unsigned char ret[MANIFEST_HASH_BYTES]);
bool manifest_matches(const struct manifest *m, uint32_t split, uint32_t chunk, const void *data, size_t len);

/* A chunk of g's own files, for serving: MANIFEST_CHUNK_BYTES of room at `to`; *ret_bytes of it are filled. Blocks. The file
 * must be the one whose header g is, unchanged. */
int manifest_read_chunk(const struct gguf *g, uint32_t split, uint32_t chunk, void *to, uint32_t *ret_bytes, struct err *err);

/* As bytes, for the wire and for files: kind, model id, splits' sizes, the hashes that are known, and a checksum over all. The
 * caller frees. */
unsigned char *manifest_encode(const struct manifest *m, size_t *ret_len, struct err *err);
/* Foreign bytes: every count is checked; a wrong checksum is an error. */
struct manifest *manifest_decode(const void *data, size_t len, struct err *err);

/* A server keeps its hashes in a file, so that a start does not hash everything again. They count only while the model's files
 * are those that were hashed, unchanged, and the hashes are of the kind asked for: load returns NULL with ERR_NOT_FOUND otherwise,
 * and where there is no such file.
 * Saving replaces the file at once or not at all. */
int manifest_save(const struct manifest *m, const struct gguf *g, const char *path, struct err *err);
struct manifest *manifest_load(const struct gguf *g, enum manifest_kind kind, const char *path, struct err *err);

#endif
