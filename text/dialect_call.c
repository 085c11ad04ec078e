/* The JSON of a call, as it comes. In the order that nearly all models write (the name, then the arguments) a call is told
 * while it is written; in any other, once it is whole. */
#include <string.h>

#include "text/dialect_read.h"

static bool key_is(const struct dialect_reader *r, const char *name)
{
    return r->key_len == strlen(name) && memcmp(r->object.data + r->key_from, name, r->key_len) == 0;
}

static bool key_is_name(const struct dialect_reader *r)
{
    return key_is(r, "name") || key_is(r, "tool_name");
}

static bool key_is_arguments(const struct dialect_reader *r)
{
    return key_is(r, "arguments") || key_is(r, "parameters");
}

/* An object without a mark around it is no call once it has a field that calls do not have. */
static bool key_may_be(const struct dialect_reader *r)
{
    return key_is_name(r) || key_is_arguments(r) || key_is(r, "type") || key_is(r, "id") || key_is(r, "function") ||
           key_is(r, "tool_call_id");
}

void dialect_call_begin(struct dialect_reader *r)
{
    strbuf_clear(&r->object);
    json_scan_init(&r->scan);
    r->key_from = r->key_len = r->value_from = 0;
    r->has_name = r->told = r->in_arguments = r->had_arguments = r->is_arguments = false;
}

static void tell_name(struct dialect_reader *r)
{
    dialect_put(r, DIALECT_CALL, r->name, r->name_len);
    r->told = true;
}

void dialect_call_whole(struct dialect_reader *r, const char *name, size_t name_len, const char *arguments, size_t len)
{
    dialect_put(r, DIALECT_CALL, name, name_len);
    dialect_put(r, DIALECT_ARGUMENTS, arguments, len);
    dialect_put(r, DIALECT_DONE, "", 0);
}

/* Whether a call of this name is one. */
static bool name_counts(const struct dialect_reader *r, const char *name, size_t len)
{
    return len > 0 && len < DIALECT_NAME_BYTES && (!r->is_bare || dialect_has_tool(r->tools, name, len));
}

/* The value of "name" has ended, at the last byte of object. */
static int take_name(struct dialect_reader *r)
{
    const char *s = r->object.data + r->value_from + 1;
    size_t len = r->object.len - 1 - (r->value_from + 1);

    if (memchr(s, '\\', len))
        return 0; /* jansson reads it, at the end */
    if (!name_counts(r, s, len))
        return -1;
    memcpy(r->name, s, len);
    r->name_len = len;
    r->has_name = true;
    return 0;
}

/* What the byte just read was at the object's own level. */
static int note(struct dialect_reader *r, enum json_scan_at before)
{
    size_t at = r->object.len - 1;

    if ((before == JSON_AT_KEY || before == JSON_AT_KEY_OR_END) && r->scan.at == JSON_IN_STRING) {
        r->key_from = at + 1;
    } else if (before == JSON_IN_STRING && r->scan.at == JSON_AT_COLON) {
        r->key_len = at - r->key_from;
        return r->is_bare && !key_may_be(r) ? -1 : 0;
    } else if (before == JSON_AT_VALUE && r->scan.at != JSON_AT_VALUE) {
        r->value_from = at;
        r->in_arguments = r->has_name && !r->told && key_is_arguments(r) && r->object.data[at] == '{';
        if (r->in_arguments)
            tell_name(r);
    } else if (before == JSON_IN_STRING && r->scan.at == JSON_AT_NEXT && key_is_name(r) && !r->has_name) {
        return take_name(r);
    }
    return 0;
}

/* "arguments": {…}, or a string that holds them. */
static char *arguments_text(const json_t *object)
{
    const json_t *v = json_object_get(object, "arguments");
    json_t *inner;
    char *text;

    v = v ? v : json_object_get(object, "parameters");
    if (!v || json_is_null(v))
        return strdup("{}");
    if (json_is_object(v))
        return json_dumps(v, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (!json_is_string(v) || !(inner = json_loadb(json_string_value(v), json_string_length(v), 0, NULL)))
        return NULL;
    text = json_is_object(inner) ? strdup(json_string_value(v)) : NULL;
    json_decref(inner);
    return text;
}

/* The object is whole, and was not told as it came. */
static int whole(struct dialect_reader *r)
{
    json_t *o = json_loadb(r->object.data, r->object.len, 0, NULL);
    const json_t *inner = json_object_get(o, "function"), *from = json_is_object(inner) ? inner : o;
    const json_t *name = json_object_get(from, "name");
    char *arguments = NULL;
    int rc = -1;

    name = name ? name : json_object_get(from, "tool_name");
    name = name ? name : json_is_string(inner) ? inner : NULL;
    if (json_is_string(name) && name_counts(r, json_string_value(name), json_string_length(name)) && (arguments = arguments_text(from))) {
        dialect_call_whole(r, json_string_value(name), json_string_length(name), arguments, strlen(arguments));
        rc = 1;
    }
    free(arguments);
    json_decref(o);
    return rc;
}

static int ended(struct dialect_reader *r)
{
    if (!r->told)
        return whole(r);
    dialect_put(r, DIALECT_DONE, "", 0);
    return 1;
}

/* Control characters in strings are no JSON; models write them all the same. */
static void put_object_byte(struct dialect_reader *r, char c, bool in_string)
{
    size_t from = r->object.len;

    if (!in_string || (unsigned char)c >= 0x20)
        strbuf_putc(&r->object, c);
    else if (c == '\n' || c == '\t' || c == '\r')
        strbuf_puts(&r->object, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
    else
        strbuf_printf(&r->object, "\\u%04x", (unsigned char)c);
    if (r->in_arguments && !r->object.failed)
        dialect_put(r, DIALECT_ARGUMENTS, r->object.data + from, r->object.len - from);
}

static int call_byte(struct dialect_reader *r, char c)
{
    enum json_scan_at before = r->scan.at;
    unsigned depth = r->scan.depth;
    int rc = json_scan_byte(&r->scan, (unsigned char)c);

    if (rc < 0 || r->raw.len >= DIALECT_CALL_BYTES)
        return -1;
    strbuf_putc(&r->raw, c);
    if (r->is_arguments && depth == 0) {
        r->in_arguments = true;
        tell_name(r);
    }
    put_object_byte(r, c, before == JSON_IN_STRING);
    if (r->raw.failed || r->object.failed)
        return -1;
    if (!r->is_arguments && depth == 1) {
        bool was = r->in_arguments;
        if (note(r, before) != 0)
            return -1;
        if (r->in_arguments && !was)
            dialect_put(r, DIALECT_ARGUMENTS, "{", 1);
    }
    if (r->in_arguments && r->scan.depth == (r->is_arguments ? 0 : 1)) {
        r->in_arguments = false;
        r->had_arguments = true;
        if (r->eager)
            return ended(r);
    }
    return rc == 1 ? ended(r) : 0;
}

int dialect_call_byte(struct dialect_reader *r, char c)
{
    size_t before = r->raw.len;
    int rc = call_byte(r, c);

    if (rc < 0)
        r->raw.len = before; /* the byte itself is text */
    return rc;
}

bool dialect_call_end(struct dialect_reader *r)
{
    if (!r->had_arguments)
        return false;
    dialect_put(r, DIALECT_DONE, "", 0);
    return true;
}
