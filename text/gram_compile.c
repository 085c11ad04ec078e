/* From expressions to the automaton. See gram.h.
 *
 * Each rule becomes nodes from its start to its one end (Thompson's construction: empty edges stay in, gram_walk.c steps over
 * them once for each state that it finds). Characters become UTF-8. What can never be finished is taken out afterwards, so
 * that whatever the automaton lets begin can be ended; and rules that would call themselves without a byte before it (left
 * recursion) are refused, so that stepping over empty edges and calls comes to an end. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/gram.h"

enum { MAX_NESTING = 4 * GRAMMAR_MAX_NESTING, TAIL_HOPS = 64 };

struct raw_edge {
    uint32_t from;
    struct gram_edge e;
};

struct compiler {
    struct gram_builder *b;
    struct raw_edge *edges;
    size_t n_edges, cap_edges;
    uint32_t n_nodes, n_rules;
    uint32_t *starts, *ends; /* of rules; first those of the builder, then those of large sets */
    size_t cap_starts, cap_ends;
    uint32_t *set_rule; /* by expression; GRAM_NONE */
    uint32_t *wanted;   /* rules to be made, in the order in which they were called first … */
    size_t n_wanted;
    uint8_t *is_wanted; /* … and whether one is among them */
    uint32_t suffix[3]; /* of the set at hand: nodes from which so many continuation bytes less one lead to its end */
    const char *(*name_of)(void *arg, uint32_t rule);
    void *arg;
};

static uint32_t new_node(struct compiler *c)
{
    if (c->b->failed)
        return 0;
    if (c->n_nodes >= GRAMMAR_MAX_NODES) {
        err_set(c->b->err, ERR_LIMIT, "the grammar, with its repetitions written out, has more than %d parts; make it simpler",
                GRAMMAR_MAX_NODES);
        return gram_failed(c->b);
    }
    return c->n_nodes++;
}

static void add_edge(struct compiler *c, uint32_t from, struct gram_edge e)
{
    if (!gram_goes_on(c->b))
        return;
    if (mem_grow(&c->edges, &c->cap_edges, c->n_edges + 1, sizeof *c->edges, GRAMMAR_MAX_EDGES, "edges of the grammar", c->b->err) != 0) {
        gram_failed(c->b);
        return;
    }
    c->edges[c->n_edges++] = (struct raw_edge){from, e};
}

static void add_empty(struct compiler *c, uint32_t from, uint32_t to)
{
    add_edge(c, from, (struct gram_edge){.to = to, .rule = GRAM_EDGE_EMPTY});
}

static void add_bytes(struct compiler *c, uint32_t from, uint32_t to, uint8_t lo, uint8_t hi)
{
    add_edge(c, from, (struct gram_edge){.to = to, .rule = GRAM_EDGE_BYTES, .lo = lo, .hi = hi});
}

/* --- characters ---------------------------------------------------------------------------------------------------------- */

/* The node from which n continuation bytes lead to `to`: shared within a set. */
static uint32_t suffix(struct compiler *c, size_t n, uint32_t to)
{
    if (n == 0)
        return to;
    if (c->suffix[n - 1] == GRAM_NONE) {
        c->suffix[n - 1] = new_node(c);
        add_bytes(c, c->suffix[n - 1], suffix(c, n - 1, to), 0x80, 0xBF);
    }
    return c->suffix[n - 1];
}

/* n bytes, byte i in [lo[i], hi[i]]. */
static void add_bytes_path(struct compiler *c, uint32_t from, uint32_t to, const char *lo, const char *hi, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool any = true; /* what follows is any continuation bytes */
        for (size_t k = i + 1; k < n; k++)
            any = any && (unsigned char)lo[k] == 0x80 && (unsigned char)hi[k] == 0xBF;
        uint32_t next = any ? suffix(c, n - 1 - i, to) : new_node(c);
        add_bytes(c, from, next, (uint8_t)lo[i], (uint8_t)hi[i]);
        if (any)
            return;
        from = next;
    }
}

