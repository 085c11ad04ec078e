/* See view.h. Everything in the answer is foreign: what is not there is shown as nothing. */
#include "cli/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cli/table.h"
#include "cli/ui.h"

enum { BAR_CELLS = 12, BAR_LEAST = 6, BARS_COLUMNS = 50, NAME_BYTES = 96, REASON_BYTES = 256, PLACE_LEAST = 14, SENTENCE_BYTES = 1024, EVENT_BYTES = 1 << 16,
       VIEW_BYTES = 1 << 20, EVENTS_LEAST = 3 };
static const double HARDLY_LESS = 0.99;

#define GREEN "\033[32m"
#define CYAN "\033[36m"
#define DIM "\033[2m"
static const char *const plain = "\033[0m", *const bold = "\033[1m", *const red = "\033[1;31m", *const yellow = "\033[33m";

static const struct screen_part memory_parts[] = {{'#', GREEN}, {'+', CYAN}}, time_parts[] = {{'#', GREEN}, {'.', DIM}, {'~', CYAN}};

/* What a narrow screen goes without first: bars say again what numbers say, and which stage it is says its place. */
enum { STAGE, WHERE, LAYERS, MEMORY, USED, OF, THERE, TIME, BUSY, WAIT, WIRE, BATCH, COLUMNS };
static const struct table_column columns[COLUMNS] = {
    [STAGE] = {.title = "stage", .turn = 5},
    [WHERE] = {.title = "where", .least = PLACE_LEAST},
    [LAYERS] = {.title = "layers", .turn = 11},
    [MEMORY] = {.title = "memory", .turn = 1, .least = BAR_LEAST, .cells = BAR_CELLS, .parts = memory_parts, .n_parts = 2},
    [USED] = {.title = "used", .right = true, .turn = 10},
    [OF] = {.title = "of", .right = true, .turn = 6},
    [THERE] = {.title = "there", .right = true, .turn = 2},
    [TIME] = {.title = "time", .turn = 4, .least = BAR_LEAST, .cells = BAR_CELLS, .parts = time_parts, .n_parts = 3},
    [BUSY] = {.title = "busy", .right = true, .turn = 9},
    [WAIT] = {.title = "wait", .right = true, .turn = 8},
    [WIRE] = {.title = "wire", .right = true, .turn = 7},
    [BATCH] = {.title = "a batch", .right = true, .turn = 3},
};

static const char *text_of(const json_t *o, const char *name, char *buf)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? err_printable(buf, NAME_BYTES, s, strlen(s)) : "-";
}

