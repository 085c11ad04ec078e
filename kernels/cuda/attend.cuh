#ifndef KERNELS_CUDA_ATTEND_CUH
#define KERNELS_CUDA_ATTEND_CUH

/* Attention over the paged cache, one query row and up to HEADS heads of a KV head in a block, by tiles of 256 absolute positions
 * (docs/numerics.md). Within a tile first a thread has two positions and goes over the head's dimensions; then a warp has a head
 * and makes weights of its scores; then a thread has a dimension and goes over the positions. Of wider heads than CUDA_HEAD_SPAN the
 * query comes into shared memory span by span, and each span of values is a block's own. A few rows: each tile is a block of
 * its own, its result goes to `partial`, and join_tiles puts them together, so that a long context is many blocks' work. Many
 * rows: a block walks its row's tiles. Either way the same order. */

#include "kernels/cuda/rows.cuh"

enum { TILE_POSITIONS = 256, DIMS_A_THREAD = CUDA_HEAD_SPAN / CUDA_THREADS };

/* Two neighbouring positions' element d of K, and one element of V. */
template <int KV> DEVICE float2 k_pair(const uint8_t *k, uint32_t d, uint32_t slot)
{
    uint32_t at = d * KV_BLOCK_POSITIONS + slot;
    if (KV == KV_T_F32)
        return __ldg((const float2 *)((const float *)k + at));
    if (KV == KV_T_F16) {
        uint32_t two = __ldg((const uint32_t *)((const uint16_t *)k + at));
        return make_float2(half_to_float((uint16_t)two), half_to_float((uint16_t)(two >> 16)));
    }
    uint16_t two = __ldg((const uint16_t *)(k + at));
    return make_float2((float)(int8_t)two, (float)(int8_t)(two >> 8));
}

struct tile_span {
    uint32_t tile, from, to; /* first position of the tile; positions seen */
};

/* Goes on with the scores of a thread's two positions over dimensions [from, to), for which q holds the query. */
template <int KV, int HEADS, class Q>
DEVICE void scores_of_span(const cuda_attend &a, const uint8_t *k, const kv_place &place, uint32_t slot, uint32_t heads, uint32_t from, uint32_t to, Q *q,
                           float acc[HEADS][2])
{
    for (uint32_t d0 = from; d0 < to; d0 += 32) {
        uint32_t end = to - d0 < 32 ? to : d0 + 32;
        float part[HEADS][2];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            part[h][0] = KV == KV_T_Q8_0 ? 0 : acc[h][0];
            part[h][1] = KV == KV_T_Q8_0 ? 0 : acc[h][1];
        }
#pragma unroll 8
        for (uint32_t d = d0; d < end; d++) {
            float2 kk = k_pair<KV>(k, d, slot);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float qq = h < (int)heads ? (float)q[h * CUDA_HEAD_SPAN + d - from] : 0;
                part[h][0] = fmaf(qq, kk.x, part[h][0]);
                part[h][1] = fmaf(qq, kk.y, part[h][1]);
            }
        }
        float2 scale = make_float2(0, 0);
        if (KV == KV_T_Q8_0) {
            const uint16_t *of = (const uint16_t *)(k + place.k_scale) + d0 / 32 * KV_BLOCK_POSITIONS + slot;
            scale = make_float2(half_to_float(of[0]), half_to_float(of[1]));
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            acc[h][0] = KV == KV_T_Q8_0 ? fmaf(part[h][0], scale.x, acc[h][0]) : part[h][0];
            acc[h][1] = KV == KV_T_Q8_0 ? fmaf(part[h][1], scale.y, acc[h][1]) : part[h][1];
        }
    }
}

/* Scores of the tile to `s` (HEADS × TILE_POSITIONS). query: of the first of the heads; q has it already where it is one span and
 * not fresh. */
