/* Decisions: sched_poll makes a step when one is due. A step takes, in this order, decode rows of those that have waited
 * longest, then prompts by their key, as many rows of each as the policy's plan says; rebuilding after a lost stage has steps
 * of its own, as they end early.
 *
 * Out of blocks: whoever needs one takes it from the youngest sequence that is younger than itself and has no rows in this very
 * step; if there is none it waits. The oldest running sequence can thus take from all others, and as sched_add refuses what is
 * larger than the pool, it always gets through: no deadlock. Whoever found no block stays at the head of the list, so that in
 * the next step nobody has rows before it. */
#include "sched/forecast.h"
#include "sched/gather.h"
#include "sched/state.h"

#include <assert.h>
#include <string.h>

enum { HAND_STEP = COST_ONE / 64 }; /* plans are made anew when it changes by so much */
enum { MIN_COPY = 4 }; /* shared tokens that are worth the copy of a block */

/* --- what there is to do ------------------------------------------------------------------------------------------------- */

/* The top four bits: plans are made anew when something changes by more than a tenth or so. */
static uint64_t rough(uint64_t x)
{
    int shift = x < 16 ? 0 : 60 - __builtin_clzll(x);
    return x >> shift << shift;
}

static uint32_t rows_left(const struct seq *q)
{
    return q->n_tokens - q->n_sent + (q->rebuild_to - q->rebuild_sent);
}

/* Requests that wait and for which there are slots. */
static uint32_t n_startable(const struct sched *s)
{
    uint32_t slots = s->config.max_seqs - s->n_running;
    return s->waiting.n < slots ? s->waiting.n : slots;
}

static struct policy_view blank_view(const struct sched *s)
{
    return (struct policy_view){.costs = &s->costs,
                                .max_in_flight = s->max_in_flight,
                                .max_rows = s->config.max_rows,
                                .stretch_percent = s->config.stretch_percent,
                                .fixed_rows = s->config.prompt_rows,
                                .hand = s->hand / HAND_STEP * HAND_STEP,
                                .kv_free_percent = 100};
}

/* Counts, and puts the prompts of running sequences into their heap. */
static struct policy_view look(struct sched *s, uint32_t *ret_rebuilding)
{
    struct policy_view v = blank_view(s);
    uint64_t pos = 0;
    s->prompts.n = 0;
    *ret_rebuilding = 0;
    v.prompt_rows = s->waiting_rows;
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct seq *q = &s->seqs[s->running[i]];
        if (gather_holds(s, q))
            continue;
        if (!seq_rebuilding(q) && q->n_sent + 1 >= q->n_tokens) {
            v.n_decoding += q->n_tokens == q->n_prompt || q->n_tokens < q->n_max;
            v.decode_ctx += q->n_tokens;
            continue;
        }
        *ret_rebuilding += seq_rebuilding(q);
        v.n_prompting++;
        v.prompt_rows += rows_left(q);
        pos += (uint64_t)rows_left(q) * (seq_rebuilding(q) ? q->rebuild_sent : q->n_sent);
        q->key = prompt_key(s, q, rows_left(q));
        heap_push(s, &s->prompts, q);
    }
    v.prompt_pos = v.prompt_rows ? (uint32_t)(pos / v.prompt_rows) : 0;
    v.n_prompting += n_startable(s);
    for (int g = 0; g < SCHED_GROUPS; g++)
        if (s->blocks.n_blocks[g]) {
            uint32_t percent = (uint32_t)(UINT64_C(100) * blocks_available(&s->blocks, g) / s->blocks.n_blocks[g]);
            v.kv_free_percent = percent < v.kv_free_percent ? percent : v.kv_free_percent;
        }
    return v;
}

static void make_plan(struct sched *s, struct policy_view *v)
{
    struct plan_key key = {.version = s->costs.version, .n_decoding = v->n_decoding, .n_prompting = v->n_prompting};
    key.kv = v->kv_free_percent / 5;
    key.hand = v->hand;
    key.ctx = v->decode_ctx = rough(v->decode_ctx);
    key.prompts = rough(v->prompt_rows);
    key.pos = rough(v->prompt_pos);
    v->prompt_pos = (uint32_t)key.pos;
    if (s->plan.in_flight && memcmp(&key, &s->plan_key, sizeof key) == 0)
        return;
    s->plan_key = key;
    s->policy->plan(v, &s->plan);
    s->plan.in_flight = s->plan.in_flight < 1 ? 1 : s->plan.in_flight > s->max_in_flight ? s->max_in_flight : s->plan.in_flight;
}

