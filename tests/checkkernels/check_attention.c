/* kv_store and attend over random shapes: every kind of cache, grouped heads, windows, caps, scattered tables. The cache is
 * poison (NaN) wherever a position was not stored, the table names no block where none may be read. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/checkkernels/check.h"
#include "tests/tap.h"

enum { CASES = 120, MAX_POS = 800, MAX_TABLE = MAX_POS / KV_BLOCK + 1, NO_BLOCK = 0x7FFFFFFF };

struct scene {
    struct attention attn;
    struct kv_view kv[2]; /* under test; expected */
    uint32_t table[MAX_TABLE];
    uint32_t pos, n_rows;
    uint32_t first, last; /* what all rows see */
};

static struct attention random_attention(struct rng *r, int n)
{
    static const uint32_t dims[] = {64, 80, 96, 128, 256, 40, 7, 1, 16, 33};
    uint32_t kv_heads = rng_between(r, 1, 3), dim = dims[n % 10];
    return (struct attention){
        .n_heads = kv_heads * rng_between(r, 1, 5),
        .n_kv_heads = kv_heads,
        .head_dim_k = dim,
        .head_dim_v = rng_below(r, 3) ? dim : dims[rng_below(r, 10)],
        .scale = 1 / sqrtf((float)dim) * (rng_below(r, 4) ? 1 : 8),
        .softcap = rng_below(r, 3) ? 0 : 5,
    };
}

/* Positions that end beside borders of blocks and tiles, windows that begin there, rows that go over them. */
static void random_span(struct rng *r, struct scene *s, int n)
{
    static const uint32_t ends[] = {0, 1, 30, 31, 32, 33, 63, 254, 255, 256, 257, 287, 288, 511, 512, 513, 767, 768, 799};
    s->last = n % 2 ? ends[rng_below(r, sizeof ends / sizeof *ends)] : rng_below(r, MAX_POS);
    s->n_rows = n % 4 < 2 ? 1 : rng_between(r, 1, ATTEND_ROWS);
    s->n_rows = s->n_rows < s->last + 1 ? s->n_rows : s->last + 1;
    s->pos = s->last + 1 - s->n_rows;
    if (rng_below(r, 2))
        s->attn.window = n % 3 == 0 ? 1 : rng_between(r, 1, 400);
    s->first = attend_first(&s->attn, s->pos);
}

static void make_scene(struct rng *r, struct scene *s, enum kv_type type, int n)
{
    s->attn = random_attention(r, n);
    random_span(r, s, n);
    uint32_t n_blocks = MAX_TABLE + 5, next = rng_below(r, n_blocks);
    for (int i = 0; i < 2; i++) {
        s->kv[i] = (struct kv_view){.type = type, .n_blocks = n_blocks, .block_bytes = kv_layout_of(&s->attn, type).head_bytes * s->attn.n_kv_heads};
        s->kv[i].base = guarded_alloc(n_blocks * s->kv[i].block_bytes);
        memset(s->kv[i].base, 0xFF, n_blocks * s->kv[i].block_bytes); /* NaN, whatever the type */
    }
    for (uint32_t b = 0; b < MAX_TABLE; b++) {
        next = (next + 17) % n_blocks; /* 31 blocks: all different */
        s->table[b] = b >= s->first / KV_BLOCK && b <= s->last / KV_BLOCK ? next : NO_BLOCK;
    }
}

static void drop_scene(struct scene *s)
{
    for (int i = 0; i < 2; i++)
        guarded_free(s->kv[i].base, s->kv[i].n_blocks * s->kv[i].block_bytes);
}

static float *random_heads(struct rng *r, uint32_t n, float sd)
{
    float *x = guarded_alloc(n * sizeof *x);
    for (uint32_t i = 0; i < n; i++)
        x[i] = rng_normal(r) * sd;
    return x;
}

static bool same_stores(struct check *c, struct scene *s)
{
    uint32_t nk = s->attn.n_kv_heads * s->attn.head_dim_k, nv = s->attn.n_kv_heads * s->attn.head_dim_v;
    float *k = guarded_alloc(nk * sizeof *k), *v = guarded_alloc(nv * sizeof *v);
    for (uint32_t p = s->first; p <= s->last; p++) {
        float sd = p % 50 == 7 ? 0 : p % 50 == 9 ? 1e-7f : p % 50 == 11 ? 300 : 1;
        for (uint32_t i = 0; i < nk; i++)
            k[i] = rng_normal(&c->rng) * (sd > 1 ? 1 : sd);
        for (uint32_t i = 0; i < nv; i++)
            v[i] = rng_normal(&c->rng) * sd;
        c->k->kv_store(&s->attn, &s->kv[0], s->table[p / KV_BLOCK], p % KV_BLOCK, k, v);
        c->want->kv_store(&s->attn, &s->kv[1], s->table[p / KV_BLOCK], p % KV_BLOCK, k, v);
    }
    guarded_free(k, nk * sizeof *k);
    guarded_free(v, nv * sizeof *v);
    return memcmp(s->kv[0].base, s->kv[1].base, s->kv[0].n_blocks * s->kv[0].block_bytes) == 0;
}

