/* Plain structs to protobuf and back.
 *
 * One function each way and message; fields of the same name are copied by lists (the X macros), arrays that have the same
 * form on both sides are not copied at all. protobuf-c gets its memory from the codec's arena through its allocator, and so
 * do our arrays: decoding starts the arena anew, encoding takes what it needs behind a decoded message and gives it back. */
#include "proto/codec.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proto/act.h"
#include "proto/check.h"
#include "proto/pipeline.pb-c.h"

struct codec {
    uint8_t *memory;
    size_t cap, used;
    bool full; /* something did not fit */
    ProtobufCAllocator allocator;
};

/* --- memory ------------------------------------------------------------------------------------------------------------ */
static void *take(struct codec *c, size_t count, size_t size)
{
    size_t bytes, align = alignof(max_align_t);
    void *p;

    if (!mem_mul(count, size, &bytes) || bytes > c->cap || c->cap - c->used < bytes + align) {
        c->full = true;
        return NULL;
    }
    p = c->memory + c->used;
    c->used += (bytes + align - 1) / align * align;
    return p;
}

static void *pb_alloc(void *data, size_t bytes)
{
    return take(data, 1, bytes);
}

static void pb_free(void *data, void *p)
{
    (void)data;
    (void)p;
}

struct codec *codec_create(size_t bytes, struct err *err)
{
    struct codec *c = mem_new(1, sizeof *c, err);

    if (!c)
        return NULL;
    c->memory = mem_pages_alloc(bytes, err);
    if (!c->memory) {
        free(c);
        return NULL;
    }
    c->cap = bytes;
    c->allocator = (ProtobufCAllocator){pb_alloc, pb_free, c};
    return c;
}

void codec_destroy(struct codec *c)
{
    if (!c)
        return;
    mem_pages_free(c->memory, c->cap);
    free(c);
}

/* --- what all messages are made of --------------------------------------------------------------------------------------- */
/* The X macros' two uses, and the same for strings, which protobuf-c wants as char *. */
#define OUT(f) p->f = m->f;
#define IN(f) m->f = p->f;
#define OUT_STR(f) p->f = (char *)(uintptr_t)m->f;
#define OUT_EPOCH() (p->epoch_instance = m->epoch.instance, p->epoch_counter = m->epoch.counter)
#define IN_EPOCH() (m->epoch = (struct msg_epoch){p->epoch_instance, p->epoch_counter})

static ProtobufCBinaryData out_id(const uint8_t *id)
{
    return (ProtobufCBinaryData){id ? MSG_ID_BYTES : 0, (uint8_t *)(uintptr_t)id};
}

static int in_id(const char *message, const char *field, ProtobufCBinaryData from, uint8_t *ret, struct err *err)
{
    if (from.len != MSG_ID_BYTES)
        return err_set(err, ERR_INPUT, "%s: %s has %zu bytes, %d are needed", message, field, from.len, MSG_ID_BYTES);
    memcpy(ret, from.data, MSG_ID_BYTES);
    return 0;
}

/* A key may be absent. */
static int in_key(const char *message, ProtobufCBinaryData from, const uint8_t **ret, struct err *err)
{
    if (from.len != 0 && from.len != MSG_ID_BYTES)
        return err_set(err, ERR_INPUT, "%s: key has %zu bytes, %d are needed", message, from.len, MSG_ID_BYTES);
    *ret = from.len ? from.data : NULL;
    return 0;
}

static int too_big(const struct codec *c, const char *message, struct err *err)
{
    return err_set(err, ERR_LIMIT, "%s: needs more than the %zu bytes that a message may take in memory", message, c->cap);
}

static int lengths_differ(const char *message, const char *field, size_t n, const char *other, size_t n_other, struct err *err)
{
    return err_set(err, ERR_INPUT, "%s: %zu entries of %s, but %zu of %s", message, n, field, n_other, other);
}

/* Counts are checked before memory is taken for them, here and again with everything else. */
static int count_ok(const char *message, const char *field, size_t n, size_t max, struct err *err)
{
    if (n <= max)
        return 0;
    return err_set(err, ERR_INPUT, "%s: %s has %zu entries, at most %zu are allowed", message, field, n, max);
}

/* Makes n protobuf structs of a type and the array of pointers to them that a repeated field is. */
#define NEW_REPEATED(c, type, n, ret_items, ret_pointers) \
    ((ret_pointers) = take(c, n, sizeof *(ret_pointers)), (ret_items) = take(c, n, sizeof(type)), (ret_pointers) && (ret_items))

/* --- links ------------------------------------------------------------------------------------------------------------- */
#define LINK_HELLO_FIELDS(X) X(purpose) X(protocol_min) X(protocol_max) X(instance) X(stage) X(upstream)
#define LINK_HELLO_STRINGS(X) X(version) X(node) X(relay_to)

static int out_link_hello(struct codec *c, const struct msg_link_hello *m, Sc__LinkHello *p)
{
    (void)c;
    LINK_HELLO_FIELDS(OUT)
    LINK_HELLO_STRINGS(OUT_STR)
    OUT_EPOCH();
    return 0;
}

static int in_link_hello(struct codec *c, const Sc__LinkHello *p, struct msg_link_hello *m, struct err *err)
{
    (void)c;
    (void)err;
    LINK_HELLO_FIELDS(IN)
    LINK_HELLO_STRINGS(IN)
    IN_EPOCH();
    return 0;
}

#define LINK_OK_FIELDS(X) X(protocol) X(instance)
#define LINK_OK_STRINGS(X) X(version) X(node)

static int out_link_ok(struct codec *c, const struct msg_link_ok *m, Sc__LinkOk *p)
{
    (void)c;
    LINK_OK_FIELDS(OUT)
    LINK_OK_STRINGS(OUT_STR)
    return 0;
}

static int in_link_ok(struct codec *c, const Sc__LinkOk *p, struct msg_link_ok *m, struct err *err)
{
    (void)c;
    (void)err;
    LINK_OK_FIELDS(IN)
    LINK_OK_STRINGS(IN)
    return 0;
}

static int out_bye(struct codec *c, const struct msg_bye *m, Sc__Bye *p)
{
    (void)c;
    OUT_STR(text)
    OUT(fault)
    return 0;
}

