/* Thoughts and calls in what models say, in every convention, cut at every byte. The texts are written as the conventions'
 * templates and documents have them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "text/dialect.h"

/* What was told, readable: "text", T(thought), name(arguments), and "!" behind a call that was none. */
struct heard {
    struct strbuf text;
    enum dialect_part last;
    bool open;
};

static void hear(void *arg, enum dialect_part part, const char *s, size_t len)
{
    struct heard *h = arg;

    if (h->open && (part != h->last || part == DIALECT_CALL)) {
        if (h->last == DIALECT_THOUGHT)
            strbuf_puts(&h->text, ")");
        h->open = false;
    }
    if (part == DIALECT_CONTENT || part == DIALECT_THOUGHT || part == DIALECT_ARGUMENTS) {
        if (!h->open && part == DIALECT_THOUGHT)
            strbuf_puts(&h->text, "T(");
        h->open = true;
        strbuf_add(&h->text, s, len);
    } else if (part == DIALECT_CALL) {
        strbuf_puts(&h->text, "<");
        strbuf_add(&h->text, s, len);
        strbuf_puts(&h->text, "|");
    } else {
        strbuf_puts(&h->text, part == DIALECT_DONE ? ">" : "!");
    }
    h->last = part;
}

/* Pieces end at the bytes a and b; step: every so many bytes. */
static char *read_in_pieces(const struct dialect *d, const json_t *tools, bool thinking, const char *text, size_t a, size_t b, size_t step)
{
    struct dialect_reader r;
    struct heard h = {.last = DIALECT_CONTENT};
    struct err err;
    size_t len = strlen(text), from = 0;

    strbuf_init(&h.text, 16 << 20);
    strbuf_add(&h.text, "", 0);
    dialect_reader_init(&r, d, tools, true, thinking, hear, &h);
    for (size_t to = 1; to <= len; to++)
        if (to == a || to == b || to == len || (step && to % step == 0)) {
            if (dialect_read(&r, text + from, to - from, &err) != 0)
                return NULL;
            from = to;
        }
    if (dialect_end(&r, &err) != 0)
        return NULL;
    if (h.open && h.last == DIALECT_THOUGHT)
        strbuf_puts(&h.text, ")");
    dialect_reader_fini(&r);
    return h.text.data;
}

static const char tools_text[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":"
                                 "{\"city\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"}}}}},"
                                 "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}]";

struct one {
    const char *template, *text, *want;
    bool thinking;
};

#define HERMES "<tool_call>"
#define QWEN3 "<tool_call> <think>"
#define LLAMA "<|python_tag|>"
#define MISTRAL "[TOOL_CALLS]"
#define COMMAND "<|START_ACTION|><|START_THINKING|>"
#define GRANITE "<|tool_call|> <response></response>"
#define PHI "<|tool|>"
#define HARMONY "<|channel|><|message|>"
#define DS "<｜tool▁calls▁begin｜><think>"

