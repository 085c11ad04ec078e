#ifndef FRONT_PROMPT_H
#define FRONT_PROMPT_H

/* From what a request says to the model's tokens and back: tokenizer, chat template. Read once from the header, immutable,
 * any thread. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/engine.h"
#include "front/openai.h"
#include "front/tools.h"
#include "text/template.h"
#include "text/tokenizer.h"

/* Requests add some of their own. */
enum { PROMPT_MAX_ENDS = ENGINE_MAX_STOP_TOKENS - API_MAX_STOP_TOKENS };

struct prompt {
    struct tokenizer *tokenizer;
    struct template *template; /* NULL: the model's does not compile */
    struct err template_err;
    bool is_plain;                        /* the model has none: a dialogue in plain words */
    int32_t ends[PROMPT_MAX_ENDS]; /* tokens that end an answer */
    uint32_t n_ends;
    int32_t fim[3]; /* tokens before the prefix, the suffix, the middle; -1: the model does not fill in */
    struct tools_fit fit;
    int32_t marks[DIALECT_MAX_MARKS]; /* control tokens that say where calls and thoughts begin and end */
    size_t n_marks;
};

/* How an answer begins. */
struct prompt_begun {
    bool thinking;       /* the prompt opened the thoughts */
    struct strbuf given; /* what stands in the prompt of the answer already */
};

int prompt_init(struct prompt *p, const struct gguf *g, struct err *err);
void prompt_fini(struct prompt *p);

/* Tokens of a prompt as it stands: BOS is added, control tokens written out count. */
int prompt_tokens(const struct prompt *p, const struct api_prompt *from, const char *param, struct token_list *ret, struct api_error *e);
/* What stands between a text and a suffix is to be filled in. Nothing in them becomes a control token. */
int prompt_infill(const struct prompt *p, const struct api_prompt *from, const char *suffix, size_t suffix_len, struct token_list *ret,
                  struct api_error *e);
/* A conversation by the model's template, which the messages are fitted to, up to where the answer goes on. Nobody's text
 * becomes a control token. The caller ends ret_begun->given in any case. */
int prompt_chat(const struct prompt *p, struct api_chat *chat, struct token_list *ret, struct prompt_begun *ret_begun, struct api_error *e);
/* The same as text, before it is tokenized. answer: the answer's head stands at its end. */
int prompt_render(const struct prompt *p, struct api_chat *chat, bool answer, struct template_output *ret, struct api_error *e);
/* Text of tokens; the caller frees it. */
char *prompt_text(const struct tokenizer *t, const int32_t *tokens, size_t n, size_t *ret_len, struct err *err);

#endif
