/* What is not a product: norms, heads and their cache, attention, embedding, the router's choice, joining; against the scalar
 * kernels or a few plain lines, bit for bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/fmath.h"
#include "tests/cuda/check_device.h"
#include "tests/tap.h"

static float *random_floats(size_t n, float sd)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&rng) * sd;
    return x;
}

/* The floats at `got` on the device are those wanted; frees both. */
static bool same_there(float *want, float *got, size_t n, const char *what)
{
    float *here = malloc(n * sizeof *here);
    size_t first;
    fetch(here, got, n * sizeof *here);
    bool same = same_floats(here, want, n, &first);
    if (!same)
        tap_note("%s: element %zu of %zu: got %a, expected %a", what, first, n, (double)here[first], (double)want[first]);
    free(here);
    free(want);
    drop(got);
    return same;
}

/* --- norms ------------------------------------------------------------------------------------------------------------------- */

static void test_norms(void)
{
    static const uint32_t widths[] = {1, 15, 32, 60, 64, 576, 1023, 1024, 1025, 2048, 3000};
    enum { N = sizeof widths / sizeof *widths, ROWS = 5, WANTED = 3 };
    int good = 0;
    for (int i = 0; i < N; i++) {
        uint32_t k = widths[i], list[WANTED] = {0, 2, 4}, n = WANTED;
        float *x = random_floats(ROWS * k, 1), *w = random_floats(k, 1), *want = malloc(WANTED * k * sizeof *want);
        float *dx = take_copy(x, ROWS * k * 4), *dw = take_copy(w, k * 4), *out = take(WANTED * k * 4);
        uint32_t *dlist = take_copy(list, sizeof list), *dn = take_copy(&n, sizeof n);
        struct cuda_norm a = {.x = dx, .weight = dw, .n = out, .list = dlist, .rows = dn, .embd = k, .eps = 1e-5f};
        for (uint32_t r = 0; r < WANTED; r++)
            scalar.rms_norm(x + list[r] * k, w, k, 1e-5f, want + r * k);
        launch(device->kernels.norm, WANTED + 1, 1, 1, CUDA_ROW_THREADS, &a);
        good += same_there(want, out, WANTED * k, "norm");
        free(x);
        free(w);
        drop(dx);
        drop(dw);
        drop(dlist);
        drop(dn);
    }
    is_int(good, N, "norms of any width");
}

/* --- heads and attention ----------------------------------------------------------------------------------------------------- */

enum { MAX_POS = 800, TABLE = MAX_POS / KV_BLOCK + 1 };

struct scene {
    struct attention attn;
    struct kv_view kv; /* on the host */
    uint8_t *there;
    uint32_t table[2 * TABLE], *d_table; /* of sequence 0 nothing, of 1 all */
    size_t bytes;
};

static void make_scene(struct scene *s, enum kv_type type, int n)
{
    static const uint32_t dims[] = {64, 80, 96, 128, 256, 40, 7, 1, 16, 33, 320, 576, CUDA_HEAD_MAX}, groups[] = {1, 2, 3, 4, 5, 8, 9};
    uint32_t kv_heads = rng_between(&rng, 1, 2), dim = dims[n % 13];
    s->attn = (struct attention){.n_heads = kv_heads * groups[n % 7], .n_kv_heads = kv_heads, .head_dim_k = dim,
                                 .head_dim_v = rng_below(&rng, 3) ? dim : dims[rng_below(&rng, 12)], .scale = 1 / sqrtf((float)dim),
                                 .softcap = rng_below(&rng, 3) ? 0 : 5, .window = rng_below(&rng, 2) ? rng_between(&rng, 1, 400) : 0};
    s->kv = (struct kv_view){.type = type, .n_blocks = TABLE + 5, .block_bytes = kv_layout_of(&s->attn, type).head_bytes * kv_heads};
    s->bytes = s->kv.n_blocks * s->kv.block_bytes;
    s->kv.base = malloc(s->bytes);
    memset(s->kv.base, 0xff, s->bytes); /* NaN, whatever the type */
    for (uint32_t b = 0; b < TABLE; b++) {
        s->table[b] = 0x7fffffff;
        s->table[TABLE + b] = (b * 17 + 3) % s->kv.n_blocks;
    }
    s->d_table = take_copy(s->table, sizeof s->table);
}

