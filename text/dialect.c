/* The dialects, and how they are found. See dialect.h. */
#include "text/dialect.h"

#include <string.h>

#include "text/dialect_marks.h"

static const struct {
    struct dialect_calls calls;
    const char *found_by[2]; /* the template has all of these */
} dialects[] = {
    {{.name = "harmony", .channels = true}, {"<|channel|>", "<|message|>"}},
    {{.name = "deepseek", .open = DEEPSEEK_BEGIN, .close = DEEPSEEK_END, .sections = true}, {DEEPSEEK_BEGIN}},
    {{.name = "command", .open = "<|START_ACTION|>", .close = "<|END_ACTION|>"}, {"<|START_ACTION|>"}},
    {{.name = "mistral", .open = "[TOOL_CALLS]", .named = true, .short_ids = true}, {"[TOOL_CALLS]"}},
    {{.name = "granite", .open = "<|tool_call|>", .close = "<|/tool_call|>"}, {"<|tool_call|>"}},
    {{.name = "phi", .open = "<|tool_call|>", .close = "<|/tool_call|>"}, {"<|tool|>"}},
    {{.name = "hermes", .open = "<tool_call>", .close = "</tool_call>"}, {"<tool_call>"}},
    {{.name = "llama", .open = "<|python_tag|>", .bare = true}, {"<|python_tag|>"}},
    {{.name = "llama", .open = "<|python_tag|>", .bare = true}, {"<|start_header_id|>", "\"parameters\""}},
    /* For any template: what prompts of our own ask for (front/tools.c), and what models write on their own. */
    {{.name = "json", .open = "<tool_call>", .close = "</tool_call>", .bare = true}, {""}},
};

static const struct {
    struct dialect_thoughts thoughts;
    const char *found_by;
} thinkers[] = {
    {{"<|START_THINKING|>", "<|END_THINKING|>", {"<|START_RESPONSE|>", "<|END_RESPONSE|>"}}, "<|START_THINKING|>"},
    {{"[THINK]", "[/THINK]", {NULL}}, "[THINK]"},
    {{"<think>", "</think>", {"<response>", "</response>"}}, "<response></response>"},
    {{"<think>", "</think>", {NULL}}, "<think>"},
    {{"<think>", "</think>", {NULL}}, "</think>"},
};

static bool has(const char *source, size_t len, const char *word)
{
    return !word || memmem(source, len, word, strlen(word)) != NULL;
}

struct dialect dialect_find(const char *source, size_t len)
{
    struct dialect d = {0};
    size_t i = 0;

    while (!has(source, len, dialects[i].found_by[0]) || !has(source, len, dialects[i].found_by[1]))
        i++; /* the last one fits all */
    d.calls = &dialects[i].calls;
    for (i = 0; i < sizeof thinkers / sizeof *thinkers && !d.thoughts && !d.calls->channels; i++)
        if (has(source, len, thinkers[i].found_by))
            d.thoughts = &thinkers[i].thoughts;
    return d;
}

const char *dialect_mark(const struct dialect *d, size_t i)
{
    const char *marks[DIALECT_MAX_MARKS + 1] = {0};
    static const char *const deepseek[] = {DEEPSEEK_CALL, DEEPSEEK_SEP, DEEPSEEK_CALL_END};
    static const char *const harmony[] = {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>"};
    static const char *const named[] = {"[ARGS]", "[CALL_ID]"};
    size_t n = 0;

    if (d->calls->open)
        marks[n++] = d->calls->open;
    if (d->calls->close)
        marks[n++] = d->calls->close;
    for (size_t k = 0; d->calls->sections && k < sizeof deepseek / sizeof *deepseek; k++)
        marks[n++] = deepseek[k];
    for (size_t k = 0; d->calls->channels && k < sizeof harmony / sizeof *harmony; k++)
        marks[n++] = harmony[k];
    for (size_t k = 0; d->calls->named && k < sizeof named / sizeof *named; k++)
        marks[n++] = named[k];
    if (d->thoughts) {
        marks[n++] = d->thoughts->open;
        marks[n++] = d->thoughts->close;
        for (size_t k = 0; k < 2 && d->thoughts->skip[k]; k++)
            marks[n++] = d->thoughts->skip[k];
    }
    return i < n ? marks[i] : NULL;
}

bool dialect_is_thinking(const struct dialect *d, const char *prompt, size_t len)
{
    const char *open = d->thoughts ? d->thoughts->open : NULL;
    size_t n = open ? strlen(open) : 0;

    while (len > 0 && strchr(" \t\r\n", prompt[len - 1]))
        len--;
    return open && len >= n && memcmp(prompt + len - n, open, n) == 0;
}

bool dialect_has_tool(const json_t *tools, const char *name, size_t len)
{
    size_t i;
    const json_t *tool;

    json_array_foreach(tools, i, tool)
    {
        const json_t *known = json_object_get(json_object_get(tool, "function"), "name");
        if (json_string_length(known) == len && memcmp(json_string_value(known), name, len) == 0)
            return true;
    }
    return false;
}
