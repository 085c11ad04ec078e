/* See tools.h. */
#include "front/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"

enum { SHORT_ID_BYTES = 9 };

/* --- what a template takes ------------------------------------------------ */

#define PROBE "stagecoach_probe"

static const char probe_tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"" PROBE "\",\"description\":\"d\",\"parameters\":"
                                  "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"string\",\"description\":\"d\"}},"
                                  "\"required\":[\"k\"]}}}]";
/* content and arguments are put in. */
static const char probe_call[] = "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":%s,\"tool_calls\":"
                                 "[{\"id\":\"abcdefghi\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":%s}}]},"
                                 "{\"role\":\"tool\",\"name\":\"f\",\"tool_call_id\":\"abcdefghi\",\"content\":\"r\"}]";

/* Whether the template renders these, and the result says `word`. */
static bool renders(const struct template *t, const char *messages, const char *tools, const char *word)
{
    struct template_output out = {0};
    json_t *context = json_pack("{s:o, s:o, s:b, s:s, s:s}", "messages", json_loads(messages, 0, NULL), "tools",
                                tools ? json_loads(tools, 0, NULL) : json_null(), "add_generation_prompt", 1, "bos_token", "", "eos_token", "");
    struct err err;
    bool found = false;

    if (context && template_render(t, context, time(NULL), NULL, &out, &err) == 0) {
        found = strstr(strbuf_str(&out.text), word) != NULL;
        template_output_fini(&out);
    }
    json_decref(context);
    return found;
}

static bool mentions(const char *source, size_t len, const char *word)
{
    return memmem(source, len, word, strlen(word)) != NULL;
}

static void probe_calls(struct tools_fit *f, const struct template *t)
{
    char messages[sizeof probe_call + 64];

    for (int i = 0; i < 4 && !f->takes_calls; i++) {
        f->text_arguments = i & 1;
        f->no_content = i & 2;
        snprintf(messages, sizeof messages, probe_call, f->no_content ? "null" : "\"\"",
                 f->text_arguments ? "\"{\\\"" PROBE "\\\": 1}\"" : "{\"" PROBE "\": 1}");
        f->takes_calls = renders(t, messages, probe_tools, "\"" PROBE "\": 1") || renders(t, messages, probe_tools, "\"" PROBE "\":1");
    }
}

void tools_fit_init(struct tools_fit *f, const struct template *t, const char *source, size_t len)
{
    *f = (struct tools_fit){.dialect = dialect_find(source, len)};
    f->knows_developer = mentions(source, len, "developer");
    f->knows_thinking = mentions(source, len, "message.thinking");
    if (!t)
        return;
    f->takes_tools = renders(t, "[{\"role\":\"user\",\"content\":\"u\"}]", probe_tools, PROBE);
    if (f->takes_tools)
        probe_calls(f, t);
    else
        f->dialect.calls = dialect_find("", 0).calls; /* as our own words ask for */
}

/* --- messages ------------------------------------------------------------- */

static int no_memory(struct api_error *e)
{
    return api_fail(e, 503, "server_error", "memory", "messages: out of memory");
}

/* Sets a field to the text in s, and ends s. */
static int set_text(json_t *object, const char *field, struct strbuf *s, struct api_error *e)
{
    json_t *v = s->failed ? NULL : json_stringn(strbuf_str(s), s->len);
    strbuf_fini(s);
    return json_object_set_new(object, field, v) == 0 ? 0 : no_memory(e);
}

static void put_json(struct strbuf *out, const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY);
    if (text)
        strbuf_puts(out, text);
    out->failed |= !text;
    free(text);
}

