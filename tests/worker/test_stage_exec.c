/* A pipeline in one process, without sockets: encoded steps go through 1, 2 and 3 stages as the coordinator could send them
 * (texts in random pieces, slots opened, cut, closed, blocks in any order, copied, stages rebuilt), and every log-probability,
 * sampled token and hidden state must be bit for bit what one plain session says. Then a table of steps that are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"
#include "model/sampler.h"
#include "model/session.h"
#include "proto/codec.h"
#include "tests/checkkernels/data.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"
#include "worker/stage_exec.h"

enum {
    TEXTS = 3, LENGTH = 150, CTX = 160, SLOTS = 4, ROWS = 48, STRIDE = 5, BLOCKS = 28, LAYERS = 4, MAX_STAGES = 3,
    TOP = 7, GIVEN = 3, HEAD_BYTES = 1 << 20, MAX_EMBD = 256, STEPS = 120,
};

static struct err err;

static void die(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

/* --- what is right -------------------------------------------------------------------------------------------------------- */

static struct {
    char path[512];
    int32_t token[TEXTS][LENGTH];
    float logits[TEXTS][LENGTH][MODEL_VOCAB];
    float hidden[TEXTS][LENGTH][MAX_EMBD]; /* of the one-stage pipeline */
    bool has_hidden[TEXTS][LENGTH];
    struct sampler *sampler;
} truth;

static const struct sample_params sampling = {.temperature = 0.9f, .top_k = 30, .top_p = 0.95f, .min_p = 0.02f, .typical_p = 1, .repetition_penalty = 1.1f,
                                              .presence_penalty = 0.1f, .penalty_last = 32, .seed = 77};

static void make_truth(const struct model_spec *spec, enum quant_type quant, struct rng *rng)
{
    struct session_options o = {.threads = 1, .ctx = CTX, .batch_rows = LENGTH};
    struct session_row rows[LENGTH];
    struct model_spec longer = *spec;

    longer.layers = LAYERS;
    snprintf(truth.path, sizeof truth.path, "%s/exec.gguf", model_folder());
    model_write(&longer, quant, truth.path);
    memset(truth.has_hidden, 0, sizeof truth.has_hidden);
    struct session *s = session_open(truth.path, &o, &err);
    if (!s || (!truth.sampler && !(truth.sampler = sampler_create(MODEL_VOCAB, NULL, &err))))
        die(truth.path);
    for (int t = 0; t < TEXTS; t++) {
        for (uint32_t i = 0; i < LENGTH; i++) {
            truth.token[t][i] = (int32_t)rng_below(rng, MODEL_VOCAB);
            rows[i] = (struct session_row){.pos = i, .token = truth.token[t][i], .want = true};
        }
        session_cut(s, 0, 0);
        if (session_step(s, rows, LENGTH, &err) != 0)
            die(spec->name);
        for (uint32_t i = 0; i < LENGTH; i++)
            memcpy(truth.logits[t][i], session_logits(s, i), sizeof truth.logits[t][i]);
    }
    session_close(s);
}

/* --- a pipeline ----------------------------------------------------------------------------------------------------------- */

struct pipe {
    uint32_t n;
    struct gguf *gguf;
    struct model_params params;
    struct backend *backend;
    struct threadpool *readers;
    struct stage_exec_config config[MAX_STAGES];
    struct stage *stage[MAX_STAGES];
    struct stage_exec *exec[MAX_STAGES];
    struct codec *codec[MAX_STAGES + 1];
    void *payload[MAX_STAGES + 1]; /* into stage i */
    uint8_t *head;
    struct msg answer; /* of the last stage: type MSG_NONE where it had nothing to say */
};

static void make_stage(struct pipe *p, uint32_t i)
{
    struct stage_config c = {
        .first = LAYERS * i / p->n, .last = LAYERS * (i + 1) / p->n, .embed = i == 0, .head = i + 1 == p->n, .kv = KV_F16, .ctx = CTX,
        .n_blocks = {BLOCKS, BLOCKS}, .max_rows = ROWS, .max_wanted = ROWS, .max_seqs = SLOTS, .table_stride = STRIDE};
    p->config[i] = (struct stage_exec_config){.stage = i, .n_stages = p->n, .params = &p->params, .shape = c, .act_out = ACT_F32};
    if (!(p->stage[i] = stage_create(p->gguf, &p->params, &c, p->backend, p->readers, NULL, NULL, &err)) ||
        !(p->exec[i] = stage_exec_create(p->stage[i], &p->config[i], i % 2 ? NULL : p->readers, NULL, NULL, &err)))
        die("stage");
}

