/* What arrives: frames, libzmq's events about connections, and what time and changed trust bring. */
#include "proto/wire_int.h"

#include <stdio.h>
#include <string.h>

/* --- receiving --------------------------------------------------------------------------------------------------------------- */
static void drop_rest(void *z)
{
    zmq_msg_t part;
    int more = 1;
    size_t len = sizeof more;

    while (zmq_getsockopt(z, ZMQ_RCVMORE, &more, &len) == 0 && more) {
        zmq_msg_init(&part);
        zmq_msg_recv(&part, z, ZMQ_DONTWAIT);
        zmq_msg_close(&part);
    }
}

/* A frame that makes no sense ends its link. */
static void broken(struct wire_link *link, const char *what)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "%s", what);
    atomic_fetch_add(&link->wire->net->refused[REFUSED_GARBAGE], 1);
    link_send_bye(link, text, true);
    if (link->told) {
        link_down(link, text);
    } else {
        link_detach(link, 0);
        link_free(link);
    }
}

/* Frames that wire.c itself answers: greetings, goodbyes, registration. */
static void take_own(struct wire_link *link, const struct frame_prefix *p, zmq_msg_t *head)
{
    struct wire *w = link->wire;
    struct msg m;
    struct err err = {0};
    char text[TEXT_BYTES];

    if (codec_decode(w->codec, p->type, (uint8_t *)zmq_msg_data(head) + FRAME_PREFIX, zmq_msg_size(head) - FRAME_PREFIX, p->payload_len, &m,
                     &err) != 0) {
        broken(link, err.text);
    } else if (p->type == MSG_BYE) {
        snprintf(text, sizeof text, "%.64s closed the link: %.300s", link->node[0] ? link->node : "the peer", m.bye.text);
        link->goodbye = !m.bye.fault && (link->state == LINK_UP || link->state == LINK_ENDING); /* ending: the cut was seen first */
        link_down(link, text);
    } else if (p->type == MSG_LINK_OK && link->dialed && link->state == LINK_GREETING) {
        link_answered(link, &m);
    } else if (p->type == MSG_REGISTER && !link->dialed && link->hello.purpose == LINK_REGISTER) {
        link_register(link, &m.register_);
    } else {
        broken(link, "a greeting at the wrong time");
    }
}

/* Whether a frame fits its link; else why not. */
static const char *frame_wrong(const struct wire_link *link, const struct frame_prefix *p, size_t payload_len, bool has_payload, char *buf,
                               size_t cap)
{
    enum link_purpose purpose = msg_purpose(p->type);

    if (p->has_payload != has_payload || p->payload_len != payload_len)
        snprintf(buf, cap, "a frame with %zu bytes of payload that says %u", payload_len, p->payload_len);
    else if (p->number != link->received + 1)
        snprintf(buf, cap, "frame %llu came where %llu was due", (unsigned long long)p->number, (unsigned long long)link->received + 1);
    else if (purpose != link->hello.purpose)
        snprintf(buf, cap, "a message %d (%s) on a %s link", (int)p->type, msg_type_name(p->type), link_purpose_name(link->hello.purpose));
    else if (payload_len > (size_t)link_payload_max(link->hello.purpose))
        snprintf(buf, cap, "%zu bytes of payload, at most %lld are allowed on a %s link", payload_len,
                 (long long)link_payload_max(link->hello.purpose), link_purpose_name(link->hello.purpose));
    else if (atomic_load_explicit(&link->meter->held, memory_order_relaxed) >= WIRE_MAX_HELD_FRAMES)
        snprintf(buf, cap, "%d frames are waiting here and more come: the peer minds no credit", WIRE_MAX_HELD_FRAMES);
    else
        return NULL;
    return buf;
}

/* One whole message of a link: head, and payload or NULL. Both are taken. */
static enum took take_frame(struct wire_link *link, zmq_msg_t *head, zmq_msg_t *payload, struct wire_event *ret)
{
    struct wire *w = link->wire;
    struct frame_prefix p;
    struct frame *f = NULL;
    struct err err = {0};
    char buf[256];
    size_t payload_len = payload ? zmq_msg_size(payload) : 0;
    const char *wrong;

