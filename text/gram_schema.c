/* JSON schemas to rules; docs/grammar.md tells what of them. Each schema that is reached becomes a rule, made when its turn comes,
 * so that schemas may lead to each other in any depth and in circles. Properties come in the schema's order, the required ones
 * always, of the others any selection; between the parts of an object or array there may be a space, or a line break and up to
 * 24 blanks. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "text/gram_schema.h"

enum { MAX_BLANKS = 24, MAX_STATES = 1 << 17 };
/* --- which rule is whose ------------------------------------------------------------------------------------------------- */

static uint64_t hash_of(const void *key, size_t len)
{
    uint64_t h = 0xcbf29ce484222325;
    if (len == 0)
        return ((uint64_t)(uintptr_t)key * 0x9E3779B97F4A7C15) >> 20;
    for (size_t i = 0; i < len; i++)
        h = (h ^ ((const unsigned char *)key)[i]) * 0x100000001b3;
    return h ^ h >> 29;
}

static int grow_memo(struct schema_compiler *c)
{
    size_t cap = c->cap_memo ? 2 * c->cap_memo : 64;
    struct schema_memo *memo = mem_new(cap, sizeof *memo, c->b.err);
    if (!memo) {
        gram_failed(&c->b);
        return -1;
    }
    for (size_t i = 0; i < cap; i++)
        memo[i].rule = GRAM_NONE;
    for (size_t i = 0; i < c->cap_memo; i++)
        if (c->memo[i].rule != GRAM_NONE) {
            size_t at = hash_of(c->memo[i].key, c->memo[i].len) & (cap - 1);
            while (memo[at].rule != GRAM_NONE)
                at = (at + 1) & (cap - 1);
            memo[at] = c->memo[i];
        }
    free(c->memo);
    c->memo = memo;
    c->cap_memo = cap;
    return 0;
}

/* The rule for a schema; one that is new gets a task. key and len as in schema_memo. */
static uint32_t rule_for(struct schema_compiler *c, const json_t *schema, const char *path, const void *key, size_t len)
{
    if (c->b.failed || (2 * (c->n_memo + 1) > c->cap_memo && grow_memo(c) != 0))
        return 0;
    size_t at = hash_of(key, len) & (c->cap_memo - 1);
    for (; c->memo[at].rule != GRAM_NONE; at = (at + 1) & (c->cap_memo - 1))
        if (c->memo[at].len == len && (len ? memcmp(c->memo[at].key, key, len) == 0 : c->memo[at].key == key))
            return gram_rule(&c->b, c->memo[at].rule);
    uint32_t rule = gram_rule_new(&c->b);
    if (c->b.failed || mem_grow(&c->tasks, &c->cap_tasks, c->n_tasks + 1, sizeof *c->tasks, GRAMMAR_MAX_RULES, "schemas", c->b.err) != 0)
        return gram_failed(&c->b);
    c->tasks[c->n_tasks++] = (struct schema_task){schema, path, rule};
    c->memo[at] = (struct schema_memo){key, len, rule};
    c->n_memo++;
    return gram_rule(&c->b, rule);
}

/* A schema that stands in what was given, or was made here: those are told apart by what they say. */
uint32_t schema_expr_for(struct schema_compiler *c, const json_t *schema, const char *path, bool made)
{
    if (!gram_goes_on(&c->b) || !schema)
        return 0;
    if (json_is_true(schema))
        return schema_any_value(c);
    if (json_is_false(schema))
        return gram_never(&c->b);
    if (!made)
        return rule_for(c, schema, path, schema, 0);
    struct strbuf key; /* of two tools' schemas the same words may mean different places */
    char *text = json_dumps(schema, JSON_COMPACT), *copy = NULL;
    strbuf_init(&key, SCHEMA_MAX_MEMORY);
    strbuf_printf(&key, "%p:", (const void *)c->root);
    strbuf_puts(&key, text ? text : "");
    if (text && !key.failed)
        copy = arena_strndup(&c->memory, strbuf_str(&key), key.len, NULL);
    strbuf_fini(&key);
    free(text);
    if (!copy) {
        err_set(c->b.err, ERR_LIMIT, "the schema takes too much memory when its parts are put together; make it simpler");
        return gram_failed(&c->b);
    }
    return rule_for(c, schema, path, copy, strlen(copy));
}

/* What schema_both made is new; else it is the schema's own. */
static bool is_made(const json_t *schema)
{
    return json_object_size(schema) == 1 && json_object_get(schema, "allOf");
}

uint32_t schema_part_for(struct schema_compiler *c, const json_t *schema, const char *path)
{
    return schema_expr_for(c, schema, path, is_made(schema));
}
/* --- schemas ------------------------------------------------------------------------------------------------------------- */

