/* What can be asked for. Every function here runs in a helper's thread, with the whole body there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "front/embedding.h"
#include "front/generation.h"
#include "front/inner.h"

enum { GGUF_KEY_BYTES = 128 };
enum { DRAIN_MAX_S = 30 * 86400 };

/* --- the model ----------------------------------------------------------- */

static uint32_t number_of(const struct gguf *g, const char *arch, const char *what)
{
    char key[GGUF_KEY_BYTES];
    uint32_t n = 0;

    snprintf(key, sizeof key, "%s.%s", arch, what);
    return gguf_get_u32(g, key, &n, NULL) == 1 ? n : 0;
}

static void put_model(struct front *f, struct strbuf *out)
{
    const struct gguf *g = engine_gguf(f->engine);
    struct gguf_str arch = {"", 0};
    char name[64];

    gguf_get_str(g, "general.architecture", &arch, NULL);
    snprintf(name, sizeof name, "%.*s", (int)(arch.len < sizeof name ? arch.len : sizeof name - 1), arch.s);
    strbuf_puts(out, "{\"id\":");
    strbuf_json(out, f->model, strlen(f->model));
    strbuf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"stagecoach\",\"max_model_len\":%u,\"meta\":{\"architecture\":",
                  (long long)f->started_s, engine_ctx(f->engine));
    strbuf_json(out, name, strlen(name));
    strbuf_printf(out, ",\"n_layers\":%u,\"n_embd\":%u,\"n_vocab\":%zu,\"n_ctx_train\":%u,\"tools\":\"%s\",\"thinks\":%s}}",
                  number_of(g, name, "block_count"), number_of(g, name, "embedding_length"), tokenizer_n_tokens(f->prompt.tokenizer),
                  number_of(g, name, "context_length"), f->prompt.fit.dialect.calls->name,
                  f->prompt.fit.dialect.thoughts || f->prompt.fit.dialect.calls->channels ? "true" : "false");
}

static int get_models(struct call *c, struct api_error *e)
{
    (void)e;
    strbuf_puts(&c->reply, "{\"object\":\"list\",\"data\":[");
    put_model(c->front, &c->reply);
    strbuf_puts(&c->reply, "]}");
    return 0;
}

static int get_model(struct call *c, struct api_error *e)
{
    (void)e;
    put_model(c->front, &c->reply);
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
    struct generation_env env = {.engine = f->engine,
                                 .prompt = &f->prompt,
                                 .guides = &f->guides,
                                 .model = f->model,
                                 .metrics = &f->metrics,
                                 .key = c->key,
                                 .max_answers = f->options.queue,
                                 .ready = on_events,
                                 .ready_arg = c};
    c->job = generation_start(&env, &r, e);
    return c->job ? 0 : -1;
}

static int post_completions(struct call *c, struct api_error *e)
{
    return generate(c, false, e);
}

static int post_chat(struct call *c, struct api_error *e)
{
    return generate(c, true, e);
}

static int post_embeddings(struct call *c, struct api_error *e)
{
    struct front *f = c->front;
    json_t *body = api_body(strbuf_str(&c->body), c->body.len, e);

    if (!body)
        return -1;
    c->job = embedding_start(f->engine, &f->prompt, f->model, &f->metrics, c->key, &f->hidden_bytes, body, on_events, c, e);
    json_decref(body);
    return c->job ? 0 : -1;
}

/* --- texts and tokens ---------------------------------------------------- */

static void put_tokens(struct call *c, const struct token_list *tokens)
{
    strbuf_puts(&c->reply, "{\"tokens\":[");
    for (size_t i = 0; i < tokens->len; i++)
        strbuf_printf(&c->reply, i ? ",%d" : "%d", tokens->ids[i]);
    strbuf_printf(&c->reply, "],\"count\":%zu,\"max_model_len\":%u}", tokens->len, engine_ctx(c->front->engine));
}

/* As llama.cpp's server has it ("content", add_special false), and as vLLM's ("prompt", add_special_tokens true). */
static int tokenize(struct call *c, const json_t *body, struct api_error *e)
{
    const char *text = NULL;
    size_t len = 0;
    bool vllm = json_object_get(body, "prompt") != NULL, add = vllm, parse = true;
    struct token_list tokens = {0};
    struct err err;
    int rc;

    if (api_text(body, "content", &text, &len, e) != 0 || api_text(body, "prompt", &text, &len, e) != 0 ||
        api_flag(body, "add_special", &add, e) != 0 || api_flag(body, "add_special_tokens", &add, e) != 0 ||
        api_flag(body, "parse_special", &parse, e) != 0)
        return -1;
    if (!text)
        return api_refuse(e, "content", "content is missing; a string is expected");
    rc = tokenizer_encode(c->front->prompt.tokenizer, text, len, (add ? TOKENIZE_ADD_SPECIAL : 0u) | (parse ? TOKENIZE_PARSE_SPECIAL : 0u),
                          &tokens, &err);
    if (rc == 0)
        put_tokens(c, &tokens);
    token_list_fini(&tokens);
    return rc == 0 ? 0 : api_from_err(e, &err);
}

