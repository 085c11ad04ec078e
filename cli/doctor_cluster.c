/* See doctor.h: what has to do with others. */
#include "config.h"

#include "cli/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/strbuf.h"
#include "cli/control.h"
#include "cli/keydir.h"
#include "cli/program.h"
#include "cli/settings.h"
#include "cli/ui.h"
#include "topology/topology.h"

enum { CONNECT_MS = 3000, SLOW_MBIT = 1000, TEXT_BYTES = 1024 };
extern char **environ;

/* --- keys and settings --------------------------------------------------- */

static struct keys *keys(struct doctor *d)
{
    char path[KEYDIR_PATH], secret[KEYDIR_PATH + 16];
    struct err err;
    struct keys *k;

    if (keydir_find(d->keys, path, &err) != 0) {
        doctor_note(d, "keys", DOCTOR_FAIL, "set HOME, or give --keys DIR", "%s", err.text);
        return NULL;
    }
    snprintf(secret, sizeof secret, "%s/node.secret", path);
    if (access(secret, F_OK) != 0) {
        doctor_note(d, "keys", DOCTOR_PASS, NULL, "%.300s holds none yet: they are made on first use", path);
        return NULL;
    }
    if (!(k = keys_open(path, NULL, &err)) || keys_check(k, &err) != 0)
        doctor_note(d, "keys", DOCTOR_FAIL, "do what it says", "%s", err.text);
    else
        doctor_note(d, "keys", DOCTOR_PASS, NULL, "%.300s: this node is %s, and trusts %zu other%s", path, keys_name(k), keys_count(k),
                    keys_count(k) == 1 ? "" : "s");
    return k;
}

/* Whether an option of any command is set by this variable. */
static bool is_option(const char *variable, size_t len)
{
    for (size_t i = 0; i < program.n_commands; i++)
        for (const struct opt_group *g = program.commands[i]->groups; g && g->title; g++)
            for (const struct opt *o = g->opts; o->name; o++)
                for (int all = 0; all < 2; all++) {
                    char name[128];
                    settings_variable(all ? NULL : program.commands[i]->name, o->name, name, sizeof name);
                    if (strlen(name) == len && strncmp(name, variable, len) == 0)
                        return true;
                }
    return false;
}

static void variables(struct doctor *d)
{
    static const char *const others[] = {"STAGECOACH_CONFIG", "STAGECOACH_CACHE", "STAGECOACH_COLOR"};
    struct strbuf odd;
    unsigned n = 0;

    strbuf_init(&odd, TEXT_BYTES);
    for (char **e = environ; *e; e++) {
        size_t len = strcspn(*e, "=");
        bool known = strncmp(*e, "STAGECOACH_", 11) != 0 || is_option(*e, len);
        for (size_t i = 0; i < sizeof others / sizeof *others && !known; i++)
            known = strlen(others[i]) == len && strncmp(others[i], *e, len) == 0;
        if (!known)
            strbuf_printf(&odd, "%s%.*s", n++ ? ", " : "", (int)len, *e);
    }
    if (n)
        doctor_note(d, "variables", DOCTOR_WARN, "see the options' names in --help, or take them away", "no option is set by %s", strbuf_str(&odd));
    strbuf_fini(&odd);
}

/* --- addresses and ports ------------------------------------------------- */

static void addresses(struct doctor *d)
{
    struct ifaddrs *list = NULL;
    struct strbuf text;
    bool nat = false;
    unsigned n = 0;

    strbuf_init(&text, TEXT_BYTES);
    if (getifaddrs(&list) != 0)
        list = NULL;
    for (const struct ifaddrs *a = list; a; a = a->ifa_next) {
        char host[64];
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || (a->ifa_flags & IFF_LOOPBACK) || !(a->ifa_flags & IFF_UP))
            continue;
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)a->ifa_addr;
        nat |= (ntohl(in->sin_addr.s_addr) & 0xFFF00000) == 0xAC100000; /* 172.16/12 */
        if (getnameinfo(a->ifa_addr, sizeof *in, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0)
            strbuf_printf(&text, "%s%s (%s)", n++ ? ", " : "", host, a->ifa_name);
    }
    freeifaddrs(list);
    if (n == 0)
        doctor_note(d, "address", DOCTOR_WARN, "connect it to the network that the other machines are in", "this machine has no IPv4 address but loopback's");
    else if (nat && doctor_is_wsl())
        doctor_note(d, "address", DOCTOR_WARN,
                    "let it dial in (worker --join TOKEN, without --listen), or networkingMode=mirrored under [wsl2] in .wslconfig",
                    "%s: behind WSL2's NAT, where others cannot dial it", strbuf_str(&text));
    else
        doctor_note(d, "address", DOCTOR_PASS, NULL, "%s", strbuf_str(&text));
    strbuf_fini(&text);
}

