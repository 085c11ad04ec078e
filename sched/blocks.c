/* See blocks.h. Two indexes, both chained hash tables over nodes: by the hash of all tokens up to the node's end, for whole
 * blocks, and by the hash before the node, for the copy of a block that is shared in part. The hash is SipHash-2-4 with 128
 * bits under a secret key: nobody can make two texts collide, so tokens are not compared again. */
#include "sched/blocks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { BY_HASH, BY_PARENT, MAX_CANDIDATES = 16 };

/* --- hash ---------------------------------------------------------------------------------------------------------------- */

static uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

static void sip_begin(const struct blocks *b, uint64_t v[4])
{
    v[0] = b->key[0] ^ 0x736f6d6570736575;
    v[1] = b->key[1] ^ 0x646f72616e646f6d ^ 0xee;
    v[2] = b->key[0] ^ 0x6c7967656e657261;
    v[3] = b->key[1] ^ 0x7465646279746573;
}

static struct hash128 sip_end(uint64_t v[4], uint64_t n_words)
{
    struct hash128 h;
    sip_word(v, n_words << 59); /* the length, modulo 256 bytes, in the last word's top byte */
    v[2] ^= 0xee;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    h.a = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    h.b = v[0] ^ v[1] ^ v[2] ^ v[3];
    return h;
}

struct hash128 blocks_root(const struct blocks *b, uint64_t salt)
{
    uint64_t v[4];
    sip_begin(b, v);
    sip_word(v, salt);
    return sip_end(v, 1);
}

struct hash128 blocks_chain(const struct blocks *b, struct hash128 parent, const int32_t *tokens)
{
    uint64_t v[4], n = 2;
    sip_begin(b, v);
    sip_word(v, parent.a);
    sip_word(v, parent.b);
    for (uint32_t i = 0; i < b->block; i += 2, n++)
        sip_word(v, (uint32_t)tokens[i] | (i + 1 < b->block ? (uint64_t)(uint32_t)tokens[i + 1] << 32 : 0));
    return sip_end(v, n);
}

static bool same(struct hash128 x, struct hash128 y)
{
    return x.a == y.a && x.b == y.b;
}

/* --- the indexes --------------------------------------------------------------------------------------------------------- */

static struct hash128 index_key(const struct node *n, int index)
{
    return index == BY_HASH ? n->hash : n->parent;
}

static void index_add(struct blocks *b, int index, uint32_t id)
{
    struct node *n = &b->nodes[id];
    uint32_t *head = &b->heads[index][index_key(n, index).a & b->mask];
    if (n->indexed[index])
        return;
    n->indexed[index] = true;
    n->prev[index] = BLOCKS_NONE;
    n->next[index] = *head;
    if (*head != BLOCKS_NONE)
        b->nodes[*head].prev[index] = id;
    *head = id;
}

static void index_remove(struct blocks *b, int index, uint32_t id)
{
    struct node *n = &b->nodes[id];
    if (!n->indexed[index])
        return;
    n->indexed[index] = false;
    if (n->prev[index] != BLOCKS_NONE)
        b->nodes[n->prev[index]].next[index] = n->next[index];
    else
        b->heads[index][index_key(n, index).a & b->mask] = n->next[index];
    if (n->next[index] != BLOCKS_NONE)
        b->nodes[n->next[index]].prev[index] = n->prev[index];
}

uint32_t blocks_find(const struct blocks *b, struct hash128 hash)
{
    uint32_t id = b->heads[BY_HASH][hash.a & b->mask];
    while (id != BLOCKS_NONE && !same(b->nodes[id].hash, hash))
        id = b->nodes[id].next[BY_HASH];
    return id;
}

bool blocks_slides(const struct blocks *b, uint32_t node)
{
    return !blocks_has(b, SCHED_SLIDING) || (b->nodes[node].block[SCHED_SLIDING] != BLOCKS_NONE && !b->nodes[node].temp);
}

static uint32_t common_tokens(const int32_t *x, const int32_t *y, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && x[i] == y[i])
        i++;
    return i;
}

