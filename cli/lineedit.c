/* See lineedit.h. The terminal is raw only while a line is being read. Every key redraws the whole line: cursor up to the
 * prompt's row, clear to the screen's end, text, cursor to its place. Rows are counted as a terminal wraps them, a wide
 * character that does not fit at a row's end included. A line feed within the text (recalled or pasted) shows as "↵". */
#include "cli/lineedit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "cli/columns.h"

enum { ESCAPE_WAIT_MS = 50, HISTORY_MAX_BYTES = 4 << 20, COLUMNS_DEFAULT = 80 };

/* Keys beyond bytes. */
enum key {
    KEY_LEFT = 256,
    KEY_RIGHT,
    KEY_UP,
    KEY_DOWN,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_WORD_DELETE,
    KEY_WORD_ERASE,
    KEY_PASTE_BEGIN,
    KEY_PASTE_END,
    KEY_NONE,
    KEY_EOF,
    KEY_FAILED,
};
#undef CTRL /* sys/ttydefaults.h has another */
#define CTRL(c) ((c) & 0x1F)

struct lineedit {
    bool terminal;
    char *history_path;
    char **history;
    size_t n_history, cap_history;
    struct strbuf result; /* what lineedit_read returns: joined lines */
    /* the line being edited */
    char *text;
    size_t len, cap, cursor;
    char *killed; /* for Ctrl-Y */
    size_t at;    /* place in the history; n_history: the new line */
    char *saved;  /* the new line, while the history is shown */
    const char *prompt;
    unsigned cursor_row; /* of the last drawing, below the prompt's row */
    bool pasting;
};

/* --- the terminal -------------------------------------------------------- */

static struct termios cooked; /* as it was before we changed anything */
static volatile sig_atomic_t is_raw, is_hushed;
static const char raw_on[] = "\033[?2004h", raw_off[] = "\033[?2004l"; /* bracketed paste */

static void put(const char *s, size_t len)
{
    while (len) {
        ssize_t n = write(STDOUT_FILENO, s, len);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (n > 0) {
            s += n;
            len -= (size_t)n;
        }
    }
}

static void raw_end(void)
{
    if (is_raw)
        put(raw_off, sizeof raw_off - 1);
    if (is_raw || is_hushed)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &cooked);
    is_raw = is_hushed = 0;
}

/* Killed in the middle of a line: the shell behind us wants its terminal back. */
static void on_deadly_signal(int signo)
{
    raw_end();
    signal(signo, SIG_DFL);
    raise(signo);
}

static int raw_begin(struct err *err)
{
    struct termios t;

    raw_end();
    if (tcgetattr(STDIN_FILENO, &cooked) != 0)
        return err_errno(err, errno, "the terminal");
    t = cooked;
    t.c_iflag &= (tcflag_t) ~(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    t.c_lflag &= (tcflag_t) ~(ECHO | ICANON | IEXTEN | ISIG);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    signal(SIGTERM, on_deadly_signal);
    signal(SIGHUP, on_deadly_signal);
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &t) != 0)
        return err_errno(err, errno, "the terminal");
    is_raw = 1;
    put(raw_on, sizeof raw_on - 1);
    return 0;
}

void lineedit_hush(struct lineedit *e, bool hush)
{
    struct termios t;

    raw_end();
    if (!e->terminal || !hush || tcgetattr(STDIN_FILENO, &cooked) != 0)
        return;
    t = cooked;
    t.c_lflag &= (tcflag_t)~ECHO;
    is_hushed = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

static unsigned terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : COLUMNS_DEFAULT;
}

/* --- drawing ------------------------------------------------------------- */

/* Where the terminal's cursor is after drawing len bytes from (row, col). */
static void advance(const char *s, size_t len, unsigned width, unsigned *row, unsigned *col)
{
    unsigned columns;

    for (size_t i = 0; i < len;) {
        i += columns_next(s + i, len - i, &columns);
        if (*col + columns > width) {
            ++*row;
            *col = 0;
        }
        *col += columns;
    }
}

