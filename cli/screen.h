#ifndef CLI_SCREEN_H
#define CLI_SCREEN_H

/* What a command writes for people, laid out for whoever reads it: sentences are broken between words, names shortened in their
 * middle, so that no line is wider than there is room. Tables are table.h's. Pure: ui_screen knows what stdout is. */

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"

struct screen {
    unsigned width; /* columns; 0: no limit */
    bool whole;     /* nobody gave that width (a pipe, a file): it is kept where nothing is lost by it */
    bool color;
    bool utf8; /* else only ASCII is written */
};

/* Appends text as the screen can show it: where it knows no UTF-8, with ? for what is no ASCII. */
void screen_add(const struct screen *s, struct strbuf *out, const char *text, size_t len);
/* Text that was added so, in at most so many columns: of a longer one a part before the middle is missing, marked by … (..), since names
 * are told apart by their ends. */
void screen_fit(const struct screen *s, struct strbuf *out, const char *text, size_t len, unsigned columns);
/* Appends an escape sequence where the screen has colors. */
void screen_style(const struct screen *s, struct strbuf *out, const char *code);

/* A bar: shares of a whole, each in its own mark and color, in so many cells between brackets. */
struct screen_part {
    char mark;
    const char *color;
};
void screen_bar(const struct screen *s, struct strbuf *out, const struct screen_part *parts, const double *shares, size_t n,
                unsigned cells);

/* Appends lead as it is and text behind it, broken between words (words longer than a line, within), and ends the line; further
 * lines begin at column `hang`, which is less where there is little room. */
void screen_flow(const struct screen *s, struct strbuf *out, const char *lead, unsigned hang, const char *text);

#endif
