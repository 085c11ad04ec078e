#ifndef KERNELS_CUDA_ROWS_CUH
#define KERNELS_CUDA_ROWS_CUH

/* What happens to rows between products: norms, quantizing, activations, heads, the router's choice, joining the residual. */

#include "kernels/cuda/quant.cuh"

enum { CHUNK = CUDA_ROW_THREADS * 4 };

/* 1 / rms of n floats, for a whole block of CUDA_ROW_THREADS. The sixteen lanes of the sum are sixteen threads; the others bring the next floats. */
DEVICE float row_scale(const float *x, uint32_t n, float eps)
{
    SHARED(float, chunk, CHUNK);
    SHARED(float, result, 1);
    float next[4], sum = 0;
    uint32_t tid = threadIdx.x;
#pragma unroll
    for (uint32_t j = 0; j < 4; j++)
        next[j] = tid + j * CUDA_ROW_THREADS < n ? x[tid + j * CUDA_ROW_THREADS] : 0;
    for (uint32_t at = 0; at < n; at += CHUNK) {
        __syncthreads();
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            chunk[tid + j * CUDA_ROW_THREADS] = next[j];
        __syncthreads();
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t k = at + CHUNK + tid + j * CUDA_ROW_THREADS;
            next[j] = k < n ? x[k] : 0;
        }
        if (tid < 16) {
            uint32_t here = n - at < CHUNK ? n - at : CHUNK;
            for (uint32_t k = tid; k < here; k += 16) {
                float v = chunk[k];
                sum = fmaf(v, v, sum);
            }
        }
    }
    if (tid < WARP) {
        sum = join_lanes(sum);
        if (tid == 0)
            result[0] = 1.0f / sqrtf(sum / (float)n + eps);
    }
    __syncthreads();
    return result[0];
}

/* A warp quantizes 32 floats, one a lane, to group `group` of row `row`. */
DEVICE void quantize_group(const cuda_acts &acts, uint32_t row, uint32_t groups, uint32_t group, float v)
{
    uint32_t e = threadIdx.x % WARP, most = (uint32_t)__float_as_int(v) & 0x7fffffffu;
    uint64_t at = ((uint64_t)(row / CUDA_TILE) * groups + group) * CUDA_TILE + row % CUDA_TILE;
    for (uint32_t apart = 16; apart >= 1; apart /= 2) { /* as integers magnitudes order like floats, with inf and NaN on top */
        uint32_t other = __shfl_xor_sync(FULL_WARP, most, apart);
        most = most > other ? most : other;
    }
    float amax = __int_as_float((int32_t)most), steps = acts.low ? 32512.0f : 127.0f;
    float scale = amax < 0x1p-100f ? 0.0f : amax / steps, inverse = amax < 0x1p-100f ? 0.0f : steps / amax;
    int32_t q = nearest(v * inverse);
    uint64_t byte = at * 32 + e % 16 / 4 * 8 + e / 16 * 4 + e % 4;
    if (acts.low) { /* 255: so that either part stays within 127 */
        int32_t high = (int8_t)(nearest((float)q * (1.0f / 255.0f)) & 0xff), low = (int8_t)((q - 255 * high) & 0xff);
        acts.low[byte] = (int8_t)low;
        acts.q[byte] = (int8_t)high;
        q = 255 * high + low;
    } else {
        q = (int8_t)(q & 0xff);
        acts.q[byte] = (int8_t)q;
    }
    int32_t sum = q;
    for (uint32_t apart = 1; apart <= 8; apart *= 2)
        sum += __shfl_xor_sync(FULL_WARP, sum, apart);
    int32_t all = sum + __shfl_xor_sync(FULL_WARP, sum, 16);
    if (e % 16 == 0)
        acts.sums16[at * 2 + e / 16] = scale * (float)sum;
    if (e == 0) {
        acts.scales[at * 2] = scale;
        acts.scales[at * 2 + 1] = scale * (float)all;
    }
}

/* A block a row. */
DEVICE void norm_row(const cuda_norm &a)
{
    uint32_t row = blockIdx.x;
    if (row >= *a.rows)
        return;
    const float *x = a.x + (uint64_t)(a.list ? a.list[row] : row) * a.embd;
    float *n = a.n + (uint64_t)row * a.embd;
    float scale = a.weight ? row_scale(x, a.embd, a.eps) : 1.0f;
    for (uint32_t k = threadIdx.x; k < (a.embd + WARP - 1) / WARP * WARP; k += CUDA_ROW_THREADS) {
        float v = k < a.embd ? x[k] : 0;
        if (a.weight && k < a.embd)
            v = v * scale * a.weight[k];
        if (k < a.embd)
            n[k] = v;
        if (a.acts.q)
            quantize_group(a.acts, row, a.embd / 32, k / 32, v);
        if (a.acts16.q)
            quantize_group(a.acts16, row, a.embd / 32, k / 32, v);
    }
}

