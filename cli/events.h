#ifndef CLI_EVENTS_H
#define CLI_EVENTS_H

/* The events of a chat's answer (text/event-stream), read as they come from a server, cut anywhere. The server is foreign: lines
 * and what is kept of them are bounded, what it says is checked. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

enum { EVENTS_LINE_MAX_BYTES = 1 << 20, EVENTS_FINISH_BYTES = 32 };

struct events {
    const char *url; /* for messages */
    /* The answer's next piece: valid UTF-8, never empty. Returns 0 to go on, 1 or -1 and err to end. */
    int (*on_text)(void *arg, const char *text, size_t len, struct err *err);
    void (*on_comment)(void *arg, const char *text); /* what the server says while there is nothing to say; printable */
    void *arg;
    /* What has been said so far. */
    char finish[EVENTS_FINISH_BYTES]; /* "stop", "length"; "": the answer has not ended */
    uint64_t prompt_tokens, cached_tokens, new_tokens;
    struct strbuf line;
};

void events_init(struct events *e, const char *url); /* the caller sets on_text, on_comment and arg */
/* Bytes of the body. 0: go on; 1: [DONE], or on_text wants no more; -1 and err: it is none, or the server says that it failed. */
int events_take(struct events *e, const char *data, size_t len, struct err *err);
void events_fini(struct events *e);

#endif
