/* See log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

enum { LINE_MAX_BYTES = 2048, NAME_MAX_BYTES = 64 };

static enum log_level max_level = LOG_INFO;
static const char *program;

void log_init(enum log_level max, const char *name)
{
    max_level = max;
    program = name;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const words[] = {"error: ", "warning: ", "", "debug: "};
    if (level > max_level)
        return;
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof line, "%.*s%s%s", NAME_MAX_BYTES, program ? program : "", program ? ": " : "", words[level]);
    va_list args;
    va_start(args, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, args);
    va_end(args);
    size_t len = (size_t)n + (m < 0 ? 0 : (size_t)m);
    if (len > sizeof line - 2)
        len = sizeof line - 2;
    line[len] = '\0';
    err_clean(line, false); /* whatever it quotes: a line is a line */
    len = strlen(line);
    line[len++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, len); /* nobody is left to tell */
    (void)ignored;
}
