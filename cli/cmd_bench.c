/* stagecoach bench: tokens per second, the best of some repetitions.
 *   ppN     N prompt rows, until the last row's likeliest token is known
 *   tgN     N tokens of one sequence, one a step, each step's likeliest token known before the next begins
 *   batchM  the same with M sequences a step; tokens of all together
 * and of a pipeline:
 *   concurrentM  M requests that come at once; tokens of all a second, prompts included
 *   besideN      milliseconds between tokens of running answers while a prompt of N tokens is read, beside the usual
 *   prefixN      milliseconds to the first token of a prompt of N tokens and some, and of another that begins with the same N
 * with what each stage did meanwhile, and what the plan had promised.
 * Prompts and tokens are random ids, others in every repetition, whatever the likeliest would be; nothing ends early. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/bench_engine.h"
#include "cli/command.h"
#include "cli/local.h"
#include "cli/ui.h"
#include "model/answer.h"

enum { SIZES_MAX = 64, WARM_UP_ROWS = 16, TOKEN_MAX = 30000, PARALLEL_MAX = 1024, PREFIX_REST = 16 };

struct values {
    struct model_options model;
    const char *batch, *concurrent, *trace;
    int64_t pp, tg, depth, reps, prefix, beside;
    bool json;
};

static const struct opt options[] = {
    {"pp", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, pp), .max = 1 << 20, .def = "512", .help = "Prompt tokens; 0: skip"},
    {"tg", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, tg), .max = 1 << 20, .def = "64", .help = "Generated tokens; 0: skip"},
    {"batch", 0, OPT_STRING, .arg = "LIST", .offset = offsetof(struct values, batch), .def = "1,2,4,8",
     .help = "Numbers of sequences that generate together"},
    {"depth", 0, OPT_INT, .arg = "D", .offset = offsetof(struct values, depth), .max = 1 << 20, .def = "0",
     .help = "Tokens that each sequence holds before it generates"},
    {"concurrent", 0, OPT_STRING, .arg = "LIST", .offset = offsetof(struct values, concurrent),
     .help = "Numbers of requests that arrive at once at the scheduler, each with --depth prompt tokens (at least 1) and --tg to generate"},
    GATHER_OPTION(values),
    {"prefix", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, prefix), .max = 1 << 20,
     .help = "Also the time to the first token of a prompt of N tokens and 16 more, then of one with the same N and 16 others"},
    {"beside", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, beside), .max = 1 << 20,
     .help = "Also how a prompt of N tokens slows running answers (as many as the most of --batch): usual and longest time between tokens"},
    {"trace", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, trace),
     .help = "Write every event and decision of the scheduler to FILE, as serve --trace does"},
    {"reps", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, reps), .min = 1, .max = 1000, .def = "2",
     .help = "Repetitions, of which the best counts"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "One JSON object instead of lines"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, MODEL_OPTION_GROUPS(values), {0}};
static const struct opt_example examples[] = {
    {"stagecoach bench -m model.gguf", "Prompt speed, then 1, 2, 4 and 8 sequences."},
    {"stagecoach bench -m model.gguf --pp 0 --batch 1 --depth 4096 --isa scalar", "Generation deep in a context, with plain C kernels."},
    {0},
};

struct bench {
    struct session *session;
    struct bench_engine over; /* engine NULL: the session's */
    struct session_row *rows;
    struct answer *answers;
    uint64_t drawn; /* random tokens so far */
    uint32_t n_ids;
    bool json;
    size_t printed;
};

/* A step, until the likeliest token is known behind each row that is wanted. */
static int step(struct bench *b, uint32_t n, struct err *err)
{
    static const struct sample_params greedy = {.top_p = 1, .typical_p = 1, .repetition_penalty = 1};
    uint32_t wanted = 0;

    for (uint32_t i = 0; i < n; i++)
        if (b->rows[i].want) {
            b->answers[wanted] = (struct answer){.wanted = wanted, .params = &greedy, .token_alone = true};
            wanted++;
        }
    return session_answer(b->session, b->rows, n, b->answers, wanted, err);
}

