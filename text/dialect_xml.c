/* Calls as Qwen3-Coder writes them, within its <tool_call>: <function=NAME><parameter=KEY>VALUE</parameter>…</function>. Values
 * are text; what they are the tool's schema says. They are told once the call is whole. */
#include <stdlib.h>
#include <string.h>

#include "text/dialect_read.h"

struct cursor {
    const char *at, *end;
};

/* Up to `mark`, which is passed over; false: it does not come. */
static bool take_until(struct cursor *c, const char *mark, const char **ret, size_t *ret_len)
{
    const char *hit = memmem(c->at, (size_t)(c->end - c->at), mark, strlen(mark));

    if (!hit)
        return false;
    *ret = c->at;
    *ret_len = (size_t)(hit - c->at);
    c->at = hit + strlen(mark);
    return true;
}

static bool begins(const struct cursor *c, const char *word)
{
    return (size_t)(c->end - c->at) >= strlen(word) && memcmp(c->at, word, strlen(word)) == 0;
}

static void skip_white(struct cursor *c)
{
    while (c->at < c->end && strchr(" \t\r\n", *c->at))
        c->at++;
}

static const char *type_of(const json_t *tools, const char *name, size_t len, const char *key)
{
    size_t i;
    const json_t *tool;

    json_array_foreach(tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function"), *known = json_object_get(f, "name");
        if (json_string_length(known) != len || memcmp(json_string_value(known), name, len) != 0)
            continue;
        const json_t *properties = json_object_get(json_object_get(f, "parameters"), "properties");
        return json_string_value(json_object_get(json_object_get(properties, key), "type"));
    }
    return NULL;
}

/* A string where the schema says so, or where it is no JSON. */
static json_t *value_of(const char *s, size_t len, const char *type)
{
    json_t *v;

    if (len > 0 && s[0] == '\n') {
        s++;
        len--;
    }
    if (len > 0 && s[len - 1] == '\n')
        len--;
    if (!(type && strcmp(type, "string") == 0) && (v = json_loadb(s, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL)))
        return v;
    return json_stringn(s, len);
}

static json_t *read_parameters(const struct dialect_reader *r, struct cursor *c, const char *name, size_t len)
{
    json_t *o = json_object();
    const char *from, *value;
    size_t key_len, value_len;
    char key[DIALECT_NAME_BYTES];

    for (skip_white(c); o && begins(c, "<parameter="); skip_white(c)) {
        c->at += strlen("<parameter=");
        json_t *v = NULL;
        if (take_until(c, ">", &from, &key_len) && key_len < sizeof key && take_until(c, "</parameter>", &value, &value_len)) {
            memcpy(key, from, key_len);
            key[key_len] = '\0';
            v = value_of(value, value_len, type_of(r->tools, name, len, key));
        }
        if (!v || json_object_set_new(o, key, v) != 0) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

bool dialect_read_tags(struct dialect_reader *r)
{
    struct cursor c = {r->raw.data, r->raw.data + r->raw.len - strlen(r->dialect.calls->close)};
    const char *name;
    size_t len;
    json_t *o;
    char *text = NULL;

    if (!take_until(&c, "<function=", &name, &len) || !take_until(&c, ">", &name, &len) || len == 0 || len >= DIALECT_NAME_BYTES ||
        !(o = read_parameters(r, &c, name, len)))
        return false;
    skip_white(&c);
    if (begins(&c, "</function>") && (text = json_dumps(o, JSON_COMPACT)))
        dialect_call_whole(r, name, len, text, strlen(text));
    json_decref(o);
    bool was = text != NULL;
    free(text);
    return was;
}
