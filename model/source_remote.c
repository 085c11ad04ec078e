/* See source_remote.h.
 *
 * `begin` makes two lists: the chunks that the ranges need, in order, and for each range which of them. A chunk goes from
 * IDLE (not asked for) by ASKED to ARRIVED, or from CACHED, to READY once its hash was right, and to FREED when the last range
 * that needs it is done. Only the `window` chunks from the first unfreed one on may hold memory: the chunk that the oldest range
 * waits for is always among them, so the load never waits for itself. Everything is under one lock but the long parts:
 * copying, hashing, the cache, and the caller's functions.
 *
 * Chunks lie in a ring of `window` places, made once: fresh memory for each would cost more than hashing it. Neighbours of the file are
 * neighbours there, so a range that spans two is read where they lie; only one that spans the ring's end is put together, in a room
 * that its thread has for that. */
#include "model/source_remote.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/blake3.h"
#include "base/mem.h"

_Static_assert((int)BLAKE3_PARTS * BLAKE3_PART_BYTES == (int)MANIFEST_CHUNK_BYTES, "a chunk can be hashed by parts");

enum { PER_PEER = 4, RANGE_BYTES = 1 << 20, WHY_BYTES = 128, WAIT_MS = 500 };

enum chunk_state { CHUNK_IDLE, CHUNK_ASKED, CHUNK_ARRIVED, CHUNK_CACHED, CHUNK_CHECKED_BY_SOMEBODY, CHUNK_READY, CHUNK_FREED };

struct want {
    uint32_t split, chunk, bytes;
    enum chunk_state state;
    uint32_t users; /* ranges that still need it */
    uint32_t tries, have, peer;
    uint64_t tried; /* peers, as bits, in this round */
    int64_t heard_ms; /* when it was asked for, or a part of it came */
    bool copying;   /* a part is being copied in */
    bool from_cache, told; /* told: its hash was asked for */
};

struct remote_range {
    size_t first, last; /* wants */
    bool taken;
};

struct peer {
    char name[SOURCE_NAME_BYTES];
    uint32_t in_flight, wrong;
    bool lost;
    uint64_t bytes;
};

struct source_remote {
    struct weight_source base;
    struct source_remote_config config;
    struct peer peers[REMOTE_MAX_PEERS];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const struct source_range *ranges;
    struct remote_range *states;
    size_t n_ranges, first_open; /* first_open: before it all are taken */
    struct want *wants;
    size_t n_wants, first_held, window; /* first_held: before it all are freed */
    char *ring;       /* window chunks, then each thread's room */
    struct blake3_parts *parts; /* of each place: what has come is hashed while it is still in the processor's caches */
    size_t ring_bytes, room_bytes;
    uint32_t in_flight;
    bool failed, ended;
    struct err err;
    size_t failed_range;
    uint64_t cache_bytes;
    bool cache_broken;
    struct source_report report; /* its notes */
};

