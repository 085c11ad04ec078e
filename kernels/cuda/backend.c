/* NVIDIA's devices: finding, opening, memory. weights.c brings weights there, run.c computes. */
#include "kernels/cuda/cuda.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sysinfo.h"
#include "kernels/cuda/device.h"
#include "kernels/kernels.h"

enum { LEAST_MAJOR = 6, LEAST_MINOR = 1 }; /* the first with dp4a */

/* --- devices ------------------------------------------------------------------------------------------------------------- */

static int attribute(const struct cuda_driver *d, int what, int device)
{
    int ret = 0;
    return d->device_attribute(&ret, what, device) == 0 ? ret : 0;
}

static void judge(const struct cuda_driver *d, struct cuda_device *ret)
{
    ret->usable = false;
    if (ret->major < LEAST_MAJOR || (ret->major == LEAST_MAJOR && ret->minor < LEAST_MINOR))
        snprintf(ret->why, sizeof ret->why, "compute capability %u.%u, and 6.1 is the least that can be used", ret->major, ret->minor);
    else if (!cuda_image() && !d->emulated)
        snprintf(ret->why, sizeof ret->why, "this program was built without CUDA kernels (configure --with-cuda)");
    else
        ret->usable = true;
}

static int describe(const struct cuda_driver *d, int ordinal, struct cuda_device *ret, struct err *err)
{
    int device;
    size_t total = 0, free_now = 0;
    void *context;
    *ret = (struct cuda_device){.index = (unsigned)ordinal};
    if (cuda_check(d, d->device_get(&device, ordinal), err, "cuda:%d", ordinal) != 0 ||
        cuda_check(d, d->device_name(ret->name, sizeof ret->name, device), err, "the name of cuda:%d", ordinal) != 0 ||
        cuda_check(d, d->device_memory(&total, device), err, "the memory of cuda:%d", ordinal) != 0)
        return -1;
    ret->name[sizeof ret->name - 1] = 0;
    ret->memory = total;
    ret->major = (unsigned)attribute(d, CUDA_ATTRIBUTE_MAJOR, device);
    ret->minor = (unsigned)attribute(d, CUDA_ATTRIBUTE_MINOR, device);
    ret->processors = (unsigned)attribute(d, CUDA_ATTRIBUTE_PROCESSORS, device);
    ret->clock_mhz = (unsigned)attribute(d, CUDA_ATTRIBUTE_CLOCK_KHZ, device) / 1000;
    judge(d, ret);
    if (d->context_retain(&context, device) == 0) {
        if (d->context_set(context) == 0 && d->mem_info(&free_now, &total) == 0)
            ret->memory_free = free_now;
        d->context_set(NULL);
        d->context_release(device);
    }
    return 0;
}

int cuda_devices(struct cuda_device *ret, unsigned max, char *ret_why, size_t why_size, struct err *err)
{
    struct err own = {0};
    const struct cuda_driver *d = cuda_driver_open(&own);
    int n = 0;
    if (ret_why && why_size)
        *ret_why = 0;
    if (!d && own.kind == ERR_NOT_FOUND) {
        if (ret_why && why_size)
            snprintf(ret_why, why_size, "%s", own.text);
        return 0;
    }
    if (!d) {
        if (err)
            *err = own;
        return -1;
    }
    if (cuda_check(d, d->device_count(&n), err, "the number of CUDA devices") != 0)
        return -1;
    for (int i = 0; i < n && (unsigned)i < max; i++)
        if (describe(d, i, &ret[i], err) != 0)
            return -1;
    return n;
}

/* --- memory -------------------------------------------------------------------------------------------------------------- */

int cuda_enter(struct cuda *c, struct err *err)
{
    return cuda_check(c->d, c->d->context_set(c->context), err, "cuda:%u", c->device.index);
}

int backend_cuda_memory(struct backend *b, uint64_t *ret_free, uint64_t *ret_total, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    size_t free_now, total;
    if (cuda_enter(c, err) != 0 || cuda_check(c->d, c->d->mem_info(&free_now, &total), err, "the free memory of cuda:%u", c->device.index) != 0)
        return -1;
    *ret_free = free_now;
    *ret_total = total;
    return 0;
}

