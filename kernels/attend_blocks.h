#ifndef KERNELS_ATTEND_BLOCKS_H
#define KERNELS_ATTEND_BLOCKS_H

/* Where attention finds its blocks, the same for every instruction set, and what it asks the memory for ahead of time. */

#include "kernels/kernels.h"

static inline __attribute__((always_inline)) const uint8_t *block_head(const struct attend_job *job, const struct kv_layout *l, uint32_t pos)
{
    return (const uint8_t *)job->kv->base + job->table[pos / KV_BLOCK] * job->kv->block_bytes + job->kv_head * l->head_bytes;
}

/* The next block, whose keys are asked for while this one is computed with: blocks lie anywhere, and the processor's own foresight ends
 * with a page. The last one has itself behind it. */
static inline __attribute__((always_inline)) const uint8_t *block_after(const struct attend_job *job, const struct kv_layout *l, uint32_t pos)
{
    return block_head(job, l, pos / KV_BLOCK * KV_BLOCK + KV_BLOCK <= job->last ? pos + KV_BLOCK : pos);
}

static inline __attribute__((always_inline)) size_t kv_bytes(enum kv_type type, size_t n)
{
    return type == KV_F32 ? 4 * n : type == KV_F16 ? 2 * n : n;
}

/* Dimension d of the next block's keys, and as much of this block's values, which are needed when the tile's scores are done. */
static inline __attribute__((always_inline)) void ask_ahead(enum kv_type type, const struct kv_layout *l, const uint8_t *head, const uint8_t *next, uint32_t d)
{
    size_t at = kv_bytes(type, (size_t)d * KV_BLOCK);
    for (size_t i = 0; i < kv_bytes(type, KV_BLOCK); i += 64) {
        __builtin_prefetch(next + l->k + at + i);
        __builtin_prefetch(head + l->v + at + i);
    }
}

#endif
