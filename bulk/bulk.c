/* See bulk.h. A guest is a link; its requests are two lists, bytes and hashes, each worked off in order by a thread. Pieces go
 * through the guest's list to the wire, which frees them: until then they count against BULK_PIECES.
 *
 * A chunk that is asked for whole and was not hashed yet is hashed as its pieces are read: memory is what a load is short of, and a
 * piece is still in the processor's caches then. A guest's request for that hash waits meanwhile. */
#include "bulk/bulk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/blake3.h"
#include "base/log.h"
#include "base/mem.h"
#include "bulk/hashes.h"
#include "gguf/manifest.h"
#include "proto/codec.h"

enum { KINDS = 2, SPARE_PIECES = BULK_PIECES, HASH_PIECES = 2 /* beside those of bytes */ };
enum kind { BYTES, HASHES };

struct job {
    struct job *next;
    uint64_t id, offset, left, total;
    uint32_t split, first_chunk, n_chunks;
    enum msg_hash hash;
    bool header;
    bool along; /* bytes: they may be a chunk, first_chunk, that is hashed as it is read; written under the lock */
    uint8_t model[MSG_ID_BYTES];
};

struct guest;

struct piece {
    struct piece *next;
    struct guest *guest;
    struct msg msg;
    char error[MSG_MAX_TEXT + 1];
    uint32_t len;
    uint8_t bytes[MSG_MAX_PIECE]; /* payload, or hashes */
};
_Static_assert((int)MSG_MAX_PIECE == (int)BLAKE3_PART_BYTES, "a piece is hashed as one part");
_Static_assert(MSG_MAX_MANIFEST * MSG_ID_BYTES <= MSG_MAX_PIECE, "hashes fit where a piece fits");

struct guest {
    struct bulk *bulk;
    struct wire_link *link; /* NULL: gone; freed once the wire has freed its pieces */
    struct job *first[KINDS], **last[KINDS];
    unsigned n_jobs, n_pieces;
    bool busy[KINDS]; /* a thread is at its first job */
    bool blocked;
    struct piece *out, **out_last;
    struct blake3_parts parts; /* of the first job of bytes, if it is hashed along */
};

struct bulk {
    struct bulk_options o;
    struct codec *codec;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t threads[KINDS];
    unsigned n_threads;
    bool stopping;
    unsigned refs; /* 1, and one for each piece in the wire */
    struct piece *spare; /* used again, while there are guests: fresh memory costs about as much as encrypting what is put there */
    unsigned n_spare;
    struct hashes hashes;
    struct guest *guests[BULK_GUESTS];
    size_t turn[KINDS];
};

/* A model that a thread has open. */
struct open_model {
    uint8_t id[MSG_ID_BYTES];
    struct gguf *gguf;
    int fd;
    uint32_t fd_split;
    uint8_t *chunk; /* room for one, once it is needed */
};

/* --- life; under the lock -------------------------------------------------------------------------------------------------- */

static void free_rooms(struct bulk *b)
{
    for (struct piece *p; (p = b->spare); free(p))
        b->spare = p->next;
    b->n_spare = 0;
}

/* Not cleared. */
static struct piece *take_piece(struct bulk *b)
{
    struct piece *p = b->spare;
    if (!p)
        return malloc(sizeof *p);
    b->spare = p->next;
    b->n_spare--;
    return p;
}

static void drop_piece(struct bulk *b, struct piece *p)
{
    if (!p || b->n_spare >= SPARE_PIECES) {
        free(p);
        return;
    }
    p->next = b->spare;
    b->spare = p;
    b->n_spare++;
}

