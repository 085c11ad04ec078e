/* Devices by name: what --device and --vram may say, and what comes of it. */
#include <sched.h>
#include <string.h>

#include "kernels/device.h"
#include "tests/tap.h"

enum { NOTES_BYTES = 4096, TASKS = 64 };

static struct err err;

static void test_names(void)
{
    static const struct {
        const char *text;
        unsigned n, parts;
    } good[] = {{"cpu", 1, 0}, {"cpu:0,cpu:1", 2, 2}, {"cpu:3", 1, 4}, {"cuda:0,cpu", 2, 0}, {"cuda:1,cuda:0,cpu:0", 3, 1}, {"cuda:15", 1, 0}};
    static const char *const bad[] = {"", "cpu,", ",cpu", "gpu", "cpu:", "cpu:8", "cpu:01234", "cpu:-1", "cuda", "cuda:", "cuda:16", "cuda:x", "cpu, cuda:0",
                                      "cpu,cpu", "cuda:0,cuda:0", "cpu,cpu:1", "cpu\x1b[2J"};
    struct device_list list;
    char names[128];

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        memset(&list, 0xff, sizeof list);
        ok(device_list_parse(good[i].text, &list, &err) == 0 && list.n == good[i].n, "%s: %u devices", good[i].text, good[i].n);
        ok(list.item[list.n - 1].parts >= good[i].parts && (list.item[list.n - 1].parts > 0) == (good[i].parts > 0), "of at least %u parts",
           good[i].parts);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        list = (struct device_list){.n = 77};
        ok(device_list_parse(bad[i], &list, &err) != 0 && err.kind == ERR_USAGE && list.n == 77, "refused: %s", err.text);
    }
    ok(!strchr(err.text, '\x1b'), "and shown harmlessly");
    device_list_parse("cuda:0,cpu", &list, &err);
    is_str(device_list_names(&list, names, sizeof names), "cuda:0, cpu", "the names again");
    ok(device_find(&list, "cpu") == &list.item[1] && !device_find(&list, "cuda:1"), "one is found by its name");
}

static void test_limits(void)
{
    static const char *const bad[] = {"cuda:0", "cuda:1=1GiB", "cpu:0=1GiB", "cuda:0=much", "=1GiB", ""};
    struct device_list list;

    device_list_parse("cuda:0,cpu:0,cpu:1", &list, &err);
    ok(device_list_limit(&list, "cuda:0=20GiB", &err) == 0 && list.item[0].memory_max == (uint64_t)20 << 30, "a GPU's limit");
    device_list_limit_ram(&list, 1001);
    ok(list.item[0].memory_max == (uint64_t)20 << 30 && list.item[1].memory_max == 500 && list.item[2].memory_max == 500, "parts share --ram");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(device_list_limit(&list, bad[i], &err) != 0 && err.kind == ERR_USAGE, "refused: %s", err.text);
}

static void count(void *arg, uint32_t task, uint32_t thread)
{
    (void)thread;
    ((_Atomic int *)arg)[task]++;
}

static void test_parts(void)
{
    static _Atomic int done[TASKS];
    struct device_options how = {.threads = 5};
    struct device_list list;
    uint32_t revision = 0;
    bool all = true;

    device_list_parse("cpu:0,cpu:1", &list, &err);
    unsigned parts = list.item[0].parts, want = 5 / parts ? 5 / parts : 1;
    is_int(device_threads(&list.item[0], &how), want, "a part has its share of the threads");
    how.threads = 1;
    is_int(device_threads(&list.item[1], &how), 1, "and one at least");
    how.threads = 4;
    struct backend *be = device_open(&list.item[1], &how, &err);
    if (!ok(be != NULL, "a part of the processors is opened"))
        return;
    ok(backend_cpu_is_part(be), "as one");
    is_str(device_numerics(be, &how, &revision), NUMERICS_CPU, "with the processors' bits");
    is_int(revision, NUMERICS_CPU_REVISION, "of this revision");
    threadpool_run(backend_cpu_team(be), count, done, TASKS);
    for (int i = 0; i < TASKS; i++)
        all = all && done[i] == 1;
    ok(all, "its team does every task once");
    ok(device_memory_free(be) > 0, "there is memory");
    backend_destroy(be);
    how.prompt_gemm = GEMM_BLAS;
    if ((be = device_open(&list.item[0], &how, &err)))
        is_str(device_numerics(be, &how, &revision), NUMERICS_CPU_BLAS, "OpenBLAS is another class of bits");
    else
        tap_skip("%s", err.text);
    backend_destroy(be);
}

static void test_auto(void)
{
    struct device_options how = {.threads = 1};
    struct device_list list;
    struct strbuf notes;

    strbuf_init(&notes, NOTES_BYTES);
    ok(device_list_auto(&how, &list, &notes, &err) == 0 && list.n >= 1 && strcmp(list.item[0].name, "cpu") == 0, "what there is: the processors at least");
    ok(list.n > 1 || notes.len > 0, "where no GPU is used it is said why: %.*s", (int)strcspn(strbuf_str(&notes), "\n"), strbuf_str(&notes));
    strbuf_fini(&notes);
}

int main(void)
{
    test_names();
    test_limits();
    test_parts();
    test_auto();
    return tap_done();
}
