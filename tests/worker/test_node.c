/* Real worker processes, driven by a coordinator made of nothing but proto/: configured, loaded, run, configured anew, fought over by
 * two coordinators, fed with nonsense, stopped, killed. What they compute is compared with one plain session. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gguf/gguf.h"
#include "model/session.h"
#include "proto/codec.h"
#include "proto/invite.h"
#include "proto/keys.h"
#include "proto/wire.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { LAYERS = 4, LENGTH = 40, MAX_WORKERS = 3, DEVICES = 2, CTX = 128, ROWS = 64, SLOTS = 2, HEAD_BYTES = 1 << 16, PATIENCE_MS = 20000 };

extern char **environ;
static struct err err;
static char folder[160], program[600], model_path[200], other_path[200];
static uint8_t model_id[MSG_ID_BYTES];
static int32_t tokens[LENGTH];
static float truth[LENGTH][MODEL_VOCAB];

static void die(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static void id_of(const char *path, uint8_t *ret)
{
    struct gguf *g = gguf_open(path, false, &err);
    if (!g)
        die(path);
    gguf_model_id(g, ret);
    gguf_close(g);
}

static void make_models(void)
{
    struct model_spec spec = *model_spec_of("llama");
    struct session_options o = {.threads = 1, .ctx = CTX, .batch_rows = LENGTH};
    struct session_row rows[LENGTH];

    snprintf(folder, sizeof folder, "%.150s", model_folder());
    snprintf(model_path, sizeof model_path, "%s/node.gguf", folder);
    snprintf(other_path, sizeof other_path, "%s/other.gguf", folder);
    spec.layers = LAYERS;
    model_write(&spec, QUANT_Q8_0, model_path);
    model_write(model_spec_of("qwen2"), QUANT_Q8_0, other_path);
    id_of(model_path, model_id);
    struct session *s = session_open(model_path, &o, &err);
    if (!s)
        die("session");
    for (uint32_t i = 0; i < LENGTH; i++) {
        tokens[i] = (int32_t)(i * 37 % MODEL_VOCAB);
        rows[i] = (struct session_row){.pos = i, .token = tokens[i], .want = true};
    }
    if (session_step(s, rows, LENGTH, &err) != 0)
        die("session");
    for (uint32_t i = 0; i < LENGTH; i++)
        memcpy(truth[i], session_logits(s, i), sizeof truth[i]);
    session_close(s);
}

/* --- workers ------------------------------------------------------------------------------------------------------------- */

struct worker {
    pid_t pid;
    char name[MSG_MAX_NAME + 1], address[200], log[500];
    char keys[400];          /* its folder; "": ipc */
    uint8_t key[KEY_BYTES];
};

