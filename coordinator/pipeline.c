/* The pipeline's configuration, epoch after epoch: gather nodes, plan, configure, wait until all have loaded, link, test, run;
 * and from anywhere back to gathering when something that it needs is gone. Requests stay open meanwhile: the schedule computes
 * again what was lost, and their streams go on with the same tokens. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/sysinfo.h"
#include "coordinator/cluster.h"

static void enter(struct engine *e, enum pipe_phase phase)
{
    e->pipe.phase = phase;
    e->pipe.since_us = e->now_us;
}

static struct node *stage_node(struct engine *e, uint32_t stage)
{
    return &e->nodes[e->pipe.stages[stage].node];
}

int pipeline_stage_of(const struct engine *e, const struct node *n, const char *device)
{
    if (e->pipe.phase != PIPE_GATHERING && e->pipe.phase != PIPE_FAILED)
        for (uint32_t i = 0; i < e->pipe.n_stages; i++)
            if (e->pipe.stages[i].node == nodes_index(e, n) && (!device || strcmp(e->pipe.stages[i].device, device) == 0))
                return (int)i;
    return -1;
}

/* --- breaking ------------------------------------------------------------------------------------------------------------ */

static void close_links(struct engine *e, const char *why)
{
    struct pipe *p = &e->pipe;
    wire_link_close(p->first, why);
    wire_link_close(p->last, why);
    wire_link_close(p->dialing[0], why);
    wire_link_close(p->dialing[1], why);
    p->first = p->last = p->dialing[0] = p->dialing[1] = NULL;
    relay_close(e, why);
}

/* What the stages have is remembered as long as nothing else was running: a second fault on the way back loses nothing. */
static void remember(struct pipe *p)
{
    if (p->phase != PIPE_RUNNING)
        return;
    p->n_before = p->n_stages;
    memcpy(p->before, p->stages, sizeof p->before);
}

/* What the node holds is not what it had in that epoch: it was told otherwise since, or says so. */
void pipeline_forget(struct engine *e, const struct node *n, const char *device)
{
    struct pipe *p = &e->pipe;
    uint32_t node = nodes_index(e, n);
    struct msg_hello *h = &e->nodes[node].hello;
    struct msg_resident *resident = (struct msg_resident *)(uintptr_t)h->resident; /* in the node's own memory */
    size_t kept = 0;

    for (uint32_t i = 0; i < p->n_before; i++)
        if (p->before[i].node == node && (!device || strcmp(p->before[i].device, device) == 0))
            p->before[i].instance = 0;
    for (size_t i = 0; device && i < h->n_resident; i++)
        if (strcmp(resident[i].device, device) != 0)
            resident[kept++] = resident[i];
    h->n_resident = kept;
}

/* An epoch that ends before anything came of it is not followed by the next one at once: whatever is wrong needs time. */
static void count_fruitless(struct engine *e)
{
    struct pipe *p = &e->pipe;
    int64_t wait_ms = RETRY_MIN_MS;

    p->fruitless = p->landed ? 0 : p->fruitless + 1;
    p->blamed = p->landed ? 0 : p->blamed;
    p->landed = false;
    for (unsigned i = 2; i < p->fruitless && wait_ms < RETRY_MAX_MS; i++)
        wait_ms *= 2;
    p->retry_at_us = p->fruitless < 2 ? 0 : e->now_us + (wait_ms < RETRY_MAX_MS ? wait_ms : RETRY_MAX_MS) * 1000;
}

static void end_epoch(struct engine *e, enum engine_note_kind kind, const char *what, const char *why)
{
    struct pipe *p = &e->pipe;
    char text[320];

    if (p->phase == PIPE_GATHERING || p->phase == PIPE_FAILED)
        return;
    remember(p);
    count_fruitless(e);
    activity_broken(&e->activity, e->now_us);
    close_links(e, why);
    engine_set_ready(e, false);
    snprintf(p->why, sizeof p->why, "%s", why);
    engine_event_text(e, kind, NULL, "the pipeline is %s: %s", what, why);
    if (p->ran_before) {
        if (!p->broken_us)
            p->broken_us = e->now_us;
        snprintf(text, sizeof text, "the pipeline is being %s: %s", kind == ENGINE_NOTE_TROUBLE ? "repaired" : what, why);
        engine_pause_all(e, text);
    }
    p->said_stuck = false;
    enter(e, PIPE_GATHERING);
}

