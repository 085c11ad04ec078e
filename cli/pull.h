#ifndef CLI_PULL_H
#define CLI_PULL_H

/* Models from elsewhere: a URL, or hf:OWNER/REPO:FILE (a file of a repository at huggingface.co), fetched whole into a folder.
 * All parts of a split model are fetched. What breaks off goes on where it ended, also in a later run: NAME.part holds what came,
 * NAME.part.json what it belongs to. A file stands under its name only once it is complete and its hash, where one is known, is right.
 * Main thread; shows a bar; Ctrl-C (somebody must watch) ends it and keeps what came. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/opts.h"

enum { PULL_PATH = 4096, PULL_URL = 4096, PULL_MAX_PARTS = 1024, PULL_TRIES = 6 };

struct pull_options {
    const char *from;    /* as above */
    const char *dir;     /* NULL: in the models' folder, by whom it came from */
    const char *ca_file; /* NULL: the system's */
    struct opt_list sha256; /* of each part, in order; empty: what the hub says, if it does */
};

/* Whether -m names something to be fetched rather than a file. */
bool pull_is_remote(const char *model);
/* The file, of a split model the first part. Nothing is asked for where it is there already (unless a hash says what it should be). */
int pull_model(const struct pull_options *o, char ret_path[PULL_PATH], struct err *err);

#endif
