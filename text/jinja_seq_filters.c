/* Filters on sequences and mappings. What Jinja2 makes a generator is evaluated at once here, but read once all the same
 * and shown to templates as the generator it would be: an error waits until somebody reads so far. */
#include <string.h>

#include "text/jinja.h"

/* --- tools -------------------------------------------------------------- */

static int make_iter(struct jinja *j, const struct jinja_list_buf *l, const char *type_name, struct jinja_value *ret)
{
    struct jinja_iter *it = jinja_alloc(j, 1, sizeof *it);
    struct jinja_value v;
    if (!it || jinja_list_value(j, l, JINJA_LIST, &v) != 0)
        return -1;
    *it = (struct jinja_iter){.list = v.list, .type_name = type_name};
    *ret = (struct jinja_value){.type = JINJA_ITER, .iter = it};
    return 0;
}

/* The same for what failed behind these items (l NULL: at once), unless it hit a limit. */
static int make_failing_iter(struct jinja *j, const struct jinja_list_buf *l, struct jinja_value *ret)
{
    static const struct jinja_list_buf nothing;
    struct err *failed;
    if (j->err->kind == ERR_LIMIT || j->err->kind == ERR_MEMORY)
        return -1;
    if (!(failed = jinja_alloc(j, 1, sizeof *failed)) || make_iter(j, l ? l : &nothing, "generator", ret) != 0)
        return -1;
    *failed = *j->err;
    ret->iter->failed = failed;
    err_clear(j->err);
    return 0;
}

/* One dotted path: "a.b.0". A missing part becomes fallback, if that is given. */
static int get_path(struct jinja *j, struct jinja_value item, const char *path, size_t len, struct jinja_value fallback,
                    struct jinja_value *ret)
{
    for (const char *end = path + len;;) {
        const char *dot = memchr(path, '.', (size_t)(end - path));
        size_t n = (size_t)((dot ? dot : end) - path);
        struct jinja_value key;
        int64_t index;
        if (n && strspn(path, "0123456789") >= n && jinja_parse_int(path, n, 10, &index) == 0) {
            key = jinja_int(index);
        } else {
            const struct jinja_str *s = jinja_str_copy(j, path, n, false);
            if (!s)
                return -1;
            key = jinja_string(s);
        }
        if (jinja_getitem(j, item, key, &item) != 0)
            return -1;
        if (item.type == JINJA_UNDEFINED && jinja_given(fallback))
            item = fallback;
        if (!dot)
            break;
        path = dot + 1;
    }
    *ret = item;
    return 0;
}

static int fold_case(struct jinja *j, struct jinja_value *v)
{
    const struct jinja_str *s;
    if (v->type != JINJA_STR)
        return 0;
    if (!(s = jinja_change_case(j, v->str, JINJA_LOWER)))
        return -1;
    *v = jinja_string(s);
    return 0;
}

/* Jinja2's attrgetter: `attribute` None gives the item itself. */
static int get_attribute(struct jinja *j, struct jinja_value item, struct jinja_value attribute, struct jinja_value fallback, bool fold,
                         struct jinja_value *ret)
{
    *ret = item;
    if (attribute.type == JINJA_STR) {
        const struct jinja_str *copy = jinja_str_copy(j, attribute.str->s, attribute.str->len, false); /* ends in 0 */
        if (!copy || get_path(j, item, copy->s, copy->len, fallback, ret) != 0)
            return -1;
    } else if (jinja_given(attribute)) {
        if (jinja_getitem(j, item, attribute, ret) != 0)
            return -1;
        if (ret->type == JINJA_UNDEFINED && jinja_given(fallback))
            *ret = fallback;
    }
    return fold ? fold_case(j, ret) : 0;
}

/* The same for sort, where commas separate several: a list. */
static int get_attributes(struct jinja *j, struct jinja_value item, struct jinja_value attribute, bool fold, struct jinja_value *ret)
{
    struct jinja_list_buf l = {0};
    struct jinja_value v;
    if (attribute.type != JINJA_STR) {
        if (get_attribute(j, item, attribute, jinja_none(), fold, &v) != 0 || jinja_list_push(j, &l, v) != 0)
            return -1;
        return jinja_list_value(j, &l, JINJA_LIST, ret);
    }
    const struct jinja_str *copy = jinja_str_copy(j, attribute.str->s, attribute.str->len, false);
    if (!copy)
        return -1;
    for (const char *s = copy->s, *end = s + copy->len;;) {
        const char *comma = memchr(s, ',', (size_t)(end - s));
        if (get_path(j, item, s, (size_t)((comma ? comma : end) - s), jinja_none(), &v) != 0 || (fold && fold_case(j, &v) != 0) ||
            jinja_list_push(j, &l, v) != 0)
            return -1;
        if (!comma)
            return jinja_list_value(j, &l, JINJA_LIST, ret);
        s = comma + 1;
    }
}

