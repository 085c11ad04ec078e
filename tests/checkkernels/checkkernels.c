/* Every level of kernels that this processor has, against the scalar one, which itself is held against a plain reference:
 *
 *     checkkernels [--isa LEVEL] [--seed N]
 *     checkkernels --bench [--isa LEVEL] [--filter NAME]
 *
 * Nothing given: all levels, seed 1 (or $SC_SEED). A failure is repeated with the seed that the first line prints. --bench
 * measures instead; --filter takes what stands in a kernel's name, such as mat/Q4_K, attend or /512. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/checkkernels/bench.h"
#include "tests/checkkernels/check.h"
#include "tests/tap.h"

static int usage(void)
{
    fprintf(stderr, "usage: checkkernels [--isa LEVEL] [--seed N]\n       checkkernels --bench [--isa LEVEL] [--filter NAME]\n");
    return 2;
}

static void check_level(const char *level, uint64_t seed)
{
    struct kernels k, want = {0};
    struct err err;
    struct check c = {.name = level, .k = &k, .want = &want};
    if (kernels_select(level, &k, &err) != 0) {
        ok(false, "%s: %s", level, err.text);
        return;
    }
    if (strcmp(k.isa, level) != 0) {
        tap_skip("%s: this processor has %s at most", level, k.isa);
        return;
    }
    if (strcmp(level, "scalar") == 0)
        reference_init(&want);
    else
        kernels_init_scalar(&want);
    void (*const checks[])(struct check *) = {check_mat, check_vector, check_attention};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        c.rng.state = seed; /* each check alone repeats */
        checks[i](&c);
    }
}

static void check_levels(const char *isa, uint64_t seed)
{
    const char *level;
    int checked = 0;
    tap_note("seed %llu", (unsigned long long)seed);
    for (unsigned i = 0; (level = kernels_level(i)) != NULL; i++)
        if (!isa || strcmp(isa, level) == 0) {
            check_level(level, seed);
            checked++;
        }
    ok(checked > 0, "%s is a level", isa ? isa : "something");
}

int main(int argc, char **argv)
{
    const char *isa = NULL, *filter = NULL, *env = getenv("SC_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 0) : 1;
    bool bench = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0) {
            bench = true;
            continue;
        }
        if (i + 1 == argc)
            return usage();
        if (strcmp(argv[i], "--isa") == 0)
            isa = argv[++i];
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--filter") == 0)
            filter = argv[++i];
        else
            return usage();
    }
    if (filter && !bench)
        return usage();
    if (bench)
        bench_run(isa, filter);
    else
        check_levels(isa, seed);
    return tap_done();
}
