/* See err.h. The one table that gives an error kind its exit status and HTTP status stands here. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static const struct {
    const char *name;
    int exit_status;
    int http_status;
} kinds[ERR_KINDS] = {
    [ERR_NONE] = {"none", 0, 200},
    [ERR_USAGE] = {"usage", 2, 400},
    [ERR_INPUT] = {"input", 1, 400},
    [ERR_UNSUPPORTED] = {"unsupported", 1, 400},
    [ERR_NOT_FOUND] = {"not_found", 1, 404},
    [ERR_MEMORY] = {"memory", 1, 503},
    [ERR_IO] = {"io", 1, 500},
    [ERR_LIMIT] = {"limit", 1, 413},
    [ERR_BUSY] = {"busy", 1, 429},
    [ERR_CANCELLED] = {"cancelled", 1, 499},
    [ERR_INTERNAL] = {"internal", 1, 500},
    [ERR_AWAY] = {"away", 1, 503},
};

/* Marks a text that did not fit: drops a split UTF-8 character at the end and puts "…" there. */
static void mark_cut(char *text, size_t size)
{
    size_t end = size - 1 - 3;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80)
        end--;
    memcpy(text + end, "\xE2\x80\xA6", 4);
}

__attribute__((format(printf, 3, 0))) static void format(char *text, size_t size, const char *fmt, va_list args)
{
    int n = vsnprintf(text, size, fmt, args);
    if (n < 0)
        snprintf(text, size, "(message could not be formatted)");
    else if ((size_t)n >= size)
        mark_cut(text, size);
    err_clean(text, false);
}

int err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
{
    if (!err)
        return -1;
    char text[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    format(text, sizeof text, fmt, args);
    va_end(args);
    err->kind = kind;
    memcpy(err->text, text, sizeof text); /* by way of a copy: an argument may be the old text */
    return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    if (!err)
        return -1;
    char prefix[sizeof err->text], text[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    format(prefix, sizeof prefix, fmt, args);
    va_end(args);
    int n = snprintf(text, sizeof text, "%s: %s", prefix, err->text);
    if (n >= (int)sizeof text)
        mark_cut(text, sizeof text);
    memcpy(err->text, text, sizeof text);
    return -1;
}

static enum err_kind kind_of_errno(int e)
{
    switch (e) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case ENOMEM:
        return ERR_MEMORY;
    case EFBIG:
    case ENAMETOOLONG:
        return ERR_LIMIT;
    default:
        return ERR_IO;
    }
}

int err_errno(struct err *err, int errno_value, const char *fmt, ...)
{
    if (!err)
        return -1;
    char prefix[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    format(prefix, sizeof prefix, fmt, args);
    va_end(args);
    return err_set(err, kind_of_errno(errno_value), "%s: %s", prefix, strerror(errno_value));
}

void err_clear(struct err *err)
{
    if (!err)
        return;
    err->kind = ERR_NONE;
    err->text[0] = '\0';
}

const char *err_kind_name(enum err_kind kind)
{
    return (unsigned)kind < ERR_KINDS ? kinds[kind].name : "unknown";
}

int err_exit_status(enum err_kind kind)
{
    return (unsigned)kind < ERR_KINDS ? kinds[kind].exit_status : 1;
}

int err_http_status(enum err_kind kind)
{
    return (unsigned)kind < ERR_KINDS ? kinds[kind].http_status : 500;
}

/* Bytes of the character at s (len > 0); *ret_bad: it is none to be shown. */
static size_t next_shown(const char *s, size_t len, bool *ret_bad)
{
    uint32_t c = 0;
    size_t n = utf8_decode(s, len, &c);
    *ret_bad = n == 0 || c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
    return n ? n : 1;
}

const char *err_printable(char *buf, size_t buf_size, const char *text, size_t len)
{
    size_t out = 0;
    bool bad;
    for (size_t i = 0, n; i < len; i += n) {
        n = next_shown(text + i, len - i, &bad);
        if (out + (bad ? 1 : n) + 4 > buf_size) { /* room for "…" and the end */
            if (out + 4 <= buf_size)
                memcpy(buf + out, "\xE2\x80\xA6", 3), out += 3;
            break;
        }
        if (bad)
            buf[out++] = '?';
        else
            memcpy(buf + out, text + i, n), out += n;
    }
    buf[out] = '\0';
    return buf;
}

void err_clean(char *text, bool lines)
{
    size_t len = strlen(text), out = 0;
    bool bad;
    for (size_t i = 0, n; i < len; i += n) {
        n = next_shown(text + i, len - i, &bad);
        if (bad && !(lines && (text[i] == '\n' || text[i] == '\t')))
            text[out++] = '?';
        else
            memmove(text + out, text + i, n), out += n;
    }
    text[out] = '\0';
}
