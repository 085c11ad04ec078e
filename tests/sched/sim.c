/* See sim.h. Events lie in a heap by time, then by number. A frame is a copy of a step with each row's value; it visits the
 * stages in order, as every stage takes frames as they come. */
#include "tests/sched/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched/state.h"

enum { VOCAB = 1000, NO_ENTRY = UINT32_MAX };

enum what { ARRIVE, CANCEL, FAULT, ENTER, LEAVE, RESULT };

struct event {
    uint64_t at_ns, number;
    enum what what;
    uint32_t index; /* request, fault or stage */
    struct frame *frame;
};

struct frame {
    struct frame *next, *all; /* in a stage's queue; of all that live */
    struct sched_step step;
    uint64_t *x;
    uint64_t ctx, attn;
    uint32_t epoch;
};

struct worker {
    struct frame *first, *last;
    bool busy;
    uint32_t *table[SCHED_GROUPS];
    uint64_t *open; /* seq + 1 of a slot; 0: closed */
};

struct sim_inside {
    struct event *heap;
    size_t n, cap;
    uint64_t number;
    struct frame *frames;
    struct worker workers[SCHED_MAX_STAGES];
    uint64_t *kv[SIM_MAX_LAYERS];
    uint64_t arrived_ns[SCHED_MAX_STAGES]; /* of the last frame at a stage: none overtakes another on the way */
    uint32_t stride, epoch, n_under_way;
    uint64_t varied; /* state of the numbers drawn for vary_percent */
};

/* --- small things -------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 27;
    x *= 0x94d049bb133111eb;
    return x ^ x >> 31;
}

uint64_t sim_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15;
    return mix(*state);
}

uint32_t sim_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(sim_random(state) % n);
}

static void *get(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p) {
        fprintf(stderr, "no memory\n");
        abort();
    }
    return p;
}

__attribute__((format(printf, 2, 3))) static void wrong(struct sim *m, const char *fmt, ...)
{
    va_list args;
    if (m->wrong[0])
        return;
    va_start(args, fmt);
    vsnprintf(m->wrong, sizeof m->wrong, fmt, args);
    va_end(args);
}

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

static void push(struct sim *m, uint64_t at_ns, enum what what, uint32_t index, struct frame *frame)
{
    struct sim_inside *in = m->inside;
    struct event e = {.at_ns = at_ns, .number = in->number++, .what = what, .index = index, .frame = frame};
    size_t i = in->n++;
    if (in->n > in->cap) {
        in->cap = in->cap ? 2 * in->cap : 256;
        in->heap = realloc(in->heap, in->cap * sizeof *in->heap);
    }
    for (; i > 0 && earlier(&e, &in->heap[(i - 1) / 2]); i = (i - 1) / 2)
        in->heap[i] = in->heap[(i - 1) / 2];
    in->heap[i] = e;
}

static struct event pop(struct sim *m)
{
    struct sim_inside *in = m->inside;
    struct event top = in->heap[0], last = in->heap[--in->n];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < in->n) {
        if (child + 1 < in->n && earlier(&in->heap[child + 1], &in->heap[child]))
            child++;
        if (!earlier(&in->heap[child], &last))
            break;
        in->heap[i] = in->heap[child];
        i = child;
    }
    in->heap[i] = last;
    return top;
}

/* --- the model ----------------------------------------------------------------------------------------------------------- */

static int group_of(const struct sim *m, uint32_t layer)
{
    if (m->config.n_blocks[SCHED_FULL] && m->config.n_blocks[SCHED_SLIDING])
        return layer % 2 ? SCHED_FULL : SCHED_SLIDING;
    return m->config.n_blocks[SCHED_FULL] ? SCHED_FULL : SCHED_SLIDING;
}

static uint32_t seen_from(const struct sim *m, uint32_t layer, uint32_t pos)
{
    return group_of(m, layer) == SCHED_FULL || pos < m->config.window ? 0 : pos - m->config.window + 1;
}

