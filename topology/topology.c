/* A topology as an object: making, changing and writing it. parse.c reads it, save.c keeps its file. */
#include "topology/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ARENA_MAX_BYTES = 32 << 20, WRITTEN_MAX_BYTES = TOPOLOGY_MAX_BYTES };

struct topology *topology_create(struct err *err)
{
    struct topology *t = mem_new(1, sizeof *t, err);
    if (!t)
        return NULL;
    arena_init(&t->arena, ARENA_MAX_BYTES);
    if (!(t->nodes = mem_new(TOPOLOGY_MAX_NODES, sizeof *t->nodes, err)) || !(t->links = mem_new(TOPOLOGY_MAX_LINKS, sizeof *t->links, err))) {
        topology_destroy(t);
        return NULL;
    }
    return t;
}

void topology_destroy(struct topology *t)
{
    if (!t)
        return;
    free(t->nodes);
    free(t->links);
    arena_fini(&t->arena);
    free(t);
}

uint32_t topology_find(const struct topology *t, const char *node)
{
    for (uint32_t i = 0; i < t->n_nodes; i++)
        if (strcmp(t->nodes[i].name, node) == 0)
            return i;
    return UINT32_MAX;
}

/* --- adding ----------------------------------------------------------------------------------------------------------------- */

static int keep(struct topology *t, const char **text, struct err *err)
{
    if (*text && !(*text = arena_strndup(&t->arena, *text, strlen(*text), err)))
        return -1;
    return 0;
}

static int keep_node(struct topology *t, struct topology_node *n, struct err *err)
{
    const char **texts[] = {&n->name, &n->address, &n->key, &n->model_dir, &n->numerics};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (keep(t, texts[i], err) != 0)
            return -1;
    for (uint32_t d = 0; d < n->n_devices; d++) {
        if (keep(t, &n->devices[d].name, err) != 0 || keep(t, &n->devices[d].numerics, err) != 0)
            return -1;
        for (uint32_t p = 0; p < n->devices[d].n_peers; p++)
            if (keep(t, &n->devices[d].peers[p].device, err) != 0)
                return -1;
        for (uint32_t r = 0; r < n->devices[d].n_rates; r++)
            if (keep(t, &n->devices[d].rates[r].type, err) != 0)
                return -1;
    }
    return 0;
}

bool topology_same_address(const char *a, const char *b)
{
    return strcasecmp(a, b) == 0;
}

int topology_put(struct topology *t, const struct topology_node *node, struct err *err)
{
    struct topology_node copy = *node;
    struct strbuf text;
    struct topology *check = NULL;
    uint32_t at = topology_find(t, node->name);
    if (at == UINT32_MAX && t->n_nodes == TOPOLOGY_MAX_NODES)
        return err_set(err, ERR_LIMIT, "node %s is one too many; a topology has at most %d", node->name, TOPOLOGY_MAX_NODES);
    if (node->n_devices < 1 || node->n_devices > TOPOLOGY_MAX_DEVICES || strcmp(node->devices[0].name, "cpu") != 0)
        return err_set(err, ERR_INTERNAL, "node %s has %u devices, the first must be the cpu", node->name, node->n_devices);
    for (uint32_t i = 0; node->address && i < t->n_nodes; i++)
        if (i != at && t->nodes[i].address && topology_same_address(t->nodes[i].address, node->address))
            return err_set(err, ERR_INPUT, "node %s has the address %s, which is node %s's already: take that one out of the file, or --advertise another", node->name, node->address, t->nodes[i].name);
    if (keep_node(t, &copy, err) != 0)
        return -1;
    /* What would be written must be readable: names and values came from a stranger. */
    struct topology alone = {.nodes = &copy, .n_nodes = 1};
    strbuf_init(&text, WRITTEN_MAX_BYTES);
    if (topology_write(&alone, &text, err) == 0)
        check = topology_parse(copy.name, strbuf_str(&text), text.len, err);
    strbuf_fini(&text);
    if (!check)
        return -1;
    topology_destroy(check);
    t->nodes[at == UINT32_MAX ? t->n_nodes++ : at] = copy;
    return 0;
}

/* --- writing ----------------------------------------------------------------------------------------------------------------- */

static void text_entry(struct strbuf *out, const char *indent, const char *name, const char *value)
{
    if (!value)
        return;
    strbuf_printf(out, "%s%s: ", indent, name);
    strbuf_json(out, value, strlen(value)); /* a JSON string is a quoted YAML one */
    strbuf_putc(out, '\n');
}

static void quantity(struct strbuf *out, const char *before, enum topology_unit unit, double value)
{
    strbuf_puts(out, before);
    topology_quantity_text(out, unit, value);
}

