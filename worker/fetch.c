/* See fetch.h. The thread owns the wire; the loader's threads leave wishes under the lock and wake it. */
#include "worker/fetch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "gguf/manifest.h"
#include "model/source_remote.h"
#include "proto/codec.h"

enum { REDIAL_MS = 200, TICK_MS = 50, HASH_AHEAD = 8, MAX_WISHES = REMOTE_MAX_IN_FLIGHT + 1 };

/* Bytes that somebody waits for. */
struct wish {
    bool used, sent, header;
    uint64_t id;     /* on the wire */
    uint64_t chunk;  /* source_remote's */
    uint32_t peer, split;
    uint64_t offset, bytes, have;
};

struct peer {
    struct fetch_node who;
    struct wire_link *link;
    bool up, lost;
    enum manifest_kind hashes; /* what it can be asked for, once it is up */
    int64_t dial_at_ms, away_since_ms;
};

struct need {
    uint32_t split, chunk;
};

struct fetch {
    struct wire *wire;
    struct codec *codec;
    pthread_t thread;
    bool started;
    uint8_t model[MSG_ID_BYTES];
    struct peer peers[MSG_MAX_SOURCES];
    uint32_t n_peers;
    int64_t began_ms;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool stopping, cancelled;
    struct wish wishes[MAX_WISHES];
    uint64_t next_id;
    struct weight_source *source;
    uint32_t source_peer[MSG_MAX_SOURCES], peer_of_source[MSG_MAX_SOURCES]; /* the source knows only those that were up */
    char why[256]; /* the last refusal or loss */

    /* The header: split after split. */
    uint8_t *headers[GGUF_MAX_SPLITS];
    size_t header_bytes[GGUF_MAX_SPLITS], header_have;
    bool header_done, header_refused;

    /* Hashes: needs[asked …] are to be asked for; [known, asked) are under way. */
    struct need *needs;
    size_t n_needs, needs_cap, asked, known;
    uint64_t hash_ids[HASH_AHEAD]; /* 0: free */
    size_t hash_needs[HASH_AHEAD];
    uint32_t hash_peer;

