/* Tokenizers on small vocabularies made here: each model's way of encoding, special tokens, parts, streams, and files that
 * lie. Where an algorithm is clever, a simple-minded one beside it must agree. */
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "tests/text/vocab_build.h"

static struct vocab_build b;
static struct err err;

static uint32_t next_random(void)
{
    static uint64_t state = 7;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

static struct tokenizer *build(void)
{
    struct tokenizer *t = vocab_build_tokenizer(&b, &err);
    if (!t)
        tap_note("%s", err.text);
    vocab_build_fini(&b);
    return t;
}

/* The spellings of a text's tokens with spaces between: what tests compare. */
static const char *spell_list(const struct tokenizer *t, const struct token_list *list)
{
    static char buf[4096];
    size_t n = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < list->len; i++) {
        size_t len;
        const char *s = tokenizer_spelling(t, list->ids[i], &len);
        n += (size_t)snprintf(buf + n, sizeof buf - n, "%s%.*s", i ? " " : "", (int)len, s);
        if (n >= sizeof buf)
            break;
    }
    return buf;
}

static const char *spell(const struct tokenizer *t, const char *text, unsigned flags)
{
    struct token_list list = {0};
    if (!t || tokenizer_encode(t, text, strlen(text), flags, &list, &err) != 0)
        return err.text;
    const char *s = spell_list(t, &list);
    token_list_fini(&list);
    return s;
}

static const char *decode(const struct tokenizer *t, const struct token_list *list, bool special)
{
    static char buf[4096];
    struct detokenizer d;
    size_t n = 0;
    detokenizer_init(&d, t, special);
    for (size_t i = 0; i < list->len && n + TOKEN_MAX_BYTES + DETOKENIZER_PENDING < sizeof buf; i++)
        n += detokenizer_next(&d, list->ids[i], buf + n, sizeof buf - n);
    n += detokenizer_end(&d, buf + n, sizeof buf - n);
    buf[n] = '\0';
    return buf;
}

static const char *round_trip(const struct tokenizer *t, const char *text)
{
    struct token_list list = {0};
    if (!t || tokenizer_encode(t, text, strlen(text), 0, &list, &err) != 0)
        return err.text;
    const char *s = decode(t, &list, false);
    token_list_fini(&list);
    return s;
}

/* --- SentencePiece --------------------------------------------------------------------------------------------------- */
static struct tokenizer *spm(void)
{
    vocab_build_init(&b, "llama", "default");
    vocab_build_add(&b, "<unk>", T_UNKNOWN, 0);
    vocab_build_add(&b, "<s>", T_CONTROL, 0);
    vocab_build_add(&b, "</s>", T_CONTROL, 0);
    vocab_build_add_bytes(&b, false);
    for (const char *c = "helowrd<s>/"; *c; c++)
        vocab_build_add(&b, (char[]){*c, 0}, T_NORMAL, -100);
    vocab_build_add(&b, "▁", T_NORMAL, -100);
    vocab_build_add(&b, "▁▁", T_NORMAL, -3);
    vocab_build_add(&b, "s>", T_NORMAL, -4);
    vocab_build_add(&b, "he", T_NORMAL, -5);
    vocab_build_add(&b, "ll", T_NORMAL, -1);
    vocab_build_add(&b, "llo", T_NORMAL, -2);
    vocab_build_add(&b, "hello", T_NORMAL, -6);
    vocab_build_add(&b, "▁hello", T_NORMAL, -7);
    vocab_build_add(&b, "lo", T_NORMAL, -8);
    vocab_build_add(&b, "ol", T_NORMAL, -8);
    vocab_build_add(&b, "[user]", T_USER, 0);
    vocab_build_add(&b, "<|im_end|>", T_NORMAL, 0);
    return build();
}

