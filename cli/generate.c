/* See generate.h. Each slot of the session works on one case; a case that is done makes room for the next. A step takes one
 * row of every sequence that is generating, then fills up with prompt rows. */
#include "cli/generate_inner.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/ui.h"
#include "model/answer.h"

enum { TOKENS_MAX = 1 << 26 };

/* A step is as long as Ctrl-C and the progress bar have to wait: prompts are read in steps of about this time, but not of
 * fewer rows than make good use of reading the weights once. */
#define STEP_SECONDS 1.5
enum { PROMPT_ROWS_MIN = 64 };

struct slot {
    struct gen_case *c; /* NULL: free */
    uint32_t fed;       /* tokens whose KV is there */
    uint32_t rows;      /* in this step */
    struct grammar_walk *walk; /* NULL: anything may come */
    struct sample_params params; /* of its next token; the mask is our own */
    uint8_t *mask;
};

struct generator {
    struct session *session;
    const struct tokenizer *tokenizer;
    const struct gen_options *options;
    struct gen_case *cases;
    size_t n_cases, next_case;
    uint8_t *masks; /* the slots'; NULL: there is no grammar */
    size_t mask_bytes;
    struct slot *slots;
    uint32_t n_slots;
    struct session_row *rows;
    struct answer *answers; /* to what is asked of each wanted row */
    uint32_t n_rows, n_wanted, max_rows, max_wanted;
    uint32_t step_rows; /* max_rows, or fewer where they would take too long */
    uint64_t prompt_done, prompt_total;
    struct gen_stats stats;
};

double gen_prompt_speed(const struct gen_stats *s)
{
    return s->prompt_seconds > 0 ? (double)s->prompt_tokens / s->prompt_seconds : 0;
}

double gen_new_speed(const struct gen_stats *s)
{
    return s->new_seconds > 0 ? (double)s->timed_tokens / s->new_seconds : 0;
}

void gen_case_fini(struct gen_case *c)
{
    token_list_fini(&c->tokens);
    free(c->top_ids);
    free(c->top_logprobs);
    *c = (struct gen_case){0};
}

/* 0, or -1 and err. */
static int fill_slots(struct generator *g, struct err *err)
{
    for (uint32_t i = 0; i < g->n_slots && g->next_case < g->n_cases; i++) {
        if (g->slots[i].c)
            continue;
        struct gen_case *c = &g->cases[g->next_case++];
        session_cut(g->session, i, c->n_cached);
        g->slots[i] = (struct slot){.c = c, .fed = c->n_cached, .params = *g->options->params};
        if (g->masks)
            g->slots[i].params.mask = g->slots[i].mask = g->masks + i * g->mask_bytes;
        if (g->options->grammar && !(g->slots[i].walk = grammar_walk_create(g->options->grammar, err)))
            return -1;
    }
    return 0;
}

/* Adds up to max rows of a slot to the step. */
static void add_rows(struct generator *g, uint32_t i, uint32_t max)
{
    struct slot *s = &g->slots[i];

    s->rows = 0;
    while (s->rows < max && g->n_rows < g->max_rows && s->fed + s->rows < s->c->tokens.len) {
        uint32_t pos = s->fed + s->rows;
        bool last = pos + 1 == s->c->tokens.len, want = g->options->top > 0 || (last && s->c->n_new > 0);
        if (want && g->n_wanted >= g->max_wanted)
            break;
        g->rows[g->n_rows++] = (struct session_row){.seq = i, .pos = pos, .token = s->c->tokens.ids[pos], .want = want};
        g->n_wanted += want;
        s->rows++;
    }
}

static bool generating(const struct slot *s)
{
    return s->c && s->fed >= s->c->n_prompt;
}

static void build_step(struct generator *g)
{
    g->n_rows = g->n_wanted = 0;
    for (uint32_t i = 0; i < g->n_slots; i++)
        if (generating(&g->slots[i]))
            add_rows(g, i, 1);
    for (uint32_t i = 0; i < g->n_slots && g->n_rows < g->step_rows; i++)
        if (g->slots[i].c && !generating(&g->slots[i]))
            add_rows(g, i, g->step_rows - g->n_rows);
}

