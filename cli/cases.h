#ifndef CLI_CASES_H
#define CLI_CASES_H

/* The JSON that run and eval print and eval reads: {"model", "cases": [{"prompt", "tokens", "greedy", "text", "top"}]}. */

#include <stdint.h>

#include "cli/generate.h"
#include "cli/local.h"

/* One case as an object appended to out. top: rows of that many likeliest tokens, 0: none. */
void cases_write(struct strbuf *out, const struct tokenizer *t, const char *prompt, size_t prompt_len, const struct gen_case *c, uint32_t top);

struct reference_case {
    const char *prompt;
    size_t prompt_len;
    struct token_list tokens, greedy;
    const json_t *top; /* array of positions */
};

struct reference {
    json_t *root;
    struct reference_case *cases;
    size_t n_cases;
    uint32_t top; /* the longest list of likeliest tokens */
};

/* Reads and checks a reference: ids within the vocabulary, as many positions as tokens allow. */
int reference_read(const char *path, uint32_t n_vocab, struct reference *ret, struct err *err);
void reference_fini(struct reference *r);

/* How far our distributions are from the reference's: summed over positions. */
struct distance {
    double kld_sum, kld_max;
    uint64_t positions, top1_same;
};
/* c: the same text's top rows. Compares as many positions as both have. */
void reference_compare(const struct reference_case *r, const struct gen_case *c, uint32_t top, struct distance *d);

#endif
