/* Lists and dicts. A list that grows by `+` in a loop continues in its buffer where it can, as strings do. */
#include <math.h>
#include <string.h>

#include "text/jinja.h"

int jinja_list_push(struct jinja *j, struct jinja_list_buf *l, struct jinja_value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4;
        struct jinja_value *items = jinja_alloc(j, cap, sizeof *items);
        if (!items)
            return -1;
        if (l->n)
            memcpy(items, l->items, l->n * sizeof *items);
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n++] = v;
    return 0;
}

int jinja_list_value(struct jinja *j, const struct jinja_list_buf *l, enum jinja_type type, struct jinja_value *ret)
{
    struct jinja_list *list = jinja_alloc(j, 1, sizeof *list);
    if (!list)
        return -1;
    *list = (struct jinja_list){.items = l->items, .n = l->n};
    *ret = (struct jinja_value){.type = type, .list = list};
    return 0;
}

int jinja_pair(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *ret)
{
    struct jinja_list_buf l = {0};
    if (!(l.items = jinja_alloc(j, 2, sizeof *l.items)))
        return -1;
    l.items[0] = a;
    l.items[1] = b;
    l.n = 2;
    return jinja_list_value(j, &l, JINJA_TUPLE, ret);
}

int jinja_list_concat(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *ret)
{
    struct jinja_list_buf *buf = a.list->buf;
    struct jinja_list *list;

    if (!buf || buf->n != a.list->n) {
        if (!(buf = jinja_alloc(j, 1, sizeof *buf)))
            return -1;
        *buf = (struct jinja_list_buf){0};
        for (size_t i = 0; i < a.list->n; i++)
            if (jinja_list_push(j, buf, a.list->items[i]) != 0)
                return -1;
        if (jinja_charge(j, a.list->n / 8) != 0)
            return -1;
    }
    for (size_t i = 0, n = b.list->n; i < n; i++)
        if (jinja_list_push(j, buf, b.list->items[i]) != 0)
            return -1;
    if (jinja_charge(j, b.list->n / 8) != 0 || !(list = jinja_alloc(j, 1, sizeof *list)))
        return -1;
    *list = (struct jinja_list){.items = buf->items, .n = buf->n, .buf = buf};
    *ret = (struct jinja_value){.type = a.type, .list = list};
    return 0;
}

/* --- dicts -------------------------------------------------------------- */

enum { DICT_LINEAR = 8 }; /* up to here a dict has no index */

struct jinja_dict *jinja_dict_new(struct jinja *j)
{
    struct jinja_dict *d = jinja_alloc(j, 1, sizeof *d);
    if (d)
        *d = (struct jinja_dict){0};
    return d;
}

static uint64_t stir(uint64_t h)
{
    h = (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    return h ? h : 1;
}

/* Equal values have equal hashes, 1, 1.0 and True included. */
static int hash_value(struct jinja *j, struct jinja_value v, uint64_t *ret)
{
    uint64_t h = 7, item;
    int rc = 0;
    switch (v.type) {
    case JINJA_STR:
        *ret = v.str->hash ? v.str->hash : jinja_hash_bytes(v.str->s, v.str->len);
        return jinja_charge_bytes(j, v.str->len);
    case JINJA_BOOL:
    case JINJA_INT:
        *ret = stir((uint64_t)jinja_as_int(v));
        return 0;
    case JINJA_FLOAT:
        if (v.f == floor(v.f) && fabs(v.f) < 9e18) {
            *ret = stir((uint64_t)(int64_t)v.f);
        } else {
            memcpy(&h, &v.f, sizeof h);
            *ret = stir(h);
        }
        return 0;
    case JINJA_LIST:
    case JINJA_DICT:
        return jinja_fail(j, ERR_INPUT, "unhashable type: '%s'", jinja_type_name(v));
    case JINJA_TUPLE:
        rc = jinja_enter(j);
        for (size_t i = 0; i < v.list->n && rc == 0; i++)
            if ((rc = jinja_charge(j, 1)) == 0 && (rc = hash_value(j, v.list->items[i], &item)) == 0)
                h = stir(h ^ item);
        jinja_leave(j);
        *ret = h;
        return rc;
    case JINJA_NONE:
    case JINJA_UNDEFINED:
        *ret = stir(1000 + v.type);
        return 0;
    default:
        *ret = stir((uint64_t)(uintptr_t)v.list);
        return 0;
    }
}

static int find(struct jinja *j, const struct jinja_dict *d, struct jinja_value key, uint64_t hash, struct jinja_entry **ret)
{
    *ret = NULL;
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->entries[i].hash == hash) {
                int rc = jinja_equal(j, d->entries[i].key, key);
                if (rc != 0) {
                    *ret = &d->entries[i];
                    return rc < 0 ? -1 : 0;
                }
            }
        return 0;
    }
    for (size_t slot = hash & (d->index_cap - 1); d->index[slot]; slot = (slot + 1) & (d->index_cap - 1)) {
        struct jinja_entry *e = &d->entries[d->index[slot] - 1];
        int rc = e->hash == hash ? jinja_equal(j, e->key, key) : 0;
        if (jinja_charge(j, 1) != 0) /* who makes keys collide pays for it */
            return -1;
        if (rc != 0) {
            *ret = e;
            return rc < 0 ? -1 : 0;
        }
    }
    return 0;
}