static struct source_remote *self(struct weight_source *s)
{
    return (struct source_remote *)s;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* In the ring. Only the wants of the window have a place. */
static char *place_of(const struct source_remote *r, const struct want *w)
{
    return r->ring + (size_t)(w - r->wants) % r->window * MANIFEST_CHUNK_BYTES;
}

static struct blake3_parts *parts_of(const struct source_remote *r, const struct want *w)
{
    return &r->parts[(size_t)(w - r->wants) % r->window];
}

/* The number of a try: an answer to an earlier one is stale. */
static uint64_t request_id(const struct source_remote *r, const struct want *w)
{
    return (uint64_t)w->tries << 32 | (uint64_t)(w - r->wants);
}

static struct want *want_of(struct source_remote *r, uint64_t id)
{
    size_t i = (size_t)(id & UINT32_MAX);
    struct want *w = i < r->n_wants ? &r->wants[i] : NULL;
    return w && !r->ended && w->state == CHUNK_ASKED && request_id(r, w) == id ? w : NULL;
}

/* --- failures; all under the lock ----------------------------------------------------------------------------------------- */

static void fail(struct source_remote *r, const struct want *w, enum err_kind kind, const char *why)
{
    if (r->failed)
        return;
    r->failed = true;
    r->failed_range = SIZE_MAX;
    if (!w) {
        err_set(&r->err, kind, "%s", why);
    } else {
        uint64_t from = (uint64_t)w->chunk * MANIFEST_CHUNK_BYTES;
        err_set(&r->err, kind, "chunk %" PRIu32 " of split %" PRIu32 " (bytes %" PRIu64 " to %" PRIu64 ") could not be had in %" PRIu32
                               " tries, the last: %s", w->chunk, w->split, from, from + w->bytes, w->tries, why);
        for (size_t i = 0; i < r->n_ranges && r->failed_range == SIZE_MAX; i++)
            if (&r->wants[r->states[i].first] <= w && w <= &r->wants[r->states[i].last])
                r->failed_range = i;
    }
    pthread_cond_broadcast(&r->changed);
}

static bool any_peer(const struct source_remote *r)
{
    for (uint32_t i = 0; i < r->config.n_peers; i++)
        if (!r->peers[i].lost)
            return true;
    return false;
}

static void give_up_on(struct source_remote *r, uint32_t peer, const char *why)
{
    if (r->peers[peer].lost)
        return;
    r->peers[peer].lost = true;
    source_note(&r->report, "%s is not asked any more: %s", r->peers[peer].name, why);
}

/* The want's peer did not give it: it is to be asked for again. */
static void try_again(struct source_remote *r, struct want *w, const char *why)
{
    char text[WHY_BYTES + SOURCE_NAME_BYTES];
    snprintf(text, sizeof text, "%s: %s", r->peers[w->peer].name, why);
    w->have = 0;
    w->state = CHUNK_IDLE;
    source_note(&r->report, "chunk %" PRIu32 " of split %" PRIu32 " was asked for again: %s", w->chunk, w->split, text);
    if (w->tries >= r->config.tries || !any_peer(r))
        fail(r, w, ERR_IO, text);
    pthread_cond_broadcast(&r->changed);
}

/* It was ASKED and is not waited for any more. */
static void unask(struct source_remote *r, struct want *w)
{
    r->peers[w->peer].in_flight--;
    r->in_flight--;
}

static void check_clocks(struct source_remote *r)
{
    int64_t now = now_ms();
    char why[WHY_BYTES];
    for (size_t i = r->first_held; i < r->n_wants && i < r->first_held + r->window; i++) {
        struct want *w = &r->wants[i];
        if (w->state != CHUNK_ASKED || w->copying || now - w->heard_ms < r->config.timeout_ms)
            continue;
        snprintf(why, sizeof why, "nothing came for %" PRIu32 " ms", r->config.timeout_ms);
        uint64_t id = request_id(r, w);
        unask(r, w);
        try_again(r, w, why);
        if (r->config.forget)
            r->config.forget(r->config.arg, id);
    }
}

/* --- asking --------------------------------------------------------------------------------------------------------------- */

/* The peer that has least to do, among those that did not fail with this chunk unless all have. */
static uint32_t choose_peer(const struct source_remote *r, struct want *w)
{
    for (int round = 0; round < 2; round++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < r->config.n_peers; i++)
            if (!r->peers[i].lost && !(w->tried >> i & 1) && (best == UINT32_MAX || r->peers[i].in_flight < r->peers[best].in_flight))
                best = i;
        if (best != UINT32_MAX)
            return best;
        w->tried = 0;
    }
    return UINT32_MAX;
}

static bool hash_known(const struct source_remote *r, const struct want *w)
{
    return manifest_hash(r->config.manifest, w->split, w->chunk) != NULL;
}

/* Under the lock, which it leaves meanwhile. */
static void tell_need(struct source_remote *r, struct want *w)
{
    uint32_t split = w->split, chunk = w->chunk;
    if (w->told || hash_known(r, w))
        return;
    w->told = true;
    pthread_mutex_unlock(&r->lock);
    r->config.need(r->config.arg, split, chunk);
    pthread_mutex_lock(&r->lock);
}

/* The next chunk that is to be asked for; NULL: none now. What the cache may have waits for its hash, since nothing else says whether
 * that is right. Under the lock, which it may leave meanwhile. */
static struct want *next_want(struct source_remote *r)
{
    for (size_t i = r->first_held; i < r->n_wants && i < r->first_held + r->window; i = i < r->first_held ? r->first_held : i + 1) {
        struct want *w = &r->wants[i];
        if (w->state != CHUNK_IDLE)
            continue;
        if (!r->config.cache || r->cache_broken || w->from_cache || !cache_has(r->config.cache, w->split, w->chunk))
            return w;
        tell_need(r, w);
        if (w->state == CHUNK_IDLE && hash_known(r, w)) {
            w->from_cache = true; /* once: what was not right there is asked for */
            w->state = CHUNK_CACHED;
        }
    }
    return NULL;
}