static void draw(struct lineedit *e)
{
    unsigned width = terminal_columns(), row = 0, col = 0, cursor_row, cursor_col;
    struct strbuf sb;

    strbuf_init(&sb, LINE_MAX_BYTES * 4);
    if (e->cursor_row)
        strbuf_printf(&sb, "\033[%uA", e->cursor_row);
    strbuf_puts(&sb, "\r\033[J");
    strbuf_puts(&sb, e->prompt);
    advance(e->prompt, strlen(e->prompt), width, &row, &col);
    advance(e->text, e->cursor, width, &row, &col);
    cursor_row = row + col / width; /* behind a full row the cursor belongs to the next one */
    cursor_col = col % width;
    advance(e->text + e->cursor, e->len - e->cursor, width, &row, &col);
    for (size_t i = 0; i < e->len; i++)
        if (e->text[i] == '\n')
            strbuf_puts(&sb, "\xE2\x86\xB5");
        else
            strbuf_putc(&sb, e->text[i]);
    if (col == width) {
        strbuf_puts(&sb, "\r\n");
        row++;
    }
    if (row > cursor_row)
        strbuf_printf(&sb, "\033[%uA", row - cursor_row);
    strbuf_puts(&sb, "\r");
    if (cursor_col)
        strbuf_printf(&sb, "\033[%uC", cursor_col);
    put(strbuf_str(&sb), sb.len);
    strbuf_fini(&sb);
    e->cursor_row = cursor_row;
}

/* Leaves the line: cursor behind its last row. */
static void finish_drawing(struct lineedit *e)
{
    e->cursor = e->len;
    draw(e);
    put("\r\n", 2);
    e->cursor_row = 0;
}

/* --- keys ---------------------------------------------------------------- */

static int read_byte(int timeout_ms)
{
    unsigned char c;
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

    for (;;) {
        if (timeout_ms >= 0 && poll(&p, 1, timeout_ms) <= 0)
            return KEY_NONE;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n == 1)
            return c;
        if (n == 0)
            return KEY_EOF;
        if (errno != EINTR && errno != EAGAIN)
            return KEY_FAILED;
    }
}

/* What follows ESC: the sequences of xterm, the Linux console, screen and tmux. */
static int read_escape(void)
{
    static const struct {
        const char *sequence;
        int key;
    } table[] = {
        {"[A", KEY_UP},        {"[B", KEY_DOWN},        {"[C", KEY_RIGHT},     {"[D", KEY_LEFT},         {"[H", KEY_HOME},
        {"[F", KEY_END},       {"OA", KEY_UP},          {"OB", KEY_DOWN},      {"OC", KEY_RIGHT},        {"OD", KEY_LEFT},
        {"OH", KEY_HOME},      {"OF", KEY_END},         {"[1~", KEY_HOME},     {"[7~", KEY_HOME},        {"[4~", KEY_END},
        {"[8~", KEY_END},      {"[3~", KEY_DELETE},     {"b", KEY_WORD_LEFT},  {"f", KEY_WORD_RIGHT},    {"d", KEY_WORD_DELETE},
        {"\x7F", KEY_WORD_ERASE}, {"[1;5D", KEY_WORD_LEFT}, {"[1;5C", KEY_WORD_RIGHT}, {"[1;3D", KEY_WORD_LEFT}, {"[1;3C", KEY_WORD_RIGHT},
        {"[200~", KEY_PASTE_BEGIN}, {"[201~", KEY_PASTE_END},
    };
    char seen[16];
    size_t n = 0;

    for (;;) {
        int c = read_byte(ESCAPE_WAIT_MS);
        if (c > 255)
            return c == KEY_NONE ? KEY_NONE : c;
        seen[n++] = (char)c;
        /* A sequence ends with its first letter or ~, but for the introducer itself. */
        bool introducer = n == 1 && (c == '[' || c == 'O');
        if (!introducer && (n == 1 || (c >= '@' && c <= '~')))
            break;
        if (n + 1 == sizeof seen)
            return KEY_NONE;
    }
    seen[n] = '\0';
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(seen, table[i].sequence) == 0)
            return table[i].key;
    return KEY_NONE;
}