static void start(struct worker *w, int number, const char *const *more)
{
    const char *argv[32] = {program, "worker", "--listen", w->address, "--name", w->name, "--threads", "1", "--no-measure"};
    posix_spawn_file_actions_t files;
    int n = 9, rc;

    snprintf(w->name, sizeof w->name, "w%d", number);
    if (w->keys[0]) {
        snprintf(w->address, sizeof w->address, "tcp://127.0.0.1:*");
        argv[n++] = "--keys";
        argv[n++] = w->keys;
    } else {
        snprintf(w->address, sizeof w->address, "ipc://%s/%d", folder, number);
        unlink(w->address + strlen("ipc://"));
    }
    snprintf(w->log, sizeof w->log, "%s/%d.log", folder, number);
    for (; more && *more; more++)
        argv[n++] = *more;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addopen(&files, 2, w->log, 01102 /* O_RDWR | O_CREAT | O_TRUNC */, 0600);
    rc = posix_spawn(&w->pid, program, &files, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (rc != 0) {
        err_errno(&err, rc, "%s", program);
        die("start");
    }
}

/* Its exit status, or -1 after killing it: it should have ended by itself. */
static int ended(struct worker *w, int within_ms)
{
    int status = 0;
    for (uint64_t until = now_ms() + (uint64_t)within_ms; now_ms() < until; sleep_ms(5))
        if (waitpid(w->pid, &status, WNOHANG) == w->pid) {
            w->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    kill(w->pid, SIGKILL);
    waitpid(w->pid, &status, 0);
    w->pid = 0;
    return -1;
}

static void stop(struct worker *w)
{
    if (w->pid) {
        kill(w->pid, SIGKILL);
        waitpid(w->pid, NULL, 0);
        w->pid = 0;
    }
}

static bool logged(const struct worker *w, const char *text)
{
    char buf[16384];
    FILE *f = fopen(w->log, "rb");
    size_t n = f ? fread(buf, 1, sizeof buf - 1, f) : 0;
    if (f)
        fclose(f);
    buf[n] = 0;
    if (strstr(buf, text))
        return true;
    tap_note("log of %s: %s", w->name, buf);
    return false;
}

/* --- a coordinator -------------------------------------------------------------------------------------------------------- */

struct member {
    struct wire_link *control;
    bool up, down, hello_seen, ready, failed, draining;
    char down_text[512], error_text[MSG_MAX_TEXT + 1];
    uint32_t error_kind;
    struct msg_resident resident; /* the first */
    size_t n_resident, n_devices, n_ready;
    char device[DEVICES][MSG_MAX_NAME + 1];
    uint64_t error_memory;
    bool has_resident;
    size_t n_models;
    uint64_t memory_bytes, beats, longest_pause_ms, last_beat_ms, done_steps, read_bytes;
};

struct boss {
    struct keys *keys; /* NULL: ipc */
    struct wire_net *net;
    struct wire *wire;
    struct codec *codec;
    struct msg_epoch epoch;
    struct member member[MAX_WORKERS];
    struct wire_link *first, *last;
    uint64_t n_results;
    struct msg_result_row row; /* the last result's only one */
    float given[MODEL_VOCAB];
    char result_error[MSG_MAX_TEXT + 1];
    uint64_t batch, result_batch;
    bool accepting; /* links that are dialed to us */
    bool first_up, last_up;
    uint8_t head[HEAD_BYTES];
};

static void boss_open_with(struct boss *b, const char *name, struct keys *keys)
{
    struct wire_net_options o = {.node = name, .keys = keys};
    memset(b, 0, sizeof *b);
    b->keys = keys;
    if (!(b->net = wire_net_create(&o, &err)) || !(b->wire = wire_create(b->net, &err)) || !(b->codec = codec_create(CODEC_SMALL_BYTES, &err)))
        die("coordinator");
    b->epoch.instance = wire_net_instance(b->net);
}

static void boss_open(struct boss *b, const char *name)
{
    boss_open_with(b, name, NULL);
}

static void boss_close(struct boss *b)
{
    wire_destroy(b->wire);
    wire_net_destroy(b->net);
    codec_destroy(b->codec);
}

static void boss_dial(struct boss *b, int i, const struct worker *w)
{
    struct wire_dial d = {.endpoint = w->address, .purpose = LINK_CONTROL, .key = w->keys[0] ? w->key : NULL};
    memset(&b->member[i], 0, sizeof b->member[i]);
    if (!(b->member[i].control = wire_dial(b->wire, &d, &err)))
        die("dial");
    wire_link_set_user(b->member[i].control, &b->member[i]);
}

static void take_control(struct boss *b, struct member *m, const struct msg *in)
{
    switch (in->type) {
    case MSG_HELLO:
        m->hello_seen = true;
        m->has_resident = in->hello.n_resident > 0;
        if (m->has_resident)
            m->resident = in->hello.resident[0];
        m->n_resident = in->hello.n_resident;
        m->n_devices = in->hello.n_devices;
        for (size_t i = 0; i < in->hello.n_devices && i < DEVICES; i++)
            snprintf(m->device[i], sizeof m->device[i], "%s", in->hello.devices[i].name);
        m->n_models = in->hello.n_models;
        m->memory_bytes = in->hello.devices[0].memory_bytes;
        break;
    case MSG_READY:
        m->ready = msg_epoch_same(in->ready.epoch, b->epoch);
        m->n_ready += m->ready;
        m->read_bytes = in->ready.read_bytes;
        break;
    case MSG_ERROR:
        m->failed = m->failed || msg_epoch_same(in->error.epoch, b->epoch); /* neighbours of an epoch that ends may complain */
        m->error_kind = in->error.kind;
        m->error_memory = in->error.memory_bytes;
        snprintf(m->error_text, sizeof m->error_text, "%s", in->error.text);
        break;
    case MSG_HEARTBEAT:
        if (m->beats++ && now_ms() - m->last_beat_ms > m->longest_pause_ms)
            m->longest_pause_ms = now_ms() - m->last_beat_ms;
        m->last_beat_ms = now_ms();
        break;
    case MSG_STAGE_DONE: m->done_steps++; break;
    case MSG_DRAIN: m->draining = true; break;
    default: break;
    }
}

static void take_result(struct boss *b, const struct msg *in)
{
    if (in->type != MSG_RESULT)
        return;
    b->n_results++;
    b->result_batch = in->result.batch;
    snprintf(b->result_error, sizeof b->result_error, "%s", in->result.error);
    if (in->result.n_rows == 1) {
        b->row = in->result.rows[0];
        memcpy(b->given, b->row.given, b->row.n_given * sizeof *b->given);
    }
}

static void take_event(struct boss *b, struct wire_event *e)
{
    struct member *m = e->link ? wire_link_user(e->link) : NULL;
    struct msg in;
    if (e->kind == WIRE_UP && b->accepting && !wire_link_dialed(e->link)) {
        if (wire_link_purpose(e->link) == LINK_CONTROL) {
            wire_link_set_user(e->link, &b->member[0]);
            b->member[0].control = e->link;
        } else { /* upstream: it receives our steps */
            *(wire_link_hello(e->link)->upstream ? &b->first : &b->last) = e->link;
        }
        return;
    }
    if (e->kind == WIRE_UP && !m) {
        b->first_up = b->first_up || e->link == b->first;
        b->last_up = b->last_up || e->link == b->last;
    } else if (e->kind == WIRE_UP) {
        m->up = true;
        if (b->epoch.counter == 0) /* a welcome as coordinators give it */
            wire_send_msg(e->link, &(struct msg){.type = MSG_WELCOME, .welcome = {.instance = b->epoch.instance, .node = "boss", .version = "test"}},
                          NULL, 0, NULL, NULL, NULL);
    } else if (e->kind == WIRE_DOWN && m) {
        m->down = true;
        m->control = NULL;
        snprintf(m->down_text, sizeof m->down_text, "%s", e->text);
    } else if (e->kind == WIRE_DOWN) {
        b->first = e->link == b->first ? NULL : b->first;
        b->last = e->link == b->last ? NULL : b->last;
    } else if (e->kind == WIRE_FRAME) {
        if (codec_decode(b->codec, e->frame->type, e->frame->head, e->frame->head_len, e->frame->payload_len, &in, &err) != 0)
            die("a worker's message");
        if (m)
            take_control(b, m, &in);
        else
            take_result(b, &in);
        wire_frame_release(e->frame);
    }
}

/* Works off events until *what is set, or patience is over. */
static bool until(struct boss *b, const bool *what, int ms)
{
    struct wire_event e;
    uint64_t end = now_ms() + (uint64_t)ms;
    while (!(what && *what) && now_ms() < end)
        if (wire_poll(b->wire, 20, NULL, 0, &e, &err) == 1)
            take_event(b, &e);
    return what && *what;
}

static void boss_send(struct boss *b, int i, const struct msg *m)
{
    (void)b;
    if (!b->member[i].control || wire_send_msg(b->member[i].control, m, NULL, 0, NULL, NULL, &err) != WIRE_SENT)
        die("send");
}

/* Layers of stage i begin at first[i]; n + 1 entries. */
static struct msg_configure configuration(struct boss *b, const struct worker *w, uint32_t i, uint32_t n, const uint32_t *first)
{
    struct msg_configure c = {
        .epoch = b->epoch, .stage = i, .n_stages = n, .device = "cpu", .layer_first = first[i], .layer_end = first[i + 1], .embed = i == 0,
        .head = i + 1 == n, .kv = MSG_KV_F16, .ctx = CTX, .n_blocks = {8, 0}, .max_rows = ROWS, .max_wanted = 8, .max_seqs = SLOTS,
        .table_stride = CTX / 32, .isa = "", .window_frames = 4, .window_bytes = 1 << 20, .heartbeat_ms = 100, .lost_ms = 1000, .orphan_ms = 60000,
        .previous = {.key = i && w[i].keys[0] ? w[i - 1].key : b->keys ? keys_public(b->keys) : NULL, .reach = REACH_AWAIT, .node = i ? w[i - 1].name : wire_net_node(b->net), .address = "", .stage = i ? i - 1 : MSG_STAGE_COORDINATOR},
        .next = {.key = i + 1 < n && w[i].keys[0] ? w[i + 1].key : b->keys ? keys_public(b->keys) : NULL, .reach = i + 1 < n ? REACH_DIAL : REACH_AWAIT, .node = i + 1 < n ? w[i + 1].name : wire_net_node(b->net),
                 .address = i + 1 < n ? w[i + 1].address : "", .stage = i + 1 < n ? i + 1 : MSG_STAGE_COORDINATOR},
    };
    memcpy(c.model, model_id, sizeof c.model);
    return c;
}

static void boss_configure(struct boss *b, const struct worker *w, uint32_t n, const uint32_t *first, bool keep_kv)
{
    b->epoch.counter++;
    for (uint32_t i = 0; i < n; i++) {
        struct msg m = {.type = MSG_CONFIGURE, .configure = configuration(b, w, i, n, first)};
        m.configure.keep_kv = keep_kv;
        b->member[i].ready = b->member[i].failed = false;
        boss_send(b, (int)i, &m);
    }
}

static struct wire_link *dial_data(struct boss *b, const struct worker *w, bool upstream)
{
    struct wire_dial d = {.endpoint = w->address, .purpose = LINK_DATA, .key = w->keys[0] ? w->key : NULL, .node = w->name, .epoch = b->epoch, .stage = MSG_STAGE_COORDINATOR,
                          .upstream = upstream};
    struct wire_link *link = wire_dial(b->wire, &d, &err);
    if (!link)
        die("data link");
    return link;
}

static bool all_ready(struct boss *b, const struct worker *w, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!until(b, &b->member[i].ready, PATIENCE_MS)) {
            tap_note("stage %u is not ready: %s", i, b->member[i].error_text);
            return false;
        }
    b->first_up = b->last_up = false;
    b->first = dial_data(b, &w[0], false);
    b->last = dial_data(b, &w[n - 1], true);
    return until(b, &b->first_up, PATIENCE_MS) && until(b, &b->last_up, PATIENCE_MS);
}

/* Sends a step; waits for its result, where it has wants or nothing at all. */
static bool run_step(struct boss *b, struct msg_step step)
{
    struct msg m = {.type = MSG_STEP, .step = step};
    uint64_t before = b->n_results, end;
    m.step.epoch = b->epoch;
    m.step.batch = ++b->batch;
    if (!b->first || wire_send_msg(b->first, &m, NULL, 0, NULL, NULL, &err) != WIRE_SENT)
        return false;
    if (step.n_wants == 0 && step.n_rows > 0)
        return true;
    for (end = now_ms() + PATIENCE_MS; b->n_results == before && now_ms() < end && !b->member[0].failed;)
        until(b, NULL, 1);
    return b->n_results == before + 1 && b->result_batch == b->batch;
}

/* Positions [from, from + n) of the text in slot 0; opens it where from is 0. All log-probabilities of the last position against the truth. */
static bool feed(struct boss *b, uint32_t from, uint32_t n, uint32_t stop_stage)
{
    static int32_t all[MODEL_VOCAB];
    uint32_t slot[LENGTH] = {0}, pos[LENGTH], blocks[2] = {5, 2};
    struct msg_op ops[] = {{.kind = OP_SEQ_OPEN, .seq = 9, .tokens = tokens, .n_tokens = LENGTH,
                            .sample = {.top_p = 1, .typical_p = 1, .repetition_penalty = 1}}};
    struct msg_delta delta = {.blocks = blocks, .n_blocks = 2};
    struct msg_want want = {.row = n - 1, .flags = WANT_GIVEN | WANT_SAMPLE, .given = all, .n_given = MODEL_VOCAB};
    struct msg_step step = {.ops = ops, .n_ops = from == 0, .deltas = &delta, .n_deltas = from == 0, .n_rows = n, .slot = slot, .pos = pos,
                            .token = tokens + from, .wants = &want, .n_wants = stop_stage == MSG_STOP_NONE, .stop_stage = stop_stage};
    int32_t best = 0;
    for (uint32_t i = 0; i < n; i++)
        pos[i] = from + i;
    for (int32_t i = 0; i < MODEL_VOCAB; i++) {
        all[i] = i;
        best = truth[from + n - 1][i] > truth[from + n - 1][best] ? i : best;
    }
    if (!run_step(b, step))
        return false;
    if (stop_stage != MSG_STOP_NONE)
        return true;
    if (b->result_error[0]) {
        tap_note("%s", b->result_error);
        return false;
    }
    /* A log-probability is its logit less the same number for all: logits' differences must be theirs. */
    for (int32_t i = 0; i < MODEL_VOCAB; i++) {
        double want_diff = (double)truth[from + n - 1][i] - truth[from + n - 1][best], got = (double)b->given[i] - b->given[best];
        if (want_diff - got > 1e-5 || got - want_diff > 1e-5)
            return false;
    }
    return b->row.token == best;
}

static bool feed_all(struct boss *b)
{
    return feed(b, 0, 10, MSG_STOP_NONE) && feed(b, 10, 1, MSG_STOP_NONE) && feed(b, 11, 20, MSG_STOP_NONE) && feed(b, 31, 1, MSG_STOP_NONE) &&
           feed(b, 32, 3, MSG_STOP_NONE);
}

/* --- the tests ------------------------------------------------------------------------------------------------------------ */

static const uint32_t halves[] = {0, 2, 4}, thirds[] = {0, 1, 3, 4}, whole[] = {0, 4}, uneven[] = {0, 3, 4};

static void meet(struct boss *b, struct worker *w, int n)
{
    for (int i = 0; i < n; i++)
        for (uint64_t end = now_ms() + PATIENCE_MS; now_ms() < end;) { /* the socket appears some time after the process */
            boss_dial(b, i, &w[i]);
            while (!b->member[i].hello_seen && !b->member[i].down)
                until(b, &b->member[i].hello_seen, 20);
            if (b->member[i].hello_seen)
                break;
            sleep_ms(20);
        }
}

/* What a stage tells of its steps comes by another link than their results do. */
static bool all_told(struct boss *b, unsigned member, unsigned n)
{
    for (uint64_t end = now_ms() + PATIENCE_MS; b->member[member].done_steps < n && now_ms() < end;)
        until(b, NULL, 1);
    return b->member[member].done_steps >= n;
}

static void test_run(void)
{
    struct worker w[MAX_WORKERS] = {{0}};
    struct boss *b = malloc(sizeof *b);
    const char *const with_model[] = {"--model", model_path, NULL}, *const with_folder[] = {"--model-dir", folder, NULL};

    for (int i = 0; i < MAX_WORKERS; i++)
        start(&w[i], i, i == 1 ? with_folder : with_model);
    boss_open(b, "boss");
    meet(b, w, MAX_WORKERS);
    ok(b->member[0].hello_seen && b->member[1].hello_seen && b->member[2].hello_seen, "three workers say hello");
    is_int(b->member[0].n_models, 1, "the first one knows the model that it was given");
    is_int(b->member[1].n_models, 2, "the second all in its folder");
    ok(!b->member[0].has_resident && b->member[0].memory_bytes > 0, "nothing is loaded yet, there is memory");

    boss_configure(b, w, 3, thirds, false);
    ok(all_ready(b, w, 3), "three stages load");
    ok(run_step(b, (struct msg_step){.stop_stage = MSG_STOP_NONE}), "the chain answers its test");
    ok(feed_all(b), "three stages compute what one session does");
    ok(all_told(b, 1, 6), "each tells of every step");
    ok(feed(b, 0, 5, MSG_STOP_NONE) == false && strstr(b->member[0].error_text, "slot 0 is open already"), "a wrong step is told to the coordinator");

    boss_configure(b, w, 2, halves, false);
    ok(all_ready(b, w, 2), "two stages of other layers");
    ok(feed_all(b), "compute the same");
    boss_configure(b, w, 2, halves, true);
    ok(all_ready(b, w, 2), "the same again, with its KV");
    is_int(b->member[0].read_bytes + b->member[1].read_bytes, 0, "nothing is read for that");
    ok(feed(b, 0, 35, 0) && feed(b, 35, 2, MSG_STOP_NONE), "a rebuilt first stage and the second's old KV give the same");
    boss_configure(b, w, 2, uneven, false);
    ok(all_ready(b, w, 2) && feed_all(b), "one layer more on the first stage");
    ok(b->member[0].read_bytes > 4096 && b->member[1].read_bytes < 4096, "only that one is read (%llu and %llu bytes)", (unsigned long long)b->member[0].read_bytes,
       (unsigned long long)b->member[1].read_bytes);
    boss_configure(b, w, 1, whole, true);
    ok(until(b, &b->member[0].failed, PATIENCE_MS), "KV that is not there cannot be kept");
    has_str(b->member[0].error_text, "KV cache that is to be kept is not here", "it says so");
    boss_configure(b, w, 1, whole, false);
    ok(all_ready(b, w, 1) && feed_all(b), "one stage does everything");

    boss_configure(b, w, 2, uneven, false);
    boss_configure(b, w, 2, halves, false); /* before the first is done */
    ok(all_ready(b, w, 2) && feed_all(b), "a configuration overtakes another");
    ok(b->member[0].longest_pause_ms < 1000, "heartbeats came all the time; the longest pause was %llu ms",
       (unsigned long long)b->member[0].longest_pause_ms);
    boss_close(b);
    for (int i = 0; i < MAX_WORKERS; i++)
        stop(&w[i]);
    free(b);
}

/* Two stages of one worker: between them there is no link. */
static bool two_devices(struct boss *b, const struct worker *w, const uint32_t *first, bool keep_kv)
{
    const struct worker both[DEVICES] = {*w, *w};
    struct member *m = &b->member[0];
    b->epoch.counter++;
    m->n_ready = 0;
    m->failed = false;
    for (uint32_t i = 0; i < DEVICES; i++) {
        struct msg out = {.type = MSG_CONFIGURE, .configure = configuration(b, both, i, DEVICES, first)};
        struct msg_neighbour here = {.reach = REACH_PROCESS, .node = w->name, .address = "", .stage = 1 - i};
        out.configure.device = m->device[i];
        out.configure.keep_kv = keep_kv;
        *(i == 0 ? &out.configure.next : &out.configure.previous) = here;
        boss_send(b, 0, &out);
    }
    for (uint64_t end = now_ms() + PATIENCE_MS; m->n_ready < DEVICES && !m->failed && now_ms() < end;)
        until(b, NULL, 1);
    if (m->n_ready < DEVICES) {
        tap_note("%s", m->error_text);
        return false;
    }
    b->first_up = b->last_up = false;
    b->first = dial_data(b, w, false);
    b->last = dial_data(b, w, true);
    return until(b, &b->first_up, PATIENCE_MS) && until(b, &b->last_up, PATIENCE_MS);
}

static void test_devices(void)
{
    struct worker w = {0};
    struct boss *b = malloc(sizeof *b);
    const char *const args[] = {"--model", model_path, "--device", "cpu:0,cpu:1", "--ram", "1GiB", NULL};
    struct wire_net_options old = {.node = "old", .protocol_max = PROTOCOL_DEVICES - 1};
    struct msg out = {.type = MSG_RELEASE};

    start(&w, 0, args);
    boss_open(b, "boss");
    meet(b, &w, 1);
    is_int(b->member[0].n_devices, DEVICES, "a worker has two devices");
    is_str(b->member[0].device[0], "cpu:0", "as they were named");
    is_str(b->member[0].device[1], "cpu:1", "in order");
    is_int(b->member[0].memory_bytes, 512 << 20, "each may use half of --ram");
    ok(two_devices(b, &w, halves, false), "a stage on each");
    ok(run_step(b, (struct msg_step){.stop_stage = MSG_STOP_NONE}), "the chain answers its test");
    ok(feed_all(b), "they compute what one session does");
    ok(all_told(b, 0, 12), "each tells of every step");
    ok(two_devices(b, &w, halves, true) && feed(b, 0, 35, 0) && feed(b, 35, 2, MSG_STOP_NONE), "a rebuilt first stage and the second's old KV give the same");
    ok(feed(b, 0, 5, MSG_STOP_NONE) == false && strstr(b->member[0].error_text, "slot 0 is open already"), "a wrong step is told by the first");
    ok(two_devices(b, &w, uneven, false) && feed_all(b), "other cuts, the same");
    boss_configure(b, &w, 1, whole, false);
    ok(until(b, &b->member[0].failed, PATIENCE_MS), "\"cpu\" is no device of this worker");
    has_str(b->member[0].error_text, "known: cpu:0, cpu:1", "it says which are");
    ok(two_devices(b, &w, halves, false) && feed_all(b), "that did no harm");

    out.release = (struct msg_release){.epoch = b->epoch, .keep_weights = false, .device = "cpu:1"};
    boss_send(b, 0, &out);
    sleep_ms(100); /* the builder works it off */
    boss_close(b);
    sleep_ms(100);
    boss_open(b, "boss");
    meet(b, &w, 1);
    is_int(b->member[0].n_resident, 1, "one device was released, the other still holds its stage");
    is_str(b->member[0].device[0], "cpu:0", "the first");
    ok(two_devices(b, &w, halves, false) && feed_all(b), "both again");
    boss_close(b);
    sleep_ms(100);

    memset(b, 0, sizeof *b);
    if (!(b->net = wire_net_create(&old, &err)) || !(b->wire = wire_create(b->net, &err)) || !(b->codec = codec_create(CODEC_SMALL_BYTES, &err)))
        die("coordinator");
    meet(b, &w, 1);
    is_int(b->member[0].n_devices, 1, "a coordinator from before there were several hears of one");
    boss_close(b);
    kill(w.pid, SIGTERM);
    is_int(ended(&w, PATIENCE_MS), 0, "an orderly end");
    free(b);
}

static void bad_configure(struct boss *b, struct worker *w, void (*change)(struct msg_configure *c), uint32_t kind, const char *text)
{
    struct msg m = {.type = MSG_CONFIGURE};
    b->epoch.counter++;
    m.configure = configuration(b, w, 0, 1, whole);
    change(&m.configure);
    b->member[0].failed = b->member[0].ready = false;
    boss_send(b, 0, &m);
    ok(until(b, &b->member[0].failed, PATIENCE_MS), "refused: %s", text);
    has_str(b->member[0].error_text, text, "it says so");
    is_int(b->member[0].error_kind, kind, "of that kind");
}

static void no_model(struct msg_configure *c) { c->model[3] ^= 1; }
static void no_device(struct msg_configure *c) { c->device = "cuda:7"; }
static void many_layers(struct msg_configure *c) { c->layer_end = LAYERS + 1; }
static void no_head(struct msg_configure *c) { c->head = false; }
static void short_table(struct msg_configure *c) { c->table_stride = 2; }
static void no_blocks(struct msg_configure *c) { c->n_blocks[0] = 0; }
static void huge(struct msg_configure *c)
{
    c->n_blocks[0] = MSG_MAX_BLOCKS;
}
static void little(struct msg_configure *c) { c->memory_bytes = 4096; }

static void test_refusals(void)
{
    struct worker w = {0};
    struct boss *b = malloc(sizeof *b), *second = malloc(sizeof *second);
    const char *const args[] = {"--model", model_path, "--ram", "1GiB", NULL};
    struct msg nonsense = {.type = MSG_READY};

    start(&w, 0, args);
    boss_open(b, "boss");
    meet(b, &w, 1);
    is_int(b->member[0].memory_bytes, 1 << 30, "--ram is what the hello says");
    bad_configure(b, &w, no_model, ERR_NOT_FOUND, "is another model now");
    bad_configure(b, &w, no_device, ERR_UNSUPPORTED, "there is no device \"cuda:7\" here");
    bad_configure(b, &w, many_layers, ERR_INPUT, "layers 0 to 4 asked for, the model has 0 to 3");
    bad_configure(b, &w, no_head, ERR_INPUT, "the last gives logits");
    bad_configure(b, &w, short_table, ERR_INPUT, "tables of 2 blocks of 32 positions do not reach a context of 128");
    bad_configure(b, &w, no_blocks, ERR_INPUT, "no KV blocks for full attention");
    bad_configure(b, &w, huge, ERR_MEMORY, "1.0 GiB allowed by --ram; lower --ctx or add a node");
    has_str(b->member[0].error_text, "worker w0: layers 0-3 need", "and how much it would be");
    bad_configure(b, &w, little, ERR_MEMORY, "allowed by the topology");
    is_int(b->member[0].error_memory, 4096, "and a coordinator learns how much there is");
    boss_send(b, 0, &nonsense);
    boss_configure(b, &w, 1, whole, false);
    ok(all_ready(b, &w, 1) && feed_all(b), "after all this it still works");
    ok(logged(&w, "a ready message, which is not for workers"), "and has told of the message that was not for it");

    boss_open(second, "second");
    boss_dial(second, 0, &w);
    ok(until(second, &second->member[0].down, PATIENCE_MS), "a second coordinator is turned away");
    has_str(second->member[0].down_text, "belongs to another coordinator", "and told why");
    ok(!second->member[0].hello_seen && feed(b, 35, 1, MSG_STOP_NONE), "the first one is not disturbed");
    boss_close(b); /* it dies; another instance comes */
    sleep_ms(100);
    meet(second, &w, 1);
    ok(second->member[0].hello_seen && second->member[0].has_resident, "once the first is gone it is taken, and learns what is loaded");
    is_int(second->member[0].resident.layer_end, LAYERS, "all layers");
    is_mem(second->member[0].resident.model, model_id, sizeof model_id, "of that model");
    boss_configure(second, &w, 1, whole, false);
    ok(all_ready(second, &w, 1) && feed_all(second), "it goes on");
    is_int(second->member[0].read_bytes, 0, "without loading anything");
    boss_close(second);
    stop(&w);
    free(b);
    free(second);
}

static void test_ends(void)
{
    struct worker w = {0};
    struct boss *b = malloc(sizeof *b);
    const char *const args[] = {"--model", model_path, NULL}, *const child[] = {"--model", model_path, "--child", NULL};

    start(&w, 0, args);
    boss_open(b, "boss");
    meet(b, &w, 1);
    kill(w.pid, SIGTERM);
    ok(until(b, &b->member[0].draining, 5000), "SIGTERM: a worker without work says that it leaves");
    is_int(ended(&w, 5000), 0, "and ends at once, in order");

    start(&w, 0, args);
    meet(b, &w, 1);
    boss_configure(b, &w, 1, whole, false);
    ok(all_ready(b, &w, 1), "a worker at work");
    kill(w.pid, SIGTERM);
    ok(until(b, &b->member[0].draining, 5000), "SIGTERM: it asks to be left out");
    ok(feed(b, 0, 4, MSG_STOP_NONE), "until then it computes");
    boss_send(b, 0, &(struct msg){.type = MSG_RELEASE, .release = {.epoch = b->epoch}});
    is_int(ended(&w, 5000), 0, "released, it ends in order");

    start(&w, 0, args);
    meet(b, &w, 1);
    boss_configure(b, &w, 1, whole, false);
    ok(all_ready(b, &w, 1), "again");
    kill(w.pid, SIGTERM);
    until(b, &b->member[0].draining, 5000);
    kill(w.pid, SIGTERM);
    is_int(ended(&w, 3000), 0, "a second SIGTERM ends it at once");

    start(&w, 0, args);
    meet(b, &w, 1);
    kill(w.pid, SIGSTOP);
    b->member[0].beats = 0;
    until(b, NULL, 400);
    ok(b->member[0].beats <= 2, "a stopped one has no heartbeat");
    kill(w.pid, SIGCONT);
    b->member[0].beats = 0;
    until(b, NULL, 600);
    ok(b->member[0].beats >= 2, "it goes on when it is let");
    stop(&w);

    int pipes[2];
    pid_t parent;
    if (pipe(pipes) != 0)
        die("pipe");
    if ((parent = fork()) == 0) { /* a coordinator that dies */
        start(&w, 0, child);
        if (write(pipes[1], &w.pid, sizeof w.pid) != (ssize_t)sizeof w.pid)
            _exit(1);
        pause();
        _exit(0);
    }
    pid_t orphan = 0;
    if (read(pipes[0], &orphan, sizeof orphan) != (ssize_t)sizeof orphan)
        die("pipe");
    sleep_ms(200);
    kill(orphan, SIGSTOP); /* even so */
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    bool gone = false;
    for (uint64_t end = now_ms() + 5000; !gone && now_ms() < end; sleep_ms(10))
        gone = kill(orphan, 0) != 0 && errno == ESRCH;
    if (!gone) { /* a zombie that nobody reaps in this container is gone as well */
        char path[64], state = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)orphan);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%*d %*s %c", &state) == 1)
            gone = state == 'Z' || state == 'X';
        if (f)
            fclose(f);
    }
    ok(gone, "an embedded worker dies with its parent, even while it is stopped");
    if (!gone)
        kill(orphan, SIGKILL);
    boss_close(b);
    free(b);
}