static int32_t random_token(struct bench *b)
{
    uint64_t n = b->drawn++;
    return (int32_t)(sampler_random(n >> 32, 0, (uint32_t)n, 0) % b->n_ids);
}

/* n new rows of each of the sequences 0 … n_seq - 1, in steps as large as the session takes; the last row of each sequence,
 * or every row, is waited for. */
static int feed(struct bench *b, uint32_t seq, uint32_t n, bool want_last, struct err *err)
{
    uint32_t at = session_length(b->session, seq), max = session_batch_rows(b->session);

    for (uint32_t done = 0; done < n;) {
        uint32_t len = n - done < max ? n - done : max;
        for (uint32_t i = 0; i < len; i++)
            b->rows[i] = (struct session_row){seq, at + done + i, random_token(b), want_last && done + i + 1 == n};
        if (step(b, len, err) != 0)
            return -1;
        done += len;
        if (ui_interrupted())
            return err_set(err, ERR_CANCELLED, "interrupted");
    }
    return 0;
}

static void forget(struct bench *b)
{
    for (uint32_t i = 0; i < session_parallel(b->session); i++)
        session_cut(b->session, i, 0);
}

static int prompt_seconds(struct bench *b, uint32_t n, double *ret, struct err *err)
{
    if (b->over.engine)
        return bench_engine_prompt(&b->over, n, ret, err);
    forget(b);
    double start = ui_seconds();
    if (feed(b, 0, n, true, err) != 0)
        return -1;
    *ret = ui_seconds() - start;
    return 0;
}

static int generate_seconds(struct bench *b, uint32_t n_seq, uint32_t n, uint32_t depth, double *ret, struct err *err)
{
    if (b->over.engine)
        return bench_engine_generate(&b->over, n_seq, n, depth, ret, err);
    forget(b);
    for (uint32_t i = 0; i < n_seq; i++)
        if (feed(b, i, depth, false, err) != 0)
            return -1;
    double start = ui_seconds();
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < n_seq; i++)
            b->rows[i] = (struct session_row){i, depth + t, random_token(b), true};
        if (step(b, n_seq, err) != 0)
            return -1;
        if (ui_interrupted())
            return err_set(err, ERR_CANCELLED, "interrupted");
    }
    *ret = ui_seconds() - start;
    return 0;
}

/* A figure, the best of its repetitions so far. */
struct figure {
    const char *name;
    uint32_t n;
    double tokens, seconds, predicted; /* tokens a second that the plan promised; 0: none */
    struct bench_usage usage;
};

static void end_repetition(const struct bench *b, struct figure *f, double seconds)
{
    if (seconds >= f->seconds)
        return;
    f->seconds = seconds;
    f->usage = b->over.usage;
}

static int print_figure(struct bench *b, const struct figure *f, struct err *err)
{
    double rate = f->tokens / f->seconds;
    if (!b->json) {
        ui_outf("%s%u %.2f\n", f->name, f->n, rate);
        if (ui_flush(err) != 0)
            return -1;
        if (f->predicted > 0)
            ui_say("  the plan promised %.2f: measured is %.0f%% of that", f->predicted, 100 * rate / f->predicted);
        bench_usage_say(&f->usage, f->seconds);
        return 0;
    }
    ui_outf("%s{\"name\": \"%s%u\", \"tokens_per_s\": %.2f", b->printed++ ? ", " : "", f->name, f->n, rate);
    if (f->predicted > 0)
        ui_outf(", \"predicted\": %.2f", f->predicted);
    bench_usage_json(&f->usage, f->seconds);
    ui_outf("}");
    return ui_flush(err);
}

static int parse_sizes(const char *option, const char *text, uint32_t *sizes, size_t *n, struct err *err)
{
    char *end;

    for (*n = 0; *n < SIZES_MAX; text = end + 1) {
        unsigned long size = strtoul(text, &end, 10);
        if (end == text || *text < '0' || *text > '9' || size < 1 || size > PARALLEL_MAX || (*end && *end != ','))
            return err_set(err, ERR_USAGE, "%s: numbers from 1 to %d are expected, separated by commas (1,2,4,8)", option, PARALLEL_MAX);
        sizes[(*n)++] = (uint32_t)size;
        if (!*end)
            return 0;
    }
    return err_set(err, ERR_USAGE, "%s: more than %d numbers", option, SIZES_MAX);
}