static bool flag(struct jinja_value v)
{
    return v.type != JINJA_MISSING && jinja_truth(v);
}

static int need_int(struct jinja *j, struct jinja_value v, const char *what, int64_t *ret)
{
    if (!jinja_is_int(v))
        return jinja_fail(j, ERR_INPUT, "%s must be an integer, not %s", what, jinja_type_name(v));
    *ret = jinja_as_int(v);
    return 0;
}

/* A merge sort: stable, and n log n comparisons whatever the input. */
static int sort_range(struct jinja *j, struct jinja_value *items, struct jinja_value *keys, struct jinja_value *spare, size_t n,
                      bool reverse)
{
    size_t half = n / 2, a = 0, b = half, out = 0;
    int order;
    if (n < 2)
        return 0;
    if (sort_range(j, items, keys, spare, half, reverse) != 0 || sort_range(j, items + half, keys + half, spare, n - half, reverse) != 0)
        return -1;
    while (a < half && b < n) {
        if (jinja_charge(j, 1) != 0 || jinja_order(j, keys[b], keys[a], "<", &order) != 0)
            return -1;
        size_t from = (reverse ? order == 1 : order < 0) ? b++ : a++;
        spare[2 * out] = items[from];
        spare[2 * out++ + 1] = keys[from];
    }
    while (a < half) {
        spare[2 * out] = items[a];
        spare[2 * out++ + 1] = keys[a++];
    }
    for (size_t i = 0; i < out; i++) {
        items[i] = spare[2 * i];
        keys[i] = spare[2 * i + 1];
    }
    return 0;
}

int jinja_sort(struct jinja *j, struct jinja_value *items, struct jinja_value *keys, size_t n, bool reverse)
{
    struct jinja_value *spare = jinja_alloc(j, n + 1, 2 * sizeof *spare);
    return spare ? sort_range(j, items, keys, spare, n, reverse) : -1;
}

/* --- whole sequences ---------------------------------------------------- */

static int f_length(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_str name = {.s = "length", .len = 6, .n_chars = 6};
    size_t n = 0;
    if (c->self.type == JINJA_LOOP)
        return jinja_loop_attr(j, c->self.loop, &name, ret) < 0 ? -1 : 0;
    if (!jinja_length(c->self, &n))
        return jinja_fail(j, ERR_INPUT, "object of type '%s' has no len()", jinja_type_name(c->self));
    *ret = jinja_int((int64_t)n);
    return c->self.type == JINJA_STR ? jinja_charge_bytes(j, c->self.str->len) : 0;
}

static int f_list(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l;
    return jinja_collect(j, c->self, &l) != 0 ? -1 : jinja_list_value(j, &l, JINJA_LIST, ret);
}

static int f_first(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_cursor cursor;
    int rc;
    if (jinja_cursor_init(j, &cursor, c->self) != 0 || (rc = jinja_cursor_next(j, &cursor, ret)) < 0)
        return -1;
    return rc ? 0 : jinja_undefined(j, NULL, NULL, "no first item, sequence was empty", ret);
}

static int f_last(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l;
    if (c->self.type == JINJA_ITER)
        return jinja_fail(j, ERR_INPUT, "'%s' object is not reversible", jinja_type_name(c->self));
    if (jinja_is_seq(c->self) && c->self.list->n) {
        *ret = c->self.list->items[c->self.list->n - 1];
        return 0;
    }
    if (jinja_collect(j, c->self, &l) != 0)
        return -1;
    if (!l.n)
        return jinja_undefined(j, NULL, NULL, "no last item, sequence was empty", ret);
    *ret = l.items[l.n - 1];
    return 0;
}

