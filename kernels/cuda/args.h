#ifndef KERNELS_CUDA_ARGS_H
#define KERNELS_CUDA_ARGS_H

/* What kernels are given: one struct each, filled by host C and read by device code. Pointers are addresses of device memory. */

#include <stdint.h>

enum {
    CUDA_TILE = 8,       /* rows of activations that a tensor core's instruction takes */
    CUDA_THREADS = 128,  /* of most kernels' blocks */
    CUDA_ROW_THREADS = 256, /* where a block has a row of activations */
    CUDA_HEAD_MAX = 1024, /* dimensions of a head */
    CUDA_HEAD_SPAN = 256, /* of them a block of attention has values of, and keys at once */
    CUDA_EXPERTS_MAX = 1024,
    CUDA_MAT_PARTS = 3,
    CUDA_SMALL_ROWS = 16, /* rows of activations up to which a matrix is read once by blocks that share its columns */
    CUDA_PROMPT_TILES = 8, /* tiles that a warp of the prompt kernel takes */
    CUDA_SAMPLE_THREADS = 512,
    CUDA_SAMPLE_LIST = 1024, /* tokens few enough to lie in a list of their own */
    CUDA_WIDE_ROWS = 4,   /* rows of weights that half a warp takes of matrices of floats */
};

/* A step's numbers and lists, at fixed addresses. Buckets have more rows than the step: kernels read how many there are. */
struct cuda_step {
    uint32_t n_rows, n_wanted, spread, n_entries; /* spread: rows × experts used; entries: of tables */
};

/* What is new in the sequences' tables: entry[2i] becomes entry[2i + 1]. */
struct cuda_tables {
    const uint32_t *entry, *n;
    uint32_t *table;
};

/* Quantized activations (docs/numerics.md), in tiles of 8 rows: tile, then group of 32, then the 8 rows. A row's 32 bytes are in the
 * order of tensor cores' operands: k = 4t + i at 8t + i, k = 16 + 4t + i at 8t + 4 + i. */
struct cuda_acts {
    int8_t *q, *low; /* low: of 16-bit ones */
    float *scales;   /* scale, sum: two for each row of a group */
    float *sums16;   /* sums of its halves */
};

struct cuda_mat_part {
    const uint8_t *w;
    const float *bias; /* or NULL */
    float *out;
    uint32_t rows, out_stride, first_panel; /* among the panels of all parts */
    uint32_t wide;                          /* with 16-bit activations */
};

/* Matrices of one type and width against the same rows. out = W x (+ bias), or out += with add. */
struct cuda_mat {
    struct cuda_mat_part part[CUDA_MAT_PARTS];
    uint32_t n_parts, panels, cols, add;
    struct cuda_acts acts, acts16;
    const uint32_t *rows; /* how many there are */
    /* Experts: block z computes with expert active[z], whose rows are count[e] places from tile first_tile[e] on. NULL: none. */
    const uint32_t *active, *first_tile, *count; /* active[n]: how many are */
    uint64_t mat_bytes;
    uint32_t n_experts;
};

/* Matrices of floats: type F32, F16, BF16, as in the file. */
struct cuda_float_mat {
    const uint8_t *w;
    const float *bias, *x;
    float *out;
    uint32_t rows_w, cols, x_stride, out_stride, add;
    const uint32_t *rows;
    const uint32_t *active, *first_tile, *count;
    uint64_t mat_bytes;
    uint32_t n_experts;
};

/* Activations in the type of a matrix of F16 or BF16, for cuBLAS; F16 keeps what is too large at its largest. */
struct cuda_narrow {
    const float *x;
    uint16_t *to;
    uint64_t n;
    uint32_t type;
};

/* out[r][j] += bias[j] */
struct cuda_bias {
    float *out;
    const float *bias;
    uint32_t cols, rows;
};

/* Rows of a file to their places in a matrix. */
struct cuda_pack {
    const uint8_t *src;
    uint8_t *dst;
    uint32_t type, row0, n, cols;
    uint64_t row_bytes;
};