static bool measured(const struct topology_device *d)
{
    return d->read_bps > 0 || d->copy_bps > 0 || d->back_bps > 0 || d->n_peers > 0 || d->attention_ops[0] > 0 || d->step_us > 0 || d->n_rates > 0;
}

static void write_rate(struct strbuf *out, const double ops[TOPOLOGY_RATE_ROWS])
{
    if (ops[0] == ops[2] && ops[1] == ops[2]) {
        topology_quantity_text(out, TOPOLOGY_OPS, ops[2]);
        return;
    }
    for (int k = 0; k < TOPOLOGY_RATE_ROWS; k++)
        quantity(out, k ? ", " : "[", TOPOLOGY_OPS, ops[k]);
    strbuf_putc(out, ']');
}

static void write_device_profile(struct strbuf *out, const struct topology_device *d)
{
    const char *comma = "";
    strbuf_printf(out, strcmp(d->name, "cpu") == 0 ? "      %s: {" : "      \"%s\": {", d->name);
    if (d->read_bps > 0)
        quantity(out, "read: ", TOPOLOGY_RATE, d->read_bps), comma = ", ";
    if (d->copy_bps > 0)
        strbuf_puts(out, comma), quantity(out, "copy: ", TOPOLOGY_RATE, d->copy_bps), comma = ", ";
    if (d->back_bps > 0)
        strbuf_puts(out, comma), quantity(out, "back: ", TOPOLOGY_RATE, d->back_bps), comma = ", ";
    for (uint32_t i = 0; i < d->n_peers; i++, comma = ", ") {
        strbuf_printf(out, "%s%s\"%s\": ", comma, i ? "" : "peers: {", d->peers[i].device);
        topology_quantity_text(out, TOPOLOGY_RATE, d->peers[i].bps);
        strbuf_puts(out, i + 1 == d->n_peers ? "}" : "");
    }
    if (d->attention_ops[0] > 0) {
        strbuf_printf(out, "%sattention: ", comma);
        write_rate(out, d->attention_ops);
        comma = ", ";
    }
    if (d->step_us > 0)
        strbuf_puts(out, comma), quantity(out, "step: ", TOPOLOGY_TIME_US, d->step_us), comma = ", ";
    for (uint32_t i = 0; i < d->n_rates; i++, comma = ", ") {
        strbuf_printf(out, "%s%s: ", comma, d->rates[i].type);
        write_rate(out, d->rates[i].ops);
    }
    strbuf_puts(out, "}\n");
}

static void write_node(struct strbuf *out, const struct topology_node *n)
{
    bool any = n->disk_bps > 0;
    strbuf_printf(out, "  %s:\n", n->name);
    text_entry(out, "    ", "address", n->address);
    text_entry(out, "    ", "key", n->key);
    if (n->devices[0].memory_bytes)
        quantity(out, "    ram: ", TOPOLOGY_BYTES, (double)n->devices[0].memory_bytes), strbuf_putc(out, '\n');
    if (n->threads)
        strbuf_printf(out, "    threads: %u\n", n->threads);
    if (n->n_devices > 1)
        strbuf_puts(out, "    devices:\n");
    for (uint32_t d = 1; d < n->n_devices; d++) {
        strbuf_printf(out, "      \"%s\": {memory: ", n->devices[d].name);
        topology_quantity_text(out, TOPOLOGY_BYTES, (double)n->devices[d].memory_bytes);
        if (n->devices[d].numerics)
            strbuf_puts(out, ", numerics: "), strbuf_json(out, n->devices[d].numerics, strlen(n->devices[d].numerics));
        strbuf_puts(out, "}\n");
    }
    text_entry(out, "    ", "model_dir", n->model_dir);
    text_entry(out, "    ", "numerics", n->numerics);
    if (n->watts > 0)
        quantity(out, "    watts: ", TOPOLOGY_WATTS, n->watts), strbuf_putc(out, '\n');
    if (n->standby)
        strbuf_puts(out, "    standby: true\n");
    if (n->disk_tier)
        strbuf_puts(out, "    disk_tier: true\n");
    for (uint32_t d = 0; d < n->n_devices; d++)
        any |= measured(&n->devices[d]);
    if (any)
        strbuf_puts(out, "    profile:\n");
    for (uint32_t d = 0; d < n->n_devices; d++)
        if (measured(&n->devices[d]))
            write_device_profile(out, &n->devices[d]);
    if (n->disk_bps > 0)
        quantity(out, "      disk: ", TOPOLOGY_RATE, n->disk_bps), strbuf_putc(out, '\n');
}

