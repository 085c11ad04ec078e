#ifndef TEXT_JINJA_H
#define TEXT_JINJA_H

/* The interpreter's inside: one rendering, and the functions its files offer each other. Only text/jinja_*.c and
 * text/template.c include this. */

#include <jansson.h>
#include <time.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/jinja_ast.h"
#include "text/jinja_value.h"
#include "text/template.h"

struct jinja_var {
    const struct jinja_str *name;
    struct jinja_value value;
};
struct jinja_frame { /* one scope's variables */
    struct jinja_frame *parent;
    struct jinja_var *vars;
    size_t n, cap;
};

struct jinja {
    struct arena arena;
    struct err *err;
    struct template_limits limits;
    size_t steps;
    size_t depth;
    uint32_t line;             /* of the node at work, for messages */
    struct jinja_frame *top;   /* the template's own variables */
    struct jinja_frame *outer; /* the context's and the built-in ones, as far as they were looked up */
    struct jinja_text *out;    /* where output goes now */
    struct jinja_value block;  /* what filters at the head of a filter or set block work on */
    const json_t *context;
    const struct jinja_str *const *special_names; /* caller, kwargs, varargs, loop, interned by the parser */
    time_t now;
};

int jinja_fail(struct jinja *j, enum err_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Counts work: one step each evaluated node, and what long operations cost. -1 at the limit. */
int jinja_charge(struct jinja *j, size_t steps);
int jinja_charge_bytes(struct jinja *j, size_t bytes);
int jinja_enter(struct jinja *j); /* deeper by one; jinja_leave even after a failure */
void jinja_leave(struct jinja *j);
void *jinja_alloc(struct jinja *j, size_t count, size_t size);

/* --- calls -------------------------------------------------------------- */

struct jinja_keyword {
    const struct jinja_str *name;
    struct jinja_value value;
};
struct jinja_args {
    struct jinja_value *v;
    size_t n;
    struct jinja_keyword *kw;
    size_t n_kw;
};
enum { JINJA_MAX_PARAMS = 8 };
/* A filter, test, function or method. `params` names the parameters in order, "old,new,count?": ? marks optional ones; a
 * leading "/" means that no keyword is taken; "*" means that the function looks at the arguments itself. Bound ones come
 * in v, with JINJA_MISSING where none was given; a filter's, test's or method's object is `self`. */
struct jinja_call {
    struct jinja_value self;
    struct jinja_value v[JINJA_MAX_PARAMS];
    const struct jinja_args *args;
    const struct jinja_builtin *builtin;
};
typedef int (*jinja_builtin_fn)(struct jinja *j, struct jinja_call *c, struct jinja_value *ret);
struct jinja_builtin {
    const char *name, *params;
    jinja_builtin_fn fn; /* NULL: there is such a thing in Python, but not here */
    int tag;             /* what fn makes of it */
};
int jinja_invoke(struct jinja *j, const struct jinja_builtin *b, struct jinja_value self, const struct jinja_args *args,
                 struct jinja_value *ret);
bool jinja_given(struct jinja_value v); /* neither missing nor None */

const struct jinja_builtin *jinja_find_filter(const char *name, size_t len);
const struct jinja_builtin *jinja_find_test(const char *name, size_t len);
const struct jinja_builtin *jinja_find_function(const char *name, size_t len);
const struct jinja_builtin *jinja_find_in(const struct jinja_builtin *table, size_t n, const char *name, size_t len);
/* The method of that name; *ret_unsafe: it exists and would change the object. NULL if there is none. */
const struct jinja_builtin *jinja_find_method(struct jinja_value self, const struct jinja_str *name, bool *ret_unsafe);

extern const struct jinja_builtin jinja_text_filters[], jinja_seq_filters[];
extern const size_t jinja_n_text_filters, jinja_n_seq_filters;

/* --- evaluation --------------------------------------------------------- */

int jinja_eval(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value *ret);
int jinja_eval_args(struct jinja *j, struct jinja_frame *f, const struct jinja_node *list, struct jinja_args *ret);
int jinja_call_value(struct jinja *j, struct jinja_value callee, const struct jinja_args *args, struct jinja_value *ret);
enum { JINJA_DONE = 0, JINJA_BROKE = 1, JINJA_CONTINUED = 2 }; /* what jinja_exec returns, or -1 */
int jinja_exec(struct jinja *j, struct jinja_frame *f, const struct jinja_node *body);
/* Runs the body with its output caught. Returns what jinja_exec does. */
int jinja_capture(struct jinja *j, struct jinja_frame *f, const struct jinja_node *body, struct jinja_value *ret);
int jinja_print(struct jinja *j, struct jinja_text *out, struct jinja_value v); /* str(v) */
int jinja_assign(struct jinja *j, struct jinja_frame *f, const struct jinja_node *target, struct jinja_value v);

struct jinja_frame *jinja_frame_new(struct jinja *j, struct jinja_frame *parent);
int jinja_frame_set(struct jinja *j, struct jinja_frame *f, const struct jinja_str *name, struct jinja_value v);
int jinja_lookup(struct jinja *j, struct jinja_frame *f, const struct jinja_str *name, struct jinja_value *ret);
int jinja_from_json(struct jinja *j, const json_t *json, bool special, struct jinja_value *ret);

int jinja_call_macro(struct jinja *j, const struct jinja_macro *m, const struct jinja_args *args, struct jinja_value *ret);
int jinja_exec_for(struct jinja *j, struct jinja_frame *f, const struct jinja_node *n);
int jinja_loop_call(struct jinja *j, struct jinja_loop *loop, const struct jinja_args *args, struct jinja_value *ret);
/* A member of `loop`; 1 if there is one of that name, 0, -1. */
int jinja_loop_attr(struct jinja *j, struct jinja_loop *loop, const struct jinja_str *name, struct jinja_value *ret);
int jinja_loop_repr(struct jinja *j, struct jinja_loop *loop, struct jinja_text *out);
int jinja_loop_cycle(struct jinja *j, struct jinja_call *c, struct jinja_value *ret);
int jinja_loop_changed(struct jinja *j, struct jinja_call *c, struct jinja_value *ret);

/* --- operations --------------------------------------------------------- */

int jinja_math(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b, struct jinja_value *ret);
int jinja_negate(struct jinja *j, struct jinja_value v, bool positive, struct jinja_value *ret);
/* 0 or 1, or -1. */
int jinja_compare(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b);
int jinja_contains(struct jinja *j, struct jinja_value container, struct jinja_value item);
/* Python's getattr: 1, 0 if there is no such attribute, -1. */
int jinja_attribute(struct jinja *j, struct jinja_value v, const struct jinja_str *name, struct jinja_value *ret);
int jinja_getattr(struct jinja *j, struct jinja_value v, const struct jinja_str *name, struct jinja_value *ret);
int jinja_getitem(struct jinja *j, struct jinja_value v, struct jinja_value key, struct jinja_value *ret);
int jinja_slice(struct jinja *j, struct jinja_value v, struct jinja_value start, struct jinja_value stop, struct jinja_value step,
                struct jinja_value *ret);
/* A new Undefined. */
int jinja_undefined(struct jinja *j, const char *object, const struct jinja_str *name, const char *hint, struct jinja_value *ret);
/* Fails with what the Undefined says. */
int jinja_fail_undefined(struct jinja *j, struct jinja_value v);
/* A callable bound to self. */
int jinja_bind(struct jinja *j, struct jinja_value self, const struct jinja_builtin *b, struct jinja_value *ret);

int jinja_repr(struct jinja *j, struct jinja_text *out, struct jinja_value v);
const struct jinja_str *jinja_str_of(struct jinja *j, struct jinja_value v); /* str(v), keeping a string's marks */
enum { JINJA_FLOAT_CHARS = 32 };
void jinja_float_repr(double f, char buf[static JINJA_FLOAT_CHARS]);
/* float(text), -1 if it is none. Surrounding blanks and _ between digits are allowed as in Python. */
int jinja_parse_float(const char *s, size_t len, double *ret);
/* int(text, base). */
int jinja_parse_int(const char *s, size_t len, int base, int64_t *ret);
int jinja_tojson(struct jinja *j, struct jinja_call *c, struct jinja_value *ret);
int jinja_format_percent(struct jinja *j, const struct jinja_str *format, struct jinja_value args, struct jinja_value *ret);
int jinja_format_braces(struct jinja *j, struct jinja_call *c, struct jinja_value *ret);
/* Pads and formats one value as format(v, spec) and % do. */
struct jinja_spec {
    uint32_t fill;
    char align; /* < > ^ = or 0 */
    char sign;  /* + - blank or 0 */
    bool alternate, comma, underscore;
    int width, precision; /* -1: none */
    char type;            /* 0: by the value */
};
int jinja_format_value(struct jinja *j, struct jinja_text *out, struct jinja_value v, const struct jinja_spec *spec);

/* What string functions share between filters and methods. */
const struct jinja_str *jinja_strip(struct jinja *j, const struct jinja_str *s, const struct jinja_str *chars, bool left, bool right);
const struct jinja_str *jinja_replace(struct jinja *j, const struct jinja_str *s, const struct jinja_str *old,
                                      const struct jinja_str *fresh, int64_t count);
enum jinja_case { JINJA_UPPER, JINJA_LOWER, JINJA_CAPITALIZE, JINJA_TITLE, JINJA_SWAPCASE, JINJA_FOLD };
const struct jinja_str *jinja_change_case(struct jinja *j, const struct jinja_str *s, enum jinja_case to);
/* Adds the character at byte i, turned into a capital (or title case) or small letter. */
void jinja_text_cased(struct jinja *j, struct jinja_text *t, const struct jinja_str *s, size_t i, bool upper, bool title);
bool jinja_all_case(const struct jinja_str *s, bool upper); /* isupper, islower */
const struct jinja_str *jinja_pad(struct jinja *j, const struct jinja_str *s, int64_t width, char align, const struct jinja_str *fill);
int jinja_split_lines(struct jinja *j, const struct jinja_str *s, bool keep, struct jinja_list_buf *ret);
const struct jinja_str *jinja_escape(struct jinja *j, const struct jinja_str *s);
/* Stable; `keys` order the items; -1 where they cannot be compared. */
int jinja_sort(struct jinja *j, struct jinja_value *items, struct jinja_value *keys, size_t n, bool reverse);

#endif
