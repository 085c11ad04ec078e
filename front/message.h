#ifndef FRONT_MESSAGE_H
#define FRONT_MESSAGE_H

/* An assistant's message as it grows: text goes in, content, thoughts and calls of tools come out, for a stream as deltas,
 * else whole at the end. Pure; one thread at a time. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "front/openai.h"
#include "text/dialect.h"

enum { MESSAGE_MAX_CALLS = 128, MESSAGE_ID_BYTES = 32 };

struct message_call {
    char id[MESSAGE_ID_BYTES];
    struct strbuf name, arguments;
};

struct message {
    struct dialect_reader reader;
    bool stream;
    bool parallel; /* more than one call is allowed; a named function is called once */
    bool full;     /* the one call that was allowed is there: nothing more is wanted */
    struct strbuf content, thoughts;
    struct message_call *calls;
    size_t n_calls, cap_calls, n_done;
    struct strbuf deltas; /* JSON objects, each behind a 0 */
};

/* chat says what is offered and wanted; it outlives the message. given: what the prompt wrote of the answer already (the
 * beginning of a call). */
int message_init(struct message *m, const struct dialect *d, const struct api_chat *chat, bool thinking, bool stream, const char *given,
                 size_t given_len, struct err *err);
void message_fini(struct message *m);
int message_add(struct message *m, const char *s, size_t len, struct err *err);
int message_end(struct message *m, struct err *err);
/* Whether it asks for tools. */
bool message_has_calls(const struct message *m);
/* "content": …, and what else there is. */
void message_write(const struct message *m, struct strbuf *out);
/* The next delta of a stream, from *at on, which begins at 0; NULL: no more. message_told drops them all. */
const char *message_delta(const struct message *m, size_t *at);
void message_told(struct message *m);

#endif
