/* Runs a grammar for tests in Python. Prints one line a result; a grammar that is refused: "refused: why", exit 3.
 *
 *     walk_grammar gbnf|schema|object FILE check    each line of stdin, a JSON string: "dead N", "open" or "complete"
 *     walk_grammar gbnf|schema|object FILE sample N SEED MAX
 *                                                   N texts by masks over a small vocabulary, as JSON strings; "cut" before one that
 *                                                   had not ended after MAX tokens */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "tests/text/grammar_vocab.h"
#include "text/grammar.h"

enum { LINE_MAX_BYTES = 1 << 20 };

static char *read_file(const char *path, size_t *ret_len)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char *text = malloc(LINE_MAX_BYTES * 4);
    *ret_len = f && text ? fread(text, 1, LINE_MAX_BYTES * 4, f) : 0;
    if (!f || !text)
        exit(2);
    if (f != stdin)
        fclose(f);
    return text;
}

static struct grammar *load(const char *kind, const char *path, struct err *err)
{
    size_t len;
    char *text;
    struct grammar *g = NULL;
    json_t *schema;

    if (strcmp(kind, "object") == 0)
        return grammar_json_object(err);
    text = read_file(path, &len);
    if (strcmp(kind, "gbnf") == 0) {
        g = grammar_from_gbnf(text, len, err);
    } else if ((schema = json_loadb(text, len, JSON_DECODE_ANY, NULL))) {
        g = grammar_from_schema(schema, "schema", err);
        json_decref(schema);
    } else {
        err_set(err, ERR_INPUT, "no JSON");
    }
    free(text);
    return g;
}

static void check_line(struct grammar_masks *m, const char *s, size_t len)
{
    struct err err;
    struct grammar_walk *w = grammar_walk_create(m, &err);
    size_t i = 0;
    while (w && i < len && grammar_walk_take_bytes(w, s + i, 1, &err) == 0)
        i++;
    if (!w)
        printf("failed: %s\n", err.text);
    else if (i < len)
        printf("dead %zu\n", i);
    else
        puts(grammar_walk_complete(w) ? "complete" : "open");
    grammar_walk_destroy(w);
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* A token of the mask, each as likely; an end token every second time that one may come. */
static int32_t choose(const struct grammar_vocab *v, const uint8_t *bits, uint64_t *random)
{
    uint32_t n = 0, at;
    for (uint32_t i = 0; i < v->n; i++)
        n += bits[i / 8] >> i % 8 & 1;
    if (bits[v->eos / 8] >> v->eos % 8 & 1 && next_random(random) % 2)
        return v->eos;
    at = next_random(random) % n;
    for (uint32_t i = 0; i < v->n; i++)
        if (bits[i / 8] >> i % 8 & 1 && at-- == 0)
            return (int32_t)i;
    return -1;
}

static int sample(const struct grammar_vocab *v, struct grammar_masks *m, uint64_t *random, unsigned max)
{
    struct err err = {0};
    struct grammar_walk *w = grammar_walk_create(m, &err);
    uint8_t *bits = malloc((v->n + 7) / 8);
    struct strbuf text, json;
    char piece[TOKEN_MAX_BYTES];
    int32_t token = -1;
    int rc = w && bits ? 0 : -1;

    strbuf_init(&text, LINE_MAX_BYTES);
    strbuf_init(&json, 8 * LINE_MAX_BYTES);
    for (unsigned i = 0; rc == 0 && i < max && token != v->eos; i++) {
        if ((rc = grammar_walk_mask(w, bits, (v->n + 7) / 8, &err)) == 0) {
            token = choose(v, bits, random);
            if ((rc = grammar_walk_take(w, token, &err)) == 0 && token != v->eos)
                strbuf_add(&text, piece, tokenizer_piece(v->tokenizer, token, false, piece, sizeof piece));
        }
    }
    strbuf_json(&json, strbuf_str(&text), text.len);
    if (rc == 0)
        printf("%s%s\n", token == v->eos ? "" : "cut ", strbuf_str(&json));
    else
        printf("failed: %s after %s\n", err.text, strbuf_str(&json));
    strbuf_fini(&text);
    strbuf_fini(&json);
    free(bits);
    grammar_walk_destroy(w);
    return rc;
}

static int check(struct grammar_masks *m)
{
    char *line = malloc(LINE_MAX_BYTES);
    while (line && fgets(line, LINE_MAX_BYTES, stdin)) {
        json_t *s = json_loads(line, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (!json_is_string(s))
            return 2;
        check_line(m, json_string_value(s), json_string_length(s));
        json_decref(s);
    }
    free(line);
    return 0;
}

int main(int argc, char **argv)
{
    struct grammar_vocab v;
    struct err err = {0};
    struct grammar *g;
    struct grammar_tokens *tokens;
    struct grammar_masks *m = NULL;
    int rc = 0;

    if (argc < 4)
        return 2;
    if (!(g = load(argv[1], argv[2], &err))) {
        printf("refused: %s\n", err.text);
        return 3;
    }
    grammar_vocab_init(&v);
    tokens = grammar_tokens_create(v.tokenizer, v.n, &err);
    if (!tokens || !(m = grammar_masks_create(g, tokens, &err)))
        return 1;
    if (strcmp(argv[3], "check") == 0) {
        rc = check(m);
    } else if (argc == 7) {
        uint64_t random = strtoull(argv[5], NULL, 10);
        for (long i = strtol(argv[4], NULL, 10); rc == 0 && i > 0; i--)
            rc = sample(&v, m, &random, (unsigned)strtoul(argv[6], NULL, 10));
    }
    grammar_masks_drop(m);
    grammar_tokens_drop(tokens);
    grammar_drop(g);
    grammar_vocab_fini(&v);
    return rc ? 1 : 0;
}
