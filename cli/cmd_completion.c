/* stagecoach completion: what a shell reads to complete our commands and options. */
#include <string.h>

#include "cli/program.h"
#include "cli/ui.h"

enum { TEXT_MAX_BYTES = 4 << 20 };

struct values {
    char unused;
};

static const struct opt_example examples[] = {
    {"source <(stagecoach completion bash)", "In this shell, or in ~/.bashrc. An installed package brings them along."},
    {"stagecoach completion zsh > ~/.zfunc/_stagecoach", "zsh, where ~/.zfunc is in $fpath before compinit runs."},
    {"stagecoach completion fish > ~/.config/fish/completions/stagecoach.fish", "fish."},
    {0},
};

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    struct strbuf out;
    int rc = -1;

    (void)values;
    for (int i = 0; opts_shells[i]; i++)
        if (strcmp(opts_shells[i], parsed->args[0]) == 0) {
            strbuf_init(&out, TEXT_MAX_BYTES);
            opts_completion(&program, (enum opts_shell)i, &out);
            if ((rc = strbuf_check(&out, "the completion", err)) == 0)
                ui_out(out.data, out.len);
            strbuf_fini(&out);
            return rc;
        }
    return err_set(err, ERR_USAGE, "completions are for bash, zsh and fish; \"%.64s\" is none of them", parsed->args[0]);
}

const struct command cmd_completion = {
    .opts = {.name = "completion",
             .summary = "Print completions for bash, zsh or fish",
             .synopsis = "bash|zsh|fish",
             .description = "Prints what the shell needs to complete commands, options and their values.",
             .min_args = 1,
             .max_args = 1,
             .arg_choices = opts_shells,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
