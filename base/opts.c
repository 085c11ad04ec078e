/* See opts.h. Values are converted in one place (set_value), for defaults, for the command line and for opts_set alike. */
#include "base/opts.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

enum { NAME_MAX_BYTES = 32, SHOWN_BYTES = 64 };

static const char *const color_names[] = {"auto", "always", "never", NULL};
static const struct opt common_options[] = {
    {"config", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct opts_parsed, config),
     .help = "Read options from this file (default: ~/.config/stagecoach/config, where it is there); none: from no file"},
    {"show-config", 0, OPT_FLAG, .offset = offsetof(struct opts_parsed, show_config),
     .help = "Print every option's value and where it comes from, and end"},
    {"color", 0, OPT_CHOICE, .arg = "WHEN", .offset = offsetof(struct opts_parsed, color), .choices = color_names, .def = "auto",
     .help = "When colors are used; auto is on a terminal where NO_COLOR is not set"},
    {"help", 'h', OPT_FLAG, .offset = offsetof(struct opts_parsed, help), .help = "Show this help"},
    {0},
};
const struct opt_group opts_common = {.title = "Every command", .opts = common_options};

int opts_for_each(const struct opt_command *command, int (*fn)(void *arg, const struct opt_group *group, const struct opt *opt), void *arg)
{
    int rc;

    for (const struct opt_group *group = command->groups; group && group->title; group++)
        for (const struct opt *o = group->opts; o->name; o++)
            if ((rc = fn(arg, group, o)) != 0)
                return rc;
    for (const struct opt *o = common_options; o->name; o++)
        if ((rc = fn(arg, &opts_common, o)) != 0)
            return rc;
    return 0;
}

/* Where a group's values are. */
static char *base_of(const struct opt_group *group, void *values, struct opts_parsed *parsed)
{
    return group == &opts_common ? (char *)parsed : (char *)values + group->base;
}

/* --- names --------------------------------------------------------------- */

/* Edits (a letter more, less, other, or two swapped) between two names of at most NAME_MAX_BYTES. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][NAME_MAX_BYTES + 1];
    size_t n = strlen(a), m = strlen(b);

    if (n > NAME_MAX_BYTES || m > NAME_MAX_BYTES)
        return NAME_MAX_BYTES;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two_above[j - 2] + 1 < best)
                best = two_above[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

const char *opts_nearest(const char *given, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t len = strlen(given);
    unsigned least = len < 3 ? 2 : len < 6 ? 3 : 4; /* exclusive */

    for (size_t i = 0; i < n; i++) {
        unsigned d = distance(given, names[i]);
        if (len >= 3 && strncmp(given, names[i], len) == 0)
            d = 1; /* the beginning of a name */
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

struct lookup {
    const char *name; /* or */
    char letter;
    const struct opt_group *group;
    const struct opt *opt;
    const char *names[OPTS_MAX];
    size_t n_names;
};

static int match(void *arg, const struct opt_group *group, const struct opt *opt)
{
    struct lookup *l = arg;

    if (l->n_names < OPTS_MAX)
        l->names[l->n_names++] = opt->name;
    if (l->name ? strcmp(l->name, opt->name) != 0 : l->letter != opt->letter)
        return 0;
    l->group = group;
    l->opt = opt;
    return 1;
}

static int find_name(const struct opt_command *command, const char *name, struct lookup *l)
{
    *l = (struct lookup){.name = name};
    return opts_for_each(command, match, l);
}

static int unknown_name(const struct lookup *l, struct err *err)
{
    char shown[SHOWN_BYTES];
    const char *near = opts_nearest(l->name, l->names, l->n_names);

    err_printable(shown, sizeof shown, l->name, strlen(l->name));
    if (near)
        return err_set(err, ERR_USAGE, "unknown option --%s; did you mean --%s?", shown, near);
    return err_set(err, ERR_USAGE, "unknown option --%s", shown);
}

/* --- values -------------------------------------------------------------- */

int opts_size(const char *text, uint64_t *ret, struct err *err)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},         {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                 {"TiB", 0x1p40}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
    char shown[SHOWN_BYTES], *end;
    const char *expected = "a size such as 8GiB, 512MB or 4096 is expected";

    err_printable(shown, sizeof shown, text, strlen(text));
    if (*text < '0' || *text > '9')
        return err_set(err, ERR_USAGE, "\"%s\" is not a size; %s", shown, expected);
    double n = strtod(text, &end);
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0) {
            double bytes = n * units[i].bytes;
            if (!(bytes < 0x1p63))
                return err_set(err, ERR_USAGE, "\"%s\" is too large; less than 8388608TiB is allowed", shown);
            *ret = (uint64_t)bytes;
            return 0;
        }
    return err_set(err, ERR_USAGE, "\"%s\" is not a size; %s", shown, expected);
}