static int detokenize(struct call *c, const json_t *body, struct api_error *e)
{
    const json_t *list = json_object_get(body, "tokens");
    struct api_prompts prompts;
    struct token_list tokens = {0};
    struct err err;
    char *text = NULL;
    size_t len;
    int rc;

    if (!json_is_array(list))
        return api_refuse(e, "tokens", "tokens is %s; an array of token numbers is expected", json_type_words(list));
    if (json_array_size(list) > 0 && !json_is_integer(json_array_get(list, 0)))
        return api_refuse(e, "tokens", "tokens holds %s; token numbers are expected", json_type_words(json_array_get(list, 0)));
    if (json_array_size(list) == 0) {
        strbuf_puts(&c->reply, "{\"content\":\"\",\"prompt\":\"\"}");
        return 0;
    }
    if (api_prompts_read(&prompts, list, "tokens", e) != 0)
        return -1;
    if ((rc = prompt_tokens(&c->front->prompt, &prompts.items[0], "tokens", &tokens, e)) == 0 &&
        !(text = prompt_text(c->front->prompt.tokenizer, tokens.ids, tokens.len, &len, &err)))
        rc = api_from_err(e, &err);
    if (rc == 0) {
        strbuf_puts(&c->reply, "{\"content\":");
        strbuf_json(&c->reply, text, len);
        strbuf_puts(&c->reply, ",\"prompt\":");
        strbuf_json(&c->reply, text, len);
        strbuf_putc(&c->reply, '}');
    }
    free(text);
    token_list_fini(&tokens);
    api_prompts_fini(&prompts);
    return rc;
}

static int apply_template(struct call *c, const json_t *body, struct api_error *e)
{
    struct template_output out = {0};
    struct api_chat chat;
    bool answer = true;
    int rc;

    if (api_flag(body, "add_generation_prompt", &answer, e) != 0 || api_chat_read(&chat, body, e) != 0)
        return -1;
    if ((rc = prompt_render(&c->front->prompt, &chat, answer, &out, e)) == 0) {
        strbuf_puts(&c->reply, "{\"prompt\":");
        strbuf_json(&c->reply, strbuf_str(&out.text), out.text.len);
        strbuf_putc(&c->reply, '}');
        template_output_fini(&out);
    }
    api_chat_fini(&chat);
    return rc;
}

static int with_body(struct call *c, struct api_error *e, int (*run)(struct call *c, const json_t *body, struct api_error *e))
{
    json_t *body = api_body(strbuf_str(&c->body), c->body.len, e);
    int rc = body ? run(c, body, e) : -1;

    json_decref(body);
    return rc;
}

static int post_tokenize(struct call *c, struct api_error *e)
{
    return with_body(c, e, tokenize);
}

static int post_detokenize(struct call *c, struct api_error *e)
{
    return with_body(c, e, detokenize);
}

static int post_template(struct call *c, struct api_error *e)
{
    return with_body(c, e, apply_template);
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

/* What the pipeline did since the cursor of the last answer. */
static int get_activity(struct call *c, struct api_error *e)
{
    const char *since = MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, "since");
    size_t digits = since ? strspn(since, "0123456789") : 0;
    struct err err;

    if (since && (digits == 0 || digits > 18 || since[digits]))
        return api_refuse(e, "since", "since is no cursor; take the one of the last answer, or leave it out");
    if (engine_activity(c->front->engine, since ? strtoull(since, NULL, 10) : UINT64_MAX, &c->reply, &err) != 0)
        return api_from_err(e, &err);
    return 0;
}

static int get_page(struct call *c, struct api_error *e)
{
    (void)e;
    c->sends_page = true;
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

static int post_replan(struct call *c, struct api_error *e)
{
    struct err err;

    if (engine_command(c->front->engine, ENGINE_REPLAN, NULL, 0, &err) != 0)
        return api_from_err(e, &err);
    strbuf_puts(&c->reply, "{\"status\":\"ok\"}");
    return 0;
}

/* {"node": NAME, "seconds": 0} */
static int drain(struct call *c, const json_t *body, struct api_error *e)
{
    const char *node = NULL;
    size_t len = 0;
    int64_t seconds = 0;
    struct err err;

    if (api_text(body, "node", &node, &len, e) != 0 || api_int(body, "seconds", 0, DRAIN_MAX_S, &seconds, e) != 0)
        return -1;
    if (!node)
        return api_refuse(e, "node", "node is missing; the name of a node is expected");
    if (strlen(node) != len)
        return api_refuse(e, "node", "node holds a character 0");
    if (engine_command(c->front->engine, ENGINE_DRAIN, node, (unsigned)seconds, &err) != 0)
        return api_from_err(e, &err);
    strbuf_puts(&c->reply, "{\"status\":\"ok\"}");
    return 0;
}

static int post_drain(struct call *c, struct api_error *e)
{
    return with_body(c, e, drain);
}

const struct route routes[] = {
    {"/", "GET", .is_open = true, .run = get_page},
    {"/health", "GET", .is_open = true, .run = get_health},
    {"/v1/models", "GET", .run = get_models},
    {"/v1/models/{model}", "GET", .run = get_model},
    {"/v1/completions", "POST", .needs_model = true, .counts = true, .run = post_completions},
    {"/v1/chat/completions", "POST", .needs_model = true, .counts = true, .run = post_chat},
    {"/v1/embeddings", "POST", .needs_model = true, .counts = true, .run = post_embeddings},
    {"/tokenize", "POST", .run = post_tokenize},
    {"/detokenize", "POST", .run = post_detokenize},
    {"/apply-template", "POST", .run = post_template},
    {"/v1/cluster", "GET", .run = get_cluster},
    {"/v1/cluster/replan", "POST", .needs_admin = true, .run = post_replan},
    {"/v1/cluster/drain", "POST", .needs_admin = true, .run = post_drain},
    {"/v1/cluster/activity", "GET", .run = get_activity},
    {"/metrics", "GET", .run = get_metrics},
};
const size_t n_routes = sizeof routes / sizeof *routes;