static void drop_core(struct bulk *b)
{
    free_rooms(b);
    hashes_fini(&b->hashes);
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* What was ready for a guest that is gone. */
static void drop_out(struct guest *g)
{
    for (struct piece *p; (p = g->out); g->n_pieces--) {
        g->out = p->next;
        drop_piece(g->bulk, p);
    }
}

static void free_guest(struct guest *g)
{
    for (int k = 0; k < KINDS; k++)
        for (struct job *j; (j = g->first[k]); free(j))
            g->first[k] = j->next;
    drop_out(g);
    free(g);
}

static bool any_guest(const struct bulk *b)
{
    for (size_t i = 0; i < BULK_GUESTS; i++)
        if (b->guests[i])
            return true;
    return false;
}

/* Takes it off the list; it is freed when nobody holds it. */
static void try_forget(struct bulk *b, struct guest *g)
{
    if (g->link || g->n_pieces || g->busy[BYTES] || g->busy[HASHES])
        return;
    for (size_t i = 0; i < BULK_GUESTS; i++)
        if (b->guests[i] == g)
            b->guests[i] = NULL;
    free_guest(g);
    if (!any_guest(b)) {
        free_rooms(b);
        pthread_cond_broadcast(&b->changed); /* keep_hashes */
    }
}

/* From the wire's threads. */
static void sent(void *payload, void *hint)
{
    struct piece *p = hint;
    struct guest *g;
    struct bulk *b;

    (void)payload;
    wire_handed_back();
    g = p->guest;
    b = g->bulk;
    pthread_mutex_lock(&b->lock);
    g->n_pieces--;
    drop_piece(b, p);
    try_forget(b, g);
    pthread_cond_broadcast(&b->changed);
    bool last = --b->refs == 0;
    pthread_mutex_unlock(&b->lock);
    if (last)
        drop_core(b);
}

static struct guest *find(struct bulk *b, const struct wire_link *link)
{
    for (size_t i = 0; i < BULK_GUESTS; i++)
        if (b->guests[i] && b->guests[i]->link == link)
            return b->guests[i];
    return NULL;
}

/* --- the threads' work ------------------------------------------------------------------------------------------------------ */

static int open_model(struct bulk *b, struct open_model *m, const uint8_t *id, struct err *err)
{
    if (m->gguf && memcmp(m->id, id, sizeof m->id) == 0)
        return 0;
    gguf_close(m->gguf);
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
    memcpy(m->id, id, sizeof m->id);
    if (!(m->gguf = b->o.open(b->o.arg, id, err)))
        return -1;
    struct manifest *kept = hashes_read(&b->hashes, m->id, m->gguf);
    pthread_mutex_lock(&b->lock);
    hashes_put(&b->hashes, m->id, m->gguf, kept);
    pthread_mutex_unlock(&b->lock);
    return 0;
}

static int check_split(const struct gguf *g, uint32_t split, struct err *err)
{
    if (split < gguf_n_splits(g))
        return 0;
    return err_set(err, ERR_INPUT, "split %" PRIu32 " was asked for, the model has %" PRIu32, split, gguf_n_splits(g));
}

static int open_split(struct open_model *m, uint32_t split, struct err *err)
{
    if (m->fd >= 0 && m->fd_split == split)
        return 0;
    if (m->fd >= 0)
        close(m->fd);
    m->fd = open(gguf_split_path(m->gguf, split), O_RDONLY | O_CLOEXEC);
    m->fd_split = split;
    return m->fd >= 0 ? 0 : err_errno(err, errno, "opening the model's split %" PRIu32, split);
}

static int read_bytes(struct open_model *m, const struct job *j, uint8_t *to, uint32_t n, struct err *err)
{
    struct gguf_stamp now, then = gguf_split_stamp(m->gguf, j->split);
    if (j->offset + j->left > gguf_split_bytes(m->gguf, j->split))
        return err_set(err, ERR_INPUT, "bytes %" PRIu64 " to %" PRIu64 " were asked for, the file here has %" PRIu64, j->offset,
                       j->offset + j->left, gguf_split_bytes(m->gguf, j->split));
    if (open_split(m, j->split, err) != 0)
        return -1;
    for (uint32_t done = 0; done < n;) {
        ssize_t got = pread(m->fd, to + done, n - done, (off_t)(j->offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? err_errno(err, errno, "reading the model") : err_set(err, ERR_INPUT, "the model's file was cut");
        done += (uint32_t)got;
    }
    if (gguf_stamp_of(m->fd, &now, err) != 0)
        return -1;
    return gguf_stamp_same(&now, &then) ? 0 : err_set(err, ERR_INPUT, "the model's file was changed since its header was read");
}

_Static_assert((int)MSG_HASH_BLAKE2B == (int)MANIFEST_BLAKE2B && (int)MSG_HASH_BLAKE3 == (int)MANIFEST_BLAKE3, "one list of hashes");

/* A job of bytes begins: are they a whole chunk, of which the hash is not known? */
static void begin_along(struct bulk *b, const struct open_model *m, struct guest *g, struct job *j)
{
    pthread_mutex_lock(&b->lock);
    const struct manifest *known = hashes_of(&b->hashes, m->id, m->gguf, MANIFEST_BLAKE3, NULL);
    j->along = known && j->total == manifest_chunk_bytes(known, j->split, j->first_chunk) && !manifest_hash(known, j->split, j->first_chunk);
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    blake3_begin(&g->parts, j->total);
}

static int make_known(struct bulk *b, const struct open_model *m, enum manifest_kind kind, uint32_t split, uint32_t chunk, const uint8_t *hash,
                      struct err *err)
{
    pthread_mutex_lock(&b->lock);
    int rc = hashes_set(&b->hashes, m->id, m->gguf, kind, split, chunk, hash, err);
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static int end_along(struct bulk *b, const struct open_model *m, struct guest *g, const struct job *j, struct err *err)
{
    uint8_t hash[MANIFEST_HASH_BYTES];
    blake3_end(&g->parts, hash);
    return make_known(b, m, MANIFEST_BLAKE3, j->split, j->first_chunk, hash, err);
}

/* The next piece of a job of bytes into p. */
static int make_bytes(struct bulk *b, struct open_model *m, struct guest *g, struct job *j, struct piece *p, struct err *err)
{
    size_t header_bytes;
    if (open_model(b, m, j->model, err) != 0 || check_split(m->gguf, j->split, err) != 0)
        return -1;
    const uint8_t *header = gguf_split_header(m->gguf, j->split, &header_bytes);
    if (j->header && j->total == 0) {
        j->offset = 0;
        j->left = j->total = header_bytes;
    }
    if (j->along && j->left == j->total)
        begin_along(b, m, g, j);
    p->len = j->left < MSG_MAX_PIECE ? (uint32_t)j->left : MSG_MAX_PIECE;
    if (j->header)
        memcpy(p->bytes, header + j->offset, p->len);
    else if (read_bytes(m, j, p->bytes, p->len, err) != 0)
        return -1;
    if (j->along)
        blake3_part(&g->parts, p->bytes, p->len);
    if (j->along && p->len == j->left && end_along(b, m, g, j, err) != 0)
        return -1;
    p->msg.weights_put = (struct msg_weights_put){.id = j->id, .offset = j->offset, .bytes = p->len, .last = j->left == p->len,
                                                  .total_bytes = j->total, .error = ""};
    j->offset += p->len;
    j->left -= p->len;
    return 0;
}

/* Under the lock. */
static bool is_known(const struct bulk *b, const struct job *j, uint32_t chunk, uint8_t *ret)
{
    return hashes_get(&b->hashes, j->model, (enum manifest_kind)j->hash, j->split, chunk, ret);
}

/* By reading it. */
static int hash_chunk(struct bulk *b, struct open_model *m, const struct job *j, uint32_t chunk, uint8_t *ret, struct err *err)
{
    enum manifest_kind kind = (enum manifest_kind)j->hash;
    uint32_t len;
    if ((!m->chunk && !(m->chunk = mem_new(MANIFEST_CHUNK_BYTES, 1, err))) || manifest_read_chunk(m->gguf, j->split, chunk, m->chunk, &len, err) != 0)
        return -1;
    manifest_hash_bytes(kind, m->chunk, len, ret);
    return make_known(b, m, kind, j->split, chunk, ret, err);
}

static int make_hashes(struct bulk *b, struct open_model *m, struct job *j, struct piece *p, struct err *err)
{
    if (open_model(b, m, j->model, err) != 0 || check_split(m->gguf, j->split, err) != 0)
        return -1;
    pthread_mutex_lock(&b->lock);
    int rc = hashes_of(&b->hashes, m->id, m->gguf, (enum manifest_kind)j->hash, err) ? 0 : -1;
    pthread_mutex_unlock(&b->lock);
    if (rc != 0)
        return -1;
    for (uint32_t i = 0; i < j->n_chunks; i++) {
        uint8_t *hash = p->bytes + (size_t)i * MSG_ID_BYTES;
        pthread_mutex_lock(&b->lock);
        bool known = is_known(b, j, j->first_chunk + i, hash);
        pthread_mutex_unlock(&b->lock);
        if (!known && hash_chunk(b, m, j, j->first_chunk + i, hash, err) != 0)
            return -1;
    }
    p->msg.manifest_put = (struct msg_manifest_put){.id = j->id, .split = j->split, .first_chunk = j->first_chunk,
                                                    .chunk_bytes = MANIFEST_CHUNK_BYTES, .split_bytes = gguf_split_implied_bytes(m->gguf, j->split),
                                                    .hashes = (const uint8_t(*)[MSG_ID_BYTES])p->bytes, .n_hashes = j->n_chunks, .error = "", .hash = j->hash};
    j->left = 0;
    return 0;
}

/* A whole answer or a piece of one, without the lock. */
static void work_on(struct bulk *b, struct open_model *m, enum kind kind, struct guest *g, struct job *j, struct piece *p)
{
    struct err err;
    p->next = NULL;
    p->len = 0;
    p->msg = (struct msg){.type = kind == BYTES ? MSG_WEIGHTS_PUT : MSG_MANIFEST_PUT};
    if ((kind == BYTES ? make_bytes(b, m, g, j, p, &err) : make_hashes(b, m, j, p, &err)) == 0)
        return;
    p->len = 0;
    j->left = 0;
    err_printable(p->error, sizeof p->error, err.text, strlen(err.text));
    if (kind == BYTES)
        p->msg.weights_put = (struct msg_weights_put){.id = j->id, .last = true, .error = p->error};
    else
        p->msg.manifest_put = (struct msg_manifest_put){.id = j->id, .split = j->split, .first_chunk = j->first_chunk, .error = p->error};
}

/* Bytes that this guest asked for will make a hash of job j. */
static bool is_coming(const struct bulk *b, const struct guest *g, const struct job *j)
{
    if (j->hash != MSG_HASH_BLAKE3)
        return false;
    for (const struct job *k = g->first[BYTES]; k; k = k->next) {
        if (k->along && k->split == j->split && k->first_chunk >= j->first_chunk && k->first_chunk - j->first_chunk < j->n_chunks &&
            memcmp(k->model, j->model, sizeof k->model) == 0 && !is_known(b, j, k->first_chunk, NULL))
            return true;
    }
    return false;
}

/* Its first job of a kind can be worked on now: there is room for the answer. */
static bool is_ready(const struct bulk *b, const struct guest *g, enum kind kind)
{
    const struct job *j = g->first[kind];
    if (!j || g->n_pieces >= BULK_PIECES + (kind == HASHES ? HASH_PIECES : 0))
        return false;
    return kind == BYTES || !is_coming(b, g, j);
}

/* The next guest in turn for whom there is something to do. */
static struct guest *next_guest(struct bulk *b, enum kind kind)
{
    for (size_t i = 0; i < BULK_GUESTS; i++) {
        struct guest *g = b->guests[(b->turn[kind] + i) % BULK_GUESTS];
        if (g && g->link && is_ready(b, g, kind)) {
            b->turn[kind] = (b->turn[kind] + i + 1) % BULK_GUESTS;
            return g;
        }
    }
    return NULL;
}

/* Hashes go first: what they are of is there already. */
static void add_out(struct guest *g, struct piece *p, bool first)
{
    if (first) {
        p->next = g->out;
        g->out = p;
        if (!p->next)
            g->out_last = &p->next;
    } else {
        *g->out_last = p;
        g->out_last = &p->next;
    }
}

static void serve_one(struct bulk *b, struct open_model *m, enum kind kind, struct guest *g)
{
    struct job *j = g->first[kind];
    g->busy[kind] = true;
    g->n_pieces++;
    struct piece *p = take_piece(b); /* NULL: out of memory, the job is dropped */
    pthread_mutex_unlock(&b->lock);
    if (p)
        work_on(b, m, kind, g, j, p);
    pthread_mutex_lock(&b->lock);
    g->busy[kind] = false;
    if (!p || j->left == 0) {
        if (!(g->first[kind] = j->next))
            g->last[kind] = &g->first[kind];
        g->n_jobs--;
        if (j->along)
            pthread_cond_broadcast(&b->changed); /* whoever waited for its hash */
        free(j);
    }
    if (p && g->link) {
        p->guest = g;
        add_out(g, p, kind == HASHES);
    } else {
        g->n_pieces--;
        drop_piece(b, p);
        try_forget(b, g);
    }
}

/* Hashes to the disk, once nobody is served. Under the lock; true: it was left meanwhile. */
static bool keep_hashes(struct bulk *b)
{
    struct hashes_model copy;
    struct err err;
    bool left = false;
    for (; hashes_unwritten(&b->hashes, &copy); left = true) {
        pthread_mutex_unlock(&b->lock);
        struct gguf *g = b->o.open(b->o.arg, manifest_model_id(copy.manifest), &err);
        if (!g)
            hashes_drop(&copy);
        else if (hashes_write(&b->hashes, &copy, g, &err) != 0)
            log_line(LOG_WARN, "the hashes of the model's chunks are not kept, the next start makes them again: %s", err.text);
        gguf_close(g);
        pthread_mutex_lock(&b->lock);
    }
    return left;
}

static void serve(struct bulk *b, enum kind kind)
{
    struct open_model m = {.fd = -1};
    struct guest *g;

    pthread_mutex_lock(&b->lock);
    while (!b->stopping) {
        if (!(g = next_guest(b, kind))) {
            if (kind != HASHES || any_guest(b) || !keep_hashes(b))
                pthread_cond_wait(&b->changed, &b->lock);
            continue;
        }
        serve_one(b, &m, kind, g);
        pthread_mutex_unlock(&b->lock);
        b->o.wake(b->o.wake_arg);
        pthread_mutex_lock(&b->lock);
    }
    if (kind == HASHES)
        keep_hashes(b);
    pthread_mutex_unlock(&b->lock);
    gguf_close(m.gguf);
    if (m.fd >= 0)
        close(m.fd);
    free(m.chunk);
}

static void *serve_bytes(void *arg)
{
    serve(arg, BYTES);
    return NULL;
}

static void *serve_hashes(void *arg)
{
    serve(arg, HASHES);
    return NULL;
}

/* --- the wire's side --------------------------------------------------------------------------------------------------------- */

void bulk_up(struct bulk *b, struct wire_link *link)
{
    struct guest *g = NULL;
    size_t i = 0;

    pthread_mutex_lock(&b->lock);
    while (i < BULK_GUESTS && b->guests[i])
        i++;
    if (i < BULK_GUESTS && (g = mem_new(1, sizeof *g, NULL))) {
        g->bulk = b;
        g->link = link;
        for (int k = 0; k < KINDS; k++)
            g->last[k] = &g->first[k];
        g->out_last = &g->out;
        b->guests[i] = g;
    }
    pthread_mutex_unlock(&b->lock);
    if (!g)
        wire_link_close(link, "too many ask for weights already; try again later");
}

void bulk_down(struct bulk *b, struct wire_link *link)
{
    pthread_mutex_lock(&b->lock);
    struct guest *g = find(b, link);
    if (g) {
        g->link = NULL;
        drop_out(g);
        try_forget(b, g);
    }
    pthread_mutex_unlock(&b->lock);
}

/* -1: more than is allowed. */
static int add_job(struct bulk *b, struct wire_link *link, enum kind kind, const struct job *from)
{
    struct job *j = mem_new(1, sizeof *j, NULL);
    struct guest *g;
    bool good = false;

    pthread_mutex_lock(&b->lock);
    if (j && (g = find(b, link)) && g->n_jobs < BULK_JOBS) {
        *j = *from;
        *g->last[kind] = j;
        g->last[kind] = &j->next;
        g->n_jobs++;
        good = true;
        pthread_cond_broadcast(&b->changed);
    }
    pthread_mutex_unlock(&b->lock);
    if (!good)
        free(j);
    return good ? 0 : -1;
}

static void keep(void *payload, void *hint)
{
    (void)payload;
    (void)hint;
}

/* The same zeros for everybody: however many answers wait, they take no memory. */
static void echo(struct wire_link *link, const struct msg_probe *probe)
{
    static uint8_t zeros[MSG_MAX_PROBE];
    struct msg m = {.type = MSG_PROBE_ECHO, .probe_echo = {.id = probe->id, .now_us = probe->now_us, .bytes = probe->answer_bytes}};
    bool any = probe->answer_bytes > 0;
    wire_send_msg(link, &m, any ? zeros : NULL, probe->answer_bytes, any ? keep : NULL, NULL, NULL);
}

void bulk_frame(struct bulk *b, struct wire_link *link, struct wire_frame *frame)
{
    struct job job = {0};
    struct msg m;
    struct err err;
    int rc = codec_decode(b->codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err);

    if (rc == 0 && m.type == MSG_WEIGHTS_GET) {
        job = (struct job){.id = m.weights_get.id, .split = m.weights_get.split, .header = m.weights_get.header, .offset = m.weights_get.offset,
                           .left = m.weights_get.header ? 1 : m.weights_get.bytes, .total = m.weights_get.header ? 0 : m.weights_get.bytes};
        job.first_chunk = (uint32_t)(job.offset / MANIFEST_CHUNK_BYTES);
        job.along = !job.header && job.left > 0 && job.left <= MANIFEST_CHUNK_BYTES && job.offset % MANIFEST_CHUNK_BYTES == 0;
        memcpy(job.model, m.weights_get.model, sizeof job.model);
        rc = add_job(b, link, BYTES, &job);
    } else if (rc == 0 && m.type == MSG_MANIFEST_GET) {
        job = (struct job){.id = m.manifest_get.id, .split = m.manifest_get.split, .first_chunk = m.manifest_get.first_chunk,
                           .n_chunks = m.manifest_get.n_chunks, .hash = m.manifest_get.hash, .left = 1};
        memcpy(job.model, m.manifest_get.model, sizeof job.model);
        rc = add_job(b, link, HASHES, &job);
    } else if (rc == 0 && m.type == MSG_PROBE) {
        echo(link, &m.probe);
    } else if (rc == 0) {
        rc = -1;
    }
    if (rc != 0) {
        bulk_down(b, link);
        wire_link_close(link, "a request that makes no sense, or more of them than are allowed at once");
    }
    wire_frame_release(frame);
}

void bulk_writable(struct bulk *b, struct wire_link *link)
{
    pthread_mutex_lock(&b->lock);
    struct guest *g = find(b, link);
    if (g)
        g->blocked = false;
    pthread_mutex_unlock(&b->lock);
    bulk_pump(b);
}

/* One piece to the wire, without the lock. */
static enum wire_sent send_piece(struct wire_link *link, struct piece *p)
{
    bool bytes = p->msg.type == MSG_WEIGHTS_PUT && p->len > 0;
    enum wire_sent rc = wire_send_msg(link, &p->msg, bytes ? p->bytes : NULL, bytes ? p->len : 0, bytes ? sent : NULL, bytes ? p : NULL, NULL);
    if (rc == WIRE_FAILED || (rc == WIRE_SENT && !bytes))
        sent(NULL, p);
    return rc;
}

void bulk_pump(struct bulk *b)
{
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < BULK_GUESTS; i++) {
        struct guest *g;
        struct piece *p;
        while ((g = b->guests[i]) && g->link && !g->blocked && (p = g->out)) {
            if (!(g->out = p->next))
                g->out_last = &g->out;
            p->next = NULL;
            b->refs++;
            struct wire_link *link = g->link;
            pthread_mutex_unlock(&b->lock);
            enum wire_sent rc = send_piece(link, p);
            pthread_mutex_lock(&b->lock);
            if (rc == WIRE_BLOCKED) { /* nothing was taken: it is the first again */
                b->refs--;
                g->blocked = true;
                add_out(g, p, true);
            }
        }
    }
    pthread_mutex_unlock(&b->lock);
}

/* --- from outside ------------------------------------------------------------------------------------------------------------ */

const char *bulk_hashes_dir(const struct keys *keys, char path[BULK_PATH])
{
    return keys && snprintf(path, BULK_PATH, "%s/hashes", keys_dir(keys)) < BULK_PATH ? path : NULL;
}

struct bulk *bulk_create(const struct bulk_options *o, struct err *err)
{
    static void *(*const mains[KINDS])(void *) = {serve_bytes, serve_hashes};
    struct bulk *b = mem_new(1, sizeof *b, err);
    if (!b)
        return NULL;
    b->o = *o;
    b->refs = 1;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    if (hashes_init(&b->hashes, o->hashes_dir, err) != 0 || !(b->codec = codec_create(CODEC_SMALL_BYTES, err))) {
        bulk_destroy(b);
        return NULL;
    }
    for (; b->n_threads < KINDS; b->n_threads++) {
        int rc = pthread_create(&b->threads[b->n_threads], NULL, mains[b->n_threads], b);
        if (rc != 0) {
            err_errno(err, rc, "starting a thread that serves weights");
            bulk_destroy(b);
            return NULL;
        }
    }
    return b;
}

void bulk_destroy(struct bulk *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < b->n_threads; i++)
        pthread_join(b->threads[i], NULL);
    codec_destroy(b->codec);
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < BULK_GUESTS; i++) {
        struct guest *g = b->guests[i];
        if (!g)
            continue;
        g->link = NULL;
        drop_out(g);
        try_forget(b, g);
    }
    bool last = --b->refs == 0;
    pthread_mutex_unlock(&b->lock);
    if (last)
        drop_core(b);
}
