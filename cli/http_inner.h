#ifndef CLI_HTTP_INNER_H
#define CLI_HTTP_INNER_H

/* Between http.c, http_curl.c and http_reply.c: a reply as it comes. */

#include "base/strbuf.h"
#include "cli/http.h"

enum { HTTP_MAX_HEAD = 64 << 10 };

struct http_reply {
    const struct http_request *request;
    int status;         /* 0: the head has not come */
    struct strbuf head; /* as far as it has come */
    struct strbuf kept; /* the body, where nobody takes it */
};

void http_reply_init(struct http_reply *reply, const struct http_request *r);
/* As on_data: bytes of all that comes, head and body; and of the body alone, where somebody else reads heads. */
int http_reply_take(struct http_reply *reply, const char *data, size_t len, struct err *err);
int http_reply_body(struct http_reply *reply, const char *data, size_t len, struct err *err);
/* -1 and err where the reply ended before its head did. */
int http_reply_end(const struct http_reply *reply, struct err *err);
void http_reply_fini(struct http_reply *reply);

int http_curl(struct http_reply *reply, struct err *err); /* https:// */

#endif
