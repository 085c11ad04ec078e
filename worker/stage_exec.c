/* See stage_exec.h. A step is taken in four parts, and memory of the model is touched only in the last two:
 *   1. operations and table entries change the slots and tables, which are ours, each after its own check;
 *   2. rows and wants are checked against them;
 *   3. block copies, in their order, then the layers;
 *   4. the sampler, for the wanted rows side by side.
 * A failure in 1 or 2 leaves slots that may be half changed: they are closed, so that nothing goes on from there. */
#include "worker/stage_exec.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/answer.h"
#include "proto/act.h"

enum { NO_BLOCK = UINT32_MAX };

struct slot {
    bool open;
    uint32_t choice;
    uint32_t n_known;  /* positions whose token is known: rows may begin at or before this one */
    uint32_t filled;   /* entries of the KV_FULL table that are set without a gap from 0 */
    uint64_t touched;  /* the last step with a row of it: its rows stand in order there … */
    uint32_t first, next; /* … from the first position to before the next */
    struct sample_params sample; /* bias: in ours */
};

struct stage_exec {
    struct stage *stage;
    struct stage_exec_config c;
    bool uses[KV_GROUPS];
    struct slot *slots;
    uint32_t *table[KV_GROUPS]; /* max_seqs × table_stride */
    size_t table_bytes;
    uint64_t n_steps;
    float *unpacked; /* max_rows × embd: rows that came in another form than f32 */
    size_t unpacked_bytes;

    /* At the last stage. */
    int32_t *history; /* max_seqs × ctx */
    size_t history_bytes;
    struct sample_bias *bias; /* max_seqs × SAMPLE_MAX_BIAS */
    size_t bias_bytes;
    uint32_t *wanted;
    struct msg_result_row *rows;
    const uint8_t **masks;
    int32_t *top_tokens;
    float *top_logprobs, *given;
    size_t top_bytes, given_bytes;
    struct answerer *answerer;
    struct answer *answers;
    struct sample_params *params; /* of each */
    stage_exec_mask_fn mask;
    void *mask_arg;
    char error_text[MSG_MAX_TEXT + 1];
};

/* --- making ------------------------------------------------------------------------------------------------------------- */

static size_t table_bytes_of(const struct stage_config *s)
{
    return (size_t)s->max_seqs * s->table_stride * sizeof(uint32_t);
}

uint64_t stage_exec_bytes(const struct stage_exec_config *c)
{
    const struct stage_config *s = &c->shape;
    uint64_t bytes = 2 * table_bytes_of(s);
    if (!s->embed)
        bytes += (uint64_t)s->max_rows * c->params->embd * sizeof(float);
    if (s->head)
        bytes += (uint64_t)s->max_seqs * s->ctx * sizeof(int32_t);
    return bytes;
}

size_t stage_exec_out_bytes(const struct stage_exec_config *c)
{
    if (c->shape.head)
        return (size_t)c->shape.max_wanted * c->params->embd * sizeof(float);
    return c->shape.max_rows * act_row_bytes(c->act_out, c->params->embd);
}

static int check_shape(const struct stage_exec *e, struct err *err)
{
    const struct stage_config *s = &e->c.shape;
    if (s->max_rows == 0 || s->max_seqs == 0 || s->ctx == 0)
        return err_set(err, ERR_INPUT, "a stage for %u rows, %u sequences and %u positions: none may be 0", s->max_rows, s->max_seqs, s->ctx);
    if ((uint64_t)s->table_stride * KV_BLOCK < s->ctx)
        return err_set(err, ERR_INPUT, "tables of %u blocks of %d positions do not reach a context of %u", s->table_stride, KV_BLOCK, s->ctx);
    for (int g = 0; g < KV_GROUPS; g++)
        if (e->uses[g] && s->n_blocks[g] == 0)
            return err_set(err, ERR_INPUT, "no KV blocks for %s, but layers %u-%u have some", g == KV_FULL ? "full attention" : "sliding windows",
                           s->first, s->last - 1);
    return 0;
}

