/* Tokens chosen on the device against model/sampler.c, over random logits, settings, histories and masks: the same tokens and the
 * same log-probabilities, to the bit, and the same complaints. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/answer.h"
#include "tests/cuda/check_device.h"
#include "tests/tap.h"

enum { ROWS = 3, HISTORY = 60, GIVEN = 5, TOP_MOST = SAMPLE_MAX_TOP };

/* One row's question, with all that it points at. */
struct question {
    struct answer answer;
    struct sample_params params;
    struct sample_bias bias[SAMPLE_MAX_BIAS];
    int32_t history[HISTORY], given[GIVEN];
    uint8_t *mask;
    int32_t top_tokens[TOP_MOST];
    float top_logprobs[TOP_MOST], given_logprobs[GIVEN];
};

static void die(const char *what, const struct err *err)
{
    printf("Bail out! %s: %s\n", what, err->text);
    exit(1);
}

static float chance(float from, float to)
{
    return from + (to - from) * (float)rng_below(&rng, 1000) / 1000;
}

static bool one_in(uint32_t n)
{
    return rng_below(&rng, n) == 0;
}

/* Logits as models give them, or coarse so that many are equal, with what is rare: -inf, zeros of both signs, the extremes. */
static void fill_logits(float *l, uint32_t n, uint32_t kind)
{
    float sd = kind == 1 ? 0.5f : 4;
    for (uint32_t i = 0; i < n; i++) {
        l[i] = rng_normal(&rng) * sd;
        if (kind >= 2)
            l[i] = rintf(l[i]);
        if (kind >= 2 && l[i] == 0 && one_in(2))
            l[i] = -0.0f;
        if (kind == 3 && one_in(3))
            l[i] = -INFINITY;
        if (kind == 4 && one_in(8))
            l[i] = one_in(2) ? FLT_MAX : -FLT_MAX;
    }
    if (kind == 3)
        l[rng_below(&rng, n)] = 1;
}

static void fill_params(struct question *q, uint32_t n_vocab)
{
    struct sample_params *p = &q->params;
    *p = (struct sample_params){.temperature = one_in(5) ? 0 : chance(0.1f, 2), .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .penalty_last = -1,
                                .seed = rng_below(&rng, 1 << 30)};
    if (one_in(2))
        p->top_k = one_in(3) ? rng_below(&rng, n_vocab + 5) : rng_below(&rng, 50);
    if (one_in(2))
        p->top_p = one_in(8) ? 0 : chance(0.05f, 1);
    if (one_in(3))
        p->typical_p = chance(0.05f, 1);
    if (one_in(3))
        p->min_p = one_in(8) ? 1 : chance(0, 0.3f);
    if (one_in(3)) {
        p->repetition_penalty = one_in(2) ? 1 : chance(0.5f, 2);
        p->presence_penalty = one_in(2) ? 0 : chance(-2, 2);
        p->frequency_penalty = one_in(2) ? 0 : chance(-2, 2);
        p->penalty_last = (int32_t)rng_below(&rng, HISTORY + 2) - 1;
    }
    if (one_in(3)) {
        p->n_bias = one_in(4) ? rng_between(&rng, 900, SAMPLE_MAX_BIAS) : rng_between(&rng, 1, 12); /* the many fill a call's room */
        p->bias = q->bias;
        for (uint32_t i = 0; i < p->n_bias; i++) /* some for the same token */
            q->bias[i] = (struct sample_bias){(int32_t)rng_below(&rng, one_in(2) ? n_vocab : (n_vocab + 5) / 6),
                                              one_in(6) ? -INFINITY : one_in(20) ? FLT_MAX : chance(-9, 9)};
    }
    if (one_in(3)) {
        uint32_t rare = one_in(2) ? 2 : n_vocab;
        p->mask = q->mask;
        memset(q->mask, 0, (n_vocab + 7) / 8);
        for (uint32_t i = 0; i < n_vocab; i++)
            q->mask[i / 8] |= (uint8_t)(one_in(rare) << i % 8);
    }
}

static void fill_question(struct question *q, uint32_t n_vocab, uint32_t row)
{
    fill_params(q, n_vocab);
    for (int i = 0; i < HISTORY; i++)
        q->history[i] = (int32_t)rng_below(&rng, one_in(4) ? n_vocab : (n_vocab + 9) / 10);
    for (int i = 0; i < GIVEN; i++)
        q->given[i] = (int32_t)rng_below(&rng, n_vocab);
    q->answer = (struct answer){.wanted = row, .params = one_in(6) ? NULL : &q->params, .history = q->history, .n_history = rng_below(&rng, HISTORY + 1),
                                .choice = rng_below(&rng, 4), .position = rng_below(&rng, 1000), .top = one_in(2) ? 0 : rng_below(&rng, one_in(4) ? TOP_MOST : 40),
                                .given = q->given, .n_given = rng_below(&rng, GIVEN + 1), .top_tokens = q->top_tokens, .top_logprobs = q->top_logprobs,
                                .given_logprobs = q->given_logprobs};
}

