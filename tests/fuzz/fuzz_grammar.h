#ifndef TESTS_FUZZ_GRAMMAR_H
#define TESTS_FUZZ_GRAMMAR_H

#include "text/grammar.h"

/* Walks for a while through what a fuzzer made, by tokens drawn by lot, and drops it. g NULL: it was refused, which must have said why. */
void fuzz_grammar(struct grammar *g, const struct err *err, uint64_t seed);

#endif
