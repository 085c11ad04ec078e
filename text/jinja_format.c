/* 'text %s' % values and 'text {}'.format(values), with the sandbox's rules for attributes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"

enum { MAX_WIDTH = 1 << 16, MAX_PRECISION = 200, NUMBER_CHARS = 700 };

/* --- one value ---------------------------------------------------------- */

/* Writes digits with a separator every three of the whole part. */
static void group_digits(char *buf, size_t size, char separator)
{
    char copy[NUMBER_CHARS];
    size_t whole = strspn(buf, "0123456789"), n = 0;
    snprintf(copy, sizeof copy, "%s", buf);
    for (size_t i = 0; copy[i] && n + 2 < size; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0)
            buf[n++] = separator;
        buf[n++] = copy[i];
    }
    buf[n] = '\0';
}

static int format_int(struct jinja *j, int64_t i, const struct jinja_spec *spec, char *buf, size_t size)
{
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char digits[80];
    size_t n = sizeof digits;
    unsigned base = spec->type == 'x' || spec->type == 'X' ? 16 : spec->type == 'o' ? 8 : spec->type == 'b' ? 2 : 10;
    digits[--n] = '\0';
    do {
        unsigned d = (unsigned)(u % base);
        digits[--n] = (char)(d < 10 ? '0' + d : (spec->type == 'X' ? 'A' : 'a') + d - 10);
        u /= base;
    } while (u);
    const char *prefix = !spec->alternate || base == 10 ? "" : base == 8 ? "0o" : base == 2 ? "0b" : spec->type == 'X' ? "0X" : "0x";
    int zeros = spec->precision - (int)(sizeof digits - 1 - n);
    if (zeros > MAX_PRECISION)
        return jinja_fail(j, ERR_LIMIT, "format precision above %d", MAX_PRECISION);
    snprintf(buf, size, "%s%.*s%s", prefix, zeros > 0 ? zeros : 0,
             "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
             "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
             digits + n);
    return 0;
}

static int format_float(struct jinja *j, double f, const struct jinja_spec *spec, char *buf, size_t size)
{
    char format[16], type = spec->type == 'n' || spec->type == 0 ? 'g' : spec->type == '%' ? 'f' : spec->type;
    double a = fabs(f) * (spec->type == '%' ? 100 : 1);
    if (spec->precision > MAX_PRECISION)
        return jinja_fail(j, ERR_LIMIT, "format precision above %d", MAX_PRECISION);
    if (isnan(f) || isinf(f)) {
        snprintf(buf, size, "%s", type == 'F' || type == 'E' || type == 'G' ? (isnan(f) ? "NAN" : "INF") : isnan(f) ? "nan" : "inf");
    } else if (spec->type == 0 && spec->precision < 0) {
        jinja_float_repr(a, buf);
    } else {
        snprintf(format, sizeof format, "%%%s.*%c", spec->alternate ? "#" : "", type);
        /* the format is one of a few, made here */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(buf, size, format, spec->precision < 0 ? 6 : spec->precision, a);
#pragma GCC diagnostic pop
        char *comma = strchr(buf, ',');
        if (comma) /* some locale's point */
            *comma = '.';
    }
    size_t len = strlen(buf);
    if (spec->type == 0 && !strpbrk(buf, ".en"))
        snprintf(buf + len, size - len, ".0");
    else if (spec->type == '%')
        snprintf(buf + len, size - len, "%%");
    return 0;
}

static int pad(struct jinja *j, struct jinja_text *out, const struct jinja_str *s, const struct jinja_spec *spec, char fallback)
{
    char align = spec->align ? spec->align : fallback, fill[4];
    struct jinja_str filler = {.s = " ", .len = 1, .n_chars = 1};
    if (spec->fill) {
        filler.s = fill;
        filler.len = utf8_encode(spec->fill, fill);
    }
    if (spec->width > MAX_WIDTH)
        return jinja_fail(j, ERR_LIMIT, "format width above %d", MAX_WIDTH);
    if (spec->width < 0) {
        jinja_text_str(j, out, s);
    } else if (align == '^') { /* unlike str.center, the odd one goes right */
        size_t n = jinja_str_chars(s), room = (size_t)spec->width > n ? (size_t)spec->width - n : 0;
        for (size_t i = 0; i < room / 2; i++)
            jinja_text_str(j, out, &filler);
        jinja_text_str(j, out, s);
        for (size_t i = room / 2; i < room; i++)
            jinja_text_str(j, out, &filler);
    } else if (!(s = jinja_pad(j, s, spec->width, align == '<' ? '<' : '>', &filler))) {
        return -1;
    } else {
        jinja_text_str(j, out, s);
    }
    return out->failed ? -1 : jinja_charge(j, spec->width > 0 ? (size_t)spec->width / 64 : 0);
}

