/* Loading from files: every way of reading gives the same bytes, every fallback can be had and says so, a file that changes is
 * an error that says what and where, and weights that are there already are kept. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/place.h"
#include "model/stage.h"
#include "tests/model/model_build.h"
#include "tests/model/weights_same.h"
#include "tests/tap.h"

static struct err err;
static char path[512];

static bool has_note(const struct source_report *r, const char *text)
{
    for (uint32_t i = 0; i < r->n_notes; i++)
        if (strstr(r->note[i], text))
            return true;
    return false;
}

static uint64_t part(const struct source_report *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_parts; i++)
        if (strcmp(r->part[i].name, name) == 0)
            return r->part[i].bytes;
    return 0;
}

static uint64_t all_parts(const struct source_report *r)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->n_parts; i++)
        sum += r->part[i].bytes;
    return sum;
}

static struct weights *load(const struct loading *l, const struct weights_options *o)
{
    err_clear(&err);
    return weights_load(l->g, &l->p, 0, l->p.n_layers, true, true, l->be, l->pool, o, &err);
}

/* --- watching --------------------------------------------------------------------------------------------------------------- */

struct watch {
    struct weight_source *source;
    _Atomic bool end;
    unsigned asked, backwards;
};

static void *watch(void *arg)
{
    struct watch *w = arg;
    uint64_t last = 0;
    do {
        struct source_report report = {0};
        w->source->ops->report(w->source, &report);
        w->backwards += all_parts(&report) < last;
        last = all_parts(&report);
        w->asked++;
    } while (!w->end);
    return NULL;
}

/* A report may be asked for while the load runs (the thread sanitizer sees whether it may). */
static void test_watched(void)
{
    struct source_file_options options = {.all_cold = true, .range_bytes = 2000};
    struct source_report report = {0};
    struct watch seen = {0};
    struct loading l;
    pthread_t thread;
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    loading_init(&l, path, 3);
    seen.source = source_file_create(l.g, &options, &err);
    if (pthread_create(&thread, NULL, watch, &seen) != 0) {
        printf("Bail out! a thread\n");
        exit(1);
    }
    struct weights *w = load(&l, &(struct weights_options){.source = seen.source, .report = &report});
    seen.end = true;
    pthread_join(thread, NULL);
    ok(w && seen.asked > 0 && seen.backwards == 0, "asked %u times how far a load is: it only grows", seen.asked);
    seen.source->ops->report(seen.source, &report);
    ok(all_parts(&report) > 0, "at last %llu bytes", (unsigned long long)all_parts(&report));
    weights_destroy(w);
    weight_source_destroy(seen.source);
    loading_fini(&l);
}

/* --- ways of reading -------------------------------------------------------------------------------------------------------- */

struct progress {
    uint64_t last, total;
    unsigned calls, backwards;
};

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    p->backwards += done < p->last || done > total;
    p->last = done;
    p->total = total;
    p->calls++;
}

static void compare_way(const struct loading *l, const struct weights *right, const struct source_file_options *options, const char *name)
{
    struct source_report report = {0};
    struct progress progress = {0};
    struct weights_options o = {.file = options, .report = &report, .progress = on_progress, .progress_arg = &progress};
    struct weights *w = load(l, &o);
    ok(w, "%s: %s", name, w ? "loads" : err.text);
    if (!w)
        return;
    const char *what = weights_differ(w, right, 0, l->p.n_layers);
    ok(!what, "%s: the same bytes%s%s", name, what ? ", but " : "", what ? what : "");
    ok(progress.backwards == 0 && progress.last == progress.total && progress.total > 0 && progress.calls > 0, "%s: progress ends at its total", name);
    ok(all_parts(&report) >= progress.total, "%s: every byte came some way", name);
    for (uint32_t i = 0; i < report.n_notes; i++)
        tap_note("%s: %s", name, report.note[i]);
    weights_destroy(w);
}

static void test_ways(const char *spec, enum quant_type quant, unsigned threads)
{
    static const struct way {
        const char *name;
        struct source_file_options options;
    } ways[] = {
        {"defaults", {0}},
        {"cold", {.all_cold = true}},
        {"cold, small ranges", {.all_cold = true, .range_bytes = 5000, .in_flight = 3}},
        {"cold, one at a time", {.all_cold = true, .range_bytes = 1, .in_flight = 1}},
        {"cold, many at a time", {.all_cold = true, .range_bytes = 4096, .in_flight = 1000}},
        {"buffers not registered", {.all_cold = true, .no_registered = true, .range_bytes = 9999}},
        {"through the page cache", {.all_cold = true, .no_direct = true, .range_bytes = 7000}},
        {"pread, cold", {.all_cold = true, .no_uring = true, .range_bytes = 7000}},
        {"pread", {.no_uring = true, .range_bytes = 1}},
        {"pread and nothing else", {.no_uring = true, .no_direct = true, .no_registered = true, .all_cold = true}},
    };
    struct loading l;
    char name[128];
    model_write(model_spec_of(spec), quant, path);
    loading_init(&l, path, threads);
    struct weights *right = loading_reference(&l);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(name, sizeof name, "%s %s, %u threads, %s", spec, quant_traits(quant)->name, threads, ways[i].name);
        compare_way(&l, right, &ways[i].options, name);
    }
    weights_destroy(right);
    loading_fini(&l);
}

