/* stagecoach run: goes on with prompts. Everything that can be refused by the model's header alone is refused before its
 * weights are read. The first prompt's text streams; those behind it wait for their turn, though all are computed together. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cases.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/guide.h"
#include "cli/local.h"
#include "cli/ui.h"
#include "model/sampler.h"

enum { PROMPTS_MAX = 1024, PARALLEL_DEFAULT = 8, PROMPT_BAR_TOKENS = 256 };
#define TEXT_MAX_BYTES ((size_t)256 << 20)
#define JSON_MAX_OUT_BYTES ((size_t)4 << 30)

struct values {
    struct model_options model;
    struct sample_options sample;
    struct opt_list prompts, files, bias;
    int64_t n, logprobs;
    const char *system, *grammar, *schema;
    bool json, chat, ignore_eos, quiet;
};

static const struct opt options[] = {
    {"prompt", 'p', OPT_LIST, .arg = "TEXT", .offset = offsetof(struct values, prompts), .help = "Text to go on with"},
    {"file", 'f', OPT_LIST, .arg = "FILE", .offset = offsetof(struct values, files), .help = "Read a prompt from a file, \"-\" from standard input"},
    {"count", 'n', OPT_INT, .arg = "N", .offset = offsetof(struct values, n), .min = -1, .max = 1 << 24, .def = "256",
     .help = "Most tokens to generate; -1: until the model ends or the context is full, as --chat does unless told"},
    {"chat", 0, OPT_FLAG, .offset = offsetof(struct values, chat),
     .help = "Ask each prompt as a user's message, by the model's chat template"},
    {"system", 0, OPT_STRING, .arg = "TEXT", .offset = offsetof(struct values, system), .help = "With --chat: the system message before it"},
    {"grammar", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, grammar), .help = "Answers that match a grammar (GBNF)"},
    {"json-schema", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, schema), .help = "Answers in JSON that are valid by a schema"},
    {"ignore-eos", 0, OPT_FLAG, .offset = offsetof(struct values, ignore_eos), .help = "Go on where the model would end"},
    {"bias", 0, OPT_LIST, .arg = "ID=BIAS", .offset = offsetof(struct values, bias), .help = "Add to a token's logit; -inf forbids it"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "Print one JSON object with prompts, token ids and texts"},
    {"logprobs", 0, OPT_INT, .arg = "K", .offset = offsetof(struct values, logprobs), .max = SAMPLE_MAX_TOP,
     .help = "With --json: of every position the K likeliest tokens with natural log-probabilities (\"top\")"},
    {"quiet", 'q', OPT_FLAG, .offset = offsetof(struct values, quiet), .help = "No figures at the end"},
    {0},
};
static const struct opt_group groups[] = {
    {"Options", options, 0},
    MODEL_OPTION_GROUPS(values),
    {"Choosing tokens", sample_option_table, offsetof(struct values, sample)},
    {0},
};
static const struct opt_example examples[] = {
    {"stagecoach run -m model.gguf -p \"Once upon a time\" -n 100", "Goes on with a text."},
    {"stagecoach run -m model.gguf --chat -p \"Why is the sky blue?\" --temp 0", "Asks once, by the chat template, always the likeliest token."},
    {"stagecoach run -m model.gguf --chat -p \"Name a city.\" --json-schema city.json", "Answers in JSON, by a schema."},
    {"stagecoach run -m model.gguf -p One -p Two --json --logprobs 5", "Two prompts in one batch, for a script."},
    {0},
};

struct job {
    const struct values *v;
    struct local local;
    const char *prompts[PROMPTS_MAX];
    size_t lengths[PROMPTS_MAX];
    char *from_files[PROMPTS_MAX]; /* ours to free */
    size_t n;
    struct gen_case *cases;
    struct sample_params params;
    struct sample_bias *bias;
    struct grammar *grammar; /* NULL: none */
    /* streaming */
    struct detokenizer *texts;
    struct strbuf *waiting; /* text of cases whose turn has not come */
    size_t turn;
    struct ui_progress bar;
};