    link->heard = true;
    if (!frame_prefix_get(zmq_msg_data(head), zmq_msg_size(head), &p)) {
        broken(link, "a frame without its beginning");
    } else if (p.type == MSG_ALIVE && !payload && zmq_msg_size(head) == FRAME_PREFIX) {
        /* It has been heard. libzmq drops a frame without a word when the bit in front of it that says "command" was flipped. */
        if (p.number && p.number != link->received) {
            snprintf(buf, sizeof buf, "the last frame was number %llu, here came %llu: something on the way loses frames",
                     (unsigned long long)p.number, (unsigned long long)link->received);
            broken(link, buf);
        }
    } else if (p.type == MSG_LINK_OK || p.type == MSG_LINK_HELLO || p.type == MSG_BYE || p.type == MSG_REGISTER) {
        take_own(link, &p, head);
    } else if (link->state != LINK_UP && link->state != LINK_ENDING) {
        broken(link, "a frame before the greeting was answered");
    } else if ((wrong = frame_wrong(link, &p, payload_len, payload != NULL, buf, sizeof buf)) != NULL) {
        broken(link, wrong);
    } else if (!(f = pool_take(w->pool, &err))) {
        broken(link, err.text);
    } else {
        link->received++;
        atomic_fetch_add_explicit(&w->net->frames_received, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&w->net->bytes_received, zmq_msg_size(head) + payload_len, memory_order_relaxed);
        frame_fill(f, &p, head, payload, link->meter);
        ret->kind = WIRE_FRAME;
        ret->link = link;
        ret->frame = &f->pub;
    }
    zmq_msg_close(head);
    if (payload)
        zmq_msg_close(payload);
    return f ? TOOK_FRAME : TOOK_ONE;
}

/* The rest of a message whose first part has come: a second one at most. Returns the number of parts, 3 for more. */
static int recv_second(void *z, zmq_msg_t *head, zmq_msg_t *payload)
{
    if (!zmq_msg_more(head))
        return 1;
    zmq_msg_init(payload);
    if (zmq_msg_recv(payload, z, ZMQ_DONTWAIT) < 0)
        return 3;
    if (!zmq_msg_more(payload))
        return 2;
    drop_rest(z);
    return 3;
}

enum took recv_dialed(struct wire_link *link, struct wire_event *ret)
{
    zmq_msg_t head, payload;
    int parts;

    zmq_msg_init(&head);
    if (zmq_msg_recv(&head, link->s.z, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&head);
        link->s.check = false;
        return TOOK_NOTHING;
    }
    parts = recv_second(link->s.z, &head, &payload);
    if (parts > 2) {
        zmq_msg_close(&head);
        zmq_msg_close(&payload);
        broken(link, "a frame of more than two parts");
        return TOOK_ONE;
    }
    return take_frame(link, &head, parts == 2 ? &payload : NULL, ret);
}

/* Somebody who is no link yet. */
static void take_stranger(struct wire *w, struct listener *l, const uint8_t *rid, zmq_msg_t *head, bool single)
{
    struct frame_prefix p;
    struct msg m;
    struct err err = {0};
    int fd = zmq_msg_get(head, ZMQ_SRCFD);
    struct conn *c = conns_find(&l->conns, fd);
    char text[TEXT_BYTES];

    /* libzmq hands a connection to its I/O thread first and tells of it then: a quick peer's greeting may be here before. One
     * that has gone since would stay in the list for ever, for its end has been told; one that is in the list and has gone
     * is told of in a moment. */
    if (!c && (c = conns_add(&l->conns, fd, NULL)) != NULL && !c->cookie) {
        conns_remove(&l->conns, c);
        return;
    }
    if (!c || c->kill_us || !conn_is_current(c))
        return;
    if (!single || !frame_prefix_get(zmq_msg_data(head), zmq_msg_size(head), &p) || p.type != MSG_LINK_HELLO) {
        wire_refuse(w, c, NULL, REFUSED_GARBAGE, "what came first was no greeting");
    } else if (codec_decode(w->codec, p.type, (uint8_t *)zmq_msg_data(head) + FRAME_PREFIX, zmq_msg_size(head) - FRAME_PREFIX, 0, &m, &err) != 0) {
        snprintf(text, sizeof text, "a greeting that cannot be: %.300s", err.text);
        wire_refuse(w, c, NULL, REFUSED_GARBAGE, text);
    } else {
        wire_greet(w, l, rid, head, &m.link_hello);
    }
}