static void drop_stage(struct pipe *p, uint32_t i)
{
    stage_exec_destroy(p->exec[i]);
    stage_destroy(p->stage[i]);
}

static void open_pipe(struct pipe *p, uint32_t n)
{
    *p = (struct pipe){.n = n};
    if (!(p->gguf = gguf_open(truth.path, false, &err)) || model_params_read(p->gguf, &p->params, &err) != 0 ||
        !(p->backend = backend_cpu_create(1, NULL, &err)) || !(p->readers = threadpool_create(2, &err)))
        die("pipe");
    for (uint32_t i = 0; i < n; i++)
        make_stage(p, i);
    for (uint32_t i = 0; i <= n; i++) {
        p->payload[i] = malloc((size_t)ROWS * MAX_EMBD * sizeof(float));
        if (!(p->codec[i] = codec_create(CODEC_SMALL_BYTES, &err)))
            die("codec");
    }
    p->head = malloc(HEAD_BYTES);
}

static void close_pipe(struct pipe *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        drop_stage(p, i);
    for (uint32_t i = 0; i <= p->n; i++) {
        codec_destroy(p->codec[i]);
        free(p->payload[i]);
    }
    backend_destroy(p->backend);
    threadpool_destroy(p->readers);
    gguf_close(p->gguf);
    free(p->head);
}

/* One step through all stages. -1 and err when one of them refused it. */
static int run_step(struct pipe *p, const struct msg_step *step)
{
    struct msg m = {.type = MSG_STEP, .step = *step}, in;
    struct stage_out out;
    size_t len, payload_len = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        if (codec_encode(p->codec[i], &m, p->head, HEAD_BYTES, &len, &err) != 0 ||
            codec_decode(p->codec[i], m.type, p->head, len, payload_len, &in, &err) != 0)
            die("a step's encoding");
        int rc = stage_exec_step(p->exec[i], &in.step, p->payload[i], p->payload[i + 1], &out, &err);
        m = out.msg;
        payload_len = out.payload_len;
        if (rc != 0 || m.type == MSG_NONE) {
            p->answer = m;
            return rc;
        }
    }
    if (codec_encode(p->codec[p->n], &m, p->head, HEAD_BYTES, &len, &err) != 0 ||
        codec_decode(p->codec[p->n], m.type, p->head, len, payload_len, &p->answer, &err) != 0)
        die("a result's encoding");
    return 0;
}

/* --- a coordinator's part ------------------------------------------------------------------------------------------------- */

struct text_slot {
    bool open;
    int text;
    uint32_t length; /* positions computed */
    uint32_t block[2][STRIDE], n_blocks;
};

struct driver {
    struct pipe pipe;
    struct rng rng;
    struct text_slot slot[SLOTS];
    uint32_t free_block[BLOCKS], n_free;
    uint64_t batch;
    /* The step being made. */
    struct msg_op ops[64];
    struct msg_delta deltas[64];
    uint32_t delta_block[64];
    uint32_t row_slot[ROWS], row_pos[ROWS];
    int32_t row_token[ROWS], given[ROWS][GIVEN];
    struct msg_want wants[ROWS];
    struct msg_step step;
    uint64_t compared, wrong;
};

static struct msg_sample wire_sample(void)
{
    return (struct msg_sample){.temperature = sampling.temperature, .top_k = sampling.top_k, .top_p = sampling.top_p, .min_p = sampling.min_p,
                               .typical_p = 1, .repetition_penalty = sampling.repetition_penalty, .presence_penalty = sampling.presence_penalty,
                               .penalty_last = sampling.penalty_last, .seed = sampling.seed};
}

static void begin_step(struct driver *d)
{
    d->step = (struct msg_step){.epoch = {5, 6}, .batch = ++d->batch, .ops = d->ops, .deltas = d->deltas, .slot = d->row_slot, .pos = d->row_pos,
                                .token = d->row_token, .wants = d->wants, .stop_stage = MSG_STOP_NONE};
}

