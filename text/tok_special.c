/* Cutting a text at its special tokens. See tok.h.
 *
 * The rule (llama.cpp's): the longest tokens are taken first, wherever in the text they stand, each from left to right, out
 * of what longer ones left over. llama.cpp searches the text once for each special token; here one run of an automaton from
 * the text's end to its beginning finds the longest that begins at each byte. They are taken from a heap, longest and then
 * leftmost first; one that runs into a token taken before it comes back as the longest shorter one that still fits. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

enum {
    LEN_BITS = 11, /* of a heap entry: length (complemented), start, node */
    START_BITS = 27,
    NODE_BITS = 21,
    STEPS_PER_BYTE = 32, /* a text may take: vocabularies made to be slow end here */
    STEPS_FREE = 1 << 20,
};
_Static_assert(TOKEN_MAX_BYTES < 1 << LEN_BITS && TOKENIZER_MAX_TEXT_BYTES < 1 << START_BITS && TOK_MAX_SPECIAL_NODES < 1 << NODE_BITS &&
                   LEN_BITS + START_BITS + NODE_BITS <= 64,
               "a heap entry must hold them");

int specials_init(struct tokenizer *t, struct err *err)
{
    const struct vocab *v = &t->vocab;
    struct trie_word *words;
    size_t n = 0, len;

    for (uint32_t id = 0; id < v->n; id++)
        n += (v->attrs[id] & (ATTR_PARSED | ATTR_USER)) != 0;
    if (!(words = mem_new(n, sizeof *words, err)))
        return -1;
    n = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        const char *s = vocab_text(v, id, &len);
        if (!(v->attrs[id] & (ATTR_PARSED | ATTR_USER)) || len == 0)
            continue;
        words[n++] = (struct trie_word){.s = s, .len = (uint32_t)len, .value = (int32_t)id};
        t->any_user = t->any_user || !(v->attrs[id] & ATTR_PARSED);
    }
    int status = trie_build(&t->specials, words, n, true, TOK_MAX_SPECIAL_NODES, "special tokens", err);
    free(words);
    return status == 0 ? trie_link(&t->specials, err) : -1;
}

struct cutter {
    struct encoder *e;
    const struct trie *trie;
    const char *text;
    size_t len;
    const struct text_part *parts;
    size_t n_parts;
    unsigned char *taken; /* a byte each; NULL until the first token is found */
    uint64_t steps;
};

static int spend(struct cutter *c)
{
    if (++c->steps <= (uint64_t)c->len * STEPS_PER_BYTE + STEPS_FREE)
        return 0;
    return err_set(c->e->err, ERR_LIMIT, "the special tokens of this vocabulary overlap too much in this text of %zu bytes", c->len);
}

static size_t node_len(const struct cutter *c, uint32_t node)
{
    size_t len;
    vocab_text(&c->e->t->vocab, (uint32_t)c->trie->value[node], &len);
    return len;
}

/* The longest token from node on over links, no longer than `room`; control tokens no longer than `control_room`. */
static int longest(struct cutter *c, uint32_t node, size_t room, size_t control_room, uint32_t *ret)
{
    for (; node; node = c->trie->out[c->trie->link[node]]) {
        bool parsed = c->e->t->vocab.attrs[c->trie->value[node]] & ATTR_PARSED;
        if (node_len(c, node) <= (parsed && control_room < room ? control_room : room))
            break;
        if (spend(c) != 0)
            return -1;
    }
    *ret = node;
    return 0;
}

static int push(struct cutter *c, uint32_t node, size_t start)
{
    uint64_t shorter = TOKEN_MAX_BYTES - node_len(c, node);
    return tok_heap_push(c->e, shorter << (START_BITS + NODE_BITS) | (uint64_t)start << NODE_BITS | node);
}

/* Runs the automaton from the end to the beginning and puts the longest token at each byte on the heap. */
static int find_all(struct cutter *c)
{
    const struct text_part *parts = c->parts;
    const struct trie *trie = c->trie;
    uint32_t state = 0, node;
    size_t special_end = 0; /* end of the run of special parts that byte i lies in */

    c->e->n_heap = 0;
    for (size_t part = c->n_parts; part-- > 0;) {
        size_t start = part ? parts[part - 1].end : 0;
        if (parts[part].special && (part + 1 == c->n_parts || !parts[part + 1].special))
            special_end = parts[part].end;
        for (size_t i = parts[part].end; i-- > start;) {
            unsigned char byte = (unsigned char)c->text[i];
            uint32_t child;
            while (!(child = trie_child(trie, state, byte)) && state)
                state = trie->link[state];
            state = child;
            if (!trie->out[state])
                continue;
            if (longest(c, trie->out[state], c->len - i, parts[part].special ? special_end - i : 0, &node) != 0 ||
                (node && push(c, node, i) != 0))
                return -1;
        }
    }
    return 0;
}