/* Characters [lo, hi], all of one length in UTF-8, or split until they are (Cox's way: at borders of the low six bits). */
static void add_chars(struct compiler *c, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi)
{
    static const uint32_t last[] = {0x7F, 0x7FF, 0xFFFF};
    char lo_bytes[4], hi_bytes[4];
    size_t n;

    for (size_t i = 0; i < sizeof last / sizeof *last; i++)
        if (lo <= last[i] && hi > last[i]) {
            add_chars(c, from, to, lo, last[i]);
            add_chars(c, from, to, last[i] + 1, hi);
            return;
        }
    for (unsigned shift = 6; shift <= 18 && hi > 0x7F; shift += 6) {
        uint32_t m = (UINT32_C(1) << shift) - 1;
        if ((lo & ~m) == (hi & ~m))
            continue;
        if (lo & m) {
            add_chars(c, from, to, lo, lo | m);
            add_chars(c, from, to, (lo | m) + 1, hi);
            return;
        }
        if ((hi & m) != m) {
            add_chars(c, from, to, lo, (hi & ~m) - 1);
            add_chars(c, from, to, hi & ~m, hi);
            return;
        }
    }
    n = utf8_encode(lo, lo_bytes);
    utf8_encode(hi, hi_bytes);
    add_bytes_path(c, from, to, lo_bytes, hi_bytes, n);
}

static void add_ranges(struct compiler *c, uint32_t from, uint32_t to, const struct gram_range *r, size_t n)
{
    for (size_t i = 0; i < 3; i++)
        c->suffix[i] = GRAM_NONE;
    for (size_t i = 0; i < n; i++)
        add_chars(c, from, to, r[i].lo, r[i].hi);
}

static uint32_t new_rule(struct compiler *c)
{
    if (c->b->failed)
        return 0;
    if (mem_grow(&c->starts, &c->cap_starts, c->n_rules + 1, sizeof *c->starts, GRAMMAR_MAX_RULES, "rules", c->b->err) != 0 ||
        mem_grow(&c->ends, &c->cap_ends, c->n_rules + 1, sizeof *c->ends, GRAMMAR_MAX_RULES, "rules", c->b->err) != 0)
        return gram_failed(c->b);
    c->starts[c->n_rules] = new_node(c);
    c->ends[c->n_rules] = new_node(c);
    return c->n_rules++;
}

/* Sets beyond ASCII have many edges: each is a rule of its own. */
static void add_set(struct compiler *c, uint32_t expr, uint32_t from, uint32_t to)
{
    const struct gram_expr *e = &c->b->exprs[expr];
    const struct gram_range *r = c->b->ranges + e->a;
    if (r[e->b - 1].hi <= 0x7F) {
        for (uint32_t i = 0; i < e->b; i++)
            add_bytes(c, from, to, (uint8_t)r[i].lo, (uint8_t)r[i].hi);
        return;
    }
    if (c->set_rule[expr] == GRAM_NONE) {
        uint32_t rule = new_rule(c);
        if (c->b->failed)
            return;
        add_ranges(c, c->starts[rule], c->ends[rule], r, e->b);
        c->set_rule[expr] = rule;
    }
    add_edge(c, from, (struct gram_edge){.to = to, .rule = c->set_rule[expr]});
}

/* --- expressions --------------------------------------------------------------------------------------------------------- */

static void want(struct compiler *c, uint32_t rule)
{
    if (!c->is_wanted[rule])
        c->wanted[c->n_wanted++] = rule;
    c->is_wanted[rule] = 1;
}

static void add_expr(struct compiler *c, uint32_t expr, uint32_t from, uint32_t to, unsigned nesting);

static void add_rep(struct compiler *c, const struct gram_expr *e, uint32_t from, uint32_t to, unsigned nesting)
{
    uint32_t at = from;
    for (uint32_t i = 0; i < e->b && gram_goes_on(c->b); i++) {
        uint32_t next = new_node(c);
        add_expr(c, e->a, at, next, nesting);
        at = next;
    }
    if (e->c == GRAM_ANY_NUMBER) {
        uint32_t loop = new_node(c); /* its own, so that nobody else's edges get into the loop */
        add_empty(c, at, loop);
        add_expr(c, e->a, loop, loop, nesting);
        add_empty(c, loop, to);
        return;
    }
    for (uint32_t i = e->b; i < e->c && gram_goes_on(c->b); i++) {
        uint32_t next = new_node(c);
        add_empty(c, at, to);
        add_expr(c, e->a, at, next, nesting);
        at = next;
    }
    add_empty(c, at, to);
}

