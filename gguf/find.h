#ifndef GGUF_FIND_H
#define GGUF_FIND_H

/* A model by its id among the files of a folder: names say nothing, and a file of another quantization is another model. Only
 * headers are read. Blocks. */

#include "base/err.h"
#include "gguf/gguf.h"

enum { GGUF_FIND_MAX_FILES = 4096, GGUF_FIND_MAX_DEPTH = 3 };

/* Looks through DIR and the folders in it (not through links to folders) for *.gguf whose gguf_model_id is `id` and whose data
 * is all there. The opened model, for the caller to close; NULL: none, with ERR_NOT_FOUND and how many were looked at. */
struct gguf *gguf_find_model(const char *dir, const unsigned char id[GGUF_ID_BYTES], struct err *err);

#endif
