/* See guide.h. */
#include "front/guide.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* --- reading ------------------------------------------------------------- */

static const json_t *field(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return v && !json_is_null(v) ? v : NULL;
}

/* Sets the guide, which must be the only one. */
static int set(struct api_guide *g, enum guide_kind kind, const char *where, const json_t *value, struct api_error *e)
{
    if (g->kind != GUIDE_NONE)
        return api_refuse(e, where, "%s and %s both say what the answer has to be; one of them is allowed", g->where, where);
    g->kind = kind;
    g->where = where;
    g->value = value;
    g->text = json_string_value(value);
    g->len = json_string_length(value);
    return 0;
}

/* A schema; as a string that holds one, too. */
static int set_schema(struct api_guide *g, const char *where, const json_t *value, struct api_error *e)
{
    json_error_t error;
    if (set(g, GUIDE_SCHEMA, where, value, e) != 0)
        return -1;
    if (json_is_string(value)) {
        if (!(g->own = json_loadb(json_string_value(value), json_string_length(value), JSON_DECODE_ANY, &error)))
            return api_refuse(e, where, "%s is a string that is no JSON: line %d, column %d", where, error.line, error.column);
        g->value = value = g->own;
    }
    if (!json_is_object(value) && !json_is_boolean(value))
        return api_refuse(e, where, "%s is %s; a JSON schema is expected", where, json_type_words(value));
    return 0;
}

static int set_text(struct api_guide *g, enum guide_kind kind, const char *where, const json_t *value, struct api_error *e)
{
    if (!json_is_string(value))
        return api_refuse(e, where, "%s is %s; a string is expected", where, json_type_words(value));
    return set(g, kind, where, value, e);
}

static int set_choice(struct api_guide *g, const char *where, const json_t *value, struct api_error *e)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n == 0 || n > GRAMMAR_MAX_FORMS)
        return api_refuse(e, where, "%s: a list of 1 to %d strings is expected", where, GRAMMAR_MAX_FORMS);
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(value, i)))
            return api_refuse(e, where, "%s[%zu] is %s; a string is expected", where, i, json_type_words(json_array_get(value, i)));
    return set(g, GUIDE_CHOICE, where, value, e);
}

/* OpenAI's; llama.cpp's json_object with a schema in it; "grammar" for GBNF. */
static int format_read(struct api_guide *g, const json_t *format, struct api_error *e)
{
    const json_t *inner;
    const char *type;

    if (!json_is_object(format))
        return api_refuse(e, "response_format", "response_format is %s; an object is expected", json_type_words(format));
    if (!(type = json_string_value(json_object_get(format, "type"))))
        return api_refuse(e, "response_format.type",
                          "response_format.type is %s; \"text\", \"json_object\", \"json_schema\" or \"grammar\" is expected",
                          json_type_words(json_object_get(format, "type")));
    if (strcmp(type, "text") == 0)
        return 0;
    if (strcmp(type, "json_object") == 0)
        return (inner = field(format, "schema")) ? set_schema(g, "response_format.schema", inner, e)
                                                 : set(g, GUIDE_OBJECT, "response_format", NULL, e);
    if (strcmp(type, "grammar") == 0)
        return set_text(g, GUIDE_GRAMMAR, "response_format.grammar", json_object_get(format, "grammar"), e);
    if (strcmp(type, "json_schema") != 0)
        return api_refuse(e, "response_format.type",
                          "response_format.type: there are \"text\", \"json_object\", \"json_schema\" and \"grammar\"");
    inner = json_object_get(format, "json_schema");
    if (!json_is_object(inner))
        return api_refuse(e, "response_format.json_schema", "response_format.json_schema is %s; an object with name and schema is expected",
                          json_type_words(inner));
    const json_t *name = field(inner, "name"), *strict = field(inner, "strict");
    if (name && !json_is_string(name))
        return api_refuse(e, "response_format.json_schema.name", "response_format.json_schema.name is %s; a string is expected",
                          json_type_words(name));
    if (strict && !json_is_boolean(strict))
        return api_refuse(e, "response_format.json_schema.strict", "response_format.json_schema.strict is %s; true or false is expected",
                          json_type_words(strict));
    if (!field(inner, "schema")) /* OpenAI's client without one: any JSON object */
        return set(g, GUIDE_OBJECT, "response_format", NULL, e);
    return set_schema(g, "response_format.json_schema.schema", field(inner, "schema"), e);
}

