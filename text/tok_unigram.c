/* Unigram language models (SentencePiece's other kind, "t5"): of all ways to write a text in tokens the one whose scores sum
 * up highest. See tok.h.
 *
 * Text is normalized first: the file's character map (a double array of prefixes with replacements), spaces merged and
 * written ▁. Then Viterbi's algorithm over the bytes. Where no token reaches across a byte everything before it is settled
 * and written out, so that memory stays small; sums run on, so that rounding is as if it had not been. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tok.h"

#define SPACE "\xE2\x96\x81"
enum { GROWTH_MAX = 16, GROWTH_FREE = 1 << 16 }; /* of normalization, against maps made to explode */
static const float UNKNOWN_PENALTY = 10.0f;

static int load_charsmap(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    struct gguf_array map;
    int found = gguf_get_array(g, key, GGUF_I32, &map, err);
    if (found <= 0 || map.count == 0)
        return found < 0 ? -1 : 0;
    if (map.type != GGUF_U8 && map.type != GGUF_I8)
        return err_set(err, ERR_INPUT, "%s is an array of %s; bytes are expected", key, gguf_value_type_name(map.type));
    const unsigned char *bytes = map.data;
    uint64_t units = map.count < 4 ? UINT64_MAX : (uint64_t)bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint64_t)bytes[3] << 24;
    if (units % 4 || units >= map.count - 4)
        return err_set(err, ERR_INPUT, "%s: an array of %llu bytes says that %llu of them are its table", key,
                       (unsigned long long)map.count, (unsigned long long)units);
    t->charsmap_units = (size_t)units / 4;
    t->charsmap_len = (size_t)map.count - 4;
    if (!(t->charsmap = mem_new(t->charsmap_len, 1, err)))
        return -1;
    memcpy(t->charsmap, bytes + 4, t->charsmap_len);
    return 0;
}

int unigram_init(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    const struct vocab *v = &t->vocab;
    struct trie_word *words = mem_new(v->n, sizeof *words, err);
    float least = FLT_MAX;
    size_t n = 0, len;
    if (!words)
        return -1;
    for (uint32_t id = 0; id < v->n; id++) {
        const char *s = vocab_text(v, id, &len);
        if (v->attrs[id] & ATTR_NORMAL && v->scores[id] < least)
            least = v->scores[id];
        if (len && v->attrs[id] & (ATTR_NORMAL | ATTR_USER | ATTR_UNUSED) && !(v->attrs[id] & ATTR_PARSED))
            words[n++] = (struct trie_word){.s = s, .len = (uint32_t)len, .value = (int32_t)id};
    }
    t->unknown_score = (least < FLT_MAX ? least : 0) - UNKNOWN_PENALTY;
    int status = trie_build(&t->words, words, n, false, TOK_MAX_TRIE_NODES, "tokens", err);
    free(words);
    return status == 0 ? load_charsmap(t, g, err) : -1;
}

/* --- normalization --------------------------------------------------------------------------------------------------- */
static bool unit_at(const struct tokenizer *t, uint32_t i, uint32_t *ret)
{
    if (i >= t->charsmap_units)
        return false;
    const unsigned char *u = t->charsmap + 4 * (size_t)i;
    *ret = u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
    return true;
}

static uint32_t unit_base(uint32_t unit)
{
    return unit >> 10 << ((unit & 1u << 9) >> 6);
}

/* The longest prefix of s that the map replaces: its length, 0 if there is none, and the replacement. A unit holds the base
 * of its children (bits 10 to 30, bit 9 scales), whether a value follows (8) and its letter (0 to 7); a value has bit 31. */
static size_t find_replacement(const struct tokenizer *t, const char *s, size_t len, const char **ret, size_t *ret_len)
{
    size_t longest = 0;
    uint32_t unit, node, value = 0;
    if (!unit_at(t, 0, &unit))
        return 0;
    node = unit_base(unit);
    for (size_t i = 0; i < len && s[i] != '\0'; i++) {
        unsigned char c = (unsigned char)s[i];
        node ^= c;
        if (!unit_at(t, node, &unit) || (unit & (1u << 31 | 0xFF)) != c)
            break;
        node ^= unit_base(unit);
        if (unit & 1u << 8) {
            uint32_t leaf;
            if (!unit_at(t, node, &leaf))
                break;
            longest = i + 1;
            value = leaf & ~(1u << 31);
        }
    }
    size_t strings = 4 * t->charsmap_units;
    if (longest == 0 || value >= t->charsmap_len - strings)
        return 0;
    const char *replacement = (const char *)t->charsmap + strings + value;
    const char *end = memchr(replacement, '\0', t->charsmap_len - strings - value);
    if (!end)
        return 0;
    *ret = replacement;
    *ret_len = (size_t)(end - replacement);
    return longest;
}

struct normalizer {
    struct encoder *e;
    size_t n, max;
    bool space_before, in_word;
};

