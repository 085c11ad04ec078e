/* The promise of the whole project: a row's logits are the same bits whatever shares its batch, however its text is cut into
 * steps, on however many threads, wherever the layers are cut, wherever its KV blocks lie, whichever kernels compute. For
 * every family, in several quantizations and kinds of cache, each against one plain run: the scalar kernels, one thread, the
 * whole text in one step.
 *
 * Windows (40 positions) are shorter than the texts; texts cross the border between two attention tiles (256 positions), some
 * cross two, and some are so long that passed blocks of sliding layers come back and are used again. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"
#include "kernels/kernels.h"
#include "model/sampler.h"
#include "model/session.h"
#include "model/stage.h"
#include "tests/checkkernels/data.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { SEQS = 3, SHORT_TEXT = 270, LONG_TEXT = 530, ENDLESS_TEXT = 1250, MAX_TEXT = 1300, GENERATED = 24 };

/* One model and what is right for it: texts of several sequences and the logits of every position. */
struct subject {
    char name[96], path[512];
    enum kv_type kv;
    const char *isa; /* that all but the plain run use */
    uint32_t length;
    int32_t token[SEQS][MAX_TEXT];
    float *logits[SEQS]; /* length × MODEL_VOCAB */
    struct rng rng;
    uint64_t compared, differ;
};

static struct err err;

