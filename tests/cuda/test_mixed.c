/* Nodes whose stages lie partly on a GPU: real worker processes, an emulated device (driver.cc). The same answers as one session on
 * processors, through plans over both kinds, faults, a device that runs out of memory while it loads, and drains. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/session.h"
#include "tests/cuda/emulated.h"
#include "tests/model/model_build.h"
#include "tests/pipeline/devices.h"
#include "tests/tap.h"

enum { ANSWERS = 2, LAYERS = 3, BIG = 16, STREAM_MS = 240000, CTX = 64 };

static struct answer answers[ANSWERS];

static bool same(struct engine *e, bool with_top, void (*at)(void *), void *arg)
{
    return all_the_same(e, answers, ANSWERS, with_top, at, arg, STREAM_MS);
}

struct victim {
    struct rig *rig;
    unsigned node;
};

static void strike(void *arg)
{
    struct victim *v = arg;
    kill(v->rig->nodes[v->node].pid, SIGKILL);
}

/* --- in one process ------------------------------------------------------------------------------------------------------- */

static void test_session(const char *model)
{
    struct device_list list;
    struct err err;
    float want[MODEL_VOCAB];
    bool good = true;

    if (device_list_parse("cuda:0", &list, &err) != 0)
        rig_bail("cuda:0", &err);
    struct session_options o = {.device = &list.item[0], .untested = true, .threads = 1, .ctx = CTX}, host = {.threads = 1, .ctx = CTX};
    struct session *a = session_open(model, &host, &err), *b = a ? session_open(model, &o, &err) : NULL;
    if (!b)
        rig_bail("session_open", &err);
    for (uint32_t pos = 0; pos < 12; pos++) {
        struct session_row row = {.pos = pos, .token = (int32_t)(pos * 37 % MODEL_VOCAB), .want = true};
        if (session_step(a, &row, 1, &err) != 0 || session_step(b, &row, 1, &err) != 0)
            rig_bail("session_step", &err);
        memcpy(want, session_logits(a, 0), sizeof want);
        good = good && memcmp(want, session_logits(b, 0), sizeof want) == 0;
    }
    ok(good, "a session on %s: the processors' logits", session_isa(b));
    session_close(a);
    session_close(b);
    list.item[0].memory_max = 4096;
    ok(!session_open(model, &o, &err) && err.kind == ERR_MEMORY, "too little of its memory: %s", err.text);
    o.untested = false;
    ok(!session_open(model, &o, &err) && err.kind == ERR_UNSUPPORTED, "kernels that never ran are used by name only: %s", err.text);
}

/* --- clusters ------------------------------------------------------------------------------------------------------------ */

static void test_mixed(const char *model)
{
    static const char *const devices_of[] = {"cuda:0,cpu", "cpu", "cuda:0,cpu"};
    struct rig *rig = rig_create_on(model, 3, 1, rig_memory_for(model, 3) + DEVICES_SLACK_BYTES, devices_of);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    struct victim v = {rig, 0};

    ok(strstr(chain_of(e).text, "n0/cuda:0") && strstr(chain_of(e).text, "n0/cpu") && strstr(chain_of(e).text, "n1/cpu"), "a GPU and two nodes' processors: %s",
       chain_of(e).text);
    ok(same(e, true, NULL, NULL), "one session's answers and log-probabilities");
    json_t *status = engine_status(e), *d = json_array_get(json_object_get(json_array_get(json_object_get(status, "nodes"), 0), "devices"), 0);
    ok(strcmp(json_string_value(json_object_get(d, "name")), "cuda:0") == 0 && strncmp(json_string_value(json_object_get(d, "numerics")), "cuda/", 5) == 0,
       "its device has another numerics class");
    json_decref(status);
    ok(await_state(e, "n2", "here", STREAM_MS), "another node with a GPU stands by");
    ok(same(e, false, strike, &v), "the node is killed: the same answers");
    ok(strstr(chain_of(e).text, "n2/cuda:0") && !strstr(chain_of(e).text, "n0"), "the other has taken its layers: %s", chain_of(e).text);
    engine_destroy(e);
    rig_destroy(rig);
}

