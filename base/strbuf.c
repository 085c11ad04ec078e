/* See strbuf.h. */
#include "base/strbuf.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

void strbuf_init(struct strbuf *sb, size_t max)
{
    *sb = (struct strbuf){.max = max};
}

void strbuf_fini(struct strbuf *sb)
{
    free(sb->data);
    *sb = (struct strbuf){.max = sb->max};
}

void strbuf_clear(struct strbuf *sb)
{
    sb->len = 0;
    sb->failed = false;
    if (sb->data)
        sb->data[0] = '\0';
}

static bool reserve(struct strbuf *sb, size_t extra)
{
    size_t need;
    if (sb->failed)
        return false;
    if (!mem_add(sb->len, extra, &need) || need > sb->max || need == SIZE_MAX ||
        mem_grow(&sb->data, &sb->cap, need + 1, 1, SIZE_MAX, "text", NULL) != 0) {
        sb->failed = true;
        return false;
    }
    return true;
}

void strbuf_add(struct strbuf *sb, const char *s, size_t len)
{
    if (!reserve(sb, len))
        return;
    if (len)
        memcpy(sb->data + sb->len, s, len);
    sb->len += len;
    sb->data[sb->len] = '\0';
}

void strbuf_puts(struct strbuf *sb, const char *s)
{
    strbuf_add(sb, s, strlen(s));
}

void strbuf_putc(struct strbuf *sb, char c)
{
    strbuf_add(sb, &c, 1);
}

void strbuf_vprintf(struct strbuf *sb, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        sb->failed = true;
        return;
    }
    if (!reserve(sb, (size_t)n))
        return;
    vsnprintf(sb->data + sb->len, (size_t)n + 1, fmt, args);
    sb->len += (size_t)n;
}

void strbuf_printf(struct strbuf *sb, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    strbuf_vprintf(sb, fmt, args);
    va_end(args);
}

void strbuf_json(struct strbuf *sb, const char *s, size_t len)
{
    static const char escapes[0x20] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    strbuf_putc(sb, '"');
    for (size_t i = 0; i < len;) {
        size_t n = utf8_len(s + i, len - i);
        unsigned char c = (unsigned char)s[i];
        if (n == 0)
            strbuf_puts(sb, "\xEF\xBF\xBD");
        else if (c == '"' || c == '\\')
            strbuf_printf(sb, "\\%c", c);
        else if (c < 0x20 && escapes[c])
            strbuf_printf(sb, "\\%c", escapes[c]);
        else if (c < 0x20 || c == 0x7F || (n == 2 && c == 0xC2 && (unsigned char)s[i + 1] < 0xA0)) /* the latter two for terminals' sake */
            strbuf_printf(sb, "\\u%04x", n == 2 ? (unsigned char)s[i + 1] : c);
        else
            strbuf_add(sb, s + i, n);
        i += n ? n : 1;
    }
    strbuf_putc(sb, '"');
}

int strbuf_check(const struct strbuf *sb, const char *what, struct err *err)
{
    if (!sb->failed)
        return 0;
    return err_set(err, ERR_LIMIT, "%s: longer than the %zu bytes allowed, or out of memory", what, sb->max);
}

const char *strbuf_str(const struct strbuf *sb)
{
    return sb->data ? sb->data : "";
}
