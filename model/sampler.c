/* See sampler.h. Nothing here sorts a vocabulary: top-k scans once with a heap of k, and top-p, typical and draws pop from a heap
 * that was built in linear time, only as far as the kept probability reaches. Exponentials are our own (kernels/fmath.h) and all
 * sums are of integers (sample_mass), exact in any order: that is what makes a draw the same on every machine, and on a device
 * that adds up with hundreds of threads (kernels/cuda/sample.cuh takes the same steps).
 *
 * The set that remains after the filters is a set of ids; penalties and bias change a copy of the logits, so that the
 * caller's stay as the model gave them. */
#include "model/sampler.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/fmath.h"
#include "kernels/kernels.h"

enum { MAX_VOCAB = 1 << 24, TILE = 1024, NUCLEUS_FIRST = 256 };

/* One possible token. key: what it is ordered by just now (its logit, or minus its distance from typical). */
struct cand {
    float key;
    int32_t id;
};

struct sampler {
    uint32_t n_vocab;
    float *logits;   /* [n_vocab] with bias and penalties */
    uint32_t *count; /* [n_vocab] times seen in the penalties' window; all 0 between calls */
    struct cand *cands;
    uint64_t *sums; /* of the tiles' masses */
    float tile[TILE];
    struct kernels k;
};

struct sampler *sampler_create(uint32_t n_vocab, const char *isa, struct err *err)
{
    struct sampler *s;

    if (n_vocab == 0 || n_vocab > MAX_VOCAB)
        return err_set(err, ERR_INPUT, "sampler: a vocabulary of %u tokens; 1 to %d can be sampled", n_vocab, MAX_VOCAB), NULL;
    s = mem_new(1, sizeof *s, err);
    if (!s)
        return NULL;
    s->n_vocab = n_vocab;
    s->logits = mem_new(n_vocab, sizeof *s->logits, err);
    s->count = mem_new(n_vocab, sizeof *s->count, err);
    s->cands = mem_new(n_vocab, sizeof *s->cands, err);
    s->sums = mem_new((n_vocab + TILE - 1) / TILE, sizeof *s->sums, err);
    if (!s->logits || !s->count || !s->cands || !s->sums || kernels_select(isa, &s->k, err) != 0) {
        sampler_destroy(s);
        return NULL;
    }
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (!s)
        return;
    free(s->logits);
    free(s->count);
    free(s->cands);
    free(s->sums);
    free(s);
}

/* --- parameters ---------------------------------------------------------- */

static int check_range(const char *name, double value, double min, double max, struct err *err)
{
    if (value >= min && value <= max) /* false for NaN */
        return 0;
    return err_set(err, ERR_USAGE, "%s is %g; %g to %g is allowed", name, value, min, max);
}

int sample_params_check(const struct sample_params *p, uint32_t n_vocab, struct err *err)
{
    if (check_range("temperature", p->temperature, 0, 100, err) || check_range("top_p", p->top_p, 0, 1, err) ||
        check_range("min_p", p->min_p, 0, 1, err) || check_range("typical_p", p->typical_p, 0, 1, err) ||
        check_range("repetition_penalty", p->repetition_penalty, 0.01, 100, err) ||
        check_range("presence_penalty", p->presence_penalty, -100, 100, err) ||
        check_range("frequency_penalty", p->frequency_penalty, -100, 100, err))
        return -1;
    if (p->penalty_last < -1)
        return err_set(err, ERR_USAGE, "penalty_last is %d; -1 (all), 0 (none) or a number of tokens is allowed", p->penalty_last);
    if (p->n_bias > SAMPLE_MAX_BIAS)
        return err_set(err, ERR_USAGE, "logit_bias names %u tokens; at most %d are allowed", p->n_bias, SAMPLE_MAX_BIAS);
    if (p->n_bias && !p->bias)
        return err_set(err, ERR_INTERNAL, "logit_bias: %u tokens, but no list", p->n_bias);
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].token < 0 || (uint32_t)p->bias[i].token >= n_vocab)
            return err_set(err, ERR_USAGE, "logit_bias: token %d; the vocabulary has 0 to %u", p->bias[i].token, n_vocab - 1);
        if (isnan(p->bias[i].bias) || p->bias[i].bias > FLT_MAX)
            return err_set(err, ERR_USAGE, "logit_bias: %g for token %d; a finite number or -inf is allowed",
                           (double)p->bias[i].bias, p->bias[i].token);
    }
    return 0;
}

