#ifndef KERNELS_CUDA_MAT_CUH
#define KERNELS_CUDA_MAT_CUH

/* Products with quantized matrices, on tensor cores. An element of the result is one accumulator over the groups of K in
 * ascending order (docs/numerics.md), whichever kernel computes it; what may be done in any order, the integer sum within a
 * group, is all that the warps of a block share out.
 *
 * mat_small, 1 to 16 rows of activations: a block has a panel of 16 rows of weights. Its four warps take a pair of units each
 * of every super (256 k), so that a whole super is read at once, lines of 512 bytes; several supers are on their way. The sums
 * go to shared memory, where a thread for each element of the result adds them up in order, while the next super's sums are
 * made: one barrier a super.
 *
 * mat_prompt, many rows: a warp has a panel and 64 rows of activations, whose elements it keeps in registers from the first
 * group to the last. No barrier, no shared memory: activations come through the first-level cache, which a block's warps share.
 */

#include "kernels/cuda/quant.cuh"

/* The part that a panel belongs to. */
DEVICE const cuda_mat_part &part_of_panel(const cuda_mat &a, uint32_t panel)
{
    if (a.n_parts > 2 && panel >= a.part[2].first_panel)
        return a.part[2];
    return a.n_parts > 1 && panel >= a.part[1].first_panel ? a.part[1] : a.part[0];
}

/* Which rows of activations a block has to do with: tiles from *tile on, n rows there; and at which matrix. False: nothing. */
DEVICE bool rows_of_block(const uint32_t *rows, const uint32_t *active, const uint32_t *first_tile, const uint32_t *count, uint32_t n_experts,
                          uint32_t tiles_a_block, uint32_t *tile, uint32_t *n, uint32_t *mat)
{
    uint32_t skip = blockIdx.y * tiles_a_block, all;
    *mat = 0;
    *tile = skip;
    if (active) {
        if (blockIdx.z >= active[n_experts])
            return false;
        *mat = active[blockIdx.z];
        *tile += first_tile[*mat];
        all = count[*mat];
    } else {
        all = *rows;
    }
    if (skip * CUDA_TILE >= all)
        return false;
    *n = all - skip * CUDA_TILE;
    return true;
}

/* Sums of one unit of a panel against one tile: of the 32 k, or of 16 each with halves. As floats, exact or rounded once. */
template <bool HALVES>
DEVICE void unit_sums(const uint32_t a[4], const int8_t *q, const int8_t *low, uint32_t lane, bool live, float ret[2][4])
{
    uint2 b = make_uint2(0, 0);
    int32_t d[2][4] = {{MAGIC, MAGIC, MAGIC, MAGIC}, {MAGIC, MAGIC, MAGIC, MAGIC}};
    if (live)
        b = __ldg((const uint2 *)q + lane);
    if (HALVES) {
        mma_k16(d[0], a[0], a[1], b.x);
        mma_k16(d[1], a[2], a[3], b.y);
    } else {
        mma_k32(d[0], a, b.x, b.y);
    }
    if (!low) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            ret[0][i] = from_magic(d[0][i]);
            if (HALVES)
                ret[1][i] = from_magic(d[1][i]);
        }
        return;
    }
    int32_t e[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    b = make_uint2(0, 0);
    if (live)
        b = __ldg((const uint2 *)low + lane);
    if (HALVES) {
        mma_k16(e[0], a[0], a[1], b.x);
        mma_k16(e[1], a[2], a[3], b.y);
    } else {
        mma_k32(e[0], a, b.x, b.y);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        ret[0][i] = __int2float_rn(255 * (d[0][i] - MAGIC) + e[0][i]);
        if (HALVES)
            ret[1][i] = __int2float_rn(255 * (d[1][i] - MAGIC) + e[1][i]);
    }
}

DEVICE void put_result(const cuda_mat &a, const cuda_mat_part &p, uint32_t row, uint32_t col, float v)
{
    if (col >= p.rows)
        return;
    if (p.bias)
        v = v + p.bias[col];
    float *out = p.out + (uint64_t)row * p.out_stride + col;
    *out = a.add ? *out + v : v;
}

