/* See guide.h. */
#include "cli/guide.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/mem.h"

static struct grammar *from_gbnf(const char *path, struct err *err)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    struct grammar *g = NULL;
    size_t n;

    if (!f) {
        err_errno(err, errno, "%s", path);
        return NULL;
    }
    if ((text = mem_new(GRAMMAR_MAX_TEXT_BYTES + 1, 1, err))) {
        n = fread(text, 1, GRAMMAR_MAX_TEXT_BYTES + 1, f);
        if (ferror(f))
            err_errno(err, errno, "reading %s", path);
        else if (!(g = grammar_from_gbnf(text, n, err)))
            err_wrap(err, "%s", path);
    }
    free(text);
    fclose(f);
    return g;
}

static struct grammar *from_schema(const char *path, struct err *err)
{
    json_t *schema = json_read_file(path, GRAMMAR_MAX_TEXT_BYTES, err);
    struct grammar *g = schema ? grammar_from_schema(schema, path, err) : NULL;
    json_decref(schema);
    return g;
}

int guide_load(const char *grammar_file, const char *schema_file, struct grammar **ret, struct err *err)
{
    *ret = NULL;
    if (grammar_file && schema_file)
        return err_set(err, ERR_USAGE, "--grammar and --json-schema both say what the answer has to be; give one of them");
    if (grammar_file || schema_file)
        return (*ret = grammar_file ? from_gbnf(grammar_file, err) : from_schema(schema_file, err)) ? 0 : -1;
    return 0;
}

struct grammar_masks *guide_masks(struct grammar *g, const struct tokenizer *t, uint32_t n_vocab, struct err *err)
{
    struct grammar_tokens *tokens = grammar_tokens_create(t, n_vocab, err);
    struct grammar_masks *m = tokens ? grammar_masks_create(g, tokens, err) : NULL;
    grammar_tokens_drop(tokens);
    return m;
}
