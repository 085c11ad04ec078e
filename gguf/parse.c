/* From a header's bytes to its tables. The header is walked twice by the same code: the first walk checks everything and
 * counts, reading the file on as it goes (so the bytes may still move); the second one, over bytes that stay, fills tables
 * of exactly the size that was counted. A count in the file is thus believed only once as many items were seen, and a
 * hostile one costs no memory. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "gguf/header.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read as it stands in memory");

enum {
    MIN_STRING_BYTES = 8,                 /* its length */
    MIN_ARRAY_BYTES = 4 + 8,              /* item type, count */
    MIN_KV_BYTES = 8 + 1 + 4 + 1,         /* key, type, a byte */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8, /* name, dimensions, type, offset */
    NEWEST_VERSION = 3,
};

struct parser {
    struct gguf_file *f;
    size_t pos; /* at most f->have */
    bool build; /* the second walk */
    size_t n_strings, n_arrays, name_bytes;
    char what[112]; /* the object being read, for messages */
};

static int fail_limit(const struct parser *p, struct err *err, const char *what, uint64_t got, uint64_t max)
{
    return err_set(err, ERR_LIMIT, "%s: %" PRIu64 " %s, at most %" PRIu64 " allowed", p->what, got, what, max);
}

/* Makes n bytes be there at pos. */
static int need(struct parser *p, uint64_t n, struct err *err)
{
    if (n > p->f->bytes - p->pos)
        return err_set(err, ERR_INPUT, "%s: the file is truncated or damaged: %" PRIu64 " bytes should follow at %zu, it ends at %" PRIu64,
                       p->what, n, p->pos, p->f->bytes);
    if (n > GGUF_MAX_HEADER_BYTES - p->pos)
        return fail_limit(p, err, "bytes of header", p->pos + n, GGUF_MAX_HEADER_BYTES);
    if (p->pos + n <= p->f->have)
        return 0;
    return gguf_file_fill(p->f, p->pos + (size_t)n, err);
}

static int read_bytes(struct parser *p, void *ret, size_t n, struct err *err)
{
    if (need(p, n, err) != 0)
        return -1;
    memcpy(ret, p->f->data + p->pos, n);
    p->pos += n;
    return 0;
}

static int read_u32(struct parser *p, uint32_t *ret, struct err *err)
{
    return read_bytes(p, ret, sizeof *ret, err);
}

static int read_u64(struct parser *p, uint64_t *ret, struct err *err)
{
    return read_bytes(p, ret, sizeof *ret, err);
}

/* The view is good until the next read of the first walk, and for ever in the second. */
static int read_str(struct parser *p, struct gguf_str *ret, struct err *err)
{
    uint64_t len;
    if (read_u64(p, &len, err) != 0 || need(p, len, err) != 0)
        return -1;
    *ret = (struct gguf_str){(const char *)p->f->data + p->pos, (size_t)len};
    p->pos += (size_t)len;
    return 0;
}

/* A key or a tensor's name: not empty, bounded, no 0 inside. */
static int read_name(struct parser *p, const char *kind, struct gguf_str *ret, struct err *err)
{
    char shown[80];
    if (read_str(p, ret, err) != 0)
        return -1;
    if (ret->len == 0)
        return err_set(err, ERR_INPUT, "%s: its name is empty", p->what);
    if (ret->len > GGUF_MAX_NAME_BYTES)
        return fail_limit(p, err, "bytes of name", ret->len, GGUF_MAX_NAME_BYTES);
    err_printable(shown, sizeof shown, ret->s, ret->len);
    snprintf(p->what, sizeof p->what, "%s '%s'", kind, shown);
    if (memchr(ret->s, 0, ret->len))
        return err_set(err, ERR_INPUT, "%s: a 0 byte in its name", p->what);
    return 0;
}

static int read_value_type(struct parser *p, enum gguf_value_type *ret, struct err *err)
{
    uint32_t type;
    if (read_u32(p, &type, err) != 0)
        return -1;
    if (type >= GGUF_VALUE_TYPES)
        return err_set(err, ERR_INPUT, "%s: value type %" PRIu32 ", only 0 to %d exist", p->what, type, GGUF_VALUE_TYPES - 1);
    *ret = (enum gguf_value_type)type;
    return 0;
}

static int check_count(const struct parser *p, uint64_t count, size_t item_bytes, struct err *err)
{
    uint64_t left = p->f->bytes - p->pos;
    if (count > left / item_bytes)
        return err_set(err, ERR_INPUT,
                       "%s: the file is truncated or damaged: %" PRIu64 " items of at least %zu bytes, but %" PRIu64 " bytes are left",
                       p->what, count, item_bytes, left);
    return 0;
}

