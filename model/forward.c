/* See stage.h. stage_run is the whole forward pass: the same dozen operations for every family, chosen by what a layer has. */
#include "model/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct stage {
    struct model_params params;
    struct stage_config config;
    struct backend *backend;
    struct weights *weights;
    struct kv_view *kv; /* one a layer */
    uint32_t n_kv;
    double *freq[MAX_ROPES];
    struct run *run;
};

static enum kv_group group_of(const struct model_params *p, uint32_t layer)
{
    return p->window && p->sliding[layer] ? KV_SLIDING : KV_FULL;
}

/* --- making ------------------------------------------------------------------------------------------------------------- */

static uint32_t max_u32(uint64_t a, uint64_t b)
{
    return (uint32_t)(a > b ? a : b);
}

static struct run_shape shape_of(const struct model_params *p, const struct stage_config *c)
{
    return (struct run_shape){
        .max_rows = c->max_rows,
        .max_wanted = c->head ? c->max_wanted : 0,
        .max_seqs = c->max_seqs,
        .max_blocks = c->table_stride,
        .embd = p->embd,
        .q_dim = max_u32(model_dim(p, DIM_Q), model_dim(p, DIM_ATT)),
        .k_dim = (uint32_t)model_dim(p, DIM_K),
        .v_dim = (uint32_t)model_dim(p, DIM_V),
        .head_dim_k = p->head_dim_k,
        .head_dim_v = p->head_dim_v,
        .ff_dim = p->n_experts ? p->expert_ff : p->ff,
        .n_experts = p->n_experts,
        .n_experts_used = p->n_experts_used,
        .n_vocab = c->head ? p->n_vocab : 0,
        .ropes = {{.n_dims = p->rope.n_dims}, {.n_dims = p->rope.n_dims}},
        .n_ropes = p->window ? 2 : 1,
    };
}

static size_t block_bytes(struct backend *be, const struct model_params *p, uint32_t layer, enum kv_type type)
{
    struct layer l;
    model_layer_init(p, layer, &l);
    return be->ops->kv_block_bytes(&l.attn, type);
}

int stage_bytes(const struct gguf *g, const struct model_params *p, const struct stage_config *c, struct backend *be, struct stage_bytes *ret,
                struct err *err)
{
    struct run_shape shape = shape_of(p, c);
    if (weights_bytes(g, p, c->first, c->last, c->embed, c->head, be, &ret->weights, err) != 0)
        return -1;
    ret->kv = 0;
    for (uint32_t i = c->first; i < c->last; i++) {
        ret->kv += (uint64_t)block_bytes(be, p, i, c->kv) * c->n_blocks[group_of(p, i)];
        ret->kv = ret->kv < UINT64_MAX / 2 ? ret->kv : UINT64_MAX / 2; /* many wide layers times a long context: more than there is */
    }
    ret->scratch = be->ops->run_bytes(be, &shape);
    return 0;
}

static int make_kv(struct stage *s, struct err *err)
{
    uint32_t n = s->config.last - s->config.first;
    if (!(s->kv = mem_new(n, sizeof *s->kv, err)))
        return -1;
    for (; s->n_kv < n; s->n_kv++) {
        struct kv_view *v = &s->kv[s->n_kv];
        uint32_t layer = s->config.first + s->n_kv;
        v->type = s->config.kv;
        v->n_blocks = s->config.n_blocks[group_of(&s->params, layer)];
        v->block_bytes = block_bytes(s->backend, &s->params, layer, s->config.kv);
        if (!(v->base = s->backend->ops->alloc(s->backend, v->n_blocks * v->block_bytes, err)))
            return err_wrap(err, "KV cache of layer %u (%u blocks of %d positions)", layer, v->n_blocks, KV_BLOCK);
    }
    return 0;
}

/* Bases, scalings and factors come from the file. */
static int check_rope(const struct model_params *p, const struct rope *rope, struct err *err)
{
    for (uint32_t i = 0; i < rope->n_dims / 2; i++)
        if (!(rope->freq[i] >= 0 && rope->freq[i] <= MODEL_MAX_ROPE_FREQ))
            return err_set(err, ERR_INPUT, "the rotary frequency of pair %u is %g, allowed are 0 to %d: %s.rope.freq_base, its scaling or the "
                           "tensor of factors is wrong", i, rope->freq[i], MODEL_MAX_ROPE_FREQ, p->arch->name);
    if (!isfinite(rope->scale))
        return err_set(err, ERR_INPUT, "the magnitude of the rotary positions is %g: %s.rope.scaling is wrong", (double)rope->scale, p->arch->name);
    return 0;
}

/* The file's factors, brought here from where the weights lie; *ret NULL: it has none. The caller frees them. */
static int rope_factors(struct stage *s, float **ret, struct err *err)
{
    const struct weights *w = s->weights;
    const float *there = w->rope_freqs;
    size_t n = s->params.rope.n_dims / 2;
    if (!there)
        there = s->config.ctx > s->params.rope.original_ctx ? w->rope_long : w->rope_short;
    *ret = NULL;
    if (!there)
        return 0;
    if (!(*ret = mem_new(n, sizeof **ret, err)))
        return -1;
    return s->backend->ops->read(s->backend, *ret, there, n * sizeof **ret, err);
}

