#ifndef BASE_OPTS_H
#define BASE_OPTS_H

/* Command-line options as tables. A command describes itself in one constant struct: groups of options, what follows
 * them, its description and examples. The parser, --help, man pages and shell completions (base/opts_text.h) all read that
 * table, so that they cannot disagree. A value is written into the command's own struct, at the group's base plus the
 * option's offset; groups that several commands share (model, sampling) are embedded structs.
 *
 * GNU forms: --name=value, --name value, -n 5, -n5, -ab, --, and --no-name for flags. Later ones win, but a list grows.
 * Other sources (environment, files) come after the command line, by falling precedence: what is set already stays. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

enum opt_kind {
    OPT_FLAG,   /* bool */
    OPT_INT,    /* int64_t within min … max */
    OPT_UINT,   /* uint64_t, any */
    OPT_SIZE,   /* uint64_t bytes: 8GiB, 512MB, 4096 */
    OPT_FLOAT,  /* double within min … max */
    OPT_STRING, /* const char *, borrowed from argv or the table */
    OPT_CHOICE, /* const char *, one of `choices` (the table's own pointer) */
    OPT_LIST,   /* struct opt_list, one item each time the option is given */
};

#define OPTS_EXIT_STATUS "0 done, 1 failed, 2 wrong usage."
enum { OPTS_MAX = 128, OPTS_MAX_LIST = 4096, OPTS_MAX_ORIGIN = 512 };

struct opt_list {
    const char **items; /* the strings are argv's */
    size_t len, cap;
};

struct opt {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* 0: none */
    enum opt_kind kind;
    bool required;
    const char *arg; /* what --help calls the value: "FILE" */
    size_t offset;
    double min, max;            /* OPT_INT and OPT_FLOAT; both 0: any */
    const char *const *choices; /* OPT_CHOICE: ends with NULL */
    const char *def;            /* parsed like a given value; NULL: zero */
    const char *help;           /* a sentence without its full stop */
    bool alone;                 /* where it is given, no other source counts than the command line */
    bool own_variable;          /* no variable for all commands: PROGRAM_COMMAND_NAME alone, because PROGRAM_NAME is something else */
};

struct opt_group {
    const char *title; /* NULL ends the list of groups */
    const struct opt *opts;
    size_t base;
    bool optional; /* nothing in it is required */
};

struct opt_example {
    const char *command; /* NULL ends the list */
    const char *what;
};

struct opt_command {
    const char *name;
    const char *summary;     /* one line for the list of commands */
    const char *synopsis;    /* what stands behind the name: "-m FILE -p TEXT [OPTION]…" */
    const char *description; /* paragraphs, separated by an empty line */
    const struct opt_group *groups;
    size_t min_args, max_args;      /* how many arguments that are no options */
    const char *const *arg_choices; /* what they may be, for completions; NULL: files */
    const struct opt_example *examples;
    const char *exit_status; /* NULL: OPTS_EXIT_STATUS */
};

/* Where a value came from. */
struct opts_origin {
    char text[OPTS_MAX_ORIGIN]; /* "command line", "STAGECOACH_CTX", "~/.config/stagecoach/config:3" */
    unsigned rank;              /* of several that set an option the one that came first wins */
};

struct opts_parsed {
    const char **args; /* what was no option, in order; opts_fini frees the array */
    size_t n_args;
    bool help;  /* --help was there: nothing else was checked */
    bool alone; /* an option was given that stands for itself */
    /* What every command takes: --config, --color, --show-config. */
    const char *config, *color;
    bool show_config;
    const struct opt *given[OPTS_MAX];
    struct opts_origin *origins; /* of each; opts_fini frees the array */
    size_t n_given;
};

/* argv[0] is passed over. Defaults are set first. On failure: ERR_USAGE, the text naming the option, the value and what is
 * allowed; an unknown option names its nearest relative. *ret and the lists must go through opts_fini either way. */
int opts_parse(const struct opt_command *command, int argc, char **argv, void *values, struct opts_parsed *ret, struct err *err);

/* The same in steps, where there are other sources: the command line, what others say, whether all is there. */
int opts_parse_line(const struct opt_command *command, int argc, char **argv, void *values, struct opts_parsed *ret, struct err *err);
/* Sets an option as `origin` says, unless one of lower rank did already. The value is borrowed. */
int opts_parse_other(const struct opt_command *command, const char *name, const char *value, const struct opts_origin *origin, void *values,
                     struct opts_parsed *parsed, struct err *err);
int opts_parse_end(const struct opt_command *command, const struct opts_parsed *parsed, struct err *err);

void opts_fini(const struct opt_command *command, void *values, struct opts_parsed *parsed);
bool opts_given(const struct opts_parsed *parsed, const char *name);
/* Who set it; NULL: nobody, it has its default. */
const struct opts_origin *opts_origin(const struct opts_parsed *parsed, const char *name);
/* Whether a command takes such an option from other sources than the command line (not --help and its like). */
const struct opt *opts_find(const struct opt_command *command, const char *name);
/* Appends the value that an option has, as it could be given. */
void opts_value_text(const struct opt_group *group, const struct opt *o, const void *values, struct strbuf *out);

/* Sets one option by name, as if it had been given ("temp", "0.7"): for settings at a prompt. */
int opts_set(const struct opt_command *command, const char *name, const char *value, void *values, struct err *err);

/* Calls fn for every option, those of every command included, until it returns something else than 0; returns that. */
int opts_for_each(const struct opt_command *command, int (*fn)(void *arg, const struct opt_group *group, const struct opt *opt), void *arg);
/* The group of what every command takes (--help, --config, …): its values are in struct opts_parsed. */
extern const struct opt_group opts_common;

/* The nearest of n names to a mistyped one, or NULL if none is near. */
const char *opts_nearest(const char *given, const char *const *names, size_t n);

/* "8GiB", "512MB", "1.5GB", "4096" (bytes), "64k" is not one: KiB MiB GiB TiB count in 1024, KB MB GB TB in 1000. */
int opts_size(const char *text, uint64_t *ret, struct err *err);

#endif
