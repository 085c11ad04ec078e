#ifndef TESTS_MODEL_WEIGHTS_SAME_H
#define TESTS_MODEL_WEIGHTS_SAME_H

/* Whether two loads gave the same weights, byte for byte. */

#include "model/weights.h"

/* Layers [first, last) of both, and what both have of embedding and head. NULL: they are the same; else what differs. */
const char *weights_differ(const struct weights *a, const struct weights *b, uint32_t first, uint32_t last);

/* A context for loads: the model's file, its parameters, the processor's backend, a team. Ends the program on failure. */
struct loading {
    struct gguf *g;
    struct model_params p;
    struct backend *be;
    struct threadpool *pool;
    unsigned char id[GGUF_ID_BYTES];
};
void loading_init(struct loading *l, const char *path, unsigned threads);
void loading_fini(struct loading *l);
/* All of the model, by pread and with defaults for the rest. */
struct weights *loading_reference(const struct loading *l);

#endif
