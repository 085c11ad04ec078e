/* The nodes we know and their control links: dialing, greeting, heartbeats, losing them, starting our own. What a node's coming
 * and going means for the pipeline is pipeline.c's business. */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hostport.h"
#include "base/sysinfo.h"
#include "base/threadpool.h"
#include "coordinator/cluster.h"

uint32_t nodes_index(const struct engine *e, const struct node *n)
{
    return (uint32_t)(n - e->nodes);
}

struct node *nodes_find(struct engine *e, const char *name)
{
    for (uint32_t i = 0; i < e->n_nodes; i++)
        if (strcmp(e->nodes[i].name, name) == 0)
            return &e->nodes[i];
    return NULL;
}

static struct node *add(struct engine *e, const char *name)
{
    struct node *n;
    if (e->n_nodes == CLUSTER_MAX_NODES)
        return NULL;
    n = &e->nodes[e->n_nodes++];
    *n = (struct node){.child = -1, .redial_ms = REDIAL_MIN_MS};
    snprintf(n->name, sizeof n->name, "%s", name);
    arena_init(&n->memory, CLUSTER_HELLO_BYTES);
    return n;
}

/* --- beginning ----------------------------------------------------------------------------------------------------------- */

static int start_children(struct engine *e, struct err *err)
{
    unsigned cpus = threadpool_cpus(), n = e->options.workers, threads = e->options.threads;
    struct children_options o = {.program = e->options.program,
                                 .model = e->options.model,
                                 .isa = e->options.isa,
                                 .folder = e->options.runtime_dir,
                                 .n = n,
                                 .more = e->options.worker_args,
                                 .threads = threads    ? threads
                                            : cpus > n ? cpus / n
                                                       : 1};

    if (!(e->children = children_create(&o, err)))
        return -1;
    for (unsigned i = 0; i < n; i++) {
        struct node *node = add(e, children_name(e->children, i));
        node->child = (int)i;
        node->declared = true;
        snprintf(node->address, sizeof node->address, "%s", children_address(e->children, i));
        if (children_start(e->children, i, err) != 0)
            return -1;
        node->dial_at_us = e->now_us;
    }
    return 0;
}

/* The file does not know which addresses this machine has, and --join-listen is not in it. */
static int check_not_ours(const struct engine *e, const struct topology_node *n, struct err *err)
{
    char host[MSG_MAX_ADDRESS + 1], own[MSG_MAX_ADDRESS + 1];
    const char *port, *own_port, *listening = e->listening;
    bool ours = false;

    if (n->address && strncmp(n->address, "tcp://", 6) == 0 && strncmp(listening, "tcp://", 6) == 0 && hostport_split(n->address + 6, host, sizeof host, &port) &&
        hostport_split(listening + 6, own, sizeof own, &own_port) && strcmp(port, own_port) == 0)
        ours = strcmp(host, own) == 0 || (hostport_is_anywhere(own) && (hostport_is_loopback(host) || hostport_is_ours(host)));
    if (!ours)
        return 0;
    return err_set(err, ERR_INPUT, "%s:%u:%u: node %s has the address %s, where this coordinator listens (%s); each listens at one of its own, such as another port",
                   e->options.topology_path ? e->options.topology_path : "the topology", n->mark.line, n->mark.column, n->name, n->address, listening);
}

static int add_declared(struct engine *e, struct err *err)
{
    const struct topology *t = e->options.topology;
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        const struct topology_node *from = &t->nodes[i];
        uint8_t key[KEY_BYTES];
        struct node *n;
        if (check_not_ours(e, from, err) != 0)
            return -1;
        if (!from->key && !keys_lookup(e->keys, from->name, key)) {
            engine_event_text(e, ENGINE_NOTE_TROUBLE, from->name,
                              "node %s is left out: it has no key in the topology, and none is trusted by that name in %s; add \"key:\", "
                              "or let it join by an invitation",
                              from->name, keys_dir(e->keys));
            continue;
        }
        if (!(n = add(e, from->name)))
            return err_set(err, ERR_LIMIT, "%u nodes in the topology, at most %d allowed", t->n_nodes, CLUSTER_MAX_NODES);
        n->declared = true;
        n->standby = from->standby;
        n->dial_at_us = e->now_us;
        snprintf(n->address, sizeof n->address, "%s", from->address ? from->address : "");
        n->has_key = true;
        if (!from->key)
            memcpy(n->key, key, sizeof key);
        else if (key_parse(from->key, n->key, err) != 0 || wire_net_grant(e->net, n->name, n->key, NODE_PURPOSES, err) != 0)
            return err_wrap(err, "node %s", n->name);
    }
    if (e->n_nodes == 0 && t->n_nodes > 0 && !e->options.join_listen)
        return err_set(err, ERR_INPUT,
                       "none of the topology's nodes has a key there, and none is trusted by its name in %s; add \"key:\" as \"stagecoach "
                       "keygen\" prints it on the node, or let it join by an invitation",
                       keys_dir(e->keys));
    return 0;
}

