#include "gguf/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/gguf/gguf_build.h"
#include "tests/tap.h"

static char dir[96];

static struct gguf *open_built(const struct gguf_build *b, bool with_data, bool header_only, unsigned char **ret_bytes, struct err *err)
{
    size_t len;
    *ret_bytes = gguf_build_finish(b, with_data, &len);
    err_clear(err);
    return gguf_open_memory(*ret_bytes, len, header_only, err);
}

/* The file that b makes must be refused with a message that contains `text`. */
static void refused(struct gguf_build *b, const char *text, const char *name)
{
    struct err err;
    unsigned char *bytes;
    struct gguf *g = open_built(b, true, false, &bytes, &err);
    ok(!g, "%s: refused", name);
    has_str(err.text, text, "%s: the message", name);
    gguf_close(g);
    free(bytes);
    gguf_build_fini(b);
}

static void add_all_types(struct gguf_build *b)
{
    static const int64_t ints[] = {-3, 0, 7};
    static const double floats[] = {1.5, -2.25};
    static const char *const strs[] = {"", "a", "two words"};
    struct strbuf nested;

    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_int(b, "u8", GGUF_U8, 250);
    gguf_build_int(b, "i8", GGUF_I8, -5);
    gguf_build_int(b, "u16", GGUF_U16, 65000);
    gguf_build_int(b, "i16", GGUF_I16, -30000);
    gguf_build_int(b, "u32", GGUF_U32, 4000000000);
    gguf_build_int(b, "i32", GGUF_I32, -2000000000);
    gguf_build_int(b, "u64", GGUF_U64, -1);
    gguf_build_int(b, "i64", GGUF_I64, INT64_MIN);
    gguf_build_int(b, "i64 small", GGUF_I64, 42);
    gguf_build_int(b, "yes", GGUF_BOOL, 1);
    gguf_build_int(b, "no", GGUF_BOOL, 0);
    gguf_build_float(b, "f32", GGUF_F32, 0.1);
    gguf_build_float(b, "f64", GGUF_F64, -0.1);
    gguf_build_float(b, "huge", GGUF_F64, 1e300);
    gguf_build_ints(b, "i16s", GGUF_I16, ints, 3);
    gguf_build_ints(b, "bools", GGUF_BOOL, ints, 3);
    gguf_build_ints(b, "u64s", GGUF_U64, ints, 3);
    gguf_build_ints(b, "none", GGUF_U32, ints, 0);
    gguf_build_floats(b, "f32s", GGUF_F32, floats, 2);
    gguf_build_floats(b, "f64s", GGUF_F64, floats, 2);
    gguf_build_strs(b, "strs", strs, 3);
    strbuf_init(&nested, 1000);
    gguf_build_put(&nested, GGUF_ARRAY, 4); /* [[5, 6], [], ["x"]] */
    gguf_build_put(&nested, 3, 8);
    gguf_build_put(&nested, GGUF_U8, 4);
    gguf_build_put(&nested, 2, 8);
    gguf_build_put(&nested, 0x0605, 2);
    gguf_build_put(&nested, GGUF_F32, 4);
    gguf_build_put(&nested, 0, 8);
    gguf_build_put(&nested, GGUF_STRING, 4);
    gguf_build_put(&nested, 1, 8);
    gguf_build_put_str(&nested, "x");
    gguf_build_raw(b, "nested", GGUF_ARRAY, strbuf_str(&nested), nested.len);
    strbuf_fini(&nested);
}

static void add_tensors(struct gguf_build *b)
{
    gguf_build_tensor(b, "token_embd.weight", QUANT_Q8_0, 2, (uint64_t[]){64, 10}, NULL);
    gguf_build_tensor(b, "blk.0.attn_norm.weight", QUANT_F32, 1, (uint64_t[]){3}, (float[]){1, 2, 3});
    gguf_build_tensor(b, "blk.0.ffn_down_exps.weight", QUANT_IQ2_S, 3, (uint64_t[]){256, 2, 4}, NULL);
    gguf_build_tensor(b, "scalar", QUANT_F16, 0, NULL, NULL);
}

static bool is_text(struct gguf_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.s, text, s.len) == 0;
}

