/* How fast text becomes tokens: megabytes a second of each vocabulary on each kind of text, one core.
 *
 *     bench_tokenizer VOCABULARY.gguf...          (without arguments: those of SC_SHARED, if it is there)
 *
 * Built by make check, run by hand; nothing is asserted, for machines differ. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/tokenizer.h"

enum { MEGABYTE = 1 << 20 };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint32_t next_random(void)
{
    static uint64_t state = 42;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

static const char *const prose[] = {
    "the",           "of",          "model",      "a",     "pipeline", "layer",   "tokens",      "is",      "which",
    "computes",      "stage",       "quickly",    "and",   "memory",   "network", "it's",        "don't",   "however",
    "understanding", "machines",    "42",         "in",    "1984",     "between", "coordinator", "worker,", "answer.",
    "(see",          "above)",      "\"quoted\"", "Paris", "language", "to",      "be",          "or",      "not",
    "unless",        "activations", "travel",     "from",  "one",      "another",
};
static const char *const code[] = {
    "int",
    "static",
    "return",
    "for (size_t i = 0; i < n; i++)",
    "{\n    ",
    "}\n",
    "if (!ptr)\n        ",
    "x->next",
    "=",
    "0x1F;\n",
    "&&",
    "memcpy(dst, src, len);\n    ",
    "/* why */",
    "struct node *",
    "while (1)",
    "err_set(err, ERR_INPUT, \"%s\", name)",
    "<=",
    "\t\t",
    "\n\n",
};
static const char *const cjk[] = {
    "的", "一", "是", "在", "不", "了", "有", "和", "人",     "这", "中",   "大",     "为",     "上", "个", "国",   "我",   "以",   "要",
    "他", "时", "来", "用", "们", "生", "到", "作", "地",     "于", "出",   "就",     "分",     "对", "成", "会",   "可",   "主",   "发",
    "年", "动", "同", "工", "也", "能", "下", "过", "日本語", "の", "です", "한국어", "입니다", "，", "。", "模型", "机器", "学习",
};
static const char *const emoji[] = {"😀", "🚀", "👩‍👩‍👧", "🇩🇪", "❤️", "🤖", "🎉", "👍🏽"};

struct text {
    char *s;
    size_t len;
};

static struct text from_words(const char *const *words, size_t n, const char *between)
{
    struct text t = {.s = malloc(MEGABYTE)};
    while (t.s) {
        const char *word = words[next_random() % n];
        size_t len = strlen(word), gap = strlen(between);
        if (t.len + len + gap > MEGABYTE)
            break;
        memcpy(t.s + t.len, word, len);
        memcpy(t.s + t.len + len, between, gap);
        t.len += len + gap;
    }
    return t;
}

static struct text from_letters(const char *letters, size_t n)
{
    struct text t = {.s = malloc(MEGABYTE), .len = MEGABYTE};
    for (size_t i = 0; t.s && i < t.len; i++)
        t.s[i] = letters[next_random() % n];
    return t;
}

static void bench(const struct tokenizer *t, const char *name, struct text text)
{
    struct token_list list = {0};
    struct err err;
    double best = 1e9;
    for (int run = 0; run < 3; run++) {
        double start = now_ms();
        list.len = 0;
        if (tokenizer_encode(t, text.s, text.len, 0, &list, &err) != 0) {
            printf("  %-22s %s\n", name, err.text);
            break;
        }
        double ms = now_ms() - start;
        best = ms < best ? ms : best;
    }
    printf("  %-22s %8.1f MB/s  %8zu tokens\n", name, (double)text.len / 1e3 / best, list.len);
    token_list_fini(&list);
}

static int bench_file(const char *path, const struct text *texts, const char *const *names, size_t n)
{
    struct err err;
    struct gguf *g = gguf_open(path, true, &err);
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    double start = now_ms();
    struct tokenizer *t = g ? tokenizer_create(g, &err) : NULL;
    double ms = now_ms() - start;
    gguf_close(g);
    if (!t) {
        fprintf(stderr, "%s: %s\n", path, err.text);
        return 1;
    }
    (void)before;
    printf("%s: made in %.0f ms\n", path, ms);
    for (size_t i = 0; i < n; i++)
        bench(t, names[i], texts[i]);
    tokenizer_destroy(t);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const shared[] = {"llama-spm", "llama-bpe", "qwen2", "gpt-2"};
    static const char *const names[] = {"English prose", "code", "Chinese, Japanese", "a line of a", "random letters", "spaces",
                                        "digits",        "emoji"};
    struct text texts[] = {
        from_words(prose, sizeof prose / sizeof *prose, " "),
        from_words(code, sizeof code / sizeof *code, " "),
        from_words(cjk, sizeof cjk / sizeof *cjk, ""),
        from_letters("a", 1),
        from_letters("abcdefghijklmnopqrstuvwxyz", 26),
        from_letters(" ", 1),
        from_letters("0123456789", 10),
        from_words(emoji, sizeof emoji / sizeof *emoji, ""),
    };
    size_t n = sizeof texts / sizeof *texts;
    int status = 0;
    char path[4096];
    const char *folder = getenv("SC_SHARED");
    for (int i = 1; i < argc; i++)
        status |= bench_file(argv[i], texts, names, n);
    for (size_t i = 0; argc == 1 && folder && i < sizeof shared / sizeof *shared; i++) {
        snprintf(path, sizeof path, "%s/testdata/vocab/%s.gguf", folder, shared[i]);
        status |= bench_file(path, texts, names, n);
    }
    for (size_t i = 0; i < n; i++)
        free(texts[i].s);
    return status;
}