void pipeline_break(struct engine *e, const char *why)
{
    end_epoch(e, ENGINE_NOTE_TROUBLE, "interrupted", why);
}

void pipeline_break_by_step(struct engine *e, const char *why)
{
    struct pipe *p = &e->pipe;
    struct err err;

    if (p->phase == PIPE_RUNNING && !p->landed && ++p->blamed >= BLAME_MAX) {
        err_set(&err, ERR_INTERNAL, "the pipeline failed %u times at the step that this request is in: %s", p->blamed, why);
        steps_fail_flying(e, &err);
        p->blamed = 0;
    }
    pipeline_break(e, why);
}

/* What did not fit on devices is asked of them again. Returns whether there was any such. */
static bool forget_shortages(struct engine *e)
{
    bool any = false;
    for (uint32_t i = 0; i < e->n_nodes; i++)
        for (size_t k = 0; k < MSG_MAX_DEVICES; k++) {
            any = any || e->nodes[i].memory_caps[k];
            e->nodes[i].memory_caps[k] = 0;
        }
    return any;
}

void pipeline_replan(struct engine *e, const char *why)
{
    struct pipe *p = &e->pipe;
    forget_shortages(e);
    if (p->phase == PIPE_GATHERING || p->phase == PIPE_FAILED)
        return;
    p->landed = true; /* what ends is no failure */
    end_epoch(e, ENGINE_NOTE_INFO, "planned anew", why);
    p->since_us = 0; /* nobody is waited for */
}

/* --- configuring --------------------------------------------------------------------------------------------------------- */

/* Who dials whom on the link from `up` to `down`; NULL is the coordinator. Whoever can be dialed is; downstream first. */
static enum msg_reach reach(const struct node *up, const struct node *down, bool asks_down)
{
    if (up == down)
        return REACH_PROCESS;
    bool down_open = down && nodes_can_dial(up, down), up_open = up && nodes_can_dial(down, up);
    if (!down) /* we dial whom we can */
        return up_open ? REACH_AWAIT : REACH_DIAL;
    if (!up)
        return down_open ? REACH_AWAIT : REACH_DIAL;
    if (!down_open && !up_open)
        return REACH_RELAY;
    return down_open != asks_down ? REACH_DIAL : REACH_AWAIT;
}

/* asks_down: the neighbour upstream of whom we tell; else downstream. */
static struct msg_neighbour neighbour(struct engine *e, uint32_t stage, bool asks_down)
{
    bool is_end = asks_down ? stage == 0 : stage + 1 == e->pipe.n_stages;
    uint32_t other = asks_down ? stage - 1 : stage + 1;
    struct node *self = stage_node(e, stage), *n = is_end ? NULL : stage_node(e, other);
    struct msg_neighbour m = {
        .reach = asks_down ? reach(n, self, true) : reach(self, n, false),
        .node = n ? n->name : wire_net_node(e->net),
        .address = n ? n->address : e->listening,
        .key = n         ? (n->has_key ? n->key : NULL)
               : e->keys ? keys_public(e->keys)
                         : NULL,
        .stage = n ? other : MSG_STAGE_COORDINATOR,
        .act = is_end || n == self ? ACT_F32 : e->act,
    };
    if (m.reach == REACH_RELAY) { /* it is we who are dialed */
        m.address = e->listening;
        m.key = e->keys ? keys_public(e->keys) : NULL;
    }
    return m;
}

