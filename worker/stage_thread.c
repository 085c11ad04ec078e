/* See stage_thread.h. Buffers for outgoing frames belong to a pool of their own, counted, because the wire, or the next stage of
 * this process, may hold them for a moment longer than the stage lives. The same goes for a stage's queue of frames: the stage
 * before it, where that is of this process, has a share in it. */
#include "worker/stage_thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "proto/codec.h"
#include "worker/inlet.h"

enum { CONTROL_HEAD_BYTES = 1024, OUT_ITEMS = STAGE_OUT_BUFFERS + STAGE_CONTROL_BUFFERS };

struct pool;

struct item {
    struct stage_send send; /* first: the two are one address */
    struct pool *pool;
    char *head_room, *payload_room;
    struct wire_frame frame; /* as the next stage of this process gets it; number 0: the wire's have others */
    struct inlet *to;        /* whose room … */
    void *rows;              /* … its rows lie in; NULL: in the payload */
};

struct pool {
    _Atomic unsigned holders; /* the thread, and each item that is under way */
    struct item items[OUT_ITEMS];
    struct queue *free_data, *free_control;
    char *heads, *controls, *payloads;
    size_t heads_bytes, payloads_bytes, head_cap;
};

/* A mask that came before its row. */
struct mask {
    uint64_t batch;
    uint32_t row;
    bool used; /* by the step at hand: free when it ends */
    bool full;
};

struct stage_thread {
    struct stage_thread_options o;
    struct stage_exec *exec;
    struct codec *codec, *mask_codec;
    struct pool *pool;
    struct inlet *in;
    _Atomic(struct inlet *) next; /* of the same process; NULL: it goes over the wire */
    struct inlet *met;            /* the last one that was asked whether rows can go straight to its device */
    struct queue *in_masks, *out;
    struct mask *masks;
    uint32_t n_masks;
    uint8_t *mask_bits; /* n_masks × mask_bytes */
    size_t mask_bytes, mask_bits_bytes;
    uint32_t next_mask;
    pthread_t thread;
    bool started;
    _Atomic bool stop, busy;
    _Atomic uint64_t taken_frames, taken_bytes;
    _Atomic uint64_t compute_us, wait_us, rows, batches;
    uint64_t told_compute_us, told_wait_us, told_rows, told_batches;
};

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- buffers ------------------------------------------------------------------------------------------------------------ */

static void pool_drop(struct pool *p)
{
    if (atomic_fetch_sub(&p->holders, 1) != 1)
        return;
    queue_destroy(p->free_data);
    queue_destroy(p->free_control);
    mem_pages_free(p->heads, p->heads_bytes);
    mem_pages_free(p->payloads, p->payloads_bytes);
    free(p->controls);
    free(p);
}

/* The largest head: a step that opens slots carries their tokens. Pages that are not touched cost nothing. */
static size_t head_cap_of(const struct stage_exec_config *c)
{
    size_t bytes = (size_t)c->shape.max_seqs * c->shape.ctx * 4 + (size_t)c->shape.max_rows * 32 + (1 << 16);
    if (c->shape.head)
        bytes += (size_t)c->shape.max_wanted * MSG_MAX_TOP * 10;
    return bytes < CODEC_MAX_HEAD ? bytes : CODEC_MAX_HEAD;
}

static struct pool *pool_create(const struct stage_exec_config *c, struct err *err)
{
    size_t payload = (stage_exec_out_bytes(c) + 63) / 64 * 64;
    struct pool *p = mem_new(1, sizeof *p, err);
    if (!p)
        return NULL;
    atomic_init(&p->holders, 1);
    p->head_cap = head_cap_of(c);
    p->heads_bytes = p->head_cap * STAGE_OUT_BUFFERS;
    p->payloads_bytes = payload * STAGE_OUT_BUFFERS;
    if (!(p->free_data = queue_create(STAGE_OUT_BUFFERS, err)) || !(p->free_control = queue_create(STAGE_CONTROL_BUFFERS, err)) ||
        !(p->heads = mem_pages_alloc(p->heads_bytes, err)) || !(p->payloads = mem_pages_alloc(p->payloads_bytes, err)) ||
        !(p->controls = mem_new(STAGE_CONTROL_BUFFERS, CONTROL_HEAD_BYTES, err))) {
        pool_drop(p);
        return NULL;
    }
    for (size_t i = 0; i < OUT_ITEMS; i++) {
        struct item *it = &p->items[i];
        it->pool = p;
        it->send.control = i >= STAGE_OUT_BUFFERS;
        it->head_room = it->send.control ? p->controls + (i - STAGE_OUT_BUFFERS) * CONTROL_HEAD_BYTES : p->heads + i * p->head_cap;
        it->payload_room = it->send.control ? NULL : p->payloads + i * payload;
        it->send.head = it->head_room;
        it->send.payload = it->payload_room;
        queue_push(it->send.control ? p->free_control : p->free_data, it, 0);
    }
    return p;
}

