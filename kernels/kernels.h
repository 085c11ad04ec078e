#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

/* The table of CPU kernels: one-thread functions on plain memory, each written first in scalar/ and then, bit for bit the
 * same, for each instruction set. kernels_select fills a table with the scalar ones and lets every level that the processor
 * has, up to a cap, overwrite rows in ascending order. Const afterwards. Called by the CPU backend, the sampler and the checker only.
 *
 * Arithmetic that every version keeps (docs/numerics.md):
 * - quantized products: the integer sum over a scale group is exact; acc = fma((float)sum, w_scale * a_scale, acc), then for
 *   types with a minimum acc = fma(w_min, a_scale * (float)a_sum, acc); groups in ascending order, one accumulator;
 * - float products and sums over a row: element i goes to lane i mod 16 by fma, lanes are joined (i, i+8), (i, i+4), (i, i+2),
 *   (i, i+1);
 * - attention: see attend. */

#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"

struct strbuf;

enum { ACT_GROUP = 32, LANES = 16, PACK_ROWS = 16 };

/* Activations of one operation: rows of k floats, and the same in 8 bits with a scale for each 32, packed block-major so
 * that the rows a weight meets lie side by side. */
struct acts {
    uint32_t rows, k;
    const float *f; /* row r at f + r * f_stride */
    size_t f_stride;
    /* Rows stand in tiles of `tile`, a tile's groups one after another, its rows within each: act_at. */
    uint32_t tile;
    int8_t *q;      /* 32 each */
    int8_t *low;    /* NULL: 8-bit activations, x = scale * q. Else 16-bit ones: x = scale * (255 * q + low) */
    float *scale;   /* 0 for a group of zeros */
    float *sum;     /* scale * sum of the 32 */
    float *sum16;   /* scale * sum of the first and of the second 16: two each */
    int32_t *isum;  /* sum of the first and of the second 16: two each */
    int32_t *isum32; /* of all 32 */
    int16_t *less32; /* AVX2's alone, of 8-bit ones: -32 times two sums of each 16, of numbers 0 and 1 of all fours and of 2 and 3 */
};

/* Index of group g of row r. */
static inline size_t act_at(const struct acts *x, uint32_t r, uint32_t g)
{
    return ((size_t)(r / x->tile) * (x->k / ACT_GROUP) + g) * x->tile + r % x->tile;
}

/* Rows of consecutive positions of one sequence, and of each the heads of one KV head. They share what is read of the cache. */
struct attend_job {
    const struct attention *attn;
    const struct kv_view *kv;
    const uint32_t *table;
    uint32_t kv_head;
    uint32_t n_rows, pos; /* at most ATTEND_ROWS; position of the first one. Each looks at [attend_first, its own] */
    const float *q;       /* of the first row: n_heads / n_kv_heads heads of head_dim_k */
    float *out;           /* as many of head_dim_v */
    size_t q_stride, out_stride; /* from row to row */
    float *scratch;       /* attend_scratch_floats(), 64-byte aligned */
    /* NULL: all of it, into out. Else of the one row only the tiles [tile, tile + n_tiles) of what it sees, each by itself, for
     * attend_join: in turn for each tile and head its maximum, the sum of its weights, and head_dim_v weighted values. */
    float *parts;
    uint32_t tile, n_tiles; /* tiles by absolute position */
};

/* The first position that the row at pos sees. */
static inline uint32_t attend_first(const struct attention *a, uint32_t pos)
{
    return a->window && pos >= a->window ? pos - a->window + 1 : 0;
}

typedef void (*mat_fn)(const struct weight *w, uint32_t mat, uint32_t row0, uint32_t row1, const struct acts *x, float *out,
                       size_t out_stride);

struct kernels {
    const char *isa;
    uint32_t act_tile, act_tile16; /* most rows in a tile of 8-bit and of 16-bit activations */
    uint32_t act_alone;            /* … of 8-bit ones if there is but one; 0: no more */
    uint32_t act_whole;            /* of 8-bit ones: tiles are whole, but for the last, where they would share so many rows each; 0: they share */

    /* The layout that the matrix kernels of a type want, and how to bring rows of a file to it. packed_bytes: of a matrix of
     * so many rows; NULL and LAYOUT_FILE: as they are. pack: rows [row0, row0 + n) of it, row0 a multiple of PACK_ROWS, from n
     * rows of the file at src. */
    enum weight_layout layout[QUANT_TYPES];
    size_t (*packed_bytes)(enum quant_type type, uint32_t rows, uint32_t cols);
    void (*pack)(enum quant_type type, const void *src, uint32_t row0, uint32_t n, uint32_t cols, void *dst);

