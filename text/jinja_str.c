/* Strings and the builder that keeps their marks. Appending to a string that was itself the last thing built in its
 * builder continues there, so that a template which gathers its output by `ns.text = ns.text + …` stays linear. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"

uint64_t jinja_hash_bytes(const char *s, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u ^ len; /* FNV-1a, with a last stir for the low bits */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    h ^= h >> 29;
    return h ? h : 1;
}

/* --- the builder -------------------------------------------------------- */

static bool reserve(struct jinja *j, struct jinja_text *t, size_t extra)
{
    size_t need, cap;
    char *data;
    if (t->failed)
        return false;
    if (!mem_add(t->len, extra, &need) || (t->max && need > t->max)) {
        jinja_fail(j, ERR_LIMIT, "longer than the %zu bytes of output allowed", t->max);
        t->failed = true;
        return false;
    }
    if (need <= t->cap)
        return true;
    cap = t->cap ? (need > 2 * t->cap ? need : 2 * t->cap) : need + 16;
    if (t->max) {
        cap = cap > t->max ? t->max : cap;
        if (!(data = realloc(t->data, cap + 1)))
            jinja_fail(j, ERR_MEMORY, "out of memory: %zu bytes of output", cap);
    } else {
        data = arena_alloc(&j->arena, cap, j->err);
    }
    if (!data) {
        t->failed = true;
        return false;
    }
    if (t->len && !t->max)
        memcpy(data, t->data, t->len);
    t->data = data;
    t->cap = cap;
    return true;
}

/* The builder's text now reaches `end`; the part since the last call is special or not. */
static void mark(struct jinja *j, struct jinja_text *t, size_t end, bool special)
{
    if (t->n_runs && t->runs[t->n_runs - 1].special == special) {
        t->runs[t->n_runs - 1].end = end;
        return;
    }
    if (t->n_runs == t->cap_runs) {
        size_t cap = t->cap_runs ? 2 * t->cap_runs : 2;
        struct text_part *runs = arena_alloc(&j->arena, cap * sizeof *runs, j->err);
        if (!runs) {
            t->failed = true;
            return;
        }
        if (t->n_runs)
            memcpy(runs, t->runs, t->n_runs * sizeof *runs);
        t->runs = runs;
        t->cap_runs = cap;
    }
    t->runs[t->n_runs++] = (struct text_part){.end = end, .special = special};
}

void jinja_text_add(struct jinja *j, struct jinja_text *t, const char *s, size_t len, bool special)
{
    if (len == 0 || !reserve(j, t, len))
        return;
    memcpy(t->data + t->len, s, len);
    t->len += len;
    mark(j, t, t->len, special);
}

void jinja_text_puts(struct jinja *j, struct jinja_text *t, const char *s)
{
    jinja_text_add(j, t, s, strlen(s), false);
}

void jinja_text_char(struct jinja *j, struct jinja_text *t, uint32_t c, bool special)
{
    char buf[4];
    size_t len = utf8_encode(c, buf);
    jinja_text_add(j, t, buf, len, special);
}

