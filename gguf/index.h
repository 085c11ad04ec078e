#ifndef GGUF_INDEX_H
#define GGUF_INDEX_H

/* Names to item numbers: the hash table behind gguf_find and gguf_find_tensor. Built once over a finished table, then only
 * read. The hash is keyed with random bytes, so that no file can be made whose names all collide. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"

enum { GGUF_INDEX_KEY_BYTES = 16 };

struct gguf_index {
    struct gguf_index_slot *slots; /* a power of two, at least half of them empty */
    uint32_t mask;
    unsigned char key[GGUF_INDEX_KEY_BYTES];
};

/* The name of item i of the table that is indexed. */
typedef struct gguf_str (*gguf_index_name_fn)(const void *items, size_t i);

/* Returns 0; 1 when two items have one name, the second of them in *ret_second; -1 and err. The caller ends it with
 * gguf_index_fini in every case. */
int gguf_index_build(struct gguf_index *index, const void *items, size_t n, gguf_index_name_fn name, size_t *ret_second, struct err *err);
void gguf_index_fini(struct gguf_index *index);
/* The item's number, or SIZE_MAX. An index never built finds nothing. */
size_t gguf_index_find(const struct gguf_index *index, const void *items, gguf_index_name_fn name, const char *s, size_t len);

#endif
