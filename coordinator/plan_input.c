/* See plan_input.h. */
#include "coordinator/plan_input.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { GUESSES_MAX_BYTES = 1 << 16, GUESSED_THREADS = 8, CTX_LEAST = 256 };

/* What a device does of which nobody measured more: an ordinary desktop's two memory channels, a card of the middle. */
static const struct {
    double read_bps, ops, float_ops, fixed_us, copy_bps; /* copy: to the device and back; 0: there is nothing to copy */
    bool by_thread; /* ops, not bytes */
} guessed[] = {
    {30e9, 60e9, 15e9, 100, 0, true},
    {400e9, 20e12, 10e12, 150, 12e9, false},
};
static const double GUESSED_RTT_US = 500, GUESSED_BPS = 125e6;
/* Between processes of one machine. */
static const double LOCAL_US = 40, LOCAL_BPS = 4e9;

/* --- the model ---------------------------------------------------------------------------------------------------------- */

static void fill_part(const struct model_costs *c, const struct model_part *from, const int8_t *index, struct plan_part *to)
{
    *to = (struct plan_part){.other_bytes = from->other_bytes, .file_bytes = from->file_bytes, .attn_ops = from->attn_ops};
    for (int t = 0; t < QUANT_TYPES; t++)
        if (index[t] >= 0) {
            to->weights[index[t]] = from->weights[t];
            to->expert_weights[index[t]] = from->expert_weights[t];
        }
    to->kv_bytes = from->kv_block_bytes * c->n_blocks[from->group];
    to->kv_position_bytes = (double)from->kv_block_bytes / KV_BLOCK;
    to->sliding = from->group == KV_SLIDING;
}

static bool has_type(const struct model_part *p, int t)
{
    return p->weights[t] > 0 || p->expert_weights[t] > 0;
}

static int fill_model(struct plan_source *s, const struct model_costs *c, uint32_t max_rows, struct err *err)
{
    struct plan_model *m = &s->model;
    int8_t index[QUANT_TYPES];
    static const double wire_bytes[] = {4, 2, 34.0 / 32};
    for (int t = 0; t < QUANT_TYPES; t++) {
        bool used = has_type(&c->embed, t) || has_type(&c->head, t);
        for (uint32_t l = 0; l < c->n_layers && !used; l++)
            used = has_type(&c->layers[l], t);
        index[t] = -1;
        if (!used)
            continue;
        if (m->n_types == PLAN_MAX_TYPES)
            return err_set(err, ERR_LIMIT, "the model has more than %d types of weights", PLAN_MAX_TYPES);
        m->type_names[m->n_types] = quant_traits((uint32_t)t)->name;
        m->type_bits[m->n_types] = c->type_bits[t];
        index[t] = (int8_t)m->n_types++;
    }
    if (!(s->layers = mem_new(c->n_layers, sizeof *s->layers, err)))
        return -1;
    for (uint32_t l = 0; l < c->n_layers; l++)
        fill_part(c, &c->layers[l], index, &s->layers[l]);
    fill_part(c, &c->embed, index, &m->embed);
    fill_part(c, &c->head, index, &m->head);
    m->embed.kv_bytes = m->head.kv_bytes = 0;
    m->n_layers = c->n_layers;
    m->layers = s->layers;
    m->tied = c->tied;
    m->experts = c->experts;
    m->experts_used = c->experts_used;
    m->window = c->window;
    m->scratch_bytes = c->scratch_bytes;
    m->scratch_head_bytes = c->scratch_head_bytes;
    m->row_bytes = c->embd * wire_bytes[s->wire] + PLAN_ROW_HEADER;
    m->copy_bytes = c->embd * sizeof(float); /* on a device rows are floats, whatever they travel as */
    m->token_bytes = PLAN_TOKEN_BYTES;
    m->wire_bytes = (uint64_t)(2.0 * PLAN_WIRE_BATCHES * max_rows * m->row_bytes);
    return 0;
}

/* --- the cluster ---------------------------------------------------------------------------------------------------------- */

