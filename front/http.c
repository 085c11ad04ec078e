/* See front.h and inner.h. libmicrohttpd's threads call into here; a connection that waits is suspended, and resumed by
 * call_wake. Waking before suspending cannot be lost: `woken` stands under the call's lock, which is held around both. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "front/inner.h"

enum { SHOWN_PATH_BYTES = 80, STOP_POLL_MS = 20, STOP_LAST_WORDS_MS = 1000 };

int64_t front_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int front_ready(struct front *f, const char **ret_state, struct err *ret_why)
{
    struct err err;
    int rc = engine_wait_ready(f->engine, 0, &err);

    if (rc == 0)
        atomic_store(&f->was_ready, true);
    if (atomic_load(&f->stopping)) {
        *ret_state = "stopping";
        err_set(ret_why, ERR_BUSY, "the server is stopping");
        return 1;
    }
    if (rc < 0) {
        *ret_state = "failed";
        *ret_why = err;
    } else if (rc > 0) {
        bool before = atomic_load(&f->was_ready);
        *ret_state = before ? "recovering" : "loading";
        err_set(ret_why, ERR_BUSY, before ? "a part of the cluster was lost and is being replaced" : "the model is loading");
    } else {
        *ret_state = "ok";
    }
    return rc;
}

/* --- calls --------------------------------------------------------------- */

void call_wake(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    c->woken = true;
    if (c->waiting && !c->working) {
        c->waiting = false;
        MHD_resume_connection(c->connection);
    }
    pthread_mutex_unlock(&c->lock);
}

enum wait { WAIT_SUSPENDED, WAIT_AGAIN, WAIT_GONE };

/* Suspends the connection until somebody wakes the call; not if somebody has since the last time. */
static enum wait wait_for_news(struct call *c)
{
    enum wait rc = WAIT_SUSPENDED;

    pthread_mutex_lock(&c->lock);
    if (c->gone || atomic_load(&c->front->hard)) {
        rc = WAIT_GONE;
    } else if (c->woken) {
        c->woken = false;
        rc = WAIT_AGAIN;
    } else {
        c->waiting = true;
        MHD_suspend_connection(c->connection);
    }
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static struct call *call_create(struct front *f, struct MHD_Connection *connection)
{
    struct call *c = mem_new(1, sizeof *c, NULL);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!c)
        return NULL;
    c->front = f;
    c->connection = connection;
    c->fd = info ? info->connect_fd : -1;
    c->serial = atomic_fetch_add(&f->next_serial, 1);
    c->status = MHD_HTTP_OK;
    c->content_type = "application/json";
    c->began_ms = front_now_ms();
    atomic_init(&c->sent_ms, c->began_ms);
    strbuf_init(&c->body, FRONT_BODY_BYTES);
    strbuf_init(&c->reply, FRONT_REPLY_BYTES);
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_lock(&f->lock);
    if ((c->next = f->calls))
        c->next->prev = c;
    f->calls = c;
    pthread_mutex_unlock(&f->lock);
    return c;
}

static void free_body(struct call *c)
{
    strbuf_fini(&c->body);
    atomic_fetch_sub(&c->front->body_bytes, c->body_counted);
    c->body_counted = 0;
}

static void call_destroy(struct call *c)
{
    struct front *f = c->front;

    pthread_mutex_lock(&f->lock);
    *(c->prev ? &c->prev->next : &f->calls) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    pthread_mutex_unlock(&f->lock);
    watch_remove(c);
    if (c->job)
        c->job->ops->destroy(c->job);
    free_body(c);
    strbuf_fini(&c->reply);
    pthread_mutex_lock(&c->lock); /* whoever woke it last is out */
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void refuse(struct call *c, int rc)
{
    if (rc == 0)
        return;
    c->is_refused = true;
    free_body(c);
}

/* --- replies ------------------------------------------------------------- */

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* Every reply may be read by a page of the allowed origin; none is to be kept but our own page, if it is asked for again. */
static void add_headers(const struct call *c, struct MHD_Response *r)
{
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, c->content_type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, c->sends_page ? "no-cache" : "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (c->origin[0]) {
        MHD_add_response_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, c->origin);
        MHD_add_response_header(r, MHD_HTTP_HEADER_VARY, "Origin");
    }
    if (c->status == 429 || c->status == 503)
        MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, c->status == 429 ? "1" : "2");
    if (c->status == 401)
        MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (c->status == 405 && c->route)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, c->route->method);
    if (atomic_load(&c->front->stopping))
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
}

static enum MHD_Result queue(struct call *c, struct MHD_Response *r)
{
    enum MHD_Result rc;

