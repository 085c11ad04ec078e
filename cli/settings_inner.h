#ifndef CLI_SETTINGS_INNER_H
#define CLI_SETTINGS_INNER_H

/* Between settings.c, which finds what is said where, and settings_file.c, which reads the config file's lines. */

#include "cli/settings.h"

/* From the strongest to the weakest; the command line is 0. */
enum settings_rank { SETTINGS_RANK_COMMAND_VARIABLE = 1, SETTINGS_RANK_VARIABLE, SETTINGS_RANK_SECTION, SETTINGS_RANK_FILE };

struct settings_apply {
    struct settings *settings;
    const struct opt_command *const *commands;
    size_t n_commands;
    const struct opt_command *command;
    void *values;
    struct opts_parsed *parsed;
    struct err *err;
};

/* Reads settings->text, which it cuts into pieces. */
int settings_read_lines(const struct settings_apply *a);

#endif
