#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

/* The program as its texts tell of it: all commands, what its man page says besides. */

#include "base/opts_text.h"
#include "cli/command.h"

extern const struct command *const program_commands[];
extern const size_t program_n_commands;
extern const struct opts_program program;

const struct command *program_find(const char *name); /* NULL: there is none */

#endif
