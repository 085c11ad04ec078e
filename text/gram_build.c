/* Expressions and rules. See gram.h. */
#include <stdlib.h>
#include <string.h>

#include "text/gram.h"

enum { LOOK_EVERY = 256, SHORT_TEXT = 4, WRAP_OVER = 3 /* what is repeated more often is written once, as a rule */ };

static int64_t cpu_ms_since(const struct timespec *began)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (now.tv_sec - began->tv_sec) * 1000 + (now.tv_nsec - began->tv_nsec) / 1000000;
}

void gram_builder_init(struct gram_builder *b, struct err *err)
{
    *b = (struct gram_builder){.err = err};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b->began);
    if (mem_grow(&b->exprs, &b->cap_exprs, 2, sizeof *b->exprs, GRAMMAR_MAX_EXPRS, "grammar", err) != 0) {
        b->failed = true;
        return;
    }
    b->exprs[0] = (struct gram_expr){.kind = GRAM_EMPTY};
    b->exprs[1] = (struct gram_expr){.kind = GRAM_NEVER};
    b->n_exprs = 2;
}

void gram_builder_fini(struct gram_builder *b)
{
    free(b->exprs);
    free(b->text);
    free(b->ranges);
    free(b->ids);
    free(b->graph);
    free(b->rules);
}

uint32_t gram_failed(struct gram_builder *b)
{
    b->failed = true;
    return 0;
}

bool gram_goes_on(struct gram_builder *b)
{
    if (b->failed)
        return false;
    if (b->n_looked++ % LOOK_EVERY == 0 && cpu_ms_since(&b->began) > GRAMMAR_MAX_MS) {
        err_set(b->err, ERR_LIMIT, "compiling the grammar took more than %d ms; make it simpler", GRAMMAR_MAX_MS);
        b->failed = true;
    }
    return !b->failed;
}

static uint32_t add(struct gram_builder *b, enum gram_kind kind, uint32_t a, uint32_t n, uint32_t c)
{
    if (!gram_goes_on(b))
        return 0;
    if (mem_grow(&b->exprs, &b->cap_exprs, b->n_exprs + 1, sizeof *b->exprs, GRAMMAR_MAX_EXPRS, "pieces of the grammar", b->err) != 0)
        return gram_failed(b);
    b->exprs[b->n_exprs] = (struct gram_expr){kind, a, n, c};
    return (uint32_t)b->n_exprs++;
}

uint32_t gram_empty(struct gram_builder *b)
{
    (void)b;
    return 0;
}

uint32_t gram_never(struct gram_builder *b)
{
    return b->failed ? 0 : 1;
}

uint32_t gram_text(struct gram_builder *b, const char *s, size_t len)
{
    size_t at = b->n_text;
    if (b->failed || len == 0)
        return 0;
    if (mem_grow(&b->text, &b->cap_text, at + len, 1, GRAMMAR_MAX_NODES, "texts in the grammar", b->err) != 0)
        return gram_failed(b);
    memcpy(b->text + at, s, len);
    b->n_text += len;
    return add(b, GRAM_TEXT, (uint32_t)at, (uint32_t)len, 0);
}

uint32_t gram_str(struct gram_builder *b, const char *s)
{
    return gram_text(b, s, strlen(s));
}

static int by_lo(const void *a, const void *b)
{
    const struct gram_range *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* Sorts and joins what overlaps or touches. */
static size_t merge(struct gram_range *r, size_t n)
{
    size_t to = 0;
    if (n > 1)
        qsort(r, n, sizeof *r, by_lo);
    for (size_t i = 0; i < n; i++) {
        if (r[i].lo > r[i].hi)
            continue;
        if (to > 0 && r[i].lo <= r[to - 1].hi + 1) {
            r[to - 1].hi = r[i].hi > r[to - 1].hi ? r[i].hi : r[to - 1].hi;
        } else {
            r[to++] = r[i];
        }
    }
    return to;
}

static size_t complement(struct gram_range *r, size_t n)
{
    size_t to = 0;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) { /* what lies before range i is written no further than i */
        struct gram_range now = r[i];
        if (now.lo > at)
            r[to++] = (struct gram_range){at, now.lo - 1};
        at = now.hi + 1;
    }
    if (at <= GRAM_MAX_CHAR)
        r[to++] = (struct gram_range){at, GRAM_MAX_CHAR};
    return to;
}

size_t gram_ranges_normalize(struct gram_range *r, size_t n, bool negated)
{
    for (size_t i = 0; i < n; i++)
        r[i].hi = r[i].hi > GRAM_MAX_CHAR ? GRAM_MAX_CHAR : r[i].hi;
    n = merge(r, n);
    if (negated) { /* surrogates are in what is left out */
        r[n++] = (struct gram_range){0xD800, 0xDFFF};
        return complement(r, merge(r, n));
    }
    n = complement(r, n);
    r[n++] = (struct gram_range){0xD800, 0xDFFF};
    return complement(r, merge(r, n));
}

