#ifndef FRONT_FRONT_H
#define FRONT_FRONT_H

/* The HTTP server over an engine: OpenAI's API and what belongs to it (docs/api.md). It has its own threads: a pool that
 * speaks HTTP, a few that read bodies and tokenize, one that looks after connections that wait. None of them is ever held
 * up by a slow reader, and the engine's thread does no more for a request than wake it.
 *
 * It is up while the model loads; what needs the model answers 503 until then. Prompts are never logged. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "coordinator/engine.h"

struct front;

enum { FRONT_MAX_CONNECTIONS = 65536 };

struct front_options {
    const char *listen;       /* "127.0.0.1:8080", "[::1]:0"; another address than loopback needs keys, or no_auth */
    const char *api_key_file; /* api_keys.h; NULL: no keys */
    const char *admin_key;    /* shown by who may change the cluster; NULL: nobody may */
    const char *tls_cert, *tls_key; /* PEM files; NULL: plain HTTP */
    bool no_auth;
    const char *cors;         /* the one origin whose pages may ask, "*": any; NULL: none */
    const char *const *hosts; /* names in the Host header that are ours, besides those of loopback */
    size_t n_hosts;
    const char *model;                             /* how the model is called */
    unsigned connections, connections_per_address; /* 0: the usual */
    unsigned queue;                                /* most answers that wait or run; 0: as many as the engine takes */
};

/* Listens and serves from here on. Options are copied; the engine must outlive it. ERR_USAGE where the options contradict
 * each other, ERR_IO and the address where it cannot listen. */
struct front *front_create(const struct front_options *options, struct engine *engine, struct err *err);
/* "http://127.0.0.1:8080" */
const char *front_url(const struct front *f);
/* Takes no new connections and requests, gives running answers at most grace_ms to end (or until *hurry), then ends them.
 * Call once; blocks. */
void front_stop(struct front *f, unsigned grace_ms, bool (*hurry)(void));
void front_destroy(struct front *f); /* takes NULL; after front_stop, or instead */

#endif
