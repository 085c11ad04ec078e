/* Steps between the schedule and the wire: what sched decides becomes frames to the first stage; results of the last stage, and
 * every stage's word that it is done, become events of the schedule and tokens of requests. Nothing here allocates once
 * steps_init is done. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cluster.h"

enum { OPEN_TOKENS_SLACK = 1 << 16 };

/* The largest frame: a step that opens slots carries their tokens. */
static size_t head_bytes(const struct engine *e)
{
    size_t most = (size_t)e->parallel * e->ctx * 4 + (size_t)e->max_rows * 32 + OPEN_TOKENS_SLACK;
    return most < CODEC_MAX_HEAD ? most : CODEC_MAX_HEAD;
}

int steps_init(struct engine *e, struct err *err)
{
    e->head_cap = head_bytes(e);
    e->n_flights = SCHED_MAX_IN_FLIGHT;
    if (!(e->head = mem_new(e->head_cap, 1, err)) || !(e->ops = mem_new(MSG_MAX_OPS, sizeof *e->ops, err)) ||
        !(e->deltas = mem_new(MSG_MAX_DELTAS, sizeof *e->deltas, err)) || !(e->row_slot = mem_new(e->max_rows, sizeof *e->row_slot, err)) ||
        !(e->row_pos = mem_new(e->max_rows, sizeof *e->row_pos, err)) ||
        !(e->row_token = mem_new(e->max_rows, sizeof *e->row_token, err)) || !(e->wants = mem_new(e->max_wanted, sizeof *e->wants, err)) ||
        !(e->flights = mem_new(e->n_flights, sizeof *e->flights, err)))
        return -1;
    for (uint32_t i = 0; i < e->n_flights; i++)
        if (!(e->flights[i].wants = mem_new(e->max_wanted, sizeof *e->flights[i].wants, err)) ||
            !(e->flights[i].seqs = mem_new(e->parallel, sizeof *e->flights[i].seqs, err)))
            return -1;
    return 0;
}

void steps_fini(struct engine *e)
{
    for (uint32_t i = 0; e->flights && i < e->n_flights; i++) {
        free(e->flights[i].wants);
        free(e->flights[i].seqs);
    }
    free(e->flights);
    free(e->head);
    free(e->ops);
    free(e->deltas);
    free(e->row_slot);
    free(e->row_pos);
    free(e->row_token);
    free(e->wants);
    sched_destroy(e->sched);
    if (e->trace && fclose(e->trace) != 0)
        engine_event_text(e, ENGINE_NOTE_TROUBLE, NULL, "the trace %s is not complete: %s", e->options.trace_path, strerror(errno));
}

void steps_begin(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_flights; i++)
        e->flights[i].batch = 0;
    activity_begun(&e->activity, e->pipe.epoch.counter, e->pipe.n_stages, e->now_us);
    e->n_masks_due = e->n_masks_ahead = 0;
}

void steps_fail_flying(struct engine *e, const struct err *err)
{
    for (uint32_t i = 0; i < e->n_flights; i++)
        for (uint32_t k = 0; e->flights[i].batch && k < e->flights[i].n_seqs; k++) {
            struct engine_request *r = engine_find(e, e->flights[i].seqs[k].seq);
            if (r)
                engine_fail(e, r, err);
        }
}

/* batch 0: one that is free. */
static struct flight *find_flight(struct engine *e, uint64_t batch)
{
    for (uint32_t i = 0; i < e->n_flights; i++)
        if (e->flights[i].batch == batch)
            return &e->flights[i];
    return NULL;
}

/* --- out ----------------------------------------------------------------------------------------------------------------- */

static struct msg_sample wire_sample(const struct sample_params *p)
{
    return (struct msg_sample){
        .temperature = p->temperature,
        .top_k = p->top_k,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .typical_p = p->typical_p,
        .repetition_penalty = p->repetition_penalty,
        .presence_penalty = p->presence_penalty,
        .frequency_penalty = p->frequency_penalty,
        .penalty_last = p->penalty_last,
        .seed = p->seed,
        .bias = (const struct msg_bias *)p->bias,
        .n_bias = p->n_bias,
    };
}

