/* See http_inner.h: what a server answers, cut anywhere. It may be anybody. */
#include <jansson.h>
#include <string.h>

#include "cli/http_inner.h"

void http_reply_init(struct http_reply *reply, const struct http_request *r)
{
    *reply = (struct http_reply){.request = r};
    strbuf_init(&reply->head, HTTP_MAX_HEAD);
    strbuf_init(&reply->kept, HTTP_MAX_REPLY);
}

void http_reply_fini(struct http_reply *reply)
{
    strbuf_fini(&reply->head);
    strbuf_fini(&reply->kept);
}

int http_reply_body(struct http_reply *reply, const char *data, size_t len, struct err *err)
{
    if (reply->request->on_data && reply->status == 200)
        return reply->request->on_data(reply->request->arg, data, len, err);
    strbuf_add(&reply->kept, data, len);
    return strbuf_check(&reply->kept, "the answer", err);
}

static int no_http(const struct http_reply *reply, struct err *err)
{
    return err_set(err, ERR_IO, "%s: what answers there does not speak HTTP", reply->request->url);
}

/* "HTTP/1.1 200 OK" */
static int read_status(const char *line)
{
    const char *at = line + strcspn(line, " \r\n");

    if (strncmp(line, "HTTP/", 5) != 0 || *at != ' ' || strspn(at + 1, "0123456789") != 3)
        return 0;
    int status = (at[1] - '0') * 100 + (at[2] - '0') * 10 + (at[3] - '0');
    return status >= 100 && status <= 599 ? status : 0;
}

int http_reply_take(struct http_reply *reply, const char *data, size_t len, struct err *err)
{
    size_t had = reply->head.len, room = HTTP_MAX_HEAD - 1 - had, n = len < room ? len : room;

    if (reply->status)
        return http_reply_body(reply, data, len, err);
    strbuf_add(&reply->head, data, n);
    if (strbuf_check(&reply->head, "the head of the answer", err) != 0)
        return -1;
    const char *end = strstr(strbuf_str(&reply->head), "\r\n\r\n");
    if (!end)
        return n < len ? no_http(reply, err) : 0;
    if (!(reply->status = read_status(reply->head.data)))
        return no_http(reply, err);
    size_t used = (size_t)(end + 4 - reply->head.data) - had;
    return len > used ? http_reply_body(reply, data + used, len - used, err) : 0;
}

int http_reply_end(const struct http_reply *reply, struct err *err)
{
    return reply->status ? 0 : no_http(reply, err);
}

int http_refused(const char *url, int status, const char *body, struct err *err)
{
    json_t *o = json_loads(body, 0, NULL), *error = json_object_get(o, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    char shown[300];

    if (!message)
        message = o ? "-" : body;
    err_set(err, ERR_IO, "%s answers %d: %s", url, status, err_printable(shown, sizeof shown, message, strlen(message)));
    json_decref(o);
    return -1;
}
