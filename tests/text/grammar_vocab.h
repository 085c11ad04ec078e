#ifndef TESTS_GRAMMAR_VOCAB_H
#define TESTS_GRAMMAR_VOCAB_H

/* A vocabulary for tests of grammars: every byte, some words of JSON, halves of characters, doubles, a control token and an end. */

#include <stdint.h>

#include "text/tokenizer.h"

struct grammar_vocab {
    struct tokenizer *tokenizer;
    uint32_t n; /* a little more than the tokenizer has, as models have it */
    int32_t eos, control;
};

void grammar_vocab_init(struct grammar_vocab *v);
void grammar_vocab_fini(struct grammar_vocab *v);

#endif
