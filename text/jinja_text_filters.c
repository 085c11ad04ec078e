/* Filters on text and numbers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"
#include "text/jinja_unicode.h"

static int give(struct jinja_value *ret, const struct jinja_str *s)
{
    if (!s)
        return -1;
    *ret = jinja_string(s);
    return 0;
}

/* The result keeps the Markup-ness of what it was made from. */
static int give_like(struct jinja *j, struct jinja_value *ret, const struct jinja_str *s, const struct jinja_str *like)
{
    return give(ret, s ? jinja_str_markup(j, s, like->markup) : NULL);
}

static int need_str(struct jinja *j, struct jinja_call *c, const struct jinja_str **ret)
{
    if (c->self.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, c->self);
    if (c->self.type != JINJA_STR)
        return jinja_fail(j, ERR_INPUT, "%s: a string is needed, not %s", c->builtin->name, jinja_type_name(c->self));
    *ret = c->self.str;
    return 0;
}

static int opt_int(struct jinja *j, struct jinja_call *c, struct jinja_value v, int64_t fallback, int64_t *ret)
{
    *ret = fallback;
    if (v.type == JINJA_MISSING)
        return 0;
    if (!jinja_is_int(v))
        return jinja_fail(j, ERR_INPUT, "%s: an integer is needed, not %s", c->builtin->name, jinja_type_name(v));
    *ret = jinja_as_int(v);
    return 0;
}

static bool flag(struct jinja_value v)
{
    return v.type != JINJA_MISSING && jinja_truth(v);
}

/* --- text --------------------------------------------------------------- */

static int f_case(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    return s ? give_like(j, ret, jinja_change_case(j, s, c->builtin->tag), s) : -1;
}

/* Words begin after blanks and - ( { [ <; unlike str.title, digits and ' do not begin one. */
static int f_title(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    struct jinja_text t = {0};
    bool start = true;
    if (!s || jinja_charge_bytes(j, 8 * s->len) != 0)
        return -1;
    for (size_t i = 0, l; i < s->len && !t.failed; i += l) {
        uint32_t ch = 0;
        l = utf8_decode(s->s + i, s->len - i, &ch);
        l = l ? l : 1;
        bool between = jinja_is_space(ch) || (ch < 0x80 && ch && strchr("-({[<", (int)ch));
        if (between)
            jinja_text_sub(j, &t, s, i, i + l);
        else
            jinja_text_cased(j, &t, s, i, start, false);
        start = between;
    }
    return jinja_text_value(j, &t, ret);
}

static int f_string(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    return give(ret, jinja_str_of(j, c->self));
}

static int f_safe(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    return give(ret, s ? jinja_str_markup(j, s, true) : NULL);
}

static int f_escape(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    if (s && c->builtin->tag) /* even what is escaped already */
        s = jinja_str_markup(j, s, false);
    return give(ret, s ? jinja_escape(j, s) : NULL);
}

static int f_trim(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    if (!s)
        return -1;
    if (jinja_given(c->v[0]) && c->v[0].type != JINJA_STR)
        return jinja_fail(j, ERR_INPUT, "strip arg must be None or str, not %s", jinja_type_name(c->v[0]));
    return give_like(j, ret, jinja_strip(j, s, jinja_given(c->v[0]) ? c->v[0].str : NULL, true, true), s);
}

static int f_replace(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self), *old = jinja_str_of(j, c->v[0]), *fresh = jinja_str_of(j, c->v[1]);
    int64_t count = -1;
    if (!s || !old || !fresh || (jinja_given(c->v[2]) && opt_int(j, c, c->v[2], -1, &count) != 0))
        return -1;
    s = jinja_replace(j, s, old, fresh, count);
    return give(ret, s ? jinja_str_markup(j, s, false) : NULL);
}

static int f_center(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    int64_t width;
    if (!s || opt_int(j, c, c->v[0], 80, &width) != 0)
        return -1;
    return give_like(j, ret, jinja_pad(j, s, width, '^', NULL), s);
}