/* What a load says of the way it took. */
static void test_notes(void)
{
    struct source_report report;
    struct source_file_options options = {.all_cold = true, .no_uring = true, .range_bytes = 1000};
    struct weights_options o = {.file = &options, .report = &report};
    struct loading l;
    loading_init(&l, path, 2);
    weights_destroy(load(&l, &o));
    ok(has_note(&report, "io_uring"), "without io_uring it says so");
    is_int(report.n_notes, 1, "once");
    ok(part(&report, "buffered") > 0 && part(&report, "direct") == 0, "and reads through the page cache");
    options = (struct source_file_options){0};
    weights_destroy(load(&l, &o));
    tap_note("a file just written: %llu bytes from the page cache of %llu", (unsigned long long)part(&report, "page cache"),
             (unsigned long long)all_parts(&report));
    options = (struct source_file_options){.all_cold = true};
    weights_destroy(load(&l, &o));
    if (part(&report, "direct"))
        ok(part(&report, "buffered") == 0 && part(&report, "page cache") == 0, "cold: all past the page cache");
    else
        tap_skip("no reading past the page cache here: %s", report.n_notes ? report.note[0] : "?");
    loading_fini(&l);
}

/* Locked memory that does not suffice for registered buffers: root may lock what it likes, so only others see it. */
static void test_memlock(void)
{
    struct rlimit old, none = {0, 0};
    struct source_report report = {0};
    struct source_file_options options = {.all_cold = true};
    struct weights_options o = {.file = &options, .report = &report};
    struct loading l;
    loading_init(&l, path, 2);
    struct weights *right = loading_reference(&l);
    getrlimit(RLIMIT_MEMLOCK, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &none);
    struct weights *w = load(&l, &o);
    setrlimit(RLIMIT_MEMLOCK, &old);
    ok(w && !weights_differ(w, right, 0, l.p.n_layers), "nothing may be locked: the same weights");
    if (geteuid() != 0 && part(&report, "direct"))
        ok(has_note(&report, "could not be registered"), "it says that buffers are not registered");
    else
        tap_skip("root may lock all it likes, or there is no io_uring");
    weights_destroy(w);
    weights_destroy(right);
    loading_fini(&l);
}

/* A file system that keeps files in memory: O_DIRECT is refused there, or pointless. */
static void test_shm(void)
{
    char shm[64] = "/dev/shm/sc-loader-XXXXXX";
    int fd = mkstemp(shm);
    if (fd < 0) {
        tap_skip("no /dev/shm");
        return;
    }
    close(fd);
    model_write(model_spec_of("llama"), QUANT_Q4_K, shm);
    struct loading l;
    loading_init(&l, shm, 2);
    struct weights *right = loading_reference(&l);
    static const struct source_file_options cold = {.all_cold = true, .range_bytes = 5000}, plain = {0};
    compare_way(&l, right, &plain, "in memory");
    compare_way(&l, right, &cold, "in memory, taken for cold");
    weights_destroy(right);
    loading_fini(&l);
    unlink(shm);
}

/* --- files that change ------------------------------------------------------------------------------------------------------ */

struct meddling {
    off_t size; /* cut to this while loading; 0: write a byte */
    bool done;
};

static void meddle(void *arg, uint64_t done, uint64_t total)
{
    struct meddling *m = arg;
    if (m->done || done >= total)
        return;
    m->done = true;
    int fd = open(path, O_RDWR);
    if (m->size)
        ok(ftruncate(fd, m->size) == 0, "the file is cut to %lld bytes while it is read", (long long)m->size);
    else
        ok(pwrite(fd, "x", 1, 20000) == 1, "the file is written to while it is read");
    close(fd);
}

static void refused(const struct loading *l, struct weights_options *o, const char *text, const char *what)
{
    struct weights *w = load(l, o);
    ok(!w, "%s: refused", what);
    has_str(err.text, text, "%s: says why", what);
    has_str(err.text, path, "%s: names the file", what);
    weights_destroy(w);
}