static uint64_t embed(int32_t token)
{
    return mix((uint64_t)(uint32_t)token + 0x1234567);
}

static uint64_t kv_of(uint64_t x, uint32_t layer, uint32_t pos)
{
    return mix(x ^ (uint64_t)layer << 56 ^ (uint64_t)pos << 24);
}

static uint64_t term(uint64_t kv, uint32_t pos)
{
    return (kv ^ pos) * 0x9e3779b97f4a7c15;
}

static int32_t sample(uint64_t x)
{
    return (int32_t)(x % VOCAB);
}

/* The reference: row `pos` of the request, the plain way. */
static uint64_t reference(struct sim *m, struct sim_request *r, uint32_t pos)
{
    uint32_t n = r->n_prompt + r->max_new;
    if (!r->ref)
        r->ref = get((size_t)n * (m->n_layers + 1), sizeof *r->ref);
    for (; r->n_ref <= pos; r->n_ref++) {
        uint64_t x = embed(r->tokens[r->n_ref]);
        for (uint32_t l = 0; l < m->n_layers; l++) {
            uint64_t sum = 0, *kv = r->ref + (size_t)l * n;
            kv[r->n_ref] = kv_of(x, l, r->n_ref);
            for (uint32_t p = seen_from(m, l, r->n_ref); p <= r->n_ref; p++)
                sum += term(kv[p], p);
            x = mix(x ^ sum);
        }
        r->ref[(size_t)m->n_layers * n + r->n_ref] = x;
    }
    return r->ref[(size_t)m->n_layers * n + pos];
}

/* --- a stage ------------------------------------------------------------------------------------------------------------- */

static void do_ops(struct sim *m, uint32_t stage, const struct sched_step *p)
{
    struct sim_inside *in = m->inside;
    struct worker *w = &in->workers[stage];
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sched_op *o = &p->ops[i];
        if (o->kind == SCHED_COPY) {
            for (uint32_t l = m->first_layer[stage]; l < m->first_layer[stage + 1] && m->hash; l++)
                if (group_of(m, l) == (int)o->group)
                    memcpy(in->kv[l] + (size_t)o->dst * m->config.block, in->kv[l] + (size_t)o->src * m->config.block,
                           m->config.block * sizeof *in->kv[l]);
            continue;
        }
        if (o->kind == SCHED_OPEN ? w->open[o->slot] != 0 : w->open[o->slot] != o->seq + 1)
            wrong(m, "batch %" PRIu64 ": slot %u is %s for sequence %" PRIu64 ", but belongs to %" PRIu64 " - 1", p->batch, o->slot,
                  o->kind == SCHED_OPEN ? "opened" : "closed", o->seq, w->open[o->slot]);
        w->open[o->slot] = o->kind == SCHED_OPEN ? o->seq + 1 : 0;
        for (int g = 0; g < SCHED_GROUPS; g++)
            memset(w->table[g] + (size_t)o->slot * in->stride, 0xff, in->stride * sizeof *w->table[g]);
    }
    for (uint32_t i = 0; i < p->n_deltas; i++) {
        const struct sched_delta *d = &p->deltas[i];
        if (!w->open[d->slot] || d->index + d->n_blocks > in->stride) {
            wrong(m, "batch %" PRIu64 ": table entries %u + %u of slot %u, which is %s", p->batch, d->index, d->n_blocks, d->slot,
                  w->open[d->slot] ? "too small" : "closed");
            return;
        }
        for (uint32_t k = 0; k < d->n_blocks; k++) {
            if (d->blocks[k] >= m->config.n_blocks[d->group])
                wrong(m, "batch %" PRIu64 ": block %u of group %u, there are %u", p->batch, d->blocks[k], d->group, m->config.n_blocks[d->group]);
            w->table[d->group][(size_t)d->slot * in->stride + d->index + k] = d->blocks[k];
        }
    }
}

