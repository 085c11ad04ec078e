/* Drives a fuzz target without libFuzzer: a TAP program that replays the corpus and then seeded mutations of it, so that
 * `make check` has run every parser over thousands of broken inputs whatever the compiler.
 *
 *     fuzz_NAME                 the test: corpus folder tests/fuzz/corpus/NAME, then mutations
 *     fuzz_NAME FILE...         only these inputs (to look into a find)
 *     fuzz_NAME --seeds FOLDER  writes the generated seeds there, for libFuzzer
 *
 * SC_FUZZ_RUNS sets the number of mutations for each corpus input, SC_FUZZ_SEED the seed. Each input has WATCH_SECONDS;
 * the one that hangs or crashes is saved as fuzz_NAME.found in the working folder. The memory bound is on the process's
 * peak: it rises for good, so what is asked is that no input lifts it above the start + 64 MiB + twice the largest input. */
#include "tests/fuzz/fuzz.h"

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tests/tap.h"

enum {
    INPUT_MAX = 4 << 20,
    SEEDS_MAX = 1024,
    RUNS_EACH = 2000,   /* mutations of one corpus input … */
    RUNS_ALL = 20000,   /* … and of all together, where there are many */
    RUNS_LEAST = 100,   /* but at least this many of each */
    LONG_FACTOR = 20,   /* SC_LONG */
    TEST_SECONDS = 60,  /* then it stops early and says so; with SC_LONG the factor holds here, too */
    WATCH_SECONDS = 10, /* for one input */
    BASE_MEMORY = 64 << 20,
    FENCE_BYTES = 1 << 16, /* a whole page on every machine */
};

struct seed {
    char name[NAME_MAX + 1];
    uint8_t *data;
    size_t size;
};

static struct seed seeds[SEEDS_MAX];
static size_t n_seeds;

/* --- the input in work, for the handlers ------------------------------------------------------------------------------ */
static const uint8_t *volatile now_data;
static volatile size_t now_size;
static char now_what[NAME_MAX + 64];
static char found_path[NAME_MAX + 64];

static void put(const char *s)
{
    ssize_t ignored = write(STDOUT_FILENO, s, strlen(s));
    (void)ignored;
}

/* Only calls that a signal handler may make. */
static void save_input(const char *why)
{
    const uint8_t *data = now_data;
    if (!data)
        return;
    now_data = NULL;
    int fd = open(found_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    size_t done = 0;
    while (fd >= 0 && done < now_size) {
        ssize_t n = write(fd, data + done, now_size - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    put("# ");
    put(why);
    put(" on ");
    put(now_what);
    put("; the input was saved as ");
    put(found_path);
    put("\n");
}

static void on_crash(int sig)
{
    save_input(sig == SIGALRM ? "no end after the time allowed" : strsignal(sig));
    signal(sig, SIG_DFL);
    raise(sig == SIGALRM ? SIGKILL : sig); /* no plan follows: the test has failed */
}

/* The sanitizers' runtimes call this before they end the program. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void on_report(void)
{
    save_input("a sanitizer's report");
}

static void install_handlers(void)
{
    static const int fatal[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
    static char stack[1 << 16]; /* a stack overflow leaves no other room */
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaction(SIGALRM, &action, NULL);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(on_report);
        return;
    }
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        sigaction(fatal[i], &action, NULL);
}

/* An input lies where reading past its end cannot go unseen: a sanitizer watches a block of exactly its size; without one
 * it ends at a page that must not be touched. */
static uint8_t *place(const uint8_t *data, size_t size)
{
#ifdef SC_SANITIZED
    uint8_t *copy = malloc(size ? size : 1);
#else
    static uint8_t *fence;
    if (!fence) {
        uint8_t *pages = mmap(NULL, INPUT_MAX + FENCE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED || mprotect(pages + INPUT_MAX, FENCE_BYTES, PROT_NONE) != 0)
            return NULL;
        memset(pages, 1, INPUT_MAX); /* touched now, so that it does not count as the target's memory */
        fence = pages + INPUT_MAX;
    }
    uint8_t *copy = fence - size;
#endif
    if (copy && size)
        memcpy(copy, data, size);
    return copy;
}

static void feed(const uint8_t *data, size_t size)
{
    uint8_t *copy = place(data, size);
    if (!copy)
        abort();
    now_size = size;
    now_data = copy;
    alarm(WATCH_SECONDS);
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    now_data = NULL;
#ifdef SC_SANITIZED
    free(copy);
#endif
}

/* --- seeds ------------------------------------------------------------------------------------------------------------- */
static int add_seed(const char *name, const uint8_t *data, size_t size)
{
    uint8_t *copy = n_seeds < SEEDS_MAX ? malloc(size ? size : 1) : NULL;
    if (!copy)
        return -1;
    if (size)
        memcpy(copy, data, size);
    seeds[n_seeds] = (struct seed){.data = copy, .size = size};
    snprintf(seeds[n_seeds].name, sizeof seeds[n_seeds].name, "%s", name);
    n_seeds++;
    return 0;
}

static int read_file(const char *path, const char *name, uint8_t *buf)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    size_t n = fread(buf, 1, INPUT_MAX, f);
    fclose(f);
    return add_seed(name, buf, n);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct seed *)a)->name, ((const struct seed *)b)->name);
}