    struct gguf *gguf;
    struct manifest *manifest;
    struct chunk_cache *cache; /* in use for this; NULL: none */
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- peers; the thread, under the lock ---------------------------------------------------------------------------------------- */

static void dial(struct fetch *f, struct peer *p)
{
    struct wire_dial d = {.endpoint = p->who.address, .purpose = LINK_BULK, .key = p->who.has_key ? p->who.key : NULL, .user = p};
    struct err err;
    p->dial_at_ms = 0;
    p->link = wire_dial(f->wire, &d, &err);
    if (!p->link) {
        p->lost = true;
        snprintf(f->why, sizeof f->why, "%s: %.150s", p->who.name, err.text);
    }
}

/* Not asked any more: the source goes elsewhere. The lock is left meanwhile: the source calls us back under its own. */
static void lose(struct fetch *f, struct peer *p, const char *why)
{
    uint32_t i = (uint32_t)(p - f->peers);
    if (p->lost)
        return;
    p->lost = true;
    snprintf(f->why, sizeof f->why, "%s: %.150s", p->who.name, why);
    for (unsigned k = 0; k < MAX_WISHES; k++)
        if (f->wishes[k].used && f->wishes[k].peer == i) {
            f->header_refused = f->header_refused || f->wishes[k].header;
            f->wishes[k].used = false;
        }
    if (f->hash_peer == i) {
        f->asked = f->known;
        memset(f->hash_ids, 0, sizeof f->hash_ids);
    }
    struct weight_source *source = f->source;
    pthread_mutex_unlock(&f->lock);
    wire_link_close(p->link, NULL);
    p->link = NULL;
    if (source && f->source_peer[i] != UINT32_MAX)
        source_remote_lost(source, f->source_peer[i], why);
    pthread_mutex_lock(&f->lock);
    pthread_cond_broadcast(&f->changed);
}

static void link_down(struct fetch *f, struct peer *p, const char *why)
{
    uint32_t i = (uint32_t)(p - f->peers);
    p->link = NULL;
    if (p->up || !p->away_since_ms)
        p->away_since_ms = now_ms();
    p->up = false;
    p->dial_at_ms = now_ms() + REDIAL_MS;
    snprintf(f->why, sizeof f->why, "%s: %.150s", p->who.name, why);
    for (unsigned k = 0; k < MAX_WISHES; k++)
        if (f->wishes[k].peer == i)
            f->wishes[k].sent = false; /* goes on from `have` */
    if (f->hash_peer == i) {
        f->asked = f->known;
        memset(f->hash_ids, 0, sizeof f->hash_ids);
    }
}

static void tick(struct fetch *f)
{
    for (uint32_t i = 0; i < f->n_peers; i++) {
        struct peer *p = &f->peers[i];
        if (!p->lost && !p->link && p->dial_at_ms && now_ms() >= p->dial_at_ms)
            dial(f, p);
        if (!p->lost && !p->up && p->away_since_ms && now_ms() - p->away_since_ms > FETCH_PATIENCE_MS) {
            char why[sizeof f->why];
            snprintf(why, sizeof why, "%s", f->why[0] ? f->why : "it does not answer");
            lose(f, p, why);
        }
    }
}

/* --- asking ------------------------------------------------------------------------------------------------------------------- */

static void send_wishes(struct fetch *f)
{
    for (unsigned k = 0; k < MAX_WISHES; k++) {
        struct wish *w = &f->wishes[k];
        struct peer *p = &f->peers[w->peer];
        struct msg m = {.type = MSG_WEIGHTS_GET};
        if (!w->used || w->sent || !p->up)
            continue;
        w->id = ++f->next_id;
        m.weights_get = (struct msg_weights_get){.id = w->id, .split = w->split, .header = w->header, .offset = w->header ? 0 : w->offset + w->have,
                                                 .bytes = w->header ? 0 : w->bytes - w->have};
        memcpy(m.weights_get.model, f->model, sizeof f->model);
        if (w->header)
            f->header_have = 0;
        w->sent = wire_send_msg(p->link, &m, NULL, 0, NULL, NULL, NULL) == WIRE_SENT;
    }
}

static bool hash_peer(struct fetch *f)
{
    for (uint32_t i = 0; i < f->n_peers; i++)
        if (!f->peers[i].lost) {
            f->hash_peer = i;
            return f->peers[i].up;
        }
    return false;
}

/* Asks for the hashes that are needed next. Each by itself: a server that is sending the chunk's bytes answers after the last of them. */
static void ask_hashes(struct fetch *f)
{
    if (f->asked >= f->n_needs || !hash_peer(f))
        return;
    for (unsigned k = 0; k < HASH_AHEAD && f->asked < f->n_needs; k++) {
        const struct need *need = &f->needs[f->asked];
        struct msg m = {.type = MSG_MANIFEST_GET};
        if (f->hash_ids[k])
            continue;
        m.manifest_get = (struct msg_manifest_get){.id = ++f->next_id, .split = need->split, .first_chunk = need->chunk, .n_chunks = 1,
                                                   .hash = (enum msg_hash)manifest_kind(f->manifest)};
        memcpy(m.manifest_get.model, f->model, sizeof f->model);
        if (wire_send_msg(f->peers[f->hash_peer].link, &m, NULL, 0, NULL, NULL, NULL) != WIRE_SENT)
            return;
        f->hash_ids[k] = f->next_id;
        f->hash_needs[k] = f->asked++;
    }
}

/* --- what comes ----------------------------------------------------------------------------------------------------------------- */

/* Bytes of the header of the split that is awaited. */
static int take_header(struct fetch *f, struct wish *w, const struct msg_weights_put *m, const uint8_t *payload)
{
    uint32_t s = w->split;
    if (m->offset != f->header_have || m->total_bytes > FETCH_MAX_HEADER || m->total_bytes == 0)
        return -1;
    if (m->offset == 0) {
        free(f->headers[s]);
        f->header_bytes[s] = (size_t)m->total_bytes;
        if (!(f->headers[s] = mem_new(f->header_bytes[s], 1, NULL)))
            return -1;
    }
    if (m->total_bytes != f->header_bytes[s] || m->bytes > f->header_bytes[s] - f->header_have)
        return -1;
    memcpy(f->headers[s] + f->header_have, payload, m->bytes);
    f->header_have += m->bytes;
    if (f->header_have == f->header_bytes[s]) {
        w->used = false;
        f->header_done = true;
        pthread_cond_broadcast(&f->changed);
    }
    return 0;
}

static void take_bytes(struct fetch *f, struct peer *p, const struct msg_weights_put *m, const uint8_t *payload)
{
    struct wish *w = NULL;
    for (unsigned k = 0; k < MAX_WISHES && !w; k++)
        if (f->wishes[k].used && f->wishes[k].sent && f->wishes[k].id == m->id && &f->peers[f->wishes[k].peer] == p)
            w = &f->wishes[k];
    if (!w)
        return; /* nobody waits any more */
    if (m->error[0]) {
        lose(f, p, m->error);
        return;
    }
    if (w->header ? take_header(f, w, m, payload) != 0 : m->offset != w->offset + w->have || m->bytes > w->bytes - w->have || m->bytes == 0) {
        lose(f, p, "it sent bytes that were not asked for");
        return;
    }
    if (w->header)
        return;
    struct weight_source *source = f->source;
    uint64_t chunk = w->chunk, at = w->have;
    w->have += m->bytes;
    w->used = w->have < w->bytes;
    pthread_mutex_unlock(&f->lock);
    if (source)
        source_remote_deliver(source, chunk, (uint32_t)at, payload, m->bytes);
    pthread_mutex_lock(&f->lock);
}

static void take_hashes(struct fetch *f, struct peer *p, const struct msg_manifest_put *m)
{
    struct err err = {0};
    unsigned k = 0;
    while (k < HASH_AHEAD && f->hash_ids[k] != m->id)
        k++;
    if (k == HASH_AHEAD || m->id == 0 || &f->peers[f->hash_peer] != p)
        return;
    const struct need *need = &f->needs[f->hash_needs[k]];
    if (m->error[0] || m->n_hashes != 1 || m->split != need->split || m->first_chunk != need->chunk || (enum manifest_kind)m->hash != manifest_kind(f->manifest)) {
        lose(f, p, m->error[0] ? m->error : "it sent hashes that were not asked for");
        return;
    }
    if (f->source && source_remote_hash(f->source, m->split, m->first_chunk, m->hashes[0], &err) != 0) {
        lose(f, p, err.text);
        return;
    }
    f->hash_ids[k] = 0;
    f->known = f->asked; /* up to the first that is still under way */
    for (k = 0; k < HASH_AHEAD; k++)
        if (f->hash_ids[k] && f->hash_needs[k] < f->known)
            f->known = f->hash_needs[k];
}

static void take_frame(struct fetch *f, struct peer *p, struct wire_frame *frame)
{
    struct msg m;
    struct err err;
    if (p->lost)
        return;
    if (codec_decode(f->codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err) != 0)
        lose(f, p, err.text);
    else if (m.type == MSG_WEIGHTS_PUT)
        take_bytes(f, p, &m.weights_put, frame->payload);
    else if (m.type == MSG_MANIFEST_PUT)
        take_hashes(f, p, &m.manifest_put);
    else
        lose(f, p, "it sent a message that nobody asked for");
}

static void take_event(struct fetch *f, struct wire_event *e)
{
    struct peer *p = wire_link_user(e->link);
    switch (e->kind) {
    case WIRE_UP:
        p->up = true;
        p->away_since_ms = 0;
        p->hashes = wire_link_protocol(p->link) >= PROTOCOL_BLAKE3 ? MANIFEST_BLAKE3 : MANIFEST_BLAKE2B;
        if (f->manifest && p->hashes < manifest_kind(f->manifest))
            lose(f, p, "it speaks an older protocol than those that the load began with");
        pthread_cond_broadcast(&f->changed);
        return;
    case WIRE_DOWN: link_down(f, p, e->text); return;
    case WIRE_FRAME:
        take_frame(f, p, e->frame);
        wire_frame_release(e->frame);
        return;
    default: return;
    }
}

static void *loop(void *arg)
{
    struct fetch *f = arg;
    struct wire_event e;
    struct err err;

    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        tick(f);
        send_wishes(f);
        ask_hashes(f);
        pthread_mutex_unlock(&f->lock);
        int rc = wire_poll(f->wire, TICK_MS, NULL, 0, &e, &err);
        pthread_mutex_lock(&f->lock);
        if (rc > 0 && e.link)
            take_event(f, &e);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* --- the loader's side ------------------------------------------------------------------------------------------------------- */

static int ask(void *arg, const struct remote_request *r)
{
    struct fetch *f = arg;
    int rc = -1;
    pthread_mutex_lock(&f->lock);
    for (unsigned k = 0; k < MAX_WISHES && rc != 0 && !f->peers[f->peer_of_source[r->peer]].lost; k++)
        if (!f->wishes[k].used) {
            f->wishes[k] = (struct wish){.used = true, .chunk = r->id, .peer = f->peer_of_source[r->peer], .split = r->split,
                                         .offset = r->offset, .bytes = r->bytes};
            rc = 0;
        }
    pthread_mutex_unlock(&f->lock);
    wire_wake(f->wire);
    return rc;
}

static void need(void *arg, uint32_t split, uint32_t chunk)
{
    struct fetch *f = arg;
    pthread_mutex_lock(&f->lock);
    if (mem_grow(&f->needs, &f->needs_cap, f->n_needs + 1, sizeof *f->needs, MANIFEST_MAX_CHUNKS, "chunks", NULL) == 0)
        f->needs[f->n_needs++] = (struct need){split, chunk};
    pthread_mutex_unlock(&f->lock);
    wire_wake(f->wire);
}

static void wait_change(struct fetch *f, int64_t until_ms)
{
    struct timespec t = {until_ms / 1000, (long)(until_ms % 1000) * 1000000};
    pthread_cond_timedwait(&f->changed, &f->lock, &t);
}

/* Until all are up or lost, or the time for it is over and one is up. -1: nobody is. */
static int wait_peers(struct fetch *f, struct err *err)
{
    for (;;) {
        uint32_t up = 0, lost = 0;
        for (uint32_t i = 0; i < f->n_peers; i++) {
            up += f->peers[i].up;
            lost += f->peers[i].lost;
        }
        if (f->cancelled)
            return err_set(err, ERR_CANCELLED, "loading was cancelled");
        if (up + lost == f->n_peers || (up && now_ms() - f->began_ms > FETCH_BEGIN_MS))
            return up ? 0 : err_set(err, ERR_IO, "no node that has the model can be reached (%s)", f->why);
        wait_change(f, now_ms() + TICK_MS);
    }
}

/* One split's header from one peer. */
static int one_header(struct fetch *f, uint32_t peer, uint32_t split, struct err *err)
{
    int64_t until = now_ms() + FETCH_HEADER_MS;
    f->header_done = f->header_refused = false;
    f->wishes[0] = (struct wish){.used = true, .header = true, .peer = peer, .split = split};
    wire_wake(f->wire);
    while (!f->header_done && !f->header_refused && !f->cancelled && now_ms() < until)
        wait_change(f, until);
    f->wishes[0].used = false;
    if (f->cancelled)
        return err_set(err, ERR_CANCELLED, "loading was cancelled");
    return f->header_done ? 0 : err_set(err, ERR_IO, "the model's header did not come (%s)", f->header_refused ? f->why : "time is over");
}

/* Splits are asked for until what came is the model: how many there are stands in them. */
static int all_headers(struct fetch *f, uint32_t peer, struct err *err)
{
    struct gguf_bytes bytes[GGUF_MAX_SPLITS];
    uint8_t id[MSG_ID_BYTES];
    for (uint32_t n = 1; n <= GGUF_MAX_SPLITS; n++) {
        if (one_header(f, peer, n - 1, err) != 0)
            return -1;
        bytes[n - 1] = (struct gguf_bytes){f->headers[n - 1], f->header_bytes[n - 1]};
        if (!(f->gguf = gguf_open_headers(bytes, n, err)))
            continue;
        gguf_model_id(f->gguf, id);
        if (memcmp(id, f->model, sizeof id) == 0)
            return 0;
        gguf_close(f->gguf);
        f->gguf = NULL;
        return err_set(err, ERR_INPUT, "%s sent the header of another model", f->peers[peer].who.name);
    }
    return -1;
}

struct gguf *fetch_header(struct fetch *f, struct err *err)
{
    pthread_mutex_lock(&f->lock);
    if (wait_peers(f, err) == 0)
        for (uint32_t i = 0; i < f->n_peers && !f->gguf && !f->cancelled; i++)
            if (f->peers[i].up && !f->peers[i].lost)
                all_headers(f, i, err);
    pthread_mutex_unlock(&f->lock);
    return f->gguf;
}

/* With the hashes that all who are up can give: any of them may have to. */
static int make_manifest(struct fetch *f, struct err *err)
{
    enum manifest_kind kind = MANIFEST_BLAKE3;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->n_peers; i++)
        if (f->peers[i].up && !f->peers[i].lost && f->peers[i].hashes < kind)
            kind = f->peers[i].hashes;
    f->manifest = manifest_create(f->gguf, kind, err);
    pthread_mutex_unlock(&f->lock);
    return f->manifest ? 0 : -1;
}

struct weight_source *fetch_source(struct fetch *f, struct chunk_cache *cache, struct source_report *report, struct err *err)
{
    const char *names[MSG_MAX_SOURCES];
    struct source_remote_config c = {.peers = names, .ask = ask, .need = need, .arg = f};
    struct err why;

