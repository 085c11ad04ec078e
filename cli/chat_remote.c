/* See chat_inner.h: answers by a server's API. The conversation is kept here and sent whole; the server finds what it has computed
 * already by itself. */
#include <stdlib.h>
#include <string.h>

#include "cli/chat_inner.h"
#include "cli/http.h"

enum { IDLE_MS = 60000 };

/* An answer that comes. */
struct stream {
    struct chat *chat;
    struct events events;
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

static int on_text(void *arg, const char *text, size_t len, struct err *err)
{
    struct stream *s = arg;

    s->first = s->first > 0 ? s->first : ui_seconds();
    chat_add_text(s->chat, text, len);
    return chat_show(s->chat, err) < 0 ? -1 : 0;
}

/* Said once, on a terminal: why nothing comes yet. */
static void on_comment(void *arg, const char *text)
{
    struct stream *s = arg;

    if (s->waits || s->first > 0 || !ui_err_is_terminal())
        return;
    ui_say_in(UI_DIM, "(%s)", text);
    s->waits = true;
}

static int on_data(void *arg, const char *data, size_t len, struct err *err)
{
    struct stream *s = arg;

    return events_take(&s->events, data, len, err);
}

static char *request_of(const struct chat *c, const struct sample_params *p, int64_t n)
{
    json_t *o = json_pack("{s:s, s:o, s:b, s:{s:b}, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:I}", "model", c->local.name, "messages",
                          chat_with_system(c, 0), "stream", 1, "stream_options", "include_usage", 1, "temperature", p->temperature, "top_p",
                          p->top_p, "top_k", (int)p->top_k, "min_p", p->min_p, "typical_p", p->typical_p, "repetition_penalty",
                          p->repetition_penalty, "presence_penalty", p->presence_penalty, "frequency_penalty", p->frequency_penalty, "seed",
                          (json_int_t)p->seed);
    char *text;

    if (!o)
        return NULL;
    json_object_set_new(o, "reasoning_format", json_string("none")); /* thoughts are shown, and kept, as a model here says them */
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
    const struct events *e = &s->events;
    double end = ui_seconds();

    c->reused = e->cached_tokens;
    c->last.prompt_tokens = e->prompt_tokens > e->cached_tokens ? e->prompt_tokens - e->cached_tokens : 0;
    c->last.new_tokens = e->new_tokens;
    c->last.prompt_seconds = (s->first > 0 ? s->first : end) - s->began;
    c->last.new_seconds = s->first > 0 ? end - s->first : 0;
    c->last.timed_tokens = c->last.new_tokens ? c->last.new_tokens - 1 : 0;
}

static int ask(struct stream *s, const char *body, struct err *err)
{
    const struct control_server *server = &s->chat->server;
    struct http_request r = control_request(server, "/v1/chat/completions");
    int status = 0;
    char *reply;

    r.body = body;
    r.timeout_ms = IDLE_MS;
    r.on_data = on_data;
    r.arg = s;
    if (!(reply = http_ask(&r, &status, err)))
        return -1;
    if (status != 200)
        http_refused(server->url, status, reply, err);
    free(reply);
    return status == 200 ? 0 : -1;
}

int chat_answer_remote(struct chat *c, const struct sample_params *params, int64_t n, char ret_finish[CHAT_FINISH_BYTES], struct err *err)
{
    struct stream s = {.chat = c, .began = ui_seconds()};
    char *body = request_of(c, params, n);
    int rc;

    if (!body)
        return err_set(err, ERR_MEMORY, "chat: out of memory");
    strbuf_clear(&c->answer);
    c->shown = 0;
    c->last = (struct gen_stats){0};
    c->reused = 0;
    events_init(&s.events, c->server.url);
    s.events.on_text = on_text;
    s.events.on_comment = on_comment;
    s.events.arg = &s;
    rc = ask(&s, body, err);
    free(body);
    bool cancelled = rc != 0 && err->kind == ERR_CANCELLED && ui_interrupted();
    if (rc == 0 && !s.events.finish[0])
        rc = err_set(err, ERR_IO, "%s: the answer broke off", c->server.url);
    if (rc == 0 || cancelled) {
        note_speed(c, &s);
        snprintf(ret_finish, CHAT_FINISH_BYTES, "%s", cancelled ? "cancelled" : s.events.finish);
        rc = 0;
    }
    events_fini(&s.events);
    return rc;
}
