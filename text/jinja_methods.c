/* Methods of Python's str, dict, list and the few other types that templates meet. What would change a list or dict is
 * there and forbidden, as in Jinja2's immutable sandbox. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"
#include "text/jinja_unicode.h"

static const struct jinja_str *self_str(const struct jinja_call *c)
{
    return c->self.str;
}

static int give(struct jinja_value *ret, const struct jinja_str *s)
{
    if (!s)
        return -1;
    *ret = jinja_string(s);
    return 0;
}

static int give_like(struct jinja *j, struct jinja_value *ret, const struct jinja_str *s, const struct jinja_str *like)
{
    return give(ret, s ? jinja_str_markup(j, s, like->markup) : NULL);
}

static int need_str(struct jinja *j, const struct jinja_call *c, struct jinja_value v)
{
    if (v.type == JINJA_STR)
        return 0;
    return jinja_fail(j, ERR_INPUT, "%s() argument must be str, not %s", c->builtin->name, jinja_type_name(v));
}

static int opt_int(struct jinja *j, const struct jinja_call *c, struct jinja_value v, int64_t fallback, int64_t *ret)
{
    *ret = fallback;
    if (v.type == JINJA_MISSING)
        return 0;
    if (!jinja_is_int(v))
        return jinja_fail(j, ERR_INPUT, "%s(): '%s' object cannot be interpreted as an integer", c->builtin->name, jinja_type_name(v));
    *ret = jinja_as_int(v);
    return 0;
}

/* --- splitting ---------------------------------------------------------- */

static int push_part(struct jinja *j, struct jinja_list_buf *l, const struct jinja_str *s, size_t from, size_t to)
{
    const struct jinja_str *part = jinja_str_sub(j, s, from, to);
    return part && jinja_charge(j, 1) == 0 ? jinja_list_push(j, l, jinja_string(part)) : -1;
}

static bool space_at(const struct jinja_str *s, size_t i, size_t *ret_len)
{
    uint32_t c = 0;
    *ret_len = utf8_decode(s->s + i, s->len - i, &c);
    if (!*ret_len)
        *ret_len = 1;
    return jinja_is_space(c);
}

/* Words between white space, from the left. */
static int split_words(struct jinja *j, const struct jinja_str *s, int64_t max, struct jinja_list_buf *ret)
{
    size_t i = 0, l, from;
    for (;;) {
        while (i < s->len && space_at(s, i, &l))
            i += l;
        if (i >= s->len)
            return 0;
        from = i;
        if (max-- == 0)
            return push_part(j, ret, s, from, s->len);
        while (i < s->len && !space_at(s, i, &l))
            i += l;
        if (push_part(j, ret, s, from, i) != 0)
            return -1;
    }
}

static size_t previous(const struct jinja_str *s, size_t i)
{
    do
        i--;
    while (i > 0 && ((unsigned char)s->s[i] & 0xC0) == 0x80);
    return i;
}

/* The same from the right; the parts come in reverse. */
static int rsplit_words(struct jinja *j, const struct jinja_str *s, int64_t max, struct jinja_list_buf *ret)
{
    size_t i = s->len, l, to;
    for (;;) {
        while (i > 0 && space_at(s, previous(s, i), &l))
            i = previous(s, i);
        if (i == 0)
            return 0;
        to = i;
        if (max-- == 0)
            return push_part(j, ret, s, 0, to);
        while (i > 0 && !space_at(s, previous(s, i), &l))
            i = previous(s, i);
        if (push_part(j, ret, s, i, to) != 0)
            return -1;
    }
}

/* The last occurrence that ends at or before `to`, SIZE_MAX if there is none. Comparisons cost what they read. */
static int find_last(struct jinja *j, const struct jinja_str *s, const struct jinja_str *needle, size_t from, size_t to, size_t *ret)
{
    *ret = SIZE_MAX;
    if (needle->len > to || to - needle->len < from)
        return 0;
    for (size_t i = to - needle->len + 1; i-- > from;) {
        if (needle->len && s->s[i] != needle->s[0])
            continue;
        if (jinja_charge_bytes(j, needle->len) != 0)
            return -1;
        if (memcmp(s->s + i, needle->s, needle->len) == 0) {
            *ret = i;
            return 0;
        }
    }
    return 0;
}

