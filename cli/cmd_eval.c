/* stagecoach eval: how good the answers are. Against a reference (another program's distributions over the same text), or as
 * the perplexity of a text.
 *
 * Perplexity is taken as llama.cpp takes it, so that figures compare: the text is cut into chunks of ctx tokens, each
 * chunk's first token replaced by BOS where the model wants one; the second half of each chunk is scored, so that every
 * scored token has at least ctx / 2 tokens before it. A rest shorter than a chunk is left out, unless it is all there is. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cases.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/local.h"
#include "cli/ui.h"
#include "model/answer.h"

enum { TOP_DEFAULT = 40, PPL_CTX = 512 };
#define JSON_MAX_OUT_BYTES ((size_t)4 << 30)

struct values {
    struct model_options model;
    const char *reference, *text;
    bool json;
};

static const struct opt options[] = {
    {"reference", 'r', OPT_STRING, .arg = "REF.json", .offset = offsetof(struct values, reference),
     .help = "Compare with these distributions (the form that run --json --logprobs prints)"},
    {"text", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, text),
     .help = "Perplexity of a text, \"-\": standard input; --ctx is then 512 unless given"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "Print our own distributions (the distance goes to stderr), or the perplexity, as JSON"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, MODEL_OPTION_GROUPS(values), {0}};
static const struct opt_example examples[] = {
    {"stagecoach eval -m model.gguf --reference truth.json", "Last line: kld MEAN max MAX top1 AGREEMENT."},
    {"stagecoach eval -m model.gguf --text wiki.test.raw --ctx 2048", "Last line: ppl VALUE."},
    {0},
};


static void on_prompt(void *arg, uint64_t done, uint64_t total)
{
    ui_progress(arg, done, total);
}

/* --- against a reference ------------------------------------------------- */

/* Our tokens for a case's prompt, then its greedy ones but the last, which nothing follows. */
static int prepare_case(const struct local *l, const struct reference_case *r, size_t number, struct gen_case *c, bool *same, struct err *err)
{
    char what[32];
    size_t n_prompt;

    if (tokenizer_encode(l->tokenizer, r->prompt, r->prompt_len, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &c->tokens, err) != 0)
        return -1;
    n_prompt = c->tokens.len;
    if (n_prompt != r->tokens.len || memcmp(c->tokens.ids, r->tokens.ids, n_prompt * sizeof *r->tokens.ids) != 0) {
        ui_say("case %zu: our %zu tokens of the prompt differ from the reference's %zu; theirs are taken", number, n_prompt, r->tokens.len);
        *same = false;
        c->tokens.len = 0;
        n_prompt = r->tokens.len;
        if (mem_grow(&c->tokens.ids, &c->tokens.cap, n_prompt, sizeof *c->tokens.ids, SIZE_MAX / 8, "tokens", err) != 0)
            return -1;
        memcpy(c->tokens.ids, r->tokens.ids, n_prompt * sizeof *r->tokens.ids);
    }
    size_t forced = r->greedy.len ? r->greedy.len - 1 : 0;
    if (mem_grow(&c->tokens.ids, &c->tokens.cap, n_prompt + forced, sizeof *c->tokens.ids, SIZE_MAX / 8, "tokens", err) != 0)
        return -1;
    if (forced)
        memcpy(c->tokens.ids + n_prompt, r->greedy.ids, forced * sizeof *r->greedy.ids);
    c->tokens.len = c->n_prompt = n_prompt + forced;
    if (c->tokens.len == 0)
        return err_set(err, ERR_INPUT, "case %zu has no tokens", number);
    snprintf(what, sizeof what, "case %zu", number);
    return local_check_room(l, what, c->tokens.len, 0, err);
}

/* The computed case in the form of the reference: its prompt, and the forced tokens as what was generated. */
static int write_case(struct strbuf *out, const struct local *l, const struct reference_case *r, struct gen_case *c, uint32_t top, struct err *err)
{
    size_t n_prompt = c->n_prompt - (r->greedy.len ? r->greedy.len - 1 : 0);

    if (r->greedy.len) {
        if (mem_grow(&c->tokens.ids, &c->tokens.cap, c->tokens.len + 1, sizeof *c->tokens.ids, SIZE_MAX / 8, "tokens", err) != 0)
            return -1;
        c->tokens.ids[c->tokens.len++] = r->greedy.ids[r->greedy.len - 1];
    }
    c->n_prompt = n_prompt;
    cases_write(out, l->tokenizer, r->prompt, r->prompt_len, c, top);
    return 0;
}

