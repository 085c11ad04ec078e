/* See ui.h. */
#include "cli/ui.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/utf8.h"

enum { COLUMNS_DEFAULT = 80, COLUMNS_OF_FILES = 120, COLUMNS_MAX = 10000, SAY_MAX_BYTES = 1 << 16 };

static int out_errno; /* of the first write that failed */
static struct ui_progress *standing; /* the bar that is on the screen */
static volatile sig_atomic_t interrupts;

/* What is opened next must not become standard output or error, or results and messages would go into it. As it is, writing there fails. */
static void hold_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return;
}

void ui_init(void)
{
    hold_standard();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow (ulimit -f) is an error like any other */
}

/* --- results ------------------------------------------------------------- */

void ui_out(const char *text, size_t len)
{
    if (len && fwrite(text, 1, len, stdout) != len && !out_errno)
        out_errno = errno;
}

/* Bytes at p that no terminal should get: a control character (of two bytes where it is one of Unicode's C1), or what is no UTF-8; 0: it
 * may have what is there. */
static size_t control_at(const char *p, size_t len)
{
    uint32_t c = 0;
    size_t n = utf8_decode(p, len, &c);
    if (n == 0)
        return 1;
    return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0) ? n : 0;
}

void ui_foreign(const char *text, size_t len)
{
    size_t from = 0;
    if (!ui_out_is_terminal()) {
        ui_out(text, len);
        return;
    }
    for (size_t i = 0, n; i < len; i += n ? n : 1) {
        if (!(n = control_at(text + i, len - i)))
            continue;
        ui_out(text + from, i - from);
        ui_out("\xEF\xBF\xBD", 3);
        from = i + n;
    }
    ui_out(text + from, len - from);
}

void ui_outf(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (vprintf(fmt, args) < 0 && !out_errno)
        out_errno = errno;
    va_end(args);
}

int ui_flush(struct err *err)
{
    if (fflush(stdout) != 0 && !out_errno)
        out_errno = errno;
    if (out_errno == EPIPE)
        return err_set(err, ERR_CANCELLED, "nobody reads the output any more");
    if (out_errno)
        return err_errno(err, out_errno, "writing to standard output");
    return 0;
}

/* --- stderr -------------------------------------------------------------- */

static void clear_progress(void)
{
    if (standing && standing->visible) {
        fputs("\r\033[K", stderr);
        standing->visible = false;
        standing->drawn = 0;
    }
}

static void say(enum ui_style style, const char *fmt, va_list args)
{
    struct strbuf text;
    strbuf_init(&text, SAY_MAX_BYTES);
    strbuf_vprintf(&text, fmt, args);
    if (text.data)
        err_clean(text.data, true);
    clear_progress();
    fprintf(stderr, "%s%s%s\n", style ? ui_style(style, false) : "", strbuf_str(&text), style ? ui_style(UI_PLAIN, false) : "");
    strbuf_fini(&text);
}

void ui_say(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(UI_PLAIN, fmt, args);
    va_end(args);
}

void ui_say_in(enum ui_style style, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(style, fmt, args);
    va_end(args);
}

void ui_error(const char *command, const char *text)
{
    char shown[sizeof((struct err){0}).text];
    snprintf(shown, sizeof shown, "%s", text);
    err_clean(shown, true);
    clear_progress();
    fflush(stdout);
    fprintf(stderr, "%sstagecoach%s%s:%s %s\n", ui_style(UI_RED, false), command ? " " : "", command ? command : "",
            ui_style(UI_PLAIN, false), shown);
}

bool ui_out_is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

bool ui_err_is_terminal(void)
{
    return isatty(STDERR_FILENO);
}

/* 0: it is no terminal, or one that does not say. */
static unsigned columns_of_terminal(int fd)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
}

/* COLUMNS makes it narrower, never wider than the terminal is. */
static unsigned columns_wanted(unsigned there)
{
    const char *text = getenv("COLUMNS");
    unsigned long wanted = text && *text >= '0' && *text <= '9' ? strtoul(text, NULL, 10) : 0;
    return wanted && wanted <= COLUMNS_MAX && (!there || wanted < there) ? (unsigned)wanted : there;
}

unsigned ui_width(void)
{
    unsigned there = columns_of_terminal(STDOUT_FILENO);
    unsigned columns = columns_wanted(there ? there : columns_of_terminal(STDERR_FILENO));
    return columns ? columns : COLUMNS_DEFAULT;
}

/* As the C library decides it, but also where that locale is not installed: the terminal is what it is. */
static bool locale_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    const char *locale = "";
    for (size_t i = 0; i < sizeof names / sizeof *names && !*locale; i++)
        locale = getenv(names[i]) ? getenv(names[i]) : "";
    return strcasestr(locale, "utf-8") || strcasestr(locale, "utf8");
}

struct screen ui_screen(void)
{
    unsigned columns = columns_wanted(columns_of_terminal(STDOUT_FILENO));
    bool whole = !columns && !ui_out_is_terminal();

    return (struct screen){.width = columns ? columns : whole ? COLUMNS_OF_FILES : COLUMNS_DEFAULT,
                           .whole = whole,
                           .color = *ui_style(UI_BOLD, true) != '\0',
                           .utf8 = whole || locale_is_utf8()};
}

