/* stagecoach serve: the HTTP API over a pipeline, until it is told to stop. */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sysinfo.h"
#include "cli/command.h"
#include "cli/control.h"
#include "cli/keydir.h"
#include "cli/local.h"
#include "cli/ui.h"
#include "front/front.h"

enum { POLL_MS = 100, PROGRESS_S = 2, PROGRESS_NODES = 64 };
/* Files that are not for HTTP: half of what may be open, but no more than FILES_KEPT, and no less than what a server takes by itself (35
 * of them when this was written) and for each node (4), with a few to spare. NODES_GUESSED: that are not --workers. */
enum { FILES_KEPT = 256, FILES_OWN = 40, FILES_NODE = 6, NODES_GUESSED = 8, CONNECTIONS_LEAST = 4 };

struct values {
    struct model_options model;
    const char *listen, *api_key_file, *tls_cert, *tls_key, *cors, *alias, *trace;
    struct opt_list hosts;
    bool no_auth;
    int64_t kv_total, connections, connections_per_address, queue, grace_s, recover_timeout_s;
};

static const struct opt options[] = {
    {"listen", 'l', OPT_STRING, .arg = "ADDRESS", .offset = offsetof(struct values, listen), .def = "127.0.0.1:8080",
     .help = "Address and port of the API; port 0 takes a free one. An address that other machines can reach needs --api-key-file, or "
             "--no-auth said outright"},
    {"api-key-file", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, api_key_file),
     .help = "Answer only to who shows a key of this file: one a line, behind it at-once=N, requests-per-minute=N, tokens-per-minute=N "
             "where it has limits; # begins a comment"},
    {"tls-cert", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, tls_cert),
     .help = "Speak HTTPS with this certificate (PEM, its chain behind it)"},
    {"tls-key", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, tls_key), .help = "The certificate's private key (PEM)"},
    {"no-auth", 0, OPT_FLAG, .offset = offsetof(struct values, no_auth), .help = "Answer to everybody who can reach the address"},
    {"allow-host", 0, OPT_LIST, .arg = "NAME", .offset = offsetof(struct values, hosts),
     .help = "On loopback: answer also to requests for this host name, as a proxy may send it"},
    {"cors", 0, OPT_STRING, .arg = "ORIGIN", .offset = offsetof(struct values, cors),
     .help = "Let web pages of this origin use the API, \"*\": of any (default: none)"},
    {"alias", 'a', OPT_STRING, .arg = "NAME", .offset = offsetof(struct values, alias),
     .help = "How the API calls the model (default: its file's name)"},
    {"join-listen", 0, OPT_STRING, .arg = "ADDRESS", .offset = offsetof(struct values, model.join_listen),
     .help = "Where workers may join by invitation, such as tcp://192.168.1.10:7100. They are written into the file that --topology names, which "
             "is begun where it is not there yet; without --topology into cluster.yaml in the keys' folder"},
    {"trace", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, trace),
     .help = "Record every input and decision of the scheduler"},
    {"kv-total", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, kv_total), .min = 1, .max = UINT32_MAX,
     .help = "Positions that all sequences together may have in the KV cache, at least one --ctx (default: --ctx for each of --parallel). With "
             "less memory than the worst case needs more answers run at once; where it gets tight the youngest waits, and is computed again"},
    GATHER_OPTION(values),
    {"recover-timeout", 0, OPT_INT, .arg = "SECONDS", .offset = offsetof(struct values, recover_timeout_s), .min = 1, .max = 86400,
     .def = "120", .help = "How long answers wait for the pipeline to be repaired before they fail"},
    {"connections", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, connections), .min = CONNECTIONS_LEAST, .max = FRONT_MAX_CONNECTIONS,
     .def = "1024", .help = "HTTP connections at most"},
    {"connections-per-address", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, connections_per_address), .min = 1,
     .max = FRONT_MAX_CONNECTIONS, .def = "512", .help = "Of these at most so many from one address"},
    {"queue", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, queue), .min = 1, .max = ENGINE_MAX_REQUESTS, .def = "1024",
     .help = "Answers that wait or run at most; who asks for more is told to come again (429)"},
    {"grace", 0, OPT_INT, .arg = "SECONDS", .offset = offsetof(struct values, grace_s), .max = 86400, .def = "10",
     .help = "When told to stop: how long answers that run may take to end; told twice, none"},
    {0},
};
static const struct opt_group groups[] = {
    {"Options", options, 0},
    MODEL_OPTION_GROUPS(values),
    {0},
};
static const struct opt_example examples[] = {
    {"stagecoach serve -m model.gguf", "The API at http://127.0.0.1:8080, the model in one worker process."},
    {"stagecoach serve -m model.gguf --topology home.yaml --listen 192.168.1.10:8080 --api-key-file keys",
     "Several machines, for the house."},
    {"stagecoach serve -m model.gguf --join-listen tcp://192.168.1.10:7100",
     "The same without writing a file: workers join by \"stagecoach invite\", and are remembered."},
    {0},
};

