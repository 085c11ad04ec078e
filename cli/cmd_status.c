/* stagecoach status: what a server and its cluster are doing, once or as a view that follows it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/control.h"
#include "cli/ui.h"
#include "cli/view.h"

enum { POLL_MS = 200, FRAME_MAX_BYTES = 1 << 20 };

struct values {
    struct control_options control;
    bool json, wait_ready, watch, once;
    int64_t timeout_s;
    double interval_s;
};

static const struct opt options[] = {
    {"watch", 'w', OPT_FLAG, .offset = offsetof(struct values, watch),
     .help = "Look again and again until Ctrl-C, as it does by itself on a terminal: redrawn in place there, else one view after another"},
    {"once", '1', OPT_FLAG, .offset = offsetof(struct values, once), .help = "Look once, on a terminal too"},
    {"interval", 'i', OPT_FLOAT, .arg = "SECONDS", .offset = offsetof(struct values, interval_s), .min = 0.1, .max = 3600, .def = "1",
     .help = "How often it looks"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "Print what /v1/cluster says, for a script; with --watch a line each time"},
    {"wait-ready", 0, OPT_FLAG, .offset = offsetof(struct values, wait_ready), .help = "Wait until the whole pipeline answers, then look once"},
    {"timeout", 0, OPT_INT, .arg = "SECONDS", .offset = offsetof(struct values, timeout_s), .min = 1, .max = 86400, .def = "600",
     .help = "With --wait-ready: how long"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {"Server", control_option_table, offsetof(struct values, control)}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach status", "On a terminal: stages, memory, load and events of your server, followed until Ctrl-C."},
    {"stagecoach status --wait-ready && curl http://127.0.0.1:8080/v1/models", "Goes on once the model is loaded."},
    {"stagecoach status --json | jq .stages", "For a script."},
    {0},
};

/* The server may not be there yet, and may come to be another one. */
static int wait_ready(const struct values *v, struct control_server *s, struct err *err)
{
    double until = ui_seconds() + (double)v->timeout_s;

    while (!ui_interrupted()) {
        int status = 0;
        if (control_pick(&v->control, s, err) != 0)
            return -1;
        struct http_request r = control_request(s, "/health");
        char *body = http_ask(&r, &status, err);
        bool failed = body && strstr(body, "\"failed\"");
        if (body && status != 200)
            err_set(err, ERR_BUSY, "%s is not ready: %.200s", s->url, body);
        free(body);
        if (body && status == 200)
            return 0;
        if (failed || err->kind == ERR_USAGE || err->kind == ERR_CANCELLED)
            return -1;
        if (ui_seconds() >= until)
            return err_wrap(err, "waited %lld s", (long long)v->timeout_s);
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    return err_set(err, ERR_CANCELLED, "interrupted");
}

static json_t *look(const struct control_server *s, struct err *err)
{
    char *body = control_ask(s, "/v1/cluster", NULL, err);
    json_t *o = body ? json_loads(body, 0, NULL) : NULL;

    if (body && !json_is_object(o)) {
        err_set(err, ERR_IO, "%s: what answers there is no Stagecoach", s->url);
        json_decref(o);
        o = NULL;
    }
    free(body);
    return o;
}

/* --- once ---------------------------------------------------------------- */

static void put_json(const json_t *o, size_t flags)
{
    char *text = json_dumps(o, flags | JSON_REAL_PRECISION(9));

    if (text) {
        ui_foreign(text, strlen(text));
        ui_out("\n", 1);
    }
    free(text);
}

static void put_view(const struct view *v, const char *before, struct err *err)
{
    struct strbuf frame;

    strbuf_init(&frame, FRAME_MAX_BYTES);
    strbuf_puts(&frame, before);
    view_draw(v, &frame);
    ui_out(frame.data, frame.len);
    strbuf_fini(&frame);
    ui_flush(err);
}

static int once(const struct values *v, const struct control_server *s, struct err *err)
{
    json_t *now = look(s, err);

    if (!now)
        return -1;
    if (v->json)
        put_json(now, JSON_INDENT(2));
    else
        put_view(&(struct view){.url = s->url, .now = now, .screen = ui_screen()}, "", err);
    json_decref(now);
    return 0;
}

/* --- again and again ----------------------------------------------------- */

static void nap(double seconds)
{
    double until = ui_seconds() + seconds;

    while (!ui_interrupted() && ui_seconds() < until)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* On a terminal's second screen, which is left as it was. */
static void show_frame(const struct values *v, const struct control_server *s, json_t *now, const json_t *before, double seconds, struct err *err)
{
    struct view view = {.url = s->url, .now = now, .before = before, .seconds = seconds, .screen = ui_screen()};
    bool terminal = ui_out_is_terminal();

    if (v->json) {
        put_json(now, JSON_COMPACT);
        ui_flush(err);
        return;
    }
    if (terminal)
        view.height = ui_height();
    put_view(&view, terminal ? "\033[H\033[J" : "", err);
    if (!terminal)
        ui_out("\n", 1);
}

/* Instead of the view: nobody answers, for now. */
static void put_trouble(const char *text)
{
    struct strbuf frame;
    struct screen screen = ui_screen();

    strbuf_init(&frame, FRAME_MAX_BYTES);
    screen_flow(&screen, &frame, "\033[H\033[J", 0, text);
    ui_out(frame.data, frame.len);
    strbuf_fini(&frame);
}

static int follow(const struct values *v, struct control_server *s, struct err *err)
{
    json_t *before = NULL, *now = look(s, err);
    double at = ui_seconds(), last = at;
    bool screen = ui_out_is_terminal() && !v->json;
    int rc = 0;

    if (!now)
        return -1;
    if (screen)
        ui_outf("\033[?1049h\033[?25l");
    while (!ui_interrupted()) {
        err_clear(err);
        if (now) {
            show_frame(v, s, now, before, at - last, err);
            json_decref(before);
            before = now;
            last = at;
        } else if (screen) {
            put_trouble(err->text);
        } else {
            break;
        }
        if (err->kind == ERR_CANCELLED || ui_flush(err) != 0)
            break; /* nobody reads it any more */
        nap(v->interval_s);
        if (ui_interrupted())
            break;
        /* It may have been started anew, elsewhere. */
        if (!(now = look(s, err)) && !ui_interrupted() && control_pick(&v->control, s, &(struct err){0}) == 0)
            now = look(s, err);
        at = ui_seconds();
    }
    if (screen) {
        ui_outf("\033[?25h\033[?1049l");
        if (before)
            put_view(&(struct view){.url = s->url, .now = before, .screen = ui_screen()}, "", &(struct err){0});
    } else if (!ui_interrupted()) {
        rc = -1;
    }
    json_decref(before);
    return rc;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct control_server s;
    bool follows = v->watch || (ui_out_is_terminal() && !v->json && !v->wait_ready && !v->once);
    int rc;

    (void)parsed;
    if (v->watch && v->once)
        return err_set(err, ERR_USAGE, "--watch and --once contradict each other");
    if (control_pick(&v->control, &s, err) != 0)
        return -1;
    ui_watch_interrupt(false);
    if (v->wait_ready && wait_ready(v, &s, err) != 0)
        return -1;
    rc = follows ? follow(v, &s, err) : once(v, &s, err);
    ui_unwatch_interrupt();
    return rc;
}

const struct command cmd_status = {
    .opts = {.name = "status",
             .summary = "Show what a server and its cluster are doing",
             .synopsis = "[--once] [--json] [--wait-ready] [--url URL]",
             .description = "Asks a running server for its state: stages with their memory and how they spend their time, nodes, answers, events. On "
                            "a terminal it follows the server until Ctrl-C, elsewhere it looks once. Fails where no server answers.\n\n"
                            "A narrow terminal, or COLUMNS, takes columns away, the bars first; a number is there whole or not at all. --json has all.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
