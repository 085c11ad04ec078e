#ifndef SCHED_TRACE_H
#define SCHED_TRACE_H

/* Traces of a scheduler: JSON, one object a line, written by sched_set_trace's callback. The first line holds the version and the
 * configuration; then every event and every decision follows in order, with its time. docs/scheduling.md describes the
 * fields. No I/O here: lines come from the caller, in order. */

#include <stddef.h>

#include "base/err.h"

enum { TRACE_VERSION = 4 };

struct replay;

/* Feeds a recorded trace to a scheduler of its own and compares what it says, byte for byte. NULL and err: no memory. */
struct replay *replay_create(struct err *err);
void replay_destroy(struct replay *r); /* takes NULL */

/* The next line (without its newline). -1 and err: no line of a trace (ERR_INPUT; the number and what is wrong), or another
 * decision than recorded (ERR_INTERNAL; both). After an error the replay is over. */
int replay_line(struct replay *r, const char *line, size_t len, struct err *err);

#endif
