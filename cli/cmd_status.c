/* stagecoach status: what a server and its cluster are doing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/control.h"
#include "cli/ui.h"

enum { ASK_MS = 10000, POLL_MS = 200, KEY_FILE_BYTES = 1 << 20 };
static const char usual_url[] = "http://127.0.0.1:8080";

struct values {
    const char *url, *key_file;
    bool json, wait_ready;
    int64_t timeout_s;
};

static const struct opt options[] = {
    {"url", 0, OPT_STRING, .arg = "URL", .offset = offsetof(struct values, url),
     .help = "The server (default: yours on this machine, else http://127.0.0.1:8080)"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "Print what /v1/cluster says, for a script"},
    {"wait-ready", 0, OPT_FLAG, .offset = offsetof(struct values, wait_ready), .help = "Wait until the whole pipeline answers"},
    {"timeout", 0, OPT_INT, .arg = "SECONDS", .offset = offsetof(struct values, timeout_s), .min = 1, .max = 86400, .def = "600",
     .help = "With --wait-ready: how long"},
    {"api-key-file", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, key_file),
     .help = "Ask with the first key of this file"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach status", "State, stages and load of your server."},
    {"stagecoach status --wait-ready && curl http://127.0.0.1:8080/v1/models", "Goes on once the model is loaded."},
    {0},
};

/* The first key of a key file: ret is what `--api-key-file` of serve takes. */
static int read_key(const char *path, char *ret, size_t size, struct err *err)
{
    size_t len;
    char *text = ui_read_file(path, KEY_FILE_BYTES, &len, err);
    int rc = -1;

    if (!text)
        return -1;
    for (char *line = text; rc != 0 && *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char *key = line + strspn(line, " \t");
        size_t n = strcspn(key, "# \t\r\n");
        if (n == 0 || n >= size)
            continue;
        snprintf(ret, size, "%.*s", (int)n, key);
        rc = 0;
    }
    free(text);
    return rc == 0 ? 0 : err_set(err, ERR_INPUT, "%s holds no key", path);
}

static int wait_ready(const struct values *v, const char *url, const char *key, struct err *err)
{
    double until = ui_seconds() + (double)v->timeout_s;
    int status = 0;

    while (!ui_interrupted()) {
        char *body = control_get(url, "/health", key, ASK_MS, &status, err);
        bool failed = body && strstr(body, "\"failed\"");
        if (body && status != 200)
            err_set(err, ERR_BUSY, "%s is not ready: %.200s", url, body);
        free(body);
        if (body && status == 200)
            return 0;
        if (failed || err->kind == ERR_USAGE)
            return -1;
        if (ui_seconds() >= until)
            return err_wrap(err, "waited %lld s", (long long)v->timeout_s);
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    return err_set(err, ERR_CANCELLED, "interrupted");
}

/* --- for people ---------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "-";
}

static double number_of(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static void show_stage(size_t i, const json_t *stage)
{
    const json_t *layers = json_object_get(stage, "layers"), *m = json_object_get(stage, "measured");
    double compute = number_of(m, "compute_us"), all = compute + number_of(m, "bubble_us");
    char bytes[32];

    ui_outf("  stage %zu: %s/%s, layers %d-%d, %s of weights, %.1f ms a batch", i, text_of(stage, "node"), text_of(stage, "device"),
            (int)json_integer_value(json_array_get(layers, 0)), (int)json_integer_value(json_array_get(layers, 1)),
            ui_bytes(bytes, sizeof bytes, (uint64_t)number_of(json_object_get(stage, "bytes"), "weights")), number_of(m, "batch_ms"));
    if (all > 0)
        ui_outf(", computing %.0f%% of the time", 100 * compute / all);
    ui_outf("\n");
}

static void show(const char *url, const json_t *o)
{
    const json_t *requests = json_object_get(o, "requests"), *events = json_object_get(o, "events"), *item;
    size_t i, n = json_array_size(events);

    ui_outf("%s at %s: %s\n", text_of(o, "model"), url, text_of(o, "health"));
    json_array_foreach(json_object_get(o, "stages"), i, item) {
        show_stage(i, item);
    }
    json_array_foreach(json_object_get(o, "nodes"), i, item) {
        if (json_is_integer(json_object_get(item, "stage")))
            continue;
        ui_outf("  node %s: %s%s\n", text_of(item, "name"), text_of(item, "state"),
                json_is_true(json_object_get(item, "standby")) ? ", standby" : "");
    }
    ui_outf("  answers: %.0f open, %.0f served, %.0f failed or cancelled; %.0f tokens\n", number_of(requests, "open"),
            number_of(requests, "served"), number_of(requests, "failed"), number_of(requests, "tokens"));
    for (i = n > 3 ? n - 3 : 0; i < n; i++)
        ui_outf("  %8.1f s  %s\n", number_of(json_array_get(events, i), "at_s"), text_of(json_array_get(events, i), "text"));
}

/* The server's own words about why it refused. */
static int refused(const char *url, int status, const char *body, struct err *err)
{
    json_t *o = json_loads(body, 0, NULL);
    char shown[300];
    const char *message = text_of(json_object_get(o, "error"), "message");

    err_set(err, ERR_IO, "%s answers %d: %s", url, status, err_printable(shown, sizeof shown, message, strlen(message)));
    json_decref(o);
    return -1;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct control_server server;
    const char *url = v->url;
    char key[512];
    int status = 0, rc = -1;

    (void)parsed;
    if (!url)
        url = control_find(NULL, &server, err) == 0 ? server.url : err->kind == ERR_NOT_FOUND ? usual_url : NULL;
    if (!url || (v->key_file && read_key(v->key_file, key, sizeof key, err) != 0))
        return -1;
    ui_watch_interrupt(true);
    if (v->wait_ready && wait_ready(v, url, v->key_file ? key : NULL, err) != 0)
        return -1;
    ui_unwatch_interrupt();
    char *body = control_get(url, "/v1/cluster", v->key_file ? key : NULL, ASK_MS, &status, err);
    if (!body)
        return -1;
    json_t *o = status == 200 ? json_loads(body, 0, NULL) : NULL;
    if (status != 200) {
        refused(url, status, body, err);
    } else if (!o) {
        err_set(err, ERR_IO, "%s: what answers there is no Stagecoach", url);
    } else {
        rc = 0;
        if (v->json)
            ui_out(body, strlen(body));
        else
            show(url, o);
    }
    json_decref(o);
    free(body);
    return rc;
}

const struct command cmd_status = {
    .opts = {.name = "status",
             .summary = "Show what a server and its cluster are doing",
             .synopsis = "[--json] [--wait-ready] [--url URL]",
             .description = "Asks a running server for its state: stages, nodes, answers, the last events. Fails where no server answers.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
