/* Choosing tokens on the device (kernels/backend.h, `sample`): what rows are asked goes up in one copy, what was found comes back in
 * one, and logits stay where they are. sample.cuh computes. */
#include <string.h>

#include "kernels/cuda/run.h"

/* Where the parts of one copy lie: offsets. */
struct parts {
    size_t rows, edits, given, masks, bytes;             /* up */
    size_t found, given_logits, tokens, logits, back;    /* back */
};

static size_t next(size_t *used, size_t bytes)
{
    size_t at = *used;
    *used += (bytes + 15) / 16 * 16;
    return at;
}

static size_t mask_bytes(uint32_t n_vocab)
{
    return ((size_t)n_vocab + 7) / 8;
}

static struct parts lay_out(uint32_t n_vocab, size_t rows, size_t edits, size_t given, size_t masks, size_t top)
{
    struct parts p = {0};
    p.rows = next(&p.bytes, rows * sizeof(struct cuda_sample_row));
    p.edits = next(&p.bytes, edits * sizeof(struct sample_edit));
    p.given = next(&p.bytes, given * sizeof(int32_t));
    p.masks = next(&p.bytes, masks * mask_bytes(n_vocab));
    p.found = next(&p.back, rows * sizeof(struct cuda_sample_found));
    p.given_logits = next(&p.back, given * sizeof(float));
    p.tokens = next(&p.back, top * sizeof(int32_t));
    p.logits = next(&p.back, top * sizeof(float));
    return p;
}

void cuda_sample_bytes(const struct run_shape *s, size_t *ret_up, size_t *ret_back)
{
    size_t rows = s->max_wanted < SAMPLE_AT_ONCE ? s->max_wanted : SAMPLE_AT_ONCE;
    struct parts p = lay_out(s->n_vocab, rows, sample_max_edits(s->n_vocab), rows * SAMPLE_MAX_GIVEN, rows, rows * SAMPLE_MAX_TOP);
    *ret_up = s->n_vocab ? p.bytes : 0;
    *ret_back = s->n_vocab ? p.back : 0;
}

/* Counts what rows ask for and says where it will lie; -1: it is more than a call may. */
static int measure(const struct cuda_run *r, const struct sample_row *rows, uint32_t n, struct parts *ret, struct err *err)
{
    size_t edits = 0, given = 0, masks = 0, top = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (rows[i].wanted >= r->batch.n_wanted || rows[i].wanted / SAMPLE_AT_ONCE != rows[0].wanted / SAMPLE_AT_ONCE || rows[i].top > SAMPLE_MAX_TOP ||
            rows[i].n_given > SAMPLE_MAX_GIVEN)
            return err_set(err, ERR_INTERNAL, "row %u of %u to be sampled: wanted row %u of %u, %u likeliest, %u given", i, n, rows[i].wanted, r->batch.n_wanted,
                           rows[i].top, rows[i].n_given);
        edits += rows[i].choose ? rows[i].n_edits : 0;
        masks += rows[i].choose && rows[i].params->mask;
        given += rows[i].n_given;
        top += rows[i].top;
    }
    if (n > SAMPLE_AT_ONCE || edits > sample_max_edits(r->shape.n_vocab))
        return err_set(err, ERR_INTERNAL, "%u rows with %zu edits to be sampled at once", n, edits);
    *ret = lay_out(r->shape.n_vocab, n, edits, given, masks, top);
    return 0;
}

static struct cuda_sample_row describe(const struct sample_row *row, uint32_t n_vocab)
{
    const struct sample_params *p = row->params;
    struct cuda_sample_row ret = {.random = row->random, .logits = row->wanted % SAMPLE_AT_ONCE, .choose = row->choose, .n_given = row->n_given, .top = row->top};
    if (!row->choose)
        return ret;
    ret.by_id = sample_by_id(p, n_vocab);
    ret.top_k = p->top_k;
    ret.temperature = p->temperature;
    ret.top_p = p->top_p;
    ret.min_p = p->min_p;
    ret.typical_p = p->typical_p;
    ret.repetition = p->repetition_penalty;
    ret.frequency = p->frequency_penalty;
    ret.presence = p->presence_penalty;
    ret.n_biases = row->n_biases;
    ret.n_edits = row->n_edits;
    return ret;
}

