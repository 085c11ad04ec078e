/* Every kernel against the scalar ones, bit for bit, over random shapes. On an emulated device; SC_CUDA_DEVICE=1: on a real one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/check_device.h"
#include "tests/cuda/emulated.h"
#include "tests/tap.h"

struct rng rng;
struct cuda *device;
struct kernels scalar;
static struct err err;

static void die(const char *what)
{
    printf("Bail out! %s: %s\n", what, err.text);
    exit(1);
}

bool same_floats(const float *got, const float *want, size_t n, size_t *ret_first)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0 && !(got[i] != got[i] && want[i] != want[i])) {
            *ret_first = i;
            return false;
        }
    return true;
}

/* --- memory of the device -------------------------------------------------------------------------------------------------- */

void *take(size_t bytes)
{
    void *p = (void *)(uintptr_t)cuda_take(device, bytes, "a test", &err);
    if (!p)
        die("memory");
    return p;
}

void *take_copy(const void *from, size_t bytes)
{
    void *p = take(bytes);
    if (device->backend.ops->write(&device->backend, p, from, bytes, &err) != 0)
        die("copy");
    return p;
}

void drop(void *p)
{
    device->backend.ops->free(&device->backend, p, 0);
}

void fetch(void *to, const void *from, size_t bytes)
{
    if (device->d->stream_wait(device->stream) != 0 || device->backend.ops->read(&device->backend, to, from, bytes, &err) != 0)
        die("reading back");
}

void launch(void *kernel, uint32_t x, uint32_t y, uint32_t z, uint32_t threads, const void *args)
{
    if (cuda_launch(device, kernel, (uint32_t[]){x, y, z}, threads, args, device->stream, &err) != 0)
        die("launch");
}

/* Activations on the device: rows × k floats, quantized there; and their scalar twins. */
struct operand {
    uint32_t rows, k;
    struct acts host, host16;
    float *f;
    struct cuda_acts acts, acts16;
    uint32_t *n; /* rows, on the device */
};

static struct cuda_acts take_acts(uint32_t rows, uint32_t k, bool low)
{
    size_t groups = (size_t)(rows + CUDA_TILE - 1) / CUDA_TILE * CUDA_TILE * (k / 32);
    struct cuda_acts a = {.q = take(groups * 32), .low = low ? take(groups * 32) : NULL, .scales = take(groups * 8), .sums16 = take(groups * 8)};
    return a;
}

static void drop_acts(struct cuda_acts *a)
{
    drop(a->q);
    drop(a->low);
    drop(a->scales);
    drop(a->sums16);
}

