#ifndef KERNELS_CUDA_SAMPLE_CUH
#define KERNELS_CUDA_SAMPLE_CUH

/* model/sampler.c's steps by the threads of a block, for one row of logits: the same tokens, since all that is added up are
 * integers (kernels/sample.h). Logits are edited in place, and a token that is filtered out becomes -inf; when few are left,
 * they go on as a list of their own.
 *
 * A filter keeps the tokens before which less than `target` lies, in order of a key (ties by token): a count for top-k, a mass
 * of likelihood for the others. Where that ends is found by histograms of the weights: first over distances from the best, which
 * spread logits evenly over the bins, then over the bits of the key, from the high ones to the low; equal keys are gone through in
 * order. A draw is the same search, for the token in which the aim lies. */

#include "kernels/cuda/args.h"
#include "kernels/cuda/math.cuh"
#include "kernels/sample.h"

enum { SAMPLE_WARPS = CUDA_SAMPLE_THREADS / WARP, SAMPLE_BINS = 2048, BINS_A_THREAD = SAMPLE_BINS / CUDA_SAMPLE_THREADS, SAMPLE_LEVELS = 4 };

/* Places that may hold a token, in order of tokens. */
struct token_set {
    float *l;
    const uint32_t *id; /* NULL: a place is its token */
    uint32_t n;
};

/* A filter's end: all with a larger key are kept, and those with this one as far as `before`, the weight of the larger, allows. */
struct token_cut {
    uint32_t key;
    uint64_t before;
};

/* What the functions below share. */
template <class U64, class F32, class U32> struct sample_shared {
    U64 *bins, *parts;
    F32 *kept;
    U32 *kept_id, *word;
};

template <class U64, class F32, class U32> DEVICE sample_shared<U64, F32, U32> share(U64 *bins, U64 *parts, F32 *kept, U32 *kept_id, U32 *word)
{
    return sample_shared<U64, F32, U32>{bins, parts, kept, kept_id, word};
}

/* Larger logits have larger keys; both zeros the same one. */
DEVICE uint32_t key_of(float l)
{
    uint32_t bits = (uint32_t)__float_as_int(l + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Which bin of a histogram: the nearer to the best, the lower. */
DEVICE uint32_t bin_of(float distance)
{
    return (uint32_t)fminf(distance * 64.0f, (float)(SAMPLE_BINS - 1));
}

/* --- the block together ------------------------------------------------------------------------------------------------------ */

template <class SH> DEVICE uint64_t block_sum(const SH &sh, uint64_t v)
{
    for (uint32_t apart = 16; apart >= 1; apart /= 2)
        v += __shfl_xor_sync(FULL_WARP, v, apart);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        sh.parts[threadIdx.x / WARP] = v;
    __syncthreads();
    v = threadIdx.x % WARP < SAMPLE_WARPS ? (uint64_t)sh.parts[threadIdx.x % WARP] : 0;
    for (uint32_t apart = 16; apart >= 1; apart /= 2)
        v += __shfl_xor_sync(FULL_WARP, v, apart);
    return v;
}

template <class SH> DEVICE uint64_t block_max(const SH &sh, uint64_t v)
{
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t apart = 16; apart >= 1; apart /= 2) {
            uint64_t other = __shfl_xor_sync(FULL_WARP, v, apart);
            v = other > v ? other : v;
        }
        if (round == 1)
            break;
        __syncthreads();
        if (threadIdx.x % WARP == 0)
            sh.parts[threadIdx.x / WARP] = v;
        __syncthreads();
        v = threadIdx.x % WARP < SAMPLE_WARPS ? (uint64_t)sh.parts[threadIdx.x % WARP] : 0;
    }
    return v;
}

