#ifndef TESTS_TOPOLOGY_RANDOM_INPUT_H
#define TESTS_TOPOLOGY_RANDOM_INPUT_H

/* Random clusters and models for tests of the planner. */

#include <stdint.h>

#include "topology/planner.h"

enum { RANDOM_MAX_LAYERS = 128 };

struct random_input {
    struct plan_input in;
    struct plan_model model;
    struct plan_part layers[RANDOM_MAX_LAYERS];
    struct plan_node nodes[PLAN_MAX_NODES];
    char names[PLAN_MAX_NODES][16];
    struct plan_link links[(PLAN_MAX_NODES + 1) * (PLAN_MAX_NODES + 1)];
    struct plan_group groups[COST_MAX_GROUPS];
    struct plan_pin pins[PLAN_MAX_PINS];
};

struct random_shape {
    uint32_t nodes, devices, layers; /* at most so many devices a node */
    bool uneven;                     /* layers differ, with experts, sliding windows, ties; pins, groups, disks, equal nodes */
    double room;                     /* memory of all nodes / the model's */
};

uint64_t random_next(uint64_t *state);
double random_between(uint64_t *state, double low, double high);
/* The same seed gives the same input, on every machine. */
void random_input(struct random_input *r, uint64_t seed, const struct random_shape *shape, enum plan_objective objective);

#endif
