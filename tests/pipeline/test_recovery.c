/* One by one what test_chaos draws by lot, and what it cannot see: links like those of a house, how long streams stand still, what
 * those are told who wait too long, that a coordinator finds its weights again, that nothing grows from fault to fault. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/pipeline/rig.h"
#include "tests/tap.h"

enum {
    ANSWERS = 8,
    LAYERS = 6,
    BIG = 24,
    STREAM_MS = 60000,
    ROUNDS = 8,
    STORM = 300,
    FDS_SLACK = 2,
    RSS_SLACK_KIB = 6 << 10,
    SLACK_BYTES = 64 << 10,
};

static struct answer answers[ANSWERS];

/* All answers at once, to their ends. before: called once when the first stream has so many tokens. */
static bool all_the_same(struct engine *e, bool with_top, uint32_t when, void (*at)(void *), void *arg, int64_t *ret_gap_ms)
{
    struct stream s[ANSWERS];
    bool good = true;
    unsigned open = ANSWERS;
    int64_t until = rig_now_ms() + STREAM_MS, gap = 0;

    for (int i = 0; i < ANSWERS; i++)
        stream_begin(&s[i], e, &answers[i], with_top, UINT32_MAX);
    while (open > 0 && rig_now_ms() < until) {
        open = 0;
        for (int i = 0; i < ANSWERS; i++) {
            open += !stream_read(&s[i], 1);
            if (at && s[i].n >= when && s[i].n < s[i].want->n) {
                at(arg);
                at = NULL;
            }
        }
    }
    for (int i = 0; i < ANSWERS; i++) {
        gap = s[i].gap_ms > gap ? s[i].gap_ms : gap;
        good = stream_end(&s[i]) && good;
    }
    if (ret_gap_ms)
        *ret_gap_ms = gap;
    if (!good)
        rig_show_notes();
    return good;
}

/* --- links like those of a house ----------------------------------------------------------------------------------------- */

/* 1 to 6 stages with SC_LONG; else every fourth number of them, beginning with `first`. */
static void test_links(const char *model, const char *name, const char *const *commands, unsigned n_commands, unsigned first)
{
    struct rig *rig = rig_create(model, LAYERS, 0, (uint64_t)1 << 30);
    for (unsigned i = 0; i < rig->n; i++)
        for (unsigned k = 0; k < n_commands; k++)
            rig_link(rig, i, "%s", commands[k]);
    for (unsigned stages = first; stages <= LAYERS; stages += getenv("SC_LONG") ? 1 : 4) {
        rig_pin(rig, stages, LAYERS);
        struct engine_options o = rig_options(rig, model, 0);
        struct engine *e = rig_engine(&o);
        json_t *status = engine_status(e);
        size_t n = json_array_size(json_object_get(status, "stages"));
        json_decref(status);
        ok(n == stages && all_the_same(e, stages % 2, 0, NULL, NULL, NULL), "%u stage%s over %s: one session's answers%s", stages,
           stages == 1 ? "" : "s", name, stages % 2 ? " and log-probabilities" : "");
        engine_destroy(e);
    }
    rig_destroy(rig);
}

/* --- a worker dies, another stands by ------------------------------------------------------------------------------------ */

struct victim {
    struct rig *rig;
    unsigned node;
    int sig;           /* 0: none */
    const char *link; /* what its link's relay is told; NULL: nothing */
};

static void strike(void *arg)
{
    struct victim *v = arg;
    if (v->sig)
        kill(v->rig->nodes[v->node].pid, v->sig);
    if (v->link)
        rig_link(v->rig, v->node, "%s", v->link);
}

/* The first stage's node; the rig's nodes are called n0, n1, … */
static unsigned node_of_stage(struct engine *e, unsigned stage)
{
    json_t *status = engine_status(e);
    const char *name = json_string_value(json_object_get(json_array_get(json_object_get(status, "stages"), stage), "node"));
    unsigned node = name ? (unsigned)(name[1] - '0') : 0;
    json_decref(status);
    return node;
}

/* Until so many nodes are there: then one of them stands by. */
static void await_nodes(struct engine *e, size_t n)
{
    for (int64_t until = rig_now_ms() + STREAM_MS; rig_now_ms() < until; rig_sleep_ms(20)) {
        json_t *status = engine_status(e), *node;
        size_t i, here = 0;
        json_array_foreach(json_object_get(status, "nodes"), i, node) here +=
            strcmp(json_string_value(json_object_get(node, "state")), "here") == 0;
        json_decref(status);
        if (here >= n)
            return;
    }
}

