#ifndef GGUF_DESCRIBE_H
#define GGUF_DESCRIBE_H

/* What `stagecoach inspect` shows: metadata, tensors, types, bytes by layer. Presentation only; blocks for nothing. */

#include <stdbool.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "gguf/gguf.h"

/* Appends the description to sb (the caller's, with its limit). json: one object on one line; otherwise text for a person,
 * in which long values are cut. Returns 0, or -1 and err. */
int gguf_describe(const struct gguf *g, bool json, struct strbuf *sb, struct err *err);

/* The layer that a tensor belongs to by its name ("blk.12.attn_q.weight": 12), or -1. */
int gguf_tensor_layer(const char *name);

#endif
