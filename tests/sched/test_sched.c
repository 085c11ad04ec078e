/* The scheduler on a simulated pipeline: every token must be the one that a lone sequence without pages would get. */
#include "sched/cost.h"
#include "sched/sched.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched/trace.h"
#include "tests/sched/sim.h"
#include "tests/tap.h"

static struct sched_config usual(uint32_t n_stages)
{
    struct sched_config c = {.n_stages = n_stages, .max_seqs = 16, .max_rows = 64, .ctx = 256, .block = 8, .n_blocks = {512, 0}, .seed = 42};
    for (uint32_t s = 0; s < n_stages; s++)
        c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 200000, .weight_ns = 2000000, .row_ns = 100000, .kv_ps = 1000};
    for (uint32_t s = 0; s <= n_stages; s++)
        c.costs.hop[s] = (struct sched_hop_cost){.latency_ns = 50000, .row_ns = 1000};
    return c;
}

static void fill(struct sim_request *r, uint64_t seed)
{
    for (uint32_t i = 0; i < r->n_prompt; i++)
        r->tokens[i] = (int32_t)(sim_random(&seed) % 1000);
}

__attribute__((format(printf, 2, 3))) static bool runs(struct sim *m, const char *fmt, ...)
{
    char what[256];
    bool good = sim_run(m);
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return ok(good, "%s: %s", what, m->wrong[0] ? m->wrong : "every token is right");
}

static void one_and_many(void)
{
    for (uint32_t p = 1; p <= 6; p++) {
        struct sched_config c = usual(p);
        struct sim m;
        sim_init(&m, &c, 1);
        m.hash = true;
        for (uint32_t i = 0; i < 20; i++)
            fill(sim_request(&m, i * 300, 1 + 7 * i, 20), i);
        runs(&m, "20 requests through %u stages", p);
        sim_fini(&m);
    }
}

static uint64_t worst_gap(const struct sim *m, uint32_t from, uint32_t to)
{
    uint64_t worst = 0;
    for (uint32_t i = from; i < to; i++)
        worst = m->requests[i].worst_gap_us > worst ? m->requests[i].worst_gap_us : worst;
    return worst;
}

/* Running answers, then a prompt of 4,000 tokens (or several) in the middle of them. */
static void fairness(void)
{
    static const struct {
        uint32_t n_stages, n_running, n_long;
        uint64_t weight_ns, row_ns, hop_ns;
    } cases[] = {
        {1, 4, 1, 10000000, 500000, 100000}, {2, 1, 1, 16000000, 1000000, 100000},  {2, 16, 1, 16000000, 1000000, 100000},
        {4, 8, 1, 8000000, 300000, 500000},  {4, 1, 2, 8000000, 300000, 500000},    {3, 6, 3, 10000000, 2000000, 5000000},
        {6, 12, 1, 5000000, 100000, 20000000}, {2, 8, 1, 1000000, 1000000, 100000},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint64_t usual_gap = 0, gap = 0;
        for (int with = 0; with < 2; with++) { /* the stages' times are measured in every other case */
            struct sched_config c = {.n_stages = cases[k].n_stages, .max_seqs = 32, .max_rows = 512, .ctx = 4200, .block = 32, .n_blocks = {2000, 0}, .seed = 1};
            struct sim m;
            for (uint32_t s = 0; s < c.n_stages; s++)
                c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 200000, .weight_ns = cases[k].weight_ns + 1000000 * s, .row_ns = cases[k].row_ns, .kv_ps = 10000};
            for (uint32_t s = 0; s <= c.n_stages; s++)
                c.costs.hop[s] = (struct sched_hop_cost){.latency_ns = cases[k].hop_ns, .row_ns = 3000};
            sim_init(&m, &c, 1);
            m.measure = k % 2;
            for (uint32_t i = 0; i < cases[k].n_running; i++)
                fill(sim_request(&m, 0, 1, 150), i);
            for (uint32_t i = 0; i < cases[k].n_long && with; i++)
                fill(sim_request(&m, 1000000, 4000, 5), 100 + i);
            sim_run(&m);
            *(with ? &gap : &usual_gap) = worst_gap(&m, 0, cases[k].n_running);
            sim_fini(&m);
        }
        ok(gap <= 2 * usual_gap, "%u answers on %u stages, then %u x 4,000 prompt tokens: longest step %.1f ms, without %.1f", cases[k].n_running,
           cases[k].n_stages, cases[k].n_long, (double)gap / 1000, (double)usual_gap / 1000);
    }
}

