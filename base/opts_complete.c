/* See opts_text.h: completions for bash, zsh and fish. Files are offered where an option calls its value FILE or DIR, and where
 * a command takes arguments without a list of what they may be. */
#include <string.h>

#include "base/opts_text.h"

const char *const opts_shells[] = {"bash", "zsh", "fish", NULL};

struct state {
    struct strbuf *out;
    const struct opts_program *program;
    const struct opt_command *command;
};

static bool takes_file(const struct opt *o)
{
    return o->arg && (strncmp(o->arg, "FILE", 4) == 0 || strncmp(o->arg, "MODEL", 5) == 0);
}

static bool takes_dir(const struct opt *o)
{
    return o->arg && strcmp(o->arg, "DIR") == 0;
}

static void words(struct strbuf *out, const char *const *names)
{
    for (size_t i = 0; names[i]; i++)
        strbuf_printf(out, "%s%s", i ? " " : "", names[i]);
}

/* What stands between apostrophes in a shell: text, with those characters of `special` behind a backslash. */
static void quoted(struct strbuf *out, const char *text, const char *special)
{
    for (; *text; text++)
        if (*text == '\'')
            strbuf_puts(out, "'\\''");
        else
            strbuf_printf(out, strchr(special, *text) ? "\\%c" : "%c", *text);
}

/* --- bash ---------------------------------------------------------------- */

static int bash_name(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct state *s = arg;
    (void)group;
    strbuf_printf(s->out, " --%s%s", opts_is_on(o) ? "no-" : "", o->name);
    return 0;
}

static int bash_value(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct state *s = arg;

    (void)group;
    if (o->kind == OPT_FLAG)
        return 0;
    strbuf_puts(s->out, "        ");
    if (o->letter)
        strbuf_printf(s->out, "-%c|", o->letter);
    strbuf_printf(s->out, "--%s) ", o->name);
    if (o->kind == OPT_CHOICE) {
        strbuf_puts(s->out, "words='");
        words(s->out, o->choices);
        strbuf_puts(s->out, "' ;;\n");
    } else {
        strbuf_printf(s->out, "kind=%s ;;\n", takes_file(o) ? "file" : takes_dir(o) ? "dir" : "none");
    }
    return 0;
}

static void bash(struct state *s)
{
    const struct opts_program *p = s->program;

    strbuf_printf(s->out, "# Completion of %s for bash; made by \"%s completion bash\".\n_%s()\n{\n", p->name, p->name, p->name);
    strbuf_puts(s->out, "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words='' kind=word\n"
                        "    COMPREPLY=()\n"
                        "    # --name=value comes as three words.\n"
                        "    if [[ $cur == '=' ]]; then cur=''\n"
                        "    elif [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}\n"
                        "    fi\n"
                        "    if [[ $COMP_CWORD == 1 ]]; then\n        words='");
    for (size_t i = 0; i < p->n_commands; i++)
        strbuf_printf(s->out, "%s ", p->commands[i]->name);
    strbuf_puts(s->out, "help --help --version'\n    else case ${COMP_WORDS[1]} in\n    help) words='");
    for (size_t i = 0; i < p->n_commands; i++)
        strbuf_printf(s->out, i ? " %s" : "%s", p->commands[i]->name);
    strbuf_puts(s->out, "' ;;\n");
    for (size_t i = 0; i < p->n_commands; i++) {
        s->command = p->commands[i];
        strbuf_printf(s->out, "    %s)\n        case $prev in\n", s->command->name);
        opts_for_each(s->command, bash_value, s);
        strbuf_puts(s->out, "        *) if [[ $cur == -* ]]; then words='");
        opts_for_each(s->command, bash_name, s);
        strbuf_puts(s->out, "'; ");
        if (s->command->arg_choices) {
            strbuf_puts(s->out, "else words='");
            words(s->out, s->command->arg_choices);
            strbuf_puts(s->out, "'; ");
        } else if (s->command->max_args) {
            strbuf_puts(s->out, "else kind=file; ");
        }
        strbuf_puts(s->out, "fi ;;\n        esac ;;\n");
    }
    strbuf_printf(s->out,
                  "    esac; fi\n"
                  "    case $kind in\n"
                  "    word) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\") ;;\n"
                  "    file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
                  "    dir) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- \"$cur\") ;;\n"
                  "    esac\n}\ncomplete -F _%s %s\n",
                  p->name, p->name);
}

/* --- zsh ----------------------------------------------------------------- */

static int zsh_option(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct state *s = arg;

    (void)group;
    for (int letter = 0; letter < (o->letter ? 2 : 1); letter++) {
        strbuf_puts(s->out, o->kind == OPT_LIST ? "        '*" : "        '");
        if (o->letter && o->kind != OPT_LIST)
            strbuf_printf(s->out, "(-%c --%s)", o->letter, o->name);
        if (letter)
            strbuf_printf(s->out, "-%c%s[", o->letter, o->kind == OPT_FLAG ? "" : "+");
        else
            strbuf_printf(s->out, "--%s%s%s[", opts_is_on(o) ? "no-" : "", o->name, o->kind == OPT_FLAG ? "" : "=");
        quoted(s->out, o->help, "[]\\:");
        strbuf_putc(s->out, ']');
        if (o->kind != OPT_FLAG) {
            strbuf_putc(s->out, ':');
            quoted(s->out, o->arg, ":\\");
            strbuf_putc(s->out, ':');
            if (o->kind == OPT_CHOICE) {
                strbuf_putc(s->out, '(');
                words(s->out, o->choices);
                strbuf_putc(s->out, ')');
            } else {
                strbuf_puts(s->out, takes_file(o) ? "_files" : takes_dir(o) ? "_files -/" : " ");
            }
        }
        strbuf_puts(s->out, "' \\\n");
    }
    return 0;
}

