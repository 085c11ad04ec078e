/* Properties of plans that no single optimum shows: formulas with known answers, what is resident, who stands by, pins, what is
 * said when nothing fits, Helix' cluster, and how long planning takes. */
#include "topology/planner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "tests/tap.h"
#include "tests/topology/random_input.h"

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

/* --- formulas ------------------------------------------------------------------------------------------------------------- */

static void test_formulas(void)
{
    /* Two equal stages that mostly read weights, 16 sequences: with 8 rows 17.1 ms each, so 468 tokens/s in 2 batches. */
    struct cost_stage equal = {.weights_us = 12000, .kv_us = 5094.017 / 8 / 100, .group = -1};
    struct cost_pipeline p = {.n_stages = 2, .stages = {equal, equal}};
    for (int i = 0; i <= 2; i++)
        p.hops[i].group[0] = p.hops[i].group[1] = -1;
    double round;
    is_int(cost_best_m(&p, 16, 100, &round), 2, "two equal stages: two batches");
    ok(fabs(16 / round * 1e6 - 468) < 0.1, "468 tokens/s (%g)", 16 / round * 1e6);
    ok(near(cost_round_us(&p, 16, 3, 100), 3 * (12000 + 5094.017 / 8 * 16 / 3)), "three batches: the weights are read three times");
    p.hops[1].latency_us = p.hops[0].latency_us = p.hops[2].latency_us = 6000;
    is_int(cost_best_m(&p, 16, 100, &round), 3, "long hops: three");
    is_int(cost_best_m(&p, 1, 100, &round), 1, "one sequence: one");
    ok(near(round, 2 * (12000 + 5094.017 / 8) + 3 * 6000), "and its round is its latency");

    struct cost_batch b = {.rows = 4, .wanted = 4, .seqs = 4, .context = 1000};
    struct cost_stage s = {.weights_us = 100, .kv_us = 0.01, .work = {{50, 50, 50}}, .fixed_us = 7, .group = -1};
    ok(near(cost_stage_us(&s, &b), 200 + 7), "computing takes longer: 4 rows of 50 us");
    s.kv_us = 0.1;
    ok(near(cost_stage_us(&s, &b), 100 + 400 + 7), "reading keys and values does: 100 us for each of 4");
    s.window = 10, s.kv_sliding_us = 0.1, s.kv_us = 0;
    ok(near(cost_stage_us(&s, &b), 207), "a window of 10 reads 4 us");
    s.measured = 2;
    ok(near(cost_stage_us(&s, &b), 414), "measured twice as slow");
    struct cost_work work = {{30, 15, 10}};
    ok(near(cost_work_us(&work, 1), 30) && near(cost_work_us(&work, 8), 120) && near(cost_work_us(&work, 512), 5120) &&
           near(cost_work_us(&work, 1024), 10240) && cost_work_us(&work, 0) == 0, "products with 1, 8, 512 and more rows: as measured");
    ok(near(cost_work_us(&work, 4.5), 75), "with 4.5: halfway");
    ok(near(cost_experts_work_us(&work, 8, 2, 1), 0.25 * 30), "one row and its two experts of eight");
    cost_work_line(&work, &round, &p.hops[0].latency_us);
    ok(near(round + 8 * p.hops[0].latency_us, 120) && near(round + 512 * p.hops[0].latency_us, 5120), "as a line through few and many");
    ok(near(cost_experts_touched(8, 2, 1), 0.25) && cost_experts_touched(8, 8, 1) == 1 && cost_experts_touched(128, 8, 1000) > 0.999, "experts");

    /* Chunks: 4 equal stages, t0 = 10 ms a chunk, t1 = 0.1 ms a token, 2048 tokens: the best is √(N t0 / ((p - 1) t1)) = 261. */
    struct cost_pipeline q = {.n_stages = 4};
    for (int i = 0; i < 4; i++)
        q.stages[i] = (struct cost_stage){.fixed_us = 10000, .work = {{100, 100, 100}}, .group = -1};
    for (int i = 0; i <= 4; i++)
        q.hops[i].group[0] = q.hops[i].group[1] = -1;
    double us;
    uint32_t chunk = cost_best_chunk(&q, 2048, 2048, &us);
    ok(chunk > 200 && chunk < 350, "the best chunk is about 261 (%u)", chunk);
    ok(near(cost_prompt_us(&q, 2048, 256, 0), (8 + 3) * (10000 + 25600.0)), "8 chunks over 4 stages");
}

