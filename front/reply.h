#ifndef FRONT_REPLY_H
#define FRONT_REPLY_H

/* Answers in the forms of OpenAI's API: whole objects, and the chunks of a stream as events. Pure: texts into a strbuf. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "front/answer.h"
#include "front/message.h"
#include "front/openai.h"
#include "text/tokenizer.h"

struct reply_head {
    char id[48];
    int64_t created;
    const char *model;
    const struct tokenizer *tokenizer;
    const struct api_request *request;
};

struct reply_usage {
    uint64_t prompt, cached, completion, thoughts;
};

/* One answer of several. */
struct reply_choice {
    uint32_t index;
    struct answer *answer;
    struct message *message; /* of a chat: takes the answer's text */
    const char *echo; /* a completion's prompt, put before the answer; NULL: not wanted */
    size_t echo_len;
    const struct answer *echo_tokens; /* with their log-probabilities; NULL: not wanted */
    const char *finish; /* "stop", "length", "tool_calls"; NULL: it goes on */
    bool begun;         /* a chunk went out */
};

/* The whole answer as one object. */
void reply_whole(struct strbuf *out, const struct reply_head *head, struct reply_choice *choices, size_t n,
                 const struct reply_usage *usage);
/* A chunk with what is sure of a choice's text, which it takes; nothing where there is nothing new. */
void reply_chunk(struct strbuf *out, const struct reply_head *head, struct reply_choice *choice);
/* The end of a stream: usage if that was asked for, and [DONE]. */
void reply_done(struct strbuf *out, const struct reply_head *head, const struct reply_usage *usage);
/* An error in the middle of a stream. */
void reply_error(struct strbuf *out, const struct api_error *e);
/* A comment, which clients pass over: it keeps the connection open. */
void reply_comment(struct strbuf *out, const char *text);

#endif