static void guess(struct plan_source *s, const char *node, const char *device, const char *what)
{
    strbuf_printf(&s->guesses, "%s%s%s: %s\n", node, device ? "/" : "", device ? device : "", what);
}

static bool is_float(const char *type)
{
    return strcmp(type, "F32") == 0 || strcmp(type, "F16") == 0 || strcmp(type, "BF16") == 0;
}

/* With cost_rows[k] rows. A type that was not measured is taken to be as fast as the slowest that was. */
static double rate_of(const struct topology_device *d, const char *type, int k, double otherwise, bool *ret_guessed)
{
    double least = 0;
    for (uint32_t i = 0; i < d->n_rates; i++) {
        if (strcmp(d->rates[i].type, type) == 0)
            return d->rates[i].ops[k];
        least = least > 0 && least < d->rates[i].ops[k] ? least : d->rates[i].ops[k];
    }
    *ret_guessed |= least <= 0;
    return least > 0 ? least : otherwise;
}

/* That its processors are divided into. */
static unsigned parts_of(const struct topology_node *node)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < node->n_devices; i++)
        n += strncmp(node->devices[i].name, "cpu:", 4) == 0;
    return n ? n : 1;
}

double plan_guess_attention(int k, double products)
{
    return products / (k == COST_ROWS - 1 ? 4 : 8);
}

static void fill_device(struct plan_source *s, const struct topology_node *node, const struct topology_device *from, struct plan_device *to)
{
    bool gpu = strncmp(from->name, "cpu", 3) != 0, rates_guessed = false; /* cpu:1 is a part of the processors */
    double threads = guessed[gpu].by_thread ? (double)(node->threads ? node->threads : GUESSED_THREADS) / parts_of(node) : 1;
    *to = (struct plan_device){.name = from->name, .memory_bytes = from->memory_bytes, .group = -1, .numerics = from->numerics,
                               .reserve_bytes = gpu ? PLAN_RESERVE_GPU : PLAN_RESERVE_CPU, .read_bps = from->read_bps,
                               .copy_bps = gpu && from->copy_bps > 0 ? from->copy_bps : guessed[gpu].copy_bps, .fixed_us = from->step_us > 0 ? from->step_us : guessed[gpu].fixed_us};
    for (uint32_t t = 0; t < s->model.n_types; t++) {
        const char *type = s->model.type_names[t];
        for (int k = 0; k < COST_ROWS; k++)
            to->ops[k][t] = rate_of(from, type, k, (is_float(type) ? guessed[gpu].float_ops : guessed[gpu].ops) * threads, &rates_guessed);
    }
    if (to->read_bps <= 0) {
        to->read_bps = guessed[gpu].read_bps;
        guess(s, node->name, from->name, "memory bandwidth is a guess");
    }
    if (rates_guessed)
        guess(s, node->name, from->name, "matrix multiplication rates are guesses");
    to->back_bps = gpu && from->back_bps > 0 ? from->back_bps : to->copy_bps;
    for (int k = 0; k < COST_ROWS; k++) { /* a guess is not worth a sentence: it follows the rest */
        double products = rates_guessed || from->n_rates == 0 ? guessed[gpu].ops * threads : from->rates[0].ops[COST_ROWS - 1];
        to->attn_ops[k] = from->attention_ops[k] > 0 ? from->attention_ops[k] : gpu ? products / 4 : plan_guess_attention(k, products);
    }
    if (node->disk_tier && !gpu)
        to->disk_bps = node->disk_bps;
}

static void fill_peers(const struct topology_device *from, struct plan_node *node, struct plan_device *to)
{
    for (uint32_t p = 0; p < from->n_peers; p++)
        for (uint32_t i = 0; i < node->n_devices; i++)
            if (strcmp(node->devices[i].name, from->peers[p].device) == 0)
                to->peer_bps[i] = from->peers[p].bps;
}

