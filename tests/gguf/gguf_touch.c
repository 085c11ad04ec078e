/* See gguf_touch.h. */
#include "tests/gguf/gguf_touch.h"

#include <string.h>

#include "gguf/describe.h"

enum { MAX_DESCRIPTION = 1 << 22 };

void gguf_sample(struct gguf_build *b, unsigned variant)
{
    static const int64_t ints[] = {-3, 0, 7, 1 << 20};
    static const double floats[] = {1.5, -2.25};
    static const char *const words[] = {"<s>", "a", "two words"};
    struct strbuf nested;

    gguf_build_init(b, variant == 1 ? 2 : 3, variant == 2 ? 64 : 0);
    gguf_build_str(b, "general.architecture", "llama");
    for (int type = GGUF_U8; type < GGUF_VALUE_TYPES; type++) {
        char key[8] = {'k', (char)('a' + type)};
        if (type == GGUF_F32 || type == GGUF_F64)
            gguf_build_float(b, key, (enum gguf_value_type)type, 0.25);
        else if (type != GGUF_STRING && type != GGUF_ARRAY)
            gguf_build_int(b, key, (enum gguf_value_type)type, 1);
    }
    gguf_build_strs(b, "tokenizer.ggml.tokens", words, 3);
    gguf_build_floats(b, "tokenizer.ggml.scores", GGUF_F32, floats, 2);
    gguf_build_ints(b, "tokenizer.ggml.token_type", GGUF_I32, ints, 4);
    gguf_build_ints(b, "u64s", GGUF_U64, ints, 4);
    strbuf_init(&nested, 1000);
    gguf_build_put(&nested, GGUF_ARRAY, 4); /* [[1, 2], ["x"]] */
    gguf_build_put(&nested, 2, 8);
    gguf_build_put(&nested, GGUF_U8, 4);
    gguf_build_put(&nested, 2, 8);
    gguf_build_put(&nested, 0x0201, 2);
    gguf_build_put(&nested, GGUF_STRING, 4);
    gguf_build_put(&nested, 1, 8);
    gguf_build_put_str(&nested, "x");
    gguf_build_raw(b, "nested", GGUF_ARRAY, strbuf_str(&nested), nested.len);
    strbuf_fini(&nested);
    if (variant == 4) {
        gguf_build_int(b, "split.no", GGUF_U16, 0);
        gguf_build_int(b, "split.count", GGUF_U16, 2);
    }
    if (variant == 3)
        return;
    gguf_build_tensor(b, "token_embd.weight", QUANT_Q8_0, 2, (uint64_t[]){32, 3}, NULL);
    gguf_build_tensor(b, "blk.0.attn_norm.weight", QUANT_F32, 1, (uint64_t[]){3}, NULL);
    gguf_build_tensor(b, "blk.0.ffn_up_exps.weight", QUANT_Q4_0, 3, (uint64_t[]){32, 2, 2}, NULL);
    gguf_build_tensor(b, "output.weight", QUANT_BF16, 4, (uint64_t[]){2, 1, 2, 1}, NULL);
}

static uint64_t touch_bytes(const void *data, size_t len)
{
    uint64_t sum = len;
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + ((const unsigned char *)data)[i];
    return sum;
}

static uint64_t touch_array(const struct gguf_array *a)
{
    uint64_t sum = a->count;
    for (uint64_t i = 0; i < a->count; i++) {
        if (a->type == GGUF_STRING) {
            sum += touch_bytes(a->strings[i].s, a->strings[i].len);
        } else if (a->type == GGUF_ARRAY) {
            sum += touch_array(&a->arrays[i]);
        } else {
            double f = gguf_array_float(a, i);
            sum += (uint64_t)gguf_array_int(a, i) + touch_bytes(&f, sizeof f);
        }
    }
    return sum;
}

static uint64_t touch_kv(const struct gguf *g, const struct gguf_kv *kv)
{
    char key[GGUF_MAX_NAME_BYTES + 1];
    uint32_t u = 0;
    float f = 0;
    bool yes = false;
    struct gguf_str s = {0};
    struct gguf_array a = {0};
    struct err err;
    uint64_t sum = touch_bytes(kv->key.s, kv->key.len);

    memcpy(key, kv->key.s, kv->key.len);
    key[kv->key.len] = '\0';
    if (gguf_find(g, key) != kv)
        return 0;
    sum += (uint64_t)gguf_get_u32(g, key, &u, &err) + (uint64_t)gguf_get_f32(g, key, &f, &err) +
           (uint64_t)gguf_get_bool(g, key, &yes, &err) + u + yes + touch_bytes(&f, sizeof f);
    if (gguf_get_str(g, key, &s, &err) == 1)
        sum += touch_bytes(s.s, s.len);
    for (int type = 0; type < GGUF_VALUE_TYPES; type++)
        if (gguf_get_array(g, key, (enum gguf_value_type)type, &a, &err) == 1)
            sum += touch_array(&a);
    return sum;
}

uint64_t gguf_touch(const struct gguf *g)
{
    unsigned char id[GGUF_ID_BYTES];
    struct strbuf sb;
    struct err err;
    size_t len = 0;
    uint64_t sum = gguf_version(g) + gguf_alignment(g) + gguf_header_only(g);

    for (uint32_t i = 0; i < gguf_n_splits(g); i++) {
        const void *header = gguf_split_header(g, i, &len);
        sum += touch_bytes(header, len) + strlen(gguf_split_path(g, i)) + gguf_split_bytes(g, i) + gguf_split_data_offset(g, i);
    }
    for (size_t i = 0; i < gguf_n_kv(g); i++)
        sum += touch_kv(g, gguf_kv(g, i));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        sum += t->offset + t->bytes + t->split + t->n_dims + t->dims[GGUF_MAX_DIMS - 1] + (gguf_find_tensor(g, t->name) == t);
    }
    gguf_model_id(g, id);
    strbuf_init(&sb, MAX_DESCRIPTION);
    sum += touch_bytes(id, sizeof id);
    for (int json = 0; json < 2; json++) {
        strbuf_clear(&sb);
        gguf_describe(g, json, &sb, &err);
        sum += touch_bytes(strbuf_str(&sb), sb.len);
    }
    strbuf_fini(&sb);
    return sum;
}
