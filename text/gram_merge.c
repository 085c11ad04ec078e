/* See gram_schema.h. A schema says several things at once; here they become one object in which each keyword stands once. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "text/gram_schema.h"

enum { MAX_FLATTEN = 64 };

uint32_t schema_refuse(struct schema_compiler *c, const char *path, const char *fmt, ...)
{
    char text[400], shown[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!c->b.failed)
        err_set(c->b.err, ERR_INPUT, "%s: %s", err_printable(shown, sizeof shown, path ? path : "", path ? strlen(path) : 0), text);
    return gram_failed(&c->b);
}

/* index: of an item, SIZE_MAX: none. */
static const char *path_of(struct schema_compiler *c, const char *path, const char *key, size_t index)
{
    char shown[64], buf[512], at[24] = "";
    if (c->b.failed)
        return NULL;
    err_printable(shown, sizeof shown, key, strlen(key));
    if (index != SIZE_MAX)
        snprintf(at, sizeof at, "[%zu]", index);
    snprintf(buf, sizeof buf, "%s.%s%s", path, shown, at);
    char *copy = arena_strndup(&c->memory, buf, strlen(buf), c->b.err);
    if (!copy)
        gram_failed(&c->b);
    return copy;
}

const char *schema_path(struct schema_compiler *c, const char *path, const char *key)
{
    return path_of(c, path, key, SIZE_MAX);
}

const char *schema_path_at(struct schema_compiler *c, const char *path, const char *key, size_t i)
{
    return path_of(c, path, key, i);
}

json_t *schema_keep(struct schema_compiler *c, json_t *made)
{
    if (!made || json_array_append_new(c->made, made) != 0) {
        if (!c->b.failed)
            err_set(c->b.err, ERR_MEMORY, "out of memory for a schema");
        gram_failed(&c->b);
        return NULL;
    }
    return made;
}

json_t *schema_both(struct schema_compiler *c, json_t *a, json_t *b)
{
    if (!a || json_is_true(a) || json_is_false(b) || a == b)
        return b;
    if (!b || json_is_true(b) || json_is_false(a))
        return a;
    return schema_keep(c, json_pack("{s:[O,O]}", "allOf", a, b));
}

/* --- references ---------------------------------------------------------------------------------------------------------- */

static int hex(char x)
{
    return x >= '0' && x <= '9' ? x - '0' : (x | 32) >= 'a' && (x | 32) <= 'f' ? (x | 32) - 'a' + 10 : -1;
}

/* The next part of a pointer, unescaped, into buf. */
static const char *pointer_part(const char *s, char *buf, size_t size)
{
    size_t n = 0;
    for (; *s && *s != '/' && n + 1 < size; s++) {
        if (*s == '~' && (s[1] == '0' || s[1] == '1'))
            buf[n++] = *++s == '0' ? '~' : '/';
        else if (*s == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0) {
            buf[n++] = (char)(hex(s[1]) << 4 | hex(s[2]));
            s += 2;
        } else {
            buf[n++] = *s;
        }
    }
    buf[n] = '\0';
    return *s && *s != '/' ? NULL : s;
}

const json_t *schema_resolve(struct schema_compiler *c, const char *ref, const char *path)
{
    const json_t *at = c->root;
    char part[256], shown[96], *end;
    const char *s = ref + 1;

    if (ref[0] != '#' || (ref[1] && ref[1] != '/')) {
        schema_refuse(c, path, "$ref \"%s\": only places within the schema are known (#/$defs/…)",
                      err_printable(shown, sizeof shown, ref, strlen(ref)));
        return NULL;
    }
    while (at && *s == '/') {
        if (!(s = pointer_part(s + 1, part, sizeof part)))
            break;
        if (json_is_array(at)) {
            size_t i = strtoul(part, &end, 10);
            at = part[0] >= '0' && part[0] <= '9' && !*end ? json_array_get(at, i) : NULL;
        } else {
            at = json_object_get(at, part);
        }
    }
    if (!s || !at || (!json_is_object(at) && !json_is_boolean(at))) {
        schema_refuse(c, path, "$ref \"%s\" leads to no schema", err_printable(shown, sizeof shown, ref, strlen(ref)));
        return NULL;
    }
    return at;
}

/* --- keywords ------------------------------------------------------------------------------------------------------------ */

