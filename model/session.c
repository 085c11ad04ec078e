/* See session.h. Blocks are handed out as positions are reached and come back when a sequence is cut; of sliding layers
 * those that no window can see any more come back as the sequence grows, but for some SLACK, so that an answer can be taken
 * back and tried again without computing everything anew. */
#include "model/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sysinfo.h"
#include "base/threadpool.h"
#include "model/answer.h"
#include "model/stage.h"

#define LOGITS_BYTES_MAX ((uint64_t)64 << 20) /* of one step, on the host: keeps 512 rows of a large vocabulary out of memory */
enum { DEFAULT_BATCH_ROWS = 512, MAX_BATCH_ROWS = 1 << 15, MAX_PARALLEL = 4096, SLACK = 1024 };

struct sequence {
    uint32_t length;
    uint32_t kept_from; /* first position whose sliding blocks are still there; a multiple of KV_BLOCK */
    uint32_t n_blocks[KV_GROUPS]; /* entries of its tables in use: [kept_from / KV_BLOCK, n) for KV_SLIDING */
};

struct free_list {
    uint32_t *ids;
    uint32_t n;
};

struct session {
    struct gguf *gguf;
    struct model_params params;
    struct backend *backend;
    char device[DEVICE_NAME_BYTES]; /* a GPU's; "": processors compute */
    unsigned threads;
    uint64_t memory_max; /* 0: what is free */
    struct stage *stage;
    struct answerer *answerer;
    struct threadpool *readers;
    struct stage_bytes bytes;
    uint32_t ctx, parallel, batch_rows, window; /* window 0: no layer slides */
    struct sequence *seqs;
    struct free_list free[KV_GROUPS];
    uint32_t *table[KV_GROUPS]; /* parallel × stride */
    uint32_t stride;
    uint32_t *row_seq, *row_pos, *wanted, *next_pos;
    int32_t *row_token;
};

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static int check_options(struct session *s, const struct session_options *o, struct err *err)
{
    uint32_t most = s->params.ctx_train < MODEL_DEFAULT_CTX ? s->params.ctx_train : MODEL_DEFAULT_CTX;
    s->ctx = o->ctx ? o->ctx : most;
    s->parallel = o->parallel ? o->parallel : 1;
    s->batch_rows = o->batch_rows ? o->batch_rows : DEFAULT_BATCH_ROWS;
    if (s->ctx > MODEL_MAX_CTX)
        return err_set(err, ERR_USAGE, "a context of %u positions asked for, at most %d allowed", s->ctx, MODEL_MAX_CTX);
    if (s->parallel > MAX_PARALLEL)
        return err_set(err, ERR_USAGE, "%u sequences at once asked for, at most %d allowed", s->parallel, MAX_PARALLEL);
    if (s->batch_rows > MAX_BATCH_ROWS)
        return err_set(err, ERR_USAGE, "batches of %u rows asked for, at most %d allowed", s->batch_rows, MAX_BATCH_ROWS);
    if (s->batch_rows < s->parallel)
        s->batch_rows = s->parallel;
    s->window = 0;
    for (uint32_t i = 0; i < s->params.n_layers; i++)
        if (s->params.window && s->params.sliding[i])
            s->window = s->params.window;
    return 0;
}

/* Table entries a sequence needs in a group. */
static uint32_t blocks_of_sequence(const struct session *s, enum kv_group group)
{
    uint64_t positions = s->ctx;
    if (group == KV_SLIDING) {
        uint64_t seen = (uint64_t)s->window + s->batch_rows + SLACK + 2 * KV_BLOCK;
        positions = s->window == 0 ? 0 : seen < positions ? seen : positions;
    }
    return (uint32_t)((positions + KV_BLOCK - 1) / KV_BLOCK);
}