static int f_reverse(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_value by = jinja_int(-1);
    struct jinja_list_buf l;
    if (c->self.type == JINJA_STR)
        return jinja_slice(j, c->self, jinja_none(), jinja_none(), by, ret);
    if (jinja_collect(j, c->self, &l) != 0)
        return -1;
    for (size_t i = 0; i < l.n / 2; i++) {
        struct jinja_value v = l.items[i];
        l.items[i] = l.items[l.n - 1 - i];
        l.items[l.n - 1 - i] = v;
    }
    if (c->self.type == JINJA_ITER)
        return jinja_list_value(j, &l, JINJA_LIST, ret);
    return make_iter(j, &l, "list_reverseiterator", ret);
}

static int f_join(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_text t = {0};
    struct jinja_cursor cursor;
    struct jinja_value item;
    const struct jinja_str *between = NULL;
    int rc;

    if (c->v[0].type != JINJA_MISSING && !(between = jinja_str_of(j, c->v[0])))
        return -1;
    if (jinja_cursor_init(j, &cursor, c->self) != 0)
        return -1;
    for (size_t n = 0; (rc = jinja_cursor_next(j, &cursor, &item)) == 1; n++) {
        if (n && between)
            jinja_text_str(j, &t, between);
        if (get_attribute(j, item, c->v[1], jinja_none(), false, &item) != 0 || jinja_print(j, &t, item) != 0)
            return -1;
    }
    return rc < 0 ? -1 : jinja_text_value(j, &t, ret);
}

static int f_sum(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_cursor cursor;
    struct jinja_value item, sum = c->v[1].type == JINJA_MISSING ? jinja_int(0) : c->v[1];
    int rc;
    if (sum.type == JINJA_STR)
        return jinja_fail(j, ERR_INPUT, "sum() can't sum strings [use ''.join(seq) instead]");
    if (jinja_cursor_init(j, &cursor, c->self) != 0)
        return -1;
    while ((rc = jinja_cursor_next(j, &cursor, &item)) == 1)
        if (get_attribute(j, item, c->v[0], jinja_none(), false, &item) != 0 || jinja_math(j, JINJA_OP_ADD, sum, item, &sum) != 0)
            return -1;
    *ret = sum;
    return rc;
}

static int f_min_max(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l;
    struct jinja_value best = {.type = JINJA_MISSING}, key;
    int order;
    if (jinja_collect(j, c->self, &l) != 0)
        return -1;
    if (!l.n)
        return jinja_undefined(j, NULL, NULL, "no aggregated item, sequence was empty", ret);
    for (size_t i = 0; i < l.n; i++) {
        if (get_attribute(j, l.items[i], c->v[1], jinja_none(), !flag(c->v[0]), &key) != 0)
            return -1;
        if (i && jinja_order(j, key, best, c->builtin->tag ? ">" : "<", &order) != 0)
            return -1;
        if (i == 0 || (c->builtin->tag ? order == 1 : order < 0)) {
            best = key;
            *ret = l.items[i];
        }
    }
    return 0;
}

static int f_sort(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l;
    struct jinja_value *keys;
    int64_t reverse = 0; /* sorted() wants an integer, unlike most */
    if (c->v[0].type != JINJA_MISSING && need_int(j, c->v[0], "reverse", &reverse) != 0)
        return -1;
    if (jinja_collect(j, c->self, &l) != 0 || !(keys = jinja_alloc(j, l.n + 1, sizeof *keys)))
        return -1;
    for (size_t i = 0; i < l.n; i++)
        if (get_attributes(j, l.items[i], c->v[2], !flag(c->v[1]), &keys[i]) != 0)
            return -1;
    return jinja_sort(j, l.items, keys, l.n, reverse != 0) != 0 ? -1 : jinja_list_value(j, &l, JINJA_LIST, ret);
}

