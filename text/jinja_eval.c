/* Expressions, evaluated. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja.h"

int jinja_fail(struct jinja *j, enum err_kind kind, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_set(j->err, kind, "line %u: %s", j->line, text);
}

int jinja_charge(struct jinja *j, size_t steps)
{
    if (j->steps < steps) {
        j->steps = 0;
        return jinja_fail(j, ERR_LIMIT, "more than the %zu steps allowed", j->limits.max_steps);
    }
    j->steps -= steps;
    return 0;
}

int jinja_charge_bytes(struct jinja *j, size_t bytes)
{
    return bytes < 256 ? 0 : jinja_charge(j, bytes / 256);
}

int jinja_enter(struct jinja *j)
{
    if (++j->depth > j->limits.max_depth)
        return jinja_fail(j, ERR_LIMIT, "nested deeper than the %zu levels allowed", j->limits.max_depth);
    return 0;
}

void jinja_leave(struct jinja *j)
{
    j->depth--;
}

void *jinja_alloc(struct jinja *j, size_t count, size_t size)
{
    size_t bytes;
    if (!mem_mul(count, size, &bytes))
        return jinja_fail(j, ERR_LIMIT, "memory limit of %zu bytes reached", j->arena.max), NULL;
    return arena_alloc(&j->arena, bytes, j->err);
}

/* --- calls -------------------------------------------------------------- */

static int too_many(struct jinja *j, const char *name)
{
    return jinja_fail(j, ERR_INPUT, "%s: too many arguments", name);
}

/* Puts arguments into c->v as the parameter list says. */
static int bind_args(struct jinja *j, struct jinja_call *c, const struct jinja_args *args)
{
    const char *params = c->builtin->params;
    bool keywords = *params != '/';
    size_t n = 0, used = 0;

    params += !keywords;
    for (size_t i = 0; i < JINJA_MAX_PARAMS; i++)
        c->v[i] = (struct jinja_value){.type = JINJA_MISSING};
    for (const char *p = params; *p; n++) {
        size_t len = strcspn(p, ",?");
        bool optional = p[len] == '?';
        if (n < args->n)
            c->v[n] = args->v[n];
        for (size_t i = 0; keywords && i < args->n_kw; i++)
            if (args->kw[i].name->len == len && memcmp(args->kw[i].name->s, p, len) == 0) {
                if (n < args->n)
                    return jinja_fail(j, ERR_INPUT, "%s: multiple values for argument '%s'", c->builtin->name, args->kw[i].name->s);
                c->v[n] = args->kw[i].value;
                used++;
            }
        if (!optional && c->v[n].type == JINJA_MISSING)
            return jinja_fail(j, ERR_INPUT, "%s: missing argument '%.*s'", c->builtin->name, (int)len, p);
        p += len + optional;
        p += *p == ',';
    }
    if (args->n > n)
        return too_many(j, c->builtin->name);
    if (used < args->n_kw)
        return jinja_fail(j, ERR_INPUT, "%s: unexpected keyword argument", c->builtin->name);
    return 0;
}

int jinja_invoke(struct jinja *j, const struct jinja_builtin *b, struct jinja_value self, const struct jinja_args *args,
                 struct jinja_value *ret)
{
    struct jinja_call c = {.self = self, .args = args, .builtin = b};
    int rc;
    if (!b->fn)
        return jinja_fail(j, ERR_UNSUPPORTED, "'%s' is not supported", b->name);
    if (*b->params != '*' && bind_args(j, &c, args) != 0)
        return -1;
    rc = jinja_enter(j) == 0 ? b->fn(j, &c, ret) : -1;
    jinja_leave(j);
    return rc;
}

int jinja_call_value(struct jinja *j, struct jinja_value callee, const struct jinja_args *args, struct jinja_value *ret)
{
    switch (callee.type) {
    case JINJA_UNDEFINED:
        return jinja_fail_undefined(j, callee);
    case JINJA_FUNCTION:
        return jinja_invoke(j, callee.function, jinja_none(), args, ret);
    case JINJA_METHOD:
        return jinja_invoke(j, callee.method->function, callee.method->self, args, ret);
    case JINJA_MACRO:
        return jinja_call_macro(j, callee.macro, args, ret);
    case JINJA_LOOP:
        return jinja_loop_call(j, callee.loop, args, ret);
    case JINJA_JOINER:
        if (args->n || args->n_kw)
            return too_many(j, "joiner");
        *ret = callee.cycler->pos++ ? callee.cycler->items->items[0] : jinja_string(jinja_str_new(j, "", 0, true));
        return ret->type == JINJA_STR && !ret->str ? -1 : 0;
    default:
        return jinja_fail(j, ERR_INPUT, "'%s' object is not callable", jinja_type_name(callee));
    }
}

