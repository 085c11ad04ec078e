/* What a chat request says: its messages, its tools, how it wants thoughts. See openai.h. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "front/openai_fields.h"

enum { TOOLS_MAX = 128, TOOL_NAME_MAX = 64 };

/* --- messages ------------------------------------------------------------ */

/* A content as one string: templates that take lists of parts are few, strings all take. NULL and an error. */
static json_t *content_text(const json_t *content, size_t i, struct api_error *e)
{
    struct strbuf text;
    json_t *ret = NULL;

    strbuf_init(&text, JSON_MAX_BYTES);
    for (size_t k = 0; k < json_array_size(content); k++) {
        const json_t *part = json_array_get(content, k), *s = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || (strcmp(type, "text") != 0 && strcmp(type, "refusal") != 0)) {
            char shown[48];
            api_refuse(e, "messages", "messages[%zu].content[%zu] is of type \"%s\"; this model takes parts of type \"text\"", i, k,
                       type ? err_printable(shown, sizeof shown, type, strlen(type)) : "");
            goto done;
        }
        s = s ? s : json_object_get(part, "refusal");
        if (!json_is_string(s)) {
            api_refuse(e, "messages", "messages[%zu].content[%zu].text is %s; a string is expected", i, k, json_type_words(s));
            goto done;
        }
        strbuf_add(&text, json_string_value(s), json_string_length(s));
    }
    if (text.failed || !(ret = json_stringn(strbuf_str(&text), text.len)))
        api_fail(e, 503, "server_error", "memory", "messages: out of memory");
done:
    strbuf_fini(&text);
    return ret;
}

/* Arguments come as a string that holds JSON; templates write them out as objects. */
static int tool_calls_copy(json_t *message, size_t i, struct api_error *e)
{
    json_t *calls = json_object_get(message, "tool_calls"), *call;
    size_t k;

    if (!calls || json_is_null(calls)) {
        json_object_del(message, "tool_calls"); /* templates ask whether it is there */
        return 0;
    }
    if (!json_is_array(calls))
        return api_refuse(e, "messages", "messages[%zu].tool_calls is %s; an array is expected", i, json_type_words(calls));
    json_array_foreach(calls, k, call)
    {
        json_t *function = json_object_get(call, "function"), *args = json_object_get(function, "arguments"), *object;
        const json_t *id = json_object_get(call, "id");
        if (!json_is_object(function) || !json_is_string(json_object_get(function, "name")))
            return api_refuse(e, "messages", "messages[%zu].tool_calls[%zu].function has no name", i, k);
        if (id && !json_is_string(id))
            return api_refuse(e, "messages", "messages[%zu].tool_calls[%zu].id is %s; a string is expected", i, k, json_type_words(id));
        if (args && !json_is_string(args) && !json_is_object(args))
            return api_refuse(e, "messages", "messages[%zu].tool_calls[%zu].function.arguments is %s; a string of JSON is expected", i, k,
                              json_type_words(args));
        object = args ? json_is_string(args) ? json_loadb(json_string_value(args), json_string_length(args), 0, NULL) : NULL : json_object();
        if (object)
            json_object_set_new(function, "arguments", object);
    }
    if (json_array_size(calls) == 0)
        json_object_del(message, "tool_calls");
    return 0;
}

static int message_check(const json_t *m, size_t i, struct api_error *e)
{
    static const char *const strings[] = {"name", "tool_call_id", "reasoning_content"};
    const json_t *role = json_object_get(m, "role"), *content = api_field(m, "content");

    if (!json_is_object(m))
        return api_refuse(e, "messages", "messages[%zu] is %s; an object with role and content is expected", i, json_type_words(m));
    if (!json_is_string(role))
        return api_refuse(e, "messages", "messages[%zu].role is %s; a string is expected", i, json_type_words(role));
    if (content && !json_is_string(content) && !json_is_array(content))
        return api_refuse(e, "messages", "messages[%zu].content is %s; a string or a list of parts is expected", i,
                          json_type_words(content));
    if (!content && !api_field(m, "tool_calls") && !api_field(m, "reasoning_content"))
        return api_refuse(e, "messages", "messages[%zu].content is missing; a string is expected", i);
    for (size_t k = 0; k < sizeof strings / sizeof *strings; k++) {
        const json_t *v = api_field(m, strings[k]);
        if (v && !json_is_string(v))
            return api_refuse(e, "messages", "messages[%zu].%s is %s; a string is expected", i, strings[k], json_type_words(v));
    }
    return 0;
}

