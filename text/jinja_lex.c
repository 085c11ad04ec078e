/* See jinja_lex.h. The order of attempts follows jinja2/lexer.py's rules, so that odd inputs are cut as it cuts them. */
#include "text/jinja_lex.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"
#include "text/jinja_unicode.h"

int jinja_syntax_error(struct err *err, uint32_t line, uint32_t column, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_set(err, ERR_INPUT, "line %u, column %u: %s", line, column, text);
}

/* Counts lines up to pos, which never goes back. */
static void count_lines(struct jinja_lexer *lx, size_t pos)
{
    while (lx->counted < pos) {
        const char *nl = memchr(lx->src + lx->counted, '\n', pos - lx->counted);
        if (!nl) {
            lx->counted = pos;
            break;
        }
        lx->counted = lx->line_start = (size_t)(nl - lx->src) + 1;
        lx->line++;
    }
}

static int fail_at(struct jinja_lexer *lx, size_t pos, const char *what)
{
    count_lines(lx, pos);
    return jinja_syntax_error(lx->err, lx->line, (uint32_t)(pos - lx->line_start + 1), "%s", what);
}

int jinja_lexer_init(struct jinja_lexer *lx, struct arena *arena, const char *source, size_t len, struct err *err)
{
    char *copy = arena_alloc(arena, len + 1, err);
    size_t n = 0;
    if (!copy)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (source[i] == '\r') {
            copy[n++] = '\n';
            if (i + 1 < len && source[i + 1] == '\n')
                i++;
        } else {
            copy[n++] = source[i];
        }
    }
    if (n > 0 && copy[n - 1] == '\n') /* keep_trailing_newline is off */
        n--;
    copy[n] = '\0';
    *lx = (struct jinja_lexer){.arena = arena, .err = err, .src = copy, .len = n, .line = 1, .state = JINJA_IN_DATA, .line_starting = true};
    for (size_t i = 0; i < n;) {
        size_t l = utf8_len(copy + i, n - i);
        if (l == 0)
            return fail_at(lx, i, "not UTF-8");
        i += l;
    }
    return 0;
}

static size_t skip_space(const struct jinja_lexer *lx, size_t pos)
{
    uint32_t c;
    size_t l;
    while (pos < lx->len && (l = utf8_decode(lx->src + pos, lx->len - pos, &c)) && jinja_is_space(c))
        pos += l;
    return pos;
}

/* The end of [from, to) without its trailing white space. */
static size_t strip_end(const struct jinja_lexer *lx, size_t from, size_t to)
{
    while (to > from) {
        size_t p = to - 1;
        uint32_t c;
        while (p > from && ((unsigned char)lx->src[p] & 0xC0) == 0x80)
            p--;
        if (!utf8_decode(lx->src + p, to - p, &c) || !jinja_is_space(c))
            break;
        to = p;
    }
    return to;
}

static bool at(const struct jinja_lexer *lx, size_t pos, const char *text)
{
    size_t l = strlen(text);
    return lx->len - pos >= l && memcmp(lx->src + pos, text, l) == 0;
}

static bool is_sign(char c)
{
    return c == '-' || c == '+';
}

/* The end of a closing tag at pos ("%}" or "#}" with its sign and what it swallows), or 0. */
static size_t closing(const struct jinja_lexer *lx, size_t pos, const char *tag)
{
    if (pos < lx->len && lx->src[pos] == '-' && at(lx, pos + 1, tag))
        return skip_space(lx, pos + 3);
    if (tag[0] != '}' && pos < lx->len && lx->src[pos] == '+' && at(lx, pos + 1, tag))
        return pos + 3;
    if (!at(lx, pos, tag))
        return 0;
    pos += 2;
    return tag[0] != '}' && pos < lx->len && lx->src[pos] == '\n' ? pos + 1 : pos;
}

static void advance(struct jinja_lexer *lx, size_t to)
{
    lx->pos = to;
    lx->line_starting = to > 0 && lx->src[to - 1] == '\n';
}

/* The text [from, to) before a tag, stripped as its sign says, as a DATA token; false if nothing is left. */
static bool data_token(struct jinja_lexer *lx, size_t from, size_t to, char sign, bool variable, struct jinja_token *ret)
{
    count_lines(lx, from);
    *ret = (struct jinja_token){.type = JINJA_T_DATA, .line = lx->line, .column = (uint32_t)(from - lx->line_start + 1)};
    if (sign == '-') {
        to = strip_end(lx, from, to);
    } else if (sign != '+' && !variable) {
        size_t start = to;
        while (start > from && lx->src[start - 1] != '\n')
            start--;
        if ((start > from || lx->line_starting) && skip_space(lx, start) >= to)
            to = start;
    }
    ret->s = lx->src + from;
    ret->len = to - from;
    return to > from;
}

