#ifndef TOPOLOGY_PLANNER_H
#define TOPOLOGY_PLANNER_H

/* Which layers go to which device: a pure function from what a model costs and what a cluster has to the best chain of stages,
 * with what it will do and why. Called by `plan`, by the coordinator before it configures workers, and again when a node came or
 * went. Any thread; allocates, never blocks; the same input gives the same plan.
 *
 * The model comes as costs by layer (model/cost.h reads them from a GGUF; coordinator/costs.h puts them in here), the cluster
 * as nodes with devices. A chain visits each node at most once; a node's devices stand side by side in it; every device takes a
 * contiguous range. The first stage also holds the embedding, the last the output head. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "topology/cost.h"

enum {
    PLAN_MAX_NODES = 60,
    PLAN_MAX_DEVICES = 16, /* of a node */
    PLAN_MAX_LAYERS = 1024,
    PLAN_MAX_TYPES = 24, /* of quantizations in one model */
    PLAN_MAX_PINS = 64,
    PLAN_MAX_ADVICE = 16,
    PLAN_NAME_BYTES = 64,
};

/* --- the model ---------------------------------------------------------------------------------------------------------- */

/* What one layer, the embedding or the head needs and does. Weights are counted by type (an index that plan_model.types
 * names). */
struct plan_part {
    double weights[PLAN_MAX_TYPES];        /* matrices that every row goes through */
    double expert_weights[PLAN_MAX_TYPES]; /* of all experts together */
    uint64_t other_bytes;                  /* vectors and padding: the same on every device */
    uint64_t file_bytes;                   /* as they lie in the model file */
    uint64_t kv_bytes;                     /* KV cache: all sequences, full context */
    double kv_position_bytes;              /* read for one position of context */
    double attn_ops;                       /* operations for a row and a position of context */
    bool sliding;
};

struct plan_model {
    const char *type_names[PLAN_MAX_TYPES];
    double type_bits[PLAN_MAX_TYPES]; /* of a weight in memory, the most of any device */
    uint32_t n_types;
    uint32_t n_layers;
    const struct plan_part *layers;
    struct plan_part embed, head; /* tied: the head's weights are the embedding's, held once where both are one stage */
    bool tied;
    uint32_t experts, experts_used, window;
    uint64_t scratch_bytes, scratch_head_bytes; /* a stage's buffers; those of the last one besides */
    uint64_t wire_bytes;                        /* a stage's buffers for its links */
    double row_bytes;                           /* one row on the wire */
    double copy_bytes;                          /* one row between the host's memory and a device's, or between two devices */
    double token_bytes;                         /* one row from and to the coordinator */
};

/* --- the cluster -------------------------------------------------------------------------------------------------------- */

struct plan_range {
    uint32_t first, last; /* layers [first, last); first == last: none */
};

struct plan_device {
    const char *name;      /* "cpu", "cuda:0" */
    uint64_t memory_bytes; /* what we may use */
    uint64_t reserve_bytes; /* left free of that: what no plan counts */
    double read_bps;       /* bytes a second */
    double copy_bps, back_bps; /* from the host's memory to it, and back; 0: it is the host's memory, nothing is copied */
    double peer_bps[PLAN_MAX_DEVICES]; /* straight to another device of the node; 0: by the host */
    double ops[COST_ROWS][PLAN_MAX_TYPES]; /* operations (multiply and add are two) a second, with 1, 8, 512 rows, by type */
    double attn_ops[COST_ROWS]; /* the same in attention: rows of as many sequences, at last of one prompt */
    double fixed_us;       /* a batch, whatever it holds */
    double bits[PLAN_MAX_TYPES]; /* of a weight, from the worker's hello; 0: the most of any */
    double disk_bps;       /* > 0: layers beyond memory may be read from disk for every batch */
    int32_t group;         /* shared memory bus, or processors: index into plan_input.groups; -1: none */
    double processors;     /* how many it uses, where the group shares them */
    const char *numerics;  /* class: equal ones give the same bits; NULL: the node's */
    struct plan_range resident; /* layers it holds now */
};

struct plan_node {
    const char *name;
    uint32_t n_devices;
    struct plan_device devices[PLAN_MAX_DEVICES];
    bool standby; /* used only where it does not go without, and first to replace a lost node */
    bool away;    /* drained or gone: not used */
    int32_t group; /* shared uplink; -1: none */
    double watts;
    const char *numerics; /* class of devices that do not say; NULL: unknown */
};

struct plan_link {
    double latency_us; /* one way */
    double bps;        /* bytes a second */
};

struct plan_group {
    const char *name;
    double bps;      /* what its members have together: bytes a second … */
    bool processors; /* … or processors, which a member uses as long as it computes, not only while it reads */
};

enum plan_pin_what { PIN_LAYERS, PIN_EMBED, PIN_HEAD };
struct plan_pin {
    enum plan_pin_what what;
    struct plan_range layers; /* PIN_LAYERS */
    uint32_t node;
    bool never; /* not there, instead of nowhere else */
};