static int format_number(struct jinja *j, struct jinja_text *out, struct jinja_value v, const struct jinja_spec *spec)
{
    char buf[NUMBER_CHARS], sign[2] = "";
    bool negative, real = v.type == JINJA_FLOAT || (spec->type && strchr("eEfFgG%", spec->type));
    int rc;

    if (real && v.type == JINJA_FLOAT && spec->type && strchr("dxXobc", spec->type))
        return jinja_fail(j, ERR_INPUT, "unknown format code '%c' for object of type 'float'", spec->type);
    if (real)
        rc = format_float(j, jinja_as_float(v), spec, buf, sizeof buf);
    else
        rc = format_int(j, jinja_as_int(v), spec, buf, sizeof buf);
    if (rc != 0)
        return -1;
    if (spec->comma || spec->underscore)
        group_digits(buf, sizeof buf, spec->comma ? ',' : '_');
    negative = real ? signbit(jinja_as_float(v)) && !isnan(jinja_as_float(v)) : jinja_as_int(v) < 0;
    if (negative || spec->sign == '+' || spec->sign == ' ')
        sign[0] = negative ? '-' : spec->sign;
    if (spec->align == '=' && spec->width > 0) {
        struct jinja_spec rest = *spec;
        struct jinja_str digits = {.s = buf, .len = strlen(buf), .n_chars = strlen(buf)};
        rest.align = '>';
        rest.width -= sign[0] != 0;
        jinja_text_puts(j, out, sign);
        if (buf[0] == '0' && buf[1] && strchr("xXob", buf[1])) { /* the prefix stays in front of the padding */
            jinja_text_add(j, out, buf, 2, false);
            digits.s += 2;
            digits.n_chars = digits.len -= 2;
            rest.width -= 2;
        }
        return pad(j, out, &digits, &rest, '>');
    }
    struct jinja_text t = {0};
    jinja_text_puts(j, &t, sign);
    jinja_text_puts(j, &t, buf);
    const struct jinja_str *s = jinja_text_done(j, &t);
    return s ? pad(j, out, s, spec, '>') : -1;
}

int jinja_format_value(struct jinja *j, struct jinja_text *out, struct jinja_value v, const struct jinja_spec *spec)
{
    if (v.type == JINJA_STR) {
        const struct jinja_str *s = v.str;
        if ((spec->type && spec->type != 's') || spec->sign || spec->align == '=' || spec->comma)
            return jinja_fail(j, ERR_INPUT, "this format specification is not for strings");
        if (spec->precision >= 0 && (size_t)spec->precision < jinja_str_chars(s) &&
            !(s = jinja_str_sub(j, s, 0, jinja_str_offset(s, (size_t)spec->precision))))
            return -1;
        return pad(j, out, s, spec, '<');
    }
    if (v.type == JINJA_BOOL && !spec->type) {
        bool plain = spec->width < 0 && spec->precision < 0 && !spec->sign && !spec->comma;
        return plain ? jinja_print(j, out, v) : format_number(j, out, jinja_int(v.b), spec);
    }
    if (jinja_is_number(v)) {
        if (spec->type == 'c') {
            char buf[4];
            size_t l = v.type != JINJA_FLOAT && v.i >= 0 && v.i < 0x110000 ? utf8_encode((uint32_t)jinja_as_int(v), buf) : 0;
            struct jinja_str s = {.s = buf, .len = l, .n_chars = 1};
            return l ? pad(j, out, &s, spec, '<') : jinja_fail(j, ERR_INPUT, "%%c arg not in range(0x110000)");
        }
        if (spec->type == 's')
            return jinja_fail(j, ERR_INPUT, "unknown format code 's' for object of type '%s'", jinja_type_name(v));
        return format_number(j, out, v, spec);
    }
    if (spec->type || spec->width >= 0 || spec->precision >= 0 || spec->sign || spec->align || spec->comma)
        return jinja_fail(j, ERR_INPUT, "unsupported format string passed to %s.__format__", jinja_type_name(v));
    return jinja_print(j, out, v);
}