static void port(struct doctor *d, unsigned number, const char *what)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    char name[32];

    if (fd < 0)
        return;
    snprintf(name, sizeof name, "port %u", number);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&in, sizeof in) == 0)
        doctor_note(d, name, DOCTOR_PASS, NULL, "free for %s", what);
    else
        doctor_note(d, name, DOCTOR_WARN, "if that is no Stagecoach of yours (ss -ltnp tells), choose another port with --listen", "%s: %s", what,
                    strerror(errno));
    close(fd);
}

static void links(struct doctor *d)
{
    DIR *dir = opendir("/sys/class/net");
    struct dirent *e;

    while (dir && (e = readdir(dir))) {
        char path[512], line[64] = "";
        FILE *f;
        snprintf(path, sizeof path, "/sys/class/net/%s/device", e->d_name);
        if (e->d_name[0] == '.' || access(path, F_OK) != 0)
            continue; /* not of hardware */
        snprintf(path, sizeof path, "/sys/class/net/%s/speed", e->d_name);
        if ((f = fopen(path, "re"))) {
            if (!fgets(line, sizeof line, f))
                line[0] = '\0';
            fclose(f);
        }
        long mbit = strtol(line, NULL, 10);
        snprintf(path, sizeof path, "/sys/class/net/%s/wireless", e->d_name);
        if (access(path, F_OK) == 0)
            doctor_note(d, "link", DOCTOR_WARN, "use a cable: its delay comes with every token", "%s is wireless", e->d_name);
        else if (mbit > 0 && mbit < SLOW_MBIT)
            doctor_note(d, "link", DOCTOR_WARN, "use a better cable or switch", "%s: %ld Mbit/s", e->d_name, mbit);
        else if (mbit > 0)
            doctor_note(d, "link", DOCTOR_PASS, NULL, "%s: %ld Mbit/s", e->d_name, mbit);
    }
    if (dir)
        closedir(dir);
}

/* --- other nodes --------------------------------------------------------- */