static uint64_t *cell(struct sim *m, uint32_t stage, uint32_t layer, const struct sched_row *r, uint32_t pos)
{
    static uint64_t nowhere;
    struct sim_inside *in = m->inside;
    int g = group_of(m, layer);
    uint32_t block = in->workers[stage].table[g][(size_t)r->slot * in->stride + pos / m->config.block];
    if (block < m->config.n_blocks[g])
        return in->kv[layer] + (size_t)block * m->config.block + pos % m->config.block;
    wrong(m, "stage %u, sequence %" PRIu64 ": no block for position %u of group %d, which the row at %u needs", stage, r->seq, pos, g, r->pos);
    return &nowhere;
}

static void compute(struct sim *m, uint32_t stage, struct frame *f)
{
    const struct sched_step *p = &f->step;
    for (uint32_t l = m->first_layer[stage]; l < m->first_layer[stage + 1]; l++) {
        for (uint32_t i = 0; i < p->n_rows; i++)
            *cell(m, stage, l, &p->rows[i], p->rows[i].pos) = kv_of(f->x[i], l, p->rows[i].pos);
        for (uint32_t i = 0; i < p->n_rows && !m->wrong[0]; i++) {
            const struct sched_row *r = &p->rows[i];
            uint64_t sum = 0;
            for (uint32_t pos = seen_from(m, l, r->pos); pos <= r->pos; pos++)
                sum += term(*cell(m, stage, l, r, pos), pos);
            f->x[i] = mix(f->x[i] ^ sum);
        }
    }
}

static uint64_t stage_ns(const struct sim *m, uint32_t stage, const struct frame *f)
{
    const struct sched_stage_cost *k = &m->truth.stage[stage];
    uint64_t memory = k->weight_ns + k->kv_ps * f->ctx / 1000;
    uint64_t arithmetic = k->start_ns + k->row_ns * f->step.n_rows + (k->seq_ps * f->ctx + k->attn_ps * f->attn) / 1000;
    if (f->step.n_wanted) {
        memory += k->head_weight_ns;
        arithmetic += k->head_start_ns + k->head_row_ns * f->step.n_wanted;
    }
    return k->fixed_ns + (memory > arithmetic ? memory : arithmetic);
}

static uint64_t hop_ns(const struct sim *m, uint32_t hop, const struct frame *f)
{
    return m->truth.hop[hop].latency_ns + m->truth.hop[hop].row_ns * f->step.n_rows;
}

static void decide(struct sim *m);

static void send(struct sim *m, uint32_t stage, struct frame *f)
{
    uint64_t at = m->now_ns + hop_ns(m, stage, f), *last = &m->inside->arrived_ns[stage];
    *last = at > *last ? at : *last;
    push(m, *last, ENTER, stage, f);
}

static void begin_stage(struct sim *m, uint32_t stage)
{
    struct worker *w = &m->inside->workers[stage];
    struct frame *f = w->first;
    bool rows = f && stage <= f->step.stop_stage;
    uint64_t ns = 0;
    if (!f || w->busy)
        return;
    if (rows)
        ns = stage_ns(m, stage, f);
    if (m->vary_percent)
        ns = ns * (100 - m->vary_percent + sim_below(&m->inside->varied, 2 * m->vary_percent + 1)) / 100;
    w->busy = true;
    do_ops(m, stage, &f->step);
    if (rows && m->hash)
        compute(m, stage, f);
    m->busy_ns[stage] += ns;
    push(m, m->now_ns + ns, LEAVE, stage, f);
}

static void enter(struct sim *m, uint32_t stage, struct frame *f)
{
    struct worker *w = &m->inside->workers[stage];
    f->next = NULL;
    if (w->first)
        w->last->next = f;
    else
        w->first = f;
    w->last = f;
    begin_stage(m, stage);
}

