/* What `status --json`, the page and /v1/cluster show. */
#include "coordinator/cluster.h"
#include "proto/act.h"

static const char *const phases[] = {"gathering", "loading", "linking", "testing", "running", "failed"};
static const char *const node_states[] = {"away", "connecting", "greeting", "here", "drained"};
static const char *const event_kinds[] = {"info", "trouble", "progress"};

static json_t *device_json(const struct engine *e, const struct node *n, size_t i)
{
    const struct msg_device *d = &n->hello.devices[i];
    int stage = pipeline_stage_of(e, n, d->name);
    json_t *o = json_pack("{s:s, s:I, s:s, s:s, s:o}", "name", d->name, "memory_bytes", (json_int_t)d->memory_bytes, "text", d->text, "numerics",
                          d->numerics_class, "stage", stage >= 0 ? json_integer(stage) : json_null());
    if (o && n->memory_caps[i]) /* more than that did not fit */
        json_object_set_new(o, "memory_found_bytes", json_integer((json_int_t)n->memory_caps[i]));
    return o;
}

static json_t *node_json(struct engine *e, const struct node *n)
{
    int stage = pipeline_stage_of(e, n, NULL);
    uint64_t done = 0, total = 0;
    json_t *o = json_pack("{s:s, s:s, s:b, s:I, s:s}", "name", n->name, "state", node_states[n->state], "standby", n->standby, "restarts",
                          (json_int_t)n->restarts, "address", n->address);
    if (!o)
        return NULL;
    json_object_set_new(o, "stage", stage >= 0 ? json_integer(stage) : json_null());
    if (n->left_out[0])
        json_object_set_new(o, "left_out", json_string(n->left_out));
    if (n->state >= NODE_HERE) {
        json_t *devices = json_array();
        for (size_t i = 0; i < n->hello.n_devices; i++)
            json_array_append_new(devices, device_json(e, n, i));
        json_object_set_new(o, "devices", devices);
        json_object_set_new(o, "isa", json_string(n->hello.isa));
        json_object_set_new(o, "threads", json_integer(n->hello.threads));
        json_object_set_new(o, "numerics", json_string(n->hello.numerics_class));
        json_object_set_new(o, "version", json_string(n->hello.version));
        json_object_set_new(o, "last_heard_ms", json_integer((e->now_us - n->seen_us) / 1000));
    }
    if (n->child >= 0)
        json_object_set_new(o, "pid", json_integer(children_pid(e->children, (unsigned)n->child)));
    for (uint32_t i = 0; stage >= 0 && i < e->pipe.n_stages; i++)
        if (e->pipe.stages[i].node == nodes_index(e, n) && !e->pipe.stages[i].ready) { /* what is ready may not have told its last bytes */
            done += e->pipe.stages[i].done_bytes;
            total += e->pipe.stages[i].total_bytes;
        }
    if (total)
        json_object_set_new(o, "loading", json_pack("{s:I, s:I}", "done_bytes", (json_int_t)done, "total_bytes", (json_int_t)total));
    return o;
}

static json_t *stage_json(const struct engine *e, uint32_t i)
{
    const struct pipe_stage *s = &e->pipe.stages[i];
    const struct activity_stage *a = &e->activity.stages[i];
    const struct plan_stage *p = &e->pipe.plan.stages[i];
    int64_t busy_us = activity_busy_us(&e->activity, e->now_us);
    return json_pack(
        "{s:s, s:s, s:[i,i], s:b, s:I, s:{s:I, s:I, s:I}, s:I, s:{s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:{s:f, s:f}}", "node",
        e->nodes[s->node].name, "device", s->device, "layers", (int)s->first, (int)s->last - 1, "ready", s->ready, "load_ms", (json_int_t)s->was_ready.load_ms, "bytes", "weights",
        (json_int_t)s->was_ready.weights_bytes, "kv", (json_int_t)s->was_ready.kv_bytes, "scratch", (json_int_t)s->was_ready.scratch_bytes,
        "memory_bytes", (json_int_t)p->memory_bytes, "measured", "batch_ms", s->compute_us / 1000, "batches", (json_int_t)a->batches,
        "rows", (json_int_t)a->rows, "sent_bytes", (json_int_t)a->bytes, "compute_us", (json_int_t)a->compute_us, "wait_us",
        (json_int_t)a->queued_us, "wire_us", (json_int_t)a->wire_us, "bubble_us",
        (json_int_t)(busy_us > a->compute_us ? busy_us - a->compute_us : 0), "predicted", "decode_ms", p->decode_us / 1000, "chunk_ms",
        p->chunk_us / 1000);
}

/* The way to stage i, or from the last one back to us. */
static json_t *link_json(const struct engine *e, uint32_t i)
{
    const struct pipe *p = &e->pipe;
    const struct activity_stage *a = &e->activity.stages[i];
    const struct cost_hop *hop = &p->plan.costs.hops[i];
    bool inside = i > 0 && i < p->n_stages; /* rows; else tokens */
    bool here = inside && p->stages[i - 1].node == p->stages[i].node; /* of one process: nothing is sent */
    double row_bytes = inside ? (double)act_row_bytes(e->act, e->params.embd) : 0;

    return json_pack("{s:s, s:f, s:f, s:f, s:b}", "form", here ? "memory" : inside ? act_name(e->act) : "tokens", "predicted_ms", cost_hop_us(hop, 1) / 1000,
                     "predicted_bytes_per_s", !here && hop->row_us > 0 ? row_bytes / hop->row_us * 1e6 : 0, "measured_ms", a->hop_us / 1000, "relayed",
                     inside && e->relays[i - 1] != NULL);
}

