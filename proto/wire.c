/* Sockets and links of one thread: see wire.h.
 *
 * A listener is a ROUTER, a dialed link a DEALER of its own. Each has a monitor (libzmq's events about its connections):
 * that is how a link's end is seen, for libzmq would reconnect or forget silently; reconnecting is switched off. libzmq
 * offers no way to drop one peer of a ROUTER: wire_conn.c shuts the connection's descriptor down instead.
 *
 * Waiting follows libzmq's rule for its descriptors: they tell of commands, edge-triggered, so that a socket may be slept on
 * only after a receive has said EAGAIN with nothing done to the socket since. `check` says whether that still has to be
 * asked. A frame costs one poll, its receives, and no copy but of its head. */
#include "proto/wire_int.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "config.h"
#include "proto/files.h"
#include "proto/invite.h"

enum {
    RID_BYTES = 5, /* routing ids that libzmq makes: 0 and a number */
    LINGER_MS = 500, /* a closing socket may still send what is queued, the goodbye last */
    KILL_MS = 1000,  /* then whoever was told to go is cut off */
    BLOCKED_POLL_MS = 5,
    BACKLOG = 128,
    EVENTS_BETWEEN_POLLS = 32, /* frames in a row before the caller's own descriptors are looked at */
    ENDED_MAX = 256,
    FRAMES_BEFORE_DOWN = 4096, /* what a peer sent before it went is still delivered, up to this */
    CONTROL_PAYLOAD = 0,
    BULK_PAYLOAD = MSG_MAX_PROBE,
    LINK_BUCKETS = 1024,
    MAX_NOTES = 4096,
    TEXT_BYTES = 400,
};

enum link_state { LINK_CONNECTING, LINK_GREETING, LINK_UP, LINK_ENDING, LINK_GONE };

/* A libzmq socket with its monitor. */
struct sock {
    void *z, *monitor;
    int fd, monitor_fd;
    bool check, check_monitor; /* see above */
};

struct listener {
    struct sock s;
    bool ipc;
    int fd; /* the one that listens: libzmq's; -1: not known */
    struct conns conns;
    unsigned keys_refused; /* handshakes the authentication refused whose end is not seen yet */
    /* Links that went down: what they had sent before may still come, and is no stranger's. */
    uint8_t ended[ENDED_MAX][RID_BYTES];
    unsigned n_ended;
};

struct wire_link {
    struct wire *wire;
    enum link_state state;
    bool dialed, blocked, told; /* told: the caller knows of it */
    struct sock s;              /* dialed */
    struct listener *listener;  /* accepted … */
    uint8_t rid[RID_BYTES];
    int fd; /* of its conn */
    struct wire_link *next_same; /* in the hash table */
    void *user;
    struct msg_link_hello hello; /* its strings point into texts */
    struct {
        char version[MSG_MAX_VERSION + 1], node[MSG_MAX_NAME + 1], relay_to[MSG_MAX_NAME + 1];
    } texts;
    char node[MSG_MAX_NAME + 1], address[64];
    uint8_t key[KEY_BYTES];
    bool has_key, was_trusted;
    uint32_t protocol;
    uint64_t instance;
    uint64_t sent, received; /* numbers of the last frames */
    uint64_t deadline_us;
    unsigned frames_since_end;
    char why[TEXT_BYTES]; /* it ends */
    struct meter *meter;
};

/* An event that waits to be fetched. */
struct note {
    struct note *next;
    enum wire_event_kind kind;
    struct wire_link *link;
    uint64_t count;
    char text[512], address[64], name[MSG_MAX_NAME + 1];
};

struct wire {
    struct wire_net *net;
    struct wire *next; /* of the net's */
    int wake_fd;
    atomic_bool wake_pending;
    bool woken;
    unsigned generation;
    struct listener *listeners[WIRE_MAX_LISTENERS];
    size_t n_listeners;
    atomic_bool listening;
    struct wire_link *links[WIRE_MAX_LINKS];
    size_t n_links, turn;
    size_t n_blocked;
    struct wire_link *by_rid[LINK_BUCKETS];
    struct wire_link *finished; /* its DOWN was delivered: freed with the next wire_poll */
    struct note *first_note, **last_note;
    size_t n_notes;
    struct codec *codec;
    uint8_t *head; /* room for encoding: WIRE_MAX_HEAD, pages */
    struct pool *pool;
    struct pollfd *fds;
    size_t fds_cap;
    unsigned since_poll;
    /* Refusals: from this thread and the authentication's. */
    pthread_mutex_t refused_lock;
    uint64_t refused_window_us, refused_silent;
    unsigned refused_told;
    struct note *refused_first; /* filled by other threads */
};

static uint64_t ms_from_now(unsigned ms)
{
    return wire_now_us() + (uint64_t)ms * 1000;
}

/* --- events that wait ---------------------------------------------------------------------------------------------------- */
static struct note *note_add(struct wire *w, enum wire_event_kind kind, struct wire_link *link)
{
    struct note *n = w->n_notes < MAX_NOTES || link ? calloc(1, sizeof *n) : NULL;

    if (!n)
        return NULL;
    n->kind = kind;
    n->link = link;
    *w->last_note = n;
    w->last_note = &n->next;
    w->n_notes++;
    return n;
}

/* Whoever closes a link does not hear of it any more. */
static void notes_forget(struct wire *w, const struct wire_link *link)
{
    for (struct note **at = &w->first_note; *at;) {
        struct note *n = *at;
        if (n->link != link) {
            at = &n->next;
            continue;
        }
        *at = n->next;
        free(n);
        w->n_notes--;
    }
    for (w->last_note = &w->first_note; *w->last_note; w->last_note = &(*w->last_note)->next)
        ;
}

