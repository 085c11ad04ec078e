/* What schemas ask of values that have no parts, and values that they name themselves (enum, const). See gram_schema.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/gram_schema.h"

enum { MAX_BLANKS = 24 };

/* --- rules of their own -------------------------------------------------------------------------------------------------- */

/* A rule that is made once: NULL until then, and set before its expression is, which may need itself. */
static uint32_t once(struct schema_compiler *c, uint32_t *rule, uint32_t (*make)(struct schema_compiler *c))
{
    if (*rule == GRAM_NONE) {
        uint32_t made = gram_rule_new(&c->b);
        *rule = made;
        uint32_t expr = make(c);
        gram_rule_set(&c->b, made, expr);
    }
    return gram_rule(&c->b, *rule);
}

static uint32_t make_space(struct schema_compiler *c)
{
    struct gram_builder *b = &c->b;
    uint32_t blank = gram_set(b, (struct gram_range[]){{' ', ' '}, {'\t', '\t'}}, 2, false);
    uint32_t line = GRAM_SEQ_OF(b, gram_str(b, "\n"), gram_rep(b, blank, 0, MAX_BLANKS));
    return GRAM_ALT_OF(b, gram_empty(b), gram_str(b, " "), line);
}

uint32_t schema_space(struct schema_compiler *c)
{
    return once(c, &c->space, make_space);
}

static uint32_t make_string(struct schema_compiler *c)
{
    return gram_json_string(&c->b, &(struct gram_string){.max = GRAM_ANY_NUMBER});
}

uint32_t schema_any_string(struct schema_compiler *c)
{
    return once(c, &c->string, make_string);
}

uint32_t schema_colon(struct schema_compiler *c)
{
    return GRAM_SEQ_OF(&c->b, gram_str(&c->b, ":"), gram_rep(&c->b, gram_str(&c->b, " "), 0, 1));
}

uint32_t schema_comma(struct schema_compiler *c)
{
    return GRAM_SEQ_OF(&c->b, gram_str(&c->b, ","), schema_space(c));
}

/* open, items with commas between them, any number of them, close */
static uint32_t listed(struct schema_compiler *c, const char *open, uint32_t item, const char *close)
{
    struct gram_builder *b = &c->b;
    uint32_t more = gram_rep(b, GRAM_SEQ_OF(b, schema_comma(c), item), 0, GRAM_ANY_NUMBER);
    return GRAM_SEQ_OF(b, gram_str(b, open), schema_space(c), gram_rep(b, GRAM_SEQ_OF(b, item, more, schema_space(c)), 0, 1),
                       gram_str(b, close));
}

static uint32_t make_object(struct schema_compiler *c)
{
    return listed(c, "{", GRAM_SEQ_OF(&c->b, schema_any_string(c), schema_colon(c), schema_any_value(c)), "}");
}

uint32_t schema_any_object(struct schema_compiler *c)
{
    return once(c, &c->object, make_object);
}

uint32_t schema_words(struct schema_compiler *c)
{
    return GRAM_ALT_OF(&c->b, gram_str(&c->b, "true"), gram_str(&c->b, "false"));
}

static uint32_t make_value(struct schema_compiler *c)
{
    const struct gram_bound none = {0};
    return GRAM_ALT_OF(&c->b, schema_any_object(c), listed(c, "[", schema_any_value(c), "]"), schema_any_string(c),
                       gram_number(&c->b, &none, &none), schema_words(c), gram_str(&c->b, "null"));
}

uint32_t schema_any_value(struct schema_compiler *c)
{
    return once(c, &c->value, make_value);
}
/* --- values -------------------------------------------------------------------------------------------------------------- */