static void read_folder(const char *folder, uint8_t *buf)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[PATH_MAX];
        if (e->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", folder, e->d_name) < (int)sizeof path)
            read_file(path, e->d_name, buf);
    }
    closedir(dir);
    qsort(seeds, n_seeds, sizeof *seeds, by_name); /* the same run everywhere */
}

static void generate_seeds(uint8_t *buf)
{
    for (size_t i = 0; fuzz_corpus && i < SEEDS_MAX; i++) {
        char name[32];
        size_t n = fuzz_corpus(i, buf, INPUT_MAX);
        if (n == 0)
            break;
        snprintf(name, sizeof name, "generated-%zu", i);
        add_seed(name, buf, n);
    }
}

static int write_seeds(const char *folder)
{
    for (size_t i = 0; i < n_seeds; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", folder, seeds[i].name) >= (int)sizeof path)
            return 1;
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(seeds[i].data, 1, seeds[i].size, f) != seeds[i].size || fclose(f) != 0) {
            fprintf(stderr, "%s: %s\n", path, strerror(errno));
            return 1;
        }
    }
    return 0;
}

/* --- mutation ---------------------------------------------------------------------------------------------------------- */
static uint64_t random_state;

/* splitmix64 */
static uint64_t random_bits(void)
{
    uint64_t z = (random_state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t random_below(size_t n)
{
    return n ? (size_t)(random_bits() % n) : 0;
}

/* A place and a length inside n bytes: mostly short stretches, now and then up to all of it. */
static size_t random_span(size_t n, size_t *ret_len)
{
    size_t longest = random_below(4) ? (n < 32 ? n : 32) : n;
    *ret_len = n ? 1 + random_below(longest) : 0;
    return random_below(n - *ret_len + 1);
}

/* Overwrites 1, 2, 4 or 8 bytes with a number that lengths, counts and types break on. */
static void put_number(uint8_t *buf, size_t n)
{
    static const uint64_t odd[] = {
        0,
        1,
        2,
        3,
        7,
        8,
        9,
        31,
        32,
        63,
        64,
        127,
        128,
        255,
        256,
        1000,
        4095,
        4096,
        32767,
        32768,
        65535,
        65536,
        1 << 20,
        1 << 24,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFE,
        0xFFFFFFFF,
        0x100000000,
        (uint64_t)1 << 40,
        INT64_MAX - 7,
        INT64_MAX,
        (uint64_t)INT64_MAX + 1,
        UINT64_MAX - 31,
        UINT64_MAX - 1,
        UINT64_MAX,
    };
    uint64_t v = odd[random_below(sizeof odd / sizeof *odd)];
    size_t width = (size_t)1 << random_below(4);
    if (width > n)
        width = n;
    size_t at = random_below(n - width + 1);
    if (random_below(2) && n >= 64) /* lengths stand in front of what they count, counts in headers */
        at = random_below(64 - width + 1);
    for (size_t i = 0; i < width; i++)
        buf[at + i] = (uint8_t)(v >> 8 * i);
}

/* Puts `len` bytes of `from` into buf at `at`, moving the rest; returns the new size. */
static size_t insert(uint8_t *buf, size_t n, size_t at, const uint8_t *from, size_t len)
{
    if (len > INPUT_MAX - n)
        len = INPUT_MAX - n;
    memmove(buf + at + len, buf + at, n - at);
    memmove(buf + at, from, len);
    return n + len;
}

static size_t mutate_once(uint8_t *buf, size_t n, uint8_t *scratch)
{
    size_t len, at = random_span(n, &len);
    const struct seed *other = &seeds[random_below(n_seeds)];
    if (n == 0) {
        buf[0] = (uint8_t)random_bits();
        return 1;
    }
    switch (random_below(10)) {
    case 0:
    case 1: /* flip a bit */
        buf[random_below(n)] ^= (uint8_t)(1u << random_below(8));
        return n;
    case 2: /* any byte */
        buf[random_below(n)] = (uint8_t)random_bits();
        return n;
    case 3:
    case 4:
        put_number(buf, n);
        return n;
    case 5: /* cut the end off */
        return random_below(n);
    case 6: /* take a stretch out */
        memmove(buf + at, buf + at + len, n - at - len);
        return n - len;
    case 7: /* repeat a stretch, some times often: nesting and long runs */
        memcpy(scratch, buf + at, len);
        for (size_t times = random_below(8) ? 1 : 1 + random_below(200); times > 0 && n < 1 << 16; times--)
            n = insert(buf, n, at, scratch, len);
        return n;
    case 8: /* move a stretch elsewhere */
        memcpy(scratch, buf + at, len);
        memmove(buf + at, buf + at + len, n - at - len);
        return insert(buf, n - len, random_below(n - len + 1), scratch, len);
    default: { /* a stretch of another seed */
        size_t from = random_span(other->size, &len);
        return insert(buf, n, random_below(n + 1), other->data + from, len);
    }
    }
}

static size_t mutate(const struct seed *seed, uint8_t *buf, uint8_t *scratch)
{
    size_t n = seed->size;
    memcpy(buf, seed->data, n);
    for (size_t times = 1 + random_below(4); times > 0; times--)
        n = mutate_once(buf, n, scratch);
    return n;
}

/* --- the test ---------------------------------------------------------------------------------------------------------- */
static size_t peak_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t number_from_env(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

struct tally {
    size_t runs, largest, start_bytes;
    bool over; /* the memory bound was broken */
};

static void feed_and_weigh(const uint8_t *data, size_t size, struct tally *tally)
{
    size_t before = peak_bytes();
    feed(data, size);
    tally->runs++;
    if (size > tally->largest)
        tally->largest = size;
#ifndef SC_SANITIZED
    size_t after = peak_bytes();
    if (after > before && after > tally->start_bytes + BASE_MEMORY + 2 * size && !tally->over) {
        tally->over = true;
        now_data = data;
        now_size = size;
        save_input("too much memory");
        tap_note("%zu bytes at the start, %zu after %zu bytes of input", tally->start_bytes, after, size);
    }
#else
    (void)before;
#endif
}

static void test_mutations(uint8_t *buf, uint8_t *scratch, struct tally *tally)
{
    uint64_t seed = number_from_env("SC_FUZZ_SEED", 1), factor = getenv("SC_LONG") ? LONG_FACTOR : 1;
    uint64_t each = RUNS_ALL * factor / n_seeds;
    if (each > RUNS_EACH * factor)
        each = RUNS_EACH * factor;
    if (each < RUNS_LEAST)
        each = RUNS_LEAST;
    each = number_from_env("SC_FUZZ_RUNS", each);
    double until = seconds() + (double)(TEST_SECONDS * factor);
    bool late = false;
    /* Every seed has its turn before the next round, so that an early stop has seen all of them. */
    for (uint64_t round = 0; round < each && !late; round++)
        for (size_t i = 0; i < n_seeds && !late; i++) {
            random_state = seed + round * 1000003 + i * 7919;
            size_t n = mutate(&seeds[i], buf, scratch);
            snprintf(now_what, sizeof now_what, "mutation %llu of %.200s, seed %llu", (unsigned long long)round, seeds[i].name,
                     (unsigned long long)seed);
            feed_and_weigh(buf, n, tally);
            late = seconds() > until;
        }
    ok(true, "%zu mutations of %zu inputs, seed %llu%s", tally->runs - n_seeds, n_seeds, (unsigned long long)seed,
       late ? " (stopped early: time)" : "");
}

static void test_all(uint8_t *buf, uint8_t *scratch)
{
    struct tally tally = {0};
    memset(buf, 1, INPUT_MAX); /* as above */
    memset(scratch, 1, INPUT_MAX);
    feed(NULL, 0); /* what a target sets up once */
    tally.start_bytes = peak_bytes();
    for (size_t i = 0; i < n_seeds; i++) {
        snprintf(now_what, sizeof now_what, "%.255s", seeds[i].name);
        feed_and_weigh(seeds[i].data, seeds[i].size, &tally);
    }
    if (!ok(n_seeds > 0, "%zu inputs of the corpus", n_seeds))
        return;
    test_mutations(buf, scratch, &tally);
#ifdef SC_SANITIZED
    tap_skip("memory under 64 MiB + twice the input: a sanitizer's own is counted, too");
#else
    ok(!tally.over, "memory under 64 MiB + twice the input (%zu KiB over the start)", (peak_bytes() - tally.start_bytes) >> 10);
#endif
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0], *src = getenv("SC_SRC");
    uint8_t *buf = malloc(INPUT_MAX), *scratch = malloc(INPUT_MAX);
    if (!buf || !scratch)
        return 1;
    snprintf(found_path, sizeof found_path, "%s.found", name);
    install_handlers();
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        generate_seeds(buf);
        return write_seeds(argv[2]);
    }
    for (int i = 1; i < argc; i++) {
        if (read_file(argv[i], argv[i], buf) != 0) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            return 1;
        }
        snprintf(now_what, sizeof now_what, "%.255s", argv[i]);
        feed(seeds[n_seeds - 1].data, seeds[n_seeds - 1].size);
    }
    if (argc > 1)
        return 0;

    char folder[PATH_MAX];
    if (strncmp(name, "fuzz_", 5) == 0)
        name += 5;
    if (snprintf(folder, sizeof folder, "%s/tests/fuzz/corpus/%s", src ? src : ".", name) < (int)sizeof folder)
        read_folder(folder, buf);
    generate_seeds(buf);
    test_all(buf, scratch);
    for (size_t i = 0; i < n_seeds; i++)
        free(seeds[i].data);
    free(buf);
    free(scratch);
    return tap_done();
}
