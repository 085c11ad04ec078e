/* Statements: jinja2/parser.py's, with loop controls and `generation` blocks; and what the parser is made of. A last pass
 * over the tree does what Jinja2's compiler checks: unknown filters and tests outside of conditions. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja.h"
#include "text/jinja_parser.h"

static int parse_body(struct jinja_parser *p, struct jinja_node *parent, struct jinja_node **ret, const char *const *ends);

/* --- the parser's tools ------------------------------------------------- */

int jinja_next(struct jinja_parser *p)
{
    if (p->has_ahead) {
        p->tok = p->ahead;
        p->has_ahead = false;
        return 0;
    }
    return jinja_lexer_next(&p->lx, &p->tok);
}

const struct jinja_token *jinja_peek(struct jinja_parser *p)
{
    if (!p->has_ahead) {
        if (jinja_lexer_next(&p->lx, &p->ahead) != 0)
            return NULL;
        p->has_ahead = true;
    }
    return &p->ahead;
}

bool jinja_is_op(const struct jinja_parser *p, unsigned op)
{
    return p->tok.type == JINJA_T_OPERATOR && p->tok.op == op;
}

bool jinja_is_name(const struct jinja_parser *p, const char *name)
{
    return p->tok.type == JINJA_T_NAME && p->tok.len == strlen(name) && memcmp(p->tok.s, name, p->tok.len) == 0;
}

int jinja_accept_op(struct jinja_parser *p, unsigned op)
{
    if (!jinja_is_op(p, op))
        return 0;
    return jinja_next(p) == 0 ? 1 : -1;
}

int jinja_accept_name(struct jinja_parser *p, const char *name)
{
    if (!jinja_is_name(p, name))
        return 0;
    return jinja_next(p) == 0 ? 1 : -1;
}

int jinja_expect_op(struct jinja_parser *p, unsigned op)
{
    char wanted[] = {'\'', (char)op, '\'', '\0'};
    if (!jinja_is_op(p, op))
        return jinja_unexpected(p, wanted);
    return jinja_next(p);
}

int jinja_parse_error(struct jinja_parser *p, const char *fmt, ...)
{
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return jinja_syntax_error(p->err, p->tok.line, p->tok.column, "%s", text);
}

int jinja_unexpected(struct jinja_parser *p, const char *wanted)
{
    char found[48];
    switch (p->tok.type) {
    case JINJA_T_EOF:
        snprintf(found, sizeof found, "the end of the template");
        break;
    case JINJA_T_DATA:
        snprintf(found, sizeof found, "text");
        break;
    case JINJA_T_PRINT_BEGIN:
        snprintf(found, sizeof found, "{{");
        break;
    case JINJA_T_PRINT_END:
        snprintf(found, sizeof found, "}}");
        break;
    case JINJA_T_BLOCK_BEGIN:
        snprintf(found, sizeof found, "{%%");
        break;
    case JINJA_T_BLOCK_END:
        snprintf(found, sizeof found, "%%}");
        break;
    case JINJA_T_NAME:
        err_printable(found, sizeof found, p->tok.s, p->tok.len);
        break;
    case JINJA_T_STRING:
        snprintf(found, sizeof found, "a string");
        break;
    case JINJA_T_INT:
    case JINJA_T_FLOAT:
        snprintf(found, sizeof found, "a number");
        break;
    default:
        snprintf(found, sizeof found, "'%c%c'", (char)p->tok.op, p->tok.op >> 8 ? (char)(p->tok.op >> 8) : '\'');
        if (!(p->tok.op >> 8))
            found[3] = '\0';
    }
    return jinja_parse_error(p, "expected %s, got %s", wanted, found);
}

struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_kind kind, uint32_t line)
{
    struct jinja_node *n = arena_alloc(p->arena, sizeof *n, p->err);
    if (n)
        *n = (struct jinja_node){.kind = (uint8_t)kind, .line = line, .depth = 1};
    return n;
}