/* The sum of what the threads before this one give; *all: of all. */
template <class SH> DEVICE uint64_t block_before(const SH &sh, uint64_t v, uint64_t *all)
{
    uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint64_t sum = v, before = 0, total = 0;
    for (uint32_t apart = 1; apart < WARP; apart *= 2) {
        uint64_t other = __shfl_sync(FULL_WARP, sum, lane >= apart ? lane - apart : lane);
        sum += lane >= apart ? other : 0;
    }
    __syncthreads();
    if (lane == WARP - 1)
        sh.parts[warp] = sum;
    __syncthreads();
    for (uint32_t w = 0; w < SAMPLE_WARPS; w++) {
        uint64_t part = sh.parts[w];
        before += w < warp ? part : 0;
        total += part;
    }
    *all = total;
    return before + sum - v;
}

/* The best of a set, its place for the id; its sum is 0. */
template <class SH> DEVICE sample_scan scan_set(const SH &sh, const token_set &s)
{
    uint64_t best = 0, good = 0;
    sample_scan ret = {};
    for (uint32_t i = threadIdx.x; i < s.n; i += CUDA_SAMPLE_THREADS) {
        float v = s.l[i];
        uint64_t key = (uint64_t)key_of(v) << 32 | (uint32_t)~i;
        if (v != v)
            good = (uint32_t)~i > good ? (uint32_t)~i : good;
        else
            best = key > best ? key : best;
    }
    best = block_max(sh, best);
    ret.bad = ~(uint32_t)block_max(sh, good);
    ret.id = best ? ~(uint32_t)best : 0;
    ret.max = best ? s.l[ret.id] : -INFINITY;
    __syncthreads(); /* before anybody changes it */
    return ret;
}

DEVICE bool can_choose(const sample_scan &s)
{
    return s.bad == UINT32_MAX && s.max <= 3.402823466e38f && s.max >= -3.402823466e38f;
}

/* --- cutting a set ----------------------------------------------------------------------------------------------------------- */

/* Where a filter ends: the key of the last token before which less than target lies. key, bin and weight are functions of the place;
 * bins and keys order alike. Key 0: all of them weigh less. */
template <class SH, class Key, class Bin, class Weight>
DEVICE token_cut find_cut(const SH &sh, const token_set &s, uint64_t target, Key key, Bin bin, Weight weight)
{
    SHARED(uint64_t, found, 2); /* a bin, and the weight before it */
    token_cut cut = {0, 0};
    uint32_t coarse = 0, tid = threadIdx.x;
    for (uint32_t level = 0; level < SAMPLE_LEVELS; level++) {
        uint32_t shift = level == 1 ? 21 : level == 2 ? 10 : 0, mask = level == 3 ? 1023 : SAMPLE_BINS - 1, known = level == 2 ? 21 : 10;
        for (uint32_t b = tid; b < SAMPLE_BINS; b += CUDA_SAMPLE_THREADS)
            sh.bins[b] = 0;
        __syncthreads();
        for (uint32_t i = tid; i < s.n; i += CUDA_SAMPLE_THREADS) {
            uint32_t b = bin(i), k = key(i);
            if (level > 0 && (b != coarse || (level > 1 && k >> known != cut.key)))
                continue;
            uint64_t w = weight(i);
            if (w)
                add_at(&sh.bins[level ? SAMPLE_BINS - 1 - (k >> shift & mask) : b], w);
        }
        __syncthreads();
        uint64_t own = 0, all;
        for (uint32_t b = 0; b < BINS_A_THREAD; b++)
            own += sh.bins[BINS_A_THREAD * tid + b];
        uint64_t before = cut.before + block_before(sh, own, &all);
        if (cut.before + all < target)
            return token_cut{0, 0};
        if (before < target && before + own >= target) {
            uint32_t b = BINS_A_THREAD * tid;
            for (uint64_t w = sh.bins[b]; before + w < target; w = sh.bins[++b])
                before += w;
            found[0] = b;
            found[1] = before;
        }
        __syncthreads();
        uint32_t at = (uint32_t)(uint64_t)found[0];
        cut.before = found[1];
        if (level == 0)
            coarse = at;
        else
            cut.key = cut.key << (level == 3 ? 10 : 11) | (SAMPLE_BINS - 1 - at);
    }
    return cut;
}

/* Calls f(place, key, before, weight) for every place, threads side by side; before and weight only for those at the cut's key: what
 * lies before them in the order, and their own. */
