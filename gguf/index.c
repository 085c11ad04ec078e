/* See index.h. Open addressing with linear steps; a slot keeps 32 bits of the hash, so that a look-up nearly always
 * compares one name only. */
#include "gguf/index.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

_Static_assert(GGUF_INDEX_KEY_BYTES == crypto_shorthash_KEYBYTES, "the key is SipHash's");

struct gguf_index_slot {
    uint32_t hash;
    uint32_t item; /* number + 1; 0: empty */
};

static uint64_t hash_name(const struct gguf_index *index, const char *s, size_t len)
{
    uint64_t hash;
    crypto_shorthash((unsigned char *)&hash, (const unsigned char *)s, len, index->key);
    return hash;
}

/* The slot that holds the name, or the empty one where it belongs. */
static struct gguf_index_slot *probe(const struct gguf_index *index, const void *items, gguf_index_name_fn name, uint64_t hash,
                                     const char *s, size_t len)
{
    for (uint32_t at = (uint32_t)(hash >> 32) & index->mask;; at = (at + 1) & index->mask) {
        struct gguf_index_slot *slot = &index->slots[at];
        if (slot->item == 0)
            return slot;
        if (slot->hash != (uint32_t)hash)
            continue;
        struct gguf_str other = name(items, slot->item - 1);
        if (other.len == len && memcmp(other.s, s, len) == 0)
            return slot;
    }
}

int gguf_index_build(struct gguf_index *index, const void *items, size_t n, gguf_index_name_fn name, size_t *ret_second, struct err *err)
{
    size_t slots = 8;
    while (slots < 2 * n)
        slots *= 2;
    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium finds no source of random numbers");
    randombytes_buf(index->key, sizeof index->key);
    index->mask = (uint32_t)(slots - 1);
    index->slots = mem_new(slots, sizeof *index->slots, err);
    if (!index->slots)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct gguf_str s = name(items, i);
        uint64_t hash = hash_name(index, s.s, s.len);
        struct gguf_index_slot *slot = probe(index, items, name, hash, s.s, s.len);
        if (slot->item) {
            *ret_second = i;
            return 1;
        }
        *slot = (struct gguf_index_slot){.hash = (uint32_t)hash, .item = (uint32_t)i + 1};
    }
    return 0;
}

void gguf_index_fini(struct gguf_index *index)
{
    free(index->slots);
    index->slots = NULL;
}

size_t gguf_index_find(const struct gguf_index *index, const void *items, gguf_index_name_fn name, const char *s, size_t len)
{
    if (!index->slots)
        return SIZE_MAX;
    struct gguf_index_slot *slot = probe(index, items, name, hash_name(index, s, len), s, len);
    return slot->item ? slot->item - 1 : SIZE_MAX;
}