static int in_bye(struct codec *c, const Sc__Bye *p, struct msg_bye *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(text)
    IN(fault)
    return 0;
}

static int out_register(struct codec *c, const struct msg_register *m, Sc__Register *p)
{
    (void)c;
    OUT_STR(name)
    p->secret = out_id(m->secret);
    return 0;
}

static int in_register(struct codec *c, const Sc__Register *p, struct msg_register *m, struct err *err)
{
    (void)c;
    IN(name)
    return in_id("register", "secret", p->secret, m->secret, err);
}

static int out_registered(struct codec *c, const struct msg_registered *m, Sc__Registered *p)
{
    (void)c;
    OUT_STR(name)
    OUT_STR(coordinator)
    return 0;
}

static int in_registered(struct codec *c, const Sc__Registered *p, struct msg_registered *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(name)
    IN(coordinator)
    return 0;
}

/* --- control ----------------------------------------------------------------------------------------------------------- */
#define HELLO_FIELDS(X) X(instance) X(numerics_revision) X(threads) X(disk_bytes_per_s)
#define HELLO_STRINGS(X) X(version) X(node) X(numerics_class) X(isa) X(address)
#define RESIDENT_FIELDS(X) X(present) X(layer_first) X(layer_end) X(embed) X(head)

#define DEVICE_FIELDS(X) X(memory_bytes) X(read_bytes_per_s) X(numerics_revision) X(threads) X(copy_bytes_per_s) X(attention_per_s) \
    X(attention_few_per_s) X(attention_many_per_s) X(back_bytes_per_s)
#define DEVICE_STRINGS(X) X(name) X(numerics_class) X(text)

static Sc__Bits **out_bits(struct codec *c, const struct msg_bits *m, size_t n)
{
    Sc__Bits *items, **p;
    if (!NEW_REPEATED(c, Sc__Bits, n, items, p))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        sc__bits__init(p[i] = &items[i]);
        items[i].type = (char *)(uintptr_t)m[i].type;
        items[i].bits = m[i].bits;
    }
    return p;
}

static Sc__Peer **out_peers(struct codec *c, const struct msg_peer *m, size_t n)
{
    Sc__Peer *items, **p;
    if (!NEW_REPEATED(c, Sc__Peer, n, items, p))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        sc__peer__init(p[i] = &items[i]);
        items[i].device = (char *)(uintptr_t)m[i].device;
        items[i].bytes_per_s = m[i].bytes_per_s;
    }
    return p;
}

static int out_device(struct codec *c, const struct msg_device *m, Sc__Device *p)
{
    Sc__Rate *items;

    sc__device__init(p);
    DEVICE_FIELDS(OUT)
    DEVICE_STRINGS(OUT_STR)
    p->n_rates = m->n_rates;
    p->n_bits = m->n_bits;
    p->n_peers = m->n_peers;
    if (!NEW_REPEATED(c, Sc__Rate, m->n_rates, items, p->rates) || !(p->bits = out_bits(c, m->bits, m->n_bits)) ||
        !(p->peers = out_peers(c, m->peers, m->n_peers)))
        return -1;
    for (size_t i = 0; i < m->n_rates; i++) {
        sc__rate__init(p->rates[i] = &items[i]);
        items[i].type = (char *)(uintptr_t)m->rates[i].type;
        items[i].per_s = m->rates[i].per_s;
        items[i].few_per_s = m->rates[i].few_per_s;
        items[i].one_per_s = m->rates[i].one_per_s;
    }
    return 0;
}

static int out_hello_lists(struct codec *c, const struct msg_hello *m, Sc__Hello *p)
{
    Sc__Device *devices;
    Sc__Resident *resident;

    if (!NEW_REPEATED(c, Sc__Device, m->n_devices, devices, p->devices) || !(p->bits = out_bits(c, m->bits, m->n_bits)) ||
        !NEW_REPEATED(c, Sc__Resident, m->n_resident, resident, p->resident) || !(p->models = take(c, m->n_models, sizeof *p->models)))
        return -1;
    for (size_t i = 0; i < m->n_devices; i++)
        if (out_device(c, &m->devices[i], p->devices[i] = &devices[i]) != 0)
            return -1;
    for (size_t i = 0; i < m->n_models; i++)
        p->models[i] = out_id(m->models[i]);
    for (size_t i = 0; i < m->n_resident; i++) {
        const struct msg_resident *from = &m->resident[i];
        Sc__Resident *to = p->resident[i] = &resident[i];
        sc__resident__init(to);
#define OUT_RESIDENT(f) to->f = from->f;
        RESIDENT_FIELDS(OUT_RESIDENT)
        to->device = (char *)(uintptr_t)from->device;
        to->model = out_id(from->model);
        to->kv_epoch_instance = from->kv_epoch.instance;
        to->kv_epoch_counter = from->kv_epoch.counter;
    }
    p->n_devices = m->n_devices;
    p->n_bits = m->n_bits;
    p->n_models = m->n_models;
    p->n_resident = m->n_resident;
    return 0;
}

static int out_hello(struct codec *c, const struct msg_hello *m, Sc__Hello *p)
{
    HELLO_FIELDS(OUT)
    HELLO_STRINGS(OUT_STR)
    p->key = out_id(m->key);
    return out_hello_lists(c, m, p);
}

static const struct msg_bits *in_bits(struct codec *c, Sc__Bits *const *p, size_t n)
{
    struct msg_bits *bits = take(c, n, sizeof *bits);
    for (size_t i = 0; bits && i < n; i++)
        bits[i] = (struct msg_bits){p[i]->type, p[i]->bits};
    return bits;
}

