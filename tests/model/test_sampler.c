#include "model/sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/tap.h"

/* Everything off: a plain draw from the softmax. */
#define PLAIN ((struct sample_params){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .penalty_last = -1})

enum { N = 8, DRAWS = 20000, BIG = 152064 };

static int32_t choose(struct sampler *s, const struct sample_params *p, const float *logits, const int32_t *history, size_t n, uint32_t position)
{
    int32_t token = -1;
    struct err err;
    if (sampler_sample(s, p, logits, history, n, 0, position, &token, NULL, &err) != 0) {
        tap_note("%s", err.text);
        return -2;
    }
    return token;
}

/* Draws many times and tells whether the frequencies fit the expected probabilities: chi-square with at most 7 degrees of
 * freedom stays below 24.3 in 999 of 1000 cases, and the seed is fixed. A probability of 0 must never come. */
static bool distributed(struct sampler *s, const struct sample_params *p, const float *logits, const double *expected)
{
    double count[N] = {0}, chi = 0;
    bool good = true;

    for (uint32_t i = 0; i < DRAWS; i++) {
        int32_t t = choose(s, p, logits, NULL, 0, i);
        if (t < 0 || t >= N)
            return false;
        count[t]++;
    }
    for (int i = 0; i < N; i++) {
        double e = expected[i] * DRAWS;
        if (e == 0)
            good = good && count[i] == 0;
        else
            chi += (count[i] - e) * (count[i] - e) / e;
    }
    tap_note("chi-square %.2f", chi);
    return good && chi < 24.3;
}

static void softmax(const float *logits, double temperature, const int *keep, double *ret)
{
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += keep[i] ? exp(logits[i] / temperature) : 0;
    for (int i = 0; i < N; i++)
        ret[i] = keep[i] ? exp(logits[i] / temperature) / sum : 0;
}

static void test_random(void)
{
    /* Random123's known answer for counter 0 and key 0, and a few things that must hold. */
    ok(sampler_random(0, 0, 0, 0) == 0xE169C58D6627E8D5, "Philox's published answer");
    ok(sampler_random(0, 1, 0, 0) != sampler_random(0, 0, 1, 0), "choice and position are different counters");
    ok(sampler_random(1, 0, 0, 0) != sampler_random((uint64_t)1 << 32, 0, 0, 0), "both halves of the seed count");
    ok(sampler_random(7, 1, 2, 3) == sampler_random(7, 1, 2, 3), "the same counter, the same bits");
    int ones = 0;
    for (uint32_t i = 0; i < 1000; i++)
        ones += __builtin_popcountll(sampler_random(42, 0, i, 0));
    ok(ones > 31500 && ones < 32500, "half of the bits are ones (%d of 64000)", ones);
}

static void test_greedy(struct sampler *s)
{
    struct sample_params p = PLAIN;
    float logits[N] = {1, 5, 2, 5, -3, 0, 4, 5};
    float logprob = 0;
    int32_t token;
    double sum = 0;

    p.temperature = 0;
    is_int(choose(s, &p, logits, NULL, 0, 0), 1, "a tie goes to the lowest id");
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, &logprob, NULL), 0, "with its log-probability");
    for (int i = 0; i < N; i++)
        sum += exp(logits[i]);
    ok(fabs(logprob - (5 - log(sum))) < 1e-5, "which is the softmax's (%f)", logprob);
    logits[3] = 5.0001f;
    is_int(choose(s, &p, logits, NULL, 0, 0), 3, "the largest");
    p.seed = 99;
    is_int(choose(s, &p, logits, NULL, 0, 5), 3, "whatever seed and position");
    float extreme[N] = {-FLT_MAX, -INFINITY, -FLT_MAX, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    is_int(choose(s, &p, extreme, NULL, 0, 0), 0, "among the very small");
}