static int message_read(json_t *list, const json_t *from, size_t i, struct api_error *e)
{
    const json_t *content = api_field(from, "content");
    json_t *m, *text;

    if (message_check(from, i, e) != 0)
        return -1;
    if (!(m = json_deep_copy(from)) || json_array_append_new(list, m) != 0)
        return api_fail(e, 503, "server_error", "memory", "messages: out of memory");
    if (json_is_array(content)) {
        if (!(text = content_text(content, i, e)))
            return -1;
        json_object_set_new(m, "content", text);
    } else if (!content) {
        json_object_set_new(m, "content", json_string(""));
    }
    return tool_calls_copy(m, i, e);
}

static int messages_read(struct api_chat *c, const json_t *body, struct api_error *e)
{
    const json_t *messages = api_field(body, "messages");

    if (!messages)
        return api_refuse(e, "messages", "messages is missing; an array is expected");
    if (!json_is_array(messages))
        return api_wrong_type(e, "messages", "an array", messages);
    if (json_array_size(messages) == 0)
        return api_refuse(e, "messages", "messages is empty; at least one is expected");
    if (json_array_size(messages) > API_MAX_MESSAGES)
        return api_refuse(e, "messages", "messages has %zu items; at most %d are allowed", json_array_size(messages), API_MAX_MESSAGES);
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (message_read(c->messages, json_array_get(messages, i), i, e) != 0)
            return -1;
    return 0;
}

/* --- tools --------------------------------------------------------------- */

static bool is_tool_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:");
    return n > 0 && n <= TOOL_NAME_MAX && !s[n];
}

static int tool_check(const json_t *tool, size_t i, struct api_error *e)
{
    const json_t *type = json_object_get(tool, "type"), *f = json_object_get(tool, "function"), *name = json_object_get(f, "name");
    const json_t *parameters = api_field(f, "parameters"), *description = api_field(f, "description");

    if (!json_is_object(tool))
        return api_refuse(e, "tools", "tools[%zu] is %s; an object is expected", i, json_type_words(tool));
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0))
        return api_refuse(e, "tools", "tools[%zu].type: only \"function\" is supported", i);
    if (!json_is_object(f))
        return api_refuse(e, "tools", "tools[%zu].function is %s; an object is expected", i, json_type_words(f));
    if (!json_is_string(name) || !is_tool_name(json_string_value(name)))
        return api_refuse(e, "tools", "tools[%zu].function.name: 1 to %d letters, digits, '_', '-', '.' or ':' are expected", i,
                          TOOL_NAME_MAX);
    if (description && !json_is_string(description))
        return api_refuse(e, "tools", "tools[%zu].function.description is %s; a string is expected", i, json_type_words(description));
    if (parameters && !json_is_object(parameters))
        return api_refuse(e, "tools", "tools[%zu].function.parameters is %s; a JSON schema is expected", i, json_type_words(parameters));
    return 0;
}

static const json_t *find_tool(const json_t *tools, const char *name)
{
    size_t i;
    const json_t *tool;

    json_array_foreach(tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        const char *known = json_string_value(json_object_get(f, "name"));
        if (known && strcmp(known, name) == 0)
            return f;
    }
    return NULL;
}

static int choice_read(struct api_chat *c, const json_t *choice, const json_t *tools, struct api_error *e)
{
    const char *word = json_string_value(choice);
    const json_t *type = json_object_get(choice, "type");
    const char *name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));

    if (!choice || (word && strcmp(word, "auto") == 0))
        c->choice = API_TOOLS_AUTO;
    else if (word && strcmp(word, "none") == 0)
        c->choice = API_TOOLS_NONE;
    else if (word && strcmp(word, "required") == 0)
        c->choice = API_TOOLS_REQUIRED;
    else if (json_is_object(choice) && name && (!type || strcmp(json_string_value(type) ? json_string_value(type) : "", "function") == 0))
        c->choice = API_TOOLS_NAMED;
    else
        return api_refuse(e, "tool_choice",
                          "tool_choice: \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}} is expected");
    if (c->choice != API_TOOLS_NAMED) {
        if (c->choice == API_TOOLS_REQUIRED && json_array_size(tools) == 0)
            return api_refuse(e, "tool_choice", "tool_choice is \"required\", and tools has none");
        return 0;
    }
    if (!find_tool(tools, name)) {
        char shown[80];
        return api_refuse(e, "tool_choice", "tool_choice names the function \"%s\", which tools does not have",
                          err_printable(shown, sizeof shown, name, strlen(name)));
    }
    c->choice_name = name;
    return 0;
}