static uint32_t type_expr(struct schema_compiler *c, const char *type, const json_t *flat, const char *path)
{
    switch (type[0]) {
    case 'o':
        return schema_object(c, flat, path);
    case 'a':
        return schema_array(c, flat, path);
    case 's':
        return schema_string(c, flat, path);
    case 'b':
        return schema_words(c);
    case 'i':
        return schema_number(c, flat, path, true);
    default:
        return strcmp(type, "number") == 0 ? schema_number(c, flat, path, false) : gram_str(&c->b, "null");
    }
}

/* Where no type is named: those that the schema's other words are about. */
static json_t *types_meant(struct schema_compiler *c, const json_t *flat)
{
    static const struct {
        const char *key, *type;
    } about[] = {
        {"properties", "object"},
        {"patternProperties", "object"},
        {"additionalProperties", "object"},
        {"required", "object"},
        {"minProperties", "object"},
        {"maxProperties", "object"},
        {"items", "array"},
        {"prefixItems", "array"},
        {"minItems", "array"},
        {"maxItems", "array"},
        {"minLength", "string"},
        {"maxLength", "string"},
        {"pattern", "string"},
        {"format", "string"},
        {"minimum", "number"},
        {"maximum", "number"},
        {"exclusiveMinimum", "number"},
        {"exclusiveMaximum", "number"},
        {"multipleOf", "number"},
    };
    json_t *types = json_object_get(flat, "type");
    if (types)
        return types;
    if (!(types = schema_keep(c, json_array())))
        return NULL;
    for (size_t i = 0; i < sizeof about / sizeof *about; i++)
        if (json_object_get(flat, about[i].key) &&
            (json_array_size(types) == 0 ||
             strcmp(json_string_value(json_array_get(types, json_array_size(types) - 1)), about[i].type) != 0))
            json_array_append_new(types, json_string(about[i].type));
    return types;
}

static uint32_t flat_expr(struct schema_compiler *c, const json_t *flat, const char *path)
{
    struct gram_list l = {0};
    json_t *types, *type;
    size_t i;

    if (json_object_get(flat, "enum"))
        return schema_enum(c, flat, path);
    if (!(types = types_meant(c, flat)))
        return 0;
    if (json_array_size(types) == 0 && !json_object_get(flat, "type"))
        return schema_any_value(c);
    json_array_foreach(types, i, type)
    {
        bool again = strcmp(json_string_value(type), "integer") == 0 && schema_has_name(types, "number");
        if (!again && gram_goes_on(&c->b))
            gram_list_add(&c->b, &l, type_expr(c, json_string_value(type), flat, path));
    }
    return gram_list_alt(&c->b, &l);
}

/* Each alternative together with what stands beside it. */
static uint32_t any_expr(struct schema_compiler *c, const json_t *flat, const char *path)
{
    json_t *any = json_object_get(flat, "anyOf"), *one, *beside = schema_keep(c, json_copy((json_t *)(uintptr_t)flat));
    struct gram_list l = {0};
    size_t i;

    if (!beside)
        return 0;
    json_object_del(beside, "anyOf");
    json_array_foreach(any, i, one)
    {
        const char *at = schema_path_at(c, path, "anyOf", i);
        if (c->b.failed)
            break;
        if (json_object_size(beside) == 0) {
            gram_list_add(&c->b, &l, schema_part_for(c, one, at));
            continue;
        }
        json_t *alone = schema_flatten(c, one, at), *both = alone ? schema_merge(c, beside, alone, at) : NULL;
        gram_list_add(&c->b, &l, schema_expr_for(c, both, at, true));
    }
    return gram_list_alt(&c->b, &l);
}

static void run_task(struct schema_compiler *c, struct schema_task t)
{
    const char *ref = json_is_object(t.schema) ? schema_only_ref(t.schema) : NULL;
    uint32_t expr = 0;

    if (ref) {
        const json_t *target = schema_resolve(c, ref, t.path);
        expr = target ? schema_expr_for(c, target, t.path, false) : 0;
    } else {
        json_t *flat = schema_flatten(c, t.schema, t.path);
        if (flat && json_is_boolean(flat))
            expr = schema_expr_for(c, flat, t.path, false);
        else if (flat)
            expr = json_object_get(flat, "anyOf") ? any_expr(c, flat, t.path) : flat_expr(c, flat, t.path);
    }
    gram_rule_set(&c->b, t.rule, expr);
}

static void compiler_init(struct schema_compiler *c, struct err *err)
{
    *c = (struct schema_compiler){.made = json_array()};
    gram_builder_init(&c->b, err);
    arena_init(&c->memory, SCHEMA_MAX_MEMORY);
    c->space = c->value = c->object = c->string = GRAM_NONE;
    if (!c->made) {
        err_set(err, ERR_MEMORY, "out of memory for a schema");
        gram_failed(&c->b);
    }
}

