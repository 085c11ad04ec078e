/* Reads a topology file: tables of keys over the tree of yaml.h. See topology.h. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/opts.h"
#include "topology/topology.h"
#include "topology/yaml.h"

enum { LIST_BYTES = 200, MAX_KEYS = 24 };

struct ctx {
    const char *name; /* the file's */
    struct topology *t;
    struct err *err;
};

typedef int (*read_fn)(struct ctx *c, const struct yaml_item *value, void *into);
struct key {
    const char *name; /* NULL ends a table */
    read_fn read;
};

/* --- common -------------------------------------------------------------------------------------------------------------- */

#define FAIL(c, item, ...) yaml_fail((c)->name, (item), (c)->err, __VA_ARGS__)

static int want_kind(struct ctx *c, const struct yaml_item *v, enum yaml_kind kind, const char *what)
{
    struct yaml_item like = {.kind = kind};
    if (v->kind == kind)
        return 0;
    return FAIL(c, v, "%s is %s; %s is expected", what, yaml_kind_words(v), yaml_kind_words(&like));
}

static int unknown_name(struct ctx *c, const struct yaml_item *at, const char *what, const char *const *names, size_t n)
{
    char list[LIST_BYTES] = "", shown[64];
    size_t used = 0;
    const char *near = opts_nearest(at->text, names, n);
    err_printable(shown, sizeof shown, at->text, at->len);
    for (size_t i = 0; i < n && used < sizeof list - 1; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    if (used >= sizeof list - 1) /* more names than fit */
        snprintf(list + sizeof list - 5, 5, " …");
    if (near)
        return FAIL(c, at, "unknown %s \"%s\"; did you mean \"%s\"? Known are %s", what, shown, near, list);
    return FAIL(c, at, "unknown %s \"%s\"; known are %s", what, shown, n ? list : "none yet");
}

static int read_map(struct ctx *c, const struct yaml_item *map, const char *what, const struct key *keys, void *into)
{
    const char *names[MAX_KEYS];
    size_t n = 0;
    for (; keys[n].name && n < MAX_KEYS; n++)
        names[n] = keys[n].name;
    if (want_kind(c, map, YAML_MAP, what) != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        size_t i = 0;
        while (i < n && strcmp(names[i], k->text) != 0)
            i++;
        if (i == n)
            return unknown_name(c, k, "key", names, n);
        if (keys[i].read(c, k->next, into) != 0)
            return -1;
    }
    return 0;
}

static int read_text(struct ctx *c, const struct yaml_item *v, const char *what, const char **ret)
{
    if (want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (v->len == 0 || v->len > 4096)
        return FAIL(c, v, "%s has %zu bytes; 1 to 4096 are allowed", what, v->len);
    for (size_t i = 0; i < v->len; i++)
        if ((unsigned char)v->text[i] < 32 || v->text[i] == 127)
            return FAIL(c, v, "%s holds a control character", what);
    *ret = v->text; /* in the arena */
    return 0;
}

static int read_number(struct ctx *c, const struct yaml_item *v, const char *what, uint32_t min, uint32_t max, uint32_t *ret)
{
    char shown[48];
    uint64_t n = 0;
    bool good = v->kind == YAML_TEXT && v->len > 0 && v->len <= 10;
    for (size_t i = 0; good && i < v->len; i++) {
        good = v->text[i] >= '0' && v->text[i] <= '9';
        n = n * 10 + (uint64_t)(v->text[i] - '0');
    }
    if (want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (!good || n < min || n > max)
        return FAIL(c, v, "%s is \"%s\"; a whole number from %u to %u is allowed", what, err_printable(shown, sizeof shown, v->text, v->len), min,
                    max);
    *ret = (uint32_t)n;
    return 0;
}

static int read_bool(struct ctx *c, const struct yaml_item *v, const char *what, bool *ret)
{
    char shown[48];
    if (want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (strcmp(v->text, "true") == 0 || strcmp(v->text, "yes") == 0)
        *ret = true;
    else if (strcmp(v->text, "false") == 0 || strcmp(v->text, "no") == 0)
        *ret = false;
    else
        return FAIL(c, v, "%s is \"%s\"; true or false is allowed", what, err_printable(shown, sizeof shown, v->text, v->len));
    return 0;
}

static int read_quantity(struct ctx *c, const struct yaml_item *v, const char *what, enum topology_unit unit, bool positive, double *ret)
{
    struct err err;
    if (want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (topology_quantity(v->text, v->len, unit, ret, &err) != 0)
        return FAIL(c, v, "%s: %s", what, err.text);
    if (positive && *ret <= 0)
        return FAIL(c, v, "%s is 0; it must be more", what);
    return 0;
}

static int read_choice(struct ctx *c, const struct yaml_item *v, const char *what, const char *const *names, const char **ret)
{
    size_t n = 0;
    if (want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    for (; names[n]; n++)
        if (strcmp(names[n], v->text) == 0) {
            *ret = names[n];
            return 0;
        }
    return unknown_name(c, v, what, names, n);
}

static bool good_name(const char *s, size_t len)
{
    bool good = len > 0 && len <= TOPOLOGY_MAX_NAME && s[0] != '-' && s[0] != '.';
    for (size_t i = 0; i < len && good; i++)
        good = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9') || s[i] == '.' || s[i] == '_' || s[i] == '-';
    return good && !(len == 11 && memcmp(s, "coordinator", 11) == 0) && !(len == 7 && memcmp(s, "default", 7) == 0);
}

static int find_node(struct ctx *c, const struct yaml_item *v, uint32_t *ret)
{
    const char *names[TOPOLOGY_MAX_NODES];
    if (want_kind(c, v, YAML_TEXT, "a node's name") != 0)
        return -1;
    *ret = topology_find(c->t, v->text);
    if (*ret != UINT32_MAX)
        return 0;
    for (uint32_t i = 0; i < c->t->n_nodes; i++)
        names[i] = c->t->nodes[i].name;
    return unknown_name(c, v, "node", names, c->t->n_nodes);
}

static const struct yaml_item *entry(const struct yaml_item *map, const char *name)
{
    for (const struct yaml_item *k = map->kind == YAML_MAP ? map->first : NULL; k && k->next; k = k->next->next)
        if (strcmp(k->text, name) == 0)
            return k->next;
    return NULL;
}

/* --- a node's parts -------------------------------------------------------------------------------------------------------- */

static const char *const rate_words[] = {"read", "copy", "attention", "step"};

/* One number, or three: with 1, 8 and 512 rows. */
static int read_rate(struct ctx *c, const struct yaml_item *key, const char *shown, struct topology_rate *ret)
{
    const struct yaml_item *v = key->next, *at = v->kind == YAML_LIST ? v->first : v;
    ret->type = key->text;
    for (int k = 0; k < TOPOLOGY_RATE_ROWS; k++) {
        if (!at)
            return FAIL(c, v, "%s has %d rates; one is allowed, or three: with 1, 8 and 512 rows", shown, k);
        if (read_quantity(c, at, shown, TOPOLOGY_OPS, true, &ret->ops[k]) != 0)
            return -1;
        at = v->kind == YAML_LIST ? at->next : v;
    }
    if (v->kind == YAML_LIST && at)
        return FAIL(c, at, "%s has more than three rates: with 1, 8 and 512 rows", shown);
    return 0;
}

/* Also what no table names: a quantization's rate. */
static int read_device_profile(struct ctx *c, const struct yaml_item *map, struct topology_device *d)
{
    char what[128], shown[40];
    snprintf(what, sizeof what, "the profile of %s", d->name);
    if (want_kind(c, map, YAML_MAP, what) != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        double *into = NULL;
        enum topology_unit unit = TOPOLOGY_OPS;
        if (strcmp(k->text, "read") == 0)
            into = &d->read_bps, unit = TOPOLOGY_RATE;
        else if (strcmp(k->text, "copy") == 0)
            into = &d->copy_bps, unit = TOPOLOGY_RATE;
        else if (strcmp(k->text, "attention") == 0)
            into = &d->attention_ops;
        else if (strcmp(k->text, "step") == 0)
            into = &d->step_us, unit = TOPOLOGY_TIME_US;
        else if (k->text[0] < 'A' || k->text[0] > 'Z' || k->len > 15)
            return unknown_name(c, k, "measurement", rate_words, sizeof rate_words / sizeof *rate_words);
        else if (d->n_rates == TOPOLOGY_MAX_RATES)
            return FAIL(c, k, "%s has more than %d quantizations", what, TOPOLOGY_MAX_RATES);
        err_printable(shown, sizeof shown, k->text, k->len);
        if (!into) {
            if (read_rate(c, k, shown, &d->rates[d->n_rates++]) != 0)
                return -1;
            continue;
        }
        if (read_quantity(c, k->next, shown, unit, unit != TOPOLOGY_TIME_US, into) != 0)
            return -1;
    }
    return 0;
}

static int read_device_memory(struct ctx *c, const struct yaml_item *v, void *into)
{
    double bytes;
    if (read_quantity(c, v, "memory", TOPOLOGY_BYTES, false, &bytes) != 0)
        return -1;
    ((struct topology_device *)into)->memory_bytes = (uint64_t)bytes;
    return 0;
}

static int read_device_numerics(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_text(c, v, "numerics", &((struct topology_device *)into)->numerics);
}

static const struct key device_keys[] = {{"memory", read_device_memory}, {"numerics", read_device_numerics}, {0}};

static struct topology_device *device_named(struct topology_node *n, const char *name)
{
    for (uint32_t i = 0; i < n->n_devices; i++)
        if (strcmp(n->devices[i].name, name) == 0)
            return &n->devices[i];
    return NULL;
}

static int read_devices(struct ctx *c, const struct yaml_item *map, void *into)
{
    struct topology_node *n = into;
    char shown[48];
    if (want_kind(c, map, YAML_MAP, "devices") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        size_t kind = strncmp(k->text, "cuda:", 5) == 0 ? 5 : strncmp(k->text, "cpu:", 4) == 0 ? 4 : 0;
        bool good = kind && k->len > kind && k->len <= kind + 2;
        for (size_t i = kind; good && i < k->len; i++)
            good = k->text[i] >= '0' && k->text[i] <= '9';
        if (!good)
            return FAIL(c, k, "unknown device \"%s\"; cuda:0, cuda:1, … are allowed, and cpu:0, cpu:1, … for parts of the processors (all of "
                        "them are the node's ram)", err_printable(shown, sizeof shown, k->text, k->len));
        if (n->n_devices == TOPOLOGY_MAX_DEVICES)
            return FAIL(c, k, "more than %d devices", TOPOLOGY_MAX_DEVICES - 1);
        struct topology_device *d = &n->devices[n->n_devices++];
        *d = (struct topology_device){.name = k->text};
        if (read_map(c, k->next, k->text, device_keys, d) != 0)
            return -1;
        if (!d->memory_bytes)
            return FAIL(c, k, "%s has no memory; give it one, such as {memory: 22GiB}", k->text);
    }
    return 0;
}

static int read_profile(struct ctx *c, const struct yaml_item *map, void *into)
{
    struct topology_node *n = into;
    if (want_kind(c, map, YAML_MAP, "profile") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        struct topology_device *d = device_named(n, k->text);
        if (strcmp(k->text, "disk") == 0) {
            if (read_quantity(c, k->next, "disk", TOPOLOGY_RATE, true, &n->disk_bps) != 0)
                return -1;
        } else if (d) {
            if (read_device_profile(c, k->next, d) != 0)
                return -1;
        } else {
            const char *names[TOPOLOGY_MAX_DEVICES + 1] = {"disk"};
            for (uint32_t i = 0; i < n->n_devices; i++)
                names[i + 1] = n->devices[i].name;
            return unknown_name(c, k, "device", names, n->n_devices + 1);
        }
    }
    return 0;
}

static int read_address(struct ctx *c, const struct yaml_item *v, void *into)
{
    struct topology_node *n = into;
    char shown[80];
    if (read_text(c, v, "address", &n->address) != 0)
        return -1;
    const char *colon = strrchr(n->address, ':');
    if (strncmp(n->address, "ipc://", 6) != 0 && (strncmp(n->address, "tcp://", 6) != 0 || colon == n->address + 3 || colon[1] == '\0'))
        return FAIL(c, v, "address is \"%s\"; tcp://HOST:PORT is allowed (leave it out where the node dials in)",
                    err_printable(shown, sizeof shown, v->text, v->len));
    return 0;
}

static int read_key(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_text(c, v, "key", &((struct topology_node *)into)->key);
}

static int read_model_dir(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_text(c, v, "model_dir", &((struct topology_node *)into)->model_dir);
}

static int read_numerics(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_text(c, v, "numerics", &((struct topology_node *)into)->numerics);
}

static int read_ram(struct ctx *c, const struct yaml_item *v, void *into)
{
    double bytes;
    if (read_quantity(c, v, "ram", TOPOLOGY_BYTES, false, &bytes) != 0)
        return -1;
    ((struct topology_node *)into)->devices[0].memory_bytes = (uint64_t)bytes;
    return 0;
}

static int read_threads(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_number(c, v, "threads", 1, 1024, &((struct topology_node *)into)->threads);
}

static int read_standby(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_bool(c, v, "standby", &((struct topology_node *)into)->standby);
}

static int read_disk_tier(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_bool(c, v, "disk_tier", &((struct topology_node *)into)->disk_tier);
}

static int read_watts(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_quantity(c, v, "watts", TOPOLOGY_WATTS, false, &((struct topology_node *)into)->watts);
}

static int read_later(struct ctx *c, const struct yaml_item *v, void *into)
{
    (void)c, (void)v, (void)into;
    return 0;
}

static const struct key node_keys[] = {
    {"address", read_address}, {"key", read_key},         {"ram", read_ram},         {"threads", read_threads}, {"devices", read_devices},
    {"model_dir", read_model_dir}, {"watts", read_watts}, {"standby", read_standby}, {"disk_tier", read_disk_tier},
    {"numerics", read_numerics}, {"profile", read_later}, {0},
};

static int read_node(struct ctx *c, const struct yaml_item *name, const struct yaml_item *map, struct topology_node *n)
{
    char shown[80];
    const struct yaml_item *profile;
    *n = (struct topology_node){.name = name->text, .mark = {name->line, name->column}, .n_devices = 1, .devices = {{.name = "cpu"}}};
    if (!good_name(name->text, name->len))
        return FAIL(c, name, "\"%s\" is no name for a node; 1 to %d letters, digits, . _ - are allowed, and neither coordinator nor default",
                    err_printable(shown, sizeof shown, name->text, name->len), TOPOLOGY_MAX_NAME);
    if (read_map(c, map, n->name, node_keys, n) != 0)
        return -1;
    /* When all devices are known. */
    if ((profile = entry(map, "profile")) && read_profile(c, profile, n) != 0)
        return -1;
    if (n->n_devices == 1 && n->devices[0].memory_bytes == 0)
        return FAIL(c, name, "node %s has neither ram nor devices; say what may be used, such as ram: 8GiB", n->name);
    if (n->disk_tier && n->disk_bps <= 0)
        return FAIL(c, name, "node %s: disk_tier needs the disk's rate in its profile, such as profile: {disk: 3GB/s}", n->name);
    return 0;
}

static int read_nodes(struct ctx *c, const struct yaml_item *map, void *into)
{
    struct topology *t = into;
    uint32_t n = 0;
    if (want_kind(c, map, YAML_MAP, "nodes") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next)
        if (++n > TOPOLOGY_MAX_NODES)
            return FAIL(c, k, "more than %d nodes", TOPOLOGY_MAX_NODES);
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next)
        if (read_node(c, k, k->next, &t->nodes[t->n_nodes]) != 0)
            return -1;
        else
            t->n_nodes++;
    return 0;
}

/* --- links, groups, pins ---------------------------------------------------------------------------------------------------- */

static int read_rtt(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_quantity(c, v, "rtt", TOPOLOGY_TIME_US, false, &((struct topology_link *)into)->rtt_us);
}

static int read_link_rate(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_quantity(c, v, "rate", TOPOLOGY_RATE, true, &((struct topology_link *)into)->bps);
}

static const struct key link_keys[] = {{"rtt", read_rtt}, {"rate", read_link_rate}, {0}};

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
static int read_ends(struct ctx *c, const struct yaml_item *key, struct topology_link *l)
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
            return FAIL(c, key, "\"%s\" is a link of a node with itself", shown);
        found++;
        l->a = a == TOPOLOGY_MAX_NODES ? TOPOLOGY_COORDINATOR : a;
        l->b = b == TOPOLOGY_MAX_NODES ? TOPOLOGY_COORDINATOR : b;
    }
    if (found == 0)
        return FAIL(c, key, "\"%s\" names no link: NODE-NODE or coordinator-NODE with nodes of this file is allowed, or default", shown);
    if (found > 1)
        return FAIL(c, key, "\"%s\" can be read as several pairs of nodes; rename one of them", shown);
    return 0;
}

static int read_links(struct ctx *c, const struct yaml_item *map, void *into)
{
    struct topology *t = into;
    if (want_kind(c, map, YAML_MAP, "links") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        struct topology_link l = {.rtt_us = -1, .bps = -1};
        bool usual = strcmp(k->text, "default") == 0;
        if (t->n_links == TOPOLOGY_MAX_LINKS)
            return FAIL(c, k, "more than %d links", TOPOLOGY_MAX_LINKS);
        if ((!usual && read_ends(c, k, &l) != 0) || read_map(c, k->next, "a link", link_keys, &l) != 0)
            return -1;
        if (usual) {
            t->default_rtt_us = l.rtt_us >= 0 ? l.rtt_us : 0;
            t->default_bps = l.bps > 0 ? l.bps : 0;
            continue;
        }
        for (uint32_t i = 0; i < t->n_links; i++)
            if ((t->links[i].a == l.a && t->links[i].b == l.b) || (t->links[i].a == l.b && t->links[i].b == l.a))
                return FAIL(c, k, "this link stands here a second time, in whichever order");
        t->links[t->n_links++] = l;
    }
    return 0;
}

struct group_reading {
    struct topology_group group;
    const struct yaml_item *devices, *nodes, *read, *rate, *share;
};

static int keep_share(struct ctx *c, const struct yaml_item *v, void *into)
{
    (void)c;
    ((struct group_reading *)into)->share = v;
    return 0;
}
static int keep_devices(struct ctx *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->devices = v;
    return want_kind(c, v, YAML_LIST, "devices");
}
static int keep_nodes(struct ctx *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->nodes = v;
    return want_kind(c, v, YAML_LIST, "nodes");
}
static int keep_read(struct ctx *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->read = v;
    return read_quantity(c, v, "read", TOPOLOGY_RATE, true, &((struct group_reading *)into)->group.bps);
}
static int keep_rate(struct ctx *c, const struct yaml_item *v, void *into)
{
    ((struct group_reading *)into)->rate = v;
    return read_quantity(c, v, "rate", TOPOLOGY_RATE, true, &((struct group_reading *)into)->group.bps);
}

static const struct key group_keys[] = {{"share", keep_share}, {"devices", keep_devices}, {"nodes", keep_nodes}, {"read", keep_read}, {"rate", keep_rate}, {0}};

/* "a/cpu" */
static int read_member(struct ctx *c, const struct yaml_item *v, struct topology_group *g)
{
    char shown[100];
    const char *slash;
    if (want_kind(c, v, YAML_TEXT, "a device") != 0)
        return -1;
    slash = strchr(v->text, '/');
    uint32_t node = slash ? end_of_link(c->t, v->text, (size_t)(slash - v->text)) : UINT32_MAX;
    if (node < c->t->n_nodes) {
        struct topology_device *d = device_named(&c->t->nodes[node], slash + 1);
        if (d) {
            g->nodes[g->n_members] = node;
            g->devices[g->n_members++] = (uint32_t)(d - c->t->nodes[node].devices);
            return 0;
        }
    }
    return FAIL(c, v, "\"%s\" is no device of this file; NODE/cpu or NODE/cuda:0 is expected", err_printable(shown, sizeof shown, v->text, v->len));
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

static int read_group(struct ctx *c, const struct yaml_item *v)
{
    static const char *const shares[] = {"memory", "uplink", NULL};
    struct group_reading r = {0};
    const char *share;
    if (read_map(c, v, "a group", group_keys, &r) != 0)
        return -1;
    if (!r.share)
        return FAIL(c, v, "a group says what it shares: share: memory or share: uplink");
    if (read_choice(c, r.share, "share", shares, &share) != 0)
        return -1;
    r.group.uplink = share == shares[1];
    const struct yaml_item *list = r.group.uplink ? r.nodes : r.devices;
    if (!list || (r.group.uplink ? !r.rate || r.devices || r.read : !r.read || r.nodes || r.rate))
        return FAIL(c, v, "a group is {share: memory, devices: [NODE/cpu, …], read: RATE} or {share: uplink, nodes: [NODE, …], rate: RATE}");
    for (const struct yaml_item *i = list->first; i; i = i->next) {
        if (r.group.n_members == TOPOLOGY_MAX_MEMBERS)
            return FAIL(c, i, "a group of more than %d", TOPOLOGY_MAX_MEMBERS);
        if (r.group.uplink ? find_node(c, i, &r.group.nodes[r.group.n_members]) : read_member(c, i, &r.group))
            return -1;
        r.group.n_members += r.group.uplink;
        if (member_twice(c->t, &r.group))
            return FAIL(c, i, "\"%s\" is in a group of this kind already", i->text);
    }
    if (r.group.n_members < 2)
        return FAIL(c, list, "a group has at least two members");
    c->t->groups[c->t->n_groups++] = r.group;
    return 0;
}

static int read_groups(struct ctx *c, const struct yaml_item *list, void *into)
{
    struct topology *t = into;
    if (want_kind(c, list, YAML_LIST, "groups") != 0)
        return -1;
    for (const struct yaml_item *i = list->first; i; i = i->next) {
        if (t->n_groups == TOPOLOGY_MAX_GROUPS)
            return FAIL(c, i, "more than %d groups", TOPOLOGY_MAX_GROUPS);
        if (read_group(c, i) != 0)
            return -1;
    }
    return 0;
}

static int read_layers(struct ctx *c, const struct yaml_item *v, struct topology_pin *p)
{
    char shown[48];
    unsigned first, last;
    int n = 0;
    bool range = v->kind == YAML_TEXT && v->len <= 11 && sscanf(v->text, "%4u-%4u%n", &first, &last, &n) == 2 && (size_t)n == v->len;
    if (v->kind == YAML_TEXT && !range && v->len <= 4 && sscanf(v->text, "%4u%n", &first, &n) == 1 && (size_t)n == v->len)
        last = first, range = true;
    if (want_kind(c, v, YAML_TEXT, "layers") != 0)
        return -1;
    if (!range || first > last || v->text[0] < '0' || v->text[0] > '9')
        return FAIL(c, v, "\"%s\" are no layers; FIRST-LAST such as 0-9 is allowed", err_printable(shown, sizeof shown, v->text, v->len));
    p->what = TOPOLOGY_PIN_LAYERS;
    p->first = first;
    p->last = last;
    return 0;
}

static int read_pin_what(struct ctx *c, const struct yaml_item *v, struct topology_pin *p)
{
    if (v->kind == YAML_TEXT && strcmp(v->text, "head") == 0)
        p->what = TOPOLOGY_PIN_HEAD;
    else if (v->kind == YAML_TEXT && strcmp(v->text, "embed") == 0)
        p->what = TOPOLOGY_PIN_EMBED;
    else
        return read_layers(c, v, p);
    return 0;
}

static int read_pin(struct ctx *c, const struct yaml_item *v, struct topology_pin *p)
{
    static const char form[] = "a pin is {layers: 0-9, node: NODE}, {head: NODE}, {embed: NODE} or {never: NODE, what: head, embed or layers}";
    static const char *const known[] = {"layers", "node", "head", "embed", "never", "what"};
    *p = (struct topology_pin){.mark = {v->line, v->column}};
    if (want_kind(c, v, YAML_MAP, "a pin") != 0)
        return -1;
    uint32_t n = 0;
    for (const struct yaml_item *k = v->first; k && k->next; k = k->next->next, n++) {
        size_t i = 0;
        while (i < 6 && strcmp(known[i], k->text) != 0)
            i++;
        if (i == 6)
            return unknown_name(c, k, "key", known, 6);
    }
    const struct yaml_item *layers = entry(v, "layers"), *node = entry(v, "node"), *head = entry(v, "head"), *embed = entry(v, "embed"),
                           *never = entry(v, "never"), *what = entry(v, "what");
    p->never = never != NULL;
    if (n == 2 && layers && node)
        return read_layers(c, layers, p) != 0 || find_node(c, node, &p->node) != 0 ? -1 : 0;
    if (n == 2 && never && what)
        return read_pin_what(c, what, p) != 0 || find_node(c, never, &p->node) != 0 ? -1 : 0;
    if (n == 1 && (head || embed)) {
        p->what = head ? TOPOLOGY_PIN_HEAD : TOPOLOGY_PIN_EMBED;
        return find_node(c, head ? head : embed, &p->node);
    }
    return FAIL(c, v, "%s", form);
}

static int read_pins(struct ctx *c, const struct yaml_item *list, void *into)
{
    struct topology *t = into;
    if (want_kind(c, list, YAML_LIST, "pins") != 0)
        return -1;
    for (const struct yaml_item *i = list->first; i; i = i->next) {
        if (t->n_pins == TOPOLOGY_MAX_PINS)
            return FAIL(c, i, "more than %d pins", TOPOLOGY_MAX_PINS);
        if (read_pin(c, i, &t->pins[t->n_pins]) != 0)
            return -1;
        t->n_pins++;
    }
    return 0;
}

/* --- the file ---------------------------------------------------------------------------------------------------------------- */

static int read_cluster(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_text(c, v, "cluster", &((struct topology *)into)->cluster);
}
static int read_listen(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_text(c, v, "listen", &((struct topology *)into)->listen);
}
static const struct key coordinator_keys[] = {{"listen", read_listen}, {0}};
static int read_coordinator(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_map(c, v, "coordinator", coordinator_keys, into);
}

static int read_ctx(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_number(c, v, "ctx", 1, 1 << 24, &((struct topology *)into)->ctx);
}
static int read_parallel(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_number(c, v, "parallel", 1, 1024, &((struct topology *)into)->parallel);
}
static int read_kv(struct ctx *c, const struct yaml_item *v, void *into)
{
    static const char *const types[] = {"f16", "f32", "q8_0", NULL};
    return read_choice(c, v, "kv", types, &((struct topology *)into)->kv);
}
static int read_wire(struct ctx *c, const struct yaml_item *v, void *into)
{
    static const char *const types[] = {"f32", "f16", "q8_0", "auto", NULL};
    return read_choice(c, v, "wire", types, &((struct topology *)into)->wire);
}
static const struct key model_keys[] = {{"ctx", read_ctx}, {"parallel", read_parallel}, {"kv", read_kv}, {"wire", read_wire}, {0}};
static int read_model(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_map(c, v, "model", model_keys, into);
}

/* "0.30 EUR" */
static int read_price(struct ctx *c, const struct yaml_item *v, void *into)
{
    struct topology *t = into;
    char shown[48];
    double price = 0, scale = 1;
    size_t i = 0;
    bool point = false;
    if (want_kind(c, v, YAML_TEXT, "price_per_kwh") != 0)
        return -1;
    for (; i < v->len && i < 16 && ((v->text[i] >= '0' && v->text[i] <= '9') || (v->text[i] == '.' && !point && i > 0)); i++) {
        if (v->text[i] == '.')
            point = true;
        else
            price = price * 10 + (v->text[i] - '0'), scale *= point ? 10 : 1;
    }
    const char *currency = v->text + i;
    while (*currency == ' ')
        currency++;
    if (i == 0 || strlen(currency) > 8 || price / scale > 1e6 || strspn(currency, "0123456789.-+ ") > 0)
        return FAIL(c, v, "price_per_kwh is \"%s\"; a number with a currency such as 0.30 EUR is allowed",
                    err_printable(shown, sizeof shown, v->text, v->len));
    t->price_per_kwh = price / scale;
    t->currency = *currency ? currency : NULL;
    return 0;
}
static const struct key power_keys[] = {{"price_per_kwh", read_price}, {0}};
static int read_power(struct ctx *c, const struct yaml_item *v, void *into)
{
    return read_map(c, v, "power", power_keys, into);
}

static const struct key file_keys[] = {
    {"cluster", read_cluster}, {"coordinator", read_coordinator}, {"model", read_model}, {"power", read_power},
    {"nodes", read_later},     {"links", read_later},             {"groups", read_later}, {"pins", read_later}, {0},
};
/* What names nodes comes after them, wherever it stands in the file. */
static const struct key later_keys[] = {{"nodes", read_nodes}, {"links", read_links}, {"groups", read_groups}, {"pins", read_pins}, {0}};

struct topology *topology_parse(const char *name, const char *text, size_t len, struct err *err)
{
    struct topology *t;
    const struct yaml_item *root;
    struct ctx c = {.name = name, .err = err};
    if (len > TOPOLOGY_MAX_BYTES) {
        err_set(err, ERR_LIMIT, "%s: %zu bytes; a topology file has at most %d", name, len, TOPOLOGY_MAX_BYTES);
        return NULL;
    }
    if (!(t = c.t = topology_create(err)))
        return NULL;
    if (!(root = yaml_read(name, text, len, &t->arena, err)))
        goto error;
    if (read_map(&c, root, "the file", file_keys, t) != 0)
        goto error;
    for (const struct key *k = later_keys; k->name; k++) {
        const struct yaml_item *v = entry(root, k->name);
        if (v && k->read(&c, v, t) != 0)
            goto error;
    }
    if (t->n_nodes == 0) {
        yaml_fail(name, root, err, "there are no nodes; \"nodes:\" names at least one");
        goto error;
    }
    return t;
error:
    topology_destroy(t);
    return NULL;
}

char *topology_text(const char *path, size_t *ret_len, struct err *err)
{
    char *text = NULL, shown[128];
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    err_printable(shown, sizeof shown, path, strlen(path));
    if (fd < 0) {
        err_errno(err, errno, "%s: cannot be opened", shown);
        return NULL;
    }
    text = mem_new(TOPOLOGY_MAX_BYTES + 2, 1, err);
    while (text && len <= TOPOLOGY_MAX_BYTES) {
        ssize_t n = read(fd, text + len, TOPOLOGY_MAX_BYTES + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, errno, "%s: cannot be read", shown);
            free(text);
            text = NULL;
        }
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(fd);
    *ret_len = len;
    return text;
}

struct topology *topology_load(const char *path, struct err *err)
{
    char shown[128];
    size_t len;
    char *text = topology_text(path, &len, err);
    struct topology *t = NULL;
    if (text)
        t = topology_parse(err_printable(shown, sizeof shown, path, strlen(path)), text, len, err);
    free(text);
    return t;
}
