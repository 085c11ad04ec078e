#ifndef TESTS_CHECKKERNELS_TWIN_CHECKTWINS_H
#define TESTS_CHECKKERNELS_TWIN_CHECKTWINS_H

/* The tile instructions in software (tiles.c), each with its operands in Intel's order, and what checktwins asks of them. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct acts;

void twin_tile_loadconfig(const void *config);
void twin_tile_release(void);
void twin_tile_zero(int t);
void twin_tile_loadd(int t, const void *base, size_t stride);
void twin_tile_stored(int t, void *base, size_t stride);
void twin_tile_dpbssd(int c, int a, int b);

/* Instructions so far, of all threads (there is one). */
struct twin_count {
    uint64_t configs, releases, products;
};
extern struct twin_count twin_count;

bool twin_tiles_in_use(void); /* by this thread */
bool twin_few_rows(const struct acts *x); /* whether the AMX kernels leave x to AVX-512: as they do, or never */

#endif
