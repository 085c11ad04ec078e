/* What operators do to values: comparisons, membership, members and slices, with the sandbox's rules. */
#include <string.h>

#include "text/jinja.h"

int jinja_undefined(struct jinja *j, const char *object, const struct jinja_str *name, const char *hint, struct jinja_value *ret)
{
    struct jinja_undefined *u = jinja_alloc(j, 1, sizeof *u);
    if (!u)
        return -1;
    *u = (struct jinja_undefined){.object = object, .name = name, .hint = hint};
    *ret = (struct jinja_value){.type = JINJA_UNDEFINED, .undefined = u};
    return 0;
}

int jinja_fail_undefined(struct jinja *j, struct jinja_value v)
{
    const struct jinja_undefined *u = v.undefined;
    char name[80] = "?";
    if (u->name)
        err_printable(name, sizeof name, u->name->s, u->name->len);
    if (u->unsafe)
        return jinja_fail(j, ERR_UNSUPPORTED, "access to attribute '%s' of '%s' object is unsafe", name, u->object);
    if (u->hint)
        return jinja_fail(j, ERR_INPUT, "%s", u->hint);
    if (!u->object)
        return jinja_fail(j, ERR_INPUT, "'%s' is undefined", name);
    return jinja_fail(j, ERR_INPUT, "'%s%s' has no attribute '%s'", u->object, strcmp(u->object, "None") == 0 ? "" : " object", name);
}

int jinja_bind(struct jinja *j, struct jinja_value self, const struct jinja_builtin *b, struct jinja_value *ret)
{
    struct jinja_bound *m = jinja_alloc(j, 1, sizeof *m);
    if (!m)
        return -1;
    *m = (struct jinja_bound){.self = self, .function = b};
    *ret = (struct jinja_value){.type = JINJA_METHOD, .method = m};
    return 0;
}

/* --- comparisons -------------------------------------------------------- */

int jinja_compare(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b)
{
    static const char *const symbols[] = {[JINJA_OP_LT] = "<", [JINJA_OP_LE] = "<=", [JINJA_OP_GT] = ">", [JINJA_OP_GE] = ">="};
    int rc, order;
    switch (op) {
    case JINJA_OP_EQ:
        return jinja_equal(j, a, b);
    case JINJA_OP_NE:
        rc = jinja_equal(j, a, b);
        return rc < 0 ? -1 : !rc;
    case JINJA_OP_IN:
        return jinja_contains(j, b, a);
    case JINJA_OP_NOT_IN:
        rc = jinja_contains(j, b, a);
        return rc < 0 ? -1 : !rc;
    default:
        break;
    }
    if (jinja_order(j, a, b, symbols[op], &order) != 0)
        return -1;
    if (order == 2)
        return 0;
    return op == JINJA_OP_LT ? order < 0 : op == JINJA_OP_LE ? order <= 0 : op == JINJA_OP_GT ? order > 0 : order >= 0;
}

int jinja_contains(struct jinja *j, struct jinja_value container, struct jinja_value item)
{
    struct jinja_cursor c;
    struct jinja_value v;
    struct jinja_entry *e;
    int rc;

    if (container.type == JINJA_STR) {
        if (item.type != JINJA_STR)
            return jinja_fail(j, ERR_INPUT, "'in <string>' requires string as left operand, not %s", jinja_type_name(item));
        if (jinja_charge_bytes(j, container.str->len) != 0)
            return -1;
        return jinja_str_find(container.str, item.str, 0, container.str->len) != SIZE_MAX;
    }
    if (container.type == JINJA_DICT || (container.type == JINJA_VIEW && container.view->kind == JINJA_KEYS))
        return jinja_dict_find(j, container.type == JINJA_DICT ? container.dict : container.view->dict, item, &e) != 0 ? -1 : e != NULL;
    if (container.type == JINJA_NONE || jinja_is_number(container) || container.type >= JINJA_NAMESPACE)
        return jinja_fail(j, ERR_INPUT, "argument of type '%s' is not iterable", jinja_type_name(container));
    if (jinja_cursor_init(j, &c, container) != 0)
        return -1;
    while ((rc = jinja_cursor_next(j, &c, &v)) == 1) {
        int equal = jinja_equal(j, v, item);
        if (equal != 0)
            return equal;
    }
    return rc;
}