/* The run in which offset lies. */
static size_t run_at(const struct jinja_str *s, size_t offset)
{
    size_t low = 0, high = s->n_runs - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->runs[middle].end > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void jinja_text_sub(struct jinja *j, struct jinja_text *t, const struct jinja_str *s, size_t from, size_t to)
{
    if (!s->n_runs || from >= to) {
        jinja_text_add(j, t, s->s + from, from < to ? to - from : 0, s->special);
        return;
    }
    for (size_t i = run_at(s, from); from < to; i++) {
        size_t end = i + 1 < s->n_runs && s->runs[i].end < to ? s->runs[i].end : to;
        jinja_text_add(j, t, s->s + from, end - from, s->runs[i].special);
        from = end;
    }
}

void jinja_text_str(struct jinja *j, struct jinja_text *t, const struct jinja_str *s)
{
    jinja_text_sub(j, t, s, 0, s->len);
}

const struct jinja_str *jinja_text_done(struct jinja *j, struct jinja_text *t)
{
    struct jinja_str *s;
    if (t->failed || !(s = jinja_alloc(j, 1, sizeof *s)))
        return NULL;
    *s = (struct jinja_str){.s = t->len ? t->data : "", .len = t->len, .n_chars = SIZE_MAX};
    if (t->n_runs == 1) {
        s->special = t->runs[0].special;
    } else if (t->n_runs > 1) {
        s->runs = t->runs;
        s->n_runs = t->n_runs;
    }
    return s;
}

int jinja_text_value(struct jinja *j, struct jinja_text *t, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_text_done(j, t);
    if (!s)
        return -1;
    *ret = jinja_string(s);
    return 0;
}

/* --- strings ------------------------------------------------------------ */

const struct jinja_str *jinja_str_new(struct jinja *j, const char *s, size_t len, bool special)
{
    struct jinja_str *str = jinja_alloc(j, 1, sizeof *str);
    if (str)
        *str = (struct jinja_str){.s = s, .len = len, .n_chars = SIZE_MAX, .special = special};
    return str;
}

const struct jinja_str *jinja_str_copy(struct jinja *j, const char *s, size_t len, bool special)
{
    const char *copy = arena_strndup(&j->arena, s, len, j->err);
    return copy ? jinja_str_new(j, copy, len, special) : NULL;
}

const struct jinja_str *jinja_str_sub(struct jinja *j, const struct jinja_str *s, size_t from, size_t to)
{
    struct jinja_str *sub;
    if (from == 0 && to == s->len)
        return s;
    if (!(sub = jinja_alloc(j, 1, sizeof *sub)))
        return NULL;
    *sub = (struct jinja_str){.s = s->s + from, .len = to - from, .n_chars = SIZE_MAX, .special = s->special, .markup = s->markup};
    if (!s->n_runs || from >= to)
        return sub;
    size_t first = run_at(s, from), last = run_at(s, to - 1);
    if (first == last) {
        sub->special = s->runs[first].special;
        return sub;
    }
    struct text_part *runs = jinja_alloc(j, last - first + 1, sizeof *runs);
    if (!runs || jinja_charge(j, (last - first) / 16) != 0)
        return NULL;
    for (size_t i = first; i <= last; i++)
        runs[i - first] = (struct text_part){.end = i == last ? to - from : s->runs[i].end - from, .special = s->runs[i].special};
    sub->runs = runs;
    sub->n_runs = last - first + 1;
    return sub;
}

const struct jinja_str *jinja_str_concat(struct jinja *j, const struct jinja_str *a, const struct jinja_str *b)
{
    struct jinja_text *t = a->text;
    struct jinja_str *s;

    if (a->len == 0)
        return jinja_str_markup(j, b, a->markup);
    if (b->len == 0)
        return a;
    if (!t || t->len != a->len || t->cap - t->len < b->len) { /* else a is all of t: go on there */
        size_t need = a->len + b->len + (t ? a->len : 0);     /* a second concatenation makes a third one likely */
        if (!(t = jinja_alloc(j, 1, sizeof *t)))
            return NULL;
        *t = (struct jinja_text){.cap = need};
        if (jinja_charge_bytes(j, a->len) != 0 || !(t->data = arena_alloc(&j->arena, need, j->err)))
            return NULL;
        jinja_text_str(j, t, a);
    }
    jinja_text_str(j, t, b);
    if (jinja_charge_bytes(j, b->len) != 0 || t->failed || !(s = jinja_alloc(j, 1, sizeof *s)))
        return NULL;
    *s = (struct jinja_str){.s = t->data, .len = t->len, .n_chars = SIZE_MAX, .markup = a->markup, .text = t};
    if (t->n_runs == 1) {
        s->special = t->runs[0].special;
    } else {
        s->runs = t->runs;
        s->n_runs = t->n_runs;
    }
    return s;
}

const struct jinja_str *jinja_str_markup(struct jinja *j, const struct jinja_str *s, bool markup)
{
    struct jinja_str *copy;
    if (s->markup == markup)
        return s;
    if (!(copy = jinja_alloc(j, 1, sizeof *copy)))
        return NULL;
    *copy = *s;
    copy->markup = markup;
    return copy;
}

bool jinja_str_equal(const struct jinja_str *a, const struct jinja_str *b)
{
    return a == b || (a->len == b->len && memcmp(a->s, b->s, a->len) == 0);
}

bool jinja_str_is(const struct jinja_str *a, const char *b)
{
    return a->len == strlen(b) && memcmp(a->s, b, a->len) == 0;
}

/* -1, 0 or 1. UTF-8 sorts as its code points do. */
int jinja_str_compare(const struct jinja_str *a, const struct jinja_str *b)
{
    int c = memcmp(a->s, b->s, a->len < b->len ? a->len : b->len);
    return c ? (c < 0 ? -1 : 1) : a->len < b->len ? -1 : a->len > b->len;
}

size_t jinja_str_chars(const struct jinja_str *s)
{
    size_t n = 0;
    if (s->n_chars != SIZE_MAX)
        return s->n_chars;
    for (size_t i = 0; i < s->len; i++)
        n += ((unsigned char)s->s[i] & 0xC0) != 0x80;
    return n;
}

size_t jinja_str_offset(const struct jinja_str *s, size_t index)
{
    size_t i = 0;
    if (s->n_chars == s->len)
        return index;
    while (index > 0 && i < s->len) {
        i++;
        while (i < s->len && ((unsigned char)s->s[i] & 0xC0) == 0x80)
            i++;
        index--;
    }
    return i;
}

size_t jinja_str_index(const struct jinja_str *s, size_t offset)
{
    size_t n = 0;
    if (s->n_chars == s->len)
        return offset;
    for (size_t i = 0; i < offset; i++)
        n += ((unsigned char)s->s[i] & 0xC0) != 0x80;
    return n;
}

bool jinja_str_special_at(const struct jinja_str *s, size_t offset)
{
    return s->n_runs ? s->runs[run_at(s, offset)].special : s->special;
}

size_t jinja_str_find(const struct jinja_str *s, const struct jinja_str *needle, size_t from, size_t to)
{
    const char *hit;
    if (from > to || needle->len > to - from)
        return SIZE_MAX;
    if (needle->len == 0)
        return from;
    hit = memmem(s->s + from, to - from, needle->s, needle->len);
    return hit ? (size_t)(hit - s->s) : SIZE_MAX;
}
