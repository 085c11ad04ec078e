#ifndef TEXT_GRAM_H
#define TEXT_GRAM_H

/* What the parts of the grammar compiler share; grammar.h is the contract to the outside. Front ends (gram_gbnf.c,
 * gram_schema.c with gram_string.c, gram_regex.c and gram_number.c) build expressions and rules with a gram_builder;
 * gram_compile.c makes them one automaton: nodes with edges over bytes, and calls of rules; gram_walk.c runs it,
 * gram_mask.c runs it over a vocabulary. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/grammar.h"

enum { GRAM_NONE = UINT32_MAX, GRAM_ANY_NUMBER = UINT32_MAX, GRAM_MAX_CHAR = 0x10FFFF };

/* --- building -------------------------------------------------------------------------------------------------------- */
enum gram_kind {
    GRAM_EMPTY, /* matches the empty text */
    GRAM_NEVER, /* matches nothing */
    GRAM_TEXT,  /* bytes [a, a + b) of `text` */
    GRAM_SET,   /* one character of ranges [a, a + b) */
    GRAM_SEQ,   /* ids [a, a + b) */
    GRAM_ALT,
    GRAM_REP,   /* expression a, b to c times */
    GRAM_RULE,  /* rule a */
    GRAM_GRAPH, /* edges [a, a + b) between c states, of which 0 is the first and c (one more) the end */
};

struct gram_expr {
    enum gram_kind kind;
    uint32_t a, b, c;
};

struct gram_range {
    uint32_t lo, hi;
};

struct gram_graph_edge {
    uint32_t from, expr, to;
};

/* Functions return ids of expressions. The first failure is kept (`failed`, err) and all later calls do nothing and return
 * GRAM_EMPTY's id 0, so that a front end looks once at its end, or where it loops. */
struct gram_builder {
    struct err *err;
    bool failed;
    struct timespec began; /* of processor time */
    unsigned n_looked;
    struct gram_expr *exprs;
    size_t n_exprs, cap_exprs;
    char *text;
    size_t n_text, cap_text;
    struct gram_range *ranges;
    size_t n_ranges, cap_ranges;
    uint32_t *ids;
    size_t n_ids, cap_ids;
    struct gram_graph_edge *graph;
    size_t n_graph, cap_graph;
    uint32_t *rules; /* the expression of each; GRAM_NONE: not yet defined */
    size_t n_rules, cap_rules;
};

void gram_builder_init(struct gram_builder *b, struct err *err);
void gram_builder_fini(struct gram_builder *b);
/* Remembers that it failed; err was set. Returns 0. */
uint32_t gram_failed(struct gram_builder *b);
/* Whether to go on: nothing failed, and there is time left. To be asked in every loop whose length comes from outside. */
bool gram_goes_on(struct gram_builder *b);

uint32_t gram_empty(struct gram_builder *b);
uint32_t gram_never(struct gram_builder *b);
uint32_t gram_text(struct gram_builder *b, const char *s, size_t len);
uint32_t gram_str(struct gram_builder *b, const char *s);
/* One character; ranges in any order, overlapping or not. Surrogates are taken out. */
uint32_t gram_set(struct gram_builder *b, const struct gram_range *ranges, size_t n, bool negated);
uint32_t gram_seq(struct gram_builder *b, const uint32_t *ids, size_t n);
uint32_t gram_alt(struct gram_builder *b, const uint32_t *ids, size_t n);
#define GRAM_SEQ_OF(b, ...) gram_seq(b, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
#define GRAM_ALT_OF(b, ...) gram_alt(b, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
/* A list that grows; made one expression it is freed. */
struct gram_list {
    uint32_t *ids;
    size_t n, cap;
};
void gram_list_add(struct gram_builder *b, struct gram_list *l, uint32_t id);
uint32_t gram_list_seq(struct gram_builder *b, struct gram_list *l);
uint32_t gram_list_alt(struct gram_builder *b, struct gram_list *l);
uint32_t gram_rep(struct gram_builder *b, uint32_t expr, uint32_t min, uint32_t max);
uint32_t gram_graph(struct gram_builder *b, const struct gram_graph_edge *edges, size_t n, uint32_t n_states);
/* A new rule's number; its expression may be set later. */
uint32_t gram_rule_new(struct gram_builder *b);
void gram_rule_set(struct gram_builder *b, uint32_t rule, uint32_t expr);
uint32_t gram_rule(struct gram_builder *b, uint32_t rule);

/* Sorted and merged in place, surrogates taken out, complemented if negated; room for 2 * n + 3. Returns their number. */
size_t gram_ranges_normalize(struct gram_range *ranges, size_t n, bool negated);

/* --- the automaton --------------------------------------------------------------------------------------------------- */
enum { GRAM_EDGE_BYTES = UINT32_MAX, GRAM_EDGE_EMPTY = UINT32_MAX - 1 };

