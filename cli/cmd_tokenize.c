/* stagecoach tokenize: standard input as token ids. */
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/ui.h"
#include "gguf/gguf.h"
#include "text/tokenizer.h"

struct values {
    const char *model;
    bool special, pieces;
};

static const struct opt options[] = {
    {"model", 'm', OPT_STRING, .required = true, .arg = "FILE", .offset = offsetof(struct values, model),
     .help = "GGUF file; a header or a vocabulary is enough"},
    {"special", 0, OPT_FLAG, .offset = offsetof(struct values, special),
     .help = "Add BOS and the like as the model wants them, and read control tokens written out in the text"},
    {"pieces", 0, OPT_FLAG, .offset = offsetof(struct values, pieces), .help = "One token a line, with its spelling in the vocabulary"},
    {0},
};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}};
static const struct opt_example examples[] = {
    {"printf 'Hello world' | stagecoach tokenize -m model.gguf", "The ids of the text alone."},
    {"printf '<|im_start|>user' | stagecoach tokenize -m model.gguf --special --pieces", "What a chat template's output becomes."},
    {0},
};

static void print_pieces(const struct tokenizer *t, const struct token_list *list)
{
    for (size_t i = 0; i < list->len; i++) {
        size_t len = 0;
        const char *s = tokenizer_spelling(t, list->ids[i], &len);
        char shown[2048];
        ui_outf("%d\t%s\n", list->ids[i], err_printable(shown, sizeof shown, s ? s : "", s ? len : 0));
    }
}

static int run(void *values, const struct opts_parsed *parsed, struct err *err)
{
    const struct values *v = values;
    struct token_list list = {0};
    struct tokenizer *t = NULL;
    char *text = NULL;
    size_t len;
    int rc = -1;

    (void)parsed;
    struct gguf *g = gguf_open(v->model, true, err);
    if (!g || !(t = tokenizer_create(g, err)))
        goto done;
    if (!(text = ui_read_file("-", TOKENIZER_MAX_TEXT_BYTES, &len, err)))
        goto done;
    rc = tokenizer_encode(t, text, len, v->special ? TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL : 0, &list, err);
    if (rc != 0)
        goto done;
    if (v->pieces) {
        print_pieces(t, &list);
        goto done;
    }
    for (size_t i = 0; i < list.len; i++)
        ui_outf("%s%d", i ? " " : "", list.ids[i]);
    ui_out("\n", 1);
done:
    token_list_fini(&list);
    free(text);
    tokenizer_destroy(t);
    gguf_close(g);
    return rc;
}

const struct command cmd_tokenize = {
    .opts = {.name = "tokenize",
             .summary = "Turn text into token ids",
             .synopsis = "-m FILE [--special] < TEXT",
             .description = "Reads standard input to its end and prints the ids of its tokens on one line, separated by spaces.",
             .groups = groups,
             .examples = examples},
    .values_bytes = sizeof(struct values),
    .run = run,
};
