/* Reads a topology file. See parse.h and topology.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/opts.h"
#include "topology/parse.h"

enum { LIST_BYTES = 200, MAX_KEYS = 24 };

/* --- common -------------------------------------------------------------------------------------------------------------- */

int parse_want_kind(struct parse *c, const struct yaml_item *v, enum yaml_kind kind, const char *what)
{
    struct yaml_item like = {.kind = kind};
    if (v->kind == kind)
        return 0;
    return PARSE_FAIL(c, v, "%s is %s; %s is expected", what, yaml_kind_words(v), yaml_kind_words(&like));
}

int parse_unknown_name(struct parse *c, const struct yaml_item *at, const char *what, const char *const *names, size_t n)
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
        return PARSE_FAIL(c, at, "unknown %s \"%s\"; did you mean \"%s\"? Known are %s", what, shown, near, list);
    return PARSE_FAIL(c, at, "unknown %s \"%s\"; known are %s", what, shown, n ? list : "none yet");
}

int parse_map(struct parse *c, const struct yaml_item *map, const char *what, const struct parse_key *keys, void *into)
{
    const char *names[MAX_KEYS];
    size_t n = 0;
    for (; keys[n].name && n < MAX_KEYS; n++)
        names[n] = keys[n].name;
    if (parse_want_kind(c, map, YAML_MAP, what) != 0)
        return -1;
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next) {
        size_t i = 0;
        while (i < n && strcmp(names[i], k->text) != 0)
            i++;
        if (i == n)
            return parse_unknown_name(c, k, "key", names, n);
        if (keys[i].read(c, k->next, into) != 0)
            return -1;
    }
    return 0;
}

