/* The operations on layers as launches (kernels/backend.h says what each computes; kernels.cu has the kernels). */
#include <string.h>

#include "kernels/cuda/run.h"

static struct cuda_run *self(struct run *run)
{
    return (struct cuda_run *)run;
}

enum { BLOCKS_MAX = 4096 }; /* of a kernel that walks through its work */

/* --- products ------------------------------------------------------------------------------------------------------------- */

/* One product of an operation: rows of f (f_cols wide) and their quantized copies. */
struct product {
    const struct weight *w;
    const struct vec *bias;
    float *out;
    bool wide; /* with 16-bit activations */
};

/* What the products of one operation have in common. */
struct operand {
    const float *f;
    const struct cuda_acts *acts;
    const uint32_t *rows; /* how many there are, on the device */
    uint32_t most;        /* of them */
    bool add, experts;
};

static uint32_t experts_at_once(const struct cuda_run *r)
{
    uint32_t spread = r->key.rows * r->shape.n_experts_used;
    return spread < r->shape.n_experts ? spread : r->shape.n_experts;
}

/* Many rows: steps of few are graphs, and their bits are the same whatever computes prompts. */
static bool by_blas(const struct cuda_run *r, const struct operand *x)
{
    return r->c->blas && !x->experts && x->most > GRAPH_ROWS;
}