static int append(struct normalizer *z, const char *s, size_t len)
{
    struct encoder *e = z->e;
    if (mem_grow(&e->text, &e->cap_text, z->n + len, 1, z->max, "the normalized text", e->err) != 0)
        return -1;
    memcpy(e->text + z->n, s, len);
    z->n += len;
    return 0;
}

static int append_space(struct normalizer *z)
{
    return z->e->t->escape_spaces ? append(z, SPACE, 3) : append(z, " ", 1);
}

/* Appends what one step of the map gave, byte by byte: spaces are merged, or doubled, as the vocabulary asks. */
static int append_step(struct normalizer *z, const char *s, size_t len)
{
    const struct tokenizer *t = z->e->t;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == ' ') {
            z->in_word = false;
            if (!t->remove_extra_spaces && append_space(z) != 0)
                return -1;
            continue;
        }
        if (!z->in_word) {
            z->in_word = true;
            if ((t->add_space_prefix && !z->space_before) || t->remove_extra_spaces) {
                if (append_space(z) != 0)
                    return -1;
                z->space_before = true;
            }
        }
        if (append(z, s + i, 1) != 0)
            return -1;
    }
    return 0;
}

static int normalize(struct encoder *e, const char *text, size_t len, size_t *ret_len)
{
    struct normalizer z = {.e = e, .max = len * GROWTH_MAX + GROWTH_FREE};
    for (size_t i = 0; i < len;) {
        const char *s = text + i;
        size_t n, step = find_replacement(e->t, s, len - i, &s, &n);
        if (step == 0) {
            step = n = utf8_len(s, len - i);
            if (step == 0) {
                s = "\xEF\xBF\xBD";
                step = 1;
                n = 3;
            }
        }
        if (append_step(&z, s, n) != 0)
            return -1;
        i += step;
    }
    *ret_len = z.n;
    return 0;
}

/* --- Viterbi --------------------------------------------------------------------------------------------------------- */
/* Writes the best way from `start` to `end` and leaves the sum at the end as the new beginning. */
static int settle(struct encoder *e, size_t start, size_t end)
{
    struct unigram_best *best = e->best;
    size_t n = end - start;
    double score = best[n].score;
    /* best[i] says which token ends at i; turned round, it says which one begins there and where that ends. */
    struct unigram_best last = best[n];
    for (uint32_t to = (uint32_t)n; to > 0;) {
        uint32_t from = last.from;
        struct unigram_best turned = {.from = to, .id = last.id};
        last = best[from];
        best[from] = turned;
        to = from;
    }
    for (uint32_t i = 0; i < n; i = best[i].from) {
        int32_t id = best[i].id;
        bool unknown = id == e->t->unk;
        if (!(unknown && e->after_unknown) && id >= 0 && emit(e, id) != 0)
            return -1;
        e->after_unknown = unknown;
    }
    best[0] = (struct unigram_best){.score = score, .id = -1};
    return 0;
}

static int offer(struct encoder *e, size_t start, size_t from, size_t to, double score, int32_t id, size_t *reach)
{
    struct unigram_best *best;
    if (to > *reach) {
        if (mem_grow(&e->best, &e->cap_best, to - start + 1, sizeof *e->best, TOK_MAX_LIST, "ways to write a word", e->err) != 0)
            return -1;
        for (size_t i = *reach + 1; i <= to; i++)
            e->best[i - start] = (struct unigram_best){.score = -DBL_MAX, .id = -1};
        *reach = to;
    }
    best = &e->best[to - start];
    score += e->best[from - start].score;
    if (score > best->score)
        *best = (struct unigram_best){.score = score, .from = (uint32_t)(from - start), .id = id};
    return 0;
}

static int viterbi(struct encoder *e, const char *s, size_t len)
{
    const struct tokenizer *t = e->t;
    const struct vocab *v = &t->vocab;
    size_t start = 0, reach = 0, width;

    if (mem_grow(&e->best, &e->cap_best, 1, sizeof *e->best, TOK_MAX_LIST, "ways to write a word", e->err) != 0)
        return -1;
    e->best[0] = (struct unigram_best){.id = -1};
    e->after_unknown = false;
    for (size_t at = 0; at < len; at += width) {
        if (at > start && at == reach) {
            if (settle(e, start, at) != 0)
                return -1;
            start = at;
        }
        bool whole = false;
        width = utf8_len(s + at, len - at);
        width = width ? width : 1;
        for (size_t end = at, node = 0; end < len && (node = trie_child(&t->words, (uint32_t)node, (unsigned char)s[end++]));) {
            int32_t id = t->words.value[node];
            if (id < 0)
                continue;
            whole = whole || end - at == width;
            if (offer(e, start, at, end, v->attrs[id] & ATTR_USER ? 0.0 : (double)v->scores[id], id, &reach) != 0)
                return -1;
        }
        if (!whole && offer(e, start, at, at + width, (double)t->unknown_score, t->unk, &reach) != 0)
            return -1;
    }
    return len > start ? settle(e, start, len) : 0;
}

int unigram_encode(struct encoder *e, const char *text, size_t len)
{
    size_t n;
    return normalize(e, text, len, &n) == 0 ? viterbi(e, e->text, n) : -1;
}