static bool same(const void *a, const void *b, size_t bytes, const char *what, const struct question *q)
{
    const struct sample_params *p = &q->params;
    if (memcmp(a, b, bytes) == 0)
        return true;
    tap_note("%s: temperature %g, top-k %u, top-p %g, min-p %g, typical %g, %u biases%s, top %u", what, (double)p->temperature, p->top_k, (double)p->top_p,
             (double)p->min_p, (double)p->typical_p, p->n_bias, p->mask ? ", mask" : "", q->answer.top);
    return false;
}

/* The answer is what the sampler says of the logits; failed: it is err instead. */
static bool right(struct sampler *s, const struct question *q, const float *logits, bool failed, const char *text)
{
    static int32_t ids[TOP_MOST];
    static float logprobs[TOP_MOST];
    const struct answer *a = &q->answer;
    struct err want = {0};
    int32_t token = 0;
    float logprob = 0, given[GIVEN];
    int n = 0, rc = 0;
    if (a->params)
        rc = sampler_sample(s, a->params, logits, a->history, a->n_history, a->choice, a->position, &token, &logprob, &want);
    if (rc == 0)
        rc = sampler_given(s, logits, a->given, a->n_given, given, &want);
    if (rc == 0)
        rc = n = sampler_top(s, logits, a->top, ids, logprobs, &want);
    if (rc < 0 || failed)
        return rc < 0 && failed && same(want.text, text, strlen(want.text) + 1, text, q);
    return (!a->params || (same(&token, &a->token, sizeof token, "token", q) && same(&logprob, &a->logprob, sizeof logprob, "log-probability", q))) &&
           same(given, a->given_logprobs, a->n_given * sizeof *given, "given", q) && (uint32_t)n == a->n_top &&
           same(ids, a->top_tokens, (size_t)n * sizeof *ids, "likeliest", q) && same(logprobs, a->top_logprobs, (size_t)n * sizeof *logprobs, "their log-probabilities", q);
}

/* A run whose device has these logits of some wanted rows. */
static struct cuda_run *make_run(uint32_t n_vocab)
{
    struct run_shape shape = {.max_rows = ROWS, .max_wanted = ROWS, .max_seqs = 1, .max_blocks = 1, .embd = 32, .q_dim = 32, .k_dim = 32, .v_dim = 32,
                              .head_dim_v = 32, .ff_dim = 32, .n_vocab = n_vocab};
    struct err err;
    struct cuda_run *r = (struct cuda_run *)device->backend.ops->run_create(&device->backend, &shape, &err);
    if (!r)
        die("a run", &err);
    r->batch.n_wanted = ROWS;
    return r;
}

/* Questions about one vocabulary; how many answers were right. */
static uint32_t ask(uint32_t n_vocab, uint32_t turns, uint32_t *ret_asked)
{
    struct cuda_run *r = make_run(n_vocab);
    struct sampler *s = sampler_create(n_vocab, NULL, NULL);
    struct answerer *answerer = answerer_create(&r->run, n_vocab, NULL, NULL, NULL);
    struct question *q = calloc(ROWS, sizeof *q);
    float *logits = malloc((size_t)ROWS * n_vocab * sizeof *logits);
    uint32_t good = 0;
    for (int i = 0; i < ROWS; i++)
        q[i].mask = malloc((n_vocab + 7) / 8);
    for (uint32_t t = 0; t < turns; t++) {
        struct answer answers[ROWS];
        struct err err = {0};
        uint32_t n = rng_between(&rng, 1, ROWS), failed = 0, skipped = ROWS - n;
        for (uint32_t i = 0; i < ROWS; i++)
            fill_logits(logits + (size_t)i * n_vocab, n_vocab, (t + i) % 6);
        if (one_in(10)) { /* a model that is broken */
            static const float broken[] = {NAN, INFINITY};
            logits[(size_t)skipped * n_vocab + rng_below(&rng, n_vocab)] = broken[rng_below(&rng, 2)];
        }
        for (uint32_t i = 0; i < n; i++) {
            fill_question(&q[i], n_vocab, skipped + i);
            answers[i] = q[i].answer;
        }
        if (device->backend.ops->write(&device->backend, r->logits, logits, (size_t)ROWS * n_vocab * sizeof *logits, &err) != 0)
            die("logits", &err);
        int rc = answerer_answer(answerer, answers, n, &failed, &err);
        for (uint32_t i = 0; i < n && (rc == 0 || i <= failed); i++, ++*ret_asked) {
            q[i].answer = answers[i];
            good += right(s, &q[i], logits + (size_t)(skipped + i) * n_vocab, rc != 0 && i == failed, err.text);
        }
    }
    for (int i = 0; i < ROWS; i++)
        free(q[i].mask);
    free(q);
    free(logits);
    sampler_destroy(s);
    answerer_destroy(answerer);
    device->backend.ops->run_destroy(&r->run);
    return good;
}

void check_sample(void)
{
    static const struct {
        uint32_t n_vocab, turns;
    } cases[] = {{1, 5}, {2, 10}, {7, 30}, {300, 60}, {511, 20}, {513, 20}, {1500, 40}, {5000, 20}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t asked = 0, good = ask(cases[i].n_vocab, cases[i].turns, &asked);
        is_int(good, asked, "tokens of a vocabulary of %u: answers that are the sampler's", cases[i].n_vocab);
        ok(asked >= cases[i].turns / 2, "there were %u", asked);
    }
}
