#include "tests/text/grammar_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "tests/text/vocab_build.h"

void grammar_vocab_init(struct grammar_vocab *v)
{
    /* As byte-level vocabularies spell them: Ġ is a space, Ċ a line break, Ã© é. */
    static const char *const words[] = {
        "{\"",     "\":",  "\",\"", "\"}",  "\"]", "}}",  "]}",  "\",Ġ\"", "\":Ġ\"", ":Ġ", ",Ġ",   "true", "false", "null", "tr", "ue",
        "{\"name", "name", "age",   "10",   "12",  "00",  "0.5", "e+",     "-1",     "ĠĠ", "ĊĠĠ",  "Ċ",    "ab",    "abc",  "Ã©", "Ã",
        "ðŁĺĢ",    "ðŁĺ",  "Ģ",     "\\\"", "\\u", "\\n", "[[",  "]]",     "{}",     "[]", "\"\"", "2024", "-01-",  "aaaa"};
    struct vocab_build b;
    struct err err;

    memset(&b, 0, sizeof b);
    vocab_build_init(&b, "gpt2", "gpt-2");
    vocab_build_add_bytes(&b, true);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        vocab_build_add(&b, words[i], T_NORMAL, 0);
    v->control = vocab_build_add(&b, "<|im_start|>", T_CONTROL, 0);
    v->eos = vocab_build_add(&b, "<|im_end|>", T_CONTROL, 0);
    v->n = (uint32_t)b.n + 5;
    if (!(v->tokenizer = vocab_build_tokenizer(&b, &err)))
        abort();
    vocab_build_fini(&b);
}

void grammar_vocab_fini(struct grammar_vocab *v)
{
    tokenizer_destroy(v->tokenizer);
}