uint32_t blocks_partial(const struct blocks *b, struct hash128 parent, const int32_t *tokens, uint32_t n, uint64_t batch, uint64_t age,
                        uint32_t *ret_common, uint32_t *ret_soon)
{
    uint32_t best = BLOCKS_NONE;
    int left = MAX_CANDIDATES;
    *ret_common = *ret_soon = 0;
    for (uint32_t id = b->heads[BY_PARENT][parent.a & b->mask]; id != BLOCKS_NONE && left > 0; id = b->nodes[id].next[BY_PARENT]) {
        const struct node *k = &b->nodes[id];
        uint32_t written = k->last_batch == batch ? k->n_before : k->n_tok, common;
        if (!same(k->parent, parent))
            continue;
        left--;
        if (!blocks_slides(b, id))
            continue;
        common = common_tokens(b->tokens + (size_t)id * b->block, tokens, n < k->n_tok ? n : k->n_tok);
        if (k->owner < age && common > *ret_soon)
            *ret_soon = common;
        common = common < written ? common : written;
        if (common > *ret_common) {
            *ret_common = common;
            best = id;
        }
    }
    return best;
}

/* --- nodes and blocks ---------------------------------------------------------------------------------------------------- */

static void lru_remove(struct blocks *b, int g, uint32_t id)
{
    struct block *k = &b->blocks[g][id];
    if (k->lru_prev != BLOCKS_NONE)
        b->blocks[g][k->lru_prev].lru_next = k->lru_next;
    else
        b->lru_head[g] = k->lru_next;
    if (k->lru_next != BLOCKS_NONE)
        b->blocks[g][k->lru_next].lru_prev = k->lru_prev;
    else
        b->lru_tail[g] = k->lru_prev;
    b->n_lru[g]--;
}

static void lru_add(struct blocks *b, int g, uint32_t id)
{
    struct block *k = &b->blocks[g][id];
    k->lru_next = BLOCKS_NONE;
    k->lru_prev = b->lru_tail[g];
    if (k->lru_prev != BLOCKS_NONE)
        b->blocks[g][k->lru_prev].lru_next = id;
    else
        b->lru_head[g] = id;
    b->lru_tail[g] = id;
    b->n_lru[g]++;
}

static void node_free(struct blocks *b, uint32_t id)
{
    struct node *n = &b->nodes[id];
    assert(n->alive);
    index_remove(b, BY_HASH, id);
    index_remove(b, BY_PARENT, id);
    n->alive = false;
    n->next[0] = b->free_node;
    b->free_node = id;
}

/* Takes an unheld block out of its node and the LRU list; it is nobody's then. A node is worth nothing without its full block,
 * nor, where there is no full group, without its sliding one. */
static void drop_block(struct blocks *b, int g, uint32_t id)
{
    uint32_t node = b->blocks[g][id].node;
    struct node *n = &b->nodes[node];
    assert(b->blocks[g][id].ref == 0 && n->alive && n->block[g] == id);
    lru_remove(b, g, id);
    n->block[g] = BLOCKS_NONE;
    n->temp = n->temp && g != SCHED_SLIDING;
    if (g == SCHED_FULL && n->block[SCHED_SLIDING] != BLOCKS_NONE) {
        uint32_t other = n->block[SCHED_SLIDING];
        assert(b->blocks[SCHED_SLIDING][other].ref == 0); /* who holds it holds the full one too */
        lru_remove(b, SCHED_SLIDING, other);
        n->block[SCHED_SLIDING] = BLOCKS_NONE;
        b->free_ids[SCHED_SLIDING][b->n_free[SCHED_SLIDING]++] = other;
    }
    if (g == SCHED_FULL || !b->n_blocks[SCHED_FULL])
        node_free(b, node);
}

static void drop_to_free(struct blocks *b, int g, uint32_t id)
{
    drop_block(b, g, id);
    b->free_ids[g][b->n_free[g]++] = id;
}

static uint32_t take_block(struct blocks *b, int g, uint32_t node)
{
    uint32_t id;
    if (b->n_free[g] > 0) {
        id = b->free_ids[g][--b->n_free[g]];
    } else {
        id = b->lru_head[g];
        drop_block(b, g, id);
    }
    b->blocks[g][id] = (struct block){.node = node, .ref = 1};
    b->nodes[node].block[g] = id;
    return id;
}

static void hold(struct blocks *b, int g, uint32_t id)
{
    if (b->blocks[g][id].ref++ == 0)
        lru_remove(b, g, id);
}

