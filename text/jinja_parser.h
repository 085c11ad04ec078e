#ifndef TEXT_JINJA_PARSER_H
#define TEXT_JINJA_PARSER_H

/* What the parser's two files share: jinja_parse.c has the statements, jinja_expr.c the expressions. */

#include "text/jinja_lex.h"

struct jinja_name { /* an interned name */
    struct jinja_name *next;
    struct jinja_str str;
};

/* A macro or call block being parsed: whether its body asks for caller, kwargs, varargs. */
struct jinja_scope {
    struct jinja_scope *outer;
    unsigned wants, stored; /* JINJA_WANTS_… */
};

struct jinja_parser {
    struct jinja_lexer lx;
    struct jinja_token tok, ahead;
    bool has_ahead;
    struct arena *arena;
    struct err *err;
    unsigned nesting;
    unsigned loops;     /* for loops around this place: `loop` must not be assigned */
    unsigned breakable; /* the same, since the innermost macro began: break and continue are allowed */
    struct jinja_scope *scope;
    struct jinja_name **names;
    size_t n_names, cap_names;
    struct jinja_node *blocks; /* linked by alt */
};

/* A list being built. */
struct jinja_chain {
    struct jinja_node *first, *last;
};

int jinja_next(struct jinja_parser *p);
bool jinja_is_op(const struct jinja_parser *p, unsigned op);
bool jinja_is_name(const struct jinja_parser *p, const char *name);
const struct jinja_token *jinja_peek(struct jinja_parser *p); /* NULL on failure */
int jinja_accept_op(struct jinja_parser *p, unsigned op);     /* 1 taken, 0 not there, -1 */
int jinja_accept_name(struct jinja_parser *p, const char *name);
int jinja_expect_op(struct jinja_parser *p, unsigned op);
int jinja_parse_error(struct jinja_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int jinja_unexpected(struct jinja_parser *p, const char *wanted);
struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_kind kind, uint32_t line);
/* Adopts a child's depth; -1 when the tree gets too deep. */
int jinja_adopt(struct jinja_parser *p, struct jinja_node *parent, const struct jinja_node *child);
int jinja_append(struct jinja_parser *p, struct jinja_node *parent, struct jinja_chain *chain, struct jinja_node *child);
const struct jinja_str *jinja_intern(struct jinja_parser *p, const char *s, size_t len);
int jinja_deeper(struct jinja_parser *p);
void jinja_shallower(struct jinja_parser *p);

/* All return NULL on failure. */
struct jinja_node *jinja_parse_expression(struct jinja_parser *p, bool with_condition);
enum { JINJA_TUPLE_NAMES = 1, JINJA_TUPLE_NO_CONDITION = 2, JINJA_TUPLE_PARENTHESES = 4, JINJA_TUPLE_NAMESPACE = 8 };
struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, unsigned flags);
struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node, bool inline_start);
struct jinja_node *jinja_parse_target(struct jinja_parser *p, bool with_namespace);
struct jinja_node *jinja_parse_name(struct jinja_parser *p); /* as a target */

#endif
