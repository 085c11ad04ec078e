/* text/: GBNF from anybody, and the walker over whatever automaton comes of it. A grammar compiles or is refused with a sentence;
 * a mask lets through exactly those tokens that the walk takes; what a mask lets through never leads to a dead end. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct grammar *g = grammar_from_gbnf((const char *)data, size, &err);
    fuzz_grammar(g, &err, size);
    return 0;
}