/* Its KV is what it was: the same process with the same layers on the same device. */
static bool is_kept(const struct engine *e, const struct pipe_stage *s)
{
    const struct node *n = &e->nodes[s->node];
    for (uint32_t i = 0; i < e->pipe.n_before; i++) {
        const struct pipe_stage *b = &e->pipe.before[i];
        if (b->node == s->node && b->instance == n->hello.instance && b->first == s->first && b->last == s->last &&
            strcmp(b->device, s->device) == 0)
            return true;
    }
    return false;
}

static void configure(struct engine *e, uint32_t i)
{
    struct pipe_stage *s = &e->pipe.stages[i];
    struct node *n = stage_node(e, i);
    struct msg_source sources[MSG_MAX_SOURCES];
    struct msg m = {.type = MSG_CONFIGURE};
    struct msg_configure *c = &m.configure;

    s->ready = false;
    s->kept = is_kept(e, s);
    if (!s->kept)
        pipeline_forget(e, n, s->device);
    s->instance = n->hello.instance;
    *c = (struct msg_configure){
        .epoch = e->pipe.epoch,
        .stage = i,
        .n_stages = e->pipe.n_stages,
        .device = s->device,
        .layer_first = s->first,
        .layer_end = s->last,
        .embed = i == 0,
        .head = i + 1 == e->pipe.n_stages,
        .kv = (enum msg_kv)e->options.kv,
        .ctx = e->ctx,
        .n_blocks = {e->n_blocks[0], e->n_blocks[1]},
        .max_rows = e->max_rows,
        .max_wanted = e->max_wanted,
        .max_seqs = e->parallel,
        .table_stride = e->table_stride,
        .isa = e->options.isa ? e->options.isa : "",
        .keep_kv = s->kept,
        .previous = neighbour(e, i, true),
        .next = neighbour(e, i, false),
        .sources = sources,
        .n_sources = weights_sources(e, i, sources),
        .window_frames = SCHED_MAX_IN_FLIGHT,
        .window_bytes = WIRE_MAX_PAYLOAD,
        .heartbeat_ms = HEARTBEAT_MS,
        .lost_ms = LOST_MS,
        .orphan_ms = ORPHAN_MS,
    };
    memcpy(c->model, e->model_id, sizeof c->model);
    nodes_send(e, n, &m);
}

/* Devices of nodes in use that have no part in this epoch free what they hold: before the others, which may need that memory. */
static void release_devices(struct engine *e, struct node *n)
{
    struct msg m = {.type = MSG_RELEASE, .release = {.epoch = e->pipe.epoch}};
    for (size_t k = 0; n->hello.n_devices > 1 && k < n->hello.n_devices && n->state >= NODE_HERE; k++) {
        m.release.device = n->hello.devices[k].name;
        if (pipeline_stage_of(e, n, m.release.device) >= 0)
            continue;
        pipeline_forget(e, n, m.release.device);
        nodes_send(e, n, &m);
    }
}

/* Nodes that have no part in this epoch free what they hold. */
static void release_others(struct engine *e)
{
    struct msg m = {.type = MSG_RELEASE, .release = {.epoch = e->pipe.epoch}};
    for (uint32_t i = 0; i < e->n_nodes; i++)
        if (e->nodes[i].state >= NODE_HERE && pipeline_stage_of(e, &e->nodes[i], NULL) < 0) {
            pipeline_forget(e, &e->nodes[i], NULL);
            nodes_send(e, &e->nodes[i], &m);
        }
}

static void fail(struct engine *e, const struct err *err)
{
    e->pipe.err = *err;
    enter(e, PIPE_FAILED);
    engine_set_failed(e, err); /* who waits for the engine tells it */
}

/* The wait doubles each time. */
static int64_t distrust_us(unsigned times)
{
    int64_t ms = DISTRUST_MIN_MS;
    for (unsigned i = 0; i < times && ms < DISTRUST_MAX_MS; i++)
        ms *= 2;
    return (ms < DISTRUST_MAX_MS ? ms : DISTRUST_MAX_MS) * 1000;
}