unsigned ui_height(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_row : 0;
}

static const char *color = "auto";

void ui_set_color(const char *when)
{
    color = when;
}

static bool wants_color(bool for_stdout)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

    if (strcmp(color, "auto") != 0)
        return strcmp(color, "always") == 0;
    return isatty(for_stdout ? STDOUT_FILENO : STDERR_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

const char *ui_style(enum ui_style style, bool for_stdout)
{
    static const char *const codes[] = {"\033[0m", "\033[1m", "\033[2m", "\033[1;31m", "\033[1;32m", "\033[36m", "\033[1;33m"};
    return wants_color(for_stdout) ? codes[style] : "";
}

const char *ui_bytes(char *buf, size_t buf_size, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes;
    size_t u = 0;

    while (n >= 1024 && u + 1 < sizeof units / sizeof *units) {
        n /= 1024;
        u++;
    }
    snprintf(buf, buf_size, u == 0 ? "%.0f %s" : "%.1f %s", n, units[u]);
    return buf;
}

double ui_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- progress ------------------------------------------------------------ */

void ui_progress_begin(struct ui_progress *p, const char *what, bool bytes)
{
    *p = (struct ui_progress){.what = what, .bytes = bytes, .started = ui_seconds()};
    p->drawn = p->started;
    standing = p;
}

static void draw_bar(const struct ui_progress *p, uint64_t done, uint64_t total)
{
    char have[32], all[32], tail[96], bar[41], label[64];
    size_t width = ui_width(), room, cells, filled;
    double share = (double)done / (double)total;

    if (p->bytes) {
        ui_bytes(have, sizeof have, done);
        ui_bytes(all, sizeof all, total);
    } else {
        snprintf(have, sizeof have, "%llu", (unsigned long long)done);
        snprintf(all, sizeof all, "%llu", (unsigned long long)total);
    }
    snprintf(tail, sizeof tail, "%3.0f%%  %s of %s", 100 * share, have, all);
    room = width > strlen(tail) + 2 ? width - strlen(tail) - 2 : 0; /* for label and bar */
    err_printable(label, room + 1 < sizeof label ? room + 1 < 4 ? 4 : room + 1 : sizeof label, p->what, strlen(p->what));
    room -= strlen(label) < room ? strlen(label) : room;
    cells = room > 43 ? 40 : room > 23 ? 20 : 0;
    filled = (size_t)((double)cells * share);
    memset(bar, ' ', cells);
    memset(bar, '#', filled);
    bar[cells] = '\0';
    fprintf(stderr, "\r%s %s%s%s%s\033[K", label, cells ? "[" : "", bar, cells ? "] " : "", tail);
}

void ui_progress(struct ui_progress *p, uint64_t done, uint64_t total)
{
    double now = ui_seconds();

    if (total == 0)
        return;
    done = done < total ? done : total;
    if (ui_err_is_terminal()) {
        if (now - p->drawn < 0.1)
            return;
        draw_bar(p, done, total);
        p->visible = true;
    } else {
        if (now - p->drawn < 10)
            return;
        ui_say("%s: %.0f%%", p->what, 100.0 * (double)done / (double)total);
    }
    p->drawn = now;
}

void ui_progress_end(struct ui_progress *p)
{
    clear_progress();
    if (standing == p)
        standing = NULL;
}

/* --- Ctrl-C -------------------------------------------------------------- */

static void on_interrupt(int signo)
{
    (void)signo;
    interrupts = 1;
}

void ui_watch_interrupt(bool second_kills)
{
    struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART | (second_kills ? (int)SA_RESETHAND : 0)};
    interrupts = 0;
    sigaction(SIGINT, &sa, NULL);
}

void ui_unwatch_interrupt(void)
{
    signal(SIGINT, SIG_DFL);
}

bool ui_interrupted(void)
{
    return interrupts != 0;
}

void ui_die_interrupted(void)
{
    fflush(stdout);
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
    _exit(130); /* SIGINT is blocked or ignored by whoever started us */
}

/* --- files --------------------------------------------------------------- */

char *ui_read_file(const char *path, size_t max, size_t *ret_len, struct err *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    char *text = NULL;
    size_t len = 0, cap = 0;
    struct stat st;

    if (fd < 0) {
        err_errno(err, errno, "%s", name);
        return NULL;
    }
    /* One byte more than the file has: the read that finds its end then needs no more room. */
    size_t guess = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size + 2 : 1 << 16;
    for (;;) {
        if (mem_grow(&text, &cap, guess < max + 2 ? guess : max + 2, 1, max + 2, name, err) != 0)
            goto error;
        ssize_t n = read(fd, text + len, cap - len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, errno, "%s", name);
            goto error;
        }
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > max) {
            err_set(err, ERR_LIMIT, "%s: longer than the %zu bytes allowed", name, max);
            goto error;
        }
        guess = len + 2 > cap ? cap + cap / 2 + 2 : cap;
    }
    if (!standard)
        close(fd);
    text[len] = '\0';
    *ret_len = len;
    return text;
error:
    if (!standard)
        close(fd);
    free(text);
    return NULL;
}