static int in_device(struct codec *c, const Sc__Device *p, struct msg_device *m, struct err *err)
{
    struct msg_rate *rates;
    struct msg_peer *peers;

    *m = (struct msg_device){0};
    DEVICE_FIELDS(IN)
    DEVICE_STRINGS(IN)
    if (count_ok("hello", "rates", p->n_rates, MSG_MAX_TYPES, err) != 0 || count_ok("hello", "device's bits", p->n_bits, MSG_MAX_TYPES, err) != 0 ||
        count_ok("hello", "device's peers", p->n_peers, MSG_MAX_DEVICES, err) != 0)
        return -1;
    m->n_rates = p->n_rates;
    m->rates = rates = take(c, p->n_rates, sizeof *rates);
    m->n_bits = p->n_bits;
    m->bits = in_bits(c, p->bits, p->n_bits);
    m->n_peers = p->n_peers;
    m->peers = peers = take(c, p->n_peers, sizeof *peers);
    if (!rates || !m->bits || !peers)
        return too_big(c, "hello", err);
    for (size_t i = 0; i < p->n_peers; i++)
        peers[i] = (struct msg_peer){p->peers[i]->device, p->peers[i]->bytes_per_s};
    for (size_t i = 0; i < p->n_rates; i++)
        rates[i] = (struct msg_rate){p->rates[i]->type, p->rates[i]->per_s, p->rates[i]->few_per_s, p->rates[i]->one_per_s};
    return 0;
}

static int in_resident(const Sc__Resident *from, struct msg_resident *to, struct err *err)
{
    *to = (struct msg_resident){0};
#define IN_RESIDENT(f) to->f = from->f;
    RESIDENT_FIELDS(IN_RESIDENT)
    to->device = from->device;
    to->kv_epoch = (struct msg_epoch){from->kv_epoch_instance, from->kv_epoch_counter};
    return in_id("hello", "resident model", from->model, to->model, err);
}

static int in_hello_lists(struct codec *c, const Sc__Hello *p, struct msg_hello *m, struct err *err)
{
    struct msg_device *devices = take(c, p->n_devices, sizeof *devices);
    const struct msg_bits *bits = in_bits(c, p->bits, p->n_bits);
    struct msg_resident *resident = take(c, p->n_resident, sizeof *resident);
    uint8_t(*models)[MSG_ID_BYTES] = take(c, p->n_models, sizeof *models);

    if (!devices || !bits || !resident || !models)
        return too_big(c, "hello", err);
    for (size_t i = 0; i < p->n_devices; i++)
        if (in_device(c, p->devices[i], &devices[i], err) != 0)
            return -1;
    for (size_t i = 0; i < p->n_resident; i++)
        if (in_resident(p->resident[i], &resident[i], err) != 0)
            return -1;
    for (size_t i = 0; i < p->n_models; i++)
        if (in_id("hello", "model", p->models[i], models[i], err) != 0)
            return -1;
    m->devices = devices;
    m->n_devices = p->n_devices;
    m->bits = bits;
    m->n_bits = p->n_bits;
    m->resident = resident;
    m->n_resident = p->n_resident;
    m->models = (const uint8_t(*)[MSG_ID_BYTES])models;
    m->n_models = p->n_models;
    return 0;
}

static int in_hello(struct codec *c, const Sc__Hello *p, struct msg_hello *m, struct err *err)
{
    HELLO_FIELDS(IN)
    HELLO_STRINGS(IN)
    if (in_key("hello", p->key, &m->key, err) != 0 || count_ok("hello", "devices", p->n_devices, MSG_MAX_DEVICES, err) != 0 ||
        count_ok("hello", "bits", p->n_bits, MSG_MAX_TYPES * MSG_MAX_DEVICES, err) != 0 ||
        count_ok("hello", "resident", p->n_resident, MSG_MAX_DEVICES, err) != 0 ||
        count_ok("hello", "models", p->n_models, MSG_MAX_MODELS, err) != 0)
        return -1;
    return in_hello_lists(c, p, m, err);
}

static int out_welcome(struct codec *c, const struct msg_welcome *m, Sc__Welcome *p)
{
    (void)c;
    OUT(instance)
    OUT_STR(node)
    OUT_STR(version)
    return 0;
}

static int in_welcome(struct codec *c, const Sc__Welcome *p, struct msg_welcome *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(instance)
    IN(node)
    IN(version)
    return 0;
}

#define CONFIGURE_FIELDS(X) \
    X(stage) X(n_stages) X(layer_first) X(layer_end) X(embed) X(head) X(kv) X(ctx) X(max_rows) X(max_wanted) X(max_seqs) \
    X(table_stride) X(threads) X(keep_kv) X(memory_bytes) X(window_frames) X(window_bytes) X(heartbeat_ms) X(lost_ms) X(orphan_ms)

static Sc__Neighbour *out_neighbour(struct codec *c, const struct msg_neighbour *m)
{
    Sc__Neighbour *p = take(c, 1, sizeof *p);

    if (!p)
        return NULL;
    sc__neighbour__init(p);
    OUT(reach)
    OUT(stage)
    OUT(act)
    OUT_STR(node)
    OUT_STR(address)
    p->key = out_id(m->key);
    return p;
}

static int out_configure(struct codec *c, const struct msg_configure *m, Sc__Configure *p)
{
    Sc__Source *sources;

    CONFIGURE_FIELDS(OUT)
    OUT_STR(device)
    OUT_STR(isa)
    OUT_EPOCH();
    p->model = out_id(m->model);
    p->n_n_blocks = MSG_KV_GROUPS;
    p->n_blocks = (uint32_t *)(uintptr_t)m->n_blocks;
    p->previous = out_neighbour(c, &m->previous);
    p->next = out_neighbour(c, &m->next);
    if (!p->previous || !p->next || !NEW_REPEATED(c, Sc__Source, m->n_sources, sources, p->sources))
        return -1;
    p->n_sources = m->n_sources;
    for (size_t i = 0; i < m->n_sources; i++) {
        sc__source__init(p->sources[i] = &sources[i]);
        sources[i].node = (char *)(uintptr_t)m->sources[i].node;
        sources[i].address = (char *)(uintptr_t)m->sources[i].address;
        sources[i].key = out_id(m->sources[i].key);
    }
    return 0;
}

static int in_neighbour(const char *which, const Sc__Neighbour *p, struct msg_neighbour *m, struct err *err)
{
    *m = (struct msg_neighbour){.node = "", .address = ""};
    if (!p)
        return err_set(err, ERR_INPUT, "configure: the %s neighbour is missing", which);
    IN(reach)
    IN(stage)
    IN(act)
    IN(node)
    IN(address)
    return in_key("configure: neighbour", p->key, &m->key, err);
}

