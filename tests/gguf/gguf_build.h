#ifndef TESTS_GGUF_BUILD_H
#define TESTS_GGUF_BUILD_H

/* A small GGUF writer for tests: metadata of every type, tensors, any alignment and version, right or deliberately wrong.
 * Nothing is checked but memory: a test that runs out of it ends the program.
 *
 *     struct gguf_build b;
 *     gguf_build_init(&b, 3, 0);
 *     gguf_build_str(&b, "general.architecture", "llama");
 *     gguf_build_tensor(&b, "output_norm.weight", QUANT_F32, 1, (uint64_t[]){64}, weights);
 *     gguf_build_write(&b, path, true);          // or gguf_build_finish for the bytes
 *     gguf_build_fini(&b);
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "gguf/gguf.h"

struct gguf_build {
    struct strbuf kv, tensors, data;
    uint32_t version, alignment;
    uint64_t n_kv, n_tensors; /* written as they stand: a test may lie */
};

/* alignment 0: the default of 32, and no key that says so. */
void gguf_build_init(struct gguf_build *b, uint32_t version, uint32_t alignment);
void gguf_build_fini(struct gguf_build *b);

void gguf_build_int(struct gguf_build *b, const char *key, enum gguf_value_type type, int64_t value); /* bool, too */
void gguf_build_float(struct gguf_build *b, const char *key, enum gguf_value_type type, double value);
void gguf_build_str(struct gguf_build *b, const char *key, const char *value);
void gguf_build_ints(struct gguf_build *b, const char *key, enum gguf_value_type type, const int64_t *items, size_t n);
void gguf_build_floats(struct gguf_build *b, const char *key, enum gguf_value_type type, const double *items, size_t n);
void gguf_build_strs(struct gguf_build *b, const char *key, const char *const *items, size_t n);
/* Any value, already encoded: nested arrays, bytes that are no text, nonsense. */
void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t type, const void *value, size_t len);

/* data NULL: zeroes, as many as the type and shape need (none for a type that is unknown). */
void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, const void *data);

/* The file's bytes, for the caller to free; without data it ends behind the tensor table. */
unsigned char *gguf_build_finish(const struct gguf_build *b, bool with_data, size_t *ret_len);
void gguf_build_write(const struct gguf_build *b, const char *path, bool with_data);

/* For gguf_build_raw: little-endian pieces. */
void gguf_build_put(struct strbuf *sb, uint64_t value, size_t bytes);
void gguf_build_put_str(struct strbuf *sb, const char *s);

#endif