/* There is no plan with what fitted on devices that were short of memory: they may have more by now. */
static void doubt_shortages(struct engine *e)
{
    struct pipe *p = &e->pipe;
    if (!p->doubt_at_us)
        p->doubt_at_us = e->now_us + distrust_us(p->doubts);
    if (e->now_us < p->doubt_at_us)
        return;
    p->doubts += forget_shortages(e);
    p->doubt_at_us = 0;
}

/* There is no plan. Others may come, or what kept a node from loading may end; else that is the last word. */
static void no_plan(struct engine *e, const struct err *err, bool others_may_come)
{
    struct pipe *p = &e->pipe;
    struct err both = *err;
    if (!p->ran_before && !others_may_come) {
        if (p->short_of_memory)
            err_set(&both, ERR_MEMORY, "%s; without that memory there is no plan: %s", p->why, err->text);
        else if (p->refusal.kind) /* what a node said is nearer to the cause than that there is no plan without it */
            both = p->refusal;
        fail(e, &both);
        return;
    }
    if (!p->said_stuck)
        engine_event_text(e, ENGINE_NOTE_TROUBLE, NULL, "no plan with the nodes that are here: %s", err->text);
    p->said_stuck = true;
    p->retry_at_us = e->now_us + PLAN_AGAIN_MS * 1000;
    doubt_shortages(e);
}

static void begin_epoch(struct engine *e, bool others_may_come)
{
    struct pipe *p = &e->pipe;
    struct pipe_stage stages[COST_MAX_STAGES];
    struct err err;
    uint32_t n;

    memset(stages, 0, sizeof stages);
    if (planning_choose(e, stages, &n, &p->plan, &err) != 0) {
        no_plan(e, &err, others_may_come);
        return;
    }
    p->fresh = false;
    p->doubt_at_us = 0;
    memcpy(p->stages, stages, sizeof stages);
    p->n_stages = n;
    p->epoch = (struct msg_epoch){wire_net_instance(e->net), p->epoch.counter + 1};
    enter(e, PIPE_LOADING);
    for (uint32_t i = 0; i < e->n_nodes && p->phase == PIPE_LOADING; i++)
        if (pipeline_stage_of(e, &e->nodes[i], NULL) >= 0)
            release_devices(e, &e->nodes[i]);
    for (uint32_t i = 0; i < n && p->phase == PIPE_LOADING; i++)
        configure(e, i);
    if (p->phase == PIPE_LOADING)
        release_others(e);
}

/* --- gathering ----------------------------------------------------------------------------------------------------------- */

static bool is_awaited(const struct node *n)
{
    return n->declared && !n->standby && !n->drained && n->state != NODE_HERE;
}

/* It is here, and had no part in the epoch before: it can take over at once. */
static bool is_spare(const struct engine *e, uint32_t node)
{
    for (uint32_t i = 0; i < e->pipe.n_stages; i++)
        if (e->pipe.stages[i].node == node)
            return false;
    return e->nodes[node].state == NODE_HERE;
}

/* Whether to go on without those that are not here. */
static bool is_patience_over(const struct engine *e, bool for_child, bool spare_here)
{
    int64_t waited_ms = (e->now_us - e->pipe.since_us) / 1000;
    if (for_child)
        return e->pipe.ran_before && waited_ms >= CHILD_GRACE_MS; /* at first all of our own must come */
    if (e->pipe.ran_before)
        return spare_here || waited_ms >= GRACE_MS;
    return waited_ms >= GATHER_MS;
}

