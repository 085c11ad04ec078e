/* See gram_walk.h.
 *
 * A state is closed: from every thread all empty edges, calls and returns have been followed, and only those threads are kept
 * that wait for a byte. A call pushes a frame unless its rule returns to where nothing but a return follows, so that a rule
 * that ends with itself needs no depth. Left recursion was refused by the compiler, so this comes to an end; how many threads
 * there may be is limited, as is the depth: a call deeper than that is not made. */
#include "text/gram_walk.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SEEN = 16 * GRAMMAR_MAX_THREADS, HASH_MIN = 256, SEEN_KEPT = 4096, NEAR_DEPTH = 64, MAX_POOL = 1 << 28 };

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
    return x ^ x >> 32;
}

/* --- sets ---------------------------------------------------------------------------------------------------------------- */

typedef uint64_t (*hash_fn)(const struct gram_pool *p, uint32_t number);

static int hash_room(struct gram_pool *p, struct gram_hash *h, hash_fn hash, struct err *err)
{
    size_t n = h->n_slots ? 2 * h->n_slots : HASH_MIN;
    uint32_t *slots;
    if (h->n_slots > 2 * (h->n + 1))
        return 0;
    if (!(slots = mem_new(n, sizeof *slots, err)))
        return -1;
    for (size_t i = 0; i < h->n_slots; i++)
        if (h->slots[i]) {
            size_t at = hash(p, h->slots[i] - 1) & (n - 1);
            while (slots[at])
                at = (at + 1) & (n - 1);
            slots[at] = h->slots[i];
        }
    free(h->slots);
    h->slots = slots;
    h->n_slots = n;
    return 0;
}

static uint64_t frame_hash_of(uint32_t ret, uint32_t below)
{
    return mix((uint64_t)ret << 32 | below);
}

static uint64_t frame_hash(const struct gram_pool *p, uint32_t i)
{
    return frame_hash_of(p->frames[i].ret, p->frames[i].below);
}

static uint64_t threads_hash(const struct gram_thread *t, size_t n, bool accepts)
{
    uint64_t h = accepts;
    for (size_t i = 0; i < n; i++)
        h = mix(h ^ ((uint64_t)t[i].node << 32 | t[i].frame)) + i;
    return h;
}

static uint64_t state_hash(const struct gram_pool *p, uint32_t i)
{
    return threads_hash(p->threads + p->states[i].at, p->states[i].n, p->states[i].accepts);
}

/* The number of the frame; GRAM_NONE on failure. */
static uint32_t frame_of(struct gram_pool *p, uint32_t ret, uint32_t below, struct err *err)
{
    if (hash_room(p, &p->frame_set, frame_hash, err) != 0)
        return GRAM_NONE;
    size_t at = frame_hash_of(ret, below) & (p->frame_set.n_slots - 1);
    for (; p->frame_set.slots[at]; at = (at + 1) & (p->frame_set.n_slots - 1)) {
        uint32_t i = p->frame_set.slots[at] - 1;
        if (p->frames[i].ret == ret && p->frames[i].below == below)
            return i;
    }
    if (mem_grow(&p->frames, &p->cap_frames, p->n_frames + 1, sizeof *p->frames, MAX_POOL, "frames of the grammar", err) != 0)
        return GRAM_NONE;
    p->frames[p->n_frames] = (struct gram_frame){ret, below, p->frames[below].depth + 1};
    p->frame_set.slots[at] = (uint32_t)++p->n_frames;
    p->frame_set.n++;
    return (uint32_t)p->n_frames - 1;
}

/* --- closing ------------------------------------------------------------------------------------------------------------- */

static int grow_seen(struct gram_pool *p, struct err *err)
{
    size_t n = p->cap_seen ? 2 * p->cap_seen : HASH_MIN;
    uint64_t *seen = mem_new(n, sizeof *seen, err);
    if (!seen)
        return -1;
    for (size_t i = 0; i < p->cap_seen; i++)
        if (p->seen[i]) {
            size_t at = mix(p->seen[i]) & (n - 1);
            while (seen[at])
                at = (at + 1) & (n - 1);
            seen[at] = p->seen[i];
        }
    free(p->seen);
    p->seen = seen;
    p->cap_seen = n;
    return 0;
}