static int split_at(struct jinja *j, const struct jinja_str *s, const struct jinja_str *sep, int64_t max, bool right,
                    struct jinja_list_buf *ret)
{
    size_t from = 0, to = s->len, hit;
    while (max-- != 0) {
        hit = right ? SIZE_MAX : jinja_str_find(s, sep, from, to);
        if (right && find_last(j, s, sep, 0, to, &hit) != 0)
            return -1;
        if (hit == SIZE_MAX)
            break;
        if (right ? push_part(j, ret, s, hit + sep->len, to) != 0 : push_part(j, ret, s, from, hit) != 0)
            return -1;
        if (right)
            to = hit;
        else
            from = hit + sep->len;
    }
    return push_part(j, ret, s, from, to);
}

/* split, rsplit (tag 1) */
static int m_split(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    struct jinja_list_buf l = {0};
    int64_t max;
    bool right = c->builtin->tag;

    if (opt_int(j, c, c->v[1], -1, &max) != 0 || jinja_charge_bytes(j, s->len) != 0)
        return -1;
    if (!jinja_given(c->v[0])) {
        if ((right ? rsplit_words(j, s, max, &l) : split_words(j, s, max, &l)) != 0)
            return -1;
    } else {
        if (need_str(j, c, c->v[0]) != 0)
            return -1;
        if (c->v[0].str->len == 0)
            return jinja_fail(j, ERR_INPUT, "empty separator");
        if (split_at(j, s, c->v[0].str, max, right, &l) != 0)
            return -1;
    }
    for (size_t i = 0; right && i < l.n / 2; i++) {
        struct jinja_value v = l.items[i];
        l.items[i] = l.items[l.n - 1 - i];
        l.items[l.n - 1 - i] = v;
    }
    return jinja_list_value(j, &l, JINJA_LIST, ret);
}

static int m_splitlines(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l;
    int64_t keep;
    if (opt_int(j, c, c->v[0], 0, &keep) != 0)
        return -1;
    return jinja_split_lines(j, self_str(c), keep != 0, &l) != 0 ? -1 : jinja_list_value(j, &l, JINJA_LIST, ret);
}

/* partition, rpartition (tag 1): a tuple of three */
static int m_partition(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c), *sep;
    struct jinja_list_buf l = {0};
    size_t hit;
    if (need_str(j, c, c->v[0]) != 0 || jinja_charge_bytes(j, s->len) != 0)
        return -1;
    sep = c->v[0].str;
    if (sep->len == 0)
        return jinja_fail(j, ERR_INPUT, "empty separator");
    hit = c->builtin->tag ? SIZE_MAX : jinja_str_find(s, sep, 0, s->len);
    if (c->builtin->tag && find_last(j, s, sep, 0, s->len, &hit) != 0)
        return -1;
    if (hit == SIZE_MAX) {
        size_t cut = c->builtin->tag ? 0 : s->len;
        if (push_part(j, &l, s, 0, cut) != 0 || push_part(j, &l, s, cut, cut) != 0 ||
            (c->builtin->tag ? push_part(j, &l, s, 0, s->len) : push_part(j, &l, s, cut, cut)) != 0)
            return -1;
    } else if (push_part(j, &l, s, 0, hit) != 0 || push_part(j, &l, s, hit, hit + sep->len) != 0 ||
               push_part(j, &l, s, hit + sep->len, s->len) != 0) {
        return -1;
    }
    return jinja_list_value(j, &l, JINJA_TUPLE, ret);
}

/* --- parts -------------------------------------------------------------- */

