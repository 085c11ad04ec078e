#ifndef CLI_HTTP_H
#define CLI_HTTP_H

/* The little HTTP that commands need to ask a server of ours: one request a connection. http:// is spoken here, https:// by
 * libcurl where that was there when we were built. Ctrl-C (where somebody watches for it) ends a request. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum { HTTP_URL_BYTES = 256, HTTP_MAX_REPLY = 64 << 20 };

struct http_request {
    const char *url;     /* http://HOST:PORT */
    const char *path;    /* "/health" */
    const char *key;     /* NULL: none */
    const char *body;    /* JSON to POST; NULL: GET */
    int timeout_ms;      /* for which nothing may come */
    bool is_own;         /* found by its control file: no proxy stands between, and its certificate needs no check without ca_file */
    const char *ca_file; /* https: the certificate to trust instead of the system's; NULL: these */
    /* Where a reply of status 200 goes as it comes; NULL: it is kept. Returns 0 to go on, 1 to end, -1 and err. */
    int (*on_data)(void *arg, const char *data, size_t len, struct err *err);
    void *arg;
};

/* The body, 0-terminated, the caller frees it; "" where on_data had it. Its HTTP status in *ret_status. NULL and err where nobody
 * answers, on_data failed, or ERR_CANCELLED after Ctrl-C. */
char *http_ask(const struct http_request *r, int *ret_status, struct err *err);

/* err from a reply that is no success: the server's own words. Returns -1. */
int http_refused(const char *url, int status, const char *body, struct err *err);

#endif