enum { MAT_AHEAD = 4 }; /* supers whose weights are on their way */

/* What a thread of mat_small has on its way of a super: its lane's part of the warp's pair, and the scales of its result's row. */
struct super_line {
    pair_line line;
    row_scales scales;
};

template <int TYPE> DEVICE void load_super(const uint8_t *ints, const uint8_t *scales, uint32_t super, uint32_t supers, uint32_t pairs, super_line *s)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    uint32_t warp = threadIdx.x / WARP, pair = super * 4 + warp;
    if (super >= supers)
        return;
    if (pair < pairs)
        load_pair<TYPE>(ints + (uint64_t)pair * CUDA_PAIR_BYTES(f), threadIdx.x % WARP, &s->line);
    load_scales<TYPE>(scales + (uint64_t)super * CUDA_SUPER_BYTES(f), threadIdx.x / CUDA_TILE, &s->scales);
}

/* A thread's element: the groups of one super in order. */
template <int TYPE, int HALVES>
DEVICE float add_groups(const cuda_acts &acts, uint64_t group, uint32_t units, const row_scales &scales, const float *sums, float acc)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    uint32_t r = threadIdx.x % CUDA_TILE;
#pragma unroll
    for (int u = 0; u < CUDA_SUPER; u++) {
        if (u >= (int)units)
            break;
        float2 s = __ldg((const float2 *)acts.scales + (group + u) * CUDA_TILE + r);
        float2 s16 = make_float2(s.y, 0);
        if (HALVES == 2 && f.has_min)
            s16 = __ldg((const float2 *)acts.sums16 + (group + u) * CUDA_TILE + r);
#pragma unroll
        for (int h = 0; h < HALVES; h++) {
            acc = fmaf(sums[u * HALVES + h], scale_of<TYPE>(scales, u, h) * s.x, acc);
            if (f.has_min)
                acc = fmaf(min_of<TYPE>(scales, u, h), h ? s16.y : s16.x, acc);
        }
    }
    return acc;
}

template <int TYPE, int TILES> DEVICE void mat_small(const cuda_mat &a)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    constexpr int HALVES = f.group == 16 ? 2 : 1, CELLS = CUDA_SUPER * HALVES;
    SHARED(float, shared_sums, 2 * TILES * CELLS * CUDA_THREADS);
    uint32_t tile, n, mat, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    if (!rows_of_block(a.rows, a.active, a.first_tile, a.count, a.n_experts, TILES, &tile, &n, &mat))
        return;
    const cuda_mat_part &part = part_of_panel(a, blockIdx.x);
    const cuda_acts &acts = part.wide ? a.acts16 : a.acts;
    uint32_t units = a.cols / 32, pairs = CUDA_PAIRS(a.cols), supers = CUDA_SUPERS(a.cols), panel = blockIdx.x - part.first_panel;
    const uint8_t *ints = part.w + mat * a.mat_bytes + panel * CUDA_PANEL_BYTES(f, a.cols);
    const uint8_t *scales = ints + (uint64_t)pairs * CUDA_PAIR_BYTES(f);
    float acc[TILES];
    super_line ahead[MAT_AHEAD];

#pragma unroll
    for (int i = 0; i < TILES; i++)
        acc[i] = 0;
