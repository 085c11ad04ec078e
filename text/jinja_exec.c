/* Statements: scopes, assignments, macros, blocks. A scope is a frame of variables linked to the one around it; only what
 * Jinja2 gives a frame of its own has one (loops, macros, set, filter, with and call blocks), so that a set in an if
 * survives it and a set in a loop does not. */
#include <string.h>

#include "text/jinja.h"

/* --- variables ---------------------------------------------------------- */

struct jinja_frame *jinja_frame_new(struct jinja *j, struct jinja_frame *parent)
{
    struct jinja_frame *f = jinja_alloc(j, 1, sizeof *f);
    if (f)
        *f = (struct jinja_frame){.parent = parent};
    return f;
}

/* Names are interned, so pointers tell them apart. Long scopes cost steps. */
static int find_var(struct jinja *j, const struct jinja_frame *f, const struct jinja_str *name, struct jinja_var **ret)
{
    *ret = NULL;
    for (size_t i = 0; i < f->n; i++)
        if (f->vars[i].name == name) {
            *ret = &f->vars[i];
            break;
        }
    return f->n > 16 ? jinja_charge(j, f->n / 16) : 0;
}

int jinja_frame_set(struct jinja *j, struct jinja_frame *f, const struct jinja_str *name, struct jinja_value v)
{
    struct jinja_var *var;
    if (find_var(j, f, name, &var) != 0)
        return -1;
    if (!var) {
        if (f->n == f->cap) {
            size_t cap = f->cap ? 2 * f->cap : 4;
            struct jinja_var *vars = jinja_alloc(j, cap, sizeof *vars);
            if (!vars)
                return -1;
            if (f->n)
                memcpy(vars, f->vars, f->n * sizeof *vars);
            f->vars = vars;
            f->cap = cap;
        }
        var = &f->vars[f->n++];
        var->name = name;
    }
    var->value = v;
    return 0;
}

/* bos_token, eos_token and their like are the template author's words, not a user's. */
static bool is_token_name(const struct jinja_str *name)
{
    return name->len > 6 && memcmp(name->s + name->len - 6, "_token", 6) == 0;
}

int jinja_lookup(struct jinja *j, struct jinja_frame *f, const struct jinja_str *name, struct jinja_value *ret)
{
    struct jinja_var *var;
    for (; f; f = f->parent) {
        if (find_var(j, f, name, &var) != 0)
            return -1;
        if (var) {
            *ret = var->value;
            if (ret->type == JINJA_MISSING)
                break;
            return 0;
        }
    }
    if (!f) { /* not yet looked up in the context */
        const json_t *json = json_object_get(j->context, name->s);
        const struct jinja_builtin *b = json ? NULL : jinja_find_function(name->s, name->len);
        if (json) {
            if (jinja_from_json(j, json, is_token_name(name), ret) != 0)
                return -1;
            return jinja_frame_set(j, j->outer, name, *ret);
        }
        if (b) {
            *ret = (struct jinja_value){.type = JINJA_FUNCTION, .function = b};
            return 0;
        }
    }
    return jinja_undefined(j, NULL, name, NULL, ret);
}

/* --- the context -------------------------------------------------------- */

/* Templates spell control tokens with the role in them ('<|' + message.role + '|>'): the roles everybody knows are no
 * user's text. */
static bool is_role(const char *key, const json_t *value)
{
    static const char *const roles[] = {"system", "user",  "assistant",     "tool",     "developer", "function",
                                        "model",  "human", "gpt",           "chatbot",  "ipython",   "observation",
                                        "critic", "bot",   "tool_response", "tool_call"};
    if (strcmp(key, "role") != 0 || !json_is_string(value))
        return false;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (json_string_length(value) == strlen(roles[i]) && strcmp(json_string_value(value), roles[i]) == 0)
            return true;
    return false;
}

static int from_json_object(struct jinja *j, const json_t *json, bool special, struct jinja_value *ret)
{
    struct jinja_dict *d = jinja_dict_new(j);
    const char *key;
    json_t *member;
    if (!d)
        return -1;
    json_object_foreach((json_t *)(uintptr_t)json, key, member)
    {
        const struct jinja_str *name = jinja_str_new(j, key, strlen(key), false);
        struct jinja_value v;
        if (!name || jinja_from_json(j, member, special || is_role(key, member), &v) != 0 ||
            jinja_dict_set(j, d, jinja_string(name), v) != 0)
            return -1;
    }
    *ret = (struct jinja_value){.type = JINJA_DICT, .dict = d};
    return 0;
}

