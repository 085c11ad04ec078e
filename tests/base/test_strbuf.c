#include "base/strbuf.h"

#include <string.h>

#include "tests/tap.h"

int main(void)
{
    struct strbuf sb;
    struct err err;
    strbuf_init(&sb, 64);
    is_str(strbuf_str(&sb), "", "empty at first");
    strbuf_puts(&sb, "a");
    strbuf_printf(&sb, "%d-%s", 12, "bc");
    is_str(strbuf_str(&sb), "a12-bc", "appends");
    strbuf_clear(&sb);
    strbuf_json(&sb, "q\" b\\ n\n t\t \x01 \xC3\xA4 \xFF", 18);
    is_str(strbuf_str(&sb), "\"q\\\" b\\\\ n\\n t\\t \\u0001 \xC3\xA4 \xEF\xBF\xBD\"", "JSON escapes");
    is_int(strbuf_check(&sb, "x", &err), 0, "no failure");
    for (int i = 0; i < 20; i++)
        strbuf_puts(&sb, "0123456789");
    ok(sb.failed && sb.len <= 64, "the limit holds");
    is_int(strbuf_check(&sb, "answer", &err), -1, "and is told");
    has_str(err.text, "answer", "with the name");
    strbuf_fini(&sb);
    return tap_done();
}
