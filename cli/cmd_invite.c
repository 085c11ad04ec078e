/* stagecoach invite: a token with which one more node joins. */
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/command.h"
#include "cli/control.h"
#include "cli/keydir.h"
#include "cli/ui.h"
#include "proto/invite.h"

struct values {
    const char *keys;
    struct opt_list addresses;
    int64_t minutes;
};

enum { SERVER_WAIT_S = 5, MINUTES_MAX = INVITE_MAX_SECONDS / 60 };

static const struct opt options[] = {
    {"address", 'a', OPT_LIST, .arg = "ADDRESS", .offset = offsetof(struct values, addresses),
     .help = "Where the coordinator listens, as the new node reaches it: tcp://HOST:PORT; given several times, they are tried in order (default: where your running server lets workers join)"},
    {"minutes", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, minutes), .min = 1, .max = MINUTES_MAX, .def = "60",
     .help = "How long it is good"},
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, keys), .help = "Folder of the coordinator's keys (default: ~/.config/stagecoach)"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach invite", "A token for one node, good for an hour, while \"stagecoach serve --join-listen tcp://0.0.0.0:7100\" runs here."},
    {"stagecoach invite --address tcp://192.168.1.10:7100", "The same where others reach this machine by that address only."},
    {"stagecoach worker --join TOKEN", "On the new node: registers its key, then works."},
    {0},
};

/* Addresses as others may reach them. */
struct addresses {
    char text[INVITE_MAX_ADDRESSES][MSG_MAX_ADDRESS + 1];
    const char *items[INVITE_MAX_ADDRESSES];
    size_t n;
};

static void add(struct addresses *a, const char *host, const char *port)
{
    if (a->n == INVITE_MAX_ADDRESSES || snprintf(a->text[a->n], sizeof a->text[a->n], "tcp://%s:%s", host, port) >= (int)sizeof a->text[a->n])
        return;
    a->items[a->n] = a->text[a->n];
    a->n++;
}

/* Every address that this machine has in its networks, of one family: link-local ones of IPv6 mean nothing elsewhere. */
static void add_family(struct addresses *a, const struct ifaddrs *list, int family, const char *port)
{
    socklen_t size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    char host[64], in_brackets[sizeof host + 2];

    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != family || (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP) ||
            getnameinfo(i->ifa_addr, size, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0 || strchr(host, '%'))
            continue;
        snprintf(in_brackets, sizeof in_brackets, "[%s]", host);
        add(a, family == AF_INET6 ? in_brackets : host, port);
    }
}

/* "0.0.0.0" and "[::]" are every address of this machine: those of its networks, or where there is none loopback's. What listens at
 * "[::]" is reached by IPv4 as well, and that goes first: it is what most networks at home have. */
static void add_all(struct addresses *a, bool both, const char *port)
{
    struct ifaddrs *list = NULL;

    if (getifaddrs(&list) != 0)
        list = NULL;
    add_family(a, list, AF_INET, port);
    if (both)
        add_family(a, list, AF_INET6, port);
    freeifaddrs(list);
    if (a->n == 0)
        add(a, "127.0.0.1", port);
}

/* Where this user's running server lets workers join. */
static int of_server(struct addresses *a, struct err *err)
{
    struct control_server s;
    const char *port, *host;

    /* One that was started a moment ago, by the line before, may not have its file yet. */
    for (double until = ui_seconds() + SERVER_WAIT_S; control_find(NULL, &s, err) != 0; nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL))
        if (err->kind != ERR_NOT_FOUND || ui_seconds() >= until)
            return err_wrap(err, "no --address, and");
    if (!s.join[0])
        return err_set(err, ERR_USAGE, "the server at %s lets no workers join: start it with --join-listen tcp://0.0.0.0:7100, or give --address", s.url);
    host = s.join + strlen("tcp://");
    port = strrchr(s.join, ':') + 1;
    bool six = strncmp(host, "[::]:", 5) == 0;
    if (six || strncmp(host, "0.0.0.0:", 8) == 0 || strncmp(host, "*:", 2) == 0) {
        add_all(a, six, port);
        return 0;
    }
    snprintf(a->text[0], sizeof a->text[0], "%.*s", (int)sizeof a->text[0] - 1, s.join);
    a->items[0] = a->text[0];
    a->n = 1;
    return 0;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    char token[INVITE_MAX_TOKEN];
    struct addresses own = {.n = 0};
    struct keys *k = NULL;
    int rc;

    (void)parsed;
    if ((v->addresses.len == 0 && of_server(&own, err) != 0) || !(k = keydir_open(v->keys, NULL, err)))
        return -1;
    rc = invite_create(k, own.n ? own.items : v->addresses.items, own.n ? own.n : v->addresses.len, (uint64_t)v->minutes * 60, token, err);
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
             .synopsis = "[--address tcp://HOST:PORT] [OPTION]…",
             .description = "Run it where the coordinator runs (or with its folder of keys). The token holds the coordinator's address and public "
                            "key and a one-time secret; whoever has it can register one key until it expires, and do nothing else. Hand it over as "
                            "you would a password.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