static void zsh(struct state *s)
{
    const struct opts_program *p = s->program;

    strbuf_printf(s->out, "#compdef %s\n# Completion of %s for zsh; made by \"%s completion zsh\".\n_%s()\n{\n", p->name, p->name, p->name,
                  p->name);
    strbuf_puts(s->out, "    local -a commands\n    commands=(\n");
    for (size_t i = 0; i < p->n_commands; i++) {
        strbuf_printf(s->out, "        '%s:", p->commands[i]->name);
        quoted(s->out, p->commands[i]->summary, ":\\");
        strbuf_puts(s->out, "'\n");
    }
    strbuf_puts(s->out, "        'help:Show what a command takes'\n    )\n"
                        "    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n"
                        "    local name=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $name in\n"
                        "    help) (( CURRENT == 2 )) && _describe command commands ;;\n");
    for (size_t i = 0; i < p->n_commands; i++) {
        s->command = p->commands[i];
        strbuf_printf(s->out, "    %s) _arguments -s -S \\\n", s->command->name);
        opts_for_each(s->command, zsh_option, s);
        if (s->command->arg_choices) {
            strbuf_puts(s->out, "        '*:argument:(");
            words(s->out, s->command->arg_choices);
            strbuf_puts(s->out, ")' ;;\n");
        } else {
            strbuf_puts(s->out, s->command->max_args ? "        '*:file:_files' ;;\n" : "        ;;\n");
        }
    }
    strbuf_printf(s->out, "    esac\n}\nif [[ $funcstack[1] == _%s ]]; then _%s \"$@\"; else compdef _%s %s; fi\n", p->name, p->name,
                  p->name, p->name);
}

/* --- fish ---------------------------------------------------------------- */

static int fish_option(void *arg, const struct opt_group *group, const struct opt *o)
{
    struct state *s = arg;

    (void)group;
    strbuf_printf(s->out, "complete -c %s -n '__fish_seen_subcommand_from %s' -l %s%s", s->program->name, s->command->name,
                  opts_is_on(o) ? "no-" : "", o->name);
    if (o->letter)
        strbuf_printf(s->out, " -s %c", o->letter);
    if (o->kind == OPT_CHOICE) {
        strbuf_puts(s->out, " -x -a '");
        words(s->out, o->choices);
        strbuf_putc(s->out, '\'');
    } else if (o->kind != OPT_FLAG) {
        strbuf_puts(s->out, takes_file(o) ? " -r -F" : takes_dir(o) ? " -x -a '(__fish_complete_directories)'" : " -x");
    }
    strbuf_puts(s->out, " -d '");
    for (const char *c = o->help; *c; c++) /* fish's own way of an apostrophe */
        strbuf_printf(s->out, *c == '\'' || *c == '\\' ? "\\%c" : "%c", *c);
    strbuf_puts(s->out, "'\n");
    return 0;
}

static void fish(struct state *s)
{
    const struct opts_program *p = s->program;

    strbuf_printf(s->out, "# Completion of %s for fish; made by \"%s completion fish\".\ncomplete -c %s -f\n", p->name, p->name, p->name);
    for (size_t i = 0; i < p->n_commands; i++) {
        strbuf_printf(s->out, "complete -c %s -n __fish_use_subcommand -a %s -d '", p->name, p->commands[i]->name);
        for (const char *c = p->commands[i]->summary; *c; c++)
            strbuf_printf(s->out, *c == '\'' || *c == '\\' ? "\\%c" : "%c", *c);
        strbuf_puts(s->out, "'\n");
    }
    strbuf_printf(s->out, "complete -c %s -n __fish_use_subcommand -a help -d 'Show what a command takes'\n", p->name);
    strbuf_printf(s->out, "complete -c %s -n '__fish_seen_subcommand_from help' -a '", p->name);
    for (size_t i = 0; i < p->n_commands; i++)
        strbuf_printf(s->out, i ? " %s" : "%s", p->commands[i]->name);
    strbuf_puts(s->out, "'\n");
    for (size_t i = 0; i < p->n_commands; i++) {
        s->command = p->commands[i];
        opts_for_each(s->command, fish_option, s);
        if (s->command->arg_choices) {
            strbuf_printf(s->out, "complete -c %s -n '__fish_seen_subcommand_from %s' -a '", p->name, s->command->name);
            words(s->out, s->command->arg_choices);
            strbuf_puts(s->out, "'\n");
        } else if (s->command->max_args) {
            strbuf_printf(s->out, "complete -c %s -n '__fish_seen_subcommand_from %s' -F\n", p->name, s->command->name);
        }
    }
}

void opts_completion(const struct opts_program *program, enum opts_shell shell, struct strbuf *out)
{
    struct state s = {out, program, NULL};

    if (shell == OPTS_BASH)
        bash(&s);
    else if (shell == OPTS_ZSH)
        zsh(&s);
    else
        fish(&s);
}