/* The time that a connection to tcp://HOST:PORT took; < 0: none, and why. */
static double connect_ms(const char *address, const char **ret_why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char host[256];
    double began = ui_seconds(), ms = -1;
    int rc, failed = 0;
    socklen_t size = sizeof failed;

    if (strncmp(address, "tcp://", 6) != 0 || (size_t)snprintf(host, sizeof host, "%s", address + 6) >= sizeof host || !strrchr(host, ':')) {
        *ret_why = "no address of the form tcp://HOST:PORT";
        return -1;
    }
    char *colon = strrchr(host, ':'), *name = host;
    *colon = '\0';
    if (host[0] == '[' && colon > host + 1) {
        name++;
        colon[-1] = '\0';
    }
    if ((rc = getaddrinfo(name, colon + 1, &hints, &found)) != 0) {
        *ret_why = gai_strerror(rc);
        return -1;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd p = {fd, POLLOUT, 0};
    if (fd < 0 || (connect(fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS))
        failed = errno;
    else if (poll(&p, 1, CONNECT_MS) <= 0)
        failed = ETIMEDOUT;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    if (failed)
        *ret_why = strerror(failed);
    else
        ms = (ui_seconds() - began) * 1e3;
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    return ms;
}

static void node(struct doctor *d, const struct topology_node *n, struct keys *k)
{
    uint8_t key[KEY_BYTES];
    char check[96];
    const char *why = "";

    snprintf(check, sizeof check, "node %s", n->name);
    if (n->key ? key_parse(n->key, key, NULL) != 0 : !k || !keys_lookup(k, n->name, key))
        doctor_note(d, check, DOCTOR_FAIL, "write key: as \"stagecoach keygen\" prints it there, or let it join by \"stagecoach invite\"",
                    n->key ? "its key in the topology is no key" : "it has no key in the topology, and none is trusted by its name");
    if (!n->address) {
        doctor_note(d, check, DOCTOR_PASS, NULL, "dials in: it is not asked for");
        return;
    }
    double ms = connect_ms(n->address, &why);
    if (ms < 0)
        doctor_note(d, check, DOCTOR_FAIL, "start its worker there; look at firewalls between; where it is behind NAT, leave its address out and let it dial in",
                    "%s: %s", n->address, why);
    else if (ms > 20)
        doctor_note(d, check, DOCTOR_WARN, "every token takes this way: use nearer machines, or more answers at once", "%s: reached in %.1f ms", n->address, ms);
    else
        doctor_note(d, check, DOCTOR_PASS, NULL, "%s: reached in %.1f ms", n->address, ms);
}

static void topology(struct doctor *d, struct keys *k)
{
    struct err err;
    struct topology *t = topology_load(d->topology, &err);

    if (!t) {
        doctor_note(d, "topology", DOCTOR_FAIL, "mend the file (docs/planning.md)", "%s", err.text);
        return;
    }
    doctor_note(d, "topology", DOCTOR_PASS, NULL, "%.300s: %u nodes", d->topology, t->n_nodes);
    for (uint32_t i = 0; i < t->n_nodes; i++)
        node(d, &t->nodes[i], k);
    topology_destroy(t);
}

/* Of a server of this user: are its nodes there, and as new as we? */
static void server(struct doctor *d)
{
    struct control_server s;
    struct err err;
    char *body, check[96];
    json_t *o, *n;
    size_t i;

    if (control_find(NULL, &s, &err) != 0)
        return;
    body = control_ask(&s, "/v1/cluster", NULL, &err);
    o = body ? json_loads(body, 0, NULL) : NULL;
    const char *health = json_string_value(json_object_get(o, "health"));
    if (!o)
        doctor_note(d, "server", DOCTOR_FAIL, "see what it says where it runs", "%s", body ? "its answer is no JSON" : err.text);
    else
        doctor_note(d, "server", health && strcmp(health, "ok") == 0 ? DOCTOR_PASS : DOCTOR_WARN,
                    health && strcmp(health, "ok") == 0 ? NULL : "\"stagecoach status\" shows its nodes and events", "%s: %s", s.url, health ? health : "-");
    json_array_foreach(json_object_get(o, "nodes"), i, n) {
        const char *name = json_string_value(json_object_get(n, "name")), *state = json_string_value(json_object_get(n, "state"));
        const char *version = json_string_value(json_object_get(n, "version"));
        snprintf(check, sizeof check, "node %s", name ? name : "-");
        if (version && strcmp(version, PACKAGE_VERSION) != 0)
            doctor_note(d, check, DOCTOR_WARN, "bring all to one version, a node at a time (docs/upgrading.md)", "runs version %s, here is %s", version, PACKAGE_VERSION);
        else if (!state || strcmp(state, "here") != 0)
            doctor_note(d, check, DOCTOR_WARN, "start its worker; \"stagecoach status\" shows what was last heard", "%s", state ? state : "-");
        else
            doctor_note(d, check, DOCTOR_PASS, NULL, "here, version %s", version ? version : "-");
    }
    json_decref(o);
    free(body);
}

void doctor_cluster(struct doctor *d)
{
    struct keys *k = keys(d);

    variables(d);
    addresses(d);
    port(d, 8080, "the API (serve)");
    port(d, 7100, "a coordinator (serve --join-listen)");
    port(d, 7101, "a worker (worker --listen)");
    links(d);
    if (d->topology)
        topology(d, k);
    server(d);
    keys_close(k);
}
