/* See service.h. */
#include "cli/service.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/ui.h"

enum { UNIT_PATH = 4096, LINE_MAX_BYTES = 64 << 10 };
extern char **environ;

/* --- the command line ---------------------------------------------------- */

/* One word of ExecStart=, see systemd.service(5). */
static void put_word(struct strbuf *out, const char *word)
{
    strbuf_puts(out, out->len ? " \"" : "\"");
    for (; *word; word++)
        if (*word == '"' || *word == '\\')
            strbuf_printf(out, "\\%c", *word);
        else if (*word == '%' || *word == '$')
            strbuf_printf(out, "%c%c", *word, *word);
        else if (*word != '\n')
            strbuf_putc(out, *word);
    strbuf_putc(out, '"');
}

struct line {
    const void *values;
    const struct opts_parsed *parsed;
    const char *const *without;
    struct strbuf *out;
    struct err *err;
};

static void put_option(struct line *l, const struct opt *o, const char *value)
{
    bool is_path = o->arg && (strcmp(o->arg, "DIR") == 0 || strcmp(o->arg, "FILE") == 0);
    struct strbuf word;
    char *whole = is_path ? realpath(value, NULL) : NULL;

    strbuf_init(&word, LINE_MAX_BYTES);
    if (o->kind == OPT_FLAG)
        strbuf_printf(&word, strcmp(value, "yes") == 0 ? "--%s" : "--no-%s", o->name);
    else
        strbuf_printf(&word, "--%s=%s", o->name, whole ? whole : value);
    put_word(l->out, strbuf_str(&word));
    strbuf_fini(&word);
    free(whole);
}

static int add_option(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct line *l = arg;
    const struct opts_origin *origin = opts_origin(l->parsed, o->name);
    struct strbuf value;

    if (!origin || strncmp(origin->text, "/", 1) == 0 || group == &opts_common) /* what a file says it will say again */
        return 0;
    for (size_t i = 0; l->without[i]; i++)
        if (strcmp(l->without[i], o->name) == 0)
            return 0;
    if (o->kind == OPT_LIST) {
        const struct opt_list *list = (const struct opt_list *)(const void *)((const char *)l->values + group->base + o->offset);
        for (size_t i = 0; i < list->len; i++)
            put_option(l, o, list->items[i]);
        return 0;
    }
    strbuf_init(&value, LINE_MAX_BYTES);
    opts_value_text(group, o, l->values, &value);
    put_option(l, o, strbuf_str(&value));
    strbuf_fini(&value);
    return 0;
}

int service_command(const struct opt_command *command, const void *values, const struct opts_parsed *parsed, const char *const *without,
                    const char *const *more, struct strbuf *out, struct err *err)
{
    struct line l = {values, parsed, without, out, err};
    char program[UNIT_PATH];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);

    if (n <= 0)
        return err_errno(err, errno, "finding this program's own path");
    program[n] = '\0';
    put_word(out, program);
    put_word(out, command->name);
    opts_for_each(command, add_option, &l);
    for (; *more; more++)
        put_word(out, *more);
    return strbuf_check(out, "the service's command line", err);
}

/* --- the unit ------------------------------------------------------------ */

static int unit_path(const char *name, char path[UNIT_PATH], struct err *err)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int n = -1;

    if (config && *config == '/')
        n = snprintf(path, UNIT_PATH, "%s/systemd/user/%s.service", config, name);
    else if (home && *home == '/')
        n = snprintf(path, UNIT_PATH, "%s/.config/systemd/user/%s.service", home, name);
    return n > 0 && n < UNIT_PATH ? 0 : err_set(err, ERR_NOT_FOUND, "there is no home folder to write a unit to: set HOME");
}

static void unit_text(const char *what, const char *command_line, struct strbuf *out)
{
    strbuf_printf(out,
                  "# Written by \"stagecoach worker --service\".\n[Unit]\nDescription=%s\nAfter=network-online.target\n"
                  "StartLimitIntervalSec=0\n\n[Service]\nExecStart=%s\nRestart=always\nRestartSec=2\nTimeoutStopSec=30\nLimitNOFILE=65536\n\n"
                  "[Install]\nWantedBy=default.target\n",
                  what, command_line);
}

static int write_unit(const char *path, const struct strbuf *text, struct err *err)
{
    char folder[UNIT_PATH];

    snprintf(folder, sizeof folder, "%s", path);
    for (char *s = strchr(folder + 1, '/'); s; s = strchr(s + 1, '/')) {
        *s = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return err_errno(err, errno, "making %s", folder);
        *s = '/';
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool good = fd >= 0 && write(fd, text->data, text->len) == (ssize_t)text->len;
    int failed = errno;
    if (fd >= 0)
        close(fd);
    return good ? 0 : err_errno(err, failed, "writing %s", path);
}

/* Runs a program of the system's to its end. */
static int run(const char *const *words, struct err *err)
{
    pid_t pid;
    int status, rc = posix_spawnp(&pid, words[0], NULL, NULL, (char *const *)(uintptr_t)words, environ);

    if (rc != 0)
        return err_errno(err, rc, "running %s (without systemd, start the worker as your system starts services)", words[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err_set(err, ERR_IO, "%s %s %s failed", words[0], words[1], words[2]);
}

int service_install(const char *name, const char *what, const char *command_line, bool dry_run, struct err *err)
{
    char path[UNIT_PATH], unit[128];
    const char *const reload[] = {"systemctl", "--user", "daemon-reload", NULL}, *const start[] = {"systemctl", "--user", "enable", "--now", unit, NULL};
    struct strbuf text;
    int rc;

    if (unit_path(name, path, err) != 0)
        return -1;
    snprintf(unit, sizeof unit, "%s.service", name);
    strbuf_init(&text, 4 * LINE_MAX_BYTES);
    unit_text(what, command_line, &text);
    rc = strbuf_check(&text, "the unit", err);
    if (rc == 0 && dry_run) {
        ui_foreign("# ", 2);
        ui_foreign(path, strlen(path));
        ui_foreign("\n", 1);
        ui_foreign(strbuf_str(&text), text.len);
        ui_outf("# systemctl --user daemon-reload\n# systemctl --user enable --now %s\n", unit);
    } else if (rc == 0 && (rc = write_unit(path, &text, err)) == 0) {
        ui_say("wrote %s", path);
        if ((rc = run(reload, err)) == 0 && (rc = run(start, err)) == 0) {
            ui_say("started %s; \"systemctl --user status %s\" and \"journalctl --user -u %s\" show how it is", unit, name, name);
            ui_say("\"loginctl enable-linger\" lets it run while you are not logged in");
        }
    }
    strbuf_fini(&text);
    return rc;
}