static void add_graph(struct compiler *c, const struct gram_expr *e, uint32_t from, uint32_t to, unsigned nesting)
{
    uint32_t base = c->n_nodes;
    for (uint32_t i = 0; i < e->c && gram_goes_on(c->b); i++)
        new_node(c);
    if (c->b->failed)
        return;
    add_empty(c, from, base);
    for (uint32_t i = 0; i < e->b && gram_goes_on(c->b); i++) {
        const struct gram_graph_edge g = c->b->graph[e->a + i];
        add_expr(c, g.expr, base + g.from, g.to == e->c ? to : base + g.to, nesting);
    }
}

static void add_text(struct compiler *c, const struct gram_expr *e, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < e->b && !c->b->failed; i++) {
        uint8_t byte = (uint8_t)c->b->text[e->a + i];
        uint32_t next = i + 1 < e->b ? new_node(c) : to;
        add_bytes(c, from, next, byte, byte);
        from = next;
    }
}

/* Edges so that exactly what the expression matches leads from `from` to `to`. Nothing is ever added that leaves `to`, or enters
 * `from`, but within a loop of its own. */
static void add_expr(struct compiler *c, uint32_t expr, uint32_t from, uint32_t to, unsigned nesting)
{
    const struct gram_expr e = c->b->exprs[expr];

    if (!gram_goes_on(c->b))
        return;
    if (nesting >= MAX_NESTING) {
        err_set(c->b->err, ERR_LIMIT, "the grammar is nested more than %d deep", MAX_NESTING);
        gram_failed(c->b);
        return;
    }
    switch (e.kind) {
    case GRAM_EMPTY:
        add_empty(c, from, to);
        break;
    case GRAM_NEVER:
        break;
    case GRAM_TEXT:
        add_text(c, &e, from, to);
        break;
    case GRAM_SET:
        add_set(c, expr, from, to);
        break;
    case GRAM_SEQ:
        for (uint32_t i = 0; i < e.b && !c->b->failed; i++) {
            uint32_t next = i + 1 < e.b ? new_node(c) : to;
            add_expr(c, c->b->ids[e.a + i], from, next, nesting + 1);
            from = next;
        }
        break;
    case GRAM_ALT:
        for (uint32_t i = 0; i < e.b && !c->b->failed; i++)
            add_expr(c, c->b->ids[e.a + i], from, to, nesting + 1);
        break;
    case GRAM_REP:
        add_rep(c, &e, from, to, nesting + 1);
        break;
    case GRAM_RULE:
        want(c, e.a);
        add_edge(c, from, (struct gram_edge){.to = to, .rule = e.a});
        break;
    case GRAM_GRAPH:
        add_graph(c, &e, from, to, nesting + 1);
        break;
    }
}

/* --- what is of use ------------------------------------------------------------------------------------------------------ */

/* Edges and calls backwards. */
struct uses {
    uint32_t *first, *into;       /* by node: numbers of the edges that lead to it */
    uint32_t *call_first, *calls; /* by rule: of those that call it */
    uint32_t *rule_of;            /* by node: the rule that starts there; GRAM_NONE */
    uint32_t *work;
    uint8_t *good; /* by node: the rule's end can be reached from it */
};

static void uses_fini(struct uses *u)
{
    free(u->first);
    free(u->into);
    free(u->call_first);
    free(u->calls);
    free(u->rule_of);
    free(u->work);
    free(u->good);
}

static bool is_call(const struct gram_edge *e)
{
    return e->rule < GRAM_EDGE_EMPTY;
}