static void test_standby(const char *model)
{
    struct rig *rig = rig_create(model, 4, 1, rig_memory_for(model, 3) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    static const struct {
        const char *what;
        int sig;
        const char *link, *after;
        bool later; /* may be noticed when the answers have ended already: the bit may be one of a link that says only that it lives */
    } faults[] = {
        {"is killed", SIGKILL, NULL, NULL, false},
        {"hangs (SIGSTOP)", SIGSTOP, NULL, NULL, false},
        {"is behind a link that is half open", 0, "halt on", "halt off", false},
        {"is behind a link that flips a bit", 0, "corrupt", NULL, true},
        {"is behind a link that is cut", 0, "cut", NULL, false},
    };

    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct engine *e = rig_engine(&o);
        await_nodes(e, 4);
        struct victim v = {rig, node_of_stage(e, 1), faults[i].sig, faults[i].link};
        int64_t gap = 0;
        char text[256] = "";
        rig_forget_notes();
        bool good = all_the_same(e, false, 2, strike, &v, &gap);
        if (!rig_note("runs again", text, sizeof text))
            tap_note("it was not interrupted");
        ok(good && (text[0] || faults[i].later), "a worker %s, another stands by: the same answers", faults[i].what);
        tap_note("the longest time without a token: %" PRId64 " ms; %s", gap, text);
        engine_destroy(e);
        if (faults[i].after)
            rig_link(rig, v.node, "%s", faults[i].after);
        kill(rig->nodes[v.node].pid, SIGKILL);
        while (rig_reap(rig, v.node) == -1)
            rig_sleep_ms(5);
        rig_start(rig, v.node);
    }
    rig_destroy(rig);
}

/* --- no memory while loading, at the start ---------------------------------------------------------------------------------- */

/* An engine whose node n1 gets no more memory once it has said what it has, before anything is loaded. */
static struct engine *begin_without_memory(struct rig *rig, const char *model)
{
    struct engine_options o = rig_options(rig, model, 0);
    struct err err = {0};
    char text[256];

    kill(rig->nodes[2].pid, SIGKILL); /* it is waited for */
    while (rig_reap(rig, 2) == -1)
        rig_sleep_ms(5);
    rig_forget_notes();
    struct engine *e = engine_create(&o, &err);
    if (!e)
        rig_bail("engine_create", &err);
    while (!rig_note("node n1 is here", text, sizeof text))
        rig_sleep_ms(2);
    rig_limit_memory(rig->nodes[1].pid, true);
    rig_start(rig, 2);
    return e;
}

/* A limit cannot be set so that only layers get nothing: a thread may give memory back after it was taken, so that all is loaded, or libzmq
 * may be the first to get none, and ends the process without a word of ours. Then it is tried anew. */
enum { LIMIT_TRIES = 5 };

static void test_no_memory(const char *model)
{
    char text[256] = "";
    struct err err = {0};
    bool told = false;

    for (int i = 0; i < LIMIT_TRIES && !told; i++) {
        struct rig *rig = rig_create(model, 4, 1, rig_memory_for(model, 3) + SLACK_BYTES);
        struct engine *e = begin_without_memory(rig, model);
        if (engine_wait_ready(e, STREAM_MS, &err) < 0)
            rig_bail("a worker gets no memory for its layers at the start, another stands by", &err);
        told = rig_note("node n1: ", text, sizeof text);
        if (!told)
            tap_note("try %d: it got memory, or libzmq got none", i + 1);
        if (told || i + 1 == LIMIT_TRIES)
            ok(all_the_same(e, false, 0, NULL, NULL, NULL), "a worker gets no memory for its layers at the start: another has taken its place");
        engine_destroy(e);
        rig_destroy(rig);
    }
    ok(told, "what it said is told: %s", text);

    told = false;
    for (int i = 0; i < LIMIT_TRIES && !told; i++) {
        struct rig *rig = rig_create(model, 3, 0, rig_memory_for(model, 3) + SLACK_BYTES);
        struct engine *e = begin_without_memory(rig, model);
        told = engine_wait_ready(e, STREAM_MS, &err) < 0 && strstr(err.text, "node n1: ");
        if (!told)
            tap_note("try %d: it got memory, or libzmq got none: %s", i + 1, err.text);
        engine_destroy(e);
        rig_destroy(rig);
    }
    ok(told, "where nobody can, the start fails with the worker's sentence: %s", err.text);
}

