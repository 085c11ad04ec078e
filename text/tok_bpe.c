/* Byte-pair encoding: words of bytes, or in some vocabularies of characters, merged by the file's list. See tok.h.
 *
 * Merges stand in a table by the ids of both sides. A merge whose sides or result are no tokens can never matter and is
 * left out; so is one that would make a control token, which plain text must never become. A word is first looked up among
 * the words of this call, then cut where no merge can reach across, so that even a megabyte without a space is a row of
 * short problems. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tok.h"

enum { BYTE_PAIRS = 1 << 15 }; /* neighbouring bytes that occur in vocabularies, more or less */

/* Bytes that look like themselves; the 68 others are U+0100 on, in order. */
static bool is_plain(unsigned c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || c >= 0xAE;
}

size_t byte_char(unsigned char byte, char buf[2])
{
    uint32_t c = byte;
    char out[4];
    if (!is_plain(byte))
        c = 0x100 + (byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7F + 0x21 : 0x43);
    size_t len = utf8_encode(c, out);
    memcpy(buf, out, len);
    return len;
}

int char_byte(uint32_t c)
{
    if (c < 0x100)
        return is_plain(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

/* --- the table of merges --------------------------------------------------------------------------------------------- */
static uint32_t merge_at(const struct merges *m, uint32_t left, uint32_t right)
{
    uint32_t i = (uint32_t)mix64((uint64_t)left << 32 | right, m->seed) & m->mask;
    while (m->slots[i].left != TOK_NONE && (m->slots[i].left != left || m->slots[i].right != right))
        i = (i + 1) & m->mask;
    return i;
}

static uint32_t find_merge(const struct tokenizer *t, const char *text, const struct merge_node *left, const struct merge_node *right,
                           uint32_t end, int32_t *ret_result)
{
    (void)text, (void)end;
    if (left->id < 0 || right->id < 0)
        return TOK_NONE;
    const struct merge_slot *slot = &t->merges.slots[merge_at(&t->merges, (uint32_t)left->id, (uint32_t)right->id)];
    if (slot->left == TOK_NONE)
        return TOK_NONE;
    *ret_result = (int32_t)slot->result;
    return slot->rank;
}

/* A name for a character that joins are kept by: its bytes. */
static uint32_t char_name(const char *s, size_t len)
{
    uint32_t name = 0;
    for (size_t i = 0; i < len && i < 4; i++)
        name = name << 8 | (unsigned char)s[i];
    return name;
}

/* Names the characters on both sides of the border between two halves. */
static void add_join(struct tokenizer *t, const char *left, size_t left_len, const char *right, size_t right_len)
{
    size_t last = left_len - 1;
    while (last > 0 && left_len - last < 4 && ((unsigned char)left[last] & 0xC0) == 0x80)
        last--;
    size_t first_len = utf8_len(right, right_len);
    joins_add(&t->joins, char_name(left + last, left_len - last), char_name(right, first_len ? first_len : 1));
}

static int load_merge(struct tokenizer *t, const struct gguf_str *row, uint32_t rank)
{
    struct vocab *v = &t->vocab;
    const char *space = row->len > 1 ? memchr(row->s + 1, ' ', row->len - 1) : NULL;
    char both[2 * TOKEN_MAX_BYTES];
    if (!space)
        return 0;
    size_t left_len = (size_t)(space - row->s), right_len = row->len - left_len - 1;
    if (right_len == 0 || left_len > v->max_len || right_len > v->max_len)
        return 0;
    int32_t left = vocab_find(v, row->s, left_len), right = vocab_find(v, space + 1, right_len);
    if (left < 0 || right < 0)
        return 0;
    memcpy(both, row->s, left_len);
    memcpy(both + left_len, space + 1, right_len);
    int32_t result = find_plain(t, both, left_len + right_len);
    if (result < 0)
        return 0;
    struct merge_slot *slot = &t->merges.slots[merge_at(&t->merges, (uint32_t)left, (uint32_t)right)];
    if (slot->left != TOK_NONE)
        return 0; /* the first of equal merges counts */
    *slot = (struct merge_slot){.left = (uint32_t)left, .right = (uint32_t)right, .rank = rank, .result = (uint32_t)result};
    add_join(t, row->s, left_len, space + 1, right_len);
    return 1;
}

static int load_merges(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct gguf_array rows = {.count = 0};
    size_t n_slots = 16;
    int found = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &rows, err);
    if (found < 0)
        return -1;
    if (found == 0 && !(t->pre->flags & PRE_NO_MERGES))
        return err_set(err, ERR_INPUT, "tokenizer.ggml.merges is missing");
    if (rows.count > TOK_MAX_MERGES)
        return err_set(err, ERR_LIMIT, "tokenizer.ggml.merges has %llu items, at most %d are allowed", (unsigned long long)rows.count,
                       TOK_MAX_MERGES);
    while (n_slots < rows.count * 3 / 2)
        n_slots *= 2;
    t->merges.mask = (uint32_t)(n_slots - 1);
    t->merges.seed = t->vocab.seed;
    if (!(t->merges.slots = mem_new(n_slots, sizeof *t->merges.slots, err)) ||
        joins_init(&t->joins, t->pre->flags & PRE_RAW ? (size_t)rows.count : BYTE_PAIRS, err) != 0)
        return -1;
    for (size_t i = 0; i < n_slots; i++)
        t->merges.slots[i].left = TOK_NONE;
    for (uint64_t i = 0; i < rows.count; i++)
        load_merge(t, &rows.strings[i], (uint32_t)i);
    return 0;
}

int bpe_init(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        static const char hex[] = "0123456789ABCDEF";
        char name[6] = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'}, c[2];
        t->byte_ids[byte] =
            t->pre->flags & PRE_RAW ? find_plain(t, name, sizeof name) : find_plain(t, c, byte_char((unsigned char)byte, c));
    }
    return load_merges(t, g, err) == 0 ? splitter_init(&t->splitter, t->pre, err) : -1;
}