static void gather(struct engine *e)
{
    bool awaited = false, for_child = false, spare_here = false;
    uint32_t here = 0, chain_here = 0;
    struct err err;

    if (e->now_us < e->pipe.retry_at_us)
        return;
    for (uint32_t i = 0; i < e->n_nodes; i++) {
        const struct node *n = &e->nodes[i];
        here += n->state == NODE_HERE;
        spare_here = spare_here || is_spare(e, i);
        awaited = awaited || is_awaited(n);
        for_child = for_child || (is_awaited(n) && n->child >= 0);
        if (n->child >= 0 && !e->pipe.ran_before && (n->refused || n->restarts > CHILD_MAX_RESTARTS)) {
            if (n->refused)
                err_set(&err, ERR_INTERNAL, "worker process %s did not start; its message above says why", n->name);
            else
                err_set(&err, ERR_INTERNAL, "worker process %s ended %" PRIu64 " times before its first answer; its messages above say why", n->name,
                        n->restarts);
            fail(e, &err);
            return;
        }
    }
    for (uint32_t i = 0; e->pipe.ran_before && i < e->pipe.n_stages; i++)
        chain_here += stage_node(e, i)->state == NODE_HERE;
    if (here > 0 && (!awaited || (chain_here > 0 && chain_here == e->pipe.n_stages) || is_patience_over(e, for_child, spare_here)))
        begin_epoch(e, awaited || e->options.join_listen);
}

/* Open requests are not kept waiting for ever. */
static void give_up(struct engine *e)
{
    struct pipe *p = &e->pipe;
    int64_t limit_ms = e->options.recover_timeout_ms ? e->options.recover_timeout_ms : RECOVER_TIMEOUT_MS;
    struct err err;

    if (!p->broken_us || e->now_us - p->broken_us < limit_ms * 1000)
        return;
    err_set(&err, ERR_AWAY, "the pipeline could not be repaired within %" PRId64 " s (%s)%s", limit_ms / 1000, p->why,
            p->said_stuck ? ": the nodes that are left cannot hold the model" : "");
    for (size_t i = 0; i < ENGINE_MAX_REQUESTS; i++)
        if (e->requests[i])
            engine_fail(e, e->requests[i], &err);
    p->broken_us = e->now_us; /* those that come now wait as long */
}

/* --- linking and testing ------------------------------------------------------------------------------------------------- */

static struct wire_link *dial(struct engine *e, uint32_t stage, bool upstream)
{
    struct node *n = stage_node(e, stage);
    struct wire_dial d = {.endpoint = n->address,
                          .purpose = LINK_DATA,
                          .key = n->has_key ? n->key : NULL,
                          .node = n->name,
                          .epoch = e->pipe.epoch,
                          .stage = MSG_STAGE_COORDINATOR,
                          .upstream = upstream};
    struct err err;
    struct wire_link *link;

    if (!n->address[0])
        return NULL; /* it dials us */
    if (!(link = wire_dial(e->wire, &d, &err)))
        pipeline_break(e, err.text);
    return link;
}

static void link_up(struct engine *e)
{
    enter(e, PIPE_LINKING);
    for (uint32_t i = 0; i < 2 && e->pipe.phase == PIPE_LINKING; i++) {
        e->pipe.dialing[i] = dial(e, i == 0 ? 0 : e->pipe.n_stages - 1, i == 1);
    }
}

static void test(struct engine *e)
{
    if (!e->pipe.first || !e->pipe.last)
        return;
    enter(e, PIPE_TESTING);
    steps_begin(e);
    steps_send_test(e);
}

static void take_link(struct engine *e, struct wire_link *link)
{
    const struct msg_link_hello *hello = wire_link_hello(link);
    struct wire_link **place;
    bool dialed = wire_link_dialed(link);
    struct pipe *p = &e->pipe;

    if (p->phase < PIPE_LOADING || p->phase > PIPE_LINKING || !msg_epoch_same(hello->epoch, p->epoch)) {
        wire_link_close(link, "this epoch is over");
        return;
    }
    /* We receive from the last stage: a link that we dialed upstream, or that it dialed downstream. */
    place = hello->upstream == dialed ? &p->last : &p->first;
    if (*place || strcmp(wire_link_node(link), stage_node(e, place == &p->first ? 0 : p->n_stages - 1)->name) != 0) {
        wire_link_close(link, "no such link is awaited");
        return;
    }
    *place = link;
    if (dialed)
        p->dialing[place == &p->last] = NULL;
    if (p->phase == PIPE_LINKING)
        test(e);
}