/* How many bytes from start on lie in special parts without a break, as far as that matters to a token. */
static size_t special_room(const struct cutter *c, size_t start)
{
    size_t low = 0, high = c->n_parts - 1;
    while (low < high) { /* the first part that ends behind start */
        size_t middle = low + (high - low) / 2;
        if (c->parts[middle].end > start)
            high = middle;
        else
            low = middle + 1;
    }
    size_t end = start;
    for (; low < c->n_parts && c->parts[low].special && end < start + TOKEN_MAX_BYTES; low++)
        end = c->parts[low].end;
    return end - start;
}

static int add_fragment(struct encoder *e, size_t start, size_t end, int32_t id)
{
    if (mem_grow(&e->fragments, &e->cap_fragments, e->n_fragments + 1, sizeof *e->fragments, TOK_MAX_LIST, "special tokens", e->err) != 0)
        return -1;
    e->fragments[e->n_fragments++] = (struct fragment){.start = (uint32_t)start, .end = (uint32_t)end, .id = id};
    return 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Takes a token, and with it the white space around it if it is of that kind. */
static int take(struct cutter *c, size_t start, size_t len, int32_t id)
{
    uint16_t attrs = c->e->t->vocab.attrs[id];
    size_t from = start, to = start + len;
    if (attrs & ATTR_LSTRIP)
        while (from > 0 && !c->taken[from - 1] && is_space(c->text[from - 1]))
            from--;
    if (attrs & ATTR_RSTRIP)
        while (to < c->len && !c->taken[to] && is_space(c->text[to]))
            to++;
    memset(c->taken + from, 1, to - from);
    return add_fragment(c->e, from, to, id);
}

static int take_all(struct cutter *c)
{
    struct encoder *e = c->e;
    if (!(c->taken = mem_new(c->len, 1, e->err)))
        return -1;
    while (e->n_heap > 0) {
        uint64_t top = tok_heap_pop(e);
        uint32_t node = top & ((1 << NODE_BITS) - 1);
        size_t start = top >> NODE_BITS & ((1 << START_BITS) - 1), len = node_len(c, node), room = 0;
        while (room < len && !c->taken[start + room])
            room++;
        c->steps += room / 8;
        if (spend(c) != 0)
            return -1;
        if (room == len) {
            if (take(c, start, len, c->trie->value[node]) != 0)
                return -1;
            continue;
        }
        uint32_t rest = c->trie->out[c->trie->link[node]];
        if (room == 0 || !rest)
            continue;
        if (longest(c, rest, room, special_room(c, start), &rest) != 0 || (rest && push(c, rest, start) != 0))
            return -1;
    }
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const struct fragment *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* The tokens stand in fragments as they were taken: sorts them and puts the plain text between them. */
static int fill_gaps(struct cutter *c)
{
    struct encoder *e = c->e;
    size_t n = e->n_fragments, at = 0;
    qsort(e->fragments, n, sizeof *e->fragments, by_start);
    for (size_t i = 0; i < n; i++) {
        struct fragment token = e->fragments[i];
        if (token.start > at && add_fragment(e, at, token.start, -1) != 0)
            return -1;
        at = token.end;
    }
    if (at < c->len && add_fragment(e, at, c->len, -1) != 0)
        return -1;
    qsort(e->fragments, e->n_fragments, sizeof *e->fragments, by_start);
    return 0;
}

int specials_cut(struct encoder *e, const char *text, const struct text_part *parts, size_t n_parts)
{
    struct cutter c = {.e = e, .trie = &e->t->specials, .text = text, .parts = parts, .n_parts = n_parts};
    bool any_special = false;
    int status = 0;

    e->n_fragments = 0;
    c.len = n_parts ? parts[n_parts - 1].end : 0;
    if (c.len == 0)
        return 0;
    for (size_t i = 0; i < n_parts; i++)
        any_special = any_special || parts[i].special;
    if (any_special || e->t->any_user) {
        status = find_all(&c);
        if (status == 0 && e->n_heap > 0) {
            status = take_all(&c);
            if (status == 0)
                status = fill_gaps(&c);
            free(c.taken);
            return status;
        }
    }
    return status == 0 ? add_fragment(e, 0, c.len, -1) : -1;
}