int nodes_init(struct engine *e, struct err *err)
{
    const char *listen = e->options.join_listen;
    if (!listen && e->options.topology)
        listen = e->options.topology->listen;
    if (listen && wire_listen(e->wire, listen, e->listening, err) != 0)
        return -1;
    return e->options.topology ? add_declared(e, err) : e->options.workers ? start_children(e, err) : 0;
}

void nodes_fini(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_nodes; i++) {
        struct msg m = {.type = MSG_RELEASE, .release = {.epoch = e->pipe.epoch, .keep_weights = e->nodes[i].child < 0}};
        if (e->nodes[i].control && e->nodes[i].state >= NODE_HERE)
            wire_send_msg(e->nodes[i].control, &m, NULL, 0, NULL, NULL, NULL);
        wire_link_close(e->nodes[i].control, "the coordinator was stopped");
        arena_fini(&e->nodes[i].memory);
    }
    e->n_nodes = 0;
}

/* --- losing -------------------------------------------------------------------------------------------------------------- */

static void away(struct engine *e, struct node *n)
{
    unsigned most = e->pipe.phase == PIPE_GATHERING ? REDIAL_NEEDED_MS : REDIAL_MAX_MS;
    n->state = NODE_AWAY;
    n->control = NULL;
    n->redial_ms = n->redial_ms < most ? n->redial_ms : most;
    n->dial_at_us = e->now_us + (int64_t)n->redial_ms * 1000;
    n->redial_ms = n->redial_ms * 2 < REDIAL_MAX_MS ? n->redial_ms * 2 : REDIAL_MAX_MS;
}

/* The link is gone already. */
static void gone(struct engine *e, struct node *n, const char *why)
{
    bool was_here = n->state >= NODE_HERE;

    away(e, n);
    if (was_here && n->leaving)
        engine_event_text(e, ENGINE_NOTE_INFO, n->name, "node %s has left", n->name);
    else if (was_here || (!n->said_away && n->child < 0)) /* one of our own takes a moment to begin */
        engine_event_text(e, was_here ? ENGINE_NOTE_TROUBLE : ENGINE_NOTE_INFO, n->name, "node %s is %s: %s", n->name,
                          was_here ? "lost" : "not there yet", why);
    n->said_away = true;
    if (!was_here) /* what it said was no hello, or it says nothing */
        snprintf(n->left_out, sizeof n->left_out, "%s", why);
    if (was_here && pipeline_stage_of(e, n, NULL) >= 0) {
        char text[256];
        snprintf(text, sizeof text, "node %s is lost (%s)", n->name, why);
        pipeline_break(e, text);
    }
}

void nodes_lose(struct engine *e, struct node *n, const char *why)
{
    wire_link_reject(n->control, why);
    n->redial_ms = REDIAL_MIN_MS;
    gone(e, n, why);
}

void nodes_send(struct engine *e, struct node *n, const struct msg *m)
{
    struct err err;
    enum wire_sent sent;

    if (!n->control)
        return;
    sent = wire_send_msg(n->control, m, NULL, 0, NULL, NULL, &err);
    if (sent != WIRE_SENT)
        nodes_lose(e, n, sent == WIRE_BLOCKED ? "it takes no more messages" : err.text);
}

/* --- greeting ------------------------------------------------------------------------------------------------------------ */

static const void *keep(struct arena *a, const void *data, size_t bytes)
{
    void *p = bytes ? arena_alloc(a, bytes, NULL) : NULL;
    if (p)
        memcpy(p, data, bytes);
    return p;
}

static const char *keep_text(struct arena *a, const char *text)
{
    const char *copy = arena_strndup(a, text, strlen(text), NULL);
    return copy ? copy : "";
}