static void test_distribution(struct sampler *s)
{
    const float logits[N] = {2, 1, 0.5f, 0, -0.5f, -1, -2, 1.5f}; /* order of likelihood: 0 7 1 2 3 4 5 6 */
    struct sample_params p;
    double e[N];

    softmax(logits, 1, (int[N]){1, 1, 1, 1, 1, 1, 1, 1}, e);
    p = PLAIN;
    ok(distributed(s, &p, logits, e), "plain draws follow the softmax");
    p.seed = 12345678901234;
    ok(distributed(s, &p, logits, e), "with another seed too");

    softmax(logits, 2, (int[N]){1, 1, 1, 1, 1, 1, 1, 1}, e);
    p = PLAIN, p.temperature = 2;
    ok(distributed(s, &p, logits, e), "temperature 2 flattens");

    softmax(logits, 0.5, (int[N]){1, 1, 0, 0, 0, 0, 0, 1}, e);
    p = PLAIN, p.temperature = 0.5f, p.top_k = 3;
    ok(distributed(s, &p, logits, e), "top-k 3 keeps three");

    /* probabilities .418 .254 .154 .093 .057 .034 .021 .008 less some: three reach 0.75 */
    softmax(logits, 1, (int[N]){1, 1, 0, 0, 0, 0, 0, 1}, e);
    p = PLAIN, p.top_p = 0.75f;
    ok(distributed(s, &p, logits, e), "top-p keeps the least set that reaches p");
    softmax(logits, 3, (int[N]){1, 1, 0, 0, 0, 0, 0, 1}, e);
    p.temperature = 3;
    ok(distributed(s, &p, logits, e), "and temperature comes after it");

    softmax(logits, 1, (int[N]){1, 1, 1, 0, 0, 0, 0, 1}, e); /* e^-1.5 = .223 of the best, e^-2 = .135 */
    p = PLAIN, p.min_p = 0.2f;
    ok(distributed(s, &p, logits, e), "min-p drops what is below its share of the best");

    p = PLAIN, p.top_k = 4, p.top_p = 0.99f, p.min_p = 0.3f; /* k: 0 7 1 2; p: of those; min-p: e^-1 = .37 yes, e^-1.5 no */
    softmax(logits, 1, (int[N]){1, 1, 0, 0, 0, 0, 0, 1}, e);
    ok(distributed(s, &p, logits, e), "filters together");

    float same[N] = {0};
    p = PLAIN, p.top_k = 4;
    softmax(same, 1, (int[N]){1, 1, 1, 1, 0, 0, 0, 0}, e);
    ok(distributed(s, &p, same, e), "top-k's ties go to the lowest ids");
    p = PLAIN, p.top_p = 0.5f;
    ok(distributed(s, &p, same, e), "so do top-p's");

    float masked[N] = {1, -INFINITY, 1, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    softmax(masked, 1, (int[N]){1, 0, 1, 0, 0, 0, 0, 0}, e);
    p = PLAIN, p.top_k = 5;
    ok(distributed(s, &p, masked, e), "a logit of -inf never comes");
}

static void test_edges(struct sampler *s)
{
    const float logits[N] = {2, 1, 0.5f, 0, -0.5f, -1, -2, 1.5f};
    struct sample_params p = PLAIN;
    int other = 0;

    p.top_p = 0;
    for (uint32_t i = 0; i < 100; i++)
        other += choose(s, &p, logits, NULL, 0, i) != 0;
    p = PLAIN, p.top_k = 1;
    for (uint32_t i = 0; i < 100; i++)
        other += choose(s, &p, logits, NULL, 0, i) != 0;
    p = PLAIN, p.min_p = 1;
    for (uint32_t i = 0; i < 100; i++)
        other += choose(s, &p, logits, NULL, 0, i) != 0;
    p = PLAIN, p.temperature = 1e-6f;
    for (uint32_t i = 0; i < 100; i++)
        other += choose(s, &p, logits, NULL, 0, i) != 0;
    is_int(other, 0, "top-p 0, top-k 1, min-p 1 and hardly any temperature all leave the best");

    p = PLAIN, p.top_k = 1000000;
    int32_t all = choose(s, &p, logits, NULL, 0, 3);
    p = PLAIN;
    is_int(choose(s, &p, logits, NULL, 0, 3), all, "top-k over the vocabulary changes nothing");

    const float huge[N] = {FLT_MAX, -FLT_MAX, FLT_MAX, 0, 0, 0, 0, 0};
    p = PLAIN, p.temperature = 0.01f, p.top_p = 0.9f, p.min_p = 0.1f, p.typical_p = 0.9f;
    for (uint32_t i = 0; i < 100; i++) {
        int32_t t = choose(s, &p, huge, NULL, 0, i);
        other += t != 0 && t != 2;
    }
    is_int(other, 0, "enormous logits do no harm");

    struct sampler *one = sampler_create(1, NULL, NULL);
    p = PLAIN;
    is_int(choose(one, &p, (float[]){-7}, NULL, 0, 0), 0, "a vocabulary of one");
    sampler_destroy(one);
    sampler_destroy(NULL);
    struct err err;
    ok(!sampler_create(0, NULL, &err), "a vocabulary of none");
    has_str(err.text, "vocabulary of 0", "is refused");
}

static void test_typical(struct sampler *s)
{
    /* p = .9 and seven times .0143: entropy .62; surprise of the first .105 (distance .51), of the others 4.25. */
    float logits[N] = {0, 0, 0, 0, 0, 0, 0, 0};
    double e[N];
    struct sample_params p = PLAIN;

    logits[2] = logf(63.0f);
    p.typical_p = 0.5f;
    softmax(logits, 1, (int[N]){0, 0, 1, 0, 0, 0, 0, 0}, e);
    ok(distributed(s, &p, logits, e), "a sure token is typical");

    /* p = .5 .1 .1 .1 .1 .05 .05 0: entropy 1.57, surprises .69 2.30 3.00: distances .87 .73 1.43: the four come first. */
    const double probability[N] = {.5, .1, .1, .1, .1, .05, .05, 0};
    for (int i = 0; i < N; i++)
        logits[i] = probability[i] > 0 ? (float)log(probability[i]) : -INFINITY;
    p.typical_p = 0.35f;
    softmax(logits, 1, (int[N]){0, 1, 1, 1, 1, 0, 0, 0}, e);
    ok(distributed(s, &p, logits, e), "the likeliest token may be untypical");
    p.typical_p = 0.15f;
    softmax(logits, 1, (int[N]){0, 1, 1, 0, 0, 0, 0, 0}, e);
    ok(distributed(s, &p, logits, e), "ties by id");
    p.typical_p = 0.6f;
    p.min_p = 0.9f;
    softmax(logits, 1, (int[N]){1, 0, 0, 0, 0, 0, 0, 0}, e);
    ok(distributed(s, &p, logits, e), "min-p after it looks at what is left");
}

static void test_penalties(struct sampler *s)
{
    const float logits[N] = {2.0f, 1.9f, -1.0f, 0, 1.0f, -5, -5, -5};
    const int32_t history[] = {3, 0, 0, 0, 4};
    struct sample_params p = PLAIN;
    float before[N];

    memcpy(before, logits, sizeof before);
    p.temperature = 0;
    is_int(choose(s, &p, logits, history, 5, 0), 0, "no penalty");
    p.repetition_penalty = 1.1f; /* 2.0 / 1.1 = 1.82 */
    is_int(choose(s, &p, logits, history, 5, 0), 1, "repetition divides, once, however often");
    p.repetition_penalty = 1.04f; /* 1.92, though three times it would be 1.78 */
    is_int(choose(s, &p, logits, history, 5, 0), 0, "once indeed");
    p.repetition_penalty = 1, p.presence_penalty = 0.09f;
    is_int(choose(s, &p, logits, history, 5, 0), 0, "presence counts once");
    p.presence_penalty = 0.11f;
    is_int(choose(s, &p, logits, history, 5, 0), 1, "and subtracts");
    p.presence_penalty = 0, p.frequency_penalty = 0.04f; /* three times: 1.88 */
    is_int(choose(s, &p, logits, history, 5, 0), 1, "frequency counts each time");
    p.penalty_last = 3; /* sees 0, 0, 4: 1.92 */
    is_int(choose(s, &p, logits, history, 5, 0), 0, "within the window");
    p.penalty_last = 0;
    p.frequency_penalty = 50;
    is_int(choose(s, &p, logits, history, 5, 0), 0, "a window of none");
    p.penalty_last = 100;
    is_int(choose(s, &p, logits, history, 5, 0), 1, "a window longer than the history");
    p.frequency_penalty = -1;
    is_int(choose(s, &p, (float[N]){0, 0, 0, 0.5f, 0, 0, 0, 0}, history, 5, 0), 0, "a negative penalty rewards");

    const float negative[N] = {-1.0f, -1.05f, -9, -9, -9, -9, -9, -9};
    p = PLAIN, p.temperature = 0, p.repetition_penalty = 1.1f; /* -1.1 */
    is_int(choose(s, &p, negative, history, 5, 0), 1, "repetition multiplies a negative logit");
    is_int(choose(s, &p, logits, (int32_t[]){-1, 8, 1000000, 0}, 4, 0), 1, "ids outside of the vocabulary are passed over");
    p.repetition_penalty = 1, p.frequency_penalty = 0.5f;
    is_int(choose(s, &p, logits, history, 5, 0), 1, "counts start anew");
    is_int(choose(s, &p, logits, history, 5, 0), 1, "in every call");
    is_mem(logits, before, sizeof before, "the logits are not changed");

    float logprob = 0;
    int32_t token = -1;
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += exp(logits[i]);
    sampler_sample(s, &p, logits, history, 5, 0, 0, &token, &logprob, NULL);
    ok(token == 1 && fabs(logprob - (1.9 - log(sum))) < 1e-5, "the log-probability is the unmodified one");
}

static void test_bias(struct sampler *s)
{
    const float logits[N] = {2, 1, 0, 0, 0, 0, 0, 0};
    struct sample_bias bias[N] = {{5, 100}, {0, -INFINITY}};
    struct sample_params p = PLAIN;
    struct err err;
    int32_t token;

    p.temperature = 0, p.bias = bias, p.n_bias = 1;
    is_int(choose(s, &p, logits, NULL, 0, 0), 5, "a bias of 100 forces");
    bias[0].bias = -100, p.n_bias = 2;
    is_int(choose(s, &p, logits, NULL, 0, 0), 1, "-inf forbids");
    p.temperature = 1;
    double e[N];
    softmax(logits, 1, (int[N]){0, 1, 1, 1, 1, 0, 1, 1}, e);
    ok(distributed(s, &p, logits, e), "both hold when drawing");
    for (int i = 0; i < N; i++)
        bias[i] = (struct sample_bias){i, -INFINITY};
    p.n_bias = N;
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, NULL, &err), -1, "nothing left");
    has_str(err.text, "logit_bias leaves no token", "is said");
    bias[0] = (struct sample_bias){1, FLT_MAX};
    p.n_bias = 1;
    is_int(choose(s, &p, (float[N]){0, FLT_MAX}, NULL, 0, 0), 1, "no overflow to inf");
}