static bool has_range(const struct opt *o)
{
    return o->min != 0 || o->max != 0;
}

static int set_int(const struct opt *o, const char *text, const char *shown, int64_t *ret, struct err *err)
{
    char *end;

    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end == text || *end || *text == ' ')
        return err_set(err, ERR_USAGE, "--%s: \"%s\" is not a whole number", o->name, shown);
    if (errno || (has_range(o) && ((double)n < o->min || (double)n > o->max)))
        return err_set(err, ERR_USAGE, "--%s: %s is out of range; %.0f to %.0f is allowed", o->name, shown, has_range(o) ? o->min : -0x1p63,
                       has_range(o) ? o->max : 0x1p63);
    *ret = n;
    return 0;
}

static int set_float(const struct opt *o, const char *text, const char *shown, double *ret, struct err *err)
{
    char *end;
    double x = strtod(text, &end);

    if (end == text || *end || *text == ' ' || isnan(x))
        return err_set(err, ERR_USAGE, "--%s: \"%s\" is not a number", o->name, shown);
    if (has_range(o) ? x < o->min || x > o->max : isinf(x))
        return err_set(err, ERR_USAGE, "--%s: %s is out of range; %g to %g is allowed", o->name, shown, has_range(o) ? o->min : -HUGE_VAL,
                       has_range(o) ? o->max : HUGE_VAL);
    *ret = x;
    return 0;
}

