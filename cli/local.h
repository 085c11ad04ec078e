#ifndef CLI_LOCAL_H
#define CLI_LOCAL_H

/* A model as run, chat, eval and bench use it, in this process or on a pipeline: the options that say which and how, its tokenizer, its chat
 * template, the session. Opened in two steps, so that whatever can be checked by the header alone (the prompts' lengths
 * against the context, a template's errors) is checked before gigabytes are read. */

#include <jansson.h>
#include <stdint.h>

#include "base/opts.h"
#include "cli/compute.h"
#include "coordinator/engine.h"
#include "gguf/gguf.h"
#include "kernels/sample.h"
#include "model/session.h"
#include "text/template.h"
#include "text/tokenizer.h"

struct model_options {
    const char *model, *kv;
    int64_t ctx, parallel; /* 0: not given */
    struct compute_options compute;
    const char *topology, *wire, *keys, *objective;
    double prompt_share;
    double gather; /* seconds; GATHER_OPTION where requests may come together */
    int64_t workers;
    const char *join_listen; /* serve: nodes may join, and the topology's file need not be there yet */
};
extern const struct opt model_option_table[];
/* Both tables' groups, for a struct with a member `model`. */
#define MODEL_OPTION_GROUPS(values) \
    {"Model", model_option_table, offsetof(struct values, model)}, {"Computing", compute_option_table, offsetof(struct values, model.compute)}
#define MODEL_SYNOPSIS "-m FILE"
#define GATHER_OPTION(values)                                                                                                     \
    {"gather", 0, OPT_FLOAT, .arg = "SECONDS", .offset = offsetof(struct values, model.gather), .max = 3600, .def = "10",          \
     .help = "How long requests that come together may be held for one another's prompts, so that they answer together (0: not)"}

struct sample_options {
    double temp, top_p, min_p, typical, repeat_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, repeat_last;
    uint64_t seed;
};
extern const struct opt sample_option_table[];
/* The numbers as the sampler takes them. seeded: --seed was given; else one is drawn. */
void sample_options_get(const struct sample_options *o, bool seeded, struct sample_params *ret);
/* "ID=BIAS" items into an array that the caller frees; checked against the vocabulary. */
struct sample_bias *sample_bias_parse(const struct opt_list *items, struct err *err);

struct local {
    const struct model_options *options;
    struct gguf *header; /* until the session brings its own */
    struct tokenizer *tokenizer;
    struct session *session; /* NULL before local_load, and with --workers or --topology */
    struct engine *engine;   /* these */
    struct topology *topology;
    const char *trace;       /* where the pipeline's schedule is written down; the caller sets it before local_load. NULL: nowhere */
    char name[256];          /* the file's, without its folder, printable */
    uint32_t ctx;            /* positions a sequence may have: expected before local_load, real after it */
    uint32_t ctx_model;      /* what the model was trained for; 0: it does not say */
    double load_seconds;
};

/* They ask for worker processes, here or elsewhere. */
bool local_in_pipeline(const struct model_options *o);
/* What the options mean for a pipeline. *ret_topology (NULL without --topology) must outlive the engine; the caller destroys it. */
int local_engine_options(const struct model_options *o, struct engine_options *ret, struct topology **ret_topology, struct err *err);

/* Header and tokenizer. local_close after success and failure alike. */
int local_open(struct local *l, const struct model_options *options, struct err *err);
/* Weights and KV cache for `parallel` sequences (--parallel wins) with steps of at most batch_rows rows (0: the default);
 * shows progress. The expected ctx is fixed here. */
int local_load(struct local *l, uint32_t parallel, uint32_t batch_rows, struct err *err);
void local_close(struct local *l);
uint32_t local_n_vocab(const struct local *l);

/* -1 and numbers when n_prompt tokens and n_new more do not fit the context. what: "the prompt", "prompt 2". */
int local_check_room(const struct local *l, const char *what, size_t n_prompt, uint64_t n_new, struct err *err);

/* The model's chat template, or a plain one where it has none (*ret_fallback tells). The caller destroys it. */
struct template *local_template(const struct local *l, bool *ret_fallback, struct err *err);
/* Renders messages (a JSON array of {role, content}) and tokenizes the result; user text never becomes control tokens. */
int local_chat_tokens(const struct local *l, const struct template *t, json_t *messages, struct token_list *ret, struct err *err);

#endif