    if (!r)
        return MHD_NO;
    add_headers(c, r);
    metrics_add(&c->front->metrics.replies[c->status < METRICS_STATUSES ? c->status : 0], 1);
    rc = MHD_queue_response(c->connection, (unsigned)c->status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result send_page(struct call *c)
{
    const struct page *p = &c->front->page;
    bool gzip = page_may_gzip(header(c->connection, MHD_HTTP_HEADER_ACCEPT_ENCODING));
    bool known = page_is_known(p, header(c->connection, MHD_HTTP_HEADER_IF_NONE_MATCH));
    const unsigned char *data = gzip ? page_gzip : page_html;
    size_t len = known ? 0 : gzip ? page_gzip_bytes : page_html_bytes;
    struct MHD_Response *r = MHD_create_response_from_buffer(len, (void *)(uintptr_t)data, MHD_RESPMEM_PERSISTENT);

    c->status = known ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK;
    c->content_type = "text/html; charset=utf-8";
    if (r) {
        MHD_add_response_header(r, MHD_HTTP_HEADER_ETAG, p->etag);
        MHD_add_response_header(r, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
        MHD_add_response_header(r, "Content-Security-Policy", p->policy);
        MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
        if (gzip && !known)
            MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
    }
    return queue(c, r);
}

/* What stands in reply, or the error. */
static enum MHD_Result send_reply(struct call *c)
{
    struct MHD_Response *r;

    if (c->is_refused) {
        strbuf_clear(&c->reply);
        api_error_json(&c->error, &c->reply);
        c->status = c->error.status;
        c->content_type = "application/json";
    }
    else if (c->sends_page)
        return send_page(c);
    if (c->reply.failed || !c->reply.data)
        return MHD_NO;
    /* The text becomes libmicrohttpd's: it may be large. */
    r = MHD_create_response_from_buffer_with_free_callback(c->reply.len, c->reply.data, free);
    if (r)
        strbuf_init(&c->reply, FRONT_REPLY_BYTES);
    return queue(c, r);
}

static bool take_tick(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    bool tick = c->tick;
    c->tick = false;
    pthread_mutex_unlock(&c->lock);
    return tick;
}

/* Adds what there is to a stream's reply. */
static void pump_stream(struct call *c)
{
    struct api_error e;

    if (atomic_load(&c->front->hard)) {
        strbuf_puts(&c->reply, "data: ");
        api_fail(&e, 503, "server_error", "stopping", "the server is stopping");
        api_error_json(&e, &c->reply);
        strbuf_puts(&c->reply, "\n\n");
        c->over = true;
        return;
    }
    c->over = c->job->ops->pump(c->job, &c->reply, &e) != 0;
    if (take_tick(c) && c->reply.len == 0)
        strbuf_puts(&c->reply, ": waiting\n\n");
}

/* libmicrohttpd asks for more of a stream when the client has taken what it had. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct call *c = cls;

    (void)pos;
    for (;;) {
        size_t left = c->reply.len - c->sent;
        if (left > 0) {
            size_t n = left < max ? left : max;
            memcpy(buf, c->reply.data + c->sent, n);
            c->sent += n;
            atomic_store(&c->sent_ms, front_now_ms());
            return (ssize_t)n;
        }
        if (c->over)
            return MHD_CONTENT_READER_END_OF_STREAM;
        strbuf_clear(&c->reply);
        c->sent = 0;
        pump_stream(c);
        if (c->reply.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (c->reply.len > 0 || c->over)
            continue;
        switch (wait_for_news(c)) {
        case WAIT_SUSPENDED:
            return 0;
        case WAIT_GONE:
            if (!atomic_load(&c->front->hard))
                return MHD_CONTENT_READER_END_WITH_ERROR;
            break;
        case WAIT_AGAIN:
            break;
        }
    }
}

static enum MHD_Result send_stream(struct call *c)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, FRONT_CONNECTION_BYTES, read_stream, c, NULL);

    c->content_type = "text/event-stream; charset=utf-8";
    if (r)
        MHD_add_response_header(r, "X-Accel-Buffering", "no"); /* nginx would wait for more */
    return queue(c, r);
}

/* --- requests ------------------------------------------------------------ */

static int find_route(struct call *c, const char *path, const char *method)
{
    char shown[SHOWN_PATH_BYTES];

    c->is_head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    for (size_t i = 0; i < n_routes; i++) {
        if (strcmp(routes[i].path, path) != 0)
            continue;
        c->route = &routes[i];
        if (strcmp(routes[i].method, c->is_head ? MHD_HTTP_METHOD_GET : method) == 0)
            return 0;
    }
    err_printable(shown, sizeof shown, path, strlen(path));
    if (!c->route)
        return api_fail(&c->error, 404, "invalid_request_error", "unknown_url", "there is nothing at %s; docs/api.md lists what there is",
                        shown);
    char what[24];
    return api_fail(&c->error, 405, "invalid_request_error", "method_not_allowed", "%s takes %s, not %s", shown, c->route->method,
                    err_printable(what, sizeof what, method, strlen(method)));
}

/* What can be said before the body has come. */
static int check_head(struct call *c, const char *path, const char *method)
{
    const char *length = header(c->connection, MHD_HTTP_HEADER_CONTENT_LENGTH), *origin = header(c->connection, MHD_HTTP_HEADER_ORIGIN);
    struct front *f = c->front;
    struct err why;
    const char *state;

    if (origin && guard_allows_origin(&f->guard, origin) && strlen(origin) < sizeof c->origin)
        snprintf(c->origin, sizeof c->origin, "%s", origin);
    int rc = find_route(c, path, method);
    if (guard_check(&f->guard, header(c->connection, MHD_HTTP_HEADER_AUTHORIZATION), header(c->connection, MHD_HTTP_HEADER_HOST), origin,
                    c->route && c->route->is_open, &c->error) != 0)
        return -1;
    if (rc != 0)
        return rc;
    if (length && strtoull(length, NULL, 10) > FRONT_BODY_BYTES)
        return api_fail(&c->error, 413, "invalid_request_error", "body_too_large", "the body has %s bytes; at most %d are allowed",
                        strlen(length) < 21 ? length : "too many", FRONT_BODY_BYTES);
    if (atomic_load(&f->stopping))
        return api_fail(&c->error, 503, "server_error", "stopping", "the server is stopping");
    if (c->route->needs_model && !atomic_load(&f->was_ready) && (rc = front_ready(f, &state, &why)) != 0)
        return api_fail(&c->error, 503, "server_error", state, "%s", why.text);
    return 0;
}

/* A page asks whether it may ask. */
static enum MHD_Result send_preflight(struct call *c)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

    c->status = MHD_HTTP_NO_CONTENT;
    if (r) {
        MHD_add_response_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
        MHD_add_response_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type");
        MHD_add_response_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_MAX_AGE, "600");
    }
    return queue(c, r);
}

