/* See weights.h.
 *
 * Two walks over the range's tensors: the first counts what each part (a layer, the embedding, the head, the small vectors)
 * needs and sees which parts the previous weights have; the second gives every matrix and vector its place and lists the
 * pieces to read. loader.c brings them there. */
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/loader.h"
#include "model/place.h"

enum { ALIGN = 64, PIECE_ROWS = 16, PAGE = 4096 };

/* After the layers. */
enum { PART_EMBED, PART_HEAD, PART_VECTORS, PARTS };

struct part {
    char *pages;
    size_t bytes;
    bool huge_late;
};

struct weights_memory {
    struct backend *be; /* whose memory it is */
    struct part *parts; /* the layers', then PARTS */
    bool has_id;
    unsigned char id[GGUF_ID_BYTES];
};

struct layout {
    const struct model_params *p;
    struct backend *be;
    uint32_t first, last;
    bool place;        /* the second walk */
    struct weights *w; /* NULL: only count */
    const struct weights *previous;
    uint64_t *used; /* bytes of each part */
    bool *kept;     /* the part is taken from previous */
    uint32_t range_bytes;
    uint64_t each; /* where experts in tensors of their own began */
    struct load_piece *pieces;
    size_t n_pieces, cap_pieces;
};

static uint32_t n_parts(const struct layout *l)
{
    return l->last - l->first + PARTS;
}

static uint32_t part_of(const struct layout *l, const struct model_tensor *t)
{
    uint32_t n = l->last - l->first;
    switch (t->place) {
    case PLACE_LAYER: return t->layer - l->first;
    case PLACE_EMBED: return n + PART_EMBED;
    case PLACE_HEAD: return n + PART_HEAD;
    default: return n + PART_VECTORS;
    }
}

static uint64_t take(struct layout *l, uint32_t part, uint64_t bytes)
{
    uint64_t at = (l->used[part] + ALIGN - 1) / ALIGN * ALIGN;
    l->used[part] = at + bytes;
    return at;
}

static int add_piece(struct layout *l, struct load_piece p, struct err *err)
{
    if (mem_grow(&l->pieces, &l->cap_pieces, l->n_pieces + 1, sizeof *l->pieces, SIZE_MAX, "pieces to read", err) != 0)
        return -1;
    l->pieces[l->n_pieces++] = p;
    return 0;
}

/* --- places ------------------------------------------------------------------------------------------------------------- */

/* One matrix of w->rows rows whose first is row `file_row` of the tensor: pieces of whole rows. */
static int lay_matrix(struct layout *l, const struct gguf_tensor *t, uint64_t file_row, const struct weight *w, char *to, struct err *err)
{
    uint32_t step = (uint32_t)(l->range_bytes / w->row_bytes) / PIECE_ROWS * PIECE_ROWS;
    step = step ? step : PIECE_ROWS;
    for (uint32_t r = 0; r < w->rows; r += step) {
        uint32_t n = w->rows - r < step ? w->rows - r : step;
        struct load_piece piece = {t, t->offset + (file_row + r) * w->row_bytes, (uint32_t)(n * w->row_bytes), r, n, w->cols, to};
        if (add_piece(l, piece, err) != 0)
            return -1;
    }
    return 0;
}

static struct weight describe(const struct layout *l, const struct gguf_tensor *t, uint32_t rows, uint32_t mats)
{
    uint32_t cols = (uint32_t)t->dims[0];
    size_t mat_bytes = l->be->ops->weight_bytes(l->be, t->type, rows, cols);
    return (struct weight){.type = t->type, .layout = l->be->ops->weight_layout(l->be, t->type), .rows = rows, .cols = cols, .mats = mats,
                           .row_bytes = (size_t)quant_bytes(t->type, cols), .mat_bytes = (mat_bytes + ALIGN - 1) / ALIGN * ALIGN};
}

/* Whether two matrices lie the same way. */
static bool same_form(const struct weight *a, const struct weight *b)
{
    return b->data && a->type == b->type && a->layout == b->layout && a->rows == b->rows && a->cols == b->cols && a->mats == b->mats &&
           a->mat_bytes == b->mat_bytes;
}

/* Rows [first, first + w->rows) of each of a tensor's matrices, or the one matrix of expert `expert`, to *member; old: the
 * same in the previous weights, NULL where there is none. */