static int set_choice(const struct opt *o, const char *text, const char *shown, const char **ret, struct err *err)
{
    struct strbuf names;
    size_t n = 0;

    for (; o->choices[n]; n++)
        if (strcmp(o->choices[n], text) == 0) {
            *ret = o->choices[n];
            return 0;
        }
    strbuf_init(&names, 256);
    for (size_t i = 0; i < n; i++)
        strbuf_printf(&names, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", o->choices[i]);
    err_set(err, ERR_USAGE, "--%s: \"%s\" is unknown; %s is allowed", o->name, shown, strbuf_str(&names));
    strbuf_fini(&names);
    return -1;
}

/* An empty file, folder or address is a script's variable that was not set; only a text may be empty. */
static int check_string(const struct opt *o, const char *text, struct err *err)
{
    if (*text || !o->arg || strcmp(o->arg, "TEXT") == 0)
        return 0;
    return err_set(err, ERR_USAGE, "--%s: \"\" is given where %s is expected; leave the option out, or give it a value", o->name, o->arg);
}

static int set_list(const struct opt *o, const char *text, struct opt_list *list, struct err *err)
{
    if (check_string(o, text, err) != 0)
        return -1;
    if (mem_grow(&list->items, &list->cap, list->len + 1, sizeof *list->items, OPTS_MAX_LIST, o->name, err) != 0)
        return -1;
    list->items[list->len++] = text;
    return 0;
}

static int set_flag(const struct opt *o, const char *text, const char *shown, bool *ret, struct err *err)
{
    static const char *const yes_words[] = {"yes", "on", "true", "1"}, *const no_words[] = {"no", "off", "false", "0"};
    bool yes = false, no = false;

    for (size_t i = 0; i < sizeof yes_words / sizeof *yes_words; i++) {
        yes |= strcmp(text, yes_words[i]) == 0;
        no |= strcmp(text, no_words[i]) == 0;
    }
    if (!yes && !no)
        return err_set(err, ERR_USAGE, "--%s: \"%s\" is neither yes nor no", o->name, shown);
    *ret = yes;
    return 0;
}

/* Converts and stores. at: the group's base within the values. */
static int set_value(const struct opt *o, const char *text, char *at, struct err *err)
{
    char shown[SHOWN_BYTES];
    uint64_t u;
    char *end;
    void *to = at + o->offset;

    err_printable(shown, sizeof shown, text, strlen(text));
    switch (o->kind) {
    case OPT_FLAG:
        return set_flag(o, text, shown, to, err);
    case OPT_INT:
        return set_int(o, text, shown, to, err);
    case OPT_UINT:
        errno = 0;
        u = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno)
            return err_set(err, ERR_USAGE, "--%s: \"%s\" is not a whole number from 0 to 18446744073709551615", o->name, shown);
        memcpy(to, &u, sizeof u);
        return 0;
    case OPT_SIZE:
        if (opts_size(text, &u, err) != 0)
            return err_wrap(err, "--%s", o->name);
        memcpy(to, &u, sizeof u);
        return 0;
    case OPT_FLOAT:
        return set_float(o, text, shown, to, err);
    case OPT_STRING:
        if (check_string(o, text, err) != 0)
            return -1;
        memcpy(to, &text, sizeof text);
        return 0;
    case OPT_CHOICE:
        return set_choice(o, text, shown, to, err);
    case OPT_LIST:
        return set_list(o, text, to, err);
    }
    return err_set(err, ERR_INTERNAL, "--%s: option kind %d", o->name, (int)o->kind);
}

/* --- parsing ------------------------------------------------------------- */

static int set_default(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct err err;
    void **both = arg;
    return o->def ? set_value(o, o->def, base_of(group, both[0], both[1]), &err) : 0;
}

static int check_required(void *arg, const struct opt_group *group, const struct opt *o)
{
    const struct opts_parsed *parsed = ((void **)arg)[0];
    struct err *err = ((void **)arg)[1];

    if (!o->required || group->optional || opts_given(parsed, o->name))
        return 0;
    if (o->letter)
        return err_set(err, ERR_USAGE, "-%c %s (--%s) is missing", o->letter, o->arg, o->name);
    return err_set(err, ERR_USAGE, "--%s %s is missing", o->name, o->arg);
}

/* 1: it may be set; 0: a stronger source has done so already. */
static int claim(struct opts_parsed *parsed, const struct opt_group *group, const struct opt *o, const struct opts_origin *origin,
                 void *values)
{
    struct opts_origin *was = NULL;
    struct opt_list *list;

    for (size_t i = 0; i < parsed->n_given && !was; i++)
        if (parsed->given[i] == o)
            was = &parsed->origins[i];
    if (was && was->rank < origin->rank)
        return 0;
    if (!was && parsed->n_given < OPTS_MAX) {
        parsed->given[parsed->n_given] = o;
        was = &parsed->origins[parsed->n_given++];
        if (o->kind == OPT_LIST) { /* it grows within one source; a default gives way to the first */
            list = (struct opt_list *)(void *)(base_of(group, values, parsed) + o->offset);
            list->len = 0;
        }
    }
    if (was)
        *was = *origin;
    return 1;
}

static const struct opts_origin line_origin = {"command line", 0};

struct cursor {
    int argc, i;
    char **argv;
};

/* Stores option l with `value`, or with the next word where it is NULL and a value is needed. */
static int take(struct cursor *c, const struct lookup *l, const char *value, void *values, struct opts_parsed *parsed, struct err *err)
{
    const struct opt *o = l->opt;

    if (o->kind == OPT_FLAG && value)
        return err_set(err, ERR_USAGE, "--%s takes no value; --no-%s switches it off", o->name, o->name);
    if (o->kind == OPT_FLAG)
        value = "yes";
    if (!value) {
        if (c->i + 1 >= c->argc)
            return err_set(err, ERR_USAGE, "--%s needs a value: %s", o->name, o->arg);
        value = c->argv[++c->i];
    }
    parsed->alone |= o->alone;
    claim(parsed, l->group, o, &line_origin, values);
    return set_value(o, value, base_of(l->group, values, parsed), err);
}

