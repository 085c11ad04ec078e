/* Links: their tables and ends, and sending. */
#include "proto/wire_int.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* --- links: finding, sending ------------------------------------------------------------------------------------------------ */
size_t link_bucket(const struct listener *l, const uint8_t *rid)
{
    uint32_t n;

    memcpy(&n, rid + 1, sizeof n);
    return (n * 2654435761u + (uint32_t)(uintptr_t)l) % LINK_BUCKETS;
}

struct wire_link *link_by_rid(struct wire *w, const struct listener *l, const uint8_t *rid)
{
    struct wire_link *link = w->by_rid[link_bucket(l, rid)];

    while (link && (link->listener != l || memcmp(link->rid, rid, RID_BYTES) != 0))
        link = link->next_same;
    return link;
}

struct wire_link *link_new(struct wire *w, struct err *err)
{
    struct wire_link *link;

    if (w->n_links == WIRE_MAX_LINKS)
        return err_set(err, ERR_LIMIT, "%d links are open, no more are allowed", WIRE_MAX_LINKS), NULL;
    if (!(link = mem_new(1, sizeof *link, err)))
        return NULL;
    link->wire = w;
    link->fd = link->s.fd = link->s.monitor_fd = -1;
    if (!(link->meter = meter_create(err))) {
        free(link);
        return NULL;
    }
    w->links[w->n_links++] = link;
    return link;
}

/* Takes it out of all tables; its sockets close. The memory stays. */
void link_detach(struct wire_link *link, int linger_ms)
{
    struct wire *w = link->wire;

    if (link->state == LINK_GONE)
        return;
    for (size_t i = 0; i < w->n_links; i++)
        if (w->links[i] == link) {
            w->links[i] = w->links[--w->n_links];
            break;
        }
    if (link->dialed) {
        sock_close(&link->s, linger_ms);
        lookup_end(link->lookup);
        link->lookup = NULL;
    } else {
        struct wire_link **at = &w->by_rid[link_bucket(link->listener, link->rid)];
        while (*at && *at != link)
            at = &(*at)->next_same;
        if (*at)
            *at = link->next_same;
        memcpy(link->listener->ended[link->listener->n_ended++ % ENDED_MAX], link->rid, RID_BYTES);
        struct conn *c = conns_find(&link->listener->conns, link->fd);
        if (c && c->link == link) {
            c->link = NULL;
            c->refused = true; /* its end is no refusal */
            c->kill_us = wire_ms_from_now(KILL_MS);
        }
    }
    if (link->blocked)
        w->n_blocked--;
    link->blocked = false;
    link->state = LINK_GONE;
}

void link_free(struct wire_link *link)
{
    meter_unref(link->meter);
    free(link);
}

/* Over at once. The caller hears of it if it knew of the link. */
void link_down(struct wire_link *link, const char *why)
{
    struct wire *w = link->wire;
    struct note *n;

    link_detach(link, 0);
    if (!link->told) {
        link_free(link);
        return;
    }
    atomic_fetch_add(&w->net->down, 1);
    n = wire_note_add(w, WIRE_DOWN, link);
    if (!n)
        return; /* no memory at all: the link stays silent, its heartbeat will be missed */
    n->goodbye = link->goodbye;
    snprintf(n->text, sizeof n->text, "%s", why);
    snprintf(n->address, sizeof n->address, "%s", link->address);
    snprintf(n->name, sizeof n->name, "%s", link->node);
}

/* Over once what has arrived is delivered. */
void link_ending(struct wire_link *link, const char *why)
{
    if (link->state == LINK_ENDING || link->state == LINK_GONE)
        return;
    snprintf(link->why, sizeof link->why, "%s", why);
    link->state = LINK_ENDING;
    link->frames_since_end = 0;
    *(link->dialed ? &link->s.check : &link->listener->s.check) = true;
}

static void set_blocked(struct wire_link *link)
{
    if (!link->blocked)
        link->wire->n_blocked++;
    link->blocked = true;
}

/* Takes in what other threads told the socket: new and ended connections, room in its queues. Sending alone does so only
 * now and then, and might call a queue full that is not. */
static void process_commands(void *z)
{
    int ignored;
    size_t len = sizeof ignored;

    zmq_getsockopt(z, ZMQ_EVENTS, &ignored, &len);
}

