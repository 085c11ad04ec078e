#ifndef TEXT_TOK_H
#define TEXT_TOK_H

/* What the parts of the tokenizer share; tokenizer.h is the contract to the outside. A vocabulary is loaded once
 * (tok_load.c), text is cut at special tokens (tok_special.c), and each piece of plain text goes to the model's own
 * encoder: tok_bpe.c (after tok_split.c has cut it into words), tok_spm.c, tok_unigram.c, tok_rwkv.c. The vocabulary comes
 * from a file and may be hostile: whatever it says, encoding is bounded by the limits below. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "gguf/gguf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

enum {
    TOK_MAX_TOKENS = 1 << 21,
    TOK_MAX_MERGES = 1 << 20,
    TOK_MAX_VOCAB_BYTES = 256 << 20, /* all spellings together */
    TOK_MAX_TRIE_NODES = 1 << 22,    /* 37 MB */
    TOK_MAX_SPECIAL_NODES = 1 << 20,
    TOK_MAX_STEPS = 6,       /* patterns that one pre-tokenizer applies in turn */
    TOK_MAX_LIST = 1u << 30, /* ids in one token_list */
    TOK_SHORT = 24,          /* words of up to so many bytes are remembered within one call */
    TOK_NONE = UINT32_MAX,
};

/* --- words of a vocabulary ------------------------------------------------------------------------------------------- */
enum token_attr {
    ATTR_NORMAL = 1,
    ATTR_UNKNOWN = 2,
    ATTR_CONTROL = 4,
    ATTR_USER = 8, /* always matched in text, before everything else */
    ATTR_UNUSED = 16,
    ATTR_BYTE = 32,
    ATTR_LSTRIP = 64,  /* white space before it vanishes */
    ATTR_RSTRIP = 128, /* and behind it */
    ATTR_SHOWN = 256,  /* a control token that is written out even where control tokens are not */
};
/* Never made from plain text. */
enum { ATTR_PARSED = ATTR_UNKNOWN | ATTR_CONTROL };

struct vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: free */
};

struct vocab {
    uint32_t n;
    size_t max_len; /* longest spelling */
    char *text;     /* spellings, one after another; token i is [at[i], at[i + 1]) */
    uint32_t *at;
    char *pieces; /* the bytes they stand for, in the same way */
    uint32_t *piece_at;
    uint16_t *attrs; /* of enum token_attr */
    float *scores;   /* NULL where the model has none */
    struct vocab_slot *slots;
    uint32_t slot_mask;
    uint64_t seed; /* of hashes: foreign words must not be able to collide on purpose */
};

int vocab_load(struct vocab *v, const struct gguf *g, bool need_scores, struct err *err);
int vocab_index(struct vocab *v, struct err *err);
void vocab_fini(struct vocab *v);
int32_t vocab_find(const struct vocab *v, const char *s, size_t len); /* -1 if absent */

static inline const char *vocab_text(const struct vocab *v, uint32_t id, size_t *ret_len)
{
    *ret_len = v->at[id + 1] - v->at[id];
    return v->text + v->at[id];
}

/* --- prefix trees ---------------------------------------------------------------------------------------------------- */
/* Nodes stand in order of depth, the children of one next to each other; node 0 is the root. */
struct trie {
    uint32_t n;
    uint32_t *first; /* children of node i are [first[i], first[i + 1]) */
    unsigned char *label;
    int32_t *value;     /* -1: no word ends here */
    uint32_t *link;     /* only after trie_link: the node of the longest proper suffix */
    uint32_t *out;      /* and the nearest node from here over links, itself included, where a word ends; 0 if none */
    uint32_t root[256]; /* the root's children, 0 where there is none */
};

struct trie_word {
    const char *s;
    uint32_t len;
    int32_t value;
};

/* Sorts the words. backward: they are read from their ends. Of equal words the last value counts. */
int trie_build(struct trie *t, struct trie_word *words, size_t n, bool backward, size_t max_nodes, const char *what, struct err *err);
int trie_link(struct trie *t, struct err *err);
void trie_fini(struct trie *t);
uint32_t trie_child(const struct trie *t, uint32_t node, unsigned char c); /* 0 if there is none */

/* --- merging --------------------------------------------------------------------------------------------------------- */
/* Rows of (left, right) -> (rank, result). */
struct merge_slot {
    uint32_t left, right, rank, result; /* left TOK_NONE: free */
};

struct merges {
    struct merge_slot *slots;
    uint32_t mask;
    uint64_t seed;
};

/* Which neighbours some word of the vocabulary may hold side by side: a hashed set of pairs that may err to "yes". Where
 * it says no, no token can stand across, so that text can be cut there and each part encoded for itself, exactly. */
