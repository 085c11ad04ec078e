/* See weights_same.h. */
#include "tests/model/weights_same.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_weight(const struct weight *a, const struct weight *b)
{
    if (!a->data || !b->data)
        return !a->data == !b->data;
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->mats == b->mats && a->mat_bytes == b->mat_bytes &&
           memcmp(a->data, b->data, a->mats * a->mat_bytes) == 0;
}

static bool same_vec(const struct vec *a, const struct vec *b)
{
    if (!a->data || !b->data)
        return !a->data == !b->data;
    return a->n == b->n && memcmp(a->data, b->data, a->n * sizeof *a->data) == 0;
}

#define WEIGHT(name)                                                                                                                       \
    {                                                                                                                                      \
#name, offsetof(struct layer, name)                                                                                                \
    }

static const struct member {
    const char *name;
    size_t offset;
} matrices[] = {WEIGHT(q), WEIGHT(k), WEIGHT(v), WEIGHT(out), WEIGHT(gate), WEIGHT(up), WEIGHT(down), WEIGHT(experts.router)},
  vectors[] = {WEIGHT(attn_norm.weight), WEIGHT(q_norm.weight),   WEIGHT(k_norm.weight), WEIGHT(attn_post_norm.weight),
               WEIGHT(ffn_norm.weight),  WEIGHT(ffn_post_norm.weight), WEIGHT(q_bias),        WEIGHT(k_bias),
               WEIGHT(v_bias),           WEIGHT(out_bias)};

const char *weights_differ(const struct weights *a, const struct weights *b, uint32_t first, uint32_t last)
{
    static char text[64];
    for (uint32_t i = first; i < last; i++) {
        const char *x = (const char *)&a->layers[i - a->first], *y = (const char *)&b->layers[i - b->first];
        for (size_t k = 0; k < sizeof matrices / sizeof *matrices; k++)
            if (!same_weight((const void *)(x + matrices[k].offset), (const void *)(y + matrices[k].offset))) {
                snprintf(text, sizeof text, "layer %u: %s", i, matrices[k].name);
                return text;
            }
        for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
            if (!same_vec((const void *)(x + vectors[k].offset), (const void *)(y + vectors[k].offset))) {
                snprintf(text, sizeof text, "layer %u: %s", i, vectors[k].name);
                return text;
            }
    }
    if (a->has_embed && b->has_embed && !same_weight(&a->embed, &b->embed))
        return "embedding";
    if (a->has_head && b->has_head && (!same_weight(&a->head.out, &b->head.out) || !same_vec(&a->head.norm.weight, &b->head.norm.weight)))
        return "head";
    return NULL;
}

static void die(const struct err *err)
{
    printf("Bail out! %s\n", err->text);
    exit(1);
}

void loading_init(struct loading *l, const char *path, unsigned threads)
{
    struct err err;
    if (!(l->g = gguf_open(path, false, &err)) || model_params_read(l->g, &l->p, &err) != 0 || !(l->be = backend_cpu_create(1, NULL, &err)) ||
        !(l->pool = threadpool_create(threads, &err)))
        die(&err);
    gguf_model_id(l->g, l->id);
}

void loading_fini(struct loading *l)
{
    threadpool_destroy(l->pool);
    backend_destroy(l->be);
    gguf_close(l->g);
}

struct weights *loading_reference(const struct loading *l)
{
    struct source_file_options file = {.no_uring = true, .no_direct = true};
    struct weights_options o = {.file = &file};
    struct err err;
    struct weights *w = weights_load(l->g, &l->p, 0, l->p.n_layers, true, true, l->be, l->pool, &o, &err);
    if (!w)
        die(&err);
    return w;
}
