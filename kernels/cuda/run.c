/* A run on a device: its buffers, and its steps. A step of few rows is a graph: the first time that a bucket of rows comes, what
 * the operations enqueue is captured; from then on they do nothing, and finish launches the graph. All that differs between
 * steps of a bucket (how many rows, their sequences, positions, tokens) stands in memory at fixed places. Many rows are launched
 * kernel by kernel: launching is little beside computing them. */
#include "kernels/cuda/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* --- buffers -------------------------------------------------------------------------------------------------------------- */

/* Hands out pieces of one allocation; with base 0 only counts. */
struct carver {
    uint64_t base;
    size_t used;
};

enum { LINE = 256 };

static void *carve(struct carver *c, size_t count, size_t size)
{
    uint64_t at = c->base ? c->base + c->used : 0;
    c->used += (count * size + LINE - 1) / LINE * LINE;
    return (void *)(uintptr_t)at;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static size_t tiled(size_t rows)
{
    return (rows + CUDA_TILE - 1) / CUDA_TILE * CUDA_TILE;
}

/* Places of rows that experts compute: each begins a tile of its own. */
static size_t expert_places(const struct run_shape *s)
{
    size_t spread = (size_t)s->max_rows * s->n_experts_used, begun = spread < s->n_experts ? spread : s->n_experts;
    return s->n_experts ? tiled(spread + begun * (CUDA_TILE - 1)) : 0;
}

static void carve_acts(struct carver *c, struct cuda_acts *a, size_t rows, uint32_t cols, bool low)
{
    size_t groups = rows * (cols / 32);
    a->q = carve(c, groups * 32, 1);
    if (low)
        a->low = carve(c, groups * 32, 1);
    a->scales = carve(c, groups * 2, sizeof(float));
    a->sums16 = carve(c, groups * 2, sizeof(float));
}

static size_t partial_bytes(const struct run_shape *s)
{
    size_t tiles = (size_t)s->max_blocks * KV_BLOCK / ATTENTION_TILE + 2, rows = s->max_rows < SPLIT_ROWS ? s->max_rows : SPLIT_ROWS;
    size_t bytes = rows * tiles * (s->q_dim + 2 * (s->q_dim / max_u32(s->head_dim_v, 1) + 1)) * sizeof(float);
    return bytes < SPLIT_BYTES ? bytes : SPLIT_BYTES;
}

static size_t slabs_of(const struct run_shape *s)
{
    return s->max_wanted / LOGIT_ROWS + 1;
}

static size_t table_words(const struct run_shape *s)
{
    return (size_t)KV_GROUPS * s->max_seqs * s->max_blocks;
}

/* What the host sends at the start of a step comes first, in one piece. */
static void lay_out_step(struct cuda_run *r, struct carver *c)
{
    size_t rows = r->shape.max_rows, start = c->used;
    r->step = carve(c, 1, sizeof *r->step);
    r->seq = carve(c, rows, sizeof *r->seq);
    r->pos = carve(c, rows, sizeof *r->pos);
    r->wanted = carve(c, rows, sizeof *r->wanted);
    r->token = carve(c, rows, sizeof *r->token);
    r->slabs = carve(c, slabs_of(&r->shape), sizeof *r->slabs);
    r->entries = carve(c, 2 * TABLE_ENTRIES, sizeof *r->entries);
    r->step_bytes = c->used - start;
}

static void lay_out(struct cuda_run *r, struct carver *c)
{
    const struct run_shape *s = &r->shape;
    size_t rows = tiled(s->max_rows), places = expert_places(s), wide = places > rows ? places : rows;
    uint32_t widest = max_u32(max_u32(s->embd, s->q_dim), max_u32(s->ff_dim, s->v_dim));
    lay_out_step(r, c);
    r->table[0] = carve(c, table_words(s), sizeof(uint32_t)); /* in one piece: entries are counted through */
    for (int g = 1; g < KV_GROUPS; g++)
        r->table[g] = (uint32_t *)((uintptr_t)r->table[0] + g * table_words(s) / KV_GROUPS * sizeof(uint32_t)); /* from 0, too: when counting */
    for (uint32_t i = 0; i < s->n_ropes; i++) {
        r->freq[i] = carve(c, s->ropes[i].n_dims / 2, sizeof(double));
        r->cos[i] = carve(c, rows * (s->ropes[i].n_dims / 2), sizeof(float));
        r->sin[i] = carve(c, rows * (s->ropes[i].n_dims / 2), sizeof(float));
    }
    r->x = carve(c, rows * s->embd, sizeof(float));
    r->n = carve(c, rows * s->embd, sizeof(float));
    r->q = carve(c, rows * s->q_dim, sizeof(float));
    r->k = carve(c, rows * s->k_dim, sizeof(float));
    r->v = carve(c, rows * s->v_dim, sizeof(float));
    r->att = carve(c, rows * s->q_dim, sizeof(float));
    r->gate = carve(c, wide * s->ff_dim, sizeof(float));
    r->up = carve(c, wide * s->ff_dim, sizeof(float));
    r->t = carve(c, wide * s->embd, sizeof(float));
    r->y = carve(c, places * s->embd, sizeof(float));
    r->logits = carve(c, tiled(s->max_wanted < LOGIT_ROWS ? s->max_wanted : LOGIT_ROWS) * s->n_vocab, sizeof(float));
    if (s->n_experts) {
        struct expert_lists *e = &r->experts;
        size_t spread = (size_t)s->max_rows * s->n_experts_used;
        e->router = carve(c, rows * s->n_experts, sizeof(float));
        e->expert = carve(c, spread, sizeof(uint32_t));
        e->weight = carve(c, spread, sizeof(float));
        e->at = carve(c, spread, sizeof(uint32_t));
        e->active = carve(c, s->n_experts + 1, sizeof(uint32_t));
        e->first_tile = carve(c, s->n_experts, sizeof(uint32_t));
        e->count = carve(c, s->n_experts, sizeof(uint32_t));
    }
    carve_acts(c, &r->acts, wide, widest, false);
    carve_acts(c, &r->acts16, rows, s->embd, true);
    r->partial_bytes = partial_bytes(s);
    r->partial = carve(c, r->partial_bytes, 1);
    if (r->c->blas)
        r->narrow = carve(c, rows * widest, sizeof *r->narrow);
    if (s->n_vocab) {
        size_t up, back, listed = (size_t)(s->max_wanted < SAMPLE_AT_ONCE ? s->max_wanted : SAMPLE_AT_ONCE) * CUDA_SAMPLE_LIST;
        cuda_sample_bytes(s, &up, &back);
        r->ask = carve(c, up, 1);
        r->told = carve(c, back, 1);
        r->list_logit = carve(c, listed, sizeof(float));
        r->list_id = carve(c, listed, sizeof(uint32_t));
    }
}

size_t cuda_run_bytes(struct backend *b, const struct run_shape *shape)
{
    struct cuda_run r = {.c = (struct cuda *)b, .shape = *shape};
    struct carver counter = {0};
    lay_out(&r, &counter);
    return counter.used;
}

static void *pinned(struct cuda_run *r, size_t bytes, struct err *err)
{
    void *ret = NULL;
    cuda_check(r->c->d, r->c->d->host_alloc(&ret, bytes ? bytes : 1, 0), err, "%zu bytes of pinned memory", bytes);
    return ret;
}

static int make_host(struct cuda_run *r, struct err *err)
{
    const struct run_shape *s = &r->shape;
    uint32_t few = s->max_wanted < PINNED_LOGITS ? s->max_wanted : PINNED_LOGITS;
    size_t up, back;
    cuda_sample_bytes(s, &up, &back);
    if (!(r->host_step = pinned(r, r->step_bytes, err)) || !(r->host_table = pinned(r, table_words(s) * sizeof(uint32_t), err)) ||
        !(r->host_x = pinned(r, (size_t)s->max_rows * s->embd * sizeof(float), err)) ||
        !(r->host_logits = pinned(r, (size_t)few * s->n_vocab * sizeof(float), err)) ||
        !(r->host_normed = pinned(r, (size_t)s->max_wanted * s->embd * sizeof(float), err)) || !(r->host_ask = pinned(r, up, err)) ||
        !(r->host_told = pinned(r, back, err)))
        return -1;
    r->pages_bytes = (size_t)s->max_wanted * s->n_vocab * sizeof(float);
    if (s->max_wanted > few && !(r->pages = mem_pages_alloc(r->pages_bytes, err)))
        return -1;
    memset(r->host_step, 0, r->step_bytes);
    memset(r->host_table, 0xff, table_words(s) * sizeof(uint32_t)); /* no block: what is used differs, and is sent */
    return 0;
}

/* Tables of no block, frequencies; nothing else is read before it is written. */
static int fill_device(struct cuda_run *r, struct err *err)
{
    const struct backend_ops *op = r->run.ops;
    for (uint32_t i = 0; i < r->shape.n_ropes; i++)
        if (r->shape.ropes[i].freq && op->write(&r->c->backend, r->freq[i], r->shape.ropes[i].freq, r->shape.ropes[i].n_dims / 2 * sizeof(double), err) != 0)
            return -1;
    return op->write(&r->c->backend, r->table[0], r->host_table, table_words(&r->shape) * sizeof(uint32_t), err);
}

struct run *cuda_run_create(struct backend *b, const struct run_shape *shape, struct err *err)
{
    struct cuda_run *r;
    if (shape->head_dim_v > CUDA_HEAD_MAX || shape->n_experts > CUDA_EXPERTS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "heads of %u dimensions and %u experts: a CUDA device computes up to %d and %d", shape->head_dim_v, shape->n_experts,
                       CUDA_HEAD_MAX, CUDA_EXPERTS_MAX), NULL;
    if (!(r = mem_new(1, sizeof *r, err)))
        return NULL;
    r->run = (struct run){.ops = b->ops, .backend = b};
    r->c = (struct cuda *)b;
    r->shape = *shape;
    r->memory_bytes = cuda_run_bytes(b, shape);
    if (!(r->memory = cuda_take(r->c, r->memory_bytes, "scratch of a stage", err))) {
        err_wrap(err, "scratch for %u rows", shape->max_rows);
        free(r);
        return NULL;
    }
    struct carver c = {.base = r->memory};
    lay_out(r, &c);
    if (make_host(r, err) != 0 || fill_device(r, err) != 0) {
        cuda_run_destroy(&r->run);
        return NULL;
    }
    return &r->run;
}

static void drop_graph(struct cuda_run *r, struct graph *g)
{
    if (g->exec)
        r->c->d->graph_exec_destroy(g->exec);
    *g = (struct graph){0};
}

void cuda_run_destroy(struct run *run)
{
    struct cuda_run *r = (struct cuda_run *)run;
    void *host[] = {r ? r->host_step : NULL, r ? r->host_table : NULL, r ? r->host_x : NULL, r ? r->host_logits : NULL, r ? r->host_normed : NULL,
                    r ? r->host_ask : NULL,  r ? r->host_told : NULL};
    if (!r)
        return;
    if (cuda_enter(r->c, NULL) == 0) {
        r->c->d->stream_wait(r->c->stream);
        for (int i = 0; i < GRAPHS; i++)
            drop_graph(r, &r->graphs[i]);
        for (size_t i = 0; i < sizeof host / sizeof *host; i++)
            if (host[i])
                r->c->d->host_free(host[i]);
        r->c->d->mem_free(r->memory);
    }
    mem_pages_free(r->pages, r->pages_bytes);
    free(r);
}

/* --- a step --------------------------------------------------------------------------------------------------------------- */

static struct cuda_run *self(struct run *run)
{
    return (struct cuda_run *)run;
}

bool run_skips(const struct cuda_run *r)
{
    return r->mode == STEP_REPLAYED || r->err.kind != ERR_NONE;
}

void run_check(struct cuda_run *r, int rc, const char *what)
{
    if (rc != 0 && r->err.kind == ERR_NONE)
        cuda_check(r->c->d, rc, &r->err, "%s on cuda:%u", what, r->c->device.index);
}

void run_launch(struct cuda_run *r, void *kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, const void *args)
{
    if (!run_skips(r) && x && y && z)
        cuda_launch(r->c, kernel, (uint32_t[]){x, y, z}, threads, args, r->c->stream, &r->err);
}

static uint32_t bucket(uint32_t n)
{
    uint32_t b = 1;
    while (b < n)
        b *= 2;
    return n ? b : 0;
}

/* The host's place of something that is at `device` in the step's piece. */
static void *host_of(struct cuda_run *r, const void *device)
{
    return r->host_step + ((uint64_t)(uintptr_t)device - (uint64_t)(uintptr_t)r->step);
}

/* Brings host_table up to the batch's tables and lists what is new; -1: it is more than the list holds. */
static int list_entries(struct cuda_run *r, const struct batch *b)
{
    const struct run_shape *s = &r->shape;
    uint32_t *list = host_of(r, r->entries), n = 0, whole = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        if (i + 1 < b->n_rows && b->seq[i + 1] == b->seq[i] && b->pos[i + 1] > b->pos[i])
            continue; /* the last of a sequence's rows sees the most */
        for (int g = 0; g < KV_GROUPS; g++) {
            const uint32_t *from = b->table[g] + (size_t)b->seq[i] * b->table_stride;
            uint32_t at = ((uint32_t)g * s->max_seqs + b->seq[i]) * s->max_blocks, entries = b->pos[i] / KV_BLOCK + 1;
            if (memcmp(r->host_table + at, from, entries * sizeof *from) == 0)
                continue;
            for (uint32_t e = 0; e < entries; e++) {
                if (r->host_table[at + e] == from[e])
                    continue;
                r->host_table[at + e] = from[e];
                whole |= n == TABLE_ENTRIES;
                if (n < TABLE_ENTRIES) {
                    list[2 * n] = at + e;
                    list[2 * n++ + 1] = from[e];
                }
            }
        }
    }
    ((struct cuda_step *)host_of(r, r->step))->n_entries = whole ? 0 : n;
    return whole ? -1 : 0;
}