static json_t *schedule_json(const struct engine *e)
{
    struct sched_stats s;
    if (!e->sched)
        return json_null();
    sched_stats(e->sched, &s);
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:[i,i], s:[i,i], s:[i,i], s:I, s:I, s:I, s:I, s:I, s:I}", "waiting", (int)s.n_waiting,
                     "running", (int)s.n_running, "decoding", (int)s.n_decoding, "in_flight", (int)s.in_flight, "in_flight_wanted",
                     (int)s.in_flight_wanted, "blocks_used", (int)s.blocks_used[0], (int)s.blocks_used[1], "blocks_cached",
                     (int)s.blocks_cached[0], (int)s.blocks_cached[1], "blocks_free", (int)s.blocks_free[0], (int)s.blocks_free[1], "steps",
                     (json_int_t)s.n_steps, "rows", (json_int_t)s.n_rows, "prompt_rows", (json_int_t)s.n_prompt_rows, "rebuilt_rows",
                     (json_int_t)s.n_rebuilt_rows, "prefix_hits", (json_int_t)s.n_prefix_hit, "preempted", (json_int_t)s.n_preempted);
}

/* What the plan says: alone, with as many at once as may be, and with those that decode now. */
static json_t *predicted_json(const struct engine *e)
{
    const struct plan *p = &e->pipe.plan;
    struct sched_stats s = {0};
    double round_us = 0;

    if (e->sched)
        sched_stats(e->sched, &s);
    if (s.n_decoding && s.n_running)
        cost_best_m(&p->costs, s.n_decoding, (double)s.blocks_used[0] * KV_BLOCK / s.n_running, &round_us);
    return json_pack("{s:f, s:f, s:i, s:f, s:f, s:i, s:i}", "tokens_per_s_1", p->tokens_per_s_1, "tokens_per_s_n", p->tokens_per_s_n, "n",
                     (int)p->n, "ttft_ms_512", p->ttft_us / 1000, "tokens_per_s_now", round_us > 0 ? s.n_decoding * 1e6 / round_us : 0,
                     "decoding", (int)s.n_decoding, "bottleneck_stage",
                     p->bottleneck == BOTTLENECK_STAGE ? (int)p->bottleneck_index : -1);
}

void status_show(struct engine *e)
{
    struct sched_stats s = {0};
    if (e->sched)
        sched_stats(e->sched, &s);
    activity_set_now(&e->activity, &(struct activity_now){.now_us = e->now_us,
                                                          .state = phases[e->pipe.phase],
                                                          .epoch = e->pipe.epoch.counter,
                                                          .events = e->n_events,
                                                          .tokens = e->n_tokens,
                                                          .open = e->n_requests,
                                                          .running = s.n_running,
                                                          .waiting = s.n_waiting,
                                                          .in_flight = s.in_flight,
                                                          .in_flight_wanted = s.in_flight_wanted,
                                                          .blocks_used = s.blocks_used[0],
                                                          .blocks_cached = s.blocks_cached[0],
                                                          .blocks_free = s.blocks_free[0]});
}

json_t *status_json(struct engine *e)
{
    json_t *nodes = json_array(), *stages = json_array(), *events = json_array(), *links = json_array(), *o;
    bool planned = e->pipe.phase >= PIPE_LOADING && e->pipe.phase != PIPE_FAILED;
    uint64_t from = e->n_events > CLUSTER_MAX_EVENTS ? e->n_events - CLUSTER_MAX_EVENTS : 0;

    for (uint32_t i = 0; i < e->n_nodes; i++)
        json_array_append_new(nodes, node_json(e, &e->nodes[i]));
    for (uint32_t i = 0; planned && i < e->pipe.n_stages; i++)
        json_array_append_new(stages, stage_json(e, i));
    for (uint32_t i = 0; planned && i <= e->pipe.n_stages; i++)
        json_array_append_new(links, link_json(e, i));
    for (uint64_t i = from; i < e->n_events; i++)
        json_array_append_new(events,
                              json_pack("{s:f, s:s, s:s}", "at_s", (double)(e->events[i % CLUSTER_MAX_EVENTS].at_us - e->started_us) / 1e6,
                                        "kind", event_kinds[e->events[i % CLUSTER_MAX_EVENTS].kind], "text",
                                        e->events[i % CLUSTER_MAX_EVENTS].text));
    o = json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:{s:i, s:i, s:i}, s:{s:I, s:I, s:I, s:I}}", "state", phases[e->pipe.phase], "epoch",
                  (json_int_t)e->pipe.epoch.counter, "nodes", nodes, "stages", stages, "schedule", schedule_json(e), "events", events,
                  "sizes", "ctx", (int)e->ctx, "parallel", (int)e->parallel, "batch_rows", (int)e->max_rows, "requests", "open",
                  (json_int_t)e->n_requests, "served", (json_int_t)e->n_served, "failed", (json_int_t)e->n_failed, "tokens",
                  (json_int_t)e->n_tokens);
    json_object_set_new(o, "links", links);
    json_object_set_new(o, "predicted", planned ? predicted_json(e) : json_null());
    json_object_set_new(o, "up_s", json_real((double)(e->now_us - e->started_us) / 1e6));
    json_object_set_new(o, "layers", json_integer(e->params.n_layers));
    return o;
}