static int from_json_array(struct jinja *j, const json_t *json, bool special, struct jinja_value *ret)
{
    struct jinja_list_buf l = {0};
    json_t *item;
    size_t i;
    json_array_foreach(json, i, item)
    {
        struct jinja_value v;
        if (jinja_from_json(j, item, special, &v) != 0 || jinja_list_push(j, &l, v) != 0)
            return -1;
    }
    return jinja_list_value(j, &l, JINJA_LIST, ret);
}

/* Strings are borrowed from the JSON, which outlives the rendering. */
int jinja_from_json(struct jinja *j, const json_t *json, bool special, struct jinja_value *ret)
{
    int rc = 0;
    if (jinja_charge(j, 1) != 0)
        return -1;
    switch (json_typeof(json)) {
    case JSON_NULL:
        *ret = jinja_none();
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = jinja_bool(json_is_true(json));
        break;
    case JSON_INTEGER:
        *ret = jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *ret = jinja_float(json_real_value(json));
        break;
    case JSON_STRING:
        *ret = jinja_string(jinja_str_new(j, json_string_value(json), json_string_length(json), special));
        rc = ret->str ? 0 : -1;
        break;
    default:
        rc = jinja_enter(j);
        if (rc == 0)
            rc = json_is_object(json) ? from_json_object(j, json, special, ret) : from_json_array(j, json, special, ret);
        jinja_leave(j);
    }
    return rc;
}

/* --- assignments -------------------------------------------------------- */

static int unpack(struct jinja *j, struct jinja_frame *f, const struct jinja_node *targets, struct jinja_value v)
{
    struct jinja_cursor c;
    struct jinja_value item;
    size_t n = 0;
    int rc;
    if (v.type == JINJA_NONE || jinja_is_number(v))
        return jinja_fail(j, ERR_INPUT, "cannot unpack non-iterable %s object", jinja_type_name(v));
    if (jinja_cursor_init(j, &c, v) != 0)
        return -1;
    for (const struct jinja_node *t = targets; t; t = t->next, n++) {
        if ((rc = jinja_cursor_next(j, &c, &item)) < 0)
            return -1;
        if (rc == 0)
            return jinja_fail(j, ERR_INPUT, "not enough values to unpack (got %zu)", n);
        if (jinja_assign(j, f, t, item) != 0)
            return -1;
    }
    if ((rc = jinja_cursor_next(j, &c, &item)) != 0)
        return rc < 0 ? -1 : jinja_fail(j, ERR_INPUT, "too many values to unpack (expected %zu)", n);
    return 0;
}

int jinja_assign(struct jinja *j, struct jinja_frame *f, const struct jinja_node *target, struct jinja_value v)
{
    struct jinja_value ns;
    if (target->kind == JINJA_N_TUPLE)
        return unpack(j, f, target->list, v);
    if (target->kind == JINJA_N_NAME)
        return jinja_frame_set(j, f, target->name, v);
    if (jinja_lookup(j, f, target->name, &ns) != 0)
        return -1;
    if (ns.type != JINJA_NAMESPACE)
        return jinja_fail(j, ERR_INPUT, "cannot assign attribute on non-namespace object");
    return jinja_dict_set(j, ns.dict, target->value, v);
}

/* --- macros ------------------------------------------------------------- */

int jinja_capture(struct jinja *j, struct jinja_frame *f, const struct jinja_node *body, struct jinja_value *ret)
{
    struct jinja_text text = {0}, *outer = j->out;
    int rc;
    j->out = &text;
    rc = jinja_exec(j, f, body);
    j->out = outer;
    return rc != JINJA_DONE ? rc : jinja_text_value(j, &text, ret);
}

