/* for loops and the object `loop`. Items are taken lazily, as Jinja2 does: a condition sees what the body has done to a
 * namespace so far; only loop.last, nextitem and the lengths look ahead. */
#include "text/jinja_loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct jinja_value missing = {.type = JINJA_MISSING};

/* The next item that the loop's condition lets pass: 1, 0, -1. */
static int take(struct jinja *j, struct jinja_loop *loop, struct jinja_value *ret)
{
    int rc;
    if (loop->rest) {
        if (loop->rest->pos == loop->rest->list->n)
            return 0;
        *ret = loop->rest->list->items[loop->rest->pos++];
        return 1;
    }
    if (loop->done)
        return 0;
    while ((rc = jinja_cursor_next(j, &loop->cursor, ret)) == 1 && loop->node->c) {
        struct jinja_frame *f = jinja_frame_new(j, loop->frame);
        struct jinja_value test;
        if (!f || jinja_assign(j, f, loop->node->a, *ret) != 0 || jinja_eval(j, f, loop->node->c, &test) != 0)
            return -1;
        if (jinja_truth(test))
            break;
    }
    loop->done = rc == 0;
    return rc;
}

static int peek(struct jinja *j, struct jinja_loop *loop)
{
    if (loop->after.type != JINJA_MISSING)
        return 1;
    int rc = take(j, loop, &loop->after);
    if (rc != 1)
        loop->after = missing;
    return rc;
}

/* Goes on to the next item: 1, 0, -1. */
static int step(struct jinja *j, struct jinja_loop *loop)
{
    struct jinja_value v = loop->after;
    int rc = v.type != JINJA_MISSING ? 1 : take(j, loop, &v);
    if (rc != 1)
        return rc;
    loop->after = missing;
    loop->index0++;
    loop->before = loop->current;
    loop->current = v;
    return 1;
}

int jinja_loop_iterate(struct jinja *j, struct jinja_loop *loop, struct jinja_value *ret)
{
    int rc = step(j, loop);
    if (rc != 1)
        return rc;
    struct jinja_value self = {.type = JINJA_LOOP, .loop = loop};
    return jinja_pair(j, loop->current, self, ret) == 0 ? 1 : -1;
}

static int length(struct jinja *j, struct jinja_loop *loop)
{
    struct jinja_list_buf rest = {0};
    struct jinja_value v;
    size_t n;
    int rc;

    if (loop->length >= 0)
        return 0;
    if (!loop->node->c && jinja_length(loop->iterable, &n)) {
        loop->length = (int64_t)n;
        return 0;
    }
    while ((rc = take(j, loop, &v)) == 1)
        if (jinja_list_push(j, &rest, v) != 0)
            return -1;
    if (rc < 0)
        return -1;
    loop->length = (int64_t)rest.n + loop->index0 + 1 + (loop->after.type != JINJA_MISSING);
    /* What was taken is iterated over from a list now; it has passed the condition. */
    struct jinja_iter *it = jinja_alloc(j, 1, sizeof *it);
    if (!it || jinja_list_value(j, &rest, JINJA_LIST, &v) != 0)
        return -1;
    *it = (struct jinja_iter){.list = v.list, .type_name = "list_iterator"};
    loop->rest = it;
    return 0;
}

int jinja_loop_attr(struct jinja *j, struct jinja_loop *loop, const struct jinja_str *name, struct jinja_value *ret)
{
    static const char *const names[] = {"index",     "index0",   "first",    "last",  "length", "revindex",
                                        "revindex0", "previtem", "nextitem", "depth", "depth0"};
    size_t i = 0;
    int rc;
    while (i < sizeof names / sizeof *names && !jinja_str_is(name, names[i]))
        i++;
    switch (i) {
    case 0:
        *ret = jinja_int(loop->index0 + 1);
        return 1;
    case 1:
        *ret = jinja_int(loop->index0);
        return 1;
    case 2:
        *ret = jinja_bool(loop->index0 == 0);
        return 1;
    case 3:
        if ((rc = peek(j, loop)) < 0)
            return -1;
        *ret = jinja_bool(rc == 0);
        return 1;
    case 4:
    case 5:
    case 6:
        if (length(j, loop) != 0)
            return -1;
        *ret = jinja_int(loop->length - (i == 4 ? 0 : loop->index0 + (i == 6)));
        return 1;
    case 7:
        if (loop->index0 == 0)
            return jinja_undefined(j, NULL, NULL, "there is no previous item", ret) == 0 ? 1 : -1;
        *ret = loop->before;
        return 1;
    case 8:
        if ((rc = peek(j, loop)) < 0)
            return -1;
        if (rc == 0)
            return jinja_undefined(j, NULL, NULL, "there is no next item", ret) == 0 ? 1 : -1;
        *ret = loop->after;
        return 1;
    case 9:
        *ret = jinja_int(loop->depth0 + 1);
        return 1;
    case 10:
        *ret = jinja_int(loop->depth0);
        return 1;
    default:
        return 0;
    }
}

