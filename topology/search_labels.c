/* Partial chains: where each stands in a hash table, so that worse ones of the same place are not gone on from, and a heap of the
 * open ones. See search.c. */
#include "topology/search.h"

#include <stdlib.h>
#include <string.h>

static uint32_t bucket_of(const struct search *x, uint64_t used, uint32_t device, uint32_t mask, uint32_t last)
{
    uint64_t h = used * 0x9e3779b97f4a7c15u ^ ((uint64_t)x->s->kinds[x->s->devices[device].kind].way << 48 | (uint64_t)mask << 16 | last);
    h *= 0xd6e8feb86659fd93u;
    return (uint32_t)(h >> 32) & x->bucket_mask;
}

/* Single-device nodes with the same links to all others are one place to be. In others, where the chain may go from there. */
static bool same_place(const struct search *x, const struct search_label *a, const struct search_label *b)
{
    const struct space_kind *p = &x->s->kinds[x->s->devices[a->device].kind], *q = &x->s->kinds[x->s->devices[b->device].kind];
    return a->used == b->used && a->last == b->last && p->way == q->way &&
           (q->n_devices == 1 || (a->mask == b->mask && a->onward == b->onward && a->stays == b->stays));
}

static bool busy_within(const struct search *x, const double *a, const double *b)
{
    for (uint32_t g = 0; g < x->n_groups; g++)
        if (a[g] > b[g])
            return false;
    return true;
}

/* A label's groups; NULL where there are none. */
static double *busy_of(const struct search *x, uint32_t label)
{
    return x->n_groups ? x->busy + (size_t)label * x->n_groups : NULL;
}

/* False where an equal or better label stands there. Worse ones die. */
static bool dominates_all(struct search *x, uint32_t bucket, const struct search_label *new, const double *busy)
{
    for (uint32_t i = x->buckets[bucket]; i != SEARCH_NONE; i = x->labels[i].next) {
        struct search_label *l = &x->labels[i];
        if (l->dead || !same_place(x, l, new))
            continue;
        if (l->sum <= new->sum && busy_within(x, busy_of(x, i), busy))
            return false;
        if (new->sum <= l->sum && busy_within(x, busy, busy_of(x, i)))
            l->dead = true;
    }
    return true;
}

bool search_before(const struct search *x, uint32_t a, uint32_t b)
{
    const struct search_label *p = &x->labels[a], *q = &x->labels[b];
    return p->f < q->f || (p->f == q->f && p->last > q->last);
}

static void heap_push(struct search *x, uint32_t label)
{
    size_t i = x->n_heap;
    if (mem_grow(&x->heap, &x->cap_heap, x->n_heap + 1, sizeof *x->heap, SEARCH_LABELS_MAX, "open plans", NULL) != 0) {
        x->full_up = true;
        return;
    }
    for (x->n_heap++; i > 0 && search_before(x, label, x->heap[(i - 1) / 2]); i = (i - 1) / 2)
        x->heap[i] = x->heap[(i - 1) / 2];
    x->heap[i] = label;
}

uint32_t search_pop(struct search *x)
{
    uint32_t top = x->heap[0], last = x->heap[--x->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < x->n_heap) {
        child += child + 1 < x->n_heap && search_before(x, x->heap[child + 1], x->heap[child]);
        if (!search_before(x, x->heap[child], last))
            break;
        x->heap[i] = x->heap[child];
        i = child;
    }
    x->heap[i] = last;
    return top;
}

static void grow_buckets(struct search *x)
{
    uint32_t n = x->buckets ? 2 * (x->bucket_mask + 1) : 1 << 12;
    uint32_t *buckets = malloc(n * sizeof *buckets);
    if (!buckets) {
        x->full_up = x->full_up || !x->buckets;
        return;
    }
    free(x->buckets);
    x->buckets = buckets;
    x->bucket_mask = n - 1;
    memset(buckets, 0xff, n * sizeof *buckets);
    for (size_t i = 0; i < x->n_labels; i++) {
        struct search_label *l = &x->labels[i];
        uint32_t mask = x->s->kinds[x->s->devices[l->device].kind].n_devices == 1 ? 0 : l->mask;
        uint32_t b = bucket_of(x, l->used, l->device, mask, l->last);
        if (l->dead)
            continue;
        l->next = buckets[b];
        buckets[b] = (uint32_t)i;
    }
}

void search_add_label(struct search *x, struct search_label l, const double *busy)
{
    uint32_t mask = x->s->kinds[x->s->devices[l.device].kind].n_devices == 1 ? 0 : l.mask;
    size_t cap = x->cap_labels;
    if (x->n_labels > x->bucket_mask || !x->buckets)
        grow_buckets(x);
    if (x->full_up)
        return;
    uint32_t b = bucket_of(x, l.used, l.device, mask, l.last);
    if (!dominates_all(x, b, &l, busy))
        return;
    if (mem_grow(&x->labels, &x->cap_labels, x->n_labels + 1, sizeof *x->labels, SEARCH_LABELS_MAX, "plans", NULL) != 0) {
        x->full_up = true;
        return;
    }
    if (x->n_groups && cap != x->cap_labels) {
        double *more = realloc(x->busy, x->cap_labels * x->n_groups * sizeof *more);
        if (!more) {
            x->cap_labels = cap;
            x->full_up = true;
            return;
        }
        x->busy = more;
    }
    if (x->n_groups)
        memcpy(x->busy + x->n_labels * x->n_groups, busy, x->n_groups * sizeof *busy);
    l.next = x->buckets[b];
    x->labels[x->n_labels] = l;
    x->buckets[b] = (uint32_t)x->n_labels;
    heap_push(x, (uint32_t)x->n_labels++);
}