template <class SH, class Key, class Weight, class F>
DEVICE void walk(const SH &sh, const token_set &s, const token_cut &cut, Key key, Weight weight, F f)
{
    uint64_t before = cut.before;
    for (uint32_t from = 0; from < s.n; from += CUDA_SAMPLE_THREADS) {
        uint32_t i = from + threadIdx.x, k = i < s.n ? key(i) : 0;
        bool equal = i < s.n && k == cut.key;
        uint64_t w = equal ? weight(i) : 0, mine = 0, all = 0;
        if (__syncthreads_count(equal)) {
            mine = before + block_before(sh, w, &all);
            before += all;
        }
        if (i < s.n)
            f(i, k, mine, w);
    }
}

/* Notes a token as kept; there may be more than have room. */
template <class SH> DEVICE void keep_token(const SH &sh, float l, uint32_t id)
{
    uint32_t at = add_at(&sh.word[0], 1u);
    if (at < CUDA_SAMPLE_LIST) {
        sh.kept[at] = l;
        sh.kept_id[at] = id;
    }
}

/* A filter: what does not stay becomes -inf, and few that stay become the set, at `list`. */
template <class SH, class Key, class Bin, class Weight>
DEVICE void cut_set(const SH &sh, token_set *s, const token_set &list, uint64_t target, Key key, Bin bin, Weight weight)
{
    token_cut cut = find_cut(sh, *s, target, key, bin, weight);
    bool whole = s->id == NULL;
    if (threadIdx.x == 0)
        sh.word[0] = 0;
    __syncthreads();
    walk(sh, *s, cut, key, weight, [&](uint32_t i, uint32_t k, uint64_t before, uint64_t) {
        float l = s->l[i];
        if (l == -INFINITY)
            return;
        if (k < cut.key || (k == cut.key && before >= target))
            s->l[i] = -INFINITY;
        else if (whole)
            keep_token(sh, l, i);
    });
    __syncthreads();
    uint32_t n = sh.word[0];
    if (!whole || n > list.n)
        return;
    for (uint32_t i = threadIdx.x; i < n; i += CUDA_SAMPLE_THREADS) {
        uint32_t place = 0, id = sh.kept_id[i];
        for (uint32_t j = 0; j < n; j++)
            place += sh.kept_id[j] < id;
        list.l[place] = sh.kept[i];
        ((uint32_t *)list.id)[place] = id;
    }
    __syncthreads();
    *s = token_set{list.l, list.id, n};
}

/* The n likeliest, best first. */
template <class SH> DEVICE uint32_t top_tokens(const SH &sh, const token_set &s, float max, uint32_t n, uint32_t *ret_id, float *ret_l)
{
    auto key = [&](uint32_t i) { return key_of(s.l[i]); };
    auto bin = [&](uint32_t i) { return bin_of(max - s.l[i]); };
    auto weight = [&](uint32_t) { return (uint64_t)1; };
    n = n < s.n ? n : s.n;
    if (n == 0)
        return 0;
    token_cut cut = find_cut(sh, s, n, key, bin, weight);
    if (threadIdx.x == 0)
        sh.word[0] = 0;
    __syncthreads();
    walk(sh, s, cut, key, weight, [&](uint32_t i, uint32_t k, uint64_t before, uint64_t) {
        if (k > cut.key || (k == cut.key && before < n))
            keep_token(sh, s.l[i], i);
    });
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += CUDA_SAMPLE_THREADS) {
        uint32_t place = 0, id = sh.kept_id[i];
        float l = sh.kept[i];
        for (uint32_t j = 0; j < n; j++) {
            float other = sh.kept[j];
            place += other > l || (other == l && sh.kept_id[j] < id);
        }
        ret_id[place] = id;
        ret_l[place] = l;
    }
    return n;
}

/* --- a choice ---------------------------------------------------------------------------------------------------------------- */

