#ifndef BASE_LOG_H
#define BASE_LOG_H

/* Log lines for people, on stderr. Only cli/, front/ and a worker's node loop call this; libraries return errors instead.
 * What a line quotes is made printable. Each line is one write, so that lines of several threads and processes do not mix. Any thread. */

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above `max` are dropped (default LOG_INFO); `name` stands at the head of every line, NULL for none. Call before
 * other threads start; name is borrowed. */
void log_init(enum log_level max, const char *name);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
