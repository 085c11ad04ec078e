/* Patterns of schemas: the part of ECMA's regular expressions that is regular. See gram.h.
 *
 * A pattern matches anywhere, and its anchors may stand in some alternatives and not in others. So a text is looked at with a mark
 * before and one behind it: "^" and "$" match those marks, and the automaton of "anything, the pattern, anything" is then held
 * to texts with just these two. The marks are surrogates, which no text has. Where ECMA and Python read a class of characters
 * differently (\d, \w and \s beyond ASCII), what both agree on is taken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/gram.h"

enum {
    MAX_BYTES = 1 << 14,
    MAX_GROUPS = 64,
    MAX_TIMES = 4096,
    MAX_SET = 256,
    MARK_BEGIN = 0xD800,
    MARK_END = 0xD801,
    BEYOND_ASCII = 0x80,
};

struct regex {
    struct gram_builder *b;
    const char *s;
    size_t len, at;
    unsigned nesting;
};

struct set {
    struct gram_range r[MAX_SET];
    size_t n;
    bool full;
};

static const struct gram_range digits[] = {{'0', '9'}};
static const struct gram_range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
/* White space by both, and by one of them at least. */
static const struct gram_range spaces[] = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                                           {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
static const struct gram_range any_spaces[] = {{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},     {0xA0, 0xA0},
                                               {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                               {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
static const struct gram_range not_digits[] = {{0, '0' - 1}, {'9' + 1, 0x7F}};
static const struct gram_range not_words[] = {{0, '0' - 1}, {'9' + 1, 'A' - 1}, {'Z' + 1, '_' - 1}, {'_' + 1, 'a' - 1}, {'z' + 1, 0x7F}};
static const struct gram_range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

#define N_OF(a) (sizeof(a) / sizeof *(a))

static uint32_t fail(struct regex *r, const char *what)
{
    if (!r->b->failed)
        err_set(r->b->err, ERR_UNSUPPORTED, "at byte %zu of the pattern: %s", r->at, what);
    return gram_failed(r->b);
}

/* --- characters ---------------------------------------------------------------------------------------------------------- */

static void put(struct set *s, uint32_t lo, uint32_t hi)
{
    if (s->n < MAX_SET - 1)
        s->r[s->n++] = (struct gram_range){lo, hi};
    else
        s->full = true;
}

static void put_all(struct set *s, const struct gram_range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(s, r[i].lo, r[i].hi);
}

/* What a class escape stands for; within a negated class, what it may stand for by either reading. */
static bool class_escape(struct set *s, char c, bool negated)
{
    switch (c) {
    case 'd':
        put_all(s, digits, N_OF(digits));
        break;
    case 'w':
        put_all(s, words, N_OF(words));
        break;
    case 's':
        put_all(s, negated ? any_spaces : spaces, negated ? N_OF(any_spaces) : N_OF(spaces));
        return true;
    case 'D':
        put_all(s, not_digits, N_OF(not_digits));
        break;
    case 'W':
        put_all(s, not_words, N_OF(not_words));
        break;
    case 'S': {
        struct gram_range r[2 * N_OF(any_spaces) + 3];
        memcpy(r, negated ? spaces : any_spaces, negated ? sizeof spaces : sizeof any_spaces);
        put_all(s, r, gram_ranges_normalize(r, negated ? N_OF(spaces) : N_OF(any_spaces), true));
        return true;
    }
    default:
        return false;
    }
    if (negated)
        put(s, BEYOND_ASCII, GRAM_MAX_CHAR);
    return true;
}

static uint32_t hex(struct regex *r, unsigned min, unsigned max)
{
    uint32_t c = 0;
    unsigned n = 0;
    for (; n < max && r->at < r->len; n++, r->at++) {
        char x = r->s[r->at];
        if (!((x >= '0' && x <= '9') || ((x | 32) >= 'a' && (x | 32) <= 'f')))
            break;
        c = c << 4 | (uint32_t)(x <= '9' ? x - '0' : (x | 32) - 'a' + 10);
    }
    return n >= min ? c : fail(r, "hexadecimal digits are missing");
}

/* \u: four digits, twice for a pair of surrogates; or {…}. */
static uint32_t unicode_escape(struct regex *r)
{
    uint32_t c, low;
    if (r->at < r->len && r->s[r->at] == '{') {
        r->at++;
        c = hex(r, 1, 6);
        if (!r->b->failed && !(r->at < r->len && r->s[r->at] == '}'))
            return fail(r, "} is missing");
        r->at++;
    } else {
        c = hex(r, 4, 4);
        if (c >= 0xD800 && c <= 0xDBFF && r->len - r->at >= 6 && r->s[r->at] == '\\' && r->s[r->at + 1] == 'u') {
            r->at += 2;
            low = hex(r, 4, 4);
            if (low < 0xDC00 || low > 0xDFFF)
                return fail(r, "half of a surrogate pair");
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    if (c > GRAM_MAX_CHAR || (c >= 0xD800 && c <= 0xDFFF))
        return fail(r, "there is no such character");
    return c;
}

/* Behind a backslash, what stands for one character. */
static uint32_t char_escape(struct regex *r)
{
    static const char from[] = "tnvfr", to[] = "\t\n\v\f\r";
    char c = r->s[r->at++];
    const char *at = strchr(from, c);

    if (c && at)
        return (unsigned char)to[at - from];
    if (c == 'x')
        return hex(r, 2, 2);
    if (c == 'u')
        return unicode_escape(r);
    if (c == '0' && !(r->at < r->len && r->s[r->at] >= '0' && r->s[r->at] <= '9'))
        return 0;
    if (c == 'c' && r->at < r->len && ((r->s[r->at] | 32) >= 'a' && (r->s[r->at] | 32) <= 'z'))
        return (uint32_t)(r->s[r->at++] & 31);
    r->at--;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c & 0x80))
        return fail(r, c == 'b' || c == 'B'   ? "word borders (\\b) are not supported"
                       : c >= '1' && c <= '9' ? "references to groups are no regular expressions"
                       : c == 'p' || c == 'P' ? "\\p is not supported; name the ranges of characters"
                                              : "an unknown escape");
    r->at++;
    return (unsigned char)c;
}

static uint32_t plain_char(struct regex *r)
{
    uint32_t c;
    size_t n = utf8_decode(r->s + r->at, r->len - r->at, &c);
    if (n == 0)
        return fail(r, "these bytes are no UTF-8");
    r->at += n;
    return c;
}

/* One member of a class: a character, or a class escape (true, and in s). */
static bool member(struct regex *r, struct set *s, bool negated, uint32_t *ret)
{
    if (r->s[r->at] != '\\') {
        *ret = plain_char(r);
        return false;
    }
    if (++r->at >= r->len) {
        fail(r, "a backslash at the end");
        return false;
    }
    if (class_escape(s, r->s[r->at], negated)) {
        r->at++;
        return true;
    }
    if (r->s[r->at] == 'b') {
        r->at++;
        *ret = '\b';
    } else {
        *ret = char_escape(r);
    }
    return false;
}

static uint32_t parse_class(struct regex *r)
{
    struct set s = {.n = 0};
    bool negated = r->at < r->len && r->s[r->at] == '^';
    uint32_t lo = 0, hi = 0;

    r->at += negated;
    while (!r->b->failed) {
        if (r->at >= r->len)
            return fail(r, "] is missing");
        if (r->s[r->at] == ']')
            break;
        if (member(r, &s, negated, &lo))
            continue;
        hi = lo;
        if (r->len - r->at >= 2 && r->s[r->at] == '-' && r->s[r->at + 1] != ']') {
            size_t dash = r->at++;
            if (member(r, &s, negated, &hi)) { /* no range: the dash is one */
                hi = lo;
                put(&s, '-', '-');
            } else if (hi < lo) {
                r->at = dash;
                return fail(r, "a range from a later character to an earlier one");
            }
        }
        put(&s, lo, hi);
    }
    r->at++;
    if (s.full)
        return fail(r, "a class of too many ranges");
    return gram_set(r->b, s.r, s.n, negated);
}

/* A mark is a surrogate, which gram_set would take out. */
static uint32_t mark(struct regex *r, uint32_t c)
{
    uint32_t id = gram_set(r->b, &(struct gram_range){'x', 'x'}, 1, false);
    if (!r->b->failed)
        r->b->ranges[r->b->exprs[id].a] = (struct gram_range){c, c};
    return id;
}

/* --- expressions --------------------------------------------------------------------------------------------------------- */

static uint32_t parse_alternatives(struct regex *r);

static uint32_t parse_group(struct regex *r)
{
    uint32_t id;
    if (r->nesting >= MAX_GROUPS)
        return fail(r, "groups are nested too deep");
    if (r->at < r->len && r->s[r->at] == '?') {
        const char *s = r->s + r->at;
        size_t left = r->len - r->at;
        if (left >= 2 && s[1] == ':') {
            r->at += 2;
        } else if (left >= 3 && s[1] == '<' && s[2] != '=' && s[2] != '!') {
            while (r->at < r->len && r->s[r->at] != '>')
                r->at++;
            r->at++;
        } else {
            return fail(r, "looking ahead or behind is not supported");
        }
    }
    r->nesting++;
    id = parse_alternatives(r);
    r->nesting--;
    if (!r->b->failed && !(r->at < r->len && r->s[r->at] == ')'))
        return fail(r, ") is missing");
    r->at++;
    return id;
}

static uint32_t parse_atom(struct regex *r)
{
    struct set s = {.n = 0};
    char c = r->s[r->at];
    char text[4];

    switch (c) {
    case '(':
        r->at++;
        return parse_group(r);
    case '[':
        r->at++;
        return parse_class(r);
    case '.':
        r->at++;
        return gram_set(r->b, line_ends, N_OF(line_ends), true);
    case '^':
        r->at++;
        return mark(r, MARK_BEGIN);
    case '$':
        r->at++;
        return mark(r, MARK_END);
    case '*':
    case '+':
    case '?':
        return fail(r, "nothing stands before the repetition");
    case '\\':
        if (++r->at >= r->len)
            return fail(r, "a backslash at the end");
        if (class_escape(&s, r->s[r->at], false)) {
            r->at++;
            return gram_set(r->b, s.r, s.n, false);
        }
        return gram_text(r->b, text, utf8_encode(char_escape(r), text));
    default:
        return gram_text(r->b, text, utf8_encode(plain_char(r), text));
    }
}

static bool number(struct regex *r, uint32_t *ret)
{
    size_t from = r->at;
    uint32_t n = 0;
    for (; r->at < r->len && r->s[r->at] >= '0' && r->s[r->at] <= '9'; r->at++)
        n = n > MAX_TIMES ? n : n * 10 + (uint32_t)(r->s[r->at] - '0');
    *ret = n;
    return r->at > from;
}

/* {m}, {m,}, {m,n}; what looks otherwise is a brace. */
static bool braces(struct regex *r, uint32_t *ret_min, uint32_t *ret_max)
{
    size_t from = r->at++;
    if (number(r, ret_min)) {
        *ret_max = *ret_min;
        if (r->at < r->len && r->s[r->at] == ',') {
            r->at++;
            if (!number(r, ret_max))
                *ret_max = GRAM_ANY_NUMBER;
        }
        if (r->at < r->len && r->s[r->at] == '}') {
            r->at++;
            return true;
        }
    }
    r->at = from;
    return false;
}

static uint32_t parse_repeats(struct regex *r, uint32_t id)
{
    while (!r->b->failed && r->at < r->len) {
        char c = r->s[r->at];
        uint32_t min = c == '+', max = c == '?' ? 1 : GRAM_ANY_NUMBER;
        if (c == '{' ? !braces(r, &min, &max) : c != '*' && c != '+' && c != '?')
            return id;
        if (c != '{')
            r->at++;
        if (min > MAX_TIMES || (max != GRAM_ANY_NUMBER && max > MAX_TIMES))
            return fail(r, "too many repetitions");
        if (max < min)
            return fail(r, "a repetition whose most is below its least");
        if (r->at < r->len && r->s[r->at] == '?') /* lazy: the same texts */
            r->at++;
        id = gram_rep(r->b, id, min, max);
    }
    return id;
}

static uint32_t parse_sequence(struct regex *r)
{
    struct gram_list l = {0};
    while (!r->b->failed && r->at < r->len && r->s[r->at] != '|' && r->s[r->at] != ')')
        gram_list_add(r->b, &l, parse_repeats(r, r->s[r->at] == '{' ? (r->at++, gram_str(r->b, "{")) : parse_atom(r)));
    return gram_list_seq(r->b, &l);
}

static uint32_t parse_alternatives(struct regex *r)
{
    struct gram_list l = {0};
    gram_list_add(r->b, &l, parse_sequence(r));
    while (!r->b->failed && r->at < r->len && r->s[r->at] == '|') {
        r->at++;
        gram_list_add(r->b, &l, parse_sequence(r));
    }
    return gram_list_alt(r->b, &l);
}

/* --- the whole ----------------------------------------------------------------------------------------------------------- */

static uint32_t class_at(const struct gram_dfa *d, uint32_t c)
{
    for (uint32_t i = 0; i < d->n_ranges; i++)
        if (d->ranges[i].lo <= c && c <= d->ranges[i].hi)
            return d->class_of[i];
    return 0;
}

/* Of the automaton over marked texts the one over texts: it begins behind the first mark, and accepts where the second one would. */
static void unmark(struct gram_dfa *d)
{
    uint32_t begin = class_at(d, MARK_BEGIN), end = class_at(d, MARK_END), n = d->n_classes;
    uint32_t first = d->next[begin];
    for (uint32_t s = 0; s < d->n_states; s++) /* bit 1: what it was */
        d->accepts[s] = (uint8_t)(d->accepts[s] << 1);
    for (uint32_t s = 0; s < d->n_states; s++)
        d->accepts[s] |= d->accepts[d->next[(size_t)s * n + end]] >> 1;
    for (uint32_t s = 0; s < d->n_states; s++)
        d->accepts[s] &= 1;
    if (first == 0)
        return;
    /* The first state must be 0: the two change places. */
    for (size_t i = 0; i < (size_t)d->n_states * n; i++)
        d->next[i] = d->next[i] == 0 ? first : d->next[i] == first ? 0 : d->next[i];
    for (uint32_t c = 0; c < n; c++) {
        uint32_t t = d->next[c];
        d->next[c] = d->next[(size_t)first * n + c];
        d->next[(size_t)first * n + c] = t;
    }
    uint8_t t = d->accepts[0];
    d->accepts[0] = d->accepts[first];
    d->accepts[first] = t;
}

struct gram_dfa *gram_regex(struct gram_builder *b, const char *pattern, size_t len)
{
    struct regex r = {.b = b, .s = pattern, .len = len};
    struct gram_dfa *d;
    uint32_t id, any;

    if (len > MAX_BYTES) {
        fail(&r, "it is too long");
        return NULL;
    }
    id = parse_alternatives(&r);
    if (!b->failed && r.at < len)
        fail(&r, "a ) without its (");
    any = gram_rep(b, GRAM_ALT_OF(b, gram_set(b, NULL, 0, true), mark(&r, MARK_BEGIN), mark(&r, MARK_END)), 0, GRAM_ANY_NUMBER);
    d = gram_dfa_of(b, GRAM_SEQ_OF(b, any, id, any));
    if (d)
        unmark(d);
    return d;
}

#define HOUR_MINUTE "([01][0-9]|2[0-3]):[0-5][0-9]"
#define TIME HOUR_MINUTE ":[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]" HOUR_MINUTE ")"
#define YEAR "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
#define LEAP "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define DATE \
    "(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29)"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 BYTE "(\\." BYTE "){3}"
#define LABEL "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
#define HOST LABEL "(\\." LABEL "){0,4}"

/* Where a format is wide, a part of it: every text that comes is of the format. */
const char *gram_format(const char *name)
{
    static const struct {
        const char *name, *pattern;
    } formats[] = {
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" DATE "T" TIME "$"},
        {"duration", "^P([0-9]{1,3}W|([0-9]{1,3}D)|([0-9]{1,3}D)?T[0-9]{1,2}H([0-9]{1,2}M([0-9]{1,2}S)?)?)$"},
        {"uuid", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        {"email", "^[a-z0-9]{1,20}([._+-][a-z0-9]{1,20}){0,2}@" LABEL "(\\." LABEL "){0,3}\\.[a-z]{2,6}$"},
        {"ipv4", "^" IPV4 "$"},
        {"ipv6", "^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$"},
        {"hostname", "^" HOST "$"},
        {"uri", "^https?://" HOST "(/[a-z0-9._~-]{0,40}){0,6}$"},
    };
    for (size_t i = 0; i < N_OF(formats); i++)
        if (strcmp(formats[i].name, name) == 0)
            return formats[i].pattern;
    return NULL;
}
