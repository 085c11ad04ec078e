#ifndef TEXT_JINJA_UNICODE_H
#define TEXT_JINJA_UNICODE_H

/* What Python's str methods know of characters, locale or not. The tables are Unicode 14's, those of Python 3.11. */

#include <stdbool.h>
#include <stdint.h>

bool jinja_is_space(uint32_t c);
bool jinja_is_alpha(uint32_t c);
bool jinja_is_decimal(uint32_t c);
bool jinja_is_digit(uint32_t c);
bool jinja_is_numeric(uint32_t c);
bool jinja_is_upper(uint32_t c);
bool jinja_is_lower(uint32_t c);
bool jinja_is_title(uint32_t c);
bool jinja_is_printable(uint32_t c);
/* One character each. */
uint32_t jinja_to_upper(uint32_t c);
uint32_t jinja_to_lower(uint32_t c);
/* The few whose capitals are several characters (ß) or differ from their title case (ǆ): these, in UTF-8; else NULL. */
const char *jinja_special_upper(uint32_t c, bool title);

#endif
