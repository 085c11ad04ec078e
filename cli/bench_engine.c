/* See bench_engine.h. */
#include "cli/bench_engine.h"

#include <stdlib.h>

#include "base/mem.h"
#include "cli/ui.h"

struct round {
    struct bench_engine *b;
    struct engine_request **requests;
    uint32_t n, prompt;
    int32_t *tokens; /* n × prompt */
};

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

static int submit(struct round *r, uint32_t n_tokens, uint32_t n_new, struct err *err)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct engine_params p = {
            .tokens = r->tokens + (size_t)i * r->prompt, .n_tokens = n_tokens, .n_new = n_new, .sample = SAMPLE_PARAMS_DEFAULT};
        p.sample.temperature = 0;
        if (!(r->requests[i] = engine_submit(r->b->engine, &p, err)))
            return -1;
    }
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
