/* See device.h. */
#include "kernels/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus.h"
#include "base/opts.h"
#include "base/sysinfo.h"
#include "kernels/cuda/cuda.h"

enum { HELPERS_MAX = 8 }; /* beside a GPU */

/* --- names -------------------------------------------------------------------------------------------------------------- */

/* "3" after "cpu:" or "cuda:"; -1: something else. */
static int number_of(const char *text, size_t len, unsigned max)
{
    unsigned long n = 0;
    if (len == 0 || len > 3)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        n = n * 10 + (unsigned long)(text[i] - '0');
    }
    return n < max ? (int)n : -1;
}

static int parse_one(const char *text, size_t len, struct device *d, struct err *err)
{
    char shown[64];
    int n = -1;

    *d = (struct device){.kind = DEVICE_CPU};
    if (len == 3 && memcmp(text, "cpu", 3) == 0) {
        n = 0;
    } else if (len > 4 && memcmp(text, "cpu:", 4) == 0) {
        n = number_of(text + 4, len - 4, DEVICE_PARTS_MAX);
        d->parts = (unsigned)(n + 1);
    } else if (len > 5 && memcmp(text, "cuda:", 5) == 0) {
        n = number_of(text + 5, len - 5, CUDA_MAX_DEVICES);
        d->kind = DEVICE_CUDA;
    }
    if (n < 0)
        return err_set(err, ERR_USAGE, "unknown device \"%s\"; known: cpu, cpu:0 to cpu:%d (parts of the processors), cuda:0 to cuda:%d",
                       err_printable(shown, sizeof shown, text, len), DEVICE_PARTS_MAX - 1, CUDA_MAX_DEVICES - 1);
    d->index = (unsigned)n;
    memcpy(d->name, text, len);
    return 0;
}

/* Parts: as many as the machine has memory nodes, or as many as are named, if those are more. */
static int number_parts(struct device_list *list, struct err *err)
{
    unsigned parts = 0;
    bool whole = false;
    for (unsigned i = 0; i < list->n; i++) {
        parts = list->item[i].parts > parts ? list->item[i].parts : parts;
        whole = whole || (list->item[i].kind == DEVICE_CPU && !list->item[i].parts);
    }
    if (parts && whole)
        return err_set(err, ERR_USAGE, "cpu is all processors and cpu:0 a part of them: name the parts alone, or cpu");
    if (parts && cpus_nodes() > parts)
        parts = cpus_nodes();
    for (unsigned i = 0; i < list->n; i++)
        if (list->item[i].parts)
            list->item[i].parts = parts;
    return 0;
}

int device_list_parse(const char *text, struct device_list *ret, struct err *err)
{
    struct device_list list = {.n = 0};
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ",");
        struct device d;
        if (parse_one(at, len, &d, err) != 0)
            return -1;
        if (device_find(&list, d.name))
            return err_set(err, ERR_USAGE, "device %s is named twice", d.name);
        if (list.n == DEVICE_MAX)
            return err_set(err, ERR_USAGE, "more than %d devices are named", DEVICE_MAX);
        list.item[list.n++] = d;
        at += len;
        if (!*at)
            break;
    }
    if (number_parts(&list, err) != 0)
        return -1;
    *ret = list;
    return 0;
}

int device_list_auto(const struct device_options *how, struct device_list *ret, struct strbuf *notes, struct err *err)
{
    struct cuda_device there[CUDA_MAX_DEVICES];
    char why[256] = "";
    struct err trouble;
    int n = cuda_devices(there, CUDA_MAX_DEVICES, why, sizeof why, &trouble);

    if (device_list_parse("cpu", ret, err) != 0)
        return -1;
    if (n <= 0)
        strbuf_printf(notes, "no GPU is used: %s\n", n < 0 ? trouble.text : why[0] ? why : "there is none");
    for (int i = 0; i < n && ret->n < DEVICE_MAX; i++) {
        struct device d = {.kind = DEVICE_CUDA, .index = there[i].index};
        snprintf(d.name, sizeof d.name, "cuda:%u", d.index);
        struct backend *be = device_open(&d, how, &trouble);
        if (be)
            ret->item[ret->n++] = d;
        else
            strbuf_printf(notes, "not used: %s\n", trouble.text);
        backend_destroy(be);
    }
    return 0;
}

int device_list_limit(struct device_list *list, const char *text, struct err *err)
{
    const char *equals = strchr(text, '=');
    char name[DEVICE_NAME_BYTES] = "", shown[64], names[DEVICE_MAX * DEVICE_NAME_BYTES];
    struct device *d = NULL;

    if (equals && (size_t)(equals - text) < sizeof name)
        memcpy(name, text, (size_t)(equals - text));
    for (unsigned i = 0; i < list->n; i++)
        if (list->item[i].kind != DEVICE_CPU && strcmp(list->item[i].name, name) == 0)
            d = &list->item[i];
    err_printable(shown, sizeof shown, text, strlen(text));
    if (!equals)
        return err_set(err, ERR_USAGE, "\"%s\" is not DEVICE=SIZE, such as cuda:0=20GiB", shown);
    if (!d)
        return err_set(err, ERR_USAGE, "\"%s\": the devices are %s; of processors --ram is the limit", shown,
                       device_list_names(list, names, sizeof names));
    if (opts_size(equals + 1, &d->memory_max, err) != 0)
        return err_wrap(err, "%s", d->name);
    return 0;
}