static void drop_scene(struct scene *s)
{
    free(s->kv.base);
    drop(s->there);
    drop(s->d_table);
}

static bool attends(struct scene *s, uint32_t pos, bool split)
{
    const struct attention *a = &s->attn;
    uint32_t first = attend_first(a, pos), group = a->n_heads / a->n_kv_heads, seq = 1, rows = 1;
    uint32_t tiles = pos / ATTENTION_TILE - first / ATTENTION_TILE + 1 + rng_below(&rng, 2);
    float *q = random_floats(a->n_heads * a->head_dim_k, 1), *want = malloc(a->n_heads * a->head_dim_v * 4);
    float *scratch = malloc(attend_scratch_floats(a->head_dim_k, a->head_dim_v) * 4 + 64), *dq = take_copy(q, a->n_heads * a->head_dim_k * 4);
    for (uint32_t h = 0; h < a->n_kv_heads; h++) {
        struct attend_job job = {.attn = a, .kv = &s->kv, .table = s->table + TABLE, .kv_head = h, .n_rows = 1, .pos = pos,
                                 .q = q + h * group * a->head_dim_k, .out = want + h * group * a->head_dim_v, .scratch = scratch};
        scalar.attend(&job);
    }
    uint32_t *list = take_copy((uint32_t[]){seq, pos, rows}, 12);
    float *out = take(a->n_heads * a->head_dim_v * 4), *partial = take((size_t)a->n_heads * tiles * (a->head_dim_v + 2) * 4);
    int most = group == 1 ? 0 : group <= 4 ? 1 : 2;
    uint32_t taken = most == 0 ? 1 : 4 * (uint32_t)most, spans = (a->head_dim_v + CUDA_HEAD_SPAN - 1) / CUDA_HEAD_SPAN;
    struct cuda_attend args = {.q = dq, .out = out, .partial = split ? partial : NULL, .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .dk = a->head_dim_k,
                               .dv = a->head_dim_v, .window = a->window, .max_tiles = tiles, .scale = a->scale, .softcap = a->softcap, .kv = s->there,
                               .block_bytes = s->kv.block_bytes, .table = s->d_table, .seq = list, .pos = list + 1, .rows = list + 2, .table_stride = TABLE};
    launch(device->kernels.attend[s->kv.type][most], a->n_kv_heads * ((group + taken - 1) / taken) * spans, 1, split ? tiles : 1, CUDA_THREADS, &args);
    if (split)
        launch(device->kernels.attend_join, a->n_heads, 1, 1, CUDA_THREADS, &args);
    bool good = same_there(want, out, a->n_heads * a->head_dim_v, "attend");
    if (!good)
        tap_note("%u heads, %u KV heads of %u and %u, window %u, position %u, %s", a->n_heads, a->n_kv_heads, a->head_dim_k, a->head_dim_v, a->window, pos,
                 split ? "split" : "whole");
    free(q);
    free(scratch);
    drop(dq);
    drop(list);
    drop(partial);
    return good;
}