static void check_values(const struct gguf *g)
{
    struct err err = {0};
    uint32_t u = 7;
    float f = 7;
    bool yes = false;
    struct gguf_str s;
    struct gguf_array a;

    ok(gguf_get_str(g, "general.architecture", &s, &err) == 1 && is_text(s, "llama"), "string");
    ok(gguf_get_u32(g, "u8", &u, &err) == 1 && u == 250, "u8");
    ok(gguf_get_u32(g, "u16", &u, &err) == 1 && u == 65000, "u16");
    ok(gguf_get_u32(g, "u32", &u, &err) == 1 && u == 4000000000u, "u32");
    ok(gguf_get_u32(g, "i64 small", &u, &err) == 1 && u == 42, "a small i64 as u32");
    is_int(gguf_find(g, "i8")->v.i, -5, "i8");
    is_int(gguf_find(g, "i16")->v.i, -30000, "i16");
    is_int(gguf_find(g, "i32")->v.i, -2000000000, "i32");
    is_int(gguf_find(g, "i64")->v.i, INT64_MIN, "i64");
    ok(gguf_find(g, "u64")->v.u == UINT64_MAX, "u64");
    u = 7;
    is_int(gguf_get_u32(g, "i8", &u, &err), -1, "no negative u32");
    has_str(err.text, "(memory): key 'i8': -5", "says so");
    is_int(gguf_get_u32(g, "u64", &u, &err), -1, "no large u32");
    has_str(err.text, "18446744073709551615, at most 4294967295", "says so");
    is_int(gguf_get_u32(g, "f32", &u, &err), -1, "no float as an integer");
    has_str(err.text, "its type is f32, must be an integer", "says so");
    is_int(gguf_get_u32(g, "i16s", &u, &err), -1, "no array as an integer");
    has_str(err.text, "an array of i16", "says so");
    is_int(gguf_get_u32(g, "absent", &u, &err), 0, "absent");
    is_int(u, 7, "untouched");
    ok(gguf_get_bool(g, "yes", &yes, &err) == 1 && yes, "true");
    ok(gguf_get_bool(g, "no", &yes, &err) == 1 && !yes, "false");
    is_int(gguf_get_bool(g, "u8", &yes, &err), -1, "no integer as a bool");
    ok(gguf_get_f32(g, "f32", &f, &err) == 1 && f == 0.1f, "f32");
    ok(gguf_get_f32(g, "f64", &f, &err) == 1 && f == -0.1f, "f64");
    ok(gguf_get_f32(g, "i8", &f, &err) == 1 && f == -5, "a float key takes an integer");
    is_int(gguf_get_f32(g, "huge", &f, &err), -1, "no overflow");
    is_int(gguf_get_f32(g, "yes", &f, &err), -1, "no bool as a float");

    ok(gguf_get_array(g, "i16s", GGUF_I32, &a, &err) == 1 && a.count == 3, "integers of any width");
    is_int(gguf_array_int(&a, 0), -3, "i16 item");
    ok(gguf_array_float(&a, 2) == 7, "as a float");
    ok(gguf_get_array(g, "bools", GGUF_BOOL, &a, &err) == 1 && gguf_array_int(&a, 0) == 1 && gguf_array_int(&a, 1) == 0, "bools");
    ok(gguf_get_array(g, "u64s", GGUF_I32, &a, &err) == 1 && gguf_array_int(&a, 0) == INT64_MAX, "u64 is clamped");
    ok(gguf_get_array(g, "none", GGUF_I32, &a, &err) == 1 && a.count == 0, "an empty array");
    ok(gguf_get_array(g, "f32s", GGUF_F32, &a, &err) == 1 && gguf_array_float(&a, 0) == 1.5, "f32 items");
    ok(gguf_get_array(g, "f64s", GGUF_F32, &a, &err) == 1 && gguf_array_float(&a, 1) == -2.25, "f64 items");
    is_int(gguf_array_int(&a, 0), 0, "floats are no integers");
    ok(gguf_get_array(g, "strs", GGUF_STRING, &a, &err) == 1 && a.count == 3 && is_text(a.strings[0], "") &&
           is_text(a.strings[2], "two words"),
       "string items");
    is_int(gguf_get_array(g, "strs", GGUF_F32, &a, &err), -1, "no strings as floats");
    has_str(err.text, "an array of string, must be an array of numbers", "says so");
    is_int(gguf_get_array(g, "u8", GGUF_U8, &a, &err), -1, "no array at all");
    ok(gguf_get_array(g, "nested", GGUF_ARRAY, &a, &err) == 1 && a.count == 3, "nested arrays");
    ok(a.arrays[0].type == GGUF_U8 && a.arrays[0].count == 2 && gguf_array_int(&a.arrays[0], 1) == 6, "the first");
    is_int(a.arrays[1].count, 0, "the second");
    ok(is_text(a.arrays[2].strings[0], "x"), "the third");
}