void stage_send_done(struct stage_send *send)
{
    struct item *it = (struct item *)send;
    struct pool *p = it->pool;
    if (it->rows)
        inlet_room_free(it->to, it->rows);
    it->rows = NULL;
    queue_push(send->control ? p->free_control : p->free_data, it, 0); /* has room for all */
    pool_drop(p);
}

/* --- between stages of one process --------------------------------------------------------------------------------------- */

/* NULL: it came over the wire. */
static struct item *item_of(const struct wire_frame *frame)
{
    return frame->number ? NULL : (struct item *)((uintptr_t)frame - offsetof(struct item, frame));
}

static void let_go(struct wire_frame *frame)
{
    struct item *it = item_of(frame);
    if (it)
        stage_send_done(&it->send);
    else
        wire_frame_release(frame);
}

/* A room on the next stage's device for the rows that a step passes on, if there is one. */
static void take_room(struct stage_thread *t, const struct msg_step *step, struct item *it, struct stage_peers *peers)
{
    struct inlet *next = atomic_load(&t->next);
    size_t bytes = stage_exec_passes(t->exec, step);
    if (next && next != t->met && inlet_meet(next, t->o.stage, stage_exec_out_bytes(&t->o.exec)))
        log_line(LOG_INFO, "stage %u hands its rows to the next one's device without the host", t->o.exec.stage);
    t->met = next;
    if (!next || !bytes || !(it->rows = inlet_room(next, bytes, &peers->to)))
        return;
    it->to = next;
    peers->there = it->rows;
}

void stage_thread_join(struct stage_thread *t, struct stage_thread *next)
{
    inlet_drop(atomic_exchange(&t->next, inlet_share(next->in)));
}

/* Waits while the queue is full, which it is not: it has room for more frames than there are buffers. */
static void hand_over(struct inlet *next, struct item *it)
{
    const struct stage_send *s = &it->send;
    it->frame = (struct wire_frame){.type = s->type, .head = s->head, .head_len = s->head_len, .payload = s->payload,
                                    .payload_len = s->payload_len, .received_us = now_us()};
    atomic_fetch_add(&next->pushed, 1);
    if (queue_push(next->frames, &it->frame, -1) == 0)
        return;
    atomic_fetch_sub(&next->pushed, 1); /* that stage has ended */
    stage_send_done(&it->send);
}

void stage_send_free(void *payload, void *send)
{
    (void)payload;
    wire_handed_back();
    stage_send_done(send);
}

/* NULL: the thread is to end (data), or the coordinator does not read (control). */
static struct item *take_item(struct stage_thread *t, bool control)
{
    void *item;
    if (queue_pop(control ? t->pool->free_control : t->pool->free_data, &item, control ? 0 : -1) != 0)
        return NULL;
    atomic_fetch_add(&t->pool->holders, 1);
    return item;
}

static void put_out(struct stage_thread *t, struct item *it)
{
    struct inlet *next = it->send.control ? NULL : atomic_load(&t->next);
    if (next) {
        hand_over(next, it);
        return;
    }
    queue_push(t->out, it, 0); /* has room for all */
    if (!it->send.control)
        t->o.wake(t->o.wake_arg); /* what the coordinator is told comes with the end of the step */
}

/* --- saying things ------------------------------------------------------------------------------------------------------ */