/* Heads of one row: norms, rotation, and into the cache; q and the cache's bytes are compared. */
static bool stores(struct scene *s, uint32_t pos, uint8_t *cache)
{
    const struct attention *a = &s->attn;
    uint32_t nq = a->n_heads * a->head_dim_k, nk = a->n_kv_heads * a->head_dim_k, nv = a->n_kv_heads * a->head_dim_v, half = rng_below(&rng, a->head_dim_k / 2 + 1);
    bool normed = rng_below(&rng, 2);
    float *q = random_floats(nq, 1), *k = random_floats(nk, 1), *v = random_floats(nv, 100), *w = random_floats(a->head_dim_k, 1);
    struct rope rope = {.kind = half ? (enum rope_kind)rng_between(&rng, ROPE_PAIRS, ROPE_HALVES) : ROPE_NONE, .n_dims = 2 * half, .scale = 1.5f};
    double *freq = malloc((half + 1) * sizeof *freq);
    float *turn = malloc((half + 1) * 2 * sizeof *turn);
    for (uint32_t i = 0; i < half; i++) {
        double sn, cs;
        freq[i] = 1.0 / (1 + i * 3);
        sc_sincos((double)pos * freq[i], &sn, &cs);
        turn[i] = (float)cs * rope.scale;
        turn[half + i] = (float)sn * rope.scale;
    }
    float *dq = take_copy(q, nq * 4), *dk = take_copy(k, nk * 4), *dv = take_copy(v, nv * 4), *dw = take_copy(w, a->head_dim_k * 4);
    float *turned = take((half + 1) * 8);
    double *df = take_copy(freq, (half + 1) * sizeof *freq);
    uint32_t *list = take_copy((uint32_t[]){1, pos, 1}, 12);
    struct cuda_angles angles = {.freq = df, .pos = list + 1, .cos_ = turned, .sin_ = turned + half, .half = half, .scale = rope.scale, .rows = list + 2};
    struct cuda_heads args = {.q = dq, .k = dk, .v = dv, .q_norm = normed ? dw : NULL, .k_norm = normed ? dw : NULL, .q_eps = 1e-5f, .k_eps = 1e-6f, .n_heads = a->n_heads,
                              .n_kv_heads = a->n_kv_heads, .dk = a->head_dim_k, .dv = a->head_dim_v, .rope = rope.kind, .n_dims = rope.n_dims, .cos_ = turned,
                              .sin_ = turned + half, .kv = s->there, .block_bytes = s->kv.block_bytes, .kv_type = s->kv.type, .table = s->d_table, .seq = list,
                              .pos = list + 1, .rows = list + 2, .table_stride = TABLE};
    if (half)
        launch(device->kernels.angles, (half + CUDA_THREADS - 1) / CUDA_THREADS, 1, 1, CUDA_THREADS, &angles);
    launch(device->kernels.heads, a->n_heads + 2 * a->n_kv_heads, 1, 1, CUDA_THREADS, &args);
    for (uint32_t h = 0; h < a->n_heads + a->n_kv_heads; h++) {
        float *x = h < a->n_heads ? q + h * a->head_dim_k : k + (h - a->n_heads) * a->head_dim_k;
        if (normed)
            scalar.rms_norm(x, w, a->head_dim_k, h < a->n_heads ? 1e-5f : 1e-6f, x);
        if (half)
            scalar.rope(x, &rope, turn, turn + half);
    }
    scalar.kv_store(a, &s->kv, s->table[TABLE + pos / KV_BLOCK], pos % KV_BLOCK, k, v);
    bool good = same_there(q, dq, nq, "heads of q");
    fetch(cache, s->there, s->bytes);
    if (memcmp(cache, s->kv.base, s->bytes) != 0) {
        tap_note("the cache differs: type %d, heads of %u and %u, position %u", (int)s->kv.type, a->head_dim_k, a->head_dim_v, pos);
        good = false;
    }
    free(k);
    free(v);
    free(w);
    free(freq);
    free(turn);
    drop(dk);
    drop(dv);
    drop(dw);
    drop(turned);
    drop(df);
    drop(list);
    return good;
}