static void die(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

/* The levels above scalar take turns; the processor takes the best below one that it lacks. */
static const char *level_of(uint32_t turn)
{
    uint32_t levels = 0;
    while (kernels_level(levels))
        levels++;
    return kernels_level(levels > 1 ? 1 + turn % (levels - 1) : 0);
}

static struct session *open_session(const struct subject *s, unsigned threads, uint32_t parallel, uint32_t batch_rows, const char *isa)
{
    struct session_options o = {.threads = threads, .ctx = s->length + GENERATED + 8, .parallel = parallel, .batch_rows = batch_rows, .kv = s->kv, .isa = isa};
    struct session *session = session_open(s->path, &o, &err);
    if (!session)
        die(s->name);
    return session;
}

static void compare_row(struct subject *s, uint32_t seq, uint32_t pos, const float *got)
{
    s->compared++;
    if (memcmp(got, s->logits[seq] + (size_t)pos * MODEL_VOCAB, MODEL_VOCAB * sizeof *got) == 0)
        return;
    if (s->differ++ == 0)
        tap_note("%s: position %u of sequence %u differs", s->name, pos, seq);
}

static uint64_t all_compared;

static void report(struct subject *s, const char *what)
{
    all_compared += s->compared;
    is_int(s->differ, 0, "%s: %s: %llu rows of logits the same", s->name, what, (unsigned long long)s->compared);
    s->compared = s->differ = 0;
}

/* Rows of one step that are still to be compared. */
struct step {
    struct session_row row[MAX_TEXT];
    uint32_t n;
};

static void add_row(struct step *t, const struct subject *s, uint32_t slot, uint32_t text, uint32_t pos, bool want)
{
    t->row[t->n++] = (struct session_row){.seq = slot, .pos = pos, .token = s->token[text][pos], .want = want};
}

static void run_step(struct session *session, struct step *t, struct subject *s)
{
    uint32_t wanted = 0;
    if (session_step(session, t->row, t->n, &err) != 0)
        die(s->name);
    for (uint32_t i = 0; i < t->n; i++)
        if (t->row[i].want)
            compare_row(s, t->row[i].seq, t->row[i].pos, session_logits(session, wanted++));
    t->n = 0;
}

/* --- what is right ------------------------------------------------------------------------------------------------------- */

static void make_subject(struct subject *s, const struct model_spec *spec, enum quant_type quant, enum kv_type kv, uint32_t length)
{
    static const char *const kvs[KV_TYPES] = {[KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"};
    static struct step t;
    memset(s, 0, sizeof *s);
    s->kv = kv;
    s->length = length;
    s->isa = level_of((uint32_t)(spec - model_specs) + quant + kv);
    s->rng.state = (uint64_t)(spec - model_specs) * 100 + quant;
    snprintf(s->name, sizeof s->name, "%s %s kv %s on %s", spec->name, quant_traits(quant)->name, kvs[kv], s->isa);
    snprintf(s->path, sizeof s->path, "%s/model.gguf", model_folder());
    model_write(spec, quant, s->path);
    for (uint32_t q = 0; q < SEQS; q++) {
        struct session *plain = open_session(s, 1, 1, length, q == 0 ? "scalar" : NULL); /* which takes its time */
        s->logits[q] = malloc((size_t)length * MODEL_VOCAB * sizeof(float));
        for (uint32_t p = 0; p < length; p++) {
            s->token[q][p] = (int32_t)rng_below(&s->rng, MODEL_VOCAB);
            add_row(&t, s, 0, q, p, true);
        }
        if (!s->logits[q] || session_step(plain, t.row, t.n, &err) != 0)
            die(s->name);
        t.n = 0;
        for (uint32_t p = 0; p < length; p++)
            memcpy(s->logits[q] + (size_t)p * MODEL_VOCAB, session_logits(plain, p), MODEL_VOCAB * sizeof(float));
        session_close(plain);
    }
}

static void drop_subject(struct subject *s)
{
    for (int q = 0; q < SEQS; q++)
        free(s->logits[q]);
}

/* Random models may give the same logits everywhere, or none: then nothing is shown by equality. */
static void check_subject(const struct subject *s)
{
    uint32_t same = 0, finite = 0;
    for (uint32_t p = 0; p < s->length; p++) {
        const float *row = s->logits[0] + (size_t)p * MODEL_VOCAB;
        for (int i = 0; i < MODEL_VOCAB; i++)
            finite += row[i] - row[i] == 0;
        same += p > 0 && memcmp(row, row - MODEL_VOCAB, MODEL_VOCAB * sizeof *row) == 0;
    }
    ok(same == 0 && finite == s->length * MODEL_VOCAB, "%s: logits are numbers and differ from place to place", s->name);
}

/* --- ways to the same rows ------------------------------------------------------------------------------------------------ */

static void feed(struct session *session, struct subject *s, uint32_t slot, uint32_t text, uint32_t from, uint32_t to, uint32_t chunk)
{
    static struct step t;
    for (uint32_t p = from; p < to; p++) {
        add_row(&t, s, slot, text, p, true);
        if (t.n == chunk || p + 1 == to) {
            /* compare_row goes by slot: text 0 in slot 0 */
            run_step(session, &t, s);
        }
    }
}

static void test_chunks(struct subject *s)
{
    static const uint32_t chunks[] = {1, 2, 3, 7, 32, 33, MAX_TEXT};
    struct session *session = open_session(s, 1, 1, s->length, s->isa);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        session_cut(session, 0, 0);
        feed(session, s, 0, 0, 0, s->length, chunks[i] < s->length ? chunks[i] : s->length);
    }
    session_close(session);
    report(s, "in steps of 1, 2, 3, 7, 32, 33, all");
}

/* Sequences grow by random numbers of rows a step, in random order within it; some rows' logits are not asked for. Before
 * that, blocks have been taken and given back so that they lie scattered. */
static void test_companions(struct subject *s)
{
    static struct step t;
    struct session *session = open_session(s, s->kv == KV_F16 ? 2 : 1, SEQS, 96, s->isa);
    for (uint32_t q = 0; q < SEQS; q++)
        feed(session, s, q, q, 0, 50 + 40 * q, 33);
    session_cut(session, 1, 31); /* others' blocks stay between */
    session_cut(session, 0, 0);
    for (;;) {
        uint32_t left[SEQS], at[SEQS], open = 0;
        for (uint32_t q = 0; q < SEQS; q++) {
            at[q] = session_length(session, q);
            uint32_t most = s->length - at[q] < 31 ? s->length - at[q] : 31;
            left[q] = rng_between(&s->rng, 0, most);
            open += at[q] < s->length;
        }
        if (open == 0)
            break;
        while (left[0] + left[1] + left[2] > 0) {
            uint32_t q = rng_below(&s->rng, SEQS);
            for (uint32_t run = rng_between(&s->rng, 1, 5); run > 0 && left[q] > 0; run--, left[q]--)
                add_row(&t, s, q, q, at[q]++, rng_below(&s->rng, 4) != 0);
        }
        if (t.n)
            run_step(session, &t, s);
    }
    session_close(session);
    report(s, "among companions, blocks scattered");
}

static void test_threads(struct subject *s)
{
    static const unsigned threads[] = {2, 3, 5};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        struct session *session = open_session(s, threads[i], 1, 101, s->isa);
        feed(session, s, 0, 0, 0, s->length, 101);
        session_close(session);
    }
    report(s, "on 2, 3, 5 threads");
}

/* Back to a place, and on from there; with other tokens in between. */
static void test_cuts(struct subject *s)
{
    struct session *session = open_session(s, 1, 1, 64, s->isa);
    uint32_t places[] = {s->length - 1, 256, 31, 255, 33, 257, 100};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        uint32_t from = session_length(session, 0);
        feed(session, s, 0, 0, from, s->length, 37);
        uint32_t kept = session_cut(session, 0, places[i]);
        if (kept != places[i] && kept != 0)
            s->differ++;
        if (kept > 0) { /* something else is written behind it, and taken back */
            struct session_row other[3];
            for (uint32_t k = 0; k < 3; k++)
                other[k] = (struct session_row){.pos = kept + k, .token = (int32_t)((uint32_t)s->token[1][k] + 1) % MODEL_VOCAB};
            if (session_step(session, other, 3, &err) != 0)
                die(s->name);
            if (session_cut(session, 0, kept) != kept && session_length(session, 0) != 0)
                s->differ++;
        }
    }
    feed(session, s, 0, 0, session_length(session, 0), s->length, 64);
    session_close(session);
    report(s, "after cuts");
}