static int fill_nodes(struct plan_source *s, const struct topology *t, struct err *err)
{
    if (!(s->nodes = mem_new(t->n_nodes, sizeof *s->nodes, err)))
        return -1;
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        const struct topology_node *from = &t->nodes[i];
        struct plan_node *to = &s->nodes[i];
        *to = (struct plan_node){.name = from->name, .standby = from->standby, .group = -1, .watts = from->watts, .numerics = from->numerics};
        for (uint32_t d = 0; d < from->n_devices; d++)
            if (from->devices[d].memory_bytes > 0 || d > 0)
                fill_device(s, from, &from->devices[d], &to->devices[to->n_devices++]);
        for (uint32_t d = 0; d < to->n_devices; d++) /* the first of the file's may be missing */
            fill_peers(&from->devices[d + from->n_devices - to->n_devices], to, &to->devices[d]);
    }
    return 0;
}

/* "tcp://HOST:PORT": HOST; 0 bytes where there is none. */
static size_t host_of(const char *address, const char **ret)
{
    if (!address || strncmp(address, "tcp://", 6) != 0)
        return 0;
    *ret = address + 6;
    const char *colon = strrchr(*ret, ':');
    return colon ? (size_t)(colon - *ret) : strlen(*ret);
}

static const char *address_of(const struct topology *t, uint32_t end)
{
    return end == TOPOLOGY_COORDINATOR ? t->listen : t->nodes[end].address;
}

static bool same_host(const struct topology *t, uint32_t a, uint32_t b)
{
    const char *x = NULL, *y = NULL, *p = address_of(t, a), *q = address_of(t, b);
    size_t n = host_of(p, &x), m = host_of(q, &y);
    if (p && q && strncmp(p, "ipc://", 6) == 0 && strncmp(q, "ipc://", 6) == 0)
        return true;
    return n > 0 && n == m && memcmp(x, y, n) == 0;
}

static struct plan_link direct_link(const struct topology *t, uint32_t a, uint32_t b, bool *ret_guessed)
{
    double rtt = t->default_rtt_us > 0 ? t->default_rtt_us : GUESSED_RTT_US, bps = t->default_bps > 0 ? t->default_bps : GUESSED_BPS;
    bool local = same_host(t, a, b), given = false;
    if (local)
        rtt = 2 * LOCAL_US, bps = LOCAL_BPS;
    for (uint32_t i = 0; i < t->n_links; i++) {
        const struct topology_link *l = &t->links[i];
        if ((l->a != a || l->b != b) && (l->a != b || l->b != a))
            continue;
        given = l->rtt_us >= 0 && l->bps > 0;
        rtt = l->rtt_us >= 0 ? l->rtt_us : rtt;
        bps = l->bps > 0 ? l->bps : bps;
    }
    *ret_guessed |= !given && !local && (t->default_rtt_us <= 0 || t->default_bps <= 0);
    return (struct plan_link){rtt / 2, bps};
}

/* Two nodes that only dial out meet at the coordinator. */
static bool relayed(const struct topology *t, uint32_t a, uint32_t b)
{
    return a != TOPOLOGY_COORDINATOR && b != TOPOLOGY_COORDINATOR && !t->nodes[a].address && !t->nodes[b].address;
}

static int fill_links(struct plan_source *s, const struct topology *t, struct err *err)
{
    uint32_t n = t->n_nodes;
    bool was_guessed = false;
    if (!(s->links = mem_new((size_t)(n + 1) * (n + 1), sizeof *s->links, err)))
        return -1;
    for (uint32_t i = 0; i <= n; i++)
        for (uint32_t j = 0; j <= n; j++) {
            uint32_t a = i == n ? TOPOLOGY_COORDINATOR : i, b = j == n ? TOPOLOGY_COORDINATOR : j;
            struct plan_link *l = &s->links[i * (n + 1) + j];
            *l = (struct plan_link){LOCAL_US, LOCAL_BPS};
            if (i == j)
                continue;
            if (!relayed(t, a, b)) {
                *l = direct_link(t, a, b, &was_guessed);
                continue;
            }
            struct plan_link up = direct_link(t, a, TOPOLOGY_COORDINATOR, &was_guessed);
            struct plan_link down = direct_link(t, TOPOLOGY_COORDINATOR, b, &was_guessed);
            /* Stored and forwarded: the times add up. */
            *l = (struct plan_link){up.latency_us + down.latency_us, 1 / (1 / up.bps + 1 / down.bps)};
        }
    if (was_guessed)
        guess(s, "links", NULL, "what is not given is guessed (rtt 0.5ms, rate 1Gbit/s)");
    return 0;
}

