/* Which tokens may come next. See grammar.h.
 *
 * The vocabulary is a tree of bytes, laid out in the order of a walk: a branch whose first byte cannot come is stepped over as
 * a whole. What a walk finds is kept for the state. Most states differ only in what lies below: a string within an object
 * within an array is the same string. So a mask is first made for the "local" state, the threads above the frames that all
 * have in common: tokens that stay above them are settled there, once for all; branches that leave them (a quote, and what
 * comes behind it) are noted, and walked again for each state, which are few. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "text/gram_walk.h"
#include "text/tok.h"

enum {
    MAX_TREE = 1 << 24,
    MASK_STEPS = 20000000, /* threads followed for one mask */
    TAKE_STEPS = 5000000,
};

/* --- the vocabulary ------------------------------------------------------------------------------------------------------ */

struct tree_node {
    uint32_t end;    /* the node after its branch */
    uint32_t parent; /* GRAM_NONE at the top */
    uint32_t first;  /* tokens that end here: ids [first, first of the next node); of the branch: up to the first of `end` */
    uint16_t depth;  /* from 1 */
    uint8_t byte;
    uint8_t height; /* bytes of the longest token of the branch, from this one on */
    uint8_t kind;   /* enum branch_kind */
};

/* What a branch is made of, where it begins with a whole character. */
enum branch_kind {
    BRANCH_ASCII, /* only of what is plain in a JSON string: no quote, no backslash, no controls */
    BRANCH_CHARS, /* and of characters beyond ASCII, whose end may be missing */
    BRANCH_OTHER,
};

struct grammar_tokens {
    _Atomic unsigned holders;
    uint32_t n_vocab, n_nodes;
    size_t n_bytes; /* of a mask */
    struct tree_node *nodes;
    int32_t *ids;       /* of all tokens that are text, in the tree's order */
    uint8_t *ends;      /* bits of end tokens */
    char *pieces;       /* bytes of those tokens that are text, one after another; */
    uint32_t *piece_at; /* token i's are [piece_at[i], piece_at[i + 1]) */
};

struct spelled {
    const char *s;
    uint32_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct spelled *x = a, *y = b;
    uint32_t n = x->len < y->len ? x->len : y->len;
    int c = n ? memcmp(x->s, y->s, n) : 0;
    return c ? c : x->len != y->len ? (x->len < y->len ? -1 : 1) : x->id < y->id ? -1 : x->id > y->id;
}

static bool is_text(const struct tokenizer *t, uint32_t id)
{
    return id < t->vocab.n && !(t->vocab.attrs[id] & ATTR_PARSED) && !tokenizer_is_end(t, (int32_t)id);
}

/* Copies the bytes of those that are text; returns these, how many in *ret_n. NULL on failure. */
static struct spelled *collect(struct grammar_tokens *gt, const struct tokenizer *t, size_t *ret_n, struct err *err)
{
    const struct vocab *v = &t->vocab;
    size_t n = 0, bytes = v->n ? v->piece_at[v->n] : 0;
    struct spelled *words;

    if (!(gt->pieces = mem_new(bytes, 1, err)) || !(gt->piece_at = mem_new((size_t)gt->n_vocab + 1, sizeof *gt->piece_at, err)) ||
        !(words = mem_new(gt->n_vocab, sizeof *words, err)))
        return NULL;
    bytes = 0;
    for (uint32_t id = 0; id < gt->n_vocab; id++) {
        uint32_t len = is_text(t, id) ? v->piece_at[id + 1] - v->piece_at[id] : 0;
        if (len) {
            memcpy(gt->pieces + bytes, v->pieces + v->piece_at[id], len);
            words[n++] = (struct spelled){gt->pieces + bytes, len, (int32_t)id};
        }
        bytes += len;
        gt->piece_at[id + 1] = (uint32_t)bytes;
    }
    *ret_n = n;
    return words;
}