/* Room for the likeliest tokens of so many more positions. */
static int reserve_top(const struct generator *g, struct gen_case *c, size_t more, struct err *err)
{
    size_t n = (c->n_top + more) * g->options->top;
    return mem_grow(&c->top_ids, &c->cap_top_ids, n, sizeof *c->top_ids, SIZE_MAX / 8, "log-probabilities", err) != 0 ||
                   mem_grow(&c->top_logprobs, &c->cap_top_logprobs, n, sizeof *c->top_logprobs, SIZE_MAX / 8, "log-probabilities", err) != 0
               ? -1
               : 0;
}

/* Says what is wanted of a row: the likeliest tokens, and behind the last of its case the next one. */
static int ask(struct generator *g, const struct session_row *row, uint32_t wanted, size_t top_index, struct err *err)
{
    struct slot *s = &g->slots[row->seq];
    struct gen_case *c = s->c;
    struct answer *a = &g->answers[wanted];
    uint32_t k = g->options->top;

    *a = (struct answer){.wanted = wanted, .top = k, .token_alone = true};
    if (k) {
        a->top_tokens = c->top_ids + top_index * k;
        a->top_logprobs = c->top_logprobs + top_index * k;
    }
    if (row->pos + 1 < c->tokens.len || c->n_new == 0)
        return 0;
    if (s->walk && grammar_walk_mask(s->walk, s->mask, g->mask_bytes, err) != 0)
        return -1;
    a->params = &s->params;
    a->history = c->tokens.ids;
    a->n_history = c->tokens.len;
    a->position = (uint32_t)c->tokens.len;
    return 0;
}

/* The step's rows lie slot by slot. */
static int ask_all(struct generator *g, struct err *err)
{
    uint32_t wanted = 0;

    for (uint32_t r = 0; r < g->n_rows;) {
        struct slot *s = &g->slots[g->rows[r].seq];
        uint32_t first = r;
        if (g->options->top && reserve_top(g, s->c, s->rows, err) != 0)
            return -1;
        for (; r < first + s->rows; r++)
            if (g->rows[r].want && ask(g, &g->rows[r], wanted++, s->c->n_top + (r - first), err) != 0)
                return -1;
    }
    return 0;
}

/* The token behind the last one of a slot's case. */
static int take_token(struct generator *g, struct slot *s, int32_t token, struct err *err)
{
    struct gen_case *c = s->c;
    size_t n_generated;

    if (s->walk && grammar_walk_take(s->walk, token, err) != 0)
        return -1;
    if (mem_grow(&c->tokens.ids, &c->tokens.cap, c->tokens.len + 1, sizeof *c->tokens.ids, TOKENS_MAX, "tokens", err) != 0)
        return -1;
    c->tokens.ids[c->tokens.len++] = token;
    g->stats.new_tokens++;
    n_generated = c->tokens.len - c->n_prompt;
    if (!g->options->ignore_end && tokenizer_is_end(g->tokenizer, token))
        c->end = GEN_STOP;
    else if (n_generated >= c->n_new)
        c->end = GEN_LENGTH;
    else if (c->tokens.len > session_ctx(g->session))
        c->end = GEN_CONTEXT;
    int rc = g->options->on_token ? g->options->on_token(g->options->arg, (size_t)(c - g->cases), token, err) : 0;
    if (rc > 0)
        c->end = GEN_STOP;
    return rc < 0 ? -1 : 0;
}

static int take_results(struct generator *g, struct err *err)
{
    const struct answer *a = g->answers;

    for (uint32_t r = 0; r < g->n_rows; r++) {
        const struct session_row *row = &g->rows[r];
        struct slot *s = &g->slots[row->seq];
        s->fed++;
        g->prompt_done += row->pos < s->c->n_prompt;
        if (!row->want)
            continue;
        s->c->n_top += a->top > 0;
        if (a->params && take_token(g, s, a->token, err) != 0)
            return -1;
        a++;
    }
    return 0;
}

static void free_slots(struct generator *g)
{
    for (uint32_t i = 0; i < g->n_slots; i++) {
        struct slot *s = &g->slots[i];
        if (s->c && s->c->end == GEN_RUNNING && s->c->n_new == 0 && s->fed == s->c->tokens.len)
            s->c->end = GEN_LENGTH;
        if (!s->c || s->c->end == GEN_RUNNING)
            continue;
        if (!g->options->keep)
            session_cut(g->session, i, 0);
        grammar_walk_destroy(s->walk);
        s->walk = NULL;
        s->c = NULL;
    }
}

