#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

/* Frames between nodes. A process has one wire_net (keys, the authentication of everything that connects) and one wire for
 * each thread that does I/O; a wire has links. A link is one peer and one purpose, whichever side dialed; frames on it arrive
 * whole, in order and numbered, or the link goes down: nothing is retried or resent here. Who wants the link again dials
 * again.
 *
 * tcp is always CURVE: both ends prove their keys, and the name that wire_link_node gives is the one the key is trusted by,
 * whoever dialed. ipc has none: the socket file stands in a folder that only this user may enter (the peer's user id is
 * checked, too).
 *
 * A wire and its links belong to one thread; only wire_wake, wire_frame_release and the wire_net's functions may be called
 * from any. Nothing blocks but wire_poll and wire_join. */

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/keys.h"
#include "proto/msg.h"

enum {
    WIRE_MAX_LINKS = 1024,
    WIRE_LEAST_FILES = 64,        /* a process with links must be allowed to open: its threads, a listener, a few links */
    WIRE_MAX_LISTENERS = 8,
    WIRE_MAX_HEAD = 8 << 20,      /* bytes of a frame's encoded message */
    WIRE_MAX_PAYLOAD = 128 << 20, /* of a data frame; other purposes have less */
    WIRE_SEND_QUEUE = 256,        /* frames that a link takes before it would block */
    WIRE_MAX_HELD_FRAMES = 16384, /* received on one link and not released: more is a peer that minds no credit */
    WIRE_HANDSHAKE_MS = 3000,     /* for the keys' part */
    WIRE_HELLO_MS = 3000,         /* from there to link_hello, and to its answer */
    WIRE_CONNECT_MS = 5000,       /* for tcp's part */
    WIRE_ALIVE_MS = 250,          /* over tcp, who has nothing to say says so this often … */
    WIRE_LOST_MS = 1000,          /* … and a link is down after this long without a whole frame, unless a big one is coming */
    WIRE_MAX_PENDING = 64,        /* connections that have not said who they are; the oldest goes first */
    WIRE_MAX_REFUSED_EVENTS = 10, /* a second; the rest is counted in the next one */
};

struct wire_net;
struct wire;
struct wire_link;

/* --- the process ------------------------------------------------------------------------------------------------------- */
struct wire_net_options {
    struct keys *keys;   /* borrowed; NULL: ipc only */
    const char *node;    /* NULL: keys_name */
    uint64_t instance;   /* 0: random */
    bool registrations;  /* invitations are taken up (a coordinator) */
    unsigned io_threads; /* of libzmq; 0: 2, the second for bulk */
    /* For tests. */
    uint32_t protocol_min, protocol_max; /* 0: PROTOCOL_MIN, PROTOCOL_MAX */
    bool plaintext_tcp_for_tests;        /* without keys: tcp without CURVE, names unproved */
};

struct wire_net *wire_net_create(const struct wire_net_options *options, struct err *err);
/* All wires must be gone, all frames released. Takes NULL; joins. */
void wire_net_destroy(struct wire_net *net);
uint64_t wire_net_instance(const struct wire_net *net);
const char *wire_net_node(const struct wire_net *net);

/* Trusts a key under a name until revoked or the process ends, without a file: what a configure message says of neighbours,
 * or a topology file of nodes. purposes: bits 1 << LINK_…. A name already granted gets the new key and purposes; keys in
 * trusted/ stand above grants. */
int wire_net_grant(struct wire_net *net, const char *name, const uint8_t *key, unsigned purposes, struct err *err);
/* Its links that nothing else allows go down. */
void wire_net_revoke(struct wire_net *net, const char *name);

/* Counts since the start. */
struct wire_stats {
    uint64_t accepted, dialed, down;
    uint64_t refused_key;     /* nobody trusts it */
    uint64_t refused_version; /* no protocol in common */
    uint64_t refused_garbage; /* no handshake came of it, or a frame made no sense */
    uint64_t refused_invite;  /* wrong, used, expired */
    uint64_t refused_other;   /* name and key differ, purpose not granted, too many */
    uint64_t registered;
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received; /* heads and payloads */
};
void wire_net_stats(struct wire_net *net, struct wire_stats *ret);