static const struct one ones[] = {
    /* Hermes, Qwen 2.5 and 3. */
    {HERMES, "Plain text. ", "Plain text. ", 0},
    {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>", "<f|{\"city\": \"Rome\"}>", 0},
    {HERMES, "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"a\": [1, {\"b\": \"}\"}]}}\n</tool_call>",
     "Let me see.<f|{}><g|{\"a\": [1, {\"b\": \"}\"}]}>", 0},
    {HERMES, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "<f|{\"a\":1}>", 0},
    {HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", "<f|{\"a\": 1}>", 0},
    {HERMES, "<tool_call>{\"name\": \"f\"}</tool_call>", "<f|{}>", 0},
    {HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x\ny\"}}</tool_call>", "<f|{\"a\": \"x\\ny\"}>", 0},
    {HERMES, "<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1}}}</tool_call>", "<f|{\"a\":1}>", 0},
    {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "<f|{\"a\": 1}>", 0},
    {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}", "<f|{\"a\": 1}>", 0},
    {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1", "<f|{\"a\": 1!<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1", 0},
    {HERMES, "a <tool_call> b", "a <tool_call> b", 0},
    {HERMES, "a <tool_cal", "a <tool_cal", 0},
    {HERMES, "<tool_call>{\"name\" 5}</tool_call>!", "<tool_call>{\"name\" 5}</tool_call>!", 0},
    {HERMES, "<tool_call>{\"nome\": \"f\"}</tool_call>", "<tool_call>{\"nome\": \"f\"}</tool_call>", 0},
    {HERMES, "<tool_call>{x<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call> then", "<tool_call>{x<f|{}>then", 0},
    {HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": tru}}</tool_call>", "<f|{\"a\": tru!<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": tru}}</tool_call>", 0},
    {HERMES, "<tool_call>[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]</tool_call>", "<f|{}><g|{}>", 0},
    {HERMES, "{\"name\": \"f\", \"arguments\": {}}", "{\"name\": \"f\", \"arguments\": {}}", 0},
    {QWEN3, "<think>\nHm, f?\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", "T(Hm, f?)<f|{}>", 0},
    {QWEN3, "<think>\n\n</think>\n\nYes.", "Yes.", 0},
    {QWEN3, "still\nthinking\n</think>\nYes.\n", "T(still\nthinking)Yes.\n", 1},
    {QWEN3, "for ever </thin", "T(for ever </thin)", 1},
    {QWEN3, "Write <think> and </think>.", "Write <think> and </think>.", 0},
    {QWEN3, "  <think>a</think>b<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "T(a)b<f|{}>", 0},
    /* Qwen3-Coder. */
    {HERMES, "<tool_call>\n<function=f>\n<parameter=city>\n12\n</parameter>\n<parameter=n>\n12\n</parameter>\n</function>\n</tool_call>", "<f|{\"city\":\"12\",\"n\":12}>", 0},
    {HERMES, "<tool_call>\n<function=g>\n<parameter=x>\nline 1\nline 2\n</parameter>\n</function>\n</tool_call>done", "<g|{\"x\":\"line 1\\nline 2\"}>done", 0},
    {HERMES, "<tool_call>\n<function=f>\n<parameter=city>\n</tool_call>", "<tool_call>\n<function=f>\n<parameter=city>\n</tool_call>", 0},
    /* Llama 3.x. */
    {LLAMA, "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}", "<get_weather|{\"city\": \"Rome\"}>", 0},
    {LLAMA, "\n {\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", "<f|{}>", 0},
    {LLAMA, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"f\", \"parameters\": {}}", "<f|{\"a\": 1}>; {\"name\": \"f\", \"parameters\": {}}", 0},
    {LLAMA, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"f\", \"parameters\": {}}", "<f|{\"a\": 1}><f|{}>", 0},
    {LLAMA, "{\"name\": \"Bob\", \"parameters\": {}}", "{\"name\": \"Bob\", \"parameters\": {}}", 0},
    {LLAMA, " {\"answer\": 42}", " {\"answer\": 42}", 0},
    {LLAMA, "See: {\"name\": \"f\", \"parameters\": {}}", "See: {\"name\": \"f\", \"parameters\": {}}", 0},
    {LLAMA, "<|python_tag|>import os", "<|python_tag|>import os", 0},
    /* Mistral, old and new. */
    {MISTRAL, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"city\": \"Rome\"}, \"id\": \"abcdefghi\"}]", "<f|{\"city\": \"Rome\"}>", 0},
    {MISTRAL, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"a\": []}}]", "<f|{}><g|{\"a\": []}>", 0},
    {MISTRAL, "I look. [TOOL_CALLS]f{\"city\": \"Rome\"}[TOOL_CALLS]g{}", "I look.<f|{\"city\": \"Rome\"}><g|{}>", 0},
    {MISTRAL, "[TOOL_CALLS]f[ARGS]{\"city\": \"Rome\"}", "<f|{\"city\": \"Rome\"}>", 0},
    {MISTRAL, "[TOOL_CALLS]f[CALL_ID]abc123[ARGS]{\"city\": 1}", "<f|{\"city\": 1}>", 0},
    {MISTRAL, "[TOOL_CALLS] are words", "[TOOL_CALLS] are words", 0},
    {MISTRAL, "[TOOL_CALLS]f[ARGS]nothing", "[TOOL_CALLS]f[ARGS]nothing", 0},
    {MISTRAL, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, nothing]", "<f|{}> nothing]", 0},
    /* Command R7B. */
    {COMMAND, "<|START_THINKING|>I will look.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {\"a\": 1}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"g\", \"parameters\": {}}\n]<|END_ACTION|>",
     "T(I will look.)<f|{\"a\": 1}><g|{}>", 0},
    {COMMAND, "<|START_RESPONSE|>Hello.<|END_RESPONSE|>", "Hello.", 0},
    /* Granite 3.3, Phi-4-mini. */
    {GRANITE, "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "<f|{\"a\": 1}>", 0},
    {GRANITE, "<think>hm</think><response>Hello.</response>", "T(hm)Hello.", 0},
    {PHI, "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]<|/tool_call|>", "<f|{\"a\": 1}>", 0},
    /* gpt-oss. */
    {HARMONY, "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>Hello <b>.<|return|>", "T(Think.)Hello <b>.", 0},
    {HARMONY, "<|channel|>analysis<|message|>Need f.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>", "T(Need f.)<f|{\"a\": 1}>", 0},
    {HARMONY, "<|channel|>commentary<|message|>I call.<|end|><|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}", "I call.<f|{}>", 0},
    {HARMONY, "Hello", "Hello", 0},
    /* DeepSeek R1 and V3.1. */
    {DS, "Hm.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "T(Hm.)<f|{\"a\": 1}><g|{}>", 1},
    {DS, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "<f|{\"a\": 1}>", 0},
    {DS, "<｜tool▁calls▁begin｜> nothing", "<｜tool▁calls▁begin｜> nothing", 0},
    /* Any other: objects as they are, and tags. */
    {"", "{\"name\": \"f\", \"arguments\": {\"a\": 1.5e3}}", "<f|{\"a\": 1.5e3}>", 0},
    {"", "Sure. <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "Sure.<f|{}>", 0},
    {"", "{ }", "{ }", 0},
    {"", "{\"name\": \"f\", \"arguments\": [1]}", "{\"name\": \"f\", \"arguments\": [1]}", 0},
};

static void test_ones(const json_t *tools)
{
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) {
        const struct one *o = &ones[i];
        struct dialect d = dialect_find(o->template, strlen(o->template));
        size_t len = strlen(o->text), bad = 0;
        char *got = read_in_pieces(&d, tools, o->thinking, o->text, 0, 0, 0);

        is_str(got, o->want, "%zu, %s", i, d.calls->name);
        for (size_t a = 0; a <= len; a++) {
            char *other = a == 0 ? read_in_pieces(&d, tools, o->thinking, o->text, 0, 0, 1)
                                 : read_in_pieces(&d, tools, o->thinking, o->text, a, (a * 7) % len, 0);
            bad += !other || strcmp(got, other) != 0;
            free(other);
        }
        if (bad)
            ok(false, "%zu: cut anywhere it is the same (%zu cuts are not)", i, bad);
        free(got);
    }
    ok(true, "each cut at every byte");
}

static void test_without(void)
{
    struct dialect d = dialect_find(QWEN3, strlen(QWEN3));
    const char *text = "<think>x</think> <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    char *got = read_in_pieces(&d, NULL, false, text, 0, 0, 1);

    is_str(got, "T(x)<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "without tools calls are content");
    free(got);
    d = dialect_find("<tool_call>", 11);
    got = read_in_pieces(&d, NULL, false, text, 0, 0, 1);
    is_str(got, text, "a model that does not think has no thoughts");
    free(got);
    d = dialect_find(QWEN3, strlen(QWEN3));
    ok(dialect_is_thinking(&d, "x<think>\n", 9) && !dialect_is_thinking(&d, "<think>\n\n</think>\n\n", 19) && !dialect_is_thinking(&d, "", 0),
       "whether a prompt opened the thoughts");
}

static void test_bounds(const json_t *tools)
{
    struct dialect d = dialect_find("<tool_call>", 11);
    struct strbuf text;
    char *got;

    strbuf_init(&text, 8 << 20);
    strbuf_puts(&text, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"");
    for (int i = 0; i < (2 << 20); i++)
        strbuf_putc(&text, 'x');
    strbuf_puts(&text, "\"}}</tool_call>");
    got = read_in_pieces(&d, tools, false, text.data, 0, 0, 1000);
    ok(got && strstr(got, "!<tool_call>"), "a call of two megabytes is content");
    free(got);
    strbuf_clear(&text);
    strbuf_puts(&text, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":");
    for (int i = 0; i < 500; i++)
        strbuf_putc(&text, '[');
    got = read_in_pieces(&d, tools, false, text.data, 0, 0, 7);
    ok(got && strstr(got, "!<tool_call>"), "so is one too deep");
    free(got);
    strbuf_fini(&text);
}

int main(void)
{
    json_t *tools = json_loads(tools_text, 0, NULL);

    test_ones(tools);
    test_without();
    test_bounds(tools);
    json_decref(tools);
    return tap_done();
}