static int f_format(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    struct jinja_list_buf l = {.items = c->args->v, .n = c->args->n};
    struct jinja_value v;
    if (!s)
        return -1;
    if (c->args->n && c->args->n_kw)
        return jinja_fail(j, ERR_INPUT, "can't handle positional and keyword arguments at the same time");
    if (c->args->n_kw) {
        struct jinja_dict *d = jinja_dict_new(j);
        if (!d)
            return -1;
        for (size_t i = 0; i < c->args->n_kw; i++)
            if (jinja_dict_set(j, d, jinja_string(c->args->kw[i].name), c->args->kw[i].value) != 0)
                return -1;
        v = (struct jinja_value){.type = JINJA_DICT, .dict = d};
    } else if (jinja_list_value(j, &l, JINJA_TUPLE, &v) != 0) {
        return -1;
    }
    return jinja_format_percent(j, s, v, ret);
}

static int f_indent(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_str none = {.s = "", .special = true}, blank = {.s = " ", .len = 1, .n_chars = 1, .special = true};
    const struct jinja_str *s, *indent;
    struct jinja_list_buf lines;
    struct jinja_text t = {0};
    int64_t width;

    if (need_str(j, c, &s) != 0)
        return -1;
    if (c->v[0].type == JINJA_STR) {
        indent = c->v[0].str;
    } else {
        if (opt_int(j, c, c->v[0], 4, &width) != 0 || !(indent = jinja_pad(j, &none, width, '<', &blank)))
            return -1;
    }
    /* Jinja2 adds a newline and splits then: a text that ends in one has an empty last line. */
    const struct jinja_str *newline = jinja_str_new(j, "\n", 1, true), *longer = newline ? jinja_str_concat(j, s, newline) : NULL;
    if (!longer || jinja_split_lines(j, longer, false, &lines) != 0)
        return -1;
    for (size_t i = 0; i < lines.n && !t.failed; i++) {
        const struct jinja_str *line = lines.items[i].str;
        if (i)
            jinja_text_add(j, &t, "\n", 1, jinja_str_special_at(longer, (size_t)(line->s - longer->s) - 1));
        if (i == 0 ? flag(c->v[1]) : line->len || flag(c->v[2]))
            jinja_text_str(j, &t, indent);
        jinja_text_str(j, &t, line);
    }
    s = jinja_text_done(j, &t);
    return give_like(j, ret, s, c->self.str);
}

static int f_truncate(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_str dots = {.s = "...", .len = 3, .n_chars = 3, .special = true}, blank = {.s = " ", .len = 1, .n_chars = 1};
    const struct jinja_str *s, *end = &dots;
    int64_t length, leeway;
    size_t n, keep;

    if (opt_int(j, c, c->v[0], 255, &length) != 0)
        return -1;
    if (c->v[2].type == JINJA_STR)
        end = c->v[2].str;
    n = jinja_str_chars(end);
    if (c->v[2].type != JINJA_STR && c->v[2].type != JINJA_MISSING && !jinja_length(c->v[2], &n))
        return jinja_fail(j, ERR_INPUT, "truncate: end must be a string");
    if (jinja_given(c->v[3]) ? opt_int(j, c, c->v[3], 5, &leeway) != 0 : (leeway = 5, false))
        return -1;
    if (length < (int64_t)n || leeway < 0)
        return jinja_fail(j, ERR_INPUT, "truncate: expected length >= %zu, got %" PRId64, n, length);
    if (c->self.type != JINJA_STR && jinja_length(c->self, &keep) && (int64_t)keep - leeway <= length) {
        *ret = c->self; /* what has a length and is short enough stays */
        return 0;
    }
    if (need_str(j, c, &s) != 0)
        return -1;
    if (jinja_charge_bytes(j, s->len) != 0)
        return -1;
    if ((int64_t)jinja_str_chars(s) - leeway <= length) {
        *ret = c->self;
        return 0;
    }
    if (c->v[2].type != JINJA_STR && c->v[2].type != JINJA_MISSING)
        return jinja_fail(j, ERR_INPUT, "truncate: end must be a string");
    keep = jinja_str_offset(s, (size_t)length - n);
    if (!flag(c->v[1])) { /* back to the last blank */
        size_t p = keep;
        while (p > 0 && s->s[p - 1] != blank.s[0])
            p--;
        keep = p ? p - 1 : keep;
    }
    s = jinja_str_sub(j, s, 0, keep);
    return give(ret, s ? jinja_str_concat(j, s, end) : NULL);
}

