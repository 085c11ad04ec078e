/* See reply.h. JSON is written as it goes: a chunk per token is too much for building trees first. */
#include "front/reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- log-probabilities --------------------------------------------------- */

/* JSON has no infinities; OpenAI writes this for "never". */
#define LOGPROB_MIN (-9999.0)

static void put_logprob(struct strbuf *out, float x)
{
    if (isnan(x))
        strbuf_puts(out, "null");
    else
        strbuf_printf(out, "%.9g", isfinite(x) ? (double)x : LOGPROB_MIN);
}

static size_t piece_of(const struct reply_head *head, int32_t id, char *buf, size_t size)
{
    size_t n = tokenizer_piece(head->tokenizer, id, true, buf, size);
    return n < size ? n : size;
}

static void put_token(struct strbuf *out, const struct reply_head *head, int32_t id)
{
    char piece[TOKEN_MAX_BYTES];
    strbuf_json(out, piece, piece_of(head, id, piece, sizeof piece));
}

/* {"token", "logprob", "bytes"}, left open. */
static void put_chat_token(struct strbuf *out, const struct reply_head *head, int32_t id, float logprob)
{
    char piece[TOKEN_MAX_BYTES];
    size_t n = piece_of(head, id, piece, sizeof piece);

    strbuf_puts(out, "{\"token\":");
    strbuf_json(out, piece, n);
    strbuf_puts(out, ",\"logprob\":");
    put_logprob(out, logprob);
    strbuf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++)
        strbuf_printf(out, i ? ",%u" : "%u", (unsigned char)piece[i]);
    strbuf_putc(out, ']');
}

static void put_chat_logprobs(struct strbuf *out, const struct reply_head *head, const struct answer *a, size_t n)
{
    strbuf_puts(out, "{\"content\":[");
    for (size_t i = 0; i < n; i++) {
        strbuf_puts(out, i ? "," : "");
        put_chat_token(out, head, a->tokens[i].id, a->tokens[i].logprob);
        strbuf_puts(out, ",\"top_logprobs\":[");
        for (size_t k = 0; k < a->top && a->top_ids[i * a->top + k] >= 0; k++) {
            strbuf_puts(out, k ? "," : "");
            put_chat_token(out, head, a->top_ids[i * a->top + k], a->top_logprobs[i * a->top + k]);
            strbuf_putc(out, '}');
        }
        strbuf_puts(out, "]}");
    }
    strbuf_puts(out, "],\"refusal\":null}");
}

static void put_top(struct strbuf *out, const struct reply_head *head, const struct answer *a, size_t i)
{
    if (isnan(a->tokens[i].logprob)) {
        strbuf_puts(out, "null");
        return;
    }
    strbuf_putc(out, '{');
    for (size_t k = 0; k < a->top && a->top_ids[i * a->top + k] >= 0; k++) {
        strbuf_puts(out, k ? "," : "");
        put_token(out, head, a->top_ids[i * a->top + k]);
        strbuf_putc(out, ':');
        put_logprob(out, a->top_logprobs[i * a->top + k]);
    }
    strbuf_putc(out, '}');
}

/* Tokens of an echo, then of the answer: either may be missing. */
struct token_span {
    const struct answer *a;
    size_t n, chars_before;
};

enum completion_field { FIELD_TOKENS, FIELD_LOGPROBS, FIELD_TOP, FIELD_OFFSETS };

static void put_field(struct strbuf *out, const struct reply_head *head, const struct token_span *spans, enum completion_field field)
{
    bool first = true;

    strbuf_putc(out, '[');
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; i < spans[s].n; i++, first = false) {
            const struct answer *a = spans[s].a;
            strbuf_puts(out, first ? "" : ",");
            if (field == FIELD_TOKENS)
                put_token(out, head, a->tokens[i].id);
            else if (field == FIELD_LOGPROBS)
                put_logprob(out, a->tokens[i].logprob);
            else if (field == FIELD_TOP)
                put_top(out, head, a, i);
            else
                strbuf_printf(out, "%zu", spans[s].chars_before + a->tokens[i].begin_chars);
        }
    strbuf_putc(out, ']');
}

