/* Reads nodes, their devices and what was measured on them. See parse.h. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/hostport.h"
#include "topology/parse.h"

enum { ADDRESS_BYTES = 256, KEY_DIGITS = 64 };

struct topology_device *parse_device_named(struct topology_node *n, const char *name)
{
    for (uint32_t i = 0; i < n->n_devices; i++)
        if (strcmp(n->devices[i].name, name) == 0)
            return &n->devices[i];
    return NULL;
}

static const char type_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"; /* of quantizations */
static const char *const rate_words[] = {"read", "copy", "back", "peers", "attention", "step"};

/* One number, or three: with 1, 8 and 512 rows. */
static int read_rate(struct parse *c, const struct yaml_item *key, const char *shown, double ret_ops[TOPOLOGY_RATE_ROWS])
{
    const struct yaml_item *v = key->next, *at = v->kind == YAML_LIST ? v->first : v;
    for (int k = 0; k < TOPOLOGY_RATE_ROWS; k++) {
        if (!at)
            return PARSE_FAIL(c, v, "%s has %d rates; one is allowed, or three: with 1, 8 and 512 rows", shown, k);
        if (parse_quantity(c, at, shown, TOPOLOGY_OPS, true, &ret_ops[k]) != 0)
            return -1;
        at = v->kind == YAML_LIST ? at->next : v;
    }
    if (v->kind == YAML_LIST && at)
        return PARSE_FAIL(c, at, "%s has more than three rates: with 1, 8 and 512 rows", shown);
    return 0;
}

/* {"cuda:1": 20GB/s} */
static int read_peers(struct parse *c, const struct yaml_item *map, struct topology_node *n, struct topology_device *d)
{
    if (parse_want_kind(c, map, YAML_MAP, "peers") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        const char *names[TOPOLOGY_MAX_DEVICES];
        if (!parse_device_named(n, k->text)) {
            for (uint32_t i = 0; i < n->n_devices; i++)
                names[i] = n->devices[i].name;
            return parse_unknown_name(c, k, "device", names, n->n_devices);
        }
        if (strcmp(k->text, d->name) == 0)
            return PARSE_FAIL(c, k, "%s is no peer of itself", d->name);
        struct topology_peer *p = &d->peers[d->n_peers++]; /* keys differ, so that there is room */
        p->device = k->text;
        if (parse_quantity(c, k->next, k->text, TOPOLOGY_RATE, true, &p->bps) != 0)
            return -1;
    }
    return 0;
}

/* Also what no table names: a quantization's rate. */
static int read_device_profile(struct parse *c, const struct yaml_item *map, struct topology_node *n, struct topology_device *d)
{
    char what[128], shown[40];
    snprintf(what, sizeof what, "the profile of %s", d->name);
    if (parse_want_kind(c, map, YAML_MAP, what) != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        double *into = NULL, *rates = NULL;
        enum topology_unit unit = TOPOLOGY_OPS;
        if (strcmp(k->text, "read") == 0)
            into = &d->read_bps, unit = TOPOLOGY_RATE;
        else if (strcmp(k->text, "copy") == 0)
            into = &d->copy_bps, unit = TOPOLOGY_RATE;
        else if (strcmp(k->text, "back") == 0)
            into = &d->back_bps, unit = TOPOLOGY_RATE;
        else if (strcmp(k->text, "step") == 0)
            into = &d->step_us, unit = TOPOLOGY_TIME_US;
        else if (strcmp(k->text, "peers") == 0) {
            if (read_peers(c, k->next, n, d) != 0)
                return -1;
            continue;
        } else if (strcmp(k->text, "attention") == 0)
            rates = d->attention_ops;
        else if (k->text[0] < 'A' || k->text[0] > 'Z' || k->len > 15 || strspn(k->text, type_letters) != k->len)
            return parse_unknown_name(c, k, "measurement", rate_words, sizeof rate_words / sizeof *rate_words);
        else if (d->n_rates == TOPOLOGY_MAX_RATES)
            return PARSE_FAIL(c, k, "%s has more than %d quantizations", what, TOPOLOGY_MAX_RATES);
        err_printable(shown, sizeof shown, k->text, k->len);
        if (!into) {
            if (!rates) {
                d->rates[d->n_rates].type = k->text;
                rates = d->rates[d->n_rates++].ops;
            }
            if (read_rate(c, k, shown, rates) != 0)
                return -1;
            continue;
        }
        if (parse_quantity(c, k->next, shown, unit, unit != TOPOLOGY_TIME_US, into) != 0)
            return -1;
    }
    return 0;
}