static void test_bad_logits(struct sampler *s)
{
    struct sample_params p = PLAIN;
    float logits[N] = {0};
    int32_t token = 77, ids[N];
    float logprob = 77, lps[N];
    struct err err;

    logits[3] = logits[6] = NAN;
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, &logprob, &err), -1, "NaN");
    has_str(err.text, "the model is broken: the logit of token 3 is not a number", "names the first token");
    is_int(err.kind, ERR_INPUT, "as input");
    ok(token == 77 && logprob == 77, "outputs untouched");
    is_int(sampler_top(s, logits, 3, ids, lps, &err), -1, "sampler_top refuses it too");
    logits[3] = INFINITY, logits[6] = 0;
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, &logprob, &err), -1, "+inf");
    has_str(err.text, "token 3 is infinite", "is named");
    logits[0] = NAN, logits[3] = -INFINITY;
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, &logprob, &err), -1, "NaN first");
    logits[0] = 0, logits[N - 1] = NAN;
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, &logprob, &err), -1, "NaN last");
    for (int i = 0; i < N; i++)
        logits[i] = -INFINITY;
    p.temperature = 0;
    is_int(sampler_sample(s, &p, logits, NULL, 0, 0, 0, &token, &logprob, &err), -1, "all -inf");
    has_str(err.text, "all 8 logits are -inf", "is said");
}