/* Bias, penalties and mask, in place; edits keep what stood there. */
DEVICE void edit_logits(const cuda_sample &a, const cuda_sample_row &r, float *l)
{
    sample_edit *edit = a.edits + r.first_edit;
    for (uint32_t i = threadIdx.x; i < r.n_biases; i += CUDA_SAMPLE_THREADS) {
        int32_t token = edit[i].token;
        if (i > 0 && edit[i - 1].token == token)
            continue;
        float was = l[token], v = was;
        for (uint32_t j = i; j < r.n_biases && edit[j].token == token; j++)
            v = sample_finite(v + edit[j].bias);
        l[token] = v;
        edit[i].bias = was;
    }
    __syncthreads();
    for (uint32_t i = r.n_biases + threadIdx.x; i < r.n_edits; i += CUDA_SAMPLE_THREADS) {
        float *at = l + edit[i].token, was = *at;
        *at = sample_penalized(was, r.repetition, r.frequency, r.presence, edit[i].count);
        edit[i].bias = was;
    }
    __syncthreads();
    if (r.mask) {
        const uint8_t *mask = a.masks + (uint64_t)(r.mask - 1) * a.mask_bytes;
        for (uint32_t i = threadIdx.x; i < a.n_vocab; i += CUDA_SAMPLE_THREADS)
            if (!(mask[i / 8] >> i % 8 & 1))
                l[i] = -INFINITY;
    }
    __syncthreads();
}

/* The tokens whose surprise is nearest to the expected one. Returns the best logit that is left. */
template <class SH> DEVICE float cut_typical(const SH &sh, token_set *s, const token_set &list, float max, float part)
{
    uint64_t sum = 0, weighted = 0;
    for (uint32_t i = threadIdx.x; i < s->n; i += CUDA_SAMPLE_THREADS) {
        float d = s->l[i] - max, e = sc_expf(d);
        sum += sample_mass(e);
        weighted += sample_surprise(e, d);
    }
    sum = block_sum(sh, sum);
    float mean = sample_mean(block_sum(sh, weighted), sum);
    cut_set(
        sh, s, list, sample_part(sum, part), [&](uint32_t i) { return key_of(-sample_distance(s->l[i], max, mean)); },
        [&](uint32_t i) { return bin_of(sample_distance(s->l[i], max, mean)); }, [&](uint32_t i) { return sample_mass(sc_expf(s->l[i] - max)); });
    return scan_set(sh, *s).max;
}

template <class SH> DEVICE uint32_t draw_token(const SH &sh, const token_set &s, const cuda_sample_row &r, float max)
{
    auto key = [&](uint32_t i) { return r.by_id ? 0 : key_of(s.l[i]); };
    auto bin = [&](uint32_t i) { return bin_of(max - s.l[i]); };
    auto weight = [&](uint32_t i) { return sample_mass(sc_expf((s.l[i] - max) / r.temperature)); };
    token_cut cut = {0, 0};
    uint64_t sum = 0;
    for (uint32_t i = threadIdx.x; i < s.n; i += CUDA_SAMPLE_THREADS)
        sum += weight(i);
    uint64_t aim = sample_aim(r.random, block_sum(sh, sum));
    if (!r.by_id)
        cut = find_cut(sh, s, aim + 1, key, bin, weight);
    walk(sh, s, cut, key, weight, [&](uint32_t i, uint32_t, uint64_t before, uint64_t w) {
        if (w && before <= aim && aim - before < w)
            sh.word[1] = s.id ? s.id[i] : i;
    });
    __syncthreads();
    return sh.word[1];
}