/* Class and revision: only both together say that bits are the same. */
static const char *keep_class(struct arena *a, const struct msg_hello *h, const struct msg_device *d)
{
    char text[MSG_MAX_NAME + 16];
    bool own = d->numerics_class[0];
    snprintf(text, sizeof text, "%s/%u", own ? d->numerics_class : h->numerics_class, own ? d->numerics_revision : h->numerics_revision);
    return keep_text(a, text);
}

static void keep_peers(struct arena *a, struct msg_device *d)
{
    struct msg_peer *to = (struct msg_peer *)(uintptr_t)keep(a, d->peers, d->n_peers * sizeof *to);
    d->n_peers = to ? d->n_peers : 0;
    for (size_t i = 0; i < d->n_peers; i++)
        to[i].device = keep_text(a, to[i].device);
    d->peers = to;
}

static void keep_bits(struct arena *a, const struct msg_bits **bits, size_t *n)
{
    struct msg_bits *to = (struct msg_bits *)(uintptr_t)keep(a, *bits, *n * sizeof *to);
    for (size_t i = 0; to && i < *n; i++)
        to[i].type = keep_text(a, to[i].type);
    *bits = to;
    *n = to ? *n : 0;
}

/* A copy of what the codec will overwrite. What does not fit is left out: it is a node's word about itself. */
static void keep_hello(struct node *n, const struct msg_hello *from)
{
    struct arena *a = &n->memory;
    struct msg_device *devices;
    struct msg_resident *resident;

    arena_fini(a);
    arena_init(a, CLUSTER_HELLO_BYTES);
    n->hello = *from;
    n->hello.version = keep_text(a, from->version);
    n->hello.node = keep_text(a, from->node);
    n->hello.numerics_class = keep_text(a, from->numerics_class);
    n->hello.isa = keep_text(a, from->isa);
    n->hello.address = keep_text(a, from->address);
    n->hello.key = from->key ? keep(a, from->key, KEY_BYTES) : NULL;
    n->hello.devices = devices = (struct msg_device *)(uintptr_t)keep(a, from->devices, from->n_devices * sizeof *devices);
    keep_bits(a, &n->hello.bits, &n->hello.n_bits);
    n->hello.resident = resident = (struct msg_resident *)(uintptr_t)keep(a, from->resident, from->n_resident * sizeof *resident);
    n->hello.models = keep(a, from->models, from->n_models * sizeof *from->models);
    n->hello.n_devices = devices ? from->n_devices : 0;
    n->hello.n_resident = resident ? from->n_resident : 0;
    n->hello.n_models = n->hello.models ? from->n_models : 0;
    memset(n->memory_caps, 0, sizeof n->memory_caps);
    for (size_t i = 0; i < n->hello.n_devices; i++) {
        struct msg_rate *rates = (struct msg_rate *)(uintptr_t)keep(a, devices[i].rates, devices[i].n_rates * sizeof *rates);
        devices[i].name = keep_text(a, devices[i].name);
        devices[i].numerics_class = keep_class(a, from, &from->devices[i]);
        devices[i].text = keep_text(a, devices[i].text);
        keep_bits(a, &devices[i].bits, &devices[i].n_bits);
        keep_peers(a, &devices[i]);
        devices[i].n_rates = rates ? devices[i].n_rates : 0;
        for (size_t j = 0; j < devices[i].n_rates; j++)
            rates[j].type = keep_text(a, rates[j].type);
        devices[i].rates = rates;
    }
    for (size_t i = 0; i < n->hello.n_resident; i++)
        resident[i].device = keep_text(a, resident[i].device);
}

/* A node that joined stands in the topology file from now on. Its key does not: who may connect is what the folder of trusted keys
 * says, so that removing a key there is all that removing takes. */
static void write_down(struct engine *e, const struct node *n)
{
    struct topology *t = e->options.topology;
    struct topology_node node = {.name = n->name, .address = n->address[0] ? n->address : NULL};
    struct err err;

    if (!t || !e->options.topology_path || topology_find(t, n->name) != UINT32_MAX)
        return;
    planning_devices(&n->hello, &node);
    if (topology_put(t, &node, &err) != 0 || topology_note(t, n->name, e->options.topology_path, &err) != 0)
        engine_event_text(e, ENGINE_NOTE_TROUBLE, n->name, "node %s could not be written down: %s", n->name, err.text);
}

