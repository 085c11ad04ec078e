/* See cost.h. The walk over tensors is the loader's (model_tensors), so that a plan counts what will be loaded. */
#include "model/cost.h"

#include <stdlib.h>

#include "base/mem.h"
#include "kernels/r16.h"
#include "model/stage.h"

enum { ALIGN = 64, CUT_BACK = 1024 };

struct counting {
    struct model_costs *c;
    const struct model_params *p;
};

static double most_bits(struct backend *be, enum quant_type type)
{
    enum { COLS = 1024 };
    const struct quant_traits *traits = quant_traits(type);
    double file, packed = 0, here;
    if (!traits || !traits->computed)
        return 0;
    file = 8.0 * (double)quant_bytes(type, COLS) / COLS;
    if (r16_forms[type].group)
        packed = 8.0 * (double)r16_panel_bytes(type, COLS) / COLS / PACK_ROWS;
    here = 8.0 * (double)be->ops->weight_bytes(be, type, PACK_ROWS, COLS) / COLS / PACK_ROWS;
    file = file > packed ? file : packed;
    return file > here ? file : here;
}

static void count_matrix(struct model_part *part, const struct gguf_tensor *t, uint64_t rows, uint32_t mats, bool experts)
{
    double weights = (double)((rows + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS) * (double)t->dims[0] * mats;
    *(experts ? &part->expert_weights[t->type] : &part->weights[t->type]) += weights;
    part->other_bytes += (uint64_t)ALIGN * mats;
}

static void count_layer_tensor(const struct counting *n, const struct model_tensor *t)
{
    struct model_part *part = &n->c->layers[t->layer];
    const struct tensor_rule *rule = t->rule;
    if (rule->parts[0].kind == PART_VEC) {
        part->other_bytes += 4 * t->tensor->dims[0] + ALIGN;
        return;
    }
    for (int i = 0; i < 3 && rule->parts[i].kind != PART_NONE; i++)
        count_matrix(part, t->tensor, model_dim(n->p, rule->parts[i].dim), rule->each && t->whole ? n->p->n_experts : 1, rule->each != NULL);
}

static int count_tensor(void *arg, const struct model_tensor *t, struct err *err)
{
    const struct counting *n = arg;
    struct model_costs *c = n->c;
    (void)err;
    switch (t->place) {
    case PLACE_LAYER:
        c->layers[t->layer].file_bytes += t->tensor->bytes;
        count_layer_tensor(n, t);
        break;
    case PLACE_EMBED:
        c->embed.file_bytes += t->tensor->bytes;
        count_matrix(&c->embed, t->tensor, t->tensor->dims[1], 1, false);
        break;
    case PLACE_HEAD:
        c->head.file_bytes += t->tensor->bytes;
        count_matrix(&c->head, t->tensor, t->tensor->dims[1], 1, false);
        break;
    case PLACE_HEAD_NORM:
        c->head.file_bytes += t->tensor->bytes;
        c->head.other_bytes += 4 * t->tensor->dims[0] + ALIGN;
        break;
    default: /* rotary factors: every stage has them, wherever it begins */
        c->scratch_bytes += 4 * t->tensor->dims[0] + ALIGN;
        break;
    }
    return 0;
}

uint32_t model_sequence_blocks(const struct model_params *p, enum kv_group group, uint32_t ctx, uint32_t max_rows)
{
    uint64_t positions = ctx, seen = (uint64_t)p->window + max_rows + CUT_BACK + 2 * KV_BLOCK;
    bool slides = false, sees_all = false;
    for (uint32_t l = 0; l < p->n_layers; l++)
        *(p->window && p->sliding[l] ? &slides : &sees_all) = true;
    if (group == KV_SLIDING)
        positions = !slides ? 0 : seen < positions ? seen : positions;
    else if (!sees_all)
        positions = 0;
    return (uint32_t)((positions + KV_BLOCK - 1) / KV_BLOCK);
}

static void count_kv(struct model_costs *c, const struct model_params *p, struct backend *be, enum kv_type kv)
{
    for (uint32_t l = 0; l < c->n_layers; l++) {
        struct layer layer;
        model_layer_init(p, l, &layer);
        c->layers[l].kv_block_bytes = be->ops->kv_block_bytes(&layer.attn, kv);
        c->layers[l].group = layer.attn.group;
        c->layers[l].attn_ops = 2.0 * p->n_heads * (p->head_dim_k + p->head_dim_v);
    }
}

/* A stage without layers: what is left are its buffers. */
static int count_scratch(struct model_costs *c, const struct gguf *g, const struct model_params *p, struct backend *be,
                         const struct model_cost_options *o, struct err *err)
{
    struct stage_config config = {.kv = o->kv, .ctx = o->ctx, .max_rows = o->max_rows, .max_wanted = o->max_wanted, .max_seqs = o->parallel,
                                  .table_stride = model_sequence_blocks(p, KV_FULL, o->ctx, o->max_rows)};
    struct stage_bytes middle, last;
    if (stage_bytes(g, p, &config, be, &middle, err) != 0)
        return -1;
    config.head = true;
    if (stage_bytes(g, p, &config, be, &last, err) != 0)
        return -1;
    c->scratch_bytes += middle.scratch;
    c->scratch_head_bytes = last.scratch > middle.scratch ? last.scratch - middle.scratch : 0;
    return 0;
}

uint32_t model_shared_blocks(uint32_t each, uint32_t parallel, uint32_t kv_total)
{
    uint32_t all = each * parallel, most = kv_total / KV_BLOCK + (kv_total % KV_BLOCK != 0);

    most = most < each ? each : most;
    return kv_total && most < all ? most : all;
}

int model_costs_init(struct model_costs *c, const struct gguf *g, const struct model_params *p, const struct model_cost_options *o,
                     struct err *err)
{
    struct counting n = {c, p};
    struct backend *be;
    int rc = -1;
    *c = (struct model_costs){.n_layers = p->n_layers, .tied = p->tied, .experts = p->n_experts, .experts_used = p->n_experts_used,
                              .window = p->window, .embd = p->embd};
    if (o->kv_total && o->kv_total < o->ctx)
        return err_set(err, ERR_USAGE, "--kv-total is %u positions, which is less than one sequence may have (--ctx %u): give at least that, or a "
                       "smaller --ctx", o->kv_total, o->ctx);
    if (!(be = backend_cpu_create(1, NULL, err)))
        return -1;
    if (!(c->layers = mem_new(p->n_layers, sizeof *c->layers, err)) ||
        model_tensors(g, p, 0, p->n_layers, true, true, count_tensor, &n, err) != 0 || count_scratch(c, g, p, be, o, err) != 0)
        goto done;
    if (p->tied) {
        for (int t = 0; t < QUANT_TYPES; t++)
            c->head.weights[t] = c->embed.weights[t];
        c->head.other_bytes += c->embed.other_bytes;
        c->head.file_bytes += c->embed.file_bytes;
    }
    count_kv(c, p, be, o->kv);
    for (int t = 0; t < QUANT_TYPES; t++)
        c->type_bits[t] = most_bits(be, (enum quant_type)t);
    for (int k = 0; k < KV_GROUPS; k++)
        c->n_blocks[k] = model_shared_blocks(model_sequence_blocks(p, (enum kv_group)k, o->ctx, o->max_rows), o->parallel, o->kv_total);
    rc = 0;
done:
    backend_destroy(be);
    return rc;
}

void model_costs_fini(struct model_costs *c)
{
    free(c->layers);
    *c = (struct model_costs){0};
}