static int check_memory(const struct session *s, struct err *err)
{
    uint64_t need = s->bytes.weights + s->bytes.kv + s->bytes.scratch, have = device_memory_free(s->backend);
    char a[32], b[32], c[32], d[32], e[32];
    have = s->memory_max && s->memory_max < have ? s->memory_max : have;
    if (need <= have)
        return 0;
    return err_set(err, ERR_MEMORY,
                   "the model needs %s of memory (weights %s, KV cache %s for %u x %u positions, scratch %s), %s are available; lower --ctx or "
                   "--parallel, or use a smaller quantization",
                   sysinfo_bytes(a, need), sysinfo_bytes(b, s->bytes.weights), sysinfo_bytes(c, s->bytes.kv), s->parallel, s->ctx,
                   sysinfo_bytes(d, s->bytes.scratch), sysinfo_bytes(e, have));
}

static int make_tables(struct session *s, const struct stage_config *config, struct err *err)
{
    if (!(s->seqs = mem_new(s->parallel, sizeof *s->seqs, err)) || !(s->row_seq = mem_new(s->batch_rows, sizeof *s->row_seq, err)) ||
        !(s->row_pos = mem_new(s->batch_rows, sizeof *s->row_pos, err)) || !(s->wanted = mem_new(s->batch_rows, sizeof *s->wanted, err)) ||
        !(s->row_token = mem_new(s->batch_rows, sizeof *s->row_token, err)) || !(s->next_pos = mem_new(s->parallel, sizeof *s->next_pos, err)))
        return -1;
    for (int g = 0; g < KV_GROUPS; g++) {
        struct free_list *list = &s->free[g];
        if (!(s->table[g] = mem_new((size_t)s->parallel * s->stride, sizeof *s->table[g], err)) ||
            !(list->ids = mem_new(config->n_blocks[g], sizeof *list->ids, err)))
            return -1;
        for (uint32_t i = config->n_blocks[g]; i > 0; i--)
            list->ids[list->n++] = i - 1;
    }
    return 0;
}

static int open_stage(struct session *s, const struct session_options *o, struct err *err)
{
    struct stage_config config = {
        .last = s->params.n_layers,
        .embed = true,
        .head = true,
        .kv = o->kv,
        .ctx = s->ctx,
        .max_rows = s->batch_rows,
        .max_wanted = s->batch_rows,
        .max_seqs = s->parallel,
    };
    s->stride = config.table_stride = blocks_of_sequence(s, KV_FULL);
    for (int g = 0; g < KV_GROUPS; g++)
        config.n_blocks[g] = blocks_of_sequence(s, (enum kv_group)g) * s->parallel;
    if (stage_bytes(s->gguf, &s->params, &config, s->backend, &s->bytes, err) != 0 || check_memory(s, err) != 0 ||
        make_tables(s, &config, err) != 0)
        return -1;
    if (!(s->stage = stage_create(s->gguf, &s->params, &config, s->backend, s->readers, o->progress, o->progress_arg, err)))
        return -1;
    s->answerer = answerer_create(stage_answering(s->stage), s->params.n_vocab, o->isa, device_team(s->backend), err);
    return s->answerer ? 0 : -1;
}

struct session *session_open(const char *path, const struct session_options *options, struct err *err)
{
    static const struct session_options defaults;
    const struct session_options *o = options ? options : &defaults;
    static const struct device cpu = {.name = "cpu", .kind = DEVICE_CPU};
    const struct device *d = o->device ? o->device : &cpu;
    struct device_options how = {.threads = o->threads, .isa = o->isa, .pin = o->pin, .prompt_gemm = o->prompt_gemm,
                                 .keep_file_layout = o->keep_file_layout, .untested = o->untested};
    struct session *s = mem_new(1, sizeof *s, err);
    if (!s)
        return NULL;
    snprintf(s->device, sizeof s->device, "%s", d->kind == DEVICE_CPU ? "" : d->name);
    s->threads = device_threads(d, &how);
    s->memory_max = d->memory_max;
    if (!(s->gguf = gguf_open(path, false, err)))
        goto error;
    if (model_params_read(s->gguf, &s->params, err) != 0 || check_options(s, o, err) != 0 ||
        !(s->backend = device_open(d, &how, err)) || !(s->readers = device_helpers(d, &how, err)) ||
        open_stage(s, o, err) != 0) {
        err_wrap(err, "%s", path);
        goto error;
    }
    threadpool_destroy(s->readers); /* only loading needs it */
    s->readers = NULL;
    return s;
error:
    session_close(s);
    return NULL;
}