static bool has_ended(const struct listener *l, const uint8_t *rid)
{
    for (unsigned i = 0; i < l->n_ended && i < ENDED_MAX; i++)
        if (memcmp(l->ended[i], rid, RID_BYTES) == 0)
            return true;
    return false;
}

enum took recv_accepted(struct wire *w, struct listener *l, struct wire_event *ret)
{
    uint8_t rid[256];
    zmq_msg_t head, payload;
    int n = zmq_recv(l->s.z, rid, sizeof rid, ZMQ_DONTWAIT), parts, more = 0;
    size_t len = sizeof more;
    struct wire_link *link;

    if (n < 0) {
        l->s.check = false;
        return TOOK_NOTHING;
    }
    zmq_getsockopt(l->s.z, ZMQ_RCVMORE, &more, &len);
    zmq_msg_init(&head);
    if (!more || zmq_msg_recv(&head, l->s.z, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&head);
        return TOOK_ONE;
    }
    parts = recv_second(l->s.z, &head, &payload);
    link = n == RID_BYTES && rid[0] == 0 ? link_by_rid(w, l, rid) : NULL;
    if (link && parts <= 2)
        return take_frame(link, &head, parts == 2 ? &payload : NULL, ret);
    if (link) {
        broken(link, "a frame of more than two parts");
    } else if (n != RID_BYTES || !has_ended(l, rid)) {
        listener_events(w, l); /* its connection must be known, and an older one of the same descriptor forgotten */
        take_stranger(w, l, rid, &head, parts == 1 && n == RID_BYTES && rid[0] == 0);
    }
    zmq_msg_close(&head);
    if (parts > 1)
        zmq_msg_close(&payload);
    return TOOK_ONE;
}

/* --- monitors ---------------------------------------------------------------------------------------------------------------- */
static void accepted(struct wire *w, struct listener *l, int fd)
{
    struct conn *old = conns_find(&l->conns, fd), *c;

    if (old && conn_is_current(old)) /* its greeting was here before this event: see take_stranger */
        return;
    if (old && old->link) /* cannot be: its end comes first */
        link_ending(old->link, "the connection was closed");
    c = conns_add(&l->conns, fd, NULL);
    if (!c)
        return;
    if ((c = conns_oldest_pending(&l->conns, WIRE_MAX_PENDING)) != NULL) {
        wire_refuse(w, c, NULL, REFUSED_OTHER, "too many connections that have not said who they are");
        conn_kill(c);
    }
}

static void disconnected(struct wire *w, struct listener *l, int fd)
{
    struct conn *c = conns_find(&l->conns, fd);

    if (!c)
        return;
    if (c->link)
        link_ending(c->link, "the connection was closed");
    else if (!c->refused && l->keys_refused > 0)
        l->keys_refused--; /* the authentication's thread has told of it */
    else if (!c->refused)
        wire_note_refused(w, REFUSED_GARBAGE, c->address, "it connected and said nothing that belongs here");
    conns_remove(&l->conns, c);
}

