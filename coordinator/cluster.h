#ifndef COORDINATOR_CLUSTER_H
#define COORDINATOR_CLUSTER_H

/* What the engine's one thread owns, for the files of this folder: nodes (nodes.c), the configuration of the pipeline
 * (pipeline.c, planning.c), the steps that travel through it (steps.c), requests (engine.c). Nobody else includes this.
 *
 * The thread's loop is engine.c's: wire events, mail from other threads, time. Each of the files handles its part of an event
 * and never blocks. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/queue.h"
#include "bulk/bulk.h"
#include "coordinator/activity.h"
#include "coordinator/children.h"
#include "coordinator/engine.h"
#include "coordinator/relay.h"
#include "coordinator/request.h"
#include "model/arch.h"
#include "proto/codec.h"
#include "proto/keys.h"
#include "proto/wire.h"
#include "sched/sched.h"

enum {
    CLUSTER_MAX_NODES = 256,
    CLUSTER_MAX_EVENTS = 256, /* sentences remembered for the page */
    CLUSTER_EVENT_BYTES = 240,
    CLUSTER_LEFT_OUT_BYTES = 200,
    CLUSTER_HELLO_BYTES = 1 << 16, /* what we keep of a hello */
    HEARTBEAT_MS = 250,
    LOST_MS = 1000,
    TEST_MS = 10000,        /* for the chain's answer to the test batch, once all are ready */
    GRACE_MS = 500,         /* for a lost node to come back, before others are asked to load its layers */
    CHILD_GRACE_MS = 3000,  /* the same for a process of our own, which is being started again */
    CHILD_MAX_RESTARTS = 5, /* before the first answer: then the fault is not the process's */
    LINK_MS = 5000,         /* for the chain's links, once all are loaded */
    GATHER_MS = 10000,      /* how long a start waits for nodes that are in the file but not there */
    REDIAL_MIN_MS = 100,
    REDIAL_MAX_MS = 5000,
    REDIAL_NEEDED_MS = 500, /* the same while the pipeline waits for nodes */
    PLAN_AGAIN_MS = 500,    /* between two looks for a plan when there is none */
    RETRY_MIN_MS = 100,     /* an epoch that brought nothing is followed by the next one after so long, */
    RETRY_MAX_MS = 5000,    /* … doubled each time, up to this */
    DISTRUST_MIN_MS = 1000, /* a node that could not load is planned without for so long, doubled each time, */
    DISTRUST_MAX_MS = 60000,
    RESPAWN_MAX_MS = 5000,  /* between two starts of a process of our own that ends at once */
    BLAME_MAX = 3,          /* so often may the requests under way end an epoch before anything came of it */
    CLOCK_MS = 10000,       /* so long a quick answer's offset of clocks stands above slower ones' */
    QUIET_MS = 1000,        /* without requests for so long, a node that came is taken in */
    RECOVER_TIMEOUT_MS = 120000,
    ORPHAN_MS = 600000,
    NODE_PURPOSES = 1 << LINK_CONTROL | 1 << LINK_DATA | 1 << LINK_BULK, /* what links a node may have */
    MAX_WANTED = 64, /* rows of a step whose logits are asked for: a row of logits is half a megabyte */
    DEFAULT_ROWS = 512,
};

enum node_state {
    NODE_AWAY, /* no link; dialed again in a while, or waited for */
    NODE_DIALING,
    NODE_GREETING, /* the link is up, its hello has not come */
    NODE_HERE,     /* usable */
    NODE_DRAINED,  /* here, but not to be used */
};

struct node {
    char name[MSG_MAX_NAME + 1];
    char address[MSG_MAX_ADDRESS + 1]; /* "": it dials us */
    uint8_t key[KEY_BYTES];
    bool has_key, standby, drained, declared; /* declared: in the topology, or a child of ours: a start waits for it */
    int child;                                /* its number, -1: not ours */
    enum node_state state;
    struct wire_link *control;
    int64_t seen_us, dial_at_us, drained_until_us; /* of a drained one; 0: until it is taken back */
    unsigned redial_ms;
    bool leaving;   /* it ends, and asks to be planned without */
    bool refused;   /* a process of our own that ended by itself before it was here: it would again */
    bool said_away; /* the reason why it is not here has been told */
    bool told_address; /* by itself: it may be another the next time */
    bool unusable;  /* its hello makes no sense to the planner */
    char left_out[CLUSTER_LEFT_OUT_BYTES]; /* why no plan can have it; "": one may */