/* The tokens that a user sees: drawn at a temperature, with penalties, alone and among companions. */
static void generate(struct subject *s, uint32_t companions, uint32_t prompt, int32_t *ret)
{
    struct sample_params params = SAMPLE_PARAMS_DEFAULT;
    struct session *session = open_session(s, 1, 1 + companions, 64, s->isa);
    struct sampler *sampler = sampler_create(MODEL_VOCAB, NULL, &err);
    int32_t history[MAX_TEXT];
    params.seed = 42;
    params.repetition_penalty = 1.1f;
    memcpy(history, s->token[0], prompt * sizeof *history);
    for (uint32_t i = 0; i < GENERATED; i++) {
        struct session_row rows[64];
        uint32_t n = 0;
        for (uint32_t p = session_length(session, 0); p < prompt + i; p++) {
            rows[n++] = (struct session_row){.pos = p, .token = history[p], .want = p + 1 == prompt + i};
            for (uint32_t q = 1; q <= companions && session_length(session, q) == 0 && p < 10; q++)
                rows[n++] = (struct session_row){.seq = q, .pos = p, .token = s->token[q][p]};
        }
        if (session_step(session, rows, n, &err) != 0 ||
            sampler_sample(sampler, &params, session_logits(session, 0), history, prompt + i, 0, prompt + i, &ret[i], NULL, &err) != 0)
            die(s->name);
        history[prompt + i] = ret[i];
    }
    sampler_destroy(sampler);
    session_close(session);
}

static void test_tokens(struct subject *s)
{
    int32_t alone[GENERATED], together[GENERATED];
    generate(s, 0, 30, alone);
    generate(s, 2, 30, together);
    is_mem(together, alone, sizeof alone, "%s: %d drawn tokens the same alone and among companions", s->name, GENERATED);
}

/* --- stages --------------------------------------------------------------------------------------------------------------- */

enum { MAX_STAGES = 3, STAGE_CHUNK = 33 };

struct pipeline {
    struct gguf *g;
    struct model_params p;
    struct backend *be[MAX_STAGES]; /* stages are of different machines */
    struct threadpool *readers;
    struct stage *stage[MAX_STAGES];
    uint32_t n_stages, stride;
    uint32_t *table; /* the same blocks, backwards */
};