void pipeline_link_event(struct engine *e, struct wire_event *event)
{
    struct pipe *p = &e->pipe;
    char text[sizeof event->text + MSG_MAX_NAME + 40];

    if (relay_event(e, event))
        return;
    switch (event->kind) {
    case WIRE_UP:
        take_link(e, event->link);
        return;
    case WIRE_DOWN:
        if (event->link == p->first || event->link == p->last || event->link == p->dialing[0] || event->link == p->dialing[1]) {
            snprintf(text, sizeof text, "the link to node %s is down (%s)", wire_link_node(event->link), event->text);
            for (int i = 0; i < 2; i++)
                p->dialing[i] = p->dialing[i] == event->link ? NULL : p->dialing[i];
            p->first = p->first == event->link ? NULL : p->first;
            p->last = p->last == event->link ? NULL : p->last;
            pipeline_break(e, text);
        }
        return;
    case WIRE_FRAME:
        if (event->link == p->last && event->frame->type == MSG_RESULT && p->phase >= PIPE_TESTING)
            steps_result(e, event->frame);
        else
            wire_frame_release(event->frame); /* credit from the first stage: steps under way are bounded by the schedule */
        return;
    default:
        return;
    }
}

/* --- running ------------------------------------------------------------------------------------------------------------- */

static void write_trace(void *arg, const char *line, size_t len)
{
    FILE *f = arg; /* buffered: a full disk is told when it is closed, and stops nothing */
    fwrite(line, 1, len, f);
    putc('\n', f);
}

static int open_trace(struct engine *e, struct err *err)
{
    if (!e->options.trace_path)
        return 0;
    if (!(e->trace = fopen(e->options.trace_path, "we")))
        return err_errno(err, errno, "--trace %s", e->options.trace_path);
    sched_set_trace(e->sched, write_trace, e->trace);
    return 0;
}

static int make_sched(struct engine *e, struct err *err)
{
    struct sched_config c = {
        .policy = e->options.policy,
        .n_stages = e->pipe.n_stages,
        .max_seqs = e->parallel,
        .max_waiting = ENGINE_MAX_REQUESTS,
        .max_rows = e->max_rows,
        .max_wanted = e->max_wanted,
        .ctx = e->ctx,
        .block = KV_BLOCK,
        .n_blocks = {e->n_blocks[0], e->n_blocks[1]},
        .window = e->window,
        .gather_ms = e->options.gather_ms,
        .seed = wire_net_instance(e->net),
    };
    planning_costs(e, &c.costs);
    return (e->sched = sched_create(&c, err)) ? open_trace(e, err) : -1;
}

static int reset_sched(struct engine *e, struct err *err)
{
    struct sched_costs costs;
    struct sched_reset r = {.n_stages = e->pipe.n_stages, .lost_through = -1, .costs = &costs};
    planning_costs(e, &costs);
    for (uint32_t i = 0; i < e->pipe.n_stages; i++)
        if (!e->pipe.stages[i].kept)
            r.lost_through = (int32_t)i;
    return sched_reset(e->sched, (uint64_t)e->now_us, &r, err);
}

void pipeline_tested(struct engine *e)
{
    struct pipe *p = &e->pipe;
    struct err err;
    bool first = !e->sched;

    if (p->phase != PIPE_TESTING)
        return;
    if ((first ? make_sched(e, &err) : reset_sched(e, &err)) != 0) {
        fail(e, &err);
        return;
    }
    if (p->ran_before)
        engine_event_text(e, ENGINE_NOTE_INFO, NULL, "the pipeline runs again after %" PRId64 " ms",
                          p->broken_us ? (e->now_us - p->broken_us) / 1000 : 0);
    else
        engine_event_text(e, ENGINE_NOTE_INFO, NULL, "the pipeline is ready: %u stage%s", p->n_stages, p->n_stages == 1 ? "" : "s");
    p->ran_before = true;
    p->short_of_memory = false;
    p->doubts = 0;
    p->refusal.kind = ERR_NONE;
    p->broken_us = 0;
    p->n_before = 0;
    enter(e, PIPE_RUNNING);
    if (first)
        engine_schedule_all(e);
    engine_set_ready(e, true);
}