template <int KV, int HEADS, class Q, class S>
DEVICE void scores_of_tile(const cuda_attend &a, const uint32_t *table, const kv_place &place, uint32_t kv_head, uint32_t heads, const tile_span &t,
                           const float *query, bool fresh, Q *q, S *s)
{
    uint32_t first = 2 * threadIdx.x, p = t.tile + first, slot = p % KV_BLOCK_POSITIONS;
    float acc[HEADS][2];
#pragma unroll
    for (int h = 0; h < HEADS; h++)
        acc[h][0] = acc[h][1] = 0;
    for (uint32_t from = 0; from < a.dk; from += CUDA_HEAD_SPAN) {
        uint32_t n = a.dk - from < CUDA_HEAD_SPAN ? a.dk - from : CUDA_HEAD_SPAN;
        __syncthreads();
        if (fresh || a.dk > CUDA_HEAD_SPAN) {
            for (uint32_t i = threadIdx.x; i < heads * n; i += CUDA_THREADS)
                q[i / n * CUDA_HEAD_SPAN + i % n] = query[(uint64_t)(i / n) * a.dk + from + i % n];
            __syncthreads();
        }
        if (p <= t.to && p + 1 >= t.from)
            scores_of_span<KV, HEADS>(a, a.kv + table[p / KV_BLOCK_POSITIONS] * a.block_bytes + kv_head * place.head_bytes, place, slot, heads, from, from + n, q,
                                      acc);
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++)
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            float v = acc[h][i] * a.scale;
            if (a.softcap != 0)
                v = a.softcap * sc_tanhf(v / a.softcap);
            s[h * TILE_POSITIONS + first + i] = p + i >= t.from && p + i <= t.to ? v : -INFINITY;
        }
}

/* A warp a head: scores to weights, their maximum and sum. */
template <class S, class R> DEVICE void weights_of_tile(uint32_t heads, S *s, R *ret_max, R *ret_sum)
{
    uint32_t lane = threadIdx.x % WARP;
    for (uint32_t h = threadIdx.x / WARP; h < heads; h += CUDA_THREADS / WARP) {
        float max = -INFINITY, sum = 0;
        for (uint32_t i = lane; i < TILE_POSITIONS; i += WARP) {
            float v = s[h * TILE_POSITIONS + i];
            max = v > max ? v : max;
        }
        for (uint32_t apart = 16; apart >= 1; apart /= 2) {
            float other = __shfl_xor_sync(FULL_WARP, max, apart);
            max = other > max ? other : max;
        }
        for (uint32_t i = lane; i < TILE_POSITIONS; i += WARP) /* of what is not seen: 0, which changes no sum */
            s[h * TILE_POSITIONS + i] = sc_expf(s[h * TILE_POSITIONS + i] - max);
        __syncwarp();
        for (uint32_t i = lane; i < TILE_POSITIONS && lane < 16; i += 16)
            sum = sum + s[h * TILE_POSITIONS + i];
        sum = join_lanes(sum);
        if (lane == 0) {
            ret_max[h] = max;
            ret_sum[h] = sum;
        }
    }
}

/* One dimension's weighted values of the tile, for all heads. */
template <int KV, int HEADS, class S>
DEVICE void values_of_tile(const cuda_attend &a, const uint32_t *table, const kv_place &place, uint32_t kv_head, const tile_span &t, uint32_t d, S *s, float o[HEADS])
{
#pragma unroll
    for (int h = 0; h < HEADS; h++)
        o[h] = 0;
    for (uint32_t from = t.from; from <= t.to;) {
        uint32_t end = from / KV_BLOCK_POSITIONS * KV_BLOCK_POSITIONS + KV_BLOCK_POSITIONS - 1;
        end = end < t.to ? end : t.to;
        const uint8_t *base = a.kv + table[from / KV_BLOCK_POSITIONS] * a.block_bytes + kv_head * place.head_bytes, *v = base + place.v;
#pragma unroll 8
        for (uint32_t p = from; p <= end; p++) {
            uint32_t slot = p % KV_BLOCK_POSITIONS, at = slot * a.dv + d;
            float value = KV == KV_T_F32 ? __ldg((const float *)v + at) : KV == KV_T_F16 ? half_to_float(__ldg((const uint16_t *)v + at)) : (float)(int8_t)v[at];
            float scale = KV == KV_T_Q8_0 ? half_to_float(((const uint16_t *)(base + place.v_scale))[slot * place.v_groups + d / 32]) : 0;
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float w = s[h * TILE_POSITIONS + p - t.tile];
                o[h] = fmaf(KV == KV_T_Q8_0 ? w * scale : w, value, o[h]);
            }
        }
        from = end + 1;
    }
}

/* The running result of some tiles: joins the next one's. */
DEVICE void join_tile(float tile_max, float tile_sum, float *max, float *sum, float *old, float *fresh)
{
    float both = *max > tile_max ? *max : tile_max;
    *old = sc_expf(*max - both);
    *fresh = sc_expf(tile_max - both);
    *sum = fmaf(*sum, *old, tile_sum * *fresh);
    *max = both;
}