/* --- blocks -------------------------------------------------------------------------------------------------------------- */

static bool preempt_for(struct sched *s, const struct seq *q)
{
    struct seq *victim = NULL;
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct seq *k = &s->seqs[s->running[i]];
        if (k->age > q->age && k->in_step != s->next_batch && k->table.n > 0 && (!victim || k->age > victim->age))
            victim = k;
    }
    if (!victim)
        return false;
    seq_preempt(s, victim);
    return true;
}

/* In a step that was sent, or in the one that is being made. */
static bool under_way(const struct sched *s, uint64_t batch)
{
    if (batch == s->next_batch)
        return true;
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (s->flights[i].batch == batch && batch != 0)
            return true;
    return false;
}

/* Positions that it took from others are confirmed when the steps that wrote them are; it has no rows of its own that would
 * tell. What its window has passed by then it gives back. false: nothing. (It never held the windows of the first positions it
 * took, so it cannot go back to one of those.) */
static bool give_back(struct sched *s, struct seq *q)
{
    uint32_t block = s->config.block, had = q->table.slide_from, n = q->n_done;
    for (uint32_t i = n / block; !seq_rebuilding(q) && i < q->table.n && (i + 1) * block <= q->n_sent; i++) {
        if (q->table.nodes[i] != BLOCKS_NONE && under_way(s, s->blocks.nodes[q->table.nodes[i]].last_batch))
            break;
        n = (i + 1) * block;
    }
    if (n > q->n_done && blocks_window_from(&s->blocks, n) >= had)
        q->n_done = n;
    blocks_pass(&s->blocks, &q->table, blocks_window_from(&s->blocks, q->n_done));
    return q->table.slide_from > had;
}

static bool make_room(struct sched *s, struct seq *q)
{
    return (blocks_has(&s->blocks, SCHED_SLIDING) && give_back(s, q)) || preempt_for(s, q);
}

static void say_entry(struct sched *s, const struct seq *q, int g, uint32_t i)
{
    struct sched_delta *d = s->n_deltas ? &s->deltas[s->n_deltas - 1] : NULL;
    uint32_t id = q->table.nodes[i];
    assert(s->n_delta_blocks < s->cap_delta_blocks);
    s->delta_blocks[s->n_delta_blocks] = s->blocks.nodes[id].block[g];
    if (d && d->slot == q->slot && d->group == (uint32_t)g && d->index + d->n_blocks == i &&
        d->blocks + d->n_blocks == s->delta_blocks + s->n_delta_blocks) {
        d->n_blocks++;
    } else {
        assert(s->n_deltas < MAX_DELTAS);
        s->deltas[s->n_deltas++] =
            (struct sched_delta){.slot = q->slot, .group = (uint32_t)g, .index = i, .n_blocks = 1, .blocks = s->delta_blocks + s->n_delta_blocks};
    }
    s->n_delta_blocks++;
}

/* Entry i has come into the table of a slot that the stages know. */
static void say_new(struct sched *s, const struct seq *q, uint32_t i)
{
    for (int g = 0; g < SCHED_GROUPS && q->opened; g++)
        if (blocks_has(&s->blocks, g) && (g == SCHED_FULL || i >= q->table.slide_from))
            say_entry(s, q, g, i);
}

static void open_slot(struct sched *s, struct seq *q)
{
    s->ops[s->n_ops++] = (struct sched_op){.kind = SCHED_OPEN, .slot = q->slot, .seq = q->id, .n = q->n_tokens};
    q->opened = true;
    for (uint32_t i = 0; i < q->table.n && blocks_has(&s->blocks, SCHED_FULL); i++)
        say_entry(s, q, SCHED_FULL, i);
    if (!blocks_has(&s->blocks, SCHED_SLIDING))
        return;
    for (uint32_t i = q->table.temp_from; i < q->table.temp_to; i++)
        say_entry(s, q, SCHED_SLIDING, i);
    for (uint32_t i = q->table.slide_from; i < q->table.n; i++)
        say_entry(s, q, SCHED_SLIDING, i);
}

