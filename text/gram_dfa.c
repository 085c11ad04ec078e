/* Regular languages over characters, for what must hold at once (gram.h). Characters that no part tells apart are one class. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/gram.h"

enum { MAX_NESTING = 512, MAX_SETS = 1 << 20, MAX_NFA = 1 << 16, END = GRAM_MAX_CHAR + 1 };

void gram_dfa_free(struct gram_dfa *d)
{
    if (!d)
        return;
    free(d->next);
    free(d->accepts);
    free(d->ranges);
    free(d->class_of);
    free(d);
}

static uint32_t too_large(struct gram_builder *b)
{
    if (!b->failed)
        err_set(b->err, ERR_LIMIT, "a pattern with its lengths, or a range of numbers, takes more than %d states; make it simpler",
                GRAM_DFA_MAX_STATES);
    return gram_failed(b);
}

/* Room for one more state; its number. */
static uint32_t add_state(struct gram_builder *b, struct gram_dfa *d, size_t *cap, size_t *cap_accepts, bool accepts)
{
    if (b->failed || d->n_states >= GRAM_DFA_MAX_STATES || (uint64_t)(d->n_states + 1) * d->n_classes > GRAM_DFA_MAX_CELLS)
        return too_large(b);
    if (mem_grow(&d->next, cap, (size_t)(d->n_states + 1) * d->n_classes, sizeof *d->next, SIZE_MAX, "states", b->err) != 0 ||
        mem_grow(&d->accepts, cap_accepts, (size_t)d->n_states + 1, 1, SIZE_MAX, "states", b->err) != 0)
        return gram_failed(b);
    d->accepts[d->n_states] = accepts;
    return d->n_states++;
}

static int set_ranges(struct gram_builder *b, struct gram_dfa *d, const uint32_t *begins, uint32_t n)
{
    if (!(d->ranges = mem_new(n, sizeof *d->ranges, b->err)) || !(d->class_of = mem_new(n, sizeof *d->class_of, b->err))) {
        gram_failed(b);
        return -1;
    }
    d->n_ranges = d->n_classes = n;
    for (uint32_t i = 0; i < n; i++) {
        d->ranges[i] = (struct gram_range){begins[i], (i + 1 < n ? begins[i + 1] : END) - 1};
        d->class_of[i] = i;
    }
    return 0;
}

