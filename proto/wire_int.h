#ifndef PROTO_WIRE_INT_H
#define PROTO_WIRE_INT_H

/* What wire.c, wire_net.c, wire_conn.c and wire_frame.c know of each other, and nobody else. */

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <zmq.h>

#include "proto/codec.h"
#include "proto/wire.h"

/* --- frames (wire_frame.c) ----------------------------------------------------------------------------------------------- */
enum {
    FRAME_PREFIX = 16, /* "SC", u8 type, u8 flags, u32 payload bytes, u64 number; little-endian */
    FRAME_HAS_PAYLOAD = 1,
};

struct frame_prefix {
    enum msg_type type;
    bool has_payload;
    uint32_t payload_len;
    uint64_t number;
};

void frame_prefix_put(uint8_t *to, enum msg_type type, size_t payload_len, bool has_payload, uint64_t number);
/* false: these bytes begin no frame. */
bool frame_prefix_get(const uint8_t *from, size_t len, struct frame_prefix *ret);

/* Frames that one link received and nobody released; outlives the link. */
struct meter {
    atomic_int held, refs;
};
struct meter *meter_create(struct err *err);
void meter_unref(struct meter *m); /* takes NULL */

/* Frames to hand out. Any thread gives back; what is out keeps the pool alive. */
struct pool;
struct frame {
    struct wire_frame pub; /* first: one is cast to the other */
    zmq_msg_t head, payload;
    struct pool *pool;
    struct meter *meter;
    struct frame *next; /* free */
};
struct pool *pool_create(struct err *err);
void pool_unref(struct pool *p); /* takes NULL */
struct frame *pool_take(struct pool *p, struct err *err);

/* Fills a taken frame from the two parts, which it then owns (payload NULL: none). */
void frame_fill(struct frame *f, const struct frame_prefix *prefix, zmq_msg_t *head, zmq_msg_t *payload, struct meter *meter);

/* --- the process (wire_net.c) -------------------------------------------------------------------------------------------- */
enum { NET_MAX_NOTES = 32, NET_MAX_GRANTS = 1024, NET_RELOAD_MS = 500, NET_ALL_PURPOSES = ~0u };

enum refusal { REFUSED_KEY, REFUSED_VERSION, REFUSED_GARBAGE, REFUSED_INVITE, REFUSED_OTHER, REFUSALS };

struct grant {
    char name[MSG_MAX_NAME + 1];
    uint8_t key[KEY_BYTES];
    unsigned purposes;
};

struct wire_net {
    void *ctx;
    struct keys *keys;
    char node[MSG_MAX_NAME + 1];
    uint64_t instance;
    uint32_t protocol_min, protocol_max;
    bool registrations, plaintext;
    unsigned io_threads;

    pthread_t zap_thread;
    bool zap_running;
    void *zap;   /* only the thread's, once it runs */
    int stop_fd; /* written to end it */
    uint64_t keys_version; /* the thread's: the wires know of it */

    pthread_mutex_t lock; /* for the lists */
    struct wire *wires;
    struct grant *grants;
    size_t n_grants, grants_cap;
    atomic_uint generation; /* of whom we trust */

    atomic_ullong refused[REFUSALS];
    atomic_ullong accepted, dialed, down, registered, frames_sent, frames_received, bytes_sent, bytes_received;
};

/* Who holds this key, and for which purposes; false: nobody may. Any thread. */
bool net_allows(struct wire_net *net, const uint8_t *key, char ret_name[MSG_MAX_NAME + 1], unsigned *ret_purposes);
void net_add_wire(struct wire_net *net, struct wire *w);
void net_remove_wire(struct wire_net *net, struct wire *w);
/* "tcp://IP:PORT" with numbers, or "ipc://PATH". listening: port 0 or * and the address * are allowed. */
int endpoint_check(const char *endpoint, bool listening, struct err *err);
uint64_t wire_now_us(void);

/* --- where connections come from (wire_accept.c); any thread ------------------------------------------------------------- */
struct peer_address {
    struct sockaddr_storage room;
    socklen_t len;
};
void accept_watch(int listening_fd);
void accept_unwatch(int listening_fd);
/* Of the oldest accept of that descriptor that was not taken yet. */
bool accept_take(int fd, struct peer_address *ret);

/* --- accepted connections (wire_conn.c) ---------------------------------------------------------------------------------- */
/* One tcp or ipc connection to a listener, known by its file descriptor, which belongs to libzmq: we look at it, and
 * shut it down, which libzmq sees as the peer's going. The kernel's cookie tells one use of a descriptor from the next. */
struct conn {
    int fd;
    uint64_t cookie;
    uint64_t since_us, kill_us; /* kill_us: shut down then; 0: never */
    struct wire_link *link;     /* NULL: it has not said who it is, or has been sent away */
    bool refused;               /* told already */
    char address[64];
};

struct conns {
    struct conn *items;
    size_t len, cap;
};

/* The descriptor has just been accepted. NULL: no memory. */
struct conn *conns_add(struct conns *cs, int fd, struct err *err);
struct conn *conns_find(struct conns *cs, int fd);
void conns_remove(struct conns *cs, struct conn *c);
/* The longest without a hello; NULL: fewer than max wait. */
struct conn *conns_oldest_pending(struct conns *cs, size_t max);
bool conn_is_current(const struct conn *c); /* its descriptor is still this connection's */
void conn_kill(const struct conn *c);
/* The peer of an ipc connection runs as our user. */
bool conn_is_same_user(const struct conn *c);

/* --- a thread's sockets (wire.c) ----------------------------------------------------------------------------------------- */
/* For wire_net.c: a refusal that only the process knows of; any thread. */
void wire_note_refused(struct wire *w, enum refusal why, const char *address, const char *text);
struct wire **wire_next_slot(struct wire *w);
bool wire_is_listening(struct wire *w);

#endif
