/* See generation.h. A reader that is slow leaves tokens where they are, in the engine's request, whose memory was taken when
 * it was submitted; here at most PUMP_BYTES wait. */
#include "front/generation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/mem.h"
#include "front/answer.h"
#include "front/reply.h"

enum { PUMP_BYTES = 16 << 10 };

struct one {
    struct engine_request *request; /* NULL: it ended */
    struct answer answer;
    struct reply_choice choice;
    uint64_t n_tokens;
    int64_t last_us; /* when the last token came */
};

struct generation {
    struct job job;
    struct engine *engine;
    struct metrics *metrics;
    struct api_request request;
    struct reply_head head;
    struct reply_usage usage;
    struct token_list *prompts; /* one each prompt */
    char **echoes;              /* texts of prompts that came as tokens */
    size_t *echo_lens;
    size_t n_prompts;
    struct one *ones;
    size_t n_ones, n_open;
    int64_t began_us;
    bool failed, paused;
    struct err err, pause;
};

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- starting ------------------------------------------------------------ */

static void make_head(struct generation *g, const char *model, const struct prompt *prompt)
{
    unsigned char random[12];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memset(random, 0, sizeof random);
    int n = snprintf(g->head.id, sizeof g->head.id, g->request.is_chat ? "chatcmpl-" : "cmpl-");
    for (size_t i = 0; i < sizeof random; i++, n += 2)
        snprintf(g->head.id + n, sizeof g->head.id - (size_t)n, "%02x", random[i]);
    g->head.created = time(NULL);
    g->head.model = model;
    g->head.tokenizer = prompt->tokenizer;
    g->head.request = &g->request;
}

static int read_prompts(struct generation *g, const struct prompt *prompt, struct api_error *e)
{
    const struct api_request *r = &g->request;
    struct err err;

    g->n_prompts = r->is_chat ? 1 : r->prompts.n;
    if (!(g->prompts = mem_new(g->n_prompts, sizeof *g->prompts, &err)) || !(g->echoes = mem_new(g->n_prompts, sizeof *g->echoes, &err)) ||
        !(g->echo_lens = mem_new(g->n_prompts, sizeof *g->echo_lens, &err)))
        return api_from_err(e, &err);
    if (r->is_chat)
        return prompt_chat(prompt, &r->chat, true, &g->prompts[0], e);
    for (size_t i = 0; i < g->n_prompts; i++)
        if (prompt_tokens(prompt, &r->prompts.items[i], "prompt", &g->prompts[i], e) != 0)
            return -1;
    return 0;
}

static int check_room(const struct generation *g, struct api_error *e)
{
    uint32_t ctx = engine_ctx(g->engine);

    for (size_t i = 0; i < g->n_prompts; i++)
        if (g->prompts[i].len > ctx) {
            api_refuse(e, g->request.is_chat ? "messages" : "prompt",
                       "the prompt has %zu tokens, the context %u positions; shorten it, or serve with a larger --ctx", g->prompts[i].len,
                       ctx);
            e->code = "context_length_exceeded";
            return -1;
        }
    for (uint32_t i = 0; i < g->request.sample.n_bias; i++)
        if ((uint32_t)g->request.bias[i].token >= engine_n_vocab(g->engine))
            return api_refuse(e, "logit_bias", "logit_bias: token %d; the vocabulary has 0 to %u", g->request.bias[i].token,
                              engine_n_vocab(g->engine) - 1);
    return 0;
}

static int make_echo(struct generation *g, size_t i, struct reply_choice *choice, struct api_error *e)
{
    const struct api_prompt *p = &g->request.prompts.items[i];
    struct err err;

    if (p->text) {
        choice->echo = p->text;
        choice->echo_len = p->len;
        return 0;
    }
    if (!g->echoes[i] && !(g->echoes[i] = prompt_text(g->head.tokenizer, p->tokens, p->n_tokens, &g->echo_lens[i], &err)))
        return api_from_err(e, &err);
    choice->echo = g->echoes[i];
    choice->echo_len = g->echo_lens[i];
    return 0;
}

/* How many tokens an answer may have: what was asked for, and what the context has room for. The last token is chosen, but
 * not computed: it may stand one beyond. */