static int m_strip(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *chars = NULL;
    if (jinja_given(c->v[0])) {
        if (need_str(j, c, c->v[0]) != 0)
            return -1;
        chars = c->v[0].str;
    }
    return give_like(j, ret, jinja_strip(j, self_str(c), chars, c->builtin->tag & 1, c->builtin->tag & 2), self_str(c));
}

/* The byte range that optional start and end arguments name, as a slice does; *ret_valid: start is within the string. */
static int range_args(struct jinja *j, struct jinja_call *c, int first, size_t *ret_from, size_t *ret_to, bool *ret_valid)
{
    const struct jinja_str *s = self_str(c);
    int64_t n = (int64_t)jinja_str_chars(s), start, stop;
    if (opt_int(j, c, jinja_given(c->v[first]) ? c->v[first] : (struct jinja_value){.type = JINJA_MISSING}, 0, &start) != 0 ||
        opt_int(j, c, jinja_given(c->v[first + 1]) ? c->v[first + 1] : (struct jinja_value){.type = JINJA_MISSING}, n, &stop) != 0 ||
        jinja_charge_bytes(j, s->len) != 0)
        return -1;
    start = start < 0 ? (start + n < 0 ? 0 : start + n) : start;
    stop = stop < 0 ? (stop + n < 0 ? 0 : stop + n) : stop > n ? n : stop;
    *ret_valid = start <= stop;
    *ret_from = *ret_valid ? jinja_str_offset(s, (size_t)start) : 0;
    *ret_to = *ret_valid ? jinja_str_offset(s, (size_t)stop) : 0;
    return 0;
}

enum { FIND_LAST = 1, FIND_OR_FAIL = 2 };

static int m_find(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    size_t from, to, hit = SIZE_MAX;
    bool valid;
    if (need_str(j, c, c->v[0]) != 0 || range_args(j, c, 1, &from, &to, &valid) != 0)
        return -1;
    if (valid && !(c->builtin->tag & FIND_LAST))
        hit = jinja_str_find(s, c->v[0].str, from, to);
    else if (valid && find_last(j, s, c->v[0].str, from, to, &hit) != 0)
        return -1;
    if (hit == SIZE_MAX && (c->builtin->tag & FIND_OR_FAIL))
        return jinja_fail(j, ERR_INPUT, "substring not found");
    *ret = jinja_int(hit == SIZE_MAX ? -1 : (int64_t)jinja_str_index(s, hit));
    return 0;
}

static int m_count(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    size_t from, to, hit;
    int64_t n = 0;
    bool valid;
    if (need_str(j, c, c->v[0]) != 0 || range_args(j, c, 1, &from, &to, &valid) != 0)
        return -1;
    if (c->v[0].str->len == 0)
        n = valid ? (int64_t)(jinja_str_index(s, to) - jinja_str_index(s, from)) + 1 : 0;
    else
        for (; valid && (hit = jinja_str_find(s, c->v[0].str, from, to)) != SIZE_MAX; from = hit + c->v[0].str->len)
            n++;
    *ret = jinja_int(n);
    return 0;
}

/* startswith, endswith (tag 1); the affix may be a tuple of several */
static int m_startswith(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    struct jinja_list one = {.items = &c->v[0], .n = 1};
    const struct jinja_list *l = c->v[0].type == JINJA_TUPLE ? c->v[0].list : &one;
    size_t from, to;
    bool valid, is = false;
    if (range_args(j, c, 1, &from, &to, &valid) != 0)
        return -1;
    for (size_t i = 0; i < l->n && !is; i++) {
        if (need_str(j, c, l->items[i]) != 0 || jinja_charge(j, 1) != 0 || jinja_charge_bytes(j, l->items[i].str->len) != 0)
            return -1;
        const struct jinja_str *affix = l->items[i].str;
        is = valid && affix->len <= to - from && memcmp(s->s + (c->builtin->tag ? to - affix->len : from), affix->s, affix->len) == 0;
    }
    *ret = jinja_bool(is);
    return 0;
}