/* Stages whose times vary: few steps in a hundred pass the limit, and the prompt is read all the same. */
static void unsteady(void)
{
    for (uint32_t n_stages = 1; n_stages <= 3; n_stages++) {
        struct sched_config c = {.n_stages = n_stages, .max_seqs = 32, .max_rows = 512, .ctx = 6200, .block = 32, .n_blocks = {2000, 0}, .seed = 1};
        uint32_t n = 0, n_long = 0;
        struct sim m;
        for (uint32_t s = 0; s < n_stages; s++) /* answers alone wait for the weights: 10.2 ms whatever their number */
            c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 200000, .weight_ns = 10000000, .row_ns = 500000};
        sim_init(&m, &c, 1);
        m.measure = true;
        m.vary_percent = 20;
        m.long_gap_us = UINT64_C(2) * 10200 * n_stages;
        for (uint32_t i = 0; i < 6; i++)
            fill(sim_request(&m, 0, 1, 500), i);
        fill(sim_request(&m, 100000, 6000, 5), 100);
        sim_run(&m);
        for (uint32_t i = 0; i < 6; i++)
            n += m.requests[i].n_gaps, n_long += m.requests[i].n_long_gaps;
        ok(n_long * 50 <= n, "%u stages whose times vary by 20%%: of %u steps %u take more than twice the usual", n_stages, n, n_long);
        ok(m.requests[6].first_us > 0 && m.requests[6].first_us < m.requests[0].ended_us, "and the prompt is read within %.2f s, the answers in %.2f",
           (double)m.requests[6].first_us / 1e6, (double)m.requests[0].ended_us / 1e6);
        sim_fini(&m);
    }
}

/* Steps with a prompt's rows that take longer than foreseen raise what is expected of all steps, but hardly what prompts are held to. */
static void settled(void)
{
    struct sched_costs base = {.stage = {{.weight_ns = 1000000, .row_ns = 1000000}}};
    struct costs c = {0};
    struct load answers = {.rows = 2, .wanted = 2, .ctx = 200, .attn = 200}, mixed = {.rows = 9, .wanted = 2, .ctx = 300, .attn = 900};
    uint64_t usual;
    costs_set(&c, 1, &base);
    for (int i = 0; i < 50; i++)
        costs_measured(&c, 0, &answers, 8000);
    usual = cost_settled_cycle_ns(&c, &answers, 1);
    ok(usual == cost_cycle_ns(&c, &answers, 1) && usual > 7900000 && usual < 8100000, "answers alone: %.2f ms", (double)usual / 1e6);
    for (int i = 0; i < 50; i++)
        costs_measured(&c, 0, &mixed, i < 1 ? 11000 : 100000); /* their first measurement is compared with nothing */
    ok(cost_cycle_ns(&c, &mixed, 1) > 90000000, "with a prompt: %.2f ms", (double)cost_cycle_ns(&c, &mixed, 1) / 1e6);
    ok(cost_cycle_ns(&c, &answers, 1) > 2 * usual, "answers alone are expected to take longer as well");
    ok(cost_settled_cycle_ns(&c, &answers, 1) <= usual * 33 / 32 + 1000, "and prompts are held to a 32nd more at most: %.2f ms",
       (double)cost_settled_cycle_ns(&c, &answers, 1) / 1e6);
    for (int i = 0; i < 50; i++)
        costs_measured(&c, 0, &answers, 6000);
    usual = cost_settled_cycle_ns(&c, &answers, 1);
    ok(usual > 5900000 && usual < 6100000, "until answers alone are measured again: %.2f ms", (double)usual / 1e6);
}