static int f_dictsort(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l = {0};
    struct jinja_value *keys;
    int64_t reverse = 0;
    bool by_value = false;
    if (c->v[1].type != JINJA_MISSING) {
        if (c->v[1].type != JINJA_STR || !(jinja_str_is(c->v[1].str, "key") || jinja_str_is(c->v[1].str, "value")))
            return jinja_fail(j, ERR_INPUT, "you can only sort by either \"key\" or \"value\"");
        by_value = jinja_str_is(c->v[1].str, "value");
    }
    if (c->self.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, c->self);
    if (c->self.type != JINJA_DICT)
        return jinja_fail(j, ERR_INPUT, "'%s' object has no attribute 'items'", jinja_type_name(c->self));
    if (c->v[2].type != JINJA_MISSING && need_int(j, c->v[2], "reverse", &reverse) != 0)
        return -1;
    if (!(keys = jinja_alloc(j, c->self.dict->n + 1, sizeof *keys)))
        return -1;
    for (size_t i = 0; i < c->self.dict->n; i++) {
        const struct jinja_entry *e = &c->self.dict->entries[i];
        struct jinja_value pair;
        keys[i] = by_value ? e->value : e->key;
        if (jinja_pair(j, e->key, e->value, &pair) != 0 || jinja_list_push(j, &l, pair) != 0 ||
            (!flag(c->v[0]) && fold_case(j, &keys[i]) != 0))
            return -1;
    }
    return jinja_sort(j, l.items, keys, l.n, reverse != 0) != 0 ? -1 : jinja_list_value(j, &l, JINJA_LIST, ret);
}

static int unique(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_dict *seen = jinja_dict_new(j);
    struct jinja_list_buf l, out = {0};
    struct jinja_entry *e;
    if (!seen || jinja_collect(j, c->self, &l) != 0)
        return -1;
    for (size_t i = 0; i < l.n; i++) {
        struct jinja_value key;
        if (get_attribute(j, l.items[i], c->v[1], jinja_none(), !flag(c->v[0]), &key) != 0 || jinja_dict_find(j, seen, key, &e) != 0)
            return -1;
        if (!e && (jinja_dict_set(j, seen, key, jinja_none()) != 0 || jinja_list_push(j, &out, l.items[i]) != 0))
            return -1;
    }
    return make_iter(j, &out, "generator", ret);
}

/* --- groups ------------------------------------------------------------- */

static int f_groupby(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l, out = {0};
    struct jinja_value *keys;
    if (jinja_collect(j, c->self, &l) != 0 || !(keys = jinja_alloc(j, l.n + 1, sizeof *keys)))
        return -1;
    for (size_t i = 0; i < l.n; i++)
        if (get_attribute(j, l.items[i], c->v[0], c->v[1], !flag(c->v[2]), &keys[i]) != 0)
            return -1;
    if (jinja_sort(j, l.items, keys, l.n, false) != 0)
        return -1;
    for (size_t i = 0, next; i < l.n; i = next) {
        struct jinja_list_buf members = {.items = l.items + i};
        struct jinja_value key, list, group;
        int rc = 1;
        for (next = i; next < l.n && (rc = jinja_equal(j, keys[next], keys[i])) == 1; next++)
            members.n++;
        if (rc < 0 || get_attribute(j, l.items[i], c->v[0], c->v[1], false, &key) != 0 ||
            jinja_list_value(j, &members, JINJA_LIST, &list) != 0 || jinja_pair(j, key, list, &group) != 0)
            return -1;
        ((struct jinja_list *)(uintptr_t)group.list)->group = true;
        if (jinja_list_push(j, &out, group) != 0)
            return -1;
    }
    return jinja_list_value(j, &out, JINJA_LIST, ret);
}

static int batch(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l, out = {0}, row = {0};
    struct jinja_value v;
    int64_t count = jinja_is_int(c->v[0]) ? jinja_as_int(c->v[0]) : -1; /* no length equals what is no integer */
    if (jinja_collect(j, c->self, &l) != 0)
        return -1;
    for (size_t i = 0; i <= l.n; i++) {
        if (i == l.n && row.n && jinja_given(c->v[1])) {
            if (need_int(j, c->v[0], "linecount", &count) != 0 || jinja_charge(j, count > 0 ? (size_t)count : 0) != 0)
                return -1;
            while ((int64_t)row.n < count)
                if (jinja_list_push(j, &row, c->v[1]) != 0)
                    return -1;
        }
        if ((i == l.n && row.n) || (i < l.n && (int64_t)row.n == count)) {
            if (jinja_list_value(j, &row, JINJA_LIST, &v) != 0 || jinja_list_push(j, &out, v) != 0)
                return -1;
            row = (struct jinja_list_buf){0};
        }
        if (i < l.n && jinja_list_push(j, &row, l.items[i]) != 0)
            return -1;
    }
    return make_iter(j, &out, "generator", ret);
}