/* The words in order, as a tree in order. One more node is the end. */
static int plant(struct grammar_tokens *gt, const struct spelled *words, size_t n, struct err *err)
{
    uint32_t path[TOKEN_MAX_BYTES + 1]; /* by depth: the node on the way to the word at hand */
    uint32_t depth = 0;
    size_t cap = 0;

    for (size_t i = 0; i < n; i++) {
        const struct spelled *w = &words[i];
        uint32_t same = 0;
        while (i > 0 && same < depth && same < w->len && gt->nodes[path[same + 1]].byte == (uint8_t)w->s[same])
            same++;
        for (; depth > same; depth--)
            gt->nodes[path[depth]].end = gt->n_nodes;
        for (; depth < w->len && depth < TOKEN_MAX_BYTES; depth++) {
            if (mem_grow(&gt->nodes, &cap, (size_t)gt->n_nodes + 2, sizeof *gt->nodes, MAX_TREE, "bytes of the vocabulary", err) != 0)
                return -1;
            gt->nodes[gt->n_nodes] = (struct tree_node){.parent = depth ? path[depth] : GRAM_NONE,
                                                        .first = (uint32_t)i,
                                                        .depth = (uint16_t)(depth + 1),
                                                        .byte = (uint8_t)w->s[depth]};
            path[depth + 1] = gt->n_nodes++;
        }
        gt->ids[i] = w->id;
    }
    for (; depth > 0; depth--)
        gt->nodes[path[depth]].end = gt->n_nodes;
    if (mem_grow(&gt->nodes, &cap, (size_t)gt->n_nodes + 1, sizeof *gt->nodes, MAX_TREE, "bytes of the vocabulary", err) != 0)
        return -1;
    gt->nodes[gt->n_nodes] = (struct tree_node){.first = (uint32_t)n};
    return 0;
}

/* How UTF-8 goes on: after a byte in a state the next state. 0: between characters; 1 to 3: so many bytes are missing; 4 to 7: the
 * next one is not just any (after E0, ED, F0, F4); BAD. */
enum { UTF8_BAD = 8 };
static uint8_t utf8_next(uint8_t state, uint8_t byte)
{
    static const uint8_t lo[] = {0, 0x80, 0x80, 0x80, 0xA0, 0x80, 0x90, 0x80}, hi[] = {0, 0xBF, 0xBF, 0xBF, 0xBF, 0x9F, 0xBF, 0x8F},
                         next[] = {0, 0, 1, 2, 1, 1, 2, 2};
    if (state)
        return state < UTF8_BAD && byte >= lo[state] && byte <= hi[state] ? next[state] : UTF8_BAD;
    if (byte < 0x80)
        return 0;
    if (byte < 0xC2 || byte > 0xF4)
        return UTF8_BAD;
    return byte < 0xE0 ? 1 : byte == 0xE0 ? 4 : byte == 0xED ? 5 : byte < 0xF0 ? 2 : byte == 0xF0 ? 6 : byte == 0xF4 ? 7 : 3;
}

static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7F;
}

/* Each branch's height and kind: what UTF-8 says downwards, what a branch holds upwards. */
static int grade(struct grammar_tokens *gt, struct err *err)
{
    uint8_t *state = mem_new(gt->n_nodes, 1, err); /* behind each node's byte */
    if (!state)
        return -1;
    for (uint32_t i = 0; i < gt->n_nodes; i++) {
        struct tree_node *n = &gt->nodes[i];
        state[i] = utf8_next(n->parent == GRAM_NONE ? 0 : state[n->parent], n->byte);
        n->height = 1;
        n->kind = state[i] == UTF8_BAD || !is_plain(n->byte) ? BRANCH_OTHER : n->byte >= 0x80 ? BRANCH_CHARS : BRANCH_ASCII;
    }
    for (uint32_t i = gt->n_nodes; i-- > 0;) {
        const struct tree_node *n = &gt->nodes[i];
        struct tree_node *up = n->parent == GRAM_NONE ? NULL : &gt->nodes[n->parent];
        if (!up)
            continue;
        if (n->height < UINT8_MAX && up->height < n->height + 1)
            up->height = (uint8_t)(n->height + 1);
        if (n->height == UINT8_MAX)
            up->height = UINT8_MAX;
        if (up->kind < n->kind)
            up->kind = n->kind;
    }
    for (uint32_t i = 0; i < gt->n_nodes; i++) /* a branch that begins within a character is for nobody */
        if (gt->nodes[i].parent != GRAM_NONE && state[gt->nodes[i].parent] != 0)
            gt->nodes[i].kind = BRANCH_OTHER;
    free(state);
    return 0;
}