int jinja_adopt(struct jinja_parser *p, struct jinja_node *parent, const struct jinja_node *child)
{
    if (parent->depth <= child->depth)
        parent->depth = (uint16_t)(child->depth + 1);
    if (parent->depth > 2 * JINJA_MAX_NESTING)
        return jinja_parse_error(p, "nested too deeply, at most %d levels", 2 * JINJA_MAX_NESTING);
    return 0;
}

int jinja_append(struct jinja_parser *p, struct jinja_node *parent, struct jinja_chain *chain, struct jinja_node *child)
{
    if (chain->last)
        chain->last->next = child;
    else
        chain->first = child;
    chain->last = child;
    return jinja_adopt(p, parent, child);
}

int jinja_deeper(struct jinja_parser *p)
{
    if (p->nesting >= JINJA_MAX_NESTING)
        return jinja_parse_error(p, "nested too deeply, at most %d levels", JINJA_MAX_NESTING);
    p->nesting++;
    return 0;
}

void jinja_shallower(struct jinja_parser *p)
{
    p->nesting--;
}

static int grow_names(struct jinja_parser *p)
{
    size_t cap = p->cap_names ? 2 * p->cap_names : 64;
    struct jinja_name **names = arena_alloc(p->arena, cap * sizeof *names, p->err);
    if (!names)
        return -1;
    memset(names, 0, cap * sizeof *names);
    for (size_t i = 0; i < p->cap_names; i++)
        for (struct jinja_name *n = p->names[i], *next; n; n = next) {
            next = n->next;
            n->next = names[n->str.hash % cap];
            names[n->str.hash % cap] = n;
        }
    p->names = names;
    p->cap_names = cap;
    return 0;
}

const struct jinja_str *jinja_intern(struct jinja_parser *p, const char *s, size_t len)
{
    uint64_t hash = jinja_hash_bytes(s, len);
    struct jinja_name *n;
    if (p->n_names >= p->cap_names && grow_names(p) != 0)
        return NULL;
    for (n = p->names[hash % p->cap_names]; n; n = n->next)
        if (n->str.len == len && memcmp(n->str.s, s, len) == 0)
            return &n->str;
    if (p->n_names >= JINJA_MAX_NAMES)
        return jinja_parse_error(p, "more than %d different names", JINJA_MAX_NAMES), NULL;
    n = arena_alloc(p->arena, sizeof *n, p->err);
    char *copy = n ? arena_strndup(p->arena, s, len, p->err) : NULL;
    if (!copy)
        return NULL;
    *n = (struct jinja_name){.next = p->names[hash % p->cap_names],
                             .str = {.s = copy, .len = len, .n_chars = SIZE_MAX, .hash = hash, .special = true}};
    n->str.n_chars = jinja_str_chars(&n->str);
    p->names[hash % p->cap_names] = n;
    p->n_names++;
    return &n->str;
}

/* --- statements --------------------------------------------------------- */

static const char *const end_for[] = {"endfor", "else", NULL}, *const end_for_else[] = {"endfor", NULL};
static const char *const end_if[] = {"elif", "else", "endif", NULL}, *const end_else[] = {"endif", NULL};
static const char *const end_set[] = {"endset", NULL}, *const end_macro[] = {"endmacro", NULL}, *const end_call[] = {"endcall", NULL};
static const char *const end_filter[] = {"endfilter", NULL}, *const end_with[] = {"endwith", NULL};
static const char *const end_block[] = {"endblock", NULL}, *const end_generation[] = {"endgeneration", NULL};
static const char *const end_autoescape[] = {"endautoescape", NULL};

static int adopt_a(struct jinja_parser *p, struct jinja_node *n, struct jinja_node *a)
{
    n->a = a;
    return a ? jinja_adopt(p, n, a) : -1;
}

/* The body, and the word that ended it taken. */
static int parse_whole_body(struct jinja_parser *p, struct jinja_node *n, struct jinja_node **ret, const char *const *ends)
{
    return parse_body(p, n, ret, ends) == 0 ? jinja_next(p) : -1;
}