static void fill_groups(struct plan_source *s, const struct topology *t)
{
    for (uint32_t i = 0; i < t->n_groups; i++) {
        const struct topology_group *g = &t->groups[i];
        s->groups[i] = (struct plan_group){.name = g->uplink ? "uplink" : "memory", .bps = g->bps};
        for (uint32_t m = 0; m < g->n_members; m++) {
            const struct topology_node *from = &t->nodes[g->nodes[m]];
            struct plan_node *node = &s->nodes[g->nodes[m]];
            if (g->uplink)
                node->group = (int32_t)i;
            for (uint32_t d = 0; d < node->n_devices && !g->uplink; d++)
                if (strcmp(node->devices[d].name, from->devices[g->devices[m]].name) == 0)
                    node->devices[d].group = (int32_t)i;
        }
    }
}

static int fill_pins(struct plan_source *s, const struct topology *t, struct err *err)
{
    static const enum plan_pin_what what[] = {[TOPOLOGY_PIN_LAYERS] = PIN_LAYERS, [TOPOLOGY_PIN_EMBED] = PIN_EMBED, [TOPOLOGY_PIN_HEAD] = PIN_HEAD};
    for (uint32_t i = 0; i < t->n_pins; i++) {
        const struct topology_pin *p = &t->pins[i];
        if (p->what == TOPOLOGY_PIN_LAYERS && p->last >= s->model.n_layers)
            return err_set(err, ERR_INPUT, "line %u of the topology pins layers %u-%u; the model has 0-%u", p->mark.line, p->first, p->last,
                           s->model.n_layers - 1);
        s->pins[i] = (struct plan_pin){what[p->what], {p->first, p->last + 1}, p->node, p->never};
    }
    return 0;
}

static double depth_of(const struct plan_source *s, const struct plan_settings *set)
{
    uint32_t depth = set->depth ? set->depth : s->ctx / 2 < PLAN_DEFAULT_DEPTH ? s->ctx / 2 : PLAN_DEFAULT_DEPTH;
    return depth < s->ctx ? depth : s->ctx;
}

static double prompt_share_of(const struct plan_settings *set)
{
    return set->prompt_share < 0 ? 0 : set->prompt_share > 0 ? set->prompt_share : PLAN_PROMPT_SHARE;
}

/* --- together --------------------------------------------------------------------------------------------------------------- */

static int init(struct plan_source *s, const struct gguf *g, const struct model_params *p, const struct topology *t,
                const struct plan_settings *set, uint32_t ctx, enum plan_wire wire, struct err *err)
{
    struct model_costs costs = {0};
    uint32_t max_rows = set->max_rows ? set->max_rows : PLAN_DEFAULT_ROWS, most = p->ctx_train < PLAN_DEFAULT_CTX ? p->ctx_train : PLAN_DEFAULT_CTX;
    int rc = -1;
    *s = (struct plan_source){.ctx = ctx ? ctx : set->ctx ? set->ctx : t->ctx ? t->ctx : most, .wire = wire};
    s->parallel = set->parallel ? set->parallel : t->parallel ? t->parallel : PLAN_DEFAULT_PARALLEL;
    strbuf_init(&s->guesses, GUESSES_MAX_BYTES);
    struct model_cost_options o = {.kv = set->kv, .ctx = s->ctx, .parallel = s->parallel, .max_rows = max_rows > s->parallel ? max_rows : s->parallel,
                                   .max_wanted = s->parallel > 16 ? s->parallel : 16, .kv_total = set->kv_total};
    if (model_costs_init(&costs, g, p, &o, err) != 0 || fill_model(s, &costs, o.max_rows, err) != 0 || fill_nodes(s, t, err) != 0 ||
        fill_links(s, t, err) != 0 || fill_pins(s, t, err) != 0)
        goto done;
    fill_groups(s, t);
    s->in = (struct plan_input){.model = &s->model, .n_nodes = t->n_nodes, .nodes = s->nodes, .links = s->links, .n_groups = t->n_groups,
                                .groups = s->groups, .n_pins = t->n_pins, .pins = s->pins, .objective = set->objective, .parallel = s->parallel,
                                .context = depth_of(s, set), .prompt_share = prompt_share_of(set), .max_rows = o.max_rows, .price_per_kwh = t->price_per_kwh};
    if (set->effort > 0)
        s->in.effort = (uint64_t)ceil(set->effort * (double)plan_usual_effort(set->objective));
    rc = 0;
done:
    model_costs_fini(&costs);
    return rc;
}