struct gram_edge {
    uint32_t to;
    uint32_t rule; /* that is called on the way; or GRAM_EDGE_… */
    uint8_t lo, hi;
};

enum gram_node_flags {
    GRAM_FINAL = 1, /* its rule ends here */
    GRAM_TAIL = 2,  /* and nothing else: who would return here can return to where its rule returns */
};

struct grammar {
    _Atomic unsigned holders;
    uint32_t n_nodes, n_edges, n_rules, root;
    uint32_t *first;   /* edges of node i: [first[i], first[i + 1]), those over bytes before the others */
    uint32_t *n_bytes; /* how many of these are over bytes */
    uint8_t *flags;
    struct gram_edge *edges;
    uint32_t *starts;     /* a rule's first node */
    uint8_t classes[256]; /* bytes that no edge tells apart have the same number */
    unsigned n_classes;
};

/* Consumes nothing; NULL and b's err. name_of (NULL allowed) tells rules in messages. */
struct grammar *gram_compile(struct gram_builder *b, uint32_t root, const char *(*name_of)(void *arg, uint32_t rule), void *arg);

/* --- regular languages over characters --------------------------------------------------------------------------------- */
/* For what must hold at once: a pattern and a length, a range and a divisor. Complete automata over classes of characters. */
enum { GRAM_DFA_MAX_STATES = 1 << 15, GRAM_DFA_MAX_CELLS = 1 << 20 };

struct gram_dfa {
    uint32_t n_states, n_classes; /* state 0 is the first */
    uint32_t *next;               /* n_states × n_classes */
    uint8_t *accepts;
    struct gram_range *ranges; /* all characters, in order, each with its class */
    uint32_t *class_of;
    uint32_t n_ranges;
};
/* Of an expression without rules. All return NULL after a failure (the builder's). */
struct gram_dfa *gram_dfa_of(struct gram_builder *b, uint32_t expr);
enum gram_dfa_op { GRAM_DFA_AND, GRAM_DFA_WITHOUT };
/* Consumes x; the second consumes both. */
struct gram_dfa *gram_dfa_with(struct gram_builder *b, struct gram_dfa *x, const struct gram_dfa *y, enum gram_dfa_op op);
struct gram_dfa *gram_dfa_combine(struct gram_builder *b, struct gram_dfa *x, struct gram_dfa *y, enum gram_dfa_op op);
/* Only texts of min to max characters (GRAM_ANY_NUMBER: no most). Consumes. */
struct gram_dfa *gram_dfa_length(struct gram_builder *b, struct gram_dfa *d, uint32_t min, uint32_t max);
/* The same with as few states as can be. */
void gram_dfa_minimize(struct gram_builder *b, struct gram_dfa *d);
bool gram_dfa_matches(const struct gram_dfa *d, const char *s, size_t len);
/* An expression for it, each character made one by `encode` (as it is, or as JSON writes it). Consumes. GRAM_NEVER if it is empty. */
uint32_t gram_dfa_expr(struct gram_builder *b, struct gram_dfa *d,
                       uint32_t (*encode)(struct gram_builder *b, const struct gram_range *r, size_t n));
void gram_dfa_free(struct gram_dfa *d);

/* --- strings and numbers of schemas -------------------------------------------------------------------------------------- */
/* The texts that an ECMA pattern matches anywhere in them. NULL after a failure, whose text says what of the pattern. */
struct gram_dfa *gram_regex(struct gram_builder *b, const char *pattern, size_t len);
/* A well-known format's pattern; NULL: not one of them. */
const char *gram_format(const char *name);

/* What a JSON string may hold. */
struct gram_string {
    uint32_t min, max;    /* characters; GRAM_ANY_NUMBER: no most */
    struct gram_dfa *dfa; /* NULL: anything */
};
/* One character of any JSON string; a whole one, with its quotes, by the constraint (consumed); one of exactly this text. */
uint32_t gram_json_char(struct gram_builder *b);
uint32_t gram_json_string(struct gram_builder *b, struct gram_string *s);
uint32_t gram_json_text(struct gram_builder *b, const char *s, size_t len);

/* A bound as a decimal number in digits. */
enum { GRAM_DECIMAL_DIGITS = 32 };
struct gram_bound {
    bool set, exclusive, negative;
    char whole[GRAM_DECIMAL_DIGITS + 1];    /* without leading zeros; "0" */
    char fraction[GRAM_DECIMAL_DIGITS + 1]; /* without trailing zeros */
};
/* -1: more digits than that, or beyond what numbers are written with here. */
int gram_bound_of(const json_t *number, struct gram_bound *ret);
/* -1, 0, 1. Of two bounds that are set. */
int gram_bound_compare(const struct gram_bound *a, const struct gram_bound *b);
uint32_t gram_integer(struct gram_builder *b, const struct gram_bound *low, const struct gram_bound *high, uint32_t multiple_of);
uint32_t gram_number(struct gram_builder *b, const struct gram_bound *low, const struct gram_bound *high);

#endif