static int f_wordcount(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->self);
    int64_t n = 0;
    bool inside = false;
    if (!s || jinja_charge_bytes(j, 4 * s->len) != 0)
        return -1;
    for (size_t i = 0, l; i < s->len; i += l) {
        uint32_t ch = 0;
        l = utf8_decode(s->s + i, s->len - i, &ch);
        l = l ? l : 1;
        bool word = ch == '_' || jinja_is_alpha(ch) || jinja_is_numeric(ch);
        n += word && !inside;
        inside = word;
    }
    *ret = jinja_int(n);
    return 0;
}

/* --- wordwrap: textwrap's way, without its special care for dashes ------- */

static bool is_wrap_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The end of the chunk of blanks or of one word (or part of it up to a hyphen) at `from`. */
static size_t chunk_end(const struct jinja_str *s, size_t from, bool hyphens)
{
    size_t p = from;
    bool blank = is_wrap_space(s->s[from]);
    while (p < s->len && is_wrap_space(s->s[p]) == blank) {
        p++;
        if (!blank && hyphens && s->s[p - 1] == '-' && p - from >= 3 && p < s->len && (s->s[p] | 32) >= 'a' && (s->s[p] | 32) <= 'z' &&
            (s->s[p - 2] | 32) >= 'a' && (s->s[p - 2] | 32) <= 'z' && (s->s[p - 3] | 32) >= 'a' && (s->s[p - 3] | 32) <= 'z')
            break;
    }
    return p;
}

static size_t chars_between(const struct jinja_str *s, size_t from, size_t to)
{
    const struct jinja_str part = {.s = s->s + from, .len = to - from, .n_chars = SIZE_MAX};
    return jinja_str_chars(&part);
}

/* Wraps one paragraph. *first tells whether nothing was written yet. */
static void wrap_paragraph(struct jinja *j, struct jinja_text *t, const struct jinja_str *s, size_t width, bool break_long, bool hyphens,
                           const struct jinja_str *newline)
{
    size_t from = 0; /* of the line being filled */
    bool first = true;
    while (from < s->len && !t->failed) {
        size_t end = from, used = 0;
        if (!first && is_wrap_space(s->s[from])) /* blanks at a line's beginning go, but for the first */
            from = end = chunk_end(s, from, false);
        while (end < s->len) {
            size_t next = chunk_end(s, end, hyphens), n = chars_between(s, end, next);
            if (jinja_charge_bytes(j, 2 * (next - end)) != 0) {
                t->failed = true;
                return;
            }
            if (used + n > width) {
                if (used == 0 && !break_long) {
                    end = next;
                } else if (n > width && break_long) {
                    const struct jinja_str rest = {.s = s->s + end, .len = s->len - end, .n_chars = SIZE_MAX};
                    end += jinja_str_offset(&rest, width > used ? width - used : 1);
                }
                break;
            }
            used += n;
            end = next;
        }
        size_t stop = end;
        while (stop > from && is_wrap_space(s->s[stop - 1]))
            stop--;
        if (stop > from) {
            if (!first)
                jinja_text_str(j, t, newline);
            jinja_text_sub(j, t, s, from, stop);
            first = false;
        }
        from = end;
    }
}

