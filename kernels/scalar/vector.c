/* Norms, activations, rotary positions, softmax: scalar. */
#include "kernels/fmath.h"
#include "kernels/scalar/scalar.h"

static void rms_norm(const float *x, const float *w, uint32_t n, float eps, float *out)
{
    float lanes[LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % LANES] = fmaf(x[i], x[i], lanes[i % LANES]);
    float scale = 1.0f / sqrtf(scalar_join_lanes(lanes) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static void act_mul(enum activation act, float *gate, const float *up, uint32_t n)
{
    if (act == ACT_SILU)
        for (uint32_t i = 0; i < n; i++)
            gate[i] = sc_siluf(gate[i]) * up[i];
    else
        for (uint32_t i = 0; i < n; i++)
            gate[i] = sc_geluf(gate[i]) * up[i];
}

static void rope(float *x, const struct rope *rope_, const float *cos_, const float *sin_)
{
    uint32_t half = rope_->n_dims / 2;
    uint32_t step = rope_->kind == ROPE_PAIRS ? 2 : 1, apart = rope_->kind == ROPE_PAIRS ? 1 : half;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i * step], b = x[i * step + apart];
        x[i * step] = fmaf(a, cos_[i], -(b * sin_[i]));
        x[i * step + apart] = fmaf(a, sin_[i], b * cos_[i]);
    }
}

static void softmax(float *x, uint32_t n)
{
    float max = x[0], lanes[LANES] = {0};
    for (uint32_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = sc_expf(x[i] - max);
        lanes[i % LANES] += x[i];
    }
    float sum = scalar_join_lanes(lanes);
    for (uint32_t i = 0; i < n; i++)
        x[i] /= sum;
}

static float exps(const float *x, uint32_t n, float top, float temperature, float *out)
{
    float lanes[LANES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        out[i] = sc_expf((x[i] - top) / temperature);
        lanes[i % LANES] += out[i];
    }
    return scalar_join_lanes(lanes);
}

void scalar_init_vector(struct kernels *k)
{
    k->rms_norm = rms_norm;
    k->act_mul = act_mul;
    k->rope = rope;
    k->softmax = softmax;
    k->exps = exps;
}
