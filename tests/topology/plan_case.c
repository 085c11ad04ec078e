/* One random input and what the planner makes of it, as JSON, for test_planner_milp.py: plan_case SEED NODES LAYERS UNEVEN ROOM. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/topology/random_input.h"

static void print_part(const char *name, const struct plan_part *p)
{
    printf("%s{\"weights\":[%.17g,%.17g],\"experts\":[%.17g,%.17g],\"other\":%llu,\"kv\":%llu,\"kv_position\":%.17g,\"attn_ops\":%.17g,\"sliding\":%d}", name,
           p->weights[0], p->weights[1], p->expert_weights[0], p->expert_weights[1], (unsigned long long)p->other_bytes,
           (unsigned long long)p->kv_bytes, p->kv_position_bytes, p->attn_ops, p->sliding);
}

static void print_input(const struct random_input *r)
{
    const struct plan_model *m = &r->model;
    uint32_t n = r->in.n_nodes;
    printf("\"model\":{\"bits\":[%.17g,%.17g],\"tied\":%d,\"experts\":%u,\"used\":%u,\"window\":%u,\"scratch\":%llu,\"scratch_head\":%llu,\"wire\":%llu,"
           "\"row\":%.17g,\"copy\":%.17g,\"token\":%.17g,\"layers\":[", m->type_bits[0], m->type_bits[1], m->tied, m->experts, m->experts_used, m->window,
           (unsigned long long)m->scratch_bytes, (unsigned long long)m->scratch_head_bytes, (unsigned long long)m->wire_bytes, m->row_bytes,
           m->copy_bytes, m->token_bytes);
    for (uint32_t l = 0; l < m->n_layers; l++)
        print_part(l ? "," : "", &m->layers[l]);
    print_part("],\"embed\":", &m->embed);
    print_part(",\"head\":", &m->head);
    printf("},\"context\":%.17g,\"parallel\":%u,\"prompt_share\":%.17g,\"nodes\":[", r->in.context, r->in.parallel, r->in.prompt_share);
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_device *d = &r->nodes[i].devices[0];
        printf("%s{\"memory\":%llu,\"reserve\":%llu,\"read\":%.17g,\"ops\":[[%.17g,%.17g],[%.17g,%.17g],[%.17g,%.17g]],\"attn\":[%.17g,%.17g,%.17g],\"fixed\":%.17g,\"bits\":[%.17g,%.17g],\"disk\":%.17g,"
               "\"bus\":%d,\"processors\":%.17g,\"uplink\":%d,\"copy\":%.17g,\"back\":%.17g}", i ? "," : "", (unsigned long long)d->memory_bytes, (unsigned long long)d->reserve_bytes, d->read_bps,
               d->ops[0][0], d->ops[0][1], d->ops[1][0], d->ops[1][1], d->ops[2][0], d->ops[2][1], d->attn_ops[0], d->attn_ops[1], d->attn_ops[2], d->fixed_us, d->bits[0], d->bits[1], d->disk_bps, d->group,
               d->processors, r->nodes[i].group, d->copy_bps, d->back_bps);
    }
    printf("],\"links\":[");
    for (uint32_t i = 0; i < (n + 1) * (n + 1); i++)
        printf("%s[%.17g,%.17g]", i ? "," : "", r->links[i].latency_us, r->links[i].bps);
    printf("],\"groups\":[");
    for (uint32_t i = 0; i < r->in.n_groups; i++)
        printf("%s[%.17g,%d]", i ? "," : "", r->groups[i].bps, r->groups[i].processors);
    printf("],\"pins\":[");
    for (uint32_t i = 0; i < r->in.n_pins; i++)
        printf("%s{\"what\":%d,\"first\":%u,\"last\":%u,\"node\":%u,\"never\":%d}", i ? "," : "", (int)r->pins[i].what, r->pins[i].layers.first,
               r->pins[i].layers.last, r->pins[i].node, r->pins[i].never);
    printf("]");
}

int main(int argc, char **argv)
{
    static struct random_input r;
    static struct plan plan;
    if (argc != 6)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 10);
    struct random_shape shape = {(uint32_t)strtoul(argv[2], NULL, 10), 1, (uint32_t)strtoul(argv[3], NULL, 10), argv[4][0] == '1', strtod(argv[5], NULL)};
    if (shape.nodes < 1 || shape.nodes > PLAN_MAX_NODES || shape.layers < 1 || shape.layers > RANDOM_MAX_LAYERS)
        return 2;
    printf("{\"plans\":[");
    for (int o = 0; o < PLAN_OBJECTIVES; o++) {
        struct err err;
        random_input(&r, seed, &shape, (enum plan_objective)o);
        bool found = plan_make(&r.in, &plan, &err) == 0;
        printf("%s", o ? "," : "");
        if (found)
            printf("{\"value\":%.17g,\"bound\":%.17g,\"gap\":%.17g}", plan.value_us, plan.bound_us, plan.gap);
        else
            printf("null");
    }
    printf("],");
    print_input(&r);
    printf("}\n");
    return 0;
}