uint64_t cuda_take(struct cuda *c, size_t bytes, const char *what, struct err *err)
{
    uint64_t at = 0, free_now = 0, total = 0;
    char a[32], b[32], t[32];
    if (cuda_enter(c, err) != 0)
        return 0;
    int rc = c->d->mem_alloc(&at, bytes ? bytes : 1);
    if (rc != CUDA_ERROR_OUT_OF_MEMORY)
        return cuda_check(c->d, rc, err, "%s of memory for %s on cuda:%u", sysinfo_bytes(a, bytes), what, c->device.index) == 0 ? at : 0;
    backend_cuda_memory(&c->backend, &free_now, &total, NULL);
    err_set(err, ERR_MEMORY, "%s asked for %s, cuda:%u (%s) has %s free of %s; give it fewer layers, a shorter context, or a smaller quantization", what,
            sysinfo_bytes(a, bytes), c->device.index, c->device.name, sysinfo_bytes(b, free_now), sysinfo_bytes(t, total));
    return 0;
}

static void *op_alloc(struct backend *b, size_t bytes, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    uint64_t at = cuda_take(c, bytes, "a buffer", err);
    if (!at)
        return NULL;
    pthread_mutex_lock(&c->lock);
    int rc = c->d->set_bytes(at, 0, bytes ? bytes : 1, c->copies);
    rc = rc ? rc : c->d->stream_wait(c->copies);
    pthread_mutex_unlock(&c->lock);
    if (cuda_check(c->d, rc, err, "clearing memory of cuda:%u", c->device.index) != 0) {
        c->d->mem_free(at);
        at = 0;
    }
    return (void *)(uintptr_t)at;
}

static void op_free(struct backend *b, void *p, size_t bytes)
{
    struct cuda *c = (struct cuda *)b;
    (void)bytes;
    if (p && cuda_enter(c, NULL) == 0)
        c->d->mem_free((uint64_t)(uintptr_t)p);
}

static int op_write(struct backend *b, void *to, const void *from, size_t bytes, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    if (bytes == 0)
        return 0;
    if (cuda_enter(c, err) != 0)
        return -1;
    pthread_mutex_lock(&c->lock); /* streams are one thread's at a time */
    int rc = c->d->copy_to_device((uint64_t)(uintptr_t)to, from, bytes, c->copies);
    rc = rc ? rc : c->d->stream_wait(c->copies);
    pthread_mutex_unlock(&c->lock);
    return cuda_check(c->d, rc, err, "copying %zu bytes to cuda:%u", bytes, c->device.index);
}

static int op_read(struct backend *b, void *to, const void *from, size_t bytes, struct err *err)
{
    struct cuda *c = (struct cuda *)b;
    if (bytes == 0)
        return 0;
    if (cuda_enter(c, err) != 0)
        return -1;
    pthread_mutex_lock(&c->lock);
    int rc = c->d->copy_from_device(to, (uint64_t)(uintptr_t)from, bytes, c->copies);
    rc = rc ? rc : c->d->stream_wait(c->copies);
    pthread_mutex_unlock(&c->lock);
    return cuda_check(c->d, rc, err, "copying %zu bytes from cuda:%u", bytes, c->device.index);
}

/* Asked of the driver, which opens the way as well. */
static bool op_reaches(struct backend *from, struct backend *to)
{
    struct cuda *a = (struct cuda *)from, *b = (struct cuda *)to;
    int here, there, can = 0;
    if (!backend_is_cuda(to) || a->device.index == b->device.index || a->d->device_get(&here, (int)a->device.index) != 0 ||
        a->d->device_get(&there, (int)b->device.index) != 0 || a->d->can_peer(&can, here, there) != 0 || !can || cuda_enter(a, NULL) != 0)
        return false;
    int rc = a->d->peer_enable(b->context, 0);
    return rc == 0 || rc == CUDA_ERROR_PEER_ENABLED;
}

/* --- what lies where ------------------------------------------------------------------------------------------------------ */

bool cuda_is_packed(enum quant_type type)
{
    return (unsigned)type < CUDA_FORMS && cuda_forms[type].group != 0;
}

static enum weight_layout op_weight_layout(struct backend *b, enum quant_type type)
{
    (void)b;
    return cuda_is_packed(type) ? LAYOUT_CUDA : LAYOUT_FILE;
}