static int add_keyword(struct jinja *j, struct jinja_args *args, size_t *cap, const struct jinja_str *name, struct jinja_value v)
{
    if (args->n_kw == *cap) {
        size_t more = *cap ? 2 * *cap : 4;
        struct jinja_keyword *kw = jinja_alloc(j, more, sizeof *kw);
        if (!kw)
            return -1;
        if (args->n_kw)
            memcpy(kw, args->kw, args->n_kw * sizeof *kw);
        args->kw = kw;
        *cap = more;
    }
    if (jinja_charge(j, args->n_kw / 8) != 0)
        return -1;
    for (size_t i = 0; i < args->n_kw; i++)
        if (jinja_str_equal(args->kw[i].name, name))
            return jinja_fail(j, ERR_INPUT, "got multiple values for keyword argument '%s'", name->s);
    args->kw[args->n_kw++] = (struct jinja_keyword){.name = name, .value = v};
    return 0;
}

/* **mapping */
static int spread(struct jinja *j, struct jinja_args *args, size_t *cap, struct jinja_value v)
{
    if (v.type != JINJA_DICT)
        return jinja_fail(j, ERR_INPUT, "argument after ** must be a mapping, not %s", jinja_type_name(v));
    for (size_t i = 0; i < v.dict->n; i++) {
        if (v.dict->entries[i].key.type != JINJA_STR)
            return jinja_fail(j, ERR_INPUT, "keywords must be strings");
        if (add_keyword(j, args, cap, v.dict->entries[i].key.str, v.dict->entries[i].value) != 0)
            return -1;
    }
    return 0;
}

int jinja_eval_args(struct jinja *j, struct jinja_frame *f, const struct jinja_node *list, struct jinja_args *ret)
{
    struct jinja_list_buf positional = {0};
    size_t cap = 0;

    *ret = (struct jinja_args){0};
    for (const struct jinja_node *n = list; n; n = n->next) {
        struct jinja_value v, item;
        struct jinja_cursor c;
        int rc = jinja_eval(j, f, n->a, &v);
        if (rc == 0 && n->op == JINJA_ARG_POSITIONAL) {
            rc = jinja_list_push(j, &positional, v);
        } else if (rc == 0 && n->op == JINJA_ARG_KEYWORD) {
            rc = add_keyword(j, ret, &cap, n->name, v);
        } else if (rc == 0 && n->op == JINJA_ARG_STAR) {
            if (jinja_cursor_init(j, &c, v) != 0)
                return -1;
            while ((rc = jinja_cursor_next(j, &c, &item)) == 1)
                if (jinja_list_push(j, &positional, item) != 0)
                    return -1;
        } else if (rc == 0) {
            rc = spread(j, ret, &cap, v);
        }
        if (rc != 0)
            return -1;
    }
    ret->v = positional.items;
    ret->n = positional.n;
    return 0;
}

/* A filter or test. At the head of a filter or set block the innermost one works on the block's text. */
static int eval_filter(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value self = j->block;
    struct jinja_args args;
    if (!n->builtin)
        return jinja_fail(j, ERR_INPUT, "no %s named '%s' found", n->kind == JINJA_N_TEST ? "test" : "filter", n->name->s);
    if (n->a && jinja_eval(j, f, n->a, &self) != 0)
        return -1;
    if (jinja_eval_args(j, f, n->list, &args) != 0)
        return -1;
    j->line = n->line;
    return jinja_invoke(j, n->builtin, self, &args, ret);
}

/* --- operators ---------------------------------------------------------- */

static int eval_items(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_list_buf l = {0};
    for (const struct jinja_node *item = n->list; item; item = item->next) {
        struct jinja_value v;
        if (jinja_eval(j, f, item, &v) != 0 || jinja_list_push(j, &l, v) != 0)
            return -1;
    }
    return jinja_list_value(j, &l, n->kind == JINJA_N_LIST ? JINJA_LIST : JINJA_TUPLE, ret);
}

static int eval_dict(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_dict *d = jinja_dict_new(j);
    if (!d)
        return -1;
    for (const struct jinja_node *key = n->list; key; key = key->next->next) {
        struct jinja_value k, v;
        if (jinja_eval(j, f, key, &k) != 0 || jinja_eval(j, f, key->next, &v) != 0 || jinja_dict_set(j, d, k, v) != 0)
            return -1;
    }
    *ret = (struct jinja_value){.type = JINJA_DICT, .dict = d};
    return 0;
}

static int eval_compare(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value left, right;
    int rc = 1;
    if (jinja_eval(j, f, n->a, &left) != 0)
        return -1;
    for (const struct jinja_node *item = n->list; item && rc == 1; item = item->next) {
        if (jinja_eval(j, f, item, &right) != 0)
            return -1;
        rc = jinja_compare(j, item->op, left, right);
        left = right;
    }
    *ret = jinja_bool(rc == 1);
    return rc < 0 ? -1 : 0;
}

