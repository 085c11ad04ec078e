/* Metadata values: their types, and reading them as what the caller wants. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf/header.h"

static const struct {
    const char *name;
    unsigned char bytes; /* 0: of no fixed size */
    bool is_int, is_float;
} types[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"u8", 1, true, false},
    [GGUF_I8] = {"i8", 1, true, false},
    [GGUF_U16] = {"u16", 2, true, false},
    [GGUF_I16] = {"i16", 2, true, false},
    [GGUF_U32] = {"u32", 4, true, false},
    [GGUF_I32] = {"i32", 4, true, false},
    [GGUF_U64] = {"u64", 8, true, false},
    [GGUF_I64] = {"i64", 8, true, false},
    [GGUF_F32] = {"f32", 4, false, true},
    [GGUF_F64] = {"f64", 8, false, true},
    [GGUF_BOOL] = {"bool", 1, false, false},
    [GGUF_STRING] = {"string", 0, false, false},
    [GGUF_ARRAY] = {"array", 0, false, false},
};

const char *gguf_value_type_name(enum gguf_value_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES ? types[type].name : "unknown";
}

size_t gguf_value_size(enum gguf_value_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES ? types[type].bytes : 0;
}

#define ITEM(ctype) \
    do { \
        ctype x; \
        memcpy(&x, (const char *)a->data + i * sizeof x, sizeof x); \
        return x; \
    } while (0)

int64_t gguf_array_int(const struct gguf_array *a, uint64_t i)
{
    uint64_t u;
    switch (a->type) {
    case GGUF_BOOL:
        return ((const unsigned char *)a->data)[i] != 0;
    case GGUF_U8:
        ITEM(uint8_t);
    case GGUF_I8:
        ITEM(int8_t);
    case GGUF_U16:
        ITEM(uint16_t);
    case GGUF_I16:
        ITEM(int16_t);
    case GGUF_U32:
        ITEM(uint32_t);
    case GGUF_I32:
        ITEM(int32_t);
    case GGUF_I64:
        ITEM(int64_t);
    case GGUF_U64:
        memcpy(&u, (const char *)a->data + i * sizeof u, sizeof u);
        return u > INT64_MAX ? INT64_MAX : (int64_t)u;
    default:
        return 0;
    }
}

double gguf_array_float(const struct gguf_array *a, uint64_t i)
{
    switch (a->type) {
    case GGUF_F32:
        ITEM(float);
    case GGUF_F64:
        ITEM(double);
    default:
        return (double)gguf_array_int(a, i);
    }
}

/* "key 'x': " in front of what err says. */
static int wrap_key(const struct gguf_kv *kv, struct err *err)
{
    char shown[80];
    return err_wrap(err, "key '%s'", err_printable(shown, sizeof shown, kv->key.s, kv->key.len));
}

static int fail_type(const struct gguf_kv *kv, const char *wanted, struct err *err)
{
    if (kv->type == GGUF_ARRAY)
        err_set(err, ERR_INPUT, "an array of %s, must be %s", gguf_value_type_name(kv->v.array.type), wanted);
    else
        err_set(err, ERR_INPUT, "its type is %s, must be %s", gguf_value_type_name(kv->type), wanted);
    return wrap_key(kv, err);
}

static bool is_unsigned(enum gguf_value_type type)
{
    return type == GGUF_U8 || type == GGUF_U16 || type == GGUF_U32 || type == GGUF_U64;
}

int gguf_kv_u32(const struct gguf_kv *kv, uint32_t *ret, struct err *err)
{
    if (!types[kv->type].is_int)
        return fail_type(kv, "an integer", err);
    if (!is_unsigned(kv->type) && kv->v.i < 0) {
        err_set(err, ERR_INPUT, "%" PRId64 ", must not be negative", kv->v.i);
        return wrap_key(kv, err);
    }
    if (kv->v.u > UINT32_MAX) { /* a signed one that is not negative reads the same */
        err_set(err, ERR_INPUT, "%" PRIu64 ", at most %" PRIu32 " allowed", kv->v.u, UINT32_MAX);
        return wrap_key(kv, err);
    }
    *ret = (uint32_t)kv->v.u;
    return 0;
}

/* What a look-up returns: 1 for found, or the error with the file's name in front. */
static int found(const struct gguf *g, int rc, struct err *err)
{
    if (rc == 0)
        return 1;
    return err_wrap(err, "%s", gguf_shown(g));
}

int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    return kv ? found(g, gguf_kv_u32(kv, ret, err), err) : 0;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    double value;
    if (!kv)
        return 0;
    if (types[kv->type].is_float)
        value = kv->v.f;
    else if (types[kv->type].is_int)
        value = is_unsigned(kv->type) ? (double)kv->v.u : (double)kv->v.i;
    else
        return found(g, fail_type(kv, "a number", err), err);
    if (!(fabs(value) <= FLT_MAX)) {
        err_set(err, ERR_INPUT, "%g, must be a finite 32-bit float", value);
        return found(g, wrap_key(kv, err), err);
    }
    *ret = (float)value;
    return 1;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return 0;
    if (kv->type != GGUF_BOOL)
        return found(g, fail_type(kv, "bool", err), err);
    *ret = kv->v.u != 0;
    return 1;
}

int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *ret, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return 0;
    if (kv->type != GGUF_STRING)
        return found(g, fail_type(kv, "string", err), err);
    *ret = kv->v.str;
    return 1;
}

int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type type, struct gguf_array *ret, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    char wanted[64];
    bool fits = false;
    if (!kv)
        return 0;
    bool ints = (unsigned)type < GGUF_VALUE_TYPES && types[type].is_int;
    bool floats = (unsigned)type < GGUF_VALUE_TYPES && types[type].is_float;
    if (kv->type == GGUF_ARRAY) {
        enum gguf_value_type have = kv->v.array.type;
        fits = have == type || ((ints || floats) && types[have].is_int) || (floats && types[have].is_float);
    }
    if (!fits) {
        snprintf(wanted, sizeof wanted, "an array of %s", ints ? "integers" : floats ? "numbers" : gguf_value_type_name(type));
        return found(g, fail_type(kv, wanted, err), err);
    }
    *ret = kv->v.array;
    return 1;
}
