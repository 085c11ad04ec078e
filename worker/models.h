#ifndef WORKER_MODELS_H
#define WORKER_MODELS_H

/* The model files of this node: one that was named, and those under its model folder. They are known by their ids only: what a
 * message asks for is an id, never a name or a path. Any thread: a models object locks itself. */

#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"
#include "proto/msg.h"

struct models;

enum { MODELS_MAX_DEPTH = 3, MODELS_MAX_SEEN = 16384 /* directory entries */ };

/* file, dir: NULL for none. Reads headers (some milliseconds a file). Files that are no models are passed over. */
struct models *models_create(const char *file, const char *dir, struct err *err);
void models_destroy(struct models *m); /* takes NULL */

/* Up to max ids; returns how many. */
size_t models_ids(struct models *m, uint8_t (*ret)[MSG_ID_BYTES], size_t max);
/* The model of this id, opened (the caller closes), looking again where it was not there before. NULL: ERR_NOT_FOUND says where it was
 * looked for. */
struct gguf *models_open(struct models *m, const uint8_t *id, struct err *err);

#endif