static int uses_init(struct uses *u, const struct compiler *c, struct err *err)
{
    *u = (struct uses){0};
    if (!(u->first = mem_new((size_t)c->n_nodes + 2, sizeof *u->first, err)) || !(u->into = mem_new(c->n_edges, sizeof *u->into, err)) ||
        !(u->call_first = mem_new((size_t)c->n_rules + 2, sizeof *u->call_first, err)) ||
        !(u->calls = mem_new(c->n_edges, sizeof *u->calls, err)) || !(u->work = mem_new(c->n_nodes, sizeof *u->work, err)) ||
        !(u->rule_of = mem_new(c->n_nodes, sizeof *u->rule_of, err)) || !(u->good = mem_new(c->n_nodes, 1, err)))
        return -1;
    memset(u->rule_of, 0xff, c->n_nodes * sizeof *u->rule_of);
    for (uint32_t r = 0; r < c->n_rules; r++)
        u->rule_of[c->starts[r]] = r;
    for (size_t i = 0; i < c->n_edges; i++) {
        u->first[c->edges[i].e.to + 2]++;
        if (is_call(&c->edges[i].e))
            u->call_first[c->edges[i].e.rule + 2]++;
    }
    for (uint32_t i = 2; i < c->n_nodes + 2; i++)
        u->first[i] += u->first[i - 1];
    for (uint32_t i = 2; i < c->n_rules + 2; i++)
        u->call_first[i] += u->call_first[i - 1];
    for (size_t i = 0; i < c->n_edges; i++) {
        u->into[u->first[c->edges[i].e.to + 1]++] = (uint32_t)i;
        if (is_call(&c->edges[i].e))
            u->calls[u->call_first[c->edges[i].e.rule + 1]++] = (uint32_t)i;
    }
    return 0;
}

static void mark(struct uses *u, uint32_t node, uint32_t *n)
{
    if (u->good[node])
        return;
    u->good[node] = 1;
    u->work[(*n)++] = node;
}

/* The nodes from which their rule's end can be reached, over bytes too or only over what is empty. */
static void find_good(const struct compiler *c, struct uses *u, bool over_bytes)
{
    uint32_t n = 0;
    memset(u->good, 0, c->n_nodes);
    for (uint32_t r = 0; r < c->n_rules; r++)
        mark(u, c->ends[r], &n);
    while (n > 0) {
        uint32_t node = u->work[--n], rule = u->rule_of[node];
        for (uint32_t i = u->first[node]; i < u->first[node + 1]; i++) {
            const struct raw_edge *e = &c->edges[u->into[i]];
            if (e->e.rule == GRAM_EDGE_EMPTY || (e->e.rule == GRAM_EDGE_BYTES && over_bytes) ||
                (is_call(&e->e) && u->good[c->starts[e->e.rule]]))
                mark(u, e->from, &n);
        }
        for (uint32_t i = rule == GRAM_NONE ? 0 : u->call_first[rule]; rule != GRAM_NONE && i < u->call_first[rule + 1]; i++)
            if (u->good[c->edges[u->calls[i]].e.to])
                mark(u, c->edges[u->calls[i]].from, &n);
    }
}

static void drop_useless(struct compiler *c, const struct uses *u)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_edges; i++) {
        const struct gram_edge *e = &c->edges[i].e;
        if (u->good[e->to] && (!is_call(e) || u->good[c->starts[e->rule]]))
            c->edges[n++] = c->edges[i];
    }
    c->n_edges = n;
}

/* --- the result ---------------------------------------------------------------------------------------------------------- */

