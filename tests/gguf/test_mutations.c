/* Broken files: cut at every byte, every bit flipped, and thousands of random changes. Each opens or gives an error that
 * names the file; time and memory stay bounded. SC_SEED and SC_MUTATIONS choose others. */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tests/gguf/gguf_touch.h"
#include "tests/tap.h"

static uint64_t state, sink;
static unsigned opened, refused, silent;

static uint64_t next_random(void) /* SplitMix64 */
{
    uint64_t z = (state += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The input lies in memory of exactly its size, so that sanitizers see a step beyond. */
static bool try_open(const unsigned char *bytes, size_t len, bool header_only)
{
    struct err err = {0};
    unsigned char *exact = malloc(len ? len : 1);
    if (!exact)
        return false;
    memcpy(exact, bytes, len);
    struct gguf *g = gguf_open_memory(exact, len, header_only, &err);
    if (g) {
        opened++;
        sink += gguf_touch(g);
    } else {
        refused++;
        silent += err.kind == ERR_NONE || strncmp(err.text, "(memory): ", 10) != 0;
    }
    gguf_close(g);
    free(exact);
    return g != NULL;
}

static void test_truncation(const unsigned char *bytes, size_t len, size_t header_len)
{
    unsigned wrong = 0;
    for (size_t n = 0; n < len; n++) {
        wrong += try_open(bytes, n, false);
        wrong += try_open(bytes, n, true) != (n >= header_len);
    }
    is_int(wrong, 0, "cut anywhere: refused, or a header only");
    ok(try_open(bytes, len, false), "whole: opens");
}

static void test_flips(unsigned char *bytes, size_t header_len)
{
    for (size_t bit = 0; bit < 8 * header_len; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        try_open(bytes, header_len, true);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    tap_note("%u opened, %u refused", opened, refused);
    ok(opened > 0 && refused > 0, "every bit of the header flipped");
}

/* One to four changes: a byte, a 64-bit number of the hostile kind, a piece doubled or taken out. */
static size_t mutate(unsigned char *bytes, size_t len, size_t cap)
{
    static const uint64_t hostile[] = {0, 1, UINT64_MAX, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT32_MAX, 1u << 20, 1u << 30, 0x7FFFFFFFFF};
    for (uint64_t n = 1 + next_random() % 4; n > 0; n--) {
        size_t at = next_random() % len, size = 1 + next_random() % 32;
        switch (next_random() % 6) {
        case 0:
        case 1:
            bytes[at] = (unsigned char)next_random();
            break;
        case 2:
            bytes[at] ^= (unsigned char)(1 << next_random() % 8);
            break;
        case 3:
            size = next_random() % 2 ? 8 : 4;
            if (at + size <= len)
                memcpy(bytes + at, &hostile[next_random() % (sizeof hostile / sizeof *hostile)], size);
            break;
        case 4:
            if (at + size <= len && len + size <= cap) {
                memmove(bytes + at + size, bytes + at, len - at);
                len += size;
            }
            break;
        default:
            if (at + size < len) {
                memmove(bytes + at, bytes + at + size, len - at - size);
                len -= size;
            }
        }
    }
    return len;
}

static void test_random(unsigned count)
{
    enum { CAP = 1 << 14 };
    unsigned char *bytes = malloc(CAP);
    double longest = 0;
    unsigned char *samples[GGUF_SAMPLES];
    size_t lens[GGUF_SAMPLES];
    for (unsigned i = 0; i < GGUF_SAMPLES; i++) {
        struct gguf_build b;
        gguf_sample(&b, i);
        samples[i] = gguf_build_finish(&b, true, &lens[i]);
        gguf_build_fini(&b);
    }
    for (unsigned i = 0; i < count && bytes; i++) {
        double start = now();
        size_t len = lens[i % GGUF_SAMPLES];
        memcpy(bytes, samples[i % GGUF_SAMPLES], len);
        len = mutate(bytes, len, CAP);
        try_open(bytes, len, next_random() % 2);
        if (now() - start > longest)
            longest = now() - start;
    }
    tap_note("%u opened, %u refused, the longest took %.1f ms", opened, refused, 1e3 * longest);
    ok(opened > count / 100 && refused > count / 100, "%u mutations", count);
    ok(longest < 5, "none took long");
    for (unsigned i = 0; i < GGUF_SAMPLES; i++)
        free(samples[i]);
    free(bytes);
}

/* A file that really has as many bytes as its counts claim: the memory must be in proportion. */
static void test_memory_bound(void)
{
    enum { STRINGS = 1 << 20 };
    struct gguf_build b;
    struct rusage before, after;
    size_t len;
    char *zeros = calloc(STRINGS, 8);
    struct strbuf sb;
    gguf_build_init(&b, 3, 0);
    strbuf_init(&sb, (size_t)STRINGS * 8 + 100);
    gguf_build_put(&sb, GGUF_STRING, 4);
    gguf_build_put(&sb, STRINGS, 8);
    if (zeros)
        strbuf_add(&sb, zeros, (size_t)STRINGS * 8);
    free(zeros);
    gguf_build_raw(&b, "empty", GGUF_ARRAY, strbuf_str(&sb), sb.len);
    strbuf_fini(&sb);
    unsigned char *bytes = gguf_build_finish(&b, true, &len);
    gguf_build_fini(&b);
    getrusage(RUSAGE_SELF, &before);
    ok(try_open(bytes, len, false), "a million empty strings");
    getrusage(RUSAGE_SELF, &after);
    tap_note("%zu bytes of file, peak memory %ld kB before and %ld kB after", len, before.ru_maxrss, after.ru_maxrss);
#ifdef SC_SANITIZED
    tap_skip("memory limits do not hold under a sanitizer");
#else
    ok(after.ru_maxrss < (65536 + 3 * (long)(len >> 10)), "peak memory of all that");
#endif
    free(bytes);
}

static unsigned long from_env(const char *name, unsigned long otherwise)
{
    const char *s = getenv(name);
    return s ? strtoul(s, NULL, 10) : otherwise;
}

int main(void)
{
    struct gguf_build b;
    size_t len, header_len;
    alarm(300);
    state = from_env("SC_SEED", 1);
    tap_note("SC_SEED=%llu", (unsigned long long)state);
    gguf_sample(&b, 0);
    unsigned char *bytes = gguf_build_finish(&b, true, &len), *header = gguf_build_finish(&b, false, &header_len);
    gguf_build_fini(&b);
    test_truncation(bytes, len, header_len);
    opened = refused = 0;
    test_flips(header, header_len);
    opened = refused = 0;
    test_random((unsigned)from_env("SC_MUTATIONS", 10000));
    is_int(silent, 0, "every refusal says why, and of which file");
    test_memory_bound();
    tap_note("checksum %llu", (unsigned long long)sink);
    free(bytes);
    free(header);
    return tap_done();
}
