/* How long masks take, in processor time: for each grammar a text is walked through token by token, a mask before each, twice: the first time finds all
 * of it, the second has it remembered. Median and worst, in microseconds.
 *
 *     bench_grammar VOCABULARY.gguf [TEXT.json SCHEMA.json]
 *
 * Built by make check, run by hand; nothing is asserted, for machines differ. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/mem.h"
#include "text/grammar.h"

enum { TIMES_MAX = 1 << 20 };

static double times[TIMES_MAX];
static struct tokenizer *tokenizer;
static struct grammar_tokens *tokens;
static uint32_t n_vocab;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void bail(const struct err *err)
{
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void pass(const char *what, struct grammar_masks *m, const struct token_list *list, uint8_t *bits)
{
    struct err err;
    struct grammar_walk *w = grammar_walk_create(m, &err);
    size_t n = 0;
    if (!w)
        bail(&err);
    for (; n < list->len && n < TIMES_MAX; n++) {
        double began = now_us();
        if (grammar_walk_mask(w, bits, (n_vocab + 7) / 8, &err) != 0)
            bail(&err);
        times[n] = now_us() - began;
        if (grammar_walk_take(w, list->ids[n], &err) != 0)
            bail(&err);
    }
    grammar_walk_destroy(w);
    qsort(times, n, sizeof *times, by_time);
    printf("  %-12s %5zu masks: median %7.1f us, 90%% %7.1f us, worst %8.1f us\n", what, n, times[n / 2], times[n * 9 / 10], times[n - 1]);
}

static void bench(const char *name, struct grammar *g, double compile_us, const char *text)
{
    struct err err;
    struct token_list list = {0};
    uint8_t *bits = mem_new((n_vocab + 7) / 8, 1, &err);
    struct grammar_masks *m = g ? grammar_masks_create(g, tokens, &err) : NULL;
    if (!m || !bits || tokenizer_encode(tokenizer, text, strlen(text), 0, &list, &err) != 0)
        bail(&err);
    printf("%s: compiled in %.0f us, %zu KiB\n", name, compile_us, grammar_bytes(g) / 1024);
    pass("found", m, &list, bits);
    pass("remembered", m, &list, bits);
    token_list_fini(&list);
    grammar_masks_drop(m);
    grammar_drop(g);
    free(bits);
}

static void bench_schema(const char *name, const char *schema, const char *text)
{
    struct err err = {0};
    json_t *s = json_loads(schema, JSON_DECODE_ANY, NULL);
    double began = now_us();
    struct grammar *g = s ? grammar_from_schema(s, "schema", &err) : NULL;
    if (!g)
        bail(&err);
    bench(name, g, now_us() - began, text);
    json_decref(s);
}

static const char prose[] = "{\"title\": \"The sea and the sky\", \"tags\": [\"blue\", \"long-winded\", \"überlegt\"], \"body\": \"It was a bright cold day in April, and "
                            "the clocks were striking \\\"thirteen\\\".\\nNobody at the harbour had slept; the 42 boats lay still, 中文也可以, and so on and so "
                            "forth until the paragraph has some length to it.\", \"meta\": {\"size\": 1234.5, \"ok\": true, \"none\": null, \"deep\": [[1, 2], [3, {\"x\": \"y\"}]]}}";
static const char record[] = "{\"name\": \"Ada Lovelace\", \"age\": 36, \"email\": \"ada.l@math.org\", \"address\": {\"street\": \"12 St James's Square\", \"zip\": \"1234-567\"}, "
                             "\"tags\": [\"poet\", \"analyst\"]}";
static const char record_schema[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":80},\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},"
    "\"email\":{\"type\":\"string\",\"format\":\"email\"},\"address\":{\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\"},\"zip\":{\"type\":\"string\","
    "\"pattern\":\"^\\\\d{4}-\\\\d{3}$\"}},\"required\":[\"street\",\"zip\"]},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":20},\"maxItems\":5}},"
    "\"required\":[\"name\",\"age\",\"email\",\"address\",\"tags\"],\"additionalProperties\":false}";

static char *file_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, (1 << 20) + 1);
    if (!f || !text || fread(text, 1, 1 << 20, f) == 0)
        exit(1);
    fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    struct err err;
    struct gguf *g;
    double began;

    if (argc < 2 || !(g = gguf_open(argv[1], true, &err)) || !(tokenizer = tokenizer_create(g, &err))) {
        fprintf(stderr, "%s\n", argc < 2 ? "bench_grammar VOCABULARY.gguf [TEXT.json SCHEMA.json]" : err.text);
        return 2;
    }
    gguf_close(g);
    n_vocab = (uint32_t)tokenizer_n_tokens(tokenizer);
    began = now_us();
    if (!(tokens = grammar_tokens_create(tokenizer, n_vocab, &err)))
        bail(&err);
    printf("%u tokens, their tree made in %.1f ms\n", n_vocab, (now_us() - began) / 1000);
    began = now_us();
    struct grammar *any = grammar_json_object(&err);
    bench("json_object", any, now_us() - began, prose);
    bench_schema("a record", record_schema, record);
    if (argc > 3)
        bench_schema(argv[3], file_text(argv[3]), file_text(argv[2]));
    grammar_tokens_drop(tokens);
    tokenizer_destroy(tokenizer);
    return 0;
}
