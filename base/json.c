/* See json.h. */
#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct source {
    FILE *file;
    size_t left;
    bool too_long;
};

/* jansson's reader: as much as there is, but never more than the bound. */
static size_t read_some(void *buffer, size_t len, void *arg)
{
    struct source *s = arg;
    size_t n;

    if (s->left == 0) {
        s->too_long = fgetc(s->file) != EOF;
        return s->too_long ? (size_t)-1 : 0;
    }
    n = fread(buffer, 1, len < s->left ? len : s->left, s->file);
    s->left -= n;
    return n == 0 && ferror(s->file) ? (size_t)-1 : n;
}

static int syntax_error(const char *name, const json_error_t *e, struct err *err)
{
    char shown[128], text[JSON_ERROR_TEXT_LENGTH * 2];

    err_printable(shown, sizeof shown, name, strlen(name));
    err_printable(text, sizeof text, e->text, strlen(e->text));
    if (e->line < 1)
        return err_set(err, ERR_INPUT, "%s: %s", shown, text);
    return err_set(err, ERR_INPUT, "%s:%d:%d: %s", shown, e->line, e->column, text);
}

json_t *json_read_file(const char *path, size_t max_bytes, struct err *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    struct source s = {.file = standard ? stdin : fopen(path, "re"), .left = max_bytes};
    json_error_t e;
    json_t *root;
    int failed;

    if (!s.file) {
        err_errno(err, errno, "%s", name);
        return NULL;
    }
    errno = 0;
    root = json_load_callback(read_some, &s, JSON_DECODE_ANY, &e);
    failed = ferror(s.file) ? errno : 0;
    if (!standard)
        fclose(s.file);
    /* To jansson a failed read is the file's end, and what came before may be whole. */
    if (root && !failed && !s.too_long)
        return root;
    json_decref(root);
    if (failed)
        err_errno(err, failed, "%s", name);
    else if (s.too_long)
        err_set(err, ERR_LIMIT, "%s: longer than the %zu bytes allowed", name, max_bytes);
    else
        syntax_error(name, &e, err);
    return NULL;
}

json_t *json_read_text(const char *name, const char *text, size_t len, struct err *err)
{
    json_error_t e;
    json_t *root = json_loadb(text, len, JSON_DECODE_ANY, &e);

    if (!root)
        syntax_error(name, &e, err);
    return root;
}

const char *json_type_words(const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

/* 1 and the value; 0 where it is absent and may be; -1. A `where` that is no object has no fields. */
static int find(const json_t *object, const char *where, const char *name, enum json_need need, const char *wanted, json_t **ret,
                struct err *err)
{
    if (!json_is_object(object))
        return err_set(err, ERR_INPUT, "%s: an object with \"%s\" is expected, not %s", where, name, json_type_words(object));
    *ret = json_object_get(object, name);
    if (*ret && !json_is_null(*ret))
        return 1;
    if (need == JSON_OPTIONAL)
        return 0;
    return err_set(err, ERR_INPUT, "%s: \"%s\" is missing; %s is expected", where, name, wanted);
}

static int wrong_type(const char *where, const char *name, const char *wanted, const json_t *got, struct err *err)
{
    return err_set(err, ERR_INPUT, "%s: \"%s\" is %s; %s is expected", where, name, json_type_words(got), wanted);
}

int json_get_text(const json_t *object, const char *where, const char *name, enum json_need need, const char **ret, struct err *err)
{
    json_t *v;
    int rc = find(object, where, name, need, "a string", &v, err);

    if (rc <= 0)
        return rc;
    if (!json_is_string(v))
        return wrong_type(where, name, "a string", v, err);
    *ret = json_string_value(v);
    return 0;
}

int json_get_int(const json_t *object, const char *where, const char *name, enum json_need need, int64_t min, int64_t max, int64_t *ret,
                 struct err *err)
{
    json_t *v;
    int rc = find(object, where, name, need, "an integer", &v, err);

    if (rc <= 0)
        return rc;
    if (!json_is_integer(v))
        return wrong_type(where, name, "an integer", v, err);
    int64_t n = json_integer_value(v);
    if (n < min || n > max)
        return err_set(err, ERR_INPUT, "%s: \"%s\" is %lld; %lld to %lld is allowed", where, name, (long long)n, (long long)min,
                       (long long)max);
    *ret = n;
    return 0;
}

int json_get_number(const json_t *object, const char *where, const char *name, enum json_need need, double min, double max, double *ret,
                    struct err *err)
{
    json_t *v;
    int rc = find(object, where, name, need, "a number", &v, err);

    if (rc <= 0)
        return rc;
    if (!json_is_number(v))
        return wrong_type(where, name, "a number", v, err);
    double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return err_set(err, ERR_INPUT, "%s: \"%s\" is %g; %g to %g is allowed", where, name, x, min, max);
    *ret = x;
    return 0;
}

int json_get_bool(const json_t *object, const char *where, const char *name, enum json_need need, bool *ret, struct err *err)
{
    json_t *v;
    int rc = find(object, where, name, need, "true or false", &v, err);

    if (rc <= 0)
        return rc;
    if (!json_is_boolean(v))
        return wrong_type(where, name, "true or false", v, err);
    *ret = json_is_true(v);
    return 0;
}

int json_get_array(const json_t *object, const char *where, const char *name, enum json_need need, json_t **ret, struct err *err)
{
    json_t *v;
    int rc = find(object, where, name, need, "an array", &v, err);

    if (rc <= 0)
        return rc;
    if (!json_is_array(v))
        return wrong_type(where, name, "an array", v, err);
    *ret = v;
    return 0;
}

int json_get_object(const json_t *object, const char *where, const char *name, enum json_need need, json_t **ret, struct err *err)
{
    json_t *v;
    int rc = find(object, where, name, need, "an object", &v, err);

    if (rc <= 0)
        return rc;
    if (!json_is_object(v))
        return wrong_type(where, name, "an object", v, err);
    *ret = v;
    return 0;
}
