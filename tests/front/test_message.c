/* front/message.h, front/reply.h: what models said, token by token, as OpenAI's clients get it: whole, and as a stream whose
 * deltas, put together, are the same. */
#include <stdlib.h>
#include <string.h>

#include "front/reply.h"
#include "front/tools.h"
#include "tests/tap.h"
#include "tests/text/vocab_build.h"

static struct tokenizer *tokenizer;
static int32_t first_byte;
static json_t *tools;

static void make_tokenizer(void)
{
    struct vocab_build b;
    struct err err;

    vocab_build_init(&b, "llama", NULL);
    vocab_build_add(&b, "<unk>", T_UNKNOWN, 0);
    vocab_build_add(&b, "</s>", T_CONTROL, 0);
    first_byte = (int32_t)b.n;
    vocab_build_add_bytes(&b, false);
    tokenizer = vocab_build_tokenizer(&b, &err);
    ok(tokenizer != NULL, "a vocabulary: %s", tokenizer ? "" : err.text);
    vocab_build_fini(&b);
}

struct case_ {
    const char *template, *given, *text;
    bool thinking, one_call, thoughts_stay;
    const char *content, *thoughts, *calls; /* calls: "name(arguments)…" */
};

static const char hermes[] = "<tool_call> <think>";

static const struct case_ cases[] = {
    {hermes, "", "Hello.", 0, 0, 0, "Hello.", NULL, ""},
    {hermes, "", "<think>\nHm.\n</think>\n\nHello.", 0, 0, 0, "Hello.", "Hm.", ""},
    {hermes, "", "Hm.\n</think>\n\nHello.", 1, 0, 0, "Hello.", "Hm.", ""},
    {hermes, "", "<think>Hm.</think>Hello.", 0, 0, 1, "<think>Hm.</think>Hello.", NULL, ""},
    {hermes, "", "I ask.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"ä\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
     0, 0, 0, "I ask.", NULL, "f({\"a\": \"ä\"})g({})"},
    {hermes, "", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>", 0, 1, 0,
     NULL, NULL, "f({})"},
    {hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": ", "{\"a\": 1}}\n</tool_call>", 1, 0, 0, NULL, NULL, "f({\"a\": 1})"},
    {hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": ", "{\"a\": 1}, and then {", 0, 1, 0, NULL, NULL, "f({\"a\": 1})"},
    {"[TOOL_CALLS]", "", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [1, 2]}, \"id\": \"123456789\"}]", 0, 0, 0, NULL, NULL,
     "f({\"a\": [1, 2]})"},
    {"<|python_tag|>", "", "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}", 0, 0, 0, NULL, NULL, "f({\"a\": \"b\"})"},
    {"", "", "{\"no\": \"call\"}", 0, 0, 0, "{\"no\": \"call\"}", NULL, ""},
};

/* Runs a case as generation.c does; the reply's text, whole or a stream. */
static char *reply(const struct case_ *c, bool stream, bool logprobs)
{
    struct dialect d = dialect_find(c->template, strlen(c->template));
    struct api_chat chat = {.tools = tools, .parallel = !c->one_call, .thoughts_stay = c->thoughts_stay};
    struct api_request request = {.is_chat = true, .stream = stream, .logprobs = logprobs, .n = 1};
    struct reply_head head = {.id = "x", .model = "m", .tokenizer = tokenizer, .request = &request};
    struct reply_usage usage = {.completion = strlen(c->text)};
    struct answer answer;
    struct message message;
    struct reply_choice choice = {.answer = &answer, .message = &message};
    struct strbuf out;
    struct err err;
    bool good;

    strbuf_init(&out, 1 << 24);
    answer_init(&answer, tokenizer, NULL, 0, true, logprobs, 0);
    good = message_init(&message, &d, &chat, c->thinking, stream, c->given, strlen(c->given), &err) == 0;
    for (size_t i = 0; good && c->text[i] && !message.full; i++) {
        good = answer_add(&answer, first_byte + (unsigned char)c->text[i], -1, NULL, NULL, 0, &err) == 0 &&
               message_add(&message, strbuf_str(&answer.text), answer.sure, &err) == 0;
        answer_take(&answer, 0);
        if (stream)
            reply_chunk(&out, &head, &choice);
    }
    good = good && answer_end(&answer, &err) == 0 && message_end(&message, &err) == 0;
    choice.finish = message_has_calls(&message) ? "tool_calls" : "stop";
    if (stream) {
        reply_chunk(&out, &head, &choice);
        reply_done(&out, &head, &usage);
    } else {
        reply_whole(&out, &head, &choice, 1, &usage);
    }
    if (!good)
        tap_note("%s", err.text);
    answer_fini(&answer);
    message_fini(&message);
    return out.data;
}