/* Large and mostly untouched: pages that nobody writes to cost nothing. */
static int make_last(struct stage_exec *e, struct threadpool *team, struct err *err)
{
    const struct stage_config *s = &e->c.shape;
    e->history_bytes = (size_t)s->max_seqs * s->ctx * sizeof *e->history;
    e->bias_bytes = (size_t)s->max_seqs * SAMPLE_MAX_BIAS * sizeof *e->bias;
    e->top_bytes = (size_t)s->max_wanted * SAMPLE_MAX_TOP * sizeof *e->top_tokens;
    e->given_bytes = (size_t)MSG_MAX_GIVEN_ALL * sizeof *e->given;
    return (e->history = mem_pages_alloc(e->history_bytes, err)) && (e->bias = mem_pages_alloc(e->bias_bytes, err)) &&
                   (e->top_tokens = mem_pages_alloc(e->top_bytes, err)) && (e->top_logprobs = mem_pages_alloc(e->top_bytes, err)) &&
                   (e->given = mem_pages_alloc(e->given_bytes, err)) && (e->wanted = mem_new(s->max_wanted, sizeof *e->wanted, err)) &&
                   (e->rows = mem_new(s->max_wanted, sizeof *e->rows, err)) && (e->masks = mem_new(s->max_wanted, sizeof *e->masks, err)) &&
                   (e->answers = mem_new(s->max_wanted, sizeof *e->answers, err)) && (e->params = mem_new(s->max_wanted, sizeof *e->params, err)) &&
                   (e->answerer = answerer_create(stage_answering(e->stage), e->c.params->n_vocab, e->c.isa, team, err))
               ? 0
               : -1;
}

struct stage_exec *stage_exec_create(struct stage *stage, const struct stage_exec_config *config, struct threadpool *team,
                                     stage_exec_mask_fn mask, void *mask_arg, struct err *err)
{
    struct stage_exec *e = mem_new(1, sizeof *e, err);
    if (!e)
        return NULL;
    e->stage = stage;
    e->c = *config;
    e->mask = mask;
    e->mask_arg = mask_arg;
    const struct model_params *p = config->params;
    for (uint32_t i = config->shape.first; i < config->shape.last; i++)
        e->uses[p->window && p->sliding[i] ? KV_SLIDING : KV_FULL] = true;
    if (check_shape(e, err) != 0 || !(e->slots = mem_new(config->shape.max_seqs, sizeof *e->slots, err)))
        goto error;
    e->table_bytes = table_bytes_of(&config->shape);
    for (int g = 0; g < KV_GROUPS; g++)
        if (!(e->table[g] = mem_pages_alloc(e->table_bytes, err)))
            goto error;
    e->unpacked_bytes = config->shape.embed ? 1 : (size_t)config->shape.max_rows * p->embd * sizeof *e->unpacked;
    if (!(e->unpacked = mem_pages_alloc(e->unpacked_bytes, err)))
        goto error;
    if (config->shape.head && make_last(e, team, err) != 0)
        goto error;
    return e;
error:
    stage_exec_destroy(e);
    return NULL;
}

void stage_exec_destroy(struct stage_exec *e)
{
    if (!e)
        return;
    for (int g = 0; g < KV_GROUPS; g++)
        mem_pages_free(e->table[g], e->table_bytes);
    mem_pages_free(e->unpacked, e->unpacked_bytes);
    mem_pages_free(e->history, e->history_bytes);
    mem_pages_free(e->bias, e->bias_bytes);
    mem_pages_free(e->top_tokens, e->top_bytes);
    mem_pages_free(e->top_logprobs, e->top_bytes);
    mem_pages_free(e->given, e->given_bytes);
    answerer_destroy(e->answerer);
    free(e->answers);
    free(e->params);
    free(e->wanted);
    free(e->rows);
    free(e->masks);
    free(e->slots);
    free(e);
}

/* --- sequences ---------------------------------------------------------------------------------------------------------- */

static uint32_t *table_of(struct stage_exec *e, int group, uint32_t slot)
{
    return e->table[group] + (size_t)slot * e->c.shape.table_stride;
}

static struct slot *slot_at(struct stage_exec *e, uint32_t slot, const char *what, struct err *err)
{
    if (slot < e->c.shape.max_seqs)
        return &e->slots[slot];
    err_set(err, ERR_INPUT, "%s: slot %u, this stage has 0 to %u", what, slot, e->c.shape.max_seqs - 1);
    return NULL;
}

static struct slot *open_slot_at(struct stage_exec *e, uint32_t slot, const char *what, struct err *err)
{
    struct slot *s = slot_at(e, slot, what, err);
    if (!s || s->open)
        return s;
    err_set(err, ERR_INPUT, "%s: slot %u is not open", what, slot);
    return NULL;
}