/* What nobody can find again is free at once, the rest is cache. */
static void let_go(struct blocks *b, int g, uint32_t id)
{
    struct node *n = &b->nodes[b->blocks[g][id].node];
    assert(b->blocks[g][id].ref > 0);
    if (--b->blocks[g][id].ref > 0)
        return;
    lru_add(b, g, id);
    if ((!n->indexed[BY_HASH] && !n->indexed[BY_PARENT]) || n->n_tok == 0 || (g == SCHED_SLIDING && n->temp))
        drop_to_free(b, g, id);
}

static uint32_t node_new(struct blocks *b, struct hash128 parent)
{
    uint32_t id = b->free_node;
    assert(id != BLOCKS_NONE); /* every other node has a block */
    b->free_node = b->nodes[id].next[0];
    b->nodes[id] = (struct node){.parent = parent, .block = {BLOCKS_NONE, BLOCKS_NONE}, .owner = UINT64_MAX, .alive = true};
    return id;
}

/* --- the pool ------------------------------------------------------------------------------------------------------------ */

int blocks_init(struct blocks *b, const struct sched_config *c, struct err *err)
{
    uint32_t n_heads = 16;
    memset(b, 0, sizeof *b);
    b->block = c->block;
    b->window = c->window;
    b->key[0] = c->seed;
    b->key[1] = c->seed * 0x9e3779b97f4a7c15 + 0x5bf03635;
    b->n_nodes = c->n_blocks[0] + c->n_blocks[1] + 1; /* a new node is made before it takes blocks from an old one */
    while (n_heads < b->n_nodes)
        n_heads *= 2;
    b->mask = n_heads - 1;
    for (int g = 0; g < SCHED_GROUPS; g++)
        if (!(b->blocks[g] = mem_new(c->n_blocks[g], sizeof *b->blocks[g], err)) ||
            !(b->free_ids[g] = mem_new(c->n_blocks[g], sizeof *b->free_ids[g], err)))
            goto error;
    for (int i = 0; i < 2; i++)
        if (!(b->heads[i] = mem_new(n_heads, sizeof *b->heads[i], err)))
            goto error;
    if (!(b->nodes = mem_new(b->n_nodes, sizeof *b->nodes, err)) ||
        !(b->tokens = mem_new(b->n_nodes, (size_t)b->block * sizeof *b->tokens, err)))
        goto error;
    blocks_clear(b, c->n_blocks);
    return 0;
error:
    blocks_fini(b);
    return -1;
}

void blocks_fini(struct blocks *b)
{
    for (int g = 0; g < SCHED_GROUPS; g++) {
        free(b->blocks[g]);
        free(b->free_ids[g]);
        free(b->heads[g]);
    }
    free(b->nodes);
    free(b->tokens);
    memset(b, 0, sizeof *b);
}

void blocks_clear(struct blocks *b, const uint32_t n_blocks[SCHED_GROUPS])
{
    for (int g = 0; g < SCHED_GROUPS; g++) {
        b->n_blocks[g] = n_blocks[g];
        b->n_free[g] = b->n_lru[g] = 0;
        b->lru_head[g] = b->lru_tail[g] = BLOCKS_NONE;
        for (uint32_t i = n_blocks[g]; i > 0; i--)
            b->free_ids[g][b->n_free[g]++] = i - 1;
    }
    for (int i = 0; i < 2; i++)
        memset(b->heads[i], 0xff, ((size_t)b->mask + 1) * sizeof *b->heads[i]);
    b->free_node = BLOCKS_NONE;
    for (uint32_t i = b->n_nodes; i > 0; i--) {
        b->nodes[i - 1] = (struct node){.next = {b->free_node}};
        b->free_node = i - 1;
    }
}

uint32_t blocks_available(const struct blocks *b, int group)
{
    return b->n_free[group] + b->n_lru[group];
}

bool blocks_has(const struct blocks *b, int group)
{
    return b->n_blocks[group] > 0;
}

uint32_t blocks_window_from(const struct blocks *b, uint32_t pos)
{
    return pos < b->window ? 0 : (pos - b->window + 1) / b->block;
}

/* --- tables -------------------------------------------------------------------------------------------------------------- */