static enum plan_wire first_wire(const struct plan_settings *set)
{
    return set->wire == PLAN_WIRE_AUTO ? PLAN_WIRE_F32 : set->wire;
}

int plan_source_init(struct plan_source *s, const struct gguf *g, const struct model_params *p, const struct topology *t,
                     const struct plan_settings *set, struct err *err)
{
    return init(s, g, p, t, set, 0, first_wire(set), err);
}

void plan_source_fini(struct plan_source *s)
{
    free(s->layers);
    free(s->nodes);
    free(s->links);
    strbuf_fini(&s->guesses);
    *s = (struct plan_source){0};
}

struct making {
    const struct gguf *g;
    const struct model_params *p;
    const struct topology *t;
    const struct plan_settings *set;
    plan_adjust_fn adjust;
    void *arg;
};

static int try_with(struct plan_source *s, const struct making *m, uint32_t ctx, enum plan_wire wire, struct plan *ret, struct err *err)
{
    if (s->layers)
        plan_source_fini(s);
    if (init(s, m->g, m->p, m->t, m->set, ctx, wire, err) != 0)
        return -1;
    if (m->adjust)
        m->adjust(m->arg, s);
    return plan_make(&s->in, ret, err);
}

/* The longest context that fits below one that does not. */
static int lower_ctx(struct plan_source *s, const struct making *m, uint32_t too_long, enum plan_wire wire, struct plan *ret, struct err *err)
{
    struct err ignored, first = *err;
    uint32_t low = 0, high = (too_long + PLAN_CTX_STEP - 1) / PLAN_CTX_STEP; /* in steps; high does not fit */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (try_with(s, m, middle * PLAN_CTX_STEP, wire, ret, &ignored) == 0)
            low = middle;
        else if (ignored.kind != ERR_MEMORY)
            break;
        else
            high = middle;
    }
    if (low == 0) {
        *err = first;
        return -1;
    }
    if (try_with(s, m, low * PLAN_CTX_STEP, wire, ret, err) != 0)
        return -1;
    s->ctx_lowered = true;
    return 0;
}

int plan_source_make(struct plan_source *s, const struct gguf *g, const struct model_params *p, const struct topology *t,
                     const struct plan_settings *set, plan_adjust_fn adjust, void *arg, struct plan *ret, struct err *err)
{
    struct making m = {g, p, t, set, adjust, arg};
    enum plan_wire wire = first_wire(set);
    *s = (struct plan_source){0};
    int rc = try_with(s, &m, 0, wire, ret, err);
    if (rc != 0 && err->kind == ERR_MEMORY && !set->ctx && !t->ctx)
        rc = lower_ctx(s, &m, s->ctx, wire, ret, err);
    if (rc == 0 && set->wire == PLAN_WIRE_AUTO && ret->bottleneck == BOTTLENECK_LINK) {
        bool lowered = s->ctx_lowered;
        rc = try_with(s, &m, s->ctx, PLAN_WIRE_F16, ret, err);
        s->ctx_lowered = lowered;
    }
    return rc;
}