static void test_spm(void)
{
    struct tokenizer *t = spm();
    if (!ok(t != NULL, "a SentencePiece vocabulary loads"))
        return;
    is_str(spell(t, "hello", 0), "▁hello", "a space before the text, then merges by score");
    is_str(spell(t, "hello", TOKENIZE_ADD_SPECIAL), "<s> ▁hello", "BOS is added by default");
    is_str(spell(t, "", TOKENIZE_ADD_SPECIAL), "<s>", "to an empty text, too");
    is_str(spell(t, "", 0), "", "an empty text has no tokens");
    is_str(spell(t, " ", 0), "▁▁", "two spaces");
    is_str(spell(t, "wolo", 0), "▁ w ol o", "of equal scores the leftmost pair merges first");
    is_str(spell(t, "é", 0), "▁ <0xC3> <0xA9>", "an unknown character goes by its bytes");
    is_str(spell(t, "h\xFFh", 0), "▁ h <0xFF> h", "a byte that is no UTF-8 is its own token");
    is_str(spell(t, "<s>", 0), "▁ < s>", "plain text never becomes a control token, though the best score would have it");
    is_str(spell(t, "<s>", TOKENIZE_PARSE_SPECIAL), "<s>", "parsed where asked for");
    is_str(spell(t, "h<s>hello</s>", TOKENIZE_PARSE_SPECIAL), "▁ h <s> ▁hello </s>", "a space again behind each special token");
    is_str(spell(t, "h[user]h", 0), "▁ h [user] ▁ h", "user-defined tokens are found without being asked for");
    is_str(round_trip(t, "hello  wor\n é [user]"), "hello  wor\n é [user]", "decoding gives the text back");
    is_int(tokenizer_bos(t), 1, "BOS by default");
    is_int(tokenizer_eos(t), 2, "EOS by default");
    ok(tokenizer_is_end(t, 2), "EOS ends");
    ok(tokenizer_is_end(t, tokenizer_find(t, "<|im_end|>", 10)), "so does <|im_end|>");
    ok(tokenizer_is_control(t, tokenizer_find(t, "<|im_end|>", 10)), "which is a control token, whatever the file says");
    ok(!tokenizer_is_end(t, 1) && !tokenizer_is_end(t, -1) && !tokenizer_is_end(t, 1 << 30), "nothing else ends");
    size_t len = 99;
    ok(tokenizer_spelling(t, -1, &len) == NULL && tokenizer_spelling(t, (int32_t)tokenizer_n_tokens(t), &len) == NULL, "bad ids");
    is_int(tokenizer_find(t, "nothing like it", 15), -1, "an absent spelling");
    is_int(tokenizer_piece(t, 1, false, NULL, 0), 0, "a control token stands for nothing");
    is_int(tokenizer_piece(t, 1, true, NULL, 0), 3, "unless it is asked for");
    tokenizer_destroy(t);
}

/* --- byte-pair encoding ---------------------------------------------------------------------------------------------- */
static struct tokenizer *bpe(const char *pre)
{
    vocab_build_init(&b, "gpt2", pre);
    vocab_build_add_bytes(&b, true);
    for (const char *const *w = (const char *const[]){"ab", "abc", "bc", "cd", "Ġab", "aa", "aaa", "aaaa", "ba", "Ã©", "12", "xyz", NULL};
         *w; w++)
        vocab_build_add(&b, *w, T_NORMAL, 0);
    vocab_build_add(&b, "<|end|>", T_CONTROL, 0);
    vocab_build_add(&b, "<|e", T_CONTROL, 0);
    vocab_build_add(&b, "<|end|><|end|>", T_CONTROL, 0);
    for (const char *const *m = (const char *const[]){"b c", "a b", "a bc", "c d", "Ġ ab", "a a", "aa aa", "aa a", "b a", "Ã ©", "1 2",
                                                      "< |", "nonsense", "x ", " y", "a b", NULL};
         *m; m++)
        vocab_build_merge(&b, *m);
    gguf_build_int(&b.gguf, "tokenizer.ggml.eos_token_id", GGUF_U32, 256 + 12);
    gguf_build_int(&b.gguf, "tokenizer.ggml.bos_token_id", GGUF_U32, 4000000000);
    return build();
}

static void test_bpe(void)
{
    struct tokenizer *t = bpe("gpt-2");
    if (!ok(t != NULL, "a byte-pair vocabulary loads"))
        return;
    is_str(spell(t, "abcd", 0), "abc d", "merges by rank");
    is_str(spell(t, "abcd", TOKENIZE_ADD_SPECIAL), "abc d", "no BOS unless told");
    is_str(spell(t, "ab ab", 0), "ab Ġab", "a word takes its space along");
    is_str(spell(t, "aaaaa", 0), "aaaa a", "runs");
    is_str(spell(t, "\n\xC3\xA9", 0), "Ċ Ã©", "bytes in their printable spelling");
    is_str(spell(t, "\xFFz", 0), "ï ¿ ½ z", "a byte that is no UTF-8 becomes U+FFFD");
    is_str(spell(t, "xyz", 0), "x y z", "a token without merges is not made");
    is_str(spell(t, "<|end|>", 0), "< | e n d | >", "plain text never becomes a control token");
    is_str(spell(t, "a<|end|>b", TOKENIZE_PARSE_SPECIAL), "a <|end|> b", "parsed where asked for");
    is_str(spell(t, "<|end|><|end|>", TOKENIZE_PARSE_SPECIAL), "<|end|><|end|>", "the longest first");
    is_str(spell(t, "<|en", TOKENIZE_PARSE_SPECIAL), "<|e n", "a shorter one where the longer does not fit");
    is_int(tokenizer_bos(t), -1, "an id outside the vocabulary is none");
    is_str(round_trip(t, "tab\there, é and 漢字 \xF0\x9F\x98\x80!"), "tab\there, é and 漢字 \xF0\x9F\x98\x80!",
           "decoding gives the text back");
    tokenizer_destroy(t);
    t = bpe("llama-bpe");
    is_str(spell(t, "xyz", 0), "xyz", "llama-bpe takes a word that is a token whole");
    tokenizer_destroy(t);
}

