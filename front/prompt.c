/* See prompt.h. */
#include "front/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/strbuf.h"

enum { TEXT_MAX_BYTES = 256 << 20 };

/* For models without a template of their own: names at the heads of paragraphs, which any base model goes on with. */
static const char plain_template[] = "{{ bos_token }}{% for message in messages %}"
                                     "{{ message.role | capitalize }}: {{ message.content }}\n\n"
                                     "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

int prompt_init(struct prompt *p, const struct gguf *g, struct err *err)
{
    struct gguf_str source = {plain_template, sizeof plain_template - 1};
    int found;

    *p = (struct prompt){0};
    if (!(p->tokenizer = tokenizer_create(g, err)))
        return -1;
    if ((found = gguf_get_str(g, "tokenizer.chat_template", &source, err)) < 0)
        return -1;
    p->is_plain = found == 0;
    /* A template that we cannot read is no reason to refuse completions. */
    p->template = template_compile("tokenizer.chat_template", source.s, source.len, &p->template_err);
    for (size_t i = 0; i < tokenizer_n_tokens(p->tokenizer) && p->n_ends < ENGINE_MAX_STOP_TOKENS; i++)
        if (tokenizer_is_end(p->tokenizer, (int32_t)i))
            p->ends[p->n_ends++] = (int32_t)i;
    return 0;
}

void prompt_fini(struct prompt *p)
{
    template_destroy(p->template);
    tokenizer_destroy(p->tokenizer);
    *p = (struct prompt){0};
}

int prompt_tokens(const struct prompt *p, const struct api_prompt *from, const char *param, struct token_list *ret, struct api_error *e)
{
    struct err err;

    if (!from->text) {
        if (from->n_tokens == 0)
            return api_refuse(e, param, "%s is an empty list of tokens; at least one is expected", param);
        if (mem_grow(&ret->ids, &ret->cap, from->n_tokens, sizeof *ret->ids, SIZE_MAX / 8, "tokens", &err) != 0)
            return api_from_err(e, &err);
        memcpy(ret->ids, from->tokens, from->n_tokens * sizeof *ret->ids);
        ret->len = from->n_tokens;
        for (size_t i = 0; i < ret->len; i++)
            if ((size_t)ret->ids[i] >= tokenizer_n_tokens(p->tokenizer))
                return api_refuse(e, param, "%s: item %zu is %d; the vocabulary has 0 to %zu", param, i, ret->ids[i],
                                  tokenizer_n_tokens(p->tokenizer) - 1);
        return 0;
    }
    if (tokenizer_encode(p->tokenizer, from->text, from->len, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, ret, &err) != 0)
        return api_from_err(e, &err);
    if (ret->len == 0)
        return api_refuse(e, param, "%s is empty, and this model begins with no token of its own; give it a text", param);
    return 0;
}

static json_t *spelling(const struct tokenizer *t, int32_t id)
{
    size_t len = 0;
    const char *s = tokenizer_spelling(t, id, &len);
    json_t *v = s ? json_stringn(s, len) : NULL;
    return v ? v : json_string("");
}

static json_t *context_of(const struct prompt *p, const struct api_chat *chat, bool answer)
{
    json_t *c = json_object();

    if (!c || (chat->args && json_object_update(c, chat->args) != 0) || json_object_set(c, "messages", chat->messages) != 0 ||
        json_object_set_new(c, "tools", chat->tools ? json_incref(chat->tools) : json_null()) != 0 ||
        json_object_set_new(c, "add_generation_prompt", json_boolean(answer)) != 0 ||
        json_object_set_new(c, "bos_token", spelling(p->tokenizer, tokenizer_bos(p->tokenizer))) != 0 ||
        json_object_set_new(c, "eos_token", spelling(p->tokenizer, tokenizer_eos(p->tokenizer))) != 0) {
        json_decref(c);
        return NULL;
    }
    return c;
}

int prompt_render(const struct prompt *p, const struct api_chat *chat, bool answer, struct template_output *ret, struct api_error *e)
{
    struct err err;
    json_t *context;
    int rc;

    if (!p->template)
        return api_fail(e, 501, "server_error", "unsupported", "this model's chat template cannot be read: %s", p->template_err.text);
    if (!(context = context_of(p, chat, answer)))
        return api_fail(e, 503, "server_error", "memory", "chat template: out of memory");
    rc = template_render(p->template, context, time(NULL), NULL, ret, &err);
    json_decref(context);
    if (rc == 0)
        return 0;
    template_output_fini(ret);
    *ret = (struct template_output){0};
    return api_refuse(e, "messages", "the model's chat template refuses these messages: %s", err.text);
}

int prompt_chat(const struct prompt *p, const struct api_chat *chat, bool answer, struct token_list *ret, struct api_error *e)
{
    struct template_output out = {0};
    int32_t bos = tokenizer_bos(p->tokenizer);
    struct err err;
    int rc;

    if (prompt_render(p, chat, answer, &out, e) != 0)
        return -1;
    rc = tokenizer_encode_parts(p->tokenizer, strbuf_str(&out.text), out.parts, out.n_parts, TOKENIZE_PARSE_SPECIAL, ret, &err);
    template_output_fini(&out);
    /* Most templates write bos_token themselves; where one does not, the model still expects it. */
    if (rc == 0 && tokenizer_adds_bos(p->tokenizer) && bos >= 0 && (ret->len == 0 || ret->ids[0] != bos)) {
        rc = mem_grow(&ret->ids, &ret->cap, ret->len + 1, sizeof *ret->ids, SIZE_MAX / sizeof *ret->ids, "tokens", &err);
        if (rc == 0) {
            memmove(ret->ids + 1, ret->ids, ret->len * sizeof *ret->ids);
            ret->ids[0] = bos;
            ret->len++;
        }
    }
    if (rc != 0)
        return api_from_err(e, &err);
    return ret->len ? 0 : api_refuse(e, "messages", "the model's chat template makes no text of these messages");
}

char *prompt_text(const struct tokenizer *t, const int32_t *tokens, size_t n, size_t *ret_len, struct err *err)
{
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    struct detokenizer d;
    struct strbuf text;

    detokenizer_init(&d, t, true);
    strbuf_init(&text, TEXT_MAX_BYTES);
    strbuf_add(&text, "", 0);
    for (size_t i = 0; i < n; i++)
        strbuf_add(&text, piece, detokenizer_next(&d, tokens[i], piece, sizeof piece));
    strbuf_add(&text, piece, detokenizer_end(&d, piece, sizeof piece));
    if (strbuf_check(&text, "the text of these tokens", err) != 0) {
        strbuf_fini(&text);
        return NULL;
    }
    *ret_len = text.len;
    return text.data; /* the buffer's memory is malloc's */
}