enum keyword_kind {
    KEY_NOTE,  /* says nothing about what is valid */
    KEY_APART, /* handled by itself */
    KEY_REFUSED,
    KEY_COUNT, /* a number from 0 */
    KEY_NUMBER,
    KEY_SCHEMA,
    KEY_SCHEMAS, /* an object of them */
    KEY_NAMES,   /* a list of strings */
};

static const struct keyword {
    const char *name;
    enum keyword_kind kind;
    int least; /* of two counts or numbers: 1 the larger holds, -1 the smaller */
} keywords[] = {
    {"$schema", KEY_NOTE, 0},
    {"$id", KEY_NOTE, 0},
    {"id", KEY_NOTE, 0},
    {"$comment", KEY_NOTE, 0},
    {"$anchor", KEY_NOTE, 0},
    {"$vocabulary", KEY_NOTE, 0},
    {"$defs", KEY_NOTE, 0},
    {"definitions", KEY_NOTE, 0},
    {"title", KEY_NOTE, 0},
    {"description", KEY_NOTE, 0},
    {"default", KEY_NOTE, 0},
    {"examples", KEY_NOTE, 0},
    {"deprecated", KEY_NOTE, 0},
    {"readOnly", KEY_NOTE, 0},
    {"writeOnly", KEY_NOTE, 0},
    {"contentEncoding", KEY_NOTE, 0},
    {"contentMediaType", KEY_NOTE, 0},
    {"contentSchema", KEY_NOTE, 0},
    {"$ref", KEY_APART, 0},
    {"allOf", KEY_APART, 0},
    {"anyOf", KEY_APART, 0},
    {"oneOf", KEY_APART, 0},
    {"type", KEY_APART, 0},
    {"enum", KEY_APART, 0},
    {"const", KEY_APART, 0},
    {"pattern", KEY_APART, 0},
    {"format", KEY_APART, 0},
    {"items", KEY_APART, 0},
    {"prefixItems", KEY_APART, 0},
    {"additionalItems", KEY_APART, 0},
    {"uniqueItems", KEY_APART, 0},
    {"multipleOf", KEY_APART, 0},
    {"minLength", KEY_COUNT, 1},
    {"maxLength", KEY_COUNT, -1},
    {"minItems", KEY_COUNT, 1},
    {"maxItems", KEY_COUNT, -1},
    {"minProperties", KEY_COUNT, 1},
    {"maxProperties", KEY_COUNT, -1},
    {"minimum", KEY_NUMBER, 1},
    {"maximum", KEY_NUMBER, -1},
    {"exclusiveMinimum", KEY_NUMBER, 1},
    {"exclusiveMaximum", KEY_NUMBER, -1},
    {"properties", KEY_SCHEMAS, 0},
    {"patternProperties", KEY_SCHEMAS, 0},
    {"additionalProperties", KEY_SCHEMA, 0},
    {"required", KEY_NAMES, 0},
    {"not", KEY_REFUSED, 0},
    {"if", KEY_REFUSED, 0},
    {"then", KEY_NOTE, 0},
    {"else", KEY_NOTE, 0}, /* without "if" they say nothing */
    {"contains", KEY_REFUSED, 0},
    {"minContains", KEY_NOTE, 0},
    {"maxContains", KEY_NOTE, 0},
    {"propertyNames", KEY_REFUSED, 0},
    {"dependentRequired", KEY_REFUSED, 0},
    {"dependentSchemas", KEY_REFUSED, 0},
    {"dependencies", KEY_REFUSED, 0},
    {"unevaluatedProperties", KEY_REFUSED, 0},
    {"unevaluatedItems", KEY_REFUSED, 0},
    {"$dynamicRef", KEY_REFUSED, 0},
    {"$recursiveRef", KEY_REFUSED, 0},
};

static const struct keyword *keyword(const char *name)
{
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (strcmp(keywords[i].name, name) == 0)
            return &keywords[i];
    return NULL; /* unknown ones say nothing, by the standard */
}

const char *schema_only_ref(const json_t *schema)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        const struct keyword *k = keyword(key);
        if (k && k->kind != KEY_NOTE && strcmp(key, "$ref") != 0)
            return NULL;
    }
    return json_string_value(json_object_get(schema, "$ref"));
}

