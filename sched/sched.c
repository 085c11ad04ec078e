/* See sched.h. This file: the sequences and what happens to them; step.c decides. All tables have their full size from the
 * start; only a sequence's own tokens, hashes and table come and go with it, as one piece. */
#include "sched/state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    DEFAULT_WAITING = 1024,
    DEFAULT_STRETCH = 200,
    DEFAULT_PROMPT_ROWS = 512,
    DEFAULT_GROWTH = 256,
    MAX_PRIORITY = 100,
    PRIORITY_US = 5000000,
    DELTA_BLOCKS = 1 << 18,
};

static const uint64_t COST_MAX = UINT64_C(1) << 40; /* of every figure: 18 minutes in ns */

/* --- configuration ------------------------------------------------------------------------------------------------------- */

static int range(struct err *err, const char *what, uint64_t value, uint64_t min, uint64_t max)
{
    if (value >= min && value <= max)
        return 0;
    return err_set(err, ERR_USAGE, "scheduler: %s is %" PRIu64 ", allowed are %" PRIu64 " to %" PRIu64, what, value, min, max);
}

static int check_costs(const struct sched_costs *c, uint32_t n_stages, struct err *err)
{
    for (uint32_t i = 0; i < n_stages; i++) {
        const struct sched_stage_cost *k = &c->stage[i];
        if (range(err, "a stage's fixed_ns", k->fixed_ns, 0, COST_MAX) || range(err, "a stage's weight_ns", k->weight_ns, 0, COST_MAX) ||
            range(err, "a stage's row_ns", k->row_ns, 0, COST_MAX) || range(err, "a stage's kv_ps", k->kv_ps, 0, COST_MAX) ||
            range(err, "a stage's attn_ps", k->attn_ps, 0, COST_MAX) || range(err, "a stage's seq_ps", k->seq_ps, 0, COST_MAX) ||
            range(err, "a stage's start_ns", k->start_ns, 0, COST_MAX) ||
            range(err, "a stage's head_weight_ns", k->head_weight_ns, 0, COST_MAX) ||
            range(err, "a stage's head_start_ns", k->head_start_ns, 0, COST_MAX) ||
            range(err, "a stage's head_row_ns", k->head_row_ns, 0, COST_MAX))
            return -1;
    }
    for (uint32_t i = 0; i <= n_stages; i++)
        if (range(err, "a hop's latency_ns", c->hop[i].latency_ns, 0, COST_MAX) || range(err, "a hop's row_ns", c->hop[i].row_ns, 0, COST_MAX))
            return -1;
    return 0;
}

/* The sliding blocks with which one sequence can always go on: those of its window, and one that it fills, as it may lie
 * across block borders at both ends. */
static uint32_t least_sliding(const struct sched_config *c)
{
    uint32_t window = (c->window + c->block - 1) / c->block + 2, all = (c->ctx + c->block - 1) / c->block;
    return window < all ? window : all;
}

static int check_config(struct sched_config *c, struct err *err)
{
    c->max_waiting = c->max_waiting ? c->max_waiting : DEFAULT_WAITING;
    c->max_wanted = c->max_wanted ? c->max_wanted : c->max_rows;
    c->stretch_percent = c->stretch_percent ? c->stretch_percent : DEFAULT_STRETCH;
    c->prompt_rows = c->prompt_rows ? c->prompt_rows : DEFAULT_PROMPT_ROWS;
    c->growth = c->growth ? c->growth : DEFAULT_GROWTH;
    if (range(err, "n_stages", c->n_stages, 1, SCHED_MAX_STAGES) || range(err, "max_seqs", c->max_seqs, 1, SCHED_MAX_SEQS) ||
        range(err, "max_waiting", c->max_waiting, 1, SCHED_MAX_WAITING) || range(err, "max_rows", c->max_rows, 1, SCHED_MAX_ROWS) ||
        range(err, "max_wanted", c->max_wanted, 1, c->max_rows) || range(err, "ctx", c->ctx, 1, SCHED_MAX_CTX) ||
        range(err, "block", c->block, 1, SCHED_MAX_BLOCK) || range(err, "n_blocks of group 0", c->n_blocks[0], 0, SCHED_MAX_BLOCKS) ||
        range(err, "n_blocks of group 1", c->n_blocks[1], 0, SCHED_MAX_BLOCKS) ||
        range(err, "max_in_flight", c->max_in_flight, 0, SCHED_MAX_IN_FLIGHT) || range(err, "stretch_percent", c->stretch_percent, 100, 100000) ||
        range(err, "prompt_rows", c->prompt_rows, 1, SCHED_MAX_ROWS) || range(err, "growth", c->growth, 1, SCHED_MAX_CTX))
        return -1;
    if (c->n_blocks[0] == 0 && c->n_blocks[1] == 0)
        return err_set(err, ERR_USAGE, "scheduler: no blocks in either group; a model has at least one");
    if (c->n_blocks[1] && (range(err, "window", c->window, 1, SCHED_MAX_CTX) ||
                           range(err, "n_blocks of group 1", c->n_blocks[1], least_sliding(c), SCHED_MAX_BLOCKS)))
        return -1;
    return check_costs(&c->costs, c->n_stages, err);
}