static int check_tokens(const struct stage_exec *e, const int32_t *tokens, size_t n, const char *what, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= e->c.params->n_vocab)
            return err_set(err, ERR_INPUT, "%s: token %d, the vocabulary has 0 to %u", what, tokens[i], e->c.params->n_vocab - 1);
    return 0;
}

static int set_sample(struct stage_exec *e, uint32_t slot, const struct msg_sample *m, struct err *err)
{
    struct sample_bias *bias = e->bias + (size_t)slot * SAMPLE_MAX_BIAS;
    if (m->n_bias > SAMPLE_MAX_BIAS)
        return err_set(err, ERR_INPUT, "seq_open of slot %u: %zu biases, at most %d allowed", slot, m->n_bias, SAMPLE_MAX_BIAS);
    for (size_t i = 0; i < m->n_bias; i++)
        bias[i] = (struct sample_bias){m->bias[i].token, m->bias[i].bias};
    struct sample_params *p = &e->slots[slot].sample;
    *p = (struct sample_params){
        .temperature = m->temperature, .top_k = m->top_k, .top_p = m->top_p, .min_p = m->min_p, .typical_p = m->typical_p,
        .repetition_penalty = m->repetition_penalty, .presence_penalty = m->presence_penalty, .frequency_penalty = m->frequency_penalty,
        .penalty_last = m->penalty_last, .seed = m->seed, .n_bias = (uint32_t)m->n_bias, .bias = bias};
    if (sample_params_check(p, e->c.params->n_vocab, err) != 0) {
        err->kind = ERR_INPUT;
        return err_wrap(err, "seq_open of slot %u", slot);
    }
    return 0;
}

static int seq_open(struct stage_exec *e, const struct msg_op *op, struct err *err)
{
    struct slot *s = slot_at(e, op->slot, "seq_open", err);
    if (!s)
        return -1;
    if (s->open)
        return err_set(err, ERR_INPUT, "seq_open: slot %u is open already", op->slot);
    if (op->n_tokens > e->c.shape.ctx)
        return err_set(err, ERR_INPUT, "seq_open of slot %u: %zu tokens, the context has %u", op->slot, op->n_tokens, e->c.shape.ctx);
    if (check_tokens(e, op->tokens, op->n_tokens, "seq_open", err) != 0)
        return -1;
    *s = (struct slot){.open = true, .choice = op->choice, .n_known = (uint32_t)op->n_tokens};
    for (int g = 0; g < KV_GROUPS; g++)
        memset(table_of(e, g, op->slot), 0xff, e->c.shape.table_stride * sizeof(uint32_t)); /* NO_BLOCK */
    if (!e->c.shape.head)
        return 0;
    if (op->n_tokens)
        memcpy(e->history + (size_t)op->slot * e->c.shape.ctx, op->tokens, op->n_tokens * sizeof *op->tokens);
    return set_sample(e, op->slot, &op->sample, err);
}

static int seq_cut(struct stage_exec *e, const struct msg_op *op, struct err *err)
{
    struct slot *s = open_slot_at(e, op->slot, "seq_cut", err);
    if (!s)
        return -1;
    if (op->keep > s->n_known)
        return err_set(err, ERR_INPUT, "seq_cut: %u positions of slot %u to be kept, it has %u", op->keep, op->slot, s->n_known);
    s->n_known = op->keep;
    return 0;
}

static int check_copy(const struct stage_exec *e, const struct msg_op *op, struct err *err)
{
    if (op->group >= KV_GROUPS)
        return err_set(err, ERR_INPUT, "block_copy: group %u, allowed are 0 and 1", op->group);
    uint32_t n = e->c.shape.n_blocks[op->group];
    if (op->from >= n || op->to >= n)
        return err_set(err, ERR_INPUT, "block_copy: from %u to %u in group %u, which has %u blocks", op->from, op->to, op->group, n);
    return 0;
}

