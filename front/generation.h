#ifndef FRONT_GENERATION_H
#define FRONT_GENERATION_H

/* One request for text while it runs: its answers' requests to the engine, their texts, and the reply that they become. */

#include "base/strbuf.h"
#include "coordinator/engine.h"
#include "front/guide.h"
#include "front/job.h"
#include "front/api_keys.h"
#include "front/metrics.h"
#include "front/openai.h"
#include "front/prompt.h"

/* What it is done with; all outlive it. */
struct generation_env {
    struct engine *engine;
    const struct prompt *prompt;
    struct guides *guides;
    const char *model;
    struct metrics *metrics;
    struct api_key *key;     /* whose tokens they are; NULL: nobody's */
    unsigned max_answers; /* that wait or run, of all requests; 0: as many as the engine takes */
    void (*ready)(void *arg); /* called by the engine's thread, as engine_params.ready */
    void *ready_arg;
};
/* Tokenizes, submits. Takes over *r. */
struct job *generation_start(const struct generation_env *env, struct api_request *r, struct api_error *e);

#endif