static int read_device_memory(struct parse *c, const struct yaml_item *v, void *into)
{
    double bytes;
    if (parse_quantity(c, v, "memory", TOPOLOGY_BYTES, false, &bytes) != 0)
        return -1;
    ((struct topology_device *)into)->memory_bytes = (uint64_t)bytes;
    return 0;
}

static int read_device_numerics(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_text(c, v, "numerics", &((struct topology_device *)into)->numerics);
}

static const struct parse_key device_keys[] = {{"memory", read_device_memory}, {"numerics", read_device_numerics}, {0}};

static int read_devices(struct parse *c, const struct yaml_item *map, void *into)
{
    struct topology_node *n = into;
    char shown[48];
    if (parse_want_kind(c, map, YAML_MAP, "devices") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        size_t kind = strncmp(k->text, "cuda:", 5) == 0 ? 5 : strncmp(k->text, "cpu:", 4) == 0 ? 4 : 0;
        bool good = kind && k->len > kind && k->len <= kind + 2;
        for (size_t i = kind; good && i < k->len; i++)
            good = k->text[i] >= '0' && k->text[i] <= '9';
        if (!good)
            return PARSE_FAIL(c, k, "unknown device \"%s\"; cuda:0, cuda:1, … are allowed, and cpu:0, cpu:1, … for parts of the processors (all of "
                        "them are the node's ram)", err_printable(shown, sizeof shown, k->text, k->len));
        if (n->n_devices == TOPOLOGY_MAX_DEVICES)
            return PARSE_FAIL(c, k, "more than %d devices", TOPOLOGY_MAX_DEVICES - 1);
        struct topology_device *d = &n->devices[n->n_devices++];
        *d = (struct topology_device){.name = k->text};
        if (parse_map(c, k->next, k->text, device_keys, d) != 0)
            return -1;
        if (!d->memory_bytes)
            return PARSE_FAIL(c, k, "%s has no memory; give it one, such as {memory: 22GiB}", k->text);
    }
    return 0;
}

static int read_profile(struct parse *c, const struct yaml_item *map, void *into)
{
    struct topology_node *n = into;
    if (parse_want_kind(c, map, YAML_MAP, "profile") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        struct topology_device *d = parse_device_named(n, k->text);
        if (strcmp(k->text, "disk") == 0) {
            if (parse_quantity(c, k->next, "disk", TOPOLOGY_RATE, true, &n->disk_bps) != 0)
                return -1;
        } else if (d) {
            if (read_device_profile(c, k->next, n, d) != 0)
                return -1;
        } else {
            const char *names[TOPOLOGY_MAX_DEVICES + 1] = {"disk"};
            for (uint32_t i = 0; i < n->n_devices; i++)
                names[i + 1] = n->devices[i].name;
            return parse_unknown_name(c, k, "device", names, n->n_devices + 1);
        }
    }
    return 0;
}

