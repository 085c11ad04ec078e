/* See gguf_build.h. */
#include "tests/gguf/gguf_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/quant.h"

enum { MAX_BYTES = 1 << 30 };

static void check(const struct strbuf *sb)
{
    if (!sb->failed)
        return;
    fprintf(stderr, "gguf_build: out of memory\n");
    exit(99);
}

void gguf_build_put(struct strbuf *sb, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        strbuf_putc(sb, (char)(value >> (8 * i)));
    check(sb);
}

void gguf_build_put_str(struct strbuf *sb, const char *s)
{
    gguf_build_put(sb, strlen(s), 8);
    strbuf_puts(sb, s);
    check(sb);
}

static void put_float(struct strbuf *sb, enum gguf_value_type type, double value)
{
    float narrow = (float)value;
    if (type == GGUF_F32)
        strbuf_add(sb, (const char *)&narrow, sizeof narrow);
    else
        strbuf_add(sb, (const char *)&value, sizeof value);
    check(sb);
}

static size_t int_bytes(enum gguf_value_type type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
        return 4;
    default:
        return 8;
    }
}

void gguf_build_init(struct gguf_build *b, uint32_t version, uint32_t alignment)
{
    *b = (struct gguf_build){.version = version, .alignment = alignment ? alignment : 32};
    strbuf_init(&b->kv, MAX_BYTES);
    strbuf_init(&b->tensors, MAX_BYTES);
    strbuf_init(&b->data, MAX_BYTES);
    if (alignment)
        gguf_build_int(b, "general.alignment", GGUF_U32, alignment);
}

void gguf_build_fini(struct gguf_build *b)
{
    strbuf_fini(&b->kv);
    strbuf_fini(&b->tensors);
    strbuf_fini(&b->data);
}

static void begin(struct gguf_build *b, const char *key, uint32_t type)
{
    gguf_build_put_str(&b->kv, key);
    gguf_build_put(&b->kv, type, 4);
    b->n_kv++;
}

static void begin_array(struct gguf_build *b, const char *key, enum gguf_value_type type, size_t n)
{
    begin(b, key, GGUF_ARRAY);
    gguf_build_put(&b->kv, type, 4);
    gguf_build_put(&b->kv, n, 8);
}

void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t type, const void *value, size_t len)
{
    begin(b, key, type);
    strbuf_add(&b->kv, value, len);
    check(&b->kv);
}

void gguf_build_int(struct gguf_build *b, const char *key, enum gguf_value_type type, int64_t value)
{
    begin(b, key, type);
    gguf_build_put(&b->kv, (uint64_t)value, int_bytes(type));
}

void gguf_build_float(struct gguf_build *b, const char *key, enum gguf_value_type type, double value)
{
    begin(b, key, type);
    put_float(&b->kv, type, value);
}

void gguf_build_str(struct gguf_build *b, const char *key, const char *value)
{
    begin(b, key, GGUF_STRING);
    gguf_build_put_str(&b->kv, value);
}

void gguf_build_ints(struct gguf_build *b, const char *key, enum gguf_value_type type, const int64_t *items, size_t n)
{
    begin_array(b, key, type, n);
    for (size_t i = 0; i < n; i++)
        gguf_build_put(&b->kv, (uint64_t)items[i], int_bytes(type));
}

void gguf_build_floats(struct gguf_build *b, const char *key, enum gguf_value_type type, const double *items, size_t n)
{
    begin_array(b, key, type, n);
    for (size_t i = 0; i < n; i++)
        put_float(&b->kv, type, items[i]);
}

void gguf_build_strs(struct gguf_build *b, const char *key, const char *const *items, size_t n)
{
    begin_array(b, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        gguf_build_put_str(&b->kv, items[i]);
}

static void pad(struct strbuf *sb, uint32_t alignment)
{
    while (sb->len % alignment && !sb->failed)
        strbuf_putc(sb, 0);
    check(sb);
}

void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, const void *data)
{
    uint64_t n = 1;
    pad(&b->data, b->alignment);
    gguf_build_put_str(&b->tensors, name);
    gguf_build_put(&b->tensors, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        gguf_build_put(&b->tensors, dims[i], 8);
        n *= dims[i];
    }
    gguf_build_put(&b->tensors, type, 4);
    gguf_build_put(&b->tensors, b->data.len, 8);
    b->n_tensors++;
    uint64_t bytes = quant_bytes(type, n);
    if (data)
        strbuf_add(&b->data, data, bytes);
    for (uint64_t i = 0; !data && i < bytes && !b->data.failed; i++)
        strbuf_putc(&b->data, 0);
    check(&b->data);
}

unsigned char *gguf_build_finish(const struct gguf_build *b, bool with_data, size_t *ret_len)
{
    struct strbuf sb;
    strbuf_init(&sb, SIZE_MAX - 1);
    strbuf_puts(&sb, "GGUF");
    gguf_build_put(&sb, b->version, 4);
    gguf_build_put(&sb, b->n_tensors, 8);
    gguf_build_put(&sb, b->n_kv, 8);
    strbuf_add(&sb, strbuf_str(&b->kv), b->kv.len);
    strbuf_add(&sb, strbuf_str(&b->tensors), b->tensors.len);
    if (with_data) {
        pad(&sb, b->alignment);
        strbuf_add(&sb, strbuf_str(&b->data), b->data.len);
    }
    check(&sb);
    *ret_len = sb.len;
    return (unsigned char *)sb.data; /* its buffer is free()'s */
}

void gguf_build_write(const struct gguf_build *b, const char *path, bool with_data)
{
    size_t len;
    unsigned char *bytes = gguf_build_finish(b, with_data, &len);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f) != 0) {
        perror(path);
        exit(99);
    }
    free(bytes);
}