    struct arena memory; /* of the hello */
    struct msg_hello hello;
    int64_t clock_offset_us;            /* its clock minus ours, */
    int64_t clock_way_us, clock_at_us;  /* from the quickest answer of late: half its way, and when */
    uint64_t peer_now_us, peer_seen_us; /* its last heartbeat's time, and when it came */
    uint64_t memory_caps[MSG_MAX_DEVICES]; /* of its hello's devices: a stage that was larger did not fit; 0: none */
    uint64_t restarts;
    int64_t start_at_us;               /* of a process of our own that ended: when it is started again; 0: it runs */
    unsigned respawn_ms, load_errors;  /* the latter in a row */
    int64_t distrusted_until_us;       /* it could not load: planned without */
};

struct pipe_stage {
    uint32_t node; /* index */
    char device[MSG_MAX_NAME + 1];
    uint32_t first, last; /* layers [first, last) */
    bool ready, kept;     /* kept: its KV is what it was in the epoch before */
    uint64_t instance;    /* of the worker process */
    struct msg_ready was_ready;
    uint64_t done_bytes, total_bytes; /* loading */
    double compute_us; /* moving average of its batches */
};

enum pipe_phase {
    PIPE_GATHERING, /* nodes are awaited */
    PIPE_LOADING,   /* configured; not all are ready */
    PIPE_LINKING,   /* ready; our links to the first and last stage are not up */
    PIPE_TESTING,   /* the test batch is on its way */
    PIPE_RUNNING,
    PIPE_FAILED, /* it will not come up: err says why */
};

struct pipe {
    enum pipe_phase phase;
    int64_t since_us; /* in this phase */
    struct msg_epoch epoch;
    uint32_t n_stages;
    struct pipe_stage stages[COST_MAX_STAGES];
    struct wire_link *first, *last;
    struct wire_link *dialing[2]; /* on their way to be those */
    bool ran_before;   /* there was a running epoch: requests may be open */
    bool landed;       /* a step of this epoch came back */
    unsigned fruitless, blamed; /* epochs in a row that ended before that; of these, by a fault of a step */
    int64_t retry_at_us;        /* not before then */
    bool fresh;                 /* a node came that no plan has seen */
    int64_t quiet_since_us;     /* there are no requests since then; 0: there are some */
    int64_t broken_us; /* since when requests wait; 0: they do not */
    bool said_stuck;   /* that there is no plan has been told */
    bool short_of_memory; /* a stage did not fit where the plan had it; why says which */
    int64_t doubt_at_us;  /* there is no plan: then devices' shortages are forgotten; 0: there is one */
    unsigned doubts;      /* how often they were, since it ran */
    struct err refusal; /* why a node could not load, before the first epoch ran; kind ERR_NONE: none did */
    char why[256];     /* what broke it */
    uint32_t n_before; /* the chain of the epoch before, for what may be kept */
    struct pipe_stage before[COST_MAX_STAGES];
    struct plan plan;
    struct err err;
};

/* A step under way: what its results mean. */
struct flight {
    uint64_t batch; /* 0: free */
    uint32_t stop_stage, n_rows;
    int64_t sent_us;
    uint32_t n_masks_due, n_masks_ahead; /* ahead: sent before its turn */
    uint32_t n_wants;
    struct flight_want {
        uint64_t seq;
        uint32_t row, pos;
        uint8_t want; /* enum sched_want */
        bool mask_due; /* its mask was not sent yet */
    } * wants;        /* max_wanted */
    uint32_t n_seqs;
    struct flight_seq {
        uint64_t seq;
        uint32_t end; /* position after its last row here */
    } * seqs;         /* max_seqs */
};