/* vLLM's structured_outputs. */
static int structured_read(struct api_guide *g, const json_t *v, struct api_error *e)
{
    const json_t *x;
    bool object = false;

    if (!json_is_object(v))
        return api_refuse(e, "structured_outputs", "structured_outputs is %s; an object is expected", json_type_words(v));
    if (api_flag(v, "json_object", &object, e) != 0 || (object && set(g, GUIDE_OBJECT, "structured_outputs.json_object", NULL, e) != 0) ||
        ((x = field(v, "json")) && set_schema(g, "structured_outputs.json", x, e) != 0) ||
        ((x = field(v, "grammar")) && set_text(g, GUIDE_GRAMMAR, "structured_outputs.grammar", x, e) != 0) ||
        ((x = field(v, "regex")) && set_text(g, GUIDE_REGEX, "structured_outputs.regex", x, e) != 0) ||
        ((x = field(v, "choice")) && set_choice(g, "structured_outputs.choice", x, e) != 0))
        return -1;
    if (field(v, "structural_tag"))
        return api_refuse(e, "structured_outputs.structural_tag", "structured_outputs.structural_tag is not supported");
    return 0;
}

static int all_read(struct api_guide *g, const json_t *body, struct api_error *e)
{
    const json_t *x;
    if (((x = field(body, "response_format")) && format_read(g, x, e) != 0) ||
        ((x = field(body, "structured_outputs")) && structured_read(g, x, e) != 0) ||
        ((x = field(body, "guided_json")) && set_schema(g, "guided_json", x, e) != 0) ||
        ((x = field(body, "json_schema")) && set_schema(g, "json_schema", x, e) != 0) ||
        ((x = field(body, "guided_grammar")) && set_text(g, GUIDE_GRAMMAR, "guided_grammar", x, e) != 0) ||
        ((x = field(body, "grammar")) && (!json_is_string(x) || json_string_length(x)) &&
         set_text(g, GUIDE_GRAMMAR, "grammar", x, e) != 0) ||
        ((x = field(body, "guided_regex")) && set_text(g, GUIDE_REGEX, "guided_regex", x, e) != 0) ||
        ((x = field(body, "guided_choice")) && set_choice(g, "guided_choice", x, e) != 0))
        return -1;
    return 0;
}

int api_guide_read(struct api_guide *ret, const json_t *body, struct api_error *e)
{
    struct api_guide g = {0};
    if (all_read(&g, body, e) != 0) {
        api_guide_fini(&g);
        return -1;
    }
    *ret = g;
    return 0;
}

void api_guide_fini(struct api_guide *g)
{
    json_decref(g->own);
    *g = (struct api_guide){0};
}

/* --- keeping ------------------------------------------------------------- */

void guides_init(struct guides *g, const struct tokenizer *tokenizer, uint32_t n_vocab)
{
    *g = (struct guides){.tokenizer = tokenizer, .n_vocab = n_vocab};
    pthread_mutex_init(&g->lock, NULL);
}

void guides_fini(struct guides *g)
{
    if (!g->tokenizer)
        return;
    for (size_t i = 0; i < GUIDES_KEPT; i++) {
        grammar_masks_drop(g->kept[i].masks);
        free(g->kept[i].key);
    }
    grammar_tokens_drop(g->tokens);
    pthread_mutex_destroy(&g->lock);
    *g = (struct guides){0};
}

static struct grammar_masks *find(struct guides *g, const char *key, size_t len)
{
    for (size_t i = 0; i < GUIDES_KEPT; i++) {
        struct guide_kept *k = &g->kept[i];
        if (k->masks && k->len == len && memcmp(k->key, key, len) == 0) {
            k->used = ++g->clock;
            grammar_masks_ref(k->masks);
            return k->masks;
        }
    }
    return NULL;
}

/* In place of what was not asked for for longest. Without memory for the key it is not kept, which is no fault. */
static void keep(struct guides *g, const char *key, size_t len, struct grammar_masks *masks)
{
    struct guide_kept *k = &g->kept[0];
    char *copy = len <= GUIDES_MAX_KEY_BYTES ? mem_new(len, 1, NULL) : NULL;

    if (!copy)
        return;
    memcpy(copy, key, len);
    for (size_t i = 0; i < GUIDES_KEPT; i++)
        k = g->kept[i].used < k->used ? &g->kept[i] : k;
    grammar_masks_drop(k->masks);
    free(k->key);
    *k = (struct guide_kept){copy, len, masks, ++g->clock};
    grammar_masks_ref(masks);
}