/* Blocks: x KV heads × groups of HEADS of their heads × spans of values, y rows, z tiles (with partial). */
template <int KV, int HEADS> DEVICE void attend_row(const cuda_attend &a)
{
    SHARED(float, q, HEADS * CUDA_HEAD_SPAN);
    SHARED(float, s, HEADS * TILE_POSITIONS);
    SHARED(float, tile_max, HEADS);
    SHARED(float, tile_sum, HEADS);
    uint32_t row = blockIdx.y, group = a.n_heads / a.n_kv_heads, turns = (group + HEADS - 1) / HEADS;
    if (row >= *a.rows)
        return;
    uint32_t spans = (a.dv + CUDA_HEAD_SPAN - 1) / CUDA_HEAD_SPAN, d0 = blockIdx.x % spans * CUDA_HEAD_SPAN + threadIdx.x;
    uint32_t kv_head = blockIdx.x / spans / turns, turn = blockIdx.x / spans % turns * HEADS, head = kv_head * group + turn;
    uint32_t heads = group - turn < HEADS ? group - turn : HEADS, pos = a.pos[row];
    uint32_t first = a.window && pos >= a.window ? pos - a.window + 1 : 0;
    const uint32_t *table = a.table + (uint64_t)a.seq[row] * a.table_stride;
    kv_place place = kv_place_of(KV, a.dk, a.dv);
    uint32_t tile0 = first / TILE_POSITIONS, last_tile = pos / TILE_POSITIONS;
    if (a.partial) {
        tile0 += blockIdx.z;
        if (tile0 > last_tile)
            return;
        last_tile = tile0;
    }
    const float *query = a.q + ((uint64_t)row * a.n_heads + head) * a.dk;
    float max[HEADS], sum[HEADS], out[HEADS][DIMS_A_THREAD];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        max[h] = -INFINITY;
        sum[h] = 0;
#pragma unroll
        for (int i = 0; i < DIMS_A_THREAD; i++)
            out[h][i] = 0;
    }
    for (uint32_t n = tile0; n <= last_tile; n++) {
        tile_span t = {n * TILE_POSITIONS, n * TILE_POSITIONS, n * TILE_POSITIONS + TILE_POSITIONS - 1};
        t.from = t.from > first ? t.from : first;
        t.to = t.to < pos ? t.to : pos;
        scores_of_tile<KV, HEADS>(a, table, place, kv_head, heads, t, query, n == tile0, q, s);
        __syncthreads();
        weights_of_tile(HEADS, s, tile_max, tile_sum);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < DIMS_A_THREAD; i++) {
            uint32_t d = d0 + i * CUDA_THREADS;
            float o[HEADS];
            if (d >= a.dv)
                break;
            values_of_tile<KV, HEADS>(a, table, place, kv_head, t, d, s, o);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float m = max[h], l = sum[h], old, fresh;
                if (h >= (int)heads)
                    break;
                if (a.partial) {
                    out[h][i] = o[h];
                    continue;
                }
                join_tile(tile_max[h], tile_sum[h], &m, &l, &old, &fresh);
                out[h][i] = fmaf(out[h][i], old, o[h] * fresh);
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float old, fresh;
            if (!a.partial && h < (int)heads)
                join_tile(tile_max[h], tile_sum[h], &max[h], &sum[h], &old, &fresh);
        }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (h >= (int)heads)
            break;
        uint64_t at = (uint64_t)row * a.n_heads + head + h;
        float *to = a.partial ? a.partial + (at * a.max_tiles + blockIdx.z) * (a.dv + 2) : a.out + at * a.dv;
        if (a.partial && d0 == 0) {
            to[0] = tile_max[h];
            to[1] = tile_sum[h];
        }
#pragma unroll
        for (int i = 0; i < DIMS_A_THREAD; i++) {
            uint32_t d = d0 + i * CUDA_THREADS;
            if (d < a.dv)
                to[a.partial ? d + 2 : d] = a.partial ? out[h][i] : out[h][i] / sum[h];
        }
    }
}

/* Blocks: x heads, y rows. */
DEVICE void join_tiles(const cuda_attend &a)
{
    uint32_t row = blockIdx.y, head = blockIdx.x;
    if (row >= *a.rows)
        return;
    uint32_t pos = a.pos[row], first = a.window && pos >= a.window ? pos - a.window + 1 : 0;
    uint32_t tiles = pos / TILE_POSITIONS - first / TILE_POSITIONS + 1;
    uint64_t at = (uint64_t)row * a.n_heads + head;
    for (uint32_t d = threadIdx.x; d < a.dv; d += CUDA_THREADS) {
        float max = -INFINITY, sum = 0, out = 0;
        for (uint32_t n = 0; n < tiles; n++) {
            const float *from = a.partial + (at * a.max_tiles + n) * (a.dv + 2);
            float old, fresh;
            join_tile(from[0], from[1], &max, &sum, &old, &fresh);
            out = fmaf(out, old, from[d + 2] * fresh);
        }
        a.out[at * a.dv + d] = out / sum;
    }
}

#endif
