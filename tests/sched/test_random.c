/* Thousands of random loads on random pipelines: both groups or one, pools so small that sequences are preempted, common
 * beginnings, cancels, faults that lose some stages' KV, all policies. Every token is compared (see sim.h), every table and
 * reference count is checked after every event, and every eighth run is traced and replayed. A failure prints its seed;
 * `test_random SEED` runs it alone and
 * prints its trace. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "sched/sched.h"
#include "sched/trace.h"
#include "tests/sched/sim.h"
#include "tests/tap.h"

enum { RUNS = 3000, RUNS_LONG = 60000, TEXTS = 6, TEXT_LEN = 256, GROUPS_OF_RUNS = 10 };

struct totals {
    uint64_t steps, rows, preempted, rebuilt, hits, replayed, dropped, cancelled, faults;
};

static struct sched_config random_config(uint64_t *rng)
{
    struct sched_config c = {.block = UINT32_C(1) << sim_below(rng, 5), .seed = sim_random(rng)};
    uint32_t kind = sim_below(rng, 4), sliding;
    const char *policy = NULL;
    for (uint32_t i = sim_below(rng, 8); i < 4; i = 4)
        policy = sched_policies(i, NULL);
    c.policy = policy;
    c.n_stages = 1 + sim_below(rng, 5);
    c.max_seqs = 1 + sim_below(rng, 10);
    c.max_rows = 1 + sim_below(rng, 48);
    c.max_wanted = sim_below(rng, 3) ? 0 : 1 + sim_below(rng, c.max_rows);
    c.ctx = 24 + sim_below(rng, 150);
    c.growth = 1 + sim_below(rng, 64);
    c.max_in_flight = sim_below(rng, 2) ? 0 : 1 + sim_below(rng, 9);
    c.prompt_rows = 1 + sim_below(rng, 40);
    c.window = kind > 0 ? 1 + sim_below(rng, 60) : 0;
    if (kind < 3)
        c.n_blocks[SCHED_FULL] = (c.ctx + c.block - 1) / c.block + sim_below(rng, 3 * c.ctx / c.block + 1);
    if (kind > 0) {
        sliding = (c.window + c.block - 1) / c.block + 2;
        c.n_blocks[SCHED_SLIDING] = sliding + sim_below(rng, 3 * sliding + 1);
    }
    for (uint32_t s = 0; s < SCHED_MAX_STAGES; s++) {
        c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = sim_below(rng, 300000), .weight_ns = sim_below(rng, 3000000),
                                                     .row_ns = 1000 + sim_below(rng, 300000), .kv_ps = sim_below(rng, 100000),
                                                     .start_ns = sim_below(rng, 300000)};
        if (s + 1 == c.n_stages) {
            c.costs.stage[s].head_weight_ns = sim_below(rng, 1000000);
            c.costs.stage[s].head_start_ns = sim_below(rng, 100000);
            c.costs.stage[s].head_row_ns = sim_below(rng, 200000);
        }
        c.costs.hop[s] = (struct sched_hop_cost){.latency_ns = sim_below(rng, 500000), .row_ns = sim_below(rng, 20000)};
    }
    return c;
}

/* Prompts begin like one of a few texts, for a while. */
static void random_request(struct sim *m, uint64_t *rng, const int32_t texts[TEXTS][TEXT_LEN], uint64_t span_us)
{
    uint32_t most = m->config.ctx < TEXT_LEN ? m->config.ctx : TEXT_LEN, n = 1 + sim_below(rng, most), common = sim_below(rng, n + 1);
    uint32_t max_new = sim_below(rng, 40), which = sim_below(rng, TEXTS), flags = sim_below(rng, 8);
    struct sim_request *r;
    if (sim_below(rng, 4) == 0)
        common = n;
    if (sim_below(rng, 20) && n + max_new > m->config.ctx) /* else it is refused, or nearly */
        max_new = m->config.ctx - n;
    if (max_new == 0)
        flags = 0;
    r = sim_request(m, sim_random(rng) % span_us, n, max_new);
    r->flags = flags == 0 ? SCHED_WANT_PROMPT : flags == 1 ? SCHED_NO_PREFIX : 0;
    if (max_new)
        r->n_answer = 1 + sim_below(rng, max_new);
    for (uint32_t i = 0; i < n; i++)
        r->tokens[i] = i < common ? texts[which][i] : (int32_t)sim_below(rng, 1000);
    r->priority = sim_below(rng, 4) ? 0 : (int32_t)sim_below(rng, 5) - 2;
    r->salt = sim_below(rng, 8) == 0;
    if (sim_below(rng, 6) == 0)
        r->cancel_us = r->arrive_us + 1 + sim_random(rng) % span_us;
}

