/* See unicode.h. */
#include "text/unicode.h"

#include <stdbool.h>

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool is_han(uint32_t c)
{
    return (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2EBEF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static unsigned char class_of(uint32_t c, enum unicode_group group)
{
    static const unsigned char classes[] = {CLASS_OTHER, CLASS_NUMBER, CLASS_LETTER, CLASS_PUNCTUATION, CLASS_MARK, CLASS_SYMBOL};
    if (c < 0x80)
        return (unsigned char)c;
    if (is_space(c))
        return '\v';
    if (is_han(c))
        return group == GROUP_LETTER ? CLASS_HAN : CLASS_HAN_UNASSIGNED;
    return classes[group];
}

unsigned char unicode_class_of(uint32_t c)
{
    size_t low = 0, high = unicode_n_ranges; /* the range begins in [low, high) */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (unicode_ranges[middle] >> 4 <= c)
            low = middle;
        else
            high = middle;
    }
    return class_of(c, unicode_ranges[low] & 15);
}

void unicode_fill_bmp(unsigned char classes[UNICODE_BMP])
{
    size_t range = 0;
    for (uint32_t c = 0; c < UNICODE_BMP; c++) {
        if (range + 1 < unicode_n_ranges && unicode_ranges[range + 1] >> 4 == c)
            range++;
        classes[c] = class_of(c, unicode_ranges[range] & 15);
    }
}
