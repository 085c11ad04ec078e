/* Tokenizers: any file as a vocabulary, and what stands behind its header as text. Whatever the vocabulary says, ids are its
 * own, whole text and parts agree, and what a stream of tokens gives is UTF-8. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "tests/text/vocab_build.h"

enum { TEXT_MAX = 3000 };

static void must(int cond)
{
    if (!cond)
        abort();
}

static void check_stream(const struct tokenizer *t, const struct token_list *list, bool special)
{
    char buf[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    struct detokenizer d;
    detokenizer_init(&d, t, special);
    for (size_t i = 0; i <= list->len; i++) {
        size_t n = i < list->len ? detokenizer_next(&d, list->ids[i], buf, sizeof buf) : detokenizer_end(&d, buf, sizeof buf);
        must(n <= sizeof buf && d.n_pending < DETOKENIZER_PENDING);
        for (size_t at = 0; at < n;) {
            size_t width = utf8_len(buf + at, n - at);
            must(width > 0);
            at += width;
        }
    }
}

static void check_text(const struct tokenizer *t, const char *text, size_t len)
{
    struct err err = {0};
    for (unsigned flags = 0; flags < 4; flags++) {
        struct token_list list = {0}, again = {0};
        struct text_part parts[3] = {
            {len / 3, flags & TOKENIZE_PARSE_SPECIAL}, {len / 2, flags & TOKENIZE_PARSE_SPECIAL}, {len, flags & TOKENIZE_PARSE_SPECIAL}};
        int status = tokenizer_encode(t, text, len, flags, &list, &err);
        must(status == 0 || (list.len == 0 && err.kind != ERR_NONE && err.kind != ERR_INTERNAL));
        for (size_t i = 0; i < list.len; i++)
            must(list.ids[i] >= 0 && (size_t)list.ids[i] < tokenizer_n_tokens(t));
        if (status == 0) {
            must(tokenizer_encode_parts(t, text, parts, 3, flags, &again, &err) == 0 && again.len == list.len);
            must(list.len == 0 || memcmp(list.ids, again.ids, list.len * sizeof *list.ids) == 0);
            check_stream(t, &list, flags & 1);
        }
        token_list_fini(&list);
        token_list_fini(&again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct gguf *g = gguf_open_memory(data, size, true, &err);
    struct tokenizer *t = g ? tokenizer_create(g, &err) : NULL;
    gguf_close(g);
    if (!t)
        return 0;
    must(!tokenizer_is_end(t, -1) && !tokenizer_is_end(t, (int32_t)tokenizer_n_tokens(t)));
    for (int32_t id = 0; (size_t)id < tokenizer_n_tokens(t); id++) {
        size_t len;
        must(tokenizer_spelling(t, id, &len) != NULL && len <= TOKEN_MAX_BYTES);
        must(tokenizer_piece(t, id, true, NULL, 0) <= TOKEN_MAX_BYTES);
    }
    size_t len = size < TEXT_MAX ? size : TEXT_MAX; /* the file's end: the text behind it, and the last of its words */
    check_text(t, (const char *)data + size - len, len);
    tokenizer_destroy(t);
    return 0;
}

/* --- seeds ----------------------------------------------------------------------------------------------------------- */
static const struct {
    const char *model, *pre;
    bool characters;
} kinds[] = {
    {"llama", NULL, false},     {"gpt2", "gpt-2", true},        {"gpt2", "llama-bpe", true},
    {"gpt2", "default", true},  {"gpt2", "deepseek-llm", true}, {"gpt2", "afmoe", true},
    {"gpt2", "superbpe", true}, {"gpt2", "tekken", true},       {"gpt2", "exaone-moe", true},
    {"gpt2", "jais-2", true},   {"gpt2", "whitespace", false},  {"gemma4", NULL, false},
    {"t5", NULL, false},        {"rwkv", NULL, false},
};

static void add_charsmap(struct vocab_build *b)
{
    enum { UNITS = 512 };
    uint32_t units[UNITS] = {0}, at = 256 ^ 'b';
    struct strbuf map;
    units[0] = 256u << 10;
    units[at] = 1u << 10 | 1u << 8 | 'b';
    units[at ^ 1] = 1u << 31;
    strbuf_init(&map, 1 << 20);
    gguf_build_put(&map, GGUF_U8, 4);
    gguf_build_put(&map, 4 + sizeof units + 4, 8);
    gguf_build_put(&map, sizeof units, 4);
    for (size_t i = 0; i < UNITS; i++)
        gguf_build_put(&map, units[i], 4);
    strbuf_add(&map, "aba", 4);
    gguf_build_raw(&b->gguf, "tokenizer.ggml.precompiled_charsmap", GGUF_ARRAY, map.data, map.len);
    strbuf_fini(&map);
}

size_t fuzz_corpus(size_t index, uint8_t *buf, size_t cap)
{
    static const char *const words[] = {"▁",    "▁▁", "a", "b", "ab",  "abc", "bc",   "c", "Ġ",  "Ġa",  "Ġab",  "aa",
                                        "aaaa", "12", "1", "2", "▁ab", "\n",  "\n\n", "é", "漢", "\\n", "\\x41"};
    static const char *const merges[] = {"a b", "b c", "a bc", "ab c", "Ġ a", "Ġ ab", "a a", "aa aa", "1 2", "▁ ab", "▁ ▁", "bad", " "};
    static const char text[] =
        "ab abc aaaaaaa<s>x</s> it's 12345 \n\n  aab<|im_end|><|im_<tool>  é漢字 \xFF\xE2\x96 ABC Abc!!!   \r\n\t...";
    struct vocab_build b;
    size_t len;
    if (index >= sizeof kinds / sizeof *kinds)
        return 0;
    vocab_build_init(&b, kinds[index].model, kinds[index].pre);
    vocab_build_add(&b, "<unk>", T_UNKNOWN, 0);
    vocab_build_add(&b, "<s>", T_CONTROL, 0);
    vocab_build_add(&b, "</s>", T_CONTROL, 0);
    if (strcmp(kinds[index].model, "rwkv") != 0)
        vocab_build_add_bytes(&b, kinds[index].characters);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        vocab_build_add(&b, words[i], T_NORMAL, -(double)i);
    vocab_build_add(&b, "<|im_end|>", T_CONTROL, 0);
    vocab_build_add(&b, "<|im_", T_CONTROL, 0);
    vocab_build_add(&b, "<tool>", T_USER, 0);
    vocab_build_add(&b, "  ", T_USER, 0);
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        vocab_build_merge(&b, merges[i]);
    if (strcmp(kinds[index].model, "t5") == 0)
        add_charsmap(&b);
    gguf_build_int(&b.gguf, "tokenizer.ggml.eos_token_id", GGUF_U32, 2);
    if (index % 3 == 0)
        gguf_build_str(&b.gguf, "general.name", "phi-3");
    unsigned char *file = vocab_build_finish(&b, &len);
    vocab_build_fini(&b);
    if (len + sizeof text - 1 <= cap) {
        memcpy(buf, file, len);
        memcpy(buf + len, text, sizeof text - 1);
        len += sizeof text - 1;
    } else {
        len = 0;
    }
    free(file);
    return len;
}