uint32_t gram_set(struct gram_builder *b, const struct gram_range *ranges, size_t n, bool negated)
{
    size_t at = b->n_ranges, got;
    if (b->failed)
        return 0;
    if (mem_grow(&b->ranges, &b->cap_ranges, at + 2 * n + 3, sizeof *b->ranges, GRAMMAR_MAX_EXPRS, "character ranges", b->err) != 0)
        return gram_failed(b);
    if (n)
        memcpy(b->ranges + at, ranges, n * sizeof *ranges);
    got = gram_ranges_normalize(b->ranges + at, n, negated);
    if (got == 0)
        return gram_never(b);
    b->n_ranges += got;
    return add(b, GRAM_SET, (uint32_t)at, (uint32_t)got, 0);
}

static uint32_t add_list(struct gram_builder *b, enum gram_kind kind, const uint32_t *ids, size_t n)
{
    size_t at = b->n_ids;
    if (b->failed)
        return 0;
    if (mem_grow(&b->ids, &b->cap_ids, at + n, sizeof *b->ids, GRAMMAR_MAX_EDGES, "pieces of the grammar", b->err) != 0)
        return gram_failed(b);
    memcpy(b->ids + at, ids, n * sizeof *ids);
    b->n_ids += n;
    return add(b, kind, (uint32_t)at, (uint32_t)n, 0);
}

uint32_t gram_seq(struct gram_builder *b, const uint32_t *ids, size_t n)
{
    return n == 0 ? gram_empty(b) : n == 1 ? ids[0] : add_list(b, GRAM_SEQ, ids, n);
}

uint32_t gram_alt(struct gram_builder *b, const uint32_t *ids, size_t n)
{
    return n == 0 ? gram_never(b) : n == 1 ? ids[0] : add_list(b, GRAM_ALT, ids, n);
}

void gram_list_add(struct gram_builder *b, struct gram_list *l, uint32_t id)
{
    if (b->failed)
        return;
    if (mem_grow(&l->ids, &l->cap, l->n + 1, sizeof *l->ids, GRAMMAR_MAX_EXPRS, "pieces of the grammar", b->err) != 0)
        gram_failed(b);
    else
        l->ids[l->n++] = id;
}

uint32_t gram_list_seq(struct gram_builder *b, struct gram_list *l)
{
    uint32_t id = gram_seq(b, l->ids, l->n);
    free(l->ids);
    return id;
}

uint32_t gram_list_alt(struct gram_builder *b, struct gram_list *l)
{
    uint32_t id = gram_alt(b, l->ids, l->n);
    free(l->ids);
    return id;
}

uint32_t gram_rep(struct gram_builder *b, uint32_t expr, uint32_t min, uint32_t max)
{
    uint32_t copies = max == GRAM_ANY_NUMBER ? min + 1 : max, rule;
    if (b->failed || max == 0)
        return 0;
    if (min == 1 && max == 1)
        return expr;
    bool small = b->exprs[expr].kind <= GRAM_SET ? b->exprs[expr].kind != GRAM_TEXT || b->exprs[expr].b <= SHORT_TEXT
                                                 : b->exprs[expr].kind == GRAM_RULE;
    if (copies > WRAP_OVER && !small) {
        rule = gram_rule_new(b);
        gram_rule_set(b, rule, expr);
        expr = gram_rule(b, rule);
    }
    return add(b, GRAM_REP, expr, min, max);
}

uint32_t gram_graph(struct gram_builder *b, const struct gram_graph_edge *edges, size_t n, uint32_t n_states)
{
    size_t at = b->n_graph;
    if (b->failed)
        return 0;
    if (mem_grow(&b->graph, &b->cap_graph, at + n, sizeof *b->graph, GRAMMAR_MAX_EDGES, "edges of the grammar", b->err) != 0)
        return gram_failed(b);
    if (n)
        memcpy(b->graph + at, edges, n * sizeof *edges);
    b->n_graph += n;
    return add(b, GRAM_GRAPH, (uint32_t)at, (uint32_t)n, n_states);
}

uint32_t gram_rule_new(struct gram_builder *b)
{
    if (b->failed)
        return 0;
    if (mem_grow(&b->rules, &b->cap_rules, b->n_rules + 1, sizeof *b->rules, GRAMMAR_MAX_RULES, "rules", b->err) != 0)
        return gram_failed(b);
    b->rules[b->n_rules] = GRAM_NONE;
    return (uint32_t)b->n_rules++;
}

void gram_rule_set(struct gram_builder *b, uint32_t rule, uint32_t expr)
{
    if (!b->failed)
        b->rules[rule] = expr;
}

uint32_t gram_rule(struct gram_builder *b, uint32_t rule)
{
    return add(b, GRAM_RULE, rule, 0, 0);
}
