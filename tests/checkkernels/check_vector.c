/* Norms, activations, rotary positions, softmax, exponentials. */
#include <math.h>
#include <string.h>

#include "tests/checkkernels/check.h"
#include "tests/tap.h"

static float *random_floats(struct rng *r, uint32_t n, float sd)
{
    float *x = guarded_alloc(n * sizeof *x);
    for (uint32_t i = 0; i < n; i++)
        x[i] = rng_normal(r) * sd;
    return x;
}

static float *copy_floats(const float *x, uint32_t n)
{
    float *y = guarded_alloc(n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static uint32_t next_length(uint32_t n)
{
    return n < 70 ? n + 1 : n + 61;
}

static void check_norm(struct check *c)
{
    int wrong = 0, cases = 0;
    for (uint32_t n = 1; n < 2000; n = next_length(n), cases++) {
        float sd = n % 7 == 0 ? 0 : n % 7 == 1 ? 1e-20f : n % 7 == 2 ? 1e15f : 1, eps = n % 2 ? 1e-5f : 1e-6f;
        float *x = random_floats(&c->rng, n, sd), *w = random_floats(&c->rng, n, 1), *want = copy_floats(x, n), *got = copy_floats(x, n);
        c->want->rms_norm(x, w, n, eps, want);
        c->k->rms_norm(x, w, n, eps, got);
        wrong += memcmp(got, want, n * sizeof *got) != 0;
        memcpy(got, x, n * sizeof *got);
        c->k->rms_norm(got, w, n, eps, got); /* in place */
        wrong += memcmp(got, want, n * sizeof *got) != 0;
        guarded_free(x, n * sizeof *x);
        guarded_free(w, n * sizeof *w);
        guarded_free(want, n * sizeof *want);
        guarded_free(got, n * sizeof *got);
    }
    is_int(wrong, 0, "%s: rms_norm of %d lengths", c->name, cases);
}

static void check_act(struct check *c)
{
    static const float scales[] = {0.01f, 1, 30, 1000};
    int wrong = 0, cases = 0;
    for (uint32_t n = 1; n < 2000; n = next_length(n), cases++) {
        enum activation act = n % 2 ? ACT_SILU : ACT_GELU;
        float *x = random_floats(&c->rng, n, scales[n % 4]), *up = random_floats(&c->rng, n, 1), *want = copy_floats(x, n);
        c->want->act_mul(act, want, up, n);
        c->k->act_mul(act, x, up, n);
        wrong += memcmp(x, want, n * sizeof *x) != 0;
        guarded_free(x, n * sizeof *x);
        guarded_free(up, n * sizeof *up);
        guarded_free(want, n * sizeof *want);
    }
    is_int(wrong, 0, "%s: silu and gelu of %d lengths", c->name, cases);
}

static void check_rope(struct check *c)
{
    int wrong = 0, cases = 0;
    for (uint32_t half = 1; half <= 128; half++, cases++) {
        uint32_t n = 2 * half + (half % 3 ? 0 : 10); /* dimensions behind the turned ones stay */
        struct rope rope = {.kind = half % 2 ? ROPE_PAIRS : ROPE_HALVES, .n_dims = 2 * half, .scale = 1};
        float *x = random_floats(&c->rng, n, 1), *want = copy_floats(x, n), *cos_ = random_floats(&c->rng, half, 1),
              *sin_ = random_floats(&c->rng, half, 1);
        for (int kind = 0; kind < 2; kind++) {
            rope.kind = kind ? ROPE_PAIRS : ROPE_HALVES;
            c->want->rope(want, &rope, cos_, sin_);
            c->k->rope(x, &rope, cos_, sin_);
            wrong += memcmp(x, want, n * sizeof *x) != 0;
        }
        guarded_free(x, n * sizeof *x);
        guarded_free(want, n * sizeof *want);
        guarded_free(cos_, half * sizeof *cos_);
        guarded_free(sin_, half * sizeof *sin_);
    }
    is_int(wrong, 0, "%s: rope, pairs and halves, of %d widths", c->name, cases);
}

static void check_softmax(struct check *c)
{
    static const float scales[] = {0, 0.1f, 3, 50, 1e30f};
    int wrong = 0, cases = 0;
    for (uint32_t n = 1; n < 1500; n = next_length(n), cases++) {
        float *x = random_floats(&c->rng, n, scales[n % 5]), *want = copy_floats(x, n);
        c->want->softmax(want, n);
        c->k->softmax(x, n);
        wrong += memcmp(x, want, n * sizeof *x) != 0;
        guarded_free(x, n * sizeof *x);
        guarded_free(want, n * sizeof *want);
    }
    is_int(wrong, 0, "%s: softmax of %d lengths", c->name, cases);
}

static void check_exps(struct check *c)
{
    static const float scales[] = {0, 0.1f, 3, 50, 1e30f}, temperatures[] = {1, 0.7f, 2, 1e-6f, 100, 1e-40f};
    int wrong = 0, cases = 0;
    for (uint32_t n = 1; n < 1500; n = next_length(n), cases++) {
        float *x = random_floats(&c->rng, n, scales[n % 5]), *want = copy_floats(x, n), *got = copy_floats(x, n), top = x[0];
        for (uint32_t i = 1; i < n; i++)
            top = fmaxf(top, x[i]);
        if (n % 3 == 0 && x[n / 2] != top)
            x[n / 2] = -INFINITY;
        float a = c->want->exps(x, n, top, temperatures[n % 6], want), b = c->k->exps(x, n, top, temperatures[n % 6], got);
        wrong += memcmp(got, want, n * sizeof *x) != 0 || memcmp(&a, &b, sizeof a) != 0;
        guarded_free(x, n * sizeof *x);
        guarded_free(want, n * sizeof *want);
        guarded_free(got, n * sizeof *got);
    }
    is_int(wrong, 0, "%s: exponentials and their sum of %d lengths", c->name, cases);
}

void check_vector(struct check *c)
{
    check_norm(c);
    check_act(c);
    check_rope(c);
    check_softmax(c);
    check_exps(c);
}