/* --- random numbers ------------------------------------------------------ */

/* Philox-4x32-10: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011). */
uint64_t sampler_random(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t c[4] = {choice, position, draw, 0};

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return (uint64_t)c[1] << 32 | c[0];
}

/* --- order and heaps ----------------------------------------------------- */

static inline bool better(struct cand a, struct cand b)
{
    return a.key > b.key || (a.key == b.key && a.id < b.id);
}

/* Restores the heap below i; its top is the best candidate, or the worst. */
static inline void sift_down(struct cand *heap, size_t n, size_t i, bool worst_on_top)
{
    struct cand moving = heap[i];

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && better(heap[child + 1], heap[child]) != worst_on_top)
            child++;
        if (better(heap[child], moving) == worst_on_top)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

static void heapify(struct cand *heap, size_t n, bool worst_on_top)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i, worst_on_top);
}

/* Moves the best of the n candidates, by then on the heap's top, behind the other n - 1. */
static inline struct cand pop_best(struct cand *heap, size_t n)
{
    struct cand best = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = best;
    if (n > 1)
        sift_down(heap, n - 1, 0, false);
    return best;
}

/* The popped candidates lie, worst first, at the end of the n: brings them to the front, best first. */
static void popped_to_front(struct cand *cands, size_t n, size_t popped)
{
    for (size_t i = 0, j = n - 1; i < j; i++, j--) {
        struct cand t = cands[i];
        cands[i] = cands[j];
        cands[j] = t;
        if (i + 1 >= popped)
            break;
    }
}

/* The k best of n logits, in no particular order. Returns how many there are. */
static size_t select_best(struct cand *out, const float *logits, size_t n, size_t k)
{
    if (k > n)
        k = n;
    if (k == 0)
        return 0;
    for (size_t i = 0; i < k; i++)
        out[i] = (struct cand){logits[i], (int32_t)i};
    if (k == n)
        return n;
    heapify(out, k, true);
    for (size_t i = k; i < n; i++)
        if (logits[i] > out[0].key) { /* an equal one has the higher id: it loses */
            out[0] = (struct cand){logits[i], (int32_t)i};
            sift_down(out, k, 0, true);
        }
    return k;
}

/* --- logits -------------------------------------------------------------- */

int sampler_judge(const struct sample_scan *s, uint32_t n_vocab, struct err *err)
{
    if (s->bad != UINT32_MAX)
        return err_set(err, ERR_INPUT, "the model is broken: the logit of token %u is not a number", s->bad);
    if (s->max > FLT_MAX)
        return err_set(err, ERR_INPUT, "the model is broken: the logit of token %u is infinite", s->id);
    if (s->max < -FLT_MAX)
        return err_set(err, ERR_INPUT, "the model is broken: all %u logits are -inf", n_vocab);
    return 0;
}

int sampler_judge_left(const struct sample_scan *s, const struct sample_params *p, struct err *err)
{
    if (sampler_judge(s, 0, NULL) == 0)
        return 0;
    return err_set(err, ERR_INPUT, "%s leaves no token to choose from", p->mask ? "the grammar (with logit_bias)" : "logit_bias");
}

/* The largest logit and its id. -inf is a logit (a token that cannot come). */
static struct sample_scan scan(const float *logits, uint32_t n)
{
    float max = -INFINITY;
    uint32_t id = 0, bad = UINT32_MAX;

    for (uint32_t i = n; i-- > 0;) { /* backwards: a tie goes to the lowest id, and so does the blame */
        if (logits[i] >= max) {
            max = logits[i];
            id = i;
        } else if (isnan(logits[i])) {
            bad = i;
        }
    }
    return (struct sample_scan){.max = max, .id = id, .bad = bad};
}

/* Masses of e^((logit - max) / temperature), added up; leaves the tiles' own in s->sums and the last one's exponentials. */
static uint64_t sum_masses(struct sampler *s, const float *logits, float max, float temperature)
{
    uint64_t sum = 0;
    for (uint32_t i = 0, t = 0; i < s->n_vocab; i += TILE, t++) {
        uint32_t n = s->n_vocab - i < TILE ? s->n_vocab - i : TILE;
        s->k.exps(logits + i, n, max, temperature, s->tile);
        s->sums[t] = 0;
        for (uint32_t k = 0; k < n; k++)
            s->sums[t] += sample_mass(s->tile[k]);
        sum += s->sums[t];
    }
    return sum;
}

