/* See settings.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/keydir.h"
#include "cli/settings_inner.h"
#include "cli/ui.h"

enum { VARIABLE_BYTES = 96 };

/* --- variables ----------------------------------------------------------- */

void settings_variable(const char *command, const char *option, char *ret, size_t size)
{
    snprintf(ret, size, "STAGECOACH_%s%s%s", command ? command : "", command ? "_" : "", option);
    for (char *s = ret; *s; s++)
        *s = *s == '-' ? '_' : (char)toupper((unsigned char)*s);
}

static int take_variable(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct settings_apply *a = arg;

    (void)group;
    if (!opts_find(a->command, o->name))
        return 0;
    for (unsigned rank = SETTINGS_RANK_COMMAND_VARIABLE; rank <= SETTINGS_RANK_VARIABLE; rank++) {
        struct opts_origin origin = {.rank = rank};
        char name[VARIABLE_BYTES];
        settings_variable(rank == SETTINGS_RANK_COMMAND_VARIABLE ? a->command->name : NULL, o->name, name, sizeof name);
        const char *value = getenv(name);
        if (!value || !*value || (rank == SETTINGS_RANK_VARIABLE && o->own_variable))
            continue;
        snprintf(origin.text, sizeof origin.text, "%s", name);
        if (opts_parse_other(a->command, o->name, value, &origin, a->values, a->parsed, a->err) != 0)
            return -1;
    }
    return 0;
}

/* --- the file ------------------------------------------------------------ */

/* Which file: 1 and its path, 0 none. */
static int find_file(const struct settings_apply *a, struct err *err)
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

static int read_file(const struct settings_apply *a, struct err *err)
{
    struct stat st;
    size_t len;

    if (stat(a->settings->path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IWOTH))
        return err_set(err, ERR_INPUT, "%s can be written by everybody; run: chmod o-w %s", a->settings->path, a->settings->path);
    if (!(a->settings->text = ui_read_file(a->settings->path, SETTINGS_MAX_BYTES, &len, err)))
        return -1;
    if (strlen(a->settings->text) != len)
        return err_set(err, ERR_INPUT, "%s: holds a byte 0 after %zu bytes; a text is expected", a->settings->path, strlen(a->settings->text));
    return settings_read_lines(a);
}

int settings_apply(struct settings *c, const struct opt_command *const *commands, size_t n_commands, const struct opt_command *command,
                 void *values, struct opts_parsed *parsed, struct err *err)
{
    struct settings_apply a = {c, commands, n_commands, command, values, parsed, err};
    int found;

    *c = (struct settings){0};
    if (parsed->alone)
        return 0;
    if (opts_for_each(command, take_variable, &a) != 0 || (found = find_file(&a, err)) < 0)
        return -1;
    return found ? read_file(&a, err) : 0;
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
    if (out->data) { /* values come from files and variables */
        err_clean(out->data, true);
        out->len = strlen(out->data);
    }
}
