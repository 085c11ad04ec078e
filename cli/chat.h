#ifndef CLI_CHAT_H
#define CLI_CHAT_H

/* A conversation with a model in this process, or behind a server: its messages, the chat template, and one sequence whose KV cache is kept
 * from turn to turn as far as the rendered text stays the same. When the context is full, the oldest turns are left out,
 * with a word. Answers stream to stdout. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "cli/control.h"
#include "cli/generate.h"
#include "cli/local.h"
#include "cli/ui.h"

enum { CHAT_ANSWER_MAX_BYTES = 16 << 20 };

struct chat {
    struct control_server server; /* url "": none, the model is ours; of local only name and ctx are filled else */
    struct local local;
    struct template *template;
    bool fallback;            /* the model has no template of its own */
    json_t *messages;         /* user and assistant by turns */
    char *system;             /* NULL: none */
    struct token_list cached; /* what the sequence's KV holds */
    uint64_t retries;         /* of the last question: another seed each time */
    /* the answer that is coming */
    struct detokenizer text;
    struct strbuf answer;
    size_t shown; /* bytes of it already printed */
    struct ui_progress bar;
    /* figures */
    struct gen_stats last, total;
    uint64_t reused; /* tokens found in the KV, in the last turn */
};

int chat_open(struct chat *c, const struct model_options *options, const char *system, struct err *err);
/* The same by a server's API. */
int chat_open_remote(struct chat *c, const struct control_server *server, const char *system, struct err *err);
void chat_close(struct chat *c);

/* Asks, streams the answer and keeps both. Ctrl-C (somebody must be watching) keeps what has come so far. On failure the
 * question is forgotten. n: most tokens, < 0: as the context allows. */
int chat_ask(struct chat *c, const char *text, size_t len, const struct sample_params *params, int64_t n, struct err *err);
/* The last question again, with another seed: -1 and err if there is none. */
int chat_retry(struct chat *c, const struct sample_params *params, int64_t n, struct err *err);
/* Forgets the last question and its answer: false if there is none. */
bool chat_undo(struct chat *c);
void chat_new(struct chat *c);
int chat_set_system(struct chat *c, const char *text, struct err *err);
int chat_save(const struct chat *c, const char *path, struct err *err);

#endif