static void say(struct stage_thread *t, const struct msg *m)
{
    struct item *it = take_item(t, true);
    if (!it)
        return;
    it->send.type = m->type;
    it->send.payload_len = 0;
    if (codec_encode(t->mask_codec, m, it->head_room, CONTROL_HEAD_BYTES, &it->send.head_len, NULL) != 0)
        stage_send_done(&it->send);
    else
        put_out(t, it);
}

static void say_error(struct stage_thread *t, const struct err *err)
{
    char text[MSG_MAX_TEXT + 1];
    struct msg m = {.type = MSG_ERROR, .error = {.epoch = t->o.epoch, .stage = t->o.exec.stage, .kind = (uint32_t)err->kind}};
    m.error.text = err_printable(text, sizeof text, err->text, strlen(err->text));
    say(t, &m);
}

static void say_done(struct stage_thread *t, const struct msg_step *step, const struct wire_frame *frame, uint64_t started, uint64_t ended,
                     const struct stage_out *out)
{
    struct msg m = {.type = MSG_STAGE_DONE,
                    .stage_done = {.epoch = t->o.epoch, .stage = t->o.exec.stage, .batch = step->batch, .received_us = frame->received_us,
                                   .started_us = started, .ended_us = ended, .rows = out->n_rows, .bytes = out->payload_len}};
    atomic_fetch_add(&t->compute_us, ended - started);
    atomic_fetch_add(&t->wait_us, started > frame->received_us ? started - frame->received_us : 0);
    atomic_fetch_add(&t->rows, out->n_rows);
    atomic_fetch_add(&t->batches, 1);
    say(t, &m);
}

/* --- masks -------------------------------------------------------------------------------------------------------------- */

static const uint8_t *find_mask(struct stage_thread *t, uint64_t batch, uint32_t row)
{
    for (uint32_t i = 0; i < t->n_masks; i++)
        if (t->masks[i].full && t->masks[i].batch == batch && t->masks[i].row == row) {
            t->masks[i].used = true;
            return t->mask_bits + i * t->mask_bytes;
        }
    return NULL;
}

/* Keeps a mask for its row. The oldest gives way, but none that the step at hand uses. */
static int keep_mask(struct stage_thread *t, const struct wire_frame *frame, struct err *err)
{
    struct msg m;
    if (codec_decode(t->mask_codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, err) != 0)
        return -1;
    if (!msg_epoch_same(m.mask.epoch, t->o.epoch))
        return 0;
    if (m.mask.n_bytes != t->mask_bytes)
        return err_set(err, ERR_INPUT, "a mask of %zu bytes, this vocabulary needs %zu", m.mask.n_bytes, t->mask_bytes);
    for (uint32_t i = 0; i < t->n_masks; i++) {
        uint32_t at = t->next_mask++ % t->n_masks;
        if (t->masks[at].used)
            continue;
        t->masks[at] = (struct mask){.batch = m.mask.batch, .row = m.mask.row, .full = true};
        memcpy(t->mask_bits + at * t->mask_bytes, m.mask.bits, t->mask_bytes);
        return 0;
    }
    return err_set(err, ERR_LIMIT, "more than %u masked rows in a step", t->n_masks);
}

static const uint8_t *await_mask(void *arg, uint64_t batch, uint32_t row, size_t n_bytes, struct err *err)
{
    struct stage_thread *t = arg;
    uint64_t until = now_us() + (uint64_t)STAGE_MASK_MS * 1000, now;
    const uint8_t *bits;
    void *frame;

    (void)n_bytes;
    while (!(bits = find_mask(t, batch, row))) {
        now = now_us();
        int rc = now < until ? queue_pop(t->in_masks, &frame, (int)((until - now) / 1000) + 1) : 1;
        if (rc != 0) {
            err_set(err, rc < 0 ? ERR_CANCELLED : ERR_LIMIT, rc < 0 ? "the stage was stopped" : "the mask of row %u did not come within %d s", row,
                    STAGE_MASK_MS / 1000);
            return NULL;
        }
        rc = keep_mask(t, frame, err);
        wire_frame_release(frame);
        if (rc != 0)
            return NULL;
    }
    return bits;
}