static int slice_list(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l, out = {0};
    int64_t slices = 0;
    if (need_int(j, c->v[0], "slices", &slices) != 0 || jinja_collect(j, c->self, &l) != 0)
        return -1;
    if (slices == 0)
        return jinja_fail(j, ERR_INPUT, "integer division or modulo by zero");
    size_t each = slices > 0 ? l.n / (size_t)slices : 0, extra = slices > 0 ? l.n % (size_t)slices : 0, start = 0;
    for (int64_t i = 0; i < slices; i++) {
        struct jinja_list_buf row = {0};
        struct jinja_value v;
        size_t n = each + ((size_t)i < extra);
        if (jinja_charge(j, 1) != 0)
            return -1;
        for (size_t k = start; k < start + n; k++)
            if (jinja_list_push(j, &row, l.items[k]) != 0)
                return -1;
        start += n;
        if ((jinja_given(c->v[1]) && (size_t)i >= extra && jinja_list_push(j, &row, c->v[1]) != 0) ||
            jinja_list_value(j, &row, JINJA_LIST, &v) != 0 || jinja_list_push(j, &out, v) != 0)
            return -1;
    }
    return make_iter(j, &out, "generator", ret);
}

/* --- map, select -------------------------------------------------------- */

static int map_attribute(struct jinja *j, struct jinja_call *c, struct jinja_list_buf *out)
{
    struct jinja_value attribute = {.type = JINJA_MISSING}, fallback = attribute, item;
    struct jinja_cursor cursor;
    int rc;
    for (size_t i = 0; i < c->args->n_kw; i++) {
        if (jinja_str_is(c->args->kw[i].name, "attribute"))
            attribute = c->args->kw[i].value;
        else if (jinja_str_is(c->args->kw[i].name, "default"))
            fallback = c->args->kw[i].value;
        else
            return jinja_fail(j, ERR_INPUT, "map: unexpected keyword argument '%s'", c->args->kw[i].name->s);
    }
    if (attribute.type == JINJA_MISSING)
        return jinja_fail(j, ERR_INPUT, "map requires a filter argument");
    if (jinja_cursor_init(j, &cursor, c->self) != 0)
        return -1;
    while ((rc = jinja_cursor_next(j, &cursor, &item)) == 1)
        if (get_attribute(j, item, attribute, fallback, false, &item) != 0 || jinja_list_push(j, out, item) != 0)
            return -1;
    return rc;
}

static int map_filter(struct jinja *j, struct jinja_call *c, struct jinja_list_buf *out)
{
    struct jinja_args rest = {.n = c->args->n - 1, .kw = c->args->kw, .n_kw = c->args->n_kw};
    const struct jinja_value name = c->args->v[0];
    const struct jinja_builtin *filter = name.type == JINJA_STR ? jinja_find_filter(name.str->s, name.str->len) : NULL;
    struct jinja_cursor cursor;
    struct jinja_value item;
    int rc;
    rest.v = rest.n ? c->args->v + 1 : NULL;
    if (jinja_cursor_init(j, &cursor, c->self) != 0)
        return -1;
    while ((rc = jinja_cursor_next(j, &cursor, &item)) == 1) {
        if (!filter)
            return jinja_fail(j, ERR_INPUT, "map: no such filter");
        if (jinja_invoke(j, filter, item, &rest, &item) != 0 || jinja_list_push(j, out, item) != 0)
            return -1;
    }
    return rc;
}

static int f_map(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf out = {0};
    if (jinja_truth(c->self) && (c->args->n ? map_filter(j, c, &out) : map_attribute(j, c, &out)) != 0)
        return make_failing_iter(j, &out, ret);
    return make_iter(j, &out, "generator", ret);
}

enum { SELECT_REJECT = 1, SELECT_ATTR = 2 };

