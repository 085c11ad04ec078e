/* The pipeline under faults drawn by lot, with streams open all the time: workers killed, stopped, told to end, short of memory;
 * links cut, half open, slow, corrupted; the coordinator restarted; plans changed. Whatever happens, every stream has the
 * tokens of one process, none waits for ever, nothing is left behind. SC_SEED repeats a run; SC_LONG=1 makes more than 200
 * faults; SC_VERBOSE=1 shows what the engine says. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sched/trace.h"
#include "tests/model/model_build.h"
#include "tests/pipeline/rig.h"
#include "tests/tap.h"

enum {
    STREAMS = 5,
    ANSWERS = 24,
    LAYERS = 6,
    BIG = 24,          /* the feed-forward part: memory then decides how many nodes are needed */
    HANG_MS = 60000,   /* nothing comes for so long: it hangs */
    CALM_MS = 20000,   /* for tokens to come again before a fault in the middle of answers */
    UNDO_MS = 1800,    /* a fault lasts at most so long */
    AGAIN_MS = 700,    /* a process that ended is started again within so long */
    PLAN_NODES = 3,    /* so many are needed; one more stands by */
    LONG_REMOTE = 15,  /* of each kind */
    LONG_OWN = 8,
    SLACK_BYTES = 64 << 10,
};

enum fault {
    KILL, STOP, TERM, MEMORY, REPLAN, DRAIN,
    OWN_FAULTS, /* what can befall workers of our own */
    COORDINATOR = OWN_FAULTS, CUT, HALF_OPEN, SLOW, CORRUPT,
    FAULTS,
};
static const char *const names[FAULTS] = {
    [KILL] = "killed", [STOP] = "stopped", [TERM] = "told to end", [MEMORY] = "short of memory", [REPLAN] = "a new plan asked for",
    [DRAIN] = "drained", [COORDINATOR] = "the coordinator restarted", [CUT] = "its links cut", [HALF_OPEN] = "its links half open",
    [SLOW] = "its links slow", [CORRUPT] = "a bit flipped on its links",
};

struct trouble {
    enum fault kind;
    int64_t undo_ms, again_ms; /* 0: not now */
    bool expected, limited;    /* expected: its process may end */
};

static struct {
    struct rig *rig; /* NULL: workers of our own */
    unsigned n_nodes;
    struct engine *e;
    struct engine_options options;
    struct answer answers[ANSWERS];
    struct stream streams[STREAMS];
    struct trouble trouble[RIG_NODES_MAX];
    unsigned count[FAULTS], n_faults, n_mid, n_streams;
    int64_t token_ms; /* of any stream */
    bool bad;
} run;

/* --- who is where -------------------------------------------------------------------------------------------------------- */

/* A node's own JSON in the status; *ret_status is to be released. */
static json_t *node_status(unsigned node, json_t **ret_status)
{
    char name[16];
    size_t i;
    json_t *n;

    snprintf(name, sizeof name, run.rig ? "n%u" : "worker%u", node);
    *ret_status = engine_status(run.e);
    json_array_foreach(json_object_get(*ret_status, "nodes"), i, n) if (strcmp(json_string_value(json_object_get(n, "name")), name) == 0)
        return n;
    return NULL;
}

static pid_t pid_of(unsigned node)
{
    json_t *status;
    if (run.rig)
        return run.rig->nodes[node].pid;
    pid_t pid = (pid_t)json_integer_value(json_object_get(node_status(node, &status), "pid"));
    json_decref(status);
    return pid;
}

static bool in_chain(unsigned node)
{
    json_t *status, *stage = json_object_get(node_status(node, &status), "stage"); /* json_is_integer looks twice */
    bool is = json_is_integer(stage);
    json_decref(status);
    return is;
}

/* Mostly one that matters, and none that is in trouble already; UINT_MAX: there is none. */
static unsigned choose_node(void)
{
    for (int tries = 0; tries < 20; tries++) {
        unsigned node = (unsigned)rig_draw(run.n_nodes);
        if (!run.trouble[node].undo_ms && !run.trouble[node].again_ms && pid_of(node) && (in_chain(node) || tries > 10 || rig_draw(6) == 0))
            return node;
    }
    return UINT32_MAX;
}

/* --- faults -------------------------------------------------------------------------------------------------------------- */

