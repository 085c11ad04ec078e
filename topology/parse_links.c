/* Reads what stands between nodes: links, shared resources, pins. See parse.h. */
#include <stdio.h>
#include <string.h>

#include "topology/parse.h"

static int read_rtt(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_quantity(c, v, "rtt", TOPOLOGY_TIME_US, false, &((struct topology_link *)into)->rtt_us);
}

static int read_link_rate(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_quantity(c, v, "rate", TOPOLOGY_RATE, true, &((struct topology_link *)into)->bps);
}

static const struct parse_key link_keys[] = {{"rtt", read_rtt}, {"rate", read_link_rate}, {0}};

static uint32_t end_of_link(const struct topology *t, const char *s, size_t len)
{
    char name[TOPOLOGY_MAX_NAME + 1];
    if (len == 11 && memcmp(s, "coordinator", 11) == 0)
        return TOPOLOGY_MAX_NODES;
    if (len == 0 || len > TOPOLOGY_MAX_NAME)
        return UINT32_MAX;
    memcpy(name, s, len);
    name[len] = '\0';
    return topology_find(t, name);
}

/* "a-b", where names may hold dashes themselves: the one way to split that gives two ends. */
static int read_ends(struct parse *c, const struct yaml_item *key, struct topology_link *l)
{
    char shown[100];
    uint32_t found = 0;
    err_printable(shown, sizeof shown, key->text, key->len);
    for (size_t i = 1; i + 1 < key->len; i++) {
        if (key->text[i] != '-')
            continue;
        uint32_t a = end_of_link(c->t, key->text, i), b = end_of_link(c->t, key->text + i + 1, key->len - i - 1);
        if (a == UINT32_MAX || b == UINT32_MAX)
            continue;
        if (a == b)
            return PARSE_FAIL(c, key, "\"%s\" is a link of a node with itself", shown);
        found++;
        l->a = a == TOPOLOGY_MAX_NODES ? TOPOLOGY_COORDINATOR : a;
        l->b = b == TOPOLOGY_MAX_NODES ? TOPOLOGY_COORDINATOR : b;
    }
    if (found == 0)
        return PARSE_FAIL(c, key, "\"%s\" names no link: NODE-NODE or coordinator-NODE with nodes of this file is allowed, or default", shown);
    if (found > 1)
        return PARSE_FAIL(c, key, "\"%s\" can be read as several pairs of nodes; rename one of them", shown);
    return 0;
}

int parse_links(struct parse *c, const struct yaml_item *map, void *into)
{
    struct topology *t = into;
    if (parse_want_kind(c, map, YAML_MAP, "links") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        struct topology_link l = {.rtt_us = -1, .bps = -1};
        bool usual = strcmp(k->text, "default") == 0;
        if (t->n_links == TOPOLOGY_MAX_LINKS)
            return PARSE_FAIL(c, k, "more than %d links", TOPOLOGY_MAX_LINKS);
        if ((!usual && read_ends(c, k, &l) != 0) || parse_map(c, k->next, "a link", link_keys, &l) != 0)
            return -1;
        if (usual) {
            t->default_rtt_us = l.rtt_us >= 0 ? l.rtt_us : 0;
            t->default_bps = l.bps > 0 ? l.bps : 0;
            continue;
        }
        for (uint32_t i = 0; i < t->n_links; i++)
            if ((t->links[i].a == l.a && t->links[i].b == l.b) || (t->links[i].a == l.b && t->links[i].b == l.a))
                return PARSE_FAIL(c, k, "this link stands here a second time, in whichever order");
        t->links[t->n_links++] = l;
    }
    return 0;
}

struct group_reading {
    struct topology_group group;
    const struct yaml_item *devices, *nodes, *read, *rate, *share;
};