static uint32_t wrong(struct schema_compiler *c, const char *path, const char *key, const char *wanted, const json_t *got)
{
    return schema_refuse(c, path, "%s is %s; %s is expected", key, json_type_words(got), wanted);
}

static bool is_schema(const json_t *v)
{
    return json_is_object(v) || json_is_boolean(v);
}

/* Sets a key of an object being made; the value is borrowed. */
static void put(struct schema_compiler *c, json_t *to, const char *key, const json_t *value)
{
    if (!c->b.failed && (!value || json_object_set(to, key, (json_t *)(uintptr_t)value) != 0)) {
        err_set(c->b.err, ERR_MEMORY, "out of memory for a schema");
        gram_failed(&c->b);
    }
}

static void put_new(struct schema_compiler *c, json_t *to, const char *key, json_t *value)
{
    put(c, to, key, value);
    json_decref(value);
}

static bool in_list(const json_t *list, const json_t *v)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), (json_t *)(uintptr_t)v))
            return true;
    return false;
}

static bool has_type(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

/* What is in both; of types, an integer is a number. */
static json_t *common(struct schema_compiler *c, const json_t *a, const json_t *b, bool types)
{
    json_t *both = schema_keep(c, json_array()), *item;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)a, i, item)
    {
        if (in_list(b, item) || (types && strcmp(json_string_value(item), "integer") == 0 && has_type(b, "number")))
            json_array_append(both, item);
        else if (types && strcmp(json_string_value(item), "number") == 0 && has_type(b, "integer") && !has_type(a, "integer"))
            json_array_append_new(both, json_string("integer"));
    }
    return both;
}

/* --- keywords by themselves ---------------------------------------------------------------------------------------------- */

static void take_type(struct schema_compiler *c, json_t *to, const json_t *v, const char *path)
{
    static const char *const names[] = {"null", "boolean", "object", "array", "number", "string", "integer", NULL};
    json_t *list = json_is_string(v) ? json_pack("[O]", v) : json_incref((json_t *)(uintptr_t)v), *item;
    size_t i;

    if (!json_is_array(list))
        wrong(c, path, "type", "a string or a list of strings", v);
    json_array_foreach(list, i, item)
    {
        size_t k = 0;
        while (json_is_string(item) && names[k] && strcmp(names[k], json_string_value(item)) != 0)
            k++;
        if (!json_is_string(item) || !names[k])
            schema_refuse(c, path, "type: there are null, boolean, object, array, number, integer and string");
    }
    put_new(c, to, "type", list);
}

/* draft 7's items as a list are prefixItems now, and its additionalItems the items. */
static void take_items(struct schema_compiler *c, json_t *to, const json_t *from, const char *path)
{
    const json_t *items = json_object_get(from, "items"), *prefix = json_object_get(from, "prefixItems"), *item;
    const json_t *rest = items;
    size_t i;

    if (json_is_array(items)) {
        prefix = items;
        rest = json_object_get(from, "additionalItems");
    }
    if (rest && !is_schema(rest))
        wrong(c, path, "items", "a schema", rest);
    if (rest)
        put(c, to, "items", rest);
    if (!prefix)
        return;
    if (!json_is_array(prefix))
        wrong(c, path, "prefixItems", "a list of schemas", prefix);
    json_array_foreach((json_t *)(uintptr_t)prefix, i, item)
    {
        if (!is_schema(item))
            wrong(c, path, "an item of prefixItems", "a schema", item);
    }
    put(c, to, "prefixItems", prefix);
}

static void take_multiple(struct schema_compiler *c, json_t *to, const json_t *v, const char *path)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x > 0))
        wrong(c, path, "multipleOf", "a number above 0", v);
    else if (x != floor(x) || x > SCHEMA_MAX_MULTIPLE)
        schema_refuse(c, path, "multipleOf %g: whole numbers up to %d are supported", x, SCHEMA_MAX_MULTIPLE);
    else
        put_new(c, to, "multipleOf", json_integer((json_int_t)x));
}

/* pattern and format: lists, so that several may hold. */
static void take_text(struct schema_compiler *c, json_t *to, const char *key, const json_t *v, const char *path)
{
    if (!json_is_string(v))
        wrong(c, path, key, "a string", v);
    else
        put_new(c, to, key, json_pack("[O]", v));
}

