/* The kernels against the truth: what the same operation gives in double from the real values. checkkernels tells whether two
 * versions agree to the bit; this tells whether they are right. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "kernels/fmath.h"
#include "tests/checkkernels/data.h"
#include "tests/tap.h"

static struct kernels k;

/* --- products ----------------------------------------------------------------------------------------------------------- */

/* How far a product may be off: half a step of each activation's 8 bits times its weight, and the rounding of the sums. */
static double allowed(const float *w, const float *x, uint32_t n, bool quantized)
{
    double sum = 0, bound = 0;
    for (uint32_t g = 0; g < n; g += ACT_GROUP) {
        double most = 0, weights = 0;
        for (uint32_t i = g; i < n && i < g + ACT_GROUP; i++) {
            most = fmax(most, fabs((double)x[i]));
            weights += fabs((double)w[i]);
            sum += fabs((double)w[i] * (double)x[i]);
        }
        bound += quantized ? weights * most / 127 * 0.501 : 0;
    }
    return bound + sum * 3e-6;
}

static void test_products(void)
{
    struct rng r = {5};
    for (uint32_t t = 0; data_next_type(&t); t++) {
        bool quantized = quant_traits(t)->block > 1;
        uint32_t rows = 40, cols = quantized ? 1024 : 1023, n = 9;
        struct weight w = data_weight(&r, (enum quant_type)t, rows, cols, 1, 0.05f), packed = data_weight_packed(&r, &k, &w);
        struct acts x = data_acts(&r, n, cols, 1, k.act_tile);
        float *wide = malloc(cols * sizeof *wide), *out = malloc((size_t)n * rows * sizeof *out);
        double worst = 0, off = 0, size = 0, mean = 0, square = 0;
        for (uint32_t i = 0; i < n && quantized; i++)
            k.quantize(&x, i);
        k.mat[packed.layout][t](&packed, 0, 0, rows, &x, out, rows);
        for (uint32_t j = 0; j < rows; j++) {
            k.row[packed.layout][t](&packed, j, wide);
            for (uint32_t i = 0; i < cols; i++) {
                mean += (double)wide[i] / (rows * cols);
                square += (double)wide[i] * (double)wide[i] / (rows * cols);
            }
            for (uint32_t i = 0; i < n; i++) {
                const float *f = x.f + (size_t)i * cols;
                double truth = 0;
                for (uint32_t c = 0; c < cols; c++)
                    truth += (double)wide[c] * (double)f[c];
                double error = fabs((double)out[(size_t)i * rows + j] - truth);
                worst = fmax(worst, error / allowed(wide, f, cols, quantized));
                off += error * error;
                size += truth * truth;
            }
        }
        ok(worst <= 1, "%s: every product within its bound (largest %.3f of it)", quant_traits(t)->name, worst);
        ok(sqrt(off / size) < (quantized ? 0.008 : 1e-6), "%s: products are off by %.2g of their size", quant_traits(t)->name, sqrt(off / size));
        ok(fabs(mean) < 0.02 && sqrt(square) > 0.02 && sqrt(square) < 0.1, "%s: the data are what they should be: mean %.3g, deviation %.3g",
           quant_traits(t)->name, mean, sqrt(square));
        free(wide);
        free(out);
        data_acts_free(&x);
        data_weight_free(&packed);
        data_weight_free(&w);
    }
}

