/* See utf8.h. */
#include "base/utf8.h"

#include <stdbool.h>

/* The length a first byte promises, 0 if it cannot be first. */
static size_t promised(unsigned char c)
{
    return c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
}

/* Whether byte i (1 to 3) may follow, given the first byte: the second one carries RFC 3629's extra bounds. */
static bool may_follow(unsigned char first, size_t i, unsigned char c)
{
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
        low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : low;
        high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : high;
    }
    return c >= low && c <= high;
}

size_t utf8_len(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t len = promised(u[0]);
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if (!may_follow(u[0], i, u[i]))
            return 0;
    return len;
}

size_t utf8_decode(const char *s, size_t n, uint32_t *ret)
{
    static const unsigned char first_mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const unsigned char *u = (const unsigned char *)s;
    size_t len = utf8_len(s, n);
    uint32_t c = u[0] & first_mask[len];
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (u[i] & 0x3Fu);
    if (len)
        *ret = c;
    return len;
}

size_t utf8_encode(uint32_t c, char *buf)
{
    if (c < 0x80) {
        buf[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        buf[0] = (char)(0xC0 | c >> 6);
        buf[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        if (c >= 0xD800 && c < 0xE000)
            return 0;
        buf[0] = (char)(0xE0 | c >> 12);
        buf[1] = (char)(0x80 | (c >> 6 & 0x3F));
        buf[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    if (c > 0x10FFFF)
        return 0;
    buf[0] = (char)(0xF0 | c >> 18);
    buf[1] = (char)(0x80 | (c >> 12 & 0x3F));
    buf[2] = (char)(0x80 | (c >> 6 & 0x3F));
    buf[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t utf8_complete(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = u[n - back];
        if ((c & 0xC0) == 0x80)
            continue;
        if (promised(c) <= back)
            return n;
        for (size_t i = 1; i < back; i++)
            if (!may_follow(c, i, u[n - back + i]))
                return n;
        return n - back;
    }
    return n;
}
