/* See settings_inner.h: the config file's lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/settings_inner.h"

enum { SHOWN_BYTES = 64 };

/* "~/models" where a path is expected, as a shell would have it. NULL: out of memory. */
static const char *expanded(struct settings *c, const struct opt *o, const char *value)
{
    const char *home = getenv("HOME");
    bool is_path = o->arg && (strcmp(o->arg, "FILE") == 0 || strcmp(o->arg, "DIR") == 0 || strcmp(o->arg, "MODEL") == 0);
    size_t len;

    if (!is_path || value[0] != '~' || value[1] != '/' || !home)
        return value;
    len = strlen(home) + strlen(value);
    struct settings_path *path = malloc(sizeof *path + len);
    if (!path)
        return NULL;
    path->next = c->expanded;
    c->expanded = path;
    snprintf(path->text, len, "%s%s", home, value + 1);
    return path->text;
}

static const struct opt_command *find_command(const struct settings_apply *a, const char *name)
{
    for (size_t i = 0; i < a->n_commands; i++)
        if (strcmp(a->commands[i]->name, name) == 0)
            return a->commands[i];
    return NULL;
}

/* "[serve]": *ret is NULL for a command that is not ours. */
static int read_section(const struct settings_apply *a, char *line, const char *where, const struct opt_command **ret)
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

static int unknown(const struct settings_apply *a, const struct opt_command *section, const char *name, const char *where)
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
static int read_setting(const struct settings_apply *a, const struct opt_command *section, char *line, const char *where)
{
    char *equals = strchr(line, '='), *end = equals ? equals : line + strlen(line);
    const char *value = equals ? equals + 1 + strspn(equals + 1, " \t") : "yes";
    struct opts_origin origin = {.rank = section ? SETTINGS_RANK_SECTION : SETTINGS_RANK_FILE};
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

int settings_read_lines(const struct settings_apply *a)
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

void settings_fini(struct settings *c)
{
    while (c->expanded) {
        struct settings_path *path = c->expanded;
        c->expanded = path->next;
        free(path);
    }
    free(c->text);
    *c = (struct settings){0};
}