static void test_changes(bool uring)
{
    struct source_file_options options = {.all_cold = true, .no_uring = !uring, .no_direct = !uring, .range_bytes = 1, .in_flight = 1};
    struct loading l;
    struct stat st;
    const char *name = uring ? "io_uring" : "pread";
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    loading_init(&l, path, 1);
    stat(path, &st);
    struct meddling cut = {.size = st.st_size / 8 * 7}, write = {0};
    struct weights_options o = {.file = &options, .progress = meddle, .progress_arg = &cut};
    refused(&l, &o, "was cut meanwhile", name);
    has_str(err.text, "tensor ", "%s: names the tensor", name);
    has_str(err.text, " at byte ", "%s: and the place", name);
    refused(&l, &o, "size changed from", "a file that is short already");
    loading_fini(&l);

    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    loading_init(&l, path, 1);
    o.progress_arg = &write;
    refused(&l, &o, "it was written to since its header was read", name);
    loading_fini(&l);

    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    loading_init(&l, path, 1);
    unlink(path);
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    o.progress = NULL;
    refused(&l, &o, "since its header was read", "another file in its place");
    unlink(path);
    refused(&l, &o, "No such file", "no file in its place");
    loading_fini(&l);
}

static void test_cancelled(void)
{
    struct loading l;
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    loading_init(&l, path, 2);
    struct weight_source *s = source_file_create(l.g, NULL, &err);
    weight_source_cancel(s);
    struct weights_options o = {.source = s};
    ok(!load(&l, &o), "a cancelled load gives nothing");
    is_int(err.kind, ERR_CANCELLED, "and says so: %s", err.text);
    weight_source_destroy(s);
    loading_fini(&l);
}

/* --- keeping what is there -------------------------------------------------------------------------------------------------- */

struct range {
    uint32_t first, last;
    bool embed, head;
};

static struct weights *load_range(const struct loading *l, struct range r, struct weights *previous, const unsigned char *id,
                                  struct source_report *report)
{
    struct weights_options o = {.previous = previous, .model_id = id, .report = report};
    err_clear(&err);
    return weights_load(l->g, &l->p, r.first, r.last, r.embed, r.head, l->be, l->pool, &o, &err);
}

static void move_range(const struct loading *l, const struct weights *right, struct range from, struct range to, bool shrink)
{
    struct source_report alone = {0}, report = {0};
    struct weights *old = load_range(l, from, NULL, l->id, NULL), *fresh = load_range(l, to, NULL, l->id, &alone);
    if (shrink)
        weights_shrink(old, to.first, to.last, to.embed, to.head);
    struct weights *w = load_range(l, to, old, l->id, &report);
    uint32_t common = from.first < to.last && to.first < from.last
                          ? (from.last < to.last ? from.last : to.last) - (from.first > to.first ? from.first : to.first)
                          : 0;
    const char *what = w ? weights_differ(w, right, to.first, to.last) : err.text;
    ok(!what, "[%u, %u) to [%u, %u)%s: the same bytes%s%s", from.first, from.last, to.first, to.last, shrink ? ", shrunk before" : "",
       what ? ", but " : "", what ? what : "");
    if (w) {
        ok((common == 0 || w->kept_bytes > 0) && w->bytes == fresh->bytes, "%u layers in common: %llu of %llu bytes kept", common,
           (unsigned long long)w->kept_bytes, (unsigned long long)w->bytes);
        if (common)
            ok(all_parts(&report) < all_parts(&alone), "less is read: %llu of %llu bytes", (unsigned long long)all_parts(&report),
               (unsigned long long)all_parts(&alone));
    }
    weights_destroy(old); /* must not take with it what moved */
    ok(!w || !weights_differ(w, right, to.first, to.last), "the old ones' end does not touch them");
    weights_destroy(w);
    weights_destroy(fresh);
}