/* Sends the first part, which decides: WIRE_SENT means the rest of the message goes, too. The part is closed only then. */
static enum wire_sent send_first(struct wire_link *link, void *z, zmq_msg_t *part, int flags, struct err *err)
{
    if (zmq_msg_send(part, z, flags | ZMQ_DONTWAIT) >= 0)
        return WIRE_SENT;
    if (zmq_errno() == EAGAIN) {
        process_commands(z);
        if (zmq_msg_send(part, z, flags | ZMQ_DONTWAIT) >= 0)
            return WIRE_SENT;
    }
    if (zmq_errno() == EAGAIN) {
        set_blocked(link);
        return WIRE_BLOCKED;
    }
    err_set(err, ERR_IO, "link to %s: %s", link->node, zmq_errno() == EHOSTUNREACH ? "the connection is gone" : zmq_strerror(zmq_errno()));
    link_ending(link, "the connection is gone");
    return WIRE_FAILED;
}

/* head is taken only on WIRE_SENT; then the payload can be sent behind it and will not be refused. */
static enum wire_sent send_head(struct wire_link *link, zmq_msg_t *head, bool more, struct err *err)
{
    struct sock *s = link->dialed ? &link->s : &link->listener->s;
    int flags = more ? ZMQ_SNDMORE : 0;
    enum wire_sent sent;
    zmq_msg_t rid;

    s->check = true; /* sending may swallow the edge that tells of something to receive */
    if (link->dialed)
        return send_first(link, s->z, head, flags, err);
    zmq_msg_init_size(&rid, RID_BYTES);
    memcpy(zmq_msg_data(&rid), link->rid, RID_BYTES);
    sent = send_first(link, s->z, &rid, ZMQ_SNDMORE, err);
    if (sent != WIRE_SENT) {
        zmq_msg_close(&rid);
        return sent;
    }
    if (zmq_msg_send(head, s->z, flags | ZMQ_DONTWAIT) >= 0)
        return WIRE_SENT;
    err_set(err, ERR_IO, "link to %s: %s", link->node, zmq_strerror(zmq_errno()));
    link_ending(link, "the connection is gone");
    return WIRE_FAILED;
}