/* --- create -------------------------------------------------------------------------------------------------------------- */

static int make_sequences(struct sched *s, struct err *err)
{
    uint32_t n_map = 16;
    s->n_seqs = s->config.max_seqs + s->config.max_waiting;
    while (n_map < 2 * s->n_seqs)
        n_map *= 2;
    s->map_mask = n_map - 1;
    if (!(s->seqs = mem_new(s->n_seqs, sizeof *s->seqs, err)) || !(s->map = mem_new(n_map, sizeof *s->map, err)) ||
        !(s->running = mem_new(s->config.max_seqs, sizeof *s->running, err)) ||
        !(s->free_slots = mem_new(s->config.max_seqs, sizeof *s->free_slots, err)) ||
        !(s->waiting.seqs = mem_new(s->n_seqs, sizeof *s->waiting.seqs, err)) ||
        !(s->prompts.seqs = mem_new(s->config.max_seqs, sizeof *s->prompts.seqs, err)))
        return -1;
    memset(s->map, 0xff, n_map * sizeof *s->map);
    s->free_seq = s->ready_head = s->ready_tail = NONE;
    for (uint32_t i = s->n_seqs; i > 0; i--) {
        s->seqs[i - 1].next = s->free_seq;
        s->free_seq = i - 1;
    }
    for (uint32_t i = s->config.max_seqs; i > 0; i--)
        s->free_slots[s->n_free_slots++] = i - 1;
    return 0;
}

static int make_steps(struct sched *s, struct err *err)
{
    const struct sched_config *c = &s->config;
    uint64_t entries = (c->ctx + c->block - 1) / c->block, all = entries * c->max_seqs;
    uint32_t n_members = c->max_seqs < c->max_rows ? c->max_seqs : c->max_rows;
    s->n_flights = c->max_in_flight ? c->max_in_flight : SCHED_MAX_STAGES + 2;
    /* Any one sequence's tables fit, twice; more than DELTA_BLOCKS of several wait for the next step. */
    s->cap_delta_blocks = (uint32_t)(2 * SCHED_GROUPS * (entries + (all < DELTA_BLOCKS ? all : DELTA_BLOCKS)));
    s->cap_notices = 4 * s->n_seqs; /* a step admits and preempts each at most once, a reset preempts or drops each */
    if (!(s->flights = mem_new(s->n_flights, sizeof *s->flights, err)) || !(s->ops = mem_new(4 * (size_t)c->max_seqs, sizeof *s->ops, err)) ||
        !(s->deltas = mem_new(MAX_DELTAS, sizeof *s->deltas, err)) ||
        !(s->delta_blocks = mem_new(s->cap_delta_blocks, sizeof *s->delta_blocks, err)) ||
        !(s->rows = mem_new(c->max_rows, sizeof *s->rows, err)) || !(s->notices = mem_new(s->cap_notices, sizeof *s->notices, err)))
        return -1;
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (!(s->flights[i].members = mem_new(n_members, sizeof *s->flights[i].members, err)))
            return -1;
    return 0;
}

struct sched *sched_create(const struct sched_config *config, struct err *err)
{
    struct sched *s = mem_new(1, sizeof *s, err);
    if (!s)
        return NULL;
    s->config = *config;
    strbuf_init(&s->line, TRACE_LINE_MAX);
    if (check_config(&s->config, err) != 0 || !(s->policy = policy_find(config->policy, err)) || make_sequences(s, err) != 0 ||
        make_steps(s, err) != 0 || blocks_init(&s->blocks, &s->config, err) != 0)
        goto error;
    s->config.policy = s->policy->name;
    s->max_in_flight = s->config.max_in_flight ? s->config.max_in_flight : s->config.n_stages + 2;
    s->next_age = s->next_batch = 1;
    s->hand = HAND_LEAST;
    costs_set(&s->costs, s->config.n_stages, &s->config.costs);
    return s;
error:
    sched_destroy(s);
    return NULL;
}

