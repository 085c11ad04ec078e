/* GBNF, llama.cpp's dialect of rules, to expressions. What it takes beyond that: names with "_", a line that begins with "|", and
 * a backslash before any punctuation. See grammar.h. */
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "base/utf8.h"
#include "text/gram.h"

enum { NAME_SHOWN = 48 };

struct name {
    const char *s;
    size_t len;
    size_t used_at; /* where it was first used */
};

struct parser {
    struct gram_builder b;
    const char *text;
    size_t len, at;
    unsigned nesting;
    struct name *names; /* of rules */
    size_t n_names, cap_names;
    uint32_t *slots; /* of names, hashed: number + 1 */
    size_t n_slots;
    char shown[NAME_SHOWN];
};

/* --- errors -------------------------------------------------------------------------------------------------------------- */

static uint32_t fail_at(struct parser *p, size_t at, const char *what, const char *shown)
{
    unsigned line = 1, column = 1;
    if (p->b.failed)
        return 0;
    for (size_t i = 0; i < at && i < p->len; i++)
        if (p->text[i] == '\n') {
            line++;
            column = 1;
        } else {
            column += ((unsigned char)p->text[i] & 0xC0) != 0x80;
        }
    err_set(p->b.err, ERR_INPUT, "line %u, column %u: %s%s", line, column, what, shown ? shown : "");
    return gram_failed(&p->b);
}

static uint32_t fail(struct parser *p, const char *what)
{
    return fail_at(p, p->at, what, NULL);
}

/* "expected …, found …" */
static uint32_t unexpected(struct parser *p, const char *wanted)
{
    char found[24], what[160];
    size_t n = p->at < p->len ? utf8_len(p->text + p->at, p->len - p->at) : 0;
    if (p->at >= p->len)
        snprintf(found, sizeof found, "the end");
    else if (p->text[p->at] == '\n')
        snprintf(found, sizeof found, "the line's end");
    else
        snprintf(found, sizeof found, "\"%s\"", err_printable(p->shown, sizeof p->shown, p->text + p->at, n ? n : 1));
    snprintf(what, sizeof what, "%s expected, found %s", wanted, found);
    return fail(p, what);
}

/* --- names --------------------------------------------------------------------------------------------------------------- */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static uint64_t hash_name(const char *s, size_t len)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3;
    return h ^ h >> 29;
}

