/* The filter tojson, as transformers has it: json.dumps with ensure_ascii off and nothing escaped for HTML. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"

struct json_style {
    bool ascii, sort, pretty;
    const struct jinja_str *indent; /* of one level */
    const struct jinja_str *item, *key;
};

static int write_value(struct jinja *j, struct jinja_text *out, const struct json_style *st, struct jinja_value v, unsigned level);

static void write_string(struct jinja *j, struct jinja_text *out, const struct json_style *st, const struct jinja_str *s)
{
    static const char names[] = {['"'] = '"', ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't', ['\b'] = 'b', ['\f'] = 'f'};
    char buf[16];
    size_t from = 0;
    jinja_text_puts(j, out, "\"");
    for (size_t i = 0; i < s->len && !out->failed;) {
        uint32_t c = 0;
        size_t l = utf8_decode(s->s + i, s->len - i, &c);
        if (l == 0)
            break;
        if (c < sizeof names && names[c])
            snprintf(buf, sizeof buf, "\\%c", names[c]);
        else if (c < 0x20 || (st->ascii && c >= 0x7f && c < 0x10000))
            snprintf(buf, sizeof buf, "\\u%04x", c);
        else if (st->ascii && c >= 0x10000)
            snprintf(buf, sizeof buf, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
        else
            buf[0] = '\0';
        if (buf[0]) {
            jinja_text_add(j, out, s->s + from, i - from, false);
            jinja_text_puts(j, out, buf);
            from = i + l;
        }
        i += l;
    }
    jinja_text_add(j, out, s->s + from, s->len - from, false);
    jinja_text_puts(j, out, "\"");
}

static void write_plain(struct jinja *j, struct jinja_text *out, const struct jinja_str *s)
{
    jinja_text_add(j, out, s->s, s->len, false);
}

static void write_number(struct jinja *j, struct jinja_text *out, struct jinja_value v)
{
    char buf[JINJA_FLOAT_CHARS];
    if (v.type == JINJA_INT)
        snprintf(buf, sizeof buf, "%" PRId64, v.i);
    else if (isnan(v.f) || isinf(v.f))
        snprintf(buf, sizeof buf, "%s", isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
    else
        jinja_float_repr(v.f, buf);
    jinja_text_puts(j, out, buf);
}

static void new_line(struct jinja *j, struct jinja_text *out, const struct json_style *st, unsigned level)
{
    if (!st->pretty)
        return;
    jinja_text_puts(j, out, "\n");
    for (unsigned i = 0; i < level && !out->failed; i++)
        write_plain(j, out, st->indent);
}

static int write_list(struct jinja *j, struct jinja_text *out, const struct json_style *st, const struct jinja_list *l, unsigned level)
{
    jinja_text_puts(j, out, "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            write_plain(j, out, st->item);
        new_line(j, out, st, level + 1);
        if (write_value(j, out, st, l->items[i], level + 1) != 0)
            return -1;
    }
    if (l->n)
        new_line(j, out, st, level);
    jinja_text_puts(j, out, "]");
    return 0;
}

static int write_key(struct jinja *j, struct jinja_text *out, const struct json_style *st, struct jinja_value key)
{
    switch (key.type) {
    case JINJA_STR:
        write_string(j, out, st, key.str);
        return 0;
    case JINJA_NONE:
        jinja_text_puts(j, out, "\"null\"");
        return 0;
    case JINJA_BOOL:
        jinja_text_puts(j, out, key.b ? "\"true\"" : "\"false\"");
        return 0;
    case JINJA_INT:
    case JINJA_FLOAT:
        jinja_text_puts(j, out, "\"");
        write_number(j, out, key);
        jinja_text_puts(j, out, "\"");
        return 0;
    default:
        return jinja_fail(j, ERR_INPUT, "keys must be str, int, float, bool or None, not %s", jinja_type_name(key));
    }
}

static int write_dict(struct jinja *j, struct jinja_text *out, const struct json_style *st, const struct jinja_dict *d, unsigned level)
{
    struct jinja_value *keys = jinja_alloc(j, d->n + 1, sizeof *keys), *order = jinja_alloc(j, d->n + 1, sizeof *order);
    if (!keys || !order)
        return -1;
    for (size_t i = 0; i < d->n; i++) {
        keys[i] = d->entries[i].key;
        order[i] = jinja_int((int64_t)i);
    }
    if (st->sort && jinja_sort(j, order, keys, d->n, false) != 0)
        return -1;
    jinja_text_puts(j, out, "{");
    for (size_t i = 0; i < d->n; i++) {
        const struct jinja_entry *e = &d->entries[order[i].i];
        if (i)
            write_plain(j, out, st->item);
        new_line(j, out, st, level + 1);
        if (write_key(j, out, st, e->key) != 0)
            return -1;
        write_plain(j, out, st->key);
        if (write_value(j, out, st, e->value, level + 1) != 0)
            return -1;
    }
    if (d->n)
        new_line(j, out, st, level);
    jinja_text_puts(j, out, "}");
    return 0;
}

static int write_value(struct jinja *j, struct jinja_text *out, const struct json_style *st, struct jinja_value v, unsigned level)
{
    int rc = 0;
    if (jinja_charge(j, 1) != 0)
        return -1;
    switch (v.type) {
    case JINJA_NONE:
        jinja_text_puts(j, out, "null");
        break;
    case JINJA_BOOL:
        jinja_text_puts(j, out, v.b ? "true" : "false");
        break;
    case JINJA_INT:
    case JINJA_FLOAT:
        write_number(j, out, v);
        break;
    case JINJA_STR:
        write_string(j, out, st, v.str);
        rc = jinja_charge_bytes(j, v.str->len);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        rc = jinja_enter(j);
        if (rc == 0)
            rc = v.type == JINJA_DICT ? write_dict(j, out, st, v.dict, level) : write_list(j, out, st, v.list, level);
        jinja_leave(j);
        break;
    default:
        return jinja_fail(j, ERR_INPUT, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
    return rc != 0 || out->failed ? -1 : 0;
}

static int set_indent(struct jinja *j, struct json_style *st, struct jinja_value indent)
{
    static const char blanks[] = "                                                                ";
    if (!jinja_given(indent))
        return 0;
    st->pretty = true;
    if (indent.type == JINJA_STR) {
        st->indent = indent.str;
        return 0;
    }
    if (!jinja_is_int(indent))
        return jinja_fail(j, ERR_INPUT, "tojson: indent must be an integer or a string, not %s", jinja_type_name(indent));
    int64_t n = jinja_as_int(indent);
    if (n > (int64_t)sizeof blanks - 1)
        return jinja_fail(j, ERR_LIMIT, "tojson: indent %" PRId64 ", at most %zu allowed", n, sizeof blanks - 1);
    return (st->indent = jinja_str_new(j, blanks, n > 0 ? (size_t)n : 0, false)) ? 0 : -1;
}

int jinja_tojson(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct json_style st = {.ascii = jinja_given(c->v[0]) && jinja_truth(c->v[0]), .sort = jinja_given(c->v[3]) && jinja_truth(c->v[3])};
    struct jinja_text out = {0};

    if ((c->self.type != JINJA_STR && set_indent(j, &st, c->v[1]) != 0) ||
        /* dumps has a short way for strings */ !(st.item = jinja_str_new(j, ", ", st.pretty ? 1 : 2, false)) ||
        !(st.key = jinja_str_new(j, ": ", 2, false)))
        return -1;
    if (jinja_given(c->v[2])) {
        struct jinja_list_buf l;
        if (jinja_collect(j, c->v[2], &l) != 0)
            return -1;
        if (l.n != 2 || l.items[0].type != JINJA_STR || l.items[1].type != JINJA_STR)
            return jinja_fail(j, ERR_INPUT, "tojson: separators must be two strings");
        st.item = l.items[0].str;
        st.key = l.items[1].str;
    }
    return write_value(j, &out, &st, c->self, 0) != 0 ? -1 : jinja_text_value(j, &out, ret);
}