void sched_destroy(struct sched *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->seqs && i < s->n_seqs; i++)
        free(s->seqs[i].memory);
    for (uint32_t i = 0; s->flights && i < s->n_flights; i++)
        free(s->flights[i].members);
    blocks_fini(&s->blocks);
    strbuf_fini(&s->line);
    free(s->seqs);
    free(s->map);
    free(s->running);
    free(s->free_slots);
    free(s->waiting.seqs);
    free(s->prompts.seqs);
    free(s->flights);
    free(s->ops);
    free(s->deltas);
    free(s->delta_blocks);
    free(s->rows);
    free(s->notices);
    free(s);
}

void sched_set_trace(struct sched *s, sched_trace_fn fn, void *arg)
{
    s->trace = fn;
    s->trace_arg = arg;
    if (fn)
        trace_config(s);
}

/* --- sequences by id ----------------------------------------------------------------------------------------------------- */

static uint32_t map_home(const struct sched *s, uint64_t id)
{
    return (uint32_t)((id * 0x9e3779b97f4a7c15) >> 32) & s->map_mask;
}

struct seq *sched_seq_find(const struct sched *s, uint64_t id)
{
    for (uint32_t i = map_home(s, id); s->map[i] != NONE; i = (i + 1) & s->map_mask)
        if (s->seqs[s->map[i]].id == id)
            return &s->seqs[s->map[i]];
    return NULL;
}

static void map_add(struct sched *s, uint64_t id, uint32_t seq)
{
    uint32_t i = map_home(s, id);
    while (s->map[i] != NONE)
        i = (i + 1) & s->map_mask;
    s->map[i] = seq;
}

/* Those behind the gap move up where they may, so that every search still ends at the first gap. */
static void map_remove(struct sched *s, uint64_t id)
{
    uint32_t gap = map_home(s, id);
    while (s->seqs[s->map[gap]].id != id)
        gap = (gap + 1) & s->map_mask;
    for (uint32_t i = (gap + 1) & s->map_mask; s->map[i] != NONE; i = (i + 1) & s->map_mask) {
        uint32_t home = map_home(s, s->seqs[s->map[i]].id);
        if (((i - home) & s->map_mask) >= ((i - gap) & s->map_mask)) {
            s->map[gap] = s->map[i];
            gap = i;
        }
    }
    s->map[gap] = NONE;
}

static uint32_t index_of(const struct sched *s, const struct seq *q)
{
    return (uint32_t)(q - s->seqs);
}

/* --- order --------------------------------------------------------------------------------------------------------------- */

/* Which prompt goes first: the one that would have been done first had it been alone from its arrival on. So a short one
 * passes a long one, which keeps the mean time to the first token low, but only those pass it that came within the time it
 * needs itself: nobody starves. The key of one that waits never changes. */
int64_t prompt_key(const struct sched *s, const struct seq *q, uint32_t rows_left)
{
    struct load one = {.rows = s->config.max_rows, .ctx = s->config.max_rows, .attn = s->config.max_rows};
    uint64_t step = cost_max_ns(&s->costs, &one);
    return (int64_t)q->arrival_us - (int64_t)q->priority * PRIORITY_US + (int64_t)(step * rows_left / s->config.max_rows / 1000);
}

static bool before(const struct sched *s, uint32_t x, uint32_t y)
{
    const struct seq *a = &s->seqs[x], *b = &s->seqs[y];
    return a->key != b->key ? a->key < b->key : a->age < b->age;
}

static void heap_put(struct sched *s, struct heap *h, uint32_t i, uint32_t seq)
{
    h->seqs[i] = seq;
    if (h == &s->waiting)
        s->seqs[seq].place = i;
}

static void heap_up(struct sched *s, struct heap *h, uint32_t i, uint32_t seq)
{
    for (; i > 0 && before(s, seq, h->seqs[(i - 1) / 2]); i = (i - 1) / 2)
        heap_put(s, h, i, h->seqs[(i - 1) / 2]);
    heap_put(s, h, i, seq);
}

