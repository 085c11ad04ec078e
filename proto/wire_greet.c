/* How a link begins: greetings, who is let in, and taking up invitations. */
#include "proto/wire_int.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "proto/invite.h"

/* --- greetings -------------------------------------------------------------------------------------------------------------- */
void link_keep_hello(struct wire_link *link, const struct msg_link_hello *hello)
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
    link_watch(link);
    wire_note_add(link->wire, WIRE_UP, link);
}

/* Turned away: told why, then cut off. */
void wire_refuse(struct wire *w, struct conn *c, struct wire_link *link, enum refusal why, const char *text)
{
    if (c && !c->refused)
        wire_note_refused(w, why, c->address, text);
    if (c) {
        c->refused = true;
        if (!c->kill_us)
            c->kill_us = wire_ms_from_now(KILL_MS);
    }
    if (link) {
        link_send_bye(link, text, true);
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
void wire_greet(struct wire *w, struct listener *l, const uint8_t *rid, zmq_msg_t *part, const struct msg_link_hello *hello)
{
    struct conn *c = conns_find(&l->conns, zmq_msg_get(part, ZMQ_SRCFD));
    enum refusal why = REFUSED_OTHER;
    char text[TEXT_BYTES] = "too many links";
    struct wire_link *link;
    size_t bucket = link_bucket(l, rid);

    if (!c || c->kill_us)
        return; /* gone, or on its way out */
    if (!(link = link_new(w, NULL))) {
        wire_refuse(w, c, NULL, why, text);
        return;
    }
    link->listener = l;
    link->ipc = l->ipc;
    link->fd = c->fd;
    link->cookie = c->cookie;
    memcpy(link->rid, rid, RID_BYTES);
    link->next_same = w->by_rid[bucket];
    w->by_rid[bucket] = link;
    c->link = link;
    link_keep_hello(link, hello);
    snprintf(link->node, sizeof link->node, "%s", hello->node);
    snprintf(link->address, sizeof link->address, "%s", c->address);
    link->instance = hello->instance;
    set_peer_key(link, part);
    if (!link->has_key && !l->ipc && !w->net->plaintext) {
        wire_refuse(w, c, link, REFUSED_KEY, "a connection without a key");
        return;
    }
    if (!admit(w, link, c, &why, text, sizeof text)) {
        wire_refuse(w, c, link, why, text);
        return;
    }
    struct msg ok = {.type = MSG_LINK_OK,
                     .link_ok = {.protocol = link->protocol, .version = PACKAGE_VERSION, .node = w->net->node, .instance = w->net->instance}};
    link_send_small(link, &ok, 0);
    atomic_fetch_add(&w->net->accepted, 1);
    if (hello->purpose == LINK_REGISTER) {
        link->state = LINK_GREETING; /* never told to the caller */
        link->deadline_us = wire_ms_from_now(WIRE_HELLO_MS);
    } else {
        up(link);
    }
}

/* An invitation is taken up, or not. */
void link_register(struct wire_link *link, const struct msg_register *m)
{
    struct wire *w = link->wire;
    struct listener *l = link->listener;
    struct conn *c = conns_find(&l->conns, link->fd);
    struct err err = {0};
    struct note *n;

    if (invite_redeem(w->net->keys, m->secret, m->name, link->key, (uint64_t)time(NULL), &err) != 0) {
        wire_refuse(w, c, link, REFUSED_INVITE, err.text);
        return;
    }
    struct msg done = {.type = MSG_REGISTERED, .registered = {.name = m->name, .coordinator = w->net->node}};
    link_send_small(link, &done, 1);
    atomic_fetch_add(&w->net->registered, 1);
    if ((n = wire_note_add(w, WIRE_REGISTERED, NULL)) != NULL) {
        snprintf(n->name, sizeof n->name, "%s", m->name);
        snprintf(n->address, sizeof n->address, "%s", link->address);
    }
    link_detach(link, 0);
    link_free(link);
}

/* What the acceptor answered to our greeting. */
void link_answered(struct wire_link *link, const struct msg *m)
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

void link_say_hello(struct wire_link *link)
{
    struct msg m = {.type = MSG_LINK_HELLO, .link_hello = link->hello};

    link->state = LINK_GREETING;
    if (!link_send_small(link, &m, 0))
        link_ending(link, "the greeting could not be sent");
}