/* Edges by node, those over bytes first. */
static int fill(struct grammar *g, const struct compiler *c, struct err *err)
{
    uint32_t *at;
    g->n_nodes = c->n_nodes;
    g->n_edges = (uint32_t)c->n_edges;
    g->n_rules = c->n_rules;
    if (!(g->first = mem_new((size_t)c->n_nodes + 1, sizeof *g->first, err)) ||
        !(g->n_bytes = mem_new(c->n_nodes, sizeof *g->n_bytes, err)) || !(g->flags = mem_new(c->n_nodes, 1, err)) ||
        !(g->edges = mem_new(c->n_edges, sizeof *g->edges, err)) || !(g->starts = mem_new(c->n_rules, sizeof *g->starts, err)) ||
        !(at = mem_new(c->n_nodes, 2 * sizeof *at, err)))
        return -1;
    uint32_t *at_bytes = at, *at_rest = at + c->n_nodes;
    for (size_t i = 0; i < c->n_edges; i++) {
        g->first[c->edges[i].from + 1]++;
        g->n_bytes[c->edges[i].from] += c->edges[i].e.rule == GRAM_EDGE_BYTES;
    }
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        at_bytes[i] = g->first[i];
        at_rest[i] = g->first[i] + g->n_bytes[i];
        g->first[i + 1] += g->first[i];
    }
    for (size_t i = 0; i < c->n_edges; i++) {
        const struct raw_edge *e = &c->edges[i];
        g->edges[(e->e.rule == GRAM_EDGE_BYTES ? at_bytes : at_rest)[e->from]++] = e->e;
    }
    free(at);
    memcpy(g->starts, c->starts, c->n_rules * sizeof *g->starts);
    for (uint32_t r = 0; r < c->n_rules; r++)
        g->flags[c->ends[r]] |= GRAM_FINAL;
    return 0;
}

static void find_tails(struct grammar *g)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        uint32_t node = i;
        for (int hop = 0; hop < TAIL_HOPS && !(g->flags[node] & GRAM_FINAL); hop++) {
            if (g->first[node + 1] - g->first[node] != 1 || g->edges[g->first[node]].rule != GRAM_EDGE_EMPTY)
                break;
            node = g->edges[g->first[node]].to;
        }
        if (g->flags[node] & GRAM_FINAL && g->first[node + 1] == g->first[node])
            g->flags[i] |= GRAM_TAIL;
    }
}

static void find_classes(struct grammar *g)
{
    bool begins[257] = {true};
    for (uint32_t i = 0; i < g->n_edges; i++)
        if (g->edges[i].rule == GRAM_EDGE_BYTES)
            begins[g->edges[i].lo] = begins[g->edges[i].hi + 1] = true;
    g->n_classes = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        g->n_classes += begins[byte];
        g->classes[byte] = (uint8_t)(g->n_classes - 1);
    }
}

/* --- left recursion ------------------------------------------------------------------------------------------------------ */

/* Depth first over nodes that are reached without a byte, into called rules as well. `color` of a rule: 0 new, 1 on the way,
 * 2 done. An explicit stack: rules may hang together in long chains. */
struct searcher {
    const struct grammar *g;
    const uint8_t *empty; /* nodes from which the end is reached without a byte */
    uint8_t *color, *seen;
    struct frame {
        uint32_t rule, node, edge; /* GRAM_NONE rule: a node within one */
    } * stack;
    uint32_t n;
};

static void enter(struct searcher *s, uint32_t rule, uint32_t node)
{
    s->seen[node] = 1;
    s->stack[s->n++] = (struct frame){rule, node, s->g->first[node] + s->g->n_bytes[node]};
}

/* The rule that calls itself, or GRAM_NONE. */
static uint32_t search(struct searcher *s, uint32_t root)
{
    const struct grammar *g = s->g;
    s->color[root] = 1;
    enter(s, root, g->starts[root]);
    while (s->n > 0) {
        struct frame *f = &s->stack[s->n - 1];
        if (f->edge == g->first[f->node + 1]) {
            if (f->rule != GRAM_NONE)
                s->color[f->rule] = 2;
            s->n--;
            continue;
        }
        const struct gram_edge *e = &g->edges[f->edge];
        if (is_call(e) && s->color[e->rule] == 1)
            return e->rule;
        if (is_call(e) && s->color[e->rule] == 0) { /* first into it; then this edge once more */
            s->color[e->rule] = 1;
            enter(s, e->rule, g->starts[e->rule]);
            continue;
        }
        f->edge++;
        if ((e->rule == GRAM_EDGE_EMPTY || s->empty[g->starts[e->rule]]) && !s->seen[e->to])
            enter(s, GRAM_NONE, e->to);
    }
    return GRAM_NONE;
}

