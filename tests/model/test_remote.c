/* Loading from others: the same weights whatever the order, the parts and the mishaps of the answers; what cannot go well ends
 * with an error that says which chunk; a load that was cut goes on from its cache. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/queue.h"
#include "model/source_remote.h"
#include "tests/checkkernels/data.h"
#include "tests/model/model_build.h"
#include "tests/model/weights_same.h"
#include "tests/tap.h"

enum { PEERS = 3, ALL = (1 << PEERS) - 1, QUEUE = 1024, HELD = 3 };
enum { SLOW_MS = 2000 }; /* what a peer that answers may take on a busy machine */

static struct err err;
static char path[512];

/* Three peers in a thread of their own, which answers in any order. */
struct world {
    struct loading l;
    struct manifest *m;
    struct weight_source *source;
    struct queue *asked;
    pthread_t thread;
    struct rng rng;
    /* what goes wrong */
    uint32_t corrupt, refuse, silent, short_parts, overlong, stale; /* peers, as bits */
    uint32_t lost_after; /* answers, then peer 0 is lost; 0: never */
    uint32_t cancel_after;
    bool at_once; /* answers within the question */
    struct manifest *hidden; /* NULL: m has the hashes; otherwise they are told when they are needed: at once, or after the bytes */
    bool hashes_late;
    /* what happened */
    _Atomic uint32_t n_asked, n_forgotten, n_answers, most_waiting;
    _Atomic uint64_t asked_bytes;
    _Atomic uint32_t n_needs, n_needs_first; /* first: before the bytes were asked for */
    _Atomic bool was_asked[64], needed[64];
    char *chunk;
};

/* Once, when it was needed and, if it comes late, the chunk was asked for. */
static void tell_hash(struct world *w, uint32_t chunk)
{
    struct err why;
    if (w->hidden && atomic_exchange(&w->needed[chunk], false) &&
        source_remote_hash(w->source, 0, chunk, manifest_hash(w->hidden, 0, chunk), &why) != 0)
        abort();
}

static void need(void *arg, uint32_t split, uint32_t chunk)
{
    struct world *w = arg;
    (void)split;
    w->n_needs++;
    w->n_needs_first += !w->was_asked[chunk];
    w->needed[chunk] = true;
    if (!w->hashes_late)
        tell_hash(w, chunk);
}

static void answer_with(struct world *w, const struct remote_request *q, char *chunk, uint32_t len)
{
    uint32_t bit = 1u << q->peer;
    if (w->corrupt & bit)
        chunk[len / 2] ^= 1;
    if (w->overlong & bit) {
        source_remote_deliver(w->source, q->id, len, chunk, 1);
        return;
    }
    if (w->stale & bit)
        source_remote_deliver(w->source, q->id + ((uint64_t)1 << 32), 0, chunk, len);
    uint32_t step = w->short_parts & bit ? 100000 : len;
    for (uint32_t at = 0; at < len; at += step)
        source_remote_deliver(w->source, q->id, at, chunk + at, len - at < step ? len - at : step);
    uint32_t n = ++w->n_answers;
    if (w->stale & bit)
        source_remote_deliver(w->source, q->id, 0, chunk, len); /* once more */
    tell_hash(w, q->chunk);
    if (n == w->lost_after)
        source_remote_lost(w->source, 0, "the link broke");
    if (n == w->cancel_after)
        weight_source_cancel(w->source);
}

static void answer(struct world *w, const struct remote_request *q)
{
    uint32_t bit = 1u << q->peer, len;
    struct err why;
    if (w->silent & bit)
        return;
    if (w->refuse & bit) {
        source_remote_refuse(w->source, q->id, "I do not have it");
        return;
    }
    char *chunk = malloc(MANIFEST_CHUNK_BYTES); /* asked at once, several threads answer */
    if (!chunk || manifest_read_chunk(w->l.g, q->split, q->chunk, chunk, &len, &why) != 0 || len != q->bytes)
        abort();
    answer_with(w, q, chunk, len);
    free(chunk);
}