/* The end of "{%- raw %}" at pos, or 0; its sign in *ret_sign. */
static size_t raw_begin(const struct jinja_lexer *lx, size_t pos, char *ret_sign)
{
    size_t p = pos + 2;
    *ret_sign = 0;
    if (p < lx->len && is_sign(lx->src[p]))
        *ret_sign = lx->src[p++];
    p = skip_space(lx, p);
    if (!at(lx, p, "raw"))
        return 0;
    p = skip_space(lx, p + 3);
    if (p < lx->len && lx->src[p] == '-' && at(lx, p + 1, "%}"))
        return skip_space(lx, p + 3);
    return at(lx, p, "%}") ? p + 2 : 0;
}

/* Outside of tags: data up to the next one. Returns 1 with a token, 0 to be called again, -1. */
static int next_data(struct jinja_lexer *lx, struct jinja_token *ret)
{
    size_t from = lx->pos, p = from;
    while (p < lx->len) {
        const char *brace = memchr(lx->src + p, '{', lx->len - p);
        p = brace ? (size_t)(brace - lx->src) : lx->len;
        if (p >= lx->len || at(lx, p, "{{") || at(lx, p, "{%") || at(lx, p, "{#"))
            break;
        p++;
    }
    if (p >= lx->len) {
        count_lines(lx, from);
        *ret = (struct jinja_token){.type = lx->len > from ? JINJA_T_DATA : JINJA_T_EOF,
                                    .line = lx->line,
                                    .column = (uint32_t)(from - lx->line_start + 1),
                                    .s = lx->src + from,
                                    .len = lx->len - from};
        lx->pos = lx->len;
        return 1;
    }
    char kind = lx->src[p + 1], sign = 0;
    size_t raw = kind == '%' ? raw_begin(lx, p, &sign) : 0;
    if (!raw)
        sign = p + 2 < lx->len && is_sign(lx->src[p + 2]) ? lx->src[p + 2] : 0;
    bool any = data_token(lx, from, p, sign, kind == '{', ret);
    if (raw) {
        advance(lx, raw);
        lx->state = JINJA_IN_RAW;
    } else if (kind == '#') {
        size_t end = 0, q = p + 2 + (sign != 0);
        if (q >= lx->len) /* Jinja2 misses the end only where something follows */
            end = lx->len;
        while (q < lx->len && !(end = closing(lx, q, "#}")))
            q++;
        if (!end)
            return fail_at(lx, p, "missing end of comment tag");
        advance(lx, end);
    } else {
        lx->tag = kind == '{' ? JINJA_T_PRINT_BEGIN : JINJA_T_BLOCK_BEGIN;
        lx->pos = p;
        lx->state = JINJA_AT_TAG;
    }
    return any;
}

static int next_raw(struct jinja_lexer *lx, struct jinja_token *ret)
{
    size_t from = lx->pos;
    for (size_t p = from; p < lx->len; p++) {
        const char *brace = memchr(lx->src + p, '{', lx->len - p);
        char sign = 0;
        size_t q;
        if (!brace)
            break;
        p = (size_t)(brace - lx->src);
        if (!at(lx, p, "{%"))
            continue;
        q = p + 2;
        if (q < lx->len && is_sign(lx->src[q]))
            sign = lx->src[q++];
        q = skip_space(lx, q);
        if (!at(lx, q, "endraw"))
            continue;
        q = closing(lx, skip_space(lx, q + 6), "%}");
        if (!q)
            continue;
        bool any = data_token(lx, from, p, sign, false, ret);
        advance(lx, q);
        lx->state = JINJA_IN_DATA;
        return any;
    }
    if (from < lx->len)
        return fail_at(lx, from, "missing end of raw directive");
    lx->state = JINJA_IN_DATA;
    return 0;
}

/* --- literals ----------------------------------------------------------- */

static bool is_ascii_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The end of digits with single underscores between them, or pos if there are none. */
static size_t digits(const struct jinja_lexer *lx, size_t pos)
{
    size_t p = pos;
    while (p < lx->len &&
           (is_ascii_digit(lx->src[p]) || (lx->src[p] == '_' && p > pos && p + 1 < lx->len && is_ascii_digit(lx->src[p + 1]))))
        p++;
    return p;
}