static uint32_t schema_value_text(struct schema_compiler *c, const json_t *v, unsigned depth)
{
    struct gram_builder *b = &c->b;
    struct gram_list l = {0};
    const char *key;
    json_t *item;
    uint32_t id;
    size_t i, n = 0;
    char *text;

    if (!gram_goes_on(b))
        return 0;
    if (depth > GRAMMAR_MAX_NESTING) {
        err_set(b->err, ERR_LIMIT, "a value nested more than %d deep", GRAMMAR_MAX_NESTING);
        return gram_failed(b);
    }
    if (json_is_string(v))
        return gram_json_text(b, json_string_value(v), json_string_length(v));
    if (!json_is_object(v) && !json_is_array(v)) {
        text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        id = text ? gram_str(b, text) : gram_failed(b);
        free(text);
        return id;
    }
    gram_list_add(b, &l, gram_str(b, json_is_object(v) ? "{" : "["));
    gram_list_add(b, &l, schema_space(c));
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        gram_list_add(b, &l, n++ ? schema_comma(c) : gram_empty(b));
        gram_list_add(b, &l, GRAM_SEQ_OF(b, gram_json_text(b, key, strlen(key)), schema_colon(c), schema_value_text(c, item, depth + 1)));
    }
    json_array_foreach((json_t *)(uintptr_t)v, i, item)
    {
        gram_list_add(b, &l, n++ ? schema_comma(c) : gram_empty(b));
        gram_list_add(b, &l, schema_value_text(c, item, depth + 1));
    }
    gram_list_add(b, &l, n ? schema_space(c) : gram_empty(b));
    gram_list_add(b, &l, gram_str(b, json_is_object(v) ? "}" : "]"));
    return gram_list_seq(b, &l);
}

static const char *type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_NULL:
        return "null";
    case JSON_TRUE:
    case JSON_FALSE:
        break;
    }
    return "boolean";
}

static bool type_allowed(const json_t *types, const char *name)
{
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *t = json_string_value(json_array_get(types, i));
        if (strcmp(t, name) == 0 || (strcmp(t, "number") == 0 && strcmp(name, "integer") == 0))
            return true;
    }
    return !types;
}

/* A whole number written as a real counts as an integer. */
static bool value_has_type(const json_t *types, const json_t *v)
{
    double x = json_is_real(v) ? json_real_value(v) : 0.5;
    return type_allowed(types, type_of(v)) ||
           (json_is_real(v) && x > -1e15 && x < 1e15 && x == (double)(int64_t)x && type_allowed(types, "integer"));
}

static bool bounds_of(struct schema_compiler *c, const json_t *flat, const char *path, struct gram_bound *low, struct gram_bound *high)
{
    static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
    *low = *high = (struct gram_bound){0};
    for (int i = 0; i < 4; i++) {
        const json_t *v = json_object_get(flat, keys[i]);
        struct gram_bound one, *to = i < 2 ? low : high;
        if (!v)
            continue;
        if (gram_bound_of(v, &one) != 0) {
            schema_refuse(c, path, "%s has more than %d digits", keys[i], GRAM_DECIMAL_DIGITS);
            return false;
        }
        one.exclusive = i % 2 == 1;
        int order = to->set ? gram_bound_compare(&one, to) : 0;
        if (!to->set || (i < 2 ? order > 0 : order < 0) || (order == 0 && one.exclusive))
            *to = one;
    }
    return true;
}

/* By what is said of numbers besides their type. */
static bool number_allowed(struct schema_compiler *c, const json_t *flat, const char *path, const json_t *v)
{
    struct gram_bound low, high, x;
    double m = json_number_value(json_object_get(flat, "multipleOf")), n = json_number_value(v);
    if (!bounds_of(c, flat, path, &low, &high) || gram_bound_of(v, &x) != 0)
        return false;
    int a = low.set ? gram_bound_compare(&x, &low) : 1, b = high.set ? gram_bound_compare(&x, &high) : -1;
    return (a > 0 || (a == 0 && !low.exclusive)) && (b < 0 || (b == 0 && !high.exclusive)) &&
           (m == 0 || (n / m == (double)(int64_t)(n / m)));
}

static size_t n_chars(const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80;
    return n;
}

/* --- strings ------------------------------------------------------------------------------------------------------------- */

void schema_add_pattern(struct schema_compiler *c, struct gram_string *s, const char *pattern, size_t len, const char *path,
                        const char *what)
{
    struct gram_dfa *d = c->b.failed ? NULL : gram_regex(&c->b, pattern, len);
    if (!d) {
        struct err own = c->b.err ? *c->b.err : (struct err){0};
        if (own.kind == ERR_UNSUPPORTED) /* the first failure stands; its text gets the path */
            err_set(c->b.err, ERR_UNSUPPORTED, "%s: %s: %s", path, what, own.text);
        return;
    }
    s->dfa = s->dfa ? gram_dfa_combine(&c->b, s->dfa, d, GRAM_DFA_AND) : d;
}

