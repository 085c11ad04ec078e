/* stagecoach replan, stagecoach drain: orders to a running server about its cluster. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/control.h"
#include "cli/ui.h"

enum { FOR_MAX_S = 30 * 86400 };

struct values {
    struct control_options control;
    const char *duration;
};

static const struct opt drain_options[] = {
    {"for", 0, OPT_STRING, .arg = "TIME", .offset = offsetof(struct values, duration),
     .help = "Take it back after so long: 90s, 45m, 3h, 2d (default: never)"},
    {0},
};
static const struct opt_group replan_groups[] = {{"Options", control_option_table, offsetof(struct values, control)}, {0}};
static const struct opt_group drain_groups[] = {{"Options", drain_options, 0}, {"Server", control_option_table, offsetof(struct values, control)}, {0}};
static const struct opt_example replan_examples[] = {
    {"stagecoach replan", "Plans anew with all nodes that are there, such as one that has just joined."},
    {0},
};
static const struct opt_example drain_examples[] = {
    {"stagecoach drain attic", "attic computes no more, and can be switched off."},
    {"stagecoach drain attic --for 3h", "For three hours; then it may be used again."},
    {"stagecoach drain attic --for 1s", "Takes back that it was drained."},
    {0},
};

static int order(const struct values *v, const char *path, const char *body, struct control_server *ret, struct err *err)
{
    char *reply;

    if (control_pick(&v->control, ret, err) != 0 || !(reply = control_ask(ret, path, body, err)))
        return -1;
    free(reply);
    return 0;
}

static int replan(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct control_server server;

    (void)parsed;
    if (order(values, "/v1/cluster/replan", "{}", &server, err) != 0)
        return -1;
    ui_say("The server at %s plans anew; \"stagecoach status\" shows what comes of it.", server.url);
    return 0;
}

/* "90s", "45m", "3h", "2d"; -1 and err. */
static int seconds_of(const char *text, int64_t *ret, struct err *err)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end, shown[64];
    double n = strtod(text, &end);

    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (end != text && end[0] == units[i].unit && end[1] == '\0' && n * (double)units[i].seconds >= 1 &&
            n * (double)units[i].seconds <= FOR_MAX_S) {
            *ret = (int64_t)(n * (double)units[i].seconds);
            return 0;
        }
    return err_set(err, ERR_USAGE, "--for: \"%s\" is no time from 1s to 30d, such as 90s, 45m, 3h or 2d", err_printable(shown, sizeof shown, text, strlen(text)));
}

static int drain(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    const char *node = parsed->args[0];
    struct control_server server;
    int64_t seconds = 0;

    if (v->duration && seconds_of(v->duration, &seconds, err) != 0)
        return -1;
    json_t *o = json_pack("{s:s, s:I}", "node", node, "seconds", (json_int_t)seconds);
    char *body = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!body)
        return err_set(err, ERR_USAGE, "the node's name is no UTF-8");
    int rc = order(v, "/v1/cluster/drain", body, &server, err);
    free(body);
    if (rc == 0)
        ui_say("%s is taken out%s%s; answers go on without it.", node, v->duration ? " for " : "", v->duration ? v->duration : "");
    return rc;
}

const struct command cmd_replan = {
    .opts = {.name = "replan",
             .summary = "Let a server divide the model among its nodes anew",
             .synopsis = "[--url URL]",
             .description = "A server plans when it starts, when it loses a node, and when nobody asks it anything for a second after one has joined. "
                            "This makes it plan now. Running answers wait meanwhile, and go on with the same tokens.",
             .groups = replan_groups,
             .examples = replan_examples},
    .values_bytes = sizeof(struct values),
    .run = replan,
};

const struct command cmd_drain = {
    .opts = {.name = "drain",
             .summary = "Take a node out of a running cluster, for good or for a while",
             .synopsis = "NODE [--for TIME]",
             .description = "The server plans without the node, and frees its memory; running answers go on with the same tokens. Where the model does "
                            "not fit without it, they wait for another node as long as serve --recover-timeout allows.",
             .groups = drain_groups,
             .min_args = 1,
             .max_args = 1,
             .examples = drain_examples},
    .values_bytes = sizeof(struct values),
    .run = drain,
};
