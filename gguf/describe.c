/* See describe.h. The sums are made once, in struct sums; text and JSON are two ways to print them. */
#include "gguf/describe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    MAX_LAYERS = 1 << 12,
    JSON_ITEMS = 64, /* a longer array shows its first items */
    JSON_FIRST = 8,
    TEXT_ITEMS = 6,
    TEXT_BYTES = 72, /* of a string among the metadata */
    ITEM_BYTES = 24, /* of a string in an array */
    NAME_BYTES = GGUF_MAX_NAME_BYTES + 4,
};

struct sum {
    uint64_t tensors, elements, bytes;
};

enum outside { EMBEDDING, HEAD, OTHER, OUTSIDES };

static const char *const outside_names[OUTSIDES] = {"embedding", "head", "other"};

struct sums {
    struct sum total, types[QUANT_TYPES], outside[OUTSIDES];
    struct sum *layers; /* n_layers, the number of the last one + 1 */
    size_t n_layers, header_bytes;
    char id[2 * GGUF_ID_BYTES + 1];
};

int gguf_tensor_layer(const char *name)
{
    int layer = 0, digits = 0;
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    for (name += 4; *name >= '0' && *name <= '9'; name++, digits++) {
        layer = layer * 10 + (*name - '0');
        if (layer >= MAX_LAYERS)
            return -1;
    }
    return digits && *name == '.' ? layer : -1;
}

static enum outside outside_of(const char *name)
{
    if (strncmp(name, "token_embd", 10) == 0 || strncmp(name, "position_embd", 13) == 0 || strncmp(name, "token_types", 11) == 0)
        return EMBEDDING;
    return strcmp(name, "output.weight") == 0 || strcmp(name, "output.bias") == 0 ? HEAD : OTHER;
}

static uint64_t elements_of(const struct gguf_tensor *t)
{
    uint64_t n = 1; /* gguf_open made sure that it does not overflow */
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

static void add(struct sum *sum, const struct gguf_tensor *t)
{
    sum->tensors++;
    sum->elements += elements_of(t);
    sum->bytes += t->bytes;
}

static int make_sums(const struct gguf *g, struct sums *s, struct err *err)
{
    unsigned char id[GGUF_ID_BYTES];
    *s = (struct sums){0};
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        int layer = gguf_tensor_layer(gguf_tensor(g, i)->name);
        if (layer >= 0 && (size_t)layer >= s->n_layers)
            s->n_layers = (size_t)layer + 1;
    }
    s->layers = mem_new(s->n_layers, sizeof *s->layers, err);
    if (!s->layers)
        return -1;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        int layer = gguf_tensor_layer(t->name);
        add(&s->total, t);
        add(&s->types[t->type], t);
        add(layer >= 0 ? &s->layers[layer] : &s->outside[outside_of(t->name)], t);
    }
    for (uint32_t i = 0; i < gguf_n_splits(g); i++) {
        size_t bytes = 0;
        gguf_split_header(g, i, &bytes);
        s->header_bytes += bytes;
    }
    gguf_model_id(g, id);
    for (size_t i = 0; i < GGUF_ID_BYTES; i++) {
        s->id[2 * i] = "0123456789abcdef"[id[i] >> 4];
        s->id[2 * i + 1] = "0123456789abcdef"[id[i] & 15];
    }
    return 0;
}

/* The shortest decimal form that reads back as the same number; JSON knows no infinities. */
static void put_float(struct strbuf *sb, enum gguf_value_type type, double value, bool json)
{
    char text[40];
    int digits = type == GGUF_F32 ? 6 : 15, most = type == GGUF_F32 ? 9 : 17;
    if (!isfinite(value)) {
        strbuf_printf(sb, json ? "null" : "%g", value);
        return;
    }
    do
        snprintf(text, sizeof text, "%.*g", digits, value);
    while ((type == GGUF_F32 ? (double)strtof(text, NULL) : strtod(text, NULL)) != value && digits++ < most);
    strbuf_puts(sb, text);
}