static void heading(const struct job *j, size_t i)
{
    char shown[64], line[128];
    size_t len = j->lengths[i] < sizeof line ? j->lengths[i] : sizeof line;

    for (size_t k = 0; k < len; k++)
        line[k] = j->prompts[i][k] == '\n' ? ' ' : j->prompts[i][k];
    if (j->n > 1 && !j->v->quiet && ui_err_is_terminal())
        ui_say_in(UI_DIM, "[%zu of %zu] %s", i + 1, j->n, err_printable(shown, sizeof shown, line, len));
}

/* Lets the texts of cases that ended go by, until one is still running. */
static void next_turns(struct job *j)
{
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];

    while (j->turn < j->n && j->cases[j->turn].end != GEN_RUNNING) {
        ui_foreign(piece, detokenizer_end(&j->texts[j->turn], piece, sizeof piece));
        ui_out("\n", 1);
        if (++j->turn == j->n)
            break;
        heading(j, j->turn);
        ui_foreign(strbuf_str(&j->waiting[j->turn]), j->waiting[j->turn].len);
        strbuf_fini(&j->waiting[j->turn]);
    }
}

static int on_token(void *arg, size_t i, int32_t token, struct err *err)
{
    struct job *j = arg;
    char piece[TOKEN_MAX_BYTES + DETOKENIZER_PENDING];
    size_t len;

    if (j->v->json)
        return 0;
    ui_progress_end(&j->bar);
    len = detokenizer_next(&j->texts[i], token, piece, sizeof piece);
    if (i != j->turn) {
        strbuf_add(&j->waiting[i], piece, len);
        return strbuf_check(&j->waiting[i], "text", err);
    }
    ui_foreign(piece, len);
    next_turns(j);
    return ui_flush(err);
}

static void on_prompt(void *arg, uint64_t done, uint64_t total)
{
    struct job *j = arg;

    if (total >= PROMPT_BAR_TOKENS && done < total)
        ui_progress(&j->bar, done, total);
    else
        ui_progress_end(&j->bar);
}

/* --- before the weights -------------------------------------------------- */

static int collect_prompts(struct job *j, struct err *err)
{
    const struct values *v = j->v;

    if (v->prompts.len + v->files.len == 0)
        return err_set(err, ERR_USAGE, "no prompt; give one with -p TEXT or --file FILE");
    if (v->prompts.len + v->files.len > PROMPTS_MAX)
        return err_set(err, ERR_USAGE, "%zu prompts; at most %d are allowed", v->prompts.len + v->files.len, PROMPTS_MAX);
    for (size_t i = 0; i < v->prompts.len; i++, j->n++) {
        j->prompts[j->n] = v->prompts.items[i];
        j->lengths[j->n] = strlen(v->prompts.items[i]);
    }
    for (size_t i = 0; i < v->files.len; i++, j->n++) {
        j->from_files[j->n] = ui_read_file(v->files.items[i], TOKENIZER_MAX_TEXT_BYTES, &j->lengths[j->n], err);
        if (!j->from_files[j->n])
            return -1;
        j->prompts[j->n] = j->from_files[j->n];
    }
    return 0;
}

static int chat_tokens(struct job *j, const struct template *t, size_t i, struct err *err)
{
    json_t *messages = json_array(), *content = json_stringn(j->prompts[i], j->lengths[i]);
    int rc = -1;

    if (!content)
        err_set(err, ERR_INPUT, "prompt %zu is not UTF-8", i + 1);
    else if ((j->v->system && json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", j->v->system)) != 0) ||
             json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "user", "content", content)) != 0)
        err_set(err, ERR_INPUT, "--system is not UTF-8");
    else
        rc = local_chat_tokens(&j->local, t, messages, &j->cases[i].tokens, err);
    json_decref(content);
    json_decref(messages);
    return rc;
}

