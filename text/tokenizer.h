#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

/* Text to token ids and back, as a GGUF's tokenizer.ggml.* metadata says: SentencePiece ("llama"), byte pairs ("gpt2" with
 * every tokenizer.ggml.pre, "gemma4"), unigram ("t5") and "rwkv". Immutable after creation: any number of threads may use
 * one. Encoding takes n log n at worst (a million bytes without a space included), tens of megabytes a second for ordinary
 * text.
 *
 * The ids are llama.cpp's, but for this: plain text never becomes a control token, whatever the vocabulary's merges or
 * scores would make of it; and bytes that are no UTF-8 by RFC 3629 each become U+FFFD (byte pairs, unigram) or their own
 * byte token (SentencePiece, RWKV). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gguf/gguf.h"

struct tokenizer;

/* Reads the vocabulary. The gguf may be closed afterwards. An unknown model or pre-tokenizer is named with the known ones. */
struct tokenizer *tokenizer_create(const struct gguf *g, struct err *err);
void tokenizer_destroy(struct tokenizer *t); /* takes NULL */

enum tokenize_flags {
    TOKENIZE_ADD_SPECIAL = 1,   /* BOS, EOS and the like, as the file's add_*_token keys say */
    TOKENIZE_PARSE_SPECIAL = 2, /* control tokens written out in the text ("<|im_end|>") become their ids; user-defined
                                   ones always do, as the models were trained so */
};

enum { TOKENIZER_MAX_TEXT_BYTES = 64 << 20 };

struct token_list {
    int32_t *ids;
    size_t len, cap;
};
void token_list_fini(struct token_list *list);

/* Appends the tokens of text, any bytes, to *list. -1 and err over a limit or out of memory (list then holds what it held before). */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, struct token_list *list, struct err *err);

/* A text in which only some parts may name control tokens: what a chat template wrote itself, not what it copied from a
 * user. `parts` cover the text in order: each ends at byte `end`. The flag TOKENIZE_PARSE_SPECIAL does not count here.
 * Otherwise the ids are those of the whole text: words merge across parts. */
struct text_part {
    size_t end;
    bool special; /* control tokens are parsed in this part */
};
int tokenizer_encode_parts(const struct tokenizer *t, const char *text, const struct text_part *parts, size_t n_parts, unsigned flags,
                           struct token_list *list, struct err *err);

size_t tokenizer_n_tokens(const struct tokenizer *t);
/* Ids, or -1 where the vocabulary has none. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
/* Whether generation ends here: EOS, EOT, end of message, and what else the file or its vocabulary names so. */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);
bool tokenizer_adds_bos(const struct tokenizer *t);
/* The token as the vocabulary spells it ("▁the", "Ġthe"), not 0-terminated, the tokenizer's; NULL for a bad id. */
const char *tokenizer_spelling(const struct tokenizer *t, int32_t id, size_t *ret_len);
/* The id of a spelling, -1 if there is none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *spelling, size_t len);
/* The bytes the token stands for, written to buf; returns their number, at most TOKEN_MAX_BYTES (at most buf_size are
 * written). Control tokens stand for nothing unless `special`; those of the harmony format are always spelled out. */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t buf_size);

/* Streaming decode: bytes come out only as whole UTF-8 characters. `started` knows whether a text has begun: the space that
 * SentencePiece puts before a text is not given back. Where an answer continues a text, set it after detokenizer_init. */
enum { DETOKENIZER_PENDING = 4, TOKEN_MAX_BYTES = 1024 };
struct detokenizer {
    const struct tokenizer *t;
    char pending[DETOKENIZER_PENDING];
    size_t n_pending;
    bool special; /* spell out control tokens */
    bool started;
};
void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, bool special);
/* Feeds one token; writes what is whole to buf and returns its length. buf has room for TOKEN_MAX_BYTES +
 * DETOKENIZER_PENDING bytes. Bytes that can never become UTF-8 come out as U+FFFD. */
size_t detokenizer_next(struct detokenizer *d, int32_t id, char *buf, size_t buf_size);
/* What was still pending at the end, as U+FFFD. */
size_t detokenizer_end(struct detokenizer *d, char *buf, size_t buf_size);

#endif
