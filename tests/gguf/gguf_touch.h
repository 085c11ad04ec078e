#ifndef TESTS_GGUF_TOUCH_H
#define TESTS_GGUF_TOUCH_H

/* For tests that open broken files: a sample with everything in it, and a walk over all that an opened file offers. */

#include <stdint.h>

#include "gguf/gguf.h"
#include "tests/gguf/gguf_build.h"

/* A small file with metadata of every type and some tensors; gguf_build_fini by the caller. variant 0: version 3;
 * 1: version 2; 2: an alignment of 64; 3: only metadata; 4: a file of a set of splits. */
enum { GGUF_SAMPLES = 5 };
void gguf_sample(struct gguf_build *b, unsigned variant);

/* Calls every accessor with every name the file has, reads every item and describes the file in both ways. The result
 * depends on every byte that was read, so that nothing is optimised away. */
uint64_t gguf_touch(const struct gguf *g);

#endif