/* --- clusters ---------------------------------------------------------------------------------------------------------------- */

/* Equal layers of 1 GB, nodes of so many layers, 100 GB/s each: 10 ms a layer. */
static void simple(struct random_input *r, uint32_t layers, uint32_t nodes, const uint32_t *room)
{
    memset(r, 0, sizeof *r);
    r->model = (struct plan_model){.type_names = {"F16"}, .type_bits = {16}, .n_types = 1, .n_layers = layers, .layers = r->layers,
                                   .row_bytes = 16384, .token_bytes = 64};
    for (uint32_t l = 0; l < layers; l++)
        r->layers[l] = (struct plan_part){.weights = {500e6}, .file_bytes = 1000000000};
    r->in = (struct plan_input){.model = &r->model, .n_nodes = nodes, .nodes = r->nodes, .links = r->links, .groups = r->groups, .pins = r->pins,
                                .parallel = 1, .max_rows = 512};
    for (uint32_t i = 0; i < nodes; i++) {
        snprintf(r->names[i], sizeof r->names[i], "n%u", i);
        r->nodes[i] = (struct plan_node){.name = r->names[i], .group = -1, .n_devices = 1, .numerics = "cpu"};
        r->nodes[i].devices[0] = (struct plan_device){.name = "cpu", .memory_bytes = room[i] * 1000000000ull + 1000, .read_bps = 100e9,
                                                      .ops = {{1e15}, {1e15}, {1e15}}, .attn_ops = {1e15, 1e15, 1e15}, .group = -1};
    }
    for (uint32_t i = 0; i < (nodes + 1) * (nodes + 1); i++)
        r->links[i] = (struct plan_link){500, 1e9};
}

static struct random_input r;
static struct plan plan;
static struct err err;

static bool uses(uint32_t node)
{
    for (uint32_t i = 0; i < plan.n_stages; i++)
        if (plan.stages[i].node == node)
            return true;
    return false;
}

static void test_standby(void)
{
    simple(&r, 10, 3, (uint32_t[]){6, 6, 20});
    r.nodes[2].standby = true;
    ok(plan_make(&r.in, &plan, &err) == 0 && !uses(2) && !plan.used_standby, "who stands by is left out though alone it would be faster");
    is_int(plan.failover, FAILOVER_IDENTICAL, "with it a death goes unseen");
    r.nodes[2].numerics = "other";
    ok(plan_make(&r.in, &plan, &err) == 0 && plan.failover == FAILOVER_CONTINUING, "of another class: answers go on");
    r.nodes[2].away = true;
    ok(plan_make(&r.in, &plan, &err) == 0 && plan.failover == FAILOVER_NONE, "without it none could");
    r.nodes[2].away = false;
    r.nodes[1].away = true;
    ok(plan_make(&r.in, &plan, &err) == 0 && uses(2) && plan.used_standby, "when one is gone it is used");
}