static void put_ops(struct engine *e, const struct sched_step *s, struct msg_step *m)
{
    for (uint32_t i = 0; i < s->n_ops; i++) {
        const struct sched_op *from = &s->ops[i];
        struct msg_op *op = &e->ops[i];
        *op = (struct msg_op){.slot = from->slot};
        if (from->kind == SCHED_COPY) {
            op->kind = OP_BLOCK_COPY;
            op->group = from->group;
            op->from = from->src;
            op->to = from->dst;
        } else if (from->kind == SCHED_CLOSE) {
            op->kind = OP_SEQ_CLOSE;
        } else {
            const struct engine_request *r = engine_find(e, from->seq);
            op->kind = OP_SEQ_OPEN;
            op->seq = from->seq;
            op->tokens = r ? r->tokens : NULL; /* gone already: the slot is opened empty, and closed soon */
            op->n_tokens = r ? from->n : 0;
            op->choice = r ? r->params.choice : 0;
            op->sample = wire_sample(r ? &r->params.sample : &SAMPLE_PARAMS_DEFAULT);
        }
    }
    m->ops = e->ops;
    m->n_ops = s->n_ops;
}

static void put_deltas(struct engine *e, const struct sched_step *s, struct msg_step *m)
{
    for (uint32_t i = 0; i < s->n_deltas; i++) {
        const struct sched_delta *d = &s->deltas[i];
        e->deltas[i] =
            (struct msg_delta){.slot = d->slot, .group = d->group, .index = d->index, .blocks = d->blocks, .n_blocks = d->n_blocks};
    }
    m->deltas = e->deltas;
    m->n_deltas = s->n_deltas;
}

static void put_want(struct engine *e, struct flight *f, const struct sched_row *row, uint32_t i, struct msg_step *m)
{
    const struct engine_request *r = engine_find(e, row->seq);
    struct msg_want *w = &e->wants[m->n_wants++];

    f->wants[f->n_wants++] = (struct flight_want){.seq = row->seq, .row = i, .pos = row->pos, .want = row->want};
    *w = (struct msg_want){.row = i, .flags = row->want == SCHED_WANT_SAMPLE ? WANT_SAMPLE : 0};
    if (r && r->params.top && (row->want == SCHED_WANT_SAMPLE || r->params.prompt_top)) {
        w->flags |= WANT_TOP;
        w->top = r->params.top;
    }
    if (r && r->params.prompt_given && row->want != SCHED_WANT_SAMPLE && row->pos + 1 < r->params.n_tokens) {
        w->flags |= WANT_GIVEN;
        w->given = &r->params.tokens[row->pos + 1];
        w->n_given = 1;
    }
    if (r && r->walk && row->want == SCHED_WANT_SAMPLE) {
        w->flags |= WANT_MASK;
        f->wants[f->n_wants - 1].mask_due = true;
        f->n_masks_due++;
        e->n_masks_due++;
    }
    if (r && r->params.hidden && row->pos < r->params.n_tokens)
        w->flags |= WANT_HIDDEN;
    if (!w->flags) { /* its request is gone, but its result is still waited for */
        w->flags = WANT_TOP;
        w->top = 1;
    }
}

static void put_rows(struct engine *e, struct flight *f, const struct sched_step *s, struct msg_step *m)
{
    f->n_wants = f->n_seqs = f->n_masks_due = f->n_masks_ahead = 0;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        const struct sched_row *row = &s->rows[i];
        e->row_slot[i] = row->slot;
        e->row_pos[i] = row->pos;
        e->row_token[i] = row->token;
        if (f->n_seqs == 0 || f->seqs[f->n_seqs - 1].seq != row->seq)
            f->seqs[f->n_seqs++].seq = row->seq;
        f->seqs[f->n_seqs - 1].end = row->pos + 1;
        if (row->want != SCHED_WANT_NONE)
            put_want(e, f, row, i, m);
    }
    m->n_rows = s->n_rows;
    m->slot = e->row_slot;
    m->pos = e->row_pos;
    m->token = e->row_token;
    m->wants = e->wants;
}

