/* stagecoach inspect: what a model file holds. */
#include "base/strbuf.h"
#include "cli/command.h"
#include "cli/ui.h"
#include "gguf/describe.h"
#include "gguf/gguf.h"

enum { DESCRIPTION_MAX_BYTES = 256 << 20 };

struct values {
    bool json;
};

static const struct opt options[] = {
    {"json", 0, OPT_FLAG, .offset = offsetof(struct values, json), .help = "One JSON object, all values in full"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"stagecoach inspect model.gguf", "Metadata, tensors, their types, and the bytes of each layer."},
    {"stagecoach inspect --json model-00001-of-00003.gguf | jq .metadata", "All parts of a split model, for a script."},
    {0},
};

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct gguf *g = gguf_open(parsed->args[0], true, err);
    struct strbuf sb;
    int rc;

    if (!g)
        return -1;
    strbuf_init(&sb, DESCRIPTION_MAX_BYTES);
    rc = gguf_describe(g, v->json, &sb, err);
    if (rc == 0) {
        ui_foreign(strbuf_str(&sb), sb.len);
        if (sb.len && sb.data[sb.len - 1] != '\n')
            ui_out("\n", 1);
    }
    strbuf_fini(&sb);
    gguf_close(g);
    return rc;
}

const struct command cmd_inspect = {
    .opts = {.name = "inspect",
             .summary = "Show what a model file holds",
             .synopsis = "FILE [--json]",
             .description = "Shows a GGUF file's metadata, its tensors with types and shapes, and the bytes of each layer. Only headers are read. "
                            "Of a split model any part stands for all.",
             .groups = groups,
             .min_args = 1,
             .max_args = 1,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