/* --- % ------------------------------------------------------------------ */

struct percent {
    struct jinja_value args;
    size_t used; /* of a tuple, or of the one value */
    bool markup; /* what goes in is escaped */
};

static int next_arg(struct jinja *j, struct percent *p, struct jinja_value *ret)
{
    if (p->args.type == JINJA_TUPLE ? p->used >= p->args.list->n : p->used > 0)
        return jinja_fail(j, ERR_INPUT, "not enough arguments for format string");
    *ret = p->args.type == JINJA_TUPLE ? p->args.list->items[p->used] : p->args;
    p->used++;
    return 0;
}

static int parse_size(struct jinja *j, struct percent *p, const char **s, const char *end, int *ret)
{
    struct jinja_value v;
    if (*s < end && **s == '*') {
        ++*s;
        if (next_arg(j, p, &v) != 0)
            return -1;
        if (!jinja_is_int(v) || jinja_as_int(v) > MAX_WIDTH || jinja_as_int(v) < -MAX_WIDTH)
            return jinja_fail(j, ERR_INPUT, "* wants a small int");
        *ret = (int)jinja_as_int(v);
        return 0;
    }
    *ret = 0;
    for (; *s < end && **s >= '0' && **s <= '9'; ++*s)
        if ((*ret = *ret * 10 + (**s - '0')) > MAX_WIDTH)
            return jinja_fail(j, ERR_LIMIT, "format width above %d", MAX_WIDTH);
    return 0;
}

static int percent_value(struct jinja *j, struct jinja_text *out, struct jinja_spec *spec, char type, struct jinja_value v, bool markup)
{
    struct jinja_text t = {0};
    bool text = type == 's' || type == 'r' || type == 'a';
    spec->type = type == 'i' || type == 'u' ? 'd' : type;
    if (text) {
        markup &= v.type != JINJA_STR || !v.str->markup;
        if ((type == 's' ? jinja_print(j, &t, v) : jinja_repr(j, &t, v)) != 0 || jinja_text_value(j, &t, &v) != 0 ||
            (markup && !(v.str = jinja_escape(j, v.str))))
            return -1;
        spec->type = 's';
    } else if (type == 'c' && v.type == JINJA_STR) {
        if (jinja_str_chars(v.str) != 1)
            return jinja_fail(j, ERR_INPUT, "%%c requires int or char");
        spec->type = 's';
    } else if (v.type == JINJA_UNDEFINED) {
        return jinja_fail_undefined(j, v);
    } else if (!jinja_is_number(v) || (v.type == JINJA_FLOAT && strchr("xXoc", type))) {
        return jinja_fail(j, ERR_INPUT, "%%%c format: a number is required, not %s", type, jinja_type_name(v));
    } else if (strchr("diu", type) && v.type == JINJA_FLOAT) {
        if (!(fabs(v.f) < 9e18))
            return jinja_fail(j, ERR_LIMIT, "%%d format: number beyond 64 bits");
        v = jinja_int((int64_t)v.f);
    } else if (v.type == JINJA_BOOL) {
        v = jinja_int(v.b);
    }
    if (v.type == JINJA_STR) {
        spec->sign = 0;
        spec->fill = ' ';
        spec->align = spec->align == '<' ? '<' : '>';
    }
    return jinja_format_value(j, out, v, spec);
}