static int apply_op(struct stage_exec *e, const struct msg_op *op, struct err *err)
{
    struct slot *s;
    switch (op->kind) {
    case OP_SEQ_OPEN: return seq_open(e, op, err);
    case OP_SEQ_CUT: return seq_cut(e, op, err);
    case OP_BLOCK_COPY: return check_copy(e, op, err);
    case OP_SEQ_CLOSE:
        if (!(s = slot_at(e, op->slot, "seq_close", err)))
            return -1;
        s->open = false; /* it may be so already: a failed step closes */
        return 0;
    case OP_KINDS: break;
    }
    return err_set(err, ERR_INPUT, "operation of kind %d, which is unknown", (int)op->kind);
}

static int apply_delta(struct stage_exec *e, const struct msg_delta *d, struct err *err)
{
    struct slot *s = open_slot_at(e, d->slot, "table entries", err);
    if (!s)
        return -1;
    if (d->group >= KV_GROUPS)
        return err_set(err, ERR_INPUT, "table entries: group %u, allowed are 0 and 1", d->group);
    if (d->index > e->c.shape.table_stride || d->n_blocks > e->c.shape.table_stride - d->index)
        return err_set(err, ERR_INPUT, "table entries: %zu from %u on, a table has %u", d->n_blocks, d->index, e->c.shape.table_stride);
    uint32_t *table = table_of(e, (int)d->group, d->slot), n = e->c.shape.n_blocks[d->group];
    for (size_t i = 0; i < d->n_blocks; i++) {
        if (d->blocks[i] >= n)
            return err_set(err, ERR_INPUT, "table entries: block %u in group %u, which has %u", d->blocks[i], d->group, n);
        table[d->index + i] = d->blocks[i];
    }
    if (d->group == KV_FULL)
        while (s->filled < e->c.shape.table_stride && table[s->filled] != NO_BLOCK)
            s->filled++;
    return 0;
}

/* --- rows --------------------------------------------------------------------------------------------------------------- */

static int check_row(struct stage_exec *e, const struct msg_step *m, size_t i, struct err *err)
{
    struct slot *s = open_slot_at(e, m->slot[i], "row", err);
    if (!s)
        return -1;
    if (m->pos[i] >= e->c.shape.ctx)
        return err_set(err, ERR_INPUT, "row %zu: position %u of slot %u, the context has %u", i, m->pos[i], m->slot[i], e->c.shape.ctx);
    if (s->touched != e->n_steps) {
        if (m->pos[i] > s->n_known)
            return err_set(err, ERR_INPUT, "row %zu: position %u of slot %u, of which only %u are known", i, m->pos[i], m->slot[i], s->n_known);
        s->touched = e->n_steps;
        s->first = m->pos[i];
    } else if (m->pos[i] != s->next) {
        return err_set(err, ERR_INPUT, "row %zu: position %u of slot %u, the step's next one is %u", i, m->pos[i], m->slot[i], s->next);
    }
    s->next = m->pos[i] + 1;
    return check_tokens(e, &m->token[i], 1, "row", err);
}

/* Entries for everything that the slot's rows of this step will look at. */
static int check_table(struct stage_exec *e, uint32_t slot, struct err *err)
{
    const struct slot *s = &e->slots[slot];
    uint32_t last = (s->next - 1) / KV_BLOCK, missing = NO_BLOCK;
    if (e->uses[KV_FULL] && last >= s->filled)
        missing = s->filled;
    if (e->uses[KV_SLIDING]) {
        uint32_t window = e->c.params->window, seen = s->first >= window ? s->first - window + 1 : 0;
        const uint32_t *table = table_of(e, KV_SLIDING, slot);
        for (uint32_t i = seen / KV_BLOCK; i <= last && missing == NO_BLOCK; i++)
            if (table[i] == NO_BLOCK)
                missing = i;
    }
    if (missing == NO_BLOCK)
        return 0;
    return err_set(err, ERR_INPUT, "rows of slot %u up to position %u: entry %u of its block table is not set", slot, s->next - 1, missing);
}

static bool goes_through(const struct stage_exec *e, const struct msg_step *m)
{
    return m->stop_stage >= e->c.n_stages - 1;
}