static void put_int(struct strbuf *sb, const struct gguf_array *a, uint64_t i)
{
    uint64_t u;
    if (a->type == GGUF_BOOL) {
        strbuf_puts(sb, gguf_array_int(a, i) ? "true" : "false");
    } else if (a->type == GGUF_U64) { /* gguf_array_int would clamp it */
        memcpy(&u, (const char *)a->data + i * sizeof u, sizeof u);
        strbuf_printf(sb, "%" PRIu64, u);
    } else {
        strbuf_printf(sb, "%" PRId64, gguf_array_int(a, i));
    }
}

static void text_str(struct strbuf *sb, struct gguf_str s, size_t max)
{
    char shown[TEXT_BYTES + 4];
    err_printable(shown, max + 4 < sizeof shown ? max + 4 : sizeof shown, s.s, s.len);
    strbuf_puts(sb, shown);
    if (s.len > max)
        strbuf_printf(sb, " (%zu bytes)", s.len);
}

/* Arrays lie in arrays at most GGUF_MAX_NESTING deep: the reader saw to it. */
static void json_array(struct strbuf *sb, const struct gguf_array *a)
{
    uint64_t n = a->count;
    if (n > JSON_ITEMS) {
        n = JSON_FIRST;
        strbuf_printf(sb, "{\"type\":\"%s\",\"count\":%" PRIu64 ",\"first\":", gguf_value_type_name(a->type), a->count);
    }
    strbuf_putc(sb, '[');
    for (uint64_t i = 0; i < n && !sb->failed; i++) {
        if (i)
            strbuf_putc(sb, ',');
        if (a->type == GGUF_STRING)
            strbuf_json(sb, a->strings[i].s, a->strings[i].len);
        else if (a->type == GGUF_ARRAY)
            json_array(sb, &a->arrays[i]);
        else if (a->type == GGUF_F32 || a->type == GGUF_F64)
            put_float(sb, a->type, gguf_array_float(a, i), true);
        else
            put_int(sb, a, i);
    }
    strbuf_puts(sb, n == a->count ? "]" : "]}");
}

static void text_array(struct strbuf *sb, const struct gguf_array *a)
{
    strbuf_putc(sb, '[');
    for (uint64_t i = 0; i < a->count && i < TEXT_ITEMS; i++) {
        if (i)
            strbuf_puts(sb, ", ");
        if (a->type == GGUF_STRING)
            text_str(sb, a->strings[i], ITEM_BYTES);
        else if (a->type == GGUF_ARRAY)
            text_array(sb, &a->arrays[i]);
        else if (a->type == GGUF_F32 || a->type == GGUF_F64)
            put_float(sb, a->type, gguf_array_float(a, i), false);
        else
            put_int(sb, a, i);
    }
    strbuf_puts(sb, a->count > TEXT_ITEMS ? ", \xE2\x80\xA6]" : "]");
}

static void put_scalar(struct strbuf *sb, const struct gguf_kv *kv, bool json)
{
    switch (kv->type) {
    case GGUF_F32:
    case GGUF_F64:
        put_float(sb, kv->type, kv->v.f, json);
        break;
    case GGUF_BOOL:
        strbuf_puts(sb, kv->v.u ? "true" : "false");
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        strbuf_printf(sb, "%" PRId64, kv->v.i);
        break;
    default:
        strbuf_printf(sb, "%" PRIu64, kv->v.u);
    }
}

/* --- JSON ------------------------------------------------------------------------------------------------------------ */

static void json_sum(struct strbuf *sb, const struct sum *sum)
{
    strbuf_printf(sb, "{\"tensors\":%" PRIu64 ",\"parameters\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", sum->tensors, sum->elements,
                  sum->bytes);
}

static void json_metadata(const struct gguf *g, struct strbuf *sb)
{
    strbuf_puts(sb, ",\"metadata\":{");
    for (size_t i = 0; i < gguf_n_kv(g) && !sb->failed; i++) {
        const struct gguf_kv *kv = gguf_kv(g, i);
        if (i)
            strbuf_putc(sb, ',');
        strbuf_json(sb, kv->key.s, kv->key.len);
        strbuf_putc(sb, ':');
        if (kv->type == GGUF_STRING)
            strbuf_json(sb, kv->v.str.s, kv->v.str.len);
        else if (kv->type == GGUF_ARRAY)
            json_array(sb, &kv->v.array);
        else
            put_scalar(sb, kv, true);
    }
    strbuf_putc(sb, '}');
}