/* What each pre-tokenizer makes of one text, by the words that a vocabulary of bytes cannot hide: merges join neighbours
 * within a word only. Here every pair of equal letters merges, so cuts show. */
static void test_pre(void)
{
    static const struct {
        const char *pre, *text, *want;
    } cases[] = {
        {"gpt-2", "111", "111"},
        {"gpt-2", "1111", "11 11"},
        {"llama-bpe", "1111", "111 1"},
        {"qwen2", "1111", "1 1 1 1"},
        {"deepseek-v3", "a1111a", "a 111 1 a"},
        {"superbpe", "1111", "1 111"},
        {"superbpe", "a11111", "a 11 111"},
        {"tiny_aya", "11111", "11 111"},
        {"afmoe", "aa1111", "aa 1 111"},
        {"falcon", "1111", "111 1"},
        {"starcoder", "11", "1 1"},
        {"gpt-2", "aa'saa", "aa ' s aa"},
        {"gpt-2", "\n\n\naa", "ĊĊ Ċ aa"},
        {"llama-bpe", "\n\n\naa", "ĊĊ Ċ aa"},
        {"laguna", "aa\n\naa", "aa ĊĊ aa"},
        {"qwen2", "!aa", "! aa"},
        {"default", "!!aa", "! ! aa"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocab_build_init(&b, "gpt2", cases[i].pre);
        vocab_build_add_bytes(&b, true);
        for (const char *const *w = (const char *const[]){"11", "111", "aa", "ĊĊ", NULL}; *w; w++)
            vocab_build_add(&b, *w, T_NORMAL, 0);
        for (const char *const *m = (const char *const[]){"1 1", "11 1", "a a", "Ċ Ċ", NULL}; *m; m++)
            vocab_build_merge(&b, *m);
        struct tokenizer *t = build();
        is_str(spell(t, cases[i].text, 0), cases[i].want, "%s cuts case %zu", cases[i].pre, i);
        tokenizer_destroy(t);
    }
}

/* Every row compiles, and takes any text. */
static void test_every_pre(void)
{
    static const char names[] =
        "default llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano deepseek-llm deepseek-coder deepseek-v3 "
        "spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jais-2 "
        "gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en jina-v2-code roberta-bpe whitespace refact command-r qwen2 "
        "deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe poro-chat chatglm-bpe glm4 glm5 viking jais tekken smollm "
        "codeshell bloom gpt3-finnish exaone exaone4 exaone-moe chameleon minerva-7b megrez gpt-4o llama4 kanana2 talkie "
        "granite-embed-multi-97m tiny_aya cohere2moe superbpe trillion granite-docling bailingmoe bailingmoe2 llada-moe seed-coder "
        "hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka grok-2 afmoe laguna minimax-m2 solar-open mellum2";
    static const char text[] = "It's 12345 o'CLOCK,\r\n\n  naïve ÀÉ 漢字かな 한국어 \u3000\u0301e\u0301 <sentinel:1>\t!!! 😀\xFF";
    char copy[sizeof names], *save = NULL;
    size_t bad = 0, n = 0;
    memcpy(copy, names, sizeof names);
    for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save), n++) {
        struct tokenizer *t = bpe(name);
        struct token_list list = {0};
        if (!t || tokenizer_encode(t, text, sizeof text - 1, TOKENIZE_PARSE_SPECIAL, &list, &err) != 0) {
            tap_note("%s: %s", name, err.text);
            bad++;
        } else if (strstr("gemma4 granite-embed-multi-311m sarvam-moe whitespace", name) == NULL &&
                   strcmp(decode(t, &list, true),
                          "It's 12345 o'CLOCK,\r\n\n  naïve ÀÉ 漢字かな 한국어 \u3000\u0301e\u0301 <sentinel:1>\t!!! "
                          "😀\uFFFD") != 0) {
            tap_note("%s lost something: %s", name, decode(t, &list, true));
            bad++;
        }
        token_list_fini(&list);
        tokenizer_destroy(t);
    }
    ok(bad == 0, "all %zu pre-tokenizers take a text and lose nothing of it", n);
}

