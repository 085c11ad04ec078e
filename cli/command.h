#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

/* A sub-command: its table of options (which --help, man pages and completions read), room for the values, and the function
 * that runs it. One file cmd_NAME.c a command; main.c holds the list. */

#include <stddef.h>

#include "base/err.h"
#include "base/opts.h"

struct command {
    struct opt_command opts;
    bool fetches_model;  /* -m may name a model that is to be fetched first */
    size_t values_bytes; /* of the struct that the options write into */
    /* Results go to stdout through ui.h, everything else to stderr. Returns 0, or -1 and err: main prints it and turns its
     * kind into the exit status. */
    int (*run)(void *values, const struct opts_parsed *parsed, struct err *err);
};

extern const struct command cmd_run, cmd_chat, cmd_eval, cmd_bench, cmd_tokenize, cmd_template, cmd_inspect;
extern const struct command cmd_keygen, cmd_invite;
extern const struct command cmd_plan;
extern const struct command cmd_worker, cmd_probe;
extern const struct command cmd_serve, cmd_status, cmd_stop, cmd_replan, cmd_drain;
extern const struct command cmd_completion, cmd_pull, cmd_doctor;

#endif
