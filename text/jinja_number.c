/* Numbers as Python reads and writes them, whatever the locale; and its arithmetic. Integers have 64 bits here: beyond
 * that is an error. */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

enum { MAX_NUMBER_CHARS = 512 }; /* of a float's text */

/* Trims ASCII blanks; copies without _ (which must stand between digits) and with the locale's point. 0, or -1. */
static int clean(const char *s, size_t len, char *buf, size_t size)
{
    char point = localeconv()->decimal_point[0];
    size_t n = 0;
    while (len && strchr(" \t\n\r\f\v", s[0]) && s[0])
        s++, len--;
    while (len && strchr(" \t\n\r\f\v", s[len - 1]) && s[len - 1])
        len--;
    if (len == 0 || len >= size)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '_') {
            if (i == 0 || i + 1 == len || !strchr("0123456789abcdefABCDEF", s[i - 1]) || !strchr("0123456789abcdefABCDEF", s[i + 1]))
                return -1;
            continue;
        }
        if (!s[i])
            return -1;
        buf[n++] = s[i] == '.' ? point : s[i];
    }
    buf[n] = '\0';
    return 0;
}

int jinja_parse_float(const char *s, size_t len, double *ret)
{
    char buf[MAX_NUMBER_CHARS], *end;
    const char *p = buf;
    if (clean(s, len, buf, sizeof buf) != 0)
        return -1;
    p += *p == '-' || *p == '+';
    if (strcasecmp(p, "inf") != 0 && strcasecmp(p, "infinity") != 0 && strcasecmp(p, "nan") != 0 &&
        (strpbrk(p, "xXpPiInN") || !strpbrk(p, "0123456789")))
        return -1;
    *ret = strtod(buf, &end);
    return *end ? -1 : 0;
}

int jinja_parse_int(const char *s, size_t len, int base, int64_t *ret)
{
    char buf[128];
    bool negative;
    const char *p = buf;
    int64_t value = 0;

    if (clean(s, len, buf, sizeof buf) != 0)
        return -1;
    negative = *p == '-';
    p += *p == '-' || *p == '+';
    if (p[0] == '0' && p[1]) {
        int prefix = (p[1] | 32) == 'x' ? 16 : (p[1] | 32) == 'o' ? 8 : (p[1] | 32) == 'b' ? 2 : 0;
        if (prefix && (base == 0 || base == prefix)) {
            base = prefix;
            p += 2;
        }
    }
    if (base == 0) {
        base = 10;
        if (*p == '0' && strspn(p, "0") != strlen(p))
            return -1;
    }
    if (!*p)
        return -1;
    for (; *p; p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : (*p | 32) >= 'a' && (*p | 32) <= 'z' ? (*p | 32) - 'a' + 10 : 99;
        if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
            (negative ? __builtin_sub_overflow(value, digit, &value) : __builtin_add_overflow(value, digit, &value)))
            return -1;
    }
    *ret = value;
    return 0;
}