#pragma unroll
    for (int i = 0; i < MAT_AHEAD; i++)
        load_super<TYPE>(ints, scales, i, supers, pairs, &ahead[i]);
    for (uint32_t s0 = 0; s0 < supers; s0 += MAT_AHEAD) {
#pragma unroll
        for (int i = 0; i < MAT_AHEAD; i++) {
            uint32_t s = s0 + i;
            if (s >= supers)
                break;
            row_scales now = ahead[i].scales;
            auto *to = shared_sums + s % 2 * (TILES * CELLS * CUDA_THREADS);
#pragma unroll
            for (int u = 0; u < 2; u++) {
                uint32_t unit = s * 8 + warp * 2 + u;
                if (unit >= units)
                    break;
                uint32_t w[4];
                unfold<TYPE>(ahead[i].line, u, w);
#pragma unroll
                for (uint32_t tl = 0; tl < TILES; tl++) {
                    float sums[2][4];
                    uint64_t at = ((uint64_t)(tile + tl) * units + unit) * (CUDA_TILE * 32);
                    if (tl * CUDA_TILE >= n)
                        break;
                    unit_sums<HALVES == 2>(w, acts.q + at, acts.low ? acts.low + at : NULL, lane, tl * CUDA_TILE + g < n, sums);
#pragma unroll
                    for (int h = 0; h < HALVES; h++) {
                        auto *cells = to + (tl * CELLS + (warp * 2 + u) * HALVES + h) * CUDA_THREADS;
                        cells[g * CUDA_TILE + 2 * t] = sums[h][0];
                        cells[g * CUDA_TILE + 2 * t + 1] = sums[h][1];
                        cells[(g + 8) * CUDA_TILE + 2 * t] = sums[h][2];
                        cells[(g + 8) * CUDA_TILE + 2 * t + 1] = sums[h][3];
                    }
                }
            }
            load_super<TYPE>(ints, scales, s + MAT_AHEAD, supers, pairs, &ahead[i]);
            __syncthreads(); /* and the sums of the super before have been added up by all */
#pragma unroll
            for (uint32_t tl = 0; tl < TILES; tl++) {
                float sums[CELLS];
                uint32_t here = units - s * 8 < 8 ? units - s * 8 : 8;
                if (tl * CUDA_TILE + threadIdx.x % CUDA_TILE >= n)
                    break;
#pragma unroll
                for (int c = 0; c < CELLS; c++)
                    if (c < (int)here * HALVES)
                        sums[c] = to[(tl * CELLS + c) * CUDA_THREADS + threadIdx.x];
                acc[tl] = add_groups<TYPE, HALVES>(acts, (uint64_t)(tile + tl) * units + s * 8, here, now, sums, acc[tl]);
            }
        }
    }
#pragma unroll
    for (uint32_t tl = 0; tl < TILES; tl++) {
        uint32_t r = tl * CUDA_TILE + threadIdx.x % CUDA_TILE;
        if (r < n)
            put_result(a, part, tile * CUDA_TILE + r, panel * CUDA_PANEL + threadIdx.x / CUDA_TILE, acc[tl]);
    }
}

/* One unit of a warp's panel against its tiles. s: scales of rows g and g + 8. */
template <int TYPE>
DEVICE void prompt_unit(const cuda_acts &acts, const uint32_t w[4], const row_scales s[2], int u, uint64_t at, uint32_t stride, uint32_t tiles,
                        float acc[CUDA_PROMPT_TILES][4])
{
    constexpr cuda_form f = cuda_forms[TYPE];
    constexpr int HALVES = f.group == 16 ? 2 : 1;
    uint32_t lane = threadIdx.x % WARP, t = lane % 4;
    float scale[2][HALVES], min[2][HALVES];
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int h = 0; h < HALVES; h++) {
            scale[r][h] = scale_of<TYPE>(s[r], u, h);
            min[r][h] = f.has_min ? min_of<TYPE>(s[r], u, h) : 0;
        }
#pragma unroll
    for (uint32_t tl = 0; tl < CUDA_PROMPT_TILES; tl++) {
        float sums[2][4];
        uint64_t group = at + (uint64_t)tl * stride;
        if (tl >= tiles)
            break;
        unit_sums<HALVES == 2>(w, acts.q + group * (CUDA_TILE * 32), acts.low ? acts.low + group * (CUDA_TILE * 32) : NULL, lane, true, sums);
        float4 x = __ldg((const float4 *)(acts.scales + group * (CUDA_TILE * 2)) + t); /* scale and sum of columns 2t, 2t + 1 */
        float4 x16 = x;
        if (HALVES == 2 && f.has_min)
            x16 = __ldg((const float4 *)(acts.sums16 + group * (CUDA_TILE * 2)) + t);
#pragma unroll
        for (int h = 0; h < HALVES; h++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                acc[tl][i] = fmaf(sums[h][i], scale[i / 2][h] * (i % 2 ? x.z : x.x), acc[tl][i]);
                if (f.has_min && HALVES == 1)
                    acc[tl][i] = fmaf(min[i / 2][h], i % 2 ? x.w : x.y, acc[tl][i]);
                else if (f.has_min)
                    acc[tl][i] = fmaf(min[i / 2][h], i % 2 ? (h ? x16.w : x16.z) : (h ? x16.y : x16.x), acc[tl][i]);
            }
    }
}