static void heap_down(struct sched *s, struct heap *h, uint32_t i, uint32_t seq)
{
    for (uint32_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && before(s, h->seqs[child + 1], h->seqs[child]))
            child++;
        if (!before(s, h->seqs[child], seq))
            break;
        heap_put(s, h, i, h->seqs[child]);
    }
    heap_put(s, h, i, seq);
}

void heap_push(struct sched *s, struct heap *h, struct seq *q)
{
    h->n++;
    heap_up(s, h, h->n - 1, index_of(s, q));
}

static void heap_remove(struct sched *s, struct heap *h, uint32_t i)
{
    uint32_t last = h->seqs[--h->n];
    if (i == h->n)
        return;
    if (i > 0 && before(s, last, h->seqs[(i - 1) / 2]))
        heap_up(s, h, i, last);
    else
        heap_down(s, h, i, last);
}

struct seq *heap_pop(struct sched *s, struct heap *h)
{
    uint32_t top = h->seqs[0];
    heap_remove(s, h, 0);
    return &s->seqs[top];
}

void seq_ready(struct sched *s, struct seq *q, bool ready)
{
    if (q->ready == ready)
        return;
    q->ready = ready;
    if (ready) {
        q->prev = s->ready_tail;
        q->next = NONE;
        if (s->ready_tail != NONE)
            s->seqs[s->ready_tail].next = index_of(s, q);
        else
            s->ready_head = index_of(s, q);
        s->ready_tail = index_of(s, q);
        s->n_ready++;
        return;
    }
    if (q->prev != NONE)
        s->seqs[q->prev].next = q->next;
    else
        s->ready_head = q->next;
    if (q->next != NONE)
        s->seqs[q->next].prev = q->prev;
    else
        s->ready_tail = q->prev;
    s->n_ready--;
}

struct sched_action *notice(struct sched *s, enum sched_action_kind kind, uint64_t seq, uint32_t n)
{
    struct sched_action *a = &s->notices[(s->notice_first + s->n_notices++) % s->cap_notices];
    assert(s->n_notices <= s->cap_notices);
    *a = (struct sched_action){.kind = kind, .seq = seq, .n = n};
    return a;
}

/* --- a sequence's life --------------------------------------------------------------------------------------------------- */

struct hash128 seq_parent(struct sched *s, struct seq *q, uint32_t i)
{
    return i == 0 ? q->root : *seq_hash(s, q, i - 1);
}

const struct hash128 *seq_hash(struct sched *s, struct seq *q, uint32_t i)
{
    uint32_t block = s->config.block;
    assert((uint64_t)(i + 1) * block <= q->n_tokens);
    for (; q->n_hashed <= i; q->n_hashed++)
        q->hashes[q->n_hashed] = blocks_chain(&s->blocks, q->n_hashed ? q->hashes[q->n_hashed - 1] : q->root, q->tokens + (size_t)q->n_hashed * block);
    return &q->hashes[i];
}

bool seq_rebuilding(const struct seq *q)
{
    return q->rebuild_sent < q->rebuild_to;
}

uint32_t seq_positions(const struct seq *q)
{
    return q->n_max - (q->n_max > q->n_prompt);
}

bool seq_wants_row(const struct seq *q)
{
    return !seq_rebuilding(q) && q->n_sent + 1 == q->n_tokens && (q->n_tokens == q->n_prompt || q->n_tokens < q->n_max);
}

static void wait_in_line(struct sched *s, struct seq *q)
{
    q->state = SEQ_WAITING;
    q->key = prompt_key(s, q, q->n_tokens);
    s->waiting_rows += q->n_tokens;
    heap_push(s, &s->waiting, q);
}

/* Table entries that were said since the last step are of no use to the slot's next owner. */
static void forget_deltas(struct sched *s, uint32_t slot)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_deltas; i++)
        if (s->deltas[i].slot != slot)
            s->deltas[n++] = s->deltas[i];
    s->n_deltas = n;
}

void seq_release(struct sched *s, struct seq *q)
{
    uint32_t last = s->running[--s->n_running];
    s->running[q->place] = last;
    s->seqs[last].place = q->place;
    seq_ready(s, q, false);
    blocks_cut(&s->blocks, &q->table, 0, q->age);
    q->table.slide_from = 0;
    if (q->opened) {
        forget_deltas(s, q->slot);
        s->ops[s->n_ops++] = (struct sched_op){.kind = SCHED_CLOSE, .slot = q->slot, .seq = q->id};
    }
    s->free_slots[s->n_free_slots++] = q->slot;
    q->opened = false;
    q->incarnation++;
    q->n_sent = q->n_done = q->rebuild_to = q->rebuild_sent = 0;
    q->stop_stage = -1;
}