static void add_delta(struct driver *d, uint32_t slot, uint32_t group, uint32_t index)
{
    size_t i = d->step.n_deltas++;
    d->delta_block[i] = d->slot[slot].block[group][index];
    d->deltas[i] = (struct msg_delta){.slot = slot, .group = group, .index = index, .blocks = &d->delta_block[i], .n_blocks = 1};
}

/* The same ids in both groups: the two caches are different memory. */
static uint32_t take_block(struct driver *d)
{
    uint32_t i = rng_below(&d->rng, d->n_free), b = d->free_block[i];
    d->free_block[i] = d->free_block[--d->n_free];
    return b;
}

static void open_slot(struct driver *d, uint32_t slot, int text, uint32_t n_known)
{
    d->slot[slot] = (struct text_slot){.open = true, .text = text};
    d->ops[d->step.n_ops++] = (struct msg_op){.kind = OP_SEQ_OPEN, .slot = slot, .seq = 100 + slot, .choice = slot, .sample = wire_sample(),
                                              .tokens = truth.token[text], .n_tokens = n_known};
}

static void close_slot(struct driver *d, uint32_t slot)
{
    struct text_slot *s = &d->slot[slot];
    d->ops[d->step.n_ops++] = (struct msg_op){.kind = OP_SEQ_CLOSE, .slot = slot};
    while (s->n_blocks > 0)
        d->free_block[d->n_free++] = s->block[0][--s->n_blocks];
    s->open = false;
}

static void cut_slot(struct driver *d, uint32_t slot)
{
    struct text_slot *s = &d->slot[slot];
    s->length = rng_below(&d->rng, s->length + 1);
    d->ops[d->step.n_ops++] = (struct msg_op){.kind = OP_SEQ_CUT, .slot = slot, .keep = s->length};
}

/* The slot goes on in a copy of one of its blocks; the old one may be overwritten in this very step. */
static void copy_block(struct driver *d, uint32_t slot)
{
    struct text_slot *s = &d->slot[slot];
    uint32_t index, from, to;
    if (s->n_blocks == 0 || d->n_free == 0)
        return;
    index = rng_below(&d->rng, s->n_blocks);
    from = s->block[0][index];
    to = take_block(d);
    for (uint32_t g = 0; g < 2; g++) {
        d->ops[d->step.n_ops++] = (struct msg_op){.kind = OP_BLOCK_COPY, .group = g, .from = from, .to = to};
        s->block[g][index] = to;
        add_delta(d, slot, g, index);
    }
    d->free_block[d->n_free++] = from;
}

static void add_rows(struct driver *d, uint32_t slot, uint32_t n, uint32_t stop_stage)
{
    struct text_slot *s = &d->slot[slot];
    for (; n > 0 && s->length < LENGTH && d->step.n_rows < ROWS; n--, s->length++) {
        size_t row = d->step.n_rows;
        if (s->length / KV_BLOCK == s->n_blocks) {
            s->block[0][s->n_blocks] = s->block[1][s->n_blocks] = take_block(d);
            add_delta(d, slot, 0, s->n_blocks);
            add_delta(d, slot, 1, s->n_blocks++);
        }
        d->row_slot[row] = slot;
        d->row_pos[row] = s->length;
        d->row_token[row] = truth.token[s->text][s->length];
        d->step.n_rows++;
        if (stop_stage != MSG_STOP_NONE || rng_below(&d->rng, 3) != 0)
            continue;
        struct msg_want *w = &d->wants[d->step.n_wants++];
        *w = (struct msg_want){.row = (uint32_t)row, .flags = 1 + rng_below(&d->rng, 15), .top = TOP, .given = d->given[row], .n_given = GIVEN};
        w->top = w->flags & WANT_TOP ? TOP : 0;
        w->n_given = w->flags & WANT_GIVEN ? GIVEN : 0;
        for (int i = 0; i < GIVEN; i++)
            d->given[row][i] = (int32_t)rng_below(&d->rng, MODEL_VOCAB);
    }
    d->step.stop_stage = stop_stage;
}

static void compare(struct driver *d, bool same, const char *what, int text, uint32_t pos)
{
    d->compared++;
    if (!same && d->wrong++ == 0)
        tap_note("%s of position %u of text %d differs", what, pos, text);
}

