#include "tests/pipeline/remote.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model/sampler.h"
#include "model/session.h"
#include "proto/keys.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { CASES = 4, PROMPT = 70, EVENT_MS = 60000, STOP_MS = 15000, NOTES_LOOK_MS = 50 };

static int32_t prompts[CASES][PROMPT], wanted[CASES][REMOTE_TOKENS];

static void bail(const char *what, const struct err *err)
{
    printf("Bail out! %s: %s\n", what, err ? err->text : strerror(errno));
    exit(1);
}

static void sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void path_in(char *ret, const char *folder, const char *name)
{
    if (snprintf(ret, REMOTE_PATH, "%s/%s", folder, name) >= REMOTE_PATH)
        bail("a path is too long", NULL);
}

unsigned remote_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        bail("a port", NULL);
    close(fd);
    return ntohs(a.sin_port);
}

void remote_init(struct remote *r, const char *name, unsigned n)
{
    struct err err;
    const char *build = getenv("SC_BUILD");

    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->notes_lock, NULL);
    snprintf(r->program, sizeof r->program, "%s/stagecoach", build ? build : ".");
    snprintf(r->folder, sizeof r->folder, "%s/%s.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
    if (!mkdtemp(r->folder))
        bail(r->folder, NULL);
    path_in(r->keys, r->folder, "keys");
    path_in(r->topology_path, r->folder, "cluster.yaml");
    snprintf(r->listen, sizeof r->listen, "tcp://127.0.0.1:%u", remote_port());
    struct keys *own = keys_open(r->keys, "boss", &err);
    if (!own || keys_set_name(own, "head-office", &err) != 0) /* not what the others call it */
        bail("keys", &err);
    key_format(keys_public(own), r->key);
    r->n = n;
    for (unsigned i = 0; i < n; i++) {
        struct remote_node *node = &r->nodes[i];
        snprintf(node->name, sizeof node->name, "node%u", i);
        path_in(node->folder, r->folder, node->name);
        if (mkdir(node->folder, 0700) != 0)
            bail(node->folder, NULL);
        path_in(node->keys, node->folder, "keys");
        path_in(node->log, node->folder, "log");
        struct keys *k = keys_open(node->keys, node->name, &err);
        if (!k || keys_set_name(k, node->name, &err) != 0 || keys_trust(k, "boss", keys_public(own), &err) != 0)
            bail("a node's keys", &err);
        key_format(keys_public(k), node->key);
        keys_close(k);
        remote_dialable(r, i, true);
    }
    keys_close(own);
}

void remote_dialable(struct remote *r, unsigned node, bool on)
{
    r->nodes[node].address[0] = '\0';
    if (on)
        snprintf(r->nodes[node].address, sizeof r->nodes[node].address, "tcp://127.0.0.1:%u", remote_port());
}

void remote_start(struct remote *r, unsigned node, const char *const *more)
{
    struct remote_node *n = &r->nodes[node];
    const char *args[REMOTE_ARGS] = {r->program, "worker", "--keys", n->keys, "--threads", "1"};
    unsigned k = 6;
    bool joins = false;

    for (; more && *more; more++) {
        joins = joins || strcmp(*more, "--join") == 0;
        args[k++] = *more;
    }
    if (n->address[0] || !joins) {
        args[k++] = n->address[0] ? "--listen" : "--coordinator";
        args[k++] = n->address[0] ? n->address : r->listen;
    }
    fflush(stdout);
    if ((n->pid = fork()) < 0)
        bail("fork", NULL);
    if (n->pid == 0) {
        int log = open(n->log, O_WRONLY | O_CREAT | O_APPEND, 0600), null = open("/dev/null", O_RDONLY);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, 0);
        dup2(log, 1);
        dup2(log, 2);
        execv(r->program, (char *const *)(uintptr_t)args);
        _exit(127);
    }
}

