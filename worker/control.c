/* The coordinator's link: who may be one, what it orders, what it is told. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/sysinfo.h"
#include "base/threadpool.h"
#include "gguf/quant.h"
#include "kernels/backend.h"
#include "worker/node_state.h"

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int control_send(struct node *n, const struct msg *m)
{
    struct err err;
    if (!n->control)
        return -1;
    switch (wire_send_msg(n->control, m, NULL, 0, NULL, NULL, &err)) {
    case WIRE_SENT: return 0;
    case WIRE_BLOCKED: break;
    case WIRE_FAILED: log_line(LOG_WARN, "a %s message could not be sent: %s", msg_type_name(m->type), err.text);
    }
    return -1;
}

void control_error(struct node *n, enum err_kind kind, const char *text)
{
    char shown[MSG_MAX_TEXT + 1];
    struct msg m = {.type = MSG_ERROR, .error = {.epoch = n->epoch, .stage = n->stage, .kind = (uint32_t)kind}};
    m.error.text = err_printable(shown, sizeof shown, text, strlen(text));
    control_send(n, &m);
}

/* --- hello -------------------------------------------------------------------------------------------------------------- */

/* What a matrix of a type takes here, once it lies as the kernels want it. */
static size_t fill_bits(struct backend *be, struct msg_bits *ret)
{
    enum { ROWS = 1024, COLS = 4096 };
    size_t n = 0;
    for (uint32_t type = 0; type < QUANT_TYPES && n < MSG_MAX_TYPES; type++) {
        const struct quant_traits *t = quant_traits(type);
        if (t && t->computed)
            ret[n++] = (struct msg_bits){t->name, 8.0 * (double)be->ops->weight_bytes(be, (enum quant_type)type, ROWS, COLS) / ROWS / COLS};
    }
    return n;
}

static uint64_t memory_to_use(struct node *n)
{
    uint64_t free = sysinfo_memory_available(), held = builder_held_bytes(n->builder);
    free = free > UINT64_MAX - held ? UINT64_MAX : free + held;
    return n->o->ram_bytes && n->o->ram_bytes < free ? n->o->ram_bytes : free;
}

static int say_hello(struct node *n, struct err *err)
{
    static const char *const no_text = "";
    uint8_t ids[MSG_MAX_MODELS][MSG_ID_BYTES];
    struct msg_bits bits[MSG_MAX_TYPES];
    struct msg_resident resident;
    struct msg_device device = {.name = "cpu", .memory_bytes = memory_to_use(n), .read_bytes_per_s = n->read_per_s, .rates = n->rates,
                                .n_rates = n->n_rates};
    struct msg m = {.type = MSG_HELLO};
    struct msg_hello *h = &m.hello;
    struct backend *be = backend_cpu_create(1, n->o->isa, err);

    if (!be)
        return -1;
    builder_resident(n->builder, &resident);
    *h = (struct msg_hello){
        .version = n->o->version, .node = n->o->name, .instance = wire_net_instance(n->net), .numerics_class = NUMERICS_CPU,
        .numerics_revision = NUMERICS_CPU_REVISION, .isa = backend_cpu_isa(be), .threads = n->o->threads ? n->o->threads : threadpool_cpus(),
        .address = n->address[0] ? n->address : no_text, .key = n->o->keys ? keys_public(n->o->keys) : NULL, .devices = &device, .n_devices = 1,
        .bits = bits, .resident = &resident, .n_resident = resident.present ? 1 : 0, .models = (const uint8_t(*)[MSG_ID_BYTES])ids,
    };
    h->n_bits = fill_bits(be, bits);
    h->n_models = models_ids(n->models, ids, MSG_MAX_MODELS);
    backend_destroy(be);
    return control_send(n, &m);
}

/* --- who is the coordinator --------------------------------------------------------------------------------------------- */

void control_dial(struct node *n)
{
    struct err err;
    struct wire_dial d = {.endpoint = n->o->coordinator, .purpose = LINK_CONTROL, .key = n->o->coordinator_key};
    n->dial_at_ms = 0;
    if (!(n->dialing = wire_dial(n->wire, &d, &err))) {
        log_line(LOG_ERROR, "%s: %s", n->o->coordinator, err.text);
        n->ended = true;
    }
}

void control_up(struct node *n, struct wire_link *link)
{
    char text[160];
    uint64_t instance = wire_link_instance(link);
    struct err err;

    if (n->stopping) {
        wire_link_close(link, "this worker is being stopped");
        return;
    }
    if (n->control && instance != n->coordinator && n->now_ms - n->seen_ms <= n->lost_ms) {
        snprintf(text, sizeof text, "worker %s belongs to another coordinator (%s) that is alive; stop that one first", n->o->name,
                 wire_link_address(n->control));
        log_line(LOG_WARN, "coordinator %s at %s was refused: another one is at work", wire_link_node(link), wire_link_address(link));
        wire_link_close(link, text);
        return;
    }
    if (n->control) {
        struct wire_link *old = n->control;
        control_down(n, instance == n->coordinator ? "it has come anew" : "it was silent, and another one has come");
        wire_link_close(old, "another link has taken its place");
    }
    n->control = link;
    n->dialing = NULL;
    n->control_writable = true;
    n->coordinator = instance;
    n->seen_ms = n->now_ms;
    n->next_beat_ms = n->now_ms;
    n->orphan_at_ms = 0;
    n->redial_ms = NODE_REDIAL_MIN_MS;
    n->peer_now_us = n->peer_seen_us = 0;
    log_line(LOG_INFO, "coordinator %s connected (%s)", wire_link_node(link), wire_link_address(link));
    if (say_hello(n, &err) != 0)
        log_line(LOG_ERROR, "the hello could not be sent");
}

