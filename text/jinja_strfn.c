/* What Python's str methods do, shared by filters and methods. All keep the marks of the bytes they keep. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"
#include "text/jinja_unicode.h"

/* The character at byte i and its length. Strings are valid UTF-8; if one were not, its bytes count as characters. */
static uint32_t char_at(const struct jinja_str *s, size_t i, size_t *ret_len)
{
    uint32_t c = 0xFFFD;
    size_t l = utf8_decode(s->s + i, s->len - i, &c);
    *ret_len = l ? l : 1;
    return c;
}

static size_t previous(const struct jinja_str *s, size_t i)
{
    do
        i--;
    while (i > 0 && ((unsigned char)s->s[i] & 0xC0) == 0x80);
    return i;
}

static bool in_set(const struct jinja_str *chars, uint32_t c, const char *s, size_t len)
{
    return chars ? memmem(chars->s, chars->len, s, len) != NULL : jinja_is_space(c);
}

const struct jinja_str *jinja_strip(struct jinja *j, const struct jinja_str *s, const struct jinja_str *chars, bool left, bool right)
{
    size_t from = 0, to = s->len, l;
    size_t each = chars ? chars->len : 0;
    while (left && from < to) {
        uint32_t c = char_at(s, from, &l);
        if (jinja_charge_bytes(j, each) != 0)
            return NULL;
        if (!in_set(chars, c, s->s + from, l))
            break;
        from += l;
    }
    while (right && to > from) {
        size_t p = previous(s, to);
        uint32_t c = char_at(s, p, &l);
        if (jinja_charge_bytes(j, each) != 0)
            return NULL;
        if (!in_set(chars, c, s->s + p, to - p))
            break;
        to = p;
    }
    if (jinja_charge_bytes(j, s->len - (to - from)) != 0)
        return NULL;
    return jinja_str_sub(j, s, from, to);
}

const struct jinja_str *jinja_replace(struct jinja *j, const struct jinja_str *s, const struct jinja_str *old,
                                      const struct jinja_str *fresh, int64_t count)
{
    struct jinja_text t = {0};
    size_t from = 0, hit, l, n = 0;

    if (jinja_charge_bytes(j, s->len) != 0)
        return NULL;
    if (old->len == 0) { /* between all characters */
        for (; from <= s->len && count != 0 && !t.failed; count -= count > 0, n++) {
            jinja_text_str(j, &t, fresh);
            if (from == s->len)
                return jinja_charge(j, n / 8) == 0 ? jinja_text_done(j, &t) : NULL;
            char_at(s, from, &l);
            jinja_text_sub(j, &t, s, from, from + l);
            from += l;
        }
    } else {
        if (jinja_str_find(s, old, 0, s->len) == SIZE_MAX)
            return s;
        while (count != 0 && !t.failed && (hit = jinja_str_find(s, old, from, s->len)) != SIZE_MAX) {
            jinja_text_sub(j, &t, s, from, hit);
            jinja_text_str(j, &t, fresh);
            from = hit + old->len;
            count -= count > 0;
            n++;
        }
    }
    jinja_text_sub(j, &t, s, from, s->len);
    return jinja_charge(j, n / 8) == 0 ? jinja_text_done(j, &t) : NULL;
}

/* --- upper and lower case ----------------------------------------------- */

static bool is_cased(uint32_t c)
{
    return jinja_is_upper(c) || jinja_is_lower(c) || jinja_is_title(c);
}

/* A capital sigma at a word's end becomes another small one than elsewhere. */
static bool final_sigma(const struct jinja_str *s, size_t at, size_t after)
{
    size_t l;
    if (at == 0 || !is_cased(char_at(s, previous(s, at), &l)))
        return false;
    return after >= s->len || !is_cased(char_at(s, after, &l));
}

void jinja_text_cased(struct jinja *j, struct jinja_text *t, const struct jinja_str *s, size_t i, bool upper, bool title)
{
    size_t l;
    uint32_t c = char_at(s, i, &l);
    const char *several = upper && c >= 0x80 ? jinja_special_upper(c, title) : NULL;
    bool special = jinja_str_special_at(s, i);
    if (several)
        jinja_text_add(j, t, several, strlen(several), special);
    else if (!upper && c == 0x3A3 && final_sigma(s, i, i + l))
        jinja_text_char(j, t, 0x3C2, special);
    else if (!upper && c == 0x130)
        jinja_text_add(j, t, "i\xCC\x87", 3, special);
    else
        jinja_text_char(j, t, upper ? jinja_to_upper(c) : jinja_to_lower(c), special);
}

