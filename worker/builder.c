/* See builder.h. */
#include "worker/builder.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/queue.h"
#include "base/sysinfo.h"
#include "base/threadpool.h"
#include "kernels/backend.h"
#include "model/arch.h"
#include "model/stage.h"

enum {
    MAX_ORDERS = 64,
    FREEING_MS = 3000, /* for other devices' stages to give back what the next plan counts on */
    FREEING_LOOK_MS = 50,
};

/* A loaded stage, whether it runs or not. Only the builder's thread touches it, but for what resident tells. */
struct held {
    uint8_t model[MSG_ID_BYTES];
    struct model_params params;
    struct backend *backend;
    unsigned threads;
    char isa[MSG_MAX_NAME + 1], device[MSG_MAX_NAME + 1];
    struct stage_config shape;
    struct stage_bytes bytes;
    struct stage *stage; /* NULL: nothing is held */
    struct weights *weights; /* of the stage before, while the next one takes over what it can */
    struct msg_epoch epoch; /* the last one that it was in */
};

enum order_kind { ORDER_BUILD, ORDER_RELEASE, ORDER_END };

struct order {
    enum order_kind kind;
    uint64_t number;
    struct stage_thread *old;
    bool keep_weights;
    struct msg_configure c; /* strings: the two below; neighbours are not used, sources are: */
    struct fetch_node sources[MSG_MAX_SOURCES];
    size_t n_sources;
    char device[MSG_MAX_NAME + 1], isa[MSG_MAX_NAME + 1];
};

