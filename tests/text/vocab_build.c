/* See vocab_build.h. */
#include "tests/text/vocab_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

void vocab_build_init(struct vocab_build *b, const char *model, const char *pre)
{
    memset(b, 0, sizeof *b);
    gguf_build_init(&b->gguf, 3, 0);
    gguf_build_str(&b->gguf, "general.architecture", "llama");
    gguf_build_str(&b->gguf, "tokenizer.ggml.model", model);
    if (pre)
        gguf_build_str(&b->gguf, "tokenizer.ggml.pre", pre);
}

void vocab_build_fini(struct vocab_build *b)
{
    for (size_t i = 0; i < b->n; i++)
        free(b->words[i]);
    for (size_t i = 0; i < b->n_merges; i++)
        free(b->merges[i]);
    gguf_build_fini(&b->gguf);
}

static char *copy(const char *s)
{
    char *fresh = strdup(s);
    if (!fresh)
        exit(99);
    return fresh;
}

int32_t vocab_build_add(struct vocab_build *b, const char *word, enum token_type type, double score)
{
    if (b->n == VOCAB_BUILD_MAX)
        exit(99);
    b->words[b->n] = copy(word);
    b->types[b->n] = type;
    b->scores[b->n] = score;
    return (int32_t)b->n++;
}

void vocab_build_merge(struct vocab_build *b, const char *merge)
{
    if (b->n_merges == VOCAB_BUILD_MAX)
        exit(99);
    b->merges[b->n_merges++] = copy(merge);
}

void vocab_build_add_bytes(struct vocab_build *b, bool characters)
{
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; byte++) {
        char word[8] = "";
        bool plain = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        if (characters)
            utf8_encode(plain ? byte : next++, word);
        else
            snprintf(word, sizeof word, "<0x%02X>", (unsigned)byte);
        vocab_build_add(b, word, characters ? T_NORMAL : T_BYTE, 0);
    }
}

unsigned char *vocab_build_finish(struct vocab_build *b, size_t *ret_len)
{
    gguf_build_strs(&b->gguf, "tokenizer.ggml.tokens", (const char *const *)b->words, b->n);
    gguf_build_ints(&b->gguf, "tokenizer.ggml.token_type", GGUF_I32, b->types, b->n);
    gguf_build_floats(&b->gguf, "tokenizer.ggml.scores", GGUF_F32, b->scores, b->n);
    gguf_build_strs(&b->gguf, "tokenizer.ggml.merges", (const char *const *)b->merges, b->n_merges);
    return gguf_build_finish(&b->gguf, false, ret_len);
}

struct tokenizer *vocab_build_tokenizer(struct vocab_build *b, struct err *err)
{
    size_t len;
    unsigned char *file = vocab_build_finish(b, &len);
    struct gguf *g = gguf_open_memory(file, len, true, err);
    struct tokenizer *t = g ? tokenizer_create(g, err) : NULL;
    gguf_close(g);
    free(file);
    return t;
}
