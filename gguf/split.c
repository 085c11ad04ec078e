/* See split.h. */
#include "gguf/split.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { DIGITS = 5, SUFFIX_BYTES = 1 + DIGITS + 4 + DIGITS + 5 }; /* "-00002-of-00005.gguf" */

static bool parse_digits(const char *s, uint32_t *ret)
{
    uint32_t n = 0;
    for (int i = 0; i < DIGITS; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        n = n * 10 + (uint32_t)(s[i] - '0');
    }
    *ret = n;
    return true;
}

bool gguf_split_parse(const char *path, uint32_t *ret_split, uint32_t *ret_count, size_t *ret_prefix_len)
{
    size_t len = strlen(path);
    uint32_t split, count;
    if (len < SUFFIX_BYTES)
        return false;
    const char *s = path + len - SUFFIX_BYTES;
    if (s[0] != '-' || !parse_digits(s + 1, &split) || memcmp(s + 1 + DIGITS, "-of-", 4) != 0 ||
        !parse_digits(s + 1 + DIGITS + 4, &count) || strcmp(s + 1 + DIGITS + 4 + DIGITS, ".gguf") != 0)
        return false;
    if (split == 0 || split > count)
        return false;
    *ret_split = split - 1;
    *ret_count = count;
    *ret_prefix_len = len - SUFFIX_BYTES;
    return true;
}

char *gguf_split_format(const char *prefix, size_t prefix_len, uint32_t split, uint32_t count, struct err *err)
{
    char *path = mem_new(prefix_len + SUFFIX_BYTES + 16, 1, err);
    if (!path)
        return NULL;
    memcpy(path, prefix, prefix_len);
    snprintf(path + prefix_len, SUFFIX_BYTES + 16, "-%05u-of-%05u.gguf", (unsigned)split + 1, (unsigned)count);
    return path;
}
