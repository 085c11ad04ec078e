/* Values: their names, truth, equality, order, and how one iterates over them. See jinja_value.h. */
#include "text/jinja_value.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"
#include "text/jinja_loop.h"

struct jinja_value jinja_none(void)
{
    return (struct jinja_value){.type = JINJA_NONE};
}

struct jinja_value jinja_bool(bool b)
{
    return (struct jinja_value){.type = JINJA_BOOL, .b = b};
}

struct jinja_value jinja_int(int64_t i)
{
    return (struct jinja_value){.type = JINJA_INT, .i = i};
}

struct jinja_value jinja_float(double f)
{
    return (struct jinja_value){.type = JINJA_FLOAT, .f = f};
}

struct jinja_value jinja_string(const struct jinja_str *s)
{
    return (struct jinja_value){.type = JINJA_STR, .str = s};
}

bool jinja_given(struct jinja_value v)
{
    return v.type != JINJA_MISSING && v.type != JINJA_NONE;
}

const char *jinja_type_name(struct jinja_value v)
{
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    static const char *const names[] = {
        [JINJA_UNDEFINED] = "Undefined", [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",           [JINJA_INT] = "int",
        [JINJA_FLOAT] = "float",         [JINJA_STR] = "str",
        [JINJA_LIST] = "list",           [JINJA_TUPLE] = "tuple",
        [JINJA_DICT] = "dict",           [JINJA_RANGE] = "range",
        [JINJA_ITER] = "generator",      [JINJA_NAMESPACE] = "Namespace",
        [JINJA_LOOP] = "LoopContext",    [JINJA_MACRO] = "Macro",
        [JINJA_FUNCTION] = "function",   [JINJA_METHOD] = "builtin_function_or_method",
        [JINJA_CYCLER] = "Cycler",       [JINJA_JOINER] = "Joiner",
        [JINJA_MISSING] = "MissingType",
    };
    if (v.type == JINJA_VIEW)
        return views[v.view->kind];
    if (v.type == JINJA_STR && v.str->markup)
        return "Markup";
    if (v.type == JINJA_ITER)
        return v.iter->type_name;
    return names[v.type];
}

bool jinja_is_int(struct jinja_value v)
{
    return v.type == JINJA_INT || v.type == JINJA_BOOL;
}

bool jinja_is_number(struct jinja_value v)
{
    return jinja_is_int(v) || v.type == JINJA_FLOAT;
}

int64_t jinja_as_int(struct jinja_value v)
{
    return v.type == JINJA_BOOL ? v.b : v.i;
}

double jinja_as_float(struct jinja_value v)
{
    return v.type == JINJA_FLOAT ? v.f : (double)jinja_as_int(v);
}

bool jinja_is_seq(struct jinja_value v)
{
    return v.type == JINJA_LIST || v.type == JINJA_TUPLE;
}

bool jinja_length(struct jinja_value v, size_t *ret)
{
    switch (v.type) {
    case JINJA_UNDEFINED:
        *ret = 0;
        return true;
    case JINJA_STR:
        *ret = jinja_str_chars(v.str);
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
        *ret = v.list->n;
        return true;
    case JINJA_DICT:
        *ret = v.dict->n;
        return true;
    case JINJA_VIEW:
        *ret = v.view->dict->n;
        return true;
    case JINJA_RANGE:
        *ret = v.range->n;
        return true;
    default:
        return false;
    }
}

bool jinja_truth(struct jinja_value v)
{
    size_t n;
    switch (v.type) {
    case JINJA_NONE:
    case JINJA_UNDEFINED:
    case JINJA_MISSING:
        return false;
    case JINJA_BOOL:
        return v.b;
    case JINJA_INT:
        return v.i != 0;
    case JINJA_FLOAT:
        return v.f != 0;
    case JINJA_STR:
        return v.str->len != 0;
    default:
        return jinja_length(v, &n) ? n != 0 : true;
    }
}

/* --- equality and order ------------------------------------------------- */

static int equal_lists(struct jinja *j, const struct jinja_list *a, const struct jinja_list *b)
{
    int rc = 1;
    if (a->n != b->n)
        return 0;
    for (size_t i = 0; i < a->n && rc == 1; i++)
        rc = jinja_equal(j, a->items[i], b->items[i]);
    return rc;
}

static int equal_dicts(struct jinja *j, const struct jinja_dict *a, const struct jinja_dict *b)
{
    int rc = 1;
    if (a->n != b->n)
        return 0;
    for (size_t i = 0; i < a->n && rc == 1; i++) {
        struct jinja_entry *e;
        if (jinja_dict_find(j, b, a->entries[i].key, &e) != 0)
            return -1;
        rc = e ? jinja_equal(j, a->entries[i].value, e->value) : 0;
    }
    return rc;
}

/* An int against a float, exactly: -1, 0, 1, or 2 for NaN. */
static int order_int_float(int64_t i, double f)
{
    if (isnan(f))
        return 2;
    if (f >= 9223372036854775808.0)
        return -1;
    if (f < -9223372036854775808.0)
        return 1;
    int64_t whole = (int64_t)f;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int order_numbers(struct jinja_value a, struct jinja_value b)
{
    if (a.type == JINJA_FLOAT && b.type == JINJA_FLOAT)
        return isnan(a.f) || isnan(b.f) ? 2 : a.f < b.f ? -1 : a.f > b.f;
    if (a.type == JINJA_FLOAT) {
        int o = order_int_float(jinja_as_int(b), a.f);
        return o == 2 ? 2 : -o;
    }
    if (b.type == JINJA_FLOAT)
        return order_int_float(jinja_as_int(a), b.f);
    return jinja_as_int(a) < jinja_as_int(b) ? -1 : jinja_as_int(a) > jinja_as_int(b);
}

int jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    int rc;
    if (jinja_is_number(a) && jinja_is_number(b))
        return order_numbers(a, b) == 0;
    if (a.type != b.type || jinja_charge(j, 1) != 0)
        return a.type == b.type ? -1 : 0;
    switch (a.type) {
    case JINJA_NONE:
    case JINJA_UNDEFINED:
        return 1;
    case JINJA_STR:
        if (a.str->len != b.str->len)
            return 0;
        return jinja_charge_bytes(j, a.str->len) != 0 ? -1 : jinja_str_equal(a.str, b.str);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        if (jinja_enter(j) != 0)
            rc = -1;
        else
            rc = a.type == JINJA_DICT ? equal_dicts(j, a.dict, b.dict) : equal_lists(j, a.list, b.list);
        jinja_leave(j);
        return rc;
    case JINJA_RANGE:
        return a.range->n == b.range->n &&
               (a.range->n == 0 || (a.range->start == b.range->start && (a.range->n == 1 || a.range->step == b.range->step)));
    case JINJA_METHOD:
        return a.method->function == b.method->function && jinja_equal(j, a.method->self, b.method->self);
    default:
        return a.list == b.list; /* the same object */
    }
}

static int no_order(struct jinja *j, struct jinja_value a, struct jinja_value b, const char *op)
{
    if (a.type == JINJA_UNDEFINED || b.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, a.type == JINJA_UNDEFINED ? a : b);
    return jinja_fail(j, ERR_INPUT, "'%s' not supported between instances of '%s' and '%s'", op, jinja_type_name(a), jinja_type_name(b));
}

static int order_lists(struct jinja *j, const struct jinja_list *a, const struct jinja_list *b, const char *op, int *ret)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        int rc = jinja_equal(j, a->items[i], b->items[i]);
        if (rc < 0)
            return -1;
        if (rc == 0)
            return jinja_order(j, a->items[i], b->items[i], op, ret);
    }
    *ret = a->n < b->n ? -1 : a->n > b->n;
    return 0;
}

