/* The scheduler on a simulated pipeline: every token must be the one that a lone sequence without pages would get. */
#include "sched/sched.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(void)
{
    one_and_many();
    fairness();
    saturation();
    return tap_done();
}
