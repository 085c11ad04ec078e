/* See columns.h. The ranges follow Unicode's East Asian Width (W, F) and general categories (Mn, Me, Cf), without the rare
 * scripts. */
#include "cli/columns.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/utf8.h"

struct range {
    uint32_t first, last;
};

static bool within(uint32_t c, const struct range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

static unsigned char_columns(uint32_t c)
{
    static const struct range none[] = {{0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x064B, 0x065F}, {0x093C, 0x093C},
                                        {0x0941, 0x0948}, {0x094D, 0x094D}, {0x0E31, 0x0E31}, {0x0E34, 0x0E3A}, {0x0E47, 0x0E4E},
                                        {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF}, {0x200B, 0x200F}, {0x202A, 0x202E}, {0x2060, 0x2064},
                                        {0x20D0, 0x20FF}, {0x3099, 0x309A}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF},
                                        {0x1F3FB, 0x1F3FF}, {0xE0000, 0xE01EF}};
    static const struct range two[] = {{0x1100, 0x115F}, {0x231A, 0x231B}, {0x23E9, 0x23EC}, {0x2614, 0x2615}, {0x2648, 0x2653},
                                       {0x26A1, 0x26A1}, {0x26BD, 0x26BE}, {0x2705, 0x2705}, {0x2728, 0x2728}, {0x274C, 0x274C},
                                       {0x2753, 0x2755}, {0x2757, 0x2757}, {0x2795, 0x2797}, {0x2B50, 0x2B50}, {0x2E80, 0x303E},
                                       {0x3041, 0x33FF}, {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xA000, 0xA4CF}, {0xA960, 0xA97F},
                                       {0xAC00, 0xD7A3}, {0xF900, 0xFAFF}, {0xFE30, 0xFE6F}, {0xFF00, 0xFF60}, {0xFFE0, 0xFFE6},
                                       {0x1F004, 0x1F004}, {0x1F18E, 0x1F18E}, {0x1F191, 0x1F19A}, {0x1F200, 0x1F320}, {0x1F32D, 0x1F335},
                                       {0x1F337, 0x1F37C}, {0x1F37E, 0x1F393}, {0x1F3A0, 0x1F3CA}, {0x1F3E0, 0x1F3F0}, {0x1F3F8, 0x1F43E},
                                       {0x1F440, 0x1F440}, {0x1F442, 0x1F4FC}, {0x1F4FF, 0x1F53D}, {0x1F54B, 0x1F567}, {0x1F5FB, 0x1F64F},
                                       {0x1F680, 0x1F6C5}, {0x1F6D0, 0x1F6D2}, {0x1F6EB, 0x1F6EC}, {0x1F6F4, 0x1F6FC}, {0x1F7E0, 0x1F7EB},
                                       {0x1F90C, 0x1F9FF}, {0x1FA70, 0x1FAFF}, {0x20000, 0x3FFFD}};

    if (c < 0x300)
        return 1;
    if (within(c, none, sizeof none / sizeof *none))
        return 0;
    return within(c, two, sizeof two / sizeof *two) ? 2 : 1;
}

size_t columns_next(const char *s, size_t len, unsigned *ret_columns)
{
    uint32_t c = 0;
    size_t n = utf8_decode(s, len, &c);

    if (c == 0x1B && len > 1 && s[1] == '[') {
        for (n = 2; n < len && (s[n] < '@' || s[n] > '~'); n++)
            ;
        *ret_columns = 0;
        return n < len ? n + 1 : len;
    }
    *ret_columns = n ? char_columns(c) : 1;
    return n ? n : 1;
}

unsigned columns_of(const char *s, size_t len)
{
    unsigned all = 0, one;
    for (size_t at = 0; at < len; all += one)
        at += columns_next(s + at, len - at, &one);
    return all;
}