static pid_t own_pid(struct engine *e, size_t worker)
{
    json_t *status = engine_status(e);
    pid_t pid = (pid_t)json_integer_value(json_object_get(json_array_get(json_object_get(status, "nodes"), worker), "pid"));
    json_decref(status);
    return pid;
}

/* Which of the first n workers has the fewest layers: another cut in which they have all of them gives it more. */
static unsigned with_fewest(struct engine *e, unsigned n)
{
    json_t *status = engine_status(e), *stage;
    int layers[8] = {0};
    size_t i;
    unsigned fewest = 0;
    json_array_foreach(json_object_get(status, "stages"), i, stage) {
        const json_t *range = json_object_get(stage, "layers");
        unsigned worker = 0;
        if (sscanf(json_string_value(json_object_get(stage, "node")), "worker%u", &worker) == 1 && worker < 8)
            layers[worker] += (int)(json_integer_value(json_array_get(range, 1)) - json_integer_value(json_array_get(range, 0))) + 1;
    }
    json_decref(status);
    for (unsigned w = 1; w < n; w++)
        fewest = layers[w] < layers[fewest] ? w : fewest;
    return fewest;
}

/* Of two or three workers of our own the last is drained for so long that nothing else waits for it; one of the others, which would take
 * more layers then, gets no more memory. */
static struct engine *begin_own_without_memory(const char *model, unsigned workers, unsigned *ret_worker, pid_t *ret_pid)
{
    enum { LONG_S = 600 };
    struct engine_options o = rig_options(NULL, model, workers);
    struct engine *e = rig_engine(&o);
    char name[16];
    struct err err;

    snprintf(name, sizeof name, "worker%u", workers - 1);
    rig_forget_notes();
    *ret_worker = with_fewest(e, workers - 1);
    rig_limit_memory(*ret_pid = own_pid(e, *ret_worker), true);
    if (engine_command(e, ENGINE_DRAIN, name, LONG_S, &err) != 0)
        rig_bail("drain", &err);
    return e;
}

static void test_own_no_memory(const char *model)
{
    char text[256] = "", said[32];
    unsigned worker;
    pid_t pid;
    struct engine *e;
    bool good = true, told = false;

    for (int i = 0; i < LIMIT_TRIES && !told; i++) {
        e = begin_own_without_memory(model, 3, &worker, &pid);
        good = all_the_same(e, false, 0, NULL, NULL, NULL) && good;
        snprintf(said, sizeof said, "node worker%u: ", worker);
        told = rig_note(said, text, sizeof text);
        if (!told)
            tap_note("try %d: it got memory, or libzmq got none", i + 1);
        engine_destroy(e);
    }
    ok(good, "one of our own gets no memory for more layers: the others take them");
    ok(told, "what it said is told: %s", text);

    e = begin_own_without_memory(model, 2, &worker, &pid);
    for (int64_t until = rig_now_ms() + STREAM_MS; !rig_note("no plan", text, sizeof text) && rig_now_ms() < until;)
        rig_sleep_ms(20);
    ok(strstr(text, "no plan"), "where there are no others, there is no plan: %s", text);
    rig_limit_memory(pid, false);
    ok(all_the_same(e, false, 0, NULL, NULL, NULL), "when there is memory again, it is asked again, by itself");
    engine_destroy(e);
}

/* --- drained for a while ---------------------------------------------------------------------------------------------------- */

static void drain_n1(void *arg)
{
    struct err err;
    if (engine_command(arg, ENGINE_DRAIN, "n1", 1, &err) != 0)
        tap_note("%s", err.text);
}

