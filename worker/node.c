/* See node.h. The loop: wire events, words of the builder and the stage's thread (they wake the wire), signals, time. */
#include "worker/node.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "worker/node_state.h"

enum { TICK_MS = 50 };

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void wake(void *arg)
{
    wire_wake(((struct node *)arg)->wire);
}

/* --- events ------------------------------------------------------------------------------------------------------------- */

static void take_up(struct node *n, struct wire_link *link)
{
    switch (wire_link_purpose(link)) {
    case LINK_CONTROL: control_up(n, link); return;
    case LINK_DATA: links_up(n, link); return;
    case LINK_BULK:
        if (n->bulk) {
            bulk_up(n->bulk, link);
            return;
        }
        break;
    default: break;
    }
    wire_link_close(link, "this worker serves no weights");
}

static void take_down(struct node *n, const struct wire_event *e)
{
    if (e->link == n->control) {
        control_down(n, e->text, e->goodbye);
    } else if (e->link == n->dialing) {
        control_not_there(n, e->text);
    } else if (wire_link_purpose(e->link) == LINK_BULK) {
        if (n->bulk)
            bulk_down(n->bulk, e->link);
    } else {
        links_down(n, e->link, e->text, e->goodbye);
    }
}

static void take_frame(struct node *n, const struct wire_event *e)
{
    if (e->link == n->control)
        control_frame(n, e->frame);
    else if (wire_link_purpose(e->link) == LINK_DATA)
        links_frame(n, e->link, e->frame);
    else if (wire_link_purpose(e->link) == LINK_BULK && n->bulk)
        bulk_frame(n->bulk, e->link, e->frame);
    else
        wire_frame_release(e->frame);
}

static void take_event(struct node *n, const struct wire_event *e)
{
    switch (e->kind) {
    case WIRE_UP: take_up(n, e->link); return;
    case WIRE_FRAME: take_frame(n, e); return;
    case WIRE_DOWN: take_down(n, e); return;
    case WIRE_WRITABLE:
        if (e->link == n->control)
            n->control_writable = true;
        if (wire_link_purpose(e->link) == LINK_BULK && n->bulk)
            bulk_writable(n->bulk, e->link);
        links_writable(n, e->link);
        return;
    case WIRE_REFUSED: links_refused(n, e); return;
    case WIRE_REGISTERED:
    case WIRE_NONE: return;
    }
}

static void take_signals(struct node *n)
{
    struct signalfd_siginfo info;
    while (read(n->o->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        control_stop(n);
}

static int loop(struct node *n, struct err *err)
{
    struct pollfd signals = {.fd = n->o->signal_fd, .events = POLLIN};
    struct wire_event e;

    while (!n->ended) {
        int rc = wire_poll(n->wire, TICK_MS, &signals, n->o->signal_fd >= 0 ? 1 : 0, &e, err);
        n->now_ms = now_ms();
        if (rc < 0)
            return -1;
        if (rc > 0)
            take_event(n, &e);
        control_built(n);
        links_pump_all(n);
        if (n->bulk)
            bulk_pump(n->bulk);
        if (n->o->signal_fd >= 0 && (signals.revents & POLLIN))
            take_signals(n);
        control_tick(n);
        links_tick(n);
        if (n->o->parent && getppid() != n->o->parent)
            n->ended = true;
    }
    return 0;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static struct gguf *open_model(void *arg, const uint8_t *id, struct err *err)
{
    return models_open(arg, id, err);
}

static int make_builders(struct node *n, struct err *err)
{
    const struct node_options *o = n->o;
    for (unsigned i = 0; i < n->n_seats; i++) {
        struct builder_options b = {.node = o->name, .device = n->seats[i].device, .how = &o->how, .models = n->models, .net = n->net,
                                    .cache = &n->cache, .shares = n->n_seats > 1, .wake = wake, .wake_arg = n};
        if (!(n->seats[i].builder = builder_create(&b, err)))
            return -1;
    }
    return 0;
}

/* 1: told to stop before it was done. */
static int set_up(struct node *n, struct err *err)
{
    const struct node_options *o = n->o;
    struct wire_net_options net = {.keys = o->keys, .node = o->name, .protocol_max = o->protocol};
    char endpoint[MSG_MAX_ADDRESS + 1];
    int rc;

    for (; n->n_seats < o->devices.n; n->n_seats++) {
        n->seats[n->n_seats].node = n;
        n->seats[n->n_seats].device = &o->devices.item[n->n_seats];
    }
    if (!(n->codec = codec_create(CODEC_SMALL_BYTES, err)) || !(n->models = models_create(o->model_file, o->model_dir, err)) ||
        !(n->net = wire_net_create(&net, err)) || !(n->wire = wire_create(n->net, err)))
        return -1;
    if (o->listen && wire_listen(n->wire, o->listen, endpoint, err) != 0) /* before what takes its time: who comes meanwhile waits */
        return -1;
    if (o->measure)
        log_line(LOG_INFO, "measuring what this machine can do: a few seconds (--no-measure starts at once)");
    if ((rc = hello_measure(n, err)) != 0)
        return rc;
    char hashes[BULK_PATH];
    struct bulk_options bulk = {.open = open_model, .arg = n->models, .hashes_dir = bulk_hashes_dir(o->keys, hashes), .wake = wake, .wake_arg = n};
    if (o->keys && !(n->bulk = bulk_create(&bulk, err)))
        return -1;
    if (make_builders(n, err) != 0)
        return -1;
    if (o->listen) {
        snprintf(n->address, sizeof n->address, "%s", o->advertise ? o->advertise : endpoint);
        log_line(LOG_INFO, "listening on %s", endpoint);
    }
    return 0;
}

static void tear_down(struct node *n)
{
    struct stage_thread *last[DEVICE_MAX] = {0};
    for (unsigned i = 0; i < n->n_seats; i++)
        last[i] = control_end_stage(&n->seats[i], "this worker has ended");
    for (int i = 0; i < NODE_UNCLAIMED_LINKS; i++)
        wire_link_close(n->unclaimed[i].link, "this worker has ended");
    wire_link_close(n->control, "this worker has ended");
    wire_link_close(n->dialing, NULL);
    for (unsigned i = 0; i < n->n_seats; i++) /* before the wire: their threads wake it */
        builder_destroy(n->seats[i].builder, last[i]);
    bulk_destroy(n->bulk);
    wire_destroy(n->wire);
    wire_net_destroy(n->net);
    models_destroy(n->models);
    codec_destroy(n->codec);
    builder_cache_fini(&n->cache);
    free(n);
}

int node_run(const struct node_options *options, struct err *err)
{
    struct node *n = mem_new(1, sizeof *n, err);
    int rc;

    if (!n)
        return -1;
    n->o = options;
    n->now_ms = now_ms();
    n->lost_ms = NODE_LOST_MS;
    n->beat_ms = NODE_HEARTBEAT_MS;
    n->orphan_ms = options->orphan_ms ? options->orphan_ms : NODE_ORPHAN_MS;
    n->redial_ms = NODE_REDIAL_MIN_MS;
    builder_cache_init(&n->cache, options->cache_dir, options->cache_bytes);
    if ((rc = set_up(n, err)) == 0) {
        if (control_address(n))
            control_dial(n);
        rc = loop(n, err);
    }
    tear_down(n);
    return rc < 0 ? -1 : 0;
}