static int parse_long(const struct opt_command *command, struct cursor *c, void *values, struct opts_parsed *parsed, struct err *err)
{
    const char *word = c->argv[c->i] + 2, *equals = strchr(word, '=');
    char name[NAME_MAX_BYTES + 4];
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    struct lookup l;

    if (len >= sizeof name)
        len = sizeof name - 1; /* no option is so long: it will not be found */
    memcpy(name, word, len);
    name[len] = '\0';
    if (find_name(command, name, &l))
        return take(c, &l, equals ? equals + 1 : NULL, values, parsed, err);
    struct lookup off;
    if (strncmp(name, "no-", 3) == 0 && find_name(command, name + 3, &off) && off.opt->kind == OPT_FLAG && off.group != &opts_common) {
        if (equals)
            return err_set(err, ERR_USAGE, "--%s takes no value", name);
        claim(parsed, off.group, off.opt, &line_origin, values);
        return set_value(off.opt, "no", base_of(off.group, values, parsed), err);
    }
    return unknown_name(&l, err);
}

static int parse_letters(const struct opt_command *command, struct cursor *c, void *values, struct opts_parsed *parsed, struct err *err)
{
    for (const char *s = c->argv[c->i] + 1; *s; s++) {
        struct lookup l = {.letter = *s};
        if (!opts_for_each(command, match, &l)) {
            char shown[8];
            size_t len = utf8_len(s, strlen(s));
            return err_set(err, ERR_USAGE, "unknown option -%s", err_printable(shown, sizeof shown, s, len ? len : 1));
        }
        if (l.opt->kind == OPT_FLAG) {
            if (take(c, &l, NULL, values, parsed, err) != 0)
                return -1;
            continue;
        }
        return take(c, &l, s[1] ? s + 1 : NULL, values, parsed, err);
    }
    return 0;
}

static int check_args(const struct opt_command *command, const struct opts_parsed *parsed, struct err *err)
{
    char shown[SHOWN_BYTES];

    if (parsed->n_args > command->max_args) {
        const char *extra = parsed->args[command->max_args];
        err_printable(shown, sizeof shown, extra, strlen(extra));
        if (command->max_args == 0)
            return err_set(err, ERR_USAGE, "unexpected argument \"%s\"", shown);
        return err_set(err, ERR_USAGE, "unexpected argument \"%s\"; expected: %s", shown, command->synopsis);
    }
    if (parsed->n_args < command->min_args)
        return err_set(err, ERR_USAGE, "%zu argument%s given; expected: %s", parsed->n_args, parsed->n_args == 1 ? "" : "s",
                       command->synopsis);
    return 0;
}

int opts_parse_line(const struct opt_command *command, int argc, char **argv, void *values, struct opts_parsed *ret, struct err *err)
{
    struct cursor c = {.argc = argc, .argv = argv};

    *ret = (struct opts_parsed){0};
    if (!(ret->args = mem_new((size_t)argc, sizeof *ret->args, err)) || !(ret->origins = mem_new(OPTS_MAX, sizeof *ret->origins, err)))
        return -1;
    if (opts_for_each(command, set_default, (void *[]){values, ret}) != 0)
        return err_set(err, ERR_INTERNAL, "%s: a default in the table of options does not fit", command->name);
    for (c.i = 1; c.i < argc; c.i++) {
        const char *word = argv[c.i];
        int rc = 0;
        if (strcmp(word, "--") == 0) {
            while (++c.i < argc)
                ret->args[ret->n_args++] = argv[c.i];
        } else if (strncmp(word, "--", 2) == 0) {
            rc = parse_long(command, &c, values, ret, err);
        } else if (word[0] == '-' && word[1]) {
            rc = parse_letters(command, &c, values, ret, err);
        } else {
            ret->args[ret->n_args++] = word;
        }
        if (ret->help)
            return 0;
        if (rc != 0)
            return -1;
    }
    return 0;
}

