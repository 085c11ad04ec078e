/* What the product kernels make of a device: bytes of weights a second at few rows, beside what the device's memory gives; products
 * a second at many. Run by hand, or by ./dev cuda-check: SC_CUDA_DEVICE=1 tests/cuda/bench_device. Random weights are not needed:
 * no kernel's time depends on values. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/device.h"
#include "tests/cuda/emulated.h"
#include "tests/tap.h"

enum { REPEATS = 5, LAUNCHES = 20 };

static struct cuda *device;

static double time_of(void *kernel, const uint32_t grid[3], const struct cuda_mat *a)
{
    void *from, *to;
    struct err err;
    double best = 0;
    device->d->event_create(&from, 0);
    device->d->event_create(&to, 0);
    for (int i = 0; i < REPEATS; i++) {
        float ms = 0;
        device->d->event_record(from, device->stream);
        for (int k = 0; k < LAUNCHES; k++)
            if (cuda_launch(device, kernel, grid, CUDA_THREADS, a, device->stream, &err) != 0) {
                printf("%s\n", err.text);
                return 0;
            }
        device->d->event_record(to, device->stream);
        device->d->event_wait(to);
        device->d->event_ms(&ms, from, to);
        best = best == 0 || ms < best ? ms : best;
    }
    device->d->event_destroy(from);
    device->d->event_destroy(to);
    return best / 1e3 / LAUNCHES;
}

static void measure(enum quant_type type, uint32_t rows, uint32_t cols, uint32_t act_rows, double read)
{
    struct backend *b = &device->backend;
    struct err err;
    size_t weight = b->ops->weight_bytes(b, type, rows, cols), groups = (size_t)(act_rows + 7) / 8 * 8 * (cols / 32);
    size_t bytes = weight + groups * 48 + (size_t)act_rows * rows * 4 + 512;
    char *at = b->ops->alloc(b, bytes, &err), *acts = at + (weight + 255) / 256 * 256;
    uint32_t *n = (uint32_t *)(at + bytes - 64);
    if (!at || b->ops->write(b, n, &act_rows, sizeof act_rows, &err) != 0) {
        printf("%s\n", err.text);
        return;
    }
    struct cuda_mat a = {.n_parts = 1, .panels = (rows + 15) / 16, .cols = cols, .rows = n,
                         .acts = {.q = (int8_t *)acts, .scales = (float *)(acts + groups * 32), .sums16 = (float *)(acts + groups * 40)}};
    a.part[0] = (struct cuda_mat_part){.w = (uint8_t *)at, .out = (float *)(acts + groups * 48), .rows = rows, .out_stride = rows};
    bool prompt = act_rows > CUDA_SMALL_ROWS;
    void *kernel = prompt ? device->kernels.prompt[type] : act_rows > CUDA_TILE ? device->kernels.mat2[type] : device->kernels.mat1[type];
    double s = time_of(kernel, (uint32_t[]){prompt ? (a.panels + 3) / 4 : a.panels, prompt ? (act_rows + 63) / 64 : 1, 1}, &a);
    if (s > 0)
        printf("%-5s %5u x %5u  %3u rows  %8.1f us  %7.1f GB/s (%3.0f%% of reading)  %7.2f TOP/s\n", quant_traits(type)->name, rows, cols, act_rows, s * 1e6,
               (double)weight / s / 1e9, 100 * (double)weight / s / read, 2.0 * rows * cols * act_rows / s / 1e12);
    b->ops->free(b, at, bytes);
}

int main(void)
{
    static const enum quant_type types[] = {QUANT_Q4_K, QUANT_Q6_K, QUANT_Q8_0, QUANT_Q4_0, QUANT_IQ4_XS};
    static const uint32_t shapes[][2] = {{4096, 4096}, {14336, 4096}, {4096, 14336}, {8192, 28672}}, heights[] = {1, 2, 4, 8, 16, 64, 512};
    struct cuda_rates rates;
    struct err err;
    emulated_open(NULL);
    device = (struct cuda *)emulated_backend(true);
    const struct cuda_device *d = backend_cuda_device(&device->backend);
    bool real = emulated_is_real();
    if (backend_cuda_measure(&device->backend, real ? (size_t)2 << 30 : 1 << 16, &rates, &err) != 0) {
        printf("%s\n", err.text);
        return 1;
    }
    printf("%s, compute capability %u.%u, %u multiprocessors: reads %.0f GB/s, copies %.1f GB/s there, %.1f back\n", d->name, d->major, d->minor, d->processors,
           rates.read / 1e9, rates.to_device / 1e9, rates.from_device / 1e9);
    if (real)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
                for (size_t h = 0; h < sizeof heights / sizeof *heights; h++)
                    measure(types[t], shapes[s][0], shapes[s][1], heights[h], rates.read);
    else
        printf("an emulated device's times tell nothing: SC_CUDA_DEVICE=1 takes the machine's own\n");
    backend_destroy(&device->backend);
    return 0;
}
