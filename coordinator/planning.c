/* From nodes and a model to numbers: how large contexts and batches are, which layers go where, what the schedule reckons with. */
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "base/threadpool.h"
#include "coordinator/cluster.h"
#include "coordinator/plan_input.h"

enum { DEFAULT_PARALLEL = 4, SLIDING_SLACK = 1024 };
static const double rate_least = 1;                    /* a second; below, nothing was measured */

/* --- sizes --------------------------------------------------------------------------------------------------------------- */

static uint32_t blocks_for(uint64_t positions)
{
    return (uint32_t)((positions + KV_BLOCK - 1) / KV_BLOCK);
}

static uint32_t sliding_window(const struct model_params *p)
{
    for (uint32_t i = 0; i < p->n_layers; i++)
        if (p->window && p->sliding[i])
            return p->window;
    return 0;
}

static bool has_full(const struct model_params *p)
{
    for (uint32_t i = 0; i < p->n_layers; i++)
        if (!p->window || !p->sliding[i])
            return true;
    return false;
}

static void size_blocks(struct engine *e)
{
    uint64_t sliding = (uint64_t)e->window + e->max_rows + SLIDING_SLACK + 2 * KV_BLOCK;
    e->table_stride = blocks_for(e->ctx);
    e->n_blocks[SCHED_FULL] = has_full(&e->params) ? model_shared_blocks(blocks_for(e->ctx), e->parallel, e->options.kv_total) : 0;
    e->n_blocks[SCHED_SLIDING] =
        e->window ? model_shared_blocks(blocks_for(sliding < e->ctx ? sliding : e->ctx), e->parallel, e->options.kv_total) : 0;
}

int planning_sizes(struct engine *e, struct err *err)
{
    const struct engine_options *o = &e->options;
    const struct model_params *p = &e->params;

    e->ctx = o->ctx ? o->ctx : p->ctx_train < MODEL_DEFAULT_CTX ? p->ctx_train : MODEL_DEFAULT_CTX;
    e->parallel = o->parallel ? o->parallel : DEFAULT_PARALLEL;
    e->max_rows = o->batch_rows ? o->batch_rows : DEFAULT_ROWS;
    if (e->ctx > MSG_MAX_CTX)
        return err_set(err, ERR_USAGE, "a context of %u positions asked for, at most %d allowed", e->ctx, MSG_MAX_CTX);
    if (e->parallel > MSG_MAX_SEQS)
        return err_set(err, ERR_USAGE, "%u sequences at once asked for, at most %d allowed", e->parallel, MSG_MAX_SEQS);
    if (e->max_rows > MSG_MAX_ROWS)
        return err_set(err, ERR_USAGE, "batches of %u rows asked for, at most %d allowed", e->max_rows, MSG_MAX_ROWS);
    if (e->max_rows < e->parallel)
        e->max_rows = e->parallel;
    e->max_wanted = e->parallel > MAX_WANTED ? e->parallel : MAX_WANTED;
    if (e->max_wanted > e->max_rows)
        e->max_wanted = e->max_rows;
    e->window = sliding_window(p);
    e->act = o->wire;
    size_blocks(e);
    return 0;
}

/* --- the planner's input ------------------------------------------------------------------------------------------------- */

static uint32_t type_index(const struct plan_model *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_types; i++)
        if (strcmp(m->type_names[i], name) == 0)
            return i;
    return UINT32_MAX;
}

/* Workers of our own measure nothing when they start. What one thread makes of our kernels is known well enough by its instruction
 * set (checkkernels --bench), with one row, with few and with many, and so is what it reads; the schedule corrects itself by what steps take. */
static const double THREAD_READ_BPS = 16e9;

static const double *usual_gops(const char *isa)
{
    static const struct {
        const char *isa;
        double gops[COST_ROWS];
    } usual[] = {{"scalar", {6, 8, 8}},          {"avx2", {55, 135, 160}}, {"avxvnni", {60, 200, 240}}, {"avx512vnni", {50, 270, 420}},
                 {"amx", {50, 270, 560}},        {"neon", {40, 55, 60}},   {"dotprod", {60, 110, 120}}, {"i8mm", {60, 160, 200}}};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (strcmp(usual[i].isa, isa) == 0)
            return usual[i].gops;
    return NULL;
}

static void take_usual_rates(const struct plan_model *m, const char *isa, double threads, struct plan_device *d)
{
    const double *gops = usual_gops(isa);
    for (uint32_t t = 0; gops && t < m->n_types; t++)
        for (int k = 0; k < COST_ROWS; k++)
            d->ops[k][t] = gops[k] * 1e9 * threads;
}

