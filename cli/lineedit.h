#ifndef CLI_LINEEDIT_H
#define CLI_LINEEDIT_H

/* Reading lines from a person: on a terminal with editing (arrows, Ctrl-A/E/B/F/K/U/W/Y/L/Z, words by Alt or Ctrl, Delete),
 * a history, and bracketed paste; elsewhere plain lines. A line that ends in a backslash goes on in the next one. Main thread
 * only. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum { LINE_MAX_BYTES = 1 << 20, HISTORY_MAX = 1000 };

struct lineedit;

/* history_path NULL: none is kept on disk. A history that cannot be read is no error. */
struct lineedit *lineedit_create(const char *history_path, struct err *err);
void lineedit_destroy(struct lineedit *e); /* takes NULL */

enum lineedit_result { LINE_OK, LINE_END, LINE_INTERRUPT, LINE_ERROR };

/* Shows the prompt and reads until Return. *ret_line is valid until the next call. LINE_END: Ctrl-D on an empty line, or the
 * input's end; LINE_INTERRUPT: Ctrl-C (what was typed is dropped; *ret_empty tells whether there was anything). */
enum lineedit_result lineedit_read(struct lineedit *e, const char *prompt, const char **ret_line, int *ret_empty, struct err *err);
/* While something else is written: what is typed does not show (it waits for the next read); Ctrl-C still interrupts. */
void lineedit_hush(struct lineedit *e, bool hush);
/* Appends to the history in memory and on disk (mode 0600), unless it repeats the last one. */
void lineedit_remember(struct lineedit *e, const char *line);

#endif
