/* front/answer.h: whatever the tokens and the stop string, what is taken piece by piece is the text before its first
 * occurrence, never a byte more at any time, in whole characters, and tokens come with their text. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "front/answer.h"
#include "tests/tap.h"
#include "tests/text/vocab_build.h"

enum { ROUNDS = 3000, MAX_TOKENS = 40, MAX_TEXT = 1024 };

static unsigned seed = 1;

static unsigned draw(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static struct tokenizer *make_tokenizer(int32_t *ret_bytes, int32_t *ret_words, int32_t *ret_end)
{
    static const char *const words[] = {"ab", "abc", "b", "ca", "aab", "\xE2\x82\xAC", "a\xF0\x9F\xA6\x8A"};
    struct vocab_build b;
    struct err err;

    vocab_build_init(&b, "llama", NULL);
    vocab_build_add(&b, "<unk>", T_UNKNOWN, 0);
    *ret_end = vocab_build_add(&b, "</s>", T_CONTROL, 0);
    *ret_bytes = (int32_t)b.n;
    vocab_build_add_bytes(&b, false);
    *ret_words = (int32_t)b.n;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        vocab_build_add(&b, words[i], T_NORMAL, -1);
    struct tokenizer *t = vocab_build_tokenizer(&b, &err);
    ok(t != NULL, "a vocabulary: %s", t ? "" : err.text);
    vocab_build_fini(&b);
    return t;
}

static bool is_whole_utf8(const char *s, size_t n)
{
    for (size_t width; n > 0; s += width, n -= width)
        if ((width = utf8_len(s, n)) == 0)
            return false;
    return true;
}

struct taken {
    char text[MAX_TEXT];
    size_t len, n_tokens;
    int32_t ids[MAX_TOKENS];
    bool whole; /* characters */
};

static void take(struct answer *a, struct taken *t)
{
    size_t n = answer_sure_tokens(a);

    t->whole &= is_whole_utf8(strbuf_str(&a->text), a->sure);
    memcpy(t->text + t->len, strbuf_str(&a->text), a->sure);
    t->len += a->sure;
    for (size_t i = 0; i < n; i++)
        t->ids[t->n_tokens++] = a->tokens[i].id;
    answer_take(a, n);
}

/* One random answer; says what is wrong with it, NULL if nothing. */
static const char *round_of(const struct tokenizer *t, int32_t bytes, int32_t words, bool with_stop)
{
    char full[MAX_TEXT], stop[8];
    size_t full_len = 0, stop_len = 1 + draw(5), n = 1 + draw(MAX_TOKENS), fed = 0;
    int32_t ids[MAX_TOKENS];
    struct detokenizer d;
    struct answer a;
    struct taken got = {.whole = true};
    struct err err;

    for (size_t i = 0; i < stop_len; i++)
        stop[i] = "abc"[draw(3)];
    detokenizer_init(&d, t, false);
    d.started = true;
    for (size_t i = 0; i < n; i++) {
        ids[i] = draw(2) ? words + (int32_t)draw(7) : bytes + (int32_t)(draw(4) ? 'a' + draw(3) : draw(256));
        full_len += detokenizer_next(&d, ids[i], full + full_len, sizeof full - full_len);
    }
    full_len += detokenizer_end(&d, full + full_len, sizeof full - full_len);
    struct api_stop s = {stop, stop_len};
    const char *hit = with_stop ? memmem(full, full_len, stop, stop_len) : NULL;
    size_t want = hit ? (size_t)(hit - full) : full_len;

    answer_init(&a, t, &s, with_stop, true, true, 0);
    for (; fed < n && !a.stopped; fed++) {
        if (answer_add(&a, ids[fed], 0, NULL, NULL, 0, &err) != 0)
            return "a token was refused";
        if (draw(3) == 0)
            take(&a, &got);
        if (got.len > want) {
            answer_fini(&a);
            return "more than is sure was given out";
        }
    }
    answer_end(&a, &err);
    take(&a, &got);
    bool stopped = a.stopped;
    answer_fini(&a);
    if (got.len != want || memcmp(got.text, full, want) != 0)
        return "another text";
    if (stopped != (hit != NULL))
        return "stopped wrongly";
    if (!got.whole)
        return "a part of a character";
    if (memcmp(got.ids, ids, got.n_tokens * sizeof *ids) != 0 || (!stopped && got.n_tokens != n))
        return "tokens lost or out of order";
    return NULL;
}

static void test_random(const struct tokenizer *t, int32_t bytes, int32_t words)
{
    for (int with_stop = 0; with_stop < 2; with_stop++) {
        const char *wrong = NULL;
        unsigned first = seed;
        for (int i = 0; i < ROUNDS && !wrong; i++) {
            first = seed;
            wrong = round_of(t, bytes, words, with_stop);
        }
        ok(!wrong, "%d random answers %s a stop string (seed %u: %s)", ROUNDS, with_stop ? "with" : "without", first, wrong ? wrong : "");
    }
}

static void feed(struct answer *a, const char *s, int32_t bytes)
{
    for (; *s; s++)
        answer_add(a, bytes + (unsigned char)*s, -1, NULL, NULL, 0, NULL);
}

static void test_held_back(const struct tokenizer *t, int32_t bytes, int32_t end)
{
    struct api_stop stops[] = {{"bcd", 3}, {"xy", 2}};
    struct answer a;

    answer_init(&a, t, stops, 2, true, true, 0);
    feed(&a, "abc", bytes);
    is_int(a.sure, 1, "what could become a stop string is held back");
    is_int(answer_sure_tokens(&a), 1, "and its tokens");
    feed(&a, "x", bytes);
    is_int(a.sure, 3, "until it cannot");
    answer_add(&a, end, 0, NULL, NULL, 0, NULL);
    is_int(answer_sure_tokens(&a), 3, "a control token has no text; it waits for what stands before it");
    feed(&a, "y", bytes);
    ok(a.stopped, "a stop string");
    is_str(strbuf_str(&a.text), "abc", "the text before it");
    is_int(a.n_tokens, 3, "its tokens only");
    feed(&a, "zz", bytes);
    is_str(strbuf_str(&a.text), "abc", "nothing is added behind it");
    answer_fini(&a);

    answer_init(&a, t, stops, 2, true, false, 0);
    feed(&a, "\xE2\x82", bytes);
    is_int(a.sure, 0, "a part of a character waits");
    answer_end(&a, NULL);
    is_str(strbuf_str(&a.text), "\xEF\xBF\xBD", "at the end it becomes U+FFFD");
    answer_fini(&a);
}

int main(void)
{
    int32_t bytes, words, end;
    struct tokenizer *t = make_tokenizer(&bytes, &words, &end);

    test_random(t, bytes, words);
    test_held_back(t, bytes, end);
    tokenizer_destroy(t);
    return tap_done();
}
