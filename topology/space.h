#ifndef TOPOLOGY_SPACE_H
#define TOPOLOGY_SPACE_H

/* Inside topology/ only: a plan_input made ready to be searched. Costs of a range of layers on a device come as differences of
 * running sums; nodes that cannot be told apart form one kind, so that a search counts them instead of permuting them. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "topology/planner.h"

enum { SPACE_MAX_DEVICES = PLAN_MAX_NODES * PLAN_MAX_DEVICES };

/* Sums over layers [0, l) at index l. */
struct space_device {
    const struct plan_device *device;
    uint32_t kind, index; /* whose, and which of its devices */
    double *weights_us, *experts_us, *kv_us, *kv_sliding_us;
    double *row_us[COST_ROWS], *experts_row_us[COST_ROWS], *attn_us[COST_ROWS], *attn_sliding_us[COST_ROWS]; /* cost_work's */
    uint64_t *weights_bytes, *kv_bytes;
    uint32_t *forbidden; /* layers that must not be here */
    double head_us;
    struct cost_work head_work;
    uint64_t embed_bytes, head_bytes, base_bytes, memory_bytes; /* base: scratch, wire; memory: without the reserve */
    bool embed_allowed, head_allowed, disk;
    double fixed_us, disk_us_byte, group_factor;
    int32_t group;
    bool group_whole;
    /* A row's ways: from and to the host's memory (0: it lies there), straight to other devices of the node (which: reaches). */
    double in_us, out_us, peer_us[PLAN_MAX_DEVICES];
    uint32_t reaches;
    double least_in_us, least_out_us; /* whoever the neighbour is */
    uint32_t same_as; /* an earlier device of the node that it cannot be told from, or itself */
};

struct space_kind {
    uint32_t n_members, members[PLAN_MAX_NODES]; /* nodes */
    uint32_t first_device, n_devices;            /* in space.devices */
    uint32_t way; /* kinds of one number have the same links to all others */
};

struct space {
    const struct plan_input *in;
    struct arena arena;
    uint32_t n_layers, n_kinds, n_devices, n_ways;
    struct space_kind kinds[PLAN_MAX_NODES];
    struct space_device *devices;
    uint64_t *file_bytes; /* sums */
    bool standby;         /* standby nodes are in */
    struct space_paths *paths; /* search.c's: shortest ways through sets of nodes, for one size of batch */
};

struct space_paths {
    double rows, wanted; /* rows < 0: not computed yet */
    uint32_t ends_in;    /* search.h's */
    bool by_time;        /* which shares the head's costs go with */
    float *us;           /* [set left][way]: the least Σ hop from a node of the way through all of the set and home, with the head */
};

int space_init(struct space *s, const struct plan_input *in, bool standby, struct err *err);
void space_fini(struct space *s);

/* What layers [first, last) take on a device, embedding and head included where they fall into it. */
uint64_t space_weights(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last);
/* Bytes to read from disk for every batch because memory does not hold them; UINT64_MAX when the range cannot be there. */
uint64_t space_disk_bytes(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last);
void space_stage(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last, struct cost_stage *ret);
/* What a row costs a device that comes from the device before or goes to the next one; NULL: they are of other nodes. */
double space_in_us(const struct space_device *d, const struct space_device *from);
double space_out_us(const struct space_device *d, const struct space_device *to);
/* From node a to node b; n_nodes is the coordinator. a == b: inside a node. */
void space_hop(const struct plan_input *in, uint32_t a, uint32_t b, struct cost_hop *ret);
/* Bytes of the model file that a device does not hold yet. */
uint64_t space_load_bytes(const struct space *s, const struct plan_device *d, uint32_t first, uint32_t last);
/* The same as a price: a little less on nodes that stand by, so that of equals they take over. */
double space_load_cost(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last);

/* --- search.c ------------------------------------------------------------------------------------------------------------ */

/* Shortest chains: the least Σ stage + Σ hop among those whose every stage, link and group stays within `cap_us`. */
struct search_ask {
    struct cost_batch batch;
    double cap_us;   /* INFINITY: none */
    double below_us; /* only chains whose sum is below this count */
    double enough_us; /* the first chain found at or below this will do */
    double byte_us;  /* added for every byte to be loaded: for plans that keep what is resident */
    uint64_t effort; /* states */
    bool by_end;     /* as in plan_input */
    bool quick;      /* what a first look finds will do; nothing else is proved */
};

struct search_stage {
    uint32_t kind, device; /* device: index in space.devices */
    uint32_t first, last;
    bool enters; /* a node that the chain was not in */
};

struct search_answer {
    bool found, proved; /* proved: what was found is the best; or there is none */
    double sum_us;      /* byte_us included */
    double bound_us;    /* no chain that is allowed is below this */
    uint32_t n_stages;
    struct search_stage stages[COST_MAX_STAGES];
    uint64_t states;
};

int search_chain(const struct space *s, const struct search_ask *ask, struct search_answer *ret, struct err *err);

#endif
