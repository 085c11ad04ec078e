/* See space.h. */
#include "topology/space.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPACE_MAX_BYTES = 1 << 29 };
static const double SECOND_US = 1e6;
/* Handing a batch to the next device of the same process: a queue and a copy. */
static const double INSIDE_US = 0; /* a pointer, from thread to thread: waking is in what every step costs */

/* --- costs of ranges ---------------------------------------------------------------------------------------------------- */

static double bits_of(const struct plan_model *m, const struct plan_device *d, uint32_t type)
{
    return d->bits[type] > 0 ? d->bits[type] : m->type_bits[type];
}

static double matrix_bytes(const struct plan_model *m, const struct plan_device *d, const double *weights)
{
    double bytes = 0;
    for (uint32_t t = 0; t < m->n_types; t++)
        bytes += weights[t] * bits_of(m, d, t) / 8;
    return bytes;
}

static uint64_t part_bytes(const struct plan_model *m, const struct plan_device *d, const struct plan_part *part)
{
    return (uint64_t)ceil(matrix_bytes(m, d, part->weights) + matrix_bytes(m, d, part->expert_weights)) + part->other_bytes;
}

/* Multiplying one of cost_rows[k] rows with matrices. */
static double matrix_row_us(const struct plan_model *m, const struct plan_device *d, const double *weights, int k)
{
    double us = 0;
    for (uint32_t t = 0; t < m->n_types; t++)
        us += weights[t] > 0 ? 2 * weights[t] / d->ops[k][t] * SECOND_US : 0;
    return us;
}

static bool pin_allows(const struct plan_input *in, enum plan_pin_what what, uint32_t layer, uint32_t node)
{
    bool wanted_somewhere = false, wanted_here = false;
    for (uint32_t i = 0; i < in->n_pins; i++) {
        const struct plan_pin *pin = &in->pins[i];
        if (pin->what != what || (what == PIN_LAYERS && (layer < pin->layers.first || layer >= pin->layers.last)))
            continue;
        if (pin->never && pin->node == node)
            return false;
        if (!pin->never) {
            wanted_somewhere = true;
            wanted_here |= pin->node == node;
        }
    }
    return !wanted_somewhere || wanted_here;
}

static void *sums(struct space *s, size_t size, struct err *err)
{
    void *p = arena_alloc(&s->arena, (s->n_layers + 1) * size, err);
    if (p)
        memset(p, 0, (s->n_layers + 1) * size);
    return p;
}

static void add_layer(struct space *s, struct space_device *d, uint32_t node, uint32_t l)
{
    const struct plan_model *m = s->in->model;
    const struct plan_device *dev = d->device;
    const struct plan_part *part = &m->layers[l];
    double read = SECOND_US / dev->read_bps, experts = matrix_bytes(m, dev, part->expert_weights);
    double kv = part->kv_position_bytes * read;
    d->weights_bytes[l + 1] = d->weights_bytes[l] + part_bytes(m, dev, part);
    d->kv_bytes[l + 1] = d->kv_bytes[l] + part->kv_bytes;
    d->weights_us[l + 1] = d->weights_us[l] + (matrix_bytes(m, dev, part->weights) + (double)part->other_bytes) * read;
    d->experts_us[l + 1] = d->experts_us[l] + experts * read;
    d->kv_us[l + 1] = d->kv_us[l] + (part->sliding ? 0 : kv);
    d->kv_sliding_us[l + 1] = d->kv_sliding_us[l] + (part->sliding ? kv : 0);
    for (int k = 0; k < COST_ROWS; k++) {
        d->row_us[k][l + 1] = d->row_us[k][l] + matrix_row_us(m, dev, part->weights, k);
        d->experts_row_us[k][l + 1] = d->experts_row_us[k][l] + matrix_row_us(m, dev, part->expert_weights, k);
        double attn = part->attn_ops > 0 ? part->attn_ops / dev->attn_ops[k] * SECOND_US : 0;
        d->attn_us[k][l + 1] = d->attn_us[k][l] + (part->sliding ? 0 : attn);
        d->attn_sliding_us[k][l + 1] = d->attn_sliding_us[k][l] + (part->sliding ? attn : 0);
    }
    d->forbidden[l + 1] = d->forbidden[l] + !pin_allows(s->in, PIN_LAYERS, l, node);
}

