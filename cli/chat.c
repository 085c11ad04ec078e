/* See chat.h. */
#include "cli/chat_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

enum { ANSWER_ROOM = 256, PROMPT_BAR_TOKENS = 128 };

/* A model without a template goes on with the user's part as well: there we stop it. */
static const char plain_stop[] = "\nUser:";

int chat_open(struct chat *c, const struct model_options *options, const char *system, struct err *err)
{
    *c = (struct chat){.messages = json_array()};
    strbuf_init(&c->answer, CHAT_ANSWER_MAX_BYTES);
    if (!c->messages)
        return err_set(err, ERR_MEMORY, "chat: out of memory");
    if (local_open(&c->local, options, err) != 0 || !(c->template = local_template(&c->local, &c->fallback, err)))
        return -1;
    if (system && chat_set_system(c, system, err) != 0)
        return -1;
    return local_load(&c->local, 1, 0, err);
}

void chat_close(struct chat *c)
{
    template_destroy(c->template);
    json_decref(c->messages);
    free(c->system);
    token_list_fini(&c->cached);
    strbuf_fini(&c->answer);
    local_close(&c->local);
}

/* --- messages ------------------------------------------------------------ */

static int add_message(struct chat *c, const char *role, const char *text, size_t len, struct err *err)
{
    json_t *message = json_object(), *content = json_stringn(text, len);

    if (!content) {
        json_decref(message);
        return err_set(err, ERR_INPUT, "the text is not UTF-8");
    }
    if (json_object_set_new(message, "role", json_string(role)) != 0 || json_object_set_new(message, "content", content) != 0 ||
        json_array_append_new(c->messages, message) != 0)
        return err_set(err, ERR_MEMORY, "chat: out of memory");
    return 0;
}

static const char *last_role(const struct chat *c)
{
    const json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    return role ? role : "";
}

static void drop_last(struct chat *c)
{
    json_array_remove(c->messages, json_array_size(c->messages) - 1);
}

bool chat_undo(struct chat *c)
{
    if (json_array_size(c->messages) == 0)
        return false;
    if (strcmp(last_role(c), "assistant") == 0)
        drop_last(c);
    if (strcmp(last_role(c), "user") == 0)
        drop_last(c);
    return true;
}

void chat_new(struct chat *c)
{
    json_array_clear(c->messages);
}

int chat_set_system(struct chat *c, const char *text, struct err *err)
{
    json_t *check = json_string(text);
    char *copy = check && *text ? strdup(text) : NULL;

    json_decref(check);
    if (!check)
        return err_set(err, ERR_INPUT, "the system message is not UTF-8");
    if (*text && !copy)
        return err_set(err, ERR_MEMORY, "chat: out of memory");
    free(c->system);
    c->system = copy;
    return 0;
}

/* The conversation as the template takes it: the system message, then the messages from `first` on. */
json_t *chat_with_system(const struct chat *c, size_t first)
{
    json_t *all = json_array(), *message;
    size_t i;

    if (c->system)
        json_array_append_new(all, json_pack("{s:s, s:s}", "role", "system", "content", c->system));
    json_array_foreach(c->messages, i, message) {
        if (i >= first)
            json_array_append(all, message);
    }
    return all;
}

int chat_save(const struct chat *c, const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;
    json_t *all = chat_with_system(c, 0);

    if (fd < 0) {
        json_decref(all);
        return err_errno(err, errno, "%s", path);
    }
    rc = json_dumpfd(all, fd, JSON_INDENT(1));
    rc |= write(fd, "\n", 1) != 1;
    rc |= close(fd);
    json_decref(all);
    return rc == 0 ? 0 : err_errno(err, errno, "%s", path);
}

/* --- context ------------------------------------------------------------- */

static int render(struct chat *c, size_t first, struct token_list *tokens, struct err *err)
{
    json_t *messages = chat_with_system(c, first);
    int rc;

    tokens->len = 0;
    rc = local_chat_tokens(&c->local, c->template, messages, tokens, err);
    json_decref(messages);
    return rc;
}

