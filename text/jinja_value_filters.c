/* Filters on single values, and all tests. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

static int int_of_float(struct jinja *j, double f, struct jinja_value *ret)
{
    if (!(f >= -9223372036854775808.0 && f < 9223372036854775808.0))
        return jinja_fail(j, ERR_LIMIT, "cannot convert this float to a 64-bit integer");
    *ret = jinja_int((int64_t)f);
    return 0;
}

static int f_abs(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    if (!jinja_is_number(c->self))
        return jinja_fail(j, ERR_INPUT, "bad operand type for abs(): '%s'", jinja_type_name(c->self));
    if (c->self.type == JINJA_FLOAT) {
        *ret = jinja_float(fabs(c->self.f));
        return 0;
    }
    *ret = jinja_int(jinja_as_int(c->self));
    return ret->i < 0 ? jinja_negate(j, *ret, false, ret) : 0;
}

static int f_default(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    bool falsy = c->v[1].type != JINJA_MISSING && jinja_truth(c->v[1]) && !jinja_truth(c->self);
    *ret = c->self;
    if (c->self.type != JINJA_UNDEFINED && !falsy)
        return 0;
    *ret = c->v[0];
    if (c->v[0].type == JINJA_MISSING)
        *ret = jinja_string(jinja_str_new(j, "", 0, true));
    return ret->type == JINJA_STR && !ret->str ? -1 : 0;
}

static int f_float(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    double f;
    if (c->self.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, c->self);
    if (jinja_is_number(c->self))
        *ret = jinja_float(jinja_as_float(c->self));
    else if (c->self.type == JINJA_STR && jinja_parse_float(c->self.str->s, c->self.str->len, &f) == 0)
        *ret = jinja_float(f);
    else
        *ret = c->v[0].type == JINJA_MISSING ? jinja_float(0) : c->v[0];
    return 0;
}

static int f_int(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    int64_t base = c->v[1].type == JINJA_MISSING ? 10 : jinja_is_int(c->v[1]) ? jinja_as_int(c->v[1]) : -1, i;
    double f;
    if (c->self.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, c->self);
    *ret = c->v[0].type == JINJA_MISSING ? jinja_int(0) : c->v[0];
    if (jinja_is_int(c->self)) {
        *ret = jinja_int(jinja_as_int(c->self));
    } else if (c->self.type == JINJA_FLOAT) {
        return isnan(c->self.f) ? 0 : int_of_float(j, c->self.f, ret);
    } else if (c->self.type == JINJA_STR) {
        const struct jinja_str *s = c->self.str;
        if ((base == 0 || (base >= 2 && base <= 36)) && jinja_parse_int(s->s, s->len, (int)base, &i) == 0)
            *ret = jinja_int(i);
        else if (jinja_parse_float(s->s, s->len, &f) == 0 && isfinite(f))
            return int_of_float(j, f, ret);
    }
    return 0;
}

/* round(f, n) as Python: to the decimal that is nearest to the exact binary value. */
static double round_to(double f, int64_t digits)
{
    char buf[400];
    if (!isfinite(f) || digits > 330)
        return f;
    if (digits < -310)
        return 0 * f;
    if (digits < 0) {
        double scale = pow(10, (double)-digits);
        return nearbyint(f / scale) * scale;
    }
    snprintf(buf, sizeof buf, "%.*f", (int)(digits > 60 && fabs(f) > 1e300 ? 60 : digits), f);
    return strtod(buf, NULL);
}

static int f_round(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *method = c->v[1].type == JINJA_STR ? c->v[1].str : NULL;
    int64_t digits = 0;
    if (c->v[1].type != JINJA_MISSING &&
        (!method || !(jinja_str_is(method, "common") || jinja_str_is(method, "ceil") || jinja_str_is(method, "floor"))))
        return jinja_fail(j, ERR_INPUT, "method must be common, ceil or floor");
    if (jinja_given(c->v[0])) {
        if (!jinja_is_int(c->v[0]))
            return jinja_fail(j, ERR_INPUT, "round: precision must be an integer");
        digits = jinja_as_int(c->v[0]);
    }
    if (c->self.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, c->self);
    if (!jinja_is_number(c->self))
        return jinja_fail(j, ERR_INPUT, "type %s doesn't define __round__ method", jinja_type_name(c->self));
    if (method && !jinja_str_is(method, "common")) {
        struct jinja_value scale, scaled;
        double (*round)(double) = jinja_str_is(method, "ceil") ? ceil : floor;
        if (jinja_math(j, JINJA_OP_POW, jinja_int(10), jinja_int(digits), &scale) != 0 ||
            jinja_math(j, JINJA_OP_MUL, c->self, scale, &scaled) != 0)
            return -1;
        if (scaled.type == JINJA_FLOAT && int_of_float(j, round(scaled.f), &scaled) != 0)
            return -1;
        return jinja_math(j, JINJA_OP_DIV, scaled, scale, ret);
    }
    if (jinja_is_int(c->self)) {
        int64_t i = jinja_as_int(c->self);
        *ret = jinja_int(digits >= 0 ? i : digits < -18 ? 0 : (int64_t)round_to((double)i, digits));
        return 0;
    }
    *ret = jinja_float(round_to(c->self.f, digits));
    return 0;
}

