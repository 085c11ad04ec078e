/* See chat_inner.h: answers by a server's API. The conversation is kept here and sent whole; the server finds what it has computed
 * already by itself. */
#include <stdlib.h>
#include <string.h>

#include "cli/chat_inner.h"
#include "cli/http.h"

enum { IDLE_MS = 60000, LINE_MAX_BYTES = 1 << 20 };

/* The stream's lines as they come. */
struct stream {
    struct chat *chat;
    struct strbuf line;
    char finish[CHAT_FINISH_BYTES];
    double began, first;
    bool waits;
};

static int open_model(struct chat *c, struct err *err)
{
    char *body = control_ask(&c->server, "/v1/models", NULL, err);
    json_t *o = body ? json_loads(body, 0, NULL) : NULL, *model = json_array_get(json_object_get(o, "data"), 0);
    const char *id = json_string_value(json_object_get(model, "id"));

    free(body);
    if (body && !id)
        err_set(err, ERR_IO, "%s: what answers there has no model", c->server.url);
    if (id) {
        err_printable(c->local.name, sizeof c->local.name, id, strlen(id));
        c->local.ctx = (uint32_t)json_integer_value(json_object_get(model, "max_model_len"));
    }
    json_decref(o);
    return id ? 0 : -1;
}

int chat_open_remote(struct chat *c, const struct control_server *server, const char *system, struct err *err)
{
    *c = (struct chat){.messages = json_array(), .server = *server};
    strbuf_init(&c->answer, CHAT_ANSWER_MAX_BYTES);
    if (!c->messages)
        return err_set(err, ERR_MEMORY, "chat: out of memory");
    if (system && chat_set_system(c, system, err) != 0)
        return -1;
    return open_model(c, err);
}

/* One event's object: its piece of the answer is shown. */
static int on_event(struct stream *s, const json_t *o, struct err *err)
{
    struct chat *c = s->chat;
    const json_t *choice = json_array_get(json_object_get(o, "choices"), 0), *delta = json_object_get(choice, "delta");
    const json_t *content = json_object_get(delta, "content"), *usage = json_object_get(o, "usage"), *error = json_object_get(o, "error");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason")), *message = json_string_value(json_object_get(error, "message"));
    char shown[300];

    if (error)
        return err_set(err, ERR_IO, "%s: %s", c->server.url, message ? err_printable(shown, sizeof shown, message, strlen(message)) : "the answer failed");
    if (json_string_length(content) > 0) {
        s->first = s->first > 0 ? s->first : ui_seconds();
        chat_add_text(c, json_string_value(content), json_string_length(content));
        if (chat_show(c, err) < 0)
            return -1;
    }
    if (finish)
        snprintf(s->finish, sizeof s->finish, "%s", finish);
    if (json_is_object(usage)) {
        c->last.prompt_tokens = (uint64_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
        c->last.new_tokens = (uint64_t)json_integer_value(json_object_get(usage, "completion_tokens"));
        c->reused = (uint64_t)json_integer_value(json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"));
    }
    return 0;
}

static int on_line(struct stream *s, const char *line, struct err *err)
{
    if (line[0] == ':' && ui_err_is_terminal() && s->first == 0 && !s->waits) {
        ui_say("%s(%s)%s", ui_style(UI_DIM, false), line + 1 + strspn(line + 1, " "), ui_style(UI_PLAIN, false));
        s->waits = true;
    }
    if (strncmp(line, "data:", 5) != 0)
        return 0;
    line += 5 + strspn(line + 5, " ");
    if (strncmp(line, "[DONE]", 6) == 0)
        return 1;
    json_t *o = json_loads(line, 0, NULL);
    if (!o)
        return err_set(err, ERR_IO, "%s: a piece of the answer is no JSON", s->chat->server.url);
    int rc = on_event(s, o, err);
    json_decref(o);
    return rc;
}

static int on_data(void *arg, const char *data, size_t len, struct err *err)
{
    struct stream *s = arg;
    int rc = 0;

    while (rc == 0 && len) {
        const char *end = memchr(data, '\n', len);
        size_t n = end ? (size_t)(end - data) + 1 : len;
        strbuf_add(&s->line, data, n - (end != NULL));
        if (strbuf_check(&s->line, "a piece of the answer", err) != 0)
            return -1;
        data += n;
        len -= n;
        if (end) {
            rc = on_line(s, strbuf_str(&s->line), err);
            strbuf_clear(&s->line);
        }
    }
    return rc;
}

static char *request_of(const struct chat *c, const struct sample_params *p, int64_t n)
{
    json_t *o = json_pack("{s:o, s:b, s:{s:b}, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:I}", "messages", chat_with_system(c, 0), "stream", 1,
                          "stream_options", "include_usage", 1, "temperature", p->temperature, "top_p", p->top_p, "top_k", (int)p->top_k, "min_p",
                          p->min_p, "typical_p", p->typical_p, "repetition_penalty", p->repetition_penalty, "presence_penalty",
                          p->presence_penalty, "frequency_penalty", p->frequency_penalty, "seed", (json_int_t)p->seed);
    char *text;

    if (!o)
        return NULL;
    if (p->penalty_last >= 0)
        json_object_set_new(o, "repeat_last_n", json_integer(p->penalty_last));
    if (n >= 0)
        json_object_set_new(o, "max_tokens", json_integer(n));
    text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(o);
    return text;
}

static void note_speed(struct chat *c, const struct stream *s)
{
    double end = ui_seconds();

    c->last.prompt_tokens -= c->reused < c->last.prompt_tokens ? c->reused : 0;
    c->last.prompt_seconds = (s->first > 0 ? s->first : end) - s->began;
    c->last.new_seconds = s->first > 0 ? end - s->first : 0;
    c->last.timed_tokens = c->last.new_tokens ? c->last.new_tokens - 1 : 0;
}

int chat_answer_remote(struct chat *c, const struct sample_params *params, int64_t n, char ret_finish[CHAT_FINISH_BYTES], struct err *err)
{
    struct stream s = {.chat = c, .began = ui_seconds()};
    char *body = request_of(c, params, n), *reply;
    struct http_request r = {.url = c->server.url, .path = "/v1/chat/completions", .key = c->server.key[0] ? c->server.key : NULL, .body = body,
                             .timeout_ms = IDLE_MS, .is_own = c->server.pid != 0, .on_data = on_data, .arg = &s};
    int status = 0;

    if (!body)
        return err_set(err, ERR_MEMORY, "chat: out of memory");
    strbuf_clear(&c->answer);
    c->shown = 0;
    c->last = (struct gen_stats){0};
    c->reused = 0;
    strbuf_init(&s.line, LINE_MAX_BYTES);
    reply = http_ask(&r, &status, err);
    strbuf_fini(&s.line);
    free(body);
    bool cancelled = !reply && err->kind == ERR_CANCELLED && ui_interrupted();
    if (reply && status != 200)
        http_refused(c->server.url, status, reply, err);
    free(reply);
    if (!cancelled && (!reply || status != 200))
        return -1;
    if (!cancelled && !s.finish[0])
        return err_set(err, ERR_IO, "%s: the answer broke off", c->server.url);
    note_speed(c, &s);
    snprintf(ret_finish, CHAT_FINISH_BYTES, "%s", cancelled ? "cancelled" : s.finish);
    return 0;
}