void seq_preempt(struct sched *s, struct seq *q)
{
    seq_release(s, q);
    /* Twice the room next time, so that a sequence that is computed again k times has grown by 2^k in between. */
    q->growth = q->growth < q->n_max ? 2 * q->growth : q->growth;
    wait_in_line(s, q);
    s->stats.n_preempted++;
    notice(s, SCHED_PREEMPTED, q->id, q->n_tokens);
}

void seq_run(struct sched *s, struct seq *q)
{
    s->waiting_rows -= q->n_tokens;
    q->state = SEQ_RUNNING;
    q->slot = s->free_slots[--s->n_free_slots];
    q->place = s->n_running;
    s->running[s->n_running++] = index_of(s, q);
}

static void seq_remove(struct sched *s, struct seq *q)
{
    if (q->state == SEQ_RUNNING) {
        seq_release(s, q);
    } else {
        heap_remove(s, &s->waiting, q->place);
        s->waiting_rows -= q->n_tokens;
    }
    map_remove(s, q->id);
    free(q->memory);
    *q = (struct seq){.next = s->free_seq};
    s->free_seq = index_of(s, q);
}

/* --- add ----------------------------------------------------------------------------------------------------------------- */

int sched_fits(const struct sched *s, uint32_t n_max, struct err *err)
{
    uint32_t need = (n_max + s->config.block - 1) / s->config.block, have = s->blocks.n_blocks[SCHED_FULL];
    if (s->config.n_blocks[SCHED_FULL] && need > have)
        return err_set(err, ERR_LIMIT, "%u positions need %u KV blocks, there are %u; ask for a shorter answer, or give the nodes more memory", n_max,
                       need, have);
    return 0;
}

static int check_spec(struct sched *s, const struct sched_seq *spec, struct err *err)
{
    uint64_t n = (uint64_t)spec->n_prompt + spec->max_new - (spec->max_new > 0); /* the last token is chosen, but not computed */
    if (spec->n_prompt == 0)
        return err_set(err, ERR_INPUT, "an empty prompt; at least one token is needed");
    if (spec->max_new == 0 && !(spec->flags & SCHED_WANT_PROMPT))
        return err_set(err, ERR_INPUT, "a request for nothing: no new tokens and nothing of the prompt");
    if (n > s->config.ctx)
        return err_set(err, ERR_LIMIT, "%u prompt tokens and %u new ones are %" PRIu64 " positions, the context has %u; shorten the prompt or raise --ctx",
                       spec->n_prompt, spec->max_new, n, s->config.ctx);
    if (spec->priority < -MAX_PRIORITY || spec->priority > MAX_PRIORITY)
        return err_set(err, ERR_INPUT, "priority %d, allowed are -%d to %d", spec->priority, MAX_PRIORITY, MAX_PRIORITY);
    if (sched_fits(s, (uint32_t)n, err) != 0)
        return -1;
    if (sched_seq_find(s, spec->id))
        return err_set(err, ERR_INTERNAL, "sequence %" PRIu64 " exists already", spec->id);
    if (s->waiting.n >= s->config.max_waiting)
        return err_set(err, ERR_BUSY, "%u requests wait already, no more are taken; try again later", s->waiting.n);
    return 0;
}

static int add(struct sched *s, uint64_t now, const struct sched_seq *spec, struct err *err)
{
    uint32_t n_max, n_entries;
    struct seq *q;
    char *memory;
    if (check_spec(s, spec, err) != 0)
        return -1;
    n_max = spec->n_prompt + spec->max_new;
    n_entries = (n_max + s->config.block - 1) / s->config.block;
    memory = mem_new(1, n_entries * (sizeof(struct hash128) + sizeof(uint32_t)) + n_max * sizeof(int32_t), err);
    if (!memory)
        return -1;
    q = &s->seqs[s->free_seq];
    s->free_seq = q->next;
    *q = (struct seq){
        .id = spec->id,
        .age = s->next_age++,
        .arrival_us = now,
        .salt = spec->salt,
        .flags = spec->flags | (spec->flags & SCHED_WANT_PROMPT ? SCHED_NO_PREFIX : 0),
        .choice = spec->choice,
        .priority = spec->priority,
        .memory = memory,
        .hashes = (struct hash128 *)memory,
        .table = {.nodes = (uint32_t *)(memory + n_entries * sizeof(struct hash128)), .cap = n_entries},
        .tokens = (int32_t *)(memory + n_entries * (sizeof(struct hash128) + sizeof(uint32_t))),
        .root = blocks_root(&s->blocks, spec->salt),
        .n_tokens = spec->n_prompt,
        .n_prompt = spec->n_prompt,
        .n_max = n_max,
        .stop_stage = -1,
        .growth = s->config.growth,
    };
    memcpy(q->tokens, spec->tokens, spec->n_prompt * sizeof *q->tokens);
    map_add(s, q->id, index_of(s, q));
    wait_in_line(s, q);
    return 0;
}