/* 0, or -1 when the link cannot take it: then the epoch is over. */
static int send_step(struct engine *e, const struct msg *m)
{
    struct err err;
    size_t len;
    if (codec_encode(e->data_codec, m, e->head, e->head_cap, &len, &err) == 0) {
        enum wire_sent sent = wire_send(e->pipe.first, MSG_STEP, e->head, len, NULL, 0, NULL, NULL, &err);
        if (sent == WIRE_SENT)
            return 0;
        if (sent == WIRE_BLOCKED)
            err_set(&err, ERR_BUSY, "the link to the first stage takes no more steps");
    }
    pipeline_break(e, err.text);
    return -1;
}

static int send_sched_step(struct engine *e, const struct sched_step *s)
{
    struct flight *f = find_flight(e, 0);
    struct msg m = {.type = MSG_STEP, .step = {.epoch = e->pipe.epoch, .batch = s->batch, .stop_stage = MSG_STOP_NONE}};

    if (s->stop_stage + 1 < e->pipe.n_stages)
        m.step.stop_stage = s->stop_stage;
    f->batch = s->batch;
    f->stop_stage = s->stop_stage;
    f->n_rows = s->n_rows;
    f->sent_us = e->now_us;
    put_ops(e, s, &m.step);
    put_deltas(e, s, &m.step);
    put_rows(e, f, s, &m.step);
    activity_sent(&e->activity, f->batch, f->n_rows, f->n_wants, e->now_us);
    return send_step(e, &m);
}

/* The chain's test: a step without rows, which every stage passes on and the last answers. Batch numbers of the schedule begin
 * with 1 and grow; this one is beyond them. */
int steps_send_test(struct engine *e)
{
    struct msg m = {.type = MSG_STEP, .step = {.epoch = e->pipe.epoch, .batch = UINT64_MAX, .stop_stage = MSG_STOP_NONE}};
    return send_step(e, &m);
}

void steps_pump(struct engine *e)
{
    struct sched_action a;
    struct engine_request *r;

    while (sched_poll(e->sched, (uint64_t)e->now_us, &a))
        switch (a.kind) {
        case SCHED_STEP:
            if (send_sched_step(e, &a.step) != 0)
                return;
            break;
        case SCHED_ADMITTED:
            if ((r = engine_find(e, a.seq)))
                request_add_progress(r, a.n, a.n);
            break;
        case SCHED_PREEMPTED:
            break;
        case SCHED_DROPPED:
            if ((r = engine_find(e, a.seq))) {
                struct err err;
                err_set(&err, ERR_MEMORY, "%s", a.text);
                engine_fail(e, r, &err);
            }
            break;
        }
}

/* --- back ---------------------------------------------------------------------------------------------------------------- */

/* A step is complete: prompts have got further. */
static void land(struct engine *e, struct flight *f)
{
    struct err err;
    for (uint32_t i = 0; i < f->n_seqs; i++) {
        struct engine_request *r = engine_find(e, f->seqs[i].seq);
        if (r && r->n_answer == 0 && f->stop_stage + 1 == e->pipe.n_stages)
            request_add_progress(r, f->seqs[i].end < r->params.n_tokens ? f->seqs[i].end : r->params.n_tokens, r->n_cached);
    }
    uint64_t batch = f->batch;
    f->batch = 0;
    activity_landed(&e->activity, batch, e->now_us);
    e->n_masks_due -= f->n_masks_due;
    e->n_masks_ahead -= f->n_masks_ahead;
    e->pipe.landed = true;
    if (sched_step_done(e->sched, (uint64_t)e->now_us, batch, &err) != 0)
        engine_event_text(e, ENGINE_NOTE_TROUBLE, NULL, "our own fault: %s", err.text);
}

/* Rules for the end of an answer, after a token was added. */
static void add_token(struct engine *e, struct engine_request *r, const struct msg_result_row *row)
{
    struct err err;
    if (r->n_answer == 0)
        r->first_us = e->now_us;
    request_add_token(r, row->token, row->logprob, row->top_tokens, row->top_logprobs, (uint32_t)row->n_top);
    e->n_tokens++;
    if (sched_token(e->sched, (uint64_t)e->now_us, r->id, row->token, &err) != 0) {
        engine_fail(e, r, &err);
        return;
    }
    if (request_is_stop(r, row->token))
        engine_finish(e, r, ENGINE_STOP);
    else if (r->n_answer == r->params.n_new)
        engine_finish(e, r, ENGINE_LENGTH);
    else if (r->n_tokens >= e->ctx)
        engine_finish(e, r, ENGINE_CONTEXT);
    else
        masks_ask(e, r, row->token);
}

