/* kv_store and attend over random shapes: every kind of cache, grouped heads, windows, caps, scattered tables. The cache is
 * poison (NaN) wherever a position was not stored, the table names no block where none may be read. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/checkkernels/check.h"
#include "tests/tap.h"

enum { CASES = 60, MAX_POS = 800, MAX_TABLE = MAX_POS / KV_BLOCK + 1, NO_BLOCK = 0x7FFFFFFF };

struct scene {
    struct attention attn;
    struct kv_view kv[2]; /* under test; expected */
    uint32_t table[MAX_TABLE];
    uint32_t first, last;
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

/* Positions that end beside borders of blocks and tiles, windows that begin there. */
static void random_span(struct rng *r, struct scene *s, int n)
{
    static const uint32_t ends[] = {0, 1, 30, 31, 32, 33, 63, 254, 255, 256, 257, 287, 288, 511, 512, 513, 767, 768, 799};
    s->last = n % 2 ? ends[rng_below(r, sizeof ends / sizeof *ends)] : rng_below(r, MAX_POS);
    s->first = 0;
    if (rng_below(r, 2)) {
        uint32_t window = n % 3 == 0 ? 1 : rng_between(r, 1, 400);
        s->first = s->last >= window ? s->last - window + 1 : 0;
    }
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

static bool same_attention(struct check *c, struct scene *s)
{
    uint32_t group = s->attn.n_heads / s->attn.n_kv_heads, nq = group * s->attn.head_dim_k, no = group * s->attn.head_dim_v;
    size_t scratch_bytes = (attend_scratch_floats(s->attn.head_dim_v) * sizeof(float) + 63) / 64 * 64, first;
    float *q = random_heads(&c->rng, nq, 1), *got = guarded_alloc(no * sizeof *got), *want = guarded_alloc(no * sizeof *want);
    float *scratch = guarded_alloc(scratch_bytes);
    bool same = true;
    for (uint32_t h = 0; h < s->attn.n_kv_heads && same; h++) {
        struct attend_job job = {.attn = &s->attn, .kv = &s->kv[0], .table = s->table, .kv_head = h, .first = s->first, .last = s->last, .q = q,
                                 .out = got, .scratch = scratch};
        c->k->attend(&job);
        job.out = want;
        c->want->attend(&job);
        same = same_floats(got, want, no, &first);
        if (!same)
            tap_note("KV head %u, element %zu: got %a, expected %a", h, first, (double)got[first], (double)want[first]);
        for (uint32_t i = 0; i < no && same; i++)
            if (!isfinite(got[i])) {
                tap_note("KV head %u, element %u: a position that was not stored was read", h, i);
                same = false;
            }
    }
    guarded_free(q, nq * sizeof *q);
    guarded_free(got, no * sizeof *got);
    guarded_free(want, no * sizeof *want);
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
                tap_note("%s differs: %u heads, %u KV heads of %u and %u, positions %u to %u, cap %g", stored ? "attend" : "kv_store", s.attn.n_heads,
                         s.attn.n_kv_heads, s.attn.head_dim_k, s.attn.head_dim_v, s.first, s.last, (double)s.attn.softcap);
            stores += stored;
            results += attended;
            drop_scene(&s);
        }
        is_int(stores, CASES, "%s: kv_store to %s: shapes that agree bit for bit", c->name, names[type]);
        is_int(results, CASES, "%s: attend over %s: shapes that agree bit for bit", c->name, names[type]);
    }
}
