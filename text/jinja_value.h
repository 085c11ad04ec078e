#ifndef TEXT_JINJA_VALUE_H
#define TEXT_JINJA_VALUE_H

/* Values of the template interpreter: Python's, as far as templates can see them. All live in the arena of one rendering
 * (constants: in the template's) and are never changed once others can see them, but for namespaces, loops, cyclers,
 * joiners and one-shot iterators. Functions that can fail return -1 or NULL with the rendering's error set. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer.h"

struct jinja; /* one rendering: jinja.h */
struct jinja_node;
struct jinja_frame;

enum jinja_type {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STR,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_RANGE,
    JINJA_VIEW, /* dict.keys(), .values(), .items() */
    JINJA_ITER, /* what generators give: read once */
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_FUNCTION,
    JINJA_METHOD, /* bound to its object */
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_MISSING, /* a macro's parameter before it has a value; templates never see it */
};

struct jinja_value {
    enum jinja_type type;
    union {
        bool b;
        int64_t i;
        double f;
        const struct jinja_str *str;
        const struct jinja_list *list; /* LIST, TUPLE */
        struct jinja_dict *dict;       /* DICT, NAMESPACE */
        const struct jinja_range *range;
        const struct jinja_view *view;
        struct jinja_iter *iter;
        struct jinja_loop *loop;
        const struct jinja_macro *macro;
        const struct jinja_builtin *function;
        const struct jinja_bound *method;
        struct jinja_cycler *cycler;
        const struct jinja_undefined *undefined;
    };
};

/* --- strings ------------------------------------------------------------ */

/* A string's bytes (valid UTF-8) and where they come from: `special` says that the template wrote them, or, where it is
 * mixed, `runs` do, byte ranges from the string's beginning of which the last may reach beyond its end. */
struct jinja_str {
    const char *s;
    size_t len;
    size_t n_chars; /* SIZE_MAX: not counted yet */
    uint64_t hash;  /* 0: not hashed yet */
    const struct text_part *runs;
    size_t n_runs; /* 0: uniform */
    bool special;
    bool markup;             /* escaped HTML: + escapes the other side */
    struct jinja_text *text; /* where it was built, so that appending to it need not copy; or NULL */
};

/* A string under construction, marks included. A failure sticks until jinja_text_str tells it. */
struct jinja_text {
    char *data;
    size_t len, cap;
    struct text_part *runs;
    size_t n_runs, cap_runs;
    size_t max; /* bytes; 0: the arena's limit alone. With a limit of its own the data is malloc's, with room for a 0 behind it */
    bool failed;
};
void jinja_text_add(struct jinja *j, struct jinja_text *t, const char *s, size_t len, bool special);
void jinja_text_puts(struct jinja *j, struct jinja_text *t, const char *s); /* not special */
void jinja_text_str(struct jinja *j, struct jinja_text *t, const struct jinja_str *s);
void jinja_text_sub(struct jinja *j, struct jinja_text *t, const struct jinja_str *s, size_t from, size_t to);
void jinja_text_char(struct jinja *j, struct jinja_text *t, uint32_t c, bool special);
/* The finished string; the builder must not be used again. NULL if an addition failed. */
const struct jinja_str *jinja_text_done(struct jinja *j, struct jinja_text *t);
int jinja_text_value(struct jinja *j, struct jinja_text *t, struct jinja_value *ret);

/* s is borrowed and must outlive the rendering. */
const struct jinja_str *jinja_str_new(struct jinja *j, const char *s, size_t len, bool special);
const struct jinja_str *jinja_str_copy(struct jinja *j, const char *s, size_t len, bool special);
const struct jinja_str *jinja_str_sub(struct jinja *j, const struct jinja_str *s, size_t from, size_t to);
const struct jinja_str *jinja_str_concat(struct jinja *j, const struct jinja_str *a, const struct jinja_str *b);
const struct jinja_str *jinja_str_markup(struct jinja *j, const struct jinja_str *s, bool markup);
bool jinja_str_equal(const struct jinja_str *a, const struct jinja_str *b);
bool jinja_str_is(const struct jinja_str *a, const char *b);
int jinja_str_compare(const struct jinja_str *a, const struct jinja_str *b);
size_t jinja_str_chars(const struct jinja_str *s);
/* The byte at which character `index` begins; index at most the number of characters. */
size_t jinja_str_offset(const struct jinja_str *s, size_t index);
size_t jinja_str_index(const struct jinja_str *s, size_t offset);
bool jinja_str_special_at(const struct jinja_str *s, size_t offset);
/* First needle at or after byte `from` and wholly before `to`; SIZE_MAX if there is none. */
size_t jinja_str_find(const struct jinja_str *s, const struct jinja_str *needle, size_t from, size_t to);
uint64_t jinja_hash_bytes(const char *s, size_t len);

