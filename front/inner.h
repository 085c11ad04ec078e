#ifndef FRONT_INNER_H
#define FRONT_INNER_H

/* What the files of this folder share: the server and the request in hand (a call). server.c owns the life of the first, http.c of the second.
 *
 * A call goes through threads one at a time: HTTP reads it, a helper works on it (reads the body, tokenizes, submits) while
 * its connection is suspended, then HTTP sends what came, suspended whenever nothing has. Locks are taken in this order, and
 * front.lock and an engine request's never together: a request of the engine, or front.lock; call.lock; libmicrohttpd's. */

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/queue.h"
#include "base/strbuf.h"
#include "front/front.h"
#include "front/guard.h"
#include "front/job.h"
#include "front/metrics.h"
#include "front/openai.h"
#include "front/page.h"
#include "front/guide.h"
#include "front/prompt.h"
#include "front/tls.h"

enum {
    FRONT_THREADS = 4,
    FRONT_HELPERS = 4,
    FRONT_CONNECTIONS = 1024,
    FRONT_CONNECTIONS_PER_ADDRESS = 512, /* a proxy before us is one address */
    FRONT_CONNECTION_BYTES = 64 << 10,   /* request line, headers, and what is on its way out */
    FRONT_IDLE_S = 75,                   /* a connection on which nothing moves is closed */
    FRONT_READ_MS = 300000,              /* for a whole body */
    FRONT_KEEPALIVE_MS = 5000,
    FRONT_BODY_BYTES = 16 << 20,
    FRONT_PASS_OVER_BYTES = 64 << 20, /* of a body that is refused: so that the client gets to read why */
    FRONT_BODIES_BYTES = 256 << 20,   /* of all calls together */
    FRONT_REPLY_BYTES = 512 << 20,
    FRONT_URL_BYTES = 128,
};

struct call;

struct route {
    const char *path, *method; /* "{model}" at the end of a path: its name */
    bool is_open;     /* needs no key */
    bool needs_admin; /* needs the admin's */
    bool needs_model; /* 503 until the chain has answered for the first time */
    bool counts;      /* against its key's limits */
    /* Works on the body in a helper's thread. 0: call.reply holds the answer, or call.job runs. */
    int (*run)(struct call *c, struct api_error *e);
};
extern const struct route routes[];
extern const size_t n_routes;

struct call {
    struct front *front;
    struct MHD_Connection *connection;
    const struct route *route;
    struct call *prev, *next; /* front.calls */
    uint64_t serial;
    struct api_key *key; /* whose limits it counts against */
    int fd;
    int64_t began_ms;
    bool is_refused, is_head, was_dispatched, was_counted;
    struct api_error error; /* of a refused one */
    struct strbuf body, reply;
    size_t body_counted; /* of front.body_bytes */
    size_t passed_over;  /* bytes of a body that nobody wants */
    bool sends_page;     /* instead of reply */
    const char *content_type;
    int status;
    struct job *job;  /* NULL: reply is all there is */
    size_t sent;      /* of reply, in a stream */
    bool over;        /* the stream ends behind reply */
    char origin[128]; /* to say in CORS headers */

    pthread_mutex_t lock;
    bool working, waiting, woken, gone, tick; /* tick: time for a comment */
    _Atomic int64_t sent_ms;
};

struct front {
    struct front_options options;
    char url[FRONT_URL_BYTES], model[256];
    struct tls tls;
    char last_said[256]; /* by libmicrohttpd, when it starts */
    struct engine *engine;
    struct prompt prompt;
    struct guides guides;
    struct guard guard;
    struct metrics metrics;
    struct page page;
    int64_t started_s;
    int listen_fd, epoll_fd, stop_fd;
    struct MHD_Daemon *daemon;
    struct queue *jobs;
    pthread_t helpers[FRONT_HELPERS], watcher;
    unsigned n_helpers;
    bool watching, stopped;
    atomic_bool stopping, hard, was_ready;
    _Atomic uint64_t next_serial, body_bytes, n_jobs, hidden_bytes;

    pthread_mutex_t lock;
    struct call *calls;
};

int64_t front_now_ms(void);
/* Whether the whole chain answers: 0; 1 not yet (ret_why says); -1 it never will. */
int front_ready(struct front *f, const char **ret_state, struct err *ret_why);

/* http.c: what libmicrohttpd calls, and the helpers. */
void call_wake(struct call *c);
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
                                const char *data, size_t *size, void **state);
void http_on_completed(void *cls, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why);
void *http_help(void *arg);

/* watch.c: notices clients that went away, and when a comment is due. */
int watch_start(struct front *f, struct err *err);
void watch_stop(struct front *f);
void watch_add(struct call *c);
void watch_remove(struct call *c);

#endif
