#ifndef CLI_COLUMNS_H
#define CLI_COLUMNS_H

/* How many columns text takes on a terminal, well enough for a prompt: wide characters two, marks none. */

#include <stddef.h>

/* The bytes of the character at s (len > 0), and its columns. Escape sequences (colors) take none. */
size_t columns_next(const char *s, size_t len, unsigned *ret_columns);
/* Of all of it. */
unsigned columns_of(const char *s, size_t len);

#endif
