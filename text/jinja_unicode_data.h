#ifndef TEXT_JINJA_UNICODE_DATA_H
#define TEXT_JINJA_UNICODE_DATA_H

/* The tables behind jinja_unicode.h, in ascending order. make_jinja_unicode.py makes them. */

#include <stddef.h>
#include <stdint.h>

struct jinja_range {
    uint32_t first, last;
};
struct jinja_mapping { /* first, first + step, …, last become themselves + delta */
    uint32_t first, last;
    int32_t delta;
    uint32_t step;
};

struct jinja_special {
    uint32_t c;
    const char *upper, *title;
};

extern const struct jinja_range jinja_alpha[], jinja_decimal[], jinja_digit[], jinja_numeric[], jinja_upper[], jinja_lower[], jinja_title[],
    jinja_space[], jinja_unprintable[];
extern const size_t jinja_n_alpha, jinja_n_decimal, jinja_n_digit, jinja_n_numeric, jinja_n_upper, jinja_n_lower, jinja_n_title,
    jinja_n_space, jinja_n_unprintable;
extern const struct jinja_mapping jinja_upper_of[], jinja_lower_of[];
extern const size_t jinja_n_upper_of, jinja_n_lower_of;
extern const struct jinja_special jinja_specials[];
extern const size_t jinja_n_specials;

#endif
