#ifndef GGUF_GGUF_H
#define GGUF_GGUF_H

/* A model file's header: metadata and the table of tensors. Versions 2 and 3, single files and splits
 * (NAME-00001-of-0000N.gguf: open any of them, all are found), header-only files. Only headers are read, never tensor
 * data; the whole is immutable after gguf_open and may be used by any thread. Every count, length and offset in a file is
 * foreign: all are checked, bounded by the limits below, and reported with file, object and value. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/quant.h"

enum {
    GGUF_MAX_DIMS = 4,
    GGUF_MAX_SPLITS = 1024,
    GGUF_MAX_METADATA = 1 << 16,
    GGUF_MAX_TENSORS = 1 << 18,
    GGUF_MAX_NAME_BYTES = 1 << 10,
    GGUF_MAX_NESTING = 4,         /* arrays of arrays */
    GGUF_MAX_STRINGS = 1 << 22,   /* items of all arrays of strings of one file */
    GGUF_MAX_ARRAYS = 1 << 16,    /* arrays inside arrays, of one file */
    GGUF_MAX_ALIGNMENT = 1 << 21, /* general.alignment */
};
#define GGUF_MAX_HEADER_BYTES ((uint64_t)1 << 30)

enum gguf_value_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
    GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_VALUE_TYPES,
};

struct gguf;

/* A string inside the header: not 0-terminated, lives as long as the gguf. */
struct gguf_str {
    const char *s;
    size_t len;
};

struct gguf_array {
    enum gguf_value_type type; /* of the items */
    uint64_t count;
    const struct gguf_str *strings;  /* GGUF_STRING: count views */
    const void *data;                /* numbers and bools: count packed little-endian items, unaligned */
    const struct gguf_array *arrays; /* GGUF_ARRAY: count arrays */
};

struct gguf_kv {
    struct gguf_str key;
    enum gguf_value_type type;
    union {
        uint64_t u;  /* unsigned types, bool */
        int64_t i;   /* signed types */
        double f;    /* F32, F64 */
        struct gguf_str str;
        struct gguf_array array;
    } v;
};

struct gguf_tensor {
    const char *name; /* 0-terminated */
    enum quant_type type; /* may be one we cannot compute: see quant_traits */
    uint32_t n_dims;
    uint64_t dims[GGUF_MAX_DIMS]; /* dims[0] runs fastest: a row's length; unused ones are 1 */
    uint32_t split;               /* which file */
    uint64_t offset;              /* from that file's start */
    uint64_t bytes;
};

/* Opens a file or a set of splits. allow_header_only: tensor data may be missing behind the header (the coordinator's
 * case); otherwise a tensor outside its file is an error ("truncated"). NULL and err on failure. */
struct gguf *gguf_open(const char *path, bool allow_header_only, struct err *err);
/* The same for one file in memory, which must outlive the gguf (tests, fuzzers, headers that came over the wire). A file
 * of a set of splits is an error there. */
struct gguf *gguf_open_memory(const void *data, size_t len, bool allow_header_only, struct err *err);
/* A whole set of splits from their headers alone, in order (gguf_split_header's bytes, as a coordinator sends them); they
 * must outlive the gguf. */
struct gguf_bytes {
    const void *data;
    size_t len;
};
struct gguf *gguf_open_headers(const struct gguf_bytes *headers, uint32_t n, struct err *err);
void gguf_close(struct gguf *g); /* takes NULL */

uint32_t gguf_version(const struct gguf *g);
uint32_t gguf_alignment(const struct gguf *g);
uint32_t gguf_n_splits(const struct gguf *g);
const char *gguf_split_path(const struct gguf *g, uint32_t split);
uint64_t gguf_split_bytes(const struct gguf *g, uint32_t split);       /* the file's size as found */
/* The size that its tensor table implies: what the model id counts, known from the header alone. */
uint64_t gguf_split_implied_bytes(const struct gguf *g, uint32_t split);
uint64_t gguf_split_data_offset(const struct gguf *g, uint32_t split); /* where its header ends, aligned */
bool gguf_header_only(const struct gguf *g);                           /* data is missing behind a header */
bool gguf_from_memory(const struct gguf *g);                           /* there is no file behind it */
/* A file's header as it stands there, from its first byte to the end of its tensor table (no padding). */
const void *gguf_split_header(const struct gguf *g, uint32_t split, size_t *ret_bytes);

/* Which file a header was read from, and as of when: whoever reads tensors later compares, so that a file that was replaced
 * or written to meanwhile is noticed. All 0 for a header from memory. */
struct gguf_stamp {
    uint64_t device, inode, bytes;
    int64_t modified_ns;
};
struct gguf_stamp gguf_split_stamp(const struct gguf *g, uint32_t split);
int gguf_stamp_of(int fd, struct gguf_stamp *ret, struct err *err);
bool gguf_stamp_same(const struct gguf_stamp *a, const struct gguf_stamp *b);

/* BLAKE2b-256 over every split's header and its full size (the size that its tensor table implies): the same for a
 * header-only file and the full one, different for any other model or quantization. */
enum { GGUF_ID_BYTES = 32 };
void gguf_model_id(const struct gguf *g, unsigned char ret_id[GGUF_ID_BYTES]);

size_t gguf_n_kv(const struct gguf *g);
const struct gguf_kv *gguf_kv(const struct gguf *g, size_t i);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); /* NULL if absent; O(1) */

size_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* NULL if absent; O(1) */

/* Typed look-ups. Return 1 and set *ret when the key is there, 0 (ret untouched) when it is absent, -1 and err when its
 * type or value does not fit. Integers of any width and sign are taken where the value fits; a float key takes integers,
 * and must be finite. */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct err *err);
int gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct err *err);
int gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct err *err);
int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *ret, struct err *err);
/* Array of items of a given type (GGUF_STRING, GGUF_F32, …); integers: ask for GGUF_I32 and read with gguf_array_int;
 * GGUF_F32 takes floats and integers of any width, for gguf_array_float. */
int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type type, struct gguf_array *ret, struct err *err);

/* Item i (below count) of an array of any integer type or bool / of floats or integers; 0 for other arrays. A U64 above
 * INT64_MAX comes back as INT64_MAX. */
int64_t gguf_array_int(const struct gguf_array *a, uint64_t i);
double gguf_array_float(const struct gguf_array *a, uint64_t i);

const char *gguf_value_type_name(enum gguf_value_type type); /* "u32", "string", …; "unknown" */

#endif