/* --- signals ------------------------------------------------------------- */

static volatile sig_atomic_t n_signals;
static sem_t signalled;

static void on_signal(int number)
{
    int saved = errno;
    (void)number;
    n_signals++;
    sem_post(&signalled);
    errno = saved;
}

static void watch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, hangup;

    sem_init(&signalled, 0, 0);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* the terminal's end; nohup wants it passed over */
        sigaction(SIGHUP, &action, NULL);
}

static bool told_twice(void)
{
    return n_signals > 1;
}

static void wait_for_signal(void)
{
    while (n_signals == 0)
        sem_wait(&signalled);
}

/* --- what is said -------------------------------------------------------- */

/* Of each node when its loading was last told: a line now and then, from the engine's thread. */
struct progress {
    struct {
        char node[64];
        double told;
    } nodes[PROGRESS_NODES];
};

static void tell_progress(struct progress *p, const struct engine_note *note)
{
    const char *name = note->node ? note->node : "";
    double now = ui_seconds();
    char done[32], total[32];
    size_t i = 0;

    while (i < PROGRESS_NODES && p->nodes[i].node[0] && strcmp(p->nodes[i].node, name) != 0)
        i++;
    if (i == PROGRESS_NODES || now - p->nodes[i].told < PROGRESS_S || note->total_bytes == 0)
        return;
    p->nodes[i].told = now;
    snprintf(p->nodes[i].node, sizeof p->nodes[i].node, "%s", name);
    log_line(LOG_INFO, "%s: loading, %s of %s", name, sysinfo_bytes(done, note->done_bytes), sysinfo_bytes(total, note->total_bytes));
}

static void on_note(void *arg, const struct engine_note *note)
{
    if (note->kind == ENGINE_NOTE_PROGRESS)
        tell_progress(arg, note);
    else
        log_line(note->kind == ENGINE_NOTE_TROUBLE ? LOG_WARN : LOG_INFO, "%s", note->text);
}

/* --- running ------------------------------------------------------------- */

/* The file's name without folder and ".gguf". */
static void model_name(const struct values *v, char *ret, size_t size)
{
    const char *slash = strrchr(v->model.model, '/'), *from = v->alias ? v->alias : slash ? slash + 1 : v->model.model;
    size_t len = strlen(from);

    if (!v->alias && len > 5 && strcmp(from + len - 5, ".gguf") == 0)
        len -= 5;
    err_printable(ret, size, from, len);
}

/* Until it is ready: 0; 1 when a signal came before; -1. */
static int wait_ready(struct engine *engine, struct err *err)
{
    int rc;

    while ((rc = engine_wait_ready(engine, POLL_MS, err)) == 1)
        if (n_signals)
            return 1;
    return rc;
}

/* HTTP connections at most: files that they take cannot be had for links to workers, without which nothing goes on. */
static unsigned connections(const struct values *v)
{
    uint64_t files = sysinfo_allow_files(), kept = files < 2 * FILES_KEPT ? files / 2 : FILES_KEPT, most;
    uint64_t needed = FILES_OWN + FILES_NODE * (v->model.workers ? (uint64_t)v->model.workers : NODES_GUESSED);

    kept = kept > needed ? kept : needed;
    most = files > kept + CONNECTIONS_LEAST ? files - kept : CONNECTIONS_LEAST;
    if ((uint64_t)v->connections <= most)
        return (unsigned)v->connections;
    log_line(LOG_WARN, "at most %llu HTTP connections instead of %lld: this process may open %llu files (ulimit -Hn, LimitNOFILE= in a unit)",
             (unsigned long long)most, (long long)v->connections, (unsigned long long)files);
    return (unsigned)most;
}