int jinja_order(struct jinja *j, struct jinja_value a, struct jinja_value b, const char *op, int *ret)
{
    int rc;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *ret = order_numbers(a, b);
        return 0;
    }
    if (a.type != b.type)
        return no_order(j, a, b, op);
    if (a.type == JINJA_STR) {
        *ret = jinja_str_compare(a.str, b.str);
        return jinja_charge_bytes(j, a.str->len);
    }
    if (!jinja_is_seq(a))
        return no_order(j, a, b, op);
    rc = jinja_enter(j) == 0 ? order_lists(j, a.list, b.list, op, ret) : -1;
    jinja_leave(j);
    return rc;
}

/* --- iteration ---------------------------------------------------------- */

int jinja_cursor_init(struct jinja *j, struct jinja_cursor *c, struct jinja_value v)
{
    *c = (struct jinja_cursor){.v = v};
    switch (v.type) {
    case JINJA_UNDEFINED:
        return 0;
    case JINJA_STR:
        c->end = v.str->len;
        return 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
        c->end = v.list->n;
        return 0;
    case JINJA_DICT:
        c->end = v.dict->n;
        return 0;
    case JINJA_VIEW:
        c->end = v.view->dict->n;
        return 0;
    case JINJA_RANGE:
        c->end = v.range->n;
        return 0;
    case JINJA_ITER:
    case JINJA_LOOP:
        return 0;
    default:
        return jinja_fail(j, ERR_INPUT, "'%s' object is not iterable", jinja_type_name(v));
    }
}