/* Somebody was turned away: counted always, told so many times a second. Any thread. */
void wire_note_refused(struct wire *w, enum refusal why, const char *address, const char *text)
{
    struct note *n;
    uint64_t now = wire_now_us();

    atomic_fetch_add(&w->net->refused[why], 1);
    pthread_mutex_lock(&w->refused_lock);
    if (now - w->refused_window_us >= 1000000) {
        w->refused_window_us = now;
        w->refused_told = 0;
    }
    if (w->refused_told >= WIRE_MAX_REFUSED_EVENTS || !(n = calloc(1, sizeof *n))) {
        w->refused_silent++;
    } else {
        w->refused_told++;
        n->kind = WIRE_REFUSED;
        n->count = 1 + w->refused_silent;
        w->refused_silent = 0;
        snprintf(n->text, sizeof n->text, "%s", text);
        snprintf(n->address, sizeof n->address, "%s", address);
        n->next = w->refused_first;
        w->refused_first = n;
    }
    pthread_mutex_unlock(&w->refused_lock);
    wire_wake(w);
}

static void fetch_refused(struct wire *w)
{
    struct note *n, *in_order = NULL;

    pthread_mutex_lock(&w->refused_lock);
    n = w->refused_first;
    w->refused_first = NULL;
    pthread_mutex_unlock(&w->refused_lock);
    while (n) {
        struct note *next = n->next;
        n->next = in_order;
        in_order = n;
        n = next;
    }
    while (in_order) {
        struct note *next = in_order->next;
        in_order->next = NULL;
        *w->last_note = in_order;
        w->last_note = &in_order->next;
        w->n_notes++;
        in_order = next;
    }
}

/* --- sockets --------------------------------------------------------------------------------------------------------------- */
static int zmq_failed(const char *what, struct err *err)
{
    return err_set(err, ERR_IO, "%s: %s", what, zmq_strerror(zmq_errno()));
}

static int set_int(void *z, int option, int value)
{
    return zmq_setsockopt(z, option, &value, sizeof value);
}

static int set_common(void *z, int64_t max_bytes, struct err *err)
{
    static const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_IMMEDIATE, 1},
        {ZMQ_SNDHWM, WIRE_SEND_QUEUE},
        {ZMQ_RCVHWM, WIRE_SEND_QUEUE},
        {ZMQ_RECONNECT_IVL, -1},
        {ZMQ_HANDSHAKE_IVL, WIRE_HANDSHAKE_MS},
        {ZMQ_HEARTBEAT_IVL, WIRE_ALIVE_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, WIRE_LOST_MS},
        {ZMQ_HEARTBEAT_TTL, WIRE_LOST_MS},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 5},
        {ZMQ_TCP_KEEPALIVE_INTVL, 2},
        {ZMQ_TCP_KEEPALIVE_CNT, 3},
        {ZMQ_BACKLOG, BACKLOG},
    };

    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (set_int(z, options[i].option, options[i].value) != 0)
            return zmq_failed("libzmq: socket option", err);
    if (zmq_setsockopt(z, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes) != 0)
        return zmq_failed("libzmq: ZMQ_MAXMSGSIZE", err);
    return 0;
}

/* peer: the key of whom we dial; NULL: we are the one that is dialed. Keys and checks are the same either way. */
static int set_curve(struct wire_net *net, void *z, const uint8_t *peer, struct err *err)
{
    bool good = zmq_setsockopt(z, ZMQ_CURVE_SECRETKEY, keys_secret(net->keys), KEY_BYTES) == 0;

    if (peer)
        good = good && zmq_setsockopt(z, ZMQ_CURVE_PUBLICKEY, keys_public(net->keys), KEY_BYTES) == 0 &&
               zmq_setsockopt(z, ZMQ_CURVE_SERVERKEY, peer, KEY_BYTES) == 0;
    else /* were the authentication's thread gone, libzmq would let anybody in, but without the user id that greet() asks for */
        good = good && set_int(z, ZMQ_CURVE_SERVER, 1) == 0 && zmq_setsockopt(z, ZMQ_ZAP_DOMAIN, "stagecoach", 10) == 0;
    return good ? 0 : zmq_failed("libzmq: CURVE keys", err);
}

static int fd_of(void *z)
{
    int fd = -1;
    size_t len = sizeof fd;

    return zmq_getsockopt(z, ZMQ_FD, &fd, &len) == 0 ? fd : -1;
}

/* A socket of a type with its monitor, not yet bound or connected. */
static int sock_open(struct wire *w, struct sock *s, int type, int64_t max_bytes, struct err *err)
{
    static atomic_uint serial;
    char name[64];

    *s = (struct sock){.fd = -1, .monitor_fd = -1};
    snprintf(name, sizeof name, "inproc://monitor-%u", atomic_fetch_add(&serial, 1));
    s->z = zmq_socket(w->net->ctx, type);
    s->monitor = zmq_socket(w->net->ctx, ZMQ_PAIR);
    if (!s->z || !s->monitor)
        return zmq_failed("libzmq: no more sockets", err);
    if (set_common(s->z, max_bytes, err) != 0)
        return -1;
    set_int(s->monitor, ZMQ_LINGER, 0);
    set_int(s->monitor, ZMQ_RCVHWM, 0); /* its events are few and must not be lost */
    if (zmq_socket_monitor(s->z, name, ZMQ_EVENT_ALL) != 0 || zmq_connect(s->monitor, name) != 0)
        return zmq_failed("libzmq: monitor", err);
    s->fd = fd_of(s->z);
    s->monitor_fd = fd_of(s->monitor);
    s->check = s->check_monitor = true;
    return s->fd < 0 || s->monitor_fd < 0 ? zmq_failed("libzmq: descriptor", err) : 0;
}

static void sock_close(struct sock *s, int linger_ms)
{
    if (s->z) {
        set_int(s->z, ZMQ_LINGER, linger_ms);
        zmq_socket_monitor(s->z, NULL, 0);
        zmq_close(s->z);
    }
    if (s->monitor)
        zmq_close(s->monitor);
    *s = (struct sock){.fd = -1, .monitor_fd = -1};
}

