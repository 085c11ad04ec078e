/* stagecoach plan: which node would take which layers, how fast that would be and why. Nothing is started. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "base/sysinfo.h"
#include "cli/command.h"
#include "cli/table.h"
#include "cli/ui.h"
#include "coordinator/plan_input.h"
#include "gguf/gguf.h"
#include "model/arch.h"
#include "topology/planner.h"
#include "topology/topology.h"

enum { BAR_CELLS = 16, BAR_LEAST = 6, PLACE_LEAST = 14, LABEL_COLUMNS = 16, SENTENCE_BYTES = 1 << 13, WHY_BYTES = 200, PAGE_BYTES = 1 << 20, JSON_DIGITS = 6 };

struct values {
    const char *model, *topology, *objective, *kv, *wire;
    double prompt_share, effort;
    int64_t ctx, parallel, kv_total, depth;
    bool json, advice;
};

static const char *const objectives[] = {"latency", "throughput", "balanced", NULL};
static const char *const kv_names[] = {"f16", "f32", "q8_0", NULL};
static const double LEAST_EFFORT = 1e-6;
static const enum kv_type kv_types[] = {KV_F16, KV_F32, KV_Q8_0};
static const char *const wire_names[] = {"f32", "f16", "q8_0", "auto", NULL};

static const struct opt options[] = {
    {"model", 'm', OPT_STRING, .required = true, .arg = "FILE", .offset = offsetof(struct values, model),
     .help = "GGUF file, its header is enough; of a split model any part"},
    {"topology", 0, OPT_STRING, .required = true, .arg = "FILE", .offset = offsetof(struct values, topology),
     .help = "The cluster, as a topology file"},
    {"objective", 0, OPT_CHOICE, .arg = "WHAT", .offset = offsetof(struct values, objective), .choices = objectives, .def = "balanced",
     .help = "latency: one sequence as fast as can be; throughput: --parallel sequences; balanced: both"},
    {"prompt-share", 0, OPT_FLOAT, .arg = "X", .offset = offsetof(struct values, prompt_share), .max = PLAN_MAX_PROMPT_SHARE, .def = "2",
     .help = "Prompt tokens that are read for each token of an answer: what throughput and balanced reckon with (0: answers alone)"},
    {"ctx", 'c', OPT_INT, .arg = "N", .offset = offsetof(struct values, ctx), .min = 1, .max = MODEL_MAX_CTX,
     .help = "Positions a sequence may have (default: the topology's, else the model's, at most 8192, lowered to fit)"},
    {"parallel", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, parallel), .min = 1, .max = 1024,
     .help = "Sequences at once (default: the topology's, else 4)"},
    {"kv-total", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, kv_total), .min = 1, .max = UINT32_MAX,
     .help = "Positions that all sequences together may have (default: --ctx for each)"},
    {"kv", 0, OPT_CHOICE, .arg = "TYPE", .offset = offsetof(struct values, kv), .choices = kv_names,
     .help = "How keys and values are kept (default: the topology's, else f16)"},
    {"wire", 0, OPT_CHOICE, .arg = "TYPE", .offset = offsetof(struct values, wire), .choices = wire_names,
     .help = "What activations travel as (default: the topology's, else f32)"},
    {"depth", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, depth), .min = 1, .max = MODEL_MAX_CTX,
     .help = "Positions that a sequence has on average, for predictions (default: half of --ctx, at most 1024)"},
    {"effort", 0, OPT_FLOAT, .arg = "X", .offset = offsetof(struct values, effort), .max = PLAN_MAX_EFFORT, .def = "1",
     .help = "How long to look for the best chain before settling for a good one: a multiple of some half a second, for latency of some tenth of one"},
    {"advice", 0, OPT_FLAG, .offset = offsetof(struct values, advice), .def = "yes", .help = "Do not plan without each node to compare"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "One JSON object"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach plan -m model.gguf --topology home.yaml", "Who takes which layers, and how fast that would be."},
    {"stagecoach plan -m model.gguf --topology home.yaml --objective throughput --parallel 16 --json", "The same for a script, for 16 users."},
    {0},
};

/* --- what was asked ------------------------------------------------------------------------------------------------------- */