static int m_removeprefix(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c), *affix;
    if (need_str(j, c, c->v[0]) != 0)
        return -1;
    affix = c->v[0].str;
    if (affix->len > s->len || memcmp(s->s + (c->builtin->tag ? s->len - affix->len : 0), affix->s, affix->len) != 0)
        return give(ret, s);
    return give(ret, c->builtin->tag ? jinja_str_sub(j, s, 0, s->len - affix->len) : jinja_str_sub(j, s, affix->len, s->len));
}

/* --- new text ----------------------------------------------------------- */

static int m_case(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    return give_like(j, ret, jinja_change_case(j, self_str(c), c->builtin->tag), self_str(c));
}

static int m_replace(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c), *old, *fresh;
    int64_t count;
    if (need_str(j, c, c->v[0]) != 0 || need_str(j, c, c->v[1]) != 0 || opt_int(j, c, c->v[2], -1, &count) != 0)
        return -1;
    old = s->markup ? jinja_escape(j, c->v[0].str) : c->v[0].str;
    fresh = s->markup ? jinja_escape(j, c->v[1].str) : c->v[1].str;
    return old && fresh ? give_like(j, ret, jinja_replace(j, s, old, fresh, count), s) : -1;
}

static int m_join(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_text t = {0};
    struct jinja_cursor cursor;
    struct jinja_value item;
    int rc;
    if (jinja_cursor_init(j, &cursor, c->v[0]) != 0)
        return -1;
    for (size_t n = 0; (rc = jinja_cursor_next(j, &cursor, &item)) == 1; n++) {
        if (item.type != JINJA_STR)
            return jinja_fail(j, ERR_INPUT, "sequence item %zu: expected str instance, %s found", n, jinja_type_name(item));
        if (n)
            jinja_text_str(j, &t, self_str(c));
        if (jinja_print(j, &t, item) != 0)
            return -1;
    }
    return rc < 0 || jinja_text_value(j, &t, ret) != 0 ? -1 : give_like(j, ret, ret->str, self_str(c));
}

/* ljust, rjust, center: the tag is the side */
static int m_just(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *fill = NULL;
    int64_t width;
    if (opt_int(j, c, c->v[0], 0, &width) != 0)
        return -1;
    if (c->v[1].type != JINJA_MISSING) {
        if (need_str(j, c, c->v[1]) != 0)
            return -1;
        fill = c->v[1].str;
        if (jinja_str_chars(fill) != 1)
            return jinja_fail(j, ERR_INPUT, "the fill character must be exactly one character long");
    }
    return give_like(j, ret, jinja_pad(j, self_str(c), width, (char)c->builtin->tag, fill), self_str(c));
}

static int m_zfill(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_str zero = {.s = "0", .len = 1, .n_chars = 1, .special = true};
    const struct jinja_str *s = self_str(c), *digits, *padded;
    size_t sign = s->len && (s->s[0] == '-' || s->s[0] == '+');
    int64_t width;
    if (opt_int(j, c, c->v[0], 0, &width) != 0 || !(digits = jinja_str_sub(j, s, sign, s->len)) ||
        !(padded = jinja_pad(j, digits, width - (width > 0 && sign), '>', &zero)))
        return -1;
    if (!sign)
        return give(ret, padded);
    const struct jinja_str *head = jinja_str_sub(j, s, 0, 1);
    return give(ret, head ? jinja_str_concat(j, head, padded) : NULL);
}

static int m_expandtabs(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    struct jinja_text t = {0};
    int64_t size, column = 0;
    if (opt_int(j, c, c->v[0], 8, &size) != 0 || jinja_charge_bytes(j, s->len) != 0)
        return -1;
    for (size_t i = 0; i < s->len && !t.failed; i++) {
        if (s->s[i] == '\t') {
            int64_t n = size > 0 ? size - column % size : 0;
            if (n > 4096)
                return jinja_fail(j, ERR_LIMIT, "expandtabs: tabs wider than 4096");
            for (; n > 0; n--, column++)
                jinja_text_puts(j, &t, " ");
            if (jinja_charge(j, 1 + (size_t)(size > 0 ? size : 0) / 64) != 0)
                return -1;
            continue;
        }
        jinja_text_sub(j, &t, s, i, i + 1);
        column = s->s[i] == '\n' || s->s[i] == '\r' ? 0 : column + (((unsigned char)s->s[i] & 0xC0) != 0x80);
    }
    return jinja_text_value(j, &t, ret);
}