/* To be followed, unless it was seen. */
static int add(struct gram_pool *p, uint32_t node, uint32_t frame, struct err *err)
{
    uint64_t key = ((uint64_t)node << 32 | frame) + 1;
    if (2 * (p->n_seen + 1) > p->cap_seen && grow_seen(p, err) != 0)
        return -1;
    size_t at = mix(key) & (p->cap_seen - 1);
    for (; p->seen[at]; at = (at + 1) & (p->cap_seen - 1))
        if (p->seen[at] == key)
            return 0;
    p->seen[at] = key;
    if (++p->n_seen > MAX_SEEN)
        return err_set(err, ERR_LIMIT, "the grammar can be read in too many ways here; make it less ambiguous");
    if (mem_grow(&p->work, &p->cap_work, p->n_work + 1, sizeof *p->work, MAX_POOL, "threads of the grammar", err) != 0)
        return -1;
    p->work[p->n_work++] = (struct gram_thread){node, frame};
    return 0;
}

static int call(struct gram_pool *p, const struct gram_edge *e, uint32_t frame, struct err *err)
{
    if (!(p->g->flags[e->to] & GRAM_TAIL)) {
        if (p->frames[frame].depth >= GRAMMAR_MAX_DEPTH)
            return 0;
        if ((frame = frame_of(p, e->to, frame, err)) == GRAM_NONE)
            return -1;
    }
    return add(p, p->g->starts[e->rule], frame, err);
}

static int close_threads(struct gram_pool *p, struct err *err)
{
    const struct grammar *g = p->g;
    while (p->n_work > 0) {
        struct gram_thread t = p->work[--p->n_work];
        if (++p->n_steps > p->max_steps)
            return err_set(err, ERR_LIMIT, "the grammar takes too many steps for one token; make it less ambiguous");
        if (g->flags[t.node] & GRAM_FINAL) {
            if (t.frame == 0)
                p->accepts = true;
            else if (add(p, p->frames[t.frame].ret, p->frames[t.frame].below, err) != 0)
                return -1;
        }
        if (g->n_bytes[t.node]) {
            if (mem_grow(&p->found, &p->cap_found, p->n_found + 1, sizeof *p->found, MAX_POOL, "threads of the grammar", err) != 0)
                return -1;
            p->found[p->n_found++] = t;
        }
        for (uint32_t i = g->first[t.node] + g->n_bytes[t.node]; i < g->first[t.node + 1]; i++) {
            const struct gram_edge *e = &g->edges[i];
            if ((e->rule == GRAM_EDGE_EMPTY ? add(p, e->to, t.frame, err) : call(p, e, t.frame, err)) != 0)
                return -1;
        }
    }
    return 0;
}