void session_close(struct session *s)
{
    if (!s)
        return;
    answerer_destroy(s->answerer);
    stage_destroy(s->stage);
    threadpool_destroy(s->readers);
    backend_destroy(s->backend);
    gguf_close(s->gguf);
    for (int g = 0; g < KV_GROUPS; g++) {
        free(s->table[g]);
        free(s->free[g].ids);
    }
    free(s->seqs);
    free(s->row_seq);
    free(s->row_pos);
    free(s->row_token);
    free(s->wanted);
    free(s->next_pos);
    free(s);
}

/* --- steps -------------------------------------------------------------------------------------------------------------- */

static int check_rows(struct session *s, const struct session_row *rows, uint32_t n, struct err *err)
{
    if (n == 0 || n > s->batch_rows)
        return err_set(err, ERR_USAGE, "a step of %u rows, allowed are 1 to %u", n, s->batch_rows);
    for (uint32_t i = 0; i < s->parallel; i++)
        s->next_pos[i] = s->seqs[i].length;
    for (uint32_t i = 0; i < n; i++) {
        if (rows[i].seq >= s->parallel)
            return err_set(err, ERR_USAGE, "row %u: sequence %u, allowed are 0 to %u", i, rows[i].seq, s->parallel - 1);
        if (rows[i].token < 0 || (uint32_t)rows[i].token >= s->params.n_vocab)
            return err_set(err, ERR_USAGE, "row %u: token %d, allowed are 0 to %u", i, rows[i].token, s->params.n_vocab - 1);
        if (rows[i].pos != s->next_pos[rows[i].seq]++)
            return err_set(err, ERR_USAGE, "row %u: position %u of sequence %u, the next one is %u", i, rows[i].pos, rows[i].seq,
                           s->next_pos[rows[i].seq] - 1);
        if (rows[i].pos >= s->ctx)
            return err_set(err, ERR_LIMIT, "sequence %u is full: its context has %u positions; raise --ctx or start anew", rows[i].seq, s->ctx);
    }
    return 0;
}

/* Gives back sliding blocks that lie wholly before what position `length` can see, less SLACK. */
static void free_passed(struct session *s, uint32_t seq)
{
    struct sequence *q = &s->seqs[seq];
    uint64_t keep = (uint64_t)s->window + SLACK;
    while (s->window && q->length > keep && q->kept_from + KV_BLOCK <= q->length - keep) {
        s->free[KV_SLIDING].ids[s->free[KV_SLIDING].n++] = s->table[KV_SLIDING][(size_t)seq * s->stride + q->kept_from / KV_BLOCK];
        q->kept_from += KV_BLOCK;
    }
}

/* A sequence's tables grow to hold `length` positions. There are always enough blocks: the pool has each sequence's most. */
static void take_blocks(struct session *s, uint32_t seq, uint32_t length)
{
    struct sequence *q = &s->seqs[seq];
    for (int g = 0; g < KV_GROUPS; g++) {
        if (g == KV_SLIDING && !s->window)
            continue;
        while ((uint64_t)q->n_blocks[g] * KV_BLOCK < length)
            s->table[g][(size_t)seq * s->stride + q->n_blocks[g]++] = s->free[g].ids[--s->free[g].n];
    }
}