/* --- tcp ------------------------------------------------------------------------------------------------------------------ */

/* The port that a worker chose, from its log. */
static void find_port(struct worker *w)
{
    char line[600];
    for (uint64_t end = now_ms() + PATIENCE_MS; now_ms() < end; sleep_ms(20)) {
        FILE *f = fopen(w->log, "r");
        bool found = false;
        while (f && fgets(line, sizeof line, f)) {
            char *at = strstr(line, "tcp://");
            if (at && strchr(at, '\n')) {
                *strchr(at, '\n') = 0;
                snprintf(w->address, sizeof w->address, "%s", at);
                found = true;
            }
        }
        if (f)
            fclose(f);
        if (found)
            return;
    }
    die("a worker's port");
}

static void pour_garbage(const struct worker *w)
{
    const char *port = strrchr(w->address, ':') + 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static char bytes[4096];
    for (int i = 0; i < 30; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (char)(k * 131 + (size_t)i * 17);
        if (i % 3 == 1)
            memcpy(bytes, "\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE", 17);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && send(fd, bytes, i % 3 ? sizeof bytes : 5, MSG_NOSIGNAL) < 0)
            tap_note("%s", strerror(errno));
        if (fd >= 0)
            close(fd);
    }
}

static void test_tcp(void)
{
    struct worker w[2] = {{0}};
    struct boss *b = malloc(sizeof *b), *stranger = malloc(sizeof *stranger);
    const char *const args[] = {"--model", model_path, NULL};
    char dir[400];

    snprintf(dir, sizeof dir, "%s/keys-boss", folder);
    struct keys *boss_keys = keys_open(dir, "boss", &err);
    snprintf(dir, sizeof dir, "%s/keys-stranger", folder);
    struct keys *strange_keys = keys_open(dir, "stranger", &err);
    if (!boss_keys || !strange_keys)
        die("keys");
    for (int i = 0; i < 2; i++) {
        char name[8];
        snprintf(name, sizeof name, "w%d", i);
        snprintf(w[i].keys, sizeof w[i].keys, "%s/keys-%d", folder, i);
        struct keys *k = keys_open(w[i].keys, name, &err);
        if (!k || keys_trust(k, "boss", keys_public(boss_keys), &err) != 0 || keys_trust(boss_keys, name, keys_public(k), &err) != 0)
            die("keys");
        memcpy(w[i].key, keys_public(k), KEY_BYTES);
        keys_close(k);
        start(&w[i], i, args);
        find_port(&w[i]);
    }
    boss_open_with(b, NULL, boss_keys);
    meet(b, w, 2);
    ok(b->member[0].hello_seen && b->member[1].hello_seen, "two workers over tcp, with keys");
    boss_configure(b, w, 2, halves, false);
    ok(all_ready(b, w, 2), "they have never heard of each other: the coordinator names their keys");
    ok(feed_all(b), "and they compute what one session does");
    boss_open_with(stranger, NULL, strange_keys);
    boss_dial(stranger, 0, &w[0]);
    ok(until(stranger, &stranger->member[0].down, PATIENCE_MS) && !stranger->member[0].hello_seen, "a stranger's key is not served");
    pour_garbage(&w[0]);
    pour_garbage(&w[1]);
    ok(feed(b, 35, 2, MSG_STOP_NONE), "garbage at the door disturbs nobody");
    kill(w[1].pid, SIGKILL);
    ok(until(b, &b->member[0].failed, PATIENCE_MS), "a neighbour's death");
    has_str(b->member[0].error_text, "the link to node w1 (stage 1)", "is told by name");
    boss_close(b);
    boss_close(stranger);
    keys_close(boss_keys);
    keys_close(strange_keys);
    stop(&w[0]);
    stop(&w[1]);
    free(b);
    free(stranger);
}