static int by_thread(const void *a, const void *b)
{
    const struct gram_thread *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* The state of the threads found. */
static uint32_t state_of(struct gram_pool *p, struct err *err)
{
    size_t n = p->n_found;
    if (n > GRAMMAR_MAX_THREADS) {
        err_set(err, ERR_LIMIT, "the grammar can be read in %zu ways here, at most %d are followed; make it less ambiguous", n,
                GRAMMAR_MAX_THREADS);
        return GRAM_NONE;
    }
    if (n > 1)
        qsort(p->found, n, sizeof *p->found, by_thread);
    if (hash_room(p, &p->state_set, state_hash, err) != 0)
        return GRAM_NONE;
    size_t at = threads_hash(p->found, n, p->accepts) & (p->state_set.n_slots - 1);
    for (; p->state_set.slots[at]; at = (at + 1) & (p->state_set.n_slots - 1)) {
        uint32_t i = p->state_set.slots[at] - 1;
        const struct gram_state *s = &p->states[i];
        if (s->n == n && s->accepts == p->accepts && (n == 0 || memcmp(p->threads + s->at, p->found, n * sizeof *p->found) == 0))
            return i;
    }
    if (mem_grow(&p->states, &p->cap_states, p->n_states + 1, sizeof *p->states, MAX_POOL, "states of the grammar", err) != 0 ||
        mem_grow(&p->threads, &p->cap_threads, p->n_threads + n, sizeof *p->threads, MAX_POOL, "threads of the grammar", err) != 0)
        return GRAM_NONE;
    if (gram_pool_bytes(p) > 2 * (size_t)GRAMMAR_MAX_STATE_BYTES) {
        err_set(err, ERR_LIMIT, "the grammar needs too much memory for one token; make it less ambiguous");
        return GRAM_NONE;
    }
    p->states[p->n_states] = (struct gram_state){
        .at = (uint32_t)p->n_threads, .n = (uint32_t)n, .next = GRAM_NONE, .mask = GRAM_NONE, .local = GRAM_NONE, .accepts = p->accepts};
    if (n)
        memcpy(p->threads + p->n_threads, p->found, n * sizeof *p->found);
    p->n_threads += n;
    p->state_set.slots[at] = (uint32_t)++p->n_states;
    p->state_set.n++;
    return (uint32_t)p->n_states - 1;
}

static void begin(struct gram_pool *p)
{
    p->n_work = p->n_found = 0;
    p->accepts = false;
    if (p->cap_seen > SEEN_KEPT) { /* one large state must not make all that follow slow */
        free(p->seen);
        p->seen = NULL;
        p->cap_seen = 0;
    } else if (p->n_seen) {
        memset(p->seen, 0, p->cap_seen * sizeof *p->seen);
    }
    p->n_seen = 0;
}

/* --- the pool ------------------------------------------------------------------------------------------------------------ */

int gram_pool_init(struct gram_pool *p, const struct grammar *g, struct err *err)
{
    *p = (struct gram_pool){.g = g, .max_steps = UINT64_MAX};
    if (mem_grow(&p->frames, &p->cap_frames, 1, sizeof *p->frames, MAX_POOL, "frames of the grammar", err) != 0)
        return -1;
    p->frames[0] = (struct gram_frame){0};
    p->n_frames = 1;
    begin(p);
    return state_of(p, err) == GRAM_DEAD ? 0 : -1;
}

void gram_pool_fini(struct gram_pool *p)
{
    free(p->frames);
    free(p->threads);
    free(p->states);
    free(p->next);
    free(p->frame_set.slots);
    free(p->state_set.slots);
    free(p->work);
    free(p->found);
    free(p->seen);
}

size_t gram_pool_bytes(const struct gram_pool *p)
{
    return p->cap_frames * sizeof *p->frames + p->cap_threads * sizeof *p->threads + p->cap_states * sizeof *p->states +
           p->cap_next * sizeof *p->next + (p->frame_set.n_slots + p->state_set.n_slots) * sizeof(uint32_t);
}

uint32_t gram_pool_start(struct gram_pool *p, struct err *err)
{
    begin(p);
    return add(p, p->g->starts[p->g->root], 0, err) == 0 && close_threads(p, err) == 0 ? state_of(p, err) : GRAM_NONE;
}

/* A row for the state's followers. */
static int make_row(struct gram_pool *p, uint32_t state, struct err *err)
{
    size_t n = p->g->n_classes;
    if (p->states[state].next != GRAM_NONE)
        return 0;
    if (mem_grow(&p->next, &p->cap_next, p->n_next + n, sizeof *p->next, MAX_POOL, "states of the grammar", err) != 0)
        return -1;
    memset(p->next + p->n_next, 0xff, n * sizeof *p->next);
    p->states[state].next = (uint32_t)p->n_next;
    p->n_next += n;
    return 0;
}

uint32_t gram_pool_follow(struct gram_pool *p, uint32_t state, uint8_t byte, struct err *err)
{
    const struct grammar *g = p->g;
    uint32_t next;

    if (make_row(p, state, err) != 0)
        return GRAM_NONE;
    begin(p);
    for (uint32_t i = 0; i < p->states[state].n; i++) {
        struct gram_thread t = p->threads[p->states[state].at + i];
        for (uint32_t k = g->first[t.node]; k < g->first[t.node] + g->n_bytes[t.node]; k++)
            if (g->edges[k].lo <= byte && byte <= g->edges[k].hi && add(p, g->edges[k].to, t.frame, err) != 0)
                return GRAM_NONE;
    }
    if (close_threads(p, err) != 0 || (next = state_of(p, err)) == GRAM_NONE)
        return GRAM_NONE;
    p->next[p->states[state].next + g->classes[byte]] = next;
    return next;
}

/* --- runs ---------------------------------------------------------------------------------------------------------------- */

/* Where all bytes [lo, hi] lead; GRAM_DEAD: not to one place; GRAM_NONE on failure. `known`: where others led, or GRAM_NONE. */
static uint32_t common_next(struct gram_pool *p, uint32_t state, unsigned lo, unsigned hi, uint32_t known, struct err *err)
{
    for (unsigned byte = lo; byte <= hi && known != GRAM_DEAD; byte++) {
        uint32_t next = gram_pool_step(p, state, (uint8_t)byte, err);
        if (next == GRAM_NONE)
            return GRAM_NONE;
        if (byte > lo && p->g->classes[byte] == p->g->classes[byte - 1])
            continue;
        known = known == GRAM_NONE || known == next ? next : GRAM_DEAD;
    }
    return known;
}

/* Where all characters beyond ASCII lead. */
static uint32_t common_char(struct gram_pool *p, uint32_t state, struct err *err)
{
    static const struct {
        uint8_t first_lo, first_hi, second_lo, second_hi, n;
    } forms[] = {{0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3},
                 {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    uint32_t all = GRAM_NONE;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        uint32_t at = common_next(p, state, forms[i].first_lo, forms[i].first_hi, GRAM_NONE, err);
        for (unsigned k = 1; k < forms[i].n && at != GRAM_DEAD && at != GRAM_NONE; k++)
            at = common_next(p, at, k == 1 ? forms[i].second_lo : 0x80, k == 1 ? forms[i].second_hi : 0xBF, GRAM_NONE, err);
        if (at == GRAM_NONE || at == GRAM_DEAD || (all != GRAM_NONE && all != at))
            return at == GRAM_NONE ? GRAM_NONE : GRAM_DEAD;
        all = at;
    }
    return all;
}

/* One step: whether all plain ASCII leads to one place, and all else that is plain to the same. */
static int find_step(struct gram_pool *p, uint32_t state, struct err *err)
{
    uint32_t to = common_next(p, state, 0x20, '"' - 1, GRAM_NONE, err);
    if (to != GRAM_NONE)
        to = common_next(p, state, '"' + 1, '\\' - 1, to, err);
    if (to != GRAM_NONE)
        to = common_next(p, state, '\\' + 1, 0x7E, to, err);
    uint32_t chars = to == GRAM_NONE || to == GRAM_DEAD ? to : common_char(p, state, err);
    if (to == GRAM_NONE || chars == GRAM_NONE)
        return -1;
    p->states[state].step = to;
    p->states[state].step_chars = chars == to && to != GRAM_DEAD;
    p->states[state].step_known = true;
    return 0;
}

uint32_t gram_pool_find_run(struct gram_pool *p, uint32_t state, struct err *err)
{
    uint8_t run[2] = {0, 0};
    bool chars = true;
    uint32_t at = state;

    while (run[0] < GRAM_RUN_MAX) {
        if (!p->states[at].step_known && find_step(p, at, err) != 0)
            return GRAM_NONE;
        const struct gram_state *s = &p->states[at];
        if (s->step == GRAM_DEAD)
            break;
        chars = chars && s->step_chars;
        run[0] = s->step == at ? GRAM_RUN_MAX : (uint8_t)(run[0] + 1);
        run[1] = chars ? run[0] : run[1];
        at = s->step;
    }
    memcpy(p->states[state].run, run, sizeof run);
    p->states[state].run_known = true;
    return state;
}

/* --- what is common ------------------------------------------------------------------------------------------------------ */

/* The highest frame that lies below both. */
static uint32_t common(const struct gram_pool *p, uint32_t a, uint32_t b)
{
    while (a != b) {
        if (p->frames[a].depth >= p->frames[b].depth)
            a = p->frames[a].below;
        else
            b = p->frames[b].below;
    }
    return a;
}

/* The frames of `from` above `base`, in `to`, upon its bottom. */
static uint32_t copy_frames(const struct gram_pool *from, uint32_t frame, uint32_t base, struct gram_pool *to, struct err *err)
{
    uint32_t rets[GRAMMAR_MAX_DEPTH], n = 0, copy = 0;
    for (; frame != base; frame = from->frames[frame].below)
        rets[n++] = from->frames[frame].ret;
    while (n > 0 && copy != GRAM_NONE)
        copy = frame_of(to, rets[--n], copy, err);
    return copy;
}

static uint32_t copy_state(const struct gram_pool *from, uint32_t state, uint32_t base, bool accepts, struct gram_pool *to, struct err *err)
{
    begin(to);
    to->accepts = accepts;
    for (uint32_t i = 0; i < from->states[state].n; i++) {
        struct gram_thread t = from->threads[from->states[state].at + i];
        if ((t.frame = copy_frames(from, t.frame, base, to, err)) == GRAM_NONE ||
            mem_grow(&to->found, &to->cap_found, to->n_found + 1, sizeof *to->found, MAX_POOL, "threads of the grammar", err) != 0)
            return GRAM_NONE;
        to->found[to->n_found++] = t;
    }
    return state_of(to, err);
}

uint32_t gram_pool_local(struct gram_pool *p, uint32_t state, struct err *err)
{
    const struct gram_state *s = &p->states[state];
    uint32_t base, local;

    if (s->local != GRAM_NONE)
        return s->local;
    base = s->n ? p->threads[s->at].frame : 0;
    for (uint32_t i = 1; i < s->n && base; i++)
        base = common(p, base, p->threads[s->at + i].frame);
    if (p->frames[base].depth > GRAMMAR_MAX_DEPTH - NEAR_DEPTH) /* what is below counts: calls are about to be refused */
        base = 0;
    local = base ? copy_state(p, state, base, false, p, err) : state;
    if (local != GRAM_NONE)
        p->states[state].local = local;
    return local;
}

uint32_t gram_pool_move(const struct gram_pool *from, uint32_t state, struct gram_pool *to, struct err *err)
{
    return copy_state(from, state, 0, from->states[state].accepts, to, err);
}
