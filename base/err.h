#ifndef BASE_ERR_H
#define BASE_ERR_H

/* Errors as values. A function that can fail takes a `struct err *` as its last parameter and returns -1 or NULL after
 * err_set; a caller that knows more adds it with err_wrap ("outer: inner"). Libraries never print: the command line, the
 * HTTP layer and a worker's node loop do, once. The struct is the caller's; NULL is allowed where nobody will read it.
 *
 * A text says what failed, on which object, the actual value against the allowed one, and what to do about it. */

#include <stdbool.h>
#include <stddef.h>

enum err_kind {
    ERR_NONE = 0,
    ERR_USAGE,       /* the user asked for something that cannot be: exit 2 */
    ERR_INPUT,       /* a file, message or request is malformed */
    ERR_UNSUPPORTED, /* well-formed, but not something we can do */
    ERR_NOT_FOUND,
    ERR_MEMORY, /* more memory than there is, or than a named limit allows */
    ERR_IO,
    ERR_LIMIT,     /* a bound on time, steps, size or length was hit */
    ERR_BUSY,      /* try again later */
    ERR_CANCELLED, /* somebody asked for it to stop */
    ERR_INTERNAL,  /* our own fault */
    ERR_AWAY,      /* what is needed is not there now: a part of the cluster */
    ERR_KINDS,
};

struct err {
    enum err_kind kind;
    char text[512];
};

/* Both return -1, so that `return err_set(err, …)` reads well. Too long a text is cut at a character border with "…"; what it quotes
 * is made printable (err_clean). */
int err_set(struct err *err, enum err_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds strerror(errno_value) to the text; ENOENT, ENOMEM and the like choose the kind. */
int err_errno(struct err *err, int errno_value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void err_clear(struct err *err);

const char *err_kind_name(enum err_kind kind);
int err_exit_status(enum err_kind kind);
int err_http_status(enum err_kind kind);

/* Copies text into buf for showing: what could do something to a terminal or a log but be read becomes '?' (control characters,
 * those that turn the direction of writing, bytes that are no UTF-8), too long a text is cut with "…". For names that come from
 * files and peers. Returns buf. */
const char *err_printable(char *buf, size_t buf_size, const char *text, size_t len);
/* The same in place, for a whole message: errors' texts, log lines and events go through it, whatever they quote. lines: line ends
 * and tabs stay. */
void err_clean(char *text, bool lines);

#endif