struct grammar_masks *guides_get(struct guides *g, const char *key, size_t len, struct grammar *(*make)(void *arg, struct err *err),
                                 void *arg, struct err *err)
{
    struct grammar_masks *masks;
    struct grammar *grammar;
    bool ready;

    pthread_mutex_lock(&g->lock);
    masks = find(g, key, len);
    ready = g->tokens || (g->tokens = grammar_tokens_create(g->tokenizer, g->n_vocab, err));
    pthread_mutex_unlock(&g->lock);
    if (masks || !ready)
        return masks;
    if (!(grammar = make(arg, err))) /* without the lock: others need not wait for it */
        return NULL;
    masks = grammar_masks_create(grammar, g->tokens, err);
    grammar_drop(grammar);
    if (!masks)
        return NULL;
    pthread_mutex_lock(&g->lock);
    struct grammar_masks *other = find(g, key, len); /* somebody else was faster */
    if (!other)
        keep(g, key, len, masks);
    pthread_mutex_unlock(&g->lock);
    if (other)
        grammar_masks_drop(masks);
    return other ? other : masks;
}

static struct grammar *choice(const json_t *list, struct err *err)
{
    size_t n = json_array_size(list);
    struct grammar_part *parts = mem_new(n, sizeof *parts, err);
    struct grammar_form *forms = parts ? mem_new(n, sizeof *forms, err) : NULL;
    struct grammar *g = NULL;

    for (size_t i = 0; forms && i < n; i++) {
        parts[i].text = json_string_value(json_array_get(list, i));
        forms[i] = (struct grammar_form){&parts[i], 1};
    }
    if (forms)
        g = grammar_from_calls(forms, n, NULL, 1, err);
    free(parts);
    free(forms);
    return g;
}

static struct grammar *make(void *arg, struct err *err)
{
    const struct api_guide *g = arg;
    switch (g->kind) {
    case GUIDE_SCHEMA:
        return grammar_from_schema(g->value, g->where, err); /* its messages begin with the path */
    case GUIDE_GRAMMAR:
        return grammar_from_gbnf(g->text, g->len, err);
    case GUIDE_REGEX:
        return grammar_from_regex(g->text, g->len, err);
    case GUIDE_CHOICE:
        return choice(g->value, err);
    default:
        return grammar_json_object(err);
    }
}

struct grammar_masks *guides_get_for(struct guides *g, const struct api_guide *guide, struct api_error *e)
{
    struct strbuf key;
    struct grammar_masks *masks = NULL;
    struct err err = {0};
    char *text = guide->value && !json_is_string(guide->value) ? json_dumps(guide->value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    strbuf_init(&key, JSON_MAX_BYTES);
    strbuf_printf(&key, "%d:", (int)guide->kind);
    if (text)
        strbuf_puts(&key, text);
    else
        strbuf_add(&key, guide->text ? guide->text : "", guide->len);
    if (strbuf_check(&key, guide->where, &err) == 0)
        masks = guides_get(g, strbuf_str(&key), key.len, make, (void *)(uintptr_t)guide, &err);
    strbuf_fini(&key);
    free(text);
    if (masks)
        return masks;
    if (err.kind == ERR_MEMORY || err.kind == ERR_INTERNAL)
        api_from_err(e, &err);
    else
        api_refuse(e, guide->where, "%s%s%s", guide->kind == GUIDE_SCHEMA ? "" : guide->where, guide->kind == GUIDE_SCHEMA ? "" : ": ",
                   err.text);
    return NULL;
}

struct calls {
    const struct tools_fit *fit;
    const struct api_chat *chat;
};

static struct grammar *make_calls(void *arg, struct err *err)
{
    const struct calls *c = arg;
    return tools_grammar(c->fit, c->chat, err);
}

struct grammar_masks *guides_get_calls(struct guides *g, const struct tools_fit *fit, const struct api_chat *chat, struct api_error *e)
{
    struct calls calls = {fit, chat};
    struct grammar_masks *masks = NULL;
    struct err err = {0};
    struct strbuf key;
    char *text = json_dumps(chat->tools, JSON_COMPACT);

    strbuf_init(&key, JSON_MAX_BYTES);
    strbuf_printf(&key, "calls:%s:", chat->choice_name ? chat->choice_name : "");
    strbuf_puts(&key, text ? text : "");
    if (!text)
        err_set(&err, ERR_MEMORY, "out of memory for the tools");
    else if (strbuf_check(&key, "tools", &err) == 0)
        masks = guides_get(g, strbuf_str(&key), key.len, make_calls, &calls, &err);
    strbuf_fini(&key);
    free(text);
    if (!masks && (err.kind == ERR_MEMORY || err.kind == ERR_INTERNAL))
        api_from_err(e, &err);
    else if (!masks)
        api_refuse(e, "tools", "%s", err.text);
    return masks;
}