static int read_address(struct parse *c, const struct yaml_item *v, void *into)
{
    struct topology_node *n = into;
    char shown[80], host[ADDRESS_BYTES];
    const char *port;
    if (parse_text(c, v, "address", &n->address) != 0)
        return -1;
    if (strncmp(n->address, "ipc://", 6) == 0)
        return 0;
    if (strncmp(n->address, "tcp://", 6) != 0 || !hostport_split(n->address + 6, host, sizeof host, &port) || !hostport_host_valid(host))
        return PARSE_FAIL(c, v, "address is \"%s\"; tcp://HOST:PORT is allowed, or tcp://[IPv6]:PORT (leave it out where the node dials in)",
                          err_printable(shown, sizeof shown, v->text, v->len));
    if (hostport_is_anywhere(host))
        return PARSE_FAIL(c, v, "address is \"%s\", every address of a machine, good only to listen at; write the one that others dial (or leave it out where the node dials in)",
                          err_printable(shown, sizeof shown, v->text, v->len));
    if (!hostport_port_valid(port, false))
        return PARSE_FAIL(c, v, "address is \"%s\"; its port is no number from 1 to 65535", err_printable(shown, sizeof shown, v->text, v->len));
    return 0;
}

static int read_key(struct parse *c, const struct yaml_item *v, void *into)
{
    struct topology_node *n = into;
    if (parse_text(c, v, "key", &n->key) != 0)
        return -1;
    if (v->len != KEY_DIGITS || strspn(n->key, "0123456789abcdefABCDEF") != KEY_DIGITS)
        return PARSE_FAIL(c, v, "key is no key: it is %d hexadecimal digits, as \"stagecoach keygen\" prints them on that node", KEY_DIGITS);
    return 0;
}

static int read_model_dir(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_text(c, v, "model_dir", &((struct topology_node *)into)->model_dir);
}

static int read_numerics(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_text(c, v, "numerics", &((struct topology_node *)into)->numerics);
}

static int read_ram(struct parse *c, const struct yaml_item *v, void *into)
{
    double bytes;
    if (parse_quantity(c, v, "ram", TOPOLOGY_BYTES, false, &bytes) != 0)
        return -1;
    ((struct topology_node *)into)->devices[0].memory_bytes = (uint64_t)bytes;
    return 0;
}

static int read_threads(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_number(c, v, "threads", 1, 1024, &((struct topology_node *)into)->threads);
}

static int read_standby(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_bool(c, v, "standby", &((struct topology_node *)into)->standby);
}

static int read_disk_tier(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_bool(c, v, "disk_tier", &((struct topology_node *)into)->disk_tier);
}

static int read_watts(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_quantity(c, v, "watts", TOPOLOGY_WATTS, false, &((struct topology_node *)into)->watts);
}

static const struct parse_key node_keys[] = {
    {"address", read_address}, {"key", read_key},         {"ram", read_ram},         {"threads", read_threads}, {"devices", read_devices},
    {"model_dir", read_model_dir}, {"watts", read_watts}, {"standby", read_standby}, {"disk_tier", read_disk_tier},
    {"numerics", read_numerics}, {"profile", parse_later}, {0},
};

static bool good_name(const char *s, size_t len)
{
    bool good = len > 0 && len <= TOPOLOGY_MAX_NAME && s[0] != '-' && s[0] != '.';
    for (size_t i = 0; i < len && good; i++)
        good = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9') || s[i] == '.' || s[i] == '_' || s[i] == '-';
    return good && !(len == 11 && memcmp(s, "coordinator", 11) == 0) && !(len == 7 && memcmp(s, "default", 7) == 0);
}

/* Parts of the processors divide the ram among them: beside it their memory would count twice. */
static int check_parts(struct parse *c, const struct yaml_item *map, const struct topology_node *n)
{
    const struct yaml_item *ram = parse_entry(map, "ram"), *devices = parse_entry(map, "devices");
    for (const struct yaml_item *k = devices && n->devices[0].memory_bytes ? devices->first : NULL; k && k->next; k = k->next->next)
        if (strncmp(k->text, "cpu:", 4) == 0)
            return PARSE_FAIL(c, k, "node %s has %s and ram (line %u, column %u), which is the same memory twice; leave out one of the two", n->name, k->text,
                              ram ? ram->line : 0, ram ? ram->column : 0);
    return 0;
}

