#ifndef FRONT_GUIDE_H
#define FRONT_GUIDE_H

/* What an answer has to be: response_format and the fields of other servers that say the same, read from a body (pure), and the
 * grammars that come of them. Compiled ones are kept for a while: many requests come with the same schema, and then share what
 * masks were found. */

#include <jansson.h>
#include <pthread.h>

#include "front/openai.h"
#include "front/tools.h"
#include "text/grammar.h"

enum guide_kind {
    GUIDE_NONE,
    GUIDE_OBJECT,  /* any JSON object */
    GUIDE_SCHEMA,  /* value */
    GUIDE_GRAMMAR, /* text: GBNF */
    GUIDE_REGEX,   /* text */
    GUIDE_CHOICE,  /* value: a list of strings */
};

struct api_guide {
    enum guide_kind kind;
    const char *where;   /* the field, as messages name it; a literal */
    const json_t *value; /* the body's */
    const char *text;
    size_t len;
    json_t *own; /* a schema that came as a string */
};
int api_guide_read(struct api_guide *ret, const json_t *body, struct api_error *e);
void api_guide_fini(struct api_guide *g);

enum { GUIDES_KEPT = 16, GUIDES_MAX_KEY_BYTES = 1 << 20 };

struct guides {
    const struct tokenizer *tokenizer;
    uint32_t n_vocab;
    pthread_mutex_t lock;
    struct grammar_tokens *tokens; /* made when first needed */
    struct guide_kept {
        char *key;
        size_t len;
        struct grammar_masks *masks;
        uint64_t used;
    } kept[GUIDES_KEPT];
    uint64_t clock;
};
void guides_init(struct guides *g, const struct tokenizer *tokenizer, uint32_t n_vocab);
void guides_fini(struct guides *g);

/* Masks by a grammar: kept ones under the key, or those of the grammar that make gives. The caller drops them. Any thread; blocks
 * while it compiles. */
struct grammar_masks *guides_get(struct guides *g, const char *key, size_t len, struct grammar *(*make)(void *arg, struct err *err),
                                 void *arg, struct err *err);
/* Those of a request's guide, which is not GUIDE_NONE. NULL and a 400 that names the field. */
struct grammar_masks *guides_get_for(struct guides *g, const struct api_guide *guide, struct api_error *e);
/* Those of a chat in which a call must come (tools_must). */
struct grammar_masks *guides_get_calls(struct guides *g, const struct tools_fit *fit, const struct api_chat *chat, struct api_error *e);

#endif