/* --- events -------------------------------------------------------------------------------------------------------------- */

static void stage_ready(struct engine *e, struct node *n, const struct msg_ready *m)
{
    char size[32];
    struct pipe_stage *s = &e->pipe.stages[m->stage];

    s->ready = true;
    s->was_ready = *m;
    n->load_errors = 0;
    n->respawn_ms = 0;
    engine_event_text(e, ENGINE_NOTE_INFO, n->name, "node %s is ready%s%s: layers %u-%u, %s of weights in %.1f s", n->name,
                      n->hello.n_devices > 1 ? " on " : "", n->hello.n_devices > 1 ? s->device : "", s->first, s->last - 1, sysinfo_bytes(size, m->weights_bytes), (double)m->load_ms / 1000);
    for (uint32_t i = 0; i < e->pipe.n_stages; i++)
        if (!e->pipe.stages[i].ready)
            return;
    link_up(e);
    if (e->pipe.phase == PIPE_LINKING)
        test(e);
}

/* It could not load what it was asked for. Others may; if there are none, it is asked again later. */
static void distrust(struct engine *e, struct node *n)
{
    n->distrusted_until_us = e->now_us + distrust_us(n->load_errors++);
}

/* A stage did not fit on a device: from now on plans give it no more than it says there is, until it says hello anew, a new plan is
 * asked for, or there has been no plan for a while. */
static void plan_with_less(struct engine *e, struct node *n, const char *device, uint64_t bytes)
{
    for (size_t i = 0; i < n->hello.n_devices; i++) {
        uint64_t *cap = &n->memory_caps[i];
        if (strcmp(n->hello.devices[i].name, device) != 0)
            continue;
        *cap = *cap && *cap <= bytes ? *cap - *cap / 10 : bytes; /* the same again: it counts otherwise than we do */
        *cap = *cap ? *cap : 1;
    }
    e->pipe.fruitless = 0; /* another plan follows: nothing is tried again */
}

static void stage_error(struct engine *e, struct node *n, const struct msg_error *m)
{
    struct err err;
    char text[MSG_MAX_TEXT + MSG_MAX_NAME + 16];
    const struct pipe_stage *s = &e->pipe.stages[m->stage];

    snprintf(text, sizeof text, "node %s: %s", n->name, m->text);
    if (m->kind == ERR_MEMORY && m->memory_bytes && e->pipe.phase == PIPE_LOADING) {
        plan_with_less(e, n, s->device, m->memory_bytes);
        pipeline_forget(e, n, s->device);
        pipeline_break(e, text);
        e->pipe.short_of_memory = true;
        return;
    }
    if (!e->pipe.ran_before && e->pipe.phase == PIPE_LOADING &&
        (m->kind == ERR_MEMORY || m->kind == ERR_INPUT || m->kind == ERR_UNSUPPORTED)) {
        /* Asked again it would end the same way; another node may do. Own workers are alike. */
        err_set(&err, (enum err_kind)m->kind, "%s", text);
        e->pipe.refusal = err;
        if (n->child >= 0) {
            close_links(e, text);
            fail(e, &err);
            return;
        }
    }
    bool kept = s->kept;
    pipeline_forget(e, n, s->device);
    if (e->pipe.phase == PIPE_LOADING) {
        if (!kept) /* else it can load, and will be asked to */
            distrust(e, n);
        pipeline_break(e, text);
    } else {
        pipeline_break_by_step(e, text);
    }
}

static void progress(struct engine *e, struct node *n, const struct msg_load_progress *m)
{
    e->pipe.stages[m->stage].done_bytes = m->done_bytes;
    e->pipe.stages[m->stage].total_bytes = m->total_bytes;
    if (e->options.note)
        e->options.note(e->options.note_arg, &(struct engine_note){.kind = ENGINE_NOTE_PROGRESS,
                                                                   .node = n->name,
                                                                   .text = m->text,
                                                                   .done_bytes = m->done_bytes,
                                                                   .total_bytes = m->total_bytes});
}