/* What the file gives it, and it has not. */
static void note_missing(struct engine *e, const struct node *n)
{
    uint32_t at = e->options.topology ? topology_find(e->options.topology, n->name) : UINT32_MAX;
    for (uint32_t d = 0; at != UINT32_MAX && d < e->options.topology->nodes[at].n_devices; d++) {
        const struct topology_device *want = &e->options.topology->nodes[at].devices[d];
        bool found = want->memory_bytes == 0;
        for (size_t k = 0; k < n->hello.n_devices; k++)
            found = found || strcmp(n->hello.devices[k].name, want->name) == 0;
        if (!found)
            engine_event_text(e, ENGINE_NOTE_TROUBLE, n->name, "node %s does not offer %s, which it has in the topology file: start the worker with --device", n->name,
                              want->name);
    }
}

/* A node that listens everywhere does not know by which address it is reached. */
static void take_address(struct engine *e, struct node *n, const char *said)
{
    char address[MSG_MAX_ADDRESS + 1];
    bool anywhere = wire_address_seen(said, n->control, address), same = strcmp(address, n->address) == 0;
    n->told_address = true;
    memcpy(n->address, address, sizeof n->address);
    if (!anywhere || same)
        return;
    if (address[0])
        engine_event_text(e, ENGINE_NOTE_INFO, n->name, "node %s listens at %s; others dial %s, where it came from (worker --advertise names another)", n->name,
                          said, address);
    else
        engine_event_text(e, ENGINE_NOTE_TROUBLE, n->name, "node %s listens at %s, which does not answer where it came from, %s: it will dial others (worker --advertise names an address)",
                          n->name, said, wire_link_address(n->control));
}

bool nodes_can_dial(const struct node *from, const struct node *to)
{
    if (!to->address[0])
        return false;
    return !from || !wire_address_loopback(to->address) || (from->control && wire_address_loopback(wire_link_address(from->control)));
}

static void greet(struct engine *e, struct node *n, const struct msg_hello *hello)
{
    struct msg m = {.type = MSG_WELCOME,
                    .welcome = {.instance = wire_net_instance(e->net), .node = wire_net_node(e->net), .version = PACKAGE_VERSION}};
    uint64_t memory = 0;
    char text[32], devices[160] = "";

    if (hello->n_devices == 0) {
        nodes_lose(e, n, "it says that it has no device to compute with");
        return;
    }
    if (n->child < 0 && n->hello.instance && n->hello.instance != hello->instance)
        n->restarts++;
    if (n->hello.instance != hello->instance)
        n->distrusted_until_us = n->load_errors = 0;
    keep_hello(n, hello);
    if ((n->address[0] == 0 || n->told_address) && hello->address[0])
        take_address(e, n, hello->address);
    n->state = n->drained ? NODE_DRAINED : NODE_HERE;
    n->redial_ms = REDIAL_MIN_MS;
    n->said_away = n->leaving = n->unusable = false;
    n->left_out[0] = '\0';
    n->seen_us = e->now_us;
    n->clock_at_us = 0; /* another machine may have come by that name */
    for (size_t i = 0, len = 0; i < n->hello.n_devices; i++) {
        memory += n->hello.devices[i].memory_bytes;
        if (n->hello.n_devices > 1 && len < sizeof devices)
            len += (size_t)snprintf(devices + len, sizeof devices - len, "%s%s", i ? ", " : "; devices ", n->hello.devices[i].name);
    }
    nodes_send(e, n, &m);
    if (n->has_key)
        write_down(e, n);
    engine_event_text(e, ENGINE_NOTE_INFO, n->name, "node %s is here: %s for models, %u thread%s, %s%s", n->name, sysinfo_bytes(text, memory),
                      n->hello.threads, n->hello.threads == 1 ? "" : "s", n->hello.isa, devices);
    note_missing(e, n);
    if (n->state == NODE_HERE)
        pipeline_node_here(e, n);
}

/* --- messages ------------------------------------------------------------------------------------------------------------ */

/* The quicker the answer, the less it can be off: at most by half its way. The best of the last seconds counts. */
static void set_clock(struct engine *e, struct node *n, int64_t offset_us, int64_t way_us)
{
    if (n->clock_at_us && way_us > n->clock_way_us && e->now_us - n->clock_at_us < (int64_t)CLOCK_MS * 1000)
        return;
    n->clock_offset_us = n->child >= 0 ? 0 : offset_us; /* a process of our own has our clock */
    n->clock_way_us = way_us;
    n->clock_at_us = e->now_us;
}

