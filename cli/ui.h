#ifndef CLI_UI_H
#define CLI_UI_H

/* What a command shows: results on stdout, everything else on stderr; progress and colors only on a terminal (NO_COLOR is
 * respected). And what interrupts it: Ctrl-C sets a flag while somebody watches for it. Main thread only. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "cli/screen.h"

/* Ignores SIGPIPE (writes fail instead). Call first. */
void ui_init(void);

/* Results. Errors are remembered; ui_flush tells them (a reader that went away is ERR_CANCELLED). */
void ui_out(const char *text, size_t len);
/* Text that a model, a file or a server wrote (whole characters): as it is, but to a terminal without what is no UTF-8 and without control
 * characters other than line ends and tabs, which could move the cursor, set a title or worse; U+FFFD stands in their place. */
void ui_foreign(const char *text, size_t len);
void ui_outf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int ui_flush(struct err *err);

/* Lines for people on stderr, whatever they quote made printable; they clear a progress bar that stands there. */
void ui_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "stagecoach: COMMAND: TEXT" in the error color. */
void ui_error(const char *command, const char *text);

bool ui_out_is_terminal(void);
bool ui_err_is_terminal(void);
unsigned ui_width(void);  /* of the terminal, or COLUMNS where that is less or there is none; else 80 */
unsigned ui_height(void); /* 0 where there is none */
/* What stdout is: as wide as its terminal or COLUMNS say; a pipe or a file: 120, whole. */
struct screen ui_screen(void);
/* An escape sequence for stderr or stdout, "" where colors are not wanted. */
enum ui_style { UI_PLAIN, UI_BOLD, UI_DIM, UI_RED, UI_GREEN, UI_CYAN, UI_YELLOW };
/* "always", "never"; "auto" (at first): on a terminal that knows them, where NO_COLOR is not set. */
void ui_set_color(const char *when);
const char *ui_style(enum ui_style style, bool for_stdout);
/* ui_say in a style. */
void ui_say_in(enum ui_style style, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A progress bar on stderr: "loading x.gguf [####    ] 52%  1.2 of 2.3 GiB". On a terminal it is redrawn at most ten times
 * a second and gone after ui_progress_end; elsewhere a plain line comes every ten seconds. */
struct ui_progress {
    const char *what;
    bool bytes; /* count in bytes, else in plain numbers */
    double started, drawn;
    bool visible;
};
void ui_progress_begin(struct ui_progress *p, const char *what, bool bytes);
void ui_progress(struct ui_progress *p, uint64_t done, uint64_t total);
void ui_progress_end(struct ui_progress *p);

/* "1.2 GiB" */
const char *ui_bytes(char *buf, size_t buf_size, uint64_t bytes);
double ui_seconds(void); /* a clock that only goes forward */

/* Ctrl-C. Between watch and unwatch it only sets the flag (watch clears it). second_kills: a second one ends the program as
 * if nobody watched, so that a step that never returns can be left. */
void ui_watch_interrupt(bool second_kills);
void ui_unwatch_interrupt(void);
bool ui_interrupted(void);
/* Ends the process by SIGINT, as the shell expects of an interrupted program. */
_Noreturn void ui_die_interrupted(void);

/* Reads a whole file ("-": standard input), at most max bytes. The text is 0-terminated; the caller frees it. */
char *ui_read_file(const char *path, size_t max, size_t *ret_len, struct err *err);

#endif