static double number_of(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static const json_t *node_of(const struct view *v, const char *name)
{
    const json_t *node;
    size_t i;

    json_array_foreach(json_object_get(v->now, "nodes"), i, node) {
        const char *s = json_string_value(json_object_get(node, "name"));
        if (s && name && strcmp(s, name) == 0)
            return node;
    }
    return NULL;
}

/* What the stage's device has that is free for us; 0: not known. */
static double device_memory(const struct view *v, const json_t *stage)
{
    const char *device = json_string_value(json_object_get(stage, "device"));
    const json_t *node = node_of(v, json_string_value(json_object_get(stage, "node"))), *d;
    size_t i;

    json_array_foreach(json_object_get(node, "devices"), i, d) {
        const char *s = json_string_value(json_object_get(d, "name"));
        if (s && device && strcmp(s, device) == 0)
            return number_of(d, "memory_bytes");
    }
    return 0;
}

/* What plans may use of it: less, where the topology says so. */
static double memory_of(const struct view *v, const json_t *stage)
{
    double planned = number_of(stage, "memory_bytes");
    return planned > 0 ? planned : device_memory(v, stage);
}

static bool may_use_less(const struct view *v, const json_t *stage)
{
    return memory_of(v, stage) < HARDLY_LESS * device_memory(v, stage);
}

/* A stage's counter since the last look, where that was the same process counting on. */
static double since(const struct view *v, size_t i, const char *name)
{
    const json_t *now = json_object_get(json_array_get(json_object_get(v->now, "stages"), i), "measured");
    const json_t *before = v->before ? json_object_get(json_array_get(json_object_get(v->before, "stages"), i), "measured") : NULL;
    double rise = number_of(now, name) - number_of(before, name);
    return rise >= 0 ? rise : number_of(now, name);
}

static void put_memory(const struct view *v, const json_t *stage, struct table *t)
{
    const json_t *bytes = json_object_get(stage, "bytes");
    double weights = number_of(bytes, "weights"), rest = number_of(bytes, "kv") + number_of(bytes, "scratch"), all = memory_of(v, stage);
    char text[32];

    table_put_bar(t, all > 0 ? (double[]){weights / all, rest / all} : NULL);
    table_put(t, "%s", ui_bytes(text, sizeof text, (uint64_t)(weights + rest)));
    table_put(t, "%s", all > 0 ? ui_bytes(text, sizeof text, (uint64_t)all) : "");
    table_put(t, "%s", may_use_less(v, stage) ? ui_bytes(text, sizeof text, (uint64_t)device_memory(v, stage)) : "");
}

static void put_time(const struct view *v, size_t i, struct table *t)
{
    double busy = since(v, i, "compute_us"), wait = since(v, i, "bubble_us"), wire = since(v, i, "wire_us");
    double all = v->before ? v->seconds * 1e6 : busy + wait; /* of a bubble, which is time that the others work, the wire is a part */

    wire = wire < wait ? wire : wait;
    wait -= wire;
    all = all > busy + wait + wire ? all : busy + wait + wire;
    if (all <= 0)
        all = 1;
    table_put_bar(t, (double[]){busy / all, wait / all, wire / all});
    table_put(t, "%.0f%%", 100 * busy / all);
    table_put(t, "%.0f%%", 100 * wait / all);
    table_put(t, "%.0f%%", 100 * wire / all);
}

/* --- parts --------------------------------------------------------------- */

static void head(const struct view *v, struct strbuf *out)
{
    char model[NAME_BYTES], health[NAME_BYTES], url[REASON_BYTES];
    const char *state = text_of(v->now, "health", health);
    bool good = strcmp(state, "ok") == 0;
    double up = number_of(v->now, "up_s");
    struct strbuf line;

    strbuf_init(&line, SENTENCE_BYTES);
    screen_style(&v->screen, &line, bold);
    strbuf_puts(&line, text_of(v->now, "model", model));
    screen_style(&v->screen, &line, plain);
    strbuf_printf(&line, " at %s: ", err_printable(url, sizeof url, v->url, strlen(v->url)));
    screen_style(&v->screen, &line, good ? GREEN : strcmp(state, "failed") == 0 ? red : yellow);
    strbuf_puts(&line, state);
    screen_style(&v->screen, &line, plain);
    strbuf_printf(&line, ", epoch %.0f", number_of(v->now, "epoch"));
    if (up > 0)
        strbuf_printf(&line, ", up %02.0f:%02d:%02d", (double)(int64_t)(up / 3600), (int)((int64_t)up / 60 % 60), (int)((int64_t)up % 60));
    screen_flow(&v->screen, out, "", 2, strbuf_str(&line));
    strbuf_fini(&line);
}

static void stages(const struct view *v, struct strbuf *out)
{
    const json_t *stage;
    size_t i;
    char node[NAME_BYTES], device[NAME_BYTES];
    struct table t;

    if (json_array_size(json_object_get(v->now, "stages")) == 0)
        return;
    table_init(&t, &v->screen, columns, COLUMNS);
    json_array_foreach(json_object_get(v->now, "stages"), i, stage) {
        const json_t *range = json_object_get(stage, "layers");
        table_put(&t, "%zu", i);
        table_put(&t, "%s/%s", text_of(stage, "node", node), text_of(stage, "device", device));
        table_put(&t, "%d-%d", (int)json_integer_value(json_array_get(range, 0)), (int)json_integer_value(json_array_get(range, 1)));
        put_memory(v, stage, &t);
        put_time(v, i, &t);
        table_put(&t, "%.1f ms", number_of(json_object_get(stage, "measured"), "batch_ms"));
    }
    table_draw(&t, out);
    if (table_shows(&t, MEMORY))
        screen_flow(&v->screen, out, "  ", 2, "(memory: # weights, + cache; time: # busy, . waiting, ~ on the wire)");
    else if (table_shows(&t, TIME))
        screen_flow(&v->screen, out, "  ", 2, "(time: # busy, . waiting, ~ on the wire)");
    table_fini(&t);
}

/* What it does, and why plans do without it. */
static void put_node(const json_t *node, bool loads, struct strbuf *out)
{
    const json_t *loading = json_object_get(node, "loading");
    const char *why = json_string_value(json_object_get(node, "left_out")), *state = json_string_value(json_object_get(node, "state"));
    char shown[REASON_BYTES], done[32], total[32];

    strbuf_puts(out, text_of(node, "state", shown));
    if (json_is_true(json_object_get(node, "standby")))
        strbuf_puts(out, ", standby");
    if (loads)
        strbuf_printf(out, ", loading %s of %s", ui_bytes(done, sizeof done, (uint64_t)number_of(loading, "done_bytes")),
                      ui_bytes(total, sizeof total, (uint64_t)number_of(loading, "total_bytes")));
    if (why)
        strbuf_printf(out, "%s: %s", state && strcmp(state, "here") == 0 ? ", left out" : "", err_printable(shown, sizeof shown, why, strlen(why)));
}

/* Nodes without a stage, and those that load with how far they are. */
static void nodes(const struct view *v, struct strbuf *out)
{
    const json_t *node;
    size_t i;
    char name[NAME_BYTES];
    struct strbuf lead, text;

    strbuf_init(&lead, SENTENCE_BYTES);
    strbuf_init(&text, SENTENCE_BYTES);
    json_array_foreach(json_object_get(v->now, "nodes"), i, node) {
        double all = number_of(json_object_get(node, "loading"), "total_bytes"), have = number_of(json_object_get(node, "loading"), "done_bytes");
        bool loads = all > 0 && have < all;
        if (json_is_integer(json_object_get(node, "stage")) && !loads)
            continue;
        strbuf_clear(&lead);
        strbuf_clear(&text);
        strbuf_printf(&lead, "  node   %-18s  ", text_of(node, "name", name));
        if (loads && (!v->screen.width || v->screen.width >= BARS_COLUMNS)) {
            screen_bar(&v->screen, &lead, memory_parts, (double[]){have / all}, 1, BAR_CELLS);
            strbuf_puts(&lead, " ");
        }
        put_node(node, loads, &text);
        screen_flow(&v->screen, out, strbuf_str(&lead), 9, strbuf_str(&text));
    }
    strbuf_fini(&text);
    strbuf_fini(&lead);
}

static void answers(const struct view *v, struct strbuf *out)
{
    const json_t *r = json_object_get(v->now, "requests"), *s = json_object_get(v->now, "schedule");
    double now = number_of(json_object_get(v->now, "predicted"), "tokens_per_s_now");
    double tokens = number_of(r, "tokens") - number_of(json_object_get(v->before, "requests"), "tokens");
    struct strbuf line;

    strbuf_init(&line, SENTENCE_BYTES);
    strbuf_printf(&line, "%.0f open", number_of(r, "open"));
    if (json_is_object(s))
        strbuf_printf(&line, " (%.0f running, %.0f waiting)", number_of(s, "running"), number_of(s, "waiting"));
    strbuf_printf(&line, ", %.0f served, %.0f failed or cancelled; %.0f tokens", number_of(r, "served"), number_of(r, "failed"),
                  number_of(r, "tokens"));
    if (v->before && v->seconds > 0)
        strbuf_printf(&line, ", now %.1f/s", tokens > 0 ? tokens / v->seconds : 0);
    if (now > 0)
        strbuf_printf(&line, " (predicted %.1f)", now);
    screen_flow(&v->screen, out, "  answers: ", 11, strbuf_str(&line));
    strbuf_fini(&line);
}

static void cache(const struct view *v, struct strbuf *out)
{
    const json_t *s = json_object_get(v->now, "schedule");
    double in_use = json_number_value(json_array_get(json_object_get(s, "blocks_used"), 0));
    double cached = json_number_value(json_array_get(json_object_get(s, "blocks_cached"), 0));
    double blocks = in_use + cached + json_number_value(json_array_get(json_object_get(s, "blocks_free"), 0));
    char text[NAME_BYTES];
    struct strbuf lead;

    if (blocks <= 0)
        return;
    strbuf_init(&lead, SENTENCE_BYTES);
    strbuf_puts(&lead, "  KV:      ");
    if (!v->screen.width || v->screen.width >= BARS_COLUMNS) {
        screen_bar(&v->screen, &lead, memory_parts, (double[]){in_use / blocks, cached / blocks}, 2, BAR_CELLS);
        strbuf_puts(&lead, " ");
    }
    snprintf(text, sizeof text, "%.0f of %.0f blocks in use, %.0f kept for prefixes", in_use, blocks, cached);
    screen_flow(&v->screen, out, strbuf_str(&lead), 11, text);
    strbuf_fini(&lead);
}

static void event(const struct view *v, const json_t *e, struct strbuf *out)
{
    const char *s = json_string_value(json_object_get(e, "text")), *kind = json_string_value(json_object_get(e, "kind"));
    char text[512], lead[64];

    screen_style(&v->screen, out, kind && strcmp(kind, "trouble") == 0 ? yellow : DIM);
    snprintf(lead, sizeof lead, "  %8.1f s  ", number_of(e, "at_s"));
    screen_flow(&v->screen, out, lead, 14, s ? err_printable(text, sizeof text, s, strlen(s)) : "-");
    screen_style(&v->screen, out, plain);
}

static size_t lines_of(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    return n;
}

/* The last ones that take no more lines than there are. */
static void events(const struct view *v, size_t room, struct strbuf *out)
{
    const json_t *list = json_object_get(v->now, "events");
    size_t n = json_array_size(list), first = n;
    struct strbuf text;

    strbuf_init(&text, EVENT_BYTES);
    for (size_t lines = 0; first > 0; first--) {
        strbuf_clear(&text);
        event(v, json_array_get(list, first - 1), &text);
        lines += v->height ? lines_of(strbuf_str(&text), text.len) : 1;
        if (lines > room)
            break;
    }
    strbuf_fini(&text);
    for (; first < n; first++)
        event(v, json_array_get(list, first), out);
}

/* --- together ------------------------------------------------------------ */

/* On a terminal that is lower than what there is to say. */
static void keep_lines(const struct view *v, struct strbuf *out, size_t most)
{
    size_t all = lines_of(strbuf_str(out), out->len), at = 0;
    char text[NAME_BYTES];

    if (all <= most)
        return;
    for (size_t n = 0; n + 1 < most; at++)
        n += out->data[at] == '\n';
    out->data[out->len = at] = '\0';
    snprintf(text, sizeof text, "%zu more lines: status --once shows all", all - most + 1);
    screen_fit(&v->screen, out, text, strlen(text), v->screen.width);
    strbuf_putc(out, '\n');
}

void view_draw(const struct view *v, struct strbuf *out)
{
    struct strbuf all;

    strbuf_init(&all, VIEW_BYTES);
    head(v, &all);
    stages(v, &all);
    nodes(v, &all);
    answers(v, &all);
    cache(v, &all);
    size_t used = lines_of(strbuf_str(&all), all.len) + 1; /* the cursor stands in the last one */
    events(v, v->height == 0 ? EVENTS_LEAST : v->height > used ? v->height - used : 0, &all);
    if (v->height > 1)
        keep_lines(v, &all, v->height - 1);
    strbuf_add(out, strbuf_str(&all), all.len);
    strbuf_fini(&all);
}