/* Everything that goes up, at its place in `to`. */
static void pack(const struct cuda_run *r, const struct sample_row *rows, uint32_t n, const struct parts *p, char *to)
{
    uint32_t edits = 0, given = 0, masks = 0, top = 0;
    size_t mask = mask_bytes(r->shape.n_vocab);
    for (uint32_t i = 0; i < n; i++) {
        struct cuda_sample_row row = describe(&rows[i], r->shape.n_vocab);
        row.first_edit = edits;
        row.first_given = given;
        row.first_top = top;
        if (row.n_edits)
            memcpy(to + p->edits + edits * sizeof(struct sample_edit), rows[i].edits, row.n_edits * sizeof(struct sample_edit));
        if (row.n_given)
            memcpy(to + p->given + given * sizeof(int32_t), rows[i].given, row.n_given * sizeof(int32_t));
        if (row.choose && rows[i].params->mask) {
            memcpy(to + p->masks + masks * mask, rows[i].params->mask, mask);
            row.mask = ++masks;
        }
        edits += row.n_edits;
        given += row.n_given;
        top += row.top;
        memcpy(to + p->rows + i * sizeof row, &row, sizeof row);
    }
}

/* What was found, from what came back; lists stay there. */
static void unpack(const char *from, struct sample_row *rows, uint32_t n, const struct parts *p)
{
    const float *given = (const float *)(from + p->given_logits), *logits = (const float *)(from + p->logits);
    const int32_t *tokens = (const int32_t *)(from + p->tokens);
    for (uint32_t i = 0; i < n; i++) {
        struct cuda_sample_found f;
        memcpy(&f, from + p->found + i * sizeof f, sizeof f);
        rows[i].raw = (struct sample_scan){f.raw_max, f.raw_id, f.raw_bad, f.sum};
        rows[i].left = (struct sample_scan){f.left_max, f.left_id, f.left_bad, 0};
        rows[i].token = (int32_t)f.token;
        rows[i].logit = f.logit;
        rows[i].n_top = f.n_top;
        rows[i].given_logits = given;
        rows[i].top_tokens = tokens;
        rows[i].top_logits = logits;
        given += rows[i].n_given;
        tokens += rows[i].top;
        logits += rows[i].top;
    }
}

static void enqueue(struct cuda_run *r, uint32_t n, const struct parts *p)
{
    const struct cuda_driver *d = r->c->d;
    char *up = (char *)(uintptr_t)r->ask, *back = (char *)(uintptr_t)r->told;
    struct cuda_sample args = {.logits = r->logits, .rows = (struct cuda_sample_row *)(up + p->rows), .edits = (struct sample_edit *)(up + p->edits),
                               .masks = (uint8_t *)(up + p->masks), .given = (uint32_t *)(up + p->given), .found = (struct cuda_sample_found *)(back + p->found),
                               .top_tokens = (uint32_t *)(back + p->tokens), .top_logits = (float *)(back + p->logits),
                               .given_logits = (float *)(back + p->given_logits), .list_logit = r->list_logit, .list_id = r->list_id,
                               .n_vocab = r->shape.n_vocab, .mask_bytes = (uint32_t)mask_bytes(r->shape.n_vocab), .list_max = CUDA_SAMPLE_LIST};
    run_check(r, d->copy_to_device((uint64_t)(uintptr_t)r->ask, r->host_ask, p->bytes, r->c->stream), "bringing what is to be sampled");
    run_launch(r, r->c->kernels.sample, n, 1, 1, CUDA_SAMPLE_THREADS, &args);
    run_check(r, d->copy_from_device(r->host_told, (uint64_t)(uintptr_t)r->told, p->back, r->c->stream), "fetching tokens");
}

int cuda_sample(struct run *run, struct sample_row *rows, uint32_t n, struct err *err)
{
    struct cuda_run *r = (struct cuda_run *)run;
    struct parts p = {0};
    if (n == 0)
        return 0;
    r->err = (struct err){0};
    if (cuda_enter(r->c, err) != 0 || measure(r, rows, n, &p, err) != 0)
        return -1;
    if (r->batch.n_wanted > SAMPLE_AT_ONCE)
        cuda_logits_of(r, rows[0].wanted / SAMPLE_AT_ONCE * SAMPLE_AT_ONCE);
    pack(r, rows, n, &p, r->host_ask);
    enqueue(r, n, &p);
    run_check(r, r->c->d->stream_wait(r->c->stream), "sampling");
    if (r->err.kind != ERR_NONE) {
        if (err)
            *err = r->err;
        return -1;
    }
    unpack(r->host_told, rows, n, &p);
    return 0;
}