static void test_drain(const char *model)
{
    struct rig *rig = rig_create(model, 3, 0, rig_memory_for(model, 3) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    char text[256] = "";

    rig_forget_notes();
    ok(all_the_same(e, false, 2, drain_n1, e, NULL), "a node that is needed is drained for 1 s in the middle of answers: they wait, and are the same");
    ok(rig_note("n1 may be used again", text, sizeof text), "it comes back by itself");
    engine_destroy(e);
    rig_destroy(rig);
    rig = rig_create(model, 4, 0, rig_memory_for(model, 3) + SLACK_BYTES);
    o = rig_options(rig, model, 0);
    e = rig_engine(&o);
    await_nodes(e, 4);
    rig_forget_notes();
    ok(all_the_same(e, false, 2, drain_n1, e, NULL), "where there are others, they take its part: the same answers");
    for (int64_t until = rig_now_ms() + STREAM_MS; !rig_note("n1 may be used again", text, sizeof text) && rig_now_ms() < until;)
        rig_sleep_ms(20);
    await_nodes(e, 4);
    ok(all_the_same(e, false, 0, NULL, NULL, NULL), "when it is back, answers go on");
    engine_destroy(e);
    rig_destroy(rig);
}

/* --- too long ------------------------------------------------------------------------------------------------------------ */

static void test_timeout(const char *model)
{
    struct rig *rig = rig_create(model, 3, 0, rig_memory_for(model, 3) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    struct stream s[2];

    o.recover_timeout_ms = 1500;
    struct engine *e = rig_engine(&o);
    kill(rig->nodes[0].pid, SIGKILL);
    rig_sleep_ms(300);
    int64_t from = rig_now_ms();
    for (int i = 0; i < 2; i++) /* while there is no pipeline */
        stream_begin(&s[i], e, &answers[i], false, UINT32_MAX);
    engine_cancel(s[1].r);
    ok(stream_read(&s[1], 2000) && s[1].cancelled, "a request is cancelled while the pipeline is down");
    ok(stream_read(&s[0], 100) || stream_read(&s[0], 5000), "nobody waits longer than the recover timeout");
    ok(rig_now_ms() - from < 4000, "… which is %u ms", o.recover_timeout_ms);
    has_str(s[0].err.text, "could not be repaired within 1 s", "it is said how long");
    has_str(s[0].err.text, "cannot hold the model", "and why");
    engine_release(s[0].r);
    engine_release(s[1].r);
    while (rig_reap(rig, 0) == -1)
        rig_sleep_ms(5);
    rig_start(rig, 0);
    int64_t until = rig_now_ms() + STREAM_MS;
    struct err err;
    while (engine_wait_ready(e, 100, &err) != 0 && rig_now_ms() < until)
        rig_sleep_ms(10);
    ok(all_the_same(e, false, 0, NULL, NULL, NULL), "when the node is back, answers come again");
    engine_destroy(e);
    rig_destroy(rig);
}

/* --- a coordinator restarted --------------------------------------------------------------------------------------------- */

static unsigned count_loads(const struct rig *rig, bool from_memory)
{
    unsigned all = 0, kept = 0;
    for (unsigned i = 0; i < rig->n; i++) {
        all += rig_said(rig, i, "ready: stage");
        kept += rig_said(rig, i, "from memory");
    }
    return from_memory ? kept : all - kept;
}

static void test_restart(const char *model)
{
    struct rig *rig = rig_create(model, 3, 0, rig_memory_for(model, 3) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);

    unsigned loads = count_loads(rig, false), kept = count_loads(rig, true);
    for (int i = 0; i < 3; i++) {
        struct stream s;
        stream_begin(&s, e, &answers[i], false, UINT32_MAX);
        engine_destroy(e); /* with a request open */
        ok(stream_read(&s, 1000) && (s.failed || s.finished) && !s.wrong, "a stopped engine ends its requests");
        engine_release(s.r);
        e = rig_engine(&o);
        ok(all_the_same(e, i == 0, 0, NULL, NULL, NULL), "a coordinator of the same workers, restart %d: the same answers", i + 1);
    }
    is_int(count_loads(rig, false), loads, "no weights were loaded again");
    is_int(count_loads(rig, true), kept + 3 * 3, "they were still there");
    engine_destroy(e);
    rig_destroy(rig);
}

/* --- nothing grows -------------------------------------------------------------------------------------------------------- */

static void one_round(struct engine *e, struct rig *rig, unsigned i)
{
    struct err err;
    struct victim v = {rig, 0, 0, NULL};
    if (i % 2)
        v = (struct victim){rig, i / 2 % rig->n, 0, "cut"};
    else
        engine_command(e, ENGINE_REPLAN, NULL, 0, &err);
    ok(all_the_same(e, false, 3, strike, &v, NULL), "round %u of faults: the same answers", i);
}

static void test_leaks(const char *model)
{
    struct rig *rig = rig_create(model, 3, 0, rig_memory_for(model, 3) + SLACK_BYTES);
    struct engine_options o = rig_options(rig, model, 0);
    int fds[4], fds_after[4];
    long rss[4];

    for (int pass = 0; pass < 2; pass++) {
        for (unsigned engines = 0; engines < 2; engines++) {
            struct engine *e = rig_engine(&o);
            for (unsigned i = 0; i < ROUNDS / 2; i++)
                one_round(e, rig, i);
            engine_destroy(e);
        }
        rig_sleep_ms(1500); /* links that are closing */
        for (unsigned i = 0; i < 4; i++) {
            pid_t pid = i < 3 ? rig->nodes[i].pid : getpid();
            fds_after[i] = rig_fds(pid);
            if (pass == 0) {
                fds[i] = fds_after[i];
                rss[i] = rig_rss_kib(pid);
                continue;
            }
            long more = rig_rss_kib(pid) - rss[i];
            ok(fds_after[i] <= fds[i] + FDS_SLACK, "%s has %d open descriptors, %d before", i < 3 ? rig->nodes[i].name : "the coordinator",
               fds_after[i], fds[i]);
            ok(more < RSS_SLACK_KIB, "and %ld KiB more memory after %d faults", more, ROUNDS);
        }
    }
    rig_destroy(rig);
}

/* --- many requests ------------------------------------------------------------------------------------------------------- */

static void test_requests(const char *model)
{
    struct engine_options o = rig_options(NULL, model, 3);
    struct stream s[STORM];
    bool good = true;
    struct err err;

    o.parallel = 1;
    struct engine *e = rig_engine(&o);
    ok(all_the_same(e, true, 0, NULL, NULL, NULL), "one at a time, %d at once: the same answers", ANSWERS);
    for (int i = 0; i < STORM; i++) {
        stream_begin(&s[i], e, &answers[i % ANSWERS], false, (uint32_t)rig_draw(3));
        if (i % 3 == 0)
            engine_cancel(s[i].r);
        if (i == STORM / 2)
            engine_command(e, ENGINE_REPLAN, NULL, 0, &err);
    }
    for (int i = 0; i < STORM; i++) {
        for (int64_t until = rig_now_ms() + STREAM_MS; !s[i].finished && rig_now_ms() < until;)
            stream_read(&s[i], 10);
        good = s[i].finished && !s[i].wrong && !s[i].failed && good;
        engine_release(s[i].r);
    }
    ok(good, "%d requests that are cancelled: each ends", STORM);
    struct engine_request **r = calloc(ENGINE_MAX_REQUESTS, sizeof *r);
    struct engine_params p = {.tokens = answers[0].prompt, .n_tokens = answers[0].n_prompt, .n_new = RIG_NEW_MAX, .sample = answers[0].sample};
    unsigned n = 0;
    while (r && n < ENGINE_MAX_REQUESTS && (r[n] = engine_submit(e, &p, &err)))
        n++;
    is_int(n, ENGINE_MAX_REQUESTS, "as many requests as there may be");
    ok(!engine_submit(e, &p, &err) && err.kind == ERR_BUSY, "and no more: %s", err.text);
    int64_t from = rig_now_ms();
    engine_destroy(e);
    good = true;
    tap_note("ended with all of them open in %" PRId64 " ms", rig_now_ms() - from);
    for (unsigned i = 0; i < n; i++) {
        struct engine_event ev;
        do
            good = engine_next(r[i], 0, &ev) == 0 && good;
        while (good && ev.kind != ENGINE_FAILED && ev.kind != ENGINE_DONE);
        engine_release(r[i]);
    }
    ok(good, "each of them has been told");
    free(r);
}

int main(void)
{
    static const char *const gigabit[] = {"rate 1000", "delay 0.5"};
    static const char *const wifi[] = {"rate 300", "delay 5", "jitter 5"};
    const char *model;

    rig_program();
    rig_seed();
    model = rig_model(LAYERS, BIG);
    rig_answers(model, answers, ANSWERS);
    test_requests(model);
    test_standby(model);
    if (RIG_CAN_LIMIT) {
        test_no_memory(model);
        test_own_no_memory(model);
    }
    test_drain(model);
    test_timeout(model);
    test_restart(model);
    test_leaks(model);
    test_links(model, "1 Gbit/s + 0.5 ms", gigabit, 2, getenv("SC_LONG") ? 1 : 2);
    test_links(model, "300 Mbit/s + 5 to 10 ms", wifi, 3, getenv("SC_LONG") ? 1 : 3);
    ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "no process is left");
    return tap_done();
}
