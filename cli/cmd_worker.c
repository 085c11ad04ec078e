/* stagecoach worker: a node of the pipeline. */
#include "config.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sysinfo.h"
#include "cli/command.h"
#include "cli/compute.h"
#include "cli/keydir.h"
#include "cli/service.h"
#include "cli/ui.h"
#include "proto/invite.h"
#include "proto/wire.h"
#include "worker/node.h"

enum { JOIN_MS = 15000, NOTES_MAX_BYTES = 4096 };

struct values {
    const char *listen, *advertise, *name, *keys, *model_dir, *join, *coordinator, *model, *cpus;
    const char *cache;
    uint64_t ram, cache_size;
    struct compute_options compute;
    int64_t protocol, parent;
    double orphan_timeout;
    bool child, no_measure, service, dry_run;
};

static const struct opt options[] = {
    {"listen", 'l', OPT_STRING, .arg = "ADDRESS", .offset = offsetof(struct values, listen),
     .help = "Where the coordinator and other workers find this one: tcp://IP:PORT, or ipc://PATH on one machine"},
    {"advertise", 0, OPT_STRING, .arg = "ADDRESS", .offset = offsetof(struct values, advertise),
     .help = "How others reach it, where that is not the address it listens on"},
    {"name", 0, OPT_STRING, .arg = "NAME", .offset = offsetof(struct values, name), .help = "What it is called (default: as in its keys, else the host's name)"},
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, keys),
     .help = "Its key and those of nodes it trusts (default: ~/.config/stagecoach)"},
    {"join", 0, OPT_STRING, .arg = "TOKEN", .offset = offsetof(struct values, join), .help = "Join the cluster that gave this invitation, then connect to it"},
    {"coordinator", 0, OPT_STRING, .arg = "ADDRESS", .offset = offsetof(struct values, coordinator),
     .help = "Dial the coordinator there, instead of waiting for it: tcp://HOST:PORT, or NAME@tcp://HOST:PORT where several nodes are trusted"},
    {"service", 0, OPT_FLAG, .offset = offsetof(struct values, service),
     .help = "Join, then leave the work to a systemd service of yours, which is written and started, with the other options given here"},
    {"dry-run", 0, OPT_FLAG, .offset = offsetof(struct values, dry_run), .help = "With --service: only print what it would write and run"},
    {"model-dir", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, model_dir),
     .help = "Model files that may be used, in this folder and those in it"},
    {"cache", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, cache), .own_variable = true, /* ./dev has STAGECOACH_CACHE */
     .help = "Keep what comes over the network there, for the next start (default: nothing is kept)"},
    {"cache-size", 0, OPT_SIZE, .arg = "SIZE", .offset = offsetof(struct values, cache_size), .help = "At most so much of it (default: 64GiB)"},
    {"ram", 0, OPT_SIZE, .arg = "SIZE", .offset = offsetof(struct values, ram),
     .help = "Memory that its processors may use, such as 8GiB (default: what is free)"},
    {"no-measure", 0, OPT_FLAG, .offset = offsetof(struct values, no_measure),
     .help = "Start at once, without measuring what the devices can do: plans guess, unless the topology file says it"},
    {"orphan-timeout", 0, OPT_FLOAT, .arg = "SECONDS", .offset = offsetof(struct values, orphan_timeout), .min = 0, .max = 1e9,
     .help = "Without a coordinator for so long, weights are freed (default: 600)"},
    {0},
};
static const struct opt inner[] = {
    {"child", 0, OPT_FLAG, .offset = offsetof(struct values, child), .alone = true, .help = "Started by a coordinator: end with it, and log only what is wrong"},
    {"parent", 0, OPT_INT, .arg = "PID", .offset = offsetof(struct values, parent), .min = 1, .max = INT32_MAX,
     .help = "With --child: the process that it ends with (default: who started it, as far as that can be seen)"},
    {"model", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, model), .help = "A model file that may be used"},
    {"cpus", 0, OPT_STRING, .arg = "LIST", .offset = offsetof(struct values, cpus), .help = "Processors to stay on, such as 0,3"},
    {"protocol", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, protocol), .min = PROTOCOL_MIN, .max = PROTOCOL_MAX,
     .help = "Speak no newer protocol than this, as an older worker would"},
    {0},
};
static const struct opt_group groups[] = {
    {"Options", options, 0},
    {"Computing", compute_option_table, offsetof(struct values, compute)},
    {"For embedded workers and tests", inner, 0},
    {0},
};
static const struct opt_example examples[] = {
    {"stagecoach worker --listen tcp://0.0.0.0:7101 --model-dir ~/models", "Waits for a coordinator whose key is in its keys' folder."},
    {"stagecoach worker --join TOKEN", "The first start on a machine that others cannot reach: joins, then dials the coordinator."},
    {"stagecoach worker --coordinator tcp://192.168.1.10:7100", "The same again, later."},
    {"stagecoach worker --join TOKEN --service --ram 12GiB", "Joins, and works from now on whenever this machine runs."},
    {"stagecoach worker --listen tcp://192.168.1.11:7101 --ram 12GiB", "Leaves the rest of the memory to others."},
    {"stagecoach worker --listen tcp://192.168.1.11:7101 --device cuda:0,cpu --vram cuda:0=20GiB", "Two stages: one in the GPU's memory, one in the machine's."},
    {0},
};