/* The device's memory is what the driver says, whatever the file promises; and drained it is free. */
static void test_drain(const char *model)
{
    static const char *const devices_of[] = {"cuda:0", "cpu"};
    struct rig *rig = rig_create_on(model, 2, 1, rig_memory_for(model, 1) + DEVICES_SLACK_BYTES, devices_of);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);
    struct err err;

    ok(strcmp(chain_of(e).text, "n0/cuda:0") == 0, "all on a GPU: %s", chain_of(e).text);
    ok(same(e, false, NULL, NULL), "one session's answers");
    ok(await_state(e, "n1", "here", STREAM_MS), "another node stands by");
    ok(engine_command(e, ENGINE_DRAIN, "n0", 0, &err) == 0, "the GPU's owner wants to play");
    ok(same(e, false, NULL, NULL), "answers come from the other one: the same");
    ok(strcmp(chain_of(e).text, "n1/cpu") == 0, "%s", chain_of(e).text);
    engine_destroy(e);
    kill(rig->nodes[0].pid, SIGTERM);
    int status = -1;
    while ((status = rig_reap(rig, 0)) == -1)
        rig_sleep_ms(5);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the worker ends");
    ok(rig_said(rig, 0, "emulated CUDA") == 0, "and nothing is left on its device");
    rig_destroy(rig);
}

/* Two GPUs of one node: rows between the GPUs go without the host where they reach each other. */
static void test_two_gpus(const char *model, bool reach)
{
    static const char *const devices_of[] = {"cuda:0,cuda:1"};
    setenv("SC_EMULATED_CUDA", reach ? "devices=2" : "devices=2,peers=0", 1);
    struct rig *rig = rig_create_on(model, 1, 0, rig_memory_for(model, 2) + DEVICES_SLACK_BYTES, devices_of);
    struct engine_options o = rig_options(rig, model, 0);
    struct engine *e = rig_engine(&o);

    ok(strstr(chain_of(e).text, "n0/cuda:0") && strstr(chain_of(e).text, "n0/cuda:1"), "both of a node's GPUs: %s", chain_of(e).text);
    ok(same(e, true, NULL, NULL), "one session's answers and log-probabilities");
    ok((rig_said(rig, 0, "without the host") > 0) == reach, "rows go %s", reach ? "from one to the other" : "by the host");
    engine_destroy(e);
    rig_destroy(rig);
    unsetenv("SC_EMULATED_CUDA");
}

/* Somebody else takes the GPU's memory while it loads. */
static void test_shortage(const char *model)
{
    static const char *const devices_of[] = {"cuda:0", "cpu"};
    char text[256] = "";

    setenv("SC_EMULATED_CUDA", "fail_alloc=3", 1);
    struct rig *rig = rig_create_on(model, 2, 0, rig_memory_for(model, 1) + DEVICES_SLACK_BYTES, devices_of);
    struct engine_options o = rig_options(rig, model, 0);
    rig->topology->n_pins = 1; /* the first plan has all on the GPU's node, or on the other: the first layer must be there */
    rig->topology->pins[0] = (struct topology_pin){.what = TOPOLOGY_PIN_LAYERS, .first = 0, .last = 0, .node = 0};
    rig_forget_notes();
    struct engine *e = rig_engine(&o);
    ok(rig_note("free", text, sizeof text), "it is told: %s", text);
    ok(strstr(chain_of(e).text, "n0/cuda:0"), "there is a plan with what is left: %s", chain_of(e).text);
    json_t *status = engine_status(e), *d = json_array_get(json_object_get(json_array_get(json_object_get(status, "nodes"), 0), "devices"), 0);
    ok(json_integer_value(json_object_get(d, "memory_found_bytes")) > 0, "the status shows how much that is");
    json_decref(status);
    ok(same(e, false, NULL, NULL), "one session's answers");
    engine_destroy(e);
    rig_destroy(rig);
    unsetenv("SC_EMULATED_CUDA");
}

static void test_own(const char *model)
{
    static const char *const args[] = {"--device", "cuda:0", "--cuda", "untested", NULL};
    struct engine_options o = rig_options(NULL, model, 1);

    o.worker_args = args;
    struct engine *e = rig_engine(&o);
    ok(strstr(chain_of(e).text, "worker0/cuda:0"), "a worker of our own with a GPU: %s", chain_of(e).text);
    ok(same(e, true, NULL, NULL), "one session's answers and log-probabilities");
    engine_destroy(e);
}

int main(void)
{
    char path[1100];
    const char *build = getenv("SC_BUILD"), *model;

    const char *sanitize = getenv("SC_SANITIZE");
    if (sanitize && strcmp(sanitize, "no") != 0)
        tap_skip_all("sanitizers want to be the first library");
    emulated_open(NULL);
    if (emulated_is_real())
        tap_skip_all("these need the emulated device");
    snprintf(path, sizeof path, "%s/tests/cuda/emulated", build ? build : ".");
    setenv("LD_LIBRARY_PATH", path, 1);
    rig_program();
    rig_seed();
    model = rig_model(LAYERS, BIG);
    rig_answers(model, answers, ANSWERS);
    test_session(model);
    test_mixed(model);
    test_drain(model);
    test_two_gpus(model, true);
    test_two_gpus(model, false);
    test_shortage(model);
    test_own(model);
    ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "no process is left");
    return tap_done();
}
