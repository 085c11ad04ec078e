#ifndef TEXT_JINJA_LEX_H
#define TEXT_JINJA_LEX_H

/* Cuts a template into tokens, and does what Jinja2 does on that level: trim_blocks, lstrip_blocks, the - and + signs, raw
 * blocks, comments, newlines of all kinds. One token a call; the parser alone uses this. */

#include "text/jinja_ast.h"

enum jinja_token_type {
    JINJA_T_EOF,
    JINJA_T_DATA,
    JINJA_T_PRINT_BEGIN, /* {{ */
    JINJA_T_PRINT_END,
    JINJA_T_BLOCK_BEGIN, /* {% */
    JINJA_T_BLOCK_END,
    JINJA_T_NAME,
    JINJA_T_STRING, /* unescaped */
    JINJA_T_INT,
    JINJA_T_FLOAT,
    JINJA_T_OPERATOR, /* op: its characters, the first one in the low byte */
};
#define JINJA_OP1(a) ((unsigned)(a))
#define JINJA_OP2(a, b) ((unsigned)(a) | (unsigned)(b) << 8)

struct jinja_token {
    enum jinja_token_type type;
    uint32_t line, column;
    unsigned op;
    const char *s; /* DATA, NAME, STRING; within the source or the arena */
    size_t len;
    int64_t i;
    double f;
};

enum {
    JINJA_MAX_BRACKETS = 4 * JINJA_MAX_NESTING,
    JINJA_MAX_ARGS = 1000, /* of one call or macro */
    JINJA_MAX_NAMES = 16384,
};

struct jinja_lexer {
    struct arena *arena;
    struct err *err;
    const char *src; /* newlines are \n */
    size_t len, pos;
    size_t counted; /* up to here lines are counted */
    size_t line_start;
    uint32_t line;
    enum { JINJA_IN_DATA, JINJA_AT_TAG, JINJA_IN_RAW, JINJA_IN_PRINT, JINJA_IN_BLOCK } state;
    enum jinja_token_type tag; /* what comes after the data, for AT_TAG */
    bool line_starting;
    char brackets[JINJA_MAX_BRACKETS]; /* the closing ones that are due */
    size_t n_brackets;
};

int jinja_lexer_init(struct jinja_lexer *lx, struct arena *arena, const char *source, size_t len, struct err *err);
int jinja_lexer_next(struct jinja_lexer *lx, struct jinja_token *ret);
/* -1, with the place in the message. */
int jinja_syntax_error(struct err *err, uint32_t line, uint32_t column, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