struct mail;

struct engine {
    struct engine_options options;
    struct gguf *gguf;
    struct model_params params;
    uint8_t model_id[MSG_ID_BYTES];
    struct keys *keys;
    struct wire_net *net;
    struct wire *wire;
    struct codec *codec, *data_codec;
    struct children *children;
    struct bulk *bulk; /* NULL: own workers only, which have the file */
    struct relay *relays[COST_MAX_STAGES]; /* by the upper stage; NULL: none */
    char listening[MSG_MAX_ADDRESS + 1];   /* "": nobody can dial us */
    pthread_t thread;
    bool thread_started;
    struct queue *mail;

    struct node nodes[CLUSTER_MAX_NODES];
    uint32_t n_nodes;
    struct pipe pipe;
    int64_t now_us, beat_us; /* beat: when heartbeats go out next */
    int64_t started_us;

    /* Sizes, fixed when the first epoch is configured. */
    uint32_t ctx, parallel, max_rows, max_wanted, window, n_blocks[SCHED_GROUPS], table_stride;
    enum act_type act;

    struct sched *sched;
    FILE *trace;
    struct flight *flights;
    uint32_t n_flights;
    struct masks *masks;
    uint32_t n_masks_due, n_masks_ahead; /* of all flights */
    struct msg_op *ops;
    struct msg_delta *deltas;
    uint32_t *row_slot, *row_pos;
    int32_t *row_token;
    struct msg_want *wants;
    void *head; /* of an outgoing frame */
    size_t head_cap;

    struct engine_request *requests[ENGINE_MAX_REQUESTS]; /* by id % ENGINE_MAX_REQUESTS */
    uint64_t next_id;
    uint32_t n_requests;
    uint64_t n_served, n_failed, n_tokens, n_prompt_tokens;

    struct {
        int64_t at_us;
        enum engine_note_kind kind;
        char text[CLUSTER_EVENT_BYTES];
    } events[CLUSTER_MAX_EVENTS];
    uint64_t n_events;
    struct activity activity;