static int lay_weight(struct layout *l, const struct model_tensor *t, uint32_t first, struct weight w, struct weight *member,
                      const struct weight *old, struct err *err)
{
    uint32_t part = part_of(l, t);
    uint64_t at = t->whole || t->expert == 0 ? take(l, part, w.mats * w.mat_bytes) : l->each;
    l->each = at;
    if (!l->place) {
        if (old && !same_form(&w, old))
            l->kept[part] = false;
        return 0;
    }
    if (l->kept[part]) {
        *member = *old;
        return 0;
    }
    char *base = l->w->memory->parts[part].pages + at;
    w.data = base;
    *member = w;
    for (uint32_t m = t->whole ? 0 : t->expert; m < (t->whole ? w.mats : t->expert + 1); m++) {
        uint64_t file_row = first + (t->whole ? (uint64_t)m * t->tensor->dims[1] : 0);
        if (lay_matrix(l, t->tensor, file_row, &w, base + m * w.mat_bytes, err) != 0)
            return -1;
    }
    return 0;
}

/* old: the vector in the previous weights. */
static int lay_vec(struct layout *l, const struct model_tensor *t, const float **ret, const float *old, struct err *err)
{
    const struct gguf_tensor *tensor = t->tensor;
    uint32_t part = part_of(l, t);
    uint64_t at = take(l, part, 4 * tensor->dims[0]);
    if (!l->place)
        return 0;
    if (l->kept[part]) {
        *ret = old;
        return 0;
    }
    char *to = l->w->memory->parts[part].pages + at;
    *ret = (const float *)to;
    return add_piece(l, (struct load_piece){.tensor = tensor, .offset = tensor->offset, .bytes = (uint32_t)tensor->bytes, .to = to}, err);
}

/* The layer in the previous weights, if it may be kept. */
static const struct layer *old_layer(const struct layout *l, uint32_t layer)
{
    if (!l->previous || !l->kept[layer - l->first])
        return NULL;
    return &l->previous->layers[layer - l->previous->first];
}

/* A layer's tensor goes to the members of struct layer that its rule names. */
static int lay_layer_tensor(struct layout *l, const struct model_tensor *t, struct err *err)
{
    const struct tensor_rule *rule = t->rule;
    struct layer unused = {0}, *layer = l->place ? &l->w->layers[t->layer - l->first] : &unused;
    const struct layer *old = old_layer(l, t->layer);
    uint32_t row = 0;
    const float *floats = NULL;
    if (rule->parts[0].kind == PART_VEC) {
        const struct vec *vec = old ? (const void *)((const char *)old + rule->parts[0].offset) : NULL;
        if (lay_vec(l, t, &floats, vec ? vec->data : NULL, err) != 0)
            return -1;
    }
    for (int i = 0; i < 3 && rule->parts[i].kind != PART_NONE; i++) {
        uint32_t share = (uint32_t)model_dim(l->p, rule->parts[i].dim);
        void *member = (char *)layer + rule->parts[i].offset;
        const void *same = old ? (const char *)old + rule->parts[i].offset : NULL;
        if (rule->parts[i].kind == PART_VEC) {
            if (l->place)
                *(struct vec *)member = (struct vec){floats + row, share};
        } else if (lay_weight(l, t, row, describe(l, t->tensor, share, rule->each ? l->p->n_experts : 1), member, same, err) != 0) {
            return -1;
        }
        row += share;
    }
    return 0;
}

static int lay_tensor(void *arg, const struct model_tensor *t, struct err *err)
{
    struct layout *l = arg;
    struct weights unused = {0}, *w = l->place ? l->w : &unused;
    const struct weights *old = l->previous && l->kept[part_of(l, t)] ? l->previous : NULL;
    uint32_t rows = (uint32_t)t->tensor->dims[1];
    switch (t->place) {
    case PLACE_LAYER: return lay_layer_tensor(l, t, err);
    case PLACE_HEAD: return lay_weight(l, t, 0, describe(l, t->tensor, rows, 1), &w->head.out, old ? &old->head.out : NULL, err);
    case PLACE_EMBED:
        if (lay_weight(l, t, 0, describe(l, t->tensor, rows, 1), &w->embed, old ? &old->embed : NULL, err) != 0)
            return -1;
        if (l->p->tied)
            w->head.out = w->embed;
        return 0;
    /* The small vectors are read anew each time: they are some kilobytes. */
    case PLACE_HEAD_NORM: w->head.norm.weight.n = l->p->embd; return lay_vec(l, t, &w->head.norm.weight.data, NULL, err);
    case PLACE_ROPE_FREQS: return lay_vec(l, t, &w->rope_freqs, NULL, err);
    case PLACE_ROPE_LONG: return lay_vec(l, t, &w->rope_long, NULL, err);
    case PLACE_ROPE_SHORT: return lay_vec(l, t, &w->rope_short, NULL, err);
    }
    return 0;
}

