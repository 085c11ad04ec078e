#ifndef WORKER_NODE_H
#define WORKER_NODE_H

/* A worker's one I/O thread: it owns all sockets of control and activations, and moves messages between them and, for each of the
 * node's devices, a builder (which loads) and a stage's thread (which computes). It computes nothing itself, so that a heartbeat is
 * never late. docs/worker.md tells what it answers to whom. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/device.h"
#include "proto/keys.h"

enum {
    NODE_HEARTBEAT_MS = 250,     /* until a configuration says otherwise */
    NODE_LOST_MS = 1000,         /* a coordinator that was silent for so long gives way to another */
    NODE_ORPHAN_MS = 600000,     /* without a coordinator for so long: memory is freed */
    NODE_LINK_MS = 10000,        /* for a neighbour's link to come up */
    NODE_CREDIT_MS = 60000,      /* for a neighbour to take a frame */
    NODE_DRAIN_MS = 10000,       /* from SIGTERM to the end */
    NODE_UNCLAIMED_LINKS = 16,   /* of an epoch that was not configured here yet … */
    NODE_UNCLAIMED_MS = 10000,   /* … and for how long they are kept */
    NODE_COORDINATORS = 8,       /* addresses of one at most */
    NODE_REDIAL_MIN_MS = 100,
    NODE_REDIAL_MAX_MS = 5000,
    NODE_TELL_DIAL_MS = 300000,  /* that it still does not answer, and why */
};

struct node_options {
    const char *name;
    const char *version;     /* of the program */
    const char *listen;      /* NULL: nobody can dial this node: it dials */
    const char *advertise;   /* NULL: as it listens */
    const char *coordinators[NODE_COORDINATORS]; /* addresses of the one to be dialed, in turn until it answers; NULL: no more, none: it comes */
    uint8_t coordinator_key[KEY_BYTES];
    struct keys *keys;       /* borrowed; NULL: ipc only */
    const char *model_file, *model_dir;
    const char *cache_dir;   /* for what comes over the network; NULL: none */
    uint64_t cache_bytes;
    struct device_list devices; /* what they may use is in there */
    struct device_options how;
    bool measure;            /* what the machine can do, for plans: half a second at the start */
    unsigned protocol;       /* the highest that it speaks, for tests of mixed clusters; 0: the newest */
    uint64_t orphan_ms;      /* 0: as the coordinator says */
    int signal_fd;           /* a signalfd of SIGTERM and its like; -1: none */
    int parent;              /* ends when this process is no longer its parent; 0: lives on */
};

/* Until it is told to stop. 0 after an orderly end. Logs what happens (base/log.h). */
int node_run(const struct node_options *options, struct err *err);

#endif
