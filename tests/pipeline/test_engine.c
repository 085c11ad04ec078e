/* The pipeline with real worker processes against one session in this process: the same tokens, the same log-probabilities bit for
 * bit, for any number of stages, any companions, any chunks, and when a worker is killed in the middle of an answer. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "coordinator/engine.h"
#include "model/sampler.h"
#include "model/session.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { CTX = 320, TOP = 7, CASES = 6, PROMPT_MAX = 150, NEW_MAX = 60, READY_MS = 60000, EVENT_MS = 60000 };

static struct err err;
static char path[512], program[512];

struct answer {
    int32_t prompt[PROMPT_MAX], tokens[NEW_MAX];
    uint32_t n_prompt, n_new, n;
    struct sample_params sample;
    int32_t top_ids[PROMPT_MAX + NEW_MAX][TOP];
    float top_logprobs[PROMPT_MAX + NEW_MAX][TOP], logprobs[NEW_MAX];
    uint32_t n_top;
};

static void bail(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

static void make_cases(struct answer *cases, uint32_t seed)
{
    for (uint32_t i = 0; i < CASES; i++) {
        struct answer *a = &cases[i];
        *a = (struct answer){.n_prompt = 1 + (i * 31 + seed * 17) % (PROMPT_MAX - 1), .n_new = 5 + (i * 13 + seed * 7) % (NEW_MAX - 5)};
        a->sample = SAMPLE_PARAMS_DEFAULT;
        a->sample.temperature = i % 2 ? 1.1f : 0;
        a->sample.seed = 1000 + i;
        a->sample.repetition_penalty = i % 3 ? 1 : 1.2f;
        for (uint32_t k = 0; k < a->n_prompt; k++)
            a->prompt[k] = (int32_t)((k * 7919 + (i + seed) * 104729 + k * k * 31) % MODEL_VOCAB);
    }
}

/* --- what it should be ---------------------------------------------------------------------------------------------------- */

static void want_one(struct session *s, struct sampler *sampler, struct answer *a)
{
    int32_t all[PROMPT_MAX + NEW_MAX];
    uint32_t n = a->n_prompt;

    memcpy(all, a->prompt, n * sizeof *all);
    session_cut(s, 0, 0);
    for (uint32_t pos = 0; a->n < a->n_new; pos++) {
        struct session_row row = {.pos = pos, .token = all[pos], .want = true};
        if (session_step(s, &row, 1, &err) != 0)
            bail("session_step");
        sampler_top(sampler, session_logits(s, 0), TOP, a->top_ids[a->n_top], a->top_logprobs[a->n_top], &err);
        a->n_top++;
        if (pos + 1 < n)
            continue;
        if (sampler_sample(sampler, &a->sample, session_logits(s, 0), all, n, 0, n, &all[n], &a->logprobs[a->n], &err) != 0)
            bail("sampler_sample");
        a->tokens[a->n++] = all[n];
        n++;
    }
}

static void make_wanted(struct answer *cases)
{
    struct session_options o = {.threads = 1, .ctx = CTX, .parallel = 1, .batch_rows = 16};
    struct session *s = session_open(path, &o, &err);
    struct sampler *sampler = sampler_create(MODEL_VOCAB, NULL, &err);
    if (!s || !sampler)
        bail("session_open");
    for (uint32_t i = 0; i < CASES; i++)
        want_one(s, sampler, &cases[i]);
    sampler_destroy(sampler);
    session_close(s);
}

/* --- what it is ----------------------------------------------------------------------------------------------------------- */

static void on_note(void *arg, const struct engine_note *note)
{
    (void)arg;
    if (note->kind == ENGINE_NOTE_TROUBLE)
        tap_note("%s", note->text);
}

static struct engine *open_engine(unsigned workers, uint32_t parallel, uint32_t rows)
{
    struct engine_options o = {.model = path,
                               .program = program,
                               .workers = workers,
                               .threads = 1,
                               .ctx = CTX,
                               .parallel = parallel,
                               .batch_rows = rows,
                               .gather_ms = 10000,
                               .note = on_note};
    struct engine *e = engine_create(&o, &err);
    if (!e)
        bail("engine_create");
    int rc = engine_wait_ready(e, READY_MS, &err);
    if (rc != 0) {
        if (rc > 0)
            err_set(&err, ERR_LIMIT, "not ready after %d ms", READY_MS);
        bail("engine_wait_ready");
    }
    return e;
}

static struct engine_request *ask(struct engine *e, const struct answer *a, bool with_top)
{
    struct engine_params p = {.tokens = a->prompt, .n_tokens = a->n_prompt, .n_new = a->n_new, .sample = a->sample};
    if (with_top) {
        p.top = TOP;
        p.prompt_top = true;
    }
    struct engine_request *r = engine_submit(e, &p, &err);
    if (!r)
        bail("engine_submit");
    return r;
}

