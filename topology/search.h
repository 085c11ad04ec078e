#ifndef TOPOLOGY_SEARCH_H
#define TOPOLOGY_SEARCH_H

/* Inside search*.c only: what one question (space.h) is answered with. search.c walks from partial chains to longer ones;
 * search_limits.c says what anything costs at least and what is impossible, search_labels.c keeps partial chains, search_sets.c
 * looks at sets of nodes, search_prices.c bounds what they cost from below by what layers are worth, search_joint.c more sharply. */

#include <string.h>

#include "topology/space.h"

enum {
    SEARCH_SETS_MAX = 1 << 17,
    SEARCH_LABELS_MAX = 1 << 22,
    SEARCH_JOINT_SETS = 64, /* the first ones get joint bounds at once */
};
#define SEARCH_NONE UINT32_MAX
#define SEARCH_SLACK 1e-9       /* relative; sums of the same numbers in another order differ by less */
#define SEARCH_FLOAT_SLACK 1e-6 /* what sums of some dozen floats may be off */

/* A partial chain. */
struct search_label {
    double sum, f;
    uint64_t used;
    uint32_t parent, next; /* next: in the hash bucket */
    uint32_t device;       /* in space.devices */
    uint16_t mask;         /* devices of its node that are used … */
    uint16_t onward;       /* … and that may come next */
    uint16_t first, last;
    bool stays;            /* one of them must: the rows go straight to it */
    bool dead;
};

/* A device as the bound sees it, at its own price or with its node's hop spread over it. */
struct search_item {
    double price, capacity; /* us for all layers' worth; share of all layers */
    uint32_t kind, index;
    bool open; /* for the node that the chain is in: no hop to pay */
};

struct search_device {
    double *read, *compute; /* sums over layers, for this batch */
    double head_read, head_compute;
    double price, capacity;
    double end_us; /* what the head adds at least to a stage that is the last */
};

struct search_set {
    float bound;
    uint32_t nodes; /* as a number, like label.used */
};

struct search {
    const struct space *s;
    const struct search_ask *ask;
    struct arena arena;
    uint32_t n, n_groups;
    bool singles; /* every kind has one member, and stride 2^kind */
    uint64_t strides[PLAN_MAX_NODES], full;
    double *share; /* of all layers, in the first l: by bytes or time, whichever bounds more */
    bool by_time;
    struct search_device *costs;
    struct search_item *items, *own_items; /* own: those at their own price alone, which is all that counts in a set */
    uint32_t n_items, n_own_items;
    struct cost_hop *hops; /* (kinds + 1)², the last is the coordinator; [k][k]: between two members */
    double *home_us;       /* from a kind to the coordinator */
    double *in_us, *out_us; /* of a kind: the least that copies cost when rows come from another node, and go to one */
    double least_us;       /* what any chain costs at least */
    double *end_us, least_end_us; /* the same, with the head on the least of its devices; the least of all kinds */
    uint32_t ends_in; /* a kind, to which the last stage belongs; SEARCH_NONE: any */
    /* the table: layers [covers[set], n) can be covered by the set; NULL: there is none */
    uint16_t *covers;
    uint16_t *forward[SPACE_MAX_DEVICES]; /* device → furthest end from a beginning */
    uint16_t *ahead[PLAN_MAX_NODES];      /* kind → [mask of devices left][beginning] → furthest end */

    /* set by set: NULL where there are too many sets */
    const float *paths;
    uint32_t ways; /* of a set in paths */
    float *arrivals; /* [set][kind]: the least from the coordinator through all of the set to one of the kind, which comes last; NULL: none */
    struct search_set *sets;
    uint64_t outside;  /* nodes that are not in the present set count as used */
    bool whole;        /* a chain must use all of the present set */
    double *fixed_us;  /* of a kind: the least that a batch costs on one of its devices */
    struct search_prices *prices; /* NULL: none */
    struct search_joint *joint;   /* NULL: none */
    bool joint_rests; /* search_joint_rest_us() may be asked */

    struct search_label *labels;
    double *busy; /* n_groups a label */
    size_t n_labels, cap_labels;
    uint32_t *buckets, bucket_mask;
    uint32_t *heap;
    size_t n_heap, cap_heap;
    double best; /* sum of the best complete chain */
    uint32_t best_parent;
    uint64_t best_used;
    struct search_stage best_last;
    bool full_up; /* SEARCH_LABELS_MAX or memory */
    struct err *err;
    bool failed;
};

/* Of search_prices.c; search_joint.c reads times and prices, and moves the prices. */
struct search_prices {
    /* Of every device and first layer p: the times of ranges [p, p + 1) to [p, upto). */
    size_t *at;
    uint16_t *upto;
    double *us;
    double *price, *kept;   /* of layers */
    double *before;         /* the price of layers [0, l) */
    double *surplus;        /* of a layer: how much oftener it is wanted than it should be, negated */
    double *loss;           /* [layer p][kind]: the least of a node that has nothing before p */
    double *losses;         /* [layer p][half][set]: sums of them, where every kind has one member */
    double *device_loss;    /* [layer p][device] */
    double scale;           /* what sums of prices and losses are made of */
};

/* The bound as a function of the share that is left: pieces of rising price. */
struct search_bound {
    uint32_t n;
    double upto[2 * SPACE_MAX_DEVICES + 1], cost[2 * SPACE_MAX_DEVICES + 1]; /* at the end of a piece */
};