static void heartbeat(struct engine *e, struct node *n, const struct msg_heartbeat *h)
{
    n->peer_now_us = h->now_us;
    n->peer_seen_us = (uint64_t)e->now_us;
    if (h->peer_now_us) { /* our time came back: half the way there and back is the best guess of the offset */
        int64_t away_us = (int64_t)(h->now_us - h->peer_seen_us);
        int64_t way_us = (e->now_us - (int64_t)h->peer_now_us - away_us) / 2;
        set_clock(e, n, (int64_t)h->now_us + way_us - e->now_us, way_us);
    }
}

/* Here, but not to be used: the pipeline goes on without it, and it frees what it holds. */
static void set_aside(struct engine *e, struct node *n, const char *why)
{
    struct msg m = {.type = MSG_RELEASE, .release = {.epoch = e->pipe.epoch}};
    bool in_use = pipeline_stage_of(e, n, NULL) >= 0;
    n->state = NODE_DRAINED;
    if (in_use)
        pipeline_replan(e, why);
    else
        engine_event_text(e, ENGINE_NOTE_INFO, n->name, "%s", why);
    pipeline_forget(e, n, NULL);
    nodes_send(e, n, &m);
}

static void take_message(struct engine *e, struct node *n, const struct msg *m)
{
    char why[160];
    n->seen_us = e->now_us;
    switch (m->type) {
    case MSG_HELLO:
        if (n->state == NODE_GREETING)
            greet(e, n, &m->hello);
        else
            nodes_lose(e, n, "it said hello twice");
        return;
    case MSG_HEARTBEAT:
        heartbeat(e, n, &m->heartbeat);
        return;
    case MSG_DRAIN:
        snprintf(why, sizeof why, "node %s leaves: %s", n->name, m->drain.text);
        n->leaving = true;
        set_aside(e, n, why);
        return;
    default:
        if (n->state >= NODE_HERE)
            pipeline_message(e, n, m);
        return;
    }
}

static void take_frame(struct engine *e, struct node *n, struct wire_frame *frame)
{
    struct err err;
    struct msg m;

    if (codec_decode(e->codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err) == 0)
        take_message(e, n, &m);
    else
        nodes_lose(e, n, err.text);
    wire_frame_release(frame);
}

/* A node dialed us: one behind NAT, or one that an invitation brought. */
static void welcome_dialer(struct engine *e, struct wire_link *link)
{
    struct node *n = nodes_find(e, wire_link_node(link));

    if (!n && msg_name_reserved(wire_link_node(link))) {
        wire_link_close(link, "no worker can be called so, since topology files mean something else by it: trust its key by another name");
        return;
    }
    if (!n && !(n = add(e, wire_link_node(link)))) {
        wire_link_close(link, "this cluster has as many nodes as it can know");
        return;
    }
    if (n->control) { /* the old link may be dead without our knowing; a living node does not dial twice */
        if (n->state != NODE_DIALING && e->now_us - n->seen_us < (int64_t)LOST_MS * 1000) {
            wire_link_close(link, "a node of this name is connected already");
            return;
        }
        nodes_lose(e, n, "it connected anew");
    }
    if (!n->has_key && wire_link_key(link)) {
        memcpy(n->key, wire_link_key(link), sizeof n->key);
        n->has_key = true;
    }
    n->control = link;
    n->state = NODE_GREETING;
    n->seen_us = e->now_us;
    wire_link_set_user(link, n);
}

void nodes_event(struct engine *e, struct wire_event *event)
{
    struct node *n = wire_link_user(event->link);

    switch (event->kind) {
    case WIRE_UP:
        if (!wire_link_dialed(event->link)) {
            welcome_dialer(e, event->link);
        } else if (n) {
            n->state = NODE_GREETING;
            n->seen_us = e->now_us;
        }
        return;
    case WIRE_FRAME:
        if (n)
            take_frame(e, n, event->frame);
        else
            wire_frame_release(event->frame);
        return;
    case WIRE_DOWN:
        if (n && n->control == event->link)
            gone(e, n, event->text);
        return;
    default:
        return;
    }
}

/* --- by the clock -------------------------------------------------------------------------------------------------------- */

