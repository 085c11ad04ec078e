/* stagecoach: finds the command, reads its options, runs it, and is the only place that turns an error into words on
 * stderr and an exit status. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/settings.h"
#include "cli/program.h"
#include "cli/pull.h"
#include "cli/ui.h"

enum { HELP_MAX_BYTES = 1 << 18, HELP_MAX_WIDTH = 100, USAGE_STATUS = 2, MAX_COMMANDS = 64 };

static unsigned help_width(void)
{
    unsigned width = ui_width();
    return width < 40 ? 40 : width > HELP_MAX_WIDTH ? HELP_MAX_WIDTH : width;
}

static void overview(struct strbuf *out)
{
    unsigned width = help_width();

    strbuf_puts(out, "Usage: stagecoach COMMAND [OPTION]…\n\n");
    opts_wrap(out, "Runs language models (GGUF files) on your own machines.", 0, 0, width);
    strbuf_puts(out, "\nCommands:\n");
    for (size_t i = 0; i < program_n_commands; i++) {
        strbuf_printf(out, "  %-10s ", program_commands[i]->opts.name);
        opts_wrap(out, program_commands[i]->opts.summary, 13, 13, width);
    }
    strbuf_puts(out, "\n\"stagecoach COMMAND --help\" tells a command's options, with examples.\n"
                     "\nA first answer:\n  stagecoach run -m model.gguf -p \"Once upon a time\"\n  stagecoach chat -m model.gguf\n");
}

static int print(struct strbuf *out)
{
    struct err err;
    int rc = strbuf_check(out, "the text", &err);

    if (rc == 0)
        ui_out(strbuf_str(out), out->len);
    strbuf_fini(out);
    if (rc == 0)
        rc = ui_flush(&err);
    return rc == 0 || err.kind == ERR_CANCELLED ? 0 : 1;
}

static int print_help(const struct command *command)
{
    struct strbuf out;

    strbuf_init(&out, HELP_MAX_BYTES);
    if (command)
        opts_help(&command->opts, "stagecoach", help_width(), &out);
    else
        overview(&out);
    return print(&out);
}

static int unknown_command(const char *name)
{
    const char *names[MAX_COMMANDS] = {"help"}, *near;
    char shown[64];

    for (size_t i = 0; i < program_n_commands && i + 1 < MAX_COMMANDS; i++)
        names[i + 1] = program_commands[i]->opts.name;
    near = opts_nearest(name, names, program_n_commands + 1);
    err_printable(shown, sizeof shown, name, strlen(name));
    ui_say("stagecoach: unknown %s \"%s\"%s%s%s", name[0] == '-' ? "option" : "command", shown, near ? "; did you mean \"" : "",
           near ? near : "", near ? "\"?" : "");
    ui_say("\"stagecoach --help\" lists the commands.");
    return USAGE_STATUS;
}

/* For the build: a man page, of a command or of all. */
static int print_man(const char *name)
{
    const struct command *command = name ? program_find(name) : NULL;
    struct strbuf out;

    if (name && !command)
        return unknown_command(name);
    strbuf_init(&out, HELP_MAX_BYTES);
    opts_man(&program, command ? &command->opts : NULL, &out);
    return print(&out);
}

/* The exit status for a failed command, after telling what failed. */
static int report(const struct command *command, const struct err *err)
{
    if (err->kind == ERR_CANCELLED) {
        if (ui_interrupted())
            ui_die_interrupted();
        return 1; /* whoever read the output has gone: there is nobody to tell */
    }
    ui_error(command->opts.name, err->text);
    if (err->kind == ERR_USAGE)
        ui_say("\"stagecoach %s --help\" tells what it takes.", command->opts.name);
    return err_exit_status(err->kind);
}

static int show_config(const struct command *command, const struct settings *config, const void *values, const struct opts_parsed *parsed)
{
    struct strbuf out;

    strbuf_init(&out, HELP_MAX_BYTES);
    settings_show(config, &command->opts, values, parsed, &out);
    return print(&out);
}

static int read_options(const struct command *command, int argc, char **argv, struct settings *config, void *values, struct opts_parsed *parsed,
                        struct err *err)
{
    if (opts_parse_line(&command->opts, argc, argv, values, parsed, err) != 0)
        return -1;
    if (parsed->help)
        return 0;
    if (settings_apply(config, program.commands, program.n_commands, &command->opts, values, parsed, err) != 0)
        return -1;
    ui_set_color(parsed->color);
    return opts_parse_end(&command->opts, parsed, err);
}

struct fetched {
    void *values;
    char *path;
    struct err *err;
};

/* -m hf:… or https://…: fetched, and named by its file from here on. */
static int fetch_model(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct fetched *f = arg;
    const char **value = (const char **)(void *)((char *)f->values + group->base + o->offset);

    if (group == &opts_common || strcmp(o->name, "model") != 0 || !*value || !pull_is_remote(*value))
        return 0;
    if (!(f->path = mem_new(1, PULL_PATH, f->err)))
        return -1;
    ui_watch_interrupt(true);
    if (pull_model(&(struct pull_options){.from = *value}, f->path, f->err) != 0)
        return -1;
    ui_unwatch_interrupt();
    *value = f->path;
    return 0;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct opts_parsed parsed = {0};
    struct settings config = {0};
    struct err err;
    struct fetched fetched = {.err = &err};
    int status = 0;
    void *values = mem_new(1, command->values_bytes, &err);

    err_clear(&err);
    if (!values)
        return report(command, &err);
    fetched.values = values;
    if (read_options(command, argc, argv, &config, values, &parsed, &err) != 0)
        status = report(command, &err);
    else if (parsed.help)
        status = print_help(command);
    else if (parsed.show_config)
        status = show_config(command, &config, values, &parsed);
    else if (command->fetches_model && opts_for_each(&command->opts, fetch_model, &fetched) != 0)
        status = report(command, &err);
    else if (command->run(values, &parsed, &err) != 0 || ui_flush(&err) != 0)
        status = report(command, &err);
    opts_fini(&command->opts, values, &parsed);
    settings_fini(&config);
    free(fetched.path);
    free(values);
    return status;
}

int main(int argc, char **argv)
{
    const struct command *command;

    ui_init();
    if (argc < 2) {
        struct strbuf out;
        strbuf_init(&out, HELP_MAX_BYTES);
        overview(&out);
        fputs(strbuf_str(&out), stderr);
        strbuf_fini(&out);
        return USAGE_STATUS;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("stagecoach %s\n", PACKAGE_VERSION);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (strcmp(argv[1], "--man") == 0)
        return print_man(argc > 2 ? argv[2] : NULL);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        if (argc < 3)
            return print_help(NULL);
        command = program_find(argv[2]);
        return command ? print_help(command) : unknown_command(argv[2]);
    }
    command = program_find(argv[1]);
    return command ? run_command(command, argc - 1, argv + 1) : unknown_command(argv[1]);
}