/* --- encoding -------------------------------------------------------------------------------------------------------- */
/* What is left of a word: tokens, and characters that are none, which go by their bytes' tokens or not at all. */
static int emit_nodes(struct encoder *e, const char *text, uint32_t end)
{
    const struct tokenizer *t = e->t;
    for (uint32_t i = 0; i != TOK_NONE; i = e->nodes[i].next) {
        const struct merge_node *node = &e->nodes[i];
        if (node->id >= 0) {
            if (emit(e, node->id) != 0)
                return -1;
            continue;
        }
        uint32_t node_end = node->next == TOK_NONE ? end : e->nodes[node->next].at;
        bool known = false;
        for (uint32_t at = node->at; t->pre->flags & PRE_RAW && at < node_end; at++) {
            int32_t id = t->byte_ids[(unsigned char)text[at]];
            known = known || id >= 0;
            if (id >= 0 && emit(e, id) != 0)
                return -1;
        }
        if (!known && t->unk >= 0 && emit(e, t->unk) != 0)
            return -1;
    }
    return 0;
}

/* Merges a part of a word that no merge reaches out of. */
static int merge_part(struct encoder *e, const char *s, size_t len)
{
    const struct tokenizer *t = e->t;
    bool raw = t->pre->flags & PRE_RAW;
    uint32_t n = 0;
    for (size_t i = 0, width; i < len; i += width) {
        width = raw ? utf8_len(s + i, len - i) : 1;
        if (mem_grow(&e->nodes, &e->cap_nodes, (size_t)n + 1, sizeof *e->nodes, TOK_MAX_LIST, "characters of a word", e->err) != 0)
            return -1;
        e->nodes[n] = (struct merge_node){
            .prev = n ? n - 1 : TOK_NONE,
            .next = n + 1,
            .at = (uint32_t)i,
            .id = raw ? find_plain(t, s + i, width) : t->byte_ids[(unsigned char)s[i]],
        };
        n++;
    }
    e->nodes[n - 1].next = TOK_NONE;
    return merge_nodes(e, s, n, (uint32_t)len, find_merge) == 0 ? emit_nodes(e, s, (uint32_t)len) : -1;
}

/* A word of a raw vocabulary is a whole line: there the parts are what repeats. */
static int encode_part(struct encoder *e, const char *s, size_t len)
{
    size_t first = e->out->len;
    int status;
    if (!(e->t->pre->flags & PRE_RAW))
        return merge_part(e, s, len);
    if (words_find(e, s, len, &status))
        return status;
    if (merge_part(e, s, len) != 0)
        return -1;
    words_keep(e, s, len, first);
    return 0;
}

static int merge_word(struct encoder *e, const char *s, size_t len)
{
    const struct tokenizer *t = e->t;
    bool raw = t->pre->flags & PRE_RAW;
    uint32_t before = 0;
    size_t start = 0, width;

    for (size_t i = 0; i < len; i += width) {
        char c[2];
        width = raw ? utf8_len(s + i, len - i) : 1;
        size_t n = raw ? width : byte_char((unsigned char)s[i], c);
        uint32_t name = char_name(raw ? s + i : c, n);
        if (i > start && !joins_may(&t->joins, before, name)) {
            if (encode_part(e, s + start, i - start) != 0)
                return -1;
            start = i;
        }
        before = name;
    }
    return encode_part(e, s + start, len - start);
}

/* The token that is the whole word, -1 if there is none. */
static int32_t whole_word(const struct tokenizer *t, const char *s, size_t len)
{
    char spelled[TOKEN_MAX_BYTES + 2];
    size_t n = 0;
    if (len > t->vocab.max_len)
        return -1;
    if (t->pre->flags & PRE_RAW) {
        n = len;
        memcpy(spelled, s, len);
    } else {
        for (size_t i = 0; i < len && n <= TOKEN_MAX_BYTES; i++)
            n += byte_char((unsigned char)s[i], spelled + n);
    }
    return find_plain(t, spelled, n);
}

static int encode_word(struct encoder *e, const char *s, size_t len)
{
    unsigned flags = e->t->pre->flags;
    size_t first = e->out->len;
    int status;
    if (words_find(e, s, len, &status))
        return status;
    int32_t whole = -1;
    if (flags & PRE_IGNORE_MERGES || (flags & PRE_NEWLINES && s[0] == '\n'))
        whole = whole_word(e->t, s, len);
    if ((whole >= 0 ? emit(e, whole) : merge_word(e, s, len)) != 0)
        return -1;
    words_keep(e, s, len, first);
    return 0;
}

int bpe_encode(struct encoder *e, const char *text, size_t len)
{
    size_t n;
    const char *s = rewrite_text(e, text, len, e->t->escape_spaces, &n);
    return s ? split_words(e, s, n, encode_word) : -1;
}
