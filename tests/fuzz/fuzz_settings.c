/* cli/: any text as a config file. Whatever it says, every value is one that its option allows, and a text that is refused is
 * refused by a sentence that names file and line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/settings_inner.h"
#include "tests/fuzz/fuzz.h"

struct values {
    bool flag, on;
    int64_t count;
    uint64_t seed, bytes;
    double share;
    const char *text, *file, *choice;
    struct opt_list list;
};

static const char *const choices[] = {"one", "two", "three", NULL};
static const struct opt options[] = {
    {"flag", 'f', OPT_FLAG, .offset = offsetof(struct values, flag), .help = "-"},
    {"on", 0, OPT_FLAG, .offset = offsetof(struct values, on), .def = "yes", .help = "-"},
    {"ctx", 'c', OPT_INT, .arg = "N", .offset = offsetof(struct values, count), .min = -1, .max = 1000, .def = "7", .help = "-"},
    {"seed", 0, OPT_UINT, .arg = "N", .offset = offsetof(struct values, seed), .help = "-"},
    {"ram", 0, OPT_SIZE, .arg = "SIZE", .offset = offsetof(struct values, bytes), .help = "-"},
    {"top-p", 0, OPT_FLOAT, .arg = "P", .offset = offsetof(struct values, share), .min = 0, .max = 1, .def = "0.5", .help = "-"},
    {"name", 0, OPT_STRING, .arg = "NAME", .offset = offsetof(struct values, text), .help = "-"},
    {"model", 'm', OPT_STRING, .arg = "MODEL", .offset = offsetof(struct values, file), .help = "-"},
    {"kv", 0, OPT_CHOICE, .arg = "TYPE", .offset = offsetof(struct values, choice), .choices = choices, .def = "two", .help = "-"},
    {"allow-host", 0, OPT_LIST, .arg = "NAME", .offset = offsetof(struct values, list), .help = "-"},
    {"child", 0, OPT_INT, .arg = "N", .offset = offsetof(struct values, count), .help = "-", .alone = true},
    {0},
};
static const struct opt few[] = {{"ctx", 0, OPT_STRING, .arg = "TEXT", .offset = 0, .help = "-"}, {0}};
static const struct opt_group groups[] = {{"Options", options, 0}, {0}}, other_groups[] = {{"Options", few, 0}, {0}};
static const struct opt_command serve = {.name = "serve", .synopsis = "", .description = "", .groups = groups},
                                other = {.name = "run", .synopsis = "", .description = "", .groups = other_groups};

static void must(int cond)
{
    if (!cond)
        abort();
}

static void check_values(const struct values *v)
{
    int i = 0;

    must(v->count >= -1 && v->count <= 1000 && v->share >= 0 && v->share <= 1);
    while (choices[i] && v->choice != choices[i])
        i++;
    must(choices[i] != NULL && v->list.len <= OPTS_MAX_LIST);
    for (size_t k = 0; k < v->list.len; k++)
        must(strchr(v->list.items[k], '\n') == NULL);
    must(!v->text || !strchr(v->text, '\n'));
    must(!v->file || v->file[0] != '~' || v->file[1] != '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct opt_command *const commands[] = {&serve, &other};
    char name[] = "serve", *argv[] = {name, NULL};
    struct settings settings = {.path = "file"};
    struct opts_parsed parsed;
    struct values values = {0};
    struct err err;
    struct settings_apply a = {&settings, commands, 2, &serve, &values, &parsed, &err};

    if (memchr(data, '\0', size) || !(settings.text = malloc(size + 1))) /* such a file is refused before */
        return 0;
    if (size)
        memcpy(settings.text, data, size);
    settings.text[size] = '\0';
    setenv("HOME", "/there/is/home", 1);
    err_clear(&err);
    must(opts_parse_line(&serve, 1, argv, &values, &parsed, &err) == 0);
    if (settings_read_lines(&a) != 0)
        must(strncmp(err.text, "file:", 5) == 0 && err.text[5] >= '1' && err.text[5] <= '9' && strlen(err.text) > 12);
    check_values(&values);
    opts_fini(&serve, &values, &parsed);
    settings_fini(&settings);
    return 0;
}