template <class SH> DEVICE uint32_t choose_token(const SH &sh, const cuda_sample &a, const cuda_sample_row &r, float *l, const sample_scan &left)
{
    token_set s = {l, NULL, a.n_vocab};
    token_set list = {a.list_logit + (uint64_t)blockIdx.x * CUDA_SAMPLE_LIST, a.list_id + (uint64_t)blockIdx.x * CUDA_SAMPLE_LIST, a.list_max};
    float max = left.max;
    if (!(r.temperature > 0))
        return left.id;
    auto key = [&](uint32_t i) { return key_of(s.l[i]); };
    auto bin = [&](uint32_t i) { return bin_of(max - s.l[i]); };
    auto mass = [&](uint32_t i) { return sample_mass(sc_expf(s.l[i] - max)); };
    if (r.top_k && r.top_k < a.n_vocab)
        cut_set(sh, &s, list, r.top_k, key, bin, [&](uint32_t i) { return (uint64_t)(s.l[i] != -INFINITY); });
    if (r.typical_p < 1)
        max = cut_typical(sh, &s, list, max, r.typical_p);
    if (r.top_p < 1) {
        uint64_t sum = 0;
        for (uint32_t i = threadIdx.x; i < s.n; i += CUDA_SAMPLE_THREADS)
            sum += mass(i);
        cut_set(sh, &s, list, sample_part(block_sum(sh, sum), r.top_p), key, bin, mass);
    }
    if (r.min_p > 0) {
        for (uint32_t i = threadIdx.x; i < s.n; i += CUDA_SAMPLE_THREADS)
            if (!(sc_expf(s.l[i] - max) >= r.min_p))
                s.l[i] = -INFINITY;
        __syncthreads();
    }
    return draw_token(sh, s, r, max);
}

/* What the model gave the token before edits: later edits first, so that the earliest has the last word. */
DEVICE void tell_logit(const cuda_sample &a, const cuda_sample_row &r, const float *l, uint32_t token, float *ret)
{
    const sample_edit *edit = a.edits + r.first_edit;
    if (threadIdx.x == 0)
        *ret = l[token];
    __syncthreads();
    for (uint32_t i = r.n_biases + threadIdx.x; i < r.n_edits; i += CUDA_SAMPLE_THREADS)
        if ((uint32_t)edit[i].token == token)
            *ret = edit[i].bias;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < r.n_biases; i += CUDA_SAMPLE_THREADS)
        if ((uint32_t)edit[i].token == token && (i == 0 || (uint32_t)edit[i - 1].token != token))
            *ret = edit[i].bias;
}

/* A block a row. */
DEVICE void sample_logits(const cuda_sample &a)
{
    SHARED(uint64_t, bins, SAMPLE_BINS);
    SHARED(uint64_t, parts, SAMPLE_WARPS);
    SHARED(float, kept, CUDA_SAMPLE_LIST);
    SHARED(uint32_t, kept_id, CUDA_SAMPLE_LIST);
    SHARED(uint32_t, word, 2);
    auto sh = share(bins, parts, kept, kept_id, word);
    const cuda_sample_row r = a.rows[blockIdx.x];
    cuda_sample_found *found = a.found + blockIdx.x;
    float *l = a.logits + (uint64_t)r.logits * a.n_vocab;
    token_set s = {l, NULL, a.n_vocab};
    sample_scan raw = scan_set(sh, s), left = raw;
    uint64_t sum = 0;
    bool can = can_choose(raw);
    if (can) {
        for (uint32_t i = threadIdx.x; i < s.n; i += CUDA_SAMPLE_THREADS)
            sum += sample_mass(sc_expf(l[i] - raw.max));
        sum = block_sum(sh, sum);
        for (uint32_t i = threadIdx.x; i < r.n_given; i += CUDA_SAMPLE_THREADS)
            a.given_logits[r.first_given + i] = l[a.given[r.first_given + i]];
        uint32_t n = r.top ? top_tokens(sh, s, raw.max, r.top, a.top_tokens + r.first_top, a.top_logits + r.first_top) : 0;
        if (threadIdx.x == 0)
            found->n_top = n;
        __syncthreads();
        if (r.choose && (r.n_edits || r.mask)) {
            edit_logits(a, r, l);
            left = scan_set(sh, s);
        }
        if (r.choose && can_choose(left)) {
            uint32_t token = choose_token(sh, a, r, l, left);
            tell_logit(a, r, l, token, &found->logit);
            if (threadIdx.x == 0)
                found->token = token;
        }
    }
    if (threadIdx.x == 0) {
        found->sum = sum;
        found->raw_max = raw.max;
        found->raw_id = raw.id;
        found->raw_bad = raw.bad;
        found->left_max = left.max;
        found->left_id = left.id;
        found->left_bad = left.bad;
    }
}

#endif
