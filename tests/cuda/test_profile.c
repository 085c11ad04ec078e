/* What probes and workers measure of a device, by its own operations: on the emulated one, and on the processors by the very same
 * code. Times tell nothing there; that there are any, of the right things, and that nothing is left does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "tests/cuda/emulated.h"
#include "tests/tap.h"
#include "worker/profile.h"

enum { MS = 1, BYTES = 8 << 20 };

static struct err err;

static bool all_positive(const double per_s[PROFILE_ROWS])
{
    bool good = true;
    for (int k = 0; k < PROFILE_ROWS; k++)
        good = good && per_s[k] > 0 && per_s[k] < 1e18;
    return good;
}

static void test_backend(struct backend *be, const char *name)
{
    static const enum quant_type types[] = {QUANT_Q4_K, QUANT_Q8_0, QUANT_F16};
    double attention[PROFILE_ROWS] = {0};
    struct profile_memory memory;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct profile_rate r = {.type = types[i]};
        bool good = profile_rate(be, MS, &r, &err) == 0 && all_positive(r.per_s);
        ok(good, "%s: products of %s: %.3g, %.3g, %.3g a second", name, quant_traits(types[i])->name,
           r.per_s[0], r.per_s[1], r.per_s[2]);
    }
    bool attends = profile_attention(be, MS, attention, &err) == 0 && all_positive(attention);
    ok(attends, "%s: attention: %.3g, %.3g, %.3g a second", name, attention[0], attention[1],
       attention[2]);
    ok(profile_memory(be, BYTES, MS, &memory, &err) == 0 && memory.read_per_s > 0 &&
           (memory.copy_per_s > 0) == !be->ops->host_memory && (memory.back_per_s > 0) == !be->ops->host_memory,
       "%s: its memory, and copies where it is not the host's", name);
}

static void test_peers(void)
{
    struct backend *a = emulated_backend(false), *b = backend_cuda_create(&(struct backend_cuda_options){.device = 1, .untested = true}, &err),
                   *cpu = backend_cpu_create(1, NULL, &err);
    double per_s = -1;
    bool reaches = profile_peer(a, b, BYTES, &per_s, &err) == 0 && per_s > 0 && emulated_peer_copies() > 0;
    ok(reaches, "from one device to another: %.3g bytes a second", per_s);
    ok(profile_peer(a, cpu, BYTES, &per_s, &err) == 0 && per_s == 0, "the processors are no peer");
    ok(profile_peer(cpu, a, BYTES, &per_s, &err) == 0 && per_s == 0, "and have none");
    backend_destroy(cpu);
    backend_destroy(b);
    backend_destroy(a);
}

/* In a process of its own, since the driver reads its settings once: measures all, and tells how that went. */
static int child(const char *settings)
{
    emulated_open(settings);
    struct backend *be = backend_cuda_create(&(struct backend_cuda_options){.untested = true}, &err);
    struct profile_rate r = {.type = QUANT_Q4_0};
    struct profile_memory memory;
    double attention[PROFILE_ROWS];
    uint64_t before = 0, after = 0, total;
    int rc = be ? 0 : 1;
    if (be)
        backend_cuda_memory(be, &before, &total, &err);
    rc = rc == 0 && profile_rate(be, MS, &r, &err) == 0 && profile_attention(be, MS, attention, &err) == 0 && profile_memory(be, BYTES, MS, &memory, &err) == 0 ? 0 : 1;
    if (be)
        backend_cuda_memory(be, &after, &total, NULL);
    if (rc != 0)
        tap_note("%s: %s", settings, err.text);
    fflush(stdout);
    backend_destroy(be);
    return emulated_live() || before != after ? 2 : rc;
}

static int run(const char *settings)
{
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(child(settings));
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(void)
{
    char settings[64];
    int left = 0, failed = 0;
    if (!getenv("SC_CUDA_DEVICE")) {
        is_int(run("memory=64"), 0, "little memory: all is measured, and given back");
        for (int i = 1; i <= 8; i++) {
            snprintf(settings, sizeof settings, "fail_alloc=%d", i);
            int rc = run(settings);
            failed += rc == 1;
            left += rc != 0 && rc != 1;
        }
        ok(left == 0 && failed > 0, "allocations that fail: a sentence, and nothing is left (%d failed)", failed);
    }
    emulated_open("devices=2");
    struct backend *be = emulated_backend(false), *cpu = backend_cpu_create(2, NULL, &err), *scalar = backend_cpu_create(1, "scalar", &err);
    test_backend(be, "a device");
    test_backend(cpu, "processors");
    test_backend(scalar, "a slow processor");
    backend_destroy(scalar);
    backend_destroy(cpu);
    backend_destroy(be);
    if (!emulated_is_real())
        test_peers();
    is_int(emulated_live(), 0, "nothing is left on the device");
    return tap_done();
}