static uint32_t answer_length(const struct generation *g, size_t n_prompt)
{
    uint64_t room = (uint64_t)engine_ctx(g->engine) - n_prompt + 1;
    return (uint32_t)(g->request.max_tokens >= 0 && (uint64_t)g->request.max_tokens < room ? (uint64_t)g->request.max_tokens : room);
}

static int start_one(struct generation *g, const struct prompt *prompt, size_t i, void (*ready)(void *arg), void *arg, struct api_error *e)
{
    const struct api_request *r = &g->request;
    size_t at = i / r->n;
    struct one *one = &g->ones[i];
    struct err err;
    struct engine_params p = {
        .tokens = g->prompts[at].ids,
        .n_tokens = (uint32_t)g->prompts[at].len,
        .n_new = answer_length(g, g->prompts[at].len),
        .sample = r->sample,
        .choice = (uint32_t)(i % r->n),
        .top = r->top,
        .ready = ready,
        .ready_arg = arg,
    };

    if (!r->ignore_eos) {
        p.n_stop = prompt->n_ends;
        memcpy(p.stop, prompt->ends, prompt->n_ends * sizeof *p.stop);
    }
    answer_init(&one->answer, g->head.tokenizer, r->stops, r->n_stops, !r->is_chat, r->logprobs, r->top);
    one->choice = (struct reply_choice){.index = (uint32_t)i, .answer = &one->answer};
    if (r->echo && make_echo(g, at, &one->choice, e) != 0)
        return -1;
    one->last_us = g->began_us;
    if (!(one->request = engine_submit(g->engine, &p, &err)))
        return api_from_err(e, &err);
    g->n_open++;
    return 0;
}

static void destroy(struct job *job);
static int pump(struct job *job, struct strbuf *out, struct api_error *e);

struct job *generation_start(struct engine *engine, const struct prompt *prompt, const char *model, struct metrics *metrics,
                             struct api_request *r, void (*ready)(void *arg), void *arg, struct api_error *e)
{
    struct err err;
    struct generation *g = mem_new(1, sizeof *g, &err);

    if (!g) {
        api_from_err(e, &err);
        api_request_fini(r);
        return NULL;
    }
    static const struct job_ops ops = {pump, destroy};

    g->job = (struct job){&ops, r->stream};
    g->engine = engine;
    g->metrics = metrics;
    g->request = *r;
    *r = (struct api_request){0};
    g->began_us = now_us();
    make_head(g, model, prompt);
    if (!g->request.seeded && getrandom(&g->request.sample.seed, sizeof g->request.sample.seed, 0) < 0)
        g->request.sample.seed = (uint64_t)g->began_us;
    if (read_prompts(g, prompt, e) != 0 || check_room(g, e) != 0)
        goto error;
    g->n_ones = g->n_prompts * g->request.n;
    if (!(g->ones = mem_new(g->n_ones, sizeof *g->ones, &err))) {
        api_from_err(e, &err);
        goto error;
    }
    for (size_t i = 0; i < g->n_ones; i++)
        if (start_one(g, prompt, i, ready, arg, e) != 0)
            goto error;
    for (size_t i = 0; i < g->n_prompts; i++)
        g->usage.prompt += g->prompts[i].len;
    metrics_add(&metrics->prompt_tokens, g->usage.prompt);
    return &g->job;
error:
    destroy(&g->job);
    return NULL;
}

static void destroy(struct job *job)
{
    struct generation *g = (struct generation *)job;

    for (size_t i = 0; g->ones && i < g->n_ones; i++) {
        engine_release(g->ones[i].request);
        answer_fini(&g->ones[i].answer);
    }
    for (size_t i = 0; i < g->n_prompts; i++) {
        if (g->prompts)
            token_list_fini(&g->prompts[i]);
        if (g->echoes)
            free(g->echoes[i]);
    }
    free(g->prompts);
    free(g->echoes);
    free(g->echo_lens);
    free(g->ones);
    api_request_fini(&g->request);
    free(g);
}

/* --- running ------------------------------------------------------------- */

/* Its request is not needed any more; the engine forgets it within a step. */
static void close_one(struct generation *g, struct one *one)
{
    engine_release(one->request);
    one->request = NULL;
    g->n_open--;
}

