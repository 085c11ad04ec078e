/* stagecoach probe: what this machine can do, as a topology file wants to know it. */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

enum { READ_BYTES = 256 << 20, READ_MS = 300, RATE_MS = 60, DISK_MS = 1000, PATH_BYTES = 4096, OUT_MAX_BYTES = 1 << 20, GPU_READ_BYTES = 512 << 20, PEER_BYTES = 64 << 20 };

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

/* What any device was measured to do. */
struct measured {
    struct profile_memory memory;
    double attention[PROFILE_ROWS];
    struct profile_rate rates[PROFILE_MAX_RATES];
    size_t n_rates;
};

struct gpu {
    char name[DEVICE_NAME_BYTES], text[160], why[512]; /* why: it was not measured; "": it was */
    uint64_t memory; /* that may be used */
    struct measured does;
    double peers[CUDA_MAX_DEVICES]; /* bytes a second straight to the i-th GPU; 0: it does not reach, or was not measured */
};

struct report {
    const char *isa;
    unsigned threads;
    double read_one, disk; /* bytes a second; disk 0: not measured */
    char disk_why[512];    /* "": nobody asked */
    struct measured cpu;
    struct gpu gpus[CUDA_MAX_DEVICES];
    int n_gpus;
    char no_gpu[256]; /* why there is none */
};

/* --- measuring ----------------------------------------------------------------------------------------------------------- */

static int measure_one_thread(struct report *r, struct err *err)
{
    struct threadpool *team = threadpool_create(1, err);
    int rc = team ? profile_read(team, READ_BYTES, READ_MS, &r->read_one, err) : -1;
    threadpool_destroy(team);
    return rc;
}

static uint32_t computed_types(void)
{
    uint32_t n = 0;
    for (uint32_t type = 0; type < QUANT_TYPES; type++)
        n += quant_traits(type) && quant_traits(type)->computed;
    return n;
}