static void json_tensors(const struct gguf *g, struct strbuf *sb)
{
    strbuf_puts(sb, ",\"tensors\":[");
    for (size_t i = 0; i < gguf_n_tensors(g) && !sb->failed; i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        strbuf_puts(sb, i ? ",{\"name\":" : "{\"name\":");
        strbuf_json(sb, t->name, strlen(t->name));
        strbuf_printf(sb, ",\"type\":\"%s\",\"shape\":[", quant_traits(t->type)->name);
        for (uint32_t d = 0; d < t->n_dims; d++)
            strbuf_printf(sb, "%s%" PRIu64, d ? "," : "", t->dims[d]);
        strbuf_printf(sb, "],\"bytes\":%" PRIu64 ",\"file\":%" PRIu32 ",\"offset\":%" PRIu64 "}", t->bytes, t->split, t->offset);
    }
    strbuf_putc(sb, ']');
}

static void json_sums(const struct sums *s, struct strbuf *sb)
{
    const char *comma = "";
    strbuf_puts(sb, ",\"types\":{");
    for (uint32_t type = 0; type < QUANT_TYPES; type++) {
        if (!s->types[type].tensors)
            continue;
        strbuf_printf(sb, "%s\"%s\":", comma, quant_traits(type)->name);
        json_sum(sb, &s->types[type]);
        comma = ",";
    }
    strbuf_puts(sb, "},\"layers\":[");
    for (size_t i = 0; i < s->n_layers && !sb->failed; i++) {
        if (i)
            strbuf_putc(sb, ',');
        json_sum(sb, &s->layers[i]);
    }
    strbuf_puts(sb, "],\"outside\":{");
    for (int i = 0; i < OUTSIDES; i++) {
        strbuf_printf(sb, "%s\"%s\":", i ? "," : "", outside_names[i]);
        json_sum(sb, &s->outside[i]);
    }
    strbuf_puts(sb, "},\"total\":");
    json_sum(sb, &s->total);
}

static void describe_json(const struct gguf *g, const struct sums *s, struct strbuf *sb)
{
    strbuf_printf(sb, "{\"id\":\"%s\",\"version\":%" PRIu32 ",\"alignment\":%" PRIu32 ",\"header_bytes\":%zu,\"header_only\":%s", s->id,
                  gguf_version(g), gguf_alignment(g), s->header_bytes, gguf_header_only(g) ? "true" : "false");
    strbuf_puts(sb, ",\"files\":[");
    for (uint32_t i = 0; i < gguf_n_splits(g); i++) {
        const char *path = gguf_split_path(g, i);
        strbuf_puts(sb, i ? ",{\"path\":" : "{\"path\":");
        strbuf_json(sb, path, strlen(path));
        strbuf_printf(sb, ",\"bytes\":%" PRIu64 ",\"data_offset\":%" PRIu64 "}", gguf_split_bytes(g, i), gguf_split_data_offset(g, i));
    }
    strbuf_putc(sb, ']');
    json_metadata(g, sb);
    json_tensors(g, sb);
    json_sums(s, sb);
    strbuf_puts(sb, "}\n");
}

/* --- text ------------------------------------------------------------------------------------------------------------ */

/* "591.0 MB": of a thousand, as disks and links count. */
static void text_bytes(struct strbuf *sb, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    char text[32];
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 999.95 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1000;
    snprintf(text, sizeof text, "%.*f %s", unit ? 1 : 0, value, units[unit]);
    strbuf_printf(sb, "%9s", text);
}

static void text_sum(struct strbuf *sb, const char *name, const struct sum *sum)
{
    strbuf_printf(sb, "  %-14s", name);
    text_bytes(sb, sum->bytes);
    strbuf_printf(sb, "  %6" PRIu64 " tensors  %15" PRIu64 " parameters\n", sum->tensors, sum->elements);
}

