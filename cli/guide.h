#ifndef CLI_GUIDE_H
#define CLI_GUIDE_H

/* --grammar FILE and --json-schema FILE: what an answer has to be, on the command line. */

#include "text/grammar.h"

/* The grammar by one of two files (NULL: not given; both: ERR_USAGE), into *ret, which the caller drops; NULL where neither was given. */
int guide_load(const char *grammar_file, const char *schema_file, struct grammar **ret, struct err *err);
/* Its masks for a model; the caller drops them. */
struct grammar_masks *guide_masks(struct grammar *g, const struct tokenizer *t, uint32_t n_vocab, struct err *err);

#endif