/* There is room to say whatever one sequence may have to say of its tables. */
static bool can_say(const struct sched *s)
{
    uint64_t entries = (s->config.ctx + s->config.block - 1) / s->config.block;
    return s->n_delta_blocks + 2 * SCHED_GROUPS * entries <= s->cap_delta_blocks && s->n_deltas + 2 * SCHED_GROUPS * 4 <= MAX_DELTAS;
}

static const struct hash128 *known_hash(struct sched *s, struct seq *q, uint32_t i)
{
    return (uint64_t)(i + 1) * s->config.block <= q->n_tokens ? seq_hash(s, q, i) : NULL;
}

/* Position p's entry is there and has its blocks. */
static bool have_entry(struct sched *s, struct seq *q, uint32_t i, bool rebuild)
{
    if (rebuild && blocks_has(&s->blocks, SCHED_SLIDING) && i < q->table.slide_from && i >= q->table.temp_to) {
        while (!blocks_temp(&s->blocks, &q->table, seq_parent(s, q, i)))
            if (!make_room(s, q))
                return false;
        if (q->opened)
            say_entry(s, q, SCHED_SLIDING, i);
        return true;
    }
    if (i < q->table.n)
        return true;
    while (!blocks_grow(&s->blocks, &q->table, seq_parent(s, q, i), known_hash(s, q, i), true))
        if (!make_room(s, q))
            return false;
    say_new(s, q, i);
    return true;
}

/* --- the prefix cache ---------------------------------------------------------------------------------------------------- */

static bool complete(const struct sched *s, uint32_t node)
{
    return s->blocks.nodes[node].n_tok == s->config.block;
}

static uint32_t find_block(struct sched *s, struct seq *q, uint32_t i)
{
    uint32_t node = blocks_find(&s->blocks, *seq_hash(s, q, i));
    return node != BLOCKS_NONE && complete(s, node) ? node : BLOCKS_NONE;
}

static bool window_held(struct sched *s, struct seq *q, uint32_t n)
{
    for (uint32_t i = n; i > blocks_window_from(&s->blocks, n * s->config.block); i--) {
        uint32_t node = find_block(s, q, i - 1);
        if (node == BLOCKS_NONE || !blocks_slides(&s->blocks, node))
            return false;
    }
    return true;
}

/* How many whole blocks of its text are in the cache, of use together. The last token is computed in any case: its logits are
 * wanted. */
static uint32_t match(struct sched *s, struct seq *q)
{
    uint32_t most = (q->n_tokens - 1) / s->config.block, n = 0;
    if (q->flags & SCHED_NO_PREFIX)
        return 0;
    if (blocks_has(&s->blocks, SCHED_FULL))
        while (n < most && find_block(s, q, n) != BLOCKS_NONE)
            n++;
    else
        n = most;
    while (n > 0 && blocks_has(&s->blocks, SCHED_SLIDING) && !window_held(s, q, n))
        n--;
    return n;
}

static void take_matched(struct sched *s, struct seq *q, uint32_t n)
{
    uint32_t from = blocks_has(&s->blocks, SCHED_SLIDING) ? blocks_window_from(&s->blocks, n * s->config.block) : n;
    for (uint32_t i = 0; i < n; i++) {
        bool sliding = blocks_has(&s->blocks, SCHED_SLIDING) && i >= from;
        blocks_attach(&s->blocks, &q->table, sliding || blocks_has(&s->blocks, SCHED_FULL) ? find_block(s, q, i) : BLOCKS_NONE, sliding);
    }
    q->n_sent = n * s->config.block;
    s->stats.n_prefix_hit += q->n_sent;
}

