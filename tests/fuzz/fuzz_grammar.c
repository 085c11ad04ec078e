#include "tests/fuzz/fuzz_grammar.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tests/text/grammar_vocab.h"

enum { STEPS = 24, TRIED = 8, BYTES_MAX = 512 };

static struct grammar_vocab vocab;
static struct grammar_tokens *tokens;

static void must(int cond)
{
    if (!cond)
        abort();
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static int is_set(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

/* A walk that stands where the bytes lead. */
static struct grammar_walk *replay(struct grammar_masks *m, const char *bytes, size_t len)
{
    struct err err;
    struct grammar_walk *w = grammar_walk_create(m, &err);
    must(!w || grammar_walk_take_bytes(w, bytes, len, &err) == 0 || err.kind == ERR_LIMIT);
    return w;
}

/* Some tokens, by the mask and by taking them. */
static void compare(struct grammar_masks *m, const uint8_t *bits, const char *bytes, size_t len, uint64_t *random)
{
    for (int i = 0; i < TRIED; i++) {
        int32_t token = (int32_t)(next_random(random) % vocab.n);
        struct grammar_walk *w = replay(m, bytes, len);
        struct err err = {0};
        if (!w)
            return;
        int took = grammar_walk_take(w, token, &err) == 0;
        must(took == is_set(bits, (uint32_t)token) || err.kind == ERR_LIMIT);
        must(token != vocab.control || !took);
        grammar_walk_destroy(w);
    }
}

static void walk(struct grammar_masks *m, uint64_t random)
{
    uint8_t bits[(1024 + 7) / 8];
    char bytes[BYTES_MAX];
    size_t len = 0;
    struct err err;
    struct grammar_walk *w = grammar_walk_create(m, &err);

    must(w || err.kind == ERR_LIMIT);
    for (int step = 0; w && step < STEPS && len + 64 < sizeof bytes; step++) {
        uint32_t n = 0, at;
        if (grammar_walk_mask(w, bits, (vocab.n + 7) / 8, &err) != 0) {
            must(err.kind == ERR_LIMIT || err.kind == ERR_UNSUPPORTED); /* the latter: too deep */
            break;
        }
        must(is_set(bits, (uint32_t)vocab.eos) == grammar_walk_complete(w));
        compare(m, bits, bytes, len, &random);
        for (uint32_t i = 0; i < vocab.n; i++)
            n += (uint32_t)is_set(bits, i);
        must(n > 0);
        at = next_random(&random) % n;
        int32_t token = -1;
        while (at + 1 > 0)
            at -= (uint32_t)is_set(bits, (uint32_t)++token);
        if (token == vocab.eos || grammar_walk_take(w, token, &err) != 0)
            break;
        len += tokenizer_piece(vocab.tokenizer, token, false, bytes + len, sizeof bytes - len);
    }
    grammar_walk_destroy(w);
}

void fuzz_grammar(struct grammar *g, const struct err *err, uint64_t seed)
{
    struct err own;
    struct grammar_masks *m;

    if (!tokens) {
        grammar_vocab_init(&vocab);
        must((tokens = grammar_tokens_create(vocab.tokenizer, vocab.n, &own)) != NULL);
    }
    if (!g) {
        must(err->kind != ERR_NONE && err->text[0]);
        for (size_t i = 0, n = strlen(err->text); i < n; i += utf8_len(err->text + i, n - i))
            must(utf8_len(err->text + i, n - i) > 0);
        return;
    }
    must((m = grammar_masks_create(g, tokens, &own)) != NULL);
    walk(m, seed);
    walk(m, seed + 1);
    grammar_masks_drop(m);
    grammar_drop(g);
}
