#ifndef CLI_SERVICE_H
#define CLI_SERVICE_H

/* A command of ours as a systemd service of this user: its unit is written, and systemd told. Says what it did. */

#include <stdbool.h>

#include "base/err.h"
#include "base/opts.h"
#include "base/strbuf.h"

/* The command line that runs `command` with the options that were given on this one (paths made absolute), but for those in `without`
 * (ends with NULL), and with `more` behind them. Words stand as systemd reads them. */
int service_command(const struct opt_command *command, const void *values, const struct opts_parsed *parsed, const char *const *without,
                    const char *const *more, struct strbuf *out, struct err *err);

/* Writes ~/.config/systemd/user/NAME.service, loads and starts it. dry_run: only prints the unit and what would be run. */
int service_install(const char *name, const char *what, const char *command_line, bool dry_run, struct err *err);

#endif