static void test_top(struct sampler *s)
{
    const float logits[N] = {1, 5, 2, 5, -3, -INFINITY, 4, 5};
    const int32_t want[N] = {1, 3, 7, 6, 2, 0, 4, 5};
    int32_t ids[N];
    float lps[N];
    double sum = 0;

    is_int(sampler_top(s, logits, 4, ids, lps, NULL), 4, "four asked, four given");
    is_mem(ids, want, 4 * sizeof *ids, "best first, ties by id");
    is_int(sampler_top(s, logits, 100, ids, lps, NULL), N, "cut to the vocabulary");
    is_mem(ids, want, sizeof ids, "all in order");
    bool close = true;
    for (int i = 0; i < N; i++)
        sum += exp(logits[i]);
    for (int i = 0; i < N - 1; i++)
        close = close && fabs(lps[i] - (logits[ids[i]] - log(sum))) < 2e-6;
    ok(close, "natural log-probabilities");
    ok(lps[N - 1] == -INFINITY, "-inf for what cannot come");
    is_int(sampler_top(s, logits, 0, ids, lps, NULL), 0, "none asked, none given");
    struct err err;
    is_int(sampler_top(s, logits, SAMPLE_MAX_TOP + 1, ids, lps, &err), -1, "too many");
    has_str(err.text, "at most 1024", "names the limit");
}