static int ask(void *arg, const struct remote_request *q)
{
    struct world *w = arg;
    w->n_asked++;
    w->asked_bytes += q->bytes;
    w->was_asked[q->chunk] = true;
    if (w->at_once) {
        answer(w, q);
        return 0;
    }
    struct remote_request *copy = malloc(sizeof *copy);
    *copy = *q;
    if (queue_push(w->asked, copy, 0) != 0) {
        free(copy);
        return -1;
    }
    if (queue_length(w->asked) > w->most_waiting)
        w->most_waiting = (uint32_t)queue_length(w->asked);
    return 0;
}

static void forget(void *arg, uint64_t id)
{
    struct world *w = arg;
    (void)id;
    w->n_forgotten++;
}

/* Holds some questions back and answers one of them, by chance. */
static void *run_peers(void *arg)
{
    struct world *w = arg;
    struct remote_request *held[HELD];
    uint32_t n = 0;
    void *item;
    for (;;) {
        int rc = n < HELD ? queue_pop(w->asked, &item, n ? 2 : 50) : 1;
        if (rc == 0) {
            held[n++] = item;
            continue;
        }
        if (n > 0) {
            uint32_t i = rng_below(&w->rng, n);
            answer(w, held[i]);
            free(held[i]);
            held[i] = held[--n];
        } else if (rc < 0) {
            return NULL;
        }
    }
}

static struct manifest *make_manifest(struct world *w, enum manifest_kind kind)
{
    struct manifest *m = manifest_create(w->l.g, kind, &err);
    for (uint32_t c = 0; c < manifest_n_chunks(m, 0); c++) {
        unsigned char hash[MANIFEST_HASH_BYTES];
        uint32_t len;
        if (manifest_read_chunk(w->l.g, 0, c, w->chunk, &len, &err) != 0)
            abort();
        manifest_hash_bytes(kind, w->chunk, len, hash);
        manifest_set(m, 0, c, hash, &err);
    }
    return m;
}

static void world_init(struct world *w, const char *file, unsigned threads)
{
    *w = (struct world){.rng = {7}};
    loading_init(&w->l, file, threads);
    w->chunk = malloc(MANIFEST_CHUNK_BYTES);
    w->m = make_manifest(w, MANIFEST_BLAKE3);
}

static void world_fini(struct world *w)
{
    free(w->chunk);
    manifest_destroy(w->m);
    loading_fini(&w->l);
}

static struct weights *load_layers(struct world *w, uint32_t first, uint32_t last, struct chunk_cache *cache, struct source_report *report)
{
    static const char *const names[PEERS] = {"attic", "tower", "cellar"};
    struct source_remote_config config = {.manifest = w->m, .peers = names, .n_peers = PEERS, .ask = ask, .forget = forget, .arg = w,
                                          .cache = cache, .in_flight = 3, .timeout_ms = !w->silent ? 0 : w->silent == ALL ? 150 : SLOW_MS};
    bool all = first == 0 && last == w->l.p.n_layers;
    config.need = w->hidden ? need : NULL;
    w->n_needs = w->n_needs_first = 0;
    for (int i = 0; i < 64; i++)
        w->was_asked[i] = w->needed[i] = false;
    w->n_asked = w->n_forgotten = w->n_answers = w->most_waiting = 0;
    w->asked_bytes = 0;
    err_clear(&err);
    w->source = source_remote_create(&config, &err);
    w->asked = queue_create(QUEUE, &err);
    pthread_create(&w->thread, NULL, run_peers, w);
    struct weights_options o = {.source = w->source, .report = report};
    struct weights *weights = weights_load(w->l.g, &w->l.p, first, last, all, all, w->l.be, w->l.pool, &o, &err);
    queue_close(w->asked);
    pthread_join(w->thread, NULL);
    queue_destroy(w->asked);
    weight_source_destroy(w->source);
    w->source = NULL;
    return weights;
}

