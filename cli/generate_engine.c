/* generate() over a pipeline: every case is a request of its own, and the scheduler mixes them. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "cli/generate_inner.h"
#include "cli/ui.h"

enum { OPEN_MAX = 256, WAIT_MS = 100, TOKENS_MAX = 1 << 26 };

struct open_case {
    struct engine_request *request; /* NULL: free */
    size_t index;
    uint32_t prompt_done;
};

struct runner {
    struct local *local;
    const struct gen_options *options;
    struct gen_case *cases;
    size_t n_cases, next_case, n_open;
    struct open_case open[OPEN_MAX];
    struct engine_params params; /* what all have in common */
    sem_t events;
    double start, prompts_done; /* when the last case got its first token */
    size_t n_begun;
    uint64_t prompt_done, prompt_total;
    struct gen_stats stats;
};

static void wake(void *arg)
{
    sem_post(arg);
}

static int submit(struct runner *r, struct err *err)
{
    struct gen_case *c = &r->cases[r->next_case];
    struct engine_params p = r->params;
    struct open_case *o = r->open;

    while (o->request)
        o++;
    p.tokens = c->tokens.ids;
    p.n_tokens = (uint32_t)c->tokens.len;
    p.n_new = (uint32_t)(c->n_new < r->local->ctx - p.n_tokens + 1 ? c->n_new : r->local->ctx - p.n_tokens + 1);
    if (!(o->request = engine_submit(r->local->engine, &p, err)))
        return -1;
    o->index = r->next_case++;
    o->prompt_done = 0;
    c->end = GEN_RUNNING;
    r->n_open++;
    return 0;
}

static int keep_top(struct runner *r, struct gen_case *c, const struct engine_event *e, struct err *err)
{
    size_t k = r->options->top, n = c->n_top + 1;

    if (k == 0)
        return 0;
    if (mem_grow(&c->top_ids, &c->cap_top_ids, n * k, sizeof *c->top_ids, SIZE_MAX / 8, "log-probabilities", err) != 0 ||
        mem_grow(&c->top_logprobs, &c->cap_top_logprobs, n * k, sizeof *c->top_logprobs, SIZE_MAX / 8, "log-probabilities", err) != 0)
        return -1;
    for (size_t i = 0; i < k; i++) {
        c->top_ids[c->n_top * k + i] = i < e->n_top ? e->top_ids[i] : 0;
        c->top_logprobs[c->n_top * k + i] = i < e->n_top ? e->top_logprobs[i] : 0;
    }
    c->n_top = n;
    return 0;
}

static int take_token(struct runner *r, struct gen_case *c, const struct engine_event *e, struct err *err)
{
    int rc = 0;
    bool first = c->tokens.len == c->n_prompt;

    if (keep_top(r, c, e, err) != 0 ||
        mem_grow(&c->tokens.ids, &c->tokens.cap, c->tokens.len + 1, sizeof *c->tokens.ids, TOKENS_MAX, "tokens", err) != 0)
        return -1;
    c->tokens.ids[c->tokens.len++] = e->token;
    r->stats.new_tokens++;
    if (first) {
        r->stats.prompt_tokens += c->n_prompt;
        if (++r->n_begun == r->n_cases) {
            r->prompts_done = ui_seconds();
            r->stats.prompt_seconds = r->prompts_done - r->start;
        }
    } else if (r->n_begun == r->n_cases) {
        r->stats.timed_tokens++;
        r->stats.new_seconds = ui_seconds() - r->prompts_done;
    }
    if (!r->options->ignore_end && tokenizer_is_end(r->local->tokenizer, e->token))
        c->end = GEN_STOP;
    else if (c->tokens.len - c->n_prompt >= c->n_new)
        c->end = GEN_LENGTH;
    if (r->options->on_token)
        rc = r->options->on_token(r->options->arg, (size_t)(c - r->cases), e->token, err);
    if (rc > 0)
        c->end = GEN_STOP;
    return rc < 0 ? -1 : 0;
}