/* --- containers --------------------------------------------------------- */

struct jinja_list {
    struct jinja_value *items;
    size_t n;
    struct jinja_list_buf *buf; /* as jinja_str.text */
    bool group;                 /* groupby's (grouper, list) */
};
/* A list being filled. */
struct jinja_list_buf {
    struct jinja_value *items;
    size_t n, cap;
};
int jinja_list_push(struct jinja *j, struct jinja_list_buf *l, struct jinja_value v);
int jinja_list_value(struct jinja *j, const struct jinja_list_buf *l, enum jinja_type type, struct jinja_value *ret);
int jinja_list_concat(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *ret);
int jinja_pair(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *ret); /* a tuple */

struct jinja_entry {
    struct jinja_value key, value;
    uint64_t hash;
};
struct jinja_dict { /* keeps the order of insertion */
    struct jinja_entry *entries;
    size_t n, cap;
    uint32_t *index; /* entry + 1, open addressing; NULL while the dict is small */
    size_t index_cap;
};
struct jinja_dict *jinja_dict_new(struct jinja *j);
int jinja_dict_set(struct jinja *j, struct jinja_dict *d, struct jinja_value key, struct jinja_value value);
/* The entry, NULL if there is none. An unhashable key: *ret NULL and -1. */
int jinja_dict_find(struct jinja *j, const struct jinja_dict *d, struct jinja_value key, struct jinja_entry **ret);
/* By a string; cannot fail. */
struct jinja_entry *jinja_dict_get(const struct jinja_dict *d, const struct jinja_str *key);

struct jinja_range {
    int64_t start, stop, step;
    size_t n;
};
enum jinja_view_kind { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS };
struct jinja_view {
    const struct jinja_dict *dict;
    enum jinja_view_kind kind;
};
struct jinja_iter {
    const struct jinja_list *list;
    size_t pos;
    const char *type_name;
    const struct err *failed; /* what happens behind the last item; NULL: nothing */
};
struct jinja_macro {
    const struct jinja_node *node; /* MACRO or CALL_BLOCK */
    struct jinja_frame *frame;     /* where it was defined */
};
struct jinja_cycler { /* and joiner: sep in items, used in pos */
    const struct jinja_list *items;
    size_t pos;
};
struct jinja_bound {
    struct jinja_value self;
    const struct jinja_builtin *function;
};
struct jinja_undefined {
    const char *object;           /* type of what has no such member; NULL: a variable */
    const struct jinja_str *name; /* or NULL */
    const char *hint;             /* the whole message; NULL: made from the above */
    bool unsafe;                  /* forbidden in the sandbox */
};

/* --- making and looking at values --------------------------------------- */

struct jinja_value jinja_none(void);
struct jinja_value jinja_bool(bool b);
struct jinja_value jinja_int(int64_t i);
struct jinja_value jinja_float(double f);
struct jinja_value jinja_string(const struct jinja_str *s);
/* Python's name of the type ("str", "dict"). */
const char *jinja_type_name(struct jinja_value v);
bool jinja_truth(struct jinja_value v);
bool jinja_is_number(struct jinja_value v); /* int, bool or float */
bool jinja_is_int(struct jinja_value v);    /* int or bool */
int64_t jinja_as_int(struct jinja_value v);
double jinja_as_float(struct jinja_value v);
bool jinja_is_seq(struct jinja_value v); /* list or tuple */
/* len(); false where Python raises a TypeError. */
bool jinja_length(struct jinja_value v, size_t *ret);
/* Python's ==. Returns -1 (too deep), 0 or 1. */
int jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b);
/* a < b ? -1 : a > b : 1 : 0 into *ret; -1 where Python does not order them. `op` is for the message. NaN: *ret 2. */
int jinja_order(struct jinja *j, struct jinja_value a, struct jinja_value b, const char *op, int *ret);

/* Iterates over anything iterable. */
struct jinja_cursor {
    struct jinja_value v;
    size_t pos, end;
};
int jinja_cursor_init(struct jinja *j, struct jinja_cursor *c, struct jinja_value v);
/* 1 and the next item, 0 at the end, -1. */
int jinja_cursor_next(struct jinja *j, struct jinja_cursor *c, struct jinja_value *ret);
/* list(v), as a buffer. */
int jinja_collect(struct jinja *j, struct jinja_value v, struct jinja_list_buf *ret);

#endif
