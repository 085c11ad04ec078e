/* See mem.h. */
#include "base/mem.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, ARENA_CHUNK_MIN = 4096, ARENA_CHUNK_MAX = 1 << 20 };

bool mem_mul(size_t a, size_t b, size_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}

bool mem_add(size_t a, size_t b, size_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

void *mem_new(size_t count, size_t size, struct err *err)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p)
        err_set(err, ERR_MEMORY, "out of memory: %zu objects of %zu bytes", count, size);
    return p;
}

int mem_grow(void *array, size_t *cap, size_t need, size_t size, size_t max, const char *what, struct err *err)
{
    void *old, *fresh;
    size_t bytes, n;

    if (need <= *cap)
        return 0;
    if (need > max)
        return err_set(err, ERR_LIMIT, "%s: %zu needed, at most %zu allowed", what, need, max);
    n = *cap + *cap / 2 + 8;
    if (n < need)
        n = need;
    if (n > max)
        n = max;
    memcpy(&old, array, sizeof old);
    if (!mem_mul(n, size, &bytes) || !(fresh = realloc(old, bytes)))
        return err_set(err, ERR_MEMORY, "%s: out of memory at %zu of %zu bytes each", what, n, size);
    memcpy(array, &fresh, sizeof fresh);
    *cap = n;
    return 0;
}

void *mem_pages_alloc(size_t bytes, struct err *err)
{
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        err_set(err, ERR_MEMORY, "out of memory: %zu bytes of pages", bytes);
        return NULL;
    }
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE); /* a wish: without it everything still works */
    return p;
}

void mem_pages_free(void *pages, size_t bytes)
{
    if (pages)
        munmap(pages, bytes ? bytes : 1);
}

struct arena_chunk {
    struct arena_chunk *next;
    alignas(max_align_t) char data[];
};

void arena_init(struct arena *arena, size_t max)
{
    *arena = (struct arena){.max = max};
}

void arena_fini(struct arena *arena)
{
    while (arena->chunks) {
        struct arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    arena->next = arena->end = NULL;
    arena->used = 0;
}

void *arena_alloc(struct arena *arena, size_t bytes, struct err *err)
{
    const size_t align = alignof(max_align_t);
    size_t room = (size_t)(arena->end - arena->next);

    if (bytes > SIZE_MAX / 2)
        return err_set(err, ERR_LIMIT, "%zu bytes needed at once, at most %zu allowed", bytes, arena->max), NULL;
    bytes = (bytes + align - 1) / align * align;
    if (bytes == 0)
        bytes = align;
    if (bytes > room) {
        size_t want = arena->used < ARENA_CHUNK_MIN ? ARENA_CHUNK_MIN : arena->used;
        if (want > ARENA_CHUNK_MAX)
            want = ARENA_CHUNK_MAX;
        if (want < bytes)
            want = bytes;
        if (want > arena->max - arena->used)
            want = bytes;
        if (want > arena->max - arena->used)
            return err_set(err, ERR_LIMIT, "memory limit of %zu bytes reached", arena->max), NULL;
        struct arena_chunk *chunk = malloc(sizeof *chunk + want);
        if (!chunk)
            return err_set(err, ERR_MEMORY, "out of memory: %zu bytes", want), NULL;
        arena->used += want;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        if (want - bytes < room) { /* keep filling the fuller chunk; this one is taken whole */
            return chunk->data;
        }
        arena->next = chunk->data;
        arena->end = chunk->data + want;
    }
    void *p = arena->next;
    arena->next += bytes;
    return p;
}

char *arena_strndup(struct arena *arena, const char *s, size_t len, struct err *err)
{
    char *p = len < SIZE_MAX ? arena_alloc(arena, len + 1, err) : NULL;
    if (!p)
        return NULL;
    if (len)
        memcpy(p, s, len);
    p[len] = '\0';
    return p;
}