static void test_quantize(void)
{
    struct rng r = {6};
    struct acts x = data_acts(&r, 4, 64, 1, k.act_tile);
    float *f = (float *)(uintptr_t)x.f;
    for (uint32_t i = 0; i < 64; i++) {
        f[i] = i < 32 ? 0 : 1e-38f;
        f[64 + i] = i < 32 ? 1e-38f : -3e38f;
        f[128 + i] = i == 3 ? NAN : 1;
        f[192 + i] = i == 40 ? -INFINITY : 1;
    }
    for (uint32_t i = 0; i < 4; i++)
        k.quantize(&x, i);
    size_t zeros = act_at(&x, 0, 0), tiny = act_at(&x, 0, 1), huge = act_at(&x, 1, 1);
    ok(x.scale[zeros] == 0 && x.sum[zeros] == 0 && x.q[32 * zeros] == 0, "a group of zeros has scale 0");
    ok(x.scale[tiny] == 0 && x.q[32 * tiny] == 0, "numbers near 1e-38 count as zeros");
    ok(x.scale[act_at(&x, 1, 0)] == 0, "in every row");
    ok(isfinite(x.scale[huge]) && x.q[32 * huge] == -127 && x.q[32 * huge + 31] == -127, "3e38 is -127 steps");
    struct weight file = data_weight(&r, QUANT_Q8_0, 3, 64, 1, 1), w = data_weight_packed(&r, &k, &file);
    float out[4 * 3];
    k.mat[w.layout][QUANT_Q8_0](&w, 0, 0, 3, &x, out, 3);
    int hidden = 0;
    for (int i = 6; i < 12; i++)
        hidden += isfinite(out[i]) != 0;
    is_int(hidden, 0, "products with NaN or inf are no finite numbers: a broken model shows");
    ok(out[0] == 0, "a row of zeros beside them gives 0");
    data_weight_free(&w);
    data_weight_free(&file);
    data_acts_free(&x);
}

/* --- vectors ------------------------------------------------------------------------------------------------------------ */

static void test_vectors(void)
{
    enum { N = 777 };
    struct rng r = {7};
    float x[N], w[N], y[N];
    double square = 0, worst = 0, sum = 0, most = -1e300;
    for (int i = 0; i < N; i++) {
        x[i] = rng_normal(&r) * 5;
        w[i] = rng_normal(&r);
        square += (double)x[i] * (double)x[i];
        most = fmax(most, (double)x[i]);
    }
    k.rms_norm(x, w, N, 1e-5f, y);
    for (int i = 0; i < N; i++)
        worst = fmax(worst, fabs((double)y[i] - (double)x[i] / sqrt(square / N + 1e-5) * (double)w[i]));
    ok(worst < 3e-6, "rms_norm: within 3e-6 (%.2g)", worst);

    memcpy(y, x, sizeof y);
    k.softmax(y, N);
    for (int i = 0; i < N; i++)
        sum += exp((double)x[i] - most);
    worst = 0;
    for (int i = 0; i < N; i++)
        worst = fmax(worst, fabs((double)y[i] * sum / exp((double)x[i] - most) - 1));
    ok(worst < 2e-6, "softmax: within 2e-6 of each value (%.2g)", worst);

    memcpy(y, x, sizeof y);
    k.act_mul(ACT_SILU, y, w, N);
    worst = 0;
    for (int i = 0; i < N; i++)
        worst = fmax(worst, fabs((double)y[i] - (double)x[i] / (1 + exp(-(double)x[i])) * (double)w[i]));
    ok(worst < 5e-6, "silu times up: within 5e-6 (%.2g)", worst);
    memcpy(y, x, sizeof y);
    k.act_mul(ACT_GELU, y, w, N);
    worst = 0;
    for (int i = 0; i < N; i++) {
        double v = (double)x[i], g = 0.5 * v * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
        worst = fmax(worst, fabs((double)y[i] - g * (double)w[i]));
    }
    ok(worst < 5e-6, "gelu times up: within 5e-6 (%.2g)", worst);
}

/* Turning by an angle: complex multiplication of (x[a], x[b]). */
static void test_rope(void)
{
    enum { DIM = 80, TURNED = 64, HALF = TURNED / 2 };
    struct rng r = {8};
    float x[DIM], c[HALF], s[HALF], y[DIM];
    double worst = 0;
    for (int kind = 0; kind < 2; kind++) {
        struct rope rope = {.kind = kind ? ROPE_PAIRS : ROPE_HALVES, .n_dims = TURNED, .scale = 1};
        for (int i = 0; i < DIM; i++)
            x[i] = y[i] = rng_normal(&r);
        for (int i = 0; i < HALF; i++) {
            double angle = 3 * (double)rng_unit(&r);
            c[i] = (float)cos(angle);
            s[i] = (float)sin(angle);
        }
        k.rope(y, &rope, c, s);
        for (int i = 0; i < HALF; i++) {
            int a = kind ? 2 * i : i, b = kind ? 2 * i + 1 : i + HALF;
            worst = fmax(worst, fabs((double)y[a] - ((double)x[a] * (double)c[i] - (double)x[b] * (double)s[i])));
            worst = fmax(worst, fabs((double)y[b] - ((double)x[a] * (double)s[i] + (double)x[b] * (double)c[i])));
        }
        is_mem(y + TURNED, x + TURNED, (DIM - TURNED) * sizeof *y, "%s: dimensions behind the turned ones stay", kind ? "pairs" : "halves");
    }
    ok(worst < 1e-6, "rope: within 1e-6 (%.2g)", worst);
}