static int parse_for(struct jinja_parser *p, struct jinja_node *n)
{
    bool has_else;
    int rc;
    n->kind = JINJA_N_FOR;
    p->loops++;
    if (adopt_a(p, n, jinja_parse_target(p, false)) != 0)
        return -1;
    if ((rc = jinja_accept_name(p, "in")) <= 0)
        return rc < 0 ? -1 : jinja_unexpected(p, "in");
    if (!(n->b = jinja_parse_tuple(p, JINJA_TUPLE_NO_CONDITION)) || jinja_adopt(p, n, n->b) != 0)
        return -1;
    if ((rc = jinja_accept_name(p, "if")) < 0 || (rc && (!(n->c = jinja_parse_expression(p, true)) || jinja_adopt(p, n, n->c) != 0)))
        return -1;
    if ((rc = jinja_accept_name(p, "recursive")) < 0)
        return -1;
    n->flag = rc;
    p->breakable++;
    if (parse_body(p, n, &n->body, end_for) != 0)
        return -1;
    p->breakable--;
    has_else = jinja_is_name(p, "else");
    if (jinja_next(p) != 0)
        return -1;
    rc = has_else ? parse_whole_body(p, n, &n->alt, end_for_else) : 0;
    p->loops--;
    return rc;
}

static int parse_if(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_chain branches = {0};
    bool more = true;
    n->kind = JINJA_N_IF;
    while (more) {
        struct jinja_node *branch = jinja_node_new(p, JINJA_N_BRANCH, p->tok.line);
        if (!branch || adopt_a(p, branch, jinja_parse_tuple(p, JINJA_TUPLE_NO_CONDITION)) != 0 ||
            parse_body(p, branch, &branch->body, end_if) != 0 || jinja_append(p, n, &branches, branch) != 0)
            return -1;
        more = jinja_is_name(p, "elif");
        bool otherwise = jinja_is_name(p, "else");
        if (jinja_next(p) != 0)
            return -1;
        if (otherwise) {
            if (!(branch = jinja_node_new(p, JINJA_N_BRANCH, p->tok.line)) || parse_whole_body(p, branch, &branch->body, end_else) != 0 ||
                jinja_append(p, n, &branches, branch) != 0)
                return -1;
        }
    }
    n->list = branches.first;
    return 0;
}

static int parse_set(struct jinja_parser *p, struct jinja_node *n)
{
    int rc;
    if (adopt_a(p, n, jinja_parse_target(p, true)) != 0 || (rc = jinja_accept_op(p, '=')) < 0)
        return -1;
    if (rc) {
        n->kind = JINJA_N_SET;
        return (n->b = jinja_parse_tuple(p, 0)) ? jinja_adopt(p, n, n->b) : -1;
    }
    n->kind = JINJA_N_SET_BLOCK;
    if (jinja_is_op(p, '|') && (!(n->b = jinja_parse_filters(p, NULL, false)) || jinja_adopt(p, n, n->b) != 0))
        return -1;
    return parse_whole_body(p, n, &n->body, end_set);
}

static int parse_signature(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_chain params = {0};
    unsigned count = 0;
    int rc;
    if (jinja_expect_op(p, '(') != 0)
        return -1;
    while (!jinja_is_op(p, ')')) {
        if (++count > JINJA_MAX_ARGS)
            return jinja_parse_error(p, "more than %d parameters", JINJA_MAX_ARGS);
        if (params.first && jinja_expect_op(p, ',') != 0)
            return -1;
        bool defaults = params.last && params.last->a;
        struct jinja_node *param = jinja_parse_name(p);
        if (!param || (rc = jinja_accept_op(p, '=')) < 0)
            return -1;
        param->kind = JINJA_N_PARAM;
        for (const struct jinja_node *other = params.first; other; other = other->next)
            if (other->name == param->name)
                return jinja_parse_error(p, "duplicate argument '%s'", param->name->s);
        if (rc && adopt_a(p, param, jinja_parse_expression(p, true)) != 0)
            return -1;
        if (!rc && defaults)
            return jinja_parse_error(p, "non-default argument follows default argument");
        if (jinja_append(p, n, &params, param) != 0)
            return -1;
    }
    n->list = params.first;
    return jinja_expect_op(p, ')');
}