    /* Row r of x->f into x->q (and low, where there is room for it), scale and sums. k is a multiple of 32. */
    void (*quantize)(struct acts *x, uint32_t r);
    /* out[r * out_stride + j] = W[j] . x[r] for weight rows j in [row0, row1) of one matrix and all rows of x. row0 is a multiple of
     * PACK_ROWS. By layout and type. */
    mat_fn mat[LAYOUT_COUNT][QUANT_TYPES];
    /* Row j as floats. By layout and type. */
    void (*row[LAYOUT_COUNT][QUANT_TYPES])(const struct weight *w, uint32_t j, float *out);

    /* out = x / rms(x) * w; x may be out. */
    void (*rms_norm)(const float *x, const float *w, uint32_t n, float eps, float *out);
    /* gate = act(gate) * up */
    void (*act_mul)(enum activation act, float *gate, const float *up, uint32_t n);
    /* Turns one head in place; cos and sin have n_dims / 2 entries. */
    void (*rope)(float *x, const struct rope *rope, const float *cos, const float *sin);
    /* Position `pos % KV_BLOCK` of a block: k of head_dim_k, v of head_dim_v floats, for each KV head. */
    void (*kv_store)(const struct attention *attn, const struct kv_view *kv, uint32_t block, uint32_t slot, const float *k, const float *v);
    /* Softmax attention by tiles of ATTENTION_TILE absolute positions: scores are serial fma over the head's dimensions, times
     * scale, capped; a tile's maximum m, weights exp(s - m), their sum by 16 lanes, and the weighted v by serial fma over
     * positions; tiles are joined in ascending order: M = max(m, m'), l = l exp(m - M) + l' exp(m' - M), o likewise. */
    void (*attend)(const struct attend_job *job);
    /* Joins a job's parts to what came before, in out and, for each head, m and l; begin: nothing did; end: nothing follows. */
    void (*attend_join)(const struct attend_job *job, float *m, float *l, bool begin, bool end);
    /* Softmax of n in place; its sum by 16 lanes. */
    void (*softmax)(float *x, uint32_t n);
    /* out = e^((x - top) / temperature); returns their sum, by 16 lanes. */
    float (*exps)(const float *x, uint32_t n, float top, float temperature, float *out);
    float (*dot)(const float *a, const float *b, uint32_t n);
};

/* Places for the rows of so many operands, at most, of 8-bit activations. Each tile has all its places: where rows are shared, one too many
 * for each tile but one of an operand; else those that act_whole lets the last tile lack. */
static inline size_t act_places(const struct kernels *k, size_t rows, size_t operands)
{
    size_t shared = rows / k->act_tile + operands, lacking = k->act_whole ? rows / k->act_whole * (k->act_tile - k->act_whole) : 0;
    return rows + k->act_tile + (operands > 1 && lacking + operands > shared ? lacking + operands : shared);
}

/* Rows in each of as few tiles as can be, in equal shares: a last tile of few rows would unfold the weights for little. */
static inline uint32_t act_tile_of(const struct kernels *k, bool wide, uint32_t rows)
{
    uint32_t most = wide ? k->act_tile16 : k->act_tile, tiles = (rows + most - 1) / most;
    if (!wide && rows > 0 && rows <= k->act_alone)
        return rows;
    if (!wide && k->act_whole && rows >= tiles * k->act_whole)
        return most;
    return tiles ? (rows + tiles - 1) / tiles : 1;
}

/* 0, or -1 and err naming the known levels. isa_cap NULL: the best there is.
 * A cap that the processor lacks is no error: ret->isa tells what it came to. */
int kernels_select(const char *isa_cap, struct kernels *ret, struct err *err);
void kernels_init_scalar(struct kernels *k);
/* Names of all levels that were built, ascending; NULL past the last. The processor may lack some. */
const char *kernels_level(unsigned i);
/* Appends the names of those that this processor has: "scalar, avx2". */
void kernels_present(struct strbuf *ret);

/* Where things lie in a KV block: for each KV head K, then V, then (q8_0) their scales. K is transposed, [dim][position], so
 * that one dimension of 32 positions is one load; V is [position][dim]. */
struct kv_layout {
    size_t k, v, k_scale, v_scale; /* offsets in a head's part */
    size_t head_bytes;
    uint32_t k_groups, v_groups; /* q8_0 scale groups of up to 32 dimensions */
};
struct kv_layout kv_layout_of(const struct attention *attn, enum kv_type type);
enum { ATTEND_ROWS = 24 }; /* of one job, at most */
size_t attend_scratch_floats(uint32_t head_dim_k, uint32_t head_dim_v);

/* scalar/quant.c: how each quantized type unfolds: up to 256 elements as integers, with a scale and (has_min) a minimum for
 * each group: value = scale * q + min. */
struct quant_decoder {
    uint32_t group; /* 16 or 32; 0: the type has no such form (floats, or unknown) */
    bool has_min;
    void (*decode)(const uint8_t *blocks, uint32_t n_blocks, int8_t *q, float *scale, float *min);
};
extern const struct quant_decoder quant_decoders[QUANT_TYPES];

#endif
