/* cli/: what a server answers to `chat --url`: a head, and the events of an answer, cut anywhere (the first two bytes say where).
 * However it is cut, it says the same; what of it reaches a terminal or a conversation is UTF-8. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/events.h"
#include "cli/http_inner.h"
#include "tests/fuzz/fuzz.h"

static void must(int cond)
{
    if (!cond)
        abort();
}

static int is_utf8(const char *s, size_t n)
{
    size_t i = 0, len;

    while (i < n && (len = utf8_len(s + i, n - i)) > 0)
        i += len;
    return i == n;
}

struct heard {
    struct events events;
    struct strbuf text, comments;
};

static int on_text(void *arg, const char *text, size_t len, struct err *err)
{
    struct heard *h = arg;

    (void)err;
    must(len > 0 && is_utf8(text, len) && memchr(text, '\0', len) == NULL);
    strbuf_add(&h->text, text, len);
    return memchr(text, '\a', len) ? 1 : 0; /* the one who listens may end it */
}

static void on_comment(void *arg, const char *text)
{
    struct heard *h = arg;

    must(is_utf8(text, strlen(text)));
    for (const char *s = text; *s; s++)
        must((unsigned char)*s >= 0x20 && *s != 0x7F);
    strbuf_puts(&h->comments, text);
    strbuf_putc(&h->comments, '\n');
}

static int on_data(void *arg, const char *data, size_t len, struct err *err)
{
    return events_take(&((struct heard *)arg)->events, data, len, err);
}

static int listen_to(struct heard *h, struct http_reply *reply, struct http_request *r, const uint8_t *data, size_t size, size_t step,
                     struct err *err)
{
    int rc = 0;

    *h = (struct heard){0};
    strbuf_init(&h->text, 64 << 20);
    strbuf_init(&h->comments, 64 << 20);
    events_init(&h->events, "http://x:1");
    h->events.on_text = on_text;
    h->events.on_comment = on_comment;
    h->events.arg = h;
    *r = (struct http_request){.url = "http://x:1", .on_data = on_data, .arg = h};
    http_reply_init(reply, r);
    err_clear(err);
    for (size_t at = 0; rc == 0 && at < size; at += step)
        rc = http_reply_take(reply, (const char *)data + at, size - at < step ? size - at : step, err);
    if (rc == 0)
        rc = http_reply_end(reply, err);
    must(rc >= 0 || err->text[0]);
    must(is_utf8(err->text, strlen(err->text)) && is_utf8(h->events.finish, strlen(h->events.finish)));
    must(reply->status == 0 || (reply->status >= 100 && reply->status <= 599));
    return rc;
}

static void end(struct heard *h, struct http_reply *reply)
{
    events_fini(&h->events);
    strbuf_fini(&h->text);
    strbuf_fini(&h->comments);
    http_reply_fini(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct heard whole, cut;
    struct http_reply first, second;
    struct http_request r[2];
    struct err err[2];

    if (size < 2)
        return 0;
    size_t step = 1 + (data[0] | (size_t)data[1] << 8);
    data += 2;
    size -= 2;
    int rc = listen_to(&whole, &first, &r[0], data, size, size ? size : 1, &err[0]),
        again = listen_to(&cut, &second, &r[1], data, size, step, &err[1]);
    must(rc == again && first.status == second.status && strcmp(err[0].text, err[1].text) == 0);
    must(strcmp(strbuf_str(&whole.text), strbuf_str(&cut.text)) == 0 &&
         strcmp(strbuf_str(&whole.comments), strbuf_str(&cut.comments)) == 0);
    must(strcmp(whole.events.finish, cut.events.finish) == 0 && whole.events.new_tokens == cut.events.new_tokens);
    if (first.status && first.status != 200)
        http_refused("http://x:1", first.status, strbuf_str(&first.kept), &err[0]);
    must(is_utf8(err[0].text, strlen(err[0].text)));
    end(&whole, &first);
    end(&cut, &second);
    return 0;
}
