/* Every level of kernels that this processor has, against the scalar one, which itself is held against a plain reference:
 *
 *     checkkernels [--isa LEVEL] [--seed N]
 *
 * Nothing given: all levels, seed 1 (or $SC_SEED). A failure is repeated with the seed that the first line prints. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/checkkernels/check.h"
#include "tests/tap.h"

static int usage(void)
{
    fprintf(stderr, "usage: checkkernels [--isa LEVEL] [--seed N]\n");
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

int main(int argc, char **argv)
{
    const char *isa = NULL, *env = getenv("SC_SEED"), *level;
    uint64_t seed = env ? strtoull(env, NULL, 0) : 1;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return usage();
        if (strcmp(argv[i], "--isa") == 0)
            isa = argv[i + 1];
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 0);
        else
            return usage();
    }
    tap_note("seed %llu", (unsigned long long)seed);
    int checked = 0;
    for (unsigned i = 0; (level = kernels_level(i)) != NULL; i++)
        if (!isa || strcmp(isa, level) == 0) {
            check_level(level, seed);
            checked++;
        }
    ok(checked > 0, "%s is a level", isa ? isa : "something");
    return tap_done();
}