    if (make_manifest(f, err) != 0)
        return NULL;
    if (cache && cache_use(cache, f->manifest, &why) == 0)
        f->cache = cache;
    else if (cache)
        source_note(report, "nothing is cached: %.150s", why.text);
    c.cache = f->cache;
    c.manifest = f->manifest;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->n_peers; i++) {
        f->source_peer[i] = UINT32_MAX;
        if (f->peers[i].lost || !f->peers[i].up)
            continue;
        f->peer_of_source[c.n_peers] = i;
        f->source_peer[i] = c.n_peers;
        names[c.n_peers++] = f->peers[i].who.name;
    }
    if (c.n_peers == 0)
        err_set(err, ERR_IO, "no node that has the model can be reached (%s)", f->why);
    else
        f->source = source_remote_create(&c, err);
    pthread_mutex_unlock(&f->lock);
    return f->source;
}

void fetch_cancel(struct fetch *f)
{
    pthread_mutex_lock(&f->lock);
    f->cancelled = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* --- life ---------------------------------------------------------------------------------------------------------------------- */

struct fetch *fetch_create(struct wire_net *net, const uint8_t *model, const struct fetch_node *nodes, size_t n, struct err *err)
{
    struct fetch *f = mem_new(1, sizeof *f, err);
    pthread_condattr_t attr;
    if (!f)
        return NULL;
    memcpy(f->model, model, sizeof f->model);
    f->began_ms = now_ms();
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &attr);
    pthread_condattr_destroy(&attr);
    for (size_t i = 0; i < n && f->n_peers < MSG_MAX_SOURCES; i++)
        if (nodes[i].address[0])
            f->peers[f->n_peers++] = (struct peer){.who = nodes[i], .dial_at_ms = 1, .away_since_ms = now_ms()};
    if (!(f->codec = codec_create(CODEC_SMALL_BYTES, err)) || !(f->wire = wire_create(net, err)))
        goto error;
    int rc = pthread_create(&f->thread, NULL, loop, f);
    if (rc != 0) {
        err_errno(err, rc, "starting the thread that fetches weights");
        goto error;
    }
    f->started = true;
    return f;
error:
    fetch_destroy(f);
    return NULL;
}

void fetch_destroy(struct fetch *f)
{
    if (!f)
        return;
    if (f->started) {
        pthread_mutex_lock(&f->lock);
        f->stopping = true;
        pthread_mutex_unlock(&f->lock);
        wire_wake(f->wire);
        pthread_join(f->thread, NULL);
    }
    weight_source_destroy(f->source);
    if (f->cache)
        cache_leave(f->cache);
    wire_destroy(f->wire);
    codec_destroy(f->codec);
    gguf_close(f->gguf);
    manifest_destroy(f->manifest);
    for (uint32_t i = 0; i < GGUF_MAX_SPLITS; i++)
        free(f->headers[i]);
    free(f->needs);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