struct grammar_tokens *grammar_tokens_create(const struct tokenizer *t, uint32_t n_vocab, struct err *err)
{
    struct grammar_tokens *gt = mem_new(1, sizeof *gt, err);
    struct spelled *words = NULL;
    size_t n = 0;
    if (!gt)
        return NULL;
    gt->holders = 1;
    gt->n_vocab = n_vocab;
    gt->n_bytes = ((size_t)n_vocab + 7) / 8;
    if (!(gt->ids = mem_new(n_vocab, sizeof *gt->ids, err)) || !(gt->ends = mem_new(gt->n_bytes, 1, err)) ||
        !(words = collect(gt, t, &n, err)))
        goto error;
    if (n > 1)
        qsort(words, n, sizeof *words, by_bytes);
    if (plant(gt, words, n, err) != 0 || grade(gt, err) != 0)
        goto error;
    free(words);
    for (uint32_t id = 0; id < n_vocab && id < tokenizer_n_tokens(t); id++)
        if (tokenizer_is_end(t, (int32_t)id))
            gt->ends[id / 8] |= (uint8_t)(1 << id % 8);
    return gt;
error:
    free(words);
    grammar_tokens_drop(gt);
    return NULL;
}

void grammar_tokens_drop(struct grammar_tokens *gt)
{
    if (!gt || --gt->holders > 0)
        return;
    free(gt->nodes);
    free(gt->ids);
    free(gt->ends);
    free(gt->pieces);
    free(gt->piece_at);
    free(gt);
}

/* --- masks --------------------------------------------------------------------------------------------------------------- */

/* What was found for a state. */
struct mask {
    uint8_t *bits;   /* without end tokens */
    uint32_t *leave; /* of a local state: branches (tree nodes) that go on below it */
    uint32_t n_leave;
};

struct grammar_masks {
    pthread_mutex_t lock;
    unsigned holders;
    struct grammar *g;
    struct grammar_tokens *t;
    struct gram_pool pool;
    struct mask *masks;
    size_t n_masks, cap_masks, mask_bytes;
    uint32_t *leave; /* being gathered */
    size_t n_leave, cap_leave;
    uint32_t path[TOKEN_MAX_BYTES + 1]; /* states by depth */
    bool left[TOKEN_MAX_BYTES + 1];     /* on the way there the text could end */
    struct grammar_walk *walks;
};

struct grammar_walk {
    struct grammar_masks *m;
    struct grammar_walk *next, **link;
    uint32_t state;
};

static void forget_masks(struct grammar_masks *m)
{
    for (size_t i = 0; i < m->n_masks; i++) {
        free(m->masks[i].bits);
        free(m->masks[i].leave);
    }
    m->n_masks = m->mask_bytes = 0;
    for (size_t i = 0; i < m->pool.n_states; i++)
        m->pool.states[i].mask = GRAM_NONE;
}

/* When there are too many states, only those where somebody stands are taken into a new pool. */
static int tidy(struct grammar_masks *m, struct err *err)
{
    struct gram_pool fresh;
    if (m->mask_bytes > GRAMMAR_MAX_MASK_BYTES)
        forget_masks(m);
    if (gram_pool_bytes(&m->pool) <= GRAMMAR_MAX_STATE_BYTES)
        return 0;
    if (gram_pool_init(&fresh, m->g, err) != 0) {
        gram_pool_fini(&fresh);
        return -1;
    }
    forget_masks(m);
    for (struct grammar_walk *w = m->walks; w; w = w->next) {
        uint32_t moved = gram_pool_move(&m->pool, w->state, &fresh, err);
        if (moved == GRAM_NONE) { /* those before this one have moved already: nobody can go on */
            for (struct grammar_walk *x = m->walks; x; x = x->next)
                x->state = GRAM_DEAD;
            gram_pool_fini(&m->pool);
            m->pool = fresh;
            return -1;
        }
        w->state = moved;
    }
    gram_pool_fini(&m->pool);
    m->pool = fresh;
    return 0;
}