static int next_char(struct jinja *j, struct jinja_cursor *c, struct jinja_value *ret)
{
    size_t l = utf8_len(c->v.str->s + c->pos, c->end - c->pos);
    const struct jinja_str *s = jinja_str_sub(j, c->v.str, c->pos, c->pos + (l ? l : 1));
    c->pos += l ? l : 1;
    *ret = jinja_string(s);
    return s ? 1 : -1;
}

int jinja_cursor_next(struct jinja *j, struct jinja_cursor *c, struct jinja_value *ret)
{
    const struct jinja_entry *e;
    size_t i = c->pos;
    if (jinja_charge(j, 1) != 0)
        return -1;
    if (c->v.type == JINJA_ITER) {
        if (c->v.iter->pos >= c->v.iter->list->n && c->v.iter->failed)
            return err_set(j->err, c->v.iter->failed->kind, "%s", c->v.iter->failed->text);
        if (c->v.iter->pos >= c->v.iter->list->n)
            return 0;
        *ret = c->v.iter->list->items[c->v.iter->pos++];
        return 1;
    }
    if (c->v.type == JINJA_LOOP)
        return jinja_loop_iterate(j, c->v.loop, ret);
    if (i >= c->end)
        return 0;
    if (c->v.type == JINJA_STR)
        return next_char(j, c, ret);
    c->pos++;
    switch (c->v.type) {
    case JINJA_DICT:
        *ret = c->v.dict->entries[i].key;
        return 1;
    case JINJA_RANGE:
        *ret = jinja_int(c->v.range->start + (int64_t)i * c->v.range->step);
        return 1;
    case JINJA_VIEW:
        e = &c->v.view->dict->entries[i];
        if (c->v.view->kind == JINJA_ITEMS)
            return jinja_pair(j, e->key, e->value, ret) == 0 ? 1 : -1;
        *ret = c->v.view->kind == JINJA_KEYS ? e->key : e->value;
        return 1;
    default:
        *ret = c->v.list->items[i];
        return 1;
    }
}

int jinja_collect(struct jinja *j, struct jinja_value v, struct jinja_list_buf *ret)
{
    struct jinja_cursor c;
    struct jinja_value item;
    int rc;
    *ret = (struct jinja_list_buf){0};
    if (jinja_cursor_init(j, &c, v) != 0)
        return -1;
    while ((rc = jinja_cursor_next(j, &c, &item)) == 1)
        if (jinja_list_push(j, ret, item) != 0)
            return -1;
    return rc;
}