/* --- members ------------------------------------------------------------ */

static int undefined_member(struct jinja *j, struct jinja_value v, const struct jinja_str *name, struct jinja_value *ret)
{
    return jinja_undefined(j, v.type == JINJA_NONE ? "None" : jinja_type_name(v), name, NULL, ret);
}

/* Attributes that are no methods. 1 if there is one of that name, 0, -1. */
static int plain_attr(struct jinja *j, struct jinja_value v, const struct jinja_str *name, struct jinja_value *ret)
{
    const struct jinja_node *n;
    struct jinja_entry *e;
    struct jinja_list_buf names = {0};

    switch (v.type) {
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_FLOAT:
        if (jinja_str_is(name, "real") || (v.type != JINJA_FLOAT && jinja_str_is(name, "numerator")))
            *ret = v.type == JINJA_FLOAT ? v : jinja_int(jinja_as_int(v));
        else if (jinja_str_is(name, "imag"))
            *ret = v.type == JINJA_FLOAT ? jinja_float(0) : jinja_int(0);
        else if (v.type != JINJA_FLOAT && jinja_str_is(name, "denominator"))
            *ret = jinja_int(1);
        else
            return 0;
        return 1;
    case JINJA_TUPLE:
        if (!v.list->group || (!jinja_str_is(name, "grouper") && !jinja_str_is(name, "list")))
            return 0;
        *ret = v.list->items[name->s[0] == 'l'];
        return 1;
    case JINJA_RANGE:
        if (jinja_str_is(name, "start") || jinja_str_is(name, "stop") || jinja_str_is(name, "step")) {
            *ret = jinja_int(name->len == 5 ? v.range->start : name->s[2] == 'o' ? v.range->stop : v.range->step);
            return 1;
        }
        return 0;
    case JINJA_NAMESPACE:
        if (!(e = jinja_dict_get(v.dict, name)))
            return 0;
        *ret = e->value;
        return 1;
    case JINJA_LOOP:
        return jinja_loop_attr(j, v.loop, name, ret);
    case JINJA_MACRO:
        n = v.macro->node;
        if (jinja_str_is(name, "name")) {
            *ret = n->kind == JINJA_N_MACRO ? jinja_string(n->name) : jinja_none();
        } else if (jinja_str_is(name, "arguments")) {
            for (const struct jinja_node *p = n->list; p; p = p->next)
                if (jinja_list_push(j, &names, jinja_string(p->name)) != 0)
                    return -1;
            return jinja_list_value(j, &names, JINJA_TUPLE, ret) == 0 ? 1 : -1;
        } else if (jinja_str_is(name, "catch_kwargs") || jinja_str_is(name, "catch_varargs") || jinja_str_is(name, "caller")) {
            *ret = jinja_bool(n->wants & (name->len == 6    ? JINJA_WANTS_CALLER
                                          : name->len == 12 ? JINJA_WANTS_KWARGS
                                                            : JINJA_WANTS_VARARGS));
        } else {
            return 0;
        }
        return 1;
    case JINJA_CYCLER:
        if (!jinja_str_is(name, "current"))
            return 0;
        *ret = v.cycler->items->items[v.cycler->pos];
        return 1;
    default:
        return 0;
    }
}

/* As Python's getattr, with the sandbox's refusals: 1, 0 if there is no such attribute, -1. */
int jinja_attribute(struct jinja *j, struct jinja_value v, const struct jinja_str *name, struct jinja_value *ret)
{
    bool unsafe = false;
    int rc = jinja_charge_bytes(j, name->len) == 0 ? plain_attr(j, v, name, ret) : -1;
    if (rc != 0)
        return rc;
    if (v.type == JINJA_NAMESPACE) /* its attributes are its entries and nothing else */
        return 0;
    const struct jinja_builtin *method = jinja_find_method(v, name, &unsafe);
    static const char *const dunder[] = {"__class__", "__init__", "__doc__", "__dict__",   "__getattribute__", "__repr__",        "__str__",
                                         "__eq__",    "__hash__", "__new__", "__reduce__", "__module__",       "__subclasshook__"};
    for (size_t i = 0; i < sizeof dunder / sizeof *dunder; i++)
        unsafe |= jinja_str_is(name, dunder[i]);
    if (unsafe) {
        struct jinja_undefined *u = jinja_alloc(j, 1, sizeof *u);
        if (!u)
            return -1;
        *u = (struct jinja_undefined){.object = jinja_type_name(v), .name = name, .unsafe = true};
        *ret = (struct jinja_value){.type = JINJA_UNDEFINED, .undefined = u};
        return 1;
    }
    if (!method)
        return 0;
    return jinja_bind(j, v, method, ret) == 0 ? 1 : -1;
}