static void test_resident(void)
{
    simple(&r, 12, 4, (uint32_t[]){6, 6, 6, 6});
    for (uint32_t i = 0; i < 3; i++)
        r.nodes[i + 1].devices[0].resident = (struct plan_range){4 * i, 4 * i + 4};
    r.in.use_resident = true;
    bool made = plan_make(&r.in, &plan, &err) == 0;
    ok(made && plan.load_bytes == 0, "a plan within 5%% that loads nothing (%llu bytes)", (unsigned long long)plan.load_bytes);
    ok(plan.n_stages == 3 && !uses(0), "the stages that are there stay, though two would save a hop");
    /* The middle one dies; a standby is there: it takes just that range. */
    r.nodes[2].away = true;
    r.nodes[0].standby = true;
    made = plan_make(&r.in, &plan, &err) == 0;
    ok(made && plan.load_bytes == 4000000000, "a lost node: its four layers are loaded (%llu bytes)", (unsigned long long)plan.load_bytes);
    ok(uses(0) && plan.stages[1].node == 0 && plan.stages[1].layers.first == 4 && plan.stages[1].layers.last == 8, "by the one that stood by");
    r.nodes[0].away = true;
    made = plan_make(&r.in, &plan, &err) == 0;
    ok(made && plan.load_bytes == 4000000000, "without it the neighbours share the four layers (%llu)", (unsigned long long)plan.load_bytes);
    /* A much faster node is worth loading for. */
    simple(&r, 12, 2, (uint32_t[]){12, 12});
    r.nodes[0].devices[0].resident = (struct plan_range){0, 12};
    r.nodes[1].devices[0].read_bps = 300e9;
    r.in.use_resident = true;
    ok(plan_make(&r.in, &plan, &err) == 0 && plan.stages[0].node == 1, "three times as fast: everything is loaded");
    r.nodes[1].devices[0].read_bps = 103e9;
    ok(plan_make(&r.in, &plan, &err) == 0 && plan.stages[0].node == 0 && plan.load_bytes == 0, "3%% faster: nothing is");
}

/* A node with two GPUs, which reach each other or do not, and its processors: 10 layers, 4 in each. A row is 16 KiB: 2 ms by a copy,
 * 0.5 ms straight. */
static void gpus_and_cpu(bool reach)
{
    simple(&r, 10, 1, (uint32_t[]){4});
    struct plan_node *n = &r.nodes[0];
    r.model.copy_bytes = 16384;
    n->n_devices = 3;
    n->devices[1] = n->devices[2] = n->devices[0];
    n->devices[0].memory_bytes = 2000001000; /* the processors have room for 2 */
    n->devices[1].name = "cuda:0";
    n->devices[2].name = "cuda:1";
    for (int d = 1; d <= 2; d++) {
        n->devices[d].copy_bps = n->devices[d].back_bps = 8192000;
        n->devices[d].peer_bps[3 - d] = reach ? 32768000 : 0;
    }
}

static void test_neighbours(void)
{
    static const double layers_us = 100000, ends_us = 2 * (500 + 64 / 1e9 * 1e6);
    static const struct plan_stage apart[] = {{.device = 1, .layers = {0, 4}}, {.device = 0, .layers = {4, 6}}, {.device = 2, .layers = {6, 10}}};
    static const enum plan_objective all[] = {PLAN_LATENCY, PLAN_BALANCED, PLAN_THROUGHPUT};
    for (int o = 0; o < PLAN_OBJECTIVES; o++) {
        gpus_and_cpu(true);
        r.in.objective = all[o];
        bool made = plan_make(&r.in, &plan, &err) == 0;
        ok(made && plan.n_stages == 3 && plan.stages[1].device != 0, "%s: the processors do not stand between two GPUs", plan_objective_name(all[o]));
    }
    r.in.objective = PLAN_LATENCY;
    ok(plan_make(&r.in, &plan, &err) == 0 && near(plan.value_us, layers_us + ends_us + 500 + 2000), "straight to the other GPU, one copy to or from the host");
    ok(plan_evaluate(&r.in, apart, 3, &plan, &err) == 0 && near(plan.value_us, layers_us + ends_us + 2 * 2000), "with them in between: two copies");
    gpus_and_cpu(false);
    ok(plan_make(&r.in, &plan, &err) == 0 && near(plan.value_us, layers_us + ends_us + 2 * 2000) && plan.stages[1].device == 0,
       "GPUs that do not reach each other: two copies, fewest with the processors in between");
    /* Two such nodes, 20 layers: what goes over the link leaves and comes by processors, if it can. */
    gpus_and_cpu(true);
    r.in.n_nodes = 2;
    r.nodes[1] = r.nodes[0];
    r.model.n_layers = 20;
    for (uint32_t l = 10; l < 20; l++)
        r.layers[l] = r.layers[0];
    for (uint32_t i = 0; i < 9; i++)
        r.links[i] = (struct plan_link){500, 1e9};
    ok(plan_make(&r.in, &plan, &err) == 0 && plan.n_stages == 6 && plan.stages[2].device == 0 && plan.stages[3].device == 0,
       "over a link from one node's processors to the other's");
    ok(near(plan.value_us, 2 * layers_us + ends_us + 500 + 16384 / 1e9 * 1e6 + 2 * (500 + 2000)), "so each node copies once between GPU and host");
}