static void put_completion_logprobs(struct strbuf *out, const struct reply_head *head, const struct token_span *spans, bool top)
{
    strbuf_puts(out, "{\"tokens\":");
    put_field(out, head, spans, FIELD_TOKENS);
    strbuf_puts(out, ",\"token_logprobs\":");
    put_field(out, head, spans, FIELD_LOGPROBS);
    strbuf_puts(out, ",\"top_logprobs\":");
    if (top)
        put_field(out, head, spans, FIELD_TOP);
    else
        strbuf_puts(out, "null");
    strbuf_puts(out, ",\"text_offset\":");
    put_field(out, head, spans, FIELD_OFFSETS);
    strbuf_putc(out, '}');
}

/* n_echo, n: of the echo's and the answer's tokens. */
static void put_logprobs(struct strbuf *out, const struct reply_head *head, const struct reply_choice *c, size_t n_echo, size_t n)
{
    const struct answer *a = c->answer;
    struct token_span spans[2] = {{c->echo_tokens, n_echo, 0}, {a, n, c->echo_tokens ? c->echo_tokens->chars : 0}};

    strbuf_puts(out, ",\"logprobs\":");
    if (!a->logprobs || n_echo + n == 0)
        strbuf_puts(out, "null");
    else if (head->request->is_chat)
        put_chat_logprobs(out, head, a, n);
    else
        put_completion_logprobs(out, head, spans, a->top > 0);
}

/* --- pieces -------------------------------------------------------------- */

static void put_head(struct strbuf *out, const struct reply_head *head, const char *object)
{
    strbuf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", head->id, object, (long long)head->created);
    strbuf_json(out, head->model, strlen(head->model));
    strbuf_puts(out, ",\"system_fingerprint\":null,\"choices\":[");
}

static void put_usage(struct strbuf *out, const struct reply_usage *u)
{
    strbuf_printf(out,
                  ",\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":%llu},\"completion_tokens_details\":{\"reasoning_tokens\":%llu}}",
                  (unsigned long long)u->prompt, (unsigned long long)u->completion, (unsigned long long)(u->prompt + u->completion),
                  (unsigned long long)u->cached, (unsigned long long)u->thoughts);
}

static void put_finish(struct strbuf *out, const char *finish)
{
    if (finish)
        strbuf_printf(out, ",\"finish_reason\":\"%s\"}", finish);
    else
        strbuf_puts(out, ",\"finish_reason\":null}");
}

/* --- whole answers ------------------------------------------------------- */

/* Echo and answer as one JSON string. */
static void put_text(struct strbuf *out, const struct reply_choice *c)
{
    struct strbuf both;

    if (!c->echo) {
        strbuf_json(out, strbuf_str(&c->answer->text), c->answer->sure);
        return;
    }
    strbuf_init(&both, ANSWER_MAX_BYTES);
    strbuf_add(&both, c->echo, c->echo_len);
    strbuf_add(&both, strbuf_str(&c->answer->text), c->answer->sure);
    out->failed |= both.failed;
    strbuf_json(out, strbuf_str(&both), both.len);
    strbuf_fini(&both);
}

void reply_whole(struct strbuf *out, const struct reply_head *head, struct reply_choice *choices, size_t n, const struct reply_usage *usage)
{
    bool chat = head->request->is_chat;

    put_head(out, head, chat ? "chat.completion" : "text_completion");
    for (size_t i = 0; i < n; i++) {
        const struct reply_choice *c = &choices[i];
        strbuf_printf(out, "%s{\"index\":%u,", i ? "," : "", c->index);
        if (chat) {
            strbuf_puts(out, "\"message\":{\"role\":\"assistant\",");
            message_write(c->message, out);
            strbuf_putc(out, '}');
        } else {
            strbuf_puts(out, "\"text\":");
            put_text(out, c);
        }
        put_logprobs(out, head, c, c->echo_tokens ? c->echo_tokens->n_tokens : 0, c->answer->n_tokens);
        put_finish(out, c->finish);
    }
    strbuf_putc(out, ']');
    put_usage(out, usage);
    strbuf_putc(out, '}');
}