/* The first stages' layers are laid out anew up to one of the old borders; what lies behind it keeps its KV. */
static void random_fault(struct sim *m, uint64_t *rng, uint64_t span_us)
{
    struct sim_fault *f = sim_fault(m, 1 + sim_random(rng) % span_us);
    uint32_t kept, n = 0;
    const struct sim_fault *old = m->n_faults > 1 ? f - 1 : NULL;
    if (old) {
        f->at_us = old->at_us + 1 + sim_random(rng) % span_us;
        f->n_stages = old->n_stages;
        memcpy(f->first_layer, old->first_layer, sizeof f->first_layer);
    }
    kept = sim_below(rng, f->n_stages + 1); /* stages from this one on */
    if (kept == 0)
        return;
    struct sim_fault now = *f;
    uint32_t border = f->first_layer[kept];
    for (uint32_t at = 0; at < border; n++) {
        now.first_layer[n] = at;
        at += 1 + sim_below(rng, border - at);
    }
    now.lost_through = (int32_t)n - 1;
    for (uint32_t s = kept; s <= f->n_stages; s++)
        now.first_layer[n + s - kept] = f->first_layer[s];
    now.n_stages = n + f->n_stages - kept;
    *f = now;
    if (sim_below(rng, 6) == 0)
        for (int g = 0; g < SCHED_GROUPS; g++) {
            uint32_t least = g == SCHED_FULL ? 1 : (m->config.window + m->config.block - 1) / m->config.block + 2, have = m->config.n_blocks[g];
            uint32_t all = (m->config.ctx + m->config.block - 1) / m->config.block;
            least = g == SCHED_SLIDING && all < least ? all : least;
            f->n_blocks[g] = have == 0 ? 0 : least + (have > least ? sim_below(rng, have - least + 1) : 0);
        }
}

static void remember(void *arg, const char *line, size_t len)
{
    strbuf_add(arg, line, len);
    strbuf_putc(arg, '\n');
}

static bool replays(const struct strbuf *trace, char *said, size_t size)
{
    struct err err = {0};
    struct replay *r = replay_create(&err);
    bool good = r != NULL;
    for (const char *at = trace->data, *end; good && (end = strchr(at, '\n')); at = end + 1)
        good = replay_line(r, at, (size_t)(end - at), &err) == 0;
    replay_destroy(r);
    snprintf(said, size, "%s", err.text);
    return good;
}

static void print(void *arg, const char *line, size_t len)
{
    (void)arg;
    tap_note("%.*s", (int)len, line);
}