/* Nine letters that stand for any id. */
static void shorten_id(json_t *object, const char *field)
{
    const char *id = json_string_value(json_object_get(object, field));
    uint64_t hash = 1469598103934665603u;
    char text[SHORT_ID_BYTES + 1];

    if (!id || (strlen(id) == SHORT_ID_BYTES && strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == SHORT_ID_BYTES))
        return;
    for (; *id; id++)
        hash = (hash ^ (unsigned char)*id) * 1099511628211u;
    for (int i = 0; i < SHORT_ID_BYTES; i++, hash /= 36)
        text[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[hash % 36];
    text[SHORT_ID_BYTES] = '\0';
    json_object_set_new(object, field, json_string(text));
}

/* The calls as the model would have written them, behind the content. */
static int calls_into_content(const struct tools_fit *f, json_t *m, struct api_error *e)
{
    const json_t *calls = json_object_get(m, "tool_calls"), *call;
    const struct dialect_calls *d = f->dialect.calls;
    const char *content = json_string_value(json_object_get(m, "content"));
    bool list = strcmp(d->name, "granite") == 0 || strcmp(d->name, "phi") == 0;
    struct strbuf s;
    size_t i;

    strbuf_init(&s, JSON_MAX_BYTES);
    strbuf_puts(&s, content ? content : "");
    if (list)
        strbuf_printf(&s, "%s[", d->open);
    json_array_foreach(calls, i, call)
    {
        const json_t *function = json_object_get(call, "function");
        strbuf_puts(&s, list ? i ? ", " : "" : s.len ? "\n<tool_call>\n" : "<tool_call>\n");
        strbuf_puts(&s, "{\"name\": ");
        put_json(&s, json_object_get(function, "name"));
        strbuf_puts(&s, ", \"arguments\": ");
        put_json(&s, json_object_get(function, "arguments"));
        strbuf_puts(&s, list ? "}" : "}\n</tool_call>");
    }
    if (list)
        strbuf_printf(&s, "]%s", strcmp(d->name, "phi") == 0 ? d->close : "");
    json_object_del(m, "tool_calls");
    return set_text(m, "content", &s, e);
}

static int fit_calls(const struct tools_fit *f, json_t *m, struct api_error *e)
{
    json_t *calls = json_object_get(m, "tool_calls"), *call;
    size_t i;

    if (!f->takes_calls)
        return calls_into_content(f, m, e);
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function"), *args = json_object_get(function, "arguments");
        if (f->dialect.calls->short_ids)
            shorten_id(call, "id");
        if (f->text_arguments && !json_is_string(args)) {
            char *text = json_dumps(args, 0);
            json_object_set_new(function, "arguments", text ? json_string(text) : NULL);
            free(text);
        }
    }
    if (f->no_content && json_string_length(json_object_get(m, "content")) == 0)
        json_object_set_new(m, "content", json_null());
    return 0;
}

/* Results for a template that knows no tools come from the user, together. */
static int result_into_user(json_t *messages, size_t *at, struct api_error *e)
{
    struct strbuf s;
    size_t i = *at;
    json_t *m;

    strbuf_init(&s, JSON_MAX_BYTES);
    while ((m = json_array_get(messages, i)) && strcmp(json_string_value(json_object_get(m, "role")), "tool") == 0) {
        const json_t *content = json_object_get(m, "content");
        strbuf_puts(&s, s.len ? "\n<tool_response>\n" : "<tool_response>\n");
        strbuf_add(&s, json_string_value(content), json_string_length(content));
        strbuf_puts(&s, "\n</tool_response>");
        if (i == *at)
            i++;
        else
            json_array_remove(messages, i);
    }
    m = json_array_get(messages, *at);
    json_object_set_new(m, "role", json_string("user"));
    return set_text(m, "content", &s, e);
}

/* For a template that shows no tools: they stand before the first message. */
static int tools_into_text(json_t *messages, const json_t *tools, struct api_error *e)
{
    json_t *first = json_array_get(messages, 0);
    const json_t *content = json_object_get(first, "content"), *tool;
    struct strbuf s;
    size_t i;

    strbuf_init(&s, JSON_MAX_BYTES);
    strbuf_puts(&s, "You can call these functions:\n<tools>\n");
    json_array_foreach(tools, i, tool)
    {
        put_json(&s, json_object_get(tool, "function"));
        strbuf_putc(&s, '\n');
    }
    strbuf_puts(&s, "</tools>\nTo call one, answer with an object of JSON within <tool_call></tool_call>:\n<tool_call>\n"
                    "{\"name\": \"the function's name\", \"arguments\": {the arguments}}\n</tool_call>\n\n");
    strbuf_add(&s, json_string_value(content), json_string_length(content));
    return set_text(first, "content", &s, e);
}

