#include "base/utf8.h"

#include <string.h>

#include "tests/tap.h"

int main(void)
{
    bool same = true;
    char buf[4];
    uint32_t back;
    for (uint32_t c = 0; c <= 0x110000; c++) {
        size_t n = utf8_encode(c, buf);
        if ((c >= 0xD800 && c < 0xE000) || c > 0x10FFFF)
            same &= n == 0;
        else
            same &= n && utf8_decode(buf, n, &back) == n && back == c && (n == 1 || utf8_len(buf, n - 1) == 0);
    }
    ok(same, "every code point there and back");
    static const char *const bad[] = {"\x80",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x80\x80",
                                      "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                      "\xC3(",        "\xE2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(utf8_len(bad[i], strlen(bad[i])), 0, "malformed %zu", i);
    is_int(utf8_complete("a\xE2\x82", 3), 1, "a begun character waits");
    is_int(utf8_complete("a\xE2\x82\xAC", 4), 4, "a whole one does not");
    is_int(utf8_complete("a\xF0\x9F\x99", 4), 1, "three of four bytes wait");
    is_int(utf8_complete("a\x82\x82", 3), 3, "stray bytes do not");
    is_int(utf8_complete("a\xE0\x80", 3), 3, "what can never become a character does not");
    is_int(utf8_complete("", 0), 0, "nothing");
    return tap_done();
}
