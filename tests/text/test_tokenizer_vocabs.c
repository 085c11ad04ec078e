/* Tokenizers of real models: the ids that others found for the texts beside each vocabulary, the way back, parts and
 * streams, and what a vocabulary costs. Skipped where SC_SHARED is not there. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "tests/tap.h"
#include "text/tokenizer.h"

enum { FILE_MAX = 1 << 20, CREATE_MS_MAX = 3000, BYTES_MAX = 25 << 20 };
static const char separator[] = "\n__ggml_vocab_test__\n";
static char folder[4000];

static char *read_text(const char *name, const char *suffix)
{
    char path[4200], *text = malloc(FILE_MAX);
    snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    FILE *f = fopen(path, "rb");
    size_t n = f && text ? fread(text, 1, FILE_MAX - 1, f) : 0;
    if (f)
        fclose(f);
    if (!n) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

static size_t bytes_in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static bool same(const struct token_list *a, const struct token_list *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->ids, b->ids, a->len * sizeof *a->ids) == 0);
}

/* The text again, by the stream of its tokens; every step gives whole characters. */
static bool comes_back(const struct tokenizer *t, const struct token_list *list, const char *text, size_t len)
{
    char *out = malloc(4 * len + 2 * TOKEN_MAX_BYTES);
    struct detokenizer d;
    size_t n = 0;
    detokenizer_init(&d, t, false);
    for (size_t i = 0; i < list->len && n < 4 * len + 16; i++)
        n += detokenizer_next(&d, list->ids[i], out + n, TOKEN_MAX_BYTES + DETOKENIZER_PENDING);
    n += detokenizer_end(&d, out + n, DETOKENIZER_PENDING);
    bool good = n == len && memcmp(out, text, len) == 0;
    free(out);
    return good;
}

/* One text: the expected ids; the way back; and the same ids again from parts cut anywhere. */
static size_t check_text(const struct tokenizer *t, const char *text, size_t len, char **line)
{
    struct token_list got = {0}, parts_got = {0}, want = {0};
    struct text_part parts[64];
    struct err err;
    size_t bad = 0, n = 0;
    want.ids = malloc((4 * len + 16) * sizeof *want.ids);
    while (want.len < 4 * len + 16) {
        char *end;
        long id = strtol(*line, &end, 10);
        if (end == *line || memchr(*line, '\n', (size_t)(end - *line)))
            break;
        want.ids[want.len++] = (int32_t)id;
        *line = end;
    }
    *line += strcspn(*line, "\n");
    *line += **line == '\n';
    for (size_t at = 1 + len % 5; at < len && n < 60; at += 3)
        parts[n++] = (struct text_part){.end = at};
    parts[n++] = (struct text_part){.end = len};
    if (tokenizer_encode(t, text, len, 0, &got, &err) != 0 || tokenizer_encode_parts(t, text, parts, n, 0, &parts_got, &err) != 0) {
        tap_note("%s", err.text);
        bad++;
    } else if (!same(&got, &want) || !same(&parts_got, &want) || !comes_back(t, &got, text, len)) {
        tap_note("%.*s: %zu ids, %zu expected", (int)len, text, got.len, want.len);
        bad++;
    }
    token_list_fini(&got);
    token_list_fini(&parts_got);
    token_list_fini(&want);
    return bad;
}

static void check_vocab(const char *name)
{
    char path[4200];
    struct err err;
    struct timespec before, after;
    snprintf(path, sizeof path, "%s/%s.gguf", folder, name);
    struct gguf *g = gguf_open(path, true, &err);
    size_t bytes = bytes_in_use();
    clock_gettime(CLOCK_MONOTONIC, &before);
    struct tokenizer *t = g ? tokenizer_create(g, &err) : NULL;
    clock_gettime(CLOCK_MONOTONIC, &after);
    bytes = bytes_in_use() - bytes;
    gguf_close(g);
    if (!ok(t != NULL, "%s loads", name)) {
        tap_note("%s", err.text);
        return;
    }
    long ms = (long)((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
    tap_note("%s: %zu tokens, made in %ld ms, %.1f MB", name, tokenizer_n_tokens(t), ms, (double)bytes / 1e6);
#ifndef SC_SANITIZED
    ok(ms < CREATE_MS_MAX && bytes < BYTES_MAX, "%s: neither slow nor large", name);
#endif
    char *texts = read_text(name, ".inp"), *ids = read_text(name, ".out");
    if (texts && ids) {
        size_t n = 0, bad = 0;
        char *line = ids;
        for (char *text = texts, *end; text; text = end ? end + sizeof separator - 1 : NULL, n++) {
            end = strstr(text, separator);
            bad += check_text(t, text, end ? (size_t)(end - text) : strlen(text), &line);
        }
        ok(bad == 0 && n > 40, "%s: %zu texts have the expected ids and come back", name, n);
        is_str(line, "", "%s: all expectations were used", name);
    }
    free(texts);
    free(ids);
    tokenizer_destroy(t);
}

int main(void)
{
    static const char *const names[] = {"llama-spm", "llama-bpe", "qwen2", "gpt-2"};
    const char *shared = getenv("SC_SHARED");
    snprintf(folder, sizeof folder, "%s/testdata/vocab", shared ? shared : "");
    if (!shared || access(folder, R_OK) != 0)
        tap_skip_all("no vocabularies in %s: %s", folder, strerror(errno));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_vocab(names[i]);
    return tap_done();
}