static void test_attention(void)
{
    static const uint32_t ends[] = {0, 1, 31, 32, 33, 255, 256, 257, 511, 512, 700, 799};
    enum { CASES = 26 };
    for (int type = 0; type < KV_TYPES; type++) {
        int good = 0, stored = 0;
        for (int n = 0; n < CASES; n++) {
            struct scene s;
            uint32_t pos = ends[(n + type) % 12], nk, nv;
            make_scene(&s, (enum kv_type)type, n);
            nk = s.attn.n_kv_heads * s.attn.head_dim_k;
            nv = s.attn.n_kv_heads * s.attn.head_dim_v;
            for (uint32_t p = 0; p <= pos; p++) {
                float *k = random_floats(nk, 1), *v = random_floats(nv, 1);
                scalar.kv_store(&s.attn, &s.kv, s.table[TABLE + p / KV_BLOCK], p % KV_BLOCK, k, v);
                free(k);
                free(v);
            }
            s.there = take_copy(s.kv.base, s.bytes);
            uint8_t *cache = malloc(s.bytes);
            good += attends(&s, pos, false) && attends(&s, pos, true);
            stored += stores(&s, rng_below(&rng, MAX_POS), cache);
            free(cache);
            drop_scene(&s);
        }
        is_int(good, CASES, "attention over a cache of type %d, whole and split: shapes that agree bit for bit", type);
        is_int(stored, CASES, "heads into a cache of type %d: shapes that agree bit for bit", type);
    }
}

/* --- rows of a matrix ---------------------------------------------------------------------------------------------------------- */

static void test_embedding(void)
{
    enum { ROWS = 40, TOKENS = 3 };
    int good = 0, all = 0;
    for (uint32_t t = 0; data_next_type(&t); t++, all++) {
        uint32_t block = quant_traits(t)->block, cols = block == 1 ? 60 : block * 3, n = TOKENS;
        struct weight w = data_weight(&rng, (enum quant_type)t, ROWS, cols, 1, 0.1f);
        int32_t token[TOKENS] = {0, 23, 39};
        uint8_t *dw = take_weight(&w);
        int32_t *dt = take_copy(token, sizeof token);
        uint32_t *dn = take_copy(&n, sizeof n);
        float *out = take(TOKENS * cols * 4), *want = malloc(TOKENS * cols * 4);
        struct cuda_embed a = {.w = dw, .token = dt, .x = out, .type = t, .cols = cols, .row_bytes = w.row_bytes, .scale = 3, .rows = dn};
        for (int i = 0; i < TOKENS; i++)
            scalar.row[LAYOUT_FILE][t](&w, (uint32_t)token[i], want + (uint32_t)i * cols);
        for (uint32_t i = 0; i < TOKENS * cols; i++)
            want[i] *= 3;
        launch(device->kernels.embed, TOKENS + 1, (cols + CUDA_THREADS - 1) / CUDA_THREADS, 1, CUDA_THREADS, &a);
        good += same_there(want, out, TOKENS * cols, quant_traits(t)->name);
        drop(dw);
        drop(dt);
        drop(dn);
        data_weight_free(&w);
    }
    is_int(good, all, "rows of packed matrices are the file's");
}

/* --- experts ------------------------------------------------------------------------------------------------------------------- */

