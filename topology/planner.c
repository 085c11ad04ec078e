/* A plan from the best chain, and what is said about it. See planner.h; docs/planning.md has the formulas. */
#include "topology/planner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "topology/objective.h"

enum { TTFT_TOKENS = 512 };
static const double SECOND_US = 1e6;

const char *plan_objective_name(enum plan_objective objective)
{
    static const char *const names[PLAN_OBJECTIVES] = {"latency", "throughput", "balanced"};
    return names[objective];
}

const char *plan_failover_name(enum plan_failover failover)
{
    static const char *const names[] = {"none", "continuing", "identical"};
    return names[failover];
}

/* --- predictions ----------------------------------------------------------------------------------------------------------- */

static void describe_stage(const struct space *s, const struct space_device *d, struct plan_stage *st)
{
    const struct plan_model *m = s->in->model;
    uint32_t first = st->layers.first, last = st->layers.last;
    uint64_t disk = space_disk_bytes(s, d, first, last);
    st->disk_bytes = disk == UINT64_MAX ? 0 : disk;
    st->weights_bytes = space_weights(s, d, first, last) - st->disk_bytes;
    st->kv_bytes = d->kv_bytes[last] - d->kv_bytes[first];
    st->scratch_bytes = m->scratch_bytes + (last == s->n_layers ? m->scratch_head_bytes : 0);
    st->wire_bytes = m->wire_bytes;
    st->reserve_bytes = d->device->reserve_bytes;
    st->memory_bytes = d->device->memory_bytes;
    st->load_bytes = space_load_bytes(s, d->device, first, last);
}

static void predict_stages(const struct plan_input *in, struct plan *plan)
{
    struct cost_batch one = objective_decode_batch(in, 1), chunk = {.rows = plan->chunk, .seqs = 1, .context = TTFT_TOKENS / 2.0};
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        struct plan_stage *st = &plan->stages[i];
        st->decode_us = cost_stage_us(&plan->costs.stages[i], &one) + plan->costs.stages[i].disk_us;
        st->chunk_us = cost_stage_us(&plan->costs.stages[i], &chunk) + plan->costs.stages[i].disk_us;
        st->hop_us = cost_hop_us(&plan->costs.hops[i], 1);
        plan->load_bytes += st->load_bytes;
    }
}

/* Bound 7: X · L ≤ Σ over devices of the most (layers × rate) that the device could ever give. */
static double placement_bound(const struct space *s, const struct cost_batch *b)
{
    double total = 0;
    for (uint32_t k = 0; k < s->n_kinds; k++)
        for (uint32_t i = 0; i < s->kinds[k].n_devices; i++) {
            const struct space_device *d = &s->devices[s->kinds[k].first_device + i];
            double best = 0;
            for (uint32_t l = 1; l <= s->n_layers; l++) {
                double us = INFINITY;
                for (uint32_t first = 0; first + l <= s->n_layers; first += l) { /* the cheapest l layers are no dearer than these */
                    struct cost_stage st;
                    space_stage(s, d, first, first + l, &st);
                    st.head_us = 0;
                    st.head_work = (struct cost_work){{0}};
                    us = fmin(us, cost_stage_us(&st, b));
                }
                if (d->weights_bytes[l] + d->kv_bytes[l] <= d->memory_bytes || d->disk)
                    best = fmax(best, l * b->rows / us);
            }
            total += s->kinds[k].n_members * best;
        }
    return total * SECOND_US / s->n_layers;
}

static void find_bottleneck(const struct plan_input *in, struct plan *plan)
{
    struct cost_batch b = objective_decode_batch(in, (double)plan->n / plan->m);
    uint32_t which, n = plan->n_stages;
    cost_interval_us(&plan->costs, &b, &which);
    plan->bottleneck = which < n ? BOTTLENECK_STAGE : which <= 2 * n ? BOTTLENECK_LINK : BOTTLENECK_GROUP;
    plan->bottleneck_index = which < n ? which : which <= 2 * n ? which - n : which - 2 * n - 1;
}