static int measure(struct measured *m, struct backend *be, struct ui_progress *bar, struct err *err)
{
    uint32_t total = computed_types() + 2;
    uint64_t bytes = be->ops->host_memory ? READ_BYTES : GPU_READ_BYTES;
    ui_progress(bar, 0, total);
    if (profile_memory(be, bytes, READ_MS, &m->memory, err) != 0)
        return -1;
    ui_progress(bar, 1, total);
    for (uint32_t type = 0; type < QUANT_TYPES && m->n_rates < PROFILE_MAX_RATES; type++) {
        if (!quant_traits(type) || !quant_traits(type)->computed)
            continue;
        struct profile_rate *rate = &m->rates[m->n_rates++];
        rate->type = (enum quant_type)type;
        if (profile_rate(be, RATE_MS, rate, err) != 0)
            return -1;
        ui_progress(bar, 1 + m->n_rates, total);
    }
    return profile_attention(be, RATE_MS, m->attention, err);
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

/* The file to measure the disk with, "" for none; before anything is measured, so that nobody waits for a refusal. */
static int find_file(const struct values *v, char ret[PATH_BYTES], struct err *err)
{
    const char *option = v->file ? "--file" : "--model-dir", *path = v->file ? v->file : v->model_dir;
    char shown[128];
    struct stat st;

    ret[0] = '\0';
    if (!path)
        return 0;
    err_printable(shown, sizeof shown, path, strlen(path));
    if (stat(path, &st) != 0)
        return err_set(err, ERR_USAGE, "%s: %s: %s", option, shown, strerror(errno));
    if (v->file && S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE, "--file: %s is a folder: name a file in it, or give --model-dir, which takes the largest", shown);
    if (v->file && !S_ISREG(st.st_mode))
        return err_set(err, ERR_USAGE, "--file: %s is no ordinary file, so that there is no disk to measure", shown);
    if (!v->file && !S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE, "--model-dir: %s is no folder: --file takes a file", shown);
    if (strlen(path) >= PATH_BYTES)
        return err_set(err, ERR_USAGE, "%s: the path has %zu bytes, at most %d are allowed", option, strlen(path), PATH_BYTES - 1);
    if (v->file)
        memcpy(ret, path, strlen(path) + 1);
    else if (!largest_file(path, ret))
        return err_set(err, ERR_USAGE, "--model-dir: there is no file in %s to measure the disk with: name one by --file", shown);
    if (access(ret, R_OK) != 0)
        return err_set(err, ERR_USAGE, "%s: %s: %s", option, err_printable(shown, sizeof shown, ret, strlen(ret)), strerror(errno));
    return 0;
}

static void measure_disk(struct report *r, const char *path)
{
    struct err err;
    if (path[0] && profile_disk(path, DISK_MS, &r->disk, &err) != 0)
        snprintf(r->disk_why, sizeof r->disk_why, "%s", err.text);
}

static struct backend *open_gpu(const struct gpu *g, const struct values *v, struct err *err)
{
    struct device_list list;
    struct device_options how = {.untested = strcmp(v->cuda, "untested") == 0};
    return device_list_parse(g->name, &list, err) == 0 ? device_open(&list.item[0], &how, err) : NULL;
}

/* A GPU that is there but cannot be used is told of in plain words; the rest is measured all the same. */
static void measure_gpu(struct gpu *g, const struct cuda_device *d, const struct values *v, struct ui_progress *bar)
{
    struct device device = {.kind = DEVICE_CUDA, .index = d->index};
    struct err err;

    *g = (struct gpu){.memory = device_memory_now(&device)};
    snprintf(g->name, sizeof g->name, "cuda:%u", d->index);
    snprintf(g->text, sizeof g->text, "%s, compute capability %u.%u", d->name, d->major, d->minor);
    struct backend *be = open_gpu(g, v, &err);
    if (!be || measure(&g->does, be, bar, &err) != 0)
        snprintf(g->why, sizeof g->why, "%s", err.text);
    backend_destroy(be);
}

/* From each to each: a copy may be faster one way. Opening a GPU takes its time: each is opened once. */
static void measure_peers(struct report *r, const struct values *v)
{
    struct backend *gpu[CUDA_MAX_DEVICES] = {NULL};
    struct err err;
    for (int i = 0; r->n_gpus > 1 && i < r->n_gpus; i++)
        if (!r->gpus[i].why[0] && !(gpu[i] = open_gpu(&r->gpus[i], v, &err)))
            ui_say("%s and others were not measured: %s", r->gpus[i].name, err.text);
    for (int i = 0; i < r->n_gpus; i++)
        for (int k = 0; k < r->n_gpus; k++)
            if (i != k && gpu[i] && gpu[k] && profile_peer(gpu[i], gpu[k], PEER_BYTES, &r->gpus[i].peers[k], &err) != 0)
                ui_say("%s to %s was not measured: %s", r->gpus[i].name, r->gpus[k].name, err.text);
    for (int i = 0; i < r->n_gpus; i++)
        backend_destroy(gpu[i]);
}

static void measure_gpus(struct report *r, const struct values *v, struct ui_progress *bar)
{
    struct cuda_device there[CUDA_MAX_DEVICES];
    struct err err;
    r->n_gpus = cuda_devices(there, CUDA_MAX_DEVICES, r->no_gpu, sizeof r->no_gpu, &err);
    if (r->n_gpus < 0) {
        snprintf(r->no_gpu, sizeof r->no_gpu, "%.250s", err.text);
        r->n_gpus = 0;
    }
    for (int i = 0; i < r->n_gpus; i++)
        measure_gpu(&r->gpus[i], &there[i], v, bar);
    measure_peers(r, v);
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

/* The node's GPUs, as a topology file has them. */
static void say_devices(const struct report *r)
{
    char shown[200];
    bool any = false;
    for (int i = 0; i < r->n_gpus; i++) {
        const struct gpu *g = &r->gpus[i];
        if (g->why[0])
            continue;
        if (!any)
            ui_outf("    devices:\n");
        any = true;
        ui_outf("      \"%s\": {memory: %lluMiB} # %s\n", g->name, (unsigned long long)(g->memory >> 20), err_printable(shown, sizeof shown, g->text, strlen(g->text)));
    }
}

/* With 1, 8 and 512 rows. */
static void say_rates(const double per_s[PROFILE_ROWS])
{
    char buf[32];
    for (int rows = 0; rows < PROFILE_ROWS; rows++)
        ui_outf("%s%s", rows ? ", " : "[", ops_rate(buf, per_s[rows]));
    ui_outf("]");
}

static void say_profile(const struct measured *m, const char *name, const struct report *r, const double *peers)
{
    char buf[32];
    bool any = false;
    ui_outf(strchr(name, ':') ? "      \"%s\": {read: %s" : "      %s: {read: %s", name, bytes_rate(buf, m->memory.read_per_s));
    if (m->memory.copy_per_s > 0)
        ui_outf(", copy: %s", bytes_rate(buf, m->memory.copy_per_s));
    if (m->memory.back_per_s > 0)
        ui_outf(", back: %s", bytes_rate(buf, m->memory.back_per_s));
    for (int i = 0; peers && i < r->n_gpus; i++)
        if (peers[i] > 0) {
            ui_outf("%s\"%s\": %s", any ? ", " : ", peers: {", r->gpus[i].name, bytes_rate(buf, peers[i]));
            any = true;
        }
    ui_outf("%s,\n            attention: ", any ? "}" : "");
    say_rates(m->attention);
    for (size_t i = 0; i < m->n_rates; i++) {
        ui_outf(",\n            %s: ", quant_traits(m->rates[i].type)->name);
        say_rates(m->rates[i].per_s);
    }
    ui_outf("}\n");
}

static void say_yaml(const struct report *r)
{
    char buf[32];
    ui_outf("    # stagecoach probe: %u thread%s, %s", r->threads, r->threads == 1 ? "" : "s", r->isa);
    ui_outf("; one thread reads %s\n", bytes_rate(buf, r->read_one));
    say_devices(r);
    ui_outf("    profile:\n");
    say_profile(&r->cpu, "cpu", r, NULL);
    for (int i = 0; i < r->n_gpus; i++)
        if (!r->gpus[i].why[0])
            say_profile(&r->gpus[i].does, r->gpus[i].name, r, r->gpus[i].peers);
    if (r->disk > 0)
        ui_outf("      disk: %s\n", bytes_rate(buf, r->disk));
}

static json_t *json_rows(const double per_s[PROFILE_ROWS])
{
    json_t *o = json_object();
    for (int rows = 0; rows < PROFILE_ROWS; rows++) {
        char name[16];
        snprintf(name, sizeof name, "%u", profile_rows[rows]);
        json_object_set_new(o, name, json_real(round(per_s[rows])));
    }
    return o;
}

static json_t *json_rates(const struct measured *m)
{
    json_t *o = json_object();
    for (size_t i = 0; i < m->n_rates; i++)
        json_object_set_new(o, quant_traits(m->rates[i].type)->name, json_rows(m->rates[i].per_s));
    return o;
}

static json_t *json_gpu(const struct report *r, const struct gpu *g)
{
    json_t *o = json_pack("{s:s, s:s, s:I, s:b}", "name", g->name, "text", g->text, "memory_bytes", (json_int_t)g->memory, "measured", !g->why[0]);
    json_t *peers = json_object();
    for (int i = 0; i < r->n_gpus; i++)
        if (g->peers[i] > 0)
            json_object_set_new(peers, r->gpus[i].name, json_real(round(g->peers[i])));
    if (g->why[0])
        json_object_set_new(o, "why", json_string(g->why));
    else
        json_object_update_new(o, json_pack("{s:f, s:f, s:f, s:o, s:o, s:O}", "read", g->does.memory.read_per_s, "to_device", g->does.memory.copy_per_s,
                                            "from_device", g->does.memory.back_per_s, "attention", json_rows(g->does.attention), "rates",
                                            json_rates(&g->does), "peers", peers));
    json_decref(peers);
    return o;
}

static int say_json(const struct report *r, struct err *err)
{
    json_t *gpus = json_array();
    for (int i = 0; i < r->n_gpus; i++)
        json_array_append_new(gpus, json_gpu(r, &r->gpus[i]));
    json_t *o = json_pack("{s:s, s:i, s:{s:f, s:f}, s:o, s:o, s:o}", "isa", r->isa, "threads", (int)r->threads, "read", "one", round(r->read_one), "all",
                          round(r->cpu.memory.read_per_s), "attention", json_rows(r->cpu.attention), "rates", json_rates(&r->cpu), "gpus", gpus);
    if (o && r->disk > 0)
        json_object_set_new(o, "disk", json_real(round(r->disk)));
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the JSON");
    ui_outf("%s\n", text);
    free(text);
    return 0;
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
    uint8_t key[KEY_BYTES];
    struct probe_result r;
    struct keys *k = keydir_open(v->keys, NULL, err);
    struct probe_options o = {.keys = k, .endpoint = k ? keydir_peer(k, "--peer", v->peer, key, err) : NULL, .key = key};
    int rc = o.endpoint ? probe_link(&o, &r, err) : -1;

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
    char disk[PATH_BYTES];
    int rc;

    (void)parsed;
    if (v->peer)
        return measure_link(v, err);
    if (find_file(v, disk, err) != 0)
        return -1;
    if (!(be = backend_cpu_create((unsigned)v->threads, v->isa, err)))
        return -1;
    r.isa = backend_cpu_isa(be);
    r.threads = backend_cpu_threads(be);
    if (ui_err_is_terminal())
        ui_say("measuring memory, products%s: let nothing else run for some seconds", disk[0] ? ", the disk" : "");
    ui_progress_begin(&bar, "measuring", false);
    rc = measure_one_thread(&r, err) == 0 && measure(&r.cpu, be, &bar, err) == 0 ? 0 : -1;
    if (rc == 0)
        measure_disk(&r, disk);
    if (rc == 0)
        measure_gpus(&r, v, &bar);
    ui_progress_end(&bar);
    if (rc == 0 && r.n_gpus == 0)
        ui_say("no GPU: %s", r.no_gpu[0] ? r.no_gpu : "there is none");
    for (int i = 0; rc == 0 && i < r.n_gpus; i++)
        if (r.gpus[i].why[0])
            ui_say("%s (%s) was not measured: %s", r.gpus[i].name, r.gpus[i].text, r.gpus[i].why);
    if (rc == 0 && r.disk_why[0])
        ui_say("%s", r.disk_why);
    if (rc == 0 && v->json)
        rc = say_json(&r, err);
    else if (rc == 0)
        say_yaml(&r);
    backend_destroy(be);
    return rc;
}

const struct command cmd_probe = {
    .opts = {.name = "probe",
             .summary = "Measure what this machine can do",
             .synopsis = "[--model-dir DIR | --peer ADDRESS] [--json]",
             .description = "Measures how fast memory is read, what the kernels multiply in every quantization and do in attention, on the processors and on "
                            "each GPU with its own kernels; copies to and from GPUs, and from one to another; and the disk where a folder or file is given. "
                            "Prints the node's profile as it stands in a topology file; products and attention have three rates: with one row (one answer), "
                            "with 8 rows and with 512 (a prompt); --json has them as operations and bytes a second. Takes some seconds for each device; other "
                            "work on the machine makes it wrong. With --peer: the link to another node instead, as a line for the file's links.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
