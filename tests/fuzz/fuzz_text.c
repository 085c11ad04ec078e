/* base/: whatever bytes come, what is shown to people and what goes into JSON is well-formed. Also the example of a fuzz
 * target: what must hold is checked with abort(), which libFuzzer and the replay both report with the input. */
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "base/utf8.h"

static void must(int cond)
{
    if (!cond)
        abort();
}

/* Some bytes behind these make one character of them. */
static int can_be_completed(const char *s, size_t n)
{
    for (int second = 0x80; second < 0xC0; second += 0x10) {
        char buf[8] = {0};
        memcpy(buf, s, n);
        memset(buf + n, 0x80, 3);
        buf[n] = (char)second;
        if (utf8_len(buf, n + 3) > n)
            return 1;
    }
    return 0;
}

/* Cutting a text anywhere never loses or invents a character. */
static void check_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char back[4];
        size_t len = utf8_decode(s + i, n - i, &c);
        must(len <= 4 && len == utf8_len(s + i, n - i));
        must(len == 0 || (utf8_encode(c, back) == len && memcmp(back, s + i, len) == 0));
        i += len ? len : 1;
    }
    size_t whole = utf8_complete(s, n);
    must(whole <= n && n - whole <= 3 && (whole == n || utf8_len(s + whole, n - whole) == 0));
    must(whole == n || can_be_completed(s + whole, n - whole));
}

static void check_printable(const char *s, size_t n)
{
    char buf[64];
    size_t size = 8 + n % (sizeof buf - 8);
    err_printable(buf, size, s, n);
    size_t len = strlen(buf);
    must(len < size);
    for (size_t i = 0; i < len;) {
        size_t width = utf8_len(buf + i, len - i);
        must(width > 0 && (unsigned char)buf[i] >= 0x20 && buf[i] != 0x7F);
        i += width;
    }
    struct err err;
    err_set(&err, ERR_INPUT, "%.*s: %s", (int)(n > 2000 ? 2000 : n), s, buf);
    err_wrap(&err, "%s", err.text);
    must(strlen(err.text) < sizeof err.text);
}

/* Jansson reads what strbuf_json wrote, and where the text was UTF-8 it reads the same. */
static void check_json(const char *s, size_t n)
{
    struct strbuf sb;
    json_error_t error;
    size_t valid = 0, width;
    while (valid < n && (width = utf8_len(s + valid, n - valid)) > 0)
        valid += width;
    strbuf_init(&sb, 8 * n + 2);
    strbuf_json(&sb, s, n);
    must(strbuf_check(&sb, "json", NULL) == 0);
    json_t *value = json_loadb(sb.data, sb.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    must(json_is_string(value));
    must(valid < n || (json_string_length(value) == n && memcmp(json_string_value(value), s, n) == 0));
    json_decref(value);
    strbuf_fini(&sb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *s = malloc(size + 1); /* 0-terminated: err_set's %.*s stops there, too */
    if (!s)
        return 0;
    if (size)
        memcpy(s, data, size);
    s[size] = '\0';
    check_utf8(s, size);
    check_printable(s, size);
    check_json(s, size);
    free(s);
    return 0;
}
