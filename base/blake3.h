#ifndef BASE_BLAKE3_H
#define BASE_BLAKE3_H

/* BLAKE3, plain hashing of what is in memory: a tree over leaves of 1 KiB, so that one core hashes several leaves at once, one in
 * each lane of its vectors. Several times as fast as BLAKE2b, which is one long chain. Every level gives the same hash. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BLAKE3_BYTES = 32, BLAKE3_PART_BYTES = 256 << 10, BLAKE3_PARTS = 16 };

/* By the best level that this processor has. */
void blake3(const void *data, size_t len, unsigned char ret[BLAKE3_BYTES]);

/* The same of what comes by and by, `bytes` in all: parts of BLAKE3_PART_BYTES, in order, of which only the last may be shorter;
 * at most BLAKE3_PARTS of them. */
struct blake3_parts {
    size_t bytes;
    uint32_t n; /* so far */
    uint32_t hashes[BLAKE3_PARTS][BLAKE3_BYTES / 4];
};
void blake3_begin(struct blake3_parts *p, size_t bytes);
void blake3_part(struct blake3_parts *p, const void *data, size_t len);
void blake3_end(struct blake3_parts *p, unsigned char ret[BLAKE3_BYTES]); /* all of them came */

/* For tests. BLAKE3_LANES_4 compiles for any processor: SSE2, NEON, or scalar where there are no vectors. */
enum blake3_level { BLAKE3_LANES_4, BLAKE3_AVX2, BLAKE3_LEVELS };
bool blake3_has(enum blake3_level level);
void blake3_by(enum blake3_level level, const void *data, size_t len, unsigned char ret[BLAKE3_BYTES]);

#endif