struct cuda_embed {
    const uint8_t *w;
    const int32_t *token;
    float *x;
    uint32_t type, cols;
    uint64_t row_bytes; /* of floats */
    float scale;
    const uint32_t *rows;
};

struct cuda_angles {
    const double *freq;
    const uint32_t *pos;
    float *cos_, *sin_;
    uint32_t half;
    float scale;
    const uint32_t *rows;
};

/* n = norm(x of row list[i] or i), then quantized. */
struct cuda_norm {
    const float *x, *weight; /* weight NULL: as it is */
    float *n;
    const uint32_t *list, *rows;
    uint32_t embd;
    float eps;
    struct cuda_acts acts, acts16; /* q NULL: not */
};

/* acts = quantize(x), or of act(x) up, which goes to x as well. Experts: row i is place at[i]. */
struct cuda_quantize {
    float *x;
    const float *up; /* NULL: x as it is */
    uint32_t gelu, cols;
    struct cuda_acts acts; /* q NULL: only the activation */
    const uint32_t *rows, *at;
    const float *from; /* gather: x of place at[i] = row i / used of it */
    uint32_t used;
};

struct cuda_heads {
    float *q, *k;
    const float *v, *q_norm, *k_norm;
    float q_eps, k_eps;
    uint32_t n_heads, n_kv_heads, dk, dv;
    uint32_t rope, n_dims; /* enum rope_kind */
    const float *cos_, *sin_;
    uint8_t *kv;
    uint64_t block_bytes;
    uint32_t kv_type;
    const uint32_t *table, *seq, *pos, *rows;
    uint32_t table_stride;
};

struct cuda_attend {
    const float *q;
    float *out, *partial; /* partial: of each (row, head, tile): maximum, sum, dv values; NULL: a block walks all tiles */
    uint32_t n_heads, n_kv_heads, dk, dv, window, max_tiles;
    float scale, softcap;
    const uint8_t *kv;
    uint64_t block_bytes;
    const uint32_t *table, *seq, *pos, *rows;
    uint32_t table_stride;
};

/* x += norm(t + bias); experts: t = sum of their outputs y by rank. */
struct cuda_join {
    float *x, *t;
    const float *bias, *weight;
    float eps;
    uint32_t embd;
    const uint32_t *rows;
    const float *y, *choice_weight;
    const uint32_t *at;
    uint32_t used;
};

struct cuda_choose {
    float *score;
    uint32_t n, n_used, sigmoid, normalize;
    float scale;
    uint32_t *expert; /* rows × n_used, by rank */
    float *weight;
    const uint32_t *rows;
};

struct cuda_group {
    const uint32_t *expert, *spread;
    uint32_t n;
    uint32_t *active, *first_tile, *count, *at;
};

struct cuda_softcap {
    float *x;
    uint32_t cols;
    float cap;
    const uint32_t *rows;
};

/* What one row is asked; kernels/sample.h, struct sample_row. */
struct cuda_sample_row {
    uint64_t random;
    uint32_t logits; /* their row */
    uint32_t choose, by_id, top_k;
    float temperature, top_p, min_p, typical_p, repetition, frequency, presence;
    uint32_t first_edit, n_biases, n_edits, first_given, n_given, first_top, top;
    uint32_t mask; /* which, from 1; 0: none */
};

struct cuda_sample_found {
    uint64_t sum;
    float raw_max, left_max, logit;
    uint32_t raw_id, raw_bad, left_id, left_bad, token, n_top;
};

struct sample_edit;

struct cuda_sample {
    float *logits;
    const struct cuda_sample_row *rows;
    struct sample_edit *edits;
    const uint8_t *masks;
    const uint32_t *given;
    struct cuda_sample_found *found;
    uint32_t *top_tokens;
    float *top_logits, *given_logits, *list_logit;
    uint32_t *list_id;
    uint32_t n_vocab, mask_bytes, list_max;
};

/* Reads `bytes` and gives a word that depends on them: what the device's memory gives. */
struct cuda_read {
    const uint8_t *from;
    uint64_t bytes;
    uint32_t *to;
};

#endif
