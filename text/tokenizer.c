/* See tokenizer.h. Making a tokenizer from a file, and what can be asked of it; the work is in tok_*.c (tok.h). */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "text/tok.h"

enum { KNOWN_MAX = 1024 };

/* One row a value of tokenizer.ggml.model: what holds where the file says nothing. Ids that the vocabulary does not have
 * are dropped. */
static const struct model_row {
    const char *name;
    enum tok_model model;
    int32_t bos, eos, unk;
    bool add_bos, add_eos, add_space_prefix, escape_spaces, scores;
    const char *pre; /* NULL: the file names it */
} models[] = {
    {.name = "llama",
     .model = TOK_SPM,
     .bos = 1,
     .eos = 2,
     .add_bos = true,
     .add_space_prefix = true,
     .escape_spaces = true,
     .scores = true},
    {.name = "gpt2", .model = TOK_BPE, .bos = -1, .eos = -1, .unk = -1},
    {.name = "gemma4", .model = TOK_BPE, .bos = -1, .eos = -1, .unk = -1, .pre = "gemma4"},
    {.name = "t5", .model = TOK_UNIGRAM, .bos = -1, .eos = 1, .unk = 2, .add_eos = true, .escape_spaces = true, .scores = true},
    {.name = "rwkv", .model = TOK_RWKV, .bos = -1, .eos = -1, .unk = -1},
};

static const struct model_row *find_model(const struct gguf *g, struct err *err)
{
    struct gguf_str name;
    char shown[64];
    struct strbuf known;
    int found = gguf_get_str(g, "tokenizer.ggml.model", &name, err);
    if (found == 0)
        err_set(err, ERR_INPUT, "no vocabulary: tokenizer.ggml.model is missing");
    if (found <= 0)
        return NULL;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (strlen(models[i].name) == name.len && memcmp(models[i].name, name.s, name.len) == 0)
            return &models[i];
    strbuf_init(&known, KNOWN_MAX);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        strbuf_printf(&known, " %s", models[i].name);
    err_set(err, ERR_UNSUPPORTED, "tokenizer.ggml.model \"%s\" is not known; known are:%s",
            err_printable(shown, sizeof shown, name.s, name.len), strbuf_str(&known));
    strbuf_fini(&known);
    return NULL;
}

static int load_pre(struct tokenizer *t, const struct gguf *g, const struct model_row *row, struct err *err)
{
    struct gguf_str name = {.s = "default", .len = 7};
    if (row->pre)
        name = (struct gguf_str){.s = row->pre, .len = strlen(row->pre)};
    else if (gguf_get_str(g, "tokenizer.ggml.pre", &name, err) < 0)
        return -1;
    if (!(t->pre = pre_find(name.s, name.len, err)))
        return -1;
    t->add_bos = t->pre->flags & PRE_ADD_BOS;
    t->escape_spaces = t->pre->flags & PRE_ESCAPE_SPACES;
    return 0;
}

static int load(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    const struct model_row *row = find_model(g, err);
    if (!row)
        return -1;
    t->model = row->model;
    t->bos = row->bos;
    t->eos = row->eos;
    t->unk = row->unk;
    t->add_bos = row->add_bos;
    t->add_eos = row->add_eos;
    t->add_space_prefix = row->add_space_prefix;
    t->escape_spaces = row->escape_spaces;
    if ((t->model == TOK_BPE && load_pre(t, g, row, err) != 0) ||
        gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, err) < 0 ||
        gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &t->remove_extra_spaces, err) < 0 ||
        gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, err) < 0 ||
        gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos, err) < 0)
        return -1;
    if (t->pre && t->pre->flags & PRE_FORCE_BOS)
        t->add_bos = true;
    if (t->model == TOK_BPE || t->model == TOK_RWKV)
        t->add_space_prefix = false;
    if (vocab_load(&t->vocab, g, row->scores, err) != 0 || vocab_index(&t->vocab, err) != 0 || roles_init(t, g, err) != 0 ||
        specials_init(t, err) != 0 || pieces_init(t, err) != 0)
        return -1;
    switch (t->model) {
    case TOK_SPM:
        return spm_init(t, err);
    case TOK_BPE:
        if (!(t->classes = mem_new(UNICODE_BMP, 1, err)))
            return -1;
        unicode_fill_bmp(t->classes);
        return bpe_init(t, g, err);
    case TOK_UNIGRAM:
        return unigram_init(t, g, err);
    case TOK_RWKV:
        return rwkv_init(t, err);
    }
    return -1;
}

struct tokenizer *tokenizer_create(const struct gguf *g, struct err *err)
{
    struct tokenizer *t = mem_new(1, sizeof *t, err);
    if (t && load(t, g, err) != 0) {
        err_wrap(err, "tokenizer");
        tokenizer_destroy(t);
        return NULL;
    }
    return t;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t)
        return;
    vocab_fini(&t->vocab);
    trie_fini(&t->specials);
    trie_fini(&t->words);
    joins_fini(&t->joins);
    splitter_fini(&t->splitter);
    free(t->merges.slots);
    free(t->ends);
    free(t->classes);
    free(t->ranks);
    free(t->charsmap);
    free(t);
}

static bool valid(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n;
}

size_t tokenizer_n_tokens(const struct tokenizer *t)
{
    return t->vocab.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return valid(t, id) && t->ends[id / 8] >> id % 8 & 1;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return valid(t, id) && t->vocab.attrs[id] & ATTR_CONTROL;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->add_bos && t->bos >= 0;
}

const char *tokenizer_spelling(const struct tokenizer *t, int32_t id, size_t *ret_len)
{
    return valid(t, id) ? vocab_text(&t->vocab, (uint32_t)id, ret_len) : NULL;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *spelling, size_t len)
{
    return vocab_find(&t->vocab, spelling, len);
}