template <int TYPE> DEVICE void mat_prompt(const cuda_mat &a)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    uint32_t tile, n, mat, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, panel = blockIdx.x * 4 + warp;
    if (!rows_of_block(a.rows, a.active, a.first_tile, a.count, a.n_experts, CUDA_PROMPT_TILES, &tile, &n, &mat) || panel >= a.panels)
        return;
    const cuda_mat_part &part = part_of_panel(a, panel);
    const cuda_acts &acts = part.wide ? a.acts16 : a.acts;
    uint32_t units = a.cols / 32, pairs = CUDA_PAIRS(a.cols), tiles = (n + CUDA_TILE - 1) / CUDA_TILE;
    panel -= part.first_panel;
    const uint8_t *ints = part.w + mat * a.mat_bytes + panel * CUDA_PANEL_BYTES(f, a.cols);
    const uint8_t *scales = ints + (uint64_t)pairs * CUDA_PAIR_BYTES(f);
    float acc[CUDA_PROMPT_TILES][4];

#pragma unroll
    for (uint32_t tl = 0; tl < CUDA_PROMPT_TILES; tl++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            acc[tl][i] = 0;
    for (uint32_t u0 = 0; u0 < units; u0 += CUDA_SUPER) {
        row_scales s[2];
        pair_line line[4];
        load_scales<TYPE>(scales + (uint64_t)(u0 / CUDA_SUPER) * CUDA_SUPER_BYTES(f), g, &s[0]);
        load_scales<TYPE>(scales + (uint64_t)(u0 / CUDA_SUPER) * CUDA_SUPER_BYTES(f), g + 8, &s[1]);
#pragma unroll
        for (int p = 0; p < 4; p++)
            if (u0 / 2 + p < pairs)
                load_pair<TYPE>(ints + (uint64_t)(u0 / 2 + p) * CUDA_PAIR_BYTES(f), lane, &line[p]);
#pragma unroll
        for (int u = 0; u < CUDA_SUPER; u++) {
            uint32_t w[4];
            if (u0 + u >= units)
                break;
            unfold<TYPE>(line[u / 2], u % 2, w);
            prompt_unit<TYPE>(acts, w, s, u, (uint64_t)tile * units + u0 + u, units, tiles, acc);
        }
    }
#pragma unroll
    for (uint32_t tl = 0; tl < CUDA_PROMPT_TILES; tl++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t r = tl * CUDA_TILE + 2 * t + i % 2;
            if (r < n)
                put_result(a, part, tile * CUDA_TILE + r, panel * CUDA_PANEL + g + i / 2 * 8, acc[tl][i]);
        }
}

/* --- floats ---------------------------------------------------------------------------------------------------------------- */

template <int TYPE> DEVICE float float_at(const uint8_t *row, uint32_t k)
{
    if (TYPE == T_F32)
        return __ldg((const float *)row + k);
    uint16_t h = __ldg((const uint16_t *)row + k);
    return TYPE == T_F16 ? half_to_float(h) : __int_as_float((int32_t)((uint32_t)h << 16));
}

/* Half a warp has some rows of weights and a tile of activations; its lanes are the 16 that the sums are defined by. */
template <int TYPE> DEVICE void mat_floats(const cuda_float_mat &a)
{
    uint32_t tile, n, mat, lane = threadIdx.x % 16;
    uint32_t row0 = (blockIdx.x * (CUDA_THREADS / 16) + threadIdx.x / 16) * CUDA_WIDE_ROWS;
    if (!rows_of_block(a.rows, a.active, a.first_tile, a.count, a.n_experts, 1, &tile, &n, &mat))
        return;
    n = n < CUDA_TILE ? n : CUDA_TILE;
    const uint64_t row_bytes = (uint64_t)a.cols * (TYPE == T_F32 ? 4 : 2);
    const uint8_t *w = a.w + mat * a.mat_bytes + row0 * row_bytes;
    const float *x = a.x + (uint64_t)tile * CUDA_TILE * a.x_stride;
    uint32_t here = row0 < a.rows_w ? (a.rows_w - row0 < CUDA_WIDE_ROWS ? a.rows_w - row0 : CUDA_WIDE_ROWS) : 0;
    float acc[CUDA_WIDE_ROWS][CUDA_TILE];
#pragma unroll
    for (int i = 0; i < CUDA_WIDE_ROWS; i++)
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++)
            acc[i][r] = 0;
