/* SentencePiece's byte-pair encoding: any two neighbours whose text together is a token may merge, the one of the best score
 * first. See tok.h.
 *
 * Spaces are written ▁, and one is put before the text. Characters that are no token go by the <0xXX> tokens of their
 * bytes; so do bytes that are no UTF-8. Text is cut where no token holds both neighbours side by side, mostly before words;
 * each part is encoded for itself and remembered if it is short. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tok.h"

#define SPACE "\xE2\x96\x81"
enum { SPACE_NAME = 0xE29681 };

/* A byte that begins no character is one of its own. */
static size_t char_width(const char *s, size_t len)
{
    size_t width = utf8_len(s, len);
    return width ? width : 1;
}

static uint32_t char_name(const char *s, size_t width)
{
    uint32_t name = 0;
    if (*s == ' ')
        return SPACE_NAME;
    for (size_t i = 0; i < width; i++)
        name = name << 8 | (unsigned char)s[i];
    return name;
}

static bool may_merge_to(const struct vocab *v, uint32_t id)
{
    return !(v->attrs[id] & (ATTR_PARSED | ATTR_BYTE)) && v->at[id + 1] > v->at[id];
}

/* A score as a number that grows as the score falls. */
static uint32_t falling(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : 0x7FFFFFFFu - bits;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Tokens of equal score share a rank: then the place in the text decides. */
static int init_ranks(struct tokenizer *t, struct err *err)
{
    const struct vocab *v = &t->vocab;
    uint64_t *order = mem_new(v->n, sizeof *order, err);
    t->ranks = mem_new(v->n, sizeof *t->ranks, err);
    if (!order || !t->ranks) {
        free(order);
        return -1;
    }
    for (uint32_t id = 0; id < v->n; id++)
        order[id] = (uint64_t)falling(v->scores[id]) << 32 | id;
    qsort(order, v->n, sizeof *order, compare);
    uint32_t rank = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        uint32_t id = (uint32_t)order[i];
        rank += i > 0 && order[i] >> 32 != order[i - 1] >> 32;
        t->ranks[id] = may_merge_to(v, id) ? rank : TOK_NONE;
    }
    free(order);
    return 0;
}

int spm_init(struct tokenizer *t, struct err *err)
{
    const struct vocab *v = &t->vocab;
    if (init_ranks(t, err) != 0 || joins_init(&t->joins, v->n, err) != 0)
        return -1;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t len, width;
        const char *s = vocab_text(v, id, &len);
        if (!may_merge_to(v, id))
            continue;
        for (size_t i = 0, before = 0; i < len; before = i, i += width) {
            width = char_width(s + i, len - i);
            if (i > 0)
                joins_add(&t->joins, char_name(s + before, i - before), char_name(s + i, width));
        }
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        static const char hex[] = "0123456789ABCDEF";
        char name[6] = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'}, c = (char)byte;
        t->byte_ids[byte] = find_plain(t, name, sizeof name);
        if (t->byte_ids[byte] < 0)
            t->byte_ids[byte] = find_plain(t, &c, 1);
    }
    return 0;
}

static int32_t find_token(const struct tokenizer *t, const char *s, size_t len)
{
    int32_t id = vocab_find(&t->vocab, s, len);
    return id >= 0 && t->ranks[id] != TOK_NONE ? id : -1;
}

static uint32_t find_merge(const struct tokenizer *t, const char *text, const struct merge_node *left, const struct merge_node *right,
                           uint32_t end, int32_t *ret_result)
{
    (void)right;
    *ret_result = find_token(t, text + left->at, end - left->at);
    return *ret_result >= 0 ? t->ranks[*ret_result] : TOK_NONE;
}

/* A character that is no token: its bytes' tokens, or one unknown token where they are not all there. */
static int emit_bytes(struct encoder *e, const char *s, size_t len)
{
    const struct tokenizer *t = e->t;
    for (size_t i = 0; i < len; i++)
        if (t->byte_ids[(unsigned char)s[i]] < 0)
            return t->unk >= 0 ? emit(e, t->unk) : 0;
    for (size_t i = 0; i < len; i++)
        if (emit(e, t->byte_ids[(unsigned char)s[i]]) != 0)
            return -1;
    return 0;
}

/* One part, its spaces already written ▁. */
static int merge_part(struct encoder *e, const char *s, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0, width; i < len; i += width) {
        width = char_width(s + i, len - i);
        if (mem_grow(&e->nodes, &e->cap_nodes, (size_t)n + 1, sizeof *e->nodes, TOK_MAX_LIST, "characters of a word", e->err) != 0)
            return -1;
        e->nodes[n] = (struct merge_node){.prev = n ? n - 1 : TOK_NONE, .next = n + 1, .at = (uint32_t)i, .id = -1};
        n++;
    }
    e->nodes[n - 1].next = TOK_NONE;
    if (merge_nodes(e, s, n, (uint32_t)len, find_merge) != 0)
        return -1;
    for (uint32_t i = 0; i != TOK_NONE; i = e->nodes[i].next) {
        const struct merge_node *node = &e->nodes[i];
        size_t end = node->next == TOK_NONE ? len : e->nodes[node->next].at;
        int32_t id = node->id >= 0 ? node->id : find_token(e->t, s + node->at, end - node->at);
        if ((id >= 0 ? emit(e, id) : emit_bytes(e, s + node->at, end - node->at)) != 0)
            return -1;
    }
    return 0;
}

/* Writes the part's spaces ▁, behind one more if `first`. */
static int encode_part(struct encoder *e, const char *s, size_t len, bool first)
{
    size_t start = e->out->len, n = 0, need = 3 * (len + 1);
    int status;
    if (!first && words_find(e, s, len, &status))
        return status;
    if (mem_grow(&e->text, &e->cap_text, need, 1, TOK_MAX_LIST, "a part of the text", e->err) != 0)
        return -1;
    if (first) {
        memcpy(e->text, SPACE, 3);
        n = 3;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] != ' ') {
            e->text[n++] = s[i];
            continue;
        }
        memcpy(e->text + n, SPACE, 3);
        n += 3;
    }
    if (merge_part(e, e->text, n) != 0)
        return -1;
    if (!first)
        words_keep(e, s, len, start);
    return 0;
}

int spm_encode(struct encoder *e, const char *text, size_t len, bool first)
{
    uint32_t before = first ? SPACE_NAME : 0, name;
    size_t start = 0, width;
    for (size_t i = 0; i < len; i += width, before = name) {
        width = char_width(text + i, len - i);
        name = char_name(text + i, width);
        if ((i == 0 && !first) || joins_may(&e->t->joins, before, name))
            continue;
        if ((i > start || first) && encode_part(e, text + start, i - start, first) != 0)
            return -1;
        first = false;
        start = i;
    }
    return encode_part(e, text + start, len - start, first);
}