/* The tokens of the conversation, with its oldest turns left out where they would leave no room for an answer. */
static int render_fitting(struct chat *c, int64_t n, struct token_list *tokens, struct err *err)
{
    uint32_t ctx = c->local.ctx, room = ctx / 4 < ANSWER_ROOM ? ctx / 4 : ANSWER_ROOM;
    size_t first = 0, last = json_array_size(c->messages) - 1, before;

    if (n >= 0 && n < room)
        room = (uint32_t)n;
    if (render(c, 0, tokens, err) != 0)
        return -1;
    before = tokens->len;
    while (tokens->len + room > ctx && first + 2 <= last) {
        first += 2; /* a question and its answer */
        if (render(c, first, tokens, err) != 0)
            return -1;
    }
    if (tokens->len > ctx)
        return err_set(err, ERR_LIMIT, "this message makes %zu tokens, the context has %u positions; shorten it, or start with a larger --ctx",
                       tokens->len, ctx);
    if (first == 0)
        return 0;
    for (size_t i = 0; i < first; i++)
        json_array_remove(c->messages, 0);
    ui_say_in(UI_DIM, "(the conversation's %zu tokens leave no room in the context of %u: its oldest %zu turn%s forgotten, %zu tokens remain)", before,
              ctx, first / 2, first == 2 ? " is" : "s are", tokens->len);
    return 0;
}

/* --- answering ----------------------------------------------------------- */

/* How much of the answer may be shown: without a template, not what may turn out to be the user's part. */
static size_t showable(const struct chat *c, bool *ret_stop)
{
    size_t stop_len = sizeof plain_stop - 1, len = c->answer.len;
    const char *text = strbuf_str(&c->answer), *found;

    *ret_stop = false;
    if (!c->fallback)
        return len;
    found = strstr(text, plain_stop);
    if (found) {
        *ret_stop = true;
        return (size_t)(found - text);
    }
    for (size_t n = stop_len < len ? stop_len : len; n > 0; n--)
        if (memcmp(text + len - n, plain_stop, n) == 0)
            return len - n;
    return len;
}

int chat_show(struct chat *c, struct err *err)
{
    bool stop;
    size_t len = showable(c, &stop);

    if (strbuf_check(&c->answer, "the answer", err) != 0)
        return -1;
    if (len > c->shown) {
        ui_foreign(c->answer.data + c->shown, len - c->shown);
        c->shown = len;
        if (ui_flush(err) != 0)
            return -1;
    }
    return stop;
}

void chat_add_text(struct chat *c, const char *piece, size_t len)
{
    while (c->answer.len == 0 && len > 0 && (*piece == ' ' || *piece == '\n')) { /* templates end in a space, answers begin with one */
        piece++;
        len--;
    }
    strbuf_add(&c->answer, piece, len);
}

static int on_token(void *arg, size_t i, int32_t token, struct err *err)
{
    struct chat *c = arg;
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING] = "";

    (void)i;
    ui_progress_end(&c->bar);
    chat_add_text(c, piece, detokenizer_next(&c->text, token, piece, sizeof piece));
    return chat_show(c, err);
}

static void on_prompt(void *arg, uint64_t done, uint64_t total)
{
    struct chat *c = arg;

    if (total >= PROMPT_BAR_TOKENS && done < total)
        ui_progress(&c->bar, done, total);
}

/* What of the new prompt the KV holds already. At least one token is computed: its logits choose the next one. */
static uint32_t common_prefix(const struct chat *c, const struct token_list *tokens)
{
    size_t n = 0;
    while (n < c->cached.len && n + 1 < tokens->len && c->cached.ids[n] == tokens->ids[n])
        n++;
    return (uint32_t)n;
}

/* Remembers which tokens the KV holds after a turn (or a failed one). */
static int remember_cached(struct chat *c, const struct gen_case *g, struct err *err)
{
    size_t n = c->local.session ? session_length(c->local.session, 0) : 0; /* a pipeline finds prefixes itself */

    n = n < g->tokens.len ? n : g->tokens.len;
    c->cached.len = 0;
    if (mem_grow(&c->cached.ids, &c->cached.cap, n, sizeof *c->cached.ids, SIZE_MAX / 8, "tokens", err) != 0)
        return -1;
    if (n)
        memcpy(c->cached.ids, g->tokens.ids, n * sizeof *c->cached.ids);
    c->cached.len = n;
    return 0;
}

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
    char text[200];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ui_say_in(UI_DIM, "(%s)", text);
}

static void end_line(struct chat *c, enum gen_end end, uint64_t n_new)
{
    ui_out("\n", 1);
    fflush(stdout);
    if (end == GEN_CANCELLED)
        note("stopped");
    else if (end == GEN_CONTEXT)
        note("the context of %u positions is full: the answer ends here", c->local.ctx);
    else if (end == GEN_LENGTH)
        note("cut after %llu tokens; /set count changes that", (unsigned long long)n_new);
}