/* How many rows the next step may have, by the time that this one took. */
static void adapt(struct generator *g, double seconds)
{
    double rows = seconds > 0 ? STEP_SECONDS * g->n_rows / seconds : g->max_rows;

    rows = rows < PROMPT_ROWS_MIN ? PROMPT_ROWS_MIN : rows;
    g->step_rows = rows < g->max_rows ? (uint32_t)rows : g->max_rows;
}

static int step(struct generator *g, struct err *err)
{
    double start = ui_seconds(), seconds;
    uint32_t prompt_rows = 0;

    build_step(g);
    for (uint32_t r = 0; r < g->n_rows; r++)
        prompt_rows += g->rows[r].pos < g->slots[g->rows[r].seq].c->n_prompt;
    if (ask_all(g, err) != 0 || session_answer(g->session, g->rows, g->n_rows, g->answers, g->n_wanted, err) != 0 || take_results(g, err) != 0)
        return -1;
    seconds = ui_seconds() - start;
    if (prompt_rows)
        adapt(g, seconds);
    g->stats.prompt_tokens += prompt_rows;
    if (prompt_rows) {
        g->stats.prompt_seconds += seconds;
    } else {
        g->stats.new_seconds += seconds;
        g->stats.timed_tokens += g->n_rows;
    }
    if (g->options->on_prompt && prompt_rows)
        g->options->on_prompt(g->options->arg, g->prompt_done, g->prompt_total);
    free_slots(g);
    return 0;
}

static bool busy(const struct generator *g)
{
    for (uint32_t i = 0; i < g->n_slots; i++)
        if (g->slots[i].c)
            return true;
    return false;
}

static int prepare(struct generator *g, struct err *err)
{
    g->n_slots = session_parallel(g->session);
    g->max_rows = session_batch_rows(g->session);
    g->step_rows = g->max_rows < PROMPT_ROWS_MIN ? g->max_rows : PROMPT_ROWS_MIN; /* the first step finds out */
    g->max_wanted = session_wanted_rows(g->session);
    g->slots = mem_new(g->n_slots, sizeof *g->slots, err);
    g->rows = mem_new(g->max_rows, sizeof *g->rows, err);
    g->mask_bytes = ((size_t)session_n_vocab(g->session) + 7) / 8;
    g->answers = mem_new(g->max_wanted, sizeof *g->answers, err);
    g->masks = g->options->grammar ? mem_new(g->n_slots, g->mask_bytes, err) : NULL;
    for (size_t i = 0; i < g->n_cases; i++) {
        g->cases[i].end = GEN_RUNNING;
        g->prompt_total += g->cases[i].n_prompt - g->cases[i].n_cached;
    }
    return g->slots && g->rows && g->answers && (g->masks || !g->options->grammar) ? 0 : -1;
}

int generate(struct local *local, const struct gen_options *options, struct gen_case *cases, size_t n_cases, struct gen_stats *ret_stats,
             struct err *err)
{
    return (local->engine ? generate_engine : generate_session)(local, options, cases, n_cases, ret_stats, err);
}

int generate_session(struct local *local, const struct gen_options *options, struct gen_case *cases, size_t n_cases, struct gen_stats *ret_stats,
                     struct err *err)
{
    struct generator g = {.session = local->session, .tokenizer = local->tokenizer, .options = options, .cases = cases, .n_cases = n_cases};
    int rc = prepare(&g, err);

    if (rc == 0)
        rc = fill_slots(&g, err);
    while (rc == 0 && busy(&g) && !ui_interrupted())
        if ((rc = step(&g, err)) == 0)
            rc = fill_slots(&g, err);
    for (size_t i = 0; i < n_cases; i++)
        if (cases[i].end == GEN_RUNNING)
            cases[i].end = GEN_CANCELLED;
    if (ret_stats)
        *ret_stats = g.stats;
    for (uint32_t i = 0; g.slots && i < g.n_slots; i++)
        grammar_walk_destroy(g.slots[i].walk);
    free(g.masks);
    free(g.slots);
    free(g.rows);
    free(g.answers);
    return rc;
}
