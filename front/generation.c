/* See generation.h. A reader that is slow leaves tokens where they are, in the engine's request, whose memory was taken when
 * it was submitted; here at most PUMP_BYTES wait. */
#include "front/generation.h"

#include <errno.h>
#include <math.h>
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
    struct answer echo; /* the prompt's tokens, where their log-probabilities are wanted */
    bool has_echo;
    struct message message; /* of a chat */
    bool has_message;
    double logprob; /* of all its tokens: for best_of */
    struct reply_choice choice;
    uint64_t n_tokens;
    int64_t last_us; /* when the last token came */
};

struct generation {
    struct job job;
    struct generation_env env;
    struct api_request request;
    struct grammar_masks *grammar; /* what answers have to be; NULL: anything */
    struct reply_head head;
    struct reply_usage usage;
    struct token_list *prompts; /* one each prompt */
    struct prompt_begun begun;  /* of a chat */
    char **echoes;              /* texts of prompts that came as tokens */
    size_t *echo_lens;
    size_t n_prompts;
    struct one *ones;
    size_t n_ones, n_open;
    int64_t began_us;
    bool failed, paused, took_room;
    struct err err, pause;
};

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- starting ------------------------------------------------------------ */

static void make_head(struct generation *g)
{
    unsigned char random[12];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memset(random, 0, sizeof random);
    int n = snprintf(g->head.id, sizeof g->head.id, g->request.is_chat ? "chatcmpl-" : "cmpl-");
    for (size_t i = 0; i < sizeof random; i++, n += 2)
        snprintf(g->head.id + n, sizeof g->head.id - (size_t)n, "%02x", random[i]);
    g->head.created = time(NULL);
    g->head.model = g->env.model;
    g->head.tokenizer = g->env.prompt->tokenizer;
    g->head.request = &g->request;
}

static int read_prompts(struct generation *g, struct api_error *e)
{
    const struct prompt *prompt = g->env.prompt;
    const struct api_request *r = &g->request;
    struct err err;

    g->n_prompts = r->is_chat ? 1 : r->prompts.n;
    if (!(g->prompts = mem_new(g->n_prompts, sizeof *g->prompts, &err)) || !(g->echoes = mem_new(g->n_prompts, sizeof *g->echoes, &err)) ||
        !(g->echo_lens = mem_new(g->n_prompts, sizeof *g->echo_lens, &err)))
        return api_from_err(e, &err);
    if (r->is_chat)
        return prompt_chat(prompt, &g->request.chat, &g->prompts[0], &g->begun, e);
    for (size_t i = 0; i < g->n_prompts; i++) {
        const struct api_prompt *p = &r->prompts.items[i];
        if ((r->suffix ? prompt_infill(prompt, p, r->suffix, r->suffix_len, &g->prompts[i], e)
                       : prompt_tokens(prompt, p, "prompt", &g->prompts[i], e)) != 0)
            return -1;
    }
    return 0;
}

static int check_room(const struct generation *g, struct api_error *e)
{
    uint32_t ctx = engine_ctx(g->env.engine);

    for (size_t i = 0; i < g->n_prompts; i++)
        if (g->prompts[i].len > ctx) {
            api_refuse(e, g->request.is_chat ? "messages" : "prompt",
                       "the prompt has %zu tokens, the context %u positions; shorten it, or serve with a larger --ctx", g->prompts[i].len,
                       ctx);
            e->code = "context_length_exceeded";
            return -1;
        }
    for (uint32_t i = 0; i < g->request.sample.n_bias; i++)
        if ((uint32_t)g->request.bias[i].token >= engine_n_vocab(g->env.engine))
            return api_refuse(e, "logit_bias", "logit_bias: token %d; the vocabulary has 0 to %u", g->request.bias[i].token,
                              engine_n_vocab(g->env.engine) - 1);
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
    uint64_t room = (uint64_t)engine_ctx(g->env.engine) - n_prompt + 1;
    return (uint32_t)(g->request.max_tokens >= 0 && (uint64_t)g->request.max_tokens < room ? (uint64_t)g->request.max_tokens : room);
}

