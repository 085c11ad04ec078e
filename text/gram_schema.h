#ifndef TEXT_GRAM_SCHEMA_H
#define TEXT_GRAM_SCHEMA_H

/* What gram_schema.c (from a schema to rules), gram_merge.c (several schemas that hold at once to one), gram_value.c (strings,
 * numbers, enums) and gram_parts.c (arrays, objects) share. */

#include <jansson.h>

#include "text/gram.h"

enum {
    SCHEMA_MAX_ALTERNATIVES = 1024, /* of anyOf, those of several multiplied */
    SCHEMA_MAX_PATTERNS = 4,        /* patternProperties of one object: each doubles what is to be told apart */
    SCHEMA_MAX_MEMORY = 16 << 20,   /* paths, made schemas */
    SCHEMA_MAX_MERGES = 1 << 13,
    SCHEMA_MAX_MULTIPLE = 1000, /* so many states for each digit */
};

/* A schema that is waiting to become a rule. */
struct schema_task {
    const json_t *schema;
    const char *path;
    uint32_t rule;
};

struct schema_memo {
    const void *key; /* the schema; or, of those made here, their text */
    size_t len;      /* of a text; 0: a schema */
    uint32_t rule;
};

struct schema_compiler {
    struct gram_builder b;
    const json_t *root;
    struct arena memory; /* paths, texts */
    json_t *made;        /* an array that holds what was made here */
    unsigned n_merges;
    struct schema_task *tasks;
    size_t n_tasks, next_task, cap_tasks;
    struct schema_memo *memo; /* hashed; rule GRAM_NONE: free */
    size_t n_memo, cap_memo;
    uint32_t space, value, object, string; /* rules for what schemas leave open; GRAM_NONE: not made yet */
};

/* Refuses, at a path. Returns 0; schema_null for functions that return pointers. */
uint32_t schema_refuse(struct schema_compiler *c, const char *path, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "PATH.key", "PATH[i]". NULL after a failure. */
const char *schema_path(struct schema_compiler *c, const char *path, const char *key);
const char *schema_path_at(struct schema_compiler *c, const char *path, const char *key, size_t i);
/* Keeps a new reference until the end; the same, borrowed. NULL (a failure) stays. */
json_t *schema_keep(struct schema_compiler *c, json_t *made);

/* gram_merge.c: the schema without $ref, allOf, oneOf (now anyOf), const (now enum), and with "pattern" and "format" as lists;
 * annotations gone, keywords checked for their types. What cannot be said is refused. Of a schema that nothing can satisfy: false.
 * Borrowed; NULL after a failure. */
json_t *schema_flatten(struct schema_compiler *c, const json_t *schema, const char *path);
/* Both at once, of two that were flattened. */
json_t *schema_merge(struct schema_compiler *c, json_t *a, json_t *b, const char *path);
/* What a $ref means. */
const json_t *schema_resolve(struct schema_compiler *c, const char *ref, const char *path);
/* {"allOf": [a, b]}, or one of them where the other says nothing. */
json_t *schema_both(struct schema_compiler *c, json_t *a, json_t *b);
/* A schema whose only word is its $ref. */
const char *schema_only_ref(const json_t *schema);

/* gram_schema.c: the expression of a schema: of its rule, made when its turn comes. made: put together here, so that equal ones are
 * told by what they say. */
uint32_t schema_expr_for(struct schema_compiler *c, const json_t *schema, const char *path, bool made);
uint32_t schema_part_for(struct schema_compiler *c, const json_t *schema, const char *path);

/* gram_value.c: what stands between parts, and what a schema leaves open; then by what a flattened schema says. */
uint32_t schema_space(struct schema_compiler *c);
uint32_t schema_colon(struct schema_compiler *c);
uint32_t schema_comma(struct schema_compiler *c);
uint32_t schema_words(struct schema_compiler *c); /* true, false */
uint32_t schema_any_string(struct schema_compiler *c);
uint32_t schema_any_object(struct schema_compiler *c);
uint32_t schema_any_value(struct schema_compiler *c);
uint32_t schema_string(struct schema_compiler *c, const json_t *flat, const char *path);
uint32_t schema_number(struct schema_compiler *c, const json_t *flat, const char *path, bool integer);
uint32_t schema_enum(struct schema_compiler *c, const json_t *flat, const char *path);
/* One more pattern that must hold; `what` is its keyword, for messages. */
void schema_add_pattern(struct schema_compiler *c, struct gram_string *s, const char *pattern, size_t len, const char *path,
                        const char *what);

/* gram_parts.c */
uint32_t schema_array(struct schema_compiler *c, const json_t *flat, const char *path);
uint32_t schema_object(struct schema_compiler *c, const json_t *flat, const char *path);
bool schema_has_name(const json_t *list, const char *name);

#endif