static uint32_t tiles_of_step(const struct cuda_run *r)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < r->batch.n_rows; i++)
        most = max_u32(most, r->batch.pos[i] / ATTENTION_TILE + 1);
    return most;
}

static struct graph *find_graph(struct cuda_run *r)
{
    for (int i = 0; i < GRAPHS; i++)
        if (r->graphs[i].exec && memcmp(&r->graphs[i].key, &r->key, sizeof r->key) == 0)
            return &r->graphs[i];
    return NULL;
}

static void choose_mode(struct cuda_run *r)
{
    r->key = (struct graph_key){r->batch.n_rows, r->batch.n_wanted, tiles_of_step(r)};
    r->mode = STEP_DIRECT;
    r->graph = NULL;
    if (r->c->no_graphs || r->batch.n_rows > GRAPH_ROWS)
        return;
    struct graph_key exact = r->key;
    r->key = (struct graph_key){bucket(exact.rows), bucket(exact.wanted), bucket(exact.tiles)};
    r->key.rows = r->key.rows < r->shape.max_rows ? r->key.rows : r->shape.max_rows;
    r->key.wanted = r->key.wanted < r->shape.max_wanted ? r->key.wanted : r->shape.max_wanted;
    if ((r->graph = find_graph(r))) {
        r->mode = STEP_REPLAYED;
        r->graph->used = r->steps;
    } else if (r->c->d->stream_begin_capture(r->c->stream, CUDA_CAPTURE_THREAD_LOCAL) == 0) {
        r->mode = STEP_CAPTURED;
    } else {
        r->c->no_graphs = true; /* this driver has none */
    }
}

