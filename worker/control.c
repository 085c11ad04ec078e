/* The coordinator's link: who may be one, what it orders, what it is told. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/sysinfo.h"
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

static void say_error(struct node *n, const struct msg_error *e)
{
    char shown[MSG_MAX_TEXT + 1];
    struct msg m = {.type = MSG_ERROR, .error = *e};
    m.error.text = err_printable(shown, sizeof shown, e->text, strlen(e->text));
    control_send(n, &m);
}

void control_error(struct seat *s, enum err_kind kind, const char *text)
{
    say_error(s->node, &(struct msg_error){.epoch = s->node->epoch, .stage = s->stage, .kind = (uint32_t)kind, .text = text});
}

/* --- ends --------------------------------------------------------------------------------------------------------------- */

struct stage_thread *control_end_stage(struct seat *s, const char *why)
{
    struct stage_thread *old = s->thread;
    if (old)
        stage_thread_stop(old);
    links_close(s, why);
    s->thread = NULL;
    s->phase = NODE_IDLE;
    s->joined = false;
    s->blocked_since_ms = 0;
    return old;
}

/* The device has no part in the epoch any more. */
static void leave(struct seat *s, bool keep_weights, const char *why)
{
    struct err err;
    struct stage_thread *old = control_end_stage(s, why);
    if (builder_release(s->builder, keep_weights, old, &err) != 0)
        log_line(LOG_ERROR, "%s", err.text);
}

static void end_epoch(struct node *n, bool keep_weights, const char *why)
{
    for (unsigned i = 0; i < n->n_seats; i++)
        leave(&n->seats[i], keep_weights, why);
    links_admit(n, NULL, true);
}

static bool in_use(const struct node *n)
{
    for (unsigned i = 0; i < n->n_seats; i++)
        if (n->seats[i].phase != NODE_IDLE)
            return true;
    return false;
}

/* --- who is the coordinator --------------------------------------------------------------------------------------------- */

const char *control_address(const struct node *n)
{
    return n->o->coordinators[n->dial_turn];
}

void control_dial(struct node *n)
{
    struct err err;
    struct wire_dial d = {.endpoint = control_address(n), .purpose = LINK_CONTROL, .key = n->o->coordinator_key};
    n->dial_at_ms = 0;
    if (!(n->dialing = wire_dial(n->wire, &d, &err)))
        control_not_there(n, err.text);
}

void control_not_there(struct node *n, const char *why)
{
    n->dialing = NULL;
    if (n->now_ms >= n->tell_dial_ms) {
        log_line(LOG_WARN, "the coordinator at %s does not answer (%s); trying again", control_address(n), why);
        n->tell_dial_ms = n->now_ms + NODE_TELL_DIAL_MS;
    }
    if (++n->dial_turn == NODE_COORDINATORS || !control_address(n))
        n->dial_turn = 0;
    n->dial_at_ms = n->now_ms + n->redial_ms;
    n->redial_ms = n->redial_ms * 2 < NODE_REDIAL_MAX_MS ? n->redial_ms * 2 : NODE_REDIAL_MAX_MS;
}