/* Three workers of one thread on two processors: no more than two of them compute at a time. A row takes each 30 ms. */
static void test_processors(void)
{
    simple(&r, 9, 3, (uint32_t[]){3, 3, 3});
    r.groups[0] = (struct plan_group){"processors", 2, true};
    r.in.n_groups = 1;
    r.in.parallel = 6;
    for (uint32_t i = 0; i < 3; i++) {
        r.nodes[i].devices[0].group = 0;
        r.nodes[i].devices[0].processors = 1;
        r.nodes[i].devices[0].read_bps = 1e15;
        for (int k = 0; k < COST_ROWS; k++)
            r.nodes[i].devices[0].ops[k][0] = 1e11;
    }
    for (uint32_t i = 0; i < 16; i++)
        r.links[i] = (struct plan_link){0, 1e12};
    r.in.objective = PLAN_THROUGHPUT;
    bool made = plan_make(&r.in, &plan, &err) == 0;
    ok(made && plan.bottleneck == BOTTLENECK_GROUP && near(plan.tokens_per_s_n, 6 / (6 * 0.090 / 2)), "6 sequences, each 90 ms of one of two processors: %g tokens/s",
       plan.tokens_per_s_n);
    is_int(plan.m, 2, "two batches keep two processors busy");
    r.groups[0].bps = 3;
    ok(plan_make(&r.in, &plan, &err) == 0 && near(plan.tokens_per_s_n, 6 / (6 * 0.090 / 3)), "on three processors: as if each were alone");
}

static void test_errors(void)
{
    simple(&r, 10, 2, (uint32_t[]){4, 4});
    ok(plan_make(&r.in, &plan, &err) != 0 && err.kind == ERR_MEMORY, "too little memory");
    has_str(err.text, "1.9 GiB are missing (1999998000 bytes;", "says how much is missing, exactly");
    has_str(err.text, "n0 3.7 GiB, n1 3.7 GiB", "and what each node could hold");
    ok(plan_missing_bytes(&r.in) == 1999998000, "plan_missing_bytes");
    uint32_t little[30] = {0};
    for (int i = 0; i < 30; i++)
        little[i] = 1;
    simple(&r, 40, 30, little);
    ok(plan_make(&r.in, &plan, &err) != 0 && strstr(err.text, " more);") && !strstr(err.text, "…"), "many nodes: some are named, others counted: %s", err.text);
    simple(&r, 3, 3, (uint32_t[]){1, 1, 1});
    r.pins[0] = (struct plan_pin){.what = PIN_LAYERS, .layers = {0, 2}, .node = 0};
    r.in.n_pins = 1;
    ok(plan_make(&r.in, &plan, &err) != 0 && strstr(err.text, "with these pins"), "pins that do not fit: %s", err.text);
    r.in.n_pins = 0;
    r.in.n_nodes = 0;
    ok(plan_make(&r.in, &plan, &err) != 0 && err.kind == ERR_USAGE, "no nodes: %s", err.text);
    simple(&r, 3, 3, (uint32_t[]){3, 1, 1});
    r.in.parallel = 0;
    ok(plan_make(&r.in, &plan, &err) != 0 && err.kind == ERR_USAGE, "no sequences: %s", err.text);
    r.in.parallel = 1;
    struct plan_stage gap[] = {{.node = 0, .layers = {0, 1}}, {.node = 1, .layers = {2, 3}}};
    ok(plan_evaluate(&r.in, gap, 2, &plan, &err) != 0, "stages with a hole: %s", err.text);
    struct plan_stage twice[] = {{.node = 0, .layers = {0, 1}}, {.node = 1, .layers = {1, 2}}, {.node = 0, .layers = {2, 3}}};
    ok(plan_evaluate(&r.in, twice, 3, &plan, &err) != 0 && strstr(err.text, "a device has one"), "two stages on one device: %s", err.text);
    struct plan_stage tight[] = {{.node = 1, .layers = {0, 3}}};
    ok(plan_evaluate(&r.in, tight, 1, &plan, &err) != 0 && err.kind == ERR_MEMORY, "stages that do not fit: %s", err.text);
}

