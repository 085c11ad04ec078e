/* stagecoach doctor: is this machine, and is the cluster, as it should be? */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/doctor.h"
#include "cli/ui.h"

struct values {
    const char *keys, *model_dir, *topology;
    bool json;
};

static const struct opt options[] = {
    {"topology", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, topology), .help = "Look at this cluster's nodes, too"},
    {"model-dir", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, model_dir), .help = "Where models lie (default: the home folder)"},
    {"keys", 0, OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, keys), .help = "This node's keys (default: ~/.config/stagecoach)"},
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "One JSON object, for a script"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach doctor", "This machine."},
    {"stagecoach doctor --topology home.yaml", "The machines of a cluster as well: are they reached, are their keys known?"},
    {"stagecoach doctor --json | jq '.checks[] | select(.verdict != \"pass\")'", "For a script."},
    {0},
};

const char *const doctor_verdicts[] = {"pass", "warn", "fail"};

void doctor_note(struct doctor *d, const char *check, enum doctor_verdict verdict, const char *what_to_do, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err_clean(text, false);
    d->n[verdict]++;
    json_array_append_new(d->checks, json_pack("{s:s, s:s, s:s, s:s?}", "check", check, "verdict", doctor_verdicts[verdict], "text", text, "do", what_to_do));
    if (d->show)
        d->show(verdict, check, text, what_to_do);
}

static void show(enum doctor_verdict verdict, const char *check, const char *text, const char *what_to_do)
{
    static const enum ui_style styles[] = {UI_GREEN, UI_YELLOW, UI_RED};

    ui_outf("%s%s%s  %s: %s\n", ui_style(styles[verdict], true), doctor_verdicts[verdict], ui_style(UI_PLAIN, true), check, text);
    if (what_to_do)
        ui_outf("      %s\n", what_to_do);
    ui_flush(&(struct err){0}); /* some take a while */
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct doctor d = {.keys = v->keys, .model_dir = v->model_dir, .topology = v->topology, .checks = json_array(), .show = v->json ? NULL : show};

    (void)parsed;
    if (!d.checks)
        return err_set(err, ERR_MEMORY, "out of memory");
    doctor_machine(&d);
    doctor_cluster(&d);
    if (v->json) {
        json_t *o = json_pack("{s:O, s:i, s:i, s:i}", "checks", d.checks, "pass", (int)d.n[DOCTOR_PASS], "warn", (int)d.n[DOCTOR_WARN], "fail", (int)d.n[DOCTOR_FAIL]);
        char *text = json_dumps(o, JSON_INDENT(1));
        ui_foreign(text ? text : "{}", text ? strlen(text) : 2);
        ui_out("\n", 1);
        free(text);
        json_decref(o);
    } else {
        ui_outf("%u pass, %u warn, %u fail\n", d.n[DOCTOR_PASS], d.n[DOCTOR_WARN], d.n[DOCTOR_FAIL]);
    }
    json_decref(d.checks);
    return d.n[DOCTOR_FAIL] ? err_set(err, ERR_INPUT, "%u check%s failed", d.n[DOCTOR_FAIL], d.n[DOCTOR_FAIL] == 1 ? "" : "s") : 0;
}

const struct command cmd_doctor = {
    .opts = {.name = "doctor",
             .summary = "Check this machine, and a cluster's, and say what to do",
             .synopsis = "[--topology FILE] [--json]",
             .description = "Looks at processor, memory (WSL2's cap, too), models' folder, kernel, limits, GPU, clock, keys, variables, addresses, ports and "
                            "links, at the nodes of a topology, and at those of your running server. Each check says pass, or warn or fail and what "
                            "to do. Changes nothing.",
             .groups = groups,
             .examples = examples,
             .exit_status = "0 no check failed (some may have warned), 1 one failed, 2 wrong usage."},
    .values_bytes = sizeof(struct values),
    .run = run,
};