static bool string_of(struct schema_compiler *c, const json_t *flat, const char *path, struct gram_string *s)
{
    json_t *min = json_object_get(flat, "minLength"), *max = json_object_get(flat, "maxLength"), *item;
    size_t i;

    *s = (struct gram_string){.min = min ? (uint32_t)json_integer_value(min) : 0,
                              .max = max ? (uint32_t)json_integer_value(max) : GRAM_ANY_NUMBER};
    if (s->min > GRAMMAR_MAX_REPEAT || (max && s->max > GRAMMAR_MAX_REPEAT)) {
        schema_refuse(c, path, "%s is above %d, the most that is counted", s->min > GRAMMAR_MAX_REPEAT ? "minLength" : "maxLength",
                      GRAMMAR_MAX_REPEAT);
        return false;
    }
    json_array_foreach(json_object_get(flat, "pattern"), i, item)
    {
        schema_add_pattern(c, s, json_string_value(item), json_string_length(item), path, "pattern");
    }
    json_array_foreach(json_object_get(flat, "format"), i, item)
    {
        const char *pattern = gram_format(json_string_value(item)); /* others are annotations */
        if (pattern)
            schema_add_pattern(c, s, pattern, strlen(pattern), path, "format");
    }
    if (!c->b.failed)
        return true;
    gram_dfa_free(s->dfa);
    s->dfa = NULL;
    return false;
}

uint32_t schema_string(struct schema_compiler *c, const json_t *flat, const char *path)
{
    struct gram_string s;
    if (!string_of(c, flat, path, &s))
        return 0;
    if (s.min == 0 && s.max == GRAM_ANY_NUMBER && !s.dfa)
        return schema_any_string(c);
    return gram_json_string(&c->b, &s);
}

/* --- enum ---------------------------------------------------------------------------------------------------------------- */

static bool string_allowed(struct schema_compiler *c, const json_t *flat, const char *path, const json_t *v)
{
    struct gram_string s;
    size_t n = n_chars(json_string_value(v), json_string_length(v));
    if (!string_of(c, flat, path, &s))
        return false;
    bool ok = n >= s.min && (s.max == GRAM_ANY_NUMBER || n <= s.max) &&
              (!s.dfa || gram_dfa_matches(s.dfa, json_string_value(v), json_string_length(v)));
    gram_dfa_free(s.dfa);
    return ok;
}

/* Values of an enum that the schema's other words allow. */
uint32_t schema_enum(struct schema_compiler *c, const json_t *flat, const char *path)
{
    static const char *const about_parts[] = {
        "properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties", "items", "prefixItems",
        "minItems",   "maxItems"};
    const json_t *list = json_object_get(flat, "enum"), *types = json_object_get(flat, "type"), *v;
    struct gram_list l = {0};
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)list, i, v)
    {
        if (!value_has_type(types, v) || (json_is_number(v) && !number_allowed(c, flat, path, v)) ||
            (json_is_string(v) && !string_allowed(c, flat, path, v)))
            continue;
        for (size_t k = 0; (json_is_object(v) || json_is_array(v)) && k < sizeof about_parts / sizeof *about_parts; k++)
            if (json_object_get(flat, about_parts[k]))
                schema_refuse(c, path, "%s beside an enum or const of objects or arrays is not supported", about_parts[k]);
        gram_list_add(&c->b, &l, schema_value_text(c, v, 0));
    }
    return gram_list_alt(&c->b, &l);
}

/* --- numbers ------------------------------------------------------------------------------------------------------------- */

uint32_t schema_number(struct schema_compiler *c, const json_t *flat, const char *path, bool integer)
{
    struct gram_bound low, high;
    json_int_t multiple = json_integer_value(json_object_get(flat, "multipleOf"));
    if (!bounds_of(c, flat, path, &low, &high))
        return 0;
    if (integer || multiple) /* a multiple of a whole number is one */
        return gram_integer(&c->b, &low, &high, multiple ? (uint32_t)multiple : 1);
    return gram_number(&c->b, &low, &high);
}
