/* Rotary frequencies: base, linear scaling, YaRN (arXiv 2309.00071), factors from the file (Llama 3's rope_freqs, Phi-3's
 * long and short ones). Computed once for a stage, in double, by our own exp and log: the same everywhere. */
#include <math.h>

#include "kernels/fmath.h"
#include "model/arch.h"

/* The dimension whose wave turns n times within the original context. */
static double dim_of_turns(const struct rope_params *r, double base, double n)
{
    return r->n_dims * sc_log(r->original_ctx / (n * 6.28318530717958647693)) / (2 * sc_log(base));
}

/* How much of pair i is extrapolated (1) rather than interpolated (0). */
static double yarn_share(const struct rope_params *r, double base, uint32_t i)
{
    double low = floor(dim_of_turns(r, base, r->beta_fast)), high = ceil(dim_of_turns(r, base, r->beta_slow));
    low = low < 0 ? 0 : low;
    high = high > r->n_dims - 1.0 ? r->n_dims - 1.0 : high;
    double width = high - low < 0.001 ? 0.001 : high - low, y = (i - low) / width;
    return 1 - (y < 0 ? 0 : y > 1 ? 1 : y);
}

static double yarn_magnitude(double factor, double multiplier)
{
    return factor <= 1 ? 1 : 0.1 * multiplier * sc_log(factor) + 1;
}

void model_rope(const struct model_params *p, bool sliding, const float *factors, double *ret_freq, struct rope *ret)
{
    const struct rope_params *r = &p->rope;
    double base = sliding ? r->base_sliding : r->base, factor = sliding ? r->factor_sliding : r->factor;
    double scale = r->attn_factor;

    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        double freq = sc_exp(-2.0 * i / r->n_dims * sc_log(base));
        if (factors)
            freq /= factors[i];
        double slow = freq / factor;
        if (r->scaling == ROPE_SCALE_YARN) {
            double share = yarn_share(r, base, i);
            ret_freq[i] = slow * (1 - share) + freq * share;
        } else {
            ret_freq[i] = slow;
        }
    }
    if (r->scaling == ROPE_SCALE_YARN) {
        scale *= yarn_magnitude(factor, 1);
        if (r->log_multiplier != 0)
            scale /= yarn_magnitude(factor, r->log_multiplier);
    }
    *ret = (struct rope){.kind = r->n_dims ? p->arch->rope : ROPE_NONE, .n_dims = r->n_dims, .freq = ret_freq, .scale = (float)scale};
}
