#ifndef TESTS_PIPELINE_REMOTE_H
#define TESTS_PIPELINE_REMOTE_H

/* A cluster over loopback tcp with keys, for tests: workers as processes of their own, the engine in the test's, each with a
 * folder of keys. What fails here ends the program. */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "coordinator/engine.h"

enum { REMOTE_PATH = 512, REMOTE_NODES = 4, REMOTE_ARGS = 24, REMOTE_TOKENS = 24, REMOTE_READY_MS = 60000 };

struct remote_node {
    char name[32], folder[REMOTE_PATH], keys[REMOTE_PATH], log[REMOTE_PATH];
    char key[65];
    char address[64]; /* "": it dials */
    pid_t pid;
};

struct remote {
    char folder[REMOTE_PATH], keys[REMOTE_PATH], topology_path[REMOTE_PATH];
    char program[REMOTE_PATH];
    char key[65], listen[64];
    struct remote_node nodes[REMOTE_NODES];
    unsigned n;
    struct topology *topology;
    struct engine *engine;
    pthread_mutex_t notes_lock;
    char notes[16384]; /* what the engine said; its thread adds to it */
};

/* Folders and keys; every node trusts the coordinator, which trusts nobody yet. */
void remote_init(struct remote *r, const char *name, unsigned n);
void remote_fini(struct remote *r); /* stops what runs */
unsigned remote_port(void);         /* that was free a moment ago */
void remote_dialable(struct remote *r, unsigned node, bool on);
/* more: further arguments, up to a NULL; of a node that is not dialable, --coordinator is added unless `more` has --join. */
void remote_start(struct remote *r, unsigned node, const char *const *more);
void remote_stop(struct remote *r, unsigned node, int sig);
/* Writes the topology file: the nodes of a mask, with their keys where with_keys says so. */
void remote_write_topology(struct remote *r, unsigned mask, unsigned with_keys);
void remote_open(struct remote *r, const char *model, uint32_t ctx);
bool remote_ready(struct remote *r); /* within REMOTE_READY_MS */
void remote_close(struct remote *r);
/* Whether the engine has said a text, or does within ms. */
bool remote_said(struct remote *r, const char *text, unsigned ms);
/* Whether a file contains a text, within ms. */
bool remote_log_has(const char *path, const char *text, unsigned ms);
size_t remote_log_count(const char *path, const char *text);

/* Greedy answers of one session in this process, and of the pipeline: the same? */
void remote_want(const char *model, uint32_t ctx);
bool remote_same(struct remote *r);

#endif