static void copy_lists(struct cuda_run *r)
{
    const struct batch *b = &r->batch;
    struct cuda_step *step = host_of(r, r->step);
    step->n_rows = b->n_rows;
    step->n_wanted = b->n_wanted;
    step->spread = b->n_rows * r->shape.n_experts_used;
    uint32_t *slab = host_of(r, r->slabs);
    for (uint32_t i = 0; i * LOGIT_ROWS < b->n_wanted; i++)
        slab[i] = b->n_wanted - i * LOGIT_ROWS < LOGIT_ROWS ? b->n_wanted - i * LOGIT_ROWS : LOGIT_ROWS;
    memcpy(host_of(r, r->seq), b->seq, b->n_rows * sizeof *b->seq);
    memcpy(host_of(r, r->pos), b->pos, b->n_rows * sizeof *b->pos);
    memcpy(host_of(r, r->token), b->token, b->n_rows * sizeof *b->token);
    if (b->n_wanted)
        memcpy(host_of(r, r->wanted), b->wanted, b->n_wanted * sizeof *b->wanted);
}

static void enqueue_start(struct cuda_run *r)
{
    struct cuda *c = r->c;
    if (run_skips(r))
        return;
    run_check(r, c->d->copy_to_device((uint64_t)(uintptr_t)r->step, r->host_step, r->step_bytes, c->stream), "bringing a step's rows");
    struct cuda_tables tables = {.entry = r->entries, .n = &r->step->n_entries, .table = r->table[0]};
    run_launch(r, c->kernels.tables, 1, 1, 1, CUDA_THREADS, &tables);
    for (uint32_t i = 0; i < r->shape.n_ropes; i++) {
        uint32_t half = r->shape.ropes[i].n_dims / 2;
        struct cuda_angles angles = {.freq = r->freq[i], .pos = r->pos, .cos_ = r->cos[i], .sin_ = r->sin[i], .half = half,
                                     .scale = r->shape.ropes[i].scale, .rows = &r->step->n_rows};
        run_launch(r, c->kernels.angles, (half + CUDA_THREADS - 1) / CUDA_THREADS, r->key.rows, 1, CUDA_THREADS, &angles);
    }
}