/* Long words go by a heap, short ones by looking; both must be what a simple search makes. */
static void test_merge_order(void)
{
    enum { MAX = 200 };
    struct tokenizer *t = bpe("gpt-2");
    size_t bad = 0;
    if (!t)
        return;
    /* the merges of bpe() over a, b, c, d, in order of rank */
    static const char *const merges[][3] = {{"b", "c", "bc"}, {"a", "b", "ab"},     {"a", "bc", "abc"}, {"c", "d", "cd"},
                                            {"a", "a", "aa"}, {"aa", "aa", "aaaa"}, {"aa", "a", "aaa"}, {"b", "a", "ba"}};
    for (int run = 0; run < 400; run++) {
        size_t len = 1 + next_random() % MAX, n = 0;
        char text[MAX + 1], want[4 * MAX] = "";
        char words[MAX][8];
        for (size_t i = 0; i < len; i++) {
            text[i] = "abcda"[next_random() % 5];
            words[n][0] = text[i];
            words[n++][1] = '\0';
        }
        text[len] = '\0';
        for (size_t m = 0; m < sizeof merges / sizeof *merges;) {
            size_t i = 0;
            while (i + 1 < n && (strcmp(words[i], merges[m][0]) != 0 || strcmp(words[i + 1], merges[m][1]) != 0))
                i++;
            if (i + 1 >= n) {
                m++;
                continue;
            }
            snprintf(words[i], sizeof words[i], "%s", merges[m][2]);
            memmove(words[i + 1], words[i + 2], (n - i - 2) * sizeof *words);
            n--;
            m = 0;
        }
        for (size_t i = 0, at = 0; i < n; i++)
            at += (size_t)snprintf(want + at, sizeof want - at, "%s%s", i ? " " : "", words[i]);
        if (strcmp(spell(t, text, 0), want) != 0 && bad++ == 0)
            tap_note("%s: %s, not %s", text, spell(t, text, 0), want);
    }
    ok(bad == 0, "merging agrees with a simple search, long words and short ones");
    tokenizer_destroy(t);
}

/* --- unigram, RWKV, raw byte-pair ------------------------------------------------------------------------------------ */
static void test_unigram(void)
{
    vocab_build_init(&b, "t5", NULL);
    vocab_build_add(&b, "<pad>", T_CONTROL, 0);
    vocab_build_add(&b, "</s>", T_CONTROL, 0);
    vocab_build_add(&b, "<unk>", T_UNKNOWN, 0);
    vocab_build_add(&b, "▁", T_NORMAL, -3);
    vocab_build_add(&b, "a", T_NORMAL, -5);
    vocab_build_add(&b, "b", T_NORMAL, -5);
    vocab_build_add(&b, "ab", T_NORMAL, -6);
    vocab_build_add(&b, "ba", T_NORMAL, -4);
    vocab_build_add(&b, "▁ab", T_NORMAL, -20);
    vocab_build_add(&b, "aba", T_NORMAL, -10);
    gguf_build_int(&b.gguf, "tokenizer.ggml.add_space_prefix", GGUF_BOOL, 1);
    gguf_build_int(&b.gguf, "tokenizer.ggml.remove_extra_whitespaces", GGUF_BOOL, 1);
    struct tokenizer *t = build();
    if (!ok(t != NULL, "a unigram vocabulary loads"))
        return;
    is_str(spell(t, "aba", 0), "▁ a ba", "the best sum, not the longest token");
    is_str(spell(t, "  ab   a ", TOKENIZE_ADD_SPECIAL), "▁ ab ▁ a </s>", "spaces are merged, EOS is added");
    is_str(spell(t, "axyzb", 0), "▁ a <unk> b", "one unknown token for a run of unknown characters");
    is_str(spell(t, "</s>", 0), "▁ <unk>", "plain text never becomes a control token");
    tokenizer_destroy(t);

    /* A double array that maps "b" to "a" and nothing else: unit 0 is the root with base 256; letter 'b' is at 256 ^ 'b', has
     * a value at its base 0 ^ …; the value is the offset of the replacement. */
    enum { UNITS = 512 };
    uint32_t units[UNITS] = {0};
    units[0] = 256u << 10;
    uint32_t b_at = 256 ^ 'b', value_at = b_at ^ 1;
    units[b_at] = 1u << 10 | 1u << 8 | 'b';
    units[value_at] = 1u << 31 | 0;
    struct strbuf map;
    strbuf_init(&map, 1 << 20);
    gguf_build_put(&map, GGUF_U8, 4);
    gguf_build_put(&map, 4 + sizeof units + 2, 8);
    gguf_build_put(&map, sizeof units, 4);
    for (size_t i = 0; i < UNITS; i++)
        gguf_build_put(&map, units[i], 4);
    strbuf_add(&map, "a", 2);
    vocab_build_init(&b, "t5", NULL);
    for (const char *const *w = (const char *const[]){"<pad>", "</s>", "<unk>", "a", "b", NULL}; *w; w++)
        vocab_build_add(&b, *w, (*w)[1] ? T_CONTROL : T_NORMAL, -1);
    gguf_build_raw(&b.gguf, "tokenizer.ggml.precompiled_charsmap", GGUF_ARRAY, map.data, map.len);
    strbuf_fini(&map);
    t = build();
    is_str(spell(t, "abba", 0), "a a a a", "the character map replaces");
    tokenizer_destroy(t);
}

