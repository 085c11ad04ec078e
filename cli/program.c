/* See program.h. A new command is a row in two lists here. */
#include "config.h"

#include "cli/program.h"

#include <string.h>

const struct command *const program_commands[] = {
    &cmd_run, &cmd_chat, &cmd_eval, &cmd_bench, &cmd_tokenize, &cmd_template, &cmd_inspect,
    &cmd_serve, &cmd_status, &cmd_stop, &cmd_replan, &cmd_drain,
    &cmd_pull, &cmd_doctor, &cmd_plan,
    &cmd_worker, &cmd_probe,
    &cmd_keygen, &cmd_invite,
    &cmd_completion,
};
static const struct opt_command *const tables[] = {
    &cmd_run.opts, &cmd_chat.opts, &cmd_eval.opts, &cmd_bench.opts, &cmd_tokenize.opts, &cmd_template.opts, &cmd_inspect.opts,
    &cmd_serve.opts, &cmd_status.opts, &cmd_stop.opts, &cmd_replan.opts, &cmd_drain.opts,
    &cmd_pull.opts, &cmd_doctor.opts, &cmd_plan.opts,
    &cmd_worker.opts, &cmd_probe.opts,
    &cmd_keygen.opts, &cmd_invite.opts,
    &cmd_completion.opts,
};
const size_t program_n_commands = sizeof program_commands / sizeof *program_commands;
_Static_assert(sizeof tables == sizeof program_commands, "a row in both lists");

static const struct opt_example examples[] = {
    {"stagecoach run -m model.gguf -p \"Once upon a time\"", "Goes on with a text."},
    {"stagecoach chat -m model.gguf", "Talks."},
    {"stagecoach serve -m model.gguf", "Serves OpenAI's API at http://127.0.0.1:8080."},
    {0},
};

static const struct opts_section sections[] = {
    {"Config file", "Options that should hold every time stand in ~/.config/stagecoach/config (or $XDG_CONFIG_HOME/stagecoach/config, or the file that "
                    "--config names; --config none reads no file). A line is the option's long name without dashes, \"=\" and its value; \"#\" "
                    "begins a line of comment. Lines before the first section hold for every command that has such an option, those behind "
                    "[COMMAND] for that one. A flag takes yes or no. An option that may be repeated takes a line for each. \"~/\" begins a path in "
                    "your home folder.\n\n"
                    "    ctx = 8192\n    [serve]\n    listen = 192.168.1.10:8080\n    api-key-file = ~/keys\n\n"
                    "Mistakes are told with file and line."},
    {"Environment", "Every option of a command is also a variable: STAGECOACH_CTX for all commands that have --ctx, STAGECOACH_SERVE_CTX for serve "
                    "alone. Empty ones do not count.\n\n"
                    "The command line wins over variables, variables over the config file, the file over defaults; within both, what names the "
                    "command wins over what does not. --show-config tells where each value comes from.\n\n"
                    "NO_COLOR switches colors off (--color always overrules it). HF_TOKEN is shown to huggingface.co by pull. XDG_CONFIG_HOME, "
                    "XDG_DATA_HOME, XDG_STATE_HOME and XDG_RUNTIME_DIR say where things are kept, as usual."},
    {"Files", "~/.config/stagecoach holds keys (see stagecoach keygen) and the config file, ~/.local/share/stagecoach/models what pull fetched, "
              "~/.local/state/stagecoach what chat remembers."},
    {0},
};

const struct opts_program program = {
    .name = "stagecoach",
    .version = PACKAGE_VERSION,
    .summary = "run language models across your own machines",
    .description = "Runs language models (GGUF files) on your own machines: in one process, in several on one machine, or split over machines as a "
                   "pipeline, so that a model too big for any one of them runs on all together.\n\n"
                   "Results go to standard output, everything else to standard error.",
    .commands = tables,
    .n_commands = sizeof tables / sizeof *tables,
    .examples = examples,
    .sections = sections,
};

const struct command *program_find(const char *name)
{
    for (size_t i = 0; i < program_n_commands; i++)
        if (strcmp(program_commands[i]->opts.name, name) == 0)
            return program_commands[i];
    return NULL;
}
