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

static void put_completion_logprobs(struct strbuf *out, const struct reply_head *head, const struct answer *a, size_t n)
{
    strbuf_puts(out, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++) {
        strbuf_puts(out, i ? "," : "");
        put_token(out, head, a->tokens[i].id);
    }
    strbuf_puts(out, "],\"token_logprobs\":[");
    for (size_t i = 0; i < n; i++) {
        strbuf_puts(out, i ? "," : "");
        put_logprob(out, a->tokens[i].logprob);
    }
    strbuf_puts(out, "],\"top_logprobs\":");
    strbuf_puts(out, a->top ? "[" : "null");
    for (size_t i = 0; a->top && i < n; i++) {
        strbuf_puts(out, i ? ",{" : "{");
        for (size_t k = 0; k < a->top && a->top_ids[i * a->top + k] >= 0; k++) {
            strbuf_puts(out, k ? "," : "");
            put_token(out, head, a->top_ids[i * a->top + k]);
            strbuf_putc(out, ':');
            put_logprob(out, a->top_logprobs[i * a->top + k]);
        }
        strbuf_putc(out, '}');
    }
    strbuf_puts(out, a->top ? "],\"text_offset\":[" : ",\"text_offset\":[");
    for (size_t i = 0; i < n; i++)
        strbuf_printf(out, i ? ",%zu" : "%zu", a->tokens[i].begin_chars);
    strbuf_puts(out, "]}");
}

static void put_logprobs(struct strbuf *out, const struct reply_head *head, const struct answer *a, size_t n)
{
    strbuf_puts(out, ",\"logprobs\":");
    if (!a->logprobs || n == 0)
        strbuf_puts(out, "null");
    else
        (head->request->is_chat ? put_chat_logprobs : put_completion_logprobs)(out, head, a, n);
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
                  "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
                  (unsigned long long)u->prompt, (unsigned long long)u->completion, (unsigned long long)(u->prompt + u->completion),
                  (unsigned long long)u->cached);
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
        strbuf_puts(out, chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
        put_text(out, c);
        strbuf_puts(out, chat ? ",\"refusal\":null}" : "");
        put_logprobs(out, head, c->answer, c->answer->n_tokens);
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

static void put_delta(struct strbuf *out, const struct reply_head *head, const struct reply_choice *c, const char *text, size_t len,
                      size_t n_tokens, const char *finish)
{
    begin_chunk(out, head);
    strbuf_printf(out, "{\"index\":%u,", c->index);
    if (!head->request->is_chat) {
        strbuf_puts(out, "\"text\":");
        strbuf_json(out, text, len);
    } else if (len || n_tokens) {
        strbuf_puts(out, "\"delta\":{\"content\":");
        strbuf_json(out, text, len);
        strbuf_putc(out, '}');
    } else {
        strbuf_puts(out, "\"delta\":{}");
    }
    put_logprobs(out, head, c->answer, n_tokens);
    put_finish(out, finish);
    end_chunk(out, head);
}

void reply_chunk(struct strbuf *out, const struct reply_head *head, struct reply_choice *c)
{
    struct answer *a = c->answer;
    size_t n_tokens = answer_sure_tokens(a);

    if (!c->begun && head->request->is_chat)
        put_role(out, head, c);
    if (!c->begun && c->echo)
        put_delta(out, head, c, c->echo, c->echo_len, 0, NULL);
    c->begun = true;
    /* Clients of chats expect the last chunk to bring no text. */
    if (a->sure > 0 || n_tokens > 0)
        put_delta(out, head, c, strbuf_str(&a->text), a->sure, n_tokens, head->request->is_chat ? NULL : c->finish);
    if (c->finish && (head->request->is_chat || (a->sure == 0 && n_tokens == 0)))
        put_delta(out, head, c, "", 0, 0, c->finish);
    answer_take(a, n_tokens);
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