static int f_filesizeformat(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    bool two = c->v[0].type != JINJA_MISSING && jinja_truth(c->v[0]);
    double bytes, base = two ? 1024 : 1000, unit = base;
    struct jinja_text t = {0};
    char buf[400];
    int i;

    if (jinja_is_number(c->self))
        bytes = jinja_as_float(c->self);
    else if (c->self.type != JINJA_STR || jinja_parse_float(c->self.str->s, c->self.str->len, &bytes) != 0)
        return jinja_fail(j, ERR_INPUT, "filesizeformat: not a number");
    if (!isfinite(bytes))
        return jinja_fail(j, ERR_INPUT, "filesizeformat: not a finite number");
    if (bytes == 1) {
        snprintf(buf, sizeof buf, "1 Byte");
    } else if (bytes < base) {
        snprintf(buf, sizeof buf, "%.0f Bytes", trunc(bytes));
    } else {
        for (i = 0, unit = base * base; i < 7 && bytes >= unit; i++)
            unit *= base;
        snprintf(buf, sizeof buf, "%.1f %s", base * bytes / unit, two ? binary[i] : decimal[i]);
    }
    jinja_text_puts(j, &t, buf);
    return jinja_text_value(j, &t, ret);
}

static const struct jinja_builtin value_filters[] = {
    {"abs", "/", f_abs, 0},
    {"d", "default_value?,boolean?", f_default, 0},
    {"default", "default_value?,boolean?", f_default, 0},
    {"filesizeformat", "binary?", f_filesizeformat, 0},
    {"float", "default?", f_float, 0},
    {"int", "default?,base?", f_int, 0},
    {"pprint", "", NULL, 0},
    {"round", "precision?,method?", f_round, 0},
};

const struct jinja_builtin *jinja_find_filter(const char *name, size_t len)
{
    const struct jinja_builtin *b = jinja_find_in(jinja_text_filters, jinja_n_text_filters, name, len);
    if (!b)
        b = jinja_find_in(jinja_seq_filters, jinja_n_seq_filters, name, len);
    return b ? b : jinja_find_in(value_filters, sizeof value_filters / sizeof *value_filters, name, len);
}

/* --- tests -------------------------------------------------------------- */

enum kind_test {
    IS_BOOLEAN,
    IS_FALSE,
    IS_TRUE,
    IS_INTEGER,
    IS_FLOAT,
    IS_NUMBER,
    IS_STRING,
    IS_MAPPING,
    IS_SEQUENCE,
    IS_ITERABLE,
    IS_CALLABLE,
    IS_DEFINED,
    IS_UNDEFINED,
    IS_NONE,
    IS_ESCAPED
};

static int t_kind(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_value v = c->self;
    size_t n;
    bool is = false;
    (void)j;
    switch ((enum kind_test)c->builtin->tag) {
    case IS_BOOLEAN:
        is = v.type == JINJA_BOOL;
        break;
    case IS_FALSE:
        is = v.type == JINJA_BOOL && !v.b;
        break;
    case IS_TRUE:
        is = v.type == JINJA_BOOL && v.b;
        break;
    case IS_INTEGER:
        is = v.type == JINJA_INT;
        break;
    case IS_FLOAT:
        is = v.type == JINJA_FLOAT;
        break;
    case IS_NUMBER:
        is = jinja_is_number(v);
        break;
    case IS_STRING:
        is = v.type == JINJA_STR;
        break;
    case IS_MAPPING:
        is = v.type == JINJA_DICT;
        break;
    case IS_SEQUENCE:
        is = jinja_length(v, &n) && v.type != JINJA_VIEW;
        break;
    case IS_ITERABLE:
        is = jinja_length(v, &n) || v.type == JINJA_ITER || v.type == JINJA_LOOP;
        break;
    case IS_CALLABLE:
        is = v.type == JINJA_UNDEFINED || v.type == JINJA_FUNCTION || v.type == JINJA_METHOD || v.type == JINJA_MACRO ||
             v.type == JINJA_JOINER || v.type == JINJA_LOOP;
        break;
    case IS_DEFINED:
        is = v.type != JINJA_UNDEFINED;
        break;
    case IS_UNDEFINED:
        is = v.type == JINJA_UNDEFINED;
        break;
    case IS_NONE:
        is = v.type == JINJA_NONE;
        break;
    case IS_ESCAPED:
        is = v.type == JINJA_STR && v.str->markup;
        break;
    }
    *ret = jinja_bool(is);
    return 0;
}

