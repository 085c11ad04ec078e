#ifndef TEXT_JINJA_LOOP_H
#define TEXT_JINJA_LOOP_H

#include "text/jinja.h"

/* The object `loop`. Items are taken one by one, so that a condition sees what the body did before. */
struct jinja_loop {
    const struct jinja_node *node; /* FOR */
    struct jinja_frame *frame;     /* around the loop */
    struct jinja_cursor cursor;
    struct jinja_iter *rest; /* instead of the cursor, once loop.length has taken all from it */
    struct jinja_value iterable;
    struct jinja_value before, current, after; /* MISSING: none */
    struct jinja_value changed;                /* the last arguments of loop.changed(), a tuple */
    int64_t index0;
    int64_t depth0;
    int64_t length; /* -1: not known yet */
    bool done;      /* the cursor is at its end */
};
/* The next item for a template that iterates over `loop` itself. */
int jinja_loop_iterate(struct jinja *j, struct jinja_loop *loop, struct jinja_value *ret);

#endif
