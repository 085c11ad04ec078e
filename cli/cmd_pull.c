/* stagecoach pull: fetches a model. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/pull.h"
#include "cli/ui.h"

struct values {
    const char *dir, *ca_file;
    struct opt_list sha256;
};

static const struct opt options[] = {
    {"dir", 'd', OPT_STRING, .arg = "DIR", .offset = offsetof(struct values, dir),
     .help = "Put it there (default: ~/.local/share/stagecoach/models, in a folder for where it comes from)"},
    {"sha256", 0, OPT_LIST, .arg = "HEX", .offset = offsetof(struct values, sha256),
     .help = "What its hash must be, for each part in order (default: as the hub says, if it does)"},
    {"ca-file", 0, OPT_STRING, .arg = "FILE", .offset = offsetof(struct values, ca_file),
     .help = "Trust servers with certificates of these authorities (default: the system's)"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach pull hf:someone/some-model-GGUF:some-model-Q4_K_M.gguf", "From the hub; prints the file's path."},
    {"stagecoach pull https://host/model-00001-of-00003.gguf --dir ~/models", "All three parts, from anywhere."},
    {"stagecoach serve -m hf:someone/some-model-GGUF:some-model-Q4_K_M.gguf", "run, chat, serve, eval and bench fetch what is not there yet."},
    {0},
};

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct pull_options o = {.from = parsed->args[0], .dir = v->dir, .ca_file = v->ca_file, .sha256 = v->sha256};
    char path[PULL_PATH];

    ui_watch_interrupt(true);
    if (pull_model(&o, path, err) != 0)
        return -1;
    ui_unwatch_interrupt();
    ui_foreign(path, strlen(path));
    ui_out("\n", 1);
    return 0;
}

const struct command cmd_pull = {
    .opts = {.name = "pull",
             .summary = "Fetch a model",
             .synopsis = "URL|hf:OWNER/REPO:FILE [--dir DIR]",
             .description = "Fetches a GGUF file, of a split model all parts, by URL or from a repository at huggingface.co (HF_ENDPOINT: another hub, "
                            "HF_TOKEN: who asks). What breaks off goes on where it ended, in a later run too. The file gets its name only once it "
                            "is complete and its SHA-256 is what the hub, or --sha256, says.",
             .groups = groups,
             .min_args = 1,
             .max_args = 1,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