/* --- attention ---------------------------------------------------------------------------------------------------------- */

enum { POSITIONS = 600 };

struct text {
    struct attention attn;
    struct kv_view kv;
    uint32_t table[POSITIONS / KV_BLOCK + 1];
    float *keys, *values; /* positions × KV heads × dims, as given to kv_store */
};

static void make_text(struct rng *r, struct text *t)
{
    const struct attention *a = &t->attn;
    uint32_t nk = a->n_kv_heads * a->head_dim_k, nv = a->n_kv_heads * a->head_dim_v;
    t->kv.n_blocks = POSITIONS / KV_BLOCK + 1;
    t->kv.block_bytes = kv_layout_of(a, t->kv.type).head_bytes * a->n_kv_heads;
    t->kv.base = guarded_alloc(t->kv.n_blocks * t->kv.block_bytes);
    t->keys = malloc((size_t)POSITIONS * nk * sizeof *t->keys);
    t->values = malloc((size_t)POSITIONS * nv * sizeof *t->values);
    for (uint32_t i = 0; i < POSITIONS * nk; i++)
        t->keys[i] = rng_normal(r);
    for (uint32_t i = 0; i < POSITIONS * nv; i++)
        t->values[i] = rng_normal(r);
    for (uint32_t b = 0; b < t->kv.n_blocks; b++)
        t->table[b] = t->kv.n_blocks - 1 - b;
    for (uint32_t p = 0; p < POSITIONS; p++)
        k.kv_store(a, &t->kv, t->table[p / KV_BLOCK], p % KV_BLOCK, t->keys + (size_t)p * nk, t->values + (size_t)p * nv);
}

/* One head over [first, last] in double from the unrounded keys and values. */
static void truth_of_head(const struct text *t, uint32_t kv_head, const float *q, uint32_t first, uint32_t last, double *out)
{
    const struct attention *a = &t->attn;
    double weight[POSITIONS], most = -1e300, sum = 0;
    for (uint32_t p = first; p <= last; p++) {
        const float *key = t->keys + ((size_t)p * a->n_kv_heads + kv_head) * a->head_dim_k;
        double s = 0;
        for (uint32_t d = 0; d < a->head_dim_k; d++)
            s += (double)q[d] * (double)key[d];
        s *= (double)a->scale;
        weight[p] = a->softcap != 0 ? (double)a->softcap * tanh(s / (double)a->softcap) : s;
        most = fmax(most, weight[p]);
    }
    for (uint32_t p = first; p <= last; p++)
        sum += weight[p] = exp(weight[p] - most);
    for (uint32_t d = 0; d < a->head_dim_v; d++) {
        out[d] = 0;
        for (uint32_t p = first; p <= last; p++)
            out[d] += weight[p] / sum * (double)t->values[((size_t)p * a->n_kv_heads + kv_head) * a->head_dim_v + d];
    }
}