static void product_by_blas(struct cuda_run *r, const struct operand *x, const struct product *p)
{
    const struct weight *w = p->w;
    const void *rows = x->f;
    uint64_t n = (uint64_t)x->most * w->cols;
    if (run_skips(r))
        return;
    if (w->type != QUANT_F32) {
        struct cuda_narrow narrow = {.x = x->f, .to = r->narrow, .n = n, .type = w->type};
        uint64_t blocks = (n + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS;
        if (r->narrowed != x->f || r->narrowed_type != w->type)
            run_launch(r, r->c->kernels.narrow, blocks < BLOCKS_MAX ? (uint32_t)blocks : BLOCKS_MAX, 1, 1, CUDA_ROW_THREADS, &narrow);
        r->narrowed = x->f;
        r->narrowed_type = w->type;
        rows = r->narrow;
    }
    if (r->err.kind == ERR_NONE)
        cublas_product(r->c->blas, w->type, w->data, w->rows, w->cols, rows, x->most, p->out, x->add, &r->err);
    struct cuda_bias bias = {.out = p->out, .bias = p->bias ? p->bias->data : NULL, .cols = w->rows, .rows = x->most};
    if (bias.bias)
        run_launch(r, r->c->kernels.bias, (w->rows + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS, x->most, 1, CUDA_ROW_THREADS, &bias);
}

static void launch_floats(struct cuda_run *r, const struct operand *x, const struct product *p)
{
    const struct weight *w = p->w;
    struct cuda_float_mat args = {.w = w->data, .bias = p->bias ? p->bias->data : NULL, .x = x->f, .out = p->out, .rows_w = w->rows, .cols = w->cols,
                                  .x_stride = w->cols, .out_stride = w->rows, .add = x->add, .rows = x->rows, .mat_bytes = w->mat_bytes};
    if (x->experts) {
        args.active = r->experts.active;
        args.first_tile = r->experts.first_tile;
        args.count = r->experts.count;
        args.n_experts = r->shape.n_experts;
    }
    uint32_t block_rows = CUDA_THREADS / 16 * CUDA_WIDE_ROWS;
    run_launch(r, r->c->kernels.mat_floats[w->type], (w->rows + block_rows - 1) / block_rows, (x->most + CUDA_TILE - 1) / CUDA_TILE,
               x->experts ? experts_at_once(r) : 1, CUDA_THREADS, &args);
}

/* n products with matrices of one type. */
static void launch_packed(struct cuda_run *r, const struct operand *x, const struct product *p, uint32_t n)
{
    const struct cuda_kernels *k = &r->c->kernels;
    enum quant_type type = p->w->type;
    struct cuda_mat args = {.n_parts = n, .cols = p->w->cols, .add = x->add, .acts = *x->acts, .acts16 = r->acts16, .rows = x->rows, .mat_bytes = p->w->mat_bytes};
    for (uint32_t i = 0; i < n; i++) {
        args.part[i] = (struct cuda_mat_part){.w = p[i].w->data, .bias = p[i].bias ? p[i].bias->data : NULL, .out = p[i].out, .rows = p[i].w->rows,
                                              .out_stride = p[i].w->rows, .first_panel = args.panels, .wide = p[i].wide};
        args.panels += (p[i].w->rows + CUDA_PANEL - 1) / CUDA_PANEL;
    }
    if (x->experts) {
        args.active = r->experts.active;
        args.first_tile = r->experts.first_tile;
        args.count = r->experts.count;
        args.n_experts = r->shape.n_experts;
    }
    uint32_t z = x->experts ? experts_at_once(r) : 1, block_rows = CUDA_TILE * CUDA_PROMPT_TILES;
    if (x->most <= CUDA_TILE)
        run_launch(r, k->mat1[type], args.panels, 1, z, CUDA_THREADS, &args);
    else if (x->most <= CUDA_SMALL_ROWS)
        run_launch(r, k->mat2[type], args.panels, 1, z, CUDA_THREADS, &args);
    else
        run_launch(r, k->prompt[type], (args.panels + 3) / 4, (x->most + block_rows - 1) / block_rows, z, CUDA_THREADS, &args);
}

/* Up to CUDA_MAT_PARTS products of rows as wide as each other: those of one type go together. */
static void products(struct cuda_run *r, const struct operand *x, const struct product *p, uint32_t n)
{
    r->narrowed = NULL;
    for (uint32_t i = 0; i < n;) {
        uint32_t same = 1;
        if (!cuda_is_packed(p[i].w->type)) {
            if (by_blas(r, x))
                product_by_blas(r, x, &p[i++]);
            else
                launch_floats(r, x, &p[i++]);
            continue;
        }
        /* Of experts the matrices are as far apart, too. */
        while (i + same < n && p[i + same].w->type == p[i].w->type && (!x->experts || p[i + same].w->mat_bytes == p[i].w->mat_bytes))
            same++;
        launch_packed(r, x, p + i, same);
        i += same;
    }
}

static struct operand rows_of(struct cuda_run *r, const float *f)
{
    return (struct operand){.f = f, .acts = &r->acts, .rows = &r->step->n_rows, .most = r->key.rows};
}

/* --- rows ----------------------------------------------------------------------------------------------------------------- */

static bool wants_quantized(const struct weight *w)
{
    return w->data && cuda_is_packed(w->type);
}

/* n = norm(x), and its quantized copies where they are wanted. */
static void norm_rows(struct cuda_run *r, const struct norm *norm, bool head, bool bits8, bool bits16)
{
    struct cuda_norm args = {.x = r->x, .weight = norm->weight.data, .n = r->n, .list = head ? r->wanted : NULL,
                             .rows = head ? &r->step->n_wanted : &r->step->n_rows, .embd = r->shape.embd, .eps = norm->eps};
    if (bits8)
        args.acts = r->acts;
    if (bits16)
        args.acts16 = r->acts16;
    run_launch(r, r->c->kernels.norm, head ? r->key.wanted : r->key.rows, 1, 1, CUDA_ROW_THREADS, &args);
}

/* The operand of what follows: x, or act(x) up, quantized where w wants it. experts: the rows of all of them. */
static void quantize_rows(struct cuda_run *r, struct cuda_quantize args, const struct weight *w, bool experts)
{
    args.cols = w->cols;
    if (wants_quantized(w))
        args.acts = r->acts;
    args.rows = experts ? &r->step->spread : &r->step->n_rows;
    args.at = experts ? r->experts.at : NULL;
    if (args.acts.q || args.up || args.from)
        run_launch(r, r->c->kernels.quantize, experts ? r->key.rows * r->shape.n_experts_used : r->key.rows, (w->cols + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS,
                   1, CUDA_ROW_THREADS, &args);
}

static void op_embed(struct run *run, const struct weight *w, float scale)
{
    struct cuda_run *r = self(run);
    struct cuda_embed args = {.w = w->data, .token = r->token, .x = r->x, .type = w->type, .cols = w->cols, .row_bytes = w->row_bytes, .scale = scale,
                              .rows = &r->step->n_rows};
    uint32_t threads = cuda_is_packed(w->type) ? w->cols / 8 : w->cols;
    run_start(r);
    run_launch(r, r->c->kernels.embed, r->key.rows, (threads + CUDA_THREADS - 1) / CUDA_THREADS, 1, CUDA_THREADS, &args);
}

/* --- attention ------------------------------------------------------------------------------------------------------------ */

static void op_qkv(struct run *run, const struct layer *l)
{
    struct cuda_run *r = self(run);
    if (run_skips(r))
        return;
    /* Keys and values with 16-bit activations, as on the CPU. */
    norm_rows(r, &l->attn_norm, false, wants_quantized(&l->q), wants_quantized(&l->k) || wants_quantized(&l->v));
    struct operand x = rows_of(r, r->n);
    products(r, &x, (struct product[]){{&l->q, &l->q_bias, r->q, false}, {&l->k, &l->k_bias, r->k, true}, {&l->v, &l->v_bias, r->v, true}}, 3);
}

static void op_rope_store(struct run *run, const struct layer *l, const struct kv_view *kv)
{
    struct cuda_run *r = self(run);
    const struct attention *a = &l->attn;
    const struct rope *rope = &r->shape.ropes[a->rope];
    struct cuda_heads args = {.q = r->q, .k = r->k, .v = r->v, .q_norm = l->q_norm.weight.data, .k_norm = l->k_norm.weight.data, .q_eps = l->q_norm.eps,
                              .k_eps = l->k_norm.eps, .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .dk = a->head_dim_k, .dv = a->head_dim_v,
                              .rope = rope->kind, .n_dims = rope->n_dims, .cos_ = r->cos[a->rope], .sin_ = r->sin[a->rope], .kv = kv->base,
                              .block_bytes = kv->block_bytes, .kv_type = kv->type, .table = r->table[a->group], .seq = r->seq, .pos = r->pos,
                              .rows = &r->step->n_rows, .table_stride = r->shape.max_blocks};
    run_launch(r, r->c->kernels.heads, a->n_heads + 2 * a->n_kv_heads, r->key.rows, 1, CUDA_THREADS, &args);
}

static void op_attend(struct run *run, const struct layer *l, const struct kv_view *kv)
{
    struct cuda_run *r = self(run);
    const struct attention *a = &l->attn;
    uint32_t tiles = r->key.tiles, seen = a->window ? (a->window - 1) / ATTENTION_TILE + 2 : tiles, heads = a->n_heads / a->n_kv_heads;
    tiles = seen < tiles ? seen : tiles;
    int most = heads == 1 ? 0 : heads <= 4 ? 1 : 2;
    uint32_t taken = most == 0 ? 1 : 4 * (uint32_t)most, turns = (heads + taken - 1) / taken;
    uint32_t spans = (a->head_dim_v + CUDA_HEAD_SPAN - 1) / CUDA_HEAD_SPAN;
    struct cuda_attend args = {.q = r->q, .out = r->att, .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .dk = a->head_dim_k, .dv = a->head_dim_v,
                               .window = a->window, .max_tiles = tiles, .scale = a->scale, .softcap = a->softcap, .kv = kv->base,
                               .block_bytes = kv->block_bytes, .table = r->table[a->group], .seq = r->seq, .pos = r->pos, .rows = &r->step->n_rows,
                               .table_stride = r->shape.max_blocks};
    size_t partial = (size_t)r->key.rows * a->n_heads * tiles * (a->head_dim_v + 2) * sizeof(float);
    if (tiles > 1 && r->key.rows <= SPLIT_ROWS && partial <= r->partial_bytes)
        args.partial = r->partial;
    run_launch(r, r->c->kernels.attend[kv->type][most], a->n_kv_heads * turns * spans, r->key.rows, args.partial ? tiles : 1, CUDA_THREADS, &args);
    if (args.partial)
        run_launch(r, r->c->kernels.attend_join, a->n_heads, r->key.rows, 1, CUDA_THREADS, &args);
}

/* x += norm(product + bias): the product adds to x itself where there is no norm. */
static void product_to_x(struct cuda_run *r, const float *f, const struct weight *w, const struct vec *bias, const struct norm *norm)
{
    struct operand x = rows_of(r, f);
    x.add = norm->weight.data == NULL;
    products(r, &x, &(struct product){w, bias, x.add ? r->x : r->t, false}, 1);
    struct cuda_join args = {.x = r->x, .t = r->t, .weight = norm->weight.data, .eps = norm->eps, .embd = r->shape.embd, .rows = &r->step->n_rows};
    if (!x.add)
        run_launch(r, r->c->kernels.join, r->key.rows, 1, 1, CUDA_ROW_THREADS, &args);
}

static void op_attn_out(struct run *run, const struct layer *l)
{
    struct cuda_run *r = self(run);
    if (run_skips(r))
        return;
    quantize_rows(r, (struct cuda_quantize){.x = r->att}, &l->out, false);
    product_to_x(r, r->att, &l->out, &l->out_bias, &l->attn_post_norm);
}

/* --- feed-forward --------------------------------------------------------------------------------------------------------- */

static void op_ffn_in(struct run *run, const struct layer *l)
{
    struct cuda_run *r = self(run);
    if (run_skips(r))
        return;
    norm_rows(r, &l->ffn_norm, false, wants_quantized(&l->gate) || wants_quantized(&l->up), false);
    struct operand x = rows_of(r, r->n);
    products(r, &x, (struct product[]){{&l->gate, NULL, r->gate, false}, {&l->up, NULL, r->up, false}}, 2);
    quantize_rows(r, (struct cuda_quantize){.x = r->gate, .up = r->up, .gelu = l->act == ACT_GELU}, &l->down, false);
}

static void op_ffn_out(struct run *run, const struct layer *l)
{
    struct cuda_run *r = self(run);
    if (!run_skips(r))
        product_to_x(r, r->gate, &l->down, NULL, &l->ffn_post_norm);
}

static void op_route(struct run *run, const struct layer *l)
{
    struct cuda_run *r = self(run);
    const struct experts *e = &l->experts;
    if (run_skips(r))
        return;
    norm_rows(r, &l->ffn_norm, false, wants_quantized(&e->router), false);
    struct operand x = rows_of(r, r->n);
    products(r, &x, &(struct product){&e->router, NULL, r->experts.router, false}, 1);
    struct cuda_choose choose = {.score = r->experts.router, .n = e->n, .n_used = e->n_used, .sigmoid = e->sigmoid, .normalize = e->normalize, .scale = e->scale,
                                 .expert = r->experts.expert, .weight = r->experts.weight, .rows = &r->step->n_rows};
    run_launch(r, r->c->kernels.choose, r->key.rows, 1, 1, 32, &choose);
    struct cuda_group group = {.expert = r->experts.expert, .spread = &r->step->spread, .n = e->n, .active = r->experts.active,
                               .first_tile = r->experts.first_tile, .count = r->experts.count, .at = r->experts.at};
    run_launch(r, r->c->kernels.group, 1, 1, 1, CUDA_ROW_THREADS, &group);
}

static void op_experts(struct run *run, const struct layer *l)
{
    struct cuda_run *r = self(run);
    if (run_skips(r))
        return;
    struct operand x = rows_of(r, r->t);
    x.experts = true;
    const struct weight *wants = wants_quantized(&l->gate) ? &l->gate : &l->up; /* either may be floats */
    quantize_rows(r, (struct cuda_quantize){.x = r->t, .from = r->n, .used = l->experts.n_used}, wants, true);
    products(r, &x, (struct product[]){{&l->gate, NULL, r->gate, false}, {&l->up, NULL, r->up, false}}, 2);
    quantize_rows(r, (struct cuda_quantize){.x = r->gate, .up = r->up, .gelu = l->act == ACT_GELU}, &l->down, true);
    x.f = r->gate;
    products(r, &x, &(struct product){&l->down, NULL, r->y, false}, 1);
    struct cuda_join args = {.x = r->x, .t = r->t, .weight = l->ffn_post_norm.weight.data, .eps = l->ffn_post_norm.eps, .embd = r->shape.embd,
                             .rows = &r->step->n_rows, .y = r->y, .choice_weight = r->experts.weight, .at = r->experts.at, .used = l->experts.n_used};
    run_launch(r, r->c->kernels.join, r->key.rows, 1, 1, CUDA_ROW_THREADS, &args);
}

/* Logits of up to LOGIT_ROWS wanted rows, whose norms begin at row `first`, to the device's buffer. */
static void logits_of(struct cuda_run *r, const struct head *head, uint32_t first, const uint32_t *rows, uint32_t most)
{
    size_t groups = (size_t)first * (head->out.cols / 32);
    struct cuda_acts acts = {.q = r->acts.q + groups * 32, .scales = r->acts.scales + groups * 2, .sums16 = r->acts.sums16 + groups * 2};
    struct operand x = {.f = r->n + (size_t)first * r->shape.embd, .acts = &acts, .rows = rows, .most = most};
    products(r, &x, &(struct product){&head->out, NULL, r->logits, false}, 1);
    struct cuda_softcap cap = {.x = r->logits, .cols = r->shape.n_vocab, .cap = head->softcap, .rows = rows};
    if (head->softcap != 0)
        run_launch(r, r->c->kernels.softcap, (r->shape.n_vocab + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS, most, 1, CUDA_ROW_THREADS, &cap);
}

void cuda_logits_of(struct cuda_run *r, uint32_t first)
{
    uint32_t n = r->batch.n_wanted - first < LOGIT_ROWS ? r->batch.n_wanted - first : LOGIT_ROWS;
    logits_of(r, r->head, first, &r->slabs[first / LOGIT_ROWS], n);
}

/* Many rows of logits would take much of a device's memory: they go through one buffer, and at once to the host; or they wait until
 * they are sampled. */
static void op_head(struct run *run, const struct head *head)
{
    struct cuda_run *r = self(run);
    const struct cuda_driver *d = r->c->d;
    size_t vocab = r->shape.n_vocab;
    r->head = head;
    if (run_skips(r) || r->key.wanted == 0)
        return;
    norm_rows(r, &head->norm, true, wants_quantized(&head->out), false);
    if (r->key.wanted <= LOGIT_ROWS) {
        logits_of(r, head, 0, &r->step->n_wanted, r->key.wanted);
        return;
    }
    for (uint32_t first = 0; first < r->batch.n_wanted && !r->batch.sampled; first += LOGIT_ROWS) {
        uint32_t n = r->batch.n_wanted - first < LOGIT_ROWS ? r->batch.n_wanted - first : LOGIT_ROWS;
        cuda_logits_of(r, first);
        if (!run_skips(r))
            run_check(r, d->copy_from_device(r->pages + first * vocab, (uint64_t)(uintptr_t)r->logits, n * vocab * sizeof(float), r->c->stream), "fetching logits");
    }
}

void cuda_layer_ops(struct backend_ops *ops)
{
    ops->embed = op_embed;
    ops->qkv = op_qkv;
    ops->rope_store = op_rope_store;
    ops->attend = op_attend;
    ops->attn_out = op_attn_out;
    ops->ffn_in = op_ffn_in;
    ops->ffn_out = op_ffn_out;
    ops->route = op_route;
    ops->experts = op_experts;
    ops->head = op_head;
}