void run_start(struct cuda_run *r)
{
    if (r->err.kind != ERR_NONE)
        return;
    choose_mode(r);
    enqueue_start(r);
}

/* The rest of a step's beginning waits for its rows. */
static void op_begin(struct run *run, const struct batch *batch)
{
    struct cuda_run *r = self(run);
    r->batch = *batch;
    r->err = (struct err){0};
    r->send_to = NULL;
    r->graph = NULL;
    r->steps++;
    r->mode = STEP_DIRECT;
    run_check(r, r->c->copies_failed, "copying blocks");
    r->c->copies_failed = 0;
    if (r->err.kind != ERR_NONE || cuda_enter(r->c, &r->err) != 0)
        return;
    copy_lists(r);
    if (list_entries(r, batch) != 0) {
        size_t words = table_words(&r->shape);
        run_check(r, r->c->d->copy_to_device((uint64_t)(uintptr_t)r->table[0], r->host_table, words * sizeof(uint32_t), r->c->stream), "bringing tables");
    }
}

static size_t rows_bytes(const struct cuda_run *r)
{
    return (size_t)r->batch.n_rows * r->shape.embd * sizeof(float);
}

/* Where rows come from and go to differs between steps, so that their copies stand before and behind the graph. */
static void op_set_hidden(struct run *run, const float *rows)
{
    struct cuda_run *r = self(run);
    memcpy(r->host_x, rows, rows_bytes(r));
    if (!run_skips(r))
        run_check(r, r->c->d->copy_to_device((uint64_t)(uintptr_t)r->x, r->host_x, rows_bytes(r), r->c->stream), "bringing rows");
    run_start(r);
}

