/* The KV cache's blocks and attention over them, scalar. */
#include "kernels/attend_blocks.h"
#include "kernels/fmath.h"
#include "kernels/scalar/scalar.h"

static char *kv_head_of(const struct kv_view *kv, const struct kv_layout *l, uint32_t block, uint32_t head)
{
    return (char *)kv->base + block * kv->block_bytes + head * l->head_bytes;
}

/* One group of up to 32 floats to 8 bits with a half scale; element i goes to q + i * step. */
static uint16_t store_q8(const float *x, uint32_t n, int8_t *q, size_t step)
{
    float amax = 0;
    for (uint32_t i = 0; i < n; i++)
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    uint16_t half = sc_f32_to_f16(amax / 127.0f);
    float scale = sc_f16_to_f32(half), inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        float t = x[i] * inverse; /* the half may have been rounded down: keep within 127 */
        t = (t > 127.0f ? 127.0f : t < -127.0f ? -127.0f : t) + 12582912.0f;
        uint32_t bits;
        memcpy(&bits, &t, sizeof bits);
        q[i * step] = (int8_t)(bits & 0xFF);
    }
    return half;
}

static void kv_store(const struct attention *a, const struct kv_view *kv, uint32_t block, uint32_t slot, const float *k, const float *v)
{
    struct kv_layout l = kv_layout_of(a, kv->type);
    uint32_t dk = a->head_dim_k, dv = a->head_dim_v;
    for (uint32_t h = 0; h < a->n_kv_heads; h++, k += dk, v += dv) {
        char *head = kv_head_of(kv, &l, block, h);
        if (kv->type == KV_F32) {
            float *K = (float *)(head + l.k), *V = (float *)(head + l.v);
            for (uint32_t d = 0; d < dk; d++)
                K[d * KV_BLOCK + slot] = k[d];
            memcpy(V + slot * dv, v, dv * sizeof *v);
        } else if (kv->type == KV_F16) {
            uint16_t *K = (uint16_t *)(head + l.k), *V = (uint16_t *)(head + l.v);
            for (uint32_t d = 0; d < dk; d++)
                K[d * KV_BLOCK + slot] = sc_f32_to_f16(k[d]);
            for (uint32_t d = 0; d < dv; d++)
                V[slot * dv + d] = sc_f32_to_f16(v[d]);
        } else {
            int8_t *K = (int8_t *)(head + l.k), *V = (int8_t *)(head + l.v);
            uint16_t *ks = (uint16_t *)(head + l.k_scale), *vs = (uint16_t *)(head + l.v_scale);
            for (uint32_t g = 0; g < l.k_groups; g++)
                ks[g * KV_BLOCK + slot] = store_q8(k + 32 * g, dk - 32 * g < 32 ? dk - 32 * g : 32, K + 32 * g * KV_BLOCK + slot, KV_BLOCK);
            for (uint32_t g = 0; g < l.v_groups; g++)
                vs[slot * l.v_groups + g] = store_q8(v + 32 * g, dv - 32 * g < 32 ? dv - 32 * g : 32, V + slot * dv + 32 * g, 1);
        }
    }
}

/* q . K for the positions [from, to] of one block. q8_0: each group of 32 dimensions on its own, times its scale. */
static void scores_of_block(const struct attend_job *job, const struct kv_layout *l, const char *head, const float *q, uint32_t from,
                            uint32_t to, float *s)
{
    uint32_t dk = job->attn->head_dim_k;
    for (uint32_t p = from; p <= to; p++) {
        float acc = 0;
        if (job->kv->type == KV_F32) {
            const float *K = (const float *)(head + l->k) + p;
            for (uint32_t d = 0; d < dk; d++)
                acc = fmaf(q[d], K[d * KV_BLOCK], acc);
        } else if (job->kv->type == KV_F16) {
            const uint16_t *K = (const uint16_t *)(head + l->k) + p;
            for (uint32_t d = 0; d < dk; d++)
                acc = fmaf(q[d], sc_f16_to_f32(K[d * KV_BLOCK]), acc);
        } else {
            const int8_t *K = (const int8_t *)(head + l->k) + p;
            const uint16_t *scale = (const uint16_t *)(head + l->k_scale) + p;
            for (uint32_t g = 0; g < l->k_groups; g++) {
                float part = 0;
                for (uint32_t d = 32 * g; d < dk && d < 32 * g + 32; d++)
                    part = fmaf(q[d], (float)K[d * KV_BLOCK], part);
                acc = fmaf(part, sc_f16_to_f32(scale[g * KV_BLOCK]), acc);
            }
        }
        s[p - from] = acc;
    }
}

