/* text/dialect: what a model says, in any dialect. The first byte chooses the dialect, the second whether tools were offered
 * and thoughts are open and where the text is cut; whole and in pieces the same must be told, arguments of calls that stand
 * must be JSON, and what is no call must lose nothing but white space and marks. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "text/dialect.h"

static const char *const templates[] = {"<|channel|><|message|>",
                                        "<｜tool▁calls▁begin｜><think>",
                                        "<|START_ACTION|><|START_THINKING|>",
                                        "[TOOL_CALLS]",
                                        "<|tool_call|><response></response>",
                                        "<tool_call><think>",
                                        "<|python_tag|>",
                                        ""};
static const char tools_text[] = "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"type\":\"string\"}}}}}]";

static void must(int cond)
{
    if (!cond)
        abort();
}

struct heard {
    struct strbuf all, arguments;
    enum dialect_part last;
    bool in_call;
};

static void hear(void *arg, enum dialect_part part, const char *s, size_t len)
{
    struct heard *h = arg;
    bool again = part == h->last && (part == DIALECT_CONTENT || part == DIALECT_THOUGHT || part == DIALECT_ARGUMENTS);

    if (!again)
        strbuf_putc(&h->all, (char)('0' + (int)part));
    strbuf_add(&h->all, s, len);
    h->last = part;
    if (part == DIALECT_CALL) {
        must(!h->in_call && len > 0 && len < DIALECT_NAME_BYTES);
        h->in_call = true;
        strbuf_clear(&h->arguments);
    } else if (part == DIALECT_ARGUMENTS) {
        must(h->in_call);
        strbuf_add(&h->arguments, s, len);
    } else if (part == DIALECT_DONE || part == DIALECT_BROKEN) {
        must(h->in_call);
        h->in_call = false;
        if (part == DIALECT_DONE && !memchr(h->arguments.data, 0, h->arguments.len)) {
            json_error_t error;
            json_t *o = json_loadb(h->arguments.data, h->arguments.len, JSON_ALLOW_NUL, &error);
            /* jansson knows more: UTF-8, surrogates, the size of numbers, two keys alike. */
            must(o ? json_is_object(o) : json_error_code(&error) != json_error_premature_end_of_input);
            json_decref(o);
        }
    } else {
        must(!h->in_call);
    }
}

static void read_text(struct heard *h, const struct dialect *d, const json_t *tools, unsigned how, const char *s, size_t len, size_t piece)
{
    struct dialect_reader r;
    struct err err;

    *h = (struct heard){.last = DIALECT_DONE};
    strbuf_init(&h->all, 64 << 20);
    strbuf_init(&h->arguments, 64 << 20);
    strbuf_add(&h->arguments, "", 0);
    dialect_reader_init(&r, d, tools, (how & 2) == 0, (how & 4) != 0, hear, h);
    for (size_t at = 0; at < len; at += piece)
        must(dialect_read(&r, s + at, len - at < piece ? len - at : piece, &err) == 0);
    must(dialect_end(&r, &err) == 0 && !h->in_call);
    dialect_reader_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *template = templates[data[0] % (sizeof templates / sizeof *templates)];
    struct dialect d = dialect_find(template, strlen(template));
    json_t *tools = data[1] & 1 ? NULL : json_loads(tools_text, 0, NULL);
    struct heard whole, pieces;

    read_text(&whole, &d, tools, data[1], (const char *)data + 2, size - 2, size);
    read_text(&pieces, &d, tools, data[1], (const char *)data + 2, size - 2, 1 + data[1] / 8);
    must(whole.all.len == pieces.all.len && (!whole.all.len || memcmp(whole.all.data, pieces.all.data, whole.all.len) == 0));
    strbuf_fini(&whole.all);
    strbuf_fini(&whole.arguments);
    strbuf_fini(&pieces.all);
    strbuf_fini(&pieces.arguments);
    json_decref(tools);
    return 0;
}