/* The body of a macro or call block, with a look at what it asks for. */
static int parse_macro_body(struct jinja_parser *p, struct jinja_node *n, const char *const *ends)
{
    struct jinja_scope scope = {.outer = p->scope};
    unsigned breakable = p->breakable;
    int rc;

    p->breakable = 0;
    p->scope = &scope;
    rc = parse_whole_body(p, n, &n->body, ends);
    p->scope = scope.outer;
    p->breakable = breakable;
    if (rc != 0)
        return -1;
    n->wants = (uint8_t)scope.wants;
    for (const struct jinja_node *param = n->list; param; param = param->next)
        if (jinja_str_is(param->name, "caller")) {
            if ((n->wants & JINJA_WANTS_CALLER) && !param->a)
                return jinja_parse_error(p, "the special \"caller\" argument must be omitted or be given a default");
        } else if (jinja_str_is(param->name, "kwargs")) {
            n->wants &= (uint8_t)~JINJA_WANTS_KWARGS;
        } else if (jinja_str_is(param->name, "varargs")) {
            n->wants &= (uint8_t)~JINJA_WANTS_VARARGS;
        }
    return 0;
}

static int parse_macro(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_node *name = jinja_parse_name(p);
    if (!name)
        return -1;
    n->kind = JINJA_N_MACRO;
    n->name = name->name;
    return parse_signature(p, n) == 0 ? parse_macro_body(p, n, end_macro) : -1;
}

static int parse_call_block(struct jinja_parser *p, struct jinja_node *n)
{
    n->kind = JINJA_N_CALL_BLOCK;
    if (jinja_is_op(p, '(') && parse_signature(p, n) != 0)
        return -1;
    if (adopt_a(p, n, jinja_parse_expression(p, true)) != 0)
        return -1;
    if (n->a->kind != JINJA_N_CALL)
        return jinja_parse_error(p, "expected a call");
    return parse_macro_body(p, n, end_call);
}

static int parse_filter_block(struct jinja_parser *p, struct jinja_node *n)
{
    n->kind = JINJA_N_FILTER_BLOCK;
    return adopt_a(p, n, jinja_parse_filters(p, NULL, true)) == 0 ? parse_whole_body(p, n, &n->body, end_filter) : -1;
}

static int parse_with(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_chain sets = {0};
    n->kind = JINJA_N_WITH;
    while (p->tok.type != JINJA_T_BLOCK_END) {
        struct jinja_node *set = jinja_node_new(p, JINJA_N_SET, p->tok.line);
        if (!set || (sets.first && jinja_expect_op(p, ',') != 0) || adopt_a(p, set, jinja_parse_target(p, false)) != 0 ||
            jinja_expect_op(p, '=') != 0 || !(set->b = jinja_parse_expression(p, true)) || jinja_adopt(p, set, set->b) != 0 ||
            jinja_append(p, n, &sets, set) != 0)
            return -1;
    }
    n->list = sets.first;
    return parse_whole_body(p, n, &n->body, end_with);
}

static int parse_block(struct jinja_parser *p, struct jinja_node *n)
{
    int scoped, required;
    n->kind = JINJA_N_BLOCK;
    if (p->tok.type != JINJA_T_NAME)
        return jinja_unexpected(p, "name");
    if (!(n->name = jinja_intern(p, p->tok.s, p->tok.len)) || jinja_next(p) != 0)
        return -1;
    for (const struct jinja_node *b = p->blocks; b; b = b->alt)
        if (b->name == n->name)
            return jinja_parse_error(p, "block '%s' defined twice", n->name->s);
    n->alt = p->blocks;
    p->blocks = n;
    if ((scoped = jinja_accept_name(p, "scoped")) < 0 || (required = jinja_accept_name(p, "required")) < 0)
        return -1;
    n->flag = scoped;
    n->op = (uint8_t)required;
    unsigned breakable = p->breakable;
    p->breakable = 0; /* a block is a function of its own */
    if (parse_whole_body(p, n, &n->body, end_block) != 0)
        return -1;
    p->breakable = breakable;
    return jinja_accept_name(p, n->name->s) < 0 ? -1 : 0;
}