static void op_set_hidden_here(struct run *run, const void *rows)
{
    struct cuda_run *r = self(run);
    if (!run_skips(r))
        run_check(r, r->c->d->copy_within((uint64_t)(uintptr_t)r->x, (uint64_t)(uintptr_t)rows, rows_bytes(r), r->c->stream), "taking rows");
    run_start(r);
}

static void op_send_hidden(struct run *run, struct backend *to, void *rows)
{
    struct cuda_run *r = self(run);
    r->send_to = (struct cuda *)to;
    r->send_rows = rows;
}

/* --- its end -------------------------------------------------------------------------------------------------------------- */

static bool has_head(const struct cuda_run *r)
{
    return r->shape.n_vocab != 0;
}

/* To the next stage's device, or here for whoever wants them. */
static void fetch_rows(struct cuda_run *r)
{
    struct cuda *c = r->c, *to = r->send_to;
    uint64_t x = (uint64_t)(uintptr_t)r->x;
    if (r->err.kind != ERR_NONE || has_head(r))
        return;
    if (to)
        run_check(r, c->d->copy_between((uint64_t)(uintptr_t)r->send_rows, to->context, x, c->context, rows_bytes(r), c->stream), "sending rows");
    else
        run_check(r, c->d->copy_from_device(r->host_x, x, rows_bytes(r), c->stream), "fetching rows");
}

