/* What scheduling costs: processor time per step of 256 sequences over 4 stages, and what each policy gets out of a simulated
 * pipeline. `bench_sched` prints both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sched/sched.h"
#include "tests/sched/sim.h"

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static struct sched_config config(uint32_t n_stages, uint32_t n_seqs, uint64_t weight_ns, uint64_t row_ns, uint64_t hop_ns)
{
    struct sched_config c = {.n_stages = n_stages, .max_seqs = n_seqs, .max_rows = 512, .ctx = 4096, .block = 32, .seed = 1};
    c.n_blocks[0] = n_seqs * 64;
    for (uint32_t s = 0; s < n_stages; s++)
        c.costs.stage[s] = (struct sched_stage_cost){.fixed_ns = 300000, .weight_ns = weight_ns, .row_ns = row_ns, .kv_ps = 20000};
    for (uint32_t s = 0; s <= n_stages; s++)
        c.costs.hop[s] = (struct sched_hop_cost){.latency_ns = hop_ns, .row_ns = 1000};
    return c;
}

struct under_way {
    uint64_t batch, seqs[512];
    uint32_t n;
};

/* Steps come back in order, as soon as no more may be under way; no pipeline is simulated, only the scheduler's time counts. */
static void add(struct sched *s, uint64_t now, uint64_t id, uint32_t n_prompt, uint64_t *seed)
{
    static int32_t tokens[4096];
    struct sched_seq q = {.id = id, .tokens = tokens, .n_prompt = n_prompt, .max_new = 3000};
    struct err err;
    for (uint32_t k = 0; k < n_prompt; k++)
        tokens[k] = (int32_t)sim_below(seed, 30000);
    if (sched_add(s, now, &q, &err) != 0)
        printf("%s\n", err.text);
}

static void cost(uint32_t n_seqs, uint32_t n_prompt, uint32_t mean_answer, const char *what)
{
    struct sched_config c = config(4, n_seqs, 10000000, 200000, 100000);
    struct err err = {0};
    struct sched *s = sched_create(&c, &err);
    static struct under_way ring[64];
    uint32_t first = 0, n = 0;
    uint64_t steps = 0, rows = 0, id = 0, seed = 7, preempted = 0;
    double spent = 0, start;
    while (id < n_seqs)
        add(s, 0, ++id, n_prompt, &seed);
    for (uint64_t round = 0; round < 20000; round++) {
        struct sched_action a;
        bool measured = round > 2000;
        start = now_us();
        while (sched_poll(s, round, &a)) {
            struct under_way *u = &ring[(first + n) % 64];
            preempted += a.kind == SCHED_PREEMPTED;
            if (a.kind != SCHED_STEP)
                continue;
            u->batch = a.step.batch;
            u->n = 0;
            for (uint32_t i = 0; i < a.step.n_rows; i++)
                if (a.step.rows[i].want == SCHED_WANT_SAMPLE)
                    u->seqs[u->n++] = a.step.rows[i].seq;
            n++;
            steps += measured;
            rows += measured ? a.step.n_rows : 0;
        }
        for (uint32_t i = 0; i < ring[first].n; i++)
            sched_token(s, round, ring[first].seqs[i], (int32_t)i, &err);
        sched_step_done(s, round, ring[first].batch, &err);
        spent += measured ? now_us() - start : 0;
        for (uint32_t i = 0; i < ring[first].n; i++)
            if (sim_below(&seed, mean_answer) == 0 && sched_finish(s, round, ring[first].seqs[i], &err) == 0)
                add(s, round, ++id, n_prompt, &seed);
        first = (first + 1) % 64;
        n--;
    }
    printf("%u sequences, 4 stages, %s: %.1f us a step of %.1f rows, %.0f ns a row (%llu steps, %llu preempted)\n", n_seqs, what,
           spent / (double)steps, (double)rows / (double)steps, spent * 1000 / (double)rows, (unsigned long long)steps, (unsigned long long)preempted);
    sched_destroy(s);
}

static void policy(const char *name, const char *what, struct sched_config c, uint32_t n, uint32_t n_prompt, uint32_t n_answer, uint64_t every_us)
{
    struct sim m;
    uint64_t seed = 3, first = 0, worst = 0;
    c.policy = name;
    sim_init(&m, &c, 1);
    for (uint32_t i = 0; i < n; i++) {
        struct sim_request *r = sim_request(&m, i * every_us, n_prompt, n_answer);
        for (uint32_t k = 0; k < n_prompt; k++)
            r->tokens[k] = (int32_t)sim_below(&seed, 30000);
    }
    if (!sim_run(&m))
        printf("wrong: %s\n", m.wrong);
    for (uint32_t i = 0; i < n; i++) {
        first += m.requests[i].first_us - m.requests[i].arrive_us;
        worst = m.requests[i].worst_gap_us > worst ? m.requests[i].worst_gap_us : worst;
    }
    printf("%-34s %-9s %7.1f tok/s, first token after %7.1f ms, longest gap %6.1f ms, %u under way\n", what, name,
           (double)n * n_answer / ((double)m.last_result_ns / 1e9), (double)first / n / 1e3, (double)worst / 1e3, m.max_in_flight);
    sim_fini(&m);
}

int main(void)
{
    cost(256, 64, 400, "decoding");
    cost(256, 1024, 100, "long prompts among them");
    cost(16, 64, 400, "decoding");
    for (size_t i = 0; sched_policies(i, NULL); i++) {
        const char *name = sched_policies(i, NULL);
        struct sched_config uneven = config(4, 32, 8000000, 400000, 300000);
        uneven.costs.stage[2].weight_ns = 20000000;
        policy(name, "2 stages, 16 x 128+64", config(2, 16, 16000000, 500000, 200000), 16, 128, 64, 0);
        policy(name, "4 stages, 32 x 512+128", config(4, 32, 8000000, 400000, 300000), 32, 512, 128, 0);
        policy(name, "4 stages, 1024+64 every 200 ms", config(4, 32, 8000000, 400000, 300000), 48, 1024, 64, 200000);
        policy(name, "4 uneven stages, 32 x 256+128", uneven, 32, 256, 128, 0);
        policy(name, "3 stages, hops of 20 ms, 16 x 64+64", config(3, 16, 10000000, 400000, 20000000), 16, 64, 64, 0);
    }
    return 0;
}