static double copy_us(const struct plan_model *m, double bps)
{
    return bps > 0 ? m->copy_bytes / bps * SECOND_US : 0;
}

/* How rows come to a device and leave it. */
static void find_copies(struct space_device *d, const struct plan_model *m, const struct plan_node *node)
{
    const struct plan_device *dev = d->device;
    d->in_us = d->least_in_us = copy_us(m, dev->copy_bps);
    d->out_us = d->least_out_us = copy_us(m, dev->back_bps);
    for (uint32_t i = 0; i < node->n_devices; i++) {
        if (i == d->index)
            continue;
        if (dev->peer_bps[i] > 0) {
            d->reaches |= 1u << i;
            d->peer_us[i] = copy_us(m, dev->peer_bps[i]);
            d->least_out_us = fmin(d->least_out_us, d->peer_us[i]);
        }
        if (node->devices[i].peer_bps[d->index] > 0)
            d->least_in_us = 0;
    }
}

double space_in_us(const struct space_device *d, const struct space_device *from)
{
    return from && from->reaches >> d->index & 1 ? 0 : d->in_us;
}

double space_out_us(const struct space_device *d, const struct space_device *to)
{
    return to && d->reaches >> to->index & 1 ? d->peer_us[to->index] : d->out_us;
}

static int device_init(struct space *s, struct space_device *d, uint32_t node, struct err *err)
{
    const struct plan_model *m = s->in->model;
    const struct plan_device *dev = d->device;
    double **times[] = {&d->weights_us, &d->experts_us, &d->kv_us, &d->kv_sliding_us};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (!(*times[i] = sums(s, sizeof **times[i], err)))
            return -1;
    for (int k = 0; k < COST_ROWS; k++)
        if (!(d->row_us[k] = sums(s, sizeof *d->row_us[k], err)) || !(d->experts_row_us[k] = sums(s, sizeof *d->experts_row_us[k], err)) ||
            !(d->attn_us[k] = sums(s, sizeof *d->attn_us[k], err)) || !(d->attn_sliding_us[k] = sums(s, sizeof *d->attn_sliding_us[k], err)))
            return -1;
    if (!(d->weights_bytes = sums(s, sizeof *d->weights_bytes, err)) || !(d->kv_bytes = sums(s, sizeof *d->kv_bytes, err)) ||
        !(d->forbidden = sums(s, sizeof *d->forbidden, err)))
        return -1;
    for (uint32_t l = 0; l < s->n_layers; l++)
        add_layer(s, d, node, l);
    d->embed_bytes = part_bytes(m, dev, &m->embed);
    d->head_bytes = part_bytes(m, dev, &m->head);
    d->head_us = (double)d->head_bytes / dev->read_bps * SECOND_US;
    for (int k = 0; k < COST_ROWS; k++)
        d->head_work.row_us[k] = matrix_row_us(m, dev, m->head.weights, k);
    d->base_bytes = m->scratch_bytes + m->wire_bytes;
    d->memory_bytes = dev->memory_bytes > dev->reserve_bytes ? dev->memory_bytes - dev->reserve_bytes : 0;
    d->embed_allowed = pin_allows(s->in, PIN_EMBED, 0, node);
    d->head_allowed = pin_allows(s->in, PIN_HEAD, 0, node);
    d->disk = dev->disk_bps > 0;
    d->disk_us_byte = d->disk ? SECOND_US / dev->disk_bps : 0;
    d->fixed_us = dev->fixed_us;
    d->group = dev->group;
    d->group_whole = d->group >= 0 && s->in->groups[d->group].processors;
    d->group_factor = d->group >= 0 ? (d->group_whole ? dev->processors : dev->read_bps) / s->in->groups[d->group].bps : 0;
    find_copies(d, m, &s->in->nodes[node]);
    return 0;
}

uint64_t space_weights(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last)
{
    uint64_t bytes = d->weights_bytes[last] - d->weights_bytes[first];
    if (first == 0)
        bytes += d->embed_bytes;
    if (last == s->n_layers) {
        bytes += d->head_bytes;
        if (first == 0 && s->in->model->tied) /* one matrix serves both; the head's vectors stay */
            bytes -= d->embed_bytes < d->head_bytes ? d->embed_bytes : d->head_bytes;
    }
    return bytes;
}