static bool is_measured(double per_s)
{
    return per_s >= rate_least;
}

static double rate_with(const struct msg_rate *r, int k)
{
    double per_s[COST_ROWS] = {r->one_per_s, r->few_per_s, r->per_s};
    per_s[k] = is_measured(per_s[k]) ? per_s[k] : r->per_s;
    return is_measured(per_s[k]) ? per_s[k] : 0;
}

static bool is_float(const char *type)
{
    return type[0] == 'F' || type[0] == 'B';
}

/* With cost_rows[k] rows. A type that it did not measure is taken to be as fast as the slowest of its kind that it did. */
static double measured_rate(const struct msg_device *from, const char *type, int k)
{
    double least = 0;
    for (int alike = 1; alike >= 0 && least <= 0; alike--)
        for (size_t i = 0; i < from->n_rates; i++) {
            double per_s = rate_with(&from->rates[i], k);
            if (strcmp(from->rates[i].type, type) == 0 && per_s > 0)
                return per_s;
            if (per_s > 0 && (!alike || is_float(from->rates[i].type) == is_float(type)))
                least = least <= 0 || per_s < least ? per_s : least;
        }
    return least;
}

static void take_rates(const struct plan_model *m, const struct msg_device *from, struct plan_device *d)
{
    for (uint32_t t = 0; t < m->n_types; t++)
        for (int k = 0; k < COST_ROWS; k++) {
            double per_s = measured_rate(from, m->type_names[t], k);
            d->ops[k][t] = per_s > 0 ? per_s : d->ops[k][t];
        }
}

static bool is_gpu(const struct msg_device *d)
{
    return strncmp(d->name, "cpu", 3) != 0;
}

static void take_attention(const struct plan_model *m, const struct msg_device *from, struct plan_device *d)
{
    double per_s[COST_ROWS] = {from->attention_per_s, from->attention_few_per_s, from->attention_many_per_s};
    for (int k = 0; k < COST_ROWS; k++)
        if (is_measured(from->attention_per_s)) /* older workers measure one row alone */
            d->attn_ops[k] = is_measured(per_s[k]) ? per_s[k] : from->attention_per_s;
        else if (m->n_types > 0 && !is_gpu(from))
            d->attn_ops[k] = plan_guess_attention(k, d->ops[COST_ROWS - 1][0]);
}

/* Whom it reaches, as it says itself. */
static void take_peers(const struct msg_device *from, const struct plan_node *n, struct plan_device *d)
{
    for (size_t k = 0; k < from->n_peers; k++)
        for (uint32_t i = 0; i < n->n_devices; i++)
            if (strcmp(n->devices[i].name, from->peers[k].device) == 0 && &n->devices[i] != d && is_measured(from->peers[k].bytes_per_s))
                d->peer_bps[i] = from->peers[k].bytes_per_s;
}

/* What the worker says of itself stands above what the file says of its size, and fills in what was not measured. own: it is on this
 * machine, whose processors are known. */
static void adjust_device(const struct plan_model *m, const struct msg_hello *h, const struct msg_device *from, bool own, struct plan_device *d)
{
    double threads = from->threads ? from->threads : h->threads ? h->threads : 1, most = own ? threadpool_cpus() : threads;
    const struct msg_bits *bits = from->n_bits ? from->bits : h->bits;
    size_t n_bits = from->n_bits ? from->n_bits : h->n_bits;

    if (from->memory_bytes && (d->memory_bytes == 0 || from->memory_bytes < d->memory_bytes))
        d->memory_bytes = from->memory_bytes;
    if (is_measured(from->read_bytes_per_s))
        d->read_bps = from->read_bytes_per_s;
    else if (own && !is_gpu(from) && d->read_bps > THREAD_READ_BPS * threads)
        d->read_bps = THREAD_READ_BPS * threads;
    d->numerics = from->numerics_class;
    if (from->n_rates == 0 && !is_gpu(from))
        take_usual_rates(m, h->isa, threads < most ? threads : most, d);
    take_rates(m, from, d);
    if (is_measured(from->copy_bytes_per_s))
        d->copy_bps = from->copy_bytes_per_s;
    if (is_measured(from->back_bytes_per_s))
        d->back_bps = from->back_bytes_per_s;
    take_attention(m, from, d);
    for (size_t i = 0; i < n_bits; i++) {
        uint32_t t = type_index(m, bits[i].type);
        if (t != UINT32_MAX && bits[i].bits > 0)
            d->bits[t] = bits[i].bits;
    }
}