/* o += weight * V for one position. q8_0: the weight meets the scale first. */
static void add_value(const struct attend_job *job, const struct kv_layout *l, const char *head, uint32_t p, float weight, float *o)
{
    uint32_t dv = job->attn->head_dim_v;
    if (job->kv->type == KV_F32) {
        const float *V = (const float *)(head + l->v) + p * dv;
        for (uint32_t d = 0; d < dv; d++)
            o[d] = fmaf(weight, V[d], o[d]);
    } else if (job->kv->type == KV_F16) {
        const uint16_t *V = (const uint16_t *)(head + l->v) + p * dv;
        for (uint32_t d = 0; d < dv; d++)
            o[d] = fmaf(weight, sc_f16_to_f32(V[d]), o[d]);
    } else {
        const int8_t *V = (const int8_t *)(head + l->v) + p * dv;
        const uint16_t *scale = (const uint16_t *)(head + l->v_scale) + p * l->v_groups;
        for (uint32_t d = 0; d < dv; d++)
            o[d] = fmaf(weight * sc_f16_to_f32(scale[d / 32]), (float)V[d], o[d]);
    }
}

/* One head over the positions [from, to] of one tile: maximum, sum of weights, weighted values. */
static void attend_tile(const struct attend_job *job, const struct kv_layout *l, const float *q, uint32_t from, uint32_t to, float *s,
                        float *ret_m, float *ret_l, float *o)
{
    const struct attention *a = job->attn;
    float m = -INFINITY, lanes[LANES] = {0};

    for (uint32_t p = from; p <= to; p = p / KV_BLOCK * KV_BLOCK + KV_BLOCK) {
        uint32_t last = p / KV_BLOCK * KV_BLOCK + KV_BLOCK - 1;
        const char *head = kv_head_of(job->kv, l, job->table[p / KV_BLOCK], job->kv_head);
        last = last < to ? last : to;
        scores_of_block(job, l, head, q, p % KV_BLOCK, last % KV_BLOCK, s + (p - from));
    }
    for (uint32_t i = 0; i <= to - from; i++) {
        s[i] *= a->scale;
        if (a->softcap != 0)
            s[i] = a->softcap * sc_tanhf(s[i] / a->softcap);
        m = s[i] > m ? s[i] : m;
    }
    memset(o, 0, a->head_dim_v * sizeof *o);
    for (uint32_t p = from; p <= to; p++) {
        float weight = sc_expf(s[p - from] - m);
        lanes[p % LANES] += weight;
        add_value(job, l, kv_head_of(job->kv, l, job->table[p / KV_BLOCK], job->kv_head), p % KV_BLOCK, weight, o);
    }
    *ret_m = m;
    *ret_l = scalar_join_lanes(lanes);
}

static void attend_head(const struct attend_job *job, const struct kv_layout *l, uint32_t pos, const float *q, float *out)
{
    uint32_t dv = job->attn->head_dim_v;
    float *s = job->scratch, *o = s + ATTENTION_TILE, m = -INFINITY, sum = 0;

    memset(out, 0, dv * sizeof *out);
    for (uint32_t from = attend_first(job->attn, pos); from <= pos;) {
        uint32_t to = from / ATTENTION_TILE * ATTENTION_TILE + ATTENTION_TILE - 1;
        float tile_m, tile_sum;
        to = to < pos ? to : pos;
        attend_tile(job, l, q, from, to, s, &tile_m, &tile_sum, o);
        join_tile(dv, tile_m, tile_sum, o, &m, &sum, out);
        from = to + 1;
    }
    for (uint32_t d = 0; d < dv; d++)
        out[d] /= sum;
}

/* Each tile and head by itself. */
static void attend_parts(const struct attend_job *job, const struct kv_layout *l)
{
    const struct attention *a = job->attn;
    uint32_t heads = a->n_heads / a->n_kv_heads, first = attend_first(a, job->pos);
    for (uint32_t i = 0; i < job->n_tiles * heads; i++) {
        uint32_t from = (job->tile + i / heads) * ATTENTION_TILE, to = from + ATTENTION_TILE - 1;
        float *part = job->parts + (size_t)i * (a->head_dim_v + 2);
        from = from > first ? from : first;
        to = to < job->pos ? to : job->pos;
        attend_tile(job, l, job->q + (size_t)(i % heads) * a->head_dim_k, from, to, job->scratch, &part[0], &part[1], part + 2);
    }
}

static void attend_join(const struct attend_job *job, float *m, float *l, bool begin, bool end)
{
    join_parts(job, m, l, begin, end);
}

static void attend(const struct attend_job *job)
{
    const struct attention *a = job->attn;
    struct kv_layout l = kv_layout_of(a, job->kv->type);
    if (job->parts) {
        attend_parts(job, &l);
        return;
    }
    for (uint32_t r = 0; r < job->n_rows; r++)
        for (uint32_t h = 0; h < a->n_heads / a->n_kv_heads; h++)
            attend_head(job, &l, job->pos + r, job->q + r * job->q_stride + (size_t)h * a->head_dim_k,
                        job->out + r * job->out_stride + (size_t)h * a->head_dim_v);
}

void scalar_init_attention(struct kernels *k)
{
    k->kv_store = kv_store;
    k->attend = attend;
    k->attend_join = attend_join;
}