static struct weights *load(struct world *w, struct chunk_cache *cache, struct source_report *report)
{
    return load_layers(w, 0, w->l.p.n_layers, cache, report);
}

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

static void goes_well(struct world *w, const struct weights *right, struct source_report *report, const char *name)
{
    *report = (struct source_report){0};
    struct weights *got = load(w, NULL, report);
    const char *what = got ? weights_differ(got, right, 0, w->l.p.n_layers) : err.text;
    ok(!what, "%s: the same weights%s%s", name, what ? ", but " : "", what ? what : "");
    weights_destroy(got);
}

static void test_ways(unsigned threads)
{
    struct source_report r;
    struct world w;
    world_init(&w, path, threads);
    struct weights *right = loading_reference(&w.l);
    uint32_t n = manifest_n_chunks(w.m, 0);
    tap_note("%u threads, %u chunks", threads, n);

    goes_well(&w, right, &r, "in any order");
    ok(w.n_asked == n && r.n_notes == 0, "each chunk is asked for once: %u of %u", w.n_asked, n);
    ok(w.most_waiting <= 3, "at most three at a time");
    is_int(part(&r, "attic") + part(&r, "tower") + part(&r, "cellar"), gguf_split_implied_bytes(w.l.g, 0), "bytes of all peers");
    ok(part(&r, "attic") && part(&r, "tower") && part(&r, "cellar"), "every peer gave some");
    w.at_once = true;
    goes_well(&w, right, &r, "at once");
    w.at_once = false;
    w.short_parts = 7;
    goes_well(&w, right, &r, "in parts");
    w.short_parts = 0;
    w.stale = 7;
    goes_well(&w, right, &r, "with stale answers");
    w.stale = 0;
    w.corrupt = 1;
    goes_well(&w, right, &r, "a peer sends wrong bytes");
    ok(has_note(&r, "attic") && has_note(&r, "hash") && part(&r, "attic") == 0, "it is named, and none of its bytes used");
    w.corrupt = 0;
    w.overlong = 2;
    goes_well(&w, right, &r, "a peer sends bytes nobody asked for");
    ok(has_note(&r, "tower"), "it is named");
    w.overlong = 0;
    w.refuse = 3;
    goes_well(&w, right, &r, "two peers refuse");
    ok(has_note(&r, "I do not have it"), "what they say is noted");
    w.refuse = 0;
    w.silent = 4;
    goes_well(&w, right, &r, "a peer says nothing");
    ok(has_note(&r, "cellar: nothing came") && w.n_forgotten > 0, "it is given up on, and told so");
    w.silent = 0;
    w.lost_after = 2;
    goes_well(&w, right, &r, "a peer is lost");
    ok(has_note(&r, "attic is not asked any more"), "it is named");
    weights_destroy(right);
    world_fini(&w);
}

static void fails(struct world *w, enum err_kind kind, const char *text, const char *name)
{
    struct source_report r = {0};
    struct weights *got = load(w, NULL, &r);
    ok(!got, "%s: fails", name);
    is_int(err.kind, kind, "%s: %s", name, err.text);
    has_str(err.text, text, "%s: says why", name);
    weights_destroy(got);
}

static void test_failures(void)
{
    struct world w;
    world_init(&w, path, 2);
    w.corrupt = 7;
    fails(&w, ERR_IO, "could not be had in ", "all send wrong bytes");
    has_str(err.text, "chunk ", "the chunk is named");
    has_str(err.text, "tensor ", "and a tensor");
    w.corrupt = 0;
    w.refuse = 7;
    fails(&w, ERR_IO, "could not be had in 5 tries", "all refuse");
    w.refuse = 0;
    w.silent = ALL;
    fails(&w, ERR_IO, "nothing came for 150 ms", "nobody answers");
    w.silent = 0;
    w.cancel_after = 2;
    fails(&w, ERR_CANCELLED, "cancelled", "cancelled meanwhile");
    w.cancel_after = 0;

    struct manifest *whole = w.m;
    w.m = manifest_create(w.l.g, MANIFEST_BLAKE3, &err);
    fails(&w, ERR_INPUT, "the manifest lacks chunk", "a manifest without hashes");
    manifest_destroy(w.m);
    w.m = whole;
    world_fini(&w);
}

