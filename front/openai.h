#ifndef FRONT_OPENAI_H
#define FRONT_OPENAI_H

/* What a body of OpenAI's API asks for, read and checked. Pure: no engine, no sockets; the body is foreign. Fields that are
 * not known are ignored, wrong types and values are refused with a message that names the field; what is known but not
 * supported is refused as well, rather than left out in silence. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "coordinator/engine.h"

enum {
    API_MAX_ANSWERS = 128, /* prompts times n */
    API_MAX_STOPS = 16,
    API_MAX_STOP_BYTES = 1024,
    API_MAX_STOP_TOKENS = 16,
    API_MAX_TOP = 20,
    API_MAX_MESSAGES = 1 << 16,
    API_PARAM_BYTES = 96,
};

/* An error as OpenAI shows it. type and code are literals; code may be NULL, param empty. */
struct api_error {
    int status;
    const char *type, *code;
    char param[API_PARAM_BYTES];
    char message[512];
    unsigned retry_s; /* when to come again; 0: the usual */
};
/* All return -1. api_refuse: 400 about a field (NULL: none). */
int api_refuse(struct api_error *e, const char *param, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int api_fail(struct api_error *e, int status, const char *type, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* An error of ours as the status of its kind. */
int api_from_err(struct api_error *e, const struct err *err);
void api_error_json(const struct api_error *e, struct strbuf *out);

/* The body as an object; the caller json_decrefs. NULL and a 400 with line and column. */
json_t *api_body(const char *body, size_t len, struct api_error *e);

/* A text, or tokens. Texts are the body's. */
struct api_prompt {
    const char *text; /* NULL: tokens */
    size_t len;
    int32_t *tokens;
    size_t n_tokens;
};
struct api_prompts {
    struct api_prompt *items;
    size_t n;
};
/* A string, a list of strings, a list of tokens or a list of those. */
int api_prompts_read(struct api_prompts *ret, const json_t *value, const char *name, struct api_error *e);
void api_prompts_fini(struct api_prompts *p);

struct api_stop {
    const char *s; /* the body's */
    size_t len;
};

enum api_tool_choice { API_TOOLS_AUTO, API_TOOLS_NONE, API_TOOLS_REQUIRED, API_TOOLS_NAMED };

/* What a chat template gets to see. References are the struct's own. */
struct api_chat {
    json_t *messages; /* normalised: contents are strings, arguments of tool calls are objects */
    json_t *tools;    /* NULL: none are offered */
    json_t *args;     /* chat_template_kwargs: more variables */
    enum api_tool_choice choice;
    const char *choice_name; /* of API_TOOLS_NAMED; the body's */
    bool parallel;           /* more than one call in an answer */
    bool thoughts_stay;      /* in the content */
};
int api_chat_read(struct api_chat *ret, const json_t *body, struct api_error *e);
void api_chat_fini(struct api_chat *c);

/* /v1/completions and /v1/chat/completions. */
struct api_request {
    json_t *body;
    bool is_chat;
    struct api_prompts prompts; /* of completions */
    struct api_chat chat;
    uint32_t n, best_of; /* shown of each prompt, computed */
    const char *suffix;  /* of completions: the answer goes between prompt and this; NULL: behind the prompt. The body's */
    size_t suffix_len;
    int64_t max_tokens; /* -1: until it ends */
    struct sample_params sample;
    struct sample_bias *bias;
    bool seeded;
    struct api_stop stops[API_MAX_STOPS];
    size_t n_stops;
    int32_t stop_tokens[API_MAX_STOP_TOKENS]; /* end the answer as the model's own ends do */
    uint32_t n_stop_tokens;
    bool stream, usage, echo, ignore_eos, logprobs;
    uint32_t top; /* likeliest tokens shown with each */
};
/* Takes over the reference to body in any case. -1: *ret needs no fini. */
int api_request_read(struct api_request *ret, bool is_chat, json_t *body, struct api_error *e);
void api_request_fini(struct api_request *r);

/* Typed look-ups. Absent or null: *ret stays. */
int api_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *ret, struct api_error *e);
int api_float(const json_t *o, const char *name, double min, double max, float *ret, struct api_error *e);
int api_flag(const json_t *o, const char *name, bool *ret, struct api_error *e);
/* NULL stays where it is absent. The body's. */
int api_text(const json_t *o, const char *name, const char **ret, size_t *ret_len, struct api_error *e);

#endif