static int check_left_recursion(const struct grammar *g, const uint8_t *empty, struct compiler *c, struct err *err)
{
    struct searcher s = {.g = g, .empty = empty};
    uint32_t found = GRAM_NONE;
    int rc = -1;

    if ((s.color = mem_new(g->n_rules, 1, err)) && (s.seen = mem_new(g->n_nodes, 1, err)) &&
        (s.stack = mem_new(g->n_nodes, sizeof *s.stack, err))) {
        for (uint32_t r = 0; r < g->n_rules && found == GRAM_NONE; r++)
            if (s.color[r] == 0)
                found = search(&s, r);
        const char *name = found != GRAM_NONE && c->name_of ? c->name_of(c->arg, found) : NULL;
        rc = found == GRAM_NONE
                 ? 0
                 : err_set(err, ERR_INPUT, "rule %s calls itself before anything else (left recursion); write the repetition with *",
                           name ? name : "of the grammar");
    }
    free(s.color);
    free(s.seen);
    free(s.stack);
    return rc;
}

/* --- the whole ----------------------------------------------------------------------------------------------------------- */

static int compile_rules(struct compiler *c, uint32_t root)
{
    struct gram_builder *b = c->b;
    if (!(c->set_rule = mem_new(b->n_exprs, sizeof *c->set_rule, b->err)) ||
        !(c->wanted = mem_new(b->n_rules, sizeof *c->wanted, b->err)) || !(c->is_wanted = mem_new(b->n_rules, 1, b->err)))
        return -1;
    memset(c->set_rule, 0xff, b->n_exprs * sizeof *c->set_rule);
    for (size_t i = 0; i < b->n_rules && !b->failed; i++)
        new_rule(c);
    want(c, root);
    for (size_t i = 0; i < c->n_wanted && gram_goes_on(b); i++) {
        uint32_t rule = c->wanted[i];
        if (b->rules[rule] != GRAM_NONE)
            add_expr(c, b->rules[rule], c->starts[rule], c->ends[rule], 0);
    }
    return b->failed ? -1 : 0;
}

static int finish(struct compiler *c, struct grammar *g, uint32_t root)
{
    struct err *err = c->b->err;
    struct uses u;
    int rc = -1;

    if (uses_init(&u, c, err) == 0) {
        find_good(c, &u, true);
        if (!u.good[c->starts[root]]) {
            err_set(err, ERR_INPUT, "no text can match: whatever begins can never end");
        } else {
            drop_useless(c, &u);
            rc = 0;
        }
    }
    uses_fini(&u);
    if (rc != 0)
        return -1;
    rc = uses_init(&u, c, err) == 0 ? fill(g, c, err) : -1; /* once more: the edges have other numbers now */
    if (rc == 0) {
        find_good(c, &u, false);
        g->root = root;
        find_tails(g);
        find_classes(g);
        rc = check_left_recursion(g, u.good, c, err);
    }
    uses_fini(&u);
    return rc;
}

struct grammar *gram_compile(struct gram_builder *b, uint32_t root, const char *(*name_of)(void *arg, uint32_t rule), void *arg)
{
    struct compiler c = {.b = b, .name_of = name_of, .arg = arg};
    struct grammar *g = NULL;

    if (!b->failed && (g = mem_new(1, sizeof *g, b->err))) {
        g->holders = 1;
        if (compile_rules(&c, root) != 0 || finish(&c, g, root) != 0) {
            grammar_drop(g);
            g = NULL;
        }
    }
    free(c.edges);
    free(c.starts);
    free(c.ends);
    free(c.set_rule);
    free(c.wanted);
    free(c.is_wanted);
    return g;
}

void grammar_ref(struct grammar *g)
{
    g->holders++;
}

void grammar_drop(struct grammar *g)
{
    if (!g || --g->holders > 0)
        return;
    free(g->first);
    free(g->n_bytes);
    free(g->flags);
    free(g->edges);
    free(g->starts);
    free(g);
}

size_t grammar_bytes(const struct grammar *g)
{
    return sizeof *g + g->n_nodes * (2 * sizeof(uint32_t) + 1) + g->n_edges * sizeof *g->edges + g->n_rules * sizeof *g->starts;
}