static void drop_used_masks(struct stage_thread *t)
{
    for (uint32_t i = 0; i < t->n_masks; i++)
        if (t->masks[i].used)
            t->masks[i] = (struct mask){0};
}

/* --- steps -------------------------------------------------------------------------------------------------------------- */

static int encode_out(struct stage_thread *t, const struct wire_frame *frame, const struct msg_step *step, struct stage_out *out, struct item *it,
                      struct err *err)
{
    it->send.type = out->msg.type;
    it->send.payload_len = out->payload_len;
    /* A stage in the middle changes nothing that the head says: it goes on as it came. */
    if (out->msg.type == MSG_STEP && out->msg.step.act == step->act && out->msg.step.embd == step->embd && out->msg.step.n_rows == step->n_rows &&
        frame->head_len <= t->pool->head_cap) {
        memcpy(it->head_room, frame->head, frame->head_len);
        it->send.head_len = frame->head_len;
        return 0;
    }
    return codec_encode(t->codec, &out->msg, it->head_room, t->pool->head_cap, &it->send.head_len, err);
}

static void do_step(struct stage_thread *t, const struct wire_frame *frame)
{
    struct msg m;
    struct err err = {0};
    struct stage_out out;
    struct item *it;
    uint64_t started = now_us();

    if (codec_decode(t->codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err) != 0) {
        say_error(t, &err);
        return;
    }
    if (!msg_epoch_same(m.step.epoch, t->o.epoch) || !(it = take_item(t, false)))
        return;
    const struct item *from = item_of(frame);
    struct stage_peers peers = {.here = from ? from->rows : NULL};
    take_room(t, &m.step, it, &peers);
    int rc = stage_exec_step_between(t->exec, &m.step, frame->payload, it->payload_room, &peers, &out, &err);
    if (peers.there)
        inlet_filled(it->to);
    uint64_t ended = now_us();
    drop_used_masks(t);
    if (rc != 0 && out.msg.type == MSG_NONE)
        say_error(t, &err);
    if (out.msg.type == MSG_NONE) {
        stage_send_done(&it->send);
    } else if (encode_out(t, frame, &m.step, &out, it, &err) != 0) {
        stage_send_done(&it->send);
        err_wrap(&err, "batch %llu", (unsigned long long)m.step.batch);
        say_error(t, &err);
    } else {
        put_out(t, it);
    }
    say_done(t, &m.step, frame, started, ended, &out);
}

/* Looks for a while, then sleeps: a hop between two stages is some microseconds when both are at work. */
static struct wire_frame *next_frame(struct stage_thread *t)
{
    void *frame;
    uint64_t until = now_us() + STAGE_SPIN_US;
    do {
        int rc = queue_pop(t->in->frames, &frame, 0);
        if (rc == 0)
            return frame;
        if (rc < 0)
            return NULL;
        sched_yield();
    } while (now_us() < until);
    return queue_pop(t->in->frames, &frame, -1) == 0 ? frame : NULL;
}

