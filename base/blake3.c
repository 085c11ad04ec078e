/* See blake3.h. The tree: leaves of 1 KiB, each a chain of blocks; a parent is one block, its children's hashes; a left subtree is
 * full and as large as it can be. Pairing neighbours level by level, with what is left over going up as it is, makes just that tree.
 * So a group of up to 256 leaves is hashed breadth first, as many at once as there are lanes, and groups are joined one by one. */
#include "base/blake3.h"

#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as they lie");

enum { BLOCK_BYTES = 64, LEAF_BYTES = 1024, GROUP_LEAVES = BLAKE3_PART_BYTES / LEAF_BYTES, GROUP_BYTES = GROUP_LEAVES * LEAF_BYTES };
enum { LEAF_START = 1, LEAF_END = 2, PARENT = 4, ROOT = 8 };

static const uint32_t start[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

static const uint8_t schedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

/* What the inputs of one call have in common. */
struct shape {
    uint32_t blocks, step, flags, first_flags, last_flags;
};
static const struct shape leaf_shape = {LEAF_BYTES / BLOCK_BYTES, 1, 0, LEAF_START, LEAF_END}, parent_shape = {1, 0, PARENT, 0, 0};

/* --- one at a time ------------------------------------------------------------------------------------------------------- */

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static inline void mix(uint32_t *v, int a, int b, int c, int d, uint32_t x, uint32_t y)
{
    v[a] += v[b] + x;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = rotate(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 7);
}

/* A block of len bytes, zeros behind them, into h. */
static void compress(uint32_t h[8], const uint8_t block[BLOCK_BYTES], uint64_t counter, uint32_t len, uint32_t flags)
{
    uint32_t m[16], v[16];
    memcpy(m, block, sizeof m);
    memcpy(v, h, 8 * sizeof *v);
    memcpy(v + 8, start, 4 * sizeof *v);
    v[12] = (uint32_t)counter;
    v[13] = (uint32_t)(counter >> 32);
    v[14] = len;
    v[15] = flags;
    for (int r = 0; r < 7; r++) {
        const uint8_t *s = schedule[r];
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]]);
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++)
        h[i] = v[i] ^ v[i + 8];
}

/* flags: ROOT where it is all there is. */
static void hash_leaf(const uint8_t *from, size_t len, uint64_t number, uint32_t flags, uint32_t to[8])
{
    uint8_t last[BLOCK_BYTES] = {0};
    uint32_t begins = LEAF_START;
    memcpy(to, start, sizeof start);
    for (; len > BLOCK_BYTES; from += BLOCK_BYTES, len -= BLOCK_BYTES, begins = 0)
        compress(to, from, number, BLOCK_BYTES, begins);
    if (len > 0)
        memcpy(last, from, len);
    compress(to, last, number, (uint32_t)len, begins | LEAF_END | flags);
}

static void hash_parent(uint32_t children[2][8], uint32_t flags, uint32_t to[8])
{
    uint8_t block[BLOCK_BYTES];
    memcpy(block, children, sizeof block);
    memcpy(to, start, sizeof start);
    compress(to, block, 0, BLOCK_BYTES, PARENT | flags);
}

/* --- several at once ----------------------------------------------------------------------------------------------------- */

#define LANES 4
#define TARGET
#define LANES_NAME(x) x##_4
#include "base/blake3_lanes.inc"
#undef LANES
#undef TARGET
#undef LANES_NAME

#if defined __x86_64__
#define LANES 8
#define TARGET __attribute__((target("avx2")))
#define LANES_NAME(x) x##_8
#include "base/blake3_lanes.inc"
#endif

struct lanes {
    size_t n;
    void (*hash)(const uint8_t *from, size_t stride, const struct shape *s, uint64_t counter, uint32_t (*to)[8]);
};

static const struct lanes lanes_of[BLAKE3_LEVELS] = {
    [BLAKE3_LANES_4] = {4, hash_4},
#if defined __x86_64__
    [BLAKE3_AVX2] = {8, hash_8},
#endif
};

bool blake3_has(enum blake3_level level)
{
#if defined __x86_64__
    if (level == BLAKE3_AVX2)
        return __builtin_cpu_supports("avx2");
#endif
    return level == BLAKE3_LANES_4;
}