static int in_configure(struct codec *c, const Sc__Configure *p, struct msg_configure *m, struct err *err)
{
    struct msg_source *sources;

    CONFIGURE_FIELDS(IN)
    IN(device)
    IN(isa)
    IN_EPOCH();
    if (p->n_n_blocks != MSG_KV_GROUPS)
        return err_set(err, ERR_INPUT, "configure: n_blocks has %zu entries, %d are needed", p->n_n_blocks, MSG_KV_GROUPS);
    memcpy(m->n_blocks, p->n_blocks, sizeof m->n_blocks);
    if (in_id("configure", "model", p->model, m->model, err) != 0 || in_neighbour("previous", p->previous, &m->previous, err) != 0 ||
        in_neighbour("next", p->next, &m->next, err) != 0 || count_ok("configure", "sources", p->n_sources, MSG_MAX_SOURCES, err) != 0)
        return -1;
    m->sources = sources = take(c, p->n_sources, sizeof *sources);
    m->n_sources = p->n_sources;
    if (!sources)
        return too_big(c, "configure", err);
    for (size_t i = 0; i < p->n_sources; i++) {
        sources[i] = (struct msg_source){.node = p->sources[i]->node, .address = p->sources[i]->address};
        if (in_key("configure: source", p->sources[i]->key, &sources[i].key, err) != 0)
            return -1;
    }
    return 0;
}

#define LOAD_PROGRESS_FIELDS(X) X(stage) X(done_bytes) X(total_bytes) X(from)

static int out_load_progress(struct codec *c, const struct msg_load_progress *m, Sc__LoadProgress *p)
{
    (void)c;
    LOAD_PROGRESS_FIELDS(OUT)
    OUT_STR(text)
    OUT_EPOCH();
    return 0;
}

static int in_load_progress(struct codec *c, const Sc__LoadProgress *p, struct msg_load_progress *m, struct err *err)
{
    (void)c;
    (void)err;
    LOAD_PROGRESS_FIELDS(IN)
    IN(text)
    IN_EPOCH();
    return 0;
}

#define READY_FIELDS(X) X(stage) X(weights_bytes) X(kv_bytes) X(scratch_bytes) X(load_ms) X(read_bytes) X(received_bytes)

static int out_ready(struct codec *c, const struct msg_ready *m, Sc__Ready *p)
{
    (void)c;
    READY_FIELDS(OUT)
    OUT_EPOCH();
    return 0;
}

static int in_ready(struct codec *c, const Sc__Ready *p, struct msg_ready *m, struct err *err)
{
    (void)c;
    (void)err;
    READY_FIELDS(IN)
    IN_EPOCH();
    return 0;
}

#define STAGE_TIMES_FIELDS(X) X(stage) X(compute_us) X(wait_us) X(wire_us) X(rows) X(batches) X(queued)

static int out_heartbeat(struct codec *c, const struct msg_heartbeat *m, Sc__Heartbeat *p)
{
    Sc__StageTimes *items;

    OUT(now_us)
    OUT(peer_now_us)
    OUT(peer_seen_us)
    if (!NEW_REPEATED(c, Sc__StageTimes, m->n_stages, items, p->stages))
        return -1;
    p->n_stages = m->n_stages;
    for (size_t i = 0; i < m->n_stages; i++) {
        sc__stage_times__init(p->stages[i] = &items[i]);
#define OUT_TIMES(f) items[i].f = m->stages[i].f;
        STAGE_TIMES_FIELDS(OUT_TIMES)
    }
    return 0;
}

static int in_heartbeat(struct codec *c, const Sc__Heartbeat *p, struct msg_heartbeat *m, struct err *err)
{
    struct msg_stage_times *stages;

    IN(now_us)
    IN(peer_now_us)
    IN(peer_seen_us)
    if (count_ok("heartbeat", "stages", p->n_stages, MSG_MAX_STAGE_TIMES, err) != 0)
        return -1;
    m->stages = stages = take(c, p->n_stages, sizeof *stages);
    m->n_stages = p->n_stages;
    if (!stages)
        return too_big(c, "heartbeat", err);
    for (size_t i = 0; i < p->n_stages; i++) {
#define IN_TIMES(f) stages[i].f = p->stages[i]->f;
        STAGE_TIMES_FIELDS(IN_TIMES)
    }
    return 0;
}

#define STAGE_DONE_FIELDS(X) X(stage) X(batch) X(received_us) X(started_us) X(ended_us) X(rows) X(bytes)

static int out_stage_done(struct codec *c, const struct msg_stage_done *m, Sc__StageDone *p)
{
    (void)c;
    STAGE_DONE_FIELDS(OUT)
    OUT_EPOCH();
    return 0;
}

static int in_stage_done(struct codec *c, const Sc__StageDone *p, struct msg_stage_done *m, struct err *err)
{
    (void)c;
    (void)err;
    STAGE_DONE_FIELDS(IN)
    IN_EPOCH();
    return 0;
}

static int out_drain(struct codec *c, const struct msg_drain *m, Sc__Drain *p)
{
    (void)c;
    OUT(for_s)
    OUT_STR(text)
    return 0;
}

static int in_drain(struct codec *c, const Sc__Drain *p, struct msg_drain *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(for_s)
    IN(text)
    return 0;
}

static int out_release(struct codec *c, const struct msg_release *m, Sc__Release *p)
{
    (void)c;
    OUT(keep_weights)
    OUT_STR(device)
    OUT_EPOCH();
    return 0;
}

static int in_release(struct codec *c, const Sc__Release *p, struct msg_release *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(keep_weights)
    IN(device)
    IN_EPOCH();
    return 0;
}

static int out_error(struct codec *c, const struct msg_error *m, Sc__Error *p)
{
    (void)c;
    OUT(stage)
    OUT(kind)
    OUT(memory_bytes)
    OUT_STR(text)
    OUT_EPOCH();
    return 0;
}

static int in_error(struct codec *c, const Sc__Error *p, struct msg_error *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(stage)
    IN(kind)
    IN(memory_bytes)
    IN(text)
    IN_EPOCH();
    return 0;
}

