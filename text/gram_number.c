/* Numbers of schemas as texts: which digits say a number within bounds. See gram.h. Numbers are written as JSON does, without a
 * leading zero, at most DIGITS digits in all where there are bounds (so that no reader's rounding carries one over a bound), and
 * never "-0". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/gram.h"

enum {
    DIGITS = 15,
    FRACTION = 6, /* digits behind the point, unless a bound has more */
    MAX_FRACTION = 12,
};

/* --- bounds -------------------------------------------------------------------------------------------------------------- */

/* The shortest decimal that reads as x. */
static void shortest(double x, char *buf, size_t size)
{
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(buf, size, "%.*e", precision - 1, x);
        if (strtod(buf, NULL) == x)
            return;
    }
}

int gram_bound_of(const json_t *number, struct gram_bound *ret)
{
    char buf[64], all[64] = "";
    size_t n = 0;
    long exponent = 0;
    const char *s = buf;

    if (json_is_integer(number)) {
        snprintf(buf, sizeof buf, "%lld", (long long)json_integer_value(number));
    } else {
        if (!isfinite(json_real_value(number)))
            return -1;
        shortest(json_real_value(number), buf, sizeof buf);
    }
    *ret = (struct gram_bound){.set = true, .negative = *s == '-'};
    s += *s == '-';
    long point = -1;
    for (; *s && *s != 'e'; s++)
        if (*s == '.')
            point = (long)n;
        else
            all[n++] = *s;
    point = point < 0 ? (long)n : point;
    if (*s == 'e')
        exponent = strtol(s + 1, NULL, 10);
    point += exponent;
    while (n > 0 && all[n - 1] == '0' && (long)n > point)
        n--;
    if (point > GRAM_DECIMAL_DIGITS || (long)n - point > GRAM_DECIMAL_DIGITS)
        return -1;
    size_t whole = 0, fraction = 0;
    for (long i = 0; i < point; i++) {
        char c = i < (long)n ? all[i] : '0';
        if (whole > 0 || c != '0')
            ret->whole[whole++] = c;
    }
    if (whole == 0)
        ret->whole[whole++] = '0';
    for (long i = point; i < (long)n; i++)
        ret->fraction[fraction++] = i < 0 ? '0' : all[i];
    while (fraction > 0 && ret->fraction[fraction - 1] == '0')
        fraction--;
    ret->whole[whole] = ret->fraction[fraction] = '\0';
    if (ret->negative && strcmp(ret->whole, "0") == 0 && !fraction)
        ret->negative = false;
    return 0;
}

static int compare_magnitudes(const struct gram_bound *a, const struct gram_bound *b)
{
    size_t n = strlen(a->whole), m = strlen(b->whole);
    int c = n != m ? (n < m ? -1 : 1) : strcmp(a->whole, b->whole);
    c = c ? c : strcmp(a->fraction, b->fraction);
    return c < 0 ? -1 : c > 0;
}

int gram_bound_compare(const struct gram_bound *a, const struct gram_bound *b)
{
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    int c = compare_magnitudes(a, b);
    return a->negative ? -c : c;
}

/* --- digits -------------------------------------------------------------------------------------------------------------- */

static uint32_t digit(struct gram_builder *b, char lo, char hi)
{
    struct gram_range r = {(unsigned char)lo, (unsigned char)hi};
    return lo > hi ? gram_never(b) : gram_set(b, &r, 1, false);
}

static uint32_t digits(struct gram_builder *b, uint32_t min, uint32_t max)
{
    return gram_rep(b, digit(b, '0', '9'), min, max);
}

/* Whole numbers without leading zeros, above (more) or below s. */
static uint32_t whole_beyond(struct gram_builder *b, const char *s, bool more)
{
    uint32_t n = (uint32_t)strlen(s), alts[GRAM_DECIMAL_DIGITS + 2], k = 0;
    for (uint32_t i = 0; i < n; i++) {
        char least = i == 0 && n > 1 ? '1' : '0';
        uint32_t one = more ? digit(b, (char)(s[i] + 1), '9') : digit(b, least, (char)(s[i] - 1));
        alts[k++] = GRAM_SEQ_OF(b, gram_text(b, s, i), one, digits(b, n - 1 - i, n - 1 - i));
    }
    if (more && strcmp(s, "0") == 0)
        alts[k++] = GRAM_SEQ_OF(b, digit(b, '1', '9'), digits(b, 1, GRAM_ANY_NUMBER));
    else if (more)
        alts[k++] = GRAM_SEQ_OF(b, digit(b, '1', '9'), digits(b, n, GRAM_ANY_NUMBER));
    else if (n > 1)
        alts[k++] = GRAM_ALT_OF(b, gram_str(b, "0"), n > 1 ? GRAM_SEQ_OF(b, digit(b, '1', '9'), digits(b, 0, n - 2)) : gram_never(b));
    return gram_alt(b, alts, k);
}