uint64_t space_disk_bytes(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last)
{
    uint64_t rest = d->base_bytes + d->kv_bytes[last] - d->kv_bytes[first] + (last == s->n_layers ? s->in->model->scratch_head_bytes : 0);
    uint64_t weights;
    if (d->forbidden[last] != d->forbidden[first] || (first == 0 && !d->embed_allowed) || (last == s->n_layers && !d->head_allowed) ||
        rest > d->memory_bytes)
        return UINT64_MAX;
    weights = space_weights(s, d, first, last);
    if (weights <= d->memory_bytes - rest)
        return 0;
    return d->disk ? weights - (d->memory_bytes - rest) : UINT64_MAX;
}

void space_stage(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last, struct cost_stage *ret)
{
    const struct plan_model *m = s->in->model;
    uint64_t disk = space_disk_bytes(s, d, first, last);
    bool head = last == s->n_layers;
    *ret = (struct cost_stage){
        .fixed_us = d->fixed_us,
        .weights_us = d->weights_us[last] - d->weights_us[first],
        .experts_us = d->experts_us[last] - d->experts_us[first],
        .head_us = head ? d->head_us : 0,
        .kv_us = d->kv_us[last] - d->kv_us[first],
        .kv_sliding_us = d->kv_sliding_us[last] - d->kv_sliding_us[first],
        .disk_us = disk == UINT64_MAX ? 0 : (double)disk * d->disk_us_byte,
        .experts = m->experts,
        .experts_used = m->experts_used,
        .window = m->window,
        .group = d->group,
        .group_factor = d->group_factor,
        .group_whole = d->group_whole,
    };
    for (int k = 0; k < COST_ROWS; k++) {
        ret->work.row_us[k] = d->row_us[k][last] - d->row_us[k][first];
        ret->experts_work.row_us[k] = d->experts_row_us[k][last] - d->experts_row_us[k][first];
        ret->attn.row_us[k] = d->attn_us[k][last] - d->attn_us[k][first];
        ret->attn_sliding.row_us[k] = d->attn_sliding_us[k][last] - d->attn_sliding_us[k][first];
        ret->head_work.row_us[k] = head ? d->head_work.row_us[k] : 0;
    }
}

void space_hop(const struct plan_input *in, uint32_t a, uint32_t b, struct cost_hop *ret)
{
    const struct plan_link *link = &in->links[a * (in->n_nodes + 1) + b];
    uint32_t ends[2] = {a, b};
    int32_t groups[2];
    *ret = (struct cost_hop){.latency_us = INSIDE_US, .group = {-1, -1}};
    if (a == b)
        return;
    ret->latency_us = link->latency_us;
    ret->row_us = (a == in->n_nodes || b == in->n_nodes ? in->model->token_bytes : in->model->row_bytes) / link->bps * SECOND_US;
    for (int k = 0; k < 2; k++)
        groups[k] = ends[k] == in->n_nodes ? -1 : in->nodes[ends[k]].group;
    for (int k = 0; k < 2 && groups[0] != groups[1]; k++) { /* two nodes behind one uplink do not use it between them */
        ret->group[k] = groups[k];
        ret->group_factor[k] = groups[k] >= 0 ? link->bps / in->groups[groups[k]].bps : 0;
    }
}

uint64_t space_load_bytes(const struct space *s, const struct plan_device *d, uint32_t first, uint32_t last)
{
    const struct plan_range *r = &d->resident;
    uint32_t from = r->first > first ? r->first : first, to = r->last < last ? r->last : last;
    uint64_t bytes = s->file_bytes[last] - s->file_bytes[first];
    if (to > from)
        bytes -= s->file_bytes[to] - s->file_bytes[from];
    if (first == 0 && !(r->first == 0 && r->last > 0))
        bytes += s->in->model->embed.file_bytes;
    if (last == s->n_layers && !(r->last == s->n_layers && r->first < r->last))
        bytes += s->in->model->head.file_bytes;
    return bytes;
}

double space_load_cost(const struct space *s, const struct space_device *d, uint32_t first, uint32_t last)
{
    static const double standby_price = 0.98;
    bool standby = s->in->nodes[s->kinds[d->kind].members[0]].standby;
    return (double)space_load_bytes(s, d->device, first, last) * (standby ? standby_price : 1);
}