/* Blocks: x rows, y spans of CUDA_ROW_THREADS columns. */
DEVICE void quantize_row(const cuda_quantize &a)
{
    uint32_t row = blockIdx.x, k = blockIdx.y * CUDA_ROW_THREADS + threadIdx.x;
    if (row >= *a.rows || k - threadIdx.x % WARP >= a.cols)
        return;
    uint32_t place = a.at ? a.at[row] : row;
    float *x = a.x + (uint64_t)place * a.cols, v = 0;
    if (k < a.cols) {
        v = a.from ? a.from[(uint64_t)(row / a.used) * a.cols + k] : x[k];
        if (a.up)
            v = (a.gelu ? sc_geluf(v) : sc_siluf(v)) * a.up[(uint64_t)place * a.cols + k];
        if (a.up || a.from)
            x[k] = v;
    }
    if (a.acts.q)
        quantize_group(a.acts, place, a.cols / 32, k / 32, v);
}

DEVICE void angle(const cuda_angles &a)
{
    uint32_t row = blockIdx.y, d = blockIdx.x * CUDA_THREADS + threadIdx.x;
    if (row >= *a.rows || d >= a.half)
        return;
    double s, c;
    sc_sincos((double)a.pos[row] * a.freq[d], &s, &c);
    a.cos_[(uint64_t)row * a.half + d] = (float)c * a.scale;
    a.sin_[(uint64_t)row * a.half + d] = (float)s * a.scale;
}

/* --- heads ----------------------------------------------------------------------------------------------------------------- */

/* Where things lie in a KV block: kernels.h, struct kv_layout. */
struct kv_place {
    uint64_t v, k_scale, v_scale, head_bytes;
    uint32_t k_groups, v_groups;
};

enum { KV_BLOCK_POSITIONS = 32, KV_T_F16 = 0, KV_T_F32 = 1, KV_T_Q8_0 = 2, ROPE_T_NONE = 0, ROPE_T_PAIRS = 1 };

DEVICE kv_place kv_place_of(uint32_t type, uint32_t dk, uint32_t dv)
{
    kv_place p = {};
    uint32_t width = type == KV_T_F32 ? 4 : type == KV_T_F16 ? 2 : 1;
    p.k_groups = (dk + 31) / 32;
    p.v_groups = (dv + 31) / 32;
    p.v = (uint64_t)dk * KV_BLOCK_POSITIONS * width;
    p.k_scale = p.v + (uint64_t)dv * KV_BLOCK_POSITIONS * width;
    p.v_scale = p.k_scale + (type == KV_T_Q8_0 ? p.k_groups * KV_BLOCK_POSITIONS * 2 : 0);
    p.head_bytes = p.v_scale + (type == KV_T_Q8_0 ? p.v_groups * KV_BLOCK_POSITIONS * 2 : 0);
    p.head_bytes = (p.head_bytes + (dv % 16 ? 64 : 0) + 63) / 64 * 64; /* the CPU's vectors may read that far */
    return p;
}

/* One float of a head for position `slot`; q8_0: whole warps, a group of 32 dimensions each. step: places between dimensions. */
DEVICE void store_kv(uint32_t type, uint8_t *to, uint64_t at, uint16_t *scale, float v, bool live)
{
    if (type == KV_T_F32) {
        if (live)
            ((float *)to)[at] = v;
    } else if (type == KV_T_F16) {
        if (live)
            ((uint16_t *)to)[at] = float_to_half(v);
    } else {
        float amax = live ? fabsf(v) : 0;
        for (uint32_t apart = 16; apart >= 1; apart /= 2) {
            float other = __shfl_xor_sync(FULL_WARP, amax, apart);
            amax = other > amax ? other : amax;
        }
        uint16_t half = float_to_half(amax / 127.0f);
        float s = half_to_float(half), inverse = s > 0 ? 1.0f / s : 0.0f;
        float x = v * inverse; /* the half may have been rounded down: keep within 127 */
        x = (x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x) + 12582912.0f;
        if (live)
            ((int8_t *)to)[at] = (int8_t)(__float_as_int(x) & 0xff);
        if (threadIdx.x % WARP == 0)
            *scale = half;
    }
}

