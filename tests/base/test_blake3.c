/* BLAKE3: the values that its authors published (input byte i is i % 251), on every level; and all levels alike on lengths and
 * addresses around every edge. */
#include "base/blake3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

enum { LONGEST = (4 << 20) + 1, PERIOD = 251, SHIFT = 3 };

static const struct {
    size_t len;
    const char *hash;
} published[] = {
    {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
    {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
    {63, "e9bc37a594daad83be9470df7f7b3798297c3d834ce80ba85d6e207627b7db7b"},
    {64, "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98"},
    {65, "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee"},
    {1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"},
    {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
    {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"},
    {2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"},
    {2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"},
    {3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2"},
    {4097, "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995"},
    {8192, "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63"},
    {8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b"},
    {16384, "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4"},
    {31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"},
    {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"},
};

static void test_published(const unsigned char *bytes, enum blake3_level level)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        unsigned char hash[BLAKE3_BYTES];
        char hex[2 * BLAKE3_BYTES + 1];
        blake3_by(level, bytes, published[i].len, hash);
        for (int k = 0; k < BLAKE3_BYTES; k++)
            snprintf(hex + 2 * k, 3, "%02x", hash[k]);
        is_str(hex, published[i].hash, "level %d: %zu bytes", (int)level, published[i].len);
    }
}

/* Blocks, leaves, groups of 256 leaves, what is left of each, and a chunk of a model; not aligned, too. */
static void test_alike(const unsigned char *bytes)
{
    static const size_t edges[] = {64,     1024, 4096, 8192, 65536, 196608, BLAKE3_PART_BYTES, 2 * BLAKE3_PART_BYTES, 3 * BLAKE3_PART_BYTES,
                                   4 << 20};
    size_t n = 0, same = 0;
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        for (size_t more = 0; more <= 2; more++)
            for (size_t shift = 0; shift <= SHIFT; shift += SHIFT) {
                size_t len = edges[i] + more - 1;
                unsigned char first[BLAKE3_BYTES], hash[BLAKE3_BYTES];
                blake3_by(BLAKE3_LANES_4, bytes + shift, len, first);
                for (int level = 0; level < BLAKE3_LEVELS; level++)
                    if (blake3_has((enum blake3_level)level)) {
                        blake3_by((enum blake3_level)level, bytes + shift, len, hash);
                        same += memcmp(hash, first, sizeof hash) == 0;
                        n++;
                    }
                blake3(bytes + shift, len, hash);
                same += memcmp(hash, first, sizeof hash) == 0;
                n++;
            }
    is_int(same, n, "%zu hashes are the same on all levels", n);
}

/* By and by, of one part or several, whose last is a whole one or ends at every kind of edge. */
static void test_parts(const unsigned char *bytes)
{
    static const size_t lasts[] = {1, 64, 1000, 1024, 1025, 8193, 65536, BLAKE3_PART_BYTES - 1, BLAKE3_PART_BYTES};
    size_t n = 0, same = 0;
    for (size_t whole = 0; whole < BLAKE3_PARTS; whole++)
        for (size_t i = 0; i < sizeof lasts / sizeof *lasts; i++) {
            struct blake3_parts p;
            unsigned char at_once[BLAKE3_BYTES], hash[BLAKE3_BYTES];
            size_t len = whole * BLAKE3_PART_BYTES + lasts[i];
            blake3_begin(&p, len);
            for (size_t k = 0; k < whole; k++)
                blake3_part(&p, bytes + k * BLAKE3_PART_BYTES, BLAKE3_PART_BYTES);
            blake3_part(&p, bytes + whole * BLAKE3_PART_BYTES, lasts[i]);
            blake3_end(&p, hash);
            blake3(bytes, len, at_once);
            same += memcmp(hash, at_once, sizeof hash) == 0;
            n++;
        }
    is_int(same, n, "%zu hashes by parts are those at once", n);
}

int main(void)
{
    unsigned char *bytes = malloc(LONGEST + SHIFT);
    if (!bytes)
        tap_skip_all("no memory");
    for (size_t i = 0; i < LONGEST + SHIFT; i++)
        bytes[i] = (unsigned char)(i % PERIOD);
    for (int level = 0; level < BLAKE3_LEVELS; level++) {
        if (blake3_has((enum blake3_level)level))
            test_published(bytes, (enum blake3_level)level);
        else
            tap_note("level %d: not on this processor", level);
    }
    test_alike(bytes);
    test_parts(bytes);
    free(bytes);
    return tap_done();
}