static void test_previous(const char *spec)
{
    struct loading l;
    model_write(model_spec_of(spec), QUANT_Q8_0, path);
    loading_init(&l, path, 2);
    struct weights *right = loading_reference(&l);
    uint32_t n = l.p.n_layers;
    for (int shrink = 0; shrink < 2; shrink++) {
        move_range(&l, right, (struct range){0, n, true, true}, (struct range){0, n, true, true}, shrink);
        move_range(&l, right, (struct range){0, 1, true, false}, (struct range){0, n, true, true}, shrink);
        move_range(&l, right, (struct range){1, n, false, true}, (struct range){0, n, true, true}, shrink);
        move_range(&l, right, (struct range){0, n, true, true}, (struct range){1, n, false, true}, shrink);
        move_range(&l, right, (struct range){0, n, true, true}, (struct range){0, n - 1, true, false}, shrink);
        move_range(&l, right, (struct range){0, 1, true, false}, (struct range){1, n, false, true}, shrink);
    }
    weights_destroy(right);

    struct weights *old = load_range(&l, (struct range){0, n, true, true}, NULL, l.id, NULL);
    unsigned char other[GGUF_ID_BYTES];
    memcpy(other, l.id, sizeof other);
    other[0] ^= 1;
    struct weights *w = load_range(&l, (struct range){0, n, true, true}, old, other, NULL);
    ok(w && w->kept_bytes == 0, "another model's weights are not kept");
    weights_destroy(w);
    w = load_range(&l, (struct range){0, n, true, true}, old, NULL, NULL);
    ok(w && w->kept_bytes == 0, "nor are weights of an unknown model");
    weights_destroy(w);

    weights_destroy(old);
    old = load_range(&l, (struct range){0, 1, true, false}, NULL, l.id, NULL);
    struct weights *copy = load_range(&l, (struct range){0, 1, true, false}, NULL, l.id, NULL);
    unlink(path);
    ok(!load_range(&l, (struct range){0, n, true, true}, old, l.id, NULL), "a load that fails");
    ok(!weights_differ(old, copy, 0, 1), "leaves the previous weights as they were");
    weights_destroy(copy);
    weights_destroy(old);
    loading_fini(&l);
}

/* Kept in another layout than the one that is wanted now: read anew. */
static void test_other_layout(void)
{
    struct loading l;
    struct source_report report;
    model_write(model_spec_of("llama"), QUANT_Q4_K, path);
    loading_init(&l, path, 2);
    struct backend *best = l.be, *scalar = backend_cpu_create(1, "scalar", &err);
    struct range all = {0, l.p.n_layers, true, true};
    struct weights *right = load_range(&l, all, NULL, l.id, NULL);
    l.be = scalar;
    struct weights *old = load_range(&l, all, NULL, l.id, NULL);
    bool differs = old->embed.layout != right->embed.layout;
    l.be = best;
    struct weights *w = load_range(&l, all, old, l.id, &report);
    const char *what = w ? weights_differ(w, right, 0, l.p.n_layers) : err.text;
    ok(!what, "kept for other kernels%s: the same bytes", differs ? ", which want another layout" : "");
    ok(!differs || (w && w->kept_bytes == 0), "what lies another way is read anew");
    weights_destroy(w);
    weights_destroy(old);
    weights_destroy(right);
    backend_destroy(scalar);
    loading_fini(&l);
}

static void test_stage(void)
{
    struct loading l;
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    loading_init(&l, path, 2);
    struct weights_options o = {.model_id = l.id};
    struct stage_config c = {.first = 0, .last = 2, .embed = true, .ctx = 32, .n_blocks = {1, 1}, .max_rows = 4, .max_seqs = 1, .table_stride = 1};
    struct stage *s = stage_create_from(l.g, &l.p, &c, l.be, l.pool, &o, &err);
    ok(s, "a stage");
    struct weights *w = stage_destroy_but_weights(s);
    c.last = 3;
    o.previous = w;
    s = stage_create_from(l.g, &l.p, &c, l.be, l.pool, &o, &err);
    ok(s, "takes over another's layers");
    weights_destroy(w);
    stage_destroy(s);
    loading_fini(&l);
}

/* --- nodes of memory -------------------------------------------------------------------------------------------------------- */

static void test_nodes(void)
{
    is_int(place_parse_nodes("0\n"), 1, "one node");
    is_int(place_parse_nodes("0-1\n"), 3, "two nodes");
    is_int(place_parse_nodes("0,2-3,5"), 0x2D, "a list of nodes");
    is_int(place_parse_nodes(""), 0, "nothing");
    is_int(place_parse_nodes("x"), 0, "no list");
    is_int(place_parse_nodes("3-1"), 0, "backwards");
    is_int(place_parse_nodes("0-64"), 0, "more than there can be");
    is_int(place_parse_nodes("0;1"), 0, "another sign");
}

int main(void)
{
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    test_watched();
    test_ways("llama", QUANT_Q8_0, 1);
    test_ways("llama-tied", QUANT_Q4_K, 2);
    test_ways("llama-fused", QUANT_F16, 3);
    test_ways("llama-experts-apart", QUANT_Q4_0, 2);
    test_ways("gemma3", QUANT_BF16, 2);
    test_ways("qwen3moe", QUANT_Q6_K, 4);
    test_notes();
    test_memlock();
    test_shm();
    test_changes(true);
    test_changes(false);
    test_cancelled();
    test_previous("llama");
    test_previous("llama-tied");
    test_previous("llama-experts-apart");
    test_other_layout();
    test_stage();
    test_nodes();
    return tap_done();
}