static void add_stats(struct chat *c)
{
    c->total.prompt_tokens += c->last.prompt_tokens;
    c->total.prompt_seconds += c->last.prompt_seconds;
    c->total.new_tokens += c->last.new_tokens;
    c->total.new_seconds += c->last.new_seconds;
    c->total.timed_tokens += c->last.timed_tokens;
}

/* What stands in c->answer becomes a message. A question without an answer would confuse templates: it is forgotten. */
static int keep_answer(struct chat *c, enum gen_end end, uint64_t n_new, struct err *err)
{
    bool stop;
    size_t len = showable(c, &stop);

    if (end == GEN_CANCELLED && c->answer.len == 0) {
        drop_last(c);
        note("stopped before it began: the question is forgotten");
        return 0;
    }
    add_stats(c);
    len = stop ? len : c->answer.len; /* what was held back is not the user's part after all */
    if (len > c->shown)
        ui_foreign(c->answer.data + c->shown, len - c->shown);
    end_line(c, end, n_new);
    return add_message(c, "assistant", strbuf_str(&c->answer), len, err);
}

/* By the model in this process, or on our own pipeline. */
static int answer_here(struct chat *c, const struct sample_params *params, int64_t n, struct err *err)
{
    struct gen_case g = {0};
    struct gen_options options = {.params = params, .keep = true, .on_token = on_token, .on_prompt = on_prompt, .arg = c};
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING] = "";
    int rc = render_fitting(c, n, &g.tokens, err);

    if (rc != 0)
        goto done;
    g.n_prompt = g.tokens.len;
    g.n_new = c->local.ctx - g.n_prompt + 1;
    if (n >= 0 && (uint64_t)n < g.n_new)
        g.n_new = (uint64_t)n;
    g.n_cached = common_prefix(c, &g.tokens);
    c->reused = g.n_cached;
    strbuf_clear(&c->answer);
    c->shown = 0;
    detokenizer_init(&c->text, c->local.tokenizer, false);
    ui_progress_begin(&c->bar, "reading", false);
    rc = generate(&c->local, &options, &g, 1, &c->last, err);
    ui_progress_end(&c->bar);
    if (remember_cached(c, &g, rc == 0 ? err : NULL) != 0)
        rc = -1;
    if (rc != 0)
        goto done;
    chat_add_text(c, piece, detokenizer_end(&c->text, piece, sizeof piece));
    rc = keep_answer(c, g.end == GEN_LENGTH && g.tokens.len > c->local.ctx ? GEN_CONTEXT : g.end, g.n_new, err);
done:
    gen_case_fini(&g);
    return rc;
}

/* Answers the conversation, whose last message is the user's. */
static int answer(struct chat *c, const struct sample_params *params, int64_t n, struct err *err)
{
    char finish[CHAT_FINISH_BYTES];
    enum gen_end end = GEN_STOP;

    if (!c->server.url[0])
        return answer_here(c, params, n, err);
    if (chat_answer_remote(c, params, n, finish, err) != 0)
        return -1;
    if (strcmp(finish, "cancelled") == 0)
        end = GEN_CANCELLED;
    else if (strcmp(finish, "length") == 0)
        end = n >= 0 && c->last.new_tokens >= (uint64_t)n ? GEN_LENGTH : GEN_CONTEXT;
    return keep_answer(c, end, c->last.new_tokens, err);
}

int chat_ask(struct chat *c, const char *text, size_t len, const struct sample_params *params, int64_t n, struct err *err)
{
    c->retries = 0;
    if (add_message(c, "user", text, len, err) != 0)
        return -1;
    if (answer(c, params, n, err) == 0)
        return 0;
    if (strcmp(last_role(c), "user") == 0)
        drop_last(c);
    return -1;
}

int chat_retry(struct chat *c, const struct sample_params *params, int64_t n, struct err *err)
{
    struct sample_params other = *params;

    if (json_array_size(c->messages) == 0)
        return err_set(err, ERR_USAGE, "nothing was asked yet");
    if (strcmp(last_role(c), "assistant") == 0)
        drop_last(c);
    other.seed += ++c->retries;
    return answer(c, &other, n, err);
}