void control_down(struct node *n, const char *why)
{
    struct err err;
    log_line(LOG_WARN, "the coordinator is gone (%s)", why);
    n->control = NULL;
    struct stage_thread *old = control_end_epoch(n, "the coordinator is gone");
    links_admit(n, NULL);
    if (builder_release(n->builder, true, old, &err) != 0)
        log_line(LOG_ERROR, "%s", err.text);
    n->orphan_at_ms = n->now_ms + n->orphan_ms;
    if (n->stopping)
        n->ended = true;
    if (n->o->coordinator)
        n->dial_at_ms = n->now_ms + n->redial_ms;
}

/* --- configuration ------------------------------------------------------------------------------------------------------ */

struct stage_thread *control_end_epoch(struct node *n, const char *why)
{
    struct stage_thread *old = n->thread;
    if (old)
        stage_thread_stop(old);
    links_close(n, why);
    n->thread = NULL;
    n->phase = NODE_IDLE;
    n->blocked_since_ms = 0;
    return old;
}

static void configure(struct node *n, const struct msg_configure *c)
{
    struct err err;
    struct stage_thread *old;

    if (n->draining || n->stopping) {
        n->epoch = c->epoch;
        n->stage = c->stage;
        control_error(n, ERR_BUSY, "this worker is being drained");
        return;
    }
    old = control_end_epoch(n, "another epoch has begun");
    n->epoch = c->epoch;
    n->stage = c->stage;
    n->n_stages = c->n_stages;
    n->layer_first = c->layer_first;
    n->layer_end = c->layer_end;
    n->lost_ms = c->lost_ms ? c->lost_ms : NODE_LOST_MS;
    n->beat_ms = c->heartbeat_ms ? c->heartbeat_ms : NODE_HEARTBEAT_MS;
    n->orphan_ms = n->o->orphan_ms ? n->o->orphan_ms : c->orphan_ms ? c->orphan_ms : NODE_ORPHAN_MS;
    n->phase = NODE_LOADING;
    n->loading_since_ms = n->now_ms;
    struct msg_source sources[MSG_MAX_SOURCES];
    char address[MSG_MAX_ADDRESS + 1];
    struct msg_configure with = *c;
    for (size_t i = 0; i < c->n_sources; i++) {
        sources[i] = c->sources[i];
        if (n->control && c->sources[i].key && wire_link_key(n->control) && memcmp(c->sources[i].key, wire_link_key(n->control), KEY_BYTES) == 0) {
            links_coordinator_address(n, c->sources[i].address, address);
            sources[i].address = address;
        }
    }
    with.sources = sources;
    if (builder_build(n->builder, &with, old, &err) != 0) {
        n->phase = NODE_FAILED;
        control_error(n, err.kind, err.text);
        return;
    }
    links_configure(n, c);
}

static void release(struct node *n, bool keep_weights)
{
    struct err err;
    struct stage_thread *old = control_end_epoch(n, "the coordinator has released this stage");
    links_admit(n, NULL);
    if (n->stopping && !n->ended) {
        log_line(LOG_INFO, "drained");
        n->ended = true;
    }
    if (builder_release(n->builder, keep_weights, old, &err) != 0)
        log_line(LOG_ERROR, "%s", err.text);
}

void control_built(struct node *n)
{
    struct built r;
    char size[32];
    while (builder_result(n->builder, &r)) {
        if (n->phase != NODE_LOADING || !msg_epoch_same(r.epoch, n->epoch)) {
            stage_thread_destroy(r.thread); /* of an epoch that is over: it has nothing to do, this does not wait */
            continue;
        }
        for (uint32_t i = 0; i < r.report.n_notes; i++)
            log_line(LOG_INFO, "loading: %s", r.report.note[i]);
        if (!r.thread) {
            n->phase = NODE_FAILED;
            log_line(LOG_ERROR, "%s", r.err.text);
            control_error(n, r.err.kind, r.err.text);
            continue;
        }
        n->thread = r.thread;
        n->phase = NODE_RUNNING;
        links_ready(n);
        log_line(LOG_INFO, "ready: stage %u of %u, layers %u-%u, %s in %.1f s from %s", n->stage, n->n_stages, n->layer_first, n->layer_end - 1,
                 sysinfo_bytes(size, r.ready.weights_bytes), (double)r.ready.load_ms / 1000, r.from);
        control_send(n, &(struct msg){.type = MSG_READY, .ready = r.ready});
        links_pump(n);
    }
}