/* One conversion, *s behind its %. */
static int percent_one(struct jinja *j, struct jinja_text *out, struct percent *p, const char **s, const char *end)
{
    struct jinja_spec spec = {.width = -1, .precision = -1, .align = '>'};
    struct jinja_value v = {.type = JINJA_MISSING};
    int width;

    if (*s < end && **s == '(') {
        const char *close = memchr(*s, ')', (size_t)(end - *s));
        const struct jinja_str key = {.s = *s + 1, .len = close ? (size_t)(close - *s) - 1 : 0, .n_chars = SIZE_MAX};
        struct jinja_entry *e = NULL;
        if (p->args.type != JINJA_DICT || !close)
            return jinja_fail(j, ERR_INPUT, close ? "format requires a mapping" : "incomplete format key");
        if (!(e = jinja_dict_get(p->args.dict, &key)))
            return jinja_fail(j, ERR_INPUT, "format: no key '%.*s'", (int)(key.len < 80 ? key.len : 80), key.s);
        v = e->value;
        p->used = 1;
        *s = close + 1;
    }
    for (; *s < end && **s && strchr("#0- +", **s); ++*s) {
        switch (**s) {
        case '#':
            spec.alternate = true;
            break;
        case '0':
            spec.fill = '0';
            break;
        case '-':
            spec.align = '<';
            break;
        default:
            spec.sign = **s == '+' || spec.sign == '+' ? '+' : ' ';
        }
    }
    if (spec.fill && spec.align == '>')
        spec.align = '=';
    if (spec.align == '<')
        spec.fill = 0;
    if (parse_size(j, p, s, end, &width) != 0)
        return -1;
    if (width < 0) {
        spec.align = '<';
        width = -width;
    }
    spec.width = width ? width : -1;
    if (*s < end && **s == '.') {
        ++*s;
        if (parse_size(j, p, s, end, &spec.precision) != 0)
            return -1;
        spec.precision = spec.precision < 0 ? 0 : spec.precision;
    }
    while (*s < end && (**s == 'l' || **s == 'h' || **s == 'L'))
        ++*s;
    if (*s >= end)
        return jinja_fail(j, ERR_INPUT, "incomplete format");
    char type = *(*s)++;
    if (type == '%') {
        jinja_text_puts(j, out, "%");
        return 0;
    }
    if (!type || !strchr("diouxXeEfFgGcrsa", type))
        return jinja_fail(j, ERR_INPUT, "unsupported format character");
    if (v.type == JINJA_MISSING && next_arg(j, p, &v) != 0)
        return -1;
    return percent_value(j, out, &spec, type, v, p->markup);
}

int jinja_format_percent(struct jinja *j, const struct jinja_str *format, struct jinja_value args, struct jinja_value *ret)
{
    struct percent p = {.args = args, .markup = format->markup};
    struct jinja_text t = {0};
    const char *s = format->s, *end = s + format->len;

    if (jinja_charge_bytes(j, format->len) != 0)
        return -1;
    while (s < end && !t.failed) {
        const char *percent = memchr(s, '%', (size_t)(end - s));
        jinja_text_sub(j, &t, format, (size_t)(s - format->s), percent ? (size_t)(percent - format->s) : format->len);
        s = percent ? percent + 1 : end;
        if (percent && (jinja_charge(j, 1) != 0 || percent_one(j, &t, &p, &s, end) != 0))
            return -1;
    }
    if (args.type == JINJA_TUPLE
            ? p.used < args.list->n
            : args.type != JINJA_DICT && args.type != JINJA_LIST && args.type != JINJA_RANGE && args.type != JINJA_UNDEFINED && !p.used)
        return jinja_fail(j, ERR_INPUT, "not all arguments converted during string formatting");
    if (jinja_text_value(j, &t, ret) != 0 || !(ret->str = jinja_str_markup(j, ret->str, format->markup)))
        return -1;
    return 0;
}

/* --- {} ----------------------------------------------------------------- */