int sched_add(struct sched *s, uint64_t now_us, const struct sched_seq *spec, struct err *err)
{
    int rc = add(s, now_us, spec, err);
    if (s->trace)
        trace_add(s, now_us, spec, rc);
    return rc;
}

/* --- results ------------------------------------------------------------------------------------------------------------- */

static int no_sequence(struct err *err, uint64_t seq)
{
    return err_set(err, ERR_NOT_FOUND, "there is no sequence %" PRIu64, seq);
}

static int add_token(struct sched *s, uint64_t seq, int32_t token, struct err *err)
{
    struct seq *q = sched_seq_find(s, seq);
    if (!q)
        return no_sequence(err, seq);
    if (!q->sampling)
        return err_set(err, ERR_INTERNAL, "sequence %" PRIu64 ": a token came that no row under way samples", seq);
    if (q->n_tokens == q->n_max)
        return err_set(err, ERR_INTERNAL, "sequence %" PRIu64 ": a token more than its %u; it should have been finished", seq, q->n_max - q->n_prompt);
    q->sampling = 0;
    q->tokens[q->n_tokens++] = token;
    if (q->state == SEQ_WAITING)
        s->waiting_rows++;
    else
        seq_ready(s, q, seq_wants_row(q));
    return 0;
}

int sched_token(struct sched *s, uint64_t now_us, uint64_t seq, int32_t token, struct err *err)
{
    int rc = add_token(s, seq, token, err);
    if (s->trace)
        trace_seq(s, now_us, "token", seq, token, rc);
    return rc;
}

static int end(struct sched *s, uint64_t now, const char *event, uint64_t seq, struct err *err)
{
    struct seq *q = sched_seq_find(s, seq);
    int rc = q ? 0 : no_sequence(err, seq);
    if (q)
        seq_remove(s, q);
    if (s->trace)
        trace_seq(s, now, event, seq, 0, rc);
    return rc;
}

int sched_finish(struct sched *s, uint64_t now_us, uint64_t seq, struct err *err)
{
    return end(s, now_us, "finish", seq, err);
}

int sched_cancel(struct sched *s, uint64_t now_us, uint64_t seq, struct err *err)
{
    return end(s, now_us, "cancel", seq, err);
}

static void confirm(struct sched *s, const struct flight *f, const struct member *m)
{
    struct seq *q = &s->seqs[m->seq];
    if (q->state == SEQ_FREE || q->age != m->age)
        return;
    if (!f->rebuild && m->end > q->wanted_done)
        q->wanted_done = m->end; /* what it wanted of these rows has been delivered, whatever becomes of their blocks */
    if (q->incarnation != m->incarnation)
        return;
    if (f->rebuild) {
        blocks_pass_temp(&s->blocks, &q->table, m->end == q->rebuild_to ? UINT32_MAX : blocks_window_from(&s->blocks, m->end));
        return;
    }
    /* A row of its own is through: so is what was rebuilt before it. */
    q->stop_stage = -1;
    blocks_pass_temp(&s->blocks, &q->table, UINT32_MAX);
    if (m->end > q->n_done)
        q->n_done = m->end;
    blocks_pass(&s->blocks, &q->table, blocks_window_from(&s->blocks, q->n_done));
}

/* Where steps take what they are predicted to, hardly anything is held back of the stretch limit; where they vary, as much as makes one
 * in 256 pass it: a step that does adds a sixteenth, any other takes back a 256th of that. */