/* Blocks: x heads of q, then of k, then of v; y rows. Norm and rotation of q and k; k and v go into the cache. */
DEVICE void head_of_row(const cuda_heads &a)
{
    SHARED(float, x, CUDA_HEAD_MAX);
    SHARED(float, result, 1);
    uint32_t row = blockIdx.y, head = blockIdx.x, tid = threadIdx.x;
    if (row >= *a.rows)
        return;
    bool is_q = head < a.n_heads, is_v = head >= a.n_heads + a.n_kv_heads;
    uint32_t kv_head = is_q ? 0 : is_v ? head - a.n_heads - a.n_kv_heads : head - a.n_heads, dim = is_v ? a.dv : a.dk;
    float *own = is_q ? a.q + ((uint64_t)row * a.n_heads + head) * a.dk : a.k + ((uint64_t)row * a.n_kv_heads + kv_head) * a.dk;
    const float *from = is_v ? a.v + ((uint64_t)row * a.n_kv_heads + kv_head) * a.dv : own;
    const float *weight = is_v ? NULL : is_q ? a.q_norm : a.k_norm;
    for (uint32_t d = tid; d < dim; d += CUDA_THREADS)
        x[d] = from[d];
    __syncthreads();
    if (weight) {
        if (tid < WARP) {
            float sum = 0;
            for (uint32_t d = tid; d < dim && tid < 16; d += 16) {
                float v = x[d];
                sum = fmaf(v, v, sum);
            }
            sum = join_lanes(sum);
            if (tid == 0)
                result[0] = 1.0f / sqrtf(sum / (float)dim + (is_q ? a.q_eps : a.k_eps));
        }
        __syncthreads();
        for (uint32_t d = tid; d < dim; d += CUDA_THREADS)
            x[d] = x[d] * result[0] * weight[d];
        __syncthreads();
    }
    if (!is_v && a.rope != ROPE_T_NONE) {
        uint32_t half = a.n_dims / 2, step = a.rope == ROPE_T_PAIRS ? 2 : 1, apart = a.rope == ROPE_T_PAIRS ? 1 : half;
        for (uint32_t i = tid; i < half; i += CUDA_THREADS) {
            float c = a.cos_[(uint64_t)row * half + i], s = a.sin_[(uint64_t)row * half + i], p = x[i * step], q = x[i * step + apart];
            x[i * step] = fmaf(p, c, -(q * s));
            x[i * step + apart] = fmaf(p, s, q * c);
        }
        __syncthreads();
    }
    if (is_q) {
        for (uint32_t d = tid; d < dim; d += CUDA_THREADS)
            own[d] = x[d];
        return;
    }
    kv_place place = kv_place_of(a.kv_type, a.dk, a.dv);
    uint32_t pos = a.pos[row], slot = pos % KV_BLOCK_POSITIONS;
    uint32_t block = a.table[(uint64_t)a.seq[row] * a.table_stride + pos / KV_BLOCK_POSITIONS];
    uint8_t *base = a.kv + block * a.block_bytes + kv_head * place.head_bytes;
    for (uint32_t d = tid; d < (dim + WARP - 1) / WARP * WARP; d += CUDA_THREADS) {
        bool live = d < dim;
        float v = live ? (float)x[d] : 0;
        if (is_v)
            store_kv(a.kv_type, base + place.v, (uint64_t)slot * a.dv + d, (uint16_t *)(base + place.v_scale) + slot * place.v_groups + d / 32, v, live);
        else
            store_kv(a.kv_type, base, (uint64_t)d * KV_BLOCK_POSITIONS + slot, (uint16_t *)(base + place.k_scale) + d / 32 * KV_BLOCK_POSITIONS + slot, v,
                     live);
    }
}

/* --- the residual, experts -------------------------------------------------------------------------------------------------- */

/* A block a row. */
DEVICE void join_row(const cuda_join &a)
{
    uint32_t row = blockIdx.x;
    if (row >= *a.rows)
        return;
    float *x = a.x + (uint64_t)row * a.embd, *t = a.t + (uint64_t)row * a.embd;
    for (uint32_t k = threadIdx.x; k < a.embd; k += CUDA_ROW_THREADS) {
        float v = 0;
        if (a.y)
            for (uint32_t rank = 0; rank < a.used; rank++)
                v = fmaf(a.choice_weight[row * a.used + rank], a.y[(uint64_t)a.at[row * a.used + rank] * a.embd + k], v);
        else
            v = t[k];
        if (a.bias)
            v = v + a.bias[k];
        if (a.weight)
            t[k] = v;
        else
            x[k] = x[k] + v;
    }
    if (!a.weight)
        return;
    __syncthreads(); /* t is read by others than wrote it */
    float scale = row_scale(t, a.embd, a.eps);
    for (uint32_t k = threadIdx.x; k < a.embd; k += CUDA_ROW_THREADS)
        x[k] = x[k] + t[k] * scale * a.weight[k];
}