static int read_node(struct parse *c, const struct yaml_item *name, const struct yaml_item *map, struct topology_node *n)
{
    char shown[80];
    const struct yaml_item *profile;
    *n = (struct topology_node){.name = name->text, .mark = {name->line, name->column}, .n_devices = 1, .devices = {{.name = "cpu"}}};
    if (!good_name(name->text, name->len))
        return PARSE_FAIL(c, name, "\"%s\" is no name for a node; 1 to %d letters, digits, . _ - are allowed, and neither coordinator nor default",
                    err_printable(shown, sizeof shown, name->text, name->len), TOPOLOGY_MAX_NAME);
    if (parse_map(c, map, n->name, node_keys, n) != 0)
        return -1;
    /* When all devices are known. */
    if ((profile = parse_entry(map, "profile")) && read_profile(c, profile, n) != 0)
        return -1;
    if (check_parts(c, map, n) != 0)
        return -1;
    if (n->n_devices == 1 && n->devices[0].memory_bytes == 0)
        return PARSE_FAIL(c, name, "node %s has neither ram nor devices; say what may be used, such as ram: 8GiB", n->name);
    if (n->disk_tier && n->disk_bps <= 0)
        return PARSE_FAIL(c, name, "node %s: disk_tier needs the disk's rate in its profile, such as profile: {disk: 3GB/s}", n->name);
    return 0;
}

/* Two processes cannot listen at one address: one of the two would be taken for the other. */
static int check_address(struct parse *c, const struct yaml_item *nodes, const struct yaml_item *name)
{
    const struct yaml_item *own = parse_entry(name->next, "address");
    char shown[80];
    for (const struct yaml_item *k = nodes->first; own && k != name; k = k->next->next) {
        const struct yaml_item *other = parse_entry(k->next, "address");
        if (other && topology_same_address(other->text, own->text))
            return PARSE_FAIL(c, own, "address \"%s\" of node %s is node %s's already (line %u, column %u); each listens at one of its own",
                              err_printable(shown, sizeof shown, own->text, own->len), name->text, k->text, other->line, other->column);
    }
    return 0;
}

/* The coordinator's port: of every address of its machine where it listens everywhere, so that a node of that machine cannot have it. */
static bool listens_there(const char *listen, const char *address)
{
    char host[ADDRESS_BYTES], other[ADDRESS_BYTES];
    const char *port, *other_port;
    if (strncmp(listen, "tcp://", 6) != 0 || strncmp(address, "tcp://", 6) != 0)
        return strcmp(listen, address) == 0;
    if (!hostport_split(listen + 6, host, sizeof host, &port) || !hostport_split(address + 6, other, sizeof other, &other_port) || strcmp(port, other_port) != 0)
        return false;
    if (hostport_is_anywhere(host))
        return hostport_is_loopback(other);
    if (strcasecmp(other, "localhost") == 0) /* it may be found as either */
        return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
    return strcasecmp(host, other) == 0;
}

static int check_listen(struct parse *c, const struct yaml_item *name)
{
    const struct yaml_item *own = parse_entry(name->next, "address");
    char shown[80], listen[80];
    if (!own || !c->t->listen || !listens_there(c->t->listen, own->text))
        return 0;
    return PARSE_FAIL(c, own, "address \"%s\" of node %s is where the coordinator listens (\"%s\"); each listens at one of its own, such as another port",
                      err_printable(shown, sizeof shown, own->text, own->len), name->text, err_printable(listen, sizeof listen, c->t->listen, strlen(c->t->listen)));
}

int parse_nodes(struct parse *c, const struct yaml_item *map, void *into)
{
    struct topology *t = into;
    uint32_t n = 0;
    if (parse_want_kind(c, map, YAML_MAP, "nodes") != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next)
        if (++n > TOPOLOGY_MAX_NODES)
            return PARSE_FAIL(c, k, "more than %d nodes", TOPOLOGY_MAX_NODES);
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next)
        if (read_node(c, k, k->next, &t->nodes[t->n_nodes]) != 0 || check_address(c, map, k) != 0 || check_listen(c, k) != 0)
            return -1;
        else
            t->n_nodes++;
    return 0;
}