static int eval_math(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value left, right;
    if (jinja_eval(j, f, n->a, &left) != 0)
        return -1;
    for (const struct jinja_node *item = n->list; item; item = item->next) {
        if (jinja_eval(j, f, item, &right) != 0)
            return -1;
        j->line = item->line;
        if (jinja_math(j, item->op, left, right, &left) != 0)
            return -1;
    }
    *ret = left;
    return 0;
}

static int eval_concat(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    const struct jinja_str *whole = NULL;
    for (const struct jinja_node *item = n->list; item; item = item->next) {
        struct jinja_value v;
        const struct jinja_str *s;
        if (jinja_eval(j, f, item, &v) != 0 || !(s = jinja_str_of(j, v)) || !(s = jinja_str_markup(j, s, false)))
            return -1;
        if (!(whole = whole ? jinja_str_concat(j, whole, s) : s))
            return -1;
    }
    *ret = jinja_string(whole);
    return 0;
}

static int eval_logic(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    for (const struct jinja_node *item = n->list; item; item = item->next) {
        if (jinja_eval(j, f, item, ret) != 0)
            return -1;
        if (jinja_truth(*ret) == (n->kind == JINJA_N_OR))
            break;
    }
    return 0;
}

static int eval_cond(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value test;
    if (jinja_eval(j, f, n->a, &test) != 0)
        return -1;
    if (jinja_truth(test))
        return jinja_eval(j, f, n->b, ret);
    if (n->c)
        return jinja_eval(j, f, n->c, ret);
    return jinja_undefined(j, NULL, NULL, "the inline if-expression evaluated to false and no else section was defined", ret);
}

static int eval_slice(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value v, bounds[3];
    const struct jinja_node *nodes[] = {n->b, n->c, n->d};
    if (jinja_eval(j, f, n->a, &v) != 0)
        return -1;
    for (int i = 0; i < 3; i++) {
        bounds[i] = jinja_none();
        if (nodes[i] && jinja_eval(j, f, nodes[i], &bounds[i]) != 0)
            return -1;
    }
    j->line = n->line;
    return jinja_slice(j, v, bounds[0], bounds[1], bounds[2], ret);
}

static int eval_call(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value callee;
    struct jinja_args args;
    if (jinja_eval(j, f, n->a, &callee) != 0 || jinja_eval_args(j, f, n->list, &args) != 0)
        return -1;
    j->line = n->line;
    return jinja_call_value(j, callee, &args, ret);
}

static int eval_node(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_value v, key;
    switch (n->kind) {
    case JINJA_N_CONST:
        *ret = n->value;
        return 0;
    case JINJA_N_NAME:
        return jinja_lookup(j, f, n->name, ret);
    case JINJA_N_LIST:
    case JINJA_N_TUPLE:
        return eval_items(j, f, n, ret);
    case JINJA_N_DICT:
        return eval_dict(j, f, n, ret);
    case JINJA_N_GETATTR:
        if (jinja_eval(j, f, n->a, &v) != 0)
            return -1;
        j->line = n->line;
        return jinja_getattr(j, v, n->name, ret);
    case JINJA_N_GETITEM:
        if (jinja_eval(j, f, n->a, &v) != 0 || jinja_eval(j, f, n->b, &key) != 0)
            return -1;
        j->line = n->line;
        return jinja_getitem(j, v, key, ret);
    case JINJA_N_SLICE:
        return eval_slice(j, f, n, ret);
    case JINJA_N_CALL:
        return eval_call(j, f, n, ret);
    case JINJA_N_FILTER:
    case JINJA_N_TEST:
        return eval_filter(j, f, n, ret);
    case JINJA_N_NOT:
        if (jinja_eval(j, f, n->a, &v) != 0)
            return -1;
        *ret = jinja_bool(!jinja_truth(v));
        return 0;
    case JINJA_N_NEG:
    case JINJA_N_POS:
        return jinja_eval(j, f, n->a, &v) != 0 ? -1 : jinja_negate(j, v, n->kind == JINJA_N_POS, ret);
    case JINJA_N_AND:
    case JINJA_N_OR:
        return eval_logic(j, f, n, ret);
    case JINJA_N_COMPARE:
        return eval_compare(j, f, n, ret);
    case JINJA_N_MATH:
        return eval_math(j, f, n, ret);
    case JINJA_N_CONCAT:
        return eval_concat(j, f, n, ret);
    case JINJA_N_COND:
        return eval_cond(j, f, n, ret);
    default:
        return jinja_fail(j, ERR_INTERNAL, "no such expression");
    }
}

int jinja_eval(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    int rc;
    j->line = n->line;
    if (jinja_charge(j, 1) != 0)
        return -1;
    rc = jinja_enter(j) == 0 ? eval_node(j, f, n, ret) : -1;
    jinja_leave(j);
    return rc;
}