int tools_fit(const struct tools_fit *f, struct api_chat *chat, struct api_error *e)
{
    for (size_t i = 0; i < json_array_size(chat->messages); i++) {
        json_t *m = json_array_get(chat->messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        bool is_result = strcmp(role, "tool") == 0;
        if (strcmp(role, "developer") == 0 && !f->knows_developer)
            json_object_set_new(m, "role", json_string("system"));
        if (f->knows_thinking && json_is_string(json_object_get(m, "reasoning_content")) && !json_object_get(m, "thinking"))
            json_object_set(m, "thinking", json_object_get(m, "reasoning_content"));
        if (json_object_get(m, "tool_calls") && fit_calls(f, m, e) != 0)
            return -1;
        if (!is_result)
            continue;
        if (f->dialect.calls->short_ids)
            shorten_id(m, "tool_call_id");
        if (!f->takes_tools && result_into_user(chat->messages, &i, e) != 0)
            return -1;
    }
    return chat->tools && !f->takes_tools ? tools_into_text(chat->messages, chat->tools, e) : 0;
}

/* --- a call for certain --------------------------------------------------- */

/* Up to the name's beginning, from its end to the arguments, and behind them, as far as that is text. */
static const struct call_form {
    const char *dialect, *before, *behind, *end;
} call_forms[] = {
    {"harmony", "<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", ""},
    {"deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "\n```"},
    {"command", "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"", "\", \"parameters\": ", "}\n]"},
    {"mistral", "[TOOL_CALLS][{\"name\": \"", "\", \"arguments\": ", "}]"},
    {"granite", "<|tool_call|>[{\"name\": \"", "\", \"arguments\": ", "}]"},
    {"phi", "<|tool_call|>[{\"name\": \"", "\", \"arguments\": ", "}]"},
    {"llama", "{\"name\": \"", "\", \"parameters\": ", "}"},
    {"", "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>"},
};

static const struct call_form *call_form(const struct dialect_calls *d)
{
    size_t i = 0;
    while (call_forms[i].dialect[0] && strcmp(call_forms[i].dialect, d->name) != 0)
        i++;
    return &call_forms[i];
}

static const json_t *function_at(const struct api_chat *chat, size_t i)
{
    return json_object_get(json_array_get(chat->tools, i), "function");
}

/* The tool that is called in any case; NULL: there is a choice. */
static const char *sure_name(const struct api_chat *chat)
{
    if (chat->choice_name || json_array_size(chat->tools) > 1)
        return chat->choice_name;
    return json_string_value(json_object_get(function_at(chat, 0), "name"));
}

bool tools_must(const struct api_chat *chat)
{
    return chat->tools && (chat->choice == API_TOOLS_REQUIRED || chat->choice == API_TOOLS_NAMED);
}

void tools_begin(const struct tools_fit *f, const struct api_chat *chat, struct strbuf *out)
{
    const struct call_form *form = call_form(f->dialect.calls);
    const char *name;

    if (!tools_must(chat))
        return;
    strbuf_puts(out, form->before);
    if ((name = sure_name(chat)))
        strbuf_printf(out, "%s%s", name, form->behind);
}

/* A tool's parameters, if they can be held to. */
static int find_schema(const json_t *function, const char *where, const json_t **ret, struct err *err)
{
    const json_t *schema = json_object_get(function, "parameters");
    struct grammar *g;

    *ret = json_object_size(schema) ? schema : NULL;
    if (!*ret || json_is_true(json_object_get(function, "strict")))
        return 0;
    if ((g = grammar_from_schema(schema, where, err)))
        grammar_drop(g);
    else
        *ret = NULL;
    return 0;
}

struct grammar *tools_grammar(const struct tools_fit *f, const struct api_chat *chat, struct err *err)
{
    enum { PARTS = 4, WHERE_BYTES = 64 };
    const struct call_form *form = call_form(f->dialect.calls);
    const char *sure = sure_name(chat);
    size_t n = json_array_size(chat->tools), n_forms = 0;
    struct grammar_form *forms = mem_new(n, sizeof *forms, err);
    struct grammar_part *parts = mem_new(n, PARTS * sizeof *parts, err);
    char(*where)[WHERE_BYTES] = mem_new(n, sizeof *where, err);
    struct grammar *g = NULL;

    for (size_t i = 0; forms && parts && where && i < n; i++) {
        const json_t *function = function_at(chat, i);
        const char *name = json_string_value(json_object_get(function, "name"));
        struct grammar_part *p = parts + PARTS * n_forms;
        if (sure && strcmp(sure, name) != 0)
            continue;
        snprintf(where[i], sizeof where[i], "tools[%zu].function.parameters", i);
        p[0].text = sure ? "" : name;
        p[1].text = sure ? "" : form->behind;
        p[2].where = where[i];
        find_schema(function, where[i], &p[2].schema, err);
        p[3].text = form->end;
        forms[n_forms++] = (struct grammar_form){p, PARTS};
    }
    if (n_forms)
        g = grammar_from_calls(forms, n_forms, NULL, 1, err);
    free(forms);
    free(parts);
    free(where);
    return g;
}