const struct jinja_str *jinja_change_case(struct jinja *j, const struct jinja_str *s, enum jinja_case to)
{
    struct jinja_text t = {0};
    bool in_word = false;
    size_t l;

    if (jinja_charge_bytes(j, 4 * s->len) != 0)
        return NULL;
    for (size_t i = 0; i < s->len && !t.failed; i += l) {
        uint32_t c = char_at(s, i, &l);
        bool upper = to == JINJA_UPPER;
        if (to == JINJA_CAPITALIZE)
            upper = i == 0;
        else if (to == JINJA_TITLE)
            upper = !in_word;
        else if (to == JINJA_SWAPCASE)
            upper = jinja_is_lower(c);
        in_word = is_cased(c);
        if (to == JINJA_FOLD && c == 0xDF)
            jinja_text_add(j, &t, "ss", 2, jinja_str_special_at(s, i));
        else if (to == JINJA_FOLD && c == 0x3C2)
            jinja_text_char(j, &t, 0x3C3, jinja_str_special_at(s, i));
        else if (to == JINJA_SWAPCASE && !jinja_is_upper(c) && !jinja_is_lower(c))
            jinja_text_sub(j, &t, s, i, i + l);
        else
            jinja_text_cased(j, &t, s, i, upper, to == JINJA_CAPITALIZE || to == JINJA_TITLE);
    }
    return jinja_text_done(j, &t);
}

bool jinja_all_case(const struct jinja_str *s, bool upper)
{
    bool any = false;
    size_t l;
    for (size_t i = 0; i < s->len; i += l) {
        uint32_t c = char_at(s, i, &l);
        if (jinja_is_title(c) || (upper ? jinja_is_lower(c) : jinja_is_upper(c)))
            return false;
        any |= upper ? jinja_is_upper(c) : jinja_is_lower(c);
    }
    return any;
}

/* --- layout ------------------------------------------------------------- */

static void add_fill(struct jinja *j, struct jinja_text *t, const struct jinja_str *fill, size_t n)
{
    for (size_t i = 0; i < n && !t->failed; i++)
        jinja_text_str(j, t, fill);
}

const struct jinja_str *jinja_pad(struct jinja *j, const struct jinja_str *s, int64_t width, char align, const struct jinja_str *fill)
{
    static const struct jinja_str blank = {.s = " ", .len = 1, .n_chars = 1};
    size_t n = jinja_str_chars(s), room, left;
    struct jinja_text t = {0};

    if (width < 0 || (size_t)width <= n)
        return s;
    room = (size_t)width - n;
    if (room > j->arena.max || jinja_charge(j, room / 8) != 0)
        return jinja_fail(j, ERR_LIMIT, "padding to %lld characters is too long", (long long)width), NULL;
    left = align == '<' ? 0 : align == '>' ? room : room / 2 + (room & (size_t)width & 1); /* as CPython's center */
    add_fill(j, &t, fill ? fill : &blank, left);
    jinja_text_str(j, &t, s);
    add_fill(j, &t, fill ? fill : &blank, room - left);
    return jinja_text_done(j, &t);
}

static bool is_line_end(uint32_t c)
{
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

int jinja_split_lines(struct jinja *j, const struct jinja_str *s, bool keep, struct jinja_list_buf *ret)
{
    size_t from = 0, l;
    *ret = (struct jinja_list_buf){0};
    for (size_t i = 0; i < s->len;) {
        uint32_t c = char_at(s, i, &l);
        size_t end = i;
        i += l;
        if (!is_line_end(c) && i < s->len)
            continue;
        if (!is_line_end(c))
            end = i;
        else if (c == '\r' && i < s->len && s->s[i] == '\n')
            i++;
        const struct jinja_str *line = jinja_str_sub(j, s, from, keep ? i : end);
        if (!line || jinja_list_push(j, ret, jinja_string(line)) != 0 || jinja_charge(j, 1) != 0)
            return -1;
        from = i;
    }
    return jinja_charge_bytes(j, s->len);
}

const struct jinja_str *jinja_escape(struct jinja *j, const struct jinja_str *s)
{
    struct jinja_text t = {0};
    size_t from = 0;
    if (s->markup)
        return s;
    for (size_t i = 0; i < s->len; i++) {
        const char *to = NULL;
        switch (s->s[i]) {
        case '&':
            to = "&amp;";
            break;
        case '<':
            to = "&lt;";
            break;
        case '>':
            to = "&gt;";
            break;
        case '"':
            to = "&#34;";
            break;
        case '\'':
            to = "&#39;";
            break;
        default:
            continue;
        }
        jinja_text_sub(j, &t, s, from, i);
        jinja_text_add(j, &t, to, strlen(to), jinja_str_special_at(s, i));
        from = i + 1;
    }
    jinja_text_sub(j, &t, s, from, s->len);
    const struct jinja_str *done = jinja_charge_bytes(j, s->len) == 0 ? jinja_text_done(j, &t) : NULL;
    return done ? jinja_str_markup(j, done, true) : NULL;
}