/* Takes n of the strings or arrays of the file; the first one's number in *ret. */
static int take(const struct parser *p, size_t *used, uint64_t n, size_t max, const char *what, size_t *ret, struct err *err)
{
    if (n > max - *used)
        return fail_limit(p, err, what, *used + n, max);
    *ret = *used;
    *used += (size_t)n;
    return 0;
}

static int read_array(struct parser *p, unsigned depth, struct gguf_array *ret, struct err *err)
{
    struct gguf_array a = {0};
    size_t item_bytes, first = 0;

    if (depth > GGUF_MAX_NESTING)
        return fail_limit(p, err, "levels of arrays", depth, GGUF_MAX_NESTING);
    if (read_value_type(p, &a.type, err) != 0 || read_u64(p, &a.count, err) != 0)
        return -1;
    item_bytes = gguf_value_size(a.type);
    if (!item_bytes)
        item_bytes = a.type == GGUF_STRING ? MIN_STRING_BYTES : MIN_ARRAY_BYTES;
    if (check_count(p, a.count, item_bytes, err) != 0)
        return -1;

    if (a.type == GGUF_STRING) {
        if (take(p, &p->n_strings, a.count, GGUF_MAX_STRINGS, "strings in arrays", &first, err) != 0)
            return -1;
        for (size_t i = 0; i < a.count; i++) {
            struct gguf_str s;
            if (read_str(p, &s, err) != 0)
                return -1;
            if (p->build)
                p->f->strings[first + i] = s;
        }
        a.strings = p->build ? p->f->strings + first : NULL;
    } else if (a.type == GGUF_ARRAY) {
        if (take(p, &p->n_arrays, a.count, GGUF_MAX_ARRAYS, "arrays in arrays", &first, err) != 0)
            return -1;
        for (size_t i = 0; i < a.count; i++) {
            struct gguf_array inner;
            if (read_array(p, depth + 1, &inner, err) != 0)
                return -1;
            if (p->build)
                p->f->arrays[first + i] = inner;
        }
        a.arrays = p->build ? p->f->arrays + first : NULL;
    } else {
        if (need(p, a.count * item_bytes, err) != 0)
            return -1;
        a.data = p->f->data + p->pos;
        p->pos += (size_t)a.count * item_bytes;
    }
    *ret = a;
    return 0;
}

/* data holds a value of a fixed size. */
static void set_scalar(struct gguf_kv *kv, const unsigned char *data)
{
    struct gguf_array one = {.type = kv->type, .count = 1, .data = data};
    switch (kv->type) {
    case GGUF_F32:
    case GGUF_F64:
        kv->v.f = gguf_array_float(&one, 0);
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        kv->v.i = gguf_array_int(&one, 0);
        break;
    case GGUF_U64:
        memcpy(&kv->v.u, data, sizeof kv->v.u);
        break;
    default:
        kv->v.u = (uint64_t)gguf_array_int(&one, 0);
    }
}

static int read_kv(struct parser *p, size_t i, struct err *err)
{
    struct gguf_kv kv = {0};
    int rc = 0;

    snprintf(p->what, sizeof p->what, "key %zu", i);
    if (read_name(p, "key", &kv.key, err) != 0 || read_value_type(p, &kv.type, err) != 0)
        return -1;
    size_t bytes = gguf_value_size(kv.type);
    if (kv.type == GGUF_STRING) {
        rc = read_str(p, &kv.v.str, err);
    } else if (kv.type == GGUF_ARRAY) {
        rc = read_array(p, 1, &kv.v.array, err);
    } else {
        rc = need(p, bytes, err);
        if (rc == 0) {
            set_scalar(&kv, p->f->data + p->pos);
            p->pos += bytes;
        }
    }
    if (rc == 0 && p->build)
        p->f->kv[i] = kv;
    return rc;
}

/* The type's block must divide a row, and nothing overflow. */
static int set_tensor_bytes(const struct parser *p, struct gguf_tensor *t, struct err *err)
{
    const struct quant_traits *traits = quant_traits(t->type);
    uint64_t n = 1;
    if (!traits)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: type %u is unknown (removed from ggml, or newer than this program); Stagecoach computes with %s", p->what,
                       (unsigned)t->type, quant_computed_names());
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] == 0)
            return err_set(err, ERR_INPUT, "%s: dimension %" PRIu32 " is 0, at least 1 needed", p->what, i);
        if (__builtin_mul_overflow(n, t->dims[i], &n) || n > INT64_MAX)
            return err_set(err, ERR_INPUT, "%s: its dimensions multiply to more than 2^63 elements", p->what);
    }
    if (t->dims[0] % traits->block)
        return err_set(err, ERR_INPUT, "%s: rows of %" PRIu64 " elements, %s needs a multiple of %" PRIu32, p->what, t->dims[0],
                       traits->name, traits->block);
    t->bytes = quant_bytes(t->type, n);
    if (t->bytes == 0 || t->bytes > INT64_MAX)
        return err_set(err, ERR_INPUT, "%s: more than 2^63 bytes (%" PRIu64 " elements of %s)", p->what, n, traits->name);
    return 0;
}