static int tokenize_prompts(struct job *j, struct err *err)
{
    struct template *t = NULL;
    bool fallback = false;
    int rc = 0;

    if (j->v->chat && !(t = local_template(&j->local, &fallback, err)))
        return -1;
    if (fallback)
        ui_say("%s has no chat template; a plain one is used", j->local.name);
    for (size_t i = 0; i < j->n && rc == 0; i++) {
        struct gen_case *c = &j->cases[i];
        rc = t ? chat_tokens(j, t, i, err)
               : tokenizer_encode(j->local.tokenizer, j->prompts[i], j->lengths[i], TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &c->tokens,
                                  err);
        if (rc != 0 && j->n > 1)
            err_wrap(err, "prompt %zu", i + 1);
        c->n_prompt = c->tokens.len;
    }
    template_destroy(t);
    return rc;
}

/* How many tokens each case may generate. A count that was asked for must fit; the default one is cut. */
static int check_lengths(struct job *j, const struct opts_parsed *parsed, struct err *err)
{
    bool given = opts_given(parsed, "count"), asked = given && j->v->n >= 0;
    bool endless = j->v->n < 0 || (j->v->chat && !given);
    char what[32] = "the prompt";

    for (size_t i = 0; i < j->n; i++) {
        struct gen_case *c = &j->cases[i];
        if (j->n > 1)
            snprintf(what, sizeof what, "prompt %zu", i + 1);
        if (c->n_prompt == 0)
            return err_set(err, ERR_USAGE, "%s is empty, and this model begins with no token of its own; give it a text", what);
        if (local_check_room(&j->local, what, c->n_prompt, asked ? (uint64_t)j->v->n : 0, err) != 0)
            return -1;
        uint64_t room = j->local.ctx - c->n_prompt + 1;
        c->n_new = endless || (uint64_t)j->v->n > room ? room : (uint64_t)j->v->n;
    }
    return 0;
}

/* --- running ------------------------------------------------------------- */

static int prepare(struct job *j, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = j->v;

    if (v->logprobs && !v->json)
        return err_set(err, ERR_USAGE, "--logprobs needs --json");
    if (v->system && !v->chat)
        return err_set(err, ERR_USAGE, "--system needs --chat");
    if (v->ignore_eos && (v->grammar || v->schema))
        return err_set(err, ERR_USAGE, "--ignore-eos with --%s: an answer that is complete could not end", v->grammar ? "grammar" : "json-schema");
    if (guide_load(v->grammar, v->schema, &j->grammar, err) != 0 || collect_prompts(j, err) != 0 || local_open(&j->local, &v->model, err) != 0)
        return -1;
    sample_options_get(&v->sample, opts_given(parsed, "seed"), &j->params);
    if (!(j->bias = sample_bias_parse(&v->bias, err)))
        return -1;
    j->params.bias = j->bias;
    j->params.n_bias = (uint32_t)v->bias.len;
    if (sample_params_check(&j->params, (uint32_t)tokenizer_n_tokens(j->local.tokenizer), err) != 0)
        return -1;
    j->cases = mem_new(j->n, sizeof *j->cases, err);
    j->texts = mem_new(j->n, sizeof *j->texts, err);
    j->waiting = mem_new(j->n, sizeof *j->waiting, err);
    if (!j->cases || !j->texts || !j->waiting || tokenize_prompts(j, err) != 0)
        return -1;
    for (size_t i = 0; i < j->n; i++) {
        detokenizer_init(&j->texts[i], j->local.tokenizer, false);
        j->texts[i].started = !v->chat; /* a prompt's continuation keeps the space at its beginning */
        strbuf_init(&j->waiting[i], TEXT_MAX_BYTES);
    }
    return check_lengths(j, parsed, err);
}

static int write_json(struct job *j, uint32_t top, struct err *err)
{
    struct strbuf out;
    int rc;

    strbuf_init(&out, JSON_MAX_OUT_BYTES);
    strbuf_puts(&out, "{\"model\": ");
    strbuf_json(&out, j->local.name, strlen(j->local.name));
    strbuf_puts(&out, ", \"cases\": [");
    for (size_t i = 0; i < j->n; i++) {
        strbuf_puts(&out, i ? ", " : "");
        cases_write(&out, j->local.tokenizer, j->prompts[i], j->lengths[i], &j->cases[i], top);
    }
    strbuf_puts(&out, "]}\n");
    rc = strbuf_check(&out, "the answer in JSON", err);
    if (rc == 0)
        ui_foreign(strbuf_str(&out), out.len);
    strbuf_fini(&out);
    return rc;
}

