/* Whole stages on a CUDA device against the scalar kernels: the same bits, and the same tokens where it chooses them, for every family, quantization and kind of cache,
 * however the text is cut into steps, whatever shares them, and wherever the layers are cut between the device and the
 * processor. On an emulated device; SC_CUDA_DEVICE=1: on a real one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"
#include "kernels/kernels.h"
#include "model/answer.h"
#include "model/stage.h"
#include "tests/checkkernels/data.h"
#include "tests/cuda/emulated.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { SEQS = 3, SHORT_TEXT = 45, LONG_TEXT = 300, MAX_STEP = 320, STAGES = 2 };

struct subject {
    char name[96], path[512];
    enum kv_type kv;
    uint32_t length, stride;
    int32_t token[SEQS][LONG_TEXT];
    float *logits[SEQS];
    struct gguf *g;
    struct model_params p;
    uint32_t *table; /* SEQS × stride, scattered */
    struct rng rng;
    uint64_t compared, differ;
};

static struct backend *cpu, *cuda, *plain_cuda;
static struct threadpool *readers;
static struct err err;

static void die(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

static struct stage *make_stage(struct subject *s, struct backend *be, uint32_t first, uint32_t last)
{
    uint32_t blocks = s->stride * SEQS;
    struct stage_config c = {.first = first, .last = last, .embed = first == 0, .head = last == s->p.n_layers, .kv = s->kv, .ctx = s->length + 8,
                             .n_blocks = {blocks, blocks}, .max_rows = MAX_STEP, .max_wanted = MAX_STEP, .max_seqs = SEQS, .table_stride = s->stride};
    struct stage *st = stage_create(s->g, &s->p, &c, be, readers, NULL, NULL, &err);
    if (!st)
        die(s->name);
    return st;
}

/* Rows of one step. */
struct step {
    uint32_t n, n_wanted, seq[MAX_STEP], pos[MAX_STEP], wanted[MAX_STEP];
    int32_t token[MAX_STEP];
};

static void add_row(struct step *t, const struct subject *s, uint32_t seq, uint32_t pos, bool want)
{
    if (want)
        t->wanted[t->n_wanted++] = t->n;
    t->seq[t->n] = seq;
    t->pos[t->n] = pos;
    t->token[t->n++] = s->token[seq][pos];
}

/* The device's own tokens of a step's wanted rows, and their log-probabilities, are the sampler's of the right logits. */
static void compare_tokens(struct subject *s, struct run *run, const struct step *t)
{
    static struct answer answers[MAX_STEP];
    static struct sampler *sampler;
    struct answerer *answerer = answerer_create(run, MODEL_VOCAB, NULL, NULL, &err);
    struct sample_params p = SAMPLE_PARAMS_DEFAULT;
    uint32_t failed;
    if (!answerer || (!sampler && !(sampler = sampler_create(MODEL_VOCAB, NULL, &err))))
        die("sampler");
    for (uint32_t i = 0; i < t->n_wanted; i++)
        answers[i] = (struct answer){.wanted = i, .params = &p, .position = i};
    if (answerer_answer(answerer, answers, t->n_wanted, &failed, &err) != 0)
        die(s->name);
    for (uint32_t i = 0; i < t->n_wanted; i++) {
        uint32_t r = t->wanted[i];
        int32_t token;
        float logprob;
        if (sampler_sample(sampler, &p, s->logits[t->seq[r]] + (size_t)t->pos[r] * MODEL_VOCAB, NULL, 0, 0, i, &token, &logprob, &err) != 0)
            die(s->name);
        s->compared++;
        s->differ += token != answers[i].token || memcmp(&logprob, &answers[i].logprob, sizeof logprob) != 0;
    }
    answerer_destroy(answerer);
}

/* Through one or two stages; wanted rows are compared, or kept where there is nothing yet to compare with. */
static void run_step(struct subject *s, struct stage **stages, uint32_t n_stages, struct step *t, bool keep)
{
    struct batch batch = {.n_rows = t->n, .seq = t->seq, .pos = t->pos, .token = t->token, .n_wanted = t->n_wanted, .wanted = t->wanted,
                          .table = {s->table, s->table}, .table_stride = s->stride};
    struct run *last = stage_answering(stages[n_stages - 1]);
    static uint32_t turns[2];
    float *wire = NULL;
    batch.sampled = !keep && last->ops->sample && turns[t->n_wanted > SAMPLE_AT_ONCE]++ % 2 == 0; /* every other one, of small and of large ones */
    for (uint32_t i = 0; i < n_stages; i++) {
        if (stage_run(stages[i], &batch, wire, &err) != 0)
            die(s->name);
        free(wire);
        wire = NULL;
        if (i + 1 < n_stages) {
            size_t bytes = (size_t)t->n * s->p.embd * sizeof *wire;
            wire = malloc(bytes);
            memcpy(wire, stage_hidden(stages[i]), bytes);
        }
    }
    if (batch.sampled)
        compare_tokens(s, last, t);
    for (uint32_t i = 0; i < t->n_wanted && !batch.sampled; i++) {
        uint32_t r = t->wanted[i];
        float *right = s->logits[t->seq[r]] + (size_t)t->pos[r] * MODEL_VOCAB;
        const float *got = stage_logits(stages[n_stages - 1], i);
        if (keep) {
            memcpy(right, got, MODEL_VOCAB * sizeof *got);
            continue;
        }
        s->compared++;
        if (memcmp(got, right, MODEL_VOCAB * sizeof *got) != 0 && s->differ++ == 0)
            for (int k = 0; k < MODEL_VOCAB; k++)
                if (got[k] != right[k]) {
                    tap_note("%s: position %u of sequence %u, logit %d: got %a, expected %a", s->name, t->pos[r], t->seq[r], k, (double)got[k], (double)right[k]);
                    break;
                }
    }
    t->n = t->n_wanted = 0;
}

static void report(struct subject *s, const char *what)
{
    is_int(s->differ, 0, "%s: %s: %llu rows of logits the CPU's", s->name, what, (unsigned long long)s->compared);
    ok(s->compared > 0, "there were some");
    s->compared = s->differ = 0;
}

static void make_subject(struct subject *s, const struct model_spec *spec, enum quant_type quant, enum kv_type kv, uint32_t length)
{
    static const char *const kvs[KV_TYPES] = {[KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"};
    static struct step t;
    memset(s, 0, sizeof *s);
    s->kv = kv;
    s->length = length;
    s->stride = (length + KV_BLOCK - 1) / KV_BLOCK;
    s->rng.state = (uint64_t)(spec - model_specs) * 100 + quant;
    snprintf(s->name, sizeof s->name, "%s %s kv %s", spec->name, quant_traits(quant)->name, kvs[kv]);
    snprintf(s->path, sizeof s->path, "%s/model.gguf", model_folder());
    model_write(spec, quant, s->path);
    if (!(s->g = gguf_open(s->path, false, &err)) || model_params_read(s->g, &s->p, &err) != 0)
        die(s->name);
    s->table = malloc(SEQS * s->stride * sizeof *s->table);
    for (uint32_t i = 0; i < SEQS * s->stride; i++)
        s->table[i] = SEQS * s->stride - 1 - i;
    struct stage *stage = make_stage(s, cpu, 0, s->p.n_layers);
    for (uint32_t q = 0; q < SEQS; q++) {
        s->logits[q] = malloc((size_t)length * MODEL_VOCAB * sizeof(float));
        for (uint32_t p = 0; p < length; p++) {
            s->token[q][p] = (int32_t)rng_below(&s->rng, MODEL_VOCAB);
            add_row(&t, s, q, p, true);
        }
        run_step(s, &stage, 1, &t, true);
    }
    stage_destroy(stage);
}

static void drop_subject(struct subject *s)
{
    for (int q = 0; q < SEQS; q++)
        free(s->logits[q]);
    free(s->table);
    gguf_close(s->g);
}

/* Each of some sequences in chunks of its own size; some rows' logits are not asked for. */
static void test_alone(struct subject *s, struct backend *be, uint32_t seqs)
{
    static const uint32_t chunks[SEQS] = {MAX_STEP, 13, 1};
    static struct step t;
    struct stage *stage = make_stage(s, be, 0, s->p.n_layers);
    for (uint32_t q = 0; q < seqs; q++)
        for (uint32_t p = 0, most = q == 2 ? 40 : s->length; p < most && p < s->length; p++) {
            add_row(&t, s, q, p, true);
            if (t.n == chunks[q] || p + 1 == most || p + 1 == s->length)
                run_step(s, &stage, 1, &t, false);
        }
    stage_destroy(stage);
    report(s, be == cuda ? "alone, in steps of all, of 13, of 1" : "without graphs");
}

/* Random numbers of rows of each a step, behind one or two stages. */
static void test_together(struct subject *s, struct stage **stages, uint32_t n_stages, const char *what)
{
    static struct step t;
    uint32_t at[SEQS] = {0}, open = SEQS;
    while (open > 0) {
        open = 0;
        for (uint32_t q = 0; q < SEQS; q++) {
            for (uint32_t n = rng_below(&s->rng, rng_below(&s->rng, 3) ? 30 : 4); n > 0 && at[q] < s->length; n--)
                add_row(&t, s, q, at[q]++, rng_below(&s->rng, 4) != 0);
            open += at[q] < s->length;
        }
        if (t.n)
            run_step(s, stages, n_stages, &t, false);
    }
    for (uint32_t i = 0; i < n_stages; i++)
        stage_destroy(stages[i]);
    report(s, what);
}

static void test_subject(const struct model_spec *spec, enum quant_type quant, enum kv_type kv, uint32_t length, uint32_t turn)
{
    struct subject s;
    make_subject(&s, spec, quant, kv, length);
    if (getenv("SC_LONG") || turn % 6 == 0) {
        struct stage *one[] = {make_stage(&s, cuda, 0, s.p.n_layers)};
        test_together(&s, one, 1, "together");
        test_alone(&s, turn % 12 == 0 ? cuda : plain_cuda, SEQS);
    } else if (length == LONG_TEXT) {
        test_alone(&s, cuda, 1);
    }
    uint32_t cut = 1 + turn % (s.p.n_layers - 1);
    struct stage *two[] = {make_stage(&s, turn % 2 ? cuda : cpu, 0, cut), make_stage(&s, turn % 2 ? cpu : cuda, cut, s.p.n_layers)};
    test_together(&s, two, 2, turn % 2 ? "first layers on the device, the others on the processor" : "first layers on the processor, the others on the device");
    drop_subject(&s);
}

int main(int argc, char **argv)
{
    static const enum quant_type quants[] = {QUANT_Q8_0, QUANT_F16, QUANT_Q4_K, QUANT_Q4_0, QUANT_F32, QUANT_Q6_K, QUANT_Q5_1, QUANT_BF16, QUANT_Q2_K,
                                             QUANT_IQ4_NL, QUANT_MXFP4, QUANT_Q3_K, QUANT_Q5_K, QUANT_IQ4_XS, QUANT_Q4_1, QUANT_Q5_0};
    enum { QUANTS = sizeof quants / sizeof *quants };
    bool all = getenv("SC_LONG") != NULL;
    uint32_t turn = 0;
    emulated_open(NULL);
    if (!(cpu = backend_cpu_create(1, "scalar", &err)) || !(readers = threadpool_create(2, &err)))
        die("start");
    cuda = emulated_backend(false);
    plain_cuda = emulated_backend(true);
    for (int i = 0; i < MODEL_SPECS; i++)
        for (int k = 0; k < (all ? KV_TYPES : 1); k++)
            for (int q = 0; q < (all ? QUANTS : 1); q++, turn++)
                if (argc < 2 || strcmp(argv[1], model_specs[i].name) == 0) /* one family, by name */
                    test_subject(&model_specs[i], quants[all ? q : i % QUANTS], (enum kv_type)(all ? k : i % KV_TYPES), (all ? turn % 10 == 2 : turn == 2) ? LONG_TEXT : SHORT_TEXT, turn);
    threadpool_destroy(readers);
    backend_destroy(cpu);
    backend_destroy(cuda);
    backend_destroy(plain_cuda);
    is_int(emulated_live(), 0, "nothing is left on the device");
    return tap_done();
}
