/* The functions that templates find: Jinja2's globals and those that chat templates get beside them. */
#include <inttypes.h>
#include <locale.h>
#include <string.h>
#include <time.h>

#include "text/jinja.h"

enum { MAX_RANGE = 100000, MAX_DATE_CHARS = 1024 };

const struct jinja_builtin *jinja_find_in(const struct jinja_builtin *table, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

static int f_range(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_args *a = c->args;
    struct jinja_range *r = jinja_alloc(j, 1, sizeof *r);
    if (!r)
        return -1;
    if (a->n < 1 || a->n > 3 || a->n_kw)
        return jinja_fail(j, ERR_INPUT, "range expected 1 to 3 arguments, got %zu", a->n);
    for (size_t i = 0; i < a->n; i++) {
        if (a->v[i].type == JINJA_UNDEFINED)
            return jinja_fail_undefined(j, a->v[i]);
        if (!jinja_is_int(a->v[i]))
            return jinja_fail(j, ERR_INPUT, "'%s' object cannot be interpreted as an integer", jinja_type_name(a->v[i]));
    }
    *r = (struct jinja_range){
        .start = a->n > 1 ? jinja_as_int(a->v[0]) : 0, .stop = jinja_as_int(a->v[a->n > 1]), .step = a->n > 2 ? jinja_as_int(a->v[2]) : 1};
    if (r->step == 0)
        return jinja_fail(j, ERR_INPUT, "range() arg 3 must not be zero");
    uint64_t span = r->step > 0 ? (uint64_t)r->stop - (uint64_t)r->start : (uint64_t)r->start - (uint64_t)r->stop;
    uint64_t by = r->step > 0 ? (uint64_t)r->step : 0 - (uint64_t)r->step;
    if (r->step > 0 ? r->stop > r->start : r->stop < r->start) {
        uint64_t n = (span - 1) / by + 1;
        if (n > MAX_RANGE)
            return jinja_fail(j, ERR_LIMIT, "range too big: %" PRIu64 " items, at most %d allowed", n, MAX_RANGE);
        r->n = n;
    }
    *ret = (struct jinja_value){.type = JINJA_RANGE, .range = r};
    return 0;
}

/* dict(mapping or pairs, key=value…), and what namespace() makes its attributes from. */
static int f_dict(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_dict *d = jinja_dict_new(j);
    struct jinja_cursor cursor;
    struct jinja_value item;
    int rc = 0;

    if (!d)
        return -1;
    if (c->args->n > 1)
        return jinja_fail(j, ERR_INPUT, "%s expected at most 1 argument, got %zu", c->builtin->name, c->args->n);
    if (c->args->n && c->args->v[0].type == JINJA_DICT) {
        const struct jinja_dict *from = c->args->v[0].dict;
        for (size_t i = 0; i < from->n && rc == 0; i++)
            rc = jinja_dict_set(j, d, from->entries[i].key, from->entries[i].value);
        if (rc != 0 || jinja_charge(j, from->n / 4) != 0)
            return -1;
    } else if (c->args->n) {
        if (jinja_cursor_init(j, &cursor, c->args->v[0]) != 0)
            return -1;
        while ((rc = jinja_cursor_next(j, &cursor, &item)) == 1) {
            struct jinja_list_buf pair;
            if (jinja_collect(j, item, &pair) != 0)
                return -1;
            if (pair.n != 2)
                return jinja_fail(j, ERR_INPUT, "dictionary update sequence element has length %zu; 2 is required", pair.n);
            if (jinja_dict_set(j, d, pair.items[0], pair.items[1]) != 0)
                return -1;
        }
        if (rc < 0)
            return -1;
    }
    for (size_t i = 0; i < c->args->n_kw; i++)
        if (jinja_dict_set(j, d, jinja_string(c->args->kw[i].name), c->args->kw[i].value) != 0)
            return -1;
    *ret = (struct jinja_value){.type = c->builtin->tag, .dict = d};
    return 0;
}

static int f_cycler(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_list_buf l = {.items = c->args->v, .n = c->args->n};
    struct jinja_cycler *cycler = jinja_alloc(j, 1, sizeof *cycler);
    struct jinja_value items;
    if (c->args->n == 0 || c->args->n_kw)
        return jinja_fail(j, ERR_INPUT, "at least one item has to be provided");
    if (!cycler || jinja_list_value(j, &l, JINJA_TUPLE, &items) != 0)
        return -1;
    *cycler = (struct jinja_cycler){.items = items.list};
    *ret = (struct jinja_value){.type = JINJA_CYCLER, .cycler = cycler};
    return 0;
}

static int f_joiner(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    static const struct jinja_str comma = {.s = ", ", .len = 2, .n_chars = 2, .special = true};
    struct jinja_cycler *joiner = jinja_alloc(j, 1, sizeof *joiner);
    struct jinja_list_buf l = {0};
    struct jinja_value items;
    if (!joiner || jinja_list_push(j, &l, c->v[0].type == JINJA_MISSING ? jinja_string(&comma) : c->v[0]) != 0 ||
        jinja_list_value(j, &l, JINJA_TUPLE, &items) != 0)
        return -1;
    *joiner = (struct jinja_cycler){.items = items.list};
    *ret = (struct jinja_value){.type = JINJA_JOINER, .cycler = joiner};
    return 0;
}

static int f_raise_exception(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    const struct jinja_str *s = jinja_str_of(j, c->v[0]);
    char text[320];
    (void)ret;
    if (!s)
        return -1;
    return jinja_fail(j, ERR_INPUT, "%s", err_printable(text, sizeof text, s->s, s->len));
}

/* strftime of one directive or of the text between two, in the C locale. */
static void add_date(struct jinja *j, struct jinja_text *t, const char *format, const struct tm *tm, locale_t c_locale)
{
    char buf[MAX_DATE_CHARS];
    jinja_text_add(j, t, buf, strftime_l(buf, sizeof buf, format, tm, c_locale), false);
}

static int f_strftime_now(struct jinja *j, struct jinja_call *c, struct jinja_value *ret)
{
    struct jinja_text t = {0};
    struct tm tm;
    locale_t c_locale;

    if (c->v[0].type != JINJA_STR)
        return jinja_fail(j, ERR_INPUT, "strftime() argument 1 must be str, not %s", jinja_type_name(c->v[0]));
    if (!localtime_r(&j->now, &tm))
        return jinja_fail(j, ERR_INTERNAL, "no local time");
    if (!(c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0)))
        return jinja_fail(j, ERR_MEMORY, "out of memory");
    const struct jinja_str *s = c->v[0].str;
    for (size_t i = 0; i < s->len && !t.failed;) {
        char directive[8];
        size_t n = 1;
        if (s->s[i] != '%') {
            const char *percent = memchr(s->s + i, '%', s->len - i);
            n = percent ? (size_t)(percent - s->s) - i : s->len - i;
            jinja_text_add(j, &t, s->s + i, n, false);
            i += n;
            continue;
        }
        while (i + n < s->len && n < sizeof directive - 2 && strchr("_-0^#EO", s->s[i + n]) && s->s[i + n]) /* glibc's flags */
            n++;
        n += i + n < s->len;
        memcpy(directive, s->s + i, n);
        directive[n] = '\0';
        i += n;
        if (n == 2 && directive[1] == 'f')
            jinja_text_puts(j, &t, "000000"); /* no finer than seconds */
        else if (n == 2 && (directive[1] == 'z' || directive[1] == 'Z'))
            continue; /* datetime.now() knows no zone */
        else if (n == 1 || (unsigned char)directive[n - 1] >= 0x80)
            jinja_text_add(j, &t, directive, n, false);
        else
            add_date(j, &t, directive, &tm, c_locale);
        if (jinja_charge(j, 1) != 0)
            t.failed = true;
    }
    freelocale(c_locale);
    return jinja_text_value(j, &t, ret);
}

static const struct jinja_builtin functions[] = {
    {"cycler", "*", f_cycler, 0},
    {"dict", "*", f_dict, JINJA_DICT},
    {"joiner", "sep?", f_joiner, 0},
    {"lipsum", "*", NULL, 0},
    {"namespace", "*", f_dict, JINJA_NAMESPACE},
    {"raise_exception", "message", f_raise_exception, 0},
    {"range", "*", f_range, 0},
    {"strftime_now", "format", f_strftime_now, 0},
};

const struct jinja_builtin *jinja_find_function(const char *name, size_t len)
{
    return jinja_find_in(functions, sizeof functions / sizeof *functions, name, len);
}
