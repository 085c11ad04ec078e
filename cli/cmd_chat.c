/* stagecoach chat: a conversation at a terminal, or line by line from a pipe. Lines that begin with "/" are commands. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/opts_text.h"
#include "cli/chat.h"
#include "cli/command.h"
#include "cli/lineedit.h"
#include "cli/local.h"
#include "cli/ui.h"
#include "model/sampler.h"

enum { PATH_BYTES = 4096 };

struct values {
    struct model_options model;
    struct control_options control;
    struct sample_options sample;
    int64_t n;
    const char *system, *once;
    bool history;
};

static const struct opt options[] = {
    {"system", 0, OPT_STRING, .arg = "TEXT", .offset = offsetof(struct values, system), .help = "System message: what the model is told before all"},
    {"once", 0, OPT_STRING, .arg = "TEXT", .offset = offsetof(struct values, once), .help = "Answer this and end"},
    {"history", 0, OPT_FLAG, .offset = offsetof(struct values, history), .def = "yes",
     .help = "Do not keep what is typed (else in ~/.local/state/stagecoach/history)"},
    {0},
};
static const struct opt count_option[] = {
    {"count", 'n', OPT_INT, .arg = "N", .offset = offsetof(struct values, n), .min = -1, .max = 1 << 24, .def = "-1",
     .help = "Most tokens of an answer; -1: until it ends or the context is full"},
    {0},
};
static const struct opt_group groups[] = {
    {"Options", options, 0},
    {"Model", model_option_table, offsetof(struct values, model), .optional = true},
    {"Computing", compute_option_table, offsetof(struct values, model.compute)},
    {"Or a server", control_option_table, offsetof(struct values, control)},
    {"Choosing tokens (/set changes them)", sample_option_table, offsetof(struct values, sample)},
    {"Length (/set too)", count_option, 0},
    {0},
};
static const struct opt_example examples[] = {
    {"stagecoach chat -m model.gguf", "Talks. /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends."},
    {"stagecoach chat", "Talks with the model that your server on this machine serves."},
    {"stagecoach chat --url http://192.168.1.10:8080 --api-key-file keys", "Or another server."},
    {"stagecoach chat -m model.gguf --system \"Answer in French.\" --once \"How are you?\"", "One question, one answer."},
    {0},
};

/* What /set may change. */
static const struct opt_group set_groups[] = {
    {"Choosing tokens", sample_option_table, offsetof(struct values, sample)}, {"Length", count_option, 0}, {0}};
static const struct opt_command set_command = {.name = "/set", .synopsis = "NAME VALUE", .description = "", .groups = set_groups};

struct talk {
    struct values *v;
    struct chat chat;
    struct lineedit *edit;
    bool seeded, terminal;
};

static int ask(struct talk *t, const char *text, bool retry, struct err *err)
{
    struct sample_params params;
    int rc;

    sample_options_get(&t->v->sample, t->seeded, &params);
    if (sample_params_check(&params, t->v->model.model ? local_n_vocab(&t->chat.local) : UINT32_MAX, err) != 0)
        return -1;
    ui_watch_interrupt(!t->terminal);
    if (t->terminal)
        lineedit_hush(t->edit, true);
    if (retry)
        rc = chat_retry(&t->chat, &params, t->v->n, err);
    else
        rc = chat_ask(&t->chat, text, strlen(text), &params, t->v->n, err);
    if (t->terminal)
        lineedit_hush(t->edit, false);
    else
        ui_unwatch_interrupt();
    return rc;
}

/* --- commands ------------------------------------------------------------ */

/* Each returns 0, 1 to end the chat, or -1 and err. */
static int do_new(struct talk *t, const char *arg, struct err *err)
{
    (void)arg, (void)err;
    chat_new(&t->chat);
    ui_say("A new conversation begins.");
    return 0;
}

