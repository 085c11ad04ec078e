/* See loader.h.
 *
 * Pieces are sorted by where they lie, and neighbours joined into ranges of the size that the source likes: a disk sees long
 * ascending reads whatever the order in which a model's description names its tensors. Then the whole team takes ranges as
 * they arrive, and packs a range's pieces while they are warm: reading and packing overlap, and no more of a tensor is ever
 * held twice than the ranges in hand. */
#include "model/loader.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/fmath.h"

enum { JOIN_GAP = 64 << 10 }; /* bytes between two pieces that are cheaper read than jumped over */

struct load {
    const struct load_job *job;
    struct source_range *ranges;
    size_t *first_piece; /* of each range, and one more */
    size_t n_ranges;
    uint64_t total;
    _Atomic uint64_t done;
    _Atomic bool failed;
    struct err err;      /* written by whoever sets `failed` */
    size_t failed_range; /* SIZE_MAX: none in particular */
};

static int by_place(const void *a, const void *b)
{
    const struct load_piece *x = a, *y = b;
    if (x->tensor->split != y->tensor->split)
        return x->tensor->split < y->tensor->split ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool joins(const struct source_range *r, const struct load_piece *p, uint32_t most)
{
    uint64_t end = r->offset + r->bytes;
    return p->tensor->split == r->split && p->offset <= end + JOIN_GAP && p->offset + p->bytes - r->offset <= most;
}

static int make_ranges(struct load *l, struct err *err)
{
    const struct load_job *job = l->job;
    uint32_t most = job->source->ops->range_bytes(job->source, threadpool_size(job->pool));
    if (!(l->ranges = mem_new(job->n_pieces, sizeof *l->ranges, err)) ||
        !(l->first_piece = mem_new(job->n_pieces + 1, sizeof *l->first_piece, err)))
        return -1;
    qsort(job->pieces, job->n_pieces, sizeof *job->pieces, by_place);
    for (size_t i = 0; i < job->n_pieces; i++) {
        const struct load_piece *p = &job->pieces[i];
        struct source_range *last = &l->ranges[l->n_ranges - (l->n_ranges > 0)];
        l->total += p->bytes;
        if (l->n_ranges > 0 && joins(last, p, most)) {
            uint64_t end = p->offset + p->bytes;
            if (end > last->offset + last->bytes)
                last->bytes = (uint32_t)(end - last->offset);
            continue;
        }
        l->first_piece[l->n_ranges] = i;
        l->ranges[l->n_ranges++] = (struct source_range){p->offset, p->bytes, p->tensor->split};
    }
    l->first_piece[l->n_ranges] = job->n_pieces;
    return 0;
}

static void widen(const struct gguf_tensor *t, const char *from, uint32_t bytes, float *to)
{
    if (t->type == QUANT_F32) {
        memcpy(to, from, bytes);
        return;
    }
    for (uint32_t i = 0; i < bytes / 2; i++) {
        uint16_t h;
        memcpy(&h, from + 2 * i, sizeof h);
        to[i] = t->type == QUANT_F16 ? sc_f16_to_f32(h) : sc_bf16_to_f32(h);
    }
}

/* A vector goes to a device's memory by way of the host's. */
static int place_vector(struct backend *be, const struct load_piece *p, const char *from, struct err *err)
{
    uint64_t n = p->tensor->dims[0];
    if (be->ops->host_memory) {
        widen(p->tensor, from, p->bytes, p->to);
        return 0;
    }
    float *floats = mem_new(n, sizeof *floats, err);
    if (!floats)
        return -1;
    widen(p->tensor, from, p->bytes, floats);
    int rc = be->ops->write(be, p->to, floats, n * sizeof *floats, err);
    free(floats);
    return rc;
}

static int place(struct load *l, const struct source_data *data, struct err *err)
{
    struct backend *be = l->job->backend;
    uint64_t bytes = 0;
    int rc = 0;
    for (size_t i = l->first_piece[data->range]; rc == 0 && i < l->first_piece[data->range + 1]; i++) {
        const struct load_piece *p = &l->job->pieces[i];
        const char *from = data->data + (p->offset - l->ranges[data->range].offset);
        rc = p->rows ? be->ops->weight_put(be, p->tensor->type, from, p->row0, p->rows, p->cols, p->to, err) : place_vector(be, p, from, err);
        bytes += p->bytes;
    }
    atomic_fetch_add_explicit(&l->done, bytes, memory_order_relaxed);
    return rc;
}

/* The first failure counts. */
static void note_failure(struct load *l, const struct err *err, size_t range)
{
    if (atomic_exchange(&l->failed, true))
        return;
    l->err = *err;
    l->failed_range = range;
}

/* One thread's part: ranges until there are no more. The calling thread, number 0, also tells how far everybody is. */
static void take_part(void *arg, uint32_t task, uint32_t thread)
{
    struct load *l = arg;
    struct weight_source *source = l->job->source;
    struct source_data data;
    struct err err;
    int rc;
    (void)task;
    while ((rc = source->ops->next(source, thread, &data, &err)) == 1) {
        int placed = place(l, &data, &err);
        source->ops->done(source, &data);
        if (placed != 0) {
            note_failure(l, &err, data.range);
            weight_source_cancel(source); /* the others need not go on */
            return;
        }
        if (thread == 0 && l->job->progress)
            l->job->progress(l->job->progress_arg, atomic_load_explicit(&l->done, memory_order_relaxed), l->total);
    }
    if (rc != 0)
        note_failure(l, &err, data.range);
}

static int load_failed(const struct load *l, struct err *err)
{
    if (err)
        *err = l->err;
    if (l->failed_range >= l->n_ranges)
        return -1;
    return err_wrap(err, "tensor %s", l->job->pieces[l->first_piece[l->failed_range]].tensor->name);
}

/* A device takes ranges from where they were read to, if it can. *ret_why: why not, if it cannot though it would. */
static bool pin_buffers(const struct load_job *job, struct err *ret_why)
{
    const struct backend_ops *op = job->backend->ops;
    size_t bytes = 0;
    void *pages = op->host_pin ? job->source->ops->buffers(job->source, &bytes) : NULL;
    return pages && op->host_pin(job->backend, pages, bytes, ret_why) == 0;
}

static int move(struct load *l, struct err *ret_not_pinned, struct err *err)
{
    const struct load_job *job = l->job;
    struct weight_source *source = job->source;
    unsigned threads = threadpool_size(job->pool);
    if (source->ops->begin(source, l->ranges, l->n_ranges, threads, err) != 0)
        return -1;
    bool pinned = pin_buffers(job, ret_not_pinned);
    threadpool_run(job->pool, take_part, l, threads);
    int rc = source->ops->end(source, err);
    if (job->backend->ops->weights_done(job->backend, rc == 0 ? err : NULL) != 0)
        rc = -1;
    if (pinned)
        job->backend->ops->host_unpin(job->backend);
    return atomic_load(&l->failed) ? load_failed(l, err) : rc;
}

int loader_run(const struct load_job *job, struct err *err)
{
    struct load l = {.job = job};
    struct err not_pinned = {0};
    int rc = make_ranges(&l, err) != 0 ? -1 : move(&l, &not_pinned, err);
    if (job->report)
        job->source->ops->report(job->source, job->report);
    if (job->report && not_pinned.kind != ERR_NONE)
        source_note(job->report, "each range is copied once more on its way: %.120s", not_pinned.text);
    if (rc == 0 && job->progress)
        job->progress(job->progress_arg, l.total, l.total);
    free(l.ranges);
    free(l.first_piece);
    return rc;
}
