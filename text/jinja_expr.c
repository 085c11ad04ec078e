/* Expressions: jinja2/parser.py's grammar, rule by rule, with chains as lists instead of left-deep trees. */
#include <string.h>

#include "text/jinja.h"
#include "text/jinja_parser.h"

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filter);
static struct jinja_node *parse_primary(struct jinja_parser *p, bool with_namespace);
static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *node);

static struct jinja_node *wrap(struct jinja_parser *p, enum jinja_kind kind, uint32_t line, struct jinja_node *a)
{
    struct jinja_node *n = a ? jinja_node_new(p, kind, line) : NULL;
    if (!n || jinja_adopt(p, n, a) != 0)
        return NULL;
    n->a = a;
    return n;
}

/* The body may ask for caller, kwargs and varargs; storing to such a name first makes it an ordinary one. */
static void note_name(struct jinja_parser *p, const struct jinja_str *name, bool store)
{
    static const char *const special[] = {"caller", "kwargs", "varargs"};
    for (unsigned i = 0; i < 3; i++)
        if (jinja_str_is(name, special[i]))
            for (struct jinja_scope *s = p->scope; s; s = s->outer) {
                if (store)
                    s->stored |= 1u << i;
                else if (!(s->stored & 1u << i))
                    s->wants |= 1u << i;
            }
}

static struct jinja_node *name_node(struct jinja_parser *p, bool store)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_NAME, p->tok.line);
    if (!n || !(n->name = jinja_intern(p, p->tok.s, p->tok.len)) || jinja_next(p) != 0)
        return NULL;
    note_name(p, n->name, store);
    return n;
}

/* --- calls -------------------------------------------------------------- */

/* One argument, with its kind in op. `seen`: kinds so far, as bits. */
static struct jinja_node *parse_arg(struct jinja_parser *p, struct jinja_node *call, unsigned *seen)
{
    struct jinja_node *arg = jinja_node_new(p, JINJA_N_ARG, p->tok.line);
    const struct jinja_token *ahead;
    unsigned forbidden;

    if (!arg)
        return NULL;
    arg->op = JINJA_ARG_POSITIONAL;
    forbidden = 1u << JINJA_ARG_KEYWORD | 1u << JINJA_ARG_STAR | 1u << JINJA_ARG_STAR_STAR;
    if (jinja_is_op(p, JINJA_OP1('*'))) {
        arg->op = JINJA_ARG_STAR;
        forbidden = 1u << JINJA_ARG_STAR | 1u << JINJA_ARG_STAR_STAR;
    } else if (jinja_is_op(p, JINJA_OP2('*', '*'))) {
        arg->op = JINJA_ARG_STAR_STAR;
        forbidden = 1u << JINJA_ARG_STAR_STAR;
    } else if (p->tok.type == JINJA_T_NAME) {
        if (!(ahead = jinja_peek(p)))
            return NULL;
        if (ahead->type == JINJA_T_OPERATOR && ahead->op == '=') {
            arg->op = JINJA_ARG_KEYWORD;
            forbidden = 1u << JINJA_ARG_STAR_STAR;
            if (!(arg->name = jinja_intern(p, p->tok.s, p->tok.len)) || jinja_next(p) != 0)
                return NULL;
            for (const struct jinja_node *n = call->list; n; n = n->next)
                if (n->name == arg->name)
                    return jinja_parse_error(p, "keyword argument repeated: %s", arg->name->s), NULL;
        }
    }
    if (*seen & forbidden)
        return jinja_parse_error(p, "invalid syntax for function call expression"), NULL;
    *seen |= 1u << arg->op;
    if (arg->op != JINJA_ARG_POSITIONAL && jinja_next(p) != 0)
        return NULL;
    if (!(arg->a = jinja_parse_expression(p, true)) || jinja_adopt(p, arg, arg->a) != 0)
        return NULL;
    return arg;
}

