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

int main(void)
{
    one_and_many();
    return tap_done();
}