/* Rows to experts and back: what each row is given by its experts, through places of their own. */
static bool check_experts(uint32_t rows, uint32_t n, uint32_t used, bool sigmoid, bool normalize, bool normed)
{
    enum { EMBD = 64 };
    uint32_t spread = rows * used, counts[2] = {rows, spread}, places = (spread + 8 * n + 7) / 8 * 8;
    float *score = random_floats(rows * n, 2), *x = random_floats(rows * EMBD, 1), *w = random_floats(EMBD, 1), *want = malloc(rows * EMBD * 4);
    float *ds = take_copy(score, rows * n * 4), *dx = take_copy(x, rows * EMBD * 4), *dw = take_copy(w, EMBD * 4), *dt = take(places * EMBD * 4);
    float *weight = take(spread * 4), *y;
    uint32_t *dn = take_copy(counts, sizeof counts), *expert = take(spread * 4), *active = take((n + 1) * 4), *first = take(n * 4), *count = take(n * 4), *at = take(spread * 4);
    struct cuda_choose choose = {.score = ds, .n = n, .n_used = used, .sigmoid = sigmoid, .normalize = normalize, .scale = 2, .expert = expert, .weight = weight, .rows = dn};
    struct cuda_group group = {.expert = expert, .spread = dn + 1, .n = n, .active = active, .first_tile = first, .count = count, .at = at};
    launch(device->kernels.choose, rows + 1, 1, 1, 32, &choose);
    launch(device->kernels.group, 1, 1, 1, CUDA_ROW_THREADS, &group);
    uint32_t *h_at = malloc(spread * 4), *h_expert = malloc(spread * 4), *h_first = malloc(n * 4);
    float *h_y = random_floats(places * EMBD, 1);
    fetch(h_at, at, spread * 4);
    fetch(h_expert, expert, spread * 4);
    fetch(h_first, first, n * 4);
    y = take_copy(h_y, places * EMBD * 4);
    struct cuda_join join = {.x = dx, .t = dt, .weight = normed ? dw : NULL, .eps = 1e-6f, .embd = EMBD, .rows = dn, .y = y, .choice_weight = weight, .at = at, .used = used};
    launch(device->kernels.join, rows + 1, 1, 1, CUDA_ROW_THREADS, &join);
    bool good = true;
    for (uint32_t r = 0; r < rows; r++) {
        float *s = score + r * n, t[EMBD] = {0}, sum = 0, chosen[64];
        if (sigmoid)
            for (uint32_t i = 0; i < n; i++)
                s[i] = 1.0f / (1.0f + sc_expf(-s[i]));
        else
            scalar.softmax(s, n);
        for (uint32_t rank = 0; rank < used; rank++) {
            uint32_t best = 0;
            for (uint32_t i = 1; i < n; i++)
                best = s[i] > s[best] ? i : best;
            good &= h_expert[r * used + rank] == best && h_at[r * used + rank] / 8 >= h_first[best];
            chosen[rank] = s[best];
            sum += s[best];
            s[best] = -INFINITY;
        }
        for (uint32_t rank = 0; rank < used; rank++) {
            float c = (normalize ? chosen[rank] / sum : chosen[rank]) * 2;
            for (uint32_t i = 0; i < EMBD; i++)
                t[i] = fmaf(c, h_y[h_at[r * used + rank] * EMBD + i], t[i]);
        }
        if (normed)
            scalar.rms_norm(t, w, EMBD, 1e-6f, t);
        for (uint32_t i = 0; i < EMBD; i++)
            want[r * EMBD + i] = x[r * EMBD + i] + t[i];
    }
    for (uint32_t i = 0; i < spread; i++)
        for (uint32_t j = i + 1; j < spread; j++)
            good &= h_at[i] != h_at[j] && h_at[i] < places;
    good &= same_there(want, dx, rows * EMBD, "experts joined");
    void *drops[] = {ds, dw, dt, weight, dn, expert, active, first, count, at, y}, *frees[] = {score, x, w, h_at, h_expert, h_first, h_y};
    for (size_t i = 0; i < sizeof drops / sizeof *drops; i++)
        drop(drops[i]);
    for (size_t i = 0; i < sizeof frees / sizeof *frees; i++)
        free(frees[i]);
    return good;
}

static void test_experts(void)
{
    enum { CASES = 12 };
    int good = 0;
    for (int i = 0; i < CASES; i++) {
        uint32_t n = rng_between(&rng, 2, i % 3 ? 16 : 200);
        good += check_experts(rng_between(&rng, 1, 20), n, rng_between(&rng, 1, n < 8 ? n : 8), i % 2, i / 2 % 2, i % 4 == 1);
    }
    is_int(good, CASES, "experts chosen, grouped and joined");
}

/* --- the rest ------------------------------------------------------------------------------------------------------------------ */