/* --- data -------------------------------------------------------------------------------------------------------------- */
#define SAMPLE_FIELDS(X) \
    X(temperature) X(top_k) X(top_p) X(min_p) X(typical_p) X(repetition_penalty) X(presence_penalty) X(frequency_penalty) \
    X(penalty_last) X(seed)

static Sc__Sample *out_sample(struct codec *c, const struct msg_sample *m)
{
    Sc__Sample *p = take(c, 1, sizeof *p);

    if (!p)
        return NULL;
    sc__sample__init(p);
    SAMPLE_FIELDS(OUT)
    p->n_bias_token = p->n_bias_value = m->n_bias;
    p->bias_token = take(c, m->n_bias, sizeof *p->bias_token);
    p->bias_value = take(c, m->n_bias, sizeof *p->bias_value);
    if (!p->bias_token || !p->bias_value)
        return NULL;
    for (size_t i = 0; i < m->n_bias; i++) {
        p->bias_token[i] = m->bias[i].token;
        p->bias_value[i] = m->bias[i].bias;
    }
    return p;
}

static int out_op(struct codec *c, const struct msg_op *m, Sc__Op *p)
{
    sc__op__init(p);
    OUT(kind)
    OUT(slot)
    switch (m->kind) {
    case OP_SEQ_OPEN:
        OUT(seq)
        OUT(choice)
        p->n_tokens = m->n_tokens;
        p->tokens = (int32_t *)(uintptr_t)m->tokens;
        return (p->sample = out_sample(c, &m->sample)) ? 0 : -1;
    case OP_SEQ_CUT:
        OUT(keep)
        return 0;
    case OP_BLOCK_COPY:
        OUT(group)
        OUT(from)
        OUT(to)
        return 0;
    default:
        return 0;
    }
}

static int out_wants(struct codec *c, const struct msg_step *m, Sc__Step *p)
{
    size_t n = m->n_wants, given = 0, at = 0;

    for (size_t i = 0; i < n; i++)
        given += m->wants[i].n_given;
    p->n_want_row = p->n_want_flags = p->n_want_top = p->n_want_given = n;
    p->n_given = given;
    p->want_row = take(c, n, sizeof *p->want_row);
    p->want_flags = take(c, n, sizeof *p->want_flags);
    p->want_top = take(c, n, sizeof *p->want_top);
    p->want_given = take(c, n, sizeof *p->want_given);
    p->given = take(c, given, sizeof *p->given);
    if (!p->want_row || !p->want_flags || !p->want_top || !p->want_given || !p->given)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const struct msg_want *w = &m->wants[i];
        p->want_row[i] = w->row;
        p->want_flags[i] = w->flags;
        p->want_top[i] = w->top;
        p->want_given[i] = (uint32_t)w->n_given;
        if (w->n_given)
            memcpy(p->given + at, w->given, w->n_given * sizeof *p->given);
        at += w->n_given;
    }
    return 0;
}

#define STEP_FIELDS(X) X(batch) X(stop_stage) X(act) X(embd)

static int out_step(struct codec *c, const struct msg_step *m, Sc__Step *p)
{
    Sc__Op *ops;
    Sc__Delta *deltas;

    STEP_FIELDS(OUT)
    OUT_EPOCH();
    p->n_slot = p->n_pos = p->n_token = m->n_rows;
    p->slot = (uint32_t *)(uintptr_t)m->slot;
    p->pos = (uint32_t *)(uintptr_t)m->pos;
    p->token = (int32_t *)(uintptr_t)m->token;
    if (!NEW_REPEATED(c, Sc__Op, m->n_ops, ops, p->ops) || !NEW_REPEATED(c, Sc__Delta, m->n_deltas, deltas, p->deltas))
        return -1;
    p->n_ops = m->n_ops;
    p->n_deltas = m->n_deltas;
    for (size_t i = 0; i < m->n_ops; i++)
        if (out_op(c, &m->ops[i], p->ops[i] = &ops[i]) != 0)
            return -1;
    for (size_t i = 0; i < m->n_deltas; i++) {
        const struct msg_delta *d = &m->deltas[i];
        sc__delta__init(p->deltas[i] = &deltas[i]);
        deltas[i].slot = d->slot;
        deltas[i].group = d->group;
        deltas[i].index = d->index;
        deltas[i].n_blocks = d->n_blocks;
        deltas[i].blocks = (uint32_t *)(uintptr_t)d->blocks;
    }
    return out_wants(c, m, p);
}

static int in_sample(struct codec *c, const Sc__Sample *p, struct msg_sample *m, struct err *err)
{
    struct msg_bias *bias;

    if (!p)
        return err_set(err, ERR_INPUT, "step: seq_open without sampling parameters");
    SAMPLE_FIELDS(IN)
    if (p->n_bias_token != p->n_bias_value)
        return lengths_differ("step", "bias_token", p->n_bias_token, "bias_value", p->n_bias_value, err);
    if (count_ok("step", "bias", p->n_bias_token, MSG_MAX_BIAS, err) != 0)
        return -1;
    m->bias = bias = take(c, p->n_bias_token, sizeof *bias);
    m->n_bias = p->n_bias_token;
    if (!bias)
        return too_big(c, "step", err);
    for (size_t i = 0; i < m->n_bias; i++)
        bias[i] = (struct msg_bias){p->bias_token[i], p->bias_value[i]};
    return 0;
}

static int in_op(struct codec *c, const Sc__Op *p, struct msg_op *m, struct err *err)
{
    *m = (struct msg_op){0};
    IN(kind)
    IN(slot)
    IN(seq)
    IN(choice)
    IN(tokens)
    IN(n_tokens)
    IN(keep)
    IN(group)
    IN(from)
    IN(to)
    return m->kind == OP_SEQ_OPEN ? in_sample(c, p->sample, &m->sample, err) : 0;
}

