/* Prefix trees over a vocabulary's words. See tok.h.
 *
 * Built from sorted words in order of depth, so that a node's children are neighbours and four arrays hold everything. With
 * links it is an Aho–Corasick automaton: built backward and run from a text's end to its beginning, it knows at each byte
 * the longest word that begins there, in time linear in the text whatever the words. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

static unsigned char letter(const struct trie_word *w, uint32_t depth, bool backward)
{
    return (unsigned char)w->s[backward ? w->len - 1 - depth : depth];
}

static int compare(const void *a, const void *b)
{
    const struct trie_word *x = a, *y = b;
    size_t len = x->len < y->len ? x->len : y->len;
    int order = len ? memcmp(x->s, y->s, len) : 0;
    if (order == 0)
        order = x->len < y->len ? -1 : x->len > y->len;
    return order ? order : x->value < y->value ? -1 : x->value > y->value;
}

static int compare_backward(const void *a, const void *b)
{
    const struct trie_word *x = a, *y = b;
    for (uint32_t i = 0; i < x->len && i < y->len; i++)
        if (letter(x, i, true) != letter(y, i, true))
            return letter(x, i, true) < letter(y, i, true) ? -1 : 1;
    int order = x->len < y->len ? -1 : x->len > y->len;
    return order ? order : x->value < y->value ? -1 : x->value > y->value;
}

static size_t count_nodes(const struct trie_word *words, size_t n, bool backward)
{
    size_t nodes = 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t same = 0;
        if (i > 0)
            while (same < words[i].len && same < words[i - 1].len &&
                   letter(&words[i], same, backward) == letter(&words[i - 1], same, backward))
                same++;
        nodes += words[i].len - same;
    }
    return nodes;
}

/* Node by node: low and high bound the words that begin with it. */
static void fill(struct trie *t, const struct trie_word *words, bool backward, uint32_t *low, uint32_t *high)
{
    uint32_t next = 1, depth = 0, level_end = 1;
    for (uint32_t node = 0; node < t->n; node++) {
        if (node == level_end) {
            depth++;
            level_end = next;
        }
        uint32_t i = low[node];
        t->first[node] = next;
        t->value[node] = -1;
        for (; i < high[node] && words[i].len == depth; i++)
            t->value[node] = words[i].value;
        while (i < high[node]) {
            unsigned char c = letter(&words[i], depth, backward);
            low[next] = i;
            while (i < high[node] && letter(&words[i], depth, backward) == c)
                i++;
            high[next] = i;
            t->label[next++] = c;
        }
    }
    t->first[t->n] = next;
}

int trie_build(struct trie *t, struct trie_word *words, size_t n, bool backward, size_t max_nodes, const char *what, struct err *err)
{
    if (n)
        qsort(words, n, sizeof *words, backward ? compare_backward : compare);
    size_t nodes = count_nodes(words, n, backward);
    if (nodes > max_nodes)
        return err_set(err, ERR_LIMIT, "%s need %zu nodes, at most %zu are allowed", what, nodes, max_nodes);
    t->n = (uint32_t)nodes;
    t->first = mem_new(nodes + 1, sizeof *t->first, err);
    t->label = mem_new(nodes, 1, err);
    t->value = mem_new(nodes, sizeof *t->value, err);
    uint32_t *bounds = mem_new(nodes, 2 * sizeof *bounds, err);
    if (!t->first || !t->label || !t->value || !bounds) {
        free(bounds);
        return -1;
    }
    bounds[nodes] = (uint32_t)n;
    fill(t, words, backward, bounds, bounds + nodes);
    free(bounds);
    for (uint32_t i = t->first[0]; i < t->first[1]; i++)
        t->root[t->label[i]] = i;
    return 0;
}

uint32_t trie_child(const struct trie *t, uint32_t node, unsigned char c)
{
    if (node == 0)
        return t->root[c];
    uint32_t low = t->first[node], high = t->first[node + 1];
    while (high - low > 8) {
        uint32_t middle = low + (high - low) / 2;
        if (t->label[middle] <= c)
            low = middle;
        else
            high = middle;
    }
    for (; low < high; low++)
        if (t->label[low] == c)
            return low;
    return 0;
}

int trie_link(struct trie *t, struct err *err)
{
    t->link = mem_new(t->n, sizeof *t->link, err);
    t->out = mem_new(t->n, sizeof *t->out, err);
    if (!t->link || !t->out)
        return -1;
    for (uint32_t node = 0; node < t->n; node++) {
        for (uint32_t child = t->first[node]; child < t->first[node + 1]; child++) {
            uint32_t link = t->link[node], found = 0;
            if (node != 0) {
                while (!(found = trie_child(t, link, t->label[child])) && link)
                    link = t->link[link];
            }
            t->link[child] = found;
            t->out[child] = t->value[child] >= 0 ? child : t->out[found];
        }
    }
    return 0;
}

void trie_fini(struct trie *t)
{
    free(t->first);
    free(t->label);
    free(t->value);
    free(t->link);
    free(t->out);
    memset(t, 0, sizeof *t);
}
