/* Strings as JSON writes them. See gram.h. Where characters are chosen by a pattern each is written in one way, itself if it can
 * stand for itself; elsewhere every way counts that JSON knows, surrogate pairs included, half ones not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/gram.h"

static const struct {
    char c, as;
} shorts[] = {{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};

static bool has(const struct gram_range *r, size_t n, uint32_t c)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].lo <= c && c <= r[i].hi)
            return true;
    return false;
}

/* The character as an escape: the short one, or \u00XX. */
static uint32_t escape(struct gram_builder *b, uint32_t c)
{
    char text[8];
    for (size_t i = 0; i < sizeof shorts / sizeof *shorts; i++)
        if ((uint32_t)shorts[i].c == c)
            return gram_text(b, (const char[]){'\\', shorts[i].as}, 2);
    snprintf(text, sizeof text, "\\u%04x", c);
    return gram_str(b, text);
}

static bool is_plain(uint32_t c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

/* Those of the characters that stand for themselves. */
static uint32_t plain_of(struct gram_builder *b, const struct gram_range *r, size_t n)
{
    struct gram_range *others = mem_new(2 * n + 6, sizeof *others, b->err);
    if (!others)
        return gram_failed(b);
    memcpy(others, r, n * sizeof *others);
    n = gram_ranges_normalize(others, n, true);
    others[n++] = (struct gram_range){0, 0x1F};
    others[n++] = (struct gram_range){'"', '"'};
    others[n++] = (struct gram_range){'\\', '\\'};
    uint32_t id = gram_set(b, others, n, true);
    free(others);
    return id;
}

/* One of these characters as it stands in a string. */
static uint32_t encode(struct gram_builder *b, const struct gram_range *r, size_t n)
{
    enum { ESCAPED = 0x20 + 2 };
    uint32_t alts[ESCAPED + 1], k = 0, rule;

    for (uint32_t c = 0; c < 0x80; c++)
        if (!is_plain(c) && has(r, n, c))
            alts[k++] = escape(b, c);
    if (k == 0)
        return gram_set(b, r, n, false);
    alts[k++] = plain_of(b, r, n);
    rule = gram_rule_new(b);
    gram_rule_set(b, rule, gram_alt(b, alts, k));
    return gram_rule(b, rule);
}

static uint32_t hex(struct gram_builder *b, const char *firsts)
{
    struct gram_range r[24];
    size_t n = 0;
    for (const char *c = firsts; *c; c++)
        r[n++] = (struct gram_range){(unsigned char)*c, (unsigned char)*c};
    return gram_set(b, r, n, false);
}

uint32_t gram_json_char(struct gram_builder *b)
{
    static const struct gram_range special[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    uint32_t any = hex(b, "0123456789abcdefABCDEF"), d = hex(b, "dD"), u = gram_str(b, "\\u");
    uint32_t ordinary = GRAM_SEQ_OF(b, u,
                                    GRAM_ALT_OF(b, GRAM_SEQ_OF(b, hex(b, "0123456789abcABC"), any), GRAM_SEQ_OF(b, hex(b, "efEF"), any),
                                                GRAM_SEQ_OF(b, d, hex(b, "01234567"))),
                                    any, any);
    uint32_t pair = GRAM_SEQ_OF(b, u, d, hex(b, "89abAB"), any, any, u, d, hex(b, "cdefCDEF"), any, any);
    uint32_t shorter = GRAM_SEQ_OF(b, gram_str(b, "\\"), hex(b, "\"\\/bfnrt"));
    return GRAM_ALT_OF(b, gram_set(b, special, sizeof special / sizeof *special, true), shorter, ordinary, pair);
}

uint32_t gram_json_string(struct gram_builder *b, struct gram_string *s)
{
    uint32_t quote = gram_str(b, "\""), inner;
    if (s->max != GRAM_ANY_NUMBER && s->min > s->max) {
        gram_dfa_free(s->dfa);
        inner = gram_never(b);
    } else if (s->dfa) {
        inner = gram_dfa_expr(b, gram_dfa_length(b, s->dfa, s->min, s->max), encode);
    } else {
        inner = gram_rep(b, gram_json_char(b), s->min, s->max);
    }
    s->dfa = NULL;
    return GRAM_SEQ_OF(b, quote, inner, quote);
}

uint32_t gram_json_text(struct gram_builder *b, const char *s, size_t len)
{
    struct gram_list l = {0};
    gram_list_add(b, &l, gram_str(b, "\""));
    for (size_t i = 0; i < len && gram_goes_on(b);) {
        size_t n = 0;
        while (i + n < len && is_plain((unsigned char)s[i + n]))
            n++;
        gram_list_add(b, &l, n ? gram_text(b, s + i, n) : escape(b, (unsigned char)s[i]));
        i += n ? n : 1;
    }
    gram_list_add(b, &l, gram_str(b, "\""));
    return gram_list_seq(b, &l);
}
