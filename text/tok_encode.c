/* One call of encode: special tokens are cut out, what stands between them goes to the model's encoder. See tok.h. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tok.h"

int emit(struct encoder *e, int32_t id)
{
    struct token_list *out = e->out;
    if (out->len == out->cap && mem_grow(&out->ids, &out->cap, out->len + 1, sizeof *out->ids, TOK_MAX_LIST, "tokens", e->err) != 0)
        return -1;
    out->ids[out->len++] = id;
    return 0;
}

/* --- words seen before ----------------------------------------------------------------------------------------------- */
enum { MIN_WORDS = 16, MAX_WORDS = 8192 }; /* 256 KiB: a second-level cache holds them */

static int words_init(struct encoder *e, size_t text_len)
{
    size_t n = MIN_WORDS;
    while (n < MAX_WORDS && n < text_len / 8)
        n *= 2;
    e->word_mask = (uint32_t)(n - 1);
    e->words = mem_new(n, sizeof *e->words, e->err);
    return e->words ? 0 : -1;
}

static struct word_slot *word_slot(struct encoder *e, const char *s, size_t len)
{
    return &e->words[hash_bytes(s, len, 0) & e->word_mask];
}

bool words_find(struct encoder *e, const char *s, size_t len, int *ret_status)
{
    if (len == 0 || len > TOK_SHORT)
        return false;
    const struct word_slot *slot = word_slot(e, s, len);
    if (slot->len != len || memcmp(slot->text, s, len) != 0)
        return false;
    *ret_status = 0;
    for (uint32_t i = 0; i < slot->n && *ret_status == 0; i++)
        *ret_status = emit(e, e->out->ids[e->base + slot->first + i]);
    return true;
}

void words_keep(struct encoder *e, const char *s, size_t len, size_t first)
{
    if (len == 0 || len > TOK_SHORT || e->out->len - first > UINT8_MAX)
        return;
    struct word_slot *slot = word_slot(e, s, len);
    memcpy(slot->text, s, len);
    slot->len = (uint8_t)len;
    slot->n = (uint8_t)(e->out->len - first);
    slot->first = (uint32_t)(first - e->base);
}

/* --- rewriting ------------------------------------------------------------------------------------------------------- */
const char *rewrite_text(struct encoder *e, const char *text, size_t len, bool escape, size_t *ret_len)
{
    size_t i = 0, width, n;
    while (i < len && (width = utf8_len(text + i, len - i)) > 0 && !(escape && text[i] == ' '))
        i += width;
    *ret_len = len;
    if (i == len)
        return text;
    if (mem_grow(&e->text, &e->cap_text, 3 * len, 1, TOK_MAX_LIST, "text", e->err) != 0)
        return NULL;
    memcpy(e->text, text, i);
    for (n = i; i < len; i += width ? width : 1) {
        const char *s = text + i;
        size_t add = width = utf8_len(s, len - i);
        if (width == 0 || (escape && *s == ' ')) {
            s = width ? "\xE2\x96\x81" : "\xEF\xBF\xBD";
            add = 3;
        }
        memcpy(e->text + n, s, add);
        n += add;
    }
    *ret_len = n;
    return e->text;
}

/* --- a text ---------------------------------------------------------------------------------------------------------- */
static int encode_fragments(struct encoder *e, const char *text)
{
    const struct tokenizer *t = e->t;
    bool first = t->add_space_prefix; /* SentencePiece: a space before the text, and again behind each special token */
    for (size_t i = 0; i < e->n_fragments; i++) {
        const struct fragment *f = &e->fragments[i];
        const char *s = text + f->start;
        size_t len = f->end - f->start;
        int status = 0;
        if (f->id >= 0) {
            if (emit(e, f->id) != 0)
                return -1;
            first = t->add_space_prefix;
            continue;
        }
        switch (t->model) {
        case TOK_SPM:
            status = spm_encode(e, s, len, first);
            break;
        case TOK_BPE:
            status = bpe_encode(e, s, len);
            break;
        case TOK_UNIGRAM:
            status = unigram_encode(e, s, len);
            break;
        case TOK_RWKV:
            status = rwkv_encode(e, s, len);
            break;
        }
        if (status != 0)
            return -1;
        first = false;
    }
    return 0;
}

int tokenizer_encode_parts(const struct tokenizer *t, const char *text, const struct text_part *parts, size_t n_parts, unsigned flags,
                           struct token_list *list, struct err *err)
{
    struct encoder e = {.t = t, .out = list, .base = list->len, .err = err};
    size_t len = n_parts ? parts[n_parts - 1].end : 0;
    bool special = flags & TOKENIZE_ADD_SPECIAL;
    int status = -1;

    for (size_t i = 1; i < n_parts; i++)
        if (parts[i].end < parts[i - 1].end)
            return err_set(err, ERR_USAGE, "part %zu of a text ends at %zu, before the one in front of it (%zu)", i, parts[i].end,
                           parts[i - 1].end);
    if (len > TOKENIZER_MAX_TEXT_BYTES)
        return err_set(err, ERR_LIMIT, "the text has %zu bytes, at most %d can be tokenized at once", len, TOKENIZER_MAX_TEXT_BYTES);
    if (words_init(&e, len) == 0 && specials_cut(&e, text, parts, n_parts) == 0 &&
        (!special || !tokenizer_adds_bos(t) || emit(&e, t->bos) == 0) && encode_fragments(&e, text) == 0 &&
        (!special || !t->add_eos || t->eos < 0 || emit(&e, t->eos) == 0))
        status = 0;
    if (status != 0)
        list->len = e.base;
    split_end(&e);
    free(e.fragments);
    free(e.words);
    free(e.text);
    free(e.classes);
    free(e.nodes);
    free(e.heap);
    free(e.best);
    return status;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, struct token_list *list, struct err *err)
{
    struct text_part whole = {.end = len, .special = flags & TOKENIZE_PARSE_SPECIAL};
    return tokenizer_encode_parts(t, text, &whole, 1, flags, list, err);
}

void token_list_fini(struct token_list *list)
{
    free(list->ids);
    *list = (struct token_list){0};
}