static void put_text(json_t *to, const char *field, const json_t *more)
{
    const char *old = json_string_value(json_object_get(to, field));
    struct strbuf s;

    if (!json_is_string(more))
        return;
    strbuf_init(&s, 1 << 20);
    strbuf_puts(&s, old ? old : "");
    strbuf_puts(&s, json_string_value(more));
    json_object_set_new(to, field, json_string(strbuf_str(&s)));
    strbuf_fini(&s);
}

/* As clients do it: the deltas of a stream put together to a message. */
static json_t *put_together(const char *stream, json_t **ret_finish, size_t *ret_tokens)
{
    json_t *message = json_object(), *calls = json_array();
    size_t i;

    *ret_finish = NULL;
    for (const char *at = strstr(stream, "data: {"); at; at = strstr(at + 1, "data: {")) {
        json_t *chunk = json_loads(at + 6, JSON_DISABLE_EOF_CHECK, NULL), *choice = json_array_get(json_object_get(chunk, "choices"), 0);
        json_t *delta = json_object_get(choice, "delta"), *part;
        put_text(message, "content", json_object_get(delta, "content"));
        put_text(message, "reasoning_content", json_object_get(delta, "reasoning_content"));
        json_array_foreach(json_object_get(delta, "tool_calls"), i, part)
        {
            size_t index = (size_t)json_integer_value(json_object_get(part, "index"));
            json_t *function = json_object_get(part, "function");
            if (index == json_array_size(calls)) {
                ok(json_object_get(part, "id") && json_object_get(function, "name"), "a call's first delta has its id and name");
                json_array_append_new(calls, json_deep_copy(part));
            } else {
                put_text(json_object_get(json_array_get(calls, index), "function"), "arguments", json_object_get(function, "arguments"));
            }
        }
        if (json_is_string(json_object_get(choice, "finish_reason")))
            *ret_finish = json_incref(json_object_get(choice, "finish_reason"));
        *ret_tokens += json_array_size(json_object_get(json_object_get(choice, "logprobs"), "content"));
        json_decref(chunk);
    }
    if (json_array_size(calls) > 0)
        json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    return message;
}

static void check(const struct case_ *c, const json_t *message, const json_t *finish, const char *how)
{
    const char *content = json_string_value(json_object_get(message, "content"));
    const char *thoughts = json_string_value(json_object_get(message, "reasoning_content"));
    const json_t *call;
    struct strbuf calls;
    size_t i;

    strbuf_init(&calls, 1 << 20);
    strbuf_add(&calls, "", 0);
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        const json_t *f = json_object_get(call, "function");
        const char *name = json_string_value(json_object_get(f, "name")), *id = json_string_value(json_object_get(call, "id"));
        const char *arguments = json_string_value(json_object_get(f, "arguments"));
        json_t *read = arguments ? json_loads(arguments, 0, NULL) : NULL;
        strbuf_printf(&calls, "%s(%s)", name ? name : "", arguments ? arguments : "");
        ok(json_is_object(read), "%s: arguments are an object of JSON", how);
        ok(id && strlen(id) == (c->template[0] == '[' ? 9 : 29), "an id: %s", id ? id : "none");
        json_decref(read);
    }
    is_str(content ? content : "", c->content ? c->content : "", "%s: content", how);
    is_str(thoughts ? thoughts : "", c->thoughts ? c->thoughts : "", "%s: thoughts", how);
    is_str(strbuf_str(&calls), c->calls, "%s: calls", how);
    is_str(json_string_value(finish), c->calls[0] ? "tool_calls" : "stop", "%s: finish_reason", how);
    strbuf_fini(&calls);
}