static void set_tokens(const struct grammar_tokens *t, uint32_t from, uint32_t end, uint8_t *bits)
{
    for (uint32_t i = from; i < end; i++)
        bits[t->ids[i] / 8] |= (uint8_t)(1 << t->ids[i] % 8);
}

static int note_leave(struct grammar_masks *m, uint32_t node, struct err *err)
{
    if (mem_grow(&m->leave, &m->cap_leave, m->n_leave + 1, sizeof *m->leave, MAX_TREE, "branches of the vocabulary", err) != 0)
        return -1;
    m->leave[m->n_leave++] = node;
    return 0;
}

/* The branches [from, end) beside each other or one below the other, from the state at m->path[depth of from - 1]. Where a
 * branch dies but the text could have ended on the way, it is noted (local: the text then goes on below). */
static int walk_tree(struct grammar_masks *m, uint32_t from, uint32_t end, bool local, uint8_t *bits, struct err *err)
{
    const struct tree_node *nodes = m->t->nodes;
    for (uint32_t i = from; i < end;) {
        const struct tree_node *n = &nodes[i];
        if (n->kind != BRANCH_OTHER) {
            uint32_t run = gram_pool_run(&m->pool, m->path[n->depth - 1], n->kind == BRANCH_CHARS, err);
            if (run == GRAM_NONE)
                return -1;
            if (n->height <= run) { /* all of it may come: no need to look */
                set_tokens(m->t, n->first, nodes[n->end].first, bits);
                i = n->end;
                continue;
            }
        }
        uint32_t state = gram_pool_step(&m->pool, m->path[n->depth - 1], n->byte, err);
        if (state == GRAM_NONE)
            return -1;
        if (state == GRAM_DEAD) {
            if (local && m->left[n->depth - 1] && note_leave(m, i, err) != 0)
                return -1;
            i = n->end;
            continue;
        }
        m->path[n->depth] = state;
        m->left[n->depth] = m->left[n->depth - 1] || m->pool.states[state].accepts;
        set_tokens(m->t, n->first, n[1].first, bits);
        i++;
    }
    return 0;
}

/* Room for a mask; the state's number, GRAM_NONE on failure. */
static uint32_t new_mask(struct grammar_masks *m, struct err *err)
{
    if (mem_grow(&m->masks, &m->cap_masks, m->n_masks + 1, sizeof *m->masks, MAX_TREE, "masks", err) != 0)
        return GRAM_NONE;
    struct mask *k = &m->masks[m->n_masks];
    *k = (struct mask){.bits = mem_new(m->t->n_bytes, 1, err)};
    if (!k->bits)
        return GRAM_NONE;
    m->mask_bytes += m->t->n_bytes + sizeof *k;
    return (uint32_t)m->n_masks++;
}

/* What is sure for all that look like this state above what they have in common. For a state that has nothing below it, that is
 * all: what would leave it cannot come. */
static uint32_t local_mask(struct grammar_masks *m, uint32_t state, struct err *err)
{
    uint32_t number = m->pool.states[state].mask;
    if (number != GRAM_NONE)
        return number;
    if ((number = new_mask(m, err)) == GRAM_NONE)
        return GRAM_NONE;
    m->path[0] = state;
    m->left[0] = false;
    m->n_leave = 0;
    struct mask *k = &m->masks[number];
    if (walk_tree(m, 0, m->t->n_nodes, true, k->bits, err) != 0)
        return GRAM_NONE; /* the mask stays unused, and goes with the others */
    if (m->n_leave) {
        if (!(k->leave = mem_new(m->n_leave, sizeof *k->leave, err)))
            return GRAM_NONE;
        memcpy(k->leave, m->leave, m->n_leave * sizeof *k->leave);
        k->n_leave = (uint32_t)m->n_leave;
        m->mask_bytes += m->n_leave * sizeof *k->leave;
    }
    m->pool.states[state].mask = number;
    return number;
}