/* Prepares the next chunk's request; NULL: there is none to make now. */
static struct want *next_request(struct source_remote *r, struct remote_request *ret)
{
    struct want *w = next_want(r);
    if (!w || r->in_flight >= r->config.in_flight || r->failed)
        return NULL;
    uint32_t peer = choose_peer(r, w);
    if (peer == UINT32_MAX) {
        fail(r, w, ERR_IO, "nobody is left to be asked");
        return NULL;
    }
    w->tries++;
    w->tried |= (uint64_t)1 << peer;
    w->peer = peer;
    w->have = 0;
    w->state = CHUNK_ASKED;
    w->heard_ms = now_ms();
    r->peers[peer].in_flight++;
    r->in_flight++;
    *ret = (struct remote_request){request_id(r, w), peer, w->split, w->chunk, w->bytes, (uint64_t)w->chunk * MANIFEST_CHUNK_BYTES};
    return w;
}

/* Bytes first, then their hash: who serves both reads them once. Under the lock, which it leaves while it asks. */
static void ask_more(struct source_remote *r)
{
    struct remote_request request;
    struct want *w;
    while ((w = next_request(r, &request))) {
        pthread_mutex_unlock(&r->lock);
        int rc = r->config.ask(r->config.arg, &request);
        pthread_mutex_lock(&r->lock);
        tell_need(r, w);
        if (rc != 0 && (w = want_of(r, request.id))) {
            unask(r, w);
            try_again(r, w, "it could not be asked");
        }
    }
}

/* --- what comes ----------------------------------------------------------------------------------------------------------- */

/* Hashes what is whole parts by now, of `have` bytes. Not under the lock: the want is being copied to. */
static void hash_parts(struct source_remote *r, const struct want *w, uint32_t have)
{
    struct blake3_parts *p = parts_of(r, w);
    if (manifest_kind(r->config.manifest) != MANIFEST_BLAKE3)
        return;
    for (uint32_t done; (done = p->n * BLAKE3_PART_BYTES) < have;) {
        uint32_t left = w->bytes - done, part = left < BLAKE3_PART_BYTES ? left : BLAKE3_PART_BYTES;
        if (have - done < part)
            return;
        blake3_part(p, place_of(r, w) + done, part);
    }
}

static bool is_right(const struct source_remote *r, const struct want *w)
{
    unsigned char hash[MANIFEST_HASH_BYTES];
    if (manifest_kind(r->config.manifest) != MANIFEST_BLAKE3)
        return manifest_matches(r->config.manifest, w->split, w->chunk, place_of(r, w), w->bytes);
    blake3_end(parts_of(r, w), hash);
    return memcmp(hash, manifest_hash(r->config.manifest, w->split, w->chunk), sizeof hash) == 0;
}