/* Receives one event of a monitor. Returns its kind, 0 when there is none. */
static int monitor_event(struct sock *s, int32_t *ret_value)
{
    uint8_t head[6] = {0};
    char endpoint[MSG_MAX_ADDRESS];
    uint16_t kind;

    if (!s->monitor || zmq_recv(s->monitor, head, sizeof head, ZMQ_DONTWAIT) != sizeof head) {
        s->check_monitor = false;
        return 0;
    }
    zmq_recv(s->monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    memcpy(&kind, head, sizeof kind);
    memcpy(ret_value, head + 2, sizeof *ret_value);
    return kind;
}

/* --- links: finding, sending ------------------------------------------------------------------------------------------------ */
static size_t bucket_of(const struct listener *l, const uint8_t *rid)
{
    uint32_t n;

    memcpy(&n, rid + 1, sizeof n);
    return (n * 2654435761u + (uint32_t)(uintptr_t)l) % LINK_BUCKETS;
}

static struct wire_link *link_by_rid(struct wire *w, const struct listener *l, const uint8_t *rid)
{
    struct wire_link *link = w->by_rid[bucket_of(l, rid)];

    while (link && (link->listener != l || memcmp(link->rid, rid, RID_BYTES) != 0))
        link = link->next_same;
    return link;
}

static struct wire_link *link_new(struct wire *w, struct err *err)
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
static void link_detach(struct wire_link *link, int linger_ms)
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
    } else {
        struct wire_link **at = &w->by_rid[bucket_of(link->listener, link->rid)];
        while (*at && *at != link)
            at = &(*at)->next_same;
        if (*at)
            *at = link->next_same;
        memcpy(link->listener->ended[link->listener->n_ended++ % ENDED_MAX], link->rid, RID_BYTES);
        struct conn *c = conns_find(&link->listener->conns, link->fd);
        if (c && c->link == link) {
            c->link = NULL;
            c->refused = true; /* its end is no refusal */
            c->kill_us = ms_from_now(KILL_MS);
        }
    }
    if (link->blocked)
        w->n_blocked--;
    link->blocked = false;
    link->state = LINK_GONE;
}

static void link_free(struct wire_link *link)
{
    meter_unref(link->meter);
    free(link);
}

/* Over at once. The caller hears of it if it knew of the link. */
static void link_down(struct wire_link *link, const char *why)
{
    struct wire *w = link->wire;
    struct note *n;

    link_detach(link, 0);
    if (!link->told) {
        link_free(link);
        return;
    }
    atomic_fetch_add(&w->net->down, 1);
    n = note_add(w, WIRE_DOWN, link);
    if (!n)
        return; /* no memory at all: the link stays silent, its heartbeat will be missed */
    snprintf(n->text, sizeof n->text, "%s", why);
    snprintf(n->address, sizeof n->address, "%s", link->address);
    snprintf(n->name, sizeof n->name, "%s", link->node);
}

/* Over once what has arrived is delivered. */
static void link_ending(struct wire_link *link, const char *why)
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

static int64_t payload_max(enum link_purpose purpose)
{
    return purpose == LINK_DATA ? WIRE_MAX_PAYLOAD : purpose == LINK_BULK ? BULK_PAYLOAD : CONTROL_PAYLOAD;
}