enum plan_objective { PLAN_LATENCY, PLAN_THROUGHPUT, PLAN_BALANCED, PLAN_OBJECTIVES };

/* Some half a second of one core, and a tenth for latency, which is one question and not dozens. Exact but where many nodes have hardly
 * more memory than the model takes, or share links. */
enum { PLAN_EFFORT = 250000, PLAN_EFFORT_LATENCY = 30000 };
uint64_t plan_usual_effort(enum plan_objective o);

struct plan_input {
    const struct plan_model *model;
    uint32_t n_nodes;
    const struct plan_node *nodes;
    /* (n + 1)²: from node i to node j at [i * (n + 1) + j]; n is the coordinator. */
    const struct plan_link *links;
    uint32_t n_groups;
    const struct plan_group *groups;
    uint32_t n_pins;
    const struct plan_pin *pins;
    enum plan_objective objective;
    uint32_t parallel;  /* sequences decoding at once: the N of throughput and balanced */
    double context;     /* positions a row looks at, on average */
    double prompt_share; /* prompt rows that are read for every token that is chosen: throughput and balanced weigh them */
    uint32_t max_rows;  /* of a batch: bounds prompt chunks */
    bool use_resident;  /* among plans within resident_tolerance of the best prefer the one that loads the fewest bytes */
    double resident_tolerance; /* 0: 5% */
    double price_per_kwh; /* 0: not known */
    uint64_t effort;      /* states to look at before it settles for a bound; 0: plan_usual_effort() */
    bool by_end;          /* for tests: goes through the last nodes one by one at once, not only when all else was not enough */
};

/* --- the plan ----------------------------------------------------------------------------------------------------------- */

struct plan_stage {
    uint32_t node, device;
    struct plan_range layers;
    uint64_t weights_bytes, kv_bytes, scratch_bytes, wire_bytes; /* in memory */
    uint64_t reserve_bytes, memory_bytes;                        /* the device's */
    uint64_t disk_bytes;   /* of the weights, not held but read for every batch */
    uint64_t load_bytes;   /* of the model file, not resident yet */
    double decode_us;      /* a step of one sequence */
    double chunk_us;       /* a chunk of a prompt */
    double hop_us;         /* the way of one row to it */
};

enum plan_bottleneck { BOTTLENECK_STAGE, BOTTLENECK_LINK, BOTTLENECK_GROUP };

struct plan {
    uint32_t n_stages;
    struct plan_stage stages[COST_MAX_STAGES];
    struct cost_pipeline costs; /* the same as the formulas take it, for predictions with other numbers */
    enum plan_objective objective;
    double value_us, bound_us; /* of the objective: this plan's; no plan can have less */
    double gap;                /* value / bound - 1; 0: it is the best */
    double placement_bound;    /* bound 7: tokens/s that no placement of layers at all could pass, tied to no chain */
    double tokens_per_s_1, tokens_per_s_n, ttft_us; /* ttft: of 512 tokens */
    uint32_t n, m;             /* sequences; batches in flight */
    uint32_t chunk;            /* rows of a prompt's chunk */
    enum plan_bottleneck bottleneck;
    uint32_t bottleneck_index; /* stage, hop or group */
    uint64_t load_bytes;
    double watts, cost_per_mtok; /* of the nodes used; 0: not known */
    enum plan_failover { FAILOVER_NONE, FAILOVER_CONTINUING, FAILOVER_IDENTICAL } failover;
    bool used_standby;
    uint64_t states; /* looked at */
};

/* Fills *ret. -1: ERR_MEMORY when no plan fits (the text says how many bytes are missing and what each node could hold),
 * ERR_USAGE when pins contradict each other, ERR_LIMIT when the input is beyond the limits above. */
int plan_make(const struct plan_input *in, struct plan *ret, struct err *err);

/* Predicts for given stages (node, device and layers set, in order) what plan_make would say of them; -1 and err when they do
 * not fit or leave layers out. For `what if`, for tests, and for a placement that somebody else made. */
int plan_evaluate(const struct plan_input *in, const struct plan_stage *stages, uint32_t n_stages, struct plan *ret, struct err *err);

/* Whether there is any plan at all, standby nodes included: much quicker than the best one. */
bool plan_fits(const struct plan_input *in);

/* Sentences that follow from planning again without each node, with each standby node and with other settings: "drop node c: 9%
 * faster". Each ends up in ret_advice; returns how many. */
struct plan_advice {
    char text[256];
};
uint32_t plan_advise(const struct plan_input *in, const struct plan *plan, struct plan_advice ret_advice[PLAN_MAX_ADVICE]);

/* Whether no stage can be on a node, whatever the others hold: none of its devices has room for a single layer, or pins keep all
 * layers away. text says why. A node that is away is not looked at: false. */
bool plan_holds_nothing(const struct plan_input *in, uint32_t node, char *text, size_t size);

/* The bytes that are missing for the model to fit at all, 0 if it fits as far as sums can tell. */
uint64_t plan_missing_bytes(const struct plan_input *in);

const char *plan_objective_name(enum plan_objective objective);
const char *plan_failover_name(enum plan_failover failover);

#endif