static int measure_prompt(struct bench *b, const struct values *v, struct err *err)
{
    struct figure f = {.name = "pp", .n = (uint32_t)v->pp, .tokens = (double)v->pp, .seconds = HUGE_VAL};
    double seconds;
    for (int64_t r = 0; r < v->reps; r++) {
        if (prompt_seconds(b, (uint32_t)v->pp, &seconds, err) != 0)
            return -1;
        end_repetition(b, &f, seconds);
    }
    return print_figure(b, &f, err);
}

static int measure_generation(struct bench *b, const struct values *v, uint32_t n, struct err *err)
{
    struct figure f = {.name = n == 1 ? "tg" : "batch", .n = n == 1 ? (uint32_t)v->tg : n, .tokens = (double)v->tg * n, .seconds = HUGE_VAL};
    double seconds;
    if (b->over.engine)
        f.predicted = engine_predict(b->over.engine, n, (uint32_t)(v->depth + v->tg / 2), NULL);
    for (int64_t r = 0; r < v->reps; r++) {
        if (generate_seconds(b, n, (uint32_t)v->tg, (uint32_t)v->depth, &seconds, err) != 0)
            return -1;
        end_repetition(b, &f, seconds);
    }
    return print_figure(b, &f, err);
}

static int measure(struct bench *b, const struct values *v, const uint32_t *sizes, size_t n_sizes, struct err *err)
{
    double seconds;

    if (prompt_seconds(b, WARM_UP_ROWS, &seconds, err) != 0 || (v->pp && measure_prompt(b, v, err) != 0))
        return -1;
    for (size_t i = 0; i < n_sizes && v->tg; i++)
        if (measure_generation(b, v, sizes[i], err) != 0)
            return -1;
    return 0;
}

static int measure_concurrent(struct bench *b, const struct values *v, uint32_t n, struct err *err)
{
    struct figure f = {.name = "concurrent", .n = n, .tokens = (double)v->tg * n, .seconds = HUGE_VAL};
    double seconds;
    for (int64_t r = 0; r < v->reps; r++) {
        if (bench_engine_concurrent(&b->over, n, v->depth ? (uint32_t)v->depth : 1, (uint32_t)v->tg, &seconds, err) != 0)
            return -1;
        end_repetition(b, &f, seconds);
    }
    return print_figure(b, &f, err);
}

/* Both times are of one repetition: the one with the least share. */
static int measure_prefix(struct bench *b, const struct values *v, struct err *err)
{
    double first = 0, again = 0, share = HUGE_VAL;
    for (int64_t r = 0; r < v->reps; r++) {
        double a, z;
        if (bench_engine_prefix(&b->over, (uint32_t)v->prefix, PREFIX_REST, &a, &z, err) != 0)
            return -1;
        if (z / a < share)
            first = a, again = z, share = z / a;
    }
    if (b->json)
        ui_outf("%s{\"name\": \"prefix%lld\", \"first_ms\": %.2f, \"again_ms\": %.2f}", b->printed++ ? ", " : "", (long long)v->prefix,
                first * 1e3, again * 1e3);
    else
        ui_outf("prefix%lld first %.1f ms, again %.1f ms (%.1f%%)\n", (long long)v->prefix, first * 1e3, again * 1e3, 100 * share);
    return ui_flush(err);
}