static int fill_ropes(struct stage *s, struct run_shape *shape, const float *factors, struct err *err)
{
    for (uint32_t i = 0; i < shape->n_ropes; i++) {
        if (!(s->freq[i] = mem_new(s->params.rope.n_dims / 2, sizeof *s->freq[i], err)))
            return -1;
        model_rope(&s->params, i == 1, factors, s->freq[i], &shape->ropes[i]);
        if (check_rope(&s->params, &shape->ropes[i], err) != 0)
            return -1;
    }
    return 0;
}

static int make_ropes(struct stage *s, struct run_shape *shape, struct err *err)
{
    float *factors = NULL;
    int rc = rope_factors(s, &factors, err);
    if (rc == 0)
        rc = fill_ropes(s, shape, factors, err);
    free(factors);
    return rc;
}

struct stage *stage_create(const struct gguf *g, const struct model_params *p, const struct stage_config *c, struct backend *be,
                           struct threadpool *readers, weights_progress_fn progress, void *progress_arg, struct err *err)
{
    struct weights_options options = {.progress = progress, .progress_arg = progress_arg};
    return stage_create_from(g, p, c, be, readers, &options, err);
}

struct stage *stage_create_from(const struct gguf *g, const struct model_params *p, const struct stage_config *c, struct backend *be,
                                struct threadpool *readers, const struct weights_options *options, struct err *err)
{
    struct run_shape shape = shape_of(p, c);
    struct stage *s = mem_new(1, sizeof *s, err);
    if (!s)
        return NULL;
    s->params = *p;
    s->config = *c;
    s->backend = be;
    /* The cache first: where there is no room for it, no weights are read for nothing. */
    if (make_kv(s, err) != 0 || !(s->weights = weights_load(g, p, c->first, c->last, c->embed, c->head, be, readers, options, err)) ||
        make_ropes(s, &shape, err) != 0 || !(s->run = be->ops->run_create(be, &shape, err))) {
        stage_destroy(s);
        return NULL;
    }
    return s;
}

void stage_destroy(struct stage *s)
{
    if (!s)
        return;
    if (s->run)
        s->backend->ops->run_destroy(s->run);
    for (uint32_t i = 0; i < s->n_kv; i++)
        s->backend->ops->free(s->backend, s->kv[i].base, s->kv[i].n_blocks * s->kv[i].block_bytes);
    for (int i = 0; i < MAX_ROPES; i++)
        free(s->freq[i]);
    free(s->kv);
    weights_destroy(s->weights);
    free(s);
}

struct weights *stage_destroy_but_weights(struct stage *s)
{
    struct weights *w = s->weights;
    s->weights = NULL;
    stage_destroy(s);
    return w;
}

/* --- the walk ----------------------------------------------------------------------------------------------------------- */

static void run_layer(const struct backend_ops *op, struct run *run, const struct layer *l, const struct kv_view *kv)
{
    op->qkv(run, l);
    op->rope_store(run, l, kv);
    op->attend(run, l, kv);
    op->attn_out(run, l);
    if (l->experts.n) {
        op->route(run, l);
        op->experts(run, l);
    } else {
        op->ffn_in(run, l);
        op->ffn_out(run, l);
    }
}

int stage_run(struct stage *s, const struct batch *batch, const float *hidden, struct err *err)
{
    return stage_run_path(s, batch, &(struct stage_path){.hidden = hidden}, err);
}

int stage_run_path(struct stage *s, const struct batch *batch, const struct stage_path *path, struct err *err)
{
    const struct backend_ops *op = s->backend->ops;
    op->begin(s->run, batch);
    if (s->config.embed)
        op->embed(s->run, &s->weights->embed, s->params.embed_scale);
    else if (path->here)
        op->set_hidden_here(s->run, path->here);
    else
        op->set_hidden(s->run, path->hidden);
    if (path->to)
        op->send_hidden(s->run, path->to->backend, path->there);
    for (uint32_t i = 0; i < s->n_kv; i++)
        run_layer(op, s->run, &s->weights->layers[i], &s->kv[i]);
    if (s->config.head)
        op->head(s->run, &s->weights->head);
    return op->finish(s->run, err);
}

bool stage_reaches(struct stage *from, struct stage *to)
{
    const struct backend_ops *op = from->backend->ops;
    return op->reaches && op->reaches(from->backend, to->backend);
}

void *stage_room_alloc(struct stage *s, size_t bytes, struct err *err)
{
    return s->backend->ops->alloc(s->backend, bytes, err);
}

void stage_room_free(struct stage *s, void *room, size_t bytes)
{
    s->backend->ops->free(s->backend, room, bytes);
}

const float *stage_hidden(struct stage *s)
{
    return s->backend->ops->hidden(s->run);
}

const float *stage_logits(struct stage *s, uint32_t wanted_index)
{
    return s->backend->ops->logits(s->run, wanted_index);
}

const float *stage_normed(struct stage *s, uint32_t wanted_index)
{
    return s->backend->ops->normed(s->run, wanted_index);
}

struct run *stage_answering(struct stage *s)
{
    return s->run;
}

void stage_copy_block(struct stage *s, enum kv_group group, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < s->n_kv; i++)
        if (group_of(&s->params, s->config.first + i) == group)
            s->backend->ops->kv_copy(s->backend, &s->kv[i], from, to);
}
