/* How long planning takes: `bench_planner [NODES [LAYERS [INPUTS]]]`, processor time of one thread, by objective, over random
 * clusters: equal layers and uneven ones, roomy and tight memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/topology/random_input.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    static struct random_input r;
    static struct plan plan;
    uint32_t nodes = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 16, layers = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 80;
    uint32_t inputs = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 5;
    static const double rooms[] = {1.06, 1.5, 3, 12};
    if (nodes < 1 || nodes > PLAN_MAX_NODES || layers < 1 || layers > RANDOM_MAX_LAYERS)
        return 2;
    for (int o = 0; o < PLAN_OBJECTIVES; o++)
        for (int uneven = 0; uneven < 2; uneven++)
            for (size_t room = 0; room < sizeof rooms / sizeof *rooms; room++) {
                double sum = 0, most = 0, gap = 0, states = 0;
                uint32_t fits = 0;
                for (uint32_t i = 0; i < inputs; i++) {
                    struct random_shape shape = {nodes, 1, layers, uneven, rooms[room]};
                    struct err err;
                    random_input(&r, 77 + i, &shape, (enum plan_objective)o);
                    r.in.parallel = 16;
                    double start = seconds();
                    bool found = plan_make(&r.in, &plan, &err) == 0;
                    double took = seconds() - start;
                    fits += found;
                    sum += took;
                    most = took > most ? took : most;
                    gap = found && plan.gap > gap ? plan.gap : gap;
                    states += found ? (double)plan.states : 0;
                }
                printf("%-10s %u nodes %u layers %s room %5.2f: mean %7.1f ms, most %7.1f ms, %u of %u fit, largest gap %.4f, states %.0f\n",
                       plan_objective_name((enum plan_objective)o), nodes, layers, uneven ? "uneven" : "equal ", rooms[room],
                       1e3 * sum / inputs, 1e3 * most, fits, inputs, gap, states / inputs);
                fflush(stdout);
            }
    return 0;
}