/* A kind of step that did badly once is not judged by that for ever. */
static void forgiven(void)
{
    struct sched_costs base = {.stage = {{.weight_ns = 1000000, .row_ns = 1000000}}};
    struct costs c = {0};
    struct load four = {.rows = 4, .wanted = 4, .ctx = 400, .attn = 400}, eight = {.rows = 8, .wanted = 8, .ctx = 800, .attn = 800};
    uint64_t version;
    costs_set(&c, 1, &base);
    costs_measured(&c, 0, &eight, 24000);
    costs_measured(&c, 0, &four, 4000);
    ok(cost_cycle_ns(&c, &eight, 1) > 23000000, "eight rows took %.1f ms", (double)cost_cycle_ns(&c, &eight, 1) / 1e6);
    version = c.version;
    for (int i = 0; i < 200; i++)
        costs_measured(&c, 0, &four, 4000);
    ok(cost_cycle_ns(&c, &eight, 1) < 9000000, "after 200 steps of four they are thought to take %.1f", (double)cost_cycle_ns(&c, &eight, 1) / 1e6);
    ok(c.version > version, "and plans are made anew");
    for (int i = 0; i < 8; i++)
        costs_measured(&c, 0, &eight, 24000);
    ok(cost_cycle_ns(&c, &eight, 1) > 20000000, "until they are measured again: %.1f", (double)cost_cycle_ns(&c, &eight, 1) / 1e6);
}

/* Tokens a second at saturation against rows per step over the slowest stage's time: its share of time spent computing. */
static void saturation(void)
{
    for (uint32_t p = 1; p <= 4; p++) {
        struct sched_config c = usual(p);
        struct sim m;
        double busy = 0;
        c.block = 32;
        c.max_rows = 512;
        c.n_blocks[0] = 200;
        for (uint32_t s = 0; s < p; s++)
            c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 300000, .weight_ns = 32000000 / p, .row_ns = 1000000 / p, .kv_ps = 20000};
        sim_init(&m, &c, 1);
        for (uint32_t i = 0; i < 16; i++)
            fill(sim_request(&m, 0, 128, 64), i);
        runs(&m, "16 requests of 128 + 64 over %u stages", p);
        for (uint32_t s = 0; s < p; s++)
            busy = (double)m.busy_ns[s] > busy ? (double)m.busy_ns[s] : busy;
        busy /= (double)(m.last_result_ns - m.first_step_ns);
        ok(busy >= 0.85, "%u stages: the slowest computes %.1f%% of the time", p, 100 * busy);
        sim_fini(&m);
    }
}

/* Prompts beside answers over stages of which one takes most: it should hardly ever wait. */
static void uneven(void)
{
    struct sched_config c = {.n_stages = 4, .max_seqs = 32, .max_rows = 512, .ctx = 4096, .block = 32, .n_blocks = {2048, 0}, .seed = 1};
    struct sim m;
    double busy;
    for (uint32_t s = 0; s < 4; s++)
        c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 300000, .weight_ns = s == 2 ? 20000000 : 8000000, .row_ns = 400000, .kv_ps = 20000};
    for (uint32_t s = 0; s <= 4; s++)
        c.costs.hop[s] = (struct sched_hop_cost){.latency_ns = 300000, .row_ns = 1000};
    sim_init(&m, &c, 1);
    for (uint32_t i = 0; i < 32; i++)
        fill(sim_request(&m, 0, 256, 128), i);
    runs(&m, "32 requests of 256 + 128 over 4 uneven stages");
    busy = (double)m.busy_ns[2] / (double)(m.last_result_ns - m.first_step_ns);
    ok(busy >= 0.84, "the slowest computes %.1f%% of the time, %.1f rows a step", 100 * busy, (double)m.n_rows / (double)m.n_steps);
    sim_fini(&m);
}

/* --- requests that come together ------------------------------------------------------------------------------------------- */

enum { CROWD = 16 };