/* --- what kind of text -------------------------------------------------- */

enum { ALL_ALPHA, ALL_ALNUM, ALL_DECIMAL, ALL_DIGIT, ALL_NUMERIC, ALL_SPACE, ALL_PRINTABLE, ALL_ASCII, ALL_IDENTIFIER };

static bool is_of(uint32_t c, int kind, bool first)
{
    switch (kind) {
    case ALL_ALPHA:
        return jinja_is_alpha(c);
    case ALL_ALNUM:
        return jinja_is_alpha(c) || jinja_is_numeric(c);
    case ALL_DECIMAL:
        return jinja_is_decimal(c);
    case ALL_DIGIT:
        return jinja_is_digit(c);
    case ALL_NUMERIC:
        return jinja_is_numeric(c);
    case ALL_SPACE:
        return jinja_is_space(c);
    case ALL_PRINTABLE:
        return jinja_is_printable(c);
    case ALL_ASCII:
        return c < 0x80;
    default:
        return c == '_' || jinja_is_alpha(c) || (!first && jinja_is_decimal(c));
    }
}

static int m_is(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    int kind = c->builtin->tag;
    bool all = s->len > 0 || kind == ALL_PRINTABLE || kind == ALL_ASCII;
    for (size_t i = 0, l; i < s->len && all; i += l) {
        uint32_t ch = 0;
        l = utf8_decode(s->s + i, s->len - i, &ch);
        l = l ? l : 1;
        all = is_of(ch, kind, i == 0);
    }
    *ret = jinja_bool(all);
    return jinja_charge_bytes(j, 4 * s->len);
}

/* isupper, islower (tag), istitle (tag 2) */
static int m_iscase(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = self_str(c);
    if (jinja_charge_bytes(j, 4 * s->len) != 0)
        return -1;
    if (c->builtin->tag < 2) {
        *ret = jinja_bool(jinja_all_case(s, c->builtin->tag));
        return 0;
    }
    bool is = true, in_word = false, any = false;
    for (size_t i = 0, l; i < s->len && is; i += l) {
        uint32_t ch = 0;
        l = utf8_decode(s->s + i, s->len - i, &ch);
        l = l ? l : 1;
        bool upper = jinja_is_upper(ch) || jinja_is_title(ch), lower = jinja_is_lower(ch);
        is = !(upper && in_word) && !(lower && !in_word);
        in_word = upper || lower;
        any |= in_word;
    }
    *ret = jinja_bool(is && any);
    return 0;
}

