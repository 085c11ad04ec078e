/* See prompt.h. */
#include "front/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/strbuf.h"

enum { TEXT_MAX_BYTES = 256 << 20, GIVEN_MAX_BYTES = 4096 };

/* For models without a template of their own: names at the heads of paragraphs, which any base model goes on with. */
static const char plain_template[] = "{{ bos_token }}{% for message in messages %}"
                                     "{{ message.role | capitalize }}: {{ message.content }}\n\n"
                                     "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

/* A mark that is a token of its own is a control token, whose text is not shown as a rule. */
static void find_marks(struct prompt *p)
{
    const char *mark;

    for (size_t i = 0; (mark = dialect_mark(&p->fit.dialect, i)); i++) {
        int32_t id = tokenizer_find(p->tokenizer, mark, strlen(mark));
        if (id >= 0)
            p->marks[p->n_marks++] = id;
    }
}

/* What the file names, or a spelling that is known. */
static void find_fim(struct prompt *p, const struct gguf *g)
{
    static const char *const keys[3] = {"tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_suf_token_id",
                                        "tokenizer.ggml.fim_mid_token_id"};
    static const char *const spellings[][3] = {{"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
                                               {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
                                               {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
                                               {"<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"},
                                               {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
                                               {"▁<PRE>", "▁<SUF>", "▁<MID>"}};
    struct err err;
    bool all = true;

    for (int i = 0; i < 3; i++) {
        uint32_t id;
        p->fim[i] = gguf_get_u32(g, keys[i], &id, &err) == 1 && id < tokenizer_n_tokens(p->tokenizer) ? (int32_t)id : -1;
        all = all && p->fim[i] >= 0;
    }
    for (size_t k = 0; !all && k < sizeof spellings / sizeof *spellings; k++) {
        all = true;
        for (int i = 0; i < 3; i++) {
            p->fim[i] = tokenizer_find(p->tokenizer, spellings[k][i], strlen(spellings[k][i]));
            all = all && p->fim[i] >= 0;
        }
    }
    if (!all)
        p->fim[0] = p->fim[1] = p->fim[2] = -1;
}

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
    tools_fit_init(&p->fit, p->template, source.s, source.len);
    find_marks(p);
    find_fim(p, g);
    for (size_t i = 0; i < tokenizer_n_tokens(p->tokenizer) && p->n_ends < PROMPT_MAX_ENDS; i++)
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

static int add_id(struct token_list *list, int32_t id, struct err *err)
{
    if (mem_grow(&list->ids, &list->cap, list->len + 1, sizeof *list->ids, SIZE_MAX / sizeof *list->ids, "tokens", err) != 0)
        return -1;
    list->ids[list->len++] = id;
    return 0;
}

int prompt_infill(const struct prompt *p, const struct api_prompt *from, const char *suffix, size_t suffix_len, struct token_list *ret,
                  struct api_error *e)
{
    struct err err;

    if (p->fim[0] < 0)
        return api_refuse(e, "suffix", "suffix: this model's vocabulary has no tokens for filling in; models made for code have");
    if ((tokenizer_adds_bos(p->tokenizer) && tokenizer_bos(p->tokenizer) >= 0 && add_id(ret, tokenizer_bos(p->tokenizer), &err) != 0) ||
        add_id(ret, p->fim[0], &err) != 0 || tokenizer_encode(p->tokenizer, from->text, from->len, 0, ret, &err) != 0 ||
        add_id(ret, p->fim[1], &err) != 0 || tokenizer_encode(p->tokenizer, suffix, suffix_len, 0, ret, &err) != 0 ||
        add_id(ret, p->fim[2], &err) != 0)
        return api_from_err(e, &err);
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

int prompt_render(const struct prompt *p, struct api_chat *chat, bool answer, struct template_output *ret, struct api_error *e)
{
    struct err err;
    json_t *context;
    int rc;

    if (!p->template)
        return api_fail(e, 501, "server_error", "unsupported", "this model's chat template cannot be read: %s", p->template_err.text);
    if (tools_fit(&p->fit, chat, e) != 0)
        return -1;
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

/* Where a call must come the prompt begins it, behind thoughts that it ends if it has opened them. */
static int begin_answer(const struct prompt *p, const struct api_chat *chat, struct template_output *out, struct prompt_begun *ret,
                        struct err *err)
{
    const struct dialect *d = &p->fit.dialect;
    size_t before = out->text.len;

    ret->thinking = dialect_is_thinking(d, strbuf_str(&out->text), out->text.len);
    tools_begin(&p->fit, chat, &ret->given);
    if (strbuf_check(&ret->given, "the call's beginning", err) != 0)
        return -1;
    if (ret->given.len == 0)
        return 0;
    if (ret->thinking)
        strbuf_printf(&out->text, "\n%s\n\n", d->thoughts->close);
    strbuf_add(&out->text, ret->given.data, ret->given.len);
    if (strbuf_check(&out->text, "the prompt", err) != 0 ||
        mem_grow(&out->parts, &out->cap_parts, out->n_parts + 1, sizeof *out->parts, SIZE_MAX / sizeof *out->parts, "parts", err) != 0)
        return -1;
    if (out->text.len > before)
        out->parts[out->n_parts++] = (struct text_part){.end = out->text.len, .special = true};
    return 0;
}

int prompt_chat(const struct prompt *p, struct api_chat *chat, struct token_list *ret, struct prompt_begun *ret_begun, struct api_error *e)
{
    struct template_output out = {0};
    int32_t bos = tokenizer_bos(p->tokenizer);
    struct err err;
    int rc;

    *ret_begun = (struct prompt_begun){0};
    strbuf_init(&ret_begun->given, GIVEN_MAX_BYTES);
    if (prompt_render(p, chat, true, &out, e) != 0)
        return -1;
    rc = begin_answer(p, chat, &out, ret_begun, &err);
    if (rc == 0)
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