static void test_types(uint32_t version)
{
    struct gguf_build b;
    struct err err = {0};
    unsigned char *bytes;

    gguf_build_init(&b, version, 0);
    add_all_types(&b);
    add_tensors(&b);
    struct gguf *g = open_built(&b, true, false, &bytes, &err);
    if (ok(g, "version %u opens: %s", (unsigned)version, err.text)) {
        is_int(gguf_version(g), version, "version");
        is_int(gguf_alignment(g), 32, "default alignment");
        is_int(gguf_n_splits(g), 1, "one file");
        is_int(gguf_n_kv(g), b.n_kv, "keys");
        check_values(g);
        is_int(gguf_n_tensors(g), 4, "tensors");
        const struct gguf_tensor *t = gguf_find_tensor(g, "blk.0.attn_norm.weight");
        ok(t && t == gguf_tensor(g, 1) && t->n_dims == 1 && t->dims[0] == 3 && t->dims[1] == 1 && t->bytes == 12, "a tensor");
        ok(t && memcmp(bytes + t->offset, (float[]){1, 2, 3}, 12) == 0, "its bytes are at its offset");
        t = gguf_find_tensor(g, "blk.0.ffn_down_exps.weight");
        ok(t && t->type == QUANT_IQ2_S && t->bytes == 8 * 82, "a type that is not computed has its size, too");
        t = gguf_find_tensor(g, "scalar");
        ok(t && t->n_dims == 0 && t->bytes == 2, "a tensor of no dimensions is one element");
        ok(!gguf_find_tensor(g, "scala") && !gguf_find(g, ""), "what is not there is not found");
        ok(!gguf_tensor(g, 4) && !gguf_kv(g, gguf_n_kv(g)), "beyond the ends is NULL");
    }
    gguf_close(g);
    free(bytes);
    gguf_build_fini(&b);
}

static void test_alignment(void)
{
    struct gguf_build b;
    struct err err = {0};
    unsigned char *bytes;

    gguf_build_init(&b, 3, 4096);
    add_tensors(&b);
    struct gguf *g = open_built(&b, true, false, &bytes, &err);
    ok(g && gguf_alignment(g) == 4096 && gguf_tensor(g, 1)->offset % 4096 == 0, "an alignment of 4096: %s", err.text);
    gguf_close(g);
    free(bytes);
    gguf_build_fini(&b);
    static const uint32_t wrong[] = {48, 3, 1u << 22};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        gguf_build_init(&b, 3, wrong[i]);
        refused(&b, "must be a power of two up to", "a wrong alignment");
    }
    gguf_build_init(&b, 3, 0);
    gguf_build_str(&b, "general.alignment", "32");
    refused(&b, "must be an integer", "an alignment in words");
}

static void test_header_only(void)
{
    struct gguf_build b;
    struct err err = {0};
    unsigned char *full_bytes, *head_bytes, full_id[GGUF_ID_BYTES], head_id[GGUF_ID_BYTES];

    gguf_build_init(&b, 3, 0);
    add_all_types(&b);
    add_tensors(&b);
    struct gguf *full = open_built(&b, true, true, &full_bytes, &err);
    struct gguf *head = open_built(&b, false, true, &head_bytes, &err);
    if (ok(full && head, "both open: %s", err.text)) {
        ok(!gguf_header_only(full) && gguf_header_only(head), "the one without data is recognised");
        gguf_model_id(full, full_id);
        gguf_model_id(head, head_id);
        is_mem(head_id, full_id, GGUF_ID_BYTES, "both have one model id");
        size_t len = 0;
        ok(gguf_split_header(full, 0, &len) == full_bytes && len == 24 + b.kv.len + b.tensors.len, "the header's bytes");
    }
    gguf_close(head);
    gguf_close(full);
    free(head_bytes);
    head = open_built(&b, false, false, &head_bytes, &err);
    ok(!head, "where data is needed its lack is an error");
    has_str(err.text, "token_embd.weight", "with the tensor's name");
    free(head_bytes);
    free(full_bytes);
    gguf_build_int(&b, "more", GGUF_U8, 1);
    full = open_built(&b, true, true, &full_bytes, &err);
    gguf_model_id(full, head_id);
    ok(memcmp(head_id, full_id, GGUF_ID_BYTES) != 0, "another header, another id");
    gguf_close(full);
    free(full_bytes);
    gguf_build_fini(&b);
}