static int in_wants(struct codec *c, const Sc__Step *p, struct msg_step *m, struct err *err)
{
    size_t n = p->n_want_row, at = 0;
    struct msg_want *wants;

    if (p->n_want_flags != n || p->n_want_top != n || p->n_want_given != n)
        return lengths_differ("step", "want_row", n, "want_flags, want_top or want_given",
                              p->n_want_flags != n ? p->n_want_flags : p->n_want_top != n ? p->n_want_top : p->n_want_given, err);
    if (count_ok("step", "wants", n, MSG_MAX_ROWS, err) != 0)
        return -1;
    m->wants = wants = take(c, n, sizeof *wants);
    m->n_wants = n;
    if (!wants)
        return too_big(c, "step", err);
    for (size_t i = 0; i < n; i++) {
        if (p->want_given[i] > p->n_given - at)
            return err_set(err, ERR_INPUT, "step: want %zu: has %u given tokens, %zu are left", i, (unsigned)p->want_given[i],
                           p->n_given - at);
        wants[i] = (struct msg_want){p->want_row[i], p->want_flags[i], p->want_top[i], p->given ? p->given + at : NULL, p->want_given[i]};
        at += p->want_given[i];
    }
    return at == p->n_given ? 0 : lengths_differ("step", "given", p->n_given, "what the wants add up to", at, err);
}

static int in_step(struct codec *c, const Sc__Step *p, struct msg_step *m, struct err *err)
{
    struct msg_op *ops;
    struct msg_delta *deltas;

    STEP_FIELDS(IN)
    IN_EPOCH();
    if (p->n_pos != p->n_slot || p->n_token != p->n_slot)
        return lengths_differ("step", "slot", p->n_slot, p->n_pos != p->n_slot ? "pos" : "token",
                              p->n_pos != p->n_slot ? p->n_pos : p->n_token, err);
    if (count_ok("step", "ops", p->n_ops, MSG_MAX_OPS, err) != 0 || count_ok("step", "deltas", p->n_deltas, MSG_MAX_DELTAS, err) != 0)
        return -1;
    m->n_rows = p->n_slot;
    IN(slot)
    IN(pos)
    IN(token)
    m->ops = ops = take(c, p->n_ops, sizeof *ops);
    m->n_ops = p->n_ops;
    m->deltas = deltas = take(c, p->n_deltas, sizeof *deltas);
    m->n_deltas = p->n_deltas;
    if (!ops || !deltas)
        return too_big(c, "step", err);
    for (size_t i = 0; i < p->n_ops; i++)
        if (in_op(c, p->ops[i], &ops[i], err) != 0)
            return -1;
    for (size_t i = 0; i < p->n_deltas; i++) {
        const Sc__Delta *d = p->deltas[i];
        deltas[i] = (struct msg_delta){d->slot, d->group, d->index, d->blocks, d->n_blocks};
    }
    return in_wants(c, p, m, err);
}

#define RESULT_ROW_FIELDS(X) X(row) X(flags) X(token) X(logprob)

static int out_result(struct codec *c, const struct msg_result *m, Sc__Result *p)
{
    Sc__ResultRow *items;

    OUT(batch)
    OUT(embd)
    OUT_STR(error)
    OUT_EPOCH();
    if (!NEW_REPEATED(c, Sc__ResultRow, m->n_rows, items, p->rows))
        return -1;
    p->n_rows = m->n_rows;
    for (size_t i = 0; i < m->n_rows; i++) {
        const struct msg_result_row *from = &m->rows[i];
        Sc__ResultRow *to = p->rows[i] = &items[i];
        sc__result_row__init(to);
#define OUT_ROW(f) to->f = from->f;
        RESULT_ROW_FIELDS(OUT_ROW)
        to->n_top_tokens = to->n_top_logprobs = from->n_top;
        to->top_tokens = (int32_t *)(uintptr_t)from->top_tokens;
        to->top_logprobs = (float *)(uintptr_t)from->top_logprobs;
        to->n_given = from->n_given;
        to->given = (float *)(uintptr_t)from->given;
    }
    return 0;
}

static int in_result(struct codec *c, const Sc__Result *p, struct msg_result *m, struct err *err)
{
    struct msg_result_row *rows;

    IN(batch)
    IN(embd)
    IN(error)
    IN_EPOCH();
    if (count_ok("result", "rows", p->n_rows, MSG_MAX_ROWS, err) != 0)
        return -1;
    m->rows = rows = take(c, p->n_rows, sizeof *rows);
    m->n_rows = p->n_rows;
    if (!rows)
        return too_big(c, "result", err);
    for (size_t i = 0; i < p->n_rows; i++) {
        const Sc__ResultRow *from = p->rows[i];
        struct msg_result_row *to = &rows[i];
        *to = (struct msg_result_row){.top_tokens = from->top_tokens, .top_logprobs = from->top_logprobs, .n_top = from->n_top_tokens,
                                      .given = from->given, .n_given = from->n_given};
#define IN_ROW(f) to->f = from->f;
        RESULT_ROW_FIELDS(IN_ROW)
        if (from->n_top_tokens != from->n_top_logprobs)
            return lengths_differ("result", "top_tokens", from->n_top_tokens, "top_logprobs", from->n_top_logprobs, err);
    }
    return 0;
}

#define CREDIT_FIELDS(X) X(taken) X(free_bytes) X(free_frames)

static int out_credit(struct codec *c, const struct msg_credit *m, Sc__Credit *p)
{
    (void)c;
    CREDIT_FIELDS(OUT)
    OUT_EPOCH();
    return 0;
}

static int in_credit(struct codec *c, const Sc__Credit *p, struct msg_credit *m, struct err *err)
{
    (void)c;
    (void)err;
    CREDIT_FIELDS(IN)
    IN_EPOCH();
    return 0;
}

static int out_mask(struct codec *c, const struct msg_mask *m, Sc__Mask *p)
{
    (void)c;
    OUT(batch)
    OUT(row)
    OUT_EPOCH();
    p->bits = (ProtobufCBinaryData){m->n_bytes, (uint8_t *)(uintptr_t)m->bits};
    return 0;
}

static int in_mask(struct codec *c, const Sc__Mask *p, struct msg_mask *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(batch)
    IN(row)
    IN_EPOCH();
    m->bits = p->bits.data;
    m->n_bytes = p->bits.len;
    return 0;
}

/* --- bulk -------------------------------------------------------------------------------------------------------------- */
#define WEIGHTS_GET_FIELDS(X) X(id) X(split) X(header) X(offset) X(bytes)