/* What only the rows that were asked for have, behind the graph. */
static void fetch_logits(struct cuda_run *r)
{
    struct cuda *c = r->c;
    size_t n = r->batch.n_wanted, vocab = r->shape.n_vocab;
    if (!has_head(r) || n == 0 || r->err.kind != ERR_NONE)
        return;
    float *to = n <= PINNED_LOGITS || !r->pages ? r->host_logits : r->pages;
    if (!r->batch.sampled && n <= LOGIT_ROWS) /* else the head has, piece by piece */
        run_check(r, c->d->copy_from_device(to, (uint64_t)(uintptr_t)r->logits, n * vocab * sizeof(float), c->stream), "fetching logits");
    if (r->batch.normed)
        run_check(r, c->d->copy_from_device(r->host_normed, (uint64_t)(uintptr_t)r->n, n * r->shape.embd * sizeof(float), c->stream), "fetching rows");
}

/* A place for one more graph: the one that was not used for the longest time. */
static struct graph *graph_place(struct cuda_run *r)
{
    struct graph *oldest = &r->graphs[0];
    for (int i = 0; i < GRAPHS; i++) {
        if (!r->graphs[i].exec)
            return &r->graphs[i];
        if (r->graphs[i].used < oldest->used)
            oldest = &r->graphs[i];
    }
    drop_graph(r, oldest);
    return oldest;
}

/* Graphs take memory of the device's: where there is none left, it is that of the others, and at last there are none any more. */
static int instantiate(struct cuda_run *r, void *graph, void **ret)
{
    int rc = r->c->d->graph_instantiate(ret, graph, 0);
    if (rc == CUDA_ERROR_OUT_OF_MEMORY) {
        for (int i = 0; i < GRAPHS; i++)
            drop_graph(r, &r->graphs[i]);
        rc = r->c->d->graph_instantiate(ret, graph, 0);
    }
    r->c->no_graphs = r->c->no_graphs || rc != 0;
    return rc;
}

/* Ends the capture, whatever happened in it. */
static void keep_graph(struct cuda_run *r)
{
    void *graph = NULL, *exec = NULL;
    run_check(r, r->c->d->stream_end_capture(r->c->stream, &graph), "capturing a step");
    if (r->err.kind == ERR_NONE)
        run_check(r, instantiate(r, graph, &exec), "making a graph of a step");
    if (graph)
        r->c->d->graph_destroy(graph);
    if (r->err.kind != ERR_NONE)
        return;
    r->graph = graph_place(r);
    *r->graph = (struct graph){r->key, exec, r->steps};
}

static int op_finish(struct run *run, struct err *err)
{
    struct cuda_run *r = self(run);
    if (r->mode == STEP_CAPTURED)
        keep_graph(r);
    if (r->graph && r->err.kind == ERR_NONE)
        run_check(r, r->c->d->graph_launch(r->graph->exec, r->c->stream), "launching a step");
    fetch_rows(r);
    fetch_logits(r);
    run_check(r, r->c->d->stream_wait(r->c->stream), "a step");
    r->mode = STEP_DIRECT;
    if (r->err.kind == ERR_NONE)
        return 0;
    /* Nobody knows which table entries came there: all are brought anew. */
    memset(r->host_table, 0xff, table_words(&r->shape) * sizeof(uint32_t));
    if (err)
        *err = r->err;
    return -1;
}

static const float *op_hidden(struct run *run)
{
    struct cuda_run *r = self(run);
    if (has_head(r)) /* nobody's way, but to be had */
        r->run.ops->read(&r->c->backend, r->host_x, r->x, (size_t)r->batch.n_rows * r->shape.embd * sizeof(float), NULL);
    return r->host_x;
}

static const float *op_logits(struct run *run, uint32_t wanted_index)
{
    struct cuda_run *r = self(run);
    const float *from = r->batch.n_wanted <= PINNED_LOGITS || !r->pages ? r->host_logits : r->pages;
    return from + (size_t)wanted_index * r->shape.n_vocab;
}

static const float *op_normed(struct run *run, uint32_t wanted_index)
{
    return self(run)->host_normed + (size_t)wanted_index * self(run)->shape.embd;
}

void cuda_run_ops(struct backend_ops *ops)
{
    ops->begin = op_begin;
    ops->set_hidden = op_set_hidden;
    ops->set_hidden_here = op_set_hidden_here;
    ops->send_hidden = op_send_hidden;
    ops->finish = op_finish;
    ops->hidden = op_hidden;
    ops->logits = op_logits;
    ops->normed = op_normed;
    ops->sample = cuda_sample;
    cuda_layer_ops(ops);
}