static int f_wordwrap(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_str nl = {.s = "\n", .len = 1, .n_chars = 1, .special = true};
    const struct jinja_str *s, *newline = &nl;
    struct jinja_list_buf lines;
    struct jinja_text t = {0};
    int64_t width;
    if (need_str(j, c, &s) != 0 || opt_int(j, c, c->v[0], 79, &width) != 0)
        return -1;
    if (width <= 0)
        return jinja_fail(j, ERR_INPUT, "invalid width %" PRId64 " (must be > 0)", width);
    if (jinja_given(c->v[2])) {
        if (c->v[2].type != JINJA_STR)
            return jinja_fail(j, ERR_INPUT, "wordwrap: wrapstring must be a string");
        newline = c->v[2].str;
    }
    if (jinja_charge_bytes(j, 16 * s->len) != 0 || jinja_split_lines(j, s, false, &lines) != 0)
        return -1;
    for (size_t i = 0; i < lines.n; i++) {
        if (i)
            jinja_text_str(j, &t, newline);
        wrap_paragraph(j, &t, lines.items[i].str, (size_t)width, c->v[1].type == JINJA_MISSING || flag(c->v[1]),
                       c->v[3].type == JINJA_MISSING || flag(c->v[3]), newline);
    }
    return jinja_text_value(j, &t, ret);
}

/* --- HTML and URLs ------------------------------------------------------ */