static const struct jinja_builtin str_methods[] = {
    {"capitalize", "", m_case, JINJA_CAPITALIZE},
    {"casefold", "", m_case, JINJA_FOLD},
    {"center", "/width,fill?", m_just, '^'},
    {"count", "/sub,start?,end?", m_count, 0},
    {"encode", "*", NULL, 0},
    {"endswith", "/suffix,start?,end?", m_startswith, 1},
    {"expandtabs", "tabsize?", m_expandtabs, 0},
    {"find", "/sub,start?,end?", m_find, 0},
    {"format", "*", jinja_format_braces, 0},
    {"format_map", "*", jinja_format_braces, 1},
    {"index", "/sub,start?,end?", m_find, FIND_OR_FAIL},
    {"isalnum", "", m_is, ALL_ALNUM},
    {"isalpha", "", m_is, ALL_ALPHA},
    {"isascii", "", m_is, ALL_ASCII},
    {"isdecimal", "", m_is, ALL_DECIMAL},
    {"isdigit", "", m_is, ALL_DIGIT},
    {"isidentifier", "", m_is, ALL_IDENTIFIER},
    {"islower", "", m_iscase, 0},
    {"isnumeric", "", m_is, ALL_NUMERIC},
    {"isprintable", "", m_is, ALL_PRINTABLE},
    {"isspace", "", m_is, ALL_SPACE},
    {"istitle", "", m_iscase, 2},
    {"isupper", "", m_iscase, 1},
    {"join", "/iterable", m_join, 0},
    {"ljust", "/width,fill?", m_just, '<'},
    {"lower", "", m_case, JINJA_LOWER},
    {"lstrip", "/chars?", m_strip, 1},
    {"maketrans", "*", NULL, 0},
    {"partition", "/sep", m_partition, 0},
    {"removeprefix", "/prefix", m_removeprefix, 0},
    {"removesuffix", "/suffix", m_removeprefix, 1},
    {"replace", "/old,new,count?", m_replace, 0},
    {"rfind", "/sub,start?,end?", m_find, FIND_LAST},
    {"rindex", "/sub,start?,end?", m_find, FIND_LAST | FIND_OR_FAIL},
    {"rjust", "/width,fill?", m_just, '>'},
    {"rpartition", "/sep", m_partition, 1},
    {"rsplit", "sep?,maxsplit?", m_split, 1},
    {"rstrip", "/chars?", m_strip, 2},
    {"split", "sep?,maxsplit?", m_split, 0},
    {"splitlines", "keepends?", m_splitlines, 0},
    {"startswith", "/prefix,start?,end?", m_startswith, 0},
    {"strip", "/chars?", m_strip, 3},
    {"swapcase", "", m_case, JINJA_SWAPCASE},
    {"title", "", m_case, JINJA_TITLE},
    {"translate", "*", NULL, 0},
    {"upper", "", m_case, JINJA_UPPER},
    {"zfill", "/width", m_zfill, 0},
};

/* --- containers --------------------------------------------------------- */

static int m_get(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_entry *e;
    if (jinja_dict_find(j, c->self.dict, c->v[0], &e) != 0)
        return -1;
    *ret = e ? e->value : c->v[1].type == JINJA_MISSING ? jinja_none() : c->v[1];
    return 0;
}

static int m_view(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_view *view = jinja_alloc(j, 1, sizeof *view);
    if (!view)
        return -1;
    *view = (struct jinja_view){.dict = c->self.dict, .kind = c->builtin->tag};
    *ret = (struct jinja_value){.type = JINJA_VIEW, .view = view};
    return 0;
}

static int m_copy(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    *ret = c->self; /* nobody can change either */
    if (c->self.type == JINJA_DICT) {
        struct jinja_dict *d = jinja_alloc(j, 1, sizeof *d);
        if (!d)
            return -1;
        *d = *c->self.dict;
        ret->dict = d;
        return 0;
    }
    struct jinja_list_buf l = {.items = c->self.list->items, .n = c->self.list->n};
    return jinja_list_value(j, &l, JINJA_LIST, ret);
}

/* count, index (tag 1) of a list, tuple or range */
static int m_list_find(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_cursor cursor;
    struct jinja_value item;
    size_t length = 0;
    int64_t n = 0, start = 0, stop = 0;
    int rc;
    jinja_length(c->self, &length);
    if (opt_int(j, c, c->v[1], 0, &start) != 0 || opt_int(j, c, c->v[2], INT64_MAX, &stop) != 0 ||
        jinja_cursor_init(j, &cursor, c->self) != 0)
        return -1;
    start = start < 0 && start + (int64_t)length >= 0 ? start + (int64_t)length : start;
    stop = stop < 0 ? stop + (int64_t)length : stop;
    for (int64_t i = 0; (rc = jinja_cursor_next(j, &cursor, &item)) == 1; i++) {
        int equal = jinja_equal(j, item, c->v[0]);
        if (equal < 0)
            return -1;
        if (equal && c->builtin->tag && i >= start && i < stop) {
            *ret = jinja_int(i);
            return 0;
        }
        n += equal;
    }
    if (rc < 0)
        return -1;
    if (c->builtin->tag)
        return jinja_fail(j, ERR_INPUT, "the value is not in the list");
    *ret = jinja_int(n);
    return 0;
}