static void leave(struct sim *m, uint32_t stage, struct frame *f)
{
    struct worker *w = &m->inside->workers[stage];
    w->first = f->next;
    w->busy = false;
    if (m->measure && stage <= f->step.stop_stage)
        sched_measured(m->sched, m->now_ns / 1000, f->step.batch, stage, stage_ns(m, stage, f) / 1000);
    if (stage == f->step.stop_stage)
        push(m, m->now_ns + hop_ns(m, m->config.n_stages, f), RESULT, 0, f);
    if (stage + 1 < m->config.n_stages)
        send(m, stage + 1, f);
    begin_stage(m, stage);
    if (m->measure)
        decide(m);
}

/* --- the coordinator ----------------------------------------------------------------------------------------------------- */

static struct sim_request *request_of(struct sim *m, uint64_t id)
{
    return id >= 1 && id <= m->n_requests ? &m->requests[id - 1] : NULL;
}

static void *copy(const void *from, size_t n, size_t size)
{
    void *to = get(n, size);
    memcpy(to, from, n * size);
    return to;
}

static void check_step(struct sim *m, const struct sched_step *p)
{
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct sched_row *r = &p->rows[i];
        const struct sim_request *q = request_of(m, r->seq);
        wanted += r->want != SCHED_WANT_NONE;
        if (i > 0 && r[-1].seq == r->seq && r[-1].pos + 1 != r->pos)
            wrong(m, "batch %" PRIu64 ": positions %u and %u of sequence %" PRIu64 " follow each other", p->batch, r[-1].pos, r->pos, r->seq);
        if (r->slot >= m->config.max_seqs || r->pos >= q->n_tokens || q->tokens[r->pos] != r->token)
            wrong(m, "batch %" PRIu64 ": row %u is slot %u, position %u of sequence %" PRIu64 ", token %d", p->batch, i, r->slot, r->pos, r->seq,
                  r->token);
        if (q->ended)
            wrong(m, "batch %" PRIu64 ": a row of sequence %" PRIu64 ", which has ended", p->batch, r->seq);
    }
    if (p->n_rows == 0 || p->n_rows > m->config.max_rows || wanted != p->n_wanted || wanted > (m->config.max_wanted ? m->config.max_wanted : p->n_rows))
        wrong(m, "batch %" PRIu64 ": %u rows, %u wanted, %u counted", p->batch, p->n_rows, p->n_wanted, wanted);
    if (p->stop_stage + 1 < m->config.n_stages && wanted)
        wrong(m, "batch %" PRIu64 " stops at stage %u, and wants something", p->batch, p->stop_stage);
}

static void dispatch(struct sim *m, const struct sched_step *p)
{
    struct sim_inside *in = m->inside;
    struct frame *f = get(1, sizeof *f);
    uint32_t *blocks = NULL, n = 0;
    check_step(m, p);
    f->step = *p;
    f->step.ops = copy(p->ops, p->n_ops, sizeof *p->ops);
    f->step.rows = copy(p->rows, p->n_rows, sizeof *p->rows);
    f->step.deltas = copy(p->deltas, p->n_deltas, sizeof *p->deltas);
    for (uint32_t i = 0; i < p->n_deltas; i++)
        n += p->deltas[i].n_blocks;
    blocks = get(n, sizeof *blocks); /* freed through the first delta */
    for (uint32_t i = 0, at = 0; i < p->n_deltas; at += p->deltas[i++].n_blocks) {
        memcpy(blocks + at, p->deltas[i].blocks, p->deltas[i].n_blocks * sizeof *blocks);
        ((struct sched_delta *)f->step.deltas)[i].blocks = blocks + at;
    }
    if (p->n_deltas == 0)
        free(blocks);
    f->x = get(p->n_rows, sizeof *f->x);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        f->x[i] = embed(p->rows[i].token);
        f->attn += p->rows[i].pos + 1;
        f->ctx += i + 1 == p->n_rows || p->rows[i + 1].seq != p->rows[i].seq ? p->rows[i].pos + 1 : 0;
    }
    f->epoch = in->epoch;
    f->all = in->frames;
    in->frames = f;
    m->n_steps++;
    m->n_rows += p->n_rows;
    m->n_rebuilt += p->stop_stage + 1 < m->config.n_stages ? p->n_rows : 0;
    if (m->n_steps == 1)
        m->first_step_ns = m->now_ns;
    if (++in->n_under_way > m->max_in_flight)
        m->max_in_flight = in->n_under_way;
    send(m, 0, f);
}