void control_up(struct node *n, struct wire_link *link)
{
    char text[160];
    uint64_t instance = wire_link_instance(link);

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
    if (n->control && wire_link_dialed(link) && instance == n->coordinator && n->now_ms - n->seen_ms <= n->lost_ms) {
        n->dialing = NULL;
        wire_link_close(link, "the coordinator has come meanwhile"); /* it dials, too, where it knows our address */
        return;
    }
    if (n->control) {
        struct wire_link *old = n->control;
        control_down(n, instance == n->coordinator ? "it has come anew" : "it was silent, and another one has come", false);
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
    n->tell_dial_ms = 0;
    n->peer_now_us = n->peer_seen_us = 0;
    log_line(LOG_INFO, "coordinator %s connected (%s)", wire_link_node(link), wire_link_address(link));
    if (hello_send(n) != 0)
        log_line(LOG_ERROR, "the hello could not be sent");
}

void control_down(struct node *n, const char *why, bool goodbye)
{
    log_line(goodbye ? LOG_INFO : LOG_WARN, "the coordinator is gone (%s)", why);
    n->control = NULL;
    end_epoch(n, true, "the coordinator is gone");
    n->orphan_at_ms = n->now_ms + n->orphan_ms;
    if (n->stopping)
        n->ended = true;
    if (control_address(n))
        n->dial_at_ms = n->now_ms + n->redial_ms;
}

/* --- configuration ------------------------------------------------------------------------------------------------------ */

static void configure_seat(struct seat *s, const struct msg_configure *c, struct stage_thread *old)
{
    struct node *n = s->node;
    struct msg_source sources[MSG_MAX_SOURCES];
    char address[MSG_MAX_ADDRESS + 1];
    struct msg_configure with = *c;
    struct err err;

    s->stage = c->stage;
    s->layer_first = c->layer_first;
    s->layer_end = c->layer_end;
    s->phase = NODE_LOADING;
    s->loading_since_ms = n->now_ms;
    for (size_t i = 0; i < c->n_sources; i++) {
        sources[i] = c->sources[i];
        if (n->control && c->sources[i].key && wire_link_key(n->control) && memcmp(c->sources[i].key, wire_link_key(n->control), KEY_BYTES) == 0) {
            links_coordinator_address(n, c->sources[i].address, address);
            sources[i].address = address;
        }
    }
    with.sources = sources;
    if (builder_build(s->builder, &with, old, &err) != 0) {
        s->phase = NODE_FAILED;
        control_error(s, err.kind, err.text);
        return;
    }
    links_configure(s, c);
}

static struct seat *seat_of(struct node *n, const char *device)
{
    for (unsigned i = 0; i < n->n_seats; i++)
        if (strcmp(n->seats[i].device->name, device) == 0)
            return &n->seats[i];
    return NULL;
}

static void refuse(struct node *n, const struct msg_configure *c, enum err_kind kind, const char *text)
{
    say_error(n, &(struct msg_error){.epoch = c->epoch, .stage = c->stage, .kind = (uint32_t)kind, .text = text});
}

/* The first configuration of an epoch ends the one before it on all devices; the others of the epoch add their stages to it. */
static void configure(struct node *n, const struct msg_configure *c)
{
    struct seat *s = seat_of(n, c->device);
    bool anew = !msg_epoch_same(c->epoch, n->epoch);
    char text[MSG_MAX_TEXT], names[DEVICE_MAX * DEVICE_NAME_BYTES];

    if (n->draining || n->stopping) {
        refuse(n, c, ERR_BUSY, "this worker is being drained");
        return;
    }
    if (!s) {
        snprintf(text, sizeof text, "there is no device \"%.64s\" here; known: %s", c->device, device_list_names(&n->o->devices, names, sizeof names));
        refuse(n, c, ERR_UNSUPPORTED, text);
        return;
    }
    for (unsigned i = 0; anew && i < n->n_seats; i++)
        if (&n->seats[i] != s)
            leave(&n->seats[i], true, "another epoch has begun");
    struct stage_thread *old = control_end_stage(s, "another epoch has begun");
    n->epoch = c->epoch;
    n->said_over = n->said_over && !anew;
    n->n_stages = c->n_stages;
    n->lost_ms = c->lost_ms ? c->lost_ms : NODE_LOST_MS;
    n->beat_ms = c->heartbeat_ms ? c->heartbeat_ms : NODE_HEARTBEAT_MS;
    n->orphan_ms = n->o->orphan_ms ? n->o->orphan_ms : c->orphan_ms ? c->orphan_ms : NODE_ORPHAN_MS;
    links_admit(n, c, anew);
    configure_seat(s, c, old);
}

/* device "": all. */
static void release(struct node *n, bool keep_weights, const char *device)
{
    struct seat *s = device[0] ? seat_of(n, device) : NULL;
    if (device[0]) {
        if (s)
            leave(s, keep_weights, "the coordinator has released this stage");
        return;
    }
    end_epoch(n, keep_weights, "the coordinator has released this stage");
    if (n->stopping && !n->ended) {
        log_line(LOG_INFO, "drained");
        n->ended = true;
    }
}

/* Stages of this process that follow each other need no link: once both are ready, steps go from one to the other. */
static void join_stages(struct node *n)
{
    for (unsigned i = 0; i < n->n_seats; i++)
        for (unsigned k = 0; k < n->n_seats; k++) {
            struct seat *up = &n->seats[i], *down = &n->seats[k];
            if (up->joined || up->phase != NODE_RUNNING || down->phase != NODE_RUNNING || up->next.who.reach != REACH_PROCESS ||
                down->previous.who.reach != REACH_PROCESS || up->next.who.stage != down->stage || down->previous.who.stage != up->stage)
                continue;
            stage_thread_join(up->thread, down->thread);
            up->joined = true;
        }
}

static void take_built(struct seat *s, struct built *r)
{
    struct node *n = s->node;
    char size[32], on[DEVICE_NAME_BYTES + 8] = "";

    if (s->phase != NODE_LOADING || !msg_epoch_same(r->epoch, n->epoch)) {
        stage_thread_destroy(r->thread); /* of an epoch that is over: it has nothing to do, this does not wait */
        return;
    }
    for (uint32_t i = 0; i < r->report.n_notes; i++)
        log_line(LOG_INFO, "loading: %s", r->report.note[i]);
    if (!r->thread) {
        s->phase = NODE_FAILED;
        log_line(LOG_ERROR, "%s", r->err.text);
        say_error(n, &(struct msg_error){.epoch = n->epoch, .stage = s->stage, .kind = (uint32_t)r->err.kind, .text = r->err.text,
                                         .memory_bytes = r->memory_bytes});
        return;
    }
    s->thread = r->thread;
    s->phase = NODE_RUNNING;
    links_ready(s);
    join_stages(n);
    if (n->n_seats > 1)
        snprintf(on, sizeof on, " on %s", s->device->name);
    log_line(LOG_INFO, "ready: stage %u of %u%s, layers %u-%u, %s in %.1f s from %s", s->stage, n->n_stages, on, s->layer_first, s->layer_end - 1,
             sysinfo_bytes(size, r->ready.weights_bytes), (double)r->ready.load_ms / 1000, r->from);
    control_send(n, &(struct msg){.type = MSG_READY, .ready = r->ready});
    links_pump(s);
}

void control_built(struct node *n)
{
    struct built r;
    for (unsigned i = 0; i < n->n_seats; i++)
        while (builder_result(n->seats[i].builder, &r))
            take_built(&n->seats[i], &r);
}

/* --- messages ----------------------------------------------------------------------------------------------------------- */

static void drain(struct node *n, const struct msg_drain *d)
{
    char text[MSG_MAX_TEXT + 1];
    log_line(LOG_INFO, "the coordinator drains this worker%s%s", d->text[0] ? ": " : "",
             err_printable(text, sizeof text, d->text, strlen(d->text)));
    n->draining = in_use(n);
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
    case MSG_RELEASE: release(n, m->release.keep_weights, m->release.device); return;
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
    struct msg_stage_times times[DEVICE_MAX];
    struct msg m = {.type = MSG_HEARTBEAT,
                    .heartbeat = {.now_us = now_us(), .peer_now_us = n->peer_now_us, .peer_seen_us = n->peer_seen_us, .stages = times}};
    for (unsigned i = 0; i < n->n_seats; i++)
        if (n->seats[i].thread)
            stage_thread_times(n->seats[i].thread, &times[m.heartbeat.n_stages++]);
    control_send(n, &m);
}

static void tell_progress(struct seat *s)
{
    struct node *n = s->node;
    enum { LOG_EVERY_MS = 5000 };
    struct msg m = {.type = MSG_LOAD_PROGRESS, .load_progress = {.epoch = n->epoch, .stage = s->stage, .text = ""}};
    char a[32], b[32], from[160];
    m.load_progress.from = builder_from(s->builder, from, sizeof from);
    m.load_progress.text = from;
    builder_progress(s->builder, &m.load_progress.done_bytes, &m.load_progress.total_bytes);
    if (m.load_progress.total_bytes == 0)
        return;
    control_send(n, &m);
    if (n->now_ms - s->loading_since_ms < LOG_EVERY_MS || n->now_ms - s->told_progress_ms < LOG_EVERY_MS)
        return;
    s->told_progress_ms = n->now_ms;
    log_line(LOG_INFO, "loading layers %u-%u: %" PRIu64 "%% (%s of %s) from %s", s->layer_first, s->layer_end - 1,
             m.load_progress.done_bytes * 100 / m.load_progress.total_bytes, sysinfo_bytes(a, m.load_progress.done_bytes),
             sysinfo_bytes(b, m.load_progress.total_bytes), from);
}

/* Whatever was on its way when it was drained has gone on. */
static bool worked_off(const struct node *n)
{
    for (unsigned i = 0; i < n->n_seats; i++) {
        const struct seat *s = &n->seats[i];
        if (s->phase == NODE_LOADING || (s->thread && (!stage_thread_idle(s->thread) || s->data.n > 0)))
            return false;
    }
    return true;
}

static void free_orphans(struct node *n)
{
    bool held = false;
    for (unsigned i = 0; i < n->n_seats; i++)
        held = held || builder_held_bytes(n->seats[i].builder);
    if (held)
        log_line(LOG_INFO, "no coordinator has come back: the memory is freed");
    end_epoch(n, false, "no coordinator has come back");
}

void control_tick(struct node *n)
{
    if (n->dial_at_ms && n->control)
        n->dial_at_ms = 0;
    if (n->dial_at_ms && n->now_ms >= n->dial_at_ms)
        control_dial(n);
    if (n->control && n->now_ms >= n->next_beat_ms) {
        n->next_beat_ms = n->now_ms + n->beat_ms;
        beat(n);
        for (unsigned i = 0; i < n->n_seats; i++)
            if (n->seats[i].phase == NODE_LOADING)
                tell_progress(&n->seats[i]);
    }
    if (n->draining && worked_off(n)) {
        n->draining = false;
        release(n, false, "");
    }
    if (n->orphan_at_ms && n->now_ms >= n->orphan_at_ms) {
        n->orphan_at_ms = 0;
        free_orphans(n);
    }
    if (n->stopping && n->now_ms >= n->stop_at_ms)
        n->ended = true;
}

static bool has_work(const struct node *n)
{
    for (unsigned i = 0; i < n->n_seats; i++)
        if (n->seats[i].phase == NODE_LOADING || n->seats[i].phase == NODE_RUNNING)
            return true;
    return false;
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
    bool told = n->control && control_send(n, &m) == 0; /* without work, too: else it would be taken for lost */
    if (!told || !has_work(n))
        n->ended = true;
    else
        log_line(LOG_INFO, "draining: the coordinator is asked to go on without this worker");
}