void blocks_attach(struct blocks *b, struct table *t, uint32_t node, bool sliding)
{
    assert(t->n < t->cap);
    if (node != BLOCKS_NONE && blocks_has(b, SCHED_FULL))
        hold(b, SCHED_FULL, b->nodes[node].block[SCHED_FULL]);
    if (blocks_has(b, SCHED_SLIDING)) {
        if (sliding)
            hold(b, SCHED_SLIDING, b->nodes[node].block[SCHED_SLIDING]);
        else
            t->slide_from = t->n + 1;
        if (!sliding && !blocks_has(b, SCHED_FULL))
            node = BLOCKS_NONE;
    }
    t->nodes[t->n++] = node;
}

bool blocks_grow(struct blocks *b, struct table *t, struct hash128 parent, const struct hash128 *hash, bool share)
{
    uint32_t id, other;
    assert(t->n < t->cap);
    for (int g = 0; g < SCHED_GROUPS; g++)
        if (blocks_has(b, g) && blocks_available(b, g) == 0)
            return false;
    id = node_new(b, parent);
    for (int g = 0; g < SCHED_GROUPS; g++)
        if (blocks_has(b, g))
            take_block(b, g, id);
    other = hash ? blocks_find(b, *hash) : BLOCKS_NONE;
    /* A cached node whose sliding block is gone is of no use any more: the new one takes its place. */
    if (other != BLOCKS_NONE && share && blocks_has(b, SCHED_FULL) && !blocks_slides(b, other) &&
        b->blocks[SCHED_FULL][b->nodes[other].block[SCHED_FULL]].ref == 0) {
        drop_to_free(b, SCHED_FULL, b->nodes[other].block[SCHED_FULL]);
        other = BLOCKS_NONE;
    }
    if (hash) {
        b->nodes[id].hash = *hash;
        b->nodes[id].hashed = true;
    }
    if (share && other == BLOCKS_NONE) {
        if (hash)
            index_add(b, BY_HASH, id);
        index_add(b, BY_PARENT, id);
    }
    t->nodes[t->n++] = id;
    return true;
}

bool blocks_grow_copy(struct blocks *b, struct table *t, struct hash128 parent, const struct hash128 *hash, bool share, uint32_t src,
                      uint32_t ret_src[SCHED_GROUPS], uint32_t ret_dst[SCHED_GROUPS])
{
    bool grown;
    for (int g = 0; g < SCHED_GROUPS; g++) { /* held, lest it be the very block that is taken */
        ret_src[g] = blocks_has(b, g) ? b->nodes[src].block[g] : BLOCKS_NONE;
        if (ret_src[g] != BLOCKS_NONE)
            hold(b, g, ret_src[g]);
    }
    grown = blocks_grow(b, t, parent, hash, share);
    for (int g = SCHED_GROUPS - 1; g >= 0; g--) {
        ret_dst[g] = grown && blocks_has(b, g) ? b->nodes[t->nodes[t->n - 1]].block[g] : BLOCKS_NONE;
        if (ret_src[g] != BLOCKS_NONE)
            let_go(b, g, ret_src[g]);
    }
    return grown;
}

bool blocks_temp(struct blocks *b, struct table *t, struct hash128 parent)
{
    uint32_t i = t->temp_to, id = t->nodes[i];
    assert(i < t->slide_from && i < t->n);
    if (id != BLOCKS_NONE && b->nodes[id].block[SCHED_SLIDING] != BLOCKS_NONE) {
        hold(b, SCHED_SLIDING, b->nodes[id].block[SCHED_SLIDING]);
        t->temp_to++;
        return true;
    }
    if (blocks_available(b, SCHED_SLIDING) == 0)
        return false;
    if (id == BLOCKS_NONE)
        t->nodes[i] = id = node_new(b, parent);
    take_block(b, SCHED_SLIDING, id);
    b->nodes[id].temp = true;
    t->temp_to++;
    return true;
}

void blocks_wrote(struct blocks *b, struct table *t, uint32_t i, uint32_t from, uint32_t to, const int32_t *tokens, uint64_t batch, uint64_t age)
{
    uint32_t id = t->nodes[i], first = i * b->block;
    struct node *n = &b->nodes[id];
    assert(from >= first && to > from && to <= first + b->block);
    if (n->last_batch != batch) {
        n->last_batch = batch;
        n->n_before = n->n_tok;
    }
    n->owner = age;
    memcpy(b->tokens + (size_t)id * b->block + (from - first), tokens + from, (to - from) * sizeof *tokens);
    if (to - first > n->n_tok)
        n->n_tok = to - first;
}

