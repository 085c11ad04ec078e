#include "gguf/describe.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gguf/gguf_build.h"
#include "tests/tap.h"

enum { MAX_BYTES = 1 << 20 };

static void build(struct gguf_build *b)
{
    int64_t many[100];
    static const char *const words[] = {"a\n", "\xFF", "b\"c"};
    static const double floats[] = {0.1, 1e30, -0.0};
    for (int i = 0; i < 100; i++)
        many[i] = i;
    gguf_build_init(b, 3, 0);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, "tokenizer.chat_template",
                   "{% for m in messages %}{{ m.content }}{% endfor %} and so on, longer than a line should be");
    gguf_build_int(b, "big", GGUF_U64, -1);
    gguf_build_int(b, "yes", GGUF_BOOL, 1);
    gguf_build_int(b, "minus", GGUF_I8, -7);
    gguf_build_float(b, "eps", GGUF_F32, 1e-5);
    gguf_build_raw(b, "nan", GGUF_F32, "\0\0\xC0\x7F", 4);
    gguf_build_ints(b, "many", GGUF_U16, many, 100);
    gguf_build_strs(b, "words", words, 3);
    gguf_build_floats(b, "floats", GGUF_F32, floats, 3);
    gguf_build_tensor(b, "token_embd.weight", QUANT_Q8_0, 2, (uint64_t[]){64, 10}, NULL);
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%d.attn_q.weight", i);
        gguf_build_tensor(b, name, QUANT_Q4_0, 2, (uint64_t[]){64, i == 2 ? 32 : 64}, NULL);
    }
    gguf_build_tensor(b, "output_norm.weight", QUANT_F32, 1, (uint64_t[]){64}, NULL);
    gguf_build_tensor(b, "output.weight", QUANT_F16, 2, (uint64_t[]){64, 10}, NULL);
}

static void test_text(const struct gguf *g)
{
    struct strbuf sb;
    struct err err = {0};
    strbuf_init(&sb, MAX_BYTES);
    is_int(gguf_describe(g, false, &sb, &err), 0, "text: %s", err.text);
    const char *text = strbuf_str(&sb);
    has_str(text, "GGUF version 3, alignment 32, header ", "the head");
    has_str(text, "string llama\n", "a string");
    has_str(text, "\xE2\x80\xA6 (90 bytes)\n", "a long one is cut");
    has_str(text, "u64    18446744073709551615\n", "an integer");
    has_str(text, "f32    1e-05\n", "a float in its shortest form");
    has_str(text, "100 x u16 [0, 1, 2, 3, 4, 5, \xE2\x80\xA6]\n", "a long array is cut");
    has_str(text, "3 x string [a?, ?, b\"c]\n", "nothing that is not printable gets through");
    has_str(text, "  blk.2.attn_q.weight                  Q4_0     64 x 32                 1.2 kB  ", "a tensor");
    has_str(text, "  0-1, each        2.3 kB       1 tensors             4096 parameters\n", "equal layers share a line");
    has_str(text, "  2                1.2 kB       1 tensors             2048 parameters\n", "others have their own");
    has_str(text, "  embedding         680 B ", "the embedding");
    has_str(text, "  head             1.3 kB ", "the head");
    has_str(text, "  total            8.0 kB       6 tensors            11584 parameters\n", "the total");
    strbuf_fini(&sb);

    strbuf_init(&sb, 100);
    is_int(gguf_describe(g, false, &sb, &err), -1, "the limit holds");
    is_int(err.kind, ERR_LIMIT, "and is told");
    strbuf_fini(&sb);
}

static json_int_t number(const json_t *o, const char *a, const char *b)
{
    return json_integer_value(json_object_get(json_object_get(o, a), b));
}

static void test_json(const struct gguf *g)
{
    struct strbuf sb;
    struct err err = {0};
    json_error_t where = {0};
    strbuf_init(&sb, MAX_BYTES);
    is_int(gguf_describe(g, true, &sb, &err), 0, "JSON: %s", err.text);
    json_t *o = json_loads(strbuf_str(&sb), JSON_DECODE_INT_AS_REAL, &where);
    ok(o, "parses with integers as reals (one is above 2^63): %s", where.text);
    json_decref(o);
    char *big = strstr(sb.data, "18446744073709551615");
    if (ok(big, "the large integer stands there whole"))
        memset(big + 1, ' ', 19);
    o = json_loads(strbuf_str(&sb), 0, &where);
    if (ok(o, "parses: %s", where.text)) {
        const json_t *meta = json_object_get(o, "metadata"), *many = json_object_get(meta, "many");
        is_int(json_string_length(json_object_get(o, "id")), 64, "id");
        is_int(json_integer_value(json_object_get(o, "version")), 3, "version");
        ok(json_is_false(json_object_get(o, "header_only")), "header_only");
        is_int(json_string_length(json_object_get(meta, "tokenizer.chat_template")), 90, "strings are whole");
        is_int(json_integer_value(json_object_get(meta, "minus")), -7, "an integer");
        ok(json_is_true(json_object_get(meta, "yes")) && json_is_null(json_object_get(meta, "nan")), "a bool, a NaN");
        ok((float)json_real_value(json_object_get(meta, "eps")) == 1e-5f, "a float");
        is_int(json_integer_value(json_object_get(many, "count")), 100, "a long array has its count");
        is_int(json_array_size(json_object_get(many, "first")), 8, "and its first items");
        is_str(json_string_value(json_array_get(json_object_get(meta, "words"), 0)), "a\n", "a short one is whole");
        is_int(json_array_size(json_object_get(o, "tensors")), 6, "tensors");
        const json_t *t = json_array_get(json_object_get(o, "tensors"), 3);
        is_str(json_string_value(json_object_get(t, "name")), "blk.2.attn_q.weight", "name");
        is_str(json_string_value(json_object_get(t, "type")), "Q4_0", "type");
        is_int(json_integer_value(json_array_get(json_object_get(t, "shape"), 1)), 32, "shape");
        is_int(json_array_size(json_object_get(o, "layers")), 3, "layers");
        is_int(number(json_object_get(o, "types"), "Q4_0", "tensors"), 3, "types");
        is_int(number(json_object_get(o, "outside"), "head", "bytes"), 1280, "head");
        is_int(number(o, "total", "parameters"), 11584, "parameters");
    }
    json_decref(o);
    strbuf_fini(&sb);
}

int main(void)
{
    struct gguf_build b;
    struct err err = {0};
    size_t len;
    build(&b);
    unsigned char *bytes = gguf_build_finish(&b, true, &len);
    struct gguf *g = gguf_open_memory(bytes, len, false, &err);
    if (ok(g, "opens: %s", err.text)) {
        test_text(g);
        test_json(g);
    }
    gguf_close(g);
    free(bytes);
    gguf_build_fini(&b);

    is_int(gguf_tensor_layer("blk.12.attn_q.weight"), 12, "a layer's number");
    is_int(gguf_tensor_layer("blk.12"), -1, "no layer without a dot");
    is_int(gguf_tensor_layer("blk..x"), -1, "nor without a number");
    is_int(gguf_tensor_layer("blk.99999999999999999999.x"), -1, "nor with a huge one");
    is_int(gguf_tensor_layer("output.weight"), -1, "nor another tensor");
    return tap_done();
}