/* Stages that are bound by arithmetic from a few rows on, as processors are. */
static struct sched_config slow_rows(uint32_t gather_ms)
{
    struct sched_config c = {.n_stages = 2, .max_seqs = 32, .max_rows = 512, .ctx = 4096, .block = 32, .n_blocks = {4096, 0}, .seed = 1, .gather_ms = gather_ms};
    for (uint32_t s = 0; s < 2; s++)
        c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 200000, .weight_ns = 26000000, .start_ns = 12000000, .row_ns = 3300000, .kv_ps = 20000};
    for (uint32_t s = 0; s <= 2; s++)
        c.costs.hop[s] = (struct sched_hop_cost){.latency_ns = 100000, .row_ns = 1000};
    return c;
}

/* A first request whose steps are measured, then a crowd within 30 ms, a second later. The caller adds what else there is. */
static void crowd_init(struct sim *m, const struct sched_config *c, uint32_t n_prompt)
{
    sim_init(m, c, 1);
    m->measure = true;
    fill(sim_request(m, 0, 4, 4), 99);
    for (uint32_t i = 0; i < CROWD; i++)
        fill(sim_request(m, 1000000 + 2000 * i, n_prompt, 64), i);
}

/* When the first and the last first token of the crowd came, after the first of it. */
static void first_tokens(const struct sim *m, uint64_t *ret_first, uint64_t *ret_last)
{
    *ret_first = UINT64_MAX;
    *ret_last = 0;
    for (uint32_t i = 1; i <= CROWD; i++) {
        uint64_t us = m->requests[i].first_us - 1000000;
        *ret_first = us < *ret_first ? us : *ret_first;
        *ret_last = us > *ret_last ? us : *ret_last;
    }
}

static void crowds(void)
{
    uint64_t first[2], last[2], end[2], reading, late;
    struct sim m;
    for (uint32_t with = 0; with < 2; with++) {
        struct sched_config c = slow_rows(with * 10000);
        crowd_init(&m, &c, 128);
        runs(&m, "16 requests that come together%s", with ? " and answer together" : "");
        first_tokens(&m, &first[with], &last[with]);
        end[with] = m.last_result_ns / 1000 - 1000000;
        sim_fini(&m);
    }
    ok(last[1] - first[1] < 200000, "first tokens come together: after %.2f to %.2f s", (double)first[1] / 1e6, (double)last[1] / 1e6);
    ok(last[1] < last[0], "the last one sooner than one by one: %.2f s", (double)last[0] / 1e6);
    ok(end[1] + end[1] / 10 < end[0], "and all is done sooner: after %.2f s instead of %.2f", (double)end[1] / 1e6, (double)end[0] / 1e6);
    reading = last[1];

    struct sched_config c = slow_rows(10000);
    crowd_init(&m, &c, 128);
    fill(sim_request(&m, 3000000, 3000, 4), 50);
    runs(&m, "one more, of 3,000 tokens, while they are read");
    first_tokens(&m, &first[0], &last[0]);
    late = m.requests[CROWD + 1].first_us;
    ok(last[0] < reading + reading / 10 && late > 1000000 + last[0], "nobody waits for it: first tokens after %.2f s, its own after %.2f",
       (double)last[0] / 1e6, (double)late / 1e6);
    sim_fini(&m);

    c = slow_rows(1500);
    crowd_init(&m, &c, 128);
    runs(&m, "the same for 1.5 s at most");
    first_tokens(&m, &first[0], &last[0]);
    ok(first[0] > 1500000 && first[0] < 2600000, "the first answer begins after %.2f s", (double)first[0] / 1e6);
    sim_fini(&m);

    c = slow_rows(10000);
    crowd_init(&m, &c, 128);
    m.requests[CROWD].priority = 1;
    runs(&m, "one of them of higher priority, the last to come");
    ok(m.requests[CROWD].first_us < 1000000 + reading / 2, "it waits for none of the others: %.2f s", (double)m.requests[CROWD].first_us / 1e6 - 1);
    sim_fini(&m);

    c = slow_rows(10000);
    c.n_blocks[0] = 48; /* of which each needs 6, and as many as it may grow by must be free */
    crowd_init(&m, &c, 128);
    runs(&m, "with room for a few of them at a time");
    sim_fini(&m);

    for (uint32_t with = 0; with < 2; with++) {
        c = slow_rows(with * 10000);
        crowd_init(&m, &c, 2000);
        runs(&m, "prompts of which the limit allows for few");
        first_tokens(&m, &first[with], &last[with]);
        sim_fini(&m);
    }
    ok(first[1] < first[0] + first[0] / 50, "are not waited for: the first answer begins after %.2f s, without after %.2f", (double)first[1] / 1e6,
       (double)first[0] / 1e6);
}