static void frame_free(struct sim *m, struct frame *f)
{
    struct frame **at = &m->inside->frames;
    while (*at != f)
        at = &(*at)->all;
    *at = f->all;
    if (f->step.n_deltas)
        free((void *)f->step.deltas[0].blocks);
    free((void *)f->step.ops);
    free((void *)f->step.rows);
    free((void *)f->step.deltas);
    free(f->x);
    free(f);
}

static void decide(struct sim *m)
{
    struct sched_action a;
    while (!m->wrong[0] && sched_poll(m->sched, m->now_ns / 1000, &a)) {
        struct sim_request *r = request_of(m, a.seq);
        if (a.kind == SCHED_STEP) {
            dispatch(m, &a.step);
        } else if (a.kind == SCHED_PREEMPTED) {
            m->n_preempted++;
        } else if (a.kind == SCHED_DROPPED) {
            m->n_dropped++;
            r->ended = r->refused = true;
            if (!a.text || !a.text[0])
                wrong(m, "sequence %" PRIu64 " is dropped without a word", a.seq);
        }
    }
}

static void got_token(struct sim *m, struct sim_request *r, const struct sched_row *row, uint64_t x)
{
    struct err err;
    uint64_t now = m->now_ns / 1000;
    if (row->pos + 1 != r->n_tokens) {
        wrong(m, "sequence %" PRIu64 ": the row at %u is sampled, there are %u tokens", r->id, row->pos, r->n_tokens);
        return;
    }
    r->tokens[r->n_tokens++] = m->hash ? sample(x) : (int32_t)(mix(r->id << 32 | row->pos) % VOCAB);
    if (sched_token(m->sched, now, r->id, r->tokens[r->n_tokens - 1], &err) != 0)
        wrong(m, "%s", err.text);
    if (r->n_tokens - r->n_prompt == 1)
        r->first_us = now;
    else {
        r->worst_gap_us = now - r->last_us > r->worst_gap_us ? now - r->last_us : r->worst_gap_us;
        r->n_gaps++;
        r->n_long_gaps += m->long_gap_us && now - r->last_us > m->long_gap_us;
    }
    r->last_us = now;
    if (r->n_tokens - r->n_prompt == r->n_answer) {
        r->ended = true;
        r->ended_us = now;
        if (sched_finish(m->sched, now, r->id, &err) != 0)
            wrong(m, "%s", err.text);
    }
}

static void result(struct sim *m, struct frame *f)
{
    const struct sched_step *p = &f->step;
    struct err err;
    for (uint32_t i = 0; i < p->n_rows && p->n_wanted; i++) {
        const struct sched_row *row = &p->rows[i];
        struct sim_request *r = request_of(m, row->seq);
        if (row->want == SCHED_WANT_NONE || r->ended)
            continue;
        if (m->hash && reference(m, r, row->pos) != f->x[i])
            wrong(m, "batch %" PRIu64 ": position %u of sequence %" PRIu64 " came out wrong", p->batch, row->pos, row->seq);
        if (row->want == SCHED_WANT_SAMPLE) {
            got_token(m, r, row, f->x[i]);
        } else if (++r->n_wanted == r->n_prompt - (r->max_new > 0)) {
            if (r->max_new == 0) {
                r->ended = true;
                sched_finish(m->sched, m->now_ns / 1000, r->id, &err);
            }
        }
    }
    if (sched_step_done(m->sched, m->now_ns / 1000, p->batch, &err) != 0)
        wrong(m, "%s", err.text);
    m->inside->n_under_way--;
    m->last_result_ns = m->now_ns;
    decide(m);
}