static uint32_t range_at(const struct gram_dfa *d, uint32_t c)
{
    uint32_t low = 0, high = d->n_ranges - 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (d->ranges[middle].lo <= c)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* --- from an expression -------------------------------------------------------------------------------------------------- */

struct nfa_edge {
    uint32_t from, to, lo, hi; /* classes [lo, hi]; lo > hi: none is needed */
};

struct maker {
    struct gram_builder *b;
    struct gram_dfa *d;
    uint32_t *begins; /* where classes begin */
    size_t n_begins, cap_begins;
    struct nfa_edge *edges; /* sorted by from once all are there */
    size_t n_edges, cap_edges;
    uint32_t n_nodes;
    uint32_t *first;
    uint32_t *sets, *set_at; /* of NFA nodes, of each state; where each begins */
    size_t n_sets, cap_sets, cap_set_at;
    uint32_t *slots; /* of states, hashed by set: number + 1 */
    size_t n_slots;
    uint32_t *work; /* the set at hand */
    uint32_t n_work;
    uint8_t *in; /* by node: it is in that */
};

static void add_begin(struct maker *m, uint32_t c)
{
    if (m->b->failed)
        return;
    if (mem_grow(&m->begins, &m->cap_begins, m->n_begins + 1, sizeof *m->begins, GRAM_DFA_MAX_CELLS, "character ranges", m->b->err) != 0)
        gram_failed(m->b);
    else
        m->begins[m->n_begins++] = c;
}

/* All ranges of characters in an expression. */
static void find_ranges(struct maker *m, uint32_t expr, unsigned nesting)
{
    const struct gram_expr e = m->b->exprs[expr];
    uint32_t c;
    if (!gram_goes_on(m->b))
        return;
    if (nesting > MAX_NESTING) {
        too_large(m->b);
        return;
    }
    switch (e.kind) {
    case GRAM_TEXT:
        for (size_t i = 0, n; i < e.b; i += n) {
            n = utf8_decode(m->b->text + e.a + i, e.b - i, &c);
            add_begin(m, c);
            add_begin(m, c + 1);
        }
        break;
    case GRAM_SET:
        for (uint32_t i = 0; i < e.b; i++) {
            add_begin(m, m->b->ranges[e.a + i].lo);
            add_begin(m, m->b->ranges[e.a + i].hi + 1);
        }
        break;
    case GRAM_SEQ:
    case GRAM_ALT:
        for (uint32_t i = 0; i < e.b; i++)
            find_ranges(m, m->b->ids[e.a + i], nesting + 1);
        break;
    case GRAM_REP:
        find_ranges(m, e.a, nesting + 1);
        break;
    case GRAM_RULE:
        find_ranges(m, m->b->rules[e.a], nesting + 1);
        break;
    default:
        break;
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int make_classes(struct maker *m, uint32_t expr)
{
    size_t n = 0;
    add_begin(m, 0);
    find_ranges(m, expr, 0);
    if (m->b->failed)
        return -1;
    qsort(m->begins, m->n_begins, sizeof *m->begins, by_number);
    for (size_t i = 0; i < m->n_begins; i++)
        if (m->begins[i] < END && (n == 0 || m->begins[n - 1] != m->begins[i]))
            m->begins[n++] = m->begins[i];
    return set_ranges(m->b, m->d, m->begins, (uint32_t)n);
}

static uint32_t nfa_node(struct maker *m)
{
    if (m->n_nodes >= MAX_NFA)
        too_large(m->b);
    return m->n_nodes++;
}

static void nfa_edge(struct maker *m, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi)
{
    if (m->b->failed)
        return;
    if (mem_grow(&m->edges, &m->cap_edges, m->n_edges + 1, sizeof *m->edges, 4 * MAX_NFA, "edges of a pattern", m->b->err) != 0)
        gram_failed(m->b);
    else
        m->edges[m->n_edges++] = (struct nfa_edge){from, to, lo, hi};
}

static void nfa_chars(struct maker *m, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi)
{
    nfa_edge(m, from, to, range_at(m->d, lo), range_at(m->d, hi));
}

static void nfa_of(struct maker *m, uint32_t expr, uint32_t from, uint32_t to);

static void nfa_rep(struct maker *m, const struct gram_expr *e, uint32_t from, uint32_t to)
{
    uint32_t i = 0, copies = e->c == GRAM_ANY_NUMBER ? e->b : e->c;
    for (; i < copies && gram_goes_on(m->b); i++) {
        uint32_t next = nfa_node(m);
        if (i >= e->b)
            nfa_edge(m, from, to, 1, 0);
        nfa_of(m, e->a, from, next);
        from = next;
    }
    if (e->c == GRAM_ANY_NUMBER) {
        uint32_t loop = nfa_node(m);
        nfa_edge(m, from, loop, 1, 0);
        nfa_of(m, e->a, loop, loop);
        from = loop;
    }
    nfa_edge(m, from, to, 1, 0);
}

static void nfa_of(struct maker *m, uint32_t expr, uint32_t from, uint32_t to)
{
    const struct gram_expr e = m->b->exprs[expr];
    uint32_t c;
    if (!gram_goes_on(m->b))
        return;
    switch (e.kind) {
    case GRAM_EMPTY:
        nfa_edge(m, from, to, 1, 0);
        break;
    case GRAM_TEXT:
        for (size_t i = 0, n; i < e.b; i += n) {
            n = utf8_decode(m->b->text + e.a + i, e.b - i, &c);
            uint32_t next = i + n < e.b ? nfa_node(m) : to;
            nfa_chars(m, from, next, c, c);
            from = next;
        }
        break;
    case GRAM_SET:
        for (uint32_t i = 0; i < e.b; i++)
            nfa_chars(m, from, to, m->b->ranges[e.a + i].lo, m->b->ranges[e.a + i].hi);
        break;
    case GRAM_SEQ:
        for (uint32_t i = 0; i < e.b; i++) {
            uint32_t next = i + 1 < e.b ? nfa_node(m) : to;
            nfa_of(m, m->b->ids[e.a + i], from, next);
            from = next;
        }
        break;
    case GRAM_ALT:
        for (uint32_t i = 0; i < e.b; i++)
            nfa_of(m, m->b->ids[e.a + i], from, to);
        break;
    case GRAM_REP:
        nfa_rep(m, &e, from, to);
        break;
    case GRAM_RULE:
        nfa_of(m, m->b->rules[e.a], from, to);
        break;
    case GRAM_NEVER:
    case GRAM_GRAPH: /* is made of what this makes, never the other way round */
        break;
    }
}

static int by_from(const void *a, const void *b)
{
    const struct nfa_edge *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

static void nfa_add(struct maker *m, uint32_t node)
{
    if (!m->in[node])
        m->work[m->n_work++] = node;
    m->in[node] = 1;
}

/* The set at hand, m->work, closed over edges that need nothing, and in order. */
static void nfa_close(struct maker *m)
{
    for (uint32_t k = 0; k < m->n_work; k++) {
        uint32_t node = m->work[k];
        for (uint32_t i = m->first[node]; i < m->first[node + 1]; i++)
            if (m->edges[i].lo > m->edges[i].hi)
                nfa_add(m, m->edges[i].to);
    }
    if (m->n_work > 1)
        qsort(m->work, m->n_work, sizeof *m->work, by_number);
}

static uint64_t hash_set(const uint32_t *set, size_t n)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        h = (h ^ set[i]) * 0x100000001b3;
    return h ^ h >> 31;
}

static int dfa_slots(struct maker *m)
{
    size_t n = m->n_slots ? 2 * m->n_slots : 64;
    uint32_t *slots = mem_new(n, sizeof *slots, m->b->err);
    if (!slots) {
        gram_failed(m->b);
        return -1;
    }
    for (uint32_t i = 0; i < m->d->n_states; i++) {
        size_t at = hash_set(m->sets + m->set_at[i], m->set_at[i + 1] - m->set_at[i]) & (n - 1);
        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = i + 1;
    }
    free(m->slots);
    m->slots = slots;
    m->n_slots = n;
    return 0;
}

/* The state of the set at hand, which is empty afterwards. */
static uint32_t state_of(struct maker *m, size_t *cap, size_t *cap_accepts)
{
    struct gram_builder *b = m->b;
    size_t begin = m->n_sets, n;
    bool accepts;

    nfa_close(m);
    n = m->n_work;
    accepts = m->in[1];
    for (size_t i = 0; i < n; i++)
        m->in[m->work[i]] = 0;
    m->n_work = 0;
    if ((2 * ((size_t)m->d->n_states + 1) > m->n_slots && dfa_slots(m) != 0) || !gram_goes_on(b))
        return 0;
    size_t at = hash_set(m->work, n) & (m->n_slots - 1);
    for (; m->slots[at]; at = (at + 1) & (m->n_slots - 1)) {
        uint32_t i = m->slots[at] - 1;
        if (m->set_at[i + 1] - m->set_at[i] == n && (n == 0 || memcmp(m->sets + m->set_at[i], m->work, n * sizeof *m->sets) == 0))
            return i;
    }
    if (mem_grow(&m->sets, &m->cap_sets, begin + n + 1, sizeof *m->sets, MAX_SETS, "states of a pattern", b->err) != 0 ||
        mem_grow(&m->set_at, &m->cap_set_at, (size_t)m->d->n_states + 2, sizeof *m->set_at, SIZE_MAX, "states", b->err) != 0)
        return gram_failed(b);
    if (n)
        memcpy(m->sets + begin, m->work, n * sizeof *m->sets);
    uint32_t state = add_state(b, m->d, cap, cap_accepts, accepts);
    if (b->failed)
        return 0;
    m->set_at[state] = (uint32_t)begin;
    m->set_at[state + 1] = (uint32_t)(begin + n);
    m->n_sets = begin + n;
    m->slots[at] = state + 1;
    return state;
}

static void determine(struct maker *m)
{
    size_t cap = 0, cap_accepts = 0;
    struct gram_dfa *d = m->d;

    nfa_add(m, 0);
    state_of(m, &cap, &cap_accepts);
    for (uint32_t s = 0; !m->b->failed && s < d->n_states; s++)
        for (uint32_t c = 0; c < d->n_classes && gram_goes_on(m->b); c++) {
            for (uint32_t i = m->set_at[s]; i < m->set_at[s + 1]; i++) {
                uint32_t node = m->sets[i];
                for (uint32_t k = m->first[node]; k < m->first[node + 1]; k++)
                    if (m->edges[k].lo <= c && c <= m->edges[k].hi)
                        nfa_add(m, m->edges[k].to);
            }
            uint32_t to = state_of(m, &cap, &cap_accepts);
            if (!m->b->failed)
                d->next[(size_t)s * d->n_classes + c] = to;
        }
}

struct gram_dfa *gram_dfa_of(struct gram_builder *b, uint32_t expr)
{
    struct maker m = {.b = b, .n_nodes = 2};

    if (b->failed)
        return NULL;
    if (!(m.d = mem_new(1, sizeof *m.d, b->err))) {
        gram_failed(b);
        return NULL;
    }
    if (make_classes(&m, expr) == 0)
        nfa_of(&m, expr, 0, 1);
    if (!b->failed && (!(m.first = mem_new((size_t)m.n_nodes + 1, sizeof *m.first, b->err)) || !(m.in = mem_new(m.n_nodes, 1, b->err)) ||
                       !(m.work = mem_new(m.n_nodes, sizeof *m.work, b->err))))
        gram_failed(b);
    if (!b->failed) {
        if (m.n_edges)
            qsort(m.edges, m.n_edges, sizeof *m.edges, by_from);
        for (size_t i = 0; i < m.n_edges; i++)
            m.first[m.edges[i].from + 1]++;
        for (uint32_t i = 0; i < m.n_nodes; i++)
            m.first[i + 1] += m.first[i];
        determine(&m);
    }
    free(m.begins);
    free(m.edges);
    free(m.first);
    free(m.sets);
    free(m.set_at);
    free(m.slots);
    free(m.in);
    free(m.work);
    if (!b->failed)
        return m.d;
    gram_dfa_free(m.d);
    return NULL;
}

/* --- two at once --------------------------------------------------------------------------------------------------------- */

struct pairs {
    uint64_t *of; /* a state's pair */
    size_t cap_of;
    uint32_t *slots;
    size_t n_slots, cap, cap_accepts;
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
    return x ^ x >> 29;
}

/* The state of a pair, made if need be. */
static uint32_t pair_state(struct gram_builder *b, struct gram_dfa *d, struct pairs *p, uint32_t x, uint32_t y, bool accepts)
{
    uint64_t pair = (uint64_t)x << 32 | y;
    if (2 * ((size_t)d->n_states + 1) > p->n_slots) {
        size_t n = p->n_slots ? 2 * p->n_slots : 64;
        uint32_t *slots = mem_new(n, sizeof *slots, b->err);
        if (!slots)
            return gram_failed(b);
        for (uint32_t i = 0; i < d->n_states; i++) {
            size_t at = mix(p->of[i]) & (n - 1);
            while (slots[at])
                at = (at + 1) & (n - 1);
            slots[at] = i + 1;
        }
        free(p->slots);
        p->slots = slots;
        p->n_slots = n;
    }
    size_t at = mix(pair) & (p->n_slots - 1);
    for (; p->slots[at]; at = (at + 1) & (p->n_slots - 1))
        if (p->of[p->slots[at] - 1] == pair)
            return p->slots[at] - 1;
    uint32_t state = add_state(b, d, &p->cap, &p->cap_accepts, accepts);
    if (b->failed)
        return 0;
    if (mem_grow(&p->of, &p->cap_of, (size_t)state + 1, sizeof *p->of, SIZE_MAX, "states", b->err) != 0)
        return gram_failed(b);
    p->of[state] = pair;
    p->slots[at] = state + 1;
    return state;
}

/* A new automaton over the classes of both; y NULL: of x alone. */
static struct gram_dfa *begin_product(struct gram_builder *b, const struct gram_dfa *x, const struct gram_dfa *y)
{
    struct gram_dfa *d;
    uint32_t *begins, n = 0, i = 0, k = 0;

    if (b->failed)
        return NULL;
    if (!(d = mem_new(1, sizeof *d, b->err)) || !(begins = mem_new((size_t)x->n_ranges + (y ? y->n_ranges : 0), sizeof *begins, b->err))) {
        gram_failed(b);
        gram_dfa_free(d);
        return NULL;
    }
    while (i < x->n_ranges || (y && k < y->n_ranges)) {
        uint32_t a = i < x->n_ranges ? x->ranges[i].lo : END, c = y && k < y->n_ranges ? y->ranges[k].lo : END;
        begins[n++] = a < c ? a : c;
        i += a <= c;
        k += c <= a && y;
    }
    set_ranges(b, d, begins, n);
    free(begins);
    if (!b->failed)
        return d;
    gram_dfa_free(d);
    return NULL;
}

static bool both_accept(const struct gram_dfa *x, uint32_t i, const struct gram_dfa *y, uint32_t k, enum gram_dfa_op op)
{
    return x->accepts[i] && (op == GRAM_DFA_AND ? y->accepts[k] : !y->accepts[k]);
}

struct gram_dfa *gram_dfa_with(struct gram_builder *b, struct gram_dfa *x, const struct gram_dfa *y, enum gram_dfa_op op)
{
    struct gram_dfa *d = b->failed ? NULL : begin_product(b, x, y);
    struct pairs p = {0};

    if (d)
        pair_state(b, d, &p, 0, 0, both_accept(x, 0, y, 0, op));
    for (uint32_t s = 0; d && !b->failed && s < d->n_states; s++)
        for (uint32_t c = 0; c < d->n_classes && gram_goes_on(b); c++) {
            uint32_t at = d->ranges[c].lo;
            uint32_t i = x->next[(size_t)(p.of[s] >> 32) * x->n_classes + x->class_of[range_at(x, at)]];
            uint32_t k = y->next[(size_t)(uint32_t)p.of[s] * y->n_classes + y->class_of[range_at(y, at)]];
            uint32_t to = pair_state(b, d, &p, i, k, both_accept(x, i, y, k, op));
            if (!b->failed)
                d->next[(size_t)s * d->n_classes + c] = to;
        }
    free(p.of);
    free(p.slots);
    gram_dfa_free(x);
    if (!b->failed)
        return d;
    gram_dfa_free(d);
    return NULL;
}

struct gram_dfa *gram_dfa_combine(struct gram_builder *b, struct gram_dfa *x, struct gram_dfa *y, enum gram_dfa_op op)
{
    struct gram_dfa *d = gram_dfa_with(b, x, y, op);
    gram_dfa_free(y);
    return d;
}

struct gram_dfa *gram_dfa_length(struct gram_builder *b, struct gram_dfa *x, uint32_t min, uint32_t max)
{
    uint32_t most = max == GRAM_ANY_NUMBER ? min : max + 1; /* so far it is counted: from there on nothing changes */
    struct gram_dfa *d = b->failed || (min == 0 && max == GRAM_ANY_NUMBER) ? NULL : begin_product(b, x, NULL);
    struct pairs p = {0};

    if (!d)
        return b->failed ? (gram_dfa_free(x), NULL) : x;
    pair_state(b, d, &p, 0, 0, x->accepts[0] && min == 0);
    for (uint32_t s = 0; !b->failed && s < d->n_states; s++)
        for (uint32_t c = 0; c < d->n_classes && gram_goes_on(b); c++) {
            uint32_t n = (uint32_t)p.of[s] < most ? (uint32_t)p.of[s] + 1 : most;
            uint32_t i = x->next[(size_t)(p.of[s] >> 32) * x->n_classes + x->class_of[c]];
            bool over = max != GRAM_ANY_NUMBER && n > max;
            uint32_t to = pair_state(b, d, &p, over ? 0 : i, over ? most : n, !over && x->accepts[i] && n >= min);
            if (!b->failed)
                d->next[(size_t)s * d->n_classes + c] = to;
        }
    free(p.of);
    free(p.slots);
    gram_dfa_free(x);
    if (!b->failed)
        return d;
    gram_dfa_free(d);
    return NULL;
}

/* --- as few as can be ------------------------------------------------------------------------------------------------------ */

struct blocks {
    const struct gram_dfa *d;
    uint32_t *of, *next_of; /* a state's block, before and after a round */
    uint32_t *slots;        /* states, hashed by what they lead to: number + 1 */
    size_t n_slots;
};

static bool alike(const struct blocks *k, uint32_t a, uint32_t b)
{
    const uint32_t *x = k->d->next + (size_t)a * k->d->n_classes, *y = k->d->next + (size_t)b * k->d->n_classes;
    bool same = k->of[a] == k->of[b];
    for (uint32_t c = 0; c < k->d->n_classes && same; c++)
        same = k->of[x[c]] == k->of[y[c]];
    return same;
}

/* One round: states of a block that lead to different blocks are parted. Returns how many blocks there are, numbered in the order of
 * their first states. */
static uint32_t part(struct blocks *k)
{
    const struct gram_dfa *d = k->d;
    uint32_t n = 0;
    memset(k->slots, 0, k->n_slots * sizeof *k->slots);
    for (uint32_t s = 0; s < d->n_states; s++) {
        uint64_t h = k->of[s];
        for (uint32_t c = 0; c < d->n_classes; c++)
            h = mix(h + k->of[d->next[(size_t)s * d->n_classes + c]]) + c;
        size_t at = mix(h) & (k->n_slots - 1);
        while (k->slots[at] && !alike(k, k->slots[at] - 1, s))
            at = (at + 1) & (k->n_slots - 1);
        if (!k->slots[at]) {
            k->slots[at] = s + 1;
            k->next_of[s] = n++;
        } else {
            k->next_of[s] = k->next_of[k->slots[at] - 1];
        }
    }
    uint32_t *swap = k->of;
    k->of = k->next_of;
    k->next_of = swap;
    return n;
}

static void join(struct gram_dfa *d, const uint32_t *of, uint32_t n)
{
    uint32_t made = 0;
    for (uint32_t s = 0; s < d->n_states; s++) {
        if (of[s] != made)
            continue; /* not the first of its block: those come in order */
        for (uint32_t c = 0; c < d->n_classes; c++)
            d->next[(size_t)made * d->n_classes + c] = of[d->next[(size_t)s * d->n_classes + c]];
        d->accepts[made++] = d->accepts[s];
    }
    d->n_states = n;
}

void gram_dfa_minimize(struct gram_builder *b, struct gram_dfa *d)
{
    struct blocks k = {.d = d, .n_slots = 64};
    uint32_t n = 0, before;

    if (!d || b->failed)
        return;
    while (k.n_slots < 2 * (size_t)d->n_states)
        k.n_slots *= 2;
    if (!(k.of = mem_new(d->n_states, sizeof *k.of, b->err)) || !(k.next_of = mem_new(d->n_states, sizeof *k.next_of, b->err)) ||
        !(k.slots = mem_new(k.n_slots, sizeof *k.slots, b->err)))
        gram_failed(b);
    for (uint32_t s = 0; !b->failed && s < d->n_states; s++)
        k.of[s] = d->accepts[s] != d->accepts[0];
    do {
        before = n;
        b->n_looked = 0; /* a round may be long: look at the clock before each */
        n = gram_goes_on(b) ? part(&k) : before;
    } while (n != before);
    if (!b->failed)
        join(d, k.of, n);
    free(k.of);
    free(k.next_of);
    free(k.slots);
}

bool gram_dfa_matches(const struct gram_dfa *d, const char *s, size_t len)
{
    uint32_t state = 0, c;
    for (size_t i = 0, n; i < len; i += n) {
        if ((n = utf8_decode(s + i, len - i, &c)) == 0)
            return false;
        state = d->next[(size_t)state * d->n_classes + d->class_of[range_at(d, c)]];
    }
    return d->accepts[state];
}

/* --- back to an expression ----------------------------------------------------------------------------------------------- */

struct writer {
    struct gram_builder *b;
    const struct gram_dfa *d;
    uint32_t (*encode)(struct gram_builder *b, const struct gram_range *r, size_t n);
    uint8_t *useful; /* states from which an accepting one can be reached */
    struct gram_range *ranges;
    struct known {
        struct gram_range *ranges;
        uint32_t n, expr;
    } * known; /* sets that were encoded already */
    size_t n_known, cap_known;
    struct gram_graph_edge *edges;
    size_t n_edges, cap_edges;
};

static void find_useful(struct writer *w)
{
    const struct gram_dfa *d = w->d;
    bool changed = true;
    memcpy(w->useful, d->accepts, d->n_states);
    while (changed && gram_goes_on(w->b)) {
        changed = false;
        w->b->n_looked = 0;                      /* a round may be long: look at the clock after each */
        for (uint32_t s = d->n_states; s-- > 0;) /* backwards: what leads on was found later, mostly */
            for (uint32_t c = 0; c < d->n_classes && !w->useful[s]; c++)
                if (w->useful[d->next[(size_t)s * d->n_classes + c]]) {
                    w->useful[s] = 1;
                    changed = true;
                }
    }
}

static uint32_t encoded(struct writer *w, uint32_t n)
{
    for (size_t i = 0; i < w->n_known; i++)
        if (w->known[i].n == n && memcmp(w->known[i].ranges, w->ranges, n * sizeof *w->ranges) == 0)
            return w->known[i].expr;
    if (w->b->failed)
        return 0;
    if (mem_grow(&w->known, &w->cap_known, w->n_known + 1, sizeof *w->known, SIZE_MAX, "sets", w->b->err) != 0)
        return gram_failed(w->b);
    struct known *k = &w->known[w->n_known];
    *k = (struct known){mem_new(n, sizeof *k->ranges, w->b->err), n, w->encode(w->b, w->ranges, n)};
    if (!k->ranges)
        return gram_failed(w->b);
    memcpy(k->ranges, w->ranges, n * sizeof *k->ranges);
    w->n_known++;
    return k->expr;
}

static void write_edge(struct writer *w, uint32_t from, uint32_t expr, uint32_t to)
{
    if (w->b->failed)
        return;
    if (mem_grow(&w->edges, &w->cap_edges, w->n_edges + 1, sizeof *w->edges, GRAMMAR_MAX_EDGES, "edges of a pattern", w->b->err) != 0)
        gram_failed(w->b);
    else
        w->edges[w->n_edges++] = (struct gram_graph_edge){from, expr, to};
}

/* From state s to state `to` by all characters that lead there. */
static void write_set(struct writer *w, uint32_t s, uint32_t to, uint8_t *done)
{
    const struct gram_dfa *d = w->d;
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_ranges; i++) {
        if (d->next[(size_t)s * d->n_classes + d->class_of[i]] != to)
            continue;
        done[i] = 1;
        if (n > 0 && w->ranges[n - 1].hi + 1 == d->ranges[i].lo)
            w->ranges[n - 1].hi = d->ranges[i].hi;
        else
            w->ranges[n++] = d->ranges[i];
    }
    write_edge(w, s, encoded(w, n), to);
}

static void write_state(struct writer *w, uint32_t s, uint8_t *done)
{
    const struct gram_dfa *d = w->d;
    memset(done, 0, d->n_ranges);
    if (d->accepts[s])
        write_edge(w, s, gram_empty(w->b), d->n_states);
    for (uint32_t i = 0; i < d->n_ranges && gram_goes_on(w->b); i++) {
        uint32_t to = d->next[(size_t)s * d->n_classes + d->class_of[i]];
        if (!done[i] && w->useful[to])
            write_set(w, s, to, done);
    }
}

uint32_t gram_dfa_expr(struct gram_builder *b, struct gram_dfa *d,
                       uint32_t (*encode)(struct gram_builder *b, const struct gram_range *r, size_t n))
{
    struct writer w = {.b = b, .d = d, .encode = encode};
    uint8_t *done = NULL;
    uint32_t ret = 0;

    if (b->failed) {
        gram_dfa_free(d);
        return 0;
    }
    if (!(w.useful = mem_new(d->n_states, 1, b->err)) || !(w.ranges = mem_new(d->n_ranges, sizeof *w.ranges, b->err)) ||
        !(done = mem_new(d->n_ranges, 1, b->err)))
        gram_failed(b);
    if (!b->failed)
        find_useful(&w);
    for (uint32_t s = 0; !b->failed && s < d->n_states; s++)
        if (w.useful[s])
            write_state(&w, s, done);
    if (!b->failed)
        ret = w.useful[0] ? gram_graph(b, w.edges, w.n_edges, d->n_states) : gram_never(b);
    for (size_t i = 0; i < w.n_known; i++)
        free(w.known[i].ranges);
    free(w.known);
    free(w.edges);
    free(w.useful);
    free(w.ranges);
    free(done);
    gram_dfa_free(d);
    return ret;
}
