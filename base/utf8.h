#ifndef BASE_UTF8_H
#define BASE_UTF8_H

/* UTF-8 by the letter of RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */

#include <stddef.h>
#include <stdint.h>

/* Length (1 to 4) of the character at s, or 0 if the n bytes there do not begin with one. n > 0. */
size_t utf8_len(const char *s, size_t n);
/* The same, and the code point in *ret. */
size_t utf8_decode(const char *s, size_t n, uint32_t *ret);
/* Writes the code point to buf (4 bytes of room) and returns its length; 0 if it is no character. */
size_t utf8_encode(uint32_t c, char *buf);
/* How many bytes of s are whole characters or bytes that can never become one: what follows is the beginning of a
 * character whose rest has not come yet (0 to 3 bytes). For streams. */
size_t utf8_complete(const char *s, size_t n);

#endif