/* scan, with the sum of all masses where it is asked for. */
static int scan_all(struct sampler *s, const float *logits, bool sum, struct sample_scan *ret, struct err *err)
{
    *ret = scan(logits, s->n_vocab);
    if (sampler_judge(ret, s->n_vocab, err) != 0)
        return -1;
    ret->sum = sum ? sum_masses(s, logits, ret->max, 1) : 0;
    return 0;
}

double sampler_log_total(const struct sample_scan *s)
{
    return sc_log((double)s->sum * (1 / SAMPLE_MASS_ONE));
}

float sampler_logprob(float logit, const struct sample_scan *s, double log_total)
{
    return (float)((double)logit - s->max - log_total);
}

static void penalize(struct sampler *s, const struct sample_params *p, const int32_t *history, size_t n)
{
    size_t window = p->penalty_last < 0 || (size_t)p->penalty_last > n ? n : (size_t)p->penalty_last;
    const int32_t *seen = window ? history + (n - window) : NULL;

    for (size_t i = 0; i < window; i++)
        if (seen[i] >= 0 && (uint32_t)seen[i] < s->n_vocab)
            s->count[seen[i]]++;
    for (size_t i = 0; i < window; i++) {
        if (seen[i] < 0 || (uint32_t)seen[i] >= s->n_vocab || s->count[seen[i]] == 0)
            continue;
        float *l = &s->logits[seen[i]];
        *l = sample_penalized(*l, p->repetition_penalty, p->frequency_penalty, p->presence_penalty, s->count[seen[i]]);
        s->count[seen[i]] = 0;
    }
}

static bool penalizes(const struct sample_params *p, size_t n_history)
{
    return p->penalty_last != 0 && n_history > 0 && (p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0);
}

/* The logits to choose by: the caller's own where nothing changes them, else our copy. */
static const float *adjusted(struct sampler *s, const struct sample_params *p, const float *logits, const int32_t *history, size_t n)
{
    bool penalties = penalizes(p, n);

    if (!penalties && p->n_bias == 0 && !p->mask)
        return logits;
    memcpy(s->logits, logits, s->n_vocab * sizeof *logits);
    for (uint32_t i = 0; i < p->n_bias; i++)
        if ((uint32_t)p->bias[i].token < s->n_vocab)
            s->logits[p->bias[i].token] = sample_finite(s->logits[p->bias[i].token] + p->bias[i].bias);
    if (penalties)
        penalize(s, p, history, n);
    for (uint32_t i = 0; p->mask && i < s->n_vocab; i++)
        if (!(p->mask[i / 8] >> i % 8 & 1))
            s->logits[i] = -INFINITY;
    return s->logits;
}

/* --- filters: each takes n candidates and returns how many stay, at the front --- */

static uint64_t sum_of(const struct cand *cands, size_t n, const float *logits, float max)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += sample_mass(sc_expf(logits[cands[i].id] - max));
    return sum;
}

/* Keeps the candidates, best key first, until their mass reaches `enough`. Returns false where all together do not. */
static bool keep_probability(struct cand *cands, size_t *n, const float *logits, float max, uint64_t enough)
{
    uint64_t kept = 0;
    size_t popped = 0;

    heapify(cands, *n, false);
    while (popped < *n && kept < enough) {
        struct cand c = pop_best(cands, *n - popped);
        popped++;
        kept += sample_mass(sc_expf(logits[c.id] - max));
    }
    popped_to_front(cands, *n, popped);
    *n = popped;
    return kept >= enough;
}

/* The same of the whole vocabulary, in which a few hundred nearly always suffice. */
static size_t nucleus(struct sampler *s, const float *logits, float max, float keep)
{
    uint64_t enough = sample_part(sum_masses(s, logits, max, 1), keep);
    size_t n;

    for (size_t most = NUCLEUS_FIRST;; most *= 16) {
        n = select_best(s->cands, logits, s->n_vocab, most);
        if (keep_probability(s->cands, &n, logits, max, enough) || most >= s->n_vocab)
            return n;
    }
}

