#ifndef FRONT_GENERATION_H
#define FRONT_GENERATION_H

/* One request for text while it runs: its answers' requests to the engine, their texts, and the reply that they become. */

#include "base/strbuf.h"
#include "coordinator/engine.h"
#include "front/job.h"
#include "front/metrics.h"
#include "front/openai.h"
#include "front/prompt.h"

/* Tokenizes, submits. Takes over *r. ready(arg) is called by the engine's thread, as engine_params.ready. */
struct job *generation_start(struct engine *engine, const struct prompt *prompt, const char *model, struct metrics *metrics,
                             struct api_request *r, void (*ready)(void *arg), void *arg, struct api_error *e);

#endif