static void test_check(void)
{
    const struct {
        struct sample_params p;
        const char *want;
    } bad[] = {
        {{.temperature = -1, .repetition_penalty = 1}, "temperature is -1; 0 to 100 is allowed"},
        {{.temperature = NAN, .repetition_penalty = 1}, "temperature is nan"},
        {{.top_p = 1.5f, .repetition_penalty = 1}, "top_p is 1.5; 0 to 1"},
        {{.min_p = -0.5f, .repetition_penalty = 1}, "min_p is -0.5"},
        {{.typical_p = 2, .repetition_penalty = 1}, "typical_p is 2"},
        {{.repetition_penalty = 0}, "repetition_penalty is 0; 0.01 to 100"},
        {{.presence_penalty = INFINITY, .repetition_penalty = 1}, "presence_penalty is inf"},
        {{.frequency_penalty = 101, .repetition_penalty = 1}, "frequency_penalty is 101"},
        {{.penalty_last = -2, .repetition_penalty = 1}, "penalty_last is -2"},
        {{.n_bias = 2000, .repetition_penalty = 1}, "logit_bias names 2000 tokens; at most 1024"},
        {{.n_bias = 1, .bias = &(struct sample_bias){8, 0}, .repetition_penalty = 1}, "token 8; the vocabulary has 0 to 7"},
        {{.n_bias = 1, .bias = &(struct sample_bias){-1, 0}, .repetition_penalty = 1}, "token -1"},
        {{.n_bias = 1, .bias = &(struct sample_bias){1, NAN}, .repetition_penalty = 1}, "nan for token 1"},
        {{.n_bias = 1, .bias = &(struct sample_bias){1, INFINITY}, .repetition_penalty = 1}, "inf for token 1"},
        {{.n_bias = 1, .repetition_penalty = 1}, "no list"},
    };
    struct err err;
    struct sample_params p = SAMPLE_PARAMS_DEFAULT;

    is_int(sample_params_check(&p, N, &err), 0, "the defaults are fine");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&err);
        is_int(sample_params_check(&bad[i].p, N, &err), -1, "bad parameters %zu", i);
        has_str(err.text, bad[i].want, "named");
    }
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* A vocabulary of Qwen's size against sorting it, and how long each way takes. */
static float *big_logits;