static void arrive(struct sim *m, struct sim_request *r)
{
    struct err err = {0};
    struct sched_seq spec = {.id = r->id, .tokens = r->tokens, .n_prompt = r->n_prompt, .max_new = r->max_new, .flags = r->flags,
                             .priority = r->priority, .salt = r->salt};
    if (sched_add(m->sched, m->now_ns / 1000, &spec, &err) != 0) {
        r->refused = r->ended = true;
        if (err.kind != ERR_LIMIT && err.kind != ERR_BUSY)
            wrong(m, "%s", err.text);
    }
    r->added = true;
    decide(m);
}

static void cancel(struct sim *m, struct sim_request *r)
{
    struct err err;
    if (r->ended || !r->added)
        return;
    r->ended = r->refused = true;
    if (sched_cancel(m->sched, m->now_ns / 1000, r->id, &err) != 0)
        wrong(m, "%s", err.text);
    decide(m);
}

static void poison(struct sim *m, uint32_t layer)
{
    size_t n = (size_t)m->config.n_blocks[group_of(m, layer)] * m->config.block;
    for (size_t i = 0; i < n && m->hash; i++)
        m->inside->kv[layer][i] = mix(m->seed + m->now_ns + i);
}

static void clear_workers(struct sim *m)
{
    struct sim_inside *in = m->inside;
    for (uint32_t s = 0; s < SCHED_MAX_STAGES && in->workers[s].open; s++) {
        struct worker *w = &in->workers[s];
        w->first = w->last = NULL;
        w->busy = false;
        memset(w->open, 0, m->config.max_seqs * sizeof *w->open);
        for (int g = 0; g < SCHED_GROUPS; g++)
            memset(w->table[g], 0xff, (size_t)m->config.max_seqs * in->stride * sizeof *w->table[g]);
    }
}

static void fault(struct sim *m, const struct sim_fault *f)
{
    struct sim_inside *in = m->inside;
    struct sched_reset r = {.n_stages = f->n_stages, .lost_through = f->lost_through, .n_blocks = {f->n_blocks[0], f->n_blocks[1]}, .costs = &m->truth};
    struct err err;
    uint32_t lost = f->lost_through < 0 ? 0 : f->first_layer[f->lost_through + 1];
    in->epoch++;
    in->n_under_way = 0;
    clear_workers(m);
    memcpy(m->first_layer, f->first_layer, sizeof m->first_layer);
    m->config.n_stages = f->n_stages;
    if (f->n_blocks[0] || f->n_blocks[1]) {
        lost = m->n_layers;
        memcpy(m->config.n_blocks, f->n_blocks, sizeof f->n_blocks);
    }
    for (uint32_t l = 0; l < lost; l++)
        poison(m, l);
    if (sched_reset(m->sched, m->now_ns / 1000, &r, &err) != 0)
        wrong(m, "%s", err.text);
    decide(m);
}

/* --- running ------------------------------------------------------------------------------------------------------------- */

void sim_init(struct sim *m, const struct sched_config *config, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->config = *config;
    m->truth = config->costs;
    m->seed = seed;
    m->n_layers = config->n_stages > 4 ? config->n_stages : 4;
    for (uint32_t s = 0; s <= config->n_stages && s <= SIM_MAX_LAYERS; s++)
        m->first_layer[s] = s * m->n_layers / config->n_stages;
}

struct sim_request *sim_request(struct sim *m, uint64_t arrive_us, uint32_t n_prompt, uint32_t max_new)
{
    struct sim_request *r;
    if (m->n_requests == m->cap_requests) {
        m->cap_requests = m->cap_requests ? 2 * m->cap_requests : 64;
        m->requests = realloc(m->requests, m->cap_requests * sizeof *m->requests);
    }
    r = &m->requests[m->n_requests++];
    *r = (struct sim_request){.id = m->n_requests, .n_prompt = n_prompt, .max_new = max_new, .n_answer = max_new, .arrive_us = arrive_us, .n_tokens = n_prompt};
    r->tokens = get((size_t)n_prompt + max_new + 1, sizeof *r->tokens);
    return r;
}

