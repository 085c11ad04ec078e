/* text/: JSON schemas from anybody; the same must hold as in fuzz_gbnf.c. A text that is no JSON is taken as a pattern. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    json_t *schema = json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    struct grammar *g = schema ? grammar_from_schema(schema, "schema", &err) : grammar_from_regex((const char *)data, size, &err);
    fuzz_grammar(g, &err, size);
    json_decref(schema);
    return 0;
}