/* --- a thread's sockets ------------------------------------------------------------------------------------------------ */
struct wire *wire_create(struct wire_net *net, struct err *err);
/* Takes NULL. Closes all links (a goodbye that is queued may or may not arrive). */
void wire_destroy(struct wire *w);

/* "tcp://IP:PORT" (port 0 or *: any) or "ipc://PATH" (its folder must be 0700 and ours). ret_endpoint, NULL allowed, gets
 * the endpoint as it can be dialed (of tcp://0.0.0.0:… that is not the case). */
int wire_listen(struct wire *w, const char *endpoint, char ret_endpoint[MSG_MAX_ADDRESS + 1], struct err *err);

struct wire_dial {
    const char *endpoint; /* a host's name in it is looked up meanwhile, and all its addresses are tried */
    enum link_purpose purpose;
    const uint8_t *key; /* the peer's; NULL for ipc */
    const char *node;   /* the peer's name; NULL: whatever it says it is (ipc), or the name its key is trusted by */
    /* LINK_DATA; see struct msg_link_hello. */
    struct msg_epoch epoch;
    uint32_t stage;
    bool upstream;
    const char *relay_to; /* NULL: "" */
    int timeout_ms;       /* until UP; 0: WIRE_CONNECT_MS */
    void *user;
};

/* Whether an address has the form of one that can be listened at, or dialed (then a host's name will do). Looks nothing up. */
int wire_address_check(const char *endpoint, bool listening, struct err *err);

/* What a peer says of itself as it can be dialed: of "tcp://0.0.0.0:PORT", every address of its machine, the one at the link's
 * other end; "" where that cannot be dialed either (IPv6 where it listens by IPv4, link-local). Whether it said so. */
bool wire_address_seen(const char *said, const struct wire_link *link, char ret[MSG_MAX_ADDRESS + 1]);
/* Whether only processes of the same machine can dial it, or come from it: ipc, loopback. As in a dial, or wire_link_address(). */
bool wire_address_loopback(const char *address);

/* Begins to connect. WIRE_UP or WIRE_DOWN follows. NULL: the endpoint cannot be one. */
struct wire_link *wire_dial(struct wire *w, const struct wire_dial *dial, struct err *err);

/* Closes; the peer gets WIRE_DOWN with this reason (NULL: "closed"), after all that was sent before. The link is gone at
 * once; no event follows. Takes NULL. */
void wire_link_close(struct wire_link *link, const char *reason);
/* The same for something that the peer, or the link, did wrong: it is told so, and its WIRE_DOWN is no goodbye. */
void wire_link_reject(struct wire_link *link, const char *reason);

void *wire_link_user(const struct wire_link *link);
void wire_link_set_user(struct wire_link *link, void *user);
enum link_purpose wire_link_purpose(const struct wire_link *link);
const char *wire_link_node(const struct wire_link *link);     /* proved over tcp, claimed over ipc */
const uint8_t *wire_link_key(const struct wire_link *link);   /* NULL over ipc */
const char *wire_link_address(const struct wire_link *link);  /* "10.0.0.7:41234", "ipc" */
bool wire_link_dialed(const struct wire_link *link);          /* by us */
uint32_t wire_link_protocol(const struct wire_link *link);    /* agreed, once UP */
uint64_t wire_link_instance(const struct wire_link *link);    /* the peer's process, once UP */
/* What the dialer said; of a link that we dialed, our own. */
const struct msg_link_hello *wire_link_hello(const struct wire_link *link);

/* --- sending ----------------------------------------------------------------------------------------------------------- */
enum wire_sent { WIRE_SENT = 0, WIRE_BLOCKED = 1, WIRE_FAILED = -1 };
/* From any thread, once, when the payload is no longer needed. Before it looks at what the sender wrote it calls wire_handed_back. */
typedef void (*wire_free_fn)(void *payload, void *hint);
/* What the sending thread did before it sent has been done. libzmq sees to that, but in a way that ThreadSanitizer does not see. */
void wire_handed_back(void);