int opts_parse_other(const struct opt_command *command, const char *name, const char *value, const struct opts_origin *origin, void *values,
                     struct opts_parsed *parsed, struct err *err)
{
    struct lookup l;

    if (!opts_find(command, name)) {
        find_name(command, name, &l);
        unknown_name(&l, err);
        return err_wrap(err, "%s", origin->text);
    }
    find_name(command, name, &l);
    if (claim(parsed, l.group, l.opt, origin, values) == 0 || set_value(l.opt, value, base_of(l.group, values, parsed), err) == 0)
        return 0;
    return err_wrap(err, "%s", origin->text);
}

int opts_parse_end(const struct opt_command *command, const struct opts_parsed *parsed, struct err *err)
{
    const void *both[] = {parsed, err};

    if (parsed->help || parsed->show_config)
        return 0;
    if (opts_for_each(command, check_required, (void *)both) != 0)
        return -1;
    return check_args(command, parsed, err);
}

int opts_parse(const struct opt_command *command, int argc, char **argv, void *values, struct opts_parsed *ret, struct err *err)
{
    if (opts_parse_line(command, argc, argv, values, ret, err) != 0)
        return -1;
    return opts_parse_end(command, ret, err);
}

static int free_list(void *values, const struct opt_group *group, const struct opt *o)
{
    if (o->kind == OPT_LIST && group != &opts_common) {
        struct opt_list *list = (struct opt_list *)((char *)values + group->base + o->offset);
        free(list->items);
        *list = (struct opt_list){0};
    }
    return 0;
}

void opts_fini(const struct opt_command *command, void *values, struct opts_parsed *parsed)
{
    opts_for_each(command, free_list, values);
    free(parsed->args);
    free(parsed->origins);
    *parsed = (struct opts_parsed){0};
}

const struct opts_origin *opts_origin(const struct opts_parsed *parsed, const char *name)
{
    for (size_t i = 0; i < parsed->n_given; i++)
        if (strcmp(parsed->given[i]->name, name) == 0)
            return &parsed->origins[i];
    return NULL;
}

bool opts_given(const struct opts_parsed *parsed, const char *name)
{
    return opts_origin(parsed, name) != NULL;
}

const struct opt *opts_find(const struct opt_command *command, const char *name)
{
    struct lookup l;

    if (!find_name(command, name, &l) || l.opt->alone)
        return NULL;
    return l.group != &opts_common || strcmp(name, "color") == 0 ? l.opt : NULL;
}

void opts_value_text(const struct opt_group *group, const struct opt *o, const void *values, struct strbuf *out)
{
    const void *at = (const char *)values + group->base + o->offset;
    const struct opt_list *list = at;
    const char *const *text = at;

    switch (o->kind) {
    case OPT_FLAG:
        strbuf_puts(out, *(const bool *)at ? "yes" : "no");
        break;
    case OPT_INT:
        strbuf_printf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case OPT_UINT:
    case OPT_SIZE:
        strbuf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case OPT_FLOAT:
        strbuf_printf(out, "%g", *(const double *)at);
        break;
    case OPT_STRING:
    case OPT_CHOICE:
        strbuf_puts(out, *text ? *text : "");
        break;
    case OPT_LIST:
        for (size_t i = 0; i < list->len; i++)
            strbuf_printf(out, "%s%s", i ? " " : "", list->items[i]);
        break;
    }
}

int opts_set(const struct opt_command *command, const char *name, const char *value, void *values, struct err *err)
{
    struct lookup l;

    if (!find_name(command, name, &l) || l.group == &opts_common)
        return unknown_name(&l, err);
    return set_value(l.opt, value, (char *)values + l.group->base, err);
}