/* --- messages ----------------------------------------------------------------------------------------------------------- */

static void drain(struct node *n, const struct msg_drain *d)
{
    char text[MSG_MAX_TEXT + 1];
    log_line(LOG_INFO, "the coordinator drains this worker%s%s", d->text[0] ? ": " : "",
             err_printable(text, sizeof text, d->text, strlen(d->text)));
    n->draining = n->phase != NODE_IDLE;
}

static void take_message(struct node *n, const struct msg *m)
{
    switch (m->type) {
    case MSG_WELCOME: return;
    case MSG_HEARTBEAT:
        n->peer_now_us = m->heartbeat.now_us;
        n->peer_seen_us = now_us();
        return;
    case MSG_CONFIGURE: configure(n, &m->configure); return;
    case MSG_RELEASE: release(n, m->release.keep_weights); return;
    case MSG_DRAIN: drain(n, &m->drain); return;
    default: log_line(LOG_WARN, "the coordinator sent a %s message, which is not for workers", msg_type_name(m->type)); return;
    }
}

void control_frame(struct node *n, struct wire_frame *frame)
{
    struct msg m;
    struct err err;
    n->seen_ms = n->now_ms;
    if (codec_decode(n->codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err) == 0)
        take_message(n, &m);
    else
        log_line(LOG_WARN, "a message of the coordinator makes no sense: %s", err.text);
    wire_frame_release(frame);
}

/* --- time --------------------------------------------------------------------------------------------------------------- */

static void beat(struct node *n)
{
    struct msg_stage_times times;
    struct msg m = {.type = MSG_HEARTBEAT, .heartbeat = {.now_us = now_us(), .peer_now_us = n->peer_now_us, .peer_seen_us = n->peer_seen_us}};
    if (n->thread) {
        stage_thread_times(n->thread, &times);
        m.heartbeat.stages = &times;
        m.heartbeat.n_stages = 1;
    }
    control_send(n, &m);
}

static void tell_progress(struct node *n)
{
    enum { LOG_EVERY_MS = 5000 };
    struct msg m = {.type = MSG_LOAD_PROGRESS, .load_progress = {.epoch = n->epoch, .stage = n->stage, .text = ""}};
    char a[32], b[32], from[160];
    m.load_progress.from = builder_from(n->builder, from, sizeof from);
    m.load_progress.text = from;
    builder_progress(n->builder, &m.load_progress.done_bytes, &m.load_progress.total_bytes);
    if (m.load_progress.total_bytes == 0)
        return;
    control_send(n, &m);
    if (n->now_ms - n->loading_since_ms < LOG_EVERY_MS || n->now_ms - n->told_progress_ms < LOG_EVERY_MS)
        return;
    n->told_progress_ms = n->now_ms;
    log_line(LOG_INFO, "loading layers %u-%u: %" PRIu64 "%% (%s of %s) from %s", n->layer_first, n->layer_end - 1,
             m.load_progress.done_bytes * 100 / m.load_progress.total_bytes, sysinfo_bytes(a, m.load_progress.done_bytes),
             sysinfo_bytes(b, m.load_progress.total_bytes), from);
}

void control_tick(struct node *n)
{
    struct err err;
    if (n->dial_at_ms && n->now_ms >= n->dial_at_ms)
        control_dial(n);
    if (n->control && n->now_ms >= n->next_beat_ms) {
        n->next_beat_ms = n->now_ms + n->beat_ms;
        beat(n);
        if (n->phase == NODE_LOADING)
            tell_progress(n);
    }
    if (n->draining && n->thread && stage_thread_idle(n->thread) && n->data.n == 0) {
        n->draining = false;
        release(n, false);
    }
    if (n->orphan_at_ms && n->now_ms >= n->orphan_at_ms) {
        n->orphan_at_ms = 0;
        if (builder_held_bytes(n->builder))
            log_line(LOG_INFO, "no coordinator has come back: the memory is freed");
        if (builder_release(n->builder, false, NULL, &err) != 0)
            log_line(LOG_ERROR, "%s", err.text);
    }
    if (n->stopping && n->now_ms >= n->stop_at_ms)
        n->ended = true;
}

/* Whoever planned with us must plan anew; until then we go on. */
void control_stop(struct node *n)
{
    struct msg m = {.type = MSG_DRAIN, .drain = {.text = "it is being stopped"}};
    if (n->stopping) {
        log_line(LOG_INFO, "stopping at once");
        n->ended = true;
        return;
    }
    n->stopping = true;
    n->stop_at_ms = n->now_ms + NODE_DRAIN_MS;
    if (!n->control || n->phase == NODE_IDLE || n->phase == NODE_FAILED || control_send(n, &m) != 0)
        n->ended = true;
    else
        log_line(LOG_INFO, "draining: the coordinator is asked to go on without this worker");
}