/* Reads to the end and compares. stop_at: after so many tokens `at` is called once. */
static bool same(struct engine_request *r, const struct answer *want, bool with_top, uint32_t stop_at, void (*at)(void *arg), void *arg)
{
    struct engine_event ev;
    uint32_t n = 0, n_top = 0;
    bool good = true;

    for (;;) {
        if (engine_next(r, EVENT_MS, &ev) != 0) {
            tap_note("no event for %d ms after %u tokens", EVENT_MS, n);
            return false;
        }
        if (ev.kind == ENGINE_FAILED) {
            tap_note("failed: %s", ev.err.text);
            return false;
        }
        if (ev.kind == ENGINE_DONE)
            break;
        if (ev.kind == ENGINE_PROMPT && !with_top)
            continue;
        if (ev.kind == ENGINE_PAUSE)
            continue;
        if (with_top) {
            good = good && ev.n_top == TOP && n_top < want->n_top &&
                   memcmp(ev.top_ids, want->top_ids[n_top], sizeof want->top_ids[0]) == 0 &&
                   memcmp(ev.top_logprobs, want->top_logprobs[n_top], sizeof want->top_logprobs[0]) == 0;
            n_top++;
        }
        if (ev.kind == ENGINE_TOKEN) {
            good = good && n < want->n && ev.token == want->tokens[n] && memcmp(&ev.logprob, &want->logprobs[n], sizeof ev.logprob) == 0;
            n++;
        }
        if (at && n == stop_at) {
            at(arg);
            at = NULL;
        }
    }
    if (!good || n != want->n || (with_top && n_top != want->n_top))
        tap_note("%u of %u tokens, %u of %u rows of log-probabilities", n, want->n, n_top, want->n_top);
    return good && n == want->n && (!with_top || n_top == want->n_top);
}

static void test_spec(const char *name, unsigned workers, uint32_t parallel, uint32_t rows, bool with_top)
{
    static struct answer cases[CASES];
    struct engine_request *r[CASES];
    bool good = true;

    snprintf(path, sizeof path, "%s/%s.gguf", model_folder(), name);
    if (access(path, R_OK) != 0)
        model_write(model_spec_of(name), QUANT_Q8_0, path);
    make_cases(cases, workers);
    make_wanted(cases);
    struct engine *e = open_engine(workers, parallel, rows);
    for (uint32_t i = 0; i < CASES; i++)
        r[i] = ask(e, &cases[i], with_top);
    for (uint32_t i = 0; i < CASES; i++) {
        if (!same(r[i], &cases[i], with_top, 0, NULL, NULL)) {
            tap_note("case %u", i);
            good = false;
        }
        engine_release(r[i]);
    }
    ok(good, "%s over %u worker%s, %u at once, %u rows%s: one session's answers", name, workers, workers == 1 ? "" : "s", parallel, rows,
       with_top ? ", log-probabilities" : "");
    engine_destroy(e);
}

/* --- a worker dies -------------------------------------------------------------------------------------------------------- */

struct killer {
    struct engine *e;
    const char *worker;
    int sig;
};

static void kill_worker(void *arg)
{
    struct killer *k = arg;
    json_t *status = engine_status(k->e), *node;
    size_t i;

    json_array_foreach(json_object_get(status, "nodes"), i,
                       node) if (strcmp(json_string_value(json_object_get(node, "name")), k->worker) == 0)
        kill((pid_t)json_integer_value(json_object_get(node, "pid")), k->sig);
    json_decref(status);
}

static void test_kill(const char *name, unsigned workers, unsigned victim, int sig)
{
    static struct answer cases[CASES];
    struct engine_request *r[CASES];
    char worker[16];
    bool good = true;

    snprintf(path, sizeof path, "%s/%s.gguf", model_folder(), name);
    if (access(path, R_OK) != 0)
        model_write(model_spec_of(name), QUANT_Q8_0, path);
    make_cases(cases, workers + 3);
    for (uint32_t i = 0; i < CASES; i++)
        cases[i].n_new = NEW_MAX;
    make_wanted(cases);
    struct engine *e = open_engine(workers, 4, 32);
    snprintf(worker, sizeof worker, "worker%u", victim);
    for (uint32_t i = 0; i < CASES; i++)
        r[i] = ask(e, &cases[i], false);
    for (uint32_t i = 0; i < CASES; i++) {
        struct killer k = {e, worker, sig};
        if (!same(r[i], &cases[i], false, 3, i < 2 ? kill_worker : NULL, &k)) {
            tap_note("case %u", i);
            good = false;
        }
        engine_release(r[i]);
    }
    ok(good, "%s over %u workers: the same answers though worker %u gets signal %d, twice", name, workers, victim, sig);
    engine_destroy(e);
}

int main(void)
{
    snprintf(program, sizeof program, "%s/stagecoach", getenv("SC_BUILD") ? getenv("SC_BUILD") : ".");
    if (access(program, X_OK) != 0)
        tap_skip_all("%s is not there", program);
    test_spec("llama", 1, 4, 64, true);
    test_spec("llama", 2, 4, 64, false);
    test_spec("llama", 3, 4, 16, true);
    test_spec("gemma2", 3, 3, 32, true);
    test_spec("gemma3", 2, 6, 48, false);
    test_spec("llama-experts", 3, 4, 64, true);
    test_spec("qwen2-tied", 2, 2, 64, true);
    for (unsigned victim = 0; victim < 3; victim++)
        test_kill("llama", 3, victim, SIGKILL);
    test_kill("gemma2", 3, 1, SIGKILL);
    test_kill("llama", 2, 1, SIGSTOP);
    return tap_done();
}