void remote_stop(struct remote *r, unsigned node, int sig)
{
    struct remote_node *n = &r->nodes[node];
    unsigned waited = 0;

    if (n->pid <= 0)
        return;
    kill(n->pid, sig);
    while (waitpid(n->pid, NULL, WNOHANG) == 0) {
        sleep_ms(20);
        if ((waited += 20) > STOP_MS) {
            tap_note("%s does not end", n->name);
            kill(n->pid, SIGKILL);
            waited = 0;
        }
    }
    n->pid = 0;
}

void remote_write_topology(struct remote *r, unsigned mask, unsigned with_keys)
{
    FILE *f = fopen(r->topology_path, "w");
    if (!f)
        bail(r->topology_path, NULL);
    fprintf(f, "cluster: test\ncoordinator: {listen: \"%s\"}\nnodes:\n", r->listen);
    for (unsigned i = 0; i < r->n; i++) {
        const struct remote_node *n = &r->nodes[i];
        if (!(mask >> i & 1))
            continue;
        fprintf(f, "  %s:\n    ram: 4GiB\n", n->name);
        if (n->address[0])
            fprintf(f, "    address: %s\n", n->address);
        if (with_keys >> i & 1)
            fprintf(f, "    key: %s\n", n->key);
    }
    for (unsigned i = 0, pins = 0; i < r->n; i++) { /* every node gets its part, however small the model is */
        if (!(mask >> i & 1))
            continue;
        if (pins++ == 0)
            fprintf(f, "pins:\n");
        fprintf(f, "  - {layers: %u-%u, node: %s}\n", pins - 1, pins - 1, r->nodes[i].name);
    }
    fclose(f);
}

static void on_note(void *arg, const struct engine_note *note)
{
    struct remote *r = arg;
    pthread_mutex_lock(&r->notes_lock);
    size_t len = strlen(r->notes);
    if (note->kind == ENGINE_NOTE_PROGRESS)
        snprintf(r->notes + len, sizeof r->notes - len, "progress %s: %s\n", note->node, note->text);
    else
        snprintf(r->notes + len, sizeof r->notes - len, "%s\n", note->text);
    pthread_mutex_unlock(&r->notes_lock);
    if (note->kind == ENGINE_NOTE_TROUBLE)
        tap_note("%s", note->text);
}

bool remote_said(struct remote *r, const char *text, unsigned ms)
{
    for (;;) {
        pthread_mutex_lock(&r->notes_lock);
        bool said = strstr(r->notes, text);
        pthread_mutex_unlock(&r->notes_lock);
        if (said || ms == 0)
            return said;
        unsigned wait = ms < NOTES_LOOK_MS ? ms : NOTES_LOOK_MS;
        sleep_ms(wait);
        ms -= wait;
    }
}

void remote_open(struct remote *r, const char *model, uint32_t ctx)
{
    struct err err;
    struct engine_options o = {.model = model, .topology_path = r->topology_path, .keys_dir = r->keys, .ctx = ctx, .parallel = 4, .batch_rows = 32,
                               .note = on_note, .note_arg = r};

    r->notes[0] = '\0';
    if (!(r->topology = o.topology = topology_load(r->topology_path, &err)))
        bail("topology_load", &err);
    if (!(r->engine = engine_create(&o, &err)))
        bail("engine_create", &err);
}

bool remote_ready(struct remote *r)
{
    struct err err;
    int rc = engine_wait_ready(r->engine, REMOTE_READY_MS, &err);
    if (rc != 0)
        tap_note("not ready: %s", rc < 0 ? err.text : "time is over");
    return rc == 0;
}

void remote_close(struct remote *r)
{
    engine_destroy(r->engine);
    topology_destroy(r->topology);
    r->engine = NULL;
    r->topology = NULL;
}

void remote_fini(struct remote *r)
{
    char command[REMOTE_PATH + 16];
    remote_close(r);
    for (unsigned i = 0; i < r->n; i++)
        remote_stop(r, i, SIGTERM);
    snprintf(command, sizeof command, "rm -rf '%s'", r->folder);
    if (system(command) != 0)
        tap_note("%s is left behind", r->folder);
}