#pragma unroll 2
    for (uint32_t k = lane; k < a.cols; k += 16) {
        float wide[CUDA_WIDE_ROWS];
#pragma unroll
        for (int i = 0; i < CUDA_WIDE_ROWS; i++)
            wide[i] = i < (int)here ? float_at<TYPE>(w + i * row_bytes, k) : 0;
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++) {
            if (r >= (int)n)
                break;
            float v = __ldg(x + (uint64_t)r * a.x_stride + k);
#pragma unroll
            for (int i = 0; i < CUDA_WIDE_ROWS; i++)
                acc[i][r] = fmaf(wide[i], v, acc[i][r]);
        }
    }
#pragma unroll
    for (int i = 0; i < CUDA_WIDE_ROWS; i++)
#pragma unroll
        for (int r = 0; r < CUDA_TILE; r++) {
            if (r >= (int)n)
                break;
            float v = join_lanes(acc[i][r]);
            if (lane != (uint32_t)r || i >= (int)here)
                continue;
            if (a.bias)
                v = v + a.bias[row0 + i];
            float *out = a.out + (uint64_t)(tile * CUDA_TILE + r) * a.out_stride + row0 + i;
            *out = a.add ? *out + v : v;
        }
}

/* --- getting there ---------------------------------------------------------------------------------------------------------- */

/* A thread packs rows g and g + 8 of a panel in one pair of units. */
DEVICE void pack_ints(const cuda_pack &a, uint32_t panel, uint32_t pair, uint32_t g)
{
    const cuda_form f = cuda_device_forms[a.type];
    uint32_t block = block_of_type(a.type), bytes = block_bytes_of(a.type), units = a.cols / 32;
    uint8_t *to = a.dst + (a.row0 / CUDA_PANEL + panel) * CUDA_PANEL_BYTES(f, a.cols) + (uint64_t)pair * CUDA_PAIR_BYTES(f);
    for (uint32_t t = 0; t < 4; t++) {
        uint32_t lane = 4 * g + t, one = 0;
        for (uint32_t u = 0; u < 2; u++) {
            uint32_t low[4] = {0, 0, 0, 0}, two = 0;
            for (uint32_t r = 0; r < 4; r++)
                for (uint32_t i = 0; i < 4; i++) {
                    uint32_t row = panel * CUDA_PANEL + g + r % 2 * 8, unit = 2 * pair + u, k = unit * 32 + r / 2 * 16 + 4 * t + i, v;
                    if (row >= a.n || unit >= units)
                        continue;
                    v = stored(a.type, a.src + row * a.row_bytes + (uint64_t)(k / block) * bytes, k % block);
                    low[r] |= (v & 0xff) << 8 * i;
                    if (f.one_bit)
                        one |= (v >> 8) << (8 * i + 4 * u + r);
                    else
                        two |= (f.nibbles ? v >> 8 : 0) << (8 * i + 2 * r);
                }
            if (f.bytes)
                for (int r = 0; r < 4; r++)
                    ((uint32_t *)to)[u * 128 + lane * 4 + r] = low[r];
            if (f.nibbles)
                for (int i = 0; i < 2; i++)
                    ((uint32_t *)to)[lane * 4 + u * 2 + i] = low[2 * i] | low[2 * i + 1] << 4;
            if (f.two_bits && !f.nibbles)
                two = low[0] | low[1] << 2 | low[2] << 4 | low[3] << 6;
            if (f.two_bits)
                ((uint32_t *)(to + f.nibbles * 512))[lane * 2 + u] = two;
        }
        if (f.one_bit)
            ((uint32_t *)(to + f.nibbles * 512 + f.two_bits * 256))[lane] = one;
    }
}