static void dial(struct engine *e, struct node *n)
{
    struct wire_dial d = {.endpoint = n->address, .purpose = LINK_CONTROL, .key = n->has_key ? n->key : NULL, .node = n->name, .user = n};
    struct err err;

    if ((n->control = wire_dial(e->wire, &d, &err)))
        n->state = NODE_DIALING;
    else
        gone(e, n, err.text);
}

static void send_heartbeat(struct engine *e, struct node *n)
{
    struct msg m = {.type = MSG_HEARTBEAT,
                    .heartbeat = {.now_us = (uint64_t)e->now_us, .peer_now_us = n->peer_now_us, .peer_seen_us = n->peer_seen_us}};
    nodes_send(e, n, &m);
}

static void watch(struct engine *e, struct node *n)
{
    char why[96];
    if (n->state < NODE_GREETING || e->now_us - n->seen_us <= (int64_t)LOST_MS * 1000)
        return;
    snprintf(why, sizeof why, "no heartbeat for %" PRId64 " ms", (e->now_us - n->seen_us) / 1000);
    if (n->child >= 0)
        children_kill(e->children, (unsigned)n->child); /* stopped or stuck: a new one takes its place */
    nodes_lose(e, n, why);
}

/* At once, but a process that ends again before it was of use is given more and more time. */
static void restart_children(struct engine *e)
{
    char how[96];
    struct err err;
    bool by_itself;
    for (int i; (i = children_reap(e->children, &by_itself, how, sizeof how)) >= 0;) {
        struct node *n = nodes_find(e, children_name(e->children, (unsigned)i));
        n->restarts++;
        n->refused = by_itself && n->state < NODE_HERE;
        if (n->control)
            nodes_lose(e, n, how);
        n->start_at_us = e->now_us + (int64_t)n->respawn_ms * 1000;
        n->respawn_ms = n->respawn_ms * 2 + REDIAL_MIN_MS < RESPAWN_MAX_MS ? n->respawn_ms * 2 + REDIAL_MIN_MS : RESPAWN_MAX_MS;
    }
    for (uint32_t i = 0; i < e->n_nodes; i++) {
        struct node *n = &e->nodes[i];
        if (n->child < 0 || !n->start_at_us || e->now_us < n->start_at_us)
            continue;
        n->start_at_us = 0;
        n->redial_ms = REDIAL_MIN_MS;
        n->dial_at_us = e->now_us + REDIAL_MIN_MS * 1000;
        if (children_start(e->children, (unsigned)n->child, &err) != 0) {
            engine_event_text(e, ENGINE_NOTE_TROUBLE, n->name, "%s", err.text);
            n->start_at_us = e->now_us + RESPAWN_MAX_MS * 1000;
        }
    }
}

void nodes_forgive(struct engine *e, int64_t us)
{
    for (uint32_t i = 0; i < e->n_nodes; i++)
        if (e->nodes[i].state >= NODE_GREETING)
            e->nodes[i].seen_us += us;
}

void nodes_tick(struct engine *e)
{
    bool beat = e->now_us >= e->beat_us;

    if (e->children)
        restart_children(e);
    for (uint32_t i = 0; i < e->n_nodes; i++) {
        struct node *n = &e->nodes[i];
        if (n->state == NODE_AWAY && n->address[0] && e->now_us >= n->dial_at_us)
            dial(e, n);
        watch(e, n);
        if (n->drained && n->drained_until_us && e->now_us >= n->drained_until_us)
            n->drained = false;
        if (n->state == NODE_DRAINED && !n->drained && !n->leaving) {
            n->state = NODE_HERE;
            engine_event_text(e, ENGINE_NOTE_INFO, n->name, "node %s may be used again", n->name);
            pipeline_node_here(e, n);
        }
        if (beat && n->state >= NODE_HERE)
            send_heartbeat(e, n);
    }
    if (beat)
        e->beat_us = e->now_us + HEARTBEAT_MS * 1000;
}

int nodes_drain(struct engine *e, const char *name, unsigned seconds, struct err *err)
{
    struct node *n = name ? nodes_find(e, name) : NULL;
    char why[MSG_MAX_NAME + 32];
    if (!n)
        return err_set(err, ERR_NOT_FOUND, "there is no node \"%s\" in this cluster", name ? name : "");
    n->drained = true;
    n->drained_until_us = seconds ? e->now_us + (int64_t)seconds * 1000000 : 0;
    if (n->state == NODE_HERE) {
        snprintf(why, sizeof why, "node %s is drained", n->name);
        set_aside(e, n, why);
    }
    return 0;
}
