/* Which layers go to which of our own workers, without the workers: nodes as their hellos would have them. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/cluster.h"
#include "gguf/quant.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { LAYERS = 6, WORKERS = 3, CTX = 64 };

static struct engine e; /* zeroed but for what planning looks at */
static struct msg_device cpu = {.name = "cpu", .memory_bytes = UINT64_C(8) << 30, .threads = 1, .numerics_class = "cpu/3"};

static void begin(const char *model)
{
    static char children; /* that there are some is all that is looked at */
    struct err err;

    e.options = (struct engine_options){.model = model, .ctx = CTX, .parallel = 2, .workers = WORKERS};
    e.children = (void *)&children;
    if (!(e.gguf = gguf_open(model, true, &err)) || model_params_read(e.gguf, &e.params, &err) != 0 || planning_sizes(&e, &err) != 0) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    for (e.n_nodes = 0; e.n_nodes < WORKERS; e.n_nodes++) {
        struct node *n = &e.nodes[e.n_nodes];
        snprintf(n->name, sizeof n->name, "worker%u", e.n_nodes);
        n->child = (int)e.n_nodes;
        n->state = NODE_HERE;
        n->hello = (struct msg_hello){.node = n->name, .numerics_class = "cpu", .isa = "scalar", .threads = 1, .devices = &cpu, .n_devices = 1};
    }
}

/* As "0:2 1:4", worker and layers in their order; "-": there is no plan. */
static const char *plan(void)
{
    static char text[100], *at;
    struct pipe_stage stages[COST_MAX_STAGES] = {0};
    struct plan plan;
    struct err err;
    uint32_t n = 0;

    if (planning_choose(&e, stages, &n, &plan, &err) != 0) {
        tap_note("%s", err.text);
        return "-";
    }
    at = text;
    for (uint32_t i = 0; i < n; i++)
        at += snprintf(at, (size_t)(text + sizeof text - at), "%s%u:%u", i ? " " : "", stages[i].node, stages[i].last - stages[i].first);
    return text;
}

static unsigned layers_of(const char *plan, unsigned worker)
{
    char what[8];
    snprintf(what, sizeof what, "%u:", worker);
    const char *at = strstr(plan, what);
    return at ? (unsigned)strtoul(at + 2, NULL, 10) : 0;
}

static unsigned n_told; /* sentences about nodes that are left out */
static char told[CLUSTER_EVENT_BYTES];

static void note(void *arg, const struct engine_note *n)
{
    (void)arg;
    if (strstr(n->text, "left out")) {
        n_told++;
        snprintf(told, sizeof told, "%s", n->text);
    }
}

/* A stranger whose hello is odd, or who has no room, has no part; the others go on. */
static void left_out(const struct msg_device *devices, size_t n, const struct msg_bits *bits, const char *word)
{
    struct msg_hello good = e.nodes[1].hello;
    e.nodes[1].hello.devices = devices;
    e.nodes[1].hello.n_devices = n;
    e.nodes[1].hello.bits = bits;
    e.nodes[1].hello.n_bits = bits ? 1 : 0;
    n_told = 0;
    const char *p = plan();
    ok(layers_of(p, 0) + layers_of(p, 2) == LAYERS, "%s: the others have all layers (%s)", word, p);
    has_str(e.nodes[1].left_out, word, "%s: why is kept for status", word);
    ok(n_told == 1 && strstr(told, "worker1 is left out") && strstr(told, word), "%s: and told: %s", word, told);
    plan();
    is_int(n_told, 1, "%s: once", word);
    e.nodes[1].hello = good;
    p = plan();
    ok(layers_of(p, 0) + layers_of(p, 1) + layers_of(p, 2) == LAYERS && !e.nodes[1].left_out[0], "%s: until it is well (%s)", word, p);
}

static void test_left_out(void)
{
    struct msg_device one = cpu, two[2] = {cpu, cpu};
    struct msg_bits bits = {.type = "Q8_0", .bits = 1e30};
    struct err err;
    struct plan chosen;
    struct pipe_stage stages[COST_MAX_STAGES] = {0};
    uint32_t n;

    e.children = NULL; /* it is for the planner to choose, as with nodes of other machines */
    for (int i = 0; i < WORKERS; i++)
        e.nodes[i].child = -1;
    e.options.note = note;
    one.name = "tpu:0";
    left_out(&one, 1, NULL, "unknown device \"tpu:0\"");
    one = cpu;
    one.memory_bytes = 97 << 20;
    left_out(&one, 1, NULL, "no layer fits");
    one.memory_bytes = UINT64_MAX;
    left_out(&one, 1, NULL, "bytes of memory");
    left_out(two, 2, NULL, "twice");
    left_out(&cpu, 1, &bits, "1e+30 bits");
    one = cpu;
    one.read_bytes_per_s = 1e-300;
    one.attention_per_s = 1e-300;
    e.nodes[1].hello.devices = &one;
    const char *p = "";
    p = plan();
    ok(layers_of(p, 0) + layers_of(p, 1) + layers_of(p, 2) == LAYERS, "rates of nothing are none (%s)", p);
    e.nodes[1].hello.devices = &cpu;
    one = cpu;
    one.memory_bytes = 97 << 20;
    for (int i = 0; i < WORKERS; i++)
        e.nodes[i].hello.devices = &one;
    ok(planning_choose(&e, stages, &n, &chosen, &err) != 0 && err.kind == ERR_MEMORY && strstr(err.text, "node worker0 is left out: no layer fits"),
       "when the rest cannot hold the model: %s", err.text);
}

int main(void)
{
    struct model_spec spec = *model_spec_of("llama");
    char path[400];

    spec.layers = LAYERS;
    snprintf(path, sizeof path, "%s/model.gguf", model_folder());
    model_write(&spec, QUANT_Q8_0, path);
    begin(path);
    const char *p = plan();
    ok(layers_of(p, 0) && layers_of(p, 1) && layers_of(p, 2), "all are used (%s)", p);
    e.nodes[0].memory_caps[0] = 1;
    p = plan();
    ok(layers_of(p, 0) == 0 && layers_of(p, 1) + layers_of(p, 2) == LAYERS, "one where nothing fits: the others have all layers (%s)", p);
    e.nodes[1].memory_caps[0] = 1;
    is_str(plan(), "2:6", "where only one has room, it has all");
    e.nodes[2].memory_caps[0] = 1;
    is_str(plan(), "-", "where none has, there is no plan");
    for (int i = 0; i < WORKERS; i++)
        e.nodes[i].memory_caps[0] = 0;
    e.nodes[1].state = NODE_DRAINED;
    p = plan();
    ok(layers_of(p, 0) && !layers_of(p, 1) && layers_of(p, 2), "one that is drained has no part (%s)", p);
    e.nodes[1].state = NODE_HERE;
    test_left_out();
    gguf_close(e.gguf);
    return tap_done();
}
