#ifndef FRONT_ANSWER_H
#define FRONT_ANSWER_H

/* One answer's text as it grows: tokens go in, text comes out as whole characters, and only what is sure not to become a
 * stop string. Log-probabilities wait beside the text that they belong to. Pure; one thread at a time. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "front/openai.h"
#include "text/tokenizer.h"

enum { ANSWER_MAX_BYTES = 256 << 20 };

struct answer_token {
    int32_t id;
    float logprob;      /* NAN: it has none (the first token of a prompt) */
    size_t begin, end;  /* bytes of the whole answer that it gave */
    size_t begin_chars; /* the same beginning, in characters */
};

struct answer {
    struct detokenizer detok;
    const int32_t *marks; /* control tokens whose text is shown; the caller's */
    size_t n_marks;
    const struct api_stop *stops; /* the caller's */
    size_t n_stops, max_stop;
    struct strbuf text; /* what was not taken yet */
    size_t taken;       /* bytes taken before it */
    size_t sure;        /* of text: may be taken */
    size_t chars;       /* characters that all tokens gave so far */
    bool stopped;       /* by a stop string: text ends before it */
    bool ended;

    /* With log-probabilities: of tokens whose text was not taken yet. */
    bool logprobs;
    uint32_t top;
    struct answer_token *tokens;
    size_t n_tokens, cap_tokens;
    int32_t *top_ids; /* top each; -1: fewer */
    float *top_logprobs;
    size_t cap_top_ids, cap_top_logprobs;
};

/* continues: the answer goes on with a text (the space at its beginning counts). top: 0 without logprobs. */
void answer_init(struct answer *a, const struct tokenizer *t, const struct api_stop *stops, size_t n_stops, bool continues, bool logprobs,
                 uint32_t top);
void answer_fini(struct answer *a);

/* The next token, with its n_top likeliest. -1: out of memory, or over ANSWER_MAX_BYTES. After `stopped` nothing is added. */
int answer_add(struct answer *a, int32_t id, float logprob, const int32_t *top_ids, const float *top_logprobs, uint32_t n_top,
               struct err *err);
/* No more come: what was held back is sure now. */
int answer_end(struct answer *a, struct err *err);

/* How many of the waiting tokens belong to the text that is sure. */
size_t answer_sure_tokens(const struct answer *a);
/* Drops what is sure, and its n tokens. */
void answer_take(struct answer *a, size_t n_tokens);

#endif