void listener_events(struct wire *w, struct listener *l)
{
    int32_t value;
    int kind;

    while ((kind = sock_monitor_event(&l->s, &value)) != 0) {
        if (kind == ZMQ_EVENT_LISTENING && l->fd < 0)
            accept_watch(l->fd = value);
        else if (kind == ZMQ_EVENT_ACCEPTED)
            accepted(w, l, value);
        else if (kind == ZMQ_EVENT_DISCONNECTED)
            disconnected(w, l, value);
        else if (kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
            l->keys_refused++;
    }
}

void link_events(struct wire_link *link)
{
    int32_t value;
    int kind;

    while (link->state != LINK_GONE && (kind = sock_monitor_event(&link->s, &value)) != 0) {
        switch (kind) {
        case ZMQ_EVENT_CONNECTED:
            link->fd = value;
            link->cookie = conn_cookie(value);
            break;
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            if (link->state == LINK_CONNECTING)
                link_say_hello(link);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            snprintf(link->why, sizeof link->why, "it does not trust this node's key: an invitation that is neither used nor expired, or a file trusted/NAME.pub there, would admit it");
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            if (!link->why[0])
                snprintf(link->why, sizeof link->why, "no handshake: it has another key than the one expected, or is no Stagecoach");
            break;
        case ZMQ_EVENT_CLOSED:
        case ZMQ_EVENT_CONNECT_RETRIED:
            if (link->state == LINK_CONNECTING && link->lookup)
                link_connect_next(link);
            else if (link->state == LINK_CONNECTING)
                link_ending(link, "nobody answers there (refused, or no way to it)");
            break;
        case ZMQ_EVENT_DISCONNECTED: {
            char why[TEXT_BYTES];
            snprintf(why, sizeof why, "%s", link->why[0] ? link->why : "the connection was closed");
            link_ending(link, why);
            break;
        }
        default:
            break;
        }
    }
}

/* --- time and trust ------------------------------------------------------------------------------------------------------------ */
static void link_late(struct wire_link *link)
{
    struct conn *c;

    if (link->dialed) {
        link_down(link, link->looking                    ? "its host's name was not looked up within the time allowed: the name server is silent"
                        : link->state == LINK_CONNECTING ? "no connection within the time allowed"
                                                         : "no answer to the greeting within the time allowed");
        return;
    }
    c = conns_find(&link->listener->conns, link->fd);
    wire_refuse(link->wire, c, link, REFUSED_INVITE, "a registration that did not come");
}

static void check_conns(struct wire *w, struct listener *l, uint64_t now)
{
    uint64_t patience = (uint64_t)(WIRE_HANDSHAKE_MS + WIRE_HELLO_MS) * 1000;

    for (size_t i = 0; i < l->conns.len; i++) {
        struct conn *c = &l->conns.items[i];
        if (!c->link && !c->kill_us && now >= c->since_us + patience)
            wire_refuse(w, c, NULL, REFUSED_GARBAGE, "it connected and did not say who it is");
        if (c->kill_us && now >= c->kill_us) {
            conn_kill(c);
            c->kill_us = now + (uint64_t)KILL_MS * 1000;
        }
    }
}

/* Whatever is overdue. Returns when to look again, at the latest. */
uint64_t wire_check_time(struct wire *w)
{
    uint64_t now = wire_now_us(), next = UINT64_MAX;
    bool look = now >= w->look_us, late = look && now - w->look_us > WIRE_ALIVE_MS * 1000;

    if (look)
        w->look_us = now + WIRE_ALIVE_MS * 1000;
    for (size_t i = w->n_links; i-- > 0;) {
        struct wire_link *link = w->links[i];
        if (link->deadline_us && now >= link->deadline_us) {
            link_late(link);
            continue;
        }
        if (link->looking)
            link_connect_next(link);
        if (link->state == LINK_GONE)
            continue;
        if (link->deadline_us && link->deadline_us < next)
            next = link->deadline_us;
        if (link->watched && w->look_us < next)
            next = w->look_us;
        if (link->watched && look)
            link_look(link, late);
    }
    for (size_t i = 0; i < w->n_listeners; i++) {
        struct listener *l = w->listeners[i];
        check_conns(w, l, now);
        for (size_t j = 0; j < l->conns.len; j++)
            if ((!l->conns.items[j].link || l->conns.items[j].kill_us) && now + 100000 < next)
                next = now + 100000; /* some connection is pending: look ten times a second */
    }
    return next;
}

/* The list of trusted keys is another one: links that it does not allow go down. */
void wire_check_trust(struct wire *w)
{
    unsigned generation = atomic_load(&w->net->generation), purposes;
    char name[MSG_MAX_NAME + 1];

    if (generation == w->generation)
        return;
    w->generation = generation;
    for (size_t i = w->n_links; i-- > 0;) {
        struct wire_link *link = w->links[i];
        if (!link->has_key || !link->was_trusted)
            continue;
        if (net_allows(w->net, link->key, name, &purposes) && (purposes & 1u << link->hello.purpose) && strcmp(name, link->node) == 0)
            continue;
        link_send_bye(link, "your key is no longer trusted here", true);
        link_down(link, "its key is no longer trusted");
    }
}