static void open_pipeline(struct pipeline *pl, const struct subject *s)
{
    memset(pl, 0, sizeof *pl);
    if (!(pl->g = gguf_open(s->path, false, &err)) || model_params_read(pl->g, &pl->p, &err) != 0 || !(pl->readers = threadpool_create(1, &err)))
        die(s->name);
    for (uint32_t i = 0; i < MAX_STAGES; i++)
        if (!(pl->be[i] = backend_cpu_create(1, i == 0 ? NULL : level_of(i + (uint32_t)s->rng.state), &err)))
            die(s->name);
    pl->stride = (s->length + KV_BLOCK - 1) / KV_BLOCK;
    pl->table = malloc(pl->stride * sizeof *pl->table);
    for (uint32_t i = 0; i < pl->stride; i++)
        pl->table[i] = pl->stride - 1 - i;
}

static void close_pipeline(struct pipeline *pl)
{
    free(pl->table);
    threadpool_destroy(pl->readers);
    for (int i = 0; i < MAX_STAGES; i++)
        backend_destroy(pl->be[i]);
    gguf_close(pl->g);
}

/* Stages of layers [cut[i], cut[i + 1]). */
static void make_stages(struct pipeline *pl, const struct subject *s, const uint32_t *cut, uint32_t n)
{
    pl->n_stages = n;
    for (uint32_t i = 0; i < n; i++) {
        struct stage_config c = {.first = cut[i], .last = cut[i + 1], .embed = i == 0, .head = i + 1 == n, .kv = s->kv, .ctx = s->length + GENERATED + 8,
                                 .n_blocks = {pl->stride, pl->stride}, .max_rows = STAGE_CHUNK, .max_wanted = STAGE_CHUNK, .max_seqs = 1,
                                 .table_stride = pl->stride};
        if (!(pl->stage[i] = stage_create(pl->g, &pl->p, &c, pl->be[i], pl->readers, NULL, NULL, &err)))
            die(s->name);
    }
}

static void run_pipeline(struct pipeline *pl, struct subject *s)
{
    uint32_t seq[STAGE_CHUNK] = {0}, pos[STAGE_CHUNK], wanted[STAGE_CHUNK];
    for (uint32_t p = 0, n; p < s->length; p += n) {
        n = s->length - p < STAGE_CHUNK ? s->length - p : STAGE_CHUNK;
        for (uint32_t i = 0; i < n; i++) {
            pos[i] = p + i;
            wanted[i] = i;
        }
        struct batch batch = {.n_rows = n, .seq = seq, .pos = pos, .token = s->token[0] + p, .n_wanted = n, .wanted = wanted,
                              .table = {pl->table, pl->table}, .table_stride = pl->stride};
        float *wire = NULL;
        for (uint32_t i = 0; i < pl->n_stages; i++) {
            if (stage_run(pl->stage[i], &batch, wire, &err) != 0)
                die(s->name);
            free(wire);
            wire = NULL;
            if (i + 1 < pl->n_stages) { /* as over a wire: a copy */
                size_t bytes = (size_t)n * pl->p.embd * sizeof *wire;
                wire = malloc(bytes);
                memcpy(wire, stage_hidden(pl->stage[i]), bytes);
            }
        }
        for (uint32_t i = 0; i < n; i++)
            compare_row(s, 0, p + i, stage_logits(pl->stage[pl->n_stages - 1], i));
    }
    for (uint32_t i = 0; i < pl->n_stages; i++)
        stage_destroy(pl->stage[i]);
}

static void test_stages(struct subject *s)
{
    struct pipeline pl;
    uint32_t ways = 0;
    open_pipeline(&pl, s);
    uint32_t last = pl.p.n_layers;
    for (uint32_t a = 0; a <= last; a++) /* a stage of no layers is one that only embeds, or only has the head */
        for (uint32_t b = a; b <= last; b++) {
            bool two = b == last;
            make_stages(&pl, s, two ? (uint32_t[]){0, a, last} : (uint32_t[]){0, a, b, last}, two ? 2 : 3);
            run_pipeline(&pl, s);
            ways++;
        }
    close_pipeline(&pl);
    tap_note("%s: %u ways to cut %u layers", s->name, ways, last);
    report(s, "in 2 and 3 stages of different processors");
}

