/* See yaml.h. */
#include "topology/yaml.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "topology/topology.h"

struct anchor {
    const char *name;
    struct yaml_item *item;
    bool whole; /* its end has come: only then may it be used */
};

struct reader {
    const char *name;
    struct arena *arena;
    struct yaml_item *stack[TOPOLOGY_MAX_DEPTH], *root;
    uint32_t depth, n_items, n_anchors;
    struct anchor anchors[TOPOLOGY_MAX_ANCHORS];
    struct err *err;
};

int yaml_fail(const char *name, const struct yaml_item *at, struct err *err, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_set(err, ERR_INPUT, "%s:%u:%u: %s", name, at ? at->line : 1, at ? at->column : 1, text);
}

const char *yaml_kind_words(const struct yaml_item *item)
{
    static const char *const words[] = {"a value", "a mapping (key: value)", "a list"};
    return words[item->kind];
}

static uint32_t place(size_t from_zero)
{
    return from_zero < 1u << 30 ? (uint32_t)from_zero + 1 : 1u << 30;
}

static int fail_at(struct reader *r, const yaml_mark_t *mark, const char *what)
{
    struct yaml_item at = {.line = place(mark->line), .column = place(mark->column)};
    return yaml_fail(r->name, &at, r->err, "%s", what);
}

/* Items below and including this one, as often as they are used; stops counting over the limit. */
static uint32_t weigh(const struct yaml_item *item, uint32_t so_far)
{
    so_far++;
    for (const struct yaml_item *i = item->first; i && so_far <= TOPOLOGY_MAX_ITEMS; i = i->next)
        so_far = weigh(i, so_far);
    return so_far;
}

static int count(struct reader *r, const yaml_mark_t *mark, uint32_t more)
{
    char said[96];
    r->n_items += more;
    if (r->n_items <= TOPOLOGY_MAX_ITEMS)
        return 0;
    snprintf(said, sizeof said, "more than %d keys and values; a topology file has less", TOPOLOGY_MAX_ITEMS);
    return fail_at(r, mark, said);
}

static int check_key(struct reader *r, const struct yaml_item *map, const struct yaml_item *key)
{
    char shown[80];
    if (key->kind != YAML_TEXT)
        return yaml_fail(r->name, key, r->err, "%s as a key; a name is expected", yaml_kind_words(key));
    for (const struct yaml_item *k = map->first; k && k->next; k = k->next->next)
        if (k->len == key->len && memcmp(k->text, key->text, key->len) == 0)
            return yaml_fail(r->name, key, r->err, "\"%s\" stands here a second time; it is already in line %u",
                             err_printable(shown, sizeof shown, key->text, key->len), k->line);
    return 0;
}

static bool expects_key(const struct yaml_item *map)
{
    uint32_t n = 0;
    for (const struct yaml_item *i = map->first; i; i = i->next)
        n++;
    return n % 2 == 0;
}

/* Puts an item where the document is. */
static int attach(struct reader *r, const yaml_mark_t *mark, struct yaml_item *item)
{
    if (r->depth == 0) {
        r->root = item;
        return 0;
    }
    struct yaml_item *parent = r->stack[r->depth - 1];
    if (parent->kind == YAML_MAP && expects_key(parent) && check_key(r, parent, item) != 0)
        return -1;
    (void)mark;
    if (parent->last)
        parent->last->next = item;
    else
        parent->first = item;
    parent->last = item;
    return 0;
}

static struct yaml_item *new_item(struct reader *r, const yaml_event_t *e, enum yaml_kind kind)
{
    struct yaml_item *item = arena_alloc(r->arena, sizeof *item, r->err);
    if (item)
        *item = (struct yaml_item){.kind = kind, .line = place(e->start_mark.line), .column = place(e->start_mark.column)};
    return item;
}

static int add_anchor(struct reader *r, const yaml_event_t *e, const yaml_char_t *name, struct yaml_item *item)
{
    char said[64];
    if (!name)
        return 0;
    snprintf(said, sizeof said, "more than %d anchors", TOPOLOGY_MAX_ANCHORS);
    if (r->n_anchors == TOPOLOGY_MAX_ANCHORS)
        return fail_at(r, &e->start_mark, said);
    struct anchor *a = &r->anchors[r->n_anchors++];
    *a = (struct anchor){arena_strndup(r->arena, (const char *)name, strlen((const char *)name), r->err), item, item->kind == YAML_TEXT};
    return a->name ? 0 : -1;
}

static int on_alias(struct reader *r, const yaml_event_t *e)
{
    for (uint32_t i = r->n_anchors; i-- > 0;) {
        const struct anchor *a = &r->anchors[i];
        if (strcmp(a->name, (const char *)e->data.alias.anchor) != 0)
            continue;
        if (!a->whole)
            return fail_at(r, &e->start_mark, "an alias inside what it stands for");
        if (count(r, &e->start_mark, weigh(a->item, 0)) != 0)
            return -1;
        struct yaml_item *copy = arena_alloc(r->arena, sizeof *copy, r->err);
        if (!copy)
            return -1;
        *copy = *a->item; /* entries are shared, its place among others is its own */
        copy->next = NULL;
        return attach(r, &e->start_mark, copy);
    }
    return fail_at(r, &e->start_mark, "an alias for an anchor that does not stand before it");
}