static int keep_share(struct parse *c, const struct yaml_item *v, void *into)
{
    (void)c;
    ((struct group_reading *)into)->share = v;
    return 0;
}
static int keep_devices(struct parse *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->devices = v;
    return parse_want_kind(c, v, YAML_LIST, "devices");
}
static int keep_nodes(struct parse *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->nodes = v;
    return parse_want_kind(c, v, YAML_LIST, "nodes");
}
static int keep_read(struct parse *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->read = v;
    return parse_quantity(c, v, "read", TOPOLOGY_RATE, true, &((struct group_reading *)into)->group.bps);
}
static int keep_rate(struct parse *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->rate = v;
    return parse_quantity(c, v, "rate", TOPOLOGY_RATE, true, &((struct group_reading *)into)->group.bps);
}

static const struct parse_key group_keys[] = {{"share", keep_share}, {"devices", keep_devices}, {"nodes", keep_nodes}, {"read", keep_read}, {"rate", keep_rate}, {0}};

/* "a/cpu" */
static int read_member(struct parse *c, const struct yaml_item *v, struct topology_group *g)
{
    char shown[100];
    const char *slash;
    if (parse_want_kind(c, v, YAML_TEXT, "a device") != 0)
        return -1;
    slash = strchr(v->text, '/');
    uint32_t node = slash ? end_of_link(c->t, v->text, (size_t)(slash - v->text)) : UINT32_MAX;
    if (node < c->t->n_nodes) {
        struct topology_device *d = parse_device_named(&c->t->nodes[node], slash + 1);
        if (d) {
            g->nodes[g->n_members] = node;
            g->devices[g->n_members++] = (uint32_t)(d - c->t->nodes[node].devices);
            return 0;
        }
    }
    return PARSE_FAIL(c, v, "\"%s\" is no device of this file; NODE/cpu or NODE/cuda:0 is expected", err_printable(shown, sizeof shown, v->text, v->len));
}

static bool member_twice(const struct topology *t, const struct topology_group *g)
{
    for (uint32_t k = 0; k <= t->n_groups; k++) {
        const struct topology_group *other = k < t->n_groups ? &t->groups[k] : g;
        uint32_t n = k < t->n_groups ? other->n_members : g->n_members - 1;
        for (uint32_t i = 0; i < n && other->uplink == g->uplink; i++)
            if (other->nodes[i] == g->nodes[g->n_members - 1] && (g->uplink || other->devices[i] == g->devices[g->n_members - 1]))
                return true;
    }
    return false;
}

static int read_group(struct parse *c, const struct yaml_item *v)
{
    static const char *const shares[] = {"memory", "uplink", NULL};
    struct group_reading r = {0};
    const char *share;
    if (parse_map(c, v, "a group", group_keys, &r) != 0)
        return -1;
    if (!r.share)
        return PARSE_FAIL(c, v, "a group says what it shares: share: memory or share: uplink");
    if (parse_choice(c, r.share, "share", shares, &share) != 0)
        return -1;
    r.group.uplink = share == shares[1];
    const struct yaml_item *list = r.group.uplink ? r.nodes : r.devices;
    if (!list || (r.group.uplink ? !r.rate || r.devices || r.read : !r.read || r.nodes || r.rate))
        return PARSE_FAIL(c, v, "a group is {share: memory, devices: [NODE/cpu, …], read: RATE} or {share: uplink, nodes: [NODE, …], rate: RATE}");
    for (const struct yaml_item *i = list->first; i; i = i->next) {
        if (r.group.n_members == TOPOLOGY_MAX_MEMBERS)
            return PARSE_FAIL(c, i, "a group of more than %d", TOPOLOGY_MAX_MEMBERS);
        if (r.group.uplink ? parse_find_node(c, i, &r.group.nodes[r.group.n_members]) : read_member(c, i, &r.group))
            return -1;
        r.group.n_members += r.group.uplink;
        if (member_twice(c->t, &r.group))
            return PARSE_FAIL(c, i, "\"%s\" is in a group of this kind already", i->text);
    }
    if (r.group.n_members < 2)
        return PARSE_FAIL(c, list, "a group has at least two members");
    c->t->groups[c->t->n_groups++] = r.group;
    return 0;
}