static void send_payload(struct wire_link *link, zmq_msg_t *payload)
{
    void *z = link->dialed ? link->s.z : link->listener->s.z;

    if (zmq_msg_send(payload, z, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(payload); /* calls its free_fn */
        link_ending(link, "the connection is gone");
    }
}

int64_t link_payload_max(enum link_purpose purpose)
{
    return purpose == LINK_DATA ? WIRE_MAX_PAYLOAD : purpose == LINK_BULK ? BULK_PAYLOAD : CONTROL_PAYLOAD;
}

static enum wire_sent check_sendable(struct wire_link *link, size_t head_len, size_t payload_len, struct err *err)
{
    if (link->state != LINK_UP) {
        err_set(err, ERR_IO, "link to %s: it is not up", link->node);
        return WIRE_FAILED;
    }
    if (head_len > WIRE_MAX_HEAD || payload_len > (size_t)link_payload_max(link->hello.purpose)) {
        err_set(err, ERR_LIMIT, "link to %s: a frame of %zu + %zu bytes, at most %d + %lld are allowed on a %s link", link->node, head_len,
                payload_len, WIRE_MAX_HEAD, (long long)link_payload_max(link->hello.purpose), link_purpose_name(link->hello.purpose));
        return WIRE_FAILED;
    }
    return WIRE_SENT;
}

static void count_sent(struct wire_link *link, size_t bytes)
{
    link->sent++;
    atomic_fetch_add_explicit(&link->wire->net->frames_sent, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&link->wire->net->bytes_sent, bytes, memory_order_relaxed);
}

/* The frame's head as libzmq wants it. */
static int head_part(zmq_msg_t *part, enum msg_type type, const void *head, size_t head_len, size_t payload_len, bool has_payload,
                     uint64_t number, struct err *err)
{
    if (zmq_msg_init_size(part, FRAME_PREFIX + head_len) != 0)
        return err_set(err, ERR_MEMORY, "out of memory for a frame of %zu bytes", head_len);
    frame_prefix_put(zmq_msg_data(part), type, payload_len, has_payload, number);
    if (head_len)
        memcpy((uint8_t *)zmq_msg_data(part) + FRAME_PREFIX, head, head_len);
    return 0;
}

/* Greetings, goodbyes and registrations, in any state; the first two have no number. */
bool link_send_small(struct wire_link *link, const struct msg *m, uint64_t sent_number)
{
    struct wire *w = link->wire;
    size_t len;
    zmq_msg_t part;

    if (codec_encode(w->codec, m, w->head, WIRE_MAX_HEAD, &len, NULL) != 0 ||
        head_part(&part, m->type, w->head, len, 0, false, sent_number, NULL) != 0)
        return false;
    if (send_head(link, &part, false, NULL) == WIRE_SENT)
        return true;
    zmq_msg_close(&part);
    return false;
}

/* If there is no room, what is in the queue says as much. */
bool link_send_bare(struct wire_link *link, enum msg_type type, uint64_t number)
{
    bool was_blocked = link->blocked;
    zmq_msg_t part;

    if (head_part(&part, type, NULL, 0, 0, false, number, NULL) != 0)
        return false;
    if (send_head(link, &part, false, NULL) == WIRE_SENT)
        return true;
    zmq_msg_close(&part);
    if (link->blocked && !was_blocked) { /* the caller has nothing that waits */
        link->blocked = false;
        link->wire->n_blocked--;
    }
    return false;
}

void link_send_bye(struct wire_link *link, const char *text, bool fault)
{
    struct msg m = {.type = MSG_BYE, .bye = {.text = text, .fault = fault}};

    link_send_small(link, &m, 0);
}

static atomic_uint handed_over; /* payloads, to libzmq */

void wire_handed_back(void)
{
    (void)atomic_load_explicit(&handed_over, memory_order_acquire);
}

enum wire_sent wire_send(struct wire_link *link, enum msg_type type, const void *head, size_t head_len, void *payload, size_t payload_len,
                         wire_free_fn free_fn, void *hint, struct err *err)
{
    enum wire_sent sent = check_sendable(link, head_len, payload_len, err);
    bool has_payload = payload && payload_len > 0;
    zmq_msg_t part, rows;

    if (sent != WIRE_SENT)
        return sent;
    if (has_payload && !free_fn) {
        if (zmq_msg_init_size(&rows, payload_len) != 0) {
            err_set(err, ERR_MEMORY, "out of memory for a payload of %zu bytes", payload_len);
            return WIRE_FAILED;
        }
        memcpy(zmq_msg_data(&rows), payload, payload_len);
    }
    if (head_part(&part, type, head, head_len, has_payload ? payload_len : 0, has_payload, link->sent + 1, err) != 0)
        sent = WIRE_FAILED;
    else if ((sent = send_head(link, &part, has_payload, err)) != WIRE_SENT)
        zmq_msg_close(&part);
    if (sent != WIRE_SENT) {
        if (has_payload && !free_fn)
            zmq_msg_close(&rows);
        return sent;
    }
    /* From here the payload is libzmq's. Without memory for its own bookkeeping we copy nothing and lose the link. */
    if (has_payload && free_fn && zmq_msg_init_data(&rows, payload, payload_len, free_fn, hint) != 0) {
        zmq_msg_init(&rows);
        free_fn(payload, hint);
        link_ending(link, "out of memory");
    }
    if (has_payload) {
        atomic_fetch_add_explicit(&handed_over, 1, memory_order_release);
        send_payload(link, &rows);
    } else if (free_fn) {
        free_fn(payload, hint);
    }
    count_sent(link, head_len + payload_len);
    return WIRE_SENT;
}

enum wire_sent wire_send_msg(struct wire_link *link, const struct msg *m, void *payload, size_t payload_len, wire_free_fn free_fn, void *hint,
                             struct err *err)
{
    struct wire *w = link->wire;
    size_t len;

    if (payload_len != codec_payload_bytes(m)) {
        err_set(err, ERR_INTERNAL, "%s: %zu bytes of payload, but it speaks of %zu", msg_type_name(m->type), payload_len, codec_payload_bytes(m));
        return WIRE_FAILED;
    }
    if (codec_encode(w->codec, m, w->head, WIRE_MAX_HEAD, &len, err) != 0)
        return WIRE_FAILED;
    return wire_send(link, m->type, w->head, len, payload, payload_len, free_fn, hint, err);
}

enum wire_sent wire_forward(struct wire_link *to, struct wire_frame *frame, struct err *err)
{
    struct frame *f = (struct frame *)frame;
    bool has_payload = frame->payload != NULL;
    enum wire_sent sent = check_sendable(to, frame->head_len, frame->payload_len, err);
    zmq_msg_t head, payload;

    if (sent != WIRE_SENT)
        return sent;
    /* The head is copied: it may share libzmq's receive buffer, and its number must change. The rows are not. */
    if (head_part(&head, frame->type, frame->head, frame->head_len, frame->payload_len, has_payload, to->sent + 1, err) != 0)
        return WIRE_FAILED;
    if ((sent = send_head(to, &head, has_payload, err)) != WIRE_SENT) {
        zmq_msg_close(&head);
        return sent;
    }
    if (has_payload) {
        zmq_msg_init(&payload);
        zmq_msg_move(&payload, &f->payload);
        send_payload(to, &payload);
    }
    count_sent(to, frame->head_len + frame->payload_len);
    wire_frame_release(frame);
    return WIRE_SENT;
}