static void test_advice(void)
{
    struct plan_advice advice[PLAN_MAX_ADVICE];
    simple(&r, 10, 3, (uint32_t[]){10, 10, 10});
    r.nodes[0].devices[0].read_bps = 300e9;
    r.nodes[1].devices[0].read_bps = 10e9;
    r.nodes[2].standby = true;
    r.nodes[2].devices[0].read_bps = 600e9;
    ok(plan_make(&r.in, &plan, &err) == 0, "a plan");
    uint32_t n = plan_advise(&r.in, &plan, advice);
    bool drop = false, standby = false;
    for (uint32_t i = 0; i < n; i++) {
        drop |= strncmp(advice[i].text, "drop node n1: ", 14) == 0;
        standby |= strstr(advice[i].text, "with standby n2") != NULL;
    }
    ok(drop && standby, "advice: the slow one is dropped, the fast one should not stand by");
}

/* Helix' figures, FP16 LLaMA-70B: ms a layer and most layers of 4 A100, 8 L4, 12 T4. Its placement makes every layer's work wait
 * for machines that are busy elsewhere; a chain of 10, 2 and 2 layers has its slowest stage at 14.2 ms. */
static void test_helix(void)
{
    static const double ms[] = {1.4, 6.9, 7.1};
    static const uint32_t most[] = {12, 7, 4};
    uint32_t room[24];
    for (uint32_t i = 0; i < 24; i++)
        room[i] = most[i < 4 ? 0 : i < 12 ? 1 : 2];
    simple(&r, 80, 24, room);
    for (uint32_t i = 0; i < 24; i++) {
        double layer_ms = ms[i < 4 ? 0 : i < 12 ? 1 : 2];
        r.nodes[i].devices[0].read_bps = 1e9 / layer_ms * 1e3;
        for (int k = 0; k < COST_ROWS; k++)
            r.nodes[i].devices[0].ops[k][0] = 12 * 2 * 500e6 / layer_ms * 1e3; /* beyond 12 rows every row costs more */
    }
    for (uint32_t i = 0; i < 25 * 25; i++)
        r.links[i] = (struct plan_link){1000, 1.25e9};
    r.in.objective = PLAN_THROUGHPUT;
    r.in.parallel = 12 * 26;
    ok(plan_make(&r.in, &plan, &err) == 0 && plan.gap == 0, "Helix' 24 machines: a plan, proved best");
    struct cost_batch b = {.rows = 12, .wanted = 12, .seqs = 12};
    double slowest = cost_interval_us(&plan.costs, &b, NULL) / 1e3;
    tap_note("slowest stage %.2f ms: %.0f tokens/s in batches of 12; this plan %.0f tokens/s with %u batches of %.1f", slowest, 12 / slowest * 1e3,
             plan.tokens_per_s_n, plan.m, plan.n / (double)plan.m);
    ok(plan.tokens_per_s_n >= 0.97 * 12 / 14.2 * 1e3, "what a chain of 14.2 ms a stage gives in batches of 12: %.0f tokens/s", plan.tokens_per_s_n);
}