/* The fewest digits that read back as the same number. */
void jinja_float_repr(double f, char buf[static JINJA_FLOAT_CHARS])
{
    char digits[JINJA_FLOAT_CHARS], *e;
    int precision = 0, exponent, n = 0;

    if (isnan(f) || isinf(f)) {
        snprintf(buf, JINJA_FLOAT_CHARS, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    do
        snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    e = strchr(digits, 'e');
    exponent = (int)strtol(e + 1, NULL, 10);
    char *d = digits;
    if (*d == '-')
        buf[n++] = *d++;
    /* digits: d, a point of some locale, precision more */
    char all[JINJA_FLOAT_CHARS] = "0";
    int count = 0;
    for (; d < e; d++)
        if (*d >= '0' && *d <= '9')
            all[count++] = *d;
    if (exponent < -4 || exponent >= 16) {
        buf[n++] = all[0];
        if (count > 1) {
            buf[n++] = '.';
            memcpy(buf + n, all + 1, (size_t)count - 1);
            n += count - 1;
        }
        snprintf(buf + n, (size_t)(JINJA_FLOAT_CHARS - n), "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        buf[n++] = '0';
        buf[n++] = '.';
        for (int i = -1; i > exponent; i--)
            buf[n++] = '0';
        memcpy(buf + n, all, (size_t)count);
        n += count;
    } else {
        for (int i = 0; i < count || i <= exponent; i++) {
            if (i == exponent + 1)
                buf[n++] = '.';
            buf[n++] = i < count ? all[i] : '0';
        }
        if (count <= exponent + 1) {
            buf[n++] = '.';
            buf[n++] = '0';
        }
    }
    buf[n] = '\0';
}

/* --- arithmetic --------------------------------------------------------- */

static int overflow(struct jinja *j)
{
    return jinja_fail(j, ERR_LIMIT, "integer result beyond 64 bits");
}

static int divide_by_zero(struct jinja *j)
{
    return jinja_fail(j, ERR_INPUT, "division by zero");
}

static int int_power(struct jinja *j, int64_t a, int64_t b, struct jinja_value *ret)
{
    int64_t result = 1;
    if (b < 0) {
        if (a == 0)
            return divide_by_zero(j);
        *ret = jinja_float(pow((double)a, (double)b));
        return 0;
    }
    for (;; b >>= 1) {
        if ((b & 1) && __builtin_mul_overflow(result, a, &result))
            return overflow(j);
        if (b < 2)
            break;
        if (__builtin_mul_overflow(a, a, &a))
            return overflow(j);
    }
    *ret = jinja_int(result);
    return 0;
}

static int int_math(struct jinja *j, enum jinja_op op, int64_t a, int64_t b, struct jinja_value *ret)
{
    int64_t r = 0;
    bool bad = false;
    switch (op) {
    case JINJA_OP_ADD:
        bad = __builtin_add_overflow(a, b, &r);
        break;
    case JINJA_OP_SUB:
        bad = __builtin_sub_overflow(a, b, &r);
        break;
    case JINJA_OP_MUL:
        bad = __builtin_mul_overflow(a, b, &r);
        break;
    case JINJA_OP_DIV:
        if (b == 0)
            return divide_by_zero(j);
        *ret = jinja_float((double)a / (double)b);
        return 0;
    case JINJA_OP_FLOORDIV:
        if (b == 0)
            return divide_by_zero(j);
        if (b == -1)
            bad = __builtin_sub_overflow((int64_t)0, a, &r);
        else
            r = a / b - (a % b != 0 && (a % b < 0) != (b < 0));
        break;
    case JINJA_OP_MOD:
        if (b == 0)
            return jinja_fail(j, ERR_INPUT, "integer modulo by zero");
        r = b == -1 ? 0 : a % b;
        if (r != 0 && (r < 0) != (b < 0))
            r += b;
        break;
    default:
        return int_power(j, a, b, ret);
    }
    *ret = jinja_int(r);
    return bad ? overflow(j) : 0;
}

static int float_math(struct jinja *j, enum jinja_op op, double a, double b, struct jinja_value *ret)
{
    double r = 0;
    switch (op) {
    case JINJA_OP_ADD:
        r = a + b;
        break;
    case JINJA_OP_SUB:
        r = a - b;
        break;
    case JINJA_OP_MUL:
        r = a * b;
        break;
    case JINJA_OP_DIV:
        if (b == 0)
            return divide_by_zero(j);
        r = a / b;
        break;
    case JINJA_OP_FLOORDIV:
    case JINJA_OP_MOD: {
        if (b == 0)
            return divide_by_zero(j);
        double mod = fmod(a, b), div = (a - mod) / b;
        if (mod != 0 && (mod < 0) != (b < 0)) {
            mod += b;
            div -= 1;
        } else if (mod == 0) {
            mod = copysign(0, b);
        }
        if (div != 0) {
            double whole = floor(div);
            r = div - whole > 0.5 ? whole + 1 : whole;
        } else {
            r = copysign(0, a / b);
        }
        if (op == JINJA_OP_MOD)
            r = mod;
        break;
    }
    default:
        if (a == 0 && b < 0)
            return jinja_fail(j, ERR_INPUT, "0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
            return jinja_fail(j, ERR_UNSUPPORTED, "complex numbers are not supported");
        r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b))
            return jinja_fail(j, ERR_INPUT, "numerical result out of range");
    }
    *ret = jinja_float(r);
    return 0;
}

static const char *const symbols[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

static int repeat(struct jinja *j, struct jinja_value v, int64_t times, struct jinja_value *ret)
{
    size_t n = times > 0 ? (size_t)times : 0, total;
    if (v.type == JINJA_STR) {
        struct jinja_text t = {0};
        if (!mem_mul(n, v.str->len, &total) || jinja_charge_bytes(j, total) != 0 || total > j->arena.max)
            return jinja_fail(j, ERR_LIMIT, "a string repeated %zu times is too long", n);
        for (size_t i = 0; i < n && v.str->len && !t.failed; i++)
            jinja_text_str(j, &t, v.str);
        if (jinja_text_value(j, &t, ret) != 0)
            return -1;
        if (v.str->markup && !(ret->str = jinja_str_markup(j, ret->str, true)))
            return -1;
        return jinja_charge(j, v.str->len ? n / 8 : 0);
    }
    struct jinja_list_buf l = {0};
    if (!mem_mul(n, v.list->n, &total) || jinja_charge(j, total) != 0)
        return jinja_fail(j, ERR_LIMIT, "a list repeated %zu times is too long", n);
    for (size_t i = 0; i < total; i++)
        if (jinja_list_push(j, &l, v.list->items[i % v.list->n]) != 0)
            return -1;
    return jinja_list_value(j, &l, v.type, ret);
}

static int add_strings(struct jinja *j, const struct jinja_str *a, const struct jinja_str *b, struct jinja_value *ret)
{
    bool markup = a->markup || b->markup;
    if (markup && !a->markup)
        a = jinja_escape(j, a);
    if (markup && b && !b->markup)
        b = jinja_escape(j, b);
    const struct jinja_str *s = a && b ? jinja_str_concat(j, a, b) : NULL;
    if (!s || !(s = jinja_str_markup(j, s, markup)))
        return -1;
    *ret = jinja_string(s);
    return 0;
}

int jinja_math(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b, struct jinja_value *ret)
{
    if (jinja_is_int(a) && jinja_is_int(b))
        return int_math(j, op, jinja_as_int(a), jinja_as_int(b), ret);
    if (jinja_is_number(a) && jinja_is_number(b))
        return float_math(j, op, jinja_as_float(a), jinja_as_float(b), ret);
    if (op == JINJA_OP_MOD && a.type == JINJA_STR)
        return jinja_format_percent(j, a.str, b, ret);
    if (a.type == JINJA_UNDEFINED || b.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, a.type == JINJA_UNDEFINED ? a : b);
    if (op == JINJA_OP_ADD) {
        if (a.type == JINJA_STR && b.type == JINJA_STR)
            return add_strings(j, a.str, b.str, ret);
        if (jinja_is_seq(a) && a.type == b.type)
            return jinja_list_concat(j, a, b, ret);
        if (a.type == JINJA_STR || jinja_is_seq(a))
            return jinja_fail(j, ERR_INPUT, "can only concatenate %s (not \"%s\") to %s", jinja_type_name(a), jinja_type_name(b),
                              jinja_type_name(a));
    }
    if (op == JINJA_OP_MUL) {
        if ((a.type == JINJA_STR || jinja_is_seq(a)) && jinja_is_int(b))
            return repeat(j, a, jinja_as_int(b), ret);
        if ((b.type == JINJA_STR || jinja_is_seq(b)) && jinja_is_int(a))
            return repeat(j, b, jinja_as_int(a), ret);
    }
    return jinja_fail(j, ERR_INPUT, "unsupported operand type(s) for %s: '%s' and '%s'", symbols[op], jinja_type_name(a),
                      jinja_type_name(b));
}

int jinja_negate(struct jinja *j, struct jinja_value v, bool positive, struct jinja_value *ret)
{
    int64_t i;
    if (v.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, v);
    if (v.type == JINJA_FLOAT) {
        *ret = jinja_float(positive ? v.f : -v.f);
        return 0;
    }
    if (!jinja_is_int(v))
        return jinja_fail(j, ERR_INPUT, "bad operand type for unary %c: '%s'", positive ? '+' : '-', jinja_type_name(v));
    if (positive)
        i = jinja_as_int(v);
    else if (__builtin_sub_overflow((int64_t)0, jinja_as_int(v), &i))
        return overflow(j);
    *ret = jinja_int(i);
    return 0;
}