static void compare_row(struct driver *d, const struct msg_want *w, const struct msg_result_row *r, const float *hidden)
{
    uint32_t slot = d->row_slot[w->row], pos = d->row_pos[w->row], embd = d->pipe.params.embd;
    int text = d->slot[slot].text, n;
    const float *logits = truth.logits[text][pos];
    int32_t token, ids[TOP];
    float logprob, logprobs[TOP], given[GIVEN];

    compare(d, r->row == w->row && r->flags == w->flags, "kind", text, pos);
    if (w->flags & WANT_SAMPLE) {
        sampler_sample(truth.sampler, &sampling, logits, truth.token[text], pos + 1, slot, pos + 1, &token, &logprob, &err);
        compare(d, token == r->token && memcmp(&logprob, &r->logprob, sizeof logprob) == 0, "the sample", text, pos);
    }
    if (w->flags & WANT_TOP) {
        n = sampler_top(truth.sampler, logits, TOP, ids, logprobs, &err);
        compare(d, (size_t)n == r->n_top && memcmp(ids, r->top_tokens, sizeof ids) == 0 && memcmp(logprobs, r->top_logprobs, sizeof logprobs) == 0, "the top",
                text, pos);
    }
    if (w->flags & WANT_GIVEN) {
        sampler_given(truth.sampler, logits, w->given, GIVEN, given, &err);
        compare(d, r->n_given == GIVEN && memcmp(given, r->given, sizeof given) == 0, "a given token", text, pos);
    }
    if (!(w->flags & WANT_HIDDEN))
        return;
    if (truth.has_hidden[text][pos])
        compare(d, memcmp(hidden, truth.hidden[text][pos], embd * sizeof *hidden) == 0, "the hidden state", text, pos);
    memcpy(truth.hidden[text][pos], hidden, embd * sizeof *hidden);
    truth.has_hidden[text][pos] = true;
}

static void end_step(struct driver *d)
{
    const float *hidden = d->pipe.payload[d->pipe.n];
    if (run_step(&d->pipe, &d->step) != 0)
        die("a step");
    if (d->step.n_wants == 0)
        return;
    const struct msg_result *r = &d->pipe.answer.result;
    if (d->pipe.answer.type != MSG_RESULT || r->n_rows != d->step.n_wants || r->batch != d->batch || r->error[0]) {
        compare(d, false, "the result", 0, 0);
        return;
    }
    for (size_t i = 0; i < r->n_rows; i++) {
        compare_row(d, &d->wants[i], &r->rows[i], hidden);
        hidden += r->rows[i].flags & WANT_HIDDEN ? d->pipe.params.embd : 0;
    }
}

/* --- random schedules ----------------------------------------------------------------------------------------------------- */

static void random_step(struct driver *d)
{
    begin_step(d);
    for (uint32_t s = 0; s < SLOTS; s++) {
        uint32_t what = rng_below(&d->rng, 12);
        if (!d->slot[s].open) {
            if (what < 6)
                open_slot(d, s, (int)rng_below(&d->rng, TEXTS), rng_below(&d->rng, 2) ? LENGTH : 0);
            continue;
        }
        if (what == 0)
            close_slot(d, s);
        else if (what == 1)
            cut_slot(d, s);
        else if (what == 2)
            copy_block(d, s);
    }
    for (uint32_t s = 0; s < SLOTS; s++)
        if (d->slot[s].open)
            add_rows(d, s, rng_below(&d->rng, 4) ? 1 : rng_below(&d->rng, 30), MSG_STOP_NONE);
    end_step(d);
}

/* Stages 0 to `last` lose everything; their KV is computed again from the texts, and the others keep theirs. */
static void rebuild(struct driver *d, uint32_t last)
{
    for (uint32_t i = 0; i < d->pipe.n; i++) {
        if (i <= last) {
            drop_stage(&d->pipe, i);
            make_stage(&d->pipe, i);
            continue;
        }
        stage_exec_destroy(d->pipe.exec[i]); /* a new epoch: no slot is open */
        if (!(d->pipe.exec[i] = stage_exec_create(d->pipe.stage[i], &d->pipe.config[i], NULL, NULL, NULL, &err)))
            die("exec");
    }
    for (uint32_t s = 0; s < SLOTS; s++) {
        struct text_slot old = d->slot[s];
        if (!old.open)
            continue;
        begin_step(d);
        open_slot(d, s, old.text, old.length);
        memcpy(d->slot[s].block, old.block, sizeof old.block);
        d->slot[s].n_blocks = old.n_blocks;
        for (uint32_t i = 0; i < old.n_blocks; i++) {
            add_delta(d, s, 0, i);
            add_delta(d, s, 1, i);
        }
        while (d->slot[s].length < old.length) {
            add_rows(d, s, old.length - d->slot[s].length < ROWS ? old.length - d->slot[s].length : ROWS, last);
            end_step(d);
            begin_step(d);
        }
        if (d->step.n_ops) /* there was nothing to compute */
            end_step(d);
    }
}