static int parse_args(struct jinja_parser *p, struct jinja_node *call)
{
    struct jinja_chain args = {0};
    unsigned seen = 0, n = 0;

    if (jinja_expect_op(p, '(') != 0)
        return -1;
    while (!jinja_is_op(p, ')')) {
        if (++n > JINJA_MAX_ARGS)
            return jinja_parse_error(p, "more than %d arguments", JINJA_MAX_ARGS);
        if (args.first) {
            if (jinja_expect_op(p, ',') != 0)
                return -1;
            if (jinja_is_op(p, ')'))
                break;
        }
        struct jinja_node *arg = parse_arg(p, call, &seen);
        if (!arg || jinja_append(p, call, &args, arg) != 0)
            return -1;
        call->list = args.first;
    }
    return jinja_expect_op(p, ')');
}

static struct jinja_node *parse_call(struct jinja_parser *p, struct jinja_node *callee)
{
    struct jinja_node *n = wrap(p, JINJA_N_CALL, p->tok.line, callee);
    return n && parse_args(p, n) == 0 ? n : NULL;
}

/* A filter's or test's name, dots included. */
static const struct jinja_str *dotted_name(struct jinja_parser *p)
{
    const char *from = p->tok.s, *to;
    int rc;
    if (p->tok.type != JINJA_T_NAME)
        return jinja_unexpected(p, "name"), NULL;
    to = from + p->tok.len;
    if (jinja_next(p) != 0)
        return NULL;
    while ((rc = jinja_accept_op(p, '.')) == 1) {
        if (p->tok.type != JINJA_T_NAME)
            return jinja_unexpected(p, "name"), NULL;
        to = p->tok.s + p->tok.len;
        if (jinja_next(p) != 0)
            return NULL;
    }
    return rc < 0 ? NULL : jinja_intern(p, from, (size_t)(to - from));
}

struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node, bool inline_start)
{
    while (inline_start || jinja_is_op(p, '|')) {
        struct jinja_node *n;
        if (!inline_start && jinja_next(p) != 0)
            return NULL;
        inline_start = false;
        if (!(n = jinja_node_new(p, JINJA_N_FILTER, p->tok.line)) || !(n->name = dotted_name(p)))
            return NULL;
        n->builtin = jinja_find_filter(n->name->s, n->name->len);
        if ((n->a = node) && jinja_adopt(p, n, node) != 0)
            return NULL;
        if (jinja_is_op(p, '(') && parse_args(p, n) != 0)
            return NULL;
        node = n;
    }
    return node;
}

static struct jinja_node *parse_test(struct jinja_parser *p, struct jinja_node *node)
{
    struct jinja_node *n = wrap(p, JINJA_N_TEST, p->tok.line, node), *arg;
    int negated;

    if (!n || jinja_next(p) != 0 || (negated = jinja_accept_name(p, "not")) < 0 || !(n->name = dotted_name(p)))
        return NULL;
    n->builtin = jinja_find_test(n->name->s, n->name->len);
    if (jinja_is_op(p, '(')) {
        if (parse_args(p, n) != 0)
            return NULL;
    } else if ((p->tok.type == JINJA_T_NAME && !jinja_is_name(p, "else") && !jinja_is_name(p, "or") && !jinja_is_name(p, "and")) ||
               p->tok.type == JINJA_T_STRING || p->tok.type == JINJA_T_INT || p->tok.type == JINJA_T_FLOAT || jinja_is_op(p, '[') ||
               jinja_is_op(p, '{')) {
        struct jinja_chain args = {0};
        if (jinja_is_name(p, "is"))
            return jinja_parse_error(p, "you cannot chain multiple tests with is"), NULL;
        if (!(arg = parse_primary(p, false)) || !(arg = parse_postfix(p, arg)) || !(arg = wrap(p, JINJA_N_ARG, arg->line, arg)))
            return NULL;
        arg->op = JINJA_ARG_POSITIONAL;
        if (jinja_append(p, n, &args, arg) != 0)
            return NULL;
        n->list = args.first;
    }
    return negated ? wrap(p, JINJA_N_NOT, n->line, n) : n;
}

/* --- subscripts --------------------------------------------------------- */

/* What stands between [ and ], as b, or as the b:c:d of a slice. */
static int parse_subscribed(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_node **parts[] = {&n->b, &n->c, &n->d};
    for (int i = 0; i < 3; i++) {
        if (!jinja_is_op(p, ':') && !jinja_is_op(p, ']') && !jinja_is_op(p, ',')) {
            if (!(*parts[i] = jinja_parse_expression(p, true)) || jinja_adopt(p, n, *parts[i]) != 0)
                return -1;
        } else if (i == 0 && !jinja_is_op(p, ':')) {
            return jinja_unexpected(p, "an index");
        }
        int colon = i < 2 ? jinja_accept_op(p, ':') : 0;
        if (colon < 0)
            return -1;
        if (!colon)
            break;
        n->kind = JINJA_N_SLICE;
    }
    return 0;
}