static void learn_hand(struct sched *s, const struct flight *f)
{
    uint32_t up = COST_ONE / 16;
    if (f->stretch_ns == 0)
        return;
    if (s->now_ns - f->sent_ns > f->stretch_ns)
        s->hand = s->hand + up < HAND_MOST ? s->hand + up : HAND_MOST;
    else
        s->hand = s->hand - up / 256 > HAND_LEAST ? s->hand - up / 256 : HAND_LEAST;
}

static int step_done(struct sched *s, uint64_t batch, struct err *err)
{
    struct flight *f = NULL;
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (s->flights[i].batch == batch && batch != 0)
            f = &s->flights[i];
    if (!f)
        return err_set(err, ERR_INTERNAL, "batch %" PRIu64 " is not under way", batch);
    for (uint32_t i = 0; i < f->n_members; i++) {
        const struct seq *q = &s->seqs[f->members[i].seq];
        if (q->age == f->members[i].age && q->sampling == batch)
            return err_set(err, ERR_INTERNAL, "batch %" PRIu64 " is done, but the token of sequence %" PRIu64 " is missing", batch, q->id);
    }
    for (uint32_t i = 0; i < f->n_members; i++)
        confirm(s, f, &f->members[i]);
    learn_hand(s, f);
    f->batch = 0;
    s->in_flight--;
    return 0;
}

int sched_step_done(struct sched *s, uint64_t now_us, uint64_t batch, struct err *err)
{
    s->now_ns = now_us * 1000;
    int rc = step_done(s, batch, err);
    if (s->trace)
        trace_done(s, now_us, batch, rc);
    return rc;
}

void sched_measured(struct sched *s, uint64_t now_us, uint64_t batch, uint32_t stage, uint64_t compute_us)
{
    const struct kept_load *k = &s->loads[batch % LOADS_KEPT];
    s->tells = s->tells || stage == 0;
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (s->flights[i].batch == batch && batch != 0 && stage >= s->flights[i].n_passed) {
            s->flights[i].n_passed = stage + 1;
            s->flights[i].passed_ns = now_us * 1000;
        }
    if (k->batch == batch && batch != 0 && stage <= k->stop_stage)
        costs_measured(&s->costs, stage, &k->load, compute_us < COST_MAX / 1000 ? compute_us : COST_MAX / 1000);
    if (s->trace)
        trace_measured(s, now_us, batch, stage, compute_us);
}

int sched_set_costs(struct sched *s, uint64_t now_us, const struct sched_costs *costs, struct err *err)
{
    int rc = check_costs(costs, s->config.n_stages, err);
    if (rc == 0)
        costs_set(&s->costs, s->config.n_stages, costs);
    if (s->trace)
        trace_costs(s, now_us, s->config.n_stages, costs, rc);
    return rc;
}

/* --- a new epoch --------------------------------------------------------------------------------------------------------- */

static int check_reset(struct sched *s, const struct sched_reset *r, struct err *err)
{
    bool resized = r->n_blocks[0] || r->n_blocks[1];
    if (range(err, "n_stages", r->n_stages, 1, SCHED_MAX_STAGES) != 0)
        return -1;
    if (r->lost_through < -1 || r->lost_through >= (int32_t)r->n_stages)
        return err_set(err, ERR_USAGE, "scheduler: stages lost through %d, allowed are -1 to %u", r->lost_through, r->n_stages - 1);
    for (int g = 0; g < SCHED_GROUPS && resized; g++) {
        uint32_t most = s->config.n_blocks[g], least = most == 0 ? 0 : g == SCHED_SLIDING ? least_sliding(&s->config) : 1;
        if (range(err, g ? "n_blocks of group 1" : "n_blocks of group 0", r->n_blocks[g], least, most) != 0)
            return -1;
    }
    if (!r->costs && r->n_stages != s->config.n_stages)
        return err_set(err, ERR_USAGE, "scheduler: %u stages instead of %u, but no costs of them", r->n_stages, s->config.n_stages);
    return r->costs ? check_costs(r->costs, r->n_stages, err) : 0;
}