/* What is left over after the macro's own parameters goes to caller, kwargs and varargs where the body asks for them. */
static int bind_special(struct jinja *j, struct jinja_frame *f, const struct jinja_macro *m, const struct jinja_args *args,
                        const bool *used, size_t n_params, bool found_caller)
{
    static const struct jinja_str caller = {.s = "caller", .len = 6, .n_chars = 6};
    const struct jinja_node *n = m->node;
    const char *name = n->kind == JINJA_N_MACRO ? n->name->s : "caller";
    struct jinja_dict *kwargs = n->wants & JINJA_WANTS_KWARGS ? jinja_dict_new(j) : NULL;
    struct jinja_list_buf varargs = {0};
    struct jinja_value v;
    bool wants_caller = (n->wants & JINJA_WANTS_CALLER) && !found_caller;

    if ((n->wants & JINJA_WANTS_KWARGS) && !kwargs)
        return -1;
    if (wants_caller) {
        if (jinja_undefined(j, NULL, &caller, "No caller defined", &v) != 0 || jinja_frame_set(j, f, j->special_names[0], v) != 0)
            return -1;
    }
    for (size_t i = 0; i < args->n_kw; i++) {
        if (used[i])
            continue;
        if (wants_caller && jinja_str_equal(args->kw[i].name, &caller)) {
            if (args->kw[i].value.type != JINJA_NONE && jinja_frame_set(j, f, j->special_names[0], args->kw[i].value) != 0)
                return -1;
        } else if (kwargs) {
            if (jinja_dict_set(j, kwargs, jinja_string(args->kw[i].name), args->kw[i].value) != 0)
                return -1;
        } else {
            return jinja_fail(j, ERR_INPUT, "macro '%s' takes no keyword argument '%s'", name, args->kw[i].name->s);
        }
    }
    v = (struct jinja_value){.type = JINJA_DICT, .dict = kwargs};
    if (kwargs && jinja_frame_set(j, f, j->special_names[1], v) != 0)
        return -1;
    for (size_t i = n_params; i < args->n; i++)
        if (jinja_list_push(j, &varargs, args->v[i]) != 0)
            return -1;
    if (n->wants & JINJA_WANTS_VARARGS)
        return jinja_list_value(j, &varargs, JINJA_TUPLE, &v) != 0 ? -1 : jinja_frame_set(j, f, j->special_names[2], v);
    if (args->n > n_params)
        return jinja_fail(j, ERR_INPUT, "macro '%s' takes not more than %zu argument(s)", name, n_params);
    return 0;
}

static int bind_params(struct jinja *j, struct jinja_frame *f, const struct jinja_macro *m, const struct jinja_args *args)
{
    const struct jinja_value missing = {.type = JINJA_MISSING};
    bool *used = jinja_alloc(j, args->n_kw + 1, sizeof *used), found_caller = false, positional;
    struct jinja_value v;
    size_t n = 0, i = 0;

    if (!used)
        return -1;
    memset(used, 0, args->n_kw + 1);
    for (const struct jinja_node *p = m->node->list; p; p = p->next)
        n++;
    positional = args->n >= n; /* then keywords can be none of the parameters */
    for (const struct jinja_node *p = m->node->list; p; p = p->next, i++) {
        v = i < args->n ? args->v[i] : missing;
        for (size_t k = 0; k < args->n_kw && !positional && i >= args->n; k++)
            if (jinja_str_equal(args->kw[k].name, p->name)) {
                v = args->kw[k].value;
                used[k] = true;
            }
        found_caller |= jinja_str_is(p->name, "caller");
        if (jinja_frame_set(j, f, p->name, v) != 0 || jinja_charge(j, 1 + args->n_kw / 8) != 0)
            return -1;
    }
    if (bind_special(j, f, m, args, used, n, found_caller) != 0)
        return -1;
    i = 0;
    for (const struct jinja_node *p = m->node->list; p; p = p->next, i++) { /* defaults may use earlier parameters */
        if (f->vars[i].value.type != JINJA_MISSING)
            continue;
        if (p->a ? jinja_eval(j, f, p->a, &v) != 0 : jinja_undefined(j, NULL, p->name, "a macro's parameter was not provided", &v) != 0)
            return -1;
        if (jinja_frame_set(j, f, p->name, v) != 0)
            return -1;
    }
    return 0;
}

int jinja_call_macro(struct jinja *j, const struct jinja_macro *m, const struct jinja_args *args, struct jinja_value *ret)
{
    struct jinja_frame *f = jinja_frame_new(j, m->frame);
    int rc = -1;
    if (jinja_enter(j) == 0 && f && bind_params(j, f, m, args) == 0)
        rc = jinja_capture(j, f, m->node->body, ret);
    jinja_leave(j);
    return rc;
}

static int make_macro(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret)
{
    struct jinja_macro *m = jinja_alloc(j, 1, sizeof *m);
    if (!m)
        return -1;
    *m = (struct jinja_macro){.node = n, .frame = f};
    *ret = (struct jinja_value){.type = JINJA_MACRO, .macro = m};
    return 0;
}

static int exec_call_block(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    struct jinja_value callee, v;
    struct jinja_args args;
    struct jinja_keyword *kw;

    if (jinja_eval(j, f, n->a->a, &callee) != 0 || jinja_eval_args(j, f, n->a->list, &args) != 0 || make_macro(j, f, n, &v) != 0)
        return -1;
    for (size_t i = 0; i < args.n_kw; i++)
        if (jinja_str_is(args.kw[i].name, "caller"))
            return jinja_fail(j, ERR_INPUT, "got multiple values for keyword argument 'caller'");
    if (!(kw = jinja_alloc(j, args.n_kw + 1, sizeof *kw)))
        return -1;
    if (args.n_kw)
        memcpy(kw, args.kw, args.n_kw * sizeof *kw);
    kw[args.n_kw++] = (struct jinja_keyword){.name = j->special_names[0], .value = v};
    args.kw = kw;
    j->line = n->line;
    return jinja_call_value(j, callee, &args, &v) != 0 ? -1 : jinja_print(j, j->out, v);
}