static int index_of(const char *const *names, const char *name)
{
    int i = 0;
    while (names[i] && strcmp(names[i], name) != 0)
        i++;
    return names[i] ? i : 0;
}

static struct plan_settings settings_of(const struct values *v, const struct topology *t)
{
    const char *kv = v->kv ? v->kv : t->kv ? t->kv : "f16", *wire = v->wire ? v->wire : t->wire ? t->wire : "f32";
    return (struct plan_settings){.objective = (enum plan_objective)index_of(objectives, v->objective), .kv = kv_types[index_of(kv_names, kv)],
                                  .wire = (enum plan_wire)index_of(wire_names, wire), .ctx = (uint32_t)v->ctx, .parallel = (uint32_t)v->parallel,
                                  .kv_total = (uint32_t)v->kv_total, .depth = (uint32_t)v->depth,
                                  .prompt_share = v->prompt_share > 0 ? v->prompt_share : PLAN_ANSWERS_ALONE, .effort = v->effort > 0 ? v->effort : LEAST_EFFORT};
}

struct planned {
    struct values *v;
    struct gguf *g;
    struct model_params params;
    struct topology *t;
    struct plan_source source;
    struct plan plan;
    struct plan_advice advice[PLAN_MAX_ADVICE];
    uint32_t n_advice;
    bool wire_auto;
};

/* --- words ----------------------------------------------------------------------------------------------------------------- */

static const char *node_name(const struct planned *p, uint32_t hop)
{
    return hop < p->plan.n_stages ? p->source.nodes[p->plan.stages[hop].node].name : "coordinator";
}

static const char *device_name(const struct planned *p, uint32_t stage)
{
    const struct plan_stage *st = &p->plan.stages[stage];
    return p->source.nodes[st->node].devices[st->device].name;
}

static void bottleneck_text(const struct planned *p, struct strbuf *out)
{
    uint32_t i = p->plan.bottleneck_index;
    switch (p->plan.bottleneck) {
    case BOTTLENECK_STAGE: strbuf_printf(out, "%s/%s", node_name(p, i), device_name(p, i)); break;
    case BOTTLENECK_LINK: strbuf_printf(out, "link %s-%s", i ? node_name(p, i - 1) : "coordinator", node_name(p, i)); break;
    case BOTTLENECK_GROUP: strbuf_printf(out, "shared %s of", p->source.groups[i].name); break;
    }
    const char *comma = " ";
    for (uint32_t k = 0; p->plan.bottleneck == BOTTLENECK_GROUP && k < p->plan.n_stages; k++) {
        const struct plan_node *n = &p->source.nodes[p->plan.stages[k].node];
        if (n->group != (int32_t)i && n->devices[p->plan.stages[k].device].group != (int32_t)i)
            continue;
        if (n->group == (int32_t)i)
            strbuf_printf(out, "%s%s", comma, n->name);
        else
            strbuf_printf(out, "%s%s/%s", comma, n->name, device_name(p, k));
        comma = ", ";
    }
}

static const char *currency(const struct planned *p)
{
    return p->t->currency ? p->t->currency : "";
}

/* --- for people ------------------------------------------------------------------------------------------------------------- */

struct page {
    const struct screen *screen;
    struct strbuf *out;
};

static const char *size(char buf[32], uint64_t bytes)
{
    return bytes ? sysinfo_bytes(buf, bytes) : "-";
}

static const struct screen_part parts[] = {{'#', "\033[36m"}, {'=', "\033[32m"}, {'+', "\033[1m"}};