    /* Seen by other threads. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_ready, is_failed, stopping;
    struct err failed;
};

/* --- engine.c ----------------------------------------------------------------------------------------------------------- */
void engine_event_text(struct engine *e, enum engine_note_kind kind, const char *node, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
struct engine_request *engine_find(struct engine *e, uint64_t id); /* NULL: gone */
void engine_finish(struct engine *e, struct engine_request *r, enum engine_reason reason);
void engine_fail(struct engine *e, struct engine_request *r, const struct err *err);
/* Requests may begin, or must wait. */
void engine_set_ready(struct engine *e, bool ready);
void engine_set_failed(struct engine *e, const struct err *err);
/* Requests that came before there was a schedule. */
void engine_schedule_all(struct engine *e);
void engine_pause_all(struct engine *e, const char *text);

/* --- nodes.c ------------------------------------------------------------------------------------------------------------ */
int nodes_init(struct engine *e, struct err *err);
void nodes_fini(struct engine *e);
void nodes_tick(struct engine *e);
void nodes_event(struct engine *e, struct wire_event *event); /* of a control link */
struct node *nodes_find(struct engine *e, const char *name);
/* Tells a node something on its control link; a link that cannot take it is as good as lost. */
void nodes_send(struct engine *e, struct node *n, const struct msg *m);
/* Whether `from` can dial it; NULL: we ourselves. An address of loopback is good on its own machine alone. */
bool nodes_can_dial(const struct node *from, const struct node *to);
/* It is gone, or as good as that: the link is closed and the pipeline told. */
void nodes_lose(struct engine *e, struct node *n, const char *why);
int nodes_drain(struct engine *e, const char *name, unsigned seconds, struct err *err);
/* We were not running for so long (a busy machine, a suspended one): that is no silence of theirs. */
void nodes_forgive(struct engine *e, int64_t us);
uint32_t nodes_index(const struct engine *e, const struct node *n);

/* --- planning.c --------------------------------------------------------------------------------------------------------- */
/* Sizes of context and batches, from the options and what the nodes have. */
int planning_sizes(struct engine *e, struct err *err);
/* The best chain of the nodes that are here, into ret_stages (node, device, layers). */
int planning_choose(struct engine *e, struct pipe_stage *ret_stages, uint32_t *ret_n, struct plan *ret_plan, struct err *err);
void planning_costs(const struct engine *e, struct sched_costs *ret);
/* A hello's devices as a topology has them; names are borrowed. */
void planning_devices(const struct msg_hello *h, struct topology_node *ret);

/* --- sift.c ------------------------------------------------------------------------------------------------------------- */
struct plan_source;
/* Before a plan: sets unusable of those that are here. */
void sift_hellos(struct engine *e);
/* After one, or when there is none: who had no room for a single layer. */
void sift_sizes(struct engine *e, const struct plan_source *s);
/* No plan can have it. */
void sift_out(struct engine *e, struct node *n, const char *why);
/* Adds to an error that there is no plan who is missing. */
void sift_explain(const struct engine *e, struct err *err);

/* --- pipeline.c --------------------------------------------------------------------------------------------------------- */
void pipeline_tick(struct engine *e);
/* A node came, or its state changed: perhaps we can begin. */
void pipeline_node_here(struct engine *e, struct node *n);
/* Something that the running epoch needs is gone. */
void pipeline_break(struct engine *e, const char *why);
/* The same, by a step: when that happens again and again, the requests under way are to blame, and fail. */
void pipeline_break_by_step(struct engine *e, const char *why);
/* On purpose: that is no fault, and why says what for. */
void pipeline_replan(struct engine *e, const char *why);
/* What n had on a device (NULL: on all) in the last epoch that ran, and what it said it holds, it has no longer. */
void pipeline_forget(struct engine *e, const struct node *n, const char *device);
/* A control message of the current epoch from a stage. */
void pipeline_message(struct engine *e, struct node *n, const struct msg *m);
void pipeline_link_event(struct engine *e, struct wire_event *event); /* of a data link */
/* The chain answered its test. */
void pipeline_tested(struct engine *e);
/* The first stage of a node in this epoch, or the one on that device; -1: none. */
int pipeline_stage_of(const struct engine *e, const struct node *n, const char *device);

/* --- steps.c ------------------------------------------------------------------------------------------------------------ */
/* After the sizes are known. */
int steps_init(struct engine *e, struct err *err);
void steps_fini(struct engine *e);
/* An epoch begins: what was under way is gone. */
void steps_begin(struct engine *e);
int steps_send_test(struct engine *e);
void steps_pump(struct engine *e);                             /* sends what the schedule wants sent */
void steps_result(struct engine *e, struct wire_frame *frame); /* releases it */
void steps_stage_done(struct engine *e, const struct msg_stage_done *done);
void steps_fail_flying(struct engine *e, const struct err *err); /* the requests of all steps under way */

/* --- masks.c ------------------------------------------------------------------------------------------------------------ */
int masks_init(struct engine *e, struct err *err);
void masks_fini(struct engine *e); /* joins */
/* Of a constrained request: its next mask is to be found, after this token (-1: the first). */
void masks_ask(struct engine *e, struct engine_request *r, int32_t token);
void masks_pump(struct engine *e); /* sends what is ready */
/* request_drop for the engine's thread, which must not wait for a mask in the making. */
void masks_drop(struct engine *e, struct engine_request *r);

/* --- weights.c ---------------------------------------------------------------------------------------------------------- */
int weights_init(struct engine *e, struct err *err);
void weights_event(struct engine *e, struct wire_event *event); /* of a bulk link */
/* Where stage i may have the weights from, best first, and who may ask it (without an address). */
size_t weights_sources(struct engine *e, uint32_t stage, struct msg_source ret[MSG_MAX_SOURCES]);

/* --- status.c ----------------------------------------------------------------------------------------------------------- */
json_t *status_json(struct engine *e);
/* Shows how things stand to whoever looks at the activity. */
void status_show(struct engine *e);

#endif
