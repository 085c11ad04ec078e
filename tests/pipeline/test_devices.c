/* Nodes with several devices: a stage on each, neighbours joined within the process. Parts of the processors are such devices, so
 * that all this runs anywhere: the same answers as one session, through faults, drains and restarts. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/pipeline/devices.h"
#include "tests/tap.h"

enum { ANSWERS = 8, LAYERS = 6, BIG = 24, STREAM_MS = 60000 };

static struct answer answers[ANSWERS];

static bool same(struct engine *e, bool with_top, void (*at)(void *), void *arg)
{
    return all_the_same(e, answers, ANSWERS, with_top, at, arg, STREAM_MS);
}

/* --- answers ------------------------------------------------------------------------------------------------------------- */

static void test_answers(const char *model)
{
    static const char *const devices_of[] = {"cpu:0,cpu:1", NULL};
    struct rig *rig = rig_create_on(model, 2, 0, rig_memory_for(model, 3) + DEVICES_SLACK_BYTES, devices_of);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    struct chain c = chain_of(e);

    ok(c.n == 3 && c.adjacent, "two nodes, three stages: %s", c.text);
    ok(same(e, true, NULL, NULL), "one session's answers and log-probabilities");
    json_t *status = engine_status(e), *node = json_array_get(json_object_get(status, "nodes"), 0), *devices = json_object_get(node, "devices");
    is_int((long)json_array_size(devices), 2, "the status shows the devices");
    json_t *d = json_array_get(devices, 1);
    ok(strcmp(json_string_value(json_object_get(d, "name")), "cpu:1") == 0 && json_is_integer(json_object_get(d, "stage")) &&
           json_integer_value(json_object_get(d, "memory_bytes")) > 0 && strncmp(json_string_value(json_object_get(d, "numerics")), "cpu/", 4) == 0,
       "with memory, numerics class and stage");
    json_decref(status);
    o.wire = ACT_Q8_0; /* within a process nothing is made smaller: but the hop between the nodes is */
    engine_destroy(e);
    e = rig_engine(&o);
    status = engine_status(e);
    is_int((long)json_array_size(json_object_get(status, "stages")), 3, "a second coordinator takes the stages up");
    json_decref(status);
    engine_destroy(e);
    rig_destroy(rig);
}

/* --- faults -------------------------------------------------------------------------------------------------------------- */

struct victim {
    struct rig *rig;
    struct engine *e;
    unsigned node;
    int sig;
};

static void strike(void *arg)
{
    struct victim *v = arg;
    kill(v->rig->nodes[v->node].pid, v->sig);
}

static void replan(void *arg)
{
    struct victim *v = arg;
    struct err err;
    engine_command(v->e, ENGINE_REPLAN, NULL, 0, &err);
}

static unsigned loads_from_memory(const struct rig *rig)
{
    char path[400], line[512];
    unsigned n = 0;
    for (unsigned i = 0; i < rig->n; i++) {
        snprintf(path, sizeof path, "%s/%s.log", rig->folder, rig->nodes[i].name);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
            n += strstr(line, "ready: stage") && strstr(line, "from memory");
        if (f)
            fclose(f);
    }
    return n;
}

static unsigned stages_on(const struct chain *c, unsigned node)
{
    unsigned n = 0;
    char name[16];
    snprintf(name, sizeof name, "n%u/", node);
    for (const char *at = c->text; (at = strstr(at, name)); at++)
        n++;
    return n;
}

/* A node with stages on both its devices; -1: there is none. */
static int node_of_two(const struct rig *rig, const struct chain *c)
{
    for (unsigned i = 0; i < rig->n; i++)
        if (stages_on(c, i) == 2)
            return (int)i;
    return -1;
}