/* --- statements --------------------------------------------------------- */

static int exec_if(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    for (const struct jinja_node *branch = n->list; branch; branch = branch->next) {
        struct jinja_value test;
        if (branch->a && jinja_eval(j, f, branch->a, &test) != 0)
            return -1;
        if (!branch->a || jinja_truth(test))
            return jinja_exec(j, f, branch->body);
    }
    return JINJA_DONE;
}

/* The rest of a set or filter block once its body has run: its filters. */
static int filter_text(struct jinja *j, struct jinja_frame *f, const struct jinja_node *filter, struct jinja_value *v)
{
    if (!filter)
        return 0;
    j->block = *v;
    return jinja_eval(j, f, filter, v);
}

static int exec_captured(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    struct jinja_frame *inner = jinja_frame_new(j, f);
    struct jinja_value v;
    int rc = inner ? jinja_capture(j, inner, n->body, &v) : -1;
    if (rc != JINJA_DONE)
        return rc;
    if (filter_text(j, inner, n->kind == JINJA_N_SET_BLOCK ? n->b : n->a, &v) != 0)
        return -1;
    return n->kind == JINJA_N_SET_BLOCK ? jinja_assign(j, f, n->a, v) : jinja_print(j, j->out, v);
}

static int exec_with(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    struct jinja_frame *inner = jinja_frame_new(j, f);
    if (!inner)
        return -1;
    for (const struct jinja_node *set = n->list; set; set = set->next) {
        struct jinja_value v;
        if (jinja_eval(j, f, set->b, &v) != 0 || jinja_assign(j, inner, set->a, v) != 0)
            return -1;
    }
    return jinja_exec(j, inner, n->body);
}

static int exec_print(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    for (const struct jinja_node *item = n->list; item; item = item->next) {
        struct jinja_value v;
        if (jinja_eval(j, f, item, &v) != 0)
            return -1;
        j->line = item->line;
        if (jinja_print(j, j->out, v) != 0)
            return -1;
    }
    return JINJA_DONE;
}

static int exec_inner(struct jinja *j, struct jinja_frame *parent, const struct jinja_node *body)
{
    struct jinja_frame *inner = jinja_frame_new(j, parent);
    return inner ? jinja_exec(j, inner, body) : -1;
}

static int exec_node(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    struct jinja_value v;
    switch (n->kind) {
    case JINJA_N_DATA:
        jinja_text_str(j, j->out, n->value.str);
        return j->out->failed ? -1 : jinja_charge_bytes(j, n->value.str->len);
    case JINJA_N_PRINT:
        return exec_print(j, f, n);
    case JINJA_N_IF:
        return exec_if(j, f, n);
    case JINJA_N_FOR:
        return jinja_exec_for(j, f, n);
    case JINJA_N_SET:
        return jinja_eval(j, f, n->b, &v) != 0 ? -1 : jinja_assign(j, f, n->a, v);
    case JINJA_N_SET_BLOCK:
    case JINJA_N_FILTER_BLOCK:
        return exec_captured(j, f, n);
    case JINJA_N_MACRO:
        return make_macro(j, f, n, &v) != 0 ? -1 : jinja_frame_set(j, f, n->name, v);
    case JINJA_N_CALL_BLOCK:
        return exec_call_block(j, f, n);
    case JINJA_N_WITH:
        return exec_with(j, f, n);
    case JINJA_N_SCOPE:
        return exec_inner(j, f, n->body);
    case JINJA_N_BLOCK:
        if (n->op)
            return jinja_fail(j, ERR_INPUT, "required block '%s' not found", n->name->s);
        return exec_inner(j, n->flag ? f : j->top, n->body);
    case JINJA_N_BREAK:
        return JINJA_BROKE;
    case JINJA_N_CONTINUE:
        return JINJA_CONTINUED;
    default:
        return jinja_fail(j, ERR_UNSUPPORTED, "'%s' has no template to load from here", n->name->s);
    }
}

int jinja_exec(struct jinja *j, struct jinja_frame *f, const struct jinja_node *body)
{
    int rc = jinja_enter(j) == 0 ? JINJA_DONE : -1;
    for (const struct jinja_node *n = body; n && rc == JINJA_DONE; n = n->next) {
        j->line = n->line;
        rc = jinja_charge(j, 1) == 0 ? exec_node(j, f, n) : -1;
    }
    jinja_leave(j);
    return rc;
}
