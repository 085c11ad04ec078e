/* From tokens back to bytes, and from bytes to whole characters. See tok.h and tokenizer.h. */
#include <string.h>

#include "base/utf8.h"
#include "text/tok.h"

/* --- pieces ---------------------------------------------------------------------------------------------------------- */
/* <0xXX> */
static int byte_of(const char *s, size_t len)
{
    int value = 0;
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (size_t i = 3; i < 5; i++) {
        char c = s[i] | 0x20;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return -1;
        value = value << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return value;
}

static size_t unescape_spaces(const char *s, size_t len, char *buf)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        if (len - i >= 3 && memcmp(s + i, "\xE2\x96\x81", 3) == 0) {
            buf[n++] = ' ';
            i += 3;
        } else {
            buf[n++] = s[i++];
        }
    }
    return n;
}

static size_t decode_bytes(const char *s, size_t len, char *buf)
{
    size_t n = 0;
    for (size_t i = 0, width; i < len; i += width) {
        uint32_t c;
        width = utf8_decode(s + i, len - i, &c);
        int byte = width ? char_byte(c) : -1;
        width = width ? width : 1;
        if (byte >= 0) {
            buf[n++] = (char)byte;
        } else { /* no byte's character: it stands for itself */
            memcpy(buf + n, s + i, width);
            n += width;
        }
    }
    return n;
}

/* What token id stands for, spelled out even if it is a control token. Never longer than its spelling. */
static size_t make_piece(const struct tokenizer *t, uint32_t id, char *buf)
{
    uint16_t attrs = t->vocab.attrs[id];
    size_t len;
    const char *s = vocab_text(&t->vocab, id, &len);
    if (t->model == TOK_RWKV)
        return rwkv_unescape(s, len, buf);
    if (attrs & (ATTR_PARSED | ATTR_USER)) {
        memcpy(buf, s, len);
        return len;
    }
    if (attrs & ATTR_BYTE) {
        int byte = byte_of(s, len);
        buf[0] = (char)byte;
        return byte >= 0;
    }
    if (!(attrs & ATTR_NORMAL))
        return 0;
    if (t->model != TOK_BPE || t->pre->flags & PRE_ESCAPE_SPACES)
        return unescape_spaces(s, len, buf);
    if (!(t->pre->flags & PRE_RAW))
        return decode_bytes(s, len, buf);
    memcpy(buf, s, len);
    return len;
}

/* How long it is once its broken bytes have become U+FFFD. */
static size_t shown_len(const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0, width; i < len; i += width ? width : 1) {
        width = utf8_len(s + i, len - i);
        n += width ? width : 3;
    }
    return n;
}

int pieces_init(struct tokenizer *t, struct err *err)
{
    struct vocab *v = &t->vocab;
    v->pieces = mem_new(v->at[v->n] + 1, 1, err);
    v->piece_at = mem_new((size_t)v->n + 1, sizeof *v->piece_at, err);
    if (!v->pieces || !v->piece_at)
        return -1;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n = make_piece(t, id, v->pieces + v->piece_at[id]);
        if (n > TOKEN_MAX_BYTES / 3 && shown_len(v->pieces + v->piece_at[id], n) > TOKEN_MAX_BYTES)
            return err_set(err, ERR_LIMIT, "token %u stands for %zu bytes that are no text; at most %d are allowed", id, n,
                           TOKEN_MAX_BYTES / 3);
        v->piece_at[id + 1] = v->piece_at[id] + (uint32_t)n;
    }
    return 0;
}

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t buf_size)
{
    const struct vocab *v = &t->vocab;
    if (id < 0 || (uint32_t)id >= v->n)
        return 0;
    if (!special && v->attrs[id] & ATTR_PARSED && !(v->attrs[id] & ATTR_SHOWN))
        return 0;
    size_t n = v->piece_at[id + 1] - v->piece_at[id];
    if (n && buf_size)
        memcpy(buf, v->pieces + v->piece_at[id], n < buf_size ? n : buf_size);
    return n;
}

/* --- streams --------------------------------------------------------------------------------------------------------- */
void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, bool special)
{
    *d = (struct detokenizer){.t = t, .special = special};
}

struct out {
    char *buf;
    size_t n, size;
};

static void put(struct out *out, const char *s, size_t len)
{
    if (len > out->size - out->n)
        len = out->size - out->n;
    if (len)
        memcpy(out->buf + out->n, s, len);
    out->n += len;
}

/* How many bytes of s, which do not begin with a character, one U+FFFD stands for: the beginning of a character, or one. */
static size_t broken_len(const char *s, size_t len)
{
    size_t n = 1;
    while (n < 3 && n < len && utf8_complete(s, n + 1) == 0)
        n++;
    return n;
}

size_t detokenizer_next(struct detokenizer *d, int32_t id, char *buf, size_t buf_size)
{
    char bytes[DETOKENIZER_PENDING + TOKEN_MAX_BYTES], *s = bytes;
    struct out out = {.buf = buf, .size = buf_size};
    size_t n = d->n_pending;

    memcpy(bytes, d->pending, n);
    size_t piece = tokenizer_piece(d->t, id, d->special, bytes + n, sizeof bytes - n);
    if (piece == 0)
        return 0;
    n += piece;
    if (!d->started && d->t->add_space_prefix && *s == ' ') {
        s++;
        n--;
    }
    d->started = true;
    size_t whole = utf8_complete(s, n);
    for (size_t i = 0; i < whole;) {
        size_t width = utf8_len(s + i, whole - i);
        if (width) {
            put(&out, s + i, width);
        } else {
            width = broken_len(s + i, whole - i);
            put(&out, "\xEF\xBF\xBD", 3);
        }
        i += width;
    }
    d->n_pending = n - whole;
    memcpy(d->pending, s + whole, d->n_pending);
    return out.n;
}

size_t detokenizer_end(struct detokenizer *d, char *buf, size_t buf_size)
{
    struct out out = {.buf = buf, .size = buf_size};
    if (d->n_pending)
        put(&out, "\xEF\xBF\xBD", 3);
    d->n_pending = 0;
    return out.n;
}