static void take_row(struct engine *e, const struct flight_want *want, const struct msg_result_row *row, const float *hidden)
{
    struct engine_request *r = engine_find(e, want->seq);
    if (!r)
        return;
    if (request_wants_prompt(r) && want->pos < r->params.n_tokens - (want->want == SCHED_WANT_SAMPLE ? 1 : 0))
        request_add_prompt(r, want->pos, row->top_tokens, row->top_logprobs, (uint32_t)row->n_top, row->n_given ? row->given[0] : 0);
    if (hidden)
        request_add_hidden(r, want->pos, hidden);
    if (want->want == SCHED_WANT_SAMPLE)
        add_token(e, r, row);
    else if (want->pos + 1 == r->params.n_tokens && r->params.n_new == 0)
        engine_finish(e, r, ENGINE_LENGTH);
}

/* Every want of the flight must be answered, in order. */
static int take_rows(struct engine *e, struct flight *f, const struct msg_result *m, const float *hidden, struct err *err)
{
    if (m->n_rows != f->n_wants)
        return err_set(err, ERR_INPUT, "the last stage answered %zu rows of batch %" PRIu64 ", %u were asked for", m->n_rows, m->batch,
                       f->n_wants);
    for (uint32_t i = 0; i < f->n_wants; i++) {
        const struct msg_result_row *row = &m->rows[i];
        bool has_hidden = (row->flags & WANT_HIDDEN) != 0;
        if (row->row != f->wants[i].row || (f->wants[i].want == SCHED_WANT_SAMPLE && !(row->flags & WANT_SAMPLE)))
            return err_set(err, ERR_INPUT, "the last stage answered row %u of batch %" PRIu64 ", row %u was next", row->row, m->batch,
                           f->wants[i].row);
        take_row(e, &f->wants[i], row, has_hidden ? hidden : NULL);
        if (has_hidden)
            hidden += m->embd;
    }
    return 0;
}

void steps_result(struct engine *e, struct wire_frame *frame)
{
    struct err err;
    struct msg m;
    struct flight *f;

    if (codec_decode(e->data_codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err) != 0) {
        wire_frame_release(frame);
        pipeline_break(e, err.text);
        return;
    }
    if (m.type == MSG_RESULT && msg_epoch_same(m.result.epoch, e->pipe.epoch)) {
        if (m.result.error[0]) {
            pipeline_break_by_step(e, m.result.error);
        } else if (m.result.batch == UINT64_MAX) {
            pipeline_tested(e);
        } else if (m.result.batch && (f = find_flight(e, m.result.batch))) {
            if (take_rows(e, f, &m.result, (const float *)frame->payload, &err) == 0)
                land(e, f);
            else
                pipeline_break(e, err.text);
        }
    }
    wire_frame_release(frame);
}

void steps_stage_done(struct engine *e, const struct msg_stage_done *done)
{
    struct flight *f;
    struct pipe_stage *s = &e->pipe.stages[done->stage];
    uint64_t took = done->ended_us > done->started_us ? done->ended_us - done->started_us : 0;
    int64_t offset_us = e->nodes[s->node].clock_offset_us;

    if (!e->sched || done->batch == UINT64_MAX)
        return;
    /* From the first one on it is an average, not what is left of zero. */
    double weight = e->activity.stages[done->stage].batches ? 0.1 : 1;
    s->compute_us += weight * ((double)took - s->compute_us);
    activity_stage_done(&e->activity,
                        &(struct activity_record){.kind = ACTIVITY_STAGE,
                                                  .batch = done->batch,
                                                  .stage = done->stage,
                                                  .at_us = (int64_t)done->received_us - offset_us,
                                                  .started_us = (int64_t)done->started_us - offset_us,
                                                  .ended_us = (int64_t)done->ended_us - offset_us,
                                                  .rows = done->rows,
                                                  .bytes = done->bytes},
                        e->now_us);
    sched_measured(e->sched, (uint64_t)e->now_us, done->batch, done->stage, took);
    /* Steps with wants are complete with their result. */
    if (done->batch && (f = find_flight(e, done->batch)) && f->n_wants == 0 && f->stop_stage == done->stage)
        land(e, f);
}
