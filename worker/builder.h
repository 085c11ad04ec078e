#ifndef WORKER_BUILDER_H
#define WORKER_BUILDER_H

/* Makes the stages of one device, in a thread of its own: finding the model, checking that it will fit, reading weights, and taking apart what is
 * no longer wanted, none of which the I/O thread has time for. It keeps what the last stage had, so that the next one takes over
 * what it needs: the whole stage with its KV cache where nothing changed, weights where layers overlap.
 *
 * Orders are worked off one after another; one that a later order makes pointless is cut short. All functions are the I/O
 * thread's. */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/device.h"
#include "model/source.h"
#include "proto/msg.h"
#include "worker/fetch.h"
#include "worker/models.h"
#include "worker/stage_thread.h"

struct builder;

/* What is kept of that which comes over the network, for all builders of a node: opened with the first need of it. */
struct builder_cache {
    pthread_mutex_t lock;
    const char *dir; /* NULL: nothing is kept */
    uint64_t bytes_max;
    struct chunk_cache *cache;
};
void builder_cache_init(struct builder_cache *c, const char *dir, uint64_t bytes_max);
void builder_cache_fini(struct builder_cache *c);

struct builder_options {
    const char *node;      /* this one's name, for messages */
    const struct device *device;      /* borrowed, as is all that follows */
    const struct device_options *how; /* isa NULL: what the configuration says */
    struct models *models;
    struct wire_net *net;             /* for links to nodes that have what is not here */
    struct builder_cache *cache;
    bool shares;           /* there are other devices, whose stages may be about to free what this one needs */
    void (*wake)(void *arg); /* something is done, or a stage has something to send; any thread */
    void *wake_arg;
};

/* What an order to build has come to. */
struct built {
    struct msg_epoch epoch;
    uint32_t stage;
    struct stage_thread *thread; /* NULL: failed. The caller owns it and gives it back with the next order */
    struct msg_ready ready;
    char from[64]; /* "direct", "page cache", "memory": for the log */
    struct source_report report; /* how the bytes came, and what was not at its best */
    struct err err;
    uint64_t memory_bytes; /* of ERR_MEMORY: what a stage may take here; 0: not known */
};

struct builder *builder_create(const struct builder_options *o, struct err *err);
/* Takes what is given to it apart, cuts short what it does, joins. Takes NULL. */
void builder_destroy(struct builder *b, struct stage_thread *last);

/* Build this (copied; its sources' addresses are to be dialed as they stand). old: the running stage, which was told to stop; NULL for none. */
int builder_build(struct builder *b, const struct msg_configure *c, struct stage_thread *old, struct err *err);
/* Forget the configuration; keep or free the stage's weights (and its KV with them). */
int builder_release(struct builder *b, bool keep_weights, struct stage_thread *old, struct err *err);
/* 1 and the next result; 0: none yet. */
int builder_result(struct builder *b, struct built *ret);
/* Of what is being read now. */
void builder_progress(struct builder *b, uint64_t *ret_done, uint64_t *ret_total);
/* Where that comes from, for people: "disk", or names of nodes. Returns what it is. */
enum msg_load_from builder_from(struct builder *b, char *ret, size_t size);
/* What is held: present false for nothing. device points into the builder. */
void builder_resident(struct builder *b, struct msg_resident *ret);
uint64_t builder_held_bytes(struct builder *b);
/* What a stage may take here: what the owner allows, at most what is free beside what is held. */
uint64_t builder_memory(struct builder *b);

#endif