/* Where prompts are read nearly as fast beside answers, nothing changes; nor for one alone. */
static void no_crowds(void)
{
    uint64_t first[2], last[2], one[2];
    struct sim m;
    for (uint32_t with = 0; with < 2; with++) {
        struct sched_config c = slow_rows(with * 10000);
        for (uint32_t s = 0; s < 2; s++)
            c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 300000, .weight_ns = 16000000, .row_ns = 500000, .kv_ps = 20000};
        crowd_init(&m, &c, 128);
        runs(&m, "16 requests where answers hardly hold prompts up");
        first_tokens(&m, &first[with], &last[with]);
        sim_fini(&m);
        c = slow_rows(with * 10000);
        sim_init(&m, &c, 1);
        m.measure = true;
        fill(sim_request(&m, 0, 4, 4), 99);
        fill(sim_request(&m, 1000000, 500, 4), 1);
        runs(&m, "one alone");
        one[with] = m.requests[1].first_us - 1000000;
        sim_fini(&m);
    }
    ok(first[1] < last[1] / 2, "they begin one by one: after %.2f to %.2f s", (double)first[1] / 1e6, (double)last[1] / 1e6);
    ok(one[1] < one[0] + one[0] / 100, "one alone has its first token after %.1f ms, or %.1f if nobody is ever waited for", (double)one[1] / 1e3, (double)one[0] / 1e3);
}

/* The smallest driver: every step comes back at once, in order. Ends after n steps or when there are none. */
static uint32_t drive(struct sched *s, uint32_t n, uint64_t *ret_rows)
{
    uint32_t steps = 0;
    struct sched_action a;
    struct err err;
    while (steps < n && sched_poll(s, steps, &a)) {
        if (a.kind != SCHED_STEP)
            continue;
        steps++;
        *ret_rows += a.step.n_rows;
        for (uint32_t i = 0; i < a.step.n_rows; i++)
            if (a.step.rows[i].want == SCHED_WANT_SAMPLE)
                sched_token(s, steps, a.step.rows[i].seq, 7, &err);
        if (sched_step_done(s, steps, a.step.batch, &err) != 0)
            tap_note("%s", err.text);
    }
    return steps;
}

static int add(struct sched *s, uint64_t id, const int32_t *tokens, uint32_t n, uint32_t max_new, uint32_t flags, struct err *err)
{
    struct sched_seq q = {.id = id, .tokens = tokens, .n_prompt = n, .max_new = max_new, .flags = flags};
    return sched_add(s, 0, &q, err);
}

/* Whose client has gone while his last step is under way: a prompt that comes then waits for the first stage, and when that step is back
 * and nothing else is under way it has its turn. */
static void gone_while_waited_for(void)
{
    struct sched_config c = slow_rows(10000);
    struct sched_action a;
    struct err err;
    int32_t tokens[] = {1, 2};
    uint32_t n = 0;
    for (uint32_t h = 0; h < 2; h++)
        c.costs.hop[h].latency_ns = 1000;
    struct sched *s = sched_create(&c, &err);
    is_int(add(s, 1, tokens, 1, 1000, 0, &err), 0, "one answers");
    for (uint64_t now = 1; n < 5 && sched_poll(s, now, &a); now++)
        if (a.kind == SCHED_STEP && ++n < 5) {
            for (uint32_t stage = 0; stage < c.n_stages; stage++)
                sched_measured(s, now, a.step.batch, stage, 1000);
            sched_token(s, now, 1, 7, &err);
            sched_step_done(s, now, a.step.batch, &err);
        }
    uint64_t batch = a.step.batch;
    is_int(sched_cancel(s, 10, 1, &err), 0, "and goes while step %u is under way", n);
    is_int(add(s, 2, tokens, 2, 4, 0, &err), 0, "another one comes");
    while (sched_poll(s, 11, &a))
        if (a.kind == SCHED_STEP)
            tap_note("its step of %u rows did not wait", a.step.n_rows);
    sched_token(s, 12, 1, 7, NULL);
    is_int(sched_step_done(s, 12, batch, &err), 0, "the step is back");
    uint64_t rows = 0;
    is_int(drive(s, 100, &rows), 4, "the other one is answered");
    sched_destroy(s);
}

