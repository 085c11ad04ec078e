/* What can be asked for. Every function here runs in a helper's thread, with the whole body there. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "front/inner.h"

/* --- the model ----------------------------------------------------------- */

static int get_models(struct call *c, struct api_error *e)
{
    struct front *f = c->front;

    (void)e;
    strbuf_puts(&c->reply, "{\"object\":\"list\",\"data\":[{\"id\":");
    strbuf_json(&c->reply, f->model, strlen(f->model));
    strbuf_printf(&c->reply, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"stagecoach\",\"max_model_len\":%u}]}",
                  (long long)f->started_s, engine_ctx(f->engine));
    return 0;
}

static void on_events(void *arg)
{
    call_wake(arg);
}

static int generate(struct call *c, bool is_chat, struct api_error *e)
{
    struct front *f = c->front;
    struct api_request r;
    json_t *body = api_body(strbuf_str(&c->body), c->body.len, e);

    if (!body || api_request_read(&r, is_chat, body, e) != 0)
        return -1;
    c->generation = generation_start(f->engine, &f->prompt, f->model, &f->metrics, &r, on_events, c, e);
    return c->generation ? 0 : -1;
}

static int post_completions(struct call *c, struct api_error *e)
{
    return generate(c, false, e);
}

static int post_chat(struct call *c, struct api_error *e)
{
    return generate(c, true, e);
}

/* --- the server ---------------------------------------------------------- */

static int get_health(struct call *c, struct api_error *e)
{
    const char *state;
    struct err why;
    int rc = front_ready(c->front, &state, &why);

    if (rc != 0)
        return api_fail(e, 503, "server_error", state, "%s", why.text);
    strbuf_puts(&c->reply, "{\"status\":\"ok\"}");
    return 0;
}

static int get_cluster(struct call *c, struct api_error *e)
{
    struct front *f = c->front;
    json_t *status = engine_status(f->engine);
    const char *state;
    struct err why;
    char *text;

    if (!status)
        return api_fail(e, 503, "server_error", "busy", "the engine does not say how it is");
    json_object_set_new(status, "health", json_string((front_ready(f, &state, &why), state)));
    json_object_set_new(status, "model", json_string(f->model));
    text = json_dumps(status, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(status);
    if (!text)
        return api_fail(e, 503, "server_error", "memory", "out of memory");
    strbuf_puts(&c->reply, text);
    strbuf_putc(&c->reply, '\n');
    free(text);
    return 0;
}

static int get_metrics(struct call *c, struct api_error *e)
{
    json_t *status = engine_status(c->front->engine);

    (void)e;
    c->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write(&c->front->metrics, status, &c->reply);
    json_decref(status);
    return 0;
}

const struct route routes[] = {
    {"/health", "GET", .is_open = true, .run = get_health},
    {"/v1/models", "GET", .run = get_models},
    {"/v1/completions", "POST", .needs_model = true, .run = post_completions},
    {"/v1/chat/completions", "POST", .needs_model = true, .run = post_chat},
    {"/v1/cluster", "GET", .run = get_cluster},
    {"/metrics", "GET", .run = get_metrics},
};
const size_t n_routes = sizeof routes / sizeof *routes;