static void test_case(const struct case_ *c)
{
    char *text = reply(c, false, true);
    json_t *whole = text ? json_loads(text, 0, NULL) : NULL, *choice = json_array_get(json_object_get(whole, "choices"), 0), *finish;
    size_t n_tokens = 0, n_read = json_array_size(json_object_get(json_object_get(choice, "logprobs"), "content"));

    ok(whole != NULL, "a whole answer is JSON");
    check(c, json_object_get(choice, "message"), json_object_get(choice, "finish_reason"), "whole");
    if (!c->content)
        ok(json_is_null(json_object_get(json_object_get(choice, "message"), "content")), "beside calls alone content is null");
    free(text);
    text = reply(c, true, true);
    json_t *message = put_together(text, &finish, &n_tokens);
    check(c, message, finish, "streamed");
    ok(n_tokens == n_read && (c->one_call || n_read == strlen(c->text)), "log-probabilities of all tokens, both ways: %zu, %zu", n_read,
       n_tokens);
    has_str(text, "data: [DONE]\n\n", "the stream ends");
    free(text);
    json_decref(finish);
    json_decref(message);
    json_decref(whole);
}

/* A template, rendered from messages that are not in its form. */
static void test_fit(const char *name, const char *source, const char *messages, bool with_tools, enum api_tool_choice choice, const char *want)
{
    struct err err;
    struct template *t = template_compile(name, source, strlen(source), &err);
    struct api_chat chat = {.messages = json_loads(messages, 0, NULL), .tools = with_tools ? tools : NULL, .choice = choice, .choice_name = choice == API_TOOLS_NAMED ? "f" : NULL};
    struct template_output out = {0};
    struct tools_fit fit;
    struct api_error e;

    ok(t != NULL, "%s: a template", name);
    tools_fit_init(&fit, t, source, strlen(source));
    ok(tools_fit(&fit, &chat, &e) == 0, "%s: messages fit", name);
    json_t *context = json_pack("{s:O, s:o, s:b}", "messages", chat.messages, "tools", chat.tools ? json_incref(chat.tools) : json_null(), "add_generation_prompt", 1);
    if (template_render(t, context, 0, NULL, &out, &err) == 0) {
        tools_begin(&fit, &chat, &out.text);
        has_str(strbuf_str(&out.text), want, "%s", name);
        template_output_fini(&out);
    } else {
        ok(false, "%s: %s", name, err.text);
    }
    json_decref(context);
    json_decref(chat.messages);
    template_destroy(t);
}

#define CALLS                                                                                                                              \
    "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"call_1\",\"type\":"          \
    "\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]},{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":"     \
    "\"r1\"},{\"role\":\"tool\",\"tool_call_id\":\"call_2\",\"content\":\"r2\"}]"
#define LOOP "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"

static void test_fits(void)
{
    test_fit("knows nothing of tools: they are told of", LOOP, "[{\"role\":\"user\",\"content\":\"u\"}]", true, API_TOOLS_AUTO, "\"name\": \"f\"");
    test_fit("calls become text", LOOP, CALLS, false, API_TOOLS_AUTO, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>");
    test_fit("results become the user's, together", LOOP, CALLS, false, API_TOOLS_AUTO,
             "[user]<tool_response>\nr1\n</tool_response>\n<tool_response>\nr2\n</tool_response>");
    test_fit("developer is system", LOOP, "[{\"role\":\"developer\",\"content\":\"d\"}]", false, API_TOOLS_AUTO, "[system]d");
    test_fit("a call that must come is begun", LOOP, "[{\"role\":\"user\",\"content\":\"u\"}]", true, API_TOOLS_NAMED,
             "<tool_call>\n{\"name\": \"f\", \"arguments\": ");
    test_fit("one of several", LOOP, "[{\"role\":\"user\",\"content\":\"u\"}]", true, API_TOOLS_REQUIRED, "<tool_call>\n{\"name\": \"");
    test_fit("wants arguments as text and no content",
             "{{ tools }}{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.name + '!' + "
             "m.tool_calls[0].function.arguments }}{% endif %}{% endfor %}",
             CALLS, true, API_TOOLS_AUTO, "f!{\"a\": 1}");
    test_fit("Mistral: ids of nine", "[TOOL_CALLS]{{ tools }}{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}"
             "{% if m.tool_calls[0].id | length != 9 %}{{ raise_exception('nine') }}{% endif %}{% endif %}{% endfor %}",
             CALLS, true, API_TOOLS_NAMED, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": ");
}

int main(void)
{
    make_tokenizer();
    tools = json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]", 0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        test_case(&cases[i]);
    test_fits();
    json_decref(tools);
    tokenizer_destroy(tokenizer);
    return tap_done();
}