static char *read_log(const char *path)
{
    static char text[1 << 20];
    int fd = open(path, O_RDONLY);
    ssize_t len = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    text[len > 0 ? len : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return text;
}

size_t remote_log_count(const char *path, const char *text)
{
    size_t n = 0;
    for (const char *at = read_log(path); (at = strstr(at, text)); at++)
        n++;
    return n;
}

bool remote_log_has(const char *path, const char *text, unsigned ms)
{
    for (unsigned waited = 0; !strstr(read_log(path), text); waited += 20) {
        if (waited >= ms)
            return false;
        sleep_ms(20);
    }
    return true;
}

/* --- answers -------------------------------------------------------------------------------------------------------------- */

void remote_want(const char *model, uint32_t ctx)
{
    struct err err;
    struct session_options o = {.threads = 1, .ctx = ctx, .parallel = 1, .batch_rows = 16};
    struct session *s = session_open(model, &o, &err);
    if (!s)
        bail("session_open", &err);
    uint32_t n_vocab = session_n_vocab(s);
    struct sampler *sampler = sampler_create(n_vocab, NULL, &err);
    struct sample_params greedy = SAMPLE_PARAMS_DEFAULT;
    greedy.temperature = 0;
    for (uint32_t c = 0; c < CASES; c++) {
        int32_t all[PROMPT + REMOTE_TOKENS];
        uint32_t n_prompt = PROMPT - 11 * c, n = n_prompt;
        float logprob;
        for (uint32_t k = 0; k < n_prompt; k++)
            all[k] = prompts[c][k] = (int32_t)((k * 7919 + c * 104729 + k * k * 31) % n_vocab);
        session_cut(s, 0, 0);
        for (uint32_t pos = 0; n < n_prompt + REMOTE_TOKENS; pos++) {
            struct session_row row = {.pos = pos, .token = all[pos], .want = true};
            if (session_step(s, &row, 1, &err) != 0)
                bail("session_step", &err);
            if (pos + 1 < n)
                continue;
            if (sampler_sample(sampler, &greedy, session_logits(s, 0), all, n, 0, n, &all[n], &logprob, &err) != 0)
                bail("sampler_sample", &err);
            n++;
        }
        memcpy(wanted[c], all + n_prompt, sizeof wanted[c]);
    }
    sampler_destroy(sampler);
    session_close(s);
}

static bool same(struct engine_request *request, const int32_t *want)
{
    struct engine_event ev;
    uint32_t n = 0;
    bool good = true;
    for (;;) {
        if (engine_next(request, EVENT_MS, &ev) != 0 || ev.kind == ENGINE_FAILED) {
            tap_note("after %u tokens: %s", n, ev.kind == ENGINE_FAILED ? ev.err.text : "nothing comes");
            return false;
        }
        if (ev.kind == ENGINE_DONE)
            return good && n == REMOTE_TOKENS;
        if (ev.kind == ENGINE_TOKEN && n < REMOTE_TOKENS)
            good = good && ev.token == want[n++];
    }
}

bool remote_same(struct remote *r)
{
    struct engine_request *requests[CASES];
    struct err err;
    bool good = true;
    for (uint32_t c = 0; c < CASES; c++) {
        struct engine_params p = {.tokens = prompts[c], .n_tokens = PROMPT - 11 * c, .n_new = REMOTE_TOKENS, .sample = SAMPLE_PARAMS_DEFAULT};
        p.sample.temperature = 0;
        if (!(requests[c] = engine_submit(r->engine, &p, &err)))
            bail("engine_submit", &err);
    }
    for (uint32_t c = 0; c < CASES; c++) {
        good = same(requests[c], wanted[c]) && good;
        engine_release(requests[c]);
    }
    return good;
}