static void tell_figures(const struct job *j, const struct gen_stats *stats, bool seeded)
{
    char seed[48] = "";
    size_t full = 0;

    for (size_t i = 0; i < j->n; i++)
        full += j->cases[i].end == GEN_CONTEXT || (j->cases[i].end == GEN_LENGTH && j->cases[i].tokens.len > j->local.ctx);
    if (full)
        ui_say("the context of %u positions is full; --ctx makes it larger", j->local.ctx);
    if (j->v->quiet)
        return;
    if (!seeded && j->params.temperature > 0)
        snprintf(seed, sizeof seed, " · --seed %llu", (unsigned long long)j->params.seed);
    ui_say_in(UI_DIM, "loaded in %.2f s · prompt %llu tokens, %.1f/s · generated %llu tokens, %.1f/s%s", j->local.load_seconds,
              (unsigned long long)stats->prompt_tokens, gen_prompt_speed(stats), (unsigned long long)stats->new_tokens, gen_new_speed(stats), seed);
}

static int compute(struct job *j, bool seeded, struct err *err)
{
    uint32_t n_vocab, top;
    struct gen_stats stats;
    struct grammar_masks *masks = NULL;
    int rc;

    if (local_load(&j->local, j->n < PARALLEL_DEFAULT ? (uint32_t)j->n : PARALLEL_DEFAULT, 0, err) != 0)
        return -1;
    n_vocab = local_n_vocab(&j->local);
    top = (uint32_t)j->v->logprobs < n_vocab ? (uint32_t)j->v->logprobs : n_vocab;
    if (j->grammar && !(masks = guide_masks(j->grammar, j->local.tokenizer, n_vocab, err)))
        return -1;
    struct gen_options g = {.params = &j->params, .grammar = masks, .ignore_end = j->v->ignore_eos, .top = top, .on_token = on_token, .on_prompt = on_prompt, .arg = j};
    ui_progress_begin(&j->bar, "reading the prompt", false);
    if (!j->v->json)
        heading(j, 0);
    ui_watch_interrupt(true);
    rc = generate(&j->local, &g, j->cases, j->n, &stats, err);
    ui_unwatch_interrupt();
    ui_progress_end(&j->bar);
    grammar_masks_drop(masks);
    if (rc == 0 && j->v->json)
        rc = write_json(j, top, err);
    else if (rc == 0)
        next_turns(j); /* what Ctrl-C left, or was asked for no token */
    if (rc == 0)
        rc = ui_flush(err);
    if (rc == 0)
        tell_figures(j, &stats, seeded);
    if (rc == 0 && ui_interrupted())
        rc = err_set(err, ERR_CANCELLED, "interrupted");
    return rc;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct job *j = mem_new(1, sizeof *j, err);
    int rc;

    if (!j)
        return -1;
    j->v = values;
    rc = prepare(j, parsed, err);
    if (rc == 0)
        rc = compute(j, opts_given(parsed, "seed"), err);
    for (size_t i = 0; i < j->n; i++) {
        if (j->cases)
            gen_case_fini(&j->cases[i]);
        if (j->waiting)
            strbuf_fini(&j->waiting[i]);
        free(j->from_files[i]);
    }
    free(j->cases);
    free(j->texts);
    free(j->waiting);
    free(j->bias);
    grammar_drop(j->grammar);
    local_close(&j->local);
    free(j);
    return rc;
}

const struct command cmd_run = {
    .opts = {.name = "run",
             .summary = "Go on with a text, or answer one question",
             .synopsis = "-m FILE -p TEXT [-p TEXT]… [OPTION]…",
             .description = "Goes on with each prompt and prints what the model adds, as it comes. Several prompts are computed as one batch and "
                            "printed in their order. Control tokens written out in a prompt count as such, except with --chat; the model's own "
                            "beginning (BOS) is added. The same prompt, options and seed give the same text on any machine and in any company.",
             .groups = groups,
             .examples = examples},
    .fetches_model = true,
    .values_bytes = sizeof(struct values),
    .run = run,
};