struct sim_fault *sim_fault(struct sim *m, uint64_t at_us)
{
    struct sim_fault *f;
    m->faults = realloc(m->faults, ((size_t)m->n_faults + 1) * sizeof *m->faults);
    f = &m->faults[m->n_faults++];
    *f = (struct sim_fault){.at_us = at_us, .n_stages = m->config.n_stages, .lost_through = -1};
    memcpy(f->first_layer, m->first_layer, sizeof f->first_layer);
    return f;
}

static void prepare(struct sim *m)
{
    struct sim_inside *in = m->inside = get(1, sizeof *in);
    uint32_t n = m->n_faults ? SIM_MAX_LAYERS : m->config.n_stages;
    in->stride = (m->config.ctx + m->config.block - 1) / m->config.block;
    for (uint32_t s = 0; s < n; s++) {
        in->workers[s].open = get(m->config.max_seqs, sizeof *in->workers[s].open);
        for (int g = 0; g < SCHED_GROUPS; g++)
            in->workers[s].table[g] = get((size_t)m->config.max_seqs * in->stride, sizeof(uint32_t));
    }
    clear_workers(m);
    for (uint32_t l = 0; l < m->n_layers && m->hash; l++) {
        in->kv[l] = get((size_t)m->config.n_blocks[group_of(m, l)] * m->config.block, sizeof *in->kv[l]);
        poison(m, l);
    }
    for (uint32_t i = 0; i < m->n_requests; i++) {
        push(m, m->requests[i].arrive_us * 1000, ARRIVE, i, NULL);
        if (m->requests[i].cancel_us)
            push(m, m->requests[i].cancel_us * 1000, CANCEL, i, NULL);
    }
    for (uint32_t i = 0; i < m->n_faults; i++)
        push(m, m->faults[i].at_us * 1000, FAULT, i, NULL);
}

static void happen(struct sim *m, const struct event *e)
{
    if (e->frame && e->frame->epoch != m->inside->epoch)
        return; /* lost with its epoch; freed at the end */
    switch (e->what) {
    case ARRIVE:
        arrive(m, &m->requests[e->index]);
        break;
    case CANCEL:
        cancel(m, &m->requests[e->index]);
        break;
    case FAULT:
        fault(m, &m->faults[e->index]);
        break;
    case ENTER:
        enter(m, e->index, e->frame);
        break;
    case LEAVE:
        leave(m, e->index, e->frame);
        break;
    case RESULT:
        result(m, e->frame);
        if (e->frame->step.stop_stage + 1 >= m->config.n_stages)
            frame_free(m, e->frame);
        break;
    }
}

bool sim_run(struct sim *m)
{
    struct err err = {0};
    struct sched_stats stats;
    if (!m->sched && !(m->sched = sched_create(&m->config, &err))) {
        wrong(m, "%s", err.text);
        return false;
    }
    if (!m->inside)
        prepare(m);
    while (m->inside->n > 0 && !m->wrong[0]) {
        struct event e = pop(m);
        const char *said;
        m->now_ns = e.at_ns;
        happen(m, &e);
        if (m->hash && (said = sim_check(m->sched)))
            wrong(m, "after an event of kind %d at %" PRIu64 " ns: %s", (int)e.what, e.at_ns, said);
    }
    for (uint32_t i = 0; i < m->n_requests; i++)
        if (!m->requests[i].ended)
            wrong(m, "sequence %u is not complete: %u of %u + %u tokens, nothing happens any more", i + 1, m->requests[i].n_tokens,
                  m->requests[i].n_prompt, m->requests[i].n_answer);
    sched_stats(m->sched, &stats);
    if (stats.n_running || stats.n_waiting || stats.in_flight || stats.blocks_used[0] || stats.blocks_used[1])
        wrong(m, "at the end %u run, %u wait, %u steps are under way, %u + %u blocks are used", stats.n_running, stats.n_waiting, stats.in_flight,
              stats.blocks_used[0], stats.blocks_used[1]);
    return !m->wrong[0];
}