static void find_power(const struct plan_input *in, struct plan *plan)
{
    double watts = 0;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const struct plan_node *node = &in->nodes[plan->stages[i].node];
        if (i > 0 && plan->stages[i - 1].node == plan->stages[i].node)
            continue;
        if (node->watts <= 0)
            return; /* one that is not known makes the sum unknown */
        watts += node->watts;
    }
    plan->watts = watts;
    if (in->price_per_kwh > 0 && plan->tokens_per_s_n > 0)
        plan->cost_per_mtok = watts / 1000 * in->price_per_kwh * (1e6 / plan->tokens_per_s_n / 3600);
}

static void predict(const struct space *s, struct plan *plan)
{
    const struct plan_input *in = s->in;
    struct cost_batch one = objective_decode_batch(in, 1);
    double round;
    plan->n = in->parallel;
    plan->m = cost_best_m(&plan->costs, plan->n, in->context, &round);
    plan->tokens_per_s_1 = SECOND_US / cost_latency_us(&plan->costs, &one);
    plan->tokens_per_s_n = plan->n / round * SECOND_US;
    plan->chunk = cost_best_chunk(&plan->costs, TTFT_TOKENS, in->max_rows, &plan->ttft_us);
    struct cost_batch full = objective_decode_batch(in, plan->n);
    plan->placement_bound = placement_bound(s, &full);
    predict_stages(in, plan);
    find_bottleneck(in, plan);
    find_power(in, plan);
}

/* --- the plan -------------------------------------------------------------------------------------------------------------- */

static void find_failover(const struct plan_input *in, struct plan *plan);

static void fill(const struct space *s, const struct candidate *c, struct plan *ret)
{
    const struct space_device *devices[COST_MAX_STAGES];
    *ret = (struct plan){.n_stages = c->n_stages, .objective = s->in->objective, .value_us = c->value, .bound_us = c->bound};
    ret->gap = c->bound > 0 ? fmax(c->value / c->bound - 1, 0) : 1;
    objective_name_stages(s, c->stages, c->n_stages, ret->stages, devices);
    for (uint32_t i = 0; i < c->n_stages; i++) {
        describe_stage(s, devices[i], &ret->stages[i]);
        ret->used_standby |= s->in->nodes[ret->stages[i].node].standby;
    }
    objective_pipeline(s, ret->stages, ret->n_stages, devices, &ret->costs);
    predict(s, ret);
}

/* Layers that were somewhere, and are nowhere now: a node was lost. */
static bool lost_layers(const struct plan_input *in)
{
    uint32_t held = 0;
    for (uint32_t l = 0; l < in->model->n_layers; l++) {
        bool here = false;
        for (uint32_t i = 0; i < in->n_nodes && !here; i++)
            for (uint32_t d = 0; d < in->nodes[i].n_devices && !here && !in->nodes[i].away; d++)
                here = l >= in->nodes[i].devices[d].resident.first && l < in->nodes[i].devices[d].resident.last;
        held += here;
    }
    return held > 0 && held < in->model->n_layers;
}

static bool any_standby(const struct plan_input *in)
{
    for (uint32_t i = 0; i < in->n_nodes; i++)
        if (in->nodes[i].standby && !in->nodes[i].away)
            return true;
    return false;
}

uint64_t plan_usual_effort(enum plan_objective o)
{
    return o == PLAN_LATENCY ? PLAN_EFFORT_LATENCY : PLAN_EFFORT;
}

static int try_plan(const struct plan_input *in, bool standby, struct plan *ret, bool *ret_found, struct err *err)
{
    struct space s;
    struct candidate best;
    struct form form;
    int rc = space_init(&s, in, standby, err);
    struct planning pl = {.s = &s, .effort_left = in->effort ? in->effort : plan_usual_effort(in->objective), .err = err};
    *ret_found = false;
    if (rc == 0 && s.n_kinds > 0)
        rc = objective_best_chain(&pl, &best, &form);
    if (rc == 0 && s.n_kinds > 0 && best.found) {
        if (in->use_resident)
            rc = objective_keep_resident(&pl, &best, &form);
        if (rc == 0)
            fill(&s, &best, ret);
        ret->states = pl.states;
        *ret_found = rc == 0;
    }
    space_fini(&s);
    return rc;
}