static struct jinja_node *parse_subscript(struct jinja_parser *p, struct jinja_node *node)
{
    bool dot = jinja_is_op(p, '.');
    struct jinja_node *n = wrap(p, dot ? JINJA_N_GETATTR : JINJA_N_GETITEM, p->tok.line, node);
    if (!n || jinja_next(p) != 0)
        return NULL;
    if (!dot) {
        if (parse_subscribed(p, n) != 0)
            return NULL;
        if (n->kind == JINJA_N_GETITEM && jinja_is_op(p, ',')) { /* a tuple as the key */
            struct jinja_node *tuple = jinja_node_new(p, JINJA_N_TUPLE, n->line);
            struct jinja_chain items = {0};
            if (!tuple || jinja_append(p, tuple, &items, n->b) != 0)
                return NULL;
            while (!jinja_is_op(p, ']')) {
                struct jinja_node *item;
                if (jinja_expect_op(p, ',') != 0 || !(item = jinja_parse_expression(p, true)) || jinja_append(p, tuple, &items, item) != 0)
                    return NULL;
            }
            tuple->list = items.first;
            n->b = tuple;
            if (jinja_adopt(p, n, tuple) != 0)
                return NULL;
        }
        return jinja_expect_op(p, ']') == 0 ? n : NULL;
    }
    if (p->tok.type == JINJA_T_NAME) {
        if (!(n->name = jinja_intern(p, p->tok.s, p->tok.len)) || jinja_next(p) != 0)
            return NULL;
        return n;
    }
    if (p->tok.type != JINJA_T_INT)
        return jinja_unexpected(p, "name or number"), NULL;
    n->kind = JINJA_N_GETITEM;
    if (!(n->b = jinja_node_new(p, JINJA_N_CONST, p->tok.line)))
        return NULL;
    n->b->value = jinja_int(p->tok.i);
    return jinja_next(p) == 0 && jinja_adopt(p, n, n->b) == 0 ? n : NULL;
}

