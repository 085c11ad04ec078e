/* See http.h. HTTP/1.0 is asked for: the reply ends with the connection, and has no chunks to be put together. */
#include "config.h"

#include "cli/http.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/strbuf.h"
#include "cli/http_inner.h"
#include "cli/ui.h"

enum { SLICE_MS = 100 };

/* --- http:// ------------------------------------------------------------- */

static int split_url(const char *url, char host[HTTP_URL_BYTES], const char **ret_name, const char **ret_port, struct err *err)
{
    const char *from = url + strlen("http://");

    if (strncmp(url, "http://", strlen("http://")) != 0 || strlen(url) >= HTTP_URL_BYTES)
        return err_set(err, ERR_USAGE, "%.300s: an address such as http://127.0.0.1:8080 is expected", url);
    snprintf(host, HTTP_URL_BYTES, "%.*s", (int)strcspn(from, "/"), from);
    char *colon = strrchr(host, ':');
    *ret_name = host;
    if (!colon || strchr(colon, ']'))
        return err_set(err, ERR_USAGE, "%s: a port is missing, as in http://127.0.0.1:8080", url);
    *colon = '\0';
    *ret_port = colon + 1;
    if (host[0] == '[' && colon > host + 1 && colon[-1] == ']') {
        *ret_name = host + 1;
        colon[-1] = '\0';
    }
    return 0;
}

/* Waits until fd is ready for `events`. */
static int wait_for(int fd, short events, const struct http_request *r, struct err *err)
{
    double until = ui_seconds() + r->timeout_ms / 1e3;

    while (!ui_interrupted()) {
        struct pollfd p = {fd, events, 0};
        int n = poll(&p, 1, SLICE_MS);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_errno(err, errno, "%s", r->url);
        if (ui_seconds() >= until)
            return err_set(err, ERR_IO, "%s: nothing came for %.0f s", r->url, r->timeout_ms / 1e3);
    }
    return err_set(err, ERR_CANCELLED, "interrupted");
}

static int connect_one(const struct addrinfo *a, const struct http_request *r, struct err *err)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), failed = 0;
    socklen_t size = sizeof failed;

    if (fd < 0)
        return err_errno(err, errno, "%s", r->url);
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS)
        failed = errno;
    else if (wait_for(fd, POLLOUT, r, err) != 0)
        goto error;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    if (!failed)
        return fd;
    err_errno(err, failed, "nobody answers at %s", r->url);
error:
    close(fd);
    return -1;
}

static int connect_to(const struct http_request *r, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char host[HTTP_URL_BYTES];
    const char *name = NULL, *port = NULL;
    int fd = -1, rc;

    if (split_url(r->url, host, &name, &port, err) != 0)
        return -1;
    if ((rc = getaddrinfo(name, port, &hints, &found)) != 0)
        return err_set(err, ERR_NOT_FOUND, "%s: %s", r->url, gai_strerror(rc));
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = connect_one(a, r, err);
    freeaddrinfo(found);
    return fd;
}

static int send_all(int fd, const struct http_request *r, const struct strbuf *ask, struct err *err)
{
    for (size_t at = 0; at < ask->len;) {
        ssize_t n = send(fd, ask->data + at, ask->len - at, MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR)
            return err_errno(err, errno, "asking %s", r->url);
        else if (wait_for(fd, POLLOUT, r, err) != 0)
            return -1;
    }
    return 0;
}

static int ask(int fd, const struct http_request *r, struct err *err)
{
    struct strbuf text;
    char host[HTTP_URL_BYTES];
    size_t body = r->body ? strlen(r->body) : 0;
    int rc;

    snprintf(host, sizeof host, "%.*s", (int)strcspn(r->url + strlen("http://"), "/"), r->url + strlen("http://"));
    strbuf_init(&text, body + 8192);
    strbuf_printf(&text, "%s %s HTTP/1.0\r\nHost: %s\r\n", r->body ? "POST" : "GET", r->path, host);
    if (r->key)
        strbuf_printf(&text, "Authorization: Bearer %s\r\n", r->key);
    if (r->body)
        strbuf_printf(&text, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body);
    strbuf_puts(&text, "\r\n");
    strbuf_add(&text, r->body, body);
    rc = strbuf_check(&text, "the request", err);
    if (rc == 0)
        rc = send_all(fd, r, &text, err);
    strbuf_fini(&text);
    return rc;
}

static int receive(int fd, struct http_reply *reply, struct err *err)
{
    char buf[16384];
    int rc = 0;

    while (rc == 0) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n > 0)
            rc = http_reply_take(reply, buf, (size_t)n, err);
        else if (n == 0)
            break;
        else if (errno == EAGAIN || errno == EINTR)
            rc = wait_for(fd, POLLIN, reply->request, err);
        else
            rc = err_errno(err, errno, "the answer of %s", reply->request->url);
    }
    if (rc == 0)
        rc = http_reply_end(reply, err);
    return rc < 0 ? -1 : 0;
}

static int plain(struct http_reply *reply, struct err *err)
{
    int fd = connect_to(reply->request, err), rc;

    if (fd < 0)
        return -1;
    rc = ask(fd, reply->request, err);
    if (rc == 0)
        rc = receive(fd, reply, err);
    close(fd);
    return rc;
}

char *http_ask(const struct http_request *r, int *ret_status, struct err *err)
{
    struct http_reply reply;
    char *body = NULL;
    int rc;

    http_reply_init(&reply, r);
    rc = strncmp(r->url, "https://", strlen("https://")) == 0 ? http_curl(&reply, err) : plain(&reply, err);
    if (rc == 0 && !(body = strdup(strbuf_str(&reply.kept))))
        err_set(err, ERR_MEMORY, "%s: out of memory", r->url);
    *ret_status = reply.status;
    http_reply_fini(&reply);
    return body;
}