static int check_rows(struct stage_exec *e, const struct msg_step *m, const void *payload, struct err *err)
{
    const struct stage_config *c = &e->c.shape;
    if (m->n_rows > c->max_rows)
        return err_set(err, ERR_INPUT, "%zu rows, this stage takes %u", m->n_rows, c->max_rows);
    if (m->n_rows && m->stop_stage < e->c.stage)
        return err_set(err, ERR_INPUT, "rows that end at stage %u came to stage %u", m->stop_stage, e->c.stage);
    if (m->n_rows && c->embed ? m->embd != 0 : m->n_rows && (m->embd != e->c.params->embd || !payload))
        return err_set(err, ERR_INPUT, "rows of %u values, this stage takes %u", m->embd, c->embed ? 0 : e->c.params->embd);
    for (size_t i = 0; i < m->n_rows; i++)
        if (check_row(e, m, i, err) != 0)
            return -1;
    for (size_t i = 0; i < m->n_rows; i++)
        if (m->pos[i] == e->slots[m->slot[i]].first && check_table(e, m->slot[i], err) != 0)
            return -1;
    return 0;
}

static int check_want(const struct stage_exec *e, const struct msg_step *m, size_t i, struct err *err)
{
    const struct msg_want *w = &m->wants[i];
    if (w->row >= m->n_rows || (i > 0 && w->row <= m->wants[i - 1].row))
        return err_set(err, ERR_INPUT, "want %zu: row %u of %zu; they ascend", i, w->row, m->n_rows);
    if (w->flags == 0 || (w->flags & ~(uint32_t)WANT_ALL) || ((w->flags & WANT_MASK) && !(w->flags & WANT_SAMPLE)))
        return err_set(err, ERR_INPUT, "want %zu: flags %#x make no sense", i, w->flags);
    if ((w->flags & WANT_TOP) && w->top > SAMPLE_MAX_TOP)
        return err_set(err, ERR_INPUT, "want %zu: the %u likeliest tokens, at most %d are given", i, w->top, SAMPLE_MAX_TOP);
    return w->flags & WANT_GIVEN ? check_tokens(e, w->given, w->n_given, "want", err) : 0;
}

static int check_wants(const struct stage_exec *e, const struct msg_step *m, struct err *err)
{
    size_t n_given = 0;
    if (m->n_wants == 0)
        return 0;
    if (!goes_through(e, m))
        return err_set(err, ERR_INPUT, "%zu rows wanted of a step that ends at stage %u", m->n_wants, m->stop_stage);
    if (e->c.shape.head && m->n_wants > e->c.shape.max_wanted)
        return err_set(err, ERR_INPUT, "%zu rows wanted, this stage gives %u", m->n_wants, e->c.shape.max_wanted);
    for (size_t i = 0; i < m->n_wants; i++) {
        if (check_want(e, m, i, err) != 0)
            return -1;
        n_given += m->wants[i].flags & WANT_GIVEN ? m->wants[i].n_given : 0;
    }
    if (n_given > MSG_MAX_GIVEN_ALL)
        return err_set(err, ERR_INPUT, "%zu given tokens in a step, at most %d allowed", n_given, MSG_MAX_GIVEN_ALL);
    return 0;
}

/* From here on the step is right. */
static void note_tokens(struct stage_exec *e, const struct msg_step *m)
{
    for (size_t i = 0; i < m->n_rows; i++) {
        struct slot *s = &e->slots[m->slot[i]];
        int32_t *known = e->history ? e->history + (size_t)m->slot[i] * e->c.shape.ctx : NULL;
        if (known && (m->pos[i] >= s->n_known || known[m->pos[i]] != m->token[i])) {
            known[m->pos[i]] = m->token[i];
            s->n_known = m->pos[i] + 1; /* what stood behind another token is no longer so */
        } else if (m->pos[i] >= s->n_known) {
            s->n_known = m->pos[i] + 1;
        }
    }
}

size_t stage_exec_passes(const struct stage_exec *e, const struct msg_step *m)
{
    bool on = !e->c.shape.head && m->stop_stage > e->c.stage && e->c.act_out == ACT_F32 && m->n_rows <= e->c.shape.max_rows;
    return on ? m->n_rows * act_row_bytes(ACT_F32, e->c.params->embd) : 0;
}

