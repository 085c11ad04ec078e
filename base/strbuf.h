#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H

/* A growing string with a limit. A failed append (limit or memory) sets `failed` and later appends do nothing, so that a
 * writer checks once at its end. data is always 0-terminated once something was appended. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct strbuf {
    char *data;
    size_t len, cap, max;
    bool failed;
};

void strbuf_init(struct strbuf *sb, size_t max);
void strbuf_fini(struct strbuf *sb);
void strbuf_clear(struct strbuf *sb); /* empties it, keeps the memory, forgets a failure */
void strbuf_add(struct strbuf *sb, const char *s, size_t len);
void strbuf_puts(struct strbuf *sb, const char *s);
void strbuf_putc(struct strbuf *sb, char c);
void strbuf_printf(struct strbuf *sb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vprintf(struct strbuf *sb, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
/* Appends s as a JSON string with its quotes. Bytes that are no UTF-8 become U+FFFD. */
void strbuf_json(struct strbuf *sb, const char *s, size_t len);
/* 0, or -1 and an error naming `what` if an append failed. */
int strbuf_check(const struct strbuf *sb, const char *what, struct err *err);
/* The string ("" if nothing was added); valid until the next change. */
const char *strbuf_str(const struct strbuf *sb);

#endif
