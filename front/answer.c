/* See answer.h. */
#include "front/answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { TOKENS_MAX = 1 << 24 };

void answer_init(struct answer *a, const struct tokenizer *t, const struct api_stop *stops, size_t n_stops, bool continues, bool logprobs,
                 uint32_t top)
{
    *a = (struct answer){.stops = stops, .n_stops = n_stops, .logprobs = logprobs, .top = top};
    detokenizer_init(&a->detok, t, false);
    a->detok.started = continues;
    strbuf_init(&a->text, ANSWER_MAX_BYTES);
    for (size_t i = 0; i < n_stops; i++)
        if (stops[i].len > a->max_stop)
            a->max_stop = stops[i].len;
}

void answer_fini(struct answer *a)
{
    strbuf_fini(&a->text);
    free(a->tokens);
    free(a->top_ids);
    free(a->top_logprobs);
    *a = (struct answer){0};
}

/* The earliest stop string that ends behind `from`, or -1. */
static ptrdiff_t find_stop(const struct answer *a, size_t from)
{
    size_t begin = from + 1 > a->max_stop ? from + 1 - a->max_stop : 0;
    const char *first = NULL, *text = strbuf_str(&a->text);

    for (size_t i = 0; i < a->n_stops; i++) {
        const char *hit = memmem(text + begin, a->text.len - begin, a->stops[i].s, a->stops[i].len);
        if (hit && (!first || hit < first))
            first = hit;
    }
    return first ? first - text : -1;
}

/* Bytes at the end that a stop string could begin with. */
static size_t held_back(const struct answer *a)
{
    const char *end = strbuf_str(&a->text) + a->text.len;
    size_t most = 0;

    for (size_t i = 0; i < a->n_stops; i++) {
        size_t n = a->stops[i].len - 1;
        for (n = n < a->text.len ? n : a->text.len; n > most; n--)
            if (memcmp(end - n, a->stops[i].s, n) == 0)
                most = n;
    }
    return most;
}

static int add_text(struct answer *a, const char *s, size_t len, struct err *err)
{
    size_t before = a->text.len;
    ptrdiff_t stop;

    for (size_t i = 0; i < len; i++)
        a->chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    strbuf_add(&a->text, s, len);
    if (strbuf_check(&a->text, "the answer", err) != 0)
        return -1;
    if (a->n_stops && (stop = find_stop(a, before)) >= 0) {
        a->stopped = true;
        a->text.len = (size_t)stop;
        a->text.data[stop] = '\0';
        a->sure = a->text.len;
        while (a->n_tokens > 0 && a->tokens[a->n_tokens - 1].begin >= a->taken + a->text.len)
            a->n_tokens--; /* tokens of the stop string alone */
    } else {
        a->sure = a->text.len - (a->n_stops ? held_back(a) : 0);
    }
    return 0;
}

static int keep_token(struct answer *a, int32_t id, float logprob, const int32_t *top_ids, const float *top_logprobs, uint32_t n_top,
                      struct err *err)
{
    size_t n = a->n_tokens, k = a->top, at = a->taken + a->text.len;

    if (mem_grow(&a->tokens, &a->cap_tokens, n + 1, sizeof *a->tokens, TOKENS_MAX, "log-probabilities", err) != 0 ||
        (k && (mem_grow(&a->top_ids, &a->cap_top_ids, (n + 1) * k, sizeof *a->top_ids, SIZE_MAX / 8, "log-probabilities", err) != 0 ||
               mem_grow(&a->top_logprobs, &a->cap_top_logprobs, (n + 1) * k, sizeof *a->top_logprobs, SIZE_MAX / 8, "log-probabilities",
                        err) != 0)))
        return -1;
    a->tokens[n] = (struct answer_token){.id = id, .logprob = logprob, .begin = at, .end = at, .begin_chars = a->chars};
    for (size_t i = 0; i < k; i++) {
        a->top_ids[n * k + i] = i < n_top ? top_ids[i] : -1;
        a->top_logprobs[n * k + i] = i < n_top ? top_logprobs[i] : 0;
    }
    a->n_tokens++;
    return 0;
}

static bool is_mark(const struct answer *a, int32_t id)
{
    for (size_t i = 0; i < a->n_marks; i++)
        if (a->marks[i] == id)
            return true;
    return false;
}

int answer_add(struct answer *a, int32_t id, float logprob, const int32_t *top_ids, const float *top_logprobs, uint32_t n_top,
               struct err *err)
{
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    size_t len;

    if (a->stopped || a->ended)
        return 0;
    if (a->logprobs && keep_token(a, id, logprob, top_ids, top_logprobs, n_top, err) != 0)
        return -1;
    a->detok.special = is_mark(a, id);
    len = detokenizer_next(&a->detok, id, piece, sizeof piece);
    if (a->logprobs)
        a->tokens[a->n_tokens - 1].end += len;
    return len ? add_text(a, piece, len, err) : 0;
}

int answer_end(struct answer *a, struct err *err)
{
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    size_t len;

    if (a->stopped || a->ended)
        return 0;
    a->ended = true;
    len = detokenizer_end(&a->detok, piece, sizeof piece);
    if (len && add_text(a, piece, len, err) != 0)
        return -1;
    a->sure = a->text.len;
    return 0;
}

size_t answer_sure_tokens(const struct answer *a)
{
    size_t n = 0;

    if (a->stopped || a->ended)
        return a->n_tokens;
    while (n < a->n_tokens && a->tokens[n].end <= a->taken + a->sure)
        n++;
    return n;
}

void answer_take(struct answer *a, size_t n)
{
    size_t left = a->n_tokens - n, k = a->top;

    if (n > 0) {
        memmove(a->tokens, a->tokens + n, left * sizeof *a->tokens);
        if (k) {
            memmove(a->top_ids, a->top_ids + n * k, left * k * sizeof *a->top_ids);
            memmove(a->top_logprobs, a->top_logprobs + n * k, left * k * sizeof *a->top_logprobs);
        }
        a->n_tokens = left;
    }
    if (a->sure > 0) {
        memmove(a->text.data, a->text.data + a->sure, a->text.len - a->sure + 1);
        a->text.len -= a->sure;
        a->taken += a->sure;
        a->sure = 0;
    }
}
