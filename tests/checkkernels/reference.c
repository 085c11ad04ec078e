/* docs/numerics.md once more, as plainly as can be: no tiles, no chunks, nothing kept between steps. Only the unfolding of
 * quantized blocks is the kernels' own; test_quant holds that against another implementation. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fmath.h"
#include "tests/checkkernels/check.h"

/* The sum of terms that belong to lanes by index. */
static float join(const float *lane)
{
    float eight[8], four[4], two[2];
    for (int i = 0; i < 8; i++)
        eight[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        four[i] = eight[i] + eight[i + 4];
    for (int i = 0; i < 2; i++)
        two[i] = four[i] + four[i + 2];
    return two[0] + two[1];
}

static float ref_dot(const float *a, const float *b, uint32_t n)
{
    float lane[16];
    for (uint32_t l = 0; l < 16; l++) {
        lane[l] = 0;
        for (uint32_t i = l; i < n; i += 16)
            lane[l] = fmaf(a[i], b[i], lane[l]);
    }
    return join(lane);
}

static void ref_quantize(struct acts *x, uint32_t r)
{
    for (uint32_t g = 0; g < x->k / 32; g++) {
        const float *f = x->f + r * x->f_stride + 32 * g;
        size_t at = act_at(x, r, g);
        float largest = 0;
        int half[2] = {0, 0};
        for (int i = 0; i < 32; i++)
            largest = fmaxf(largest, fabsf(f[i]));
        bool zero = largest < 0x1p-100f;
        float most = x->low ? 32512 : 127, a = zero ? 0 : largest / most;
        for (int i = 0; i < 32; i++) {
            int q = zero ? 0 : (int)nearbyintf(f[i] * (most / largest));
            half[i / 16] += q;
            if (x->low) { /* q = 255 * high + low, both of at most 127 */
                int low = (q % 255 + 255 + 127) % 255 - 127;
                x->low[32 * at + (size_t)i] = (int8_t)low;
                q = (q - low) / 255;
            }
            x->q[32 * at + (size_t)i] = (int8_t)q;
        }
        x->scale[at] = a;
        x->sum[at] = a * (float)(half[0] + half[1]);
        x->sum16[2 * at] = a * (float)half[0];
        x->sum16[2 * at + 1] = a * (float)half[1];
        x->isum[2 * at] = half[0];
        x->isum[2 * at + 1] = half[1];
        x->isum32[at] = half[0] + half[1];
    }
}

static void ref_row(const struct weight *w, uint32_t j, float *out)
{
    const struct quant_decoder *dec = &quant_decoders[w->type];
    const uint8_t *row = (const uint8_t *)w->data + j * w->row_bytes;
    if (dec->group == 0) {
        for (uint32_t i = 0; i < w->cols; i++) {
            uint16_t h;
            if (w->type == QUANT_F32) {
                memcpy(&out[i], row + 4 * (size_t)i, 4);
                continue;
            }
            memcpy(&h, row + 2 * (size_t)i, 2);
            out[i] = w->type == QUANT_F16 ? sc_f16_to_f32(h) : sc_bf16_to_f32(h);
        }
        return;
    }
    const struct quant_traits *t = quant_traits(w->type);
    int8_t q[256];
    float scale[16], min[16];
    for (uint32_t b = 0; b < w->cols / t->block; b++) {
        dec->decode(row + (size_t)b * t->bytes, 1, q, scale, min);
        for (uint32_t i = 0; i < t->block; i++) {
            float v = scale[i / dec->group] * (float)q[i];
            out[b * t->block + i] = dec->has_min ? v + min[i / dec->group] : v;
        }
    }
}

static float one_product(const struct weight *w, const uint8_t *row, const struct acts *x, uint32_t r)
{
    const struct quant_decoder *dec = &quant_decoders[w->type];
    const struct quant_traits *t = quant_traits(w->type);
    int8_t q[256];
    float scale[16], min[16], acc = 0;
    for (uint32_t b = 0; b < w->cols / t->block; b++) {
        dec->decode(row + (size_t)b * t->bytes, 1, q, scale, min);
        for (uint32_t g = 0; g < t->block / dec->group; g++) {
            uint32_t k = b * t->block + g * dec->group; /* the group's first column */
            size_t at = act_at(x, r, k / 32);
            int sum = 0;
            for (uint32_t i = 0; i < dec->group; i++)
                sum += q[g * dec->group + i] * (x->low ? 255 * x->q[32 * at + k % 32 + i] + x->low[32 * at + k % 32 + i] : x->q[32 * at + k % 32 + i]);
            acc = fmaf((float)sum, scale[g] * x->scale[at], acc);
            if (dec->has_min)
                acc = fmaf(min[g], dec->group == 32 ? x->sum[at] : x->sum16[2 * at + k % 32 / 16], acc);
        }
    }
    return acc;
}

static void ref_mat(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out, size_t out_stride)
{
    const uint8_t *matrix = (const uint8_t *)w->data + mat * w->mat_bytes;
    float *wide = malloc(w->cols * sizeof *wide);
    for (uint32_t j = row0; wide && j < row1; j++) {
        struct weight one = *w;
        one.data = matrix;
        if (!quant_decoders[w->type].group)
            ref_row(&one, j, wide);
        for (uint32_t r = 0; r < x->rows; r++)
            out[r * out_stride + j] = quant_decoders[w->type].group ? one_product(w, matrix + j * w->row_bytes, x, r)
                                                                     : ref_dot(wide, x->f + r * x->f_stride, w->cols);
    }
    free(wide);
}

static void ref_rms_norm(const float *x, const float *w, uint32_t n, float eps, float *out)
{
    float scale = 1 / sqrtf(ref_dot(x, x, n) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static void ref_act_mul(enum activation act, float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        gate[i] = (act == ACT_SILU ? sc_siluf(gate[i]) : sc_geluf(gate[i])) * up[i];
}

static void ref_rope(float *x, const struct rope *rope, const float *cos_, const float *sin_)
{
    for (uint32_t i = 0; i < rope->n_dims / 2; i++) {
        float *a = rope->kind == ROPE_PAIRS ? x + 2 * i : x + i, *b = rope->kind == ROPE_PAIRS ? a + 1 : a + rope->n_dims / 2;
        float x0 = *a, x1 = *b;
        *a = fmaf(x0, cos_[i], -(x1 * sin_[i]));
        *b = fmaf(x0, sin_[i], x1 * cos_[i]);
    }
}

static void ref_softmax(float *x, uint32_t n)
{
    float most = -INFINITY, lane[16] = {0};
    for (uint32_t i = 0; i < n; i++)
        most = fmaxf(most, x[i]);
    for (uint32_t i = 0; i < n; i++) {
        x[i] = sc_expf(x[i] - most);
        lane[i % 16] += x[i];
    }
    float sum = join(lane);
    for (uint32_t i = 0; i < n; i++)
        x[i] /= sum;
}

static float ref_exps(const float *x, uint32_t n, float top, float temperature, float *out)
{
    float lane[16] = {0};
    for (uint32_t i = 0; i < n; i++) {
        out[i] = sc_expf((x[i] - top) / temperature);
        lane[i % 16] += out[i];
    }
    return join(lane);
}

/* --- the cache ---------------------------------------------------------------------------------------------------------- */

static char *head_at(const struct attention *a, const struct kv_view *kv, uint32_t block, uint32_t head)
{
    return (char *)kv->base + block * kv->block_bytes + head * kv_layout_of(a, kv->type).head_bytes;
}

/* One dimension of one position: writes an element (and a q8_0 group's scale). */
static void put(enum kv_type type, char *part, size_t at, float v, float scale)
{
    if (type == KV_F32)
        ((float *)part)[at] = v;
    else if (type == KV_F16)
        ((uint16_t *)part)[at] = sc_f32_to_f16(v);
    else
        ((int8_t *)part)[at] = (int8_t)nearbyintf(fminf(fmaxf(scale > 0 ? v * (1 / scale) : 0, -127), 127));
}

static uint16_t group_scale(const float *x, uint32_t dims, uint32_t g)
{
    float largest = 0;
    for (uint32_t d = 32 * g; d < dims && d < 32 * g + 32; d++)
        largest = fmaxf(largest, fabsf(x[d]));
    return sc_f32_to_f16(largest / 127);
}

static void ref_kv_store(const struct attention *a, const struct kv_view *kv, uint32_t block, uint32_t slot, const float *k, const float *v)
{
    struct kv_layout l = kv_layout_of(a, kv->type);
    for (uint32_t h = 0; h < a->n_kv_heads; h++) {
        char *head = head_at(a, kv, block, h);
        const float *kh = k + h * a->head_dim_k, *vh = v + h * a->head_dim_v;
        for (uint32_t d = 0; d < a->head_dim_k; d++) {
            uint16_t s = group_scale(kh, a->head_dim_k, d / 32);
            put(kv->type, head + l.k, d * 32 + slot, kh[d], sc_f16_to_f32(s));
            if (kv->type == KV_Q8_0)
                ((uint16_t *)(head + l.k_scale))[d / 32 * 32 + slot] = s;
        }
        for (uint32_t d = 0; d < a->head_dim_v; d++) {
            uint16_t s = group_scale(vh, a->head_dim_v, d / 32);
            put(kv->type, head + l.v, slot * a->head_dim_v + d, vh[d], sc_f16_to_f32(s));
            if (kv->type == KV_Q8_0)
                ((uint16_t *)(head + l.v_scale))[slot * l.v_groups + d / 32] = s;
        }
    }
}

static float get(enum kv_type type, const char *part, size_t at)
{
    return type == KV_F32 ? ((const float *)part)[at] : type == KV_F16 ? sc_f16_to_f32(((const uint16_t *)part)[at]) : ((const int8_t *)part)[at];
}

static float score(const struct attend_job *job, const float *q, uint32_t pos)
{
    const struct attention *a = job->attn;
    struct kv_layout l = kv_layout_of(a, job->kv->type);
    const char *head = head_at(a, job->kv, job->table[pos / 32], job->kv_head);
    float s = 0;
    if (job->kv->type == KV_Q8_0) {
        for (uint32_t g = 0; 32 * g < a->head_dim_k; g++) {
            float part = 0;
            for (uint32_t d = 32 * g; d < a->head_dim_k && d < 32 * g + 32; d++)
                part = fmaf(q[d], get(KV_Q8_0, head + l.k, d * 32 + pos % 32), part);
            s = fmaf(part, get(KV_F16, head + l.k_scale, g * 32 + pos % 32), s);
        }
    } else {
        for (uint32_t d = 0; d < a->head_dim_k; d++)
            s = fmaf(q[d], get(job->kv->type, head + l.k, d * 32 + pos % 32), s);
    }
    s *= a->scale;
    return a->softcap != 0 ? a->softcap * sc_tanhf(s / a->softcap) : s;
}

static void add_values(const struct attend_job *job, uint32_t pos, float weight, float *o)
{
    const struct attention *a = job->attn;
    struct kv_layout l = kv_layout_of(a, job->kv->type);
    const char *head = head_at(a, job->kv, job->table[pos / 32], job->kv_head);
    for (uint32_t d = 0; d < a->head_dim_v; d++) {
        float w = weight;
        if (job->kv->type == KV_Q8_0)
            w = weight * get(KV_F16, head + l.v_scale, pos % 32 * l.v_groups + d / 32);
        o[d] = fmaf(w, get(job->kv->type, head + l.v, pos % 32 * a->head_dim_v + d), o[d]);
    }
}

static void ref_attend(const struct attend_job *job)
{
    const struct attention *a = job->attn;
    uint32_t dv = a->head_dim_v, group = a->n_heads / a->n_kv_heads;
    for (uint32_t i = 0; i < job->n_rows * group; i++) {
        uint32_t row = i / group, h = i % group, last = job->pos + row, first = a->window && last >= a->window ? last - a->window + 1 : 0;
        const float *q = job->q + row * job->q_stride + h * a->head_dim_k;
        float *out = job->out + row * job->out_stride + h * dv, m = -INFINITY, sum = 0, o[1024], s[256];
        for (uint32_t d = 0; d < dv; d++)
            out[d] = 0;
        for (uint32_t tile = first / 256; tile <= last / 256; tile++) {
            uint32_t from = tile * 256 < first ? first : tile * 256, to = tile * 256 + 255 > last ? last : tile * 256 + 255;
            float tile_m = -INFINITY, lane[16] = {0};
            for (uint32_t d = 0; d < dv; d++)
                o[d] = 0;
            for (uint32_t p = from; p <= to; p++) {
                s[p % 256] = score(job, q, p);
                tile_m = fmaxf(tile_m, s[p % 256]);
            }
            for (uint32_t p = from; p <= to; p++) {
                float weight = sc_expf(s[p % 256] - tile_m);
                lane[p % 16] += weight;
                add_values(job, p, weight, o);
            }
            float both = fmaxf(m, tile_m), keep = sc_expf(m - both), add = sc_expf(tile_m - both);
            sum = fmaf(sum, keep, join(lane) * add);
            for (uint32_t d = 0; d < dv; d++)
                out[d] = fmaf(out[d], keep, o[d] * add);
            m = both;
        }
        for (uint32_t d = 0; d < dv; d++)
            out[d] /= sum;
    }
}

void reference_init(struct kernels *k)
{
    memset(k, 0, sizeof *k);
    k->isa = "reference";
    k->quantize = ref_quantize;
    k->rms_norm = ref_rms_norm;
    k->act_mul = ref_act_mul;
    k->rope = ref_rope;
    k->kv_store = ref_kv_store;
    k->attend = ref_attend;
    k->softmax = ref_softmax;
    k->exps = ref_exps;
    k->dot = ref_dot;
    k->act_tile = 7; /* any will do */
    k->act_tile16 = 5;
    for (uint32_t t = 0; data_next_type(&t); t++) {
        k->row[LAYOUT_FILE][t] = ref_row;
        k->mat[LAYOUT_FILE][t] = ref_mat;
    }
}
