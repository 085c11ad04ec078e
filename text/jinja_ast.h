#ifndef TEXT_JINJA_AST_H
#define TEXT_JINJA_AST_H

/* A compiled template: its tree. Made by the parser, walked by the interpreter, never changed in between. Chains (a + b + c,
 * elif) are lists, and what is left of nesting is bounded by JINJA_MAX_NESTING, so that walking it recursively is safe. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/jinja_value.h"

enum { JINJA_MAX_NESTING = 100 };

enum jinja_kind {
    /* expressions */
    JINJA_N_CONST,   /* value */
    JINJA_N_NAME,    /* name */
    JINJA_N_LIST,    /* list: items */
    JINJA_N_TUPLE,   /* list: items */
    JINJA_N_DICT,    /* list: key, value, key, value… */
    JINJA_N_GETATTR, /* a . name */
    JINJA_N_GETITEM, /* a [ b ] */
    JINJA_N_SLICE,   /* a [ b : c : d ], each of b, c, d may be NULL */
    JINJA_N_CALL,    /* a ( list ) */
    JINJA_N_FILTER,  /* a | name ( list ); a NULL: the block's text */
    JINJA_N_TEST,    /* a is name ( list ) */
    JINJA_N_NOT,     /* a */
    JINJA_N_NEG,
    JINJA_N_POS,
    JINJA_N_AND, /* list */
    JINJA_N_OR,
    JINJA_N_COMPARE, /* a, list: each with its op */
    JINJA_N_MATH,    /* a, list: each with its op */
    JINJA_N_CONCAT,  /* list */
    JINJA_N_COND,    /* b if a else c (NULL) */
    JINJA_N_NSREF,   /* name . attr (in `value`) as a target */
    JINJA_N_ARG,     /* in a call's list: a; op says which kind, name the keyword */
    /* statements */
    JINJA_N_DATA,         /* value */
    JINJA_N_PRINT,        /* list */
    JINJA_N_IF,           /* list: branches */
    JINJA_N_BRANCH,       /* if a (NULL: else) then body */
    JINJA_N_FOR,          /* a: target, b: iterable, c: condition; body; alt: else; flag: recursive */
    JINJA_N_SET,          /* a = b */
    JINJA_N_SET_BLOCK,    /* a: target, b: filter (NULL), body */
    JINJA_N_MACRO,        /* name; list: PARAMs; body; wants: JINJA_WANTS_… */
    JINJA_N_PARAM,        /* name, a: default */
    JINJA_N_CALL_BLOCK,   /* like MACRO; a: the call */
    JINJA_N_FILTER_BLOCK, /* a: filter, body */
    JINJA_N_WITH,         /* list: SETs; body */
    JINJA_N_SCOPE,        /* body */
    JINJA_N_BLOCK,        /* name, body; flag: scoped; op: required */
    JINJA_N_BREAK,
    JINJA_N_CONTINUE,
    JINJA_N_UNSUPPORTED, /* name: include, import, from, extends */
};

enum jinja_op {
    JINJA_OP_ADD,
    JINJA_OP_SUB,
    JINJA_OP_MUL,
    JINJA_OP_DIV,
    JINJA_OP_FLOORDIV,
    JINJA_OP_MOD,
    JINJA_OP_POW,
    JINJA_OP_EQ,
    JINJA_OP_NE,
    JINJA_OP_LT,
    JINJA_OP_LE,
    JINJA_OP_GT,
    JINJA_OP_GE,
    JINJA_OP_IN,
    JINJA_OP_NOT_IN,
    JINJA_ARG_POSITIONAL,
    JINJA_ARG_KEYWORD,
    JINJA_ARG_STAR,
    JINJA_ARG_STAR_STAR,
};

enum { JINJA_WANTS_CALLER = 1, JINJA_WANTS_KWARGS = 2, JINJA_WANTS_VARARGS = 4 };

struct jinja_node {
    uint8_t kind; /* enum jinja_kind */
    uint8_t op;   /* enum jinja_op, of this node within its chain */
    uint8_t wants;
    bool flag;
    uint16_t depth; /* of the tree below */
    uint32_t line;
    const struct jinja_str *name; /* interned: equal names are the same pointer */
    struct jinja_node *next;      /* in the list it belongs to */
    struct jinja_node *a, *b, *c, *d;
    struct jinja_node *list, *body, *alt;
    union {
        struct jinja_value value;
        const struct jinja_builtin *builtin; /* FILTER, TEST: NULL if unknown (an error once it is run) */
    };
};

enum { JINJA_N_SPECIAL_NAMES = 4 }; /* caller, kwargs, varargs, loop: what the interpreter itself sets */
struct jinja_tree {
    const struct jinja_node *root;
    const struct jinja_str *special_names[JINJA_N_SPECIAL_NAMES];
};
/* Parses a whole template into the arena. -1 and an error with line and column. */
int jinja_parse(struct arena *arena, const char *source, size_t len, struct jinja_tree *ret, struct err *err);

#endif