/* enum and const both hold. */
static void take_enum(struct schema_compiler *c, json_t *to, const json_t *values)
{
    const json_t *before = json_object_get(to, "enum");
    put(c, to, "enum", before ? common(c, before, values, false) : values);
}

static void take_apart(struct schema_compiler *c, json_t *to, const json_t *from, const char *key, const json_t *v, const char *path)
{
    if (strcmp(key, "type") == 0) {
        take_type(c, to, v, path);
    } else if (strcmp(key, "pattern") == 0 || strcmp(key, "format") == 0) {
        take_text(c, to, key, v, path);
    } else if (strcmp(key, "multipleOf") == 0) {
        take_multiple(c, to, v, path);
    } else if (strcmp(key, "items") == 0 || (strcmp(key, "prefixItems") == 0 && !json_object_get(from, "items"))) {
        take_items(c, to, from, path);
    } else if (strcmp(key, "uniqueItems") == 0) {
        if (!json_is_false(v))
            schema_refuse(c, path, "uniqueItems is not supported: an automaton does not remember what came before");
    } else if (strcmp(key, "enum") == 0) {
        if (!json_is_array(v))
            wrong(c, path, key, "a list of values", v);
        else
            take_enum(c, to, v);
    } else if (strcmp(key, "const") == 0) {
        take_enum(c, to, schema_keep(c, json_pack("[O]", v)));
    }
}

static void take_schemas(struct schema_compiler *c, json_t *to, const char *key, const json_t *v, const char *path)
{
    const char *name;
    json_t *s;
    char shown[64];
    if (!json_is_object(v)) {
        wrong(c, path, key, "an object of schemas", v);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)v, name, s)
    {
        if (!is_schema(s))
            schema_refuse(c, path, "%s.%s is %s; a schema is expected", key, err_printable(shown, sizeof shown, name, strlen(name)),
                          json_type_words(s));
    }
    put(c, to, key, v);
}

static void take(struct schema_compiler *c, json_t *to, const json_t *from, const char *key, const json_t *v, const char *path)
{
    const struct keyword *k = keyword(key);
    switch (k ? k->kind : KEY_NOTE) {
    case KEY_NOTE:
        return;
    case KEY_APART:
        take_apart(c, to, from, key, v, path);
        return;
    case KEY_REFUSED:
        schema_refuse(c, path, "%s is not supported (docs/grammar.md has what is)", key);
        return;
    case KEY_COUNT:
        if (!json_is_number(v) || json_number_value(v) < 0 || json_number_value(v) != floor(json_number_value(v)))
            wrong(c, path, key, "a whole number from 0", v);
        else
            put_new(c, to, key, json_integer(json_number_value(v) > 1e9 ? 1000000000 : (json_int_t)json_number_value(v)));
        return;
    case KEY_NUMBER:
        if (!json_is_number(v))
            wrong(c, path, key, "a number", v);
        else
            put(c, to, key, v);
        return;
    case KEY_SCHEMA:
        if (!is_schema(v))
            wrong(c, path, key, "a schema", v);
        put(c, to, key, v);
        return;
    case KEY_SCHEMAS:
        take_schemas(c, to, key, v, path);
        return;
    case KEY_NAMES:
        for (size_t i = 0; i < json_array_size(v); i++)
            if (!json_is_string(json_array_get(v, i)))
                wrong(c, path, key, "a list of strings", json_array_get(v, i));
        if (!json_is_array(v))
            wrong(c, path, key, "a list of strings", v);
        put(c, to, key, v);
        return;
    }
}

/* --- merging ------------------------------------------------------------------------------------------------------------- */

static json_t *joined(struct schema_compiler *c, const json_t *a, const json_t *b)
{
    json_t *list = schema_keep(c, json_array()), *item;
    size_t i;
    if (!list)
        return NULL;
    json_array_extend(list, (json_t *)(uintptr_t)a);
    json_array_foreach((json_t *)(uintptr_t)b, i, item)
    {
        if (!in_list(list, item))
            json_array_append(list, item);
    }
    return list;
}

static int compare_numbers(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b))
        return json_integer_value(a) < json_integer_value(b) ? -1 : json_integer_value(a) > json_integer_value(b);
    return json_number_value(a) < json_number_value(b) ? -1 : json_number_value(a) > json_number_value(b);
}

/* What `s` says of a property that it does not name: its additionalProperties, unless one of its patterns may match, which is
 * looked at when the object is made. */