/* A chat's answer is read as the model's dialect has it; what stands in the prompt of it counts. */
static int start_message(struct generation *g, struct one *one, struct api_error *e)
{
    const struct prompt *prompt = g->env.prompt;
    struct err err;

    one->answer.marks = prompt->marks;
    one->answer.n_marks = prompt->n_marks;
    one->has_message = true;
    one->choice.message = &one->message;
    if (message_init(&one->message, &prompt->fit.dialect, &g->request.chat, g->begun.thinking, g->request.stream,
                     strbuf_str(&g->begun.given), g->begun.given.len, &err) != 0)
        return api_from_err(e, &err);
    return 0;
}

/* The prompt's tokens are shown as an answer's are; before the first nothing stands that could make it likely. */
static int start_echo(struct generation *g, struct one *one, size_t at, struct api_error *e)
{
    struct err err;

    answer_init(&one->echo, g->head.tokenizer, NULL, 0, false, true, g->request.top);
    one->has_echo = true;
    one->choice.echo_tokens = &one->echo;
    if (answer_add(&one->echo, g->prompts[at].ids[0], NAN, NULL, NULL, 0, &err) != 0)
        return api_from_err(e, &err);
    return 0;
}

static int start_one(struct generation *g, size_t i, struct api_error *e)
{
    const struct prompt *prompt = g->env.prompt;
    const struct api_request *r = &g->request;
    size_t at = i / r->best_of;
    struct one *one = &g->ones[i];
    struct err err;
    struct engine_params p = {
        .tokens = g->prompts[at].ids,
        .n_tokens = (uint32_t)g->prompts[at].len,
        .n_new = answer_length(g, g->prompts[at].len),
        .sample = r->sample,
        .choice = (uint32_t)(i % r->best_of),
        .top = r->top,
        .grammar = g->grammar,
        .prompt_given = r->echo && r->logprobs,
        .prompt_top = r->echo && r->logprobs && r->top > 0,
        .ready = g->env.ready,
        .ready_arg = g->env.ready_arg,
    };

    if (!r->ignore_eos) {
        p.n_stop = prompt->n_ends;
        memcpy(p.stop, prompt->ends, prompt->n_ends * sizeof *p.stop);
    }
    memcpy(p.stop + p.n_stop, r->stop_tokens, r->n_stop_tokens * sizeof *p.stop);
    p.n_stop += r->n_stop_tokens;
    answer_init(&one->answer, g->head.tokenizer, r->stops, r->n_stops, !r->is_chat || g->begun.given.len > 0, r->logprobs, r->top);
    one->choice = (struct reply_choice){.index = (uint32_t)i, .answer = &one->answer};
    if (r->is_chat && start_message(g, one, e) != 0)
        return -1;
    if (r->echo && make_echo(g, at, &one->choice, e) != 0)
        return -1;
    if (p.prompt_given && start_echo(g, one, at, e) != 0)
        return -1;
    one->last_us = g->began_us;
    if (!(one->request = engine_submit(g->env.engine, &p, &err)))
        return api_from_err(e, &err);
    g->n_open++;
    return 0;
}

/* Room for all of a request's answers, or for none. */
static int take_room(struct generation *g, struct api_error *e)
{
    uint64_t open = atomic_fetch_add(&g->env.metrics->answers_open, g->n_ones) + g->n_ones;

    if (g->env.max_answers && open > g->env.max_answers && open > g->n_ones) {
        atomic_fetch_sub(&g->env.metrics->answers_open, g->n_ones);
        return api_fail(e, 429, "rate_limit_error", "busy", "%llu answers wait or run, and %u are allowed; try again in a while",
                        (unsigned long long)(open - g->n_ones), g->env.max_answers);
    }
    g->took_room = true;
    return 0;
}