static void text_metadata(const struct gguf *g, struct strbuf *sb)
{
    char shown[NAME_BYTES];
    strbuf_printf(sb, "\nmetadata (%zu)\n", gguf_n_kv(g));
    for (size_t i = 0; i < gguf_n_kv(g) && !sb->failed; i++) {
        const struct gguf_kv *kv = gguf_kv(g, i);
        strbuf_printf(sb, "  %-42s ", err_printable(shown, sizeof shown, kv->key.s, kv->key.len));
        if (kv->type == GGUF_ARRAY)
            strbuf_printf(sb, "%" PRIu64 " x %s ", kv->v.array.count, gguf_value_type_name(kv->v.array.type));
        else
            strbuf_printf(sb, "%-6s ", gguf_value_type_name(kv->type));
        if (kv->type == GGUF_STRING)
            text_str(sb, kv->v.str, TEXT_BYTES);
        else if (kv->type == GGUF_ARRAY)
            text_array(sb, &kv->v.array);
        else
            put_scalar(sb, kv, false);
        strbuf_putc(sb, '\n');
    }
}

static void text_tensors(const struct gguf *g, struct strbuf *sb)
{
    char shown[NAME_BYTES], shape[4 * 24];
    strbuf_printf(sb, "\ntensors (%zu)%s\n", gguf_n_tensors(g), gguf_n_splits(g) > 1 ? ": file@offset at the end" : ": offset at the end");
    for (size_t i = 0; i < gguf_n_tensors(g) && !sb->failed; i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        int n = snprintf(shape, sizeof shape, "%" PRIu64, t->dims[0]);
        for (uint32_t d = 1; d < t->n_dims; d++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, " x %" PRIu64, t->dims[d]);
        strbuf_printf(sb, "  %-36s %-8s %-20s ", err_printable(shown, sizeof shown, t->name, strlen(t->name)), quant_traits(t->type)->name,
                      shape);
        text_bytes(sb, t->bytes);
        if (gguf_n_splits(g) > 1)
            strbuf_printf(sb, "  %" PRIu32 "@%" PRIu64 "\n", t->split + 1, t->offset);
        else
            strbuf_printf(sb, "  %" PRIu64 "\n", t->offset);
    }
}

/* Layers of one size that follow one another share a line. */
static void text_layers(const struct sums *s, struct strbuf *sb)
{
    char name[64];
    strbuf_puts(sb, "\nbytes by layer\n");
    for (size_t i = 0, end; i < s->n_layers && !sb->failed; i = end) {
        for (end = i + 1; end < s->n_layers && memcmp(&s->layers[end], &s->layers[i], sizeof *s->layers) == 0; end++)
            continue;
        if (end == i + 1)
            snprintf(name, sizeof name, "%zu", i);
        else
            snprintf(name, sizeof name, "%zu-%zu, each", i, end - 1);
        text_sum(sb, name, &s->layers[i]);
    }
    for (int i = 0; i < OUTSIDES; i++)
        if (s->outside[i].tensors)
            text_sum(sb, outside_names[i], &s->outside[i]);
    text_sum(sb, "total", &s->total);
}

static void describe_text(const struct gguf *g, const struct sums *s, struct strbuf *sb)
{
    char shown[256];
    for (uint32_t i = 0; i < gguf_n_splits(g); i++) {
        const char *path = gguf_split_path(g, i);
        strbuf_printf(sb, "%s  %" PRIu64 " bytes\n", err_printable(shown, sizeof shown, path, strlen(path)), gguf_split_bytes(g, i));
    }
    strbuf_printf(sb, "GGUF version %" PRIu32 ", alignment %" PRIu32 ", header %zu bytes%s\nid %s\n", gguf_version(g), gguf_alignment(g),
                  s->header_bytes, gguf_header_only(g) ? " (header only: tensor data is missing)" : "", s->id);
    text_metadata(g, sb);
    text_tensors(g, sb);
    strbuf_puts(sb, "\ntypes\n");
    for (uint32_t type = 0; type < QUANT_TYPES; type++)
        if (s->types[type].tensors)
            text_sum(sb, quant_traits(type)->name, &s->types[type]);
    text_layers(s, sb);
}

int gguf_describe(const struct gguf *g, bool json, struct strbuf *sb, struct err *err)
{
    struct sums s;
    int rc = make_sums(g, &s, err);
    if (rc == 0) {
        if (json)
            describe_json(g, &s, sb);
        else
            describe_text(g, &s, sb);
        rc = strbuf_check(sb, "description of the model", err);
    }
    free(s.layers);
    return rc;
}
