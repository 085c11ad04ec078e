/* What schemas ask of arrays and objects, as graphs: a state for each number of items or members that counts. See gram_schema.h. */
#include <stdlib.h>
#include <string.h>

#include "text/gram_schema.h"

enum {
    MAX_STATES = 1 << 17,
    MAX_KEY = 64,                                         /* characters of a key that nobody named: models would go on for ever … */
    COUNTED_STATES = GRAM_DFA_MAX_STATES / (2 * MAX_KEY), /* … unless counting them takes too many states */
};

/* --- arrays -------------------------------------------------------------------------------------------------------------- */

struct edges {
    struct gram_graph_edge *e;
    size_t n, cap;
};

static void add_edge(struct schema_compiler *c, struct edges *g, uint32_t from, uint32_t expr, uint32_t to)
{
    if (!gram_goes_on(&c->b))
        return;
    if (mem_grow(&g->e, &g->cap, g->n + 1, sizeof *g->e, GRAMMAR_MAX_EDGES, "edges of a schema", c->b.err) != 0)
        gram_failed(&c->b);
    else
        g->e[g->n++] = (struct gram_graph_edge){from, expr, to};
}

static uint32_t count_of(const json_t *flat, const char *key, uint32_t absent)
{
    const json_t *v = json_object_get(flat, key);
    return v ? (uint32_t)json_integer_value(v) : absent;
}

static bool countable(struct schema_compiler *c, const char *path, const char *key, uint32_t n)
{
    if (n <= GRAMMAR_MAX_REPEAT || n == GRAM_ANY_NUMBER)
        return true;
    schema_refuse(c, path, "%s is above %d, the most that is counted", key, GRAMMAR_MAX_REPEAT);
    return false;
}

/* State i: i items are there; the last one goes on with itself where there is no most. */
uint32_t schema_array(struct schema_compiler *c, const json_t *flat, const char *path)
{
    struct gram_builder *b = &c->b;
    const json_t *prefix = json_object_get(flat, "prefixItems"), *items = json_object_get(flat, "items");
    uint32_t n_prefix = (uint32_t)json_array_size(prefix), min = count_of(flat, "minItems", 0),
             max = count_of(flat, "maxItems", GRAM_ANY_NUMBER);
    struct edges g = {0};
    uint32_t item, sep, ret;

    if (!countable(c, path, "minItems", min) || !countable(c, path, "maxItems", max))
        return 0;
    if (json_is_false(items) || (prefix && !items && min <= n_prefix)) /* of a tuple whose rest is left open: nothing more */
        max = max < n_prefix ? max : n_prefix;
    if (min > max)
        return gram_never(b);
    uint32_t most = max != GRAM_ANY_NUMBER ? max : n_prefix > min ? n_prefix : min;
    item = max > n_prefix ? (items ? schema_part_for(c, items, schema_path(c, path, "items")) : schema_any_value(c)) : 0;
    sep = schema_comma(c);
    for (uint32_t i = 0; i <= most && gram_goes_on(b); i++) {
        bool last = i == most;
        if (i >= min)
            add_edge(c, &g, i, i ? schema_space(c) : gram_empty(b), most + 1 + (max == GRAM_ANY_NUMBER));
        if (last && max != GRAM_ANY_NUMBER)
            break;
        uint32_t one = i < n_prefix ? schema_part_for(c, json_array_get(prefix, i), schema_path_at(c, path, "prefixItems", i)) : item;
        add_edge(c, &g, i, i ? GRAM_SEQ_OF(b, sep, one) : one, i + 1);
        if (last) { /* one more state, which loops */
            add_edge(c, &g, i + 1, GRAM_SEQ_OF(b, sep, item), i + 1);
            add_edge(c, &g, i + 1, schema_space(c), i + 2);
        }
    }
    ret = GRAM_SEQ_OF(b, gram_str(b, "["), schema_space(c), gram_graph(b, g.e, g.n, most + 1 + (max == GRAM_ANY_NUMBER)), gram_str(b, "]"));
    free(g.e);
    return ret;
}

/* --- objects ------------------------------------------------------------------------------------------------------------- */

struct members {
    struct member {
        const char *name;
        uint32_t value;
        bool required;
    } * list;
    size_t n, cap;
    struct gram_dfa *patterns[SCHEMA_MAX_PATTERNS];
    json_t *pattern_schemas[SCHEMA_MAX_PATTERNS];
    size_t n_patterns;
    uint32_t others; /* a key that is not among the names, with its value; GRAM_NEVER's id where there is none */
    bool any_other;
};