/* A node with two stages dies, others take them. What is left keeps its layers. */
static void test_faults(const char *model)
{
    static const char *const devices_of[] = {"cpu:0,cpu:1", "cpu:0,cpu:1", "cpu:0,cpu:1"};
    static const int sigs[] = {SIGKILL, SIGSTOP};
    struct rig *rig = rig_create_on(model, 3, 1, rig_memory_for(model, 3) + DEVICES_SLACK_BYTES, devices_of); /* on two nodes: one has two stages */
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    char name[16];

    for (unsigned i = 0; i < rig->n; i++) {
        snprintf(name, sizeof name, "n%u", i);
        ok(await_state(e, name, "here", STREAM_MS), "%s is here", name);
    }
    struct victim v = {.rig = rig, .e = e};
    unsigned kept = loads_from_memory(rig);
    ok(same(e, false, replan, &v), "a new plan in the middle of answers: the same answers");
    ok(loads_from_memory(rig) >= kept + 2, "stages that stay where they are were kept");
    for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++) {
        struct chain c = chain_of(e);
        int node = node_of_two(rig, &c);
        ok(c.adjacent && node >= 0, "a chain with a node of two stages: %s", c.text);
        v.node = node >= 0 ? (unsigned)node : 0;
        v.sig = sigs[i];
        ok(same(e, i == 0, strike, &v), "that node gets signal %d: the same answers", sigs[i]);
        c = chain_of(e);
        ok(c.adjacent && stages_on(&c, v.node) == 0, "others have its stages: %s", c.text);
        kill(rig->nodes[v.node].pid, SIGKILL);
        while (rig_reap(rig, v.node) == -1)
            rig_sleep_ms(5);
        rig_start(rig, v.node);
        snprintf(name, sizeof name, "n%u", v.node);
        ok(await_state(e, name, "here", STREAM_MS), "it is started again");
    }
    engine_destroy(e);
    rig_destroy(rig);
}

/* --- draining ------------------------------------------------------------------------------------------------------------ */

static void test_drain(const char *model)
{
    static const char *const devices_of[] = {"cpu:0,cpu:1", "cpu:0,cpu:1"};
    struct rig *rig = rig_create_on(model, 2, 0, rig_memory_for(model, 2) + DEVICES_SLACK_BYTES, devices_of);
    struct engine_options o = rig_options(rig, model, 0);
    uint32_t layers = LAYERS - 1;
    struct err err;

    rig->topology->n_pins = 1; /* all on n0 */
    rig->topology->pins[0] = (struct topology_pin){.what = TOPOLOGY_PIN_LAYERS, .first = 0, .last = layers, .node = 0};
    struct engine *e = rig_engine(&o);
    struct chain c = chain_of(e);
    ok(c.n == 2 && strstr(c.text, "n0/cpu:0") && strstr(c.text, "n0/cpu:1"), "one node, two stages, no link: %s", c.text);
    ok(same(e, true, NULL, NULL), "one session's answers and log-probabilities");
    long full = rig_rss_kib(rig->nodes[0].pid), drained = full;
    engine_destroy(e);

    rig->topology->n_pins = 0;
    e = rig_engine(&o);
    ok(await_state(e, "n0", "here", STREAM_MS) && await_state(e, "n1", "here", STREAM_MS), "without pins another node is free");
    json_t *status = engine_status(e);
    int64_t weights = 0, kv = 0;
    size_t i;
    json_t *stage;
    json_array_foreach(json_object_get(status, "stages"), i, stage) {
        weights += json_integer_value(json_object_get(json_object_get(stage, "bytes"), "weights"));
        kv += json_integer_value(json_object_get(json_object_get(stage, "bytes"), "kv"));
    }
    json_decref(status);
    ok(engine_command(e, ENGINE_DRAIN, "n0", 0, &err) == 0, "it is drained");
    ok(same(e, false, NULL, NULL), "answers come from the other one: the same");
    c = chain_of(e);
    ok(c.n == 2 && !strstr(c.text, "n0"), "it has all the stages: %s", c.text);
    int64_t until = rig_now_ms() + 5000;
    while ((drained = rig_rss_kib(rig->nodes[0].pid)) > full - weights / 1024 / 2 && rig_now_ms() < until)
        rig_sleep_ms(20);
    ok(drained <= full - weights / 1024 / 2, "and the drained one's memory is free: %ld KiB, %ld KiB before (weights %" PRId64 " KiB, KV %" PRId64 " KiB)",
       drained, full, weights / 1024, kv / 1024);
    engine_destroy(e);
    rig_destroy(rig);
}

/* --- workers of our own --------------------------------------------------------------------------------------------------- */

static void test_own(const char *model)
{
    static const char *const args[] = {"--device", "cpu:0,cpu:1", NULL};
    struct engine_options o = rig_options(NULL, model, 1);

    o.worker_args = args;
    o.objective = PLAN_THROUGHPUT;
    struct engine *e = rig_engine(&o);
    struct chain c = chain_of(e);
    ok(c.n >= 1 && c.n <= 2, "a worker of our own with two devices: %s", c.text);
    ok(same(e, true, NULL, NULL), "one session's answers");
    engine_destroy(e);
}

int main(void)
{
    const char *model;

    rig_program();
    rig_seed();
    model = rig_model(LAYERS, BIG);
    rig_answers(model, answers, ANSWERS);
    test_answers(model);
    test_faults(model);
    test_drain(model);
    test_own(model);
    ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "no process is left");
    return tap_done();
}
