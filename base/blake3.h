#ifndef BASE_BLAKE3_H
#define BASE_BLAKE3_H

/* BLAKE3, plain hashing of what is in memory: a tree over leaves of 1 KiB, so that one core hashes several leaves at once, one in
 * each lane of its vectors. Several times as fast as BLAKE2b, which is one long chain. Every level gives the same hash. */

#include <stdbool.h>
#include <stddef.h>

enum { BLAKE3_BYTES = 32 };

/* By the best level that this processor has. */
void blake3(const void *data, size_t len, unsigned char ret[BLAKE3_BYTES]);

/* For tests. BLAKE3_LANES_4 compiles for any processor: SSE2, NEON, or scalar where there are no vectors. */
enum blake3_level { BLAKE3_LANES_4, BLAKE3_AVX2, BLAKE3_LEVELS };
bool blake3_has(enum blake3_level level);
void blake3_by(enum blake3_level level, const void *data, size_t len, unsigned char ret[BLAKE3_BYTES]);

#endif