/* "0,3" */
static int stay_on(const char *list, struct err *err)
{
    cpu_set_t mask;
    const char *at = list;

    CPU_ZERO(&mask);
    for (;;) {
        char *end;
        unsigned long cpu = strtoul(at, &end, 10);
        if (end == at || cpu >= CPU_SETSIZE || (*end && *end != ','))
            return err_set(err, ERR_USAGE, "--cpus %s: numbers of processors with commas between them are meant", list);
        CPU_SET(cpu, &mask);
        if (!*end)
            break;
        at = end + 1;
    }
    if (sched_setaffinity(0, sizeof mask, &mask) != 0)
        return err_errno(err, errno, "--cpus %s", list);
    return 0;
}

_Static_assert((int)NODE_COORDINATORS >= (int)INVITE_MAX_ADDRESSES, "a node dials all of an invitation's addresses");

/* Blocked before the node's threads start, so that all of them leave the signals to its loop. A terminal's end counts, but for nohup. */
static int open_signals(struct err *err)
{
    struct sigaction hangup;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd >= 0 ? fd : err_errno(err, errno, "signals");
}

static int check(const struct values *v, struct err *err)
{
    if (!v->listen && !v->join && !v->coordinator)
        return err_set(err, ERR_USAGE,
                       "neither --listen nor --join nor --coordinator: give an address that the coordinator can dial, an invitation, or whom to dial");
    if (v->join && v->coordinator)
        return err_set(err, ERR_USAGE, "--join with --coordinator: an invitation says itself where the coordinator is");
    if (v->dry_run && !v->service)
        return err_set(err, ERR_USAGE, "--dry-run is for --service");
    if (v->service && v->child)
        return err_set(err, ERR_USAGE, "--service is not for embedded workers");
    if (v->advertise && !v->listen)
        return err_set(err, ERR_USAGE, "--advertise without --listen: there is nothing to be reached");
    if (v->listen && wire_address_check(v->listen, true, err) != 0)
        return err_wrap(err, "--listen");
    if (v->advertise && wire_address_check(v->advertise, false, err) != 0)
        return err_wrap(err, "--advertise");
    if (v->name && !msg_name_valid(v->name))
        return err_set(err, ERR_USAGE, "--name %s: 1 to %d letters, digits, dots, dashes and underscores are allowed, a letter or digit first", v->name,
                       MSG_MAX_NAME);
    return 0;
}

static bool needs_keys(const struct values *v)
{
    return v->join || v->coordinator || strncmp(v->listen, "ipc:", 4) != 0 || v->keys;
}

/* An invitation that was taken up before is good for knowing where the coordinator is: the same command can be run again. */
static bool joined_before(const struct values *v, struct node_options *o, struct invite *in)
{
    char name[MSG_MAX_NAME + 1];

    if (invite_parse(v->join, 0, in, NULL) != 0 || !keys_find(o->keys, in->key, name))
        return false;
    for (size_t i = 0; i < in->n_addresses; i++)
        o->coordinators[i] = in->addresses[i];
    return true;
}

/* Whom to dial, from an invitation: also if we listen, for who joins is not in anybody's file yet. */
static int join(const struct values *v, struct node_options *o, struct wire_joined *joined, struct invite *in, struct err *err)
{
    if (wire_join(o->keys, v->join, JOIN_MS, joined, err) == 0) {
        ui_say("joined the cluster of %s as %s", joined->coordinator, joined->name);
        memcpy(o->coordinator_key, joined->key, sizeof joined->key);
        o->coordinators[0] = joined->address;
        o->name = joined->name;
        return 0;
    }
    if (!joined_before(v, o, in))
        return -1;
    memcpy(o->coordinator_key, in->key, sizeof in->key);
    o->name = keys_name(o->keys);
    return 0;
}