/* What a narrow screen goes without first: the bar says again what numbers say. */
enum { WHERE, LAYERS, BAR, WEIGHTS, KV, OTHER, MEMORY, TOKEN, CHUNK, HOP, COLUMNS };
static const struct table_column columns[COLUMNS] = {
    [WHERE] = {.title = "stage", .least = PLACE_LEAST},
    [LAYERS] = {.title = "layers", .turn = 9},
    [BAR] = {.title = "memory", .turn = 1, .least = BAR_LEAST, .cells = BAR_CELLS, .parts = parts, .n_parts = 3},
    [WEIGHTS] = {.title = "weights", .right = true, .turn = 7},
    [KV] = {.title = "kv", .right = true, .turn = 4},
    [OTHER] = {.title = "other", .right = true, .turn = 3},
    [MEMORY] = {.title = "of", .right = true, .turn = 6},
    [TOKEN] = {.title = "ms/token", .right = true, .turn = 8},
    [CHUNK] = {.title = "ms/chunk", .right = true, .turn = 5},
    [HOP] = {.title = "hop ms", .right = true, .turn = 2},
};

static void put_stage(const struct planned *p, uint32_t i, struct table *t)
{
    const struct plan_stage *st = &p->plan.stages[i];
    uint64_t other = st->scratch_bytes + st->wire_bytes + st->reserve_bytes;
    double whole = st->memory_bytes ? (double)st->memory_bytes : 1;
    char buf[32];
    table_put(t, "%s/%s", node_name(p, i), device_name(p, i));
    table_put(t, "%u-%u", st->layers.first, st->layers.last - 1);
    table_put_bar(t, (double[]){(double)st->weights_bytes / whole, (double)st->kv_bytes / whole, (double)other / whole});
    table_put(t, "%s", size(buf, st->weights_bytes));
    table_put(t, "%s", size(buf, st->kv_bytes));
    table_put(t, "%s", size(buf, other));
    table_put(t, "%s", size(buf, st->memory_bytes));
    table_put(t, "%.2f", st->decode_us / 1e3);
    table_put(t, "%.2f", st->chunk_us / 1e3);
    table_put(t, "%.2f", st->hop_us / 1e3);
}

static void put_sentence(const struct page *page, const char *lead, unsigned hang, const char *fmt, va_list args)
{
    struct strbuf text;
    strbuf_init(&text, SENTENCE_BYTES);
    strbuf_vprintf(&text, fmt, args);
    screen_flow(page->screen, page->out, lead, hang, strbuf_str(&text));
    strbuf_fini(&text);
}