static int grow_slots(struct parser *p)
{
    size_t n = p->n_slots ? 2 * p->n_slots : 64;
    uint32_t *slots = mem_new(n, sizeof *slots, p->b.err);
    if (!slots)
        return -1;
    for (size_t i = 0; i < p->n_names; i++) {
        size_t at = hash_name(p->names[i].s, p->names[i].len) & (n - 1);
        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(p->slots);
    p->slots = slots;
    p->n_slots = n;
    return 0;
}

/* The rule of this name, made if need be. */
static uint32_t rule_named(struct parser *p, const char *s, size_t len, size_t at_byte)
{
    if (2 * (p->n_names + 1) > p->n_slots && grow_slots(p) != 0)
        return gram_failed(&p->b);
    size_t at = hash_name(s, len) & (p->n_slots - 1);
    for (; p->slots[at]; at = (at + 1) & (p->n_slots - 1)) {
        const struct name *n = &p->names[p->slots[at] - 1];
        if (n->len == len && memcmp(n->s, s, len) == 0)
            return p->slots[at] - 1;
    }
    uint32_t rule = gram_rule_new(&p->b);
    if (p->b.failed || mem_grow(&p->names, &p->cap_names, p->n_names + 1, sizeof *p->names, SIZE_MAX, "rules", p->b.err) != 0)
        return gram_failed(&p->b);
    /* Repetitions make rules of their own, without names: the list has a gap there. */
    while (p->n_names < rule) {
        if (mem_grow(&p->names, &p->cap_names, p->n_names + 2, sizeof *p->names, SIZE_MAX, "rules", p->b.err) != 0)
            return gram_failed(&p->b);
        p->names[p->n_names++] = (struct name){0};
    }
    p->names[p->n_names++] = (struct name){s, len, at_byte};
    p->slots[at] = rule + 1;
    return rule;
}

static size_t word(struct parser *p)
{
    size_t from = p->at;
    while (p->at < p->len && is_word(p->text[p->at]))
        p->at++;
    return p->at - from;
}

/* --- the text ------------------------------------------------------------------------------------------------------------ */

static char peek(const struct parser *p)
{
    return p->at < p->len ? p->text[p->at] : '\0';
}

static void skip(struct parser *p, bool newlines)
{
    for (; p->at < p->len; p->at++) {
        char c = p->text[p->at];
        if (c == '#')
            while (p->at + 1 < p->len && p->text[p->at + 1] != '\n' && p->text[p->at + 1] != '\r')
                p->at++;
        else if (c != ' ' && c != '\t' && !(newlines && (c == '\n' || c == '\r')))
            return;
    }
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static uint32_t hex_char(struct parser *p, unsigned digits)
{
    uint32_t c = 0;
    char buf[4];
    for (unsigned i = 0; i < digits; i++, p->at++) {
        int d = p->at < p->len ? hex(p->text[p->at]) : -1;
        if (d < 0)
            return unexpected(p, digits == 2   ? "\\x and 2 hexadecimal digits"
                                 : digits == 4 ? "\\u and 4 hexadecimal digits"
                                               : "\\U and 8 hexadecimal digits");
        if (c >> 28)
            return fail(p, "there is no such character; 10FFFF is the last");
        c = c << 4 | (uint32_t)d;
    }
    return utf8_encode(c, buf) ? c : fail(p, "there is no such character (10FFFF is the last, D800 to DFFF are none)");
}

/* One character of a literal or a class. */
static uint32_t one_char(struct parser *p)
{
    uint32_t c;
    if (p->at >= p->len)
        return unexpected(p, "a character");
    if (p->text[p->at] != '\\') {
        size_t n = utf8_decode(p->text + p->at, p->len - p->at, &c);
        if (n == 0)
            return fail(p, "these bytes are no UTF-8");
        p->at += n;
        return c;
    }
    if (++p->at >= p->len)
        return unexpected(p, "an escape");
    char e = p->text[p->at++];
    switch (e) {
    case 'x':
        return hex_char(p, 2);
    case 'u':
        return hex_char(p, 4);
    case 'U':
        return hex_char(p, 8);
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    default:
        break;
    }
    if (e > ' ' && e < 0x7F && !is_word(e))
        return (unsigned char)e;
    if (e == '-' || e == '_')
        return (unsigned char)e;
    p->at--;
    return fail(p, "an unknown escape; there are \\x \\u \\U \\n \\r \\t, and \\ before punctuation");
}

static uint32_t parse_literal(struct parser *p)
{
    struct strbuf s;
    char buf[4];
    uint32_t id;

    strbuf_init(&s, GRAMMAR_MAX_TEXT_BYTES);
    p->at++;
    while (!p->b.failed && peek(p) != '"') {
        if (p->at >= p->len || p->text[p->at] == '\n') {
            unexpected(p, "\" at the end of the text");
            break;
        }
        uint32_t c = one_char(p);
        strbuf_add(&s, buf, utf8_encode(c, buf));
    }
    p->at++;
    id = gram_text(&p->b, strbuf_str(&s), s.len);
    if (s.failed && !p->b.failed)
        fail(p, "out of memory");
    strbuf_fini(&s);
    return id;
}

static uint32_t parse_class(struct parser *p)
{
    struct gram_range *r = NULL;
    size_t n = 0, cap = 0, start = p->at++;
    bool negated = peek(p) == '^';
    uint32_t id;

    p->at += negated;
    while (!p->b.failed && !(p->at < p->len && p->text[p->at] == ']')) {
        if (p->at >= p->len || p->text[p->at] == '\n') {
            unexpected(p, "] at the end of the class");
            break;
        }
        size_t at = p->at;
        uint32_t lo = one_char(p), hi = lo;
        if (p->at + 1 < p->len && p->text[p->at] == '-' && p->text[p->at + 1] != ']') {
            p->at++;
            hi = one_char(p);
        }
        if (hi < lo)
            fail_at(p, at, "a range from a later character to an earlier one", NULL);
        else if (mem_grow(&r, &cap, n + 1, sizeof *r, GRAMMAR_MAX_TEXT_BYTES, "character ranges", p->b.err) != 0)
            gram_failed(&p->b);
        else
            r[n++] = (struct gram_range){lo, hi};
    }
    p->at++;
    id = gram_set(&p->b, r, n, negated);
    if (!p->b.failed && n == 0 && !negated)
        fail_at(p, start, "an empty class matches nothing", NULL);
    free(r);
    return id;
}

/* --- expressions --------------------------------------------------------------------------------------------------------- */

static uint32_t parse_number(struct parser *p)
{
    uint32_t n = 0;
    if (!(peek(p) >= '0' && peek(p) <= '9'))
        return unexpected(p, "a number");
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        n = n * 10 + (uint32_t)(peek(p) - '0');
        if (n > GRAMMAR_MAX_REPEAT) {
            char what[64];
            snprintf(what, sizeof what, "more than %d repetitions", GRAMMAR_MAX_REPEAT);
            return fail(p, what);
        }
    }
    return n;
}

/* {m}, {m,}, {m,n} */
static uint32_t parse_braces(struct parser *p, uint32_t expr, bool newlines)
{
    size_t start = p->at++;
    uint32_t min, max;

    skip(p, newlines);
    min = max = parse_number(p);
    skip(p, newlines);
    if (peek(p) == ',') {
        p->at++;
        skip(p, newlines);
        max = peek(p) == '}' ? GRAM_ANY_NUMBER : parse_number(p);
        skip(p, newlines);
    }
    if (!p->b.failed && peek(p) != '}')
        return unexpected(p, "}");
    p->at++;
    if (max < min)
        return fail_at(p, start, "a repetition whose most is below its least", NULL);
    return gram_rep(&p->b, expr, min, max);
}

static uint32_t parse_alternatives(struct parser *p, bool nested);

static uint32_t parse_group(struct parser *p)
{
    uint32_t id;
    if (p->nesting >= GRAMMAR_MAX_NESTING)
        return fail(p, "groups are nested too deep");
    p->nesting++;
    p->at++;
    skip(p, true);
    id = parse_alternatives(p, true);
    if (!p->b.failed && peek(p) != ')')
        return unexpected(p, ")");
    p->at++;
    p->nesting--;
    return id;
}

/* Pieces one after another, each with its repetition. */
static uint32_t parse_sequence(struct parser *p, bool nested)
{
    struct gram_list l = {0};
    uint32_t id;

    while (!p->b.failed && p->at < p->len) {
        char c = peek(p);
        size_t from = p->at;
        if (c == '"') {
            id = parse_literal(p);
        } else if (c == '[') {
            id = parse_class(p);
        } else if (c == '.') {
            p->at++;
            id = gram_set(&p->b, NULL, 0, true);
        } else if (c == '(') {
            id = parse_group(p);
        } else if (is_word(c)) {
            size_t n = word(p);
            id = gram_rule(&p->b, rule_named(p, p->text + from, n, from));
        } else {
            break;
        }
        skip(p, nested);
        for (c = peek(p); !p->b.failed && p->at < p->len && (c == '*' || c == '+' || c == '?' || c == '{'); c = peek(p)) {
            if (c == '{') {
                id = parse_braces(p, id, nested);
            } else {
                p->at++;
                id = gram_rep(&p->b, id, c == '+', c == '?' ? 1 : GRAM_ANY_NUMBER);
            }
            skip(p, nested);
        }
        gram_list_add(&p->b, &l, id);
    }
    return gram_list_seq(&p->b, &l);
}

/* A line that begins with "|" goes on with the rule before it. */
static bool bar_follows(struct parser *p)
{
    size_t at = p->at;
    skip(p, true);
    if (peek(p) == '|')
        return true;
    p->at = at;
    return false;
}

static uint32_t parse_alternatives(struct parser *p, bool nested)
{
    struct gram_list l = {0};

    gram_list_add(&p->b, &l, parse_sequence(p, nested));
    while (!p->b.failed && bar_follows(p)) {
        p->at++;
        skip(p, true);
        gram_list_add(&p->b, &l, parse_sequence(p, nested));
    }
    return gram_list_alt(&p->b, &l);
}

/* NAME ::= alternatives */
static void parse_rule(struct parser *p)
{
    size_t from = p->at, n = word(p);
    uint32_t rule, expr;

    if (n == 0) {
        unexpected(p, "a rule's name");
        return;
    }
    rule = rule_named(p, p->text + from, n, from);
    skip(p, false);
    if (!p->b.failed && (p->len - p->at < 3 || memcmp(p->text + p->at, "::=", 3) != 0)) {
        unexpected(p, "::= behind the rule's name");
        return;
    }
    p->at += 3;
    skip(p, true);
    expr = parse_alternatives(p, false);
    if (p->b.failed)
        return;
    if (p->at < p->len && peek(p) != '\n' && peek(p) != '\r') {
        unexpected(p, "a piece of a rule, | or the line's end");
        return;
    }
    if (p->b.rules[rule] != GRAM_NONE)
        fail_at(p, from, "a second rule of the same name: ", err_printable(p->shown, sizeof p->shown, p->text + from, n));
    gram_rule_set(&p->b, rule, expr);
}

static const char *name_of(void *arg, uint32_t rule)
{
    struct parser *p = arg;
    if (rule >= p->n_names || !p->names[rule].s)
        return NULL;
    return err_printable(p->shown, sizeof p->shown, p->names[rule].s, p->names[rule].len);
}

static uint32_t parse(struct parser *p)
{
    uint32_t root;

    skip(p, true);
    while (gram_goes_on(&p->b) && p->at < p->len) {
        parse_rule(p);
        skip(p, true);
    }
    root = p->b.failed ? 0 : rule_named(p, "root", 4, 0);
    if (!p->b.failed && p->b.rules[root] == GRAM_NONE) {
        err_set(p->b.err, ERR_INPUT, "there is no rule named root, where an answer begins");
        return gram_failed(&p->b);
    }
    for (size_t i = 0; i < p->n_names && !p->b.failed; i++)
        if (p->names[i].s && p->b.rules[i] == GRAM_NONE)
            fail_at(p, p->names[i].used_at, "there is no rule named ", name_of(p, (uint32_t)i));
    return root;
}

struct grammar *grammar_from_gbnf(const char *text, size_t len, struct err *err)
{
    struct parser p = {.text = text, .len = len};
    struct err own;
    struct grammar *g = NULL;

    if (len > GRAMMAR_MAX_TEXT_BYTES) {
        err_set(err, ERR_LIMIT, "a grammar of %zu bytes; at most %d are taken", len, GRAMMAR_MAX_TEXT_BYTES);
        return NULL;
    }
    gram_builder_init(&p.b, &own);
    uint32_t root = parse(&p);
    g = gram_compile(&p.b, root, name_of, &p);
    if (!g && err)
        *err = own;
    gram_builder_fini(&p.b);
    free(p.names);
    free(p.slots);
    return g;
}