static struct operand take_operand(uint32_t rows, uint32_t k, bool quantized)
{
    struct operand x = {.rows = rows, .k = k};
    x.host = data_acts(&rng, rows, k, 1, scalar.act_tile);
    x.f = take_copy(x.host.f, (size_t)rows * k * 4);
    x.n = take_copy(&rows, sizeof rows);
    if (!quantized)
        return x;
    x.host16 = data_acts16(&rng, rows, k, 1, scalar.act_tile16);
    memcpy((float *)(uintptr_t)x.host16.f, x.host.f, (size_t)rows * k * 4);
    for (uint32_t r = 0; r < rows; r++) {
        scalar.quantize(&x.host, r);
        scalar.quantize(&x.host16, r);
    }
    x.acts = take_acts(rows, k, false);
    x.acts16 = take_acts(rows, k, true);
    struct cuda_quantize q = {.x = x.f, .cols = k, .acts = x.acts, .rows = x.n};
    launch(device->kernels.quantize, rows, (k + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS, 1, CUDA_ROW_THREADS, &q);
    q.acts = x.acts16;
    launch(device->kernels.quantize, rows, (k + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS, 1, CUDA_ROW_THREADS, &q);
    return x;
}

static void drop_operand(struct operand *x)
{
    data_acts_free(&x->host);
    if (x->acts.q) {
        data_acts_free(&x->host16);
        drop_acts(&x->acts);
        drop_acts(&x->acts16);
    }
    drop(x->f);
    drop(x->n);
}

uint8_t *take_weight(const struct weight *w)
{
    const struct backend_ops *op = device->backend.ops;
    size_t bytes = op->weight_bytes(&device->backend, w->type, w->rows, w->cols);
    uint8_t *to = take(bytes * w->mats + 256);
    for (uint32_t m = 0; m < w->mats; m++)
        for (uint32_t r = 0; r < w->rows;) { /* in pieces */
            uint32_t n = 16 * rng_between(&rng, 1, 4);
            n = w->rows - r < n ? w->rows - r : n;
            if (op->weight_put(&device->backend, w->type, (const char *)w->data + m * w->mat_bytes + r * w->row_bytes, r, n, w->cols, to + m * bytes, &err) != 0)
                die("weights");
            r += n;
        }
    if (op->weights_done(&device->backend, &err) != 0)
        die("weights");
    return to;
}

/* --- products --------------------------------------------------------------------------------------------------------------- */

static const char *const paths[] = {"mat1", "mat2", "prompt"};

/* Products with a matrix of so many rows, by each kernel that takes them. 8-bit and 16-bit activations, with a bias, added. */
static bool check_product(enum quant_type type, uint32_t rows, uint32_t cols, uint32_t act_rows, bool wide, bool bias, bool add)
{
    bool packed = cuda_is_packed(type), good = true;
    struct weight w = data_weight(&rng, type, rows, cols, 1, 0.1f);
    struct operand x = take_operand(act_rows, cols, packed);
    uint8_t *dw = take_weight(&w);
    size_t n = (size_t)act_rows * rows, first;
    float *want = malloc(n * 4), *got = malloc(n * 4), *start = malloc(n * 4), *b = malloc(rows * 4);
    for (size_t i = 0; i < n; i++)
        start[i] = rng_normal(&rng);
    for (uint32_t i = 0; i < rows; i++)
        b[i] = rng_normal(&rng);
    scalar.mat[LAYOUT_FILE][type](&w, 0, 0, rows, packed && wide ? &x.host16 : &x.host, want, rows);
    for (size_t i = 0; i < n; i++) {
        want[i] = bias ? want[i] + b[i % rows] : want[i];
        want[i] = add ? start[i] + want[i] : want[i];
    }
    float *out = take(n * 4), *db = take_copy(b, rows * 4);
    for (int path = 0; path < 3 && good; path++) {
        if ((!packed && path > 0) || (path == 0 && act_rows > 8) || (path == 1 && act_rows > 16))
            continue;
        if (device->backend.ops->write(&device->backend, out, start, n * 4, &err) != 0)
            die("copy");
        if (packed) {
            struct cuda_mat a = {.n_parts = 1, .panels = (rows + 15) / 16, .cols = cols, .add = add, .acts = x.acts, .acts16 = x.acts16, .rows = x.n};
            a.part[0] = (struct cuda_mat_part){.w = dw, .bias = bias ? db : NULL, .out = out, .rows = rows, .out_stride = rows, .wide = wide};
            void *k = path == 0 ? device->kernels.mat1[type] : path == 1 ? device->kernels.mat2[type] : device->kernels.prompt[type];
            launch(k, path == 2 ? (a.panels + 3) / 4 : a.panels, path == 2 ? (act_rows + 63) / 64 : 1, 1, CUDA_THREADS, &a);
        } else {
            struct cuda_float_mat a = {.w = dw, .bias = bias ? db : NULL, .x = x.f, .out = out, .rows_w = rows, .cols = cols, .x_stride = cols, .out_stride = rows,
                                       .add = add, .rows = x.n};
            launch(device->kernels.mat_floats[type], (rows + 31) / 32, (act_rows + 7) / 8, 1, CUDA_THREADS, &a);
        }
        fetch(got, out, n * 4);
        good = same_floats(got, want, n, &first);
        if (!good)
            tap_note("%s, %s: %u x %u, %u rows%s%s%s: row %zu, element %zu: got %a, expected %a", quant_traits(type)->name, packed ? paths[path] : "floats", rows,
                     cols, act_rows, wide ? ", 16 bits" : "", bias ? ", bias" : "", add ? ", added" : "", first / rows, first % rows, (double)got[first],
                     (double)want[first]);
    }
    drop(out);
    drop(db);
    drop(dw);
    drop_operand(&x);
    data_weight_free(&w);
    free(want);
    free(got);
    free(start);
    free(b);
    return good;
}

static void test_products(void)
{
    static const uint32_t heights[] = {1, 2, 7, 8, 9, 16, 17, 33, 65, 130};
    enum { SHAPES = 12 };
    for (uint32_t t = 0; data_next_type(&t); t++) {
        uint32_t block = quant_traits(t)->block, good = 0;
        for (uint32_t i = 0; i < SHAPES; i++) {
            uint32_t cols = block == 1 ? rng_between(&rng, 1, 600) : block * (i == 0 ? 1 : rng_between(&rng, 1, block == 32 ? 34 : 5));
            good += check_product((enum quant_type)t, rng_between(&rng, 1, i % 3 ? 50 : 150), cols, heights[i % 10], rng_below(&rng, 3) == 0, rng_below(&rng, 2),
                                  rng_below(&rng, 2));
        }
        is_int(good, SHAPES, "products of %s: shapes that agree bit for bit", quant_traits(t)->name);
    }
}

/* Kernels that no test runs might be wrong. */
static void check_all_ran(void)
{
    const char *name;
    uint32_t n = 0, idle = 0;
    for (; emulated_kernel(n, &name), name; n++)
        if (emulated_kernel(n, &name) == 0) {
            tap_note("%s never ran", name);
            idle++;
        }
    ok(idle == 0 && (n > 0 || emulated_is_real()), "all of %u kernels ran", n);
}

static void test_device(void)
{
    struct cuda_device found[CUDA_MAX_DEVICES];
    struct cuda_rates rates;
    uint64_t free_now, total;
    char why[128];
    int n = cuda_devices(found, CUDA_MAX_DEVICES, why, sizeof why, &err);
    ok(n >= 1 && found[0].usable && found[0].memory >= found[0].memory_free && found[0].memory_free > 0, "a device is found: %s", n > 0 ? found[0].name : why);
    ok(backend_cuda_memory(&device->backend, &free_now, &total, &err) == 0 && free_now <= total && total == found[0].memory, "its memory");
    ok(backend_cuda_measure(&device->backend, emulated_is_real() ? 1u << 30 : 1 << 16, &rates, &err) == 0 && rates.read > 0 && rates.to_device > 0 &&
           rates.from_device > 0, "its memory is measured");
    if (emulated_is_real())
        tap_note("%s: reads %.0f GB/s, to it %.1f GB/s, from it %.1f GB/s", found[0].name, rates.read / 1e9, rates.to_device / 1e9, rates.from_device / 1e9);
    ok(!backend_cuda_create(&(struct backend_cuda_options){.device = 99, .untested = true}, &err), "a device that is not there: %s", err.text);
    has_str(err.text, "cuda:99", "names it");
    ok(!backend_cuda_create(&(struct backend_cuda_options){0}, &err), "kernels that no device has proved are not used unasked: %s", err.text);
    ok(!device->backend.ops->alloc(&device->backend, (size_t)1 << 50, &err) && err.kind == ERR_MEMORY, "more memory than there is: %s", err.text);
}

int main(void)
{
    const char *seed = getenv("SC_SEED");
    emulated_open(NULL);
    rng.state = seed ? strtoull(seed, NULL, 10) : 7;
    tap_note("seed %llu (SC_SEED)", (unsigned long long)rng.state);
    kernels_init_scalar(&scalar);
    device = (struct cuda *)emulated_backend(false);
    test_device();
    test_products();
    check_rows();
    check_sample();
    check_all_ran();
    backend_destroy(&device->backend);
    is_int(emulated_live(), 0, "nothing is left on the device");
    return tap_done();
}