/* A worker that nobody can dial: it has an invitation, and dials. */
static void test_join(void)
{
    struct worker w = {0};
    struct boss *b = malloc(sizeof *b);
    char dir[400], endpoint[MSG_MAX_ADDRESS + 1], token[INVITE_MAX_TOKEN];
    const char *const addresses[] = {endpoint};
    const char *argv[] = {program, "worker", "--join", token, "--keys", w.keys, "--name", "shy", "--model", model_path, "--threads", "1", NULL};

    snprintf(dir, sizeof dir, "%s/keys-host", folder);
    snprintf(w.keys, sizeof w.keys, "%s/keys-shy", folder);
    snprintf(w.log, sizeof w.log, "%s/shy.log", folder);
    snprintf(w.name, sizeof w.name, "shy");
    struct keys *keys = keys_open(dir, "host", &err);
    struct wire_net_options o = {.keys = keys, .registrations = true};
    memset(b, 0, sizeof *b);
    b->keys = keys;
    if (!keys || !(b->net = wire_net_create(&o, &err)) || !(b->wire = wire_create(b->net, &err)) || !(b->codec = codec_create(CODEC_SMALL_BYTES, &err)) ||
        wire_listen(b->wire, "tcp://127.0.0.1:*", endpoint, &err) != 0 || invite_create(keys, addresses, 1, 60, token, &err) != 0)
        die("invitation");
    b->epoch.instance = wire_net_instance(b->net);
    b->accepting = true;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 2, w.log, 01102, 0600);
    if (posix_spawn(&w.pid, program, &files, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
        die(program);
    posix_spawn_file_actions_destroy(&files);
    ok(until(b, &b->member[0].hello_seen, PATIENCE_MS), "a worker with an invitation registers, dials and says hello");
    struct msg m = {.type = MSG_CONFIGURE, .configure = configuration(b, &w, 0, 1, whole)};
    m.configure.epoch.counter = ++b->epoch.counter;
    m.configure.previous = m.configure.next =
        (struct msg_neighbour){.reach = REACH_DIAL, .node = "host", .address = endpoint, .key = keys_public(keys), .stage = MSG_STAGE_COORDINATOR};
    if (b->member[0].hello_seen) {
        boss_send(b, 0, &m);
        ok(until(b, &b->member[0].ready, PATIENCE_MS), "it loads");
        for (uint64_t end = now_ms() + PATIENCE_MS; !(b->first && b->last) && now_ms() < end;)
            until(b, NULL, 20);
        ok(b->first && b->last, "it dials both data links");
        ok(feed_all(b), "and computes");
    }
    boss_close(b);
    keys_close(keys);
    stop(&w);
    free(b);
}

int main(void)
{
    const char *build = getenv("SC_BUILD");
    snprintf(program, sizeof program, "%s/stagecoach", build ? build : ".");
    if (access(program, X_OK) != 0)
        tap_skip_all("%s is not built", program);
    signal(SIGPIPE, SIG_IGN);
    make_models();
    test_run();
    test_devices();
    test_refusals();
    test_ends();
    test_tcp();
    test_join();
    return tap_done();
}