static int by_logit(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return big_logits[i] != big_logits[j] ? (big_logits[i] < big_logits[j] ? 1 : -1) : (i > j) - (i < j);
}

static void test_big(void)
{
    struct sampler *s = sampler_create(BIG, NULL, NULL);
    int32_t *order = calloc(BIG, sizeof *order), *history = calloc(8192, sizeof *history);
    int32_t ids[SAMPLE_MAX_TOP];
    float lps[SAMPLE_MAX_TOP];

    big_logits = calloc(BIG, sizeof *big_logits);
    for (uint32_t i = 0; i < BIG; i++) {
        uint64_t r = sampler_random(5, i, 0, 0); /* sum of four: bell-shaped, with ties */
        big_logits[i] = (float)((r & 0xFFF) + (r >> 12 & 0xFFF) + (r >> 24 & 0xFFF) + (r >> 36 & 0xFFF)) / 512.0f - 16.0f;
        order[i] = (int32_t)i;
    }
    qsort(order, BIG, sizeof *order, by_logit);
    is_int(sampler_top(s, big_logits, SAMPLE_MAX_TOP, ids, lps, NULL), SAMPLE_MAX_TOP, "the best of a large vocabulary");
    is_mem(ids, order, sizeof ids, "are those that sorting finds");

    /* The nucleus by sorting, and that no draw leaves it. */
    double sum = 0, kept = 0;
    uint32_t nucleus = 0;
    for (uint32_t i = 0; i < BIG; i++)
        sum += exp(big_logits[i]);
    while (kept < 0.3 * sum)
        kept += exp(big_logits[order[nucleus++]]);
    float least = big_logits[order[nucleus]]; /* one more: rounding may differ by one place */
    struct sample_params p = PLAIN;
    p.top_p = 0.3f;
    bool inside = true;
    for (uint32_t i = 0; i < 50; i++)
        inside = inside && big_logits[choose(s, &p, big_logits, NULL, 0, i)] >= least;
    ok(inside, "top-p over a large vocabulary stays in its nucleus of %u", nucleus);

    const struct {
        const char *name;
        struct sample_params p;
    } ways[] = {
        {"greedy", {.top_p = 1, .typical_p = 1, .repetition_penalty = 1}},
        {"default", SAMPLE_PARAMS_DEFAULT},
        {"penalties", {.temperature = 1, .top_k = 40, .top_p = 1, .typical_p = 1, .repetition_penalty = 1.1f, .penalty_last = -1}},
        {"top-p", {.temperature = 1, .top_p = 0.9f, .typical_p = 1, .repetition_penalty = 1}},
        {"min-p", {.temperature = 1, .top_p = 1, .min_p = 0.05f, .typical_p = 1, .repetition_penalty = 1}},
        {"typical", {.temperature = 1, .top_p = 1, .typical_p = 0.9f, .repetition_penalty = 1}},
        {"plain", {.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1}},
    };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        double start = now_ms();
        for (uint32_t i = 0; i < 5; i++)
            choose(s, &ways[w].p, big_logits, history, 8192, i);
        tap_note("%-10s %.2f ms a token of %d", ways[w].name, (now_ms() - start) / 5, BIG);
    }
    double start = now_ms();
    for (uint32_t i = 0; i < 5; i++)
        sampler_top(s, big_logits, 40, ids, lps, NULL);
    tap_note("%-10s %.2f ms", "top 40", (now_ms() - start) / 5);
    sampler_destroy(s);
    free(order);
    free(history);
    free(big_logits);
}

