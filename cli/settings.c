/* See settings.h. */
#include "cli/settings.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/keydir.h"
#include "cli/ui.h"

/* From the strongest to the weakest; the command line is 0. */
enum rank { RANK_COMMAND_VARIABLE = 1, RANK_VARIABLE, RANK_SECTION, RANK_FILE };
enum { VARIABLE_BYTES = 96, SHOWN_BYTES = 64 };

struct apply {
    struct settings *settings;
    const struct opt_command *const *commands;
    size_t n_commands;
    const struct opt_command *command;
    void *values;
    struct opts_parsed *parsed;
    struct err *err;
};

/* --- variables ----------------------------------------------------------- */

void settings_variable(const char *command, const char *option, char *ret, size_t size)
{
    snprintf(ret, size, "STAGECOACH_%s%s%s", command ? command : "", command ? "_" : "", option);
    for (char *s = ret; *s; s++)
        *s = *s == '-' ? '_' : (char)toupper((unsigned char)*s);
}

static int take_variable(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct apply *a = arg;

    (void)group;
    if (!opts_find(a->command, o->name))
        return 0;
    for (unsigned rank = RANK_COMMAND_VARIABLE; rank <= RANK_VARIABLE; rank++) {
        struct opts_origin origin = {.rank = rank};
        char name[VARIABLE_BYTES];
        settings_variable(rank == RANK_COMMAND_VARIABLE ? a->command->name : NULL, o->name, name, sizeof name);
        const char *value = getenv(name);
        if (!value || !*value || (rank == RANK_VARIABLE && o->own_variable))
            continue;
        snprintf(origin.text, sizeof origin.text, "%s", name);
        if (opts_parse_other(a->command, o->name, value, &origin, a->values, a->parsed, a->err) != 0)
            return -1;
    }
    return 0;
}

/* --- the file ------------------------------------------------------------ */

/* "~/models" where a path is expected, as a shell would have it. NULL: out of memory. */
static const char *expanded(struct settings *c, const struct opt *o, const char *value)
{
    const char *home = getenv("HOME");
    bool is_path = o->arg && (strcmp(o->arg, "FILE") == 0 || strcmp(o->arg, "DIR") == 0 || strcmp(o->arg, "MODEL") == 0);
    size_t len;

    if (!is_path || value[0] != '~' || value[1] != '/' || !home)
        return value;
    len = strlen(home) + strlen(value);
    char *block = malloc(sizeof(char *) + len);
    if (!block)
        return NULL;
    memcpy(block, &c->expanded, sizeof(char *));
    c->expanded = block;
    snprintf(block + sizeof(char *), len, "%s%s", home, value + 1);
    return block + sizeof(char *);
}

static const struct opt_command *find_command(const struct apply *a, const char *name)
{
    for (size_t i = 0; i < a->n_commands; i++)
        if (strcmp(a->commands[i]->name, name) == 0)
            return a->commands[i];
    return NULL;
}

/* "[serve]": *ret is NULL for a command that is not ours. */
static int read_section(const struct apply *a, char *line, const char *where, const struct opt_command **ret)
{
    char *end = strchr(line, ']'), shown[SHOWN_BYTES];

    if (!end || end[1 + strspn(end + 1, " \t")])
        return err_set(a->err, ERR_INPUT, "%s: a section is a command in brackets, such as [serve]", where);
    *end = '\0';
    *ret = find_command(a, line + 1);
    if (!*ret)
        return err_set(a->err, ERR_INPUT, "%s: [%s]: there is no command of that name (\"stagecoach --help\" lists them)", where,
                       err_printable(shown, sizeof shown, line + 1, strlen(line + 1)));
    return 0;
}

static int unknown(const struct apply *a, const struct opt_command *section, const char *name, const char *where)
{
    char shown[SHOWN_BYTES];

    err_printable(shown, sizeof shown, name, strlen(name));
    if (name[0] == '-')
        return err_set(a->err, ERR_INPUT, "%s: %s: names stand here without dashes", where, shown);
    if (section)
        return err_set(a->err, ERR_INPUT, "%s: %s has no option \"%s\" that a file may set (\"stagecoach %s --help\" lists them)", where,
                       section->name, shown, section->name);
    return err_set(a->err, ERR_INPUT, "%s: no command has an option \"%s\"", where, shown);
}

/* name = value; section NULL: for every command that has it. */
static int read_setting(const struct apply *a, const struct opt_command *section, char *line, const char *where)
{
    char *equals = strchr(line, '='), *end = equals ? equals : line + strlen(line);
    const char *value = equals ? equals + 1 + strspn(equals + 1, " \t") : "yes";
    struct opts_origin origin = {.rank = section ? RANK_SECTION : RANK_FILE};
    const struct opt *o = NULL;

    while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *end = '\0';
    for (size_t i = 0; i < a->n_commands && !o; i++)
        if (!section || section == a->commands[i])
            o = opts_find(a->commands[i], line);
    if (!o)
        return unknown(a, section, line, where);
    if (!equals && o->kind != OPT_FLAG)
        return err_set(a->err, ERR_INPUT, "%s: %s needs a value: %s = %s", where, line, line, o->arg);
    if ((section && section != a->command) || !(o = opts_find(a->command, line)))
        return 0;
    if (!(value = expanded(a->settings, o, value)))
        return err_set(a->err, ERR_MEMORY, "%s: out of memory", where);
    snprintf(origin.text, sizeof origin.text, "%s", where);
    return opts_parse_other(a->command, line, value, &origin, a->values, a->parsed, a->err);
}