int parse_groups(struct parse *c, const struct yaml_item *list, void *into)
{
    struct topology *t = into;
    if (parse_want_kind(c, list, YAML_LIST, "groups") != 0)
        return -1;
    for (const struct yaml_item *i = list->first; i; i = i->next) {
        if (t->n_groups == TOPOLOGY_MAX_GROUPS)
            return PARSE_FAIL(c, i, "more than %d groups", TOPOLOGY_MAX_GROUPS);
        if (read_group(c, i) != 0)
            return -1;
    }
    return 0;
}

static int read_layers(struct parse *c, const struct yaml_item *v, struct topology_pin *p)
{
    char shown[48];
    unsigned first, last;
    int n = 0;
    bool range = v->kind == YAML_TEXT && v->len <= 11 && sscanf(v->text, "%4u-%4u%n", &first, &last, &n) == 2 && (size_t)n == v->len;
    if (v->kind == YAML_TEXT && !range && v->len <= 4 && sscanf(v->text, "%4u%n", &first, &n) == 1 && (size_t)n == v->len)
        last = first, range = true;
    if (parse_want_kind(c, v, YAML_TEXT, "layers") != 0)
        return -1;
    if (!range || first > last || v->text[0] < '0' || v->text[0] > '9')
        return PARSE_FAIL(c, v, "\"%s\" are no layers; FIRST-LAST such as 0-9 is allowed", err_printable(shown, sizeof shown, v->text, v->len));
    p->what = TOPOLOGY_PIN_LAYERS;
    p->first = first;
    p->last = last;
    return 0;
}

static int read_pin_what(struct parse *c, const struct yaml_item *v, struct topology_pin *p)
{
    if (v->kind == YAML_TEXT && strcmp(v->text, "head") == 0)
        p->what = TOPOLOGY_PIN_HEAD;
    else if (v->kind == YAML_TEXT && strcmp(v->text, "embed") == 0)
        p->what = TOPOLOGY_PIN_EMBED;
    else
        return read_layers(c, v, p);
    return 0;
}

static int read_pin(struct parse *c, const struct yaml_item *v, struct topology_pin *p)
{
    static const char form[] = "a pin is {layers: 0-9, node: NODE}, {head: NODE}, {embed: NODE} or {never: NODE, what: head, embed or layers}";
    static const char *const known[] = {"layers", "node", "head", "embed", "never", "what"};
    *p = (struct topology_pin){.mark = {v->line, v->column}};
    if (parse_want_kind(c, v, YAML_MAP, "a pin") != 0)
        return -1;
    uint32_t n = 0;
    for (const struct yaml_item *k = v->first; k && k->next; k = k->next->next, n++) {
        size_t i = 0;
        while (i < 6 && strcmp(known[i], k->text) != 0)
            i++;
        if (i == 6)
            return parse_unknown_name(c, k, "key", known, 6);
    }
    const struct yaml_item *layers = parse_entry(v, "layers"), *node = parse_entry(v, "node"), *head = parse_entry(v, "head"), *embed = parse_entry(v, "embed"),
                           *never = parse_entry(v, "never"), *what = parse_entry(v, "what");
    p->never = never != NULL;
    if (n == 2 && layers && node)
        return read_layers(c, layers, p) != 0 || parse_find_node(c, node, &p->node) != 0 ? -1 : 0;
    if (n == 2 && never && what)
        return read_pin_what(c, what, p) != 0 || parse_find_node(c, never, &p->node) != 0 ? -1 : 0;
    if (n == 1 && (head || embed)) {
        p->what = head ? TOPOLOGY_PIN_HEAD : TOPOLOGY_PIN_EMBED;
        return parse_find_node(c, head ? head : embed, &p->node);
    }
    return PARSE_FAIL(c, v, "%s", form);
}

int parse_pins(struct parse *c, const struct yaml_item *list, void *into)
{
    struct topology *t = into;
    if (parse_want_kind(c, list, YAML_LIST, "pins") != 0)
        return -1;
    for (const struct yaml_item *i = list->first; i; i = i->next) {
        if (t->n_pins == TOPOLOGY_MAX_PINS)
            return PARSE_FAIL(c, i, "more than %d pins", TOPOLOGY_MAX_PINS);
        if (read_pin(c, i, &t->pins[t->n_pins]) != 0)
            return -1;
        t->n_pins++;
    }
    return 0;
}
