/* RWKV's vocabularies: always the longest token. Spellings are escaped (\n, \x7f, \\). See tok.h. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t rwkv_unescape(const char *s, size_t len, char *buf)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '\\' && i + 1 < len) {
            c = s[++i];
            if (c == 'x' && i + 2 < len && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0) {
                c = (char)(hex_digit(s[i + 1]) << 4 | hex_digit(s[i + 2]));
                i += 2;
            } else {
                c = c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c;
            }
        }
        buf[n++] = c;
    }
    return n;
}

/* Runs after pieces_init: the tree is over what tokens stand for. */
int rwkv_init(struct tokenizer *t, struct err *err)
{
    const struct vocab *v = &t->vocab;
    struct trie_word *words = mem_new(v->n, sizeof *words, err);
    size_t n = 0;
    if (!words)
        return -1;
    for (uint32_t id = 0; id < v->n; id++) {
        uint32_t len = v->piece_at[id + 1] - v->piece_at[id];
        if (len && !(v->attrs[id] & ATTR_PARSED))
            words[n++] = (struct trie_word){.s = v->pieces + v->piece_at[id], .len = len, .value = (int32_t)id};
    }
    int status = trie_build(&t->words, words, n, false, TOK_MAX_TRIE_NODES, "tokens", err);
    free(words);
    return status;
}

int rwkv_encode(struct encoder *e, const char *text, size_t len)
{
    const struct trie *trie = &e->t->words;
    for (size_t at = 0, longest; at < len; at += longest) {
        int32_t id = e->t->unk;
        uint32_t node = 0;
        longest = 0;
        for (size_t i = at; i < len && (node = trie_child(trie, node, (unsigned char)text[i])); i++) {
            if (trie->value[node] >= 0) {
                id = trie->value[node];
                longest = i + 1 - at;
            }
        }
        longest = longest ? longest : 1;
        if (id >= 0 && emit(e, id) != 0)
            return -1;
    }
    return 0;
}