static int serve(const struct values *v, struct engine *engine, struct control_file *control, struct err *err)
{
    char name[256], key[CONTROL_KEY_BYTES];
    struct front_options fo = {
        .listen = v->listen,
        .api_key_file = v->api_key_file,
        .tls_cert = v->tls_cert,
        .tls_key = v->tls_key,
        .admin_key = key,
        .no_auth = v->no_auth,
        .cors = v->cors,
        .hosts = v->hosts.items,
        .n_hosts = v->hosts.len,
        .model = name,
        .connections = connections(v),
        .connections_per_address = (unsigned)v->connections_per_address,
        .queue = (unsigned)v->queue,
    };
    struct front *front;
    struct err why;
    int rc;

    model_name(v, name, sizeof name);
    if (control_key(key, err) != 0 || !(front = front_create(&fo, engine, err)))
        return -1;
    if (control_hold(control, front_url(front), key, v->model.join_listen, &why) != 0) /* before it is said: scripts go on by that */
        log_line(LOG_WARN, "status, stop and invite will not find this server by themselves: %s", why.text);
    log_line(LOG_INFO, "loading %s; %s answers /health meanwhile", name, front_url(front));
    rc = wait_ready(engine, err);
    if (rc == 0) {
        log_line(LOG_INFO, "ready: %s serves %s, context %u, %u sequence%s at once", front_url(front), name, engine_ctx(engine),
                 engine_parallel(engine), engine_parallel(engine) == 1 ? "" : "s");
        wait_for_signal();
        log_line(LOG_INFO, "stopping: running answers have %lld s to end", (long long)v->grace_s);
    }
    front_stop(front, (unsigned)v->grace_s * 1000, told_twice);
    front_destroy(front);
    return rc < 0 ? -1 : 0;
}

/* A cluster that workers join needs a file that remembers them. */
static int find_cluster(struct values *v, struct err *err)
{
    static char path[KEYDIR_PATH + 16];

    if (!v->model.join_listen)
        return 0;
    if (v->model.workers)
        return err_set(err, ERR_USAGE, "--join-listen with --workers: the model is split over worker processes of this machine or over those that join; "
                                       "to use this one as well, run \"stagecoach worker\" on it");
    if (v->model.topology)
        return 0;
    if (keydir_find(v->model.keys, path, err) != 0)
        return -1;
    snprintf(path + strlen(path), 16, "/cluster.yaml");
    v->model.topology = path;
    return 0;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct values *v = values;
    struct progress *progress = mem_new(1, sizeof *progress, err);
    struct engine_options eo;
    struct topology *topology = NULL;
    struct engine *engine = NULL;
    struct control_file control = {.fd = -1};
    int rc = -1;

    (void)parsed;
    log_init(LOG_INFO, "stagecoach");
    if (progress && find_cluster(v, err) == 0 && local_engine_options(&v->model, &eo, &topology, err) == 0) {
        eo.trace_path = v->trace;
        eo.kv_total = (uint32_t)v->kv_total;
        eo.recover_timeout_ms = (unsigned)v->recover_timeout_s * 1000;
        eo.note = on_note;
        eo.note_arg = progress;
        watch_signals();
        if ((engine = engine_create(&eo, err)))
            rc = serve(v, engine, &control, err);
        engine_destroy(engine);
        control_drop(&control); /* last: `stop` waits for it */
    }
    topology_destroy(topology);
    free(progress);
    return rc;
}

const struct command cmd_serve = {
    .opts = {.name = "serve",
             .summary = "Serve OpenAI's API over a pipeline of workers",
             .synopsis = "-m FILE [--listen ADDRESS] [OPTION]…",
             .description =
                 "Splits the model over worker processes (--workers, one by default) or machines (--topology) and serves OpenAI's API: "
                 "/v1/chat/completions, /v1/completions, /v1/models and more. /health answers 200 only while the whole pipeline does. "
                 "A worker that is lost is replaced, and open answers go on. Prompts are never logged. SIGTERM and Ctrl-C stop it once "
                 "running answers have ended.",
             .groups = groups,
             .examples = examples},
    .fetches_model = true,
    .values_bytes = sizeof(struct values),
    .run = run,
};