static int read_tensor(struct parser *p, size_t i, struct err *err)
{
    struct gguf_tensor t = {.dims = {1, 1, 1, 1}};
    struct gguf_str name;
    uint32_t type;

    snprintf(p->what, sizeof p->what, "tensor %zu", i);
    if (read_name(p, "tensor", &name, err) != 0)
        return -1;
    if (p->build) {
        char *copy = p->f->names + p->name_bytes; /* zeroed memory: the end is there */
        memcpy(copy, name.s, name.len);
        t.name = copy;
    }
    p->name_bytes += name.len + 1;
    if (read_u32(p, &t.n_dims, err) != 0)
        return -1;
    if (t.n_dims > GGUF_MAX_DIMS)
        return fail_limit(p, err, "dimensions", t.n_dims, GGUF_MAX_DIMS);
    for (uint32_t d = 0; d < t.n_dims; d++)
        if (read_u64(p, &t.dims[d], err) != 0)
            return -1;
    if (read_u32(p, &type, err) != 0 || read_u64(p, &t.offset, err) != 0)
        return -1;
    t.type = (enum quant_type)type;
    if (set_tensor_bytes(p, &t, err) != 0)
        return -1;
    if (p->build)
        p->f->tensors[i] = t;
    return 0;
}

/* Magic, version and the two counts. */
static int read_head(struct parser *p, uint64_t *ret_tensors, uint64_t *ret_kv, struct err *err)
{
    char magic[4], shown[16];
    snprintf(p->what, sizeof p->what, "file head");
    if (read_bytes(p, magic, sizeof magic, err) != 0)
        return -1;
    if (memcmp(magic, "GGUF", 4) != 0)
        return err_set(err, ERR_INPUT, "no GGUF file: it begins with '%s', not 'GGUF'",
                       err_printable(shown, sizeof shown, magic, sizeof magic));
    if (read_u32(p, &p->f->version, err) != 0)
        return -1;
    if (p->f->version != 0 && (p->f->version & 0xFFFF) == 0)
        return err_set(err, ERR_UNSUPPORTED, "a big-endian GGUF file (version 0x%08" PRIx32 "): convert the model to little-endian",
                       p->f->version);
    if (p->f->version < 2 || p->f->version > NEWEST_VERSION)
        return err_set(err, ERR_UNSUPPORTED, "GGUF version %" PRIu32 ", versions 2 and 3 can be read%s", p->f->version,
                       p->f->version == 1 ? "; convert the model again, or look for a newer file" : "");
    if (read_u64(p, ret_tensors, err) != 0 || read_u64(p, ret_kv, err) != 0)
        return -1;
    if (*ret_tensors > GGUF_MAX_TENSORS)
        return fail_limit(p, err, "tensors", *ret_tensors, GGUF_MAX_TENSORS);
    if (*ret_kv > GGUF_MAX_METADATA)
        return fail_limit(p, err, "metadata keys", *ret_kv, GGUF_MAX_METADATA);
    return check_count(p, *ret_tensors * MIN_TENSOR_BYTES + *ret_kv * MIN_KV_BYTES, 1, err);
}

static int walk(struct parser *p, struct err *err)
{
    uint64_t n_tensors = 0, n_kv = 0;
    if (read_head(p, &n_tensors, &n_kv, err) != 0)
        return -1;
    p->f->n_tensors = (size_t)n_tensors;
    p->f->n_kv = (size_t)n_kv;
    for (size_t i = 0; i < p->f->n_kv; i++)
        if (read_kv(p, i, err) != 0)
            return -1;
    for (size_t i = 0; i < p->f->n_tensors; i++)
        if (read_tensor(p, i, err) != 0)
            return -1;
    return 0;
}

int gguf_parse(struct gguf_file *f, struct err *err)
{
    struct parser count = {.f = f}, build = {.f = f, .build = true};
    if (walk(&count, err) != 0)
        return -1;
    f->header_bytes = count.pos;
    gguf_file_trim(f);
    if (!(f->kv = mem_new(f->n_kv, sizeof *f->kv, err)) || !(f->tensors = mem_new(f->n_tensors, sizeof *f->tensors, err)) ||
        !(f->names = mem_new(count.name_bytes, 1, err)) || !(f->strings = mem_new(count.n_strings, sizeof *f->strings, err)) ||
        !(f->arrays = mem_new(count.n_arrays, sizeof *f->arrays, err)))
        return -1;
    return walk(&build, err);
}
