#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

static char seen[8192];

/* What the given call wrote to stderr. */
#define SEEN(call) (begin(), (call), end())

static int saved, ends[2];

static void begin(void)
{
    saved = dup(STDERR_FILENO);
    if (pipe(ends) != 0 || dup2(ends[1], STDERR_FILENO) < 0)
        tap_skip_all("no pipes here");
    close(ends[1]);
}

static const char *end(void)
{
    dup2(saved, STDERR_FILENO); /* closes the pipe's last writing end */
    close(saved);
    size_t n = 0;
    for (ssize_t m; n < sizeof seen - 1 && (m = read(ends[0], seen + n, sizeof seen - 1 - n)) > 0;)
        n += (size_t)m;
    close(ends[0]);
    seen[n] = '\0';
    return seen;
}

int main(void)
{
    char text[5000];
    is_str(SEEN(log_line(LOG_INFO, "loaded %d layers", 3)), "loaded 3 layers\n", "a plain line");
    is_str(SEEN(log_line(LOG_DEBUG, "x")), "", "debug lines are dropped at first");
    log_init(LOG_WARN, "gpu2");
    is_str(SEEN(log_line(LOG_ERROR, "no memory")), "gpu2: error: no memory\n", "name and level stand in front");
    is_str(SEEN(log_line(LOG_WARN, "slow")), "gpu2: warning: slow\n", "a warning");
    is_str(SEEN(log_line(LOG_INFO, "x")), "", "above the maximum: dropped");
    is_str(SEEN(log_line(LOG_ERROR, "%s", "a\x1b[2Jb\nforged: \xff")), "gpu2: error: a?[2Jb?forged: ?\n",
           "what is quoted moves no cursor and makes no lines");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    SEEN(log_line(LOG_ERROR, "%s", text));
    ok(strlen(seen) < 2048 && seen[strlen(seen) - 1] == '\n', "a long text is cut to one line of %zu bytes", strlen(seen));
    log_init(LOG_DEBUG, text);
    SEEN(log_line(LOG_DEBUG, "the text"));
    ok(strlen(seen) < 2048 && strstr(seen, "debug: the text\n"), "a long name leaves room for the text");
    return tap_done();
}