static void *run(void *arg)
{
    struct stage_thread *t = arg;
    struct wire_frame *frame;
    while ((frame = next_frame(t))) {
        atomic_fetch_add(&t->taken_bytes, frame->payload_len);
        atomic_fetch_add(&t->taken_frames, 1);
        if (!atomic_load(&t->stop))
            do_step(t, frame);
        let_go(frame);
        atomic_fetch_sub(&t->in->pushed, 1);
        t->o.wake(t->o.wake_arg);
    }
    return NULL;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

struct stage_thread *stage_thread_create(const struct stage_thread_options *o, struct err *err)
{
    struct stage_thread *t = mem_new(1, sizeof *t, err);
    if (!t)
        return NULL;
    t->o = *o;
    t->mask_bytes = ((size_t)o->exec.params->n_vocab + 7) / 8;
    t->n_masks = 2 * o->exec.shape.max_wanted > STAGE_MASKS_MIN ? 2 * o->exec.shape.max_wanted : STAGE_MASKS_MIN;
    t->mask_bits_bytes = o->exec.shape.head ? t->mask_bytes * t->n_masks : 1;
    if (!(t->exec = stage_exec_create(o->stage, &o->exec, o->team, await_mask, t, err)) || !(t->codec = codec_create(CODEC_DATA_BYTES, err)) ||
        !(t->mask_codec = codec_create(CODEC_SMALL_BYTES + CODEC_MAX_HEAD, err)) || !(t->pool = pool_create(&o->exec, err)) ||
        !(t->in = inlet_create(o->stage, o->queue_frames, err)) || !(t->in_masks = queue_create(t->n_masks, err)) ||
        !(t->out = queue_create(OUT_ITEMS, err)) || !(t->mask_bits = mem_pages_alloc(t->mask_bits_bytes, err)) ||
        !(t->masks = mem_new(t->n_masks, sizeof *t->masks, err)))
        goto error;
    int rc = pthread_create(&t->thread, NULL, run, t);
    if (rc != 0) {
        err_errno(err, rc, "starting a stage's thread");
        goto error;
    }
    t->started = true;
    return t;
error:
    stage_thread_destroy(t);
    return NULL;
}

void stage_thread_stop(struct stage_thread *t)
{
    atomic_store(&t->stop, true);
    queue_close(t->in->frames);
    queue_close(t->in_masks);
    queue_close(t->pool->free_data);
}

static void drain_frames(struct queue *q)
{
    void *frame;
    while (q && queue_pop(q, &frame, 0) == 0)
        let_go(frame);
}

void stage_thread_destroy(struct stage_thread *t)
{
    struct stage_send *send;
    if (!t)
        return;
    if (t->started) {
        stage_thread_stop(t);
        pthread_join(t->thread, NULL);
    }
    if (t->in) {
        inlet_close(t->in);
        drain_frames(t->in->frames);
    }
    inlet_drop(t->in);
    inlet_drop(atomic_load(&t->next));
    drain_frames(t->in_masks);
    queue_destroy(t->in_masks);
    while (t->out && (send = stage_thread_next(t)))
        stage_send_done(send);
    queue_destroy(t->out);
    if (t->pool)
        pool_drop(t->pool);
    stage_exec_destroy(t->exec);
    codec_destroy(t->codec);
    codec_destroy(t->mask_codec);
    mem_pages_free(t->mask_bits, t->mask_bits_bytes);
    free(t->masks);
    free(t);
}

/* --- the I/O thread's side ---------------------------------------------------------------------------------------------- */

int stage_thread_push(struct stage_thread *t, struct wire_frame *frame)
{
    if (frame->type == MSG_MASK)
        return queue_push(t->in_masks, frame, 0) == 0 ? 0 : -1;
    atomic_fetch_add(&t->in->pushed, 1);
    if (queue_push(t->in->frames, frame, 0) == 0)
        return 0;
    atomic_fetch_sub(&t->in->pushed, 1);
    return -1;
}

struct stage_send *stage_thread_next(struct stage_thread *t)
{
    void *send;
    return queue_pop(t->out, &send, 0) == 0 ? send : NULL;
}

void stage_thread_taken(const struct stage_thread *t, uint64_t *ret_frames, uint64_t *ret_bytes)
{
    *ret_frames = atomic_load(&t->taken_frames);
    *ret_bytes = atomic_load(&t->taken_bytes);
}

bool stage_thread_idle(const struct stage_thread *t)
{
    return atomic_load(&t->in->pushed) == 0;
}

void stage_thread_times(struct stage_thread *t, struct msg_stage_times *ret)
{
    uint64_t compute = atomic_load(&t->compute_us), wait = atomic_load(&t->wait_us), rows = atomic_load(&t->rows);
    uint64_t batches = atomic_load(&t->batches);
    *ret = (struct msg_stage_times){.stage = t->o.exec.stage, .compute_us = compute - t->told_compute_us, .wait_us = wait - t->told_wait_us,
                                    .rows = rows - t->told_rows, .batches = (uint32_t)(batches - t->told_batches),
                                    .queued = (uint32_t)atomic_load(&t->in->pushed)};
    t->told_compute_us = compute;
    t->told_wait_us = wait;
    t->told_rows = rows;
    t->told_batches = batches;
}
