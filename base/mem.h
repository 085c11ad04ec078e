#ifndef BASE_MEM_H
#define BASE_MEM_H

/* Memory. Every allocation can fail and says so; sizes that come from files are multiplied with overflow checks here and
 * nowhere else. Three kinds: single objects, growing arrays with a named limit, and arenas (many small things that die
 * together, bounded in total: what parsers of foreign bytes use). Large weights use whole pages. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Zeroed memory for count objects of size bytes; NULL and ERR_MEMORY if there is none. count 0 gives a valid pointer.
 * Freed by free(). */
void *mem_new(size_t count, size_t size, struct err *err);

/* Makes *array hold at least `need` items of `size` bytes, growing by half again; *cap is its capacity. Returns 0, or -1
 * with the array untouched: ERR_LIMIT when need is over max (the text names `what`), ERR_MEMORY. New items are not
 * cleared. */
int mem_grow(void *array, size_t *cap, size_t need, size_t size, size_t max, const char *what, struct err *err);

/* a * b and a + b into *ret; false on overflow. */
bool mem_mul(size_t a, size_t b, size_t *ret);
bool mem_add(size_t a, size_t b, size_t *ret);

/* Whole zeroed pages, on huge ones where the system grants them. Returns NULL and ERR_MEMORY with the size. */
void *mem_pages_alloc(size_t bytes, struct err *err);
void mem_pages_free(void *pages, size_t bytes);

/* An arena. Chunks double up to a megabyte; larger objects get a chunk of their own. */
struct arena_chunk;
struct arena {
    struct arena_chunk *chunks;
    char *next, *end;
    size_t used; /* bytes in chunks, overhead included */
    size_t max;  /* limit on used */
};

void arena_init(struct arena *arena, size_t max);
void arena_fini(struct arena *arena);
/* Uncleared memory aligned for any type, or NULL: ERR_LIMIT over max, ERR_MEMORY. Lives until arena_fini. */
void *arena_alloc(struct arena *arena, size_t bytes, struct err *err);
/* A copy of len bytes with a 0 behind it. */
char *arena_strndup(struct arena *arena, const char *s, size_t len, struct err *err);

#endif