static int does_not_fit(const struct plan_input *in, struct err *err);

static int make(const struct plan_input *in, struct plan *ret, struct err *err)
{
    bool found, standby = any_standby(in);
    if (try_plan(in, standby && in->use_resident && lost_layers(in), ret, &found, err) != 0)
        return -1;
    if (!found && standby && try_plan(in, true, ret, &found, err) != 0)
        return -1;
    return found ? 0 : does_not_fit(in, err);
}

int plan_make(const struct plan_input *in, struct plan *ret, struct err *err)
{
    if (in->parallel == 0)
        return err_set(err, ERR_USAGE, "a plan for 0 sequences; at least 1 is needed");
    if (make(in, ret, err) != 0)
        return -1;
    find_failover(in, ret);
    return 0;
}

bool plan_fits(const struct plan_input *in)
{
    struct space s;
    struct search_ask q = {.batch = objective_decode_batch(in, 1), .cap_us = INFINITY, .below_us = INFINITY, .enough_us = INFINITY};
    struct search_answer a = {.found = false};
    bool found = space_init(&s, in, true, NULL) == 0 && s.n_kinds > 0 && search_chain(&s, &q, &a, NULL) == 0 && a.found;
    space_fini(&s);
    return found;
}

/* All devices that plans may use give the same bits. */
static bool all_alike(const struct plan_input *in)
{
    const char *numerics = NULL;
    for (uint32_t i = 0; i < in->n_nodes; i++)
        for (uint32_t d = 0; d < in->nodes[i].n_devices && !in->nodes[i].away; d++) {
            const char *own = in->nodes[i].devices[d].numerics ? in->nodes[i].devices[d].numerics : in->nodes[i].numerics;
            if (!own || (numerics && strcmp(numerics, own) != 0))
                return false;
            numerics = own;
        }
    return true;
}

/* What happens when the worst-placed node dies: can the others take over, and in the same bits? */
static void find_failover(const struct plan_input *in, struct plan *plan)
{
    struct plan_node nodes[PLAN_MAX_NODES];
    struct plan_input without = *in;
    without.nodes = nodes;
    plan->failover = FAILOVER_IDENTICAL;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        memcpy(nodes, in->nodes, in->n_nodes * sizeof *nodes);
        nodes[plan->stages[i].node].away = true;
        if (!plan_fits(&without)) {
            plan->failover = FAILOVER_NONE;
            return;
        }
    }
    if (!all_alike(in))
        plan->failover = FAILOVER_CONTINUING;
}

/* A device of a node; NULL: there is none, or it is not used. */
static const struct space_device *device_at(const struct space *s, uint32_t node, uint32_t device)
{
    for (uint32_t k = 0; k < s->n_kinds && node < s->in->n_nodes; k++)
        for (uint32_t j = 0; j < s->kinds[k].n_members; j++)
            if (s->kinds[k].members[j] == node && device < s->kinds[k].n_devices)
                return &s->devices[s->kinds[k].first_device + device];
    return NULL;
}

static bool stage_before(const struct plan_stage *stages, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (stages[k].node == stages[i].node && stages[k].device == stages[i].device)
            return true;
    return false;
}

