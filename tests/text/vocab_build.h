#ifndef TESTS_VOCAB_BUILD_H
#define TESTS_VOCAB_BUILD_H

/* Small vocabularies for tests, made in memory. A test that runs out of memory ends the program. */

#include <stddef.h>
#include <stdint.h>

#include "tests/gguf/gguf_build.h"
#include "text/tokenizer.h"

enum token_type { T_NORMAL = 1, T_UNKNOWN, T_CONTROL, T_USER, T_UNUSED, T_BYTE };
enum { VOCAB_BUILD_MAX = 1024 };

struct vocab_build {
    struct gguf_build gguf;
    char *words[VOCAB_BUILD_MAX];
    int64_t types[VOCAB_BUILD_MAX];
    double scores[VOCAB_BUILD_MAX];
    size_t n;
    char *merges[VOCAB_BUILD_MAX];
    size_t n_merges;
};

/* pre may be NULL. */
void vocab_build_init(struct vocab_build *b, const char *model, const char *pre);
void vocab_build_fini(struct vocab_build *b);
int32_t vocab_build_add(struct vocab_build *b, const char *word, enum token_type type, double score); /* its id */
void vocab_build_merge(struct vocab_build *b, const char *merge);
/* 256 tokens: <0x00> … as byte tokens, or the characters that byte-level vocabularies write bytes as. */
void vocab_build_add_bytes(struct vocab_build *b, bool characters);
/* The file, for the caller to free. Once a build. */
unsigned char *vocab_build_finish(struct vocab_build *b, size_t *ret_len);
/* The tokenizer of that file; NULL and err. Once a build. */
struct tokenizer *vocab_build_tokenizer(struct vocab_build *b, struct err *err);

#endif