/* select, reject, selectattr, rejectattr: by the builtin's tag. */
static int select_items(struct jinja *j, struct jinja_call *c, struct jinja_list_buf *out)
{
    size_t skip = c->builtin->tag & SELECT_ATTR ? 1 : 0;
    const struct jinja_args *args = c->args;
    const struct jinja_builtin *test = NULL;
    struct jinja_cursor cursor;
    struct jinja_value item, v;
    int rc;

    if (args->n < skip)
        return jinja_fail(j, ERR_INPUT, "missing parameter for attribute name");
    bool named = args->n > skip;
    if (named && args->v[skip].type == JINJA_STR)
        test = jinja_find_test(args->v[skip].str->s, args->v[skip].str->len);
    skip += named;
    struct jinja_args rest = {.n = args->n - skip, .kw = args->kw, .n_kw = args->n_kw};
    rest.v = rest.n ? args->v + skip : NULL;
    if (jinja_cursor_init(j, &cursor, c->self) != 0)
        return -1;
    while ((rc = jinja_cursor_next(j, &cursor, &item)) == 1) {
        v = item;
        if (named && !test)
            return jinja_fail(j, ERR_INPUT, "%s: no such test", c->builtin->name);
        if ((c->builtin->tag & SELECT_ATTR) && get_attribute(j, item, args->v[0], jinja_none(), false, &v) != 0)
            return -1;
        if (test && jinja_invoke(j, test, v, &rest, &v) != 0)
            return -1;
        if (jinja_truth(v) != (c->builtin->tag & SELECT_REJECT) && jinja_list_push(j, out, item) != 0)
            return -1;
    }
    return rc;
}

static int f_select(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf out = {0};
    if (jinja_truth(c->self) && select_items(j, c, &out) != 0)
        return make_failing_iter(j, &out, ret);
    return make_iter(j, &out, "generator", ret);
}

/* --- members ------------------------------------------------------------ */

static int items(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_view view = {.dict = c->self.dict, .kind = JINJA_ITEMS};
    struct jinja_value v = {.type = JINJA_VIEW, .view = &view};
    struct jinja_list_buf l = {0};
    if (c->self.type != JINJA_UNDEFINED) {
        if (c->self.type != JINJA_DICT)
            return jinja_fail(j, ERR_INPUT, "can only get item pairs from a mapping");
        if (jinja_collect(j, v, &l) != 0)
            return -1;
    }
    return make_iter(j, &l, "generator", ret);
}

static int f_batch(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    return batch(j, c, ret) == 0 ? 0 : make_failing_iter(j, NULL, ret);
}

static int f_slice(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    return slice_list(j, c, ret) == 0 ? 0 : make_failing_iter(j, NULL, ret);
}

static int f_unique(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    return unique(j, c, ret) == 0 ? 0 : make_failing_iter(j, NULL, ret);
}

static int f_items(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    return items(j, c, ret) == 0 ? 0 : make_failing_iter(j, NULL, ret);
}

static int f_attr(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    int rc;
    if (c->self.type == JINJA_UNDEFINED)
        return jinja_fail_undefined(j, c->self);
    if (c->v[0].type != JINJA_STR)
        return jinja_fail(j, ERR_INPUT, "attribute name must be string, not '%s'", jinja_type_name(c->v[0]));
    if ((rc = jinja_attribute(j, c->self, c->v[0].str, ret)) != 0)
        return rc < 0 ? -1 : 0;
    return jinja_undefined(j, jinja_type_name(c->self), c->v[0].str, NULL, ret);
}

const struct jinja_builtin jinja_seq_filters[] = {
    {"attr", "name", f_attr, 0},
    {"batch", "linecount,fill_with?", f_batch, 0},
    {"count", "/", f_length, 0},
    {"dictsort", "case_sensitive?,by?,reverse?", f_dictsort, 0},
    {"first", "", f_first, 0},
    {"groupby", "attribute,default?,case_sensitive?", f_groupby, 0},
    {"items", "", f_items, 0},
    {"join", "d?,attribute?", f_join, 0},
    {"last", "", f_last, 0},
    {"length", "/", f_length, 0},
    {"list", "", f_list, 0},
    {"map", "*", f_map, 0},
    {"max", "case_sensitive?,attribute?", f_min_max, 1},
    {"min", "case_sensitive?,attribute?", f_min_max, 0},
    {"random", "", NULL, 0},
    {"reject", "*", f_select, SELECT_REJECT},
    {"rejectattr", "*", f_select, SELECT_REJECT | SELECT_ATTR},
    {"reverse", "", f_reverse, 0},
    {"select", "*", f_select, 0},
    {"selectattr", "*", f_select, SELECT_ATTR},
    {"slice", "slices,fill_with?", f_slice, 0},
    {"sort", "reverse?,case_sensitive?,attribute?", f_sort, 0},
    {"sum", "attribute?,start?", f_sum, 0},
    {"unique", "case_sensitive?,attribute?", f_unique, 0},
};
const size_t jinja_n_seq_filters = sizeof jinja_seq_filters / sizeof *jinja_seq_filters;
