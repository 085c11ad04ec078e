/* See bench.h. */
#include "tests/checkkernels/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/strbuf.h"
#include "tests/tap.h"

/* Runs are short, so that a neighbour's burst spoils few of them, and the best counts. */
static const double run_seconds = 0.008;
enum { RUNS = 5, MAX_UNITS = 1 << 22 };

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct round {
    const struct bench_work *work;
    uint64_t first;    /* unit of the first task */
    uint32_t together; /* units a task */
};

static void do_units(void *arg, uint32_t task, uint32_t thread)
{
    const struct round *r = arg;
    for (uint32_t i = 0; i < r->together; i++)
        r->work->fn(r->work->arg, (uint32_t)((r->first + (uint64_t)task * r->together + i) % r->work->n), thread);
}

double bench_seconds(const struct bench_work *work, struct threadpool *pool)
{
    uint32_t threads = threadpool_size(pool), tasks = threads, together = 1;
    uint64_t at = 0;
    double best = HUGE_VAL;
    for (int run = 0; run < RUNS;) {
        struct round round = {work, at, together};
        double start = seconds_now();
        threadpool_run(pool, do_units, &round, tasks);
        double took = seconds_now() - start;
        at += (uint64_t)tasks * together;
        if (took < run_seconds / 2 && (uint64_t)tasks * together < MAX_UNITS) {
            /* Too short to tell: more of it. Tasks are taken one by one, so they must not be tiny, nor too few to even out. */
            if (tasks < 16 * threads)
                tasks *= 2;
            else
                together *= 2;
            continue;
        }
        best = fmin(best, took / ((double)tasks * together));
        run++;
    }
    return best;
}

bool bench_wants(const struct bench *b, const char *name)
{
    return !b->filter || strstr(name, b->filter);
}

static void put_share(char *ret, size_t n, double part, double of)
{
    if (of > 0)
        snprintf(ret, n, "%3.0f%%", 100 * part / of);
    else
        snprintf(ret, n, "   –");
}

/* "12.3 GB/s  85%   45.6 GMAC/s  31%" */
static void put_rates(char *ret, size_t n, const struct bench_work *work, double seconds, double read, double dot)
{
    char bytes[48] = "", macs[48] = "", share[16];
    if (work->bytes > 0) {
        put_share(share, sizeof share, work->bytes / seconds, work->from_memory ? read : 0);
        snprintf(bytes, sizeof bytes, "%7.2f GB/s %s", work->bytes / seconds * 1e-9, share);
    }
    if (work->macs > 0) {
        put_share(share, sizeof share, work->macs / seconds, dot);
        snprintf(macs, sizeof macs, "%8.2f GMAC/s %s", work->macs / seconds * 1e-9, share);
    }
    snprintf(ret, n, "%-18s %-22s", bytes, macs);
}

void bench_report(struct bench *b, const char *name, const struct bench_work *work)
{
    char one[96], all[96] = "";
    if (!bench_wants(b, name))
        return;
    double seconds = bench_seconds(work, b->one);
    put_rates(one, sizeof one, work, seconds, b->read_one, b->dot_one);
    if (b->all != b->one)
        put_rates(all, sizeof all, work, bench_seconds(work, b->all), b->read_all, b->dot_all);
    tap_note("%-10s %-20s %11.3f us | %s | %s", b->k->isa, name, seconds * 1e6, one, all);
    b->measured++;
}

/* --- the machine ---------------------------------------------------------------------------------------------------------- */

/* The value of a line of /proc/cpuinfo; "" where there is none. */
static void cpuinfo(const char *key, char *ret, size_t n)
{
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "re");
    ret[0] = '\0';
    while (f && !ret[0] && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) == 0 && colon && colon[1] == ' ') {
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(ret, n, "%s", colon + 2);
        }
    }
    if (f)
        fclose(f);
}