/* What answers have to be: a call where one must come, else what the body says. */
static int read_guide(struct generation *g, struct api_error *e)
{
    struct api_guide guide;
    int rc = 0;

    if (api_guide_read(&guide, g->request.body, e) != 0)
        return -1;
    if (g->request.is_chat && tools_must(&g->request.chat))
        rc = (g->grammar = guides_get_calls(g->env.guides, &g->env.prompt->fit, &g->request.chat, e)) ? 0 : -1;
    else if (guide.kind != GUIDE_NONE)
        rc = (g->grammar = guides_get_for(g->env.guides, &guide, e)) ? 0 : -1;
    if (rc == 0 && g->grammar && g->request.ignore_eos)
        rc = api_refuse(e, "ignore_eos", "ignore_eos together with %s: an answer that is complete could not end",
                        guide.kind != GUIDE_NONE ? guide.where : "tool_choice");
    api_guide_fini(&guide);
    return rc;
}

static void destroy(struct job *job);
static int pump(struct job *job, struct strbuf *out, struct api_error *e);

struct job *generation_start(const struct generation_env *env, struct api_request *r, struct api_error *e)
{
    static const struct job_ops ops = {pump, destroy};
    struct err err;
    struct generation *g = mem_new(1, sizeof *g, &err);

    if (!g) {
        api_from_err(e, &err);
        api_request_fini(r);
        return NULL;
    }
    g->job = (struct job){&ops, r->stream};
    g->env = *env;
    g->request = *r;
    *r = (struct api_request){0};
    g->began_us = now_us();
    make_head(g);
    if (!g->request.seeded && getrandom(&g->request.sample.seed, sizeof g->request.sample.seed, 0) < 0)
        g->request.sample.seed = (uint64_t)g->began_us;
    if (read_guide(g, e) != 0 || read_prompts(g, e) != 0 || check_room(g, e) != 0)
        goto error;
    g->n_ones = g->n_prompts * g->request.best_of;
    if (take_room(g, e) != 0)
        goto error;
    if (!(g->ones = mem_new(g->n_ones, sizeof *g->ones, &err))) {
        api_from_err(e, &err);
        goto error;
    }
    for (size_t i = 0; i < g->n_ones; i++)
        if (start_one(g, i, e) != 0)
            goto error;
    for (size_t i = 0; i < g->n_prompts; i++)
        g->usage.prompt += g->prompts[i].len;
    metrics_add(&env->metrics->prompt_tokens, g->usage.prompt);
    api_key_spend(env->key, g->usage.prompt);
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
        if (g->ones[i].has_echo)
            answer_fini(&g->ones[i].echo);
        if (g->ones[i].has_message)
            message_fini(&g->ones[i].message);
    }
    for (size_t i = 0; i < g->n_prompts; i++) {
        if (g->prompts)
            token_list_fini(&g->prompts[i]);
        if (g->echoes)
            free(g->echoes[i]);
    }
    if (g->took_room)
        atomic_fetch_sub(&g->env.metrics->answers_open, g->n_ones);
    strbuf_fini(&g->begun.given);
    free(g->prompts);
    free(g->echoes);
    free(g->echo_lens);
    free(g->ones);
    grammar_masks_drop(g->grammar);
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

/* A chat's message takes the text that is sure; log-probabilities stay where they are. */
static int take_text(struct generation *g, struct one *one)
{
    if (!one->has_message)
        return 0;
    if (message_add(&one->message, strbuf_str(&one->answer.text), one->answer.sure, &g->err) != 0)
        return -1;
    answer_take(&one->answer, 0);
    return 0;
}

static int end_one(struct generation *g, struct one *one, const char *finish)
{
    one->choice.finish = finish;
    close_one(g, one);
    if (answer_end(&one->answer, &g->err) != 0 || take_text(g, one) != 0)
        return -1;
    if (!one->has_message)
        return 0;
    if (message_end(&one->message, &g->err) != 0)
        return -1;
    if (message_has_calls(&one->message) && strcmp(finish, "stop") == 0)
        one->choice.finish = "tool_calls";
    return 0;
}

static int take_token(struct generation *g, struct one *one, const struct engine_event *event)
{
    int64_t now = now_us();

    metrics_observe(one->n_tokens ? &g->env.metrics->between_tokens : &g->env.metrics->first_token, now - one->last_us);
    metrics_add(&g->env.metrics->answer_tokens, 1);
    api_key_spend(g->env.key, 1);
    one->last_us = now;
    one->n_tokens++;
    one->logprob += event->logprob;
    g->usage.completion++;
    if (answer_add(&one->answer, event->token, event->logprob, event->top_ids, event->top_logprobs, event->n_top, &g->err) != 0)
        return -1;
    if (take_text(g, one) != 0)
        return -1;
    g->usage.thoughts += one->has_message && dialect_in_thought(&one->message.reader);
    return one->answer.stopped || (one->has_message && one->message.full) ? end_one(g, one, "stop") : 0;
}