/* Only what a range of layers needs is asked for. */
static void test_layers(void)
{
    struct source_report r;
    struct world w;
    world_init(&w, path, 2);
    struct weights *right = loading_reference(&w.l), *got = load_layers(&w, 1, 2, NULL, &r);
    const char *what = got ? weights_differ(got, right, 1, 2) : err.text;
    ok(!what, "one layer: the same weights%s%s", what ? ", but " : "", what ? what : "");
    uint64_t layer = got ? got->bytes : 0;
    ok(w.asked_bytes < layer + 3 * (uint64_t)MANIFEST_CHUNK_BYTES && w.asked_bytes < gguf_split_implied_bytes(w.l.g, 0) / 3 * 2,
       "%llu bytes were asked for, the layer has %llu", (unsigned long long)w.asked_bytes, (unsigned long long)layer);
    weights_destroy(got);
    weights_destroy(right);
    world_fini(&w);
}

/* The same weights where hashes come only when they are needed: bytes are asked for first, and wait. */
static void test_hashes(void)
{
    static const char *const names[] = {"hashes as they are needed", "hashes after the bytes", "hashes after the bytes, in parts"};
    struct source_report r;
    struct world w;
    world_init(&w, path, 2);
    struct weights *right = loading_reference(&w.l);
    uint32_t n = manifest_n_chunks(w.m, 0);
    w.hidden = w.m;
    ok(n > 3 && n < 64, "%u chunks", n);
    for (int i = 0; i < 3; i++) {
        w.m = manifest_create(w.l.g, MANIFEST_BLAKE3, &err);
        w.hashes_late = i > 0;
        w.short_parts = i == 2 ? ALL : 0;
        goes_well(&w, right, &r, names[i]);
        ok(w.n_needs == n && w.n_needs_first == 0 && w.n_asked == n, "each hash is asked for once, after its bytes: %u, %u of %u", w.n_needs,
           w.n_needs_first, n);
        manifest_destroy(w.m);
    }
    w.m = manifest_create(w.l.g, MANIFEST_BLAKE3, &err);
    w.corrupt = ALL;
    fails(&w, ERR_IO, "do not have the manifest's hash", "wrong bytes, hashes after them");
    w.corrupt = 0;
    manifest_destroy(w.m);
    w.m = w.hidden;
    weights_destroy(right);
    world_fini(&w);
}

/* Older peers know BLAKE2b only. */
static void test_blake2b(void)
{
    struct source_report r;
    struct world w;
    world_init(&w, path, 2);
    struct weights *right = loading_reference(&w.l);
    manifest_destroy(w.m);
    w.m = make_manifest(&w, MANIFEST_BLAKE2B);
    w.short_parts = ALL;
    goes_well(&w, right, &r, "by BLAKE2b, in parts");
    w.corrupt = 1;
    goes_well(&w, right, &r, "by BLAKE2b, a peer sends wrong bytes");
    ok(has_note(&r, "attic") && has_note(&r, "hash"), "it is named");
    weights_destroy(right);
    world_fini(&w);
}