/* A scheduler with n answers of one token and max_new more. */
static struct sched *start(const struct sched_config *c, uint32_t n, uint32_t max_new)
{
    struct err err;
    struct sched *s = sched_create(c, &err);
    int32_t token = 1;
    for (uint64_t i = 1; i <= n; i++)
        is_int(add(s, i, &token, 1, max_new, 0, &err), 0, "request %u of one token and %u is taken", (unsigned)i, max_new);
    return s;
}

static void formula(void)
{
    struct sched_config c = usual(2);
    struct sched_stats stats;
    struct err err;
    struct sched *s;
    uint64_t rows = 0;
    for (int i = 0; i < 2; i++)
        c.costs.stage[i] = (struct sched_stage_cost){.fixed_ns = 600000, .weight_ns = 16500000, .row_ns = 500000};
    s = start(&c, 16, 50);
    drive(s, 40, &rows);
    sched_stats(s, &stats);
    is_int(stats.n_decoding, 16, "16 sequences decode");
    is_int(stats.in_flight_wanted, 2, "16 sequences on two equal stages bound by memory: two steps under way");
    ok(stats.cycle_us > 34000 && stats.cycle_us < 34600, "468 tokens a second are predicted (a cycle of %u us)", (unsigned)stats.cycle_us);
    for (uint64_t i = 1; i <= 60; i++) { /* the second stage turns out to be four times as slow: then it is the only one that counts */
        uint64_t batch = 0;
        struct sched_action a;
        while (sched_poll(s, 100, &a))
            if (a.kind == SCHED_STEP) {
                batch = a.step.batch;
                sched_measured(s, 100, batch, 0, 17100);
                sched_measured(s, 100, batch, 1, 68400);
                for (uint32_t k = 0; k < a.step.n_rows; k++)
                    sched_token(s, 100, a.step.rows[k].seq, 7, &err);
                sched_step_done(s, 100, batch, &err);
            }
    }
    ok(sched_predict_us(s, 1, 8, 100) > 60000, "what is measured changes what is predicted: %u us", (unsigned)sched_predict_us(s, 1, 8, 100));
    sched_destroy(s);
}

/* Requests that fill their contexts to the last position, with just the blocks for all of them. */
static void full_contexts(void)
{
    struct sched_config c = usual(2);
    struct sched_stats stats;
    struct sched *s;
    uint64_t rows = 0;
    c.block = 32;
    c.ctx = 64;
    c.n_blocks[0] = 16;
    s = start(&c, 8, 64); /* 64 positions each: the last token is chosen, but not computed */
    drive(s, 4, &rows);
    sched_stats(s, &stats);
    is_int(stats.n_decoding, 8, "all run at once");
    sched_destroy(s);
}

