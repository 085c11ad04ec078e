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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hostport.h"
#include "base/mem.h"
#include "config.h"
#include "proto/files.h"

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
    ret->goodbye = n->goodbye;
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
        link_events(link);
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
        w->writable_us = wire_now_us();
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
    uint64_t until_us = timeout_ms > 0 ? wire_ms_from_now((unsigned)timeout_ms) : 0;
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
    if (++w->since_poll > EVENTS_BETWEEN_POLLS) {
        wire_check_time(w); /* also where frames never end */
        if ((ready = sleep_on(w, 0, extra, n_extra, err)) != 0)
            return ready < 0 ? -1 : 0;
    }
    for (;;) {
        wire_check_trust(w);
        wire_fetch_refused(w);
        /* Now and then also while frames keep coming, so that a blocked link is not forgotten over them. */
        if (w->n_blocked > 0 && wire_now_us() - w->writable_us >= BLOCKED_POLL_MS * 1000 && fetch_writable(w, ret))
            return 1;
        if (fetch_note(w, ret) || pump(w, ret))
            return 1;
        uint64_t next_us = wire_check_time(w);
        if (fetch_note(w, ret) || (slept && fetch_writable(w, ret)))
            return 1;
        if (w->woken) {
            w->woken = false;
            wire_check_trust(w);
            wire_fetch_refused(w);
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
    wire_fetch_refused(w);
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

/* IPv6 is not looked at without being told. */
static void allow_family(struct sock *s, const char *endpoint)
{
    if (strchr(endpoint, '['))
        sock_set_int(s->z, ZMQ_IPV6, 1);
}

static int secure(struct wire *w, struct sock *s, bool ipc, const char *endpoint, const uint8_t *peer, bool dialing, struct err *err)
{
    if (ipc || w->net->plaintext)
        return 0;
    if (!w->net->keys)
        return err_set(err, ERR_USAGE, "%s: tcp needs keys", endpoint);
    if (dialing && !peer)
        return err_set(err, ERR_USAGE, "%s: the key of whoever is to answer there is not known", endpoint);
    return sock_set_curve(w->net, s->z, peer, err);
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
    allow_family(&l->s, endpoint);
    if (sock_set_int(l->s.z, ZMQ_ROUTER_MANDATORY, 1) != 0 || zmq_bind(l->s.z, endpoint) != 0) {
        err_set(err, zmq_errno() == EADDRINUSE ? ERR_BUSY : ERR_IO, "listening on %s: %s%s", endpoint, zmq_strerror(zmq_errno()),
                hostport_advice(zmq_errno()));
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

    return zmq_setsockopt(z, ZMQ_AFFINITY, &mask, sizeof mask) == 0 ? 0 : sock_failed("libzmq: ZMQ_AFFINITY", err);
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

    link_keep_hello(link, &hello);
    link->dialed = true;
    link->ipc = strncmp(dial->endpoint, "ipc://", 6) == 0;
    link->told = true;
    link->user = dial->user;
    link->deadline_us = wire_ms_from_now(dial->timeout_ms > 0 ? (unsigned)dial->timeout_ms : WIRE_CONNECT_MS);
    snprintf(link->address, sizeof link->address, "%s", strncmp(dial->endpoint, "tcp://", 6) == 0 ? dial->endpoint + 6 : "ipc");
    if (dial->key && strncmp(dial->endpoint, "tcp://", 6) == 0 && !net->plaintext) {
        memcpy(link->key, dial->key, KEY_BYTES);
        link->has_key = true;
        link->was_trusted = net_allows(net, dial->key, link->node, &purposes) && (!dial->node || strcmp(dial->node, link->node) == 0);
    }
    if (dial->node)
        snprintf(link->node, sizeof link->node, "%s", dial->node);
}

int link_connect(struct wire_link *link, const char *endpoint, struct err *err)
{
    if (!link->ipc)
        snprintf(link->address, sizeof link->address, "%s", endpoint + strlen("tcp://"));
    allow_family(&link->s, endpoint);
    return zmq_connect(link->s.z, endpoint) == 0 ? 0 : err_set(err, ERR_IO, "dialing %s: %s", endpoint, zmq_strerror(zmq_errno()));
}

void link_connect_next(struct wire_link *link)
{
    char numeric[MSG_MAX_ADDRESS + 1];
    struct err err;
    int rc = lookup_next(link->lookup, numeric, &err);

    link->looking = rc == 0;
    if (rc == 1)
        rc = link_connect(link, numeric, &err);
    if (rc < 0)
        link_down(link, err.text);
}

/* A host's name is looked up first: link_connect_next goes on then. */
static int begin_dialing(struct wire_link *link, const char *endpoint, struct err *err)
{
    if (endpoint_check(endpoint, false, NULL) == 0)
        return link_connect(link, endpoint, err);
    link->looking = true;
    return (link->lookup = lookup_start(link->wire, endpoint, err)) ? 0 : -1;
}

struct wire_link *wire_dial(struct wire *w, const struct wire_dial *dial, struct err *err)
{
    bool ipc = strncmp(dial->endpoint, "ipc://", 6) == 0;
    int64_t max = link_payload_max(dial->purpose) > WIRE_MAX_HEAD ? link_payload_max(dial->purpose) : WIRE_MAX_HEAD + FRAME_PREFIX;
    struct wire_link *link;

    if (wire_address_check(dial->endpoint, false, err) != 0)
        return NULL;
    if (!(link = link_new(w, err)))
        return NULL;
    fill_dialed(link, dial);
    if (sock_open(w, &link->s, ZMQ_DEALER, max, err) == 0 && set_affinity(w, link->s.z, dial->purpose, err) == 0 &&
        secure(w, &link->s, ipc, dial->endpoint, dial->key, true, err) == 0 && begin_dialing(link, dial->endpoint, err) == 0) {
        atomic_fetch_add(&w->net->dialed, 1);
        return link;
    }
    link_detach(link, 0);
    link_free(link);
    return NULL;
}

static void close_link(struct wire_link *link, const char *reason, bool fault)
{
    if (!link)
        return;
    if (link->state == LINK_UP)
        link_send_bye(link, reason ? reason : "closed", fault);
    link_detach(link, LINGER_MS);
    wire_notes_forget(link->wire, link);
    if (link->wire->finished == link)
        link->wire->finished = NULL;
    link_free(link);
}

void wire_link_close(struct wire_link *link, const char *reason)
{
    close_link(link, reason, false);
}

void wire_link_reject(struct wire_link *link, const char *reason)
{
    close_link(link, reason, true);
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