static int on_text(struct reader *r, const yaml_event_t *e)
{
    struct yaml_item *item = new_item(r, e, YAML_TEXT);
    const char *text = (const char *)e->data.scalar.value;
    if (!item)
        return -1;
    if (memchr(text, 0, e->data.scalar.length))
        return fail_at(r, &e->start_mark, "a zero byte in a value");
    item->text = arena_strndup(r->arena, text, e->data.scalar.length, r->err);
    item->len = e->data.scalar.length;
    item->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (!item->text || count(r, &e->start_mark, 1) != 0 || add_anchor(r, e, e->data.scalar.anchor, item) != 0)
        return -1;
    return attach(r, &e->start_mark, item);
}

static int on_open(struct reader *r, const yaml_event_t *e, enum yaml_kind kind, const yaml_char_t *anchor)
{
    char said[64];
    struct yaml_item *item = new_item(r, e, kind);
    if (!item || count(r, &e->start_mark, 1) != 0 || add_anchor(r, e, anchor, item) != 0 || attach(r, &e->start_mark, item) != 0)
        return -1;
    snprintf(said, sizeof said, "nested deeper than %d levels", TOPOLOGY_MAX_DEPTH);
    if (r->depth == TOPOLOGY_MAX_DEPTH)
        return fail_at(r, &e->start_mark, said);
    r->stack[r->depth++] = item;
    return 0;
}

static void on_close(struct reader *r)
{
    const struct yaml_item *item = r->stack[--r->depth];
    for (uint32_t i = 0; i < r->n_anchors; i++)
        r->anchors[i].whole |= r->anchors[i].item == item;
}

/* 1: the document has ended. */
static int on_event(struct reader *r, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_ALIAS_EVENT: return on_alias(r, e);
    case YAML_SCALAR_EVENT: return on_text(r, e);
    case YAML_MAPPING_START_EVENT: return on_open(r, e, YAML_MAP, e->data.mapping_start.anchor);
    case YAML_SEQUENCE_START_EVENT: return on_open(r, e, YAML_LIST, e->data.sequence_start.anchor);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT: on_close(r); return 0;
    case YAML_DOCUMENT_START_EVENT: return r->root ? fail_at(r, &e->start_mark, "a second document; a file holds one") : 0;
    case YAML_STREAM_END_EVENT: return 1;
    default: return 0;
    }
}

static int not_text(const struct reader *r, const yaml_parser_t *p, const char *text, size_t len)
{
    struct yaml_item at = {.line = 1, .column = 1};
    for (size_t i = 0; i < p->problem_offset && i < len; i++, at.column++)
        if (text[i] == '\n')
            at.line++, at.column = 0;
    return yaml_fail(r->name, &at, r->err, "no text: %s; save the file as UTF-8", p->problem ? p->problem : "bad bytes");
}

/* Whether a line is indented with tabs, which libyaml calls a character that cannot start any token. */
static bool has_tab(const char *text, size_t len, size_t line)
{
    const char *end = text + len;
    for (; line > 0 && text < end; text++)
        line -= *text == '\n';
    while (text < end && *text == ' ')
        text++;
    return text < end && *text == '\t';
}

static int yaml_error(struct reader *r, const yaml_parser_t *p, const char *text, size_t len)
{
    struct yaml_item at = {.line = place(p->problem_mark.line), .column = place(p->problem_mark.column)};
    if (p->error == YAML_MEMORY_ERROR)
        return err_set(r->err, ERR_MEMORY, "%s: out of memory", r->name);
    if (p->error == YAML_READER_ERROR)
        return not_text(r, p, text, len);
    if (has_tab(text, len, p->problem_mark.line))
        return yaml_fail(r->name, &at, r->err, "a tab; YAML is indented with spaces");
    return yaml_fail(r->name, &at, r->err, "no YAML: %s%s%s", p->problem ? p->problem : "malformed", p->context ? ", " : "",
                     p->context ? p->context : "");
}

struct yaml_item *yaml_read(const char *name, const char *text, size_t len, struct arena *arena, struct err *err)
{
    struct reader r = {.name = name, .arena = arena, .err = err};
    yaml_parser_t parser;
    int rc = 0;
    if (!yaml_parser_initialize(&parser)) {
        err_set(err, ERR_MEMORY, "%s: out of memory", name);
        return NULL;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    while (rc == 0) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            rc = yaml_error(&r, &parser, text, len);
            break;
        }
        rc = on_event(&r, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (rc == 1 && !r.root)
        rc = yaml_fail(name, NULL, err, "the file is empty; it should hold at least \"nodes:\"");
    return rc == 1 ? r.root : NULL;
}