/* --- streams ------------------------------------------------------------- */

static void begin_chunk(struct strbuf *out, const struct reply_head *head)
{
    strbuf_puts(out, "data: ");
    put_head(out, head, head->request->is_chat ? "chat.completion.chunk" : "text_completion");
}

static void end_chunk(struct strbuf *out, const struct reply_head *head)
{
    strbuf_puts(out, head->request->usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

/* A chat begins with a chunk that says whose turn it is. */
static void put_role(struct strbuf *out, const struct reply_head *head, const struct reply_choice *c)
{
    begin_chunk(out, head);
    strbuf_printf(
        out, "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}",
        c->index);
    end_chunk(out, head);
}

static void put_text_chunk(struct strbuf *out, const struct reply_head *head, const struct reply_choice *c, const char *text, size_t len,
                           size_t n_echo, size_t n_tokens, const char *finish)
{
    begin_chunk(out, head);
    strbuf_printf(out, "{\"index\":%u,\"text\":", c->index);
    strbuf_json(out, text, len);
    put_logprobs(out, head, c, n_echo, n_tokens);
    put_finish(out, finish);
    end_chunk(out, head);
}

static void put_delta_chunk(struct strbuf *out, const struct reply_head *head, const struct reply_choice *c, const char *delta,
                            size_t n_tokens, const char *finish)
{
    begin_chunk(out, head);
    strbuf_printf(out, "{\"index\":%u,\"delta\":", c->index);
    strbuf_puts(out, delta);
    put_logprobs(out, head, c, 0, n_tokens);
    put_finish(out, finish);
    end_chunk(out, head);
}

static void chat_chunk(struct strbuf *out, const struct reply_head *head, struct reply_choice *c, size_t n_tokens)
{
    const char *delta;
    size_t at = 0, n = n_tokens;

    if (!c->begun)
        put_role(out, head, c);
    for (; (delta = message_delta(c->message, &at)); n = 0) /* log-probabilities go with the first */
        put_delta_chunk(out, head, c, delta, n, NULL);
    if (n > 0)
        put_delta_chunk(out, head, c, "{}", n, NULL);
    message_told(c->message);
    /* Clients expect the last chunk to bring nothing else. */
    if (c->finish)
        put_delta_chunk(out, head, c, "{}", 0, c->finish);
}

static void completion_chunk(struct strbuf *out, const struct reply_head *head, struct reply_choice *c, size_t n_tokens)
{
    const struct answer *a = c->answer;

    if (!c->begun && c->echo)
        put_text_chunk(out, head, c, c->echo, c->echo_len, c->echo_tokens ? c->echo_tokens->n_tokens : 0, 0, NULL);
    if (a->sure > 0 || n_tokens > 0 || c->finish)
        put_text_chunk(out, head, c, strbuf_str(&a->text), a->sure, 0, n_tokens, c->finish);
}

void reply_chunk(struct strbuf *out, const struct reply_head *head, struct reply_choice *c)
{
    size_t n_tokens = answer_sure_tokens(c->answer);

    (head->request->is_chat ? chat_chunk : completion_chunk)(out, head, c, n_tokens);
    c->begun = true;
    answer_take(c->answer, n_tokens);
}

void reply_done(struct strbuf *out, const struct reply_head *head, const struct reply_usage *usage)
{
    if (head->request->usage) {
        begin_chunk(out, head);
        strbuf_putc(out, ']');
        put_usage(out, usage);
        strbuf_puts(out, "}\n\n");
    }
    strbuf_puts(out, "data: [DONE]\n\n");
}

void reply_error(struct strbuf *out, const struct api_error *e)
{
    strbuf_puts(out, "data: ");
    api_error_json(e, out);
    strbuf_puts(out, "\n\n");
}

void reply_comment(struct strbuf *out, const char *text)
{
    strbuf_puts(out, ": ");
    for (; *text; text++) /* a line break would end the comment */
        strbuf_putc(out, (unsigned char)*text < 0x20 ? ' ' : *text);
    strbuf_puts(out, "\n\n");
}
