/* Cutting text into words by a pre-tokenizer's row. See tok.h and, for the rows, tok_pre.c.
 *
 * Patterns are PCRE2's, compiled to machine code where the system allows it. They are ours, never the file's; none of them
 * needs a stack that grows with the text, and should PCRE2 hit a limit of its own all the same, that is an error. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tok.h"

int splitter_init(struct splitter *s, const struct pre_row *row, struct err *err)
{
    for (unsigned i = 0; i < TOK_MAX_STEPS && row->steps[i].kind != SPLIT_END; i++) {
        struct split_step *step = &s->steps[s->n_steps++];
        step->kind = row->steps[i].kind;
        if (step->kind == SPLIT_CLASSES || step->kind == SPLIT_DIGITS || step->kind == SPLIT_THOUSANDS)
            s->wants_classes = true;
        if (!row->steps[i].pattern)
            continue;
        int code;
        PCRE2_SIZE at;
        PCRE2_UCHAR message[128] = "";
        uint32_t options = step->kind == SPLIT_TEXT ? PCRE2_UTF | PCRE2_NO_UTF_CHECK : 0;
        step->code = pcre2_compile((PCRE2_SPTR)row->steps[i].pattern, PCRE2_ZERO_TERMINATED, options, &code, &at, NULL);
        if (!step->code) {
            pcre2_get_error_message(code, message, sizeof message);
            return err_set(err, ERR_INTERNAL, "pre-tokenizer %.20s, pattern %u, byte %zu: %s", row->names, i, (size_t)at, (char *)message);
        }
        step->jit = pcre2_jit_compile(step->code, PCRE2_JIT_COMPLETE) == 0; /* not everywhere; then it is interpreted */
    }
    return 0;
}

void splitter_fini(struct splitter *s)
{
    for (unsigned i = 0; i < s->n_steps; i++)
        pcre2_code_free(s->steps[i].code);
    memset(s, 0, sizeof *s);
}

struct split {
    struct encoder *e;
    const struct splitter *splitter;
    const char *text;
    const unsigned char *classes; /* text itself where that is ASCII */
    bool ascii;
    word_fn fn;
};

/* A stretch of text: in bytes, and in characters where classes are wanted. */
struct piece {
    size_t byte, byte_end;
    size_t character, character_end;
};

static size_t skip_characters(const struct split *s, size_t byte, size_t n)
{
    if (s->ascii)
        return byte + n;
    for (; n > 0; n--) {
        unsigned char c = (unsigned char)s->text[byte];
        byte += c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    }
    return byte;
}

static size_t count_characters(const struct split *s, size_t byte, size_t end)
{
    size_t n = 0;
    if (s->ascii || !s->splitter->wants_classes)
        return end - byte;
    for (; byte < end; byte++)
        n += ((unsigned char)s->text[byte] & 0xC0) != 0x80;
    return n;
}

static int apply(struct split *s, unsigned level, struct piece p);

/* Gives the first n characters (or bytes) of the rest to the next step. */
static int cut(struct split *s, unsigned level, struct piece *rest, size_t n, bool bytes)
{
    struct piece head = *rest;
    if (n == 0)
        return 0;
    head.byte_end = bytes ? rest->byte + n : skip_characters(s, rest->byte, n);
    head.character_end = rest->character + (bytes ? count_characters(s, rest->byte, rest->byte + n) : n);
    rest->byte = head.byte_end;
    rest->character = head.character_end;
    return apply(s, level + 1, head);
}

static int by_pattern(struct split *s, unsigned level, struct piece rest)
{
    const struct split_step *step = &s->splitter->steps[level];
    bool bytes = step->kind == SPLIT_TEXT;
    const unsigned char *subject = bytes ? (const unsigned char *)s->text + rest.byte : s->classes + rest.character;
    size_t len = bytes ? rest.byte_end - rest.byte : rest.character_end - rest.character, at = 0;
    pcre2_match_data *match = s->e->match;
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(match);

    while (at < len) {
        int status = step->jit ? pcre2_jit_match(step->code, subject, len, at, 0, match, NULL)
                               : pcre2_match(step->code, subject, len, at, PCRE2_NO_UTF_CHECK, match, NULL);
        if (status == PCRE2_ERROR_NOMATCH)
            break;
        if (status < 0 || found[1] <= at)
            return err_set(s->e->err, ERR_LIMIT, "cutting %zu bytes of text into words failed (PCRE2 error %d)", len, status);
        size_t gap = found[0] - at, n = found[1] - found[0];
        at = found[1];
        if (cut(s, level, &rest, gap, bytes) != 0 || cut(s, level, &rest, n, bytes) != 0)
            return -1;
    }
    return cut(s, level, &rest, len - at, bytes);
}