static int f_striptags(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct {
        const char *from, *to;
    } entities[] = {{"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}, {"&#34;", "\""}, {"&quot;", "\""}, {"&#39;", "'"}};
    const struct jinja_str *s = jinja_str_of(j, c->self);
    struct jinja_text t = {0}, words = {0};
    if (!s || jinja_charge_bytes(j, 8 * s->len) != 0)
        return -1;
    bool comments = true, tags = true; /* whether one still can end */
    for (size_t i = 0, from = 0; i <= s->len;) {
        bool comment = comments && s->len - i >= 4 && memcmp(s->s + i, "<!--", 4) == 0;
        const char *end = NULL;
        if (comment)
            comments = (end = memmem(s->s + i + 4, s->len - i - 4, "-->", 3));
        comment = end != NULL;
        if (!end && tags && i < s->len && s->s[i] == '<')
            tags = (end = memchr(s->s + i, '>', s->len - i));
        if (end || i == s->len)
            jinja_text_sub(j, &t, s, from, i);
        if (i == s->len)
            break;
        if (end)
            i = from = (size_t)(end - s->s) + (comment ? 3 : 1);
        else
            i++;
    }
    const struct jinja_str *plain = jinja_text_done(j, &t);
    for (size_t i = 0; plain && i < plain->len && !words.failed;) { /* one blank between words; entities */
        size_t k = 0, l = 0;
        while (i + l < plain->len && is_wrap_space(plain->s[i + l]))
            l++;
        if (l) {
            if (words.len && i + l < plain->len)
                jinja_text_add(j, &words, " ", 1, false);
            i += l;
            continue;
        }
        while (k < sizeof entities / sizeof *entities &&
               (plain->len - i < strlen(entities[k].from) || memcmp(plain->s + i, entities[k].from, strlen(entities[k].from)) != 0))
            k++;
        bool known = k < sizeof entities / sizeof *entities;
        l = known ? strlen(entities[k].from) : 1;
        if (known)
            jinja_text_puts(j, &words, entities[k].to);
        else
            jinja_text_sub(j, &words, plain, i, i + 1);
        i += l;
    }
    return plain ? jinja_text_value(j, &words, ret) : -1;
}

static void quote(struct jinja *j, struct jinja_text *t, const struct jinja_str *s, bool query)
{
    char buf[8];
    for (size_t i = 0; i < s->len && !t->failed; i++) {
        unsigned char ch = (unsigned char)s->s[i];
        if ((ch >= '0' && ch <= '9') || ((ch | 32) >= 'a' && (ch | 32) <= 'z') || (ch && strchr("_.-~", ch)) || (ch == '/' && !query)) {
            jinja_text_add(j, t, s->s + i, 1, false);
        } else if (query && ch == ' ') {
            jinja_text_puts(j, t, "+");
        } else {
            snprintf(buf, sizeof buf, "%%%02X", ch);
            jinja_text_puts(j, t, buf);
        }
    }
}

static int f_urlencode(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_text t = {0};
    const struct jinja_str *s;
    struct jinja_cursor cursor;
    struct jinja_value item = c->self;
    int rc;

    if (c->self.type == JINJA_STR || c->self.type == JINJA_NONE || jinja_is_number(c->self)) {
        if (!(s = jinja_str_of(j, c->self)) || jinja_charge_bytes(j, 8 * s->len) != 0)
            return -1;
        quote(j, &t, s, false);
        return jinja_text_value(j, &t, ret);
    }
    struct jinja_view view = {.dict = c->self.dict, .kind = JINJA_ITEMS};
    if (c->self.type == JINJA_DICT)
        item = (struct jinja_value){.type = JINJA_VIEW, .view = &view};
    if (jinja_cursor_init(j, &cursor, item) != 0)
        return -1;
    for (size_t n = 0; (rc = jinja_cursor_next(j, &cursor, &item)) == 1; n++) {
        if (!jinja_is_seq(item) || item.list->n != 2)
            return jinja_fail(j, ERR_INPUT, "urlencode: pairs of key and value are needed");
        if (n)
            jinja_text_puts(j, &t, "&");
        for (int i = 0; i < 2; i++) {
            if (!(s = jinja_str_of(j, item.list->items[i])))
                return -1;
            quote(j, &t, s, true);
            if (i == 0)
                jinja_text_puts(j, &t, "=");
        }
    }
    return rc < 0 ? -1 : jinja_text_value(j, &t, ret);
}

static int f_xmlattr(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_text t = {0};
    bool any = false, blank = c->v[0].type == JINJA_MISSING || flag(c->v[0]);
    if (c->self.type != JINJA_DICT)
        return c->self.type == JINJA_UNDEFINED ? jinja_fail_undefined(j, c->self)
                                               : jinja_fail(j, ERR_INPUT, "xmlattr: a mapping is needed");
    for (size_t i = 0; i < c->self.dict->n; i++) {
        const struct jinja_entry *e = &c->self.dict->entries[i];
        const struct jinja_str *key, *value;
        if (e->value.type == JINJA_NONE || e->value.type == JINJA_UNDEFINED)
            continue;
        if (e->key.type != JINJA_STR)
            return jinja_fail(j, ERR_INPUT, "xmlattr: keys must be strings");
        for (size_t k = 0; k < e->key.str->len; k++)
            if (!e->key.str->s[k] ? false : strchr(" \t\n\r\f\v/>=", e->key.str->s[k]) != NULL)
                return jinja_fail(j, ERR_INPUT, "invalid character in attribute name");
        if (!(key = jinja_escape(j, e->key.str)) || !(value = jinja_str_of(j, e->value)) || !(value = jinja_escape(j, value)))
            return -1;
        if (any || blank)
            jinja_text_puts(j, &t, " ");
        jinja_text_str(j, &t, key);
        jinja_text_puts(j, &t, "=\"");
        jinja_text_str(j, &t, value);
        jinja_text_puts(j, &t, "\"");
        any = true;
    }
    return jinja_text_value(j, &t, ret);
}

const struct jinja_builtin jinja_text_filters[] = {
    {"capitalize", "", f_case, JINJA_CAPITALIZE},
    {"center", "width?", f_center, 0},
    {"e", "/", f_escape, 0},
    {"escape", "/", f_escape, 0},
    {"forceescape", "", f_escape, 1},
    {"format", "*", f_format, 0},
    {"indent", "width?,first?,blank?", f_indent, 0},
    {"lower", "", f_case, JINJA_LOWER},
    {"replace", "old,new,count?", f_replace, 0},
    {"safe", "", f_safe, 0},
    {"string", "/", f_string, 0},
    {"striptags", "", f_striptags, 0},
    {"title", "", f_title, 0},
    {"tojson", "ensure_ascii?,indent?,separators?,sort_keys?", jinja_tojson, 0},
    {"trim", "chars?", f_trim, 0},
    {"truncate", "length?,killwords?,end?,leeway?", f_truncate, 0},
    {"upper", "", f_case, JINJA_UPPER},
    {"urlencode", "", f_urlencode, 0},
    {"urlize", "*", NULL, 0},
    {"wordcount", "", f_wordcount, 0},
    {"wordwrap", "width?,break_long_words?,wrapstring?,break_on_hyphens?", f_wordwrap, 0},
    {"xmlattr", "autospace?", f_xmlattr, 0},
};
const size_t jinja_n_text_filters = sizeof jinja_text_filters / sizeof *jinja_text_filters;