static int tools_read(struct api_chat *c, const json_t *body, struct api_error *e)
{
    const json_t *tools = api_field(body, "tools");

    if (api_field(body, "functions") || api_field(body, "function_call"))
        return api_refuse(e, api_field(body, "functions") ? "functions" : "function_call",
                          "functions and function_call are the old form of tools and tool_choice; give those");
    if (tools && !json_is_array(tools))
        return api_wrong_type(e, "tools", "an array", tools);
    if (json_array_size(tools) > TOOLS_MAX)
        return api_refuse(e, "tools", "tools has %zu items; at most %d are allowed", json_array_size(tools), TOOLS_MAX);
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (tool_check(json_array_get(tools, i), i, e) != 0)
            return -1;
    c->parallel = true;
    if (choice_read(c, api_field(body, "tool_choice"), tools, e) != 0 || api_flag(body, "parallel_tool_calls", &c->parallel, e) != 0)
        return -1;
    if (json_array_size(tools) > 0 && c->choice != API_TOOLS_NONE)
        c->tools = json_incref((json_t *)(uintptr_t)tools);
    return 0;
}

/* --- thoughts ------------------------------------------------------------ */

static int thoughts_read(struct api_chat *c, const json_t *body, struct api_error *e)
{
    static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    const char *format = "auto", *effort = NULL;
    size_t i = 0, n = sizeof efforts / sizeof *efforts;
    bool separate = true;

    if (api_text(body, "reasoning_format", &format, NULL, e) != 0 || api_text(body, "reasoning_effort", &effort, NULL, e) != 0 ||
        api_flag(body, "separate_reasoning", &separate, e) != 0)
        return -1;
    if (strcmp(format, "auto") != 0 && strcmp(format, "deepseek") != 0 && strcmp(format, "none") != 0)
        return api_refuse(e, "reasoning_format", "reasoning_format: \"auto\", \"deepseek\" or \"none\" is expected");
    c->thoughts_stay = strcmp(format, "none") == 0 || !separate;
    if (!effort)
        return 0;
    while (i < n && strcmp(effort, efforts[i]) != 0)
        i++;
    if (i == n)
        return api_refuse(e, "reasoning_effort", "reasoning_effort: none, minimal, low, medium, high or xhigh is expected");
    /* What chat_template_kwargs says itself stands. */
    if (!json_object_get(c->args, "reasoning_effort") && json_object_set_new(c->args, "reasoning_effort", json_string(effort)) != 0)
        return api_fail(e, 503, "server_error", "memory", "reasoning_effort: out of memory");
    if (i == 0 && !json_object_get(c->args, "enable_thinking") && json_object_set_new(c->args, "enable_thinking", json_false()) != 0)
        return api_fail(e, 503, "server_error", "memory", "reasoning_effort: out of memory");
    return 0;
}

/* --- all of it ----------------------------------------------------------- */

void api_chat_fini(struct api_chat *c)
{
    json_decref(c->messages);
    json_decref(c->tools);
    json_decref(c->args);
    *c = (struct api_chat){0};
}

int api_chat_read(struct api_chat *ret, const json_t *body, struct api_error *e)
{
    const json_t *args = api_field(body, "chat_template_kwargs");
    struct api_chat c = {.messages = json_array()};

    if (args && !json_is_object(args))
        api_wrong_type(e, "chat_template_kwargs", "an object", args);
    else if (!c.messages || !(c.args = args ? json_copy((json_t *)(uintptr_t)args) : json_object()))
        api_fail(e, 503, "server_error", "memory", "messages: out of memory");
    else if (messages_read(&c, body, e) == 0 && tools_read(&c, body, e) == 0 && thoughts_read(&c, body, e) == 0) {
        *ret = c;
        return 0;
    }
    api_chat_fini(&c);
    return -1;
}
