/* A request from its head to its reply; see inner.h. libmicrohttpd's threads call into here; a connection that waits is suspended, and resumed by
 * call_wake. Waking before suspending cannot be lost: `woken` stands under the call's lock, which is held around both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "front/inner.h"

enum { SHOWN_PATH_BYTES = 80 };

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
    api_key_end(c->key);
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
    if (c->status == 429 || c->status == 503) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", c->error.retry_s ? c->error.retry_s : c->status == 429 ? 1 : 2);
        MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
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

/* A route's path may end in the model's name, "{model}". */
static bool is_path(const char *route, const char *path, const char *model)
{
    const char *brace = strchr(route, '{');
    size_t len = brace ? (size_t)(brace - route) : 0;

    return brace ? strncmp(route, path, len) == 0 && strcmp(path + len, model) == 0 : strcmp(route, path) == 0;
}

static int find_route(struct call *c, const char *path, const char *method)
{
    char shown[SHOWN_PATH_BYTES];

    c->is_head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    for (size_t i = 0; i < n_routes; i++) {
        if (!is_path(routes[i].path, path, c->front->model))
            continue;
        c->route = &routes[i];
        if (strcmp(routes[i].method, c->is_head ? MHD_HTTP_METHOD_GET : method) == 0)
            return 0;
    }
    err_printable(shown, sizeof shown, path, strlen(path));
    if (!c->route && strncmp(path, "/v1/models/", 11) == 0)
        return api_fail(&c->error, 404, "invalid_request_error", "model_not_found", "the model served here is \"%s\"", c->front->model);
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
    struct api_key *key;
    if (guard_check(&f->guard, header(c->connection, MHD_HTTP_HEADER_AUTHORIZATION), header(c->connection, MHD_HTTP_HEADER_HOST), origin,
                    !c->route ? GUARD_KEY : c->route->is_open ? GUARD_OPEN : c->route->needs_admin ? GUARD_ADMIN : GUARD_KEY, &key, &c->error) != 0)
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
    if (!c->route->counts || !key)
        return 0;
    if (api_key_begin(key, front_now_ms(), &c->error) != 0)
        return -1;
    c->key = key;
    return 0;
}

/* A page asks whether it may ask. */
static enum MHD_Result send_preflight(struct call *c)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

    c->status = MHD_HTTP_NO_CONTENT;
    if (r) {
        MHD_add_response_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
        const char *wanted = header(c->connection, MHD_HTTP_HEADER_ACCESS_CONTROL_REQUEST_HEADERS);
        MHD_add_response_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_HEADERS, wanted ? wanted : "Authorization, Content-Type");
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

/* Hands the call to a helper, the connection suspended until that is done: true, and the call is the helper's from then on, not even to
 * be looked at here. False: it is refused. */
static bool dispatch(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    c->was_dispatched = true;
    if (!atomic_load(&c->front->hard) && queue_push(c->front->jobs, c, 0) == 0) {
        c->working = c->waiting = true;
        MHD_suspend_connection(c->connection);
        pthread_mutex_unlock(&c->lock);
        return true;
    }
    pthread_mutex_unlock(&c->lock);
    refuse(c, api_fail(&c->error, 429, "rate_limit_error", "busy", "too many requests at once; try again in a while"));
    return false;
}

void *http_help(void *arg)
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

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
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
    if (!c->is_refused && !c->was_dispatched && dispatch(c))
        return MHD_YES;
    if (c->is_refused || !c->job)
        return send_reply(c);
    return c->job->streams ? send_stream(c) : advance_whole(c);
}

void http_on_completed(void *cls, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why)
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