/* cap: what a stage may take there at most; 0: not known. What is left free comes on top. */
static void cap_memory(struct plan_device *d, uint64_t cap)
{
    if (cap && cap + d->reserve_bytes < d->memory_bytes)
        d->memory_bytes = cap + d->reserve_bytes;
}

static void adjust_node(const struct engine *e, const struct plan_model *m, const struct node *n, struct plan_node *p)
{
    p->away = n->state != NODE_HERE || n->unusable || e->now_us < n->distrusted_until_us;
    p->standby = n->standby;
    if (p->away)
        return;
    p->numerics = n->hello.numerics_class;
    for (uint32_t i = 0; i < p->n_devices; i++) {
        bool is_there = false;
        for (size_t k = 0; k < n->hello.n_devices; k++)
            if (strcmp(n->hello.devices[k].name, p->devices[i].name) == 0) {
                adjust_device(m, &n->hello, &n->hello.devices[k], n->child >= 0, &p->devices[i]);
                take_peers(&n->hello.devices[k], p, &p->devices[i]);
                is_there = true;
                cap_memory(&p->devices[i], n->memory_caps[k]);
            }
        if (!is_there)
            p->devices[i].memory_bytes = 0; /* whatever the file says */
        for (size_t k = 0; k < n->hello.n_resident; k++) {
            const struct msg_resident *r = &n->hello.resident[k];
            if (r->present && memcmp(r->model, e->model_id, sizeof r->model) == 0 && strcmp(r->device, p->devices[i].name) == 0)
                p->devices[i].resident = (struct plan_range){r->layer_first, r->layer_end};
        }
    }
}

static double threads_of(const struct node *n, const char *device)
{
    for (size_t k = 0; k < n->hello.n_devices; k++)
        if (strcmp(n->hello.devices[k].name, device) == 0 && n->hello.devices[k].threads)
            return n->hello.devices[k].threads;
    return n->hello.threads ? n->hello.threads : 1;
}

/* Workers of our own are on this machine: all their threads together compute no faster than its processors. */
static void share_processors(struct engine *e, struct plan_source *s)
{
    uint32_t group = s->in.n_groups;
    double cpus = threadpool_cpus();
    if (group == COST_MAX_GROUPS)
        return;
    s->groups[s->in.n_groups++] = (struct plan_group){.name = "processors", .bps = cpus, .processors = true};
    for (uint32_t i = 0; i < s->in.n_nodes; i++) {
        const struct node *n = nodes_find(e, s->nodes[i].name);
        for (uint32_t k = 0; n && k < s->nodes[i].n_devices; k++) {
            struct plan_device *d = &s->nodes[i].devices[k];
            double threads = threads_of(n, d->name);
            if (strncmp(d->name, "cpu", 3) != 0)
                continue;
            d->group = (int32_t)group;
            d->processors = threads < cpus ? threads : cpus;
        }
    }
}

static void adjust(void *arg, struct plan_source *s)
{
    struct engine *e = arg;
    for (uint32_t i = 0; i < s->in.n_nodes; i++) {
        struct node *n = nodes_find(e, s->nodes[i].name);
        if (n)
            adjust_node(e, &s->model, n, &s->nodes[i]);
        else
            s->nodes[i].away = true;
        for (uint32_t k = 0; n && k < e->pipe.n_stages; k++) { /* what it holds since */
            const struct pipe_stage *st = &e->pipe.stages[k];
            for (uint32_t d = 0; st->ready && &e->nodes[st->node] == n && st->instance == n->hello.instance && d < s->nodes[i].n_devices;
                 d++)
                if (strcmp(s->nodes[i].devices[d].name, st->device) == 0)
                    s->nodes[i].devices[d].resident = (struct plan_range){st->first, st->last};
        }
    }
    for (uint32_t i = 0; e->children && i < (s->in.n_nodes + 1) * (s->in.n_nodes + 1); i++)
        s->links[i] = (struct plan_link){.latency_us = 40, .bps = 2e9}; /* sockets of one machine (docs/performance.md) */
    if (e->children)
        share_processors(e, s);
    s->in.use_resident = true; /* at a start, too: a coordinator before us may have left weights there */
}