static void prompt_progress(struct runner *r, struct open_case *o, uint32_t n_done)
{
    if (n_done <= o->prompt_done)
        return;
    r->prompt_done += n_done - o->prompt_done;
    o->prompt_done = n_done;
    if (r->options->on_prompt)
        r->options->on_prompt(r->options->arg, r->prompt_done, r->prompt_total);
}

/* All that waits of one case. */
static int drain(struct runner *r, struct open_case *o, struct err *err)
{
    struct gen_case *c = &r->cases[o->index];
    struct engine_event e;

    while (engine_next(o->request, 0, &e) == 0)
        switch (e.kind) {
        case ENGINE_TOKEN:
            prompt_progress(r, o, (uint32_t)c->n_prompt);
            if (c->end == GEN_RUNNING && take_token(r, c, &e, err) != 0)
                return -1;
            if (c->end == GEN_STOP)
                engine_cancel(o->request);
            break;
        case ENGINE_PROMPT:
            if (e.n_top > 0 && keep_top(r, c, &e, err) != 0)
                return -1;
            prompt_progress(r, o, e.n_done);
            break;
        case ENGINE_PAUSE:
            ui_say("%s", e.err.text);
            break;
        case ENGINE_HIDDEN:
            break;
        case ENGINE_FAILED:
            *err = e.err;
            return -1;
        case ENGINE_DONE:
            if (c->end == GEN_RUNNING)
                c->end = e.reason == ENGINE_STOP ? GEN_STOP : c->n_new > c->tokens.len - c->n_prompt ? GEN_CONTEXT : GEN_LENGTH;
            engine_release(o->request);
            o->request = NULL;
            r->n_open--;
            return 0;
        }
    return 0;
}

static void wait_events(struct runner *r)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    while (sem_timedwait(&r->events, &until) != 0 && errno == EINTR && !ui_interrupted())
        continue;
    while (sem_trywait(&r->events) == 0)
        continue;
}

static void begin(struct runner *r)
{
    const struct gen_options *o = r->options;
    int32_t n = (int32_t)tokenizer_n_tokens(r->local->tokenizer);

    r->params.sample = *o->params;
    r->params.top = o->top;
    r->params.grammar = o->grammar;
    r->params.prompt_top = o->top > 0;
    r->params.ready = wake;
    r->params.ready_arg = &r->events;
    for (int32_t id = 0; id < n && !o->ignore_end && r->params.n_stop < ENGINE_MAX_STOP_TOKENS; id++)
        if (tokenizer_is_end(r->local->tokenizer, id))
            r->params.stop[r->params.n_stop++] = id;
    for (size_t i = 0; i < r->n_cases; i++)
        r->prompt_total += r->cases[i].n_prompt;
    sem_init(&r->events, 0, 0);
    r->start = ui_seconds();
}

int generate_engine(struct local *local, const struct gen_options *options, struct gen_case *cases, size_t n_cases,
                    struct gen_stats *ret_stats, struct err *err)
{
    struct runner *r = mem_new(1, sizeof *r, err);
    int rc = 0;

    if (!r)
        return -1;
    r->local = local;
    r->options = options;
    r->cases = cases;
    r->n_cases = n_cases;
    begin(r);
    while (rc == 0 && (r->n_open > 0 || r->next_case < n_cases) && !ui_interrupted()) {
        while (rc == 0 && r->next_case < n_cases && r->n_open < OPEN_MAX)
            rc = submit(r, err);
        if (rc == 0)
            wait_events(r);
        for (size_t i = 0; i < OPEN_MAX && rc == 0; i++)
            if (r->open[i].request)
                rc = drain(r, &r->open[i], err);
    }
    for (size_t i = 0; i < OPEN_MAX; i++)
        engine_release(r->open[i].request);
    for (size_t i = 0; i < n_cases; i++)
        if (cases[i].end == GEN_RUNNING)
            cases[i].end = GEN_CANCELLED;
    if (ret_stats)
        *ret_stats = r->stats;
    sem_destroy(&r->events);
    free(r);
    return rc;
}