/* --- editing ------------------------------------------------------------- */

static size_t char_before(const struct lineedit *e, size_t at)
{
    unsigned columns = 0;

    while (at > 0) { /* marks go with the character that carries them */
        do
            at--;
        while (at > 0 && ((unsigned char)e->text[at] & 0xC0) == 0x80);
        columns_next(e->text + at, e->len - at, &columns);
        if (columns)
            break;
    }
    return at;
}

static size_t char_after(const struct lineedit *e, size_t at)
{
    unsigned columns;

    if (at < e->len)
        at += columns_next(e->text + at, e->len - at, &columns);
    while (at < e->len) {
        size_t n = columns_next(e->text + at, e->len - at, &columns);
        if (columns)
            break;
        at += n;
    }
    return at;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

static size_t word_before(const struct lineedit *e, size_t at)
{
    while (at > 0 && is_space(e->text[at - 1]))
        at--;
    while (at > 0 && !is_space(e->text[at - 1]))
        at--;
    return at;
}

static size_t word_after(const struct lineedit *e, size_t at)
{
    while (at < e->len && is_space(e->text[at]))
        at++;
    while (at < e->len && !is_space(e->text[at]))
        at++;
    return at;
}

static void insert(struct lineedit *e, const char *s, size_t len)
{
    struct err err;

    if (len > LINE_MAX_BYTES - e->len || mem_grow(&e->text, &e->cap, e->len + len + 1, 1, LINE_MAX_BYTES + 1, "line", &err) != 0)
        return; /* the line is full */
    memmove(e->text + e->cursor + len, e->text + e->cursor, e->len - e->cursor + 1);
    memcpy(e->text + e->cursor, s, len);
    e->len += len;
    e->cursor += len;
}

static void erase(struct lineedit *e, size_t from, size_t to, bool keep)
{
    if (from >= to)
        return;
    if (keep) {
        char *copy = strndup(e->text + from, to - from);
        if (copy) {
            free(e->killed);
            e->killed = copy;
        }
    }
    memmove(e->text + from, e->text + to, e->len - to + 1);
    e->len -= to - from;
    e->cursor = from;
}

static void set_text(struct lineedit *e, const char *s)
{
    e->len = e->cursor = 0;
    e->text[0] = '\0';
    insert(e, s, strlen(s));
}

static void go_through_history(struct lineedit *e, int by)
{
    if ((by < 0 && e->at == 0) || (by > 0 && e->at >= e->n_history))
        return;
    if (e->at == e->n_history) {
        free(e->saved);
        e->saved = strdup(e->text);
    }
    e->at += (size_t)by;
    set_text(e, e->at < e->n_history ? e->history[e->at] : e->saved ? e->saved : "");
}

static void insert_char(struct lineedit *e, int first)
{
    char c[4] = {(char)first};
    size_t n = 1, want = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;

    if (first == '\t')
        c[0] = ' ';
    while (n < want) {
        int next = read_byte(ESCAPE_WAIT_MS);
        if (next > 255)
            return;
        c[n++] = (char)next;
    }
    if (utf8_len(c, n) == n)
        insert(e, c, n);
}

/* Ctrl-Z: as the shell expects. */
static void suspend(struct lineedit *e)
{
    struct err err;

    raw_end();
    raise(SIGTSTP);
    raw_begin(&err);
    e->cursor_row = 0;
}

/* Handles a key that only edits. */
static void edit(struct lineedit *e, int key)
{
    switch (key) {
    case KEY_LEFT: case CTRL('B'): e->cursor = char_before(e, e->cursor); break;
    case KEY_RIGHT: case CTRL('F'): e->cursor = char_after(e, e->cursor); break;
    case KEY_HOME: case CTRL('A'): e->cursor = 0; break;
    case KEY_END: case CTRL('E'): e->cursor = e->len; break;
    case KEY_WORD_LEFT: e->cursor = word_before(e, e->cursor); break;
    case KEY_WORD_RIGHT: e->cursor = word_after(e, e->cursor); break;
    case KEY_UP: case CTRL('P'): go_through_history(e, -1); break;
    case KEY_DOWN: case CTRL('N'): go_through_history(e, 1); break;
    case 0x7F: case CTRL('H'): erase(e, char_before(e, e->cursor), e->cursor, false); break;
    case KEY_DELETE: case CTRL('D'): erase(e, e->cursor, char_after(e, e->cursor), false); break;
    case CTRL('K'): erase(e, e->cursor, e->len, true); break;
    case CTRL('U'): erase(e, 0, e->cursor, true); break;
    case CTRL('W'): case KEY_WORD_ERASE: erase(e, word_before(e, e->cursor), e->cursor, true); break;
    case KEY_WORD_DELETE: erase(e, e->cursor, word_after(e, e->cursor), true); break;
    case CTRL('Y'): insert(e, e->killed ? e->killed : "", e->killed ? strlen(e->killed) : 0); break;
    case CTRL('L'): put("\033[H\033[2J", 7); e->cursor_row = 0; break;
    case CTRL('Z'): suspend(e); break;
    case KEY_PASTE_BEGIN: e->pasting = true; break;
    case KEY_PASTE_END: e->pasting = false; break;
    default:
        if ((key >= ' ' && key < 256) || key == '\t')
            insert_char(e, key);
    }
}

/* More input is there already: drawing can wait (a paste without brackets, fast typing over a slow line). */
static bool more_waits(void)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

static enum lineedit_result edit_line(struct lineedit *e, int *ret_empty, struct err *err)
{
    if (mem_grow(&e->text, &e->cap, 256, 1, LINE_MAX_BYTES + 1, "line", err) != 0)
        return LINE_ERROR;
    e->at = e->n_history;
    e->cursor_row = 0;
    e->pasting = false;
    set_text(e, "");
    for (;;) {
        if (!e->pasting && !more_waits())
            draw(e);
        int key = read_byte(-1);
        if (key == 0x1B)
            key = read_escape();
        if (key == KEY_FAILED)
            return err_errno(err, errno, "the terminal"), LINE_ERROR;
        *ret_empty = e->len == 0;
        if (key == KEY_EOF || (key == CTRL('D') && e->len == 0)) {
            finish_drawing(e);
            return LINE_END;
        }
        if (e->pasting && (key == '\r' || key == '\n')) {
            insert(e, "\n", 1);
            continue;
        }
        if (key == '\r' || key == '\n') {
            finish_drawing(e);
            return LINE_OK;
        }
        if (key == CTRL('C')) {
            finish_drawing(e);
            return LINE_INTERRUPT;
        }
        edit(e, key);
    }
}

/* --- plain lines --------------------------------------------------------- */

static enum lineedit_result plain_line(struct lineedit *e, struct err *err)
{
    ssize_t n;

    if (isatty(STDIN_FILENO)) { /* a terminal that cannot be drawn on */
        fputs(e->prompt, stderr);
        fflush(stderr);
    }
    errno = 0;
    n = getline(&e->text, &e->cap, stdin);
    if (n < 0 && ferror(stdin))
        return err_errno(err, errno, "standard input"), LINE_ERROR;
    if (n < 0)
        return LINE_END;
    if (n > LINE_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "standard input: a line of %zd bytes; at most %d are allowed", n, LINE_MAX_BYTES), LINE_ERROR;
    if (n > 0 && e->text[n - 1] == '\n')
        e->text[--n] = '\0';
    if (n > 0 && e->text[n - 1] == '\r')
        e->text[--n] = '\0';
    e->len = strlen(e->text);
    return LINE_OK;
}

enum lineedit_result lineedit_read(struct lineedit *e, const char *prompt, const char **ret_line, int *ret_empty, struct err *err)
{
    enum lineedit_result result;

    strbuf_clear(&e->result);
    e->prompt = prompt;
    *ret_empty = 1;
    if (e->terminal && raw_begin(err) != 0)
        return LINE_ERROR;
    for (;;) {
        result = e->terminal ? edit_line(e, ret_empty, err) : plain_line(e, err);
        if (result != LINE_OK)
            break;
        bool more = e->len > 0 && e->text[e->len - 1] == '\\';
        strbuf_add(&e->result, e->text, e->len - more);
        if (!more)
            break;
        strbuf_putc(&e->result, '\n');
        e->prompt = "\xE2\x80\xA6 ";
    }
    raw_end();
    if (result == LINE_INTERRUPT && e->result.len)
        *ret_empty = 0;
    if (result == LINE_END && e->result.len) /* the input's end in the middle of a message: it counts */
        result = LINE_OK;
    if (result == LINE_OK && strbuf_check(&e->result, "the message", err) != 0)
        return LINE_ERROR;
    *ret_line = strbuf_str(&e->result);
    return result;
}

/* --- history ------------------------------------------------------------- */

/* On disk one entry is one line: line feeds as \n, backslashes doubled. */
static void add_entry(struct lineedit *e, const char *s)
{
    struct err err;
    char *copy;

    if (e->n_history && strcmp(e->history[e->n_history - 1], s) == 0)
        return;
    if (e->n_history == HISTORY_MAX) {
        free(e->history[0]);
        memmove(e->history, e->history + 1, --e->n_history * sizeof *e->history);
    }
    if (!(copy = strdup(s)))
        return;
    if (mem_grow(&e->history, &e->cap_history, e->n_history + 1, sizeof *e->history, HISTORY_MAX, "history", &err) != 0) {
        free(copy);
        return;
    }
    e->history[e->n_history++] = copy;
}

static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        if (*s == '\\' && s[1]) {
            s++;
            *to++ = *s == 'n' ? '\n' : *s;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

static void write_entry(FILE *f, const char *s)
{
    for (; *s; s++)
        if (*s == '\n')
            fputs("\\n", f);
        else if (*s == '\\')
            fputs("\\\\", f);
        else
            fputc(*s, f);
    fputc('\n', f);
}

/* Private: what people ask is nobody else's business. */
static FILE *open_history(const struct lineedit *e, int flags, const char *mode)
{
    int fd = open(e->history_path, flags | O_CLOEXEC, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, mode);

    if (fd >= 0 && !f)
        close(fd);
    return f;
}

static void load_history(struct lineedit *e)
{
    FILE *f = open_history(e, O_RDONLY, "r");
    char *line = NULL;
    size_t cap = 0, total = 0, lines = 0;
    ssize_t n;

    if (!f)
        return;
    while ((n = getline(&line, &cap, f)) > 0 && (total += (size_t)n) <= HISTORY_MAX_BYTES) {
        lines++;
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        unescape(line);
        add_entry(e, line);
    }
    free(line);
    fclose(f);
    if (lines < 2 * HISTORY_MAX && total <= HISTORY_MAX_BYTES)
        return;
    f = open_history(e, O_WRONLY | O_TRUNC | O_CREAT, "w"); /* it has grown: keep what fits */
    for (size_t i = 0; f && i < e->n_history; i++)
        write_entry(f, e->history[i]);
    if (f)
        fclose(f);
}

void lineedit_remember(struct lineedit *e, const char *line)
{
    FILE *f;

    if (e->n_history && strcmp(e->history[e->n_history - 1], line) == 0)
        return;
    add_entry(e, line);
    if (!e->terminal || !e->history_path || !(f = open_history(e, O_WRONLY | O_APPEND | O_CREAT, "a")))
        return;
    write_entry(f, line);
    fclose(f);
}

struct lineedit *lineedit_create(const char *history_path, struct err *err)
{
    struct lineedit *e = mem_new(1, sizeof *e, err);
    const char *term = getenv("TERM");

    if (!e)
        return NULL;
    strbuf_init(&e->result, LINE_MAX_BYTES);
    e->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
    if (history_path && e->terminal && (e->history_path = strdup(history_path)))
        load_history(e);
    return e;
}

void lineedit_destroy(struct lineedit *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->n_history; i++)
        free(e->history[i]);
    free(e->history);
    free(e->history_path);
    free(e->text);
    free(e->killed);
    free(e->saved);
    strbuf_fini(&e->result);
    free(e);
}