struct joins {
    uint64_t *bits;
    uint32_t mask; /* of bit numbers */
};

int joins_init(struct joins *j, size_t n_pairs, struct err *err);
void joins_fini(struct joins *j);

static inline uint32_t joins_bit(const struct joins *j, uint32_t left, uint32_t right)
{
    return (uint32_t)(((left * UINT64_C(0x9E3779B97F4A7C15)) ^ (right * UINT64_C(0xC2B2AE3D27D4EB4F))) >> 29) & j->mask;
}

static inline void joins_add(struct joins *j, uint32_t left, uint32_t right)
{
    uint32_t bit = joins_bit(j, left, right);
    j->bits[bit / 64] |= UINT64_C(1) << bit % 64;
}

static inline bool joins_may(const struct joins *j, uint32_t left, uint32_t right)
{
    uint32_t bit = joins_bit(j, left, right);
    return j->bits[bit / 64] >> bit % 64 & 1;
}

/* --- pre-tokenizers -------------------------------------------------------------------------------------------------- */
enum split_kind {
    SPLIT_END,
    SPLIT_CLASSES,   /* a pattern over classes, one byte a character */
    SPLIT_TEXT,      /* a pattern over UTF-8 */
    SPLIT_LINES,     /* runs of newlines and runs of anything else */
    SPLIT_DIGITS,    /* groups of three from the right, and what stands before the first one together with it */
    SPLIT_THOUSANDS, /* before every third ASCII digit from the right */
};

enum pre_flags {
    PRE_IGNORE_MERGES = 1, /* a word that is a token needs no merges */
    PRE_ADD_BOS = 2,
    PRE_RAW = 4,           /* characters instead of bytes, unknown ones by <0xXX> tokens */
    PRE_ESCAPE_SPACES = 8, /* spaces are written ▁ */
    PRE_NEWLINES = 16,     /* a run of newlines that is a token needs no merges */
    PRE_FORCE_BOS = 32,    /* whatever the file says */
    PRE_NO_MERGES = 64,    /* the file may lack them */
};

struct pre_row {
    const char *names; /* separated by spaces */
    unsigned flags;
    struct {
        enum split_kind kind;
        const char *pattern;
    } steps[TOK_MAX_STEPS];
};

/* NULL and an error with the known names. */
const struct pre_row *pre_find(const char *name, size_t len, struct err *err);
/* Row i, NULL past the last. */
const struct pre_row *pre_at(size_t i);

struct split_step {
    enum split_kind kind;
    void *code; /* pcre2_code */
    bool jit;
};

struct splitter {
    unsigned n_steps;
    bool wants_classes;
    struct split_step steps[TOK_MAX_STEPS];
};

int splitter_init(struct splitter *s, const struct pre_row *row, struct err *err);
void splitter_fini(struct splitter *s);

/* --- the tokenizer --------------------------------------------------------------------------------------------------- */
enum tok_model { TOK_SPM, TOK_BPE, TOK_UNIGRAM, TOK_RWKV };

struct tokenizer {
    enum tok_model model;
    struct vocab vocab;
    int32_t bos, eos, unk;
    bool add_bos, add_eos, add_space_prefix, remove_extra_spaces, escape_spaces;
    unsigned char *ends; /* a bit an id: generation stops here */

    struct trie specials; /* backward, linked */
    bool any_user;

    struct joins joins;        /* SPM, BPE */
    const struct pre_row *pre; /* BPE */
    struct splitter splitter;
    struct merges merges;
    int32_t byte_ids[256];  /* BPE: a byte's own token; SPM and raw BPE: its <0xXX> token */
    unsigned char *classes; /* UNICODE_BMP of them */
    uint32_t *ranks;        /* SPM: tokens by falling score, TOK_NONE for those never merged to */

    struct trie words; /* unigram, RWKV */
    float unknown_score;
    unsigned char *charsmap; /* unigram's normalization: a double array, then replacement strings */
    size_t charsmap_units, charsmap_len;
};

/* A token that plain text may become: no control token. -1 if there is none. */
static inline int32_t find_plain(const struct tokenizer *t, const char *s, size_t len)
{
    int32_t id = vocab_find(&t->vocab, s, len);
    return id >= 0 && !(t->vocab.attrs[id] & ATTR_PARSED) ? id : -1;
}

