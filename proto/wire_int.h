#ifndef PROTO_WIRE_INT_H
#define PROTO_WIRE_INT_H

/* What the files wire_*.c know of each other, and nobody else: wire_net.c the process, wire.c waiting and life, wire_note.c
 * events, wire_sock.c libzmq's options, wire_lookup.c names of hosts, wire_send.c links and sending, wire_greet.c their
 * beginning, wire_recv.c what arrives, wire_alive.c signs of life, wire_conn.c and wire_accept.c connections, wire_frame.c
 * frames and their pool. */

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
uint64_t conn_cookie(int fd);               /* 0: no socket (any more) */
/* Bytes that the kernel has received for a tcp connection so far; false: it does not say, or it is another connection. */
bool conn_received(int fd, uint64_t cookie, uint64_t *ret_bytes);
void conn_kill(const struct conn *c);
/* The peer of an ipc connection runs as our user. */
bool conn_is_same_user(const struct conn *c);

/* --- a thread's sockets ------------------------------------------------------------------------------------------------ */
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
    bool dialed, ipc, blocked, told; /* told: the caller knows of it */
    struct sock s;              /* dialed */
    struct listener *listener;  /* accepted … */
    uint8_t rid[RID_BYTES];
    int fd; /* of its conn; of a dialed one once it is connected */
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
    struct lookup *lookup; /* of a dialed one: the addresses of its host; NULL: it was dialed by number */
    bool looking;          /* its next address is still to be dialed */
    unsigned frames_since_end;
    /* Signs of life (wire_alive.c). */
    bool watched, heard;  /* heard: a whole frame came since the last look */
    unsigned silent;      /* looks in a row without one */
    uint64_t cookie;      /* of fd */
    uint64_t sent_seen;   /* `sent` at the last look */
    uint64_t bytes_seen;  /* that the kernel had received then */
    char why[TEXT_BYTES]; /* it ends */
    bool goodbye;         /* its peer said so, on purpose */
    struct meter *meter;
};

/* An event that waits to be fetched. */
struct note {
    struct note *next;
    enum wire_event_kind kind;
    struct wire_link *link;
    uint64_t count;
    bool goodbye;
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
    uint64_t writable_us; /* of the last WIRE_WRITABLE */
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
    uint64_t look_us; /* at signs of life, next */
    /* Refusals: from this thread and the authentication's. */
    pthread_mutex_t refused_lock;
    uint64_t refused_window_us, refused_silent;
    unsigned refused_told;
    struct note *refused_first; /* filled by other threads */
};

/* For wire_net.c, from any thread: a refusal; the net's list of wires. */
void wire_note_refused(struct wire *w, enum refusal why, const char *address, const char *text);
struct wire **wire_next_slot(struct wire *w);
bool wire_is_listening(struct wire *w);

uint64_t wire_ms_from_now(unsigned ms);


/* events that wait (wire_note.c) */
/* An event to be fetched; NULL: no memory, or too many. */
struct note *wire_note_add(struct wire *w, enum wire_event_kind kind, struct wire_link *link);
/* Whoever closes a link does not hear of it any more. */
void wire_notes_forget(struct wire *w, const struct wire_link *link);
void wire_fetch_refused(struct wire *w);

/* sockets (wire_sock.c) */
/* -1, with what libzmq says. */
int sock_failed(const char *what, struct err *err);
int sock_set_int(void *z, int option, int value);
int sock_set_curve(struct wire_net *net, void *z, const uint8_t *peer, struct err *err);
/* A socket with its monitor, not yet bound or connected. */
int sock_open(struct wire *w, struct sock *s, int type, int64_t max_bytes, struct err *err);
void sock_close(struct sock *s, int linger_ms);
/* The next event's kind, 0: none. */
int sock_monitor_event(struct sock *s, int32_t *ret_value);

/* names of hosts (wire_lookup.c) */
struct lookup;
/* Begins to look up the host of "tcp://NAME:PORT"; wakes the wire when that is done. */
struct lookup *lookup_start(struct wire *w, const char *endpoint, struct err *err);
/* 1: its next address, with numbers; 0: it is not known yet; -1: there is none, or no more. */
int lookup_next(struct lookup *l, char ret[MSG_MAX_ADDRESS + 1], struct err *err);
void lookup_end(struct lookup *l); /* takes NULL; does not wait */

/* links: tables, sending (wire_send.c) */
size_t link_bucket(const struct listener *l, const uint8_t *rid);
struct wire_link *link_by_rid(struct wire *w, const struct listener *l, const uint8_t *rid);
struct wire_link *link_new(struct wire *w, struct err *err);
/* Out of all tables, sockets closed; the memory stays. */
void link_detach(struct wire_link *link, int linger_ms);
void link_free(struct wire_link *link);
/* Over at once; the caller hears of it if it knew of the link. The link may be gone after this. */
void link_down(struct wire_link *link, const char *why);
/* Over once what has arrived is delivered. */
void link_ending(struct wire_link *link, const char *why);
int64_t link_payload_max(enum link_purpose purpose);
/* Dials an address with numbers. */
int link_connect(struct wire_link *link, const char *endpoint, struct err *err);
/* Dials the next address of its host, if that is known by now. It may be down after this. */
void link_connect_next(struct wire_link *link);
/* Greetings and goodbyes (number 0), registrations. */
bool link_send_small(struct wire_link *link, const struct msg *m, uint64_t sent_number);
void link_send_bye(struct wire_link *link, const char *text, bool fault);
/* A frame of nothing but its prefix, not counted. */
bool link_send_bare(struct wire_link *link, enum msg_type type, uint64_t number);

/* signs of life (wire_alive.c) */
/* It is up. */
void link_watch(struct wire_link *link);
/* Four times a second, for links that are watched. forgive: this process was not running. The link may be gone after this. */
void link_look(struct wire_link *link, bool forgive);

/* greetings (wire_greet.c) */
void link_keep_hello(struct wire_link *link, const struct msg_link_hello *hello);
/* Turned away: counted, told, and cut off a moment later. link NULL, or freed here. */
void wire_refuse(struct wire *w, struct conn *c, struct wire_link *link, enum refusal why, const char *text);
void wire_greet(struct wire *w, struct listener *l, const uint8_t *rid, zmq_msg_t *part, const struct msg_link_hello *hello);
void link_register(struct wire_link *link, const struct msg_register *m);
void link_answered(struct wire_link *link, const struct msg *m);
void link_say_hello(struct wire_link *link);

/* receiving (wire_recv.c) */
void listener_events(struct wire *w, struct listener *l);
void link_events(struct wire_link *link);
/* Whatever is overdue. Returns when to look again, at the latest. */
uint64_t wire_check_time(struct wire *w);
/* Links that are no longer allowed go down. */
void wire_check_trust(struct wire *w);

/* One message of a socket. TOOK_FRAME: *ret is the event; TOOK_ONE: it was for the wire itself; TOOK_NOTHING: there is none. */
enum took { TOOK_NOTHING, TOOK_ONE, TOOK_FRAME };
enum took recv_dialed(struct wire_link *link, struct wire_event *ret);
enum took recv_accepted(struct wire *w, struct listener *l, struct wire_event *ret);

#endif
