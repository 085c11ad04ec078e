/* See view.h. Everything in the answer is foreign: what is not there is shown as nothing. */
#include "cli/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cli/columns.h"
#include "cli/ui.h"

enum { BAR_CELLS = 12, NAME_BYTES = 96, LINE_BYTES = 4096, EVENTS_LEAST = 3, MEMORY_COLUMNS = 40, MEMORY_WIDE_COLUMNS = 54 };
static const double HARDLY_LESS = 0.99;

static const char *const plain = "\033[0m", *const bold = "\033[1m", *const dim = "\033[2m", *const red = "\033[1;31m",
                         *const green = "\033[32m", *const cyan = "\033[36m", *const yellow = "\033[33m";

static const char *text_of(const json_t *o, const char *name, char *buf)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? err_printable(buf, NAME_BYTES, s, strlen(s)) : "-";
}

static double number_of(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static void style(const struct view *v, struct strbuf *out, const char *code)
{
    if (v->color)
        strbuf_puts(out, code);
}

/* --- bars ---------------------------------------------------------------- */

/* shares of a whole, each in its own character and color. */
static void bar(const struct view *v, struct strbuf *out, const double *shares, const char *marks, const char *const *colors, size_t n)
{
    double sum = 0;
    unsigned at = 0;

    strbuf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        sum += shares[i];
        unsigned to = sum > 1 ? BAR_CELLS : (unsigned)(sum * BAR_CELLS + 0.5);
        style(v, out, colors[i]);
        for (; at < to; at++)
            strbuf_putc(out, marks[i]);
        style(v, out, plain);
    }
    for (; at < BAR_CELLS; at++)
        strbuf_putc(out, ' ');
    strbuf_putc(out, ']');
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

static void memory(const struct view *v, const json_t *stage, struct strbuf *out)
{
    const json_t *bytes = json_object_get(stage, "bytes");
    double weights = number_of(bytes, "weights"), rest = number_of(bytes, "kv") + number_of(bytes, "scratch"), all = memory_of(v, stage);
    char used[32], total[32], there[32];

    if (all > 0)
        bar(v, out, (double[]){weights / all, rest / all}, "#+", (const char *[]){green, cyan}, 2);
    strbuf_printf(out, " %s", ui_bytes(used, sizeof used, (uint64_t)(weights + rest)));
    if (all > 0)
        strbuf_printf(out, " of %s", ui_bytes(total, sizeof total, (uint64_t)all));
    if (may_use_less(v, stage))
        strbuf_printf(out, " (%s there)", ui_bytes(there, sizeof there, (uint64_t)device_memory(v, stage)));
}

/* A stage's counter since the last look, where that was the same process counting on. */
static double since(const struct view *v, size_t i, const char *name)
{
    const json_t *now = json_object_get(json_array_get(json_object_get(v->now, "stages"), i), "measured");
    const json_t *before = v->before ? json_object_get(json_array_get(json_object_get(v->before, "stages"), i), "measured") : NULL;
    double rise = number_of(now, name) - number_of(before, name);
    return rise >= 0 ? rise : number_of(now, name);
}

static void shares(const struct view *v, size_t i, struct strbuf *out)
{
    double busy = since(v, i, "compute_us"), wait = since(v, i, "bubble_us"), wire = since(v, i, "wire_us");
    double all = v->before ? v->seconds * 1e6 : busy + wait; /* of a bubble, which is time that the others work, the wire is a part */

    wire = wire < wait ? wire : wait;
    wait -= wire;

    all = all > busy + wait + wire ? all : busy + wait + wire;
    if (all <= 0)
        all = 1;
    bar(v, out, (double[]){busy / all, wait / all, wire / all}, "#.~", (const char *[]){green, dim, cyan}, 3);
    strbuf_printf(out, " %3.0f%% %3.0f%% %3.0f%%", 100 * busy / all, 100 * wait / all, 100 * wire / all);
}

/* --- parts --------------------------------------------------------------- */

static void head(const struct view *v, struct strbuf *out)
{
    char model[NAME_BYTES], health[NAME_BYTES];
    const char *state = text_of(v->now, "health", health);
    bool good = strcmp(state, "ok") == 0;

    style(v, out, bold);
    strbuf_puts(out, text_of(v->now, "model", model));
    style(v, out, plain);
    strbuf_printf(out, " at %s: ", v->url);
    style(v, out, good ? green : strcmp(state, "failed") == 0 ? red : yellow);
    strbuf_puts(out, state);
    style(v, out, plain);
    strbuf_printf(out, ", epoch %.0f", number_of(v->now, "epoch"));
    double up = number_of(v->now, "up_s");
    if (up > 0)
        strbuf_printf(out, ", up %02.0f:%02d:%02d", (double)(int64_t)(up / 3600), (int)((int64_t)up / 60 % 60), (int)((int64_t)up % 60));
    strbuf_putc(out, '\n');
}

static void stages(const struct view *v, struct strbuf *out)
{
    const json_t *stage;
    size_t i;
    char node[NAME_BYTES], device[NAME_BYTES], place[2 * NAME_BYTES + 2], layers[48];
    struct strbuf mem;
    unsigned wide = MEMORY_COLUMNS;

    if (json_array_size(json_object_get(v->now, "stages")) == 0)
        return;
    json_array_foreach(json_object_get(v->now, "stages"), i, stage) if (may_use_less(v, stage)) wide = MEMORY_WIDE_COLUMNS;
    style(v, out, dim);
    strbuf_printf(out, "  %-5s  %-18s  %-9s  %-*s  %-30s %s\n", "stage", "where", "layers", (int)wide, "memory (# weights, + cache)", "busy #, wait ., wire ~",
                  "a batch");
    style(v, out, plain);
    json_array_foreach(json_object_get(v->now, "stages"), i, stage) {
        const json_t *range = json_object_get(stage, "layers");
        snprintf(place, sizeof place, "%s/%s", text_of(stage, "node", node), text_of(stage, "device", device));
        snprintf(layers, sizeof layers, "%d-%d", (int)json_integer_value(json_array_get(range, 0)),
                 (int)json_integer_value(json_array_get(range, 1)));
        strbuf_init(&mem, LINE_BYTES);
        memory(v, stage, &mem);
        strbuf_printf(out, "  %-5zu  %-18s  %-9s  ", i, place, layers);
        strbuf_add(out, mem.data, mem.len);
        unsigned columns = 0, one;
        for (size_t at = 0; at < mem.len; at += columns_next(mem.data + at, mem.len - at, &one), columns += one)
            one = 0;
        strbuf_printf(out, "%*s  ", columns < wide ? (int)(wide - columns) : 0, "");
        strbuf_fini(&mem);
        shares(v, i, out);
        strbuf_printf(out, "  %.1f ms\n", number_of(json_object_get(stage, "measured"), "batch_ms"));
    }
}

/* Nodes without a stage: those that load are shown with how far they are. */
static void nodes(const struct view *v, struct strbuf *out)
{
    const json_t *node;
    size_t i;
    char name[NAME_BYTES], state[NAME_BYTES], done[32], total[32];

    json_array_foreach(json_object_get(v->now, "nodes"), i, node) {
        const json_t *loading = json_object_get(node, "loading");
        double all = number_of(loading, "total_bytes"), have = number_of(loading, "done_bytes");
        bool loads = all > 0 && have < all;
        if (json_is_integer(json_object_get(node, "stage")) && !loads)
            continue;
        strbuf_printf(out, "  node   %-18s  %s%s", text_of(node, "name", name), text_of(node, "state", state),
                      json_is_true(json_object_get(node, "standby")) ? ", standby" : "");
        if (loads) {
            strbuf_puts(out, ", loading ");
            bar(v, out, (double[]){have / all}, "#", (const char *[]){green}, 1);
            strbuf_printf(out, " %s of %s", ui_bytes(done, sizeof done, (uint64_t)have), ui_bytes(total, sizeof total, (uint64_t)all));
        }
        strbuf_putc(out, '\n');
    }
}

static void load(const struct view *v, struct strbuf *out)
{
    const json_t *r = json_object_get(v->now, "requests"), *s = json_object_get(v->now, "schedule");
    const json_t *predicted = json_object_get(v->now, "predicted"), *used = json_object_get(s, "blocks_used");
    double tokens = number_of(r, "tokens") - number_of(json_object_get(v->before, "requests"), "tokens");
    double in_use = json_number_value(json_array_get(used, 0)), cached = json_number_value(json_array_get(json_object_get(s, "blocks_cached"), 0));
    double blocks = in_use + cached + json_number_value(json_array_get(json_object_get(s, "blocks_free"), 0));

    strbuf_printf(out, "  answers: %.0f open", number_of(r, "open"));
    if (json_is_object(s))
        strbuf_printf(out, " (%.0f running, %.0f waiting)", number_of(s, "running"), number_of(s, "waiting"));
    strbuf_printf(out, ", %.0f served, %.0f failed or cancelled; %.0f tokens", number_of(r, "served"), number_of(r, "failed"),
                  number_of(r, "tokens"));
    if (v->before && v->seconds > 0)
        strbuf_printf(out, ", now %.1f/s", tokens > 0 ? tokens / v->seconds : 0);
    if (number_of(predicted, "tokens_per_s_now") > 0)
        strbuf_printf(out, " (predicted %.1f)", number_of(predicted, "tokens_per_s_now"));
    strbuf_putc(out, '\n');
    if (blocks > 0) {
        strbuf_puts(out, "  KV:      ");
        bar(v, out, (double[]){in_use / blocks, cached / blocks}, "#+", (const char *[]){green, cyan}, 2);
        strbuf_printf(out, " %.0f of %.0f blocks in use, %.0f kept for prefixes\n", in_use, blocks, cached);
    }
}

static void events(const struct view *v, size_t most, struct strbuf *out)
{
    const json_t *list = json_object_get(v->now, "events");
    size_t n = json_array_size(list);
    char text[512];

    for (size_t i = n > most ? n - most : 0; i < n; i++) {
        const json_t *e = json_array_get(list, i);
        const char *s = json_string_value(json_object_get(e, "text")), *kind = json_string_value(json_object_get(e, "kind"));
        style(v, out, kind && strcmp(kind, "trouble") == 0 ? yellow : dim);
        strbuf_printf(out, "  %8.1f s  %s", number_of(e, "at_s"), s ? err_printable(text, sizeof text, s, strlen(s)) : "-");
        style(v, out, plain);
        strbuf_putc(out, '\n');
    }
}

/* --- together ------------------------------------------------------------ */

static size_t lines_of(const struct strbuf *sb)
{
    size_t n = 0;
    for (size_t i = 0; i < sb->len; i++)
        n += sb->data[i] == '\n';
    return n;
}

/* Lines cut to the terminal's width, so that none takes two. */
static void cut(const struct view *v, const struct strbuf *all, struct strbuf *out)
{
    for (size_t at = 0; at < all->len;) {
        unsigned column = 0;
        for (unsigned wide; at < all->len && all->data[at] != '\n'; column += wide) {
            size_t n = columns_next(all->data + at, all->len - at, &wide);
            if (!v->width || wide == 0 || column + wide <= v->width)
                strbuf_add(out, all->data + at, n);
            at += n;
        }
        strbuf_putc(out, '\n');
        at++;
    }
}

void view_draw(const struct view *v, struct strbuf *out)
{
    struct strbuf all;

    strbuf_init(&all, 1 << 20);
    head(v, &all);
    stages(v, &all);
    nodes(v, &all);
    load(v, &all);
    size_t used = lines_of(&all) + 1, room = v->height > used + EVENTS_LEAST ? v->height - used : EVENTS_LEAST;
    events(v, v->height ? room : EVENTS_LEAST, &all);
    cut(v, &all, out);
    strbuf_fini(&all);
}