static int parse_print(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_chain items = {0};
    n->kind = JINJA_N_PRINT;
    while (p->tok.type != JINJA_T_BLOCK_END) {
        struct jinja_node *item;
        if ((items.first && jinja_expect_op(p, ',') != 0) || !(item = jinja_parse_expression(p, true)) ||
            jinja_append(p, n, &items, item) != 0)
            return -1;
    }
    n->list = items.first;
    return 0;
}

static int parse_scope(struct jinja_parser *p, struct jinja_node *n)
{
    n->kind = JINJA_N_SCOPE;
    return parse_whole_body(p, n, &n->body, end_generation);
}

static int parse_autoescape(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_node *flag = jinja_parse_expression(p, true);
    if (!flag)
        return -1;
    if (flag->kind != JINJA_N_CONST || jinja_truth(flag->value))
        return jinja_parse_error(p, "autoescape is not supported");
    n->kind = JINJA_N_SCOPE;
    return parse_whole_body(p, n, &n->body, end_autoescape);
}

static int parse_jump(struct jinja_parser *p, struct jinja_node *n)
{
    n->kind = jinja_str_is(n->name, "break") ? JINJA_N_BREAK : JINJA_N_CONTINUE;
    return p->breakable ? 0 : jinja_parse_error(p, "'%s' outside of a loop", n->name->s);
}

/* include, import, from, extends: parsed, and an error when reached, for there is nothing to load from. */
static int parse_load(struct jinja_parser *p, struct jinja_node *n)
{
    n->kind = JINJA_N_UNSUPPORTED;
    if (adopt_a(p, n, jinja_parse_expression(p, true)) != 0)
        return -1;
    while (p->tok.type == JINJA_T_NAME || jinja_is_op(p, ','))
        if (jinja_next(p) != 0)
            return -1;
    return 0;
}

static const struct {
    const char *name;
    int (*parse)(struct jinja_parser *p, struct jinja_node *n);
} statements[] = {
    {"for", parse_for},
    {"if", parse_if},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"block", parse_block},
    {"print", parse_print},
    {"break", parse_jump},
    {"continue", parse_jump},
    {"generation", parse_scope},
    {"include", parse_load},
    {"import", parse_load},
    {"from", parse_load},
    {"extends", parse_load},
    {"autoescape", parse_autoescape},
};

static struct jinja_node *parse_statement(struct jinja_parser *p)
{
    struct jinja_node *n;
    if (p->tok.type != JINJA_T_NAME)
        return jinja_parse_error(p, "tag name expected"), NULL;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!jinja_is_name(p, statements[i].name))
            continue;
        if (!(n = jinja_node_new(p, JINJA_N_SCOPE, p->tok.line)) || !(n->name = jinja_intern(p, p->tok.s, p->tok.len)) ||
            jinja_next(p) != 0 || statements[i].parse(p, n) != 0)
            return NULL;
        return n;
    }
    char found[64];
    return jinja_parse_error(p, "unknown tag '%s'", err_printable(found, sizeof found, p->tok.s, p->tok.len)), NULL;
}

static bool is_end(const struct jinja_parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jinja_is_name(p, *ends))
            return true;
    return false;
}