int jinja_getattr(struct jinja *j, struct jinja_value v, const struct jinja_str *name, struct jinja_value *ret)
{
    struct jinja_entry *e;
    int rc;
    if (v.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, v);
    if ((rc = jinja_attribute(j, v, name, ret)) != 0)
        return rc < 0 ? -1 : 0;
    if (v.type == JINJA_DICT && (e = jinja_dict_get(v.dict, name))) {
        *ret = e->value;
        return 0;
    }
    return undefined_member(j, v, name, ret);
}

/* 1 and the item, 0 where Python raises a TypeError or LookupError, -1. */
static int item(struct jinja *j, struct jinja_value v, struct jinja_value key, struct jinja_value *ret)
{
    struct jinja_entry *e;
    size_t n = 0;
    int64_t i;

    if (v.type == JINJA_DICT) {
        struct err *err = j->err, ignored = {0};
        if (key.type == JINJA_LIST || key.type == JINJA_DICT)
            return 0;
        j->err = &ignored;
        int rc = jinja_dict_find(j, v.dict, key, &e);
        j->err = err;
        if (rc != 0 && ignored.kind != ERR_INPUT)
            return err_set(err, ignored.kind, "%s", ignored.text);
        if (rc != 0 || !e)
            return 0;
        *ret = e->value;
        return 1;
    }
    if (!jinja_is_int(key) || (v.type != JINJA_STR && !jinja_is_seq(v) && v.type != JINJA_RANGE))
        return 0;
    jinja_length(v, &n);
    i = jinja_as_int(key);
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (size_t)i >= n)
        return 0;
    if (v.type == JINJA_RANGE) {
        *ret = jinja_int(v.range->start + i * v.range->step);
    } else if (v.type == JINJA_STR) {
        size_t from = jinja_str_offset(v.str, (size_t)i);
        struct jinja_cursor c = {.v = v, .pos = from, .end = v.str->len};
        if (jinja_charge_bytes(j, n) != 0)
            return -1;
        return jinja_cursor_next(j, &c, ret);
    } else {
        *ret = v.list->items[i];
    }
    return 1;
}

int jinja_getitem(struct jinja *j, struct jinja_value v, struct jinja_value key, struct jinja_value *ret)
{
    const struct jinja_str *name;
    int rc;
    if (v.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, v);
    if ((rc = item(j, v, key, ret)) != 0)
        return rc < 0 ? -1 : 0;
    if (key.type == JINJA_STR && (rc = jinja_attribute(j, v, key.str, ret)) != 0)
        return rc < 0 ? -1 : 0;
    struct jinja_text t = {0};
    if (key.type != JINJA_STR && jinja_repr(j, &t, key) != 0)
        return -1;
    name = key.type == JINJA_STR ? key.str : jinja_text_done(j, &t);
    return name ? undefined_member(j, v, name, ret) : -1;
}

/* --- slices ------------------------------------------------------------- */

static int slice_index(struct jinja *j, struct jinja_value v, int64_t *ret, bool *ret_given)
{
    *ret_given = jinja_given(v);
    if (!*ret_given)
        return 0;
    if (!jinja_is_int(v))
        return jinja_fail(j, ERR_INPUT, "slice indices must be integers or None or have an __index__ method");
    *ret = jinja_as_int(v);
    return 0;
}

static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high)
{
    if (i < 0)
        i += n;
    return i < low ? low : i > high ? high : i;
}