static void take_cached(struct generation *g, const struct one *one, uint32_t n_cached)
{
    /* Of several answers to one prompt the first counts: the others find its prompt in the cache of course. */
    if (one->choice.index % g->request.best_of == 0 && n_cached > g->usage.cached)
        g->usage.cached = n_cached;
}

/* A position of the prompt says how likely the token behind it was. */
static int take_prompt_token(struct generation *g, struct one *one, const struct engine_event *event)
{
    const struct token_list *prompt = &g->prompts[one->choice.index / g->request.best_of];
    size_t next = (size_t)event->position + 1;

    if (next >= prompt->len)
        return 0;
    return answer_add(&one->echo, prompt->ids[next], event->logprob, event->top_ids, event->top_logprobs, event->n_top, &g->err);
}

static int take_event(struct generation *g, struct one *one, const struct engine_event *event)
{
    switch (event->kind) {
    case ENGINE_TOKEN:
        return take_token(g, one, event);
    case ENGINE_PROMPT:
        take_cached(g, one, event->n_cached);
        return one->has_echo ? take_prompt_token(g, one, event) : 0;
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
    if (event->kind != ENGINE_TOKEN)
        return false;
    for (uint32_t i = 0; i < g->request.n_stop_tokens; i++)
        if (g->request.stop_tokens[i] == event->token)
            return true;
    return !g->request.ignore_eos && tokenizer_is_end(g->head.tokenizer, event->token);
}

/* What came of one answer; returns -1 when the whole has failed. */
static int pump_one(struct generation *g, struct one *one, struct strbuf *out)
{
    struct engine_event event;
    bool stream = g->request.stream;

    while (one->request && (!stream || out->len < PUMP_BYTES) && engine_next(one->request, 0, &event) == 0) {
        if (is_end_token(g, &event)) {
            g->usage.completion++;
            metrics_add(&g->env.metrics->answer_tokens, 1);
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

/* How likely an answer is, a token. */
static double mean_logprob(const struct one *one)
{
    return one->n_tokens ? one->logprob / (double)one->n_tokens : 0;
}

static int by_likelihood(const void *a, const void *b)
{
    const struct one *x = *(const struct one *const *)a, *y = *(const struct one *const *)b;
    double dx = mean_logprob(x), dy = mean_logprob(y);

    if (dx != dy)
        return dx > dy ? -1 : 1;
    return x->choice.index < y->choice.index ? -1 : 1;
}

/* Of each prompt's answers those that are shown: all, or the n likeliest of best_of. Their number. */
static size_t choose_best(struct generation *g, struct reply_choice *choices)
{
    uint32_t n = g->request.n, of = g->request.best_of;
    const struct one *order[API_MAX_ANSWERS];
    size_t n_shown = 0;

    for (size_t i = 0; i < g->n_ones; i++)
        order[i] = &g->ones[i];
    for (size_t at = 0; at < g->n_ones; at += of) {
        if (of > n)
            qsort(order + at, of, sizeof(struct one *), by_likelihood);
        for (size_t i = 0; i < n; i++, n_shown++) {
            choices[n_shown] = order[at + i]->choice;
            choices[n_shown].index = (uint32_t)n_shown;
        }
    }
    return n_shown;
}

static int finish(struct generation *g, struct strbuf *out, struct api_error *e)
{
    metrics_observe(&g->env.metrics->whole_request, now_us() - g->began_us);
    if (g->request.stream) {
        reply_done(out, &g->head, &g->usage);
        return 1;
    }
    struct reply_choice *choices = mem_new(g->n_ones, sizeof *choices, &g->err);
    if (!choices)
        return api_from_err(e, &g->err);
    reply_whole(out, &g->head, choices, choose_best(g, choices), &g->usage);
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