static void test_schedules(const char *name, enum quant_type quant)
{
    static struct driver d;
    struct rng rng = {.state = 11};
    make_truth(model_spec_of(name), quant, &rng);
    for (uint32_t n = 1; n <= MAX_STAGES; n++) {
        memset(&d, 0, sizeof d);
        d.rng.state = n * 31;
        for (uint32_t b = 0; b < BLOCKS; b++)
            d.free_block[d.n_free++] = b;
        open_pipe(&d.pipe, n);
        for (int i = 0; i < STEPS; i++) {
            random_step(&d);
            if (i % 40 == 39)
                rebuild(&d, rng_below(&d.rng, n));
        }
        ok(d.compared > 200, "%s %s, %u stages: %llu answers compared", name, quant_traits(quant)->name, n, (unsigned long long)d.compared);
        is_int(d.wrong, 0, "they are what one session says");
        close_pipe(&d.pipe);
    }
}

/* --- wrong steps ---------------------------------------------------------------------------------------------------------- */

static struct pipe wrong_pipe;

static struct msg_op an_open(uint32_t slot, uint32_t n_tokens)
{
    return (struct msg_op){.kind = OP_SEQ_OPEN, .slot = slot, .sample = wire_sample(), .tokens = truth.token[0], .n_tokens = n_tokens};
}

/* Straight to the last stage's exec (one stage): what the codec would have refused must not get through either. */
static void refused(const struct msg_step *step, const char *text)
{
    struct stage_out out;
    err_clear(&err);
    is_int(stage_exec_step(wrong_pipe.exec[0], step, NULL, wrong_pipe.payload[1], &out, &err), -1, "refused: %s", text);
    has_str(err.text, text, "it says so");
    ok(err.kind == ERR_INPUT && out.msg.type == MSG_RESULT && strstr(out.msg.result.error, text), "so does the result");
}

static void accepted(const struct msg_step *step, const char *what)
{
    struct stage_out out;
    err_clear(&err);
    is_int(stage_exec_step(wrong_pipe.exec[0], step, NULL, wrong_pipe.payload[1], &out, &err), 0, "%s %s", what, err.text);
}

/* Opens slot 0 with 10 known tokens and one block in each group. */
static void fresh_slot(void)
{
    uint32_t block = 3;
    struct msg_op ops[] = {{.kind = OP_SEQ_CLOSE}, an_open(0, 10)};
    struct msg_delta deltas[] = {{.blocks = &block, .n_blocks = 1}, {.group = 1, .blocks = &block, .n_blocks = 1}};
    struct msg_step step = {.ops = ops, .n_ops = 2, .deltas = deltas, .n_deltas = 2, .stop_stage = MSG_STOP_NONE};
    struct stage_out out;
    if (stage_exec_step(wrong_pipe.exec[0], &step, NULL, wrong_pipe.payload[1], &out, &err) != 0)
        die("a fresh slot");
}

static void refused_op(struct msg_op op, const char *text)
{
    fresh_slot();
    refused(&(struct msg_step){.ops = &op, .n_ops = 1, .stop_stage = MSG_STOP_NONE}, text);
}

static void refused_delta(struct msg_delta delta, const char *text)
{
    uint32_t blocks[STRIDE + 1] = {0};
    fresh_slot();
    if (!delta.blocks)
        delta.blocks = blocks;
    refused(&(struct msg_step){.deltas = &delta, .n_deltas = 1, .stop_stage = MSG_STOP_NONE}, text);
}

static void refused_rows(const uint32_t *slot, const uint32_t *pos, const int32_t *token, size_t n, const char *text)
{
    fresh_slot();
    refused(&(struct msg_step){.slot = slot, .pos = pos, .token = token, .n_rows = n, .stop_stage = MSG_STOP_NONE}, text);
}