static int parse_spec(struct jinja *j, const char *s, size_t len, struct jinja_spec *ret)
{
    const char *end = s + len;
    uint32_t c = 0;
    size_t l = len ? utf8_decode(s, len, &c) : 0;
    *ret = (struct jinja_spec){.width = -1, .precision = -1};
    if (l && s + l < end && strchr("<>^=", s[l]) && s[l]) {
        ret->fill = c;
        ret->align = s[l];
        s += l + 1;
    } else if (s < end && *s && strchr("<>^=", *s)) {
        ret->align = *s++;
    }
    if (s < end && *s && strchr("+- ", *s))
        ret->sign = *s++;
    if (s < end && *s == '#') {
        ret->alternate = true;
        s++;
    }
    if (s < end && *s == '0') {
        ret->fill = ret->fill ? ret->fill : '0';
        ret->align = ret->align ? ret->align : '=';
        s++;
    }
    for (int *part = &ret->width;; part = &ret->precision) {
        for (; s < end && *s >= '0' && *s <= '9'; s++)
            if ((*part = (*part < 0 ? 0 : *part) * 10 + (*s - '0')) > MAX_WIDTH)
                return jinja_fail(j, ERR_LIMIT, "format width above %d", MAX_WIDTH);
        if (part == &ret->width) {
            ret->comma = s < end && *s == ',';
            ret->underscore = s < end && *s == '_';
            s += ret->comma || ret->underscore;
        }
        if (part == &ret->precision || s >= end || *s != '.')
            break;
        s++;
    }
    if (s < end && *s && strchr("bcdeEfFgGnosxX%", *s))
        ret->type = *s++;
    return s == end ? 0 : jinja_fail(j, ERR_INPUT, "invalid format specifier");
}

struct braces {
    const struct jinja_args *args;
    struct jinja_value map; /* of format_map; MISSING: none */
    int64_t automatic;      /* next number; -1 once explicit ones were seen */
};

static int named_field(struct jinja *j, const struct braces *b, const char *s, size_t len, struct jinja_value *ret)
{
    const struct jinja_str key = {.s = s, .len = len, .n_chars = SIZE_MAX};
    struct jinja_entry *e;
    if (b->map.type == JINJA_DICT && (e = jinja_dict_get(b->map.dict, &key))) {
        *ret = e->value;
        return 0;
    }
    for (size_t i = 0; i < b->args->n_kw; i++)
        if (jinja_str_equal(b->args->kw[i].name, &key)) {
            *ret = b->args->kw[i].value;
            return 0;
        }
    return jinja_fail(j, ERR_INPUT, "format: no argument '%.*s'", (int)(len < 80 ? len : 80), s);
}

/* name.attr[key] */
static int get_field(struct jinja *j, struct braces *b, const char *s, size_t len, struct jinja_value *ret)
{
    const char *end = s + len, *p = s;
    int64_t index = -1;
    while (p < end && *p != '.' && *p != '[')
        p++;
    if (p == s && p < end)
        return jinja_fail(j, ERR_INPUT, "format: a field needs a name or number in front of its attribute");
    if (p == s) {
        if (b->automatic < 0)
            return jinja_fail(j, ERR_INPUT, "cannot switch from manual field specification to automatic field numbering");
        index = b->automatic++;
    } else if (jinja_parse_int(s, (size_t)(p - s), 10, &index) == 0 && s[0] >= '0' && s[0] <= '9') {
        if (b->automatic > 0)
            return jinja_fail(j, ERR_INPUT, "cannot switch from automatic field numbering to manual field specification");
        b->automatic = -1;
    } else {
        index = -1;
    }
    if (index >= 0 && (uint64_t)index >= b->args->n)
        return jinja_fail(j, ERR_INPUT, "replacement index %" PRId64 " out of range for positional args tuple", index);
    if (index >= 0)
        *ret = b->args->v[index];
    else if (named_field(j, b, s, (size_t)(p - s), ret) != 0)
        return -1;
    while (p < end) {
        bool item = *p++ == '[';
        const char *stop = p;
        while (stop < end && (item ? *stop != ']' : *stop != '.' && *stop != '['))
            stop++;
        if (stop == p || (item && stop == end))
            return jinja_fail(j, ERR_INPUT, "empty attribute in format string");
        const struct jinja_str *name = jinja_str_copy(j, p, (size_t)(stop - p), false);
        if (!name)
            return -1;
        if (item && jinja_parse_int(p, (size_t)(stop - p), 10, &index) == 0) {
            if (jinja_getitem(j, *ret, jinja_int(index), ret) != 0)
                return -1;
        } else if ((item ? jinja_getitem(j, *ret, jinja_string(name), ret) : jinja_getattr(j, *ret, name, ret)) != 0) {
            return -1;
        }
        p = stop + item;
    }
    return 0;
}

