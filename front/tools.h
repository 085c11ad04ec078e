#ifndef FRONT_TOOLS_H
#define FRONT_TOOLS_H

/* Between OpenAI's form of a conversation with tools and what a model's chat template takes of it. What it takes is found out
 * once, by rendering small conversations; what it does not take is written into the messages as text. */

#include <jansson.h>
#include <stdbool.h>

#include "front/openai.h"
#include "text/dialect.h"
#include "text/grammar.h"
#include "text/template.h"

struct tools_fit {
    struct dialect dialect;
    bool takes_tools;     /* shows tools to the model */
    bool takes_calls;     /* writes an assistant's tool_calls */
    bool text_arguments;  /* wants their arguments as strings */
    bool no_content;      /* wants null beside calls */
    bool knows_developer; /* the role */
    bool knows_thinking;  /* calls thoughts of earlier answers so */
};

void tools_fit_init(struct tools_fit *f, const struct template *t, const char *source, size_t len);
/* Makes the chat's messages fit, in place. Once a chat. */
int tools_fit(const struct tools_fit *f, struct api_chat *chat, struct api_error *e);
/* Where the chat wants a call for certain: what the answer must begin with, behind the prompt's end. Else nothing. */
void tools_begin(const struct tools_fit *f, const struct api_chat *chat, struct strbuf *out);
bool tools_must(const struct api_chat *chat); /* it does */
/* And what the answer is from there on: the name, where there is a choice, arguments by the tool's parameters, the call's end.
 * Parameters that cannot be held to are refused if the tool is "strict", else any object comes. */
struct grammar *tools_grammar(const struct tools_fit *f, const struct api_chat *chat, struct err *err);

#endif
