/* See planner.h: sentences about what another cluster or another setting would give, each from really planning it. */
#include "topology/planner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double WORTH_SAYING = 0.02;
/* Planning again for every node takes as many times as long: of large clusters only what is quick to tell is told. */
enum { FEW_NODES = 8, EFFORT_MANY = 20000, FEW_LEFT_OUT = 4 };

struct advising {
    const struct plan_input *in;
    const struct plan *plan;
    struct plan_node nodes[PLAN_MAX_NODES];
    struct plan_input other;
    struct plan_advice *advice;
    uint32_t n;
};

static bool in_plan(const struct plan *p, uint32_t node)
{
    for (uint32_t i = 0; i < p->n_stages; i++)
        if (p->stages[i].node == node)
            return true;
    return false;
}

static void say(struct advising *a, const char *text)
{
    if (a->n < PLAN_MAX_ADVICE)
        snprintf(a->advice[a->n++].text, sizeof a->advice[0].text, "%s", text);
}

static void reset(struct advising *a)
{
    memcpy(a->nodes, a->in->nodes, a->in->n_nodes * sizeof *a->nodes);
    a->other = *a->in;
    a->other.nodes = a->nodes;
    a->other.use_resident = false;
    if (a->in->n_nodes > FEW_NODES)
        a->other.effort = EFFORT_MANY;
}

/* How a plan made otherwise compares: positive is faster. */
static bool compare(struct advising *a, struct plan *ret, double *ret_faster)
{
    struct err err;
    if (plan_make(&a->other, ret, &err) != 0)
        return false;
    *ret_faster = a->plan->value_us / ret->value_us - 1;
    return true;
}

/* The nodes that the plan leaves out, and what it would cost to use one all the same: by giving it the fewest layers there are,
 * one, wherever in the chain it hurts least. */
static bool forced_in(struct advising *a, uint32_t node, struct plan *ret)
{
    struct plan_pin pins[PLAN_MAX_PINS];
    struct plan best, other;
    struct err err;
    bool found = false;
    uint32_t n = a->in->model->n_layers, at[3] = {0, n / 2, n - 1};
    int places = a->in->n_nodes <= FEW_NODES ? 3 : 1;
    if (a->in->n_pins >= PLAN_MAX_PINS)
        return false;
    reset(a);
    memcpy(pins, a->in->pins, a->in->n_pins * sizeof *pins);
    a->other.pins = pins;
    a->other.n_pins = a->in->n_pins + 1;
    for (int i = 0; i < places; i++) {
        pins[a->in->n_pins] = (struct plan_pin){.what = PIN_LAYERS, .layers = {at[i], at[i] + 1}, .node = node};
        if (plan_make(&a->other, &other, &err) == 0 && (!found || other.value_us < best.value_us))
            best = other, found = true;
    }
    *ret = best;
    return found;
}

static void advise_dropped(struct advising *a, uint32_t node)
{
    struct plan p;
    char text[256];
    double faster;
    if (!forced_in(a, node, &p))
        return;
    faster = p.bound_us / a->plan->value_us - 1; /* where that plan is not proved best, what is sure */
    if (faster < WORTH_SAYING)
        snprintf(text, sizeof text, "%.60s is left out: using it would change less than 2%%", a->in->nodes[node].name);
    else
        snprintf(text, sizeof text, "drop node %.60s: %.0f%% faster without it (it is left out of this plan)", a->in->nodes[node].name,
                 100 * faster);
    say(a, text);
}

static void advise_used(struct advising *a, uint32_t node)
{
    struct plan p;
    char text[256];
    double faster;
    reset(a);
    a->nodes[node].away = true;
    if (a->in->n_nodes > FEW_NODES && plan_fits(&a->other))
        return;
    if (!compare(a, &p, &faster)) {
        snprintf(text, sizeof text, "%.60s is needed: without it the model does not fit", a->in->nodes[node].name);
        say(a, text);
    } else if (faster > WORTH_SAYING) { /* only where the search settled for a bound */
        snprintf(text, sizeof text, "drop node %.60s: %.0f%% faster", a->in->nodes[node].name, 100 * faster);
        say(a, text);
    } else if (faster > -WORTH_SAYING) {
        snprintf(text, sizeof text, "%.60s brings less than 2%%: without it the plan is as fast", a->in->nodes[node].name);
        say(a, text);
    }
}

static void advise_standby(struct advising *a)
{
    struct plan p;
    char text[256];
    double faster;
    for (uint32_t i = 0; i < a->in->n_nodes; i++) {
        if (!a->in->nodes[i].standby || a->in->nodes[i].away || in_plan(a->plan, i))
            continue;
        reset(a);
        a->nodes[i].standby = false;
        if (compare(a, &p, &faster) && faster > WORTH_SAYING) {
            snprintf(text, sizeof text, "with standby %.60s in the pipeline: %.0f%% faster", a->in->nodes[i].name, 100 * faster);
            say(a, text);
        }
    }
}

static void advise_links(struct advising *a)
{
    const struct plan *p = a->plan;
    double hops = 0, sum = 0;
    char text[256];
    for (uint32_t i = 0; i <= p->n_stages; i++)
        hops += cost_hop_us(&p->costs.hops[i], 1);
    for (uint32_t i = 0; i < p->n_stages; i++)
        sum += p->stages[i].decode_us;
    if (p->n_stages > 1 && hops > 0.2 * (sum + hops)) {
        snprintf(text, sizeof text, "hops take %.0f%% of a token's time: a link of less latency, or several requests at once, would pay",
                 100 * hops / (sum + hops));
        say(a, text);
    }
    if (p->bottleneck == BOTTLENECK_LINK) {
        snprintf(text, sizeof text, "a link is the bottleneck: --wire f16 halves what it carries");
        say(a, text);
    }
}

uint32_t plan_advise(const struct plan_input *in, const struct plan *plan, struct plan_advice ret_advice[PLAN_MAX_ADVICE])
{
    struct advising a = {.in = in, .plan = plan, .advice = ret_advice};
    uint32_t used = 0, left_out = 0;
    for (uint32_t i = 0; i < in->n_nodes; i++)
        used += in_plan(plan, i);
    if (plan->used_standby)
        say(&a, "without its standby nodes the model does not fit: nothing stands by for a node that fails");
    for (uint32_t i = 0; i < in->n_nodes && used > 1; i++)
        if (in_plan(plan, i))
            advise_used(&a, i);
    for (uint32_t i = 0; i < in->n_nodes; i++)
        if (!in_plan(plan, i) && !in->nodes[i].away && !in->nodes[i].standby && in->nodes[i].n_devices &&
            (in->n_nodes <= FEW_NODES || left_out++ < FEW_LEFT_OUT))
            advise_dropped(&a, i);
    advise_standby(&a);
    advise_links(&a);
    return a.n;
}
