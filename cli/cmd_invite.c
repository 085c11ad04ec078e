/* stagecoach invite: a token with which one more node joins. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/keydir.h"
#include "cli/ui.h"
#include "proto/invite.h"

struct values {
    const char *keys;
    struct opt_list addresses;
    int64_t minutes;
};

enum { MINUTES_MAX = INVITE_MAX_SECONDS / 60 };

static const struct opt options[] = {
    {"address", 'a', OPT_LIST, .required = true, .arg = "ADDRESS", .offset = offsetof(struct values, addresses),
     .help = "Where the coordinator listens, as the new node reaches it: tcp://HOST:PORT; given several times, they are tried in order"},
    {"minutes", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, minutes), .min = 1, .max = MINUTES_MAX, .def = "60",
     .help = "How long it is good"},
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, keys), .help = "Folder of the coordinator's keys (default: ~/.config/stagecoach)"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach invite --address tcp://192.168.1.10:7100", "A token for one node, good for an hour."},
    {"stagecoach worker --join TOKEN", "On the new node: registers its key, then works."},
    {0},
};

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    char token[INVITE_MAX_TOKEN];
    struct keys *k = keydir_open(v->keys, NULL, err);
    int rc;

    (void)parsed;
    if (!k)
        return -1;
    rc = invite_create(k, v->addresses.items, v->addresses.len, (uint64_t)v->minutes * 60, token, err);
    if (rc == 0) {
        ui_outf("%s\n", token);
        ui_say("For one node, for %" PRId64 " minutes, while the coordinator runs. There: stagecoach worker --join TOKEN", v->minutes);
    }
    keys_close(k);
    return rc;
}

const struct command cmd_invite = {
    .opts = {.name = "invite",
             .summary = "Print a token with which one more node can join",
             .synopsis = "--address tcp://HOST:PORT [OPTION]…",
             .description = "Run it where the coordinator runs (or with its folder of keys). The token holds the coordinator's address and public "
                            "key and a one-time secret; whoever has it can register one key until it expires, and do nothing else. Hand it over as "
                            "you would a password.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
