/* See bench_engine.h. */
#include "cli/bench_engine.h"

#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "cli/ui.h"

enum {
    BESIDE_PROMPT = 16, /* tokens of the prompts of answers that run */
    BESIDE_ALONE = 24,  /* of each answer, before the prompt comes; the first ones do not count */
    BESIDE_SETTLE = 8,
    GAPS_MAX = 1 << 20,
};

struct round {
    struct bench_engine *b;
    struct engine_request **requests;
    uint32_t n, prompt;
    int32_t *tokens; /* n × prompt */
    sem_t *ready;    /* posted whenever an event of a request waits; NULL: nobody looks */
};

static void post_ready(void *arg)
{
    sem_post(arg);
}

static void round_fini(struct round *r)
{
    for (uint32_t i = 0; r->requests && i < r->n; i++)
        engine_release(r->requests[i]);
    free(r->requests);
    free(r->tokens);
}

static int round_init(struct round *r, struct bench_engine *b, uint32_t n, uint32_t prompt, struct err *err)
{
    *r = (struct round){.b = b, .n = n, .prompt = prompt};
    if (!(r->requests = mem_new(n, sizeof *r->requests, err)) || !(r->tokens = mem_new((size_t)n * prompt, sizeof *r->tokens, err)))
        return -1;
    for (size_t i = 0; i < (size_t)n * prompt; i++)
        r->tokens[i] = b->random_token(b->arg);
    return 0;
}

static int submit_one(struct round *r, uint32_t i, uint32_t n_tokens, uint32_t n_new, struct err *err)
{
    struct engine_params p = {
        .tokens = r->tokens + (size_t)i * r->prompt, .n_tokens = n_tokens, .n_new = n_new, .sample = SAMPLE_PARAMS_DEFAULT};
    p.sample.temperature = 0;
    p.ready = r->ready ? post_ready : NULL;
    p.ready_arg = r->ready;
    return (r->requests[i] = engine_submit(r->b->engine, &p, err)) ? 0 : -1;
}

static int submit(struct round *r, uint32_t n_tokens, uint32_t n_new, struct err *err)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (submit_one(r, i, n_tokens, n_new, err) != 0)
            return -1;
    return 0;
}

static int wait_all(struct round *r, struct err *err)
{
    struct engine_event e;
    for (uint32_t i = 0; i < r->n; i++) {
        do {
            while (engine_next(r->requests[i], 200, &e) != 0)
                if (ui_interrupted())
                    return err_set(err, ERR_CANCELLED, "interrupted");
            if (e.kind == ENGINE_FAILED) {
                *err = e.err;
                return -1;
            }
        } while (e.kind != ENGINE_DONE);
        engine_release(r->requests[i]);
        r->requests[i] = NULL;
    }
    return 0;
}

static int timed(struct round *r, uint32_t n_tokens, uint32_t n_new, double *ret_seconds, struct err *err)
{
    struct bench_usage before;
    bench_usage_read(r->b->engine, &before);
    double start = ui_seconds();
    if (submit(r, n_tokens, n_new, err) != 0 || wait_all(r, err) != 0)
        return -1;
    *ret_seconds = ui_seconds() - start;
    bench_usage_since(r->b->engine, &before, &r->b->usage);
    return 0;
}

int bench_engine_prompt(struct bench_engine *b, uint32_t n, double *ret_seconds, struct err *err)
{
    return bench_engine_concurrent(b, 1, n, 1, ret_seconds, err);
}

int bench_engine_concurrent(struct bench_engine *b, uint32_t n_seq, uint32_t prompt, uint32_t n, double *ret_seconds, struct err *err)
{
    struct round r;
    int rc = round_init(&r, b, n_seq, prompt, err);
    if (rc == 0)
        rc = timed(&r, prompt, n, ret_seconds, err);
    round_fini(&r);
    return rc;
}

/* The depth is read beforehand; then the same tokens and one more are the prompt, which finds them in the cache but for the last,
 * incomplete block. */
int bench_engine_generate(struct bench_engine *b, uint32_t n_seq, uint32_t n, uint32_t depth, double *ret_seconds, struct err *err)
{
    struct round r;
    int rc = round_init(&r, b, n_seq, depth + 1, err);
    if (rc == 0 && depth > 0)
        rc = timed(&r, depth, 1, ret_seconds, err);
    if (rc == 0)
        rc = timed(&r, depth + 1, n, ret_seconds, err);
    round_fini(&r);
    return rc;
}

int bench_engine_prefix(struct bench_engine *b, uint32_t prefix, uint32_t rest, double *ret_first, double *ret_again, struct err *err)
{
    struct round r;
    int rc = round_init(&r, b, 1, prefix + rest, err);
    if (rc == 0)
        rc = timed(&r, prefix + rest, 1, ret_first, err);
    for (uint32_t i = 0; rc == 0 && i < rest; i++)
        r.tokens[prefix + i] = b->random_token(b->arg);
    if (rc == 0)
        rc = timed(&r, prefix + rest, 1, ret_again, err);
    round_fini(&r);
    return rc;
}

/* --- answers beside a prompt ------------------------------------------------------------------------------------------------ */

struct running {
    double *last;    /* of each request, when its last token came */
    uint32_t *count; /* tokens of each */
    double *gaps, *at; /* seconds between two tokens, and when the second came */
    size_t n_gaps;
};