void planning_devices(const struct msg_hello *h, struct topology_node *ret)
{
    ret->n_devices = 1;
    ret->devices[0] = (struct topology_device){.name = "cpu"};
    for (size_t k = 0; k < h->n_devices && ret->n_devices < TOPOLOGY_MAX_DEVICES; k++) {
        if (h->devices[k].memory_bytes == 0)
            continue; /* it is full */
        uint32_t at = strcmp(h->devices[k].name, "cpu") == 0 ? 0 : ret->n_devices++;
        ret->devices[at] = (struct topology_device){.name = h->devices[k].name, .memory_bytes = h->devices[k].memory_bytes};
    }
    if (ret->n_devices == 1 && ret->devices[0].memory_bytes == 0)
        ret->devices[0].memory_bytes = 1; /* a node has some: a plan will say that it is too little */
}

/* The file's nodes and those that came without it. */
static struct topology *all_nodes(struct engine *e, struct err *err)
{
    struct strbuf text;
    struct topology *t = NULL;

    strbuf_init(&text, TOPOLOGY_MAX_BYTES);
    if (!e->options.topology || e->options.topology->n_nodes == 0)
        t = topology_create(err);
    else if (topology_write(e->options.topology, &text, err) == 0)
        t = topology_parse("the topology", strbuf_str(&text), text.len, err);
    strbuf_fini(&text);
    for (uint32_t i = 0; t && i < e->n_nodes; i++) {
        struct node *n = &e->nodes[i];
        struct topology_node put = {.name = n->name, .standby = n->standby};
        struct err why;
        if (n->state != NODE_HERE || n->unusable || topology_find(t, n->name) != UINT32_MAX)
            continue;
        put.threads = n->hello.threads;
        planning_devices(&n->hello, &put);
        if (topology_put(t, &put, &why) != 0) {
            const char *behind = strstr(why.text, ": "); /* its place in a file that is none */
            n->unusable = true;
            sift_out(e, n, behind ? behind + 2 : why.text);
        }
    }
    return t;
}

/* --- layers -------------------------------------------------------------------------------------------------------------- */

/* Workers of our own are all used, in order: whoever says --workers 3 wants three. The cuts are moved while that helps. */
static int choose_all(struct engine *e, struct plan_source *s, struct plan *ret, struct err *err)
{
    struct plan_stage stages[COST_MAX_STAGES];
    struct plan best, next;
    uint32_t n = 0, layers = e->params.n_layers;

    memset(stages, 0, sizeof stages);
    bool here = false;

    for (uint32_t i = 0; i < s->in.n_nodes && n < COST_MAX_STAGES && n < layers; i++)
        if (!s->nodes[i].away)
            stages[n++].node = i;
    for (uint32_t i = 0; i < e->n_nodes; i++)
        here = here || e->nodes[i].state == NODE_HERE;
    if (n == 0)
        return err_set(err, ERR_NOT_FOUND, here ? "those that are here failed just now; they are asked again in a moment" : "no worker is here");
    for (uint32_t i = 0; i < n; i++)
        stages[i].layers = (struct plan_range){layers * i / n, layers * (i + 1) / n};
    if (plan_evaluate(&s->in, stages, n, &best, err) != 0)
        return -1;
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t i = 0; i + 1 < n; i++)
            for (int step = -1; step <= 1; step += 2) {
                struct plan_stage try[COST_MAX_STAGES];
                memcpy(try, stages, sizeof try);
                try[i].layers.last += (uint32_t)step;
                try[i + 1].layers.first = try[i].layers.last;
                if (try[i].layers.last == try[i].layers.first || try[i + 1].layers.last == try[i + 1].layers.first ||
                    plan_evaluate(&s->in, try, n, &next, NULL) != 0 || next.value_us >= best.value_us)
                    continue;
                memcpy(stages, try, sizeof stages);
                best = next;
                moved = true;
            }
    }
    *ret = best;
    return 0;
}

static void take_plan(struct engine *e, const struct plan_source *s, const struct plan *p, struct pipe_stage *ret_stages, uint32_t *ret_n)
{
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const struct plan_node *n = &s->nodes[p->stages[i].node];
        ret_stages[i].node = nodes_index(e, nodes_find(e, n->name));
        ret_stages[i].first = p->stages[i].layers.first;
        ret_stages[i].last = p->stages[i].layers.last;
        snprintf(ret_stages[i].device, sizeof ret_stages[i].device, "%s", n->devices[p->stages[i].device].name);
    }
    *ret_n = p->n_stages;
}

/* Of one of our own: then it is the planner's to say which help. */
static bool several_devices(const struct engine *e)
{
    for (uint32_t i = 0; i < e->n_nodes; i++)
        if (e->nodes[i].state == NODE_HERE && e->nodes[i].hello.n_devices > 1)
            return true;
    return false;
}