void source_remote_deliver(struct weight_source *base, uint64_t id, uint32_t at, const void *data, uint32_t len)
{
    struct source_remote *r = self(base);
    pthread_mutex_lock(&r->lock);
    struct want *w = want_of(r, id);
    if (w && (at != w->have || len > w->bytes - w->have)) {
        unask(r, w);
        try_again(r, w, "it sent bytes that were not asked for");
        w = NULL;
    }
    if (w) {
        w->copying = true;
        pthread_mutex_unlock(&r->lock);
        if (at == 0)
            blake3_begin(parts_of(r, w), w->bytes);
        memcpy(place_of(r, w) + at, data, len);
        hash_parts(r, w, at + len);
        pthread_mutex_lock(&r->lock);
        w->copying = false;
        w->heard_ms = now_ms();
        w->have += len;
        if (w->have == w->bytes) {
            unask(r, w);
            w->state = CHUNK_ARRIVED;
        }
        if (w->state == CHUNK_ARRIVED || r->ended || r->failed)
            pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
}

int source_remote_hash(struct weight_source *base, uint32_t split, uint32_t chunk, const unsigned char hash[MANIFEST_HASH_BYTES], struct err *err)
{
    struct source_remote *r = self(base);
    pthread_mutex_lock(&r->lock);
    int rc = manifest_set(r->config.manifest, split, chunk, hash, err);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

void source_remote_refuse(struct weight_source *base, uint64_t id, const char *why)
{
    struct source_remote *r = self(base);
    char shown[WHY_BYTES];
    pthread_mutex_lock(&r->lock);
    struct want *w = want_of(r, id);
    if (w && !w->copying) {
        unask(r, w);
        try_again(r, w, err_printable(shown, sizeof shown, why, strlen(why)));
    }
    pthread_mutex_unlock(&r->lock);
}

void source_remote_lost(struct weight_source *base, uint32_t peer, const char *why)
{
    struct source_remote *r = self(base);
    char shown[WHY_BYTES];
    pthread_mutex_lock(&r->lock);
    if (peer < r->config.n_peers) {
        err_printable(shown, sizeof shown, why, strlen(why));
        give_up_on(r, peer, shown);
        for (size_t i = r->first_held; i < r->n_wants && !r->ended; i++)
            if (r->wants[i].state == CHUNK_ASKED && r->wants[i].peer == peer && !r->wants[i].copying) {
                unask(r, &r->wants[i]);
                try_again(r, &r->wants[i], shown);
            }
        if (!any_peer(r)) {
            char text[WHY_BYTES + SOURCE_NAME_BYTES + 32];
            snprintf(text, sizeof text, "nobody is left to be asked; the last was %s: %s", r->peers[peer].name, shown);
            fail(r, NULL, ERR_IO, text);
        }
    }
    pthread_mutex_unlock(&r->lock);
}

/* --- the loader's threads ------------------------------------------------------------------------------------------------- */

static struct want *to_check(struct source_remote *r)
{
    for (size_t i = r->first_held; i < r->n_wants && i < r->first_held + r->window; i++)
        if ((r->wants[i].state == CHUNK_ARRIVED && hash_known(r, &r->wants[i])) || r->wants[i].state == CHUNK_CACHED)
            return &r->wants[i];
    return NULL;
}

static void keep(struct source_remote *r, const struct want *w)
{
    struct err why;
    int rc = r->config.cache && !r->cache_broken ? cache_put(r->config.cache, r->config.manifest, w->split, w->chunk, place_of(r, w), &why) : 1;
    if (rc == 1)
        return;
    pthread_mutex_lock(&r->lock);
    if (rc == 0)
        source_note(&r->report, "the cache has no room for all that this load needs; raise its limit");
    else
        source_note(&r->report, "nothing more is cached: %.150s", why.text);
    r->cache_broken |= rc < 0;
    pthread_mutex_unlock(&r->lock);
}

/* Under the lock, which it leaves meanwhile: reads a chunk from the cache, or checks one that came. */
static void check(struct source_remote *r, struct want *w)
{
    bool cached = w->state == CHUNK_CACHED, good;
    w->state = CHUNK_CHECKED_BY_SOMEBODY;
    pthread_mutex_unlock(&r->lock);
    if (cached) {
        good = cache_get(r->config.cache, r->config.manifest, w->split, w->chunk, place_of(r, w));
    } else {
        good = is_right(r, w);
        if (good)
            keep(r, w);
    }
    pthread_mutex_lock(&r->lock);
    if (good) {
        w->state = CHUNK_READY;
        *(cached ? &r->cache_bytes : &r->peers[w->peer].bytes) += w->bytes;
    } else if (cached) {
        w->state = CHUNK_IDLE;
        source_note(&r->report, "chunk %" PRIu32 " of split %" PRIu32 " was wrong in the cache", w->chunk, w->split);
    } else {
        if (++r->peers[w->peer].wrong >= REMOTE_WRONG_MAX)
            give_up_on(r, w->peer, "it sent wrong chunks");
        try_again(r, w, "its bytes do not have the manifest's hash");
    }
    pthread_cond_broadcast(&r->changed);
}

/* The first range that nobody took and whose chunks are all there; SIZE_MAX: none. */
static size_t ready_range(struct source_remote *r)
{
    while (r->first_open < r->n_ranges && r->states[r->first_open].taken)
        r->first_open++;
    for (size_t i = r->first_open; i < r->n_ranges && r->states[i].first < r->first_held + r->window; i++) {
        bool ready = !r->states[i].taken;
        for (size_t k = r->states[i].first; ready && k <= r->states[i].last; k++)
            ready = r->wants[k].state == CHUNK_READY;
        if (ready)
            return i;
    }
    return SIZE_MAX;
}

/* It spans the ring's end. */
static bool is_torn(const struct source_remote *r, const struct remote_range *state)
{
    return state->last % r->window < state->first % r->window;
}

/* A range's bytes, in one piece. */
static const char *bytes_of(struct source_remote *r, size_t range, unsigned thread)
{
    const struct source_range *want = &r->ranges[range];
    const struct remote_range *state = &r->states[range];
    const struct want *first = &r->wants[state->first];
    size_t skip = (size_t)(want->offset - (uint64_t)first->chunk * MANIFEST_CHUNK_BYTES);
    const char *begin = place_of(r, first) + skip;
    if (!is_torn(r, state))
        return begin;
    char *room = r->ring + r->window * MANIFEST_CHUNK_BYTES + thread * r->room_bytes;
    size_t until_end = (size_t)(r->ring + r->window * MANIFEST_CHUNK_BYTES - begin);
    memcpy(room, begin, until_end);
    memcpy(room + until_end, r->ring, want->bytes - until_end);
    return room;
}

static void wait_for_change(struct source_remote *r)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint32_t ms = r->config.timeout_ms < WAIT_MS ? r->config.timeout_ms : WAIT_MS;
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&r->changed, &r->lock, &until);
}