/* --- time ---------------------------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 16 different nodes in one LAN, 80 layers. Limits are ten times what is promised: other machines, other loads. */
static void test_time(void)
{
    static const double limit[] = {0.1, 0.5, 1};
    for (int o = 0; o < PLAN_OBJECTIVES; o++) {
        struct random_shape shape = {16, 1, 80, false, 2};
        random_input(&r, 5, &shape, (enum plan_objective)o);
        for (uint32_t i = 0; i < 17 * 17; i++)
            r.links[i] = (struct plan_link){250, 125e6};
        r.in.parallel = 16;
        double start = seconds();
        bool found = plan_make(&r.in, &plan, &err) == 0;
        double took = seconds() - start;
        tap_note("16 nodes, 80 layers, %s: %.0f ms, gap %g, %llu states", plan_objective_name((enum plan_objective)o), 1e3 * took, plan.gap,
                 (unsigned long long)plan.states);
#ifdef SC_SANITIZED
        took = 0;
#endif
        ok(found && took < 10 * limit[o], "%s of 16 nodes and 80 layers takes no time", plan_objective_name((enum plan_objective)o));
    }
}

/* Scarce memory, and one last node after another: the same plans. */
static void test_by_end(void)
{
    static struct random_input odd;
    static struct plan usual, by_end;
    uint32_t wrong = 0, fits = 0;
    for (uint32_t i = 0; i < 60; i++) {
        struct random_shape shape = {.nodes = 5 + i % 4, .devices = 1 + i % 3, .layers = 20, .uneven = i % 2, .room = 1.1 + 0.1 * (i % 5)};
        random_input(&odd, 4100 + i, &shape, i % 3 ? PLAN_LATENCY : i % 2 ? PLAN_BALANCED : PLAN_THROUGHPUT);
        odd.in.effort = 20000000;
        if (plan_make(&odd.in, &usual, &err) != 0)
            continue;
        odd.in.by_end = true;
        bool same = plan_make(&odd.in, &by_end, &err) == 0 && fabs(by_end.value_us - usual.value_us) <= 1e-6 * usual.value_us && by_end.gap == usual.gap;
        wrong += !same;
        fits++;
        if (!same)
            tap_note("seed %u: %.3f us (gap %g), by ends %.3f us (gap %g)", 4100 + i, usual.value_us, usual.gap, by_end.value_us, by_end.gap);
    }
    ok(wrong == 0 && fits > 30, "of %u plans where memory is scarce %u differ when last nodes are gone through one by one", fits, wrong);
}

/* Where the effort is spent before the proof, the plan is no better than the best, the bound no higher, and the gap says so. */
static void test_little_effort(void)
{
    static struct plan best;
    uint32_t wrong = 0, gaps = 0;
    for (int o = 0; o < PLAN_OBJECTIVES; o++)
        for (uint64_t i = 0; i < 12; i++) {
            struct random_shape shape = {6, 1, 16, true, 1.5};
            random_input(&r, 500 + i, &shape, (enum plan_objective)o);
            if (plan_make(&r.in, &best, &err) != 0)
                continue;
            r.in.effort = 2000;
            if (plan_make(&r.in, &plan, &err) != 0)
                continue;
            gaps += plan.gap > 0;
            wrong += plan.bound_us > best.value_us * (1 + 1e-6) || plan.value_us < best.value_us * (1 - 1e-6) ||
                     (plan.gap == 0 && plan.value_us > best.value_us * (1 + 1e-6));
        }
    ok(wrong == 0 && gaps > 0, "little effort: %u plans with a gap, %u wrong", gaps, wrong);
}

int main(void)
{
    test_by_end();
    test_little_effort();
    test_formulas();
    test_standby();
    test_resident();
    test_neighbours();
    test_processors();
    test_errors();
    test_advice();
    test_helix();
    test_time();
    return tap_done();
}