static enum wire_sent check_sendable(struct wire_link *link, size_t head_len, size_t payload_len, struct err *err)
{
    if (link->state != LINK_UP) {
        err_set(err, ERR_IO, "link to %s: it is not up", link->node);
        return WIRE_FAILED;
    }
    if (head_len > WIRE_MAX_HEAD || payload_len > (size_t)payload_max(link->hello.purpose)) {
        err_set(err, ERR_LIMIT, "link to %s: a frame of %zu + %zu bytes, at most %d + %lld are allowed on a %s link", link->node, head_len,
                payload_len, WIRE_MAX_HEAD, (long long)payload_max(link->hello.purpose), link_purpose_name(link->hello.purpose));
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
static bool send_small(struct wire_link *link, const struct msg *m, uint64_t sent_number)
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

static void send_bye(struct wire_link *link, const char *text)
{
    struct msg m = {.type = MSG_BYE, .bye.text = text};

    send_small(link, &m, 0);
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
    if (has_payload)
        send_payload(link, &rows);
    else if (free_fn)
        free_fn(payload, hint);
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

/* --- greetings -------------------------------------------------------------------------------------------------------------- */
static void keep_hello(struct wire_link *link, const struct msg_link_hello *hello)
{
    link->hello = *hello;
    snprintf(link->texts.version, sizeof link->texts.version, "%s", hello->version);
    snprintf(link->texts.node, sizeof link->texts.node, "%s", hello->node);
    snprintf(link->texts.relay_to, sizeof link->texts.relay_to, "%s", hello->relay_to ? hello->relay_to : "");
    link->hello.version = link->texts.version;
    link->hello.node = link->texts.node;
    link->hello.relay_to = link->texts.relay_to;
}

static void up(struct wire_link *link)
{
    link->state = LINK_UP;
    link->deadline_us = 0;
    link->told = true;
    note_add(link->wire, WIRE_UP, link);
}

/* Turned away: told why, then cut off. */
static void refuse(struct wire *w, struct conn *c, struct wire_link *link, enum refusal why, const char *text)
{
    if (c && !c->refused)
        wire_note_refused(w, why, c->address, text);
    if (c) {
        c->refused = true;
        if (!c->kill_us)
            c->kill_us = ms_from_now(KILL_MS);
    }
    if (link) {
        send_bye(link, text);
        link_detach(link, 0);
        link_free(link);
    }
}

/* The protocol that both know, or 0. */
static uint32_t agree(const struct wire_net *net, const struct msg_link_hello *h)
{
    uint32_t max = h->protocol_max < net->protocol_max ? h->protocol_max : net->protocol_max;
    uint32_t min = h->protocol_min > net->protocol_min ? h->protocol_min : net->protocol_min;

    return max >= min ? max : 0;
}

/* Whether this greeting may stand; else why not. */
static bool admit(struct wire *w, struct wire_link *link, const struct conn *c, enum refusal *ret_why, char *text, size_t cap)
{
    const struct msg_link_hello *h = &link->hello;
    unsigned purposes = NET_ALL_PURPOSES;

    *ret_why = REFUSED_OTHER;
    if (link->has_key) {
        link->was_trusted = net_allows(w->net, link->key, link->node, &purposes);
        if (!link->was_trusted && h->purpose != LINK_REGISTER) {
            *ret_why = REFUSED_KEY;
            snprintf(text, cap, "the key is not trusted here: register it by an invitation first");
            return false;
        }
    } else if (link->listener->ipc && !conn_is_same_user(c)) {
        snprintf(text, cap, "a process of another user may not connect here");
        return false;
    }
    link->protocol = agree(w->net, h);
    if (link->protocol == 0) {
        *ret_why = REFUSED_VERSION;
        snprintf(text, cap, "%.64s (stagecoach %.64s) speaks protocols %u to %u, %s (stagecoach %s) speaks %u to %u: update the older one", link->node,
                 h->version, h->protocol_min, h->protocol_max, w->net->node, PACKAGE_VERSION, w->net->protocol_min, w->net->protocol_max);
        return false;
    }
    if (!(purposes & 1u << h->purpose) || (h->purpose == LINK_REGISTER && !(w->net->registrations && link->has_key))) {
        snprintf(text, cap, "%.64s may not open a %s link here", link->node, link_purpose_name(h->purpose));
        return false;
    }
    return true;
}

static void set_peer_key(struct wire_link *link, zmq_msg_t *part)
{
    const char *user = zmq_msg_gets(part, "User-Id");

    link->has_key = user && key_parse(user, link->key, NULL) == 0;
}

/* The first frame of an accepted connection. */
static void greet(struct wire *w, struct listener *l, const uint8_t *rid, zmq_msg_t *part, const struct msg_link_hello *hello)
{
    struct conn *c = conns_find(&l->conns, zmq_msg_get(part, ZMQ_SRCFD));
    enum refusal why = REFUSED_OTHER;
    char text[TEXT_BYTES] = "too many links";
    struct wire_link *link;
    size_t bucket = bucket_of(l, rid);

    if (!c || c->kill_us)
        return; /* gone, or on its way out */
    if (!(link = link_new(w, NULL))) {
        refuse(w, c, NULL, why, text);
        return;
    }
    link->listener = l;
    link->fd = c->fd;
    memcpy(link->rid, rid, RID_BYTES);
    link->next_same = w->by_rid[bucket];
    w->by_rid[bucket] = link;
    c->link = link;
    keep_hello(link, hello);
    snprintf(link->node, sizeof link->node, "%s", hello->node);
    snprintf(link->address, sizeof link->address, "%s", c->address);
    link->instance = hello->instance;
    set_peer_key(link, part);
    if (!link->has_key && !l->ipc && !w->net->plaintext) {
        refuse(w, c, link, REFUSED_KEY, "a connection without a key");
        return;
    }
    if (!admit(w, link, c, &why, text, sizeof text)) {
        refuse(w, c, link, why, text);
        return;
    }
    struct msg ok = {.type = MSG_LINK_OK,
                     .link_ok = {.protocol = link->protocol, .version = PACKAGE_VERSION, .node = w->net->node, .instance = w->net->instance}};
    send_small(link, &ok, 0);
    atomic_fetch_add(&w->net->accepted, 1);
    if (hello->purpose == LINK_REGISTER) {
        link->state = LINK_GREETING; /* never told to the caller */
        link->deadline_us = ms_from_now(WIRE_HELLO_MS);
    } else {
        up(link);
    }
}

/* An invitation is taken up, or not. */
static void register_peer(struct wire_link *link, const struct msg_register *m)
{
    struct wire *w = link->wire;
    struct listener *l = link->listener;
    struct conn *c = conns_find(&l->conns, link->fd);
    struct err err = {0};
    struct note *n;

    if (invite_redeem(w->net->keys, m->secret, m->name, link->key, (uint64_t)time(NULL), &err) != 0) {
        refuse(w, c, link, REFUSED_INVITE, err.text);
        return;
    }
    struct msg done = {.type = MSG_REGISTERED, .registered = {.name = m->name, .coordinator = w->net->node}};
    send_small(link, &done, 1);
    atomic_fetch_add(&w->net->registered, 1);
    if ((n = note_add(w, WIRE_REGISTERED, NULL)) != NULL) {
        snprintf(n->name, sizeof n->name, "%s", m->name);
        snprintf(n->address, sizeof n->address, "%s", link->address);
    }
    link_detach(link, 0);
    link_free(link);
}

/* What the acceptor answered to our greeting. */
static void answered(struct wire_link *link, const struct msg *m)
{
    struct wire_net *net = link->wire->net;
    const struct msg_link_ok *ok = &m->link_ok;
    char text[TEXT_BYTES];

    if (ok->protocol < net->protocol_min || ok->protocol > net->protocol_max) {
        snprintf(text, sizeof text, "%.64s chose protocol %u, here %u to %u are known", ok->node, ok->protocol, net->protocol_min,
                 net->protocol_max);
        link_down(link, text);
        return;
    }
    link->protocol = ok->protocol;
    link->instance = ok->instance;
    if (!link->node[0])
        snprintf(link->node, sizeof link->node, "%s", ok->node);
    up(link);
}

static void say_hello(struct wire_link *link)
{
    struct msg m = {.type = MSG_LINK_HELLO, .link_hello = link->hello};

    link->state = LINK_GREETING;
    if (!send_small(link, &m, 0))
        link_ending(link, "the greeting could not be sent");
}

/* --- receiving --------------------------------------------------------------------------------------------------------------- */
enum took { TOOK_NOTHING, TOOK_ONE, TOOK_FRAME };

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
    send_bye(link, text);
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
        link_down(link, text);
    } else if (p->type == MSG_LINK_OK && link->dialed && link->state == LINK_GREETING) {
        answered(link, &m);
    } else if (p->type == MSG_REGISTER && !link->dialed && link->hello.purpose == LINK_REGISTER) {
        register_peer(link, &m.register_);
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
    else if (payload_len > (size_t)payload_max(link->hello.purpose))
        snprintf(buf, cap, "%zu bytes of payload, at most %lld are allowed on a %s link", payload_len,
                 (long long)payload_max(link->hello.purpose), link_purpose_name(link->hello.purpose));
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

    if (!frame_prefix_get(zmq_msg_data(head), zmq_msg_size(head), &p)) {
        broken(link, "a frame without its beginning");
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

static enum took recv_dialed(struct wire_link *link, struct wire_event *ret)
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

    /* libzmq hands a connection to its I/O thread first and tells of it then: a quick peer's greeting may be here before. */
    if (!c || !conn_is_current(c))
        c = conns_add(&l->conns, fd, NULL);
    if (!c || c->kill_us)
        return;
    if (!single || !frame_prefix_get(zmq_msg_data(head), zmq_msg_size(head), &p) || p.type != MSG_LINK_HELLO) {
        refuse(w, c, NULL, REFUSED_GARBAGE, "what came first was no greeting");
    } else if (codec_decode(w->codec, p.type, (uint8_t *)zmq_msg_data(head) + FRAME_PREFIX, zmq_msg_size(head) - FRAME_PREFIX, 0, &m, &err) != 0) {
        snprintf(text, sizeof text, "a greeting that cannot be: %.300s", err.text);
        refuse(w, c, NULL, REFUSED_GARBAGE, text);
    } else {
        greet(w, l, rid, head, &m.link_hello);
    }
}

static void listener_events(struct wire *w, struct listener *l);

static bool has_ended(const struct listener *l, const uint8_t *rid)
{
    for (unsigned i = 0; i < l->n_ended && i < ENDED_MAX; i++)
        if (memcmp(l->ended[i], rid, RID_BYTES) == 0)
            return true;
    return false;
}

static enum took recv_accepted(struct wire *w, struct listener *l, struct wire_event *ret)
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
        refuse(w, c, NULL, REFUSED_OTHER, "too many connections that have not said who they are");
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

static void listener_events(struct wire *w, struct listener *l)
{
    int32_t value;
    int kind;

    while ((kind = monitor_event(&l->s, &value)) != 0) {
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

static void dialed_events(struct wire_link *link)
{
    int32_t value;
    int kind;

    while (link->state != LINK_GONE && (kind = monitor_event(&link->s, &value)) != 0) {
        switch (kind) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            if (link->state == LINK_CONNECTING)
                say_hello(link);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            snprintf(link->why, sizeof link->why, "it does not trust this node's key: an invitation or a file trusted/NAME.pub there would admit it");
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            if (!link->why[0])
                snprintf(link->why, sizeof link->why, "no handshake: it has another key than the one expected, or is no Stagecoach");
            break;
        case ZMQ_EVENT_CLOSED:
        case ZMQ_EVENT_CONNECT_RETRIED:
            if (link->state == LINK_CONNECTING)
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
        link_down(link, link->state == LINK_CONNECTING ? "no connection within the time allowed" : "no answer to the greeting within the time allowed");
        return;
    }
    c = conns_find(&link->listener->conns, link->fd);
    refuse(link->wire, c, link, REFUSED_INVITE, "a registration that did not come");
}

static void check_conns(struct wire *w, struct listener *l, uint64_t now)
{
    uint64_t patience = (uint64_t)(WIRE_HANDSHAKE_MS + WIRE_HELLO_MS) * 1000;

    for (size_t i = 0; i < l->conns.len; i++) {
        struct conn *c = &l->conns.items[i];
        if (!c->link && !c->kill_us && now >= c->since_us + patience)
            refuse(w, c, NULL, REFUSED_GARBAGE, "it connected and did not say who it is");
        if (c->kill_us && now >= c->kill_us) {
            conn_kill(c);
            c->kill_us = now + (uint64_t)KILL_MS * 1000;
        }
    }
}

/* Whatever is overdue. Returns when to look again, at the latest. */
static uint64_t check_time(struct wire *w)
{
    uint64_t now = wire_now_us(), next = UINT64_MAX;

    for (size_t i = w->n_links; i-- > 0;) {
        struct wire_link *link = w->links[i];
        if (link->deadline_us && now >= link->deadline_us)
            link_late(link);
        else if (link->deadline_us && link->deadline_us < next)
            next = link->deadline_us;
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
static void check_trust(struct wire *w)
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
        send_bye(link, "your key is no longer trusted here");
        link_down(link, "its key is no longer trusted");
    }
}

/* --- polling -------------------------------------------------------------------------------------------------------------------- */
static bool fetch_note(struct wire *w, struct wire_event *ret)
{
    struct note *n = w->first_note;

    if (!n)
        return false;
    w->first_note = n->next;
    if (!w->first_note)
        w->last_note = &w->first_note;
    w->n_notes--;
    ret->kind = n->kind;
    ret->link = n->link;
    ret->count = n->count;
    memcpy(ret->text, n->text, sizeof ret->text);
    memcpy(ret->address, n->address, sizeof ret->address);
    memcpy(ret->name, n->name, sizeof ret->name);
    if (n->kind == WIRE_DOWN)
        w->finished = n->link;
    free(n);
    return true;
}

/* A link that has come to its end goes down once nothing of it is left to receive. */
static void end_links(struct wire *w, const struct listener *drained)
{
    for (size_t i = w->n_links; i-- > 0;) {
        struct wire_link *link = w->links[i];
        if (link->state == LINK_ENDING && (link->dialed ? !link->s.check : link->listener == drained))
            link_down(link, link->why);
    }
}

static bool count_frame(struct wire_event *ret)
{
    struct wire_link *link = ret->link;

    if (link->state == LINK_ENDING && ++link->frames_since_end >= FRAMES_BEFORE_DOWN)
        link_down(link, link->why); /* its socket never runs dry */
    return true;
}

/* Looks at one socket: everything its monitor tells, and one frame. */
static bool pump_listener(struct wire *w, struct listener *l, struct wire_event *ret)
{
    if (l->s.check_monitor)
        listener_events(w, l);
    while (l->s.check) {
        enum took took = recv_accepted(w, l, ret);
        if (took == TOOK_FRAME)
            return count_frame(ret);
        if (took == TOOK_NOTHING)
            end_links(w, l);
        if (w->first_note)
            return false;
    }
    return false;
}

static bool pump_dialed(struct wire *w, struct wire_link *link, struct wire_event *ret)
{
    if (link->s.check_monitor)
        dialed_events(link);
    while (link->state != LINK_GONE && link->s.check) {
        enum took took = recv_dialed(link, ret);
        if (took == TOOK_FRAME)
            return count_frame(ret);
        if (took == TOOK_NOTHING && link->state == LINK_ENDING)
            link_down(link, link->why);
        if (w->first_note)
            return false;
    }
    return false;
}

/* One event without waiting; sockets take turns. */
static bool pump(struct wire *w, struct wire_event *ret)
{
    size_t n = w->n_listeners + w->n_links;

    for (size_t k = 0; k < n; k++) {
        size_t i = w->turn++ % n;
        bool got = false;
        if (i < w->n_listeners)
            got = pump_listener(w, w->listeners[i], ret);
        else if (i - w->n_listeners < w->n_links && w->links[i - w->n_listeners]->dialed)
            got = pump_dialed(w, w->links[i - w->n_listeners], ret);
        if (got)
            return true;
        if (w->first_note)
            return fetch_note(w, ret);
    }
    return false;
}

static bool fetch_writable(struct wire *w, struct wire_event *ret)
{
    for (size_t i = 0; w->n_blocked > 0 && i < w->n_links; i++) {
        struct wire_link *link = w->links[(w->turn + i) % w->n_links];
        if (!link->blocked)
            continue;
        link->blocked = false;
        w->n_blocked--;
        ret->kind = WIRE_WRITABLE;
        ret->link = link;
        return true;
    }
    return false;
}

static void add_fd(struct wire *w, size_t *n, int fd)
{
    w->fds[(*n)++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

/* All descriptors: ours, then the caller's. Two for each socket, in the order of listeners and links. */
static int gather(struct wire *w, const struct pollfd *extra, size_t n_extra, size_t *ret_n, struct err *err)
{
    size_t n = 0, need = 1 + 2 * (w->n_listeners + w->n_links) + n_extra;

    if (need > w->fds_cap && mem_grow(&w->fds, &w->fds_cap, need, sizeof *w->fds, 8 * WIRE_MAX_LINKS, "descriptors", err) != 0)
        return -1;
    add_fd(w, &n, w->wake_fd);
    for (size_t i = 0; i < w->n_listeners; i++) {
        add_fd(w, &n, w->listeners[i]->s.fd);
        add_fd(w, &n, w->listeners[i]->s.monitor_fd);
    }
    for (size_t i = 0; i < w->n_links; i++) {
        add_fd(w, &n, w->links[i]->s.fd); /* -1 of an accepted one: poll passes it over */
        add_fd(w, &n, w->links[i]->s.monitor_fd);
    }
    for (size_t i = 0; i < n_extra; i++)
        w->fds[n++] = extra[i];
    *ret_n = n;
    return 0;
}

static void mark(struct sock *s, const struct pollfd *fds)
{
    s->check |= fds[0].revents != 0;
    s->check_monitor |= fds[1].revents != 0;
}

/* Sleeps at most so long. Returns 1 if something of the caller's is ready, 0 otherwise, -1 on failure. */
static int sleep_on(struct wire *w, int timeout_ms, struct pollfd *extra, size_t n_extra, struct err *err)
{
    size_t n, at = 1;
    int ready = 0, rc;

    if (gather(w, extra, n_extra, &n, err) != 0)
        return -1;
    rc = poll(w->fds, n, timeout_ms);
    if (rc < 0)
        return errno == EINTR ? 0 : err_errno(err, errno, "poll");
    w->since_poll = 0;
    if (w->fds[0].revents) {
        uint64_t ignored;
        ssize_t got = read(w->wake_fd, &ignored, sizeof ignored);
        (void)got;
        w->woken = true;
        atomic_store(&w->wake_pending, false);
    }
    for (size_t i = 0; i < w->n_listeners; i++, at += 2)
        mark(&w->listeners[i]->s, &w->fds[at]);
    for (size_t i = 0; i < w->n_links; i++, at += 2)
        mark(&w->links[i]->s, &w->fds[at]);
    for (size_t i = 0; i < n_extra; i++) {
        extra[i].revents = w->fds[at + i].revents;
        ready |= extra[i].revents != 0;
    }
    return ready;
}

static int wait_ms(const struct wire *w, int timeout_ms, uint64_t until_us, uint64_t next_us)
{
    uint64_t now = wire_now_us(), end = timeout_ms < 0 ? UINT64_MAX : until_us;
    uint64_t ms;

    end = next_us < end ? next_us : end;
    if (w->n_blocked > 0 && now + BLOCKED_POLL_MS * 1000 < end)
        end = now + BLOCKED_POLL_MS * 1000;
    if (end == UINT64_MAX)
        return -1;
    ms = end <= now ? 0 : (end - now + 999) / 1000;
    return ms > 3600000 ? 3600000 : (int)ms;
}

int wire_poll(struct wire *w, int timeout_ms, struct pollfd *extra, size_t n_extra, struct wire_event *ret, struct err *err)
{
    uint64_t until_us = timeout_ms > 0 ? ms_from_now((unsigned)timeout_ms) : 0;
    bool slept = false;
    int ready = 0;

    ret->kind = WIRE_NONE;
    ret->link = NULL;
    ret->frame = NULL;
    for (size_t i = 0; i < n_extra; i++)
        extra[i].revents = 0;
    if (w->finished) {
        link_free(w->finished);
        w->finished = NULL;
    }
    if (++w->since_poll > EVENTS_BETWEEN_POLLS && (ready = sleep_on(w, 0, extra, n_extra, err)) != 0)
        return ready < 0 ? -1 : 0;
    for (;;) {
        check_trust(w);
        fetch_refused(w);
        if (fetch_note(w, ret) || pump(w, ret))
            return 1;
        uint64_t next_us = check_time(w);
        if (fetch_note(w, ret) || (slept && fetch_writable(w, ret)))
            return 1;
        if (w->woken) {
            w->woken = false;
            check_trust(w);
            fetch_refused(w);
            if (!fetch_note(w, ret))
                return 0;
            return 1;
        }
        if (ready || (slept && timeout_ms >= 0 && wire_now_us() >= until_us))
            return 0;
        ready = sleep_on(w, timeout_ms == 0 ? 0 : wait_ms(w, timeout_ms, until_us, next_us), extra, n_extra, err);
        if (ready < 0)
            return -1;
        slept = true;
    }
}

void wire_wake(struct wire *w)
{
    uint64_t one = 1;

    if (!atomic_exchange(&w->wake_pending, true)) {
        ssize_t ignored = write(w->wake_fd, &one, sizeof one);
        (void)ignored;
    }
}

/* --- life ------------------------------------------------------------------------------------------------------------------------- */
struct wire **wire_next_slot(struct wire *w)
{
    return &w->next;
}

bool wire_is_listening(struct wire *w)
{
    return atomic_load(&w->listening);
}

struct wire *wire_create(struct wire_net *net, struct err *err)
{
    struct wire *w = mem_new(1, sizeof *w, err);

    if (!w)
        return NULL;
    w->net = net;
    w->last_note = &w->first_note;
    pthread_mutex_init(&w->refused_lock, NULL);
    w->generation = atomic_load(&net->generation);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->wake_fd < 0) {
        err_errno(err, errno, "eventfd");
        wire_destroy(w);
        return NULL;
    }
    /* Encoding needs room beside decoding: a codec of the larger size serves wire_send_msg with any step. */
    if (!(w->codec = codec_create(CODEC_DATA_BYTES, err)) || !(w->head = mem_pages_alloc(WIRE_MAX_HEAD, err)) || !(w->pool = pool_create(err))) {
        wire_destroy(w);
        return NULL;
    }
    net_add_wire(net, w);
    return w;
}

static void listener_free(struct listener *l)
{
    accept_unwatch(l->fd);
    sock_close(&l->s, LINGER_MS);
    free(l->conns.items);
    free(l);
}

void wire_destroy(struct wire *w)
{
    if (!w)
        return;
    net_remove_wire(w->net, w);
    while (w->n_links > 0)
        wire_link_close(w->links[w->n_links - 1], "the process ends");
    fetch_refused(w);
    while (w->first_note) {
        struct note *n = w->first_note;
        w->first_note = n->next;
        if (n->kind == WIRE_DOWN)
            link_free(n->link);
        free(n);
    }
    if (w->finished)
        link_free(w->finished);
    for (size_t i = 0; i < w->n_listeners; i++)
        listener_free(w->listeners[i]);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    codec_destroy(w->codec);
    mem_pages_free(w->head, WIRE_MAX_HEAD);
    pool_unref(w->pool);
    pthread_mutex_destroy(&w->refused_lock);
    free(w->fds);
    free(w);
}

/* The socket file of ipc stands where only this user may go. */
static int check_ipc_folder(const char *path, struct err *err)
{
    char folder[MSG_MAX_ADDRESS + 1];
    char *slash;

    snprintf(folder, sizeof folder, "%s", path);
    slash = strrchr(folder, '/');
    if (!slash || slash == folder)
        return err_set(err, ERR_USAGE, "ipc://%s: the socket needs a folder of its own, which only this user may enter", path);
    *slash = '\0';
    return files_check_folder(folder, err);
}

static int secure(struct wire *w, struct sock *s, bool ipc, const char *endpoint, const uint8_t *peer, bool dialing, struct err *err)
{
    if (strchr(endpoint, '['))
        set_int(s->z, ZMQ_IPV6, 1);
    if (ipc || w->net->plaintext)
        return 0;
    if (!w->net->keys)
        return err_set(err, ERR_USAGE, "%s: tcp needs keys", endpoint);
    if (dialing && !peer)
        return err_set(err, ERR_USAGE, "%s: the key of whoever is to answer there is not known", endpoint);
    return set_curve(w->net, s->z, peer, err);
}

int wire_listen(struct wire *w, const char *endpoint, char ret_endpoint[MSG_MAX_ADDRESS + 1], struct err *err)
{
    bool ipc = strncmp(endpoint, "ipc://", 6) == 0;
    char bound[MSG_MAX_ADDRESS + 1] = "";
    size_t len = sizeof bound;
    struct listener *l;

    if (endpoint_check(endpoint, true, err) != 0 || (ipc && check_ipc_folder(endpoint + 6, err) != 0))
        return -1;
    if (w->n_listeners == WIRE_MAX_LISTENERS)
        return err_set(err, ERR_LIMIT, "at most %d addresses can be listened on", WIRE_MAX_LISTENERS);
    if (!(l = mem_new(1, sizeof *l, err)))
        return -1;
    l->ipc = ipc;
    l->fd = -1;
    if (sock_open(w, &l->s, ZMQ_ROUTER, WIRE_MAX_PAYLOAD, err) != 0 || secure(w, &l->s, ipc, endpoint, NULL, false, err) != 0)
        goto failed;
    if (set_int(l->s.z, ZMQ_ROUTER_MANDATORY, 1) != 0 || zmq_bind(l->s.z, endpoint) != 0) {
        err_set(err, zmq_errno() == EADDRINUSE ? ERR_BUSY : ERR_IO, "listening on %s: %s", endpoint, zmq_strerror(zmq_errno()));
        goto failed;
    }
    if (ret_endpoint && zmq_getsockopt(l->s.z, ZMQ_LAST_ENDPOINT, bound, &len) == 0)
        snprintf(ret_endpoint, MSG_MAX_ADDRESS + 1, "%s", bound);
    w->listeners[w->n_listeners++] = l;
    atomic_store(&w->listening, true);
    listener_events(w, l); /* LISTENING came with the bind */
    return 0;
failed:
    listener_free(l);
    return -1;
}

/* Bulk has an I/O thread of its own where there are two: encrypting it does not hold up a step. */
static int set_affinity(struct wire *w, void *z, enum link_purpose purpose, struct err *err)
{
    uint64_t mask = w->net->io_threads < 2 ? 1 : purpose == LINK_BULK ? 2 : 1;

    return zmq_setsockopt(z, ZMQ_AFFINITY, &mask, sizeof mask) == 0 ? 0 : zmq_failed("libzmq: ZMQ_AFFINITY", err);
}

static void fill_dialed(struct wire_link *link, const struct wire_dial *dial)
{
    struct wire_net *net = link->wire->net;
    struct msg_link_hello hello = {
        .purpose = dial->purpose,
        .protocol_min = net->protocol_min,
        .protocol_max = net->protocol_max,
        .version = PACKAGE_VERSION,
        .node = net->node,
        .instance = net->instance,
        .epoch = dial->epoch,
        .stage = dial->stage,
        .upstream = dial->upstream,
        .relay_to = dial->relay_to ? dial->relay_to : "",
    };
    unsigned purposes;

    keep_hello(link, &hello);
    link->dialed = true;
    link->told = true;
    link->user = dial->user;
    link->deadline_us = ms_from_now(dial->timeout_ms > 0 ? (unsigned)dial->timeout_ms : WIRE_CONNECT_MS);
    snprintf(link->address, sizeof link->address, "%s", strncmp(dial->endpoint, "tcp://", 6) == 0 ? dial->endpoint + 6 : "ipc");
    if (dial->key && strncmp(dial->endpoint, "tcp://", 6) == 0 && !net->plaintext) {
        memcpy(link->key, dial->key, KEY_BYTES);
        link->has_key = true;
        link->was_trusted = net_allows(net, dial->key, link->node, &purposes) && (!dial->node || strcmp(dial->node, link->node) == 0);
    }
    if (dial->node)
        snprintf(link->node, sizeof link->node, "%s", dial->node);
}

struct wire_link *wire_dial(struct wire *w, const struct wire_dial *dial, struct err *err)
{
    bool ipc = strncmp(dial->endpoint, "ipc://", 6) == 0;
    int64_t max = payload_max(dial->purpose) > WIRE_MAX_HEAD ? payload_max(dial->purpose) : WIRE_MAX_HEAD + FRAME_PREFIX;
    struct wire_link *link;

    if (endpoint_check(dial->endpoint, false, err) != 0)
        return NULL;
    if (!(link = link_new(w, err)))
        return NULL;
    fill_dialed(link, dial);
    if (sock_open(w, &link->s, ZMQ_DEALER, max, err) == 0 && set_affinity(w, link->s.z, dial->purpose, err) == 0 &&
        secure(w, &link->s, ipc, dial->endpoint, dial->key, true, err) == 0) {
        if (zmq_connect(link->s.z, dial->endpoint) == 0) {
            atomic_fetch_add(&w->net->dialed, 1);
            return link;
        }
        err_set(err, ERR_IO, "dialing %s: %s", dial->endpoint, zmq_strerror(zmq_errno()));
    }
    link_detach(link, 0);
    link_free(link);
    return NULL;
}

void wire_link_close(struct wire_link *link, const char *reason)
{
    if (!link)
        return;
    if (link->state == LINK_UP)
        send_bye(link, reason ? reason : "closed");
    link_detach(link, LINGER_MS);
    notes_forget(link->wire, link);
    if (link->wire->finished == link)
        link->wire->finished = NULL;
    link_free(link);
}

/* --- what is known of a link ------------------------------------------------------------------------------------------------------ */
void *wire_link_user(const struct wire_link *link)
{
    return link->user;
}

void wire_link_set_user(struct wire_link *link, void *user)
{
    link->user = user;
}

enum link_purpose wire_link_purpose(const struct wire_link *link)
{
    return link->hello.purpose;
}

const char *wire_link_node(const struct wire_link *link)
{
    return link->node;
}

const uint8_t *wire_link_key(const struct wire_link *link)
{
    return link->has_key ? link->key : NULL;
}

const char *wire_link_address(const struct wire_link *link)
{
    return link->address;
}

bool wire_link_dialed(const struct wire_link *link)
{
    return link->dialed;
}

uint32_t wire_link_protocol(const struct wire_link *link)
{
    return link->protocol;
}

uint64_t wire_link_instance(const struct wire_link *link)
{
    return link->instance;
}

const struct msg_link_hello *wire_link_hello(const struct wire_link *link)
{
    return &link->hello;
}