void device_list_limit_ram(struct device_list *list, uint64_t bytes)
{
    unsigned n = 0;
    for (unsigned i = 0; i < list->n; i++)
        n += list->item[i].kind == DEVICE_CPU;
    for (unsigned i = 0; i < list->n; i++)
        if (list->item[i].kind == DEVICE_CPU)
            list->item[i].memory_max = bytes / n;
}

const struct device *device_find(const struct device_list *list, const char *name)
{
    for (unsigned i = 0; i < list->n; i++)
        if (strcmp(list->item[i].name, name) == 0)
            return &list->item[i];
    return NULL;
}

const char *device_list_names(const struct device_list *list, char *ret, size_t size)
{
    size_t len = 0;
    ret[0] = 0;
    for (unsigned i = 0; i < list->n && len < size; i++)
        len += (size_t)snprintf(ret + len, size - len, "%s%s", i ? ", " : "", list->item[i].name);
    return ret;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

unsigned device_threads(const struct device *d, const struct device_options *how)
{
    unsigned all = how->threads ? how->threads : threadpool_cpus();
    if (d->kind != DEVICE_CPU)
        return all < HELPERS_MAX ? all : HELPERS_MAX;
    if (!d->parts)
        return all;
    if (how->threads)
        return all / d->parts ? all / d->parts : 1;
    int cpus[CPUS_MAX];
    unsigned n = cpus_part(d->index, d->parts, cpus, CPUS_MAX), share = all / d->parts ? all / d->parts : 1;
    return n && n < share ? n : share;
}

struct backend *device_open(const struct device *d, const struct device_options *how, struct err *err)
{
    int cpus[CPUS_MAX];
    struct backend_cpu_options cpu = {.n_threads = device_threads(d, how), .isa = how->isa, .pin = how->pin, .prompt_gemm = how->prompt_gemm,
                                      .keep_file_layout = how->keep_file_layout};
    struct backend_cuda_options cuda = {.device = d->index, .untested = how->untested, .blas = how->prompt_gemm == GEMM_BLAS};

    if (d->kind == DEVICE_CUDA && how->prompt_gemm == GEMM_BLAS_ALL) {
        err_set(err, ERR_USAGE, "--prompt-gemm blas-all: on %s quantized matrices are computed by our own kernels only; use blas, or int8", d->name);
        return NULL;
    }
    if (d->kind == DEVICE_CUDA)
        return backend_cuda_create(&cuda, err);
    if (d->parts) {
        cpu.n_cpus = cpus_part(d->index, d->parts, cpus, CPUS_MAX);
        cpu.cpus = cpus;
    }
    return backend_cpu_create_with(&cpu, err);
}

struct threadpool *device_team(struct backend *be)
{
    return backend_is_cuda(be) ? NULL : backend_cpu_team(be);
}

struct threadpool *device_helpers(const struct device *d, const struct device_options *how, struct err *err)
{
    int cpus[CPUS_MAX];
    struct threadpool_options o = {.n_threads = device_threads(d, how), .pin = THREADPOOL_PIN_NO};
    if (d->parts) {
        o.n_cpus = cpus_part(d->index, d->parts, cpus, CPUS_MAX);
        o.cpus = cpus;
    }
    return threadpool_create_with(&o, err);
}

static uint64_t less_margin(uint64_t bytes)
{
    return bytes > DEVICE_GPU_MARGIN ? bytes - DEVICE_GPU_MARGIN : 0;
}

uint64_t device_memory_free(struct backend *be)
{
    uint64_t free = 0, total = 0;
    if (!backend_is_cuda(be))
        return sysinfo_memory_available();
    if (backend_cuda_memory(be, &free, &total, NULL) != 0)
        return 0;
    return less_margin(free);
}

uint64_t device_memory_now(const struct device *d)
{
    struct cuda_device there[CUDA_MAX_DEVICES];
    int n = d->kind == DEVICE_CUDA ? cuda_devices(there, CUDA_MAX_DEVICES, NULL, 0, NULL) : 0;

    if (d->kind != DEVICE_CUDA)
        return sysinfo_memory_available() / (d->parts ? d->parts : 1);
    for (int i = 0; i < n; i++)
        if (there[i].index == d->index)
            return less_margin(there[i].memory_free ? there[i].memory_free : there[i].memory);
    return 0;
}

const char *device_numerics(const struct backend *be, const struct device_options *how, uint32_t *ret_revision)
{
    if (backend_is_cuda(be)) {
        *ret_revision = NUMERICS_CUDA_REVISION;
        return how->prompt_gemm == GEMM_INT8 ? NUMERICS_CUDA : NUMERICS_CUDA_BLAS;
    }
    *ret_revision = NUMERICS_CPU_REVISION;
    return how->prompt_gemm == GEMM_INT8 ? NUMERICS_CPU : NUMERICS_CPU_BLAS;
}

const char *device_text(const struct backend *be, char *ret, size_t size)
{
    if (backend_is_cuda(be)) {
        const struct cuda_device *d = backend_cuda_device(be);
        snprintf(ret, size, "%s (%u.%u)", d->name, d->major, d->minor);
    } else {
        unsigned n = backend_cpu_threads(be);
        snprintf(ret, size, "%s, %u thread%s", backend_cpu_isa(be), n, n == 1 ? "" : "s");
    }
    return ret;
}
