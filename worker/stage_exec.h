#ifndef WORKER_STAGE_EXEC_H
#define WORKER_STAGE_EXEC_H

/* What a stage does with a step: first its operations on sequences, then the entries of block tables, then its rows through
 * the layers, and at the last stage the sampler. No sockets, no threads of its own: worker/stage_thread.h feeds it, a test can
 * as well. It trusts nothing that a message says: whatever stage_run takes for granted is checked here, and a step that is
 * wrong ends with a sentence before any memory of the model is touched. One thread at a time.
 *
 * Everything is allocated by stage_exec_create. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/threadpool.h"
#include "model/stage.h"
#include "proto/msg.h"

struct stage_exec;

struct stage_exec_config {
    uint32_t stage, n_stages;
    const struct model_params *params; /* borrowed for the exec's life */
    struct stage_config shape;         /* as the stage was made */
    enum act_type act_out;             /* form of the rows that go on */
    const char *isa;                   /* cap of the sampler's kernels; NULL: none. Borrowed until the exec is made */
};

/* Asks for the tokens that a row may become, a bit for each (msg_mask); blocks until they are there. NULL and err: they will not
 * come. n_bytes: what a mask of this vocabulary has. The bits must stay until the
 * step ends. */
typedef const uint8_t *(*stage_exec_mask_fn)(void *arg, uint64_t batch, uint32_t row, size_t n_bytes, struct err *err);

/* Memory it takes, besides the stage. */
uint64_t stage_exec_bytes(const struct stage_exec_config *config);

/* The stage must outlive it and have no sequence's data that anybody still counts on; no slot is open. team: computes several
 * rows' samples at once; NULL: one after another. */
struct stage_exec *stage_exec_create(struct stage *stage, const struct stage_exec_config *config, struct threadpool *team,
                                     stage_exec_mask_fn mask, void *mask_arg, struct err *err);
void stage_exec_destroy(struct stage_exec *e); /* takes NULL */

/* Payload bytes that a step may send on. */
size_t stage_exec_out_bytes(const struct stage_exec_config *config);

/* What a step leaves to be sent: type MSG_STEP to the next stage, MSG_RESULT from the last one, MSG_NONE: nothing. Its arrays
 * are the exec's or the incoming step's: valid until the next one. */
struct stage_out {
    struct msg msg;
    size_t payload_len; /* of `room` */
    uint32_t n_rows;    /* computed here */
};

/* Does one decoded step; payload as it came (aligned for floats, as long as the message says). room: stage_exec_out_bytes for what
 * goes on. -1 and err when it failed: ERR_INPUT for a wrong step, of which nothing was computed; the slots that it names are
 * closed, all others go on. At the last stage *ret then holds a result that says so, else MSG_NONE. */
int stage_exec_step(struct stage_exec *e, const struct msg_step *step, const void *payload, void *room, struct stage_out *ret, struct err *err);
/* The same between stages of one process whose devices reach each other: rows that lie on this one's device (here not NULL: payload is
 * not looked at), or that are to go to one of `to`'s (there, with room for them; only where stage_exec_passes says so). */
struct stage_peers {
    const void *here;
    struct stage *to;
    void *there;
};
int stage_exec_step_between(struct stage_exec *e, const struct msg_step *step, const void *payload, void *room, const struct stage_peers *peers,
                            struct stage_out *ret, struct err *err);
/* Bytes of rows that the step will pass on just as the layers give them; 0: none, or in another form. */
size_t stage_exec_passes(const struct stage_exec *e, const struct msg_step *step);

#endif