static int out_weights_get(struct codec *c, const struct msg_weights_get *m, Sc__WeightsGet *p)
{
    (void)c;
    WEIGHTS_GET_FIELDS(OUT)
    p->model = out_id(m->model);
    return 0;
}

static int in_weights_get(struct codec *c, const Sc__WeightsGet *p, struct msg_weights_get *m, struct err *err)
{
    (void)c;
    WEIGHTS_GET_FIELDS(IN)
    return in_id("weights_get", "model", p->model, m->model, err);
}

#define WEIGHTS_PUT_FIELDS(X) X(id) X(offset) X(bytes) X(last) X(total_bytes)

static int out_weights_put(struct codec *c, const struct msg_weights_put *m, Sc__WeightsPut *p)
{
    (void)c;
    WEIGHTS_PUT_FIELDS(OUT)
    OUT_STR(error)
    return 0;
}

static int in_weights_put(struct codec *c, const Sc__WeightsPut *p, struct msg_weights_put *m, struct err *err)
{
    (void)c;
    (void)err;
    WEIGHTS_PUT_FIELDS(IN)
    IN(error)
    return 0;
}

#define MANIFEST_GET_FIELDS(X) X(id) X(split) X(first_chunk) X(n_chunks) X(hash)

static int out_manifest_get(struct codec *c, const struct msg_manifest_get *m, Sc__ManifestGet *p)
{
    (void)c;
    MANIFEST_GET_FIELDS(OUT)
    p->model = out_id(m->model);
    return 0;
}

static int in_manifest_get(struct codec *c, const Sc__ManifestGet *p, struct msg_manifest_get *m, struct err *err)
{
    (void)c;
    MANIFEST_GET_FIELDS(IN)
    return in_id("manifest_get", "model", p->model, m->model, err);
}

#define MANIFEST_PUT_FIELDS(X) X(id) X(split) X(first_chunk) X(chunk_bytes) X(split_bytes) X(hash)

static int out_manifest_put(struct codec *c, const struct msg_manifest_put *m, Sc__ManifestPut *p)
{
    MANIFEST_PUT_FIELDS(OUT)
    OUT_STR(error)
    p->n_hashes = m->n_hashes;
    p->hashes = take(c, m->n_hashes, sizeof *p->hashes);
    if (!p->hashes)
        return -1;
    for (size_t i = 0; i < m->n_hashes; i++)
        p->hashes[i] = out_id(m->hashes[i]);
    return 0;
}

static int in_manifest_put(struct codec *c, const Sc__ManifestPut *p, struct msg_manifest_put *m, struct err *err)
{
    uint8_t(*hashes)[MSG_ID_BYTES];

    MANIFEST_PUT_FIELDS(IN)
    IN(error)
    if (count_ok("manifest_put", "hashes", p->n_hashes, MSG_MAX_MANIFEST, err) != 0)
        return -1;
    hashes = take(c, p->n_hashes, sizeof *hashes);
    if (!hashes)
        return too_big(c, "manifest_put", err);
    for (size_t i = 0; i < p->n_hashes; i++)
        if (in_id("manifest_put", "hash", p->hashes[i], hashes[i], err) != 0)
            return -1;
    m->hashes = (const uint8_t(*)[MSG_ID_BYTES])hashes;
    m->n_hashes = p->n_hashes;
    return 0;
}

#define PROBE_FIELDS(X) X(id) X(now_us) X(bytes) X(answer_bytes)

static int out_probe(struct codec *c, const struct msg_probe *m, Sc__Probe *p)
{
    (void)c;
    PROBE_FIELDS(OUT)
    return 0;
}

static int in_probe(struct codec *c, const Sc__Probe *p, struct msg_probe *m, struct err *err)
{
    (void)c;
    (void)err;
    PROBE_FIELDS(IN)
    return 0;
}

static int out_probe_echo(struct codec *c, const struct msg_probe_echo *m, Sc__ProbeEcho *p)
{
    (void)c;
    OUT(id)
    OUT(now_us)
    OUT(bytes)
    return 0;
}

static int in_probe_echo(struct codec *c, const Sc__ProbeEcho *p, struct msg_probe_echo *m, struct err *err)
{
    (void)c;
    (void)err;
    IN(id)
    IN(now_us)
    IN(bytes)
    return 0;
}

/* --- the table --------------------------------------------------------------------------------------------------------- */
/* X(constant, member of struct msg, generated type, generated prefix, functions' name) */
#define MESSAGES(X) \
    X(MSG_LINK_HELLO, link_hello, Sc__LinkHello, sc__link_hello, link_hello) \
    X(MSG_LINK_OK, link_ok, Sc__LinkOk, sc__link_ok, link_ok) \
    X(MSG_BYE, bye, Sc__Bye, sc__bye, bye) \
    X(MSG_REGISTER, register_, Sc__Register, sc__register, register) \
    X(MSG_REGISTERED, registered, Sc__Registered, sc__registered, registered) \
    X(MSG_HELLO, hello, Sc__Hello, sc__hello, hello) \
    X(MSG_WELCOME, welcome, Sc__Welcome, sc__welcome, welcome) \
    X(MSG_CONFIGURE, configure, Sc__Configure, sc__configure, configure) \
    X(MSG_LOAD_PROGRESS, load_progress, Sc__LoadProgress, sc__load_progress, load_progress) \
    X(MSG_READY, ready, Sc__Ready, sc__ready, ready) \
    X(MSG_HEARTBEAT, heartbeat, Sc__Heartbeat, sc__heartbeat, heartbeat) \
    X(MSG_STAGE_DONE, stage_done, Sc__StageDone, sc__stage_done, stage_done) \
    X(MSG_DRAIN, drain, Sc__Drain, sc__drain, drain) \
    X(MSG_RELEASE, release, Sc__Release, sc__release, release) \
    X(MSG_ERROR, error, Sc__Error, sc__error, error) \
    X(MSG_STEP, step, Sc__Step, sc__step, step) \
    X(MSG_RESULT, result, Sc__Result, sc__result, result) \
    X(MSG_CREDIT, credit, Sc__Credit, sc__credit, credit) \
    X(MSG_MASK, mask, Sc__Mask, sc__mask, mask) \
    X(MSG_WEIGHTS_GET, weights_get, Sc__WeightsGet, sc__weights_get, weights_get) \
    X(MSG_WEIGHTS_PUT, weights_put, Sc__WeightsPut, sc__weights_put, weights_put) \
    X(MSG_MANIFEST_GET, manifest_get, Sc__ManifestGet, sc__manifest_get, manifest_get) \
    X(MSG_MANIFEST_PUT, manifest_put, Sc__ManifestPut, sc__manifest_put, manifest_put) \
    X(MSG_PROBE, probe, Sc__Probe, sc__probe, probe) \
    X(MSG_PROBE_ECHO, probe_echo, Sc__ProbeEcho, sc__probe_echo, probe_echo)