static void test_small(void)
{
    enum { COLS = 300, ROWS = 3 };
    uint32_t n = 2;
    float *x = random_floats(ROWS * COLS, 30), *want = malloc(ROWS * COLS * 4), *dx = take_copy(x, ROWS * COLS * 4);
    uint32_t *dn = take_copy(&n, sizeof n), entries[] = {7, 70, 2, 20, 9, 90}, table[10] = {0}, *de = take_copy(entries, sizeof entries), *dt = take_copy(table, sizeof table);
    for (uint32_t i = 0; i < ROWS * COLS; i++)
        want[i] = i < n * COLS ? 30 * sc_tanhf(x[i] / 30) : x[i];
    struct cuda_softcap cap = {.x = dx, .cols = COLS, .cap = 30, .rows = dn};
    launch(device->kernels.softcap, (COLS + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS, ROWS, 1, CUDA_ROW_THREADS, &cap);
    ok(same_there(want, dx, ROWS * COLS, "softcap"), "capped logits");
    struct cuda_tables tables = {.entry = de, .n = dn, .table = dt};
    launch(device->kernels.tables, 1, 1, 1, CUDA_THREADS, &tables);
    fetch(table, dt, sizeof table);
    ok(table[7] == 70 && table[2] == 20 && table[9] == 0, "as many entries of tables as there are");
    free(x);
    drop(dn);
    drop(de);
    drop(dt);
}

/* What stands around products by cuBLAS. */
static void test_around_blas(void)
{
    enum { COLS = 300, ROWS = 4, N = ROWS * COLS };
    const float odd[] = {70000, -1e30f, INFINITY, -INFINITY, NAN, 65520, -0.0f, 1e-8f, 0x1.01p0f, 0x1.03p0f};
    float *x = random_floats(N, 30), *b = random_floats(COLS, 1), *want = malloc(N * sizeof *want), *dx, *db = take_copy(b, COLS * sizeof *b);
    uint16_t *to = take(N * sizeof *to), *got = malloc(N * sizeof *got);
    memcpy(x, odd, sizeof odd);
    dx = take_copy(x, N * sizeof *x);
    for (int bf = 0; bf < 2; bf++) {
        uint32_t differ = 0;
        struct cuda_narrow narrow = {.x = dx, .to = to, .n = N, .type = bf ? QUANT_BF16 : QUANT_F16};
        launch(device->kernels.narrow, 2, 1, 1, CUDA_ROW_THREADS, &narrow); /* fewer threads than floats */
        fetch(got, to, N * sizeof *got);
        for (uint32_t i = 0; i < N; i++) {
            float back = bf ? sc_bf16_to_f32(got[i]) : sc_f16_to_f32(got[i]), v = x[i];
            if (!bf)
                v = v > 65504 ? 65504 : v < -65504 ? -65504 : v;
            /* Nearest: half a step off at most, and steps of F16 do not get smaller below 2^-14. */
            differ += isnan(v) ? !isnan(back) : isinf(v) ? back != v : fabsf(back - v) > ldexpf(fmaxf(fabsf(v), bf ? 0 : 0x1p-14f), bf ? -8 : -11);
        }
        is_int(differ, 0, "activations as %s", bf ? "BF16" : "F16");
    }
    is_int(got[8], 0x3f80, "a tie goes to the even one below");
    is_int(got[9], 0x3f82, "or above");
    for (uint32_t i = 0; i < N; i++)
        want[i] = i < (ROWS - 1) * COLS ? x[i] + b[i % COLS] : x[i];
    struct cuda_bias bias = {.out = dx, .bias = db, .cols = COLS, .rows = ROWS - 1};
    launch(device->kernels.bias, (COLS + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS, ROWS, 1, CUDA_ROW_THREADS, &bias);
    ok(same_there(want, dx, N, "bias"), "biases");
    free(x);
    free(b);
    free(got);
    drop(to);
    drop(db);
}

void check_rows(void)
{
    test_norms();
    test_attention();
    test_embedding();
    test_experts();
    test_small();
    test_around_blas();
}