static void start_anew(struct stream *s)
{
    s->finished = false;
    stream_begin(s, run.e, s->want, s->with_top, s->cancel_at == UINT32_MAX - 1 ? UINT32_MAX : s->cancel_at);
}

static void undo(unsigned node);
static void mind_processes(void);

static void mind_troubles(void)
{
    mind_processes();
    for (unsigned i = 0; i < run.n_nodes; i++)
        if (run.trouble[i].undo_ms && rig_now_ms() >= run.trouble[i].undo_ms)
            undo(i);
}

/* Others' troubles may be what keeps it from getting ready: they go on ending meanwhile. */
static void restart_coordinator(void)
{
    int64_t until = rig_now_ms() + HANG_MS;
    struct err err = {0};
    int rc;

    engine_destroy(run.e);
    for (int i = 0; i < STREAMS; i++) { /* their ends are told, and not waited for */
        struct stream *s = &run.streams[i];
        if (!stream_read(s, 0) || (s->failed && !strstr(s->err.text, "stopped")) || s->wrong) {
            tap_note("stream %d did not end well with its engine", i);
            run.bad = true;
        }
        engine_release(s->r);
    }
    if (!(run.e = engine_create(&run.options, &err)))
        rig_bail("engine_create", &err);
    while ((rc = engine_wait_ready(run.e, 5, &err)) > 0 && rig_now_ms() < until)
        mind_troubles();
    if (rc != 0)
        rig_bail("the coordinator does not come up again", &err);
    for (int i = 0; i < STREAMS; i++)
        start_anew(&run.streams[i]);
}

static void drain(unsigned node)
{
    char name[16];
    struct err err;
    snprintf(name, sizeof name, run.rig ? "n%u" : "worker%u", node);
    if (engine_command(run.e, ENGINE_DRAIN, name, 1, &err) != 0) {
        tap_note("drain %s: %s", name, err.text);
        run.bad = true;
    }
}

static void cause(enum fault kind, unsigned node)
{
    struct trouble *t = &run.trouble[node];
    pid_t pid = pid_of(node);
    struct err err;

    t->kind = kind;
    t->undo_ms = rig_now_ms() + 100 + (int64_t)rig_draw(UNDO_MS);
    switch (kind) {
    case KILL:
        t->expected = true;
        kill(pid, SIGKILL);
        break;
    case STOP:
        t->expected = !run.rig; /* our own are killed and started again */
        kill(pid, SIGSTOP);
        break;
    case TERM:
        t->expected = true;
        kill(pid, SIGTERM);
        break;
    case MEMORY:
        t->expected = true;
        t->limited = RIG_CAN_LIMIT && (!run.rig || rig_draw(2));
        if (t->limited) {
            rig_limit_memory(pid, true);
            drain((node + 1) % run.n_nodes); /* so that it is asked to load more */
        } else {
            if (run.rig)
                snprintf(run.rig->nodes[node].ram, sizeof run.rig->nodes[node].ram, "100MiB"); /* less than any plan asks for */
            kill(pid, SIGKILL);
        }
        break;
    case REPLAN: engine_command(run.e, ENGINE_REPLAN, NULL, 0, &err); break;
    case DRAIN: drain(node); break;
    case COORDINATOR: restart_coordinator(); break;
    case CUT: rig_link(run.rig, node, "cut"); break;
    case HALF_OPEN: rig_link(run.rig, node, "halt on"); break;
    case SLOW:
        rig_link(run.rig, node, "rate %u", 1 + (unsigned)rig_draw(8));
        rig_link(run.rig, node, "delay %u", 1 + (unsigned)rig_draw(60));
        break;
    case CORRUPT: rig_link(run.rig, node, "corrupt %u", (unsigned)rig_draw(3000)); break;
    default: break;
    }
}

static void undo(unsigned node)
{
    struct trouble *t = &run.trouble[node];
    pid_t pid = run.rig ? run.rig->nodes[node].pid : t->limited ? pid_of(node) : 0;

    t->undo_ms = 0;
    if (pid && t->kind == STOP)
        kill(pid, SIGCONT);
    if (pid && t->limited)
        rig_limit_memory(pid, false);
    if (run.rig && t->kind == MEMORY && !t->limited) {
        run.rig->nodes[node].ram[0] = 0;
        if (pid)
            kill(pid, SIGKILL);
    }
    if (run.rig && t->kind == HALF_OPEN)
        rig_link(run.rig, node, "halt off");
    if (run.rig && t->kind == SLOW) {
        rig_link(run.rig, node, "rate 0");
        rig_link(run.rig, node, "delay 0");
    }
    t->limited = false;
}

