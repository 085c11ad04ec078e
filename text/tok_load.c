/* A vocabulary's special tokens: which ids the file names, what well-known spellings tell, and which tokens end an answer.
 * The rules are llama.cpp's, made independent of the order of its hash tables: where a list names several spellings, the
 * first that the vocabulary has counts. One thing is stricter: see harmony. */
#include <stdlib.h>
#include <string.h>

#include "text/tok.h"

/* What is known of a spelling. */
static const char *const end_words[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    NULL,
};

static const struct {
    const char *key;
    bool ends;
    const char *words[10];
} roles[] = {
    {"tokenizer.ggml.eot_token_id", true, {NULL}}, /* its spellings are all among end_words */
    {"tokenizer.ggml.eom_token_id", true, {NULL}},
    {"tokenizer.ggml.fim_pre_token_id",
     false,
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"}},
    {"tokenizer.ggml.fim_suf_token_id",
     false,
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"}},
    {"tokenizer.ggml.fim_mid_token_id",
     false,
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"}},
    {"tokenizer.ggml.fim_pad_token_id", true, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {"tokenizer.ggml.fim_rep_token_id", true, {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {"tokenizer.ggml.fim_sep_token_id", true, {"<|file_sep|>"}},
};

/* The id under a key. Absent, or outside the vocabulary (files say -1 for "none" so): *ret stays, if it is in there. */
static int load_id(const struct tokenizer *t, const struct gguf *g, const char *key, int32_t *ret, struct err *err)
{
    uint32_t id;
    const struct gguf_kv *kv = gguf_find(g, key);
    if (*ret >= 0 && (uint32_t)*ret >= t->vocab.n)
        *ret = -1;
    if (!kv || ((kv->type == GGUF_I32 || kv->type == GGUF_I64) && kv->v.i < 0))
        return 0;
    int found = gguf_get_u32(g, key, &id, err);
    if (found == 1 && id < t->vocab.n)
        *ret = (int32_t)id;
    return found < 0 ? -1 : 0;
}

static void set_end(struct tokenizer *t, int32_t id, bool ends)
{
    unsigned char bit = (unsigned char)(1u << id % 8);
    if (ends)
        t->ends[id / 8] |= bit;
    else
        t->ends[id / 8] &= (unsigned char)~bit;
}

static int32_t find(const struct tokenizer *t, const char *word)
{
    return vocab_find(&t->vocab, word, strlen(word));
}

static bool is_end(const struct tokenizer *t, const char *word)
{
    int32_t id = find(t, word);
    return id >= 0 && t->ends[id / 8] >> id % 8 & 1;
}

static int load_roles(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        int32_t id = -1;
        if (load_id(t, g, roles[i].key, &id, err) != 0)
            return -1;
        for (size_t k = 0; id < 0 && k < sizeof roles[i].words / sizeof *roles[i].words && roles[i].words[k]; k++)
            if ((id = find(t, roles[i].words[k])) >= 0)
                t->vocab.attrs[id] |= ATTR_CONTROL;
        if (id >= 0 && roles[i].ends)
            set_end(t, id, true);
    }
    return 0;
}

/* OpenAI's harmony format: these tokens structure an answer, and who reads it must see them. llama.cpp makes them
 * user-defined, so that a user's text could write them; here they stay control tokens that are always spelled out. */
static void harmony(struct tokenizer *t)
{
    static const char *const words[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        int32_t id = find(t, words[i]);
        if (id >= 0)
            t->vocab.attrs[id] = ATTR_CONTROL | ATTR_SHOWN;
    }
}

static void correct_ends(struct tokenizer *t)
{
    bool calls = is_end(t, "<|call|>") || is_end(t, "<|calls|>");
    if (is_end(t, "<|end|>") && calls && (is_end(t, "<|return|>") || is_end(t, "<|flush|>"))) {
        int32_t id = find(t, "<|end|>"); /* there it ends a message, not the answer */
        set_end(t, id, false);
        t->vocab.attrs[id] = ATTR_CONTROL | ATTR_SHOWN;
    }
    if (is_end(t, "</s>") && (is_end(t, "<|tool_response>") || is_end(t, "<|plamo:eos|>"))) {
        int32_t id = find(t, "</s>"); /* HTML, there */
        set_end(t, id, false);
        t->vocab.attrs[id] = ATTR_NORMAL;
    }
}

static bool contains(struct gguf_str s, const char *word)
{
    return s.len && memmem(s.s, s.len, word, strlen(word)) != NULL;
}

static void set_attr(struct tokenizer *t, const char *word, uint16_t attr, bool value)
{
    int32_t id = find(t, word);
    if (id >= 0 && value)
        t->vocab.attrs[id] |= attr;
    else if (id >= 0)
        t->vocab.attrs[id] &= (uint16_t)~attr;
}

/* Which tokens swallow white space: files do not say so, the models' names do. */
static int load_strips(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct gguf_str name = {0}, pre = {0}, arch = {0};
    char lower[64] = "";
    if (gguf_get_str(g, "general.name", &name, err) < 0 || gguf_get_str(g, "tokenizer.ggml.pre", &pre, err) < 0 ||
        gguf_get_str(g, "general.architecture", &arch, err) < 0)
        return -1;
    for (size_t i = 0; i < name.len && i + 1 < sizeof lower; i++)
        lower[i] = name.s[i] >= 'A' && name.s[i] <= 'Z' ? (char)(name.s[i] | 0x20) : name.s[i];
    struct gguf_str model = {.s = lower, .len = strlen(lower)};
    if (contains(pre, "jina-v2-de") || contains(pre, "jina-v2-es") || contains(pre, "jina-v2-code") || contains(arch, "nomic-bert-moe") ||
        contains(arch, "jina-bert-v3")) {
        set_attr(t, "<mask>", ATTR_LSTRIP, true);
    } else if (contains(model, "phi-3") || contains(model, "phi3")) {
        static const char *const not_these[] = {"<unk>", "<s>", "<|endoftext|>"};
        for (uint32_t id = 0; id < t->vocab.n; id++)
            if (t->vocab.attrs[id] & (ATTR_PARSED | ATTR_USER))
                t->vocab.attrs[id] |= ATTR_RSTRIP;
        set_attr(t, "</s>", ATTR_RSTRIP, true);
        for (size_t i = 0; i < sizeof not_these / sizeof *not_these; i++)
            set_attr(t, not_these[i], ATTR_RSTRIP, false);
    } else if (contains(model, "modern-bert")) {
        set_attr(t, "[MASK]", ATTR_LSTRIP, true);
    }
    return 0;
}

int roles_init(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    if (!(t->ends = mem_new(t->vocab.n / 8 + 1, 1, err)))
        return -1;
    if (load_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err) != 0 ||
        load_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err) != 0 ||
        load_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unk, err) != 0 || load_roles(t, g, err) != 0)
        return -1;
    for (size_t i = 0; end_words[i]; i++) {
        int32_t id = find(t, end_words[i]);
        if (id >= 0) {
            set_end(t, id, true);
            t->vocab.attrs[id] |= ATTR_CONTROL;
        }
    }
    harmony(t);
    if (t->eos >= 0)
        set_end(t, t->eos, true);
    correct_ends(t);
    return load_strips(t, g, err);
}