struct builder {
    struct builder_options o;
    struct queue *orders, *results;
    pthread_t thread;
    bool started;
    uint64_t n_orders;
    _Atomic uint64_t newest; /* order */
    _Atomic uint64_t done_bytes, total_bytes;
    struct held held;
    uint64_t memory_bytes; /* that the order at hand found */
    pthread_mutex_t lock; /* of all below */
    struct msg_resident resident;
    uint64_t held_bytes;
    struct weight_source *source;     /* that is being read from, and … */
    const struct order *source_order; /* … for which order */
    struct fetch *fetch;              /* where it reads from the network */
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- what is held ------------------------------------------------------------------------------------------------------- */

static void publish(struct builder *b)
{
    struct held *h = &b->held;
    pthread_mutex_lock(&b->lock);
    b->resident = (struct msg_resident){.present = h->stage != NULL, .device = b->o.device->name, .layer_first = h->shape.first, .layer_end = h->shape.last,
                                        .embed = h->shape.embed, .head = h->shape.head, .kv_epoch = h->epoch};
    memcpy(b->resident.model, h->model, MSG_ID_BYTES);
    b->held_bytes = h->stage ? h->bytes.weights + h->bytes.kv + h->bytes.scratch : 0;
    pthread_mutex_unlock(&b->lock);
}

static void drop_stage(struct builder *b)
{
    stage_destroy(b->held.stage);
    weights_destroy(b->held.weights);
    b->held.stage = NULL;
    b->held.weights = NULL;
    publish(b);
}

/* All but the weights that the next stage will take over. */
static void shrink_stage(struct builder *b, const struct stage_config *next)
{
    struct held *h = &b->held;
    if (!h->stage)
        return;
    h->weights = stage_destroy_but_weights(h->stage);
    h->stage = NULL;
    if (h->weights)
        weights_shrink(h->weights, next->first, next->last, next->embed, next->head);
    publish(b);
}

static void drop_all(struct builder *b)
{
    drop_stage(b);
    backend_destroy(b->held.backend);
    memset(&b->held, 0, sizeof b->held);
}

void builder_resident(struct builder *b, struct msg_resident *ret)
{
    pthread_mutex_lock(&b->lock);
    *ret = b->resident;
    pthread_mutex_unlock(&b->lock);
}

uint64_t builder_held_bytes(struct builder *b)
{
    pthread_mutex_lock(&b->lock);
    uint64_t bytes = b->held_bytes;
    pthread_mutex_unlock(&b->lock);
    return bytes;
}

uint64_t builder_memory(struct builder *b)
{
    uint64_t free = device_memory_now(b->o.device), held = builder_held_bytes(b), most = b->o.device->memory_max;
    free = free > UINT64_MAX - held ? UINT64_MAX : free + held;
    return most && most < free ? most : free;
}

/* --- building ----------------------------------------------------------------------------------------------------------- */

static struct stage_config shape_of(const struct msg_configure *c)
{
    return (struct stage_config){
        .first = c->layer_first, .last = c->layer_end, .embed = c->embed, .head = c->head, .kv = (enum kv_type)c->kv, .ctx = c->ctx,
        .n_blocks = {c->n_blocks[0], c->n_blocks[1]}, .max_rows = c->max_rows, .max_wanted = c->max_wanted, .max_seqs = c->max_seqs,
        .table_stride = c->table_stride,
    };
}

static bool same_shape(const struct stage_config *a, const struct stage_config *b)
{
    return a->first == b->first && a->last == b->last && a->embed == b->embed && a->head == b->head && a->kv == b->kv && a->ctx == b->ctx &&
           a->n_blocks[0] == b->n_blocks[0] && a->n_blocks[1] == b->n_blocks[1] && a->max_rows == b->max_rows &&
           a->max_wanted == b->max_wanted && a->max_seqs == b->max_seqs && a->table_stride == b->table_stride;
}

static const char *isa_of(const struct builder *b, const struct order *o)
{
    return b->o.how->isa ? b->o.how->isa : o->isa;
}

/* 0: all there are. */
static unsigned threads_of(const struct builder *b, const struct order *o)
{
    return o->c.threads ? o->c.threads : b->o.how->threads;
}

/* How the order wants the device opened. */
static struct device_options how_of(const struct builder *b, const struct order *o)
{
    struct device_options how = *b->o.how;
    how.threads = threads_of(b, o);
    how.isa = isa_of(b, o)[0] ? isa_of(b, o) : NULL;
    return how;
}

static bool same_place(const struct builder *b, const struct order *o)
{
    const struct held *h = &b->held;
    return h->backend && h->threads == threads_of(b, o) && strcmp(h->isa, isa_of(b, o)) == 0 && strcmp(h->device, o->device) == 0 &&
           memcmp(h->model, o->c.model, MSG_ID_BYTES) == 0;
}

static int check_configure(const struct order *o, const struct model_params *p, struct err *err)
{
    const struct msg_configure *c = &o->c;
    if (c->layer_first >= c->layer_end || c->layer_end > p->n_layers)
        return err_set(err, ERR_INPUT, "layers %u to %u asked for, the model has 0 to %u", c->layer_first, c->layer_end - 1, p->n_layers - 1);
    if (c->embed != (c->stage == 0) || c->head != (c->stage + 1 == c->n_stages) || c->embed != (c->layer_first == 0) ||
        c->head != (c->layer_end == p->n_layers))
        return err_set(err, ERR_INPUT, "stage %u of %u with layers %u-%u of %u%s%s: the first stage, and no other, takes tokens, the last gives "
                       "logits", c->stage, c->n_stages, c->layer_first, c->layer_end - 1, p->n_layers, c->embed ? ", embedding" : "", c->head ? ", head" : "");
    if ((unsigned)c->kv >= KV_TYPES)
        return err_set(err, ERR_INPUT, "KV cache of type %d, which is unknown", (int)c->kv);
    return 0;
}

/* What the owner, the coordinator and the system have to give. freed: what is given back before. */
static uint64_t memory_for(const struct builder *b, const struct order *o, uint64_t freed, const char **ret_whose)
{
    uint64_t most = device_memory_free(b->held.backend);

    *ret_whose = "free";
    most = most > UINT64_MAX - freed ? UINT64_MAX : most + freed;
    if (b->o.device->memory_max && b->o.device->memory_max < most) {
        most = b->o.device->memory_max;
        *ret_whose = b->o.device->kind == DEVICE_CPU ? "allowed by --ram" : "allowed by --vram";
    }
    if (o->c.memory_bytes && o->c.memory_bytes < most) {
        most = o->c.memory_bytes;
        *ret_whose = "allowed by the topology";
    }
    return most;
}

static int check_memory(struct builder *b, const struct order *o, const struct stage_exec_config *e, const struct stage_bytes *bytes,
                        uint64_t freed, struct err *err)
{
    uint64_t need = bytes->weights + bytes->kv + bytes->scratch + stage_exec_bytes(e), most;
    const char *whose;
    char a[32], f[32];

    for (unsigned ms = 0;; ms += FREEING_LOOK_MS) {
        most = memory_for(b, o, freed, &whose);
        if (need <= most)
            return 0;
        if (!b->o.shares || strcmp(whose, "free") != 0 || ms >= FREEING_MS || o->number != atomic_load(&b->newest))
            break;
        nanosleep(&(struct timespec){.tv_nsec = FREEING_LOOK_MS * 1000000L}, NULL);
    }
    b->memory_bytes = most;
    return err_set(err, ERR_MEMORY, "worker %s: layers %u-%u need %s%s%s, %s %s; lower --ctx or add a node", b->o.node, o->c.layer_first,
                   o->c.layer_end - 1, sysinfo_bytes(a, need), strcmp(o->device, "cpu") ? " on " : "", strcmp(o->device, "cpu") ? o->device : "",
                   sysinfo_bytes(f, most), whose);
}

/* It ran out while it loaded, though there was enough before: others took it, or it is in pieces. */
static void note_shortage(struct builder *b, const struct order *o, const struct stage_bytes *bytes)
{
    const char *whose;
    uint64_t need = bytes->weights + bytes->kv + bytes->scratch, most = memory_for(b, o, builder_held_bytes(b), &whose);
    b->memory_bytes = most < need - need / 16 ? most : need - need / 16;
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
    struct builder *b = arg;
    atomic_store(&b->total_bytes, total);
    atomic_store(&b->done_bytes, done);
}

/* While a source is set, the I/O thread may cancel it. */
static void set_source(struct builder *b, struct weight_source *source, const struct order *o)
{
    pthread_mutex_lock(&b->lock);
    b->source = source;
    b->source_order = o;
    pthread_mutex_unlock(&b->lock);
}

static bool same_weights(const struct msg_configure *a, const struct msg_configure *b)
{
    return a->layer_first == b->layer_first && a->layer_end == b->layer_end && a->embed == b->embed && a->head == b->head &&
           memcmp(a->model, b->model, MSG_ID_BYTES) == 0;
}

/* What is being loaded is not wanted any more. Where the next order wants the very same, it goes on: a new epoch must not make
 * all nodes begin from nothing because one of them failed. next NULL: nothing is wanted. */
static void cut_short(struct builder *b, const struct msg_configure *next)
{
    pthread_mutex_lock(&b->lock);
    bool go_on = next && b->source_order && same_weights(&b->source_order->c, next);
    if (b->source && !go_on)
        weight_source_cancel(b->source);
    if (b->fetch && !go_on)
        fetch_cancel(b->fetch);
    pthread_mutex_unlock(&b->lock);
}

static struct stage *load_from(struct builder *b, const struct order *o, const struct gguf *g, const struct stage_exec_config *e,
                               struct threadpool *readers, struct built *ret, struct err *err)
{
    struct held *h = &b->held;
    bool remote = gguf_from_memory(g);
    struct weight_source *source = remote ? fetch_source(b->fetch, b->o.cache->cache, &ret->report, err) : source_file_create(g, NULL, err);
    struct source_report loaded = {0}; /* written anew by the loader: there may be notes already */
    struct weights_options options = {.source = source, .model_id = o->c.model, .previous = h->weights, .progress = progress, .progress_arg = b,
                                      .report = &loaded};
    struct stage *stage;

