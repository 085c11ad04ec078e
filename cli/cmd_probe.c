/* stagecoach probe: what this machine can do, as a topology file wants to know it. */
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/strbuf.h"
#include "base/sysinfo.h"
#include "base/threadpool.h"
#include "bulk/probe.h"
#include "cli/command.h"
#include "cli/keydir.h"
#include "cli/ui.h"
#include "kernels/cuda/cuda.h"
#include "kernels/device.h"
#include "topology/topology.h"
#include "worker/profile.h"

enum { READ_BYTES = 256 << 20, READ_MS = 300, RATE_MS = 60, DISK_MS = 1000, PATH_BYTES = 4096, OUT_MAX_BYTES = 1 << 20, GPU_READ_BYTES = 512 << 20 };

struct values {
    bool json;
    const char *cuda;
    const char *model_dir, *file, *isa, *peer, *keys;
    int64_t threads;
};

static const char *const cuda_names[] = {"tested", "untested", NULL};

static const struct opt options[] = {
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "One JSON object with all that was measured"},
    {"model-dir", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, model_dir), .help = "Measure the disk with the largest file in this folder"},
    {"file", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, file), .help = "Measure the disk with this file"},
    {"peer", 0, OPT_STRING, .arg = "ADDRESS", .offset = offsetof(struct values, peer),
     .help = "Measure nothing but the link to the worker or coordinator that listens there: tcp://HOST:PORT, or NAME@tcp://HOST:PORT where several "
             "nodes are trusted. Each of the two must trust the other's key"},
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, keys), .help = "With --peer: this node's keys (default: ~/.config/stagecoach)"},
    {"threads", 't', OPT_INT, .arg = "N", .offset = offsetof(struct values, threads), .min = 1, .max = 1024,
     .help = "Threads that compute (default: one a processor)"},
    {"isa", 0, OPT_STRING, .arg = "CAP", .offset = offsetof(struct values, isa),
     .help = "Best instruction set that may be used, such as scalar (default: the processor's)"},
    {"cuda", 0, OPT_CHOICE, .arg = "WHICH", .offset = offsetof(struct values, cuda), .choices = cuda_names, .def = "tested",
     .help = "Kernels for GPUs that may be used; untested: also those that have never run on a real one of its kind (docs/cuda.md)"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach probe --model-dir ~/models", "Memory, products in every quantization, the disk: lines for a topology file."},
    {"stagecoach probe --json | jq .read", "For a script."},
    {"stagecoach probe --peer tower@tcp://192.168.1.10:7101", "Round trip and rate of the link to tower: a line for the file's links."},
    {0},
};

struct gpu {
    char name[DEVICE_NAME_BYTES], text[160], why[512]; /* why: it was not measured; "": it was */
    uint64_t memory; /* that may be used */
    struct cuda_rates rates;
};

struct report {
    const char *isa;
    unsigned threads;
    double read_one, read_all, attention, disk; /* bytes a second; disk 0: not measured */
    char disk_why[512];              /* "": nobody asked */
    struct profile_rate rates[PROFILE_MAX_RATES];
    size_t n_rates;
    struct gpu gpus[CUDA_MAX_DEVICES];
    int n_gpus;
    char no_gpu[256]; /* why there is none */
};

/* --- measuring ----------------------------------------------------------------------------------------------------------- */

