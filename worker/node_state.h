#ifndef WORKER_NODE_STATE_H
#define WORKER_NODE_STATE_H

/* What the node's I/O thread knows; for node.c, control.c and links.c only. */

#include "bulk/bulk.h"
#include "proto/codec.h"
#include "proto/wire.h"
#include "worker/builder.h"
#include "worker/models.h"
#include "worker/node.h"
#include "worker/profile.h"
#include "worker/stage_thread.h"

enum { NODE_SENDS = STAGE_OUT_BUFFERS + STAGE_CONTROL_BUFFERS };

/* Quantizations whose rate is measured at the start: those that most of a model's weights are in. */
enum { NODE_RATES = 5 };

/* Nodes whose keys are known for as long as a configuration lasts. */
enum { NODE_ADMITTED = MSG_MAX_SOURCES + 2 * DEVICE_MAX };
enum { NODE_REFUSED = 8, NODE_REFUSED_MS = 1500 }; /* refusals that are told so much later */

/* One of a stage's two data links. */
struct neighbour {
    struct msg_neighbour who; /* strings and key: the arrays below */
    char node[MSG_MAX_NAME + 1], address[MSG_MAX_ADDRESS + 1];
    uint8_t key[MSG_ID_BYTES];
    bool has_key;
    struct wire_link *link; /* up */
    struct wire_link *dialing;
    uint64_t dial_at_ms;                /* 0: not now */
    uint64_t up_until_ms;               /* or it is a fault; UINT64_MAX: no hurry */
    bool writable;                      /* false after WIRE_BLOCKED */
};

struct fifo {
    struct stage_send *items[NODE_SENDS];
    unsigned first, n;
};

enum node_phase {
    NODE_IDLE,    /* no configuration */
    NODE_LOADING, /* the builder is at it */
    NODE_RUNNING, /* the stage can take steps */
    NODE_FAILED,  /* the configuration came to nothing; the coordinator knows */
};

/* A device and the stage that it computes in this epoch, if any. */
struct seat {
    struct node *node;
    const struct device *device;
    struct builder *builder;
    /* What the device is and can do, for hellos; rates 0: not measured. */
    char text[MSG_MAX_NAME + 64];
    const char *numerics;
    uint32_t numerics_revision;
    struct profile_memory memory;
    double attention_per_s[PROFILE_ROWS];
    struct msg_peer peers[DEVICE_MAX];
    size_t n_peers;
    struct msg_rate rates[NODE_RATES];
    size_t n_rates;
    struct msg_bits bits[MSG_MAX_TYPES];
    size_t n_bits;

    enum node_phase phase;
    uint32_t stage, layer_first, layer_end;
    struct neighbour previous, next;
    struct stage_thread *thread;
    bool joined; /* with the next stage, which is of this process */
    uint64_t window_bytes;
    uint32_t window_frames;
    uint64_t loading_since_ms, told_progress_ms;

    /* Steps on their way out, and credit. Numbers count the step frames of a link from 1. */
    struct fifo data, said;
    uint64_t told_taken, told_taken_bytes; /* what the previous stage was told of */
    uint64_t sent, sent_bytes;             /* to the next one, and … */
    uint64_t sent_bytes_at[MSG_MAX_WINDOW]; /* … after frame i, at i % MSG_MAX_WINDOW */
    struct msg_credit credit;              /* its last word; before the first one nothing may be sent */
    uint64_t blocked_since_ms;             /* 0: nothing waits for credit */
};

struct node {
    const struct node_options *o;
    struct wire_net *net;
    struct wire *wire;
    struct codec *codec;
    struct models *models;
    struct bulk *bulk; /* NULL: no keys, no peers */
    struct builder_cache cache;
    char isa[MSG_MAX_NAME + 1];
    char address[MSG_MAX_ADDRESS + 1]; /* to be told to others */
    uint64_t now_ms;

    /* The coordinator. */
    struct wire_link *control, *dialing;
    uint64_t coordinator, seen_ms, lost_ms, beat_ms, next_beat_ms, orphan_ms, orphan_at_ms;
    uint64_t peer_now_us, peer_seen_us;
    uint64_t redial_ms, dial_at_ms, tell_dial_ms; /* tell_dial_ms: not before that a failure is told again */
    unsigned dial_turn;                           /* of the addresses */
    bool control_writable;

    /* The configuration: seats of an epoch that is over are idle. */
    struct msg_epoch epoch;
    bool said_over; /* that it ended has been told */
    uint32_t n_stages;
    struct seat seats[DEVICE_MAX];
    unsigned n_seats;

    struct {
        struct wire_link *link;
        uint64_t since_ms;
    } unclaimed[NODE_UNCLAIMED_LINKS];

    char admitted[NODE_ADMITTED][MSG_MAX_NAME + 1];
    unsigned n_admitted;
    struct {
        char text[512], address[64];
        uint64_t since_ms;
    } refused[NODE_REFUSED];
    unsigned n_refused;

    bool draining, stopping, ended;
    uint64_t stop_at_ms;
};

/* control.c */
void control_up(struct node *n, struct wire_link *link);
void control_down(struct node *n, const char *why, bool goodbye);
void control_frame(struct node *n, struct wire_frame *frame); /* releases it */
void control_tick(struct node *n);
void control_built(struct node *n);
int control_send(struct node *n, const struct msg *m); /* -1: there is nobody, or nobody who reads */
void control_error(struct seat *s, enum err_kind kind, const char *text);
/* The epoch is over: stages' threads go with the next order to their builders, links go down. */
struct stage_thread *control_end_stage(struct seat *s, const char *why);
/* Where the coordinator is dialed, or was; NULL: it comes. */
const char *control_address(const struct node *n);
void control_dial(struct node *n);
void control_not_there(struct node *n, const char *why); /* what was dialed does not answer: the next is, later */
void control_stop(struct node *n); /* SIGTERM */

/* links.c */
void links_configure(struct seat *s, const struct msg_configure *c);
/* Whose keys are known from now on, besides our own list's. anew: nobody else's; c NULL: nobody's at all. */
void links_admit(struct node *n, const struct msg_configure *c, bool anew);
/* Somebody was turned away. Told a moment later: a neighbour may dial before the word that admits it is here; it dials again then. */
void links_refused(struct node *n, const struct wire_event *e);
void links_coordinator_address(const struct node *n, const char *said, char ret[MSG_MAX_ADDRESS + 1]);
void links_ready(struct seat *s); /* the stage is: from now on links must come up soon */
void links_close(struct seat *s, const char *why);
void links_up(struct node *n, struct wire_link *link);
void links_down(struct node *n, struct wire_link *link, const char *why, bool goodbye); /* goodbye: its peer closed it on purpose */
void links_frame(struct node *n, struct wire_link *link, struct wire_frame *frame); /* releases it, or hands it on */
void links_writable(struct node *n, struct wire_link *link);
void links_pump(struct seat *s); /* what the stage has to say, as far as credit goes */
void links_pump_all(struct node *n);
void links_tick(struct node *n);

/* hello.c */
/* What devices are and, where the options say so, can do, which takes seconds; 1: told to stop meanwhile. */
int hello_measure(struct node *n, struct err *err);
int hello_send(struct node *n);

#endif