static void test_rwkv(void)
{
    vocab_build_init(&b, "rwkv", NULL);
    vocab_build_add(&b, "<s>", T_CONTROL, 0);
    for (const char *const *w = (const char *const[]){"a", "ab", "abcd", "b", "c", "\\n", "\\xe4\\xbd\\xa0", "\\\\", NULL}; *w; w++)
        vocab_build_add(&b, *w, T_NORMAL, 0);
    struct tokenizer *t = build();
    is_str(spell(t, "ababc\nabcd你\\", 0), "ab ab c \\n abcd \\xe4\\xbd\\xa0 \\\\", "the longest token, escapes undone");
    is_str(round_trip(t, "ab\n你\\"), "ab\n你\\", "decoding gives the text back");
    tokenizer_destroy(t);
}

static void test_raw(void)
{
    vocab_build_init(&b, "gemma4", NULL);
    vocab_build_add(&b, "<bos>", T_CONTROL, 0);
    vocab_build_add_bytes(&b, false);
    for (const char *const *w = (const char *const[]){"▁", "a", "b", "▁a", "é", "\n", "\n\n", "aé", NULL}; *w; w++)
        vocab_build_add(&b, *w, T_NORMAL, 0);
    vocab_build_merge(&b, "▁ a");
    vocab_build_merge(&b, "a é");
    gguf_build_int(&b.gguf, "tokenizer.ggml.bos_token_id", GGUF_U32, 0);
    struct tokenizer *t = build();
    is_str(spell(t, "a aéb\n\nü", TOKENIZE_ADD_SPECIAL), "<bos> a ▁a é b \n\n <0xC3> <0xBC>", "characters, ▁ for spaces, newlines whole");
    is_str(round_trip(t, "a aéb\n\nü"), "a aéb\n\nü", "decoding gives the text back");
    tokenizer_destroy(t);
}

/* --- special tokens -------------------------------------------------------------------------------------------------- */
enum { SPECIALS = 7 };
static const char *const specials[SPECIALS] = {"abcab", "bcab", "cabb", "aa", "bb", "c", "bcabcabc"};

static struct tokenizer *overlapping(enum token_type type)
{
    vocab_build_init(&b, "gpt2", "gpt-2");
    vocab_build_add_bytes(&b, true);
    for (size_t i = 0; i < SPECIALS; i++)
        vocab_build_add(&b, specials[i], i % 2 ? T_USER : type, 0);
    return build();
}

/* Longest first, each from left to right, in what is left: the rule, word for word. `allowed` tells where control tokens are. */
static void cut_simply(const char *text, const bool *allowed, enum token_type type, char *want, size_t want_size)
{
    size_t len = strlen(text), order[SPECIALS], at[64];
    int owner[64];
    for (size_t i = 0; i < len; i++)
        owner[i] = -1;
    for (size_t i = 0; i < SPECIALS; i++)
        order[i] = i;
    for (size_t i = 0; i < SPECIALS; i++)
        for (size_t k = 0; k + 1 < SPECIALS; k++)
            if (strlen(specials[order[k]]) < strlen(specials[order[k + 1]])) {
                size_t swap = order[k];
                order[k] = order[k + 1];
                order[k + 1] = swap;
            }
    for (size_t o = 0; o < SPECIALS; o++) {
        /* equally long ones together, leftmost first */
        for (size_t i = 0; i < len; i++) {
            for (size_t k = o; k < SPECIALS && strlen(specials[order[k]]) == strlen(specials[order[o]]); k++) {
                size_t n = strlen(specials[order[k]]);
                bool control = order[k] % 2 == 0 && type == T_CONTROL, fits = i + n <= len && memcmp(text + i, specials[order[k]], n) == 0;
                for (size_t j = 0; fits && j < n; j++)
                    fits = owner[i + j] < 0 && (!control || allowed[i + j]);
                for (size_t j = 0; fits && j < n; j++) {
                    owner[i + j] = (int)order[k];
                    at[i + j] = i;
                }
            }
        }
    }
    size_t n = 0;
    want[0] = '\0';
    for (size_t i = 0; i < len; i++) {
        if (owner[i] < 0)
            n += (size_t)snprintf(want + n, want_size - n, "%s%c", n ? " " : "", text[i]);
        else if (at[i] == i)
            n += (size_t)snprintf(want + n, want_size - n, "%s%s", n ? " " : "", specials[owner[i]]);
    }
}