void blocks_complete(struct blocks *b, struct table *t, uint32_t i, struct hash128 hash)
{
    uint32_t id = t->nodes[i];
    struct node *n = &b->nodes[id];
    if (n->hashed || !n->indexed[BY_PARENT])
        return;
    n->hash = hash;
    n->hashed = true;
    if (blocks_find(b, hash) == BLOCKS_NONE)
        index_add(b, BY_HASH, id);
    else
        index_remove(b, BY_PARENT, id); /* somebody else's is found already */
}

static void let_go_entry(struct blocks *b, struct table *t, int g, uint32_t i)
{
    uint32_t id = t->nodes[i];
    let_go(b, g, b->nodes[id].block[g]);
    if (g == SCHED_SLIDING && !blocks_has(b, SCHED_FULL))
        t->nodes[i] = BLOCKS_NONE;
}

void blocks_pass(struct blocks *b, struct table *t, uint32_t i)
{
    if (!blocks_has(b, SCHED_SLIDING))
        return;
    for (; t->slide_from < i && t->slide_from < t->n; t->slide_from++)
        let_go_entry(b, t, SCHED_SLIDING, t->slide_from);
}

void blocks_pass_temp(struct blocks *b, struct table *t, uint32_t i)
{
    for (; t->temp_from < i && t->temp_from < t->temp_to; t->temp_from++)
        let_go_entry(b, t, SCHED_SLIDING, t->temp_from);
}

/* From the end, so that of what becomes cache the end of a text goes before its beginning: what is left can still be found. */
void blocks_cut(struct blocks *b, struct table *t, uint32_t n, uint64_t age)
{
    assert(n <= t->n);
    if (blocks_has(b, SCHED_SLIDING)) {
        while (t->temp_to > t->temp_from && t->temp_to > n)
            let_go_entry(b, t, SCHED_SLIDING, --t->temp_to);
        if (t->temp_to == t->temp_from)
            t->temp_to = t->temp_from = 0;
    }
    while (t->n > n) {
        uint32_t i = --t->n, id = t->nodes[i];
        if (id == BLOCKS_NONE)
            continue;
        if (b->nodes[id].owner == age)
            b->nodes[id].owner = UINT64_MAX;
        if (b->nodes[id].n_tok < b->block && b->nodes[id].owner == UINT64_MAX && b->nodes[id].indexed[BY_HASH])
            index_remove(b, BY_HASH, id);
        if (blocks_has(b, SCHED_SLIDING) && i >= t->slide_from) {
            let_go(b, SCHED_SLIDING, b->nodes[id].block[SCHED_SLIDING]);
            if (!blocks_has(b, SCHED_FULL))
                continue;
        }
        if (blocks_has(b, SCHED_FULL))
            let_go(b, SCHED_FULL, b->nodes[id].block[SCHED_FULL]);
    }
    if (t->slide_from > t->n)
        t->slide_from = t->n;
}

/* --- a new epoch --------------------------------------------------------------------------------------------------------- */

static bool listed(const uint64_t *list, uint32_t n, uint64_t x)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == x)
            return true;
    return false;
}

void blocks_reset(struct blocks *b, bool all, const uint64_t *in_flight, uint32_t n)
{
    for (int g = 0; g < SCHED_GROUPS; g++)
        for (uint32_t id = b->lru_head[g], next; id != BLOCKS_NONE; id = next) {
            next = b->blocks[g][id].lru_next;
            if (all || listed(in_flight, n, b->nodes[b->blocks[g][id].node].last_batch))
                drop_to_free(b, g, id);
        }
    for (uint32_t id = 0; id < b->n_nodes; id++) {
        struct node *k = &b->nodes[id];
        uint32_t g = blocks_has(b, SCHED_FULL) ? SCHED_FULL : SCHED_SLIDING;
        if (k->alive && k->block[g] != BLOCKS_NONE && b->blocks[g][k->block[g]].ref > 0) {
            k->n_tok = k->n_before = 0;
            k->last_batch = 0;
            k->owner = UINT64_MAX;
        }
    }
}

void blocks_keep(struct blocks *b, struct table *t, uint32_t i, uint32_t n_tok, uint64_t age)
{
    struct node *n;
    if (t->nodes[i] == BLOCKS_NONE)
        return;
    n = &b->nodes[t->nodes[i]];
    if (n_tok > n->n_tok)
        n->n_tok = n_tok;
    if (age < n->owner)
        n->owner = age;
}