/* Copies the start of a block that another text shares only so far. */
static bool copy_part(struct sched *s, struct seq *q, uint32_t i, uint32_t src, uint32_t common)
{
    uint32_t from[SCHED_GROUPS], to[SCHED_GROUPS];
    if (!blocks_grow_copy(&s->blocks, &q->table, seq_parent(s, q, i), known_hash(s, q, i), true, src, from, to))
        return false;
    for (uint32_t g = 0; g < SCHED_GROUPS; g++)
        if (blocks_has(&s->blocks, (int)g))
            s->ops[s->n_ops++] = (struct sched_op){.kind = SCHED_COPY, .slot = q->slot, .seq = q->id, .group = g, .src = from[g], .dst = to[g]};
    say_new(s, q, i);
    blocks_wrote(&s->blocks, &q->table, i, q->n_sent, q->n_sent + common, q->tokens, s->next_batch, q->age);
    q->n_sent += common;
    s->stats.n_prefix_hit += common;
    return true;
}

/* At a block's border: goes on with blocks that others have, or are about to have. false: they are just being made by an older
 * sequence; wait for them. (Waiting goes from the younger to the older only, so nobody waits in a circle.) */
static bool join(struct sched *s, struct seq *q)
{
    uint32_t block = s->config.block, last = q->n_tokens - 1;
    while (q->n_sent % block == 0 && q->n_sent < last && q->table.n == q->n_sent / block && !(q->flags & SCHED_NO_PREFIX)) {
        uint32_t i = q->n_sent / block, rest = last - q->n_sent, node = BLOCKS_NONE, common, soon;
        if (rest >= block)
            node = blocks_find(&s->blocks, *seq_hash(s, q, i));
        if (node != BLOCKS_NONE && complete(s, node) && blocks_slides(&s->blocks, node)) {
            blocks_attach(&s->blocks, &q->table, node, blocks_has(&s->blocks, SCHED_SLIDING));
            say_new(s, q, i);
            q->n_sent += block;
            s->stats.n_prefix_hit += block;
            continue;
        }
        if (node != BLOCKS_NONE && !complete(s, node) && s->blocks.nodes[node].owner < q->age)
            return false;
        node = blocks_partial(&s->blocks, seq_parent(s, q, i), q->tokens + q->n_sent, rest < block ? rest : block, s->next_batch, q->age, &common,
                              &soon);
        if (soon >= common + MIN_COPY)
            return false;
        if (node != BLOCKS_NONE && common >= MIN_COPY)
            copy_part(s, q, i, node, common);
        break;
    }
    return true;
}

/* The same for what is computed again after a stage was lost: blocks that others share are computed once. Where there are
 * sliding layers everybody computes his own, as each needs his window on the way; the bits are the same. */
static bool join_rebuild(struct sched *s, struct seq *q)
{
    uint32_t block = s->config.block;
    while (!blocks_has(&s->blocks, SCHED_SLIDING) && q->rebuild_sent % block == 0 && seq_rebuilding(q)) {
        uint32_t left = q->rebuild_to - q->rebuild_sent, need = left < block ? left : block;
        const struct node *n = &s->blocks.nodes[q->table.nodes[q->rebuild_sent / block]];
        if (n->n_tok < need)
            return n->owner >= q->age;
        q->rebuild_sent += need;
    }
    return true;
}

/* --- admission ----------------------------------------------------------------------------------------------------------- */

/* Blocks of a group that a sequence will hold when it has grown by what it was promised. */
static uint32_t promised(const struct sched *s, const struct seq *q, int g)
{
    uint64_t n = (uint64_t)q->n_tokens + q->growth;
    uint32_t block = s->config.block, all, window;
    if (!blocks_has(&s->blocks, g))
        return 0;
    n = n < seq_positions(q) ? n : seq_positions(q);
    all = (uint32_t)((n + block - 1) / block);
    window = (s->config.window + block - 1) / block + 2;
    return g == SCHED_SLIDING && window < all ? window : all;
}

static uint32_t held(const struct sched *s, const struct seq *q, int g)
{
    return !blocks_has(&s->blocks, g) ? 0 : g == SCHED_FULL ? q->table.n : q->table.n - q->table.slide_from;
}

/* All that run can grow as promised, and this one too: so between two losses of its blocks a sequence gets on by at least so
 * much, and computing again never becomes the main work. When nobody runs anybody may. */