static bool one(uint64_t seed, bool alone, struct totals *t, char *said, size_t size)
{
    uint64_t rng = seed, span_us;
    static int32_t texts[TEXTS][TEXT_LEN];
    struct sched_config c = random_config(&rng);
    c.gather_ms = seed % 3 == 0 ? 1 + seed % 100 : 0;
    if (seed % 6 == 0) /* near enough that a prompt's end waits for the first stage */
        c.costs.hop[0].latency_ns = (uint32_t)(seed / 6 % 20000);
    bool traced = seed % 8 == 0 && !alone, good;
    struct strbuf trace;
    struct sched_stats stats = {0};
    struct sim m;
    struct err err = {0};
    sim_init(&m, &c, seed);
    m.hash = true;
    m.measure = sim_below(&rng, 2);
    if (sim_below(&rng, 2)) /* the costs it believes in are wrong */
        m.truth.stage[sim_below(&rng, c.n_stages)].row_ns = 500000;
    for (uint32_t i = 0; i < TEXTS; i++)
        for (uint32_t k = 0; k < TEXT_LEN; k++)
            texts[i][k] = (int32_t)sim_below(&rng, 1000);
    span_us = 1 + sim_random(&rng) % 300000;
    for (uint32_t i = 1 + sim_below(&rng, 30); i > 0; i--)
        random_request(&m, &rng, texts, span_us);
    for (uint32_t i = sim_below(&rng, 3) ? 0 : 1 + sim_below(&rng, 4); i > 0; i--)
        random_fault(&m, &rng, span_us);
    strbuf_init(&trace, 256 << 20);
    if (!(m.sched = sched_create(&c, &err))) {
        snprintf(said, size, "%s", err.text);
        sim_fini(&m);
        return false;
    }
    if (alone)
        sched_set_trace(m.sched, print, NULL);
    else if (traced)
        sched_set_trace(m.sched, remember, &trace);
    good = sim_run(&m);
    snprintf(said, size, "%s", m.wrong);
    if (good && traced) {
        good = replays(&trace, said, size);
        t->replayed++;
    }
    sched_stats(m.sched, &stats);
    t->steps += m.n_steps;
    t->rows += m.n_rows;
    t->preempted += m.n_preempted;
    t->rebuilt += m.n_rebuilt;
    t->hits += stats.n_prefix_hit;
    t->dropped += m.n_dropped;
    t->faults += m.n_faults;
    for (uint32_t i = 0; i < m.n_requests; i++)
        t->cancelled += m.requests[i].refused;
    strbuf_fini(&trace);
    sim_fini(&m);
    return good;
}

/* Runs beyond the ordinary ones that once went wrong. */
static void again(struct totals *t)
{
    static const uint64_t seeds[] = {49276};
    char said[600] = "";
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        ok(one(seeds[i], false, t, said, sizeof said), "run %" PRIu64 ": every token is right %s", seeds[i], said);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t n = argc > 1 ? 1 : getenv("SC_LONG") ? RUNS_LONG : RUNS, seed = first;
    struct totals t = {0};
    char said[600];
    for (uint32_t group = 0; group < GROUPS_OF_RUNS && seed < first + n; group++) {
        uint64_t from = seed, to = group + 1 == GROUPS_OF_RUNS || n < GROUPS_OF_RUNS ? first + n : seed + n / GROUPS_OF_RUNS;
        bool good = true;
        for (; seed < to && good; seed++)
            good = one(seed, argc > 1, &t, said, sizeof said);
        ok(good, "runs %" PRIu64 " to %" PRIu64 ": %s", from, to - 1, good ? "every token is right" : said);
        if (!good) {
            tap_note("seed %" PRIu64, seed - 1);
            break;
        }
    }
    tap_note("%" PRIu64 " steps of %" PRIu64 " rows, %" PRIu64 " preempted, %" PRIu64 " faults, %" PRIu64 " rows rebuilt, %" PRIu64 " positions found",
             t.steps, t.rows, t.preempted, t.faults, t.rebuilt, t.hits);
    tap_note("%" PRIu64 " dropped, %" PRIu64 " cancelled or refused, %" PRIu64 " replayed", t.dropped, t.cancelled, t.replayed);
    if (argc == 1) {
        again(&t);
        ok(t.preempted > 100 && t.rebuilt > 1000 && t.hits > 10000 && t.replayed > 100 && t.cancelled > 100 && t.faults > 100,
           "the runs meet preemption, rebuilding, shared prefixes, replays, cancels and faults");
    }
    return tap_done();
}