/* to = min(to, from + by). Compilers make jumps of the plain loop, which are guessed wrong half of the time. */
static inline void search_lower(float *to, const float *from, float by, uint32_t n)
{
    typedef float lanes __attribute__((vector_size(4 * sizeof(float))));
    typedef int32_t masks __attribute__((vector_size(4 * sizeof(float))));
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        lanes sum, old;
        memcpy(&sum, from + i, sizeof sum);
        memcpy(&old, to + i, sizeof old);
        sum += by;
        masks less = sum < old;
        sum = (lanes)(((masks)sum & less) | ((masks)old & ~less));
        memcpy(to + i, &sum, sizeof sum);
    }
    for (; i < n; i++)
        to[i] = from[i] + by < to[i] ? from[i] + by : to[i];
}

/* Cleared memory of the question's arena; NULL: x->failed. */
void *search_take(struct search *x, size_t count, size_t size);

/* --- search_limits.c ------------------------------------------------------------------------------------------------------ */

/* What ranges of layers take on each device with this batch, hops, and the prices that bounds are made of; in this order. */
void search_costs(struct search *x);
void search_find_hops(struct search *x);
void search_make_items(struct search *x);
/* How many members of the kind are in `used`. */
uint32_t search_count(const struct search *x, uint64_t used, uint32_t kind);
double search_read_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q);
/* A set's smaller ones: the kinds of which it has some, one after another. Sets are counted up from 1. */
struct search_members {
    uint32_t digits[PLAN_MAX_NODES]; /* members of each kind */
    uint32_t kinds[PLAN_MAX_NODES], n;
};
void search_next_set(const struct search *x, uint64_t set, struct search_members *m);
/* The stage's time, so much of which are copies, without what it waits for its disk; false where the range cannot be there, or not
 * within the cap. */
bool search_place(const struct search *x, uint32_t d, uint32_t p, uint32_t q, double copy_us, double *ret_us);
/* The hop from a node of kind a to one of kind b (kinds: the coordinator), with what copies cost at least at its end. */
double search_hop_us(const struct search *x, uint32_t a, uint32_t b);
/* The furthest end of a stage that begins at p. */
uint32_t search_furthest(const struct search *x, uint32_t d, uint32_t p);
void search_make_bound(const struct search *x, uint64_t used, uint32_t open, uint32_t mask, struct search_bound *ret);
/* INFINITY: more is left than all that is unused can take. *at is where the last question, of a smaller rest, was answered. */
double search_bound_at(const struct search_bound *b, double rest, uint32_t *at);
/* The least that a stage of this range may take by itself; INFINITY: it cannot be there, or not within the cap. */
double search_least_stage_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q);
/* x->covers, where it is worth its time. */
void search_make_table(struct search *x);
bool search_can_finish(const struct search *x, uint64_t used, uint32_t kind, uint32_t mask, uint32_t last);

/* --- search_labels.c ------------------------------------------------------------------------------------------------------ */

/* Keeps and opens the label unless an equal or better one stands in its place. */
void search_add_label(struct search *x, struct search_label l, const double *busy);
bool search_before(const struct search *x, uint32_t a, uint32_t b);
uint32_t search_pop(struct search *x);

/* --- search_sets.c -------------------------------------------------------------------------------------------------------- */

/* x->paths; false where there are too many sets. */
bool search_find_paths(struct search *x);
/* x->arrivals; the same. */
bool search_find_arrivals(struct search *x);
/* The shortest way from the coordinator through all of the set and back, with the head's least; where chains end in a kind, by it. */
double search_path_us(const struct search *x, uint64_t set);
/* Into x->sets, in ascending order: those whose bound is below the best so far. Returns how many. */
uint32_t search_list_sets(struct search *x);
/* Their bounds raised by prices, then by joint ones; the same again. */
uint32_t search_price_sets(struct search *x, uint32_t n);
uint32_t search_join_sets(struct search *x, uint32_t n);
/* What chains of all the set's nodes take at least, by joint prices. */
double search_joint_bound(struct search *x, uint64_t set);

/* --- search_prices.c ------------------------------------------------------------------------------------------------------ */

/* x->prices, unless there are too many ranges. */
void search_make_prices(struct search *x);
/* Chains end in other kinds now; prices stay. */
void search_price_ends(struct search *x);
/* Better prices for chains that use all of the set. Returns the bound of their stages, without the head's least and copies; not below
 * target_us is good enough. joint: for search_joint_us(). */
double search_better_prices(struct search *x, uint64_t set, double target_us, int steps, bool joint);
/* What the following use are tables that this makes of the present prices. */
void search_use_prices(struct search *x);
/* A stage's least, as the following reckon it. */
double search_priced_stage_us(const struct search *x, uint32_t d, uint32_t p, uint32_t q);
/* What stages on all that is unused take at least for layers [from, n), without the head's least and copies. */
double search_priced_us(const struct search *x, uint64_t used, uint32_t from);
/* How much less that may be with other devices of the node that the chain is in; zero or negative. */
double search_priced_own_us(const struct search *x, uint32_t kind, uint32_t mask, uint32_t from);

/* --- search_joint.c ------------------------------------------------------------------------------------------------------- */

/* x->joint, where there are prices and nodes do not have too many devices. */
void search_make_joint(struct search *x);
/* The following use tables that this makes of the present prices. */
void search_use_joint(struct search *x);
/* What stages on all nodes of the set take at least, without the head's least and copies. */
double search_joint_us(struct search *x, uint64_t set);
/* The same of search_better_prices(), which has summed prices up: stages that together make up that bound are taken from surplus. */
double search_want_joint(struct search *x, uint64_t set);
/* For subsets of `within`: x->joint_rests, unless there are too many. */
void search_find_joint_rests(struct search *x, uint64_t within);
/* Stages for layers [from, n) on all nodes that are not used and on some, or none, of the devices left of the node that the chain is in. */
double search_joint_rest_us(const struct search *x, uint64_t used, uint32_t kind, uint32_t mask, uint32_t from);

#endif
