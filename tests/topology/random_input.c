/* See random_input.h. */
#include "tests/topology/random_input.h"

#include <stdio.h>
#include <string.h>

uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double random_between(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(random_next(state) >> 11) * 0x1p-53;
}

static uint32_t below(uint64_t *s, uint32_t n)
{
    return (uint32_t)(random_next(s) % n);
}

static void make_part(uint64_t *s, const struct random_shape *shape, const struct plan_model *m, struct plan_part *p)
{
    double unit = 100e6 * (shape->uneven ? random_between(s, 0.5, 1.5) : 1);
    *p = (struct plan_part){.weights = {unit}, .other_bytes = 4096, .kv_bytes = 8 << 20, .kv_position_bytes = 2048, .attn_ops = 16384};
    if (shape->uneven && below(s, 2))
        p->weights[1] = 0.2 * unit;
    if (m->experts)
        p->expert_weights[0] = 4 * unit;
    if (m->window && below(s, 2))
        p->sliding = true;
    p->file_bytes = (uint64_t)(p->weights[0] * 0.55 + p->weights[1] * 0.8 + p->expert_weights[0] * 0.55);
}

static void make_model(uint64_t *s, const struct random_shape *shape, struct random_input *r)
{
    struct plan_model *m = &r->model;
    *m = (struct plan_model){.type_names = {"Q4_K", "Q6_K"}, .type_bits = {4.625, 6.5625}, .n_types = 2, .n_layers = shape->layers,
                             .layers = r->layers, .scratch_bytes = 16 << 20, .scratch_head_bytes = 32 << 20, .wire_bytes = 4 << 20,
                             .row_bytes = 32768, .copy_bytes = 32768, .token_bytes = 64};
    if (shape->uneven) {
        m->tied = below(s, 3) == 0;
        if (below(s, 3) == 0)
            m->experts = 8, m->experts_used = 2;
        if (below(s, 3) == 0)
            m->window = 512;
    }
    for (uint32_t l = 0; l < m->n_layers; l++)
        make_part(s, shape, m, &r->layers[l]);
    m->embed = (struct plan_part){.weights = {60e6}, .file_bytes = 33000000};
    m->head = m->embed;
    m->head.other_bytes = 4096;
    if (!m->tied)
        m->head.weights[1] = 30e6;
}

static void make_device(uint64_t *s, const struct random_shape *shape, double memory, struct plan_device *d)
{
    *d = (struct plan_device){.name = "cpu", .memory_bytes = (uint64_t)(memory * random_between(s, 0.5, 1.5)), .reserve_bytes = 1 << 20,
                              .read_bps = random_between(s, 20e9, 200e9), .ops = {{random_between(s, 0.3e12, 5e12), random_between(s, 0.2e12, 4e12)}},
                              .attn_ops = {random_between(s, 0.1e12, 1e12)}, .fixed_us = random_between(s, 0, 200), .group = -1};
    bool even = below(s, 2);
    uint64_t own = *s; /* so that seeds go on giving the inputs that they gave */
    for (int k = 1; k < COST_ROWS; k++) {
        for (int t = 0; t < 2; t++)
            d->ops[k][t] = d->ops[k - 1][t] * (even ? 1 : random_between(s, 1, 3));
        d->attn_ops[k] = d->attn_ops[k - 1] * (even ? 1 : random_between(&own, 1, 3));
    }
    if (shape->uneven && below(s, 4) == 0)
        d->bits[0] = 4.5;
    if (shape->uneven && below(s, 12) == 0)
        d->disk_bps = random_between(s, 0.5e9, 4e9);
}

static void make_links(uint64_t *s, struct random_input *r, uint32_t n)
{
    bool uniform = below(s, 3) == 0;
    struct plan_link usual = {random_between(s, 50, 2000), random_between(s, 20e6, 1e9)};
    for (uint32_t i = 0; i <= n; i++)
        for (uint32_t j = 0; j <= n; j++) {
            struct plan_link *l = &r->links[i * (n + 1) + j];
            *l = usual;
            if (!uniform && below(s, 2))
                *l = (struct plan_link){random_between(s, 50, 8000), random_between(s, 5e6, 1e9)};
            if (j < i && below(s, 4))
                *l = r->links[j * (n + 1) + i];
        }
}

