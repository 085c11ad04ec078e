#ifndef WORKER_INLET_H
#define WORKER_INLET_H

/* Where a stage's frames come in: a queue that the I/O thread fills, or the stage before it where that is of this process; then both
 * have a share in it, and either may end first. Where those two stages' devices reach each other's memory, rows do not go by the
 * host: the inlet has a few rooms for them on its stage's device, into which the stage before copies. With none free a step goes
 * by the host, as all do where there are none. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/queue.h"
#include "model/stage.h"

enum {
    INLET_ROOMS = 2,                /* one is computed from while the other is filled */
    INLET_ROOM_BYTES_MAX = 16 << 20, /* larger steps go by the host: rooms come out of what is left free of a device's memory */
};

struct inlet {
    struct queue *frames;
    _Atomic uint64_t pushed; /* not yet done with */
};

/* stage: whose it is; borrowed until inlet_close. */
struct inlet *inlet_create(struct stage *stage, size_t frames, struct err *err);
struct inlet *inlet_share(struct inlet *in); /* one more holder */
void inlet_drop(struct inlet *in);           /* takes NULL; the last holder frees it */

/* Its stage ends: waits for a copy that is under way, and frees the rooms. What is in the queue stays. */
void inlet_close(struct inlet *in);

/* The thread of the stage before it, once, with the most bytes of a step's rows: makes rooms if `from` can fill them. May take some
 * milliseconds. True: it made some. */
bool inlet_meet(struct inlet *in, struct stage *from, size_t bytes);
/* A room for so many bytes and whose it is; NULL: none. Then inlet_filled once nothing is copied there any more, in any case. */
void *inlet_room(struct inlet *in, size_t bytes, struct stage **ret_stage);
void inlet_filled(struct inlet *in);
/* The room's rows were used, or never came. Any thread. */
void inlet_room_free(struct inlet *in, void *room);

#endif
