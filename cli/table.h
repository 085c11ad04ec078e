#ifndef CLI_TABLE_H
#define CLI_TABLE_H

/* A table that is as wide as its screen has room for. Where it is wider, bars become shorter first, then names; then columns are
 * dropped, one turn after another, and what is left is as wide as it may be again. A number is shown whole or not at all. Where
 * nobody gave a width only bars become shorter. Pure; what cells hold is copied. */

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"
#include "cli/screen.h"

enum { TABLE_MAX_COLUMNS = 16, TABLE_MAX_PARTS = 3 };

struct table_column {
    const char *title;
    bool right;                      /* numbers; else names */
    unsigned least;                  /* columns that a name may be shortened to, cells of a bar; 0: it is never shortened */
    unsigned turn;                   /* when it is dropped where there is no room, 1 first; 0: never */
    unsigned cells;                  /* of a bar where there is room; 0: it is text */
    const struct screen_part *parts; /* of a bar */
    size_t n_parts;
};

struct table {
    const struct screen *screen;
    const struct table_column *columns;
    size_t n_columns, n_cells, cap;
    struct table_cell *cells; /* row after row */
    struct strbuf text;
    bool failed; /* out of memory: what does not fit is missing */
};

void table_init(struct table *t, const struct screen *screen, const struct table_column *columns, size_t n_columns);
void table_fini(struct table *t);
/* The next cells, in the columns' order. A column in which no row has anything is not there. */
void table_put(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* shares: n_parts of the column; NULL: nothing stands there. */
void table_put_bar(struct table *t, const double *shares);
/* Appends the titles and the rows, each line with two spaces before it. */
void table_draw(const struct table *t, struct strbuf *out);
/* Whether there is room for a column. */
bool table_shows(const struct table *t, size_t column);

#endif
