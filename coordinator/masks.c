/* Masks of constrained answers: which tokens may come next. They are found by threads of their own, from the moment on when the
 * token before is known, while the stages compute; the engine's thread only hands requests over and sends what is ready straight
 * to the last stage, which waits for it with the row's logits in its hands.
 *
 * A request has at most one mask in the making, and one row that waits for it: its next token is chosen with it, and only then
 * the next mask is begun. A mask that was sent and lost with its epoch is sent again: it is the request's until the token is
 * there. A row whose request is gone gets a mask that allows all: the stage must not wait. */
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"
#include "coordinator/cluster.h"

enum { THREADS_MAX = 4, CPUS_A_THREAD = 4, QUEUE_MAX = 4 * ENGINE_MAX_REQUESTS };

#define DROP ((uintptr_t)1) /* a bit of a pointer */

struct masks {
    struct queue *asked; /* requests, held; with DROP: to be let go of */
    pthread_t threads[THREADS_MAX];
    unsigned n_threads;
    size_t n_bytes;
    uint8_t *all; /* a mask that allows all */
};

/* --- the threads ---------------------------------------------------------------------------------------------------------- */

static void find(struct engine_request *r, size_t n_bytes)
{
    int rc = 0;
    if (r->mask_token >= 0)
        rc = grammar_walk_take(r->walk, r->mask_token, &r->mask_err);
    if (rc == 0)
        rc = grammar_walk_mask(r->walk, r->mask_bits, n_bytes, &r->mask_err);
    atomic_store(&r->mask_state, rc == 0 ? MASK_READY : MASK_FAILED);
}

static void *run(void *arg)
{
    struct engine *e = arg;
    void *item;
    while (queue_pop(e->masks->asked, &item, -1) == 0) {
        struct engine_request *r = (struct engine_request *)((uintptr_t)item & ~DROP);
        if (!((uintptr_t)item & DROP)) {
            find(r, e->masks->n_bytes);
            wire_wake(e->wire);
        }
        request_drop(r);
    }
    return NULL;
}

int masks_init(struct engine *e, struct err *err)
{
    struct masks *m = e->masks = mem_new(1, sizeof *m, err);
    unsigned n = threadpool_cpus() / CPUS_A_THREAD;

    if (!m)
        return -1;
    m->n_bytes = ((size_t)e->params.n_vocab + 7) / 8;
    if (!(m->all = mem_new(m->n_bytes, 1, err)) || !(m->asked = queue_create(QUEUE_MAX, err)))
        return -1;
    memset(m->all, 0xff, m->n_bytes);
    for (n = n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n; m->n_threads < n; m->n_threads++) {
        int rc = pthread_create(&m->threads[m->n_threads], NULL, run, e);
        if (rc != 0)
            return err_errno(err, rc, "starting a thread for grammars");
    }
    return 0;
}

void masks_fini(struct engine *e)
{
    struct masks *m = e->masks;
    void *item;

    if (!m)
        return;
    if (m->asked)
        queue_close(m->asked);
    for (unsigned i = 0; i < m->n_threads; i++)
        pthread_join(m->threads[i], NULL);
    while (m->asked && queue_pop(m->asked, &item, 0) == 0)
        request_drop((struct engine_request *)((uintptr_t)item & ~DROP));
    queue_destroy(m->asked);
    free(m->all);
    free(m);
    e->masks = NULL;
}

/* --- the engine's side ---------------------------------------------------------------------------------------------------- */

void masks_ask(struct engine *e, struct engine_request *r, int32_t token)
{
    if (!r->walk)
        return;
    r->mask_token = token;
    atomic_store(&r->mask_state, MASK_ASKED);
    request_hold(r);
    if (queue_push(e->masks->asked, r, 0) == 0)
        return;
    request_drop(r);
    err_set(&r->mask_err, ERR_BUSY, "more constrained answers than the threads for grammars keep up with; try again");
    atomic_store(&r->mask_state, MASK_FAILED);
}

void masks_drop(struct engine *e, struct engine_request *r)
{
    /* Walks under one grammar share a lock, which a thread holds while it finds a mask. */
    if (!r->walk || queue_push(e->masks->asked, (void *)((uintptr_t)r | DROP), 0) != 0)
        request_drop(r);
}

/* What the row of a request gets; NULL: it is not ready yet. */
static const uint8_t *bits_for(struct engine *e, uint64_t seq)
{
    struct engine_request *r = engine_find(e, seq);
    if (!r)
        return e->masks->all;
    switch (atomic_load(&r->mask_state)) {
    case MASK_READY:
        return r->mask_bits;
    case MASK_FAILED:
        engine_fail(e, r, &r->mask_err);
        return e->masks->all;
    default:
        return NULL;
    }
}

/* 0: sent; 1: not now; -1: the epoch is over. */
static int send_mask(struct engine *e, const struct flight *f, const struct flight_want *w, const uint8_t *bits)
{
    struct msg m = {.type = MSG_MASK,
                    .mask = {.epoch = e->pipe.epoch, .batch = f->batch, .row = w->row, .bits = bits, .n_bytes = e->masks->n_bytes}};
    struct err err;
    enum wire_sent sent = wire_send_msg(e->pipe.last, &m, NULL, 0, NULL, NULL, &err);
    if (sent == WIRE_SENT)
        return 0;
    if (sent == WIRE_BLOCKED)
        return 1;
    pipeline_break(e, err.text);
    return -1;
}

static struct flight *oldest(struct engine *e)
{
    struct flight *first = NULL;
    for (uint32_t i = 0; i < e->n_flights; i++)
        if (e->flights[i].batch && (!first || e->flights[i].batch < first->batch))
            first = &e->flights[i];
    return first;
}

void masks_pump(struct engine *e)
{
    struct flight *first = e->n_masks_due ? oldest(e) : NULL;
    const uint8_t *bits;

    for (uint32_t i = 0; i < e->n_flights && e->n_masks_due > 0; i++) {
        struct flight *f = &e->flights[i];
        for (uint32_t k = 0; f->batch && f->n_masks_due > 0 && k < f->n_wants; k++) {
            /* A stage holds twice as many masks as a step may want rows: half of them are the oldest step's. */
            if (!f->wants[k].mask_due || (f != first && e->n_masks_ahead >= e->max_wanted) || !(bits = bits_for(e, f->wants[k].seq)))
                continue;
            if (send_mask(e, f, &f->wants[k], bits) != 0)
                return;
            f->wants[k].mask_due = false;
            f->n_masks_due--;
            e->n_masks_due--;
            f->n_masks_ahead += f != first;
            e->n_masks_ahead += f != first;
        }
    }
}
