/* Frames as bytes, and the pool they are handed out of. */
#include "proto/wire_int.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { SLAB_FRAMES = 64 };

/* --- the prefix -------------------------------------------------------------------------------------------------------- */
void frame_prefix_put(uint8_t *to, enum msg_type type, size_t payload_len, bool has_payload, uint64_t number)
{
    uint32_t len = htole32((uint32_t)payload_len);

    to[0] = 'S';
    to[1] = 'C';
    to[2] = (uint8_t)type;
    to[3] = has_payload ? FRAME_HAS_PAYLOAD : 0;
    number = htole64(number);
    memcpy(to + 4, &len, sizeof len);
    memcpy(to + 8, &number, sizeof number);
}

bool frame_prefix_get(const uint8_t *from, size_t len, struct frame_prefix *ret)
{
    uint32_t payload;
    uint64_t number;

    if (len < FRAME_PREFIX || from[0] != 'S' || from[1] != 'C' || (from[3] & ~FRAME_HAS_PAYLOAD))
        return false;
    memcpy(&payload, from + 4, sizeof payload);
    memcpy(&number, from + 8, sizeof number);
    *ret = (struct frame_prefix){(enum msg_type)from[2], from[3] & FRAME_HAS_PAYLOAD, le32toh(payload), le64toh(number)};
    return ret->has_payload || ret->payload_len == 0;
}

/* --- the meter --------------------------------------------------------------------------------------------------------- */
struct meter *meter_create(struct err *err)
{
    struct meter *m = mem_new(1, sizeof *m, err);

    if (m)
        atomic_store(&m->refs, 1);
    return m;
}

void meter_unref(struct meter *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
        free(m);
}

/* --- the pool ---------------------------------------------------------------------------------------------------------- */
struct slab {
    struct slab *next;
    struct frame frames[SLAB_FRAMES];
};

struct pool {
    pthread_mutex_t lock;
    struct frame *free;
    struct slab *slabs;
    size_t out; /* frames that are with somebody */
    bool orphan;
};

struct pool *pool_create(struct err *err)
{
    struct pool *p = mem_new(1, sizeof *p, err);

    if (p)
        pthread_mutex_init(&p->lock, NULL);
    return p;
}

static void pool_free(struct pool *p)
{
    while (p->slabs) {
        struct slab *next = p->slabs->next;
        free(p->slabs);
        p->slabs = next;
    }
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void pool_unref(struct pool *p)
{
    bool last;

    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->orphan = true;
    last = p->out == 0;
    pthread_mutex_unlock(&p->lock);
    if (last)
        pool_free(p);
}

struct frame *pool_take(struct pool *p, struct err *err)
{
    struct frame *f;

    pthread_mutex_lock(&p->lock);
    if (!p->free) {
        struct slab *slab = mem_new(1, sizeof *slab, err);
        if (slab) {
            slab->next = p->slabs;
            p->slabs = slab;
            for (size_t i = 0; i < SLAB_FRAMES; i++) {
                slab->frames[i].next = p->free;
                p->free = &slab->frames[i];
            }
        }
    }
    f = p->free;
    if (f) {
        p->free = f->next;
        p->out++;
        f->pool = p;
    }
    pthread_mutex_unlock(&p->lock);
    return f;
}

/* libzmq's data of small messages may lie anywhere in its receive buffer: those are copied once, so that whoever reads
 * floats may. Large ones stand in memory of their own. */
static void align_payload(zmq_msg_t *payload)
{
    size_t len = zmq_msg_size(payload);
    zmq_msg_t copy;

    if (len == 0 || (uintptr_t)zmq_msg_data(payload) % 8 == 0 || zmq_msg_init_size(&copy, len) != 0)
        return;
    memcpy(zmq_msg_data(&copy), zmq_msg_data(payload), len);
    zmq_msg_move(payload, &copy);
    zmq_msg_close(&copy);
}

void frame_fill(struct frame *f, const struct frame_prefix *prefix, zmq_msg_t *head, zmq_msg_t *payload, struct meter *meter)
{
    zmq_msg_init(&f->head);
    zmq_msg_init(&f->payload);
    zmq_msg_move(&f->head, head);
    if (payload) {
        zmq_msg_move(&f->payload, payload);
        align_payload(&f->payload);
    }
    f->meter = meter;
    atomic_fetch_add_explicit(&meter->refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&meter->held, 1, memory_order_relaxed);
    f->pub = (struct wire_frame){
        .type = prefix->type,
        .number = prefix->number,
        .head = (const uint8_t *)zmq_msg_data(&f->head) + FRAME_PREFIX,
        .head_len = zmq_msg_size(&f->head) - FRAME_PREFIX,
        .payload = payload ? zmq_msg_data(&f->payload) : NULL,
        .payload_len = payload ? zmq_msg_size(&f->payload) : 0,
        .received_us = wire_now_us(),
    };
}

void wire_frame_release(struct wire_frame *frame)
{
    struct frame *f = (struct frame *)frame;
    struct pool *p;
    bool last;

    if (!f)
        return;
    p = f->pool;
    zmq_msg_close(&f->head);
    zmq_msg_close(&f->payload);
    atomic_fetch_sub_explicit(&f->meter->held, 1, memory_order_relaxed);
    meter_unref(f->meter);
    pthread_mutex_lock(&p->lock);
    f->next = p->free;
    p->free = f;
    p->out--;
    last = p->orphan && p->out == 0;
    pthread_mutex_unlock(&p->lock);
    if (last)
        pool_free(p);
}
