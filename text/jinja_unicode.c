/* See jinja_unicode.h. */
#include "text/jinja_unicode.h"

#include <stddef.h>

#include "text/jinja_unicode_data.h"

#define IN(table, c) within(jinja_##table, jinja_n_##table, c)

static bool within(const struct jinja_range *table, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > table[middle].last)
            low = middle + 1;
        else if (c < table[middle].first)
            high = middle;
        else
            return true;
    }
    return false;
}

static uint32_t map(const struct jinja_mapping *table, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct jinja_mapping *m = &table[middle];
        if (c > m->last)
            low = middle + 1;
        else if (c < m->first)
            high = middle;
        else
            return (c - m->first) % m->step ? c : (uint32_t)((int32_t)c + m->delta);
    }
    return c;
}

bool jinja_is_space(uint32_t c)
{
    return c < 0x80 ? c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) : IN(space, c);
}

bool jinja_is_alpha(uint32_t c)
{
    return IN(alpha, c);
}

bool jinja_is_decimal(uint32_t c)
{
    return IN(decimal, c);
}

bool jinja_is_digit(uint32_t c)
{
    return IN(decimal, c) || IN(digit, c);
}

bool jinja_is_numeric(uint32_t c)
{
    return jinja_is_digit(c) || IN(numeric, c);
}

bool jinja_is_upper(uint32_t c)
{
    return IN(upper, c);
}

bool jinja_is_lower(uint32_t c)
{
    return IN(lower, c);
}

bool jinja_is_title(uint32_t c)
{
    return IN(title, c);
}

bool jinja_is_printable(uint32_t c)
{
    return !IN(unprintable, c) && !(c >= 0xD800 && c < 0xE000);
}

uint32_t jinja_to_upper(uint32_t c)
{
    return map(jinja_upper_of, jinja_n_upper_of, c);
}

uint32_t jinja_to_lower(uint32_t c)
{
    return map(jinja_lower_of, jinja_n_lower_of, c);
}

const char *jinja_special_upper(uint32_t c, bool title)
{
    size_t low = 0, high = jinja_n_specials;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (jinja_specials[middle].c == c)
            return title ? jinja_specials[middle].title : jinja_specials[middle].upper;
        if (jinja_specials[middle].c < c)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
