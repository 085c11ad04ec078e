#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/sysinfo.h"
#include "tests/tap.h"

int main(void)
{
    struct err err;
    size_t n;
    ok(!mem_mul(SIZE_MAX, 2, &n) && mem_mul(3, 4, &n) && n == 12, "mem_mul sees overflow");
    ok(!mem_add(SIZE_MAX, 1, &n) && mem_add(3, 4, &n) && n == 7, "mem_add sees overflow");
    ok(mem_new(SIZE_MAX / 2, 8, &err) == NULL && err.kind == ERR_MEMORY, "an impossible size is an error");

    int *items = NULL;
    size_t cap = 0;
    is_int(mem_grow(&items, &cap, 1000, sizeof *items, 1000, "items", &err), 0, "grows up to the limit");
    int *before = items;
    ok(mem_grow(&items, &cap, 1001, sizeof *items, 1000, "items", &err) == -1 && err.kind == ERR_LIMIT && items == before,
       "and not past it");
    has_str(err.text, "items: 1001 needed, at most 1000 allowed", "the limit is named");
    free(items);

    struct arena arena;
    arena_init(&arena, 1 << 20);
    char *p[1000];
    bool aligned = true, kept = true;
    for (int i = 0; i < 1000; i++) {
        p[i] = arena_alloc(&arena, (size_t)i % 300 + 1, &err);
        aligned &= (uintptr_t)p[i] % 16 == 0;
        memset(p[i], i & 0xFF, (size_t)i % 300 + 1);
    }
    for (int i = 0; i < 1000; i++)
        for (int j = 0; j < i % 300 + 1; j++)
            kept &= (unsigned char)p[i][j] == (i & 0xFF);
    ok(aligned && kept, "a thousand objects, aligned and apart");
    ok(!arena_alloc(&arena, SIZE_MAX, &err) && err.kind == ERR_LIMIT, "an absurd size is refused");
    ok(!arena_alloc(&arena, 1 << 20, &err), "the limit holds");
    size_t total = 0;
    while (arena_alloc(&arena, 5000, &err))
        total += 5000;
    ok(arena.used <= 1 << 20 && total > 500000, "it can be filled (%zu more) but not overfilled", total);
    arena_fini(&arena);

    char *pages = mem_pages_alloc(5 << 20, &err);
    ok(pages && pages[0] == 0 && pages[(5 << 20) - 1] == 0, "pages are zero");
    mem_pages_free(pages, 5 << 20);

    const uint64_t most = (uint64_t)1 << 30;
    uint64_t beyond = sysinfo_beyond_caches(1);
    ok(beyond >= 1 && beyond <= most, "more than caches hold is a gigabyte at most");
    ok(sysinfo_beyond_caches(most + 5) == most + 5, "and as much as is asked for, whatever the caches are");
    return tap_done();
}