/* Which tokens are special, and what for. */
int roles_init(struct tokenizer *t, const struct gguf *g, struct err *err);
int specials_init(struct tokenizer *t, struct err *err);
int bpe_init(struct tokenizer *t, const struct gguf *g, struct err *err);
int spm_init(struct tokenizer *t, struct err *err);
int unigram_init(struct tokenizer *t, const struct gguf *g, struct err *err);
int rwkv_init(struct tokenizer *t, struct err *err);
/* Fills vocab.pieces. */
int pieces_init(struct tokenizer *t, struct err *err);
/* buf has room for len bytes. */
size_t rwkv_unescape(const char *s, size_t len, char *buf);

/* Byte-level BPE writes bytes as printable characters. The character for a byte (1 or 2 bytes to buf), and the byte for a
 * character, -1 if it stands for none. */
size_t byte_char(unsigned char byte, char buf[2]);
int char_byte(uint32_t c);

/* --- one call of encode ---------------------------------------------------------------------------------------------- */
struct merge_node {
    uint32_t prev, next; /* TOK_NONE at the ends */
    uint32_t at;         /* where its text begins */
    int32_t id;          /* -1: a character that is no token */
    uint32_t rank;       /* of the merge with the next one, TOK_NONE if there is none */
    int32_t result;      /* and what that makes */
};

struct word_slot { /* a short word and where its tokens stand in the list */
    char text[TOK_SHORT];
    uint32_t first;
    uint8_t len, n;
};

struct fragment {
    uint32_t start, end; /* of text */
    int32_t id;          /* a special token; -1: plain text */
};

struct unigram_best {
    double score;
    uint32_t from;
    int32_t id;
};

/* Working memory; everything grows as needed and dies with the call. */
struct encoder {
    const struct tokenizer *t;
    struct token_list *out;
    size_t base; /* what *out held before */
    struct err *err;

    struct fragment *fragments;
    size_t n_fragments, cap_fragments;

    struct word_slot *words;
    uint32_t word_mask;

    char *text; /* a rewritten fragment */
    size_t cap_text;
    unsigned char *classes; /* one a character */
    size_t cap_classes;
    void *match; /* pcre2_match_data */

    struct merge_node *nodes;
    size_t cap_nodes;
    uint64_t *heap;
    size_t n_heap, cap_heap;

    struct unigram_best *best;
    size_t cap_best;
    bool after_unknown;
};

/* Fills fragments: what stands between special tokens, and these. Control tokens are taken only inside special parts. */
int specials_cut(struct encoder *e, const char *text, const struct text_part *parts, size_t n_parts);
/* Each encodes one fragment of plain text. `first`: SentencePiece puts a space before it. */
int bpe_encode(struct encoder *e, const char *text, size_t len);
int spm_encode(struct encoder *e, const char *text, size_t len, bool first);
int unigram_encode(struct encoder *e, const char *text, size_t len);
int rwkv_encode(struct encoder *e, const char *text, size_t len);

int emit(struct encoder *e, int32_t id);

/* Words seen before in this call. words_find appends the tokens again and returns true; words_keep remembers those that
 * stand from `first` on. */
bool words_find(struct encoder *e, const char *s, size_t len, int *ret_status);
void words_keep(struct encoder *e, const char *s, size_t len, size_t first);

/* Calls fn for every word of valid UTF-8, in order; together they are the text. */
typedef int (*word_fn)(struct encoder *e, const char *word, size_t len);
int split_words(struct encoder *e, const char *text, size_t len, word_fn fn);
void split_end(struct encoder *e); /* frees what split_words kept for the next call */

/* Merges nodes[0 … n) of e (prev, next, at and id are set; the last one's text ends at `end` of `text`): always the pair of
 * least rank, of equal ones the leftmost. What is left hangs together from node 0 on. */
typedef uint32_t (*merge_fn)(const struct tokenizer *t, const char *text, const struct merge_node *left, const struct merge_node *right,
                             uint32_t end, int32_t *ret_result);
int merge_nodes(struct encoder *e, const char *text, uint32_t n, uint32_t end, merge_fn fn);

/* A heap of numbers, the least on top. */
int tok_heap_push(struct encoder *e, uint64_t value);
uint64_t tok_heap_pop(struct encoder *e);

/* A copy of text in *e->text with every byte that is no UTF-8 made U+FFFD, and spaces made ▁ if escape; the text itself if
 * there is nothing to do. NULL on error. */
const char *rewrite_text(struct encoder *e, const char *text, size_t len, bool escape, size_t *ret_len);

static inline uint64_t mix64(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 u128;
    u128 p = (u128)(a ^ UINT64_C(0x9E3779B97F4A7C15)) * (b ^ UINT64_C(0xE7037ED1A0B428DB));
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}
uint64_t hash_bytes(const char *s, size_t len, uint64_t seed);

#endif