static int do_system(struct talk *t, const char *arg, struct err *err)
{
    if (*arg) {
        if (chat_set_system(&t->chat, strcmp(arg, "none") == 0 ? "" : arg, err) != 0)
            return -1;
        ui_say("The system message %s, from the next question on.", t->chat.system ? "is set" : "is gone");
        return 0;
    }
    if (t->chat.system)
        ui_say("System message: %s", t->chat.system);
    else
        ui_say("There is no system message; /system TEXT sets one.");
    return 0;
}

enum { SETTING_INDENT = 32 };

static int show_setting(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct talk *t = arg;
    const char *at = (const char *)t->v + group->base + o->offset;
    char value[32] = "-";
    struct strbuf line;

    if (group == &opts_common)
        return 0; /* --help and its like */
    if (o->kind == OPT_FLOAT)
        snprintf(value, sizeof value, "%g", *(const double *)(const void *)at);
    else if (o->kind == OPT_INT)
        snprintf(value, sizeof value, "%lld", (long long)*(const int64_t *)(const void *)at);
    else if (t->seeded)
        snprintf(value, sizeof value, "%llu", (unsigned long long)*(const uint64_t *)(const void *)at);
    strbuf_init(&line, 4096);
    strbuf_printf(&line, "  %-18s %-9s  ", o->name, value);
    opts_wrap(&line, o->help, SETTING_INDENT, SETTING_INDENT, ui_width());
    ui_say("%.*s", (int)line.len - 1, strbuf_str(&line));
    strbuf_fini(&line);
    return 0;
}

static int do_set(struct talk *t, const char *arg, struct err *err)
{
    char name[64];
    size_t len = strcspn(arg, " =");
    const char *value = arg + len + strspn(arg + len, " =");

    if (!*arg) {
        opts_for_each(&set_command, show_setting, t);
        return 0;
    }
    if (len >= sizeof name || !*value)
        return err_set(err, ERR_USAGE, "/set NAME VALUE, such as /set temp 0.7; /set alone lists the names");
    snprintf(name, sizeof name, "%.*s", (int)len, arg);
    if (opts_set(&set_command, name, value, t->v, err) != 0)
        return -1;
    t->seeded |= strcmp(name, "seed") == 0;
    ui_say("%s is %s.", name, value);
    return 0;
}

static void say_speed(const char *what, uint64_t tokens, double speed)
{
    ui_say("  %-22s %8llu tokens, %.1f/s", what, (unsigned long long)tokens, speed);
}

static int do_stats(struct talk *t, const char *arg, struct err *err)
{
    const struct chat *c = &t->chat;
    const struct session *s = c->local.session;
    char weights[32], kv[32];

    (void)arg, (void)err;
    if (s) {
        ui_say("%s: %s of weights, %s of KV cache, %u threads, %s", c->local.name, ui_bytes(weights, sizeof weights, session_weight_bytes(s)),
               ui_bytes(kv, sizeof kv, session_kv_bytes(s)), session_threads(s), session_isa(s));
        ui_say("  %-22s %8u of %u positions", "context", session_length(s, 0), c->local.ctx);
    }
    if (c->server.url[0])
        ui_say("%s at %s, context of %u positions", c->local.name, c->server.url, c->local.ctx);
    ui_say("  %-22s %8zu", "messages", json_array_size(c->messages));
    say_speed("last question, read", c->last.prompt_tokens, gen_prompt_speed(&c->last));
    ui_say("  %-22s %8llu tokens", "  found in the cache", (unsigned long long)c->reused);
    say_speed("last answer", c->last.new_tokens, gen_new_speed(&c->last));
    say_speed("all questions", c->total.prompt_tokens, gen_prompt_speed(&c->total));
    say_speed("all answers", c->total.new_tokens, gen_new_speed(&c->total));
    return 0;
}

static int do_undo(struct talk *t, const char *arg, struct err *err)
{
    (void)arg;
    if (!chat_undo(&t->chat))
        return err_set(err, ERR_USAGE, "nothing was asked yet");
    ui_say("The last question and its answer are forgotten; %zu messages remain.", json_array_size(t->chat.messages));
    return 0;
}