/* A thread packs the scales of a row in one super. */
DEVICE void pack_super(const cuda_pack &a, uint32_t panel, uint32_t super, uint32_t r)
{
    const cuda_form f = cuda_device_forms[a.type];
    uint32_t block = block_of_type(a.type), bytes = block_bytes_of(a.type), units = a.cols / 32, row = panel * CUDA_PANEL + r;
    uint8_t *to = a.dst + (a.row0 / CUDA_PANEL + panel) * CUDA_PANEL_BYTES(f, a.cols) + (uint64_t)CUDA_PAIRS(a.cols) * CUDA_PAIR_BYTES(f) +
                  (uint64_t)super * CUDA_SUPER_BYTES(f);
    uint8_t *scales = to + r * f.scales, *head = to + 16 * f.scales + r * f.head;
    for (uint32_t i = 0; i < f.scales; i++)
        scales[i] = 0;
    for (uint32_t i = 0; i < f.head; i++)
        head[i] = 0;
    if (row >= a.n)
        return;
    const uint8_t *src = a.src + row * a.row_bytes;
    for (uint32_t u = 0; u < 8 && super * 8 + u < units; u++) {
        uint32_t k = (super * 8 + u) * 32;
        pack_scales(a.type, src + (uint64_t)(k / block) * bytes, k % block / 32, scales, u);
    }
    for (uint32_t i = 0; i < f.head; i++)
        head[i] = src[(uint64_t)super * bytes + head_at(a.type) + i];
}

/* Blocks: x panels, y supers; 8 × 4 threads pack integers, then 16 the scales. */
DEVICE void pack_matrix(const cuda_pack &a)
{
    uint32_t pair = blockIdx.y * 4 + threadIdx.x / 8;
    if (pair < CUDA_PAIRS(a.cols))
        pack_ints(a, blockIdx.x, pair, threadIdx.x % 8);
    if (threadIdx.x < CUDA_PANEL)
        pack_super(a, blockIdx.x, blockIdx.y, threadIdx.x);
}

/* Row `token` of a packed matrix: a thread has a lane's eight elements of a unit. value = scale * q + min, each operation rounded. */
template <int TYPE> DEVICE void embed_packed(const cuda_embed &a, uint32_t row, uint32_t thread)
{
    constexpr cuda_form f = cuda_forms[TYPE];
    uint32_t j = (uint32_t)a.token[row], r = j % CUDA_PANEL, unit = thread / 4, t = thread % 4;
    const uint8_t *panel = a.w + (uint64_t)(j / CUDA_PANEL) * CUDA_PANEL_BYTES(f, a.cols);
    const uint8_t *scales = panel + (uint64_t)CUDA_PAIRS(a.cols) * CUDA_PAIR_BYTES(f) + (uint64_t)(unit / 8) * CUDA_SUPER_BYTES(f);
    pair_line line;
    row_scales s;
    uint32_t w[4];
    load_pair<TYPE>(panel + (uint64_t)(unit / 2) * CUDA_PAIR_BYTES(f), r % 8 * 4 + t, &line);
    load_scales<TYPE>(scales, r, &s);
    unfold<TYPE>(line, unit % 2, w);
    for (int h = 0; h < 2; h++) {
        float scale = scale_of<TYPE>(s, unit % 8, h), min = min_of<TYPE>(s, unit % 8, h);
        uint32_t q = r < 8 ? w[2 * h] : w[2 * h + 1];
        for (int i = 0; i < 4; i++) {
            float v = scale * (float)(int8_t)(q >> 8 * i);
            if (f.has_min)
                v = v + min;
            a.x[(uint64_t)row * a.cols + unit * 32 + h * 16 + 4 * t + i] = a.scale != 1.0f ? v * a.scale : v;
        }
    }
}

template <int TYPE> DEVICE void embed_floats(const cuda_embed &a, uint32_t row, uint32_t k)
{
    float v = float_at<TYPE>(a.w + (uint64_t)(uint32_t)a.token[row] * a.row_bytes, k);
    a.x[(uint64_t)row * a.cols + k] = a.scale != 1.0f ? v * a.scale : v;
}

#endif