static int t_compare(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    int rc = jinja_compare(j, c->builtin->tag, c->self, c->v[0]);
    *ret = jinja_bool(rc == 1);
    return rc < 0 ? -1 : 0;
}

/* odd, even, divisibleby: the remainder by tag, or by the argument, is compared. */
static int t_remainder(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_value by = c->builtin->tag < 0 ? c->v[0] : jinja_int(2), rest;
    int rc;
    if (jinja_math(j, JINJA_OP_MOD, c->self, by, &rest) != 0)
        return -1;
    if ((rc = jinja_equal(j, rest, jinja_int(c->builtin->tag == 1))) < 0)
        return -1;
    *ret = jinja_bool(rc);
    return 0;
}

static int t_case(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    if (!s || jinja_charge_bytes(j, 4 * s->len) != 0)
        return -1;
    *ret = jinja_bool(jinja_all_case(s, c->builtin->tag));
    return 0;
}

static int t_known(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    if (c->self.type == JINJA_LIST || c->self.type == JINJA_DICT)
        return jinja_fail(j, ERR_INPUT, "unhashable type: '%s'", jinja_type_name(c->self));
    *ret = jinja_bool(c->self.type == JINJA_STR && (c->builtin->tag ? jinja_find_filter(c->self.str->s, c->self.str->len)
                                                                    : jinja_find_test(c->self.str->s, c->self.str->len)));
    return 0;
}

static int t_sameas(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_value a = c->self, b = c->v[0];
    bool same = a.type == b.type;
    (void)j;
    switch (a.type) {
    case JINJA_NONE:
        break;
    case JINJA_BOOL:
        same = same && a.b == b.b;
        break;
    case JINJA_INT:
        same = same && a.i == b.i;
        break;
    case JINJA_FLOAT:
        same = same && a.f == b.f;
        break;
    case JINJA_STR:
        same = same && jinja_str_equal(a.str, b.str);
        break; /* Python shares most equal strings, too */
    default:
        same = same && a.list == b.list;
    }
    *ret = jinja_bool(same);
    return 0;
}

static const struct jinja_builtin tests[] = {
    {"!=", "other", t_compare, JINJA_OP_NE},
    {"<", "other", t_compare, JINJA_OP_LT},
    {"<=", "other", t_compare, JINJA_OP_LE},
    {"==", "other", t_compare, JINJA_OP_EQ},
    {">", "other", t_compare, JINJA_OP_GT},
    {">=", "other", t_compare, JINJA_OP_GE},
    {"boolean", "", t_kind, IS_BOOLEAN},
    {"callable", "/", t_kind, IS_CALLABLE},
    {"defined", "", t_kind, IS_DEFINED},
    {"divisibleby", "num", t_remainder, -1},
    {"eq", "/other", t_compare, JINJA_OP_EQ},
    {"equalto", "/other", t_compare, JINJA_OP_EQ},
    {"escaped", "", t_kind, IS_ESCAPED},
    {"even", "", t_remainder, 0},
    {"false", "", t_kind, IS_FALSE},
    {"filter", "", t_known, 1},
    {"float", "", t_kind, IS_FLOAT},
    {"ge", "/other", t_compare, JINJA_OP_GE},
    {"greaterthan", "/other", t_compare, JINJA_OP_GT},
    {"gt", "/other", t_compare, JINJA_OP_GT},
    {"in", "seq", t_compare, JINJA_OP_IN},
    {"integer", "", t_kind, IS_INTEGER},
    {"iterable", "", t_kind, IS_ITERABLE},
    {"le", "/other", t_compare, JINJA_OP_LE},
    {"lessthan", "/other", t_compare, JINJA_OP_LT},
    {"lower", "", t_case, 0},
    {"lt", "/other", t_compare, JINJA_OP_LT},
    {"mapping", "", t_kind, IS_MAPPING},
    {"ne", "/other", t_compare, JINJA_OP_NE},
    {"none", "", t_kind, IS_NONE},
    {"number", "", t_kind, IS_NUMBER},
    {"odd", "", t_remainder, 1},
    {"sameas", "other", t_sameas, 0},
    {"sequence", "", t_kind, IS_SEQUENCE},
    {"string", "", t_kind, IS_STRING},
    {"test", "", t_known, 0},
    {"true", "", t_kind, IS_TRUE},
    {"undefined", "", t_kind, IS_UNDEFINED},
    {"upper", "", t_case, 1},
};

const struct jinja_builtin *jinja_find_test(const char *name, size_t len)
{
    return jinja_find_in(tests, sizeof tests / sizeof *tests, name, len);
}