static double worst_of_spans(struct rng *r, const struct text *t)
{
    static const uint32_t spans[][2] = {{0, 0}, {0, 31}, {0, 32}, {0, 255}, {0, 256}, {0, 599}, {200, 300}, {256, 256}, {255, 256}, {31, 32}, {500, 599}};
    struct attention windowed = t->attn, *a = &windowed;
    uint32_t group = a->n_heads / a->n_kv_heads;
    float *q = malloc(group * a->head_dim_k * sizeof *q), *out = malloc(group * a->head_dim_v * sizeof *out);
    float *scratch = aligned_alloc(64, (attend_scratch_floats(a->head_dim_k, a->head_dim_v) * sizeof *scratch + 63) / 64 * 64);
    double truth[256], worst = 0;
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++)
        for (uint32_t h = 0; h < a->n_kv_heads; h++) {
            for (uint32_t d = 0; d < group * a->head_dim_k; d++)
                q[d] = rng_normal(r);
            a->window = spans[i][1] - spans[i][0] + 1;
            struct attend_job job = {.attn = a, .kv = &t->kv, .table = t->table, .kv_head = h, .n_rows = 1, .pos = spans[i][1], .q = q,
                                     .out = out, .scratch = scratch};
            k.attend(&job);
            for (uint32_t g = 0; g < group; g++) {
                truth_of_head(t, h, q + g * a->head_dim_k, spans[i][0], spans[i][1], truth);
                for (uint32_t d = 0; d < a->head_dim_v; d++)
                    worst = fmax(worst, fabs((double)out[g * a->head_dim_v + d] - truth[d]));
            }
        }
    free(q);
    free(out);
    free(scratch);
    return worst;
}

static void test_attention(void)
{
    static const uint32_t dims[][2] = {{64, 64}, {80, 80}, {96, 96}, {128, 128}, {256, 256}, {64, 128}, {192, 128}};
    static const struct {
        enum kv_type type;
        const char *name;
        double bound;
    } types[] = {{KV_F32, "f32", 1e-5}, {KV_F16, "f16", 2e-3}, {KV_Q8_0, "q8_0", 4e-2}};
    struct rng r = {9};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
            struct text t = {.attn = {.n_heads = 6, .n_kv_heads = 2, .head_dim_k = dims[d][0], .head_dim_v = dims[d][1], .softcap = d % 3 == 2 ? 4 : 0},
                             .kv = {.type = types[i].type}};
            t.attn.scale = 1 / sqrtf((float)dims[d][0]);
            make_text(&r, &t);
            double worst = worst_of_spans(&r, &t);
            ok(worst < types[i].bound, "attend over %s, heads of %u and %u: within %g (%.2g)", types[i].name, dims[d][0], dims[d][1], types[i].bound, worst);
            guarded_free(t.kv.base, t.kv.n_blocks * t.kv.block_bytes);
            free(t.keys);
            free(t.values);
        }
}

/* A cap is reached or passed over; what is taken unasked is among what the processor is said to have. */
static void test_caps(void)
{
    struct kernels other, best;
    struct err err = {0};
    struct strbuf here;
    strbuf_init(&here, 256);
    kernels_present(&here);
    has_str(strbuf_str(&here), "scalar", "every processor has the scalar level");
    kernels_select(NULL, &best, &err);
    has_str(strbuf_str(&here), best.isa, "the level taken unasked is one that this processor is said to have");
    for (unsigned i = 0; kernels_level(i); i++) {
        bool at_most = false;
        is_int(kernels_select(kernels_level(i), &other, &err), 0, "the cap %s", kernels_level(i));
        for (unsigned j = 0; j <= i; j++)
            at_most = at_most || strcmp(other.isa, kernels_level(j)) == 0;
        ok(at_most && other.mat[other.layout[QUANT_Q4_K]][QUANT_Q4_K], "gives a table, of %s", other.isa);
        if (!strstr(strbuf_str(&here), kernels_level(i)))
            tap_note("%s: this processor lacks it", kernels_level(i));
        else
            is_str(other.isa, kernels_level(i), "which the processor has");
    }
    strbuf_fini(&here);
}

static void test_select(void)
{
    struct kernels other;
    struct err err = {0};
    is_int(kernels_select("scalar", &other, &err), 0, "the scalar level is there");
    is_str(other.isa, "scalar", "and is called so");
    is_int(kernels_select("z80", &other, &err), -1, "an unknown level is an error");
    has_str(err.text, "z80", "that names it");
    for (unsigned i = 0; kernels_level(i); i++)
        has_str(err.text, kernels_level(i), "and %s among the known", kernels_level(i));
}

int main(void)
{
    struct err err;
    if (!ok(kernels_select(NULL, &k, &err) == 0, "kernels"))
        return tap_done();
    tap_note("isa %s", k.isa);
    test_select();
    test_caps();
    test_products();
    test_quantize();
    test_vectors();
    test_rope();
    test_attention();
    return tap_done();
}