/* A line that begins with what it is about; further ones of the same with "". */
static void say(const struct page *page, const char *title, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(const struct page *page, const char *title, const char *fmt, ...)
{
    char lead[LABEL_COLUMNS + 2];
    va_list args;
    snprintf(lead, sizeof lead, "%-*s ", LABEL_COLUMNS, title);
    va_start(args, fmt);
    put_sentence(page, lead, LABEL_COLUMNS + 1, fmt, args);
    va_end(args);
}

/* A line below the table. */
static void note(const struct page *page, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(const struct page *page, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    put_sentence(page, "  ", 4, fmt, args);
    va_end(args);
}

static void show_disk(const struct planned *p, const struct page *page)
{
    char buf[32];
    for (uint32_t i = 0; i < p->plan.n_stages; i++)
        if (p->plan.stages[i].disk_bytes)
            note(page, "%s/%s: %s of its weights stay on disk and are read for every token (planned only: workers cannot do that yet)",
                node_name(p, i), device_name(p, i), size(buf, p->plan.stages[i].disk_bytes));
}

static void show_left_out(const struct planned *p, const struct page *page)
{
    char why[WHY_BYTES];
    for (uint32_t i = 0; i < p->source.in.n_nodes; i++) {
        bool used = false;
        for (uint32_t k = 0; k < p->plan.n_stages; k++)
            used |= p->plan.stages[k].node == i;
        if (!used && plan_holds_nothing(&p->source.in, i, why, sizeof why))
            note(page, "%s is left out: %s", p->source.nodes[i].name, why);
        else if (!used)
            note(page, "%s %s", p->source.nodes[i].name, p->source.nodes[i].standby ? "stands by" : "is not used");
    }
}

static const struct topology_device *device_in_file(const struct planned *p, uint32_t stage)
{
    const struct topology_node *n = &p->t->nodes[p->plan.stages[stage].node];
    for (uint32_t i = 0; i < n->n_devices; i++)
        if (strcmp(n->devices[i].name, device_name(p, stage)) == 0)
            return &n->devices[i];
    return NULL;
}

/* Until the slowest node has read its layers from its own disk, and copied a GPU's there; 0: not all of that was measured. */
static double load_seconds(const struct planned *p)
{
    double slowest = 0;
    for (uint32_t i = 0; i < p->plan.n_stages; i++) {
        const struct topology_device *d = device_in_file(p, i);
        const struct topology_node *n = &p->t->nodes[p->plan.stages[i].node];
        bool gpu = strncmp(device_name(p, i), "cpu", 3) != 0;
        double bytes = 0;
        for (uint32_t k = 0; k < p->plan.n_stages; k++)
            if (p->plan.stages[k].node == p->plan.stages[i].node)
                bytes += (double)p->plan.stages[k].load_bytes;
        if (!d || n->disk_bps <= 0 || (gpu && d->copy_bps <= 0))
            return 0;
        double copy = gpu ? (double)p->plan.stages[i].load_bytes / d->copy_bps : 0, disk = bytes / n->disk_bps;
        slowest = fmax(slowest, fmax(copy, disk));
    }
    return slowest;
}

static void show_predictions(const struct planned *p, const struct page *page)
{
    const struct plan *pl = &p->plan;
    double load_s = load_seconds(p);
    static const char *const failover[] = {"none: a node's death would end it", "continuing: answers go on, not bit for bit as they would have",
                                           "identical: answers go on as if nothing had happened"};
    struct strbuf name;
    char title[32], shown[16], cost[64] = "";
    say(page, "one sequence", "%.2f tokens/s", pl->tokens_per_s_1);
    snprintf(title, sizeof title, "%-4u sequences", pl->n);
    if (pl->n > 1)
        say(page, title, "%.2f tokens/s (%u batch%s under way)", pl->tokens_per_s_n, pl->m, pl->m == 1 ? "" : "es");
    say(page, "first token", "%.0f ms after a prompt of 512 tokens (chunks of %u)", pl->ttft_us / 1e3, pl->chunk);
    if (load_s > 0)
        say(page, "loading", "%.1f s, each node from its own disk", load_s);
    strbuf_init(&name, SENTENCE_BYTES);
    bottleneck_text(p, &name);
    say(page, "bottleneck", "%s", strbuf_str(&name));
    strbuf_fini(&name);
    say(page, "bound", "%s %.3f ms, no chain can be below %.3f ms (gap %.2f%%); no placement at all above %.2f tokens/s",
        plan_objective_name(pl->objective), pl->value_us / 1e3, pl->bound_us / 1e3, 100 * pl->gap, pl->placement_bound);
    say(page, "a node fails", "%s", failover[pl->failover]);
    if (pl->cost_per_mtok > 0)
        snprintf(cost, sizeof cost, ", %.2f %s for a million tokens", pl->cost_per_mtok, err_printable(shown, sizeof shown, currency(p), strlen(currency(p))));
    if (pl->watts > 0)
        say(page, "power", "%.0f W%s", pl->watts, cost);
}

static void show_lines(const struct page *page, const char *title, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        say(page, title, "%.*s", (int)len, text);
        title = "";
        text += len + (text[len] == '\n');
    }
}

static void show_title(const struct planned *p, const struct page *page)
{
    const struct plan_source *s = &p->source;
    struct gguf_str name = {"", 0};
    struct err err;
    char shown[80];
    if (gguf_get_str(p->g, "general.name", &name, &err) != 1)
        name.len = 0;
    if (!name.len)
        name = (struct gguf_str){p->v->model, strlen(p->v->model)};
    struct strbuf line;
    strbuf_init(&line, SENTENCE_BYTES);
    strbuf_printf(&line, "%s%s%s: %u layers, context %u%s, %u sequence%s, wire %s%s, for %s", page->screen->color ? "\033[1m" : "",
        err_printable(shown, sizeof shown, name.s, name.len), page->screen->color ? "\033[0m" : "", p->params.n_layers, s->ctx,
        s->ctx_lowered ? " (lowered to fit)" : "", s->parallel, s->parallel == 1 ? "" : "s", wire_names[s->wire],
        p->wire_auto && s->wire == PLAN_WIRE_F16 ? " (a link would be the bottleneck)" : "", plan_objective_name(p->plan.objective));
    screen_flow(page->screen, page->out, "", 2, strbuf_str(&line));
    strbuf_fini(&line);
}

static void show(const struct planned *p)
{
    struct screen screen = ui_screen();
    struct strbuf out;
    struct page page = {&screen, &out};
    struct table t;
    strbuf_init(&out, PAGE_BYTES);
    show_title(p, &page);
    strbuf_putc(&out, '\n');
    table_init(&t, &screen, columns, COLUMNS);
    for (uint32_t i = 0; i < p->plan.n_stages; i++)
        put_stage(p, i, &t);
    table_draw(&t, &out);
    if (table_shows(&t, BAR))
        note(&page, "(memory: # weights, = kv, + scratch, wire and reserve)");
    table_fini(&t);
    show_disk(p, &page);
    show_left_out(p, &page);
    strbuf_putc(&out, '\n');
    show_predictions(p, &page);
    for (uint32_t i = 0; i < p->n_advice; i++)
        say(&page, i ? "" : "advice", "%s", p->advice[i].text);
    show_lines(&page, "guessed", strbuf_str(&p->source.guesses));
    ui_out(out.data, out.len);
    strbuf_fini(&out);
}

/* --- for scripts ------------------------------------------------------------------------------------------------------------- */

static json_t *ms(double us)
{
    return json_real(round(us) / 1e3);
}

static json_t *json_stage(const struct planned *p, uint32_t i)
{
    const struct plan_stage *st = &p->plan.stages[i];
    return json_pack("{s:s, s:s, s:[i,i], s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:I, s:{s:o, s:o, s:o}}", "node", node_name(p, i), "device",
                     device_name(p, i), "layers", (int)st->layers.first, (int)st->layers.last - 1, "bytes", "weights",
                     (json_int_t)st->weights_bytes, "kv", (json_int_t)st->kv_bytes, "scratch", (json_int_t)st->scratch_bytes, "wire",
                     (json_int_t)st->wire_bytes, "reserve", (json_int_t)st->reserve_bytes, "disk", (json_int_t)st->disk_bytes, "memory",
                     (json_int_t)st->memory_bytes, "load", (json_int_t)st->load_bytes, "predicted_ms", "decode", ms(st->decode_us),
                     "prompt_chunk", ms(st->chunk_us), "hop", ms(st->hop_us));
}

static json_t *json_lines(const char *text)
{
    json_t *list = json_array();
    while (list && *text) {
        size_t len = strcspn(text, "\n");
        json_array_append_new(list, json_stringn(text, len));
        text += len + (text[len] == '\n');
    }
    return list;
}

static json_t *json_left_out(const struct planned *p)
{
    json_t *list = json_array();
    char why[WHY_BYTES];
    for (uint32_t i = 0; i < p->source.in.n_nodes; i++)
        if (plan_holds_nothing(&p->source.in, i, why, sizeof why))
            json_array_append_new(list, json_pack("{s:s, s:s}", "node", p->source.nodes[i].name, "why", why));
    return list;
}

static json_t *json_of(const struct planned *p)
{
    const struct plan *pl = &p->plan;
    const struct plan_source *s = &p->source;
    json_t *stages = json_array(), *advice = json_array();
    double load_s = load_seconds(p);
    struct strbuf name;
    strbuf_init(&name, 1024);
    bottleneck_text(p, &name);
    for (uint32_t i = 0; i < pl->n_stages; i++)
        json_array_append_new(stages, json_stage(p, i));
    for (uint32_t i = 0; i < p->n_advice; i++)
        json_array_append_new(advice, json_string(p->advice[i].text));
    json_t *root = json_pack(
        "{s:{s:s, s:i, s:i, s:b, s:i, s:s}, s:s, s:f, s:o, s:{s:f, s:f, s:i, s:i, s:o, s:i, s:o}, s:s, s:o, s:o, s:f, s:f, s:s, s:f, s:o, s:o, s:o}",
        "model", "file", p->v->model, "layers", (int)p->params.n_layers, "ctx", (int)s->ctx, "ctx_lowered", (int)s->ctx_lowered, "parallel",
        (int)s->parallel, "wire", wire_names[s->wire], "objective", plan_objective_name(pl->objective), "prompt_share", p->v->prompt_share, "stages", stages, "predicted",
        "tokens_per_s_1", pl->tokens_per_s_1, "tokens_per_s_n", pl->tokens_per_s_n, "n", (int)pl->n, "batches", (int)pl->m, "ttft_ms_512",
        ms(pl->ttft_us), "chunk", (int)pl->chunk, "load_s", load_s > 0 ? json_real(load_s) : json_null(), "bottleneck", strbuf_str(&name), "value_ms", ms(pl->value_us), "bound", ms(pl->bound_us),
        "gap", pl->gap, "placement_bound_tokens_per_s", pl->placement_bound, "failover", plan_failover_name(pl->failover), "watts", pl->watts,
        "cost_per_mtok", pl->cost_per_mtok > 0 ? json_real(pl->cost_per_mtok) : json_null(), "advice", advice, "guessed",
        json_lines(strbuf_str(&s->guesses)));
    if (root)
        json_object_set_new(root, "left_out", json_left_out(p));
    strbuf_fini(&name);
    return root;
}

static int print_json(const struct planned *p, struct err *err)
{
    json_t *root = json_of(p);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(JSON_DIGITS)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the JSON");
    ui_foreign(text, strlen(text));
    ui_out("\n", 1);
    free(text);
    return 0;
}

/* Two neighbours that only dial out meet at the coordinator. */
static void say_relays(struct planned *p)
{
    for (uint32_t i = 1; i < p->plan.n_stages && p->n_advice < PLAN_MAX_ADVICE; i++) {
        const struct topology_node *a = &p->t->nodes[p->plan.stages[i - 1].node], *b = &p->t->nodes[p->plan.stages[i].node];
        if (a != b && !a->address && !b->address)
            snprintf(p->advice[p->n_advice++].text, sizeof p->advice[0].text,
                     "%s and %s have no address: what goes between them is relayed by the coordinator", a->name, b->name);
    }
}

/* --- the command --------------------------------------------------------------------------------------------------------------- */

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct values *v = values;
    struct planned *p = mem_new(1, sizeof *p, err);
    int rc = -1;
    (void)parsed;
    if (!p)
        return -1;
    p->v = v;
    if (!(p->t = topology_load(v->topology, err)) || !(p->g = gguf_open(v->model, true, err)))
        goto done;
    if (model_params_read(p->g, &p->params, err) != 0) {
        err_wrap(err, "%s", v->model);
        goto done;
    }
    struct plan_settings set = settings_of(v, p->t);
    p->wire_auto = set.wire == PLAN_WIRE_AUTO;
    if (plan_source_make(&p->source, p->g, &p->params, p->t, &set, NULL, NULL, &p->plan, err) != 0)
        goto done;
    if (v->advice)
        p->n_advice = plan_advise(&p->source.in, &p->plan, p->advice);
    say_relays(p);
    if (v->json) {
        rc = print_json(p, err);
    } else {
        show(p);
        rc = 0;
    }
done:
    plan_source_fini(&p->source);
    gguf_close(p->g);
    topology_destroy(p->t);
    free(p);
    return rc;
}

const struct command cmd_plan = {
    .opts = {.name = "plan",
             .summary = "Say which node would take which layers, and how fast that would be",
             .synopsis = "-m FILE --topology FILE [OPTION]…",
             .description = "Plans a model onto the cluster that a topology file describes: the best chain of stages for its cost model, with memory by "
                            "kind, predicted times, the bottleneck, and what would be better. Nothing is started, no node is asked.\n\n"
                            "What the file does not say was measured is guessed, and named as such; \"stagecoach probe\" measures.\n\n"
                            "A narrow terminal, or COLUMNS, takes columns away, the bar first; a number is there whole or not at all. --json has all.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
