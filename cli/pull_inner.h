#ifndef CLI_PULL_INNER_H
#define CLI_PULL_INNER_H

/* Between pull.c, which says what is to be fetched and where to, and pull_file.c, which fetches one file. */

#include <stdint.h>

#include "cli/pull.h"

enum { PULL_SHA_TEXT = 65, PULL_TAG = 256 };

struct pull_file {
    const char *url;
    char path[PULL_PATH];
    const char *token;         /* shown to the URL's own host; NULL: none */
    const char *ca_file;
    const char *sha256;        /* 64 digits; NULL: as the server says */
};

/* Fetches url to path. 0; -1: what came stays for another try. */
int pull_file(const struct pull_file *f, struct err *err);

#endif
