#ifndef FRONT_GENERATION_H
#define FRONT_GENERATION_H

/* One request for text while it runs: its answers' requests to the engine, their texts, and the reply that they become. */

#include "base/strbuf.h"
#include "coordinator/engine.h"
#include "front/metrics.h"
#include "front/openai.h"
#include "front/prompt.h"

struct generation;

/* Tokenizes, submits. Takes over *r. ready(arg) is called by the engine's thread, as engine_params.ready. */
struct generation *generation_start(struct engine *engine, const struct prompt *prompt, const char *model, struct metrics *metrics,
                                    struct api_request *r, void (*ready)(void *arg), void *arg, struct api_error *e);
void generation_destroy(struct generation *g); /* takes NULL; cancels what runs */
bool generation_streams(const struct generation *g);

/* Takes what came. Streams: appends events to out, until it holds enough for now; 1: that was the end. Whole answers: 1 once
 * out holds all of it, -1 and e where it failed. 0: more is to come. */
int generation_pump(struct generation *g, struct strbuf *out, struct api_error *e);

#endif