static int write_json(const struct local *l, const struct reference *ref, struct gen_case *cases, uint32_t top, struct err *err)
{
    struct strbuf out;
    int rc = 0;

    strbuf_init(&out, JSON_MAX_OUT_BYTES);
    strbuf_puts(&out, "{\"model\": ");
    strbuf_json(&out, l->name, strlen(l->name));
    strbuf_puts(&out, ", \"cases\": [");
    for (size_t i = 0; i < ref->n_cases && rc == 0; i++) {
        strbuf_puts(&out, i ? ", " : "");
        rc = write_case(&out, l, &ref->cases[i], &cases[i], top, err);
    }
    strbuf_puts(&out, "]}\n");
    if (rc == 0)
        rc = strbuf_check(&out, "the answer in JSON", err);
    if (rc == 0)
        ui_foreign(strbuf_str(&out), out.len);
    strbuf_fini(&out);
    return rc;
}

static int compute_cases(struct local *l, struct gen_case *cases, size_t n, uint32_t top, struct err *err)
{
    struct sample_params params = SAMPLE_PARAMS_DEFAULT;
    struct ui_progress bar;
    struct gen_options g = {.params = &params, .top = top, .on_prompt = on_prompt, .arg = &bar};
    int rc;

    ui_progress_begin(&bar, "evaluating", false);
    ui_watch_interrupt(true);
    rc = generate(l, &g, cases, n, NULL, err);
    ui_unwatch_interrupt();
    ui_progress_end(&bar);
    if (rc == 0 && ui_interrupted())
        rc = err_set(err, ERR_CANCELLED, "interrupted");
    return rc;
}

static int compare(struct local *l, const struct values *v, const struct reference *ref, struct gen_case *cases, struct err *err)
{
    struct distance d = {0};
    char line[128];
    bool same = true;
    uint32_t top;

    for (size_t i = 0; i < ref->n_cases; i++)
        if (prepare_case(l, &ref->cases[i], i + 1, &cases[i], &same, err) != 0)
            return -1;
    if (local_load(l, ref->n_cases < 8 ? (uint32_t)ref->n_cases : 8, 0, err) != 0)
        return -1;
    top = ref->top ? ref->top : TOP_DEFAULT;
    top = top < local_n_vocab(l) ? top : local_n_vocab(l);
    if (compute_cases(l, cases, ref->n_cases, top, err) != 0)
        return -1;
    for (size_t i = 0; i < ref->n_cases; i++)
        reference_compare(&ref->cases[i], &cases[i], top, &d);
    if (d.positions == 0)
        return err_set(err, ERR_INPUT, "%s: no position to compare (\"top\" is empty)", v->reference);
    snprintf(line, sizeof line, "kld %.6f max %.6f top1 %.4f", d.kld_sum / (double)d.positions, d.kld_max,
             (double)d.top1_same / (double)d.positions);
    if (v->json) {
        if (write_json(l, ref, cases, top, err) != 0)
            return -1;
        ui_say("%s", line);
    } else {
        ui_outf("%s\n", line);
    }
    if (!same && ui_flush(err) == 0)
        return err_set(err, ERR_INPUT, "the prompts' tokens differ from the reference's: another tokenizer, or another model");
    return same ? 0 : -1;
}

static int eval_reference(struct local *l, const struct values *v, struct err *err)
{
    struct reference ref = {0};
    struct gen_case *cases = NULL;
    int rc = reference_read(v->reference, (uint32_t)tokenizer_n_tokens(l->tokenizer), &ref, err);

    if (rc == 0) {
        cases = mem_new(ref.n_cases, sizeof *cases, err);
        rc = cases ? compare(l, v, &ref, cases, err) : -1;
    }
    for (size_t i = 0; cases && i < ref.n_cases; i++)
        gen_case_fini(&cases[i]);
    free(cases);
    reference_fini(&ref);
    return rc;
}

/* --- perplexity ---------------------------------------------------------- */

/* What one step has: rows, what is asked of those that are scored, and the answers. */
struct scoring {
    struct session_row *rows;
    struct answer *answers;
    float *logprobs;
    double sum;
    uint64_t count;
};

/* Reads one chunk through sequence 0; adds up the scored tokens' log-probabilities. */
static int score_chunk(struct session *s, const int32_t *ids, uint32_t n, struct scoring *sc, struct err *err)
{
    uint32_t max_rows = session_wanted_rows(s), first = n / 2;

    session_cut(s, 0, 0);
    for (uint32_t at = 0; at + 1 < n;) {
        uint32_t len = n - 1 - at < max_rows ? n - 1 - at : max_rows, wanted = 0;
        for (uint32_t i = 0; i < len; i++) {
            bool want = at + i >= first;
            sc->rows[i] = (struct session_row){.pos = at + i, .token = ids[at + i], .want = want};
            sc->answers[wanted] = (struct answer){.wanted = wanted, .given = &ids[at + i + 1], .n_given = 1, .given_logprobs = &sc->logprobs[wanted]};
            wanted += want;
        }
        if (session_answer(s, sc->rows, len, sc->answers, wanted, err) != 0)
            return -1;
        for (uint32_t i = 0; i < wanted; i++)
            sc->sum += (double)sc->logprobs[i];
        sc->count += wanted;
        at += len;
    }
    return 0;
}

