#ifndef GGUF_SPLIT_H
#define GGUF_SPLIT_H

/* Names of split files, inside gguf/ only: PREFIX-00002-of-00005.gguf is split 1 (from 0) of 5. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* True if path has the form; *ret_prefix_len bytes of it are the prefix. */
bool gguf_split_parse(const char *path, uint32_t *ret_split, uint32_t *ret_count, size_t *ret_prefix_len);
/* The path of another split; the caller frees it. */
char *gguf_split_format(const char *prefix, size_t prefix_len, uint32_t split, uint32_t count, struct err *err);

#endif
