#ifndef GGUF_HEADER_H
#define GGUF_HEADER_H

/* One file's header, inside gguf/ only: its bytes, its metadata, its tensor table. gguf.c puts files together. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"
#include "gguf/index.h"

struct gguf_file {
    char *path;      /* owned */
    char shown[176]; /* the path (its end, if it is long) for messages */
    int fd;          /* open only while the header is being read; -1 for a file in memory */
    uint64_t bytes;  /* the file's size */
    struct gguf_stamp stamp;

    const unsigned char *data; /* the header; what follows it may be there, too */
    unsigned char *owned;      /* the same where we read it, NULL for a file in memory */
    size_t have, cap;          /* bytes of data that are there */

    uint32_t version, alignment;
    size_t header_bytes;
    uint64_t data_offset;   /* header_bytes, aligned */
    uint64_t implied_bytes; /* where the last tensor ends */
    bool header_only;

    struct gguf_kv *kv;
    size_t n_kv;
    struct gguf_index kv_index;
    struct gguf_tensor *tensors; /* .split is set by the caller */
    size_t n_tensors;
    char *names;               /* of the tensors, 0-terminated */
    struct gguf_str *strings;  /* items of all arrays of strings */
    struct gguf_array *arrays; /* arrays inside arrays */
};

/* Makes the first `upto` bytes of the file (at most f->bytes) be there; f->data may move. */
int gguf_file_fill(struct gguf_file *f, size_t upto, struct err *err);
/* Gives back what was read beyond header_bytes. */
void gguf_file_trim(struct gguf_file *f);
/* parse.c: reads the header, from magic to the end of the tensor table, into f's tables. Tensor offsets are still
 * relative to the data's start. Messages do not name the file. */
int gguf_parse(struct gguf_file *f, struct err *err);

/* Reads and checks the header; the file descriptor is closed again. On failure err names the file; gguf_file_fini in
 * either case. */
int gguf_file_open(struct gguf_file *f, const char *path, bool allow_header_only, struct err *err);
int gguf_file_open_memory(struct gguf_file *f, const void *data, size_t len, bool allow_header_only, struct err *err);
void gguf_file_fini(struct gguf_file *f);

const struct gguf_kv *gguf_file_find(const struct gguf_file *f, const char *key);
/* As gguf_get_u32; the message does not name the file. */
int gguf_kv_u32(const struct gguf_kv *kv, uint32_t *ret, struct err *err);

/* The first file's path for messages. */
const char *gguf_shown(const struct gguf *g);
/* Bytes of one value of a fixed size; 0 for strings and arrays. */
size_t gguf_value_size(enum gguf_value_type type);

#endif