static size_t op_weight_bytes(struct backend *b, enum quant_type type, uint32_t rows, uint32_t cols)
{
    (void)b;
    if (!cuda_is_packed(type))
        return (size_t)quant_bytes(type, cols) * rows;
    return (size_t)((rows + CUDA_PANEL - 1) / CUDA_PANEL) * CUDA_PANEL_BYTES(cuda_forms[type], cols);
}

static size_t op_kv_block_bytes(const struct attention *attn, enum kv_type type)
{
    return kv_layout_of(attn, type).head_bytes * attn->n_kv_heads; /* the CPU's own */
}

static void op_kv_copy(struct backend *b, const struct kv_view *kv, uint32_t from, uint32_t to)
{
    struct cuda *c = (struct cuda *)b;
    uint64_t base = (uint64_t)(uintptr_t)kv->base;
    if (from == to)
        return;
    int rc = c->d->context_set(c->context);
    rc = rc ? rc : c->d->copy_within(base + to * kv->block_bytes, base + from * kv->block_bytes, kv->block_bytes, c->stream);
    c->copies_failed = c->copies_failed ? c->copies_failed : rc;
}

/* --- launching ------------------------------------------------------------------------------------------------------------ */

int cuda_launch(struct cuda *c, void *kernel, const uint32_t grid[3], uint32_t threads, const void *args, void *stream, struct err *err)
{
    void *params[] = {(void *)(uintptr_t)args};
    int rc = c->d->launch(kernel, grid[0], grid[1], grid[2], threads, 1, 1, 0, stream, params, NULL);
    return cuda_check(c->d, rc, err, "a kernel of %u x %u x %u blocks on cuda:%u", grid[0], grid[1], grid[2], c->device.index);
}