/* Fractions (with their point; absent ones too) above s. */
static uint32_t fraction_above(struct gram_builder *b, const char *s, bool exclusive)
{
    uint32_t n = (uint32_t)strlen(s), alts[GRAM_DECIMAL_DIGITS + 2], k = 0, any = digits(b, 0, GRAM_ANY_NUMBER);
    uint32_t some = GRAM_SEQ_OF(b, any, digit(b, '1', '9'), any); /* more than zero */
    for (uint32_t i = 0; i < n; i++)
        alts[k++] = GRAM_SEQ_OF(b, gram_str(b, "."), gram_text(b, s, i), digit(b, (char)(s[i] + 1), '9'), any);
    alts[k++] = GRAM_SEQ_OF(b, gram_str(b, "."), gram_text(b, s, n), exclusive ? some : any);
    if (n == 0 && !exclusive)
        alts[k++] = gram_empty(b);
    return gram_alt(b, alts, k);
}

static uint32_t fraction_below(struct gram_builder *b, const char *s, bool exclusive)
{
    uint32_t n = (uint32_t)strlen(s), alts[2 * GRAM_DECIMAL_DIGITS + 4], k = 0, any = digits(b, 0, GRAM_ANY_NUMBER);
    uint32_t zeros = gram_rep(b, gram_str(b, "0"), 0, GRAM_ANY_NUMBER);
    for (uint32_t i = 0; i < n; i++) {
        alts[k++] = GRAM_SEQ_OF(b, gram_str(b, "."), gram_text(b, s, i), digit(b, '0', (char)(s[i] - 1)), any);
        if (i > 0)
            alts[k++] = GRAM_SEQ_OF(b, gram_str(b, "."), gram_text(b, s, i));
    }
    if (!exclusive)
        alts[k++] = GRAM_SEQ_OF(b, gram_str(b, "."), gram_text(b, s, n), zeros);
    if (n > 0 || !exclusive)
        alts[k++] = gram_empty(b);
    return gram_alt(b, alts, k);
}

static uint32_t any_fraction(struct gram_builder *b)
{
    return gram_rep(b, GRAM_SEQ_OF(b, gram_str(b, "."), digits(b, 1, GRAM_ANY_NUMBER)), 0, 1);
}

/* Numbers of any length not below (above) a bound's magnitude. */
static uint32_t from_magnitude(struct gram_builder *b, const struct gram_bound *m)
{
    return GRAM_ALT_OF(b, GRAM_SEQ_OF(b, whole_beyond(b, m->whole, true), any_fraction(b)),
                       GRAM_SEQ_OF(b, gram_str(b, m->whole), fraction_above(b, m->fraction, m->exclusive)));
}

static uint32_t to_magnitude(struct gram_builder *b, const struct gram_bound *m)
{
    return GRAM_ALT_OF(b, GRAM_SEQ_OF(b, whole_beyond(b, m->whole, false), any_fraction(b)),
                       GRAM_SEQ_OF(b, gram_str(b, m->whole), fraction_below(b, m->fraction, m->exclusive)));
}

/* How numbers look. fraction: most digits behind the point; 0: whole numbers. */
static struct gram_dfa *shape(struct gram_builder *b, uint32_t fraction)
{
    uint32_t whole = DIGITS - fraction, zero = gram_str(b, "0"), first = digit(b, '1', '9'), few, many;
    few = GRAM_ALT_OF(b, zero, GRAM_SEQ_OF(b, first, digits(b, 0, whole - 1)));
    many = GRAM_ALT_OF(b, zero, GRAM_SEQ_OF(b, first, digits(b, 0, DIGITS - 1)));
    if (fraction == 0)
        return gram_dfa_of(b, many);
    return gram_dfa_of(b, GRAM_ALT_OF(b, many, GRAM_SEQ_OF(b, few, gram_str(b, "."), digits(b, 1, fraction))));
}

/* Magnitudes within bounds (NULL: none). */
static struct gram_dfa *magnitudes(struct gram_builder *b, const struct gram_bound *low, const struct gram_bound *high, uint32_t fraction)
{
    struct gram_dfa *d = shape(b, fraction);
    if (low && d)
        d = gram_dfa_combine(b, d, gram_dfa_of(b, from_magnitude(b, low)), GRAM_DFA_AND);
    if (high && d)
        d = gram_dfa_combine(b, d, gram_dfa_of(b, to_magnitude(b, high)), GRAM_DFA_AND);
    gram_dfa_minimize(b, d);
    return d;
}

