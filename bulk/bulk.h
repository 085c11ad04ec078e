#ifndef BULK_BULK_H
#define BULK_BULK_H

/* Serves the bytes of models to other nodes on LINK_BULK: headers, hashes of chunks, ranges of files. Whoever owns the wire (the
 * coordinator's engine, a worker's I/O thread) hands in what comes on such links and lets bulk_pump send what is ready; reading and
 * hashing happen in two threads of their own, which call `wake`. So nothing here delays a heartbeat.
 *
 * Bounded: BULK_GUESTS links, BULK_JOBS open requests of each, BULK_PIECES pieces read ahead for each; memory does
 * not grow with the model. Links are served in turn. A model is named by its id only, and a range must lie in its file. */

#include "base/err.h"
#include "gguf/gguf.h"
#include "proto/keys.h"
#include "proto/wire.h"

enum { BULK_GUESTS = 32, BULK_JOBS = 256, BULK_PIECES = 12, BULK_PATH = 4096 };

struct bulk;

struct bulk_options {
    /* The model of this id, opened, for bulk to close. From the server's threads. NULL: ERR_NOT_FOUND. */
    struct gguf *(*open)(void *arg, const uint8_t *id, struct err *err);
    void *arg;
    const char *hashes_dir; /* where the hashes of chunks are kept (copied), made when there are some; NULL: they are not */
    void (*wake)(void *arg); /* any thread */
    void *wake_arg;
};

/* The usual hashes_dir, beside a node's keys; NULL: there are none, or the path is too long. */
const char *bulk_hashes_dir(const struct keys *keys, char path[BULK_PATH]);
struct bulk *bulk_create(const struct bulk_options *o, struct err *err);
void bulk_destroy(struct bulk *b); /* takes NULL; joins. Pieces under way in the wire outlive it */

/* All from the thread that owns the wire: a link came; a frame on it (released); it can take more; it is gone; send what is ready. */
void bulk_up(struct bulk *b, struct wire_link *link);
void bulk_frame(struct bulk *b, struct wire_link *link, struct wire_frame *frame);
void bulk_writable(struct bulk *b, struct wire_link *link);
void bulk_down(struct bulk *b, struct wire_link *link);
void bulk_pump(struct bulk *b);

#endif