static void put_array_head(struct strbuf *sb, enum gguf_value_type type, uint64_t count)
{
    gguf_build_put(sb, type, 4);
    gguf_build_put(sb, count, 8);
}

static void test_refused(void)
{
    struct gguf_build b;
    struct strbuf sb;
    char long_name[GGUF_MAX_NAME_BYTES + 2];

    gguf_build_init(&b, 1, 0);
    refused(&b, "GGUF version 1", "version 1");
    gguf_build_init(&b, 4, 0);
    refused(&b, "GGUF version 4", "version 4");
    gguf_build_init(&b, 0x03000000, 0);
    refused(&b, "big-endian", "big-endian");

    gguf_build_init(&b, 3, 0);
    gguf_build_int(&b, "a\x1b" "key", GGUF_U8, 1);
    gguf_build_int(&b, "a\x1b" "key", GGUF_U8, 1);
    refused(&b, "key 'a?key' is there twice", "a key twice");
    gguf_build_init(&b, 3, 0);
    gguf_build_int(&b, "", GGUF_U8, 1);
    refused(&b, "key 0: its name is empty", "an empty key");
    gguf_build_init(&b, 3, 0);
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    gguf_build_int(&b, long_name, GGUF_U8, 1);
    refused(&b, "1025 bytes of name, at most 1024", "a long key");
    gguf_build_init(&b, 3, 0);
    gguf_build_raw(&b, "k", 13, "", 1);
    refused(&b, "key 'k': value type 13", "an unknown value type");

    strbuf_init(&sb, 1 << 20);
    put_array_head(&sb, GGUF_STRING, UINT64_MAX / 8);
    gguf_build_init(&b, 3, 0);
    gguf_build_raw(&b, "k", GGUF_ARRAY, strbuf_str(&sb), sb.len);
    refused(&b, "key 'k'", "more strings than bytes");
    strbuf_clear(&sb);
    for (int i = 0; i < GGUF_MAX_NESTING; i++)
        put_array_head(&sb, GGUF_ARRAY, 1);
    put_array_head(&sb, GGUF_U8, 0);
    gguf_build_init(&b, 3, 0);
    gguf_build_raw(&b, "k", GGUF_ARRAY, strbuf_str(&sb), sb.len);
    refused(&b, "5 levels of arrays, at most 4", "deep nesting");
    strbuf_fini(&sb);

    gguf_build_init(&b, 3, 0);
    b.n_kv = (uint64_t)1 << 60;
    refused(&b, "metadata keys, at most 65536", "a hostile count of keys");
    gguf_build_init(&b, 3, 0);
    b.n_kv = 60000;
    refused(&b, "truncated or damaged", "more keys than bytes");
    gguf_build_init(&b, 3, 0);
    b.n_tensors = UINT64_MAX;
    refused(&b, "tensors, at most 262144", "a hostile count of tensors");
}