static bool all_finite(const float *x, size_t n, uint32_t kv_head)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) {
            tap_note("KV head %u, element %zu: a position that was not stored was read", kv_head, i);
            return false;
        }
    return true;
}

/* The row's tiles, each by itself or some at a time, some set aside and joined before others are begun. */
static void attend_apart(struct check *c, struct attend_job job)
{
    const struct attention *a = job.attn;
    uint32_t group = a->n_heads / a->n_kv_heads, first = attend_first(a, job.pos) / ATTENTION_TILE, end = job.pos / ATTENTION_TILE + 1;
    uint32_t most = rng_between(&c->rng, 1, end - first), part = group * (a->head_dim_v + 2);
    float *parts = guarded_alloc((size_t)most * part * sizeof *parts), m[8], l[8];
    for (uint32_t t = first, n; t < end; t += n) {
        n = most < end - t ? most : end - t;
        for (uint32_t i = 0; i < n; i += job.n_tiles) {
            job.tile = t + i;
            job.n_tiles = rng_between(&c->rng, 1, n - i);
            job.parts = parts + (size_t)i * part;
            c->k->attend(&job);
        }
        job.parts = parts;
        job.n_tiles = n;
        c->k->attend_join(&job, m, l, t == first, t + n == end);
    }
    guarded_free(parts, (size_t)most * part * sizeof *parts);
}

/* Each row has room for all of its heads, as in a run: what lies between must stay as it was. */
static bool same_attention(struct check *c, struct scene *s)
{
    uint32_t group = s->attn.n_heads / s->attn.n_kv_heads, nq = group * s->attn.head_dim_k, no = group * s->attn.head_dim_v, gap = rng_below(&c->rng, 3);
    size_t scratch_bytes = (attend_scratch_floats(s->attn.head_dim_k, s->attn.head_dim_v) * sizeof(float) + 63) / 64 * 64, first;
    size_t q_floats = (size_t)(nq + gap) * (s->n_rows - 1) + nq, out_floats = (size_t)(no + gap) * (s->n_rows - 1) + no;
    float *q = random_heads(&c->rng, (uint32_t)q_floats, 1), *got = guarded_alloc(out_floats * sizeof *got), *want = guarded_alloc(out_floats * sizeof *want);
    float *scratch = guarded_alloc(scratch_bytes);
    bool same = true;
    for (uint32_t h = 0; h < s->attn.n_kv_heads && same; h++) {
        struct attend_job job = {.attn = &s->attn, .kv = &s->kv[0], .table = s->table, .kv_head = h, .n_rows = s->n_rows, .pos = s->pos, .q = q,
                                 .out = got, .q_stride = nq + gap, .out_stride = no + gap, .scratch = scratch};
        for (size_t i = 0; i < out_floats; i++)
            got[i] = want[i] = 7;
        c->k->attend(&job);
        if (s->n_rows == 1 && rng_below(&c->rng, 2))
            attend_apart(c, job);
        job.out = want;
        c->want->attend(&job);
        same = same_floats(got, want, out_floats, &first);
        if (!same)
            tap_note("KV head %u, element %zu: got %a, expected %a", h, first, (double)got[first], (double)want[first]);
        same = same && all_finite(got, out_floats, h);
    }
    guarded_free(q, q_floats * sizeof *q);
    guarded_free(got, out_floats * sizeof *got);
    guarded_free(want, out_floats * sizeof *want);
    guarded_free(scratch, scratch_bytes);
    return same;
}

void check_attention(struct check *c)
{
    static const char *const names[KV_TYPES] = {[KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"};
    for (int type = 0; type < KV_TYPES; type++) {
        int stores = 0, results = 0;
        for (int n = 0; n < CASES; n++) {
            struct scene s;
            make_scene(&c->rng, &s, (enum kv_type)type, n);
            bool stored = same_stores(c, &s), attended = same_attention(c, &s);
            if (!stored || !attended)
                tap_note("%s differs: %u heads, %u KV heads of %u and %u, %u rows to position %u, window %u, cap %g", stored ? "attend" : "kv_store", s.attn.n_heads,
                         s.attn.n_kv_heads, s.attn.head_dim_k, s.attn.head_dim_v, s.n_rows, s.last, s.attn.window, (double)s.attn.softcap);
            stores += stored;
            results += attended;
            drop_scene(&s);
        }
        is_int(stores, CASES, "%s: kv_store to %s: shapes that agree bit for bit", c->name, names[type]);
        is_int(results, CASES, "%s: attend over %s: shapes that agree bit for bit", c->name, names[type]);
    }
}