/* Everything up to {% followed by one of `ends`, which is left as the current token; ends NULL: up to the end. */
static int parse_items(struct jinja_parser *p, struct jinja_node *parent, struct jinja_node **ret, const char *const *ends)
{
    struct jinja_chain body = {0};
    for (;;) {
        struct jinja_node *n = NULL;
        switch (p->tok.type) {
        case JINJA_T_EOF:
            if (ends)
                return jinja_parse_error(p, "unexpected end of template, looking for '%s'", ends[0]);
            *ret = body.first;
            return 0;
        case JINJA_T_DATA: {
            struct jinja_str *str = arena_alloc(p->arena, sizeof *str, p->err);
            if (!str || !(n = jinja_node_new(p, JINJA_N_DATA, p->tok.line)))
                return -1;
            *str = (struct jinja_str){.s = p->tok.s, .len = p->tok.len, .n_chars = SIZE_MAX, .special = true};
            n->value = jinja_string(str);
            break;
        }
        case JINJA_T_PRINT_BEGIN:
            if (!(n = jinja_node_new(p, JINJA_N_PRINT, p->tok.line)) || jinja_next(p) != 0 || !(n->list = jinja_parse_tuple(p, 0)) ||
                jinja_adopt(p, n, n->list) != 0)
                return -1;
            if (p->tok.type != JINJA_T_PRINT_END)
                return jinja_unexpected(p, "}}");
            break;
        default: /* {% */
            if (jinja_next(p) != 0)
                return -1;
            if (is_end(p, ends)) {
                *ret = body.first;
                return 0;
            }
            if (!(n = parse_statement(p)))
                return -1;
            if (p->tok.type != JINJA_T_BLOCK_END)
                return jinja_unexpected(p, "%}");
        }
        if (jinja_next(p) != 0 || jinja_append(p, parent, &body, n) != 0)
            return -1;
    }
}

static int parse_body(struct jinja_parser *p, struct jinja_node *parent, struct jinja_node **ret, const char *const *ends)
{
    int rc;
    if (jinja_accept_op(p, ':') < 0)
        return -1;
    if (p->tok.type != JINJA_T_BLOCK_END)
        return jinja_unexpected(p, "%}");
    if (jinja_deeper(p) != 0 || jinja_next(p) != 0)
        return -1;
    rc = parse_items(p, parent, ret, ends);
    jinja_shallower(p);
    return rc;
}

/* --- after parsing ------------------------------------------------------ */

/* An unknown filter or test is an error now, unless a condition may guard it (`soft`). Whatever makes a new scope is no
 * longer guarded, as in Jinja2. */
static int check(struct jinja_parser *p, const struct jinja_node *n, bool soft)
{
    for (; n; n = n->next) {
        bool scope = n->kind >= JINJA_N_FOR && n->kind != JINJA_N_SET;
        bool body = n->kind == JINJA_N_COND || n->kind == JINJA_N_IF || (soft && !scope);
        bool a = n->kind == JINJA_N_COND || (soft && n->kind != JINJA_N_FILTER_BLOCK);
        bool b = n->kind == JINJA_N_COND || (soft && n->kind != JINJA_N_SET_BLOCK);
        bool list = n->kind == JINJA_N_IF || (soft && n->kind != JINJA_N_MACRO && n->kind != JINJA_N_CALL_BLOCK);
        if ((n->kind == JINJA_N_FILTER || n->kind == JINJA_N_TEST) && !n->builtin && !soft) {
            p->tok.line = n->line;
            p->tok.column = 1;
            return jinja_parse_error(p, "no %s named '%s'", n->kind == JINJA_N_FILTER ? "filter" : "test", n->name->s);
        }
        if (check(p, n->a, a) != 0 || check(p, n->b, b) != 0 || check(p, n->c, body) != 0 || check(p, n->d, body) != 0 ||
            check(p, n->list, list) != 0 || check(p, n->body, body) != 0 || (n->kind == JINJA_N_FOR && check(p, n->alt, false) != 0))
            return -1;
    }
    return 0;
}

int jinja_parse(struct arena *arena, const char *source, size_t len, struct jinja_tree *ret, struct err *err)
{
    static const char *const special[JINJA_N_SPECIAL_NAMES] = {"caller", "kwargs", "varargs", "loop"};
    struct jinja_parser p = {.arena = arena, .err = err};
    struct jinja_node *root;

    if (jinja_lexer_init(&p.lx, arena, source, len, err) != 0 || jinja_next(&p) != 0 || !(root = jinja_node_new(&p, JINJA_N_SCOPE, 1)) ||
        parse_items(&p, root, &root->body, NULL) != 0 || check(&p, root->body, false) != 0)
        return -1;
    ret->root = root;
    for (int i = 0; i < JINJA_N_SPECIAL_NAMES; i++)
        if (!(ret->special_names[i] = jinja_intern(&p, special[i], strlen(special[i]))))
            return -1;
    return 0;
}