static int by_lines(struct split *s, unsigned level, struct piece rest)
{
    while (rest.byte < rest.byte_end) {
        size_t n = 0, left = rest.byte_end - rest.byte;
        const char *at = s->text + rest.byte;
        if (*at == '\n') {
            while (n < left && at[n] == '\n')
                n++;
        } else {
            const char *newline = memchr(at, '\n', left);
            n = newline ? (size_t)(newline - at) : left;
        }
        if (cut(s, level, &rest, n, true) != 0)
            return -1;
    }
    return 0;
}

static bool is_number(unsigned char c)
{
    return (c >= '0' && c <= '9') || c == CLASS_NUMBER;
}

/* What stands before a run of digits goes with its first group: so do the implementations that set the standard. */
static int by_digits(struct split *s, unsigned level, struct piece rest)
{
    size_t at = rest.character, start = at, end = rest.character_end;
    while (at < end) {
        size_t digits = 0;
        while (at + digits < end && is_number(s->classes[at + digits]))
            digits++;
        if (digits == 0) {
            at++;
            continue;
        }
        for (size_t group = digits % 3 ? digits % 3 : 3; digits > 0; digits -= group, group = 3) {
            at += group;
            if (cut(s, level, &rest, at - start, false) != 0)
                return -1;
            start = at;
        }
    }
    return cut(s, level, &rest, end - start, false);
}

static int by_thousands(struct split *s, unsigned level, struct piece rest)
{
    size_t at = rest.character, start = at, end = rest.character_end;
    while (at < end) {
        size_t digits = 0;
        while (at + digits < end && s->classes[at + digits] >= '0' && s->classes[at + digits] <= '9')
            digits++;
        for (size_t i = digits % 3; i < digits; i += 3) {
            if (cut(s, level, &rest, at + i - start, false) != 0)
                return -1;
            start = at + i;
        }
        at += digits ? digits : 1;
    }
    return cut(s, level, &rest, end - start, false);
}

static int apply(struct split *s, unsigned level, struct piece p)
{
    if (level == s->splitter->n_steps)
        return s->fn(s->e, s->text + p.byte, p.byte_end - p.byte);
    switch (s->splitter->steps[level].kind) {
    case SPLIT_LINES:
        return by_lines(s, level, p);
    case SPLIT_DIGITS:
        return by_digits(s, level, p);
    case SPLIT_THOUSANDS:
        return by_thousands(s, level, p);
    default:
        return by_pattern(s, level, p);
    }
}

/* One class a character. text is valid UTF-8. */
static int classify(struct split *s, size_t len, size_t *ret_n)
{
    struct encoder *e = s->e;
    size_t ascii = 0, n = 0;
    while (ascii < len && (unsigned char)s->text[ascii] < 0x80)
        ascii++;
    *ret_n = len;
    s->ascii = ascii == len;
    s->classes = (const unsigned char *)s->text;
    if (s->ascii || !s->splitter->wants_classes)
        return 0;
    if (mem_grow(&e->classes, &e->cap_classes, len, 1, TOK_MAX_LIST, "classes of characters", e->err) != 0)
        return -1;
    for (size_t i = 0; i < len;) {
        uint32_t c = (unsigned char)s->text[i];
        if (c < 0x80) {
            e->classes[n++] = (unsigned char)c;
            i++;
            continue;
        }
        i += utf8_decode(s->text + i, len - i, &c);
        e->classes[n++] = c < UNICODE_BMP ? e->t->classes[c] : unicode_class_of(c);
    }
    s->classes = e->classes;
    *ret_n = n;
    return 0;
}

int split_words(struct encoder *e, const char *text, size_t len, word_fn fn)
{
    struct split s = {.e = e, .splitter = &e->t->splitter, .text = text, .fn = fn};
    size_t n;
    if (!e->match && !(e->match = pcre2_match_data_create(1, NULL)))
        return err_set(e->err, ERR_MEMORY, "out of memory for matching words");
    if (classify(&s, len, &n) != 0)
        return -1;
    return apply(&s, 0, (struct piece){.byte_end = len, .character_end = n});
}

void split_end(struct encoder *e)
{
    pcre2_match_data_free(e->match);
    e->match = NULL;
}
