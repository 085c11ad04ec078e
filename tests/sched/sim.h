#ifndef TESTS_SCHED_SIM_H
#define TESTS_SCHED_SIM_H

/* A pipeline in simulated time for tests of sched/: stages that take frames in order, each with its own tables and paged KV, and
 * a coordinator that does what sched.h asks. With `hash` every row is computed: layer by layer it stores a hash of its input in
 * the KV and reads all positions it sees through its stage's table, so that a token depends on every bit that any stage should
 * have had in its blocks; it is compared with one computed without pages, steps or companions. The first thing that is wrong
 * stands in `wrong`, and the run ends. */

#include <stdbool.h>
#include <stdint.h>

#include "sched/sched.h"

enum { SIM_MAX_LAYERS = 16 };

struct sim_request {
    uint64_t id;
    int32_t *tokens; /* prompt, then answer; n_prompt + max_new long */
    uint32_t n_prompt, max_new, n_answer; /* it stops of itself after n_answer ≤ max_new */
    uint32_t flags;
    int32_t priority;
    uint64_t salt, arrive_us, cancel_us; /* cancel 0: never */
    /* What came of it. */
    uint32_t n_tokens, n_wanted;
    bool added, refused, ended;
    uint64_t first_us, last_us, worst_gap_us, ended_us;
    uint32_t n_gaps, n_long_gaps;
    uint64_t *ref; /* layers × positions, then the last layer's outputs */
    uint32_t n_ref;
};

struct sim_fault {
    uint64_t at_us;
    uint32_t n_stages, first_layer[SIM_MAX_LAYERS + 1]; /* the new partition */
    int32_t lost_through;
    uint32_t n_blocks[SCHED_GROUPS];
};

struct sim {
    struct sched *sched;
    struct sched_config config;
    struct sched_costs truth; /* what stages and hops really take */
    bool hash, measure;       /* measure: stages report their times */
    uint32_t vary_percent;    /* a stage's times differ from the truth by up to so much either way */
    uint64_t long_gap_us;     /* gaps between tokens beyond this are counted */
    uint32_t n_layers, first_layer[SIM_MAX_LAYERS + 1]; /* of each stage; [n_stages] = n_layers */
    uint64_t seed;

    struct sim_request *requests;
    uint32_t n_requests, cap_requests;
    struct sim_fault *faults;
    uint32_t n_faults;

    /* What happened. */
    char wrong[512];
    uint64_t now_ns, n_steps, n_rows, n_rebuilt;
    uint64_t busy_ns[SCHED_MAX_STAGES], ideal_ns; /* computing; since the start */
    uint32_t n_preempted, n_dropped, max_in_flight;
    uint64_t first_step_ns, last_result_ns;

    struct sim_inside *inside;
};

/* Zeroed but for what is asked for: config is copied, truth is config's costs, 4 layers in even stages. */
void sim_init(struct sim *sim, const struct sched_config *config, uint64_t seed);
void sim_fini(struct sim *sim);
/* The caller fills in the prompt's tokens. Pointers to requests live until the next sim_request. */
struct sim_request *sim_request(struct sim *sim, uint64_t arrive_us, uint32_t n_prompt, uint32_t max_new);
struct sim_fault *sim_fault(struct sim *sim, uint64_t at_us);
/* Until nothing happens any more. true: all as it should be: every request answered, cancelled or refused with cause. */
bool sim_run(struct sim *sim);

/* Looks at the scheduler's inside (state.h): every block is free, cached or held by as many tables as it counts. NULL: fine. */
const char *sim_check(const struct sched *s);

uint64_t sim_random(uint64_t *state);
uint32_t sim_below(uint64_t *state, uint32_t n);

#endif