static bool admissible(struct sched *s, struct seq *q, uint32_t n_matched)
{
    for (int g = 0; g < SCHED_GROUPS && s->n_running > 0; g++) {
        uint64_t need = promised(s, q, g);
        uint32_t from = g == SCHED_SLIDING ? blocks_window_from(&s->blocks, n_matched * s->config.block) : 0;
        for (uint32_t i = from; i < n_matched && blocks_has(&s->blocks, g); i++) {
            uint32_t id = s->blocks.nodes[find_block(s, q, i)].block[g];
            need -= s->blocks.blocks[g][id].ref > 0 && need > 0; /* costs nothing more */
        }
        for (uint32_t i = 0; i < s->n_running; i++) {
            const struct seq *k = &s->seqs[s->running[i]];
            uint32_t p = promised(s, k, g), h = held(s, k, g);
            need += p > h ? p - h : 0;
        }
        if (need > blocks_available(&s->blocks, g))
            return false;
    }
    return true;
}

static struct seq *admit(struct sched *s)
{
    struct seq *q = &s->seqs[s->waiting.seqs[0]];
    uint32_t n;
    if (s->n_free_slots == 0 || q->sampling || !can_say(s))
        return NULL;
    n = match(s, q);
    if (!admissible(s, q, n))
        return NULL;
    heap_pop(s, &s->waiting);
    seq_run(s, q);
    q->in_step = s->next_batch; /* nobody takes its blocks before it had any use of them */
    take_matched(s, q, n);
    notice(s, SCHED_ADMITTED, q->id, q->n_sent);
    return q;
}

/* --- rows ---------------------------------------------------------------------------------------------------------------- */

static uint8_t want_of(const struct seq *q, uint32_t pos, bool rebuild)
{
    if (rebuild)
        return SCHED_WANT_NONE;
    if (pos + 1 == q->n_tokens && q->n_tokens < q->n_max)
        return SCHED_WANT_SAMPLE;
    if ((q->flags & SCHED_WANT_PROMPT) && pos < q->n_prompt && pos >= q->wanted_done)
        return SCHED_WANT_PROMPT_ROW;
    return SCHED_WANT_NONE;
}

static void add_member(struct sched *s, const struct seq *q, uint32_t from, uint32_t to)
{
    struct flight *f = s->step_flight;
    f->members[f->n_members++] =
        (struct member){.age = q->age, .seq = (uint32_t)(q - s->seqs), .incarnation = q->incarnation, .end = to};
    s->step_load.rows += to - from;
    s->step_load.ctx += to;
    s->step_load.attn += (uint64_t)(to - from) * (from + to + 1) / 2;
}

/* Up to n rows of the sequence go into the step; as many as there are blocks (and wants) for. Returns how many. */
static uint32_t place(struct sched *s, struct seq *q, uint32_t n, bool rebuild)
{
    uint32_t block = s->config.block, from = rebuild ? q->rebuild_sent : q->n_sent, most = rebuild ? q->rebuild_to : q->n_tokens, to = from;
    most = most - from < n ? most : from + n;
    if (!can_say(s))
        return 0;
    if ((q->flags & SCHED_WANT_PROMPT) && !rebuild && most - from > s->config.max_wanted - s->n_wanted)
        most = from + (s->config.max_wanted - s->n_wanted);
    if (!rebuild && most == q->n_tokens && s->n_wanted == s->config.max_wanted && most > from)
        most--;
    while (to < most && have_entry(s, q, to / block, rebuild)) {
        uint32_t end = (to / block + 1) * block;
        end = end < most ? end : most;
        blocks_wrote(&s->blocks, &q->table, to / block, to, end, q->tokens, s->next_batch, q->age);
        if (end % block == 0 && !rebuild)
            blocks_complete(&s->blocks, &q->table, to / block, *seq_hash(s, q, to / block));
        to = end;
    }
    if (to == from)
        return 0;
    if (!q->opened)
        open_slot(s, q);
    for (uint32_t pos = from; pos < to; pos++) {
        uint8_t want = want_of(q, pos, rebuild);
        s->rows[s->n_rows++] = (struct sched_row){.seq = q->id, .slot = q->slot, .pos = pos, .token = q->tokens[pos], .want = want};
        s->n_wanted += want != SCHED_WANT_NONE;
        if (want == SCHED_WANT_SAMPLE)
            q->sampling = s->next_batch;
    }
    q->in_step = s->next_batch;
    add_member(s, q, from, to);
    *(rebuild ? &q->rebuild_sent : &q->n_sent) = to;
    return to - from;
}