/* The state behind the bytes on the way to a tree node's parent. */
static uint32_t state_before(struct grammar_masks *m, uint32_t state, uint32_t node, struct err *err)
{
    uint8_t bytes[TOKEN_MAX_BYTES];
    uint32_t n = 0;
    for (uint32_t at = m->t->nodes[node].parent; at != GRAM_NONE; at = m->t->nodes[at].parent)
        bytes[n++] = m->t->nodes[at].byte;
    while (n > 0 && state != GRAM_NONE)
        state = gram_pool_step(&m->pool, state, bytes[--n], err);
    return state;
}

/* The branches that leave the local state, for this one. */
static int add_left(struct grammar_masks *m, uint32_t state, uint32_t local_number, uint8_t *bits, struct err *err)
{
    uint32_t parent = GRAM_NONE;
    for (uint32_t i = 0; i < m->masks[local_number].n_leave; i++) {
        uint32_t node = m->masks[local_number].leave[i];
        const struct tree_node *n = &m->t->nodes[node];
        if (n->parent != parent || i == 0) {
            uint32_t before = state_before(m, state, node, err);
            if (before == GRAM_NONE)
                return -1;
            m->path[n->depth - 1] = before;
            parent = n->parent;
        }
        if (walk_tree(m, node, n->end, false, bits, err) != 0)
            return -1;
    }
    return 0;
}

/* The mask of a state, made if need be: its number. */
static uint32_t mask_of(struct grammar_masks *m, uint32_t state, struct err *err)
{
    uint32_t local = gram_pool_local(&m->pool, state, err), number, from;
    if (local == GRAM_NONE)
        return GRAM_NONE;
    if (local == state)
        return local_mask(m, state, err);
    if (m->pool.states[state].mask != GRAM_NONE)
        return m->pool.states[state].mask;
    if ((from = local_mask(m, local, err)) == GRAM_NONE)
        return GRAM_NONE;
    if (m->masks[from].n_leave == 0)
        return from;
    if ((number = new_mask(m, err)) == GRAM_NONE)
        return GRAM_NONE;
    memcpy(m->masks[number].bits, m->masks[from].bits, m->t->n_bytes);
    if (add_left(m, state, from, m->masks[number].bits, err) != 0)
        return GRAM_NONE;
    m->pool.states[state].mask = number;
    return number;
}

struct grammar_masks *grammar_masks_create(struct grammar *g, struct grammar_tokens *tokens, struct err *err)
{
    struct grammar_masks *m = mem_new(1, sizeof *m, err);
    if (!m)
        return NULL;
    if (gram_pool_init(&m->pool, g, err) != 0) {
        gram_pool_fini(&m->pool);
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->lock, NULL);
    m->holders = 1;
    m->g = g;
    m->t = tokens;
    tokens->holders++;
    grammar_ref(g);
    return m;
}

void grammar_masks_ref(struct grammar_masks *m)
{
    pthread_mutex_lock(&m->lock);
    m->holders++;
    pthread_mutex_unlock(&m->lock);
}

void grammar_masks_drop(struct grammar_masks *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    unsigned left = --m->holders;
    pthread_mutex_unlock(&m->lock);
    if (left > 0)
        return;
    forget_masks(m);
    gram_pool_fini(&m->pool);
    free(m->masks);
    free(m->leave);
    grammar_drop(m->g);
    grammar_tokens_drop(m->t);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* --- walks --------------------------------------------------------------------------------------------------------------- */

struct grammar_walk *grammar_walk_create(struct grammar_masks *m, struct err *err)
{
    struct grammar_walk *w = mem_new(1, sizeof *w, err);
    if (!w)
        return NULL;
    w->m = m;
    pthread_mutex_lock(&m->lock);
    m->pool.n_steps = 0;
    m->pool.max_steps = TAKE_STEPS;
    w->state = gram_pool_start(&m->pool, err);
    if (w->state != GRAM_NONE) {
        m->holders++;
        w->next = m->walks;
        w->link = &m->walks;
        if (w->next)
            w->next->link = &w->next;
        m->walks = w;
    }
    pthread_mutex_unlock(&m->lock);
    if (w->state != GRAM_NONE)
        return w;
    free(w);
    return NULL;
}

void grammar_walk_destroy(struct grammar_walk *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->m->lock);
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    pthread_mutex_unlock(&w->m->lock);
    grammar_masks_drop(w->m);
    free(w);
}

