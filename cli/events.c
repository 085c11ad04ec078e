/* See events.h. */
#include "cli/events.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { SHOWN_BYTES = 300 };

void events_init(struct events *e, const char *url)
{
    *e = (struct events){.url = url};
    strbuf_init(&e->line, EVENTS_LINE_MAX_BYTES);
}

void events_fini(struct events *e)
{
    strbuf_fini(&e->line);
}

static uint64_t count(const json_t *o, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(o, name));

    return n > 0 ? (uint64_t)n : 0;
}

static int on_object(struct events *e, const json_t *o, struct err *err)
{
    const json_t *choice = json_array_get(json_object_get(o, "choices"), 0), *usage = json_object_get(o, "usage"),
                 *error = json_object_get(o, "error");
    const json_t *content = json_object_get(json_object_get(choice, "delta"), "content");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason")),
               *message = json_string_value(json_object_get(error, "message"));
    char shown[SHOWN_BYTES];
    int rc = 0;

    if (error && !json_is_null(error))
        return err_set(err, ERR_IO, "%s: %s", e->url,
                       message ? err_printable(shown, sizeof shown, message, strlen(message)) : "the answer failed");
    if (finish)
        err_printable(e->finish, sizeof e->finish, finish, strlen(finish));
    if (json_is_object(usage)) {
        e->prompt_tokens = count(usage, "prompt_tokens");
        e->new_tokens = count(usage, "completion_tokens");
        e->cached_tokens = count(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    }
    if (json_string_length(content) > 0)
        rc = e->on_text(e->arg, json_string_value(content), json_string_length(content), err);
    return rc;
}

static int on_line(struct events *e, const char *line, size_t len, struct err *err)
{
    char shown[SHOWN_BYTES];

    if (line[0] == ':' && e->on_comment) {
        line += 1 + strspn(line + 1, " ");
        e->on_comment(e->arg, err_printable(shown, sizeof shown, line, strcspn(line, "\r")));
    }
    if (strncmp(line, "data:", 5) != 0)
        return 0;
    const char *text = line + 5 + strspn(line + 5, " ");
    if (strncmp(text, "[DONE]", 6) == 0)
        return 1;
    json_t *o = json_loadb(text, len - (size_t)(text - line), 0, NULL);
    if (!o)
        return err_set(err, ERR_IO, "%s: a piece of the answer is no JSON: %s", e->url, err_printable(shown, 80, text, strlen(text)));
    int rc = on_object(e, o, err);
    json_decref(o);
    return rc;
}

int events_take(struct events *e, const char *data, size_t len, struct err *err)
{
    int rc = 0;

    while (rc == 0 && len) {
        const char *end = memchr(data, '\n', len);
        size_t n = end ? (size_t)(end - data) + 1 : len;
        strbuf_add(&e->line, data, n - (end != NULL));
        if (strbuf_check(&e->line, "a piece of the answer", err) != 0)
            return -1;
        data += n;
        len -= n;
        if (end) {
            rc = on_line(e, strbuf_str(&e->line), e->line.len, err);
            strbuf_clear(&e->line);
        }
    }
    return rc;
}