static int end_one(struct generation *g, struct one *one, const char *finish)
{
    one->choice.finish = finish;
    close_one(g, one);
    return answer_end(&one->answer, &g->err);
}

static int take_token(struct generation *g, struct one *one, const struct engine_event *event)
{
    int64_t now = now_us();

    metrics_observe(one->n_tokens ? &g->metrics->between_tokens : &g->metrics->first_token, now - one->last_us);
    metrics_add(&g->metrics->answer_tokens, 1);
    one->last_us = now;
    one->n_tokens++;
    g->usage.completion++;
    if (answer_add(&one->answer, event->token, event->logprob, event->top_ids, event->top_logprobs, event->n_top, &g->err) != 0)
        return -1;
    return one->answer.stopped ? end_one(g, one, "stop") : 0;
}

static void take_cached(struct generation *g, const struct one *one, uint32_t n_cached)
{
    /* Of several answers to one prompt the first counts: the others find its prompt in the cache of course. */
    if (one->choice.index % g->request.n == 0 && n_cached > g->usage.cached)
        g->usage.cached = n_cached;
}

static int take_event(struct generation *g, struct one *one, const struct engine_event *event)
{
    switch (event->kind) {
    case ENGINE_TOKEN:
        return take_token(g, one, event);
    case ENGINE_PROMPT:
        take_cached(g, one, event->n_cached);
        return 0;
    case ENGINE_HIDDEN:
        return 0;
    case ENGINE_PAUSE:
        g->paused = true;
        g->pause = event->err;
        return 0;
    case ENGINE_DONE:
        take_cached(g, one, event->n_cached);
        return end_one(g, one, event->reason == ENGINE_STOP ? "stop" : "length");
    case ENGINE_FAILED:
        g->err = event->err;
        return -1;
    }
    return 0;
}

/* The end token itself is no part of the text (nor of its log-probabilities). */
static bool is_end_token(const struct generation *g, const struct engine_event *event)
{
    return event->kind == ENGINE_TOKEN && !g->request.ignore_eos && tokenizer_is_end(g->head.tokenizer, event->token);
}

/* What came of one answer; returns -1 when the whole has failed. */
static int pump_one(struct generation *g, struct one *one, struct strbuf *out)
{
    struct engine_event event;
    bool stream = g->request.stream;

    while (one->request && (!stream || out->len < PUMP_BYTES) && engine_next(one->request, 0, &event) == 0) {
        if (is_end_token(g, &event)) {
            g->usage.completion++;
            metrics_add(&g->metrics->answer_tokens, 1);
            continue;
        }
        if (take_event(g, one, &event) != 0)
            return -1;
        if (stream && (event.kind == ENGINE_TOKEN || event.kind == ENGINE_DONE))
            reply_chunk(out, &g->head, &one->choice);
    }
    if (stream && g->paused)
        reply_comment(out, g->pause.text);
    g->paused = false;
    return 0;
}

static int finish(struct generation *g, struct strbuf *out, struct api_error *e)
{
    metrics_observe(&g->metrics->whole_request, now_us() - g->began_us);
    if (g->request.stream) {
        reply_done(out, &g->head, &g->usage);
        return 1;
    }
    struct reply_choice *choices = mem_new(g->n_ones, sizeof *choices, &g->err);
    if (!choices)
        return api_from_err(e, &g->err);
    for (size_t i = 0; i < g->n_ones; i++)
        choices[i] = g->ones[i].choice;
    reply_whole(out, &g->head, choices, g->n_ones, &g->usage);
    free(choices);
    if (strbuf_check(out, "the answer in JSON", &g->err) != 0)
        return api_from_err(e, &g->err);
    return 1;
}

static int pump(struct job *job, struct strbuf *out, struct api_error *e)
{
    struct generation *g = (struct generation *)job;

    for (size_t i = 0; i < g->n_ones && !g->failed; i++)
        g->failed = pump_one(g, &g->ones[i], out) != 0;
    if (g->failed) {
        api_from_err(e, &g->err);
        if (!g->request.stream)
            return -1;
        reply_error(out, e);
        return 1;
    }
    return g->n_open == 0 ? finish(g, out, e) : 0;
}