static bool any_bit(const uint8_t *bits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bits[i])
            return true;
    return false;
}

static int mask_locked(struct grammar_walk *w, uint8_t *bits, struct err *err)
{
    struct grammar_masks *m = w->m;
    uint32_t number;

    if (tidy(m, err) != 0)
        return -1;
    m->pool.n_steps = 0;
    m->pool.max_steps = MASK_STEPS;
    if ((number = mask_of(m, w->state, err)) == GRAM_NONE)
        return -1;
    memcpy(bits, m->masks[number].bits, m->t->n_bytes);
    if (m->pool.states[w->state].accepts)
        for (size_t i = 0; i < m->t->n_bytes; i++)
            bits[i] |= m->t->ends[i];
    if (any_bit(bits, m->t->n_bytes))
        return 0;
    if (m->pool.states[w->state].accepts)
        return err_set(err, ERR_UNSUPPORTED, "the text is complete by its grammar, but the vocabulary has no token that ends it");
    return err_set(
        err, ERR_UNSUPPORTED,
        "the vocabulary has no token that could come next by the grammar (it lacks bytes), or the text is nested more than %d deep",
        GRAMMAR_MAX_DEPTH);
}

int grammar_walk_mask(struct grammar_walk *w, uint8_t *bits, size_t n_bytes, struct err *err)
{
    if (n_bytes != w->m->t->n_bytes)
        return err_set(err, ERR_INTERNAL, "a mask of %zu bytes was asked for, the vocabulary's has %zu", n_bytes, w->m->t->n_bytes);
    pthread_mutex_lock(&w->m->lock);
    int rc = mask_locked(w, bits, err);
    pthread_mutex_unlock(&w->m->lock);
    return rc;
}

static int take_locked(struct grammar_walk *w, const char *bytes, size_t len, struct err *err)
{
    struct grammar_masks *m = w->m;
    uint32_t state;

    if (tidy(m, err) != 0)
        return -1;
    state = w->state;
    m->pool.n_steps = 0;
    m->pool.max_steps = TAKE_STEPS;
    for (size_t i = 0; i < len; i++) {
        state = gram_pool_step(&m->pool, state, (uint8_t)bytes[i], err);
        if (state == GRAM_NONE)
            return -1;
        if (state == GRAM_DEAD)
            return err_set(err, ERR_INPUT, "byte %zu (0x%02x) cannot come here by the grammar", i, (unsigned char)bytes[i]);
    }
    w->state = state;
    return 0;
}

int grammar_walk_take_bytes(struct grammar_walk *w, const char *bytes, size_t len, struct err *err)
{
    pthread_mutex_lock(&w->m->lock);
    int rc = take_locked(w, bytes, len, err);
    pthread_mutex_unlock(&w->m->lock);
    return rc;
}

int grammar_walk_take(struct grammar_walk *w, int32_t token, struct err *err)
{
    const struct grammar_tokens *t = w->m->t;

    if (token < 0 || (uint32_t)token >= t->n_vocab)
        return err_set(err, ERR_INPUT, "token %d cannot come by the grammar", token);
    if (t->ends[token / 8] >> token % 8 & 1)
        return grammar_walk_complete(w) ? 0
                                        : err_set(err, ERR_INPUT, "token %d ends the text, which is not complete by the grammar", token);
    uint32_t len = t->piece_at[token + 1] - t->piece_at[token];
    if (len == 0)
        return err_set(err, ERR_INPUT, "token %d is no text, and cannot come by the grammar", token);
    if (grammar_walk_take_bytes(w, t->pieces + t->piece_at[token], len, err) != 0)
        return err_wrap(err, "token %d", token);
    return 0;
}

bool grammar_walk_complete(struct grammar_walk *w)
{
    pthread_mutex_lock(&w->m->lock);
    bool complete = w->m->pool.states[w->state].accepts;
    pthread_mutex_unlock(&w->m->lock);
    return complete;
}