static enum MHD_Result begin(struct call *c, const char *path, const char *method)
{
    const char *length = header(c->connection, MHD_HTTP_HEADER_CONTENT_LENGTH);

    refuse(c, check_head(c, path, method));
    if (c->origin[0] && strcmp(method, MHD_HTTP_METHOD_OPTIONS) == 0)
        return send_preflight(c);
    /* Most errors wait for the body, which is passed over, so that the client reads them and the connection can go on. Not so
     * one that is too long to be read at all. */
    if (c->is_refused && length && strtoull(length, NULL, 10) > FRONT_PASS_OVER_BYTES)
        return send_reply(c);
    return MHD_YES;
}

/* A part of the body. MHD_NO ends the connection. */
static enum MHD_Result take_body(struct call *c, const char *data, size_t size)
{
    struct front *f = c->front;

    if (front_now_ms() - c->began_ms > FRONT_READ_MS)
        return MHD_NO;
    if (c->is_refused) {
        c->passed_over += size;
        return c->passed_over > FRONT_PASS_OVER_BYTES ? MHD_NO : MHD_YES;
    }
    if (atomic_fetch_add(&f->body_bytes, size) + size > FRONT_BODIES_BYTES) {
        atomic_fetch_sub(&f->body_bytes, size);
        refuse(c, api_fail(&c->error, 429, "rate_limit_error", "busy", "too many large requests at once; try again in a while"));
        return MHD_YES;
    }
    c->body_counted += size;
    strbuf_add(&c->body, data, size);
    if (c->body.failed)
        refuse(c, api_fail(&c->error, 413, "invalid_request_error", "body_too_large", "the body has more than the %d bytes allowed",
                           FRONT_BODY_BYTES));
    return MHD_YES;
}

/* Hands the call to a helper, the connection suspended until that is done. */
static void dispatch(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    c->was_dispatched = true;
    if (!atomic_load(&c->front->hard) && queue_push(c->front->jobs, c, 0) == 0) {
        c->working = c->waiting = true;
        MHD_suspend_connection(c->connection);
        pthread_mutex_unlock(&c->lock);
        return;
    }
    pthread_mutex_unlock(&c->lock);
    refuse(c, api_fail(&c->error, 429, "rate_limit_error", "busy", "too many requests at once; try again in a while"));
}