static void place_decodes(struct sched *s, uint32_t most)
{
    uint32_t placed = 0;
    for (uint32_t i = s->ready_head, next; i != NONE && placed < most && s->n_rows < s->config.max_rows; i = next) {
        struct seq *q = &s->seqs[i];
        uint32_t left = s->n_ready;
        next = q->next;
        if (place(s, q, 1, false)) {
            placed++;
            seq_ready(s, q, false);
            left--;
        }
        if (s->n_ready != left) /* a victim was in the list: what came next may be gone */
            next = s->ready_head;
    }
}

/* Still what it was when the heap was made: it may have been preempted since, and even been admitted again. */
static bool is_prompt(const struct sched *s, const struct seq *q)
{
    return q->state == SEQ_RUNNING && q->in_step != s->next_batch;
}

/* The prompt to go on with: of those that run, or the first that waits if that goes before and may. */
static struct seq *next_prompt(struct sched *s, bool *try_waiting)
{
    struct seq *q;
    while (s->prompts.n > 0 && !is_prompt(s, &s->seqs[s->prompts.seqs[0]]))
        heap_pop(s, &s->prompts);
    q = s->prompts.n ? &s->seqs[s->prompts.seqs[0]] : NULL;
    if (*try_waiting && s->waiting.n > 0) {
        const struct seq *w = &s->seqs[s->waiting.seqs[0]];
        if (!q || w->key < q->key || (w->key == q->key && w->age < q->age)) {
            struct seq *admitted = admit(s);
            if (admitted)
                return admitted;
            *try_waiting = false; /* those behind it wait, too: none passes it by being small */
        }
    }
    return q ? heap_pop(s, &s->prompts) : NULL;
}

/* A prompt whose rest is one row is as good as one that decodes. A complete answer needs no row for its last token. */
static void settle(struct sched *s, struct seq *q)
{
    seq_ready(s, q, seq_wants_row(q));
}

/* A prompt would be read to its end, where its first token is chosen. */
static bool ends_with(const struct seq *q, uint32_t n)
{
    return n >= rows_left(q) && q->n_tokens == q->n_prompt && q->n_max > q->n_prompt;
}

static void place_prompts(struct sched *s, uint32_t most, bool answers)
{
    bool try_waiting = true;
    uint32_t left = s->config.max_rows - s->n_rows;
    struct seq *q;
    left = left < most ? left : most;
    while (left > 0 && (q = next_prompt(s, &try_waiting))) {
        if (seq_rebuilding(q) || !can_say(s)) /* not its turn */
            continue;
        uint32_t n = 0;
        if (join(s, q)) {
            bool ends = ends_with(q, left);
            if (ends && !s->gathering && !answers && gather_may_wait(s, rows_left(q)))
                left = 0;
            n = place(s, q, ends && s->gathering ? rows_left(q) - 1 : left, false);
            left -= n;
        }
        if (n == 0 && q->in_step == s->next_batch)
            q->in_step = 0; /* just admitted; without rows of it this step may not be made, and the next try has its number */
        settle(s, q);
    }
}

static void place_rebuilds(struct sched *s, uint32_t most, int32_t *ret_stop)
{
    uint32_t left = s->config.max_rows < most ? s->config.max_rows : most;
    *ret_stop = -1;
    while (left > 0 && s->prompts.n > 0) {
        struct seq *q = heap_pop(s, &s->prompts);
        if (!is_prompt(s, q) || !seq_rebuilding(q) || (*ret_stop >= 0 && q->stop_stage != *ret_stop))
            continue;
        if (join_rebuild(s, q) && seq_rebuilding(q)) {
            uint32_t n = place(s, q, left, true);
            left -= n;
            if (n)
                *ret_stop = q->stop_stage;
            else if (!under_way(s, q->in_step))
                seq_preempt(s, q); /* no room for its old windows beside the present one: anew then, on all stages */
        }
        if (q->state == SEQ_RUNNING)
            settle(s, q);
    }
}

/* --- the step ------------------------------------------------------------------------------------------------------------ */