int jinja_dict_find(struct jinja *j, const struct jinja_dict *d, struct jinja_value key, struct jinja_entry **ret)
{
    uint64_t hash;
    *ret = NULL;
    return hash_value(j, key, &hash) == 0 ? find(j, d, key, hash, ret) : -1;
}

struct jinja_entry *jinja_dict_get(const struct jinja_dict *d, const struct jinja_str *key)
{
    uint64_t hash = key->hash ? key->hash : jinja_hash_bytes(key->s, key->len);
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->entries[i].hash == hash && d->entries[i].key.type == JINJA_STR && jinja_str_equal(d->entries[i].key.str, key))
                return &d->entries[i];
        return NULL;
    }
    for (size_t slot = hash & (d->index_cap - 1); d->index[slot]; slot = (slot + 1) & (d->index_cap - 1)) {
        struct jinja_entry *e = &d->entries[d->index[slot] - 1];
        if (e->hash == hash && e->key.type == JINJA_STR && jinja_str_equal(e->key.str, key))
            return e;
    }
    return NULL;
}

static int index_entries(struct jinja *j, struct jinja_dict *d)
{
    size_t cap = 4 * DICT_LINEAR;
    while (cap < 4 * d->n)
        cap *= 2;
    uint32_t *index = jinja_alloc(j, cap, sizeof *index);
    if (!index)
        return -1;
    memset(index, 0, cap * sizeof *index);
    for (size_t i = 0; i < d->n; i++) {
        size_t slot = d->entries[i].hash & (cap - 1);
        while (index[slot])
            slot = (slot + 1) & (cap - 1);
        index[slot] = (uint32_t)i + 1;
    }
    d->index = index;
    d->index_cap = cap;
    return 0;
}

int jinja_dict_set(struct jinja *j, struct jinja_dict *d, struct jinja_value key, struct jinja_value value)
{
    struct jinja_entry *e;
    uint64_t hash;

    if (hash_value(j, key, &hash) != 0 || find(j, d, key, hash, &e) != 0)
        return -1;
    if (e) {
        e->value = value;
        return 0;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        struct jinja_entry *entries = jinja_alloc(j, cap, sizeof *entries);
        if (!entries)
            return -1;
        if (d->n)
            memcpy(entries, d->entries, d->n * sizeof *entries);
        d->entries = entries;
        d->cap = cap;
    }
    d->entries[d->n++] = (struct jinja_entry){.key = key, .value = value, .hash = hash};
    if (d->n > DICT_LINEAR && (!d->index || 2 * d->n > d->index_cap))
        return index_entries(j, d);
    if (d->index) {
        size_t slot = hash & (d->index_cap - 1);
        while (d->index[slot])
            slot = (slot + 1) & (d->index_cap - 1);
        d->index[slot] = (uint32_t)d->n;
    }
    return 0;
}