static void test_specials(void)
{
    size_t bad = 0;
    for (int kind = 0; kind < 2; kind++) {
        enum token_type type = kind ? T_CONTROL : T_USER;
        struct tokenizer *t = overlapping(type);
        for (int run = 0; t && run < 3000; run++) {
            char text[41], want[256];
            bool allowed[40];
            struct text_part parts[40];
            size_t len = next_random() % 40, n = 0;
            bool now = next_random() % 2;
            for (size_t i = 0; i < len; i++) {
                text[i] = "abcc"[next_random() % 4];
                if (i > 0 && next_random() % 9 == 0) {
                    parts[n++] = (struct text_part){.end = i, .special = now};
                    now = next_random() % 2;
                }
                allowed[i] = now;
            }
            text[len] = '\0';
            parts[n++] = (struct text_part){.end = len, .special = now};
            cut_simply(text, allowed, type, want, sizeof want);
            struct token_list list = {0};
            if (tokenizer_encode_parts(t, text, parts, n, 0, &list, &err) != 0 || strcmp(spell_list(t, &list), want) != 0) {
                if (bad++ == 0)
                    tap_note("%s: %s, not %s", text, spell_list(t, &list), want);
            }
            token_list_fini(&list);
        }
        tokenizer_destroy(t);
    }
    ok(bad == 0, "overlapping special tokens in parts are cut as the rule says");
}

static void test_parts(void)
{
    struct tokenizer *t = bpe("gpt-2");
    struct token_list list = {0};
    const char *text = "<|end|>abc<|end|>ab<|end|>";
    if (!t)
        return;
    const struct text_part parts[] = {{7, true}, {19, false}, {19, true}, {26, true}};
    is_int(tokenizer_encode_parts(t, text, parts, 4, 0, &list, &err), 0, "parts");
    is_str(spell_list(t, &list), "<|end|> abc < | e n d | > ab <|end|>", "only what the template wrote is parsed");
    list.len = 0;
    const struct text_part across[] = {{3, true}, {8, false}, {26, false}};
    is_int(tokenizer_encode_parts(t, text, across, 3, 0, &list, &err), 0, "parts that cut words");
    is_str(spell_list(t, &list), "<|e n d | > abc < | e n d | > ab < | e n d | >", "a word across parts is merged, a token is not parsed");
    const struct text_part wrong[] = {{8, true}, {3, false}};
    is_int(tokenizer_encode_parts(t, text, wrong, 2, 0, &list, &err), -1, "parts that go back are refused");
    is_int(list.len, 21, "and the list is as it was");
    is_int(tokenizer_encode_parts(t, text, NULL, 0, 0, &list, &err), 0, "no parts are no text");
    token_list_fini(&list);
    tokenizer_destroy(t);
}

static void test_strip(void)
{
    vocab_build_init(&b, "gpt2", "gpt-2");
    vocab_build_add_bytes(&b, true);
    vocab_build_add(&b, "<|x|>", T_CONTROL, 0);
    vocab_build_add(&b, "<s>", T_CONTROL, 0);
    gguf_build_str(&b.gguf, "general.name", "Phi-3 Mini");
    struct tokenizer *t = build();
    is_str(spell(t, "<|x|> \n a <s> b", TOKENIZE_PARSE_SPECIAL), "<|x|> a Ġ <s> Ġ b", "Phi-3's tokens swallow the white space behind them");
    tokenizer_destroy(t);
    vocab_build_init(&b, "gpt2", "jina-v2-code");
    vocab_build_add_bytes(&b, true);
    vocab_build_add(&b, "<mask>", T_CONTROL, 0);
    t = build();
    is_str(spell(t, "a \n<mask> b", TOKENIZE_PARSE_SPECIAL), "a <mask> Ġ b", "and Jina's mask that before it");
    tokenizer_destroy(t);
}

static void test_harmony(void)
{
    vocab_build_init(&b, "gpt2", "gpt-4o");
    vocab_build_add_bytes(&b, true);
    for (const char *const *w = (const char *const[]){"<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", NULL}; *w; w++)
        vocab_build_add(&b, *w, T_CONTROL, 0);
    struct tokenizer *t = build();
    if (!t)
        return;
    int32_t start = tokenizer_find(t, "<|start|>", 9), end = tokenizer_find(t, "<|end|>", 7);
    is_int(tokenizer_piece(t, start, false, NULL, 0), 9, "harmony's tokens are always spelled out");
    is_str(spell(t, "<|start|>", 0), "< | s t a r t | >", "but no user's text becomes one");
    ok(!tokenizer_is_end(t, end), "<|end|> ends a message there, not the answer");
    ok(tokenizer_is_end(t, tokenizer_find(t, "<|call|>", 8)), "<|call|> does");
    tokenizer_destroy(t);
}