static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *node)
{
    while (node) {
        if (jinja_is_op(p, '.') || jinja_is_op(p, '['))
            node = parse_subscript(p, node);
        else if (jinja_is_op(p, '('))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

static struct jinja_node *parse_filter_expr(struct jinja_parser *p, struct jinja_node *node)
{
    while (node) {
        if (jinja_is_op(p, '|'))
            node = jinja_parse_filters(p, node, false);
        else if (jinja_is_name(p, "is"))
            node = parse_test(p, node);
        else if (jinja_is_op(p, '('))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* --- literals ----------------------------------------------------------- */

static struct jinja_node *const_node(struct jinja_parser *p, struct jinja_value v)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_CONST, p->tok.line);
    if (!n || jinja_next(p) != 0)
        return NULL;
    n->value = v;
    return n;
}

/* Adjacent strings are one. */
static struct jinja_node *string_node(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node_new(p, JINJA_N_CONST, p->tok.line);
    const char *s = p->tok.s;
    size_t len = p->tok.len;
    if (!n || jinja_next(p) != 0)
        return NULL;
    while (p->tok.type == JINJA_T_STRING) {
        char *both = arena_alloc(p->arena, len + p->tok.len + 1, p->err);
        if (!both)
            return NULL;
        memcpy(both, s, len);
        memcpy(both + len, p->tok.s, p->tok.len);
        s = both;
        len += p->tok.len;
        if (jinja_next(p) != 0)
            return NULL;
    }
    struct jinja_str *str = arena_alloc(p->arena, sizeof *str, p->err);
    if (!str)
        return NULL;
    *str = (struct jinja_str){.s = s, .len = len, .n_chars = SIZE_MAX, .special = true};
    str->n_chars = jinja_str_chars(str);
    str->hash = jinja_hash_bytes(s, len);
    n->value = jinja_string(str);
    return n;
}

/* A list or dict: what stands between the brackets. */
static struct jinja_node *parse_items(struct jinja_parser *p, enum jinja_kind kind, unsigned closing)
{
    struct jinja_node *n = jinja_node_new(p, kind, p->tok.line), *item;
    struct jinja_chain items = {0};
    if (!n || jinja_next(p) != 0)
        return NULL;
    while (!jinja_is_op(p, closing)) {
        if (items.first && jinja_expect_op(p, ',') != 0)
            return NULL;
        if (jinja_is_op(p, closing))
            break;
        if (!(item = jinja_parse_expression(p, true)) || jinja_append(p, n, &items, item) != 0)
            return NULL;
        if (kind == JINJA_N_DICT &&
            (jinja_expect_op(p, ':') != 0 || !(item = jinja_parse_expression(p, true)) || jinja_append(p, n, &items, item) != 0))
            return NULL;
    }
    n->list = items.first;
    return jinja_expect_op(p, closing) == 0 ? n : NULL;
}

static struct jinja_node *parse_name_or_constant(struct jinja_parser *p, bool with_namespace)
{
    if (jinja_is_name(p, "true") || jinja_is_name(p, "True"))
        return const_node(p, jinja_bool(true));
    if (jinja_is_name(p, "false") || jinja_is_name(p, "False"))
        return const_node(p, jinja_bool(false));
    if (jinja_is_name(p, "none") || jinja_is_name(p, "None"))
        return const_node(p, jinja_none());
    const struct jinja_token *ahead = with_namespace ? jinja_peek(p) : NULL;
    if (with_namespace && !ahead)
        return NULL;
    bool dotted = ahead && ahead->type == JINJA_T_OPERATOR && ahead->op == '.';
    struct jinja_node *n = name_node(p, with_namespace && !dotted);
    if (n && dotted) {
        n->kind = JINJA_N_NSREF;
        if (jinja_next(p) != 0)
            return NULL;
        if (p->tok.type != JINJA_T_NAME)
            return jinja_unexpected(p, "name"), NULL;
        const struct jinja_str *attr = jinja_intern(p, p->tok.s, p->tok.len);
        if (!attr || jinja_next(p) != 0)
            return NULL;
        n->value = jinja_string(attr);
    }
    return n;
}

static struct jinja_node *parse_primary(struct jinja_parser *p, bool with_namespace)
{
    struct jinja_node *n = NULL;
    switch (p->tok.type) {
    case JINJA_T_NAME:
        n = parse_name_or_constant(p, with_namespace);
        break;
    case JINJA_T_STRING:
        n = string_node(p);
        break;
    case JINJA_T_INT:
        n = const_node(p, jinja_int(p->tok.i));
        break;
    case JINJA_T_FLOAT:
        n = const_node(p, jinja_float(p->tok.f));
        break;
    default:
        if (jinja_is_op(p, '(')) {
            if (jinja_next(p) == 0 && (n = jinja_parse_tuple(p, JINJA_TUPLE_PARENTHESES)) && jinja_expect_op(p, ')') != 0)
                n = NULL;
        } else if (jinja_is_op(p, '[')) {
            n = parse_items(p, JINJA_N_LIST, ']');
        } else if (jinja_is_op(p, '{')) {
            n = parse_items(p, JINJA_N_DICT, '}');
        } else {
            jinja_unexpected(p, "an expression");
        }
    }
    return n;
}

/* --- operators ---------------------------------------------------------- */

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filter)
{
    struct jinja_node *n;
    uint32_t line = p->tok.line;
    if (jinja_is_op(p, '-') || jinja_is_op(p, '+')) {
        enum jinja_kind kind = jinja_is_op(p, '-') ? JINJA_N_NEG : JINJA_N_POS;
        if (jinja_deeper(p) != 0)
            return NULL;
        n = jinja_next(p) == 0 ? parse_unary(p, false) : NULL;
        jinja_shallower(p);
        n = wrap(p, kind, line, n);
    } else {
        n = parse_primary(p, false);
    }
    n = parse_postfix(p, n);
    return with_filter ? parse_filter_expr(p, n) : n;
}

struct level { /* a rank of binary operators */
    enum jinja_kind kind;
    struct {
        unsigned token;
        enum jinja_op op;
    } ops[6];
};
static const struct level levels[] = {
    {JINJA_N_COMPARE,
     {{JINJA_OP2('=', '='), JINJA_OP_EQ},
      {JINJA_OP2('!', '='), JINJA_OP_NE},
      {'<', JINJA_OP_LT},
      {JINJA_OP2('<', '='), JINJA_OP_LE},
      {'>', JINJA_OP_GT},
      {JINJA_OP2('>', '='), JINJA_OP_GE}}},
    {JINJA_N_MATH, {{'+', JINJA_OP_ADD}, {'-', JINJA_OP_SUB}}},
    {JINJA_N_CONCAT, {{'~', JINJA_OP_ADD}}},
    {JINJA_N_MATH, {{'*', JINJA_OP_MUL}, {'/', JINJA_OP_DIV}, {JINJA_OP2('/', '/'), JINJA_OP_FLOORDIV}, {'%', JINJA_OP_MOD}}},
    {JINJA_N_MATH, {{JINJA_OP2('*', '*'), JINJA_OP_POW}}},
};
enum { N_LEVELS = sizeof levels / sizeof *levels };

/* Takes an operator of the level if one is next: 1 and its op, 0, -1. */
static int take_operator(struct jinja_parser *p, const struct level *l, enum jinja_op *ret)
{
    if (l->kind == JINJA_N_COMPARE && p->tok.type == JINJA_T_NAME) {
        if (jinja_is_name(p, "in")) {
            *ret = JINJA_OP_IN;
            return jinja_next(p) == 0 ? 1 : -1;
        }
        if (jinja_is_name(p, "not")) {
            const struct jinja_token *ahead = jinja_peek(p);
            if (!ahead)
                return -1;
            if (ahead->type != JINJA_T_NAME || ahead->len != 2 || memcmp(ahead->s, "in", 2) != 0)
                return 0;
            *ret = JINJA_OP_NOT_IN;
            return jinja_next(p) == 0 && jinja_next(p) == 0 ? 1 : -1;
        }
        return 0;
    }
    for (size_t i = 0; i < sizeof l->ops / sizeof *l->ops && l->ops[i].token; i++)
        if (jinja_is_op(p, l->ops[i].token)) {
            *ret = l->ops[i].op;
            return jinja_next(p) == 0 ? 1 : -1;
        }
    return 0;
}

static struct jinja_node *parse_level(struct jinja_parser *p, unsigned level)
{
    uint32_t line = p->tok.line;
    struct jinja_node *left, *n = NULL;
    struct jinja_chain chain = {0};
    enum jinja_op op;
    int rc;

    if (level == N_LEVELS)
        return parse_unary(p, true);
    if (!(left = parse_level(p, level + 1)))
        return NULL;
    while ((rc = take_operator(p, &levels[level], &op)) == 1) {
        struct jinja_node *right = parse_level(p, level + 1);
        if (!right)
            return NULL;
        if (!n) {
            if (!(n = wrap(p, levels[level].kind, line, left)))
                return NULL;
            if (n->kind == JINJA_N_CONCAT) { /* all in the list */
                n->a = NULL;
                if (jinja_append(p, n, &chain, left) != 0)
                    return NULL;
            }
        }
        right->op = (uint8_t)op;
        if (jinja_append(p, n, &chain, right) != 0)
            return NULL;
        n->list = chain.first;
    }
    return rc < 0 ? NULL : n ? n : left;
}

static struct jinja_node *parse_not(struct jinja_parser *p)
{
    uint32_t line = p->tok.line;
    struct jinja_node *n;
    if (!jinja_is_name(p, "not"))
        return parse_level(p, 0);
    if (jinja_deeper(p) != 0)
        return NULL;
    n = jinja_next(p) == 0 ? parse_not(p) : NULL;
    jinja_shallower(p);
    return wrap(p, JINJA_N_NOT, line, n);
}

/* a and b and c; one level up, or. */
static struct jinja_node *parse_logic(struct jinja_parser *p, enum jinja_kind kind)
{
    const char *word = kind == JINJA_N_OR ? "or" : "and";
    uint32_t line = p->tok.line;
    struct jinja_chain chain = {0};
    struct jinja_node *n = NULL, *item = NULL;
    int rc;

    do {
        item = kind == JINJA_N_OR ? parse_logic(p, JINJA_N_AND) : parse_not(p);
        if (!item || (rc = jinja_accept_name(p, word)) < 0)
            return NULL;
        if (!n && !rc)
            return item;
        if (!n && !(n = jinja_node_new(p, kind, line)))
            return NULL;
        if (jinja_append(p, n, &chain, item) != 0)
            return NULL;
    } while (rc);
    n->list = chain.first;
    return n;
}

struct jinja_node *jinja_parse_expression(struct jinja_parser *p, bool with_condition)
{
    uint32_t line = p->tok.line;
    struct jinja_node *n, *cond;
    int rc = 0;

    if (jinja_deeper(p) != 0)
        return NULL;
    n = parse_logic(p, JINJA_N_OR);
    bool may = n && with_condition;
    while (may && (rc = jinja_accept_name(p, "if")) == 1) {
        if (!(cond = wrap(p, JINJA_N_COND, line, parse_logic(p, JINJA_N_OR))) || jinja_adopt(p, cond, n) != 0) {
            rc = -1;
            break;
        }
        cond->b = n;
        n = cond;
        if ((rc = jinja_accept_name(p, "else")) < 0)
            break;
        if (rc && (!(n->c = jinja_parse_expression(p, true)) || jinja_adopt(p, n, n->c) != 0)) {
            rc = -1;
            break;
        }
    }
    jinja_shallower(p);
    return rc < 0 ? NULL : n;
}

/* --- tuples and targets ------------------------------------------------- */

struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, unsigned flags)
{
    uint32_t line = p->tok.line;
    struct jinja_chain items = {0};
    struct jinja_node *tuple = NULL, *item;

    for (;;) {
        if (items.first && jinja_expect_op(p, ',') != 0)
            return NULL;
        if (p->tok.type == JINJA_T_PRINT_END || p->tok.type == JINJA_T_BLOCK_END || jinja_is_op(p, ')'))
            break;
        item = flags & JINJA_TUPLE_NAMES ? parse_primary(p, flags & JINJA_TUPLE_NAMESPACE)
                                         : jinja_parse_expression(p, !(flags & JINJA_TUPLE_NO_CONDITION));
        if (!item)
            return NULL;
        if (!tuple && !jinja_is_op(p, ','))
            return item;
        if (!tuple && !(tuple = jinja_node_new(p, JINJA_N_TUPLE, line)))
            return NULL;
        if (jinja_append(p, tuple, &items, item) != 0)
            return NULL;
        if (!jinja_is_op(p, ','))
            break;
    }
    if (!tuple) {
        if (!(flags & JINJA_TUPLE_PARENTHESES))
            return jinja_unexpected(p, "an expression"), NULL;
        tuple = jinja_node_new(p, JINJA_N_TUPLE, line);
    }
    if (tuple)
        tuple->list = items.first;
    return tuple;
}