static void prefixes(void)
{
    static int32_t text[1200];
    struct sched_config c = usual(3);
    struct sched_stats stats;
    struct err err;
    struct sched *s;
    uint64_t rows = 0, seed = 5;
    c.block = 32;
    c.ctx = 1400;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        text[i] = (int32_t)sim_below(&seed, 1000);
    s = sched_create(&c, &err);
    add(s, 1, text, 1024, 1, 0, &err);
    drive(s, 1000, &rows);
    is_int(rows, 1024, "a prompt of 1,024 tokens is computed");
    sched_finish(s, 0, 1, &err);
    rows = 0;
    add(s, 2, text, 1024, 1, 0, &err);
    drive(s, 1000, &rows);
    ok(rows <= 32, "the same again: %u rows", (unsigned)rows);
    sched_finish(s, 0, 2, &err);
    rows = 0;
    add(s, 3, text, 1100, 1, 0, &err);
    drive(s, 1000, &rows);
    ok(rows <= 76 + 32, "the same and 76 tokens more: %u rows", (unsigned)rows);
    sched_finish(s, 0, 3, &err);
    rows = 0;
    add(s, 4, text, 1024, 1, SCHED_NO_PREFIX, &err);
    drive(s, 1000, &rows);
    is_int(rows, 1024, "without the cache, when asked so");
    sched_finish(s, 0, 4, &err);
    text[500]++;
    rows = 0;
    add(s, 5, text, 1024, 1, 0, &err);
    drive(s, 1000, &rows);
    is_int(rows, 1024 - 500, "another token at 500: all before it is found, to the token");
    sched_finish(s, 0, 5, &err);
    text[0]++;
    rows = 0;
    for (uint64_t i = 10; i < 14; i++) /* four choices of a request, at the same time */
        add(s, i, text, 1015, 1, 0, &err);
    drive(s, 1000, &rows);
    ok(rows <= 1015 + 3 * 4, "four at once share what is being computed: %u rows", (unsigned)rows);
    sched_stats(s, &stats);
    is_int(stats.n_running, 4, "all four run");
    sched_destroy(s);
}

static void refusals(void)
{
    struct sched_config c = usual(2);
    struct err err = {0};
    int32_t text[300] = {0};
    struct sched *s;
    c.policy = "clever";
    ok(!sched_create(&c, &err), "an unknown policy");
    has_str(err.text, "balanced, depth, sarathi, throttle", "the known ones are named");
    c.policy = NULL;
    c.n_blocks[1] = 1;
    c.window = 64;
    ok(!sched_create(&c, &err), "too few sliding blocks");
    has_str(err.text, "allowed are 10 to", "with the least number");
    c = usual(2);
    c.n_blocks[0] = 16;
    s = sched_create(&c, &err);
    is_int(add(s, 1, text, 250, 20, 0, &err), -1, "longer than the context");
    has_str(err.text, "269 positions, the context has 256", "with numbers");
    is_int(add(s, 1, text, 100, 100, 0, &err), -1, "more blocks than there are");
    has_str(err.text, "199 positions need 25 KV blocks, there are 16", "with numbers");
    is_int(err.kind, ERR_LIMIT, "of a kind that a front can tell");
    is_int(add(s, 1, text, 0, 4, 0, &err), -1, "an empty prompt");
    is_int(add(s, 1, text, 4, 0, 0, &err), -1, "nothing asked for");
    is_int(add(s, 1, text, 4, 4, 0, &err), 0, "a good one");
    is_int(add(s, 1, text, 4, 4, 0, &err), -1, "the same id again");
    is_int(sched_token(s, 0, 1, 5, &err), -1, "a token that nobody asked for");
    is_int(sched_step_done(s, 0, 77, &err), -1, "a step that is not under way");
    is_int(sched_cancel(s, 0, 99, &err), -1, "nobody to cancel");
    sched_destroy(s);
}

static void cancels(void)
{
    struct sched_config c = usual(4);
    struct err err;
    struct sched *s = sched_create(&c, &err);
    struct sched_action a;
    int32_t text[200] = {0};
    bool seen = false, closed = false;
    uint64_t batches[8];
    uint32_t n = 0;
    add(s, 1, text, 200, 20, 0, &err);
    text[0] = 1;
    add(s, 2, text, 200, 20, 0, &err);
    while (sched_poll(s, 0, &a))
        if (a.kind == SCHED_STEP)
            batches[n++] = a.step.batch;
    is_int(sched_cancel(s, 1, 1, &err), 0, "cancelled in the middle of its prompt");
    for (uint32_t i = 0; i < n; i++) {
        is_int(sched_step_done(s, 2, batches[i], &err), 0, "a step with rows of it comes back");
        while (sched_poll(s, 2, &a)) {
            for (uint32_t k = 0; a.kind == SCHED_STEP && k < a.step.n_rows; k++)
                seen |= a.step.rows[k].seq == 1;
            for (uint32_t k = 0; a.kind == SCHED_STEP && k < a.step.n_ops; k++)
                closed |= a.step.ops[k].kind == SCHED_CLOSE && a.step.ops[k].seq == 1;
        }
    }
    ok(!seen && closed, "no later step has rows of it, its slot is closed");
    sched_destroy(s);
}