static int digit_value(char c)
{
    if (is_ascii_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

static int number(struct jinja_lexer *lx, struct jinja_token *ret)
{
    size_t from = lx->pos, end = digits(lx, from), p = end;
    int base = 10;
    bool real = false;

    if (p + 1 < lx->len && lx->src[p] == '.' && is_ascii_digit(lx->src[p + 1])) {
        p = digits(lx, p + 1);
        real = true;
    }
    if (p < lx->len && (lx->src[p] | 32) == 'e') {
        size_t q = p + 1, stop;
        if (q < lx->len && is_sign(lx->src[q]))
            q++;
        if ((stop = digits(lx, q)) > q) {
            p = stop;
            real = true;
        }
    }
    if (real && !(from > 0 && lx->src[from - 1] == '.')) {
        ret->type = JINJA_T_FLOAT;
        advance(lx, p);
        return jinja_parse_float(lx->src + from, p - from, &ret->f) == 0 ? 1 : fail_at(lx, from, "not a number");
    }
    ret->type = JINJA_T_INT;
    p = from;
    if (lx->src[p] == '0' && p + 1 < lx->len) {
        char x = (char)(lx->src[p + 1] | 32);
        base = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 10;
    }
    if (base != 10) {
        size_t q = p + 2;
        while (q < lx->len &&
               (digit_value(lx->src[q]) < base || (lx->src[q] == '_' && q + 1 < lx->len && digit_value(lx->src[q + 1]) < base)))
            q++;
        if (q == p + 2)
            base = 10; /* a zero, then a name */
        else
            end = q;
    }
    if (base == 10 && lx->src[from] == '0') { /* 0 and 0_0 are numbers, 012 is two */
        end = from + 1;
        while (end < lx->len && (lx->src[end] == '0' || (lx->src[end] == '_' && end + 1 < lx->len && lx->src[end + 1] == '0')))
            end++;
    }
    for (size_t i = base == 10 ? from : from + 2; i < end; i++)
        if (lx->src[i] != '_' &&
            (__builtin_mul_overflow(ret->i, base, &ret->i) || __builtin_add_overflow(ret->i, digit_value(lx->src[i]), &ret->i)))
            return fail_at(lx, from, "integer beyond 64 bits");
    advance(lx, end);
    return 1;
}

/* Octal or hexadecimal digits of an escape; false unless there are at least `min`. */
static bool escape_digits(const char **s, const char *end, int base, int min, int max, uint32_t *ret)
{
    int n = 0;
    *ret = 0;
    while (n < max && *s < end && digit_value(**s) < base) {
        *ret = *ret * (uint32_t)base + (uint32_t)digit_value(*(*s)++);
        n++;
    }
    return n >= min;
}

static const char *escape_char(struct jinja_lexer *lx, const char *s, const char *end, char **out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = *s ? strchr(from, *s) : NULL;
    uint32_t c;
    size_t l;

    if (*s == '\n')
        return s + 1;
    if (known) {
        *(*out)++ = to[known - from];
        return s + 1;
    }
    if ((unsigned char)*s >= 0x80) { /* Python escapes these first, and then sees an escaped backslash */
        char buf[12];
        l = utf8_decode(s, (size_t)(end - s), &c);
        snprintf(buf, sizeof buf, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        memcpy(*out, buf, strlen(buf));
        *out += strlen(buf);
        return s + l;
    }
    if (*s == 'N') {
        fail_at(lx, lx->pos, "\\N{…} escapes are not supported");
        return NULL;
    }
    bool octal = *s >= '0' && *s <= '7';
    if (!octal && *s != 'x' && *s != 'u' && *s != 'U') {
        *(*out)++ = '\\';
        *(*out)++ = *s;
        return s + 1;
    }
    int n = octal ? 3 : *s == 'x' ? 2 : *s == 'u' ? 4 : 8;
    if (!octal)
        s++;
    if (!escape_digits(&s, end, octal ? 8 : 16, octal ? 1 : n, n, &c) || !(l = utf8_encode(c, *out))) {
        fail_at(lx, lx->pos, "bad escape in a string");
        return NULL;
    }
    *out += l;
    return s;
}

static int string(struct jinja_lexer *lx, struct jinja_token *ret)
{
    char quote = lx->src[lx->pos];
    size_t from = lx->pos + 1, p = from;
    bool escapes = false;

    while (p < lx->len && lx->src[p] != quote) {
        if (lx->src[p] == '\\') {
            escapes = true;
            p++;
        }
        p++;
    }
    if (p >= lx->len)
        return fail_at(lx, lx->pos, "string without an end");
    ret->type = JINJA_T_STRING;
    ret->s = lx->src + from;
    ret->len = p - from;
    if (escapes) {
        /* An escape grows at most from \ and two bytes of UTF-8 to \xhh, or from \ and 3 or 4 bytes to 6 or 10. */
        char *out = arena_alloc(lx->arena, 3 * ret->len + 16, lx->err);
        if (!out)
            return -1;
        ret->s = out;
        for (const char *s = lx->src + from, *end = lx->src + p; s < end;) {
            if (*s == '\\') {
                if (!(s = escape_char(lx, s + 1, end, &out)))
                    return -1;
            } else {
                *out++ = *s++;
            }
        }
        ret->len = (size_t)(out - ret->s);
    }
    advance(lx, p + 1);
    return 1;
}

static int identifier(struct jinja_lexer *lx, struct jinja_token *ret)
{
    size_t p = lx->pos;
    while (p < lx->len) {
        uint32_t c;
        size_t l = utf8_decode(lx->src + p, lx->len - p, &c);
        if (!(c == '_' || jinja_is_alpha(c) || (p > lx->pos && jinja_is_numeric(c))))
            break;
        p += l;
    }
    if (p == lx->pos)
        return 0;
    ret->type = JINJA_T_NAME;
    ret->s = lx->src + lx->pos;
    ret->len = p - lx->pos;
    advance(lx, p);
    return 1;
}

static int bracket(struct jinja_lexer *lx, char c)
{
    char text[64];
    if (c == '{' || c == '(' || c == '[') {
        if (lx->n_brackets == JINJA_MAX_BRACKETS)
            return fail_at(lx, lx->pos, "brackets nested too deeply");
        lx->brackets[lx->n_brackets++] = c == '{' ? '}' : c == '(' ? ')' : ']';
    } else if (c == '}' || c == ')' || c == ']') {
        if (lx->n_brackets == 0 || lx->brackets[lx->n_brackets - 1] != c) {
            if (lx->n_brackets == 0)
                snprintf(text, sizeof text, "unexpected '%c'", c);
            else
                snprintf(text, sizeof text, "unexpected '%c', expected '%c'", c, lx->brackets[lx->n_brackets - 1]);
            return fail_at(lx, lx->pos, text);
        }
        lx->n_brackets--;
    }
    return 0;
}

static int operator(struct jinja_lexer *lx, struct jinja_token *ret)
{
    static const char pairs[][3] = {"//", "**", "==", "!=", ">=", "<="};
    char c = lx->src[lx->pos], found[8], text[64];

    ret->type = JINJA_T_OPERATOR;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (at(lx, lx->pos, pairs[i])) {
            ret->op = JINJA_OP2(pairs[i][0], pairs[i][1]);
            advance(lx, lx->pos + 2);
            return 1;
        }
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c)) {
        err_printable(found, sizeof found, lx->src + lx->pos, utf8_len(lx->src + lx->pos, lx->len - lx->pos));
        snprintf(text, sizeof text, "unexpected character '%s'", found);
        return fail_at(lx, lx->pos, text);
    }
    if (bracket(lx, c) != 0)
        return -1;
    ret->op = JINJA_OP1(c);
    advance(lx, lx->pos + 1);
    return 1;
}

static int next_in_tag(struct jinja_lexer *lx, struct jinja_token *ret)
{
    const char *tag = lx->state == JINJA_IN_PRINT ? "}}" : "%}";
    size_t end = lx->n_brackets ? 0 : closing(lx, lx->pos, tag);
    if (!end) {
        size_t p = skip_space(lx, lx->pos);
        if (p > lx->pos)
            advance(lx, p);
        end = lx->n_brackets ? 0 : closing(lx, lx->pos, tag);
    }
    count_lines(lx, lx->pos);
    *ret = (struct jinja_token){.line = lx->line, .column = (uint32_t)(lx->pos - lx->line_start + 1)};
    if (end) {
        ret->type = lx->state == JINJA_IN_PRINT ? JINJA_T_PRINT_END : JINJA_T_BLOCK_END;
        advance(lx, end);
        lx->state = JINJA_IN_DATA;
        return 1;
    }
    if (lx->pos >= lx->len) {
        ret->type = JINJA_T_EOF;
        return 1;
    }
    char c = lx->src[lx->pos];
    if (is_ascii_digit(c))
        return number(lx, ret);
    if (c == '\'' || c == '"')
        return string(lx, ret);
    int rc = identifier(lx, ret);
    return rc != 0 ? rc : operator(lx, ret);
}

int jinja_lexer_next(struct jinja_lexer *lx, struct jinja_token *ret)
{
    int rc = 0;
    while (rc == 0) {
        switch (lx->state) {
        case JINJA_IN_DATA:
            rc = next_data(lx, ret);
            break;
        case JINJA_IN_RAW:
            rc = next_raw(lx, ret);
            break;
        case JINJA_AT_TAG:
            count_lines(lx, lx->pos);
            *ret = (struct jinja_token){.type = lx->tag, .line = lx->line, .column = (uint32_t)(lx->pos - lx->line_start + 1)};
            lx->pos += 2;
            if (lx->pos < lx->len && is_sign(lx->src[lx->pos]))
                lx->pos++;
            lx->state = lx->tag == JINJA_T_PRINT_BEGIN ? JINJA_IN_PRINT : JINJA_IN_BLOCK;
            lx->n_brackets = 0;
            rc = 1;
            break;
        default:
            rc = next_in_tag(lx, ret);
            break;
        }
    }
    return rc < 0 ? -1 : 0;
}