int jinja_loop_repr(struct jinja *j, struct jinja_loop *loop, struct jinja_text *out)
{
    char buf[80];
    if (length(j, loop) != 0)
        return -1;
    snprintf(buf, sizeof buf, "<LoopContext %" PRId64 "/%" PRId64 ">", loop->index0 + 1, loop->length);
    jinja_text_puts(j, out, buf);
    return 0;
}

int jinja_loop_cycle(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    if (c->args->n_kw)
        return jinja_fail(j, ERR_INPUT, "cycle: unexpected keyword argument");
    if (!c->args->n)
        return jinja_fail(j, ERR_INPUT, "no items for cycling given");
    *ret = c->args->v[(size_t)c->self.loop->index0 % c->args->n];
    return 0;
}

int jinja_loop_changed(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_loop *loop = c->self.loop;
    struct jinja_list_buf l = {.items = c->args->v, .n = c->args->n};
    struct jinja_value v;
    int same = 0;
    if (c->args->n_kw)
        return jinja_fail(j, ERR_INPUT, "changed: unexpected keyword argument");
    if (jinja_list_value(j, &l, JINJA_TUPLE, &v) != 0 ||
        (loop->changed.type != JINJA_MISSING && (same = jinja_equal(j, loop->changed, v)) < 0))
        return -1;
    loop->changed = v;
    *ret = jinja_bool(!same);
    return 0;
}

/* Runs the loop over `iterable`, at recursion depth `depth0`. */
static int run(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value iterable, int64_t depth0)
{
    struct jinja_loop *loop = jinja_alloc(j, 1, sizeof *loop);
    struct jinja_frame *inner = jinja_frame_new(j, f);
    bool completed = false;
    int rc;

    if (!loop || !inner)
        return -1;
    *loop = (struct jinja_loop){.node = n,
                                .frame = f,
                                .iterable = iterable,
                                .before = missing,
                                .current = missing,
                                .after = missing,
                                .changed = missing,
                                .index0 = -1,
                                .depth0 = depth0,
                                .length = -1};
    if (jinja_cursor_init(j, &loop->cursor, iterable) != 0)
        return -1;
    while ((rc = step(j, loop)) == 1) {
        struct jinja_value self = {.type = JINJA_LOOP, .loop = loop};
        inner->n = 0; /* what the last iteration set is gone */
        if (jinja_assign(j, inner, n->a, loop->current) != 0 || jinja_frame_set(j, inner, j->special_names[3], self) != 0)
            return -1;
        rc = jinja_exec(j, inner, n->body);
        if (rc < 0)
            return -1;
        completed |= rc == JINJA_DONE;
        rc = rc == JINJA_BROKE ? 0 : 1;
        if (rc == 0)
            break;
    }
    if (rc < 0)
        return -1;
    /* Jinja2 notes that there was an iteration at the end of the body, which break and continue pass over. */
    if (!completed && n->alt) {
        struct jinja_frame *alt = jinja_frame_new(j, f);
        return alt ? jinja_exec(j, alt, n->alt) : -1;
    }
    return JINJA_DONE;
}

int jinja_exec_for(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n)
{
    struct jinja_value iterable;
    if (jinja_eval(j, f, n->b, &iterable) != 0)
        return -1;
    j->line = n->line;
    return run(j, f, n, iterable, 0);
}

int jinja_loop_call(struct jinja *j, struct jinja_loop *loop, const struct jinja_args *args, struct jinja_value *ret)
{
    struct jinja_text text = {0}, *outer = j->out;
    int rc;
    if (!loop->node->flag)
        return jinja_fail(j, ERR_INPUT, "the loop must have the 'recursive' marker to be called recursively");
    if (args->n != 1 || args->n_kw)
        return jinja_fail(j, ERR_INPUT, "loop() takes one argument");
    if (jinja_enter(j) != 0) {
        jinja_leave(j);
        return -1;
    }
    j->out = &text;
    rc = run(j, loop->frame, loop->node, args->v[0], loop->depth0 + 1);
    j->out = outer;
    jinja_leave(j);
    return rc != 0 ? -1 : jinja_text_value(j, &text, ret);
}