static int score_text(struct local *l, const struct values *v, struct token_list *tokens, struct err *err)
{
    uint32_t ctx = l->ctx < tokens->len ? l->ctx : (uint32_t)tokens->len;
    size_t chunks = tokens->len / ctx;
    size_t most = session_wanted_rows(l->session);
    struct scoring sc = {.rows = mem_new(most, sizeof *sc.rows, err), .answers = mem_new(most, sizeof *sc.answers, err),
                         .logprobs = mem_new(most, sizeof *sc.logprobs, err)};
    struct ui_progress bar;
    int rc = sc.rows && sc.answers && sc.logprobs ? 0 : -1;

    ui_say("%zu tokens, %zu chunk%s of %u", tokens->len, chunks, chunks == 1 ? "" : "s", ctx);
    ui_progress_begin(&bar, "perplexity", false);
    ui_watch_interrupt(true);
    for (size_t i = 0; i < chunks && rc == 0; i++) {
        int32_t *ids = tokens->ids + i * ctx;
        if (tokenizer_adds_bos(l->tokenizer) && tokenizer_bos(l->tokenizer) >= 0)
            ids[0] = tokenizer_bos(l->tokenizer);
        rc = score_chunk(l->session, ids, ctx, &sc, err);
        ui_progress(&bar, i + 1, chunks);
        if (rc == 0 && ui_interrupted())
            rc = err_set(err, ERR_CANCELLED, "interrupted");
    }
    ui_unwatch_interrupt();
    ui_progress_end(&bar);
    free(sc.rows);
    free(sc.answers);
    free(sc.logprobs);
    if (rc == 0 && v->json)
        ui_outf("{\"tokens\": %zu, \"scored\": %llu, \"ctx\": %u, \"ppl\": %.6f}\n", tokens->len, (unsigned long long)sc.count, ctx,
                exp(-sc.sum / (double)sc.count));
    else if (rc == 0)
        ui_outf("ppl %.4f\n", exp(-sc.sum / (double)sc.count));
    return rc;
}

static int eval_text(struct local *l, const struct values *v, struct err *err)
{
    struct token_list tokens = {0};
    size_t len;
    char *text = ui_read_file(v->text, TOKENIZER_MAX_TEXT_BYTES, &len, err);
    int rc = -1;

    if (!text)
        return -1;
    if (!v->model.ctx)
        l->ctx = l->ctx < PPL_CTX ? l->ctx : PPL_CTX;
    if (tokenizer_encode(l->tokenizer, text, len, TOKENIZE_ADD_SPECIAL, &tokens, err) != 0)
        goto done;
    if (tokens.len < 2 || l->ctx < 2) {
        err_set(err, ERR_INPUT, "%s: %zu tokens in a context of %u; at least 2 are needed to score one", v->text, tokens.len, l->ctx);
        goto done;
    }
    if (local_load(l, 1, 0, err) == 0)
        rc = score_text(l, v, &tokens, err);
done:
    token_list_fini(&tokens);
    free(text);
    return rc;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct local l = {0};
    int rc;

    (void)parsed;
    if (!v->reference == !v->text)
        return err_set(err, ERR_USAGE, "either --reference REF.json or --text FILE is needed");
    rc = local_open(&l, &v->model, err);
    if (rc == 0)
        rc = v->reference ? eval_reference(&l, v, err) : eval_text(&l, v, err);
    local_close(&l);
    return rc;
}

const struct command cmd_eval = {
    .opts = {.name = "eval",
             .summary = "Measure a model's answers: distance from a reference, perplexity of a text",
             .synopsis = "-m FILE --reference REF.json | --text FILE",
             .description =
                 "With --reference: reads the reference's prompts and forced answers and prints how far our distributions are from it: the mean "
                 "and the largest Kullback-Leibler divergence of a position (over the listed tokens, the rest as one), and how often the "
                 "likeliest token is the same.\n\n"
                 "With --text: the perplexity, over chunks of --ctx tokens of which the second half is scored.",
             .groups = groups,
             .examples = examples},
    .fetches_model = true,
    .values_bytes = sizeof(struct values),
    .run = run,
};