/* --- kinds --------------------------------------------------------------------------------------------------------------- */

static bool same_device(const struct plan_input *in, const struct plan_device *a, const struct plan_device *b)
{
    bool same = a->memory_bytes == b->memory_bytes && a->reserve_bytes == b->reserve_bytes && a->read_bps == b->read_bps &&
                memcmp(a->attn_ops, b->attn_ops, sizeof a->attn_ops) == 0 && a->fixed_us == b->fixed_us && a->disk_bps == b->disk_bps && a->group == b->group &&
                a->processors == b->processors && a->copy_bps == b->copy_bps && a->back_bps == b->back_bps;
    for (uint32_t t = 0; same && t < in->model->n_types; t++) {
        same = bits_of(in->model, a, t) == bits_of(in->model, b, t);
        for (int k = 0; k < COST_ROWS; k++)
            same = same && a->ops[k][t] == b->ops[k][t];
    }
    if (same && in->use_resident)
        same = a->resident.first == b->resident.first && a->resident.last == b->resident.last;
    return same;
}

/* Exchanging two devices of a node in any chain changes nothing. */
static bool same_neighbours(const struct plan_node *n, uint32_t i, uint32_t j)
{
    const struct plan_device *d = n->devices;
    bool same = d[i].peer_bps[j] == d[j].peer_bps[i];
    for (uint32_t k = 0; same && k < n->n_devices; k++)
        same = k == i || k == j || (d[i].peer_bps[k] == d[j].peer_bps[k] && d[k].peer_bps[i] == d[k].peer_bps[j]);
    return same;
}

static bool same_link(const struct plan_link *a, const struct plan_link *b)
{
    return a->latency_us == b->latency_us && a->bps == b->bps;
}

static bool same_links(const struct plan_input *in, uint32_t a, uint32_t b)
{
    uint32_t n = in->n_nodes + 1;
    const struct plan_link *l = in->links;
    for (uint32_t k = 0; k < n; k++)
        if (k != a && k != b && (!same_link(&l[a * n + k], &l[b * n + k]) || !same_link(&l[k * n + a], &l[k * n + b])))
            return false;
    return same_link(&l[a * n + b], &l[b * n + a]);
}

static bool pinned(const struct plan_input *in, uint32_t node)
{
    for (uint32_t i = 0; i < in->n_pins; i++)
        if (in->pins[i].node == node)
            return true;
    return false;
}

/* Exchanging a and b in any chain changes nothing. */
static bool same_node(const struct plan_input *in, uint32_t a, uint32_t b)
{
    const struct plan_node *x = &in->nodes[a], *y = &in->nodes[b];
    bool same = x->n_devices == y->n_devices && x->group == y->group && x->standby == y->standby && !pinned(in, a) && !pinned(in, b);
    for (uint32_t d = 0; same && d < x->n_devices; d++)
        same = same_device(in, &x->devices[d], &y->devices[d]) &&
               memcmp(x->devices[d].peer_bps, y->devices[d].peer_bps, x->n_devices * sizeof *x->devices[d].peer_bps) == 0;
    return same && same_links(in, a, b);
}

static int add_kind(struct space *s, uint32_t node, struct err *err)
{
    const struct plan_node *n = &s->in->nodes[node];
    struct space_kind *k = &s->kinds[s->n_kinds];
    *k = (struct space_kind){.n_members = 1, .members = {node}, .first_device = s->n_devices, .n_devices = n->n_devices};
    for (uint32_t i = 0; i < n->n_devices; i++) {
        struct space_device *d = &s->devices[s->n_devices++];
        *d = (struct space_device){.device = &n->devices[i], .kind = s->n_kinds, .index = i, .same_as = i};
        if (device_init(s, d, node, err) != 0)
            return -1;
        for (uint32_t j = 0; j < i && d->same_as == i; j++)
            if (same_device(s->in, &n->devices[j], &n->devices[i]) && same_neighbours(n, j, i))
                d->same_as = j;
    }
    s->n_kinds++;
    return 0;
}