/* ------------------------------------------------------------------------------------------------------------------------- */

static void test_subject(const struct model_spec *spec, enum quant_type quant, enum kv_type kv, uint32_t length)
{
    struct subject s;
    make_subject(&s, spec, quant, kv, length);
    check_subject(&s);
    test_chunks(&s);
    test_companions(&s);
    test_threads(&s);
    test_cuts(&s);
    test_stages(&s);
    test_tokens(&s);
    drop_subject(&s);
}

/* Longer than window + slack: blocks that no window sees come back and are used again. */
static void test_endless(const char *name)
{
    struct subject s;
    make_subject(&s, model_spec_of(name), QUANT_Q8_0, KV_F16, ENDLESS_TEXT);
    struct session *session = open_session(&s, 2, 2, 64, s.isa);
    feed(session, &s, 0, 0, 0, s.length, 64);
    feed(session, &s, 1, 1, 0, s.length, 50);
    uint32_t kept = session_cut(session, 0, 1200);
    is_int(kept, 1200, "%s: 50 positions are taken back", name);
    feed(session, &s, 0, 0, kept, s.length, 1);
    kept = session_cut(session, 0, 100);
    is_int(kept, 0, "%s: a place whose window is gone is computed anew", name);
    feed(session, &s, 0, 0, kept, s.length, 63);
    session_close(session);
    report(&s, "past the window and the slack");
    drop_subject(&s);
}

/* A long context whose tiles are shared out among threads: as many as go evenly into the KV heads, and not. */
static void test_apart(const char *name, enum kv_type kv)
{
    static const unsigned threads[] = {2, 3, 5};
    struct subject s;
    make_subject(&s, model_spec_of(name), QUANT_Q8_0, kv, ENDLESS_TEXT);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        struct session *session = open_session(&s, threads[i], 1, 64, s.isa);
        feed(session, &s, 0, 0, 0, 1060, 64);
        feed(session, &s, 0, 0, 1060, i == 0 ? 1100 : s.length, 1);
        session_close(session);
    }
    report(&s, "a long context among 2, 3 and 5 threads");
    drop_subject(&s);
}

int main(void)
{
    static const enum quant_type quants[] = {QUANT_Q8_0, QUANT_F16, QUANT_Q4_K, QUANT_Q4_0, QUANT_F32, QUANT_Q6_K, QUANT_Q5_1, QUANT_BF16, QUANT_Q2_K,
                                             QUANT_IQ4_NL, QUANT_MXFP4, QUANT_Q3_K, QUANT_Q5_K, QUANT_IQ4_XS, QUANT_Q4_1, QUANT_Q5_0};
    enum { QUANTS = sizeof quants / sizeof *quants };
#ifdef SC_SANITIZED
    enum { STEP = 4 }; /* sanitizers take ten times as long */
#else
    enum { STEP = 1 };
#endif
    bool all = getenv("SC_LONG") != NULL;
    int n = 0;
    for (int i = 0; i < MODEL_SPECS; i++)
        for (int k = 0; k < KV_TYPES; k++)
            for (int q = 0; q < (all ? QUANTS : 1); q++)
                if (n++ % STEP == 0)
                    test_subject(&model_specs[i], quants[all ? q : (n - 1) % QUANTS], (enum kv_type)k, (i + k) % 4 == 0 ? LONG_TEXT : SHORT_TEXT);
    test_endless("gemma2");
    test_endless("gemma3");
    test_endless("phi3-window");
    test_apart("llama", KV_F16);
    test_apart("qwen3", KV_Q8_0);
    tap_note("%llu rows of %d logits compared", (unsigned long long)all_compared, MODEL_VOCAB);
    return tap_done();
}
