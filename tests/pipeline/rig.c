/* See rig.h. */
#include "tests/pipeline/rig.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "gguf/quant.h"
#include "kernels/backend.h"
#include "kernels/device.h"
#include "coordinator/plan_input.h"
#include "model/sampler.h"
#include "model/session.h"
#include "proto/keys.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

extern char **environ;

enum { READY_MS = 60000, END_MS = 20000 };

void rig_show_logs(void)
{
    char command[400];
    snprintf(command, sizeof command, "tail -n 25 '%s'/rig*/*.log 2>/dev/null | sed 's/^/# /'", model_folder());
    fflush(stdout);
    if (system(command) != 0)
        tap_note("no logs");
}

_Noreturn void rig_bail(const char *what, const struct err *err)
{
    rig_show_notes();
    rig_show_logs();
    printf("Bail out! %s: %s\n", what, err ? err->text : strerror(errno));
    exit(1);
}

/* --- numbers drawn by lot ------------------------------------------------------------------------------------------------ */

static uint64_t lot;

void rig_seed(void)
{
    const char *given = getenv("SC_SEED");
    lot = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
    tap_note("SC_SEED=%" PRIu64, lot);
}

/* splitmix64 */
uint64_t rig_draw(uint64_t below)
{
    uint64_t z = (lot += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (z ^ z >> 31) % below;
}

int64_t rig_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void rig_sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

/* --- answers ------------------------------------------------------------------------------------------------------------- */

static void make_question(struct answer *a, uint32_t i)
{
    *a = (struct answer){.n_prompt = 1 + (uint32_t)rig_draw(RIG_PROMPT_MAX - 1), .n_new = 5 + (uint32_t)rig_draw(RIG_NEW_MAX - 4)};
    a->sample = SAMPLE_PARAMS_DEFAULT;
    a->sample.temperature = i % 2 ? 1.1f : 0;
    a->sample.seed = rig_draw(1000000);
    a->sample.repetition_penalty = i % 3 ? 1 : 1.2f;
    for (uint32_t k = 0; k < a->n_prompt; k++)
        a->prompt[k] = (int32_t)rig_draw(MODEL_VOCAB);
}

static void answer_one(struct session *s, struct sampler *sampler, struct answer *a)
{
    int32_t all[RIG_PROMPT_MAX + RIG_NEW_MAX];
    uint32_t n = a->n_prompt;
    struct err err;

    memcpy(all, a->prompt, n * sizeof *all);
    session_cut(s, 0, 0);
    for (uint32_t pos = 0; a->n < a->n_new; pos++) {
        struct session_row row = {.pos = pos, .token = all[pos], .want = true};
        if (session_step(s, &row, 1, &err) != 0)
            rig_bail("session_step", &err);
        sampler_top(sampler, session_logits(s, 0), RIG_TOP, a->top_ids[a->n_top], a->top_logprobs[a->n_top], &err);
        a->n_top++;
        if (pos + 1 < n)
            continue;
        if (sampler_sample(sampler, &a->sample, session_logits(s, 0), all, n, 0, n, &all[n], &a->logprobs[a->n], &err) != 0)
            rig_bail("sampler_sample", &err);
        a->tokens[a->n++] = all[n];
        n++;
    }
}

void rig_answers(const char *model, struct answer *answers, uint32_t n)
{
    struct session_options o = {.threads = 1, .ctx = RIG_CTX, .parallel = 1, .batch_rows = 16};
    struct err err;
    struct session *s = session_open(model, &o, &err);
    struct sampler *sampler = s ? sampler_create(MODEL_VOCAB, NULL, &err) : NULL;

    if (!sampler)
        rig_bail("session_open", &err);
    for (uint32_t i = 0; i < n; i++) {
        make_question(&answers[i], i);
        answer_one(s, sampler, &answers[i]);
    }
    sampler_destroy(sampler);
    session_close(s);
}

/* --- streams ------------------------------------------------------------------------------------------------------------- */

void stream_begin(struct stream *s, struct engine *e, const struct answer *want, bool with_top, uint32_t cancel_at)
{
    struct engine_params p = {.tokens = want->prompt, .n_tokens = want->n_prompt, .n_new = want->n_new, .sample = want->sample};
    struct err err;

    if (with_top) {
        p.top = RIG_TOP;
        p.prompt_top = true;
    }
    *s = (struct stream){.want = want, .with_top = with_top, .cancel_at = cancel_at, .token_ms = rig_now_ms()};
    if (!(s->r = engine_submit(e, &p, &err)))
        rig_bail("engine_submit", &err);
}

static bool same_top(const struct stream *s, const struct engine_event *ev)
{
    const struct answer *a = s->want;
    return ev->n_top == RIG_TOP && s->n_top < a->n_top && memcmp(ev->top_ids, a->top_ids[s->n_top], sizeof a->top_ids[0]) == 0 &&
           memcmp(ev->top_logprobs, a->top_logprobs[s->n_top], sizeof a->top_logprobs[0]) == 0;
}

static void take_token(struct stream *s, const struct engine_event *ev)
{
    const struct answer *a = s->want;
    int64_t now = rig_now_ms();

    if (s->n >= a->n || ev->token != a->tokens[s->n] || memcmp(&ev->logprob, &a->logprobs[s->n], sizeof ev->logprob) != 0)
        s->wrong = true;
    if (s->n > 0 && now - s->token_ms > s->gap_ms)
        s->gap_ms = now - s->token_ms;
    s->token_ms = now;
    s->n++;
}

static void take_event(struct stream *s, const struct engine_event *ev)
{
    switch (ev->kind) {
    case ENGINE_TOKEN:
    case ENGINE_PROMPT:
        if (s->with_top) {
            s->wrong = s->wrong || !same_top(s, ev);
            s->n_top++;
        }
        if (ev->kind == ENGINE_TOKEN)
            take_token(s, ev);
        break;
    case ENGINE_PAUSE:
        s->pauses++;
        break;
    case ENGINE_DONE:
        s->finished = true;
        s->cancelled = ev->reason == ENGINE_CANCELLED;
        break;
    case ENGINE_FAILED:
        s->finished = s->failed = true;
        s->err = ev->err;
        break;
    default:
        break;
    }
}

bool stream_read(struct stream *s, int wait_ms)
{
    struct engine_event ev;
    while (!s->finished && engine_next(s->r, wait_ms, &ev) == 0) {
        take_event(s, &ev);
        wait_ms = 0;
        if (s->n >= s->cancel_at) {
            s->cancel_at = UINT32_MAX - 1; /* once */
            engine_cancel(s->r);
        }
    }
    return s->finished;
}

bool stream_end(struct stream *s)
{
    const struct answer *a = s->want;
    bool whole = s->n == a->n && (!s->with_top || s->n_top == a->n_top);
    bool good = s->finished && !s->failed && !s->wrong && (whole || (s->cancelled && s->cancel_at == UINT32_MAX - 1));

    if (!good)
        tap_note("stream: %u of %u tokens%s%s%s%s", s->n, a->n, s->wrong ? ", not the same" : "", s->finished ? "" : ", not finished",
                 s->cancelled ? ", cancelled" : "", s->failed ? ", failed:" : "");
    if (s->failed)
        tap_note("%s", s->err.text);
    engine_release(s->r);
    s->r = NULL;
    return good;
}

/* --- notes --------------------------------------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    struct {
        int64_t at_ms;
        char text[240];
    } note[RIG_NOTES];
    uint64_t n, from;
} notes = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_note(void *arg, const struct engine_note *note)
{
    (void)arg;
    if (note->kind == ENGINE_NOTE_PROGRESS)
        return;
    pthread_mutex_lock(&notes.lock);
    snprintf(notes.note[notes.n % RIG_NOTES].text, sizeof notes.note[0].text, "%s", note->text);
    notes.note[notes.n++ % RIG_NOTES].at_ms = rig_now_ms();
    pthread_mutex_unlock(&notes.lock);
    if (getenv("SC_VERBOSE"))
        tap_note("%" PRId64 " %s", rig_now_ms() % 1000000, note->text);
}

void rig_show_notes(void)
{
    pthread_mutex_lock(&notes.lock);
    for (uint64_t i = notes.n > RIG_NOTES ? notes.n - RIG_NOTES : 0; i < notes.n; i++)
        tap_note("%" PRId64 " ms: %s", notes.note[i % RIG_NOTES].at_ms % 1000000, notes.note[i % RIG_NOTES].text);
    pthread_mutex_unlock(&notes.lock);
}

bool rig_note(const char *text, char *ret, size_t bytes)
{
    bool found = false;
    pthread_mutex_lock(&notes.lock);
    uint64_t from = notes.n > RIG_NOTES ? notes.n - RIG_NOTES : 0;
    for (uint64_t i = from > notes.from ? from : notes.from; i < notes.n; i++)
        if (strstr(notes.note[i % RIG_NOTES].text, text)) {
            snprintf(ret, bytes, "%s", notes.note[i % RIG_NOTES].text);
            found = true;
        }
    pthread_mutex_unlock(&notes.lock);
    return found;
}

int64_t rig_note_ms(const char *text)
{
    int64_t at = -1;
    pthread_mutex_lock(&notes.lock);
    uint64_t from = notes.n > RIG_NOTES ? notes.n - RIG_NOTES : 0;
    for (uint64_t i = from > notes.from ? from : notes.from; i < notes.n && at < 0; i++)
        if (strstr(notes.note[i % RIG_NOTES].text, text))
            at = notes.note[i % RIG_NOTES].at_ms;
    pthread_mutex_unlock(&notes.lock);
    return at;
}

void rig_forget_notes(void)
{
    pthread_mutex_lock(&notes.lock);
    notes.from = notes.n;
    pthread_mutex_unlock(&notes.lock);
}

/* --- processes ----------------------------------------------------------------------------------------------------------- */

static const char *build_file(const char *name)
{
    static char path[2][512];
    static unsigned at;
    char *p = path[at++ % 2];
    snprintf(p, sizeof path[0], "%s/%s", getenv("SC_BUILD") ? getenv("SC_BUILD") : ".", name);
    return p;
}

const char *rig_program(void)
{
    static char program[512];
    snprintf(program, sizeof program, "%s", build_file("stagecoach"));
    if (access(program, X_OK) != 0)
        tap_skip_all("%s is not there", program);
    if (access(build_file("tests/pipeline/relay"), X_OK) != 0)
        tap_skip_all("%s is not there", build_file("tests/pipeline/relay"));
    return program;
}

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        rig_bail("a free port", NULL);
    close(fd);
    return ntohs(at.sin_port);
}

