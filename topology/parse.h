#ifndef TOPOLOGY_PARSE_H
#define TOPOLOGY_PARSE_H

/* Inside parse*.c only: reading a topology file by tables of keys over the tree of yaml.h. parse.c has the file and what all parts
 * share, parse_node.c nodes with their devices, parse_links.c what names nodes. All functions return -1 with file:line:column. */

#include "topology/topology.h"
#include "topology/yaml.h"

struct parse {
    const char *name; /* the file's */
    struct topology *t;
    struct err *err;
};

typedef int (*parse_fn)(struct parse *c, const struct yaml_item *value, void *into);
struct parse_key {
    const char *name; /* NULL ends a table */
    parse_fn read;
};

#define PARSE_FAIL(c, item, ...) yaml_fail((c)->name, (item), (c)->err, __VA_ARGS__)

int parse_want_kind(struct parse *c, const struct yaml_item *v, enum yaml_kind kind, const char *what);
/* Names the known ones, and the one that is nearest. */
int parse_unknown_name(struct parse *c, const struct yaml_item *at, const char *what, const char *const *names, size_t n);
int parse_map(struct parse *c, const struct yaml_item *map, const char *what, const struct parse_key *keys, void *into);
int parse_text(struct parse *c, const struct yaml_item *v, const char *what, const char **ret); /* lives in the topology's arena */
int parse_number(struct parse *c, const struct yaml_item *v, const char *what, uint32_t min, uint32_t max, uint32_t *ret);
int parse_bool(struct parse *c, const struct yaml_item *v, const char *what, bool *ret);
int parse_quantity(struct parse *c, const struct yaml_item *v, const char *what, enum topology_unit unit, bool positive, double *ret);
int parse_choice(struct parse *c, const struct yaml_item *v, const char *what, const char *const *names, const char **ret);
int parse_find_node(struct parse *c, const struct yaml_item *v, uint32_t *ret);
/* NULL: the map has no such key. */
const struct yaml_item *parse_entry(const struct yaml_item *map, const char *name);
/* A key whose turn comes when others have been read. */
int parse_later(struct parse *c, const struct yaml_item *v, void *into);

/* parse_node.c */
struct topology_device *parse_device_named(struct topology_node *n, const char *name); /* NULL */
int parse_nodes(struct parse *c, const struct yaml_item *map, void *into);

/* parse_links.c; nodes have been read. */
int parse_links(struct parse *c, const struct yaml_item *map, void *into);
int parse_groups(struct parse *c, const struct yaml_item *list, void *into);
int parse_pins(struct parse *c, const struct yaml_item *list, void *into);

#endif
