#ifndef FRONT_GUARD_H
#define FRONT_GUARD_H

/* Who may ask: API keys, and on loopback the names in Host and Origin, so that no web page that somebody has open can reach
 * a server on their machine (by a foreign origin, or by DNS that leads to 127.0.0.1). Immutable after guard_init. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "front/openai.h"

enum { GUARD_MAX_KEYS = 1024, GUARD_KEY_MIN_BYTES = 8, GUARD_KEY_MAX_BYTES = 256, GUARD_HASH_BYTES = 32 };

struct guard {
    unsigned char (*keys)[GUARD_HASH_BYTES]; /* hashes: of equal length, compared in constant time */
    size_t n_keys;
    const char *const *hosts;
    size_t n_hosts;
    const char *cors;
    bool loopback;
};

/* key_file: one key a line, '#' begins a comment; NULL: no keys. The rest is borrowed. */
int guard_init(struct guard *g, const char *key_file, bool loopback, const char *const *hosts, size_t n_hosts, const char *cors,
               struct err *err);
void guard_fini(struct guard *g);

/* Headers of a request, NULL where absent. is_open: what needs no key. 0, or -1 and a 401 or 403. */
int guard_check(const struct guard *g, const char *authorization, const char *host, const char *origin, bool is_open, struct api_error *e);
/* Whether pages of this origin may read answers. */
bool guard_allows_origin(const struct guard *g, const char *origin);

#endif
