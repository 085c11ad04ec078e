#ifndef WORKER_STAGE_THREAD_H
#define WORKER_STAGE_THREAD_H

/* The thread that computes a stage of one epoch: frames of steps go in, frames to be sent come out. The I/O thread (node.c) only
 * moves pointers: decoding, computing, sampling and encoding all happen here, and nothing here touches a socket. Where the next
 * stage is one of this process, frames go straight into its queue, and it computes from where they lie.
 *
 * Frames out lie in buffers of a fixed number. When all are under way the thread waits for one, so that a next stage that does
 * not keep up slows this one down and, by credit, those before it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/msg.h"
#include "proto/wire.h"
#include "worker/stage_exec.h"

enum {
    STAGE_OUT_BUFFERS = 8,    /* steps or results under way at once */
    STAGE_CONTROL_BUFFERS = 256, /* stage_done and errors not yet sent */
    STAGE_SPIN_US = 20,       /* how long the thread looks for a frame before it sleeps */
    STAGE_MASK_MS = 30000,    /* for a mask that a row waits for */
    STAGE_MASKS_MIN = 256,    /* masks that may come before their rows: so many, or twice as many as a step may want rows */
};

struct stage_thread;

struct stage_thread_options {
    struct stage *stage; /* borrowed */
    struct stage_exec_config exec;
    struct threadpool *team;
    struct msg_epoch epoch;
    size_t queue_frames; /* that may wait */
    void (*wake)(void *arg); /* something came out, or was taken in; from this thread */
    void *wake_arg;
};

/* A frame to be sent: `control` to the coordinator, else to the next stage. */
struct stage_send {
    bool control;
    enum msg_type type;
    const void *head;
    size_t head_len;
    void *payload;
    size_t payload_len;
};

struct stage_thread *stage_thread_create(const struct stage_thread_options *o, struct err *err);
/* From now on steps go to this stage of the same process instead of being given to stage_thread_next. Before the first step
 * comes; either may be destroyed first: what then comes from the other is dropped. The I/O thread's. */
void stage_thread_join(struct stage_thread *t, struct stage_thread *next);
/* Asks it to end after the step at hand; what is queued is dropped. Does not block. */
void stage_thread_stop(struct stage_thread *t);
/* Joins (as long as one step takes). Buffers that the wire still holds live until it lets go of them. Takes NULL. */
void stage_thread_destroy(struct stage_thread *t);

/* The rest is the I/O thread's. */

/* A step or a mask. Takes the frame; -1: the queue is full (whoever sent it minds no credit), the frame is still the caller's. */
int stage_thread_push(struct stage_thread *t, struct wire_frame *frame);
/* The next frame to send, or NULL. It stays the caller's until one of the three below. */
struct stage_send *stage_thread_next(struct stage_thread *t);
/* For wire_send, with the send as hint: the payload is free again. Any thread. */
void stage_send_free(void *payload, void *send);
/* The same for a send whose payload the wire did not take. */
void stage_send_done(struct stage_send *send);

/* Step frames taken off the queue so far, and the payload bytes that were in them. */
void stage_thread_taken(const struct stage_thread *t, uint64_t *ret_frames, uint64_t *ret_bytes);
/* Nothing waits and nothing is computed. */
bool stage_thread_idle(const struct stage_thread *t);

/* Adds up what happened since the last call. */
void stage_thread_times(struct stage_thread *t, struct msg_stage_times *ret);

#endif