static int read_lines(const struct apply *a)
{
    const struct opt_command *section = NULL;
    unsigned number = 0;
    int rc = 0;

    for (char *line = a->settings->text, *next; rc == 0 && *line; line = next) {
        char where[OPTS_MAX_ORIGIN];
        size_t len = strcspn(line, "\n");
        next = line + len + (line[len] == '\n');
        line[len] = '\0';
        snprintf(where, sizeof where, "%.480s:%u", a->settings->path, ++number);
        while (len && (line[len - 1] == ' ' || line[len - 1] == '\t' || line[len - 1] == '\r'))
            line[--len] = '\0';
        line += strspn(line, " \t");
        if (*line == '[')
            rc = read_section(a, line, where, &section);
        else if (*line && *line != '#')
            rc = read_setting(a, section, line, where);
    }
    return rc;
}

/* Which file: 1 and its path, 0 none. */
static int find_file(const struct apply *a, struct err *err)
{
    const char *given = a->parsed->config ? a->parsed->config : getenv("STAGECOACH_CONFIG");
    char folder[KEYDIR_PATH];
    struct err ignored;

    if (given && *given) {
        if (strcmp(given, "none") == 0)
            return 0;
        if ((size_t)snprintf(a->settings->path, sizeof a->settings->path, "%s", given) >= sizeof a->settings->path)
            return err_set(err, ERR_USAGE, "--config: a path of %zu bytes, at most %d allowed", strlen(given), SETTINGS_PATH - 1);
        return 1;
    }
    if (keydir_find(NULL, folder, &ignored) != 0 ||
        (size_t)snprintf(a->settings->path, sizeof a->settings->path, "%s/config", folder) >= sizeof a->settings->path ||
        access(a->settings->path, F_OK) != 0) {
        a->settings->path[0] = '\0';
        return 0;
    }
    return 1;
}

static int read_file(const struct apply *a, struct err *err)
{
    struct stat st;
    size_t len;

    if (stat(a->settings->path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IWOTH))
        return err_set(err, ERR_INPUT, "%s can be written by everybody; run: chmod o-w %s", a->settings->path, a->settings->path);
    if (!(a->settings->text = ui_read_file(a->settings->path, SETTINGS_MAX_BYTES, &len, err)))
        return -1;
    if (strlen(a->settings->text) != len)
        return err_set(err, ERR_INPUT, "%s: holds a byte 0 after %zu bytes; a text is expected", a->settings->path, strlen(a->settings->text));
    return read_lines(a);
}

int settings_apply(struct settings *c, const struct opt_command *const *commands, size_t n_commands, const struct opt_command *command,
                 void *values, struct opts_parsed *parsed, struct err *err)
{
    struct apply a = {c, commands, n_commands, command, values, parsed, err};
    int found;

    *c = (struct settings){0};
    if (parsed->alone)
        return 0;
    if (opts_for_each(command, take_variable, &a) != 0 || (found = find_file(&a, err)) < 0)
        return -1;
    return found ? read_file(&a, err) : 0;
}

void settings_fini(struct settings *c)
{
    while (c->expanded) {
        char *block = c->expanded;
        memcpy(&c->expanded, block, sizeof(char *));
        free(block);
    }
    free(c->text);
    *c = (struct settings){0};
}

/* --- showing ------------------------------------------------------------- */

struct show {
    const void *values;
    const struct opts_parsed *parsed;
    struct strbuf *out;
};

static int show_one(void *arg, const struct opt_group *group, const struct opt *o)
{
    const struct show *s = arg;
    const struct opts_origin *origin = opts_origin(s->parsed, o->name);
    struct strbuf value;

    if (group == &opts_common || o->alone)
        return 0;
    strbuf_init(&value, SETTINGS_MAX_BYTES);
    if (origin || o->def)
        opts_value_text(group, o, s->values, &value);
    strbuf_printf(s->out, "%-24s  %-24s  %s\n", o->name, value.len ? strbuf_str(&value) : "-", origin ? origin->text : "default");
    strbuf_fini(&value);
    return 0;
}

void settings_show(const struct settings *c, const struct opt_command *command, const void *values, const struct opts_parsed *parsed,
                 struct strbuf *out)
{
    struct show s = {values, parsed, out};

    strbuf_printf(out, "%-24s  %-24s  %s\n", "config file", c->path[0] ? c->path : "-", parsed->config ? "command line" : "");
    opts_for_each(command, show_one, &s);
}