bool schema_has_name(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

static void read_patterns(struct schema_compiler *c, struct members *m, const json_t *flat, const char *path)
{
    json_t *patterns = json_object_get(flat, "patternProperties"), *schema;
    const char *key;
    if (json_object_size(patterns) > SCHEMA_MAX_PATTERNS)
        schema_refuse(c, path, "patternProperties has %zu patterns; at most %d are supported", json_object_size(patterns),
                      SCHEMA_MAX_PATTERNS);
    json_object_foreach(patterns, key, schema)
    {
        struct gram_string s = {0};
        if (c->b.failed)
            return;
        schema_add_pattern(c, &s, key, strlen(key), path, "patternProperties");
        m->patterns[m->n_patterns] = s.dfa;
        m->pattern_schemas[m->n_patterns++] = schema;
    }
}

/* What the patterns say of a name, beside its own schema; NULL: nothing. */
static json_t *by_patterns(struct schema_compiler *c, const struct members *m, const char *name, json_t *schema)
{
    for (size_t i = 0; i < m->n_patterns; i++)
        if (m->patterns[i] && gram_dfa_matches(m->patterns[i], name, strlen(name)))
            schema = schema_both(c, schema, m->pattern_schemas[i]);
    return schema;
}

static void add_member(struct schema_compiler *c, struct members *m, const char *name, const json_t *schema, bool required,
                       const char *path)
{
    if (c->b.failed || mem_grow(&m->list, &m->cap, m->n + 1, sizeof *m->list, GRAMMAR_MAX_RULES, "properties", c->b.err) != 0) {
        gram_failed(&c->b);
        return;
    }
    m->list[m->n++] = (struct member){name, schema_part_for(c, schema, path), required};
}

static void read_members(struct schema_compiler *c, struct members *m, const json_t *flat, const char *path)
{
    json_t *properties = json_object_get(flat, "properties"), *required = json_object_get(flat, "required"), *schema, *more;
    const char *name, *at;
    size_t i;

    more = json_object_get(flat, "additionalProperties");
    json_object_foreach(properties, name, schema)
    {
        at = schema_path(c, path, "properties");
        add_member(c, m, name, by_patterns(c, m, name, schema), schema_has_name(required, name), at ? schema_path(c, at, name) : NULL);
    }
    json_array_foreach(required, i, schema)
    {
        name = json_string_value(schema);
        if (json_object_get(properties, name))
            continue;
        for (size_t k = 0; k < m->n && name; k++) /* named twice */
            if (strcmp(m->list[k].name, name) == 0)
                name = NULL;
        if (!name)
            continue;
        json_t *said = by_patterns(c, m, name, NULL);
        at = schema_path_at(c, path, "required", i);
        add_member(c, m, name, said ? said : more ? more : json_true(), true, at);
    }
}

/* Keys that match just the patterns of `which`, and no name; with the value that these ask for. */
static uint32_t other_keys(struct schema_compiler *c, const struct members *m, unsigned which, json_t *rest, const char *path)
{
    struct gram_builder *b = &c->b;
    struct gram_string key = {.max = MAX_KEY};
    json_t *schema = which ? NULL : rest;
    struct gram_list names = {0};
    uint32_t value, any;

    for (size_t i = 0; i < m->n_patterns; i++)
        if (which >> i & 1)
            schema = schema_both(c, schema, m->pattern_schemas[i]);
    if (!schema || json_is_false(schema) || b->failed)
        return gram_never(b);
    value = schema_part_for(c, schema, schema_path(c, path, which ? "patternProperties" : "additionalProperties"));
    if (m->n == 0 && m->n_patterns == 0)
        return GRAM_SEQ_OF(b, gram_json_string(b, &key), schema_colon(c), value);
    any = gram_rep(b, gram_set(b, NULL, 0, true), 0, GRAM_ANY_NUMBER);
    key.dfa = gram_dfa_of(b, any);
    for (size_t i = 0; i < m->n && gram_goes_on(b); i++)
        gram_list_add(b, &names, gram_str(b, m->list[i].name));
    any = gram_list_alt(b, &names);
    if (key.dfa && m->n)
        key.dfa = gram_dfa_combine(b, key.dfa, gram_dfa_of(b, any), GRAM_DFA_WITHOUT);
    for (size_t i = 0; i < m->n_patterns && key.dfa; i++)
        key.dfa = gram_dfa_with(b, key.dfa, m->patterns[i], which >> i & 1 ? GRAM_DFA_AND : GRAM_DFA_WITHOUT);
    if (key.dfa && key.dfa->n_states > COUNTED_STATES)
        key.max = GRAM_ANY_NUMBER;
    return GRAM_SEQ_OF(b, gram_json_string(b, &key), schema_colon(c), value);
}

static void read_others(struct schema_compiler *c, struct members *m, const json_t *flat, const char *path)
{
    json_t *rest = json_object_get(flat, "additionalProperties");
    struct gram_list l = {0};

    /* Where properties are named and nothing is said of others, none come: models would go on for ever. */
    if (!rest && !json_object_get(flat, "properties") && m->n_patterns == 0)
        rest = json_true();
    for (unsigned which = 0; which < 1u << m->n_patterns && gram_goes_on(&c->b); which++) {
        uint32_t one = other_keys(c, m, which, rest, path);
        if (one != gram_never(&c->b))
            gram_list_add(&c->b, &l, one);
    }
    m->any_other = l.n > 0;
    m->others = gram_list_alt(&c->b, &l);
}

/* States: (how many names were looked at, how many members there are, as far as that counts). */
static uint32_t members_graph(struct schema_compiler *c, const struct members *m, uint32_t min, uint32_t max)
{
    struct gram_builder *b = &c->b;
    uint32_t most = max != GRAM_ANY_NUMBER ? max : min > 1 ? min : 1, width = most + 1, n = (uint32_t)m->n, end, ret, sep = schema_comma(c);
    struct edges g = {0};

    if ((uint64_t)(n + 1) * width > MAX_STATES) {
        err_set(b->err, ERR_LIMIT, "an object of %u properties with a count of up to %u is too large", n, most);
        return gram_failed(b);
    }
    end = (n + 1) * width;
    for (uint32_t i = 0; i <= n; i++)
        for (uint32_t k = 0; k <= most && gram_goes_on(b); k++) {
            uint32_t from = i * width + k, next = k < most ? k + 1 : most;
            bool room = k < most || max == GRAM_ANY_NUMBER;
            if (i < n && room) {
                uint32_t key = gram_json_text(b, m->list[i].name, strlen(m->list[i].name));
                uint32_t one = GRAM_SEQ_OF(b, key, schema_colon(c), m->list[i].value);
                add_edge(c, &g, from, k ? GRAM_SEQ_OF(b, sep, one) : one, (i + 1) * width + next);
            }
            if (i < n && !m->list[i].required)
                add_edge(c, &g, from, gram_empty(b), (i + 1) * width + k);
            /* Keys that nobody named may come twice, and count once: only the first of them counts towards the least. */
            if (i == n && room && m->any_other && k + 1 >= min)
                add_edge(c, &g, from, k ? GRAM_SEQ_OF(b, sep, m->others) : m->others, i * width + next);
            if (i == n && k >= min)
                add_edge(c, &g, from, k ? schema_space(c) : gram_empty(b), end);
        }
    ret = gram_graph(b, g.e, g.n, end);
    free(g.e);
    return ret;
}

uint32_t schema_object(struct schema_compiler *c, const json_t *flat, const char *path)
{
    struct gram_builder *b = &c->b;
    struct members m = {0};
    uint32_t min = count_of(flat, "minProperties", 0), max = count_of(flat, "maxProperties", GRAM_ANY_NUMBER), inner = 0;

    if (!countable(c, path, "minProperties", min))
        return 0;
    max = max > GRAMMAR_MAX_REPEAT ? GRAM_ANY_NUMBER : max; /* nobody gets so far */
    read_patterns(c, &m, flat, path);
    read_members(c, &m, flat, path);
    read_others(c, &m, flat, path);
    if (!b->failed && m.any_other && min > m.n + 1)
        schema_refuse(c, path, "minProperties is %u; with %zu named ones at most %zu can be promised, as others may come twice", min, m.n,
                      m.n + 1);
    if (min > max)
        inner = gram_never(b);
    else if (!b->failed)
        inner = members_graph(c, &m, min, max);
    for (size_t i = 0; i < m.n_patterns; i++)
        gram_dfa_free(m.patterns[i]);
    free(m.list);
    return GRAM_SEQ_OF(b, gram_str(b, "{"), schema_space(c), inner, gram_str(b, "}"));
}