static int compute(struct session *s, const struct session_row *rows, uint32_t n, bool sampled, struct err *err)
{
    struct batch batch = {.n_rows = n, .seq = s->row_seq, .pos = s->row_pos, .token = s->row_token, .wanted = s->wanted,
                          .table = {s->table[KV_FULL], s->table[KV_SLIDING]}, .table_stride = s->stride, .sampled = sampled};
    if (check_rows(s, rows, n, err) != 0)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        s->row_seq[i] = rows[i].seq;
        s->row_pos[i] = rows[i].pos;
        s->row_token[i] = rows[i].token;
        if (rows[i].want)
            s->wanted[batch.n_wanted++] = i;
    }
    for (uint32_t i = 0; i < s->parallel; i++)
        if (s->next_pos[i] != s->seqs[i].length)
            take_blocks(s, i, s->next_pos[i]);
    if (stage_run(s->stage, &batch, NULL, err) != 0)
        return -1;
    for (uint32_t i = 0; i < s->parallel; i++) {
        s->seqs[i].length = s->next_pos[i];
        free_passed(s, i);
    }
    return 0;
}

int session_step(struct session *s, const struct session_row *rows, uint32_t n, struct err *err)
{
    return compute(s, rows, n, false, err);
}

int session_answer(struct session *s, const struct session_row *rows, uint32_t n, struct answer *answers, uint32_t n_answers, struct err *err)
{
    uint32_t failed;
    if (compute(s, rows, n, true, err) != 0)
        return -1;
    if (answerer_answer(s->answerer, answers, n_answers, &failed, err) == 0)
        return 0;
    if (failed < n_answers) {
        const struct session_row *row = &rows[s->wanted[answers[failed].wanted]];
        err_wrap(err, "position %u of sequence %u", row->pos, row->seq);
    }
    return -1;
}

uint32_t session_wanted_rows(const struct session *s)
{
    uint64_t rows = LOGITS_BYTES_MAX / (s->params.n_vocab * sizeof(float));
    if (stage_answering(s->stage)->ops->sample || rows > s->batch_rows)
        return s->batch_rows;
    return rows > s->parallel ? (uint32_t)rows : s->parallel;
}

const float *session_logits(const struct session *s, uint32_t wanted_index)
{
    return stage_logits(s->stage, wanted_index);
}

uint32_t session_cut(struct session *s, uint32_t seq, uint32_t n)
{
    struct sequence *q = &s->seqs[seq];
    if (n >= q->length)
        return q->length;
    if (q->kept_from > 0 && (n < s->window || n - s->window < q->kept_from))
        n = 0;
    for (int g = 0; g < KV_GROUPS; g++) {
        uint32_t keep = (n + KV_BLOCK - 1) / KV_BLOCK, first = g == KV_SLIDING ? q->kept_from / KV_BLOCK : 0;
        keep = keep > first ? keep : first;
        while (q->n_blocks[g] > keep)
            s->free[g].ids[s->free[g].n++] = s->table[g][(size_t)seq * s->stride + --q->n_blocks[g]];
    }
    q->length = n;
    if (n == 0) {
        q->kept_from = 0;
        q->n_blocks[KV_FULL] = q->n_blocks[KV_SLIDING] = 0;
    }
    return n;
}

/* --- what it is --------------------------------------------------------------------------------------------------------- */

uint32_t session_length(const struct session *s, uint32_t seq)
{
    return s->seqs[seq].length;
}

const struct gguf *session_gguf(const struct session *s)
{
    return s->gguf;
}

const struct model_params *session_params(const struct session *s)
{
    return &s->params;
}

uint32_t session_n_vocab(const struct session *s)
{
    return s->params.n_vocab;
}

uint32_t session_ctx(const struct session *s)
{
    return s->ctx;
}

uint32_t session_parallel(const struct session *s)
{
    return s->parallel;
}

uint32_t session_batch_rows(const struct session *s)
{
    return s->batch_rows;
}

uint32_t session_threads(const struct session *s)
{
    return s->threads;
}

const char *session_isa(const struct session *s)
{
    return s->device[0] ? s->device : backend_cpu_isa(s->backend);
}

const char *session_placement(const struct session *s)
{
    return s->device[0] ? "" : backend_cpu_placement(s->backend);
}

uint64_t session_weight_bytes(const struct session *s)
{
    return s->bytes.weights;
}

uint64_t session_kv_bytes(const struct session *s)
{
    return s->bytes.kv;
}