static uint32_t answer_tokens(const struct round *r)
{
    return engine_ctx(r->b->engine) - BESIDE_PROMPT;
}

/* What there is of one answer; its gaps count once it has settled. One that is complete is asked for again. */
static int take_tokens(struct round *r, uint32_t i, struct running *run, bool *ret_any, struct err *err)
{
    struct engine_event e;
    while (engine_next(r->requests[i], 0, &e) == 0) {
        *ret_any = true;
        if (e.kind == ENGINE_FAILED) {
            *err = e.err;
            return -1;
        }
        if (e.kind == ENGINE_DONE) {
            engine_release(r->requests[i]);
            r->requests[i] = NULL;
            run->count[i] = 0;
            return submit_one(r, i, BESIDE_PROMPT, answer_tokens(r), err);
        }
        if (e.kind != ENGINE_TOKEN)
            continue;
        double now = ui_seconds();
        if (run->count[i]++ > BESIDE_SETTLE && run->n_gaps < GAPS_MAX)
            run->gaps[run->n_gaps] = now - run->last[i], run->at[run->n_gaps++] = now;
        run->last[i] = now;
    }
    return 0;
}

/* Until something waits, or a moment has passed. Looking time and again took a seventh of a processor from what is measured. */
static void wait_ready(sem_t *ready)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (sem_timedwait(ready, &until) == 0)
        while (sem_trywait(ready) == 0)
            ; /* whatever else came is looked at, too */
}

/* Until each answer has so many tokens, or (prompt not NULL) that request is complete. */
static int watch(struct round *r, struct running *run, uint32_t until, struct engine_request *prompt, struct err *err)
{
    struct engine_event e = {.kind = ENGINE_PAUSE};
    bool enough = false;
    while (!enough) {
        bool any = false;
        enough = true;
        for (uint32_t i = 0; i < r->n; i++) {
            if (take_tokens(r, i, run, &any, err) != 0)
                return -1;
            enough = enough && run->count[i] >= until;
        }
        while (prompt && e.kind != ENGINE_DONE && engine_next(prompt, 0, &e) == 0)
            if (e.kind == ENGINE_FAILED) {
                *err = e.err;
                return -1;
            }
        enough = prompt ? e.kind == ENGINE_DONE : enough;
        if (ui_interrupted())
            return err_set(err, ERR_CANCELLED, "interrupted");
        if (!any && !enough)
            wait_ready(r->ready);
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorts them. */
static struct gaps sum_up(double *gaps, size_t n)
{
    qsort(gaps, n, sizeof *gaps, by_value);
    if (n == 0)
        return (struct gaps){0};
    return (struct gaps){.median = gaps[n / 2], .p99 = gaps[n - 1 - n / 100], .longest = gaps[n - 1]};
}

static int run_beside(struct round *r, struct round *prompt, struct running *run, struct bench_gaps *ret, struct err *err)
{
    double start;
    uint32_t counted = 0;
    size_t first, n;
    if (submit(r, BESIDE_PROMPT, answer_tokens(r), err) != 0 || watch(r, run, BESIDE_ALONE, NULL, err) != 0)
        return -1;
    first = run->n_gaps;
    ret->before = sum_up(run->gaps, first);
    start = ui_seconds();
    if (submit(prompt, prompt->prompt, 1, err) != 0 || watch(r, run, 0, prompt->requests[0], err) != 0)
        return -1;
    ret->prompt_seconds = ui_seconds() - start;
    n = run->n_gaps - first;
    ret->after = ret->before;
    for (uint32_t i = 0; i < r->n; i++)
        counted = run->count[i] > counted ? run->count[i] : counted;
    if (counted + BESIDE_ALONE < answer_tokens(r)) { /* else some are about to be asked for again, and are short */
        if (watch(r, run, counted + BESIDE_ALONE, NULL, err) != 0)
            return -1;
        ret->after = sum_up(run->gaps + first + n, run->n_gaps - first - n);
    }
    for (size_t i = first; i < first + n; i++) {
        double then = (run->at[i] - start) / ret->prompt_seconds;
        run->at[i] = run->gaps[i] / (ret->before.median + then * (ret->after.median - ret->before.median));
    }
    ret->stretch = sum_up(run->at + first, n);
    ret->beside = sum_up(run->gaps + first, n);
    return 0;
}

int bench_engine_beside(struct bench_engine *b, uint32_t n_seq, uint32_t n, struct bench_gaps *ret, struct err *err)
{
    struct round r = {0}, prompt = {0};
    struct running run = {0};
    sem_t ready;
    int rc = -1;
    *ret = (struct bench_gaps){0};
    sem_init(&ready, 0, 0);
    if (round_init(&r, b, n_seq, BESIDE_PROMPT, err) == 0 && round_init(&prompt, b, 1, n, err) == 0 &&
        (run.last = mem_new(n_seq, sizeof *run.last, err)) && (run.count = mem_new(n_seq, sizeof *run.count, err)) &&
        (run.gaps = mem_new(GAPS_MAX, sizeof *run.gaps, err)) && (run.at = mem_new(GAPS_MAX, sizeof *run.at, err))) {
        r.ready = prompt.ready = &ready;
        rc = run_beside(&r, &prompt, &run, ret, err);
    }
    round_fini(&r);
    round_fini(&prompt);
    sem_destroy(&ready);
    free(run.last);
    free(run.count);
    free(run.gaps);
    free(run.at);
    return rc;
}