static int do_retry(struct talk *t, const char *arg, struct err *err)
{
    (void)arg;
    return ask(t, NULL, true, err);
}

static int do_save(struct talk *t, const char *arg, struct err *err)
{
    if (!*arg)
        return err_set(err, ERR_USAGE, "/save FILE writes the messages as JSON");
    if (chat_save(&t->chat, arg, err) != 0)
        return -1;
    ui_say("Saved to %s.", arg);
    return 0;
}

static int do_quit(struct talk *t, const char *arg, struct err *err)
{
    (void)t, (void)arg, (void)err;
    return 1;
}

static int do_help(struct talk *t, const char *arg, struct err *err);

static const struct {
    const char *name, *arg, *what;
    int (*run)(struct talk *t, const char *arg, struct err *err);
} commands[] = {
    {"help", "", "this list", do_help},
    {"new", "", "forget the conversation", do_new},
    {"system", "TEXT", "set the system message; \"none\" removes it, nothing shows it", do_system},
    {"set", "NAME VALUE", "temp, top-p, seed, …; nothing lists them", do_set},
    {"undo", "", "forget the last question and its answer", do_undo},
    {"retry", "", "answer the last question once more", do_retry},
    {"stats", "", "speed, context, memory", do_stats},
    {"save", "FILE", "write the messages as JSON", do_save},
    {"quit", "", "end (so does Ctrl-D)", do_quit},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int do_help(struct talk *t, const char *arg, struct err *err)
{
    (void)t, (void)arg, (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++)
        ui_say("  /%-7s %-11s %s", commands[i].name, commands[i].arg, commands[i].what);
    ui_say("Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.\nA message that begins with / is written with two.");
    return 0;
}

static int do_command(struct talk *t, const char *line, struct err *err)
{
    const char *names[N_COMMANDS], *near;
    char name[32];
    size_t len = strcspn(line, " \n");
    const char *arg = line + len + strspn(line + len, " \n");

    snprintf(name, sizeof name, "%.*s", len < sizeof name ? (int)len : (int)sizeof name - 1, line);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(t, arg, err);
        names[i] = commands[i].name;
    }
    char shown[64];
    err_printable(shown, sizeof shown, name, strlen(name));
    near = opts_nearest(name, names, N_COMMANDS);
    return near ? err_set(err, ERR_USAGE, "/%s is no command; did you mean /%s? (/help lists them)", shown, near)
                : err_set(err, ERR_USAGE, "/%s is no command; /help lists them", shown);
}

/* --- the loop ------------------------------------------------------------ */

/* ${XDG_STATE_HOME:-~/.local/state}/stagecoach/history, its folders made; false where there is no home. */
static bool history_path(char *path, size_t size)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;

    if (state && *state == '/')
        n = snprintf(path, size, "%s/stagecoach/history", state);
    else if (home && *home == '/')
        n = snprintf(path, size, "%s/.local/state/stagecoach/history", home);
    else
        return false;
    if (n < 0 || (size_t)n >= size)
        return false;
    for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
        *s = '\0';
        bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
        *s = '/';
        if (!made)
            return false;
    }
    return true;
}

static int take_line(struct talk *t, const char *line, struct err *err)
{
    size_t blank = strspn(line, " \n");

    if (!line[blank])
        return 0;
    lineedit_remember(t->edit, line);
    if (line[blank] == '/' && line[blank + 1] != '/')
        return do_command(t, line + blank + 1, err);
    return ask(t, line[blank] == '/' ? line + blank + 1 : line, false, err);
}

