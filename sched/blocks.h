#ifndef SCHED_BLOCKS_H
#define SCHED_BLOCKS_H

/* Logical blocks of the paged KV cache and the prefix cache over them; the scheduler's own, see sched.h.
 *
 * A *node* is one block's worth of positions of some text: where its keys and values lie in each group, which tokens they are
 * of, and the chained hash of all tokens up to its end. Sequences with the same beginning have the same nodes in their tables.
 * A node that no table holds stays, as cache, until its blocks are wanted.
 *
 * Whose blocks may be written: a node is written by the sequence that made it; others take it in their tables only where they
 * read. A node is of use to others as soon as its rows are *placed in a step*, not only when they are computed: every stage
 * takes steps in order, so whoever reads it in the same or a later step finds it written (sched.h's assumptions).
 *
 * Fences. A block given back while steps that use it are still under way may be handed out at once, for the next step. Proof:
 * let step k be the last that reads or writes block b for its old holder, and let k' > k be the first of the new one. A stage
 * does k wholly before k', and its copy of b is its own memory, so at each stage all old uses precede all new ones; stages do
 * not look into each other's. What the order does not give is (1) reuse within step k itself, where a layer stores all rows
 * before any attends: so nobody who has rows in a step under construction loses blocks before it is sent; and (2) a new epoch,
 * which drops steps under way and computes them again: their rows must find all they read. They read their own sequence's
 * blocks, which it holds on to until it ends or is preempted (and then nothing is computed again), with one exception:
 * sliding blocks that its window has passed. These it gives back only once the rows up to the window's edge are *confirmed*
 * by the last stage (blocks_pass), as no row that looks further back can be computed again then. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sched/sched.h"

enum { BLOCKS_NONE = UINT32_MAX };

struct hash128 {
    uint64_t a, b;
};

struct node {
    struct hash128 hash, parent;
    uint32_t block[SCHED_GROUPS]; /* BLOCKS_NONE: none */
    uint32_t n_tok, n_before;     /* positions written, in steps that are placed; … not counting step last_batch */
    uint64_t last_batch;          /* the last step that writes it */
    uint64_t owner;               /* age of the sequence that writes it; UINT64_MAX: nobody */
    uint32_t next[2], prev[2];    /* in the chains of the two indexes; of index 0 `next` also links free nodes */
    bool indexed[2], hashed, alive; /* hashed: `hash` is known */
    bool temp; /* its sliding block was taken for a rebuild: stages beyond stop_stage never wrote it, so it is no cache */
};

struct block {
    uint32_t node, ref;
    uint32_t lru_next, lru_prev;
};

/* A sequence's blocks. entry i: node of positions [i × block, …). The full block of every entry is held, the sliding ones of
 * [slide_from, n) and [temp_from, temp_to). */
struct table {
    uint32_t *nodes;
    uint32_t n, cap;
    uint32_t slide_from, temp_from, temp_to;
};

struct blocks {
    uint32_t block, window;
    uint32_t n_blocks[SCHED_GROUPS];
    uint64_t key[2];
    struct block *blocks[SCHED_GROUPS];
    uint32_t *free_ids[SCHED_GROUPS], n_free[SCHED_GROUPS];
    uint32_t lru_head[SCHED_GROUPS], lru_tail[SCHED_GROUPS], n_lru[SCHED_GROUPS];
    struct node *nodes;
    int32_t *tokens; /* n_nodes × block */
    uint32_t n_nodes, free_node;
    uint32_t *heads[2], mask; /* index 0: by hash; 1: by parent's hash */
};

int blocks_init(struct blocks *b, const struct sched_config *c, struct err *err);
void blocks_fini(struct blocks *b);
/* Everything free again, with these counts (at most those of init). No table may hold anything. */
void blocks_clear(struct blocks *b, const uint32_t n_blocks[SCHED_GROUPS]);

/* Blocks that can be had: free or only cached. */
uint32_t blocks_available(const struct blocks *b, int group);
bool blocks_has(const struct blocks *b, int group);
/* First entry that sliding layers look at from position pos. */
uint32_t blocks_window_from(const struct blocks *b, uint32_t pos);

struct hash128 blocks_root(const struct blocks *b, uint64_t salt);
struct hash128 blocks_chain(const struct blocks *b, struct hash128 parent, const int32_t *tokens);

/* The node of this hash, complete or being written; BLOCKS_NONE. */
uint32_t blocks_find(const struct blocks *b, struct hash128 hash);
/* Sliding layers find what they look at in it (or there are none). */
bool blocks_slides(const struct blocks *b, uint32_t node);
/* The node after `parent` that shares the most first tokens (at most n) with `tokens`, as far as steps before `batch` have
 * written it: returns it and *ret_common > 0, or BLOCKS_NONE. *ret_soon: as many will be shared after step `batch` by what a
 * sequence older than `age` writes. */
uint32_t blocks_partial(const struct blocks *b, struct hash128 parent, const int32_t *tokens, uint32_t n, uint64_t batch, uint64_t age,
                        uint32_t *ret_common, uint32_t *ret_soon);

/* The table's next entry becomes an existing node (BLOCKS_NONE: of a text without full group, passed by the window). */
void blocks_attach(struct blocks *b, struct table *t, uint32_t node, bool sliding);
/* … becomes a new node with blocks of its own. hash NULL: not known yet. false: no block to be had; nothing changed. */
bool blocks_grow(struct blocks *b, struct table *t, struct hash128 parent, const struct hash128 *hash, bool share);
/* The same, and its content is to be a copy of node src's: ret_src[g], ret_dst[g] are the blocks (BLOCKS_NONE: no such group). */
bool blocks_grow_copy(struct blocks *b, struct table *t, struct hash128 parent, const struct hash128 *hash, bool share, uint32_t src,
                      uint32_t ret_src[SCHED_GROUPS], uint32_t ret_dst[SCHED_GROUPS]);
/* Entry i < slide_from gets a sliding block again, at temp_to, for the time of a rebuild. */
bool blocks_temp(struct blocks *b, struct table *t, struct hash128 parent);
/* Step `batch` writes positions [from, to) of entry i. tokens: the sequence's, from position 0. */
void blocks_wrote(struct blocks *b, struct table *t, uint32_t i, uint32_t from, uint32_t to, const int32_t *tokens, uint64_t batch, uint64_t age);
/* Entry i is full and its hash is known: others may find it. */
void blocks_complete(struct blocks *b, struct table *t, uint32_t i, struct hash128 hash);
/* The window has passed all entries below i: their sliding blocks are given back. */
void blocks_pass(struct blocks *b, struct table *t, uint32_t i);
void blocks_pass_temp(struct blocks *b, struct table *t, uint32_t i);
/* Gives back entries from n on. */
void blocks_cut(struct blocks *b, struct table *t, uint32_t n, uint64_t age);
/* A new epoch: forgets cached nodes (all, or those whose last step is under way), and what is written of the others: the
 * caller says anew, with blocks_keep. in_flight: numbers of n steps. */
void blocks_reset(struct blocks *b, bool all, const uint64_t *in_flight, uint32_t n);
void blocks_keep(struct blocks *b, struct table *t, uint32_t i, uint32_t n_tok, uint64_t age);

#endif