static int find(struct cuda *c, void **ret, struct err *err, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static int find(struct cuda *c, void **ret, struct err *err, const char *fmt, ...)
{
    char name[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    for (char *p = name; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return cuda_check(c->d, c->d->module_function(ret, c->module, name), err, "kernel %s", name);
}

static int find_kernels(struct cuda *c, struct err *err)
{
    static const char *const kv[KV_TYPES] = {[KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0"};
    struct cuda_kernels *k = &c->kernels;
#define CUDA_KERNEL(name)                              \
    if (find(c, &k->name, err, "sc_" #name) != 0)      \
        return -1;
    CUDA_KERNELS(CUDA_KERNEL)
#undef CUDA_KERNEL
    for (unsigned t = 0; t < CUDA_FORMS; t++) {
        const struct quant_traits *traits = quant_traits(t);
        if (!traits || !traits->computed)
            continue;
        if (!cuda_forms[t].group) {
            if (find(c, &k->mat_floats[t], err, "sc_mat_%s", traits->name) != 0)
                return -1;
        } else if (find(c, &k->mat1[t], err, "sc_mat1_%s", traits->name) != 0 || find(c, &k->mat2[t], err, "sc_mat2_%s", traits->name) != 0 ||
                   find(c, &k->prompt[t], err, "sc_prompt_%s", traits->name) != 0) {
            return -1;
        }
    }
    for (int t = 0; t < KV_TYPES; t++)
        for (int i = 0; i < 3; i++)
            if (find(c, &k->attend[t][i], err, "sc_attend%d_%s", i == 0 ? 1 : 4 * i, kv[t]) != 0)
                return -1;
    return 0;
}

/* --- opening -------------------------------------------------------------------------------------------------------------- */

static void op_destroy(struct backend *b)
{
    struct cuda *c = (struct cuda *)b;
    if (c->context && cuda_enter(c, NULL) == 0) {
        cuda_weights_done(b, NULL);
        cublas_close(c->blas);
        if (c->stream)
            c->d->stream_destroy(c->stream);
        if (c->copies)
            c->d->stream_destroy(c->copies);
        if (c->module)
            c->d->module_unload(c->module);
        c->d->context_set(NULL);
    }
    if (c->context)
        c->d->context_release((int)c->device.index);
    pthread_cond_destroy(&c->slot_free);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct backend_ops ops = {
    .name = "cuda",
    .destroy = op_destroy,
    .alloc = op_alloc,
    .free = op_free,
    .weight_layout = op_weight_layout,
    .weight_bytes = op_weight_bytes,
    .weight_put = cuda_weight_put,
    .host_pin = cuda_host_pin,
    .host_unpin = cuda_host_unpin,
    .weights_done = cuda_weights_done,
    .write = op_write,
    .read = op_read,
    .kv_block_bytes = op_kv_block_bytes,
    .kv_copy = op_kv_copy,
    .run_create = cuda_run_create,
    .run_destroy = cuda_run_destroy,
    .run_bytes = cuda_run_bytes,
    .reaches = op_reaches,
};

static int open_device(struct cuda *c, const struct backend_cuda_options *o, struct err *err)
{
    struct cuda_device found[CUDA_MAX_DEVICES];
    char why[256], name[16];
    int device, n = cuda_devices(found, CUDA_MAX_DEVICES, why, sizeof why, err);
    if (n < 0)
        return -1;
    if (n == 0)
        return err_set(err, ERR_NOT_FOUND, "cuda:%u: %s", o->device, why[0] ? why : "the NVIDIA driver sees no device");
    if (o->device >= (unsigned)n || o->device >= CUDA_MAX_DEVICES)
        return err_set(err, ERR_NOT_FOUND, "cuda:%u: this machine has %d CUDA device%s, cuda:0 to cuda:%d", o->device, n, n == 1 ? "" : "s", n - 1);
    c->device = found[o->device];
    if (!c->device.usable)
        return err_set(err, ERR_UNSUPPORTED, "cuda:%u (%s): %s", o->device, c->device.name, c->device.why);
    if (!o->untested)
        return err_set(err, ERR_UNSUPPORTED, "cuda:%u (%s): these kernels have only run on an emulated device so far, none has shown that they are right; "
                       "--cuda untested uses them all the same", o->device, c->device.name);
    c->d = cuda_driver_open(err);
    if (!c->d || cuda_check(c->d, c->d->device_get(&device, (int)o->device), err, "cuda:%u", o->device) != 0 ||
        cuda_check(c->d, c->d->context_retain(&c->context, device), err, "opening cuda:%u", o->device) != 0 || cuda_enter(c, err) != 0 ||
        cuda_check(c->d, c->d->stream_create(&c->stream, CUDA_STREAM_NON_BLOCKING), err, "a stream on cuda:%u", o->device) != 0 ||
        cuda_check(c->d, c->d->stream_create(&c->copies, CUDA_STREAM_NON_BLOCKING), err, "a stream on cuda:%u", o->device) != 0)
        return -1;
    int rc = c->d->module_load(&c->module, cuda_image());
    if (rc == CUDA_ERROR_NO_BINARY)
        return err_set(err, ERR_UNSUPPORTED, "cuda:%u (%s, compute capability %u.%u): this program has kernels for %s only; build it with a CUDA toolkit "
                       "that knows the device", o->device, c->device.name, c->device.major, c->device.minor, cuda_image_targets());
    if (cuda_check(c->d, rc, err, "loading the kernels on cuda:%u", o->device) != 0 || find_kernels(c, err) != 0)
        return -1;
    snprintf(name, sizeof name, "cuda:%u", o->device);
    return o->blas && !(c->blas = cublas_open(c->stream, name, err)) ? -1 : 0;
}

static pthread_once_t ops_once = PTHREAD_ONCE_INIT;

static void fill_ops(void)
{
    cuda_run_ops(&ops);
}

struct backend *backend_cuda_create(const struct backend_cuda_options *o, struct err *err)
{
    struct cuda *c = mem_new(1, sizeof *c, err);
    if (!c)
        return NULL;
    pthread_once(&ops_once, fill_ops);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->slot_free, NULL);
    c->backend.ops = &ops;
    c->no_graphs = o->no_graphs;
    if (open_device(c, o, err) != 0) {
        op_destroy(&c->backend);
        return NULL;
    }
    return &c->backend;
}

bool backend_is_cuda(const struct backend *b)
{
    return b->ops == &ops;
}

const struct cuda_device *backend_cuda_device(const struct backend *b)
{
    return &((const struct cuda *)b)->device;
}
