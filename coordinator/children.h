#ifndef COORDINATOR_CHILDREN_H
#define COORDINATOR_CHILDREN_H

/* Worker processes of our own (`--workers N`): the same program, started as `worker --child`, each listening on a socket in a
 * folder that only this user can enter. They end with us, whatever happens to us. The engine's thread only. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { CHILDREN_ARGS_MAX = 64 }; /* a worker's command line */

struct children;

struct children_options {
    const char *program, *model, *isa; /* isa NULL: the best */
    const char *folder;                /* to make their sockets' folder in; NULL, or too long a name: /tmp */
    unsigned n, threads;               /* threads of each */
    const char *const *more;           /* further arguments, up to a NULL; NULL: none */
};

struct children *children_create(const struct children_options *o, struct err *err);
void children_destroy(struct children *c); /* SIGTERM, SIGKILL after a second, waits; takes NULL */

unsigned children_count(const struct children *c);
const char *children_name(const struct children *c, unsigned i);    /* "worker0" */
const char *children_address(const struct children *c, unsigned i); /* "ipc://…" */
bool children_running(const struct children *c, unsigned i);
int children_pid(const struct children *c, unsigned i); /* 0: none */

int children_start(struct children *c, unsigned i, struct err *err);
/* One that has ended since the last call: its number, and how in words; -1: none. *ret_by_itself: no signal ended it. */
int children_reap(struct children *c, bool *ret_by_itself, char *ret_how, unsigned how_bytes);
void children_kill(struct children *c, unsigned i); /* one that does not answer */

#endif
