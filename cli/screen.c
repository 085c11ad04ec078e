/* See screen.h. */
#include "cli/screen.h"

#include <string.h>

#include "cli/columns.h"

static const char ellipsis[] = "\xE2\x80\xA6", ascii_ellipsis[] = "..", plain[] = "\033[0m";
enum { FLOW_MAX_BYTES = 1 << 16, FLOW_LEAST_COLUMNS = 16 };

void screen_style(const struct screen *s, struct strbuf *out, const char *code)
{
    if (s->color)
        strbuf_puts(out, code);
}

void screen_add(const struct screen *s, struct strbuf *out, const char *text, size_t len)
{
    unsigned columns;
    if (s->utf8) {
        strbuf_add(out, text, len);
        return;
    }
    for (size_t at = 0, n; at < len; at += n) {
        n = columns_next(text + at, len - at, &columns);
        if ((unsigned char)text[at] < 0x80)
            strbuf_add(out, text + at, n);
        else if (columns > 0)
            strbuf_puts(out, n == 3 && memcmp(text + at, ellipsis, 3) == 0 ? ascii_ellipsis : "?");
    }
}

/* Where the text's last `columns` columns begin. */
static size_t tail_of(const char *text, size_t len, unsigned columns)
{
    unsigned all = columns_of(text, len), wide;
    size_t at = 0;
    while (at < len && all > columns) {
        at += columns_next(text + at, len - at, &wide);
        all -= wide < all ? wide : all;
    }
    return at;
}

void screen_fit(const struct screen *s, struct strbuf *out, const char *text, size_t len, unsigned columns)
{
    const char *mark = s->utf8 ? ellipsis : ascii_ellipsis;
    unsigned marked = s->utf8 ? 1 : 2, room = columns > marked ? columns - marked : 0, head = 0, wide;
    size_t at = 0, n;
    if (columns_of(text, len) <= columns) {
        strbuf_add(out, text, len);
        return;
    }
    while (at < len && (n = columns_next(text + at, len - at, &wide), head + wide <= room / 3)) {
        head += wide;
        at += n;
    }
    strbuf_add(out, text, at);
    strbuf_add(out, mark, columns >= marked ? strlen(mark) : 0);
    at = tail_of(text, len, room - head);
    strbuf_add(out, text + at, len - at);
}

void screen_bar(const struct screen *s, struct strbuf *out, const struct screen_part *parts, const double *shares, size_t n, unsigned cells)
{
    double sum = 0;
    unsigned at = 0;
    strbuf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        sum += shares[i];
        unsigned to = sum > 1 ? cells : (unsigned)(sum * cells + 0.5);
        if (to <= at)
            continue;
        screen_style(s, out, parts[i].color);
        for (; at < to; at++)
            strbuf_putc(out, parts[i].mark);
        screen_style(s, out, plain);
    }
    for (; at < cells; at++)
        strbuf_putc(out, ' ');
    strbuf_putc(out, ']');
}

/* --- sentences ----------------------------------------------------------- */

struct flow {
    struct strbuf *out;
    unsigned width, hang, column;
    bool fresh; /* nothing but the lead or the indent stands on this line */
};

static void next_line(struct flow *f)
{
    strbuf_printf(f->out, "\n%*s", (int)f->hang, "");
    f->column = f->hang;
    f->fresh = true;
}

static void put_word(struct flow *f, const char *word, size_t len)
{
    unsigned columns = columns_of(word, len), wide;
    if (!f->fresh && f->width && f->column + 1 + columns > f->width)
        next_line(f);
    if (!f->fresh) {
        strbuf_putc(f->out, ' ');
        f->column++;
    }
    for (size_t at = 0, n; at < len; at += n) {
        n = columns_next(word + at, len - at, &wide);
        if (f->width && f->column > f->hang && f->column + wide > f->width)
            next_line(f);
        strbuf_add(f->out, word + at, n);
        f->column += wide;
        f->fresh = false;
    }
}

void screen_flow(const struct screen *s, struct strbuf *out, const char *lead, unsigned hang, const char *text)
{
    struct flow f = {.out = out, .width = s->width, .hang = hang, .fresh = true};
    struct strbuf shown, first;

    if (f.width && f.hang + FLOW_LEAST_COLUMNS > f.width)
        f.hang = f.width > FLOW_LEAST_COLUMNS ? 2 : 0;
    strbuf_init(&shown, FLOW_MAX_BYTES);
    strbuf_init(&first, FLOW_MAX_BYTES);
    screen_add(s, &first, lead, strlen(lead));
    screen_add(s, &shown, text, strlen(text));
    f.column = columns_of(strbuf_str(&first), first.len);
    if (f.width && f.column > f.width && !s->whole)
        screen_fit(s, out, first.data, first.len, f.column = f.width);
    else
        strbuf_add(out, strbuf_str(&first), first.len);
    for (const char *at = strbuf_str(&shown); *at;) {
        size_t len = strcspn(at, " ");
        if (len)
            put_word(&f, at, len);
        at += len + (at[len] == ' ');
    }
    strbuf_putc(out, '\n');
    strbuf_fini(&first);
    strbuf_fini(&shown);
}