/* A remote worker that ended is started again after a while. One that ended unasked has crashed. */
static void mind_processes(void)
{
    for (unsigned i = 0; run.rig && i < run.n_nodes; i++) {
        struct trouble *t = &run.trouble[i];
        int status = rig_reap(run.rig, i);
        if (status != -1) {
            if (!t->expected) {
                tap_note("worker n%u ended with status %#x: see what it said", i, (unsigned)status);
                rig_show_logs();
                run.bad = true;
            }
            t->again_ms = rig_now_ms() + 1 + (int64_t)rig_draw(AGAIN_MS);
        }
        if (t->again_ms && rig_now_ms() >= t->again_ms) {
            t->again_ms = 0;
            t->expected = t->undo_ms != 0;
            rig_start(run.rig, i);
        }
    }
}

/* --- streams ------------------------------------------------------------------------------------------------------------- */

static void begin_stream(struct stream *s)
{
    const struct answer *a = &run.answers[rig_draw(ANSWERS)];
    stream_begin(s, run.e, a, rig_draw(4) == 0, rig_draw(8) == 0 ? (uint32_t)rig_draw(a->n_new) : UINT32_MAX);
    run.n_streams++;
}

/* Reads all streams; those that ended begin anew if `on`. */
static unsigned mind_streams(bool on)
{
    unsigned open = 0;
    for (int i = 0; i < STREAMS; i++) {
        struct stream *s = &run.streams[i];
        uint32_t before = s->n;
        if (!s->r && !on)
            continue;
        if (s->r && stream_read(s, 0) && !stream_end(s))
            run.bad = true;
        if (s->n != before)
            run.token_ms = rig_now_ms();
        if (!s->r && on)
            begin_stream(s);
        open += s->r != NULL;
        if (s->r && rig_now_ms() - s->token_ms > HANG_MS) {
            json_t *status = engine_status(run.e);
            char *text = json_dumps(status, JSON_INDENT(1));
            tap_note("stream %d hangs: nothing for %d s after %u tokens\n%s", i, HANG_MS / 1000, s->n, text);
            free(text);
            json_decref(status);
            rig_show_notes();
            rig_bail("a stream hangs", &(struct err){.text = "nothing comes any more"});
        }
    }
    return open;
}

static void tend(bool on)
{
    mind_streams(on);
    mind_troubles();
    rig_sleep_ms(1);
}

static bool mid_answer(void)
{
    for (int i = 0; i < STREAMS; i++)
        if (run.streams[i].n > 0 && run.streams[i].n < run.streams[i].want->n)
            return true;
    return false;
}

/* Every second fault comes while answers flow; the others whenever it happens to be, perhaps while the last one is repaired. */
static void wait_for_turn(void)
{
    int64_t from = rig_now_ms(), until = from + (int64_t)rig_draw(900);
    bool calm = run.n_faults % 2 == 0;
    while (calm ? !(run.token_ms > from && mid_answer()) && rig_now_ms() - from < CALM_MS : rig_now_ms() < until)
        tend(true);
}

static void next_fault(enum fault kind)
{
    unsigned node;
    wait_for_turn();
    while ((node = choose_node()) == UINT32_MAX)
        tend(true);
    run.n_mid += mid_answer();
    run.n_faults++;
    run.count[kind]++;
    tap_note("%" PRId64 " ms: fault %u: node %u: %s", rig_now_ms() % 1000000, run.n_faults, node, names[kind]);
    cause(kind, node);
}

/* --- runs ---------------------------------------------------------------------------------------------------------------- */

static void shuffle(enum fault *deck, unsigned n)
{
    for (unsigned i = n; i > 1; i--) {
        unsigned k = (unsigned)rig_draw(i);
        enum fault swap = deck[i - 1];
        deck[i - 1] = deck[k];
        deck[k] = swap;
    }
}

static void settle(void)
{
    int64_t from = rig_now_ms();
    bool trouble = true;
    while (trouble) {
        trouble = false;
        tend(true);
        for (unsigned i = 0; i < run.n_nodes; i++)
            trouble = trouble || run.trouble[i].undo_ms || run.trouble[i].again_ms;
    }
    while (run.token_ms < from || rig_now_ms() - from < 200)
        tend(true);
    while (mind_streams(false))
        rig_sleep_ms(1);
}

