/* Merging neighbours by rank: what byte-pair encoding and SentencePiece have in common. See tok.h.
 *
 * Few symbols are merged by looking through all of them, many by a heap, whose entries are rank and position in one number:
 * an entry that is out of date is one whose rank is no longer its node's. Both take the least rank and of equal ones the
 * leftmost, so they agree. Time is n log n. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

enum { FEW_NODES = 24 };

int joins_init(struct joins *j, size_t n_pairs, struct err *err)
{
    size_t bits = 1 << 12;
    while (bits < n_pairs * 8 && bits < 1 << 24)
        bits *= 2;
    j->mask = (uint32_t)(bits - 1);
    j->bits = mem_new(bits / 64, sizeof *j->bits, err);
    return j->bits ? 0 : -1;
}

void joins_fini(struct joins *j)
{
    free(j->bits);
    j->bits = NULL;
}

int tok_heap_push(struct encoder *e, uint64_t value)
{
    if (mem_grow(&e->heap, &e->cap_heap, e->n_heap + 1, sizeof *e->heap, TOK_MAX_LIST, "merges of one word", e->err) != 0)
        return -1;
    size_t i = e->n_heap++;
    for (; i > 0 && e->heap[(i - 1) / 2] > value; i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = value;
    return 0;
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t value = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= value)
            break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

uint64_t tok_heap_pop(struct encoder *e)
{
    uint64_t top = e->heap[0];
    e->heap[0] = e->heap[--e->n_heap];
    if (e->n_heap > 0)
        sift_down(e->heap, e->n_heap, 0);
    return top;
}

struct merger {
    struct encoder *e;
    const char *text;
    uint32_t end;
    merge_fn fn;
};

/* Looks up the merge of node i with the next one. */
static void rank_pair(const struct merger *m, uint32_t i)
{
    struct merge_node *nodes = m->e->nodes, *left = &nodes[i];
    left->rank = TOK_NONE;
    if (left->next == TOK_NONE)
        return;
    struct merge_node *right = &nodes[left->next];
    uint32_t end = right->next == TOK_NONE ? m->end : nodes[right->next].at;
    left->rank = m->fn(m->e->t, m->text, left, right, end, &left->result);
}

/* Node i takes its right neighbour in; the pairs on both sides are new. */
static void merge(const struct merger *m, uint32_t i)
{
    struct merge_node *nodes = m->e->nodes, *left = &nodes[i], *right = &nodes[left->next];
    left->id = left->result;
    right->rank = TOK_NONE;
    left->next = right->next;
    if (left->next != TOK_NONE)
        nodes[left->next].prev = i;
    rank_pair(m, i);
    if (left->prev != TOK_NONE)
        rank_pair(m, left->prev);
}

static void merge_few(const struct merger *m)
{
    const struct merge_node *nodes = m->e->nodes;
    for (;;) {
        uint32_t best = TOK_NONE, least = TOK_NONE;
        for (uint32_t i = 0; i != TOK_NONE; i = nodes[i].next) {
            if (nodes[i].rank < least) {
                least = nodes[i].rank;
                best = i;
            }
        }
        if (best == TOK_NONE)
            return;
        merge(m, best);
    }
}

static int push_pair(const struct merger *m, uint32_t i)
{
    uint32_t rank = m->e->nodes[i].rank;
    return rank == TOK_NONE ? 0 : tok_heap_push(m->e, (uint64_t)rank << 32 | i);
}

static int merge_many(const struct merger *m, uint32_t n)
{
    struct encoder *e = m->e;
    if (mem_grow(&e->heap, &e->cap_heap, n, sizeof *e->heap, TOK_MAX_LIST, "merges of one word", e->err) != 0)
        return -1;
    e->n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        if (e->nodes[i].rank != TOK_NONE)
            e->heap[e->n_heap++] = (uint64_t)e->nodes[i].rank << 32 | i;
    for (size_t i = e->n_heap / 2; i-- > 0;)
        sift_down(e->heap, e->n_heap, i);
    while (e->n_heap > 0) {
        uint64_t top = tok_heap_pop(e);
        uint32_t i = (uint32_t)top;
        if (e->nodes[i].rank != top >> 32)
            continue;
        merge(m, i);
        if (push_pair(m, i) != 0 || (e->nodes[i].prev != TOK_NONE && push_pair(m, e->nodes[i].prev) != 0))
            return -1;
    }
    return 0;
}

int merge_nodes(struct encoder *e, const char *text, uint32_t n, uint32_t end, merge_fn fn)
{
    struct merger m = {.e = e, .text = text, .end = end, .fn = fn};
    for (uint32_t i = 0; i < n; i++)
        rank_pair(&m, i);
    if (n > FEW_NODES)
        return merge_many(&m, n);
    merge_few(&m);
    return 0;
}