/* --- numbers ------------------------------------------------------------------------------------------------------------- */

static uint32_t plain(struct gram_builder *b, const struct gram_range *r, size_t n)
{
    return gram_set(b, r, n, false);
}

/* Digits that say a multiple of m, any number of leading zeros (the other side has none). The states are the remainders. */
static struct gram_dfa *multiples(struct gram_builder *b, uint32_t m)
{
    struct gram_dfa *d = mem_new(1, sizeof *d, b->err);
    enum { CLASSES = 12 }; /* below '0', the digits, above '9' */

    if (!d || !(d->ranges = mem_new(CLASSES, sizeof *d->ranges, b->err)) ||
        !(d->class_of = mem_new(CLASSES, sizeof *d->class_of, b->err)) ||
        !(d->next = mem_new((size_t)(m + 1) * CLASSES, sizeof *d->next, b->err)) || !(d->accepts = mem_new((size_t)m + 1, 1, b->err))) {
        gram_dfa_free(d);
        gram_failed(b);
        return NULL;
    }
    d->n_ranges = d->n_classes = CLASSES;
    d->n_states = m + 1; /* the last is dead */
    for (uint32_t i = 0; i < CLASSES; i++) {
        d->ranges[i] = (struct gram_range){i == 0 ? 0 : '0' + i - 1, i == 0 ? '0' - 1 : i == CLASSES - 1 ? GRAM_MAX_CHAR : '0' + i - 1};
        d->class_of[i] = i;
    }
    for (uint32_t s = 0; s <= m; s++)
        for (uint32_t i = 0; i < CLASSES; i++)
            d->next[(size_t)s * CLASSES + i] = s == m || i == 0 || i == CLASSES - 1 ? m : (uint32_t)(((uint64_t)s * 10 + i - 1) % m);
    d->accepts[0] = 1;
    return d;
}

static uint32_t longest_fraction(const struct gram_bound *low, const struct gram_bound *high)
{
    size_t n = low->set ? strlen(low->fraction) : 0, m = high->set ? strlen(high->fraction) : 0;
    n = (n > m ? n : m) + 1;
    return n < FRACTION ? FRACTION : n < MAX_FRACTION ? (uint32_t)n : MAX_FRACTION;
}

static uint32_t finish(struct gram_builder *b, struct gram_dfa *d, uint32_t multiple_of)
{
    if (d && multiple_of > 1)
        d = gram_dfa_combine(b, d, multiples(b, multiple_of), GRAM_DFA_AND);
    return d ? gram_dfa_expr(b, d, plain) : 0;
}

/* Both sides of zero. */
static uint32_t within(struct gram_builder *b, const struct gram_bound *low, const struct gram_bound *high, uint32_t fraction,
                       uint32_t multiple_of)
{
    const struct gram_bound zero = {.set = true, .exclusive = true, .whole = "0"};
    uint32_t below = gram_never(b), above = gram_never(b);

    if (!low->set || low->negative) {
        const struct gram_bound *nearest = high->set && high->negative ? high : &zero;
        below = GRAM_SEQ_OF(b, gram_str(b, "-"), finish(b, magnitudes(b, nearest, low->set ? low : NULL, fraction), multiple_of));
    }
    if (!high->set || !high->negative)
        above = finish(b, magnitudes(b, low->set && !low->negative ? low : NULL, high->set ? high : NULL, fraction), multiple_of);
    return GRAM_ALT_OF(b, below, above);
}

uint32_t gram_integer(struct gram_builder *b, const struct gram_bound *low, const struct gram_bound *high, uint32_t multiple_of)
{
    return within(b, low, high, 0, multiple_of);
}

uint32_t gram_number(struct gram_builder *b, const struct gram_bound *low, const struct gram_bound *high)
{
    uint32_t whole, exponent;
    if (low->set || high->set)
        return within(b, low, high, longest_fraction(low, high), 1);
    whole = GRAM_ALT_OF(b, gram_str(b, "0"), GRAM_SEQ_OF(b, digit(b, '1', '9'), digits(b, 0, DIGITS - 1)));
    exponent = GRAM_SEQ_OF(b, gram_set(b, (struct gram_range[]){{'e', 'e'}, {'E', 'E'}}, 2, false),
                           gram_rep(b, gram_set(b, (struct gram_range[]){{'+', '+'}, {'-', '-'}}, 2, false), 0, 1), digits(b, 1, 2));
    return GRAM_SEQ_OF(b, gram_rep(b, gram_str(b, "-"), 0, 1), whole,
                       gram_rep(b, GRAM_SEQ_OF(b, gram_str(b, "."), digits(b, 1, DIGITS)), 0, 1), gram_rep(b, exponent, 0, 1));
}
