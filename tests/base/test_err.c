#include "base/err.h"

#include <errno.h>
#include <string.h>

#include "tests/tap.h"

int main(void)
{
    struct err err;
    err_clear(&err);
    is_int(err_set(&err, ERR_INPUT, "line %d: %s", 3, "bad"), -1, "err_set returns -1");
    is_str(err.text, "line 3: bad", "the text is formatted");
    is_int(err.kind, ERR_INPUT, "the kind is kept");
    err_wrap(&err, "file %s", "a.gguf");
    is_str(err.text, "file a.gguf: line 3: bad", "err_wrap puts the outer word in front");
    err_set(&err, ERR_IO, "again: %s", err.text);
    is_str(err.text, "again: file a.gguf: line 3: bad", "an argument may be the old text");
    err_errno(&err, ENOENT, "open");
    is_int(err.kind, ERR_NOT_FOUND, "ENOENT is not_found");
    has_str(err.text, "open: No such file", "errno's text is added");
    is_int(err_set(NULL, ERR_IO, "x"), -1, "NULL is allowed");
    err_wrap(NULL, "x");

    char text[1024];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memcpy(text + 506, "\xC3\xA4\xC3\xA4\xC3\xA4", 6);
    err_set(&err, ERR_INPUT, "%s", text);
    is_int(strlen(err.text), 511, "a long text is cut at a character's border");
    is_str(err.text + 508, "\xE2\x80\xA6", "and marked");
    for (int k = 0; k < ERR_KINDS; k++)
        ok(err_kind_name((enum err_kind)k) && (k == 0) == (err_exit_status((enum err_kind)k) == 0), "kind %d has a name and an exit status",
           k);

    char buf[16];
    is_str(err_printable(buf, sizeof buf, "a\x1b[31m\xff\xC3\xA4", 9), "a?[31m?\xC3\xA4",
           "control characters and bad bytes are shown as ?");
    is_str(err_printable(buf, sizeof buf, "0123456789abcdefgh", 18), "0123456789ab\xE2\x80\xA6", "cut with dots");
    is_str(err_printable(buf, sizeof buf,
                         "a\xE2\x80\xAE"
                         "b\xC2\x9B"
                         "c",
                         8),
           "a?b?c", "so are turns of direction and C1");
    err_set(&err, ERR_INPUT, "node \"%s\": %s", "\x1b]0;x\x07", "two\nlines \xC2\x9B \xff\xC3\xA4");
    is_str(err.text, "node \"?]0;x?\": two?lines ? ?\xC3\xA4", "what an error quotes is made printable");
    err_wrap(&err, "\x1b[2J");
    has_str(err.text, "?[2J: node", "and what is put in front");
    char lines[] = "a\n\tb\x1b"
                   "c\r";
    err_clean(lines, true);
    is_str(lines, "a\n\tb?c?", "line ends and tabs may stay");
    return tap_done();
}