static int check_target(struct jinja_parser *p, const struct jinja_node *n)
{
    if (n->kind == JINJA_N_TUPLE) {
        for (const struct jinja_node *item = n->list; item; item = item->next)
            if (check_target(p, item) != 0)
                return -1;
        return 0;
    }
    if (n->kind != JINJA_N_NAME && n->kind != JINJA_N_NSREF)
        return jinja_parse_error(p, "can't assign to this");
    if (n->kind == JINJA_N_NAME) {
        if (p->loops && jinja_str_is(n->name, "loop"))
            return jinja_parse_error(p, "can't assign to special loop variable in for-loop target");
        note_name(p, n->name, true);
    }
    return 0;
}

struct jinja_node *jinja_parse_target(struct jinja_parser *p, bool with_namespace)
{
    struct jinja_scope *scope = p->scope;
    p->scope = NULL; /* these names are stored, not asked for */
    struct jinja_node *n = jinja_parse_tuple(p, JINJA_TUPLE_NAMES | (with_namespace ? JINJA_TUPLE_NAMESPACE : 0));
    p->scope = scope;
    return n && check_target(p, n) == 0 ? n : NULL;
}

struct jinja_node *jinja_parse_name(struct jinja_parser *p)
{
    if (p->tok.type != JINJA_T_NAME)
        return jinja_unexpected(p, "name"), NULL;
    return name_node(p, true);
}
