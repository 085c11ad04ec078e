#ifndef TESTS_MODEL_MODEL_BUILD_H
#define TESTS_MODEL_MODEL_BUILD_H

/* Tiny models of random weights, of every family and in any quantization, as GGUF files: what tests of the whole forward pass
 * run. Two or three layers, 300 tokens, an embedding of 60 (float types), 64 (blocks of 32) or 256 (K-quants). */

#include <stdbool.h>
#include <stdint.h>

#include "gguf/quant.h"
#include "tests/gguf/gguf_build.h"

enum { MODEL_VOCAB = 300, MODEL_WINDOW = 40, MODEL_SPECS = 19 };

struct model_spec {
    const char *name; /* for messages */
    const char *arch;
    uint32_t layers;
    bool tied, fused_qkv;
    bool apart;          /* experts in tensors of their own */
    bool freqs;          /* rope_freqs.weight */
    bool long_short;     /* rope_factors_long and _short */
    bool window;         /* sliding layers of MODEL_WINDOW positions */
    bool wide_values;    /* values twice as wide as keys */
    uint32_t experts;    /* two are used */
    const char *scaling; /* rope.scaling.type; NULL: none */
    uint32_t big;        /* the feed-forward part is this many times as wide; 0: 1. For tests of loading */
};

extern const struct model_spec model_specs[MODEL_SPECS];

const struct model_spec *model_spec_of(const char *name);

/* Everything but what `except` names (NULL: all): a key or a tensor that a test leaves out, or puts in wrongly. The caller
 * ends *ret with gguf_build_fini. */
void model_build(struct gguf_build *ret, const struct model_spec *spec, enum quant_type quant, const char *except);
/* The whole file. */
void model_write(const struct model_spec *spec, enum quant_type quant, const char *path);

/* A folder for the program's files; removed with them at exit. */
const char *model_folder(void);

#endif