static int m_is_integer(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_value rest;
    if (jinja_math(j, JINJA_OP_MOD, c->self, jinja_int(1), &rest) != 0)
        return -1;
    *ret = jinja_bool(jinja_as_float(rest) == 0);
    return 0;
}

static int m_cycler(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_cycler *cycler = c->self.cycler;
    (void)j;
    *ret = c->builtin->tag ? cycler->items->items[cycler->pos] : jinja_none();
    cycler->pos = c->builtin->tag ? (cycler->pos + 1) % cycler->items->n : 0;
    return 0;
}

static const struct jinja_builtin dict_methods[] = {
    {"copy", "", m_copy, 0},
    {"fromkeys", "*", NULL, 0},
    {"get", "/key,default?", m_get, 0},
    {"items", "", m_view, JINJA_ITEMS},
    {"keys", "", m_view, JINJA_KEYS},
    {"values", "", m_view, JINJA_VALUES},
};
static const struct jinja_builtin list_methods[] = {
    {"count", "/value", m_list_find, 0},
    {"index", "/value,start?,stop?", m_list_find, 1},
    {"copy", "", m_copy, 0}, /* a list's alone: keep it last */
};
static const struct jinja_builtin loop_methods[] = {{"cycle", "*", jinja_loop_cycle, 0}, {"changed", "*", jinja_loop_changed, 0}};
static const struct jinja_builtin cycler_methods[] = {{"next", "", m_cycler, 1}, {"reset", "", m_cycler, 0}};
static const struct jinja_builtin float_methods[] = {
    {"is_integer", "", m_is_integer, 0}, {"hex", "", NULL, 0}, {"as_integer_ratio", "", NULL, 0}, {"conjugate", "", NULL, 0}};
static const struct jinja_builtin int_methods[] = {{"bit_length", "", NULL, 0},
                                                   {"bit_count", "", NULL, 0},
                                                   {"to_bytes", "*", NULL, 0},
                                                   {"as_integer_ratio", "", NULL, 0},
                                                   {"conjugate", "", NULL, 0}};

static bool among(const struct jinja_str *name, const char *const *names)
{
    while (*names && !jinja_str_is(name, *names))
        names++;
    return *names;
}

#define FIND(table, n) jinja_find_in(table, n, name->s, name->len)
#define COUNT(table) (sizeof table / sizeof *table)

const struct jinja_builtin *jinja_find_method(struct jinja_value self, const struct jinja_str *name, bool *ret_unsafe)
{
    static const char *const dict_unsafe[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const list_unsafe[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove", NULL};
    *ret_unsafe = false;
    switch (self.type) {
    case JINJA_STR:
        return FIND(str_methods, COUNT(str_methods));
    case JINJA_DICT:
        *ret_unsafe = among(name, dict_unsafe);
        return FIND(dict_methods, COUNT(dict_methods));
    case JINJA_LIST:
        *ret_unsafe = among(name, list_unsafe);
        return FIND(list_methods, COUNT(list_methods));
    case JINJA_TUPLE:
    case JINJA_RANGE:
        return FIND(list_methods, COUNT(list_methods) - 1);
    case JINJA_LOOP:
        return FIND(loop_methods, COUNT(loop_methods));
    case JINJA_CYCLER:
        return FIND(cycler_methods, COUNT(cycler_methods));
    case JINJA_FLOAT:
        return FIND(float_methods, COUNT(float_methods));
    case JINJA_INT:
    case JINJA_BOOL:
        return FIND(int_methods, COUNT(int_methods));
    default:
        return NULL;
    }
}
