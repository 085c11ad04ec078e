/* The words of a vocabulary: spellings in one block, types, scores, and an index from spelling to id. See tok.h.
 *
 * A spelling is found by a keyed hash, so that no file can be made whose words all collide. Empty spellings are kept (ids
 * count on) but never found; of two words spelled alike the later one is found. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "text/tok.h"

#define SCORE_MAX 1e30f

uint64_t hash_bytes(const char *s, size_t len, uint64_t seed)
{
    uint64_t h = seed ^ len, a;
    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&a, s, 8);
        h = mix64(h, a);
    }
    a = 0;
    if (len)
        memcpy(&a, s, len);
    return mix64(mix64(h, a), seed);
}

static uint64_t fresh_seed(const void *object)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) /* early at boot: guessable is better than none */
        seed = (uint64_t)(uintptr_t)object * UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)time(NULL);
    return seed;
}

static uint16_t attr_of_type(int64_t type)
{
    switch (type) {
    case 1:
        return ATTR_NORMAL;
    case 2:
        return ATTR_UNKNOWN;
    case 3:
        return ATTR_CONTROL;
    case 4:
        return ATTR_USER;
    case 5:
        return ATTR_UNUSED;
    case 6:
        return ATTR_BYTE;
    default:
        return 0;
    }
}

/* Copies the spellings, checking their lengths. */
static int load_texts(struct vocab *v, const struct gguf_array *words, struct err *err)
{
    size_t total = 0;
    for (uint64_t i = 0; i < words->count; i++) {
        size_t len = words->strings[i].len;
        if (len > TOKEN_MAX_BYTES)
            return err_set(err, ERR_LIMIT, "token %llu is %zu bytes long, at most %d are allowed", (unsigned long long)i, len,
                           TOKEN_MAX_BYTES);
        total += len;
        if (len > v->max_len)
            v->max_len = len;
    }
    if (total > TOK_MAX_VOCAB_BYTES)
        return err_set(err, ERR_LIMIT, "the tokens are %zu bytes together, at most %d are allowed", total, TOK_MAX_VOCAB_BYTES);
    v->text = mem_new(total, 1, err);
    v->at = mem_new((size_t)v->n + 1, sizeof *v->at, err);
    if (!v->text || !v->at)
        return -1;
    for (uint32_t i = 0; i < v->n; i++) {
        const struct gguf_str *word = &words->strings[i];
        if (word->len)
            memcpy(v->text + v->at[i], word->s, word->len);
        v->at[i + 1] = v->at[i] + (uint32_t)word->len;
    }
    return 0;
}

/* An array that says something about every token: 1 if it is there. */
static int per_token(const struct vocab *v, const struct gguf *g, const char *key, enum gguf_value_type type, struct gguf_array *ret,
                     struct err *err)
{
    int found = gguf_get_array(g, key, type, ret, err);
    if (found == 1 && ret->count < v->n)
        return err_set(err, ERR_INPUT, "%s has %llu items for %u tokens", key, (unsigned long long)ret->count, v->n);
    return found;
}

int vocab_load(struct vocab *v, const struct gguf *g, bool need_scores, struct err *err)
{
    struct gguf_array words, types, scores;
    int found = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &words, err);
    if (found == 0)
        return err_set(err, ERR_INPUT, "no vocabulary: tokenizer.ggml.tokens is missing");
    if (found < 0)
        return -1;
    if (words.count == 0 || words.count > TOK_MAX_TOKENS)
        return err_set(err, ERR_LIMIT, "tokenizer.ggml.tokens has %llu items; 1 to %d are allowed", (unsigned long long)words.count,
                       TOK_MAX_TOKENS);
    v->n = (uint32_t)words.count;
    v->seed = fresh_seed(v);
    if (load_texts(v, &words, err) != 0)
        return -1;

    if (!(v->attrs = mem_new(v->n, sizeof *v->attrs, err)))
        return -1;
    if ((found = per_token(v, g, "tokenizer.ggml.token_type", GGUF_I32, &types, err)) < 0)
        return -1;
    for (uint32_t i = 0; i < v->n; i++)
        v->attrs[i] = found ? attr_of_type(gguf_array_int(&types, i)) : ATTR_NORMAL;

    if ((found = per_token(v, g, "tokenizer.ggml.scores", GGUF_F32, &scores, err)) < 0)
        return -1;
    if (!need_scores)
        return 0;
    if (!(v->scores = mem_new(v->n, sizeof *v->scores, err)))
        return -1;
    for (uint32_t i = 0; found && i < v->n; i++) {
        double score = gguf_array_float(&scores, i);
        v->scores[i] = fabs(score) < SCORE_MAX ? (float)score : -SCORE_MAX; /* sums of them stay numbers */
    }
    return 0;
}

int vocab_index(struct vocab *v, struct err *err)
{
    size_t n_slots = 16;
    while (n_slots < (size_t)v->n * 2)
        n_slots *= 2;
    if (!(v->slots = mem_new(n_slots, sizeof *v->slots, err)))
        return -1;
    v->slot_mask = (uint32_t)(n_slots - 1);
    for (size_t i = 0; i < n_slots; i++)
        v->slots[i].id = -1;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t len, other_len;
        const char *s = vocab_text(v, id, &len);
        if (len == 0)
            continue;
        uint32_t hash = (uint32_t)hash_bytes(s, len, v->seed), i = hash & v->slot_mask;
        for (; v->slots[i].id >= 0; i = (i + 1) & v->slot_mask) {
            const char *other = vocab_text(v, (uint32_t)v->slots[i].id, &other_len);
            if (v->slots[i].hash == hash && other_len == len && memcmp(other, s, len) == 0)
                break;
        }
        v->slots[i] = (struct vocab_slot){.hash = hash, .id = (int32_t)id};
    }
    return 0;
}

int32_t vocab_find(const struct vocab *v, const char *s, size_t len)
{
    if (len == 0 || len > v->max_len)
        return -1;
    uint32_t hash = (uint32_t)hash_bytes(s, len, v->seed);
    for (uint32_t i = hash & v->slot_mask; v->slots[i].id >= 0; i = (i + 1) & v->slot_mask) {
        size_t other_len;
        if (v->slots[i].hash != hash)
            continue;
        const char *other = vocab_text(v, (uint32_t)v->slots[i].id, &other_len);
        if (other_len == len && memcmp(other, s, len) == 0)
            return v->slots[i].id;
    }
    return -1;
}

void vocab_fini(struct vocab *v)
{
    free(v->text);
    free(v->at);
    free(v->pieces);
    free(v->piece_at);
    free(v->attrs);
    free(v->scores);
    free(v->slots);
    memset(v, 0, sizeof *v);
}