void sim_fini(struct sim *m)
{
    struct sim_inside *in = m->inside;
    while (in && in->frames)
        frame_free(m, in->frames);
    for (uint32_t s = 0; in && s < SCHED_MAX_STAGES; s++) {
        free(in->workers[s].open);
        free(in->workers[s].table[0]);
        free(in->workers[s].table[1]);
    }
    for (uint32_t l = 0; in && l < SIM_MAX_LAYERS; l++)
        free(in->kv[l]);
    if (in)
        free(in->heap);
    free(in);
    for (uint32_t i = 0; i < m->n_requests; i++) {
        free(m->requests[i].tokens);
        free(m->requests[i].ref);
    }
    free(m->requests);
    free(m->faults);
    sched_destroy(m->sched);
}

/* --- the inside ---------------------------------------------------------------------------------------------------------- */

static const char *check_group(const struct sched *s, int g, uint32_t *count)
{
    static char text[200];
    const struct blocks *b = &s->blocks;
    uint32_t listed = 0, prev = BLOCKS_NONE;
    for (uint32_t i = 0; i < s->n_running; i++) {
        const struct seq *q = &s->seqs[s->running[i]];
        for (uint32_t k = 0; k < q->table.n; k++) {
            bool temp = k >= q->table.temp_from && k < q->table.temp_to;
            if (g == SCHED_SLIDING && k < q->table.slide_from && !temp)
                continue;
            if (q->table.nodes[k] == BLOCKS_NONE || !b->nodes[q->table.nodes[k]].alive || b->nodes[q->table.nodes[k]].block[g] == BLOCKS_NONE) {
                snprintf(text, sizeof text, "sequence %" PRIu64 " has no block of group %d at entry %u", q->id, g, k);
                return text;
            }
            count[b->nodes[q->table.nodes[k]].block[g]]++;
        }
    }
    for (uint32_t i = 0; i < b->n_free[g]; i++)
        if (count[b->free_ids[g][i]]++ != 0)
            return "a free block is in use, or free twice";
    for (uint32_t id = b->lru_head[g]; id != BLOCKS_NONE; prev = id, id = b->blocks[g][id].lru_next, listed++) {
        if (count[id]++ != 0 || b->blocks[g][id].ref != 0)
            return "a cached block is in use or free";
        if (b->blocks[g][id].lru_prev != prev || b->nodes[b->blocks[g][id].node].block[g] != id)
            return "the list of cached blocks is broken";
    }
    if (listed != b->n_lru[g])
        return "the list of cached blocks has another length";
    for (uint32_t id = 0; id < b->n_blocks[g]; id++)
        if (count[id] == 0)
            return "a block is lost";
    for (uint32_t i = 0; i < b->n_free[g]; i++)
        count[b->free_ids[g][i]] = 0;
    for (uint32_t id = b->lru_head[g]; id != BLOCKS_NONE; id = b->blocks[g][id].lru_next)
        count[id] = 0;
    for (uint32_t id = 0; id < b->n_blocks[g]; id++)
        if (count[id] != 0 && count[id] != b->blocks[g][id].ref)
            return "a block is held by another number of tables than it counts";
    return NULL;
}

const char *sim_check(const struct sched *s)
{
    const char *said = NULL;
    for (int g = 0; g < SCHED_GROUPS && !said; g++) {
        uint32_t *count;
        if (!blocks_has(&s->blocks, g))
            continue;
        count = get(s->blocks.n_blocks[g], sizeof *count);
        said = check_group(s, g, count);
        free(count);
    }
    return said;
}