static void finish_step(struct sched *s, uint32_t stop_stage, bool rebuild)
{
    struct flight *f = s->step_flight;
    f->batch = s->next_batch;
    f->rebuild = rebuild;
    f->samples = f->answers = false;
    for (uint32_t i = 0; i < s->n_rows && !f->samples; i++)
        f->samples = s->rows[i].want == SCHED_WANT_SAMPLE;
    s->step_load.wanted = s->n_wanted;
    f->load = s->step_load;
    f->stop_stage = stop_stage;
    f->n_passed = 0;
    f->passed_ns = f->sent_ns = s->now_ns;
    f->stretch_ns = 0;
    s->loads[f->batch % LOADS_KEPT] = (struct kept_load){.batch = f->batch, .stop_stage = stop_stage, .load = s->step_load};
    s->in_flight++;
    s->last_was_rebuild = rebuild;
    s->stats.n_steps++;
    s->stats.n_rows += s->n_rows;
    s->step = (struct sched_step){
        .batch = s->next_batch++,
        .stop_stage = stop_stage,
        .ops = s->ops,
        .n_ops = s->n_ops,
        .deltas = s->deltas,
        .n_deltas = s->n_deltas,
        .rows = s->rows,
        .n_rows = s->n_rows,
        .n_wanted = s->n_wanted,
        .predicted_us = cost_max_ns(&s->costs, &s->step_load) / 1000,
    };
    s->step_made = true;
    s->n_ops = s->n_deltas = s->n_delta_blocks = 0;
}

static void begin_step(struct sched *s)
{
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (!s->flights[i].batch)
            s->step_flight = &s->flights[i];
    s->step_flight->n_members = 0;
    s->step_load = (struct load){0};
    s->n_rows = s->n_wanted = 0;
}

static bool rebuild_step(struct sched *s)
{
    int32_t stop;
    place_rebuilds(s, s->plan.prompt_rows, &stop);
    if (s->n_rows == 0)
        return false;
    s->stats.n_rebuilt_rows += s->n_rows;
    finish_step(s, (uint32_t)stop, true);
    return true;
}

/* With n prompt rows in this step, its own decode rows and those that come back next are in time again. */
static bool in_time(const struct sched *s, const struct forecast *now, const struct policy_view *v, uint32_t n, uint64_t limit_ns)
{
    struct forecast f = *now;
    uint32_t usual = s->plan.mixed_rows ? s->plan.mixed_rows - s->plan.prompt_rows : s->plan.decode_rows;
    struct load load = policy_load(v, 0, n), next = policy_load(v, usual, n);
    uint64_t at = f.return_ns > s->now_ns ? f.return_ns : s->now_ns, back;
    load.rows += s->step_load.rows;
    load.wanted += s->step_load.rows;
    load.ctx += s->step_load.ctx;
    load.attn += s->step_load.attn;
    back = forecast_send(s, &f, s->now_ns, &load);
    if (s->step_load.rows > 0 && back - s->now_ns > limit_ns)
        return false;
    return f.return_ns == UINT64_MAX || forecast_send(s, &f, at, &next) - at <= limit_ns;
}

/* How many prompt rows this step may have: the plan's number holds for steps that are spread evenly; when prompts have only
 * just come they are not. A step of prompts alone that would be small is not worth reading the weights: it waits for the next
 * event (there is one, as something is under way). */
static uint32_t prompt_rows_now(struct sched *s, const struct policy_view *v)
{
    struct forecast now;
    uint32_t lo = 0, hi = s->plan.prompt_rows, waited = s->n_without_prompts / (2 * s->plan.in_flight + 1);
    uint64_t limit = waited ? s->plan.limit_ns * v->hand / COST_ONE : s->plan.limit_ns; /* what was held back goes first */
    if (s->plan.mixed_rows)
        hi = s->plan.mixed_rows > s->n_rows ? s->plan.mixed_rows - s->n_rows : 0;
    if (limit == 0 || hi == 0 || v->prompt_rows == 0 || waited > 1)
        return hi;
    forecast_make(s, s->now_ns, &now);
    if (in_time(s, &now, v, hi, limit))
        return hi;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (in_time(s, &now, v, mid, limit))
            lo = mid;
        else
            hi = mid - 1;
    }
    return s->step_load.rows == 0 && lo < s->plan.prompt_rows / 2 ? 0 : lo;
}

