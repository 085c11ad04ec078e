/* See message.h. */
#include "front/message.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"
#include "front/answer.h"

/* As OpenAI's look; models of Mistral's take ids of nine letters and digits only. */
static void make_id(char *id, bool is_short)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char random[24];
    size_t n = is_short ? 9 : sizeof random;

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memset(random, 0, sizeof random);
    if (!is_short) {
        memcpy(id, "call_", 5);
        id += 5;
    }
    for (size_t i = 0; i < n; i++)
        id[i] = letters[random[i] % (sizeof letters - 1)];
    id[n] = '\0';
}

/* --- what the reader tells ------------------------------------------------ */

static void begin_delta(struct message *m, const char *field)
{
    if (m->deltas.len > 0)
        strbuf_putc(&m->deltas, '\0');
    strbuf_printf(&m->deltas, "{\"%s\":", field);
}

static void text_delta(struct message *m, const char *field, const char *s, size_t len)
{
    begin_delta(m, field);
    strbuf_json(&m->deltas, s, len);
    strbuf_putc(&m->deltas, '}');
}

static void begin_call(struct message *m, const char *name, size_t len)
{
    struct message_call *c;

    if (mem_grow(&m->calls, &m->cap_calls, m->n_calls + 1, sizeof *m->calls, MESSAGE_MAX_CALLS, "calls of tools", NULL) != 0) {
        m->full = true; /* so many are enough */
        return;
    }
    c = &m->calls[m->n_calls++];
    make_id(c->id, m->reader.dialect.calls->short_ids);
    strbuf_init(&c->name, DIALECT_NAME_BYTES);
    strbuf_init(&c->arguments, ANSWER_MAX_BYTES);
    strbuf_add(&c->name, name, len);
    strbuf_add(&c->arguments, "", 0);
    if (!m->stream)
        return;
    begin_delta(m, "tool_calls");
    strbuf_printf(&m->deltas, "[{\"index\":%zu,\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", m->n_calls - 1, c->id);
    strbuf_json(&m->deltas, name, len);
    strbuf_puts(&m->deltas, ",\"arguments\":\"\"}}]}");
}

static void add_arguments(struct message *m, const char *s, size_t len)
{
    if (!m->stream) {
        strbuf_add(&m->calls[m->n_calls - 1].arguments, s, len);
        return;
    }
    begin_delta(m, "tool_calls");
    strbuf_printf(&m->deltas, "[{\"index\":%zu,\"function\":{\"arguments\":", m->n_calls - 1);
    strbuf_json(&m->deltas, s, len);
    strbuf_puts(&m->deltas, "}}]}");
}

static void call_fini(struct message_call *c)
{
    strbuf_fini(&c->name);
    strbuf_fini(&c->arguments);
}

static void hear(void *arg, enum dialect_part part, const char *s, size_t len)
{
    struct message *m = arg;

    if (m->full)
        return;
    switch (part) {
    case DIALECT_CONTENT:
    case DIALECT_THOUGHT:
        if (m->stream)
            text_delta(m, part == DIALECT_THOUGHT ? "reasoning_content" : "content", s, len);
        else
            strbuf_add(part == DIALECT_THOUGHT ? &m->thoughts : &m->content, s, len);
        break;
    case DIALECT_CALL:
        begin_call(m, s, len);
        break;
    case DIALECT_ARGUMENTS:
        add_arguments(m, s, len);
        break;
    case DIALECT_DONE:
        m->n_done++;
        m->full = !m->parallel;
        break;
    case DIALECT_BROKEN:
        /* What a stream has told cannot be taken back; a whole answer has the call's text as content instead. */
        if (!m->stream)
            call_fini(&m->calls[--m->n_calls]);
        break;
    }
}

/* --- its life -------------------------------------------------------------- */

int message_init(struct message *m, const struct dialect *d, const struct api_chat *chat, bool thinking, bool stream, const char *given,
                 size_t given_len, struct err *err)
{
    *m = (struct message){.stream = stream, .parallel = chat->parallel && chat->choice != API_TOOLS_NAMED};
    strbuf_init(&m->content, ANSWER_MAX_BYTES);
    strbuf_init(&m->thoughts, ANSWER_MAX_BYTES);
    strbuf_init(&m->deltas, ANSWER_MAX_BYTES);
    dialect_reader_init(&m->reader, d, chat->tools, !chat->thoughts_stay, thinking && given_len == 0, hear, m);
    m->reader.eager = !m->parallel;
    return message_add(m, given, given_len, err);
}

void message_fini(struct message *m)
{
    for (size_t i = 0; i < m->n_calls; i++)
        call_fini(&m->calls[i]);
    free(m->calls);
    strbuf_fini(&m->content);
    strbuf_fini(&m->thoughts);
    strbuf_fini(&m->deltas);
    dialect_reader_fini(&m->reader);
}

static int check(const struct message *m, struct err *err)
{
    if (strbuf_check(&m->content, "the answer", err) != 0 || strbuf_check(&m->thoughts, "the answer's thoughts", err) != 0)
        return -1;
    for (size_t i = 0; i < m->n_calls; i++)
        if (strbuf_check(&m->calls[i].arguments, "a call's arguments", err) != 0)
            return -1;
    return strbuf_check(&m->deltas, "the answer", err);
}

int message_add(struct message *m, const char *s, size_t len, struct err *err)
{
    return len == 0 ? 0 : dialect_read(&m->reader, s, len, err) != 0 ? -1 : check(m, err);
}

int message_end(struct message *m, struct err *err)
{
    return dialect_end(&m->reader, err) != 0 ? -1 : check(m, err);
}

bool message_has_calls(const struct message *m)
{
    return m->n_done > 0;
}

/* --- writing ---------------------------------------------------------------- */

void message_write(const struct message *m, struct strbuf *out)
{
    strbuf_puts(out, "\"content\":");
    if (m->content.len == 0 && m->n_calls > 0)
        strbuf_puts(out, "null");
    else
        strbuf_json(out, strbuf_str(&m->content), m->content.len);
    strbuf_puts(out, ",\"refusal\":null");
    if (m->thoughts.len > 0) {
        strbuf_puts(out, ",\"reasoning_content\":");
        strbuf_json(out, m->thoughts.data, m->thoughts.len);
    }
    for (size_t i = 0; i < m->n_calls; i++) {
        strbuf_printf(out, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", i ? "," : ",\"tool_calls\":[", m->calls[i].id);
        strbuf_json(out, strbuf_str(&m->calls[i].name), m->calls[i].name.len);
        strbuf_puts(out, ",\"arguments\":");
        strbuf_json(out, strbuf_str(&m->calls[i].arguments), m->calls[i].arguments.len);
        strbuf_puts(out, "}}");
    }
    if (m->n_calls > 0)
        strbuf_putc(out, ']');
}

const char *message_delta(const struct message *m, size_t *at)
{
    const char *delta = *at < m->deltas.len ? m->deltas.data + *at : NULL;

    if (delta)
        *at += strlen(delta) + 1;
    return delta;
}

void message_told(struct message *m)
{
    strbuf_clear(&m->deltas);
}