/* Queues one frame: an encoded message (copied) and a payload (not copied: it is the wire's from here until free_fn;
 * free_fn NULL: copied). WIRE_BLOCKED: the queue is full, nothing was taken, WIRE_WRITABLE will come. WIRE_FAILED, with err:
 * the link is not up or the frame is too big; nothing was taken, and if the link is broken WIRE_DOWN will come. */
enum wire_sent wire_send(struct wire_link *link, enum msg_type type, const void *head, size_t head_len, void *payload, size_t payload_len,
                         wire_free_fn free_fn, void *hint, struct err *err);
/* The same with the message encoded on the way. */
enum wire_sent wire_send_msg(struct wire_link *link, const struct msg *m, void *payload, size_t payload_len, wire_free_fn free_fn, void *hint,
                             struct err *err);

/* --- receiving --------------------------------------------------------------------------------------------------------- */
/* A received frame: owned by whoever got it, handed on by pointer, released by any thread. */
struct wire_frame {
    enum msg_type type;
    uint64_t number; /* on its link, from 1 */
    const uint8_t *head;
    size_t head_len;
    const uint8_t *payload; /* aligned to 8 bytes */
    size_t payload_len;
    uint64_t received_us; /* CLOCK_MONOTONIC */
};
void wire_frame_release(struct wire_frame *frame); /* takes NULL */
/* Sends a received frame on as it is, without looking into it (a relay). On WIRE_SENT it is released. */
enum wire_sent wire_forward(struct wire_link *to, struct wire_frame *frame, struct err *err);

enum wire_event_kind {
    WIRE_NONE,
    WIRE_UP,         /* link: both ends have agreed; the peer's data (node, key, hello) can be asked for */
    WIRE_FRAME,      /* frame, of link */
    WIRE_WRITABLE,   /* link: after WIRE_BLOCKED, worth another try */
    WIRE_DOWN,       /* link, text: also for a dialed link that never came up. The link is gone with the next wire_poll */
    WIRE_REFUSED,    /* text, address, count: somebody was turned away */
    WIRE_REGISTERED, /* name: a node has redeemed an invitation; address */
};

struct wire_event {
    enum wire_event_kind kind;
    struct wire_link *link;
    struct wire_frame *frame;
    char text[512];
    char address[64];
    char name[MSG_MAX_NAME + 1];
    uint64_t count; /* WIRE_REFUSED: this many since the last such event */
    bool goodbye;   /* WIRE_DOWN: the peer closed it on purpose; the text says why */
};

/* Waits for at most timeout_ms (< 0: for ever) and returns 1 with one event, or 0: time is over, wire_wake was called, or
 * one of the caller's own fds is ready (extra[].revents, NULL allowed). -1: the sockets themselves failed. Events are not
 * lost when it is not called: they queue. Only the members that the kind names are set. */
int wire_poll(struct wire *w, int timeout_ms, struct pollfd *extra, size_t n_extra, struct wire_event *ret, struct err *err);
/* Makes wire_poll return. Any thread. */
void wire_wake(struct wire *w);

/* --- joining ----------------------------------------------------------------------------------------------------------- */
struct wire_joined {
    char address[MSG_MAX_ADDRESS + 1]; /* of the coordinator: the one that answered */
    char coordinator[MSG_MAX_NAME + 1];
    char name[MSG_MAX_NAME + 1]; /* ours, as it was given */
    uint8_t key[KEY_BYTES];      /* the coordinator's; it is trusted from now on */
};

/* Registers this node's key by an invitation: what `worker --join TOKEN` does before all else. Blocks for at most
 * timeout_ms. */
int wire_join(struct keys *k, const char *token, int timeout_ms, struct wire_joined *ret, struct err *err);

#endif
