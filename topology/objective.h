#ifndef TOPOLOGY_OBJECTIVE_H
#define TOPOLOGY_OBJECTIVE_H

/* Inside topology/ only: the objectives as questions to search.c. A candidate is a chain that answered one of them. */

#include "topology/space.h"

/* Objectives have one of two forms of a chain's sum S and its slowest part M: max(m M, S) or S + (k - 1) M. */
struct form {
    bool added;
    double weight; /* m, or k - 1 */
    struct cost_batch batch;
};

struct candidate {
    bool found, proved;
    double value, bound;
    uint32_t n_stages;
    struct search_stage stages[COST_MAX_STAGES];
};

struct planning {
    const struct space *s;
    double byte_us;
    uint64_t effort_left, states;
    struct err *err;
};

struct cost_batch objective_decode_batch(const struct plan_input *in, double rows);
/* The same with the prompt rows that go with them: what a pipeline is occupied with, over time. */
struct cost_batch objective_mixed_batch(const struct plan_input *in, double rows);
bool objective_any_disk(const struct space *s);

/* The stages (node and layers set) as the formulas take them. */
void objective_pipeline(const struct space *s, const struct plan_stage *stages, uint32_t n, const struct space_device *const *devices,
                        struct cost_pipeline *ret);
double objective_value(const struct form *f, const struct cost_pipeline *p);
/* Names the nodes: the members of a kind in order. */
void objective_name_stages(const struct space *s, const struct search_stage *from, uint32_t n, struct plan_stage *ret,
                           const struct space_device **ret_devices);

/* The best chain for the objective and the form its value has. */
int objective_best_chain(struct planning *pl, struct candidate *best, struct form *ret_form);
/* Among plans within the tolerance the one that loads least: bytes get a price, from what settles ties to what settles all. */
int objective_keep_resident(struct planning *pl, struct candidate *best, const struct form *form);

#endif