/* --- counting ----------------------------------------------------------------------------------------------------------- */

static int layout_init(struct layout *l, struct err *err)
{
    if (l->first > l->last || l->last > l->p->n_layers)
        return err_set(err, ERR_USAGE, "layers %u to %u asked for, the model has %u", l->first, l->last, l->p->n_layers);
    if (!(l->used = mem_new(n_parts(l), sizeof *l->used, err)) || !(l->kept = mem_new(n_parts(l), sizeof *l->kept, err)))
        return -1;
    return 0;
}

static void layout_fini(struct layout *l)
{
    free(l->used);
    free(l->kept);
    free(l->pieces);
}

/* Every part has pages of its own. */
static uint64_t layout_bytes(const struct layout *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n_parts(l); i++)
        sum += (l->used[i] + PAGE - 1) / PAGE * PAGE;
    return sum;
}

int weights_bytes(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head, struct backend *be,
                  uint64_t *ret, struct err *err)
{
    struct layout l = {.p = p, .be = be, .first = first, .last = last};
    int rc = layout_init(&l, err);
    if (rc == 0 && (rc = model_tensors(g, p, first, last, embed, head, lay_tensor, &l, err)) == 0)
        *ret = layout_bytes(&l);
    layout_fini(&l);
    return rc;
}

/* --- previous weights ----------------------------------------------------------------------------------------------------- */

static struct part *part_at(const struct weights *w, uint32_t n)
{
    return &w->memory->parts[n];
}

static uint32_t n_layers(const struct weights *w)
{
    return w->last - w->first;
}

/* Which parts the previous weights could give; the first walk takes back those that lie another way there. */
static void hope(struct layout *l, const struct weights_options *o)
{
    const struct weights *old = o->previous;
    uint32_t n = l->last - l->first;
    if (!old || !o->model_id || !old->memory->has_id || memcmp(old->memory->id, o->model_id, GGUF_ID_BYTES) != 0)
        return;
    l->previous = old;
    for (uint32_t i = l->first; i < l->last; i++)
        l->kept[i - l->first] = i >= old->first && i < old->last && part_at(old, i - old->first)->pages;
    l->kept[n + PART_EMBED] = part_at(old, n_layers(old) + PART_EMBED)->pages != NULL;
    l->kept[n + PART_HEAD] = part_at(old, n_layers(old) + PART_HEAD)->pages != NULL;
}

/* Now that nothing can fail any more: the kept parts' memory changes hands. */
static void move_parts(struct layout *l)
{
    struct weights *w = l->w;
    const struct weights *old = l->previous;
    for (uint32_t i = 0; i < n_parts(l); i++) {
        if (!l->kept[i])
            continue;
        uint32_t there = i < n_layers(w) ? w->first + i - old->first : n_layers(old) + (i - n_layers(w));
        *part_at(w, i) = *part_at(old, there);
        *part_at(old, there) = (struct part){0};
        w->kept_bytes += part_at(w, i)->bytes;
    }
}

static void free_part(struct weights *w, uint32_t n)
{
    struct part *part = part_at(w, n);
    if (part->pages)
        w->memory->be->ops->free(w->memory->be, part->pages, part->bytes);
    *part = (struct part){0};
}

void weights_shrink(struct weights *w, uint32_t first, uint32_t last, bool embed, bool head)
{
    for (uint32_t i = 0; i < n_layers(w); i++)
        if (w->first + i < first || w->first + i >= last)
            free_part(w, i);
    /* Tied weights stand in the embedding's part, and serve a head, too. */
    bool tied = w->head.out.data && w->head.out.data == w->embed.data;
    if (!embed && !(head && (tied || !w->has_head)))
        free_part(w, n_layers(w) + PART_EMBED);
    if (!head)
        free_part(w, n_layers(w) + PART_HEAD);
    free_part(w, n_layers(w) + PART_VECTORS);
}

/* --- loading -------------------------------------------------------------------------------------------------------------- */