int planning_choose(struct engine *e, struct pipe_stage *ret_stages, uint32_t *ret_n, struct plan *ret_plan, struct err *err)
{
    bool may_lower = !e->options.ctx && !e->pipe.ran_before && !e->children; /* nobody has been promised a context yet */
    static const enum plan_wire wires[ACT_TYPES] = {PLAN_WIRE_F32, PLAN_WIRE_F16, PLAN_WIRE_Q8_0};
    struct plan_settings set = {.objective = e->options.objective,
                                .prompt_share = e->options.prompt_share,
                                .kv = e->options.kv,
                                .ctx = may_lower ? 0 : e->ctx,
                                .parallel = e->parallel,
                                .kv_total = e->options.kv_total,
                                .max_rows = e->max_rows,
                                .wire = e->options.wire_auto ? PLAN_WIRE_AUTO : wires[e->options.wire]};
    sift_hellos(e);
    struct topology *t = all_nodes(e, err);
    struct plan_source *s = t ? mem_new(1, sizeof *s, err) : NULL;
    bool searched = !e->children || several_devices(e);
    int rc = -1;

    if (s && !searched) {
        rc = plan_source_init(s, e->gguf, &e->params, t, &set, err);
        if (rc == 0) {
            adjust(e, s);
            rc = choose_all(e, s, ret_plan, err);
        }
        searched = rc != 0 && err->kind == ERR_MEMORY; /* one of them is short of it: the others may do */
        if (searched)
            plan_source_fini(s);
    }
    if (s && searched)
        rc = plan_source_make(s, e->gguf, &e->params, t, &set, adjust, e, ret_plan, err);
    if (rc == 0) {
        take_plan(e, s, ret_plan, ret_stages, ret_n);
        if (s->ctx < e->ctx) {
            engine_event_text(e, ENGINE_NOTE_INFO, NULL, "the context is %u positions a sequence: %u do not fit", s->ctx, e->ctx);
            e->ctx = s->ctx;
            size_blocks(e);
        }
        e->act = s->wire == PLAN_WIRE_F16 ? ACT_F16 : s->wire == PLAN_WIRE_Q8_0 ? ACT_Q8_0 : ACT_F32;
    }
    if (s && s->nodes)
        sift_sizes(e, s);
    if (rc != 0)
        sift_explain(e, err);
    if (s)
        plan_source_fini(s);
    free(s);
    topology_destroy(t);
    return rc;
}

/* --- costs --------------------------------------------------------------------------------------------------------------- */

static uint64_t scaled(double us, double per_us)
{
    double x = us * per_us;
    return x > 0 ? x < 1e15 ? (uint64_t)x : (uint64_t)1e15 : 0;
}

void planning_costs(const struct engine *e, struct sched_costs *ret)
{
    const struct cost_pipeline *p = &e->pipe.plan.costs;

    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; i < e->pipe.n_stages; i++) {
        const struct cost_stage *c = &p->stages[i];
        double used = c->experts ? (double)c->experts_used / c->experts : 0, start_us, row_us, experts_start_us, experts_row_us, head_start_us, head_row_us;
        cost_work_line(&c->work, &start_us, &row_us);
        cost_work_line(&c->experts_work, &experts_start_us, &experts_row_us);
        cost_work_line(&c->head_work, &head_start_us, &head_row_us);
        ret->stage[i] = (struct sched_stage_cost){
            .fixed_ns = scaled(c->fixed_us + c->disk_us, 1e3),
            .weight_ns = scaled(c->weights_us + c->experts_us, 1e3),
            .start_ns = scaled(start_us + experts_start_us, 1e3),
            .row_ns = scaled(row_us + used * experts_row_us, 1e3),
            .kv_ps = scaled(c->kv_us, 1e6),
            .attn_ps = scaled(c->attn.row_us[2], 1e6),
            .seq_ps = scaled(c->attn.row_us[1] - c->attn.row_us[2], 1e6),
            .head_weight_ns = scaled(c->head_us, 1e3),
            .head_start_ns = scaled(head_start_us, 1e3),
            .head_row_ns = scaled(head_row_us, 1e3),
        };
    }
    for (uint32_t i = 0; i <= e->pipe.n_stages; i++)
        ret->hop[i] = (struct sched_hop_cost){.latency_ns = scaled(p->hops[i].latency_us, 1e3), .row_ns = scaled(p->hops[i].row_us, 1e3)};
}