static json_t *unnamed(const json_t *s)
{
    return json_object_get(s, "patternProperties") ? NULL : json_object_get(s, "additionalProperties");
}

static json_t *merge_properties(struct schema_compiler *c, const json_t *a, const json_t *b)
{
    json_t *pa = json_object_get(a, "properties"), *pb = json_object_get(b, "properties"), *value;
    json_t *to = schema_keep(c, json_object());
    const char *name;

    if (!to)
        return NULL;
    json_object_foreach(pa, name, value)
    {
        json_t *other = json_object_get(pb, name);
        put(c, to, name, schema_both(c, value, other ? other : unnamed(b)));
    }
    json_object_foreach(pb, name, value)
    {
        if (!json_object_get(pa, name))
            put(c, to, name, schema_both(c, unnamed(a), value));
    }
    return to;
}

static json_t *merge_named(struct schema_compiler *c, const json_t *a, const json_t *b)
{
    json_t *to = schema_keep(c, json_copy((json_t *)(uintptr_t)a)), *value;
    const char *name;
    if (!to)
        return NULL;
    json_object_foreach((json_t *)(uintptr_t)b, name, value)
    {
        put(c, to, name, schema_both(c, json_object_get(a, name), value));
    }
    return to;
}

static json_t *merge_prefix(struct schema_compiler *c, const json_t *a, const json_t *b)
{
    json_t *pa = json_object_get(a, "prefixItems"), *pb = json_object_get(b, "prefixItems"), *to = schema_keep(c, json_array());
    size_t n = json_array_size(pa) > json_array_size(pb) ? json_array_size(pa) : json_array_size(pb);
    for (size_t i = 0; i < n && !c->b.failed; i++) {
        json_t *x = json_array_get(pa, i), *y = json_array_get(pb, i);
        json_t *both = schema_both(c, x ? x : json_object_get(a, "items"), y ? y : json_object_get(b, "items"));
        json_array_append(to, both);
    }
    return to;
}

static json_int_t gcd(json_int_t a, json_int_t b)
{
    return b ? gcd(b, a % b) : a;
}

/* Alternatives of both: each with each. */
static json_t *merge_any(struct schema_compiler *c, const json_t *a, const json_t *b, const char *path)
{
    json_t *to = schema_keep(c, json_array());
    if (json_array_size(a) * json_array_size(b) > SCHEMA_MAX_ALTERNATIVES) {
        schema_refuse(c, path, "anyOf and allOf together make more than %d alternatives", SCHEMA_MAX_ALTERNATIVES);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(a); i++)
        for (size_t k = 0; k < json_array_size(b) && gram_goes_on(&c->b); k++)
            json_array_append(to, schema_both(c, json_array_get(a, i), json_array_get(b, k)));
    return to;
}

/* Keyword by keyword, of two that have both. */
static json_t *merge_value(struct schema_compiler *c, const char *key, json_t *x, json_t *y, const char *path)
{
    const struct keyword *k = keyword(key);
    if (k && (k->kind == KEY_COUNT || k->kind == KEY_NUMBER))
        return compare_numbers(x, y) * k->least >= 0 ? x : y;
    if (strcmp(key, "type") == 0 || strcmp(key, "enum") == 0)
        return common(c, x, y, key[0] == 't');
    if (strcmp(key, "required") == 0 || strcmp(key, "pattern") == 0 || strcmp(key, "format") == 0)
        return joined(c, x, y);
    if (strcmp(key, "patternProperties") == 0)
        return merge_named(c, x, y);
    if (strcmp(key, "anyOf") == 0)
        return merge_any(c, x, y, path);
    if (strcmp(key, "multipleOf") == 0) {
        json_int_t m = json_integer_value(x), n = json_integer_value(y), both = m / gcd(m, n) * n;
        if (both > SCHEMA_MAX_MULTIPLE)
            schema_refuse(c, path, "multipleOf %lld: whole numbers up to %d are supported", (long long)both, SCHEMA_MAX_MULTIPLE);
        return schema_keep(c, json_integer(both));
    }
    return schema_both(c, x, y); /* items, additionalProperties */
}