/* --- streams --------------------------------------------------------------------------------------------------------- */
static void test_stream(void)
{
    struct tokenizer *t = bpe("gpt-2");
    struct detokenizer d;
    char buf[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    const unsigned char smile[] = {0xF0, 0x9F, 0x98, 0x80};
    if (!t)
        return;
    detokenizer_init(&d, t, false);
    for (int i = 0; i < 3; i++)
        is_int(detokenizer_next(&d, smile[i], buf, sizeof buf), 0, "byte %d of a character waits", i);
    is_int(detokenizer_next(&d, smile[3], buf, sizeof buf), 4, "the last one brings it");
    is_mem(buf, smile, 4, "whole");
    detokenizer_next(&d, 0xE2, buf, sizeof buf);
    detokenizer_next(&d, 0x96, buf, sizeof buf);
    is_int(detokenizer_next(&d, 'a', buf, sizeof buf), 4, "a beginning that nothing follows");
    is_mem(buf, "\uFFFDa", 4, "becomes one U+FFFD");
    is_int(detokenizer_next(&d, 0xFF, buf, sizeof buf), 3, "a byte that never begins a character comes out at once");
    detokenizer_next(&d, 0xC3, buf, sizeof buf);
    is_int(detokenizer_next(&d, 256 + 12, buf, sizeof buf), 0, "a control token is silent");
    is_int(detokenizer_end(&d, buf, sizeof buf), 3, "what is pending at the end is U+FFFD");
    is_int(detokenizer_end(&d, buf, sizeof buf), 0, "once");
    is_int(detokenizer_next(&d, -5, buf, sizeof buf), 0, "a bad id is silent");
    tokenizer_destroy(t);

    t = spm();
    detokenizer_init(&d, t, false);
    is_int(detokenizer_next(&d, 1, buf, sizeof buf), 0, "BOS is silent");
    is_int(detokenizer_next(&d, tokenizer_find(t, "▁hello", 8), buf, sizeof buf), 5, "the first space is not given back");
    is_int(detokenizer_next(&d, tokenizer_find(t, "▁hello", 8), buf, sizeof buf), 6, "later ones are");
    detokenizer_init(&d, t, true);
    d.started = true;
    is_int(detokenizer_next(&d, tokenizer_find(t, "▁hello", 8), buf, sizeof buf), 6, "nor is it missing where a text goes on");
    is_int(detokenizer_next(&d, 1, buf, sizeof buf), 3, "control tokens are spelled where asked for");
    tokenizer_destroy(t);
}

/* --- files that lie -------------------------------------------------------------------------------------------------- */
static void refused(const char *say, const char *what)
{
    struct tokenizer *t = vocab_build_tokenizer(&b, &err);
    vocab_build_fini(&b);
    if (ok(t == NULL, "%s is refused", what))
        has_str(err.text, say, "%s: %s", what, err.text);
    tokenizer_destroy(t);
}

static void refused_raw(struct gguf_build *g, const char *say, const char *what)
{
    size_t len;
    unsigned char *file = gguf_build_finish(g, false, &len);
    struct gguf *gguf = gguf_open_memory(file, len, true, &err);
    struct tokenizer *t = gguf ? tokenizer_create(gguf, &err) : NULL;
    if (ok(gguf && !t, "%s is refused", what))
        has_str(err.text, say, "%s: %s", what, err.text);
    tokenizer_destroy(t);
    gguf_close(gguf);
    free(file);
    gguf_build_fini(g);
}

static void test_refused(void)
{
    struct gguf_build g;
    vocab_build_init(&b, "klingon", NULL);
    vocab_build_add(&b, "a", T_NORMAL, 0);
    refused("known are: llama gpt2 gemma4 t5 rwkv", "an unknown model");
    vocab_build_init(&b, "gpt2", "klingon");
    vocab_build_add(&b, "a", T_NORMAL, 0);
    refused("llama-bpe", "an unknown pre-tokenizer");
    vocab_build_init(&b, "llama", NULL);
    refused("1 to", "no tokens at all");
    vocab_build_init(&b, "llama", NULL);
    char huge[TOKEN_MAX_BYTES + 2];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    vocab_build_add(&b, huge, T_NORMAL, 0);
    refused("1025 bytes", "a huge token");
    vocab_build_init(&b, "llama", NULL);
    vocab_build_add(&b, "a", T_NORMAL, 0);
    gguf_build_str(&b.gguf, "tokenizer.ggml.bos_token_id", "zero");
    refused("bos_token_id", "an id that is no number");

    gguf_build_init(&g, 3, 0);
    gguf_build_str(&g, "tokenizer.ggml.model", "llama");
    refused_raw(&g, "tokenizer.ggml.tokens", "a file without tokens");
    gguf_build_init(&g, 3, 0);
    refused_raw(&g, "tokenizer.ggml.model", "a file without a model");
    gguf_build_init(&g, 3, 0);
    gguf_build_str(&g, "tokenizer.ggml.model", "llama");
    gguf_build_strs(&g, "tokenizer.ggml.tokens", (const char *const[]){"a", "b"}, 2);
    gguf_build_floats(&g, "tokenizer.ggml.scores", GGUF_F32, (const double[]){1}, 1);
    refused_raw(&g, "1 items for 2 tokens", "too few scores");
    gguf_build_init(&g, 3, 0);
    gguf_build_str(&g, "tokenizer.ggml.model", "gpt2");
    gguf_build_strs(&g, "tokenizer.ggml.tokens", (const char *const[]){"a", "b"}, 2);
    refused_raw(&g, "merges", "byte pairs without merges");
    gguf_build_init(&g, 3, 0);
    gguf_build_str(&g, "tokenizer.ggml.model", "t5");
    gguf_build_strs(&g, "tokenizer.ggml.tokens", (const char *const[]){"a", "b"}, 2);
    gguf_build_ints(&g, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, (const int64_t[]){255, 255, 255, 255, 0}, 5);
    refused_raw(&g, "charsmap", "a character map larger than itself");
}

static void test_odd(void)
{
    vocab_build_init(&b, "llama", NULL);
    vocab_build_add(&b, "", T_NORMAL, 0);
    vocab_build_add(&b, "", T_CONTROL, 0);
    vocab_build_add(&b, "a", T_NORMAL, 0);
    vocab_build_add(&b, "a", T_NORMAL, -1.0 / 0.0);
    vocab_build_add(&b, "aa", 77, 0.0 / 0.0);
    vocab_build_add(&b, "\xFF\xC3", T_NORMAL, 1e300);
    struct tokenizer *t = build();
    if (!ok(t != NULL, "empty, double, typeless words, scores that are no numbers: taken"))
        return;
    is_str(spell(t, "aaa", TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL), "  aa a", "and used as far as they go");
    is_int(tokenizer_eos(t), 2, "a default that the vocabulary has");
    tokenizer_destroy(t);
    vocab_build_init(&b, "llama", NULL);
    vocab_build_add(&b, "a", T_NORMAL, 0);
    t = build();
    is_int(tokenizer_bos(t), -1, "a default outside a vocabulary is dropped");
    is_str(spell(t, "ba", TOKENIZE_ADD_SPECIAL), "a a a", "what nothing stands for is the unknown token");
    tokenizer_destroy(t);
}

/* --- long lines ------------------------------------------------------------------------------------------------------ */
static void test_long(void)
{
    enum { LEN = 1 << 20 };
    char *text = malloc(LEN);
    struct token_list list = {0};
    if (!text)
        return;
    for (int kind = 0; kind < 3; kind++) {
        struct tokenizer *t = kind == 0 ? spm() : bpe(kind == 1 ? "gpt-2" : "exaone-moe");
        for (const char *c = "al \n1"; t && *c; c++) {
            list.len = 0;
            memset(text, *c, LEN);
            ok(tokenizer_encode(t, text, LEN, TOKENIZE_PARSE_SPECIAL, &list, &err) == 0, "vocabulary %d: a megabyte of 0x%02x", kind, *c);
        }
        tokenizer_destroy(t);
    }
    token_list_fini(&list);
    free(text);

    struct tokenizer *t = spm();
    ok(tokenizer_encode(t, "", (size_t)TOKENIZER_MAX_TEXT_BYTES + 1, 0, &list, &err) == -1, "more than the limit is refused");
    has_str(err.text, "at most", "with both numbers");
    tokenizer_destroy(t);
    tokenizer_destroy(NULL);
}

/* Control tokens that are each other's beginnings, over a text of nothing else: bounded, whatever comes out. */
static void test_nested(void)
{
    enum { LEN = 1 << 18 };
    char word[600], *text = malloc(LEN);
    struct token_list list = {0};
    if (!text)
        return;
    vocab_build_init(&b, "gpt2", "gpt-2");
    vocab_build_add_bytes(&b, true);
    for (size_t n = 1; n < 600; n++) {
        memset(word, 'a', n);
        word[n] = '\0';
        vocab_build_add(&b, word, n % 2 ? T_CONTROL : T_USER, 0);
    }
    struct tokenizer *t = build();
    memset(text, 'a', LEN);
    for (unsigned flags = 0; t && flags < 4; flags += 2) {
        int status = tokenizer_encode(t, text, LEN, flags, &list, &err);
        ok(status == 0 || err.kind == ERR_LIMIT, "nested special tokens, flags %u: %s", flags, status ? err.text : "encoded");
    }
    token_list_fini(&list);
    tokenizer_destroy(t);
    free(text);
}

int main(void)
{
    test_spm();
    test_bpe();
    test_pre();
    test_every_pre();
    test_merge_order();
    test_unigram();
    test_rwkv();
    test_raw();
    test_specials();
    test_parts();
    test_strip();
    test_harmony();
    test_stream();
    test_refused();
    test_odd();
    test_long();
    test_nested();
    return tap_done();
}