/* in, out: descriptors for its stdin and stdout, -1: /dev/null. */
static pid_t start(const char *const *argv, int in, int out, const char *log)
{
    posix_spawn_file_actions_t files;
    pid_t pid;

    posix_spawn_file_actions_init(&files);
    if (in >= 0)
        posix_spawn_file_actions_adddup2(&files, in, 0);
    else
        posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (out >= 0)
        posix_spawn_file_actions_adddup2(&files, out, 1);
    else
        posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    if (log)
        posix_spawn_file_actions_addopen(&files, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    errno = posix_spawn(&pid, argv[0], &files, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (errno != 0)
        rig_bail(argv[0], NULL);
    return pid;
}

void rig_start(struct rig *rig, unsigned node)
{
    struct rig_node *n = &rig->nodes[node];
    char listen[64], keys[400], log[400];
    const char *argv[24] = {rig_program(), "worker", "--listen",    listen,     "--name",    n->name,
                            "--keys",      keys,     "--model-dir", rig->model, "--threads", "1"};
    unsigned at = 12;

    if (n->ram[0]) {
        argv[at++] = "--ram";
        argv[at++] = n->ram;
    }
    if (n->devices[0]) {
        argv[at++] = "--device";
        argv[at++] = n->devices;
        argv[at++] = "--no-measure";
    }
    if (strstr(n->devices, "cuda")) {
        argv[at++] = "--cuda";
        argv[at++] = "untested";
    }

    snprintf(listen, sizeof listen, "tcp://127.0.0.1:%d", n->port);
    snprintf(keys, sizeof keys, "%s/keys-%s", rig->folder, n->name);
    snprintf(log, sizeof log, "%s/%s.log", rig->folder, n->name);
    n->pid = start(argv, -1, -1, log);
}

static void start_relay(struct rig_node *n)
{
    char to[40], seed[24], line[128];
    int in[2], out[2];
    const char *argv[] = {build_file("tests/pipeline/relay"), "--to", to, "--seed", seed, NULL};
    size_t len = 0;

    snprintf(to, sizeof to, "127.0.0.1:%d", n->port);
    snprintf(seed, sizeof seed, "%" PRIu64, rig_draw(1u << 30));
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        rig_bail("pipe", NULL);
    n->relay = start(argv, in[0], out[1], NULL);
    close(in[0]);
    close(out[1]);
    n->relay_in = in[1];
    n->relay_out = out[0];
    while (len + 1 < sizeof line && read(n->relay_out, line + len, 1) == 1 && line[len] != '\n')
        len++;
    line[len] = 0;
    if (sscanf(line, "listening 127.0.0.1:%d", &n->relay_port) != 1)
        rig_bail("the relay did not start", NULL);
}

void rig_link(struct rig *rig, unsigned node, const char *fmt, ...)
{
    struct rig_node *n = &rig->nodes[node];
    char line[128];
    size_t len = 0;
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (dprintf(n->relay_in, "%s\n", line) < 0)
        rig_bail("the relay has ended", NULL);
    while (len + 1 < sizeof line && read(n->relay_out, line + len, 1) == 1 && line[len] != '\n')
        len++;
    line[len] = 0;
    if (strncmp(line, "ok", 2) != 0)
        rig_bail(line, NULL);
}

int rig_reap(struct rig *rig, unsigned node)
{
    struct rig_node *n = &rig->nodes[node];
    int status;
    if (!n->pid || waitpid(n->pid, &status, WNOHANG) != n->pid)
        return -1;
    n->pid = 0;
    return status;
}

/* --- the cluster --------------------------------------------------------------------------------------------------------- */

static const char *rig_folder(void)
{
    static char folder[300];
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/models", model_folder());
        if (mkdir(folder, 0700) != 0)
            rig_bail(folder, NULL);
    }
    return folder;
}

const char *rig_model(unsigned layers, uint32_t big)
{
    static char path[400];
    struct model_spec spec = *model_spec_of("llama");
    spec.layers = layers;
    spec.big = big;
    snprintf(path, sizeof path, "%s/%u-%u.gguf", rig_folder(), layers, big);
    if (access(path, R_OK) != 0)
        model_write(&spec, QUANT_Q8_0, path);
    return path;
}

static void put_node(struct topology *t, const char *name, const char *address, const char *key, uint64_t memory, bool standby, const char *devices)
{
    struct topology_node node = {.name = name, .address = address, .key = key, .threads = 1, .n_devices = 1, .standby = standby, .devices = {{.name = "cpu"}}};
    struct device_list list;
    struct err err;
    if (device_list_parse(devices ? devices : "cpu", &list, &err) != 0)
        rig_bail(devices, &err);
    for (unsigned i = 0; i < list.n; i++) {
        struct topology_device *d = &node.devices[strcmp(list.item[i].name, "cpu") == 0 ? 0 : node.n_devices++];
        /* Of a GPU plans leave more free. */
        *d = (struct topology_device){.name = list.item[i].name,
                                      .memory_bytes = list.item[i].kind == DEVICE_CPU ? memory : memory - PLAN_RESERVE_CPU + PLAN_RESERVE_GPU};
        if (list.item[i].kind != DEVICE_CPU)
            d->step_us = 1; /* so that plans want it, small as the models are */
    }
    if (topology_put(t, &node, &err) != 0)
        rig_bail("topology_put", &err);
}

/* What the workers of this machine will say in their hellos. */
static void adjust_bits(void *arg, struct plan_source *s)
{
    enum { ROWS = 1024, COLS = 4096 };
    struct backend *be = arg;
    for (uint32_t i = 0; i < s->in.n_nodes; i++)
        for (uint32_t type = 0; type < QUANT_TYPES; type++) {
            const struct quant_traits *t = quant_traits(type);
            for (uint32_t k = 0; t && t->computed && k < s->model.n_types; k++)
                if (strcmp(s->model.type_names[k], t->name) == 0)
                    s->nodes[i].devices[0].bits[k] = 8.0 * (double)be->ops->weight_bytes(be, (enum quant_type)type, ROWS, COLS) / ROWS / COLS;
        }
}

static bool fits(const char *model, unsigned nodes, uint64_t memory)
{
    struct plan_settings set = {.ctx = RIG_CTX, .parallel = RIG_PARALLEL, .max_rows = RIG_ROWS};
    struct err err;
    struct gguf *g = gguf_open(model, true, &err);
    struct model_params p;
    struct topology *t = topology_create(&err);
    struct plan_source *s = mem_new(1, sizeof *s, &err);
    struct backend *be = backend_cpu_create(1, NULL, &err);
    struct plan plan;
    char name[16];

    if (!g || !t || !s || !be || model_params_read(g, &p, &err) != 0)
        rig_bail("the model", &err);
    for (unsigned i = 0; i < nodes; i++) {
        snprintf(name, sizeof name, "n%u", i);
        put_node(t, name, NULL, NULL, memory, false, NULL);
    }
    bool good = plan_source_make(s, g, &p, t, &set, adjust_bits, be, &plan, &err) == 0;
    backend_destroy(be);
    plan_source_fini(s);
    free(s);
    topology_destroy(t);
    gguf_close(g);
    return good;
}

uint64_t rig_memory_for(const char *model, unsigned nodes)
{
    uint64_t least = 0, most = (uint64_t)4 << 30;
    while (most - least > 4096) {
        uint64_t middle = least + (most - least) / 2;
        if (fits(model, nodes, middle))
            most = middle;
        else
            least = middle;
    }
    return most;
}

static struct keys *open_keys(const struct rig *rig, const char *name)
{
    char dir[400];
    struct err err;
    snprintf(dir, sizeof dir, "%s/keys-%s", rig->folder, name);
    struct keys *k = keys_open(dir, name, &err);
    if (!k)
        rig_bail("keys_open", &err);
    return k;
}

static struct rig *open_rig; /* one at a time */

/* A test that bails out leaves no process behind, either. */
static void end_all(void)
{
    for (unsigned i = 0; open_rig && i < open_rig->n; i++) {
        if (open_rig->nodes[i].pid)
            kill(open_rig->nodes[i].pid, SIGKILL);
        if (open_rig->nodes[i].relay)
            kill(open_rig->nodes[i].relay, SIGKILL);
    }
}

struct rig *rig_create(const char *model, unsigned n, unsigned standby, uint64_t memory)
{
    static const char *const none[RIG_NODES_MAX];
    return rig_create_on(model, n, standby, memory, none);
}

struct rig *rig_create_on(const char *model, unsigned n, unsigned standby, uint64_t memory, const char *const *devices)
{
    static unsigned serial;
    struct rig *rig = calloc(1, sizeof *rig);
    struct err err;

    if (!rig || !(rig->topology = topology_create(&err)))
        rig_bail("rig", NULL);
    if (serial == 0)
        atexit(end_all);
    open_rig = rig;
    snprintf(rig->folder, sizeof rig->folder, "%s/rig%u", model_folder(), serial++);
    if (mkdir(rig->folder, 0700) != 0)
        rig_bail(rig->folder, NULL);
    snprintf(rig->model, sizeof rig->model, "%.*s", (int)(strrchr(model, '/') - model), model);
    struct keys *own = open_keys(rig, "chief");
    for (unsigned i = 0; i < n; i++) {
        struct rig_node *node = &rig->nodes[rig->n++];
        char address[64];
        snprintf(node->name, sizeof node->name, "n%u", i);
        struct keys *k = open_keys(rig, node->name);
        if (keys_trust(k, "chief", keys_public(own), &err) != 0)
            rig_bail("keys_trust", &err);
        key_format(keys_public(k), rig->key[i]);
        keys_close(k);
        node->port = free_port();
        start_relay(node);
        snprintf(node->devices, sizeof node->devices, "%s", devices[i] ? devices[i] : "");
        rig_start(rig, i);
        snprintf(address, sizeof address, "tcp://127.0.0.1:%d", node->relay_port);
        put_node(rig->topology, node->name, address, rig->key[i], memory, i + standby >= n, devices[i]);
    }
    keys_close(own);
    return rig;
}

static void end_process(pid_t pid, int sig)
{
    if (!pid)
        return;
    kill(pid, sig);
    kill(pid, SIGCONT);
    for (int64_t until = rig_now_ms() + END_MS; waitpid(pid, NULL, WNOHANG) == 0; rig_sleep_ms(5))
        if (rig_now_ms() > until) {
            tap_note("a process did not end within %d s of signal %d", END_MS / 1000, sig);
            kill(pid, SIGKILL);
            until = INT64_MAX;
        }
}

void rig_destroy(struct rig *rig)
{
    for (unsigned i = 0; i < rig->n; i++)
        end_process(rig->nodes[i].pid, SIGTERM);
    for (unsigned i = 0; i < rig->n; i++) {
        close(rig->nodes[i].relay_in);
        close(rig->nodes[i].relay_out);
        end_process(rig->nodes[i].relay, SIGTERM);
    }
    topology_destroy(rig->topology);
    open_rig = NULL;
    free(rig);
}

void rig_pin(struct rig *rig, unsigned stages, unsigned layers)
{
    rig->topology->n_pins = stages;
    for (unsigned i = 0; i < stages; i++)
        rig->topology->pins[i] = (struct topology_pin){.what = TOPOLOGY_PIN_LAYERS, .first = layers * i / stages,
                                                       .last = layers * (i + 1) / stages - 1, .node = i};
}

struct engine_options rig_options(struct rig *rig, const char *model, unsigned workers)
{
    static char keys[400];
    struct engine_options o = {.model = model, .program = rig_program(), .workers = workers, .threads = 1, .ctx = RIG_CTX,
                               .parallel = RIG_PARALLEL, .batch_rows = RIG_ROWS, .gather_ms = 10000, .note = on_note};
    if (rig) {
        snprintf(keys, sizeof keys, "%s/keys-chief", rig->folder);
        o.topology = rig->topology;
        o.keys_dir = keys;
    }
    return o;
}

struct engine *rig_engine(const struct engine_options *o)
{
    struct err err;
    struct engine *e = engine_create(o, &err);
    if (!e)
        rig_bail("engine_create", &err);
    int rc = engine_wait_ready(e, READY_MS, &err);
    if (rc > 0)
        err_set(&err, ERR_LIMIT, "not ready after %d ms", READY_MS);
    if (rc != 0)
        rig_bail("engine_wait_ready", &err);
    return e;
}

/* --- what a process holds ------------------------------------------------------------------------------------------------ */

int rig_fds(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n - 2;
}

/* A line of what the system says of a process, "VmRSS:" for one; -1: it has ended. */
static long status_kib(pid_t pid, const char *name)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && kib < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), "%ld", &kib);
    if (f)
        fclose(f);
    return kib;
}

long rig_rss_kib(pid_t pid)
{
    return status_kib(pid, "VmRSS:");
}

/* What it has now and a little more: nothing that a layer needs, but what libzmq asks for, which ends the process where it gets none. A
 * thread that starts maps its heap twice and gives half of it back: so "now" is when it has stayed the same for a while. */
void rig_limit_memory(pid_t pid, bool on)
{
    enum { MORE_KIB = 384, SAME = 10, TRIES = 500, PAUSE_MS = 5 };
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

    if (on) {
        long kib = status_kib(pid, "VmSize:");
        for (int same = 0, i = 0; kib >= 0 && same < SAME && i < TRIES; i++) {
            long before = kib;
            rig_sleep_ms(PAUSE_MS);
            kib = status_kib(pid, "VmSize:");
            same = kib == before ? same + 1 : 0;
        }
        if (kib < 0)
            return; /* it has ended */
        limit.rlim_cur = (rlim_t)(kib + MORE_KIB) << 10;
    }
    prlimit(pid, RLIMIT_AS, &limit, NULL);
}

unsigned rig_said(const struct rig *rig, unsigned node, const char *text)
{
    char path[400], line[512];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/%s.log", rig->folder, rig->nodes[node].name);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return n;
}