/* Locally typical sampling (Meister et al. 2022): the tokens whose surprise is nearest to the expected one. */
static size_t keep_typical(struct cand *cands, size_t n, const float *logits, float max, float keep)
{
    uint64_t sum = 0, weighted = 0;

    for (size_t i = 0; i < n; i++) {
        float d = logits[cands[i].id] - max, e = sc_expf(d);
        sum += sample_mass(e);
        weighted += sample_surprise(e, d);
    }
    /* With z = ln sum: surprise of a token z - d, entropy z - the mean of d; z falls out of their distance. */
    float mean = sample_mean(weighted, sum);
    for (size_t i = 0; i < n; i++)
        cands[i].key = -sample_distance(logits[cands[i].id], max, mean);
    keep_probability(cands, &n, logits, max, sample_part(sum, keep));
    for (size_t i = 0; i < n; i++)
        cands[i].key = logits[cands[i].id];
    return n;
}

static size_t keep_min_p(struct cand *cands, size_t n, const float *logits, float max, float min_p)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (sc_expf(logits[cands[i].id] - max) >= min_p)
            cands[kept++] = cands[i];
    return kept;
}

/* Those of the whole vocabulary that may pass it. */
static size_t near_best(struct sampler *s, const float *logits, float max, float min_p)
{
    float least = (float)sc_log(min_p) - 0.01f;
    size_t n = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (logits[i] - max >= least)
            s->cands[n++] = (struct cand){logits[i], (int32_t)i};
    return n;
}

static float best_logit(const struct cand *cands, size_t n, const float *logits)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        max = logits[cands[i].id] > max ? logits[cands[i].id] : max;
    return max;
}

static inline uint64_t draw_mass(const float *logits, int32_t id, float max, float temperature)
{
    return sample_mass(sc_expf((logits[id] - max) / temperature));
}

/* One of the n candidates, with probability proportional to e^(logit / temperature). The order in which they are gone through
 * counts: best first, or by id where nothing was filtered. in_order: they lie so. */
static int32_t draw(struct cand *cands, size_t n, const float *logits, float max, float temperature, uint64_t random, bool in_order)
{
    uint64_t sum = 0, at = 0, aim;
    struct cand c = cands[0];

    for (size_t i = 0; i < n; i++)
        sum += draw_mass(logits, cands[i].id, max, temperature);
    aim = sample_aim(random, sum);
    if (!in_order)
        heapify(cands, n, false);
    for (size_t i = 0; i < n && at <= aim; i++) {
        c = in_order ? cands[i] : pop_best(cands, n - i);
        at += draw_mass(logits, c.id, max, temperature);
    }
    return c.id;
}

/* One of the whole vocabulary, by id: finds the tile first. */
static int32_t draw_any(struct sampler *s, const float *logits, float max, float temperature, uint64_t random)
{
    uint64_t aim = sample_aim(random, sum_masses(s, logits, max, temperature)), at = 0;
    uint32_t tile = 0, i = 0;

    while (at + s->sums[tile] <= aim)
        at += s->sums[tile++];
    uint32_t first = tile * TILE, n = s->n_vocab - first < TILE ? s->n_vocab - first : TILE;
    s->k.exps(logits + first, n, max, temperature, s->tile);
    for (at += sample_mass(s->tile[0]); at <= aim && i + 1 < n; at += sample_mass(s->tile[i]))
        i++;
    return (int32_t)(first + i);
}

/* The token, where there is a temperature. Filters come in llama.cpp's order: top-k, typical, top-p, min-p. */
static int32_t choose(struct sampler *s, const struct sample_params *p, const float *l, float max, uint64_t random)
{
    bool all = p->top_k == 0 || p->top_k >= s->n_vocab, in_order = true;
    size_t n;

    if (all && p->typical_p >= 1) {
        if (p->top_p < 1)
            n = nucleus(s, l, max, p->top_p);
        else if (p->min_p > 0)
            n = near_best(s, l, max, p->min_p);
        else
            return draw_any(s, l, max, p->temperature, random);
    } else {
        n = select_best(s->cands, l, s->n_vocab, all ? s->n_vocab : p->top_k);
        if (p->typical_p < 1) {
            n = keep_typical(s->cands, n, l, max, p->typical_p);
            max = best_logit(s->cands, n, l); /* the likeliest token need not be typical */
        }
        in_order = p->top_p < 1;
        if (in_order)
            keep_probability(s->cands, &n, l, max, sample_part(sum_of(s->cands, n, l, max), p->top_p));
    }
    if (p->min_p > 0)
        n = keep_min_p(s->cands, n, l, max, p->min_p);
    return draw(s->cands, n, l, max, p->temperature, random, in_order);
}