int parse_text(struct parse *c, const struct yaml_item *v, const char *what, const char **ret)
{
    if (parse_want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (v->len == 0 || v->len > 4096)
        return PARSE_FAIL(c, v, "%s has %zu bytes; 1 to 4096 are allowed", what, v->len);
    for (size_t i = 0; i < v->len; i++)
        if ((unsigned char)v->text[i] < 32 || v->text[i] == 127)
            return PARSE_FAIL(c, v, "%s holds a control character", what);
    *ret = v->text; /* in the arena */
    return 0;
}

int parse_number(struct parse *c, const struct yaml_item *v, const char *what, uint32_t min, uint32_t max, uint32_t *ret)
{
    char shown[48];
    uint64_t n = 0;
    bool good = v->kind == YAML_TEXT && v->len > 0 && v->len <= 10;
    for (size_t i = 0; good && i < v->len; i++) {
        good = v->text[i] >= '0' && v->text[i] <= '9';
        n = n * 10 + (uint64_t)(v->text[i] - '0');
    }
    if (parse_want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (!good || n < min || n > max)
        return PARSE_FAIL(c, v, "%s is \"%s\"; a whole number from %u to %u is allowed", what, err_printable(shown, sizeof shown, v->text, v->len), min,
                    max);
    *ret = (uint32_t)n;
    return 0;
}

int parse_bool(struct parse *c, const struct yaml_item *v, const char *what, bool *ret)
{
    char shown[48];
    if (parse_want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (strcmp(v->text, "true") == 0 || strcmp(v->text, "yes") == 0)
        *ret = true;
    else if (strcmp(v->text, "false") == 0 || strcmp(v->text, "no") == 0)
        *ret = false;
    else
        return PARSE_FAIL(c, v, "%s is \"%s\"; true or false is allowed", what, err_printable(shown, sizeof shown, v->text, v->len));
    return 0;
}

int parse_quantity(struct parse *c, const struct yaml_item *v, const char *what, enum topology_unit unit, bool positive, double *ret)
{
    struct err err;
    if (parse_want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    if (topology_quantity(v->text, v->len, unit, ret, &err) != 0)
        return PARSE_FAIL(c, v, "%s: %s", what, err.text);
    if (positive && *ret <= 0)
        return PARSE_FAIL(c, v, "%s is 0; it must be more", what);
    return 0;
}

int parse_choice(struct parse *c, const struct yaml_item *v, const char *what, const char *const *names, const char **ret)
{
    size_t n = 0;
    if (parse_want_kind(c, v, YAML_TEXT, what) != 0)
        return -1;
    for (; names[n]; n++)
        if (strcmp(names[n], v->text) == 0) {
            *ret = names[n];
            return 0;
        }
    return parse_unknown_name(c, v, what, names, n);
}

int parse_find_node(struct parse *c, const struct yaml_item *v, uint32_t *ret)
{
    const char *names[TOPOLOGY_MAX_NODES];
    if (parse_want_kind(c, v, YAML_TEXT, "a node's name") != 0)
        return -1;
    *ret = topology_find(c->t, v->text);
    if (*ret != UINT32_MAX)
        return 0;
    for (uint32_t i = 0; i < c->t->n_nodes; i++)
        names[i] = c->t->nodes[i].name;
    return parse_unknown_name(c, v, "node", names, c->t->n_nodes);
}

const struct yaml_item *parse_entry(const struct yaml_item *map, const char *name)
{
    for (const struct yaml_item *k = map->kind == YAML_MAP ? map->first : NULL; k && k->next; k = k->next->next)
        if (strcmp(k->text, name) == 0)
            return k->next;
    return NULL;
}

int parse_later(struct parse *c, const struct yaml_item *v, void *into)
{
    (void)c, (void)v, (void)into;
    return 0;
}

/* --- the file ---------------------------------------------------------------------------------------------------------------- */

static int read_cluster(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_text(c, v, "cluster", &((struct topology *)into)->cluster);
}
static int read_listen(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_text(c, v, "listen", &((struct topology *)into)->listen);
}
static const struct parse_key coordinator_keys[] = {{"listen", read_listen}, {0}};
static int read_coordinator(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_map(c, v, "coordinator", coordinator_keys, into);
}

static int read_ctx(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_number(c, v, "ctx", 1, 1 << 24, &((struct topology *)into)->ctx);
}
static int read_parallel(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_number(c, v, "parallel", 1, 1024, &((struct topology *)into)->parallel);
}
static int read_kv(struct parse *c, const struct yaml_item *v, void *into)
{
    static const char *const types[] = {"f16", "f32", "q8_0", NULL};
    return parse_choice(c, v, "kv", types, &((struct topology *)into)->kv);
}
static int read_wire(struct parse *c, const struct yaml_item *v, void *into)
{
    static const char *const types[] = {"f32", "f16", "q8_0", "auto", NULL};
    return parse_choice(c, v, "wire", types, &((struct topology *)into)->wire);
}
static const struct parse_key model_keys[] = {{"ctx", read_ctx}, {"parallel", read_parallel}, {"kv", read_kv}, {"wire", read_wire}, {0}};
static int read_model(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_map(c, v, "model", model_keys, into);
}

/* Letters of any script, and signs: it is written into the file again as it is. */
static bool good_currency(const char *s)
{
    for (; *s; s++)
        if (!((unsigned char)*s >= 0x80 || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '$' || *s == '/'))
            return false;
    return true;
}

/* "0.30 EUR" */
static int read_price(struct parse *c, const struct yaml_item *v, void *into)
{
    struct topology *t = into;
    char shown[48];
    double price = 0, scale = 1;
    size_t i = 0;
    bool point = false;
    if (parse_want_kind(c, v, YAML_TEXT, "price_per_kwh") != 0)
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
    if (i == 0 || strlen(currency) > 8 || price / scale > 1e6 || (price > 0 && price / scale < 1e-9) || !good_currency(currency))
        return PARSE_FAIL(c, v, "price_per_kwh is \"%s\"; a number with a currency such as 0.30 EUR is allowed",
                    err_printable(shown, sizeof shown, v->text, v->len));
    t->price_per_kwh = price / scale;
    t->currency = *currency ? currency : NULL;
    return 0;
}
static const struct parse_key power_keys[] = {{"price_per_kwh", read_price}, {0}};
static int read_power(struct parse *c, const struct yaml_item *v, void *into)
{
    return parse_map(c, v, "power", power_keys, into);
}

static const struct parse_key file_keys[] = {
    {"cluster", read_cluster}, {"coordinator", read_coordinator}, {"model", read_model}, {"power", read_power},
    {"nodes", parse_later},     {"links", parse_later},             {"groups", parse_later}, {"pins", parse_later}, {0},
};
/* What names nodes comes after them, wherever it stands in the file. */
static const struct parse_key later_keys[] = {{"nodes", parse_nodes}, {"links", parse_links}, {"groups", parse_groups}, {"pins", parse_pins}, {0}};

struct topology *topology_parse(const char *name, const char *text, size_t len, struct err *err)
{
    struct topology *t;
    const struct yaml_item *root;
    struct parse c = {.name = name, .err = err};
    if (len > TOPOLOGY_MAX_BYTES) {
        err_set(err, ERR_LIMIT, "%s: %zu bytes; a topology file has at most %d", name, len, TOPOLOGY_MAX_BYTES);
        return NULL;
    }
    if (!(t = c.t = topology_create(err)))
        return NULL;
    if (!(root = yaml_read(name, text, len, &t->arena, err)))
        goto error;
    if (parse_map(&c, root, "the file", file_keys, t) != 0)
        goto error;
    for (const struct parse_key *k = later_keys; k->name; k++) {
        const struct yaml_item *v = parse_entry(root, k->name);
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