/* n of so many prompt rows beside decode rows, or a few less if those would need a tile more and can go with what is left anyway. */
static uint32_t whole_tiles(uint32_t decodes, uint32_t n, uint64_t waiting)
{
    uint32_t over = (decodes + n) % POLICY_TILE;
    return decodes > 0 && n < waiting && decodes + n > POLICY_ALONE && over <= POLICY_TILE / 4 && over < n ? n - over : n;
}

/* As many steps are under way as the plan wants: there may still be one for decode rows, if those under way are prompts, as they
 * are when the last prompt has just been sent. (Its last rows choose a token, but no answer waits for them.) */
static bool is_full(const struct sched *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_flights; i++)
        n += s->flights[i].batch && s->flights[i].answers;
    return s->in_flight >= s->plan.in_flight && (s->n_ready == 0 || s->gathering || n >= s->plan.in_flight);
}

static bool usual_step(struct sched *s, const struct policy_view *v)
{
    uint32_t decodes;
    if (!s->gathering)
        place_decodes(s, s->plan.decode_rows);
    decodes = s->n_rows;
    if (s->in_flight < s->plan.in_flight)
        place_prompts(s, whole_tiles(decodes, prompt_rows_now(s, v), v->prompt_rows), v->n_decoding > 0);
    s->stats.n_prompt_rows += s->n_rows - decodes;
    if (s->n_rows == 0)
        return false;
    s->n_without_prompts = s->n_rows > decodes || v->prompt_rows == 0 ? 0 : s->n_without_prompts + 1;
    finish_step(s, s->config.n_stages - 1, false);
    s->step_flight->answers = decodes > 0;
    if (decodes > 0 && v->prompt_rows > 0)
        s->step_flight->stretch_ns = s->plan.limit_ns * v->hand / COST_ONE;
    return true;
}

static void make_step(struct sched *s)
{
    uint32_t n_rebuilding;
    struct policy_view view;
    if (s->in_flight >= s->max_in_flight)
        return;
    view = blank_view(s);
    gather_update(s, &view);
    view = look(s, &n_rebuilding);
    make_plan(s, &view);
    if (is_full(s))
        return;
    begin_step(s);
    if (n_rebuilding == 0) {
        bool made = usual_step(s, &view);
        if (!made && s->gathering && s->in_flight == 0) { /* no room for those that are waited for */
            gather_end(s);
            view = look(s, &n_rebuilding);
            make_plan(s, &view);
            usual_step(s, &view);
        }
        return;
    }
    /* In turns, so that what is rebuilt already goes on meanwhile. Each try uses the heap up. */
    for (int i = 0; i < 2; i++) {
        bool rebuild = (i == 0) != s->last_was_rebuild;
        if (i > 0)
            look(s, &n_rebuilding);
        if (rebuild ? rebuild_step(s) : usual_step(s, &view))
            return;
    }
}

/* --- poll ---------------------------------------------------------------------------------------------------------------- */

static bool pop_notice(struct sched *s, struct sched_action *ret)
{
    if (s->n_notices == 0)
        return false;
    *ret = s->notices[s->notice_first];
    s->notice_first = (s->notice_first + 1) % s->cap_notices;
    s->n_notices--;
    if (ret->kind == SCHED_DROPPED) {
        sched_fits(s, ret->n, &s->dropped);
        ret->text = s->dropped.text;
    }
    return true;
}

static bool poll(struct sched *s, uint64_t now_us, struct sched_action *ret)
{
    s->now_ns = now_us * 1000;
    *ret = (struct sched_action){.kind = SCHED_STEP};
    if (pop_notice(s, ret))
        return true;
    if (!s->step_made)
        make_step(s);
    if (pop_notice(s, ret))
        return true;
    if (!s->step_made)
        return false;
    s->step_made = false;
    ret->step = s->step;
    return true;
}

bool sched_poll(struct sched *s, uint64_t now_us, struct sched_action *ret)
{
    bool any = poll(s, now_us, ret);
    if (s->trace)
        trace_action(s, now_us, any ? ret : NULL);
    return any;
}