static int remote_next(struct weight_source *base, unsigned thread, struct source_data *ret, struct err *err)
{
    struct source_remote *r = self(base);
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->failed) {
        struct want *w;
        ask_more(r);
        check_clocks(r);
        size_t i = ready_range(r);
        if (i != SIZE_MAX) {
            r->states[i].taken = true;
            pthread_mutex_unlock(&r->lock);
            *ret = (struct source_data){.range = i, .data = bytes_of(r, i, thread)};
            return 1;
        } else if (r->first_open == r->n_ranges) {
            goto done;
        } else if ((w = to_check(r))) {
            check(r, w);
        } else if (!r->failed) {
            wait_for_change(r);
        }
    }
    rc = -1;
    ret->range = r->failed_range;
    if (err)
        *err = r->err;
done:
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static void remote_done(struct weight_source *base, const struct source_data *data)
{
    struct source_remote *r = self(base);
    struct remote_range *state = &r->states[data->range];
    pthread_mutex_lock(&r->lock);
    for (size_t k = state->first; k <= state->last; k++) {
        struct want *w = &r->wants[k];
        if (--w->users > 0)
            continue;
        w->state = CHUNK_FREED;
    }
    while (r->first_held < r->n_wants && r->wants[r->first_held].state == CHUNK_FREED)
        r->first_held++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* --- a load --------------------------------------------------------------------------------------------------------------- */

static uint32_t remote_range_bytes(const struct weight_source *base, unsigned threads)
{
    (void)base;
    (void)threads;
    return RANGE_BYTES;
}

static uint32_t chunk_at(uint64_t offset)
{
    return (uint32_t)(offset / MANIFEST_CHUNK_BYTES);
}

/* Ranges ascend, so a range's first chunk is the last one of the list or comes after it. */
static int list_wants(struct source_remote *r, struct err *err)
{
    size_t cap = 0, longest = 1;
    for (size_t i = 0; i < r->n_ranges; i++) {
        const struct source_range *range = &r->ranges[i];
        uint32_t first = chunk_at(range->offset), last = chunk_at(range->offset + range->bytes - 1);
        for (uint32_t c = first; c <= last; c++) {
            struct want *have = r->n_wants ? &r->wants[r->n_wants - 1] : NULL;
            /* the ranges before may reach past this one's beginning: then its chunks are in the list already */
            while (have && have > r->wants && have->split == range->split && have->chunk > c)
                have--;
            bool there = have && have->split == range->split && have->chunk == c;
            if (!there && mem_grow(&r->wants, &cap, r->n_wants + 1, sizeof *r->wants, UINT32_MAX, "chunks", err) != 0)
                return -1;
            size_t at = there ? (size_t)(have - r->wants) : r->n_wants++;
            if (!there)
                r->wants[at] = (struct want){.split = range->split, .chunk = c, .bytes = manifest_chunk_bytes(r->config.manifest, range->split, c)};
            r->wants[at].users++;
            if (c == first)
                r->states[i].first = at;
            r->states[i].last = at;
            bool known = manifest_hash(r->config.manifest, range->split, c) != NULL;
            if (!known && !r->config.need)
                return err_set(err, ERR_INPUT, "the manifest lacks chunk %" PRIu32 " of split %" PRIu32, c, range->split);
        }
        size_t span = r->states[i].last - r->states[i].first + 1;
        longest = span > longest ? span : longest;
    }
    r->window = longest > r->config.in_flight ? longest : r->config.in_flight;
    r->window = r->window < r->n_wants ? r->window : r->n_wants;
    return 0;
}

static int make_ring(struct source_remote *r, unsigned threads, struct err *err)
{
    for (size_t i = 0; i < r->n_ranges; i++)
        if (is_torn(r, &r->states[i]) && r->ranges[i].bytes > r->room_bytes)
            r->room_bytes = r->ranges[i].bytes;
    r->ring_bytes = r->window * MANIFEST_CHUNK_BYTES + threads * r->room_bytes;
    if (r->ring_bytes == 0)
        return 0;
    r->ring = mem_pages_alloc(r->ring_bytes, err);
    r->parts = mem_new(r->window, sizeof *r->parts, err);
    return r->ring && r->parts ? 0 : -1;
}

static int remote_begin(struct weight_source *base, const struct source_range *ranges, size_t n, unsigned threads, struct err *err)
{
    struct source_remote *r = self(base);
    r->ranges = ranges;
    r->n_ranges = n;
    if (!(r->states = mem_new(n, sizeof *r->states, err)))
        return -1;
    return list_wants(r, err) != 0 ? -1 : make_ring(r, threads, err);
}

static int remote_end(struct weight_source *base, struct err *err)
{
    struct source_remote *r = self(base);
    (void)err;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n_wants; i++) {
        struct want *w = &r->wants[i];
        while (w->copying)
            pthread_cond_wait(&r->changed, &r->lock);
        if (w->state == CHUNK_ASKED && r->config.forget)
            r->config.forget(r->config.arg, request_id(r, w));
    }
    r->ended = true;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

static void remote_cancel(struct weight_source *base)
{
    struct source_remote *r = self(base);
    pthread_mutex_lock(&r->lock);
    fail(r, NULL, ERR_CANCELLED, "loading was cancelled");
    pthread_mutex_unlock(&r->lock);
}

static void remote_report(const struct weight_source *base, struct source_report *ret)
{
    struct source_remote *r = (struct source_remote *)(uintptr_t)base;
    pthread_mutex_lock(&r->lock); /* it may be asked for while the load goes on */
    *ret = r->report;
    source_part(ret, "cache", r->cache_bytes);
    for (uint32_t i = 0; i < r->config.n_peers; i++)
        source_part(ret, r->peers[i].name, r->peers[i].bytes);
    pthread_mutex_unlock(&r->lock);
}

static void remote_destroy(struct weight_source *base)
{
    struct source_remote *r = self(base);
    mem_pages_free(r->ring, r->ring_bytes);
    free(r->parts);
    free(r->wants);
    free(r->states);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void *remote_buffers(const struct weight_source *base, size_t *ret_bytes)
{
    const struct source_remote *r = (const struct source_remote *)base;
    *ret_bytes = r->ring_bytes;
    return r->ring;
}

static const struct weight_source_ops remote_ops = {
    .range_bytes = remote_range_bytes,
    .begin = remote_begin,
    .next = remote_next,
    .done = remote_done,
    .end = remote_end,
    .buffers = remote_buffers,
    .cancel = remote_cancel,
    .report = remote_report,
    .destroy = remote_destroy,
};

struct weight_source *source_remote_create(const struct source_remote_config *config, struct err *err)
{
    pthread_condattr_t attr;
    if (config->n_peers == 0 || config->n_peers > REMOTE_MAX_PEERS) {
        err_set(err, ERR_USAGE, "%" PRIu32 " peers to load from, allowed are 1 to %d", config->n_peers, REMOTE_MAX_PEERS);
        return NULL;
    }
    struct source_remote *r = mem_new(1, sizeof *r, err);
    if (!r)
        return NULL;
    r->base.ops = &remote_ops;
    r->config = *config;
    r->failed_range = SIZE_MAX;
    if (r->config.in_flight == 0)
        r->config.in_flight = PER_PEER * config->n_peers;
    if (r->config.in_flight > REMOTE_MAX_IN_FLIGHT)
        r->config.in_flight = REMOTE_MAX_IN_FLIGHT;
    r->config.tries = config->tries ? config->tries : REMOTE_TRIES;
    r->config.timeout_ms = config->timeout_ms ? config->timeout_ms : REMOTE_TIMEOUT_MS;
    for (uint32_t i = 0; i < config->n_peers; i++)
        err_printable(r->peers[i].name, sizeof r->peers[i].name, config->peers[i], strlen(config->peers[i]));
    r->config.peers = NULL; /* copied: the caller's need not live on */
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    return &r->base;
}