static int slice_string(struct jinja *j, const struct jinja_str *s, int64_t start, int64_t count, int64_t step, struct jinja_value *ret)
{
    struct jinja_text t = {0};
    const struct jinja_str *sub;
    if (jinja_charge_bytes(j, s->len) != 0)
        return -1;
    if (count == 0) { /* start may lie outside */
        *ret = jinja_string(jinja_str_new(j, "", 0, false));
        return ret->str ? 0 : -1;
    }
    if (step == 1) {
        size_t from = jinja_str_offset(s, (size_t)start);
        struct jinja_str rest = {.s = s->s + from, .len = s->len - from, .n_chars = s->n_chars == s->len ? s->len - from : SIZE_MAX};
        if (!(sub = jinja_str_sub(j, s, from, from + jinja_str_offset(&rest, (size_t)count))))
            return -1;
        *ret = jinja_string(sub);
        return 0;
    }
    /* Where every character begins: steps may go back. */
    size_t n = jinja_str_chars(s), c = 0, *at = jinja_alloc(j, n + 1, sizeof *at);
    if (!at)
        return -1;
    for (size_t i = 0; i < s->len; i++)
        if (((unsigned char)s->s[i] & 0xC0) != 0x80)
            at[c++] = i;
    at[n] = s->len;
    for (int64_t k = 0, i = start; k < count && !t.failed; k++, i += step)
        jinja_text_sub(j, &t, s, at[i], at[i + 1]);
    return jinja_charge(j, (size_t)count / 8) == 0 ? jinja_text_value(j, &t, ret) : -1;
}

int jinja_slice(struct jinja *j, struct jinja_value v, struct jinja_value first, struct jinja_value last, struct jinja_value by,
                struct jinja_value *ret)
{
    int64_t start = 0, stop = 0, step = 1, n, count;
    bool has_start, has_stop, has_step;
    size_t length = 0;

    if (v.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, v);
    if (v.type != JINJA_STR && !jinja_is_seq(v) && v.type != JINJA_RANGE)
        return v.type == JINJA_DICT ? jinja_fail(j, ERR_INPUT, "unhashable type: 'slice'")
                                    : jinja_fail(j, ERR_INPUT, "'%s' object is not subscriptable", jinja_type_name(v));
    if (slice_index(j, first, &start, &has_start) != 0 || slice_index(j, last, &stop, &has_stop) != 0 ||
        slice_index(j, by, &step, &has_step) != 0)
        return -1;
    if (step == 0)
        return jinja_fail(j, ERR_INPUT, "slice step cannot be zero");
    jinja_length(v, &length);
    n = (int64_t)length;
    if (step < -INT64_MAX)
        step = -INT64_MAX;
    start = has_start ? clamp(start, n, step < 0 ? -1 : 0, step < 0 ? n - 1 : n) : step < 0 ? n - 1 : 0;
    stop = has_stop ? clamp(stop, n, step < 0 ? -1 : 0, step < 0 ? n - 1 : n) : step < 0 ? -1 : n;
    count = step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0) : (stop < start ? (start - stop - 1) / -step + 1 : 0);
    if (v.type == JINJA_STR)
        return slice_string(j, v.str, start, count, step, ret);
    if (v.type == JINJA_RANGE) {
        struct jinja_range *r = jinja_alloc(j, 1, sizeof *r);
        if (!r)
            return -1;
        *r = (struct jinja_range){.start = v.range->start + start * v.range->step, .n = (size_t)count};
        r->step = count > 1 ? step * v.range->step : v.range->step;
        r->stop = v.range->start + stop * v.range->step;
        *ret = (struct jinja_value){.type = JINJA_RANGE, .range = r};
        return 0;
    }
    struct jinja_list_buf l = {.n = (size_t)count};
    if (step == 1) { /* a window into the same items, for nobody changes them */
        l.items = count ? v.list->items + start : NULL;
        return jinja_list_value(j, &l, v.type, ret);
    }
    if (jinja_charge(j, (size_t)count / 8) != 0 || !(l.items = jinja_alloc(j, (size_t)count, sizeof *l.items)))
        return -1;
    for (int64_t k = 0, i = start; k < count; k++, i += step)
        l.items[k] = v.list->items[i];
    return jinja_list_value(j, &l, v.type, ret);
}
