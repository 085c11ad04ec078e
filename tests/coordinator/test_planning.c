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
    gguf_close(e.gguf);
    return tap_done();
}