static struct weights *create(const struct layout *l, const struct weights_options *o, struct err *err)
{
    struct weights *w = mem_new(1, sizeof *w, err);
    if (!w)
        return NULL;
    w->first = l->first;
    w->last = l->last;
    if (!(w->memory = mem_new(1, sizeof *w->memory, err)) || !(w->memory->parts = mem_new(n_parts(l), sizeof *w->memory->parts, err)) ||
        !(w->layers = mem_new(l->last - l->first, sizeof *w->layers, err))) {
        weights_destroy(w);
        return NULL;
    }
    w->memory->be = l->be;
    w->head.norm.eps = l->p->norm_eps;
    w->head.softcap = l->p->final_softcap;
    for (uint32_t i = l->first; i < l->last; i++)
        model_layer_init(l->p, i, &w->layers[i - l->first]);
    if (o->model_id) {
        w->memory->has_id = true;
        memcpy(w->memory->id, o->model_id, GGUF_ID_BYTES);
    }
    return w;
}

/* Of the host's memory: spread over its nodes, but for a backend that has processors near one of them. */
static void place_part(const struct layout *l, struct part *part)
{
    if (!l->be->ops->host_memory)
        return;
    if (!backend_cpu_is_part(l->be))
        place_pages(part->pages, part->bytes);
    part->huge_late = place_huge(part->pages, part->bytes);
}

static int make_parts(struct layout *l, struct err *err)
{
    for (uint32_t i = 0; i < n_parts(l); i++) {
        struct part *part = part_at(l->w, i);
        if (l->kept[i] || l->used[i] == 0)
            continue;
        if (!(part->pages = l->be->ops->alloc(l->be, l->used[i], err)))
            return err_wrap(err, "weights of %s %u", i < n_layers(l->w) ? "layer" : "part", i < n_layers(l->w) ? l->first + i : i - n_layers(l->w));
        part->bytes = (size_t)l->used[i];
        place_part(l, part);
    }
    return 0;
}

static int read_pieces(struct layout *l, struct weight_source *source, struct threadpool *pool, const struct weights_options *o, struct err *err)
{
    struct load_job job = {.backend = l->be, .source = source, .pool = pool, .pieces = l->pieces, .n_pieces = l->n_pieces, .progress = o->progress,
                           .progress_arg = o->progress_arg, .report = o->report};
    return l->n_pieces ? loader_run(&job, err) : 0;
}

/* The walks, and what is between them; the layout's w is complete on success. */
static int fill(struct layout *l, const struct gguf *g, bool embed, bool head, struct weight_source *source, struct threadpool *pool,
                const struct weights_options *o, struct err *err)
{
    hope(l, o);
    if (model_tensors(g, l->p, l->first, l->last, embed, head, lay_tensor, l, err) != 0 || !(l->w = create(l, o, err)))
        return -1;
    l->w->has_embed = embed;
    l->w->has_head = head;
    l->w->bytes = layout_bytes(l);
    for (uint32_t i = 0; i < n_parts(l); i++)
        l->kept[i] = l->kept[i] && l->used[i];
    if (make_parts(l, err) != 0)
        return -1;
    memset(l->used, 0, n_parts(l) * sizeof *l->used);
    l->place = true;
    l->range_bytes = source->ops->range_bytes(source, threadpool_size(pool));
    if (model_tensors(g, l->p, l->first, l->last, embed, head, lay_tensor, l, err) != 0 || read_pieces(l, source, pool, o, err) != 0)
        return -1;
    for (uint32_t i = 0; i < n_parts(l); i++)
        if (part_at(l->w, i)->huge_late)
            place_huge_late(part_at(l->w, i)->pages, part_at(l->w, i)->bytes);
    move_parts(l);
    return 0;
}

struct weights *weights_load(const struct gguf *g, const struct model_params *p, uint32_t first, uint32_t last, bool embed, bool head,
                             struct backend *be, struct threadpool *pool, const struct weights_options *options, struct err *err)
{
    static const struct weights_options defaults;
    const struct weights_options *o = options ? options : &defaults;
    struct layout l = {.p = p, .be = be, .first = first, .last = last};
    struct weight_source *own = NULL;
    int rc = -1;
    if (layout_init(&l, err) == 0 && (o->source || (own = source_file_create(g, o->file, err))))
        rc = fill(&l, g, embed, head, o->source ? o->source : own, pool, o, err);
    weight_source_destroy(own);
    if (rc != 0) {
        weights_destroy(l.w);
        l.w = NULL;
    }
    layout_fini(&l);
    return l.w;
}

void weights_destroy(struct weights *w)
{
    if (!w)
        return;
    for (uint32_t i = 0; w->memory && w->memory->parts && i < n_layers(w) + PARTS; i++)
        free_part(w, i);
    if (w->memory)
        free(w->memory->parts);
    free(w->memory);
    free(w->layers);
    free(w);
}