/* Once: the longest of some hundred gaps is no matter of repetitions. */
static int measure_beside(struct bench *b, const struct values *v, uint32_t n_seq, struct err *err)
{
    struct bench_gaps g;
    if (bench_engine_beside(&b->over, n_seq, (uint32_t)v->beside, &g, err) != 0)
        return -1;
    if (b->json)
        ui_outf("%s{\"name\": \"beside%lld\", \"answers\": %u, \"usual_ms\": %.2f, \"usual_longest_ms\": %.2f, \"median_ms\": %.2f, \"p99_ms\": %.2f, "
                "\"longest_ms\": %.2f, \"after_ms\": %.2f, \"median_stretch\": %.3f, \"p99_stretch\": %.3f, \"longest_stretch\": %.3f, \"prompt_s\": %.3f}",
                b->printed++ ? ", " : "", (long long)v->beside, n_seq, g.before.median * 1e3, g.before.longest * 1e3, g.beside.median * 1e3,
                g.beside.p99 * 1e3, g.beside.longest * 1e3, g.after.median * 1e3, g.stretch.median, g.stretch.p99, g.stretch.longest, g.prompt_seconds);
    else
        ui_outf("beside%lld usual %.1f ms (at most %.1f), afterwards %.1f; beside it median %.1f ms, 99%% %.1f, longest %.1f: %.2f, %.2f, %.2f of what is "
                "usual by then; the prompt %.2f s\n", (long long)v->beside, g.before.median * 1e3, g.before.longest * 1e3, g.after.median * 1e3,
                g.beside.median * 1e3, g.beside.p99 * 1e3, g.beside.longest * 1e3, g.stretch.median, g.stretch.p99, g.stretch.longest, g.prompt_seconds);
    return ui_flush(err);
}

static int32_t draw(void *arg)
{
    return random_token(arg);
}

/* What is measured, and with which sizes. */
struct job {
    struct values *v;
    struct local local;
    struct bench bench;
    uint32_t sizes[SIZES_MAX], concurrent[SIZES_MAX], most;
    uint32_t answers; /* of --beside */
    size_t n_sizes, n_concurrent;
    uint32_t ctx; /* that it needs */
};

static int check(struct job *j, struct err *err)
{
    struct values *v = j->v;
    uint64_t need = (uint64_t)(v->depth + v->tg > v->pp ? v->depth + v->tg : v->pp);

    if (parse_sizes("--batch", v->batch, j->sizes, &j->n_sizes, err) != 0 ||
        (v->concurrent && parse_sizes("--concurrent", v->concurrent, j->concurrent, &j->n_concurrent, err) != 0))
        return -1;
    if (!v->pp && !v->tg && !v->prefix && !v->beside)
        return err_set(err, ERR_USAGE, "--pp 0 and --tg 0: nothing is left to measure; give at least one of them a number of tokens");
    if (v->trace && !v->model.workers && !v->model.topology && !j->n_concurrent && !v->prefix && !v->beside)
        return err_set(err, ERR_USAGE, "--trace: nothing is scheduled here; give --workers, --topology, --concurrent, --beside or --prefix as well");
    j->most = 1;
    for (size_t i = 0; i < j->n_sizes; i++)
        j->most = j->sizes[i] > j->most ? j->sizes[i] : j->most;
    j->answers = j->most;
    j->most += v->beside > 0;
    for (size_t i = 0; i < j->n_concurrent; i++)
        j->most = j->concurrent[i] > j->most ? j->concurrent[i] : j->most;
    need = need > WARM_UP_ROWS ? need : WARM_UP_ROWS;
    if (v->prefix && need < (uint64_t)v->prefix + PREFIX_REST)
        need = (uint64_t)v->prefix + PREFIX_REST;
    if (v->beside && need < (uint64_t)v->beside + 1)
        need = (uint64_t)v->beside + 1;
    j->ctx = (uint32_t)need;
    if (v->model.ctx && (uint64_t)v->model.ctx < need)
        return err_set(err, ERR_USAGE, "--ctx %lld is too small: --pp, --depth, --tg, --prefix and --beside need %llu positions", (long long)v->model.ctx,
                       (unsigned long long)need);
    if (v->model.parallel && (uint64_t)v->model.parallel < j->most)
        return err_set(err, ERR_USAGE, "--parallel %lld is too small: --batch or --concurrent asks for %u", (long long)v->model.parallel, j->most);
    return 0;
}