/* The protobuf struct of a message, filled; NULL: no room, or no such message. */
static const ProtobufCMessage *fill(struct codec *c, const struct msg *m)
{
    switch (m->type) {
#define FILL(constant, member, Type, prefix, fn) \
    case constant: { \
        Type *p = take(c, 1, sizeof *p); \
        if (!p) \
            return NULL; \
        prefix##__init(p); \
        return out_##fn(c, &m->member, p) == 0 ? &p->base : NULL; \
    }
        MESSAGES(FILL)
    default:
        return NULL;
    }
}

static const ProtobufCMessageDescriptor *descriptor(enum msg_type type)
{
    switch (type) {
#define DESCRIPTOR(constant, member, Type, prefix, fn) \
    case constant: \
        return &prefix##__descriptor;
        MESSAGES(DESCRIPTOR)
    default:
        return NULL;
    }
}

static int read_out(struct codec *c, const ProtobufCMessage *base, struct msg *m, struct err *err)
{
    switch (m->type) {
#define READ_OUT(constant, member, Type, prefix, fn) \
    case constant: \
        return in_##fn(c, (const Type *)base, &m->member, err);
        MESSAGES(READ_OUT)
    default:
        return -1;
    }
}

/* Sentences of our own may quote anything; what goes out is text. */
static const char *clean(struct codec *c, const char *text)
{
    char *buf = text ? take(c, 1, MSG_MAX_TEXT + 1) : NULL;

    return buf ? err_printable(buf, MSG_MAX_TEXT + 1, text, strlen(text)) : "";
}

static void clean_texts(struct codec *c, struct msg *m)
{
    const char **text = m->type == MSG_BYE             ? &m->bye.text
                        : m->type == MSG_LOAD_PROGRESS ? &m->load_progress.text
                        : m->type == MSG_DRAIN         ? &m->drain.text
                        : m->type == MSG_ERROR         ? &m->error.text
                        : m->type == MSG_RESULT        ? &m->result.error
                        : m->type == MSG_WEIGHTS_PUT   ? &m->weights_put.error
                        : m->type == MSG_MANIFEST_PUT  ? &m->manifest_put.error
                                                       : NULL;
    if (text)
        *text = clean(c, *text);
}

static int encode(struct codec *c, const struct msg *given, void *buf, size_t cap, size_t *ret_len, struct err *err)
{
    struct msg m = *given;
    const ProtobufCMessage *p;
    size_t len;

    clean_texts(c, &m);
    if (msg_check(&m, ERR_INTERNAL, err) != 0)
        return -1;
    p = fill(c, &m);
    if (!p)
        return too_big(c, msg_type_name(m.type), err);
    len = protobuf_c_message_get_packed_size(p);
    if (len > cap)
        return err_set(err, ERR_LIMIT, "%s: %zu bytes encoded, there is room for %zu", msg_type_name(m.type), len, cap);
    protobuf_c_message_pack(p, buf);
    *ret_len = len;
    return 0;
}

int codec_encode(struct codec *c, const struct msg *m, void *buf, size_t cap, size_t *ret_len, struct err *err)
{
    size_t mark = c->used;
    int rc = encode(c, m, buf, cap, ret_len, err);

    c->used = mark;
    c->full = false;
    return rc;
}

static size_t hidden_rows(const struct msg_result *m)
{
    size_t n = 0;

    for (size_t i = 0; i < m->n_rows; i++)
        n += (m->rows[i].flags & WANT_HIDDEN) != 0;
    return n;
}

size_t codec_payload_bytes(const struct msg *m)
{
    switch (m->type) {
    case MSG_STEP:
        return m->step.embd ? m->step.n_rows * act_row_bytes(m->step.act, m->step.embd) : 0;
    case MSG_RESULT:
        return hidden_rows(&m->result) * m->result.embd * sizeof(float);
    case MSG_WEIGHTS_PUT:
        return m->weights_put.bytes;
    case MSG_PROBE:
        return m->probe.bytes;
    case MSG_PROBE_ECHO:
        return m->probe_echo.bytes;
    default:
        return 0;
    }
}

int codec_decode(struct codec *c, enum msg_type type, const void *head, size_t head_len, size_t payload_len, struct msg *ret,
                 struct err *err)
{
    const ProtobufCMessageDescriptor *d = descriptor(type);
    struct msg m = {.type = type};
    const ProtobufCMessage *p;

    c->used = 0;
    c->full = false;
    if (!d)
        return err_set(err, ERR_INPUT, "message of the unknown type %d", (int)type);
    if (head_len > CODEC_MAX_HEAD)
        return err_set(err, ERR_INPUT, "%s: %zu bytes, at most %d are allowed", msg_type_name(type), head_len, CODEC_MAX_HEAD);
    p = protobuf_c_message_unpack(d, &c->allocator, head_len, head);
    if (!p && c->full)
        return too_big(c, msg_type_name(type), err);
    if (!p)
        return err_set(err, ERR_INPUT, "%s: %zu bytes that are no such message", msg_type_name(type), head_len);
    if (read_out(c, p, &m, err) != 0 || msg_check(&m, ERR_INPUT, err) != 0)
        return -1;
    if (payload_len != codec_payload_bytes(&m))
        return err_set(err, ERR_INPUT, "%s: %zu bytes of payload, but it speaks of %zu", msg_type_name(type), payload_len,
                       codec_payload_bytes(&m));
    *ret = m;
    return 0;
}