static void test_refused_tensors(void)
{
    struct gguf_build b;
    const uint64_t big = (uint64_t)1 << 40;

    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 1, (uint64_t[]){1}, NULL);
    gguf_build_tensor(&b, "t", QUANT_F32, 1, (uint64_t[]){1}, NULL);
    refused(&b, "tensor 't' is there twice", "a tensor twice");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", 31, 1, (uint64_t[]){32}, NULL);
    refused(&b, "type 31 is unknown", "a removed type");
    has_str(quant_computed_names(), "Q4_K", "names what is supported");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_Q4_K, 1, (uint64_t[]){128}, NULL);
    refused(&b, "rows of 128 elements, Q4_K needs a multiple of 256", "half a block");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 2, (uint64_t[]){4, 0}, NULL);
    refused(&b, "dimension 1 is 0", "a dimension of 0");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, NULL);
    refused(&b, "5 dimensions, at most 4", "five dimensions");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", 99, 4, (uint64_t[]){big, big, big, 1}, NULL);
    b.tensors.data[b.tensors.len - 12] = QUANT_F32;
    refused(&b, "more than 2^63 elements", "overflow of elements");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", 99, 2, (uint64_t[]){big, (uint64_t)1 << 22}, NULL);
    b.tensors.data[b.tensors.len - 12] = QUANT_F32;
    refused(&b, "more than 2^63 bytes", "overflow of bytes");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 1, (uint64_t[]){1}, NULL);
    b.tensors.data[b.tensors.len - 8] = 8;
    refused(&b, "offset 8 is no multiple", "an offset that is not aligned");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 1, (uint64_t[]){1}, NULL);
    b.tensors.data[b.tensors.len - 8] = 64;
    refused(&b, "truncated", "an offset beyond the end");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 1, (uint64_t[]){1}, NULL);
    memset(b.tensors.data + b.tensors.len - 8, 0xE0, 8);
    refused(&b, "beyond 2^63", "an offset that overflows");
    gguf_build_init(&b, 3, 0);
    gguf_build_tensor(&b, "t", QUANT_F32, 1, (uint64_t[]){64}, NULL);
    gguf_build_tensor(&b, "u", QUANT_F32, 1, (uint64_t[]){64}, NULL);
    memset(b.tensors.data + b.tensors.len - 8, 0, 8);
    refused(&b, "tensors overlap", "two tensors in one place");
}

/* Three splits of four tensors, as llama.cpp's tools write them; break_what makes one of them wrong. */
static void write_splits(const char *prefix, const char *break_what)
{
    char path[256], name[32];
    for (int i = 0; i < 3; i++) {
        struct gguf_build b;
        gguf_build_init(&b, 3, 0);
        if (i == 0)
            gguf_build_str(&b, "general.architecture", "llama");
        gguf_build_int(&b, "split.no", GGUF_U16, strcmp(break_what, "no") == 0 && i == 2 ? 1 : i);
        gguf_build_int(&b, "split.count", GGUF_U16, strcmp(break_what, "count") == 0 && i == 1 ? 4 : 3);
        gguf_build_int(&b, "split.tensors.count", GGUF_I32, strcmp(break_what, "tensors") == 0 ? 5 : 4);
        for (int k = 0; k < (i == 0 ? 2 : 1); k++) {
            snprintf(name, sizeof name, "t%d", strcmp(break_what, "names") == 0 ? k : i * 2 + k);
            gguf_build_tensor(&b, name, QUANT_F32, 1, (uint64_t[]){4}, (float[]){(float)i, (float)k, 0, 0});
        }
        snprintf(path, sizeof path, "%s-%05d-of-00003.gguf", prefix, i + 1);
        if (strcmp(break_what, "missing") == 0 && i == 2)
            unlink(path);
        else
            gguf_build_write(&b, path, true);
        gguf_build_fini(&b);
    }
}

static void split_refused(const char *break_what, const char *text)
{
    char prefix[128], path[160];
    struct err err = {0};
    snprintf(prefix, sizeof prefix, "%s/%s", dir, break_what);
    snprintf(path, sizeof path, "%s-00002-of-00003.gguf", prefix);
    write_splits(prefix, break_what);
    struct gguf *g = gguf_open(path, false, &err);
    ok(!g, "splits with a wrong '%s': refused", break_what);
    has_str(err.text, text, "the message");
    gguf_close(g);
}