static void *help(void *arg)
{
    struct front *f = arg;
    void *item;

    while (queue_pop(f->jobs, &item, -1) == 0) {
        struct call *c = item;
        if (c->route->run(c, &c->error) != 0)
            c->is_refused = true;
        if (c->job)
            watch_add(c);
        pthread_mutex_lock(&c->lock); /* also waits until the connection is suspended */
        c->working = false;
        c->woken = true;
        if (c->waiting) {
            c->waiting = false;
            MHD_resume_connection(c->connection);
        }
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

/* A whole answer: waits until it is one. */
static enum MHD_Result advance_whole(struct call *c)
{
    for (;;) {
        int rc = c->job->ops->pump(c->job, &c->reply, &c->error);
        if (rc != 0) {
            c->is_refused = rc < 0;
            return send_reply(c);
        }
        switch (wait_for_news(c)) {
        case WAIT_SUSPENDED:
            return MHD_YES;
        case WAIT_AGAIN:
            break;
        case WAIT_GONE:
            if (!atomic_load(&c->front->hard))
                return MHD_NO;
            api_fail(&c->error, 503, "server_error", "stopping", "the server is stopping");
            c->is_refused = true;
            return send_reply(c);
        }
    }
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
                                  const char *data, size_t *size, void **state)
{
    struct call *c = *state;

    (void)version;
    if (!c) {
        if (!(c = *state = call_create(cls, connection)))
            return MHD_NO;
        return begin(c, url, method);
    }
    if (*size > 0) {
        enum MHD_Result rc = take_body(c, data, *size);
        *size = 0;
        return rc;
    }
    if (!c->is_refused && !c->was_dispatched) {
        dispatch(c);
        if (!c->is_refused)
            return MHD_YES;
    }
    if (c->is_refused || !c->job)
        return send_reply(c);
    return c->job->streams ? send_stream(c) : advance_whole(c);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why)
{
    struct front *f = cls;
    struct call *c = *state;

    (void)connection;
    if (!c)
        return;
    if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        metrics_add(&f->metrics.clients_gone, 1);
    call_destroy(c);
    *state = NULL;
}

/* --- starting and stopping ----------------------------------------------- */

/* "HOST:PORT" or "[HOST]:PORT" in two; host is "" for all addresses. */
static int split_address(const char *listen, char *host, size_t host_size, char *port, size_t port_size, struct err *err)
{
    const char *colon = strrchr(listen, ':');
    const char *from = listen;
    size_t len = colon ? (size_t)(colon - listen) : 0;

    if (colon && len >= 2 && listen[0] == '[' && listen[len - 1] == ']') {
        from++;
        len -= 2;
    }
    if (!colon || !colon[1] || strlen(colon + 1) >= port_size || len >= host_size || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return err_set(err, ERR_USAGE, "--listen %s: an address and a port are expected, such as 127.0.0.1:8080 or [::1]:8080", listen);
    memcpy(host, from, len);
    host[len] = '\0';
    snprintf(port, port_size, "%s", colon + 1);
    return 0;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static void write_url(struct front *f)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    char host[64] = "?", port[8] = "?";

    if (getsockname(f->listen_fd, (struct sockaddr *)&a, &len) == 0)
        getnameinfo((struct sockaddr *)&a, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(f->url, sizeof f->url, a.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
}

static int listen_at(struct front *f, const char *listen_text, bool *ret_loopback, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    char host[256], port[8];
    int rc, yes = 1;

    if (split_address(listen_text, host, sizeof host, port, sizeof port, err) != 0)
        return -1;
    if ((rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found)) != 0)
        return err_set(err, ERR_USAGE, "--listen %s: %s", listen_text, gai_strerror(rc));
    *ret_loopback = is_loopback(found->ai_addr);
    f->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (f->listen_fd < 0 || setsockopt(f->listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(f->listen_fd, found->ai_addr, found->ai_addrlen) != 0 || listen(f->listen_fd, SOMAXCONN) != 0)
        rc = err_errno(err, errno, "listening at %s", listen_text);
    freeaddrinfo(found);
    if (rc == 0)
        write_url(f);
    return rc;
}

static int check_options(const struct front *f, bool loopback, struct err *err)
{
    const struct front_options *o = &f->options;

    if (o->no_auth && o->api_key_file)
        return err_set(err, ERR_USAGE, "--no-auth and --api-key-file contradict each other; give one of them");
    if (!loopback && !o->no_auth && !o->api_key_file)
        return err_set(err, ERR_USAGE, "--listen %s can be reached from other machines: give --api-key-file FILE, or say --no-auth",
                       o->listen);
    return 0;
}

static void say(void *cls, const char *fmt, va_list args)
{
    char text[256];

    (void)cls;
    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    log_line(LOG_DEBUG, "http: %s", text);
}

static int start_http(struct front *f, struct err *err)
{
    const struct front_options *o = &f->options;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_ITC;

    f->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, f, MHD_OPTION_EXTERNAL_LOGGER, say, NULL, MHD_OPTION_LISTEN_SOCKET,
                                 f->listen_fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)FRONT_THREADS, MHD_OPTION_NOTIFY_COMPLETED,
                                 on_completed, f, MHD_OPTION_CONNECTION_LIMIT,
                                 o->connections ? o->connections : (unsigned)FRONT_CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                                 o->connections_per_address ? o->connections_per_address : (unsigned)FRONT_CONNECTIONS_PER_ADDRESS,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)FRONT_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)FRONT_IDLE_S, MHD_OPTION_END);
    if (!f->daemon)
        return err_set(err, ERR_IO, "the HTTP server does not start at %s", o->listen);
    f->listen_fd = -1; /* the daemon's */
    return 0;
}

static int start_helpers(struct front *f, struct err *err)
{
    if (!(f->jobs = queue_create(FRONT_CONNECTIONS, err)))
        return -1;
    while (f->n_helpers < FRONT_HELPERS) {
        int rc = pthread_create(&f->helpers[f->n_helpers], NULL, help, f);
        if (rc != 0)
            return err_errno(err, rc, "starting a thread that reads requests");
        f->n_helpers++;
    }
    return 0;
}

struct front *front_create(const struct front_options *options, struct engine *engine, struct err *err)
{
    struct front *f = mem_new(1, sizeof *f, err);
    bool loopback;

    if (!f)
        return NULL;
    f->options = *options;
    f->engine = engine;
    f->started_s = time(NULL);
    f->listen_fd = f->epoll_fd = f->stop_fd = -1;
    atomic_init(&f->next_serial, 1);
    snprintf(f->model, sizeof f->model, "%s", options->model);
    pthread_mutex_init(&f->lock, NULL);
    if (listen_at(f, options->listen, &loopback, err) != 0 || check_options(f, loopback, err) != 0 ||
        guard_init(&f->guard, options->api_key_file, loopback, options->hosts, options->n_hosts, options->cors, err) != 0 ||
        page_init(&f->page, err) != 0 || prompt_init(&f->prompt, engine_gguf(engine), err) != 0 || watch_start(f, err) != 0 || start_helpers(f, err) != 0 ||
        start_http(f, err) != 0) {
        front_destroy(f);
        return NULL;
    }
    return f;
}

const char *front_url(const struct front *f)
{
    return f->url;
}

static void wake_all(struct front *f)
{
    pthread_mutex_lock(&f->lock);
    for (struct call *c = f->calls; c; c = c->next)
        call_wake(c);
    pthread_mutex_unlock(&f->lock);
}

static bool has_calls(struct front *f)
{
    pthread_mutex_lock(&f->lock);
    bool some = f->calls != NULL;
    pthread_mutex_unlock(&f->lock);
    return some;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = STOP_POLL_MS * 1000000L}, NULL);
}