json_t *schema_merge(struct schema_compiler *c, json_t *a, json_t *b, const char *path)
{
    json_t *to, *x, *y;
    const char *key;

    if (c->b.failed || json_is_false(a) || json_is_true(b))
        return c->b.failed ? NULL : a;
    if (json_is_false(b) || json_is_true(a))
        return b;
    if (++c->n_merges > SCHEMA_MAX_MERGES) {
        schema_refuse(c, path, "more than %d schemas that hold together (allOf, $ref beside others); make it simpler", SCHEMA_MAX_MERGES);
        return NULL;
    }
    if (!(to = schema_keep(c, json_copy(a))))
        return NULL;
    if (json_object_get(a, "properties") || json_object_get(b, "properties"))
        put(c, to, "properties", merge_properties(c, a, b));
    if (json_object_get(a, "prefixItems") || json_object_get(b, "prefixItems"))
        put(c, to, "prefixItems", merge_prefix(c, a, b));
    json_object_foreach(b, key, y)
    {
        if (c->b.failed)
            return NULL;
        if (strcmp(key, "properties") == 0 || strcmp(key, "prefixItems") == 0)
            continue;
        x = json_object_get(a, key);
        put(c, to, key, x ? merge_value(c, key, x, y, path) : y);
    }
    return c->b.failed ? NULL : to;
}

/* --- flattening ---------------------------------------------------------------------------------------------------------- */

static json_t *flatten(struct schema_compiler *c, const json_t *schema, const char *path, unsigned depth);

/* Alternatives under a keyword, as the anyOf of a schema. */
static json_t *with_any(struct schema_compiler *c, json_t *flat, const char *key, const json_t *v, const char *path)
{
    json_t *any, *item;
    size_t i;
    if (!v || !flat)
        return flat;
    if (!json_is_array(v) || json_array_size(v) == 0) {
        wrong(c, path, key, "a list of schemas", v);
        return NULL;
    }
    json_array_foreach((json_t *)(uintptr_t)v, i, item)
    {
        if (!is_schema(item)) {
            wrong(c, path, key, "a list of schemas", item);
            return NULL;
        }
    }
    if (!(any = schema_keep(c, json_pack("{s:O}", "anyOf", v))))
        return NULL;
    return schema_merge(c, flat, any, path);
}

static json_t *with_all(struct schema_compiler *c, json_t *flat, const json_t *v, const char *path, unsigned depth)
{
    if (!v)
        return flat;
    if (!json_is_array(v)) {
        wrong(c, path, "allOf", "a list of schemas", v);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(v) && flat; i++) {
        const char *at = schema_path_at(c, path, "allOf", i);
        json_t *part = at ? flatten(c, json_array_get(v, i), at, depth + 1) : NULL;
        flat = part ? schema_merge(c, flat, part, path) : NULL;
    }
    return flat;
}

static json_t *flatten(struct schema_compiler *c, const json_t *schema, const char *path, unsigned depth)
{
    const json_t *ref = json_object_get(schema, "$ref"), *target, *v;
    const char *key;
    json_t *flat, *part;

    if (!gram_goes_on(&c->b))
        return NULL;
    if (depth > MAX_FLATTEN) {
        schema_refuse(c, path, "$ref and allOf lead through more than %d schemas, or in a circle", MAX_FLATTEN);
        return NULL;
    }
    if (json_is_boolean(schema))
        return (json_t *)(uintptr_t)schema;
    if (!json_is_object(schema)) {
        wrong(c, path, "this", "a schema (an object, true or false)", schema);
        return NULL;
    }
    if (!(flat = schema_keep(c, json_object())))
        return NULL;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        take(c, flat, schema, key, v, path);
    }
    if (ref && !json_is_string(ref)) {
        wrong(c, path, "$ref", "a string", ref);
        return NULL;
    }
    if (ref) {
        target = schema_resolve(c, json_string_value(ref), path);
        part = target ? flatten(c, target, path, depth + 1) : NULL;
        flat = part ? schema_merge(c, flat, part, path) : NULL;
    }
    flat = with_any(c, flat, "anyOf", json_object_get(schema, "anyOf"), path);
    flat = with_any(c, flat, "oneOf", json_object_get(schema, "oneOf"), path);
    flat = flat ? with_all(c, flat, json_object_get(schema, "allOf"), path, depth) : NULL;
    return c->b.failed ? NULL : flat;
}

json_t *schema_flatten(struct schema_compiler *c, const json_t *schema, const char *path)
{
    return flatten(c, schema, path, 0);
}