/* --- the two entries ----------------------------------------------------- */

int sampler_sample(struct sampler *s, const struct sample_params *p, const float *logits, const int32_t *history, size_t n_history,
                   uint32_t choice, uint32_t position, int32_t *ret_token, float *ret_logprob, struct err *err)
{
    struct sample_scan raw, left;
    const float *l;

    if (scan_all(s, logits, ret_logprob != NULL, &raw, err) != 0)
        return -1;
    left = raw;
    l = adjusted(s, p, logits, history, n_history);
    if (l != logits) {
        left = scan(l, s->n_vocab);
        if (sampler_judge_left(&left, p, err) != 0)
            return -1;
    }
    if (p->temperature > 0)
        left.id = (uint32_t)choose(s, p, l, left.max, sampler_random(p->seed, choice, position, 0));
    *ret_token = (int32_t)left.id;
    if (ret_logprob)
        *ret_logprob = sampler_logprob(logits[left.id], &raw, sampler_log_total(&raw));
    return 0;
}

int sampler_given(struct sampler *s, const float *logits, const int32_t *ids, size_t n, float *ret_logprobs, struct err *err)
{
    struct sample_scan raw;
    double log_total;

    if (scan_all(s, logits, true, &raw, err) != 0)
        return -1;
    log_total = sampler_log_total(&raw);
    for (size_t i = 0; i < n; i++)
        ret_logprobs[i] = sampler_logprob(logits[ids[i]], &raw, log_total);
    return 0;
}

int sampler_top(struct sampler *s, const float *logits, uint32_t k, int32_t *ret_ids, float *ret_logprobs, struct err *err)
{
    struct sample_scan raw;
    double log_total;
    size_t n;

    if (k > SAMPLE_MAX_TOP)
        return err_set(err, ERR_USAGE, "%u most likely tokens asked for; at most %d are given", k, SAMPLE_MAX_TOP);
    if (scan_all(s, logits, true, &raw, err) != 0)
        return -1;
    log_total = sampler_log_total(&raw);
    n = select_best(s->cands, logits, s->n_vocab, k);
    heapify(s->cands, n, false);
    for (size_t i = 0; i < n; i++) {
        struct cand c = pop_best(s->cands, n - i);
        ret_ids[i] = c.id;
        ret_logprobs[i] = sampler_logprob(c.key, &raw, log_total);
    }
    return (int)n;
}

/* --- for devices ---------------------------------------------------------- */

/* In order of their tokens, those of one token as they stand. Mostly they come so. */
static size_t list_biases(const struct sample_params *p, uint32_t n_vocab, struct sample_edit *ret)
{
    size_t n = 0;
    for (uint32_t i = 0; i < p->n_bias; i++) {
        size_t at = n;
        if ((uint32_t)p->bias[i].token >= n_vocab)
            continue;
        for (; at > 0 && ret[at - 1].token > p->bias[i].token; at--)
            ret[at] = ret[at - 1];
        ret[at] = (struct sample_edit){.token = p->bias[i].token, .bias = p->bias[i].bias};
        n++;
    }
    return n;
}

size_t sampler_edits(struct sampler *s, const struct sample_params *p, const int32_t *history, size_t n_history, struct sample_edit *ret,
                     size_t *ret_biases)
{
    size_t n = *ret_biases = list_biases(p, s->n_vocab, ret);
    size_t window = p->penalty_last < 0 || (size_t)p->penalty_last > n_history ? n_history : (size_t)p->penalty_last;

    if (!penalizes(p, n_history))
        return n;
    for (size_t i = n_history - window; i < n_history; i++)
        if (history[i] >= 0 && (uint32_t)history[i] < s->n_vocab && s->count[history[i]]++ == 0)
            ret[n++] = (struct sample_edit){.token = history[i]};
    for (size_t i = *ret_biases; i < n; i++) {
        ret[i].count = s->count[ret[i].token];
        s->count[ret[i].token] = 0;
    }
    return n;
}