static int run_rows(struct stage_exec *e, const struct msg_step *m, const void *payload, const struct stage_peers *peers, struct err *err)
{
    struct batch batch = {.n_rows = (uint32_t)m->n_rows, .seq = m->slot, .pos = m->pos, .token = m->token, .wanted = e->wanted,
                          .table = {e->table[KV_FULL], e->table[KV_SLIDING]}, .table_stride = e->c.shape.table_stride};
    struct stage_path path = {.here = peers->here, .to = peers->to, .there = peers->there};
    for (size_t i = 0; i < m->n_ops; i++)
        if (m->ops[i].kind == OP_BLOCK_COPY)
            stage_copy_block(e->stage, (enum kv_group)m->ops[i].group, m->ops[i].from, m->ops[i].to);
    if (m->n_rows == 0)
        return 0;
    if (e->c.shape.head) {
        batch.n_wanted = (uint32_t)m->n_wants;
        batch.sampled = true;
        for (size_t i = 0; i < m->n_wants; i++) {
            e->wanted[i] = m->wants[i].row;
            batch.normed = batch.normed || m->wants[i].flags & WANT_HIDDEN;
        }
    }
    if (!e->c.shape.embed && !path.here)
        path.hidden = act_unpack(m->act, m->embd, m->n_rows, payload, e->unpacked);
    return stage_run_path(e->stage, &batch, &path, err);
}

/* --- the last stage ----------------------------------------------------------------------------------------------------- */

/* Places for what the wants will get, and masks. */
static int lay_results(struct stage_exec *e, const struct msg_step *m, struct err *err)
{
    size_t top = 0, given = 0;
    for (size_t i = 0; i < m->n_wants; i++) {
        const struct msg_want *w = &m->wants[i];
        struct msg_result_row *r = &e->rows[i];
        *r = (struct msg_result_row){.row = w->row, .flags = w->flags & ~(uint32_t)WANT_MASK, .top_tokens = e->top_tokens + top,
                                     .top_logprobs = e->top_logprobs + top, .given = e->given + given};
        top += w->flags & WANT_TOP ? w->top : 0;
        if (w->flags & WANT_GIVEN)
            given += r->n_given = w->n_given;
        if (!(w->flags & WANT_MASK))
            continue;
        if (!e->mask)
            return err_set(err, ERR_UNSUPPORTED, "row %u waits for a mask, but nobody can send one", w->row);
        if (!(e->masks[i] = e->mask(e->mask_arg, m->batch, w->row, (e->c.params->n_vocab + 7) / 8, err)))
            return -1;
    }
    return 0;
}

static void ask(struct stage_exec *e, const struct msg_step *m, uint32_t i, struct sample_params *p, struct answer *a)
{
    const struct msg_want *w = &m->wants[i];
    const struct msg_result_row *r = &e->rows[i];
    uint32_t slot = m->slot[w->row], pos = m->pos[w->row];
    *a = (struct answer){.wanted = i, .top = w->flags & WANT_TOP ? w->top : 0, .top_tokens = e->top_tokens + (r->top_tokens - e->top_tokens),
                         .top_logprobs = e->top_logprobs + (r->top_logprobs - e->top_logprobs), .given = w->given,
                         .n_given = w->flags & WANT_GIVEN ? (uint32_t)w->n_given : 0, .given_logprobs = e->given + (r->given - e->given)};
    if (!(w->flags & WANT_SAMPLE))
        return;
    *p = e->slots[slot].sample;
    p->mask = w->flags & WANT_MASK ? e->masks[i] : NULL;
    a->params = p;
    a->history = e->history + (size_t)slot * e->c.shape.ctx;
    a->n_history = a->position = pos + 1;
    a->choice = e->slots[slot].choice;
}

static int answer_wants(struct stage_exec *e, const struct msg_step *m, struct err *err)
{
    uint32_t n = 0, failed;
    if (lay_results(e, m, err) != 0)
        return -1;
    for (uint32_t i = 0; i < m->n_wants; i++)
        if (m->wants[i].flags & (WANT_SAMPLE | WANT_TOP | WANT_GIVEN)) {
            ask(e, m, i, &e->params[n], &e->answers[n]);
            n++;
        }
    if (answerer_answer(e->answerer, e->answers, n, &failed, err) != 0) {
        const struct msg_want *w = failed < n ? &m->wants[e->answers[failed].wanted] : NULL;
        return w ? err_wrap(err, "position %u of slot %u", m->pos[w->row], m->slot[w->row]) : -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct msg_result_row *r = &e->rows[e->answers[i].wanted];
        r->token = e->answers[i].token;
        r->logprob = e->answers[i].logprob;
        r->n_top = e->answers[i].n_top;
    }
    return 0;
}

