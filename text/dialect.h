#ifndef TEXT_DIALECT_H
#define TEXT_DIALECT_H

/* How a model writes what is more than text: its thoughts, and calls of the tools that it was offered. Both stand between
 * marks in what it says, by a convention that its chat template shows. The reader is fed an answer's text in pieces of any
 * size, and tells content, thoughts and calls apart as they come: where pieces are cut changes nothing.
 *
 * What looks like a call and turns out to be none is content, to the byte. Pure; the text is foreign; one thread a reader. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "text/json_scan.h"

enum {
    DIALECT_CALL_BYTES = 1 << 20, /* a call that is longer is content */
    DIALECT_NAME_BYTES = 128,
    DIALECT_MAX_MARKS = 12,
    DIALECT_MARK_BYTES = 64,
};

/* How calls are written. Objects are {"name": …, "arguments": {…}}, whose fields may be called tool_name and parameters. */
struct dialect_calls {
    const char *name;
    const char *open, *close; /* around an object or a list of them; close NULL: nothing, and it may be missing */
    bool bare;                /* an answer that begins with '{' may be a call, if it names a tool that is offered */
    bool named;               /* open NAME{…}, open NAME[ARGS]{…} as well */
    bool sections;            /* DeepSeek's: several calls, each with marks of its own */
    bool channels;            /* harmony's: all of an answer is messages with headers */
    bool short_ids;           /* ids of calls are nine letters and digits */
};
struct dialect_thoughts {
    const char *open, *close;
    const char *skip[2]; /* marks around the rest, which nobody needs; NULL: none */
};
struct dialect {
    const struct dialect_calls *calls; /* never NULL: objects as they are where the template says nothing */
    const struct dialect_thoughts *thoughts; /* NULL: the model does not think */
};
/* source: the chat template's. */
struct dialect dialect_find(const char *source, size_t len);
/* All marks, for a vocabulary that has them as control tokens: the i-th, NULL behind the last. */
const char *dialect_mark(const struct dialect *d, size_t i);
/* Whether the rendered prompt has opened the thoughts already. */
bool dialect_is_thinking(const struct dialect *d, const char *prompt, size_t len);

enum dialect_part {
    DIALECT_CONTENT,
    DIALECT_THOUGHT,
    DIALECT_CALL,      /* a call begins: its function's name */
    DIALECT_ARGUMENTS, /* more of its arguments, JSON */
    DIALECT_DONE,      /* it is whole */
    DIALECT_BROKEN,    /* it was none: forget it; its text comes as content */
};

struct dialect_reader {
    struct dialect dialect;
    const json_t *tools; /* OpenAI's list; NULL: calls are content */
    void (*tell)(void *arg, enum dialect_part part, const char *s, size_t len);
    void *arg;
    const char *text_marks[DIALECT_MAX_MARKS], *thought_marks[DIALECT_MAX_MARKS];
    size_t n_text_marks, n_thought_marks;
    bool tells_thoughts;
    bool eager; /* a call is whole with its arguments, whatever follows: the caller's to set after init */
    int state;
    bool fresh;      /* nothing has been said yet but white space */
    bool skip_white; /* white space here belongs to nobody */
    struct strbuf held;  /* may become a mark */
    struct strbuf white; /* counts once text follows */
    struct strbuf out;   /* to be told */
    enum dialect_part out_part;

    /* The call that is being read. */
    struct strbuf raw;    /* all of it, to be given back */
    struct strbuf object; /* its JSON */
    struct json_scan scan;
    char name[DIALECT_NAME_BYTES];
    size_t name_len, key_from, key_len, value_from;
    bool in_list, is_bare, is_arguments; /* is_bare: without a mark; is_arguments: object is those alone */
    bool has_name, told, in_arguments, had_arguments;
};

/* thinking: the prompt opened the thoughts. tells_thoughts: else they stay in the content, marks and all. */
void dialect_reader_init(struct dialect_reader *r, const struct dialect *d, const json_t *tools, bool tells_thoughts, bool thinking,
                         void (*tell)(void *arg, enum dialect_part part, const char *s, size_t len), void *arg);
void dialect_reader_fini(struct dialect_reader *r);
/* -1: out of memory. Everything that is sure is told before it returns. */
int dialect_read(struct dialect_reader *r, const char *s, size_t len, struct err *err);
/* No more comes: what is undecided is decided. */
int dialect_end(struct dialect_reader *r, struct err *err);
bool dialect_in_thought(const struct dialect_reader *r);

/* Whether `tools` has a function of this name. */
bool dialect_has_tool(const json_t *tools, const char *name, size_t len);

#endif
