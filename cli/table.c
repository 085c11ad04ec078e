/* See table.h. */
#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/columns.h"

enum { TEXT_MAX_BYTES = 1 << 20, CELL_MAX_BYTES = 1 << 12, MAX_CELLS = 1 << 16, INDENT = 2, GAP = 2, BRACKETS = 2 };
static const char plain[] = "\033[0m", dim[] = "\033[2m";

struct table_cell {
    size_t at, len; /* in the table's text */
    bool has_bar;
    double shares[TABLE_MAX_PARTS];
};

/* How wide each column is drawn; 0: it is not. */
struct widths {
    unsigned of[TABLE_MAX_COLUMNS];
};

void table_init(struct table *t, const struct screen *screen, const struct table_column *columns, size_t n_columns)
{
    *t = (struct table){.screen = screen, .columns = columns, .n_columns = n_columns};
    strbuf_init(&t->text, TEXT_MAX_BYTES);
}

void table_fini(struct table *t)
{
    free(t->cells);
    strbuf_fini(&t->text);
}

static struct table_cell *next_cell(struct table *t)
{
    if (t->failed || mem_grow(&t->cells, &t->cap, t->n_cells + 1, sizeof *t->cells, MAX_CELLS, "a table", NULL) != 0) {
        t->failed = true;
        return NULL;
    }
    t->cells[t->n_cells] = (struct table_cell){.at = t->text.len};
    return &t->cells[t->n_cells++];
}

void table_put(struct table *t, const char *fmt, ...)
{
    struct table_cell *c = next_cell(t);
    struct strbuf text;
    va_list args;
    if (!c)
        return;
    strbuf_init(&text, CELL_MAX_BYTES);
    va_start(args, fmt);
    strbuf_vprintf(&text, fmt, args);
    va_end(args);
    screen_add(t->screen, &t->text, strbuf_str(&text), text.len);
    c->len = t->text.len - c->at;
    strbuf_fini(&text);
}

void table_put_bar(struct table *t, const double *shares)
{
    const struct table_column *column = &t->columns[t->n_cells % t->n_columns];
    struct table_cell *c = next_cell(t);
    if (!c || !shares)
        return;
    c->has_bar = true;
    memcpy(c->shares, shares, column->n_parts * sizeof *shares);
}

/* --- how wide ------------------------------------------------------------ */

static unsigned width_of(const struct table *t, size_t column)
{
    const struct table_column *col = &t->columns[column];
    unsigned most = 0, title = columns_of(col->title, strlen(col->title));
    for (size_t i = column; i < t->n_cells; i += t->n_columns) {
        const struct table_cell *c = &t->cells[i];
        unsigned wide = c->has_bar ? col->cells + BRACKETS : columns_of(strbuf_str(&t->text) + c->at, c->len);
        most = wide > most ? wide : most;
    }
    return most == 0 ? 0 : most > title ? most : title;
}

static unsigned total(const struct table *t, const struct widths *w)
{
    unsigned sum = 0;
    for (size_t i = 0; i < t->n_columns; i++)
        sum += w->of[i] ? w->of[i] + (sum ? GAP : INDENT) : 0;
    return sum;
}

/* Bars, or else names. */
static void shorten(const struct table *t, struct widths *w, bool bars)
{
    for (size_t i = 0; i < t->n_columns; i++) {
        const struct table_column *col = &t->columns[i];
        unsigned over = total(t, w), title = columns_of(col->title, strlen(col->title)), least = col->least + (bars ? BRACKETS : 0);
        over = over > t->screen->width ? over - t->screen->width : 0;
        least = least > title ? least : title;
        if (over && col->least && (col->cells > 0) == bars && w->of[i] > least)
            w->of[i] = w->of[i] - least > over ? w->of[i] - over : least;
    }
}

static unsigned last_turn(const struct table *t)
{
    unsigned last = 0;
    for (size_t i = 0; i < t->n_columns; i++)
        last = t->columns[i].turn > last ? t->columns[i].turn : last;
    return last;
}

static void fit(const struct table *t, struct widths *ret)
{
    struct widths wished;
    for (size_t i = 0; i < t->n_columns; i++)
        wished.of[i] = width_of(t, i);
    for (unsigned turn = 0; turn <= last_turn(t); turn++) { /* in turn 0 all are there */
        for (size_t i = 0; turn && i < t->n_columns; i++)
            if (t->columns[i].turn == turn)
                wished.of[i] = 0;
        *ret = wished;
        if (!t->screen->width)
            return;
        shorten(t, ret, true);
        if (t->screen->whole)
            return;
        shorten(t, ret, false);
        if (total(t, ret) <= t->screen->width)
            return;
    }
}

/* --- drawing ------------------------------------------------------------- */

static void draw_cell(const struct table *t, size_t column, const struct table_cell *c, unsigned width, bool last, struct strbuf *out)
{
    const struct table_column *col = &t->columns[column];
    const char *text = c ? strbuf_str(&t->text) + c->at : col->title;
    size_t len = c ? c->len : strlen(col->title);
    unsigned columns = c && c->has_bar ? width : columns_of(text, len), pad = columns < width ? width - columns : 0;
    if (col->right)
        strbuf_printf(out, "%*s", (int)pad, "");
    if (c && c->has_bar)
        screen_bar(t->screen, out, col->parts, c->shares, col->n_parts, width - BRACKETS);
    else
        screen_fit(t->screen, out, text, len, width);
    if (!col->right && !last)
        strbuf_printf(out, "%*s", (int)pad, "");
}

/* cells: of a row; NULL: the titles. */
static void draw_row(const struct table *t, const struct widths *w, const struct table_cell *cells, struct strbuf *out)
{
    struct strbuf line;
    size_t last = 0;
    bool first = true;
    strbuf_init(&line, TEXT_MAX_BYTES);
    for (size_t i = 0; i < t->n_columns; i++)
        last = w->of[i] ? i : last;
    for (size_t i = 0; i < t->n_columns; i++) {
        if (!w->of[i])
            continue;
        strbuf_printf(&line, "%*s", first ? INDENT : GAP, "");
        draw_cell(t, i, cells ? &cells[i] : NULL, w->of[i], i == last, &line);
        first = false;
    }
    if (!cells)
        screen_style(t->screen, out, dim);
    if (t->screen->width && !t->screen->whole && columns_of(strbuf_str(&line), line.len) > t->screen->width)
        screen_fit(t->screen, out, line.data, line.len, t->screen->width); /* fewer columns than one name and the rest take */
    else
        strbuf_add(out, strbuf_str(&line), line.len);
    if (!cells)
        screen_style(t->screen, out, plain);
    strbuf_putc(out, '\n');
    strbuf_fini(&line);
}

bool table_shows(const struct table *t, size_t column)
{
    struct widths w;
    fit(t, &w);
    return w.of[column] > 0;
}

void table_draw(const struct table *t, struct strbuf *out)
{
    struct widths w;
    fit(t, &w);
    draw_row(t, &w, NULL, out);
    for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns)
        draw_row(t, &w, &t->cells[i], out);
}
