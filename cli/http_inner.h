#ifndef CLI_HTTP_INNER_H
#define CLI_HTTP_INNER_H

/* Between http.c and http_curl.c: a reply as it comes. */

#include "base/strbuf.h"
#include "cli/http.h"

struct http_reply {
    const struct http_request *request;
    int status;         /* 0: the head has not come */
    struct strbuf kept; /* the body, where nobody takes it */
};

void http_reply_init(struct http_reply *reply, const struct http_request *r);
int http_reply_body(struct http_reply *reply, const char *data, size_t len, struct err *err); /* as on_data */
int http_curl(struct http_reply *reply, struct err *err);                                     /* https:// */

#endif