/* Somebody else's stages, as far as they can be: all layers, in order, each device once, within its memory. */
static int find_stages(const struct space *s, const struct plan_stage *stages, uint32_t n, struct plan_stage *ret, const struct space_device **ret_devices,
                       struct err *err)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_stage *st = &stages[i];
        const struct space_device *d = ret_devices[i] = device_at(s, st->node, st->device);
        if (!d || st->layers.first != at || st->layers.last <= at || st->layers.last > s->n_layers)
            return err_set(err, ERR_USAGE, "stage %u: node %u device %u with layers %u to %u does not go on from layer %u of %u", i, st->node, st->device,
                           st->layers.first, st->layers.last, at, s->n_layers);
        if (stage_before(stages, i))
            return err_set(err, ERR_USAGE, "stage %u: %s (%s) holds a stage already; a device has one", i, s->in->nodes[st->node].name, d->device->name);
        if (space_disk_bytes(s, d, st->layers.first, st->layers.last) == UINT64_MAX)
            return err_set(err, ERR_MEMORY, "stage %u: layers %u to %u do not fit on %s (%s), or must not be there", i, st->layers.first,
                           st->layers.last - 1, s->in->nodes[st->node].name, d->device->name);
        at = st->layers.last;
        ret[i] = (struct plan_stage){.node = st->node, .device = st->device, .layers = st->layers};
    }
    if (at != s->n_layers)
        return err_set(err, ERR_USAGE, "the stages end at layer %u of %u", at, s->n_layers);
    return 0;
}

int plan_evaluate(const struct plan_input *in, const struct plan_stage *stages, uint32_t n_stages, struct plan *ret, struct err *err)
{
    struct space s;
    struct form f = {.batch = objective_decode_batch(in, 1)};
    struct plan_stage named[COST_MAX_STAGES];
    const struct space_device *devices[COST_MAX_STAGES];
    int rc = -1;
    if (n_stages == 0 || n_stages > COST_MAX_STAGES || in->parallel == 0)
        return err_set(err, ERR_USAGE, "%u stages for %u sequences; 1 to %d stages and at least one sequence are needed", n_stages,
                       in->parallel, COST_MAX_STAGES);
    if (space_init(&s, in, true, err) != 0)
        goto done;
    if (find_stages(&s, stages, n_stages, named, devices, err) != 0)
        goto done;
    *ret = (struct plan){.n_stages = n_stages, .objective = in->objective};
    memcpy(ret->stages, named, n_stages * sizeof *named);
    for (uint32_t i = 0; i < n_stages; i++) {
        describe_stage(&s, devices[i], &ret->stages[i]);
        ret->used_standby |= in->nodes[named[i].node].standby;
    }
    objective_pipeline(&s, ret->stages, n_stages, devices, &ret->costs);
    f.added = in->objective == PLAN_BALANCED;
    f.weight = in->objective == PLAN_BALANCED ? in->parallel - 1 : objective_any_disk(&s);
    f.batch = in->objective == PLAN_BALANCED ? objective_mixed_batch(in, 1) : f.batch;
    ret->value_us = objective_value(&f, &ret->costs);
    for (uint32_t m = 1; in->objective == PLAN_THROUGHPUT && m <= in->parallel && m <= COST_MAX_STAGES + 2; m++) {
        f = (struct form){.weight = m, .batch = objective_mixed_batch(in, (double)in->parallel / m)};
        ret->value_us = m == 1 ? objective_value(&f, &ret->costs) : fmin(ret->value_us, objective_value(&f, &ret->costs));
    }
    ret->bound_us = ret->value_us;
    predict(&s, ret);
    rc = 0;
done:
    space_fini(&s);
    return rc;
}

/* --- what is missing -------------------------------------------------------------------------------------------------------- */

static const char *gib(char *buf, size_t size, uint64_t bytes)
{
    snprintf(buf, size, bytes >= (uint64_t)1 << 30 ? "%.1f GiB" : "%.1f MiB", (double)bytes / (bytes >= (uint64_t)1 << 30 ? 0x1p30 : 0x1p20));
    return buf;
}

static uint64_t room_of(const struct space_device *d)
{
    return d->memory_bytes > d->base_bytes ? d->memory_bytes - d->base_bytes : 0;
}

static void count_room(const struct space *s, uint64_t *ret_need, uint64_t *ret_room)
{
    const struct plan_model *m = s->in->model;
    *ret_need = *ret_room = 0;
    if (s->n_devices == 0)
        return;
    const struct space_device *d = &s->devices[0];
    *ret_need = space_weights(s, d, 0, s->n_layers) + d->kv_bytes[s->n_layers] + m->scratch_head_bytes;
    for (uint32_t k = 0; k < s->n_kinds; k++)
        for (uint32_t i = 0; i < s->kinds[k].n_devices; i++)
            *ret_room += s->kinds[k].n_members * room_of(&s->devices[s->kinds[k].first_device + i]);
}