/* Likely tokens in several tiles and in a last one that is not full: each as often as it should come, nothing else. */
static void test_tiles(void)
{
    enum { MANY = 5000 };
    static const int32_t at[N] = {0, 1023, 1024, 2500, 4095, 4096, 4990, MANY - 1};
    const float likely[N] = {2, 1, 0.5f, 0, -0.5f, -1, -2, 1.5f};
    struct sampler *s = sampler_create(MANY, NULL, NULL);
    float *logits = calloc(MANY, sizeof *logits);
    double e[N], count[N] = {0}, chi = 0;
    int other = 0;

    for (int i = 0; i < MANY; i++)
        logits[i] = -100;
    for (int i = 0; i < N; i++)
        logits[at[i]] = likely[i];
    softmax(likely, 0.7, (int[N]){1, 1, 1, 1, 1, 1, 1, 1}, e);
    struct sample_params p = PLAIN;
    p.temperature = 0.7f;
    for (uint32_t i = 0; i < DRAWS; i++) {
        int32_t token = choose(s, &p, logits, NULL, 0, i);
        int n = 0;
        while (n < N && at[n] != token)
            n++;
        if (n < N)
            count[n]++;
        else
            other++;
    }
    for (int i = 0; i < N; i++)
        chi += (count[i] - e[i] * DRAWS) * (count[i] - e[i] * DRAWS) / (e[i] * DRAWS);
    is_int(other, 0, "of 5000 tokens only likely ones come");
    ok(chi < 24.3, "as often as they should (chi-square %.2f)", chi);
    sampler_destroy(s);
    free(logits);
}

/* The draws of one seed, written down: they must be these on every machine and for ever. */
static void test_pinned(struct sampler *s)
{
    const float logits[N] = {2, 1, 0.5f, 0, -0.5f, -1, -2, 1.5f};
    static const int32_t want[16] = {2, 0, 0, 7, 7, 1, 0, 1, 0, 1, 3, 0, 0, 0, 3, 0};
    int32_t got[16];
    struct sample_params p = PLAIN;

    p.seed = 1, p.temperature = 0.8f, p.top_p = 0.95f;
    for (uint32_t i = 0; i < 16; i++)
        got[i] = choose(s, &p, logits, NULL, 0, i);
    if (!is_mem(got, want, sizeof got, "the draws of seed 1"))
        for (int i = 0; i < 16; i++)
            tap_note("%d", got[i]);
    bool same = true;
    struct sampler *other = sampler_create(N, NULL, NULL);
    for (uint32_t i = 16; i-- > 0;)
        same = same && choose(other, &p, logits, NULL, 0, i) == got[i];
    ok(same, "in any order, by any sampler: there is no state");
    sampler_destroy(other);
    int differ = 0;
    for (uint32_t i = 0; i < 64; i++) {
        int32_t a, b;
        sampler_sample(s, &p, logits, NULL, 0, 0, i, &a, NULL, NULL);
        sampler_sample(s, &p, logits, NULL, 0, 1, i, &b, NULL, NULL);
        differ += a != b;
    }
    ok(differ > 10, "choices differ");
}

int main(void)
{
    struct sampler *s = sampler_create(N, NULL, NULL);

    test_random();
    test_greedy(s);
    test_distribution(s);
    test_edges(s);
    test_typical(s);
    test_penalties(s);
    test_bias(s);
    test_bad_logits(s);
    test_top(s);
    test_check();
    test_pinned(s);
    test_tiles();
    test_big();
    sampler_destroy(s);
    return tap_done();
}