/* A worker that is not told takes what there is; one of a coordinator's own is told. What is not used is said once. */
static int find_devices(const struct values *v, struct node_options *o, struct err *err)
{
    struct strbuf notes;
    strbuf_init(&notes, NOTES_MAX_BYTES);
    compute_how(&v->compute, &o->how);
    int rc = compute_devices(&v->compute, v->child ? "cpu" : "auto", &o->devices, &notes, err);
    for (const char *at = strbuf_str(&notes); rc == 0 && *at; at += strcspn(at, "\n") + 1)
        log_line(LOG_INFO, "%.*s", (int)strcspn(at, "\n"), at);
    strbuf_fini(&notes);
    if (v->ram)
        device_list_limit_ram(&o->devices, v->ram);
    return rc;
}

static int serve(const struct values *v, const struct node_options *given, struct err *err)
{
    struct node_options own = *given, *o = &own;
    struct wire_joined joined;
    struct invite in;
    int rc;

    o->name = v->name ? v->name : o->keys ? keys_name(o->keys) : "worker";
    if (v->coordinator && !(o->coordinators[0] = keydir_peer(o->keys, "--coordinator", v->coordinator, o->coordinator_key, err)))
        return -1;
    if (v->join && join(v, o, &joined, &in, err) != 0)
        return -1;
    log_init(v->child ? LOG_ERROR : LOG_INFO, o->name);
    sysinfo_allow_files();
    if ((o->signal_fd = open_signals(err)) < 0) /* until here a signal ends us by itself */
        return -1;
    rc = find_devices(v, o, err) == 0 ? node_run(o, err) : -1;
    close(o->signal_fd);
    return rc;
}

/* --service: joins if that was asked for, and has systemd do the rest. */
static int install(const struct values *v, const struct opts_parsed *parsed, struct keys *keys, struct err *err)
{
    static const char *const without[] = {"service", "dry-run", "join", "keys", "coordinator", NULL};
    char who[MSG_MAX_NAME + MSG_MAX_ADDRESS + 32], dir[KEYDIR_PATH + 16];
    const char *more[3] = {NULL};
    struct wire_joined joined;
    struct strbuf line;
    size_t n = 0;
    int rc;

    if (v->join && !v->dry_run && wire_join(keys, v->join, JOIN_MS, &joined, err) != 0)
        return err_wrap(err, "joining");
    if (v->join && v->dry_run)
        snprintf(who, sizeof who, "--coordinator=NAME@ADDRESS");
    else if (v->join)
        snprintf(who, sizeof who, "--coordinator=%s@%s", joined.coordinator, joined.address);
    else if (v->coordinator)
        snprintf(who, sizeof who, "--coordinator=%.*s", (int)sizeof who - 16, v->coordinator);
    if (v->join && !v->dry_run)
        ui_say("joined the cluster of %s as %s", joined.coordinator, joined.name);
    if (v->join || v->coordinator)
        more[n++] = who;
    if (keys && snprintf(dir, sizeof dir, "--keys=%s", keys_dir(keys)) < (int)sizeof dir)
        more[n++] = dir;
    strbuf_init(&line, 64 << 10);
    rc = service_command(&cmd_worker.opts, v, parsed, without, more, &line, err);
    if (rc == 0)
        rc = service_install("stagecoach-worker", "Stagecoach worker", strbuf_str(&line), v->dry_run, err);
    strbuf_fini(&line);
    return rc;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct node_options o = {
        .version = PACKAGE_VERSION, .listen = v->listen, .advertise = v->advertise, .model_file = v->model, .model_dir = v->model_dir,
        .cache_dir = v->cache, .cache_bytes = v->cache_size ? v->cache_size : (uint64_t)64 << 30, .protocol = (unsigned)v->protocol,
        .orphan_ms = (uint64_t)(v->orphan_timeout * 1000), .signal_fd = -1, .measure = !v->child && !v->no_measure,
    };
    int rc = -1;

    if (check(v, err) != 0 || (v->cpus && stay_on(v->cpus, err) != 0))
        return -1;
    if (v->child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* even when we are stopped: nothing of us stays behind */
        o.parent = v->parent ? (int)v->parent : (int)getppid();
        if (getppid() != o.parent) /* it is gone already: no signal will come of that */
            return err_set(err, ERR_CANCELLED, "the process that started this one is gone");
    }
    if (!needs_keys(v) || (o.keys = keydir_open(v->keys, v->name, err)))
        rc = v->service ? install(v, parsed, o.keys, err) : serve(v, &o, err);
    keys_close(o.keys);
    return rc;
}

const struct command cmd_worker = {
    .opts = {.name = "worker",
             .summary = "Be a node of the pipeline",
             .synopsis = "--listen ADDRESS [OPTION]…",
             .description = "Computes a part of a model's layers for a coordinator (stagecoach serve, or any command with --topology). Which layers, "
                            "the coordinator says; their weights are read from files in --model-dir. Serves until it is told to stop: SIGTERM lets the "
                            "coordinator go on without it first, a second one ends it at once.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
