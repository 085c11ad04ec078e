#ifndef TEXT_GRAMMAR_H
#define TEXT_GRAMMAR_H

/* Constrained decoding: what an answer may be, and which tokens may come next. Three steps:
 *
 *  1. A text of rules (GBNF, llama.cpp's dialect), a JSON schema or the form of a tool call becomes a `grammar`: a pushdown
 *     automaton over bytes. Immutable, counted, independent of any model. docs/grammar.md says what is taken.
 *  2. With a model's tokens (`grammar_tokens`, one for a tokenizer) it becomes a `grammar_masks`: the automaton's states as
 *     far as they were reached, and the masks found so far. Shared by all answers under one grammar: what one of them
 *     found the others need not compute. Locked inside; any thread.
 *  3. Each answer has a `grammar_walk`: where it stands. grammar_walk_mask says what may come, grammar_walk_take moves on.
 *     One thread at a time.
 *
 * Everything is bounded by the limits below; a grammar that would pass one is refused, or ends its answer, with a sentence.
 *
 * Tool calls: grammar_from_calls makes the grammar of a template's own form of a call. Hermes', of one tool that must be
 * called, is one form of three parts:
 *     {.text = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "}, {.schema = parameters}, {.text = "}\n</tool_call>"}
 * `required` with several tools: one form each. Parallel calls: max_calls > 1, with what stands between two as `between`.
 * Control tokens never match a grammar: one that opens a call ("[TOOL_CALLS]") goes at the prompt's end. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/tokenizer.h"

enum {
    GRAMMAR_MAX_TEXT_BYTES = 1 << 20, /* of a GBNF text */
    GRAMMAR_MAX_EXPRS = 1 << 20,      /* pieces that rules are made of */
    GRAMMAR_MAX_RULES = 1 << 17,
    GRAMMAR_MAX_NODES = 1 << 19, /* of the automaton, repetitions written out … */
    GRAMMAR_MAX_EDGES = 1 << 20,
    GRAMMAR_MAX_REPEAT = 1 << 16,       /* {m,n} */
    GRAMMAR_MAX_NESTING = 256,          /* of groups in a text; of a schema within itself */
    GRAMMAR_MAX_MS = 2000,              /* of processor time for one compilation */
    GRAMMAR_MAX_DEPTH = 512,            /* of rules within rules in an answer: deeper ones do not begin */
    GRAMMAR_MAX_THREADS = 4096,         /* ways in which one text may be read at once */
    GRAMMAR_MAX_STATE_BYTES = 16 << 20, /* of states remembered; then it begins anew. Twice as much for one token */
    GRAMMAR_MAX_MASK_BYTES = 16 << 20,  /* of masks remembered */
    GRAMMAR_MAX_FORMS = 1024,
};

struct grammar;

/* A GBNF text whose rule `root` the answer must match. Messages say line and column. */
struct grammar *grammar_from_gbnf(const char *text, size_t len, struct err *err);
/* Texts that are valid by the schema. `where` is how messages call it ("response_format.json_schema.schema"). What would make
 * a wrong promise is refused with the path and the keyword. */
struct grammar *grammar_from_schema(const json_t *schema, const char *where, struct err *err);
/* Texts that match an ECMA pattern (of what gram_regex.c takes) from their beginning to their end. */
struct grammar *grammar_from_regex(const char *pattern, size_t len, struct err *err);
/* Any JSON object. */
struct grammar *grammar_json_object(struct err *err);

/* A part of a call's form: a text as it is, or a value by a schema (NULL: any object). */
struct grammar_part {
    const char *text; /* NULL: schema counts */
    const json_t *schema;
    const char *where; /* how messages call the schema */
};
struct grammar_form {
    const struct grammar_part *parts;
    size_t n_parts;
};
/* One of the forms; with max_calls > 1 up to so many, `between` standing between two (NULL: nothing). */
struct grammar *grammar_from_calls(const struct grammar_form *forms, size_t n_forms, const char *between, unsigned max_calls,
                                   struct err *err);

void grammar_ref(struct grammar *g);
void grammar_drop(struct grammar *g); /* takes NULL */
size_t grammar_bytes(const struct grammar *g);

/* The tokens of a vocabulary by the bytes they stand for. n_vocab: of the model, what masks are made for; tokens that the
 * tokenizer does not know never match. Immutable, any thread; counted, needs the tokenizer only while it is made. */
struct grammar_tokens;
struct grammar_tokens *grammar_tokens_create(const struct tokenizer *t, uint32_t n_vocab, struct err *err);
void grammar_tokens_drop(struct grammar_tokens *t); /* takes NULL */

struct grammar_masks;
/* Holds both. */
struct grammar_masks *grammar_masks_create(struct grammar *g, struct grammar_tokens *tokens, struct err *err);
void grammar_masks_ref(struct grammar_masks *m);
void grammar_masks_drop(struct grammar_masks *m); /* takes NULL */

struct grammar_walk;
/* Holds the masks. */
struct grammar_walk *grammar_walk_create(struct grammar_masks *m, struct err *err);
void grammar_walk_destroy(struct grammar_walk *w); /* takes NULL */
/* The tokens that may come next: bit i % 8 of byte i / 8 for token i, n_vocab of them, n_bytes = (n_vocab + 7) / 8. End
 * tokens are among them exactly where the text is complete. -1: nothing can come (a vocabulary that lacks bytes), or a
 * limit. */
int grammar_walk_mask(struct grammar_walk *w, uint8_t *bits, size_t n_bytes, struct err *err);
/* Moves on by a token. -1: it may not come here. An end token moves nothing. */
int grammar_walk_take(struct grammar_walk *w, int32_t token, struct err *err);
/* The same by bytes. */
int grammar_walk_take_bytes(struct grammar_walk *w, const char *bytes, size_t len, struct err *err);
/* The text is complete, and: nothing more can follow. */
bool grammar_walk_complete(struct grammar_walk *w);

#endif