static size_t copy_hidden(struct stage_exec *e, const struct msg_step *m, float *to)
{
    size_t n = 0, embd = e->c.params->embd;
    for (uint32_t i = 0; i < m->n_wants; i++)
        if (m->wants[i].flags & WANT_HIDDEN)
            memcpy(to + n++ * embd, stage_normed(e->stage, i), embd * sizeof *to);
    return n * embd * sizeof *to;
}

/* --- the step ----------------------------------------------------------------------------------------------------------- */

static int prepare(struct stage_exec *e, const struct msg_step *m, const void *payload, struct err *err)
{
    for (size_t i = 0; i < m->n_ops; i++)
        if (apply_op(e, &m->ops[i], err) != 0)
            return err_wrap(err, "operation %zu", i);
    for (size_t i = 0; i < m->n_deltas; i++)
        if (apply_delta(e, &m->deltas[i], err) != 0)
            return -1;
    if (check_rows(e, m, payload, err) != 0 || check_wants(e, m, err) != 0)
        return -1;
    note_tokens(e, m);
    return 0;
}

static void close_named(struct stage_exec *e, const struct msg_step *m)
{
    for (size_t i = 0; i < m->n_ops; i++)
        if (m->ops[i].kind != OP_BLOCK_COPY && m->ops[i].slot < e->c.shape.max_seqs)
            e->slots[m->ops[i].slot].open = false;
    for (size_t i = 0; i < m->n_deltas; i++)
        if (m->deltas[i].slot < e->c.shape.max_seqs)
            e->slots[m->deltas[i].slot].open = false;
    for (size_t i = 0; i < m->n_rows; i++)
        if (m->slot[i] < e->c.shape.max_seqs)
            e->slots[m->slot[i]].open = false;
}

static struct msg_result *begin_result(const struct msg_step *m, struct stage_out *ret)
{
    ret->msg.type = MSG_RESULT;
    ret->msg.result = (struct msg_result){.epoch = m->epoch, .batch = m->batch, .error = ""};
    return &ret->msg.result;
}

static void fail(struct stage_exec *e, const struct msg_step *m, struct stage_out *ret, const struct err *err)
{
    close_named(e, m);
    *ret = (struct stage_out){0};
    if (!e->c.shape.head)
        return;
    err_printable(e->error_text, sizeof e->error_text, err->text, strlen(err->text));
    begin_result(m, ret)->error = e->error_text;
}

static void pass_on(struct stage_exec *e, const struct msg_step *m, void *room, bool sent, struct stage_out *ret)
{
    struct msg_step *next = &ret->msg.step;
    ret->msg.type = MSG_STEP;
    *next = *m;
    next->act = e->c.act_out;
    next->embd = e->c.params->embd;
    if (m->stop_stage == e->c.stage)
        next->n_rows = 0;
    if (next->n_rows && !sent)
        act_pack(next->act, next->embd, next->n_rows, stage_hidden(e->stage), room);
    ret->payload_len = next->n_rows * act_row_bytes(next->act, next->embd);
}

int stage_exec_step(struct stage_exec *e, const struct msg_step *m, const void *payload, void *room, struct stage_out *ret, struct err *err)
{
    return stage_exec_step_between(e, m, payload, room, &(struct stage_peers){0}, ret, err);
}

int stage_exec_step_between(struct stage_exec *e, const struct msg_step *m, const void *payload, void *room, const struct stage_peers *peers,
                            struct stage_out *ret, struct err *err)
{
    struct err own = {0};
    *ret = (struct stage_out){0};
    e->n_steps++;
    if (prepare(e, m, peers->here ? peers->here : payload, &own) != 0 || run_rows(e, m, payload, peers, &own) != 0 || (e->c.shape.head && answer_wants(e, m, &own) != 0)) {
        err_wrap(&own, "batch %llu", (unsigned long long)m->batch);
        fail(e, m, ret, &own);
        if (err)
            *err = own;
        return -1;
    }
    ret->n_rows = (uint32_t)m->n_rows;
    if (!e->c.shape.head) {
        pass_on(e, m, room, peers->there != NULL, ret);
    } else if (m->n_wants || (m->n_rows == 0 && m->n_ops == 0 && m->n_deltas == 0 && goes_through(e, m))) {
        struct msg_result *r = begin_result(m, ret);
        r->rows = e->rows;
        r->n_rows = m->n_wants;
        r->embd = e->c.params->embd;
        ret->payload_len = copy_hidden(e, m, room);
    }
    return 0;
}
