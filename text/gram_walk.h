#ifndef TEXT_GRAM_WALK_H
#define TEXT_GRAM_WALK_H

/* The automaton while it runs, made deterministic as far as it is used. A thread is a node and the frames to which its rules
 * return (shared: a frame is a node and the frame below it). A state is a set of threads, and has a number; what follows it
 * for a class of bytes is found once. See gram_walk.c. */

#include <pthread.h>

#include "text/gram.h"

struct gram_frame {
    uint32_t ret, below, depth;
};

struct gram_thread {
    uint32_t node, frame; /* frame 0: the bottom */
};

struct gram_state {
    uint32_t at, n; /* threads [at, at + n) */
    uint32_t next;  /* where its row of followers begins; GRAM_NONE: not made */
    uint32_t mask;  /* number of its mask; GRAM_NONE: not made */
    uint32_t local; /* the state of the same threads above the frames that all have in common; GRAM_NONE: not yet known */
    bool accepts;   /* the text may end here */
    /* See gram_pool_find_run. */
    bool run_known, step_known, step_chars;
    uint8_t run[2]; /* of ASCII; of all */
    uint32_t step;  /* where one such character leads */
};

enum { GRAM_DEAD = 0 }; /* the state without threads that accepts nothing */

/* A set of numbers by hash, of objects that stand elsewhere. */
struct gram_hash {
    uint32_t *slots; /* number + 1 */
    size_t n_slots, n;
};

struct gram_pool {
    const struct grammar *g;
    struct gram_frame *frames;
    size_t n_frames, cap_frames;
    struct gram_thread *threads;
    size_t n_threads, cap_threads;
    struct gram_state *states;
    size_t n_states, cap_states;
    uint32_t *next; /* rows of g->n_classes */
    size_t n_next, cap_next;
    struct gram_hash frame_set, state_set;

    /* While a state is being found: */
    struct gram_thread *work, *found;
    size_t n_work, cap_work, n_found, cap_found;
    uint64_t *seen; /* threads, hashed; 0: free */
    size_t n_seen, cap_seen;
    bool accepts;
    uint64_t n_steps, max_steps; /* of the call at hand */
};

int gram_pool_init(struct gram_pool *p, const struct grammar *g, struct err *err);
void gram_pool_fini(struct gram_pool *p);
size_t gram_pool_bytes(const struct gram_pool *p);
/* The first state. GRAM_NONE and err on failure; so the rest. */
uint32_t gram_pool_start(struct gram_pool *p, struct err *err);
uint32_t gram_pool_follow(struct gram_pool *p, uint32_t state, uint8_t byte, struct err *err);
uint32_t gram_pool_local(struct gram_pool *p, uint32_t state, struct err *err);
/* So many characters may come from here on, each any one that is plain in a JSON string (ASCII without quote, backslash and
 * controls; chars: beyond ASCII as well). At most GRAM_RUN_MAX; that many if without end. */
enum { GRAM_RUN_MAX = 48 };
uint32_t gram_pool_find_run(struct gram_pool *p, uint32_t state, struct err *err);
/* The same state in another pool of the same grammar. */
uint32_t gram_pool_move(const struct gram_pool *from, uint32_t state, struct gram_pool *to, struct err *err);

static inline uint32_t gram_pool_step(struct gram_pool *p, uint32_t state, uint8_t byte, struct err *err)
{
    const struct gram_state *s = &p->states[state];
    uint32_t next = s->next == GRAM_NONE ? GRAM_NONE : p->next[s->next + p->g->classes[byte]];
    return next != GRAM_NONE ? next : gram_pool_follow(p, state, byte, err);
}

static inline uint32_t gram_pool_run(struct gram_pool *p, uint32_t state, bool chars, struct err *err)
{
    if (!p->states[state].run_known && gram_pool_find_run(p, state, err) == GRAM_NONE)
        return GRAM_NONE;
    return p->states[state].run[chars];
}

#endif