/* --- the tree ------------------------------------------------------------------------------------------------------------ */

/* n > 1 hashes of neighbours, into one; they are overwritten. Those of one level replace those of the level below in place: a parent
 * lies no further on than its children, and those were read before it is written. */
static void join(const struct lanes *l, uint32_t (*hashes)[8], size_t n, uint32_t flags, uint32_t to[8])
{
    uint32_t parents[8][8];
    while (n > 2) {
        size_t pairs = n / 2, i = 0;
        for (; i + l->n <= pairs; i += l->n) {
            l->hash((const uint8_t *)hashes[2 * i], BLOCK_BYTES, &parent_shape, 0, parents);
            memcpy(hashes + i, parents, l->n * sizeof *hashes);
        }
        for (; i < pairs; i++) {
            hash_parent(hashes + 2 * i, 0, parents[0]);
            memcpy(hashes[i], parents[0], sizeof *hashes);
        }
        if (n % 2)
            memmove(hashes[pairs], hashes[n - 1], sizeof *hashes);
        n = pairs + n % 2;
    }
    hash_parent(hashes, flags, to);
}

/* At most GROUP_BYTES. */
static void hash_group(const struct lanes *l, const uint8_t *from, size_t len, uint64_t number, uint32_t flags, uint32_t to[8])
{
    uint32_t hashes[GROUP_LEAVES][8];
    size_t n = 0, full = len / LEAF_BYTES;
    if (len <= LEAF_BYTES) {
        hash_leaf(from, len, number, flags, to);
        return;
    }
    for (; n + l->n <= full; n += l->n)
        l->hash(from + n * LEAF_BYTES, LEAF_BYTES, &leaf_shape, number + n, hashes + n);
    for (; n * LEAF_BYTES < len; n++) {
        size_t left = len - n * LEAF_BYTES;
        hash_leaf(from + n * LEAF_BYTES, left < LEAF_BYTES ? left : LEAF_BYTES, number + n, 0, hashes[n]);
    }
    join(l, hashes, n, flags, to);
}

/* As deep as len has bits. */
static void hash_tree(const struct lanes *l, const uint8_t *from, size_t len, uint64_t number, uint32_t flags, uint32_t to[8])
{
    uint32_t children[2][8];
    size_t left = GROUP_BYTES;
    if (len <= GROUP_BYTES) {
        hash_group(l, from, len, number, flags, to);
        return;
    }
    while (left < len - left)
        left *= 2;
    hash_tree(l, from, left, number, 0, children[0]);
    hash_tree(l, from + left, len - left, number + left / LEAF_BYTES, 0, children[1]);
    hash_parent(children, flags, to);
}

void blake3_by(enum blake3_level level, const void *data, size_t len, unsigned char ret[BLAKE3_BYTES])
{
    uint32_t hash[8];
    hash_tree(&lanes_of[level], data, len, 0, ROOT, hash);
    memcpy(ret, hash, BLAKE3_BYTES);
}

static enum blake3_level best_level(void)
{
    return blake3_has(BLAKE3_AVX2) ? BLAKE3_AVX2 : BLAKE3_LANES_4;
}

void blake3(const void *data, size_t len, unsigned char ret[BLAKE3_BYTES])
{
    blake3_by(best_level(), data, len, ret);
}

/* --- by parts ------------------------------------------------------------------------------------------------------------ */

void blake3_begin(struct blake3_parts *p, size_t bytes)
{
    p->bytes = bytes;
    p->n = 0;
}

void blake3_part(struct blake3_parts *p, const void *data, size_t len)
{
    uint64_t number = (uint64_t)p->n * (BLAKE3_PART_BYTES / LEAF_BYTES);
    hash_group(&lanes_of[best_level()], data, len, number, p->bytes <= BLAKE3_PART_BYTES ? ROOT : 0, p->hashes[p->n]);
    p->n++;
}

void blake3_end(struct blake3_parts *p, unsigned char ret[BLAKE3_BYTES])
{
    if (p->n > 1)
        join(&lanes_of[best_level()], p->hashes, p->n, ROOT, p->hashes[0]);
    memcpy(ret, p->hashes[0], BLAKE3_BYTES);
}