/* Some devices have memory of their own; some of a node reach each other. */
static void make_copies(uint64_t *s, struct random_input *r)
{
    for (uint32_t i = 0; i < r->in.n_nodes; i++) {
        struct plan_node *n = &r->nodes[i];
        bool alike = below(s, 2);
        double bps = random_between(s, 50e6, 5e9);
        for (uint32_t d = 0; d < n->n_devices; d++) {
            if (below(s, 2))
                continue;
            n->devices[d].copy_bps = alike ? bps : random_between(s, 50e6, 5e9);
            n->devices[d].back_bps = alike ? bps : random_between(s, 50e6, 5e9);
        }
        for (uint32_t d = 0; d < n->n_devices; d++)
            for (uint32_t to = 0; to < n->n_devices; to++)
                if (d != to && n->devices[d].copy_bps > 0 && n->devices[to].copy_bps > 0 && below(s, 3))
                    n->devices[d].peer_bps[to] = alike ? 2 * bps : random_between(s, 50e6, 20e9);
    }
}

static void make_extras(uint64_t *s, struct random_input *r)
{
    struct plan_input *in = &r->in;
    uint32_t n = in->n_nodes;
    if (n > 1 && below(s, 3) == 0) { /* an equal pair, as far as links allow */
        struct plan_link *l = r->links;
        uint32_t w = n + 1, a = n - 2, b = n - 1;
        r->nodes[b] = r->nodes[a];
        r->nodes[b].name = r->names[b];
        for (uint32_t k = 0; k < w; k++)
            if (k != a && k != b)
                l[b * w + k] = l[a * w + k], l[k * w + b] = l[k * w + a];
        l[b * w + a] = l[a * w + b];
    }
    if (below(s, 4) == 0) {
        bool processors = below(s, 3) == 0;
        r->groups[in->n_groups] = (struct plan_group){"bus", processors ? 4 : random_between(s, 30e9, 100e9), processors};
        for (uint32_t i = 0; i < n; i++)
            if (below(s, 2)) {
                r->nodes[i].devices[0].group = (int32_t)in->n_groups;
                r->nodes[i].devices[0].processors = 1 + below(s, 4);
            }
        in->n_groups++;
    }
    if (below(s, 4) == 0) {
        r->groups[in->n_groups] = (struct plan_group){"uplink", random_between(s, 5e6, 100e6), false};
        for (uint32_t i = 0; i < n; i++)
            if (below(s, 2))
                r->nodes[i].group = (int32_t)in->n_groups;
        in->n_groups++;
    }
    if (below(s, 4) == 0)
        r->pins[in->n_pins++] = (struct plan_pin){.what = PIN_HEAD, .node = below(s, n)};
    if (below(s, 6) == 0)
        r->pins[in->n_pins++] = (struct plan_pin){.what = PIN_EMBED, .node = below(s, n), .never = below(s, 2)};
    if (below(s, 5) == 0) {
        uint32_t first = below(s, r->model.n_layers);
        r->pins[in->n_pins++] = (struct plan_pin){.what = PIN_LAYERS, .layers = {first, first + 1}, .node = below(s, n), .never = below(s, 2)};
    }
}

void random_input(struct random_input *r, uint64_t seed, const struct random_shape *shape, enum plan_objective objective)
{
    uint64_t state = seed, *s = &state;
    double need = 0, devices = 0;
    memset(r, 0, sizeof *r);
    make_model(s, shape, r);
    for (uint32_t l = 0; l < shape->layers; l++)
        need += r->layers[l].weights[0] * 4.625 / 8 + r->layers[l].weights[1] * 6.5625 / 8 + r->layers[l].expert_weights[0] * 4.625 / 8 +
                (double)r->layers[l].kv_bytes;
    r->in = (struct plan_input){.model = &r->model, .n_nodes = shape->nodes, .nodes = r->nodes, .links = r->links, .groups = r->groups,
                                .pins = r->pins, .objective = objective, .parallel = 1 + below(s, 16), .context = below(s, 8000),
                                .max_rows = 512, .prompt_share = below(s, 2) ? random_between(s, 0, 6) : 0};
    for (uint32_t i = 0; i < shape->nodes; i++) {
        snprintf(r->names[i], sizeof r->names[i], "n%u", i);
        r->nodes[i] = (struct plan_node){.name = r->names[i], .group = -1, .n_devices = 1 + below(s, shape->devices)};
        devices += r->nodes[i].n_devices;
    }
    for (uint32_t i = 0; i < shape->nodes; i++)
        for (uint32_t d = 0; d < r->nodes[i].n_devices; d++) {
            make_device(s, shape, need * shape->room / devices + 100e6, &r->nodes[i].devices[d]);
            if (d > 0 && below(s, 2))
                r->nodes[i].devices[d] = r->nodes[i].devices[0];
        }
    make_links(s, r, shape->nodes);
    if (shape->uneven) {
        make_copies(s, r);
        make_extras(s, r);
    }
}