static void describe_machine(void)
{
    static const char *const telling[] = {"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8",
                                          "amx_bf16", "asimd", "asimddp", "i8mm", "sve", "bf16", NULL};
    char model[256], raw[8000], flags[8192], word[32];
    struct strbuf words;
    struct utsname u;
    cpuinfo("model name", model, sizeof model);
    cpuinfo("flags", raw, sizeof raw);
    if (!raw[0])
        cpuinfo("Features", raw, sizeof raw);
    snprintf(flags, sizeof flags, " %s ", raw);
    strbuf_init(&words, 1024);
    for (int i = 0; telling[i]; i++) {
        snprintf(word, sizeof word, " %s ", telling[i]);
        if (strstr(flags, word))
            strbuf_printf(&words, " %s", telling[i]);
    }
    bool known = uname(&u) == 0;
    tap_note("machine: %s, %s, %u processors, Linux %s, compiler %s", model[0] ? model : "unknown processor", known ? u.machine : "?",
             threadpool_cpus(), known ? u.release : "?", __VERSION__);
    tap_note("instructions:%s", strbuf_str(&words));
    strbuf_fini(&words);
}

/* --- all of it ---------------------------------------------------------------------------------------------------------- */

/* Before every level: on a shared machine it was perhaps disturbed the first time. */
static void measure_read(struct bench *b)
{
    b->read_one = fmax(b->read_one, bench_read_peak(b->one));
    b->read_all = b->all == b->one ? b->read_one : fmax(b->read_all, bench_read_peak(b->all));
    tap_note("memory read: %.1f GB/s by one core, %.1f by %u", b->read_one * 1e-9, b->read_all * 1e-9, threadpool_size(b->all));
}

/* How many figures; -1: the processor lacks the level. */
static int bench_level(struct bench *b, const char *level)
{
    struct kernels k;
    struct err err;
    if (kernels_select(level, &k, &err) != 0 || strcmp(k.isa, level) != 0) {
        tap_skip("%s: this processor has %s at most", level, k.isa);
        return -1;
    }
    b->k = &k;
    b->measured = 0;
    measure_read(b);
    b->dot_one = bench_dot_peak(level, b->one);
    b->dot_all = b->all == b->one ? b->dot_one : bench_dot_peak(level, b->all);
    tap_note("%s: bytes multiplied in registers: %.1f GMAC/s on one core, %.1f on %u", level, b->dot_one * 1e-9, b->dot_all * 1e-9,
             threadpool_size(b->all));
    ok(b->dot_one > 0, "%s: the rate of its dot product is known (bench_peak.c has a row for it)", level);
    bench_mat(b);
    bench_attention(b);
    bench_vector(b);
    b->k = NULL;
    return b->measured;
}

void bench_run(const char *isa, const char *filter)
{
    struct err err;
    struct bench b = {.filter = filter, .one = threadpool_create(1, &err), .all = threadpool_create(0, &err)};
    const char *level;
    int measured = 0, known = 0, present = 0;
    if (!b.one || !b.all) {
        ok(false, "threads: %s", err.text);
        threadpool_destroy(b.one);
        threadpool_destroy(b.all);
        return;
    }
    if (threadpool_size(b.all) == 1) {
        threadpool_destroy(b.all);
        b.all = b.one;
    }
    describe_machine();
    tap_note("level, kernel, time of a unit on one core | one core: rate, share of the limit | %u cores; bytes count weights or keys and values",
             threadpool_size(b.all));
    for (unsigned i = 0; (level = kernels_level(i)) != NULL; i++)
        if (!isa || strcmp(isa, level) == 0) {
            int n = bench_level(&b, level);
            known++;
            present += n >= 0;
            measured += n > 0 ? n : 0;
        }
    ok(known > 0, "%s is a level", isa ? isa : "something");
    ok(measured > 0 || present == 0, "%d figures%s%s", measured, filter ? " of kernels with this in their name: " : "", filter ? filter : "");
    if (b.all != b.one)
        threadpool_destroy(b.all);
    threadpool_destroy(b.one);
}