    if (!source)
        return NULL;
    set_source(b, source, o);
    stage = stage_create_from(g, e->params, &e->shape, h->backend, readers, &options, err);
    set_source(b, NULL, remote ? o : NULL);
    source_report_add(&ret->report, &loaded);
    if (!remote) /* else it is the fetch's */
        weight_source_destroy(source);
    return stage;
}

/* The stage's weights from the files of g and from what is held, in place of that. */
static int load_stage(struct builder *b, const struct order *o, const struct gguf *g, const struct stage_exec_config *e, struct built *ret,
                      struct err *err)
{
    struct held *h = &b->held;
    uint64_t freed = builder_held_bytes(b);
    struct stage_bytes bytes;

    if (stage_bytes(g, e->params, &e->shape, h->backend, &bytes, err) != 0 || check_memory(b, o, e, &bytes, freed, err) != 0)
        return -1;
    struct device_options how = how_of(b, o);
    struct threadpool *readers = device_helpers(b->o.device, &how, err);
    if (!readers)
        return -1;
    shrink_stage(b, &e->shape);
    h->stage = load_from(b, o, g, e, readers, ret, err);
    weights_destroy(h->weights);
    h->weights = NULL;
    threadpool_destroy(readers);
    if (!h->stage) {
        publish(b);
        if (err->kind == ERR_MEMORY)
            note_shortage(b, o, &bytes);
        return -1;
    }
    h->shape = e->shape;
    h->bytes = bytes;
    return 0;
}

static int open_place(struct builder *b, const struct order *o, const struct model_params *p, struct err *err)
{
    struct held *h = &b->held;
    struct device_options how = how_of(b, o);
    drop_all(b);
    if (!(h->backend = device_open(b->o.device, &how, err)))
        return -1;
    h->threads = threads_of(b, o);
    h->params = *p;
    snprintf(h->isa, sizeof h->isa, "%s", isa_of(b, o));
    snprintf(h->device, sizeof h->device, "%s", o->device);
    memcpy(h->model, o->c.model, MSG_ID_BYTES);
    return 0;
}

static struct stage_exec_config exec_config(const struct order *o, const struct model_params *p)
{
    return (struct stage_exec_config){.stage = o->c.stage, .n_stages = o->c.n_stages, .params = p, .shape = shape_of(&o->c), .act_out = o->c.next.act};
}

static void set_fetch(struct builder *b, struct fetch *f, const struct order *o)
{
    pthread_mutex_lock(&b->lock);
    b->fetch = f;
    b->source_order = o;
    pthread_mutex_unlock(&b->lock);
}

/* A cache that cannot be had costs time, not the load. */
static void open_cache(struct builder *b, struct built *ret)
{
    struct builder_cache *c = b->o.cache;
    struct err err;
    pthread_mutex_lock(&c->lock);
    if (!c->cache && c->dir && !(c->cache = cache_open(c->dir, c->bytes_max, &err)))
        source_note(&ret->report, "nothing is cached: %.150s", err.text);
    pthread_mutex_unlock(&c->lock);
}

/* The model's header from others, where no file here is the model. The fetch stays for the weights. */
static struct gguf *open_remote(struct builder *b, const struct order *o, struct built *ret, struct err *err)
{
    struct err why;
    struct gguf *g;
    struct fetch *f = fetch_create(b->o.net, o->c.model, o->sources, o->n_sources, &why);
    if (!f) {
        *err = why;
        return NULL;
    }
    open_cache(b, ret);
    set_fetch(b, f, o);
    if (!(g = fetch_header(f, &why)))
        err_set(err, why.kind, "%.250s; and from other nodes: %.200s", err->text, why.text);
    return g;
}

static void close_remote(struct builder *b)
{
    struct fetch *f = b->fetch;
    set_fetch(b, NULL, NULL);
    fetch_destroy(f);
}

static bool can_fetch(const struct order *o)
{
    for (size_t i = 0; i < o->n_sources; i++)
        if (o->sources[i].address[0])
            return true;
    return false;
}

/* What came over the network, for the ready message. */
static void count_received(const struct order *o, struct built *ret)
{
    for (uint32_t i = 0; i < ret->report.n_parts; i++)
        for (size_t k = 0; k < o->n_sources; k++)
            if (strcmp(ret->report.part[i].name, o->sources[k].name) == 0)
                ret->ready.received_bytes += ret->report.part[i].bytes;
}

/* The held stage becomes what the order says. */
static int make_stage(struct builder *b, const struct order *o, struct built *ret, struct err *err)
{
    struct held *h = &b->held;
    struct stage_config shape = shape_of(&o->c);
    struct model_params *p = NULL;
    struct gguf *g = NULL;
    int rc = -1;

    if (h->stage && same_place(b, o) && same_shape(&h->shape, &shape)) {
        snprintf(ret->from, sizeof ret->from, "memory");
        return check_configure(o, &h->params, err);
    }
    if (o->c.keep_kv)
        return err_set(err, ERR_NOT_FOUND, "the KV cache that is to be kept is not here: layers %u-%u are not what the last epoch had", shape.first,
                       shape.last - 1);
    if (!(g = models_open(b->o.models, o->c.model, err)) && can_fetch(o))
        g = open_remote(b, o, ret, err);
    if (!g || !(p = mem_new(1, sizeof *p, err)))
        goto done;
    if (model_params_read(g, p, err) != 0 || check_configure(o, p, err) != 0 || (!same_place(b, o) && open_place(b, o, p, err) != 0))
        goto done;
    struct stage_exec_config e = exec_config(o, p);
    if (load_stage(b, o, g, &e, ret, err) != 0)
        goto done;
    count_received(o, ret);
    if (!b->fetch)
        ret->ready.read_bytes = atomic_load(&b->total_bytes);
    snprintf(ret->from, sizeof ret->from, "%s", ret->report.n_parts ? ret->report.part[0].name : "memory");
    rc = 0;
done:
    if (b->fetch)
        close_remote(b); /* g is its own */
    else
        gguf_close(g);
    free(p);
    return rc;
}

static int build(struct builder *b, const struct order *o, struct built *ret, struct err *err)
{
    struct held *h = &b->held;
    uint64_t began = now_ms();

    atomic_store(&b->done_bytes, 0);
    atomic_store(&b->total_bytes, 0);
    b->memory_bytes = 0;
    if (make_stage(b, o, ret, err) != 0) {
        publish(b);
        return -1;
    }
    struct stage_thread_options t = {.stage = h->stage, .exec = exec_config(o, &h->params), .team = device_team(h->backend),
                                     .epoch = o->c.epoch, .queue_frames = o->c.window_frames + 16, .wake = b->o.wake, .wake_arg = b->o.wake_arg};
    t.exec.isa = h->isa[0] ? h->isa : NULL;
    if (!(ret->thread = stage_thread_create(&t, err)))
        return -1;
    h->epoch = o->c.epoch;
    publish(b);
    ret->ready.weights_bytes = h->bytes.weights;
    ret->ready.kv_bytes = h->bytes.kv;
    ret->ready.scratch_bytes = h->bytes.scratch + stage_exec_bytes(&t.exec);
    ret->ready.load_ms = now_ms() - began;
    return 0;
}

static void do_build(struct builder *b, const struct order *o)
{
    struct built *r = mem_new(1, sizeof *r, NULL);
    if (!r)
        return;
    r->epoch = o->c.epoch;
    r->stage = o->c.stage;
    r->ready = (struct msg_ready){.epoch = o->c.epoch, .stage = o->c.stage};
    if (build(b, o, r, &r->err) == 0)
        err_clear(&r->err);
    r->memory_bytes = r->err.kind == ERR_MEMORY ? b->memory_bytes : 0;
    if (queue_push(b->results, r, -1) != 0) {
        stage_thread_destroy(r->thread);
        free(r);
    }
    b->o.wake(b->o.wake_arg);
}

static void *work(void *arg)
{
    struct builder *b = arg;
    void *item;
    while (queue_pop(b->orders, &item, -1) == 0) {
        struct order *o = item;
        enum order_kind kind = o->kind;
        stage_thread_destroy(o->old);
        if (kind == ORDER_BUILD && o->number == atomic_load(&b->newest))
            do_build(b, o);
        else if (kind == ORDER_RELEASE && !o->keep_weights)
            drop_all(b);
        free(o);
        if (kind == ORDER_END)
            break;
    }
    return NULL;
}

/* --- the I/O thread's side ---------------------------------------------------------------------------------------------- */

void builder_cache_init(struct builder_cache *c, const char *dir, uint64_t bytes_max)
{
    *c = (struct builder_cache){.dir = dir, .bytes_max = bytes_max};
    pthread_mutex_init(&c->lock, NULL);
}

void builder_cache_fini(struct builder_cache *c)
{
    cache_close(c->cache);
    c->cache = NULL;
    pthread_mutex_destroy(&c->lock);
}

struct builder *builder_create(const struct builder_options *o, struct err *err)
{
    struct builder *b = mem_new(1, sizeof *b, err);
    if (!b)
        return NULL;
    b->o = *o;
    pthread_mutex_init(&b->lock, NULL);
    if (!(b->orders = queue_create(MAX_ORDERS, err)) || !(b->results = queue_create(MAX_ORDERS + 1, err)))
        goto error;
    int rc = pthread_create(&b->thread, NULL, work, b);
    if (rc != 0) {
        err_errno(err, rc, "starting the thread that loads");
        goto error;
    }
    b->started = true;
    return b;
error:
    builder_destroy(b, NULL);
    return NULL;
}

static int give(struct builder *b, struct order *o, struct err *err)
{
    o->number = ++b->n_orders;
    atomic_store(&b->newest, o->number);
    if (queue_push(b->orders, o, 0) == 0)
        return 0;
    free(o);
    return err_set(err, ERR_BUSY, "%d configurations are waiting to be worked off", MAX_ORDERS);
}

int builder_build(struct builder *b, const struct msg_configure *c, struct stage_thread *old, struct err *err)
{
    struct order *o = mem_new(1, sizeof *o, err);
    if (!o)
        return -1;
    cut_short(b, c);
    o->kind = ORDER_BUILD;
    o->old = old;
    o->c = *c;
    snprintf(o->device, sizeof o->device, "%s", c->device);
    snprintf(o->isa, sizeof o->isa, "%s", c->isa);
    for (size_t i = 0; i < c->n_sources; i++) {
        struct fetch_node *to = &o->sources[o->n_sources++];
        snprintf(to->name, sizeof to->name, "%s", c->sources[i].node);
        snprintf(to->address, sizeof to->address, "%s", c->sources[i].address);
        if ((to->has_key = c->sources[i].key != NULL))
            memcpy(to->key, c->sources[i].key, sizeof to->key);
    }
    return give(b, o, err);
}

int builder_release(struct builder *b, bool keep_weights, struct stage_thread *old, struct err *err)
{
    struct order *o = mem_new(1, sizeof *o, err);
    if (!o)
        return -1;
    if (!keep_weights)
        cut_short(b, NULL);
    o->kind = ORDER_RELEASE;
    o->old = old;
    o->keep_weights = keep_weights;
    return give(b, o, err);
}

int builder_result(struct builder *b, struct built *ret)
{
    void *item;
    if (queue_pop(b->results, &item, 0) != 0)
        return 0;
    *ret = *(struct built *)item;
    free(item);
    return 1;
}

void builder_progress(struct builder *b, uint64_t *ret_done, uint64_t *ret_total)
{
    *ret_done = atomic_load(&b->done_bytes);
    *ret_total = atomic_load(&b->total_bytes);
}

enum msg_load_from builder_from(struct builder *b, char *ret, size_t size)
{
    struct source_report report = {0};
    size_t len = 0;
    pthread_mutex_lock(&b->lock);
    bool remote = b->fetch != NULL;
    if (remote && b->source)
        b->source->ops->report(b->source, &report);
    pthread_mutex_unlock(&b->lock);
    snprintf(ret, size, "%s", remote ? "the network" : "disk");
    for (uint32_t i = 0; i < report.n_parts && len < size; i++)
        len += (size_t)snprintf(ret + len, size - len, "%s%s", len ? ", " : "", report.part[i].name);
    return remote ? LOAD_PEER : LOAD_DISK;
}

void builder_destroy(struct builder *b, struct stage_thread *last)
{
    struct order *end;
    struct built r;

    if (!b)
        return;
    if (b->started && (end = mem_new(1, sizeof *end, NULL))) {
        cut_short(b, NULL);
        end->kind = ORDER_END;
        end->old = last;
        atomic_store(&b->newest, UINT64_MAX);
        queue_push(b->orders, end, -1);
        pthread_join(b->thread, NULL);
    }
    while (b->results && builder_result(b, &r))
        stage_thread_destroy(r.thread);
    drop_all(b);
    queue_destroy(b->orders);
    queue_destroy(b->results);
    pthread_mutex_destroy(&b->lock);
    free(b);
}