/* Whether a message of this epoch and stage may come from this node. */
static bool is_current(const struct engine *e, const struct node *n, struct msg_epoch epoch, uint32_t stage)
{
    return msg_epoch_same(epoch, e->pipe.epoch) && pipeline_stage_of(e, n, NULL) >= 0 && stage < e->pipe.n_stages &&
           e->pipe.stages[stage].node == nodes_index(e, n);
}

void pipeline_message(struct engine *e, struct node *n, const struct msg *m)
{
    switch (m->type) {
    case MSG_LOAD_PROGRESS:
        if (is_current(e, n, m->load_progress.epoch, m->load_progress.stage))
            progress(e, n, &m->load_progress);
        return;
    case MSG_READY:
        if (e->pipe.phase == PIPE_LOADING && is_current(e, n, m->ready.epoch, m->ready.stage))
            stage_ready(e, n, &m->ready);
        return;
    case MSG_STAGE_DONE:
        if (is_current(e, n, m->stage_done.epoch, m->stage_done.stage))
            steps_stage_done(e, &m->stage_done);
        return;
    case MSG_ERROR:
        if (is_current(e, n, m->error.epoch, m->error.stage))
            stage_error(e, n, &m->error);
        else if (m->error.epoch.counter == 0)
            engine_event_text(e, ENGINE_NOTE_TROUBLE, n->name, "node %s: %s", n->name, m->error.text);
        return;
    default:
        nodes_lose(e, n, "it sent a message that only a coordinator may send");
        return;
    }
}

void pipeline_node_here(struct engine *e, struct node *n)
{
    (void)n;
    e->pipe.fresh = true;
    if (e->pipe.phase == PIPE_GATHERING) {
        if (e->pipe.said_stuck)
            e->pipe.retry_at_us = 0; /* it may be the one that was missing */
        gather(e);
    }
}

/* Whether a plan made now would be another one. */
static bool is_outdated(struct engine *e)
{
    struct pipe *p = &e->pipe;
    struct pipe_stage stages[COST_MAX_STAGES];
    enum act_type act = e->act;
    struct plan plan;
    struct err err;
    uint32_t n;
    bool same;

    memset(stages, 0, sizeof stages);
    same = planning_choose(e, stages, &n, &plan, &err) != 0 || n == p->n_stages;
    e->act = act; /* the running epoch's */
    for (uint32_t i = 0; same && i < p->n_stages; i++)
        same = stages[i].node == p->stages[i].node && stages[i].first == p->stages[i].first && stages[i].last == p->stages[i].last &&
               strcmp(stages[i].device, p->stages[i].device) == 0;
    return !same;
}

/* A node that came is taken in when nobody is disturbed by that. */
static void look_around(struct engine *e)
{
    struct pipe *p = &e->pipe;
    bool quiet;

    pthread_mutex_lock(&e->lock);
    quiet = e->n_requests == 0;
    pthread_mutex_unlock(&e->lock);
    p->quiet_since_us = !quiet ? 0 : p->quiet_since_us ? p->quiet_since_us : e->now_us;
    if (!p->fresh || !quiet || e->now_us - p->quiet_since_us < QUIET_MS * 1000)
        return;
    p->fresh = false;
    if (is_outdated(e))
        pipeline_replan(e, "a node has come");
}

void pipeline_tick(struct engine *e)
{
    struct pipe *p = &e->pipe;
    int64_t waited_ms = (e->now_us - p->since_us) / 1000;

    switch (p->phase) {
    case PIPE_GATHERING:
        gather(e);
        break;
    case PIPE_LINKING:
        if (waited_ms > LINK_MS)
            pipeline_break(e, p->first ? "the last stage's link did not come up" : "the first stage's link did not come up");
        break;
    case PIPE_TESTING:
        if (waited_ms > TEST_MS)
            pipeline_break(e, "the chain did not answer its test batch");
        break;
    case PIPE_RUNNING:
        look_around(e);
        break;
    default:
        break;
    }
    give_up(e);
}