static void compiler_fini(struct schema_compiler *c)
{
    gram_builder_fini(&c->b);
    arena_fini(&c->memory);
    json_decref(c->made);
    free(c->tasks);
    free(c->memo);
}

/* Whatever expressions need is made; then the automaton, which begins with `expr`. */
static struct grammar *finish(struct schema_compiler *c, uint32_t expr)
{
    uint32_t root = gram_rule_new(&c->b);
    gram_rule_set(&c->b, root, expr);
    while (c->next_task < c->n_tasks && gram_goes_on(&c->b))
        run_task(c, c->tasks[c->next_task++]);
    return gram_compile(&c->b, root, NULL, NULL);
}

struct grammar *grammar_from_schema(const json_t *schema, const char *where, struct err *err)
{
    struct grammar_part part = {.schema = schema, .where = where};
    struct grammar_form form = {&part, 1};
    return grammar_from_calls(&form, 1, NULL, 1, err);
}

static uint32_t as_it_is(struct gram_builder *b, const struct gram_range *r, size_t n)
{
    return gram_set(b, r, n, false);
}

struct grammar *grammar_from_regex(const char *pattern, size_t len, struct err *err)
{
    struct schema_compiler c;
    struct err own = {0};
    struct strbuf whole;

    compiler_init(&c, &own);
    strbuf_init(&whole, GRAMMAR_MAX_TEXT_BYTES);
    strbuf_puts(&whole, "^(?:");
    strbuf_add(&whole, pattern, len);
    strbuf_puts(&whole, ")$");
    if (strbuf_check(&whole, "the pattern", &own) != 0)
        gram_failed(&c.b);
    struct gram_dfa *d = c.b.failed ? NULL : gram_regex(&c.b, strbuf_str(&whole), whole.len);
    struct grammar *g = finish(&c, d ? gram_dfa_expr(&c.b, d, as_it_is) : 0);
    strbuf_fini(&whole);
    compiler_fini(&c);
    if (!g && err)
        *err = own;
    return g;
}

struct grammar *grammar_json_object(struct err *err)
{
    struct schema_compiler c;
    struct err own = {0};

    compiler_init(&c, &own);
    struct grammar *g = finish(&c, schema_any_object(&c));
    compiler_fini(&c);
    if (!g && err)
        *err = own;
    return g;
}

/* A part's schema; references in it are to places of its own. Those of another part are done before. */
static uint32_t part_expr(struct schema_compiler *c, const struct grammar_part *p)
{
    if (p->text)
        return gram_str(&c->b, p->text);
    if (!p->schema)
        return schema_any_object(c);
    c->root = p->schema;
    if (!json_is_object(p->schema) && !json_is_boolean(p->schema))
        return schema_refuse(c, p->where, "it is %s; a schema (an object, true or false) is expected", json_type_words(p->schema));
    uint32_t expr = schema_expr_for(c, p->schema, p->where, false);
    while (c->next_task < c->n_tasks && gram_goes_on(&c->b))
        run_task(c, c->tasks[c->next_task++]);
    return expr;
}

struct grammar *grammar_from_calls(const struct grammar_form *forms, size_t n_forms, const char *between, unsigned max_calls,
                                   struct err *err)
{
    struct schema_compiler c;
    struct err own = {0};
    struct gram_list all = {0};
    struct grammar *g = NULL;

    compiler_init(&c, &own);
    if (n_forms > GRAMMAR_MAX_FORMS) {
        err_set(&own, ERR_LIMIT, "%zu forms; at most %d are taken", n_forms, GRAMMAR_MAX_FORMS);
        gram_failed(&c.b);
    }
    for (size_t i = 0; i < n_forms && !c.b.failed; i++) {
        struct gram_list parts = {0};
        for (size_t k = 0; k < forms[i].n_parts && !c.b.failed; k++)
            gram_list_add(&c.b, &parts, part_expr(&c, &forms[i].parts[k]));
        gram_list_add(&c.b, &all, gram_list_seq(&c.b, &parts));
    }
    uint32_t one = gram_list_alt(&c.b, &all);
    if (max_calls > 1) {
        uint32_t rule = gram_rule_new(&c.b), more;
        gram_rule_set(&c.b, rule, one);
        one = gram_rule(&c.b, rule);
        more = gram_rep(&c.b, GRAM_SEQ_OF(&c.b, gram_str(&c.b, between ? between : ""), one), 0, max_calls - 1);
        one = GRAM_SEQ_OF(&c.b, one, more);
    }
    g = finish(&c, one);
    compiler_fini(&c);
    if (!g && err)
        *err = own;
    return g;
}