static int loop(struct talk *t, struct err *err)
{
    char prompt[64];
    const char *line;
    int empty, rc = 0;

    snprintf(prompt, sizeof prompt, "%s>%s ", ui_style(UI_GREEN, true), ui_style(UI_PLAIN, true));
    while (rc != 1) {
        switch (lineedit_read(t->edit, prompt, &line, &empty, err)) {
        case LINE_OK:
            rc = take_line(t, line, err);
            break;
        case LINE_INTERRUPT:
            if (empty)
                ui_say("(/quit or Ctrl-D ends)");
            continue;
        case LINE_END:
            return 0;
        case LINE_ERROR:
            return -1;
        }
        if (rc < 0 && err->kind == ERR_CANCELLED)
            return -1;
        if (rc < 0 && !t->terminal)
            return -1; /* a script's next line may rest on this one */
        if (rc < 0)
            ui_say_in(UI_RED, "%s", err->text);
        if (!t->terminal && ui_interrupted())
            return err_set(err, ERR_CANCELLED, "interrupted");
    }
    return 0;
}

static int talk(struct talk *t, struct err *err)
{
    char path[PATH_BYTES];
    const struct values *v = t->v;

    t->edit = lineedit_create(v->history && t->terminal && history_path(path, sizeof path) ? path : NULL, err);
    if (!t->edit)
        return -1;
    if (t->terminal) {
        ui_say("%s, context of %u positions. /help lists the commands, Ctrl-D ends.", t->chat.local.name, t->chat.local.ctx);
        if (t->chat.fallback)
            ui_say("This model has no chat template: it goes on with a dialogue written in plain words.");
        ui_watch_interrupt(false);
    }
    return loop(t, err);
}

/* A model of its own, or a server's? On one command line they contradict each other; else what was said nearer counts, so that a
 * config file's `model` or `api-key-file`, there for other commands too, is in nobody's way. Takes -m back where a server is meant. */
static int choose(struct values *v, const struct opts_parsed *parsed, struct err *err)
{
    static const char *const of_server[] = {"url", "api-key-file", "ca-file"};
    const struct opts_origin *model = opts_origin(parsed, "model");

    for (size_t i = 0; model && i < sizeof of_server / sizeof *of_server; i++) {
        const struct opts_origin *o = opts_origin(parsed, of_server[i]);
        if (!o || (i > 0 && o->rank > 0))
            continue;
        if (model->rank == 0 && o->rank == 0)
            return err_set(err, ERR_USAGE, "-m and --%s contradict each other: a server has its own model", of_server[i]);
        if (o->rank < model->rank)
            v->model.model = NULL;
    }
    return 0;
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct control_server server;
    struct talk t = {.v = values, .seeded = opts_given(parsed, "seed"), .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    int rc;

    if (choose(t.v, parsed, err) != 0)
        return -1;
    if (t.v->model.model)
        rc = chat_open(&t.chat, &t.v->model, t.v->system, err);
    else if ((rc = control_pick(&t.v->control, &server, err)) != 0)
        return -1;
    else if ((rc = chat_open_remote(&t.chat, &server, t.v->system, err)) != 0 && !t.v->control.url && !server.pid)
        err_wrap(err, "neither -m FILE nor --url, and no server of yours runs here");

    if (rc == 0 && t.v->once) {
        t.terminal = false;
        rc = ask(&t, t.v->once, false, err);
        if (rc == 0 && ui_interrupted())
            rc = err_set(err, ERR_CANCELLED, "interrupted");
    } else if (rc == 0) {
        rc = talk(&t, err);
    }
    lineedit_destroy(t.edit);
    chat_close(&t.chat);
    return rc;
}

const struct command cmd_chat = {
    .opts = {.name = "chat",
             .summary = "Talk with a model",
             .synopsis = "[-m FILE | --url URL] [--once TEXT] [OPTION]…",
             .description = "Talks with a model by its own chat template: with one that it loads (-m), or with one that is served: at --url, or by "
                            "your server on this machine. What you type never counts as a control token. Where standard input is no "
                            "terminal, each of its lines is a message. Ctrl-C stops an answer, Ctrl-D ends, /help lists the commands. When the "
                            "context is full, the oldest turns are forgotten.",
             .groups = groups,
             .examples = examples},
    .fetches_model = true,
    .values_bytes = sizeof(struct values),
    .run = run,
};
