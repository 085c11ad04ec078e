#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

/* Reads prompts and goes on with them, several sequences in one batch, in this process or on a pipeline. What a sequence says
 * does not depend on its companions: steps are only a way to use the machines. */

#include <stdbool.h>
#include <stdint.h>

#include "kernels/sample.h"
#include "cli/local.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

enum gen_end {
    GEN_RUNNING,
    GEN_STOP,      /* an end token (the last of tokens) */
    GEN_LENGTH,    /* as many tokens as asked for */
    GEN_CONTEXT,   /* the context is full */
    GEN_CANCELLED, /* Ctrl-C */
};

struct gen_case {
    struct token_list tokens; /* in: the prompt; out: and what was generated. The caller frees it. */
    size_t n_prompt;
    uint64_t n_new;    /* most tokens to generate */
    uint32_t n_cached; /* of the prompt, already in the sequence's KV (one case only) */
    enum gen_end end;
    /* With gen_options.top: for each computed position the likeliest tokens, `top` of them a row. gen_case_fini. */
    int32_t *top_ids;
    float *top_logprobs;
    size_t n_top, cap_top_ids, cap_top_logprobs;
};
void gen_case_fini(struct gen_case *c);

struct gen_options {
    const struct sample_params *params;
    bool ignore_end; /* go on past end tokens */
    struct grammar_masks *grammar; /* what answers have to be; NULL: anything */
    uint32_t top;    /* likeliest tokens to keep of every position, 0: none */
    bool keep;       /* leave the sequences' KV when they are done (chat) */
    /* Called with every generated token, cases mixed. Returns 0, 1 to end this case (GEN_STOP), or -1 and err to end all. */
    int (*on_token)(void *arg, size_t case_index, int32_t token, struct err *err);
    /* Called after every step while prompts are being read: of all prompt tokens so many are done. */
    void (*on_prompt)(void *arg, uint64_t done, uint64_t total);
    void *arg;
};

struct gen_stats {
    uint64_t prompt_tokens, new_tokens;
    /* A step that reads any prompt counts as reading; the tokens that it chooses on the way are not timed. */
    double prompt_seconds, new_seconds;
    uint64_t timed_tokens;
};
/* Tokens per second; 0 where nothing was timed. */
double gen_prompt_speed(const struct gen_stats *s);
double gen_new_speed(const struct gen_stats *s);

/* Every case must fit the context (checked by the caller with words). Stops at ui_interrupted(): the cases that were
 * running then end as GEN_CANCELLED, and 0 is returned. */
int generate(struct local *local, const struct gen_options *options, struct gen_case *cases, size_t n_cases, struct gen_stats *ret_stats,
             struct err *err);

#endif
