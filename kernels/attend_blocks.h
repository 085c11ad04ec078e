#ifndef KERNELS_ATTEND_BLOCKS_H
#define KERNELS_ATTEND_BLOCKS_H

/* Where attention finds its blocks and keeps what it works with, the same for every instruction set, and what it asks the memory for
 * ahead of time. */

#include <math.h>
#include <string.h>

#include "kernels/fmath.h"
#include "kernels/kernels.h"

#define ATTEND_INLINE static inline __attribute__((always_inline))

/* Queries (a head of a row) that go through a tile together; floats behind what was unfolded, which may be loaded but not used. */
enum { ATTEND_QUERIES = ATTEND_ROWS, ATTEND_PADDING = 64 };

/* Floats from one query's weighted values to the next one's. */
ATTEND_INLINE uint32_t attend_stride(uint32_t head_dim_v)
{
    return (head_dim_v + 15) / 16 * 16;
}

ATTEND_INLINE const uint8_t *block_head(const struct attend_job *job, const struct kv_layout *l, uint32_t pos)
{
    return (const uint8_t *)job->kv->base + job->table[pos / KV_BLOCK] * job->kv->block_bytes + job->kv_head * l->head_bytes;
}

ATTEND_INLINE size_t kv_bytes(enum kv_type type, size_t n)
{
    return type == KV_F32 ? 4 * n : type == KV_F16 ? 2 * n : n;
}

/* Asks for n bytes; NULL: for none. Blocks lie anywhere and the processor's own foresight ends with a page, so what is needed when
 * this block is done with is asked for while it is computed with, line by line: all at once would be more than can be under way. */
ATTEND_INLINE void ask_ahead(const uint8_t *p, size_t n)
{
    for (size_t i = 0; p && i < n; i += 64)
        __builtin_prefetch(p + i);
}

/* Joins a tile's result to what came before. */
ATTEND_INLINE void join_tile(uint32_t dv, float tile_m, float tile_l, const float *o, float *m, float *l, float *out)
{
    float both = *m > tile_m ? *m : tile_m, old = sc_expf(*m - both), new = sc_expf(tile_m - both);
    *l = fmaf(*l, old, tile_l * new);
    for (uint32_t d = 0; d < dv; d++)
        out[d] = fmaf(out[d], old, o[d] * new);
    *m = both;
}

/* attend_join of kernels.h. */
ATTEND_INLINE void join_parts(const struct attend_job *job, float *m, float *l, bool begin, bool end)
{
    uint32_t dv = job->attn->head_dim_v, heads = job->attn->n_heads / job->attn->n_kv_heads;
    for (uint32_t h = 0; h < heads; h++) {
        float *out = job->out + (size_t)h * dv;
        if (begin) {
            m[h] = -INFINITY;
            l[h] = 0;
            memset(out, 0, dv * sizeof *out);
        }
        for (uint32_t t = 0; t < job->n_tiles; t++) {
            const float *part = job->parts + ((size_t)t * heads + h) * (dv + 2);
            join_tile(dv, part[0], part[1], part + 2, &m[h], &l[h], out);
        }
        for (uint32_t d = 0; d < dv && end; d++)
            out[d] /= l[h];
    }
}

#endif