static void write_link(struct strbuf *out, const char *a, const char *dash, const char *b, double rtt_us, double bps)
{
    strbuf_printf(out, "  %s%s%s: {", a, dash, b);
    if (rtt_us >= 0)
        quantity(out, "rtt: ", TOPOLOGY_TIME_US, rtt_us);
    if (bps > 0)
        quantity(out, rtt_us >= 0 ? ", rate: " : "rate: ", TOPOLOGY_RATE, bps);
    strbuf_puts(out, "}\n");
}

static const char *end_name(const struct topology *t, uint32_t end)
{
    return end == TOPOLOGY_COORDINATOR ? "coordinator" : t->nodes[end].name;
}

static void write_links(struct strbuf *out, const struct topology *t)
{
    if (t->default_bps > 0 || t->default_rtt_us > 0 || t->n_links)
        strbuf_puts(out, "links:\n");
    if (t->default_bps > 0 || t->default_rtt_us > 0)
        write_link(out, "default", "", "", t->default_rtt_us > 0 ? t->default_rtt_us : -1, t->default_bps);
    for (uint32_t i = 0; i < t->n_links; i++)
        write_link(out, end_name(t, t->links[i].a), "-", end_name(t, t->links[i].b), t->links[i].rtt_us, t->links[i].bps);
}

static void write_groups(struct strbuf *out, const struct topology *t)
{
    if (t->n_groups)
        strbuf_puts(out, "groups:\n");
    for (uint32_t i = 0; i < t->n_groups; i++) {
        const struct topology_group *g = &t->groups[i];
        strbuf_puts(out, g->uplink ? "  - {share: uplink, nodes: [" : "  - {share: memory, devices: [");
        for (uint32_t m = 0; m < g->n_members; m++) {
            const struct topology_node *n = &t->nodes[g->nodes[m]];
            if (g->uplink)
                strbuf_printf(out, "%s%s", m ? ", " : "", n->name);
            else
                strbuf_printf(out, "%s\"%s/%s\"", m ? ", " : "", n->name, n->devices[g->devices[m]].name);
        }
        quantity(out, g->uplink ? "], rate: " : "], read: ", TOPOLOGY_RATE, g->bps);
        strbuf_puts(out, "}\n");
    }
}

static void write_pins(struct strbuf *out, const struct topology *t)
{
    static const char *const names[] = {[TOPOLOGY_PIN_EMBED] = "embed", [TOPOLOGY_PIN_HEAD] = "head"};
    if (t->n_pins)
        strbuf_puts(out, "pins:\n");
    for (uint32_t i = 0; i < t->n_pins; i++) {
        const struct topology_pin *p = &t->pins[i];
        const char *node = t->nodes[p->node].name;
        if (p->what == TOPOLOGY_PIN_LAYERS && p->never)
            strbuf_printf(out, "  - {never: %s, what: %u-%u}\n", node, p->first, p->last);
        else if (p->what == TOPOLOGY_PIN_LAYERS)
            strbuf_printf(out, "  - {layers: %u-%u, node: %s}\n", p->first, p->last, node);
        else if (p->never)
            strbuf_printf(out, "  - {never: %s, what: %s}\n", node, names[p->what]);
        else
            strbuf_printf(out, "  - {%s: %s}\n", names[p->what], node);
    }
}

static void write_model(struct strbuf *out, const struct topology *t)
{
    const char *comma = "";
    if (!t->ctx && !t->parallel && !t->kv && !t->wire)
        return;
    strbuf_puts(out, "model: {");
    if (t->ctx)
        strbuf_printf(out, "ctx: %u", t->ctx), comma = ", ";
    if (t->parallel)
        strbuf_printf(out, "%sparallel: %u", comma, t->parallel), comma = ", ";
    if (t->kv)
        strbuf_printf(out, "%skv: %s", comma, t->kv), comma = ", ";
    if (t->wire)
        strbuf_printf(out, "%swire: %s", comma, t->wire);
    strbuf_puts(out, "}\n");
}

int topology_write(const struct topology *t, struct strbuf *out, struct err *err)
{
    text_entry(out, "", "cluster", t->cluster);
    if (t->listen) {
        strbuf_puts(out, "coordinator:\n");
        text_entry(out, "  ", "listen", t->listen);
    }
    write_model(out, t);
    if (t->price_per_kwh > 0) {
        strbuf_puts(out, "power: {price_per_kwh: ");
        topology_number_text(out, t->price_per_kwh);
        strbuf_printf(out, "%s%s}\n", t->currency ? " " : "", t->currency ? t->currency : "");
    }
    strbuf_puts(out, "nodes:\n");
    for (uint32_t i = 0; i < t->n_nodes; i++)
        write_node(out, &t->nodes[i]);
    write_links(out, t);
    write_groups(out, t);
    write_pins(out, t);
    return strbuf_check(out, "a topology file", err);
}