/* A short prompt passes a long one that came before it, but not for ever. */
static void order(void)
{
    struct sched_config c = usual(2);
    struct sim m;
    c.max_seqs = 2;
    sim_init(&m, &c, 1);
    fill(sim_request(&m, 0, 200, 5), 1);
    fill(sim_request(&m, 0, 200, 5), 2);
    fill(sim_request(&m, 0, 240, 5), 3);
    for (uint32_t i = 0; i < 200; i++)
        fill(sim_request(&m, 1000 + i * 8000, 20, 5), 10 + i);
    runs(&m, "short prompts come and come");
    ok(m.requests[3].first_us < m.requests[2].first_us, "the first short one passes the last long one");
    ok(m.requests[2].first_us < m.requests[60].first_us, "but the long one's turn comes: after %u ms", (unsigned)(m.requests[2].first_us / 1000));
    sim_fini(&m);
}

struct lines {
    char *text[4];
    uint32_t n;
};

static void keep(void *arg, const char *line, size_t len)
{
    struct lines *l = arg;
    if (l->n < 4)
        l->text[l->n++] = strndup(line, len);
}

static void replays(void)
{
    struct sched_config c = usual(2);
    struct err err;
    struct sched *s = sched_create(&c, &err);
    struct replay *r;
    struct lines l = {0};
    uint64_t rows = 0;
    int32_t text[4] = {1, 2, 3, 4};
    char *bad;
    sched_set_trace(s, keep, &l);
    add(s, 1, text, 4, 3, 0, &err);
    drive(s, 1, &rows);
    r = replay_create(&err);
    for (uint32_t i = 0; i < l.n; i++)
        is_int(replay_line(r, l.text[i], strlen(l.text[i]), &err), 0, "line %u is replayed", i + 1);
    replay_destroy(r);
    r = replay_create(&err);
    replay_line(r, l.text[0], strlen(l.text[0]), &err);
    replay_line(r, l.text[1], strlen(l.text[1]), &err);
    bad = strstr(l.text[2], "\"n\":0");
    ok(bad != NULL, "the third line admits the sequence");
    if (bad)
        bad[4] = '8';
    is_int(replay_line(r, l.text[2], strlen(l.text[2]), &err), -1, "another decision is noticed");
    has_str(err.text, "line 3 differs", "with its line");
    replay_destroy(r);
    r = replay_create(&err);
    is_int(replay_line(r, "{\"trace\":1}", 11, &err), -1, "a trace of another version");
    has_str(err.text, "version 4", "is refused");
    replay_destroy(r);
    for (uint32_t i = 0; i < l.n; i++)
        free(l.text[i]);
    sched_destroy(s);
}

/* Only sched_add allocates. */
static void memory(void)
{
    struct sched_config c = usual(2);
    struct err err;
    struct sched *s = sched_create(&c, &err);
    uint64_t rows = 0;
    int32_t text[100];
    size_t before;
    for (int32_t i = 0; i < 100; i++)
        text[i] = i;
    for (uint64_t i = 1; i <= 16; i++)
        add(s, i, text + i, 60, 190, 0, &err);
    before = mallinfo2().uordblks;
    drive(s, 300, &rows);
    is_int(mallinfo2().uordblks, before, "%u rows in 300 steps: nothing allocated", (unsigned)rows);
    sched_destroy(s);
}

int main(void)
{
    one_and_many();
    fairness();
    unsteady();
    settled();
    forgiven();
    saturation();
    uneven();
    crowds();
    no_crowds();
    gone_while_waited_for();
    formula();
    full_contexts();
    prefixes();
    refusals();
    cancels();
    order();
    replays();
    memory();
    return tap_done();
}