void front_stop(struct front *f, unsigned grace_ms, bool (*hurry)(void))
{
    int64_t until = front_now_ms() + grace_ms;

    if (f->stopped)
        return;
    f->stopped = true;
    atomic_store(&f->stopping, true);
    if (f->daemon) {
        int fd = MHD_quiesce_daemon(f->daemon);
        if (fd >= 0)
            close(fd);
    }
    while (atomic_load(&f->n_jobs) > 0 && front_now_ms() < until && !(hurry && hurry()))
        nap();
    /* From here on nobody waits: what runs is told so. libmicrohttpd does not stop while connections are suspended. */
    atomic_store(&f->hard, true);
    if (f->jobs)
        queue_close(f->jobs);
    for (unsigned i = 0; i < f->n_helpers; i++)
        pthread_join(f->helpers[i], NULL);
    wake_all(f);
    until = front_now_ms() + STOP_LAST_WORDS_MS;
    while (has_calls(f) && front_now_ms() < until)
        nap();
    if (f->daemon)
        MHD_stop_daemon(f->daemon);
    watch_stop(f);
}

void front_destroy(struct front *f)
{
    if (!f)
        return;
    front_stop(f, 0, NULL);
    if (f->listen_fd >= 0)
        close(f->listen_fd);
    queue_destroy(f->jobs);
    prompt_fini(&f->prompt);
    guard_fini(&f->guard);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