/* What the cache may have waits for its hash; what it has not is asked for at once. */
static void test_hashes_cache(void)
{
    char dir[600];
    struct source_report r;
    struct world w;
    world_init(&w, path, 2);
    struct weights *right = loading_reference(&w.l), *got;
    uint32_t n = manifest_n_chunks(w.m, 0);
    snprintf(dir, sizeof dir, "%s/cache-hashes", model_folder());
    struct chunk_cache *c = cache_open(dir, 1 << 30, &err);
    cache_use(c, w.m, &err);
    w.cancel_after = n / 2;
    got = load(&w, c, &r);
    ok(!got, "a load that is cut");
    w.cancel_after = 0;
    w.hidden = w.m;
    w.m = manifest_create(w.l.g, MANIFEST_BLAKE3, &err);
    got = load(&w, c, &r);
    const char *what = got ? weights_differ(got, right, 0, w.l.p.n_layers) : err.text;
    ok(!what, "goes on without knowing a hash: the same weights%s%s", what ? ", but " : "", what ? what : "");
    ok(part(&r, "cache") > 0 && w.n_needs == n && w.n_needs_first == n - w.n_asked, "%u hashes were needed before their bytes, %u of %u chunks asked for",
       w.n_needs_first, w.n_asked, n);
    weights_destroy(got);
    manifest_destroy(w.m);
    w.m = w.hidden;
    cache_close(c);
    weights_destroy(right);
    world_fini(&w);
}

static void test_cache(void)
{
    char dir[600];
    struct source_report r;
    struct world w;
    world_init(&w, path, 2);
    struct weights *right = loading_reference(&w.l);
    uint32_t n = manifest_n_chunks(w.m, 0);
    snprintf(dir, sizeof dir, "%s/cache", model_folder());
    struct chunk_cache *c = cache_open(dir, 1 << 30, &err);
    is_int(cache_use(c, w.m, &err), 0, "a cache");
    w.cancel_after = n / 2;
    struct weights *got = load(&w, c, &r);
    ok(!got, "a load that is cut");
    w.cancel_after = 0;
    got = load(&w, c, &r);
    const char *what = got ? weights_differ(got, right, 0, w.l.p.n_layers) : err.text;
    ok(!what, "goes on: the same weights%s%s", what ? ", but " : "", what ? what : "");
    ok(w.n_asked < n && part(&r, "cache") > 0, "%u of %u chunks were asked for, %llu bytes came from the cache", w.n_asked, n,
       (unsigned long long)part(&r, "cache"));
    weights_destroy(got);
    w.silent = ALL;
    got = load(&w, c, &r);
    ok(got && w.n_asked == 0 && !weights_differ(got, right, 0, w.l.p.n_layers), "a third load asks nobody");
    weights_destroy(got);
    w.silent = 0;
    cache_close(c);

    char command[1200];
    snprintf(command, sizeof command, "for f in %s/*/00000.data; do printf xyz | dd of=$f bs=1 seek=5000000 conv=notrunc 2>/dev/null; done", dir);
    ok(system(command) == 0, "the cache's second chunk is damaged");
    c = cache_open(dir, 1 << 30, &err);
    cache_use(c, w.m, &err);
    got = load(&w, c, &r);
    what = got ? weights_differ(got, right, 0, w.l.p.n_layers) : err.text;
    ok(!what, "the same weights%s%s", what ? ", but " : "", what ? what : "");
    ok(w.n_asked == 1 && has_note(&r, "wrong in the cache"), "it was asked for again, and noted");
    weights_destroy(got);
    cache_close(c);
    c = cache_open(dir, MANIFEST_CHUNK_BYTES, &err);
    cache_use(c, w.m, &err);
    got = load(&w, c, &r);
    ok(got && has_note(&r, "no room"), "a cache that is too small is no obstacle, and is noted");
    weights_destroy(got);
    cache_close(c);
    weights_destroy(right);
    world_fini(&w);
}

int main(void)
{
    struct model_spec spec = *model_spec_of("llama");
    struct source_remote_config none = {0};
    spec.big = 400;
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    model_write(&spec, QUANT_Q8_0, path);
    ok(!source_remote_create(&none, &err), "nobody to load from is an error: %s", err.text);
    test_ways(1);
    test_ways(4);
    test_failures();
    test_layers();
    test_hashes();
    test_blake2b();
    test_hashes_cache();
    test_cache();
    return tap_done();
}
