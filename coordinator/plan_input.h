#ifndef COORDINATOR_PLAN_INPUT_H
#define COORDINATOR_PLAN_INPUT_H

/* From a model's header, a topology and settings to the planner's input: the one place where the three meet. What nobody
 * measured is guessed, and said. The coordinator overwrites nodes[] with what workers' hellos say (memory, rates, bits,
 * residents) before it plans. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "model/cost.h"
#include "topology/planner.h"
#include "topology/topology.h"

enum {
    PLAN_DEFAULT_CTX = 8192,
    PLAN_DEFAULT_PARALLEL = 4,
    PLAN_DEFAULT_ROWS = 512, /* of a batch */
    PLAN_DEFAULT_DEPTH = 1024,
    PLAN_CTX_STEP = 256,     /* a lowered context is a multiple of this */
    PLAN_WIRE_BATCHES = 4,   /* in and out of a stage, at most */
    PLAN_PROMPT_SHARE = 2,   /* prompt rows read for every token chosen, as in conversations (docs/planning.md) */
    PLAN_ANSWERS_ALONE = -1, /* none */
    PLAN_MAX_PROMPT_SHARE = 10000,
    PLAN_MAX_EFFORT = 1000,
    PLAN_TOKEN_BYTES = 256,  /* a row between coordinator and pipeline, header included */
    PLAN_ROW_HEADER = 32,    /* a row's share of a frame's header */
};
/* Left free on a device: the process itself with its libraries and I/O buffers; a CUDA context. */
#define PLAN_RESERVE_CPU ((uint64_t)96 << 20)
#define PLAN_RESERVE_GPU ((uint64_t)512 << 20)

enum plan_wire { PLAN_WIRE_F32, PLAN_WIRE_F16, PLAN_WIRE_Q8_0, PLAN_WIRE_AUTO };

struct plan_settings {
    enum plan_objective objective;
    enum kv_type kv;
    enum plan_wire wire;
    uint32_t ctx;      /* 0: min(the model's, 8192), lowered until it fits */
    uint32_t parallel; /* 0: the default */
    uint32_t kv_total; /* positions of all sequences together; 0: ctx for each */
    uint32_t max_rows; /* 0: the default */
    uint32_t depth;    /* positions a row looks at on average, for predictions; 0: min(half the context, 1024) */
    double prompt_share; /* 0: PLAN_PROMPT_SHARE; PLAN_ANSWERS_ALONE */
    double effort;       /* a multiple of the default; 0: 1 */
};

struct plan_source {
    struct plan_input in; /* points into what follows: the struct stays where it is */
    struct plan_model model;
    struct plan_part *layers;
    struct plan_node *nodes; /* as the topology's */
    struct plan_link *links;
    struct plan_group groups[COST_MAX_GROUPS];
    struct plan_pin pins[PLAN_MAX_PINS];
    uint32_t ctx, parallel;
    enum plan_wire wire; /* never AUTO: f32 until the plan says otherwise */
    bool ctx_lowered;
    struct strbuf guesses; /* sentences, one a line: what was not measured */
};

/* -1 and err when the model is wrong or pins name layers that it has not. plan_source_fini in either case. */
int plan_source_init(struct plan_source *s, const struct gguf *g, const struct model_params *p, const struct topology *t,
                     const struct plan_settings *set, struct err *err);
void plan_source_fini(struct plan_source *s);

/* Operations a second in attention on processors whose products of a prompt make so many, by cost_rows[k], where nobody measured them. A
 * prompt's rows share the reading of keys and values; one row makes half of what they do (docs/performance.md). */
double plan_guess_attention(int k, double products);

/* Plans, with the context lowered where it was not given and does not fit, and f16 on the wire where that was left to us and a
 * link is the bottleneck. s is initialized again for that; hello's numbers are put in by `adjust` (NULL: none) each time. */
typedef void (*plan_adjust_fn)(void *arg, struct plan_source *s);
int plan_source_make(struct plan_source *s, const struct gguf *g, const struct model_params *p, const struct topology *t,
                     const struct plan_settings *set, plan_adjust_fn adjust, void *arg, struct plan *ret, struct err *err);

#endif