/* A warp a row: the n_used best of the router's scores, best first, ties by index. */
DEVICE void choose_row(const cuda_choose &a)
{
    SHARED(float, score, CUDA_EXPERTS_MAX);
    uint32_t row = blockIdx.x, lane = threadIdx.x;
    if (row >= *a.rows)
        return;
    float *given = a.score + (uint64_t)row * a.n;
    if (a.sigmoid) {
        for (uint32_t i = lane; i < a.n; i += WARP)
            score[i] = 1.0f / (1.0f + sc_expf(-given[i]));
    } else {
        float max = -INFINITY, sum = 0;
        for (uint32_t i = lane; i < a.n; i += WARP)
            max = given[i] > max ? given[i] : max;
        for (uint32_t apart = 16; apart >= 1; apart /= 2) {
            float other = __shfl_xor_sync(FULL_WARP, max, apart);
            max = other > max ? other : max;
        }
        for (uint32_t i = lane; i < a.n; i += WARP)
            score[i] = sc_expf(given[i] - max);
        __syncwarp();
        for (uint32_t i = lane; i < a.n && lane < 16; i += 16)
            sum = sum + score[i];
        sum = __shfl_sync(FULL_WARP, join_lanes(sum), 0);
        __syncwarp();
        for (uint32_t i = lane; i < a.n; i += WARP)
            score[i] = score[i] / sum;
    }
    __syncwarp();
    float total = 0;
    for (uint32_t rank = 0; rank < a.n_used; rank++) {
        float best = -INFINITY;
        uint32_t at = a.n;
        for (uint32_t i = lane; i < a.n; i += WARP) {
            float v = score[i];
            if (v > best) {
                best = v;
                at = i;
            }
        }
        for (uint32_t apart = 16; apart >= 1; apart /= 2) {
            float other = __shfl_xor_sync(FULL_WARP, best, apart);
            uint32_t other_at = __shfl_xor_sync(FULL_WARP, at, apart);
            if (other > best || (other == best && other_at < at)) {
                best = other;
                at = other_at;
            }
        }
        if (at >= a.n) { /* scores that are no numbers: the CPU's loop stays at the first */
            at = 0;
            best = given[0];
        }
        total = total + best;
        __syncwarp();
        if (lane == 0) {
            a.expert[row * a.n_used + rank] = at;
            a.weight[row * a.n_used + rank] = best;
            score[at] = -INFINITY;
        }
        __syncwarp();
    }
    for (uint32_t rank = lane; rank < a.n_used; rank += WARP) {
        float w = a.weight[row * a.n_used + rank];
        if (a.normalize)
            w = w / total;
        if (a.scale != 0)
            w = w * a.scale;
        a.weight[row * a.n_used + rank] = w;
    }
}

/* One block: each expert's rows get places one after another, each expert begins a tile of its own. */
DEVICE void group_rows(const cuda_group &a)
{
    SHARED(uint32_t, count, CUDA_EXPERTS_MAX);
    SHARED(uint32_t, first, CUDA_EXPERTS_MAX);
    uint32_t spread = *a.spread;
    for (uint32_t e = threadIdx.x; e < a.n; e += CUDA_ROW_THREADS) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < spread; i++)
            n += a.expert[i] == e;
        count[e] = n;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t tile = 0, active = 0;
        for (uint32_t e = 0; e < a.n; e++) {
            uint32_t n = count[e];
            first[e] = tile;
            tile += (n + CUDA_TILE - 1) / CUDA_TILE;
            if (n)
                a.active[active++] = e;
        }
        a.active[a.n] = active;
    }
    __syncthreads();
    for (uint32_t e = threadIdx.x; e < a.n; e += CUDA_ROW_THREADS) {
        uint32_t place = first[e] * CUDA_TILE;
        a.first_tile[e] = first[e];
        a.count[e] = count[e];
        for (uint32_t i = 0; i < spread; i++)
            if (a.expert[i] == e)
                a.at[i] = place++;
    }
}

DEVICE void softcap_row(const cuda_softcap &a)
{
    uint32_t row = blockIdx.y, k = blockIdx.x * CUDA_ROW_THREADS + threadIdx.x;
    if (row >= *a.rows || k >= a.cols)
        return;
    float *x = a.x + (uint64_t)row * a.cols + k;
    *x = a.cap * sc_tanhf(*x / a.cap);
}

#endif