static int format_into(struct jinja *j, struct jinja_text *out, struct braces *b, const struct jinja_str *format, unsigned level);

/* One field, without its braces: name!conversion:spec, where the spec may hold fields itself. */
static int replace_field(struct jinja *j, struct jinja_text *out, struct braces *b, const struct jinja_str *field, unsigned level)
{
    size_t name = 0;
    char conversion = 0;
    struct jinja_value v;
    struct jinja_text t = {0};
    struct jinja_spec spec;
    const struct jinja_str *text;

    while (name < field->len && field->s[name] != '!' && field->s[name] != ':') {
        if (field->s[name] == '[') { /* a key may hold anything */
            const char *close = memchr(field->s + name, ']', field->len - name);
            name = close ? (size_t)(close - field->s) : field->len;
            continue;
        }
        name++;
    }
    size_t rest = name;
    if (rest < field->len && field->s[rest] == '!') {
        if (rest + 1 >= field->len || !strchr("rsa", field->s[rest + 1]) || (rest + 2 < field->len && field->s[rest + 2] != ':'))
            return jinja_fail(j, ERR_INPUT, "bad conversion in format string");
        conversion = field->s[rest + 1];
        rest += 2;
    }
    rest += rest < field->len;
    if (get_field(j, b, field->s, name, &v) != 0)
        return -1;
    if (conversion && ((conversion == 's' ? jinja_print(j, &t, v) : jinja_repr(j, &t, v)) != 0 || jinja_text_value(j, &t, &v) != 0))
        return -1;
    t = (struct jinja_text){0};
    if (!(text = jinja_str_sub(j, field, rest, field->len)) || format_into(j, &t, b, text, level + 1) != 0 ||
        !(text = jinja_text_done(j, &t)) || parse_spec(j, text->s, text->len, &spec) != 0)
        return -1;
    if (v.type == JINJA_UNDEFINED && text->len)
        return jinja_fail(j, ERR_INPUT, "unsupported format string passed to Undefined.__format__");
    return jinja_format_value(j, out, v, &spec);
}

static int format_into(struct jinja *j, struct jinja_text *out, struct braces *b, const struct jinja_str *format, unsigned level)
{
    const char *s = format->s;
    size_t i = 0, from;
    if (level > 2)
        return jinja_fail(j, ERR_INPUT, "max string recursion exceeded");
    while (i < format->len && !out->failed) {
        from = i;
        while (i < format->len && s[i] != '{' && s[i] != '}')
            i++;
        jinja_text_sub(j, out, format, from, i);
        if (i >= format->len)
            break;
        if (i + 1 < format->len && s[i + 1] == s[i] && level == 0) { /* {{ }} */
            jinja_text_sub(j, out, format, i, i + 1);
            i += 2;
            continue;
        }
        if (s[i] == '}')
            return jinja_fail(j, ERR_INPUT, "single '}' encountered in format string");
        from = ++i;
        for (size_t depth = 1; i < format->len; i++) {
            depth += s[i] == '{';
            depth -= s[i] == '}';
            if (depth == 0)
                break;
        }
        if (i >= format->len)
            return jinja_fail(j, ERR_INPUT, "expected '}' before end of string");
        const struct jinja_str *field = jinja_str_sub(j, format, from, i++);
        if (!field || jinja_charge(j, 1 + field->len / 256) != 0 || replace_field(j, out, b, field, level) != 0)
            return -1;
    }
    return out->failed ? -1 : 0;
}

int jinja_format_braces(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_args none;
    struct braces b = {.args = c->args, .map = {.type = JINJA_MISSING}};
    struct jinja_text t = {0};
    if (c->builtin->tag) {
        if (c->args->n != 1 || c->args->n_kw || c->args->v[0].type != JINJA_DICT)
            return jinja_fail(j, ERR_INPUT, "format_map() takes exactly one mapping");
        b.map = c->args->v[0];
        b.args = &none;
    }
    if (jinja_charge_bytes(j, c->self.str->len) != 0 || format_into(j, &t, &b, c->self.str, 0) != 0)
        return -1;
    return jinja_text_value(j, &t, ret);
}
