#ifndef FRONT_EMBEDDING_H
#define FRONT_EMBEDDING_H

/* /v1/embeddings: of each input the mean of the last hidden states of its tokens, normalised. Models made to answer are not
 * made for this; the mean is what such models are usually measured by. */

#include <stdatomic.h>

#include "coordinator/engine.h"
#include "front/job.h"
#include "front/api_keys.h"
#include "front/metrics.h"
#include "front/prompt.h"

/* body is the caller's. key: whose tokens they are; hidden_bytes counts what the states of all requests take: they come all at once for an input. */
struct job *embedding_start(struct engine *engine, const struct prompt *prompt, const char *model, struct metrics *metrics, struct api_key *key,
                            _Atomic uint64_t *hidden_bytes, const json_t *body, void (*ready)(void *arg), void *arg, struct api_error *e);

#endif