static int open_model(struct job *j, struct err *err)
{
    struct local *l = &j->local;
    struct bench *b = &j->bench;

    if (local_open(l, &j->v->model, err) != 0)
        return -1;
    l->trace = j->v->trace;
    if (!j->v->model.ctx)
        l->ctx = j->ctx;
    if (local_load(l, j->most, j->most > 512 ? j->most : 512, err) != 0)
        return -1;
    b->n_ids = local_n_vocab(l) < TOKEN_MAX ? local_n_vocab(l) : TOKEN_MAX;
    b->session = l->session;
    b->over = (struct bench_engine){.engine = l->engine, .n_ids = b->n_ids, .random_token = draw, .arg = b};
    free(b->rows);
    free(b->answers);
    b->rows = l->session ? mem_new(session_batch_rows(l->session), sizeof *b->rows, err) : NULL;
    b->answers = b->rows ? mem_new(session_batch_rows(l->session), sizeof *b->answers, err) : NULL;
    return b->answers || l->engine ? 0 : -1;
}

static void begin_output(struct job *j)
{
    const struct local *l = &j->local;
    unsigned threads = l->session ? session_threads(l->session) : (unsigned)j->v->model.compute.threads;
    struct strbuf name;
    char weights[32];

    if (j->v->json) {
        strbuf_init(&name, 4096);
        strbuf_json(&name, l->name, strlen(l->name));
        ui_outf("{\"model\": %s, \"threads\": %u, \"isa\": \"%s\", \"results\": [", strbuf_str(&name), threads,
                l->session ? session_isa(l->session) : "");
        strbuf_fini(&name);
    } else if (l->session) {
        ui_say("%s: %s of weights, %u thread%s, %s", l->name, ui_bytes(weights, sizeof weights, session_weight_bytes(l->session)), threads,
               threads == 1 ? "" : "s", session_isa(l->session));
    }
}

static int measure_all(struct job *j, struct err *err)
{
    int rc = measure(&j->bench, j->v, j->sizes, j->n_sizes, err);

    if (rc == 0 && (j->n_concurrent || j->v->prefix || j->v->beside) && !j->local.engine) { /* the scheduler drives worker processes only: one of our own */
        local_close(&j->local);
        j->v->model.workers = 1;
        rc = open_model(j, err);
    }
    for (size_t i = 0; rc == 0 && i < j->n_concurrent; i++)
        rc = measure_concurrent(&j->bench, j->v, j->concurrent[i], err);
    if (rc == 0 && j->v->beside)
        rc = measure_beside(&j->bench, j->v, j->answers, err);
    return rc == 0 && j->v->prefix ? measure_prefix(&j->bench, j->v, err) : rc;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct job *j = mem_new(1, sizeof *j, err);
    int rc;

    (void)parsed;
    if (!j)
        return -1;
    j->v = values;
    j->bench.json = j->v->json;
    rc = check(j, err) == 0 && open_model(j, err) == 0 ? 0 : -1;
    if (rc == 0) {
        begin_output(j);
        ui_watch_interrupt(true);
        rc = measure_all(j, err);
        ui_unwatch_interrupt();
        if (j->v->json)
            ui_outf("]}\n");
    }
    free(j->bench.rows);
    free(j->bench.answers);
    local_close(&j->local);
    free(j);
    return rc;
}

const struct command cmd_bench = {
    .opts = {.name = "bench",
             .summary = "Measure speed: prompt reading, generation, several sequences together",
             .synopsis = "-m FILE [OPTION]…",
             .description = "Prints tokens per second, the best of --reps repetitions: ppN for N prompt tokens, tgN for N tokens generated by one "
                            "sequence, batchM for M sequences that generate together (tokens of all). With --concurrent, also "
                            "concurrentN: N requests that arrive at once, generated tokens a second of the whole run, prompts included; with "
                            "--beside besideN: how long running answers wait for a token while a prompt is read; with "
                            "--prefix prefixN: milliseconds to the first token, and how many when the first N tokens have been seen before. Over a "
                            "pipeline it says on stderr (with --json in the object) what the plan promised, and how much of the time each stage "
                            "computed: the busiest one's share is how saturated the pipeline was.",
             .groups = groups,
             .examples = examples},
    .fetches_model = true,
    .values_bytes = sizeof(struct values),
    .run = run,
};
