#ifndef TEXT_TEMPLATE_H
#define TEXT_TEMPLATE_H

/* Chat templates: the Jinja that GGUF files carry in tokenizer.chat_template, rendered as Hugging Face renders it
 * (trim_blocks, lstrip_blocks, loop controls, `generation` blocks, tojson, raise_exception, strftime_now). A template is
 * foreign: steps, depth, memory and output are bounded, and nothing outside its context can be reached. Compiled once,
 * immutable, any thread.
 *
 * The output is marked: which bytes the template wrote itself (its literals, bos_token and eos_token) and which it copied
 * or derived from the context. Control tokens are parsed only in the former (tokenizer_encode_parts), so that no user's
 * text ever becomes one. */

#include <jansson.h>
#include <stddef.h>
#include <time.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "text/tokenizer.h"

struct template;

enum { TEMPLATE_MAX_SOURCE_BYTES = 1 << 20 };

struct template_limits {
    size_t max_steps;        /* evaluated nodes */
    size_t max_depth;        /* nested calls, macros, expressions */
    size_t max_memory_bytes; /* of values alive or dead in one rendering */
    size_t max_output_bytes;
};
/* Generous for any real template. */
extern const struct template_limits template_default_limits;

struct template_output {
    struct strbuf text;
    struct text_part *parts; /* special = written by the template itself */
    size_t n_parts, cap_parts;
};
void template_output_fini(struct template_output *out);

/* NULL and an error with line and column. `name` is borrowed for messages. */
struct template *template_compile(const char *name, const char *source, size_t len, struct err *err);
void template_destroy(struct template *t); /* takes NULL */

/* Renders with the members of the JSON object `context` as variables. `now` is the time strftime_now tells. limits NULL:
 * the default ones. raise_exception and other errors: -1 and err, with line and, for raise_exception, the message. */
int template_render(const struct template *t, const json_t *context, time_t now, const struct template_limits *limits,
                    struct template_output *ret, struct err *err);

#endif
