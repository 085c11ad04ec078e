/* stagecoach: finds the command, reads its options, runs it, and is the only place that turns an error into words on
 * stderr and an exit status. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/command.h"
#include "cli/ui.h"

enum { HELP_MAX_BYTES = 1 << 18, HELP_MAX_WIDTH = 100, USAGE_STATUS = 2 };

static const struct command *const commands[] = {
    &cmd_run, &cmd_chat, &cmd_eval, &cmd_bench, &cmd_tokenize, &cmd_template, &cmd_inspect,
    &cmd_serve, &cmd_status, &cmd_stop,
    &cmd_plan,
    &cmd_worker, &cmd_probe,
    &cmd_keygen, &cmd_invite,
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->opts.name, name) == 0)
            return commands[i];
    return NULL;
}

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
    for (size_t i = 0; i < N_COMMANDS; i++) {
        strbuf_printf(out, "  %-10s ", commands[i]->opts.name);
        opts_wrap(out, commands[i]->opts.summary, 13, 13, width);
    }
    strbuf_puts(out, "\n\"stagecoach COMMAND --help\" tells a command's options, with examples.\n"
                     "\nA first answer:\n  stagecoach run -m model.gguf -p \"Once upon a time\"\n  stagecoach chat -m model.gguf\n");
}

static int print_help(const struct command *command)
{
    struct strbuf out;
    struct err err;
    int rc;

    strbuf_init(&out, HELP_MAX_BYTES);
    if (command)
        opts_help(&command->opts, "stagecoach", help_width(), &out);
    else
        overview(&out);
    ui_out(strbuf_str(&out), out.len);
    strbuf_fini(&out);
    rc = ui_flush(&err);
    return rc == 0 || err.kind == ERR_CANCELLED ? 0 : 1;
}

static int unknown_command(const char *name)
{
    const char *names[N_COMMANDS + 1] = {"help"}, *near;
    char shown[64];

    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i + 1] = commands[i]->opts.name;
    near = opts_nearest(name, names, N_COMMANDS + 1);
    err_printable(shown, sizeof shown, name, strlen(name));
    ui_say("stagecoach: unknown %s \"%s\"%s%s%s", name[0] == '-' ? "option" : "command", shown, near ? "; did you mean \"" : "",
           near ? near : "", near ? "\"?" : "");
    ui_say("\"stagecoach --help\" lists the commands.");
    return USAGE_STATUS;
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

static int run_command(const struct command *command, int argc, char **argv)
{
    struct opts_parsed parsed = {0};
    struct err err;
    int status = 0;
    void *values = mem_new(1, command->values_bytes, &err);

    err_clear(&err);
    if (!values)
        return report(command, &err);
    if (opts_parse(&command->opts, argc, argv, values, &parsed, &err) != 0)
        status = report(command, &err);
    else if (parsed.help)
        status = print_help(command);
    else if (command->run(values, &parsed, &err) != 0 || ui_flush(&err) != 0)
        status = report(command, &err);
    opts_fini(&command->opts, values, &parsed);
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
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        if (argc < 3)
            return print_help(NULL);
        command = find(argv[2]);
        return command ? print_help(command) : unknown_command(argv[2]);
    }
    command = find(argv[1]);
    return command ? run_command(command, argc - 1, argv + 1) : unknown_command(argv[1]);
}