static void test_splits(void)
{
    char prefix[128], path[160];
    struct err err = {0};
    unsigned char first_id[GGUF_ID_BYTES], id[GGUF_ID_BYTES];

    snprintf(prefix, sizeof prefix, "%s/good", dir);
    write_splits(prefix, "");
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s-%05d-of-00003.gguf", prefix, i + 1);
        struct gguf *g = gguf_open(path, false, &err);
        if (!ok(g, "split %d opens them all: %s", i + 1, err.text))
            continue;
        is_int(gguf_n_splits(g), 3, "three files");
        is_int(gguf_n_tensors(g), 4, "four tensors");
        const struct gguf_tensor *t = gguf_find_tensor(g, "t4");
        ok(t && t->split == 2 && t->offset == gguf_split_data_offset(g, 2), "the last one is in the last file");
        ok(gguf_find(g, "general.architecture"), "the metadata is the first one's");
        has_str(gguf_split_path(g, 1), "good-00002-of-00003.gguf", "paths");
        struct stat st;
        ok(stat(gguf_split_path(g, 1), &st) == 0 && (uint64_t)st.st_size == gguf_split_bytes(g, 1), "sizes");
        gguf_model_id(g, id);
        if (i == 0)
            memcpy(first_id, id, sizeof id);
        is_mem(id, first_id, sizeof id, "the same model id from any split");
        gguf_close(g);
    }
    split_refused("missing", "missing-00003-of-00003.gguf");
    split_refused("no", "its metadata says split 2 of 3, its name 3 of 3");
    split_refused("count", "its metadata says split 2 of 4, its name 2 of 3");
    split_refused("tensors", "5 tensors, but the 3 splits hold 4");
    split_refused("names", "tensor 't0' is there twice: a part of another model lies among these");

    snprintf(path, sizeof path, "%s/good-00001-of-00003.gguf", dir);
    char renamed[160];
    snprintf(renamed, sizeof renamed, "%s/renamed.gguf", dir);
    rename(path, renamed);
    struct gguf *g = gguf_open(renamed, false, &err);
    ok(!g, "a split by another name: refused");
    has_str(err.text, "must end in -00001-of-00003.gguf", "the message");
    gguf_close(g);
}

static void test_paths(void)
{
    struct err err = {0};
    char path[128];
    ok(!gguf_open("/nonexistent/x.gguf", false, &err) && err.kind == ERR_NOT_FOUND, "no file");
    has_str(err.text, "/nonexistent/x.gguf: cannot open the model file", "the message");
    ok(!gguf_open(dir, false, &err), "a folder is no model");
    has_str(err.text, "a folder", "the message");
    snprintf(path, sizeof path, "%s/fifo", dir);
    ok(mkfifo(path, 0600) == 0 && !gguf_open(path, false, &err), "a fifo does not hold us up");
    snprintf(path, sizeof path, "%s/text", dir);
    FILE *f = fopen(path, "w");
    fputs("this is no model", f);
    fclose(f);
    ok(!gguf_open(path, true, &err), "a text");
    has_str(err.text, "it begins with 'this'", "the message");
    gguf_close(NULL);
}

/* Real files, where they are. */
static void test_vocab(const char *name, const char *pre, uint64_t n_tokens)
{
    char path[512];
    struct err err = {0};
    struct gguf_array a;
    struct gguf_str s;
    snprintf(path, sizeof path, "%s/testdata/vocab/%s.gguf", getenv("SC_SHARED") ? getenv("SC_SHARED") : "../shared", name);
    if (access(path, R_OK) != 0) {
        tap_skip("%s is not there", path);
        return;
    }
    struct gguf *g = gguf_open(path, false, &err);
    if (!ok(g, "%s opens: %s", name, err.text))
        return;
    ok(gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &a, &err) == 1 && a.count == n_tokens, "%s: tokens", name);
    ok(gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &a, &err) == 1 && a.count == n_tokens, "%s: their types", name);
    ok(gguf_get_str(g, "tokenizer.ggml.pre", &s, &err) == 1 && is_text(s, pre), "%s: pre-tokenizer", name);
    gguf_close(g);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/sc-test-gguf-XXXXXX", tmp && strlen(tmp) < 64 ? tmp : "/tmp");
    if (!mkdtemp(dir))
        tap_skip_all("no temporary folder");
    test_types(2);
    test_types(3);
    test_alignment();
    test_header_only();
    test_refused();
    test_refused_tensors();
    test_splits();
    test_paths();
    test_vocab("llama-bpe", "llama-bpe", 128256);
    test_vocab("llama-spm", "default", 32000);
    test_vocab("qwen2", "qwen2", 151936);
    test_vocab("gpt-2", "gpt-2", 50257);

    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ok(system(command) == 0, "cleaned up");
    return tap_done();
}
