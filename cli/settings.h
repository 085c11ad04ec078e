#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

/* Options from elsewhere than the command line: variables of the environment (STAGECOACH_SERVE_CTX, STAGECOACH_CTX) and the
 * config file (~/.config/stagecoach/config, or --config):
 *
 *     # for every command that has such an option
 *     ctx = 8192
 *     [serve]
 *     listen = 192.168.1.10:8080
 *     no-auth = yes
 *
 * The command line wins over variables, these over the file, the file over defaults; what names the command wins over what
 * does not. The file is checked as a whole: a name that no command has is an error with its line. */

#include "base/err.h"
#include "base/opts.h"
#include "base/strbuf.h"

enum { SETTINGS_MAX_BYTES = 1 << 20, SETTINGS_PATH = 4096 };

struct settings_path {
    struct settings_path *next;
    char text[];
};

struct settings {
    char path[SETTINGS_PATH];       /* "": no file was read */
    char *text;                     /* the values point into it … */
    struct settings_path *expanded; /* … or into one of these */
};

/* Sets what the command line (which `parsed` holds already) left open. commands: all there are, to check the file's names. */
int settings_apply(struct settings *c, const struct opt_command *const *commands, size_t n_commands, const struct opt_command *command,
                 void *values, struct opts_parsed *parsed, struct err *err);
void settings_fini(struct settings *c);

/* The command's options, a line each: name, value, where it comes from. */
void settings_show(const struct settings *c, const struct opt_command *command, const void *values, const struct opts_parsed *parsed,
                 struct strbuf *out);

/* "STAGECOACH_SERVE_CTX"; command NULL: "STAGECOACH_CTX". */
void settings_variable(const char *command, const char *option, char *ret, size_t size);

#endif
