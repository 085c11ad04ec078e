/* stagecoach stop: tells a server of this user on this machine to end, and waits until it has. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "cli/command.h"
#include "cli/control.h"
#include "cli/ui.h"

enum { POLL_MS = 50 };

struct values {
    const char *url;
    bool now;
    int64_t timeout_s;
};

static const struct opt options[] = {
    {"url", 0, OPT_STRING, .arg = "URL", .offset = offsetof(struct values, url), .help = "Which, where several run"},
    {"now", 0, OPT_FLAG, .offset = offsetof(struct values, now), .help = "Do not let running answers end"},
    {"timeout", 0, OPT_INT, .arg = "SECONDS", .offset = offsetof(struct values, timeout_s), .min = 1, .max = 86400, .def = "60",
     .help = "How long to wait until it has ended"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach stop", "Ends your server once its running answers have ended."},
    {0},
};

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct control_server server, left;
    double until = ui_seconds() + (double)v->timeout_s;

    (void)parsed;
    if (control_find(v->url, &server, err) != 0)
        return -1;
    for (int i = 0; i < (v->now ? 2 : 1); i++)
        if (kill(server.pid, SIGTERM) != 0 && errno != ESRCH)
            return err_errno(err, errno, "telling the server at %s (process %ld) to stop", server.url, (long)server.pid);
    /* Its file goes with it. */
    while (control_find(server.url, &left, NULL) == 0 && left.pid == server.pid) {
        if (ui_seconds() >= until)
            return err_set(err, ERR_LIMIT, "the server at %s (process %ld) has not ended after %lld s", server.url, (long)server.pid,
                           (long long)v->timeout_s);
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    ui_say("The server at %s has ended.", server.url);
    return 0;
}

const struct command cmd_stop = {
    .opts = {.name = "stop",
             .summary = "End a server on this machine",
             .synopsis = "[--url URL] [--now]",
             .description =
                 "Tells a server that you started on this machine to take no more requests, to let running answers end (serve --grace), "
                 "and to end; waits until it has.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