/* What the schedule was told and decided in the last engine's life leads to the same decisions again. */
static void replay_trace(void)
{
    struct err err = {0};
    struct replay *r = replay_create(&err);
    FILE *f = fopen(run.options.trace_path, "re");
    char *line = NULL;
    size_t room = 0, n = 0;
    ssize_t len;
    bool good = r && f;

    while (good && (len = getline(&line, &room, f)) > 0) {
        good = replay_line(r, line, (size_t)len - (line[len - 1] == '\n'), &err) == 0;
        n++;
    }
    ok(good && n > 100, "the schedule's trace (%zu lines) is replayed to the same decisions %s", n, err.text);
    free(line);
    if (f)
        fclose(f);
    replay_destroy(r);
    unlink(run.options.trace_path);
}

static void chaos(const enum fault *kinds, unsigned n_kinds, unsigned times)
{
    enum fault deck[FAULTS * LONG_REMOTE];
    static char trace[400];
    char text[256];
    unsigned n = 0;

    run.n_faults = run.n_mid = run.n_streams = 0;
    memset(run.trouble, 0, sizeof run.trouble);
    for (unsigned t = 0; t < times; t++)
        for (unsigned k = 0; k < n_kinds; k++)
            deck[n++] = kinds[k];
    shuffle(deck, n);
    rig_forget_notes();
    snprintf(trace, sizeof trace, "%s/trace", model_folder());
    run.options.trace_path = trace;
    run.e = rig_engine(&run.options);
    for (unsigned i = 0; i < n; i++)
        next_fault(deck[i]);
    settle();
    if (!run.rig && (rig_note("signal 11", text, sizeof text) || rig_note("signal 6 ", text, sizeof text))) {
        tap_note("%s", text);
        run.bad = run.bad || !RIG_CAN_LIMIT || !strstr(text, "signal 6 ");
    }
    if (run.bad)
        rig_show_notes();
    ok(!run.bad, "%u faults, %u of them in the middle of answers: %u streams have the tokens of one process", run.n_faults, run.n_mid,
       run.n_streams);
    engine_destroy(run.e);
    run.bad = false;
    replay_trace();
}

static void test_own(const char *model, unsigned workers, const enum fault *kinds, unsigned n_kinds, unsigned times)
{
    run.rig = NULL;
    run.n_nodes = workers;
    run.options = rig_options(NULL, model, workers);
    chaos(kinds, n_kinds, times);
    ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "%u workers of our own: no process is left", workers);
}

static void test_remote(const char *model, const enum fault *kinds, unsigned n_kinds, unsigned times)
{
    run.n_nodes = PLAN_NODES + 1;
    run.rig = rig_create(model, run.n_nodes, 1, rig_memory_for(model, PLAN_NODES) + SLACK_BYTES);
    run.options = rig_options(run.rig, model, 0);
    chaos(kinds, n_kinds, times);
    rig_destroy(run.rig);
    run.rig = NULL;
    ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "%u nodes over tcp: no process is left", run.n_nodes);
}

int main(void)
{
    static const enum fault all[FAULTS] = {KILL, STOP, TERM, MEMORY, REPLAN, DRAIN, COORDINATOR, CUT, HALF_OPEN, SLOW, CORRUPT};
    static const enum fault few_own[] = {KILL, TERM, MEMORY, REPLAN, DRAIN};
    static const enum fault few_remote[] = {KILL, STOP, COORDINATOR, CUT, HALF_OPEN, SLOW, TERM, CORRUPT, CORRUPT, CORRUPT};
    const char *model;
    bool is_long = getenv("SC_LONG") != NULL;

    rig_program();
    rig_seed();
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    model = rig_model(LAYERS, BIG);
    rig_answers(model, run.answers, ANSWERS);
    if (is_long) {
        test_own(model, 3, all, OWN_FAULTS, LONG_OWN);
        test_remote(model, all, FAULTS, LONG_REMOTE);
        for (int k = 0; k < FAULTS; k++)
            ok(run.count[k] >= 15, "%u times: %s", run.count[k], names[k]);
    } else {
        test_own(model, 3, few_own, sizeof few_own / sizeof *few_own, 1);
        test_remote(model, few_remote, sizeof few_remote / sizeof *few_remote, 1);
    }
    return tap_done();
}