/* A chain that ends in kind a goes on exactly as one that ends in b: neither comes again unless it has other members. */
static bool same_way(const struct space *s, uint32_t a, uint32_t b)
{
    const struct plan_input *in = s->in;
    uint32_t n = in->n_nodes + 1, x = s->kinds[a].members[0], y = s->kinds[b].members[0];
    if (in->nodes[x].group != in->nodes[y].group || s->kinds[a].n_devices > 1 || s->kinds[b].n_devices > 1 ||
        !same_link(&in->links[x * n + n - 1], &in->links[y * n + n - 1]))
        return false;
    for (uint32_t k = 0; k < s->n_kinds; k++) {
        const struct space_kind *kind = &s->kinds[k];
        for (uint32_t i = 0; i < kind->n_members; i++) {
            uint32_t to = kind->members[i];
            if (to != x && to != y && !same_link(&in->links[x * n + to], &in->links[y * n + to]))
                return false;
        }
    }
    return true;
}

static void find_ways(struct space *s)
{
    for (uint32_t k = 0; k < s->n_kinds; k++) {
        bool found = false;
        for (uint32_t w = 0; w < s->n_ways && !found; w++) {
            bool all = true;
            for (uint32_t j = 0; j < k && all; j++)
                all = s->kinds[j].way != w || same_way(s, j, k);
            if (all)
                s->kinds[k].way = w, found = true;
        }
        if (!found)
            s->kinds[k].way = s->n_ways++;
    }
}

static int check_input(const struct plan_input *in, struct err *err)
{
    const struct plan_model *m = in->model;
    if (in->n_nodes == 0)
        return err_set(err, ERR_USAGE, "there are no nodes to plan with");
    if (in->n_nodes > PLAN_MAX_NODES)
        return err_set(err, ERR_LIMIT, "%u nodes; at most %d can be planned with", in->n_nodes, PLAN_MAX_NODES);
    if (m->n_layers == 0 || m->n_layers > PLAN_MAX_LAYERS)
        return err_set(err, ERR_LIMIT, "the model has %u layers; 1 to %d can be planned", m->n_layers, PLAN_MAX_LAYERS);
    if (m->n_types > PLAN_MAX_TYPES || in->n_groups > COST_MAX_GROUPS || in->n_pins > PLAN_MAX_PINS)
        return err_set(err, ERR_LIMIT, "%u types of weights, %u groups, %u pins; at most %d, %d and %d can be planned with", m->n_types,
                       in->n_groups, in->n_pins, PLAN_MAX_TYPES, COST_MAX_GROUPS, PLAN_MAX_PINS);
    for (uint32_t i = 0; i < in->n_nodes; i++)
        if (in->nodes[i].n_devices > PLAN_MAX_DEVICES)
            return err_set(err, ERR_LIMIT, "node %s has %u devices; at most %d can be planned with", in->nodes[i].name,
                           in->nodes[i].n_devices, PLAN_MAX_DEVICES);
    return 0;
}

int space_init(struct space *s, const struct plan_input *in, bool standby, struct err *err)
{
    *s = (struct space){.in = in, .standby = standby};
    arena_init(&s->arena, SPACE_MAX_BYTES);
    if (check_input(in, err) != 0)
        return -1;
    s->n_layers = in->model->n_layers;
    size_t most = 0;
    for (uint32_t i = 0; i < in->n_nodes; i++)
        most += in->nodes[i].n_devices;
    if (!(s->devices = arena_alloc(&s->arena, (most + 1) * sizeof *s->devices, err)) ||
        !(s->file_bytes = sums(s, sizeof *s->file_bytes, err)))
        return -1;
    for (uint32_t l = 0; l < s->n_layers; l++)
        s->file_bytes[l + 1] = s->file_bytes[l] + in->model->layers[l].file_bytes;
    for (uint32_t i = 0; i < in->n_nodes; i++) {
        bool known = false;
        if (in->nodes[i].away || in->nodes[i].n_devices == 0 || (in->nodes[i].standby && !standby))
            continue;
        for (uint32_t k = 0; k < s->n_kinds && !known; k++)
            if (same_node(in, s->kinds[k].members[0], i))
                s->kinds[k].members[s->kinds[k].n_members++] = i, known = true;
        if (!known && add_kind(s, i, err) != 0)
            return -1;
    }
    find_ways(s);
    if (!(s->paths = mem_new(1, sizeof *s->paths, err)))
        return -1;
    s->paths->rows = -1;
    return 0;
}

void space_fini(struct space *s)
{
    if (s->paths)
        free(s->paths->us);
    free(s->paths);
    arena_fini(&s->arena);
}
