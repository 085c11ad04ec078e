#ifndef BASE_OPTS_TEXT_H
#define BASE_OPTS_TEXT_H

/* Texts made of tables of options: --help, man pages, completions for shells. Pure: a table in, text out. */

#include <stdbool.h>
#include <stddef.h>

#include "base/opts.h"

/* A program with commands, for the texts that tell of all of them. */
struct opts_program {
    const char *name, *version;
    const char *summary;     /* one line, without a full stop */
    const char *description; /* paragraphs */
    const struct opt_command *const *commands;
    size_t n_commands;
    const struct opt_example *examples;
    const struct opts_section *sections; /* of its man page, behind the commands */
};
struct opts_section {
    const char *title, *text; /* paragraphs; title NULL ends the list */
};

/* The text of `program command --help`, lines at most `width` columns where words allow it. */
void opts_help(const struct opt_command *command, const char *program, unsigned width, struct strbuf *out);
/* Appends text in lines of at most `width` columns, all but the first indented; column: where the first begins. */
void opts_wrap(struct strbuf *out, const char *text, unsigned column, unsigned indent, unsigned width);
/* An option's sentence with its choices and default. */
void opts_help_sentence(const struct opt *o, struct strbuf *out);
/* A flag that is on by default: its --no- form is what is shown. */
bool opts_is_on(const struct opt *o);

/* Man pages in man(7): program.1 (command NULL) or program-command.1. */
void opts_man(const struct opts_program *program, const struct opt_command *command, struct strbuf *out);

enum opts_shell { OPTS_BASH, OPTS_ZSH, OPTS_FISH };
extern const char *const opts_shells[]; /* "bash", "zsh", "fish", NULL */
void opts_completion(const struct opts_program *program, enum opts_shell shell, struct strbuf *out);

#endif
