/* str() and repr() of values. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"
#include "text/jinja_unicode.h"

static void repr_string(struct jinja *j, struct jinja_text *out, const struct jinja_str *s)
{
    char buf[16];
    char quote = memchr(s->s, '\'', s->len) && !memchr(s->s, '"', s->len) ? '"' : '\'';
    if (s->markup)
        jinja_text_puts(j, out, "Markup(");
    jinja_text_char(j, out, (uint32_t)quote, false);
    for (size_t i = 0; i < s->len && !out->failed;) {
        uint32_t c = 0;
        size_t l = utf8_decode(s->s + i, s->len - i, &c);
        if (l == 0)
            break;
        if (c == (uint32_t)quote || c == '\\')
            snprintf(buf, sizeof buf, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(buf, sizeof buf, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c < 0x20 || c == 0x7f || !jinja_is_printable(c))
            snprintf(buf, sizeof buf, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        else
            buf[0] = '\0';
        if (buf[0])
            jinja_text_puts(j, out, buf);
        else
            jinja_text_add(j, out, s->s + i, l, false);
        i += l;
    }
    jinja_text_char(j, out, (uint32_t)quote, false);
    if (s->markup)
        jinja_text_puts(j, out, ")");
    jinja_charge_bytes(j, s->len);
}

static int repr_items(struct jinja *j, struct jinja_text *out, struct jinja_value v, const char *open, const char *close)
{
    struct jinja_cursor c;
    struct jinja_value item;
    int rc, n = 0;
    jinja_text_puts(j, out, open);
    if (jinja_cursor_init(j, &c, v) != 0)
        return -1;
    for (; (rc = jinja_cursor_next(j, &c, &item)) == 1; n++) {
        if (n)
            jinja_text_puts(j, out, ", ");
        if (jinja_repr(j, out, item) != 0)
            return -1;
    }
    if (v.type == JINJA_TUPLE && n == 1)
        jinja_text_puts(j, out, ",");
    jinja_text_puts(j, out, close);
    return rc;
}

static int repr_dict(struct jinja *j, struct jinja_text *out, const struct jinja_dict *d)
{
    jinja_text_puts(j, out, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            jinja_text_puts(j, out, ", ");
        if (jinja_charge(j, 1) != 0 || jinja_repr(j, out, d->entries[i].key) != 0)
            return -1;
        jinja_text_puts(j, out, ": ");
        if (jinja_repr(j, out, d->entries[i].value) != 0)
            return -1;
    }
    jinja_text_puts(j, out, "}");
    return 0;
}

static int repr_object(struct jinja *j, struct jinja_text *out, struct jinja_value v)
{
    char buf[128];
    switch (v.type) {
    case JINJA_RANGE:
        if (v.range->step == 1)
            snprintf(buf, sizeof buf, "range(%" PRId64 ", %" PRId64 ")", v.range->start, v.range->stop);
        else
            snprintf(buf, sizeof buf, "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", v.range->start, v.range->stop, v.range->step);
        break;
    case JINJA_VIEW:
        snprintf(buf, sizeof buf, "%s([", jinja_type_name(v));
        return repr_items(j, out, v, buf, "])");
    case JINJA_NAMESPACE:
        jinja_text_puts(j, out, "<Namespace ");
        if (repr_dict(j, out, v.dict) != 0)
            return -1;
        snprintf(buf, sizeof buf, ">");
        break;
    case JINJA_LOOP:
        return jinja_loop_repr(j, v.loop, out);
    case JINJA_MACRO:
        if (v.macro->node->kind == JINJA_N_MACRO)
            snprintf(buf, sizeof buf, "<Macro '%.80s'>", v.macro->node->name->s);
        else
            snprintf(buf, sizeof buf, "<Macro anonymous>");
        break;
    case JINJA_FUNCTION:
        snprintf(buf, sizeof buf, "<function %.80s>", v.function->name);
        break;
    case JINJA_METHOD:
        snprintf(buf, sizeof buf, "<built-in method %.60s of %s object>", v.method->function->name, jinja_type_name(v.method->self));
        break;
    case JINJA_CYCLER:
    case JINJA_JOINER:
        snprintf(buf, sizeof buf, "<jinja2.utils.%s object>", jinja_type_name(v));
        break;
    default:
        snprintf(buf, sizeof buf, "<%s object>", jinja_type_name(v));
    }
    jinja_text_puts(j, out, buf);
    return 0;
}

int jinja_repr(struct jinja *j, struct jinja_text *out, struct jinja_value v)
{
    char buf[JINJA_FLOAT_CHARS];
    int rc = 0;
    if (jinja_enter(j) != 0) {
        jinja_leave(j);
        return -1;
    }
    switch (v.type) {
    case JINJA_UNDEFINED:
        jinja_text_puts(j, out, "Undefined");
        break;
    case JINJA_NONE:
        jinja_text_puts(j, out, "None");
        break;
    case JINJA_BOOL:
        jinja_text_puts(j, out, v.b ? "True" : "False");
        break;
    case JINJA_INT:
        snprintf(buf, sizeof buf, "%" PRId64, v.i);
        jinja_text_puts(j, out, buf);
        break;
    case JINJA_FLOAT:
        jinja_float_repr(v.f, buf);
        jinja_text_puts(j, out, buf);
        break;
    case JINJA_STR:
        repr_string(j, out, v.str);
        break;
    case JINJA_LIST:
        rc = repr_items(j, out, v, "[", "]");
        break;
    case JINJA_TUPLE:
        rc = repr_items(j, out, v, "(", ")");
        break;
    case JINJA_DICT:
        rc = repr_dict(j, out, v.dict);
        break;
    default:
        rc = repr_object(j, out, v);
    }
    jinja_leave(j);
    return rc != 0 || out->failed ? -1 : jinja_charge(j, 1);
}

int jinja_print(struct jinja *j, struct jinja_text *out, struct jinja_value v)
{
    if (v.type == JINJA_UNDEFINED)
        return 0;
    if (v.type != JINJA_STR)
        return jinja_repr(j, out, v);
    jinja_text_str(j, out, v.str);
    return out->failed ? -1 : jinja_charge_bytes(j, v.str->len);
}

const struct jinja_str *jinja_str_of(struct jinja *j, struct jinja_value v)
{
    struct jinja_text t = {0};
    if (v.type == JINJA_STR)
        return v.str;
    return jinja_print(j, &t, v) == 0 ? jinja_text_done(j, &t) : NULL;
}