static int measure_read(struct report *r, struct err *err)
{
    for (int all = 0; all < 2; all++) {
        struct threadpool *team = threadpool_create(all ? r->threads : 1, err);
        if (!team)
            return -1;
        int rc = profile_read(team, READ_BYTES, READ_MS, all ? &r->read_all : &r->read_one, err);
        threadpool_destroy(team);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int measure_rates(struct report *r, struct backend *be, struct ui_progress *bar, struct err *err)
{
    uint32_t done = 0, total = 0;
    for (uint32_t type = 0; type < QUANT_TYPES; type++)
        total += quant_traits(type) && quant_traits(type)->computed;
    for (uint32_t type = 0; type < QUANT_TYPES && r->n_rates < PROFILE_MAX_RATES; type++) {
        if (!quant_traits(type) || !quant_traits(type)->computed)
            continue;
        struct profile_rate *rate = &r->rates[r->n_rates++];
        rate->type = (enum quant_type)type;
        if (profile_rate(be, RATE_MS, rate, err) != 0)
            return -1;
        ui_progress(bar, ++done, total);
    }
    return 0;
}

/* The largest file that lies directly in the folder. */
static bool largest_file(const char *dir, char ret[PATH_BYTES])
{
    char path[PATH_BYTES];
    off_t most = 0;
    struct dirent *d;
    struct stat st;
    DIR *folder = opendir(dir);
    while (folder && (d = readdir(folder)))
        if (snprintf(path, sizeof path, "%s/%s", dir, d->d_name) < PATH_BYTES && stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > most) {
            most = st.st_size;
            memcpy(ret, path, PATH_BYTES);
        }
    if (folder)
        closedir(folder);
    return most > 0;
}

static void measure_disk(struct report *r, const struct values *v)
{
    char path[PATH_BYTES];
    struct err err;
    if (!v->file && !v->model_dir)
        return;
    if (v->file ? snprintf(path, sizeof path, "%s", v->file) >= PATH_BYTES : !largest_file(v->model_dir, path))
        snprintf(r->disk_why, sizeof r->disk_why, "there is no file in %s to measure the disk with", v->model_dir ? v->model_dir : "");
    else if (profile_disk(path, DISK_MS, &r->disk, &err) != 0)
        snprintf(r->disk_why, sizeof r->disk_why, "%s", err.text);
}

/* A GPU that is there but cannot be used is told of in plain words; the rest is measured all the same. */
static void measure_gpu(struct gpu *g, const struct cuda_device *d, const struct values *v)
{
    struct device device = {.kind = DEVICE_CUDA, .index = d->index};
    struct device_options how = {.untested = strcmp(v->cuda, "untested") == 0};
    struct err err;

    snprintf(device.name, sizeof device.name, "cuda:%u", d->index);
    *g = (struct gpu){.memory = device_memory_now(&device)};
    snprintf(g->name, sizeof g->name, "%s", device.name);
    snprintf(g->text, sizeof g->text, "%s, compute capability %u.%u", d->name, d->major, d->minor);
    struct backend *be = device_open(&device, &how, &err);
    if (!be || backend_cuda_measure(be, GPU_READ_BYTES < g->memory / 2 ? GPU_READ_BYTES : (size_t)(g->memory / 2), &g->rates, &err) != 0)
        snprintf(g->why, sizeof g->why, "%s", err.text);
    backend_destroy(be);
}

static void measure_gpus(struct report *r, const struct values *v)
{
    struct cuda_device there[CUDA_MAX_DEVICES];
    struct err err;
    r->n_gpus = cuda_devices(there, CUDA_MAX_DEVICES, r->no_gpu, sizeof r->no_gpu, &err);
    if (r->n_gpus < 0) {
        snprintf(r->no_gpu, sizeof r->no_gpu, "%.250s", err.text);
        r->n_gpus = 0;
    }
    for (int i = 0; i < r->n_gpus; i++)
        measure_gpu(&r->gpus[i], &there[i], v);
}

/* --- saying it ----------------------------------------------------------------------------------------------------------- */

/* Three digits, in the unit in which the number is 1 to 999, as a topology file has it. */
static const char *with_unit(char buf[32], double value, const char *const *units)
{
    int i = 0;
    value /= 1e6;
    while (value >= 999.5 && units[i + 1]) {
        value /= 1e3;
        i++;
    }
    snprintf(buf, 32, "%.3g%s", value, units[i]);
    return buf;
}

static const char *bytes_rate(char buf[32], double value)
{
    static const char *const units[] = {"MB/s", "GB/s", "TB/s", NULL};
    return with_unit(buf, value, units);
}

static const char *ops_rate(char buf[32], double value)
{
    static const char *const units[] = {"MOP/s", "GOP/s", "TOP/s", NULL};
    return with_unit(buf, value, units);
}

/* The node's devices, as a topology file has them. */
static void say_devices(const struct report *r)
{
    char buf[32];
    bool any = false;
    for (int i = 0; i < r->n_gpus; i++) {
        const struct gpu *g = &r->gpus[i];
        if (g->why[0])
            continue;
        if (!any)
            ui_outf("    devices:\n");
        any = true;
        ui_outf("      \"%s\": {memory: %lluMiB} # %s\n", g->name, (unsigned long long)(g->memory >> 20), g->text);
    }
    ui_outf("    profile:\n      cpu: {read: %s", bytes_rate(buf, r->read_all));
    ui_outf(", attention: %s", ops_rate(buf, r->attention));
}

static void say_gpu(const struct report *r, const struct gpu *g)
{
    char buf[32], copy[32];
    if (g->why[0])
        return;
    ui_outf("      \"%s\": {read: %s, copy: %s", g->name, bytes_rate(buf, g->rates.read), bytes_rate(copy, g->rates.to_device));
    for (size_t i = 0; i < r->n_rates; i++)
        ui_outf(", %s: %s", quant_traits(r->rates[i].type)->name, ops_rate(buf, cuda_rate_of(&g->rates, r->rates[i].type)));
    ui_outf("}\n");
}

static void say_yaml(const struct report *r)
{
    char buf[32];
    ui_outf("    # stagecoach probe: %u thread%s, %s", r->threads, r->threads == 1 ? "" : "s", r->isa);
    ui_outf("; one thread reads %s\n", bytes_rate(buf, r->read_one));
    say_devices(r);
    for (size_t i = 0; i < r->n_rates; i++) {
        ui_outf(",\n            %s: ", quant_traits(r->rates[i].type)->name);
        for (int rows = 0; rows < PROFILE_ROWS; rows++)
            ui_outf("%s%s", rows ? ", " : "[", ops_rate(buf, r->rates[i].per_s[rows]));
        ui_outf("]");
    }
    ui_outf("}\n");
    for (int i = 0; i < r->n_gpus; i++)
        say_gpu(r, &r->gpus[i]);
    if (r->disk > 0)
        ui_outf("      disk: %s\n", bytes_rate(buf, r->disk));
}

static void say_gpu_json(const struct gpu *g, int i)
{
    json_t *o = json_pack("{s:s, s:s, s:I, s:b}", "name", g->name, "text", g->text, "memory_bytes", (json_int_t)g->memory, "measured", !g->why[0]);
    if (o && g->why[0])
        json_object_set_new(o, "why", json_string(g->why));
    else if (o)
        json_object_update_new(o, json_pack("{s:f, s:f, s:f, s:f, s:f}", "read", g->rates.read, "products", g->rates.products, "floats", g->rates.floats,
                                            "to_device", g->rates.to_device, "from_device", g->rates.from_device));
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    ui_outf("%s%s", i ? "," : "", text ? text : "null");
    free(text);
    json_decref(o);
}

static void say_json(const struct report *r)
{
    ui_outf("{\"isa\":\"%s\",\"threads\":%u,\"read\":{\"one\":%.0f,\"all\":%.0f},\"attention\":%.0f,\"rates\":{", r->isa, r->threads, r->read_one, r->read_all,
            r->attention);
    for (size_t i = 0; i < r->n_rates; i++) {
        ui_outf("%s\"%s\":{", i ? "," : "", quant_traits(r->rates[i].type)->name);
        for (int rows = 0; rows < PROFILE_ROWS; rows++)
            ui_outf("%s\"%u\":%.0f", rows ? "," : "", profile_rows[rows], r->rates[i].per_s[rows]);
        ui_outf("}");
    }
    ui_outf("},\"gpus\":[");
    for (int i = 0; i < r->n_gpus; i++)
        say_gpu_json(&r->gpus[i], i);
    ui_outf("]");
    if (r->disk > 0)
        ui_outf(",\"disk\":%.0f", r->disk);
    ui_outf("}\n");
}

/* --- a link -------------------------------------------------------------------------------------------------------------- */

/* Of a link the file has one rate: the slower direction's. */
static void say_link(const struct probe_result *r, bool json)
{
    struct strbuf out;
    double least = r->up_bps < r->down_bps ? r->up_bps : r->down_bps;

    strbuf_init(&out, OUT_MAX_BYTES);
    if (json) {
        strbuf_printf(&out, "{\"self\":\"%s\",\"peer\":\"%s\",\"rtt_us\":%.1f,\"up\":%.0f,\"down\":%.0f}\n", r->self, r->peer, r->rtt_us, r->up_bps, r->down_bps);
    } else {
        strbuf_printf(&out, "links: # stagecoach probe --peer, encrypted: to %s ", r->peer);
        topology_quantity_text(&out, TOPOLOGY_RATE, r->up_bps);
        strbuf_puts(&out, ", from it ");
        topology_quantity_text(&out, TOPOLOGY_RATE, r->down_bps);
        strbuf_printf(&out, "; of the coordinator's own links write coordinator-NODE\n  %s-%s: {rtt: ", r->self, r->peer);
        topology_quantity_text(&out, TOPOLOGY_TIME_US, r->rtt_us);
        strbuf_puts(&out, ", rate: ");
        topology_quantity_text(&out, TOPOLOGY_RATE, least);
        strbuf_puts(&out, "}\n");
    }
    ui_outf("%s", strbuf_str(&out));
    strbuf_fini(&out);
}

static int measure_link(const struct values *v, struct err *err)
{
    char address[MSG_MAX_ADDRESS + 1];
    uint8_t key[KEY_BYTES];
    struct probe_result r;
    struct keys *k = keydir_open(v->keys, NULL, err);
    struct probe_options o = {.keys = k, .endpoint = address, .key = key};
    int rc = k && keydir_peer(k, "--peer", v->peer, address, key, err) == 0 ? probe_link(&o, &r, err) : -1;

    if (rc == 0)
        say_link(&r, v->json);
    keys_close(k);
    return rc;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    static struct report r;
    const struct values *v = values;
    struct ui_progress bar = {0};
    struct backend *be;
    int rc;

    (void)parsed;
    if (v->peer)
        return measure_link(v, err);
    if (!(be = backend_cpu_create((unsigned)v->threads, v->isa, err)))
        return -1;
    r.isa = backend_cpu_isa(be);
    r.threads = backend_cpu_threads(be);
    if (ui_err_is_terminal())
        ui_say("measuring memory, products%s: let nothing else run for some seconds", v->file || v->model_dir ? ", the disk" : "");
    ui_progress_begin(&bar, "measuring", false);
    rc = measure_read(&r, err) == 0 && measure_rates(&r, be, &bar, err) == 0 ? 0 : -1;
    if (rc == 0)
        rc = profile_attention(be, RATE_MS, &r.attention, err);
    if (rc == 0)
        measure_disk(&r, v);
    if (rc == 0)
        measure_gpus(&r, v);
    ui_progress_end(&bar);
    if (rc == 0 && r.n_gpus == 0)
        ui_say("no GPU: %s", r.no_gpu[0] ? r.no_gpu : "there is none");
    for (int i = 0; rc == 0 && i < r.n_gpus; i++)
        if (r.gpus[i].why[0])
            ui_say("%s (%s) was not measured: %s", r.gpus[i].name, r.gpus[i].text, r.gpus[i].why);
    if (rc == 0 && r.disk_why[0])
        ui_say("%s", r.disk_why);
    if (rc == 0)
        (v->json ? say_json : say_yaml)(&r);
    backend_destroy(be);
    return rc;
}

const struct command cmd_probe = {
    .opts = {.name = "probe",
             .summary = "Measure what this machine can do",
             .synopsis = "[--model-dir DIR | --peer ADDRESS] [--json]",
             .description = "Measures how fast memory is read, by one thread and by all, what the kernels multiply in every quantization, GPUs, and "
                            "the disk where a folder or file is given. Prints the node's profile as it stands in a topology file; a quantization has three "
                            "rates: with one row (one answer), with 8 rows and with 512 (a prompt); --json has them as operations and bytes a second. Takes a few seconds; other work "
                            "on the machine makes it wrong. With --peer: the link to another node instead, as a line for the file's links.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
