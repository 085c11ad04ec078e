/* front/: bodies of HTTP requests. Whatever comes, it is read or refused with a 400 and a sentence, and what was read lies
 * within its limits. The first byte chooses what kind of body it is. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "front/openai.h"
#include "tests/fuzz/fuzz.h"

static void must(int cond)
{
    if (!cond)
        abort();
}

static void check_error(const struct api_error *e)
{
    struct strbuf out;
    json_t *root;

    must(e->status >= 400 && e->status < 600 && e->type && e->message[0]);
    strbuf_init(&out, 1 << 16);
    api_error_json(e, &out);
    must(!out.failed);
    root = json_loadb(out.data, out.len, 0, NULL);
    must(json_is_string(json_object_get(json_object_get(root, "error"), "message")));
    json_decref(root);
    strbuf_fini(&out);
}

static void check_prompts(const struct api_prompts *p)
{
    must(p->n >= 1 && p->n <= API_MAX_ANSWERS);
    for (size_t i = 0; i < p->n; i++) {
        must((p->items[i].text != NULL) != (p->items[i].tokens != NULL));
        for (size_t k = 0; k < p->items[i].n_tokens; k++)
            must(p->items[i].tokens[k] >= 0);
    }
}

/* What templates and what reads calls rely on. */
static void check_chat(const struct api_chat *c)
{
    size_t i;
    const json_t *m;

    must(json_array_size(c->messages) > 0 && json_is_object(c->args));
    must((c->choice == API_TOOLS_NAMED) == (c->choice_name != NULL) && (c->choice != API_TOOLS_NAMED || c->tools));
    must(c->choice != API_TOOLS_REQUIRED || c->tools);
    json_array_foreach(c->messages, i, m)
    {
        must(json_is_string(json_object_get(m, "role")) && json_is_string(json_object_get(m, "content")));
        must(!json_object_get(m, "tool_calls") || json_array_size(json_object_get(m, "tool_calls")) > 0);
    }
}

static void check_request(const struct api_request *r)
{
    must(r->n >= 1 && r->n <= API_MAX_ANSWERS && r->max_tokens >= -1 && r->n_stops <= API_MAX_STOPS && r->top <= API_MAX_TOP);
    must(r->sample.temperature >= 0 && r->sample.top_p >= 0 && r->sample.top_p <= 1 && r->sample.n_bias <= SAMPLE_MAX_BIAS);
    for (size_t i = 0; i < r->n_stops; i++)
        must(r->stops[i].len > 0 && r->stops[i].len <= API_MAX_STOP_BYTES);
    for (uint32_t i = 0; i < r->sample.n_bias; i++)
        must(r->bias[i].token >= 0);
    if (r->is_chat) {
        check_chat(&r->chat);
    } else {
        check_prompts(&r->prompts);
        must(r->best_of >= r->n && r->prompts.n * r->best_of <= API_MAX_ANSWERS && !(r->suffix && r->echo));
    }
}

static int read_any(unsigned kind, json_t *body, struct api_error *e)
{
    struct api_request r;
    struct api_prompts p;
    struct api_chat c;
    int rc;

    if (kind < 2) {
        if ((rc = api_request_read(&r, kind == 1, json_incref(body), e)) == 0) {
            check_request(&r);
            api_request_fini(&r);
        }
    } else if (kind == 2) {
        if ((rc = api_prompts_read(&p, json_object_get(body, "input"), "input", e)) == 0) {
            check_prompts(&p);
            api_prompts_fini(&p);
        }
    } else if ((rc = api_chat_read(&c, body, e)) == 0) {
        check_chat(&c);
        api_chat_fini(&c);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_error e;
    json_t *body;

    if (size < 1)
        return 0;
    body = api_body((const char *)data + 1, size - 1, &e);
    if (!body || read_any(data[0] % 4, body, &e) != 0)
        check_error(&e);
    json_decref(body);
    return 0;
}