static void refused_want(struct msg_want want, const char *text)
{
    uint32_t slot = 0, pos = 0;
    int32_t token = 1;
    fresh_slot();
    refused(&(struct msg_step){.slot = &slot, .pos = &pos, .token = &token, .n_rows = 1, .wants = &want, .n_wants = 1, .stop_stage = MSG_STOP_NONE}, text);
}

static void test_wrong_steps(void)
{
    static uint32_t many_slot[ROWS + 1], many_pos[ROWS + 1];
    static int32_t many_token[ROWS + 1];
    struct rng rng = {.state = 5};
    uint32_t no_block = BLOCKS;
    int32_t bad_tokens[] = {1, MODEL_VOCAB};
    struct msg_op bad_open;

    make_truth(model_spec_of("gemma2"), QUANT_F16, &rng);
    open_pipe(&wrong_pipe, 1);
    refused_op((struct msg_op){.kind = (enum msg_op_kind)9}, "operation of kind 9");
    refused_op((struct msg_op){.kind = OP_SEQ_CLOSE, .slot = SLOTS}, "seq_close: slot 4, this stage has 0 to 3");
    refused_op((struct msg_op){.kind = OP_SEQ_CUT, .slot = 1}, "seq_cut: slot 1 is not open");
    refused_op((struct msg_op){.kind = OP_SEQ_CUT, .keep = 11}, "seq_cut: 11 positions of slot 0 to be kept, it has 10");
    refused_op((struct msg_op){.kind = OP_BLOCK_COPY, .group = 2}, "block_copy: group 2");
    refused_op((struct msg_op){.kind = OP_BLOCK_COPY, .to = BLOCKS}, "block_copy: from 0 to 28 in group 0, which has 28 blocks");
    refused_op((struct msg_op){.kind = OP_BLOCK_COPY, .from = UINT32_MAX}, "block_copy: from 4294967295");
    refused_op(an_open(0, 1), "slot 0 is open already");
    refused_op(an_open(SLOTS, 1), "seq_open: slot 4");
    refused_op(an_open(1, CTX + 1), "161 tokens, the context has 160");
    bad_open = an_open(1, 2);
    bad_open.tokens = bad_tokens;
    refused_op(bad_open, "token 300, the vocabulary has 0 to 299");
    bad_open = an_open(1, 2);
    bad_open.sample.temperature = -1;
    refused_op(bad_open, "temperature is -1");
    bad_open = an_open(1, 2);
    bad_open.sample.bias = &(struct msg_bias){.token = -1};
    bad_open.sample.n_bias = 1;
    refused_op(bad_open, "logit_bias: token -1");

    refused_delta((struct msg_delta){.slot = 1, .n_blocks = 1}, "table entries: slot 1 is not open");
    refused_delta((struct msg_delta){.slot = 99, .n_blocks = 1}, "table entries: slot 99");
    refused_delta((struct msg_delta){.group = 2, .n_blocks = 1}, "table entries: group 2");
    refused_delta((struct msg_delta){.index = STRIDE, .n_blocks = 1}, "table entries: 1 from 5 on, a table has 5");
    refused_delta((struct msg_delta){.index = UINT32_MAX, .n_blocks = 1}, "from 4294967295 on");
    refused_delta((struct msg_delta){.n_blocks = STRIDE + 1}, "table entries: 6 from 0 on");
    refused_delta((struct msg_delta){.blocks = &no_block, .n_blocks = 1}, "table entries: block 28 in group 0, which has 28");

    refused_rows(many_slot, many_pos, many_token, ROWS + 1, "49 rows, this stage takes 48");
    refused_rows((uint32_t[]){1}, (uint32_t[]){0}, (int32_t[]){1}, 1, "row: slot 1 is not open");
    refused_rows((uint32_t[]){SLOTS}, (uint32_t[]){0}, (int32_t[]){1}, 1, "row: slot 4");
    refused_rows((uint32_t[]){0}, (uint32_t[]){11}, (int32_t[]){1}, 1, "position 11 of slot 0, of which only 10 are known");
    refused_rows((uint32_t[]){0}, (uint32_t[]){CTX}, (int32_t[]){1}, 1, "position 160 of slot 0, the context has 160");
    refused_rows((uint32_t[]){0, 0}, (uint32_t[]){4, 4}, (int32_t[]){1, 1}, 2, "row 1: position 4 of slot 0, the step's next one is 5");
    refused_rows((uint32_t[]){0, 0}, (uint32_t[]){4, 6}, (int32_t[]){1, 1}, 2, "row 1: position 6 of slot 0, the step's next one is 5");
    refused_rows((uint32_t[]){0}, (uint32_t[]){4}, (int32_t[]){-1}, 1, "row: token -1");
    refused_rows((uint32_t[]){0}, (uint32_t[]){4}, (int32_t[]){MODEL_VOCAB}, 1, "row: token 300");

    refused_want((struct msg_want){.row = 1, .flags = WANT_SAMPLE}, "want 0: row 1 of 1");
    refused_want((struct msg_want){.flags = 0}, "flags 0 make no sense");
    refused_want((struct msg_want){.flags = 32}, "flags 0x20 make no sense");
    refused_want((struct msg_want){.flags = WANT_MASK}, "flags 0x10 make no sense");
    refused_want((struct msg_want){.flags = WANT_TOP, .top = SAMPLE_MAX_TOP + 1}, "the 1025 likeliest tokens");
    refused_want((struct msg_want){.flags = WANT_GIVEN, .given = bad_tokens, .n_given = 2}, "want: token 300");

    /* Rows past the blocks that are there: 32 positions in the one block of a fresh slot. */
    uint32_t slots[40] = {0}, pos[40];
    int32_t tokens[40];
    for (uint32_t i = 0; i < 40; i++) {
        pos[i] = i;
        tokens[i] = 1;
    }
    refused_rows(slots, pos, tokens, 33, "rows of slot 0 up to position 32: entry 1 of its block table is not set");
    fresh_slot();
    accepted(&(struct msg_step){.slot = slots, .pos = pos, .token = tokens, .n_rows = 32, .stop_stage = MSG_STOP_NONE}, "as far as they go: taken");

    /* A slot that a wrong step named is closed, others go on. */
    struct msg_op open_one = an_open(1, 3);
    uint32_t one = 1, zero = 0, far = 40;
    int32_t token = 1;
    fresh_slot();
    accepted(&(struct msg_step){.ops = &open_one, .n_ops = 1, .stop_stage = MSG_STOP_NONE}, "another slot is opened");
    refused(&(struct msg_step){.slot = &one, .pos = &far, .token = &token, .n_rows = 1, .stop_stage = MSG_STOP_NONE}, "position 40 of slot 1");
    refused(&(struct msg_step){.slot = &one, .pos = &zero, .token = &token, .n_rows = 1, .stop_stage = MSG_STOP_NONE}, "slot 1 is not open");
    accepted(&(struct msg_step){.slot = &zero, .pos = &zero, .token = &token, .n_rows = 1, .stop_stage = MSG_STOP_NONE}, "the first slot goes on");
    close_pipe(&wrong_pipe);

    open_pipe(&wrong_pipe, 2); /* stage 0 has no head: a wrong step is answered by its error alone */
    fresh_slot();
    struct stage_out out;
    is_int(stage_exec_step(wrong_pipe.exec[0], &(struct msg_step){.slot = &zero, .pos = &far, .token = &token, .n_rows = 1}, NULL,
                           wrong_pipe.payload[1], &out, &err), -1, "a wrong step at the first stage");
    is_int(out.msg.type, MSG_NONE, "nothing goes on");
    float row[MAX_EMBD] = {0};
    is_int(stage_exec_step(wrong_pipe.exec[1], &(struct msg_step){.slot = &zero, .pos = &zero, .token = &token, .n_rows = 1, .stop_stage = 0}, row,
                           wrong_pipe.payload[1], &out, &err), -1, "rows that went too far");
    has_str(err.text, "rows that end at stage 0 came to stage 1", "are refused");
    is_int(stage_exec_step(wrong_pipe.exec[1], &(struct msg_step){.slot = &zero, .pos = &zero, .token = &token, .n_rows = 1, .embd = 3,
                                                                  .stop_stage = MSG_STOP_NONE}, row, wrong_pipe.payload[1], &out, &err), -1, "rows too narrow");
    has_str(err.text, "rows of 3 values, this stage takes", "are refused");
    close_pipe(&wrong_pipe);
}

int main(void)
{
    test_schedules("llama", QUANT_Q8_0);
    test_schedules("gemma2", QUANT_F16);
    test_schedules("qwen3moe", QUANT_Q4_K);
    test_wrong_steps();
    sampler_destroy(truth.sampler);
    return tap_done();
}