/* Whether a device can hold any single layer; *need falls to what the smallest takes with its buffers. */
static bool holds_any(const struct space *s, const struct space_device *d, uint64_t *need)
{
    bool any = false;
    for (uint32_t l = 0; l < s->n_layers; l++) {
        uint64_t bytes = d->base_bytes + d->kv_bytes[l + 1] - d->kv_bytes[l] + space_weights(s, d, l, l + 1);
        any = any || space_disk_bytes(s, d, l, l + 1) != UINT64_MAX;
        if (d->forbidden[l + 1] == d->forbidden[l] && bytes < *need)
            *need = bytes;
    }
    return any;
}

bool plan_holds_nothing(const struct plan_input *in, uint32_t node, char *text, size_t size)
{
    struct space s;
    bool known = node < in->n_nodes && !in->nodes[node].away && in->nodes[node].n_devices > 0, any = false;
    uint64_t need = UINT64_MAX, room = 0;
    char a[32], b[32];
    if (!known)
        return false;
    known = space_init(&s, in, true, NULL) == 0;
    for (uint32_t i = 0; known && i < in->nodes[node].n_devices; i++) {
        const struct space_device *d = device_at(&s, node, i);
        any = any || holds_any(&s, d, &need);
        room = d->memory_bytes > room ? d->memory_bytes : room;
    }
    space_fini(&s);
    if (known && !any && need <= room)
        snprintf(text, size, "pins keep all layers that it has room for away");
    else if (known && !any && need == UINT64_MAX)
        snprintf(text, size, "pins keep all layers away");
    else if (known && !any)
        snprintf(text, size, "no layer fits: the smallest takes %s with its buffers, there are %s", gib(a, sizeof a, need), gib(b, sizeof b, room));
    return known && !any;
}

uint64_t plan_missing_bytes(const struct plan_input *in)
{
    struct space s;
    uint64_t need = 0, room = 0;
    struct err err;
    if (space_init(&s, in, true, &err) == 0)
        count_room(&s, &need, &room);
    space_fini(&s);
    return need > room ? need - room : 0;
}

static int does_not_fit(const struct plan_input *in, struct err *err)
{
    struct space s;
    char list[320] = "", a[32], b[32], c[32];
    uint64_t need = 0, room = 0;
    size_t at = 0;
    uint32_t more = 0;
    if (space_init(&s, in, true, err) != 0) {
        space_fini(&s);
        return -1;
    }
    count_room(&s, &need, &room);
    for (uint32_t k = 0; k < s.n_kinds; k++)
        for (uint32_t j = 0; j < s.kinds[k].n_members; j++) {
            uint64_t node = 0;
            for (uint32_t i = 0; i < s.kinds[k].n_devices; i++)
                node += room_of(&s.devices[s.kinds[k].first_device + i]);
            if (at < sizeof list - 60)
                at += (size_t)snprintf(list + at, sizeof list - at, "%s%.24s %s", at ? ", " : "", in->nodes[s.kinds[k].members[j]].name,
                                       gib(a, sizeof a, node));
            else
                more++;
        }
    if (more)
        snprintf(list + at, sizeof list - at, " and %u more", more);
    space_fini(&s);
    if (need > room)
        err_set(err, ERR_MEMORY, "the model does not fit: %s are missing (%llu bytes; it needs %s, there are %s: %s); lower --ctx or --parallel, "
                "or add memory", gib(a, sizeof a, need - room), (unsigned long long)(need - room), gib(b, sizeof b, need),
                gib(c, sizeof c, room), list[0] ? list : "no node");
    else
        err_set(err, ERR_MEMORY, "the model does not fit: in total %s are needed and there are %s, but no chain of whole layers fits into them "
                "(%s)%s; lower --ctx or --parallel, or add memory", gib(b, sizeof b, need), gib(c, sizeof c, room), list,
                in->n_pins ? " with these pins" : "");
    return -1;
}