/* What is known of a running sequence is confirmed, the rest is sent again. */
static void reset_seq(struct sched *s, struct seq *q, int32_t lost_through)
{
    uint32_t block = s->config.block, n = (q->n_done + block - 1) / block;
    seq_ready(s, q, false);
    q->opened = false;
    q->incarnation++;
    blocks_cut(&s->blocks, &q->table, n, q->age);
    blocks_pass_temp(&s->blocks, &q->table, UINT32_MAX);
    q->table.temp_from = q->table.temp_to = 0;
    q->n_sent = q->n_done;
    /* What was still to be rebuilt before is counted in stages that may be others now: then it is all of them. */
    if (lost_through >= 0)
        q->stop_stage = q->stop_stage >= 0 ? (int32_t)s->config.n_stages - 1 : lost_through;
    q->rebuild_sent = 0;
    q->rebuild_to = q->stop_stage >= 0 ? q->n_done : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t filled = q->n_done - i * block < block ? q->n_done - i * block : block;
        blocks_keep(&s->blocks, &q->table, i, q->stop_stage >= 0 ? 0 : filled, q->age);
    }
    seq_ready(s, q, seq_wants_row(q));
}

/* With fewer blocks than before some may never fit again. */
static void drop_too_long(struct sched *s)
{
    struct err err;
    for (uint32_t i = 0; i < s->waiting.n;) {
        struct seq *q = &s->seqs[s->waiting.seqs[i]];
        if (sched_fits(s, seq_positions(q), &err) == 0) {
            i++;
            continue;
        }
        notice(s, SCHED_DROPPED, q->id, seq_positions(q));
        seq_remove(s, q);
        i = 0;
    }
}

static int reset(struct sched *s, const struct sched_reset *r, struct err *err)
{
    uint64_t dropped[SCHED_MAX_IN_FLIGHT];
    bool resized = r->n_blocks[0] || r->n_blocks[1];
    uint32_t n = 0;
    if (check_reset(s, r, err) != 0)
        return -1;
    for (uint32_t i = 0; i < s->n_flights; i++) {
        if (s->flights[i].batch)
            dropped[n++] = s->flights[i].batch;
        s->flights[i].batch = 0;
    }
    s->in_flight = 0;
    s->step_made = false;
    s->config.n_stages = r->n_stages;
    s->max_in_flight = s->config.max_in_flight ? s->config.max_in_flight : r->n_stages + 2;
    if (r->costs)
        costs_set(&s->costs, r->n_stages, r->costs);
    for (uint32_t i = 0; i < s->n_seqs; i++)
        s->seqs[i].sampling = 0;
    blocks_reset(&s->blocks, r->lost_through >= 0 || resized, dropped, n);
    for (uint32_t i = s->n_running; i > 0; i--) { /* from the end: who goes leaves his place to the last */
        struct seq *q = &s->seqs[s->running[i - 1]];
        q->opened = false;
        if (q->n_done == 0 || resized)
            seq_preempt(s, q);
    }
    for (uint32_t i = 0; i < s->n_running; i++)
        reset_seq(s, &s->seqs[s->running[i]], r->lost_through);
    s->n_ops = s->n_deltas = s->n_delta_blocks = s->n_rows = s->n_wanted = 0;
    if (resized) {
        blocks_clear(&s->blocks, r->n_blocks);
        drop_too_long(s);
    }
    return 0;
}

int sched_reset(struct sched *s, uint64_t now_us, const struct sched_reset *r, struct err *err)
{
    int rc = reset(s, r, err);
    if (s->trace)
        trace_reset(s, now_us, r, rc);
    return rc;
}

/* --- looking in ---------------------------------------------------------------------------------------------------------- */

void sched_stats(const struct sched *s, struct sched_stats *ret)
{
    *ret = s->stats;
    ret->n_waiting = s->waiting.n;
    ret->n_running = s->n_running;
    ret->n_decoding = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        const struct seq *q = &s->seqs[s->running[i]];
        ret->n_decoding += !seq_rebuilding(q) && q->n_sent + 1 >= q->n_tokens;
    }
    ret->in_flight = s->in_flight;
    ret->in_flight_wanted = s->plan.in_flight;
    ret->cycle_us = s->plan.cycle_ns / 1000;
    for (int g = 0; g < SCHED_GROUPS; g++) {
        ret->blocks_free[g] = s->blocks.n_free[g];
        ret->blocks_cached[g] = s->blocks.n_lru[g];
        ret->blocks_used[g] = s->blocks.n_blocks[g] - blocks_available(&s->blocks, g);
    }
}

uint64_t sched_predict_us(const struct sched *s, uint32_t stage, uint32_t n_rows, uint64_t n_ctx)
{
    struct load load = {.rows = n_rows, .wanted = n_rows, .ctx = n_ctx, .attn = n_ctx};
    return stage < s->config.n_stages ? cost_stage_ns(&s->costs, stage, &load) / 1000 : 0;
}
